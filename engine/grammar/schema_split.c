/* schema_split.c - choices: anyOf, oneOf, if, not and dependencies as alternatives over the rest of
 * the set.  A negation is the ways to fail one keyword, so it ends at types, names and scalars.
 * Owns nothing.  Refuses negations that are not expressible, and too many branches.
 * Thread: one compile, one thread. */
#include "engine/grammar/schema.h"

/* The set with others in the place of one member. */
static uint32_t with(schema_compiler *c, const member_set *set, uint32_t place, const member *add,
                     uint32_t n_add)
{
    member_set v = {0};
    uint32_t node = 0;
    for (uint32_t i = 0; i < set->n; i++) {
        if (i != place) VEC_PUSH(&c->g->r.status, v, set->p[i]);
        for (uint32_t k = 0; i == place && k < n_add; k++) VEC_PUSH(&c->g->r.status, v, add[k]);
    }
    if (!c->g->r.status) node = schema_node(c, v.p, v.n);
    free(v.p);
    return node;
}

static uint32_t split_dependency(schema_compiler *c, const member_set *set, uint32_t i)
{
    const json *s = set->p[i].s, *d = set->p[i].name;
    uint32_t out[2];
    member_set must = {0};
    const member absent = {M_FORBID, 0, s, d};
    out[0] = with(c, set, i, &absent, 1);
    VEC_PUSH(&c->g->r.status, must, (member){M_REQUIRE, 0, s, d});
    if (d->type != JSON_ARRAY) VEC_PUSH(&c->g->r.status, must, (member){M_FULL, 0, d, NULL});
    for (const json *k = d->type == JSON_ARRAY ? d->child : NULL; k && !c->rc; k = k->next) {
        if (k->type != JSON_STRING)
            schema_refuse(c, "invalid_schema", s,
                          c->draft <= 7 ? "dependencies" : "dependentRequired",
                          "not a list of names");
        VEC_PUSH(&c->g->r.status, must, (member){M_REQUIRE, 0, s, k});
    }
    out[1] = c->rc || c->g->r.status ? 0 : with(c, set, i, must.p, must.n);
    free(must.p);
    if (c->rc || c->g->r.status) return 0;
    uint32_t n = 0;
    for (int k = 0; k < 2; k++)
        if (!gram_never(c->g, out[k])) out[n++] = out[k];
    return gram_list(c->g, G_ALT, out, n);
}

/* Like `with`, but what cannot be compiled is no error: false, and nothing is left half made. */
static bool attempt(schema_compiler *c, const member_set *set, uint32_t i, const member *add,
                    uint32_t n_add, uint32_t *node)
{
    uint32_t made = c->memo.n, queued = c->queue.n, depth = c->depth;
    c->attempts++;
    *node = with(c, set, i, add, n_add);
    c->attempts--;
    if (!c->rc) return true;
    c->rc = 0;
    c->depth = depth;
    c->queue.n = queued;
    for (uint32_t k = made; k < c->memo.n; k++) c->memo.p[k].n = GRAM_NONE;
    return false;
}

/* Exactly one branch: each of those that others overlap is compiled with the others negated. */
static uint32_t split_one_of(schema_compiler *c, const member_set *set, uint32_t i,
                             const json *list, const uint32_t *nodes)
{
    gram *g = c->g;
    const json *s = set->p[i].s;
    VEC(uint32_t) out = {0};
    member_set v = {0};
    uint32_t a = 0, b, node, n = (uint32_t)list->len;
    uint8_t *known = calloc((size_t)n, n); /* 0 not known, 1 disjoint, 2 perhaps not */
    if (!known) g->r.status = ERR_NOMEM;
    for (const json *x = list->child; x && !c->rc && !g->r.status; x = x->next, a++) {
        uint32_t other = 0;
        v.n = b = 0;
        if (gram_never(g, nodes[a])) continue;
        VEC_PUSH(&g->r.status, v, (member){M_FULL, 0, x, NULL});
        for (const json *y = list->child; y && !g->r.status; y = y->next, b++) {
            if (a == b || gram_never(g, nodes[b])) continue;
            const member both[2] = {{M_FULL, 0, x, NULL}, {M_FULL, 0, y, NULL}};
            if (!known[a * n + b]) {
                bool apart = attempt(c, set, i, both, 2, &node) && gram_never(g, node);
                known[a * n + b] = known[b * n + a] = apart ? 1 : 2;
            }
            if (known[a * n + b] == 1) continue;
            VEC_PUSH(&g->r.status, v, (member){M_NOT, 0, y, NULL});
            other = b;
        }
        node = nodes[a];
        if (v.n > 1 && !g->r.status && !attempt(c, set, i, v.p, v.n, &node))
            schema_refuse(c, "unsupported_schema", s, "oneOf",
                          "branches %u and %u are not provably disjoint", a < other ? a : other,
                          a < other ? other : a);
        if (!c->rc && !gram_never(g, node)) VEC_PUSH(&g->r.status, out, node);
    }
    node = c->rc || g->r.status ? 0 : gram_list(g, G_ALT, out.p, out.n);
    free(known);
    free(out.p);
    free(v.p);
    return node;
}

static uint32_t split_choice(schema_compiler *c, const member_set *set, uint32_t i)
{
    bool one = set->p[i].kind == M_ONE_OF;
    const char *key = one ? "oneOf" : "anyOf";
    const json *s = set->p[i].s, *list = json_get(s, key);
    VEC(uint32_t) nodes = {0};
    uint32_t node = 0, m = 0;
    if (list->type != JSON_ARRAY || !list->child) {
        schema_refuse(c, "invalid_schema", s, key, "not a list of schemas");
        return 0;
    }
    if (list->len > 2000 || c->branches > 100 * SCHEMA_MAX_BRANCHES)
        schema_refuse(c, "schema_too_complex", s, key, "too many branches");
    for (const json *k = list->child; k && !c->rc && !c->g->r.status; k = k->next) {
        const member add = {M_FULL, 0, k, NULL};
        c->branches++;
        VEC_PUSH(&c->g->r.status, nodes, with(c, set, i, &add, 1));
    }
    if (!c->rc && !c->g->r.status && one && list->len > 1) {
        node = split_one_of(c, set, i, list, nodes.p);
    } else if (!c->rc && !c->g->r.status) {
        for (uint32_t k = 0; k < nodes.n; k++)
            if (!gram_never(c->g, nodes.p[k])) nodes.p[m++] = nodes.p[k];
        node = gram_list(c->g, G_ALT, nodes.p, m);
    }
    free(nodes.p);
    return node;
}

/* ---- if and not ---- */
static uint32_t split_if(schema_compiler *c, const member_set *set, uint32_t i)
{
    const json *s = set->p[i].s, *cond = json_get(s, "if"), *yes = json_get(s, "then"),
               *no = json_get(s, "else");
    const member then[2] = {{M_FULL, 0, cond, NULL}, {M_FULL, 0, yes, NULL}};
    const member other[2] = {{M_NOT, 0, cond, NULL}, {M_FULL, 0, no, NULL}};
    uint32_t out[2], n = 0;
    if (!yes && !no) return with(c, set, i, NULL, 0);
    out[0] = with(c, set, i, then, yes ? 2 : 1);
    out[1] = c->rc || c->g->r.status ? 0 : with(c, set, i, other, no ? 2 : 1);
    if (c->rc || c->g->r.status) return 0;
    for (int k = 0; k < 2; k++)
        if (!gram_never(c->g, out[k])) out[n++] = out[k];
    return gram_list(c->g, G_ALT, out, n);
}

typedef struct {
    schema_compiler *c;
    const member_set *set;
    uint32_t i;
    VEC(uint32_t) out;
} alternatives;

static void alternative(alternatives *a, const member *v, uint32_t n)
{
    schema_compiler *c = a->c;
    if (c->rc || c->g->r.status) return;
    if (++c->branches > 100 * SCHEMA_MAX_BRANCHES)
        schema_refuse(c, "schema_too_complex", v[0].s, "not", "too many branches");
    uint32_t node = c->rc ? 0 : with(c, a->set, a->i, v, n);
    if (!c->rc && !c->g->r.status && !gram_never(c->g, node))
        VEC_PUSH(&c->g->r.status, a->out, node);
}

static bool one_of_words(const char *key, const char *const *words)
{
    for (; *words; words++)
        if (!strcmp(key, *words)) return true;
    return false;
}

/* The ways to fail one keyword k of s. */
static void negate_keyword(alternatives *a, const json *s, const json *k)
{
    static const char *const refused[] = {"oneOf",
                                          "items",
                                          "prefixItems",
                                          "additionalItems",
                                          "minItems",
                                          "maxItems",
                                          "contains",
                                          "uniqueItems",
                                          "patternProperties",
                                          "additionalProperties",
                                          "propertyNames",
                                          "minProperties",
                                          "maxProperties",
                                          "dependencies",
                                          "dependentRequired",
                                          "dependentSchemas",
                                          "unevaluatedItems",
                                          "unevaluatedProperties",
                                          "if",
                                          "format",
                                          "$dynamicRef",
                                          "$recursiveRef",
                                          NULL};
    schema_compiler *c = a->c;
    bool list = k->type == JSON_ARRAY;
    if (!strcmp(k->key, "$ref")) {
        const json *to = schema_resolve(c, s, k);
        if (!c->rc) alternative(a, &(member){M_NOT, 0, to, NULL}, 1);
    } else if (!strcmp(k->key, "not")) {
        alternative(a, &(member){M_FULL, 0, k, NULL}, 1);
    } else if (!strcmp(k->key, "allOf") && list) {
        for (const json *x = k->child; x; x = x->next)
            alternative(a, &(member){M_NOT, 0, x, NULL}, 1);
    } else if (!strcmp(k->key, "anyOf") && list) {
        member_set v = {0};
        for (const json *x = k->child; x; x = x->next)
            VEC_PUSH(&c->g->r.status, v, (member){M_NOT, 0, x, NULL});
        if (v.n) alternative(a, v.p, v.n);
        free(v.p);
    } else if (!strcmp(k->key, "required") && list) {
        for (const json *x = k->child; x && !c->rc; x = x->next) {
            const member v[2] = {{M_OBJECT, 0, s, NULL}, {M_FORBID, 0, s, x}};
            if (x->type != JSON_STRING)
                schema_refuse(c, "invalid_schema", s, "required", "not a list of strings");
            alternative(a, v, 2);
        }
    } else if (!strcmp(k->key, "properties") && k->type == JSON_OBJECT) {
        for (const json *x = k->child; x; x = x->next) {
            const member v[2] = {{M_OBJECT, 0, s, NULL}, {M_PROP_NOT, 0, x, x}};
            alternative(a, v, 2);
        }
    } else if (!strcmp(k->key, "type")) {
        alternative(a, &(member){M_NOT_TYPE, 0, s, NULL}, 1);
    } else if (!strcmp(k->key, "enum") || (!strcmp(k->key, "const") && c->draft >= 6)) {
        alternative(a, &(member){M_NOT_ENUM, 0, s, k}, 1);
    } else if (one_of_words(k->key, refused) || !strcmp(k->key, "allOf") ||
               !strcmp(k->key, "anyOf") || !strcmp(k->key, "required") ||
               !strcmp(k->key, "properties")) {
        schema_refuse(c, "unsupported_schema", s, k->key, "not supported inside a negation");
    }
}

/* The complement of a schema: the ways to fail one of its keywords. */
static uint32_t split_not(schema_compiler *c, const member_set *set, uint32_t i)
{
    static const char *const strings[] = {"pattern", "minLength", "maxLength", NULL};
    static const char *const numbers[] = {"minimum",          "maximum",    "exclusiveMinimum",
                                          "exclusiveMaximum", "multipleOf", NULL};
    const json *s = set->p[i].s, *ref = json_get(s, "$ref");
    alternatives a = {.c = c, .set = set, .i = i};
    bool string = false, number = false;
    if (s->type == JSON_TRUE) return gram_term(c->g, R_NONE);
    if (s->type == JSON_FALSE) return with(c, set, i, NULL, 0);
    if (s->type != JSON_OBJECT) {
        schema_refuse(c, "invalid_schema", s, "not", "a schema is an object or a boolean");
        return 0;
    }
    for (const json *k = s->child; k && !c->rc && !c->g->r.status; k = k->next) {
        if (ref && c->draft <= 7 && k != ref) continue;
        string |= one_of_words(k->key, strings);
        number |= one_of_words(k->key, numbers);
        negate_keyword(&a, s, k);
    }
    if (string) alternative(&a, &(member){M_NOT_STRING, 0, s, NULL}, 1);
    if (number) alternative(&a, &(member){M_NOT_NUMBER, 0, s, NULL}, 1);
    uint32_t node = c->rc || c->g->r.status ? 0 : gram_list(c->g, G_ALT, a.out.p, a.out.n);
    free(a.out.p);
    return node;
}

uint32_t schema_split(schema_compiler *c, const member_set *set, uint32_t i)
{
    switch (set->p[i].kind) {
    case M_DEPEND: return split_dependency(c, set, i);
    case M_IF: return split_if(c, set, i);
    case M_NOT: return split_not(c, set, i);
    default: return split_choice(c, set, i);
    }
}
