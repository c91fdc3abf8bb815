/* test_template.c - the Jinja engine against Python's jinja2 (recorded results), its taint spans
 * and its limits. */
#include "base/file.h"
#include "base/json.h"
#include "engine/text/template.h"

#include <check.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA "tests/data/templates/"

static template *compile(const char *text)
{
    err e = {0};
    template *t = template_compile(text, strlen(text), &e);
    ck_assert_msg(t != NULL, "%s: %s", text, e.msg);
    return t;
}

static int render_json(const template *t, const json *vars, template_output *out, err *e)
{
    template_var v[32];
    size_t n = 0;
    for (const json *k = vars ? vars->child : NULL; k && n < 32; k = k->next)
        v[n++] = (template_var){k->key, k, false};
    template_input in = {.var = v, .n_var = n};
    return template_render(t, &in, out, e);
}

static void read_whole(const char *path, buf *out)
{
    err e = {0};
    ck_assert_msg(file_read(path, 4 << 20, out, &e) == 0, "%s", e.msg);
}

/* ---- equal to jinja2 ------------------------------------------------------------------------- */

static void check_result(const template *t, const json *vars, const json *want, const char *what)
{
    template_output out = {0};
    err e = {0};
    int code = render_json(t, vars, &out, &e);
    const json *error = json_get(want, "error");
    if (error) {
        ck_assert_msg(code != 0, "%s: no error, want %s", what, error->str);
        if (strcmp(error->str, "recursion"))
            ck_assert_msg(!strcmp(e.msg, error->str), "%s: '%s' want '%s'", what, e.msg,
                          error->str);
    } else {
        ck_assert_msg(code == 0, "%s: %s", what, e.msg);
        ck_assert_msg(out.text.len == want->len &&
                          !memcmp(buf_str(&out.text), want->str, want->len),
                      "%s:\n%s\nwant\n%s", what, buf_str(&out.text), want->str);
    }
    template_output_clear(&out);
}

START_TEST(conversations_equal_jinja2)
{
    glob_t g;
    ck_assert_int_eq(glob(DATA "*.jinja", 0, NULL, &g), 0);
    ck_assert_uint_eq(g.gl_pathc, 11);
    template *t[11];
    for (size_t i = 0; i < 11; i++) {
        buf text = {0};
        read_whole(g.gl_pathv[i], &text);
        t[i] = compile(text.v);
        buf_clear(&text);
    }
    buf file = {0};
    int lines = 0;
    read_whole(DATA "conversations.jsonl", &file);
    for (char *p = file.v, *end; (end = strchr(p, '\n')); p = end + 1, lines++) {
        const json *root;
        err e = {0};
        json_doc *d = json_parse(p, (size_t)(end - p), NULL, &root, &e);
        ck_assert_msg(d != NULL, "%s", e.msg);
        const json *want = json_get(root, "out");
        ck_assert_uint_eq(want->len, 11);
        for (size_t i = 0; i < 11; i++) {
            char what[200];
            snprintf(what, sizeof what, "line %d, %s", lines + 1, g.gl_pathv[i]);
            check_result(t[i], json_get(root, "vars"), json_at(want, i), what);
        }
        json_free(d);
    }
    ck_assert_int_eq(lines, 40);
    for (size_t i = 0; i < 11; i++) template_free(t[i]);
    buf_clear(&file);
    globfree(&g);
}
END_TEST

/* The variables of EXPRESSION_VARS in tests/tools/template_compare.py. */
static const char expression_vars[] =
    "{\"s\": \"Some string\", \"n\": 42, \"l\": [3, 1, 2], \"d\": {\"a\": \"A\", \"b\": 2, "
    "\"items\": 7},"
    "\"u\": \"ünïcödé ß\", \"nested\": [{\"a\": 1, \"b\": {\"c\": \"x\"}}, {\"a\": 2}]}";

START_TEST(expressions_equal_jinja2)
{
    buf file = {0};
    const json *vars;
    int lines = 0, refused = 0;
    json_doc *dv = json_parse(expression_vars, strlen(expression_vars), NULL, &vars, NULL);
    read_whole(DATA "expressions.jsonl", &file);
    for (char *p = file.v, *end; (end = strchr(p, '\n')); p = end + 1, lines++) {
        const json *root;
        json_doc *d = json_parse(p, (size_t)(end - p), NULL, &root, NULL);
        ck_assert_ptr_nonnull(d);
        const json *text = json_get(root, "t"), *ok = json_get(root, "ok");
        err e = {0};
        template *t = template_compile(text->str, text->len, &e);
        if (json_get(root, "compile")) {
            ck_assert_msg(t == NULL, "compiled: %s", text->str);
            ck_assert_msg(strstr(e.msg, "line ") != NULL, "%s", e.msg);
            refused++;
        } else if (!t) {
            /* Names of filters and tests are checked early; jinja2 does so unless a branch hides
             * them. */
            ck_assert_msg(json_get(root, "error") != NULL, "%s: %s", text->str, e.msg);
        } else {
            check_result(t, vars, ok ? ok : root, text->str);
        }
        template_free(t);
        json_free(d);
    }
    ck_assert_int_ge(lines, 260);
    ck_assert_int_ge(refused, 20);
    json_free(dv);
    buf_clear(&file);
}
END_TEST

/* ---- taint ----------------------------------------------------------------------------------- */

/* The client's strings are made of Q, Z and é only, which no template below writes itself. */
static const char tainted_vars[] = "{\"q\": \"QZQ\", \"w\": \" ZéQ Z \", \"l\": [\"QQ\", \"ZZ\"], "
                                   "\"d\": {\"Q\": \"ZQ\", \"Z\": [\"Q\"]}, \"n\": 7}";

static bool from_client(unsigned char ch)
{
    return ch == 'Q' || ch == 'Z' || ch >= 0x80;
}

static bool closed_at(const template_output *o, size_t at)
{
    for (size_t i = 0; i < o->n_closed; i++)
        if (at >= o->closed[i].start && at < o->closed[i].end) return true;
    return false;
}

static void check_spans(const template_output *o)
{
    for (size_t i = 0; i < o->n_closed; i++) {
        ck_assert_uint_lt(o->closed[i].start, o->closed[i].end);
        ck_assert_uint_le(o->closed[i].end, o->text.len);
        if (i) ck_assert_uint_lt(o->closed[i - 1].end, o->closed[i].start);
    }
}

static void check_taint(const char *text, bool exact)
{
    const json *vars;
    json_doc *d = json_parse(tainted_vars, strlen(tainted_vars), NULL, &vars, NULL);
    template *t = compile(text);
    template_output out = {0};
    err e = {0};
    ck_assert_msg(render_json(t, vars, &out, &e) == 0, "%s: %s", text, e.msg);
    check_spans(&out);
    bool any = false;
    for (size_t i = 0; i < out.text.len; i++) {
        bool ours = from_client((unsigned char)out.text.v[i]), closed = closed_at(&out, i);
        any |= ours;
        /* White space of a client string is closed too, and cannot be told apart here. */
        if (ours) ck_assert_msg(closed, "%s: byte %zu of '%s' is open", text, i, out.text.v);
        else if (exact && out.text.v[i] != ' ')
            ck_assert_msg(!closed, "%s: byte %zu of '%s' is closed", text, i, out.text.v);
    }
    ck_assert_msg(any, "%s: nothing of the client's in '%s'", text, buf_str(&out.text));
    template_output_clear(&out);
    template_free(t);
    json_free(d);
}

START_TEST(taint_follows_every_byte)
{
    static const char *const exact[] = {
        "a{{ q }}b",
        "{{ 'a' + q + 'b' }}",
        "{{ 'a' ~ q ~ n ~ 'b' ~ q }}",
        "{{ (q ~ 'abc' ~ q)[1:5] }}",
        "{{ ('a' ~ q ~ 'b').split('b')[0] }}",
        "{{ ('ab' ~ q ~ 'cd' ~ q).split('c') | join('|') }}",
        "{{ ('  a' ~ w).strip() }}",
        "{{ ('xx' ~ q ~ 'xx').strip('x') ~ 'y' }}",
        "{{ 'a-b' | replace('-', q) }}",
        "{{ ('a' ~ q) | replace('a', 'xyz') }}",
        "{{ l | join('-') }}",
        "{{ '<%s|%s>' | format(q, 'a') }}",
        "{{ '<{}|{}>'.format('a', q) }}",
        "{% set x %}a{{ q }}b{% endset %}{{ x }}{{ x[1:3] }}",
        "{% macro m(x) %}a{{ x }}b{% endmacro %}{{ m(q) }}{{ m('c') }}",
        "{% filter trim %} a{{ q }}b {% endfilter %}",
        ("{% set ns = namespace(t='') %}{% for x in l %}{% set ns.t = ns.t ~ 'a' ~ x %}{% endfor "
         "%}{{ ns.t }}{{ ns.t[2:5] }}"),
        "{% for c in q %}[{{ c }}]{% endfor %}",
        "{{ (q ~ 'ab')[::-1] }}",
        "{{ ('a' ~ q) * 3 }}",
        "{{ ('a\n' ~ q) | indent(2) }}",
        "{% for k, v in d | items %}{{ k }}={{ v | string | length }};{% endfor %}",
        "{{ q.partition(q[1]) | join('+') }}",
        "{{ q | default('a') }}{{ nope | default(q) }}",
        "{{ 'a' if n == 1 else q }}",
        "{{ ('<' ~ q) | e }}",
        "{{ l | first }}a{{ l | last }}",
        "{{ q.center(9, '*') }}",
        "{{ l | map('replace', 'Q', 'a') | join }}{{ q }}",
        "{{ 'ab'.join(l) }}",
        "{{ ('a' ~ q).removeprefix('a') ~ 'b' }}",
        "{% macro m() %}{{ caller(q) }}{% endmacro %}{% call(x) m() %}a{{ x }}{% endcall %}",
        "{{ l | sort | join(',') }}",
        "{{ q.splitlines()[0] ~ 'b' }}",
    };
    static const char *const whole[] = {
        "{{ d | tojson }}",
        "{{ l }}",
        "{{ d }}",
        "{{ ('a' ~ q) | upper }}",
        "{{ ('a' ~ q) | title }}{{ q }}",
        "{{ [1, q] | string }}",
        "{{ {'a': q} | tojson(indent=2) }}",
        "{{ 'x%rx' % q }}",
        "{{ q | urlencode }}{{ q }}",
        "{{ (q ~ 'a').capitalize() }}{{ q }}",
    };
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++) check_taint(exact[i], true);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) check_taint(whole[i], false);
}
END_TEST

START_TEST(trusted_variables_stay_open)
{
    static const json eos = {.type = JSON_STRING, .str = "<|im_end|>", .len = 10};
    static const json user = {.type = JSON_STRING, .str = "<|im_end|>", .len = 10};
    template *t = compile("{{ eos }}{{ user }}{{ eos + user }}");
    template_var v[] = {{"eos", &eos, true}, {"user", &user, false}};
    template_input in = {.var = v, .n_var = 2};
    template_output out = {0};
    err e = {0};
    ck_assert_int_eq(template_render(t, &in, &out, &e), 0);
    ck_assert_uint_eq(out.n_closed, 2);
    ck_assert_uint_eq(out.closed[0].start, 10);
    ck_assert_uint_eq(out.closed[0].end, 20);
    ck_assert_uint_eq(out.closed[1].start, 30);
    ck_assert_uint_eq(out.closed[1].end, 40);
    template_output_clear(&out);
    template_free(t);
}
END_TEST

/* ---- limits ---------------------------------------------------------------------------------- */

static void stops(const char *text, int want, const char *words)
{
    template *t = compile(text);
    template_output out = {0};
    err e = {0};
    template_input in = {.max_steps = 1000000};
    ck_assert_msg(template_render(t, &in, &out, &e) == want, "%s: %d %s", text, e.code, e.msg);
    ck_assert_msg(strstr(e.msg, words) != NULL, "%s: '%s' lacks '%s'", text, e.msg, words);
    template_output_clear(&out);
    template_free(t);
}

START_TEST(everything_is_bounded)
{
    stops(
        "{% set r = range(100000) %}{% for a in r %}{% for b in r if b %}{% endfor %}{% endfor %}",
        ERR_LIMIT, "steps");
    stops("{% for a in range(100000) %}{{ "
          "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
          "xxxx"
          "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
          "x' }}{% endfor %}",
          ERR_LIMIT, "larger than");
    stops("{{ 'x' * 10**9 }}", ERR_LIMIT, "too large");
    stops("{{ 10**9 * 'xy' }}", ERR_LIMIT, "too large");
    stops("{{ [1] * 10**9 }}", ERR_LIMIT, "too large");
    stops("{{ 'x'.center(10**12) }}", ERR_LIMIT, "too large");
    stops("{{ 'x' | indent(10**9) }}", ERR_LIMIT, "too large");
    stops("{{ '%9999999s' | format('x') }}", ERR_INVALID, "at most");
    stops("{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% "
          "endfor %}{{ ns.s | length }}",
          ERR_LIMIT, "");
    stops("{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% "
          "endfor %}",
          ERR_LIMIT, "");
    stops("{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% "
          "endfor %}{{ ns.l }}",
          ERR_LIMIT, "");
    stops("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}", ERR_LIMIT, "recursion");
    stops("{% set ns = namespace(l=[]) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}{% "
          "endfor %}{{ ns.l | tojson }}",
          ERR_LIMIT, "recursion");
    stops("{% set ns = namespace(l=[], m=[]) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}{% "
          "set ns.m = [ns.m] %}{% endfor %}{{ ns.l == ns.m }}",
          ERR_LIMIT, "recursion");
    stops("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ERR_LIMIT, "recursion");
    stops("{{ 9223372036854775807 + 1 }}", ERR_INVALID, "64 bits");
    stops("{{ 2 ** 64 }}", ERR_INVALID, "64 bits");
    stops("{{ 99999999999999999999 + 1 }}", ERR_INVALID, "64 bits");
    stops("{{ range(100001) }}", ERR_INVALID, "MAX_RANGE");
    template *t = compile(
        "{% set x = 'ab' * 5000 %}{% for i in range(100000) %}{{ x.count('ab') }}{% endfor %}");
    template_input in = {.max_steps = 100000};
    template_output out = {0};
    err e = {0};
    ck_assert_int_eq(template_render(t, &in, &out, &e), ERR_LIMIT);
    ck_assert_str_eq(e.msg, "the template took more than 100000 steps");
    template_output_clear(&out);
    template_free(t);
}
END_TEST

START_TEST(deep_nesting_is_refused)
{
    static const char *const open[] = {"(",     "[",     "not ", "-", "{% if 1 %}",
                                       "x if ", "{'a':", "f(",   "a["};
    for (size_t k = 0; k < sizeof open / sizeof *open; k++) {
        buf text = {0};
        err e = {0};
        if (open[k][0] != '{' || open[k][1] != '%') buf_puts(&text, "{{ ");
        for (int i = 0; i < 20000; i++) buf_puts(&text, open[k]);
        ck_assert_ptr_null(template_compile(text.v, text.len, &e));
        ck_assert_int_eq(e.code, ERR_FORMAT);
        buf_clear(&text);
    }
    buf chain = {0};
    err e = {0};
    buf_puts(&chain, "{{ 1");
    for (int i = 0; i < 20000; i++) buf_puts(&chain, " + 1");
    buf_puts(&chain, " }}");
    ck_assert_ptr_null(template_compile(chain.v, chain.len, &e));
    ck_assert_ptr_nonnull(strstr(e.msg, "nested too deeply"));
    buf_clear(&chain);
    buf_puts(&chain, "{% if 0 %}");
    for (int i = 0; i < 20000; i++) buf_puts(&chain, "{% elif 0 %}a");
    buf_puts(&chain, "{% else %}b{% endif %}");
    template *t = template_compile(chain.v, chain.len, &e);
    ck_assert_ptr_nonnull(t);
    template_output out = {0};
    ck_assert_int_eq(render_json(t, NULL, &out, &e), 0);
    ck_assert_str_eq(out.text.v, "b");
    template_output_clear(&out);
    template_free(t);
    buf_clear(&chain);
}
END_TEST

START_TEST(bad_templates_say_where)
{
    err e = {0};
    ck_assert_ptr_null(template_compile("a\nb\n{{ x | nope }}", 18, &e));
    ck_assert_str_eq(e.msg, "chat template: line 3: No filter named 'nope'.");
    ck_assert_ptr_null(template_compile("{% include 'x' %}", 17, &e));
    ck_assert_ptr_nonnull(strstr(e.msg, "stands alone"));
    ck_assert_ptr_null(template_compile("\xff{{ x }}", 8, &e));
    ck_assert_ptr_nonnull(strstr(e.msg, "UTF-8"));
}
END_TEST

/* A loop that builds texts piece by piece, and a long message through a real template: quadratic
 * work would copy terabytes, longer than a test may last. */
START_TEST(long_texts_are_linear)
{
    enum { PIECES = 100000, PIECE = 500, MESSAGE = 4 << 20 };
    buf src = {0};
    template_output out = {0};
    err e = {0};
    buf_puts(&src, "{% set piece = '");
    for (int i = 0; i < PIECE; i++) buf_putc(&src, 'x');
    buf_printf(&src,
               "' %%}{%% set ns = namespace(s='', r='') %%}{%% for i in range(%d) %%}"
               "{%% set ns.s = ns.s + piece %%}{%% set ns.r = piece ~ ns.r %%}"
               "{%% if ns.s.endswith('nothing') %%}!{%% endif %%}{%% endfor %%}{{ ns.s | length }} "
               "{{ ns.r | length }}",
               PIECES);
    template *t = compile(buf_str(&src));
    ck_assert_msg(render_json(t, NULL, &out, &e) == 0, "%s", e.msg);
    ck_assert_str_eq(out.text.v, "50000000 50000000");
    template_free(t);
    buf text = {0}, vars = {0};
    read_whole(DATA "Qwen-Qwen3-0.6B.jinja", &text);
    t = compile(text.v);
    buf_puts(&vars, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < MESSAGE; i++) buf_putc(&vars, 'x');
    buf_puts(&vars, "\"}]}");
    const json *root;
    json_doc *d = json_parse(vars.v, vars.len, NULL, &root, &e);
    ck_assert_msg(render_json(t, root, &out, &e) == 0, "%s", e.msg);
    ck_assert_uint_gt(out.text.len, MESSAGE);
    json_free(d);
    template_free(t);
    template_output_clear(&out);
    buf_clear(&src);
    buf_clear(&text);
    buf_clear(&vars);
}
END_TEST

/* ---- threads and inspection ------------------------------------------------------------------ */

static void *render_many(void *arg)
{
    template_output out = {0};
    err e = {0};
    for (int i = 0; i < 200; i++) {
        if (render_json(arg, NULL, &out, &e) || strcmp(out.text.v, "abcdefabc 3 XYZ [1, 'a']\nq"))
            return arg;
    }
    template_output_clear(&out);
    return NULL;
}

START_TEST(one_template_many_threads)
{
    template *t = compile(
        "{{ 'abc' ~ 'def' ~ 'abc' }} {{ 'abc'|length }} {{ 'xyz'.upper() }} {{ [1, 'a'] }}\n"
        "{% if true %}q{% endif %}");
    pthread_t th[4];
    for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_create(&th[i], NULL, render_many, t), 0);
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(th[i], &bad);
        ck_assert_ptr_null(bad);
    }
    template_free(t);
}
END_TEST

START_TEST(traits_of_published_templates)
{
    static const struct {
        const char *file;
        template_traits want;
    } cases[] = {
        {"Qwen-Qwen2.5-7B-Instruct", {.tools = true, .system_anywhere = true}},
        {"Qwen-Qwen3-0.6B",
         {.tools = true, .think = true, .think_switch = true, .system_anywhere = true}},
        {"Qwen-QwQ-32B",
         {.tools = true, .think = true, .think_switch = true, .system_anywhere = true}},
        {"Qwen1.5-Chat-first", {.system_anywhere = true}},
        {"Qwen2-Instruct", {.system_anywhere = true}},
        {"Qwen2-VL", {.parts = true, .system_anywhere = true}},
        {"Qwen3-Coder", {.tools = true, .xml_calls = true, .system_anywhere = true}},
        {"Qwen3.5-4B",
         {.tools = true, .think = true, .think_switch = true, .parts = true, .xml_calls = true}},
        {"Qwen3.8-from-ollama-testdata",
         {.tools = true,
          .think = true,
          .think_switch = true,
          .effort = true,
          .parts = true,
          .xml_calls = true}},
        {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", {.think = true, .think_switch = true}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[200];
        buf text = {0};
        snprintf(path, sizeof path, DATA "%s.jinja", cases[i].file);
        read_whole(path, &text);
        template *t = compile(text.v);
        template_traits g = template_inspect(t), w = cases[i].want;
        ck_assert_msg(
            g.tools == w.tools && g.think == w.think && g.think_switch == w.think_switch &&
                g.effort == w.effort && g.parts == w.parts && g.xml_calls == w.xml_calls &&
                g.system_anywhere == w.system_anywhere,
            "%s: tools %d think %d switch %d effort %d parts %d xml %d system %d", cases[i].file,
            g.tools, g.think, g.think_switch, g.effort, g.parts, g.xml_calls, g.system_anywhere);
        template_free(t);
        buf_clear(&text);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("template");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, conversations_equal_jinja2);
    tcase_add_test(c, expressions_equal_jinja2);
    tcase_add_test(c, taint_follows_every_byte);
    tcase_add_test(c, trusted_variables_stay_open);
    tcase_add_test(c, everything_is_bounded);
    tcase_add_test(c, deep_nesting_is_refused);
    tcase_add_test(c, bad_templates_say_where);
    tcase_add_test(c, long_texts_are_linear);
    tcase_add_test(c, one_template_many_threads);
    tcase_add_test(c, traits_of_published_templates);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
