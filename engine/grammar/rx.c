/* rx.c - building expressions: hash-consing and the identities that keep derivatives few.
 * Owns nodes, sets and kids of the arena.  Refuses more than RX_MAX_NODES.  Thread: the arena's. */
#include "engine/grammar/rx.h"

static bool is_list(uint8_t kind)
{
    return kind == RX_ALT || kind == RX_AND;
}

static uint64_t node_hash(const rx_arena *r, const rx_node *x)
{
    uint64_t h = hash_mix(x->kind * 77, (uint64_t)x->min << 32 | x->max);
    if (!is_list(x->kind)) return hash_mix(h, (uint64_t)x->a << 32 | x->b);
    for (uint32_t i = 0; i < x->b; i++) h = hash_mix(h, r->kids.p[x->a + i]);
    return h;
}

static bool node_equal(const rx_arena *r, const rx_node *x, const rx_node *y)
{
    if (x->kind != y->kind || x->b != y->b || x->min != y->min || x->max != y->max) return false;
    if (is_list(x->kind)) return !memcmp(r->kids.p + x->a, r->kids.p + y->a, x->b * sizeof(rx));
    return x->a == y->a;
}

static uint64_t set_hash(const byte_set *s)
{
    return hash_mix(hash_mix(hash_mix(s->w[0], s->w[1]), s->w[2]), s->w[3]);
}

static void index_sets(id_table *t, const void *owner)
{
    const rx_arena *r = owner;
    for (uint32_t i = 0; i < r->sets.n; i++) id_table_put(t, set_hash(&r->sets.p[i]), i + 1);
}

static void index_nodes(id_table *t, const void *owner)
{
    const rx_arena *r = owner;
    for (uint32_t i = 0; i < r->nodes.n; i++) id_table_put(t, node_hash(r, &r->nodes.p[i]), i + 1);
}

/* An index over the sets there are. */
static void reindex_sets(rx_arena *r)
{
    uint32_t cap = 64;
    while (cap < r->sets.n * 4) cap *= 2;
    if (!id_table_reset(&r->set_index, cap, &r->status)) return;
    index_sets(&r->set_index, r);
}

int rx_reindex(rx_arena *r)
{
    uint32_t cap = 1024;
    while (cap < r->nodes.n * 4) cap *= 2;
    if (!id_table_reset(&r->index, cap, &r->status)) return r->status;
    index_nodes(&r->index, r);
    for (int b = 0; b < 256; b++)
        if (r->bytes[b] >= r->nodes.n) r->bytes[b] = 0;
    reindex_sets(r);
    return r->status;
}

static uint32_t guess_far(const rx_arena *r, const rx_node *x)
{
    enum { MOST = 1 << 24 };
    uint64_t n = MOST;
    const rx *kid = is_list(x->kind) ? r->kids.p + x->a : NULL;
    if (x->nullable) return 0;
    switch (x->kind) {
    case RX_SET:
    case RX_NOT:
    case RX_MOD: return 1;
    case RX_CAT: n = (uint64_t)r->nodes.p[x->a].far + r->nodes.p[x->b].far; break;
    case RX_REP: n = (uint64_t)r->nodes.p[x->a].far * x->min; break;
    case RX_ALT:
        for (uint32_t i = 0; i < x->b; i++)
            if (r->nodes.p[kid[i]].far < n) n = r->nodes.p[kid[i]].far;
        break;
    case RX_AND: /* what brings one of them nearer is worth it */
        n = 0;
        for (uint32_t i = 0; i < x->b; i++) n += r->nodes.p[kid[i]].far;
        break;
    default: break;
    }
    return n < MOST ? (uint32_t)n : MOST;
}

/* Whether there may be one more node, and its place in the index. */
static bool node_room(rx_arena *r)
{
    id_table_room(&r->index, index_nodes, r, &r->status);
    if (r->nodes.n >= RX_MAX_NODES) r->status = ERR_LIMIT;
    return !r->status;
}

/* A node that is not there yet, whose place in the index is slot j. */
static rx add_node(rx_arena *r, rx_node x, uint32_t j)
{
    x.far = guess_far(r, &x);
    VEC_PUSH(&r->status, r->nodes, x);
    if (r->status) return R_NONE;
    id_table_set(&r->index, j, r->nodes.n);
    return r->nodes.n - 1;
}

/* For lists the kids are already appended at x.a; they are dropped again when the node exists. */
rx rx_intern(rx_arena *r, rx_node x)
{
    if (!node_room(r)) return R_NONE;
    uint32_t mask = r->index.cap - 1, j = node_hash(r, &x) & mask;
    for (; r->index.slot[j]; j = (j + 1) & mask) {
        rx e = r->index.slot[j] - 1;
        if (!node_equal(r, &r->nodes.p[e], &x)) continue;
        if (is_list(x.kind)) r->kids.n = x.a;
        return e;
    }
    return add_node(r, x, j);
}

/* The node of that kind, a and b that has nothing else to it; R_NONE: it belongs into slot *j. */
static rx find_pair(const rx_arena *r, rx_kind kind, uint32_t a, uint32_t b, uint32_t *j)
{
    const rx_node x = {.kind = (uint8_t)kind, .a = a, .b = b};
    const uint32_t mask = r->index.cap - 1;
    for (*j = node_hash(r, &x) & mask; r->index.slot[*j]; *j = (*j + 1) & mask) {
        const rx_node *y = &r->nodes.p[r->index.slot[*j] - 1];
        if (y->a == a && y->b == b && y->kind == kind) return r->index.slot[*j] - 1;
    }
    return R_NONE;
}

int rx_init(rx_arena *r)
{
    memset(r, 0, sizeof *r);
    r->fuel = UINT64_MAX;
    rx_intern(r, (rx_node){.kind = RX_NONE, .pos = 1, .live = 2});
    rx_intern(r, (rx_node){.kind = RX_EPS, .nullable = 1, .pos = 1, .live = 1});
    rx_intern(r, (rx_node){.kind = RX_NOT, .nullable = 1, .live = 1});
    return r->status;
}

int rx_copy(rx_arena *r, const rx_arena *from)
{
    *r = *from;
    r->memo = NULL;
    r->next = NULL;
    r->list.p = r->parts.p = NULL;
    r->list.cap = r->parts.cap = 0;
    r->memo_cap = r->memo_n = r->next_rows = 0;
    VEC_COPY(&r->status, r->nodes, from->nodes);
    VEC_COPY(&r->status, r->kids, from->kids);
    VEC_COPY(&r->status, r->sets, from->sets);
    VEC_COPY(&r->status, r->states, from->states);
    VEC_COPY(&r->status, r->state_of, from->state_of);
    r->index.slot =
        vec_copy(from->index.slot, r->index.cap, r->index.cap * sizeof(uint32_t), &r->status);
    r->set_index.slot = vec_copy(from->set_index.slot, r->set_index.cap,
                                 r->set_index.cap * sizeof(uint32_t), &r->status);
    return r->status;
}

void rx_drop_scratch(rx_arena *r)
{
    free(r->list.p);
    free(r->parts.p);
    r->list.p = r->parts.p = NULL;
    r->list.n = r->list.cap = r->parts.n = r->parts.cap = 0;
}

void rx_clear(rx_arena *r)
{
    rx_drop_scratch(r);
    free(r->nodes.p);
    free(r->kids.p);
    free(r->sets.p);
    free(r->index.slot);
    free(r->set_index.slot);
    free(r->memo);
    free(r->states.p);
    free(r->state_of.p);
    free(r->next);
    memset(r, 0, sizeof *r);
}

rx rx_set(rx_arena *r, const byte_set *s)
{
    if (!(s->w[0] | s->w[1] | s->w[2] | s->w[3])) return R_NONE;
    id_table *t = &r->set_index;
    if (r->status || !id_table_room(t, index_sets, r, &r->status)) return R_NONE;
    uint32_t j = set_hash(s) & (t->cap - 1);
    while (t->slot[j] && memcmp(&r->sets.p[t->slot[j] - 1], s, sizeof *s))
        j = (j + 1) & (t->cap - 1);
    if (!t->slot[j]) {
        VEC_PUSH(&r->status, r->sets, *s);
        if (r->status) return R_NONE;
        id_table_set(t, j, r->sets.n);
    }
    if (!node_room(r)) return R_NONE;
    uint32_t set = t->slot[j] - 1;
    rx known = find_pair(r, RX_SET, set, 0, &j);
    return known ? known : add_node(r, (rx_node){.kind = RX_SET, .pos = 1, .a = set}, j);
}

rx rx_range(rx_arena *r, uint8_t a, uint8_t b)
{
    byte_set s = {{0}};
    for (uint32_t i = a; i <= b;) { /* a word at a time */
        uint32_t last = (i | 63) < b ? i | 63 : b;
        s.w[i >> 6] = UINT64_MAX >> (63 - (last - i)) << (i & 63);
        i = last + 1;
    }
    return rx_set(r, &s);
}

rx rx_byte(rx_arena *r, uint8_t b)
{
    if (!r->bytes[b]) r->bytes[b] = rx_range(r, b, b);
    return r->bytes[b];
}

static rx cat_node(rx_arena *r, rx a, rx b)
{
    uint32_t j;
    if (!node_room(r)) return R_NONE;
    rx known = find_pair(r, RX_CAT, a, b, &j);
    if (known != R_NONE) return known;
    const rx_node *p = &r->nodes.p[a], *q = &r->nodes.p[b];
    const rx_node x = {.kind = RX_CAT,
                       .nullable = p->nullable && q->nullable,
                       .pos = p->pos && q->pos,
                       .a = a,
                       .b = b};
    return add_node(r, x, j);
}

rx rx_cat(rx_arena *r, rx a, rx b)
{
    if (a == R_NONE || b == R_NONE) return R_NONE;
    if (a == R_EPS) return b;
    if (b == R_EPS) return a;
    r->list.n = 0; /* always right-associated */
    while (r->nodes.p[a].kind == RX_CAT) {
        VEC_PUSH(&r->status, r->list, r->nodes.p[a].a);
        a = r->nodes.p[a].b;
    }
    rx_spend_small(r, r->list.n + 1);
    if (!r->status) b = cat_node(r, a, b);
    while (r->list.n && !r->status) b = cat_node(r, r->list.p[--r->list.n], b);
    return r->status ? R_NONE : b;
}

rx rx_cat3(rx_arena *r, rx a, rx b, rx c)
{
    return rx_cat(r, a, rx_cat(r, b, c));
}

static int by_id(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Those made of others are sorted already, but for a few. */
static void sort_ids(rx *v, uint32_t n)
{
    uint32_t moves = 0;
    for (uint32_t i = 1; i < n; i++) {
        rx x = v[i];
        uint32_t k = i;
        for (; k && v[k - 1] > x; k--) v[k] = v[k - 1];
        v[k] = x;
        if ((moves += i - k) > 8 * n) {
            qsort(v, n, sizeof *v, by_id);
            return;
        }
    }
}

/* Flattens v into r->list, byte sets merged into one; true when the whole list is `top`. */
static bool gather(rx_arena *r, rx_kind kind, const rx *v, uint32_t n)
{
    rx zero = kind == RX_ALT ? R_NONE : R_ALL, top = kind == RX_ALT ? R_ALL : R_NONE;
    byte_set u;
    bool have = false;
    memset(&u, kind == RX_ALT ? 0 : 255, sizeof u);
    for (uint32_t i = 0; i < n; i++) {
        bool same = r->nodes.p[v[i]].kind == kind;
        uint32_t m = same ? r->nodes.p[v[i]].b : 1, first = r->nodes.p[v[i]].a;
        for (uint32_t j = 0; j < m; j++) {
            rx x = same ? r->kids.p[first + j] : v[i];
            if (x == zero) continue;
            if (x == top) return true;
            if (r->nodes.p[x].kind != RX_SET) {
                VEC_PUSH(&r->status, r->list, x);
                continue;
            }
            have = true;
            for (int q = 0; q < 4; q++) {
                uint64_t w = r->sets.p[r->nodes.p[x].a].w[q];
                u.w[q] = kind == RX_ALT ? u.w[q] | w : u.w[q] & w;
            }
        }
    }
    if (!have) return false;
    rx x = rx_set(r, &u);
    if (x == R_NONE) return kind == RX_AND;
    VEC_PUSH(&r->status, r->list, x);
    return false;
}

#define DROPPED 0x80000000u

/* some: a bit for every id of the list modulo 64, which most others fail already. */
static bool among(const rx *v, uint32_t n, uint64_t some, rx e)
{
    uint32_t lo = 0, hi = some >> (e & 63) & 1 ? n : 0;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2, x = v[mid] & ~DROPPED;
        if (x == e) return true;
        if (x < e) lo = mid + 1;
        else hi = mid;
    }
    return false;
}

/* a & (a | b) is a, and a & ~(a | b) is nothing; the same with & and | exchanged.  True when the
 * whole list (sorted, nothing twice) is `top`. */
static bool absorb(rx_arena *r, rx_kind kind)
{
    const uint8_t other = kind == RX_AND ? RX_ALT : RX_AND;
    rx *v = r->list.p;
    uint32_t keep = 0, n = r->list.n;
    uint64_t some = 0;
    for (uint32_t i = 0; i < n; i++) some |= 1ull << (v[i] & 63);
    for (uint32_t i = 0; i < n && !r->status; i++) {
        const rx_node *x = &r->nodes.p[v[i]];
        bool no = x->kind == RX_NOT, met = no && among(v, n, some, x->a);
        if (no) x = &r->nodes.p[x->a];
        if (x->kind == other) rx_spend_small(r, x->b);
        for (uint32_t k = 0; x->kind == other && k < x->b && !met; k++)
            met = among(v, n, some, r->kids.p[x->a + k]);
        if (met && no) return true;
        if (met) v[i] |= DROPPED;
    }
    for (uint32_t i = 0; i < n; i++)
        if (!(v[i] & DROPPED)) v[keep++] = v[i];
    r->list.n = keep;
    return false;
}

/* Sorts the members and leaves out what the others say already; true when the list is `top`. */
static bool tidy(rx_arena *r, rx_kind kind)
{
    rx *v = r->list.p;
    uint32_t k = 0;
    bool other_nullable = false;
    sort_ids(v, r->list.n);
    for (uint32_t i = 0; i < r->list.n; i++)
        if (!k || v[k - 1] != v[i]) v[k++] = v[i];
    r->list.n = k;
    if (absorb(r, kind)) return true;
    for (uint32_t i = 0; i < r->list.n; i++)
        other_nullable |= v[i] != R_EPS && r->nodes.p[v[i]].nullable;
    if (kind == RX_ALT && r->list.n && v[0] == R_EPS && other_nullable)
        memmove(v, v + 1, --r->list.n * sizeof *v);
    return false;
}

static rx make_list(rx_arena *r, rx_kind kind, const rx *v, uint32_t n)
{
    rx zero = kind == RX_ALT ? R_NONE : R_ALL, top = kind == RX_ALT ? R_ALL : R_NONE;
    if (r->status) return R_NONE;
    r->list.n = 0;
    bool all = gather(r, kind, v, n) || tidy(r, kind);
    const uint32_t m = r->list.n;
    if (!rx_spend_small(r, m) || all || r->status) return r->status ? R_NONE : top;
    if (m < 2) return m ? r->list.p[0] : zero;
    rx_node x = {
        .kind = kind, .nullable = kind == RX_AND, .pos = kind == RX_ALT, .a = r->kids.n, .b = m};
    for (uint32_t i = 0; i < m; i++) {
        const rx_node *y = &r->nodes.p[r->list.p[i]];
        if (kind == RX_ALT) x.nullable |= y->nullable;
        else x.nullable &= y->nullable;
        x.pos &= y->pos;
        VEC_PUSH(&r->status, r->kids, r->list.p[i]);
    }
    return r->status ? R_NONE : rx_intern(r, x);
}

rx rx_alt(rx_arena *r, const rx *v, uint32_t n)
{
    return make_list(r, RX_ALT, v, n);
}

rx rx_and(rx_arena *r, const rx *v, uint32_t n)
{
    return make_list(r, RX_AND, v, n);
}

rx rx_alt2(rx_arena *r, rx a, rx b)
{
    rx v[2] = {a, b};
    return rx_alt(r, v, 2);
}

rx rx_and2(rx_arena *r, rx a, rx b)
{
    rx v[2] = {a, b};
    return rx_and(r, v, 2);
}

rx rx_not(rx_arena *r, rx a)
{
    if (r->nodes.p[a].kind == RX_NOT) return r->nodes.p[a].a;
    return rx_intern(r, (rx_node){.kind = RX_NOT, .nullable = !r->nodes.p[a].nullable, .a = a});
}

rx rx_rep(rx_arena *r, rx a, uint32_t min, uint32_t max)
{
    if (min > max) return R_NONE;
    if (max == 0 || a == R_EPS) return R_EPS;
    if (a == R_NONE) return min ? R_NONE : R_EPS;
    const rx_node *x = &r->nodes.p[a];
    if (x->nullable) min = 0;
    if (min == 1 && max == 1) return a;
    if (x->kind == RX_REP && x->min == 0 && x->max == RX_INF) return a;
    return rx_intern(
        r,
        (rx_node){
            .kind = RX_REP, .nullable = min == 0, .pos = x->pos, .a = a, .min = min, .max = max});
}

rx rx_opt(rx_arena *r, rx a)
{
    return rx_alt2(r, R_EPS, a);
}

rx rx_star(rx_arena *r, rx a)
{
    return rx_rep(r, a, 0, RX_INF);
}

rx rx_lit(rx_arena *r, const char *s, size_t n)
{
    return rx_lit_then(r, s, n, R_EPS);
}

rx rx_lit_then(rx_arena *r, const char *s, size_t n, rx e)
{
    while (n) e = rx_cat(r, rx_byte(r, (uint8_t)s[--n]), e);
    return e;
}

rx rx_str(rx_arena *r, const char *s)
{
    return rx_lit(r, s, strlen(s));
}

rx rx_multiple(rx_arena *r, uint32_t m, uint32_t k)
{
    for (const char *s = "0123456789.-"; *s; s++)
        rx_byte(r, (uint8_t)*s); /* each its own byte class */
    return rx_intern(r, (rx_node){.kind = RX_MOD, .nullable = 1, .a = m, .max = k});
}

static int by_text(const void *a, const void *b)
{
    const rx_text *x = a, *y = b;
    int c = memcmp(x->s, y->s, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* One level of the trie under construction: texts [i, end) share the first `from` bytes. */
typedef struct {
    uint32_t i, end, from, common;
    VEC(rx) alts;
} trie_level;

static void open_level(const rx_text *v, trie_level *t, uint32_t i, uint32_t end, uint32_t from)
{
    const rx_text *a = &v[i], *z = &v[end - 1];
    uint32_t c = from;
    while (c < a->n && c < z->n && a->s[c] == z->s[c]) c++;
    *t = (trie_level){.i = i, .end = end, .from = from, .common = c};
}

rx rx_texts(rx_arena *r, rx_text *v, uint32_t n)
{
    VEC(trie_level) st = {0};
    rx done = R_NONE;
    if (!n) return R_NONE;
    qsort(v, n, sizeof *v, by_text);
    trie_level t;
    open_level(v, &t, 0, n, 0);
    VEC_PUSH(&r->status, st, t);
    while (st.n) {
        trie_level *l = &st.p[st.n - 1];
        while (l->i < l->end && v[l->i].n == l->common) { /* ends here */
            if (!l->alts.n) VEC_PUSH(&r->status, l->alts, R_EPS);
            l->i++;
        }
        if (l->i < l->end && !r->status) {
            uint32_t j = l->i, at = l->common;
            while (j < l->end && v[j].s[at] == v[l->i].s[at]) j++;
            open_level(v, &t, l->i, j, at);
            l->i = j;
            VEC_PUSH(&r->status, st, t);
            continue;
        }
        const rx_text *a = &v[l->end - 1];
        done = rx_lit_then(r, a->s + l->from, l->common - l->from, rx_alt(r, l->alts.p, l->alts.n));
        free(l->alts.p);
        if (--st.n) VEC_PUSH(&r->status, st.p[st.n - 1].alts, done);
    }
    free(st.p);
    return r->status ? R_NONE : done;
}
