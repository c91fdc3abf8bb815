/* calls.h - finds tool calls in an answer as it is generated (API T7-T9, T11).
 * What is certain comes out at once: text, a call's name, its arguments piece by piece.  What turns
 * out to be no call is text again, tags included; nothing is lost and no tag of a call gets out.
 * The result depends on the bytes alone, not on how they are cut, and costs a constant per byte.
 * Thread: one owner. */
#ifndef QUERN_ENGINE_TEXT_CALLS_H
#define QUERN_ENGINE_TEXT_CALLS_H

#include "engine/text/call_tools.h"
#include "engine/text/said.h"

typedef enum {
    CALLS_NONE,
    CALLS_HERMES,  /* <tool_call> JSON or <function=...> </tool_call> */
    CALLS_XML,     /* the same, and <function=NAME> of a known tool at a line's start */
    CALLS_REACT,   /* Thought: / Action: / Action Input: / Final Answer: */
    CALLS_FUNCTION /* the marks of Qwen-Agent for Qwen1.5 and 2 */
} call_format;

/* "hermes", "qwen3_coder" (also "xml"), "react", "function", "none"; false if unknown. */
bool call_format_by_name(const char *name, call_format *f);
/* What every call of this format begins with (the answer may not hold it where calls are banned).
 */
const char *call_opener(call_format f);

/* Where it goes, in order. */
typedef struct {
    void *ctx;
    void (*text)(void *ctx, const char *s, size_t n);
    void (*call)(void *ctx, said_kind kind, int call, const char *s, size_t n);
} call_sink;

typedef struct calls calls;
/* tools are borrowed.  NULL: out of memory. */
calls *calls_new(call_format f, const call_tools *tools, call_sink to);
void calls_free(calls *c);
/* react, function, before the first byte: the text goes on behind a label, whose white space is not
 * the text's. */
void calls_after_label(calls *c);
/* Whole characters. */
void calls_feed(calls *c, const char *s, size_t n);
/* The end: what was held is text, or stays a call cut short. */
void calls_end(calls *c);
/* Inside a call's markup. */
bool calls_busy(const calls *c);
int calls_whole(const calls *c); /* complete calls so far */
/* The text came to where the result of a call belongs (react, function): generation shall end. */
bool calls_stopped(const calls *c);
bool calls_oom(const calls *c);

#endif
