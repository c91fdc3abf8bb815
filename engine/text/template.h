/* template.h - Jinja as chat templates use it: compiled once, rendered in a sandbox (no I/O, step,
 * depth and output limits).  Byte-equal with Hugging Face's environment (trim_blocks,
 * lstrip_blocks, loopcontrols, its tojson) on the published templates.
 * Thread: a compiled template is const; rendering is safe from any thread. */
#ifndef QUERN_ENGINE_TEXT_TEMPLATE_H
#define QUERN_ENGINE_TEXT_TEMPLATE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "engine/text/tokenizer.h"

#include <stdint.h>
#include <time.h>

typedef struct template template;

/* Syntax errors name the line.  Unknown filters, tests and statements are errors here, not later.
 */
template *template_compile(const char *text, size_t n, err *e);
void template_free(template *t);

typedef struct {
    const char *name;  /* variable name in the template */
    const json *value; /* borrowed; NULL value = undefined */
    bool trusted;      /* strings inside are the operator's, not the client's (bos_token, ...) */
} template_var;

typedef struct {
    const template_var *var; /* messages, tools, add_generation_prompt, enable_thinking, ... */
    size_t n_var;
    time_t now;         /* for strftime_now */
    uint64_t max_steps; /* 0 = 10,000,000 */
    size_t max_output;  /* bytes; 0 = 16 MiB */
} template_input;

/* Text plus the spans of it that came (through any filter, slice or concatenation) from untrusted
 * variables: tokenising closes them to control tokens (API G19). */
typedef struct {
    buf text;
    text_span *closed; /* [n_closed] owned */
    size_t n_closed, cap_closed;
} template_output;
void template_output_clear(template_output *o);

/* ERR_INVALID with the template's own words for raise_exception; ERR_LIMIT over a limit; other
 * run-time errors (as Python would raise them) ERR_INVALID. */
int template_render(const template *t, const template_input *in, template_output *out, err *e);

/* What the text of a template tells (never the model's name). */
typedef struct {
    bool tools;           /* reads `tools` */
    bool think;           /* mentions </think> */
    bool think_switch;    /* reads enable_thinking */
    bool effort;          /* reads reasoning_effort */
    bool parts;           /* iterates message content as parts */
    bool xml_calls;       /* <function= calls (Qwen3-Coder, 3.5) */
    bool system_anywhere; /* takes a system message that is not the first without raising */
} template_traits;
/* Found from the text and by trial renderings of small conversations. */
template_traits template_inspect(const template *t);

#endif
