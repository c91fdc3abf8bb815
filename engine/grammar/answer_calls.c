/* answer_calls.c - tool calls inside an answer, as the parsers of engine/text/calls*.c read them:
 *   Hermes  <tool_call> {"name": "N", "arguments": {…}} </tool_call>
 *   XML     <tool_call> <function=N> <parameter=K> … </function> </tool_call>; in text also without
 *           the outer tag at the start of a line
 *   ReAct   Action: N / Action Input: {…}, and the same with the marks of Qwen-Agent
 * Every text made here is read by them as the calls meant here.
 * Owns nothing.  Refuses strict tools whose schema cannot be enforced.  Thread: the compile's. */
#include "engine/grammar/answer.h"
#include "engine/grammar/schema.h"

#include <stdio.h>

enum { SPACE = 4, WIDE_SPACE = 20 };

static const char OPEN[] = "<tool_call>", CLOSE[] = "</tool_call>", FUNCTION[] = "<function=",
                  CUSTOM[] = "{\"type\":\"object\",\"properties\":{\"input\":{\"type\":\"string\"}}"
                             ",\"required\":[\"input\"],\"additionalProperties\":false}";

/* The lines of the labelled formats. */
typedef struct {
    const char *call, *args, *result;
} labels;

static const labels *labels_of(call_format f)
{
    static const labels react = {"Action:", "Action Input:", "Observation:"};
    static const labels marks = {"\xe2\x9c\xbf"
                                 "FUNCTION\xe2\x9c\xbf:",
                                 "\xe2\x9c\xbf"
                                 "ARGS\xe2\x9c\xbf:",
                                 "\xe2\x9c\xbf"
                                 "RESULT\xe2\x9c\xbf:"};
    return f == CALLS_REACT ? &react : f == CALLS_FUNCTION ? &marks : NULL;
}

bool answer_is_text(const grammar_answer *a)
{
    return !a->body && a->calls != GRAMMAR_CALLS_REQUIRED;
}

rx answer_guard(gram *g, const grammar_answer *a)
{
    rx_arena *r = &g->r;
    /* Where calls begin a line: strings have no line breaks. */
    if (a->calls != GRAMMAR_CALLS_AUTO || a->format == CALLS_REACT) return R_ALL;
    const labels *l = labels_of(a->format);
    return rx_not(r, rx_cat3(r, R_ALL, rx_str(r, l ? l->call : OPEN), R_ALL));
}

/* ---- names ---- */

/* What follows a name: its arguments. */
typedef struct {
    const char *name;
    uint32_t n, args;
} callee;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const callee *)a)->name, ((const callee *)b)->name);
}

/* Names v[n] (sorted, alike in their first `from` bytes) as a trie; each ends with `end`. Recursion
 * is the length of a name at most. */
static uint32_t names(gram *g, const callee *v, uint32_t n, uint32_t from, rx end)
{
    rx_arena *r = &g->r;
    uint32_t common = from, k = 0;
    VEC(uint32_t) ways = {0};
    while (common < v[0].n && common < v[n - 1].n && v[0].name[common] == v[n - 1].name[common])
        common++;
    if (n == 1) common = v[0].n;
    if (v[0].n == common) {
        const uint32_t parts[2] = {gram_term(g, end), v[0].args};
        VEC_PUSH(&r->status, ways, gram_list(g, G_SEQ, parts, 2));
        k = 1;
    }
    while (k < n && !r->status) {
        uint32_t m = k + 1;
        while (m < n && v[m].name[common] == v[k].name[common]) m++;
        VEC_PUSH(&r->status, ways, names(g, v + k, m - k, common, end));
        k = m;
    }
    uint32_t rest = r->status ? 0 : gram_list(g, G_ALT, ways.p, ways.n);
    free(ways.p);
    if (common == from) return rest;
    const uint32_t parts[2] = {gram_term(g, rx_lit(r, v[0].name + from, common - from)), rest};
    return gram_list(g, G_SEQ, parts, 2);
}

/* ---- arguments ---- */
typedef struct {
    gram *g;
    answer_plan *p;
} relaxed_to;

static void on_relaxed(void *ctx, const char *pointer)
{
    relaxed_to *to = ctx;
    int *status = &to->g->r.status;
    char *copy = *status ? NULL : strdup(pointer);
    if (*status) return;
    if (copy) VEC_PUSH(status, to->p->relaxed, (grammar_relaxed){to->p->tool, copy});
    else *status = ERR_NOMEM;
    if (*status) free(copy);
}

static int arguments(gram *g, const grammar_answer *a, answer_plan *p, int i, grammar_error *why)
{
    const grammar_tool *t = &a->tools[i];
    bool exact = t->custom || t->strict, free_args = a->calls == GRAMMAR_CALLS_AUTO && !exact;
    schema_tool s = {.text = t->custom ? CUSTOM : t->schema,
                     .n = t->custom ? sizeof CUSTOM - 1 : t->n_schema,
                     .xml = a->format == CALLS_XML,
                     .relax = !exact};
    relaxed_to to = {g, p};
    if (free_args || p->any[i]) s.text = NULL;
    p->tool = i;
    if (p->any[i]) on_relaxed(&to, "#");
    int rc = schema_arguments(g, &s, on_relaxed, &to, why, &p->args[i]);
    if (rc) why->tool = i;
    return rc;
}

/* All callees; 0 or the first refusal. */
static int all_callees(gram *g, const grammar_answer *a, answer_plan *p, callee *v, uint32_t *n,
                       grammar_error *why)
{
    *n = 0;
    g->free_order = true;
    for (int i = 0; i < a->n_tools; i++) {
        p->args[i] = GRAM_NONE;
        if (!a->tools[i].allowed) continue;
        int rc = arguments(g, a, p, i, why);
        if (rc || g->r.status) return rc;
        v[(*n)++] = (callee){a->tools[i].name, (uint32_t)strlen(a->tools[i].name), p->args[i]};
    }
    p->tool = -1;
    qsort(v, *n, sizeof *v, by_name);
    return 0;
}

/* ---- calls ---- */

/* One format's call: open, the name and its arguments, close. */
typedef struct {
    rx open, close;
    uint32_t names;
    rx bare;         /* XML: the opening without <tool_call>; R_NONE */
    rx text;         /* text without any opener, */
    rx line_start;   /* and where a line begins */
    bool line_based; /* a call begins a line */
} call_form;

static rx line_start(gram *g)
{
    rx_arena *r = &g->r;
    rx white = rx_star(r, rx_alt2(r, rx_range(r, '\t', '\r'), rx_byte(r, ' ')));
    return rx_alt2(r, white, rx_cat3(r, R_ALL, rx_byte(r, '\n'), white));
}

/* Text in which no call begins. */
static rx plain(gram *g, const grammar_answer *a)
{
    rx_arena *r = &g->r;
    const labels *l = labels_of(a->format);
    VEC(rx_text) known = {0};
    rx start = line_start(g);
    if (a->format == CALLS_REACT) {
        rx label = rx_cat3(r, start, rx_str(r, l->call), R_ALL);
        return rx_and2(r, answer_any(g), rx_not(r, label));
    }
    rx text = answer_without(g, rx_str(r, l ? l->call : OPEN));
    if (a->format != CALLS_XML) return text;
    for (int i = 0; i < a->n_tools; i++)
        VEC_PUSH(&r->status, known,
                 (rx_text){a->tools[i].name, (uint32_t)strlen(a->tools[i].name)});
    rx tag = rx_cat3(r, rx_str(r, FUNCTION), rx_texts(r, known.p, known.n), rx_byte(r, '>'));
    free(known.p);
    return rx_and2(r, text, rx_not(r, rx_cat3(r, start, tag, R_ALL)));
}

static call_form form_of(gram *g, const grammar_answer *a, const callee *v, uint32_t n)
{
    rx_arena *r = &g->r;
    const labels *l = labels_of(a->format);
    call_form f = {.bare = R_NONE, .text = plain(g, a), .line_start = line_start(g)};
    rx wide = answer_space(g, WIDE_SPACE), quote = rx_byte(r, '"'), end;
    if (l) {
        rx blank = rx_rep(r, rx_alt2(r, rx_byte(r, ' '), rx_byte(r, '\t')), 0, SPACE);
        f.line_based = a->format == CALLS_REACT;
        f.open = rx_cat(r, rx_str(r, l->call), blank);
        end = rx_cat3(r, rx_cat3(r, blank, rx_byte(r, '\n'), wide), rx_str(r, l->args), wide);
        f.close = R_EPS;
    } else if (a->format == CALLS_XML) {
        f.open = rx_cat3(r, rx_str(r, OPEN), wide, rx_str(r, FUNCTION));
        f.bare = rx_str(r, FUNCTION);
        end = rx_cat(r, rx_byte(r, '>'), wide);
        f.close = rx_cat(r, wide, rx_str(r, CLOSE));
    } else {
        f.open = rx_cat3(r, rx_cat3(r, rx_str(r, OPEN), wide, g->open_obj),
                         rx_cat(r, rx_str(r, "\"name\""), g->colon), quote);
        end = rx_cat3(r, rx_cat(r, quote, g->comma), rx_str(r, "\"arguments\""), g->colon);
        f.close = rx_cat3(r, g->close_obj, wide, rx_str(r, CLOSE));
    }
    f.names = names(g, v, n, 0, end);
    return f;
}

static uint32_t seq(gram *g, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const uint32_t parts[4] = {a, b, c, d};
    return gram_list(g, G_SEQ, parts, d == GRAM_NONE ? c == GRAM_NONE ? 2 : 3 : 4);
}

/* One call or, unless one_call, several, and white space; `before` comes first. */
static uint32_t only_calls(gram *g, const grammar_answer *a, const call_form *f, rx before)
{
    rx_arena *r = &g->r;
    const labels *l = labels_of(a->format);
    rx white = answer_space(g, SPACE);
    uint32_t close = gram_term(g, rx_cat(r, f->close, white)), more = gram_rule(g), ways[3], n = 0;
    ways[n++] = gram_term(g, R_EPS);
    if (l) /* where the call's result belongs generation ends, whatever follows */
        ways[n++] = gram_term(g, rx_cat(r, rx_str(r, l->result), answer_any(g)));
    if (!a->one_call) ways[n++] = seq(g, gram_term(g, f->open), f->names, close, more);
    uint32_t rest = gram_list(g, G_ALT, ways, n);
    if (r->status) return 0;
    g->rules.p[g->nodes.p[more].a] = rest;
    return seq(g, gram_term(g, rx_cat(r, before, f->open)), f->names, close, more);
}

/* Text with calls in it. */
static uint32_t mixed(gram *g, const grammar_answer *a, const call_form *f)
{
    rx_arena *r = &g->r;
    rx before = f->line_based ? rx_and2(r, f->text, f->line_start) : f->text;
    uint32_t again = gram_rule(g), ways[3], n = 0;
    uint32_t after = a->one_call ? gram_term(g, answer_space(g, SPACE)) : again;
    ways[n++] = gram_term(g, f->text);
    ways[n++] =
        seq(g, gram_term(g, rx_cat(r, before, f->open)), f->names, gram_term(g, f->close), after);
    if (f->bare != R_NONE) {
        rx open = rx_cat(r, rx_and2(r, f->text, f->line_start), f->bare);
        ways[n++] = seq(g, gram_term(g, open), f->names, after, GRAM_NONE);
    }
    uint32_t body = gram_list(g, G_ALT, ways, n);
    if (r->status) return 0;
    g->rules.p[g->nodes.p[again].a] = body;
    return again;
}

int answer_calls(gram *g, const grammar_answer *a, answer_plan *p, uint32_t body,
                 grammar_error *why, uint32_t *root)
{
    uint32_t n = 0;
    if (a->calls == GRAMMAR_CALLS_OFF) {
        *root = a->body ? body : gram_term(g, answer_any(g));
        return 0;
    }
    callee *v = a->format == CALLS_NONE ? NULL : calloc((size_t)a->n_tools + 1, sizeof *v);
    if (a->format == CALLS_NONE)
        return err_set(&why->e, ERR_INVALID, "calls have no format that could be enforced");
    if (!v) return g->r.status = ERR_NOMEM;
    int rc = all_callees(g, a, p, v, &n, why);
    if (!rc && !g->r.status && !n) {
        why->code = "invalid_grammar";
        rc = err_set(&why->e, ERR_INVALID, "none of the tools may be called");
    }
    if (!rc && !g->r.status) {
        call_form f = form_of(g, a, v, n);
        bool text = a->calls == GRAMMAR_CALLS_AUTO && !a->body;
        *root = text ? mixed(g, a, &f) : only_calls(g, a, &f, answer_space(g, SPACE));
        if (text && a->think != GRAMMAR_THINK_NONE && !labels_of(a->format))
            p->late = only_calls(g, a, &f, answer_thought(g));
        if (a->body && a->calls == GRAMMAR_CALLS_AUTO) {
            const uint32_t ways[2] = {body, *root};
            *root = gram_list(g, G_ALT, ways, 2);
        }
    }
    free(v);
    return rc;
}
