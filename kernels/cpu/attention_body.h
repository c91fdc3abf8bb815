/* attention_body.h - the attention kernels, written once on v16 and compiled once per instruction
 * set by attention_{avx512,avx2,portable}.c, which name the table (CPU_ATTN), the numbers of rows
 * that get code of their own (ATTN_ROWS), the largest of them (ATTN_MAX_ROWS) and the rows of a
 * tile.
 *
 * The two products exist per KV type and number of rows R, both constants of the inlined bodies, so
 * that R rows of accumulators stay in registers while a line of K or V is decoded once.  Arrays of
 * accumulators have a constant size: as variable arrays gcc stores them to memory on every turn.
 * Each line consumed fetches one line of the run that comes next (T1): bursts, or leaving it to the
 * hardware, overlap less of the misses with arithmetic.
 * Refuses nothing: attention.c passes valid blocks.  Any thread. */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/simd.h"

enum {
    UNITS = SIMD_WIDTH == 16 ? 2 : 1, /* groups of 16 tokens (K) or dims (V) in registers at once */
    MAX_ROWS = ATTN_MAX_ROWS
};

/* ---- writing ----------------------------------------------------------------------------------
 */

static void store_f32(const kv_view *kv, uint8_t *block, int t, const float *k, const float *v)
{
    float *kp = (float *)block + t, *vp = (float *)(block + kv->half) + 32 * t;
    for (int d = 0; d < kv->dim; d++) kp[32 * d] = k[d];
    for (int d = 0; d < kv->dim; d += 32) memcpy(vp + 32 * d, v + d, 32 * sizeof *v);
}

/* A value beyond the range saturates: an infinity in the cache would end as NaN. */
INLINE v16 f16_range(v16 x)
{
    return v_min(v_set1(65504.0f), v_max(v_set1(-65504.0f), x));
}

static void store_f16(const kv_view *kv, uint8_t *block, int t, const float *k, const float *v)
{
    uint16_t *kp = (uint16_t *)block + t, *vp = (uint16_t *)(block + kv->half) + 32 * t;
    for (int d = 0; d < kv->dim; d += 16) {
        uint16_t h[16];
        v_to_f16(h, f16_range(v_load(k + d)));
        for (int i = 0; i < 16; i++) kp[32 * (d + i)] = h[i];
        v_to_f16(vp + 32 * (d & ~31) + (d & 31), f16_range(v_load(v + d)));
    }
}

static void store_bf16(const kv_view *kv, uint8_t *block, int t, const float *k, const float *v)
{
    uint32_t *kp = (uint32_t *)block + t;
    uint16_t *vp = (uint16_t *)(block + kv->half) + 32 * t;
    for (int d = 0; d < kv->dim; d += 16) {
        uint32_t pair[8];
        v_to_bf16((uint16_t *)pair, v_load(k + d));
        for (int i = 0; i < 8; i++) kp[32 * (d / 2 + i)] = pair[i];
        v_to_bf16(vp + 32 * (d & ~31) + (d & 31), v_load(v + d));
    }
}

/* 32 values as bytes with one f16 scale. */
INLINE uint16_t quantise(const float *x, int8_t q[32])
{
    v16 a = v_load(x), b = v_load(x + 16);
    float top = v_hmax(v_max(v_abs(a), v_abs(b))) / 127.0f;
    uint16_t d = f32_to_f16(top > 65504.0f ? 65504.0f : top);
    float s = f16_to_f32(d);
    v16 inv = v_set1(s > 0 ? 1.0f / s : 0.0f), hi = v_set1(127.0f), lo = v_set1(-127.0f);
    v_to_i8(q, v_round(v_min(hi, v_max(lo, v_mul(a, inv)))));
    v_to_i8(q + 16, v_round(v_min(hi, v_max(lo, v_mul(b, inv)))));
    return d;
}

static void store_q8(const kv_view *kv, uint8_t *block, int t, const float *k, const float *v)
{
    int dim = kv->dim;
    uint8_t *vb = block + kv->half;
    uint16_t *kd = (uint16_t *)(block + 32 * dim) + t, *vd = (uint16_t *)(vb + 32 * dim) + t;
    for (int d = 0; d < dim; d += 32) {
        int8_t q[32];
        kd[d] = quantise(k + d, q);
        for (int i = 0; i < 32; i++)
            block[32 * d + 128 * (i / 4) + 4 * t + i % 4] = (uint8_t)(q[i] + 128);
        vd[d] = quantise(v + d, q);
        memcpy(vb + 32 * d + 32 * t, q, 32);
    }
}

static void store(const kv_view *kv, uint8_t *block, int t, const float *k, const float *v)
{
    switch (kv->type) {
    case KV_F32: store_f32(kv, block, t, k, v); break;
    case KV_F16: store_f16(kv, block, t, k, v); break;
    case KV_BF16: store_bf16(kv, block, t, k, v); break;
    case KV_Q8_0: store_q8(kv, block, t, k, v); break;
    }
}

/* ---- queries ----------------------------------------------------------------------------------
 */

static void quantise_row(attn_tile *w, int dim, int r)
{
    for (int b = 0; b < dim / 32; b++) {
        const float *x = w->q + r * ATTN_QUERY + 32 * b;
        v16 lo = v_load(x), hi = v_load(x + 16);
        float top = v_hmax(v_max(v_abs(lo), v_abs(hi)));
        v16 inv = v_set1(top > 0 ? 127.0f / top : 0.0f);
        int8_t q[32];
        v_to_i8(q, v_round(v_mul(lo, inv)));
        v_to_i8(q + 16, v_round(v_mul(hi, inv)));
        int sum = 0;
        for (int i = 0; i < 32; i++) sum += q[i];
        for (int i = 0; i < 8; i++)
            v_dot_pack(w->words + r * ATTN_WORDS + (8 * b + i) * V_DOT_WORDS, q + 4 * i);
        w->scale[r * ATTN_GROUPS + b] = top / 127.0f;
        w->bias[r * ATTN_GROUPS + b] = -128 * sum;
    }
}

static void load_row(attn_tile *w, const kv_view *kv, int r, const float *q, int head_dim, int pos)
{
    v16 scale = v_set1(1.44269504f / sqrtf((float)head_dim));
    float *x = w->q + r * ATTN_QUERY;
    w->pos[r] = pos;
    for (int d = 0; d < kv->dim; d += 16) {
        int n = head_dim - d < 0 ? 0 : head_dim - d < 16 ? head_dim - d : 16;
        v_store(x + d, v_mul(v_load_n(q + (n ? d : 0), n), scale));
    }
    if (kv->type == KV_Q8_0) quantise_row(w, kv->dim, r);
}

/* ---- scores = q K^T of one block ---------------------------------------------------------------
 */

/* 16 tokens from 16 * half on of dims d and d + 1. */
INLINE void k_pair(const kv_type type, const uint8_t *k, int d, int half, v16 *even, v16 *odd)
{
    if (type == KV_BF16) {
        v_from_bf16_pairs((const uint16_t *)(k + 64 * d + 64 * half), even, odd);
    } else if (type == KV_F16) {
        *even = v_from_f16((const uint16_t *)(k + 64 * d + 32 * half));
        *odd = v_from_f16((const uint16_t *)(k + 64 * d + 64 + 32 * half));
    } else {
        *even = v_load((const float *)(k + 128 * d + 64 * half));
        *odd = v_load((const float *)(k + 128 * d + 128 + 64 * half));
    }
}

INLINE void scores_float(const int R, const kv_type type, const uint8_t *k, const uint8_t *next,
                         int dim, const float *q, float *s)
{
    const int line = type == KV_F32 ? 128 : 64; /* bytes of a dim of 32 tokens */
    for (int half = 0; half < 2; half += UNITS) {
        v16 acc[MAX_ROWS][UNITS];
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int u = 0; u < UNITS; u++) acc[r][u] =
            v_zero();
        for (int d = 0; d < dim; d += 2) {
            v16 even[UNITS], odd[UNITS];
            UNROLL for (int i = 0; i < line * UNITS; i += 64)
                prefetch_l2(next + line * d + 64 * half + i);
            UNROLL for (int u = 0; u < UNITS; u++) k_pair(type, k, d, half + u, &even[u], &odd[u]);
            UNROLL for (int r = 0; r < R; r++)
            {
                v16 x = v_set1(q[r * ATTN_QUERY + d]);
                UNROLL for (int u = 0; u < UNITS; u++) acc[r][u] = v_fma(even[u], x, acc[r][u]);
            }
            UNROLL for (int r = 0; r < R; r++)
            {
                v16 x = v_set1(q[r * ATTN_QUERY + d + 1]);
                UNROLL for (int u = 0; u < UNITS; u++) acc[r][u] = v_fma(odd[u], x, acc[r][u]);
            }
        }
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int u = 0; u < UNITS; u++)
            v_store(s + r * ATTN_SCORES + 16 * (half + u), acc[r][u]);
    }
}

INLINE void scores_q8(const int R, const uint8_t *k, const uint8_t *next, int dim,
                      const attn_tile *w, int r0, float *s)
{
    const int32_t *words = w->words + r0 * ATTN_WORDS, *bias = w->bias + r0 * ATTN_GROUPS;
    const float *scale = w->scale + r0 * ATTN_GROUPS;
    const uint16_t *kd = (const uint16_t *)(k + 32 * dim);
    for (int half = 0; half < 2; half++) {
        v16 acc[MAX_ROWS];
        UNROLL for (int r = 0; r < R; r++) acc[r] = v_zero();
        for (int b = 0; b < dim / 32; b++) {
            v16i sum[MAX_ROWS];
            UNROLL for (int r = 0; r < R; r++) sum[r] = vi_set1(bias[r * ATTN_GROUPS + b]);
            UNROLL for (int i = 0; i < 8; i++)
            {
                const int at = 128 * (8 * b + i) + 64 * half;
                prefetch_l2(next + at);
                v_bytes line = v_load_bytes(k + at);
                UNROLL for (int r = 0; r < R; r++) sum[r] =
                    v_dot(sum[r], line, words + r * ATTN_WORDS + (8 * b + i) * V_DOT_WORDS);
            }
            v16 d = v_from_f16(kd + 32 * b + 16 * half);
            UNROLL for (int r = 0; r < R; r++) acc[r] =
                v_fma(vi_to_float(sum[r]), v_mul(d, v_set1(scale[r * ATTN_GROUPS + b])), acc[r]);
        }
        UNROLL for (int r = 0; r < R; r++) v_store(s + r * ATTN_SCORES + 16 * half, acc[r]);
    }
}

/* ---- out += weights V of one block --------------------------------------------------------------
 */

/* Half (0, 1) of the 32 dims of token t; BF16: even dims, odd dims. */
INLINE v16 v_half(const kv_type type, const uint8_t *v, int t, int half)
{
    if (type == KV_F32) return v_load((const float *)v + 32 * t + 16 * half);
    if (type == KV_F16) return v_from_f16((const uint16_t *)v + 32 * t + 16 * half);
    if (type == KV_Q8_0) return v_from_i8((const int8_t *)v + 32 * t + 16 * half);
    v16 even, odd;
    v_from_bf16_pairs((const uint16_t *)v + 32 * t, &even, &odd);
    return half ? odd : even;
}

/* n = tokens to count; weights p[r][ATTN_SCORES]; out[r][dim] is started when `first`. */
INLINE void weigh(const int R, const kv_type type, const uint8_t *v, const uint8_t *next, int dim,
                  const float *p, int n, bool first, float *out)
{
    const int bytes = type == KV_F32 ? 128 : type == KV_Q8_0 ? 32 : 64; /* a token of 32 dims */
    const int ld = type == KV_Q8_0 ? 32 : ATTN_SCORES;
    float scaled[MAX_ROWS][32];
    for (int b = 0; b < dim / 32; b++) {
        const uint8_t *vb = v + 32 * bytes * b, *nb = next + 32 * bytes * b;
        const float *w = p;
        if (type ==
            KV_Q8_0) { /* the scales of V go into the weights: 2 products a row, not a token */
            const uint16_t *vd = (const uint16_t *)(v + 32 * dim) + 32 * b;
            v16 d0 = v_from_f16(vd), d1 = v_from_f16(vd + 16);
            UNROLL for (int r = 0; r < R; r++)
            {
                v_store(scaled[r], v_mul(v_load(p + r * ATTN_SCORES), d0));
                v_store(scaled[r] + 16, v_mul(v_load(p + r * ATTN_SCORES + 16), d1));
            }
            w = scaled[0];
        }
        for (int half = 0; half < 2; half += UNITS) {
            v16 acc[MAX_ROWS][UNITS];
            float *o = out + 32 * b + 16 * half;
            UNROLL for (int r = 0; r < R; r++) UNROLL for (int u = 0; u < UNITS; u++) acc[r][u] =
                first ? v_zero() : v_load(o + r * dim + 16 * u);
            for (int t = 0; t < n; t++) {
                v16 x[UNITS];
                if (type == KV_F32 && UNITS == 2) prefetch_l2(nb + bytes * t + 64);
                if (type != KV_Q8_0 || t % 2)
                    prefetch_l2(nb + bytes * t + (type == KV_F32 ? 64 * half : 0));
                UNROLL for (int u = 0; u < UNITS; u++) x[u] = v_half(type, vb, t, half + u);
                UNROLL for (int r = 0; r < R; r++)
                {
                    v16 wt = v_set1(w[r * ld + t]);
                    UNROLL for (int u = 0; u < UNITS; u++) acc[r][u] = v_fma(x[u], wt, acc[r][u]);
                }
            }
            UNROLL for (int r = 0; r < R; r++) UNROLL for (int u = 0; u < UNITS; u++)
                v_store(o + r * dim + 16 * u, acc[r][u]);
        }
    }
}

/* ---- instances ----------------------------------------------------------------------------------
 */

typedef void scores_fn(const uint8_t *k, const uint8_t *next, int dim, const attn_tile *w, int r0,
                       float *s);
typedef void weigh_fn(const uint8_t *v, const uint8_t *next, int dim, const float *p, int n,
                      bool first, float *out);

#define INSTANCE(R, name, type)                                                                    \
    static void scores_##name##_##R(const uint8_t *k, const uint8_t *next, int dim,                \
                                    const attn_tile *w, int r0, float *s)                          \
    {                                                                                              \
        if (type == KV_Q8_0) scores_q8(R, k, next, dim, w, r0, s);                                 \
        else scores_float(R, type, k, next, dim, w->q + r0 * ATTN_QUERY, s);                       \
    }                                                                                              \
    static void weigh_##name##_##R(const uint8_t *v, const uint8_t *next, int dim, const float *p, \
                                   int n, bool first, float *out)                                  \
    {                                                                                              \
        weigh(R, type, v, next, dim, p, n, first, out);                                            \
    }
#define INSTANCES(R)           \
    INSTANCE(R, f32, KV_F32)   \
    INSTANCE(R, f16, KV_F16)   \
    INSTANCE(R, bf16, KV_BF16) \
    INSTANCE(R, q8, KV_Q8_0)
#define ROW(R)                                                         \
    {R,                                                                \
     {scores_f32_##R, scores_f16_##R, scores_bf16_##R, scores_q8_##R}, \
     {weigh_f32_##R, weigh_f16_##R, weigh_bf16_##R, weigh_q8_##R}},

typedef struct {
    int rows;
    scores_fn *scores[4]; /* by kv_type */
    weigh_fn *weigh[4];
} instance;

ATTN_ROWS(INSTANCES)
static const instance instances[] = {ATTN_ROWS(ROW)};

/* The narrowest instance for n rows; the excess runs on whatever the scratch holds. */
static const instance *instance_for(int n)
{
    const instance *i = instances;
    while (i->rows < n) i++;
    return i;
}

/* ---- a chunk ------------------------------------------------------------------------------------
 */

/* Scores of one row to weights 2^(score - max): the first len of n (a multiple of 32), the rest 0.
 */
static void weights_of(float *s, int n, int len, float *max, float *sum)
{
    v16 never = v_set1(-INFINITY), m = never, l = v_zero();
    for (int i = 0; i < n; i += 16) {
        v16 x = v_first(v_load(s + i), never, len - i);
        v_store(s + i, x);
        m = v_max(m, x);
    }
    *max = len > 0 ? v_hmax(m) : 0; /* a hidden chunk: the fold skips it */
    m = v_set1(*max);
    for (int i = 0; i < n; i += 16) {
        v16 p = v_exp2(v_sub(v_load(s + i), m));
        v_store(s + i, p);
        l = v_add(l, p);
    }
    *sum = v_sum(l);
}

static void chunk(attn_tile *w, const kv_view *kv, const int32_t *table, int head, int c0,
                  attn_part out)
{
    int last = w->pos[0];
    for (int r = 1; r < w->n; r++) last = w->pos[r] > last ? w->pos[r] : last;
    int n = last + 1 - c0 < ATTN_CHUNK ? last + 1 - c0 : ATTN_CHUNK;
    int blocks = (n + CPU_KV_BLOCK - 1) / CPU_KV_BLOCK;
    const int32_t *t = table + c0 / CPU_KV_BLOCK;
    const uint8_t *first_k = kv_block(kv, t[0], head);
    const uint8_t *next_chunk =
        last >= c0 + ATTN_CHUNK ? kv_block(kv, t[ATTN_CHUNK / CPU_KV_BLOCK], head) : first_k;
    int passes = (w->n + MAX_ROWS - 1) / MAX_ROWS, step = (w->n + passes - 1) / passes;

    for (int i = 0; i < blocks; i++) {
        const uint8_t *k = kv_block(kv, t[i], head);
        const uint8_t *next = i + 1 < blocks ? kv_block(kv, t[i + 1], head) : first_k + kv->half;
        for (int r = 0; r < w->n; r += step, next = k)
            instance_for(w->n - r < step ? w->n - r : step)
                ->scores[kv->type](k, next, kv->dim, w, r,
                                   w->s + r * ATTN_SCORES + CPU_KV_BLOCK * i);
    }
    for (int r = 0; r < w->n; r++)
        weights_of(w->s + r * ATTN_SCORES, CPU_KV_BLOCK * blocks, w->pos[r] + 1 - c0, &out.max[r],
                   &out.sum[r]);
    for (int i = 0; i < blocks; i++) {
        const uint8_t *v = kv_block(kv, t[i], head) + kv->half;
        const uint8_t *next = i + 1 < blocks ? kv_block(kv, t[i + 1], head) + kv->half : next_chunk;
        int tokens = n - CPU_KV_BLOCK * i < CPU_KV_BLOCK ? n - CPU_KV_BLOCK * i : CPU_KV_BLOCK;
        for (int r = 0; r < w->n; r += step, next = v)
            instance_for(w->n - r < step ? w->n - r : step)
                ->weigh[kv->type](v, next, kv->dim, w->s + r * ATTN_SCORES + CPU_KV_BLOCK * i,
                                  tokens, i == 0, out.out + r * kv->dim);
    }
}

static void fold(const attn_tile *w, int dim, int c0, attn_part part, attn_part total)
{
    for (int r = 0; r < w->n; r++) {
        if (w->pos[r] < c0) continue;
        float *o = total.out + r * dim, *p = part.out + r * dim;
        float old = c0 ? total.max[r] : -INFINITY, m = part.max[r] > old ? part.max[r] : old;
        v16 a = v_exp2(v_set1(old - m)), b = v_exp2(v_set1(part.max[r] - m));
        v16 sum = v_fma(v_set1(c0 ? total.sum[r] : 0), a, v_mul(v_set1(part.sum[r]), b));
        float lanes[16];
        v_store(lanes, sum);
        total.max[r] = m;
        total.sum[r] = lanes[0];
        for (int d = 0; d < dim; d += 16)
            v_store(o + d, v_fma(c0 ? v_load(o + d) : v_zero(), a, v_mul(v_load(p + d), b)));
    }
}

static void finish(const kv_view *kv, attn_part total, int r, float *y, int head_dim)
{
    v16 l = v_set1(total.sum[r]);
    const float *o = total.out + r * kv->dim;
    for (int d = 0; d < head_dim; d += 32) {
        v16 a = v_load(o + d), b = v_load(o + d + 16);
        if (kv->type == KV_BF16) v_zip(a, b, &a, &b);
        int n = head_dim - d;
        if (n >= 32) {
            v_store(y + d, v_div(a, l));
            v_store(y + d + 16, v_div(b, l));
        } else {
            v_store_n(y + d, v_div(a, l), n < 16 ? n : 16);
            if (n > 16) v_store_n(y + d + 16, v_div(b, l), n - 16);
        }
    }
}

const attn_ops CPU_ATTN = {.tile_rows = ATTN_TILE_ROWS,
                           .store = store,
                           .load_row = load_row,
                           .chunk = chunk,
                           .fold = fold,
                           .finish = finish};
