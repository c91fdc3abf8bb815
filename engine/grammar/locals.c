/* locals.c - local masks: the tokens one byte state takes, found by walking a trie with the DFA of
 * one expression.
 * Owns the masks until they are given to the vocabulary.  Errors: the arena's status.
 * Thread: under the grammar's lock. */
#include "engine/grammar/masks.h"

enum {
    WIDE = 26 /* first bytes */,
    MANY = 2000 /* tokens: a bitmap is shorter then */,
    NODES = 8 /* walked in the time of a unit of fuel */
};

bool mask_walk(mask_cache *c, rx_arena *r, uint32_t n)
{
    c->walked += n;
    if (c->walked + (c->fuel - r->fuel) * NODES < c->nodes) return true;
    r->status = ERR_LIMIT;
    r->fuel = 0;
    return false;
}

uint32_t state_width(const mask_cache *c, const rx_arena *r, uint32_t state)
{
    uint32_t w = 0;
    for (uint32_t k = 0; k < r->n_cls; k++)
        if (r->next[(size_t)state * r->n_cls + k]) w += c->class_size[k];
    return w;
}

typedef struct {
    local_mask *l;
    VEC(uint32_t) tok;
    VEC(uint32_t) esc;
    uint32_t words;
} local_build;

static void add_token(local_build *b, int *status, uint32_t id)
{
    if (b->l->bits) {
        b->l->bits[id >> 5] |= 1u << (id & 31);
        return;
    }
    VEC_PUSH(status, b->tok, id);
    if (b->tok.n <= MANY || *status) return;
    uint32_t *bits = calloc(b->words, sizeof *bits);
    if (!bits) {
        *status = ERR_NOMEM;
        return;
    }
    for (uint32_t i = 0; i < b->tok.n; i++) bits[b->tok.p[i] >> 5] |= 1u << (b->tok.p[i] & 31);
    b->tok.n = 0;
    b->l->bits = bits;
}

static void walk(mask_cache *c, rx_arena *r, local_build *b, uint32_t state)
{
    const trie *t = b->l->t;
    uint32_t at[VOCAB_MAX_BYTES + 1] = {state};
    for (uint32_t i = 1; i < t->n && !r->status;) {
        trie_node x = t->node[i];
        uint32_t depth = x.size_depth & 255, size = x.size_depth >> 8;
        uint32_t q = rx_step(r, at[depth - 1], x.tok_byte & 255);
        if (!mask_walk(c, r, 1)) return;
        if (!q) {
            i += size;
            continue;
        }
        if (x.tok_byte >> 8 != TRIE_NO_TOKEN) add_token(b, &r->status, x.tok_byte >> 8);
        if (size > 1 && r->states.p[q].nullable) VEC_PUSH(&r->status, b->esc, i);
        at[depth] = q;
        i += q == 1 ? size : 1; /* the empty text is left: nothing more in here */
    }
}

static local_mask *make(mask_cache *c, rx_arena *r, uint32_t state, shape of)
{
    const grammar_vocab *v = c->v;
    local_build b = {.l = calloc(1, sizeof *b.l), .words = v->words};
    uint32_t k;
    if (!b.l) {
        r->status = ERR_NOMEM;
        return NULL;
    }
    b.l->of = of;
    atomic_init(&b.l->refs, 1);
    b.l->t = &v->full;
    int a = state_width(c, r, state) < WIDE ? -1 : contained_alphabet(c, r, state, &k);
    if (a >= 0) {
        b.l->t = &v->rest[a];
        b.l->slice = vocab_slice(v, a, k);
    }
    if (!r->status) walk(c, r, &b, state);
    if (!r->status) {
        b.l->tok = b.tok.p;
        b.l->n_tok = b.tok.n;
        b.l->esc = b.esc.p;
        b.l->n_esc = b.esc.n;
        return b.l;
    }
    free(b.tok.p);
    free(b.esc.p);
    local_mask_release(b.l);
    return NULL;
}

const local_mask *local_of(mask_cache *c, rx_arena *r, uint32_t state)
{
    while (c->locals.n <= state && !r->status) VEC_PUSH(&r->status, c->locals, NULL);
    if (r->status) return NULL;
    if (c->locals.p[state]) return c->locals.p[state];
    const rx_fact *f = rx_facts(c, r, r->states.p[state].e);
    if (!f) return NULL;
    const shape of = f->of;
    local_mask *l = vocab_local_get(c->v, of);
    if (!l) {
        l = make(c, r, state, of);
        if (!l) return NULL;
        l = vocab_local_put(c->v, l);
    }
    c->local_bytes += local_mask_bytes(l, c->v->words);
    return c->locals.p[state] = l;
}
