/* rx_dfa.c - derivatives, emptiness and the lazy DFA.
 * Owns the memo of derivatives and the table of states.  Refuses to go on without fuel or deeper
 * than MAX_DEPTH (status ERR_LIMIT).  Thread: the arena's. */
#include "engine/grammar/rx.h"

enum {
    MAX_DEPTH = 2000,
    MAX_LIVE_STEPS = 200000,
    FIRST_DEPTH = 40,
    FIRST_BUDGET = 4000,
    LIVE_BUDGET = 64,
    MEMO_MAX = 1 << 18,
    VISITS = 4 /* of first_bytes that make a small step */
};

struct rx_memo {
    uint32_t key; /* an expression and a byte; FREE: none */
    rx value;
};
#define FREE UINT32_MAX
_Static_assert(RX_MAX_NODES < 1u << 24, "a key holds the expression above the byte");

static bool has(const byte_set *s, uint8_t b)
{
    return s->w[b >> 6] >> (b & 63) & 1;
}

/* Eight bytes that follow each other stand in one line of the cache. */
static uint32_t memo_place(uint32_t key)
{
    return (uint32_t)hash_mix(5, key >> 3) << 3 | (key & 7);
}

/* Twice the room; at MEMO_MAX all is forgotten instead, which costs less than to look for it in
 * memory that is far away. */
static bool memo_grow(rx_arena *r)
{
    if (r->memo_cap == MEMO_MAX) {
        memset(r->memo, 255, r->memo_cap * sizeof *r->memo);
        r->memo_n = 0;
        return true;
    }
    uint32_t cap = r->memo_cap ? r->memo_cap * 2 : 256;
    struct rx_memo *m = malloc(cap * sizeof *m);
    if (!m) {
        r->status = ERR_NOMEM;
        return false;
    }
    memset(m, 255, cap * sizeof *m);
    for (uint32_t i = 0; i < r->memo_cap; i++) {
        if (r->memo[i].key == FREE) continue;
        uint32_t j = memo_place(r->memo[i].key) & (cap - 1);
        while (m[j].key != FREE) j = (j + 1) & (cap - 1);
        m[j] = r->memo[i];
    }
    free(r->memo);
    r->memo = m;
    r->memo_cap = cap;
    return true;
}

/* The slot of a key, claimed if it was free (value RX_UNKNOWN); NULL without memory. */
static struct rx_memo *memo_slot(rx_arena *r, uint32_t key)
{
    if (r->memo_n * 2 >= r->memo_cap && !memo_grow(r)) return NULL;
    uint32_t j = memo_place(key) & (r->memo_cap - 1);
    while (r->memo[j].key != FREE && r->memo[j].key != key) j = (j + 1) & (r->memo_cap - 1);
    if (r->memo[j].key == FREE) {
        r->memo[j] = (struct rx_memo){key, RX_UNKNOWN};
        r->memo_n++;
    }
    return &r->memo[j];
}

/* min is 0 in the integer part, then 1 + the fraction digits seen; b is the remainder so far. */
static rx deriv_multiple(rx_arena *r, rx_node x, uint8_t b)
{
    if (b == '-') return rx_intern(r, x);
    if (b == '.') {
        if (x.min) return R_NONE;
        x.min = 1;
    } else if (b < '0' || b > '9') {
        return R_NONE;
    } else if (x.min == x.max + 1) {
        if (b != '0') return R_NONE;
    } else {
        x.b = (x.b * 10 + (b - '0')) % x.a;
        if (x.min) x.min++;
    }
    uint32_t v = x.b;
    for (uint32_t seen = x.min ? x.min - 1 : 0; seen < x.max; seen++) v = v * 10 % x.a;
    x.nullable = v == 0;
    x.live = 0;
    return rx_intern(r, x);
}

static rx deriv_list(rx_arena *r, rx_node x, uint8_t b)
{
    const uint32_t from = r->parts.n; /* those before are of lists around this one */
    rx d = R_NONE;
    bool dead = false;
    for (uint32_t i = 0; i < x.b && !dead && !r->status; i++) {
        rx q = rx_deriv(r, r->kids.p[x.a + i], b);
        if (q != R_NONE) VEC_PUSH(&r->status, r->parts, q);
        else dead = x.kind == RX_AND;
    }
    const uint32_t n = r->parts.n - from;
    const rx *v = n ? r->parts.p + from : NULL;
    if (!dead && !r->status) d = x.kind == RX_AND ? rx_and(r, v, n) : rx_alt(r, v, n);
    r->parts.n = from;
    return d;
}

static rx deriv_node(rx_arena *r, rx_node x, uint8_t b)
{
    rx d, tail;
    switch (x.kind) {
    case RX_CAT:
        d = rx_cat(r, rx_deriv(r, x.a, b), x.b);
        return r->nodes.p[x.a].nullable ? rx_alt2(r, d, rx_deriv(r, x.b, b)) : d;
    case RX_ALT:
    case RX_AND: return deriv_list(r, x, b);
    case RX_NOT: return rx_not(r, rx_deriv(r, x.a, b));
    case RX_REP:
        d = rx_deriv(r, x.a, b);
        if (d == R_NONE) return R_NONE;
        tail = rx_rep(r, x.a, x.min ? x.min - 1 : 0, x.max == RX_INF ? RX_INF : x.max - 1);
        return rx_cat(r, d, tail);
    case RX_MOD: return deriv_multiple(r, x, b);
    default: return R_NONE;
    }
}

rx rx_deriv(rx_arena *r, rx e, uint8_t b)
{
    if (r->status) return R_NONE;
    const rx_node *p = &r->nodes.p[e];
    if (p->kind == RX_SET) return has(&r->sets.p[p->a], b) ? R_EPS : R_NONE;
    if (p->kind <= RX_EPS) return R_NONE;
    if (p->kind == RX_CAT && r->nodes.p[p->a].kind == RX_SET) /* cheaper than to remember it */
        return has(&r->sets.p[r->nodes.p[p->a].a], b) ? p->b : R_NONE;
    uint32_t key = e << 8 | b;
    struct rx_memo *m = memo_slot(r, key);
    if (!m) return R_NONE;
    if (m->value != RX_UNKNOWN) return m->value;
    size_t place = (size_t)(m - r->memo);
    if (r->depth > MAX_DEPTH) r->status = ERR_LIMIT;
    else rx_spend(r, p->kind == RX_ALT || p->kind == RX_AND ? p->b : 1);
    if (r->status) return R_NONE;
    r->depth++;
    rx d = deriv_node(r, *p, b);
    r->depth--;
    if (r->status) return R_NONE;
    m = &r->memo[place]; /* unless the table has grown or forgotten it, or is about to */
    if (m->key != key || r->memo_n * 2 >= r->memo_cap) m = memo_slot(r, key);
    return m ? m->value = d : R_NONE;
}

/* Classes of bytes that no set tells apart.  Recomputed only when sets were added; a memo or a live
 * mark made under coarser classes stays true, since it speaks of expressions older than the set. */
static void classify(rx_arena *r)
{
    uint16_t slot[512] = {0}; /* class plus 1 by signature */
    if (r->frozen || (r->sets_classed == r->sets.n && r->n_cls)) return;
    for (; r->sets_classed < r->sets.n; r->sets_classed++) {
        const byte_set *s = &r->sets.p[r->sets_classed];
        for (int b = 0; b < 256; b++)
            r->sig[b] = hash_mix(r->sig[b], has(s, (uint8_t)b) + 2ull * r->sets_classed + 3);
    }
    r->n_cls = 0;
    for (int b = 0; b < 256; b++) {
        uint32_t j = r->sig[b] & 511;
        while (slot[j] && r->sig[r->rep[slot[j] - 1]] != r->sig[b]) j = (j + 1) & 511;
        if (!slot[j]) {
            r->rep[r->n_cls++] = (uint8_t)b;
            slot[j] = (uint16_t)r->n_cls;
        }
        r->cls[b] = (uint8_t)(slot[j] - 1);
    }
}

static void set_all(byte_set *s, uint64_t w)
{
    for (int i = 0; i < 4; i++) s->w[i] = w;
}

/* The bytes e may begin with, without a derivative; some that it may not are left in where finding
 * out would cost more. */
static byte_set first_bytes(const rx_arena *r, rx e, uint32_t depth, uint32_t *budget)
{
    byte_set s, t;
    set_all(&s, 0);
    for (;;) {
        const rx_node *x = &r->nodes.p[e];
        if (!*budget || depth > FIRST_DEPTH || x->kind == RX_NOT || x->kind == RX_MOD) {
            set_all(&s, UINT64_MAX);
            return s;
        }
        --*budget;
        if (x->kind == RX_CAT || x->kind == RX_REP || x->kind == RX_SET) {
            t = x->kind == RX_SET ? r->sets.p[x->a] : first_bytes(r, x->a, depth + 1, budget);
            for (int k = 0; k < 4; k++) s.w[k] |= t.w[k];
            if (x->kind != RX_CAT || !r->nodes.p[x->a].nullable) return s;
            e = x->b;
            continue;
        }
        if (x->kind <= RX_EPS) return s;
        byte_set u;
        set_all(&u, x->kind == RX_AND ? UINT64_MAX : 0);
        for (uint32_t i = 0; i < x->b; i++) {
            t = first_bytes(r, r->kids.p[x->a + i], depth + 1, budget);
            for (int k = 0; k < 4; k++)
                u.w[k] = x->kind == RX_AND ? u.w[k] & t.w[k] : u.w[k] | t.w[k];
        }
        for (int k = 0; k < 4; k++) s.w[k] |= u.w[k];
        return s;
    }
}

typedef struct {
    rx e;
    uint32_t c;   /* the class to try next */
    bool any;     /* the second time round: also those that bring the end no nearer */
    uint32_t low; /* the first place in seen that is known to be reached from here */
    byte_set first;
} live_frame;
typedef struct {
    VEC(live_frame) path;
    VEC(rx) seen; /* and not yet known to be dead; all of them lead to one on the path */
} live_search;

static void live_push(rx_arena *r, live_search *s, rx e)
{
    uint32_t budget = LIVE_BUDGET;
    const byte_set first = first_bytes(r, e, 0, &budget);
    r->nodes.p[e].live = 3;
    r->nodes.p[e].at = s->seen.n;
    rx_spend_small(r, (LIVE_BUDGET - budget) / VISITS);
    VEC_PUSH(&r->status, s->path, (live_frame){e, 0, false, s->seen.n, first});
    VEC_PUSH(&r->status, s->seen, e);
}

/* All bytes of the last one on the path were tried.  What only leads to itself is dead. */
static void live_pop(rx_arena *r, live_search *s)
{
    const live_frame f = s->path.p[--s->path.n];
    uint32_t at = r->nodes.p[f.e].at;
    if (f.low < at) {
        live_frame *before = &s->path.p[s->path.n - 1];
        if (f.low < before->low) before->low = f.low;
        return;
    }
    while (s->seen.n > at) r->nodes.p[s->seen.p[--s->seen.n]].live = 2;
}

/* Depth first for a nullable successor, those first that seem nearer, marking strongly connected
 * components (Tarjan): when one is found, all that was seen and does not lead to nothing leads to
 * it.  So whatever is explored here is known for ever, and no expression is explored twice. */
bool rx_live(rx_arena *r, rx e)
{
    live_search s = {0};
    bool ok = false;
    uint32_t steps = 0;
    if (r->status) return true;
    rx_node *x = &r->nodes.p[e];
    if (!x->live && (x->pos || x->nullable)) x->live = 1;
    if (x->live) return x->live == 1;
    classify(r);
    live_push(r, &s, e);
    while (s.path.n && !r->status) {
        live_frame *f = &s.path.p[s.path.n - 1];
        if (f->c == r->n_cls) {
            if (f->any) live_pop(r, &s);
            else f->any = true, f->c = 0;
            continue;
        }
        uint8_t b = r->rep[f->c++];
        if (!has(&f->first, b)) continue;
        rx d = rx_deriv(r, f->e, b);
        rx_spend_small(r, 1);
        if (++steps > MAX_LIVE_STEPS) r->status = ERR_LIMIT;
        x = &r->nodes.p[d];
        if (r->status || d == R_NONE || x->live == 2) continue;
        if (x->live == 3) {
            if (x->at < f->low) f->low = x->at;
            continue;
        }
        ok = x->live == 1 || x->pos || x->nullable;
        if (ok) break;
        if (f->any || x->far < r->nodes.p[f->e].far) live_push(r, &s, d);
    }
    for (uint32_t i = 0; i < s.seen.n; i++) r->nodes.p[s.seen.p[i]].live = ok;
    free(s.path.p);
    free(s.seen.p);
    return ok || r->status;
}

bool rx_match(rx_arena *r, rx e, const char *s, size_t n)
{
    for (size_t i = 0; i < n && e != R_NONE; i++) e = rx_deriv(r, e, (uint8_t)s[i]);
    return !r->status && r->nodes.p[e].nullable;
}

int rx_freeze(rx_arena *r)
{
    classify(r);
    if (!r->frozen) {
        r->mark_nodes = r->nodes.n;
        r->mark_kids = r->kids.n;
        r->mark_sets = r->sets.n;
    }
    r->frozen = true; /* sets made from now on are unions and parts of the old ones */
    rx_state_of(r, R_NONE);
    rx_state_of(r, R_EPS);
    return r->status;
}

int rx_rewind(rx_arena *r)
{
    bool grew = r->nodes.n > r->mark_nodes || r->sets.n > r->mark_sets || r->status;
    VEC_FIT(r->nodes, r->mark_nodes);
    VEC_FIT(r->kids, r->mark_kids);
    VEC_FIT(r->sets, r->mark_sets);
    VEC_FIT(r->states, 0);
    VEC_FIT(r->state_of, 0);
    r->fuel = UINT64_MAX;
    free(r->memo);
    free(r->next);
    rx_drop_scratch(r);
    r->memo = NULL;
    r->next = NULL;
    r->memo_cap = r->memo_n = r->next_rows = r->depth = 0;
    r->status = 0;
    if (grew && rx_reindex(r)) return r->status;
    return rx_freeze(r);
}

size_t rx_bytes(const rx_arena *r)
{
    return r->nodes.cap * sizeof(rx_node) + r->kids.cap * sizeof(rx) +
           r->sets.cap * sizeof(byte_set) + r->memo_cap * sizeof *r->memo +
           r->states.cap * sizeof(rx_state) + r->state_of.cap * sizeof(uint32_t) +
           (r->list.cap + r->parts.cap) * sizeof(rx) + r->index.cap * sizeof *r->index.slot +
           (size_t)r->next_rows * r->n_cls * sizeof *r->next;
}

uint32_t rx_state_of(rx_arena *r, rx e)
{
    while (r->state_of.n <= e && !r->status) VEC_PUSH(&r->status, r->state_of, RX_UNKNOWN);
    if (r->status) return 0;
    if (r->state_of.p[e] != RX_UNKNOWN) return r->state_of.p[e];
    uint32_t s = r->states.n;
    if (s >= r->next_rows) {
        uint32_t rows = r->next_rows ? r->next_rows * 2 : 32;
        uint32_t *t = realloc(r->next, (size_t)rows * r->n_cls * sizeof *t);
        if (!t) {
            r->status = ERR_NOMEM;
            return 0;
        }
        r->next = t;
        r->next_rows = rows;
    }
    VEC_PUSH(&r->status, r->states, (rx_state){e, r->nodes.p[e].nullable});
    if (r->status) return 0;
    uint32_t budget = FIRST_BUDGET;
    const byte_set first = first_bytes(r, e, 0, &budget);
    rx_spend_small(r, (FIRST_BUDGET - budget) / VISITS);
    for (uint32_t c = 0; c < r->n_cls; c++)
        r->next[(size_t)s * r->n_cls + c] = has(&first, r->rep[c]) ? RX_UNKNOWN : 0;
    return r->state_of.p[e] = s;
}

uint32_t rx_step_slow(rx_arena *r, uint32_t s, uint32_t c)
{
    rx d = rx_deriv(r, r->states.p[s].e, r->rep[c]);
    if (d != R_NONE && !rx_live(r, d)) d = R_NONE;
    if (r->status) return 0;
    uint32_t q = rx_state_of(r, d);
    if (!r->status) r->next[(size_t)s * r->n_cls + c] = q;
    return q;
}
