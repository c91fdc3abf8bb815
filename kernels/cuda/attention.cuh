/* attention.cuh - what the attention kernels share: one head's norm and rotation, pages into shared
 * memory, the products on 16 query rows, the online softmax, the fold of partial results.
 *
 * Where a value is made in two kernels and must have the same bits in both (k and v as stored, the
 * fold of partial results), each operation is spelled with fmaf and __fmul_rn, so that no compiler
 * contracts it differently in the two places.
 * D is the head_dim a kernel is built for; a smaller one is padded with zeros in shared memory.
 * Owns nothing.  Device code. */
#ifndef QUERN_KERNELS_CUDA_ATTENTION_CUH
#define QUERN_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/attention.h"
#include "kernels/cuda/portable.cuh"

CU_FN const attn_item *plan_items(const int32_t *plan)
{
    return (const attn_item *)((const attn_plan *)plan + 1);
}
CU_FN const attn_tile *plan_tiles(const int32_t *plan)
{
    return (const attn_tile *)(plan + ((const attn_plan *)plan)->tile_at);
}

/* ---- the KV type: overloads -------------------------------------------------------------------
 */

CU_FN void to_kv(f16 *to, float v)
{
    *to = __float2half(v);
}
CU_FN void to_kv(bf16 *to, float v)
{
    *to = __float2bfloat16(v);
}
CU_FN uint32_t pack_kv(f16, float lo, float hi)
{
    return cu_pack_f16(lo, hi);
}
CU_FN uint32_t pack_kv(bf16, float lo, float hi)
{
    return cu_pack_bf16(lo, hi);
}
CU_FN void mma_kv(f16, float d[4], const uint32_t a[4], const uint32_t b[2])
{
    cu_mma_f16(d, a, b);
}
CU_FN void mma_kv(bf16, float d[4], const uint32_t a[4], const uint32_t b[2])
{
    cu_mma_bf16(d, a, b);
}

/* ---- one head, one warp ------------------------------------------------------------------------
 */

/* Lane owns the pairs p = lane + 32 j of a head: those rotated together, then neighbours. */
CU_FN int pair_lo(int p, int rot)
{
    return p < rot / 2 ? p : 2 * p;
}
CU_FN int pair_hi(int p, int rot)
{
    return p < rot / 2 ? p + rot / 2 : 2 * p + 1;
}

/* RMSNorm (w may be NULL) and rotation by the row's cos and sin (cs NULL: none) of src[head_dim];
 * pairs beyond it are 0.  The one place where the bits of a stored k are made. */
template <int J>
CU_FN void turn_head(float lo[J], float hi[J], const bf16 *src, const float *w, const float *cs,
                     const attn_args &a)
{
    int rot = cs ? a.rot : 0;
    float squares = 0;
#pragma unroll
    for (int j = 0; j < J; j++) {
        int p = cu_lane() + 32 * j;
        bool on = p < a.head_dim / 2;
        lo[j] = on ? __bfloat162float(src[pair_lo(p, rot)]) : 0.0f;
        hi[j] = on ? __bfloat162float(src[pair_hi(p, rot)]) : 0.0f;
        squares = fmaf(hi[j], hi[j], fmaf(lo[j], lo[j], squares));
    }
    if (w) {
        float r = rsqrtf(fmaf(cu_warp_sum(squares), a.inv_dim, a.eps));
#pragma unroll
        for (int j = 0; j < J; j++) {
            int p = cu_lane() + 32 * j;
            if (p >= a.head_dim / 2) continue;
            lo[j] = __fmul_rn(__fmul_rn(lo[j], r), w[pair_lo(p, rot)]);
            hi[j] = __fmul_rn(__fmul_rn(hi[j], r), w[pair_hi(p, rot)]);
        }
    }
#pragma unroll
    for (int j = 0; j < J; j++) {
        int p = cu_lane() + 32 * j;
        if (p >= rot / 2) continue;
        float c = cs[p], s = cs[p + rot / 2], x = lo[j], y = hi[j];
        lo[j] = fmaf(x, c, -__fmul_rn(y, s));
        hi[j] = fmaf(y, c, __fmul_rn(x, s));
    }
}

/* ---- shared tiles ------------------------------------------------------------------------------
 */

/* Byte offset of the 16-byte piece c of a row of D values: pieces are permuted so that eight rows'
 * equal pieces lie in different banks. */
template <int D> CU_FN int piece_at(int row, int c)
{
    int x = D >= 64 ? row & 7 : row >> 1 & 3;
    return row * D * 2 + ((c ^ x) << 4);
}
template <typename T, int D> CU_FN T *value_at(char *tile, int row, int i)
{
    return (T *)(tile + piece_at<D>(row, i >> 3)) + (i & 7);
}

/* Elements between a block's start and head h of its K (v 0) or V (v 1). */
CU_FN size_t head_in_block(const attn_args &a, int v, int h)
{
    return ((size_t)v * (size_t)a.kv_heads + (size_t)h) * (size_t)(KV_PAGE * a.head_dim);
}

/* Starts copying 16 positions of head h (K, then V 64 rows behind) into rows 16 p.. of a tile;
 * positions >= n and values >= head_dim become zeros, position `skip` is left alone. */
template <typename T, int D, int THREADS>
CU_FN void load_page(char *tile, const attn_args &a, int block, int h, int p, int n, int skip)
{
    const T *page = (const T *)a.kv + (size_t)block * a.kv_block + head_in_block(a, 0, h);
    size_t to_v = head_in_block(a, 1, 0);
#pragma unroll
    for (int i0 = 0; i0 < 4 * D; i0 += THREADS) {
        int i = i0 + (int)threadIdx.x, v = i / (2 * D), r = i / (D / 8) % 16, c = i % (D / 8);
        if (4 * D < THREADS && i >= 4 * D) break;
        if (r == skip) continue;
        bool on = r < n && c * 8 < a.head_dim;
        const T *src = page + (v ? to_v : 0) + r * a.head_dim + c * 8;
        cu_cp_async16_z(tile + v * ATTN_KEYS * D * 2 + piece_at<D>(p * 16 + r, c),
                        on ? src : (const T *)a.kv, on);
    }
}

/* ---- 16 query rows ------------------------------------------------------------------------------
 */

/* s[16, 8 NT] = q k^T of keys row0.. of a tile; the query fragments come from q(k). */
template <typename T, int D, int NT, typename Q>
CU_FN void score(float s[NT][4], Q q, const char *keys, int row0)
{
    int lane = cu_lane();
#pragma unroll
    for (int n = 0; n < NT; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[4];
        q(a, k);
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            uint32_t b[4];
            int row = row0 + n * 8 + (lane & 7) + (lane >> 4) * 8;
            cu_ldmatrix_x4(b, keys + piece_at<D>(row, k * 2 + (lane >> 3 & 1)));
            mma_kv(T(), s[n], a, b);
            mma_kv(T(), s[n + 1], a, b + 2);
        }
    }
}

/* Online softmax: raw scores (-inf where masked) become weights; sum, and the values o, are
 * rescaled to the new maximum.  max is in units of log2. */
template <int D, int NT>
CU_FN void soften(float s[NT][4], float o[D / 8][4], float max[2], float sum[2], float scale)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = -INFINITY, add = 0;
#pragma unroll
        for (int n = 0; n < NT; n++) top = fmaxf(top, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(CU_FULL, top, 1));
        top = fmaxf(top, __shfl_xor_sync(CU_FULL, top, 2));
        float now = fmaxf(max[h], top * scale), base = now == -INFINITY ? 0.0f : now;
        float old = cu_ex2(max[h] - base);
        max[h] = now;
#pragma unroll
        for (int n = 0; n < NT; n++) {
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; i++) {
                s[n][i] = cu_ex2(fmaf(s[n][i], scale, -base));
                add += s[n][i];
            }
        }
        sum[h] = fmaf(sum[h], old, add);
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            o[n][2 * h] *= old;
            o[n][2 * h + 1] *= old;
        }
    }
}

/* o += p v: the weights' C fragments are the A fragments of this product. */
template <typename T, int D, int NT>
CU_FN void weigh(float o[D / 8][4], const float p[NT][4], const char *values, int row0)
{
    int lane = cu_lane();
#pragma unroll
    for (int k = 0; k < NT / 2; k++) {
        const float *x = p[2 * k], *y = p[2 * k + 1];
        uint32_t a[4] = {pack_kv(T(), x[0], x[1]), pack_kv(T(), x[2], x[3]),
                         pack_kv(T(), y[0], y[1]), pack_kv(T(), y[2], y[3])};
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            int row = row0 + k * 16 + (lane & 15);
            cu_ldmatrix_x4_t(b, values + piece_at<D>(row, n * 2 + (lane >> 4)));
            mma_kv(T(), o[2 * n], a, b);
            mma_kv(T(), o[2 * n + 1], a, b + 2);
        }
    }
}

/* ---- partial results
 * ----------------------------------------------------------------------------- */

/* Folds (m, l) into (*max, *sum); values follow by fold_value with the two factors. */
CU_FN void fold_factors(float *max, float *sum, float m, float l, float *keep, float *add)
{
    float top = fmaxf(*max, m);
    *keep = cu_ex2(*max - top);
    *add = cu_ex2(m - top);
    *sum = fmaf(*sum, *keep, __fmul_rn(l, *add));
    *max = top;
}
CU_FN float fold_value(float value, float keep, float v, float add)
{
    return fmaf(value, keep, __fmul_rn(v, add));
}

#endif
