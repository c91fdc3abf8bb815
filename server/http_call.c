/* http_call.c - what handlers see of their call and its server; see http.h.  Needs nothing of the
 * HTTP library. */
#include "server/http_internal.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int http_port(const http_server *s)
{
    return s->port;
}
int http_connections(const http_server *s)
{
    return atomic_load(&s->n_conn);
}
int http_active(const http_server *s)
{
    return atomic_load(&s->n_active);
}
struct app *http_app(const http_call *c)
{
    return c->srv->app;
}
const char *http_method(const http_call *c)
{
    return c->method;
}
const char *http_path(const http_call *c)
{
    return c->path;
}
const char *http_tail(const http_call *c)
{
    return c->tail;
}
const char *http_request_id(const http_call *c)
{
    return c->pass.request_id;
}
uint64_t http_key_hash(const http_call *c)
{
    return c->key ? key_hash(c->key) : 0;
}
const char *http_key_name(const http_call *c)
{
    return c->key ? key_name(c->key) : NULL;
}
int64_t http_arrival_us(const http_call *c)
{
    return c->headers_us;
}

const char *http_body(const http_call *c, size_t *n)
{
    *n = c->body.len;
    return buf_str(&c->body);
}

void http_add_header(http_call *c, const char *name, const char *fmt, ...)
{
    char *copy = NULL;
    va_list ap;
    if (c->n_header == (int)(sizeof c->header / sizeof *c->header)) return;
    for (int i = 0; i < c->n_header; i++)
        if (!strcmp(c->header[i].name, name)) return;
    va_start(ap, fmt);
    int n = vasprintf(&copy, fmt, ap);
    va_end(ap);
    if (n < 0) return; /* out of memory: a reply without this header */
    c->header[c->n_header].name = name;
    c->header[c->n_header++].value = copy;
}

void http_reply(http_call *c, int status, const char *type, buf *body)
{
    if (c->status) {
        buf_clear(body);
        return;
    }
    c->status = status;
    c->type = type;
    c->reply = *body;
    *body = (buf){0};
    if (!c->reply.v) buf_put(&c->reply, "", 0);
}

void http_wait(http_call *c, const http_waiter *w, void *ctx)
{
    c->waiter = w;
    c->ctx = ctx;
    atomic_fetch_add(&c->srv->n_active, 1);
}

void http_set_ping(http_call *c, double seconds)
{
    c->ping_us = seconds < 0 ? -1 : (int64_t)(seconds * 1e6);
}

void http_stream(http_call *c, const char *type)
{
    if (c->status) return;
    c->status = 200;
    c->type = type;
    c->streaming = true;
}

void http_spend(http_call *c, const http_usage *u)
{
    http_usage *t = &c->usage;
    t->prompt += u->prompt;
    t->cached += u->cached;
    t->generated += u->generated;
    t->reasoning += u->reasoning;
    if (u->queue_us) t->queue_us = u->queue_us;
    if (u->first_us) t->first_us = u->first_us;
    if (c->key && u->prompt + u->generated) key_spend(c->key, u->prompt + u->generated, clock_us());
}

void http_set_code(http_call *c, const char *code)
{
    c->code = code;
}

void http_close(http_call *c)
{
    c->close_after = true;
}
