/* test_bits.c - the rule of bits through the engine's public API: the ids, logprobs and top
 * logprobs of a request, compared by memcmp with those it gets alone in a fresh engine.  Same
 * requests among 31 others, with budgets of 1, 7, 64 and 512 tokens a step, with a cold and a warm
 * prefix cache, after forced preemption, with 1 and 2 threads, as one of n choices.  Run with the
 * pseudo-model (which verifies paging), with the demo model on both backends and over two ranks. */
#include "engine/engine_impl.h"
#include "tests/client.h"
#include "tests/fake_runner.h"
#include "tests/quick.h"

#include <stdio.h>

/* ---- worlds: what computes ------------------------------------------------------------------- */

typedef enum { FAKE, REF, CPU, RANKS, N_WORLDS } world;
static const char *const world_name[] = {"pseudo-model", "demo on ref", "demo on cpu",
                                         "demo over 2 ranks"};

typedef struct {
    int budget, threads;
    bool caching;
    int n_blocks; /* 0 = plenty */
} knobs;

enum { FAKE_KV = 8, FAKE_V = 90, SEQS = 32 };

static engine *open_fake(const engine_options *o, int n_blocks, err *e)
{
    if (!n_blocks) n_blocks = 4000;
    runner *r = fake_runner_new(
        &(fake_options){.n_vocab = FAKE_V, .kv_block = FAKE_KV, .n_blocks = n_blocks});
    engine_shape shape = {.n_vocab = FAKE_V, .kv_block = FAKE_KV, .n_blocks = n_blocks, .ctx = 480};
    return engine_open_runner(o, &shape, r, e);
}

static engine *open_world(world w, knobs k)
{
    err e = {0};
    engine_options o = {.model_path = "models/demo",
                        .device = w == REF ? "ref" : "cpu",
                        .cpu_isa = "auto",
                        .kv_dtype = "auto",
                        .threads = k.threads,
                        .tensor_parallel = w == RANKS ? 2 : 1,
                        .max_model_len = 480,
                        .max_num_seqs = SEQS,
                        .max_num_batched_tokens = k.budget,
                        .prefix_caching = k.caching,
                        .generation_config = true};
    engine *g;
    if (w == FAKE) {
        g = open_fake(&o, k.n_blocks, &e);
    } else {
        if (k.n_blocks) {
            /* Bytes of a block, from an engine that only plans. */
            engine *plan = engine_open(&o, &e);
            ck_assert_msg(plan != NULL, "%s", e.msg);
            const engine_info_t *i = engine_info(plan);
            int per_block =
                i->kv_block / FAKE_KV; /* the knob counts in blocks of FAKE_KV positions */
            o.kv_memory = (uint64_t)(i->kv_bytes / i->n_kv_blocks * (k.n_blocks / per_block));
            engine_close(plan);
        }
        g = engine_open(&o, &e);
    }
    ck_assert_msg(g && engine_load(g, &e) == 0, "%s", e.msg);
    return g;
}

/* ---- requests -------------------------------------------------------------------------------- */

enum { N_CASES = 6 };
typedef struct {
    int n_prompt, n_new, n_prompt_lp;
    float temperature;
    int n;
} test_case;

static const test_case cases[N_CASES] = {
    {40, 24, -1, 0, 1},     /* greedy, whole blocks end in the middle */
    {300, 12, -1, 0.8f, 1}, /* a long prompt, drawn */
    {97, 30, 3, 0, 1},      /* prompt logprobs */
    {64, 20, -1, 1, 3},     /* three choices share a prompt of whole blocks */
    {1, 40, -1, 1.2f, 1},   /* from a single token */
    {130, 0, 1, 0, 1},      /* nothing generated, only scored */
};

static int32_t prompt_token(int seed, int i, int n_vocab)
{
    return (int32_t)(mix((uint64_t)seed, (uint64_t)i) % (uint64_t)n_vocab);
}

static request_spec make(const engine *g, int seed, const test_case *t, int32_t *prompt)
{
    /* Cases 0 to 3 begin alike, so that the cache has something to offer across requests. */
    int n_vocab = engine_info(g)->n_vocab;
    for (int i = 0; i < t->n_prompt; i++) prompt[i] = prompt_token(i < 35 ? 1 : seed, i, n_vocab);
    request_spec s = {.prompt = prompt,
                      .n_prompt = t->n_prompt,
                      .n = t->n,
                      .s = sampling_default(g),
                      .cache_prompt = true};
    s.s.temperature = t->temperature;
    s.s.seed = 42 + (uint64_t)seed;
    s.s.max_tokens = t->n_new;
    s.s.ignore_eos = true;
    s.s.n_logprobs = 5;
    s.s.n_prompt_logprobs = t->n_prompt_lp;
    s.s.repetition = 1.1f;
    return s;
}

static void submit_case(client *c, engine *g, int k)
{
    int32_t prompt[512];
    err e = {0};
    ck_assert_msg(client_submit(c, g, make(g, 100 + k, &cases[k], prompt), NULL, &e) == 0, "%s",
                  e.msg);
}

static void same(const client *want, const client *got, world w, const char *what, int k)
{
    ck_assert_int_eq(want->n, got->n);
    ck_assert_int_eq(want->n_prompt, got->n_prompt);
    for (int i = 0; i < want->n_prompt; i++)
        ck_assert_msg(memcmp(&want->prompt[i], &got->prompt[i], sizeof *want->prompt) == 0,
                      "%s, %s, request %d: prompt logprob %d differs", world_name[w], what, k, i);
    for (int i = 0; i < want->n; i++) {
        const answer *a = &want->a[i], *b = &got->a[i];
        ck_assert_int_eq(a->n_tok, cases[k].n_new);
        ck_assert_int_eq(b->n_tok, cases[k].n_new);
        for (int j = 0; j < a->n_tok; j++)
            ck_assert_msg(memcmp(&a->tok[j], &b->tok[j], sizeof *a->tok) == 0,
                          "%s, %s, request %d, choice %d: token %d is %d (%a), alone it is %d (%a)",
                          world_name[w], what, k, i, j, b->tok[j].id, (double)b->tok[j].logprob,
                          a->tok[j].id, (double)a->tok[j].logprob);
        ck_assert_int_eq(a->content.len, b->content.len);
        ck_assert_int_eq(memcmp(buf_str(&a->content), buf_str(&b->content), a->content.len), 0);
        ck_assert_int_eq(a->finish, b->finish);
    }
}

typedef struct {
    client c[N_CASES];
} results;

/* Each request alone in an engine that has seen nothing. */
static void reference(world w, results *out)
{
    for (int k = 0; k < N_CASES; k++) {
        engine *g = open_world(w, (knobs){.budget = 512, .threads = 1, .caching = false});
        submit_case(&out->c[k], g, k);
        client_wait(&out->c[k]);
        request *r = out->c[k].r;
        out->c[k].r = NULL;
        request_release(r);
        engine_close(g);
    }
}

static void clear(results *r)
{
    for (int k = 0; k < N_CASES; k++) client_clear(&r->c[k]);
}

/* ---- the rule -------------------------------------------------------------------------------- */

static void one_by_one(world w, const results *want, knobs k, const char *what, bool expect_hits)
{
    engine *g = open_world(w, k);
    int hits = 0;
    for (int pass = 0; pass < (expect_hits ? 2 : 1); pass++)
        for (int i = 0; i < N_CASES; i++) {
            client c;
            submit_case(&c, g, i);
            client_wait(&c);
            hits += c.st.n_cached;
            same(&want->c[i], &c, w, what, i);
            client_clear(&c);
        }
    if (expect_hits) ck_assert_int_gt(hits, 400);
    engine_close(g);
}

/* All at once, with 31 - N_CASES others; returns how often somebody was preempted. */
static uint64_t together(world w, const results *want, knobs k, const char *what)
{
    engine *g = open_world(w, k);
    client c[31], own[N_CASES];
    static const test_case other = {50, 16, -1, 1, 1};
    int n_other = 31;
    for (int i = 0; i < n_other; i++) {
        int32_t prompt[512];
        err e = {0};
        test_case t = other;
        t.n_prompt += 5 * i;
        ck_assert_int_eq(client_submit(&c[i], g, make(g, 1000 + i, &t, prompt), NULL, &e), 0);
        if (i % 5 == 0 && i / 5 < N_CASES) submit_case(&own[i / 5], g, i / 5);
    }
    for (int i = 0; i < N_CASES; i++) client_wait(&own[i]);
    for (int i = 0; i < n_other; i++) client_wait(&c[i]);
    for (int i = 0; i < N_CASES; i++) same(&want->c[i], &own[i], w, what, i);
    for (int i = 0; i < N_CASES; i++) client_clear(&own[i]);
    for (int i = 0; i < n_other; i++) client_clear(&c[i]);
    engine_counters count;
    engine_stats(g, &count);
    engine_close(g);
    return count.preemptions;
}

/* A choice equals the same request sent alone under its key. */
static void choices(world w, const results *want)
{
    engine *g = open_world(w, (knobs){.budget = 512, .threads = 1});
    for (int i = 0; i < cases[3].n; i++) {
        int32_t prompt[512];
        request_spec s = make(g, 103, &cases[3], prompt);
        client c;
        s.n = 1;
        s.choice_base = (uint64_t)i;
        client_run(&c, g, s);
        for (int j = 0; j < c.a[0].n_tok; j++)
            ck_assert_int_eq(memcmp(&c.a[0].tok[j], &want->c[3].a[i].tok[j], sizeof(token_info)),
                             0);
        client_clear(&c);
    }
    engine_close(g);
}

/* What only the fast worlds have time for; returns preemptions. */
static uint64_t crowds(world w, const results *want)
{
    if (!quick()) {
        one_by_one(w, want, (knobs){.budget = 1, .threads = 1}, "budget 1", false);
        one_by_one(w, want, (knobs){.budget = 64, .threads = 2}, "budget 64", false);
        one_by_one(w, want, (knobs){.budget = 512, .threads = 2}, "2 threads", false);
        together(w, want, (knobs){.budget = 64, .threads = 1}, "among 31 others, budget 64");
    }
    one_by_one(w, want, (knobs){.budget = 7, .threads = 2, .caching = true}, "warm cache, budget 7",
               true);
    together(w, want, (knobs){.budget = 512, .threads = 2, .caching = true}, "among 31 others");
    knobs tiny = {.budget = 64, .threads = 2, .caching = true, .n_blocks = 64};
    uint64_t n = together(w, want, tiny, "preempted");
    if (quick()) return n;
    tiny.caching = false;
    return n + together(w, want, tiny, "preempted, no cache");
}

START_TEST(rule_of_bits)
{
    world w = (world)_i;
    results want = {0};
    if (w == REF && quick()) return;
    reference(w, &want);
    one_by_one(w, &want, (knobs){.budget = 7, .threads = 2}, "budget 7", false);
    one_by_one(w, &want, (knobs){.budget = 512, .threads = 1, .caching = true}, "warm cache", true);
    choices(w, &want);
    /* The reference backend is plain loops, a hundredth as fast. */
    uint64_t n = w == REF ? 0 : crowds(w, &want);
    if (w != REF) ck_assert_uint_gt(n, 0);
    printf("%s: equal bits everywhere, %lu preemptions\n", world_name[w], (unsigned long)n);
    clear(&want);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bits");
    TCase *t = tcase_create("bits");
    tcase_set_timeout(t, 300);
    tcase_add_loop_test(t, rule_of_bits, 0, N_WORLDS);
    suite_add_tcase(s, t);
    TCase *overlap = tcase_create("the next step starts while one runs");
    tcase_set_timeout(overlap, 300);
    tcase_add_checked_fixture(overlap, fake_overlap, NULL);
    tcase_add_loop_test(overlap, rule_of_bits, FAKE, FAKE + 1);
    suite_add_tcase(s, overlap);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
