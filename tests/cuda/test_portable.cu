/* test_portable.cu - every wrapper of portable.cuh that works within a warp or a thread, against
 * plain arithmetic: exchanges, votes, reductions, atomics, bits, packed halves, FP8, loads,
 * barriers, "last block finishes".  Matrices and copies: test_portable_async.cu. */
#include "tests/cuda/rig.h"

#include <math.h>

enum { LANES = 32 };

/* ---- within a warp ----------------------------------------------------------------------------
 */

__global__ void exchange_kernel(float *f, uint32_t *u)
{
    int l = (int)threadIdx.x;
    float v = (float)l * 1.5f - 7;
    f[l] = cu_warp_sum(v);
    f[32 + l] = cu_warp_max(v);
    f[64 + l] = __shfl_up_sync(CU_FULL, v, 3);
    f[96 + l] = __shfl_down_sync(CU_FULL, v, 5);
    f[128 + l] = __shfl_sync(CU_FULL, v, 35);       /* lane modulo 32 */
    f[160 + l] = __shfl_sync(CU_FULL, v, l + 1, 8); /* within eights */
    f[192 + l] = __shfl_down_sync(CU_FULL, v, 3, 16);
    f[224 + l] = __shfl_xor_sync(CU_FULL, v, 4, 8);
    unsigned long long w = (unsigned long long)l << 40 | 5;
    f[256 + l] = (float)(__shfl_xor_sync(CU_FULL, w, 17) >> 40);
    u[l] = __match_any_sync(CU_FULL, l % 5);
    u[32 + l] = (unsigned)(__any_sync(CU_FULL, l == 31) * 2 + __any_sync(CU_FULL, l > 99));
    u[64 + l] = (unsigned)(__all_sync(CU_FULL, l < 32) * 2 + __all_sync(CU_FULL, l < 31));
    u[96 + l] = cu_redux_add((uint32_t)(l * l));
    u[128 + l] = cu_redux_max((uint32_t)l ^ 21);
    u[160 + l] = cu_redux_min((uint32_t)l + 4);
    u[192 + l] = cu_redux_and(0xf0u | (uint32_t)l);
    u[224 + l] = cu_redux_or(1u << l);
    u[256 + l] = __ballot_sync(CU_FULL, l % 3 == 0);
}

START_TEST(exchanges)
{
    rig_buf<float> f(288);
    rig_buf<uint32_t> u(288);
    GPU_LAUNCH(exchange_kernel, dim3(1), dim3(32), 0, false, rig_stream, f.d, u.d);
    f.down();
    u.down();
    uint32_t thirds = 0;
    for (int i = 0; i < LANES; i += 3) thirds |= 1u << i;
    for (int l = 0; l < LANES; l++) {
        auto v = [](int lane) { return (float)lane * 1.5f - 7; };
        uint32_t same = 0, most = 0;
        for (int i = 0; i < LANES; i++) {
            if (i % 5 == l % 5) same |= 1u << i;
            if ((uint32_t)(i ^ 21) > most) most = (uint32_t)(i ^ 21);
        }
        ck_assert(f[l] == 31 * 16 * 1.5f - 7 * 32 && f[32 + l] == v(31));
        ck_assert(f[64 + l] == v(l < 3 ? l : l - 3) && f[96 + l] == v(l > 26 ? l : l + 5));
        ck_assert(f[128 + l] == v(3) && f[160 + l] == v(l / 8 * 8 + (l + 1) % 8));
        ck_assert(f[192 + l] == v(l % 16 + 3 < 16 ? l + 3 : l) && f[224 + l] == v(l ^ 4));
        ck_assert(f[256 + l] == (float)(l ^ 17));
        ck_assert(u[l] == same && u[32 + l] == 2 && u[64 + l] == 2);
        ck_assert(u[96 + l] == 10416 && u[128 + l] == most && u[160 + l] == 4);
        ck_assert(u[192 + l] == 0xf0 && u[224 + l] == CU_FULL && u[256 + l] == thirds);
    }
}
END_TEST

/* Halves of a warp go different ways, meet among themselves, then all together. */
__global__ void masks_kernel(int *out)
{
    int l = (int)threadIdx.x, v = l;
    if (l < 16) {
        for (int i = 0; i < 3; i++) v += __shfl_xor_sync(0xffffu, v, 1);
    } else if (l < 24) {
        v = __shfl_sync(0x00ff0000u, v, 20);
    } else {
        __syncwarp(0xff000000u);
        v = (int)__ballot_sync(0xff000000u, l & 1);
    }
    __syncwarp();
    out[l] = __shfl_sync(CU_FULL, v, 31 - l);
    if (l & 1) return; /* lanes that have returned need not arrive */
    __syncwarp();
    out[32 + l] = __shfl_xor_sync(0x55555555u, v, 2);
}

START_TEST(partial_masks)
{
    rig_buf<int> o(64);
    GPU_LAUNCH(masks_kernel, dim3(1), dim3(32), 0, false, rig_stream, o.d);
    o.down();
    int v[LANES];
    for (int l = 0; l < LANES; l++) v[l] = l < 16 ? l : l < 24 ? 20 : (int)0xaa000000;
    for (int i = 0; i < 3; i++) {
        int w[16];
        for (int l = 0; l < 16; l++) w[l] = v[l] + v[l ^ 1];
        for (int l = 0; l < 16; l++) v[l] = w[l];
    }
    for (int l = 0; l < LANES; l++) {
        ck_assert_int_eq(o[l], v[31 - l]);
        if (!(l & 1)) ck_assert_int_eq(o[32 + l], v[l ^ 2]);
    }
}
END_TEST

/* Blocks of any shape: the last warp may be short, threads are counted x first. */
__global__ void shape_kernel(unsigned *out)
{
    unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned n = blockDim.x * blockDim.y * blockDim.z;
    unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    __syncthreads();
    out[b * n + t] = __ballot_sync(CU_FULL, 1);
}

START_TEST(shapes)
{
    rig_buf<unsigned> o(2 * 3 * 2 * 5 * 7 * 2);
    GPU_LAUNCH(shape_kernel, dim3(2, 3, 2), dim3(5, 7, 2), 0, false, rig_stream, o.d);
    o.down();
    for (size_t i = 0; i < o.n; i++) ck_assert_uint_eq(o[i], i % 70 < 64 ? CU_FULL : 0x3f);
}
END_TEST

/* ---- atomics ----------------------------------------------------------------------------------
 */

__global__ void atomic_kernel(int *i, unsigned *u, unsigned long long *q)
{
    int t = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(i, 1);
    atomicMax(i + 1, t);
    atomicMin(i + 2, -t);
    atomicOr(u, 1u << (t & 31));
    atomicAdd(u + 1, 2u);
    atomicAdd(q, (unsigned long long)t << 20);
    atomicMax(q + 1, (unsigned long long)(t * 7919 % 1000) << 32 | (unsigned)t);
    if (atomicCAS(u + 2, 0u, (unsigned)t + 1) == 0) atomicAdd(u + 3, 1u);
    atomicAnd(u + 4, ~(1u << (t & 31)));
    atomicSub(u + 5, 1u);
    if (atomicExch(u + 6, (unsigned)t + 1) == 0) atomicAdd(u + 7, 1u);
}

START_TEST(atomics)
{
    rig_buf<int> i(3);
    rig_buf<unsigned> u(8);
    rig_buf<unsigned long long> q(2);
    u[4] = ~0u;
    u[5] = 800;
    i.up();
    u.up();
    q.up();
    GPU_LAUNCH(atomic_kernel, dim3(8), dim3(96), 0, false, rig_stream, i.d, u.d, q.d);
    i.down();
    u.down();
    q.down();
    unsigned long long sum = 0, most = 0;
    for (int t = 0; t < 768; t++) {
        unsigned long long c = (unsigned long long)(t * 7919 % 1000) << 32 | (unsigned)t;
        sum += (unsigned long long)t << 20;
        if (c > most) most = c;
    }
    ck_assert(i[0] == 768 && i[1] == 767 && i[2] == -767);
    ck_assert(u[0] == ~0u && u[1] == 1536 && u[2] && u[3] == 1 && u[4] == 0);
    ck_assert(u[5] == 32 && u[6] && u[7] == 1);
    ck_assert(q[0] == sum && q[1] == most);
}
END_TEST

/* ---- bits and arithmetic ----------------------------------------------------------------------
 */

__global__ void bits_kernel(uint32_t *o, const uint32_t *a)
{
    int t = (int)threadIdx.x;
    uint32_t x = a[t], y = a[t + 32], z = a[t + 64];
    o[t] = cu_lop3<0xea>(x, y, z);
    o[32 + t] = cu_prmt(x, y, z & 0xffff);
    o[64 + t] = (uint32_t)cu_dp4a(x, y, (int)z);
    o[96 + t] = cu_lop3<0x96>(x, y, z);
    o[128 + t] = __brev(x);
    o[160 + t] = (uint32_t)(__popc(x) + 100 * __clz((int)(x >> (t & 31))) + 10000 * __ffs((int)x));
    o[192 + t] = __umulhi(x, y);
    o[224 + t] = __funnelshift_l(x, y, z & 31) ^ __funnelshift_r(y, x, z & 31);
}

START_TEST(bits)
{
    rig_buf<uint32_t> a(96), o(256);
    for (size_t i = 0; i < a.n; i++) a[i] = rig_u32();
    a.up();
    GPU_LAUNCH(bits_kernel, dim3(1), dim3(32), 0, false, rig_stream, o.d, (const uint32_t *)a.d);
    o.down();
    for (int t = 0; t < LANES; t++) {
        uint32_t x = a[t], y = a[32 + t], z = a[64 + t], p = 0, rev = 0, s = z & 31;
        uint8_t b[8];
        memcpy(b, &x, 4);
        memcpy(b + 4, &y, 4);
        for (int i = 0; i < 4; i++) {
            int n = z >> 4 * i & 15;
            uint32_t v = b[n & 7];
            if (n & 8) v = v & 128 ? 255 : 0;
            p |= v << 8 * i;
        }
        int d = (int)z, high = 0, first = 0;
        for (int i = 0; i < 4; i++) d += (int8_t)b[i] * (int8_t)b[4 + i];
        for (int i = 0; i < 32; i++) rev |= (x >> i & 1) << (31 - i);
        for (uint32_t v = x >> (t & 31); high < 32 && !(v >> (31 - high) & 1);) high++;
        while (first < 32 && !(x >> first & 1)) first++;
        ck_assert(o[t] == ((x & y) | z) && o[32 + t] == p && o[64 + t] == (uint32_t)d);
        ck_assert(o[96 + t] == (x ^ y ^ z) && o[128 + t] == rev);
        int ones = 0;
        for (int i = 0; i < 32; i++) ones += x >> i & 1;
        ck_assert_uint_eq(o[160 + t], (uint32_t)(ones + 100 * high + 10000 * (x ? first + 1 : 0)));
        ck_assert_uint_eq(o[192 + t], (uint32_t)((uint64_t)x * y >> 32));
        uint32_t left = s ? y << s | x >> (32 - s) : y, right = s ? y >> s | x << (32 - s) : y;
        ck_assert_uint_eq(o[224 + t], left ^ right);
    }
}
END_TEST

__global__ void convert_kernel(int *o, const float *x, int n)
{
    for (int i = (int)threadIdx.x; i < n; i += 32) {
        o[i] = __float2int_rn(x[i]);
        o[n + i] = __float2int_rz(x[i]);
        o[2 * n + i] = __float2int_rd(x[i]);
        o[3 * n + i] = __float2int_ru(x[i]);
        o[4 * n + i] = (int)__float2uint_rn(x[i]);
        o[5 * n + i] = __float_as_int(__saturatef(x[i]));
    }
}

START_TEST(conversions)
{
    static const float in[] = {0.5f,  1.5f, -0.5f, 2.25f, -2.75f, 3e9f,
                               -3e9f, 5e9f, NAN,   0.25f, 1e-40f, -INFINITY};
    static const int n = sizeof in / sizeof *in;
    static const int rn[] = {0, 2, 0, 2, -3, INT32_MAX, INT32_MIN, INT32_MAX, 0, 0, 0, INT32_MIN};
    static const int rz[] = {0, 1, 0, 2, -2, INT32_MAX, INT32_MIN, INT32_MAX, 0, 0, 0, INT32_MIN};
    static const int rd[] = {0, 1, -1, 2, -3, INT32_MAX, INT32_MIN, INT32_MAX, 0, 0, 0, INT32_MIN};
    static const int ru[] = {1, 2, 0, 3, -2, INT32_MAX, INT32_MIN, INT32_MAX, 0, 1, 1, INT32_MIN};
    static const unsigned un[] = {0, 2, 0, 2, 0, 3000000000u, 0, UINT32_MAX, 0, 0, 0, 0};
    static const float sat[] = {0.5f, 1, 0, 1, 0, 1, 0, 1, 0, 0.25f, 1e-40f, 0};
    rig_buf<float> x(n);
    rig_buf<int> o(6 * n);
    memcpy(x.h, in, sizeof in);
    x.up();
    GPU_LAUNCH(convert_kernel, dim3(1), dim3(32), 0, false, rig_stream, o.d, (const float *)x.d, n);
    o.down();
    for (int i = 0; i < n; i++) {
        float s;
        memcpy(&s, &o[5 * n + i], 4);
        ck_assert_int_eq(o[i], rn[i]);
        ck_assert_int_eq(o[n + i], rz[i]);
        ck_assert_int_eq(o[2 * n + i], rd[i]);
        ck_assert_int_eq(o[3 * n + i], ru[i]);
        ck_assert_uint_eq((unsigned)o[4 * n + i], un[i]);
        ck_assert(s == sat[i]);
    }
}
END_TEST

/* ---- 16-bit and 8-bit floats ------------------------------------------------------------------
 */

/* By definition, in wider arithmetic. */
static double f16_value(uint32_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}
static double bf16_value(uint32_t h)
{
    uint32_t u = h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static double e4m3_value(uint32_t q)
{
    int e = q >> 3 & 15, m = q & 7;
    double v = e ? ldexp(8 + m, e - 10) : ldexp(m, -9);
    if ((q & 127) == 127) v = NAN;
    return q & 128 ? -v : v;
}
/* Rounds to p bits of significand, smallest normal exponent emin. */
static double rounded(long double v, int p, int emin)
{
    int e;
    if (v == 0) return 0;
    frexpl(v, &e);
    e -= p;
    if (e < emin - p + 1) e = emin - p + 1;
    return (double)ldexpl(rintl(ldexpl(v, -e)), e);
}

__global__ void half_kernel(uint32_t *o, const uint32_t *a)
{
    int t = (int)threadIdx.x;
    o[t] = cu_hfma2(a[t], a[t + 32], a[t + 64]);
    o[32 + t] = cu_hadd2(a[t], a[t + 32]);
    o[64 + t] = cu_hmul2(a[t], a[t + 32]);
    o[96 + t] = cu_bfma2(a[t + 96], a[t + 128], a[t + 160]);
}

START_TEST(packed_arithmetic)
{
    rig_buf<uint32_t> a(192), o(128);
    for (int rep = 0; rep < 200; rep++) {
        /* Finite; half the time small, so that products are subnormal. */
        for (int i = 0; i < 96; i++) a[i] = rig_u32() & (rep & 1 ? 0x9fff9fffu : 0xbfffbfffu);
        for (int i = 96; i < 192; i++) a[i] = (rig_u32() & 0x8fff8fffu) | 0x38003800u;
        a.up();
        GPU_LAUNCH(half_kernel, dim3(1), dim3(32), 0, false, rig_stream, o.d,
                   (const uint32_t *)a.d);
        o.down();
        for (int t = 0; t < LANES; t++) {
            for (int s = 0; s < 32; s += 16) {
                auto h = [&](int i) { return (long double)f16_value(a[t + i] >> s & 0xffff); };
                auto b = [&](int i) { return (long double)bf16_value(a[t + i] >> s & 0xffff); };
                auto got = [&](int i) { return f16_value(o[t + i] >> s & 0xffff); };
                long double f = h(0) * h(32) + h(64), sum = h(0) + h(32), p = h(0) * h(32);
                if (fabsl(f) < 65504) ck_assert(got(0) == rounded(f, 11, -14));
                if (fabsl(sum) < 65504) ck_assert(got(32) == rounded(sum, 11, -14));
                if (fabsl(p) < 65504) ck_assert(got(64) == rounded(p, 11, -14));
                ck_assert(bf16_value(o[t + 96] >> s & 0xffff) ==
                          rounded(b(96) * b(128) + b(160), 8, -126));
            }
        }
    }
}
END_TEST

/* All values of the small types, and rounding into them. */
__global__ void small_floats_kernel(float *f, uint32_t *u, const float *x)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    f[i] = cu_h2f2((uint32_t)i).x;
    f[65536 + i] = cu_bf_lo((uint32_t)i);
    f[131072 + i] = cu_bf_hi((uint32_t)i << 16);
    f[196608 + i] = __half2float(__float2half(x[i]));
    f[262144 + i] = cu_e4m3_to_f32((uint8_t)i);
    f[327680 + i] = __bfloat162float(__float2bfloat16(x[i]));
    u[i] = cu_pack_bf16(x[i], -x[i]);
    u[65536 + i] = cu_pack_f16(x[i], 2 * x[i]);
    u[131072 + i] = cu_e4m3x2_to_h2((uint16_t)i);
    u[196608 + i] = cu_f32_to_e4m3(x[i]);
    u[262144 + i] = cu_pack_e4m3(x[i], -2 * x[i]);
}

/* Nearest value of e4m3, ties to the even code; beyond the largest it stays there. */
static uint32_t nearest_e4m3(double x)
{
    uint32_t best = 0;
    double off = INFINITY;
    for (uint32_t q = 0; q < 127; q++) {
        double d = fabs(e4m3_value(q) - fabs(x));
        if (d < off || (d == off && !(q & 1))) {
            off = d;
            best = q;
        }
    }
    return best | (signbit(x) ? 0x80 : 0);
}
static bool same(double a, double b)
{
    return a == b || (a != a && b != b);
}

START_TEST(small_floats)
{
    enum { N = 65536 };
    rig_buf<float> f(6 * N), x(N);
    rig_buf<uint32_t> u(5 * N);
    for (int i = 0; i < N; i++) x[i] = ldexpf(rig_f32(), (int)(rig_u32() % 36) - 24);
    for (uint32_t q = 0; q < 253; q++) /* values and ties of e4m3 */
        x[q] = (float)((e4m3_value(q / 2) + e4m3_value((q + 1) / 2)) / 2);
    x.up();
    GPU_LAUNCH(small_floats_kernel, dim3(256), dim3(256), 0, false, rig_stream, f.d, u.d,
               (const float *)x.d);
    f.down();
    u.down();
    for (uint32_t i = 0; i < N; i++) {
        ck_assert(same(f[i], f16_value(i)));
        ck_assert(same(f[N + i], bf16_value(i)) && same(f[2 * N + i], bf16_value(i)));
        ck_assert(f[3 * N + i] == rounded(x[i], 11, -14));
        ck_assert(same(f[4 * N + i], e4m3_value(i & 255)));
        ck_assert(f[5 * N + i] == rounded(x[i], 8, -126));
        ck_assert(bf16_value(u[i] & 0xffff) == rounded(x[i], 8, -126));
        ck_assert(bf16_value(u[i] >> 16) == rounded(-x[i], 8, -126));
        ck_assert(f16_value(u[N + i] & 0xffff) == rounded(x[i], 11, -14));
        ck_assert(f16_value(u[N + i] >> 16) == rounded(2 * x[i], 11, -14));
        ck_assert(same(f16_value(u[2 * N + i] & 0xffff), e4m3_value(i & 255)));
        ck_assert(same(f16_value(u[2 * N + i] >> 16), e4m3_value(i >> 8)));
        if (i >= 2048) continue; /* the search is slow */
        ck_assert_uint_eq(u[3 * N + i], nearest_e4m3(x[i]));
        ck_assert_uint_eq(u[4 * N + i], nearest_e4m3(x[i]) | nearest_e4m3(-2 * x[i]) << 8);
    }
}
END_TEST

__global__ void approx_kernel(float *o, const float *x)
{
    int t = (int)threadIdx.x;
    o[t] = cu_ex2(x[t]);
    o[32 + t] = __expf(x[t]);
    o[64 + t] = rsqrtf(fabsf(x[t]));
    o[96 + t] = __fmaf_rn(x[t], x[t], -1.0f);
}

START_TEST(approximations)
{
    rig_buf<float> x(32), o(128);
    for (int i = 0; i < LANES; i++) x[i] = rig_f32() * 20;
    x[0] = -200; /* cu_ex2 gives 0 there */
    x.up();
    GPU_LAUNCH(approx_kernel, dim3(1), dim3(32), 0, false, rig_stream, o.d, (const float *)x.d);
    o.down();
    ck_assert(o[0] == 0);
    for (int i = 1; i < LANES; i++) {
        double v = x[i];
        ck_assert(fabs(o[i] - exp2(v)) <= 1e-6 * exp2(v));
        ck_assert(fabs(o[32 + i] - exp(v)) <= 1e-5 * exp(v));
        ck_assert(fabs(o[64 + i] - 1 / sqrt(fabs(v))) <= 1e-6 / sqrt(fabs(v)));
        ck_assert(o[96 + i] == (float)((long double)v * v - 1));
    }
}
END_TEST

/* ---- loads, barriers, last block ---------------------------------------------------------------
 */

__global__ void loads_kernel(uint32_t *o, const uint32_t *src)
{
    int l = (int)threadIdx.x;
    uint64_t first = cu_policy_evict_first(), last = cu_policy_evict_last();
    uint4 a = cu_ld_nc16(src + l * 4), b = cu_ld_stream16(src + l * 4, first);
    uint4 c = cu_ld_cg16(src + l * 4), d = cu_ld_stream16(src + l * 4, last);
    float4 f = cu_ld_cg16f(src + l * 4);
    a.x ^= __float_as_uint(f.x) ^ __ldg(src + l * 4);
    a.y += b.y + c.z + d.w;
    a.z = __float_as_uint(cu_ld_cg_f((const float *)src + l));
    a.w = __ldcg(src + l) + 1;
    cu_st16(o + l * 4, a);
}

START_TEST(loads)
{
    rig_buf<uint32_t> src(128), o(128);
    for (size_t i = 0; i < src.n; i++) src[i] = rig_u32() & 0x7f7fffff;
    src.up();
    GPU_LAUNCH(loads_kernel, dim3(1), dim3(32), 0, false, rig_stream, o.d, (const uint32_t *)src.d);
    o.down();
    for (int l = 0; l < LANES; l++) {
        const uint32_t *s = &src[l * 4];
        ck_assert(o[l * 4] == s[0] && o[l * 4 + 1] == s[1] + s[1] + s[2] + s[3]);
        ck_assert(o[l * 4 + 2] == src[l] && o[l * 4 + 3] == src[l] + 1);
    }
}
END_TEST

/* Warps 0, 1 make, warps 2, 3 use; barrier 1 says full, barrier 2 says empty. */
__global__ void named_kernel(int *o)
{
    CU_SHARED(int, v, [64]);
    int t = (int)threadIdx.x;
    for (int it = 0; it < 5; it++) {
        if (t < 64) {
            if (it) cu_bar_sync(2, 128);
            v[t] = it * 100 + t;
            cu_bar_arrive(1, 128);
        } else {
            cu_bar_sync(1, 128);
            o[blockIdx.x * 320 + (unsigned)(it * 64 + t - 64)] = v[t ^ 64];
            if (it < 4) cu_bar_arrive(2, 128);
        }
    }
}

START_TEST(named_barriers)
{
    rig_buf<int> o(960);
    GPU_LAUNCH(named_kernel, dim3(3), dim3(128), 0, false, rig_stream, o.d);
    o.down();
    for (int i = 0; i < 960; i++) ck_assert_int_eq(o[i], i % 320 / 64 * 100 + i % 64);
}
END_TEST

__global__ void last_kernel(float *sum, float *part, unsigned *ticket, const float *x, int n)
{
    CU_SHARED(float, s, [8]);
    float v = 0;
    cu_gdc_wait();
    for (int i = (int)(threadIdx.x + blockIdx.x * blockDim.x); i < n;
         i += (int)(gridDim.x * blockDim.x))
        v += x[i];
    v = cu_warp_sum(v);
    if (cu_lane() == 0) s[threadIdx.x >> 5] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        v = 0;
        for (unsigned i = 0; i < blockDim.x / 32; i++) v += s[i];
        part[blockIdx.x] = v;
    }
    if (cu_ticket_last(ticket, gridDim.x) && threadIdx.x == 0) {
        v = 0;
        for (unsigned i = 0; i < gridDim.x; i++) v += cu_ld_cg_f(part + i);
        *sum = v;
    }
    cu_gdc_launch();
}

START_TEST(last_block)
{
    enum { N = 10000 };
    rig_buf<float> x(N), part(16), sum(1);
    rig_buf<unsigned> ticket(1);
    double want = 0;
    for (int i = 0; i < N; i++) want += x[i] = rig_f32();
    x.up();
    ticket.up();
    float first = 0;
    for (int rep = 0; rep < 20; rep++) {
        GPU_LAUNCH(last_kernel, dim3(13), dim3(128), 0, true, rig_stream, sum.d, part.d, ticket.d,
                   (const float *)x.d, (int)N);
        sum.down();
        ticket.down();
        if (!rep) first = sum[0];
        ck_assert(!memcmp(&sum[0], &first, 4) && ticket[0] == 0);
    }
    ck_assert(fabs(first - want) < 1e-3);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("portable");
    TCase *tc = tcase_create("wrappers");
    tcase_add_checked_fixture(tc, rig_open, rig_close);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, exchanges);
    tcase_add_test(tc, partial_masks);
    tcase_add_test(tc, shapes);
    tcase_add_test(tc, atomics);
    tcase_add_test(tc, bits);
    tcase_add_test(tc, conversions);
    tcase_add_test(tc, packed_arithmetic);
    tcase_add_test(tc, small_floats);
    tcase_add_test(tc, approximations);
    tcase_add_test(tc, loads);
    tcase_add_test(tc, named_barriers);
    tcase_add_test(tc, last_block);
    suite_add_tcase(s, tc);
    return rig_run(s);
}
