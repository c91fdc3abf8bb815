/* comm_procs.c - collectives between processes, over a port that moves bytes.
 *
 * Small sums: everybody sends its values to everybody and adds up for itself, in rank order (one
 * trip).  Large ones: rank r adds up its share of the values for all (two trips, less to send).
 * Either way comm_sum makes the sum, so bits are those of threads.  Values travel in pieces, so
 * that staging is bounded whatever the step. Every wait polls: it spins for a moment, then sleeps
 * ever longer, so that waiting ranks neither add to a step nor burn a core while there is nothing
 * to do.  It ends when what it waits for is there, at its deadline, or when a rank says that all is
 * over. Owns its staging memory and the requests under way.  Refuses, as a fault: what does not
 * have the size that was agreed on.  Thread: see comm.h; the port is behind a lock. */
#include "kernels/comm_procs.h"
#include "base/clock.h"
#include "kernels/comm_watch.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    WHY_BYTES = 192,
    PIECE = 8 << 20,         /* bytes of one transfer of a collective */
    DIRECT_MAX = 256 << 10,  /* up to here a sum is made by everybody for itself */
    MAX_MESSAGE = 256 << 20, /* far above any step */
    LEAVE_S = 5              /* how long the last meeting may take */
};

/* Tags: what a transfer belongs to.  Collectives number their pieces, so that one left half done
 * can never be taken for the next. */
enum { TAG_ABORT = 1, TAG_HEAD, TAG_BODY, TAG_FIRST = 16, TAG_KINDS = 8, TAG_ROUND = 2000 };
typedef enum { MEET_SUM, MEET_GATHER, MEET_BROADCAST, MEET_EXCHANGE, MEET_BARRIER } meeting;
static const char *const meeting_names[] = {"all_reduce", "gather_rows", "broadcast", "exchange",
                                            "barrier"};

/* One send or receive. */
typedef struct {
    port_request q;
    int peer;
    bool open, incoming;
    size_t want;
} flight;

typedef struct {
    flight f[2 * COMM_MAX_RANKS];
    int n;
} flights;

/* A message of rank 0 on its way. */
typedef struct {
    uint64_t head;
    char *v;
    size_t cap;
    flights out;
} outgoing;

typedef struct procs procs;
struct procs {
    const comm_port *port;
    void *ctx;
    comm_watch *watch;  /* NULL: nobody to watch */
    pthread_mutex_t mu; /* around every call of the port, and why */
    atomic_bool over;
    char why[WHY_BYTES];  /* const once over */
    char told[WHY_BYTES]; /* what another rank says when it ends everything */
    port_request tell;    /* the receive for it */
    flights farewell;     /* our own word, when we do */
    unsigned round;
    void *in; /* pieces of every rank; [world * PIECE] once needed */
    size_t in_cap;
    void *stage; /* host copy of device memory */
    size_t stage_cap;
    outgoing msg[2];
    unsigned n_sent;
    void *got; /* the message last received */
    size_t got_cap;
    procs *next;
};

/* When every wait of this process ends at the latest; 0: nobody is in a hurry. */
static atomic_llong hurry_us;

/* Closed after a fault: transfers may still be under way, so their memory stays. */
static _Atomic(procs *) left_behind;

static procs *procs_of(const comm *c)
{
    return c->state;
}

/* ---- ending ---------------------------------------------------------------------------------- */

static int is_over(procs *p, err *e)
{
    pthread_mutex_lock(&p->mu);
    int rc = err_set(e, ERR_DEVICE, "%s", p->why);
    pthread_mutex_unlock(&p->mu);
    return rc;
}

/* The first reason stays.  Under mu. */
static bool set_over(procs *p, const char *why)
{
    if (atomic_load(&p->over)) return false;
    snprintf(p->why, sizeof p->why, "%.*s", WHY_BYTES - 1, why);
    atomic_store(&p->over, true);
    return true;
}

/* Sends the reason to all and gives it a moment to leave: nothing moves once nobody waits. */
static void abort_procs(comm *c, const char *why)
{
    procs *p = procs_of(c);
    int64_t end = clock_us() + 200000;
    pthread_mutex_lock(&p->mu);
    bool first = set_over(p, why);
    for (int r = 0; first && r < c->world; r++) {
        flight *f = &p->farewell.f[p->farewell.n];
        if (r == c->rank || p->port->send(p->ctx, r, TAG_ABORT, p->why, WHY_BYTES, &f->q)) continue;
        f->open = true;
        p->farewell.n++;
    }
    for (int left = first ? p->farewell.n : 0; left && clock_us() < end;) {
        left = 0;
        for (int i = 0; i < p->farewell.n; i++) {
            flight *f = &p->farewell.f[i];
            bool done = true;
            if (f->open && p->port->test(p->ctx, &f->q, &done, NULL)) done = true;
            f->open = f->open && !done;
            left += f->open;
        }
        if (left) sched_yield();
    }
    pthread_mutex_unlock(&p->mu);
}

/* Ends everything because of what this rank saw; `why` as it goes to all. */
static int give_up(comm *c, err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int give_up(comm *c, err *e, const char *fmt, ...)
{
    char why[WHY_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    abort_procs(c, why);
    return is_over(procs_of(c), e);
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Between two looks: at first not at all, so that a step is not delayed; after a millisecond ever
 * longer, so that an idle rank takes no core. */
static void pause_for(int64_t waited_us)
{
    if (waited_us < 1000) {
        sched_yield();
        return;
    }
    long us = waited_us < 10000 ? 100 : waited_us < 1000000 ? 500 : 4000;
    nanosleep(&(struct timespec){0, us * 1000}, NULL);
}

static int64_t deadline_in(double seconds)
{
    return seconds > 0 && seconds < 1e9 ? clock_us() + (int64_t)(seconds * 1e6) : INT64_MAX;
}

/* Looks once at all that is under way; how many are still open, or -1 with words in *bad.  Under
 * mu. */
static int look(procs *p, flights *all, const char **bad, int *peer)
{
    int open = 0;
    for (int i = 0; i < all->n; i++) {
        flight *f = &all->f[i];
        bool done = false;
        size_t bytes = f->want;
        if (!f->open) continue;
        *peer = f->peer;
        if ((*bad = p->port->test(p->ctx, &f->q, &done, f->incoming ? &bytes : NULL))) return -1;
        if (done && bytes != f->want) {
            *bad = "sent something of another size";
            return -1;
        }
        f->open = !done;
        open += f->open;
    }
    return open;
}

/* Whether another rank ended it all; under mu. */
static void hear_abort(procs *p)
{
    bool done = false;
    if (atomic_load(&p->over) || p->port->test(p->ctx, &p->tell, &done, NULL) || !done) return;
    p->told[WHY_BYTES - 1] = 0;
    set_over(p, p->told);
}

/* Which rank is missed: one that something should come from, before one that takes nothing. */
static int missed(const flights *all)
{
    int who = -1;
    for (int i = 0; i < all->n; i++)
        if (all->f[i].open && (who < 0 || all->f[i].incoming)) who = all->f[i].peer;
    return who;
}

/* Until everything under way is done. */
static int wait_all(comm *c, flights *all, const char *what, double timeout_s, err *e)
{
    procs *p = procs_of(c);
    int64_t from = clock_us(), deadline = deadline_in(timeout_s);
    for (;;) {
        const char *bad = NULL;
        int peer = -1;
        pthread_mutex_lock(&p->mu);
        int open = atomic_load(&p->over) ? -1 : look(p, all, &bad, &peer);
        if (open) hear_abort(p);
        pthread_mutex_unlock(&p->mu);
        if (!open) return 0;
        if (atomic_load(&p->over)) return is_over(p, e);
        if (open < 0)
            return give_up(c, e, "rank %d: %s with rank %d: %s", c->rank, what, peer, bad);
        int64_t now = clock_us(), hurry = atomic_load(&hurry_us);
        if (now > deadline)
            return give_up(c, e, "rank %d did not come to %s within %g s", missed(all), what,
                           timeout_s);
        if (hurry && now > hurry)
            return give_up(c, e, "rank %d did not come to %s while the launcher ends all ranks",
                           missed(all), what);
        pause_for(now - from);
    }
}

/* Starts one transfer; a failure is a fault. */
static int launch(comm *c, flights *all, bool incoming, int peer, int tag, const void *v,
                  size_t bytes, err *e)
{
    procs *p = procs_of(c);
    flight *f = &all->f[all->n];
    if (!bytes) return 0;
    assert(all->n < (int)(sizeof all->f / sizeof *all->f));
    *f = (flight){.peer = peer, .open = true, .incoming = incoming, .want = bytes};
    pthread_mutex_lock(&p->mu);
    void *to = (void *)(uintptr_t)v;
    const char *bad = atomic_load(&p->over) ? ""
                      : incoming            ? p->port->recv(p->ctx, peer, tag, to, bytes, &f->q)
                                            : p->port->send(p->ctx, peer, tag, v, bytes, &f->q);
    pthread_mutex_unlock(&p->mu);
    if (bad && !*bad) return is_over(p, e);
    if (bad) return give_up(c, e, "rank %d: with rank %d: %s", c->rank, peer, bad);
    all->n++;
    return 0;
}

static int tag_of(const procs *p, meeting kind)
{
    return TAG_FIRST + (int)kind + TAG_KINDS * (int)(p->round % TAG_ROUND);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Grows *v to bytes; NULL with everything ended. */
static void *need(comm *c, void **v, size_t *cap, size_t bytes, err *e)
{
    if (bytes <= *cap) return *v;
    void *p = realloc(*v, bytes);
    if (!p) {
        give_up(c, e, "rank %d: out of memory for %zu bytes between ranks", c->rank, bytes);
        return NULL;
    }
    *v = p;
    *cap = bytes;
    return p;
}

static bool is_device(const backend *be)
{
    return be->op->download != NULL;
}

/* Host memory of `bytes` for device values. */
static void *stage(comm *c, size_t bytes, err *e)
{
    procs *p = procs_of(c);
    return need(c, &p->stage, &p->stage_cap, bytes, e);
}

/* ---- collectives on plain memory ------------------------------------------------------------- */

/* all[r] = what rank r sends: own[bytes] of everybody, own included. */
static int trade(comm *c, meeting kind, const void *own, size_t bytes, const void **all, err *e)
{
    procs *p = procs_of(c);
    flights f = {.n = 0};
    int tag = tag_of(p, kind), rc = 0;
    char *in = need(c, &p->in, &p->in_cap, (size_t)c->world * bytes, e);
    if (!in) return ERR_DEVICE;
    p->round++;
    for (int r = 0; !rc && r < c->world; r++) {
        all[r] = r == c->rank ? own : in + (size_t)r * bytes;
        if (r != c->rank) rc = launch(c, &f, true, r, tag, all[r], bytes, e);
    }
    for (int r = 0; !rc && r < c->world; r++)
        if (r != c->rank) rc = launch(c, &f, false, r, tag, own, bytes, e);
    return rc ? rc : wait_all(c, &f, meeting_names[kind], c->timeout_s, e);
}

static size_t size_of(act_type type)
{
    return type == ACT_BF16 ? 2 : 4;
}

/* Share of rank r in n values. */
static size_t share_at(size_t n, int world, int r)
{
    size_t each = (n / (size_t)world + 31) / 32 * 32, at = each * (size_t)r;
    return at > n || r == world ? n : at;
}

/* Rank r sums its share of x[n] for all. */
static int sum_shares(comm *c, char *x, size_t n, act_type type, err *e)
{
    procs *p = procs_of(c);
    flights f = {.n = 0};
    size_t size = size_of(type), from = share_at(n, c->world, c->rank);
    size_t own = (share_at(n, c->world, c->rank + 1) - from) * size;
    const void *src[COMM_MAX_RANKS];
    int tag = tag_of(p, MEET_SUM), rc = 0;
    char *in = need(c, &p->in, &p->in_cap, (size_t)c->world * own, e);
    if (!in) return ERR_DEVICE;
    p->round++;
    for (int r = 0; !rc && r < c->world; r++) {
        size_t at = share_at(n, c->world, r) * size, end = share_at(n, c->world, r + 1) * size;
        src[r] = r == c->rank ? x + from * size : in + (size_t)r * own;
        if (r == c->rank) continue;
        rc = launch(c, &f, true, r, tag, src[r], own, e);
        if (!rc) rc = launch(c, &f, false, r, tag, x + at, end - at, e);
    }
    if (!rc) rc = wait_all(c, &f, "all_reduce", c->timeout_s, e);
    if (rc) return rc;
    if (own) comm_sum(x + from * size, src, c->world, own / size, type);
    f.n = 0;
    tag = tag_of(p, MEET_SUM);
    p->round++;
    for (int r = 0; !rc && r < c->world; r++) {
        size_t at = share_at(n, c->world, r) * size, end = share_at(n, c->world, r + 1) * size;
        if (r == c->rank) continue;
        rc = launch(c, &f, true, r, tag, x + at, end - at, e);
        if (!rc) rc = launch(c, &f, false, r, tag, x + from * size, own, e);
    }
    return rc ? rc : wait_all(c, &f, "all_reduce", c->timeout_s, e);
}

static int sum(comm *c, char *x, size_t n, act_type type, err *e)
{
    const void *all[COMM_MAX_RANKS];
    size_t size = size_of(type);
    int rc = 0;
    for (size_t at = 0; !rc && at < n; at += PIECE / size) {
        size_t m = n - at < PIECE / size ? n - at : PIECE / size;
        char *v = x + at * size;
        if (c->world > 2 && m * size > DIRECT_MAX) {
            rc = sum_shares(c, v, m, type, e);
            continue;
        }
        rc = trade(c, MEET_SUM, v, m * size, all, e);
        if (!rc) comm_sum(v, all, c->world, m, type);
    }
    return rc;
}

/* x[bytes] of rank 0 to all. */
static int hand_out(comm *c, meeting kind, char *x, size_t bytes, err *e)
{
    procs *p = procs_of(c);
    int rc = 0;
    for (size_t at = 0; !rc && at < bytes; at += PIECE) {
        flights f = {.n = 0};
        size_t m = bytes - at < PIECE ? bytes - at : PIECE;
        int tag = tag_of(p, kind);
        p->round++;
        for (int r = 1; !rc && c->rank == 0 && r < c->world; r++)
            rc = launch(c, &f, false, r, tag, x + at, m, e);
        if (c->rank) rc = launch(c, &f, true, 0, tag, x + at, m, e);
        if (!rc) rc = wait_all(c, &f, meeting_names[kind], c->timeout_s, e);
    }
    return rc;
}

/* One piece of gathered rows: rows[n] of own bytes, packed; rank 0 takes them apart. */
static int gather_piece(comm *c, char *dst, size_t dst_ld, const char *own, const size_t *bytes,
                        size_t n, err *e)
{
    procs *p = procs_of(c);
    flights f = {.n = 0};
    int tag = tag_of(p, MEET_GATHER), rc = 0;
    size_t all = 0, at = 0;
    p->round++;
    for (int r = 0; r < c->world; r++) all += n * bytes[r];
    char *in = c->rank ? NULL : need(c, &p->in, &p->in_cap, all ? all : 1, e);
    if (c->rank) rc = launch(c, &f, false, 0, tag, own, n * bytes[c->rank], e);
    else if (!in) return ERR_DEVICE;
    for (int r = 1; !rc && in && r < c->world; r++) {
        at += n * bytes[r - 1];
        rc = launch(c, &f, true, r, tag, in + at, n * bytes[r], e);
    }
    if (!rc) rc = wait_all(c, &f, "gather_rows", c->timeout_s, e);
    if (rc || c->rank) return rc;
    memcpy(in, own, n * bytes[0]);
    size_t column = 0;
    for (int r = 0; r < c->world; r++) {
        for (size_t i = 0; i < n; i++)
            memcpy(dst + i * dst_ld + column, in + i * bytes[r], bytes[r]);
        column += bytes[r];
        in += n * bytes[r];
    }
    return 0;
}

/* ---- the ops --------------------------------------------------------------------------------- */

static void all_reduce(comm *c, backend *be, void *x, size_t n, act_type type)
{
    err e = {0};
    size_t bytes = n * size_of(type);
    if (be->fault[0]) return;
    void *host = is_device(be) ? stage(c, bytes, &e) : x;
    if (host && is_device(be)) k_download(be, host, x, bytes);
    int rc = host ? sum(c, host, n, type, &e) : ERR_DEVICE;
    if (rc) k_fault(be, "all_reduce", "%s", e.msg);
    else if (is_device(be)) k_upload(be, x, host, bytes);
}

/* Rows [at, at + n) of a gather: packed on this rank, whole on rank 0. */
static int gather_some(comm *c, backend *be, char *dst, size_t dst_ld, const char *src,
                       size_t src_ld, const size_t *bytes, size_t n, err *e)
{
    size_t row = 0, own = bytes[c->rank];
    for (int r = 0; r < c->world; r++) row += bytes[r];
    char *pack = stage(c, n * (own + row), e);
    if (!pack) return ERR_DEVICE;
    for (size_t i = 0; i < n; i++) {
        if (is_device(be)) k_download(be, pack + i * own, src + i * src_ld, own);
        else memcpy(pack + i * own, src + i * src_ld, own);
    }
    if (!is_device(be)) return gather_piece(c, dst, dst_ld, pack, bytes, n, e);
    char *whole = pack + n * own;
    int rc = gather_piece(c, whole, row, pack, bytes, n, e);
    for (size_t i = 0; !rc && dst && i < n; i++)
        k_upload(be, dst + i * dst_ld, whole + i * row, row);
    return rc;
}

static void gather_rows(comm *c, backend *be, void *dst, size_t dst_ld, const void *src,
                        size_t src_ld, const size_t *bytes, int rows)
{
    err e = {0};
    size_t row = 0, all = (size_t)rows;
    if (be->fault[0]) return;
    for (int r = 0; r < c->world; r++) row += bytes[r];
    size_t most = row && row < PIECE ? PIECE / row : 1;
    int rc = 0;
    for (size_t at = 0; !rc && row && at < all; at += most)
        rc = gather_some(c, be, dst ? (char *)dst + at * dst_ld : NULL, dst_ld,
                         (const char *)src + at * src_ld, src_ld, bytes,
                         all - at < most ? all - at : most, &e);
    if (rc) k_fault(be, "gather_rows", "%s", e.msg);
}

static void broadcast(comm *c, backend *be, void *x, size_t bytes)
{
    err e = {0};
    if (be->fault[0]) return;
    void *host = is_device(be) ? stage(c, bytes, &e) : x;
    if (host && is_device(be) && c->rank == 0) k_download(be, host, x, bytes);
    int rc = host ? hand_out(c, MEET_BROADCAST, host, bytes, &e) : ERR_DEVICE;
    if (rc) k_fault(be, "broadcast", "%s", e.msg);
    else if (is_device(be) && c->rank) k_upload(be, x, host, bytes);
}

static int exchange(comm *c, void *dst, const void *src, size_t bytes, err *e)
{
    const void *all[COMM_MAX_RANKS];
    int rc = 0;
    for (size_t at = 0; !rc && at < bytes; at += PIECE) {
        size_t m = bytes - at < PIECE ? bytes - at : PIECE;
        rc = trade(c, MEET_EXCHANGE, (const char *)src + at, m, all, e);
        for (int r = 0; !rc && r < c->world; r++)
            memcpy((char *)dst + (size_t)r * bytes + at, all[r], m);
    }
    return rc;
}

static int barrier(comm *c, double timeout_s, err *e)
{
    procs *p = procs_of(c);
    flights f = {.n = 0};
    char here = 1, there[COMM_MAX_RANKS];
    int tag = tag_of(p, MEET_BARRIER), rc = 0;
    p->round++;
    for (int r = 0; !rc && r < c->world; r++) {
        if (r == c->rank) continue;
        rc = launch(c, &f, true, r, tag, &there[r], 1, e);
        if (!rc) rc = launch(c, &f, false, r, tag, &here, 1, e);
    }
    return rc ? rc : wait_all(c, &f, "barrier", timeout_s, e);
}

/* ---- messages -------------------------------------------------------------------------------- */

static int send_all(comm *c, const void *msg, size_t bytes, err *e)
{
    procs *p = procs_of(c);
    outgoing *o = &p->msg[p->n_sent & 1];
    if (bytes < 1 || bytes > MAX_MESSAGE)
        return err_set(e, ERR_LIMIT, "a message of %zu bytes between ranks; %d is the most", bytes,
                       MAX_MESSAGE);
    int rc = wait_all(c, &o->out, "take a message", c->timeout_s, e);
    if (rc) return rc;
    if (!need(c, (void **)&o->v, &o->cap, bytes, e)) return ERR_DEVICE;
    o->out.n = 0;
    o->head = bytes;
    memcpy(o->v, msg, bytes);
    p->n_sent++;
    for (int r = 1; !rc && r < c->world; r++) {
        rc = launch(c, &o->out, false, r, TAG_HEAD, &o->head, sizeof o->head, e);
        if (!rc) rc = launch(c, &o->out, false, r, TAG_BODY, o->v, bytes, e);
    }
    return rc;
}

static int receive(comm *c, const void **msg, size_t *bytes, err *e)
{
    procs *p = procs_of(c);
    flights f = {.n = 0};
    uint64_t head = 0;
    int rc = launch(c, &f, true, 0, TAG_HEAD, &head, sizeof head, e);
    if (!rc) rc = wait_all(c, &f, "send a message", 0, e);
    if (rc) return rc;
    if (head < 1 || head > MAX_MESSAGE)
        return give_up(c, e, "rank %d: rank 0 announced a message of %llu bytes", c->rank,
                       (unsigned long long)head);
    if (!need(c, &p->got, &p->got_cap, head, e)) return ERR_DEVICE;
    f.n = 0;
    rc = launch(c, &f, true, 0, TAG_BODY, p->got, head, e);
    if (!rc) rc = wait_all(c, &f, "send a message", c->timeout_s, e);
    *msg = p->got;
    *bytes = head;
    return rc;
}

/* ---- watching -------------------------------------------------------------------------------- */

void comm_procs_hurry(double seconds)
{
    atomic_store(&hurry_us, seconds > 0 ? clock_us() + (int64_t)(seconds * 1e6) : 0);
}

bool comm_procs_lost(const comm *c, char *why, size_t n)
{
    procs *p = procs_of(c);
    if (!atomic_load(&p->over)) return false;
    pthread_mutex_lock(&p->mu);
    snprintf(why, n, "%s", p->why);
    pthread_mutex_unlock(&p->mu);
    return true;
}

/* ---- opening and closing --------------------------------------------------------------------- */

static void procs_free(procs *p)
{
    free(p->in);
    free(p->stage);
    free(p->got);
    for (int i = 0; i < 2; i++) free(p->msg[i].v);
    pthread_mutex_destroy(&p->mu);
    free(p);
}

/* After a fault the port is left as it is: it might wait for ever for the rank that is gone. */
static void close_procs(comm *c)
{
    procs *p = procs_of(c);
    comm_watch_stop(p->watch);
    if (!atomic_load(&p->over) && !barrier(c, LEAVE_S, NULL)) {
        p->port->cancel(p->ctx, &p->tell);
        p->port->finish(p->ctx);
        procs_free(p);
    } else {
        p->next = atomic_load(&left_behind);
        while (!atomic_compare_exchange_weak(&left_behind, &p->next, p)) continue;
    }
    free(c);
}

static const comm_ops procs_ops = {.name = "mpi",
                                   .all_reduce = all_reduce,
                                   .gather_rows = gather_rows,
                                   .broadcast = broadcast,
                                   .exchange = exchange,
                                   .send = send_all,
                                   .receive = receive,
                                   .barrier = barrier,
                                   .abort = abort_procs,
                                   .close = close_procs};

comm *comm_procs_over(const comm_port *port, void *ctx, double timeout_s, err *e)
{
    procs *p = calloc(1, sizeof *p);
    comm *c = calloc(1, sizeof *c);
    if (!p || !c) {
        err_set(e, ERR_NOMEM, "out of memory");
        goto fail;
    }
    *p = (procs){.port = port, .ctx = ctx};
    *c = (comm){.op = &procs_ops, .timeout_s = timeout_s, .state = p};
    pthread_mutex_init(&p->mu, NULL);
    const char *bad = port->start(ctx, &c->rank, &c->world);
    if (!bad && (c->world < 1 || c->world > COMM_MAX_RANKS))
        bad = "too many ranks: 64 are the most";
    if (!bad) bad = port->recv(ctx, -1, TAG_ABORT, p->told, sizeof p->told, &p->tell);
    if (bad) {
        err_set(e, ERR_DEVICE, "%s: %s", port->name, bad);
        goto fail;
    }
    if (c->world == 1 || !comm_watch_start(&p->watch, c, e)) return c;
    comm_close(c);
    return NULL;
fail:
    free(p);
    free(c);
    return NULL;
}
