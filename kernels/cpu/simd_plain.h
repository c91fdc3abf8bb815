/* simd_plain.h - simd.h in the compilers' own vector types, four vectors of four (NEON or SSE2
 * underneath). The operations are described in simd_avx512.h.  Included by simd.h only.  Any
 * thread. */
#ifndef QUERN_KERNELS_CPU_SIMD_PLAIN_H
#define QUERN_KERNELS_CPU_SIMD_PLAIN_H

enum { SIMD_WIDTH = 4 };
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef struct {
    v4 q[4];
} v16;

/* Declares r and fills its quarters with an expression of i. */
#define V_EACH(expr)                                    \
    v16 r;                                              \
    UNROLL for (int i = 0; i < 4; i++) r.q[i] = (expr); \
    return r

/* a * b + c rounded once.  Without a fused instruction: the product of two floats is exact in
 * double; the sum is rounded to odd there (the error of the sum tells whether and which way), and
 * rounding that to float is then the correct single rounding (Boldo and Melquiond 2008). */
#if defined(__aarch64__)
INLINE v4 v4_fma(v4 a, v4 b, v4 c)
{
    return (v4)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
#else
typedef double v4d __attribute__((vector_size(32)));
typedef int64_t v4l __attribute__((vector_size(32)));
/* Not inlined: some 60 instructions. */
static __attribute__((noinline, unused)) v4 v4_fma(v4 a, v4 b, v4 c)
{
    v4d p = __builtin_convertvector(a, v4d) * __builtin_convertvector(b, v4d);
    v4d z = __builtin_convertvector(c, v4d), s = p + z, t = s - p;
    v4d lost = (p - (s - t)) + (z - t);
    v4l even = ~(v4l)s & 1 & (lost != 0), down = (lost < 0) ^ (s < 0);
    v4l odd = (v4l)s + ((even ^ down) - down); /* one step of s away from zero, or back */
    return __builtin_convertvector((v4d)odd, v4);
}
#endif

INLINE v4 v4_set1(float x)
{
    return (v4){x, x, x, x};
}
INLINE v4 v4_pick(v4i mask, v4 a, v4 b)
{
    return (v4)(((v4i)a & mask) | ((v4i)b & ~mask));
}
INLINE v16 v_zero(void)
{
    V_EACH(v4_set1(0));
}
INLINE v16 v_set1(float x)
{
    V_EACH(v4_set1(x));
}
INLINE v16 v_load(const float *p)
{
    v16 r;
    memcpy(&r, p, sizeof r);
    return r;
}
INLINE void v_store(float *p, v16 a)
{
    memcpy(p, &a, sizeof a);
}
INLINE v16 v_load_n(const float *p, int n)
{
    v16 r = v_zero();
    memcpy(&r, p, (size_t)n * sizeof *p);
    return r;
}
INLINE void v_store_n(float *p, v16 a, int n)
{
    memcpy(p, &a, (size_t)n * sizeof *p);
}
INLINE v16 v_add(v16 a, v16 b)
{
    V_EACH(a.q[i] + b.q[i]);
}
INLINE v16 v_sub(v16 a, v16 b)
{
    V_EACH(a.q[i] - b.q[i]);
}
INLINE v16 v_mul(v16 a, v16 b)
{
    V_EACH(a.q[i] * b.q[i]);
}
INLINE v16 v_div(v16 a, v16 b)
{
    V_EACH(a.q[i] / b.q[i]);
}
INLINE v16 v_fma(v16 a, v16 b, v16 c)
{
    V_EACH(v4_fma(a.q[i], b.q[i], c.q[i]));
}
INLINE v16 v_max(v16 a, v16 b)
{
    V_EACH(v4_pick(a.q[i] > b.q[i], a.q[i], b.q[i]));
}
INLINE v16 v_min(v16 a, v16 b)
{
    V_EACH(v4_pick(a.q[i] < b.q[i], a.q[i], b.q[i]));
}
INLINE v16 v_abs(v16 a)
{
    V_EACH((v4)((v4i)a.q[i] & 0x7fffffff));
}
/* Nearest even of |a| < 2^22. */
INLINE v16 v_round(v16 a)
{
    V_EACH((a.q[i] + 12582912.0f) - 12582912.0f);
}
INLINE v16 v_exp2i(v16 n)
{
    V_EACH((v4)((__builtin_convertvector(n.q[i], v4i) + 127) << 23));
}
INLINE v16 v_first(v16 a, v16 b, int n)
{
    v4i lane = {0, 1, 2, 3};
    V_EACH(v4_pick(lane + 4 * i < n, a.q[i], b.q[i]));
}
INLINE v16 v_pick(unsigned bits, v16 a, v16 b)
{
    v4i bit = {1, 2, 4, 8};
    V_EACH(v4_pick(((int32_t)(bits >> 4 * i) & bit) == bit, a.q[i], b.q[i]));
}
INLINE unsigned v4_bits(v4i m)
{
    return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8);
}
INLINE unsigned v_ge_mask(v16 a, v16 b)
{
    unsigned m = 0;
    UNROLL for (int i = 0; i < 4; i++) m |= v4_bits(a.q[i] >= b.q[i]) << 4 * i;
    return m;
}
INLINE unsigned v_eq_mask(v16 a, v16 b)
{
    unsigned m = 0;
    UNROLL for (int i = 0; i < 4; i++) m |= v4_bits(a.q[i] == b.q[i]) << 4 * i;
    return m;
}
INLINE unsigned v_gt_mask(v16 a, v16 b)
{
    unsigned m = 0;
    UNROLL for (int i = 0; i < 4; i++) m |= v4_bits(a.q[i] > b.q[i]) << 4 * i;
    return m;
}
INLINE v16 v_from_f16(const uint16_t *p)
{
    float f[16];
    for (int i = 0; i < 16; i++) f[i] = f16_to_f32(p[i]);
    return v_load(f);
}
INLINE void v_to_f16(uint16_t *p, v16 a)
{
    float f[16];
    v_store(f, a);
    for (int i = 0; i < 16; i++) p[i] = f32_to_f16(f[i]);
}
INLINE void v_to_bf16(uint16_t *p, v16 a)
{
    float f[16];
    v_store(f, a);
    for (int i = 0; i < 16; i++) p[i] = f32_to_bf16(f[i]);
}
INLINE void v_from_bf16_pairs(const uint16_t *p, v16 *even, v16 *odd)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        v4i x;
        memcpy(&x, p + 8 * i, sizeof x);
        even->q[i] = (v4)(x << 16);
        odd->q[i] = (v4)(x & (int32_t)0xffff0000);
    }
}
INLINE v16 v_from_i8(const int8_t *p)
{
    float f[16];
    for (int i = 0; i < 16; i++) f[i] = p[i];
    return v_load(f);
}
INLINE void v_to_i8(int8_t *p, v16 a)
{
    float f[16];
    v_store(f, a);
    for (int i = 0; i < 16; i++) p[i] = (int8_t)f[i];
}
INLINE void v_zip(v16 a, v16 b, v16 *lo, v16 *hi)
{
    float x[16], y[16], z[32];
    v_store(x, a);
    v_store(y, b);
    for (int i = 0; i < 16; i++) {
        z[2 * i] = x[i];
        z[2 * i + 1] = y[i];
    }
    *lo = v_load(z);
    *hi = v_load(z + 16);
}

enum { V_DOT_WORDS = 1 };
typedef struct {
    v4i q[4];
} v16i;
typedef struct {
    v4i q[4];
} v_bytes;
INLINE v16i vi_set1(int32_t x)
{
    v4i q = {x, x, x, x};
    return (v16i){{q, q, q, q}};
}
INLINE v16 vi_to_float(v16i a)
{
    V_EACH(__builtin_convertvector(a.q[i], v4));
}
INLINE v_bytes v_load_bytes(const uint8_t *p)
{
    v_bytes r;
    memcpy(&r, p, sizeof r);
    return r;
}
INLINE void v_dot_pack(int32_t *w, const int8_t q[4])
{
    memcpy(w, q, 4);
}
INLINE v16i v_dot(v16i acc, v_bytes l, const int32_t *w)
{
    int8_t q[4];
    memcpy(q, w, 4);
    UNROLL for (int i = 0; i < 4; i++) acc.q[i] +=
        (l.q[i] & 255) * q[0] + (l.q[i] >> 8 & 255) * q[1] + (l.q[i] >> 16 & 255) * q[2] +
        (l.q[i] >> 24 & 255) * q[3];
    return acc;
}
INLINE float v_sum(v16 a)
{
    v4 c = (a.q[0] + a.q[2]) + (a.q[1] + a.q[3]);
    return (c[0] + c[2]) + (c[1] + c[3]);
}
INLINE float v_hmax(v16 a)
{
    v16 b = a;
    UNROLL for (int i = 0; i < 2; i++) b.q[i] = v4_pick(a.q[i] > a.q[i + 2], a.q[i], a.q[i + 2]);
    v4 c = v4_pick(b.q[0] > b.q[1], b.q[0], b.q[1]);
    float x = c[0] > c[2] ? c[0] : c[2], y = c[1] > c[3] ? c[1] : c[3];
    return x > y ? x : y;
}
#undef V_EACH

#endif
