/* Kept replies (API X4): whose they are, which go first, when; and base64. */
#include "base/base64.h"
#include "base/clock.h"
#include "server/response_store.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void put(response_store *s, uint64_t key, const char *id, size_t size)
{
    buf object = {0};
    conversation *k = conversation_new();
    char item[64];
    for (size_t i = 0; i < size; i++) buf_putc(&object, 'x');
    buf_puts(&object, id);
    snprintf(item, sizeof item, "item_%s", id);
    buf_printf(conversation_begin(k), "{\"id\":\"%s\"}", item);
    conversation_end(k, item);
    buf_puts(conversation_begin(k), "{}");
    conversation_end(k, "");
    k->n_input = 1;
    response_store_put(s, key, id, &object, k);
    conversation_free(k);
    buf_clear(&object);
}

static bool has(response_store *s, uint64_t key, const char *id)
{
    return response_store_get(s, key, id, NULL, NULL) == STORE_FOUND;
}

START_TEST(longest_unused_goes_first)
{
    response_store *s = response_store_new(3, 1 << 20, 100);
    put(s, 1, "a", 1);
    put(s, 1, "b", 1);
    put(s, 1, "c", 1);
    ck_assert(has(s, 1, "a"));
    put(s, 1, "d", 1);
    ck_assert_int_eq(response_store_entries(s), 3);
    ck_assert(has(s, 1, "a") && !has(s, 1, "b") && has(s, 1, "c") && has(s, 1, "d"));
    ck_assert(response_store_delete(s, 1, "c"));
    ck_assert(!response_store_delete(s, 1, "c"));
    ck_assert_int_eq(response_store_entries(s), 2);
    response_store_free(s);
}
END_TEST

START_TEST(bytes_are_bounded)
{
    response_store *s = response_store_new(100, 5000, 100);
    for (int i = 0; i < 50; i++) {
        char id[16];
        snprintf(id, sizeof id, "r%d", i);
        put(s, 1, id, 1000);
        ck_assert(has(s, 1, id));
        ck_assert_int_le(response_store_entries(s), 4);
    }
    put(s, 1, "huge", 5000);
    ck_assert(!has(s, 1, "huge") && has(s, 1, "r49"));
    response_store_free(s);
}
END_TEST

START_TEST(keys_do_not_meet)
{
    response_store *s = response_store_new(10, 1 << 20, 100);
    buf text = {0};
    put(s, 1, "a", 1);
    put(s, 2, "b", 1);
    ck_assert(!has(s, 2, "a") && !has(s, 0, "a") && !has(s, 1, "b"));
    ck_assert(!response_store_delete(s, 2, "a"));
    ck_assert_int_eq(response_store_item(s, 2, "item_a", &text), STORE_UNKNOWN);
    ck_assert_int_eq(response_store_item(s, 1, "item_a", &text), STORE_FOUND);
    ck_assert_str_eq(text.v, "{\"id\":\"item_a\"}");
    buf_clear(&text);
    response_store_free(s);
}
END_TEST

START_TEST(what_is_got_is_what_was_put)
{
    response_store *s = response_store_new(10, 1 << 20, 100);
    buf object = {0};
    conversation *k = conversation_new();
    size_t n;
    put(s, 7, "a", 2);
    ck_assert_int_eq(response_store_get(s, 7, "a", &object, k), STORE_FOUND);
    ck_assert_str_eq(object.v, "xxa");
    ck_assert_int_eq(k->n, 2);
    ck_assert_str_eq(k->text.v, "{\"id\":\"item_a\"},{}");
    const char *input = conversation_slice(k, 0, 1, &n);
    ck_assert(n == 15 && !strncmp(input, "{\"id\":\"item_a\"}", n));
    conversation_slice(k, 0, 3, &n);
    ck_assert_uint_eq(n, 0);
    conversation_slice(k, 2, 0, &n);
    ck_assert_uint_eq(n, 0);
    conversation_free(k);
    buf_clear(&object);
    response_store_free(s);
}
END_TEST

START_TEST(entries_end)
{
    enum { LIFE_US = 50000 };
    response_store *s = response_store_new(10, 1 << 20, LIFE_US * 1e-6);
    response_store *none = response_store_new(0, 1, 1);
    int64_t from = clock_us();
    put(s, 1, "a", 1);
    while (has(s, 1, "a")) usleep(1000);
    ck_assert_int_ge(clock_us() - from, LIFE_US);
    ck_assert_int_eq(response_store_entries(s), 0);
    put(none, 1, "a", 1);
    ck_assert(!response_store_on(none) && !has(none, 1, "a") && response_store_on(s));
    response_store_free(s);
    response_store_free(none);
}
END_TEST

static response_store *shared;

static void *worker(void *arg)
{
    uint64_t key = (uint64_t)(uintptr_t)arg;
    for (int i = 0; i < 300; i++) {
        char id[16], other[16];
        buf object = {0};
        snprintf(id, sizeof id, "r%d", i % 20);
        snprintf(other, sizeof other, "r%d", (i + 7) % 20);
        put(shared, key, id, (size_t)(i % 50));
        if (response_store_get(shared, key, other, &object, NULL) == STORE_FOUND)
            ck_assert_str_eq(strchr(object.v, 'r'), other);
        if (i % 5 == 0) response_store_delete(shared, key, other);
        ck_assert_int_le(response_store_entries(shared), 30);
        buf_clear(&object);
    }
    return NULL;
}

START_TEST(many_threads)
{
    pthread_t t[4];
    shared = response_store_new(30, 1 << 20, 100);
    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&t[i], NULL, worker, (void *)(i % 2)), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    response_store_free(shared);
}
END_TEST

START_TEST(base64)
{
    static const struct {
        const char *plain, *text;
    } rows[] = {{"", ""},         {"f", "Zg=="},         {"fo", "Zm8="},
                {"foo", "Zm9v"},  {"foob", "Zm9vYg=="},  {"\xff\xfe", "//4="},
                {"\xfb", "+w=="}, {"foobar", "Zm9vYmFy"}};
    static const char *const bad[] = {
        "Z", "Zg", "Zg=", "=Zg=", "Z===", "Zg==Zg==", "Zm9\n", "Zm9v!AAA", "Zm-_"};
    buf b = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        buf_reset(&b);
        base64_put(&b, rows[i].plain, strlen(rows[i].plain));
        ck_assert_str_eq(buf_str(&b), rows[i].text);
        buf_reset(&b);
        ck_assert(base64_get(rows[i].text, strlen(rows[i].text), &b));
        ck_assert_str_eq(buf_str(&b), rows[i].plain);
    }
    buf_reset(&b);
    buf_puts(&b, "kept");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert(!base64_get(bad[i], strlen(bad[i]), &b));
        ck_assert_uint_eq(b.len, 4);
    }
    buf_clear(&b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("response_store");
    TCase *t = tcase_create("store");
    tcase_add_test(t, longest_unused_goes_first);
    tcase_add_test(t, bytes_are_bounded);
    tcase_add_test(t, keys_do_not_meet);
    tcase_add_test(t, what_is_got_is_what_was_put);
    tcase_add_test(t, entries_end);
    tcase_add_test(t, many_threads);
    tcase_add_test(t, base64);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
