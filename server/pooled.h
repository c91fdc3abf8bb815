/* pooled.h - one reply made of the model's states in progress: texts in, vectors or scores out
 * (API section 11).  A call may hold more texts than the queue: a window of them is in the engine,
 * the next goes in when one comes back.  The wire shape comes from a pooled_shape.
 * Thread: built on a prep thread, then used by the call's HTTP thread; gone may come from the
 * watchdog. */
#ifndef QUERN_SERVER_POOLED_H
#define QUERN_SERVER_POOLED_H

#include "server/request.h"

#include <pthread.h>

typedef struct pooled pooled;

typedef struct {
    const char *param;     /* the field that holds the texts, for errors */
    const char *id_prefix; /* "rerank-", or NULL: the shape has no id */
    void (*reply)(pooled *p, buf *out);
    void (*drop)(pooled *p); /* clears what p->own holds; may be NULL */
} pooled_shape;

typedef struct {
    token_list ids;
    request *req; /* NULL before and after it is in the engine */
    float *vec;   /* [n_vec] owned: the result */
    int n_vec;
} pooled_item;

struct pooled {
    app *a;
    http_call *call;
    const pooled_shape *shape;
    params p;
    json_doc *doc; /* the request body: params and shapes borrow */
    const json *body;
    request_want want;
    int dims;          /* WANT_VECTOR: 0 = all */
    const char *param; /* as shape.param, or the name the client gave the texts */
    bool listed;       /* the texts came in a list: errors name the place */
    pooled_item *item; /* [n_item] */
    int n_item;
    int64_t n_tokens, n_cut;                   /* of all prompts; left out of them */
    int64_t arrival_us, first_us, finished_us; /* clock_us; first in a step, last result */
    char id[48];
    int64_t created;
    void *own; /* the shape's; owned */
    /* Under mu. */
    pthread_mutex_t mu;
    int n_next, n_open, n_done; /* next to submit, in the engine, back */
    int first;                  /* none before it is open */
    bool gone;
    int error; /* first ERR_* */
};

/* Takes over r's document and p; NULL: r failed.  The caller fills item[].ids. */
pooled *pooled_new(reader *r, params *p, const pooled_shape *s, request_want want, int n_item);
void pooled_free(pooled *p);
/* Submits and hands the call to the waiter, or replies with the error. */
void pooled_start(pooled *p, reader *r);

/* ,"usage":{"prompt_tokens":...,"total_tokens":...} without the comma. */
void pooled_usage(const pooled *p, buf *out);

/* Embeddings in the shape given (api_embeddings.c); embeddings_members writes "object" to "usage"
 * without braces. */
void embeddings_run(http_call *c, const pooled_shape *s);
void embeddings_members(const pooled *p, buf *out);
/* [v, v, ...] */
void put_vector(const float *v, int n, buf *out);

#endif
