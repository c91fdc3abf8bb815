/* answer.h - inside the grammar compiler: what a whole generation may be, as nodes.
 * Thread: one compile, one thread. */
#ifndef QUERN_ENGINE_GRAMMAR_ANSWER_H
#define QUERN_ENGINE_GRAMMAR_ANSWER_H

#include "engine/grammar/grammar_impl.h"

/* What a compile learns about the tools. */
typedef struct {
    bool *any;      /* [n_tools] in: this tool's schema was too much for the whole, any object will
                       do; only tools that may be relaxed */
    uint32_t *args; /* [n_tools] out: the node of its arguments, GRAM_NONE if it cannot be called */
    int tool;       /* out: the tool at hand, -1 */
    relaxed_list relaxed;
    uint32_t late; /* out: an open thought that ends in calls (R7), GRAM_NONE: as any thought */
} answer_plan;

/* The node of a whole answer.  0, or ERR_* with why->code set where the request is at fault (the
 * arena's status is looked at by the caller). */
int answer_build(gram *g, const grammar_answer *a, answer_plan *p, grammar_error *why,
                 uint32_t *root);
/* answer_calls.c: the whole without a thought; body is the node of the body, if there is one. */
int answer_calls(gram *g, const grammar_answer *a, answer_plan *p, uint32_t body,
                 grammar_error *why, uint32_t *root);
/* What JSON strings of the body must be in, so that the parser of calls finds none in them. */
rx answer_guard(gram *g, const grammar_answer *a);
/* Whether the answer may be any text (but for calls). */
bool answer_is_text(const grammar_answer *a);

rx answer_thought(gram *g);            /* text of a thought, without its end */
rx answer_any(gram *g);                /* any bytes but 0xFF */
rx answer_space(gram *g, uint32_t n);  /* at most n characters of white space */
rx answer_without(gram *g, rx banned); /* any bytes without what is banned anywhere in them */

#endif
