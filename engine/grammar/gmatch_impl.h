/* gmatch_impl.h - inside the grammar engine: what a matcher holds.
 * Thread: the matcher's user. */
#ifndef QUERN_ENGINE_GRAMMAR_GMATCH_IMPL_H
#define QUERN_ENGINE_GRAMMAR_GMATCH_IMPL_H

#include "engine/grammar/gmatch.h"
#include "engine/grammar/grammar_impl.h"
#include "engine/grammar/vocab_impl.h"

#define AT_END 0xfffffffeu /* in place of a configuration: after an end token */
enum { GM_AUTOMATON = 32 << 20 /* bytes, beyond which the automaton starts anew */ };

struct gmatch {
    grammar *g;
    const grammar_vocab *v;
    uint32_t epoch;   /* of the configurations in at; those of another are found by replay */
    VEC(uint32_t) at; /* [tok.n + 1] configuration after i tokens */
    VEC(int32_t) tok;
    uint32_t *held[GM_HELD]; /* masks handed out, newest at n_held - 1 modulo GM_HELD */
    uint32_t n_held;
};

/* gmask.c */
void gmask_walk(gram *g, uint32_t c, const trie *t, uint32_t i, uint32_t end, uint32_t *bits);
void gmask_finish(gram *g, const grammar_vocab *v, uint32_t c, uint32_t *bits);
void gmask_plain(gram *g, const grammar_vocab *v, uint32_t c, uint32_t *bits);

#endif
