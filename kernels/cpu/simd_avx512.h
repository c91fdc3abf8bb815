/* simd_avx512.h - simd.h on AVX-512 (F, BW, DQ, VL, VNNI): the commented version of every
 * operation. Included by simd.h only.  Any thread. */
#ifndef QUERN_KERNELS_CPU_SIMD_AVX512_H
#define QUERN_KERNELS_CPU_SIMD_AVX512_H

enum { SIMD_WIDTH = 16 }; /* floats in a register */
typedef __m512 v16;

INLINE v16 v_zero(void)
{
    return _mm512_setzero_ps();
}
INLINE v16 v_set1(float x)
{
    return _mm512_set1_ps(x);
}
INLINE v16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
INLINE void v_store(float *p, v16 a)
{
    _mm512_storeu_ps(p, a);
}
INLINE v16 v_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
INLINE void v_store_n(float *p, v16 a, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}
INLINE v16 v_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
INLINE v16 v_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
INLINE v16 v_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
INLINE v16 v_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
INLINE v16 v_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* a > b ? a : b, and b where either is NaN. */
INLINE v16 v_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}
INLINE v16 v_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}
INLINE v16 v_abs(v16 a)
{
    return _mm512_abs_ps(a);
}
INLINE v16 v_round(v16 a)
{
    return _mm512_roundscale_ps(a, 8);
}
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
/* Lane i of a where bit i is set, else of b. */
INLINE v16 v_pick(unsigned bits, v16 a, v16 b)
{
    return _mm512_mask_mov_ps(b, (__mmask16)bits, a);
}
/* Bit i = a[i] >= b[i]. */
INLINE unsigned v_ge_mask(v16 a, v16 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
INLINE unsigned v_eq_mask(v16 a, v16 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
INLINE unsigned v_gt_mask(v16 a, v16 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}

INLINE v16 v_from_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
INLINE void v_to_f16(uint16_t *p, v16 a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, 0));
}
/* Rounds to nearest even; NaN stays NaN. */
INLINE void v_to_bf16(uint16_t *p, v16 a)
{
    __m512i u = _mm512_castps_si512(a),
            odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(
        _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(r));
}
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
/* Integral values in [-128, 127]. */
INLINE void v_to_i8(int8_t *p, v16 a)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a)));
}
/* lo = a0 b0 a1 b1 ..., hi = a8 b8 ... */
INLINE void v_zip(v16 a, v16 b, v16 *lo, v16 *hi)
{
    __m512i i = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    *lo = _mm512_permutex2var_ps(a, i, b);
    *hi = _mm512_permutex2var_ps(a, _mm512_add_epi32(i, _mm512_set1_epi32(8)), b);
}

/* Exact dot products of bytes: lane i of a line holds four unsigned bytes of item i; a query holds
 * the four signed bytes they meet, packed into V_DOT_WORDS words. */
enum { V_DOT_WORDS = 1 };
typedef __m512i v16i;
typedef __m512i v_bytes;
INLINE v16i vi_set1(int32_t x)
{
    return _mm512_set1_epi32(x);
}
INLINE v16 vi_to_float(v16i a)
{
    return _mm512_cvtepi32_ps(a);
}
INLINE v_bytes v_load_bytes(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}
INLINE void v_dot_pack(int32_t *w, const int8_t q[4])
{
    memcpy(w, q, 4);
}
INLINE v16i v_dot(v16i acc, v_bytes line, const int32_t *w)
{
    return _mm512_dpbusd_epi32(acc, line, _mm512_set1_epi32(*w));
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

#endif
