/* grammar.c - compiled grammars: references, what a refusal is called, and whether a text is in the
 * language.
 * Owns the automaton behind one lock.  Refuses by code and message; never compiles loosely.
 * Thread: any. */
#include "engine/grammar/answer.h"
#include "engine/grammar/masks.h"

/* A compile may cost this many derivatives and looks at schemas, a text this many derivatives; past
 * REWIND nodes the automaton is started anew before the next text. */
enum {
    COMPILE_FUEL = 10000000,
    COMPILE_UNITS = 500000,
    COMPILE_SECONDS = 2, /* of the thread's CPU time, behind the counted limits */
    MAX_TRIES = 4,       /* each lets more tools give way */
    TEXT_FUEL = 2000000,
    REWIND = 300000,
    REWIND_CONFIGS = 30000
};

/* The refusal of what gram_finish or the arena's limits said. */
static int refuse(int rc, grammar_error *why)
{
    switch (rc) {
    case ERR_INVALID:
        why->code = "unsatisfiable_schema";
        return err_set(&why->e, rc, "nothing at all satisfies it");
    case ERR_UNSUPPORTED:
        why->code = "invalid_schema";
        return err_set(&why->e, rc,
                       "keyword \"$ref\": a reference leads back to itself without a "
                       "value in between");
    case ERR_LIMIT:
        why->code = "grammar_too_complex";
        return err_set(&why->e, rc,
                       "the grammar needs more than %d derivatives, %u expressions, %d nodes or %d "
                       "alternatives at once",
                       COMPILE_FUEL, RX_MAX_NODES, GRAM_MAX_NODES, GRAM_MAX_THREADS);
    default: return err_set(&why->e, rc, "out of memory for the grammar");
    }
}

/* One try.  *pruned: the nodes were made and what cannot be completed is gone from them. */
static int compile(gram *g, const grammar_answer *a, answer_plan *p, grammar_error *why,
                   bool *pruned)
{
    uint32_t root = 0;
    *why = (grammar_error){.tool = -1};
    *pruned = false;
    int rc = gram_init(g);
    g->r.fuel = COMPILE_FUEL;
    g->units = COMPILE_UNITS;
    g->deadline = gram_cpu_seconds() + COMPILE_SECONDS;
    if (!rc) rc = answer_build(g, a, p, why, &root);
    if (g->r.status) { /* whatever was refused after that was refused for nothing */
        *why = (grammar_error){.tool = p->tool};
        return refuse(g->r.status, why);
    }
    if (rc) return rc;
    rc = gram_finish(g, root);
    *pruned = rc == 0 || rc == ERR_INVALID;
    return rc ? refuse(rc, why) : 0;
}

/* A tool whose schema may give way to any object. */
static bool gives_way(const grammar_answer *a, const answer_plan *p, int i)
{
    const grammar_tool *t = &a->tools[i];
    return a->calls == GRAMMAR_CALLS_REQUIRED && t->allowed && !t->strict && !t->custom &&
           t->schema && !p->any[i];
}

/* Whether tools that are to blame for the outcome gave way, so that another try is worth it.  A
 * tool that no call satisfies and that does not give way is refused. */
static bool try_again(const gram *g, const grammar_answer *a, answer_plan *p, bool pruned, int *rc,
                      grammar_error *why)
{
    bool again = false;
    for (int i = 0; i < a->n_tools; i++) {
        bool never = pruned && p->args[i] != GRAM_NONE && gram_never(g, p->args[i]);
        bool too_much = *rc == ERR_LIMIT && (p->tool < 0 || p->tool == i);
        if ((never || too_much) && gives_way(a, p, i)) {
            again = p->any[i] = true;
        } else if (never) {
            why->tool = i;
            *rc = refuse(ERR_INVALID, why);
            return false;
        }
    }
    return again;
}

static void forget(relaxed_list *l)
{
    for (uint32_t i = 0; i < l->n; i++) free(l->p[i].pointer);
    free(l->p);
    *l = (relaxed_list){0};
}

int grammar_compile_answer(const grammar_answer *a, grammar **out, grammar_error *why)
{
    grammar *g = calloc(1, sizeof *g);
    size_t n = (size_t)a->n_tools + 1;
    answer_plan p = {.any = calloc(n, sizeof *p.any), .args = malloc(n * sizeof *p.args)};
    int rc = g && p.any && p.args ? 0 : ERR_NOMEM;
    *why = (grammar_error){.tool = -1};
    if (rc) err_set(&why->e, rc, "out of memory for the grammar");
    for (int i = 0; !rc && i < MAX_TRIES; i++) {
        bool pruned;
        gram_clear(&g->g);
        forget(&p.relaxed);
        for (int k = 0; k < a->n_tools; k++) p.args[k] = GRAM_NONE;
        rc = compile(&g->g, a, &p, why, &pruned);
        if (!try_again(&g->g, a, &p, pruned, &rc, why)) break;
        rc = i + 1 < MAX_TRIES ? 0 : rc ? rc : refuse(ERR_LIMIT, why);
    }
    free(p.any);
    free(p.args);
    if (!rc) rc = pthread_mutex_init(&g->lock, NULL) ? ERR_NOMEM : 0;
    if (rc) {
        forget(&p.relaxed);
        if (g) gram_clear(&g->g);
        free(g);
        return rc;
    }
    g->relaxed = p.relaxed;
    atomic_init(&g->refs, 1);
    atomic_init(&g->bytes, grammar_held(g));
    *out = g;
    return 0;
}

const grammar_relaxed *grammar_relaxed_places(const grammar *g, size_t *n)
{
    *n = g->relaxed.n;
    return g->relaxed.p;
}

int grammar_compile(const grammar_spec *spec, grammar **out, grammar_error *why)
{
    return grammar_compile_answer(&(grammar_answer){.body = spec}, out, why);
}

grammar *grammar_ref(grammar *g)
{
    atomic_fetch_add(&g->refs, 1);
    return g;
}

void grammar_release(grammar *g)
{
    if (!g || atomic_fetch_sub(&g->refs, 1) > 1) return;
    pthread_mutex_destroy(&g->lock);
    forget(&g->relaxed);
    mask_cache_free(g->masks);
    gram_clear(&g->g);
    free(g);
}

size_t grammar_held(const grammar *g)
{
    size_t n = sizeof *g + gram_bytes(&g->g);
    for (const mask_cache *c = g->masks; c; c = c->next) n += mask_cache_bytes(c);
    return n;
}

void grammar_tell_bytes(grammar *g)
{
    atomic_store_explicit(&g->bytes, grammar_held(g), memory_order_relaxed);
}

size_t grammar_bytes(const grammar *g)
{
    return atomic_load_explicit(&g->bytes, memory_order_relaxed);
}

int grammar_accepts(grammar *gr, const char *text, size_t n)
{
    gram *g = &gr->g;
    pthread_mutex_lock(&gr->lock);
    int rc = 0;
    if (g->r.status || g->r.nodes.n > REWIND || g->configs.n > REWIND_CONFIGS) rc = gram_restart(g);
    g->r.fuel = TEXT_FUEL;
    uint32_t c = g->start;
    for (size_t i = 0; i < n && c && !rc; i++) c = gram_step(g, c, (uint8_t)text[i]);
    if (!rc) rc = g->r.status;
    if (!rc) rc = g->configs.p[c].accept;
    grammar_tell_bytes(gr);
    pthread_mutex_unlock(&gr->lock);
    return rc;
}
