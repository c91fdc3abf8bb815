/* engine.h - the public API of the engine: open a model, submit requests, take deltas.
 *
 * One engine thread owns the scheduler, the KV pool and rank 0.  Callers touch only requests: an
 * inbox (submit, cancel) and each request's outbox, two locks never held together.  The engine
 * never calls a caller's code except `notify`, which must only wake something up. Thread: every
 * call is safe from any thread unless said. */
#ifndef QUERN_ENGINE_ENGINE_H
#define QUERN_ENGINE_ENGINE_H

#include "base/buf.h"
#include "base/err.h"
#include "config/model_config.h"
#include "engine/text/chat.h"
#include "engine/text/judge.h"
#include "engine/text/output.h"
#include "engine/text/tokenizer.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct engine engine;
typedef struct request request;

typedef struct {
    const char *model_path;
    const char *device;              /* as config/device.h reads it */
    const char *cpu_isa;             /* "auto", "avx512", "avxvnni", "avx2", "portable" */
    bool batch_invariant, no_graphs; /* cuda */
    bool dummy_weights;              /* made up from config.json */
    const char *dummy_type;          /* of made-up matrices; NULL = BF16 */
    int threads;                     /* 0 = cores of this process */
    int tensor_parallel;             /* ranks that share the model; 0 = 1 */
    double collective_timeout;       /* seconds a rank waits for another; 0 = 30 */
    /* Where the other ranks are processes of their own: rank 0's end, taken over by engine_open;
     * how many of them run on this host. */
    struct comm *ranks;
    int ranks_here;
    bool bf16_repack;
    int64_t max_model_len;      /* 0 = the model's */
    int max_num_seqs;           /* 0 = from the memory plan */
    int max_num_batched_tokens; /* 0 = the backend's default (cpu 512, cuda 2048) */
    int max_queue;              /* waiting requests, 256 */
    uint64_t kv_memory;         /* bytes; 0 = planned (API 21) */
    const char *kv_dtype;       /* "auto", "f16", "bf16", "f32", "q8_0" */
    bool prefix_caching;
    bool allow_priority;
    const char *rope_scaling;        /* JSON or NULL */
    const char *generation_override; /* JSON or NULL */
    bool generation_config;          /* false: --generation-config none */
    const char *chat_template_text;  /* operator's template or NULL */
    size_t chat_template_len;
    const json *template_kwargs; /* operator's defaults or NULL; borrowed */
    const char *tool_format;     /* as chat_format_use_calls reads it, or NULL */
    bool allow_no_template;      /* reserved for bench: no tokenizer needed */
    const char *trace_ops;       /* "name,layer,step" or NULL */
    bool dump_plan;              /* a log line per step */
    bool embeddings;             /* a generative model answers embeddings too */
    const char *pooling;         /* "auto", "mean", "last", "cls", "rank" or NULL */
    const char *attention;       /* "auto", "causal", "non-causal" or NULL */
} engine_options;

/* Opens in two stages so that the socket can listen first (H19): engine_open checks files and
 * options cheaply (config, tokenizer, template, memory plan; no weights) and fails with a message
 * that says what to change; engine_load (blocking, any one thread) uploads the weights and starts
 * the engine thread. */
engine *engine_open(const engine_options *o, err *e);
int engine_load(engine *g, err *e);
/* What a process of rank 1 .. does instead: opens the model of o, loads its share when rank 0 says
 * so, computes until rank 0 ends (0) or a rank fails.  Takes over c. */
int engine_follow(const engine_options *o, struct comm *c, err *e);
/* 0..1 while loading. */
double engine_progress(const engine *g);
typedef enum { ENGINE_LOADING, ENGINE_READY, ENGINE_DRAINING, ENGINE_FAILED } engine_state;
engine_state engine_status(const engine *g);
/* Reason when FAILED ("" otherwise); borrowed, stable once set. */
const char *engine_fault(const engine *g);
/* Unix-independent clock_us() of the engine thread's last beat (H20). */
int64_t engine_last_beat_us(const engine *g);
/* Refuses new requests from now on; running ones go on. */
void engine_drain(engine *g);
/* Fails whatever is left with ERR_SHUTDOWN and joins the engine thread; engine_info stays valid. */
void engine_stop(engine *g);
/* engine_stop, then frees everything; NULL is allowed.  All requests
 * must have been released or be released later (they stay valid). */
void engine_close(engine *g);

typedef struct {
    const char *name;         /* stem for the served name (V8) */
    const char *arch;         /* "qwen2", "qwen3" */
    const char *quantization; /* "Q8_0", "Q4_K_M-like mix" spelled by the dominant types, "BF16" */
    const char *backend, *isa, *kv_dtype;
    const char *device; /* name of the GPU, "" on the host's processor */
    bool invariant;     /* the rule of bits holds over batches and chunks */
    bool dummy;         /* the weights are made up */
    bool gguf;          /* the checkpoint is a GGUF file */
    int64_t n_params, weight_bytes, kv_bytes;
    int64_t ctx, ctx_train; /* served, trained */
    bool step_bound;        /* the context is what a step holds (is_causal false) */
    int vocab_rows, n_vocab, hidden, layers;
    int world; /* ranks that share the model */
    int threads, max_num_seqs, max_batched, kv_block, n_kv_blocks;
    char kv_reason[160];  /* how the KV size was chosen */
    uint64_t fingerprint; /* hash of all G4 names as equal-output conditions */
    const model_config *config;
    const tokenizer *tok;
    const chat_format *chat;
    const judge_form *judge; /* how a model that judges is asked; NULL of others */
    /* What it answers, and for embeddings: which lengths a vector may be cut to, and tokens that
     * follow every text. */
    const pooling *pool;
    int32_t text_end[8];
    int n_text_end;
    int32_t end_id[24]; /* union of end tokens (G9) */
    int n_end;
} engine_info_t;
const engine_info_t *engine_info(const engine *g);

/* ---- requests -------------------------------------------------------------------------------- */

/* All of section G1 that shapes a choice.  Zero-initialise with sampling_default. */
typedef struct {
    float temperature, top_p, min_p, repetition, presence, frequency;
    int top_k;
    int64_t repeat_last_n; /* -1 = all, 0 = off */
    uint64_t seed;         /* always set; the caller draws a random one */
    int64_t max_tokens;    /* already clamped to ctx - P by engine_submit; -1 = rest of ctx */
    int64_t min_tokens;
    bool ignore_eos;
    const char *const *stop;
    const size_t *stop_len;
    int n_stop; /* copied */
    const int32_t *stop_id;
    int n_stop_id; /* copied */
    const int32_t *end_id;
    int n_end; /* copied; tokens that end this request beside the model's own */
    const int32_t *bias_id;
    const float *bias;
    int n_bias; /* copied */
    const int32_t *allowed;
    int n_allowed; /* copied; 0 = all */
    const char *const *bad_word;
    int n_bad_word; /* copied; may not appear in the answer */
    bool include_stop, keep_special;
    int n_logprobs;        /* -1 none, 0..20 tops */
    int n_prompt_logprobs; /* -1 none, 0..20 tops */
} sampling;
/* Defaults by G2 without the request: server flags and generation_config already in g. */
sampling sampling_default(const engine *g);

/* What a request wants instead of tokens: its prompt's hidden states as a vector of length 1, cut
 * to dims, or the probability that the prompt is answered with yes. */
typedef enum { WANT_TOKENS, WANT_VECTOR, WANT_SCORE } request_want;

typedef struct {
    request_want want; /* not WANT_TOKENS: n is 1, sampling is not looked at */
    int dims;          /* WANT_VECTOR: 0 = all */
    bool goes_on; /* the next part of a call that was taken: neither queue nor drain refuse it */
    const int32_t *prompt; /* [n_prompt] copied */
    int n_prompt;
    int n; /* choices, 1..128 */
    sampling s;
    think_mode think;
    thought_place thoughts;   /* where they are told */
    call_format calls;        /* how to find tool calls; CALLS_NONE: not at all */
    call_tools *tools;        /* with calls: one more reference is taken */
    bool one_call;            /* generation ends after the first complete call */
    bool after_label;         /* the prompt ends with a label of the answer (output.h) */
    struct grammar *grammar;  /* what each choice must be, from its first token on; one more
                                 reference is taken.  NULL: any text */
    int64_t think_budget;     /* reasoning tokens after which think_end is forced; -1 = no limit */
    const int32_t *think_end; /* [n_think_end] copied */
    int n_think_end;
    int priority;           /* lower first */
    const char *cache_salt; /* NULL = none */
    bool cache_prompt;      /* false: reuse nothing */
    int64_t deadline_us;    /* clock_us() value; 0 = none */
    uint64_t choice_base;   /* draws are keyed by (seed, choice_base + index): 0 */
    void (*notify)(
        void *); /* called when the outbox goes from empty to not empty and when the request
                    is first scheduled; never again once request_release returned */
    void *notify_arg;
    bool notify_done_only; /* notify only once every choice is finished (plain replies) */
    bool progress;         /* notify also as the prompt is computed (request_stats.n_computed) */
} request_spec;

/* 0 and *out (one reference), or: ERR_LIMIT queue full, ERR_INVALID prompt empty or >= ctx (> ctx
 * with max_tokens 0) or bad ids, ERR_UNSUPPORTED the grammar costs too much or the model does not
 * give what is wanted, ERR_SHUTDOWN draining, ERR_BUSY still loading, ERR_NOMEM can never fit,
 * ERR_DEVICE failed.  clamped (may be NULL) is set to the max_tokens in force if it was cut.
 */
int engine_submit(engine *g, const request_spec *spec, request **out, int64_t *clamped, err *e);

typedef struct {
    int32_t id;
    token_kind kind;
    int call;      /* calls that were begun before it */
    float logprob; /* valid if the request asked for logprobs */
    int rank;      /* 1 = most likely; as logprob */
    int n_top;
    int32_t top_id[20];
    float top_logprob[20];
} token_info;

typedef enum { FINISH_NONE, FINISH_STOP, FINISH_LENGTH, FINISH_ABORT, FINISH_ERROR } finish_reason;

/* What one sequence produced since the last take; a list in order of production.  A delta may be
 * empty: the first one says that the request is in its first step (H13). */
typedef struct delta delta;
struct delta {
    delta *next;
    int index; /* choice */
    int n_tok;
    token_info *tok; /* [n_tok] */
    said said;       /* new text, whole UTF-8 */
    finish_reason finish;
    int stop_index;     /* which stop string, -1 none */
    int32_t stop_id;    /* stop_token_id that ended it, -1 none */
    int error;          /* ERR_* when FINISH_ERROR */
    token_info *prompt; /* [n_prompt_lp] first delta of all, of choice 0: prompt logprobs (entry 0
                           has no logprob), else NULL */
    int n_prompt_lp;
    float *vec; /* [n_vec] owned: what was wanted instead of tokens, with the end */
    int n_vec;
};
/* Takes everything in the outbox (NULL if nothing) and re-arms notify. */
delta *request_take(request *r);
void delta_free(delta *d); /* the whole list */
/* True once every choice finished and was taken. */
bool request_done(const request *r);

typedef struct {
    int n_prompt, n_cached; /* cached_tokens of G13 */
    int n_computed;         /* prompt tokens cached or computed; kept up with spec.progress only */
    int n_generated;        /* over all choices */
    int n_reasoning;
    int slot;                      /* of its first choice to run, -1 before */
    int n_draft, n_draft_accepted; /* tokens guessed and computed at once, those that were right */
    bool scheduled;                /* first in a step (H13) */
    int64_t arrival_us, scheduled_us, first_token_us, finished_us; /* clock_us, 0 = not yet */
} request_stats;
request_stats request_usage(const request *r);

/* One place of the batch, as a snapshot; pointers of s are NULL. */
typedef struct {
    bool busy;
    uint64_t task; /* which sequence since the start; the rest is 0 while not busy */
    int n_prompt, n_cached, n_decoded;
    int64_t n_remain; /* tokens it may still draw */
    sampling s;
} engine_slot;
/* All places, out[engine_info(g)->max_num_seqs]. */
void engine_slots(engine *g, engine_slot *out);

/* The client is gone: honoured at the next plan, every open choice ends with FINISH_ABORT.  Safe
 * after the end. */
void request_cancel(request *r);
/* Drops the caller's reference (cancels first if still running).  Afterwards notify is not called
 * any more; so it must not be called from notify. */
void request_release(request *r);

/* ---- counters (relaxed snapshots) ------------------------------------------------------------ */

enum { HIST_MAX = 32, DRAFT_MAX = 16 /* guesses of a sequence in one step */ };
typedef struct {
    int n; /* buckets, without +Inf */
    double bound[HIST_MAX];
    uint64_t count[HIST_MAX + 1]; /* per bucket, not cumulative; last is +Inf */
    double sum;
} histogram;

typedef struct {
    int running, waiting; /* sequences */
    int deferred;         /* of those waiting: for a prompt that another choice computes */
    bool queue_full;      /* a submit would get ERR_LIMIT now */
    int kv_used, kv_cached, kv_free, kv_total; /* blocks */
    uint64_t prompt_tokens, prompt_computed, generation_tokens, preemptions, cached_tokens,
        prefix_queries, prefix_hits, reasoning_tokens, steps, decode_steps, busy_slots;
    uint64_t finished[5];                           /* by finish_reason */
    uint64_t rejected;                              /* submits refused: queue full, can never fit */
    uint64_t drafts, draft_tokens, accepted_tokens; /* guesses: steps of a sequence that had some */
    uint64_t accepted_at[DRAFT_MAX];                /* accepted, by place in the draft */
    uint64_t late_masks;                            /* masks that were finished beside the engine */
    uint64_t cancelled_queued, cancelled_prefill, cancelled_decode;
    double prompt_seconds, predicted_seconds;
    double tok_per_s; /* recent generation throughput, for Retry-After */
    int n_tokens_max; /* largest context seen */
    histogram ttft, itl, e2e, queue, inference, prefill, decode, prompt_size, generation_size;
    histogram token_time;           /* mean time of a sequence's tokens behind the first */
    histogram step_tokens;          /* of a step */
    histogram longest, n_choice;    /* of a request: generated tokens, choices */
    histogram max_tokens, computed; /* of a request: limit in force, prompt tokens not reused */
    histogram block_life, block_idle, block_gap; /* KV blocks: taken to evicted, last used to
                                                    evicted, idle until used again; seconds */
} engine_counters;
void engine_stats(const engine *g, engine_counters *out);

#endif
