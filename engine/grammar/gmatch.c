/* gmatch.c - one text under one grammar: tokens taken, taken back, foreseen.
 * Owns histories and the masks handed out.  Refuses what gmatch.h says.  Thread: any; all work on
 * the automaton is done under the grammar's lock. */
#include "engine/grammar/gmatch.h"
#include "engine/grammar/masks.h"

#include <unistd.h>

enum {
    FUEL = 10000,        /* that a token, a mask or a look at the end may cost, */
    MASK_NODES = 400000, /* and nodes of tries that a mask may walk, */
    FINISH = 128,        /* or so many times as much off the engine's thread, */
    PORTION = 4,         /* of which at most so many while others wait for the lock */
    YIELD_US = 50,
    PREFIX_FUEL = 256000 /* a token of a text that is only looked at, or walked again */
};

struct gmatch {
    struct gmatch *next, *prev; /* of the grammar's */
    grammar *g;
    const grammar_vocab *v;
    mask_cache *masks;
    uint32_t epoch;   /* of the configurations in at; those of another are found by replay */
    VEC(uint32_t) at; /* [tok.n + 1] configuration after i tokens; GRAM_NONE: found by replay */
    VEC(int32_t) tok;
    gmask *held[GM_HELD]; /* handed out, the newest at n_held - 1 modulo GM_HELD */
    uint32_t n_held;
};

static uint32_t here(const gmatch *m)
{
    return m->at.p[m->at.n - 1];
}

static uint32_t step_named(gram *g, uint32_t c, uint32_t id)
{
    const uint8_t b[4] = {VOCAB_NAMED, (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    for (int i = 0; i < 4 && c; i++) c = gram_step(g, c, b[i]);
    return c;
}

/* The configuration after a token, 0 if it is not legal. */
static uint32_t step_token(gram *g, const grammar_vocab *v, uint32_t c, int32_t tok, uint64_t fuel)
{
    if (tok < 0 || tok >= v->rows || !c) return 0;
    if (c == AT_END || (g->configs.p[c].accept && vocab_is_end(v, tok)))
        return vocab_is_end(v, tok) ? AT_END : 0;
    g->r.fuel = fuel;
    uint32_t named = step_named(g, c, (uint32_t)tok), from = v->at[tok], to = v->at[tok + 1];
    if (from == to) return named;
    while (from < to && c) c = gram_step(g, c, v->bytes[from++]);
    return gram_union(g, c, named);
}

/* ---- an automaton that starts anew ---- */
static void set_limits(grammar *gr, size_t bytes)
{
    enum { BYTES = 32 << 20 };
    const gram *g = &gr->g;
    gr->renew_bytes = bytes * 2 > BYTES ? bytes * 2 : BYTES;
    gr->renew_nodes = g->r.nodes.n / 2 + RX_MAX_NODES / 2;
    gr->renew_configs = g->configs.n / 2 + GRAM_MAX_CONFIGS / 2;
}

/* Every matcher's newest configurations move over; the older ones are found by replay if tokens are
 * taken back that far. */
static void renew(grammar *gr)
{
    gram *g = &gr->g;
    VEC(uint32_t *) ids = {0};
    const uint32_t epoch = g->epoch;
    int rc = 0;
    for (gmatch *m = gr->matchers; m; m = m->next) {
        if (m->epoch != epoch) continue;
        for (uint32_t i = m->at.n > GM_HELD ? m->at.n - GM_HELD : 0; i < m->at.n; i++)
            if (m->at.p[i] != GRAM_NONE && m->at.p[i] != AT_END) VEC_PUSH(&rc, ids, &m->at.p[i]);
    }
    bool moved = !rc && !gram_move(g, ids.p, ids.n);
    if (!moved) gram_restart(g);
    for (gmatch *m = gr->matchers; m && moved; m = m->next) {
        if (m->epoch != epoch) continue;
        for (uint32_t i = 0; i + GM_HELD < m->at.n; i++) m->at.p[i] = GRAM_NONE;
        m->epoch = g->epoch;
    }
    free(ids.p);
    for (mask_cache *c = gr->masks; c; c = c->next) mask_cache_sync(c, g);
    grammar_tell_bytes(gr);
    set_limits(gr, grammar_bytes(gr));
}

/* Finds the configurations that are not known. */
static int replay(gmatch *m)
{
    gram *g = &m->g->g;
    uint32_t i = m->at.n - 1;
    if (m->epoch == g->epoch)
        while (i && m->at.p[i] == GRAM_NONE) i--;
    else i = 0;
    if (!i) m->at.p[0] = g->start;
    for (; i < m->tok.n && !g->r.status; i++)
        m->at.p[i + 1] = step_token(g, m->v, m->at.p[i], m->tok.p[i], PREFIX_FUEL);
    if (!g->r.status) m->epoch = g->epoch;
    return g->r.status;
}

/* Under the lock: an automaton in working order and of bearable size, which knows where m is.  What
 * was only out of fuel goes on where it was. */
static int ready(gmatch *m)
{
    grammar *gr = m->g;
    gram *g = &gr->g;
    if (g->r.status == ERR_LIMIT && !g->r.fuel) g->r.status = 0;
    if (!gr->renew_bytes) set_limits(gr, 0);
    if (g->r.status || g->r.nodes.n > gr->renew_nodes || g->configs.n > gr->renew_configs ||
        grammar_bytes(gr) > gr->renew_bytes)
        renew(gr);
    for (mask_cache *c = gr->masks; c; c = c->next) mask_cache_sync(c, g);
    if (!g->r.status && (m->epoch != g->epoch || here(m) == GRAM_NONE)) replay(m);
    return g->r.status;
}

static int enter(gmatch *m)
{
    pthread_mutex_lock(&m->g->lock);
    return ready(m);
}

static int leave(gmatch *m, int rc)
{
    grammar_tell_bytes(m->g);
    pthread_mutex_unlock(&m->g->lock);
    return rc;
}

/* Whether a call ended at the size of the automaton, which may be less in a fresh one. */
static bool too_large(const gram *g)
{
    return g->r.status == ERR_LIMIT && g->r.fuel;
}

/* The status of a call: out of fuel it may go on later, from all that it found out. */
static int outcome(const gram *g)
{
    return g->r.status == ERR_LIMIT && !g->r.fuel ? GM_LATER : g->r.status;
}

/* Work off the engine's thread is done in portions: others get the lock in between. */
typedef struct {
    uint32_t times, done; /* as much as one call; so much before */
} portion;

static bool next_portion(portion *p)
{
    p->done += p->times;
    if (p->times < PORTION) p->times *= 2;
    if (p->done >= FINISH) return false;
    usleep(YIELD_US);
    return true;
}

/* ---- matchers ---- */
gmatch *gmatch_new(grammar *g, const grammar_vocab *v)
{
    gmatch *m = calloc(1, sizeof *m);
    int rc = 0;
    if (!m) return NULL;
    m->g = grammar_ref(g);
    m->v = v;
    VEC_PUSH(&rc, m->at, GRAM_NONE);
    pthread_mutex_lock(&g->lock);
    m->masks = mask_cache_of(g, v);
    m->next = g->matchers;
    if (m->next) m->next->prev = m;
    g->matchers = m;
    pthread_mutex_unlock(&g->lock);
    if (!rc && m->masks) return m;
    gmatch_free(m);
    return NULL;
}

gmatch *gmatch_clone(const gmatch *m)
{
    gmatch *c = gmatch_new(m->g, m->v);
    int rc = c ? 0 : ERR_NOMEM;
    if (rc) return NULL;
    pthread_mutex_lock(&m->g->lock);
    c->epoch = m->epoch;
    c->at.p[0] = m->at.p[0];
    for (uint32_t i = 0; i < m->tok.n && !rc; i++) {
        VEC_PUSH(&rc, c->at, m->at.p[i + 1]);
        if (!rc) VEC_PUSH(&rc, c->tok, m->tok.p[i]);
    }
    pthread_mutex_unlock(&m->g->lock);
    if (!rc) return c;
    gmatch_free(c);
    return NULL;
}

void gmatch_free(gmatch *m)
{
    if (!m) return;
    pthread_mutex_lock(&m->g->lock);
    if (m->prev) m->prev->next = m->next;
    else m->g->matchers = m->next;
    if (m->next) m->next->prev = m->prev;
    for (int i = 0; i < GM_HELD; i++) gmask_release(m->held[i]);
    pthread_mutex_unlock(&m->g->lock);
    grammar_release(m->g);
    free(m->at.p);
    free(m->tok.p);
    free(m);
}

static int accept_token(gmatch *m, int32_t tok, uint64_t fuel)
{
    int rc = enter(m);
    gram *g = &m->g->g;
    uint32_t c = rc ? 0 : step_token(g, m->v, here(m), tok, fuel);
    if (!rc && too_large(g) && !ready(m)) c = step_token(g, m->v, here(m), tok, fuel);
    rc = g->r.status ? outcome(g) : c ? 0 : ERR_INVALID;
    if (rc) return leave(m, rc);
    VEC_PUSH(&rc, m->at, c);
    if (rc) return leave(m, rc);
    VEC_PUSH(&rc, m->tok, tok);
    if (rc) m->at.n--;
    return leave(m, rc);
}

int gmatch_accept(gmatch *m, int32_t tok)
{
    return accept_token(m, tok, FUEL);
}

int gmatch_take(gmatch *m, int32_t tok)
{
    portion p = {1, 0};
    int rc;
    do rc = accept_token(m, tok, (uint64_t)p.times * FUEL);
    while (rc == GM_LATER && next_portion(&p));
    return rc == GM_LATER ? ERR_LIMIT : rc;
}

int gmatch_prefix(gmatch *m, const int32_t *tok, int n)
{
    int rc = enter(m), i = 0;
    gram *g = &m->g->g;
    if (rc) return leave(m, rc);
    uint32_t c = here(m);
    for (; i < n; i++) {
        c = step_token(g, m->v, c, tok[i], PREFIX_FUEL);
        if (!c || g->r.status) break;
    }
    return leave(m, g->r.status ? g->r.status : i);
}

void gmatch_rollback(gmatch *m, int k)
{
    uint32_t n = k < 0 ? 0 : (uint32_t)k < m->tok.n ? (uint32_t)k : m->tok.n;
    pthread_mutex_lock(&m->g->lock);
    m->tok.n -= n;
    m->at.n -= n;
    pthread_mutex_unlock(&m->g->lock);
}

int gmatch_forced(gmatch *m, uint8_t *out, int cap)
{
    int rc = enter(m), n = 0;
    gram *g = &m->g->g;
    if (rc) return leave(m, rc);
    g->r.fuel = FUEL;
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
    rc = outcome(g);
    return leave(m, rc == GM_LATER || !rc ? n : rc);
}

static int look_for_end(gmatch *m, uint64_t fuel, bool *done)
{
    int rc = enter(m);
    gram *g = &m->g->g;
    uint32_t c = rc ? 0 : here(m);
    if (!rc) *done = c == AT_END;
    if (rc || *done) return leave(m, rc);
    bool more = !g->configs.p[c].accept;
    g->r.fuel = fuel;
    for (uint32_t k = 0; k < g->r.n_cls && !more; k++) more = gram_step(g, c, g->r.rep[k]) != 0;
    *done = !more && !g->r.status;
    return leave(m, outcome(g));
}

int gmatch_done(gmatch *m, bool *done)
{
    return look_for_end(m, FUEL, done);
}

int gmatch_settle(gmatch *m, bool *done)
{
    portion p = {1, 0};
    int rc;
    do rc = look_for_end(m, (uint64_t)p.times * FUEL, done);
    while (rc == GM_LATER && next_portion(&p));
    return rc == GM_LATER ? ERR_LIMIT : rc;
}

static int make_mask(gmatch *m, uint32_t times, const uint32_t **bits, uint64_t *mask_id)
{
    gram *g = &m->g->g;
    int rc = enter(m);
    if (rc) return leave(m, rc);
    mask_allow(m->masks, g, (uint64_t)times * FUEL, (uint64_t)times * MASK_NODES);
    gmask *k = mask_of(m->masks, g, here(m));
    if (!k && g->r.status == ERR_LIMIT)
        return leave(m, GM_LATER); /* it may fit a fresh automaton */
    if (!k) return leave(m, g->r.status ? g->r.status : ERR_INVALID);
    gmask **held = &m->held[m->n_held++ % GM_HELD];
    gmask_release(*held);
    *held = k;
    *bits = k->bits;
    *mask_id = k->id;
    return leave(m, 0);
}

int gmatch_mask(gmatch *m, const uint32_t **bits, uint64_t *mask_id)
{
    return make_mask(m, 1, bits, mask_id);
}

int gmatch_finish(gmatch *m, const uint32_t **bits, uint64_t *mask_id)
{
    portion p = {1, 0};
    int rc;
    do rc = make_mask(m, p.times, bits, mask_id);
    while (rc == GM_LATER && next_portion(&p));
    return rc == GM_LATER ? ERR_LIMIT : rc;
}

int gmatch_length(const gmatch *m)
{
    return (int)m->tok.n;
}
