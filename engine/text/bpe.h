/* bpe.h - a byte-level BPE vocabulary: token bytes by id, ids by token bytes, and the merge loop.
 * Inside engine/text only.  Owns the token bytes and both hash tables.
 * Refuses: ids beyond BPE_MAX_IDS, two tokens with one id or one text, tokens that are not spelled
 * in the byte alphabet, merges whose parts or result are no tokens, a vocabulary that lacks one of
 * the 256 single bytes (then some text could not be encoded).
 * Thread: const after bpe_seal, but for a memo of relaxed atomics; bpe_encode is safe from any
 * thread with a scratch of its own. */
#ifndef QUERN_ENGINE_TEXT_BPE_H
#define QUERN_ENGINE_TEXT_BPE_H

#include "engine/text/tokenizer.h"

/* Far above any published vocabulary (248,320), small enough that hostile ids cost no memory, and
 * two ids with a rank fit 64 bits. */
#define BPE_MAX_IDS (1 << 21)
#define BPE_MAX_MERGES ((1 << 22) - 1)

typedef struct {
    uint32_t off, len; /* bytes; len == UINT32_MAX: the id has no token */
} bpe_span;

typedef struct {
    uint32_t hash;
    int32_t id; /* -1 = free */
} bpe_slot;

typedef struct {
    uint32_t off; /* of the left part; the right one follows it */
    uint16_t n_left, n_right;
} bpe_merge;

typedef struct {
    buf bytes;          /* all tokens' bytes, end to end */
    bpe_span *span;     /* [cap] where a token's bytes lie, by id */
    int32_t cap, n_ids; /* n_ids: largest id + 1 */
    int32_t byte_id[256];
    bpe_slot *slot; /* [slot_mask + 1] ordinary tokens by bytes */
    size_t slot_mask;
    uint64_t *pair; /* [pair_mask + 1] merges: left << 43 | right << 22 | rank; all ones = free */
    size_t pair_mask;
    uint32_t *merged; /* [n_merges] what a merge makes, by rank */
    buf parts;        /* until sealed: the parts of all merges */
    bpe_merge *merge; /* [n_merges] until sealed, by rank; n_left 0 = not given */
    uint32_t n_merges;
    unsigned char *whole; /* [cap] memo of bpe_encode: does a token's text merge into it? */
    bool ignore_merges;   /* a piece that is a token is that token, whatever the merges say */
} bpe;

/* For up to n_tokens tokens and n_merges merges; then bpe_add and bpe_add_merge in any order, then
 * bpe_seal. */
int bpe_init(bpe *b, size_t n_tokens, size_t n_merges, err *e);
void bpe_clear(bpe *b);
/* An ordinary token spelled in GPT-2's byte alphabet ("Ġthe").  A text outside that alphabet is
 * kept under its id as it stands and can never be produced by merges. */
int bpe_add(bpe *b, int64_t id, const char *text, size_t n, err *e);
/* Merge number rank < n_merges, parts spelled in the byte alphabet. */
int bpe_add_merge(bpe *b, uint32_t rank, const char *left, size_t n_left, const char *right,
                  size_t n_right, err *e);
/* Builds the tables and checks that bytes and merges are complete. */
int bpe_seal(bpe *b, err *e);

/* Id of an ordinary token with these bytes, -1 if none. */
int32_t bpe_find(const bpe *b, const char *s, size_t n);
/* Bytes of an ordinary token, NULL if the id has none. */
const char *bpe_piece(const bpe *b, int32_t id, size_t *n);

/* Work memory of bpe_encode, kept between calls by its owner.  {0} is empty. */
typedef struct {
    uint32_t *id, *next, *prev,
        *rank;      /* [cap] one linked symbol each; rank of the pair to its right */
    uint64_t *heap; /* [3 * cap] rank << 32 | position */
    size_t cap, n_heap;
} bpe_scratch;
void bpe_scratch_clear(bpe_scratch *w);

/* Appends the ids of one pre-tokenised piece s[n], n >= 1.  O(n log n).  ERR_NOMEM, ERR_LIMIT. */
int bpe_encode(const bpe *b, const char *s, size_t n, bpe_scratch *w, token_list *out);

#endif
