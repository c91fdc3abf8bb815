/* runner.h - what computes a step: the line between the engine's bookkeeping and a model.
 * One implementation runs a model on a backend (runner_model.c); tests put a simulated one here
 * that verifies block tables, slots and prefixes instead of multiplying matrices. Thread: all
 * three are called by the engine thread only. */
#ifndef QUERN_ENGINE_RUNNER_H
#define QUERN_ENGINE_RUNNER_H

#include "kernels/kernels.h"

typedef struct runner runner;
struct runner {
    /* Steps that may be started before the first of them is finished: 1, or 2 where the ids a step
     * draws can stay on the device until the next one reads them (batch.tok, -1 - j). */
    int depth;
    /* Starts computing all rows of b, writing their KV, drawing row[b->n_out] and pooling into
     * pooled[b->n_pool][hidden].  b and what row points to may change after the return, row itself
     * and pooled not before finish.  0, or ERR_DEVICE with a
     * message, after which nothing more is run. */
    int (*start)(runner *r, const batch *b, sample_row *row, float *pooled, err *e);
    /* Returns when the oldest step not yet finished is computed and its rows hold the results.
     * NULL where start has them already. */
    int (*finish)(runner *r, err *e);
    void (*close)(runner *r); /* frees r */
};

/* Runs m on be; borrows both. */
struct model;
runner *runner_model_new(struct model *m, backend *be);

#endif
