/* attention.c - plans paged attention: which query rows meet which KV head together, and who
 * computes what.
 *
 * The rows of a sequence that read one KV head (its tokens times the heads of the group) are cut
 * into tiles.  Most tiles are one work item.  A tile that alone is a large part of the step (one
 * long decode) is split: its chunks are items, their parts are stored, and whoever finishes last
 * folds them in order.  Both ways do the same float operations, so they give the same bits.
 * Stored parts live in a fixed arena; a context too long for it is done in several windows of
 * chunks.
 * Refuses: head dims above CPU_HEAD_DIM_MAX (a latched fault).  Thread: as a backend. */
#include "kernels/cpu/attention.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum {
    /* A tile above 1/(4 threads) of all work is split, so there are at most 4 threads of them. */
    SPLIT_SHARE = 4,
    /* Multiply-adds of scores (rows x positions x dim) below which sharing costs more than it
     * saves: about 3 us. */
    SHARE_MACS = 60000
};
static const size_t ARENA_BYTES = 16u << 20; /* stored parts, at least: 7000 of a 0.5B model */

typedef struct {
    int seq, head, row0, rows;
    int n_chunks;
    atomic_int left; /* chunks of this window not done */
} split_tile;

struct attn_work {
    int threads, max_split;
    attn_tile *tiles; /* [threads] */
    float *parts;     /* [threads][2 parts] */
    float *arena;     /* stored parts */
    size_t arena_bytes;
    float *totals;     /* [max_split] parts: of split tiles */
    split_tile *split; /* [max_split] */
};

typedef struct {
    pool_queue queue;
    const attn_ops *op;
    struct attn_work *work;
    tensor o, qkv;
    kv_view kv;
    const batch *b;
    int heads, group, head_dim; /* group = query heads per KV head */
    int tile_rows;
    double split_above;          /* cost */
    int n_split, window, chunk0; /* split tiles; chunks [chunk0, chunk0 + window) are in turn */
    int n_items;                 /* all items: split_items, then whole tiles if chunk0 is 0 */
    int split_items;
} attn_job;

static size_t part_stride(void)
{
    return attn_part_floats(ATTN_DIM);
}

struct attn_work *attn_work_new(int threads)
{
    struct attn_work *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->threads = threads;
    w->max_split = SPLIT_SHARE * threads;
    w->tiles = aligned_alloc(64, (size_t)threads * sizeof *w->tiles);
    w->parts = aligned_alloc(64, (size_t)threads * 2 * part_stride() * sizeof(float));
    w->arena_bytes = (size_t)w->max_split * part_stride() * sizeof(float);
    if (w->arena_bytes < ARENA_BYTES) w->arena_bytes = ARENA_BYTES;
    w->arena = aligned_alloc(64, w->arena_bytes);
    w->totals = aligned_alloc(64, (size_t)w->max_split * part_stride() * sizeof(float));
    w->split = calloc((size_t)w->max_split, sizeof *w->split);
    if (w->tiles && w->parts && w->arena && w->totals && w->split) return w;
    attn_work_free(w);
    return NULL;
}

void attn_work_free(struct attn_work *w)
{
    if (!w) return;
    free(w->tiles);
    free(w->parts);
    free(w->arena);
    free(w->totals);
    free(w->split);
    free(w);
}

void attn_work_limit(struct attn_work *w, size_t bytes)
{
    assert(bytes <= w->arena_bytes);
    w->arena_bytes = bytes;
}

/* ---- tiles --------------------------------------------------------------------------------------
 */

/* Row i of a sequence and KV head: token i / group, query head i % group of the group. */
static int seq_rows(const attn_job *j, int seq)
{
    return (j->b->seq_start[seq + 1] - j->b->seq_start[seq]) * j->group;
}
static int seq_tiles(const attn_job *j, int seq)
{
    return (seq_rows(j, seq) + j->tile_rows - 1) / j->tile_rows;
}
/* Rows of tile t: the tiles of a sequence differ by at most one row. */
static void tile_span(const attn_job *j, int seq, int t, int *row0, int *rows)
{
    int64_t all = seq_rows(j, seq), n = seq_tiles(j, seq);
    *row0 = (int)(all * t / n);
    *rows = (int)(all * (t + 1) / n) - *row0;
}
/* The last position that a row sees. */
static int row_pos(const attn_job *j, int seq, int row)
{
    if (j->b->full) return j->b->ctx_len[seq] - 1;
    return j->b->pos[j->b->seq_start[seq] + row / j->group];
}
static double tile_cost(const attn_job *j, int seq, int row0, int rows)
{
    return (double)rows * (row_pos(j, seq, row0 + rows - 1) + 1);
}

static void load_tile(const attn_job *j, attn_tile *w, int seq, int head, int row0, int rows)
{
    w->n = rows;
    for (int r = 0; r < rows; r++) {
        int tok = j->b->seq_start[seq] + (row0 + r) / j->group;
        int h = head * j->group + (row0 + r) % j->group;
        j->op->load_row(w, &j->kv, r, tensor_row(j->qkv, tok) + (size_t)h * (size_t)j->head_dim,
                        j->head_dim, row_pos(j, seq, row0 + r));
    }
}

static void write_tile(const attn_job *j, attn_part total, int seq, int head, int row0, int rows)
{
    for (int r = 0; r < rows; r++) {
        int tok = j->b->seq_start[seq] + (row0 + r) / j->group;
        int h = head * j->group + (row0 + r) % j->group;
        j->op->finish(&j->kv, total, r, tensor_row(j->o, tok) + (size_t)h * (size_t)j->head_dim,
                      j->head_dim);
    }
}

static const int32_t *table_of(const attn_job *j, int seq)
{
    return j->b->block_table + (size_t)seq * (size_t)j->b->max_blocks;
}

static void whole_tile(const attn_job *j, int id, int seq, int head, int t)
{
    attn_tile *w = j->work->tiles + id;
    attn_part part = attn_part_at(j->work->parts + (size_t)id * 2 * part_stride());
    attn_part total = attn_part_at(j->work->parts + ((size_t)id * 2 + 1) * part_stride());
    int row0, rows;
    tile_span(j, seq, t, &row0, &rows);
    if (tile_cost(j, seq, row0, rows) > j->split_above) return; /* among the split ones */
    load_tile(j, w, seq, head, row0, rows);
    int last = w->pos[rows - 1];
    for (int c0 = 0; c0 <= last; c0 += ATTN_CHUNK) {
        j->op->chunk(w, &j->kv, table_of(j, seq), head, c0, part);
        j->op->fold(w, j->kv.dim, c0, part, total);
    }
    write_tile(j, total, seq, head, row0, rows);
}

/* ---- split tiles --------------------------------------------------------------------------------
 */

static attn_part stored_part(const attn_job *j, int s, int chunk)
{
    size_t at = (size_t)s * (size_t)j->window + (size_t)(chunk - j->chunk0);
    return attn_part_at(j->work->arena + at * attn_part_floats(j->kv.dim));
}

static void fold_window(const attn_job *j, const attn_tile *w, int s)
{
    const split_tile *t = &j->work->split[s];
    attn_part total = attn_part_at(j->work->totals + (size_t)s * part_stride());
    int end = j->chunk0 + j->window < t->n_chunks ? j->chunk0 + j->window : t->n_chunks;
    for (int c = j->chunk0; c < end; c++)
        j->op->fold(w, j->kv.dim, c * ATTN_CHUNK, stored_part(j, s, c), total);
    if (end == t->n_chunks) write_tile(j, total, t->seq, t->head, t->row0, t->rows);
}

static void split_chunk(const attn_job *j, int id, int item)
{
    int s = item % j->n_split, chunk = j->chunk0 + item / j->n_split;
    split_tile *t = &j->work->split[s];
    if (chunk >= t->n_chunks) return;
    attn_tile *w = j->work->tiles + id;
    load_tile(j, w, t->seq, t->head, t->row0, t->rows);
    j->op->chunk(w, &j->kv, table_of(j, t->seq), t->head, chunk * ATTN_CHUNK,
                 stored_part(j, s, chunk));
    if (atomic_fetch_sub_explicit(&t->left, 1, memory_order_acq_rel) == 1) fold_window(j, w, s);
}

/* Lists the tiles above j->split_above; returns the chunks of the longest. */
static int list_split_tiles(attn_job *j)
{
    int longest = 0;
    j->n_split = 0;
    for (int seq = 0; seq < j->b->n_seq; seq++)
        for (int t = 0; t < seq_tiles(j, seq); t++) {
            int row0, rows;
            tile_span(j, seq, t, &row0, &rows);
            if (tile_cost(j, seq, row0, rows) <= j->split_above) continue;
            int n = row_pos(j, seq, row0 + rows - 1) / ATTN_CHUNK + 1;
            longest = n > longest ? n : longest;
            for (int h = 0; h < j->kv.kv_heads; h++) {
                assert(j->n_split < j->work->max_split);
                split_tile *s = &j->work->split[j->n_split++];
                s->seq = seq, s->head = h, s->row0 = row0, s->rows = rows, s->n_chunks = n;
            }
        }
    return longest;
}

/* ---- the step -----------------------------------------------------------------------------------
 */

/* Whole tiles are numbered sequence by sequence, head by head, the longest (last) tile first.  The
 * items a worker takes only rise, so each finds its sequence by walking on. */
static void attend(void *arg, int id, int n)
{
    (void)n;
    attn_job *j = arg;
    int seq = 0, first = j->split_items; /* item of the sequence's first tile */
    for (int i; (i = pool_take(&j->queue, j->n_items)) >= 0;) {
        if (i < j->split_items) {
            split_chunk(j, id, i);
            continue;
        }
        int tiles = seq_tiles(j, seq);
        while (i - first >= tiles * j->kv.kv_heads) {
            first += tiles * j->kv.kv_heads;
            tiles = seq_tiles(j, ++seq);
        }
        whole_tile(j, id, seq, (i - first) / tiles, tiles - 1 - (i - first) % tiles);
    }
}

/* Runs chunks [chunk0, chunk0 + window) of the split tiles, and with the first all other tiles. */
static void run_window(attn_job *j, pool *p, int whole_items, int longest, bool alone)
{
    int window = longest - j->chunk0 < j->window ? longest - j->chunk0 : j->window;
    for (int s = 0; s < j->n_split; s++) {
        split_tile *t = &j->work->split[s];
        int left = t->n_chunks - j->chunk0;
        atomic_store_explicit(&t->left, left < window ? left : window, memory_order_relaxed);
    }
    j->split_items = j->n_split * window;
    j->n_items = j->split_items + (j->chunk0 == 0 ? whole_items : 0);
    pool_queue_init(&j->queue);
    if (alone) pool_run_alone(p, attend, j);
    else pool_run(p, attend, j);
}

void cpu_attn_paged(backend *be, tensor o, tensor qkv, int heads, const kv_pages *kv,
                    const batch *b)
{
    cpu_state *cpu = cpu_of(be);
    if (kv->head_dim > CPU_HEAD_DIM_MAX) {
        k_fault(be, "attn_paged", "head_dim %d is above %d", kv->head_dim, CPU_HEAD_DIM_MAX);
        return;
    }
    attn_job j = {.op = cpu->attn,
                  .work = cpu->attn_work,
                  .o = o,
                  .qkv = qkv,
                  .kv = kv_view_of(kv),
                  .b = b,
                  .heads = heads,
                  .group = heads / kv->kv_heads,
                  .head_dim = kv->head_dim,
                  .tile_rows = cpu->attn->tile_rows};
    double cost = 0; /* rows x positions of one KV head */
    int whole_items = 0;
    for (int s = 0; s < b->n_seq; s++) {
        int rows = seq_rows(&j, s), tiles = seq_tiles(&j, s);
        cost += (double)rows * (row_pos(&j, s, rows - 1) + 1);
        whole_items += tiles * kv->kv_heads;
    }
    bool alone = pool_threads(cpu->pool) == 1 || cost * kv->kv_heads * j.kv.dim < SHARE_MACS;
    j.split_above =
        alone ? HUGE_VAL : cost * kv->kv_heads / (SPLIT_SHARE * pool_threads(cpu->pool));
    int longest = alone ? 0 : list_split_tiles(&j);
    if (j.n_split) {
        size_t room =
            j.work->arena_bytes / (attn_part_floats(j.kv.dim) * sizeof(float)) / (size_t)j.n_split;
        assert(room > 0);
        j.window = room < (size_t)longest ? (int)room : longest;
    }
    do {
        run_window(&j, cpu->pool, whole_items, longest, alone);
        j.chunk0 += j.window;
    } while (j.chunk0 < longest);
}
