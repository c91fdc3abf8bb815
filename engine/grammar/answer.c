/* answer.c - a whole generation as one automaton: a thought that the prompt left open or the model
 * may open, then the answer.  Thought and free text are any bytes (but 0xFF, which spells tokens
 * that are named by id), so unconstrained parts stay unconstrained.
 * Owns nothing.  Refuses by code and message.  Thread: one compile, one thread. */
#include "engine/grammar/answer.h"
#include "engine/grammar/ecma.h"
#include "engine/grammar/schema.h"

enum { SPACE_AFTER_THOUGHT = 4 };

static const char OPEN[] = "<think>", CLOSE[] = "</think>";

/* ---- pieces ---- */
rx answer_text(gram *g, const char *until)
{
    rx_arena *r = &g->r;
    rx all = rx_star(r, rx_range(r, 0, 0xfe));
    if (!until) return all;
    return rx_and2(r, all, rx_not(r, rx_cat3(r, R_ALL, rx_str(r, until), R_ALL)));
}

rx answer_space(gram *g, uint32_t n)
{
    rx_arena *r = &g->r;
    rx space = rx_alt2(r, rx_range(r, '\t', '\r'), rx_byte(r, ' '));
    return rx_rep(r, space, 0, n);
}

/* ---- specifications ---- */
static int compile_regex(gram *g, const grammar_spec *s, grammar_error *why, uint32_t *root)
{
    const char *words;
    rx e = ecma_pattern(&g->r, s->text, s->n, true, &words);
    if (words) {
        why->code = "unsupported_schema";
        return err_set(&why->e, ERR_UNSUPPORTED, "regex: %s", words);
    }
    *root = gram_term(g, rx_live(&g->r, e) ? e : R_NONE);
    return 0;
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
    return why->code ? why->e.code : 0;
}

int answer_spec(gram *g, const grammar_spec *s, grammar_error *why, uint32_t *root)
{
    g->free_order = s->free_order;
    switch (s->kind) {
    case GRAMMAR_SCHEMA: return schema_compile(g, s->text, s->n, why, root);
    case GRAMMAR_JSON_OBJECT: {
        const uint32_t parts[3] = {gram_term(g, g->ws), gram_node(g, G_OBJ, 0, 0),
                                   gram_term(g, g->ws)};
        *root = gram_list(g, G_SEQ, parts, 3);
        return 0;
    }
    case GRAMMAR_REGEX: return compile_regex(g, s, why, root);
    case GRAMMAR_CHOICE: return compile_choice(g, s, why, root);
    }
    return err_set(&why->e, ERR_INVALID, "unknown kind of grammar");
}

/* ---- the whole ---- */

/* The rest of an open thought, then the answer; nothing but a thought will do where any text
 * will. */
static uint32_t thought(gram *g, uint32_t answer, bool free_text)
{
    rx_arena *r = &g->r;
    const rx end = rx_cat(r, rx_str(r, CLOSE), answer_space(g, SPACE_AFTER_THOUGHT));
    const uint32_t inside = gram_term(g, answer_text(g, CLOSE)),
                   parts[3] = {inside, gram_term(g, end), answer},
                   ways[2] = {gram_list(g, G_SEQ, parts, 3), inside};
    return gram_list(g, G_ALT, ways, free_text ? 2 : 1);
}

int answer_build(gram *g, const grammar_answer *a, grammar_error *why, uint32_t *root)
{
    rx_arena *r = &g->r;
    uint32_t answer = 0;
    int rc = 0;
    if (a->body) rc = answer_spec(g, a->body, why, &answer);
    else answer = gram_term(g, answer_text(g, NULL));
    if (rc || r->status) return rc;
    *root = answer;
    if (a->think == GRAMMAR_THINK_NONE) return 0;
    uint32_t open = thought(g, answer, !a->body);
    if (a->think == GRAMMAR_THINK_MAY) {
        rx tag = rx_cat(r, answer_space(g, SPACE_AFTER_THOUGHT), rx_str(r, OPEN));
        const uint32_t parts[2] = {gram_term(g, tag), open},
                       ways[2] = {gram_list(g, G_SEQ, parts, 2), answer};
        open = gram_list(g, G_ALT, ways, 2);
    }
    *root = open;
    return 0;
}
