/* sample_row.cuh - what the sampler's kernels share: the parameters of a row as uploaded, the sums
 * a scan leaves, how logits are read, ordered and weighed.
 *
 * Ids are cut into sets of 256 (a warp's read) and chunks of 4,096 (a block's).  A scan leaves the
 * best score of every set and chunk and, per chunk, the sum of exp((x - best of the chunk) / T) as
 * an integer in units of 2^-40: exact sums, whatever the order.
 *
 * Order everywhere: score falling, then id rising; NaN is -infinity, -0 is 0.
 * Owns nothing.  Device code; the structs also on the host. */
#ifndef QUERN_KERNELS_CUDA_SAMPLE_ROW_CUH
#define QUERN_KERNELS_CUDA_SAMPLE_ROW_CUH

#include "kernels/cuda/portable.cuh"

typedef unsigned long long u64;

enum {
    SET = 256,
    CHUNK = 4096,
    SETS_PER_CHUNK = CHUNK / SET,
    MAX_VOCAB = 1 << 20,
    MAX_CHUNKS = MAX_VOCAB / CHUNK,
    MAX_SETS = MAX_VOCAB / SET,
    SCAN_THREADS = 256,
    TOP_MAX = 20,
    WEIGHT_BITS = 40
};

/* ---- memory ------------------------------------------------------------------------------- */

enum {
    ROW_SETS = 1,      /* scan: the best of each set will be asked for */
    ROW_MASS = 2,      /* scan: the chunks' sums too */
    ROW_DRAWS = 4,     /* temperature > 0 */
    ROW_PLAIN = 8,     /* logprobs come from the scan of scores, which nothing has changed */
    ROW_PENALISES = 16 /* repetition, presence or frequency */
};

/* A sample_row on the device.  Places are in words from the start of the upload; -1: none. */
typedef struct {
    double u;        /* the random number */
    double inv_temp; /* 1 / temperature */
    double min_gap;  /* min_p: scores lower than the best by more are out; < 0: off */
    float scale[2];  /* log2(e) / temperature in two parts, of draws */
    float temperature, top_p;
    float repetition, presence, frequency;
    int top_k; /* 0: off */
    int n;     /* ids */
    int flags;
    int n_top;                  /* -1: no logprobs */
    int32_t forced;             /* -1: draw */
    int allow, ban, bias, seen; /* bias: ids, then floats; seen: ids, then counts */
    int n_ban, n_bias, n_seen;
    int mask;  /* row of masks[], -1: all ids may be drawn */
    int saved; /* place in saved[], -1: nothing to restore */
} row_job;

typedef struct {
    float best; /* -infinity: none above */
    int at;     /* its lowest id */
    u64 mass;
} chunk_sum;

typedef struct {
    float best;
    int at;
    double total; /* of weights, the best one's being 1 */
} row_sum;

/* What one kind of scan (of raw logits, of scores) leaves, a line a row. */
typedef struct {
    chunk_sum *chunk; /* [rows][n_chunks] */
    float *set;       /* [rows][n_sets] */
    row_sum *row;     /* [rows] */
} scan_sums;

typedef struct {
    int32_t id;
    int rank;
    float logprob;
} row_answer;
typedef struct {
    int32_t id[TOP_MAX];
    float logprob[TOP_MAX];
} row_top;

typedef struct {
    float *logits; /* [rows][ld] scratch: penalties are applied in place */
    int64_t ld;
    const int32_t *words; /* the upload */
    const row_job *job;   /* [rows], in it */
    uint32_t *masks;      /* [.][mask_words] ids that may be drawn */
    int mask_words;
    float *saved; /* logits before they were changed */
    scan_sums raw, score;
    int n_chunks, n_sets; /* line lengths */
    unsigned *ticket;     /* [rows] */
    int32_t *drawn;       /* [rows] */
    row_answer *answer;   /* [rows] */
    row_top *top;         /* [rows] */
} sample_args;

/* ---- order -------------------------------------------------------------------------------- */

/* Rises with the score; x is neither NaN nor -0. */
CU_FN uint32_t order_of(float x)
{
    uint32_t u = __float_as_uint(x);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}
CU_FN float score_of(uint32_t order)
{
    return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}
/* Unique; the smallest key is the best candidate. */
CU_FN u64 key_of(float x, int id)
{
    return (u64)~order_of(x) << 32 | (uint32_t)id;
}
CU_FN float key_score(u64 key)
{
    return score_of(~(uint32_t)(key >> 32));
}
CU_FN int key_id(u64 key)
{
    return (int)(uint32_t)key;
}

/* ---- weights ------------------------------------------------------------------------------ */

/* exp(-gap / T) in units of 2^-40, scale = log2(e) / T in two parts.  Relative error 2^-22 plus the
 * rounding of the gap; below 2^-40 it is 0.  Fused and unfused operations are spelled out: the bits
 * do not depend on the compiler. */
CU_FN u64 weight_of(float gap, float scale_hi, float scale_lo)
{
    float e = __fmul_rn(gap, scale_hi);
    if (!(e < WEIGHT_BITS + 0.5f)) return 0; /* NaN too: infinity times 0 */
    float rest = __fmaf_rn(gap, scale_lo, __fmaf_rn(gap, scale_hi, -e));
    float k = rintf(e), f = __fsub_rn(__fsub_rn(k, e), rest);
    float p = 1.53458118e-4f; /* 2^f on [-1/2, 1/2], minimax of degree 6: 2e-9 */
    p = __fmaf_rn(p, f, 1.33999309e-3f);
    p = __fmaf_rn(p, f, 9.61848907e-3f);
    p = __fmaf_rn(p, f, 5.55032864e-2f);
    p = __fmaf_rn(p, f, 2.40226462e-1f);
    p = __fmaf_rn(p, f, 6.93147182e-1f);
    p = __fmaf_rn(p, f, 1.0f);
    uint32_t u = __float_as_uint(p);
    int shift = (int)(u >> 23) - 127 - 23 + WEIGHT_BITS - (int)k;
    u64 m = (u & 0x7fffffu) | 0x800000u;
    return shift >= 0 ? m << shift : m >> -shift;
}

/* ---- reading ------------------------------------------------------------------------------ */

/* One row of scores and which of its ids count. */
typedef struct {
    const float *x;      /* [n] */
    const uint32_t *may; /* NULL: all */
    int n;
    bool aligned; /* 16 bytes at a time */
} row_view;

CU_FN row_view view_row(const sample_args &a, int row, bool raw)
{
    const row_job *j = &a.job[row];
    const float *x = a.logits + row * a.ld;
    const uint32_t *may = raw || j->mask < 0 ? NULL : a.masks + (int64_t)j->mask * a.mask_words;
    return {x, may, j->n, ((uintptr_t)x & 15) == 0};
}

/* Scores of ids i..i+3, i a multiple of 4; -infinity where an id is masked or beyond the end. */
CU_FN void load_four(float v[4], const row_view &r, int i)
{
    if (i >= r.n) {
        v[0] = v[1] = v[2] = v[3] = -INFINITY;
        return;
    }
    if (r.aligned && i + 4 <= r.n) {
        float4 f = *(const float4 *)(r.x + i);
        v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
    } else {
        for (int e = 0; e < 4; e++) v[e] = i + e < r.n ? r.x[i + e] : -INFINITY;
    }
    uint32_t on = r.may ? r.may[i >> 5] >> (i & 31) : 15;
    for (int e = 0; e < 4; e++) v[e] = on >> e & 1 && v[e] == v[e] ? v[e] + 0.0f : -INFINITY;
}

/* A warp's read of a set: this lane's values e = 0..7 are those of ids lane_id(set, e), rising. */
CU_FN int lane_id(int set, int e)
{
    return set * SET + (e >> 2) * (SET / 2) + cu_lane() * 4 + (e & 3);
}
CU_FN void load_set(float v[8], const row_view &r, int set)
{
    load_four(v, r, lane_id(set, 0));
    load_four(v + 4, r, lane_id(set, 4));
}

/* ---- over a warp -------------------------------------------------------------------------- */

CU_FN u64 warp_sum(u64 v)
{
    for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(CU_FULL, v, m);
    return v;
}
CU_FN double warp_sum(double v)
{
    for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(CU_FULL, v, m);
    return v;
}
CU_FN float warp_best(float v)
{
    return score_of(cu_redux_max(order_of(v)));
}

#endif
