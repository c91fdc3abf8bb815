/* sample_draw.cuh - the kernels behind the pass: the draw of a row (temperature > 0) and its
 * logprobs, a block a row.
 *
 * Up to CAND candidates weigh what libm's exp says, in units of 2^-51; beyond, and where nothing
 * truncates, the 2^-40 weights of the pass do (relative error 1e-6).  So an id can differ from the
 * specification's only where the random number, or top_p, falls within 2e-6 of a border of the
 * running sum, with few candidates within 1e-12 (top_p alone: 2e-6, its total is the pass's).
 * Owns nothing.  Device code. */
#ifndef QUERN_KERNELS_CUDA_SAMPLE_DRAW_CUH
#define QUERN_KERNELS_CUDA_SAMPLE_DRAW_CUH

#include "kernels/cuda/sample_scan.cuh"
#include "kernels/cuda/sample_select.cuh"

enum { FEW = 256 }; /* candidates that usually hold top_p: tried before the histogram */

typedef struct {
    const sample_args *a;
    const row_job *j;
    int row, n_sets, n_chunks;
    const float *set; /* [n_sets] */
    weighing w;
    row_sum sum;
} drawing;

CU_FN drawing drawing_of(const sample_args &a, int row, bool raw)
{
    const row_job *j = &a.job[row];
    const scan_sums &from = raw ? a.raw : a.score;
    drawing d;
    d.a = &a;
    d.j = j;
    d.row = row;
    d.n_sets = (j->n + SET - 1) / SET;
    d.n_chunks = (j->n + CHUNK - 1) / CHUNK;
    d.set = from.set + (int64_t)row * a.n_sets;
    d.sum = from.row[row];
    d.w = {view_row(a, row, raw), d.sum.best, {j->scale[0], j->scale[1]}};
    return d;
}

CU_FN void answer(const drawing &d, int id)
{
    d.a->answer[d.row] = {id, 0, 0};
    d.a->drawn[d.row] = id;
}

/* ---- where a random number falls among all ----------------------------------------------------
 */

/* Walks part[n_chunks] to u times their sum: the chunk into found_at, the rest into value. */
CU_FN void find_chunk(pick &s, const double *part, int n_chunks, double u)
{
    if (threadIdx.x == 0) {
        double total = 0, sum = 0, before = 0;
        int last = 0; /* of positive part, should rounding carry the mark to the end */
        for (int c = 0; c < n_chunks; c++) total += part[c];
        double mark = u * total;
        for (int c = 0; c < n_chunks && mark >= sum; c++) {
            if (part[c] > 0) {
                last = c;
                before = sum;
            }
            sum += part[c];
        }
        s.found_at = last;
        s.value = mark - before;
    }
    __syncthreads();
}

/* The id in chunk c where the running sum of weights beside `best` passes `rest` units. */
CU_FN void draw_in_chunk(pick &s, const drawing &d, int c, float best, u64 last_key, double rest)
{
    enum { EACH = CHUNK / PICK_THREADS };
    int first = c * CHUNK + (int)threadIdx.x * EACH;
    float v[EACH];
    u64 m[EACH], mine = 0, all;
    load_four(v, d.w.view, first);
    load_four(v + 4, d.w.view, first + 4);
    for (int i = 0; i < EACH; i++) {
        m[i] = key_of(v[i], first + i) <= last_key
                   ? weight_of(best - v[i], d.w.scale[0], d.w.scale[1])
                   : 0;
        mine += m[i];
    }
    u64 upto = block_before(s, mine, &all);
    u64 mark = rest > 0 ? (u64)rest : 0;
    if (mark >= all) mark = all - 1;
    if (upto <= mark && mark < upto + mine) {
        int id = first;
        for (int i = 0; i < EACH; i++) {
            upto += m[i];
            id += upto <= mark;
        }
        answer(d, id);
    }
}

/* The weight of the keys of chunk c up to last_key, in units; sets below the bar hold none.  A
 * warp. */
CU_FN u64 weigh_chunk(const drawing &d, int c, u64 last_key, float bar)
{
    u64 mass = 0;
    for (int set = c * SETS_PER_CHUNK; set < (c + 1) * SETS_PER_CHUNK && set < d.n_sets; set++) {
        if (d.set[set] < bar) continue;
        float v[8];
        load_set(v, d.w.view, set);
        for (int e = 0; e < 8; e++)
            if (key_of(v[e], lane_id(set, e)) <= last_key)
                mass += weight_of(d.w.best - v[e], d.w.scale[0], d.w.scale[1]);
    }
    return warp_sum(mass);
}

/* Draws from the keys up to last_key, none of which is in a set below the bar.  With cuts false
 * nothing truncates: the pass has weighed the chunks, and only one is read again. */
CU_FN void draw_by_chunks(pick &s, const drawing &d, bool cuts, u64 last_key, float bar)
{
    const chunk_sum *chunk = d.a->score.chunk + (int64_t)d.row * d.a->n_chunks;
    double *part = s.u.chunk;
    if (cuts) {
        __syncthreads();
        for (int c = (int)threadIdx.x / 32; c < d.n_chunks; c += PICK_WARPS) {
            u64 mass = weigh_chunk(d, c, last_key, bar);
            if (cu_lane() == 0) part[c] = (double)mass;
        }
    } else {
        for (int c = (int)threadIdx.x; c < d.n_chunks; c += PICK_THREADS)
            part[c] = chunk_weight(chunk[c], d.sum.best, d.j->inv_temp);
    }
    __syncthreads();
    find_chunk(s, part, d.n_chunks, d.j->u);
    int c = s.found_at;
    double rest = s.value;
    if (!cuts) rest = part[c] > 0 ? rest / part[c] * (double)chunk[c].mass : 0;
    draw_in_chunk(s, d, c, cuts ? d.w.best : chunk[c].best, last_key, rest);
}

/* ---- bars -------------------------------------------------------------------------------------
 */

/* The lowest score that min_p keeps; -infinity: off. */
CU_FN float min_p_bar(const drawing &d)
{
    if (d.j->min_gap < 0) return -INFINITY;
    double bar = (double)d.sum.best - d.j->min_gap;
    float f = (float)bar + 0.0f;
    return (double)f < bar ? score_of(order_of(f) + 1) : f;
}

/* All that weigh less than (1 - p) total / n together weigh less than 1 - p of the total, so that
 * top_p cuts above them; half of it leaves room for rounding. */
CU_FN float top_p_bar(const drawing &d)
{
    double least = 0.5 * (1 - (double)d.j->top_p) * d.sum.total / d.j->n;
    double bar = (double)d.sum.best + (double)d.j->temperature * log(least < 0.5 ? least : 0.5);
    return bar > -3e38 ? (float)bar + 0.0f : -INFINITY;
}

/* ---- few candidates: sorted -------------------------------------------------------------------
 */

/* As the specification weighs, in units of 2^-51: up to CAND of them fit in 62 bits. */
CU_FN void weigh_exactly(pick &s, const drawing &d, int n, bool by_id)
{
    weigh_keys(s, n, [&](u64 key) {
        float score = key_score(by_id ? key << 32 : key);
        double gap = ((double)score - (double)d.w.best) / (double)d.j->temperature;
        return (u64)(exp(gap) * 0x1p51);
    });
}

/* Of n sorted and weighed keys, how many top_p keeps; 0: all weigh less than it asks for. */
CU_FN int cut_top_p(pick &s, const drawing &d, int n)
{
    double total = d.sum.total * 0x1p51;
    if (d.j->top_k > 0) {
        walk_weights(s, n, ~0ull);
        total = (double)s.found_sum;
        __syncthreads();
    }
    double goal = ceil((double)d.j->top_p * total);
    int at = walk_weights(s, n, goal < 1 ? 1 : goal < 0x1p63 ? (u64)goal : ~0ull);
    __syncthreads();
    return at < n ? at + 1 : d.j->top_k > 0 ? n : 0;
}

/* How many of n sorted keys reach the bar. */
CU_FN int count_reaching(pick &s, int n, float bar)
{
    u64 mine = 0, all;
    for (int i = (int)threadIdx.x; i < n; i += PICK_THREADS) mine += key_score(s.key[i]) >= bar;
    block_before(s, mine, &all);
    return (int)all;
}

/* Draws if the candidates that reach the bar are few and hold all that the truncations keep: all
 * that reach `sure` do.  False: nothing was done. */
CU_FN bool draw_from_few(pick &s, const drawing &d, float bar, float sure)
{
    const row_job *j = d.j;
    list_sets(s, d.set, d.n_sets, bar);
    int n = collect_keys(s, d.w.view, [&](u64 key) { return key_score(key) >= bar; });
    if (n > CAND) return false;
    sort_keys(s.key, n);
    if (j->top_k > 0 && n > j->top_k) n = j->top_k;
    if (j->top_p < 1) {
        weigh_exactly(s, d, n, false);
        int m = cut_top_p(s, d, n);
        if (m == 0 && bar > sure) return false;
        if (m) n = m;
    }
    if (j->min_gap >= 0) n = count_reaching(s, n, min_p_bar(d));
    for (int i = (int)threadIdx.x; i < n; i += PICK_THREADS)
        s.key[i] = s.key[i] << 32 | s.key[i] >> 32; /* the id in front: walked by rising id */
    sort_keys(s.key, n);
    weigh_exactly(s, d, n, true);
    walk_weights(s, n, ~0ull);
    u64 all = s.found_sum, mark = (u64)(d.j->u * (double)all);
    __syncthreads();
    int at = walk_weights(s, n, (mark < all ? mark : all - 1) + 1);
    if (threadIdx.x == 0) answer(d, (int)(s.key[at] >> 32));
    return true;
}

/* ---- many: by histogram -----------------------------------------------------------------------
 */

/* What the keys up to last weigh. */
CU_FN u64 weigh_up_to(pick &s, const drawing &d, u64 last)
{
    u64 mine = 0, all;
    each_key(s, d.w.view, [&](u64 key, bool exists) {
        if (exists && key <= last)
            mine += weight_of(d.w.best - key_score(key), d.w.scale[0], d.w.scale[1]);
    });
    block_before(s, mine, &all);
    return all;
}

/* The last key that the truncations keep; `sure` is a score that all reach which they keep. */
CU_FN u64 find_last_key(pick &s, const drawing &d, float sure)
{
    const row_job *j = d.j;
    u64 last = LAST_KEY;
    list_sets(s, d.set, d.n_sets, sure);
#pragma unroll 1
    for (int step = 0; step < 2; step++) {
        select_by by = step ? BY_MASS : BY_COUNT;
        if (by == BY_COUNT ? j->top_k == 0 : j->top_p >= 1) continue;
        u64 want = (u64)j->top_k;
        if (by == BY_MASS) {
            double total = j->top_k > 0 ? (double)weigh_up_to(s, d, last) : d.sum.total * 0x1p40;
            double goal = ceil((double)j->top_p * total);
            want = goal < 1 ? 1 : (u64)goal;
        }
        last = select_key(s, d.w, by, want, last);
    }
    if (j->min_gap < 0) return last;
    u64 lowest = key_of(min_p_bar(d), INT32_MAX);
    return last < lowest ? last : lowest;
}

/* ---- the draw ---------------------------------------------------------------------------------
 */

__global__ void __launch_bounds__(PICK_THREADS, 1)
    draw_kernel(const __grid_constant__ sample_args a, const int32_t *rows)
{
    CU_SHARED(pick, s);
    cu_gdc_wait();
    cu_gdc_launch();
    drawing d = drawing_of(a, rows[blockIdx.x], false);
    const row_job *j = d.j;
    if (!(d.sum.best > -INFINITY && d.sum.best < INFINITY)) return; /* the scan has answered */
    bool cuts = j->top_k > 0 || j->top_p < 1 || j->min_gap >= 0;
    u64 last = LAST_KEY;
    float sure = -INFINITY;
    if (cuts) {
        /* With top_k, top_p is a share of what those below min_p's bar weigh too. */
        if (j->top_k == 0 || j->top_p >= 1) sure = min_p_bar(d);
        if (j->top_k == 0 && j->top_p < 1) sure = fmaxf(sure, top_p_bar(d));
        int k = j->top_k > 0 ? j->top_k : j->top_p < 1 ? FEW : 0;
        float bar = k ? fmaxf(sure, count_bar(s, d.set, d.n_sets, k)) : sure;
        if (j->top_k > 0) sure = bar;
        if (draw_from_few(s, d, bar, sure)) return;
        last = find_last_key(s, d, sure);
    }
    draw_by_chunks(s, d, cuts, last, sure);
}

/* ---- logprobs ---------------------------------------------------------------------------------
 */

/* 1 + how many come before. */
CU_FN int rank_of(pick &s, const drawing &d, u64 mine)
{
    u64 before = 0, all;
    list_sets(s, d.set, d.n_sets, key_score(mine));
    each_key(s, d.w.view, [&](u64 key, bool exists) { before += exists && key < mine; });
    block_before(s, before, &all);
    return 1 + (int)all;
}

/* The k best, sorted, in key[]. */
CU_FN void find_top(pick &s, const drawing &d, int k)
{
    float bar = count_bar(s, d.set, d.n_sets, k);
    list_sets(s, d.set, d.n_sets, bar);
    int n = collect_keys(s, d.w.view, [&](u64 key) { return key_score(key) >= bar; });
    if (n > CAND) {
        u64 last = select_key(s, d.w, BY_COUNT, (u64)k, LAST_KEY);
        n = collect_keys(s, d.w.view, [&](u64 key) { return key <= last; });
    }
    sort_keys(s.key, n);
}

__global__ void __launch_bounds__(PICK_THREADS, 1)
    report_kernel(const __grid_constant__ sample_args a, const int32_t *rows)
{
    CU_SHARED(pick, s);
    cu_gdc_wait();
    cu_gdc_launch();
    int row = rows[blockIdx.x];
    const row_job *j = &a.job[row];
    float *x = a.logits + row * a.ld;
    int id = j->forced >= 0 ? j->forced : a.answer[row].id;
    __syncthreads();
    if (j->forced >= 0 && threadIdx.x == 0) {
        a.answer[row] = {id, 0, 0};
        a.drawn[row] = id;
    }
    if (j->n_top < 0) return;
    if (j->saved >= 0) {
        const int32_t *bias_id = a.words + j->bias, *seen = a.words + j->seen;
        restore_logits(a.saved + j->saved, x, bias_id, j->n_bias, j->n);
        restore_logits(a.saved + j->saved + j->n_bias, x, seen, j->n_seen, j->n);
        __syncthreads();
    }
    drawing d = drawing_of(a, row, !(j->flags & ROW_PLAIN));
    d.w = {view_row(a, row, true), d.sum.best, {1.44269502f, 1.92596303e-8f}};
    float v = plain(x[id]) + 0.0f;
    double norm = d.sum.best > -INFINITY ? (double)d.sum.best + log(d.sum.total) : 0;
    int rank = rank_of(s, d, key_of(v, id)), k = j->n_top < j->n ? j->n_top : j->n;
    if (threadIdx.x == 0) a.answer[row] = {id, rank, (float)((double)v - norm)};
    if (k > 0) find_top(s, d, k);
    for (int i = (int)threadIdx.x; i < j->n_top; i += PICK_THREADS) {
        a.top[row].id[i] = i < k ? key_id(s.key[i]) : -1;
        a.top[row].logprob[i] = i < k ? (float)((double)key_score(s.key[i]) - norm) : -INFINITY;
    }
}

#endif
