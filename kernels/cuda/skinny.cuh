/* skinny.cuh - the kernel behind skinny.h: a persistent grid over units of (tile, slab), weights as
 * the M operand of mma.m16n8k16, activations as its N operand (8 or 16 columns).
 *
 * In a unit warp w owns group w of the slab.  Its weights come through a private ring of cp.async
 * copies that runs ahead across units, starting before the previous kernel has ended.  The eight
 * results are added in warp order and stored; units are walked slab by slab, so that a block stages
 * one or two slabs of x only.  At its end a block hands in tickets for its tiles, and whoever
 * completes a tile adds its slabs in order and runs the epilogue: no float atomics, no waiting.
 *
 * Owns nothing.  Refuses nothing: linear.cu has checked.  Device code. */
#ifndef QUERN_KERNELS_CUDA_SKINNY_CUH
#define QUERN_KERNELS_CUDA_SKINNY_CUH

#include "kernels/cuda/skinny_group.cuh"

/* ---- the ring ----------------------------------------------------------------------------- */

/* What the warp fetches next.  A run is the units of this block inside one slab: one further on is
 * one tile further on, so the loop has no division and no multiplication. */
typedef struct {
    const uint8_t *from;
    char *to; /* first place */
    size_t stride;
    int first, n, at;  /* units of the block; the first of the next run */
    int left;          /* of this run */
    bool on;           /* the warp has a group in this slab */
    unsigned put, end; /* next place and size of the ring, in bytes */
} skinny_feed;

CU_FN void skinny_next_run(const skinny_args &a, skinny_feed *f, int record, int warp)
{
    f->on = false;
    f->left = 1 << 30;
    if (f->at >= f->n) return;
    int slab = (f->first + f->at) / a.tiles, tile = f->first + f->at - slab * a.tiles;
    f->on = warp < skinny_width(a, slab);
    f->left = min(a.tiles - tile, f->n - f->at);
    f->at += f->left;
    /* of a dense weight the group is 256 bytes of each of the tile's rows */
    size_t group = (size_t)(slab * a.P + warp);
    f->from = a.w + (size_t)tile * f->stride + group * record;
}

/* Starts the copies of one unit; a group of copies even where there is nothing to copy. */
template <int F> CU_FN void skinny_fetch(const skinny_args &a, skinny_feed *f, int warp, int lane)
{
    constexpr int REC = record_bytes(F), LINES = record_lines(F) / 512;
    constexpr int TAIL = record_plane(F) + record_scales(F);
    if (f->left == 0) skinny_next_run(a, f, record_dense(F) ? 256 : REC, warp);
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
        } else {
#pragma unroll
            for (int i = 0; i < LINES; i++)
                cu_cp_async16_once(to + i * 512 + lane * 16, f->from + i * 512 + lane * 16);
#pragma unroll
            for (int i = 0; i < TAIL; i += 512)
                if (i + lane * 16 < TAIL)
                    cu_cp_async16_once(to + LINES * 512 + i + lane * 16,
                                       f->from + LINES * 512 + i + lane * 16);
        }
        f->from += f->stride;
    }
    f->put = f->put + REC == f->end ? 0 : f->put + REC;
    cu_cp_commit();
}

/* ---- rounds ------------------------------------------------------------------------------- */

typedef struct {
    skinny_feed feed;
    unsigned get;   /* place of the ring to be read next */
    int width;      /* groups of the staged slab */
    int turn;       /* the warps take turns at adding up */
    int parity;     /* which set of results */
    float *partial; /* this lane's place in the next unit's partial sums */
} skinny_walk;

/* Adds the warps' results of one unit in warp order and stores them. */
template <int F, int N>
CU_FN void skinny_add_up(const skinny_shared &sh, const float *r, int width, float *to, int lane)
{
#pragma unroll
    for (int n = 0; n < N; n++) {
        float4 v = *(const float4 *)(r + n * 128);
#pragma unroll
        for (int w = 1; w < SKINNY_WARPS; w++)
            if (w < width) {
                float4 p = *(const float4 *)(r + (w * N + n) * 128);
                v.x += p.x, v.y += p.y, v.z += p.z, v.w += p.w;
            }
        if (F != DT_BF16) {
            float2 q = *(const float2 *)(sh.xscale + n * 8 + (lane & 3) * 2);
            v.x *= q.x, v.y *= q.y, v.z *= q.x, v.w *= q.y;
        }
        *(float4 *)(to + n * 128) = v;
    }
}

/* The next c <= T units: refill the places read in the round before, wait, multiply, add up over
 * the warps.  A round of one unit works on it twice and keeps one result, so that there is one
 * body. */
template <int F, int N>
CU_FN void skinny_round(const skinny_args &a, skinny_walk *k, const skinny_shared &sh, int c,
                        int warp, int lane)
{
    constexpr int REC = record_bytes(F), T = skinny_pair(F);
#pragma unroll
    for (int i = 0; i < T; i++)
        if (i < c) skinny_fetch<F>(a, &k->feed, warp, lane);
    if (a.deep) cu_cp_wait<skinny_ring(F, N, true) - T>();
    else cu_cp_wait<skinny_ring(F, N, false) - T>();
    __syncwarp();
    float *red = sh.red + k->parity * (SKINNY_WARPS * T * N * 128) + lane * 4;
    const char *rec[T];
    const unsigned at = k->get;
#pragma unroll
    for (int i = 0; i < T; i++) {
        rec[i] = sh.ring + (i < c ? k->get : at);
        if (i < c) k->get = k->get + REC == k->feed.end ? 0 : k->get + REC;
    }
    if (warp < k->width) {
        float acc[T][N][4];
#pragma unroll
        for (int i = 0; i < T * N * 4; i++) acc[i / (N * 4)][i / 4 % N][i % 4] = 0;
        if constexpr (record_dense(F)) skinny_rows<F, N>(acc[0], rec[0], sh, warp, lane);
        else skinny_codes<F, N, T>(acc, rec, sh, warp, lane);
#pragma unroll
        for (int i = 0; i < T; i++)
#pragma unroll
            for (int n = 0; n < N; n++)
                *(float4 *)(red + ((i * SKINNY_WARPS + warp) * N + n) * 128) =
                    make_float4(acc[i][n][0], acc[i][n][1], acc[i][n][2], acc[i][n][3]);
    }
    __syncthreads();
    int i = (warp - k->turn) & (SKINNY_WARPS - 1);
    if (i < c)
        skinny_add_up<F, N>(sh, red + i * SKINNY_WARPS * N * 128, k->width,
                            k->partial + i * N * 128, lane);
    k->turn += c;
    k->partial += c * N * 128;
    k->parity ^= 1;
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

/* 1 / RMS of row m of x, from the sums of squares of its slabs. */
CU_FN float skinny_rnorm(const skinny_args &a, int m)
{
    enum { AHEAD = 8 };
    float sum = 0;
#pragma unroll 1
    for (int s = 0; s < a.S; s += AHEAD) {
        float q[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            q[i] = cu_ld_cg_f(a.square + min(s + i, a.S - 1) * SKINNY_ROWS + m);
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (s + i < a.S) sum += q[i];
    }
    return rsqrtf(sum / (float)a.K + a.eps);
}

/* Adds the slabs of a tile in order and writes its 16 rows of y. */
template <int N>
CU_FN void skinny_finish(const skinny_args &a, int tile, const float *rnorm, int lane)
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
            if (m >= a.M) continue;
            float r = a.norm ? rnorm[m] : 1, first = e[j] * r, second = e[2 + j] * r;
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

/* Hands in the block's tickets, all at once behind one fence; finishes the tiles it completes. */
template <int N>
CU_FN void skinny_fix_up(const skinny_args &a, const skinny_shared &sh, int *list, int first, int n,
                         int warp, int lane)
{
    cu_fence();
    if (threadIdx.x == 0) *sh.count = 0;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n; i += SKINNY_THREADS) {
        int tile = (first + i) % a.tiles;
        if (atomicAdd(a.ticket + tile, 1u) == (unsigned)a.S - 1) {
            a.ticket[tile] = 0;
            list[atomicAdd(sh.count, 1)] = tile;
        }
    }
    __syncthreads();
    cu_fence();
    const int done = *sh.count;
    if (done && a.norm) {
        if ((int)threadIdx.x < a.M) {
            sh.rnorm[threadIdx.x] = skinny_rnorm(a, (int)threadIdx.x);
        }
        __syncthreads();
    }
    for (int i = warp; i < done; i += SKINNY_WARPS) skinny_finish<N>(a, list[i], sh.rnorm, lane);
}

/* ---- the kernel --------------------------------------------------------------------------- */

template <int F, int N>
__global__ void __launch_bounds__(SKINNY_THREADS, 2) skinny_kernel(const skinny_args a)
{
    CU_DYN_SMEM(char, sm);
    constexpr int REC = record_bytes(F), T = skinny_pair(F);
    const int warp = (int)threadIdx.x >> 5, lane = cu_lane();
    const skinny_shared sh = skinny_places_of<F, N>(sm, a.deep, warp);
    const int first = skinny_first(a, (int)blockIdx.x, (int)gridDim.x);
    const int n = skinny_first(a, (int)blockIdx.x + 1, (int)gridDim.x) - first;
    const int places = skinny_ring(F, N, a.deep);
    skinny_walk k = {};
    k.feed.to = sh.ring;
    k.feed.stride = (size_t)a.groups * REC;
    k.feed.first = first;
    k.feed.n = n;
    k.feed.end = (unsigned)(places * REC);
    k.partial = a.partial + (size_t)first * N * 128 + lane * 4;
#pragma unroll 1
    for (int i = 0; i < places - T; i++) skinny_fetch<F>(a, &k.feed, warp, lane);
    cu_gdc_wait(); /* weights may come before the previous kernel has ended, x not */
    int slab = first / a.tiles, left = 0;
#pragma unroll 1
    for (int i = 0; i < n;) {
        if (left == 0) {
            __syncthreads();
            left = i ? a.tiles : (slab + 1) * a.tiles - first;
            k.width = skinny_width(a, slab);
            skinny_stage<F, N>(a, slab++, sh, warp, lane);
            __syncthreads();
        }
        int c = min(T, min(left, n - i));
        skinny_round<F, N>(a, &k, sh, c, warp, lane);
        left -= c;
        i += c;
    }
    cu_cp_wait<0>();
    cu_gdc_launch();
    constexpr int LIST = 4096; /* tiles whose numbers fit where the rings were */
    for (int i = 0; i < n; i += LIST) {
        __syncthreads();
        skinny_fix_up<N>(a, sh, (int *)sm, first + i, min(LIST, n - i), warp, lane);
    }
}

/* ---- launch ------------------------------------------------------------------------------- */

template <int F, int N> static void skinny_launch_columns(cuda_state *st, skinny_args a)
{
    static_assert(skinny_ring(F, N, false) >= skinny_pair(F), "99 KB hold a round of the format");
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
