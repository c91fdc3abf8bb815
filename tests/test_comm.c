/* test_comm.c - collectives between threads: sums in rank order with equal bits everywhere whatever
 * the timing, gathers, messages; and that nobody waits for a rank that hangs, dies or errs.  Then
 * draws from logits cut over ranks against the sampler on whole rows, by memcmp. */
#include "kernels/formats.h"
#include "kernels/split.h"
#include "tests/tp_rig.h"

static uint64_t next(uint64_t *s)
{
    *s += 0x9e3779b97f4a7c15u;
    uint64_t x = (*s ^ *s >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* About normal, of very different sizes. */
static float any_float(uint64_t *s)
{
    uint64_t x = next(s);
    return ldexpf((float)(int32_t)x, (int)(x >> 32) % 24 - 31);
}

typedef struct {
    comm *c;
    backend *be;
    int world, n;
    act_type type;
    void *x;       /* this rank's values */
    uint64_t seed; /* of its delays */
    int times;
    err e;
} peer;

/* Opens the ranks; to be closed by close_peers. */
static void open_peers(peer *p, int world, double timeout_s)
{
    comm *c[TP_MAX];
    err e = {0};
    ck_assert_int_eq(comm_threads_open(world, timeout_s, 0, c, &e), 0);
    for (int r = 0; r < world; r++) {
        p[r] = (peer){.c = c[r], .world = world, .seed = (uint64_t)r + 99, .times = 1};
        p[r].be = backend_open(&(backend_options){.name = "ref"}, &e);
        p[r].be->comm = c[r];
    }
}

static void close_peers(peer *p, int world)
{
    for (int r = 0; r < world; r++) {
        backend_close(p[r].be);
        comm_close(p[r].c);
    }
}

/* ---- sums ------------------------------------------------------------------------------------ */

static void *reduce(void *arg)
{
    peer *p = arg;
    for (int i = 0; i < p->times; i++) {
        if (next(&p->seed) % 4 == 0) usleep((useconds_t)(next(&p->seed) % 300));
        p->c->op->all_reduce(p->c, p->be, p->x, (size_t)p->n, p->type);
    }
    return NULL;
}

static const int sizes[] = {1, 7, 64, 1000, 16384, 16385, 50001, 200000};

/* Every rank's result is the sum in rank order, computed here with plain additions. */
START_TEST(sums)
{
    static const int worlds[] = {1, 2, 3, 4, 8};
    peer p[TP_MAX];
    int world = worlds[_i / 2], n_sizes = sizeof sizes / sizeof *sizes;
    act_type type = _i % 2 ? ACT_BF16 : ACT_F32;
    size_t size = type == ACT_BF16 ? 2 : 4;
    open_peers(p, world, 20);
    for (int k = 0; k < n_sizes; k++) {
        uint64_t s = (uint64_t)(k + 10 * world);
        size_t n = (size_t)sizes[k];
        char *want = malloc(n * size);
        for (int r = 0; r < world; r++) {
            p[r].x = malloc(n * size);
            p[r].n = sizes[k];
            p[r].type = type;
        }
        for (size_t i = 0; i < n; i++) {
            float sum = 0;
            for (int r = 0; r < world; r++) {
                float v = any_float(&s);
                uint16_t h = f32_to_bf16(v);
                if (type == ACT_BF16) {
                    ((uint16_t *)p[r].x)[i] = h;
                    v = bf16_to_f32(h);
                } else {
                    ((float *)p[r].x)[i] = v;
                }
                sum = r ? sum + v : v;
            }
            if (type == ACT_BF16) ((uint16_t *)(void *)want)[i] = f32_to_bf16(sum);
            else ((float *)(void *)want)[i] = sum;
        }
        tp_run(world, reduce, p, sizeof *p);
        for (int r = 0; r < world; r++) {
            ck_assert_str_eq(p[r].be->fault, "");
            ck_assert_msg(!memcmp(p[r].x, want, n * size), "%d values, rank %d of %d", sizes[k], r,
                          world);
            free(p[r].x);
        }
        free(want);
    }
    close_peers(p, world);
}
END_TEST

/* Many in a row at random times: nobody reads what the next one already changes. */
START_TEST(sums_in_a_row)
{
    enum { TIMES = 300, N = 500 };
    peer p[TP_MAX];
    int world = _i ? 4 : 2;
    open_peers(p, world, 20);
    for (int r = 0; r < world; r++) {
        float *x = p[r].x = malloc(N * sizeof *x);
        p[r].n = N;
        p[r].times = TIMES;
        for (int i = 0; i < N; i++) x[i] = (float)(i + r) * 0x1p-20f;
    }
    float want[N];
    for (int i = 0; i < N; i++) {
        float sum = (float)i * 0x1p-20f;
        for (int r = 1; r < world; r++) sum += (float)(i + r) * 0x1p-20f;
        for (int k = 1; k < TIMES; k++) {
            float next_sum = sum;
            for (int r = 1; r < world; r++) next_sum += sum;
            sum = next_sum;
        }
        want[i] = sum; /* infinite at 4: 4^300; equal bits all the same */
    }
    tp_run(world, reduce, p, sizeof *p);
    for (int r = 0; r < world; r++) {
        ck_assert_int_eq(memcmp(p[r].x, want, sizeof want), 0);
        free(p[r].x);
    }
    close_peers(p, world);
}
END_TEST

/* ---- the rest -------------------------------------------------------------------------------- */

enum { ROWS = 3 };
static const size_t widths[TP_MAX] = {16, 0, 4, 28};

static void *all_others(void *arg)
{
    peer *p = arg;
    comm *c = p->c;
    unsigned char part[ROWS][32], whole[ROWS][64], word[8], words[TP_MAX][8];
    memset(part, 'a' + c->rank, sizeof part);
    memset(whole, '.', sizeof whole);
    c->op->gather_rows(c, p->be, c->rank ? NULL : whole, 64, part, 32, widths, ROWS);
    for (int i = 0; c->rank == 0 && i < ROWS; i++)
        ck_assert_int_eq(
            memcmp(whole[i], "aaaaaaaaaaaaaaaaccccdddddddddddddddddddddddddddd....", 52), 0);
    memset(word, '0' + c->rank, sizeof word);
    ck_assert_int_eq(c->op->exchange(c, words, word, sizeof word, &p->e), 0);
    for (int r = 0; r < p->world; r++) ck_assert_int_eq(words[r][7], '0' + r);
    c->op->broadcast(c, p->be, word, sizeof word);
    ck_assert_int_eq(memcmp(word, "00000000", 8), 0);
    ck_assert_int_eq(c->op->barrier(c, 0, &p->e), 0);
    for (int k = 1; k < 200; k++) {
        const void *msg;
        size_t bytes;
        unsigned char text[256];
        memset(text, k, sizeof text);
        if (next(&p->seed) % 8 == 0) usleep(100);
        if (c->rank == 0) {
            ck_assert_int_eq(c->op->send(c, text, (size_t)k, &p->e), 0);
            continue;
        }
        ck_assert_int_eq(c->op->receive(c, &msg, &bytes, &p->e), 0);
        ck_assert_uint_eq(bytes, (size_t)k);
        ck_assert_int_eq(memcmp(msg, text, bytes), 0);
    }
    return NULL;
}

START_TEST(others)
{
    peer p[TP_MAX];
    open_peers(p, 4, 20);
    tp_run(4, all_others, p, sizeof *p);
    close_peers(p, 4);
}
END_TEST

/* ---- faults ---------------------------------------------------------------------------------- */

enum { EVER = 100000 }; /* seconds: longer than the test may last */

typedef enum { MISSING, ABORTS, ELSEWHERE, OTHER_SIZE, N_FAULTS } fault_kind;

static fault_kind how;

/* Rank 2 fails at its third sum. */
static void *third_fails(void *arg)
{
    peer *p = arg;
    comm *c = p->c;
    float x[100] = {0};
    size_t n = 100;
    for (int i = 0; i < 3; i++) {
        /* Rank 1 looks for rank 2 first; the others hear it from rank 1. */
        if (i == 2 && c->rank == 1 && how == MISSING) c->timeout_s = 0.3;
        if (i == 2 && c->rank == 2) {
            if (how == MISSING) return NULL;
            if (how == ABORTS) comm_abort(c, "the fan stopped");
            if (how == ELSEWHERE) c->op->broadcast(c, p->be, x, 4 * n);
            if (how == OTHER_SIZE) n = 99;
        }
        c->op->all_reduce(c, p->be, x, n, ACT_F32);
    }
    const void *msg;
    size_t bytes;
    ck_assert_int_eq(c->op->receive(c, &msg, &bytes, &p->e), ERR_DEVICE);
    return NULL;
}

START_TEST(faults)
{
    static const char *const words[N_FAULTS] = {
        [MISSING] = "all_reduce: rank 2 did not come to all_reduce within 0.3 s",
        [ABORTS] = "rank 2: the fan stopped",
        [ELSEWHERE] = "broadcast",
        [OTHER_SIZE] = "396"};
    peer p[TP_MAX];
    how = (fault_kind)_i;
    open_peers(p, 4, EVER); /* who need not wait for the deadline does not */
    tp_run(4, third_fails, p, sizeof *p);
    for (int r = 0; r < 4; r++) {
        if (r == 2 && how <= ABORTS) continue;
        ck_assert_msg(strstr(p[r].be->fault, words[how]), "rank %d: '%s'", r, p[r].be->fault);
    }
    close_peers(p, 4);
}
END_TEST

/* Rank 0 finds out that nobody takes its messages. */
START_TEST(deaf_rank)
{
    peer p[TP_MAX];
    open_peers(p, 2, 0.2);
    err e = {0};
    for (int k = 0; k < 2; k++) ck_assert_int_eq(p[0].c->op->send(p[0].c, "x", 1, &e), 0);
    ck_assert_int_eq(p[0].c->op->send(p[0].c, "x", 1, &e), ERR_DEVICE);
    ck_assert_str_eq(e.msg, "rank 1 did not take a message within 0.2 s");
    ck_assert_int_eq(p[1].c->op->barrier(p[1].c, 5, &e), ERR_DEVICE);
    close_peers(p, 2);
}
END_TEST

/* ---- draws from cut logits ------------------------------------------------------------------- */

enum { VOCAB = 5000, REAL = 4990, N_ROWS = 24 };

/* What the rows are about; the same for every world. */
static void fill_logits(float *x /* [N_ROWS][VOCAB] */)
{
    uint64_t s = 5;
    for (int i = 0; i < N_ROWS * VOCAB; i++) x[i] = (float)(next(&s) >> 40) * 0x1p-20f - 8;
    for (int r = 0; r < N_ROWS; r++) {
        float *row = x + r * VOCAB;
        for (int i = REAL; i < VOCAB; i++) row[i] = 100; /* padding never counts */
        if (r % 4 == 1)                                  /* many equal ones, over all parts */
            for (int i = 3; i < REAL; i += 611) row[i] = 9;
        if (r % 4 == 2)
            for (int i = 0; i < REAL; i++) row[i] = rintf(row[i]);
    }
    for (int i = 0; i < REAL; i++) x[7 * VOCAB + i] = i == 4100 ? NAN : -INFINITY;
    for (int i = 0; i < REAL; i++)
        if (i % 1000) x[11 * VOCAB + i] = i % 2 ? NAN : -INFINITY;
    x[3 * VOCAB + 77] = NAN;
    x[15 * VOCAB + 2000] = INFINITY;
}

static void fill_rows(sample_row *row, const int32_t *ids)
{
    static const float bias[] = {3, -100};
    static const int32_t counts[] = {1, 0, 2};
    for (int r = 0; r < N_ROWS; r++) {
        memset(&row[r], 0, sizeof row[r]);
        row[r].top_p = row[r].repetition = 1;
        row[r].n_vocab = REAL;
        row[r].forced = -1;
        row[r].n_top = r % 3 == 0 ? -1 : r % 3 == 1 ? 20 : r % 7;
        row[r].seed = (uint64_t)r;
        row[r].temperature = r % 2 ? 0 : 0.7f;
        row[r].top_k = r % 8 == 4 ? 0 : r % 8 == 6 ? 65 : 1 + 3 * r % 64;
        if (r % 4 == 0) row[r].top_p = 0.9f;
        if (r % 5 == 0) row[r].min_p = 0.05f;
    }
    row[9].forced = 4321;
    row[10].forced = 77;
    row[11].forced = 3; /* is NaN there */
    row[12].forced = 1024;
    row[9].n_top = 5;
    row[10].n_top = row[11].n_top = 0;
    row[12].n_top = -1;
    row[13].n_bias = 2;
    row[13].bias_id = ids;
    row[13].bias = bias;
    row[14].n_seen = 3;
    row[14].seen_id = ids;
    row[14].gen_count = counts;
    row[14].repetition = 1.3f;
    row[16].n_ban = 3;
    row[16].ban = ids;
    row[18].top_k = 0;
    row[18].min_p = 0.2f;
}

typedef struct {
    peer p;
    const float *logits;
    const int32_t *start;
    sample_row *rows;
} draw_job;

static void *draw_cut(void *arg)
{
    draw_job *j = arg;
    backend *be = j->p.be;
    int rank = j->p.c->rank, first = j->start[rank], n = j->start[rank + 1] - first;
    split_ask ask[N_ROWS];
    float *part = malloc(sizeof(float) * N_ROWS * (size_t)n);
    for (int r = 0; r < N_ROWS; r++) {
        memcpy(part + r * n, j->logits + r * VOCAB + first, sizeof(float) * (size_t)n);
        ask[r] = split_ask_of(&j->rows[r]);
    }
    split_sampler *s = split_new(be, j->start, N_ROWS, &j->p.e);
    ck_assert_ptr_nonnull(s);
    split_sample(s, (tensor){part, N_ROWS, n, n, ACT_F32}, ask, rank ? NULL : j->rows, N_ROWS);
    split_free(s);
    free(part);
    return NULL;
}

START_TEST(draws)
{
    static const int32_t cuts[][TP_MAX] = {
        {0, 3072, VOCAB}, {0, 2048, 3072, 4096, VOCAB}, {0, 1250, 2500, 3750, VOCAB}};
    static const int worlds[] = {2, 4, 4};
    static const int32_t ids[] = {1500, 4000, 12};
    int world = worlds[_i % 3];
    backend_options bo = {.name = _i / 3 ? "cpu" : "ref", .threads = 2};
    float *logits = malloc(sizeof(float) * N_ROWS * VOCAB);
    sample_row want[N_ROWS], got[N_ROWS];
    draw_job j[TP_MAX];
    peer p[TP_MAX];
    err e = {0};
    fill_logits(logits);
    fill_rows(want, ids);
    fill_rows(got, ids);
    backend *be = backend_open(&bo, &e);
    ck_assert_ptr_nonnull(be);
    k_sample(be, (tensor){logits, N_ROWS, VOCAB, VOCAB, ACT_F32}, want, N_ROWS);
    backend_close(be);
    open_peers(p, world, 20);
    for (int r = 0; r < world; r++) {
        backend_close(p[r].be);
        p[r].be = backend_open(&bo, &e);
        p[r].be->comm = p[r].c;
        j[r] = (draw_job){p[r], logits, cuts[_i % 3], got};
    }
    tp_run(world, draw_cut, j, sizeof *j);
    int by_best = 0;
    for (int r = 0; r < N_ROWS; r++) {
        by_best += split_ask_of(&want[r]).n_best > 0;
        ck_assert_msg(!memcmp(&want[r], &got[r], sizeof *got),
                      "%s over %d, row %d: id %d (%a, rank %d), whole %d (%a, rank %d)", bo.name,
                      world, r, got[r].id, (double)got[r].logprob, got[r].rank, want[r].id,
                      (double)want[r].logprob, want[r].rank);
    }
    ck_assert_int_eq(by_best, 16);
    close_peers(p, world);
    free(logits);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("comm");
    TCase *t = tcase_create("comm");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, sums, 0, 10);
    tcase_add_loop_test(t, sums_in_a_row, 0, 2);
    tcase_add_test(t, others);
    tcase_add_loop_test(t, faults, 0, N_FAULTS);
    tcase_add_test(t, deaf_rank);
    tcase_add_loop_test(t, draws, 0, 6);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
