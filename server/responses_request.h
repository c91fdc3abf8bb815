/* responses_request.h - a Responses body as a chat body (API X1-X3, X7).  The items of a
 * conversation are read here for LM Studio's chat too.  Thread: prep. */
#ifndef QUERN_SERVER_RESPONSES_REQUEST_H
#define QUERN_SERVER_RESPONSES_REQUEST_H

#include "server/response_store.h"
#include "server/translate.h"

translator responses_translate;
extern const char *const responses_names[];

/* ,"messages":[...] of instructions (may be NULL), of what previous_response_id names, and of the
 * items of input; r->talk gets the same items, to be kept with the reply (X4). */
void responses_messages(reader *r, const json *body, const json *instructions, const json *input,
                        buf *out);
/* Whether the reply is to be kept: store, unless it is false or the server keeps nothing. */
bool responses_store_wanted(reader *r);

/* A thought as encrypted_content, and back: false if s is none of ours (X7). */
void thought_seal(const char *s, size_t n, buf *out);
bool thought_open(const char *s, size_t n, buf *out);

#endif
