/* rx_facts.c - what masks ask of expressions: shapes that are equal in all grammars, whether a
 * language is finite, and counters cut to what one token can tell apart.
 * Owns nothing.  Errors: the arena's status.  Thread: the arena's. */
#include "engine/grammar/masks.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static shape hash(const void *p, size_t n)
{
    XXH128_hash_t h = XXH3_128bits(p, n);
    return (shape){{h.low64, h.high64}};
}

/* Kids of a node, as an array. */
static uint32_t kids_of(const rx_arena *r, const rx_node *x, rx pair[2], const rx **kids)
{
    if (x->kind == RX_ALT || x->kind == RX_AND) {
        *kids = r->kids.p + x->a;
        return x->b;
    }
    pair[0] = x->a;
    pair[1] = x->b;
    *kids = pair;
    return x->kind == RX_CAT ? 2 : x->kind == RX_NOT || x->kind == RX_REP ? 1 : 0;
}

static rx_fact make_fact(const mask_cache *c, const rx_arena *r, const rx_node *x, const rx *kids,
                         uint32_t n)
{
    bool list = x->kind == RX_ALT || x->kind == RX_AND, all = true, any = false;
    struct {
        uint64_t kind, min, max, own[4];
        shape kid[2];
    } d = {.kind = x->kind};
    if (x->kind == RX_REP || x->kind == RX_MOD) {
        d.min = x->min;
        d.max = x->max;
    }
    if (x->kind == RX_SET) memcpy(d.own, &r->sets.p[x->a], sizeof d.own);
    if (x->kind == RX_MOD) d.own[0] = (uint64_t)x->a << 32 | x->b;
    for (uint32_t i = 0; i < n; i++) {
        const rx_fact *k = &c->facts.p[kids[i]];
        all &= k->finite;
        any |= k->finite;
        if (!list) {
            d.kid[i] = k->of;
            continue;
        }
        shape h = hash(&k->of, sizeof k->of); /* a sum: arenas keep lists in orders of their own */
        d.kid[0].w[0] += h.w[0];
        d.kid[0].w[1] += h.w[1];
        d.own[0]++;
    }
    rx_fact f = {.of = hash(&d, sizeof d), .known = true};
    switch (x->kind) {
    case RX_NOT:
    case RX_MOD: f.finite = false; break;
    case RX_AND: f.finite = any; break;
    case RX_REP: f.finite = all && x->max != RX_INF; break;
    default: f.finite = all;
    }
    return f;
}

static bool room_for_all(mask_cache *c, rx_arena *r)
{
    uint32_t n = r->nodes.n;
    if (n > c->facts.cap) {
        uint32_t cap = n + n / 2;
        rx_fact *p = realloc(c->facts.p, cap * sizeof *p);
        if (!p) {
            r->status = ERR_NOMEM;
            return false;
        }
        c->facts.p = p;
        c->facts.cap = cap;
    }
    memset(c->facts.p + c->facts.n, 0, (n - c->facts.n) * sizeof *c->facts.p);
    c->facts.n = n;
    return true;
}

const rx_fact *rx_facts(mask_cache *c, rx_arena *r, rx e)
{
    if (c->facts.n < r->nodes.n && !room_for_all(c, r)) return NULL;
    c->pending.n = 0;
    VEC_PUSH(&r->status, c->pending, e);
    while (c->pending.n && !r->status) {
        rx x = c->pending.p[c->pending.n - 1], pair[2];
        const rx *kids;
        if (c->facts.p[x].known) {
            c->pending.n--;
            continue;
        }
        uint32_t n = kids_of(r, &r->nodes.p[x], pair, &kids), before = c->pending.n;
        for (uint32_t i = 0; i < n; i++)
            if (!c->facts.p[kids[i]].known) VEC_PUSH(&r->status, c->pending, kids[i]);
        if (c->pending.n == before && !r->status)
            c->facts.p[x] = make_fact(c, r, &r->nodes.p[x], kids, n);
    }
    return r->status ? NULL : &c->facts.p[e];
}

/* A token eats at most `longest` characters, so larger counts are all alike: bounds of a repetition
 * are cut where it stands in a row of parts or in a choice of such rows.  Under & and ~ they are
 * left, since there a count may decide whether anything is matched at all. */
static rx clamp_row(rx_arena *r, rx e, uint32_t most)
{
    enum { PARTS = 6 };
    rx part[PARTS];
    uint32_t n = 0;
    bool changed = false;
    while (n < PARTS - 1 && r->nodes.p[e].kind == RX_CAT) {
        part[n++] = r->nodes.p[e].a;
        e = r->nodes.p[e].b;
    }
    part[n++] = e;
    for (uint32_t i = 0; i < n; i++) {
        const rx_node x = r->nodes.p[part[i]];
        if (x.kind != RX_REP || (x.min <= most && (x.max <= most || x.max == RX_INF))) continue;
        part[i] = rx_rep(r, x.a, x.min < most ? x.min : most,
                         x.max == RX_INF || x.max < most ? x.max : most);
        changed = true;
    }
    if (!changed) return R_NONE;
    for (e = part[--n]; n;) e = rx_cat(r, part[--n], e);
    return e;
}

rx rx_clamp(rx_arena *r, rx e, uint32_t longest)
{
    enum { CHOICES = 32 };
    const rx_node x = r->nodes.p[e];
    rx v[CHOICES];
    bool changed = false;
    if (x.kind == RX_CAT || x.kind == RX_REP) {
        rx d = clamp_row(r, e, longest + 1);
        return d != R_NONE ? d : e;
    }
    if (x.kind != RX_ALT || x.b > CHOICES) return e;
    for (uint32_t i = 0; i < x.b; i++) {
        rx k = r->kids.p[x.a + i], d = clamp_row(r, k, longest + 1);
        v[i] = d != R_NONE ? d : k;
        changed |= d != R_NONE;
    }
    return changed ? rx_alt(r, v, x.b) : e;
}
