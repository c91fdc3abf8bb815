/* sample_select.cuh - finding the best k, or the best that weigh so much, of a row: a block a row.
 *
 * Every truncation keeps the candidates up to some key (sample_row.cuh).  Mostly a bar is known
 * that all of them reach: the k-th best of the sets' maxima, since at least k scores reach it.  The
 * sets that reach the bar are listed and read again; their few candidates are sorted in shared
 * memory. Where more than CAND reach it, a histogram over the distance from the best in steps of T
 * / 32 finds the bin of the boundary, ten bits of the key a pass narrow it while it holds more than
 * CAND, and its candidates are sorted.  Counts and weights are integers: no order of threads shows.
 * Owns nothing.  Device code. */
#ifndef QUERN_KERNELS_CUDA_SAMPLE_SELECT_CUH
#define QUERN_KERNELS_CUDA_SAMPLE_SELECT_CUH

#include "kernels/cuda/sample_row.cuh"

enum {
    PICK_THREADS = 512,
    PICK_WARPS = PICK_THREADS / 32,
    CAND = 2048, /* candidates sorted at once */
    CAND_PER_THREAD = CAND / PICK_THREADS,
    BINS = 1024,
    BIN_BITS = 10
};
const u64 LAST_KEY = ~0ull; /* keeps all */

typedef struct {
    u64 key[CAND]; /* candidates; also the maxima of the sets, as order_of, for count_bar */
    union {
        u64 weight[CAND]; /* of key[] */
        struct {
            u64 mass[BINS];
            unsigned count[BINS];
        } bin;
        double chunk[MAX_CHUNKS]; /* weights of chunks */
    } u;
    uint16_t set[MAX_SETS]; /* sets to read, in no order */
    int n_sets, n_key;
    u64 warp_part[PICK_WARPS];
    int found_at; /* results of the searches */
    u64 found_sum;
    double value;
} pick;

typedef struct {
    row_view view;
    float best;
    float scale[2]; /* log2(e) / T */
} weighing;

/* ---- over the block -------------------------------------------------------------------------- */

/* Sum of v over the lanes before this one; *all over all lanes. */
CU_FN u64 warp_before(u64 v, u64 *all)
{
    u64 upto = v;
    for (unsigned d = 1; d < 32; d <<= 1) {
        u64 w = __shfl_up_sync(CU_FULL, upto, d);
        if (cu_lane() >= (int)d) upto += w;
    }
    *all = __shfl_sync(CU_FULL, upto, 31);
    return upto - v;
}

/* Sum of v over the threads before this one; *all over all threads. */
CU_FN u64 block_before(pick &s, u64 v, u64 *all)
{
    int warp = (int)threadIdx.x / 32;
    u64 of_warp, before = warp_before(v, &of_warp), sum = 0;
    if (cu_lane() == 0) s.warp_part[warp] = of_warp;
    __syncthreads();
#pragma unroll 1
    for (int w = 0; w < PICK_WARPS; w++) {
        if (w == warp) before += sum;
        sum += s.warp_part[w];
    }
    __syncthreads();
    *all = sum;
    return before;
}

/* Of the block, or of its first warp. */
CU_FN void sync_some(bool one_warp)
{
    if (one_warp) __syncwarp();
    else __syncthreads();
}

/* Sorts key[n], smallest first; n <= CAND.  Bitonic; few keys are left to one warp.  Not inlined:
 * the compiler's time. */
static __device__ __attribute__((noinline)) void sort_keys(u64 *key, int n)
{
    int size = 2;
    while (size < n) size *= 2;
    bool one_warp = size <= 64;
    int threads = one_warp ? 32 : PICK_THREADS;
    __syncthreads(); /* other warps wrote the keys */
    if ((int)threadIdx.x < threads) {
        for (int i = n + (int)threadIdx.x; i < size; i += threads) key[i] = LAST_KEY;
        sync_some(one_warp);
        for (int run = 2; run <= size; run *= 2)
            for (int step = run / 2; step; step /= 2) {
                for (int i = (int)threadIdx.x; i < size / 2; i += threads) {
                    int low = (i & ~(step - 1)) * 2 + (i & (step - 1)), high = low + step;
                    u64 a = key[low], b = key[high];
                    if ((a > b) == !(low & run)) {
                        key[low] = b;
                        key[high] = a;
                    }
                }
                sync_some(one_warp);
            }
    }
    __syncthreads();
}

/* u.weight[i] = f(key[i]) for i < n. */
template <class F> CU_FN void weigh_keys(pick &s, int n, F f)
{
    for (int i = (int)threadIdx.x; i < n; i += PICK_THREADS) s.u.weight[i] = f(s.key[i]);
    __syncthreads();
}

/* The place where the running sum of u.weight[n] reaches want (>= 1), n if nowhere; the whole sum
 * in found_sum. */
CU_FN int walk_weights(pick &s, int n, u64 want)
{
    bool one_warp = n <= 32 * CAND_PER_THREAD;
    if (!one_warp || threadIdx.x < 32) {
        u64 v[CAND_PER_THREAD], mine = 0, all;
        int first = (int)threadIdx.x * CAND_PER_THREAD;
        for (int i = 0; i < CAND_PER_THREAD; i++) {
            v[i] = first + i < n ? s.u.weight[first + i] : 0;
            mine += v[i];
        }
        u64 upto = one_warp ? warp_before(mine, &all) : block_before(s, mine, &all);
        if (threadIdx.x == 0) {
            s.found_at = n;
            s.found_sum = all;
        }
        sync_some(one_warp);
        if (upto < want && upto + mine >= want) {
            int at = first;
            for (int i = 0; i < CAND_PER_THREAD; i++) {
                upto += v[i];
                at += upto < want;
            }
            s.found_at = at;
        }
    }
    __syncthreads();
    return s.found_at;
}

/* ---- bars ------------------------------------------------------------------------------------ */

/* A score that at least k reach, if possible not many more: a k-th best of the maxima of the sets;
 * -infinity with fewer sets.  best[n_sets]. */
CU_FN float count_bar(pick &s, const float *best, int n_sets, int k)
{
    if (k > n_sets) return -INFINITY;
    uint32_t *order = (uint32_t *)s.key;
    for (int i = (int)threadIdx.x; i < n_sets; i += PICK_THREADS) order[i] = order_of(best[i]);
    __syncthreads();
    if (threadIdx.x < 32) {
        uint32_t bar = 0;
        for (int bit = 31; bit >= 0; bit--) {
            uint32_t higher = bar | 1u << bit, reach = 0;
            for (int i = cu_lane(); i < n_sets; i += 32) reach += order[i] >= higher;
            reach = cu_redux_add(reach);
            if (reach >= (uint32_t)k) bar = higher;
            if (reach >= (uint32_t)k && reach <= (uint32_t)k + 16) break;
        }
        uint32_t lowest = order_of(-INFINITY); /* what is below are no numbers */
        if (cu_lane() == 0) s.value = score_of(bar > lowest ? bar : lowest);
    }
    __syncthreads();
    float bar = (float)s.value;
    __syncthreads();
    return bar;
}

/* Lists the sets that reach the bar. */
CU_FN void list_sets(pick &s, const float *best, int n_sets, float bar)
{
    if (threadIdx.x == 0) s.n_sets = 0;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n_sets; i += PICK_THREADS)
        if (best[i] >= bar) s.set[atomicAdd(&s.n_sets, 1)] = (uint16_t)i;
    __syncthreads();
}

/* f(key, exists) for the ids of the listed sets, by whole warps; the next set is on its way while
 * one is looked at. */
template <class F> CU_FN void each_key(const pick &s, const row_view &r, F f)
{
    int i = (int)threadIdx.x / 32;
    float next[8];
    if (i < s.n_sets) load_set(next, r, s.set[i]);
    for (; i < s.n_sets; i += PICK_WARPS) {
        float v[8];
        for (int e = 0; e < 8; e++) v[e] = next[e];
        if (i + PICK_WARPS < s.n_sets) load_set(next, r, s.set[i + PICK_WARPS]);
        for (int e = 0; e < 8; e++) {
            int id = lane_id(s.set[i], e);
            f(key_of(v[e], id), id < r.n);
        }
    }
}

/* Ids of the listed sets with wanted(key) into key[], unsorted; returns how many there are, of
 * which the first CAND at most are kept. */
template <class F> CU_FN int collect_keys(pick &s, const row_view &r, F wanted)
{
    if (threadIdx.x == 0) s.n_key = 0;
    __syncthreads();
    each_key(s, r, [&](u64 key, bool exists) {
        if (!exists || !wanted(key)) return;
        int at = atomicAdd(&s.n_key, 1);
        if (at < CAND) s.key[at] = key;
    });
    __syncthreads();
    int n = s.n_key;
    __syncthreads();
    return n;
}

/* ---- selection by histogram ------------------------------------------------------------------ */

enum select_by { BY_COUNT, BY_MASS };

CU_FN int bin_of(float gap, float scale_hi)
{
    float at = gap * scale_hi * 22.0f; /* ln(2) * 32 = 22.2 */
    return at < BINS - 1 ? (int)at : BINS - 1;
}

CU_FN void clear_bins(pick &s)
{
    for (int i = (int)threadIdx.x; i < BINS; i += PICK_THREADS) {
        s.u.bin.count[i] = 0;
        s.u.bin.mass[i] = 0;
    }
    __syncthreads();
}

/* Adds to a bin; a warp that agrees on one (tied or flat logits) adds once. */
CU_FN void add_to_bin(pick &s, int bin, bool on, u64 mass)
{
    int first = __shfl_sync(CU_FULL, bin, 0);
    if (__all_sync(CU_FULL, on && bin == first)) {
        mass = warp_sum(mass);
        if (cu_lane()) return;
        atomicAdd(&s.u.bin.count[bin], 32u);
        atomicAdd(&s.u.bin.mass[bin], mass);
    } else if (on) {
        atomicAdd(&s.u.bin.count[bin], 1u);
        if (mass) atomicAdd(&s.u.bin.mass[bin], mass);
    }
}

/* The bin in which the running count or mass reaches want, and in *before its sum in front of it;
 * -1 if none does. */
CU_FN int find_bin(pick &s, select_by by, u64 want, u64 *before)
{
    enum { EACH = BINS / PICK_THREADS };
    u64 v[EACH], mine = 0, all;
    int first = (int)threadIdx.x * EACH;
    for (int i = 0; i < EACH; i++) {
        v[i] = by == BY_MASS ? s.u.bin.mass[first + i] : s.u.bin.count[first + i];
        mine += v[i];
    }
    u64 upto = block_before(s, mine, &all);
    if (threadIdx.x == 0) s.found_at = -1;
    __syncthreads();
    if (upto < want && upto + mine >= want) {
        int i = 0;
        while (upto + v[i] < want) upto += v[i++];
        s.found_at = first + i;
        s.found_sum = upto;
    }
    __syncthreads();
    int bin = s.found_at;
    *before = s.found_sum;
    __syncthreads();
    return bin;
}

/* The last key that a truncation keeps: of the keys up to `limit` in the listed sets, best first,
 * the one that makes the count or the mass reach want; `limit` if none does. */
CU_FN u64 select_key(pick &s, const weighing &w, select_by by, u64 want, u64 limit)
{
    u64 before = 0, prefix = 0;
    int shift = 64, coarse = -1;
    auto inside = [&](u64 key) { /* in the bin that is being narrowed */
                                 return key <= limit &&
                                        (coarse < 0 ||
                                         bin_of(w.best - key_score(key), w.scale[0]) == coarse) &&
                                        (shift == 64 || key >> shift == prefix);
    };
    for (;;) {
        int bits = coarse < 0 ? 0 : shift < BIN_BITS ? shift : BIN_BITS;
        clear_bins(s);
        each_key(s, w.view, [&](u64 key, bool exists) {
            float gap = w.best - key_score(key);
            int bin =
                bits ? (int)(key >> (shift - bits) & ((1u << bits) - 1)) : bin_of(gap, w.scale[0]);
            bool on = exists && inside(key);
            add_to_bin(s, bin, on,
                       on && by == BY_MASS ? weight_of(gap, w.scale[0], w.scale[1]) : 0);
        });
        __syncthreads();
        u64 in_front;
        int bin = find_bin(s, by, want - before, &in_front);
        if (bin < 0) return limit;
        before += in_front;
        if (bits) {
            shift -= bits;
            prefix = prefix << bits | (u64)bin;
        } else {
            coarse = bin;
        }
        unsigned held = s.u.bin.count[bin];
        __syncthreads();
        if (held <= CAND || shift == 0) break;
    }
    int n = collect_keys(s, w.view, inside);
    sort_keys(s.key, n);
    weigh_keys(s, n, [&](u64 key) {
        return by == BY_COUNT ? 1 : weight_of(w.best - key_score(key), w.scale[0], w.scale[1]);
    });
    int at = walk_weights(s, n, want - before);
    u64 key = s.key[at < n ? at : n - 1];
    __syncthreads();
    return key;
}

#endif
