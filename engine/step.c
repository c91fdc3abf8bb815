/* step.c - owns the arrays of a step; see step.h.
 * Refuses: nothing; a plan beyond the sizes given at step_init is a broken invariant.
 * Thread: the engine thread only. */
#include "engine/step.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int step_init(step *t, const sched_options *o, int max_blocks, int hidden)
{
    *t = (step){.max_tok = o->max_tok,
                .max_seqs = o->max_seqs,
                .max_out = o->max_out,
                .max_blocks = max_blocks,
                .hidden = hidden,
                .kv_block = o->kv_block};
    size_t tok = (size_t)o->max_tok, seqs = (size_t)o->max_seqs, out = (size_t)o->max_out;
    t->tok = calloc(tok, sizeof *t->tok);
    t->pos = calloc(tok, sizeof *t->pos);
    t->slot = calloc(tok, sizeof *t->slot);
    t->seq_start = calloc(seqs + 1, sizeof *t->seq_start);
    t->ctx_len = calloc(seqs, sizeof *t->ctx_len);
    t->n_prompt = calloc(seqs, sizeof *t->n_prompt);
    t->block_table = calloc(seqs * (size_t)max_blocks, sizeof *t->block_table);
    t->out_row = calloc(out + tok, sizeof *t->out_row);
    t->state_row = calloc(tok, sizeof *t->state_row);
    t->span = calloc(seqs, sizeof *t->span);
    t->pool = calloc(seqs, sizeof *t->pool);
    t->pooled = calloc(seqs * (size_t)hidden + 1, sizeof *t->pooled);
    t->seqs = calloc(seqs, sizeof *t->seqs);
    t->out = calloc(out, sizeof *t->out);
    t->row = calloc(out, sizeof *t->row);
    if (t->tok && t->pos && t->slot && t->seq_start && t->ctx_len && t->n_prompt &&
        t->block_table && t->out_row && t->state_row && t->span && t->pool && t->pooled &&
        t->seqs && t->out && t->row)
        return 0;
    step_clear(t);
    return ERR_NOMEM;
}

void step_clear(step *t)
{
    free(t->tok);
    free(t->pos);
    free(t->slot);
    free(t->seq_start);
    free(t->ctx_len);
    free(t->n_prompt);
    free(t->block_table);
    free(t->out_row);
    free(t->state_row);
    free(t->span);
    free(t->pool);
    free(t->pooled);
    free(t->seqs);
    free(t->out);
    free(t->row);
    *t = (step){0};
}

static void put_rows(step *t, const seq *q)
{
    batch *b = &t->b;
    for (int p = q->n_cached; p < q->n_cached + q->n_planned; p++) {
        int r = b->n_tok++;
        t->tok[r] = seq_tok(q, p);
        t->pos[r] = p;
        t->slot[r] = q->block[p / t->kv_block] * t->kv_block + p % t->kv_block;
    }
}

static void put_out(step *t, seq *q, int row0)
{
    for (int i = 0; i < q->n_scoring + q->n_drawing; i++) {
        bool drawing = i >= q->n_scoring;
        int p = drawing ? seq_last(q) + i - q->n_scoring : q->score_from + i, k = t->b.n_out++;
        t->out_row[k] = row0 + p - q->n_cached;
        t->out[k] = (step_row){.q = q, .pos = p, .drawing = drawing};
    }
}

/* Rows of q to be pooled: its last position, its first, or all of them. */
static void put_states(step *t, seq *q, int row0)
{
    batch *b = &t->b;
    int from = q->n_cached, to = from + q->n_planned, last = q->n_prompt - 1;
    bool done = to > last;
    if (q->pool == POOL_LAST) from = done ? last : to;
    if (q->pool == POOL_CLS) to = from ? from : 1;
    /* The first state may be of an earlier step: an empty span brings it back. */
    bool back = q->pool == POOL_CLS && from >= to && done;
    if (q->pool == POOL_NONE || (from >= to && !back)) return;
    bool begin = q->pool == POOL_LAST || from == 0;
    t->span[b->n_pool] = (pool_span){b->n_state, to - from, q->place, begin};
    t->pool[b->n_pool++] = q;
    for (int p = from; p < to; p++) t->state_row[b->n_state++] = row0 + p - q->n_cached;
}

void step_build(step *t, seq *const *plan, int n_plan)
{
    batch *b = &t->b;
    /* Rows of the block table are as long as this step needs, so that little is uploaded. */
    int width = 1;
    for (int i = 0; i < n_plan; i++)
        if (plan[i]->n_block > width) width = plan[i]->n_block;
    assert(n_plan <= t->max_seqs && width <= t->max_blocks);
    *b = (batch){.n_seq = n_plan, .max_blocks = width};
    for (int i = 0; i < n_plan; i++) {
        seq *q = plan[i];
        int row0 = b->n_tok;
        assert(q->n_planned >= 1 && row0 + q->n_planned <= t->max_tok);
        assert(b->n_out + q->n_scoring + q->n_drawing <= t->max_out);
        t->seq_start[i] = row0;
        t->ctx_len[i] = q->n_cached + q->n_planned;
        t->seqs[i] = (step_seq){q, t->ctx_len[i] >= q->n_prompt};
        t->n_prompt[i] = q->n_prompt;
        int32_t *table = t->block_table + (size_t)i * (size_t)width;
        memcpy(table, q->block, (size_t)q->n_block * sizeof *table);
        memset(table + q->n_block, 0, (size_t)(width - q->n_block) * sizeof *table);
        put_rows(t, q);
        put_out(t, q, row0);
        put_states(t, q, row0);
    }
    memcpy(t->out_row + b->n_out, t->state_row, (size_t)b->n_state * sizeof *t->out_row);
    t->seq_start[n_plan] = b->n_tok;
    b->tok = t->tok;
    b->pos = t->pos;
    b->slot = t->slot;
    b->seq_start = t->seq_start;
    b->ctx_len = t->ctx_len;
    b->n_prompt = t->n_prompt;
    b->block_table = t->block_table;
    b->out_row = t->out_row;
    b->pool = t->span;
}

void step_forget(step *t, const seq *q)
{
    for (int i = 0; i < t->b.n_seq; i++)
        if (t->seqs[i].q == q) t->seqs[i].q = NULL;
    for (int i = 0; i < t->b.n_out; i++)
        if (t->out[i].q == q) t->out[i].q = NULL;
    for (int i = 0; i < t->b.n_pool; i++)
        if (t->pool[i] == q) t->pool[i] = NULL;
}

const float *step_pooled(const step *t, const seq *q)
{
    for (int i = 0; i < t->b.n_pool; i++)
        if (t->pool[i] == q) return t->pooled + (size_t)i * (size_t)t->hidden;
    return NULL;
}
