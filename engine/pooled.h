/* pooled.h - from summed hidden states to what a client gets: an embedding of length 1, or the
 * probability that a document fits.  The rows that judge are read from the checkpoint on the host:
 * they are two of the output matrix's, or a tensor of their own.
 * Refuses: rows the checkpoint lacks, tensors of another shape.  Thread: pure functions; reading by
 * whoever opens the engine. */
#ifndef QUERN_ENGINE_POOLED_H
#define QUERN_ENGINE_POOLED_H

#include "config/checkpoint.h"

#include <stddef.h>
#include <stdint.h>

/* Score = sigmoid(state . w); w is the difference of the rows of "yes" and "no", or the one row. */
typedef struct {
    double *w; /* [n] owned; NULL: the model does not judge */
    int n;
} pool_judge;

/* Name of the tensor that judges in a checkpoint that has one (SCORE_TENSOR). */
const char *pool_tensor(const checkpoint *c);
/* yes, no: ids of the words in the vocabulary, -1 where it lacks them (SCORE_WORDS). */
int pool_judge_read(pool_judge *j, const checkpoint *c, int32_t yes, int32_t no, err *e);
void pool_judge_clear(pool_judge *j);
/* 0..1, for a state of j->n values. */
float pool_judge_score(const pool_judge *j, const float *state);

/* v[n] becomes a vector of length 1 in the same direction; zeros stay zeros. */
void pool_normalise(float *v, int n);

#endif
