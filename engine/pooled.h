/* pooled.h - from summed hidden states to what a client gets: an embedding of length 1, or the
 * probability that a document fits; and what stands behind a text that is embedded.  The rows that
 * judge are read from the checkpoint on the host: they are two of the output matrix's, or a tensor
 * of their own.
 * Refuses: rows the checkpoint lacks, tensors of another shape.  Thread: pure functions; reading by
 * whoever opens the engine. */
#ifndef QUERN_ENGINE_POOLED_H
#define QUERN_ENGINE_POOLED_H

#include "config/checkpoint.h"
#include "engine/text/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

/* Score = sigmoid(state . w); w is the difference of the rows of "yes" and "no", or the one row. */
typedef struct {
    double *w; /* [n] owned; NULL: the model does not judge */
    int n;
} pool_judge;

/* Name of the tensor that judges in a checkpoint that has one (SCORE_TENSOR). */
const char *pool_tensor(const checkpoint *c);
/* The rows that judge, checked; t NULL: c judges by none. */
typedef struct {
    const ckpt_tensor *t;
    int64_t yes, no; /* no -1: the one row says it all */
} pool_rows;
/* t: the tokenizer, for the words yes and no (SCORE_WORDS), or NULL. */
int pool_rows_find(pool_rows *r, const checkpoint *c, const tokenizer *t, err *e);
int pool_judge_read(pool_judge *j, const checkpoint *c, const tokenizer *t, err *e);
void pool_judge_clear(pool_judge *j);
/* 0..1, for a state of j->n values. */
float pool_judge_score(const pool_judge *j, const float *state);

/* Tokens behind every text that is embedded: the tokenizer's, or the one that Qwen3-Embedding is
 * trained to be read at, which its first tokenizer files leave out.  How many of id[cap], or an
 * error's code (negative). */
int pool_text_end(const checkpoint *c, const tokenizer *t, int32_t *id, int cap, err *e);

/* v[n] becomes a vector of length 1 in the same direction; zeros stay zeros. */
void pool_normalise(float *v, int n);

#endif
