/* engine_loop.h - what the engine thread's files share: engine_loop.c plans and starts steps,
 * engine_results.c takes what they computed, engine_live.c lets requests in and ends them.
 * Thread: the engine thread only. */
#ifndef QUERN_ENGINE_ENGINE_LOOP_H
#define QUERN_ENGINE_ENGINE_LOOP_H

#include "engine/engine_impl.h"

/* ---- engine_live.c ---- */

/* Takes in a list of new requests. */
void engine_accept(engine *g, request *r);
/* A request no longer waits for its first step. */
void engine_unqueue(engine *g, request *r);
/* Ends c, and lets go of its request with the last choice.  t: the token that ended it, or NULL.
 * c->said holds what is to be told. */
void engine_end_choice(engine *g, choice *c, const token_info *t, ending end, int64_t now);
/* The same between tokens; what is held back decides the reason, unless it is an error. */
void engine_finish_choice(engine *g, choice *c, ending end, int64_t now);
/* Ends all choices of r. */
void engine_end_request(engine *g, request *r, ending end, int64_t now);
/* Ends what was cancelled (cancels: there may be some) or is past its deadline. */
void engine_sweep(engine *g, bool cancels, int64_t now);

/* ---- engine_results.c ---- */

/* The results of a finished step. */
void engine_take_results(engine *g, step *t, int64_t now);

#endif
