/* test_comm_procs.c - ranks that are processes, over a port inside this one: every collective gives
 * the bits that threads give, and nobody waits for ever on a rank that is silent, leaves, fails or
 * brings something else. */
#include "kernels/comm_procs.h"

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Who waits FAR tells which rank did not come; who waits EVER outlasts the test. */
enum { MAX_WORLD = 4, FAR = 30, EVER = 100000 };

/* ---- a port inside one process --------------------------------------------------------------- */

typedef struct letter letter;
struct letter {
    letter *next;
    int from, tag;
    size_t bytes;
    char data[];
};

typedef struct {
    pthread_mutex_t mu;
    int world;
    letter *box[MAX_WORLD]; /* in order of arrival */
} post;

typedef struct {
    post *net;
    int rank;
    bool deaf; /* this rank's sends fail */
} end;

/* An open receive; a done send has none. */
typedef struct {
    int from, tag;
    void *p;
    size_t cap;
} wish;

static post net;
static end ends[MAX_WORLD];
/* Not from the heap: after a fault requests stay open, as they do in a real port. */
static wish wishes[1 << 15];
static atomic_int n_wishes;

static const char *start(void *ctx, int *rank, int *world)
{
    *rank = ((end *)ctx)->rank;
    *world = net.world;
    return NULL;
}

static const char *send(void *ctx, int to, int tag, const void *p, size_t bytes, port_request *q)
{
    end *own = ctx;
    *q = (port_request){{0}};
    if (own->deaf) return "the line is cut";
    letter *l = malloc(sizeof *l + bytes);
    *l = (letter){.from = own->rank, .tag = tag, .bytes = bytes};
    memcpy(l->data, p, bytes);
    pthread_mutex_lock(&net.mu);
    letter **at = &net.box[to];
    while (*at) at = &(*at)->next;
    *at = l;
    pthread_mutex_unlock(&net.mu);
    return NULL;
}

static const char *recv(void *ctx, int from, int tag, void *p, size_t cap, port_request *q)
{
    (void)ctx;
    int i = n_wishes++;
    ck_assert_int_lt(i, (int)(sizeof wishes / sizeof *wishes));
    wish *w = &wishes[i];
    *w = (wish){from, tag, p, cap};
    *q = (port_request){{(uintptr_t)w}};
    return NULL;
}

static const char *test(void *ctx, port_request *q, bool *done, size_t *bytes)
{
    wish *w = (wish *)q->v[0];
    const char *bad = NULL;
    *done = true;
    if (!w) return NULL;
    pthread_mutex_lock(&net.mu);
    letter **at = &net.box[((end *)ctx)->rank];
    while (*at && ((w->from >= 0 && (*at)->from != w->from) || (*at)->tag != w->tag))
        at = &(*at)->next;
    letter *l = *at;
    if (l) *at = l->next;
    pthread_mutex_unlock(&net.mu);
    *done = l != NULL;
    if (!l) return NULL;
    if (l->bytes > w->cap) bad = "more came than was asked for";
    else memcpy(w->p, l->data, l->bytes);
    if (bytes) *bytes = l->bytes;
    free(l);
    q->v[0] = 0;
    return bad;
}

static const char *cancel(void *ctx, port_request *q)
{
    (void)ctx;
    q->v[0] = 0;
    return NULL;
}

static atomic_int n_finished;

static const char *finish(void *ctx)
{
    (void)ctx;
    n_finished++;
    return NULL;
}

static const comm_port port = {.size = sizeof(comm_port),
                               .name = "test",
                               .start = start,
                               .send = send,
                               .recv = recv,
                               .test = test,
                               .cancel = cancel,
                               .finish = finish};

/* ---- ranks as threads ------------------------------------------------------------------------ */

typedef void rank_main(comm *c, backend *be);

typedef struct {
    comm *c; /* of threads; NULL: one over the port is opened */
    int rank;
    rank_main *run;
    double timeout_s;
} member;

static void *member_main(void *arg)
{
    member *m = arg;
    err e = {0};
    const backend_options bo = {.name = "ref"};
    backend *be = backend_open(&bo, &e);
    comm *c = m->c ? m->c : comm_procs_over(&port, &ends[m->rank], m->timeout_s, &e);
    ck_assert_msg(be && c, "%s", e.msg);
    be->comm = c;
    m->run(c, be);
    comm_close(c);
    backend_close(be);
    return NULL;
}

static void run_ranks(int world, bool threads, double timeout_s, rank_main *run)
{
    member m[MAX_WORLD];
    pthread_t th[MAX_WORLD];
    comm *c[MAX_WORLD] = {0};
    net.world = world;
    if (threads) ck_assert_int_eq(comm_threads_open(world, FAR, 0, c, NULL), 0);
    for (int r = 0; r < world; r++) {
        ends[r] = (end){.rank = r};
        m[r] = (member){c[r], r, run, timeout_s};
        ck_assert_int_eq(pthread_create(&th[r], NULL, member_main, &m[r]), 0);
    }
    for (int r = 0; r < world; r++) pthread_join(th[r], NULL);
}

static void setup(void)
{
    pthread_mutex_init(&net.mu, NULL);
    n_finished = 0;
    comm_procs_hurry(0);
}

static void teardown(void)
{
    for (int r = 0; r < MAX_WORLD; r++) {
        for (letter *l = net.box[r], *next; l; l = next) {
            next = l->next;
            free(l);
        }
        net.box[r] = NULL;
    }
    pthread_mutex_destroy(&net.mu);
}

/* ---- bits ------------------------------------------------------------------------------------ */

enum { N_SIZES = 5 };
/* One value; odd; at the border of the two ways; two pieces of F32. */
static const size_t sizes[N_SIZES] = {1, 1003, (256 << 10) / 4, (256 << 10) / 4 + 97, 2100007};

/* Values of a rank that make sums depend on their order. */
static float value(int rank, size_t i)
{
    uint32_t x = (uint32_t)i * 2654435761u + (uint32_t)rank * 40503u;
    x ^= x >> 15;
    return ((float)(x & 0xFFFF) - 32768) * (x & 0x10000 ? 1e-3f : 37.5f);
}

static void *operand(int rank, size_t n, act_type type)
{
    float *f = malloc(n * sizeof *f);
    uint16_t *h = (uint16_t *)f;
    for (size_t i = 0; i < n; i++) {
        float v = value(rank, i);
        uint32_t bits;
        memcpy(&bits, &v, 4);
        if (type == ACT_BF16) h[i] = (uint16_t)(bits >> 16);
        else f[i] = v;
    }
    return f;
}

static void sums(comm *c, backend *be)
{
    for (int k = 0; k < N_SIZES; k++)
        for (int half = 0; half < 2; half++) {
            act_type type = half ? ACT_BF16 : ACT_F32;
            size_t n = sizes[k], bytes = n * (half ? 2 : 4);
            const void *all[MAX_WORLD];
            for (int r = 0; r < c->world; r++) all[r] = operand(r, n, type);
            void *x = operand(c->rank, n, type), *want = malloc(bytes);
            comm_sum(want, all, c->world, n, type);
            c->op->all_reduce(c, be, x, n, type);
            ck_assert_str_eq(be->fault, "");
            ck_assert_msg(!memcmp(x, want, bytes), "rank %d of %d, %zu values", c->rank, c->world,
                          n);
            for (int r = 0; r < c->world; r++) free((void *)(uintptr_t)all[r]);
            free(x);
            free(want);
        }
}

START_TEST(sums_are_those_of_threads)
{
    run_ranks(_i, false, FAR, sums);
    ck_assert_int_eq(n_finished, _i);
    run_ranks(_i, true, FAR, sums);
}
END_TEST

/* Rows of uneven parts, one of them empty, with strides on both sides. */
static void gathers(comm *c, backend *be)
{
    const size_t bytes[MAX_WORLD] = {12, 0, 20, 8}, ld = 64, dst_ld = 50;
    enum { ROWS = 37 };
    size_t row = 0;
    char src[ROWS * 64], dst[ROWS * 50];
    for (int i = 0; i < ROWS; i++) memset(src + (size_t)i * ld, 'a' + c->rank + i % 7, ld);
    memset(dst, '-', sizeof dst);
    c->op->gather_rows(c, be, c->rank ? NULL : dst, dst_ld, src, ld, bytes, ROWS);
    ck_assert_str_eq(be->fault, "");
    for (int i = 0; c->rank == 0 && i < ROWS; i++, row = 0) {
        const char *at = dst + (size_t)i * dst_ld;
        for (int r = 0; r < c->world; r++)
            for (size_t b = 0; b < bytes[r]; b++) ck_assert_int_eq(at[row++], 'a' + r + i % 7);
        while (row < dst_ld) ck_assert_int_eq(at[row++], '-');
    }
}

static void others(comm *c, backend *be)
{
    enum { LONG = 9 << 20 };
    char *x = malloc(LONG), each[MAX_WORLD][16], own[16];
    memset(x, c->rank ? 0 : 'x', LONG);
    c->op->broadcast(c, be, x, LONG);
    ck_assert_str_eq(be->fault, "");
    for (int i = 0; i < LONG; i += 4095) ck_assert_int_eq(x[i], 'x');
    snprintf(own, sizeof own, "r%03d", c->rank);
    ck_assert_int_eq(c->op->exchange(c, each, own, sizeof own, NULL), 0);
    for (int r = 0; r < c->world; r++) {
        snprintf(own, sizeof own, "r%03d", r);
        ck_assert_str_eq(each[r], own);
    }
    ck_assert_int_eq(c->op->barrier(c, FAR, NULL), 0);
    /* Messages of every size, in order, while collectives go on between them. */
    for (size_t k = 1; k < 60; k++) {
        const void *msg = x;
        size_t bytes = k * 997, got = bytes;
        memset(x, (int)k, bytes);
        if (c->rank == 0) ck_assert_int_eq(c->op->send(c, x, bytes, NULL), 0);
        else ck_assert_int_eq(c->op->receive(c, &msg, &got, NULL), 0);
        ck_assert_uint_eq(got, bytes);
        ck_assert_int_eq(((const char *)msg)[bytes - 1], (int)k);
        if (k % 5 == 0) c->op->all_reduce(c, be, (float[4]){0}, 4, ACT_F32);
    }
    ck_assert_str_eq(be->fault, "");
    free(x);
}

START_TEST(rows_and_messages)
{
    run_ranks(_i, false, FAR, gathers);
    run_ranks(_i, false, FAR, others);
}
END_TEST

/* ---- faults ---------------------------------------------------------------------------------- */

static void expect_over(comm *c, backend *be, const char *word)
{
    err e = {0};
    ck_assert_msg(strstr(be->fault, word) != NULL, "rank %d: '%s'", c->rank, be->fault);
    /* Nobody waits any more, whatever is called. */
    c->timeout_s = EVER;
    ck_assert_int_eq(c->op->barrier(c, EVER, &e), ERR_DEVICE);
    ck_assert_int_eq(c->op->exchange(c, (char[64]){0}, "x", 1, &e), ERR_DEVICE);
    ck_assert_int_eq(c->op->send(c, "x", 1, &e), ERR_DEVICE);
    ck_assert_msg(strstr(e.msg, word) != NULL, "%s", e.msg);
}

static void one_stays_away(comm *c, backend *be)
{
    float x[8] = {0};
    if (c->rank == 1) {
        while (c->op->barrier(c, EVER, NULL) == 0) continue;
        return;
    }
    if (c->rank == 0) c->timeout_s = 0.3;
    c->op->all_reduce(c, be, x, 8, ACT_F32);
    expect_over(c, be, "did not come to all_reduce within 0.3 s");
}

START_TEST(silent_rank)
{
    run_ranks(3, false, EVER, one_stays_away);
    ck_assert_int_eq(n_finished, 0);
}
END_TEST

/* Rank 0 waits for nothing; the others wait for a message without a deadline. */
static void one_gives_up(comm *c, backend *be)
{
    const void *msg;
    size_t bytes;
    err e = {0};
    (void)be;
    if (c->rank == 2) {
        usleep(100000);
        comm_abort(c, "its device failed");
    } else if (c->rank == 1) {
        ck_assert_int_eq(c->op->receive(c, &msg, &bytes, &e), ERR_DEVICE);
        ck_assert_str_eq(e.msg, "rank 2: its device failed");
    } else {
        usleep(300000);
        ck_assert_int_eq(c->op->send(c, "step", 4, NULL), 0); /* it has not looked yet */
        ck_assert_int_eq(c->op->barrier(c, EVER, &e), ERR_DEVICE);
        ck_assert_str_eq(e.msg, "rank 2: its device failed");
    }
}

START_TEST(abort_reaches_all)
{
    run_ranks(3, false, EVER, one_gives_up);
}
END_TEST

static void sizes_differ(comm *c, backend *be)
{
    float x[64] = {0};
    c->op->all_reduce(c, be, x, c->rank ? 64 : 32, ACT_F32);
    expect_over(c, be, "rank");
}

static void kinds_differ(comm *c, backend *be)
{
    float x[64] = {0};
    if (c->rank == 0) c->timeout_s = 0.3;
    if (c->rank) c->op->broadcast(c, be, x, sizeof x);
    else c->op->all_reduce(c, be, x, 64, ACT_F32);
    expect_over(c, be, "did not come to");
}

static void line_is_cut(comm *c, backend *be)
{
    float x[8] = {0};
    c->op->barrier(c, EVER, NULL);
    ends[c->rank].deaf = true;
    c->op->all_reduce(c, be, x, 8, ACT_F32);
    expect_over(c, be, "the line is cut");
}

START_TEST(wrong_meetings)
{
    run_ranks(2, false, EVER, sizes_differ);
    teardown();
    setup();
    run_ranks(2, false, EVER, kinds_differ);
    teardown();
    setup();
    run_ranks(2, false, EVER, line_is_cut);
}
END_TEST

static void launcher_ends(comm *c, backend *be)
{
    static atomic_bool over;
    if (c->rank) {
        while (!over) usleep(1000); /* gone, as far as rank 0 can see */
        return;
    }
    char why[200];
    ck_assert(!comm_procs_lost(c, why, sizeof why));
    comm_procs_hurry(0.1);
    c->op->all_reduce(c, be, (float[4]){0}, 4, ACT_F32);
    expect_over(c, be, "while the launcher ends all ranks");
    over = true;
    ck_assert(comm_procs_lost(c, why, sizeof why));
    ck_assert_str_eq(why, strstr(be->fault, "rank"));
}

START_TEST(hurry)
{
    run_ranks(2, false, EVER, launcher_ends);
}
END_TEST

/* Announced sizes are checked before memory is taken. */
static void huge_message(comm *c, backend *be)
{
    const void *msg;
    size_t bytes;
    err e = {0};
    (void)be;
    if (c->rank) {
        ck_assert_int_eq(c->op->receive(c, &msg, &bytes, &e), ERR_DEVICE);
        ck_assert_ptr_nonnull(strstr(e.msg, "announced a message of 1099511627776 bytes"));
        return;
    }
    port_request q;
    uint64_t head = 1ull << 40;
    ck_assert_int_eq(c->op->send(c, &head, (size_t)1 << 29, &e), ERR_LIMIT);
    ck_assert_ptr_null(send(&ends[0], 1, 2, &head, sizeof head, &q));
    ck_assert_int_eq(c->op->barrier(c, EVER, &e), ERR_DEVICE);
}

START_TEST(message_limits)
{
    run_ranks(2, false, EVER, huge_message);
}
END_TEST

/* ---- starting -------------------------------------------------------------------------------- */

START_TEST(plugin)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};
    err e = {0};
    char dir[] = "/tmp/quern-plugin-XXXXXX", path[80];
    for (int i = 0; i < 3; i++) unsetenv(names[i]);
    ck_assert(!comm_procs_launched());
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    ck_assert(!comm_procs_launched());
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    ck_assert(comm_procs_launched());
    /* No such file, then one that is no library. */
    ck_assert_ptr_nonnull(mkdtemp(dir));
    setenv("QUERN_PLUGIN_DIR", dir, 1);
    ck_assert_ptr_null(comm_procs_open(1, &e));
    ck_assert_int_eq(e.code, ERR_NOTFOUND);
    ck_assert_msg(strstr(e.msg, dir) && strstr(e.msg, "../lib/quern/comm_mpi.so") &&
                      strstr(e.msg, "libopenmpi"),
                  "%s", e.msg);
    snprintf(path, sizeof path, "%s/comm_mpi.so", dir);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fputs("no library", f);
    fclose(f);
    ck_assert_ptr_null(comm_procs_open(1, &e));
    ck_assert_msg(strstr(e.msg, path) && strstr(e.msg, "libopenmpi"), "%s", e.msg);
    unlink(path);
    rmdir(dir);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("comm_procs");
    TCase *t = tcase_create("comm_procs");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, sums_are_those_of_threads, 2, MAX_WORLD + 1);
    tcase_add_loop_test(t, rows_and_messages, 1, MAX_WORLD + 1);
    tcase_add_test(t, silent_rank);
    tcase_add_test(t, abort_reaches_all);
    tcase_add_test(t, wrong_meetings);
    tcase_add_test(t, hurry);
    tcase_add_test(t, message_limits);
    tcase_add_test(t, plugin);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
