/* gen.h - one generation reply in progress: requests in the engine, choices, plain or streamed. The
 * wire shape comes from a gen_format (api_chat.c, api_completions.c); everything else - submitting,
 * waiting, taking deltas, usage, timings, errors before and after the first byte - is here once.
 * Thread: built on a prep thread, then used by the call's HTTP thread; gone may come from the
 * watchdog. */
#ifndef QUERN_SERVER_GEN_H
#define QUERN_SERVER_GEN_H

#include "server/custom_input.h"
#include "server/request.h"
#include "server/submit.h"

typedef struct gen gen;

/* What a shape has room for; a request that asks for the rest is told so (V6, V9). */
enum { ROOM_TIMINGS = 1, ROOM_PROMPT_LOGPROBS = 2, ROOM_TOKEN_IDS = 4 };

/* One choice as far as the client may see it. */
typedef struct {
    int index;                                 /* over all prompts: prompt * n + choice */
    int prompt;                                /* which prompt */
    said said;                                 /* plain replies: all so far */
    char (*call_id)[32];                       /* [n_calls] ids of its tool calls */
    int n_calls, n_whole;                      /* calls begun, complete */
    buf logprobs, logprobs_reasoning;          /* finished JSON items, comma-separated (chat) */
    buf lp_token, lp_value, lp_top, lp_offset; /* the four arrays of completions */
    custom_input input;                        /* streams: of custom_call */
    int custom_call;                           /* 1 + the custom tool's call at hand, 0 none */
    buf ids;                                   /* return_token_ids: comma-separated */
    int64_t n_chars; /* code points of visible text so far (text_offset) */
    double lp_sum;   /* of its tokens' logprobs (best_of) */
    int64_t n_tok;   /* tokens that reached the shape */
    finish_reason finish;
    int stop_index;  /* index into params.stop, -1 */
    int32_t stop_id; /* stop_token_id, -1 */
    bool opened;     /* the first delta came (open was called, echo was put in front) */
    bool collected;  /* stream of completions: the first chunk went out */
} choice;

/* A dialect's way to say what was generated. */
typedef struct {
    const char *id_prefix;           /* "chatcmpl-" */
    const char *call_prefix;         /* of the ids of tool calls: "call_" */
    const char *param_prompt;        /* "messages" or "prompt", for errors */
    const char *stream_type;         /* Content-Type of streams */
    unsigned room;                   /* ROOM_* */
    void (*plain)(gen *g, buf *out); /* the whole reply of a finished generation */
    void (*collect)(gen *g, choice *c, const delta *d); /* plain: fold a delta into the choice; its
                                                           text is in choice.said already */
    void (*begin)(gen *g, buf *out);                    /* stream: before all else; may be NULL */
    void (*open)(gen *g, choice *c, buf *out); /* stream: first chunk of a choice; may be NULL */
    void (*delta)(gen *g, choice *c, const delta *d, buf *out); /* stream: chunks of one delta */
    /* stream: the prompt of c is computed up to done of total tokens, of which cached were there
     * (G14); NULL: the shape cannot say so */
    void (*progress)(gen *g, choice *c, int64_t done, buf *out);
    void (*end)(gen *g, buf *out);                      /* stream: after every choice */
    void (*fail)(gen *g, const gen_fault *f, buf *out); /* stream: instead of end (H17) */
    void (*ping)(gen *g, buf *out);                     /* stream: after silence (H16) */
    void (*drop)(gen *g);                               /* clears what gen.own holds; may be NULL */
} gen_format;

struct gen {
    app *a;
    http_call *call;
    const gen_format *format;
    params p;
    json_doc *doc, *source; /* the request body, what it was translated from: params borrow */
    const json *body;
    const json *sent;   /* root of source, or NULL */
    conversation *talk; /* see reader; owned */
    think_mode think;
    call_format calls;
    bool after_label;      /* the prompt ends with a label of the answer (chat.h) */
    call_tools *tools;     /* owned reference */
    grammar_think opening; /* what the prompt leaves of a thought, to a grammar */
    grammar *grammar;      /* what p.form means; owned reference, or NULL */
    token_list *prompt;    /* [n_prompt] token ids */
    buf *prompt_text;      /* [n_prompt] completions with echo, else NULL */
    buf *prompt_lp;        /* [n_prompt] prompt_logprobs: items, comma-separated */
    int64_t *told;         /* [n_prompt] prompt tokens a stream was told of, -1 none yet */
    int64_t n_cut;         /* prompt tokens left out (G7) */
    int32_t *fim_end;      /* further end tokens (P6), or NULL; p.s borrows */
    said continued;        /* what answers go on from, shown in front (C6, echo) */
    int n_prompt;
    request **req;  /* [n_prompt], NULL until submitted */
    choice *choice; /* [n_choice] */
    int n_choice, n_finished;
    struct {
        delta *head;
        int req;
    } * held; /* [n_held] taken before the stream's first byte */
    int n_held, cap_held;
    bool begun; /* stream: the first bytes were asked for */
    char id[48];
    int64_t created;
    int error; /* first ERR_* of a finished choice */
    void *own; /* [format's size] the format's state, zeroed at first; owned */
};

/* Takes over r's document and p; r may be closed afterwards. */
gen *gen_new(reader *r, params *p, const gen_format *f, int n_prompt);
void gen_free(gen *g);
/* Submits every prompt and hands the call to the waiter, or replies with the error. */
void gen_start(gen *g, reader *r);

/* Pieces for the formats. */
void gen_head(const gen *g, const char *object, buf *out); /* {"id":...,"system_fingerprint":... */
void gen_usage(const gen *g, buf *out);                    /* the usage object */
void gen_timings(const gen *g, buf *out);                  /* ,"timings":{...} or nothing */
/* What the route adds to the end of OpenAI's replies, if it does: on /api/v0 LM Studio's (L2). */
void gen_last(const gen *g, buf *out);
/* A stream's chunk behind its choices: ,"usage":... by the request's options, ,"timings":... on the
 * last chunk and on all that are asked for. */
void gen_chunk_tail(const gen *g, bool last, buf *out);
/* {"total":...,"cache":...,"processed":...,"time_ms":...} of prompt i */
void gen_progress(const gen *g, int i, int64_t done, buf *out);
/* Keeps the prompt's logprobs that came with d. */
void gen_collect_prompt(gen *g, int i, const delta *d);
/* ,"prompt_logprobs":[...] of prompt i where asked for */
void gen_prompt_logprobs(const gen *g, int i, buf *out);
/* Token i of d ended the answer and is no part of it (G12). */
bool gen_is_end(const gen *g, const delta *d, int i);
/* "stop", "length" or "tool_calls"; NULL before the end (G20). */
const char *gen_finish_word(const choice *c);
/* ,"finish_reason":...,"stop_reason":... */
void gen_finish(const gen *g, const choice *c, buf *out);
/* Appends the items of a delta's tokens as chat shows them, comma-separated (api_chat.c); call >=
 * 0: of the answer's only those behind so many calls. */
void gen_chat_logprobs(const gen *g, const delta *d, int call, buf *content, buf *reasoning);
void gen_ids(const int32_t *id, size_t n, buf *out); /* comma-separated */
void gen_delta_ids(const delta *d, buf *out);        /* appends, comma-separated */
/* fail and ping of server-sent events in OpenAI's shape. */
void gen_sse_fail(gen *g, const gen_fault *f, buf *out);
void gen_sse_ping(gen *g, buf *out);
#define SSE_TYPE "text/event-stream; charset=utf-8"
void sse_begin(buf *out); /* "data: " */
void sse_end(buf *out);   /* blank line */
void sse_done(buf *out);  /* "data: [DONE]" */
/* A token's text with U+FFFD for incomplete parts, or token_id:N if the request names them so, as a
 * JSON string. */
void put_token_text(const gen *g, int32_t id, buf *out);
/* ,"bytes":[...] of a token */
void put_token_bytes(const gen *g, int32_t id, buf *out);
/* A logprob: -inf as -9999.0. */
void put_logprob(float lp, buf *out);
static inline bool gen_all_done(const gen *g)
{
    return g->n_finished == g->n_choice;
}

#endif
