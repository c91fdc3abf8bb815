/* test_keys.c - API keys: names, what a file may hold, limits over time, reading again (H7, H23).
 */
#include "server/gate.h"

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECOND = 1000000 };

static char path[64];
static int fd;

static void set_up(void)
{
    snprintf(path, sizeof path, "/tmp/quern-keys-XXXXXX");
    fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
}

static void tear_down(void)
{
    close(fd);
    unlink(path);
}

static void write_file(const char *text)
{
    ck_assert(ftruncate(fd, 0) == 0);
    ck_assert(pwrite(fd, text, strlen(text), 0) == (ssize_t)strlen(text));
}

static keys *open_keys(char *const *fixed, int n, bool file, key_limits l, err *e)
{
    *e = (err){0};
    return keys_new(fixed, n, file ? path : NULL, &l, e);
}

static const char *name_of(keys *k, const char *text, char name[80])
{
    key_ref *r = keys_find(k, text, strlen(text));
    snprintf(name, 80, "%s", r ? key_name(r) : "");
    ck_assert(!r || key_hash(r));
    key_put(r);
    return name;
}

START_TEST(names)
{
    char *fixed[] = {"cli-a", "cli-b", "cli-a"}, name[80];
    err e;
    write_file("# who\n\nann: alpha\nplain\r\n \tbob@x.org :beta  \ncli-b\nann:gamma:with:colons");
    keys *k = open_keys(fixed, 3, true, (key_limits){0}, &e);
    ck_assert_msg(!k && strstr(e.msg, "line 5"), "%s", e.msg); /* a blank before ':' */
    write_file("# who\n\nann: alpha\nplain\r\n \tbob@x.org:beta  \ncli-b\nann:gamma:with:colons");
    k = open_keys(fixed, 3, true, (key_limits){0}, &e);
    ck_assert_msg(k != NULL, "%s", e.msg);
    ck_assert_str_eq(name_of(k, "cli-a", name), "key-1");
    ck_assert_str_eq(name_of(k, "cli-b", name), "key-2"); /* the file repeats it */
    ck_assert_str_eq(name_of(k, "alpha", name), "ann");
    ck_assert_str_eq(name_of(k, "plain", name), "line-4");
    ck_assert_str_eq(name_of(k, "beta", name), "bob@x.org");
    ck_assert_str_eq(name_of(k, "gamma:with:colons", name), "ann");
    ck_assert_str_eq(name_of(k, "", name), "");
    ck_assert_str_eq(name_of(k, "ann", name), "");
    ck_assert_str_eq(name_of(k, "alph", name), "");
    keys_free(k);
}
END_TEST

START_TEST(what_a_file_may_not_hold)
{
    static const struct {
        const char *text, *words;
    } bad[] = {{"", "holds no key"},      {"# only\n", "holds no key"},   {"ok\nann:\n", "line 2"},
               {"two words\n", "line 1"}, {"ann: two words\n", "line 1"}, {"a/b: key\n", "line 1"},
               {":key\n", "line 1"},      {"k\xc3\xa9y\n", "line 1"}};
    err e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(bad[i].text);
        ck_assert_ptr_null(open_keys(NULL, 0, true, (key_limits){0}, &e));
        ck_assert_msg(strstr(e.msg, bad[i].words) && strstr(e.msg, "--api-key-file"), "%s", e.msg);
        ck_assert(!strstr(e.msg, "two words")); /* it may be a key */
    }
    char *blank[] = {"a b"}, *none[] = {""};
    ck_assert_ptr_null(open_keys(blank, 1, false, (key_limits){0}, &e));
    ck_assert_ptr_null(open_keys(none, 1, false, (key_limits){0}, &e));
    ck_assert_ptr_null(open_keys(NULL, 0, false, (key_limits){.rpm = 5}, &e));
    ck_assert(strstr(e.msg, "--key-rpm") && strstr(e.msg, "--api-key"));
}
END_TEST

static int enter(key_ref *r, int64_t now)
{
    key_refusal why;
    return key_enter(r, now, &why) ? 0 : why.retry_s;
}

START_TEST(requests_at_a_time)
{
    char *fixed[] = {"a", "b"};
    err e;
    keys *k = open_keys(fixed, 2, false, (key_limits){.max_concurrent = 2}, &e);
    key_ref *a = keys_find(k, "a", 1), *b = keys_find(k, "b", 1);
    ck_assert_int_eq(enter(a, 0), 0);
    ck_assert_int_eq(enter(a, 0), 0);
    ck_assert_int_eq(enter(a, 100 * SECOND), 1);
    ck_assert_int_eq(enter(b, 0), 0); /* each key by itself */
    key_leave(a);
    ck_assert_int_eq(enter(a, 0), 0);
    key_put(a);
    key_put(b);
    keys_free(k);
}
END_TEST

/* Never more than the limit in any 60 seconds, by the whole second; the time told is enough. */
START_TEST(requests_a_minute)
{
    char *fixed[] = {"a"};
    err e;
    keys *k = open_keys(fixed, 1, false, (key_limits){.rpm = 3}, &e);
    key_ref *a = keys_find(k, "a", 1);
    int64_t t = 1000 * (int64_t)SECOND;
    ck_assert_int_eq(enter(a, t), 0);
    ck_assert_int_eq(enter(a, t + 10 * SECOND), 0);
    ck_assert_int_eq(enter(a, t + 20 * SECOND), 0);
    int wait = enter(a, t + 30 * SECOND);
    ck_assert_int_eq(wait, 30);
    ck_assert_int_gt(enter(a, t + 59 * SECOND), 0);
    ck_assert_int_eq(enter(a, t + 60 * SECOND), 0);
    ck_assert_int_eq(enter(a, t + 60 * SECOND), 10);
    ck_assert_int_eq(enter(a, t + 500 * SECOND), 0); /* all of it is long ago */
    /* At random times: what was let through never exceeds the limit. */
    int64_t passed[4000], n = 0;
    uint32_t rnd = 7;
    for (int64_t now = t + 1000 * (int64_t)SECOND; n < 300;) {
        rnd = rnd * 1664525u + 1013904223u;
        now += (rnd >> 8) % (7 * SECOND);
        int w = enter(a, now);
        ck_assert_int_le(w, 60);
        if (!w) passed[n++] = now / SECOND;
    }
    for (int i = 3; i < n; i++) ck_assert_int_ge(passed[i] - passed[i - 3], 60);
    key_put(a);
    keys_free(k);
}
END_TEST

START_TEST(tokens_a_minute)
{
    char *fixed[] = {"a"};
    err e;
    keys *k = open_keys(fixed, 1, false, (key_limits){.tpm = 1000}, &e);
    key_ref *a = keys_find(k, "a", 1);
    int64_t t = 5 * SECOND;
    ck_assert_int_eq(enter(a, t), 0);
    key_spend(a, 600, t);
    ck_assert_int_eq(enter(a, t), 0);
    key_spend(a, 5000, t + 5 * SECOND);
    ck_assert_int_eq(enter(a, t + 5 * SECOND), 60);
    ck_assert_int_eq(enter(a, t + 61 * SECOND), 4);
    ck_assert_int_eq(enter(a, t + 65 * SECOND), 0);
    key_put(a);
    keys_free(k);
}
END_TEST

START_TEST(reading_again_keeps_counts)
{
    char *fixed[] = {"f"};
    err e;
    write_file("ann: a\nbob: b\n");
    keys *k = open_keys(fixed, 1, true, (key_limits){.max_concurrent = 1}, &e);
    key_ref *a = keys_find(k, "a", 1), *b = keys_find(k, "b", 1), *f = keys_find(k, "f", 1);
    ck_assert(!enter(a, 0) && !enter(b, 0) && !enter(f, 0));
    write_file("ann: a\ncarl: c\n");
    ck_assert_int_eq(keys_reload(k, &e), 0);
    ck_assert_ptr_null(keys_find(k, "b", 1)); /* gone, though its request runs on */
    key_ref *again = keys_find(k, "a", 1), *still = keys_find(k, "f", 1);
    ck_assert_ptr_eq(again, a);
    ck_assert(enter(again, 0) && enter(still, 0));
    key_leave(b);
    key_put(b);
    write_file("bad line here\n");
    ck_assert_int_ne(keys_reload(k, &e), 0);
    key_ref *c = keys_find(k, "c", 1);
    ck_assert_str_eq(key_name(c), "carl"); /* as before */
    key_ref *all[] = {a, again, f, still, c};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) key_put(all[i]);
    keys_free(k);
}
END_TEST

START_TEST(thousands_of_keys)
{
    buf text = {0};
    char name[80];
    err e;
    for (int i = 0; i < 4096; i++) buf_printf(&text, "user%d: secret-%d\n", i, i);
    write_file(buf_str(&text));
    keys *k = open_keys(NULL, 0, true, (key_limits){0}, &e);
    ck_assert_msg(k != NULL, "%s", e.msg);
    ck_assert_int_eq(keys_reload(k, &e), 0);
    ck_assert_str_eq(name_of(k, "secret-4095", name), "user4095");
    ck_assert_str_eq(name_of(k, "secret-4096", name), "");
    buf_puts(&text, "one-more\n");
    write_file(buf_str(&text));
    ck_assert_int_ne(keys_reload(k, &e), 0);
    ck_assert_str_eq(name_of(k, "secret-0", name), "user0");
    buf_clear(&text);
    keys_free(k);
}
END_TEST

enum { N_THREADS = 4, ROUNDS = 3000 };
static keys *shared;
static atomic_int most; /* inside at once */

static void *use_keys(void *arg)
{
    static atomic_int inside;
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        key_refusal why;
        key_ref *r = keys_find(shared, "a", 1);
        ck_assert_ptr_nonnull(r);
        ck_assert_str_eq(key_name(r), "ann");
        if (key_enter(r, (int64_t)i * SECOND, &why)) {
            int n = atomic_fetch_add(&inside, 1) + 1, old = atomic_load(&most);
            while (n > old && !atomic_compare_exchange_weak(&most, &old, n)) {
            }
            key_spend(r, 3, (int64_t)i * SECOND);
            atomic_fetch_sub(&inside, 1);
            key_leave(r);
        }
        key_put(r);
    }
    return NULL;
}

/* Calls of four threads while the file is read again and again: limits hold, nothing is lost. */
START_TEST(threads_and_reloads)
{
    err e;
    pthread_t th[N_THREADS];
    write_file("ann: a\nbob: b\n");
    shared = open_keys(NULL, 0, true, (key_limits){.max_concurrent = 2}, &e);
    for (int i = 0; i < N_THREADS; i++) ck_assert(!pthread_create(&th[i], NULL, use_keys, NULL));
    for (int i = 0; i < 200; i++) {
        write_file(i % 2 ? "ann: a\nbob: b\n" : "ann: a\ncarl: c\n");
        ck_assert_int_eq(keys_reload(shared, &e), 0);
    }
    for (int i = 0; i < N_THREADS; i++) pthread_join(th[i], NULL);
    ck_assert_int_le(atomic_load(&most), 2);
    keys_free(shared);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("keys");
    TCase *t = tcase_create("keys");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, names);
    tcase_add_test(t, what_a_file_may_not_hold);
    tcase_add_test(t, requests_at_a_time);
    tcase_add_test(t, requests_a_minute);
    tcase_add_test(t, tokens_a_minute);
    tcase_add_test(t, reading_again_keeps_counts);
    tcase_add_test(t, thousands_of_keys);
    tcase_add_test(t, threads_and_reloads);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
