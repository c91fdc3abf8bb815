/* roofs.c - owns the threads and the memory of a measurement.  Every repetition starts on all
 * threads at once, each bound to its own processor; the time is first start to last end, the figure
 * a median.  Refuses: see kernels/roofs.h.  Thread: the caller's plus its own. */
#include "kernels/roofs.h"
#include "base/clock.h"
#include "base/sysinfo.h"
#include "kernels/cpu/roofs.h"
#include "kernels/cpu/simd.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    REPS = 7,
    MAX_THREADS = 256,
    ROUND_US = 20000, /* of arithmetic per repetition: far above a thread's wake-up */
    HUGE_PAGE = 2 << 20,
    MOST_BYTES = 512 << 20, /* far above any last-level cache share */
    LEAST_BYTES = 64 << 20
};

typedef enum { READ, READ_AHEAD, DOTS, FMAS } what;

typedef struct {
    const roof_ops *op;
    what what;
    int n;
    atomic_int ready; /* arrivals at the start line, over all repetitions */
    atomic_int go;    /* repetitions started; -1: go home */
    char *mem;        /* [n][share] */
    size_t share;
    long rounds;
    struct {
        int64_t from, to;
        double done;
        float sink;
    } at[MAX_THREADS][REPS];
} job;

typedef struct {
    job *j;
    int id, cpu; /* cpu -1: not bound */
} worker;

static double work(job *j, int id, float *sink)
{
    static const uint8_t bytes[ROOF_SEED] = {1, 3, 2, 5, 4};
    static const float ones[16] = {1, 0.5f, 0.25f};
    const float *mem = (const float *)(const void *)(j->mem + (size_t)id * j->share);
    switch (j->what) {
    case READ:
    case READ_AHEAD:
        *sink = j->op->read(mem, j->share, j->what == READ_AHEAD);
        return (double)j->share;
    case DOTS: return j->op->dots(j->rounds, bytes, sink);
    default: return j->op->fmas(j->rounds, ones, sink);
    }
}

static void *run(void *arg)
{
    worker *w = arg;
    job *j = w->j;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (w->cpu >= 0) CPU_SET(w->cpu, &set);
    if (w->cpu >= 0) sched_setaffinity(0, sizeof set, &set);
    for (int r = 0; r < REPS; r++) {
        atomic_fetch_add(&j->ready, 1);
        int go;
        while ((go = atomic_load(&j->go)) >= 0 && go <= r) cpu_relax();
        if (go < 0) return NULL;
        j->at[w->id][r].from = clock_us();
        j->at[w->id][r].done = work(j, w->id, &j->at[w->id][r].sink);
        j->at[w->id][r].to = clock_us();
    }
    return NULL;
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* 1e9 units per second over all threads. */
static double median_rate(const job *j)
{
    double rate[REPS];
    for (int r = 0; r < REPS; r++) {
        int64_t from = INT64_MAX, to = 0;
        double done = 0;
        for (int i = 0; i < j->n; i++) {
            if (j->at[i][r].from < from) from = j->at[i][r].from;
            if (j->at[i][r].to > to) to = j->at[i][r].to;
            done += j->at[i][r].done;
        }
        rate[r] = done / 1e3 / (double)(to > from ? to - from : 1);
    }
    qsort(rate, REPS, sizeof *rate, rising);
    return rate[REPS / 2];
}

/* The i-th processor this process may use, -1 if there are fewer. */
static int nth_cpu(int i)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set)) return -1;
    for (int c = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &set) && i-- == 0) return c;
    return -1;
}

/* Only sleeps between looks: every processor belongs to a worker. */
static void start_rounds(job *j)
{
    const struct timespec nap = {0, 200000};
    for (int r = 0; r < REPS; r++) {
        while (atomic_load(&j->ready) < j->n * (r + 1)) nanosleep(&nap, NULL);
        atomic_store(&j->go, r + 1);
    }
}

static int measure(job *j, what w, double *rate, err *e)
{
    pthread_t th[MAX_THREADS];
    worker me[MAX_THREADS];
    int started = 0;
    j->what = w;
    atomic_store(&j->ready, 0);
    atomic_store(&j->go, 0);
    for (; started < j->n; started++) {
        me[started] = (worker){j, started, nth_cpu(started)};
        if (pthread_create(&th[started], NULL, run, &me[started])) break;
    }
    bool all = started == j->n;
    if (all) start_rounds(j);
    else atomic_store(&j->go, -1);
    while (started > 0) pthread_join(th[--started], NULL);
    if (!all) return err_set(e, ERR_NOMEM, "cannot start %d threads to measure with", j->n);
    *rate = median_rate(j);
    return 0;
}

/* Rounds that take about ROUND_US on this machine, from a short trial of one thread. */
static long fit_rounds(job *j, what w)
{
    float sink;
    j->what = w;
    for (j->rounds = 1000;; j->rounds *= 2) {
        int64_t from = clock_us();
        work(j, 0, &sink);
        int64_t us = clock_us() - from;
        if (us > ROUND_US / 10) return (long)((double)j->rounds * ROUND_US / (double)us) + 1;
    }
}

static const roof_ops *ops_of(const backend *be)
{
    if (!strcmp(be->isa, "avx512")) return &roofs_avx512;
    if (!strcmp(be->isa, "avxvnni")) return &roofs_avxvnni;
    if (!strcmp(be->isa, "avx2")) return &roofs_avx2;
    return &roofs_portable;
}

static int measure_memory(job *j, double *rate, err *e)
{
    uint64_t all = sys_mem_available() / 4;
    if (all > MOST_BYTES) all = MOST_BYTES;
    if (all < LEAST_BYTES)
        return err_set(e, ERR_NOMEM,
                       "less than %d MiB of memory are free: no bandwidth can be measured",
                       4 * (LEAST_BYTES >> 20));
    j->share = all / (uint64_t)j->n / 4096 * 4096;
    size_t bytes = j->share * (size_t)j->n + HUGE_PAGE; /* the last thread asks for lines beyond */
    j->mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (j->mem == MAP_FAILED) return err_set(e, ERR_NOMEM, "cannot map %zu MiB", bytes >> 20);
    madvise(j->mem, bytes, MADV_HUGEPAGE);
    for (size_t i = 0; i < bytes; i += 64) j->mem[i] = 1; /* real pages, not the shared zero page */
    double plain = 0, ahead = 0;
    int rc = measure(j, READ, &plain, e);
    if (!rc) rc = measure(j, READ_AHEAD, &ahead, e);
    munmap(j->mem, bytes);
    *rate = plain > ahead ? plain : ahead;
    return rc;
}

int roofs_measure(const backend *be, roofs *out, err *e)
{
    *out = (roofs){0};
    if (be->exact_f32)
        return err_set(e, ERR_UNSUPPORTED,
                       "the %s backend has no roof: it is a reference, not fast", be->op->name);
    job *j = calloc(1, sizeof *j);
    if (!j) return err_set(e, ERR_NOMEM, "out of memory");
    j->op = ops_of(be);
    j->n = be->threads < MAX_THREADS ? be->threads : MAX_THREADS;
    int rc = measure_memory(j, &out->bandwidth_gbs, e);
    if (!rc) j->rounds = fit_rounds(j, DOTS);
    if (!rc) rc = measure(j, DOTS, &out->int8_gops, e);
    if (!rc) j->rounds = fit_rounds(j, FMAS);
    if (!rc) rc = measure(j, FMAS, &out->fma_gflops, e);
    free(j);
    return rc;
}
