/* test_comm.c - collectives on device memory: ranks as threads with a backend
 * each, on one device and on several; the bits of comm_sum, rows and copies in their places, faults
 * that end everybody's waiting.  And what opening NCCL says where there is none. */
#include "kernels/backend.h"
#include "kernels/cuda/comm_device.h"
#include "tests/cuda/device.h"

#include <check.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Who waits FAR tells which rank did not come; who waits EVER outlasts the test. */
enum { MAX_WORLD = 4, FAR = 60, EVER = 100000 };

typedef void rank_main(comm *c, backend *be);

typedef struct {
    comm *host;
    int device;
    rank_main *run;
} member;

static atomic_int gone; /* ranks of this run that have closed */

static void *member_main(void *arg)
{
    member *m = arg;
    err e = {0};
    const backend_options bo = {.name = DEVICE, .device = m->device};
    backend *be = backend_open(&bo, &e);
    ck_assert_msg(be != NULL, "%s", e.msg);
    comm *c = cuda_join(be, m->host, &e);
    ck_assert_msg(c != NULL, "%s", e.msg);
    ck_assert_str_eq(c->op->name, "virtual");
    ck_assert(!c->op->recordable);
    be->comm = c;
    m->run(c, be);
    k_sync(be, NULL); /* what this rank queued no longer waits for the others' events */
    comm_close(c);
    backend_close(be);
    atomic_fetch_add(&gone, 1);
    return NULL;
}

static void run_ranks(int world, bool spread, double timeout_s, rank_main *run)
{
    member m[MAX_WORLD];
    pthread_t th[MAX_WORLD];
    comm *c[MAX_WORLD];
    atomic_store(&gone, 0);
    ck_assert_int_eq(comm_threads_open(world, timeout_s, 0, c, NULL), 0);
    for (int r = 0; r < world; r++) {
        m[r] = (member){c[r], spread ? r % 2 : 0, run};
        ck_assert_int_eq(pthread_create(&th[r], NULL, member_main, &m[r]), 0);
    }
    for (int r = 0; r < world; r++) pthread_join(th[r], NULL);
}

/* Values of a rank that make sums depend on their order. */
static void *operand(int rank, size_t n, act_type type)
{
    float *f = malloc(n * sizeof *f);
    uint16_t *h = (uint16_t *)f;
    for (size_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)i * 2654435761u + (uint32_t)rank * 40503u, bits;
        x ^= x >> 15;
        float v = ((float)(x & 0xFFFF) - 32768) * (x & 0x10000 ? 1e-3f : 37.5f);
        memcpy(&bits, &v, 4);
        if (type == ACT_BF16) h[i] = (uint16_t)(bits >> 16);
        else f[i] = v;
    }
    return f;
}

static void sums(comm *c, backend *be)
{
    static const size_t sizes[] = {1, 257, 5003};
    void *dev = k_alloc(be, 5003 * 4);
    for (size_t k = 0; k < 6; k++) {
        act_type type = k & 1 ? ACT_BF16 : ACT_F32;
        size_t n = sizes[k / 2], bytes = n * (k & 1 ? 2 : 4);
        const void *all[MAX_WORLD];
        for (int r = 0; r < c->world; r++) all[r] = operand(r, n, type);
        void *want = malloc(bytes), *got = malloc(bytes);
        comm_sum(want, all, c->world, n, type);
        k_upload(be, dev, all[c->rank], bytes);
        c->op->all_reduce(c, be, dev, n, type);
        k_download(be, got, dev, bytes);
        ck_assert_str_eq(be->fault, "");
        ck_assert_msg(!memcmp(got, want, bytes), "rank %d of %d, %zu values", c->rank, c->world, n);
        for (int r = 0; r < c->world; r++) free((void *)(uintptr_t)all[r]);
        free(want);
        free(got);
    }
    k_free(be, dev, 5003 * 4);
}

/* Sums one behind the other without a look between: each must wait for all of the one before. */
static void chains(comm *c, backend *be)
{
    enum { N = 300, TIMES = 20 };
    float x[N], want = 0;
    float *dev = k_alloc(be, sizeof x);
    for (int i = 0; i < N; i++) x[i] = (float)(c->rank + 1);
    k_upload(be, dev, x, sizeof x);
    for (int t = 0; t < TIMES; t++) c->op->all_reduce(c, be, dev, N, ACT_F32);
    k_download(be, x, dev, sizeof x);
    for (int r = 0; r < c->world; r++) want += (float)(r + 1);
    for (int t = 1; t < TIMES; t++) want *= (float)c->world;
    for (int i = 0; i < N; i++) ck_assert(x[i] == want);
    k_free(be, dev, sizeof x);
}

static void others(comm *c, backend *be)
{
    enum { ROWS = 5, LD = 64, DST_LD = 80 };
    const size_t bytes[MAX_WORLD] = {12, 0, 20, 7};
    char src[ROWS * LD], dst[ROWS * DST_LD];
    char *from = k_alloc(be, sizeof src), *to = k_alloc(be, sizeof dst);
    for (int i = 0; i < ROWS; i++) memset(src + i * LD, 'a' + c->rank + i, LD);
    memset(dst, '-', sizeof dst);
    k_upload(be, from, src, sizeof src);
    k_upload(be, to, dst, sizeof dst);
    c->op->gather_rows(c, be, c->rank ? NULL : to, DST_LD, from, LD, bytes, ROWS);
    k_download(be, dst, to, sizeof dst);
    for (int i = 0; c->rank == 0 && i < ROWS; i++) {
        int at = 0;
        for (int r = 0; r < c->world; r++)
            for (size_t b = 0; b < bytes[r]; b++)
                ck_assert_int_eq(dst[i * DST_LD + at++], 'a' + r + i);
        while (at < DST_LD) ck_assert_int_eq(dst[i * DST_LD + at++], '-');
    }
    c->op->broadcast(c, be, from, sizeof src);
    k_download(be, src, from, sizeof src);
    for (int i = 0; i < ROWS; i++) ck_assert_int_eq(src[i * LD + LD - 1], 'a' + i);
    ck_assert_str_eq(be->fault, "");
    /* What the host carries. */
    int got[MAX_WORLD], own = 10 + c->rank;
    ck_assert_int_eq(c->op->exchange(c, got, &own, sizeof own, NULL), 0);
    for (int r = 0; r < c->world; r++) ck_assert_int_eq(got[r], 10 + r);
    const void *msg = "hello";
    size_t n = 6;
    if (c->rank == 0) ck_assert_int_eq(c->op->send(c, msg, n, NULL), 0);
    else ck_assert_int_eq(c->op->receive(c, &msg, &n, NULL), 0);
    ck_assert_str_eq(msg, "hello");
    ck_assert_int_eq(c->op->barrier(c, FAR, NULL), 0);
    k_free(be, from, sizeof src);
    k_free(be, to, sizeof dst);
}

/* ---- a rank that oversleeps ------------------------------------------------------------------ */

static _Thread_local bool oversleeps;

/* libc's, but that a rank may come out of it long after it was woken: once another has closed. */
int pthread_cond_timedwait(pthread_cond_t *cv, pthread_mutex_t *mu, const struct timespec *until)
{
    typedef int timedwait(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    timedwait *next = (timedwait *)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    int rc = next(cv, mu, until);
    if (!oversleeps) return rc;
    pthread_mutex_unlock(mu);
    while (!atomic_load(&gone)) usleep(1000);
    pthread_mutex_lock(mu);
    return rc;
}

/* The last to come sums, closes and is gone before the others find out that it came. */
static void last_one_leaves(comm *c, backend *be)
{
    float x = (float)(c->rank + 1), want = (float)(c->world * (c->world + 1) / 2);
    float *dev = k_alloc(be, sizeof x);
    k_upload(be, dev, &x, sizeof x);
    oversleeps = true;
    c->op->all_reduce(c, be, dev, 1, ACT_F32);
    oversleeps = false;
    k_download(be, &x, dev, sizeof x);
    ck_assert_str_eq(be->fault, "");
    ck_assert(x == want);
    k_free(be, dev, sizeof x);
}

START_TEST(collectives)
{
    /* On real devices of their own ranks meet in NCCL. */
    for (int spread = 0; spread <= EMULATED; spread++) {
        run_ranks(_i, spread, FAR, sums);
        run_ranks(_i, spread, FAR, chains);
        run_ranks(_i, spread, FAR, others);
    }
    run_ranks(_i, false, FAR, last_one_leaves);
}
END_TEST

/* ---- faults ---------------------------------------------------------------------------------- */

static void expect_over(comm *c, backend *be, const char *word)
{
    err e = {0};
    ck_assert_msg(strstr(be->fault, word) != NULL, "rank %d: '%s'", c->rank, be->fault);
    ck_assert_int_eq(c->op->barrier(c, EVER, &e), ERR_DEVICE);
    ck_assert_msg(strstr(e.msg, word) != NULL, "%s", e.msg);
    c->op->all_reduce(c, be, NULL, 8, ACT_F32); /* returns at once */
}

static void one_stays_away(comm *c, backend *be)
{
    void *x = k_alloc(be, 64);
    if (c->rank == 0) c->timeout_s = 0.3; /* whoever else is not there yet, it names the first */
    if (c->rank == 1) {
        while (c->op->barrier(c, EVER, NULL) == 0) continue;
    } else {
        c->op->all_reduce(c, be, x, 8, ACT_F32);
        expect_over(c, be, "rank 1 did not come to all_reduce within 0.3 s");
    }
    k_free(be, x, 64);
}

static void one_gives_up(comm *c, backend *be)
{
    void *x = k_alloc(be, 64);
    if (c->rank == 1) {
        usleep(50000);
        comm_abort(c, "its device failed");
    } else {
        c->op->all_reduce(c, be, x, 8, ACT_F32);
        expect_over(c, be, "rank 1: its device failed");
    }
    k_free(be, x, 64);
}

static void sizes_differ(comm *c, backend *be)
{
    void *x = k_alloc(be, 64);
    c->op->all_reduce(c, be, x, c->rank ? 16 : 8, ACT_F32);
    expect_over(c, be, "rank 1 came to all_reduce of 16 values, rank 0 to all_reduce of 8");
    k_free(be, x, 64);
}

START_TEST(faults)
{
    run_ranks(3, false, EVER, one_stays_away);
    run_ranks(2, false, EVER, one_gives_up);
    run_ranks(2, false, EVER, sizes_differ);
}
END_TEST

/* ---- NCCL ------------------------------------------------------------------------------------ */

START_TEST(nccl_is_looked_for)
{
    static const char *const none[] = {"libquern-none.so.2", "/nowhere/libnccl.so.2"};
    static const char *const wrong[] = {"libm.so.6"};
    err e = {0};
    ck_assert_ptr_null(nccl_open(none, 2, &e));
    ck_assert_int_eq(e.code, ERR_NOTFOUND);
    ck_assert_msg(strstr(e.msg, "libquern-none.so.2, /nowhere/libnccl.so.2") &&
                      strstr(e.msg, "libnccl2"),
                  "%s", e.msg);
    ck_assert_ptr_null(nccl_open(wrong, 1, &e));
    ck_assert_int_eq(e.code, ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(e.msg, "lacks ncclGetVersion"));
    /* Where there is one, it has all we ask for. */
    nccl *n = nccl_open(NULL, 0, &e);
    ck_assert_msg(n != NULL || e.code == ERR_NOTFOUND, "%s", e.msg);
    nccl_close(n);
}
END_TEST

int main(void)
{
    devices_or_skip(gpu_count);
    Suite *s = suite_create("cuda_comm");
    TCase *t = tcase_create("cuda_comm");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, collectives, 2, MAX_WORLD + 1);
    tcase_add_test(t, faults);
    tcase_add_test(t, nccl_is_looked_for);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
