/* chat_request.h - the part of a chat body that becomes a prompt: shared by chat, /tokenize and
 * /apply-template.  Failures set the reader's reply. */
#ifndef QUERN_SERVER_CHAT_REQUEST_H
#define QUERN_SERVER_CHAT_REQUEST_H

#include "server/gen.h"
#include "server/translate.h"

/* False after replying 503 while loading, draining or failed (H11, H18, H19). */
bool ready_or_fail(reader *r);
/* Renders messages (tools, documents, kwargs, switches) of r->body.  p gives thinking and effort;
 * NULL when the route has no params (they are read here). */
bool chat_request_render(reader *r, const params *p, chat_prompt *out);
/* The rendered prompt to ids, client text closed to control tokens (G19). */
bool chat_request_encode(reader *r, const chat_prompt *prompt, token_list *out);

/* A whole generation on a chat body: reads the call's body through t (NULL: it is a chat body),
 * renders, submits, replies in shape f.  own: bytes of the shape's state (gen.own). */
void chat_run(http_call *c, translator *t, const char *const *names, const gen_format *f,
              size_t own);
/* The same on a reader that is open on the dialect's body already; the caller closes it.  before
 * (may be NULL) puts something in front of the prompt's ids, or fails r. */
typedef bool chat_before(reader *r, const params *p, token_list *ids);
void chat_serve(reader *r, translator *t, const char *const *names, const gen_format *f, size_t own,
                chat_before *before);
/* A request's own smaller context (r->ctx) bounds prompt and answer together; false: r failed. */
bool request_fits(reader *r, gen *g);
/* Replies before N after, N being the tokens of the prompt. */
void chat_count(http_call *c, translator *t, const char *const *names, const char *before,
                const char *after);

#endif
