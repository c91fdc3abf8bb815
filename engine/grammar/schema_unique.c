/* schema_unique.c - uniqueItems, where the items are one of a few given values: an array then keeps
 * the set of those it has had.
 * Owns nothing.  Refuses nothing itself: false where the values are not known.  Thread: the
 * compiler's. */
#include "engine/grammar/ecma.h"
#include "engine/grammar/schema.h"

enum { MAX_VALUES = 64, MAX_REFS = 16 };

typedef struct {
    const json *v[2 * MAX_VALUES]; /* [n] as listed */
    uint32_t id[2 * MAX_VALUES];   /* equal for 1 and 1.0 */
    uint32_t n, n_ids;
} value_list;

static const json literals[3] = {{.type = JSON_TRUE}, {.type = JSON_FALSE}, {.type = JSON_NULL}};

static bool same(const json *a, const json *b)
{
    decimal x, y;
    if (a->type != b->type) return false;
    if (a->type == JSON_STRING) return a->len == b->len && !memcmp(a->str, b->str, a->len);
    if (a->type != JSON_NUMBER) return true;
    return !decimal_parse(a->str, &x) || !decimal_parse(b->str, &y) || !decimal_cmp(&x, &y);
}

/* False: too many, or an array or object. */
static bool add_value(value_list *l, const json *x)
{
    if (x->type == JSON_ARRAY || x->type == JSON_OBJECT) return false;
    uint32_t i = 0;
    while (i < l->n && !same(l->v[i], x)) i++;
    if (l->n == 2 * MAX_VALUES || (i == l->n && l->n_ids == MAX_VALUES)) return false;
    l->id[l->n] = i < l->n ? l->id[i] : l->n_ids++;
    l->v[l->n++] = x;
    return true;
}

/* The values of one schema, if it names them. */
static bool values_of(schema_compiler *c, const json *s, value_list *l)
{
    const json *ref, *list, *one, *type;
    for (int i = 0; i < MAX_REFS && (ref = json_get(s, "$ref")) && !c->rc; i++)
        s = schema_resolve(c, s, ref);
    if (c->rc || !s) return false;
    list = json_get(s, "enum");
    one = c->draft >= 6 ? json_get(s, "const") : NULL;
    type = json_get(s, "type");
    l->n = l->n_ids = 0;
    if (one) return add_value(l, one);
    bool named =
        json_is(type, JSON_STRING) && (!strcmp(type->str, "boolean") || !strcmp(type->str, "null"));
    for (size_t i = 0; named && !list && i < 3; i++) add_value(l, &literals[i]);
    for (const json *x = json_is(list, JSON_ARRAY) ? list->child : NULL; x; x = x->next)
        if (!add_value(l, x)) return false;
    return l->n > 0;
}

bool schema_unique(schema_compiler *c, const member *v, uint32_t n, uint32_t item, garray *out)
{
    gram *g = c->g;
    rx_arena *r = &g->r;
    value_list l = {.n = 0};
    bool known = false;
    for (uint32_t i = 0; i < n && !known && !c->rc; i++)
        known = v[i].kind == M_FULL && values_of(c, v[i].s, &l);
    if (!known || c->rc || g->nodes.p[item].kind != G_TERM) return false;
    rx all = g->nodes.p[item].a, covered = R_NONE, value[MAX_VALUES] = {R_NONE};
    uint32_t node[MAX_VALUES], k = 0;
    for (uint32_t i = 0; i < l.n && !r->status && !c->rc; i++)
        value[l.id[i]] = rx_alt2(r, value[l.id[i]], schema_constant(c, l.v[i]));
    for (uint32_t i = 0; i < l.n_ids && !r->status && !c->rc; i++) {
        rx e = rx_and2(r, all, value[i]);
        covered = rx_alt2(r, covered, e);
        if (rx_live(r, e)) node[k++] = gram_term(g, e);
    }
    if (c->rc || r->status || rx_live(r, rx_and2(r, all, rx_not(r, covered)))) return false;
    out->values = g->kids.n;
    out->n_values = k;
    for (uint32_t i = 0; i < k; i++) VEC_PUSH(&r->status, g->kids, node[i]);
    out->item = k ? node[0] : GRAM_NONE;
    if (out->max > k) out->max = k;
    return true;
}
