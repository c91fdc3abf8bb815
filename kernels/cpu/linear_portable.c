/* linear_portable.c - the matrix products in plain C, for machines without AVX2: the same bits as
 * the other instruction sets at a fraction of their speed.
 * Refuses nothing.  Any thread. */
#include "kernels/cpu/simd.h"

/* Nearest even of |x| <= 2^22; NaN becomes 0. */
INLINE int round_int(float x)
{
    return x == x ? (int)rintf(x) : 0;
}
INLINE void store_i16(int16_t *p, v16 x)
{
    float f[16];
    v_store(f, x);
    for (int i = 0; i < 16; i++) p[i] = (int16_t)round_int(f[i]);
}
INLINE v16 from_u8(const uint8_t *p, int shift, int mask)
{
    float f[16];
    for (int i = 0; i < 16; i++) f[i] = (float)(p[i] >> shift & mask);
    return v_load(f);
}
INLINE v16 from_bf16(const uint8_t *p)
{
    float f[16];
    const uint16_t *h = (const uint16_t *)(const void *)p;
    for (int i = 0; i < 16; i++) f[i] = bf16_to_f32(h[i]);
    return v_load(f);
}
#include "kernels/cpu/linear_body.h"

/* Byte i of line v of half h as a signed value: code or table entry, bias taken off. */
INLINE int decode_byte(int kind, const uint8_t *p, int h, int v, int i, const int8_t *table)
{
    layout l = layout_of(kind);
    int bits = l.body == BODY_NIBBLES ? 4 : 2, bias = kind == DT_Q3_K ? 4 : l.bias;
    const uint8_t *high = p + (l.body == BODY_NIBBLES ? 512 : 256) + i;
    int c;
    if (l.body == BODY_BYTES) c = p[64 * (8 * h + v) + i];
    else if (l.body == BODY_NIBBLES) c = p[64 * (4 * h + v % 4) + i] >> 4 * (v / 4) & 15;
    else c = p[64 * (2 * h + v / 4) + i] >> 2 * (v % 4) & 3;
    if (l.high_bits == 1) c |= (high[64 * h] >> v & 1) << bits;
    if (l.high_bits == 2) c |= (high[64 * (2 * h + v / 4)] >> 2 * (v % 4) & 3) << bits;
    return layout_has_table(kind) ? table[c] : c - bias;
}
/* One sub-block as w[k][row]. */
INLINE void decode(int kind, const uint8_t *p, const int8_t *table, int16_t w[32][32])
{
    for (int h = 0; h < 2; h++)
        for (int v = 0; v < 8; v++)
            for (int b = 0; b < 4; b++)
                for (int n = 0; n < 16; n++)
                    w[4 * v + b][16 * h + n] =
                        (int16_t)decode_byte(kind, p, h, v, 4 * n + b, table);
}

/* sum[row] = q[n] . w[n][row] */
INLINE void dot(int32_t sum[32], const int16_t (*w)[32], const int8_t *q, int n)
{
    memset(sum, 0, 32 * sizeof *sum);
    for (int k = 0; k < n; k++)
        for (int r = 0; r < 32; r++) sum[r] += w[k][r] * q[k];
}
INLINE v16 to_f32(const int32_t *p)
{
    float f[16];
    for (int i = 0; i < 16; i++) f[i] = (float)p[i];
    return v_load(f);
}
/* sum0 * x + sum1 * y, the rule of linear.h. */
INLINE v16 two_scales(v16 sum0, v16 x, v16 sum1, v16 y)
{
    return v_fma(sum1, y, v_mul(sum0, x));
}

INLINE void row_whole(int kind, const int16_t w[32][32], const scales *sc, const act8 *a,
                      float *acc)
{
    int32_t sum[32];
    dot(sum, w, a->q, 32);
    for (int h = 0; h < 2; h++) {
        v16 c = v_fma(to_f32(sum + 16 * h), v_mul(sc->s[h], v_set1(a->d)), v_load(acc + 16 * h));
        if (layout_has_min(kind)) c = v_fma(sc->p[h], v_set1(a->ds), c);
        v_store(acc + 16 * h, c);
    }
}
INLINE void row_halves(int kind, const int16_t w[32][32], const scales *sc, const act8 *a,
                       float *acc)
{
    int32_t sum0[32], sum1[32];
    v16 d = v_set1(a->d), s0 = v_set1((float)a->off32[0] * (-1.0f / 32)),
        s1 = v_set1((float)a->off32[1] * (-1.0f / 32));
    dot(sum0, w, a->q, 16);
    dot(sum1, w + 16, a->q + 16, 16);
    for (int h = 0; h < 2; h++) {
        v16 f = two_scales(to_f32(sum0 + 16 * h), sc->s[h], to_f32(sum1 + 16 * h), sc->t[h]);
        v16 c = v_fma(f, d, v_load(acc + 16 * h));
        if (layout_has_min(kind)) c = v_fma(two_scales(s0, sc->p[h], s1, sc->q[h]), d, c);
        v_store(acc + 16 * h, c);
    }
}

INLINE void int8_group(int kind, const uint8_t *p, const acts *a, int m0, int rows, float *acc)
{
    layout l = layout_of(kind);
    const int8_t *table = format_of(kind).table;
    const uint8_t *head = p;
    super_scales k = {{v_zero(), v_zero()}, {v_zero(), v_zero()}};
    memset(acc, 0, sizeof *acc * 32 * (size_t)rows);
    for (int kb = 0; kb < a->n_blocks; kb++) {
        int16_t w[32][32];
        scales sc;
        int sub = kb % l.subs;
        if (sub == 0) {
            head = p;
            load_super(kind, p, &k);
            p += l.head;
        }
        const uint8_t *codes = p + l.before, *after = codes + l.codes;
        for (int h = 0; h < 2; h++) load_scales(kind, &k, head, sub, p, after, h, &sc);
        decode(kind, codes, table, w);
        p = after + l.after;
        const act8 *b = (const act8 *)a->x + (size_t)kb * (size_t)a->stride + m0;
        for (int m = 0; m < rows; m++) {
            if (layout_has_halves(kind))
                row_halves(kind, (const int16_t(*)[32])w, &sc, b + m, acc + 32 * m);
            else row_whole(kind, (const int16_t(*)[32])w, &sc, b + m, acc + 32 * m);
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

static void group_i16(const uint8_t *p, const acts *a, int m0, int rows, float *acc)
{
    int bytes = layout_bytes(layout_of(LAYOUT_I16));
    memset(acc, 0, sizeof *acc * 32 * (size_t)rows);
    for (int kb = 0; kb < a->n_blocks; kb++, p += bytes) {
        size_t at = (size_t)kb * (size_t)a->stride + (size_t)m0;
        const int16_t *w = (const int16_t *)(const void *)p; /* [k/16][h][k%16/2][row][k%2] */
        const float *s = (const float *)(const void *)(p + 2048);
        for (int m = 0; m < rows; m++) {
            const int16_t *q = (const int16_t *)a->x + 32 * (at + (size_t)m);
            int32_t sum[32] = {0};
            for (int v = 0; v < 16; v++)
                for (int r = 0; r < 32; r++) {
                    const int16_t *x =
                        w + 512 * (v / 8) + 256 * (r / 16) + 32 * (v % 8) + 2 * (r % 16);
                    sum[r] += x[0] * q[2 * v] + x[1] * q[2 * v + 1];
                }
            for (int h = 0; h < 2; h++) {
                float *c = acc + 32 * m + 16 * h;
                v16 scale = v_mul(v_load(s + 16 * h), v_set1(a->d[at + (size_t)m]));
                v_store(c, v_fma(to_f32(sum + 16 * h), scale, v_load(c)));
            }
        }
    }
}

static void quant8(act8 *to, int stride, const float *x, size_t ld, int rows, int k)
{
    for (int k0 = 0; k0 < k; k0 += 32, to += stride)
        for (int m = 0; m < rows; m++) {
            const float *p = x + (size_t)m * ld + k0;
            v16 a = v_load(p), b = v_load(p + 16);
            float amax = v_hmax(v_max(v_abs(a), v_abs(b))), f[32];
            v16 inv = v_set1(amax > 0 ? Q8_MAX / amax : 0);
            int sum[2] = {0, 0};
            v_store(f, v_mul(a, inv));
            v_store(f + 16, v_mul(b, inv));
            for (int i = 0; i < 32; i++) sum[i / 16] += to[m].q[i] = (int8_t)round_int(f[i]);
            act8_finish(&to[m], amax / Q8_MAX, sum[0], sum[1]);
        }
}

#define ENTRY(name, kind) .group[kind] = group_##name,
const linear_isa linear_portable = {LINEAR_INT8_LIST(ENTRY) LINEAR_FLOAT_LIST(ENTRY).quant8 =
                                        quant8,
                                    .quant16 = quant16, .finish = finish};
#undef ENTRY
