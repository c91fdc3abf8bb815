/* linear.h - what the files of the CUDA products share: how rows of a weight map to segments and
 * tiles, and the sizes of the work space.
 * Owns nothing.  Refuses nothing.  Thread: the rank's; linear_find also on the device. */
#ifndef QUERN_KERNELS_CUDA_LINEAR_H
#define QUERN_KERNELS_CUDA_LINEAR_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/records.cuh"
#include "kernels/cuda/skinny.h"

/* A weight as kernels see it.  seg[].type is the stored one: never F32. */
typedef struct {
    int out, in, groups;
    int ff; /* of gate and up interleaved in tiles of one segment; else 0 */
    int n_seg;
    struct {
        const uint8_t *w;
        int type, row0, rows;
    } seg[WEIGHT_MAX_SEG];
} linear_rows;

typedef struct {
    int seg, row; /* packed row: tile * 16 + row in the tile */
} linear_place;

/* Where row r (0..out - 1) of the weight lies. */
CU_HFN linear_place linear_find(const linear_rows *w, int r)
{
    if (w->ff) {
        int j = r < w->ff ? r : r - w->ff;
        return {0, j / 8 * TILE_ROWS + j % 8 + (r < w->ff ? 0 : 8)};
    }
    int s = 0;
    while (s + 1 < w->n_seg && r >= w->seg[s + 1].row0) s++;
    return {s, r - w->seg[s].row0};
}

/* What a source type is stored as. */
static inline int linear_stored(int type)
{
    return type == DT_F32 ? (int)DT_BF16 : type;
}
static inline int linear_groups(int in)
{
    return (in + GROUP_K - 1) / GROUP_K;
}
static inline int linear_tiles(int rows)
{
    return (rows + TILE_ROWS - 1) / TILE_ROWS;
}
/* Gate and up share tiles: both parts have one type. */
static inline bool linear_interleaved(const weight *w)
{
    return w->join == JOIN_GLU && w->n_seg == 1;
}
/* Tiles of segment s: of interleaved rows 8 + 8 a tile. */
static inline int linear_seg_tiles(const weight *w, int s)
{
    return linear_interleaved(w) ? (w->out / 2 + 7) / 8 : linear_tiles(w->seg[s].rows);
}

static inline linear_rows linear_rows_of(const weight *w)
{
    linear_rows r = {};
    r.out = w->out;
    r.in = w->in;
    r.groups = linear_groups(w->in);
    r.ff = linear_interleaved(w) ? w->out / 2 : 0;
    r.n_seg = w->n_seg;
    for (int i = 0; i < w->n_seg; i++) {
        r.seg[i].w = (const uint8_t *)w->seg[i].data;
        r.seg[i].type = linear_stored(w->seg[i].type);
        r.seg[i].row0 = w->seg[i].row0;
        r.seg[i].rows = w->seg[i].rows;
    }
    return r;
}

/* Asks for the work space and tickets that products with w may need (linear.cu). */
int linear_need_work(backend *be, const weight *w, err *e);

#endif
