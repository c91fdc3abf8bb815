/* constraint.h - what a request demands of the form of its answer: one output constraint (API J1,
 * J2) and how tools may be called (T3-T6), read from the fields of every dialect in one place.
 * constraint.c compiles them into the one grammar that every choice of the request is held to.
 * Thread: one owner; compiling may take long and belongs on the thread for long work. */
#ifndef QUERN_SERVER_CONSTRAINT_H
#define QUERN_SERVER_CONSTRAINT_H

#include "base/json.h"
#include "engine/grammar/grammar.h"

typedef enum { CHOOSE_AUTO, CHOOSE_NONE, CHOOSE_REQUIRED, CHOOSE_NAMED } tool_choosing;

typedef struct {
    char field[64]; /* path of the constraint in the body; "": none */
    grammar_kind kind;
    const json *value;   /* schema, text or list of texts; NULL for JSON_OBJECT.  Borrowed */
    bool raw;            /* it governs the raw text, tool calls included (J3) */
    bool in_reasoning;   /* and the thought as well */
    tool_choosing tools; /* T3; AUTO without tools */
    const json *allowed; /* NAMED: the choice; allowed_tools: their list; NULL: all.  Borrowed */
    bool strict;         /* a tool that may be called holds its arguments to its schema (T5) */
} constraint;

/* Where the answer stands. */
typedef struct {
    grammar_think opening; /* what the prompt leaves of a thought */
    call_format calls;     /* how calls are written; CALLS_NONE: not at all */
    const json *tools;     /* the request's, NULL: none */
    bool one_call;         /* generation ends after the first call */
} answer_place;

/* Whether an answer is held to anything. */
bool constraint_binds(const constraint *c);

#endif
