/* runner_model.c - owns nothing: runs a model's forward pass and the sampler on its backend.
 * Refuses nothing; a device fault is latched by the backend and final.
 * Thread: the engine thread. */
#include "engine/model.h"
#include "engine/runner.h"

#include <assert.h>
#include <stdlib.h>

enum { DEPTH = 2 };

typedef struct {
    runner r;
    model *m;
    backend *be;
    int mark[DEPTH]; /* of the steps started and not finished, oldest first */
    int n_open;
} model_runner;

static int start_model(runner *r, const batch *b, sample_row *row, float *pooled, err *e)
{
    model_runner *x = (model_runner *)r;
    tensor logits, sums;
    assert(x->n_open < r->depth);
    model_forward(x->m, b, &logits, &sums);
    if (b->n_out) k_sample(x->be, logits, row, b->n_out);
    if (b->n_pool) k_fetch(x->be, pooled, sums);
    x->mark[x->n_open++] = k_mark(x->be);
    return x->be->fault[0] ? k_sync(x->be, e) : 0;
}

static int finish_model(runner *r, err *e)
{
    model_runner *x = (model_runner *)r;
    assert(x->n_open > 0);
    int mark = x->mark[0];
    x->mark[0] = x->mark[1];
    x->n_open--;
    return k_wait(x->be, mark, e);
}

static void close_model(runner *r)
{
    free(r);
}

runner *runner_model_new(model *m, backend *be)
{
    model_runner *x = malloc(sizeof *x);
    if (!x) return NULL;
    int depth = k_can_overlap(be) ? DEPTH : 1;
    *x = (model_runner){.r = {depth, start_model, finish_model, close_model}, .m = m, .be = be};
    return &x->r;
}
