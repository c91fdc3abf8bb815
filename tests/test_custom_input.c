/* test_custom_input.c - the text of custom tools' calls (API T10, X10): any cut gives the same. */
#include "server/custom_input.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* arguments, the text */
static const char *const cases[][2] = {
    {"{\"input\":\"a\\n\\u00e9\\\"b\\\\\\/\\t\\b\\f\\r\"}", "a\n\u00e9\"b\\/\t\b\f\r"},
    {" { \"input\" : \"\" } ", ""},
    {"{\"input\":\"\\ud83d\\ude00 \xF0\x9F\x98\x80\"}", "\xF0\x9F\x98\x80 \xF0\x9F\x98\x80"},
    {"{\"a\":{\"input\":\"no\"},\"b\":[\"input\",{\"x\":1}],\"input\":\"yes\"}", "yes"},
    {"{\"b\":\"}\\\"input\\\":\",\"input\":\"yes\"}", "yes"},
    {"{\"input\":5,\"input\":\"yes\",\"z\":\"no\"}", "yes"},
    /* Without the string the arguments are the text. */
    {"{}", "{}"},
    {"{\"input\":null}", "{\"input\":null}"},
    {"{\"inputs\":\"a\",\"\\ninput\":\"b\",\"inpu\":\"c\"}",
     "{\"inputs\":\"a\",\"\\ninput\":\"b\",\"inpu\":\"c\"}"},
    {"[\"input\"]", "[\"input\"]"},
    {"", ""},
    /* Cut short. */
    {"{\"inp", "{\"inp"},
    {"{\"input\":", "{\"input\":"},
    {"{\"input\":\"", ""},
    {"{\"input\":\"cut \\", "cut "},
    {"{\"input\":\"cut \\u00e", "cut "},
    {"{\"input\":\"cut \\ud83d", "cut \uFFFD"},
    {"{\"input\":\"cut \\ud83d\\u12", "cut \uFFFD"},
    /* What is no JSON stands for itself. */
    {"{\"input\":\"a\nb\"}", "a\nb"},
    {"{\"input\":\"\\q \\u12g4 \\\u00e9 \\u\"}", "\\q \\u12g4 \\\u00e9 \\u"},
    {"{\"input\":\"\\ud83dx \\ude00 \\ud83d\\ud83d\\ude00 \\u0000\"}",
     "\uFFFDx \uFFFD \uFFFD\xF0\x9F\x98\x80 \uFFFD"},
    {"{\"input\":\"a\" and more", "a"},
};

START_TEST(any_cut_gives_the_same)
{
    const char *s = cases[_i][0];
    size_t len = strlen(s);
    for (size_t n = 1; n <= len + 1; n++) {
        custom_input c = {0};
        buf out = {0};
        for (size_t i = 0; i < len; i += n)
            custom_input_feed(&c, s + i, len - i < n ? len - i : n, &out);
        custom_input_end(&c, &out);
        ck_assert_msg(!strcmp(buf_str(&out), cases[_i][1]), "by %zu: %s", n, buf_str(&out));
        ck_assert(c.at == INPUT_SEEK && !c.raw.v && !c.key.v);
        buf_clear(&out);
    }
}
END_TEST

/* A text is given out as it comes. */
START_TEST(nothing_certain_is_held)
{
    static const char *const fed[][2] = {
        {"{\"input\": \"a", "a"}, {"b\\", "b"}, {"n", "\n"}, {"\\u00", ""},
        {"e9", "\u00e9"},         {"c\"}", "c"}};
    custom_input c = {0};
    buf out = {0};
    for (size_t i = 0; i < sizeof fed / sizeof *fed; i++) {
        buf_reset(&out);
        custom_input_feed(&c, fed[i][0], strlen(fed[i][0]), &out);
        ck_assert_uint_eq(out.len, strlen(fed[i][1]));
        ck_assert(!memcmp(buf_str(&out), fed[i][1], out.len));
    }
    custom_input_clear(&c);
    buf_clear(&out);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("custom_input");
    TCase *c = tcase_create("all");
    tcase_add_loop_test(c, any_cut_gives_the_same, 0, sizeof cases / sizeof *cases);
    tcase_add_test(c, nothing_certain_is_held);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
