/* simd_avx2.h - simd.h on AVX2, FMA and F16C, two registers of eight.  The operations are described
 * in simd_avx512.h.  Included by simd.h only.  Any thread. */
#ifndef QUERN_KERNELS_CPU_SIMD_AVX2_H
#define QUERN_KERNELS_CPU_SIMD_AVX2_H

enum { SIMD_WIDTH = 8 };
typedef struct {
    __m256 a, b; /* lanes 0..7, 8..15 */
} v16;

INLINE v16 v_make(__m256 a, __m256 b)
{
    return (v16){a, b};
}
INLINE v16 v_zero(void)
{
    return v_make(_mm256_setzero_ps(), _mm256_setzero_ps());
}
INLINE v16 v_set1(float x)
{
    return v_make(_mm256_set1_ps(x), _mm256_set1_ps(x));
}
INLINE v16 v_load(const float *p)
{
    return v_make(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}
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
INLINE v16 v_add(v16 x, v16 y)
{
    return v_make(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b));
}
INLINE v16 v_sub(v16 x, v16 y)
{
    return v_make(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b));
}
INLINE v16 v_mul(v16 x, v16 y)
{
    return v_make(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b));
}
INLINE v16 v_div(v16 x, v16 y)
{
    return v_make(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b));
}
INLINE v16 v_fma(v16 x, v16 y, v16 z)
{
    return v_make(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
INLINE v16 v_max(v16 x, v16 y)
{
    return v_make(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b));
}
INLINE v16 v_min(v16 x, v16 y)
{
    return v_make(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b));
}
INLINE v16 v_abs(v16 x)
{
    __m256 s = _mm256_set1_ps(-0.0f);
    return v_make(_mm256_andnot_ps(s, x.a), _mm256_andnot_ps(s, x.b));
}
INLINE v16 v_round(v16 x)
{
    return v_make(_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8));
}
INLINE __m256 v_exp2i_half(__m256 n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}
INLINE v16 v_exp2i(v16 n)
{
    return v_make(v_exp2i_half(n.a), v_exp2i_half(n.b));
}
INLINE v16 v_first(v16 x, v16 y, int n)
{
    return v_make(_mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(v_lanes(n, 0))),
                  _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(v_lanes(n, 8))));
}
INLINE __m256i v_lanes_of(unsigned bits)
{
    __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), bit), bit);
}
INLINE v16 v_pick(unsigned bits, v16 x, v16 y)
{
    return v_make(_mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(v_lanes_of(bits))),
                  _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(v_lanes_of(bits >> 8))));
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
INLINE __m256i v_round_bf16(__m256 a)
{
    __m256i u = _mm256_castps_si256(a),
            odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(
        _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i q = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
    return _mm256_blendv_epi8(r, q, _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
}
INLINE void v_to_bf16(uint16_t *p, v16 x)
{
    __m256i w = _mm256_packus_epi32(v_round_bf16(x.a), v_round_bf16(x.b));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(w, 0xd8));
}
INLINE void v_from_bf16_pairs(const uint16_t *p, v16 *even, v16 *odd)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)p),
            y = _mm256_loadu_si256((const __m256i *)(p + 16));
    __m256i high = _mm256_set1_epi32((int)0xffff0000);
    *even = v_make(_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
                   _mm256_castsi256_ps(_mm256_slli_epi32(y, 16)));
    *odd = v_make(_mm256_castsi256_ps(_mm256_and_si256(x, high)),
                  _mm256_castsi256_ps(_mm256_and_si256(y, high)));
}
INLINE v16 v_from_i8(const int8_t *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    return v_make(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)),
                  _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8))));
}
INLINE void v_to_i8(int8_t *p, v16 x)
{
    __m256i w = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
    w = _mm256_permute4x64_epi64(w, 0xd8);
    _mm_storeu_si128((__m128i *)p,
                     _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
}
INLINE void v_zip(v16 x, v16 y, v16 *lo, v16 *hi)
{
    __m256 l = _mm256_unpacklo_ps(x.a, y.a), h = _mm256_unpackhi_ps(x.a, y.a);
    *lo = v_make(_mm256_permute2f128_ps(l, h, 0x20), _mm256_permute2f128_ps(l, h, 0x31));
    l = _mm256_unpacklo_ps(x.b, y.b);
    h = _mm256_unpackhi_ps(x.b, y.b);
    *hi = v_make(_mm256_permute2f128_ps(l, h, 0x20), _mm256_permute2f128_ps(l, h, 0x31));
}

/* Bytes 0 and 2 of the four meet the first word, 1 and 3 the second, as 16-bit integers: the
 * saturating byte instruction could overflow. */
enum { V_DOT_WORDS = 2 };
typedef struct {
    __m256i a, b;
} v16i;
typedef struct {
    __m256i even_a, odd_a, even_b, odd_b;
} v_bytes;
INLINE v16i vi_set1(int32_t x)
{
    return (v16i){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
INLINE v16 vi_to_float(v16i x)
{
    return v_make(_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b));
}
INLINE v_bytes v_load_bytes(const uint8_t *p)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)p),
            y = _mm256_loadu_si256((const __m256i *)(p + 32));
    __m256i low = _mm256_set1_epi16(255);
    return (v_bytes){_mm256_and_si256(x, low), _mm256_srli_epi16(x, 8), _mm256_and_si256(y, low),
                     _mm256_srli_epi16(y, 8)};
}
INLINE void v_dot_pack(int32_t *w, const int8_t q[4])
{
    int16_t pair[4] = {q[0], q[2], q[1], q[3]};
    memcpy(w, pair, sizeof pair);
}
INLINE v16i v_dot(v16i acc, v_bytes l, const int32_t *w)
{
    __m256i e = _mm256_set1_epi32(w[0]), o = _mm256_set1_epi32(w[1]);
    acc.a = _mm256_add_epi32(
        acc.a, _mm256_add_epi32(_mm256_madd_epi16(l.even_a, e), _mm256_madd_epi16(l.odd_a, o)));
    acc.b = _mm256_add_epi32(
        acc.b, _mm256_add_epi32(_mm256_madd_epi16(l.even_b, e), _mm256_madd_epi16(l.odd_b, o)));
    return acc;
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

#endif
