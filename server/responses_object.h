/* responses_object.h - the response object of a reply (API X5), its usage, and its way into the
 * store (X4).  Thread: the call's. */
#ifndef QUERN_SERVER_RESPONSES_OBJECT_H
#define QUERN_SERVER_RESPONSES_OBJECT_H

#include "server/gen.h"
#include "server/response_store.h"

/* The request as it is told back.  Members may be NULL. */
typedef struct {
    const json *instructions, *previous, *max_output, *max_calls, *metadata, *user, *text,
        *tool_choice, *tools, *summary, *effort, *truncation, *top_logprobs;
    bool store;
} response_echo;

typedef struct {
    const char *status;       /* "in_progress", "completed", "incomplete", "failed" */
    const char *error;        /* message of a failure, or NULL */
    int64_t completed;        /* Unix seconds, 0 = not yet */
    const conversation *talk; /* its output is listed, unless the reply is in progress */
} response_state;

void response_put_object(const gen *g, const response_echo *e, const response_state *s, buf *out);
/* "completed" or "incomplete" of a finished choice (G20). */
const char *response_status(const choice *c);
/* Keeps the object under the reply's id. */
void response_keep(const gen *g, const buf *object);

#endif
