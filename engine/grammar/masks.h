/* masks.h - inside the grammar engine: what is remembered of one grammar's masks over one
 * vocabulary. A mask of a configuration is put together from the local masks of its threads' byte
 * states, and from walks of the tries where a thread may end inside a token.  Everything is found
 * again by state, stack or configuration until the automaton starts anew. Owned by the grammar.
 * Thread: under the grammar's lock. */
#ifndef QUERN_ENGINE_GRAMMAR_MASKS_H
#define QUERN_ENGINE_GRAMMAR_MASKS_H

#include "engine/grammar/grammar_impl.h"
#include "engine/grammar/vocab_impl.h"

#define AT_END 0xfffffffeu /* in place of a configuration: after an end token */

typedef struct {
    uint64_t id;
    uint32_t refs;
    uint32_t bits[]; /* [words] */
} gmask;

enum { MASKS_KEPT = 256 };
typedef struct {
    uint64_t id; /* of the mask; 0: none yet */
    uint32_t slot;
} mask_place;

/* What is known of an expression. */
typedef struct {
    shape of;
    bool known, finite;    /* finite: surely matches a finite number of texts */
    uint8_t letters_known; /* bit 0: letters[0], bit 1: letters[1] */
    uint16_t letters[2]; /* alphabets all of whose characters it matches; [1]: and no more than one
                            character of them */
} rx_fact;

typedef struct {
    uint8_t byte, next; /* one byte of a class, and where it leads within the character */
} letter;
typedef struct {
    uint32_t n;
    letter v[256];
} letter_list;

typedef struct mask_cache {
    struct mask_cache *next;
    const grammar_vocab *v; /* gone, perhaps, once there is no matcher */
    uint64_t serial;        /* of the vocabulary, whose address may be used again */
    uint32_t words;
    uint32_t epoch;
    VEC(local_mask *) locals; /* of byte states, NULL: not known yet */
    VEC(rx_fact) facts;       /* of expressions */
    VEC(uint32_t) clamped;    /* of byte states: the one with the same local mask; RX_UNKNOWN */
    VEC(uint32_t) after;      /* of stacks: what follows; RX_UNKNOWN */
    VEC(mask_place) places;   /* of configurations; 0 is for AT_END */
    VEC(rx) pending;          /* of facts */
    VEC(thread) threads, narrow;
    gmask *kept[MASKS_KEPT];
    uint64_t used[MASKS_KEPT], tick;
    uint32_t n_kept;
    uint16_t class_size[256];
    letter_list *letters[N_ALPHABETS][UTF8_STATES];
    size_t local_bytes;
    uint64_t fuel, nodes; /* a mask began with; it may walk */
    uint64_t walked;      /* nodes so far */
} mask_cache;

/* The grammar's cache for v, made if there is none; NULL without memory. */
mask_cache *mask_cache_of(grammar *g, const grammar_vocab *v);
size_t mask_cache_bytes(const mask_cache *c);
/* Forgets what an older automaton said. */
void mask_cache_sync(mask_cache *c, const gram *g);

/* For the next mask: the fuel it may cost, and the nodes it may walk, which fuel counts for too.
 * Never time: how fast a machine is must not decide what a request gets. */
void mask_allow(mask_cache *c, gram *g, uint64_t fuel, uint64_t nodes);
/* The mask of a configuration (or AT_END) with a reference for the caller; NULL when the arena's
 * status says why, or without a single token when it does not. */
gmask *mask_of(mask_cache *c, gram *g, uint32_t config);
void gmask_release(gmask *m); /* NULL is allowed */

/* rx_facts.c: the facts of an expression; one that no token tells apart from e. */
const rx_fact *rx_facts(mask_cache *c, rx_arena *r, rx e);
rx rx_clamp(rx_arena *r, rx e, uint32_t longest);
/* contained.c: an alphabet all of whose texts of at most *k characters (RX_INF: any) a state
 * survives, and none longer if *k is less; -1: none is known. */
int contained_alphabet(mask_cache *c, rx_arena *r, uint32_t state, uint32_t *k);
/* locals.c: the local mask of a byte state (borrowed); NULL when the status says why. */
const local_mask *local_of(mask_cache *c, rx_arena *r, uint32_t state);
/* How many bytes a state may begin with, at most. */
uint32_t state_width(const mask_cache *c, const rx_arena *r, uint32_t state);
/* Counts n nodes walked, or what costs as much; false when there were too many (status as out of
 * fuel). */
bool mask_walk(mask_cache *c, rx_arena *r, uint32_t n);

#endif
