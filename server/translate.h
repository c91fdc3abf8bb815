/* translate.h - writing a dialect's request as the chat request it means.  One internal request
 * type: a translator makes a chat body (JSON text) out of its own, the reader reads that, and
 * errors name the fields as the client wrote them.  Thread: one owner. */
#ifndef QUERN_SERVER_TRANSLATE_H
#define QUERN_SERVER_TRANSLATE_H

#include "server/request.h"

/* Writes the chat body of body into out; on failure r failed.  Fields it does not list as ignored
 * and that mean the same in both are copied by tr_rest. */
typedef void translator(reader *r, const json *body, buf *out);

/* r, open on the dialect's body, goes on on the translated one.  names: pairs "chat name", "the
 * dialect's name", ended by NULL. */
bool reader_translate(reader *r, translator *t, const char *const *names, bool counts_only);

/* Chat's own fields that no other dialect has room or meaning for. */
#define TR_CHAT_ONLY \
    "echo", "documents", "stream_options", "add_generation_prompt", "continue_final_message"
/* Those of body's members whose names are among names[n] mean nothing here: they are listed. */
void tr_ignore(reader *r, const json *body, const char *const *names, int n);
/* ,"name": (the comma only after another member). */
void tr_name(buf *out, const char *name);
void tr_json(buf *out, const char *name, const json *value);
void tr_str(buf *out, const char *name, const char *s, size_t n);
/* The client's tools as chat's (X3, A6).  schema: their name for `parameters`.  typed: a tool says
 * its type, function or custom; else one without a type, or custom, is a function.  What a service
 * would run itself has no place here: it is listed as ignored, and left out. */
void tr_tools(reader *r, const json *tools, const char *schema, bool typed, buf *out);
/* Every member of body that is not in taken[n]. */
void tr_rest(buf *out, const json *body, const char *const *taken, int n);
bool tr_is(const json *j, const char *word); /* a string equal to word */

/* Arguments text as an object: itself if it is one, else the members that are complete (T9). */
void put_args_object(const char *s, size_t n, buf *out);

#endif
