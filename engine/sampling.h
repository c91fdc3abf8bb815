/* sampling.h - a request's sampling parameters as rows for the sampler: masks, bias, penalties,
 * banned words.  A sample_plan is what the choices of a request share; a sampler is one choice's
 * own state.
 *
 * Banned words (API G10): a token is banned when it would complete a banned string in the answer's
 * bytes: the string inside the token, or its beginning at the end of the answer and the rest at the
 * start of the token.
 * Thread: a plan is made by the submitting thread and const afterwards; a sampler belongs to the
 * engine thread once its request was handed over. */
#ifndef QUERN_ENGINE_SAMPLING_H
#define QUERN_ENGINE_SAMPLING_H

#include "engine/engine.h"
#include "engine/seq.h"
#include "kernels/kernels.h"

/* The vocabulary ordered by bytes, for "which tokens start with this". */
typedef struct {
    int32_t *id; /* [n] owned */
    int n;
} vocab_order;
int vocab_order_init(vocab_order *v, const tokenizer *t, int n_vocab);
void vocab_order_clear(vocab_order *v);

/* What the model brings to every request; borrowed for the life of the engine. */
typedef struct {
    const tokenizer *tok;     /* NULL: no text at all, and no banned words */
    const vocab_order *order; /* needed if there are banned words */
    int n_vocab;
    const int32_t *end_id; /* [n_end] */
    int n_end;
} sampling_base;

typedef struct {
    char *text; /* [n] owned */
    size_t n;
} sample_word;

typedef struct {
    sampling s; /* its pointers are the copies below */
    const sampling_base *base;
    sample_word *stop; /* [s.n_stop] */
    const char **stop_text;
    size_t *stop_len; /* [s.n_stop] views of stop, as output_options wants */
    int32_t *stop_id; /* [s.n_stop_id] */
    int32_t *end_id;  /* [s.n_end] */
    int32_t *bias_id; /* [s.n_bias] distinct */
    float *bias;
    uint32_t *allow;  /* [(n_vocab+31)/32] or NULL */
    sample_word *bad; /* [s.n_bad_word] */
    size_t longest_bad;
    int32_t *holds_bad; /* [n_holds_bad] tokens that contain a banned sample_word */
    int n_holds_bad;
} sample_plan;

/* Copies what s points to.  ERR_INVALID names the parameter: ids outside the vocabulary, empty
 * strings. */
int sample_plan_init(sample_plan *p, const sampling *s, const sampling_base *base, err *e);
void sample_plan_clear(sample_plan *p);
bool sample_plan_is_stop_id(const sample_plan *p, int32_t id);
/* Ends the answer and is no part of it: the model's end tokens and the request's. */
bool sample_plan_is_end(const sample_plan *p, int32_t id);

typedef struct {
    const sample_plan *plan;
    /* Distinct tokens counted: in the repetition window, and generated. */
    int32_t *id, *in_window, *generated; /* [n] */
    int n, cap;
    int32_t *table; /* [n_table] hash of id -> index + 1; 0 = empty */
    size_t n_table;
    /* Rows are filled into these; valid until the next fill. */
    int32_t *ban;
    int n_ban, cap_ban;
    int32_t *seen_id, *seen_count, *bias_id;
    float *bias;
    int cap_seen;
    char *tail; /* [longest_bad] last bytes of the answer */
    size_t n_tail;
} sampler;

/* Counts the prompt where a penalty needs it. */
int sampler_init(sampler *m, const sample_plan *p, const seq *q);
void sampler_clear(sampler *m);
/* The row that draws the token at position pos of q.  answering: it can belong to the answer; key:
 * the choice part of the random number's key. */
int sampler_fill(sampler *m, const seq *q, int pos, bool answering, uint64_t key, sample_row *row);
/* Token i of q (generated, in order) is known.  answer: it belongs to the answer. */
int sampler_accept(sampler *m, const seq *q, int i, bool answer);
/* A row can be filled before the token in front of it is known: nothing in it depends on which
 * tokens were drawn, only on how many. */
bool sample_plan_is_blind(const sample_plan *p);

#endif
