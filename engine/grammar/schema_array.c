/* schema_array.c - a set of schemas as arrays: the set of every item, how many, and demands on how
 * many of them are of a kind (contains, or a negation of items).
 * Owns nothing.  Refuses many such demands, and uniqueItems of what is not known value by value.
 * Thread: the compiler's. */
#include "engine/grammar/schema.h"

/* How many items must be what m says. */
typedef struct {
    const member *m;
    uint32_t least, most;
} demand;

/* Draft by draft: the list of a schema's first items and the schema of the others. */
static void item_keywords(schema_compiler *c, const json *s, const json **list, const json **rest)
{
    const json *items = json_get(s, "items");
    *list = c->draft >= 2020 ? json_get(s, "prefixItems") : NULL;
    *rest = items;
    if (items && items->type == JSON_ARRAY) {
        *list = items;
        *rest = json_get(s, "additionalItems");
    }
    if (*list && (*list)->type != JSON_ARRAY) {
        schema_refuse(c, "invalid_schema", s, "prefixItems", "not an array");
        *list = NULL;
    }
}

/* What s says of item k; with `only` (a keyword of s) what that keyword says of it. */
static const json *item_schema(schema_compiler *c, const json *s, size_t k, const json *only)
{
    const json *list, *rest;
    item_keywords(c, s, &list, &rest);
    bool listed = list && k < list->len;
    if (only && only != (listed ? list : rest)) return NULL;
    return listed ? json_at(list, k) : rest;
}

/* All of them; how many. */
static uint32_t find_demands(schema_compiler *c, const member *v, uint32_t n,
                             demand d[GRAM_DEMANDS])
{
    uint32_t k = 0;
    for (uint32_t i = 0; i < n && !c->rc; i++) {
        const json *s = v[i].s;
        demand x = {&v[i], 1, GRAM_INF};
        bool contains = v[i].kind == M_BASE && c->draft >= 6 && json_get(s, "contains");
        if (!contains && v[i].kind != M_NOT_ITEM) continue;
        if (contains && c->draft >= 2019) {
            if (json_get(s, "minContains"))
                x.least = schema_count(c, &v[i], 1, "minContains", false);
            x.most = schema_count(c, &v[i], 1, "maxContains", true);
        }
        if (!x.least && x.most == GRAM_INF) continue;
        if (k < GRAM_DEMANDS) d[k++] = x;
        else
            schema_refuse(c, "unsupported_schema", s, contains ? "contains" : v[i].name->key,
                          "more than %d demands on what is among the items", GRAM_DEMANDS);
    }
    for (uint32_t i = 0; i < k && k > 1 && !c->rc; i++)
        if (d[i].least > GRAM_FEW || d[i].most != GRAM_INF)
            schema_refuse(c, "unsupported_schema", d[i].m->s, "contains",
                          "with a bound, beside another demand on what is among the items");
    return k;
}

/* What makes item k count for d, or not count, as one more member of its set; false if it cannot
 * count. */
static bool counted(schema_compiler *c, const demand *d, size_t k, bool hit, member *out)
{
    bool negated = d->m->kind == M_NOT_ITEM;
    const json *s =
        negated ? item_schema(c, d->m->s, k, d->m->name) : json_get(d->m->s, "contains");
    *out = (member){hit == negated ? M_NOT : M_FULL, 0, s, NULL};
    return s != NULL;
}

/* What every item k satisfies. */
static void item_set(schema_compiler *c, const member *v, uint32_t n, size_t k, member_set *set)
{
    int *status = &c->g->r.status;
    set->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        const json *s = v[i].kind == M_BASE ? item_schema(c, v[i].s, k, NULL) : NULL;
        if (s) VEC_PUSH(status, *set, (member){M_FULL, 0, s, NULL});
        if (v[i].kind == M_NO_ITEM) VEC_PUSH(status, *set, (member){M_NOT, 0, v[i].s, NULL});
    }
}

static uint32_t item_node(schema_compiler *c, const member_set *set)
{
    return set->n ? schema_child(c, set->p, set->n) : c->any;
}

/* The nodes of item k for every set of the demands d[n].  Where no number of counted items is too
 * many, any item may pass for one that is not. */
static void item_nodes(schema_compiler *c, const demand *d, uint32_t n, size_t k, member_set *set,
                       uint32_t node[1 << GRAM_DEMANDS])
{
    gram *g = c->g;
    uint32_t base = set->n;
    for (uint32_t m = 0; m < 1u << n && !c->rc && !g->r.status; m++) {
        bool ok = true;
        for (uint32_t i = 0; i < n && ok; i++) {
            bool hit = m >> i & 1, its;
            member more;
            if (!hit && d[i].most == GRAM_INF) continue;
            its = counted(c, &d[i], k, hit, &more);
            ok = !hit || (its && d[i].most);
            if (ok && its) VEC_PUSH(&g->r.status, *set, more);
        }
        node[m] = !ok ? g->never : c->rc || g->r.status ? 0 : item_node(c, set);
        set->n = base;
    }
}

static void append(gram *g, const uint32_t *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) VEC_PUSH(&g->r.status, g->kids, v[i]);
}

uint32_t schema_array(schema_compiler *c, const member *v, uint32_t n)
{
    gram *g = c->g;
    rx_arena *r = &g->r;
    member_set set = {0};
    VEC(uint32_t) nodes = {0}, hits = {0};
    garray x = {.min = schema_count(c, v, n, "minItems", false),
                .max = schema_count(c, v, n, "maxItems", true)};
    const json *list, *rest, *unique = NULL;
    size_t longest = 0;
    demand d[GRAM_DEMANDS];
    for (uint32_t i = 0; i < n; i++) {
        if (v[i].kind != M_BASE && v[i].kind != M_NOT_ITEM) continue;
        if (v[i].kind == M_BASE && json_is(json_get(v[i].s, "uniqueItems"), JSON_TRUE))
            unique = v[i].s;
        item_keywords(c, v[i].s, &list, &rest);
        if (list && list->len > longest) longest = list->len;
    }
    x.demands = find_demands(c, v, n, d);
    for (size_t k = 0; k <= longest && !c->rc && !r->status; k++) {
        uint32_t node[1 << GRAM_DEMANDS];
        bool never = true;
        item_set(c, v, n, k, &set);
        item_nodes(c, d, x.demands, k, &set, node);
        if (c->rc || r->status) break;
        for (uint32_t m = 0; m < 1u << x.demands; m++) never &= gram_never(g, node[m]);
        if (k < longest && never && x.max > k) x.max = (uint32_t)k;
        if (k < longest) VEC_PUSH(&r->status, nodes, node[0]);
        else x.item = never ? GRAM_NONE : node[0];
        for (uint32_t m = 1; m < 1u << x.demands; m++) VEC_PUSH(&r->status, hits, node[m]);
        size_t most = x.item == GRAM_NONE && x.max > longest ? longest : x.max;
        if (k == longest && unique && most > 1 &&
            (longest || x.demands || !schema_unique(c, set.p, set.n, node[0], &x)))
            schema_refuse(c, "unsupported_schema", unique, "uniqueItems",
                          "only for items that are one of at most 64 given scalars, or beside "
                          "maxItems of at most 1");
    }
    x.first = g->kids.n;
    x.n = nodes.n;
    append(g, nodes.p, nodes.n);
    x.hits = g->kids.n;
    append(g, hits.p, hits.n);
    for (uint32_t i = 0; i < x.demands; i++) {
        x.demand[i].least = d[i].least;
        x.demand[i].most = d[i].most;
    }
    free(set.p);
    free(nodes.p);
    free(hits.p);
    if (c->rc || r->status) return 0;
    if (x.item == GRAM_NONE && x.max > x.n) x.max = x.n;
    if (x.min > x.max || (x.demands && !gram_reaches(g, &x, NULL, 0, 0)))
        return gram_term(g, R_NONE);
    VEC_PUSH(&r->status, g->arrays, x);
    return gram_node(g, G_ARR, g->arrays.n - 1, 0);
}
