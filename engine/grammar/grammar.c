/* grammar.c - compiled grammars: the three kinds of specification, references, and whether a text
 * is in the language.
 * Owns the automaton behind one lock.  Refuses by code and message; never compiles loosely.
 * Thread: any. */
#include "engine/grammar/grammar.h"
#include "engine/grammar/ecma.h"
#include "engine/grammar/schema.h"

#include <pthread.h>
#include <stdatomic.h>

/* A compile may cost this many derivatives, a text this many; past REWIND nodes the automaton is
 * started anew before the next text. */
enum { COMPILE_FUEL = 10000000, TEXT_FUEL = 2000000, REWIND = 300000, REWIND_CONFIGS = 30000 };

struct grammar {
    atomic_int refs;
    pthread_mutex_t lock;
    gram g;
};

static int compile_regex(gram *g, const grammar_spec *s, grammar_error *why, uint32_t *root)
{
    const char *words;
    rx e = ecma_pattern(&g->r, s->text, s->n, true, &words);
    if (words) {
        why->code = "unsupported_schema";
        return err_set(&why->e, ERR_UNSUPPORTED, "regex: %s", words);
    }
    *root = gram_term(g, rx_live(&g->r, e) ? e : R_NONE);
    return g->r.status;
}

static int compile_choice(gram *g, const grammar_spec *s, grammar_error *why, uint32_t *root)
{
    VEC(rx_text) v = {0};
    for (size_t i = 0; i < s->n_choices && !g->r.status; i++)
        VEC_PUSH(&g->r.status, v, (rx_text){s->choices[i], (uint32_t)strlen(s->choices[i])});
    for (uint32_t i = 0; i < v.n; i++)
        if (!v.p[i].n && !why->code) {
            why->code = "invalid_grammar";
            err_set(&why->e, ERR_INVALID, "choice: entry %u is empty", i);
        }
    if (!why->code && !g->r.status) *root = gram_term(g, rx_texts(&g->r, v.p, v.n));
    free(v.p);
    return why->code ? why->e.code : g->r.status;
}

static int compile(gram *g, const grammar_spec *s, grammar_error *why)
{
    uint32_t root = 0;
    int rc = 0;
    g->r.fuel = COMPILE_FUEL;
    g->free_order = s->free_order;
    switch (s->kind) {
    case GRAMMAR_SCHEMA: rc = schema_compile(g, s->text, s->n, why, &root); break;
    case GRAMMAR_JSON_OBJECT: {
        const uint32_t parts[3] = {gram_term(g, g->ws), gram_node(g, G_OBJ, 0, 0),
                                   gram_term(g, g->ws)};
        root = gram_list(g, G_SEQ, parts, 3);
        break;
    }
    case GRAMMAR_REGEX: rc = compile_regex(g, s, why, &root); break;
    case GRAMMAR_CHOICE: rc = compile_choice(g, s, why, &root); break;
    }
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

int grammar_compile(const grammar_spec *spec, grammar **out, grammar_error *why)
{
    grammar *g = calloc(1, sizeof *g);
    *why = (grammar_error){0};
    if (!g) return err_set(&why->e, ERR_NOMEM, "out of memory for the grammar");
    int rc = gram_init(&g->g);
    if (rc) err_set(&why->e, rc, "out of memory for the grammar");
    if (!rc) rc = compile(&g->g, spec, why);
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
