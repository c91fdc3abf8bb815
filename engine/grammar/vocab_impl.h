/* vocab_impl.h - inside the grammar engine: the vocabulary's trie and tables.
 * Thread: const after it was made. */
#ifndef QUERN_ENGINE_GRAMMAR_VOCAB_IMPL_H
#define QUERN_ENGINE_GRAMMAR_VOCAB_IMPL_H

#include "engine/grammar/vec.h"
#include "engine/grammar/vocab.h"

enum { VOCAB_MAX_BYTES = 255, VOCAB_NAMED = 0xff /* the byte in front of an id in a grammar */ };
#define TRIE_NO_TOKEN 0xffffffu

/* Flat and depth first: the subtree of node i is [i, i + size); node 0 is the root, depth 0. */
typedef struct {
    uint32_t tok_byte;   /* token << 8 | byte */
    uint32_t size_depth; /* nodes of the subtree << 8 | depth */
} trie_node;
typedef struct {
    trie_node *node; /* [n] */
    uint32_t n;
} trie;

typedef struct {
    uint32_t id, twin;
} vocab_twin; /* two tokens of the same bytes; the trie holds id */
typedef VEC(vocab_twin) vocab_twin_list;

struct grammar_vocab {
    uint64_t serial; /* no two vocabularies of a process have the same */
    int32_t rows;
    uint32_t words;    /* of a mask */
    uint32_t *at;      /* [rows + 1] token -> first byte; equal to the next one's: no text */
    uint8_t *bytes;    /* [at[rows]] */
    uint32_t longest;  /* bytes of a token, at most */
    uint32_t *end_ids; /* [n_end] those below rows */
    uint32_t n_end;
    bool complete;
    trie full;
    vocab_twin_list twins;
};

static inline bool vocab_is_end(const grammar_vocab *v, int32_t id)
{
    for (uint32_t i = 0; i < v->n_end; i++)
        if (v->end_ids[i] == (uint32_t)id) return true;
    return false;
}

/* The trie of ids[n] (sorted in place by their bytes).  Of tokens with the same bytes the first is
 * kept; the others go to twins if that is not NULL.  0, ERR_NOMEM, ERR_LIMIT. */
int trie_build(trie *t, const grammar_vocab *v, uint32_t *ids, uint32_t n, vocab_twin_list *twins);

#endif
