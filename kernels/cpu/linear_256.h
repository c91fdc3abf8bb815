/* linear_256.h - the matrix products on 256-bit registers, compiled by linear_avx2.c and, with
 * 256-bit dot products, by linear_avxvnni.c; they name the table in LINEAR_TABLE.
 *
 * A quarter group (8 rows) is decoded into 8 registers; rows of activations stream past it. Without
 * VNNI the products of u8 and s8 pass through vpmaddubsw, whose pairs must stay within 16 bits:
 * small codes are safe even added up (`sums`), 8-bit ones are multiplied as |w| * sign(a, w), at
 * most 2 * 128 * 127. Refuses nothing.  Any thread. */
#include "kernels/cpu/simd.h"

INLINE void store_i16(int16_t *p, v16 x)
{
    __m256i q = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(q, 0xd8));
}
INLINE __m256 from_u8_half(__m128i x, int shift_right, int mask)
{
    __m256i y = _mm256_srli_epi32(_mm256_cvtepu8_epi32(x), shift_right);
    return _mm256_cvtepi32_ps(_mm256_and_si256(y, _mm256_set1_epi32(mask)));
}
INLINE v16 from_u8(const uint8_t *p, int shift_right, int mask)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    return (v16){from_u8_half(x, shift_right, mask),
                 from_u8_half(_mm_srli_si128(x, 8), shift_right, mask)};
}
INLINE __m256 from_bf16_half(const uint8_t *p)
{
    __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}
INLINE v16 from_bf16(const uint8_t *p)
{
    return (v16){from_bf16_half(p), from_bf16_half(p + 16)};
}
#include "kernels/cpu/linear_body.h"
#include "kernels/formats.h"

enum { ROWS = 2 }; /* 8 registers of weights leave room for two chains */

/* ---- decoding ----------------------------------------------------------------------------- */

INLINE __m256i line(const uint8_t *p)
{
    return _mm256_load_si256((const __m256i *)p);
}
INLINE __m256i set8(int x)
{
    return _mm256_set1_epi8((char)x);
}
/* Shift by n, left if positive, keeping the bits of mask in every byte. */
INLINE __m256i shift(__m256i x, int n, int mask)
{
    x = n > 0 ? _mm256_slli_epi16(x, n) : n < 0 ? _mm256_srli_epi16(x, -n) : x;
    return _mm256_and_si256(x, set8(mask));
}
/* Codes of 8 bits are kept signed where products go through vpmaddubsw. */
INLINE bool is_signed(int kind)
{
    return !HAS_DOT && layout_of(kind).bias == 128;
}
INLINE __m256i code_table(int kind)
{
    __m128i t = _mm_loadu_si128((const __m128i *)format_of(kind).table);
    return _mm256_add_epi8(_mm256_broadcastsi128_si256(t),
                           set8(is_signed(kind) ? 0 : layout_of(kind).bias));
}

/* Eight rows of line v; p points to the codes of the sub-block, h and o to the quarter of it. */
INLINE __m256i decode_line(int kind, const uint8_t *p, int h, int o, int v, __m256i table)
{
    layout l = layout_of(kind);
    p += o;
    if (l.body == BODY_BYTES) {
        __m256i c = line(p + 64 * (8 * h + v));
        return is_signed(kind) ? _mm256_xor_si256(c, set8(-128)) : c;
    }
    if (l.body == BODY_PAIRS) {
        __m256i c = shift(line(p + 64 * (2 * h + v / 4)), -2 * (v % 4), 3);
        if (!l.high_bits) return c;
        c = _mm256_or_si256(c, shift(line(p + 256 + 64 * h), 2 - v, 4));
        return _mm256_add_epi8(c, set8(l.bias - 4)); /* Q3_K: its codes are biased by 4 */
    }
    __m256i c = shift(line(p + 64 * (4 * h + v % 4)), v < 4 ? 0 : -4, 15);
    if (l.high_bits == 1) return _mm256_or_si256(c, shift(line(p + 512 + 64 * h), 4 - v, 16));
    if (l.high_bits == 2)
        return _mm256_or_si256(c, shift(line(p + 512 + 64 * (2 * h + v / 4)), 4 - 2 * (v % 4), 48));
    return layout_has_table(kind) ? _mm256_shuffle_epi8(table, c) : c;
}

/* ---- products ----------------------------------------------------------------------------- */

INLINE __m256i broadcast4(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, 4);
    return _mm256_set1_epi32(v);
}
/* Largest unsigned code, and how many products of pairs of them fit in 16 bits. */
INLINE int largest_code(int kind)
{
    layout l = layout_of(kind);
    if (kind == DT_MXFP4 || kind == DT_NVFP4) return l.bias + 12;
    if (kind == DT_Q3_K) return l.bias + 3;
    return (1 << ((l.body == BODY_NIBBLES ? 4 : 2) + l.high_bits)) - 1;
}
INLINE int sums(int kind)
{
    return 32767 / (2 * Q8_MAX * largest_code(kind));
}

/* off + w[n] . q[4 n], exact. */
INLINE __m256i dot(int kind, int n, int32_t off, const __m256i *w, const int8_t *q)
{
    __m256i sum = _mm256_set1_epi32(off), one = _mm256_set1_epi16(1);
#if HAS_DOT
    UNROLL for (int v = 0; v < n; v++) sum =
        _mm256_dpbusd_avx_epi32(sum, w[v], broadcast4(q + 4 * v));
    (void)kind, (void)one;
#else
    __m256i part = _mm256_setzero_si256();
    int room = is_signed(kind) ? 1 : sums(kind);
    UNROLL for (int v = 0; v < n; v++)
    {
        __m256i a = broadcast4(q + 4 * v);
        __m256i x = is_signed(kind)
                        ? _mm256_maddubs_epi16(_mm256_abs_epi8(w[v]), _mm256_sign_epi8(a, w[v]))
                        : _mm256_maddubs_epi16(w[v], a);
        part = v % room ? _mm256_add_epi16(part, x) : x;
        if (v % room == room - 1 || v == n - 1)
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(part, one));
    }
#endif
    return sum;
}
INLINE __m256 two_scales(__m256 sum0, __m256 x, __m256 sum1, __m256 y)
{
    return _mm256_fmadd_ps(sum1, y, _mm256_mul_ps(sum0, x));
}
INLINE __m256 of_quarter(const v16 s[2], int g)
{
    return g % 2 ? s[g / 2].b : s[g / 2].a;
}

/* One quarter of a decoded block times one record; acc[8]. */
INLINE void quarter_row(int kind, int g, const __m256i w[8], const scales *sc, const act8 *a,
                        float *acc)
{
    __m256 c = _mm256_load_ps(acc), d = _mm256_set1_ps(a->d);
    int bias = is_signed(kind) ? 0 : layout_of(kind).bias;
    if (layout_has_halves(kind)) {
        __m256i i = dot(kind, 4, bias ? a->off32[0] : 0, w, a->q);
        __m256i j = dot(kind, 4, bias ? a->off32[1] : 0, w + 4, a->q + 16);
        __m256 f = two_scales(_mm256_cvtepi32_ps(i), of_quarter(sc->s, g), _mm256_cvtepi32_ps(j),
                              of_quarter(sc->t, g));
        c = _mm256_fmadd_ps(f, d, c);
        if (layout_has_min(kind)) {
            __m256 s0 = _mm256_set1_ps((float)a->off32[0] * (-1.0f / 32));
            __m256 s1 = _mm256_set1_ps((float)a->off32[1] * (-1.0f / 32));
            c = _mm256_fmadd_ps(two_scales(s0, of_quarter(sc->p, g), s1, of_quarter(sc->q, g)), d,
                                c);
        }
    } else {
        int32_t off = bias == 128 ? a->off128 : bias == 16 ? a->off16 : bias == 8 ? a->off8 : 0;
        __m256i i = dot(kind, 8, off, w, a->q);
        c = _mm256_fmadd_ps(_mm256_cvtepi32_ps(i), _mm256_mul_ps(of_quarter(sc->s, g), d), c);
        if (layout_has_min(kind))
            c = _mm256_fmadd_ps(of_quarter(sc->p, g), _mm256_set1_ps(a->ds), c);
    }
    _mm256_store_ps(acc, c);
}

INLINE void int8_group(int kind, const uint8_t *p, const acts *a, int m0, int rows, float *acc)
{
    layout l = layout_of(kind);
    __m256i table = layout_has_table(kind) ? code_table(kind) : _mm256_setzero_si256();
    const uint8_t *head = p;
    super_scales k = {{v_zero(), v_zero()}, {v_zero(), v_zero()}};
    memset(acc, 0, sizeof *acc * 32 * (size_t)rows);
    for (int kb = 0, sub = 0; kb < a->n_blocks; kb++, sub = sub + 1 == l.subs ? 0 : sub + 1) {
        scales sc;
        if (sub == 0) {
            head = p;
            load_super(kind, p, &k);
            p += l.head;
        }
        const uint8_t *codes = p + l.before, *after = codes + l.codes;
        const act8 *b = (const act8 *)a->x + (size_t)kb * (size_t)a->stride + m0;
        for (int i = 0; i < l.codes + l.after; i += 64)
            _mm_prefetch((const char *)codes + PREFETCH_BYTES + i, _MM_HINT_T0);
        UNROLL for (int h = 0; h < 2; h++) load_scales(kind, &k, head, sub, p, after, h, &sc);
        UNROLL for (int g = 0; g < 4; g++)
        {
            __m256i w[8];
            UNROLL for (int v = 0; v < 8; v++) w[v] =
                decode_line(kind, codes, g / 2, 32 * (g % 2), v, table);
            float *c = acc + 8 * g;
            int m = 0;
            for (; m + ROWS <= rows; m += ROWS)
                UNROLL for (int u = 0; u < ROWS; u++)
                    quarter_row(kind, g, w, &sc, b + m + u, c + 32 * (m + u));
            for (; m < rows; m++) quarter_row(kind, g, w, &sc, b + m, c + 32 * m);
        }
        p = after + l.after;
    }
}

#define GROUP(name, kind)                                                                   \
    static void group_##name(const uint8_t *w, const acts *a, int m0, int rows, float *acc) \
    {                                                                                       \
        int8_group(kind, w, a, m0, rows, acc);                                              \
    }
LINEAR_INT8_LIST(GROUP)
#undef GROUP

/* ---- 14-bit integers ---------------------------------------------------------------------- */

/* 8 rows x 32 k: lines of k < 16 are 1024 bytes before those of k >= 16. */
static void group_i16(const uint8_t *p, const acts *a, int m0, int rows, float *acc)
{
    int bytes = layout_bytes(layout_of(LAYOUT_I16));
    memset(acc, 0, sizeof *acc * 32 * (size_t)rows);
    for (int kb = 0; kb < a->n_blocks; kb++, p += bytes) {
        size_t at = (size_t)kb * (size_t)a->stride + (size_t)m0;
        const int16_t *q = (const int16_t *)a->x + 32 * at;
        for (int i = 0; i < bytes; i += 64)
            _mm_prefetch((const char *)p + PREFETCH_BYTES + i, _MM_HINT_T0);
        for (int g = 0; g < 4; g++) {
            const uint8_t *l = p + 512 * (g / 2) + 32 * (g % 2);
            __m256 s = _mm256_load_ps((const float *)(const void *)(p + 2048) + 8 * g);
            float *c = acc + 8 * g;
            for (int m = 0; m < rows; m++) {
                const int8_t *x = (const int8_t *)(q + 32 * m);
                __m256i sum = _mm256_setzero_si256();
                UNROLL for (int v = 0; v < 16; v++) sum =
                    _mm256_add_epi32(sum, _mm256_madd_epi16(line(l + 1024 * (v / 8) + 64 * (v % 8)),
                                                            broadcast4(x + 4 * v)));
                __m256 d = _mm256_mul_ps(s, _mm256_set1_ps(a->d[at + (size_t)m]));
                _mm256_store_ps(c + 32 * m, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), d,
                                                            _mm256_load_ps(c + 32 * m)));
            }
        }
    }
}

/* ---- quantisation of activations ---------------------------------------------------------- */

/* Sums of the low and high 16 of 32 signed bytes: made unsigned for vpsadbw. */
INLINE void sums16(__m256i q, int *sum0, int *sum1)
{
    __m256i s = _mm256_sad_epu8(_mm256_xor_si256(q, set8(-128)), _mm256_setzero_si256());
    __m128i low = _mm256_castsi256_si128(s), high = _mm256_extracti128_si256(s, 1);
    *sum0 = _mm_cvtsi128_si32(low) + _mm_extract_epi32(low, 2) - 2048;
    *sum1 = _mm_cvtsi128_si32(high) + _mm_extract_epi32(high, 2) - 2048;
}

static void quant8(act8 *to, int stride, const float *x, size_t ld, int rows, int k)
{
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes what the packs mix */
    for (int k0 = 0; k0 < k; k0 += 32, to += stride)
        for (int m = 0; m < rows; m++) {
            const float *p = x + (size_t)m * ld + k0;
            v16 a = v_load(p), b = v_load(p + 16);
            float amax = v_hmax(v_max(v_abs(a), v_abs(b)));
            v16 inv = v_set1(amax > 0 ? Q8_MAX / amax : 0);
            int sum0, sum1;
            a = v_mul(a, inv);
            b = v_mul(b, inv);
            __m256i q = _mm256_packs_epi16(
                _mm256_packs_epi32(_mm256_cvtps_epi32(a.a), _mm256_cvtps_epi32(a.b)),
                _mm256_packs_epi32(_mm256_cvtps_epi32(b.a), _mm256_cvtps_epi32(b.b)));
            q = _mm256_permutevar8x32_epi32(q, order);
            _mm256_store_si256((__m256i *)to[m].q, q);
            sums16(q, &sum0, &sum1);
            act8_finish(&to[m], amax / Q8_MAX, sum0, sum1);
        }
}

#define ENTRY(name, kind) .group[kind] = group_##name,
const linear_isa LINEAR_TABLE = {LINEAR_INT8_LIST(ENTRY) LINEAR_FLOAT_LIST(ENTRY).quant8 = quant8,
                                 .quant16 = quant16, .finish = finish};
#undef ENTRY
