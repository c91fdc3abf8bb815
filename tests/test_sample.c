/* test_sample.c - the sampler: ids of cpu equal those of ref on thousands of random rows with every
 * parameter, logprobs within a bound, the same bits whatever the batch, threads or instruction set,
 * the drawn distribution, and the edges. */
#include "kernels/rng.h"
#include "tests/quick.h"
#include "tests/ops_rig.h"

static const char *isas[4];
static int n_isas;

/* ---- random rows -------------------------------------------------------------------------------
 */

enum { ROWS = 8, MAX_IDS = 64 };

/* One step: logits and parameters with the arrays they point to. */
typedef struct {
    own logits;
    sample_row row[ROWS];
    uint32_t *allow[ROWS];
    int32_t ban[ROWS][MAX_IDS], bias_id[ROWS][MAX_IDS], seen[ROWS][MAX_IDS], count[ROWS][MAX_IDS];
    float bias[ROWS][MAX_IDS];
} step;

static float pick(uint64_t *s, const float *from, int n)
{
    return from[rnd_below(s, n)];
}
#define PICK(s, ...)                      \
    pick(s, (const float[]){__VA_ARGS__}, \
         (int)(sizeof((const float[]){__VA_ARGS__}) / sizeof(float)))

/* Peaked, flat, coarse (many ties), rising, falling, constant, with -inf and NaN. */
static void fill_logits(float *x, int n, int kind, uint64_t *s)
{
    for (int i = 0; i < n; i++) {
        float z = rnd_normal(s);
        switch (kind) {
        case 0: x[i] = 3 * z; break;
        case 1: x[i] = 0.01f * z; break;
        case 2: x[i] = rintf(2 * z); break;
        case 3: x[i] = 1e-3f * (float)i; break;
        case 4: x[i] = -1e-3f * (float)i; break;
        case 5: x[i] = 1.25f; break;
        case 6: x[i] = rnd_below(s, 3) ? -INFINITY : z; break;
        case 7: x[i] = rnd_below(s, 50) ? 2 * z : NAN; break;
        case 8: x[i] = i % 17 ? -0.0f : 0.0f; break;
        default: x[i] = (rnd_below(s, 200) ? 2 : 12) * z; break;
        }
    }
}

static int distinct_ids(int32_t *ids, int want, int n, uint64_t *s)
{
    int m = 0;
    for (int i = 0; i < want && m < n; i++) {
        int id = rnd_below(s, n), k = 0;
        while (k < m && ids[k] != id) k++;
        if (k == m) ids[m++] = id;
    }
    return m;
}

static void fill_row(step *t, int r, int n, uint64_t *s)
{
    sample_row *p = &t->row[r];
    *p = (sample_row){.temperature = PICK(s, 0, 0.2f, 0.7f, 1, 1, 2, 1e-3f),
                      .top_k = (int)PICK(s, 0, -1, 1, 5, 20, 20, 200, 600, 100000),
                      .top_p = PICK(s, 1, 1, 0.95f, 0.5f, 0.999f, 0),
                      .min_p = PICK(s, 0, 0, 0, 0.05f, 0.5f, 1),
                      .repetition = PICK(s, 1, 1, 1.05f, 0.8f, 3),
                      .presence = PICK(s, 0, 0, 0.5f, -1),
                      .frequency = PICK(s, 0, 0, 0.3f, -0.2f),
                      .n_vocab = n,
                      .seed = rnd(s),
                      .choice = rnd(s) % 4,
                      .position = rnd(s) % 5000,
                      .n_top = (int)PICK(s, -1, 0, 1, 5, 20),
                      .forced = rnd_below(s, 12) ? -1 : rnd_below(s, n),
                      .ban = t->ban[r],
                      .bias_id = t->bias_id[r],
                      .bias = t->bias[r],
                      .seen_id = t->seen[r],
                      .gen_count = t->count[r]};
    if (rnd_below(s, 3) == 0) p->n_ban = distinct_ids(t->ban[r], rnd_below(s, MAX_IDS), n, s);
    if (rnd_below(s, 3) == 0) p->n_bias = distinct_ids(t->bias_id[r], rnd_below(s, MAX_IDS), n, s);
    if (rnd_below(s, 3) == 0) p->n_seen = distinct_ids(t->seen[r], rnd_below(s, MAX_IDS), n, s);
    for (int i = 0; i < MAX_IDS; i++) {
        t->bias[r][i] = PICK(s, -100, -101, 5, -3, 0.25f, 100);
        t->count[r][i] = rnd_below(s, 4);
    }
    if (rnd_below(s, 4)) return;
    int density = rnd_below(s, 4) ? 2 : n; /* half of the ids, or about one */
    for (int i = 0; i < (n + 31) / 32; i++) t->allow[r][i] = 0;
    for (int i = 0; i < n; i++)
        if (rnd_below(s, density) == 0) t->allow[r][i / 32] |= 1u << i % 32;
    t->allow[r][(n - 1) / 32] |= rnd(s) & (n % 32 ? ~0u << n % 32 : 0); /* bits beyond: no ids */
    p->allow = t->allow[r];
}

static step *step_new(int n_vocab, int cols)
{
    step *t = calloc(1, sizeof *t);
    t->logits = own_new(ROWS, cols);
    for (int r = 0; r < ROWS; r++) t->allow[r] = calloc((size_t)n_vocab / 32 + 1, sizeof(uint32_t));
    return t;
}
static void step_free(step *t)
{
    for (int r = 0; r < ROWS; r++) free(t->allow[r]);
    own_free(&t->logits);
    free(t);
}
static void step_fill(step *t, int n_vocab, uint64_t *s)
{
    for (int r = 0; r < ROWS; r++) {
        float *x = tensor_row(t->logits.t, r);
        fill_logits(x, n_vocab, rnd_below(s, 10), s);
        for (int i = n_vocab; i < t->logits.t.cols; i++) x[i] = 1e30f; /* padding must not win */
        fill_row(t, r, n_vocab, s);
    }
}

static void run_step(backend *be, step *t)
{
    err e = {0};
    k_sample(be, t->logits.t, t->row, ROWS);
    ck_assert_msg(k_sync(be, &e) == 0, "%s", e.msg);
}

static void describe(const sample_row *p, char *out, size_t n)
{
    snprintf(out, n,
             "T %g k %d p %g min %g rep %g pres %g freq %g n %d ban %d bias %d seen %d allow %d "
             "forced %d",
             (double)p->temperature, p->top_k, (double)p->top_p, (double)p->min_p,
             (double)p->repetition, (double)p->presence, (double)p->frequency, p->n_vocab, p->n_ban,
             p->n_bias, p->n_seen, p->allow != NULL, p->forced);
}

/* Logprobs are f32 exponentials summed in 16 lanes of 64 per block: 2e-6 covers the rounding. */
static void check_report(const sample_row *got, const sample_row *want)
{
    if (want->n_top < 0) {
        ck_assert(got->logprob == 0 && got->rank == 0);
        return;
    }
    ck_assert_int_eq(got->rank, want->rank);
    ck_assert(got->logprob == want->logprob ||
              fabsf(got->logprob - want->logprob) <= 2e-6f * fmaxf(1, fabsf(want->logprob)));
    for (int i = 0; i < want->n_top; i++) {
        ck_assert_int_eq(got->top_id[i], want->top_id[i]);
        float a = got->top_logprob[i], b = want->top_logprob[i];
        ck_assert(a == b || fabsf(a - b) <= 2e-6f * fmaxf(1, fabsf(b)));
    }
}

START_TEST(equals_ref)
{
    static const int vocabs[] = {1, 3, 16, 100, 1000, 1029, 5000, 20011};
    static const int steps[] = {40, 40, 60, 120, 120, 120, 40, 12};
    int n = vocabs[_i];
    uint64_t s = 1234 + (uint64_t)_i;
    backend *ref = open_backend("ref", NULL, 1), *cpu = open_backend("cpu", "auto", 2);
    step *t = step_new(n, n + 7);
    for (int i = 0; i < steps[_i]; i++) {
        step_fill(t, n, &s);
        run_step(cpu, t);
        sample_row got[ROWS];
        memcpy(got, t->row, sizeof got);
        run_step(ref, t);
        for (int r = 0; r < ROWS; r++) {
            char what[200];
            describe(&t->row[r], what, sizeof what);
            ck_assert_msg(got[r].id == t->row[r].id, "step %d row %d: id %d, ref %d (%s)", i, r,
                          got[r].id, t->row[r].id, what);
            check_report(&got[r], &t->row[r]);
        }
        own_check(t->logits);
    }
    step_free(t);
    backend_close(ref);
    backend_close(cpu);
}
END_TEST

/* A row's answer as bytes: everything sample_row calls a result. */
static bool same_answer(const sample_row *a, const sample_row *b)
{
    size_t top = (size_t)(a->n_top < 0 ? 0 : a->n_top);
    return a->id == b->id && a->rank == b->rank &&
           !memcmp(&a->logprob, &b->logprob, sizeof a->logprob) &&
           !memcmp(a->top_id, b->top_id, top * sizeof *a->top_id) &&
           !memcmp(a->top_logprob, b->top_logprob, top * sizeof *a->top_logprob);
}

START_TEST(same_bits)
{
    uint64_t s = 99;
    int n = 3001;
    step *t = step_new(n, n);
    for (int i = 0; i < 30; i++) {
        step_fill(t, n, &s);
        sample_row want[ROWS];
        for (int v = 0; v < n_isas; v++)
            for (int threads = 1; threads <= 3; threads++) {
                backend *be = open_backend("cpu", isas[v], threads);
                run_step(be, t);
                if (v == 0 && threads == 1) memcpy(want, t->row, sizeof want);
                for (int r = 0; r < ROWS; r++)
                    ck_assert_msg(same_answer(&want[r], &t->row[r]),
                                  "step %d row %d: %s, %d threads", i, r, isas[v], threads);
                if (v == 0 && threads == 1) { /* each row alone */
                    for (int r = 0; r < ROWS; r++) {
                        tensor one = {tensor_row(t->logits.t, r), 1, n, n, ACT_F32};
                        sample_row alone = t->row[r];
                        k_sample(be, one, &alone, 1);
                        ck_assert(same_answer(&want[r], &alone));
                    }
                }
                backend_close(be);
            }
    }
    step_free(t);
}
END_TEST

/* ---- distribution
 * -------------------------------------------------------------------------------- */

/* Chi-square of 20,000 draws against the softmax; 5 sigma above the mean of the distribution. */
START_TEST(draws_follow_softmax)
{
    enum { N = 40, DRAWS = 20000 };
    static const float temperatures[] = {0.5f, 1, 1.7f};
    static const int ks[] = {0, N, 10};
    backend *cpu = open_backend("cpu", "auto", 1);
    own x = own_new(1, N);
    own_fill(x, 1.5f, 4);
    const float *l = tensor_row(x.t, 0);
    float temp = temperatures[_i % 3];
    int k = ks[_i / 3], seen[N] = {0}, order[N];
    for (int i = 0; i < N; i++) {
        int above = 0;
        for (int j = 0; j < N; j++) above += l[j] > l[i];
        order[i] = above;
    }
    for (int d = 0; d < DRAWS; d++) {
        sample_row r = {.temperature = temp,
                        .top_k = k,
                        .top_p = 1,
                        .repetition = 1,
                        .n_vocab = N,
                        .seed = 7,
                        .choice = (uint64_t)(d % 2),
                        .position = (uint64_t)(d / 2),
                        .n_top = -1,
                        .forced = -1};
        k_sample(cpu, x.t, &r, 1);
        seen[r.id]++;
    }
    double total = 0, chi = 0;
    int cells = 0;
    for (int i = 0; i < N; i++)
        total += k > 0 && order[i] >= k ? 0 : exp((double)l[i] / (double)temp);
    double rest_want = 0, rest_seen = 0;
    for (int i = 0; i < N; i++) {
        bool out = k > 0 && order[i] >= k;
        double want = out ? 0 : DRAWS * exp((double)l[i] / (double)temp) / total;
        if (out) ck_assert_int_eq(seen[i], 0);
        else if (want < 8) {
            rest_want += want;
            rest_seen += seen[i];
        } else {
            chi += (seen[i] - want) * (seen[i] - want) / want;
            cells++;
        }
    }
    if (rest_want > 0) {
        chi += (rest_seen - rest_want) * (rest_seen - rest_want) / rest_want;
        cells++;
    }
    ck_assert_msg(chi < cells - 1 + 5 * sqrt(2.0 * (cells - 1)), "chi-square %.1f over %d cells",
                  chi, cells);
    own_free(&x);
    backend_close(cpu);
}
END_TEST

START_TEST(random_numbers_are_uniform)
{
    enum { CELLS = 64, DRAWS = 64000 };
    int seen[3][CELLS] = {{0}};
    double chi[3] = {0}, want = (double)DRAWS / CELLS;
    for (int d = 0; d < DRAWS; d++) {
        uint64_t i = (uint64_t)d;
        double u[3] = {rng_draw(i, 0, 0), rng_draw(1, i, 0), rng_draw(1, 0, i)};
        for (int k = 0; k < 3; k++) {
            ck_assert(u[k] >= 0 && u[k] < 1);
            seen[k][(int)(u[k] * CELLS)]++;
        }
    }
    for (int k = 0; k < 3; k++) {
        for (int c = 0; c < CELLS; c++) chi[k] += (seen[k][c] - want) * (seen[k][c] - want) / want;
        ck_assert_msg(chi[k] < CELLS + 5 * sqrt(2.0 * CELLS), "chi-square %.1f", chi[k]);
    }
}
END_TEST

/* ---- edges
 * --------------------------------------------------------------------------------------- */

/* A row over x[n] that changes nothing. */
static sample_row neutral(int n)
{
    return (sample_row){
        .temperature = 1, .top_p = 1, .repetition = 1, .n_vocab = n, .n_top = -1, .forced = -1};
}
static int draw_once(backend *be, own x, sample_row r)
{
    k_sample(be, x.t, &r, 1);
    return r.id;
}

START_TEST(edges)
{
    enum { N = 600 };
    backend *be = open_backend(_i ? "cpu" : "ref", NULL, 1);
    own x = own_new(1, N);
    float *l = tensor_row(x.t, 0);
    own_fill(x, 1, 8);
    l[77] = l[300] = 9; /* a tie for the best */
    l[5] = 8.9f;
    sample_row greedy = neutral(N), r;
    greedy.temperature = 0;
    ck_assert_int_eq(draw_once(be, x, greedy), 77);
    r = neutral(N), r.top_k = 1;
    ck_assert_int_eq(draw_once(be, x, r), 77);
    r = neutral(N), r.top_p = 0;
    ck_assert_int_eq(draw_once(be, x, r), 77);
    bool both[2] = {false, false};
    for (uint64_t p = 0; p < 64; p++) {
        r = neutral(N), r.min_p = 1, r.position = p;
        int id = draw_once(be, x, r);
        ck_assert(id == 77 || id == 300); /* min_p 1 keeps all that equal the best */
        both[id == 300] = true;
        r = neutral(N), r.temperature = 1e-6f, r.position = p;
        id = draw_once(be, x, r);
        ck_assert(id == 77 || id == 300);
    }
    ck_assert(both[0] && both[1]);

    int32_t all[N], one = 77;
    for (int i = 0; i < N; i++) all[i] = i;
    r = greedy, r.ban = &one, r.n_ban = 1;
    ck_assert_int_eq(draw_once(be, x, r), 300);
    r.ban = all, r.n_ban = N; /* every token banned: the ban is lifted */
    ck_assert_int_eq(draw_once(be, x, r), 77);
    uint32_t allow[N / 32 + 1] = {0};
    r = greedy, r.allow = allow; /* nothing allowed: likewise */
    ck_assert_int_eq(draw_once(be, x, r), 77);
    allow[5 / 32] = 1u << 5;
    ck_assert_int_eq(draw_once(be, x, r), 5);
    r.ban = all, r.n_ban = N; /* bans never overrule what is allowed entirely */
    ck_assert_int_eq(draw_once(be, x, r), 5);
    r = greedy, r.n_vocab = 60; /* rows beyond are padding */
    ck_assert_int_eq(draw_once(be, x, r), 5);
    r.n_vocab = 5;
    ck_assert_int_lt(draw_once(be, x, r), 5);
    float bias[2] = {-100, 5};
    int32_t bias_id[2] = {77, 5};
    r = greedy, r.n_bias = 2, r.bias = bias, r.bias_id = bias_id;
    ck_assert_int_eq(draw_once(be, x, r), 5);

    for (int i = 0; i < N; i++) l[i] = NAN;
    ck_assert_int_eq(draw_once(be, x, neutral(N)), 0);
    for (int i = 0; i < N; i++) l[i] = -INFINITY;
    ck_assert_int_eq(draw_once(be, x, neutral(N)), 0);
    l[N - 1] = -1e30f; /* the only one that can be drawn */
    ck_assert_int_eq(draw_once(be, x, neutral(N)), N - 1);
    r = neutral(N), r.n_top = 3;
    k_sample(be, x.t, &r, 1);
    ck_assert(r.id == N - 1 && r.rank == 1 && r.logprob == 0);
    ck_assert(r.top_id[0] == N - 1 && r.top_id[1] == 0 && r.top_id[2] == 1 &&
              r.top_logprob[1] == -INFINITY);
    own_free(&x);
    backend_close(be);
}
END_TEST

/* Seconds of this thread's processor. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double least_of_draws(backend *be, own x, sample_row r)
{
    double least = INFINITY;
    for (int i = 0; i < 5; i++) {
        double from = cpu_seconds();
        draw_once(be, x, r);
        least = fmin(least, cpu_seconds() - from);
    }
    return least;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double least_of_sorts(const float *l, size_t n)
{
    float *copy = malloc(n * sizeof *copy);
    double least = INFINITY;
    for (int i = 0; i < 5; i++) {
        memcpy(copy, l, n * sizeof *copy);
        double from = cpu_seconds();
        qsort(copy, n, sizeof *copy, by_value);
        least = fmin(least, cpu_seconds() - from);
    }
    free(copy);
    return least;
}

/* Sorted and constant rows are the worst case of a selection.  The measure is what sorting a row of
 * chance takes this machine: up to a fifth of it was seen. */
START_TEST(no_row_is_slow)
{
    enum { N = 151936 };
    /* Instrumented builds slow each loop by a factor of its own: there only a blow-up counts. */
    const double most = quick() ? 10 : 0.5;
    backend *cpu = open_backend("cpu", "auto", 1);
    own x = own_new(1, N);
    uint64_t s = 5;
    double sort = 0;
    for (int kind = 0; kind < 6; kind++) {
        fill_logits(tensor_row(x.t, 0), N, kind, &s);
        if (kind == 0) sort = least_of_sorts(tensor_row(x.t, 0), N);
        for (int k = 0; k < 4; k++) {
            sample_row r = neutral(N);
            r.top_k = (const int[]){0, 20, 0, 5000}[k];
            r.top_p = k ? 0.95f : 1;
            double t = least_of_draws(cpu, x, r);
            ck_assert_msg(t < most * sort, "logits %d, top_k %d: %.2f ms, %.2f of a sort", kind,
                          r.top_k, t * 1e3, t / sort);
        }
    }
    own_free(&x);
    backend_close(cpu);
}
END_TEST

int main(void)
{
    log_init(LOG_ERROR, false);
    n_isas = machine_isas(isas);
    Suite *s = suite_create("sample");
    TCase *c = tcase_create("sample");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, equals_ref, 0, 8);
    tcase_add_test(c, same_bits);
    tcase_add_loop_test(c, draws_follow_softmax, 0, 9);
    tcase_add_test(c, random_numbers_are_uniform);
    tcase_add_loop_test(c, edges, 0, 2);
    tcase_add_test(c, no_row_is_slow);
    suite_add_tcase(s, c);
    return run_suite(s);
}
