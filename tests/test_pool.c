/* test_pool.c - the thread pool: every item once, results visible to the caller, floating point
 * state restored, parking and waking, many pools and thread counts, refusals. */
#include "kernels/cpu/pool.h"
#include "kernels/cpu/simd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ITEMS = 500 };

typedef struct {
    pool_queue queue;
    int n_items, threads;
    int *hits; /* [n_items] plain ints: only the item's taker writes, the caller reads after */
    atomic_int ids[POOL_MAX_THREADS];
    atomic_int bad;
} job;

static void take_all(void *arg, int id, int n)
{
    job *j = arg;
    if (n != j->threads || id < 0 || id >= n || atomic_fetch_add(&j->ids[id], 1))
        atomic_store(&j->bad, 1);
    if (fp_state_get() != fp_state_flushing()) atomic_store(&j->bad, 2);
    for (int i; (i = pool_take(&j->queue, j->n_items)) >= 0;) j->hits[i] += i + 1;
}

static void run_once(pool *p, job *j, int n_items)
{
    memset(j->hits, 0, sizeof *j->hits * (size_t)n_items);
    for (int i = 0; i < POOL_MAX_THREADS; i++) atomic_store(&j->ids[i], 0);
    j->n_items = n_items;
    j->threads = pool_threads(p);
    pool_queue_init(&j->queue);
    pool_run(p, take_all, j);
    for (int i = 0; i < n_items; i++) ck_assert_int_eq(j->hits[i], i + 1);
    ck_assert_int_eq(atomic_load(&j->bad), 0);
    ck_assert_int_eq(atomic_load(&j->ids[0]), 1); /* the caller always works */
}

START_TEST(every_item_once)
{
    static const int threads[] = {1, 2, 3, 8, 64, 256};
    static int hits[ITEMS];
    static job j;
    err e = {0};
    pool *p = pool_new(threads[_i], &e);
    ck_assert_msg(p != NULL, "%s", e.msg);
    ck_assert_int_eq(pool_threads(p), threads[_i]);
    j = (job){.hits = hits};
    for (int r = 0; r < (_i < 4 ? 2000 : 50); r++) run_once(p, &j, 1 + r % ITEMS);
    run_once(p, &j, 0);
    pool_free(p);
}
END_TEST

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Until the process rests: a pool that never does would have this test last for ever. */
static void wait_parked(void)
{
    for (double used = 1, from; used > 0.002; used = cpu_seconds() - from) {
        from = cpu_seconds();
        usleep(200000);
    }
}

/* Workers park after a while of idling and come back. */
START_TEST(parks_and_wakes)
{
    static int hits[ITEMS];
    static job j;
    pool *p = pool_new(3, NULL);
    ck_assert_ptr_nonnull(p);
    j = (job){.hits = hits};
    for (int r = 0; r < 6; r++) {
        run_once(p, &j, ITEMS);
        usleep(30000);
    }
    wait_parked();
    run_once(p, &j, ITEMS);
    pool_free(p);
}
END_TEST

static void expect_alone(void *arg, int id, int n)
{
    int *seen = arg;
    if (id == 0 && n == 1 && fp_state_get() == fp_state_flushing()) ++*seen;
}

START_TEST(caller_state_is_kept)
{
    pool *p = pool_new(2, NULL);
    static int hits[ITEMS];
    static job j;
    int seen = 0;
    fp_state before = fp_state_get();
    j = (job){.hits = hits};
    run_once(p, &j, 10);
    ck_assert(fp_state_get() == before);
    pool_run_alone(p, expect_alone, &seen);
    ck_assert_int_eq(seen, 1);
    ck_assert(fp_state_get() == before);
    volatile float tiny = 1e-39f; /* a denormal survives outside of regions */
    ck_assert(tiny * 1.0f != 0);
    pool_free(p);
}
END_TEST

START_TEST(bands_cover_all_rows)
{
    pool *p = pool_new(3, NULL);
    for (int n = 0; n < 400; n += 13)
        for (int max = 1; max < 40; max += 9) {
            pool_bands b;
            int next = 0, lo, hi;
            pool_bands_init(&b, p, n, max);
            while (pool_band(&b, &lo, &hi)) {
                ck_assert_int_eq(lo, next);
                ck_assert(hi > lo && hi - lo <= max);
                next = hi;
            }
            ck_assert_int_eq(next, n);
        }
    pool_free(p);
}
END_TEST

START_TEST(refuses_counts)
{
    static const int counts[] = {0, -1, POOL_MAX_THREADS + 1};
    for (int i = 0; i < 3; i++) {
        err e = {0};
        ck_assert_ptr_null(pool_new(counts[i], &e));
        ck_assert_int_eq(e.code, ERR_INVALID);
        ck_assert_ptr_nonnull(strstr(e.msg, "--threads"));
    }
    pool_free(NULL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pool");
    TCase *c = tcase_create("pool");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, every_item_once, 0, 6);
    tcase_add_test(c, parks_and_wakes);
    tcase_add_test(c, caller_state_is_kept);
    tcase_add_test(c, bands_cover_all_rows);
    tcase_add_test(c, refuses_counts);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
