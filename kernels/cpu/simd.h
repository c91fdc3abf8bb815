/* simd.h - the one seam of instruction sets: 16 floats (v16) with the same few operations on
 * AVX-512, AVX2+FMA, NEON and plain C, chosen by the flags a file is compiled with.
 *
 * Every operation gives the same bits everywhere: multiply-adds are fused (emulated exactly where
 * the machine has none), reductions follow one tree, exp is one polynomial.  So whatever is written
 * on v16 is one program with one result; only its speed depends on the machine.
 * Not promised: which NaN comes out of several.
 * Owns nothing.  Any thread. */
#ifndef QUERN_KERNELS_CPU_SIMD_H
#define QUERN_KERNELS_CPU_SIMD_H

#include "kernels/formats.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* ---- the machine ------------------------------------------------------------------------------ */

/* A pause inside a spin loop. */
INLINE void cpu_relax(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The calling thread's floating point modes; flushing = denormal inputs and results are zero. */
typedef uint64_t fp_state;
INLINE fp_state fp_state_get(void)
{
#if defined(__x86_64__)
    return _mm_getcsr();
#elif defined(__aarch64__)
    fp_state s;
    __asm__ volatile("mrs %0, fpcr" : "=r"(s));
    return s;
#else
    return 0;
#endif
}
INLINE void fp_state_set(fp_state s)
{
#if defined(__x86_64__)
    _mm_setcsr((unsigned)s);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(s));
#else
    (void)s;
#endif
}
INLINE fp_state fp_state_flushing(void)
{
#if defined(__x86_64__)
    return 0x1f80 | 0x8040; /* exceptions masked, round to nearest; FTZ and DAZ */
#elif defined(__aarch64__)
    return 1u << 24; /* FZ */
#else
    return 0;
#endif
}

/* Fetches a line into the second level cache, where the next run of it is wanted. */
INLINE void prefetch_l2(const void *p)
{
    __builtin_prefetch(p, 0, 2);
}

/* ---- 16 floats -------------------------------------------------------------------------------- */

#if defined(__AVX512F__)

enum { SIMD_WIDTH = 16 }; /* floats in a register */
typedef __m512 v16;

INLINE v16 v_zero(void) { return _mm512_setzero_ps(); }
INLINE v16 v_set1(float x) { return _mm512_set1_ps(x); }
INLINE v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
INLINE v16 v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void v_store_n(float *p, v16 a, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a); }
INLINE v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
INLINE v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
INLINE v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
INLINE v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
INLINE v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
/* a > b ? a : b, and b where either is NaN. */
INLINE v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
INLINE v16 v_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
INLINE v16 v_abs(v16 a) { return _mm512_abs_ps(a); }
INLINE v16 v_round(v16 a) { return _mm512_roundscale_ps(a, 8); }
/* 2^n of integral n in [-127, 128]; 0 and infinity at the ends. */
INLINE v16 v_exp2i(v16 n)
{
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}
/* Lanes below n of a, the others of b; any n. */
INLINE v16 v_first(v16 a, v16 b, int n)
{
    __mmask16 m = n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
    return _mm512_mask_mov_ps(b, m, a);
}
/* Bit i = a[i] >= b[i]. */
INLINE unsigned v_ge_mask(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
INLINE unsigned v_eq_mask(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
INLINE unsigned v_gt_mask(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }

INLINE v16 v_from_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE void v_to_f16(uint16_t *p, v16 a) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, 0)); }
/* Low and high halves of 16 pairs of bf16: elements 2i and 2i+1. */
INLINE void v_from_bf16_pairs(const uint16_t *p, v16 *even, v16 *odd)
{
    __m512i x = _mm512_loadu_si512(p);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000)));
}
INLINE v16 v_from_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

INLINE float v_sum(v16 a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
INLINE float v_hmax(v16 a)
{
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

enum { SIMD_WIDTH = 8 };
typedef struct {
    __m256 a, b; /* lanes 0..7, 8..15 */
} v16;

INLINE v16 v_make(__m256 a, __m256 b) { return (v16){a, b}; }
INLINE v16 v_zero(void) { return v_make(_mm256_setzero_ps(), _mm256_setzero_ps()); }
INLINE v16 v_set1(float x) { return v_make(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
INLINE v16 v_load(const float *p) { return v_make(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
INLINE void v_store(float *p, v16 x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
/* All ones in lanes from + i < n. */
INLINE __m256i v_lanes(int n, int from)
{
    __m256i i = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n - from), i);
}
INLINE v16 v_load_n(const float *p, int n)
{
    return v_make(_mm256_maskload_ps(p, v_lanes(n, 0)), _mm256_maskload_ps(p + 8, v_lanes(n, 8)));
}
INLINE void v_store_n(float *p, v16 x, int n)
{
    _mm256_maskstore_ps(p, v_lanes(n, 0), x.a);
    _mm256_maskstore_ps(p + 8, v_lanes(n, 8), x.b);
}
INLINE v16 v_add(v16 x, v16 y) { return v_make(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)); }
INLINE v16 v_sub(v16 x, v16 y) { return v_make(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)); }
INLINE v16 v_mul(v16 x, v16 y) { return v_make(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)); }
INLINE v16 v_div(v16 x, v16 y) { return v_make(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)); }
INLINE v16 v_fma(v16 x, v16 y, v16 z)
{
    return v_make(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
INLINE v16 v_max(v16 x, v16 y) { return v_make(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)); }
INLINE v16 v_min(v16 x, v16 y) { return v_make(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)); }
INLINE v16 v_abs(v16 x)
{
    __m256 s = _mm256_set1_ps(-0.0f);
    return v_make(_mm256_andnot_ps(s, x.a), _mm256_andnot_ps(s, x.b));
}
INLINE v16 v_round(v16 x) { return v_make(_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8)); }
INLINE __m256 v_exp2i_half(__m256 n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}
INLINE v16 v_exp2i(v16 n) { return v_make(v_exp2i_half(n.a), v_exp2i_half(n.b)); }
INLINE v16 v_first(v16 x, v16 y, int n)
{
    return v_make(_mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(v_lanes(n, 0))),
                  _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(v_lanes(n, 8))));
}
INLINE unsigned v_join_mask(__m256 a, __m256 b)
{
    return (unsigned)_mm256_movemask_ps(a) | (unsigned)_mm256_movemask_ps(b) << 8;
}
INLINE unsigned v_ge_mask(v16 x, v16 y)
{
    return v_join_mask(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ));
}
INLINE unsigned v_eq_mask(v16 x, v16 y)
{
    return v_join_mask(_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ));
}
INLINE unsigned v_gt_mask(v16 x, v16 y)
{
    return v_join_mask(_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ));
}
INLINE v16 v_from_f16(const uint16_t *p)
{
    return v_make(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                  _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8))));
}
INLINE void v_to_f16(uint16_t *p, v16 x)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x.a, 0));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(x.b, 0));
}
INLINE void v_from_bf16_pairs(const uint16_t *p, v16 *even, v16 *odd)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)p), y = _mm256_loadu_si256((const __m256i *)(p + 16));
    __m256i high = _mm256_set1_epi32((int)0xffff0000);
    *even = v_make(_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(y, 16)));
    *odd = v_make(_mm256_castsi256_ps(_mm256_and_si256(x, high)), _mm256_castsi256_ps(_mm256_and_si256(y, high)));
}
INLINE v16 v_from_i8(const int8_t *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    return v_make(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)),
                  _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8))));
}
INLINE float v_sum(v16 x)
{
    __m256 b = _mm256_add_ps(x.a, x.b);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
INLINE float v_hmax(v16 x)
{
    __m256 b = _mm256_max_ps(x.a, x.b);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

#else /* four vectors of four, in the compilers' own vector types */

enum { SIMD_WIDTH = 4 };
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef struct {
    v4 q[4];
} v16;

/* Declares r and fills its quarters with an expression of i. */
#define V_EACH(expr)                                                                              \
    v16 r;                                                                                        \
    UNROLL for (int i = 0; i < 4; i++) r.q[i] = (expr);                                           \
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
INLINE float fma_once(float a, float b, float c)
{
    double p = (double)a * b, s = p + c, t = s - p;
    double lost = (p - (s - t)) + (c - t);
    int64_t u;
    memcpy(&u, &s, sizeof u);
    if (lost != 0 && !(u & 1)) {
        u += (lost > 0) == (s > 0) ? 1 : -1;
        memcpy(&s, &u, sizeof u);
    }
    return (float)s;
}
INLINE v4 v4_fma(v4 a, v4 b, v4 c)
{
    v4 r;
    UNROLL for (int i = 0; i < 4; i++) r[i] = fma_once(a[i], b[i], c[i]);
    return r;
}
#endif

INLINE v4 v4_set1(float x) { return (v4){x, x, x, x}; }
INLINE v4 v4_pick(v4i mask, v4 a, v4 b) { return (v4)(((v4i)a & mask) | ((v4i)b & ~mask)); }
INLINE v16 v_zero(void) { V_EACH(v4_set1(0)); }
INLINE v16 v_set1(float x) { V_EACH(v4_set1(x)); }
INLINE v16 v_load(const float *p)
{
    v16 r;
    memcpy(&r, p, sizeof r);
    return r;
}
INLINE void v_store(float *p, v16 a) { memcpy(p, &a, sizeof a); }
INLINE v16 v_load_n(const float *p, int n)
{
    v16 r = v_zero();
    memcpy(&r, p, (size_t)n * sizeof *p);
    return r;
}
INLINE void v_store_n(float *p, v16 a, int n) { memcpy(p, &a, (size_t)n * sizeof *p); }
INLINE v16 v_add(v16 a, v16 b) { V_EACH(a.q[i] + b.q[i]); }
INLINE v16 v_sub(v16 a, v16 b) { V_EACH(a.q[i] - b.q[i]); }
INLINE v16 v_mul(v16 a, v16 b) { V_EACH(a.q[i] * b.q[i]); }
INLINE v16 v_div(v16 a, v16 b) { V_EACH(a.q[i] / b.q[i]); }
INLINE v16 v_fma(v16 a, v16 b, v16 c) { V_EACH(v4_fma(a.q[i], b.q[i], c.q[i])); }
INLINE v16 v_max(v16 a, v16 b) { V_EACH(v4_pick(a.q[i] > b.q[i], a.q[i], b.q[i])); }
INLINE v16 v_min(v16 a, v16 b) { V_EACH(v4_pick(a.q[i] < b.q[i], a.q[i], b.q[i])); }
INLINE v16 v_abs(v16 a) { V_EACH((v4)((v4i)a.q[i] & 0x7fffffff)); }
/* Nearest even of |a| < 2^22. */
INLINE v16 v_round(v16 a) { V_EACH((a.q[i] + 12582912.0f) - 12582912.0f); }
INLINE v16 v_exp2i(v16 n) { V_EACH((v4)((__builtin_convertvector(n.q[i], v4i) + 127) << 23)); }
INLINE v16 v_first(v16 a, v16 b, int n)
{
    v4i lane = {0, 1, 2, 3};
    V_EACH(v4_pick(lane + 4 * i < n, a.q[i], b.q[i]));
}
INLINE unsigned v4_bits(v4i m) { return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8); }
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

/* ---- written once on the above ---------------------------------------------------------------- */

/* 2^r for r in [-1/2, 1/2]: degree 6, minimax with the constant fixed at 1, error 3e-9. */
INLINE v16 v_exp2_poly(v16 r)
{
    v16 p = v_set1(0x1.417a72p-13f);
    p = v_fma(p, r, v_set1(0x1.5f094ap-10f));
    p = v_fma(p, r, v_set1(0x1.3b2dd2p-7f));
    p = v_fma(p, r, v_set1(0x1.c6af7ap-5f));
    p = v_fma(p, r, v_set1(0x1.ebfbdcp-3f));
    p = v_fma(p, r, v_set1(0x1.62e430p-1f));
    return v_fma(p, r, v_set1(1.0f));
}

/* 2^x, about 1 ulp, exact at integers; 0 below -126.5, infinity from 127.5. */
INLINE v16 v_exp2(v16 x)
{
    x = v_min(v_set1(128.0f), v_max(v_set1(-127.0f), x)); /* in this order NaN stays */
    v16 n = v_round(x);
    return v_mul(v_exp2_poly(v_sub(x, n)), v_exp2i(n));
}

/* e^x, about 1 ulp over the whole range: the remainder is taken with log2(e) in two pieces. */
INLINE v16 v_exp(v16 x)
{
    x = v_min(v_set1(88.8f), v_max(v_set1(-88.1f), x));
    v16 n = v_round(v_mul(x, v_set1(0x1.715476p+0f)));
    v16 r = v_fma(x, v_set1(0x1.715476p+0f), v_sub(v_zero(), n));
    r = v_fma(x, v_set1(0x1.4ae0c0p-26f), r);
    return v_mul(v_exp2_poly(r), v_exp2i(n));
}

/* x / (1 + e^-x) */
INLINE v16 v_silu(v16 x)
{
    v16 one = v_set1(1.0f);
    return v_div(x, v_add(one, v_exp(v_sub(v_zero(), x))));
}

/* Sum of squares of x[n], 16 lanes wide. */
INLINE float v_sum_squares(const float *x, int n)
{
    v16 s0 = v_zero(), s1 = v_zero();
    int i = 0;
    for (; i + 32 <= n; i += 32) {
        v16 a = v_load(x + i), b = v_load(x + i + 16);
        s0 = v_fma(a, a, s0);
        s1 = v_fma(b, b, s1);
    }
    for (; i + 16 <= n; i += 16) {
        v16 a = v_load(x + i);
        s0 = v_fma(a, a, s0);
    }
    if (i < n) {
        v16 a = v_load_n(x + i, n - i);
        s1 = v_fma(a, a, s1);
    }
    return v_sum(v_add(s0, s1));
}

#endif
