/* batch.c - owns the step's arrays on the device and the pinned blocks they come from: two copies
 * a step (arrays with packed tables, plan), to addresses that never change, so that a recorded pass
 * finds the next step's numbers where the first one had its own. A step in which every sequence
 * adds one generated row is padded to a bucket with rows that do nothing; any other step keeps its
 * size.  Refuses: limits that memory cannot hold. Thread: the rank's. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/own.h"

#include <assert.h>
#include <string.h>

enum { ALIGN_WORDS = 64 }; /* 256 bytes, what a copy engine likes best */

static const int steps[] = {1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};
enum { N_STEPS = sizeof steps / sizeof *steps };

int cuda_buckets(const batch_limits *l, int size[MAX_BUCKETS])
{
    int most = l->max_seqs < l->max_tok ? l->max_seqs : l->max_tok, n = 0;
    if (most > l->max_out) most = l->max_out;
    if (most > steps[N_STEPS - 1]) most = steps[N_STEPS - 1];
    while (n < N_STEPS && steps[n] < most) {
        size[n] = steps[n];
        n++;
    }
    size[n] = most;
    return n + 1;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static size_t place(size_t *at, size_t words)
{
    size_t here = *at;
    *at = (here + words + ALIGN_WORDS - 1) / ALIGN_WORDS * ALIGN_WORDS;
    return here;
}

static batch_layout layout_of(const batch_limits *l)
{
    size_t tok = (size_t)l->max_tok, seqs = (size_t)l->max_seqs, at = 0;
    batch_layout y;
    y.tok = place(&at, tok);
    y.pos = place(&at, tok);
    y.slot = place(&at, tok);
    y.seq_start = place(&at, seqs + 1);
    y.ctx_len = place(&at, seqs);
    y.n_prompt = place(&at, seqs);
    y.out_row = place(&at, (size_t)l->max_out + (size_t)l->max_state);
    y.pool = place(&at, l->max_state ? seqs * (sizeof(pool_span) / sizeof(int32_t)) : 0);
    y.table_start = place(&at, seqs + 1);
    y.packed = place(&at, seqs * (size_t)l->max_blocks);
    y.plan = place(&at, cuda_plan_words(l));
    y.words = at;
    return y;
}

void cuda_batch_release(backend *be)
{
    cuda_state *st = cuda_of(be);
    cuda_own *own = own_of(be);
    batch_room *r = &own->room;
    cuda_sampler_close(be, own->sampler);
    own->sampler = NULL;
    for (int i = 0; i < SAMPLES_OPEN; i++) {
        cuda_free_pinned(be, own->fetch[i].pinned);
        own->fetch[i].pinned = NULL;
    }
    for (int i = 0; i < BATCH_BLOCKS; i++) {
        cuda_free_pinned(be, r->host[i]);
        gpu_event_free(r->copied[i]);
    }
    cuda_free_raw(be, r->dev);
    cuda_free_raw(be, r->table);
    cuda_free_raw(be, st->drawn);
    *r = (batch_room){0};
    st->drawn = NULL;
    st->plan = st->plan_h = NULL;
    own->n_pass = 0;
}

static int alloc_room(backend *be, const batch_limits *l, err *e)
{
    cuda_state *st = cuda_of(be);
    batch_room *r = &own_of(be)->room;
    size_t bytes = r->at.words * sizeof(int32_t);
    size_t table = (size_t)l->max_seqs * (size_t)l->max_blocks * sizeof(int32_t);
    bool ok = true;
    size_t fetch = l->max_state ? (size_t)l->max_seqs * (((size_t)l->hidden + 15) / 16 * 16) : 0;
    for (int i = 0; i < SAMPLES_OPEN && fetch; i++)
        ok = ok && (own_of(be)->fetch[i].pinned = cuda_alloc_pinned(be, fetch * sizeof(float)));
    for (int i = 0; i < BATCH_BLOCKS; i++) {
        ok = ok && (r->host[i] = cuda_alloc_pinned(be, bytes));
        ok = ok && (r->copied[i] = gpu_event_new(st->dev, false));
    }
    ok = ok && (r->dev = cuda_alloc_raw(be, bytes)) && (r->table = cuda_alloc_raw(be, table));
    ok = ok && (st->drawn = cuda_alloc_raw(be, (size_t)l->max_out * sizeof *st->drawn));
    if (ok) return 0;
    return err_set(e, ERR_NOMEM,
                   "%s: no memory for the arrays of a step of %d sequences of %d blocks: lower "
                   "--max-num-seqs or --max-model-len",
                   be->op->name, l->max_seqs, l->max_blocks);
}

int cuda_batch_reserve(backend *be, const batch_limits *l, err *e)
{
    cuda_state *st = cuda_of(be);
    cuda_own *own = own_of(be);
    assert(l->max_tok > 0 && l->max_seqs > 0 && l->max_out > 0 && l->max_blocks > 0);
    int rc = cuda_drain(be);
    if (rc) return err_set(e, rc, "%s", be->fault);
    cuda_graphs_drop(be);
    cuda_batch_release(be);
    st->limits = *l;
    own->room.at = layout_of(l);
    rc = alloc_room(be, l, e);
    if (!rc && !(own->sampler = cuda_sampler_open(be, l, e)))
        rc = e && e->code ? e->code : ERR_NOMEM;
    if (!rc && l->heads) rc = cuda_attn_need(be, l, l->heads, l->kv_heads, l->head_dim, e);
    if (rc) {
        cuda_batch_release(be);
        return rc;
    }
    gpu_memset_async(st->drawn, 0, (size_t)l->max_out * sizeof *st->drawn, st->stream);
    st->plan = own->room.dev + own->room.at.plan;
    int size[MAX_BUCKETS];
    own->n_pass = cuda_buckets(l, size);
    for (int i = 0; i < own->n_pass; i++) own->pass[i] = (recorded_pass){.size = size[i]};
    return 0;
}

/* ---- one step -------------------------------------------------------------------------------- */

/* Rows this step is padded to; 0: it is no pure decode step, or larger than every bucket. */
static int bucket_of(const cuda_own *own, const batch *b)
{
    if (!b->n_prompt || b->n_tok != b->n_seq || b->n_out != b->n_seq || b->n_state || b->n_pool)
        return 0;
    for (int i = 0; i < b->n_seq; i++)
        if (b->pos[i] < b->n_prompt[i]) return 0;
    for (int i = 0; i < own->n_pass; i++)
        if (own->pass[i].size >= b->n_seq) return own->pass[i].size;
    return 0;
}

/* v[n] and zeros up to `rows`. */
static void put(int32_t *to, const int32_t *v, int n, int rows)
{
    memcpy(to, v, (size_t)n * sizeof *v);
    memset(to + n, 0, (size_t)(rows - n) * sizeof *v);
}

/* Writes the padded step into a pinned block; *p becomes the step seen from there.  Returns the
 * words in use before the plan. */
static size_t fill(const batch_layout *at, int kv_block, const batch *b, int rows, int32_t *h,
                   batch *p)
{
    int more = rows - b->n_tok, seqs = b->n_seq + more, out = b->n_out + more;
    int32_t *start = h + at->seq_start, *prompt = h + at->n_prompt, *row = h + at->out_row;
    int32_t *first = h + at->table_start, used = 0;
    put(h + at->tok, b->tok, b->n_tok, rows);
    put(h + at->pos, b->pos, b->n_tok, rows);
    put(h + at->slot, b->slot, b->n_tok, rows);
    put(h + at->ctx_len, b->ctx_len, b->n_seq, seqs);
    memcpy(start, b->seq_start, (size_t)(b->n_seq + 1) * sizeof *start);
    memcpy(row, b->out_row, (size_t)(b->n_out + b->n_state) * sizeof *row);
    if (b->n_pool) memcpy(h + at->pool, b->pool, (size_t)b->n_pool * sizeof *b->pool);
    for (int i = 0; i < more; i++) {
        start[b->n_seq + 1 + i] = b->n_tok + 1 + i;
        row[b->n_out + i] = b->n_tok + i;
    }
    for (int s = 0; s < seqs; s++)
        prompt[s] = s >= b->n_seq ? 0 : b->n_prompt ? b->n_prompt[s] : INT32_MAX;
    for (int s = 0; s < seqs; s++) {
        int n = s < b->n_seq ? (b->ctx_len[s] + kv_block - 1) / kv_block : 0;
        first[s] = used;
        if (n)
            memcpy(h + at->packed + used, b->block_table + (size_t)s * (size_t)b->max_blocks,
                   (size_t)n * sizeof *h);
        used += n;
    }
    first[seqs] = used;
    *p = (batch){.n_tok = rows,
                 .n_seq = seqs,
                 .n_out = out,
                 .n_state = b->n_state,
                 .n_pool = b->n_pool,
                 .full = b->full,
                 .tok = h + at->tok,
                 .pos = h + at->pos,
                 .slot = h + at->slot,
                 .seq_start = start,
                 .ctx_len = h + at->ctx_len,
                 .out_row = row,
                 .n_prompt = prompt};
    return at->packed + (size_t)used;
}

void cuda_batch_upload(backend *be, const batch *b, batch *device)
{
    cuda_state *st = cuda_of(be);
    cuda_own *own = own_of(be);
    batch_room *r = &own->room;
    const batch_layout *at = &r->at;
    const batch_limits *l = &st->limits;
    assert(r->dev && b->n_tok <= l->max_tok && b->n_seq <= l->max_seqs && b->n_out <= l->max_out);
    assert(b->max_blocks <= l->max_blocks && b->n_state <= l->max_state &&
           b->n_pool <= l->max_seqs);
    int bucket = bucket_of(own, b), rows = bucket ? bucket : b->n_tok;
    int32_t *h = r->host[r->next];
    if (!be->fault[0]) cuda_await(be, r->copied[r->next]); /* the step before last */
    batch padded;
    size_t words = fill(at, be->kv_block, b, rows, h, &padded);
    cuda_plan_fill(st, &padded, h + at->plan);
    st->plan_h = h + at->plan;
    gpu_memcpy_async(r->dev, h, words * sizeof *h, st->stream);
    gpu_memcpy_async(r->dev + at->plan, h + at->plan, cuda_plan_used(h + at->plan) * sizeof *h,
                     st->stream);
    gpu_event_record(r->copied[r->next], st->stream);
    r->next = (r->next + 1) % BATCH_BLOCKS;
    cuda_table_spread(st->stream, r->table, l->max_blocks, r->dev + at->packed,
                      r->dev + at->table_start, padded.n_seq);
    *device = (batch){.n_tok = padded.n_tok,
                      .n_seq = padded.n_seq,
                      .n_out = padded.n_out,
                      .n_state = padded.n_state,
                      .n_pool = padded.n_pool,
                      .full = padded.full,
                      .pool = (const pool_span *)(const void *)(r->dev + at->pool),
                      .max_blocks = l->max_blocks,
                      .tok = r->dev + at->tok,
                      .pos = r->dev + at->pos,
                      .slot = r->dev + at->slot,
                      .seq_start = r->dev + at->seq_start,
                      .ctx_len = r->dev + at->ctx_len,
                      .block_table = r->table,
                      .out_row = r->dev + at->out_row,
                      .n_prompt = r->dev + at->n_prompt,
                      .bucket = own->no_graphs ? 0 : bucket};
}
