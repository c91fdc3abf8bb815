/* gmask.c - masks of configurations.
 * Owns a number of them, the least recently used of which is forgotten for a new one.  Errors: the
 * arena's status.  Thread: under the grammar's lock. */
#include "engine/grammar/masks.h"

enum {
    FEW_THREADS = 4,
    NARROW = 40 /* first bytes */,
    WORDS = 16 /* of a bitmap cost as much as a node */
};

static void set_bit(uint32_t *bits, uint32_t id)
{
    bits[id >> 5] |= 1u << (id & 31);
}

/* ---- the cache ---- */
mask_cache *mask_cache_of(grammar *g, const grammar_vocab *v)
{
    mask_cache *c = g->masks;
    while (c && c->serial != v->serial) c = c->next;
    if (c) return c;
    c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->v = v;
    c->serial = v->serial;
    c->words = v->words;
    c->epoch = g->g.epoch;
    for (int b = 0; b < 256; b++) c->class_size[g->g.r.cls[b]]++;
    c->next = g->masks;
    return g->masks = c;
}

void gmask_release(gmask *m)
{
    if (m && !--m->refs) free(m);
}

static void forget(mask_cache *c)
{
    for (uint32_t i = 0; i < c->locals.n; i++) local_mask_release(c->locals.p[i]);
    for (int i = 0; i < MASKS_KEPT; i++) {
        gmask_release(c->kept[i]);
        c->kept[i] = NULL;
    }
    c->local_bytes = c->n_kept = 0;
    VEC_FIT(c->locals, 0);
    VEC_FIT(c->facts, 0);
    VEC_FIT(c->clamped, 0);
    VEC_FIT(c->after, 0);
    VEC_FIT(c->places, 0);
}

void mask_cache_sync(mask_cache *c, const gram *g)
{
    if (c->epoch == g->epoch) return;
    forget(c);
    c->epoch = g->epoch;
}

void mask_allow(mask_cache *c, gram *g, uint64_t fuel, uint64_t nodes)
{
    g->r.fuel = c->fuel = fuel;
    c->walked = 0;
    c->nodes = nodes;
}

size_t mask_cache_bytes(const mask_cache *c)
{
    size_t n = c->local_bytes + c->n_kept * (sizeof(gmask) + c->words * sizeof(uint32_t));
    n += c->locals.cap * sizeof *c->locals.p + c->facts.cap * sizeof *c->facts.p;
    n += (c->clamped.cap + c->after.cap) * sizeof(uint32_t) + c->places.cap * sizeof *c->places.p;
    return n;
}

void mask_cache_free(mask_cache *c)
{
    while (c) {
        mask_cache *next = c->next;
        forget(c);
        for (int a = 0; a < N_ALPHABETS; a++)
            for (int at = 0; at < UTF8_STATES; at++) free(c->letters[a][at]);
        free(c->locals.p);
        free(c->facts.p);
        free(c->clamped.p);
        free(c->after.p);
        free(c->places.p);
        free(c->pending.p);
        free(c->threads.p);
        free(c->narrow.p);
        free(c);
        c = next;
    }
}

/* Where the mask of a configuration is noted. */
static mask_place *place_of(mask_cache *c, int *status, uint32_t id)
{
    uint32_t i = id == AT_END ? 0 : id;
    while (c->places.n <= i && !*status) VEC_PUSH(status, c->places, (mask_place){0});
    return *status ? NULL : &c->places.p[i];
}

static gmask *find(mask_cache *c, const mask_place *p)
{
    gmask *m = p->id ? c->kept[p->slot] : NULL;
    if (!m || m->id != p->id) return NULL;
    c->used[p->slot] = ++c->tick;
    return m;
}

static void keep(mask_cache *c, gmask *m, mask_place *p)
{
    uint32_t slot = 0;
    for (uint32_t i = 1; i < MASKS_KEPT && c->kept[slot]; i++)
        if (!c->kept[i] || c->used[i] < c->used[slot]) slot = i;
    if (c->kept[slot]) gmask_release(c->kept[slot]);
    else c->n_kept++;
    c->kept[slot] = m;
    m->refs++;
    c->used[slot] = ++c->tick;
    *p = (mask_place){m->id, slot};
}

/* ---- making one ---- */

/* Tokens of a subtree [i, end) that configuration at, reached at the depth above, can take. */
static void walk(mask_cache *c, gram *g, uint32_t from, const trie *t, uint32_t i, uint32_t end,
                 uint32_t *bits)
{
    uint32_t at[VOCAB_MAX_BYTES + 1];
    if (i >= end) return;
    at[(t->node[i].size_depth & 255) - 1] = from;
    while (i < end) {
        trie_node x = t->node[i];
        uint32_t depth = x.size_depth & 255, d = gram_step(g, at[depth - 1], x.tok_byte & 255);
        if (!mask_walk(c, &g->r, 1) || g->r.status) return;
        if (!d) {
            i += x.size_depth >> 8;
            continue;
        }
        if (x.tok_byte >> 8 != TRIE_NO_TOKEN) set_bit(bits, x.tok_byte >> 8);
        at[depth] = d;
        i++;
    }
}

static uint32_t after(mask_cache *c, gram *g, uint32_t stack)
{
    while (c->after.n <= stack && !g->r.status) VEC_PUSH(&g->r.status, c->after, RX_UNKNOWN);
    if (g->r.status) return 0;
    if (c->after.p[stack] != RX_UNKNOWN) return c->after.p[stack];
    uint32_t d = gram_after(g, stack);
    return g->r.status ? 0 : (c->after.p[stack] = d);
}

static void add_thread(mask_cache *c, gram *g, thread t, uint32_t *bits, bool first)
{
    const grammar_vocab *v = c->v;
    const local_mask *l = local_of(c, &g->r, t.state);
    if (!l || !mask_walk(c, &g->r, v->words / WORDS)) return;
    const uint32_t *from[2] = {l->slice, l->bits};
    for (int k = 0; k < 2; k++) {
        if (!from[k]) continue;
        if (first) memcpy(bits, from[k], v->words * sizeof *bits);
        else
            for (uint32_t w = 0; w < v->words; w++) bits[w] |= from[k][w];
        first = false;
    }
    if (first) memset(bits, 0, v->words * sizeof *bits);
    for (uint32_t i = 0; i < l->n_tok; i++) set_bit(bits, l->tok[i]);
    if (!l->n_esc) return;
    uint32_t follow = after(c, g, t.stack);
    if (!follow || !g->configs.p[follow].n) return;
    for (uint32_t i = 0; i < l->n_esc && !g->r.status; i++) {
        uint32_t x = l->esc[i];
        walk(c, g, follow, l->t, x + 1, x + (l->t->node[x].size_depth >> 8), bits);
    }
}

/* Tokens that the grammar names by id. */
static void named_tokens(gram *g, const grammar_vocab *v, uint32_t c, uint32_t *bits)
{
    uint32_t rows = (uint32_t)v->rows, hi = gram_step(g, c, VOCAB_NAMED);
    for (uint32_t a = 0; hi && a << 16 < rows; a++) {
        uint32_t mid = gram_step(g, hi, (uint8_t)a);
        for (uint32_t b = 0; mid && b < 256 && (a << 16 | b << 8) < rows; b++) {
            uint32_t low = gram_step(g, mid, (uint8_t)b);
            for (uint32_t k = 0; low && k < 256; k++) {
                uint32_t id = a << 16 | b << 8 | k;
                if (id < rows && gram_step(g, low, (uint8_t)k)) set_bit(bits, id);
            }
        }
    }
}

/* What no walk finds: end tokens, tokens named by id, second tokens of the same bytes. */
static void add_others(gram *g, const grammar_vocab *v, uint32_t c, uint32_t *bits)
{
    for (uint32_t i = 0; i < v->twins.n; i++)
        if (bits[v->twins.p[i].id >> 5] >> (v->twins.p[i].id & 31) & 1)
            set_bit(bits, v->twins.p[i].twin);
    for (uint32_t i = 0; i < v->n_end; i++)
        if (c == AT_END || g->configs.p[c].accept) set_bit(bits, v->end_ids[i]);
    if (c != AT_END) named_tokens(g, v, c, bits);
}

static uint32_t clamped_state(mask_cache *c, gram *g, uint32_t s)
{
    while (c->clamped.n <= s && !g->r.status) VEC_PUSH(&g->r.status, c->clamped, RX_UNKNOWN);
    if (g->r.status) return s;
    if (c->clamped.p[s] != RX_UNKNOWN) return c->clamped.p[s];
    rx e = g->r.states.p[s].e, d = rx_clamp(&g->r, e, c->v->longest);
    uint32_t q = d == e ? s : rx_state_of(&g->r, d);
    return g->r.status ? s : (c->clamped.p[s] = q);
}

/* The configuration whose counters are cut to what a token can tell apart. */
static uint32_t clamped_config(mask_cache *c, gram *g, uint32_t id)
{
    const config from = g->configs.p[id];
    bool changed = false;
    c->threads.n = 0;
    for (uint32_t i = 0; i < from.n && !g->r.status; i++) {
        thread t = g->threads.p[from.first + i];
        uint32_t s = clamped_state(c, g, t.state);
        changed |= s != t.state;
        VEC_PUSH(&g->r.status, c->threads, (thread){s, t.stack});
    }
    if (!changed || g->r.status) return id;
    return gram_of_threads(g, c->threads.p, c->threads.n, from.accept);
}

static void fill(mask_cache *c, gram *g, uint32_t id, uint32_t *bits)
{
    const grammar_vocab *v = c->v;
    const config from = g->configs.p[id == AT_END ? 0 : id]; /* 0 has no threads */
    bool first = true;
    c->narrow.n = 0;
    for (uint32_t i = 0; i < from.n && !g->r.status; i++) {
        thread t = g->threads.p[from.first + i];
        if (from.n > FEW_THREADS && state_width(c, &g->r, t.state) < NARROW) {
            VEC_PUSH(&g->r.status, c->narrow, t);
            continue;
        }
        add_thread(c, g, t, bits, first);
        first = false;
    }
    if (first) memset(bits, 0, v->words * sizeof *bits);
    if (c->narrow.n && !g->r.status) { /* many small ones are walked together */
        uint32_t d = gram_of_threads(g, c->narrow.p, c->narrow.n, false);
        if (!g->r.status) walk(c, g, d, &v->full, 1, v->full.n, bits);
    }
    if (!g->r.status) add_others(g, v, id, bits);
}

static gmask *make(mask_cache *c, gram *g, uint32_t id)
{
    static _Atomic uint64_t ids = 1;
    uint32_t any = 0;
    gmask *m = malloc(sizeof *m + c->v->words * sizeof *m->bits);
    if (!m) {
        g->r.status = ERR_NOMEM;
        return NULL;
    }
    m->refs = 1;
    fill(c, g, id, m->bits);
    for (uint32_t i = 0; i < c->v->words && !g->r.status; i++) any |= m->bits[i];
    if (any) {
        m->id = atomic_fetch_add(&ids, 1);
        return m;
    }
    free(m);
    return NULL;
}

gmask *mask_of(mask_cache *c, gram *g, uint32_t id)
{
    mask_place *p = place_of(c, &g->r.status, id);
    gmask *m = p ? find(c, p) : NULL;
    if (m) {
        m->refs++;
        return m;
    }
    uint32_t short_id = !p || id == AT_END ? id : clamped_config(c, g, id);
    if (g->r.status) return NULL;
    mask_place *q = place_of(c, &g->r.status, short_id);
    m = q ? find(c, q) : NULL;
    if (m) m->refs++;
    else if (q) m = make(c, g, short_id);
    if (!m || g->r.status) return m;
    p = place_of(c, &g->r.status, id); /* they may have moved */
    q = place_of(c, &g->r.status, short_id);
    if (!find(c, q)) keep(c, m, q);
    *p = *q;
    return m;
}
