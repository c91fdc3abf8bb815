/* test_pooled.c - vectors and scores (API section 11): the sums the engine asks a runner for,
 * however prompts are cut, mixed, cached, preempted or overlapped; the op that makes them;
 * attention over a whole sequence; normalising and judging; what a checkpoint's files say it is
 * for. */
#include "base/clock.h"
#include "base/file.h"
#include "tests/fake_engine.h"
#include "tests/ops_rig.h"

#include <sys/stat.h>

/* ---- the engine ------------------------------------------------------------------------------ */

/* What the pseudo-model's states of a prompt pool to, of length 1, cut to dims. */
static void expect_vector(uint32_t seed, int n, pool_kind kind, int dims, float *out)
{
    int32_t tok[4096];
    double sum[FAKE_HIDDEN] = {0};
    uint64_t v = 1;
    for (int i = 0; i < n; i++) {
        tok[i] = prompt_of(seed, i);
        v = mix(v, (uint64_t)tok[i] + 1);
        if (kind == POOL_LAST && i + 1 < n) continue;
        if (kind == POOL_CLS && i) continue;
        for (int h = 0; h < FAKE_HIDDEN; h++) sum[h] += (double)fake_state(v, h);
    }
    for (int h = 0; h < FAKE_HIDDEN; h++)
        out[h] = (float)sum[h] / (kind == POOL_MEAN ? (float)n : 1.0f);
    pool_normalise(out, dims);
}

static request_spec vector_of(const engine *g, uint32_t seed, int n, int dims)
{
    request_spec s = spec_of(g, seed, n, 5);
    s.want = WANT_VECTOR;
    s.dims = dims;
    return s;
}

static void check_vector(const client *c, uint32_t seed, int n, pool_kind kind, int dims)
{
    float want[FAKE_HIDDEN];
    expect_vector(seed, n, kind, dims, want);
    ck_assert_int_eq(c->a[0].finish, FINISH_STOP);
    ck_assert(c->vec && c->n_vec == dims && c->a[0].n_tok == 0);
    ck_assert_msg(!memcmp(c->vec, want, (size_t)dims * sizeof *want), "%s of %d tokens: %g, not %g",
                  pooling_word(kind), n, (double)c->vec[0], (double)want[0]);
}

static const pool_kind kinds[] = {POOL_LAST, POOL_MEAN, POOL_CLS};

START_TEST(sums_do_not_depend_on_cuts_or_company)
{
    static const int lengths[] = {1, 7, 8, 9, 40, 77};
    for (int depth = 1; depth <= 2; depth++)
        for (int budget = 5; budget <= 64; budget += 59) {
            fake_depth = depth;
            engine *g = open_fake((setup){.pool = kinds[_i], .max_tok = budget, .max_seqs = 5});
            client c[24], talk;
            request_spec s = spec_of(g, 99, 10, 60);
            s.s.ignore_eos = true;
            ck_assert_int_eq(client_submit(&talk, g, s, NULL, NULL), 0);
            for (int i = 0; i < 24; i++) {
                err e = {0};
                int n = lengths[i % 6];
                s = vector_of(g, (uint32_t)i % 9, n, 1 + i % FAKE_HIDDEN);
                ck_assert_msg(!client_submit(&c[i], g, s, NULL, &e), "%s", e.msg);
            }
            for (int i = 0; i < 24; i++) {
                client_wait(&c[i]);
                check_vector(&c[i], (uint32_t)i % 9, lengths[i % 6], kinds[_i],
                             1 + i % FAKE_HIDDEN);
                client_clear(&c[i]);
            }
            client_wait(&talk);
            int32_t want[60];
            expect(99, 10, 60, true, want);
            expect_ids(&talk.a[0], want, 60);
            client_clear(&talk);
            wait_idle(g);
            engine_close(g);
        }
    fake_depth = 1;
}
END_TEST

/* Mean and first state need all of them; the last one is computed even if all before it is cached.
 */
START_TEST(cached_prefixes)
{
    for (int i = 0; i < 3; i++) {
        engine *g = open_fake((setup){.pool = kinds[i]});
        client c;
        for (int k = 0; k < 3; k++) {
            client_run(&c, g, vector_of(g, 5, 64, 3));
            check_vector(&c, 5, 64, kinds[i], 3);
            ck_assert_int_eq(c.st.n_cached, k && kinds[i] == POOL_LAST ? 56 : 0);
            client_clear(&c);
        }
        engine_close(g);
    }
}
END_TEST

/* Few blocks: sequences are pushed out half way and begin again. */
START_TEST(preempted_sums_begin_again)
{
    for (int i = 0; i < 3; i++) {
        fake_gate_set(true);
        engine *g = open_fake((setup){.pool = kinds[i],
                                      .n_blocks = 14,
                                      .max_tok = 9,
                                      .ctx = 100,
                                      .no_caching = true,
                                      .priority = true});
        client c[12];
        for (int k = 0; k < 12; k++) {
            request_spec s = vector_of(g, (uint32_t)k, 60 + k, 5);
            s.priority = 12 - k; /* every newcomer may push out the others */
            err e = {0};
            ck_assert_msg(!client_submit(&c[k], g, s, NULL, &e), "%s", e.msg);
            fake_gate_steps(3);
        }
        fake_gate_set(false);
        for (int k = 0; k < 12; k++) {
            client_wait(&c[k]);
            check_vector(&c[k], (uint32_t)k, 60 + k, kinds[i], 5);
            client_clear(&c[k]);
        }
        wait_idle(g);
        engine_counters n;
        engine_stats(g, &n);
        ck_assert_uint_gt(n.preemptions, 0);
        engine_close(g);
    }
}
END_TEST

/* A model whose rows see those behind them: every prompt in one step, nothing reused. */
START_TEST(whole_prompts)
{
    engine *g = open_fake((setup){.pool = POOL_LAST, .full = true, .max_tok = 64, .max_seqs = 9});
    client c[30];
    for (int i = 0; i < 30; i++) {
        err e = {0};
        request_spec s = vector_of(g, (uint32_t)i % 4, 20 + i % 3 * 22, 5);
        ck_assert_msg(!client_submit(&c[i], g, s, NULL, &e), "%s", e.msg);
    }
    for (int i = 0; i < 30; i++) {
        client_wait(&c[i]);
        check_vector(&c[i], (uint32_t)i % 4, 20 + i % 3 * 22, POOL_LAST, 5);
        ck_assert_int_eq(c[i].st.n_cached, 0);
        client_clear(&c[i]);
    }
    engine_close(g);
}
END_TEST

START_TEST(scores_are_of_the_last_state)
{
    engine *g = open_fake((setup){.pool = POOL_MEAN});
    client c;
    request_spec s = vector_of(g, 4, 30, 0);
    s.want = WANT_SCORE;
    err e = {0};
    ck_assert_int_eq(client_submit(&c, g, s, NULL, &e), ERR_UNSUPPORTED);
    client_clear(&c);
    static double w[FAKE_HIDDEN] = {1, -2, 0.5, 3, 0.25};
    g->judge = (pool_judge){w, FAKE_HIDDEN};
    client_run(&c, g, s);
    int32_t tok[30];
    for (int i = 0; i < 30; i++) tok[i] = prompt_of(4, i);
    double sum = 0;
    for (int h = 0; h < FAKE_HIDDEN; h++) sum += w[h] * (double)fake_state(fake_value(tok, 30), h);
    ck_assert_int_eq(c.n_vec, 1);
    ck_assert(c.vec[0] == (float)(1 / (1 + exp(-sum))));
    client_clear(&c);
    g->judge = (pool_judge){0};
    engine_close(g);
}
END_TEST

START_TEST(what_a_model_does_not_give)
{
    engine *g = open_fake((setup){0});
    client c;
    err e = {0};
    ck_assert_int_eq(client_submit(&c, g, vector_of(g, 1, 9, 0), NULL, &e), ERR_UNSUPPORTED);
    client_clear(&c);
    engine_close(g);
    g = open_fake((setup){.pool = POOL_LAST});
    g->conf.pool.generates = false;
    ck_assert_int_eq(client_submit(&c, g, spec_of(g, 1, 9, 4), NULL, &e), ERR_UNSUPPORTED);
    client_clear(&c);
    ck_assert_int_eq(client_submit(&c, g, vector_of(g, 1, 9, FAKE_HIDDEN + 1), NULL, &e),
                     ERR_INVALID);
    client_clear(&c);
    ck_assert_int_eq(client_submit(&c, g, vector_of(g, 1, 401, 0), NULL, &e), ERR_INVALID);
    client_clear(&c);
    client_run(&c, g, vector_of(g, 1, 400, 0)); /* as long as the context: no room is needed */
    check_vector(&c, 1, 400, POOL_LAST, FAKE_HIDDEN);
    client_clear(&c);
    engine_close(g);
}
END_TEST

/* Cancels, deadlines and faults end these requests as they end others; nothing leaks. */
START_TEST(ends_early)
{
    fake_gate_set(true);
    engine *g = open_fake((setup){.pool = POOL_MEAN, .max_tok = 4});
    client c;
    err e = {0};
    ck_assert_int_eq(client_submit(&c, g, vector_of(g, 1, 300, 0), NULL, &e), 0);
    fake_gate_steps(5);
    request_cancel(c.r);
    fake_gate_set(false);
    client_wait(&c);
    ck_assert(c.a[0].finish == FINISH_ABORT && !c.vec);
    client_clear(&c);
    wait_idle(g);
    fake_gate_set(true);
    request_spec s = vector_of(g, 1, 300, 0);
    s.deadline_us = clock_us() + 10000;
    ck_assert_int_eq(client_submit(&c, g, s, NULL, &e), 0);
    while (clock_us() < s.deadline_us) usleep(1000);
    fake_gate_set(false);
    client_wait(&c);
    ck_assert(c.a[0].finish == FINISH_ERROR && c.a[0].error == ERR_DEADLINE && !c.vec);
    client_clear(&c);
    wait_idle(g);
    engine_close(g);
    g = open_fake((setup){.pool = POOL_MEAN, .max_tok = 4, .fail_after = 5});
    client_run(&c, g, vector_of(g, 1, 300, 0));
    ck_assert(c.a[0].finish == FINISH_ERROR && c.a[0].error == ERR_DEVICE && !c.vec);
    client_clear(&c);
    engine_close(g);
}
END_TEST

/* The next part of a call that was taken gets in where a new one does not. */
START_TEST(goes_on)
{
    fake_gate_set(true);
    engine *g = open_fake((setup){.pool = POOL_LAST, .max_seqs = 1, .max_queue = 1});
    client c[3];
    err e = {0};
    request_spec s = spec_of(g, 1, 20, 300);
    s.s.ignore_eos = true;
    ck_assert_int_eq(client_submit(&c[0], g, s, NULL, &e), 0);
    fake_gate_steps(3); /* its place is known to be taken */
    ck_assert_int_eq(client_submit(&c[1], g, vector_of(g, 1, 9, 0), NULL, &e), 0);
    ck_assert_int_eq(client_submit(&c[2], g, vector_of(g, 2, 9, 0), NULL, &e), ERR_LIMIT);
    client_clear(&c[2]);
    engine_drain(g);
    s = vector_of(g, 2, 9, 0);
    ck_assert_int_ne(client_submit(&c[2], g, s, NULL, &e), 0);
    client_clear(&c[2]);
    s.goes_on = true;
    ck_assert_int_eq(client_submit(&c[2], g, s, NULL, &e), 0);
    request_cancel(c[0].r);
    fake_gate_set(false);
    for (int i = 0; i < 3; i++) {
        client_wait(&c[i]);
        if (i) check_vector(&c[i], (uint32_t)i, 9, POOL_LAST, FAKE_HIDDEN);
        client_clear(&c[i]);
    }
    engine_stop(g);
    ck_assert_int_eq(client_submit(&c[2], g, s, NULL, &e), ERR_SHUTDOWN);
    client_clear(&c[2]);
    engine_close(g);
}
END_TEST

/* ---- ops ------------------------------------------------------------------------------------- */

/* Sums in order, continued, restarted and brought back, on ref and cpu. */
START_TEST(op_pool)
{
    static const int widths[] = {1, 17, 64, 896};
    static const char *const names[] = {"ref", "cpu"};
    backend *be = open_backend(names[_i], NULL, 2);
    for (int k = 0; k < 4; k++) {
        int n = widths[k];
        own x = own_new(9, n), y = own_new(3, n);
        own_fill(x, 3, 5);
        double *sum = k_alloc(be, 4 * (size_t)n * sizeof *sum);
        const pool_span first[] = {{0, 4, 2, 1}, {4, 1, 0, 1}, {5, 3, 3, 1}};
        const pool_span then[] = {{0, 0, 2, 0}, {0, 9, 3, 0}, {8, 1, 0, 1}};
        float *host = malloc(3 * (size_t)n * sizeof *host);
        k_pool(be, y.t, x.t, sum, first);
        k_pool(be, y.t, x.t, sum, then);
        k_fetch(be, host, y.t);
        err e = {0};
        ck_assert_int_eq(k_sync(be, &e), 0);
        for (int c = 0; c < n; c++) {
            double a = 0, b = 0;
            for (int r = 0; r < 4; r++) a += (double)tensor_row(x.t, r)[c];
            for (int r = 5; r < 8; r++) b += (double)tensor_row(x.t, r)[c];
            for (int r = 0; r < 9; r++) b += (double)tensor_row(x.t, r)[c];
            ck_assert(host[c] == (float)a && host[n + c] == (float)b);
            ck_assert(host[2 * n + c] == tensor_row(x.t, 8)[c]);
        }
        own_check(x);
        own_check(y);
        free(host);
        k_free(be, sum, 4 * (size_t)n * sizeof *sum);
        own_free(&x);
        own_free(&y);
    }
    own x = own_new(2, 4), y = own_new(1, 4);
    double *sum = k_alloc(be, 4 * sizeof *sum);
    err e = {0};
    k_pool(be, y.t, x.t, sum, &(pool_span){1, 2, 0, 1});
    ck_assert_str_ne(be->fault, "");
    (void)e;
    k_free(be, sum, 4 * sizeof *sum);
    own_free(&x);
    own_free(&y);
    backend_close(be);
}
END_TEST

/* ---- arithmetic ------------------------------------------------------------------------------ */

START_TEST(normalises)
{
    float v[3] = {3, 4, 0}, zero[2] = {0, -0.0f}, tiny[2] = {1e-38f, 0}, big[2] = {3e38f, 3e38f};
    pool_normalise(v, 3);
    ck_assert(v[0] == 0.6f && v[1] == 0.8f && v[2] == 0);
    pool_normalise(zero, 2);
    ck_assert(zero[0] == 0 && zero[1] == 0);
    pool_normalise(tiny, 2);
    ck_assert(tiny[0] == 1);
    pool_normalise(big, 2);
    ck_assert(fabsf(big[0] - 0.70710678f) < 1e-6f && big[0] == big[1]);
}
END_TEST

START_TEST(judges)
{
    double w[2] = {2, -1};
    const pool_judge j = {w, 2};
    ck_assert(pool_judge_score(&j, (float[]){1, 2}) == 0.5f);
    ck_assert(pool_judge_score(&j, (float[]){1e30f, 0}) == 1);
    ck_assert(pool_judge_score(&j, (float[]){-1e30f, 0}) == 0);
    ck_assert(fabsf(pool_judge_score(&j, (float[]){1, 0}) - 0.88079708f) < 1e-7f);
}
END_TEST

/* ---- what a checkpoint is for ---------------------------------------------------------------- */

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[256];
    err e = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    mkdir(path, 0777);
    *slash = '/';
    ck_assert_msg(!file_write_atomic(path, text, strlen(text), &e), "%s", e.msg);
}

typedef struct {
    const char *class_name, *type, *config;
    const char *file[2][2]; /* name, text */
    int rc;
    pooling want;
} files_case;

#define ST(type, path) \
    "[{\"type\":\"s.Transformer\",\"path\":\"\"},{\"type\":\"s." type "\",\"path\":\"" path "\"}]"
#define CARD(tag) "---\nlicense: x\n" tag "\n---\n# Card\npipeline_tag: text-ranking\n"

static const files_case cases[] = {
    {"Qwen3ForCausalLM", "qwen3", "{}", {{0}}, 0, {.generates = true}},
    {"Qwen3ForCausalLM",
     "qwen3",
     "{}",
     {{"modules.json", ST("Pooling", "1_Pooling")},
      {"1_Pooling/config.json",
       "{\"pooling_mode_lasttoken\":true,\"pooling_mode_cls_token\":false}"}},
     0,
     {.embeds = true, .kind = POOL_LAST, .end_token = true, .matryoshka = true}},
    {"Qwen2ForCausalLM",
     "qwen2",
     "{}",
     {{"modules.json", ST("Pooling", "1_Pooling")},
      {"1_Pooling/config.json", "{\"pooling_mode_lasttoken\":true}"}},
     0,
     {.embeds = true, .kind = POOL_LAST}},
    {"Qwen2Model",
     "qwen2",
     "{\"matryoshka_dimensions\":[64,128]}",
     {{"modules.json", ST("Pooling", "1_Pooling")},
      {"1_Pooling/config.json", "{\"pooling_mode\":\"mean\"}"}},
     0,
     {.embeds = true, .kind = POOL_MEAN, .matryoshka = true, .dims = {64, 128}, .n_dims = 2}},
    {"Qwen3Model",
     "qwen3",
     "{}",
     {{0}},
     0,
     {.embeds = true, .kind = POOL_LAST, .end_token = true, .matryoshka = true}},
    {"Qwen3ForCausalLM",
     "qwen3",
     "{}",
     {{"modules.json", ST("LogitScore", "1_LogitScore")},
      {"1_LogitScore/config.json", "{\"true_token_id\":9693,\"false_token_id\":2152}"}},
     0,
     {.score = SCORE_IDS, .yes_id = 9693, .no_id = 2152}},
    {"Qwen3ForSequenceClassification",
     "qwen3",
     "{\"id2label\":{\"0\":\"a\"}}",
     {{0}},
     0,
     {.score = SCORE_TENSOR}},
    {"Qwen3ForSequenceClassification", "qwen3", "{}", {{0}}, ERR_UNSUPPORTED, {0}},
    {"Qwen3ForCausalLM",
     "qwen3",
     "{}",
     {{"README.md", CARD("pipeline_tag: text-ranking")}},
     0,
     {.score = SCORE_WORDS}},
    {"Qwen3ForCausalLM",
     "qwen3",
     "{}",
     {{"README.md", CARD("pipeline_tag: \"feature-extraction\"")}},
     0,
     {.embeds = true, .kind = POOL_LAST, .end_token = true, .matryoshka = true}},
    {"Qwen3ForCausalLM",
     "qwen3",
     "{}",
     {{"README.md", CARD("pipeline_tag: text-generation")}},
     0,
     {.generates = true}},
    /* Below the front matter, or without one, it is prose. */
    {"Qwen3ForCausalLM", "qwen3", "{}", {{"README.md", CARD("tags: []")}}, 0, {.generates = true}},
    {"Qwen3ForCausalLM",
     "qwen3",
     "{}",
     {{"README.md", "pipeline_tag: text-ranking\n"}},
     0,
     {.generates = true}},
    {"Qwen3ForCausalLM",
     "qwen3",
     "{}",
     {{"modules.json", ST("Dense", "2_Dense")}},
     ERR_UNSUPPORTED,
     {0}},
    {"Qwen3ForCausalLM",
     "qwen3",
     "{}",
     {{"modules.json", ST("Pooling", "../etc")}},
     ERR_FORMAT,
     {0}},
    {"Qwen3ForCausalLM", "qwen3", "{}", {{"modules.json", ST("Pooling", "a/b")}}, ERR_FORMAT, {0}},
    {"Qwen3ForCausalLM",
     "qwen3",
     "{}",
     {{"modules.json", ST("Pooling", "missing")}},
     ERR_NOTFOUND,
     {0}},
    {"Qwen3ForCausalLM", "qwen3", "{}", {{"modules.json", "[{\"type\":5}]"}}, ERR_FORMAT, {0}},
    {"Qwen3ForCausalLM", "qwen3", "{}", {{"modules.json", "[5]"}}, ERR_FORMAT, {0}},
};

START_TEST(files_say_what_it_is_for)
{
    const files_case *c = &cases[_i];
    char dir[] = "/tmp/quern-pooled-XXXXXX", remove[64];
    err e = {0};
    const json *config;
    ck_assert_ptr_nonnull(mkdtemp(dir));
    for (int i = 0; i < 2; i++)
        if (c->file[i][0]) put_file(dir, c->file[i][0], c->file[i][1]);
    json_doc *d = json_parse(c->config, strlen(c->config), NULL, &config, &e);
    pooling p, want = c->want;
    int rc = pooling_from_dir(&p, dir, config, c->class_name, c->type, &e);
    if (c->rc) {
        /* A missing file is the reader's word. */
        ck_assert_msg(rc == c->rc || (c->rc == ERR_NOTFOUND && rc == ERR_IO), "%d: %s", rc, e.msg);
    } else {
        ck_assert_msg(rc == 0, "%s", e.msg);
        if (!want.yes_id) want.yes_id = want.no_id = -1;
        ck_assert(p.generates == want.generates && p.embeds == want.embeds && p.kind == want.kind);
        ck_assert(p.end_token == want.end_token && p.matryoshka == want.matryoshka);
        ck_assert(p.n_dims == want.n_dims && p.dims[1] == want.dims[1] && p.score == want.score);
        ck_assert(p.yes_id == want.yes_id && p.no_id == want.no_id);
    }
    json_free(d);
    snprintf(remove, sizeof remove, "rm -r %s", dir);
    ck_assert_int_eq(system(remove), 0);
}
END_TEST

START_TEST(options_override_files)
{
    err e = {0};
    pooling p = pooling_default();
    ck_assert_int_eq(pooling_override(&p, false, "auto", &e), 0);
    ck_assert(p.generates && !p.embeds);
    ck_assert_int_eq(pooling_override(&p, false, "last", &e), ERR_INVALID);
    ck_assert_int_eq(pooling_override(&p, true, NULL, &e), 0);
    ck_assert(p.generates && p.embeds && p.kind == POOL_MEAN);
    ck_assert_int_eq(pooling_override(&p, true, "cls", &e), 0);
    ck_assert(p.generates && p.kind == POOL_CLS);
    p = pooling_default();
    ck_assert_int_eq(pooling_override(&p, false, "rank", &e), 0);
    ck_assert(!p.generates && !p.embeds && p.score == SCORE_WORDS);
    ck_assert_int_eq(pooling_override(&p, true, "last", &e), 0);
    ck_assert(p.embeds && p.kind == POOL_LAST && p.score == SCORE_WORDS);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pooled");
    TCase *t = tcase_create("pooled");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, sums_do_not_depend_on_cuts_or_company, 0, 3);
    tcase_add_test(t, cached_prefixes);
    tcase_add_test(t, preempted_sums_begin_again);
    tcase_add_test(t, whole_prompts);
    tcase_add_test(t, scores_are_of_the_last_state);
    tcase_add_test(t, what_a_model_does_not_give);
    tcase_add_test(t, ends_early);
    tcase_add_test(t, goes_on);
    tcase_add_loop_test(t, op_pool, 0, 2);
    tcase_add_test(t, normalises);
    tcase_add_test(t, judges);
    tcase_add_loop_test(t, files_say_what_it_is_for, 0, (int)(sizeof cases / sizeof *cases));
    tcase_add_test(t, options_override_files);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
