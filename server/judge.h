/* judge.h - the prompt that asks a reranker whether a document meets a query, with what stands in
 * it closed to control tokens (API G19), and its cut to a number of tokens.  Thread: prep. */
#ifndef QUERN_SERVER_JUDGE_H
#define QUERN_SERVER_JUDGE_H

#include "base/buf.h"
#include "engine/text/tokenizer.h"

typedef struct {
    const char *v;
    size_t n;
} judge_text;

typedef struct {
    judge_text instruction; /* v NULL: the one rerankers are trained with */
    judge_text query, document;
    int64_t keep; /* tokens at most, the document losing what is too much; 0: no limit */
    bool right;   /* the document keeps its beginning, else its end */
} judge_ask;

/* The ids of the prompt into out.  *n_cut rises by what was left out.  0, ERR_LIMIT when query and
 * frame alone are longer than keep (e says how long they are), or what the tokenizer says. */
int judge_encode(const tokenizer *t, const judge_ask *a, token_list *out, int64_t *n_cut, err *e);

#endif
