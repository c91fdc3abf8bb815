/* schema_scalar.c - types, enumerations, numbers and strings of a set of schemas, as expressions.
 * Owns nothing.  Refuses keywords of the wrong kind and what cannot be enforced, by name.
 * Thread: the compiler's. */
#include "base/map.h"
#include "engine/grammar/ecma.h"
#include "engine/grammar/schema.h"

#include <stdio.h>

const json schema_type_set[T_ALL + 1];

uint32_t schema_types(schema_compiler *c, const member *v, uint32_t n, bool *integer)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } names[] = {{"null", T_NULL},      {"boolean", T_BOOL},  {"number", T_NUMBER},
                 {"integer", T_NUMBER}, {"string", T_STRING}, {"array", T_ARRAY},
                 {"object", T_OBJECT}};
    uint32_t all = T_ALL;
    *integer = false;
    for (uint32_t i = 0; i < n; i++) {
        bool negated = v[i].kind == M_NOT_TYPE;
        const json *t = v[i].kind == M_BASE || negated ? json_get(v[i].s, "type") : NULL;
        uint32_t mask = 0;
        bool whole = false, any_number = false;
        if (v[i].kind == M_OBJECT || v[i].kind == M_PROP_NOT) all &= T_OBJECT;
        if (v[i].kind == M_TYPES) all &= (uint32_t)(v[i].name - schema_type_set);
        if (v[i].kind == M_SOME_KEY) all &= T_OBJECT;
        if (v[i].kind == M_NOT_ITEM || v[i].kind == M_NO_ITEM) all &= T_ARRAY;
        if (v[i].kind == M_NOT_COUNT) all &= strstr(v[i].name->key, "Items") ? T_ARRAY : T_OBJECT;
        if (v[i].kind == M_NOT_STRING) all &= T_STRING;
        if (v[i].kind == M_NOT_NUMBER) all &= T_NUMBER;
        if (!t) continue;
        for (const json *x = t->type == JSON_ARRAY ? t->child : t; x;
             x = t->type == JSON_ARRAY ? x->next : NULL) {
            size_t k = 0;
            while (k < 7 && (x->type != JSON_STRING || strcmp(names[k].name, x->str))) k++;
            if (k == 7) {
                schema_refuse(c, "invalid_schema", v[i].s, "type", "not the name of a type");
                return 0;
            }
            mask |= names[k].bit;
            whole |= k == 3;
            any_number |= k == 2;
        }
        if (negated) {
            if (whole && !any_number) mask &= ~(uint32_t)T_NUMBER; /* fractions are left */
            all &= ~mask;
            continue;
        }
        *integer |= whole && !any_number;
        all &= mask;
    }
    return all;
}

/* minItems and maxItems, minProperties and maxProperties. */
static bool opposite(const char *a, const char *b)
{
    return !strcmp(a + 3, b + 3) && strcmp(a, b) != 0;
}

uint32_t schema_count(schema_compiler *c, const member *v, uint32_t n, const char *key, bool most)
{
    uint32_t best = most ? GRAM_INF : 0;
    for (uint32_t i = 0; i < n; i++) {
        const json *x = v[i].kind == M_BASE ? json_get(v[i].s, key) : NULL;
        bool negated = v[i].kind == M_NOT_COUNT && opposite(v[i].name->key, key);
        int64_t k;
        if (negated) x = v[i].name;
        if (!x) continue;
        if (!json_int(x, &k) || k < 0) {
            schema_refuse(c, "invalid_schema", v[i].s, x->key, "not a count");
            return best;
        }
        if (negated) k += most ? -1 : 1; /* a minimum of 0 is not negated */
        uint32_t u = k > 1000000000 ? 1000000000 : (uint32_t)k;
        if (most ? u < best : u > best) best = u;
    }
    return best;
}

rx schema_text(schema_compiler *c, const json *where, const char *s, size_t n)
{
    return schema_text_then(c, where, s, n, R_EPS);
}

rx schema_text_then(schema_compiler *c, const json *where, const char *s, size_t n, rx end)
{
    rx_arena *r = &c->g->r;
    rx e = rx_cat(r, rx_byte(r, '"'), end);
    static const char shorts[] = "\bb\ff\nn\rr\tt";
    if (memmem(s, n, "\xef\xbf\xbd", 3)) { /* what the reader makes of \u0000 */
        schema_refuse(c, "unsupported_schema", where, "enum", "U+0000 or U+FFFD in a text");
        return R_NONE;
    }
    while (n) {
        uint8_t b = (uint8_t)s[--n];
        char t[8] = {'\\', (char)b, 0};
        const char *q = b && b < 0x20 ? strchr(shorts, b) : NULL;
        if (q) t[1] = q[1];
        else if (b < 0x20) snprintf(t, sizeof t, "\\u%04x", b);
        e = rx_cat(r, b < 0x20 || b == '"' || b == '\\' ? rx_str(r, t) : rx_byte(r, b), e);
    }
    return rx_cat(r, rx_byte(r, '"'), e);
}

static rx number_text(schema_compiler *c, const json *x, bool integer)
{
    rx_arena *r = &c->g->r;
    char t[160];
    decimal d;
    if (!decimal_parse(x->str, &d)) {
        schema_refuse(c, "unsupported_schema", x, "enum", "number of more than 60 digits");
        return R_NONE;
    }
    if (integer && d.part[0]) return R_NONE;
    snprintf(t, sizeof t, "%s%s%s%s", d.negative ? "-" : "", d.whole, d.part[0] ? "." : "", d.part);
    rx plain = rx_str(r, t);
    return integer ? plain : rx_alt2(r, plain, rx_lit(r, x->str, x->len));
}

/* Recursion: nesting of the schema text, at most SCHEMA_MAX_NESTING. */
static rx constant(schema_compiler *c, const json *x, bool integer)
{
    gram *g = c->g;
    rx_arena *r = &g->r;
    switch (x->type) {
    case JSON_NULL: return rx_str(r, "null");
    case JSON_TRUE: return rx_str(r, "true");
    case JSON_FALSE: return rx_str(r, "false");
    case JSON_NUMBER: return number_text(c, x, integer);
    case JSON_STRING: return schema_text(c, x, x->str, x->len);
    default: break;
    }
    bool object = x->type == JSON_OBJECT;
    if (!x->child)
        return object ? rx_cat(r, g->open_obj, rx_byte(r, '}'))
                      : rx_cat(r, g->open_arr, rx_byte(r, ']'));
    rx e = object ? g->open_obj : g->open_arr;
    for (const json *k = x->child; k; k = k->next) {
        if (k != x->child) e = rx_cat(r, e, g->comma);
        if (object) e = rx_cat3(r, e, schema_text(c, x, k->key, k->n_key), g->colon);
        e = rx_cat(r, e, constant(c, k, false));
    }
    return rx_cat(r, e, object ? g->close_obj : g->close_arr);
}

rx schema_constant(schema_compiler *c, const json *x)
{
    return constant(c, x, false);
}

static uint32_t type_bit(const json *x)
{
    static const uint32_t bits[] = {T_NULL, T_BOOL, T_BOOL, T_NUMBER, T_STRING, T_ARRAY, T_OBJECT};
    return bits[x->type];
}

bool schema_plain(const char *s, size_t n)
{
    if (memmem(s, n, "\xef\xbf\xbd", 3)) return false;
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] < 0x20 || s[i] == '"' || s[i] == '\\') return false;
    return true;
}

/* The members of one list that types allow. */
static rx members_of(schema_compiler *c, const json *where, const json *list, uint32_t types,
                     bool integer)
{
    rx_arena *r = &c->g->r;
    VEC(rx_text) texts = {0};
    VEC(rx) out = {0};
    const json *first =
        list->type == JSON_ARRAY && list->key && !strcmp(list->key, "enum") ? list->child : list;
    bool one = first == list;
    size_t n = 0;
    for (const json *x = first; x && !c->rc && !r->status; x = one ? NULL : x->next) {
        if (++n > SCHEMA_MAX_ENUM)
            schema_refuse(c, "schema_too_complex", where, "enum", "more than %d values",
                          SCHEMA_MAX_ENUM);
        if (!(type_bit(x) & types)) continue;
        if (x->type == JSON_STRING && schema_plain(x->str, x->len))
            VEC_PUSH(&r->status, texts, (rx_text){x->str, (uint32_t)x->len});
        else VEC_PUSH(&r->status, out, constant(c, x, integer));
    }
    rx quote = rx_byte(r, '"');
    rx words = rx_cat3(r, quote, rx_texts(r, texts.p, texts.n), quote);
    VEC_PUSH(&r->status, out, words);
    rx e = rx_alt(r, out.p, out.n);
    free(texts.p);
    free(out.p);
    return e;
}

rx schema_enum(schema_compiler *c, const member *v, uint32_t n, uint32_t types, bool integer,
               bool *given)
{
    static const char *const keys[] = {"enum", "const"};
    rx e = R_ALL;
    *given = false;
    for (uint32_t i = 0; i < n; i++)
        for (int k = 0; k < 2 && v[i].kind == M_BASE; k++) {
            const json *x = json_get(v[i].s, keys[k]);
            if (!x || (k && c->draft < 6)) continue;
            if (!k && x->type != JSON_ARRAY) {
                schema_refuse(c, "invalid_schema", v[i].s, "enum", "not an array");
                return R_NONE;
            }
            *given = true;
            e = rx_and2(&c->g->r, e, members_of(c, v[i].s, x, types, integer));
        }
    return *given ? rx_and2(&c->g->r, e, c->guard) : e;
}

rx schema_not_enum(schema_compiler *c, const member *v, uint32_t n, uint32_t types, rx e)
{
    gram *g = c->g;
    rx_arena *r = &g->r;
    for (uint32_t i = 0; i < n && !c->rc; i++) {
        if (v[i].kind != M_NOT_ENUM) continue;
        const rx one_way[5] = {g->plain_string, g->plain_number, rx_str(r, "true"),
                               rx_str(r, "false"), rx_str(r, "null")};
        rx plain = rx_alt(r, one_way, 5);
        const json *list = v[i].name, *x;
        bool many = json_is(list, JSON_ARRAY) && !strcmp(list->key, "enum");
        for (x = many ? list->child : list; x; x = many ? x->next : NULL)
            if (type_bit(x) & types & (T_ARRAY | T_OBJECT))
                schema_refuse(c, "unsupported_schema", v[i].s, list->key,
                              "objects and arrays cannot be excluded");
        const rx w[3] = {e, plain, rx_not(r, members_of(c, v[i].s, list, T_ALL, false))};
        e = rx_and(r, w, 3);
    }
    return e;
}

/* Takes the stricter of a bound and a keyword's. */
static void tighten(schema_compiler *c, const json *s, const char *key, bool exclusive, bool low,
                    decimal *best)
{
    const json *x = json_get(s, key);
    decimal d;
    if (!x) return;
    if (x->type != JSON_NUMBER) {
        schema_refuse(c, "invalid_schema", s, key, "not a number");
        return;
    }
    if (!decimal_parse(x->str, &d)) {
        schema_refuse(c, "unsupported_schema", s, key, "more than 60 digits");
        return;
    }
    d.exclusive = exclusive;
    int order = best->given ? decimal_cmp(&d, best) : low ? 1 : -1;
    if (order == 0) best->exclusive |= exclusive;
    else if ((order > 0) == low) *best = d;
}

static rx multiple(schema_compiler *c, const json *s, const json *m)
{
    rx_arena *r = &c->g->r;
    decimal d;
    uint32_t k = 0;
    if (m->type != JSON_NUMBER || !decimal_parse(m->str, &d) || d.negative ||
        (!strcmp(d.whole, "0") && !d.part[0])) {
        schema_refuse(c, "invalid_schema", s, "multipleOf", "not a positive number");
        return R_NONE;
    }
    char t[160];
    snprintf(t, sizeof t, "%s%s", d.whole, d.part);
    unsigned long step = strlen(t) > 12 ? 0 : strtoul(t, NULL, 10);
    k = (uint32_t)strlen(d.part);
    if (!step || step * (k + 1) > 4096) {
        schema_refuse(c, "unsupported_schema", s, "multipleOf",
                      "digits times decimal places above 4096");
        return R_NONE;
    }
    return rx_multiple(r, (uint32_t)step, k);
}

/* What is in e and not in x; plain makes spellings and values the same thing. */
static rx without(rx_arena *r, rx e, rx plain, rx x)
{
    const rx v[3] = {e, plain, rx_not(r, x)};
    return rx_and(r, v, 3);
}

/* Whether "integer" is among the types and "number" is not. */
static bool names_integer(const json *s)
{
    const json *t = json_get(s, "type");
    bool whole = false, any = false;
    for (const json *x = json_is(t, JSON_ARRAY) ? t->child : t; x;
         x = t->type == JSON_ARRAY ? x->next : NULL) {
        whole |= x->type == JSON_STRING && !strcmp(x->str, "integer");
        any |= x->type == JSON_STRING && !strcmp(x->str, "number");
    }
    return whole && !any;
}

rx schema_number(schema_compiler *c, const member *v, uint32_t n, bool integer)
{
    gram *g = c->g;
    rx_arena *r = &g->r;
    decimal lo = {0}, hi = {0};
    rx mult = R_ALL;
    for (uint32_t i = 0; i < n && !c->rc; i++) {
        const json *s = v[i].s, *xl, *xh, *m;
        const member base = {M_BASE, 0, s, NULL};
        if (v[i].kind == M_NOT_NUMBER)
            mult = without(r, mult, g->plain_number, schema_number(c, &base, 1, false));
        if (v[i].kind == M_NOT_TYPE && names_integer(s))
            mult = without(r, mult, g->plain_number, g->integer);
        if (v[i].kind != M_BASE) continue;
        xl = json_get(s, "exclusiveMinimum");
        xh = json_get(s, "exclusiveMaximum");
        m = json_get(s, "multipleOf");
        bool bl = json_is_bool(xl), bh = json_is_bool(xh); /* draft 4 */
        tighten(c, s, "minimum", bl && xl->type == JSON_TRUE, true, &lo);
        tighten(c, s, "maximum", bh && xh->type == JSON_TRUE, false, &hi);
        if (!bl) tighten(c, s, "exclusiveMinimum", true, true, &lo);
        if (!bh) tighten(c, s, "exclusiveMaximum", true, false, &hi);
        if (m) mult = rx_and2(r, mult, multiple(c, s, m));
    }
    if (c->rc) return R_NONE;
    rx e = integer ? g->integer : g->number;
    if (lo.given || hi.given) e = decimal_range(r, &lo, &hi, integer);
    return mult == R_ALL ? e : rx_and2(r, e, mult);
}

rx schema_pattern(schema_compiler *c, const json *where, const char *key, const char *s, size_t n)
{
    const char *why;
    text_rx x = {.s = s, .hash = map_hash(s, n), .n = (uint32_t)n};
    rx e = schema_known(&c->patterns, &x);
    if (e != RX_UNKNOWN) return e;
    if (memmem(s, n, "\xef\xbf\xbd", 3)) {
        schema_refuse(c, "unsupported_schema", where, key, "U+0000 or U+FFFD in a pattern");
        return R_NONE;
    }
    x.e = ecma_pattern(&c->g->r, s, n, ECMA_JSON, &why);
    if (why) schema_refuse(c, "unsupported_schema", where, key, "%s", why);
    else schema_know(c, &c->patterns, &x);
    return x.e;
}

rx schema_string(schema_compiler *c, const member *v, uint32_t n)
{
    gram *g = c->g;
    rx_arena *r = &g->r;
    rx e = R_ALL, quote = rx_byte(r, '"');
    uint32_t lo = schema_count(c, v, n, "minLength", false);
    uint32_t hi = schema_count(c, v, n, "maxLength", true);
    for (uint32_t i = 0; i < n && !c->rc; i++) {
        const json *p, *f;
        const member base = {M_BASE, 0, v[i].s, NULL};
        if (v[i].kind == M_NOT_STRING)
            e = without(r, e, g->plain_string, schema_string(c, &base, 1));
        if (v[i].kind != M_BASE) continue;
        p = json_get(v[i].s, "pattern");
        f = json_get(v[i].s, "format");
        if ((p && p->type != JSON_STRING) || (f && f->type != JSON_STRING))
            schema_refuse(c, "invalid_schema", v[i].s, p ? "pattern" : "format", "not a string");
        else if (p) e = rx_and2(r, e, schema_pattern(c, v[i].s, "pattern", p->str, p->len));
        const char *known = f && !c->rc ? format_pattern(f->str) : NULL;
        if (known) e = rx_and2(r, e, schema_pattern(c, v[i].s, "format", known, strlen(known)));
    }
    if (e == R_ALL && !lo && hi == GRAM_INF && c->guard == R_ALL) return g->string;
    if (lo || hi != GRAM_INF || e == R_ALL)
        e = rx_and2(r, e, rx_cat3(r, quote, rx_rep(r, g->ch, lo, hi), quote));
    return rx_and2(r, e, c->guard);
}
