/* linear_panel.cuh - what stands around the library's products for many rows: panels of weights as
 * bf16 and the small kernels for bias, gate and up.  Calls only; see linear_panel.cu.
 * Owns nothing.  Refuses nothing.  Thread: the rank's. */
#ifndef QUERN_KERNELS_CUDA_LINEAR_PANEL_CUH
#define QUERN_KERNELS_CUDA_LINEAR_PANEL_CUH

#include "kernels/cuda/linear.h"

/* Tiles [tile, tile + tiles) of a segment not BF16 as rows of groups * 128 bf16. */
void panel_make(cuda_state *st, bf16 *to, const linear_rows *w, int seg, int tile, int tiles);
/* y[r] = bias[0 .. y.cols) for every row. */
void panel_fill_bias(cuda_state *st, tensor y, const float *bias);
typedef enum { SPLIT_SET, SPLIT_ADD, SPLIT_GLU } split_mode;
/* t[n][16 * tiles] are products of interleaved tiles from `tile` on, of y's type; bias[2 ff] or
 * NULL.  GLU: y[n, ff] = silu(gate) * up; else y[n, 2 ff] = (or +=) gate, then up. */
void panel_split(cuda_state *st, tensor y, tensor t, int tile, int ff, const float *bias,
                 split_mode mode);

#endif
