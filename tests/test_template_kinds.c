/* test_template_kinds.c - every filter, test, method, global function and operator of the template
 * engine, over every kind of value, with every kind of argument: each gives a text or an error of
 * the template, and nothing else happens (the sanitizers watch).  The names are read from the
 * engine's own tables, so that what is added there is tried here. */
#include "base/file.h"
#include "base/json.h"
#include "engine/text/template.h"
#include "tests/quick.h"

#include <check.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT "engine/text/"
#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { MAX_NAMES = 128 };

/* One or more of each kind, with the borders of each. */
static const char *const kinds[] = {
    "nope",
    "none",
    "true",
    "0",
    "-1",
    "3",
    "9223372036854775807",
    "(-9223372036854775807 - 1)",
    "99999999999999999999",
    "(-99999999999999999999)",
    "0.5",
    "-1e308",
    "('inf' | float)",
    "('nan' | float)",
    "''",
    "'ab c'",
    "'%5.2d%s{0}{a}'",
    "'12'",
    "('<' | e)",
    "s",
    "(s ~ 'x' ~ u)",
    "[]",
    "[3, 'a', none, [1]]",
    "[2, 1]",
    "l",
    "()",
    "('b', 'a')",
    "range(0)",
    "range(1, 9, 3)",
    "range(0, 9223372036854775807, 9223372036854775806)",
    "{}",
    "{'a': 1, 2: 'b'}",
    "d",
    "d.items()",
    "{}.keys()",
    "(l | map('string'))",
    "([] | map('int'))",
    "([{'g': 1}] | groupby('g') | first)",
    "ns",
    "loop",
    "m",
    "'x'.upper",
    "loop.cycle",
    "range",
    "k",
    "j",
};

/* Arguments worth a second place beside every first one. */
static const char *const seconds[] = {"nope", "none", "true", "0", "-2", "9223372036854775807",
                                      "1.5",  "'a'",  "u",    "l", "d",  "loop"};

static const char vars_text[] = "{\"s\": \"client \\u00e9 text\", \"u\": \"\\u65e5\", \"l\": [3, "
                                "1.5, \"a\", null, [1], {\"k\": "
                                "2}], \"d\": {\"a\": \"A\", \"k\": [1, 2], \"z\": null}}";

static const json *vars;
static json_doc *vars_doc;
static int tried, failed_so_far; /* templates rendered, and how many of them raised */

/* ---- one template ---------------------------------------------------------------------------- */

static void check_output(const template_output *o, const char *what)
{
    for (size_t i = 0; i < o->n_closed; i++)
        if (o->closed[i].start >= o->closed[i].end || o->closed[i].end > o->text.len ||
            (i && o->closed[i - 1].end >= o->closed[i].start))
            ck_abort_msg("%s: span %zu", what, i);
}

/* Whether code holds the word w. */
static bool uses(const char *code, const char *w)
{
    size_t n = strlen(w);
    for (const char *p = code; (p = strstr(p, w)); p += n)
        if ((p == code || !isalnum((unsigned char)p[-1])) && !isalnum((unsigned char)p[n]))
            return true;
    return false;
}

/* Renders `code` where every kind above has a meaning; true if it gave a text, else why says what
 * was raised.  (No ck_assert on the way: each of them writes to a file.) */
static bool try(const char *code, err *why)
{
    static const struct {
        const char *name, *text;
    } heads[] = {
        {"m", "{% macro m(x, y=1) %}{{ x }}{{ caller() if caller else y }}{% endmacro %}"},
        {"ns", "{% set ns = namespace(a=1, b=[2]) %}"},
        {"k", "{% set k = cycler(1, 'x') %}"},
        {"j", "{% set j = joiner('-') %}"},
        {"loop", "{% for x in [1, 2] %}"},
    };
    char text[1024] = "";
    template_var v[8];
    size_t n = 0, n_var = 0;
    template_output out = {0};
    err e = {0};
    bool loop = false;
    for (size_t i = 0; i < COUNT(heads); i++) {
        if (!uses(code, heads[i].name)) continue;
        n += (size_t)snprintf(text + n, sizeof text - n, "%s", heads[i].text);
        loop = i == COUNT(heads) - 1;
    }
    n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", code, loop ? "{% endfor %}" : "");
    if (n >= sizeof text) ck_abort_msg("%s: too long", code);
    for (const json *q = vars->child; q; q = q->next) v[n_var++] = (template_var){q->key, q, false};
    template_input in = {.var = v, .n_var = n_var, .max_steps = 100000, .max_output = 1 << 20};
    template *t = template_compile(text, n, &e);
    if (!t) ck_abort_msg("%s: %s", code, e.msg);
    int rc = template_render(t, &in, &out, &e);
    if (!rc) check_output(&out, code);
    else if ((rc != ERR_INVALID && rc != ERR_LIMIT) || rc != e.code ||
             (!e.msg[0] && !strstr(code, "raise_exception")))
        ck_abort_msg("%s: %d '%s'", code, rc, e.msg);
    template_output_clear(&out);
    template_free(t);
    tried++;
    failed_so_far += rc != 0;
    if (why) *why = e;
    return !rc;
}

#define TRY(...)                                                                         \
    do {                                                                                 \
        char code_[640];                                                                 \
        if (snprintf(code_, sizeof code_, __VA_ARGS__) >= 640) ck_abort_msg("too long"); \
        try(code_, NULL);                                                                \
    } while (0)

/* Under a sanitizer that makes each of them ten times as dear, every third argument. */
static size_t stride(void)
{
    return quick() ? 3 : 1;
}

/* ---- the tables ------------------------------------------------------------------------------ */

typedef struct {
    char name[MAX_NAMES][24];
    int n;
} names;

static void add_name(names *out, const char *from, const char *to)
{
    size_t n = (size_t)(to - from);
    ck_assert_uint_lt(n, sizeof *out->name);
    char word[24] = {0};
    memcpy(word, from, n);
    for (int i = 0; i < out->n; i++)
        if (!strcmp(out->name[i], word)) return;
    ck_assert_int_lt(out->n, MAX_NAMES);
    memcpy(out->name[out->n++], word, sizeof word);
}

/* The names in a file's table: lines that begin with {"name", or, for methods, hold (V_KIND, "name"
 * or STR(name). */
static void read_table(const char *path, bool methods, names *out)
{
    buf b = {0};
    err e = {0};
    ck_assert_msg(file_read(path, 1 << 20, &b, &e) == 0, "%s", e.msg);
    for (char *p = b.v, *end; (end = strchr(p, '\n')); p = end + 1) {
        *end = 0;
        p += strspn(p, " ");
        if (methods && !strncmp(p, "STR(", 4)) {
            add_name(out, p + 4, strchr(p, ')'));
        } else if (methods ? strstr(p, "(V_") == p + strcspn(p, "(") || !strncmp(p, "{V_", 3)
                           : !strncmp(p, "{\"", 2)) {
            char *from = strchr(p, '"');
            if (from) add_name(out, from + 1, strchr(from + 1, '"'));
        }
    }
    buf_clear(&b);
}

/* ---- the tests ------------------------------------------------------------------------------- */

START_TEST(filters_over_every_kind)
{
    names f = {0};
    read_table(TEXT "template_filters.c", false, &f);
    read_table(TEXT "template_seq.c", false, &f);
    ck_assert_int_ge(f.n, 48);
    for (int i = 0; i < f.n; i++)
        for (size_t k = 0; k < COUNT(kinds); k++) {
            TRY("{{ %s | %s }}", kinds[k], f.name[i]);
            for (size_t a = k % stride(); a < COUNT(kinds); a += stride())
                TRY("{{ %s | %s(%s, %s) | string }}", kinds[k], f.name[i], kinds[a],
                    seconds[(a + k) % COUNT(seconds)]);
            size_t one = (k * 7 + (size_t)i) % COUNT(kinds);
            TRY("{{ %s | %s(%s) | string }}", kinds[k], f.name[i], kinds[one]);
            TRY("{{ %s | %s(%s, %s, %s, %s) | string }}", kinds[k], f.name[i], kinds[one], kinds[k],
                seconds[one % COUNT(seconds)], seconds[k % COUNT(seconds)]);
            TRY("{{ [%s] | map('%s', %s) | list }}", kinds[k], f.name[i], kinds[one]);
            TRY("{%% filter %s(%s) %%}a{{ %s }}{%% endfilter %%}", f.name[i], kinds[one], kinds[k]);
        }
}
END_TEST

START_TEST(filters_by_name_of_argument)
{
    static const char *const words[] = {
        "attribute",     "default", "case_sensitive", "reverse", "by",    "width",    "start",
        "default_value", "boolean", "linecount",      "slices",  "count", "fill_with"};
    names f = {0};
    read_table(TEXT "template_filters.c", false, &f);
    read_table(TEXT "template_seq.c", false, &f);
    for (int i = 0; i < f.n; i++)
        for (size_t w = 0; w < COUNT(words); w++)
            for (size_t k = w % stride(); k < COUNT(kinds); k += 2 * stride())
                TRY("{{ l | %s(%s=%s) | string }}{{ %s | %s(%s=1) | list }}", f.name[i], words[w],
                    kinds[k], kinds[k], f.name[i], words[w]);
}
END_TEST

START_TEST(tests_over_every_kind)
{
    names t = {0};
    read_table(TEXT "template_tests.c", false, &t);
    ck_assert_int_ge(t.n, 39);
    for (int i = 0; i < t.n; i++) {
        bool word = t.name[i][0] >= 'a'; /* "==" and its like are names for select() only */
        for (size_t k = 0; k < COUNT(kinds); k++) {
            if (word) TRY("{{ %s is %s }}", kinds[k], t.name[i]);
            for (size_t a = k % stride(); a < COUNT(kinds); a += stride())
                if (word) TRY("{{ %s is %s(%s) }}", kinds[k], t.name[i], kinds[a]);
                else TRY("{{ [%s] | select('%s', %s) | list }}", kinds[k], t.name[i], kinds[a]);
            TRY("{{ l | selectattr(%s, '%s') | list }}{{ [%s, %s] | reject('%s') | list }}",
                kinds[k], t.name[i], kinds[k], kinds[(k + 1) % COUNT(kinds)], t.name[i]);
        }
    }
}
END_TEST

START_TEST(methods_of_every_kind)
{
    names m = {0};
    read_table(TEXT "template_methods.c", true, &m);
    ck_assert_int_ge(m.n, 68);
    for (int i = 0; i < m.n; i++)
        for (size_t k = 0; k < COUNT(kinds); k++) {
            char code[200];
            err why;
            snprintf(code, sizeof code, "{{ (%s).%s() }}{{ %s['%s'] }}", kinds[k], m.name[i],
                     kinds[k], m.name[i]);
            if (!try(code, &why) && strstr(why.msg, "no attribute")) continue;
            for (size_t a = 0; a < COUNT(kinds); a++) {
                TRY("{{ (%s).%s(%s) }}", kinds[k], m.name[i], kinds[a]);
                for (size_t b = (a + k) % stride(); b < COUNT(seconds); b += stride()) {
                    TRY("{{ (%s).%s(%s, %s) }}", kinds[k], m.name[i], kinds[a], seconds[b]);
                    TRY("{{ (%s).%s('a', %s, %s) }}", kinds[k], m.name[i], seconds[b], kinds[a]);
                }
            }
        }
}
END_TEST

START_TEST(globals_with_every_kind)
{
    names g = {0};
    read_table(TEXT "template_call.c", false, &g);
    ck_assert_int_ge(g.n, 7);
    for (int i = 0; i < g.n; i++)
        for (size_t k = 0; k < COUNT(kinds); k++) {
            TRY("{{ %s(%s) }}", g.name[i], kinds[k]);
            TRY("{{ %s(*%s) }}{{ %s(**%s) }}", g.name[i], kinds[k], g.name[i], kinds[k]);
            TRY("{{ %s(%s=1) }}{{ %s(a=%s) }}", g.name[i], "sep", g.name[i], kinds[k]);
            for (size_t a = 0; a < COUNT(kinds); a += stride()) {
                TRY("{{ %s(%s, %s) }}", g.name[i], kinds[k], kinds[a]);
                TRY("{{ %s(%s, %s, %s) }}", g.name[i], kinds[k], seconds[a % COUNT(seconds)],
                    kinds[a]);
            }
        }
}
END_TEST

START_TEST(operators_between_every_two_kinds)
{
    static const char *const ops[] = {"+",  "-", "*", "/",  "//", "%",  "**",     "~",   "==",
                                      "!=", "<", ">", "<=", ">=", "in", "not in", "and", "or"};
    for (size_t i = 0; i < COUNT(ops); i++)
        for (size_t k = 0; k < COUNT(kinds); k++)
            for (size_t a = k % stride(); a < COUNT(kinds); a += stride())
                TRY("{{ %s %s %s }}", kinds[k], ops[i], kinds[a]);
}
END_TEST

START_TEST(parts_of_every_kind)
{
    for (size_t k = 0; k < COUNT(kinds); k++) {
        TRY("{{ -%s }}", kinds[k]);
        TRY("{{ +%s }}", kinds[k]);
        TRY("{{ not %s }}{{ %s if %s else 1 }}", kinds[k], kinds[k], kinds[k]);
        TRY("{{ %s() }}", kinds[k]);
        TRY("{{ %s }}{{ [%s] }}{{ {'a': %s} | tojson(indent=2, sort_keys=true) }}", kinds[k],
            kinds[k], kinds[k]);
        for (size_t a = 0; a < COUNT(kinds); a++) {
            TRY("{{ %s[%s] }}", kinds[k], kinds[a]);
            TRY("{{ {%s: %s} }}{{ {%s: 1}[%s] }}", kinds[k], kinds[a], kinds[k], kinds[a]);
            TRY("{{ %s(%s) }}", kinds[k], kinds[a]);
            TRY("{{ %s[%s:%s] }}", kinds[k], kinds[a], seconds[(a + k) % COUNT(seconds)]);
            TRY("{{ %s[::%s] }}", kinds[k], kinds[a]);
            TRY("{{ %s[%s:%s:%s] }}", kinds[k], seconds[a % COUNT(seconds)],
                seconds[k % COUNT(seconds)], kinds[a]);
            TRY("{{ (%s[%s:])[::%s] }}", kinds[k], kinds[(a * 5) % COUNT(kinds)], kinds[a]);
        }
    }
}
END_TEST

START_TEST(statements_over_every_kind)
{
    for (size_t k = 0; k < COUNT(kinds); k++) {
        TRY("{%% for a in %s %%}{{ a }}{{ loop.length }}{{ loop.nextitem }}{%% else %%}-{%% endfor "
            "%%}",
            kinds[k]);
        TRY("{%% for a, b in %s %%}{{ b }}{{ loop.changed(a) }}{%% endfor %%}", kinds[k]);
        TRY("{%% for a in %s if a %%}{{ loop.revindex }}{{ loop.cycle(a, 1) }}{%% endfor %%}",
            kinds[k]);
        TRY("{%% set a, b = %s %%}{{ a }}{{ b }}", kinds[k]);
        TRY("{%% set ns.x = %s %%}{{ ns.x }}{{ ns }}", kinds[k]);
        TRY("{%% set a %%}{{ %s }}{%% endset %%}{{ a | length }}", kinds[k]);
        TRY("{%% if %s %%}a{%% elif not %s %%}b{%% endif %%}", kinds[k], kinds[k]);
        TRY("{%% with a = %s %%}{{ a }}{%% endwith %%}", kinds[k]);
        TRY("{{ m(%s) }}{{ m(1, y=%s) }}", kinds[k], kinds[k]);
        TRY("{{ m(*%s) }}", kinds[k]);
        TRY("{{ m(**%s) }}", kinds[k]);
        TRY("{%% call m(%s) %%}{{ %s }}{%% endcall %%}", kinds[k], kinds[k]);
        TRY("{%% call [%s][0]() %%}a{%% endcall %%}", kinds[k]);
    }
}
END_TEST

/* Nearly all of the above raises; enough of it must not, or the wrong thing was tried. */
START_TEST(both_outcomes_are_seen)
{
    tried = failed_so_far = 0;
    for (size_t k = 0; k < COUNT(kinds); k++) TRY("{{ %s | string }}", kinds[k]);
    ck_assert_int_eq(tried, (int)COUNT(kinds));
    ck_assert_int_eq(failed_so_far, 0);
    for (size_t k = 0; k < COUNT(kinds); k++) TRY("{{ (%s).no_such_thing.at_all }}", kinds[k]);
    ck_assert_int_eq(failed_so_far, (int)COUNT(kinds));
}
END_TEST

int main(void)
{
    vars_doc = json_parse(vars_text, sizeof vars_text - 1, NULL, &vars, NULL);
    Suite *s = suite_create("template_kinds");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, filters_over_every_kind);
    tcase_add_test(c, filters_by_name_of_argument);
    tcase_add_test(c, tests_over_every_kind);
    tcase_add_test(c, methods_of_every_kind);
    tcase_add_test(c, globals_with_every_kind);
    tcase_add_test(c, operators_between_every_two_kinds);
    tcase_add_test(c, parts_of_every_kind);
    tcase_add_test(c, statements_over_every_kind);
    tcase_add_test(c, both_outcomes_are_seen);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    json_free(vars_doc);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
