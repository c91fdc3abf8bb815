/* schema_emit.c - a set of schemas without choices to nodes: scalars as one expression, objects and
 * arrays with the set of every child.
 * Owns nothing.  Refuses what cannot be enforced exactly, by name.  Thread: the compiler's. */
#include "engine/grammar/schema.h"

/* One name of an object under construction. */
typedef struct {
    const char *s;
    uint32_t n;
    bool required;
    uint64_t before, after; /* of each other, if by_lists */
} name;

typedef struct {
    const json *where; /* the patternProperties member */
    rx e;
} pattern;

typedef struct {
    schema_compiler *c;
    const member *v; /* [n] the set */
    uint32_t n;
    VEC(name) names;
    id_table index;      /* of names */
    VEC(uint32_t) lists; /* the names of every `properties`, each ended by GRAM_NONE */
    bool by_lists;       /* they leave open which of some names comes first */
    VEC(pattern) patterns;
    VEC(gprop) props;
    VEC(gprop) extra;
    rx keys;            /* what propertyNames allows */
    const member *some; /* SOME_KEY, NULL: there is none */
    rx some_keys;       /* what its propertyNames allows */
    bool xml;
} object_plan;

static void index_names(id_table *t, const void *owner)
{
    const object_plan *o = owner;
    for (uint32_t i = 0; i < o->names.n; i++)
        id_table_put(t, hash_bytes(o->names.p[i].s, o->names.p[i].n), i + 1);
}

/* The name's place; 0 without memory. */
static uint32_t add_name(object_plan *o, const char *s, size_t n, bool required)
{
    int *status = &o->c->g->r.status;
    if (!id_table_room(&o->index, index_names, o, status)) return 0;
    uint32_t cap = o->index.cap, j = hash_bytes(s, (uint32_t)n) & (cap - 1);
    for (; o->index.slot[j]; j = (j + 1) & (cap - 1)) {
        name *k = &o->names.p[o->index.slot[j] - 1];
        if (k->n == n && !memcmp(k->s, s, n)) {
            k->required |= required;
            return o->index.slot[j] - 1;
        }
    }
    VEC_PUSH(status, o->names, (name){.s = s, .n = (uint32_t)n, .required = required});
    if (*status) return 0;
    id_table_set(&o->index, j, o->names.n);
    return o->names.n - 1;
}

static const json *object_of(schema_compiler *c, const json *s, const char *key)
{
    const json *x = json_get(s, key);
    if (x && x->type != JSON_OBJECT) {
        schema_refuse(c, "invalid_schema", s, key, "not an object");
        return NULL;
    }
    return x;
}

/* The names and patterns of one schema. */
static void collect_keys(object_plan *o, const json *s)
{
    schema_compiler *c = o->c;
    const json *p = object_of(c, s, "properties"), *q;
    for (q = p ? p->child : NULL; q; q = q->next) {
        uint32_t place = add_name(o, q->key, q->n_key, false);
        VEC_PUSH(&c->g->r.status, o->lists, place);
    }
    VEC_PUSH(&c->g->r.status, o->lists, GRAM_NONE);
    p = object_of(c, s, "patternProperties");
    for (q = p ? p->child : NULL; q && !c->rc; q = q->next) {
        pattern x = {q, schema_pattern(c, s, "patternProperties", q->key, q->n_key)};
        VEC_PUSH(&c->g->r.status, o->patterns, x);
    }
}

/* All names that properties and required mention, and all patterns. */
static void collect(object_plan *o)
{
    schema_compiler *c = o->c;
    for (uint32_t i = 0; i < o->n && !c->rc; i++)
        if (o->v[i].kind == M_BASE) collect_keys(o, o->v[i].s);
    for (uint32_t i = 0; i < o->n && !c->rc; i++) {
        if (o->v[i].kind != M_SOME_KEY) continue;
        if (o->some)
            schema_refuse(c, "unsupported_schema", o->v[i].s, "not",
                          "a second negation of what properties are like");
        o->some = &o->v[i];
        collect_keys(o, o->v[i].s);
    }
    /* Names that only a condition speaks of stand behind those that `properties` orders. */
    for (uint32_t i = 0; i < o->n && !c->rc; i++) {
        bool needed = o->v[i].kind == M_REQUIRE || o->v[i].kind == M_PROP_NOT;
        const char *k;
        size_t k_len;
        if (!needed && o->v[i].kind != M_FORBID) continue;
        schema_name(&o->v[i], &k, &k_len);
        add_name(o, k, k_len, needed);
    }
    for (uint32_t i = 0; i < o->n && !c->rc; i++) {
        const json *req = o->v[i].kind == M_BASE ? json_get(o->v[i].s, "required") : NULL;
        if (!req || (json_is_bool(req) && c->draft <= 4)) continue;
        if (req->type != JSON_ARRAY)
            schema_refuse(c, "invalid_schema", o->v[i].s, "required", "not an array");
        for (const json *q = req->child; q && !c->rc; q = q->next) {
            if (q->type != JSON_STRING)
                schema_refuse(c, "invalid_schema", o->v[i].s, "required", "not a list of strings");
            else add_name(o, q->str, q->len, true);
        }
    }
    if (o->names.n >= GRAM_MAX_THREADS)
        schema_refuse(c, "schema_too_complex", o->v[0].s, "properties",
                      "%u names at one place, fewer than %d are allowed", o->names.n,
                      GRAM_MAX_THREADS);
    if (o->patterns.n > SCHEMA_MAX_PATTERNS)
        schema_refuse(c, "unsupported_schema", o->v[0].s, "patternProperties",
                      "more than %d patterns at one place", SCHEMA_MAX_PATTERNS);
}

/* Where several lists meet, names come in the order of every list; of two that contradict each
 * other the first counts. */
static void order_names(object_plan *o)
{
    uint32_t n = o->names.n, last = GRAM_NONE;
    uint64_t before[GRAM_FREE_NAMES] = {0}, listed = 0;
    if (o->xml || o->c->g->free_order || n + (o->some != NULL) > GRAM_FREE_NAMES) return;
    for (uint32_t i = 0; i < o->lists.n; i++) {
        uint32_t x = last, y = o->lists.p[i];
        last = y;
        if (y == GRAM_NONE) continue;
        listed |= 1ull << y;
        if (x == GRAM_NONE || x == y || before[x] >> y & 1) continue;
        uint64_t more = before[x] | 1ull << x;
        for (uint32_t z = 0; z < n; z++)
            if (z == y || before[z] >> y & 1) before[z] |= more;
    }
    for (uint32_t i = 0; i < n; i++) {
        o->names.p[i].before = before[i];
        for (uint32_t k = 0; k < n; k++) o->names.p[i].after |= (before[k] >> i & 1ull) << k;
        uint64_t apart = listed & ~(o->names.p[i].before | o->names.p[i].after | 1ull << i);
        bool later = i + 1 < n && before[i] >> (i + 1); /* than one that was mentioned behind it */
        o->by_lists |= later || (listed >> i & 1 && apart);
    }
}

/* What the value of a key must satisfy: per schema its property and patterns, else additional.
 * matches: bit per pattern.  False if a schema forbids the key outright. */
static bool child_set(object_plan *o, const name *k, uint32_t matches, member_set *out)
{
    rx_arena *r = &o->c->g->r;
    out->n = 0;
    for (uint32_t i = 0; i < o->n; i++) {
        const json *s = o->v[i].s, *props, *pats, *p, *add;
        bool met = false;
        if (k && o->v[i].kind == M_PROP_NOT && s->n_key == k->n && !memcmp(s->key, k->s, k->n))
            VEC_PUSH(&r->status, *out, (member){M_NOT, 0, s, NULL});
        if (o->v[i].kind != M_BASE) continue;
        props = json_get(s, "properties");
        pats = json_get(s, "patternProperties");
        p = k && props ? json_get_n(props, k->s, k->n) : NULL;
        if (p) VEC_PUSH(&r->status, *out, (member){M_FULL, 0, p, NULL});
        met = p;
        for (uint32_t x = 0; x < o->patterns.n; x++) {
            const json *q = o->patterns.p[x].where;
            if (!(matches >> x & 1) || !pats || json_get_n(pats, q->key, q->n_key) != q) continue;
            VEC_PUSH(&r->status, *out, (member){M_FULL, 0, q, NULL});
            met = true;
        }
        add = met ? NULL : json_get(s, "additionalProperties");
        if (add && add->type == JSON_FALSE) return false;
        if (add) VEC_PUSH(&r->status, *out, (member){M_FULL, 0, add, NULL});
    }
    return true;
}

void schema_name(const member *m, const char **s, size_t *n)
{
    const json *x = m->name;
    bool text = x->type == JSON_STRING && !x->key && m->kind != M_PROP_NOT;
    *s = text ? x->str : x->key;
    *n = text ? x->len : x->n_key;
}

/* The node of those values of a key that are what the object needs; 0: none is.  set: what all its
 * values satisfy, for the time of the call with one more. */
static uint32_t hit_value(object_plan *o, const name *k, uint32_t matches, member_set *set)
{
    schema_compiler *c = o->c;
    const json *s = o->some->s, *what = o->some->name, *props = json_get(s, "properties");
    bool by_pattern = what != json_get(s, "additionalProperties"), met = false, its = !by_pattern;
    if (what == json_get(s, "propertyNames")) return 0; /* the key decides */
    if (!by_pattern && k && props && json_get_n(props, k->s, k->n)) return 0;
    for (uint32_t x = 0; x < o->patterns.n; x++) {
        const json *q = o->patterns.p[x].where;
        if (!(matches >> x & 1)) continue;
        met |= json_get_n(json_get(s, "patternProperties"), q->key, q->n_key) == q;
        its |= by_pattern && q == what;
    }
    if (!its || (!by_pattern && met)) return 0;
    VEC_PUSH(&c->g->r.status, *set, (member){M_NOT, 0, what, NULL});
    uint32_t node = c->g->r.status ? 0 : schema_child(c, set->p, set->n);
    set->n--;
    return c->rc || c->g->r.status || gram_never(c->g, node) ? 0 : node;
}

static bool forbidden(const object_plan *o, const name *k)
{
    for (uint32_t i = 0; i < o->n; i++) {
        const char *s;
        size_t n;
        if (o->v[i].kind != M_FORBID) continue;
        schema_name(&o->v[i], &s, &n);
        if (n == k->n && !memcmp(s, k->s, n)) return true;
    }
    return false;
}

/* A name as it is written, and the colon. */
static rx key_text(schema_compiler *c, const json *where, const name *k)
{
    uint32_t slot = (uint32_t)(hash_bytes(k->s, k->n) & 255);
    if (c->keys[slot].s && c->keys[slot].n == k->n && !memcmp(c->keys[slot].s, k->s, k->n))
        return c->keys[slot].e;
    rx e = schema_text_then(c, where, k->s, k->n, c->g->colon);
    if (!c->rc && !c->g->r.status) {
        c->keys[slot].s = k->s;
        c->keys[slot].n = k->n;
        c->keys[slot].e = e;
    }
    return e;
}

/* The literal a key is written as, matched against an expression over quoted texts. */
static bool key_matches(schema_compiler *c, rx e, rx literal)
{
    return rx_live(&c->g->r, rx_and2(&c->g->r, e, literal));
}

/* The named properties; false if the object cannot exist. */
static bool named(object_plan *o)
{
    schema_compiler *c = o->c;
    rx_arena *r = &c->g->r;
    member_set set = {0};
    bool possible = true;
    for (uint32_t i = 0; i < o->names.n && possible && !c->rc && !r->status; i++) {
        const name *k = &o->names.p[i];
        uint32_t matches = 0, value = c->any;
        bool judged = o->patterns.n || o->keys != R_ALL || o->some_keys != R_ALL ||
                      (c->guard != R_ALL && !o->xml);
        rx text = judged ? schema_text(c, o->v[0].s, k->s, k->n) : R_NONE;
        rx key = o->xml ? schema_xml_key(c, k->s, k->n) : key_text(c, o->v[0].s, k);
        for (uint32_t x = 0; x < o->patterns.n; x++)
            matches |= (uint32_t)key_matches(c, o->patterns.p[x].e, text) << x;
        bool ok = !forbidden(o, k) && child_set(o, k, matches, &set) &&
                  (o->keys == R_ALL || key_matches(c, o->keys, text)) && key != R_NONE &&
                  (o->xml || c->guard == R_ALL || key_matches(c, c->guard, text));
        if (ok && o->xml) value = schema_xml_value(c, k->s, k->n, set.p, set.n);
        else if (ok && set.n) value = schema_child(c, set.p, set.n);
        if (c->rc || r->status) break;
        ok = ok && !gram_never(c->g, value);
        possible = ok || !k->required;
        gprop p = {.key = ok ? key : R_NONE, .value = value, .required = k->required};
        if (o->by_lists) {
            p.before = k->before;
            p.after = k->after;
        }
        if (ok && o->some) p.hit = hit_value(o, k, matches, &set);
        if (ok && o->some_keys != R_ALL && !key_matches(c, o->some_keys, text)) p.hit = value;
        VEC_PUSH(&r->status, o->props, p);
    }
    free(set.p);
    return possible;
}

/* Other parameters are strings; which patterns their names match is not looked into. */
static void unnamed_xml(object_plan *o)
{
    schema_compiler *c = o->c;
    rx_arena *r = &c->g->r;
    member_set set = {0};
    VEC(rx) keys = {0};
    for (uint32_t i = 0; i < o->props.n; i++)
        VEC_PUSH(&r->status, keys, schema_xml_key(c, o->names.p[i].s, o->names.p[i].n));
    if (!o->patterns.n && o->keys == R_ALL && child_set(o, NULL, 0, &set) && !r->status) {
        rx key = schema_xml_other_key(c, keys.p, keys.n);
        uint32_t value = schema_xml_value(c, NULL, 0, set.p, set.n);
        if (!c->rc && !r->status && !gram_never(c->g, value))
            VEC_PUSH(&r->status, o->extra, (gprop){.key = key, .value = value});
    }
    free(keys.p);
    free(set.p);
}

/* Keys that are none of the names. */
static rx other_names(object_plan *o)
{
    rx_arena *r = &o->c->g->r;
    VEC(rx_text) texts = {0};
    VEC(rx) odd = {0};
    rx quote = rx_byte(r, '"');
    for (uint32_t i = 0; i < o->names.n; i++) {
        const name *k = &o->names.p[i];
        if (schema_plain(k->s, k->n)) VEC_PUSH(&r->status, texts, (rx_text){k->s, k->n});
        else VEC_PUSH(&r->status, odd, schema_text(o->c, o->v[0].s, k->s, k->n));
    }
    rx e = rx_cat3(r, quote, rx_texts(r, texts.p, texts.n), quote);
    e = rx_alt2(r, e, rx_alt(r, odd.p, odd.n));
    free(texts.p);
    free(odd.p);
    const rx all[4] = {o->c->g->plain_string, rx_not(r, e), o->keys, o->c->guard};
    return rx_and(r, all, 4);
}

/* Keys without a name here: one expression for every way to match the patterns. */
static void unnamed(object_plan *o)
{
    schema_compiler *c = o->c;
    rx_arena *r = &c->g->r;
    member_set set = {0};
    rx base = R_NONE;
    bool plain = !o->patterns.n && o->keys == R_ALL && c->guard == R_ALL;
    for (uint32_t m = 0; m < 1u << o->patterns.n && !c->rc && !r->status; m++) {
        rx key;
        uint32_t value = c->any;
        if (!child_set(o, NULL, m, &set)) continue;
        if (base == R_NONE) base = other_names(o);
        key = base;
        for (uint32_t x = 0; x < o->patterns.n; x++)
            key = rx_and2(r, key, m >> x & 1 ? o->patterns.p[x].e : rx_not(r, o->patterns.p[x].e));
        /* What only a finite number of names is taken from is never empty. */
        if (plain) r->nodes.p[key].live = 1;
        if (key == R_NONE || !rx_live(r, key)) continue;
        if (set.n) value = schema_child(c, set.p, set.n);
        if (c->rc || r->status || gram_never(c->g, value)) continue;
        gprop p = {.key = rx_cat(r, key, c->g->colon), .value = value};
        if (o->some) p.hit = hit_value(o, NULL, m, &set);
        VEC_PUSH(&r->status, o->extra, p);
        if (o->some_keys == R_ALL) continue;
        key = rx_and2(r, key, rx_not(r, o->some_keys));
        p = (gprop){.key = rx_cat(r, key, c->g->colon), .value = value, .hit = value};
        if (rx_live(r, key)) VEC_PUSH(&r->status, o->extra, p);
    }
    free(set.p);
}

/* The strings that propertyNames of `where` allows. */
static rx names_of(schema_compiler *c, const json *where, const json *names)
{
    rx_arena *r = &c->g->r;
    member m = {M_FULL, 0, names, NULL};
    uint32_t node = schema_node(c, &m, 1);
    if (c->rc || r->status) return R_NONE;
    gnode x = c->g->nodes.p[node];
    rx e = R_NONE;
    bool ok = x.kind == G_TERM || x.kind == G_ALT;
    if (node == c->any) ok = true, e = c->g->plain_string;
    else if (x.kind == G_TERM) e = x.a;
    for (uint32_t k = 0; x.kind == G_ALT && k < x.b; k++) {
        gnode y = c->g->nodes.p[c->g->kids.p[x.a + k]];
        if (y.kind == G_TERM) e = rx_alt2(r, e, y.a);
        else if (y.kind != G_OBJ && y.kind != G_ARR) ok = false;
    }
    if (!ok)
        schema_refuse(c, "unsupported_schema", where, "propertyNames",
                      "only a plain schema of strings");
    return e;
}

static void key_names(object_plan *o)
{
    schema_compiler *c = o->c;
    o->keys = o->some_keys = R_ALL;
    for (uint32_t i = 0; i < o->n && !c->rc; i++) {
        const json *s = o->v[i].s, *names = json_get(s, "propertyNames");
        if (!names || c->draft < 6) continue;
        if (o->v[i].kind == M_BASE) o->keys = rx_and2(&c->g->r, o->keys, names_of(c, s, names));
        if (&o->v[i] == o->some && names == o->some->name) o->some_keys = names_of(c, s, names);
    }
}

/* Whether some member may be what the object needs; *cost: members it takes besides the required
 * ones. */
static bool can_hit(const object_plan *o, uint32_t *cost)
{
    *cost = o->some ? GRAM_INF : 0;
    for (uint32_t i = 0; i < o->props.n; i++) {
        const gprop *p = &o->props.p[i];
        if (p->hit && p->key != R_NONE && *cost > !p->required) *cost = !p->required;
    }
    for (uint32_t i = 0; i < o->extra.n; i++)
        if (o->extra.p[i].hit && *cost > 1) *cost = 1;
    return *cost != GRAM_INF;
}

static uint32_t object(schema_compiler *c, const member *v, uint32_t n)
{
    gram *g = c->g;
    rx_arena *r = &g->r;
    object_plan o = {.c = c, .v = v, .n = n, .xml = c->xml && !c->level};
    uint32_t node = 0;
    gobject x = {.min = schema_count(c, v, n, "minProperties", false),
                 .max = schema_count(c, v, n, "maxProperties", true)};
    collect(&o);
    if (o.some && o.xml)
        schema_refuse(c, "unsupported_schema", o.some->s, "not",
                      "not supported inside a negation of a call's arguments");
    if (!c->rc) key_names(&o);
    if (!c->rc) order_names(&o);
    bool possible = !c->rc && named(&o);
    if (possible && !c->rc && o.xml) unnamed_xml(&o);
    else if (possible && !c->rc) unnamed(&o);
    if (!c->rc && !r->status) {
        x.first = g->props.n;
        x.n = o.props.n;
        x.needs = o.some;
        x.any_order = o.by_lists || (g->free_order && x.n + x.needs <= GRAM_FREE_NAMES);
        x.by_lists = o.by_lists;
        x.xml = o.xml;
        for (uint32_t i = 0; i < o.props.n; i++) VEC_PUSH(&r->status, g->props, o.props.p[i]);
        x.extra = g->props.n;
        x.n_extra = o.extra.n;
        for (uint32_t i = 0; i < o.extra.n; i++) VEC_PUSH(&r->status, g->props, o.extra.p[i]);
        VEC_PUSH(&r->status, g->objects, x);
        uint32_t must;
        possible = possible && can_hit(&o, &must);
        for (uint32_t i = 0; possible && i < o.props.n; i++) must += o.props.p[i].required;
        possible = possible && must <= x.max && x.min <= x.max && (o.extra.n || x.min <= o.props.n);
        node = possible ? gram_node(g, G_OBJ, g->objects.n - 1, 0) : gram_term(g, R_NONE);
    }
    free(o.names.p);
    free(o.index.slot);
    free(o.lists.p);
    free(o.patterns.p);
    free(o.props.p);
    free(o.extra.p);
    return node;
}

/* Keywords that are refused, but only where the type they speak of is still possible. */
static void refuse_unsupported(schema_compiler *c, const member *v, uint32_t n, uint32_t types)
{
    static const struct {
        const char *key, *words;
        uint32_t types;
        int since;
    } refused[] = {
        {"unevaluatedItems", "not supported", T_ARRAY, 2019},
        {"unevaluatedProperties", "not supported", T_OBJECT, 2019},
        {"$dynamicRef", "not supported", T_ALL, 2020},
        {"$recursiveRef", "not supported", T_ALL, 2019},
    };
    for (uint32_t i = 0; i < n && !c->rc; i++) {
        const json *s = v[i].s;
        if (v[i].kind != M_BASE) continue;
        for (size_t k = 0; k < sizeof refused / sizeof *refused; k++)
            if ((refused[k].types & types) && c->draft >= refused[k].since &&
                json_get(s, refused[k].key))
                schema_refuse(c, "unsupported_schema", s, refused[k].key, "%s", refused[k].words);
    }
}

/* Whether the set speaks of these keywords, or holds members of the kinds in the mask. */
static bool constrains(const member *v, uint32_t n, const char *const *keys, uint32_t kinds)
{
    for (uint32_t i = 0; i < n; i++) {
        if (kinds >> v[i].kind & 1) return true;
        for (int k = 0; v[i].kind == M_BASE && keys[k]; k++)
            if (json_get(v[i].s, keys[k])) return true;
    }
    return false;
}

/* The arrays and objects of the first enum or const that satisfy the rest of the set. */
static rx good_containers(schema_compiler *c, const member *v, uint32_t n)
{
    rx_arena *r = &c->g->r;
    rx e = R_NONE;
    for (uint32_t i = 0; i < n; i++) {
        const json *list = v[i].kind == M_BASE ? json_get(v[i].s, "enum") : NULL, *one;
        one = v[i].kind == M_BASE && !list && c->draft >= 6 ? json_get(v[i].s, "const") : NULL;
        if (!list && !one) continue;
        for (const json *x = one ? one : list->child; x && !c->rc && !r->status;
             x = one ? NULL : x->next)
            if ((x->type == JSON_ARRAY || x->type == JSON_OBJECT) && schema_holds(c, v, n, x))
                e = rx_alt2(r, e, schema_constant(c, x));
        return e;
    }
    return e;
}

/* The enumerated values that also satisfy the rest of the set. */
static uint32_t enumerated(schema_compiler *c, const member *v, uint32_t n, rx values,
                           uint32_t types, bool integer)
{
    static const char *const containers[] = {"properties",
                                             "required",
                                             "additionalProperties",
                                             "patternProperties",
                                             "minProperties",
                                             "maxProperties",
                                             "propertyNames",
                                             "items",
                                             "prefixItems",
                                             "additionalItems",
                                             "minItems",
                                             "maxItems",
                                             "contains",
                                             NULL};
    static const char *const scalar[] = {
        "minLength", "maxLength",        "pattern",          "format",     "minimum",
        "maximum",   "exclusiveMinimum", "exclusiveMaximum", "multipleOf", NULL};
    rx_arena *r = &c->g->r;
    rx open = rx_alt2(r, rx_cat(r, rx_byte(r, '{'), R_ALL), rx_cat(r, rx_byte(r, '['), R_ALL));
    const uint32_t kinds = 1u << M_FORBID | 1u << M_REQUIRE | 1u << M_PROP_NOT | 1u << M_NOT_COUNT |
                           1u << M_NOT_ITEM | 1u << M_NO_ITEM | 1u << M_SOME_KEY;
    if ((types & (T_ARRAY | T_OBJECT)) && constrains(v, n, containers, kinds) &&
        rx_live(r, rx_and2(r, values, open)))
        values = rx_and2(r, values, rx_alt2(r, rx_not(r, open), good_containers(c, v, n)));
    if (constrains(v, n, scalar, 1u << M_NOT_STRING | 1u << M_NOT_NUMBER | 1u << M_NOT_TYPE)) {
        rx ok = rx_alt2(r, open, rx_alt2(r, rx_str(r, "null"), rx_str(r, "true")));
        ok = rx_alt2(r, ok, rx_str(r, "false"));
        if (types & T_NUMBER) ok = rx_alt2(r, ok, schema_number(c, v, n, integer));
        if (types & T_STRING) ok = rx_alt2(r, ok, schema_string(c, v, n));
        values = rx_and2(r, values, ok);
    }
    if (!c->rc && !rx_live(r, values)) values = R_NONE;
    return gram_term(c->g, values);
}

uint32_t schema_emit(schema_compiler *c, const member *v, uint32_t n)
{
    gram *g = c->g;
    rx_arena *r = &g->r;
    bool integer, given = false;
    uint32_t types = schema_types(c, v, n, &integer), k = 0, out[3];
    if (c->form.level && c->form.level == c->level) {
        types &= c->form.types;
        if (c->form.raw) return gram_term(g, schema_raw(c, v, n));
    }
    if (!c->rc) refuse_unsupported(c, v, n, types);
    rx values = c->rc ? R_NONE : schema_enum(c, v, n, types, integer, &given);
    if (given && c->xml && !c->level)
        schema_refuse(c, "unsupported_schema", v[0].s, "enum", "whole arguments of a call");
    if (c->rc || r->status) return 0;
    given = given && (!c->any_value || c->level);
    if (given) values = schema_not_enum(c, v, n, types, values);
    if (given) return enumerated(c, v, n, values, types, integer);
    rx w[4] = {R_NONE, R_NONE, R_NONE, R_NONE};
    if (types & T_NULL) w[0] = rx_str(r, "null");
    if (types & T_BOOL) w[1] = rx_alt2(r, rx_str(r, "true"), rx_str(r, "false"));
    if (types & T_NUMBER) w[2] = schema_number(c, v, n, integer);
    if (types & T_STRING) w[3] = schema_string(c, v, n);
    for (int i = 2; i < 4; i++)
        if (!c->rc && w[i] != R_NONE && !rx_live(r, w[i])) w[i] = R_NONE;
    rx e = schema_not_enum(c, v, n, types, rx_alt(r, w, 4));
    if (!c->rc && e != R_NONE && !rx_live(r, e)) e = R_NONE;
    if (e != R_NONE) out[k++] = gram_term(g, e);
    if (!c->rc && types & T_OBJECT) out[k++] = object(c, v, n);
    if (!c->rc && types & T_ARRAY) out[k++] = schema_array(c, v, n);
    if (c->rc || r->status) return 0;
    uint32_t m = 0;
    for (uint32_t i = 0; i < k; i++)
        if (!gram_never(g, out[i])) out[m++] = out[i];
    return gram_list(g, G_ALT, out, m);
}
