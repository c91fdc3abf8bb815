/* linear_avx512.c - the matrix products on AVX-512 VNNI: one block of 32 rows x 32 k decoded into
 * 16 registers, four rows of activations at a time streaming past it. Refuses nothing.  Any thread.
 */
#include "kernels/cpu/simd.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

INLINE void store_i16(int16_t *p, v16 x)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)));
}
INLINE v16 from_u8(const uint8_t *p, int shift_right, int mask)
{
    __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    if (shift_right) x = _mm512_srli_epi32(x, (unsigned)shift_right);
    if (mask < 255) x = _mm512_and_si512(x, _mm512_set1_epi32(mask));
    return _mm512_cvtepi32_ps(x);
}
INLINE v16 from_bf16(const uint8_t *p)
{
    __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}
#include "kernels/cpu/linear_body.h"
#include "kernels/formats.h"

enum { ROWS = 4 }; /* the scheduler sees ~100 waiting ops; one row is a chain of 8 dot products */

/* ---- decoding ----------------------------------------------------------------------------- */

INLINE __m512i line(const uint8_t *p)
{
    return _mm512_load_si512(p);
}
INLINE __m512i set8(int x)
{
    return _mm512_set1_epi8((char)x);
}
/* Shift by n, left if positive; bits that cross bytes are masked off by the caller. */
INLINE __m512i shift(__m512i x, int n)
{
    return n > 0   ? _mm512_slli_epi16(x, (unsigned)n)
           : n < 0 ? _mm512_srli_epi16(x, (unsigned)-n)
                   : x;
}
/* Bits of `low_mask` from low, the rest of `keep` from high. */
INLINE __m512i merge(__m512i low, __m512i high, int low_mask, int keep)
{
    return _mm512_and_si512(_mm512_ternarylogic_epi32(set8(low_mask), low, high, 0xca), set8(keep));
}
/* Values of the 4-bit tables plus the layout's bias, for vpshufb. */
INLINE __m512i code_table(int kind)
{
    __m128i t = _mm_loadu_si128((const __m128i *)format_of(kind).table);
    return _mm512_add_epi8(_mm512_broadcast_i32x4(t), set8(layout_of(kind).bias));
}

/* Line v of half h as unsigned codes; p points to the codes of the sub-block. */
INLINE __m512i decode_line(int kind, const uint8_t *p, int h, int v, __m512i table)
{
    layout l = layout_of(kind);
    if (l.body == BODY_BYTES) return line(p + 64 * (8 * h + v));
    if (l.body == BODY_PAIRS) {
        __m512i c = shift(line(p + 64 * (2 * h + v / 4)), -2 * (v % 4));
        if (!l.high_bits) return _mm512_and_si512(c, set8(3));
        __m512i q = merge(c, shift(line(p + 256 + 64 * h), 2 - v), 3, 7);
        return _mm512_add_epi8(q, set8(l.bias - 4)); /* Q3_K: its codes are biased by 4 */
    }
    __m512i c = shift(line(p + 64 * (4 * h + v % 4)), v < 4 ? 0 : -4);
    if (l.high_bits == 1) return merge(c, shift(line(p + 512 + 64 * h), 4 - v), 15, 31);
    if (l.high_bits == 2)
        return merge(c, shift(line(p + 512 + 64 * (2 * h + v / 4)), 4 - 2 * (v % 4)), 15, 63);
    c = _mm512_and_si512(c, set8(15));
    return layout_has_table(kind) ? _mm512_shuffle_epi8(table, c) : c;
}

/* ---- products ----------------------------------------------------------------------------- */

INLINE __m512i dot4(__m512i sum, __m512i w, const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, 4);
    return _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(v));
}
INLINE __m512 to_f32(__m512i x)
{
    return _mm512_cvtepi32_ps(x);
}

/* One decoded block, one scale per 32 k, times n records; acc[n][32]. */
INLINE void rows_whole(int kind, int n, const __m512i w[16], const scales *sc, const act8 *a,
                       float *acc)
{
    __m512i i0[ROWS], i1[ROWS];
    int bias = layout_of(kind).bias;
    UNROLL for (int u = 0; u < n; u++)
    {
        int32_t off = bias == 128  ? a[u].off128
                      : bias == 16 ? a[u].off16
                      : bias == 8  ? a[u].off8
                                   : 0;
        i0[u] = i1[u] = _mm512_set1_epi32(off);
    }
    UNROLL for (int v = 0; v < 8; v++)
    {
        UNROLL for (int u = 0; u < n; u++)
        {
            i0[u] = dot4(i0[u], w[v], a[u].q + 4 * v);
            i1[u] = dot4(i1[u], w[8 + v], a[u].q + 4 * v);
        }
    }
    UNROLL for (int u = 0; u < n; u++, acc += 32)
    {
        __m512 d = _mm512_set1_ps(a[u].d);
        __m512 c0 = _mm512_fmadd_ps(to_f32(i0[u]), _mm512_mul_ps(sc->s[0], d), _mm512_load_ps(acc));
        __m512 c1 =
            _mm512_fmadd_ps(to_f32(i1[u]), _mm512_mul_ps(sc->s[1], d), _mm512_load_ps(acc + 16));
        if (layout_has_min(kind)) {
            __m512 ds = _mm512_set1_ps(a[u].ds);
            c0 = _mm512_fmadd_ps(sc->p[0], ds, c0);
            c1 = _mm512_fmadd_ps(sc->p[1], ds, c1);
        }
        _mm512_store_ps(acc, c0);
        _mm512_store_ps(acc + 16, c1);
    }
}

/* sum0 * x + sum1 * y of one half-group, as a vector of rows. */
INLINE __m512 two_scales(__m512 sum0, __m512 x, __m512 sum1, __m512 y)
{
    return _mm512_fmadd_ps(sum1, y, _mm512_mul_ps(sum0, x));
}

/* The same with scales per 16 k: two integer sums. */
INLINE void rows_halves(int kind, int n, const __m512i w[16], const scales *sc, const act8 *a,
                        float *acc)
{
    __m512i i[2][ROWS], j[2][ROWS];
    bool biased = layout_of(kind).bias != 0;
    UNROLL for (int u = 0; u < n; u++)
    {
        i[0][u] = i[1][u] = _mm512_set1_epi32(biased ? a[u].off32[0] : 0);
        j[0][u] = j[1][u] = _mm512_set1_epi32(biased ? a[u].off32[1] : 0);
    }
    UNROLL for (int v = 0; v < 4; v++)
    {
        UNROLL for (int u = 0; u < n; u++)
        {
            UNROLL for (int h = 0; h < 2; h++)
            {
                i[h][u] = dot4(i[h][u], w[8 * h + v], a[u].q + 4 * v);
                j[h][u] = dot4(j[h][u], w[8 * h + 4 + v], a[u].q + 16 + 4 * v);
            }
        }
    }
    UNROLL for (int u = 0; u < n; u++)
    {
        __m512 d = _mm512_set1_ps(a[u].d);
        UNROLL for (int h = 0; h < 2; h++)
        {
            float *c = acc + 32 * u + 16 * h;
            __m512 f = two_scales(to_f32(i[h][u]), sc->s[h], to_f32(j[h][u]), sc->t[h]);
            __m512 r = _mm512_fmadd_ps(f, d, _mm512_load_ps(c));
            if (layout_has_min(kind)) {
                __m512 s0 = _mm512_set1_ps((float)a[u].off32[0] * (-1.0f / 32));
                __m512 s1 = _mm512_set1_ps((float)a[u].off32[1] * (-1.0f / 32));
                r = _mm512_fmadd_ps(two_scales(s0, sc->p[h], s1, sc->q[h]), d, r);
            }
            _mm512_store_ps(c, r);
        }
    }
}

INLINE void int8_group(int kind, const uint8_t *p, const acts *a, int m0, int rows, float *acc)
{
    layout l = layout_of(kind);
    __m512i table = layout_has_table(kind) ? code_table(kind) : _mm512_setzero_si512();
    const uint8_t *head = p;
    super_scales k = {{v_zero(), v_zero()}, {v_zero(), v_zero()}};
    memset(acc, 0, sizeof *acc * 32 * (size_t)rows);
    for (int kb = 0, sub = 0; kb < a->n_blocks; kb++, sub = sub + 1 == l.subs ? 0 : sub + 1) {
        __m512i w[16];
        scales sc;
        if (sub == 0) {
            head = p;
            load_super(kind, p, &k);
            p += l.head;
        }
        const uint8_t *codes = p + l.before, *after = codes + l.codes;
        UNROLL for (int i = 0; i < l.before + l.codes + l.after; i += 64)
            _mm_prefetch((const char *)p + PREFETCH_BYTES + i, _MM_HINT_T0);
        UNROLL for (int h = 0; h < 2; h++) load_scales(kind, &k, head, sub, p, after, h, &sc);
        UNROLL for (int i = 0; i < 16; i++) w[i] = decode_line(kind, codes, i / 8, i % 8, table);
        p = after + l.after;
        const act8 *b = (const act8 *)a->x + (size_t)kb * (size_t)a->stride + m0;
        int m = 0;
        if (layout_has_halves(kind)) {
            for (; m + ROWS <= rows; m += ROWS)
                rows_halves(kind, ROWS, w, &sc, b + m, acc + 32 * m);
            for (; m < rows; m++) rows_halves(kind, 1, w, &sc, b + m, acc + 32 * m);
        } else {
            for (; m + ROWS <= rows; m += ROWS) rows_whole(kind, ROWS, w, &sc, b + m, acc + 32 * m);
            for (; m < rows; m++) rows_whole(kind, 1, w, &sc, b + m, acc + 32 * m);
        }
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

INLINE __m512i dot2(__m512i sum, __m512i w, const int16_t *q)
{
    int32_t v;
    memcpy(&v, q, 4);
    return _mm512_dpwssd_epi32(sum, w, _mm512_set1_epi32(v));
}

/* 32 rows x 16 k times n rows of activations.  The first half of a block parks its integer sums in
 * part[n][32], the second finishes them: so one broadcast feeds two dot products. */
INLINE void rows_i16(int n, bool last, const __m512i w[16], const __m512 s[2], const int16_t *q,
                     const float *d, int32_t *part, float *acc)
{
    __m512i i0[ROWS], i1[ROWS];
    UNROLL for (int u = 0; u < n; u++)
    {
        i0[u] = last ? _mm512_load_si512(part + 32 * u) : _mm512_setzero_si512();
        i1[u] = last ? _mm512_load_si512(part + 32 * u + 16) : _mm512_setzero_si512();
    }
    UNROLL for (int v = 0; v < 8; v++)
    {
        UNROLL for (int u = 0; u < n; u++)
        {
            i0[u] = dot2(i0[u], w[v], q + 32 * u + 2 * v);
            i1[u] = dot2(i1[u], w[8 + v], q + 32 * u + 2 * v);
        }
    }
    UNROLL for (int u = 0; u < n; u++, acc += 32, part += 32)
    {
        if (!last) {
            _mm512_store_si512(part, i0[u]);
            _mm512_store_si512(part + 16, i1[u]);
            continue;
        }
        __m512 b = _mm512_set1_ps(d[u]);
        __m512 c0 = _mm512_fmadd_ps(to_f32(i0[u]), _mm512_mul_ps(s[0], b), _mm512_load_ps(acc));
        __m512 c1 =
            _mm512_fmadd_ps(to_f32(i1[u]), _mm512_mul_ps(s[1], b), _mm512_load_ps(acc + 16));
        _mm512_store_ps(acc, c0);
        _mm512_store_ps(acc + 16, c1);
    }
}

static void group_i16(const uint8_t *p, const acts *a, int m0, int rows, float *acc)
{
    _Alignas(64) int32_t part[ACC_ROWS * 32];
    int bytes = layout_bytes(layout_of(LAYOUT_I16));
    memset(acc, 0, sizeof *acc * 32 * (size_t)rows);
    for (int kb = 0; kb < a->n_blocks; kb++, p += bytes) {
        size_t at = (size_t)kb * (size_t)a->stride + (size_t)m0;
        const int16_t *q = (const int16_t *)a->x + 32 * at;
        const float *d = a->d + at;
        __m512 s[2] = {_mm512_load_ps((const float *)(const void *)(p + 2048)),
                       _mm512_load_ps((const float *)(const void *)(p + 2112))};
        for (int i = 0; i < bytes; i += 64)
            _mm_prefetch((const char *)p + PREFETCH_BYTES + i, _MM_HINT_T0);
        for (int half = 0; half < 2; half++) {
            __m512i w[16];
            UNROLL for (int i = 0; i < 16; i++) w[i] = line(p + 1024 * half + 64 * i);
            int m = 0;
            for (; m + ROWS <= rows; m += ROWS)
                rows_i16(ROWS, half, w, s, q + 32 * m + 16 * half, d + m, part + 32 * m,
                         acc + 32 * m);
            for (; m < rows; m++)
                rows_i16(1, half, w, s, q + 32 * m + 16 * half, d + m, part + 32 * m, acc + 32 * m);
        }
    }
}

/* ---- quantisation of activations ---------------------------------------------------------- */

/* Lane i of the result = largest lane of v[i]: a tree of 16 x 16, three operations a vector. */
INLINE __m512 max16(const __m512 v[16])
{
    __m512 a[8], b[4], c[2];
    UNROLL for (int i = 0; i < 8; i++) a[i] = _mm512_max_ps(
        _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    UNROLL for (int i = 0; i < 4; i++) b[i] =
        _mm512_max_ps(_mm512_shuffle_ps(a[2 * i], a[2 * i + 1], 0x44),
                      _mm512_shuffle_ps(a[2 * i], a[2 * i + 1], 0xee));
    UNROLL for (int i = 0; i < 2; i++) c[i] =
        _mm512_max_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                      _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
    return _mm512_max_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88),
                         _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
}
/* Sum of 16 signed bytes: made unsigned for vpsadbw. */
INLINE int sum16(__m128i q)
{
    __m128i s = _mm_sad_epu8(_mm_xor_si128(q, _mm_set1_epi8(-128)), _mm_setzero_si128());
    return _mm_cvtsi128_si32(s) + _mm_extract_epi32(s, 2) - 2048;
}

/* n <= 16 pieces of 32 values, x_step apart, into records to_step apart. */
static void quant8_pieces(act8 *to, size_t to_step, const float *x, size_t x_step, int n)
{
    __m512 v[16];
    UNROLL for (int i = 0; i < 16; i++)
    {
        const float *p = x + (size_t)i * x_step;
        v[i] = i < n ? _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(p)),
                                     _mm512_abs_ps(_mm512_loadu_ps(p + 16)))
                     : _mm512_setzero_ps();
    }
    _Alignas(64) float d[16], inv[16];
    __m512 amax = max16(v), top = _mm512_set1_ps(Q8_MAX);
    __mmask16 some = _mm512_cmp_ps_mask(amax, _mm512_setzero_ps(), _CMP_GT_OQ);
    _mm512_store_ps(d, _mm512_div_ps(amax, top));
    _mm512_store_ps(inv, _mm512_maskz_div_ps(some, top, amax));
    for (int i = 0; i < n; i++, x += x_step, to += to_step) {
        __m512 f = _mm512_set1_ps(inv[i]);
        __m128i q0 =
            _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), f)));
        __m128i q1 =
            _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), f)));
        _mm_store_si128((__m128i *)to->q, q0);
        _mm_store_si128((__m128i *)(to->q + 16), q1);
        act8_finish(to, d[i], sum16(q0), sum16(q1));
    }
}

static void quant8(act8 *to, int stride, const float *x, size_t ld, int rows, int k)
{
    size_t step = (size_t)stride;
    if (k == 32) { /* one block of many rows: 16 rows at a time */
        for (int m = 0; m < rows; m += 16)
            quant8_pieces(to + m, 1, x + (size_t)m * ld, ld, rows - m < 16 ? rows - m : 16);
        return;
    }
    int n_blocks = k / 32;
    for (int kb = 0; kb < n_blocks; kb += 16)
        for (int m = 0; m < rows; m++)
            quant8_pieces(to + (size_t)kb * step + m, step, x + (size_t)m * ld + 32 * kb, 32,
                          n_blocks - kb < 16 ? n_blocks - kb : 16);
}

#define ENTRY(name, kind) .group[kind] = group_##name,
const linear_isa linear_avx512 = {LINEAR_INT8_LIST(ENTRY) LINEAR_FLOAT_LIST(ENTRY).quant8 = quant8,
                                  .quant16 = quant16, .finish = finish};
#undef ENTRY

#else
#include "kernels/cpu/linear.h"
const linear_isa linear_avx512 = {.quant8 = NULL};
#endif
