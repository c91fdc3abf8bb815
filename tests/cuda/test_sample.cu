/* test_sample.cu - the CUDA sampler: greedy ids, ranks and everything with few candidates equal
 * ref's; where many share the weight an id may differ only if the random number or top_p falls
 * within EDGE of a border of the running sum.  Also: kept sets by exhaustion, distribution, two
 * calls under way, the same bits alone, among others and in any order of threads. */
#include "tests/cuda/sample_rig.h"

/* A third of the rounds in another order of threads: paths matter there, not statistics. */
static int few(int rounds)
{
    return asked_order() ? (rounds + 2) / 3 : rounds;
}

/* ---- against ref ------------------------------------------------------------------------------
 */

static void describe(const sample_row *p, char *out, size_t n)
{
    snprintf(out, n,
             "T %g k %d p %g min %g rep %g pres %g freq %g n %d ban %d bias %d seen %d allow %d "
             "forced %d top %d",
             (double)p->temperature, p->top_k, (double)p->top_p, (double)p->min_p,
             (double)p->repetition, (double)p->presence, (double)p->frequency, p->n_vocab, p->n_ban,
             p->n_bias, p->n_seen, p->allow != NULL, p->forced, p->n_top);
}

/* The sum of exponentials is right to 1e-6, f32 results add their rounding. */
static bool close_to(float a, float b)
{
    return a == b || fabsf(a - b) <= 2e-6f * fmaxf(1, fabsf(b));
}

static void check_report(const sample_row *got, const sample_row *want, const char *what)
{
    if (want->n_top < 0) {
        ck_assert_msg(got->logprob == 0 && got->rank == 0, "%s", what);
        return;
    }
    if (got->id == want->id) {
        ck_assert_msg(got->rank == want->rank, "rank %d, ref %d (%s)", got->rank, want->rank, what);
        ck_assert_msg(close_to(got->logprob, want->logprob), "logprob %.9g, ref %.9g (%s)",
                      (double)got->logprob, (double)want->logprob, what);
    }
    for (int i = 0; i < want->n_top; i++) {
        ck_assert_msg(got->top_id[i] == want->top_id[i], "top %d: %d, ref %d (%s)", i,
                      got->top_id[i], want->top_id[i], what);
        ck_assert_msg(close_to(got->top_logprob[i], want->top_logprob[i]),
                      "top %d: %.9g, ref %.9g (%s)", i, (double)got->top_logprob[i],
                      (double)want->top_logprob[i], what);
    }
}

/* Runs the step on both; returns how many ids differ, each of which lies at an edge. */
static int compare_step(backend *dev, backend *ref, step *t)
{
    int differ = 0;
    sample_row got[MAX_OUT];
    run_step(dev, t);
    memcpy(got, t->row, sizeof got);
    k_sample(ref, t->logits.t, t->row, t->n_rows);
    for (int r = 0; r < t->n_rows; r++) {
        char what[250];
        const float *x = tensor_row(t->logits.t, r);
        const sample_row *want = &t->row[r];
        describe(want, what, sizeof what);
        if (got[r].id != want->id) {
            ck_assert_msg(want->temperature > 0 && want->forced < 0 && is_near(want, x, got[r].id),
                          "row %d: id %d, ref %d (%s)", r, got[r].id, want->id, what);
            differ++;
        }
        check_report(&got[r], want, what);
    }
    return differ;
}

START_TEST(equals_ref)
{
    static const struct {
        int n, pad, steps;
    } runs[] = {{1, 3, 10},    {3, 0, 10},    {16, 0, 15},  {100, 7, 40}, {1000, 0, 40},
                {1029, 7, 20}, {5000, 0, 14}, {5001, 2, 8}, {20011, 5, 5}};
    uint64_t s = 1234 + (uint64_t)_i;
    backend *dev = open_sampler(), *ref = open_backend("ref", NULL, 1);
    int n = runs[_i].n, differ = 0;
    step *t = step_new(dev, ROWS, n, n + runs[_i].pad);
    for (int i = 0; i < few(runs[_i].steps); i++) {
        step_fill(t, n, &s);
        differ += compare_step(dev, ref, t);
    }
    ck_assert_msg(differ <= 1, "%d ids differ from ref's", differ);
    step_free(dev, t);
    backend_close(ref);
    backend_close(dev);
}
END_TEST

/* The vocabulary of Qwen2 and 3 in the ways that take different paths. */
START_TEST(whole_vocabulary)
{
    enum { N = 151936 };
    static const struct {
        float temp, top_p, min_p;
        int top_k, n_top, kind;
    } rows[ROWS] = {{0, 1, 0, 0, -1, 0},         {1, 1, 0, 0, 20, 0},
                    {0.7f, 0.8f, 0, 20, -1, 9},  {0.6f, 0.95f, 0, 20, 5, 0},
                    {1, 0.95f, 0, 0, -1, 0},     {2, 0.9f, 0, 0, -1, 1},
                    {1, 0.5f, 0.1f, 5000, 0, 2}, {1, 1, 0.02f, 0, 20, 5}};
    uint64_t s = 77;
    backend *dev = open_sampler(), *ref = open_backend("ref", NULL, 1);
    step *t = step_new(dev, ROWS, N, N + 1);
    for (int r = 0; r < ROWS; r++) {
        float *x = tensor_row(t->logits.t, r);
        fill_logits(x, N, rows[r].kind, &s);
        x[N] = 1e30f;
        t->row[r] = neutral(N);
        t->row[r].temperature = rows[r].temp;
        t->row[r].top_p = rows[r].top_p;
        t->row[r].min_p = rows[r].min_p;
        t->row[r].top_k = rows[r].top_k;
        t->row[r].n_top = rows[r].n_top;
        t->row[r].position = (uint64_t)r;
    }
    ck_assert_int_le(compare_step(dev, ref, t), 1);
    step_free(dev, t);
    backend_close(ref);
    backend_close(dev);
}
END_TEST

/* ---- kept sets, distribution ------------------------------------------------------------------
 */

/* Draws of one row of parameters at positions 0.. into seen[n]. */
static void draw_many(backend *be, const float *x, const sample_row *like, int draws, int *seen)
{
    int n = like->n_vocab;
    step *t = step_new(be, MAX_OUT, n, n);
    for (int r = 0; r < MAX_OUT; r++) memcpy(tensor_row(t->logits.t, r), x, (size_t)n * sizeof *x);
    for (int d = 0; d < draws; d += MAX_OUT) {
        for (int r = 0; r < MAX_OUT; r++) {
            t->row[r] = *like;
            t->row[r].choice = (uint64_t)(r % 2);
            t->row[r].position = (uint64_t)(d + r);
        }
        run_step(be, t);
        for (int r = 0; r < MAX_OUT; r++) seen[t->row[r].id]++;
    }
    step_free(be, t);
}

/* What can be drawn is exactly what the specification keeps: so hot that every kept id shows up. */
START_TEST(kept_sets_are_exact)
{
    enum { N = 300, DRAWS = 6 * MAX_OUT };
    static const struct {
        int top_k;
        float top_p, min_p;
    } cuts[] = {{16, 1, 0}, {0, 0.06f, 0}, {40, 0.4f, 0}, {0, 1, 0.991f}, {30, 0.9f, 0.99f}};
    float x[N];
    uint64_t s = 31;
    backend *be = open_sampler();
    fill_logits(x, N, 0, &s);
    x[7] = x[200] = x[299] = 9; /* ties at the top and, with coarse steps, at the cut */
    for (int i = 0; i < N; i++) x[i] = rintf(x[i] * 4) / 4;
    float below = (float)(9 + 500 * log((double)cuts[_i].min_p)), above = below;
    for (int i = 0; i < 4 && cuts[_i].min_p > 0;
         i++) { /* some steps on either side of min_p's bar */
        x[20 + i] = below = nextafterf(below, -INFINITY);
        x[30 + i] = above;
        above = nextafterf(above, INFINITY);
    }
    sample_row r = neutral(N);
    r.temperature = 500;
    r.top_k = cuts[_i].top_k;
    r.top_p = cuts[_i].top_p;
    r.min_p = cuts[_i].min_p;
    candidate c[N];
    int seen[N] = {}, want[N] = {};
    int kept = keep(&r, (double)r.top_p, c, scores_of(&r, x, c));
    ck_assert(kept > 3 && kept < 40); /* 384 draws miss none of them */
    for (int i = 0; i < kept; i++) want[c[i].id] = 1;
    draw_many(be, x, &r, DRAWS, seen);
    for (int i = 0; i < N; i++)
        ck_assert_msg((seen[i] > 0) == want[i], "id %d of %d kept: drawn %d times", i, kept,
                      seen[i]);
    backend_close(be);
}
END_TEST

/* Chi-square against the softmax; 5 sigma above the mean of the distribution. */
START_TEST(draws_follow_softmax)
{
    enum { N = 40, DRAWS = 20 * MAX_OUT };
    float x[N];
    uint64_t s = 4;
    backend *be = open_sampler();
    for (int i = 0; i < N; i++) x[i] = 1.5f * rnd_normal(&s);
    sample_row r = neutral(N);
    r.temperature = _i ? 0.8f : 1.3f;
    r.top_k = _i ? 10 : 0;
    candidate c[N];
    int seen[N] = {}, cells = 0, kept = keep(&r, 1, c, scores_of(&r, x, c)), in = 0;
    draw_many(be, x, &r, DRAWS, seen);
    double total = 0, chi = 0, rest_want = 0, rest_seen = 0;
    for (int i = 0; i < kept; i++) total += c[i].weight;
    for (int i = 0; i < kept; i++) {
        double want = DRAWS * c[i].weight / total, got = seen[c[i].id];
        in += seen[c[i].id];
        if (want < 8) {
            rest_want += want;
            rest_seen += got;
        } else {
            chi += (got - want) * (got - want) / want;
            cells++;
        }
    }
    if (rest_want > 0) {
        chi += (rest_seen - rest_want) * (rest_seen - rest_want) / rest_want;
        cells++;
    }
    ck_assert_int_eq(in, DRAWS);
    ck_assert_msg(chi < cells - 1 + 5 * sqrt(2.0 * (cells - 1)), "chi-square %.1f over %d cells",
                  chi, cells);
    backend_close(be);
}
END_TEST

/* ---- bits -------------------------------------------------------------------------------------
 */

/* A row's answer as bytes: everything sample_row calls a result. */
static bool same_answer(const sample_row *a, const sample_row *b)
{
    size_t top = (size_t)(a->n_top < 0 ? 0 : a->n_top);
    return a->id == b->id && a->rank == b->rank &&
           !memcmp(&a->logprob, &b->logprob, sizeof a->logprob) &&
           !memcmp(a->top_id, b->top_id, top * sizeof *a->top_id) &&
           !memcmp(a->top_logprob, b->top_logprob, top * sizeof *a->top_logprob);
}

/* Again, in other orders of threads, and each row alone at another alignment. */
START_TEST(same_bits)
{
    enum { N = 5003 };
    uint64_t s = 99;
    backend *be = open_sampler();
    step *t = step_new(be, ROWS, N, N), *one = step_new(be, 1, N, N + 2);
    for (int i = 0; i < few(3); i++) {
        step_fill(t, N, &s);
        run_step(be, t);
        sample_row want[ROWS];
        int32_t ids[ROWS];
        memcpy(want, t->row, sizeof want);
        k_download(be, ids, be->op->drawn(be), sizeof ids);
        for (int r = 0; r < ROWS; r++) ck_assert_int_eq(ids[r], want[r].id);
        for (uint64_t seed = 0; seed < 3; seed++) {
            other_order(seed);
            run_step(be, t);
            for (int r = 0; r < ROWS; r++)
                ck_assert_msg(same_answer(&want[r], &t->row[r]), "step %d, row %d, order %d", i, r,
                              (int)seed);
        }
        other_order(asked_order());
        for (int r = 0; r < ROWS; r++) {
            memcpy(tensor_row(one->logits.t, 0), tensor_row(t->logits.t, r), N * sizeof(float));
            one->row[0] = t->row[r];
            run_step(be, one);
            ck_assert_msg(same_answer(&want[r], &one->row[0]), "step %d, row %d alone", i, r);
        }
    }
    step_free(be, t);
    step_free(be, one);
    backend_close(be);
}
END_TEST

/* Two calls under way, the second with far longer lists; what rows point to is free on return. */
START_TEST(two_calls_under_way)
{
    enum { N = 4000 };
    uint64_t s = 5;
    backend *be = open_sampler(), *ref = open_backend("ref", NULL, 1);
    step *a = step_new(be, ROWS, N, N), *b = step_new(be, ROWS, N, N);
    int32_t *many = (int32_t *)malloc(60000 * sizeof *many); /* far more than the first upload */
    for (int i = 0; i < 4; i++) {
        sample_row want[2][ROWS];
        step_fill(a, N, &s);
        step_fill(b, N, &s);
        for (int k = 0; k < 60000; k++) many[k] = rnd_below(&s, N);
        b->row[1].ban = many;
        b->row[1].n_ban = i == 2 ? 60000 : 1000 * i;
        k_sample(ref, a->logits.t, a->row, ROWS);
        memcpy(want[0], a->row, sizeof want[0]);
        k_sample(ref, b->logits.t, b->row, ROWS);
        memcpy(want[1], b->row, sizeof want[1]);
        err e = {};
        queue_step(be, a);
        int first = k_mark(be);
        queue_step(be, b);
        int second = k_mark(be);
        memset(many, 0xff, 60000 * sizeof *many);
        memset(a->ban, 0xff, sizeof a->ban);
        memset(b->bias, 0xff, sizeof b->bias);
        ck_assert_msg(k_wait(be, first, &e) == 0, "%s", e.msg);
        for (int r = 0; r < ROWS; r++) ck_assert_int_eq(a->row[r].id, want[0][r].id);
        ck_assert_msg(k_wait(be, second, &e) == 0, "%s", e.msg);
        for (int r = 0; r < ROWS; r++) ck_assert_int_eq(b->row[r].id, want[1][r].id);
    }
    free(many);
    step_free(be, a);
    step_free(be, b);
    backend_close(ref);
    backend_close(be);
}
END_TEST

/* ---- edges ------------------------------------------------------------------------------------
 */

static int draw_once(backend *be, step *t, sample_row r)
{
    t->row[0] = r;
    run_step(be, t);
    return t->row[0].id;
}

static void check_masks(backend *be, step *t, sample_row greedy)
{
    enum { N = 600 };
    int32_t all[N], one = 77, bias_id[2] = {77, 5};
    uint32_t allow[N / 32 + 1] = {};
    float bias[2] = {-100, 5};
    for (int i = 0; i < N; i++) all[i] = i;
    sample_row r = greedy;
    r.ban = &one, r.n_ban = 1;
    ck_assert_int_eq(draw_once(be, t, r), 300);
    r.ban = all, r.n_ban = N; /* every token banned: the ban is lifted */
    ck_assert_int_eq(draw_once(be, t, r), 77);
    r = greedy, r.allow = allow; /* nothing allowed: likewise */
    ck_assert_int_eq(draw_once(be, t, r), 77);
    r.ban = &one, r.n_ban = 1; /* then nothing is banned either */
    ck_assert_int_eq(draw_once(be, t, r), 77);
    r.n_ban = 0;
    allow[5 / 32] = 1u << 5;
    ck_assert_int_eq(draw_once(be, t, r), 5);
    r.ban = all, r.n_ban = N; /* bans never overrule what is allowed entirely */
    ck_assert_int_eq(draw_once(be, t, r), 5);
    r = greedy, r.n_bias = 2, r.bias = bias, r.bias_id = bias_id;
    ck_assert_int_eq(draw_once(be, t, r), 5);
    r = greedy, r.n_vocab = 60; /* rows beyond are padding */
    ck_assert_int_eq(draw_once(be, t, r), 5);
    r.n_vocab = 5;
    ck_assert_int_lt(draw_once(be, t, r), 5);
}

START_TEST(edges)
{
    enum { N = 600 };
    uint64_t s = 8;
    backend *be = open_sampler();
    step *t = step_new(be, 1, N, N);
    float *x = tensor_row(t->logits.t, 0);
    for (int i = 0; i < N; i++) x[i] = rnd_normal(&s);
    x[77] = x[300] = 9; /* a tie for the best */
    x[5] = 8.9f;
    sample_row greedy = neutral(N), r;
    greedy.temperature = 0;
    ck_assert_int_eq(draw_once(be, t, greedy), 77);
    r = neutral(N), r.top_k = 1;
    ck_assert_int_eq(draw_once(be, t, r), 77);
    r = neutral(N), r.top_p = 0;
    ck_assert_int_eq(draw_once(be, t, r), 77);
    bool both[2] = {false, false};
    for (uint64_t p = 0; p < 32; p++) {
        r = neutral(N), r.min_p = 1, r.position = p;
        int id = draw_once(be, t, r);
        ck_assert(id == 77 || id == 300); /* min_p 1 keeps all that equal the best */
        both[id == 300] = true;
        r = neutral(N), r.temperature = 1e-38f, r.position = p;
        id = draw_once(be, t, r);
        ck_assert(id == 77 || id == 300);
    }
    ck_assert(both[0] && both[1]);
    check_masks(be, t, greedy);

    uint32_t high[N / 32 + 1];
    memset(high, 0, sizeof high);
    high[18] = 1u << 20; /* 596 */
    for (int i = 0; i < N; i++) x[i] = NAN;
    ck_assert_int_eq(draw_once(be, t, neutral(N)), 0);
    r = neutral(N), r.allow = high;
    ck_assert_int_eq(draw_once(be, t, r), 596);
    for (int i = 0; i < N; i++) x[i] = -INFINITY;
    ck_assert_int_eq(draw_once(be, t, neutral(N)), 0);
    x[N - 1] = -1e30f; /* the only one that can be drawn */
    ck_assert_int_eq(draw_once(be, t, neutral(N)), N - 1);
    r = neutral(N), r.n_top = 3;
    draw_once(be, t, r);
    r = t->row[0];
    ck_assert(r.id == N - 1 && r.rank == 1 && r.logprob == 0);
    ck_assert(r.top_id[0] == N - 1 && r.top_id[1] == 0 && r.top_id[2] == 1 &&
              r.top_logprob[1] == -INFINITY);
    x[3] = INFINITY;
    ck_assert_int_eq(draw_once(be, t, neutral(N)), 3);
    step_free(be, t);
    backend_close(be);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cuda sample");
    TCase *t = tcase_create("sample");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, equals_ref, 0, 9);
    if (!asked_order()) {
        tcase_add_test(t, whole_vocabulary);
        tcase_add_loop_test(t, kept_sets_are_exact, 0, 5);
        tcase_add_loop_test(t, draws_follow_softmax, 0, 2);
    }
    tcase_add_test(t, same_bits);
    tcase_add_test(t, two_calls_under_way);
    tcase_add_test(t, edges);
    suite_add_tcase(s, t);
    return run_suite(s);
}
