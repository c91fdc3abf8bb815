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
    /* A thread takes the same piece of rows that lie a pass apart (of K and of V, where a pass is
     * not both): addresses differ by constants, since rows 8 apart are permuted alike. */
    constexpr int PIECES = D / 8, PASS = THREADS / PIECES;
    constexpr bool BOTH = PASS == 2 * KV_PAGE;
    static_assert(BOTH || (PASS <= KV_PAGE && PASS % 8 == 0), "whole passes");
    int r = (int)threadIdx.x / PIECES, c = (int)threadIdx.x % PIECES, v = 0;
    if (BOTH) v = r / KV_PAGE, r %= KV_PAGE;
    const T *src = (const T *)a.kv + (size_t)block * a.kv_block + head_in_block(a, v, h) +
                   r * a.head_dim + c * 8;
    const size_t to_v = head_in_block(a, 1, 0);
    const bool wide = c * 8 < a.head_dim;
    char *dst = tile + v * ATTN_KEYS * D * 2 + piece_at<D>(p * KV_PAGE + r, c);
#pragma unroll
    for (int row = 0; row < KV_PAGE; row += PASS) {
        if (row + r == skip) continue;
        bool on = wide && row + r < n;
        cu_cp_async16_z(dst + row * D * 2, src + row * a.head_dim, on);
        if (!BOTH)
            cu_cp_async16_z(dst + (row + ATTN_KEYS) * D * 2, src + to_v + row * a.head_dim, on);
    }
}

/* ---- G times 16 query rows
 * ----------------------------------------------------------------------- What is read from a tile
 * of keys or values serves all G of a warp. */

/* s[g][16, 8 NT] = q k^T of keys row0.. of a tile; the query fragments come from q(fragment, k, g).
 */
template <typename T, int D, int NT, int G, typename Q>
CU_FN void score(float s[G][NT][4], Q q, const char *keys, int row0)
{
    int lane = cu_lane();
#pragma unroll
    for (int i = 0; i < G * NT * 4; i++) s[i / (NT * 4)][i / 4 % NT][i % 4] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[G][4];
#pragma unroll
        for (int g = 0; g < G; g++) q(a[g], k, g);
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            uint32_t b[4];
            int row = row0 + n * 8 + (lane & 7) + (lane >> 4) * 8;
            cu_ldmatrix_x4(b, keys + piece_at<D>(row, k * 2 + (lane >> 3 & 1)));
#pragma unroll
            for (int g = 0; g < G; g++) {
                mma_kv(T(), s[g][n], a[g], b);
                mma_kv(T(), s[g][n + 1], a[g], b + 2);
            }
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
        if (!__any_sync(CU_FULL, old != 1.0f)) continue; /* most steps: no row has a new maximum */
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            o[n][2 * h] *= old;
            o[n][2 * h + 1] *= old;
        }
    }
}

/* o += p v: the weights' C fragments are the A fragments of this product. */
template <typename T, int D, int NT, int G>
CU_FN void weigh(float o[G][D / 8][4], const float p[G][NT][4], const char *values, int row0)
{
    int lane = cu_lane();
#pragma unroll
    for (int k = 0; k < NT / 2; k++) {
        uint32_t a[G][4];
#pragma unroll
        for (int g = 0; g < G; g++) {
            const float *x = p[g][2 * k], *y = p[g][2 * k + 1];
            a[g][0] = pack_kv(T(), x[0], x[1]), a[g][1] = pack_kv(T(), x[2], x[3]);
            a[g][2] = pack_kv(T(), y[0], y[1]), a[g][3] = pack_kv(T(), y[2], y[3]);
        }
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            int row = row0 + k * 16 + (lane & 15);
            cu_ldmatrix_x4_t(b, values + piece_at<D>(row, n * 2 + (lane >> 4)));
#pragma unroll
            for (int g = 0; g < G; g++) {
                mma_kv(T(), o[g][2 * n], a[g], b);
                mma_kv(T(), o[g][2 * n + 1], a[g], b + 2);
            }
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
