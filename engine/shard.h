/* shard.h - who holds what of a model over several ranks: pure arithmetic on a config and the rule
 * table.  Loading, the memory plan and `quern inspect --tp` all ask here.
 *
 * Query heads are divided evenly; key heads too, or, with more ranks than key heads, each is held
 * by world / kv_heads ranks.  The columns of o follow the query heads.  Rows of gate and up and the
 * columns of down are cut at the same places: multiples of the largest block among the formats of
 * the down matrices, the first ranks holding one block more where they do not divide.  Rows of the
 * vocabulary (embedding and head) likewise, in units of VOCAB_UNIT where there are enough.
 * Vectors are held whole by all; a bias of columns' partial sums (o) by rank 0.
 * Refuses: numbers of ranks that cannot do this, naming those that can.  Thread: any. */
#ifndef QUERN_ENGINE_SHARD_H
#define QUERN_ENGINE_SHARD_H

#include "engine/models/models.h"

enum {
    SHARD_MAX_RANKS = 64,
    /* The sampler sums a row of logits in blocks of so many: cut there, the sums keep their bits.
     */
    VOCAB_UNIT = 1024
};

/* What columns can be cut at: elements of a block; 1 for F32, F16, BF16. */
typedef struct {
    int q;  /* of the o matrices */
    int ff; /* of the down matrices */
} shard_units;

/* Elements at .. at + n of a dimension. */
typedef struct {
    int64_t at, n;
} shard_span;

typedef struct {
    int world, rank;
    int64_t heads, kv_heads; /* of this rank */
    shard_span q, kv;        /* heads x head_dim; kv of several ranks are equal with replication */
    shard_span ff, vocab;
} shard;

/* Why world ranks cannot share this model, and the numbers that can. */
int shard_check(const model_config *c, shard_units u, int world, err *e);
/* Share of a checked world; {.world = 1} holds everything. */
shard shard_make(const model_config *c, shard_units u, int world, int rank);
/* Rows and columns of a rule's tensor that the rank holds; a vector has one column. */
void shard_cut(const shard *s, const model_config *c, const rule *r, shard_span *rows,
               shard_span *cols);
/* Whether the rank adds the bias of this rule. */
static inline bool shard_has_bias(const shard *s, const rule *r)
{
    return r->cut != SPLIT_IN || s->rank == 0;
}
/* First row of the vocabulary of every rank, and the end: start[world + 1]. */
void shard_vocab(const model_config *c, int world, int32_t *start);

#endif
