/* test_map.c - the byte-string map: growth, duplicates, keys that differ only in length or NUL. */
#include "base/err.h"
#include "base/map.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

START_TEST(thousands)
{
    enum { N = 20000, CAP = 16 };
    char(*key)[CAP] = calloc(N, CAP);
    map m = {0};
    size_t v;
    ck_assert(!map_find(&m, "x", 1, &v));
    for (size_t i = 0; i < N; i++) {
        int n = snprintf(key[i], CAP, "key%zu", i);
        ck_assert_int_eq(map_add(&m, key[i], (size_t)n, i), 0);
        ck_assert_int_eq(map_add(&m, key[i], (size_t)n, i + 1), ERR_BUSY);
    }
    ck_assert_uint_eq(m.len, N);
    ck_assert_uint_le(m.len * 2, m.cap);
    for (size_t i = 0; i < N; i++) {
        v = N;
        ck_assert(map_find(&m, key[i], strlen(key[i]), &v));
        ck_assert_uint_eq(v, i);
    }
    ck_assert(!map_find(&m, "key20000", 8, &v));
    map_clear(&m);
    ck_assert(!map_find(&m, "key1", 4, &v));
    free(key);
}
END_TEST

START_TEST(bytes)
{
    map m = {0};
    size_t v = 9;
    ck_assert_int_eq(map_add(&m, "", 0, 1), 0);
    ck_assert_int_eq(map_add(&m, "a", 1, 2), 0);
    ck_assert_int_eq(map_add(&m, "a\0", 2, 3), 0);
    ck_assert_int_eq(map_add(&m, "a\0b", 3, 4), 0);
    ck_assert(map_find(&m, "", 0, &v) && v == 1);
    ck_assert(map_find(&m, "a", 1, &v) && v == 2);
    ck_assert(map_find(&m, "a\0", 2, &v) && v == 3);
    ck_assert(map_find(&m, "a\0b", 3, &v) && v == 4);
    ck_assert(!map_find(&m, "a\0c", 3, &v) && !map_find(&m, "b", 1, &v));
    map_clear(&m);
    ck_assert_uint_eq(map_hash("abcdefghi", 9), map_hash("abcdefghi", 9));
    ck_assert_uint_ne(map_hash("abcdefghi", 9), map_hash("abcdefgh", 8));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("map");
    TCase *t = tcase_create("map");
    tcase_add_test(t, thousands);
    tcase_add_test(t, bytes);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
