/* linear.cu - the products of the seam for any number of rows.
 *
 *   up to 16 rows            skinny.cuh: one pass over the packed weights, everything fused
 *   block types up to 64     the same, 16 rows at a time: four passes over 4- to 8-bit weights move
 *                            fewer bytes than a bf16 panel that is written and read
 *   more                     the library's product on BF16 weights as they lie, on panels of other
 *                            types dequantised to bf16; norm, bias, gate and up by kernels around
 * it invariant                skinny.cuh for every number of rows, 16 at a time
 *
 * Residual rows are rounded as Hugging Face does in bf16: y += bf16(W x + b).  A bias that enters a
 * library product is rounded to bf16 first, which is what checkpoints store.
 *
 * Owns nothing; the work space is the backend's.  Refuses nothing: kernels.c has checked shapes.
 * Thread: the rank's. */
#include "kernels/cuda/linear_panel.cuh"

#include <assert.h>

enum {
    PASSES = 4,              /* of SKINNY_ROWS over block types */
    LARGE_ROWS = 2048,       /* rows a library product takes at a time */
    NORMED_BYTES = 32 << 20, /* of normalised rows, at least 256 of them */
    PANEL_BYTES = 144 << 20, /* of a panel, at least 1024 rows for the library to be fast */
    PANEL_MAX_ROWS = 8192,   /* bounds the products of a panel that wait to be added */
    MIXED_BYTES = 64 << 20   /* of gate and up whose types differ */
};

typedef struct {
    cuda_state *st;
    backend *be;
    const weight *w;
    linear_rows rows;
    tensor x;
    const vec *norm; /* or NULL */
    float eps;
    tensor y;
    split_mode out;
} product;

/* Rows [r, r + n) and columns [c, c + cols) of a tensor. */
static tensor part_of(tensor t, int r, int n, int c, int cols)
{
    size_t at = (size_t)r * (size_t)t.ld + (size_t)c;
    t.ptr = (char *)t.ptr + at * (t.type == ACT_F32 ? sizeof(float) : sizeof(bf16));
    t.rows = n;
    t.cols = cols;
    return t;
}

/* ---- work space --------------------------------------------------------------------------- */

static size_t up_to(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}
static int clamp(size_t n, int low, int high)
{
    return n < (size_t)low ? low : n > (size_t)high ? high : (int)n;
}
static bool only_blocks(const weight *w)
{
    for (int i = 0; i < w->n_seg; i++)
        if (record_dense(linear_stored(w->seg[i].type))) return false;
    return true;
}
/* Rows of normalised x at a time. */
static int normed_rows(int in)
{
    return clamp(NORMED_BYTES / (sizeof(bf16) * (size_t)in), 256, LARGE_ROWS);
}
/* Tiles of a panel. */
static int panel_tiles(const weight *w, int seg)
{
    size_t row = (size_t)linear_groups(w->in) * GROUP_K * sizeof(bf16);
    int tiles = clamp(PANEL_BYTES / row, 1024, PANEL_MAX_ROWS) / TILE_ROWS;
    int all = linear_seg_tiles(w, seg);
    return tiles < all ? tiles : all;
}
/* Where the parts of the work space of a product of many rows begin. */
typedef struct {
    size_t normed, product, panel, end;
} large_room;
static large_room large_room_of(const weight *w)
{
    large_room r = {};
    size_t panel = 0, tmp = 0, row = (size_t)linear_groups(w->in) * GROUP_K * sizeof(bf16);
    for (int i = 0; i < w->n_seg; i++) {
        size_t rows = (size_t)panel_tiles(w, i) * TILE_ROWS;
        if (rows > tmp) tmp = rows;
        if (linear_stored(w->seg[i].type) != DT_BF16 && rows * row > panel) panel = rows * row;
    }
    r.product = up_to((size_t)normed_rows(w->in) * up_to((size_t)w->in, 8) * sizeof(bf16), 256);
    r.panel = r.product + up_to(LARGE_ROWS * tmp * sizeof(bf16), 256);
    r.end = r.panel + up_to(panel, 256);
    return r;
}
static size_t skinny_room(const weight *w, int *max_tiles)
{
    size_t bytes = 0;
    *max_tiles = 0;
    for (int i = 0; i < w->n_seg; i++) {
        int tiles = linear_seg_tiles(w, i), P, S;
        skinny_cut(tiles, linear_groups(w->in), &P, &S);
        size_t need = skinny_work_bytes(tiles, S);
        if (need > bytes) bytes = need;
        if (tiles > *max_tiles) *max_tiles = tiles;
    }
    return up_to(bytes, 256);
}
/* Gate and up of two types: rows at a time, and where they wait for the glu. */
static int mixed_rows(const weight *w)
{
    return clamp(MIXED_BYTES / (sizeof(bf16) * (size_t)w->out), SKINNY_ROWS, LARGE_ROWS);
}
static size_t product_room(const cuda_state *st, const weight *w, int *tiles)
{
    size_t skinny = skinny_room(w, tiles), large = st->invariant ? 0 : large_room_of(w).end;
    return skinny > large ? skinny : large;
}

int linear_need_work(backend *be, const weight *w, err *e)
{
    int tiles;
    size_t bytes = product_room(cuda_of(be), w, &tiles);
    if (w->join == JOIN_GLU && !linear_interleaved(w))
        bytes += (size_t)mixed_rows(w) * up_to((size_t)w->out, 8) * sizeof(bf16);
    return cuda_need_work(be, bytes, tiles, e);
}

/* ---- few rows ----------------------------------------------------------------------------- */

static void launch_skinny(cuda_state *st, int type, const skinny_args &a)
{
    record_traits t = record_of(type);
    if (t.bits == 16) skinny_dense(st, type, a);
    else if (t.table != TABLE_NONE) skinny_tables(st, type, a);
    else if (t.bits == 4 && t.plane == 0) skinny_nibbles(st, type, a);
    else skinny_planes(st, type, a);
}

/* At most 16 rows of x against segment s. */
static void few_rows(const product *p, int s, tensor x, tensor y)
{
    cuda_state *st = p->st;
    skinny_args a = {};
    a.w = p->rows.seg[s].w;
    a.rows = p->rows.seg[s].rows;
    a.K = p->w->in;
    a.tiles = linear_seg_tiles(p->w, s);
    a.groups = p->rows.groups;
    skinny_cut(a.tiles, a.groups, &a.P, &a.S);
    a.ff = p->rows.ff;
    a.x = (const bf16 *)x.ptr;
    a.M = x.rows;
    a.ldx = x.ld;
    a.x16 = (uintptr_t)x.ptr % 16 == 0 && x.ld % 8 == 0;
    if (p->norm) a.norm = p->norm->v, a.eps = p->eps;
    if (p->w->bias) a.bias = p->w->bias + p->rows.seg[s].row0;
    a.y = y.ptr;
    a.ldy = y.ld;
    a.out = p->out == SPLIT_GLU   ? SKINNY_GLU
            : p->out == SPLIT_ADD ? SKINNY_ADD
            : y.type == ACT_F32   ? SKINNY_F32
                                  : SKINNY_BF16;
    a.partial = (float *)st->work;
    a.square = (float *)((char *)st->work + skinny_partial_bytes(a.tiles, a.S));
    a.ticket = st->ticket;
    assert(skinny_work_bytes(a.tiles, a.S) <= st->work_bytes && a.tiles <= st->n_ticket);
    launch_skinny(st, p->rows.seg[s].type, a);
}

static void skinny_product(const product *p)
{
    for (int r = 0; r < p->x.rows; r += SKINNY_ROWS) {
        int n = p->x.rows - r < SKINNY_ROWS ? p->x.rows - r : SKINNY_ROWS;
        tensor x = part_of(p->x, r, n, 0, p->x.cols);
        for (int s = 0; s < p->rows.n_seg; s++) {
            int cols = p->rows.ff ? p->y.cols : p->rows.seg[s].rows;
            few_rows(p, s, x, part_of(p->y, r, n, p->rows.seg[s].row0, cols));
        }
    }
}

/* ---- many rows ---------------------------------------------------------------------------- */

/* Tiles [tile, tile + n) of segment s: y (or what becomes of it) from x as it is. */
static void panel_product(const product *p, int s, int tile, int n, tensor x, tensor y)
{
    const cuda_state *st = p->st;
    const large_room room = large_room_of(p->w);
    const int ld = p->rows.groups * GROUP_K, col = p->rows.seg[s].row0 + tile * TILE_ROWS;
    const float *bias = p->w->bias;
    int cols = n * TILE_ROWS;
    if (!p->rows.ff && cols > p->rows.seg[s].rows - tile * TILE_ROWS)
        cols = p->rows.seg[s].rows - tile * TILE_ROWS;
    const bf16 *w = (const bf16 *)p->rows.seg[s].w + (size_t)tile * TILE_ROWS * (size_t)ld;
    if (p->rows.seg[s].type != DT_BF16) {
        bf16 *panel = (bf16 *)((char *)st->work + room.panel);
        panel_make(p->st, panel, &p->rows, s, tile, n);
        w = panel;
    }
    bool direct = !p->rows.ff && p->out == SPLIT_SET;
    tensor t = {(char *)st->work + room.product, x.rows, cols, n * TILE_ROWS, y.type};
    if (direct) t = part_of(y, 0, y.rows, col, cols);
    bool fill = bias && !p->rows.ff;
    if (fill) panel_fill_bias(p->st, t, bias + col);
    cuda_gemm_run(p->be, t.ptr, t.ld, t.type, fill, x.ptr, x.ld, w, ld, x.rows, cols, x.cols);
    if (p->rows.ff) panel_split(p->st, y, t, tile, p->rows.ff, bias, p->out);
    else if (!direct) cuda_add(p->be, part_of(y, 0, y.rows, col, cols), t);
}

static void large_product(const product *p)
{
    int step = p->norm ? normed_rows(p->w->in) : LARGE_ROWS;
    /* f32 products of gate and up take twice the room */
    if (p->y.type == ACT_F32 && p->rows.ff && step > LARGE_ROWS / 2) step = LARGE_ROWS / 2;
    for (int r = 0; r < p->x.rows; r += step) {
        int n = p->x.rows - r < step ? p->x.rows - r : step;
        tensor x = part_of(p->x, r, n, 0, p->x.cols), y = part_of(p->y, r, n, 0, p->y.cols);
        if (p->norm) {
            tensor normed = {p->st->work, n, x.cols, (int)up_to((size_t)x.cols, 8), ACT_BF16};
            cuda_rms_norm(p->be, normed, x, p->norm, p->eps);
            x = normed;
        }
        for (int s = 0; s < p->rows.n_seg; s++) {
            bool whole = p->rows.seg[s].type == DT_BF16 && !p->rows.ff && p->out == SPLIT_SET;
            int tiles = linear_seg_tiles(p->w, s), some = whole ? tiles : panel_tiles(p->w, s);
            for (int t = 0; t < tiles; t += some)
                panel_product(p, s, t, tiles - t < some ? tiles - t : some, x, y);
        }
    }
}

/* ---- ops ---------------------------------------------------------------------------------- */

static void run_product(backend *be, tensor y, tensor x, const vec *norm, float eps,
                        const weight *w, split_mode out)
{
    cuda_state *st = cuda_of(be);
    product p = {st, be, w, linear_rows_of(w), x, norm, eps, y, out};
    if (x.rows == 0) return;
    int few = only_blocks(w) ? PASSES * SKINNY_ROWS : SKINNY_ROWS;
    if (st->invariant || x.rows <= few) skinny_product(&p);
    else large_product(&p);
}

void cuda_linear(backend *be, tensor y, tensor x, const weight *w)
{
    run_product(be, y, x, NULL, 0, w, SPLIT_SET);
}
void cuda_norm_linear(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w)
{
    run_product(be, y, x, norm, eps, w, SPLIT_SET);
}
void cuda_linear_add(backend *be, tensor y, tensor x, const weight *w)
{
    run_product(be, y, x, NULL, 0, w, SPLIT_ADD);
}

void cuda_norm_glu(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w)
{
    if (linear_interleaved(w)) {
        run_product(be, y, x, norm, eps, w, SPLIT_GLU);
        return;
    }
    cuda_state *st = cuda_of(be);
    int tiles, step = mixed_rows(w), ld = (int)up_to((size_t)w->out, 8);
    char *room = (char *)st->work + product_room(st, w, &tiles);
    for (int r = 0; r < x.rows; r += step) {
        int n = x.rows - r < step ? x.rows - r : step;
        tensor both = {room, n, w->out, ld, ACT_BF16};
        run_product(be, both, part_of(x, r, n, 0, x.cols), norm, eps, w, SPLIT_SET);
        cuda_glu(be, part_of(y, r, n, 0, y.cols), both);
    }
}
