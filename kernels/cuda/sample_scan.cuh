/* sample_scan.cuh - the first kernels of a draw: masks and penalties of the rows that have some,
 * then one pass over the logits, several blocks a row, whose last block merges the chunks in order
 * and answers greedy rows.
 *
 * The pass reads a row once: n f32, 608 KB for 151,936 ids, 38.9 MB for 64 such rows: 12 us of an
 * H100's 3.35 TB/s, less where the L2 still holds what the head has just written.  Drawing without
 * truncation reads one chunk more (16 KB), with top_k or top_p the sets above a bar.
 * Owns nothing.  Device code. */
#ifndef QUERN_KERNELS_CUDA_SAMPLE_SCAN_CUH
#define QUERN_KERNELS_CUDA_SAMPLE_SCAN_CUH

#include "kernels/cuda/sample_row.cuh"

/* ---- masks, bias, penalties: a block a row -------------------------------------------------- */

/* Every thread's p, or'ed. */
CU_FN bool block_any(bool p)
{
    CU_SHARED(unsigned, any, [SCAN_THREADS / 32]);
    unsigned w = __ballot_sync(CU_FULL, p), r = 0;
    if (cu_lane() == 0) any[threadIdx.x / 32] = w;
    __syncthreads();
    for (int i = 0; i < SCAN_THREADS / 32; i++) r |= any[i];
    __syncthreads();
    return r != 0;
}

/* The allowed ids into may[], and whether there are any. */
CU_FN bool mask_start(uint32_t *may, const uint32_t *allow, int n)
{
    bool any = false;
    for (int i = (int)threadIdx.x; i < (n + 31) / 32; i += SCAN_THREADS) {
        uint32_t w = allow ? allow[i] : ~0u, last = n - 32 * i >= 32 ? ~0u : (1u << (n & 31)) - 1;
        may[i] = w & last;
        any |= (w & last) != 0;
    }
    return block_any(any);
}
CU_FN void mask_clear(uint32_t *may, int id, int n)
{
    if (id >= 0 && id < n) atomicAnd(&may[id >> 5], ~(1u << (id & 31)));
}

/* What leaves nothing is lifted: first the bans, then allow[]. */
CU_FN void mask_fill(uint32_t *may, const sample_args &a, const row_job *j)
{
    const uint32_t *allow = j->allow < 0 ? NULL : (const uint32_t *)a.words + j->allow;
    if (!mask_start(may, allow, j->n)) {
        mask_start(may, NULL, j->n);
        return;
    }
    const int32_t *ban = a.words + j->ban, *bias_id = a.words + j->bias;
    const float *bias = (const float *)(bias_id + j->n_bias);
    for (int i = (int)threadIdx.x; i < j->n_ban; i += SCAN_THREADS) mask_clear(may, ban[i], j->n);
    for (int i = (int)threadIdx.x; i < j->n_bias; i += SCAN_THREADS)
        if (bias[i] <= -100) mask_clear(may, bias_id[i], j->n);
    cu_fence();
    __syncthreads();
    bool any = false;
    for (int i = (int)threadIdx.x; i < (j->n + 31) / 32; i += SCAN_THREADS)
        any |= __ldcg(&may[i]) != 0;
    if (!block_any(any)) mask_start(may, allow, j->n);
}

CU_FN float plain(float logit)
{
    return logit == logit ? logit : -INFINITY;
}

/* Warp 0 adds biases in list order; an id that is listed twice gets both, one after the other. */
CU_FN void add_biases(float *x, const int32_t *id, const float *bias, int n_bias, int n)
{
    for (int from = 0; from < n_bias; from += 32) {
        int i = from + cu_lane(), to = i < n_bias ? id[i] : -1;
        bool on = i < n_bias && to >= 0 && to < n && bias[i] > -100;
        unsigned same = __match_any_sync(CU_FULL, on ? to : -1 - cu_lane());
        int turn = __popc(same & ((1u << cu_lane()) - 1));
        int turns = (int)cu_redux_max((unsigned)turn);
        for (int t = 0; t <= turns; t++) {
            if (on && turn == t) x[to] = __fadd_rn(plain(x[to]), bias[i]);
            __syncwarp();
        }
    }
}

CU_FN void penalise(float *x, const row_job *j, const int32_t *id, const int32_t *count)
{
    for (int i = (int)threadIdx.x; i < j->n_seen; i += SCAN_THREADS) {
        if (id[i] < 0 || id[i] >= j->n) continue;
        float v = plain(x[id[i]]);
        if (j->repetition != 1)
            v = v < 0 ? __fmul_rn(v, j->repetition) : __fdiv_rn(v, j->repetition);
        if (count[i] > 0)
            v = __fsub_rn(v, __fadd_rn(j->presence, __fmul_rn(j->frequency, (float)count[i])));
        x[id[i]] = v;
    }
}

/* Saves x[id[]] (in front of any change) or puts it back. */
CU_FN void save_logits(float *saved, const float *x, const int32_t *id, int n_id, int n)
{
    for (int i = (int)threadIdx.x; i < n_id; i += (int)blockDim.x)
        if (id[i] >= 0 && id[i] < n) saved[i] = x[id[i]];
}
CU_FN void restore_logits(const float *saved, float *x, const int32_t *id, int n_id, int n)
{
    for (int i = (int)threadIdx.x; i < n_id; i += (int)blockDim.x)
        if (id[i] >= 0 && id[i] < n) x[id[i]] = saved[i];
}

__global__ void __launch_bounds__(SCAN_THREADS)
    prepare_kernel(const __grid_constant__ sample_args a, const int32_t *rows)
{
    cu_gdc_wait();
    cu_gdc_launch();
    int row = rows[blockIdx.x];
    const row_job *j = &a.job[row];
    float *x = a.logits + row * a.ld;
    const int32_t *bias_id = a.words + j->bias, *seen = a.words + j->seen;
    if (j->mask >= 0) mask_fill(a.masks + (int64_t)j->mask * a.mask_words, a, j);
    if (j->saved >= 0) {
        save_logits(a.saved + j->saved, x, bias_id, j->n_bias, j->n);
        save_logits(a.saved + j->saved + j->n_bias, x, seen, j->n_seen, j->n);
        __syncthreads();
    }
    if (threadIdx.x < 32)
        add_biases(x, bias_id, (const float *)(bias_id + j->n_bias), j->n_bias, j->n);
    __syncthreads();
    penalise(x, j, seen, seen + j->n_seen);
}

/* ---- the pass: a block a chunk -------------------------------------------------------------- */

typedef struct {
    float best;
    int at;
} best_of;

/* The better of each lane's, lower ids first among equals; `at` is INT32_MAX where best is -inf. */
CU_FN best_of warp_merge(best_of b)
{
    uint32_t order = order_of(b.best), top = cu_redux_max(order);
    uint32_t at = cu_redux_min(order == top ? (uint32_t)b.at : (uint32_t)INT32_MAX);
    return {score_of(top), (int)at};
}

/* Block-wide; the same result in every thread. */
CU_FN best_of block_merge(best_of b)
{
    CU_SHARED(best_of, part, [SCAN_THREADS / 32]);
    b = warp_merge(b);
    if (cu_lane() == 0) part[threadIdx.x / 32] = b;
    __syncthreads();
    b = part[0];
    for (int w = 1; w < SCAN_THREADS / 32; w++)
        if (part[w].best > b.best || (part[w].best == b.best && part[w].at < b.at)) b = part[w];
    __syncthreads();
    return b;
}

/* In thread 0. */
CU_FN u64 block_sum(u64 v)
{
    CU_SHARED(u64, part, [SCAN_THREADS / 32]);
    v = warp_sum(v);
    if (cu_lane() == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (int w = 0; w < SCAN_THREADS / 32; w++) v += part[w];
    return v;
}

CU_FN chunk_sum load_chunk_sum(const chunk_sum *p)
{
    uint4 u = cu_ld_cg16(p);
    return {__uint_as_float(u.x), (int)u.y, (u64)u.w << 32 | u.z};
}
/* The weight of a chunk beside that of the row's best score. */
CU_FN double chunk_weight(const chunk_sum &c, float best, double inv_temp)
{
    if (c.mass == 0) return 0;
    return (double)c.mass * 0x1p-40 * exp(((double)c.best - (double)best) * inv_temp);
}

/* The first id that may be drawn: what is left where no score is above -infinity.  Warp 0. */
CU_FN int first_allowed(const row_view &r)
{
    if (!r.may) return 0;
    for (int from = 0; from < (r.n + 31) / 32; from += 32) {
        int i = from + cu_lane();
        uint32_t w = i < (r.n + 31) / 32 ? r.may[i] : 0;
        uint32_t id =
            cu_redux_min(w ? (uint32_t)(32 * i + __ffs((int)w) - 1) : (uint32_t)INT32_MAX);
        if (id < (uint32_t)INT32_MAX) return (int)id;
    }
    return 0;
}

/* Warp 0 of the last block of a row. */
CU_FN void finish_row(const sample_args &a, int row, bool raw, const row_view &r, int n_chunks)
{
    const row_job *j = &a.job[row];
    const scan_sums &to = raw ? a.raw : a.score;
    const chunk_sum *chunk = to.chunk + (int64_t)row * a.n_chunks;
    best_of b = {-INFINITY, INT32_MAX};
    for (int c = cu_lane(); c < n_chunks; c += 32) {
        chunk_sum s = load_chunk_sum(&chunk[c]);
        if (s.best > b.best) b = {s.best, s.at};
    }
    b = warp_merge(b);
    if (b.best == -INFINITY) b.at = first_allowed(r);
    double inv_temp = raw || !(j->flags & ROW_DRAWS) ? 1 : j->inv_temp, total = 0;
    for (int c = cu_lane(); c < n_chunks; c += 32)
        total += chunk_weight(load_chunk_sum(&chunk[c]), b.best, inv_temp);
    total = warp_sum(total);
    if (cu_lane()) return;
    to.row[row] = {b.best, b.at, total};
    bool draws = j->flags & ROW_DRAWS && b.best > -INFINITY && b.best < INFINITY;
    if (!raw && !draws) {
        a.answer[row] = {b.at, 0, 0};
        a.drawn[row] = b.at;
    }
}

/* grid (chunks of the longest row, rows listed).  A lane holds 16 scores: read once. */
__global__ void __launch_bounds__(SCAN_THREADS, 5)
    scan_kernel(const __grid_constant__ sample_args a, const int32_t *rows, bool raw)
{
    enum { SETS = SETS_PER_CHUNK / (SCAN_THREADS / 32) };
    cu_gdc_wait();
    cu_gdc_launch();
    int row = rows[blockIdx.y], c = (int)blockIdx.x;
    const row_job *j = &a.job[row];
    int n_chunks = (j->n + CHUNK - 1) / CHUNK,
        set0 = c * SETS_PER_CHUNK + (int)threadIdx.x / 32 * SETS;
    if (c >= n_chunks) return;
    const scan_sums &to = raw ? a.raw : a.score;
    row_view r = view_row(a, row, raw);
    float v[SETS][8];
    for (int s = 0; s < SETS; s++) load_set(v[s], r, set0 + s);
    best_of b = {-INFINITY, INT32_MAX};
    for (int s = 0; s < SETS; s++) {
        float best = -INFINITY;
        for (int e = 0; e < 8; e++) {
            best = fmaxf(best, v[s][e]);
            if (v[s][e] > b.best) b = {v[s][e], lane_id(set0 + s, e)};
        }
        if (!raw && !(j->flags & ROW_SETS)) continue;
        best = warp_best(best);
        if (cu_lane() == 0 && set0 + s < (j->n + SET - 1) / SET)
            to.set[(int64_t)row * a.n_sets + set0 + s] = best;
    }
    b = block_merge(b);
    u64 mass = 0;
    if (raw || j->flags & ROW_MASS) {
        bool at_temp = !raw && j->flags & ROW_DRAWS;
        float hi = at_temp ? j->scale[0] : 1.44269502f, lo = at_temp ? j->scale[1] : 1.92596303e-8f;
        for (int s = 0; s < SETS; s++)
            for (int e = 0; e < 8; e++) mass += weight_of(b.best - v[s][e], hi, lo);
        mass = block_sum(mass);
    }
    if (threadIdx.x == 0) to.chunk[(int64_t)row * a.n_chunks + c] = {b.best, b.at, mass};
    if (cu_ticket_last(&a.ticket[row], (unsigned)n_chunks) && threadIdx.x < 32)
        finish_row(a, row, raw, r, n_chunks);
}

#endif
