/* reply.h - pieces of wire text: errors in each dialect's shape, ids, SSE lines.
 * Thread: pure functions over a buf. */
#ifndef QUERN_SERVER_REPLY_H
#define QUERN_SERVER_REPLY_H

#include "base/buf.h"
#include "server/routes.h"

struct cJSON;

/* The error body of E1, E2.  param and code may be NULL; request_id is used by some shapes. */
void reply_error(buf *out, dialect d, const char *request_id, int status, const char *type,
                 const char *code, const char *param, const char *msg);
/* The dialect of a call, by its path and headers (E1). */
dialect reply_dialect(const http_call *c);
/* Sends that error as the call's reply; its message is cut at REPLY_MESSAGE_MAX bytes. */
enum { REPLY_MESSAGE_MAX = 4096 };
void reply_fail(http_call *c, int status, const char *type, const char *code, const char *param,
                const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* The same for want of memory: 503. */
void reply_oom(http_call *c);
/* Prints o (NULL: out of memory, 503) as the call's reply and deletes it. */
void reply_json(http_call *c, int status, struct cJSON *o);
/* 501 naming the field or feature (stages that are not built). */
void reply_not_built(http_call *c, const char *param);
/* prefix + 24 random base62 characters (G15); cap >= strlen(prefix) + 25. */
void reply_id(char *out, size_t cap, const char *prefix);
/* A string-literal member: ,"name":"value" without the comma when first. */
void reply_put_str(buf *b, const char *name, const char *value);

#endif
