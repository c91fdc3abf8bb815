/* embed.cu - rows of a packed weight by token: k_embed.  Tied embeddings are read from the one copy
 * that the head multiplies with.
 * Owns nothing.  Refuses nothing: ids come from the sampler or were checked by the engine; one
 * outside the vocabulary gives a row of NaN rather than a read past the end.  Of an embedding cut
 * over ranks, other ranks' rows are zeros here. Thread: the rank's. */
#include "kernels/cuda/dequant.cuh"
#include "kernels/cuda/linear.h"

enum { EMBED_THREADS = 128 };

typedef struct {
    linear_rows rows;
    bf16 *y;
    int ldy;
    const int32_t *tok, *drawn;
    int row0, rows_all; /* of the vocabulary: where this rank's rows begin, and all */
} embed_args;

/* One row; quads of a warp take groups in turn, lane t of a quad its four k of every sixteen. */
template <int F> CU_FN void embed_row(const embed_args &a, const uint8_t *w, int row, bf16 *y)
{
    const int tile = row / TILE_ROWS, g = row & 7, hi = row >> 3 & 1, t = (int)threadIdx.x & 3;
    const int in = a.rows.in, groups = a.rows.groups;
    for (int group = (int)threadIdx.x >> 2; group < groups; group += EMBED_THREADS / 4) {
        const uint8_t *rec = w + ((size_t)tile * groups + group) * record_bytes(F);
        for (int b = 0; b < 4; b++) {
            float v[8];
            record_values<F>(rec, g, t, hi, b, v);
            for (int i = 0; i < 8; i++) {
                int k = group * GROUP_K + b * 32 + (i >> 2) * 16 + t * 4 + (i & 3);
                if (k < in) y[k] = __float2bfloat16(v[i]);
            }
        }
    }
}
CU_FN void embed_dense(const embed_args &a, int type, const uint8_t *w, int row, bf16 *y)
{
    const uint16_t *p = (const uint16_t *)w + (size_t)row * a.rows.groups * GROUP_K;
    for (int k = (int)threadIdx.x; k < a.rows.in; k += EMBED_THREADS)
        y[k] = type == DT_F16 ? __float2bfloat16(cu_h2f2(p[k]).x) : __ushort_as_bfloat16(p[k]);
}

__global__ void __launch_bounds__(EMBED_THREADS) embed_kernel(const embed_args a)
{
    cu_gdc_wait();
    cu_gdc_launch();
    bf16 *y = a.y + (size_t)blockIdx.x * a.ldy;
    int tok = a.tok[blockIdx.x];
    if (tok < 0) tok = a.drawn[-1 - tok];
    int row = tok - a.row0;
    if (tok < 0 || tok >= a.rows_all || row < 0 || row >= a.rows.out) {
        unsigned short what = tok < 0 || tok >= a.rows_all ? 0x7fff : 0; /* NaN, or zero */
        for (int k = (int)threadIdx.x; k < a.rows.in; k += EMBED_THREADS)
            y[k] = __ushort_as_bfloat16(what);
        return;
    }
    linear_place at = linear_find(&a.rows, row);
    const uint8_t *w = a.rows.seg[at.seg].w;
    switch (a.rows.seg[at.seg].type) {
#define EMBED(F) \
    case F: embed_row<F>(a, w, at.row, y); break;
        EMBED(DT_Q4_0)
        EMBED(DT_Q4_1)
        EMBED(DT_Q5_0)
        EMBED(DT_Q5_1)
        EMBED(DT_Q8_0)
        EMBED(DT_Q2_K)
        EMBED(DT_Q3_K)
        EMBED(DT_Q4_K)
        EMBED(DT_Q5_K)
        EMBED(DT_Q6_K)
        EMBED(DT_IQ4_NL)
        EMBED(DT_IQ4_XS)
        EMBED(DT_MXFP4)
        EMBED(DT_NVFP4)
#undef EMBED
    default: embed_dense(a, a.rows.seg[at.seg].type, w, at.row, y);
    }
}

void cuda_embed(backend *be, tensor y, const int32_t *tok, const weight *w)
{
    cuda_state *st = cuda_of(be);
    if (y.rows == 0) return;
    embed_args a = {linear_rows_of(w),
                    (bf16 *)y.ptr,
                    y.ld,
                    tok,
                    st->drawn,
                    w->row0,
                    w->rows_all ? w->rows_all : w->out};
    GPU_LAUNCH(embed_kernel, dim3((unsigned)y.rows), dim3(EMBED_THREADS), 0, true, st->stream, a);
}
