/* grammar_impl.h - what a compiled grammar is made of, for those that compile it and those that
 * match with it.  Thread: the automaton is touched under the lock only. */
#ifndef QUERN_ENGINE_GRAMMAR_GRAMMAR_IMPL_H
#define QUERN_ENGINE_GRAMMAR_GRAMMAR_IMPL_H

#include "engine/grammar/gram.h"
#include "engine/grammar/grammar.h"

#include <pthread.h>
#include <stdatomic.h>

typedef VEC(grammar_relaxed) relaxed_list;

struct grammar {
    atomic_int refs;
    atomic_size_t bytes; /* held when it was last used */
    pthread_mutex_t lock;
    gram g;
    relaxed_list relaxed;
    struct mask_cache *masks; /* one a vocabulary */
    struct gmatch *matchers;  /* all there are */
    size_t renew_bytes;       /* beyond which the automaton starts anew; 0: as at the beginning */
    uint32_t renew_nodes, renew_configs;
};

/* What it holds now, under the lock; and for those without: what grammar_bytes says from now on. */
size_t grammar_held(const grammar *g);
void grammar_tell_bytes(grammar *g);
void mask_cache_free(struct mask_cache *c);

#endif
