/* comm_virtual.c - ranks of one process that share a device: several of them on one GPU (to test
 * what several GPUs would do), or on emulated devices.
 *
 * Who comes to a collective records an event behind its ops.  The last to come lets its stream wait
 * for all events, queues the work for everybody, records another, and lets the others' streams wait
 * for that one.  So only hosts wait for each other, never a kernel for another, and nothing can
 * lock up on a device that runs one rank at a time.  The others touch nothing of the last to come's
 * when they wake: it may have closed by then.  Each rank's pass is eager: a recording could not
 * contain the others'.
 * Owns the room, and an event pair a rank.  Refuses, as a fault: ranks that meet for different
 * things.  Thread: see comm.h. */
#include "base/clock.h"
#include "kernels/cuda/comm_device.h"
#include "kernels/cuda/cuda.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What a rank brings to a meeting; until it leaves, whoever holds mu may queue to its stream. */
typedef struct {
    gpu_stream *stream;
    const char *what;
    void *x;
    size_t n, ld; /* values; for rows, bytes between them */
    act_type type;
    void *dst; /* rank 0's, of a gather */
    size_t dst_ld;
    const size_t *bytes; /* [world] */
    int rows;
} offer;

typedef struct virtual_room {
    int world, n_open, n_came;
    pthread_mutex_t mu;
    pthread_cond_t cv;
    unsigned long long meeting; /* meetings that took place */
    bool came[COMM_MAX_RANKS];
    offer brings[COMM_MAX_RANKS];
    gpu_event *here[COMM_MAX_RANKS]; /* of each rank, when it came */
    bool over;
    char why[160];
} room;

typedef struct {
    around a;
    room *m;
    gpu_event *here; /* behind this rank's ops */
    gpu_event *done; /* behind the work of a meeting that this rank was the last to come to */
} seat;

static seat *seat_of(const comm *c)
{
    return c->state;
}

/* ---- ending ---------------------------------------------------------------------------------- */

/* Under mu; the first reason stays. */
static void set_over(room *m, const char *why)
{
    if (m->over) return;
    m->over = true;
    snprintf(m->why, sizeof m->why, "%s", why);
    pthread_cond_broadcast(&m->cv);
}

static void abort_room(comm *c, const char *why)
{
    room *m = seat_of(c)->m;
    pthread_mutex_lock(&m->mu);
    set_over(m, why);
    pthread_mutex_unlock(&m->mu);
    seat_of(c)->a.host->op->abort(seat_of(c)->a.host, why);
}

/* ---- meeting --------------------------------------------------------------------------------- */

static void queue_work(room *m, gpu_stream *s)
{
    const offer *o = m->brings;
    if (o->rows) {
        char *to = o->dst;
        for (int r = 0; r < m->world; to += o->bytes[r++])
            comm_rows_queue(s, to, o->dst_ld, o[r].x, o[r].ld, o->bytes[r], o->rows);
    } else if (!strcmp(o->what, "broadcast")) {
        for (int r = 1; r < m->world && o->n; r++) gpu_memcpy_async(o[r].x, o->x, o->n, s);
    } else {
        void *x[COMM_MAX_RANKS];
        for (int r = 0; r < m->world; r++) x[r] = o[r].x;
        comm_sum_queue(s, x, m->world, o->n, o->type);
    }
}

static bool agree(const offer *a, const offer *b)
{
    return !strcmp(a->what, b->what) && a->n == b->n && a->type == b->type && a->rows == b->rows;
}

/* The last to come; under mu. */
static void hold_meeting(comm *c)
{
    room *m = seat_of(c)->m;
    gpu_event *done = seat_of(c)->done;
    gpu_stream *s = m->brings[c->rank].stream;
    for (int r = 1; r < m->world; r++)
        if (!agree(&m->brings[0], &m->brings[r])) {
            char why[sizeof m->why];
            snprintf(why, sizeof why, "rank %d came to %s of %zu values, rank 0 to %s of %zu", r,
                     m->brings[r].what, m->brings[r].n, m->brings[0].what, m->brings[0].n);
            set_over(m, why);
            return;
        }
    for (int r = 0; r < m->world; r++)
        if (r != c->rank) gpu_stream_wait(s, m->here[r]);
    queue_work(m, s);
    gpu_event_record(done, s);
    for (int r = 0; r < m->world; r++)
        if (r != c->rank) gpu_stream_wait(m->brings[r].stream, done);
    memset(m->came, 0, sizeof m->came);
    m->n_came = 0;
    m->meeting++;
    pthread_cond_broadcast(&m->cv);
}

/* Until the meeting took place; under mu. */
static void await_meeting(comm *c, const char *what)
{
    room *m = seat_of(c)->m;
    unsigned long long before = m->meeting;
    int64_t until = clock_us() + (int64_t)(c->timeout_s * 1e6);
    const struct timespec t = {until / 1000000, until % 1000000 * 1000};
    while (m->meeting == before && !m->over) {
        if (!pthread_cond_timedwait(&m->cv, &m->mu, &t) || clock_us() < until) continue;
        int who = 0;
        char why[sizeof m->why];
        while (who < m->world && m->came[who]) who++;
        if (m->meeting != before) break;
        snprintf(why, sizeof why, "rank %d did not come to %s within %g s", who, what,
                 c->timeout_s);
        set_over(m, why);
    }
}

static void meet(comm *c, backend *be, offer o)
{
    seat *own = seat_of(c);
    room *m = own->m;
    char why[sizeof m->why] = "";
    if (be->fault[0]) return;
    o.stream = cuda_of(be)->stream;
    pthread_mutex_lock(&m->mu);
    if (!m->over) {
        m->brings[c->rank] = o;
        m->here[c->rank] = own->here;
        m->came[c->rank] = true;
        gpu_event_record(own->here, o.stream);
        if (++m->n_came == m->world) hold_meeting(c);
        else await_meeting(c, o.what);
    }
    if (m->over) snprintf(why, sizeof why, "%s", m->why);
    pthread_mutex_unlock(&m->mu);
    if (!why[0]) return;
    own->a.host->op->abort(own->a.host, why);
    k_fault(be, o.what, "%s", why);
}

/* ---- the ops --------------------------------------------------------------------------------- */

static void all_reduce(comm *c, backend *be, void *x, size_t n, act_type type)
{
    meet(c, be, (offer){.what = "all_reduce", .x = x, .n = n, .type = type});
}

static void gather_rows(comm *c, backend *be, void *dst, size_t dst_ld, const void *src,
                        size_t src_ld, const size_t *bytes, int rows)
{
    if (rows == 0) return;
    meet(c, be,
         (offer){.what = "gather_rows",
                 .x = (void *)(uintptr_t)src,
                 .ld = src_ld,
                 .dst = dst,
                 .dst_ld = dst_ld,
                 .bytes = bytes,
                 .rows = rows});
}

static void broadcast(comm *c, backend *be, void *x, size_t bytes)
{
    meet(c, be, (offer){.what = "broadcast", .x = x, .n = bytes});
}

/* ---- opening and closing --------------------------------------------------------------------- */

room *virtual_room_new(int world)
{
    room *m = calloc(1, sizeof *m);
    pthread_condattr_t a;
    if (!m) return NULL;
    m->world = m->n_open = world;
    pthread_mutex_init(&m->mu, NULL);
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC); /* as clock_us */
    pthread_cond_init(&m->cv, &a);
    pthread_condattr_destroy(&a);
    return m;
}

void virtual_room_free(room *m)
{
    if (!m) return;
    pthread_cond_destroy(&m->cv);
    pthread_mutex_destroy(&m->mu);
    free(m);
}

/* Events of a rank may still be waited for by another's stream: gpu_event_free allows that. */
static void close_virtual(comm *c)
{
    seat *own = seat_of(c);
    pthread_mutex_lock(&own->m->mu);
    bool last = --own->m->n_open == 0;
    pthread_mutex_unlock(&own->m->mu);
    if (last) virtual_room_free(own->m);
    gpu_event_free(own->here);
    gpu_event_free(own->done);
    comm_close(own->a.host);
    free(own);
    free(c);
}

static const comm_ops virtual_ops = {.name = "virtual",
                                     .all_reduce = all_reduce,
                                     .gather_rows = gather_rows,
                                     .broadcast = broadcast,
                                     .exchange = around_exchange,
                                     .send = around_send,
                                     .receive = around_receive,
                                     .barrier = around_barrier,
                                     .abort = abort_room,
                                     .close = close_virtual};

comm *comm_virtual_open(backend *be, comm *host, room *m, err *e)
{
    gpu *dev = cuda_of(be)->dev;
    comm *c = calloc(1, sizeof *c);
    seat *own = calloc(1, sizeof *own);
    if (!c || !own) {
        err_set(e, ERR_NOMEM, "out of memory");
        goto fail;
    }
    *own = (seat){{host}, m, gpu_event_new(dev, false), gpu_event_new(dev, false)};
    *c = (comm){&virtual_ops, host->rank, host->world, host->timeout_s, own};
    if (own->here && own->done) return c;
    err_set(e, ERR_DEVICE, "%s", gpu_error(dev) ? gpu_error(dev) : "no event");
    gpu_event_free(own->here);
    gpu_event_free(own->done);
fail:
    free(own);
    free(c);
    return NULL;
}
