/* bench_pool.c - what a region of the thread pool costs, alone and beside a busy process.
 * usage: bench_pool [threads]
 * Rows: an empty region; 64 chunks of 5 us.  Beside: one process that never rests, first free to
 * move, then bound to the last processor. */
#include "base/sysinfo.h"
#include "kernels/cpu/pool.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REGIONS = 3000, CHUNKS = 64, CHUNK_US = 5 };

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}
static void nothing(void *arg, int id, int n)
{
    (void)arg, (void)id, (void)n;
}
static void chunks(void *arg, int id, int n)
{
    (void)id, (void)n;
    pool_queue *q = arg;
    while (pool_take(q, CHUNKS) >= 0)
        for (double t = now_us(); now_us() - t < CHUNK_US;) continue;
}
static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static void measure(pool *p, const char *name, pool_fn *fn)
{
    static double t[REGIONS];
    double sum = 0;
    pool_queue q;
    for (int i = 0; i < REGIONS; i++) {
        double t0 = now_us();
        pool_queue_init(&q);
        pool_run(p, fn, &q);
        sum += t[i] = now_us() - t0;
    }
    qsort(t, REGIONS, sizeof *t, by_value);
    printf("  %-20s mean %8.2f  median %8.2f  p99 %8.2f  worst %8.1f us\n", name, sum / REGIONS,
           t[REGIONS / 2], t[REGIONS * 99 / 100], t[REGIONS - 1]);
}
static pid_t start_hog(int cpu)
{
    pid_t pid = fork();
    if (pid) return pid;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (cpu >= 0 && sched_setaffinity(0, sizeof set, &set)) _exit(1);
    for (volatile unsigned i = 0;; i++) continue;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : sys_cpus();
    err e = {0};
    for (int beside = 0; beside < 3; beside++) {
        pid_t hog = beside ? start_hog(beside == 2 ? sys_cpus() - 1 : -1) : 0;
        pool *p = pool_new(threads, &e);
        if (!p) {
            fprintf(stderr, "%s\n", e.msg);
            return 2;
        }
        printf("%d threads%s\n", threads,
               beside == 0   ? ""
               : beside == 1 ? ", beside a busy process"
                             : ", beside a busy process on the last processor");
        measure(p, "empty region", nothing);
        measure(p, "64 x 5 us", chunks);
        pool_free(p);
        if (hog > 0) {
            kill(hog, SIGKILL);
            waitpid(hog, NULL, 0);
        }
    }
    return 0;
}
