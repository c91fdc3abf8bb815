/* test_sampling.c - text side of sampling through the engine: the pseudo-model draws at random from
 * the demo model's vocabulary, so banned words, stop strings and reasoning meet every kind of
 * token. */
#include "engine/engine_impl.h"
#include "tests/client.h"
#include "tests/fake_runner.h"
#include "tests/quick.h"

#include <stdio.h>

typedef struct {
    tokenizer *tok;
    engine *g;
    int32_t end;
} world;

static world open_world(void)
{
    world w = {0};
    err e = {0};
    tokenizer_source src = {.tokenizer_json = "models/demo/tokenizer.json",
                            .tokenizer_config = "models/demo/tokenizer_config.json"};
    w.tok = tokenizer_open(&src, &e);
    ck_assert_msg(w.tok != NULL, "%s", e.msg);
    w.end = tokenizer_id(w.tok, "<|im_end|>");
    engine_shape shape = {.n_vocab = tokenizer_n_vocab(w.tok),
                          .kv_block = 8,
                          .n_blocks = 400,
                          .ctx = 1000,
                          .tok = w.tok,
                          .end_id = &w.end,
                          .n_end = 1};
    engine_options o = {.prefix_caching = true};
    runner *r =
        fake_runner_new(&(fake_options){.n_vocab = shape.n_vocab, .kv_block = 8, .n_blocks = 400});
    w.g = engine_open_runner(&o, &shape, r, &e);
    ck_assert_msg(w.g && engine_load(w.g, &e) == 0, "%s", e.msg);
    return w;
}

static void close_world(world *w)
{
    engine_close(w->g);
    tokenizer_free(w->tok);
}

static request_spec random_spec(const world *w, uint64_t seed, int n_new)
{
    static const int32_t prompt[4] = {3, 1, 4, 1};
    request_spec s = {
        .prompt = prompt, .n_prompt = 4, .n = 1, .s = sampling_default(w->g), .cache_prompt = true};
    s.s.temperature = 1;
    s.s.seed = seed;
    s.s.max_tokens = n_new;
    s.s.ignore_eos = true;
    return s;
}

static bool holds(const buf *text, const char *word)
{
    return memmem(buf_str(text), text->len, word, strlen(word)) != NULL;
}

START_TEST(banned_words_never_appear)
{
    static const char *const words[] = {"e", "an", " th", "ing", "ab", "\xc3", "!?", "\n"};
    enum { N = sizeof words / sizeof *words };
    world w = open_world();
    int would[N] = {0};
    for (uint64_t seed = 0; seed < 30; seed++) {
        client c;
        request_spec s = random_spec(&w, seed, 150);
        client_run(&c, w.g, s);
        for (int i = 0; i < N; i++) would[i] += holds(&c.a[0].content, words[i]);
        client_clear(&c);
        s.s.bad_word = words;
        s.s.n_bad_word = N;
        client_run(&c, w.g, s);
        ck_assert_int_eq(c.a[0].n_tok, 150);
        for (int i = 0; i < N; i++)
            ck_assert_msg(!holds(&c.a[0].content, words[i]), "seed %d: '%s'", (int)seed, words[i]);
        client_clear(&c);
    }
    for (int i = 0; i < 6; i++) ck_assert_int_gt(would[i], 3); /* the test could have failed */
    close_world(&w);
}
END_TEST

/* Words built from two tokens that the draw favours: only the border can make them. */
START_TEST(banned_words_across_tokens)
{
    world w = open_world();
    int32_t a = tokenizer_id(w.tok, "a"), b = tokenizer_id(w.tok, "b"),
            c_id = tokenizer_id(w.tok, "c");
    ck_assert(a >= 0 && b >= 0 && c_id >= 0);
    const int32_t allowed[3] = {a, b, c_id};
    static const char *const words[] = {"abc", "bbbb", "ca"};
    int would[3] = {0};
    for (uint64_t seed = 0; seed < 40; seed++) {
        client c;
        request_spec s = random_spec(&w, seed, 200);
        s.s.allowed = allowed;
        s.s.n_allowed = 3;
        client_run(&c, w.g, s);
        for (int i = 0; i < 3; i++) would[i] += holds(&c.a[0].content, words[i]);
        client_clear(&c);
        s.s.bad_word = words;
        s.s.n_bad_word = 3;
        client_run(&c, w.g, s);
        ck_assert_uint_eq(c.a[0].content.len, 200);
        for (int i = 0; i < 3; i++) ck_assert(!holds(&c.a[0].content, words[i]));
        client_clear(&c);
    }
    for (int i = 0; i < 3; i++) ck_assert_int_gt(would[i], 20);
    close_world(&w);
}
END_TEST

START_TEST(thoughts_may_hold_banned_words)
{
    world w = open_world();
    int32_t close_id = tokenizer_id(w.tok, "</think>");
    ck_assert_int_ge(close_id, 0);
    static const char *const words[] = {"e", "a"};
    int thought = 0, answered = 0;
    for (uint64_t seed = 0; seed < 30; seed++) {
        client c;
        request_spec s = random_spec(&w, seed, 60);
        int32_t ids[2] = {close_id, 0};
        float bias[2] = {0, 0};
        s.think = THINK_PROMPT_OPEN;
        s.s.bias_id = ids;
        s.s.bias = bias;
        s.s.n_bias = 1;
        s.s.bad_word = words;
        s.s.n_bad_word = 2;
        if (seed % 2)
            s.s.temperature = 0, bias[0] = (float)(seed % 7); /* greedy closes sooner or later */
        client_run(&c, w.g, s);
        thought += holds(&c.a[0].reasoning, "e");
        answered += c.a[0].content.len > 0;
        ck_assert(!holds(&c.a[0].content, "e") && !holds(&c.a[0].content, "a"));
        client_clear(&c);
    }
    ck_assert_int_gt(thought, 15);
    ck_assert_int_gt(answered, 2);
    close_world(&w);
}
END_TEST

START_TEST(stop_strings_end_the_answer)
{
    static const char *const stop[] = {"zzzzzz", "e"};
    static const size_t len[] = {6, 1};
    world w = open_world();
    for (uint64_t seed = 0; seed < 40; seed++) {
        client whole, cut;
        request_spec s = random_spec(&w, seed, 200);
        client_run(&whole, w.g, s);
        s.s.stop = stop;
        s.s.stop_len = len;
        s.s.n_stop = 2;
        client_run(&cut, w.g, s);
        const char *at = strchr(buf_str(&whole.a[0].content), 'e');
        size_t n = at ? (size_t)(at - buf_str(&whole.a[0].content)) : whole.a[0].content.len;
        ck_assert_uint_eq(cut.a[0].content.len, n);
        ck_assert_int_eq(memcmp(buf_str(&cut.a[0].content), buf_str(&whole.a[0].content), n), 0);
        ck_assert_int_eq(cut.a[0].finish, at ? FINISH_STOP : FINISH_LENGTH);
        ck_assert_int_eq(cut.a[0].stop_index, at ? 1 : -1);
        client_clear(&cut);
        s.s.min_tokens = 50; /* holds the stop string off, too */
        client_run(&cut, w.g, s);
        ck_assert_int_ge(cut.a[0].n_tok, 50);
        client_clear(&cut);
        client_clear(&whole);
    }
    close_world(&w);
}
END_TEST

START_TEST(refuses_empty_words)
{
    static const char *const empty[] = {"x", ""};
    static const size_t len[] = {1, 0};
    world w = open_world();
    request *r;
    err e = {0};
    request_spec s = random_spec(&w, 1, 5);
    s.s.bad_word = empty;
    s.s.n_bad_word = 2;
    ck_assert_int_eq(engine_submit(w.g, &s, &r, NULL, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "bad_words"));
    s = random_spec(&w, 1, 5);
    s.s.stop = empty;
    s.s.stop_len = len;
    s.s.n_stop = 2;
    ck_assert_int_eq(engine_submit(w.g, &s, &r, NULL, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "stop"));
    close_world(&w);
}
END_TEST

/* Everything with one step open at a time, and with the next one started while the last runs. */
static void add_tests(Suite *s, const char *name, void (*set_up)(void))
{
    TCase *t = tcase_create(name);
    tcase_add_checked_fixture(t, set_up, NULL);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, banned_words_never_appear);
    tcase_add_test(t, banned_words_across_tokens);
    tcase_add_test(t, thoughts_may_hold_banned_words);
    tcase_add_test(t, stop_strings_end_the_answer);
    tcase_add_test(t, refuses_empty_words);
    suite_add_tcase(s, t);
}

int main(void)
{
    Suite *s = suite_create("sampling");
    if (!quick()) add_tests(s, "one step", NULL);
    add_tests(s, "overlap", fake_overlap);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
