/* rank.c - see rank.h.  Thread: the rank's. */
#include "engine/rank.h"

#include <string.h>

/* ---- running --------------------------------------------------------------------------------- */

int rank_load(rank_share *k, const checkpoint *c, backend *be, const model_options *o, int n_blocks,
              err *e)
{
    model_options own = *o;
    *k = (rank_share){.be = be};
    if (k_join(be, e)) goto fail;
    own.world = comm_world(be->comm);
    own.rank = comm_rank(be->comm);
    k->m = model_load(c, be, &own, e);
    if (!k->m || model_kv_alloc(k->m, n_blocks, e)) goto fail;
    if (be->comm && !(k->split = split_new(be, model_vocab_start(k->m), o->max_out, e))) goto fail;
    return 0;
fail:
    rank_clear(k);
    return e && e->code ? e->code : ERR_NOMEM;
}

void rank_clear(rank_share *k)
{
    split_free(k->split);
    model_free(k->m);
    *k = (rank_share){0};
}

void rank_run(rank_share *k, const batch *b, const split_ask *ask, sample_row *rows, float *pooled)
{
    tensor logits, sums;
    model_forward(k->m, b, &logits, pooled ? &sums : NULL);
    if (k->be->fault[0]) return;
    if (pooled && b->n_pool) k_fetch(k->be, pooled, sums);
    if (!b->n_out) return;
    split_sample(k->split, logits, ask, rows, b->n_out);
    k_share_drawn(k->be, b->n_out);
}

/* ---- messages -------------------------------------------------------------------------------- */

enum { HEAD = 7, ASK = sizeof(split_ask) / sizeof(int32_t) };
_Static_assert(sizeof(split_ask) == ASK * sizeof(int32_t), "an ask is whole numbers");

size_t msg_step_max(const batch_limits *l)
{
    size_t seqs = (size_t)l->max_seqs;
    return HEAD + 3 * (size_t)l->max_tok + 3 * seqs + 1 + seqs * (size_t)l->max_blocks +
           (1 + ASK) * (size_t)l->max_out + (size_t)l->max_state;
}

static int32_t *put(int32_t *to, const void *from, size_t n)
{
    if (n) memcpy(to, from, n * sizeof *to);
    return to + n;
}

size_t msg_step_pack(const batch *b, const split_ask *ask, int32_t *to)
{
    const int32_t head[HEAD] = {
        MSG_STEP, b->n_tok, b->n_seq, b->n_out, b->max_blocks, b->n_prompt != NULL, b->n_state};
    size_t tok = (size_t)b->n_tok, seqs = (size_t)b->n_seq, out = (size_t)b->n_out;
    int32_t *at = put(to, head, HEAD);
    at = put(at, b->tok, tok);
    at = put(at, b->pos, tok);
    at = put(at, b->slot, tok);
    at = put(at, b->seq_start, seqs + 1);
    at = put(at, b->ctx_len, seqs);
    if (b->n_prompt) at = put(at, b->n_prompt, seqs);
    at = put(at, b->block_table, seqs * (size_t)b->max_blocks);
    at = put(at, b->out_row, out + (size_t)b->n_state);
    at = put(at, ask, out * ASK);
    return (size_t)(at - to) * sizeof *to;
}

static const int32_t *take(const int32_t **at, size_t n)
{
    const int32_t *v = *at;
    *at += n;
    return v;
}

int msg_step_unpack(const void *msg, size_t bytes, const batch_limits *l, batch *b,
                    const split_ask **ask)
{
    const int32_t *at = msg;
    if (bytes < HEAD * sizeof *at || at[0] != MSG_STEP) return ERR_FORMAT;
    *b = (batch){
        .n_tok = at[1], .n_seq = at[2], .n_out = at[3], .max_blocks = at[4], .n_state = at[6]};
    bool prompts = at[5];
    if (b->n_tok < 1 || b->n_tok > l->max_tok || b->n_seq < 1 || b->n_seq > l->max_seqs ||
        b->n_out < 0 || b->n_out > l->max_out || b->n_state < 0 || b->n_state > l->max_state ||
        b->max_blocks < 1 || b->max_blocks > l->max_blocks)
        return ERR_FORMAT;
    size_t tok = (size_t)b->n_tok, seqs = (size_t)b->n_seq, out = (size_t)b->n_out;
    size_t table = seqs * (size_t)b->max_blocks;
    size_t want = HEAD + 3 * tok + seqs + 1 + (prompts ? 2 : 1) * seqs + table + (1 + ASK) * out +
                  (size_t)b->n_state;
    if (bytes != want * sizeof *at) return ERR_FORMAT;
    take(&at, HEAD);
    b->tok = take(&at, tok);
    b->pos = take(&at, tok);
    b->slot = take(&at, tok);
    b->seq_start = take(&at, seqs + 1);
    b->ctx_len = take(&at, seqs);
    if (prompts) b->n_prompt = take(&at, seqs);
    b->block_table = take(&at, table);
    b->out_row = take(&at, out + (size_t)b->n_state);
    *ask = (const split_ask *)(const void *)at;
    return 0;
}
