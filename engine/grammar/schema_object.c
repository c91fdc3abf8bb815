/* schema_object.c - a set of schemas as objects: the names and patterns they speak of, the set of
 * every value, the order of names, and demands on what some member is like.
 * Owns nothing.  Refuses what cannot be enforced exactly, by name.  Thread: the compiler's. */
#include "engine/grammar/schema.h"

#include "base/map.h"

/* One name of an object under construction. */
typedef struct {
    const char *s;
    uint64_t hash; /* map_hash of s[n] */
    uint32_t n;
    bool required;
    uint32_t from;          /* the first member of the set that lists it, GRAM_NONE: none does, */
    const json *prop;       /* and its schema there */
    uint64_t before, after; /* of each other, if by_lists */
} name;

typedef struct {
    const json *where; /* the patternProperties member */
    rx e;
} pattern;

/* What a BASE member of the set says of values by their keys; of others nothing. */
typedef struct {
    const json *props, *patterns, *others;
} key_words;

typedef struct {
    schema_compiler *c;
    const member *v; /* [n] the set */
    uint32_t n;
    VEC(key_words) words; /* [n] */
    VEC(name) names;
    id_table index;      /* of names */
    VEC(uint32_t) lists; /* the names of every `properties`, each ended by GRAM_NONE */
    bool by_lists;       /* they leave open which of some names comes first */
    VEC(pattern) patterns;
    VEC(gprop) props;
    VEC(gprop) extra;
    rx keys;                          /* what propertyNames allows */
    const member *some[GRAM_DEMANDS]; /* [n_some] SOME_KEY members */
    uint32_t n_some;
    rx some_keys; /* what propertyNames of one of them allows */
    bool xml;
} object_plan;

static void index_names(id_table *t, const void *owner)
{
    const object_plan *o = owner;
    for (uint32_t i = 0; i < o->names.n; i++) id_table_put(t, o->names.p[i].hash, i + 1);
}

/* The name's place; 0 without memory. */
static uint32_t add_name(object_plan *o, const char *s, size_t n, bool required)
{
    const uint64_t hash = map_hash(s, n);
    int *status = &o->c->g->r.status;
    if (!id_table_room(&o->index, index_names, o, status)) return 0;
    uint32_t cap = o->index.cap, j = (uint32_t)hash & (cap - 1);
    for (; o->index.slot[j]; j = (j + 1) & (cap - 1)) {
        name *k = &o->names.p[o->index.slot[j] - 1];
        if (k->hash == hash && k->n == n && !memcmp(k->s, s, n)) {
            k->required |= required;
            return o->index.slot[j] - 1;
        }
    }
    VEC_PUSH(
        status, o->names,
        (name){.s = s, .hash = hash, .n = (uint32_t)n, .required = required, .from = GRAM_NONE});
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

/* The names and patterns of the schema of member i. */
static void collect_keys(object_plan *o, uint32_t i)
{
    schema_compiler *c = o->c;
    const json *s = o->v[i].s;
    const json *p = object_of(c, s, "properties"), *q;
    for (q = p ? p->child : NULL; q; q = q->next) {
        uint32_t place = add_name(o, q->key, q->n_key, false);
        VEC_PUSH(&c->g->r.status, o->lists, place);
        if (c->g->r.status) break;
        name *k = &o->names.p[place];
        if (k->from == GRAM_NONE) k->from = i, k->prop = q;
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
    for (uint32_t i = 0; i < o->n && !c->rc; i++) {
        const json *s = o->v[i].kind == M_BASE ? o->v[i].s : NULL;
        VEC_PUSH(&c->g->r.status, o->words,
                 (key_words){json_get(s, "properties"), json_get(s, "patternProperties"),
                             json_get(s, "additionalProperties")});
        if (s) collect_keys(o, i);
    }
    for (uint32_t i = 0; i < o->n && !c->rc; i++) {
        if (o->v[i].kind != M_SOME_KEY) continue;
        collect_keys(o, i);
        if (o->n_some < GRAM_DEMANDS) o->some[o->n_some++] = &o->v[i];
        else
            schema_refuse(c, "unsupported_schema", o->v[i].s, "not",
                          "more than %d demands on what members are like", GRAM_DEMANDS);
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

/* How many names the set of those seen has room for. */
static uint32_t max_names(const object_plan *o)
{
    return o->n_some ? GRAM_FREE_NAMES - GRAM_DEMANDS : GRAM_FREE_NAMES;
}

/* Where several lists meet, names come in the order of every list; of two that contradict each
 * other the first counts. */
static void order_names(object_plan *o)
{
    uint32_t n = o->names.n, last = GRAM_NONE;
    uint64_t before[GRAM_FREE_NAMES] = {0}, listed = 0, early = 0; /* early: before some name */
    if (o->xml || o->c->g->free_order || n > max_names(o)) return;
    for (uint32_t i = 0; i < o->lists.n; i++) {
        uint32_t x = last, y = o->lists.p[i];
        last = y;
        if (y == GRAM_NONE) continue;
        listed |= 1ull << y;
        if (x == GRAM_NONE || x == y || before[x] >> y & 1) continue;
        uint64_t more = before[x] | 1ull << x;
        for (uint32_t z = 0; early >> y & 1 && z < n; z++)
            if (before[z] >> y & 1) before[z] |= more;
        before[y] |= more;
        early |= more;
    }
    for (uint32_t i = 0; i < n; i++) {
        o->names.p[i].before = before[i];
        for (uint64_t b = before[i]; b; b &= b - 1)
            o->names.p[__builtin_ctzll(b)].after |= 1ull << i;
    }
    for (uint32_t i = 0; i < n; i++) {
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
    if (o->words.n < o->n) return false; /* there was no memory */
    for (uint32_t i = 0; i < o->n; i++) {
        const json *s = o->v[i].s, *p, *add;
        const key_words *w = &o->words.p[i];
        if (k && o->v[i].kind == M_PROP_NOT && s->n_key == k->n && !memcmp(s->key, k->s, k->n))
            VEC_PUSH(&r->status, *out, (member){M_NOT, 0, s, NULL});
        if (o->v[i].kind != M_BASE) continue;
        p = !k || !w->props ? NULL : k->from == i ? k->prop : json_get_n(w->props, k->s, k->n);
        if (p) VEC_PUSH(&r->status, *out, (member){M_FULL, 0, p, NULL});
        bool met = p;
        for (uint32_t x = 0; x < o->patterns.n; x++) {
            const json *q = o->patterns.p[x].where;
            if (!(matches >> x & 1) || json_get_n(w->patterns, q->key, q->n_key) != q) continue;
            VEC_PUSH(&r->status, *out, (member){M_FULL, 0, q, NULL});
            met = true;
        }
        add = met ? NULL : w->others;
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

/* Whether a value of key k may be what demand d wants.  *what: if it then fails this schema; NULL:
 * whatever it is.  breaks: k is none of some_keys. */
static bool may_meet(const object_plan *o, uint32_t d, const name *k, uint32_t matches, bool breaks,
                     const json **what)
{
    const json *s = o->some[d]->s, *w = o->some[d]->name, *props = json_get(s, "properties");
    bool others = w == json_get(s, "additionalProperties"), met = false, its = others;
    *what = NULL;
    if (w == json_get(s, "propertyNames")) return breaks;
    *what = w;
    if (others && k && props && json_get_n(props, k->s, k->n)) return false;
    for (uint32_t x = 0; x < o->patterns.n; x++) {
        const json *q = o->patterns.p[x].where;
        if (!(matches >> x & 1)) continue;
        met |= json_get_n(json_get(s, "patternProperties"), q->key, q->n_key) == q;
        its |= !others && q == w;
    }
    return its && !(others && met);
}

/* The nodes of those values of a key that meet demands, one for every set of them; 0: none do.
 * set: what all its values satisfy (their node is `value`), for the time of the call with more. */
static uint32_t hit_nodes(object_plan *o, const name *k, uint32_t matches, bool breaks,
                          member_set *set, uint32_t value)
{
    schema_compiler *c = o->c;
    gram *g = c->g;
    uint32_t all = (1u << o->n_some) - 1, n = set->n, node[1 << GRAM_DEMANDS], first;
    bool any = false;
    for (uint32_t m = 1; m <= all && !c->rc && !g->r.status; m++) {
        bool ok = true;
        const json *what;
        for (uint32_t d = 0; d < o->n_some; d++) {
            if (!(m >> d & 1)) continue;
            ok = ok && may_meet(o, d, k, matches, breaks, &what);
            if (ok && what) VEC_PUSH(&g->r.status, *set, (member){M_NOT, 0, what, NULL});
        }
        node[m] = !ok ? g->never : set->n > n ? schema_child(c, set->p, set->n) : value;
        set->n = n;
        if (!c->rc && !g->r.status) any |= !gram_never(g, node[m]);
    }
    first = g->kids.n;
    if (!any || c->rc || g->r.status) return 0;
    for (uint32_t m = 1; m <= all; m++) VEC_PUSH(&g->r.status, g->kids, node[m]);
    return first;
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

/* A name as it is written, and `end`: what follows all names of the memo. */
static rx name_text(schema_compiler *c, text_memo *m, const json *where, const name *k, rx end)
{
    text_rx x = {.s = k->s, .hash = k->hash, .n = k->n};
    rx e = schema_known(m, &x);
    if (e != RX_UNKNOWN) return e;
    x.e = schema_text_then(c, where, k->s, k->n, end);
    if (!c->rc) schema_know(c, m, &x);
    return x.e;
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
        rx text = judged ? name_text(c, &c->names, o->v[0].s, k, R_EPS) : R_NONE;
        rx key = o->xml ? schema_xml_key(c, k->s, k->n)
                        : name_text(c, &c->keys, o->v[0].s, k, c->g->colon);
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
        bool breaks = o->some_keys != R_ALL && !key_matches(c, o->some_keys, text);
        if (ok && o->n_some) p.hits = hit_nodes(o, k, matches, breaks, &set, value);
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
        if (o->n_some) p.hits = hit_nodes(o, NULL, m, false, &set, value);
        VEC_PUSH(&r->status, o->extra, p);
        if (o->some_keys == R_ALL || c->rc || r->status) continue;
        key = rx_and2(r, key, rx_not(r, o->some_keys));
        p = (gprop){.key = rx_cat(r, key, c->g->colon), .value = value};
        p.hits = hit_nodes(o, NULL, m, true, &set, value);
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
    for (uint32_t i = 0; i < o->n && !c->rc && c->draft >= 6; i++) {
        const json *s = o->v[i].s, *names = json_get(s, "propertyNames");
        if (names && o->v[i].kind == M_BASE)
            o->keys = rx_and2(&c->g->r, o->keys, names_of(c, s, names));
    }
    for (uint32_t d = 0; d < o->n_some && !c->rc; d++) {
        const json *s = o->some[d]->s, *names = json_get(s, "propertyNames");
        if (!names || names != o->some[d]->name) continue;
        if (o->some_keys != R_ALL)
            schema_refuse(c, "unsupported_schema", s, "propertyNames",
                          "a second one inside a negation");
        o->some_keys = names_of(c, s, names);
    }
}

uint32_t schema_object(schema_compiler *c, const member *v, uint32_t n)
{
    gram *g = c->g;
    rx_arena *r = &g->r;
    object_plan o = {.c = c, .v = v, .n = n, .xml = c->xml && !c->level};
    uint32_t node = 0;
    gobject x = {.min = schema_count(c, v, n, "minProperties", false),
                 .max = schema_count(c, v, n, "maxProperties", true)};
    collect(&o);
    if (o.n_some && o.xml)
        schema_refuse(c, "unsupported_schema", o.some[0]->s, "not",
                      "not supported inside a negation of a call's arguments");
    if (!c->rc) key_names(&o);
    if (!c->rc) order_names(&o);
    bool possible = !c->rc && named(&o);
    if (possible && !c->rc && o.xml) unnamed_xml(&o);
    else if (possible && !c->rc) unnamed(&o);
    if (!c->rc && !r->status) {
        x.first = g->props.n;
        x.n = o.props.n;
        x.demands = o.n_some;
        x.any_order = o.by_lists || (g->free_order && x.n <= max_names(&o));
        x.by_lists = o.by_lists;
        x.xml = o.xml;
        for (uint32_t i = 0; i < o.props.n; i++) VEC_PUSH(&r->status, g->props, o.props.p[i]);
        x.extra = g->props.n;
        x.n_extra = o.extra.n;
        for (uint32_t i = 0; i < o.extra.n; i++) VEC_PUSH(&r->status, g->props, o.extra.p[i]);
        VEC_PUSH(&r->status, g->objects, x);
        possible = possible && !r->status && gram_can_object(g, &x, NULL);
        node = possible ? gram_node(g, G_OBJ, g->objects.n - 1, 0) : gram_term(g, R_NONE);
    }
    free(o.words.p);
    free(o.names.p);
    free(o.index.slot);
    free(o.lists.p);
    free(o.patterns.p);
    free(o.props.p);
    free(o.extra.p);
    return node;
}
