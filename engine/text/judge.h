/* judge.h - the prompt that asks a reranker whether a document meets a query, with what stands in
 * it closed to control tokens (API G19), and its cut to a number of tokens.  Its text is the
 * model's own, with {query} and {document} where they go, or that of Qwen3-Reranker.
 * Thread: any; a form is const once opened. */
#ifndef QUERN_ENGINE_TEXT_JUDGE_H
#define QUERN_ENGINE_TEXT_JUDGE_H

#include "base/buf.h"
#include "engine/text/tokenizer.h"

typedef struct {
    const char *v;
    size_t n;
} judge_text;

typedef enum { JUDGE_FIXED, JUDGE_INSTRUCTION, JUDGE_QUERY, JUDGE_DOCUMENT } judge_place;

enum { JUDGE_MAX_PARTS = 16 };

/* The prompt in parts, borrowed from its text. */
typedef struct {
    struct {
        judge_place place;
        judge_text text; /* what stands there; an instruction's is for requests without one */
    } part[JUDGE_MAX_PARTS];
    int n;
    int document;    /* which part it is */
    bool instructed; /* there is a place for an instruction */
} judge_form;

/* text NULL: Qwen3-Reranker's.  The line behind "<Instruct>: " is the place of the instruction.
 * Refuses a text without {query}, or with none or several {document}. */
int judge_form_open(judge_form *f, const char *text, size_t n, err *e);

typedef struct {
    judge_text instruction; /* v NULL: the form's own */
    judge_text query, document;
    int64_t keep; /* tokens at most, the document losing what is too much; 0: no limit */
    bool right;   /* the document keeps its beginning, else its end */
} judge_ask;

/* The ids of the prompt into out.  *n_cut rises by what was left out.  0, ERR_LIMIT when query and
 * frame alone are longer than keep (e says how long they are), or what the tokenizer says. */
int judge_encode(const tokenizer *t, const judge_form *f, const judge_ask *a, token_list *out,
                 int64_t *n_cut, err *e);

#endif
