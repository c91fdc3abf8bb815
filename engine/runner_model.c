/* runner_model.c - owns nothing: runs a model's forward pass and the sampler on its backend.
 * Refuses nothing; a device fault is latched by the backend and final.
 * Thread: the engine thread. */
#include "engine/model.h"
#include "engine/runner.h"

#include <stdlib.h>

typedef struct {
    runner r;
    model *m;
    backend *be;
} model_runner;

static int run_model(runner *r, const batch *b, sample_row *row, err *e)
{
    model_runner *x = (model_runner *)r;
    tensor logits;
    model_forward(x->m, b, &logits);
    if (b->n_out) k_sample(x->be, logits, row, b->n_out);
    return k_sync(x->be, e);
}

static void close_model(runner *r)
{
    free(r);
}

runner *runner_model_new(model *m, backend *be)
{
    model_runner *x = malloc(sizeof *x);
    if (!x) return NULL;
    *x = (model_runner){.r = {run_model, close_model}, .m = m, .be = be};
    return &x->r;
}
