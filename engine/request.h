/* request.h - inside a request: its choices, its outbox, and the inbox it came through.
 * Two references: the caller's and the engine's; the last one frees.  The outbox (deltas, usage) is
 * guarded by the request's lock; the inbox has its own; no code holds both.
 * Thread: said at each part. */
#ifndef QUERN_ENGINE_REQUEST_H
#define QUERN_ENGINE_REQUEST_H

#include "engine/grammar/gmatch.h"
#include "engine/sampling.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- inbox: the way from callers to the engine thread; outlives the engine while requests do ---
 */

typedef struct {
    _Atomic int refs;
    pthread_mutex_t mu;
    pthread_cond_t wake;
    request *first, *last; /* submitted, not yet seen by the engine; engine references */
    bool woken;            /* something else to look at: a cancel, a stop */
    bool stop;             /* the engine thread shall end */
    int refuse;            /* 0, or the ERR_* a submit gets */
    int queued;            /* requests not yet in a step */
    int queue_limit;       /* of queued, beyond places that are free */
    int places;            /* sequences that could start at once */
} inbox;

inbox *inbox_new(int queue_limit);
void inbox_take(inbox *b);
void inbox_put(inbox *b);
/* Hands r over (the engine's reference goes along); ERR_LIMIT, or b->refuse. */
int inbox_submit(inbox *b, request *r, bool goes_on);
void inbox_poke(inbox *b);
void inbox_refuse(inbox *b, int code);
void inbox_stop(inbox *b);
/* A request left the queue. */
void inbox_unqueue(inbox *b);
bool inbox_full(inbox *b);

typedef struct {
    request *fresh; /* everything submitted, oldest first, linked by next */
    bool woken;     /* somebody poked: look for cancels */
    bool stop;      /* the thread shall end */
} inbox_news;
/* Unless busy waits for news, at most a second (the engine thread's beat).  places: sequences that
 * could start now. */
inbox_news inbox_drain(inbox *b, bool busy, int places);

/* ---- choice and request ---------------------------------------------------------------------- */

typedef struct constrainer constrainer;

/* A choice's side of a grammar (constrain.h). */
typedef struct {
    gmatch *match; /* NULL: free, or lent */
    struct constrain_job *lent;
    const uint32_t *mask[DRAFT_MAX + 1]; /* [n_mask] of the next token and those behind guesses */
    int n_mask;
    uint32_t *both;         /* [DRAFT_MAX + 1][words] masks cut by allowed_token_ids */
    int n_guessed, n_right; /* guesses computed, those confirmed */
} held_form;

/* One of the n answers; engine thread after submission. */
typedef struct choice {
    seq q;
    request *r;
    int index, cap_gen;
    bool live, counted;         /* counted: its prompt went into the counters */
    int slot;                   /* the last place it had, -1 none yet (slots.h) */
    int n_forced;               /* tokens of think_end drawn so far */
    int n_reasoned;             /* reasoning tokens that are in the request's usage */
    int n_drafted, n_confirmed; /* guesses computed, those that were right */
    int n_told, n_told_right;   /* of them in the request's numbers */
    float *vec; /* [r->n_vec] result of a request that wants no tokens, until it is told */
    sampler smp;
    held_form form;
    output *out;  /* NULL: no text */
    said said;    /* of the token at hand */
    delta *spare; /* so that an end can always be told */
    int64_t scheduled_us, first_us, last_us;
} choice;

struct request {
    _Atomic int refs;
    _Atomic bool cancelled;
    inbox *in; /* one reference */
    /* Const after submission. */
    choice *c; /* [n] */
    int n, n_prompt;
    int32_t *prompt; /* [n_prompt] */
    char *salt;
    sample_plan plan;
    call_tools *tools;    /* one reference, or NULL */
    grammar *grammar;     /* one reference, or NULL: any text */
    int64_t think_budget; /* -1 = none */
    int32_t *think_end;   /* [n_think_end] owned */
    int n_think_end;
    int64_t max_tokens, deadline_us;
    request_want want;
    int n_vec; /* values of its result; 0: tokens */
    uint64_t choice_base;
    void (*notify)(void *);
    void *notify_arg;
    bool notify_done_only, progress;
    /* Engine thread. */
    int n_live;
    bool queued; /* counted in inbox.queued */
    bool fresh;  /* its first masks are not asked for */
    seq_group group;
    token_info *prompt_lp; /* [n_prompt] until delivered, or NULL */
    request *next, *prev;  /* inbox, then the engine's list */
    /* Under mu. */
    pthread_mutex_t mu;
    pthread_cond_t quiet; /* notifying became false */
    delta *first, *last;
    bool notifying, released;
    bool held; /* nothing is taken until the prompt's logprobs are at hand: they come first */
    int n_taken_ends;
    request_stats st;
};

typedef struct {
    const sampling_base *base;
    inbox *in;
    int kv_block;
    const grammar_vocab *vocab; /* with spec.grammar */
    const pooling *pool;
    int hidden;
    bool full; /* rows see those behind them */
} request_env;

/* Everything allocated, for spec (already checked) with max_tokens in force; two references. */
request *request_new(const request_env *env, const request_spec *spec, int64_t max_tokens, err *e);
void request_put(request *r);
/* Room for n more generated tokens of c; 0 or ERR_NOMEM. */
int choice_reserve(choice *c, int n);
/* Drops what needs the engine (text parser, samplers); after the last choice ended. */
void request_detach(request *r);

typedef struct {
    finish_reason reason;
    int stop_index;
    int32_t stop_id;
    int error;
} ending;

/* Puts c's text at hand, the token (or NULL) and the end (or NULL) into the outbox and wakes the
 * reader.  Out of memory: an end is still told (as FINISH_ERROR); otherwise ERR_NOMEM. */
int request_publish(choice *c, const token_info *t, const ending *end, int64_t now_us);
/* The request is in its first step. */
void request_scheduled(request *r, int slot, int n_cached, int64_t now_us);
/* n tokens of its prompt are computed. */
void request_computed(request *r, int n, int64_t now_us);

#endif
