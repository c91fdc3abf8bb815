/* grammar.c - compiled grammars: references, what a refusal is called, and whether a text is in the
 * language.
 * Owns the automaton behind one lock.  Refuses by code and message; never compiles loosely.
 * Thread: any. */
#include "engine/grammar/answer.h"
#include "engine/grammar/grammar_impl.h"

/* A compile may cost this many derivatives, a text this many; past REWIND nodes the automaton is
 * started anew before the next text. */
enum { COMPILE_FUEL = 10000000, TEXT_FUEL = 2000000, REWIND = 300000, REWIND_CONFIGS = 30000 };

static int compile(gram *g, const grammar_answer *a, grammar_error *why)
{
    uint32_t root = 0;
    g->r.fuel = COMPILE_FUEL;
    int rc = answer_build(g, a, why, &root);
    if (g->r.status) { /* whatever was refused after that was refused for nothing */
        rc = g->r.status;
        *why = (grammar_error){0};
    }
    if (!rc) rc = gram_finish(g, root);
    if (!rc || why->code) return rc;
    if (rc == ERR_INVALID) {
        why->code = "unsatisfiable_schema";
        return err_set(&why->e, rc, "nothing at all satisfies it");
    }
    if (rc == ERR_UNSUPPORTED) {
        why->code = "invalid_schema";
        return err_set(&why->e, rc,
                       "keyword \"$ref\": a reference leads back to itself without a "
                       "value in between");
    }
    if (rc != ERR_LIMIT) return err_set(&why->e, rc, "out of memory for the grammar");
    why->code = "grammar_too_complex";
    return err_set(&why->e, rc,
                   "the grammar needs more than %d derivatives, %u expressions, %d nodes or %d "
                   "alternatives at once",
                   COMPILE_FUEL, RX_MAX_NODES, GRAM_MAX_NODES, GRAM_MAX_THREADS);
}

int grammar_compile_answer(const grammar_answer *a, grammar **out, grammar_error *why)
{
    grammar *g = calloc(1, sizeof *g);
    *why = (grammar_error){0};
    if (!g) return err_set(&why->e, ERR_NOMEM, "out of memory for the grammar");
    int rc = gram_init(&g->g);
    if (rc) err_set(&why->e, rc, "out of memory for the grammar");
    if (!rc) rc = compile(&g->g, a, why);
    if (!rc) rc = pthread_mutex_init(&g->lock, NULL) ? ERR_NOMEM : 0;
    if (rc) {
        gram_clear(&g->g);
        free(g);
        return rc;
    }
    atomic_init(&g->refs, 1);
    *out = g;
    return 0;
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
    gram_clear(&g->g);
    free(g);
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
    pthread_mutex_unlock(&gr->lock);
    return rc;
}
