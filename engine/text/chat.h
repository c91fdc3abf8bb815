/* chat.h - a chat request's messages, tools and switches to a prompt (API C1-C7, R3, R4, T1, T2).
 * Normalises messages (roles, parts, merged leading system texts, tool-call arguments parsed),
 * picks the template's variables, renders, and says how the output must be parsed. Thread: a
 * chat_format is const after opening; chat_render is safe from any thread. */
#ifndef QUERN_ENGINE_TEXT_CHAT_H
#define QUERN_ENGINE_TEXT_CHAT_H

#include "engine/text/output.h"
#include "engine/text/template.h"

typedef struct chat_format chat_format;

/* text NULL = plain ChatML.  default_kwargs: operator's --default-chat-template-kwargs or NULL. */
chat_format *chat_format_open(const char *text, size_t n, const char *bos_text,
                              const char *eos_text, const json *default_kwargs, err *e);
void chat_format_free(chat_format *f);
/* --tool-format: how calls are written and read, instead of what the template tells ("auto" or
 * NULL); react and function also write the tools, calls and results into the prompt in their form.
 * false: no such name. */
bool chat_format_use_calls(chat_format *f, const char *name);
/* How calls are written. */
call_format chat_format_calls(const chat_format *f);
const template_traits *chat_format_traits(const chat_format *f);
const char *chat_format_text(const chat_format *f); /* the template's text */

typedef struct {
    const json *messages;  /* array, >= 1 (the caller checked the JSON; this checks the content) */
    const json *tools;     /* array or NULL */
    const json *documents; /* array or NULL */
    const json *kwargs;    /* chat_template_kwargs object or NULL */
    const json *tool_choice;   /* as received or NULL; "none" still renders tools */
    int add_generation_prompt; /* -1 absent, 0, 1 */
    int continue_final;        /* -1 absent, 0, 1 */
    int thinking;              /* -1 not set, 0 off, 1 on: request field or dialect (R3) */
    const char *effort;        /* reasoning_effort or NULL */
    const char *model;         /* its name, for refusals, or NULL */
} chat_input;

typedef struct {
    template_output prompt;
    think_mode think;       /* how to read the output */
    bool may_think;         /* the model itself may open a thought: none is open or closed */
    call_format calls;      /* how calls look in it; CALLS_NONE without tools */
    bool after_label;       /* react, function: the answer goes on behind a label of the prompt */
    buf ignored;            /* comma-separated names for x-quern-ignored, or empty */
    buf continued;          /* the text that the answer goes on from (C6), or empty */
    bool continues_thought; /* it is part of a thought */
} chat_prompt;
void chat_prompt_clear(chat_prompt *p);

/* A failed check: field path such as "messages[2].content[0]" goes to param (may be ""). */
typedef struct {
    char param[160];
    const char *code; /* API E3 code, static: missing_required_parameter, invalid_type, ... */
} chat_fault;

/* The fields of a chat body.  A flag that is no boolean and an effort that is no string are as if
 * not set: who must refuse them looks first. */
chat_input chat_input_of(const json *body);
/* 0, or negative with e (message) and fault filled. */
int chat_render(const chat_format *f, const chat_input *in, chat_prompt *out, chat_fault *fault,
                err *e);

#endif
