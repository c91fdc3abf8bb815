/* vocab_impl.h - inside the grammar engine: the vocabulary's trie, its slices, and the local masks
 * that all grammars share.
 * A slice is the set of tokens that are at most k characters of one alphabet; what no slice of the
 * alphabet holds is in its rest trie.  A state known to survive any text of an alphabet starts from
 * the slice and walks the rest trie only.
 * Thread: const after it was made, the shared local masks apart, which have a lock. */
#ifndef QUERN_ENGINE_GRAMMAR_VOCAB_IMPL_H
#define QUERN_ENGINE_GRAMMAR_VOCAB_IMPL_H

#include "engine/grammar/rx.h"
#include "engine/grammar/vocab.h"

#include <pthread.h>
#include <stdatomic.h>

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

enum {
    ALPHABET_ANY,  /* any bytes but '<' and 0xff, whole characters or not */
    ALPHABET_TEXT, /* UTF-8 without '<', white space included */
    ALPHABET_JSON, /* what may stand in a JSON string as it is; U+2028 and U+2029 left out, which
                      `.` of a pattern does not match */
    ALPHABET_ASCII,
    ALPHABET_NAME, /* [A-Za-z0-9 ._-] */
    ALPHABET_WORDS,
    ALPHABET_LETTERS_SPACE,
    ALPHABET_ALNUM,
    ALPHABET_LETTERS,
    ALPHABET_LOWER,
    N_ALPHABETS,
    SLICE_MAX = 32 /* characters */
};

/* How far into a UTF-8 character a text is: 0 between two, UTF8_BAD not UTF-8 at all. */
enum { UTF8_STATES = 10, UTF8_BAD = 255 };
uint8_t utf8_next(uint8_t at, uint8_t byte);
/* The same within an alphabet; UTF8_BAD for what it does not have. */
uint8_t alphabet_next(int alphabet, uint8_t at, uint8_t byte);

typedef struct {
    uint64_t w[2];
} shape; /* of an expression: equal shapes are equal languages, in all grammars */

/* Which tokens an expression takes without ending before the token's last byte, and the trie nodes
 * where it may end inside a token. */
typedef struct local_mask {
    struct local_mask *next; /* in its bucket */
    shape of;
    atomic_int refs;
    const trie *t;         /* what esc are nodes of */
    const uint32_t *slice; /* [words] of the vocabulary's, or NULL */
    uint32_t *bits;        /* [words] or NULL; in place of tok where there are many */
    uint32_t *tok, n_tok;  /* besides the slice */
    uint32_t *esc, n_esc;
} local_mask;

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
    trie full, rest[N_ALPHABETS];
    uint32_t *slice[N_ALPHABETS]; /* [SLICE_MAX + 1][words] */
    vocab_twin_list twins;
    pthread_mutex_t lock;
    local_mask *shared[256]; /* buckets */
    size_t shared_bytes;
};

static inline const uint32_t *vocab_slice(const grammar_vocab *v, int alphabet, uint32_t k)
{
    return v->slice[alphabet] + (size_t)(k < SLICE_MAX ? k : SLICE_MAX) * v->words;
}

static inline bool vocab_is_end(const grammar_vocab *v, int32_t id)
{
    for (uint32_t i = 0; i < v->n_end; i++)
        if (v->end_ids[i] == (uint32_t)id) return true;
    return false;
}

/* ids[n] in the order of their bytes. */
void vocab_sort(const grammar_vocab *v, uint32_t *ids, uint32_t n);
/* The trie of ids[n], in that order.  Of tokens with the same bytes the first is kept; the others
 * go to twins if that is not NULL.  0, ERR_NOMEM, ERR_LIMIT. */
int trie_build(trie *t, const grammar_vocab *v, const uint32_t *ids, uint32_t n,
               vocab_twin_list *twins);
/* All slices and rest tries, of ids[n] in the order of their bytes. */
int vocab_slices(grammar_vocab *v, const uint32_t *ids, uint32_t n);
/* Makes the local masks that most grammars need: JSON, free text until a tag. */
int vocab_warm(const grammar_vocab *v);

/* The shared mask of a shape with a reference, or NULL; puts one there (the one given is then the
 * vocabulary's as well, or freed for one that came first).  Any thread. */
local_mask *vocab_local_get(const grammar_vocab *v, shape of);
local_mask *vocab_local_put(const grammar_vocab *v, local_mask *l);
void vocab_local_clear(grammar_vocab *v);
void local_mask_release(local_mask *l); /* NULL is allowed */
size_t local_mask_bytes(const local_mask *l, uint32_t words);

#endif
