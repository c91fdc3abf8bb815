/* attention_prefill.cu - attention of prompt rows, causal or over the whole sequence: tiles of 128
 * query rows x 64 keys.
 *
 * A block takes a (tile, q head): 4 warps of 2 times 16 rows each.  K and V come by double-buffered
 * cp.async; q is normed and rotated on the way into shared memory, so that the rotated q never goes
 * through device memory.  Tiles and the 16-row groups lie at absolute positions: which keys are
 * read and masked for a row, and so its bits, do not depend on where the step began.
 *
 * Two blocks run on an SM, so that one multiplies while the other is at its softmax. Owns nothing.
 * Refuses nothing.  Thread: the rank's. */
#include "kernels/cuda/attention.cuh"

enum {
    PRE_THREADS = 128,
    PRE_BLOCKS = 2, /* of an SM */
    PRE_GROUPS = 2, /* of 16 rows, a warp: what it reads of K and V serves both */
    PRE_ROWS = 16 * PRE_GROUPS,
    PRE_KEYS = 32 /* scored at a time; more would not fit the registers */
};

template <int D> static size_t prefill_smem(void)
{
    return ATTN_TILE * D * 2 + 2 * 2 * ATTN_KEYS * D * 2;
}

/* This warp's rows of q into shared memory; rows outside [lo, hi) are zeros. */
template <typename T, int D>
CU_FN void prefill_q(char *q, const attn_args &a, const attn_tile &t, int head, int group)
{
    enum { J = D / 64 ? D / 64 : 1 };
#pragma unroll 2
    for (int i = 0; i < PRE_ROWS; i++) {
        int r = group + i;
        bool on = r >= t.lo && r < t.hi;
        float lo[J], hi[J];
        const float *cs = NULL;
        if (on) {
            size_t row = (size_t)(t.row0 + t.q0 + r);
            if (a.cs) cs = a.cs + row * (size_t)a.ldcs;
            turn_head<J>(lo, hi, (const bf16 *)a.qkv + row * (size_t)a.ldq + head * a.head_dim,
                         cs ? a.q_norm : NULL, cs, a);
        }
#pragma unroll
        for (int j = 0; j < J; j++) {
            int p = cu_lane() + 32 * j, rot = cs ? a.rot : 0;
            if (p >= D / 2) continue;
            to_kv(value_at<T, D>(q, r, pair_lo(p, rot)), on ? lo[j] : 0.0f);
            to_kv(value_at<T, D>(q, r, pair_hi(p, rot)), on ? hi[j] : 0.0f);
        }
    }
    __syncwarp();
}

/* Starts copying keys 64 i.. of the tile's sequence. */
template <typename T, int D>
CU_FN void prefill_keys(char *tile, const attn_args &a, const int32_t *table, int h, int i, int end)
{
#pragma unroll
    for (int p = 0; p < ATTN_KEYS / KV_PAGE; p++) {
        int left = end - i * ATTN_KEYS - p * KV_PAGE;
        int block = left > 0 ? table[i * (ATTN_KEYS / KV_PAGE) + p] : 0;
        load_page<T, D, PRE_THREADS>(tile, a, block, h, p, left, -1);
    }
    cu_cp_commit();
}

template <int D>
CU_FN void prefill_out(const float o[D / 8][4], const float sum[2], const attn_args &a,
                       const attn_tile &t, int head, int group)
{
    int g = cu_lane() >> 2, c0 = (cu_lane() & 3) * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float all = sum[h];
        all += __shfl_xor_sync(CU_FULL, all, 1);
        all += __shfl_xor_sync(CU_FULL, all, 2);
        float inv = 1.0f / all;
        int r = group + g + 8 * h;
        if (r < t.lo || r >= t.hi) continue;
        bf16 *to = (bf16 *)a.o + (size_t)(t.row0 + t.q0 + r) * (size_t)a.ldo + head * a.head_dim;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            if (n * 8 >= a.head_dim) continue;
            *(uint32_t *)(to + n * 8 + c0) = cu_pack_bf16(o[n][2 * h] * inv, o[n][2 * h + 1] * inv);
        }
    }
}

template <typename T, int D>
CU_FN void prefill_tile(const attn_args &a, const attn_tile *tp, int head, char *smem)
{
    enum { STAGE = 2 * ATTN_KEYS * D * 2 };
    char *q = smem, *stages = smem + ATTN_TILE * D * 2;
    attn_tile t = *tp;
    int lane = cu_lane(), group = (int)threadIdx.x / 32 * PRE_ROWS, first = t.q0 + group;
    int h = head / a.group, end = t.keys, n_keys = (end + ATTN_KEYS - 1) / ATTN_KEYS;
    const int32_t *table = a.table + (size_t)t.seq * (size_t)a.max_blocks;
    bool on = group < t.hi && group + PRE_ROWS > t.lo;
    /* Key tiles up to this warp's diagonal. */
    int mine = !on ? 0 : a.full ? n_keys : first / ATTN_KEYS + 1;

    prefill_keys<T, D>(stages, a, table, h, 0, end);
    prefill_q<T, D>(q, a, t, head, group);
    float o[PRE_GROUPS][D / 8][4], max[PRE_GROUPS][2], sum[PRE_GROUPS][2];
#pragma unroll
    for (int g = 0; g < PRE_GROUPS; g++) {
        max[g][0] = max[g][1] = -INFINITY;
        sum[g][0] = sum[g][1] = 0;
#pragma unroll
        for (int n = 0; n < D / 8; n++) o[g][n][0] = o[g][n][1] = o[g][n][2] = o[g][n][3] = 0;
    }
    auto query = [&](uint32_t f[4], int k, int g) {
        cu_ldmatrix_x4(f, q + piece_at<D>(group + g * 16 + (lane & 15), k * 2 + (lane >> 4)));
    };
    for (int i = 0; i < n_keys; i++) {
        char *stage = stages + (i & 1) * STAGE;
        if (i + 1 < n_keys) {
            prefill_keys<T, D>(stages + (~i & 1) * STAGE, a, table, h, i + 1, end);
            cu_cp_wait<1>();
        } else {
            cu_cp_wait<0>();
        }
        __syncthreads();
        if (i < mine) {
#pragma unroll 1
            for (int half = 0; half < ATTN_KEYS; half += PRE_KEYS) {
                const int key0 = i * ATTN_KEYS + half;
                if (key0 >= (a.full ? end : first + PRE_ROWS)) break;
                float s[PRE_GROUPS][PRE_KEYS / 8][4];
                score<T, D, PRE_KEYS / 8, PRE_GROUPS>(s, query, stage, half);
#pragma unroll
                for (int g = 0; g < PRE_GROUPS; g++) {
                    int row = first + g * 16 + (lane >> 2);
                    if (key0 + PRE_KEYS - 1 > (a.full ? end - 1 : first + g * 16)) {
#pragma unroll
                        for (int n = 0; n < PRE_KEYS / 8; n++)
#pragma unroll
                            for (int e = 0; e < 4; e++) {
                                int key = key0 + n * 8 + (lane & 3) * 2 + (e & 1);
                                if (key > (a.full ? end - 1 : row + (e >> 1) * 8))
                                    s[g][n][e] = -INFINITY;
                            }
                    }
                    soften<D, PRE_KEYS / 8>(s[g], o[g], max[g], sum[g], a.scale);
                }
                weigh<T, D, PRE_KEYS / 8, PRE_GROUPS>(o, s, stage + STAGE / 2, half);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int g = 0; g < PRE_GROUPS; g++) prefill_out<D>(o[g], sum[g], a, *tp, head, group + g * 16);
}

template <typename T, int D>
__global__ void __launch_bounds__(PRE_THREADS, PRE_BLOCKS) attn_prefill_kernel(attn_args a)
{
    CU_DYN_SMEM(char, smem);
    cu_gdc_wait();
    const attn_plan *p = (const attn_plan *)a.plan;
    const attn_tile *tiles = plan_tiles(a.plan);
    for (int i = (int)blockIdx.x; i < p->n_tiles * a.heads; i += (int)gridDim.x)
        prefill_tile<T, D>(a, tiles + i / a.heads, i % a.heads, smem);
    cu_gdc_launch();
}

template <typename T, int D> static void launch(cuda_state *st, const attn_args *a, int n)
{
    int blocks = st->info.sms * PRE_BLOCKS;
    if (n > 0 && n < blocks) blocks = n;
    GPU_LAUNCH((attn_prefill_kernel<T, D>), blocks, PRE_THREADS, prefill_smem<D>(), true,
               st->stream, *a);
}

void attn_prefill_run(cuda_state *st, kv_type t, const attn_args *a, int n)
{
    bool half = t == KV_F16;
    switch (attn_built_dim(a->head_dim)) {
    case 32: return half ? launch<f16, 32>(st, a, n) : launch<bf16, 32>(st, a, n);
    case 64: return half ? launch<f16, 64>(st, a, n) : launch<bf16, 64>(st, a, n);
    default: return half ? launch<f16, 128>(st, a, n) : launch<bf16, 128>(st, a, n);
    }
}
