/* attention_store.cu - writes k (normed, rotated) and v of a step's rows to their pages; for the
 * separate op also rotates q in place.  Attention itself then finds them there.
 * Owns nothing.  Refuses nothing: slots were checked by the op.  Thread: the rank's. */
#include "kernels/cuda/attention.cuh"

enum { STORE_THREADS = 128, STORE_PAIRS = ATTN_HEAD_DIM_MAX / 64 };

/* Head h of a row as the qkv rows have them: q heads, k heads, v heads. */
template <typename T> CU_FN void store_head(const attn_args &a, int row, int h)
{
    bf16 *src = (bf16 *)a.qkv + (size_t)row * (size_t)a.ldq + h * a.head_dim;
    const float *cs = a.cs + (size_t)row * (size_t)a.ldcs;
    int kv = h - a.heads; /* < 0: a q head */
    bool is_v = kv >= a.kv_heads;
    float lo[STORE_PAIRS], hi[STORE_PAIRS];
    turn_head<STORE_PAIRS>(lo, hi, src,
                           is_v     ? NULL
                           : kv < 0 ? a.q_norm
                                    : a.k_norm,
                           is_v ? NULL : cs, a);
    int slot = a.slot[row], rot = is_v ? 0 : a.rot;
    T *dst = (T *)a.kv + (size_t)(slot / KV_PAGE) * a.kv_block +
             head_in_block(a, is_v,
                           is_v     ? kv - a.kv_heads
                           : kv < 0 ? 0
                                    : kv) +
             slot % KV_PAGE * a.head_dim;
#pragma unroll
    for (int j = 0; j < STORE_PAIRS; j++) {
        int p = cu_lane() + 32 * j, i0 = pair_lo(p, rot), i1 = pair_hi(p, rot);
        if (p >= a.head_dim / 2) continue;
        if (kv < 0) {
            src[i0] = __float2bfloat16(lo[j]);
            src[i1] = __float2bfloat16(hi[j]);
        } else {
            to_kv(dst + i0, lo[j]);
            to_kv(dst + i1, hi[j]);
        }
    }
}

/* A warp takes a (row, head) at a time. */
template <typename T>
__global__ void __launch_bounds__(STORE_THREADS) attn_store_kernel(attn_args a)
{
    cu_gdc_wait();
    int first = a.turn_q ? 0 : a.heads, per_row = a.heads + 2 * a.kv_heads - first;
    int64_t n = (int64_t)((const attn_plan *)a.plan)->n_rows * per_row;
    int64_t step = (int64_t)gridDim.x * (STORE_THREADS / 32);
    for (int64_t i = (int64_t)blockIdx.x * (STORE_THREADS / 32) + threadIdx.x / 32; i < n;
         i += step)
        store_head<T>(a, (int)(i / per_row), first + (int)(i % per_row));
    cu_gdc_launch();
}

void attn_store_run(cuda_state *st, kv_type t, const attn_args *a, int n)
{
    int blocks = st->info.sms * 8, want = (n + STORE_THREADS / 32 - 1) / (STORE_THREADS / 32);
    if (n > 0 && want < blocks) blocks = want;
    if (t == KV_F16)
        GPU_LAUNCH(attn_store_kernel<f16>, blocks, STORE_THREADS, 0, true, st->stream, *a);
    else GPU_LAUNCH(attn_store_kernel<bf16>, blocks, STORE_THREADS, 0, true, st->stream, *a);
}
