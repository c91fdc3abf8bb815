/* attention_decode.cu - attention of single rows over a KV cut into chunks: see attention.h.
 *
 * A block takes an (item, KV head, up to 16 of its q heads): the q heads are the 16 rows of the
 * mma tile.  Keys come 64 at a time through two cp.async stages; of each 64, warp w takes keys
 * 16 w..  At the end of a chunk the four warps' results are joined in warp order, in the stage that
 * was just used, while the next keys are under way in the other.  q, and with a.store the row's own
 * k, are normed and rotated in the prologue; that k and v then go to the pages and, since nobody
 * may wait for them there, straight into the shared tile.
 *
 * Folding: attention.h.  The last block to arrive of a span, then of a row, folds partial results
 * in index order; tickets are integers and go back to zero. Owns nothing.  Refuses nothing. Thread:
 * the rank's. */
#include "kernels/cuda/attention.cuh"

enum {
    DEC_THREADS = 128,
    DEC_WARPS = DEC_THREADS / 32,
    DEC_STEPS = ATTN_CHUNK / ATTN_KEYS, /* of a chunk */
    DEC_BLOCKS = 3                      /* of an SM: 96 KB of keys in flight at head_dim 128 */
};

/* Per query row: what the warps have, and how the chunk, span and row under way are folded. */
typedef struct {
    float max[DEC_WARPS][ATTN_ROWS], sum[DEC_WARPS][ATTN_ROWS], part[DEC_WARPS][ATTN_ROWS];
    float span_max[ATTN_ROWS], span_sum[ATTN_ROWS], span_keep[ATTN_ROWS], span_add[ATTN_ROWS];
    float row_max[ATTN_ROWS], row_sum[ATTN_ROWS], row_keep[ATTN_ROWS], row_add[ATTN_ROWS];
} fold_rows;

template <int D> static size_t decode_smem(void)
{
    return 2 * 2 * ATTN_KEYS * D * 2 + ATTN_ROWS * D * 2 + 2 * D * 2 + sizeof(fold_rows);
}

/* What a block works on. */
typedef struct {
    attn_item it;
    int h;           /* KV head */
    int head0, rows; /* first q head, number of them: up to ATTN_ROWS */
    int unit;        /* (KV head, group of q heads): index of tickets */
    int units;       /* of them */
    int chunks;      /* of the row */
    int first, end;  /* steps of 64 keys of the item */
    int fresh;       /* position whose k and v come from this row; -1: none */
    const int32_t *table;
} decode_work;

CU_FN decode_work work_of(const attn_args &a, const attn_item &it, int unit, int units)
{
    decode_work w;
    int groups = units / a.kv_heads, g = unit % groups * ATTN_ROWS;
    w.it = it;
    w.unit = unit;
    w.units = units;
    w.h = unit / groups;
    w.head0 = w.h * a.group + g;
    w.rows = a.group - g < ATTN_ROWS ? a.group - g : ATTN_ROWS;
    w.chunks = (it.len + ATTN_CHUNK - 1) / ATTN_CHUNK;
    w.first = it.chunk * DEC_STEPS;
    int end = min(it.len, (it.chunk + it.n) * ATTN_CHUNK);
    w.end = (end + ATTN_KEYS - 1) / ATTN_KEYS;
    w.fresh = a.store && end == it.len ? it.len - 1 : -1;
    w.table = a.table + (size_t)it.seq * (size_t)a.max_blocks;
    return w;
}

/* Block numbers of step i; they are on their way while the warps meet. */
CU_FN void step_blocks(int block[4], const decode_work &w, int i)
{
#pragma unroll
    for (int p = 0; p < 4; p++) {
        int at = i * 4 + p;
        block[p] = i < w.end && at * KV_PAGE < w.it.len ? w.table[at] : 0;
    }
}

/* Starts copying the keys of step i; commits in any case, so that steps can be counted. */
template <typename T, int D>
CU_FN void step_load(char *stage, const attn_args &a, const decode_work &w, int i,
                     const int block[4])
{
    if (i < w.end) {
#pragma unroll
        for (int p = 0; p < 4; p++) {
            int at = i * ATTN_KEYS + p * KV_PAGE;
            load_page<T, D, DEC_THREADS>(stage, a, block[p], w.h, p, w.it.len - at, w.fresh - at);
        }
    }
    cu_cp_commit();
}

/* The row's own k and v (own[2][D]) into the stage that holds their position. */
template <typename T, int D>
CU_FN void step_fresh(char *stage, const decode_work &w, int i, const T *own)
{
    int t = (int)threadIdx.x, v = t / (D / 8), c = t % (D / 8);
    if (w.fresh < 0 || w.fresh / ATTN_KEYS != i || v > 1) return;
    char *tile = stage + v * ATTN_KEYS * D * 2;
    *(uint4 *)(tile + piece_at<D>(w.fresh % ATTN_KEYS, c)) = *(const uint4 *)(own + v * D + c * 8);
}

/* q heads into shared memory, rows beyond the group zero; the row's own k and v into own[2][D]. */
template <typename T, int D>
CU_FN void prologue(char *q, T *own, const attn_args &a, const decode_work &w)
{
    enum { J = D / 64 ? D / 64 : 1 };
    const bf16 *row = (const bf16 *)a.qkv + (size_t)w.it.row * (size_t)a.ldq;
    const float *cs = a.cs ? a.cs + (size_t)w.it.row * (size_t)a.ldcs : NULL;
    int warp = (int)threadIdx.x / 32, rot = cs ? a.rot : 0;
    float lo[J], hi[J];
#pragma unroll 1
    for (int r = warp; r < ATTN_ROWS; r += DEC_WARPS) {
        bool on = r < w.rows;
        if (on) turn_head<J>(lo, hi, row + (w.head0 + r) * a.head_dim, cs ? a.q_norm : NULL, cs, a);
#pragma unroll
        for (int j = 0; j < J; j++) {
            int p = cu_lane() + 32 * j;
            if (p >= D / 2) continue;
            to_kv(value_at<T, D>(q, r, pair_lo(p, rot)), on ? lo[j] : 0.0f);
            to_kv(value_at<T, D>(q, r, pair_hi(p, rot)), on ? hi[j] : 0.0f);
        }
    }
    if (w.fresh < 0 || warp < 2) return;
    bool is_v = warp == 3;
    int head = a.heads + (is_v ? a.kv_heads : 0) + w.h, turn = is_v ? 0 : rot;
    turn_head<J>(lo, hi, row + head * a.head_dim, is_v ? NULL : a.k_norm, is_v ? NULL : cs, a);
#pragma unroll
    for (int j = 0; j < J; j++) {
        int p = cu_lane() + 32 * j;
        if (p >= D / 2) continue;
        to_kv(own + is_v * D + pair_lo(p, turn), lo[j]);
        to_kv(own + is_v * D + pair_hi(p, turn), hi[j]);
    }
}

/* own[2][D] to its place in the pages: by the first group of a KV head's q heads. */
template <typename T, int D>
CU_FN void store_own(const T *own, const attn_args &a, const decode_work &w)
{
    int t = (int)threadIdx.x, v = t / (D / 8), c = t % (D / 8);
    if (w.fresh < 0 || w.head0 != w.h * a.group || v > 1 || c * 8 >= a.head_dim) return;
    int slot = a.slot[w.it.row];
    T *to = (T *)a.kv + (size_t)(slot / KV_PAGE) * a.kv_block + head_in_block(a, v, w.h) +
            slot % KV_PAGE * a.head_dim;
    *(uint4 *)(to + c * 8) = *(const uint4 *)(own + v * D + c * 8);
}

/* Scores, softmax and values of this warp's 16 keys of a step. */
template <typename T, int D>
CU_FN void step_keys(float o[1][D / 8][4], float max[2], float sum[2], const char *q,
                     const char *stage, float scale, int left)
{
    int warp = (int)threadIdx.x / 32;
    left -= warp * 16;
    if (left <= 0) return;
    float s[1][2][4];
    auto query =
        [&](uint32_t f[4], int k,
            int) { /* kept in registers they would cost 32 of 168 */
                   cu_ldmatrix_x4(f, q + piece_at<D>(cu_lane() & 15, k * 2 + (cu_lane() >> 4)));
        };
    score<T, D, 2, 1>(s, query, stage, warp * 16);
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (n * 8 + (cu_lane() & 3) * 2 + (e & 1) >= left) s[0][n][e] = -INFINITY;
    soften<D, 2>(s[0], o[0], max, sum, scale);
    weigh<T, D, 2, 1>(o, s, stage + ATTN_KEYS * D * 2, warp * 16);
}

/* Float (r, c) of a warp's values in the exchange: columns are permuted against bank conflicts. */
template <int D> CU_FN int exchange_at(int warp, int r, int c)
{
    return (warp * ATTN_ROWS + r) * D + (c ^ (r & 3) << 3);
}

/* This warp's chunk result into the exchange. */
template <int D>
CU_FN void put_warp(float *x, fold_rows *f, const float o[D / 8][4], const float max[2],
                    const float sum[2], int rows)
{
    int warp = (int)threadIdx.x / 32, g = cu_lane() >> 2, t = cu_lane() & 3;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float all = sum[h];
        all += __shfl_xor_sync(CU_FULL, all, 1);
        all += __shfl_xor_sync(CU_FULL, all, 2);
        int r = g + 8 * h;
        if (r >= rows) continue;
        if (t == 0) {
            f->max[warp][r] = max[h];
            f->sum[warp][r] = all;
        }
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *(float2 *)(x + exchange_at<D>(warp, r, n * 8 + t * 2)) =
                make_float2(o[n][2 * h], o[n][2 * h + 1]);
    }
}

/* One thread a row: joins the warps' maxima and sums, folds the chunk into the span and a finished
 * span into the row. */
CU_FN void fold_row(fold_rows *f, int r, bool span_first, bool span_end, bool row_first)
{
    float max = -INFINITY, sum = 0;
    for (int w = 0; w < DEC_WARPS; w++) max = fmaxf(max, f->max[w][r]);
    for (int w = 0; w < DEC_WARPS; w++) {
        f->part[w][r] = cu_ex2(f->max[w][r] - max);
        sum = fmaf(f->part[w][r], f->sum[w][r], sum);
    }
    if (span_first) {
        f->span_max[r] = max;
        f->span_sum[r] = sum;
    } else {
        fold_factors(&f->span_max[r], &f->span_sum[r], max, sum, &f->span_keep[r], &f->span_add[r]);
    }
    if (!span_end) return;
    if (row_first) {
        f->row_max[r] = f->span_max[r];
        f->row_sum[r] = f->span_sum[r];
    } else {
        fold_factors(&f->row_max[r], &f->row_sum[r], f->span_max[r], f->span_sum[r],
                     &f->row_keep[r], &f->row_add[r]);
    }
}

/* A result: to the output, or to a slot. */
CU_FN void put_value(const attn_args &a, const decode_work &w, int slot, int r, int c, float value,
                     float max, float sum)
{
    if (slot < 0) {
        bf16 *o = (bf16 *)a.o + (size_t)w.it.row * (size_t)a.ldo;
        o[(w.head0 + r) * a.head_dim + c] = __float2bfloat16(value / sum);
        return;
    }
    float *part = a.part + ((size_t)slot * (size_t)a.heads + (size_t)(w.head0 + r)) *
                               (size_t)(a.head_dim + 2);
    part[c] = value;
    if (c > 0) return;
    part[a.head_dim] = max;
    part[a.head_dim + 1] = sum;
}

/* Joins the warps of chunk c and folds it; the item's last chunk puts the result.  What was folded
 * so far waits in a.fold: each thread reads back only what it wrote. */
template <int D>
CU_FN void fold_chunk(float *x, fold_rows *f, const attn_args &a, const decode_work &w, int c)
{
    bool last = c == w.it.chunk + w.it.n - 1, span_first = c % ATTN_SPAN == 0 || c == w.it.chunk;
    bool span_end = last || (c + 1) % ATTN_SPAN == 0,
         row_first = c / ATTN_SPAN * ATTN_SPAN <= w.it.chunk;
    if ((int)threadIdx.x < w.rows) fold_row(f, (int)threadIdx.x, span_first, span_end, row_first);
    __syncthreads();
    float *span = a.fold + (size_t)blockIdx.x * (size_t)(2 * ATTN_ROWS * a.head_dim);
    float *row = span + ATTN_ROWS * a.head_dim;
    for (int i = (int)threadIdx.x; i < w.rows * D; i += DEC_THREADS) {
        int r = i / D, col = i % D, at = r * a.head_dim + col;
        if (col >= a.head_dim) continue;
        float v = 0;
#pragma unroll
        for (int k = 0; k < DEC_WARPS; k++)
            v = fmaf(f->part[k][r], x[exchange_at<D>(k, r, col)], v);
        if (!span_first) v = fold_value(span[at], f->span_keep[r], v, f->span_add[r]);
        if (!span_end) {
            span[at] = v;
            continue;
        }
        if (!row_first) v = fold_value(row[at], f->row_keep[r], v, f->row_add[r]);
        if (last) put_value(a, w, w.it.slot, r, col, v, f->row_max[r], f->row_sum[r]);
        else row[at] = v;
    }
}

/* Folds slots first..first+n-1 in order; the result goes to slot `to`. */
template <int D>
CU_FN void fold_slots(const attn_args &a, const decode_work &w, int first, int n, int to)
{
    size_t step = (size_t)a.heads * (size_t)(a.head_dim + 2);
    const float *base = a.part + (size_t)first * step + (size_t)w.head0 * (size_t)(a.head_dim + 2);
    for (int i = (int)threadIdx.x; i < w.rows * D; i += DEC_THREADS) {
        int r = i / D, c = i % D;
        if (c >= a.head_dim) continue;
        const float *p = base + (size_t)r * (size_t)(a.head_dim + 2);
        float max = cu_ld_cg_f(p + a.head_dim), sum = cu_ld_cg_f(p + a.head_dim + 1);
        float value = cu_ld_cg_f(p + c);
#pragma unroll 4
        for (int k = 1; k < n; k++) {
            p += step;
            float m = cu_ld_cg_f(p + a.head_dim), l = cu_ld_cg_f(p + a.head_dim + 1);
            float v = cu_ld_cg_f(p + c), keep, add;
            fold_factors(&max, &sum, m, l, &keep, &add);
            value = fold_value(value, keep, v, add);
        }
        put_value(a, w, to, r, c, value, max, sum);
    }
}

/* The item's partial result is written: whoever completes a span folds it, then the row. */
template <int D> CU_FN void fold_row_parts(const attn_args &a, const decode_work &w)
{
    int spans = (w.chunks + ATTN_SPAN - 1) / ATTN_SPAN, first = w.it.base;
    if (w.it.cut == CUT_CHUNKS) {
        int s = w.it.chunk / ATTN_SPAN, n = min((int)ATTN_SPAN, w.chunks - s * ATTN_SPAN);
        first += s * ATTN_SPAN;
        if (!cu_ticket_last(a.ticket + (size_t)first * (size_t)w.units + w.unit, (unsigned)n))
            return;
        fold_slots<D>(a, w, first, n, spans == 1 ? -1 : w.it.base + w.chunks + s);
        if (spans == 1) return;
        first = w.it.base + w.chunks;
    }
    if (cu_ticket_last(a.ticket + (size_t)first * (size_t)w.units + w.unit, (unsigned)spans))
        fold_slots<D>(a, w, first, spans, -1);
}

template <typename T, int D>
CU_FN void decode_item(const attn_args &a, const decode_work &w, char *smem)
{
    enum { STAGE = 2 * ATTN_KEYS * D * 2 };
    char *q = smem + 2 * STAGE;
    T *own = (T *)(q + ATTN_ROWS * D * 2);
    fold_rows *f = (fold_rows *)(own + 2 * D);
    int block[4];
    for (int i = 0; i < 2; i++) {
        step_blocks(block, w, w.first + i);
        step_load<T, D>(smem + i * STAGE, a, w, w.first + i, block);
    }
    prologue<T, D>(q, own, a, w);
    __syncthreads();
    store_own<T, D>(own, a, w);
    for (int i = 0; i < 2; i++) step_fresh<T, D>(smem + i * STAGE, w, w.first + i, own);

    float o[1][D / 8][4], max[2], sum[2];
    for (int i = w.first; i < w.end; i++) {
        char *stage = smem + ((i - w.first) & 1) * STAGE;
        if (i % DEC_STEPS == 0) {
            max[0] = max[1] = -INFINITY;
            sum[0] = sum[1] = 0;
#pragma unroll
            for (int n = 0; n < D / 8; n++) o[0][n][0] = o[0][n][1] = o[0][n][2] = o[0][n][3] = 0;
        }
        cu_cp_wait<1>();
        __syncthreads();
        step_keys<T, D>(o, max, sum, q, stage, a.scale, w.it.len - i * ATTN_KEYS);
        step_blocks(block, w, i + 2);
        __syncthreads();
        if (i + 1 == w.end || (i + 1) % DEC_STEPS == 0) {
            put_warp<D>((float *)stage, f, o[0], max, sum, w.rows);
            __syncthreads();
            fold_chunk<D>((float *)stage, f, a, w, i / DEC_STEPS);
            __syncthreads();
        }
        step_load<T, D>(stage, a, w, i + 2, block);
        step_fresh<T, D>(stage, w, i + 2, own);
    }
    if (w.it.slot >= 0) fold_row_parts<D>(a, w);
}

template <typename T, int D>
__global__ void __launch_bounds__(DEC_THREADS, DEC_BLOCKS) attn_decode_kernel(attn_args a)
{
    CU_DYN_SMEM(char, smem);
    cu_gdc_wait();
    int units = a.kv_heads * ((a.group + ATTN_ROWS - 1) / ATTN_ROWS);
    int n = ((const attn_plan *)a.plan)->n_items * units;
    const attn_item *items = plan_items(a.plan);
    for (int i = (int)blockIdx.x; i < n; i += (int)gridDim.x)
        decode_item<T, D>(a, work_of(a, items[i / units], i % units, units), smem);
    cu_cp_wait<0>();
    cu_gdc_launch();
}

static size_t smem_of(int head_dim)
{
    switch (attn_built_dim(head_dim)) {
    case 32: return decode_smem<32>();
    case 64: return decode_smem<64>();
    default: return decode_smem<128>();
    }
}

int attn_decode_blocks(const cuda_state *st, int head_dim)
{
    /* 2 KB of a block are the driver's and the ticket's. */
    int fit = st->info.smem_sm / ((int)smem_of(head_dim) + 2048);
    return st->info.sms * (fit < 1 ? 1 : fit < DEC_BLOCKS ? fit : DEC_BLOCKS);
}

template <typename T, int D> static void launch(cuda_state *st, const attn_args *a, int n)
{
    int blocks = attn_decode_blocks(st, a->head_dim);
    if (n > 0 && n < blocks) blocks = n;
    GPU_LAUNCH((attn_decode_kernel<T, D>), blocks, DEC_THREADS, decode_smem<D>(), true, st->stream,
               *a);
}

void attn_decode_run(cuda_state *st, kv_type t, const attn_args *a, int n)
{
    bool half = t == KV_F16;
    switch (attn_built_dim(a->head_dim)) {
    case 32: return half ? launch<f16, 32>(st, a, n) : launch<bf16, 32>(st, a, n);
    case 64: return half ? launch<f16, 64>(st, a, n) : launch<bf16, 64>(st, a, n);
    default: return half ? launch<f16, 128>(st, a, n) : launch<bf16, 128>(st, a, n);
    }
}
