/* skinny.cuh - the kernel behind skinny.h: a persistent grid over units of (tile, slab), weights as
 * the M operand of mma.m16n8k16, activations as its N operand (8 or 16 columns).
 *
 * A block owns a row of units, its warps take them in turns.  A unit is one warp's: its weights
 * come group by group through a private ring of cp.async copies that runs ahead across units,
 * starting before the previous kernel has ended; the sums stay in registers until the slab is done.
 * Warps meet only where the block goes on to another slab of x, since units are walked slab by
 * slab.  At its end a warp hands in tickets for its tiles, and whoever completes a tile adds its
 * slabs in order and runs the epilogue: no float atomics, no waiting.
 *
 * Owns nothing.  Refuses nothing: linear.cu has checked.  Device code. */
#ifndef QUERN_KERNELS_CUDA_SKINNY_CUH
#define QUERN_KERNELS_CUDA_SKINNY_CUH

#include "kernels/cuda/skinny_group.cuh"

/* ---- units of a warp ---------------------------------------------------------------------- */

/* A run is the units of the block inside one slab.  Units are dealt to the warps one by one, on
 * from run to run. */
typedef struct {
    int at, end;       /* units of the block that are in no run yet */
    int unit, run_end; /* this warp's next one of the run; where the run ends */
    int slab;
    int turn; /* the warp that has the next run's first */
} skinny_walk;

CU_FN skinny_walk skinny_walk_of(int first, int end)
{
    return {first, end, 0, 0, 0, 0};
}
/* False: the block has no more. */
CU_FN bool skinny_next_run(const skinny_args &a, skinny_walk *k, int warp)
{
    if (k->at >= k->end) return false;
    k->slab = k->at / a.tiles;
    k->run_end = min(k->end, (k->slab + 1) * a.tiles);
    k->unit = k->at + ((warp - k->turn) & (SKINNY_WARPS - 1));
    k->turn += k->run_end - k->at;
    k->at = k->run_end;
    return true;
}

/* ---- the ring ----------------------------------------------------------------------------- */

/* What the warp fetches next. */
typedef struct {
    skinny_walk walk;
    const uint8_t *from;
    char *to;          /* first place */
    int left;          /* groups of the unit under way */
    bool on;           /* there is one */
    unsigned put, end; /* next place and size of the ring, in bytes */
} skinny_feed;

template <int F> CU_FN void skinny_next_unit(const skinny_args &a, skinny_feed *f, int warp)
{
    skinny_walk *k = &f->walk;
    k->unit += SKINNY_WARPS;
    while (k->unit >= k->run_end)
        if (!skinny_next_run(a, k, warp)) {
            f->on = false;
            f->left = 1 << 30;
            return;
        }
    f->on = true;
    f->left = skinny_width(a, k->slab);
    /* of a dense weight a group is 256 bytes of each of the tile's rows */
    f->from = a.w + (size_t)(k->unit - k->slab * a.tiles) * a.groups * record_bytes(F) +
              (size_t)(k->slab * a.P) * (record_dense(F) ? 256 : record_bytes(F));
}

/* Starts the copies of one group; ends a group of copies even where there is nothing to copy. */
template <int F> CU_FN void skinny_fetch(const skinny_args &a, skinny_feed *f, int warp, int lane)
{
    constexpr int REC = record_bytes(F), LINES = record_lines(F) / 512;
    constexpr int TAIL = record_plane(F) + record_scales(F);
    if (f->left == 0) skinny_next_unit<F>(a, f, warp);
    f->left--;
    if (f->on) {
        char *to = f->to + f->put;
        if (record_dense(F)) {
            const size_t pitch = (size_t)a.groups * 256;
            const uint8_t *from = f->from + (lane >> 4) * pitch + (lane & 15) * 16;
#pragma unroll
            for (int i = 0; i < 8; i++, from += 2 * pitch) {
                int row = i * 2 + (lane >> 4);
                cu_cp_async16(to + row * 256 + (((lane & 15) ^ (row & 7)) * 16), from);
            }
            f->from += 256;
        } else {
#pragma unroll
            for (int i = 0; i < LINES; i++)
                cu_cp_async16(to + i * 512 + lane * 16, f->from + i * 512 + lane * 16);
#pragma unroll
            for (int i = 0; i < TAIL; i += 512)
                if (i + lane * 16 < TAIL)
                    cu_cp_async16(to + LINES * 512 + i + lane * 16,
                                  f->from + LINES * 512 + i + lane * 16);
            f->from += REC;
        }
    }
    f->put = f->put + REC == f->end ? 0 : f->put + REC;
    cu_cp_commit();
}

/* ---- one unit ----------------------------------------------------------------------------- */

/* Multiplies the groups of a unit, refilling the place read before, and stores its sums. */
template <int F, int N>
CU_FN void skinny_unit(const skinny_args &a, skinny_feed *f, unsigned *get, const skinny_shared &sh,
                       int unit, int width, int warp, int lane)
{
    constexpr int REC = record_bytes(F);
    float acc[N][4];
#pragma unroll
    for (int i = 0; i < N * 4; i++) acc[i / 4][i % 4] = 0;
#pragma unroll 1
    for (int g = 0; g < width; g++) {
        __syncwarp(); /* all lanes have read the place that is filled now */
        skinny_fetch<F>(a, f, warp, lane);
        if (a.deep) cu_cp_wait<skinny_ring(F, N, true) - 1>();
        else cu_cp_wait<skinny_ring(F, N, false) - 1>();
        __syncwarp();
        if constexpr (record_dense(F)) skinny_rows<F, N>(acc, sh.ring + *get, sh, g, lane);
        else skinny_codes<F, N>(acc, sh.ring + *get, sh, g, lane);
        *get = *get + REC == f->end ? 0 : *get + REC;
    }
    float *to = a.partial + (size_t)unit * (N * 128) + lane * 4;
#pragma unroll
    for (int n = 0; n < N; n++) {
        float4 v = make_float4(acc[n][0], acc[n][1], acc[n][2], acc[n][3]);
        if (F != DT_BF16) {
            float2 q = *(const float2 *)(sh.xscale + n * 8 + (lane & 3) * 2);
            v.x *= q.x, v.y *= q.y, v.z *= q.x, v.w *= q.y;
        }
        *(float4 *)(to + n * 128) = v;
    }
}

/* ---- epilogue ----------------------------------------------------------------------------- */

/* What is added to an output besides the sum, read while the sums are on their way. */
typedef struct {
    float bias, old;
} skinny_beside;

CU_FN skinny_beside skinny_look(const skinny_args &a, int m, int row)
{
    skinny_beside b = {0, 0};
    if (row < 0 || m >= a.M) return b;
    if (a.bias) b.bias = a.bias[row];
    if (a.out == SKINNY_ADD) b.old = __bfloat162float(((bf16 *)a.y)[(size_t)m * a.ldy + row]);
    return b;
}
CU_FN void skinny_store(const skinny_args &a, int m, int row, float v, skinny_beside b)
{
    if (row < 0) return;
    size_t at = (size_t)m * a.ldy + row;
    v += b.bias;
    if (a.out == SKINNY_F32) ((float *)a.y)[at] = v;
    else if (a.out == SKINNY_BF16) ((bf16 *)a.y)[at] = __float2bfloat16(v);
    else ((bf16 *)a.y)[at] = __float2bfloat16(b.old + __bfloat162float(__float2bfloat16(v)));
}

/* v = p[0] + p[step] + .. in order; several are on their way at a time. */
template <int N> CU_FN void skinny_sum(float4 v[N], const float *p, size_t step, int S)
{
    enum { AHEAD = 8 / N };
#pragma unroll
    for (int n = 0; n < N; n++) v[n] = make_float4(0, 0, 0, 0);
#pragma unroll 1
    for (int s = 0; s < S; s += AHEAD) {
        float4 q[AHEAD][N];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
#pragma unroll
            for (int n = 0; n < N; n++)
                q[i][n] = cu_ld_cg16f(p + (size_t)min(s + i, S - 1) * step + n * 128);
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (s + i < S)
#pragma unroll
                for (int n = 0; n < N; n++) {
                    v[n].x += q[i][n].x, v[n].y += q[i][n].y;
                    v[n].z += q[i][n].z, v[n].w += q[i][n].w;
                }
    }
}

/* 1 / RMS of row `lane` of x, from the sums of squares of its slabs. */
CU_FN float skinny_rnorm(const skinny_args &a, int lane)
{
    enum { AHEAD = 8 };
    float sum = 0;
#pragma unroll 1
    for (int s = 0; s < a.S; s += AHEAD) {
        float q[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            q[i] = cu_ld_cg_f(a.square + min(s + i, a.S - 1) * SKINNY_ROWS + min(lane, a.M - 1));
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (s + i < a.S) sum += q[i];
    }
    return rsqrtf(sum / (float)a.K + a.eps);
}

/* Adds the slabs of a tile in order and writes its 16 rows of y; rnorm: of row `lane`. */
template <int N> CU_FN void skinny_finish(const skinny_args &a, int tile, float rnorm, int lane)
{
    const int g = lane >> 2, t = lane & 3;
    int low = tile * 16 + g, high = low + 8; /* output rows of this lane; -1: padding */
    if (a.ff) {
        low = tile * 8 + g < a.ff ? tile * 8 + g : -1;
        high = low < 0 ? -1 : a.ff + low;
    } else {
        if (low >= a.rows) low = -1;
        if (high >= a.rows) high = -1;
    }
    skinny_beside beside[N][2][2];
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            beside[n][j][0] = skinny_look(a, n * 8 + t * 2 + j, low);
            beside[n][j][1] = skinny_look(a, n * 8 + t * 2 + j, high);
        }
    float4 sum[N];
    skinny_sum<N>(sum, a.partial + (size_t)tile * (N * 128) + lane * 4, (size_t)a.tiles * (N * 128),
                  a.S);
#pragma unroll
    for (int n = 0; n < N; n++) {
        float e[4] = {sum[n].x, sum[n].y, sum[n].z, sum[n].w};
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int m = n * 8 + t * 2 + j;
            float r = __shfl_sync(CU_FULL, rnorm, m);
            if (m >= a.M) continue;
            float first = e[j] * r, second = e[2 + j] * r;
            const skinny_beside *b = beside[n][j];
            if (a.out != SKINNY_GLU) {
                skinny_store(a, m, low, first, b[0]);
                skinny_store(a, m, high, second, b[1]);
            } else if (low >= 0) {
                first += b[0].bias, second += b[1].bias;
                float silu = first / (1 + cu_ex2(-1.4426950408889634f * first));
                ((bf16 *)a.y)[(size_t)m * a.ldy + low] = __float2bfloat16(silu * second);
            }
        }
    }
}

/* Hands in the tickets of up to 32 units, one a lane (-1: none), and finishes the tiles that are
 * then complete. */
template <int N> CU_FN void skinny_hand_in(const skinny_args &a, int unit, int lane)
{
    int tile = unit < 0 ? 0 : unit % a.tiles;
    bool last = unit >= 0 && atomicAdd(a.ticket + tile, 1u) == (unsigned)a.S - 1;
    if (last) a.ticket[tile] = 0;
    cu_fence();
    unsigned done = __ballot_sync(CU_FULL, last);
    if (!done) return;
    float rnorm = a.norm ? skinny_rnorm(a, lane) : 1;
    for (; done; done &= done - 1)
        skinny_finish<N>(a, __shfl_sync(CU_FULL, tile, __ffs((int)done) - 1), rnorm, lane);
}

/* ---- the kernel --------------------------------------------------------------------------- */

template <int F, int N>
__global__ void __launch_bounds__(SKINNY_THREADS, 2) skinny_kernel(const skinny_args a)
{
    CU_DYN_SMEM(char, sm);
    constexpr int REC = record_bytes(F);
    const int warp = (int)threadIdx.x >> 5, lane = cu_lane();
    const skinny_shared sh = skinny_places_of<F, N>(sm, a.deep, warp);
    const int first = skinny_first(a, (int)blockIdx.x, (int)gridDim.x);
    const int end = skinny_first(a, (int)blockIdx.x + 1, (int)gridDim.x);
    const int places = skinny_ring(F, N, a.deep);
    skinny_feed feed = {};
    feed.walk = skinny_walk_of(first, end);
    feed.to = sh.ring;
    feed.end = (unsigned)(places * REC);
    cu_gdc_launch(); /* the next kernel's blocks may come as soon as there is room */
#pragma unroll 1
    for (int i = 0; i < places - 1; i++) skinny_fetch<F>(a, &feed, warp, lane);
    cu_gdc_wait(); /* weights may come before the previous kernel has ended, x not */
    skinny_walk walk = skinny_walk_of(first, end);
    unsigned get = 0;
#pragma unroll 1
    while (skinny_next_run(a, &walk, warp)) {
        __syncthreads(); /* all warps are done with the slab before */
        skinny_stage<F, N>(a, walk.slab, sh, warp, lane);
        __syncthreads();
#pragma unroll 1
        for (int unit = walk.unit; unit < walk.run_end; unit += SKINNY_WARPS)
            skinny_unit<F, N>(a, &feed, &get, sh, unit, skinny_width(a, walk.slab), warp, lane);
    }
    cu_cp_wait<0>();
    __syncwarp();
    cu_fence(); /* this warp's sums, and the squares staged before a barrier */
    int mine = -1, n = 0;
    walk = skinny_walk_of(first, end);
#pragma unroll 1
    while (skinny_next_run(a, &walk, warp))
#pragma unroll 1
        for (int unit = walk.unit; unit < walk.run_end; unit += SKINNY_WARPS) {
            if (n++ % 32 == lane) mine = unit;
            if (n % 32) continue;
            skinny_hand_in<N>(a, mine, lane);
            mine = -1;
        }
    skinny_hand_in<N>(a, mine, lane);
}

/* ---- launch ------------------------------------------------------------------------------- */

template <int F, int N> static void skinny_launch_columns(cuda_state *st, skinny_args a)
{
    static_assert(skinny_ring(F, N, false) >= 1, "99 KB hold a group for every warp");
    static_assert(skinny_ring(F, N, true) >= skinny_ring(F, N, false), "deep is the deeper ring");
    static_assert(skinny_smem(F, N, false) <= 99 * 1024, "shallow fits consumer devices");
    static_assert(skinny_smem(F, N, true) <= 227 * 1024, "deep fits the large devices");
    const int deep = skinny_smem(F, N, true);
    a.deep = deep <= st->info.smem_block;
    const int smem = skinny_smem(F, N, a.deep);
    /* a block takes 1 KB of its own besides; launch bounds keep registers for two */
    int blocks = 2 * (smem + 1024) <= st->info.smem_sm ? 2 : 1;
    int64_t grid = (int64_t)st->info.sms * blocks, units = (int64_t)a.tiles * a.S;
    GPU_LAUNCH((skinny_kernel<F, N>), dim3((unsigned)(grid < units ? grid : units)),
               dim3(SKINNY_THREADS), (size_t)smem, true, st->stream, a);
}
template <int F> static void skinny_launch(cuda_state *st, const skinny_args &a)
{
    if (a.M <= 8) skinny_launch_columns<F, 1>(st, a);
    else skinny_launch_columns<F, 2>(st, a);
}

#endif
