/* seq.h - one generation stream as the scheduler sees it: its tokens, its KV blocks, what is
 * computed and what the coming step shall compute.  Pure data; sched.c writes the lower half.
 *
 * There is no phase: a sequence has seq_len tokens, n_cached of them in the KV cache, and a step
 * computes n_planned more.  Decode is the case where one is missing.
 * Thread: the engine thread only. */
#ifndef QUERN_ENGINE_SEQ_H
#define QUERN_ENGINE_SEQ_H

#include "config/pooling.h"
#include "engine/kvpool.h"

typedef struct seq seq;
typedef struct seq_group seq_group;

/* The choices of one request: the first computes the prompt, the others wait for its whole blocks.
 */
struct seq_group {
    seq *leader;
    int32_t
        *block;   /* [n_share] owned: prompt blocks, held (refs) from hand-over to last follower */
    int n_share;  /* whole prompt blocks that leave a token to compute: (n_prompt - 1) / kv_block */
    int n_held;   /* 0 or n_share */
    int n_follow; /* choices not yet admitted for the first time */
    bool settled; /* handed over or given up: followers need not wait */
    seq_group *prev, *next; /* list of groups that hold blocks */
};

typedef enum { SEQ_NEW, SEQ_WAITING, SEQ_RUNNING, SEQ_ENDED } seq_state;

struct seq {
    /* Set by the owner before sched_add. */
    const int32_t *prompt; /* [n_prompt] borrowed, n_prompt >= 1 */
    int n_prompt;
    /* [n_gen] owned by the owner, who appends.  The last n_guess are not sure: drafts that the
     * model has yet to confirm, then, while a step is open, -1 - j for what it draws in row j. */
    int32_t *gen;
    int n_gen, n_guess;
    int n_draft;      /* of n_guess: drafts the coming step may compute and confirm */
    int priority;     /* lower first */
    uint64_t order;   /* arrival; unique */
    kv_salt salt;     /* borrowed */
    bool reuse;       /* may use blocks others published */
    bool draws;       /* false: only computes the prompt (max_tokens 0, or pooled) */
    pool_kind pool;   /* which of its hidden states are summed up */
    bool whole;       /* its prompt must be in one step: rows see those behind them */
    bool hold;        /* not to be planned: its pending token ends it, or must be known first */
    int n_score;      /* logits of prompt positions [0, n_score) are wanted (prompt logprobs) */
    seq_group *group; /* NULL for a lone choice */
    int32_t *block; /* [cap_block] owned by the owner; room for the longest this sequence can get */
    int cap_block;
    void *owner;

    /* The scheduler's. */
    seq_state state;
    bool following;   /* not yet admitted, its prompt comes from group */
    int place;        /* own number among the running ones, below max_seqs */
    int n_block;      /* blocks held */
    int n_cached;     /* positions computed */
    int n_published;  /* blocks findable by others */
    int scored;       /* prompt positions whose logits were delivered */
    int n_reused;     /* prompt tokens found in the cache at first admission; -1 before */
    int n_preempted;  /* times */
    uint64_t stuck;   /* pool epoch + 1 at the last failed admission, 0 = never */
    seq *prev, *next; /* waiting list */
    /* This step. */
    int n_planned;             /* tokens, 0 = not in the step */
    int score_from, n_scoring; /* prompt positions among them whose logits are wanted */
    int n_drawing; /* last rows, whose logits draw the token behind each: 1, with drafts more */
};

static inline int seq_len(const seq *q)
{
    return q->n_prompt + q->n_gen;
}

/* Position of the newest sure token: its logits draw the next one. */
static inline int seq_last(const seq *q)
{
    return seq_len(q) - q->n_draft - 1;
}

static inline int32_t seq_tok(const seq *q, int i)
{
    return i < q->n_prompt ? q->prompt[i] : q->gen[i - q->n_prompt];
}

#endif
