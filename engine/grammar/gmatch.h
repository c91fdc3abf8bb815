/* gmatch.h - a text being generated under a grammar: which tokens may come next.
 * The matcher sees every token of the answer from the first one on, thinking and tags included; an
 * end token is one of them and is legal exactly where the text may end.  After it only end tokens
 * are.  Owns its history, a reference to the grammar and the masks it handed out.
 * Errors: ERR_NOMEM; ERR_LIMIT when the text needs more nesting, alternatives or work than a run
 * may cost (the answer ends with an error then, never unconstrained).  After an error the matcher
 * is where it was. Thread: one at a time per matcher; matchers of one grammar may be used by many,
 * the grammar's lock is held per call. */
#ifndef QUERN_ENGINE_GRAMMAR_GMATCH_H
#define QUERN_ENGINE_GRAMMAR_GMATCH_H

#include "engine/grammar/grammar.h"
#include "engine/grammar/vocab.h"

typedef struct gmatch gmatch;

enum {
    GM_LATER = 1, /* too dear for a step: do it on another thread, sit this step out */
    GM_HELD = 32  /* a mask stays valid until the matcher has handed out this many more */
};

/* NULL without memory.  v must outlive the matcher. */
gmatch *gmatch_new(grammar *g, const grammar_vocab *v);
gmatch *gmatch_clone(const gmatch *m); /* at the same place, with the same history */
void gmatch_free(gmatch *m);           /* NULL is allowed */

/* The tokens that may come next: bit id of (*bits)[(rows + 31) / 32]; rows beyond the vocabulary
 * are 0.  Never empty: where no token of the vocabulary can go on, ERR_INVALID.  mask_id: equal ids
 * are equal bits, in the whole process, so that a device needs each once.  0, GM_LATER, or ERR_*.
 * bits live until GM_HELD further masks of this matcher or gmatch_free. */
int gmatch_mask(gmatch *m, const uint32_t **bits, uint64_t *mask_id);
/* Takes one token: 0, ERR_INVALID if it is not legal here, GM_LATER (nothing is taken), or ERR_*.
 */
int gmatch_accept(gmatch *m, int32_t tok);
/* Whether the text may end and nothing else can follow (also after an end token): 0, GM_LATER, or
 * ERR_*. */
int gmatch_done(gmatch *m, bool *done);
/* The three that may be GM_LATER with 128 times the work allowed: 0 or ERR_*.  Any thread, while
 * nobody else uses this matcher. */
int gmatch_finish(gmatch *m, const uint32_t **bits, uint64_t *mask_id); /* gmatch_mask */
int gmatch_take(gmatch *m, int32_t tok);                                /* gmatch_accept */
int gmatch_settle(gmatch *m, bool *done);                               /* gmatch_done */
/* How many of tok[n] are legal one after another from here, or ERR_*; nothing is taken. */
int gmatch_prefix(gmatch *m, const int32_t *tok, int n);
/* Takes back the last k tokens (all of them if there are fewer). */
void gmatch_rollback(gmatch *m, int k);
/* Bytes that must follow, at most cap: the text can go on in no other way.  0 where it may end, or
 * where a token is named by id.  Fewer where the next one is too dear for a step. */
int gmatch_forced(gmatch *m, uint8_t *out, int cap);
int gmatch_length(const gmatch *m); /* tokens taken */

#endif
