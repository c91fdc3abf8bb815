/* schema_xml.c - the arguments of a call as Qwen3-Coder writes them: <parameter=KEY>, a line end,
 * the value, a line end, </parameter>.  Strings stand as they are, everything else as JSON text;
 * the reader (engine/text/calls_xml.c) decides by the tool's schema which of the two a value is, so
 * the same question is asked here. A string cannot hold what its reader takes for its end, nor a
 * line that begins with </parameter. Owns nothing.  Refuses by way of schema_refuse.  Thread: the
 * compiler's. */
#include "engine/grammar/ecma.h"
#include "engine/grammar/schema.h"
#include "engine/text/call_tools.h"

enum { KEY_BYTES = 256, KEY_CHARS = 64, SPACE = 20 };

static const char END[] = "</parameter>";

rx schema_xml_key(schema_compiler *c, const char *s, size_t n)
{
    rx_arena *r = &c->g->r;
    if (n > KEY_BYTES || memchr(s, '>', n) || memchr(s, 0, n)) return R_NONE;
    return rx_cat3(r, rx_str(r, "<parameter="), rx_lit(r, s, n), rx_byte(r, '>'));
}

rx schema_xml_other_key(schema_compiler *c, const rx *names, uint32_t n)
{
    rx_arena *r = &c->g->r;
    const rx v[3] = {ecma_utf8(r, '!', '<' - 1), rx_byte(r, '='), ecma_utf8(r, '?', 0x10ffff)};
    rx letter = rx_alt(r, v, 3);
    rx key = rx_cat3(r, rx_str(r, "<parameter="), rx_rep(r, letter, 1, KEY_CHARS), rx_byte(r, '>'));
    return rx_and2(r, key, rx_not(r, rx_alt(r, names, n)));
}

static rx space(rx_arena *r)
{
    return rx_rep(r, rx_alt2(r, rx_range(r, '\t', '\r'), rx_byte(r, ' ')), 0, SPACE);
}

static rx end_tag(rx_arena *r)
{
    return rx_cat(r, rx_str(r, END), space(r));
}

/* A text as it stands between the tags: the reader drops one line end at either side. */
static rx between_tags(rx_arena *r, rx text)
{
    rx line = rx_byte(r, '\n');
    rx open_end = rx_and2(r, text, rx_not(r, rx_cat(r, R_ALL, line)));
    rx closed = rx_alt2(r, rx_cat(r, text, line), open_end);
    rx open_start = rx_and2(r, closed, rx_not(r, rx_cat(r, line, R_ALL)));
    return rx_cat(r, rx_alt2(r, rx_cat(r, line, closed), open_start), end_tag(r));
}

/* ---- strings ---- */
static bool known_text(schema_compiler *c, const member *m, const json *x)
{
    if (x->type != JSON_STRING || !memmem(x->str, x->len, "\xef\xbf\xbd", 3)) return true;
    schema_refuse(c, "unsupported_schema", m->s, "enum", "U+0000 or U+FFFD in a text");
    return false;
}

/* The strings of enum or const, and whether null is among them. */
static rx listed(schema_compiler *c, const member *m, const json *list, bool *null)
{
    rx_arena *r = &c->g->r;
    VEC(rx_text) texts = {0};
    bool many = list->type == JSON_ARRAY && list->key && !strcmp(list->key, "enum");
    *null = false;
    for (const json *x = many ? list->child : list; x; x = many ? x->next : NULL) {
        if (!known_text(c, m, x)) break;
        *null |= x->type == JSON_NULL;
        if (x->type == JSON_STRING)
            VEC_PUSH(&r->status, texts, (rx_text){x->str, (uint32_t)x->len});
    }
    rx e = rx_texts(r, texts.p, texts.n);
    free(texts.p);
    return e;
}

static rx patterns(schema_compiler *c, const json *s)
{
    rx_arena *r = &c->g->r;
    const json *v[2] = {json_get(s, "pattern"), json_get(s, "format")};
    rx e = R_ALL;
    for (int i = 0; i < 2 && !c->rc; i++) {
        const char *key = i ? "format" : "pattern", *why = NULL;
        if (!v[i]) continue;
        if (v[i]->type != JSON_STRING) {
            schema_refuse(c, "invalid_schema", s, key, "not a string");
            return R_NONE;
        }
        const char *text = i ? format_pattern(v[i]->str) : v[i]->str;
        if (!text) continue;
        if (memmem(text, strlen(text), "\xef\xbf\xbd", 3)) why = "U+0000 or U+FFFD in a pattern";
        else e = rx_and2(r, e, ecma_pattern(r, text, strlen(text), ECMA_SEARCH, &why));
        if (why) schema_refuse(c, "unsupported_schema", s, key, "%s", why);
    }
    return e;
}

/* What the set says of strings, over plain text; *null: what it says of null. */
static rx strings(schema_compiler *c, const member *v, uint32_t n, bool *null)
{
    rx_arena *r = &c->g->r;
    rx letter = ecma_utf8(r, 0, 0x10ffff);
    rx e = rx_rep(r, letter, schema_count(c, v, n, "minLength", false),
                  schema_count(c, v, n, "maxLength", true));
    bool nil, unused;
    for (uint32_t i = 0; i < n && !c->rc; i++) {
        const member base = {M_BASE, 0, v[i].s, NULL};
        if (v[i].kind == M_NOT_STRING) e = rx_and2(r, e, rx_not(r, strings(c, &base, 1, &unused)));
        if (v[i].kind == M_NOT_ENUM) {
            e = rx_and2(r, e, rx_not(r, listed(c, &v[i], v[i].name, &nil)));
            *null &= !nil;
        }
        if (v[i].kind != M_BASE) continue;
        e = rx_and2(r, e, patterns(c, v[i].s));
        for (int k = 0; k < 2; k++) {
            const json *x = json_get(v[i].s, k ? "const" : "enum");
            if (!x || (k && c->draft < 6)) continue;
            if (!k && x->type != JSON_ARRAY)
                schema_refuse(c, "invalid_schema", v[i].s, "enum", "not an array");
            e = rx_and2(r, e, listed(c, &v[i], x, &nil));
            *null &= nil;
        }
    }
    return e;
}

rx schema_raw(schema_compiler *c, const member *v, uint32_t n)
{
    rx_arena *r = &c->g->r;
    bool integer, null = true;
    uint32_t types = schema_types(c, v, n, &integer);
    rx e = R_NONE, word = rx_str(r, "null");
    bool may_null = c->form.types & T_NULL;
    if (c->rc) return R_NONE;
    rx text = strings(c, v, n, &null);
    if (types & T_STRING) e = may_null ? rx_and2(r, text, rx_not(r, word)) : text;
    if (may_null && null && types & T_NULL) e = rx_alt2(r, e, word);
    if (c->rc || r->status) return R_NONE;
    /* The end tag, as the reader sees it, and lines that look like one. */
    rx next = rx_alt2(r, rx_str(r, "<parameter="), rx_str(r, "</function>"));
    rx white = rx_star(r, rx_alt2(r, rx_range(r, '\t', '\r'), rx_byte(r, ' ')));
    rx ends = rx_cat3(r, rx_str(r, END), white, next), line = rx_str(r, "\n</parameter");
    e = rx_and2(r, e, rx_not(r, rx_cat3(r, R_ALL, rx_alt2(r, ends, line), R_ALL)));
    e = between_tags(r, e);
    return rx_live(r, e) ? e : R_NONE;
}

/* ---- values ---- */
uint32_t schema_xml_value(schema_compiler *c, const char *key, size_t n_key, const member *v,
                          uint32_t n)
{
    static const struct {
        int may;
        uint32_t type;
    } bits[] = {{MAY_INTEGER | MAY_NUMBER, T_NUMBER},
                {MAY_BOOL, T_BOOL},
                {MAY_NULL, T_NULL},
                {MAY_OBJECT, T_OBJECT},
                {MAY_ARRAY, T_ARRAY},
                {MAY_STRING, T_STRING}};
    gram *g = c->g;
    rx_arena *r = &g->r;
    const member all = {M_OBJECT, 0, c->root, NULL};
    int may = key ? call_tools_schema_types(c->root, key, n_key) : MAY_STRING;
    value_form form = {.level = ++c->level, .raw = may & MAY_STRING};
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
        if (may & bits[i].may) form.types |= bits[i].type;
    if (form.raw) form.types &= T_STRING | T_NULL;
    c->form = form;
    uint32_t node = n ? schema_node(c, v, n) : schema_emit(c, &all, 0);
    c->form = (value_form){0};
    c->level--;
    if (form.raw || c->rc || r->status || gram_never(g, node)) return node;
    rx line = rx_opt(r, rx_byte(r, '\n'));
    const uint32_t parts[3] = {gram_term(g, line), node, gram_term(g, rx_cat(r, line, end_tag(r)))};
    return gram_list(g, G_SEQ, parts, 3);
}
