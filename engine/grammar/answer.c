/* answer.c - a whole generation as one automaton: a thought that the prompt left open or the model
 * may open, then the answer.  Thought and free text are any bytes (but 0xFF, which spells tokens
 * that are named by id), so unconstrained parts stay unconstrained.
 * Owns nothing.  Refuses by code and message.  Thread: one compile, one thread. */
#include "engine/grammar/answer.h"
#include "engine/grammar/ecma.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/schema.h"

enum { SPACE_AFTER_THOUGHT = 4 };

static const char OPEN[] = "<think>", CLOSE[] = "</think>";

/* ---- pieces ---- */
rx answer_any(gram *g)
{
    return rx_star(&g->r, rx_range(&g->r, 0, 0xfe));
}

rx answer_without(gram *g, rx banned)
{
    return rx_and2(&g->r, answer_any(g), rx_not(&g->r, rx_cat3(&g->r, R_ALL, banned, R_ALL)));
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
    rx e = ecma_pattern(&g->r, s->text, s->n, ECMA_WHOLE, &words);
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

static int build_body(gram *g, const grammar_spec *s, rx guard, grammar_error *why, uint32_t *root)
{
    g->free_order = s->free_order;
    switch (s->kind) {
    case GRAMMAR_SCHEMA: return schema_compile(g, s->text, s->n, guard, why, root);
    case GRAMMAR_JSON_OBJECT: {
        uint32_t object = gram_node(g, G_OBJ, 0, 0);
        if (guard != R_ALL) gram_any(g, guard, &object);
        const uint32_t parts[3] = {gram_term(g, g->ws), object, gram_term(g, g->ws)};
        *root = gram_list(g, G_SEQ, parts, 3);
        return 0;
    }
    case GRAMMAR_REGEX: return compile_regex(g, s, why, root);
    case GRAMMAR_CHOICE: return compile_choice(g, s, why, root);
    case GRAMMAR_GBNF: return gbnf_compile(g, s, why, root);
    }
    return err_set(&why->e, ERR_INVALID, "unknown kind of grammar");
}

/* ---- the whole ---- */

rx answer_thought(gram *g)
{
    return answer_without(g, rx_str(&g->r, CLOSE));
}

/* The rest of an open thought, then the answer; nothing but a thought will do where any text will.
 * If arguments are held to anything, one that ends in calls must be held to it too. */
static uint32_t thought(gram *g, uint32_t answer, uint32_t late, bool text)
{
    rx_arena *r = &g->r;
    rx inside = answer_thought(g), end = inside;
    rx closed = rx_cat3(r, inside, rx_str(r, CLOSE), answer_space(g, SPACE_AFTER_THOUGHT));
    if (late != GRAM_NONE) end = rx_and2(r, inside, answer_without(g, rx_str(r, "<tool_call>")));
    const uint32_t parts[2] = {gram_term(g, closed), answer},
                   ways[3] = {gram_list(g, G_SEQ, parts, 2), gram_term(g, end), late};
    return gram_list(g, G_ALT, ways, !text ? 1 : late == GRAM_NONE ? 2 : 3);
}

int answer_build(gram *g, const grammar_answer *a, answer_plan *p, grammar_error *why,
                 uint32_t *root)
{
    rx_arena *r = &g->r;
    uint32_t answer = 0;
    int rc = 0;
    p->tool = -1;
    p->late = GRAM_NONE;
    if (a->body) rc = build_body(g, a->body, answer_guard(g, a), why, &answer);
    if (!rc && !r->status) rc = answer_calls(g, a, p, answer, why, &answer);
    if (rc || r->status) return rc;
    *root = answer;
    if (a->think == GRAMMAR_THINK_NONE) return 0;
    uint32_t open = thought(g, answer, p->late, answer_is_text(a));
    if (a->think == GRAMMAR_THINK_MAY) {
        rx tag = rx_cat(r, answer_space(g, SPACE_AFTER_THOUGHT), rx_str(r, OPEN));
        const uint32_t parts[2] = {gram_term(g, tag), open},
                       ways[2] = {gram_list(g, G_SEQ, parts, 2), answer};
        open = gram_list(g, G_ALT, ways, 2);
    }
    *root = open;
    return 0;
}
