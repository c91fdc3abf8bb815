/* ranks.c - see ranks.h.  Owns the backends, comms and threads of the ranks in this process. */
#include "engine/ranks.h"

#include "base/log.h"
#include "base/sysinfo.h"
#include "base/thread.h"
#include "config/device.h"
#include "engine/engine_open.h"
#include "engine/rank.h"
#include "engine/shard.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A rank of this process. */
typedef struct {
    backend *be;
    comm *c;     /* NULL where there is one rank; once be is open be->comm, around it, counts */
    int ordinal; /* of its device */
    bool pinned; /* to cores[] */
    cpu_set_t cores;
    const checkpoint *ckpt; /* borrowed while loading */
    pthread_t thread;       /* of ranks 1 .. */
    bool started;
} member;

struct ranks {
    int world, n_here; /* ranks in all, in this process */
    int n_memory;      /* ranks that live in the memory of rank 0 */
    double timeout_s;
    member *of;     /* [n_here]; [0] is rank 0 */
    rank_share own; /* rank 0's share */
    batch_limits limits;
    bool hangs; /* a thread did not end: what it may use is left to it */
};

/* ---- following ------------------------------------------------------------------------------- */

static int check_model(const msg_load *l, const checkpoint *c, err *e)
{
    const model_config *m = checkpoint_config(c);
    if (m && l->hidden == m->hidden && l->layers == m->layers && l->vocab == m->vocab &&
        l->n_tensors == (int64_t)checkpoint_n_tensors(c) &&
        l->checkpoint_bytes == (int64_t)checkpoint_bytes(c))
        return 0;
    return err_set(e, ERR_INVALID,
                   "the model here is not the one that rank 0 serves: every host needs the same "
                   "checkpoint");
}

static int follow_load(rank_share *k, backend *be, const checkpoint *c, batch_limits *limits,
                       err *e)
{
    const void *msg;
    size_t bytes;
    msg_load l;
    int rc = be->comm->op->receive(be->comm, &msg, &bytes, e);
    if (rc) return rc;
    if (bytes >= sizeof l.kind) memcpy(&l.kind, msg, sizeof l.kind);
    if (bytes >= sizeof l.kind && l.kind == MSG_END) return err_set(e, ERR_CANCELLED, "ended");
    if (bytes != sizeof l || l.kind != MSG_LOAD)
        return err_set(e, ERR_FORMAT,
                       "rank 0 sent %zu bytes, not what to load: every rank must "
                       "run the same quern",
                       bytes);
    memcpy(&l, msg, sizeof l);
    model_options o = {.ctx = l.ctx,
                       .max_tok = l.max_tok,
                       .max_out = l.max_out,
                       .max_seqs = l.max_seqs,
                       .max_state = l.max_state,
                       .no_logits = l.no_logits,
                       .kv = (kv_type)l.kv};
    *limits = (batch_limits){.max_tok = l.max_tok,
                             .max_seqs = l.max_seqs,
                             .max_out = l.max_out,
                             .max_state = l.max_state,
                             .max_blocks = (int)((l.ctx + be->kv_block - 1) / be->kv_block)};
    rc = check_model(&l, c, e);
    if (!rc) rc = rank_load(k, c, be, &o, l.n_blocks, e);
    return rc ? rc : be->comm->op->barrier(be->comm, 0, e);
}

/* Steps until the end.  At most two are queued: the mark before last is waited for. */
static int follow_steps(rank_share *k, backend *be, const batch_limits *limits, err *e)
{
    comm *c = be->comm;
    int mark[2] = {0};
    for (int n = 0;; n++) {
        const void *msg;
        const split_ask *ask;
        size_t bytes;
        batch b;
        int32_t kind = 0;
        int rc = c->op->receive(c, &msg, &bytes, e);
        if (rc) return rc;
        if (bytes >= sizeof kind) memcpy(&kind, msg, sizeof kind);
        if (kind == MSG_END) return k_sync(be, e);
        if (msg_step_unpack(msg, bytes, limits, &b, &ask))
            return err_set(e, ERR_FORMAT, "rank 0 sent a step of %zu bytes that makes no sense",
                           bytes);
        rank_run(k, &b, ask, NULL, NULL);
        if (n >= 2 && k_can_overlap(be)) rc = k_wait(be, mark[n % 2], e);
        else if (be->fault[0]) rc = k_sync(be, e);
        mark[n % 2] = k_mark(be);
        if (rc) return rc;
    }
}

int ranks_follow(backend *be, const checkpoint *c, err *e)
{
    err own = {0};
    if (!e) e = &own;
    rank_share k = {0};
    batch_limits limits;
    int rc = follow_load(&k, be, c, &limits, e);
    if (!rc) rc = follow_steps(&k, be, &limits, e);
    else if (rc == ERR_CANCELLED) rc = 0;
    if (rc) comm_abort(be->comm, "%s", e->msg);
    rank_clear(&k);
    return rc;
}

/* ---- threads and cores ----------------------------------------------------------------------- */

/* Comms may have memory on the device: they go first. */
static void close_member(member *m)
{
    comm_close(m->be ? m->be->comm : m->c);
    if (m->be) backend_close(m->be);
}

static void *follower(void *arg)
{
    member *m = arg;
    err e = {0};
    if (m->pinned) pthread_setaffinity_np(pthread_self(), sizeof m->cores, &m->cores);
    ranks_follow(m->be, m->ckpt, &e);
    close_member(m);
    return NULL;
}

/* Share i of n of the processors this process may use, neighbours together: ranks keep to cores,
 * caches and memory of their own.  False if there are not enough. */
static bool share_cores(int i, int n, cpu_set_t *out)
{
    cpu_set_t all;
    CPU_ZERO(out);
    if (sched_getaffinity(0, sizeof all, &all)) return false;
    int count = CPU_COUNT(&all), seen = 0;
    if (count < n) return false;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all)) continue;
        if (seen * n / count == i) CPU_SET(cpu, out);
        seen++;
    }
    return true;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* The backend of rank i; threads it starts stay on the rank's cores. */
static int open_member(ranks *r, const engine_options *o, int i, err *e)
{
    member *m = &r->of[i];
    engine_options own = *o;
    device_choice d;
    cpu_set_t before;
    int rank = comm_rank(m->c);
    if (device_parse(o->device, &d, e)) return e && e->code ? e->code : ERR_INVALID;
    m->ordinal = device_of_rank(&d, rank);
    if (r->n_here > 1) {
        int all = o->threads ? o->threads : sys_cpus();
        own.threads = all / r->n_here + (i < all % r->n_here);
        if (own.threads < 1) own.threads = 1;
        m->pinned =
            !sched_getaffinity(0, sizeof before, &before) && share_cores(i, r->n_here, &m->cores);
    }
    if (m->pinned) pthread_setaffinity_np(pthread_self(), sizeof m->cores, &m->cores);
    m->be = engine_backend(&own, rank, e);
    if (m->pinned) pthread_setaffinity_np(pthread_self(), sizeof before, &before);
    if (!m->be) return e && e->code ? e->code : ERR_INVALID;
    if (m->be->op->upload) m->pinned = false; /* arithmetic is elsewhere */
    m->be->comm = m->c;
    return 0;
}

static int open_comms(ranks *r, const engine_options *o, err *e)
{
    comm *c[COMM_MAX_RANKS];
    if (o->ranks) {
        r->of[0].c = o->ranks;
        return 0;
    }
    if (r->world == 1) return 0;
    int rc = comm_threads_open(r->world, r->timeout_s, 0, c, e);
    for (int i = 0; !rc && i < r->world; i++) r->of[i].c = c[i];
    return rc;
}

static int check_devices(const engine_options *o, int world, err *e)
{
    device_choice d;
    int rc = device_parse(o->device, &d, e);
    return rc ? rc : device_check_ranks(&d, world, e);
}

ranks *ranks_open(const engine_options *o, err *e)
{
    ranks *r = calloc(1, sizeof *r);
    if (!r) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    r->world = o->ranks ? o->ranks->world : o->tensor_parallel > 1 ? o->tensor_parallel : 1;
    r->timeout_s = o->collective_timeout > 0 ? o->collective_timeout : 30;
    r->n_here = o->ranks ? 1 : r->world;
    r->n_memory = o->ranks && o->ranks_here > 0 ? o->ranks_here : r->n_here;
    r->of = calloc((size_t)r->n_here, sizeof *r->of);
    if (!r->of) {
        err_set(e, ERR_NOMEM, "out of memory for %d ranks", r->world);
        goto fail;
    }
    if (check_devices(o, r->world, e) || open_comms(r, o, e)) goto fail;
    for (int i = 0; i < r->n_here; i++)
        if (open_member(r, o, i, e)) goto fail;
    return r;
fail:
    ranks_close(r);
    return NULL;
}

int ranks_world(const ranks *r)
{
    return r->world;
}

backend *ranks_backend(const ranks *r)
{
    return r->of[0].be;
}

model *ranks_model(const ranks *r)
{
    return r->own.m;
}

/* ---- planning -------------------------------------------------------------------------------- */

/* Ranks whose memory is that of rank i. */
static int sharing(const ranks *r, int i)
{
    int n = 0;
    if (!r->of[i].be->op->mem_available) return r->n_memory;
    for (int k = 0; k < r->n_here; k++) n += r->of[k].ordinal == r->of[i].ordinal;
    return n;
}

static int plan_rank(const ranks *r, const checkpoint *c, const model_options *o, int rank,
                     model_plan *p, err *e)
{
    model_options own = *o;
    own.world = r->world;
    own.rank = rank;
    int rc = model_plan_make(c, r->of[0].be, &own, p, e);
    if (rc) return rc;
    p->scratch_bytes += split_bytes(r->world, rank, (int)checkpoint_config(c)->vocab, o->max_out);
    return 0;
}

int ranks_plan(const ranks *r, const checkpoint *c, const model_options *o, model_plan *p,
               uint64_t *available, err *e)
{
    model_plan sum = {0}, most = {0};
    for (int i = 0; i < r->world; i++) {
        int rc = plan_rank(r, c, o, i, p, e);
        if (rc) return rc;
        sum.weight_bytes += p->weight_bytes;
        sum.scratch_bytes += p->scratch_bytes;
        if (p->weight_bytes > most.weight_bytes) most.weight_bytes = p->weight_bytes;
        if (p->scratch_bytes > most.scratch_bytes) most.scratch_bytes = p->scratch_bytes;
    }
    /* Where only some share a memory, it must do for the largest shares. */
    int together = sharing(r, 0);
    bool all = together == r->world;
    p->weight_bytes = all ? sum.weight_bytes : most.weight_bytes * together;
    p->scratch_bytes = all ? sum.scratch_bytes : most.scratch_bytes * (size_t)together;
    p->kv_block_bytes *= (size_t)together;
    *available = UINT64_MAX;
    for (int i = 0; i < r->n_here; i++) {
        uint64_t n = k_mem_available(r->of[i].be);
        if (n < *available) *available = n;
    }
    return 0;
}

/* ---- loading --------------------------------------------------------------------------------- */

static int start_followers(ranks *r, const checkpoint *c, err *e)
{
    for (int i = 1; i < r->n_here; i++) {
        member *m = &r->of[i];
        char what[40];
        snprintf(what, sizeof what, "the thread of rank %d", i);
        m->ckpt = c;
        int rc = thread_start(&m->thread, what, follower, m, e);
        if (rc) return rc;
        m->started = true;
    }
    return 0;
}

static int send_load(ranks *r, const checkpoint *c, const model_options *o, int n_blocks, err *e)
{
    const model_config *m = checkpoint_config(c);
    const msg_load l = {.kind = MSG_LOAD,
                        .n_blocks = n_blocks,
                        .max_tok = o->max_tok,
                        .max_out = o->max_out,
                        .max_seqs = o->max_seqs,
                        .max_state = o->max_state,
                        .no_logits = o->no_logits,
                        .kv = o->kv,
                        .ctx = o->ctx,
                        .hidden = m->hidden,
                        .layers = m->layers,
                        .vocab = m->vocab,
                        .n_tensors = (int64_t)checkpoint_n_tensors(c),
                        .checkpoint_bytes = (int64_t)checkpoint_bytes(c)};
    comm *com = r->of[0].be->comm;
    return com->op->send(com, &l, sizeof l, e);
}

int ranks_load(ranks *r, const checkpoint *c, const model_options *o, int n_blocks, err *e)
{
    backend *be = r->of[0].be;
    r->limits = (batch_limits){.max_tok = o->max_tok,
                               .max_seqs = o->max_seqs,
                               .max_out = o->max_out,
                               .max_state = o->max_state,
                               .max_blocks = (int)((o->ctx + be->kv_block - 1) / be->kv_block)};
    if (!be->comm) return rank_load(&r->own, c, be, o, n_blocks, e);
    int rc = start_followers(r, c, e);
    if (!rc) rc = send_load(r, c, o, n_blocks, e);
    if (!rc) rc = rank_load(&r->own, c, be, o, n_blocks, e);
    if (rc) comm_abort(be->comm, "%s", e ? e->msg : "cannot load its share");
    return rc ? rc : be->comm->op->barrier(be->comm, 0, e);
}

/* ---- closing --------------------------------------------------------------------------------- */

/* A thread that has not ended by then is left behind. */
static bool join_within(pthread_t t, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)seconds + 1;
    if (!pthread_timedjoin_np(t, NULL, &until)) return true;
    pthread_detach(t);
    return false;
}

static void end_followers(ranks *r)
{
    const int32_t end = MSG_END;
    comm *c = r->of[0].be ? r->of[0].be->comm : r->of[0].c;
    err e = {0};
    if (!c || r->world == 1) return;
    if (c->op->send(c, &end, sizeof end, &e)) comm_abort(c, "ended");
    for (int i = 1; i < r->n_here; i++) {
        member *m = &r->of[i];
        if (!m->started) continue;
        if (join_within(m->thread, r->timeout_s)) continue;
        log_error("rank %d hangs and is left behind", i);
        r->hangs = true;
    }
}

void ranks_close(ranks *r)
{
    if (!r) return;
    if (r->of) end_followers(r);
    if (r->hangs) return; /* the process is about to end; freeing would pull memory from the rank */
    rank_clear(&r->own);
    for (int i = 0; r->of && i < r->n_here; i++) {
        if (r->of[i].started) continue; /* closed by its thread */
        close_member(&r->of[i]);
    }
    free(r->of);
    free(r);
}

/* ---- the runner ------------------------------------------------------------------------------ */

enum { DEPTH = 2 };

typedef struct {
    runner r;
    ranks *ranks;
    int mark[DEPTH]; /* of the steps started and not finished, oldest first */
    int n_open;
    bool entered;
    int32_t *msg;   /* [msg_step_max] */
    split_ask *ask; /* [max_out] */
} ranks_runner_state;

/* The rank's own fault, told to the others. */
static int failed(ranks *r, err *e)
{
    int rc = k_sync(r->of[0].be, e);
    if (!rc) rc = err_set(e, ERR_DEVICE, "%s", r->of[0].be->fault);
    comm_abort(r->of[0].be->comm, "%s", r->of[0].be->fault);
    return rc;
}

static int start_step(runner *base, const batch *b, sample_row *row, float *pooled, err *e)
{
    ranks_runner_state *x = (ranks_runner_state *)base;
    ranks *r = x->ranks;
    member *m = &r->of[0];
    assert(x->n_open < base->depth);
    if (!x->entered && m->pinned)
        pthread_setaffinity_np(pthread_self(), sizeof m->cores, &m->cores);
    x->entered = true;
    for (int i = 0; i < b->n_out; i++) x->ask[i] = split_ask_of(&row[i]);
    comm *c = m->be->comm;
    int rc = c->op->send(c, x->msg, msg_step_pack(b, x->ask, x->msg), e);
    if (rc) return rc == ERR_DEVICE ? rc : err_set(e, ERR_DEVICE, "cannot tell the ranks a step");
    rank_run(&r->own, b, x->ask, row, pooled);
    x->mark[x->n_open++] = k_mark(m->be);
    return m->be->fault[0] ? failed(r, e) : 0;
}

static int finish_step(runner *base, err *e)
{
    ranks_runner_state *x = (ranks_runner_state *)base;
    assert(x->n_open > 0);
    int mark = x->mark[0];
    x->mark[0] = x->mark[1];
    x->n_open--;
    int rc = k_wait(x->ranks->of[0].be, mark, e);
    return rc ? failed(x->ranks, e) : 0;
}

static void close_runner(runner *base)
{
    ranks_runner_state *x = (ranks_runner_state *)base;
    free(x->msg);
    free(x->ask);
    free(x);
}

runner *ranks_runner(ranks *r)
{
    backend *be = r->of[0].be;
    if (!be->comm) return runner_model_new(r->own.m, be);
    ranks_runner_state *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    x->r = (runner){k_can_overlap(be) ? DEPTH : 1, start_step, finish_step, close_runner};
    x->ranks = r;
    x->msg = malloc(msg_step_max(&r->limits) * sizeof *x->msg);
    x->ask = malloc((size_t)r->limits.max_out * sizeof *x->ask);
    if (x->msg && x->ask) return &x->r;
    close_runner(&x->r);
    return NULL;
}
