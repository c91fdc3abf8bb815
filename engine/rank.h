/* rank.h - one rank's part of every step, and the messages by which rank 0 tells the others what
 * the step is.  A message is a flat array of 32-bit numbers: a kind, then the arrays of the batch.
 * Refuses messages whose lengths do not add up.  Thread: the rank's. */
#ifndef QUERN_ENGINE_RANK_H
#define QUERN_ENGINE_RANK_H

#include "engine/model.h"
#include "kernels/split.h"

/* A loaded share on a backend whose comm says which rank it is. */
typedef struct {
    backend *be; /* borrowed */
    model *m;    /* owned, as the rest */
    split_sampler *split;
} rank_share;

/* Joins the ranks' devices and loads the share of be->comm's rank; on failure nothing is left in
 * *k.
 */
int rank_load(rank_share *k, const checkpoint *c, backend *be, const model_options *o, int n_blocks,
              err *e);
void rank_clear(rank_share *k);
/* Queues a step on this rank: the pass, the draws, and the drawn ids to every rank.  rows[b->n_out]
 * and pooled[b->n_pool][hidden]
 * on rank 0, NULL elsewhere.  The backend's fault says if it failed. */
void rank_run(rank_share *k, const batch *b, const split_ask *ask, sample_row *rows, float *pooled);

typedef enum { MSG_LOAD = 1, MSG_STEP, MSG_END } msg_kind;

/* What a rank needs to know before it loads, and what tells that it has the same model. */
typedef struct {
    int32_t kind; /* MSG_LOAD */
    int32_t n_blocks, max_tok, max_out, max_seqs, kv, max_state, no_logits;
    int64_t ctx, hidden, layers, vocab, n_tensors, checkpoint_bytes;
} msg_load;

/* Numbers in the message of the largest step. */
size_t msg_step_max(const batch_limits *l);
/* Writes a step into to[]; returns its length in bytes. */
size_t msg_step_pack(const batch *b, const split_ask *ask, int32_t *to);
/* Points *b and *ask into msg[bytes]; ERR_FORMAT if the message is not whole or exceeds l. */
int msg_step_unpack(const void *msg, size_t bytes, const batch_limits *l, batch *b,
                    const split_ask **ask);

#endif
