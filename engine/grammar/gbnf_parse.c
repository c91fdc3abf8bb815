/* gbnf_parse.c - the text of a GBNF grammar into rules.
 * As llama.cpp reads it: a rule ends with its line (but inside parentheses, or where the next line
 * begins with |), # begins a comment, a literal or class is of characters, "x"{2,5} repeats.
 * Owns nothing.  Refuses with line and column what is no grammar, what is nested or repeated too
 * much, rules defined twice, never, or used without a definition.  Thread: the compile's. */
#include "engine/grammar/gbnf.h"

#include "base/map.h"
#include "base/utf8.h"
#include "engine/grammar/ecma.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct {
    gbnf *b;
    const char *text, *s, *end;
    int depth;
    bool failed;
} reader;

int gbnf_fail(gbnf *b, size_t at, const char *fmt, ...)
{
    char words[200];
    va_list a;
    size_t line = 1, column = 1;
    if (b->why->code) return b->why->e.code;
    for (size_t i = 0; i < at && i < b->spec->n; i++) {
        bool end = b->spec->text[i] == '\n', inside = (b->spec->text[i] & 0xc0) == 0x80;
        line += end;
        column = end ? 1 : column + !inside;
    }
    va_start(a, fmt);
    vsnprintf(words, sizeof words, fmt, a);
    va_end(a);
    b->why->code = "invalid_grammar";
    return err_set(&b->why->e, ERR_INVALID, "line %zu:%zu: %s", line, column, words);
}

uint32_t gbnf_add(gbnf *b, gbnf_kind kind, uint32_t x, uint32_t n, size_t at)
{
    if (b->nodes.n >= GRAM_MAX_NODES) b->g->r.status = ERR_LIMIT;
    VEC_PUSH(&b->g->r.status, b->nodes, (gbnf_node){kind, x, n, 0, 0, at});
    return b->g->r.status ? 0 : b->nodes.n - 1;
}

uint32_t gbnf_list(gbnf *b, gbnf_kind kind, const uint32_t *v, uint32_t n, size_t at)
{
    if (n == 1) return v[0];
    uint32_t first = b->kids.n;
    for (uint32_t i = 0; i < n; i++) VEC_PUSH(&b->g->r.status, b->kids, v[i]);
    return gbnf_add(b, kind, first, n, at);
}

/* ---- characters ---- */
static size_t here(const reader *r)
{
    return (size_t)(r->s - r->text);
}

static void fail(reader *r, const char *words)
{
    if (!r->failed) gbnf_fail(r->b, here(r), "%s", words);
    r->failed = true;
}

static bool more(const reader *r)
{
    return r->s < r->end && !r->failed && !r->b->g->r.status;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

/* White space and comments; line ends only if they may be skipped here. */
static void space(reader *r, bool lines)
{
    while (r->s < r->end) {
        if (*r->s == '#')
            while (r->s < r->end && *r->s != '\n') r->s++;
        else if (*r->s == ' ' || *r->s == '\t' || *r->s == '\r' || (lines && *r->s == '\n')) r->s++;
        else break;
    }
}

static uint32_t hex(reader *r, int n)
{
    uint32_t v = 0;
    for (; n && more(r); n--) {
        char c = *r->s, low = c | 32;
        if (c >= '0' && c <= '9') v = v * 16 + (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f') v = v * 16 + (uint32_t)(low - 'a' + 10);
        else break;
        r->s++;
    }
    if (n) fail(r, "a hexadecimal digit is expected");
    return v;
}

/* One character of a literal or class, escapes read. */
static uint32_t character(reader *r)
{
    uint32_t c = 0;
    if (*r->s != '\\') {
        r->s += utf8_decode(r->s, &c);
        return c;
    }
    const char *from = r->s++;
    char k = r->s < r->end ? *r->s++ : 0;
    switch (k) {
    case 'x': c = hex(r, 2); break;
    case 'u': c = hex(r, 4); break;
    case 'U': c = hex(r, 8); break;
    case 't': return '\t';
    case 'r': return '\r';
    case 'n': return '\n';
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^': return (uint8_t)k;
    default:
        r->s = from;
        fail(r, "unknown escape (\\x \\u \\U \\t \\r \\n \\\\ \\\" \\[ \\] are known)");
        return 0;
    }
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        r->s = from;
        fail(r, "this is no character of Unicode");
    }
    return c;
}

/* ---- items ---- */
static uint32_t literal(reader *r)
{
    rx_arena *x = &r->b->g->r;
    size_t at = here(r);
    VEC(char) v = {0};
    r->s++;
    while (more(r) && *r->s != '"') {
        char t[4];
        uint32_t c = character(r);
        int n = r->failed ? 0 : utf8_encode(c, t);
        for (int i = 0; i < n; i++) VEC_PUSH(&x->status, v, t[i]);
    }
    if (r->s >= r->end) fail(r, "the closing \" is missing");
    else r->s++;
    rx e = r->failed ? R_NONE : rx_lit(x, v.p, v.n);
    free(v.p);
    return gbnf_add(r->b, B_RX, e, 0, at);
}

static uint32_t class(reader *r)
{
    rx_arena *x = &r->b->g->r;
    size_t at = here(r);
    VEC(code_range) v = {0};
    r->s++;
    bool negated = r->s < r->end && *r->s == '^';
    if (negated) r->s++;
    while (more(r) && *r->s != ']') {
        uint32_t lo = character(r), hi = lo;
        if (r->s + 1 < r->end && *r->s == '-' && r->s[1] != ']') {
            r->s++;
            hi = character(r);
            if (hi < lo) fail(r, "this range is out of order");
        }
        VEC_PUSH(&x->status, v, (code_range){lo, hi});
    }
    if (r->s >= r->end) fail(r, "the closing ] is missing");
    else if (!v.n) fail(r, "an empty class matches nothing");
    else r->s++;
    rx e = r->failed ? R_NONE : ecma_raw_class(x, v.p, v.n, negated);
    free(v.p);
    return gbnf_add(r->b, B_RX, e, 0, at);
}

/* The id in <[123]>, or of the one token whose text is <name>; -1 after a refusal. */
static int32_t token_id(reader *r)
{
    const tokenizer *t = r->b->spec->tok;
    const char *from = r->s++;
    bool by_id = r->s < r->end && *r->s == '[';
    int64_t id = -1;
    if (by_id) {
        for (r->s++, id = 0; more(r) && *r->s >= '0' && *r->s <= '9'; r->s++)
            if (id <= INT32_MAX) id = id * 10 + (*r->s - '0');
        if (r->s[-1] == '[' || r->end - r->s < 2 || r->s[0] != ']' || r->s[1] != '>')
            fail(r, "<[ needs the number of a token and ]>");
        else r->s += 2;
    } else {
        while (more(r) && *r->s != '>' && *r->s != '\n') r->s++;
        if (r->s >= r->end || *r->s != '>') fail(r, "the closing > is missing");
        else r->s++;
    }
    const char *end = r->s;
    r->s = from;
    if (!t) fail(r, "tokens cannot be named here: there is no tokenizer");
    if (r->failed) return -1;
    if (!by_id) {
        token_list ids = {0};
        err e;
        if (tokenizer_encode(t, from, (size_t)(end - from), true, NULL, 0, &ids, &e))
            r->b->g->r.status = ERR_NOMEM;
        if (ids.n == 1) id = ids.v[0];
        token_list_clear(&ids);
    }
    size_t n;
    if (id < 0 || id >= tokenizer_n_vocab(t) || !tokenizer_piece(t, (int32_t)id, &n)) {
        fail(r, "this is not one token of the checkpoint");
        return -1;
    }
    r->s = end;
    return (int32_t)id;
}

/* A token by id: the byte 0xff and its three bytes. */
static uint32_t token(reader *r, bool negated)
{
    rx_arena *x = &r->b->g->r;
    size_t at = here(r);
    int32_t id = token_id(r);
    if (id < 0) return 0;
    rx any = rx_range(x, 0, 255);
    rx e = rx_cat3(x, rx_byte(x, (uint8_t)(id >> 16)), rx_byte(x, (uint8_t)(id >> 8)),
                   rx_byte(x, (uint8_t)id));
    if (negated) e = rx_and2(x, rx_rep(x, any, 3, 3), rx_not(x, e));
    return gbnf_add(r->b, B_RX, rx_cat(x, rx_byte(x, 0xff), e), 0, at);
}

/* ---- rules ---- */
static void index_rules(id_table *t, const void *owner)
{
    const gbnf *b = owner;
    for (uint32_t i = 0; i < b->rules.n; i++)
        id_table_put(t, map_hash(b->rules.p[i].name, b->rules.p[i].n), i + 1);
}

static uint32_t rule_named(gbnf *b, const char *s, uint32_t n, size_t at)
{
    if (!id_table_room(&b->index, index_rules, b, &b->g->r.status)) return 0;
    uint32_t mask = b->index.cap - 1, j = (uint32_t)map_hash(s, n) & mask;
    for (; b->index.slot[j]; j = (j + 1) & mask) {
        const gbnf_rule *k = &b->rules.p[b->index.slot[j] - 1];
        if (k->n == n && !memcmp(k->name, s, n)) return b->index.slot[j] - 1;
    }
    if (b->rules.n >= GBNF_MAX_RULES) gbnf_fail(b, at, "more than %d rules", GBNF_MAX_RULES);
    VEC_PUSH(&b->g->r.status, b->rules,
             (gbnf_rule){.name = s, .n = n, .at = at, .folded = RX_UNKNOWN, .rule = GRAM_NONE});
    if (b->g->r.status) return 0;
    id_table_set(&b->index, j, b->rules.n);
    return b->rules.n - 1;
}

static uint32_t word(reader *r)
{
    const char *from = r->s;
    while (r->s < r->end && is_word(*r->s)) r->s++;
    if (r->s == from) fail(r, "the name of a rule is expected");
    size_t at = (size_t)(from - r->text);
    uint32_t k = r->failed ? 0 : rule_named(r->b, from, (uint32_t)(r->s - from), at);
    r->failed |= r->b->why->code != NULL;
    return k;
}

static uint32_t number(reader *r)
{
    uint32_t n = 0;
    const char *from = r->s;
    for (; r->s < r->end && *r->s >= '0' && *r->s <= '9'; r->s++)
        if (n <= GBNF_MAX_REPEAT) n = n * 10 + (uint32_t)(*r->s - '0');
    if (r->s == from) fail(r, "a number is expected");
    if (n > GBNF_MAX_REPEAT) fail(r, "this repeats more than 1000000 times");
    return n;
}

/* A quantifier, if one stands here, around x. */
static bool quantifier(reader *r, bool lines, uint32_t *x)
{
    uint32_t min = 0, max = RX_INF;
    size_t at = here(r);
    switch (*r->s++) {
    case '*': break;
    case '+': min = 1; break;
    case '?': max = 1; break;
    case '{':
        space(r, lines);
        min = max = number(r);
        space(r, lines);
        if (r->s < r->end && *r->s == ',') {
            r->s++;
            space(r, lines);
            max = r->s < r->end && *r->s != '}' ? number(r) : RX_INF;
            space(r, lines);
        }
        if (r->s >= r->end || *r->s != '}') fail(r, "a closing } is expected");
        else r->s++;
        if (max < min) fail(r, "the bounds are out of order");
        break;
    default: r->s--; return false;
    }
    uint32_t k = gbnf_add(r->b, B_REP, *x, 0, at);
    if (r->b->g->r.status) return false;
    r->b->nodes.p[k].min = min;
    r->b->nodes.p[k].max = max;
    *x = k;
    return true;
}

static uint32_t alternatives(reader *r, bool nested);

static uint32_t item(reader *r)
{
    size_t at = here(r);
    char c = *r->s;
    if (c == '"') return literal(r);
    if (c == '[') return class(r);
    if (c == '<') return token(r, false);
    if (c == '!' && r->s + 1 < r->end && r->s[1] == '<') {
        r->s++;
        return token(r, true);
    }
    if (c == '.') {
        r->s++;
        return gbnf_add(r->b, B_RX, ecma_utf8(&r->b->g->r, 0, 0x10ffff), 0, at);
    }
    if (c == '(') {
        if (++r->depth > GBNF_MAX_DEPTH) fail(r, "groups are nested more than 64 deep");
        r->s++;
        uint32_t k = r->failed ? 0 : alternatives(r, true);
        r->depth--;
        if (r->s >= r->end || *r->s != ')') fail(r, "a closing ) is expected");
        else r->s++;
        return k;
    }
    if (is_word(c)) {
        uint32_t k = word(r);
        return gbnf_add(r->b, B_RULE, k, 0, at);
    }
    fail(r, "a literal, class, rule, token or group is expected");
    return 0;
}

/* Whether the next line goes on with |; then that is where the reader is. */
static bool goes_on(reader *r)
{
    const char *from = r->s;
    space(r, true);
    if (r->s < r->end && *r->s == '|') return true;
    r->s = from;
    return false;
}

static uint32_t sequence(reader *r, bool nested)
{
    VEC(uint32_t) v = {0};
    size_t at = here(r);
    for (space(r, nested); more(r); space(r, nested)) {
        char c = *r->s;
        if (c == '|' || c == ')' || (c == '\n' && !nested)) break;
        uint32_t x = item(r);
        for (space(r, nested); more(r) && quantifier(r, nested, &x); space(r, nested)) continue;
        VEC_PUSH(&r->b->g->r.status, v, x);
    }
    uint32_t k = v.n ? gbnf_list(r->b, B_SEQ, v.p, v.n, at) : gbnf_add(r->b, B_RX, R_EPS, 0, at);
    free(v.p);
    return k;
}

/* Recursion: one level a group, at most GBNF_MAX_DEPTH. */
static uint32_t alternatives(reader *r, bool nested)
{
    VEC(uint32_t) v = {0};
    size_t at = here(r);
    VEC_PUSH(&r->b->g->r.status, v, sequence(r, nested));
    while (more(r) && (*r->s == '|' || (!nested && *r->s == '\n' && goes_on(r)))) {
        r->s++;
        space(r, true);
        VEC_PUSH(&r->b->g->r.status, v, sequence(r, nested));
    }
    uint32_t k = r->b->g->r.status ? 0 : gbnf_list(r->b, B_ALT, v.p, v.n, at);
    free(v.p);
    return k;
}

static void rule(reader *r)
{
    const char *from = r->s;
    uint32_t k = word(r);
    space(r, false);
    if (!r->failed && (r->end - r->s < 3 || memcmp(r->s, "::=", 3) != 0))
        fail(r, "::= is expected");
    if (r->failed || r->b->g->r.status) return;
    if (r->b->rules.p[k].defined) {
        r->s = from;
        fail(r, "this rule is defined a second time");
        return;
    }
    r->s += 3;
    space(r, true);
    r->b->rules.p[k].defined = true;
    uint32_t body = alternatives(r, false);
    if (r->b->g->r.status || r->failed) return;
    r->b->rules.p[k].body = body;
    if (r->s < r->end && *r->s != '\n')
        fail(r, *r->s == ')' ? "this ) closes nothing" : "the end of the line is expected");
}

int gbnf_parse(gbnf *b)
{
    const grammar_spec *s = b->spec;
    reader r = {.b = b, .text = s->text, .s = s->text, .end = s->text + s->n};
    if (s->n > GBNF_MAX_BYTES) {
        b->why->code = "grammar_too_complex";
        return err_set(&b->why->e, ERR_LIMIT, "the grammar has %zu bytes, at most %d are allowed",
                       s->n, GBNF_MAX_BYTES);
    }
    for (size_t i = 0; i < s->n;) {
        int k = utf8_valid_at(s->text + i, s->n - i);
        if (k <= 0) return gbnf_fail(b, i, "this is no UTF-8");
        i += (size_t)k;
    }
    rule_named(b, "root", 4, s->n);
    for (space(&r, true); more(&r); space(&r, true)) rule(&r);
    if (b->why->code || b->g->r.status) return b->why->e.code;
    for (uint32_t i = 0; i < b->rules.n; i++) {
        const gbnf_rule *k = &b->rules.p[i];
        if (k->defined) continue;
        return i ? gbnf_fail(b, k->at, "rule %.*s is used and not defined", (int)k->n, k->name)
                 : gbnf_fail(b, s->n, "there is no rule root");
    }
    return 0;
}
