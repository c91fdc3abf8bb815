/* pool.c - owns the worker threads and the hand-over of one region.
 *
 * A region is one 32-bit word, `gate`: how many workers are inside, a bit that closes it, and an
 * epoch.  Entering is a compare-and-swap on an open gate, so after the caller has closed it the
 * count can only fall.  The epoch may wrap: a worker that slept through exactly 2^21 regions misses
 * one more, which the rule of a region (pool.h) allows.
 * Thread: see pool.h. */
#include "kernels/cpu/pool.h"

#include "kernels/cpu/simd.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    INSIDE_MASK = 1023, /* >= POOL_MAX_THREADS */
    CLOSED = 1024,
    EPOCH_ONE = 2048,
    /* Pauses before a worker parks: longer than the caller's serial work between two regions of a
     * step, shorter than a time slice. */
    SPIN_WORKER = 20000,
    /* Pauses before the caller sleeps at the end of a region.  The last chunk of a worker takes
     * tens of microseconds; longer means that its core was taken, and then a caller that sleeps
     * frees a core on which the worker can go on. */
    SPIN_CALLER = 4000
};

typedef struct {
    pool *pool;
    int id;
    pthread_t thread;
} worker;

struct pool {
    int n;
    int n_started;   /* workers whose thread runs */
    worker *workers; /* [n], [0] unused: the caller */
    _Alignas(64) atomic_uint gate;
    _Alignas(64) atomic_uint bell;          /* bumped with every region; workers park on it */
    atomic_uint asleep;                     /* workers parked or about to */
    _Alignas(64) atomic_uint caller_asleep; /* caller waits on gate */
    atomic_bool quit;
    pool_fn *fn; /* of the open region; read only by those inside */
    void *arg;
};

static void futex_wait(atomic_uint *word, unsigned value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static unsigned epoch_of(unsigned gate)
{
    return gate / EPOCH_ONE;
}

/* Waits for a region newer than `seen` and returns its gate. */
static unsigned wait_for_region(pool *p, unsigned seen)
{
    for (int spin = 0;; spin++) {
        unsigned g = atomic_load_explicit(&p->gate, memory_order_acquire);
        if (epoch_of(g) != seen) return g;
        if (spin < SPIN_WORKER) {
            cpu_relax();
            continue;
        }
        /* The bell is read before the last look at the gate: a region published after that look
         * rings after this reading, and the futex refuses to sleep. */
        unsigned bell = atomic_load(&p->bell);
        atomic_fetch_add(&p->asleep, 1);
        if (epoch_of(atomic_load(&p->gate)) == seen) futex_wait(&p->bell, bell);
        atomic_fetch_sub(&p->asleep, 1);
    }
}

static bool enter(pool *p, unsigned gate)
{
    unsigned epoch = epoch_of(gate);
    while (!(gate & CLOSED) && epoch_of(gate) == epoch) {
        if (atomic_compare_exchange_weak(&p->gate, &gate, gate + 1)) return true;
    }
    return false;
}

static void leave(pool *p)
{
    unsigned g = atomic_fetch_sub(&p->gate, 1) - 1;
    if ((g & CLOSED) && !(g & INSIDE_MASK) && atomic_load(&p->caller_asleep))
        futex_wake(&p->gate, 1);
}

static void *worker_main(void *v)
{
    worker *w = v;
    pool *p = w->pool;
    fp_state_set(fp_state_flushing());
    unsigned seen = epoch_of(CLOSED);
    for (;;) {
        unsigned g = wait_for_region(p, seen);
        if (atomic_load(&p->quit)) return NULL;
        seen = epoch_of(g);
        if (!enter(p, g)) continue;
        p->fn(p->arg, w->id, p->n);
        leave(p);
    }
}

/* Opens a region for everybody.  Sequentially consistent: see wait_for_region. */
static void publish(pool *p)
{
    unsigned g = atomic_load_explicit(&p->gate, memory_order_relaxed);
    atomic_store(&p->gate, (epoch_of(g) + 1) * EPOCH_ONE);
    atomic_fetch_add(&p->bell, 1);
    if (atomic_load(&p->asleep)) futex_wake(&p->bell, p->n);
}

static void close_and_wait(pool *p)
{
    unsigned g = atomic_fetch_or(&p->gate, CLOSED);
    for (int spin = 0; g & INSIDE_MASK; spin++) {
        if (spin < SPIN_CALLER) {
            cpu_relax();
        } else {
            atomic_store(&p->caller_asleep, 1);
            g = atomic_load(&p->gate);
            if (g & INSIDE_MASK) futex_wait(&p->gate, g);
            atomic_store(&p->caller_asleep, 0);
        }
        g = atomic_load_explicit(&p->gate, memory_order_acquire);
    }
}

void pool_run(pool *p, pool_fn *fn, void *arg)
{
    fp_state saved = fp_state_get();
    fp_state_set(fp_state_flushing());
    if (p->n == 1) {
        fn(arg, 0, 1);
    } else {
        p->fn = fn;
        p->arg = arg;
        publish(p);
        fn(arg, 0, p->n);
        close_and_wait(p);
    }
    fp_state_set(saved);
}

void pool_run_alone(pool *p, pool_fn *fn, void *arg)
{
    (void)p;
    fp_state saved = fp_state_get();
    fp_state_set(fp_state_flushing());
    fn(arg, 0, 1);
    fp_state_set(saved);
}

int pool_threads(const pool *p)
{
    return p->n;
}

void pool_free(pool *p)
{
    if (!p) return;
    atomic_store(&p->quit, true);
    publish(p);
    for (int i = 1; i <= p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    free(p->workers);
    free(p);
}

pool *pool_new(int threads, err *e)
{
    if (threads < 1 || threads > POOL_MAX_THREADS) {
        err_set(e, ERR_INVALID, "--threads must be between 1 and %d, got %d", POOL_MAX_THREADS,
                threads);
        return NULL;
    }
    pool *p = aligned_alloc(64, sizeof *p);
    if (!p) goto no_memory;
    memset(p, 0, sizeof *p);
    p->n = threads;
    atomic_init(&p->gate, CLOSED);
    p->workers = calloc((size_t)threads, sizeof *p->workers);
    if (!p->workers) goto no_memory;
    for (int i = 1; i < threads; i++) {
        p->workers[i] = (worker){.pool = p, .id = i};
        int rc = pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]);
        if (rc) {
            err_set(e, ERR_LIMIT, "cannot start compute thread %d of %d: %s; lower --threads", i,
                    threads, strerror(rc));
            goto fail;
        }
        p->n_started = i;
    }
    return p;
no_memory:
    err_set(e, ERR_NOMEM, "out of memory for %d compute threads", threads);
fail:
    pool_free(p);
    return NULL;
}
