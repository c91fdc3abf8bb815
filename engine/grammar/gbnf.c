/* gbnf.c - the rules of a GBNF grammar to nodes.
 * Rules without recursion become one expression (a plain DFA); A ::= A x | y becomes y x*; what is
 * repeated and may be empty is repeated without the empty text, so no step can go round in place.
 * Owns nothing.  Refuses other left recursion, naming its cycle, and large counts of something
 * recursive.  Thread: the compile's. */
#include "engine/grammar/gbnf.h"

#include <stdio.h>

enum { FOLD_MAX = 20000, VISITING = 1, DONE = 2 };

/* ---- what may be empty ---- */
static bool empty_node(const gbnf *b, uint32_t x)
{
    const gbnf_node *n = &b->nodes.p[x];
    bool all = true, any = false;
    switch (n->kind) {
    case B_RX: return b->g->r.nodes.p[n->a].nullable;
    case B_RULE: return b->rules.p[n->a].nullable;
    case B_REP: return n->min == 0 || empty_node(b, n->a);
    default: break;
    }
    for (uint32_t i = 0; i < n->b; i++) {
        bool e = empty_node(b, b->kids.p[n->a + i]);
        all &= e;
        any |= e;
    }
    return n->kind == B_SEQ ? all : any;
}

static void find_nullable(gbnf *b)
{
    bool changed = true;
    while (changed && b->g->units > b->nodes.n) {
        changed = false;
        b->g->units -= b->nodes.n;
        for (uint32_t i = b->rules.n; i--;)
            if (!b->rules.p[i].nullable && empty_node(b, b->rules.p[i].body))
                b->rules.p[i].nullable = changed = true;
    }
    if (changed) b->g->r.status = ERR_LIMIT;
}

/* ---- left recursion ---- */
typedef VEC(uint32_t) id_list;

/* The alternatives of a rule. */
static void alternatives_of(gbnf *b, uint32_t body, id_list *v)
{
    gbnf_node n = b->nodes.p[body];
    v->n = 0;
    for (uint32_t i = 0; n.kind == B_ALT && i < n.b; i++)
        VEC_PUSH(&b->g->r.status, *v, b->kids.p[n.a + i]);
    if (n.kind != B_ALT) VEC_PUSH(&b->g->r.status, *v, body);
}

static bool is_rule(const gbnf *b, uint32_t x, uint32_t k)
{
    return b->nodes.p[x].kind == B_RULE && b->nodes.p[x].a == k;
}

/* A ::= A x | y  to  y x* */
static void unroll(gbnf *b, uint32_t k)
{
    id_list v = {0}, again = {0}, first = {0};
    size_t at = b->rules.p[k].at;
    bool found = false;
    alternatives_of(b, b->rules.p[k].body, &v);
    for (uint32_t i = 0; i < v.n && !b->g->r.status; i++) {
        gbnf_node n = b->nodes.p[v.p[i]];
        if (is_rule(b, v.p[i], k)) {
            found = true; /* A ::= A says nothing */
        } else if (n.kind == B_SEQ && is_rule(b, b->kids.p[n.a], k)) {
            id_list rest = {0};
            for (uint32_t j = 1; j < n.b; j++) VEC_PUSH(&b->g->r.status, rest, b->kids.p[n.a + j]);
            VEC_PUSH(&b->g->r.status, again, gbnf_list(b, B_SEQ, rest.p, rest.n, n.at));
            free(rest.p);
            found = true;
        } else {
            VEC_PUSH(&b->g->r.status, first, v.p[i]);
        }
    }
    if (found && !b->g->r.status) {
        uint32_t parts[2] = {first.n ? gbnf_list(b, B_ALT, first.p, first.n, at)
                                     : gbnf_add(b, B_RX, R_NONE, 0, at),
                             0};
        uint32_t n = 1;
        if (again.n) {
            uint32_t x = gbnf_list(b, B_ALT, again.p, again.n, at);
            parts[n++] = gbnf_add(b, B_REP, x, 0, at);
            if (!b->g->r.status) b->nodes.p[parts[1]].max = RX_INF;
        }
        b->rules.p[k].body = gbnf_list(b, B_SEQ, parts, n, at);
    }
    free(v.p);
    free(again.p);
    free(first.p);
}

/* The rules that x may begin with.  Recursion is the nesting of groups. */
static void left_rules(gbnf *b, uint32_t x, id_list *out)
{
    gbnf_node n = b->nodes.p[x];
    if (n.kind == B_RULE) VEC_PUSH(&b->g->r.status, *out, n.a);
    if (n.kind == B_REP && n.max) left_rules(b, n.a, out);
    for (uint32_t i = 0; (n.kind == B_ALT || n.kind == B_SEQ) && i < n.b; i++) {
        left_rules(b, b->kids.p[n.a + i], out);
        if (n.kind == B_SEQ && !empty_node(b, b->kids.p[n.a + i])) break;
    }
}

typedef struct {
    uint32_t rule, next;
    id_list left;
} search_level;

/* Names the rules from the one that closes the cycle on. */
static void name_cycle(gbnf *b, const search_level *st, uint32_t n, uint32_t closes)
{
    char path[160];
    size_t len = 0;
    uint32_t i = 0;
    while (st[i].rule != closes) i++;
    for (; i < n && len < sizeof path; i++) {
        const gbnf_rule *k = &b->rules.p[st[i].rule];
        len += (size_t)snprintf(path + len, sizeof path - len, "%.*s -> ", (int)k->n, k->name);
    }
    const gbnf_rule *k = &b->rules.p[closes];
    gbnf_fail(b, k->at, "left recursion: %s%.*s", path, (int)k->n, k->name);
}

/* Depth first over "may begin with". */
static int refuse_cycles(gbnf *b)
{
    VEC(search_level) st = {0};
    int *status = &b->g->r.status;
    for (uint32_t i = 0; i < b->rules.n && !*status && !b->why->code; i++) {
        if (b->rules.p[i].visit) continue;
        VEC_PUSH(status, st, (search_level){.rule = i});
        b->rules.p[i].visit = VISITING;
        if (!*status) left_rules(b, b->rules.p[i].body, &st.p[0].left);
        while (st.n && !*status && !b->why->code) {
            search_level *t = &st.p[st.n - 1];
            if (t->next == t->left.n) {
                b->rules.p[t->rule].visit = DONE;
                free(t->left.p);
                st.n--;
                continue;
            }
            uint32_t k = t->left.p[t->next++];
            if (b->rules.p[k].visit == VISITING) name_cycle(b, st.p, st.n, k);
            if (b->rules.p[k].visit) continue;
            b->rules.p[k].visit = VISITING;
            VEC_PUSH(status, st, (search_level){.rule = k});
            if (!*status) left_rules(b, b->rules.p[k].body, &st.p[st.n - 1].left);
        }
    }
    while (st.n) free(st.p[--st.n].left.p);
    free(st.p);
    return b->why->code ? b->why->e.code : *status;
}

/* ---- repetition without the empty text ---- */
static uint32_t filled(gbnf *b, uint32_t x);

static uint32_t filled_rule(gbnf *b, uint32_t k)
{
    if (!b->rules.p[k].nullable) return k;
    if (b->rules.p[k].filled) return b->rules.p[k].filled - 1;
    gbnf_rule twin = b->rules.p[k]; /* its body is made when the list of rules comes to it */
    twin.nullable = false;
    twin.twin = true;
    twin.rule = GRAM_NONE;
    VEC_PUSH(&b->g->r.status, b->rules, twin);
    if (b->g->r.status) return 0;
    return (b->rules.p[k].filled = b->rules.n) - 1;
}

/* The texts of a sequence but the empty one: the first part that is not empty, and the rest. */
static uint32_t filled_sequence(gbnf *b, gbnf_node n)
{
    id_list ways = {0}, parts = {0};
    for (uint32_t i = 0; i < n.b && !b->g->r.status; i++) {
        uint32_t part = b->kids.p[n.a + i];
        bool empty = empty_node(b, part);
        parts.n = 0;
        VEC_PUSH(&b->g->r.status, parts, empty ? filled(b, part) : part);
        for (uint32_t j = i + 1; j < n.b; j++) VEC_PUSH(&b->g->r.status, parts, b->kids.p[n.a + j]);
        if (!b->g->r.status)
            VEC_PUSH(&b->g->r.status, ways, gbnf_list(b, B_SEQ, parts.p, parts.n, n.at));
        if (!empty) break;
    }
    uint32_t x = b->g->r.status ? 0 : gbnf_list(b, B_ALT, ways.p, ways.n, n.at);
    free(ways.p);
    free(parts.p);
    return x;
}

/* The texts of x but the empty one.  Recursion is the nesting of groups. */
static uint32_t filled(gbnf *b, uint32_t x)
{
    gbnf_node n = b->nodes.p[x];
    rx_arena *r = &b->g->r;
    id_list v = {0};
    if (r->status || !empty_node(b, x)) return x;
    switch (n.kind) {
    case B_RX: return gbnf_add(b, B_RX, rx_and2(r, n.a, rx_not(r, R_EPS)), 0, n.at);
    case B_RULE:
        if (b->rules.p[n.a].folded == RX_UNKNOWN)
            return gbnf_add(b, B_RULE, filled_rule(b, n.a), 0, n.at);
        n.a = b->rules.p[n.a].folded;
        return gbnf_add(b, B_RX, rx_and2(r, n.a, rx_not(r, R_EPS)), 0, n.at);
    case B_SEQ: return filled_sequence(b, n);
    case B_ALT:
        for (uint32_t i = 0; i < n.b; i++) VEC_PUSH(&r->status, v, filled(b, b->kids.p[n.a + i]));
        x = r->status ? 0 : gbnf_list(b, B_ALT, v.p, v.n, n.at);
        free(v.p);
        return x;
    default: break;
    }
    if (!n.max) return gbnf_add(b, B_RX, R_NONE, 0, n.at);
    uint32_t kid = filled(b, n.a), k = gbnf_add(b, B_REP, kid, 0, n.at);
    if (r->status) return 0;
    b->nodes.p[k].min = n.min && !empty_node(b, n.a) ? n.min : 1;
    b->nodes.p[k].max = n.max;
    return k;
}

/* ---- folding ---- */

/* x as one expression, if every rule in it is one; else RX_UNKNOWN.  Recursion is the nesting of
 * groups. */
static rx fold(gbnf *b, uint32_t x)
{
    gbnf_node n = b->nodes.p[x];
    rx_arena *r = &b->g->r;
    VEC(rx) v = {0};
    rx e = R_NONE;
    if (n.kind == B_RX) return n.a;
    if (n.kind == B_RULE) return b->rules.p[n.a].folded;
    if (n.kind == B_REP) {
        e = fold(b, n.a);
        return e == RX_UNKNOWN ? e : rx_rep(r, e, n.min, n.max);
    }
    for (uint32_t i = 0; i < n.b && e != RX_UNKNOWN; i++) {
        e = fold(b, b->kids.p[n.a + i]);
        VEC_PUSH(&r->status, v, e);
    }
    if (e != RX_UNKNOWN && !r->status) {
        if (n.kind == B_ALT) e = rx_alt(r, v.p, v.n);
        else
            for (e = R_EPS; v.n;) e = rx_cat(r, v.p[--v.n], e);
    }
    free(v.p);
    return e;
}

static void rules_in(gbnf *b, uint32_t x, id_list *out)
{
    gbnf_node n = b->nodes.p[x];
    if (n.kind == B_RULE) VEC_PUSH(&b->g->r.status, *out, n.a);
    if (n.kind == B_REP) rules_in(b, n.a, out);
    for (uint32_t i = 0; (n.kind == B_ALT || n.kind == B_SEQ) && i < n.b; i++)
        rules_in(b, b->kids.p[n.a + i], out);
}

/* Folds rules behind those they use; a rule on a cycle, or that uses such a rule, stays one. */
static void fold_rules(gbnf *b)
{
    VEC(search_level) st = {0};
    int *status = &b->g->r.status;
    for (uint32_t i = 0; i < b->rules.n; i++) b->rules.p[i].visit = 0;
    for (uint32_t i = 0; i < b->rules.n && !*status; i++) {
        if (b->rules.p[i].visit) continue;
        b->rules.p[i].visit = VISITING;
        VEC_PUSH(status, st, (search_level){.rule = i});
        if (!*status) rules_in(b, b->rules.p[i].body, &st.p[0].left);
        while (st.n && !*status) {
            search_level *t = &st.p[st.n - 1];
            if (t->next < t->left.n) {
                uint32_t k = t->left.p[t->next++];
                if (b->rules.p[k].visit) continue;
                b->rules.p[k].visit = VISITING;
                VEC_PUSH(status, st, (search_level){.rule = k});
                if (!*status) rules_in(b, b->rules.p[k].body, &st.p[st.n - 1].left);
                continue;
            }
            gbnf_rule *k = &b->rules.p[t->rule];
            uint32_t before = b->g->r.nodes.n;
            k->folded = fold(b, k->body); /* rules still being visited count as recursive */
            if (b->g->r.nodes.n - before > FOLD_MAX) k->folded = RX_UNKNOWN;
            k->visit = DONE;
            free(t->left.p);
            st.n--;
        }
    }
    while (st.n) free(st.p[--st.n].left.p);
    free(st.p);
}

/* ---- nodes ---- */
static uint32_t term(gbnf *b, rx e)
{
    return gram_term(b->g, rx_live(&b->g->r, e) ? e : R_NONE);
}

static uint32_t emit(gbnf *b, uint32_t x);

static uint32_t rule_node(gbnf *b, uint32_t k)
{
    if (b->rules.p[k].rule == GRAM_NONE) b->rules.p[k].rule = gram_rule(b->g);
    return b->rules.p[k].rule;
}

/* x{min,max} of something with recursion in it. */
static uint32_t emit_repeat(gbnf *b, gbnf_node n)
{
    gram *g = b->g;
    bool empty = empty_node(b, n.a);
    uint32_t x = emit(b, empty ? filled(b, n.a) : n.a), min = empty ? 0 : n.min, tail;
    if ((n.max == RX_INF ? min : n.max) > GBNF_MAX_COPIES) {
        gbnf_fail(b, n.at, "something recursive is repeated more than %d times", GBNF_MAX_COPIES);
        return 0;
    }
    const uint32_t none = gram_term(g, R_EPS);
    tail = none;
    if (n.max == RX_INF) {
        tail = gram_rule(g);
        const uint32_t parts[2] = {x, tail}, ways[2] = {none, gram_list(g, G_SEQ, parts, 2)};
        uint32_t body = gram_list(g, G_ALT, ways, 2);
        if (!g->r.status) g->rules.p[g->nodes.p[tail].a] = body;
    }
    for (uint32_t i = min; n.max != RX_INF && i < n.max && !g->r.status; i++) {
        const uint32_t parts[2] = {x, tail}, ways[2] = {none, gram_list(g, G_SEQ, parts, 2)};
        tail = gram_list(g, G_ALT, ways, 2);
    }
    for (uint32_t i = 0; i < min && !g->r.status; i++) {
        const uint32_t parts[2] = {x, tail};
        tail = gram_list(g, G_SEQ, parts, 2);
    }
    return tail;
}

/* Kids of a list; those that are plain expressions and stand side by side become one. */
static uint32_t emit_list(gbnf *b, gbnf_node n)
{
    gram *g = b->g;
    rx_arena *r = &g->r;
    bool alt = n.kind == B_ALT;
    id_list out = {0};
    rx run = alt ? R_NONE : R_EPS;
    for (uint32_t i = 0; i < n.b && !r->status && !b->why->code; i++) {
        uint32_t kid = b->kids.p[n.a + i];
        rx e = fold(b, kid);
        if (e != RX_UNKNOWN) {
            run = alt ? rx_alt2(r, run, e) : rx_cat(r, run, e);
            continue;
        }
        if (!alt && run != R_EPS) VEC_PUSH(&r->status, out, term(b, run));
        if (!alt) run = R_EPS;
        VEC_PUSH(&r->status, out, emit(b, kid));
    }
    if (alt ? run != R_NONE : run != R_EPS) VEC_PUSH(&r->status, out, term(b, run));
    uint32_t x = r->status ? 0 : gram_list(g, alt ? G_ALT : G_SEQ, out.p, out.n);
    free(out.p);
    return x;
}

/* Recursion is the nesting of groups. */
static uint32_t emit(gbnf *b, uint32_t x)
{
    gbnf_node n = b->nodes.p[x];
    rx e = fold(b, x);
    if (b->g->r.status || b->why->code) return 0;
    if (e != RX_UNKNOWN) return term(b, e);
    if (n.kind == B_RULE) return rule_node(b, n.a);
    return n.kind == B_REP ? emit_repeat(b, n) : emit_list(b, n);
}

static int compile(gbnf *b, uint32_t *root)
{
    gram *g = b->g;
    int rc = gbnf_parse(b);
    if (rc || g->r.status) return rc;
    find_nullable(b);
    for (uint32_t i = 0; i < b->rules.n && !g->r.status; i++) unroll(b, i);
    if (!g->r.status) find_nullable(b);
    rc = g->r.status ? 0 : refuse_cycles(b);
    if (rc || g->r.status) return rc;
    fold_rules(b);
    if (!g->r.status)
        *root = b->rules.p[0].folded != RX_UNKNOWN ? emit(b, b->rules.p[0].body) : rule_node(b, 0);
    /* Rules of non-empty texts are added while others are made. */
    for (uint32_t i = 0; i < b->rules.n && !g->r.status && !b->why->code; i++) {
        if (b->rules.p[i].folded != RX_UNKNOWN) continue;
        bool twin = b->rules.p[i].twin;
        uint32_t rule = rule_node(b, i), body = b->rules.p[i].body;
        uint32_t node = g->r.status ? 0 : emit(b, twin ? filled(b, body) : body);
        if (!g->r.status) g->rules.p[g->nodes.p[rule].a] = node;
    }
    return b->why->code ? b->why->e.code : 0;
}

int gbnf_compile(gram *g, const grammar_spec *s, grammar_error *why, uint32_t *root)
{
    gbnf b = {.g = g, .spec = s, .why = why};
    int rc = compile(&b, root);
    free(b.nodes.p);
    free(b.kids.p);
    free(b.rules.p);
    free(b.index.slot);
    return rc;
}
