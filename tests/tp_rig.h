/* tp_rig.h - the rig of model_rig.h over several ranks: threads of this process, each with a
 * backend and a share of the model, that run every step together.  Tests only. */
#ifndef QUERN_TESTS_TP_RIG_H
#define QUERN_TESTS_TP_RIG_H

#include "kernels/comm.h"
#include "tests/model_rig.h"

#include <pthread.h>

enum { TP_MAX = 8 };

typedef struct {
    int world;
    comm *com[TP_MAX];
    backend *be[TP_MAX];
    model *m[TP_MAX];
} tp_world;

/* Runs fn(arg of rank r) on a thread per rank. */
static inline void tp_run(int world, void *(*fn)(void *), void *arg, size_t size)
{
    pthread_t t[TP_MAX];
    for (int r = 0; r < world; r++)
        ck_assert_int_eq(pthread_create(&t[r], NULL, fn, (char *)arg + (size_t)r * size), 0);
    for (int r = 0; r < world; r++) pthread_join(t[r], NULL);
}

typedef struct {
    const rig *g;
    tp_world *w;
    int rank;
    const model_options *mo;
    const batch *b;
    float *out;
    err e;
    bool failed;
} tp_job;

static inline void *tp_load(void *arg)
{
    tp_job *j = arg;
    model_options mo = *j->mo;
    mo.world = j->w->world;
    mo.rank = j->rank;
    backend *be = j->w->be[j->rank];
    j->w->m[j->rank] = model_load(j->g->c, be, &mo, &j->e);
    j->failed = !j->w->m[j->rank] || model_kv_alloc(j->w->m[j->rank], j->g->n_blocks, &j->e);
    return NULL;
}

static inline void *tp_forward(void *arg)
{
    tp_job *j = arg;
    backend *be = j->w->be[j->rank];
    const int32_t *start = model_vocab_start(j->w->m[j->rank]) + j->rank;
    tensor part;
    model_forward(j->w->m[j->rank], j->b, &part, NULL);
    j->failed = k_sync(be, &j->e) != 0;
    for (int i = 0; !j->failed && i < j->b->n_out; i++)
        k_download(be, j->out + (size_t)i * (size_t)j->g->vocab + start[0], tensor_row(part, i),
                   (size_t)(start[1] - start[0]) * sizeof(float));
    return NULL;
}

static inline void tp_step(rig *g, const batch *b, float *out)
{
    tp_world *w = g->more;
    tp_job j[TP_MAX];
    for (int r = 0; r < w->world; r++)
        j[r] = (tp_job){.g = g, .w = w, .rank = r, .b = b, .out = out};
    tp_run(w->world, tp_forward, j, sizeof *j);
    for (int r = 0; r < w->world; r++) ck_assert_msg(!j[r].failed, "rank %d: %s", r, j[r].e.msg);
}

/* As rig_open; world 1 is a rig without ranks. */
static inline rig tp_open(const char *path, const backend_options *bo, kv_type kv, int64_t ctx,
                          int world)
{
    if (world == 1) return rig_open(path, bo, kv, ctx);
    rig g = {.forward = tp_step};
    tp_world *w = g.more = calloc(1, sizeof *w);
    err e = {0};
    tp_job j[TP_MAX];
    model_options mo = {
        .ctx = ctx, .max_tok = RIG_MAX_TOK, .max_seqs = RIG_SEQS, .max_out = RIG_MAX_TOK, .kv = kv};
    g.c = checkpoint_open(path, &(checkpoint_options){.weights = true}, &e);
    ck_assert_msg(g.c != NULL, "%s: %s", path, e.msg);
    w->world = world;
    ck_assert_int_eq(comm_threads_open(world, 20, 0, w->com, &e), 0);
    for (int r = 0; r < world; r++) {
        w->be[r] = backend_open(bo, &e);
        ck_assert_msg(w->be[r] != NULL, "%s: %s", bo->name, e.msg);
        w->be[r]->comm = w->com[r];
        j[r] = (tp_job){.g = &g, .w = w, .rank = r, .mo = &mo};
    }
    g.n_blocks = RIG_SEQS * (int)((ctx + w->be[0]->kv_block - 1) / w->be[0]->kv_block);
    tp_run(world, tp_load, j, sizeof *j);
    for (int r = 0; r < world; r++)
        ck_assert_msg(!j[r].failed, "%s over %d, rank %d: %s", path, world, r, j[r].e.msg);
    g.be = w->be[0];
    g.m = w->m[0];
    g.vocab = model_vocab_rows(g.m);
    return g;
}

static inline void tp_close(rig *g)
{
    tp_world *w = g->more;
    if (!w) {
        rig_close(g);
        return;
    }
    for (int r = 0; r < w->world; r++) {
        model_free(w->m[r]);
        backend_close(w->be[r]);
        comm_close(w->com[r]);
    }
    checkpoint_close(g->c);
    free(w);
    *g = (rig){0};
}

#endif
