/* test_grammar_calls.c - tool calls held by a grammar (API T3-T6, J3): what models write must be
 * accepted, and every text the automaton can make must be read by the parsers of calls as calls
 * that satisfy their tools' schemas. */
#include "engine/grammar/grammar_impl.h"
#include "engine/text/output.h"
#include "tests/quick.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define P(props, more) "{\"type\":\"object\",\"properties\":{" props "}" more "}"
#define CLOSED ",\"additionalProperties\":false"

/* Strict ones first; schemas within the subset. */
static const struct {
    const char *name, *schema;
} known[] = {
    {"weather", P("\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\",\"minimum\":1,"
                  "\"maximum\":14}",
                  ",\"required\":[\"city\"]" CLOSED)},
    {"weather_now", P("\"unit\":{\"enum\":[\"c\",\"f\",null]},\"exact\":{\"type\":\"boolean\"}",
                      ",\"required\":[\"unit\"]" CLOSED)},
    {"edit", P("\"path\":{\"type\":\"string\",\"pattern\":\"^/[a-z/]+$\"},\"text\":{\"type\":"
               "\"string\"},\"at\":{\"type\":[\"integer\",\"null\"]},\"tag\":{\"type\":[\"string\","
               "\"null\"],\"maxLength\":5}",
               ",\"required\":[\"path\",\"text\"]" CLOSED)},
    {"plan",
     P("\"steps\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"do\":{"
       "\"type\":\"string\"},\"n\":{\"$ref\":\"#/$defs/n\"}},\"required\":[\"do\"]}},\"rate\":"
       "{\"$ref\":\"#/$defs/n\"},\"any\":{}",
       ",\"$defs\":{\"n\":{\"type\":\"number\",\"exclusiveMinimum\":0}}" CLOSED)},
    {"either",
     P("\"x\":{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"array\",\"items\":{\"type\":"
       "\"string\",\"minLength\":2}}]},\"y\":{\"anyOf\":[{\"const\":\"a\"},{\"type\":"
       "\"string\",\"minLength\":3}]}",
       ",\"required\":[\"x\"],\"additionalProperties\":{\"type\":\"string\",\"maxLength\":"
       "3}")},
    {"free", "{}"},
    {"none", "{\"type\":\"object\",\"additionalProperties\":false}"},
    {"node",
     "{\"$ref\":\"#/$defs/n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{"
     "\"type\":\"integer\"},\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/n\"},{\"type\":\"null\"}]"
     "}},\"required\":[\"v\"],\"additionalProperties\":false}}}"},
    {"parts", "{\"type\":\"object\",\"allOf\":[{\"properties\":{\"x\":{\"type\":\"number\"}},"
              "\"required\":[\"x\"]},{\"properties\":{\"y\":{\"type\":\"boolean\"}}}],\"anyOf\":[{"
              "\"properties\":{\"k\":{\"const\":1}},\"required\":[\"k\"]},{\"properties\":{\"k\":{"
              "\"const\":2},\"l\":{\"type\":\"array\"}},\"required\":[\"k\",\"l\"]}]}"},
};
enum { N_KNOWN = sizeof known / sizeof *known };

typedef struct {
    grammar_answer a;
    grammar_tool tools[N_KNOWN];
    call_tools *parser;
    grammar *judge[N_KNOWN]; /* of arguments */
    grammar *body;
} world;

static grammar *compile(const grammar_answer *a)
{
    grammar *g;
    grammar_error why;
    int rc = grammar_compile_answer(a, &g, &why);
    ck_assert_msg(rc == 0, "tool %d: %s: %s", why.tool, why.code, why.e.msg);
    return g;
}

static void make_world(world *w, call_format f, grammar_calls how, bool one)
{
    buf list = {0};
    const json *root;
    memset(w, 0, sizeof *w);
    buf_putc(&list, '[');
    for (int i = 0; i < N_KNOWN; i++) {
        const grammar_spec s = {
            .text = known[i].schema, .n = strlen(known[i].schema), .free_order = true};
        w->judge[i] = compile(&(grammar_answer){.body = &s});
        w->tools[i] = (grammar_tool){.name = known[i].name,
                                     .schema = s.text,
                                     .n_schema = s.n,
                                     .strict = true,
                                     .allowed = true};
        buf_printf(&list,
                   "%s{\"type\":\"function\",\"function\":{\"name\":\"%s\",\"parameters\":%s}}",
                   i ? "," : "", known[i].name, known[i].schema);
    }
    buf_putc(&list, ']');
    json_doc *d = json_parse(list.v, list.len, NULL, &root, NULL);
    ck_assert_ptr_nonnull(d);
    w->parser = call_tools_new(root);
    json_free(d);
    buf_clear(&list);
    w->a = (grammar_answer){
        .calls = how, .format = f, .tools = w->tools, .n_tools = N_KNOWN, .one_call = one};
}

static void end_world(world *w)
{
    for (int i = 0; i < N_KNOWN; i++) grammar_release(w->judge[i]);
    grammar_release(w->body);
    call_tools_put(w->parser);
}

/* ---- what the parser makes of a text ---- */
typedef struct {
    buf text, args[40];
    int tool[40], n, whole;
    bool known;
    const world *w;
} reading;

static void on_text(void *ctx, const char *s, size_t n)
{
    reading *r = ctx;
    buf_put(&r->text, s, n);
}

static void on_call(void *ctx, said_kind kind, int call, const char *s, size_t n)
{
    reading *r = ctx;
    ck_assert_int_lt(call, 40);
    if (kind == SAID_CALL) {
        r->n = call + 1;
        r->tool[call] = call_tools_find(r->w->parser, s, n);
    }
    if (kind == SAID_ARGS) buf_put(&r->args[call], s, n);
    if (kind == SAID_CALL_END) r->whole++;
}

static void read_text(const world *w, const char *s, size_t n, reading *r)
{
    memset(r, 0, sizeof *r);
    r->w = w;
    calls *c = calls_new(w->a.format, w->parser, (call_sink){r, on_text, on_call});
    calls_feed(c, s, n);
    calls_end(c);
    calls_free(c);
}

static void end_reading(reading *r)
{
    buf_clear(&r->text);
    for (int i = 0; i < 40; i++) buf_clear(&r->args[i]);
}

/* Every call is complete, of an allowed tool, with arguments that satisfy its schema. */
static void judge(const world *w, const char *s, size_t n, const reading *r)
{
    ck_assert_msg(r->whole == r->n, "a call is cut short in: %.*s", (int)n, s);
    for (int i = 0; i < r->n; i++) {
        int t = r->tool[i];
        ck_assert_msg(t >= 0 && w->tools[t].allowed, "call %d is of no allowed tool: %.*s", i,
                      (int)n, s);
        if (w->a.calls == GRAMMAR_CALLS_AUTO && !w->tools[t].strict) continue;
        int ok = grammar_accepts(w->judge[t], buf_str(&r->args[i]), r->args[i].len);
        ck_assert_msg(ok == 1, "%s got %s from: %.*s", known[t].name, buf_str(&r->args[i]), (int)n,
                      s);
    }
}

/* ---- random texts of the automaton ---- */
static uint32_t seed = 1;
static uint32_t rnd(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(seed >> 8) * n >> 24);
}

/* Whether all of s may stand at c; then c is behind it. */
static bool follow(gram *g, uint32_t *c, const char *s)
{
    uint32_t at = *c;
    for (; *s && at; s++) at = gram_step(g, at, (uint8_t)*s);
    if (at) *c = at;
    return at;
}

static bool generate(grammar *gr, buf *out)
{
    static const char *const hints[] = {"\n</parameter>\n",
                                        "</parameter>",
                                        "</parameter>\n<parameter=",
                                        "\n",
                                        "\"",
                                        "}",
                                        "]",
                                        "</function>",
                                        "\n</tool_call>",
                                        "<tool_call>\n",
                                        "<function=edit>",
                                        "\n<function=free>\n",
                                        "</think>",
                                        "\nAction: weather\n",
                                        "\nAction Input: {",
                                        "\nObservation:",
                                        "null",
                                        "</tool_call>",
                                        "\n\xe2\x9c\xbf"
                                        "FUNCTION\xe2\x9c\xbf: ",
                                        "\n\xe2\x9c\xbf"
                                        "ARGS\xe2\x9c\xbf: {",
                                        ", \"",
                                        "\\n</parameter>",
                                        "<parameter=x>\n"};
    gram *g = &gr->g;
    uint32_t c = g->start;
    g->r.fuel = UINT64_MAX;
    buf_reset(out);
    while (out->len < 1500) {
        uint8_t live[256];
        uint32_t n = 0;
        for (int b = 0; b < 256; b++)
            if (gram_step(g, c, (uint8_t)b)) live[n++] = (uint8_t)b;
        ck_assert_int_eq(g->r.status, 0);
        if (g->configs.p[c].accept && (!n || rnd(4) == 0)) return true;
        ck_assert_msg(n > 0, "a dead end after %s", buf_str(out));
        const char *h = hints[rnd(sizeof hints / sizeof *hints)];
        if (n > 3 && rnd(3) == 0 && follow(g, &c, h)) {
            buf_puts(out, h);
            continue;
        }
        uint8_t b = live[rnd(n)];
        c = gram_step(g, c, b);
        buf_putc(out, (char)b);
    }
    return false;
}

static const call_format formats[] = {CALLS_HERMES, CALLS_XML, CALLS_REACT, CALLS_FUNCTION};
enum { N_FORMATS = sizeof formats / sizeof *formats };

/* T4, T6: nothing but calls, each of them good. */
START_TEST(required_texts)
{
    int rounds = quick() ? 30 : 400;
    bool one = _i / N_FORMATS;
    world w;
    buf text = {0};
    int done = 0;
    make_world(&w, formats[_i % N_FORMATS], GRAMMAR_CALLS_REQUIRED, one);
    grammar *g = compile(&w.a);
    for (int i = 0; i < rounds; i++) {
        reading r;
        if (!generate(g, &text)) continue;
        done++;
        read_text(&w, text.v, text.len, &r);
        judge(&w, text.v, text.len, &r);
        ck_assert_msg(r.n >= 1 && (!one || r.n == 1), "%d calls in: %s", r.n, buf_str(&text));
        ck_assert_msg(r.text.len == 0, "text \"%s\" in: %s", buf_str(&r.text), buf_str(&text));
        end_reading(&r);
    }
    ck_assert_int_gt(done, rounds / 4);
    grammar_release(g);
    buf_clear(&text);
    end_world(&w);
}
END_TEST

/* T5, allowed_tools: text is free, calls are of allowed tools, those of strict ones are good. */
START_TEST(auto_texts)
{
    int rounds = quick() ? 120 : 400, with_calls = 0;
    world w;
    buf text = {0};
    make_world(&w, formats[_i], GRAMMAR_CALLS_AUTO, false);
    w.tools[1].allowed = false;
    w.tools[3].strict = false;
    grammar *g = compile(&w.a);
    for (int i = 0; i < rounds; i++) {
        reading r;
        if (!generate(g, &text)) continue;
        read_text(&w, text.v, text.len, &r);
        judge(&w, text.v, text.len, &r);
        with_calls += r.n > 0;
        end_reading(&r);
    }
    ck_assert_int_gt(with_calls, 0);
    grammar_release(g);
    buf_clear(&text);
    end_world(&w);
}
END_TEST

/* J3: with response_format the answer is the JSON, or calls. */
START_TEST(body_or_calls)
{
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},"
                                 "\"b\":{}},\"required\":[\"a\"]}";
    int rounds = quick() ? 30 : 300, bodies = 0, with_calls = 0;
    const grammar_spec body = {.text = schema, .n = sizeof schema - 1};
    world w;
    buf text = {0};
    make_world(&w, formats[_i], GRAMMAR_CALLS_AUTO, false);
    w.a.body = &body;
    w.body = compile(&(grammar_answer){.body = &body});
    grammar *g = compile(&w.a);
    for (int i = 0; i < rounds; i++) {
        reading r;
        if (!generate(g, &text)) continue;
        read_text(&w, text.v, text.len, &r);
        judge(&w, text.v, text.len, &r);
        if (!r.n) {
            bodies++;
            ck_assert_msg(grammar_accepts(w.body, buf_str(&r.text), r.text.len) == 1,
                          "not by the schema: %s", buf_str(&text));
        } else {
            with_calls++;
            ck_assert_msg(r.text.len == 0, "text beside calls: %s", buf_str(&text));
        }
        end_reading(&r);
    }
    ck_assert_int_gt(bodies, 0);
    ck_assert_int_gt(with_calls, 0);
    grammar_release(g);
    buf_clear(&text);
    end_world(&w);
}
END_TEST

/* ---- what models write ---- */
static void accepts(grammar *g, const char *yes)
{
    ck_assert_msg(grammar_accepts(g, yes, strlen(yes)) == 1, "rejects %s", yes);
}

static void rejects(grammar *g, const char *no)
{
    ck_assert_msg(grammar_accepts(g, no, strlen(no)) == 0, "accepts %s", no);
}

START_TEST(hermes)
{
    world w;
    make_world(&w, CALLS_HERMES, GRAMMAR_CALLS_REQUIRED, false);
    grammar *g = compile(&w.a);
    accepts(g, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Z\\u00fcrich "
               "</tool_call>\", \"days\": 3}}\n</tool_call>");
    accepts(g, "<tool_call>\n{\"name\": \"none\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n"
               "{\"name\": \"weather_now\", \"arguments\": {\"exact\": true, \"unit\": null}}\n"
               "</tool_call>\n");
    rejects(g, "");
    rejects(g, "hello");
    rejects(g, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>");
    rejects(g, "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>");
    rejects(g, "<tool_call>\n{\"name\": \"none\", \"arguments\": {}}\n</tool_call> and so");
    rejects(g, "<tool_call>\n{\"name\": \"none\", \"arguments\": \"{}\"}\n</tool_call>");
    grammar_release(g);
    w.a.one_call = true;
    w.a.think = GRAMMAR_THINK_OPEN;
    for (int i = 0; i < N_KNOWN; i++) w.tools[i].allowed = i == 6;
    g = compile(&w.a);
    accepts(g, "so <tool_call>\n</think>\n\n<tool_call>\n{\"name\": \"none\", \"arguments\": {}}\n"
               "</tool_call>");
    rejects(g, "</think><tool_call>{\"name\":\"none\",\"arguments\":{}}</tool_call>\n<tool_call>"
               "{\"name\":\"none\",\"arguments\":{}}</tool_call>");
    rejects(g, "</think><tool_call>{\"name\":\"free\",\"arguments\":{}}</tool_call>");
    rejects(g, "no thought ends");
    grammar_release(g);
    end_world(&w);
    make_world(&w, CALLS_HERMES, GRAMMAR_CALLS_AUTO, false);
    w.tools[5].strict = false;
    g = compile(&w.a);
    accepts(g, "");
    accepts(g, "I say <tool_call and </tool_call>");
    accepts(g, "Sure.\n<tool_call>\n{\"name\": \"none\", \"arguments\": {}}\n</tool_call>\nDone.");
    accepts(g, "<tool_call>{\"name\": \"free\", \"arguments\": {\"x\": [{}]}}</tool_call>");
    rejects(g, "Sure.\n<tool_call>\n{\"name\": \"none\", \"arguments\": {\"x\": 1}}\n</tool_call>");
    rejects(g, "the <tool_call> tag");
    grammar_release(g);
    w.a.think = GRAMMAR_THINK_OPEN; /* R7: calls at the end of a thought count */
    g = compile(&w.a);
    accepts(g, "so\n<tool_call>\n{\"name\": \"none\", \"arguments\": {}}\n</tool_call>\n");
    accepts(g, "the <tool_call> tag</think>yes");
    accepts(g, "a thought that never ends");
    rejects(g, "so <tool_call>{\"name\": \"none\", \"arguments\": {\"x\": 1}}</tool_call>");
    rejects(g, "the <tool_call> tag");
    grammar_release(g);
    end_world(&w);
}
END_TEST

START_TEST(xml)
{
    world w;
    make_world(&w, CALLS_XML, GRAMMAR_CALLS_REQUIRED, false);
    grammar *g = compile(&w.a);
    accepts(g, "<tool_call>\n<function=weather>\n<parameter=city>\nS\xc3\xa3o \"Paulo\"\n\n"
               "</parameter>\n<parameter=days>\n7\n</parameter>\n</function>\n</tool_call>");
    accepts(g, "<tool_call>\n<function=edit>\n<parameter=text>\n<a>\n  </parameter> b\n</a>\n"
               "</parameter>\n<parameter=path>\n/a/b\n</parameter>\n<parameter=at>\nnull\n"
               "</parameter>\n</function>\n</tool_call>");
    accepts(g,
            "<tool_call>\n<function=none>\n</function>\n</tool_call>\n<tool_call>\n"
            "<function=either>\n<parameter=x>\n[\"ab\", \"cd\"]\n</parameter>\n<parameter=zz>\nabc"
            "\n</parameter>\n</function>\n</tool_call>");
    accepts(g, "<tool_call>\n<function=weather>\n<parameter=city>Rome</parameter>\n</function>\n"
               "</tool_call>");
    rejects(g, "<tool_call>\n<function=weather>\n<parameter=days>\n7\n</parameter>\n</function>\n"
               "</tool_call>");
    rejects(g,
            "<tool_call>\n<function=weather>\n<parameter=city>\na\n</parameter>\n<parameter=days>"
            "\n77\n</parameter>\n</function>\n</tool_call>");
    rejects(g,
            "<tool_call>\n<function=weather>\n<parameter=city>\na\n</parameter>\n<parameter=city>"
            "\nb\n</parameter>\n</function>\n</tool_call>");
    rejects(g, "<tool_call>\n<function=edit>\n<parameter=path>\nx\n</parameter>\n<parameter=text>\n"
               "</parameter>\n</function>\n</tool_call>");
    rejects(g, "<function=none>\n</function>");
    grammar_release(g);
    end_world(&w);
    make_world(&w, CALLS_XML, GRAMMAR_CALLS_AUTO, true);
    g = compile(&w.a);
    accepts(g, "a <function=none> b");
    accepts(g, "Now:\n <function=none>\n</function>");
    accepts(g, "Now: <tool_call>\n<function=none></function></tool_call>\n");
    rejects(g, "Now:\n <function=none> is it");
    rejects(g, "<tool_call>\n<function=none></function></tool_call> and");
    grammar_release(g);
    end_world(&w);
}
END_TEST

START_TEST(lines)
{
    world w;
    make_world(&w, CALLS_REACT, GRAMMAR_CALLS_REQUIRED, false);
    grammar *g = compile(&w.a);
    accepts(g, "Action: weather\nAction Input: {\"city\": \"Rome\"}\nObservation:");
    accepts(g, "Action: none\nAction Input: {}\n\nAction: free\nAction Input: {\"a\":1}");
    rejects(g, "Thought: I look.\nAction: none\nAction Input: {}");
    rejects(g, "Action: nothing\nAction Input: {}");
    grammar_release(g);
    w.a.calls = GRAMMAR_CALLS_AUTO;
    g = compile(&w.a);
    accepts(g, "Thought: I look.\nAction: none\nAction Input: {}\nObservation: x");
    accepts(g, "Thought: an Action: is none\nFinal Answer: yes");
    rejects(g, "Thought: I look.\nAction: none\nAction Input: {\"x\":1}");
    grammar_release(g);
    end_world(&w);
    make_world(&w, CALLS_FUNCTION, GRAMMAR_CALLS_REQUIRED, true);
    g = compile(&w.a);
    accepts(g, "\xe2\x9c\xbf"
               "FUNCTION\xe2\x9c\xbf: weather\n\xe2\x9c\xbf"
               "ARGS\xe2\x9c\xbf: "
               "{\"city\": \"Rome\"}\n\xe2\x9c\xbf"
               "RESULT\xe2\x9c\xbf:");
    grammar_release(g);
    end_world(&w);
    /* The marks open a call inside a line, too. */
    make_world(&w, CALLS_FUNCTION, GRAMMAR_CALLS_AUTO, false);
    g = compile(&w.a);
    accepts(g, "well \xe2\x9c\xbf"
               "FUNCTION\xe2\x9c\xbf: none\n\xe2\x9c\xbf"
               "ARGS\xe2\x9c\xbf: {}");
    accepts(g, "a \xe2\x9c\xbf"
               "FUNCTION\xe2\x9c\xbf is a mark");
    rejects(g, "well \xe2\x9c\xbf"
               "FUNCTION\xe2\x9c\xbf: is none");
    grammar_release(g);
    const grammar_spec any = {.text = "{\"type\":\"string\"}", .n = 17};
    w.a.body = &any;
    g = compile(&w.a);
    accepts(g, "\"a \xe2\x9c\xbf"
               "FUNCTION\xe2\x9c\xbf b\"");
    rejects(g, "\"a \xe2\x9c\xbf"
               "FUNCTION\xe2\x9c\xbf: b\"");
    grammar_release(g);
    end_world(&w);
}
END_TEST

/* T6: what cannot be enforced is widened where it stands and named; strict tools are refused. */
START_TEST(relaxed)
{
    static const struct {
        const char *schema, *pointers[3], *yes, *no;
    } t[] = {
        {P("\"a\":{\"type\":\"array\",\"uniqueItems\":true},\"b\":{\"type\":\"integer\"}", CLOSED),
         {"#/properties/a"},
         "{\"a\":1,\"b\":2}",
         "{\"b\":\"x\"}"},
        {P("\"a\":{\"items\":{\"pattern\":\"(?=x)\",\"type\":\"string\"},\"type\":\"array\"},\"b\":"
           "{"
           "\"anyOf\":[{\"$ref\":\"http://x\"},{\"type\":\"null\"}]}",
           CLOSED),
         {"#/properties/a/items", "#/properties/b/anyOf/0"},
         "{\"a\":[1],\"b\":1}",
         "{\"a\":1}"},
        {P("\"a\":{\"$ref\":\"#/$defs/t\"}",
           CLOSED ",\"$defs\":{\"t\":{\"not\":{\"uniqueItems\":true}}}"),
         {"#/$defs/t"},
         "{\"a\":1}",
         "{\"b\":1}"},
        {"{\"type\":\"string\"}", {"#"}, "{\"b\":1}", "1"},
        {P("\"a\":false", ",\"required\":[\"a\"]"), {"#"}, "{\"b\":1}", "1"},
        {P("\"a\":{\"type\":\"object\",\"properties\":{\"b\":{\"$ref\":\"#/properties/a\"}},"
           "\"required\":[\"b\"]}",
           ",\"required\":[\"a\"]"),
         {"#"},
         "{\"b\":1}",
         "1"},
        {"{\"type\":\"strin\"", {"#"}, "{\"b\":1}", "1"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        grammar_tool tool = {
            .name = "f", .schema = t[i].schema, .n_schema = strlen(t[i].schema), .allowed = true};
        grammar_answer a = {
            .calls = GRAMMAR_CALLS_REQUIRED, .format = CALLS_HERMES, .tools = &tool, .n_tools = 1};
        char text[200];
        size_t n, m = 0;
        grammar *g = compile(&a);
        const grammar_relaxed *r = grammar_relaxed_places(g, &n);
        while (t[i].pointers[m]) m++;
        ck_assert_msg(n == m, "%s: %zu places", t[i].schema, n);
        for (size_t k = 0; k < n; k++) {
            ck_assert_str_eq(r[k].pointer, t[i].pointers[k]);
            ck_assert_int_eq(r[k].tool, 0);
        }
        snprintf(text, sizeof text, "<tool_call>{\"name\":\"f\",\"arguments\":%s}</tool_call>",
                 t[i].yes);
        accepts(g, text);
        snprintf(text, sizeof text, "<tool_call>{\"name\":\"f\",\"arguments\":%s}</tool_call>",
                 t[i].no);
        rejects(g, text);
        grammar_release(g);
        grammar_error why;
        tool.strict = true;
        ck_assert_msg(grammar_compile_answer(&a, &g, &why) < 0, "%s compiles", t[i].schema);
        ck_assert_int_eq(why.tool, 0);
        ck_assert_ptr_nonnull(why.code);
        a.calls = GRAMMAR_CALLS_AUTO; /* T6: never a reason to fail there, unless strict */
        tool.strict = false;
        grammar_release(compile(&a));
    }
}
END_TEST

/* Many tools, names that begin alike, names not allowed. */
START_TEST(many)
{
    enum { N = 512 };
    static char names[N][32];
    static grammar_tool tools[N];
    grammar_answer a = {
        .calls = GRAMMAR_CALLS_REQUIRED, .format = CALLS_HERMES, .tools = tools, .n_tools = N};
    char text[200];
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], i % 2 ? "mcp__server_%d" : "mcp__server_%d_x", i / 2);
        tools[i] = (grammar_tool){.name = names[i],
                                  .schema = known[i % N_KNOWN].schema,
                                  .n_schema = strlen(known[i % N_KNOWN].schema),
                                  .allowed = i != 77};
    }
    grammar *g = compile(&a);
    for (int i = 0; i < N; i++) {
        if (i % N_KNOWN < 5 || i % N_KNOWN > 6) continue; /* only these need no argument */
        snprintf(text, sizeof text,
                 "<tool_call>\n{\"name\": \"%s\", \"arguments\": {}}\n</tool_call>", names[i]);
        if (i == 77) rejects(g, text);
        else accepts(g, text);
    }
    rejects(g, "<tool_call>\n{\"name\": \"mcp__server_\", \"arguments\": {}}\n</tool_call>");
    grammar_release(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("grammar_calls");
    TCase *t = tcase_create("grammar_calls");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, hermes);
    tcase_add_test(t, xml);
    tcase_add_test(t, lines);
    tcase_add_test(t, relaxed);
    tcase_add_test(t, many);
    tcase_add_loop_test(t, required_texts, 0, 2 * N_FORMATS);
    tcase_add_loop_test(t, auto_texts, 0, N_FORMATS);
    tcase_add_loop_test(t, body_or_calls, 0, N_FORMATS);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
