/* pool.h - a team of threads that runs one function at a time over shared work.
 *
 * The caller is worker 0; the others spin for about half a millisecond after a region and then park
 * in a futex, so an idle process costs nothing.
 *
 * THE RULE of a region: all work is claimed through a pool_queue (pool_take), never by id, because
 * a worker may not show up.  A region is closed as soon as the caller runs out of work; whoever has
 * not entered by then (parked, or its core taken by another process) is not waited for.  `id` only
 * names private scratch; `n` only sizes chunks.
 *
 * Inside a region denormals are flushed to zero (softmax tails are full of them and each costs
 * ~100 cycles); the caller's floating point state is restored when it ends.
 * Thread: pool_run by one thread at a time; regions do not nest. */
#ifndef QUERN_KERNELS_CPU_POOL_H
#define QUERN_KERNELS_CPU_POOL_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>

enum { POOL_MAX_THREADS = 256 };

typedef struct pool pool;
/* One worker's share of a region; id in 0..n-1 is unique among those that run. */
typedef void pool_fn(void *arg, int id, int n);

/* threads in 1..POOL_MAX_THREADS, the caller included; NULL with e filled otherwise. */
pool *pool_new(int threads, err *e);
void pool_free(pool *p); /* NULL is allowed */
int pool_threads(const pool *p);

/* Runs fn on the caller and on every worker that shows up; returns when all that entered left. */
void pool_run(pool *p, pool_fn *fn, void *arg);
/* Runs fn(arg, 0, 1) on the caller alone, for work too small to share (below ~5 us). */
void pool_run_alone(pool *p, pool_fn *fn, void *arg);

/* The work of one region: item numbers 0, 1, 2, ... each handed out once.  Lives in the region's
 * argument, on a cache line of its own. */
typedef struct {
    _Alignas(64) atomic_int next;
    char pad[64 - sizeof(atomic_int)];
} pool_queue;

/* Call before pool_run. */
static inline void pool_queue_init(pool_queue *q)
{
    atomic_init(&q->next, 0);
}
/* Next item below n_items, or -1. */
static inline int pool_take(pool_queue *q, int n_items)
{
    int i = atomic_fetch_add_explicit(&q->next, 1, memory_order_relaxed);
    return i < n_items ? i : -1;
}

/* Rows 0..n-1 cut into equal bands, for work that costs about the same on every row. */
typedef struct {
    pool_queue queue;
    int n, band;
} pool_bands;

/* At least four bands a thread where there are rows enough, at most max_band rows each. */
static inline void pool_bands_init(pool_bands *b, const pool *p, int n, int max_band)
{
    int band = n / (4 * pool_threads(p));
    pool_queue_init(&b->queue);
    b->n = n;
    b->band = band < 1 ? 1 : band > max_band ? max_band : band;
}
/* Takes rows [*lo, *hi); false when none are left. */
static inline bool pool_band(pool_bands *b, int *lo, int *hi)
{
    int i = pool_take(&b->queue, (b->n + b->band - 1) / b->band);
    if (i < 0) return false;
    *lo = i * b->band;
    *hi = *lo + b->band < b->n ? *lo + b->band : b->n;
    return true;
}

#endif
