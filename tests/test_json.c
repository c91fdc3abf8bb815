/* test_json.c - the strict JSON reader against the RFC, against Python, and against damage. */
#include "base/file.h"
#include "base/json.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_doc *parse(const char *text, const json **root, err *e)
{
    return json_parse(text, strlen(text), NULL, root, e);
}

static void dumps_to(const char *text, const char *want)
{
    err e = {0};
    const json *root;
    json_doc *d = parse(text, &root, &e);
    ck_assert_msg(d != NULL, "%s: %s", text, e.msg);
    buf out = {0};
    json_dump(root, &out);
    ck_assert_str_eq(buf_str(&out), want);
    buf_clear(&out);
    json_free(d);
}

START_TEST(equals_python)
{
    buf file = {0};
    err e = {0};
    ck_assert_msg(file_read("tests/data/json/dumps.txt", 1 << 20, &file, &e) == 0, "%s", e.msg);
    int pairs = 0;
    for (char *p = file.v; *p; pairs++) {
        char *want = strchr(p, '\n'), *end;
        ck_assert_ptr_nonnull(want);
        *want++ = 0;
        end = strchr(want, '\n');
        ck_assert_ptr_nonnull(end);
        *end = 0;
        dumps_to(p, want);
        p = end + 1;
    }
    ck_assert_int_gt(pairs, 1000);
    buf_clear(&file);
}
END_TEST

/* Printed, a value is what it was: every digit of a number, and no byte more than was sent. */
START_TEST(prints_as_written)
{
    static const char *const same[] = {
        "12345678901234567890.123456789",
        "9007199254740993.5",
        "-0",
        "1.0",
        "1E+2",
        "-0.0",
        "0.1000000000000000000001",
        "1e-300",
        "true",
        "[]",
        "{}",
        "null",
        "{\"b\":[1.50,\"\\u0001\\n\\\"\",{}],\"a\\\\\":\"\xc3\xa9\"}"};
    const json *root;
    err e;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        json_doc *d = parse(same[i], &root, &e);
        buf out = {0};
        ck_assert_msg(d != NULL, "%s: %s", same[i], e.msg);
        json_print(root, &out);
        ck_assert_str_eq(buf_str(&out), same[i]);
        buf_clear(&out);
        json_free(d);
    }
}
END_TEST

START_TEST(repairs)
{
    dumps_to("\xEF\xBB\xBF{}", "{}");
    dumps_to("\"a\\u0000b\"", "\"a\xEF\xBF\xBD"
                              "b\"");
    dumps_to("\"\\ud800\"", "\"\xEF\xBF\xBD\"");
    dumps_to("\"\\udc00\\ud800\"", "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");
    dumps_to("\"\\ud800\\u0041\"", "\"\xEF\xBF\xBD"
                                   "A\"");
    dumps_to("\"\\ud800\\ud83d\\ude00\"", "\"\xEF\xBF\xBD\xF0\x9F\x98\x80\"");
    dumps_to("{\"a\":1,\"b\":[2],\"a\":{\"c\":3}}", "{\"a\": {\"c\": 3}, \"b\": [2]}");
}
END_TEST

/* Every text is refused, at this byte, with these words. */
static const struct {
    const char *text;
    size_t n; /* 0: strlen */
    int code;
    const char *says;
} refused[] = {
    {"", 0, ERR_FORMAT, "unexpected end at byte 0"},
    {"   ", 0, ERR_FORMAT, "unexpected end at byte 3"},
    {"{", 0, ERR_FORMAT, "unexpected end at byte 1"},
    {"[1", 0, ERR_FORMAT, "unexpected end at byte 2"},
    {"[1,]", 0, ERR_FORMAT, "expected a value at byte 3"},
    {"[,1]", 0, ERR_FORMAT, "expected a value at byte 1"},
    {"[1 2]", 0, ERR_FORMAT, "expected ',' or ']' at byte 3"},
    {"[1}", 0, ERR_FORMAT, "expected ',' or ']' at byte 2"},
    {"{\"a\":1,}", 0, ERR_FORMAT, "expected a member name in quotes at byte 7"},
    {"{\"a\" 1}", 0, ERR_FORMAT, "expected ':' at byte 5"},
    {"{\"a\":1 \"b\":2}", 0, ERR_FORMAT, "expected ',' or '}' at byte 7"},
    {"{a:1}", 0, ERR_FORMAT, "expected a member name in quotes at byte 1"},
    {"{'a':1}", 0, ERR_FORMAT, "expected a member name in quotes at byte 1"},
    {"1 2", 0, ERR_FORMAT, "text after the value at byte 2"},
    {"{} x", 0, ERR_FORMAT, "text after the value at byte 3"},
    {"01", 0, ERR_FORMAT, "leading zero at byte 0"},
    {"-01", 0, ERR_FORMAT, "leading zero at byte 1"},
    {"1.", 0, ERR_FORMAT, "unexpected end at byte 2"},
    {"[1.]", 0, ERR_FORMAT, "a fraction needs a digit at byte 3"},
    {".5", 0, ERR_FORMAT, "expected a value at byte 0"},
    {"+1", 0, ERR_FORMAT, "expected a value at byte 0"},
    {"[-]", 0, ERR_FORMAT, "a number needs a digit at byte 2"},
    {"[1e]", 0, ERR_FORMAT, "an exponent needs a digit at byte 3"},
    {"[1e+]", 0, ERR_FORMAT, "an exponent needs a digit at byte 4"},
    {"0x10", 0, ERR_FORMAT, "text after the value at byte 1"},
    {"1e999", 0, ERR_FORMAT, "number too large for a double at byte 0"},
    {"[-1e309]", 0, ERR_FORMAT, "number too large for a double at byte 1"},
    {"NaN", 0, ERR_FORMAT, "expected a value at byte 0"},
    {"Infinity", 0, ERR_FORMAT, "expected a value at byte 0"},
    {"tru", 0, ERR_FORMAT, "unknown word at byte 0"},
    {"nulL", 0, ERR_FORMAT, "unknown word at byte 0"},
    {"truefalse", 0, ERR_FORMAT, "text after the value at byte 4"},
    {"\"a", 0, ERR_FORMAT, "unexpected end at byte 2"},
    {"\"a\nb\"", 0, ERR_FORMAT, "control character in a string at byte 2"},
    {"\"a\0b\"", 5, ERR_FORMAT, "control character in a string at byte 2"},
    {"[1\0]", 4, ERR_FORMAT, "expected ',' or ']' at byte 2"},
    {"\"\\x41\"", 0, ERR_FORMAT, "invalid escape at byte 2"},
    {"\"\\u12g4\"", 0, ERR_FORMAT, "\\u needs four hex digits at byte 2"},
    {"\"\\", 0, ERR_FORMAT, "unexpected end at byte 2"},
    {"\"\xFF\"", 0, ERR_FORMAT, "invalid UTF-8 at byte 1"},
    {"\"\xC0\x80\"", 0, ERR_FORMAT, "invalid UTF-8 at byte 1"},
    {"\"\xED\xA0\x80\"", 0, ERR_FORMAT, "invalid UTF-8 at byte 1"},
    {"\"abcdefgh\xE4\xBD\"", 0, ERR_FORMAT, "invalid UTF-8 at byte 9"},
    {"[1] // note", 0, ERR_FORMAT, "text after the value at byte 4"},
    {"\xFF\xFE[]", 0, ERR_FORMAT, "expected a value at byte 0"},
};

START_TEST(refuses)
{
    const char *text = refused[_i].text;
    err e = {0};
    const json *root = (const json *)text;
    json_doc *d = json_parse(text, refused[_i].n ? refused[_i].n : strlen(text), NULL, &root, &e);
    ck_assert_msg(d == NULL, "accepted: %s", text);
    ck_assert_ptr_null(root);
    ck_assert_int_eq(e.code, refused[_i].code);
    ck_assert_str_eq(e.msg, refused[_i].says);
    ck_assert_ptr_null(parse(text, &root, NULL));
}
END_TEST

START_TEST(every_prefix_is_refused)
{
    const char text[] = "{\"a\\u00e9\xC3\xA9\": [1.5e3, -2, true, false, null, \"\\ud83d\\ude00\", "
                        "{\"b\": {}}, []]}";
    const json *root;
    json_doc *d;
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *exact = malloc(n ? n : 1); /* so that ASan sees a read beyond the end */
        memcpy(exact, text, n);
        ck_assert_ptr_null(json_parse(exact, n, NULL, &root, NULL));
        free(exact);
    }
    d = parse(text, &root, NULL);
    ck_assert_ptr_nonnull(d);
    json_free(d);
}
END_TEST

START_TEST(limits)
{
    char deep[300];
    const json *root;
    err e = {0};
    memset(deep, '[', 129);
    memset(deep + 129, ']', 129);
    ck_assert_ptr_null(json_parse(deep, 258, NULL, &root, &e));
    ck_assert_int_eq(e.code, ERR_LIMIT);
    ck_assert_str_eq(e.msg, "nested deeper than 128 levels at byte 128");
    json_doc *d = json_parse(deep + 1, 256, NULL, &root, &e);
    ck_assert_ptr_nonnull(d);
    json_free(d);

    json_limits few = {.max_values = 3};
    d = json_parse("[1,2]", 5, &few, &root, &e);
    ck_assert_ptr_nonnull(d);
    json_free(d);
    ck_assert_ptr_null(json_parse("[1,2,3]", 7, &few, &root, &e));
    ck_assert_int_eq(e.code, ERR_LIMIT);

    /* A depth beyond what the C stack bears is not for the asking. */
    size_t n = 1 << 20;
    char *deeper = malloc(n);
    memset(deeper, '[', n);
    json_limits much = {.max_depth = 1 << 30};
    ck_assert_ptr_null(json_parse(deeper, n, &much, &root, &e));
    ck_assert_str_eq(e.msg, "nested deeper than 1000 levels at byte 1000");
    free(deeper);
}
END_TEST

static const struct {
    const char *text;
    bool ok;
    int64_t v;
} ints[] = {
    {"5", true, 5},
    {"-5", true, -5},
    {"5.0", true, 5},
    {"1e2", true, 100},
    {"1.50e1", true, 15},
    {"150e-1", true, 15},
    {"0.0e99", true, 0},
    {"-0", true, 0},
    {"-0.0", true, 0},
    {"0e-99999999999999999999", true, 0},
    {"9007199254740993", true, 9007199254740993},
    {"9007199254740993.0", true, 9007199254740993},
    {"9223372036854775807", true, INT64_MAX},
    {"-9223372036854775808", true, INT64_MIN},
    {"9223372036854775808", false, 0},
    {"-9223372036854775809", false, 0},
    {"1e19", false, 0},
    {"5.5", false, 0},
    {"1e-1", false, 0},
    {"1e-99999999999999999999", false, 0},
    {"12345678901234567890123", false, 0},
    {"0.000000000000000000000000000001e30", true, 1},
    {"100000000000000000000000000000e-29", true, 1},
    {"\"5\"", false, 0},
    {"true", false, 0},
};

START_TEST(integers)
{
    const json *root;
    int64_t v = 77;
    json_doc *d = parse(ints[_i].text, &root, NULL);
    ck_assert_ptr_nonnull(d);
    ck_assert_msg(json_int(root, &v) == ints[_i].ok, "%s", ints[_i].text);
    ck_assert_int_eq(v, ints[_i].ok ? ints[_i].v : 77);
    json_free(d);
}
END_TEST

START_TEST(lookup)
{
    enum { N = 5000 };
    buf b = {0};
    const json *root;
    char key[24];
    for (int n = 1; n <= N; n = n < 40 ? n + 1 : n * 5) {
        buf_reset(&b);
        buf_puts(&b, "{\"list\":[");
        for (int i = 0; i < n; i++) buf_printf(&b, "%s%d", i ? "," : "", i);
        buf_puts(&b, "],\"map\":{");
        for (int i = 0; i < n; i++) buf_printf(&b, "%s\"k%d\":%d", i ? "," : "", i, -1);
        for (int i = n - 1; i >= 0; i--) buf_printf(&b, ",\"k%d\":%d", i, i);
        buf_puts(&b, "}}");
        json_doc *d = json_parse(b.v, b.len, NULL, &root, NULL);
        ck_assert_ptr_nonnull(d);
        const json *list = json_get(root, "list"), *map = json_get(root, "map");
        ck_assert_uint_eq(list->len, (size_t)n);
        ck_assert_uint_eq(map->len, (size_t)n);
        const json *walk = map->child;
        for (int i = 0; i < n; i++, walk = walk->next) {
            snprintf(key, sizeof key, "k%d", i);
            ck_assert_str_eq(walk->key, key);
            ck_assert_ptr_eq(json_get(map, key), walk);
            ck_assert(json_num(walk) == i);
            ck_assert(json_num(json_at(list, (size_t)i)) == i);
        }
        ck_assert_ptr_null(walk);
        ck_assert_ptr_null(json_at(list, (size_t)n));
        ck_assert_ptr_null(json_get(map, "k"));
        json_free(d);
    }
    buf_clear(&b);
    ck_assert_ptr_null(json_get(NULL, "a"));
    ck_assert_ptr_null(json_at(NULL, 0));
}
END_TEST

START_TEST(unique_keys)
{
    json_limits strict = {.unique_keys = true};
    const json *root;
    err e = {0};
    buf b = {0};
    ck_assert_ptr_null(json_parse("{\"a\":1,\"b\":{},\"a\":1}", 20, &strict, &root, &e));
    ck_assert_int_eq(e.code, ERR_FORMAT);
    ck_assert_str_eq(e.msg, "member 'a' stands twice in the object before byte 20");
    for (int i = 0; i < 100; i++) buf_printf(&b, "%s\"k%d\":0", i ? "," : "{", i == 99 ? 3 : i);
    buf_putc(&b, '}');
    ck_assert_ptr_null(json_parse(b.v, b.len, &strict, &root, &e));
    ck_assert_ptr_nonnull(strstr(e.msg, "member 'k3' stands twice"));
    json_doc *d = json_parse(b.v, b.len, NULL, &root, &e);
    ck_assert_uint_eq(root->len, 99);
    json_free(d);
    buf_clear(&b);
}
END_TEST

START_TEST(files)
{
    const json *root;
    err e = {0};
    json_doc *d = json_read("models/demo/config.json", 1 << 20, NULL, &root, &e);
    ck_assert_msg(d != NULL, "%s", e.msg);
    ck_assert_str_eq(json_get(root, "model_type")->str, "qwen3");
    json_free(d);
    ck_assert_ptr_null(json_read("models/demo/config.json", 10, NULL, &root, &e));
    ck_assert_int_eq(e.code, ERR_LIMIT);
    ck_assert_ptr_null(json_read("models/demo/none.json", 10, NULL, &root, &e));
    ck_assert_int_eq(e.code, ERR_NOTFOUND);
    ck_assert_ptr_null(json_read("models/demo", 10, NULL, &root, &e));
    ck_assert_int_eq(e.code, ERR_INVALID);
    ck_assert_ptr_null(json_read("models/demo/chat_template.jinja", 1 << 20, NULL, &root, &e));
    ck_assert_ptr_nonnull(strstr(e.msg, "cannot read 'models/demo/chat_template.jinja' as JSON: "));
}
END_TEST

START_TEST(names)
{
    const json *root;
    json_doc *d = parse("[null,true,1,\"\",[],{}]", &root, NULL);
    const char *want[] = {"null", "boolean", "number", "string", "array", "object"};
    for (size_t i = 0; i < 6; i++) ck_assert_str_eq(json_type_name(json_at(root, i)), want[i]);
    ck_assert_str_eq(json_at(root, 2)->str, "1");
    ck_assert(json_is_bool(json_at(root, 1)) && !json_is_bool(json_at(root, 0)));
    json_free(d);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("json");
    TCase *t = tcase_create("json");
    tcase_add_test(t, equals_python);
    tcase_add_test(t, prints_as_written);
    tcase_add_test(t, repairs);
    tcase_add_loop_test(t, refuses, 0, sizeof refused / sizeof refused[0]);
    tcase_add_test(t, every_prefix_is_refused);
    tcase_add_test(t, limits);
    tcase_add_loop_test(t, integers, 0, sizeof ints / sizeof ints[0]);
    tcase_add_test(t, lookup);
    tcase_add_test(t, unique_keys);
    tcase_add_test(t, files);
    tcase_add_test(t, names);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
