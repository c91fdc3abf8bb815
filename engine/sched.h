/* sched.h - who runs in the coming step, and how many tokens of each: continuous batching with
 * chunked prefill.
 *
 *  - Order is the pair (priority, arrival): a strict order, so that among equals nobody starves.
 *  - Running sequences that miss one token come first (if the token budget is smaller than their
 *    number they take turns), then prompts in order, as many tokens as the budget has left: a long
 *    prompt delays the others' tokens by at most that chunk.
 *  - A sequence is admitted with all blocks its known tokens need, so a prompt never stalls half
 * way. Out of blocks later: the youngest of the lowest priority gives its blocks back and is
 * computed again when its turn comes (its published blocks may still be there then).
 *  - A sequence whose rows see those behind them is computed in one step or not at all: it needs
 *    max_tok to be as long as its prompt.
 *  - A sequence of higher priority may push out those of lower priority, for a place or for blocks.
 * Thread: the engine thread only. */
#ifndef QUERN_ENGINE_SCHED_H
#define QUERN_ENGINE_SCHED_H

#include "engine/seq.h"

typedef struct {
    int max_seqs; /* running at once */
    int max_tok;  /* rows of a step */
    int max_out;  /* rows of logits of a step, >= min(max_seqs, max_tok) */
    int kv_block; /* positions per block */
    bool caching; /* publish and find prefixes */
} sched_options;

typedef struct {
    sched_options o;
    kvpool *pool; /* borrowed */
    seq **run;    /* [n_run <= max_seqs] least recently served first */
    int n_run;
    seq *first, *last; /* waiting, in order */
    int n_waiting;
    int n_deferred;     /* of them: followers whose leader has not computed their prompt */
    seq_group *holding; /* groups that hold blocks */
    seq **plan;         /* [n_plan <= max_seqs] this step */
    int n_plan;
    int tok_left, out_left;
    int32_t *gather;      /* [kv_block] */
    seq **turn;           /* [max_seqs] scratch */
    int *free_place;      /* [max_seqs - n_run] places nobody has */
    uint64_t n_preempted; /* since the start */
} sched;

int sched_init(sched *s, const sched_options *o, kvpool *pool);
void sched_clear(sched *s);

/* q must be able to fit alone: blocks for its longest form <= kvpool_total. */
void sched_add(sched *s, seq *q);
/* Finished or cancelled, in whatever state: gives back its blocks (published ones stay findable).
 */
void sched_remove(sched *s, seq *q);

/* Fills plan[n_plan] and each planned sequence's "this step" fields.  0 only if there is no work,
 * or all there is is held. */
int sched_plan(sched *s);
/* The planned step will not run; nothing was computed. */
void sched_drop_plan(sched *s);
/* The step was started: what comes later finds the planned tokens of q computed.  Call for every
 * planned sequence before appending its new token. */
void sched_commit(sched *s, seq *q);

static inline int sched_blocks(const sched *s, int n_tok)
{
    return (n_tok + s->o.kv_block - 1) / s->o.kv_block;
}

/* Every invariant of scheduler and pool together; for tests. */
int sched_check(const sched *s, err *e);

#endif
