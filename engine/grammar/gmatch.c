/* gmatch.c - one text under one grammar: tokens taken, taken back, foreseen.
 * Owns histories and the masks handed out.  Refuses what gmatch.h says.  Thread: any; all work on
 * the automaton is done under the grammar's lock. */
#include "engine/grammar/gmatch_impl.h"

/* Derivatives one token, and one mask, may cost. */
enum { TOKEN_FUEL = 256000, MASK_FUEL = 4000, FINISH = 64 };

static uint32_t step_named(gram *g, uint32_t c, uint32_t id)
{
    const uint8_t b[4] = {VOCAB_NAMED, (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    for (int i = 0; i < 4 && c; i++) c = gram_step(g, c, b[i]);
    return c;
}

/* The configuration after a token, 0 if it is not legal. */
static uint32_t step_token(gram *g, const grammar_vocab *v, uint32_t c, int32_t tok)
{
    if (tok < 0 || tok >= v->rows || !c) return 0;
    if (c == AT_END || (g->configs.p[c].accept && vocab_is_end(v, tok)))
        return vocab_is_end(v, tok) ? AT_END : 0;
    uint32_t named = step_named(g, c, (uint32_t)tok), from = v->at[tok], to = v->at[tok + 1];
    if (from == to) return named;
    while (from < to && c) c = gram_step(g, c, v->bytes[from++]);
    return gram_union(g, c, named);
}

/* Walks the history again after the automaton started anew. */
static int replay(gmatch *m)
{
    gram *g = &m->g->g;
    m->at.p[0] = g->start;
    for (uint32_t i = 0; i < m->tok.n && !g->r.status; i++) {
        g->r.fuel = TOKEN_FUEL;
        m->at.p[i + 1] = step_token(g, m->v, m->at.p[i], m->tok.p[i]);
    }
    if (!g->r.status) m->epoch = g->epoch;
    return g->r.status;
}

/* Under the lock: the automaton in working order, the matcher in its epoch. */
static int enter(gmatch *m)
{
    gram *g = &m->g->g;
    pthread_mutex_lock(&m->g->lock);
    if (gram_recover(g) == 0 && gram_bytes(g) > GM_AUTOMATON) gram_restart(g);
    if (!g->r.status && m->epoch != g->epoch) replay(m);
    return g->r.status;
}

static int leave(gmatch *m, int rc)
{
    pthread_mutex_unlock(&m->g->lock);
    return rc;
}

static uint32_t here(const gmatch *m)
{
    return m->at.p[m->at.n - 1];
}

gmatch *gmatch_new(grammar *g, const grammar_vocab *v)
{
    gmatch *m = calloc(1, sizeof *m);
    int rc = 0;
    if (!m) return NULL;
    m->g = grammar_ref(g);
    m->v = v;
    VEC_PUSH(&rc, m->at, 0);
    if (!rc) return m;
    gmatch_free(m);
    return NULL;
}

gmatch *gmatch_clone(const gmatch *m)
{
    gmatch *c = gmatch_new(m->g, m->v);
    int rc = c ? 0 : ERR_NOMEM;
    if (rc) return NULL;
    c->epoch = m->epoch;
    c->at.p[0] = m->at.p[0];
    for (uint32_t i = 0; i < m->tok.n && !rc; i++) {
        VEC_PUSH(&rc, c->tok, m->tok.p[i]);
        VEC_PUSH(&rc, c->at, m->at.p[i + 1]);
    }
    if (!rc) return c;
    gmatch_free(c);
    return NULL;
}

void gmatch_free(gmatch *m)
{
    if (!m) return;
    for (int i = 0; i < GM_HELD; i++) free(m->held[i]);
    free(m->at.p);
    free(m->tok.p);
    grammar_release(m->g);
    free(m);
}

int gmatch_accept(gmatch *m, int32_t tok)
{
    int rc = enter(m);
    gram *g = &m->g->g;
    if (rc) return leave(m, rc);
    g->r.fuel = TOKEN_FUEL;
    uint32_t c = step_token(g, m->v, here(m), tok);
    rc = g->r.status ? g->r.status : c ? 0 : ERR_INVALID;
    if (rc) return leave(m, rc);
    VEC_PUSH(&rc, m->at, c);
    if (rc) return leave(m, rc);
    VEC_PUSH(&rc, m->tok, tok);
    if (rc) m->at.n--;
    return leave(m, rc);
}

int gmatch_prefix(gmatch *m, const int32_t *tok, int n)
{
    int rc = enter(m), i = 0;
    gram *g = &m->g->g;
    if (rc) return leave(m, rc);
    uint32_t c = here(m);
    for (; i < n; i++) {
        g->r.fuel = TOKEN_FUEL;
        c = step_token(g, m->v, c, tok[i]);
        if (!c || g->r.status) break;
    }
    return leave(m, g->r.status ? g->r.status : i);
}

void gmatch_rollback(gmatch *m, int k)
{
    uint32_t n = k < 0 ? 0 : (uint32_t)k < m->tok.n ? (uint32_t)k : m->tok.n;
    m->tok.n -= n;
    m->at.n -= n;
}

int gmatch_forced(gmatch *m, uint8_t *out, int cap)
{
    int rc = enter(m), n = 0;
    gram *g = &m->g->g;
    if (rc) return leave(m, rc);
    g->r.fuel = TOKEN_FUEL;
    uint32_t c = here(m);
    while (n < cap && c != AT_END && !g->configs.p[c].accept) {
        uint32_t next = 0, d;
        int only = -1;
        for (int b = 0; b < 256 && only > -2 && !g->r.status; b++)
            if ((d = gram_step(g, c, (uint8_t)b))) {
                only = only == -1 ? b : -2;
                next = d;
            }
        if (only < 0 || only == VOCAB_NAMED || g->r.status) break;
        out[n++] = (uint8_t)only;
        c = next;
    }
    return leave(m, g->r.status ? g->r.status : n);
}

bool gmatch_done(gmatch *m)
{
    int rc = enter(m);
    gram *g = &m->g->g;
    uint32_t c = rc ? 0 : here(m);
    if (rc || c == AT_END) return leave(m, !rc);
    bool more = !g->configs.p[c].accept;
    g->r.fuel = TOKEN_FUEL;
    for (uint32_t k = 0; k < g->r.n_cls && !more; k++) more = gram_step(g, c, g->r.rep[k]) != 0;
    return leave(m, !more && !g->r.status);
}

static int make_mask(gmatch *m, uint64_t fuel, const uint32_t **bits, uint64_t *mask_id)
{
    static _Atomic uint64_t ids = 1;
    int rc = enter(m);
    gram *g = &m->g->g;
    if (rc) return leave(m, rc);
    uint32_t *b = malloc(m->v->words * sizeof *b), any = 0;
    if (!b) return leave(m, ERR_NOMEM);
    g->r.fuel = fuel;
    gmask_plain(g, m->v, here(m), b);
    for (uint32_t i = 0; i < m->v->words; i++) any |= b[i];
    rc = g->r.status == ERR_LIMIT && !g->r.fuel ? GM_LATER
         : g->r.status                          ? g->r.status
         : any                                  ? 0
                                                : ERR_INVALID;
    if (rc) {
        free(b);
        return leave(m, rc);
    }
    free(m->held[m->n_held % GM_HELD]);
    *bits = m->held[m->n_held++ % GM_HELD] = b;
    *mask_id = atomic_fetch_add(&ids, 1);
    return leave(m, 0);
}

int gmatch_mask(gmatch *m, const uint32_t **bits, uint64_t *mask_id)
{
    return make_mask(m, MASK_FUEL, bits, mask_id);
}

int gmatch_finish(gmatch *m)
{
    const uint32_t *bits;
    uint64_t id;
    int rc = make_mask(m, (uint64_t)FINISH * MASK_FUEL, &bits, &id);
    return rc == GM_LATER ? ERR_LIMIT : rc;
}

int gmatch_length(const gmatch *m)
{
    return (int)m->tok.n;
}
