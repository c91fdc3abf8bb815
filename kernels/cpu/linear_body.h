/* linear_body.h - the parts of a linear_isa written once on v16: products with F32, F16 and BF16
 * weights, quantisation of activations, the epilogue.  Included by linear_{avx512,avx2,avxvnni,
 * portable}.c, which first define
 *     store_i16(int16_t *p, v16 x)   16 values rounded to nearest even
 *     from_u8(const uint8_t *p, int shift, int mask)   (p[i] >> shift) & mask, 16 values
 *     from_bf16(const uint8_t *p)    16 values in order
 * Refuses nothing.  Any thread. */
#include "kernels/cpu/linear.h"

/* Rows of activations whose chains are interleaved: as many as the registers hold. */
enum { FLOAT_ROWS = SIMD_WIDTH == 16 ? 4 : 2, Q8_MAX = 127, Q16_MAX = 8191 };

/* 8 k x 32 rows of one block as f32 [k][row]; F32 is that already. */
INLINE const float *decode_float(int kind, const uint8_t *p, float *w)
{
    if (kind == DT_F32) return (const float *)(const void *)p;
    UNROLL for (int i = 0; i < 8; i++)
    {
        const uint16_t *line = (const uint16_t *)(const void *)(p + 64 * i);
        if (kind == DT_F16) {
            v_store(w + 32 * i, v_from_f16(line));
            v_store(w + 32 * i + 16, v_from_f16(line + 16));
        } else {
            v16 even, odd;
            v_from_bf16_pairs(line, &even, &odd);
            v_store(w + 64 * (i % 4) + 16 * (i / 4), even);
            v_store(w + 64 * (i % 4) + 32 + 16 * (i / 4), odd);
        }
    }
    return w;
}

/* One block times n rows x[n][8]; acc[n][32]. */
INLINE void float_rows(int n, const float *w, const float *x, float *acc)
{
    v16 c0[4], c1[4];
    UNROLL for (int u = 0; u < n; u++)
    {
        c0[u] = v_load(acc + 32 * u);
        c1[u] = v_load(acc + 32 * u + 16);
    }
    UNROLL for (int k = 0; k < 8; k++)
    {
        v16 w0 = v_load(w + 32 * k), w1 = v_load(w + 32 * k + 16);
        UNROLL for (int u = 0; u < n; u++)
        {
            v16 b = v_set1(x[8 * u + k]);
            c0[u] = v_fma(w0, b, c0[u]);
            c1[u] = v_fma(w1, b, c1[u]);
        }
    }
    UNROLL for (int u = 0; u < n; u++)
    {
        v_store(acc + 32 * u, c0[u]);
        v_store(acc + 32 * u + 16, c1[u]);
    }
}

INLINE void float_group(int kind, const uint8_t *p, const acts *a, int m0, int rows, float *acc)
{
    _Alignas(64) float buf[8 * 32];
    int bytes = layout_bytes(layout_of(kind));
    memset(acc, 0, sizeof *acc * 32 * (size_t)rows);
    for (int kb = 0; kb < a->n_blocks; kb++, p += bytes) {
        const float *x = (const float *)a->x + 8 * ((size_t)kb * (size_t)a->stride + (size_t)m0);
        for (int i = 0; i < bytes; i += 64) __builtin_prefetch(p + PREFETCH_BYTES + i, 0, 3);
        const float *w = decode_float(kind, p, buf);
        int m = 0;
        for (; m + FLOAT_ROWS <= rows; m += FLOAT_ROWS)
            float_rows(FLOAT_ROWS, w, x + 8 * m, acc + 32 * m);
        for (; m < rows; m++) float_rows(1, w, x + 8 * m, acc + 32 * m);
    }
}
static void group_f32(const uint8_t *w, const acts *a, int m0, int rows, float *acc)
{
    float_group(DT_F32, w, a, m0, rows, acc);
}
static void group_f16(const uint8_t *w, const acts *a, int m0, int rows, float *acc)
{
    float_group(DT_F16, w, a, m0, rows, acc);
}
static void group_bf16(const uint8_t *w, const acts *a, int m0, int rows, float *acc)
{
    float_group(DT_BF16, w, a, m0, rows, acc);
}

/* What a record says about its q, from the sums of its halves. */
INLINE void act8_finish(act8 *o, float d, int sum0, int sum1)
{
    int sum = sum0 + sum1;
    o->d = d;
    o->ds = d * (float)sum;
    o->off128 = -128 * sum;
    o->off16 = -16 * sum;
    o->off8 = -8 * sum;
    o->off32[0] = -32 * sum0;
    o->off32[1] = -32 * sum1;
    o->pad = 0;
}

static void quant16(int16_t *to, float *d, int stride, const float *x, size_t ld, int rows, int k)
{
    for (int k0 = 0; k0 < k; k0 += 32, to += 32 * (size_t)stride, d += stride)
        for (int m = 0; m < rows; m++) {
            const float *p = x + (size_t)m * ld + k0;
            int n = k - k0;
            v16 a = n >= 16 ? v_load(p) : v_load_n(p, n);
            v16 b = n >= 32 ? v_load(p + 16) : n > 16 ? v_load_n(p + 16, n - 16) : v_zero();
            float amax = v_hmax(v_max(v_abs(a), v_abs(b)));
            v16 inv = v_set1(amax > 0 ? Q16_MAX / amax : 0);
            d[m] = amax / Q16_MAX;
            store_i16(to + 32 * m, v_mul(a, inv));
            store_i16(to + 32 * m + 16, v_mul(b, inv));
        }
}

static void finish(float *y, size_t ld, const float *acc, const float *bias, int rows, int cols,
                   bool add)
{
    int n0 = cols < 16 ? cols : 16, n1 = cols - n0;
    v16 b0 = bias ? v_load_n(bias, n0) : v_zero(), b1 = bias ? v_load_n(bias + n0, n1) : v_zero();
    for (int m = 0; m < rows; m++, y += ld, acc += 32) {
        v16 c0 = v_load(acc), c1 = v_load(acc + 16);
        if (bias) {
            c0 = v_add(c0, b0);
            c1 = v_add(c1, b1);
        }
        if (add) {
            c0 = v_add(v_load_n(y, n0), c0);
            c1 = v_add(v_load_n(y + n0, n1), c1);
        }
        v_store_n(y, c0, n0);
        v_store_n(y + n0, c1, n1);
    }
}

/* ---- scales of block formats -------------------------------------------------------------- */

/* Of one sub-block, for rows 16h..: scale s and addend p; t and q are those of k >= 16 where scales
 * are per 16. */
typedef struct {
    v16 s[2], t[2], p[2], q[2];
} scales;

INLINE v16 from_f16(const uint8_t *p)
{
    return v_from_f16((const uint16_t *)(const void *)p);
}
INLINE v16 from_i8(const uint8_t *p)
{
    return v_from_i8((const int8_t *)p);
}
/* The bits of e4m3 moved into f16 are 2^-8 of the value; codes are doubled. */
INLINE v16 from_e4m3(const uint8_t *p)
{
    uint16_t f16[16];
    for (int i = 0; i < 16; i++) f16[i] = (uint16_t)(p[i] << 7);
    return v_mul(v_from_f16(f16), v_set1(128));
}

/* What the sub-blocks of a K-quant share, converted once for all eight: d, and the addend's. */
typedef struct {
    v16 d[2], p[2];
} super_scales;

INLINE void load_super(int kind, const uint8_t *head, super_scales *o)
{
    layout l = layout_of(kind);
    UNROLL for (int h = 0; h < 2; h++)
    {
        if (l.head) o->d[h] = from_f16(head + 32 * h);
        if (l.head && layout_has_min(kind)) o->p[h] = from_f16(head + 64 + 32 * h);
    }
}

INLINE void load_scales(int kind, const super_scales *k, const uint8_t *head, int sub,
                        const uint8_t *before, const uint8_t *after, int h, scales *o)
{
    const uint8_t *low = before + 16 * h, *high = low + 32;
    switch (kind) {
    case DT_Q4_1:
    case DT_Q5_1: o->p[h] = from_f16(after + 64 + 32 * h); /* fall through */
    case DT_Q4_0:
    case DT_Q5_0:
    case DT_Q8_0:
    case DT_IQ4_NL: o->s[h] = from_f16(after + 32 * h); break;
    case DT_MXFP4: o->s[h] = from_bf16(after + 32 * h); break;
    case DT_NVFP4:
        o->s[h] = from_e4m3(after + 16 * h);
        o->t[h] = from_e4m3(after + 32 + 16 * h);
        break;
    case DT_IQ4_XS: o->s[h] = v_mul(k->d[h], from_i8(head + 64 + 32 * sub + 16 * h)); break;
    case DT_Q4_K:
    case DT_Q5_K:
        o->s[h] = v_mul(k->d[h], from_u8(low, 0, 255));
        o->p[h] = v_mul(k->p[h], from_u8(high, 0, 255));
        break;
    case DT_Q2_K:
        o->s[h] = v_mul(k->d[h], from_u8(low, 0, 15));
        o->t[h] = v_mul(k->d[h], from_u8(high, 0, 15));
        o->p[h] = v_mul(k->p[h], from_u8(low, 4, 15));
        o->q[h] = v_mul(k->p[h], from_u8(high, 4, 15));
        break;
    default: /* Q3_K, Q6_K */
        o->s[h] = v_mul(k->d[h], from_i8(low));
        o->t[h] = v_mul(k->d[h], from_i8(high));
    }
}
