/* ranks.h - the ranks that share one model: their backends, their threads, loading, and the runner
 * over them all.  With one rank it is a backend and a model.
 *
 * Rank 0 is whoever uses this; the others follow it: threads of this process, each with a backend
 * of its own, or processes elsewhere that call ranks_follow.  Both do the same: they take messages
 * from rank 0 (load, step, end) and meet it in collectives.  A rank that fails says why through the
 * comm and ends; one that does not come is missed within the comm's deadline.  Either way the
 * runner answers ERR_DEVICE once and for all, and every rank that still can ends. Refuses: numbers
 * of ranks the model cannot be divided by, and what opening backends refuses. Thread: all calls by
 * the thread of rank 0, but for ranks_follow. */
#ifndef QUERN_ENGINE_RANKS_H
#define QUERN_ENGINE_RANKS_H

#include "engine/engine.h"
#include "engine/model.h"
#include "engine/runner.h"

typedef struct ranks ranks;

/* Backends of all ranks in this process, o->threads divided among them. */
ranks *ranks_open(const engine_options *o, err *e);
int ranks_world(const ranks *r);
backend *ranks_backend(const ranks *r); /* of rank 0 */
/* What one memory must hold for all ranks that live in it, and how much of it there is (0: the
 * system does not say).  Ranks on GPUs of their own: of the largest share. */
int ranks_plan(const ranks *r, const checkpoint *c, const model_options *o, model_plan *p,
               uint64_t *available, err *e);
/* Loads all shares at the same time; c may be closed afterwards. */
int ranks_load(ranks *r, const checkpoint *c, const model_options *o, int n_blocks, err *e);
model *ranks_model(const ranks *r); /* rank 0's share */
/* After ranks_load; borrows r. */
runner *ranks_runner(ranks *r);
/* Ends all ranks; does not wait longer than the deadline for one that hangs.  NULL is allowed. */
void ranks_close(ranks *r);

/* What every rank but 0 does: loads its share when told to, runs steps until rank 0 ends (0) or
 * somebody fails (ERR_*, reason in e).  be->comm is set. */
int ranks_follow(backend *be, const checkpoint *c, err *e);

#endif
