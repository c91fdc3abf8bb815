/* test_oom.c - memory runs out at the n-th allocation of a request's life, for every n: the submit
 * is refused or every choice ends with ERR_NOMEM or goes through; nothing leaks, no block stays
 * held. The request's own modules are compiled in with failing allocators. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static _Atomic long allowance;
static _Atomic bool armed;

static bool out_of_memory(void)
{
    return armed && atomic_fetch_sub(&allowance, 1) <= 0;
}
static void *test_malloc(size_t n)
{
    return out_of_memory() ? NULL : malloc(n);
}
static void *test_calloc(size_t n, size_t size)
{
    return out_of_memory() ? NULL : calloc(n, size);
}
static void *test_realloc(void *p, size_t n)
{
    return out_of_memory() ? NULL : realloc(p, n);
}
static char *test_strdup(const char *s)
{
    return out_of_memory() ? NULL : strdup(s);
}

#define malloc test_malloc
#define calloc test_calloc
#define realloc test_realloc
#define strdup test_strdup
#include "engine/request.c"
#include "engine/sampling.c"
#undef malloc
#undef calloc
#undef realloc
#undef strdup

#include "tests/fake_engine.h"

#include <stdio.h>

/* A request that uses every field with memory behind it. */
static request_spec rich_spec(const engine *g)
{
    static const char *const stop[1] = {"qqq"};
    static const size_t stop_len[1] = {3};
    static const int32_t ids[2] = {5, 6}, allowed[3] = {1, 2, 3};
    static const float bias[2] = {1, 2};
    request_spec s = spec_of(g, 1, 30, 90);
    s.n = 3;
    s.cache_salt = "salt";
    s.s.temperature = 1;
    s.s.repetition = 1.2f;
    s.s.presence = 0.1f;
    s.s.repeat_last_n = 20;
    s.s.stop = stop;
    s.s.stop_len = stop_len;
    s.s.n_stop = 1;
    s.s.stop_id = ids;
    s.s.n_stop_id = 2;
    s.s.bias_id = ids;
    s.s.bias = bias;
    s.s.n_bias = 2;
    s.s.allowed = allowed;
    s.s.n_allowed = 3;
    s.s.n_prompt_logprobs = 2;
    s.s.n_logprobs = 1;
    s.s.min_tokens = 3;
    s.s.ignore_eos = true;
    return s;
}

START_TEST(every_allocation_may_fail)
{
    int refused = 0, failed = 0, done = 0;
    for (long n = 0; !done; n += n < 150 ? 1 : 10) {
        engine *g = open_fake((setup){0});
        client c = {.n = 3, .a = calloc(3, sizeof *c.a)};
        pthread_mutex_init(&c.mu, NULL);
        pthread_cond_init(&c.wake, NULL);
        request_spec s = rich_spec(g);
        s.notify = client_notify;
        s.notify_arg = &c;
        err e = {0};
        allowance = n;
        armed = true;
        int rc = engine_submit(g, &s, &c.r, NULL, &e);
        if (rc == 0) client_wait(&c);
        armed = false;
        if (rc) ck_assert_int_eq(rc, ERR_NOMEM);
        bool error = false;
        for (int i = 0; i < 3 && !rc; i++) {
            error |= c.a[i].finish == FINISH_ERROR;
            ck_assert_int_eq(c.a[i].error, c.a[i].finish == FINISH_ERROR ? ERR_NOMEM : 0);
        }
        if (rc) refused++;
        else if (error) failed++;
        else done++;
        wait_idle(g);
        client_clear(&c);
        engine_close(g);
        ck_assert_int_lt(n, 5000);
    }
    printf("refused at %d allocations, failed at %d\n", refused, failed);
    ck_assert_int_gt(refused, 15);
    ck_assert_int_gt(failed, 50);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("oom");
    TCase *t = tcase_create("oom");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, every_allocation_may_fail);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
