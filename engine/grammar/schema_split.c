/* schema_split.c - choices: anyOf, oneOf, if, not and dependencies as alternatives over the rest of
 * the set.  A negation is the ways to fail one keyword, so it ends at types, names, counts,
 * scalars, and one item or member that is not as it should be. Owns nothing.  Refuses negations
 * that are not expressible, and too many branches. Thread: one compile, one thread. */
#include "engine/grammar/schema.h"

enum {
    MAX_NOT_ONE_OF = 8,
    MAX_ALL = 100 * SCHEMA_MAX_BRANCHES,
    MAX_TRIED = 16 * SCHEMA_MAX_BRANCHES /* of what is only tried */
};

/* The number of branches beyond which it is too much. */
static uint32_t most_branches(const schema_compiler *c)
{
    uint32_t most = c->tried_from + MAX_TRIED;
    return c->attempts && most < MAX_ALL ? most : MAX_ALL;
}

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
    uint32_t made = c->memo.n, queued = c->queue.n, depth = c->depth, outer = c->tried_from;
    if (!c->attempts++) c->tried_from = c->branches;
    *node = with(c, set, i, add, n_add);
    c->attempts--;
    c->tried_from = outer;
    if (!c->rc) return true;
    c->rc = 0;
    c->depth = depth;
    c->queue.n = queued;
    for (uint32_t k = made; k < c->memo.n; k++) c->memo.p[k].n = GRAM_NONE;
    return false;
}

/* Types that values of a node may have; all where finding out takes more than a look. */
static uint32_t types_of(const gram *g, uint32_t node, int depth)
{
    const gnode x = g->nodes.p[node];
    uint32_t types = 0;
    switch (x.kind) {
    case G_TERM: return x.a == R_NONE ? 0 : T_NULL | T_BOOL | T_NUMBER | T_STRING;
    case G_OBJ: return T_OBJECT;
    case G_ARR: return T_ARRAY;
    case G_ALT:
        for (uint32_t i = 0; i < x.b && depth; i++)
            types |= types_of(g, g->kids.p[x.a + i], depth - 1);
        return depth ? types : T_ALL;
    default: return T_ALL;
    }
}

/* The branches of a oneOf beside the rest of a set. */
typedef struct {
    schema_compiler *c;
    const member_set *set;
    uint32_t i; /* the oneOf */
    const json *list;
    const uint32_t *nodes; /* [n] of each branch */
    uint32_t n;
    uint8_t *common; /* [n x n] types that two of them have values of in common; UNKNOWN */
} one_of;
enum { TYPES_DEPTH = 4, UNKNOWN = 255 };

static uint32_t common_types(one_of *o, uint32_t a, const json *x, uint32_t b, const json *y)
{
    gram *g = o->c->g;
    const member both[2] = {{M_FULL, 0, x, NULL}, {M_FULL, 0, y, NULL}};
    uint8_t *known = &o->common[a * o->n + b];
    uint32_t node, types = types_of(g, o->nodes[a], TYPES_DEPTH);
    types &= types_of(g, o->nodes[b], TYPES_DEPTH);
    if (*known != UNKNOWN) return *known;
    if (types && attempt(o->c, o->set, o->i, both, 2, &node))
        types &= types_of(g, node, TYPES_DEPTH);
    *known = o->common[b * o->n + a] = (uint8_t)types;
    return types;
}

/* Values of branch a (x) that no other has: of types in which none overlaps, it as it is; of the
 * others, it with those negated that overlap.  How many nodes, at most 2. */
static uint32_t only_branch(one_of *o, uint32_t a, const json *x, uint32_t out[2])
{
    schema_compiler *c = o->c;
    gram *g = c->g;
    member_set v = {0};
    uint32_t b = 0, other = 0, n = 0, types = 0, node;
    VEC_PUSH(&g->r.status, v, (member){M_FULL, 0, x, NULL});
    VEC_PUSH(&g->r.status, v, (member){M_TYPES, 0, x, NULL});
    for (const json *y = o->list->child; y && !g->r.status; y = y->next, b++) {
        if (a == b || gram_never(g, o->nodes[b])) continue;
        uint32_t common = common_types(o, a, x, b, y);
        if (!common) continue;
        VEC_PUSH(&g->r.status, v, (member){M_NOT, 0, y, NULL});
        types |= common;
        other = b;
    }
    if (g->r.status || !types) {
        out[n++] = o->nodes[a];
    } else {
        v.p[1].name = schema_type_set + types;
        bool ok = attempt(c, o->set, o->i, v.p, v.n, &node);
        if (ok && !gram_never(g, node)) out[n++] = node;
        v.p[1].name = schema_type_set + (T_ALL & ~types);
        ok = ok && attempt(c, o->set, o->i, v.p, 2, &node);
        if (ok && !gram_never(g, node)) out[n++] = node;
        if (!ok && !g->r.status)
            schema_refuse(c, "unsupported_schema", o->set->p[o->i].s, "oneOf",
                          "branches %u and %u are not provably disjoint", a < other ? a : other,
                          a < other ? other : a);
    }
    free(v.p);
    return n;
}

/* Exactly one branch. */
static uint32_t split_one_of(schema_compiler *c, const member_set *set, uint32_t i,
                             const json *list, const uint32_t *nodes)
{
    gram *g = c->g;
    VEC(uint32_t) out = {0};
    uint32_t a = 0, n = (uint32_t)list->len, two[2];
    one_of o = {c, set, i, list, nodes, n, malloc((size_t)n * n)};
    if (o.common) memset(o.common, UNKNOWN, (size_t)n * n);
    else g->r.status = ERR_NOMEM;
    for (const json *x = list->child; x && !c->rc && !g->r.status; x = x->next, a++) {
        uint32_t k = gram_never(g, nodes[a]) ? 0 : only_branch(&o, a, x, two);
        for (uint32_t j = 0; j < k; j++) VEC_PUSH(&g->r.status, out, two[j]);
    }
    uint32_t node = c->rc || g->r.status ? 0 : gram_list(g, G_ALT, out.p, out.n);
    free(o.common);
    free(out.p);
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
    if (list->len > 2000 || c->branches > most_branches(c))
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
    if (++c->branches > most_branches(c))
        schema_refuse(c, "schema_too_complex", v[0].s, "not", "too many branches");
    uint32_t node = c->rc ? 0 : with(c, a->set, a->i, v, n);
    if (!c->rc && !c->g->r.status && !gram_never(c->g, node))
        VEC_PUSH(&c->g->r.status, a->out, node);
}

static bool one_of_words(const char *key, const char *const *words)
{
    for (; *words; words++)
        if (**words == *key && !strcmp(key, *words)) return true;
    return false;
}

/* Only the plain form: some item satisfies k. */
static void negate_contains(alternatives *a, const json *s, const json *k)
{
    bool counts = a->c->draft >= 2019 && (json_get(s, "minContains") || json_get(s, "maxContains"));
    if (counts)
        schema_refuse(a->c, "unsupported_schema", s, "contains",
                      "with minContains or maxContains not supported inside a negation");
    alternative(a, &(member){M_NO_ITEM, 0, k, NULL}, 1);
}

/* None of the branches holds, or two of them do. */
static void negate_one_of(alternatives *a, const json *list)
{
    member_set v = {0};
    if (list->len > MAX_NOT_ONE_OF)
        schema_refuse(a->c, "unsupported_schema", list, "oneOf",
                      "more than %d branches inside a negation", MAX_NOT_ONE_OF);
    for (const json *x = list->child; x; x = x->next)
        VEC_PUSH(&a->c->g->r.status, v, (member){M_NOT, 0, x, NULL});
    if (v.n) alternative(a, v.p, v.n);
    for (const json *x = list->child; x; x = x->next)
        for (const json *y = x->next; y; y = y->next) {
            const member both[2] = {{M_FULL, 0, x, NULL}, {M_FULL, 0, y, NULL}};
            alternative(a, both, 2);
        }
    free(v.p);
}

static void negate_if(alternatives *a, const json *s, const json *cond)
{
    const json *yes = json_get(s, "then"), *no = json_get(s, "else");
    const member one[2] = {{M_FULL, 0, cond, NULL}, {M_NOT, 0, yes, NULL}};
    const member other[2] = {{M_NOT, 0, cond, NULL}, {M_NOT, 0, no, NULL}};
    if (yes) alternative(a, one, 2);
    if (no) alternative(a, other, 2);
}

static bool is_dependency(const schema_compiler *c, const json *k)
{
    return c->draft <= 7
               ? schema_key_is(k, "dependencies")
               : schema_key_is(k, "dependentRequired") || schema_key_is(k, "dependentSchemas");
}

/* Property d is there, and something it asks for is not. */
static void negate_dependency(alternatives *a, const json *s, const json *d)
{
    member v[3] = {{M_OBJECT, 0, s, NULL}, {M_REQUIRE, 0, s, d}, {M_NOT, 0, d, NULL}};
    if (d->type != JSON_ARRAY) alternative(a, v, 3);
    for (const json *k = d->type == JSON_ARRAY ? d->child : NULL; k; k = k->next) {
        v[2] = (member){M_FORBID, 0, s, k};
        if (k->type != JSON_STRING)
            schema_refuse(a->c, "invalid_schema", s, "dependencies", "not a list of names");
        alternative(a, v, 3);
    }
}

/* The ways to fail one keyword k of s.  format fails for nobody here: to some readers of the answer
 * it is an annotation. */
static void negate_keyword(alternatives *a, const json *s, const json *k)
{
    static const char *const refused[] = {"unevaluatedItems", "unevaluatedProperties",
                                          "$dynamicRef", "$recursiveRef", NULL};
    static const char *const lists[] = {"allOf", "anyOf", "oneOf", "required", "properties", NULL};
    static const char *const counts[] = {"minItems", "maxItems", "minProperties", "maxProperties",
                                         NULL};
    static const char *const items[] = {"items", "prefixItems", "additionalItems", NULL};
    schema_compiler *c = a->c;
    bool list = k->type == JSON_ARRAY;
    bool names = c->draft >= 6 && schema_key_is(k, "propertyNames");
    if (schema_key_is(k, "$ref")) {
        const json *to = schema_resolve(c, s, k);
        if (!c->rc) alternative(a, &(member){M_NOT, 0, to, NULL}, 1);
    } else if (schema_key_is(k, "not")) {
        alternative(a, &(member){M_FULL, 0, k, NULL}, 1);
    } else if (schema_key_is(k, "allOf") && list) {
        for (const json *x = k->child; x; x = x->next)
            alternative(a, &(member){M_NOT, 0, x, NULL}, 1);
    } else if (schema_key_is(k, "anyOf") && list) {
        member_set v = {0};
        for (const json *x = k->child; x; x = x->next)
            VEC_PUSH(&c->g->r.status, v, (member){M_NOT, 0, x, NULL});
        if (v.n) alternative(a, v.p, v.n);
        free(v.p);
    } else if (schema_key_is(k, "required") && list) {
        for (const json *x = k->child; x && !c->rc; x = x->next) {
            const member v[2] = {{M_OBJECT, 0, s, NULL}, {M_FORBID, 0, s, x}};
            if (x->type != JSON_STRING)
                schema_refuse(c, "invalid_schema", s, "required", "not a list of strings");
            alternative(a, v, 2);
        }
    } else if (schema_key_is(k, "properties") && k->type == JSON_OBJECT) {
        for (const json *x = k->child; x; x = x->next) {
            const member v[2] = {{M_OBJECT, 0, s, NULL}, {M_PROP_NOT, 0, x, x}};
            alternative(a, v, 2);
        }
    } else if (schema_key_is(k, "type")) {
        alternative(a, &(member){M_NOT_TYPE, 0, s, NULL}, 1);
    } else if (schema_key_is(k, "enum") || (schema_key_is(k, "const") && c->draft >= 6)) {
        alternative(a, &(member){M_NOT_ENUM, 0, s, k}, 1);
    } else if (one_of_words(k->key, counts)) {
        int64_t zero;
        if (k->key[1] == 'a' || !json_int(k, &zero) || zero)
            alternative(a, &(member){M_NOT_COUNT, 0, s, k}, 1);
    } else if (one_of_words(k->key, items)) {
        alternative(a, &(member){M_NOT_ITEM, 0, s, k}, 1);
    } else if (schema_key_is(k, "additionalProperties") || names) {
        if (k->type != JSON_TRUE) alternative(a, &(member){M_SOME_KEY, 0, s, k}, 1);
    } else if (schema_key_is(k, "patternProperties") && k->type == JSON_OBJECT) {
        for (const json *x = k->child; x; x = x->next)
            alternative(a, &(member){M_SOME_KEY, 0, s, x}, 1);
    } else if (schema_key_is(k, "contains") && c->draft >= 6) {
        negate_contains(a, s, k);
    } else if (schema_key_is(k, "oneOf") && list) {
        negate_one_of(a, k);
    } else if (schema_key_is(k, "if") && c->draft >= 7) {
        negate_if(a, s, k);
    } else if (is_dependency(c, k)) {
        for (const json *d = k->type == JSON_OBJECT ? k->child : NULL; d; d = d->next)
            negate_dependency(a, s, d);
    } else if (schema_key_is(k, "uniqueItems")
                   ? k->type == JSON_TRUE
                   : one_of_words(k->key, refused) || one_of_words(k->key, lists)) {
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
