/* request.h - JSON body -> checked parameters; every failure is one 400 that names the field.
 * A reader latches the first failure (V5): later reads are no-ops, and one check at the end
 * suffices. Thread: one owner. */
#ifndef QUERN_SERVER_REQUEST_H
#define QUERN_SERVER_REQUEST_H

#include "base/json.h"
#include "engine/engine.h"
#include "server/app.h"
#include "server/constraint.h"
#include "server/http.h"
#include "server/response_store.h"

/* Which route family reads: decides defaults and which fields are known. */
typedef enum {
    READ_CHAT,
    READ_COMPLETIONS,
    READ_LLAMA,
    READ_TEXT,
    READ_EMBED,
    READ_RERANK,
    READ_SCORE
} read_kind;

typedef struct {
    http_call *call;
    app *a;
    read_kind kind;
    json_doc *doc;
    const json *body;     /* object */
    json_doc *source;     /* what doc was translated from, or NULL (translate.h) */
    const json *sent;     /* root of source: the body as the client wrote it, or NULL */
    const json *kept;     /* the messages that truncation left, or NULL (turns.h) */
    conversation *talk;   /* of dialects that keep it with the reply, or NULL; owned */
    bool drop_turns;      /* truncation was asked for (G7) */
    uint8_t left_out[64]; /* bits: which of the client's first 512 tools the translator skipped */
    const char *const *names; /* pairs of our and the dialect's field names, or NULL */
    int ctx;                  /* a smaller context for this request alone; 0 = the server's */
    bool counts_only;         /* the prompt is only counted */
    bool zero_tokens;         /* a limit of 0 tokens is legal: the prompt is only computed */
    bool failed;              /* the reply was set */
    buf ignored;              /* names for x-quern-ignored */
    int n_ignored;
} reader;

/* A prompt that no chat template makes. */
static inline bool reader_raw(const reader *r)
{
    return r->kind == READ_COMPLETIONS || r->kind == READ_LLAMA;
}

/* Parses the call's body; false (reply set) if it is not a JSON object. */
bool reader_open(reader *r, http_call *c, read_kind kind);
void reader_close(reader *r);
void reader_fail(reader *r, const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void reader_oom(reader *r); /* out of memory: 503 */
/* The media of that kind at `at` are nothing for the model (D1). */
void reader_no_media(reader *r, const char *at, const char *kind);
/* Adds a name to x-quern-ignored. */
void reader_ignore(reader *r, const char *name, size_t n);
/* The same of a name of ours, as the client's dialect calls it. */
void reader_ignore_ours(reader *r, const char *name, size_t n);

/* Fields: absent and null leave *out alone and return false. */
const json *rd_any(reader *r, const char *name);
bool rd_bool(reader *r, const char *name, bool *out);
bool rd_int(reader *r, const char *name, int64_t lo, int64_t hi, int64_t *out);
bool rd_num(reader *r, const char *name, double lo, double hi, double *out);
/* Text of lo..hi bytes, borrowed from the document. */
bool rd_str(reader *r, const char *name, size_t lo, size_t hi, const char **out, size_t *n);

typedef struct {
    sampling s; /* pointers into the document or owned below */
    int n;
    int shown; /* of the n choices of a prompt the best ones that are shown; 0 = all (best_of) */
    bool stream, include_usage, continuous_usage;
    bool timings_per_token, return_progress;
    bool return_token_ids;
    bool ids_as_names; /* logprobs name tokens token_id:123 */
    bool echo;
    bool logprobs;
    int prompt_logprobs; /* tops of every prompt token, -1 none */
    int64_t truncate;    /* prompt tokens to keep; -1 as many as fit, 0 all */
    bool truncate_right; /* the first ones are kept */
    int priority;
    const char *cache_salt;
    bool cache_prompt;
    bool show_reasoning;    /* include_reasoning */
    thought_place thoughts; /* apart, in content, or both */
    int thinking;           /* -1, 0, 1 */
    const char *effort;
    bool budget_set;
    int64_t think_budget; /* reasoning tokens, -1 = no limit (R5) */
    token_list think_end; /* what ends a thought that has used them up */
    bool drawn_seed;      /* the seed was random: report it */
    double ping;          /* seconds; 0 = server's, < 0 off */
    int64_t deadline_us;
    constraint form;   /* what the answer must look like (J1, T3) */
    bool calls_off;    /* tool_choice none: tools are shown to the model, calls are banned */
    bool one_call;     /* parallel_tool_calls: false */
    const char *model; /* the alias that matched */
    /* owned */
    const char **stop;
    size_t *stop_len;
    int32_t *stop_id, *bias_id, *allowed;
    float *bias;
    const char **bad_word;
} params;

/* Model, then every generation field of G1, V6, V7, V9, R3-R6; cross-field checks; ignored fields
 * collected.  False if r failed. */
bool params_read(params *p, reader *r);
/* The same of a request for embeddings or scores: model, truncation, place in the queue, deadline.
 */
bool params_read_pooled(params *p, reader *r);
void params_clear(params *p);
/* Keeps the last (right: the first) k >= 1 tokens; how many are gone. */
int64_t prompt_cut(token_list *l, int64_t k, bool right);
/* What is sent and how: streams, usage, logprobs, order, deadlines (params_output.c). */
void read_output_fields(params *p, reader *r);
/* What is kept of a long prompt, place in the queue and deadline: part of the above. */
void read_order_fields(params *p, reader *r);
/* Sets x-quern-ignored, x-quern-seed, x-quern-clamped where due. */
void params_headers(const params *p, reader *r, int64_t clamped);
/* The alias of V8 for the body's model field, NULL after failing. */
const char *read_model(reader *r);
/* The tokens that end a thought over its budget; false: out of memory. */
bool params_think_end(params *p, reader *r, think_mode think);
/* The reasoning switches of R3-R6 (params_reasoning.c). */
void read_reasoning_fields(params *p, reader *r);
/* tool_choice and strict tools (params_grammar.c). */
void read_tool_choice(constraint *c, reader *r);
/* The one constraint of the answer, behind read_tool_choice (params_grammar.c). */
void read_constraint(constraint *c, reader *r);
/* The grammar of an answer that constraint_binds (constraint.c).  NULL: r failed; or only one that
 * is kept from an earlier request was wanted, and there is none. */
grammar *constraint_compile(const constraint *c, const answer_place *at, bool only_kept, reader *r);
/* The object that describes a member of tools, NULL if there is none. */
const json *tool_body(const json *tool, bool *custom);
/* May this member of tools be called? */
bool constraint_allows(const constraint *c, const json *tool);
/* Fields that would change what the client gets and are refused, never ignored (V7). */
void read_refused(reader *r);
/* Top-level names nobody asked for go to r->ignored (V6). */
void read_unknown(reader *r);

#endif
