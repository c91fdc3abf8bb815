/* test_grammar_cache.c - compiled grammars that are kept: one for equal answers and only for them,
 * refusals too, at most 256, one compile for all that ask at once. */
#include "engine/grammar/cache.h"

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static grammar_cache *cache;

static grammar *get(const grammar_answer *a, bool want_hit)
{
    grammar *g = NULL;
    grammar_error why;
    bool hit;
    ck_assert_int_eq(grammar_cache_get(cache, a, &g, &why, &hit), 0);
    ck_assert_int_eq(hit, want_hit);
    return g;
}

START_TEST(keys)
{
    static const char *const ab[] = {"a", "b"}, *const a_b[] = {"ab"};
    const grammar_spec one = {.kind = GRAMMAR_CHOICE, .choices = ab, .n_choices = 2},
                       two = {.kind = GRAMMAR_CHOICE, .choices = a_b, .n_choices = 1},
                       schema = {.text = "{}", .n = 2},
                       open = {.text = "{}", .n = 2, .free_order = true};
    const grammar_tool f = {.name = "f", .allowed = true}, g = {.name = "g", .allowed = true};
    const grammar_answer all[] = {
        {.body = &one},
        {.body = &two},
        {.body = &schema},
        {.body = &open},
        {.body = &one, .think = GRAMMAR_THINK_OPEN},
        {.calls = GRAMMAR_CALLS_REQUIRED, .format = CALLS_HERMES, .tools = &f, .n_tools = 1},
        {.calls = GRAMMAR_CALLS_REQUIRED, .format = CALLS_XML, .tools = &f, .n_tools = 1},
        {.calls = GRAMMAR_CALLS_REQUIRED, .format = CALLS_HERMES, .tools = &g, .n_tools = 1},
        {.calls = GRAMMAR_CALLS_AUTO, .format = CALLS_HERMES, .tools = &f, .n_tools = 1},
    };
    enum { N = sizeof all / sizeof *all };
    grammar *made[N];
    cache = grammar_cache_new();
    for (int i = 0; i < N; i++) made[i] = get(&all[i], false);
    for (int i = 0; i < N; i++) {
        grammar *again = get(&all[i], true);
        ck_assert_ptr_eq(again, made[i]);
        grammar_release(again);
        for (int k = 0; k < i; k++) ck_assert_ptr_ne(made[i], made[k]);
    }
    grammar_cache_free(cache);
    for (int i = 0; i < N; i++) { /* they live on */
        ck_assert_uint_gt(grammar_bytes(made[i]), 1000);
        grammar_release(made[i]);
    }
}
END_TEST

/* Looking without compiling: nothing is made, what is kept is found, refusals too. */
START_TEST(finding)
{
    const grammar_spec good = {.text = "{}", .n = 2},
                       bad = {.text = "{\"type\":\"strin\"}", .n = 16};
    const grammar_answer a = {.body = &good}, b = {.body = &bad};
    grammar *g = NULL, *again = NULL;
    grammar_error why;
    bool hit;
    cache = grammar_cache_new();
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(grammar_cache_find(cache, &a, &g, &why, &hit), 0);
        ck_assert(!hit && !g);
    }
    g = get(&a, false);
    ck_assert_int_eq(grammar_cache_find(cache, &a, &again, &why, &hit), 0);
    ck_assert(hit && again == g);
    grammar_release(again);
    grammar_release(g);
    ck_assert_int_eq(grammar_cache_get(cache, &b, &g, &why, &hit), ERR_INVALID);
    ck_assert_int_eq(grammar_cache_find(cache, &b, &g, &why, &hit), ERR_INVALID);
    ck_assert(hit && !strcmp(why.code, "invalid_schema"));
    grammar_cache_free(cache);
}
END_TEST

START_TEST(refusals)
{
    const grammar_spec s = {.text = "{\"type\":\"strin\"}", .n = 16};
    const grammar_answer a = {.body = &s};
    grammar *g = NULL;
    grammar_error first, second;
    bool hit;
    cache = grammar_cache_new();
    ck_assert_int_eq(grammar_cache_get(cache, &a, &g, &first, &hit), ERR_INVALID);
    ck_assert(!hit);
    ck_assert_int_eq(grammar_cache_get(cache, &a, &g, &second, &hit), ERR_INVALID);
    ck_assert(hit);
    ck_assert_str_eq(first.code, second.code);
    ck_assert_str_eq(first.e.msg, second.e.msg);
    ck_assert_ptr_null(g);
    grammar_cache_free(cache);
}
END_TEST

static grammar *word(int i, bool want_hit)
{
    char text[16];
    const char *const list[] = {text};
    const grammar_spec s = {.kind = GRAMMAR_CHOICE, .choices = list, .n_choices = 1};
    snprintf(text, sizeof text, "w%d", i);
    return get(&(grammar_answer){.body = &s}, want_hit);
}

START_TEST(oldest_goes)
{
    cache = grammar_cache_new();
    for (int i = 0; i < 256; i++) grammar_release(word(i, false));
    grammar_release(word(0, true)); /* now the newest */
    grammar_release(word(256, false));
    grammar_release(word(0, true));
    grammar_release(word(1, false));
    grammar_cache_free(cache);
}
END_TEST

enum { THREADS = 8, ROUNDS = 20 };
static atomic_int misses;
static grammar *seen[ROUNDS][THREADS];
static pthread_barrier_t line;

static void *ask(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        char text[128];
        grammar_error why;
        bool hit;
        const grammar_spec s = {.text = text,
                                .n = (size_t)snprintf(text, sizeof text,
                                                      "{\"type\":\"string\",\"pattern\":"
                                                      "\"^(a|b)*a(a|b){%d}$\",\"maxLength\":90}",
                                                      i)};
        pthread_barrier_wait(&line);
        grammar **g = &seen[i][*(int *)arg];
        if (grammar_cache_get(cache, &(grammar_answer){.body = &s}, g, &why, &hit)) return NULL;
        misses += !hit;
        if (grammar_accepts(*g, "\"bbb\"", 5)) return NULL;
    }
    return arg;
}

START_TEST(at_once)
{
    pthread_t t[THREADS];
    int id[THREADS];
    cache = grammar_cache_new();
    pthread_barrier_init(&line, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) {
        id[i] = i;
        pthread_create(&t[i], NULL, ask, &id[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        void *r;
        pthread_join(t[i], &r);
        ck_assert_ptr_nonnull(r);
    }
    ck_assert_int_eq(misses, ROUNDS);
    for (int i = 0; i < ROUNDS; i++)
        for (int k = 0; k < THREADS; k++) {
            ck_assert_ptr_eq(seen[i][k], seen[i][0]);
            grammar_release(seen[i][k]);
        }
    pthread_barrier_destroy(&line);
    grammar_cache_free(cache);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("grammar_cache");
    TCase *t = tcase_create("grammar_cache");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, keys);
    tcase_add_test(t, finding);
    tcase_add_test(t, refusals);
    tcase_add_test(t, oldest_goes);
    tcase_add_test(t, at_once);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
