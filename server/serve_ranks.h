/* serve_ranks.h - `quern serve` in several processes, under mpirun: joining, following, ending.
 * Thread: main. */
#ifndef QUERN_SERVER_SERVE_RANKS_H
#define QUERN_SERVER_SERVE_RANKS_H

#include "config/options.h"
#include "engine/engine.h"
#include "engine/launch.h"

#include <signal.h>

/* Joins the other ranks, if a launcher started any, and puts them into eo. */
int serve_join(launch *l, const options *o, engine_options *eo, err *e);
/* What a rank above 0 does until rank 0 ends; its exit code.  Signals of set are blocked. */
int serve_follow(launch *l, const engine_options *eo, const sigset_t *set);
/* The launcher ends all ranks: how long requests may take, at most limit_s. */
double serve_hurry(double limit_s);
/* Waits for a signal for at most ms; 0 if none came.  *launcher (may be NULL): our parent sent it.
 */
int serve_wait(const sigset_t *set, int ms, bool *launcher);

#endif
