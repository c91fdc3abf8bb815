/* output.h - from token ids to text a client may see: one per generated sequence.
 * Joins token bytes, holds back incomplete UTF-8, splits reasoning from answer, watches for stop
 * strings in the answer (G8), finds tool calls (T7-T9), and never lets a byte of a stop string or
 * of a tag out.  Stop strings act on the answer's text only, never inside a call. Joined deltas
 * equal the whole text at any chunking (G17). It lives beside the tokenizer, not in server/,
 * because the engine must know at once that a stop string ended a sequence. Thread: one owner (the
 * engine thread). */
#ifndef QUERN_ENGINE_TEXT_OUTPUT_H
#define QUERN_ENGINE_TEXT_OUTPUT_H

#include "engine/text/calls.h"
#include "engine/text/said.h"
#include "engine/text/tokenizer.h"

/* What the prompt left open decides how `<think>` is read (API R1, R2). */
typedef enum {
    THINK_NONE,        /* no reasoning parser: raw routes, templates that know no </think> */
    THINK_MODEL_OPENS, /* answer unless the text starts (after white space) with <think> */
    THINK_PROMPT_OPEN, /* all is reasoning until </think>, also if it never comes */
    THINK_PROMPT_TEXT  /* the same, but the prompt ends inside the thought's own text (a prefilled
                          thought): white space at the start belongs to it */
} think_mode;

/* Where a thought is told (R6).  In the text it stands as it was written, with its tags, and yet
 * what is no answer elsewhere is none there: no stop string acts in it, no call counts but at its
 * end, its tokens are counted. */
typedef enum { THOUGHT_APART, THOUGHT_INLINE, THOUGHT_BOTH } thought_place;

typedef struct {
    const tokenizer *tok; /* borrowed for the life of the output */
    think_mode think;
    const char *const *stop; /* [n_stop] borrowed; copied */
    const size_t *stop_len;  /* [n_stop] bytes, 1..1024 each */
    int n_stop;              /* 0..16 */
    bool include_stop;       /* include_stop_str_in_output */
    bool keep_special;       /* skip_special_tokens: false */
    call_format calls;       /* how calls are written; CALLS_NONE: nothing is looked for */
    const call_tools *tools; /* borrowed; with calls */
    bool one_call;           /* parallel_tool_calls: false */
    bool after_label;        /* react, function: the prompt ends with a label */
    thought_place place;
} output_options;

/* MARKUP: think tags (and white space before the opening one), calls. */
typedef enum { TOK_ANSWER, TOK_REASONING, TOK_MARKUP } token_kind;

typedef struct output output;

output *output_new(const output_options *o);
void output_free(output *o);
/* One token.  Appends what became certain to s (whole characters only).  kind
 * (may be NULL) says where the token belongs, for logprobs; it is a guess while a think tag that
 * the model spells in several tokens is incomplete, see output_kinds.  Returns the index of the
 * stop string that ended the answer, else -1; once ended, nothing more comes out.  A stop string
 * counts when no other can still begin earlier, or at the same place and run longer. stops_on =
 * false: a stop string that this token completes does not fire (min_tokens, G9). Out of memory
 * marks s as such (said_ok). */
int output_feed(output *o, int32_t id, bool stops_on, said *s, token_kind *kind);
/* The same for bytes that no token stands for. */
int output_feed_bytes(output *o, const char *s, size_t n, said *to);
/* The end: flushes what was held (U+FFFD for an incomplete character), once.  Returns the index of
 * a stop string that this decided, or that had fired before, else -1; of a match nothing comes out
 * (but with include_stop). */
int output_end(output *o, said *s);
/* Kinds of the tokens fed so far: *kinds[returned] (bytes holding token_kind, borrowed until the
 * next call) are final.  After output_end that is all of them. */
size_t output_kinds(const output *o, const unsigned char **kinds);
/* Calls whose beginning has come out so far. */
int output_calls(const output *o);
/* Generation shall end here: the one call that was allowed is complete, or the place is reached
 * where a call's result belongs. */
bool output_wants_end(const output *o);
/* Tokens from <think> to </think> inclusive so far. */
int output_reasoning_tokens(const output *o);
bool output_in_reasoning(const output *o);

#endif
