/* cache.h - compiled grammars, kept: the last 256 or 256 MiB of them (with what their automata have
 * grown to), by everything they were compiled from.  A request for one that is being compiled waits
 * for it; refusals are kept like grammars.
 * All specifications of one cache name tokens of one tokenizer.  Owns a reference to each grammar;
 * one that is pushed out lives on with its users.  Thread: any. */
#ifndef QUERN_ENGINE_GRAMMAR_CACHE_H
#define QUERN_ENGINE_GRAMMAR_CACHE_H

#include "engine/grammar/grammar.h"

typedef struct grammar_cache grammar_cache;

grammar_cache *grammar_cache_new(void);    /* NULL without memory */
void grammar_cache_free(grammar_cache *c); /* nobody uses it any more; NULL is allowed */
/* As grammar_compile_answer; *hit: it was there, or another call was making it.  Without memory it
 * is compiled all the same, if that is possible. */
int grammar_cache_get(grammar_cache *c, const grammar_answer *a, grammar **out, grammar_error *why,
                      bool *hit);
/* The same without compiling or waiting: *hit is false where that would be needed. */
int grammar_cache_find(grammar_cache *c, const grammar_answer *a, grammar **out, grammar_error *why,
                       bool *hit);

#endif
