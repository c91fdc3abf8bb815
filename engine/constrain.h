/* constrain.h - choices that are held to a grammar (API J3, J4): masks into their rows, tokens into
 * their matchers, guesses of what must follow.  A choice of a request with a grammar has a matcher
 * from its first token to its end; a row of it without a mask does not exist.
 *
 * One thread of low priority beside the engine lays out the vocabulary once and does what costs too
 * much for a step: the choice sits out steps meanwhile, its matcher lent to the thread.
 * Errors of a choice are ERR_LIMIT (the grammar cost more than a token may), ERR_INVALID (the
 * vocabulary has no token that goes on) and ERR_NOMEM; they end
 * that choice and nothing else.
 * Thread: the engine thread unless said. */
#ifndef QUERN_ENGINE_CONSTRAIN_H
#define QUERN_ENGINE_CONSTRAIN_H

#include "engine/request.h"

/* Borrows b and in.  NULL without memory.  Opening thread. */
constrainer *constrainer_new(const sampling_base *b, inbox *in);
/* Starts the thread.  0 or ERR_*.  Loading thread. */
int constrainer_start(constrainer *k, err *e);
/* Microseconds of a step that grammars may use on the engine thread; below 0: none.  Before
 * requests come. */
void constrainer_limit(constrainer *k, int64_t us);
/* Waits for the thread to end; lent matchers go.  Closing thread. */
void constrainer_stop(constrainer *k);
/* Behind the last matcher; NULL is allowed.  Closing thread. */
void constrainer_free(constrainer *k);
/* The vocabulary; waits until it is laid out.  0 or ERR_*.  Any thread. */
int constrainer_vocab(constrainer *k, const grammar_vocab **v, err *e);

/* A matcher for each choice of r, held to g (one more reference), and the first mask.  Submitting
 * thread.  0 or ERR_*. */
int request_constrain(request *r, grammar *g, const grammar_vocab *v);

/* Between steps: what grammars may cost this thread is counted anew, matchers to be lent are handed
 * over. */
void constrain_step(constrainer *k);
/* Finds the mask of c's next token.  Where that costs too much, c is held until it comes back.
 * 0 or ERR_*. */
int constrain_next(constrainer *k, choice *c);
/* The next choice whose matcher came back, held no more; *rc is 0 or what ends it, *done whether
 * its text is complete.  NULL: none. */
choice *constrain_back(constrainer *k, int *rc, bool *done);
/* Some choice is held. */
bool constrain_waits(const constrainer *k);
/* Token id of c is sure.  0 (and c may be held), ERR_INVALID if it is not legal, or ERR_*. */
int constrain_accept(constrainer *k, choice *c, int32_t id);
/* Whether nothing but the end can follow; where that costs too much, c is held and *done false
 * until it comes back.  0 or ERR_*. */
int constrain_done(constrainer *k, choice *c, bool *done);
/* c's matcher is away: what its last token means is not yet known. */
bool constrain_away(const choice *c);
/* May token id come next? */
bool constrain_legal(const choice *c, int32_t id);
/* Guesses of the next tokens: those that spell the bytes that must follow, at most cap, each with
 * the mask of the row behind it.  Returns how many. */
int constrain_draft(constrainer *k, choice *c, int32_t *tok, int cap);
/* n guesses of c were computed and `right` of them confirmed. */
void constrain_learn(choice *c, int n, int right);
/* The mask of the row that draws `ahead` tokens behind the next one.  0 or ERR_NOMEM. */
int constrain_row(choice *c, int ahead, sample_row *row);
/* c has ended: its matcher goes, now or when it comes back.  k is NULL behind the engine. */
void constrain_end(constrainer *k, choice *c);

#endif
