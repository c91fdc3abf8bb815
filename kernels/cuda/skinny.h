/* skinny.h - y[M, rows] = f(x[M, K] W^T) for M = 1..16: what a launch of skinny.cuh is told, and
 * the launchers, one per family of formats, each in its own source file.
 *
 * The work is cut into units of one tile (16 rows) and one slab of P groups of 128 k.  Every float
 * sum has an order fixed by P and K: k in a group, the groups of a slab, the slabs.  P is a
 * function of the weight's shape alone, so the bits of an output row depend on nothing but its
 * input row and the weight: not on M, on neighbours, on the grid or on who finishes last.
 *
 * Owns nothing.  Refuses nothing: linear.cu checks.  Thread: the rank's. */
#ifndef QUERN_KERNELS_CUDA_SKINNY_H
#define QUERN_KERNELS_CUDA_SKINNY_H

#include "kernels/cuda/cuda.h"

enum { SKINNY_ROWS = 16, SKINNY_WARPS = 8, SKINNY_THREADS = 32 * SKINNY_WARPS };

typedef enum {
    SKINNY_F32,  /* y f32 */
    SKINNY_BF16, /* y bf16 */
    SKINNY_ADD,  /* y bf16, y += bf16(sum) */
    SKINNY_GLU   /* y[M, ff] bf16 = silu(gate) * up */
} skinny_out;

typedef struct {
    const uint8_t *w; /* records.cuh */
    int rows, K;      /* true ones */
    int tiles, groups;
    int P, S;      /* groups a slab, slabs */
    int ff;        /* tiles hold 8 gate and 8 up rows of ff; 0: 16 rows in order */
    const bf16 *x; /* [M][ldx] */
    int M, ldx;
    bool x16;          /* rows of x may be read 16 bytes at a time */
    const float *norm; /* [K] RMSNorm weight, or NULL: x as it is */
    float eps;
    const float *bias; /* [rows] or NULL */
    void *y;           /* [M][ldy] */
    int ldy;
    skinny_out out;
    float *partial;   /* [S][tiles][M > 8 ? 2 : 1][128] */
    float *square;    /* [S][16] sums of squares of x, with a norm */
    unsigned *ticket; /* [tiles], zero before and after */
    bool deep;        /* set by the launcher: the longer of the format's two rings */
} skinny_args;

/* P and S of a weight of that many tiles and groups.  Slabs of eight groups, one a warp, unless
 * there are too few of them to keep a large device busy. */
static inline void skinny_cut(int tiles, int groups, int *P, int *S)
{
    enum { WANTED_UNITS = 264 }; /* two for every multiprocessor of the largest devices */
    int64_t p = (int64_t)tiles * groups / WANTED_UNITS;
    *P = p < 2 ? 2 : p > SKINNY_WARPS ? SKINNY_WARPS : (int)p;
    *S = (groups + *P - 1) / *P;
    *P = (groups + *S - 1) / *S; /* the last slab may be the smaller one */
    *S = (groups + *P - 1) / *P;
}
static inline size_t skinny_partial_bytes(int tiles, int S)
{
    return (size_t)tiles * (size_t)S * 2 * 128 * sizeof(float);
}
/* Work space of one launch: the partial sums and the sums of squares. */
static inline size_t skinny_work_bytes(int tiles, int S)
{
    return skinny_partial_bytes(tiles, S) + (size_t)S * SKINNY_ROWS * sizeof(float);
}

void skinny_dense(cuda_state *st, int type, skinny_args a);   /* BF16 F16 */
void skinny_nibbles(cuda_state *st, int type, skinny_args a); /* Q4_0 Q4_1 Q4_K Q2_K Q3_K */
void skinny_planes(cuda_state *st, int type, skinny_args a);  /* Q5_0 Q5_1 Q5_K Q6_K Q8_0 */
void skinny_tables(cuda_state *st, int type, skinny_args a);  /* IQ4_NL IQ4_XS MXFP4 NVFP4 */

#endif
