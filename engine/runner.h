/* runner.h - what computes a step: the line between the engine's bookkeeping and a model.
 * One implementation runs a model on a backend (runner_model.c); tests put a simulated one here
 * that verifies block tables, slots and prefixes instead of multiplying matrices. Thread: run and
 * close are called by the engine thread only. */
#ifndef QUERN_ENGINE_RUNNER_H
#define QUERN_ENGINE_RUNNER_H

#include "kernels/kernels.h"

typedef struct runner runner;
struct runner {
    /* Computes all rows of b, writes their KV, and fills the results of row[b->n_out].  Returns
     * when the results are there: 0, or ERR_DEVICE with a message, after which nothing more is run.
     */
    int (*run)(runner *r, const batch *b, sample_row *row, err *e);
    void (*close)(runner *r); /* frees r */
};

/* Runs m on be; borrows both. */
struct model;
runner *runner_model_new(struct model *m, backend *be);

#endif
