/* comm_thread.c - ranks that are threads of this process: collectives over shared memory.
 *
 * Every rank has a seat in a room.  It puts down what it brings, counts up `came` and waits until
 * the others have come as far.  Small sums go through a slot per rank (one meeting: a slot is used
 * again only at the next but one, and nobody gets there before all have left this one); large ones
 * are made in place, each rank summing its share of the values for all (two meetings).  Waiting
 * spins for a moment, then sleeps.
 * Backends whose memory is not the host's are served through copies, so such a pass is not
 * recordable.
 * Owns the room.  Refuses worlds above COMM_MAX_RANKS; ranks that meet for different things (a
 * fault).  Thread: see comm.h. */
#include "base/clock.h"
#include "base/sysinfo.h"
#include "kernels/comm.h"
#include "kernels/cpu/simd.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SLOT_BYTES = 64 << 10,
    /* Pauses before sleeping: about the time a rank of a decode step may be behind, if each has a
     * core; next to nothing where ranks share cores and waiting takes the time of the awaited. */
    SPIN_ALONE = 20000,
    SPIN_SHARED = 50
};

/* What a rank brings to a meeting. */
typedef struct {
    const char *what;
    void *x;
    size_t bytes, ld;
} offer;

typedef struct {
    _Alignas(64) atomic_ullong came; /* meetings this rank has come to */
    atomic_ullong heard;             /* messages it has asked for */
    /* Of meeting n in n % 2: the next may be prepared while somebody still looks at this one. */
    offer brings[2];
    char *slot[2]; /* [SLOT_BYTES] each */
    void *stage;   /* host copy of device memory */
    size_t stage_cap;
} seat;

typedef struct {
    int world, spin;
    atomic_int n_open;
    seat *seats; /* [world] */
    char *slots; /* what seats[].slot points into */
    _Alignas(64) atomic_ullong n_sent;
    struct {
        char *v;
        size_t len, cap;
    } msg[2]; /* message k in k % 2 */
    /* Sleeping and ending. */
    _Alignas(64) atomic_int asleep;
    atomic_bool aborted;
    pthread_mutex_t mu;
    pthread_cond_t cv;
    char why[160]; /* under mu; const once aborted */
} room;

static room *room_of(const comm *c)
{
    return c->state;
}

static seat *own_seat(const comm *c)
{
    return &room_of(c)->seats[c->rank];
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void wake_sleepers(room *m)
{
    if (!atomic_load(&m->asleep)) return;
    pthread_mutex_lock(&m->mu);
    pthread_cond_broadcast(&m->cv);
    pthread_mutex_unlock(&m->mu);
}

/* Counts up for others to see.  Sequentially consistent, as are the loads before sleeping: either
 * the sleeper sees the count or the counter sees the sleeper. */
static void count_up(room *m, atomic_ullong *word)
{
    atomic_fetch_add(word, 1);
    wake_sleepers(m);
}

static int sleep_until(room *m, atomic_ullong *word, unsigned long long want, int64_t deadline_us)
{
    struct timespec t = {deadline_us / 1000000, deadline_us % 1000000 * 1000};
    int rc = 0;
    pthread_mutex_lock(&m->mu);
    atomic_fetch_add(&m->asleep, 1);
    while (!rc && atomic_load(word) < want) {
        if (atomic_load(&m->aborted)) rc = ERR_DEVICE;
        else if (deadline_us == INT64_MAX) pthread_cond_wait(&m->cv, &m->mu);
        else if (pthread_cond_timedwait(&m->cv, &m->mu, &t) && atomic_load(word) < want)
            rc = ERR_DEADLINE;
    }
    atomic_fetch_sub(&m->asleep, 1);
    pthread_mutex_unlock(&m->mu);
    return rc;
}

/* Until *word >= want: 0, ERR_DEADLINE, or ERR_DEVICE once somebody aborted. */
static int wait_for(room *m, atomic_ullong *word, unsigned long long want, int64_t deadline_us)
{
    for (int i = 0; i < m->spin; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) >= want) return 0;
        if (atomic_load_explicit(&m->aborted, memory_order_relaxed)) return ERR_DEVICE;
        cpu_relax();
    }
    return sleep_until(m, word, want, deadline_us);
}

static void abort_room(comm *c, const char *why)
{
    room *m = room_of(c);
    pthread_mutex_lock(&m->mu);
    if (!atomic_load(&m->aborted)) {
        snprintf(m->why, sizeof m->why, "%s", why);
        atomic_store(&m->aborted, true);
    }
    pthread_cond_broadcast(&m->cv);
    pthread_mutex_unlock(&m->mu);
}

static int aborted(room *m, err *e)
{
    pthread_mutex_lock(&m->mu);
    int rc = err_set(e, ERR_DEVICE, "%s", m->why);
    pthread_mutex_unlock(&m->mu);
    return rc;
}

static int64_t deadline_in(double seconds)
{
    return seconds > 0 ? clock_us() + (int64_t)(seconds * 1e6) : INT64_MAX;
}

/* ---- meeting --------------------------------------------------------------------------------- */

static unsigned long long next_meeting(const comm *c)
{
    return atomic_load_explicit(&own_seat(c)->came, memory_order_relaxed) + 1;
}

/* Comes to the next meeting and waits for everybody. */
static int meet(comm *c, const char *what, double timeout_s, err *e)
{
    room *m = room_of(c);
    seat *own = own_seat(c);
    unsigned long long n = next_meeting(c);
    if (atomic_load(&m->aborted)) return aborted(m, e);
    count_up(m, &own->came);
    int64_t deadline = deadline_in(timeout_s);
    for (int i = 1; i < m->world; i++) {
        int r = (c->rank + i) % m->world;
        int rc = wait_for(m, &m->seats[r].came, n, deadline);
        if (!rc) continue;
        if (rc == ERR_DEADLINE) {
            char why[sizeof m->why];
            snprintf(why, sizeof why, "rank %d did not come to %s within %g s", r, what, timeout_s);
            abort_room(c, why);
        }
        return aborted(m, e);
    }
    return 0;
}

/* Puts down an offer and meets; everybody must have come for the same.  *all[world] gets what the
 * others brought: theirs until the meeting after next. */
static int bring(comm *c, offer o, const offer **all, err *e)
{
    room *m = room_of(c);
    int parity = (int)(next_meeting(c) & 1);
    own_seat(c)->brings[parity] = o;
    int rc = meet(c, o.what, c->timeout_s, e);
    for (int r = 0; !rc && r < m->world; r++) {
        const offer *x = all[r] = &m->seats[r].brings[parity];
        if (!strcmp(x->what, o.what) && x->bytes == o.bytes) continue;
        comm_abort(c, "came to %s of %zu bytes, rank %d to %s of %zu", o.what, o.bytes, r, x->what,
                   x->bytes);
        rc = aborted(m, e);
    }
    return rc;
}

/* Nobody leaves before all are done with each other's memory. */
static int leave(comm *c, const char *what, err *e)
{
    return meet(c, what, c->timeout_s, e);
}

static void fault(backend *be, const char *what, const err *e)
{
    k_fault(be, what, "%s", e->msg);
}

/* ---- device memory --------------------------------------------------------------------------- */

static bool is_device(const backend *be)
{
    return be->op->download != NULL;
}

/* Host memory of this rank for `bytes`; grows to the largest step's once.  NULL with a fault. */
static void *stage(comm *c, backend *be, const char *what, size_t bytes)
{
    seat *s = own_seat(c);
    if (bytes <= s->stage_cap) return s->stage;
    void *p = realloc(s->stage, bytes);
    if (!p) {
        comm_abort(c, "out of memory for %zu bytes of %s", bytes, what);
        k_fault(be, what, "out of memory for %zu bytes", bytes);
        return NULL;
    }
    s->stage = p;
    s->stage_cap = bytes;
    return p;
}

/* ---- collectives ----------------------------------------------------------------------------- */

/* Small: every rank sums all slots for itself. */
static int reduce_in_slots(comm *c, void *x, size_t n, act_type type, err *e)
{
    room *m = room_of(c);
    const void *src[COMM_MAX_RANKS];
    const offer *all[COMM_MAX_RANKS];
    size_t bytes = n * (type == ACT_BF16 ? 2 : 4);
    char *slot = own_seat(c)->slot[next_meeting(c) & 1];
    memcpy(slot, x, bytes);
    int rc = bring(c, (offer){"all_reduce", slot, bytes, 0}, all, e);
    if (rc) return rc;
    for (int r = 0; r < m->world; r++) src[r] = all[r]->x;
    comm_sum(x, src, m->world, n, type);
    return 0;
}

/* Large: rank r sums its share in place and hands it to all. */
static int reduce_in_place(comm *c, void *x, size_t n, act_type type, err *e)
{
    room *m = room_of(c);
    const void *src[COMM_MAX_RANKS];
    const offer *all[COMM_MAX_RANKS];
    size_t size = type == ACT_BF16 ? 2 : 4, world = (size_t)m->world;
    int rc = bring(c, (offer){"all_reduce", x, n * size, 0}, all, e);
    if (rc) return rc;
    /* Shares begin on cache lines, so that no two ranks write one. */
    size_t share = (n / world + 31) / 32 * 32, from = share * (size_t)c->rank;
    size_t len = from >= n ? 0 : n - from < share || c->rank + 1 == m->world ? n - from : share;
    for (int r = 0; r < m->world; r++) src[r] = (char *)all[r]->x + from * size;
    if (len) comm_sum((char *)x + from * size, src, m->world, len, type);
    for (int r = 0; r < m->world; r++)
        if (len && r != c->rank)
            memcpy((char *)all[r]->x + from * size, (char *)x + from * size, len * size);
    return leave(c, "all_reduce", e);
}

static void all_reduce(comm *c, backend *be, void *x, size_t n, act_type type)
{
    size_t bytes = n * (type == ACT_BF16 ? 2 : 4);
    void *host = is_device(be) ? stage(c, be, "all_reduce", bytes) : x;
    err e = {0};
    if (!host || be->fault[0]) return;
    if (is_device(be)) k_download(be, host, x, bytes);
    int rc = bytes <= SLOT_BYTES ? reduce_in_slots(c, host, n, type, &e)
                                 : reduce_in_place(c, host, n, type, &e);
    if (rc) fault(be, "all_reduce", &e);
    else if (is_device(be)) k_upload(be, x, host, bytes);
}

/* Rank 0 takes every rank's rows. */
static void take_rows(const offer *const *all, int world, char *dst, size_t dst_ld,
                      const size_t *bytes, int rows)
{
    for (int i = 0; i < rows; i++) {
        char *to = dst + (size_t)i * dst_ld;
        for (int r = 0; r < world; to += bytes[r++])
            memcpy(to, (const char *)all[r]->x + (size_t)i * all[r]->ld, bytes[r]);
    }
}

static void gather_rows(comm *c, backend *be, void *dst, size_t dst_ld, const void *src,
                        size_t src_ld, const size_t *bytes, int rows)
{
    static const char what[] = "gather_rows";
    size_t n_rows = (size_t)rows, own = bytes[c->rank], row = 0;
    void *host = (void *)(uintptr_t)src, *out = dst;
    err e = {0};
    if (be->fault[0]) return;
    for (int r = 0; r < c->world; r++) row += bytes[r];
    if (is_device(be)) {
        if (!(host = stage(c, be, what, n_rows * (own + (dst ? row : 0))))) return;
        for (size_t i = 0; i < n_rows; i++)
            k_download(be, (char *)host + i * own, (const char *)src + i * src_ld, own);
        src_ld = own;
        out = (char *)host + n_rows * own;
    }
    const offer *all[COMM_MAX_RANKS];
    int rc = bring(c, (offer){what, host, n_rows * row, src_ld}, all, &e);
    if (!rc && dst) take_rows(all, c->world, out, is_device(be) ? row : dst_ld, bytes, rows);
    if (!rc) rc = leave(c, what, &e);
    if (rc) fault(be, what, &e);
    else if (dst && is_device(be))
        for (size_t i = 0; i < n_rows; i++)
            k_upload(be, (char *)dst + i * dst_ld, (char *)out + i * row, row);
}

static void broadcast(comm *c, backend *be, void *x, size_t bytes)
{
    static const char what[] = "broadcast";
    void *host = is_device(be) ? stage(c, be, what, bytes) : x;
    err e = {0};
    if (!host || be->fault[0]) return;
    if (is_device(be) && c->rank == 0) k_download(be, host, x, bytes);
    const offer *all[COMM_MAX_RANKS];
    int rc = bring(c, (offer){what, host, bytes, 0}, all, &e);
    if (!rc && c->rank) memcpy(host, all[0]->x, bytes);
    if (!rc) rc = leave(c, what, &e);
    if (rc) fault(be, what, &e);
    else if (is_device(be) && c->rank) k_upload(be, x, host, bytes);
}

static int exchange(comm *c, void *dst, const void *src, size_t bytes, err *e)
{
    const offer *all[COMM_MAX_RANKS];
    int rc = bring(c, (offer){"exchange", (void *)(uintptr_t)src, bytes, 0}, all, e);
    for (int r = 0; !rc && r < c->world; r++)
        memcpy((char *)dst + (size_t)r * bytes, all[r]->x, bytes);
    return rc ? rc : leave(c, "exchange", e);
}

static int barrier(comm *c, double timeout_s, err *e)
{
    return meet(c, "barrier", timeout_s, e);
}

/* ---- messages -------------------------------------------------------------------------------- */

static int send_all(comm *c, const void *msg, size_t bytes, err *e)
{
    room *m = room_of(c);
    unsigned long long k = atomic_load_explicit(&m->n_sent, memory_order_relaxed) + 1;
    int64_t deadline = deadline_in(c->timeout_s);
    if (atomic_load(&m->aborted)) return aborted(m, e);
    /* The buffer held message k - 2; whoever asks for k - 1 has done with it. */
    for (int r = 1; r < m->world; r++) {
        int rc = k < 3 ? 0 : wait_for(m, &m->seats[r].heard, k - 1, deadline);
        if (rc == ERR_DEADLINE) {
            char why[sizeof m->why];
            snprintf(why, sizeof why, "rank %d did not take a message within %g s", r,
                     c->timeout_s);
            abort_room(c, why);
        }
        if (rc) return aborted(m, e);
    }
    if (bytes > m->msg[k & 1].cap) {
        char *p = realloc(m->msg[k & 1].v, bytes);
        if (!p) return err_set(e, ERR_NOMEM, "out of memory for a message of %zu bytes", bytes);
        m->msg[k & 1].v = p;
        m->msg[k & 1].cap = bytes;
    }
    memcpy(m->msg[k & 1].v, msg, bytes);
    m->msg[k & 1].len = bytes;
    count_up(m, &m->n_sent);
    return 0;
}

static int receive(comm *c, const void **msg, size_t *bytes, err *e)
{
    room *m = room_of(c);
    seat *own = own_seat(c);
    count_up(m, &own->heard);
    unsigned long long k = atomic_load_explicit(&own->heard, memory_order_relaxed);
    if (wait_for(m, &m->n_sent, k, INT64_MAX)) return aborted(m, e);
    *msg = m->msg[k & 1].v;
    *bytes = m->msg[k & 1].len;
    return 0;
}

/* ---- opening and closing --------------------------------------------------------------------- */

static void room_free(room *m)
{
    for (int r = 0; m->seats && r < m->world; r++) free(m->seats[r].stage);
    for (int i = 0; i < 2; i++) free(m->msg[i].v);
    free(m->seats);
    free(m->slots);
    pthread_cond_destroy(&m->cv);
    pthread_mutex_destroy(&m->mu);
    free(m);
}

static void close_thread(comm *c)
{
    room *m = room_of(c);
    free(c);
    if (atomic_fetch_sub(&m->n_open, 1) == 1) room_free(m);
}

static const comm_ops thread_ops = {.name = "threads",
                                    .all_reduce = all_reduce,
                                    .gather_rows = gather_rows,
                                    .broadcast = broadcast,
                                    .exchange = exchange,
                                    .send = send_all,
                                    .receive = receive,
                                    .barrier = barrier,
                                    .abort = abort_room,
                                    .close = close_thread};

static room *room_new(int world, int spin)
{
    room *m = aligned_alloc(64, sizeof *m);
    if (!m) return NULL;
    memset(m, 0, sizeof *m);
    pthread_condattr_t a;
    pthread_mutex_init(&m->mu, NULL);
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC); /* as clock_us */
    pthread_cond_init(&m->cv, &a);
    pthread_condattr_destroy(&a);
    m->world = world;
    m->spin = spin ? spin : world <= sys_cpus() ? SPIN_ALONE : SPIN_SHARED;
    size_t n = (size_t)world;
    m->seats = aligned_alloc(64, n * sizeof *m->seats);
    m->slots = aligned_alloc(64, n * 2 * SLOT_BYTES);
    if (m->seats) memset(m->seats, 0, n * sizeof *m->seats);
    if (!m->seats || !m->slots) {
        room_free(m);
        return NULL;
    }
    for (size_t i = 0; i < 2 * n; i++) m->seats[i / 2].slot[i % 2] = m->slots + i * SLOT_BYTES;
    return m;
}

int comm_threads_open(int world, double timeout_s, int spin, comm *out[], err *e)
{
    if (world < 1 || world > COMM_MAX_RANKS)
        return err_set(e, ERR_INVALID, "%d ranks; 1 to %d are possible", world, COMM_MAX_RANKS);
    room *m = room_new(world, spin);
    if (!m) return err_set(e, ERR_NOMEM, "out of memory for %d ranks", world);
    for (int r = 0; r < world; r++) {
        out[r] = malloc(sizeof *out[r]);
        if (!out[r]) {
            while (r-- > 0) free(out[r]);
            room_free(m);
            return err_set(e, ERR_NOMEM, "out of memory for %d ranks", world);
        }
        *out[r] = (comm){&thread_ops, r, world, timeout_s, m};
    }
    atomic_store(&m->n_open, world);
    return 0;
}
