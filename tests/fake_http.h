/* fake_http.h - the functions of server/http.h without a network, for tests that call handlers,
 * readers and translators directly.  A call is a body, a path and what was replied.  Include it
 * once; its names take the place of http.c's.  Thread: one. */
#ifndef QUERN_TESTS_FAKE_HTTP_H
#define QUERN_TESTS_FAKE_HTTP_H

#include "server/app.h"
#include "server/http.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct http_call {
    struct app *a;
    const char *path, *tail, *body;
    size_t n_body;
    int status, n_replies; /* what came back */
    buf reply, headers;    /* headers: "name: value\n" each */
    const http_waiter *waiter;
    void *waiting;
    void (*deferred)(http_call *c, void *ctx);
    void *deferred_ctx;
    bool left; /* the client hung up */
};

/* What the handler left to a slower thread. */
static void fake_call_deferred(http_call *c)
{
    void (*fn)(http_call *, void *) = c->deferred;
    c->deferred = NULL;
    if (fn) fn(c, c->deferred_ctx);
}

static void fake_call_clear(http_call *c)
{
    fake_call_deferred(c);
    if (c->waiter) c->waiter->release(c->waiting);
    buf_clear(&c->reply);
    buf_clear(&c->headers);
    *c = (http_call){0};
}

http_server *http_start(struct app *a, const http_options *o, err *e)
{
    (void)a, (void)o;
    err_set(e, ERR_INVALID, "no network here");
    return NULL;
}

int http_port(const http_server *s)
{
    (void)s;
    return 0;
}

int http_connections(const http_server *s)
{
    (void)s;
    return 0;
}

int http_active(const http_server *s)
{
    (void)s;
    return 0;
}

void http_stop(http_server *s)
{
    (void)s;
}

struct app *http_app(const http_call *c)
{
    return c->a;
}

const char *http_method(const http_call *c)
{
    (void)c;
    return "POST";
}

const char *http_path(const http_call *c)
{
    return c->path ? c->path : "/v1/chat/completions";
}

const char *http_tail(const http_call *c)
{
    return c->tail ? c->tail : "";
}

const char *http_header(const http_call *c, const char *name)
{
    (void)c, (void)name;
    return NULL;
}

const char *http_body(const http_call *c, size_t *n)
{
    *n = c->n_body;
    return c->body;
}

const char *http_request_id(const http_call *c)
{
    (void)c;
    return "req";
}

const char *http_query(const http_call *c, const char *name)
{
    (void)c, (void)name;
    return NULL;
}

void http_defer(http_call *c, void (*fn)(http_call *c, void *ctx), void *ctx)
{
    c->deferred = fn;
    c->deferred_ctx = ctx;
}

bool http_left(http_call *c)
{
    return c->left;
}

uint64_t http_key_hash(const http_call *c)
{
    (void)c;
    return 0;
}

const char *http_key_name(const http_call *c)
{
    (void)c;
    return NULL;
}

void http_spend(http_call *c, const http_usage *u)
{
    (void)c, (void)u;
}

void http_set_code(http_call *c, const char *code)
{
    (void)c, (void)code;
}

int64_t http_arrival_us(const http_call *c)
{
    (void)c;
    return 0;
}

void http_add_header(http_call *c, const char *name, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    buf_printf(&c->headers, "%s: %s\n", name, text);
}

void http_reply(http_call *c, int status, const char *type, buf *body)
{
    (void)type;
    c->n_replies++;
    c->status = status;
    buf_clear(&c->reply);
    c->reply = *body;
    *body = (buf){0};
}

void http_close(http_call *c)
{
    (void)c;
}

void http_wait(http_call *c, const http_waiter *w, void *ctx)
{
    c->waiter = w;
    c->waiting = ctx;
}

void http_set_ping(http_call *c, double seconds)
{
    (void)c, (void)seconds;
}

void http_stream(http_call *c, const char *type)
{
    (void)type;
    c->status = 200;
}

void http_wake(http_call *c)
{
    (void)c;
}

#endif
