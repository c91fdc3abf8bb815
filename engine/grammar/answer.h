/* answer.h - inside the grammar compiler: what a whole generation may be, as nodes.
 * Thread: one compile, one thread. */
#ifndef QUERN_ENGINE_GRAMMAR_ANSWER_H
#define QUERN_ENGINE_GRAMMAR_ANSWER_H

#include "engine/grammar/gram.h"
#include "engine/grammar/grammar.h"

/* The node of a whole answer; of a specification alone.  0, or ERR_* with why->code set where the
 * request is at fault (the arena's status is looked at by the caller). */
int answer_build(gram *g, const grammar_answer *a, grammar_error *why, uint32_t *root);
int answer_spec(gram *g, const grammar_spec *s, grammar_error *why, uint32_t *root);

/* Texts of any bytes that do not hold `until` (NULL: any text). */
rx answer_text(gram *g, const char *until);
/* At most n characters of white space. */
rx answer_space(gram *g, uint32_t n);

#endif
