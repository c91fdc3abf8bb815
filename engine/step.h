/* step.h - a plan as the flat arrays a backend reads (`batch`), which sequences it is of and which
 * of them each row of logits is for.  Allocated once for the largest step.  A started step outlives
 * its sequences: whoever ends one takes it out (step_forget).  Thread: the engine thread only. */
#ifndef QUERN_ENGINE_STEP_H
#define QUERN_ENGINE_STEP_H

#include "engine/sched.h"
#include "kernels/kernels.h"

/* One row of logits. */
typedef struct {
    seq *q;       /* NULL: it has ended */
    int pos;      /* its position */
    bool drawing; /* draws the token at pos + 1; else scores prompt token pos + 1 */
} step_row;

/* One sequence of the step. */
typedef struct {
    seq *q;           /* NULL: it has ended */
    bool prompt_done; /* its prompt is complete with this step */
} step_seq;

typedef struct {
    int max_tok, max_seqs, max_out, max_blocks, kv_block;
    int hidden;                /* width of a pooled state; 0: none are pooled */
    int32_t *tok, *pos, *slot; /* [max_tok] */
    int32_t *seq_start;        /* [max_seqs + 1] */
    int32_t *ctx_len;          /* [max_seqs] */
    int32_t *n_prompt;         /* [max_seqs] */
    int32_t *block_table;      /* [max_seqs * max_blocks] */
    int32_t *out_row;          /* [max_out + max_tok] */
    int32_t *state_row;        /* [max_tok] rows to be pooled, behind the others in out_row */
    pool_span *span;           /* [max_seqs] */
    seq **pool;                /* [max_seqs] beside span; NULL: it has ended */
    float *pooled;             /* [max_seqs][hidden] results */
    step_seq *seqs;            /* [max_seqs] beside b.ctx_len */
    step_row *out;             /* [max_out] beside b.out_row */
    sample_row *row;           /* [max_out] to be filled by the caller, results by the runner */
    batch b;                   /* points into the arrays above */
} step;

/* max_blocks: of the longest sequence. */
int step_init(step *t, const sched_options *o, int max_blocks, int hidden);
void step_clear(step *t);
void step_build(step *t, seq *const *plan, int n_plan);
/* What is pooled of q up to this step, [hidden]; NULL if the step adds nothing. */
const float *step_pooled(const step *t, const seq *q);
/* q has ended: nothing of this step concerns it any more. */
void step_forget(step *t, const seq *q);

#endif
