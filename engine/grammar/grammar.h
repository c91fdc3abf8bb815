/* grammar.h - texts that keep to a JSON Schema, a regular expression, a list of choices or a GBNF
 * grammar.
 * A grammar is compiled once, exactly or not at all: what cannot be enforced is refused with a
 * code, the keyword and its JSON pointer; nothing is ever left out in silence.  The compiled
 * grammar is a scannerless automaton over bytes that is built while it is used. Refuses what API.md
 * J4 and J5 say.  Thread: a grammar may be shared; each call holds its lock. */
#ifndef QUERN_ENGINE_GRAMMAR_GRAMMAR_H
#define QUERN_ENGINE_GRAMMAR_GRAMMAR_H

#include "base/err.h"
#include "engine/text/calls.h"
#include "engine/text/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    GRAMMAR_SCHEMA,
    GRAMMAR_JSON_OBJECT,
    GRAMMAR_REGEX,
    GRAMMAR_CHOICE,
    GRAMMAR_GBNF
} grammar_kind;

typedef struct {
    grammar_kind kind;
    const char *text; /* [n] SCHEMA: its JSON; REGEX: the pattern, which the whole text must match;
                         GBNF: rules as llama.cpp writes them */
    size_t n;
    const tokenizer *tok;       /* GBNF: whose tokens it may name; NULL: none */
    const char *const *choices; /* [n_choices] CHOICE */
    size_t n_choices;
    bool free_order; /* keys in any order (objects of at most 64 names), not as the schema has them
                      */
} grammar_spec;

/* The thought before an answer, as the prompt left it (API R1, J3). */
typedef enum {
    GRAMMAR_THINK_NONE, /* there is none, or it is closed: the answer begins with the first token */
    GRAMMAR_THINK_OPEN, /* thought until </think>, at most 4 characters of white space, the answer
                         */
    GRAMMAR_THINK_MAY   /* the model may open one with <think>, or answer at once */
} grammar_think;

typedef enum {
    GRAMMAR_CALLS_OFF,     /* calls are no matter of this grammar */
    GRAMMAR_CALLS_AUTO,    /* text and calls; with a body, the body or calls (T5, J3) */
    GRAMMAR_CALLS_REQUIRED /* one or more calls and nothing else (T4); no body */
} grammar_calls;

typedef struct {
    const char *name;   /* as T1 allows */
    const char *schema; /* [n_schema] its parameters as JSON; NULL: any object */
    size_t n_schema;
    bool strict;  /* its schema is enforced exactly or refused; else under AUTO not at all, under
                     REQUIRED with what cannot be enforced widened to any value (T6) */
    bool allowed; /* it may be called (allowed_tools, a named choice) */
    bool custom;  /* its one argument is the string "input" (T10); schema is not looked at */
} grammar_tool;

/* What a whole generation may be, from its first token to its end.  Under AUTO without a body only
 * strict tools, or names that are not allowed, need a grammar at all. */
typedef struct {
    grammar_think think;
    const grammar_spec *body; /* NULL: any text */
    grammar_calls calls;
    call_format format; /* how calls are written */
    const grammar_tool *tools;
    int n_tools;
    bool one_call; /* parallel_tool_calls: false; with REQUIRED exactly one */
} grammar_answer;

/* A place in a tool's schema that was widened to any value. */
typedef struct {
    int tool;
    char *pointer; /* "#/properties/x" */
} grammar_relaxed;

typedef struct grammar grammar;

enum { GRAMMAR_MAX_FAULTS = 8 };

/* Another fault of a schema, as grammar_error has the first. */
typedef struct {
    const char *code;
    char msg[480];
} grammar_fault;

typedef struct {
    int tool;         /* which of the tools is at fault, -1: none, it is the body */
    const char *code; /* "unsupported_schema", "invalid_schema", "unsatisfiable_schema",
                         "schema_too_complex", "grammar_too_complex", "invalid_grammar" */
    char at[200];     /* JSON pointer of the place in a schema; "": the whole, or no one place */
    err e;
    int n_more; /* what else is refused in the same schema, as far as it was looked for */
    grammar_fault more[GRAMMAR_MAX_FAULTS - 1];
} grammar_error;

/* 0 and *out with one reference, or ERR_* and why (ERR_NOMEM without a code). */
int grammar_compile_answer(const grammar_answer *a, grammar **out, grammar_error *why);
/* The same without a thought. */
int grammar_compile(const grammar_spec *spec, grammar **out, grammar_error *why);
/* The places that were widened, *n of them; they live as long as g. */
const grammar_relaxed *grammar_relaxed_places(const grammar *g, size_t *n);
grammar *grammar_ref(grammar *g);
void grammar_release(grammar *g); /* NULL is allowed */

/* Memory it held when it was last used, with what its automaton had grown to. */
size_t grammar_bytes(const grammar *g);

/* 1 if text[n] is in the language, 0 if not; ERR_LIMIT if finding out takes more nesting or work
 * than one text may cost (nothing is then said about it), ERR_NOMEM. */
int grammar_accepts(grammar *g, const char *text, size_t n);

#endif
