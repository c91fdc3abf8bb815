/* http.h - the libmicrohttpd glue: connections, bodies, suspended waits, streams, time limits.
 *
 * Owns every connection and one http_call per request on it.  A call's way: headers are checked by
 * gate.c, the body is collected within its limits, the route's handler runs (on the prep pool if
 * the route says so), and the handler either replies or leaves a waiter that replies or streams
 * later. Refuses: what gate.c refuses, bodies over their limits, slow senders, more than max_conn
 * clients. Thread: handlers run on prep or HTTP threads; a call is used by one thread at a time,
 * except http_wake, which any thread may call until the waiter's release. */
#ifndef QUERN_SERVER_HTTP_H
#define QUERN_SERVER_HTTP_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct app;
typedef struct http_server http_server;
typedef struct http_call http_call;

typedef struct {
    const char *host; /* address or name to bind */
    int port;         /* 0 = any free one (tests) */
    int max_conn;
    uint64_t max_body, max_body_total;
    double header_s, body_s;        /* H4: headers complete, silence of a body; seconds */
    double ping_s;                  /* default keep-alive interval of streams, seconds */
    bool trace;                     /* --trace-http */
    const char *tls_cert, *tls_key; /* PEM files; NULL: no TLS */
} http_options;

http_server *http_start(struct app *a, const http_options *o, err *e);
int http_port(const http_server *s);
int http_connections(const http_server *s);
/* Calls whose handler ran and whose reply is not finished. */
int http_active(const http_server *s);
/* True while the loop threads answer; false if none beat for 30 s with work to do. */
void http_stop(http_server *s); /* ends what is left and frees everything */

/* ---- inside a handler ------------------------------------------------------------------------ */

struct app *http_app(const http_call *c);
const char *http_method(const http_call *c);
const char *http_path(const http_call *c); /* percent-decoded, without query and trailing / */
const char *http_tail(const http_call *c); /* what a route's final * matched, "" otherwise */
const char *http_header(const http_call *c, const char *name); /* NULL if absent; 0-terminated */
/* A member of the query string, decoded; "" without a value, NULL if absent. */
const char *http_query(const http_call *c, const char *name);
const char *http_body(const http_call *c, size_t *n);
const char *http_request_id(const http_call *c);
uint64_t http_key_hash(const http_call *c);    /* of the API key used, 0 = none */
const char *http_key_name(const http_call *c); /* its name in logs, NULL = none */
int64_t http_arrival_us(const http_call *c);   /* clock_us when the headers were complete */

/* Reply headers; names are literals, values are copied.  The first value of a name stays. */
void http_add_header(http_call *c, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The one reply of a call; takes body's bytes.  type NULL = no Content-Type (204). */
void http_reply(http_call *c, int status, const char *type, buf *body);

/* From a handler on the prep pool: once it has returned, fn goes on with the call on a thread of
 * low priority for work that may take seconds, so that other requests need not wait for it. */
void http_defer(http_call *c, void (*fn)(http_call *c, void *ctx), void *ctx);
/* The client is known to have left: work for it is for nobody. */
bool http_left(http_call *c);

/* What a call used: for the log and for its key's limits.  May be told in parts, which add up. */
typedef struct {
    int64_t prompt, cached, generated, reasoning; /* tokens; cached are part of prompt, ... */
    int64_t queue_us, first_us; /* from arrival to the first step, the first token; 0 = none */
} http_usage;
void http_spend(http_call *c, const http_usage *u);
/* The error code (static text) that the reply carries, for the log. */
void http_set_code(http_call *c, const char *code);

/* The connection is closed after this reply. */
void http_close(http_call *c);

/* A reply that comes later.  step runs on an HTTP thread after each wake or tick and must call
 * http_reply or http_stream, or neither to go on waiting.  fill appends bytes to a started stream:
 * HTTP_MORE (wait for a wake when nothing was appended), HTTP_END or HTTP_CUT (close without a
 * proper end).  tick: the keep-alive interval passed in silence.  gone: the client left (any
 * thread, may be called more than once).  release: the last call of all. */
enum { HTTP_MORE, HTTP_END, HTTP_CUT };
typedef struct {
    void (*step)(void *ctx, http_call *c, bool tick);
    int (*fill)(void *ctx, http_call *c, buf *out, bool tick);
    void (*gone)(void *ctx);
    void (*release)(void *ctx);
} http_waiter;
void http_wait(http_call *c, const http_waiter *w, void *ctx);
void http_set_ping(http_call *c, double seconds); /* < 0: off */
/* Starts the stream with status 200; fill is called from then on. */
void http_stream(http_call *c, const char *type);
/* There is news for the waiter.  Any thread. */
void http_wake(http_call *c);

#endif
