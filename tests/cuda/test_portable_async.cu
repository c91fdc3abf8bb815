/* test_portable_async.cu - the wrappers of portable.cuh that move tiles and multiply them:
 * ldmatrix, mma, cp.async, mbarriers, bulk and tensor copies, wgmma, against matrices written out
 * by the definitions in the PTX manual. */
#include "tests/cuda/rig.h"

#include <math.h>

enum { LANES = 32 };

/* ---- fragments --------------------------------------------------------------------------------
 */

__global__ void mma_kernel(float *df, float *db, int *ds, const uint32_t *a, const uint32_t *b)
{
    int l = (int)threadIdx.x, z[4] = {5, 6, 7, 8};
    float x[4] = {1, 2, 3, 4}, y[4] = {0, 0, 0, 0};
    cu_mma_f16(x, a + l * 4, b + l * 2);
    cu_mma_bf16(y, a + 128 + l * 4, b + 64 + l * 2);
    cu_mma_s8(z, a + 256 + l * 4, b + 128 + l * 2);
    for (int i = 0; i < 4; i++) {
        df[l * 4 + i] = x[i];
        db[l * 4 + i] = y[i];
        ds[l * 4 + i] = z[i];
    }
}

/* Packs `per` values of a row at k, k+1.. into a register. */
static uint32_t packed(const float *v, int step, int kind)
{
    if (kind == 0) return cu_pack_f16(v[0], v[step]);
    if (kind == 1) return cu_pack_bf16(v[0], v[step]);
    uint32_t u = 0;
    for (int e = 0; e < 4; e++) u |= (uint32_t)(uint8_t)(int8_t)v[e * step] << 8 * e;
    return u;
}

START_TEST(products)
{
    rig_buf<uint32_t> a(384), b(192);
    rig_buf<float> df(128), db(128);
    rig_buf<int> ds(128);
    float m[3][16 * 32], n[3][32 * 8];
    for (int kind = 0; kind < 3; kind++) {
        int k_all = kind == 2 ? 32 : 16, per = kind == 2 ? 4 : 2;
        for (float &v : m[kind])
            v = kind == 2 ? (float)(int8_t)rig_u32() : (float)(rig_u32() % 17) - 8;
        for (float &v : n[kind])
            v = kind == 2 ? (float)(int8_t)rig_u32() : (float)(rig_u32() % 17) - 8;
        if (kind == 0) m[0][5] = 3 * 5.9604644775390625e-8f; /* an f16 subnormal */
        for (int l = 0; l < LANES; l++) {
            int g = l / 4, t = l % 4;
            for (int r = 0; r < 4; r++)
                a[(size_t)(kind * 128 + l * 4 + r)] = packed(
                    &m[kind][(g + (r & 1) * 8) * k_all + per * t + (r >> 1) * per * 4], 1, kind);
            for (int r = 0; r < 2; r++)
                b[(size_t)(kind * 64 + l * 2 + r)] =
                    packed(&n[kind][(per * t + r * per * 4) * 8 + g], 8, kind);
        }
    }
    a.up();
    b.up();
    GPU_LAUNCH(mma_kernel, dim3(1), dim3(32), 0, false, rig_stream, df.d, db.d, ds.d,
               (const uint32_t *)a.d, (const uint32_t *)b.d);
    df.down();
    db.down();
    ds.down();
    for (int l = 0; l < LANES; l++) {
        for (int i = 0; i < 4; i++) {
            int row = l / 4 + (i >> 1) * 8, col = l % 4 * 2 + (i & 1);
            double s[3] = {i + 1.0, 0, i + 5.0};
            for (int kind = 0; kind < 3; kind++)
                for (int k = 0; k < (kind == 2 ? 32 : 16); k++)
                    s[kind] +=
                        (double)m[kind][row * (kind == 2 ? 32 : 16) + k] * n[kind][k * 8 + col];
            /* Whole numbers, but for the subnormal's share of column sums. */
            ck_assert(fabs(df[(size_t)(l * 4 + i)] - s[0]) < 1e-4);
            ck_assert(db[(size_t)(l * 4 + i)] == s[1]);
            ck_assert(ds[(size_t)(l * 4 + i)] == (int)s[2]);
        }
    }
}
END_TEST

/* Products of f16 subnormals survive: small quants are used as such. */
__global__ void subnormal_kernel(float *o)
{
    uint32_t a[4], b[2] = {0x78007800u, 0x78007800u}; /* 2^15 */
    for (int i = 0; i < 4; i++) a[i] = 0x00010000u * (threadIdx.x + 1) | 1;
    float d[4] = {0, 0, 0, 0};
    cu_mma_f16(d, a, b);
    for (int i = 0; i < 4; i++) o[threadIdx.x * 4 + i] = d[i];
}

START_TEST(subnormal_products)
{
    rig_buf<float> o(128);
    GPU_LAUNCH(subnormal_kernel, dim3(1), dim3(32), 0, false, rig_stream, o.d);
    o.down();
    for (int l = 0; l < LANES; l++) {
        int g = l / 4 * 4,
            quants = 0; /* row g: lanes 4g..4g+3, two registers each of 1 and lane+1 */
        for (int t = 0; t < 4; t++) quants += 2 * (1 + g + t + 1);
        for (int i = 0; i < 4; i++) ck_assert(o[(size_t)(l * 4 + i)] == (float)quants / 512);
    }
}
END_TEST

__global__ void ldmatrix_kernel(uint32_t *o, const uint16_t *src)
{
    CU_DYN_SMEM(uint16_t, s);
    int l = (int)threadIdx.x;
    uint32_t r[4];
    for (int i = l; i < 256; i += 32) s[i] = src[i];
    __syncwarp();
    cu_ldmatrix_x4(r, s + l * 8);
    for (int i = 0; i < 4; i++) o[l * 4 + i] = r[i];
    cu_ldmatrix_x4_t(r, s + l * 8);
    for (int i = 0; i < 4; i++) o[128 + l * 4 + i] = r[i];
    cu_ldmatrix_x2(r, s + (l & 15) * 8);
    for (int i = 0; i < 2; i++) o[256 + l * 2 + i] = r[i];
    cu_ldmatrix_x2_t(r, s + (l & 15) * 8);
    for (int i = 0; i < 2; i++) o[320 + l * 2 + i] = r[i];
}

START_TEST(ldmatrix)
{
    rig_buf<uint16_t> s(256);
    rig_buf<uint32_t> o(384);
    for (size_t i = 0; i < s.n; i++) s[i] = (uint16_t)(i * 3 + 1);
    s.up();
    GPU_LAUNCH(ldmatrix_kernel, dim3(1), dim3(32), 512, false, rig_stream, o.d,
               (const uint16_t *)s.d);
    o.down();
    for (int l = 0; l < LANES; l++) {
        for (int q = 0; q < 4; q++) {
            int g = l / 4, t = l % 4;
            auto m = [&](int row, int col) {
                return (uint32_t)s[(size_t)(q * 64 + row * 8 + col)];
            };
            uint32_t plain = m(g, 2 * t) | m(g, 2 * t + 1) << 16;
            uint32_t turned = m(2 * t, g) | m(2 * t + 1, g) << 16;
            ck_assert(o[l * 4 + q] == plain && o[128 + l * 4 + q] == turned);
            if (q < 2) ck_assert(o[256 + l * 2 + q] == plain && o[320 + l * 2 + q] == turned);
        }
    }
}
END_TEST

/* ---- cp.async ---------------------------------------------------------------------------------
 */

__global__ void copies_kernel(uint32_t *o, const uint32_t *src)
{
    CU_DYN_SMEM(uint32_t, s);
    int l = (int)threadIdx.x;
    cu_cp_async16(s + l * 4, src + l * 4);
    cu_cp_commit();
    cu_cp_async16_z(s + 128 + l * 4, src + l * 4, l & 1);
    cu_cp_async8(s + 256 + l * 2, src + l * 2);
    cu_cp_async4(s + 320 + l, src + l);
    cu_cp_commit();
    cu_cp_wait<1>(); /* the first group only */
    __syncwarp();
    uint32_t early = s[(l ^ 1) * 4];
    cu_cp_async16(s + 352 + l * 4, src + 124 - l * 4);
    cu_cp_commit();
    cu_cp_wait<0>();
    __syncwarp();
    for (int i = l; i < 480; i += 32) o[i] = s[i];
    o[480 + l] = early;
}

START_TEST(copies)
{
    rig_buf<uint32_t> s(128), o(512);
    for (size_t i = 0; i < s.n; i++) s[i] = rig_u32();
    s.up();
    GPU_LAUNCH(copies_kernel, dim3(1), dim3(32), 480 * 4, false, rig_stream, o.d,
               (const uint32_t *)s.d);
    o.down();
    for (size_t i = 0; i < 128; i++) {
        ck_assert(o[i] == s[i] && o[128 + i] == (i / 4 & 1 ? s[i] : 0));
        ck_assert(o[352 + i] == s[124 - i / 4 * 4 + i % 4]);
    }
    for (size_t i = 0; i < 64; i++) ck_assert(o[256 + i] == s[i]);
    for (size_t l = 0; l < LANES; l++)
        ck_assert(o[320 + l] == s[l] && o[480 + l] == s[(l ^ 1) * 4]);
}
END_TEST

/* A ring of three stages, each refilled once all have read it. */
__global__ void ring_kernel(float *o, const float *src, int steps)
{
    CU_DYN_SMEM(float, s);
    int l = (int)threadIdx.x, n = (int)blockDim.x;
    float sum = 0;
    for (int i = 0; i < 2; i++) {
        if (i < steps) cu_cp_async16(s + (i * n + l) * 4, src + (i * n + l) * 4);
        cu_cp_commit();
    }
    for (int i = 0; i < steps; i++) {
        cu_cp_wait<1>();
        __syncthreads();
        if (i + 2 < steps)
            cu_cp_async16(s + ((i + 2) % 3 * n + l) * 4, src + ((i + 2) * n + l) * 4);
        cu_cp_commit();
        sum += s[(i % 3 * n + (l * 7 + 3) % n) * 4 + l % 4];
    }
    cu_cp_wait<0>();
    o[l] = sum;
}

START_TEST(ring)
{
    enum { T = 96, STEPS = 11 };
    rig_buf<float> src(T * STEPS * 4), o(T);
    for (size_t i = 0; i < src.n; i++) src[i] = (float)(rig_u32() % 1000);
    src.up();
    GPU_LAUNCH(ring_kernel, dim3(1), dim3(T), T * 3 * 16, false, rig_stream, o.d,
               (const float *)src.d, (int)STEPS);
    o.down();
    for (size_t l = 0; l < T; l++) {
        float want = 0;
        for (size_t i = 0; i < STEPS; i++) want += src[(i * T + (l * 7 + 3) % T) * 4 + l % 4];
        ck_assert(o[l] == want);
    }
}
END_TEST

/* ---- Hopper -----------------------------------------------------------------------------------
 */

/* Warp 0 fetches by bulk copies, two stages; the others add up. */
__global__ void bulk_kernel(float *o, const float *src, int steps)
{
#if CU_HAVE_SM90
    CU_DYN_SMEM(float, s); /* [2][256] */
    CU_SHARED(cu_mbar, bar, [4]);
    int t = (int)threadIdx.x;
    if (t == 0) {
        for (int i = 0; i < 2; i++) {
            cu_mbar_init(&bar[i], 1);      /* full */
            cu_mbar_init(&bar[2 + i], 64); /* empty */
        }
        cu_mbar_fence();
    }
    __syncthreads();
    if (t < 32) {
        for (int i = 0; i < steps && t == 0; i++) {
            int st = i & 1;
            if (i > 1) cu_mbar_wait(&bar[2 + st], (i / 2 - 1) & 1);
            cu_mbar_expect(&bar[st], 1024);
            cu_bulk_1d(s + st * 256, src + i * 256, 512, &bar[st]);
            cu_bulk_1d(s + st * 256 + 128, src + i * 256 + 128, 512, &bar[st]);
        }
        return;
    }
    float sum = 0;
    for (int i = 0; i < steps; i++) {
        int st = i & 1;
        cu_mbar_wait(&bar[st], i / 2 & 1);
        for (int k = 0; k < 4; k++) sum += s[st * 256 + (t - 32) + 64 * k] * (float)(i + 1);
        cu_mbar_arrive(&bar[2 + st]);
    }
    o[t - 32] = sum;
#endif
}

START_TEST(bulk_copies)
{
    if (gpu_about(rig_dev)->cc < 90) return;
    enum { STEPS = 7 };
    rig_buf<float> src(256 * STEPS), o(64);
    for (size_t i = 0; i < src.n; i++) src[i] = (float)(rig_u32() % 1000);
    src.up();
    GPU_LAUNCH(bulk_kernel, dim3(1), dim3(96), 2048, false, rig_stream, o.d, (const float *)src.d,
               (int)STEPS);
    o.down();
    for (size_t t = 0; t < 64; t++) {
        float want = 0;
        for (size_t i = 0; i < STEPS; i++)
            for (size_t k = 0; k < 4; k++) want += src[i * 256 + t + 64 * k] * (float)(i + 1);
        ck_assert(o[t] == want);
    }
}
END_TEST

/* c[M, N] = a[M, K] b[N, K]^T by tiles of 64 x W: the second warpgroup fetches with tensor copies,
 * the first multiplies with wgmma, three stages of 64 k. */
enum { STAGES = 3 };
template <int W>
__global__ void __launch_bounds__(256, 1)
    wgmma_kernel(float *c, const __grid_constant__ cu_tmap ta, const __grid_constant__ cu_tmap tb,
                 int m, int n, int k)
{
#if CU_HAVE_SM90A
    enum { STAGE = 8192 + W * 128 };
    CU_DYN_SMEM(char, s);
    cu_mbar *full = (cu_mbar *)(s + STAGES * STAGE), *empty = full + STAGES;
    int warp = (int)threadIdx.x >> 5, lane = cu_lane(), steps = k / 64;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            cu_mbar_init(full + i, 1);
            cu_mbar_init(empty + i, 128);
        }
        cu_mbar_fence();
    }
    __syncthreads();
    if (warp >= 4) {
        cu_setmaxnreg_dec<40>();
        for (int i = 0; i < steps && threadIdx.x == 128; i++) {
            char *st = s + i % STAGES * STAGE;
            cu_mbar_wait(empty + i % STAGES, (i / STAGES & 1) ^ 1);
            cu_mbar_expect(full + i % STAGES, STAGE);
            cu_tma_2d(st, &ta, full + i % STAGES, i * 64, (int)blockIdx.y * 64);
            cu_tma_2d(st + 8192, &tb, full + i % STAGES, i * 64, (int)blockIdx.x * W);
        }
        return;
    }
    float d[W / 2];
    for (int j = 0; j < W / 2; j++) d[j] = 0;
    for (int i = 0; i < steps; i++) {
        char *st = s + i % STAGES * STAGE;
        cu_mbar_wait(full + i % STAGES, i / STAGES & 1);
        cu_wgmma_fence();
        for (int q = 0; q < 4; q++) {
            uint64_t a = cu_desc(st + q * 32), b = cu_desc(st + 8192 + q * 32);
            if constexpr (W == 64) cu_wgmma_64x64x16(d, a, b);
            else cu_wgmma_64x128x16(d, a, b);
        }
        cu_wgmma_commit();
        cu_wgmma_wait<0>();
        cu_mbar_arrive(empty + i % STAGES);
    }
    for (int j = 0; j < W / 2; j++) {
        int row = (int)blockIdx.y * 64 + warp * 16 + (lane >> 2) + (j >> 1 & 1) * 8;
        int col = (int)blockIdx.x * W + (j >> 2) * 8 + (lane & 3) * 2 + (j & 1);
        if (row < m && col < n) c[(size_t)row * (size_t)n + (size_t)col] = d[j];
    }
#endif
}

template <int W> static void wgmma_case(int m, int n, int k)
{
    rig_buf<uint16_t> a((size_t)(m * k)), b((size_t)(n * k));
    rig_buf<float> c((size_t)(m * n));
    std::vector<float> x((size_t)(m * k)), y((size_t)(n * k));
    auto fill = [](rig_buf<uint16_t> &to, std::vector<float> &v) {
        for (size_t i = 0; i < v.size(); i++) {
            v[i] = (float)((int)(rig_u32() % 17) - 8); /* whole: sums are exact in any order */
            to[i] = (uint16_t)(cu_pack_bf16(v[i], 0) & 0xffff);
        }
        to.up();
    };
    fill(a, x);
    fill(b, y);
    alignas(64) cu_tmap ta, tb;
    ck_assert_int_eq(gpu_tmap_2d(rig_dev, &ta, a.d, (uint64_t)k, (uint64_t)m, (uint64_t)k, 64, 64),
                     0);
    ck_assert_int_eq(gpu_tmap_2d(rig_dev, &tb, b.d, (uint64_t)k, (uint64_t)n, (uint64_t)k, 64, W),
                     0);
    GPU_LAUNCH((wgmma_kernel<W>), dim3((unsigned)(n + W - 1) / W, (unsigned)(m + 63) / 64),
               dim3(256), STAGES * (8192 + W * 128) + 256, false, rig_stream, c.d, ta, tb, m, n, k);
    c.down();
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            float want = 0;
            for (int q = 0; q < k; q++) want += x[(size_t)(i * k + q)] * y[(size_t)(j * k + q)];
            ck_assert(c[(size_t)(i * n + j)] == want);
        }
    }
}

START_TEST(tensor_copies_and_wgmma)
{
    if (gpu_about(rig_dev)->cc != 90) return;
    wgmma_case<64>(100, 128, 320); /* rows beyond m come as zeros */
    wgmma_case<128>(64, 200, 256);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("portable_async");
    TCase *tc = tcase_create("tiles");
    tcase_add_checked_fixture(tc, rig_open, rig_close);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, products);
    tcase_add_test(tc, subnormal_products);
    tcase_add_test(tc, ldmatrix);
    tcase_add_test(tc, copies);
    tcase_add_test(tc, ring);
    tcase_add_test(tc, bulk_copies);
    tcase_add_test(tc, tensor_copies_and_wgmma);
    suite_add_tcase(s, tc);
    return rig_run(s);
}
