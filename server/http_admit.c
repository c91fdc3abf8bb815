/* http_admit.c - whether a call is let in, from its headers alone and in the order of H2, and the
 * replies of those that need no handler: refusals and preflights.  See http_internal.h.  Needs
 * nothing of the HTTP library.  Owns nothing.  Thread: the call's HTTP thread. */
#include "server/http_internal.h"

#include "base/clock.h"
#include "server/app.h"
#include "server/reply.h"

#include <stdio.h>
#include <string.h>

void call_refuse(http_call *c, int status, const char *type, const char *code, const char *msg)
{
    c->fault = (gate_fault){.status = status, .type = type, .code = code};
    snprintf(c->fault.msg, sizeof c->fault.msg, "%s", msg);
}

/* H23, for what computes. */
static void limit_key(http_call *c)
{
    int retry_s = 1;
    gate_limit(c->key, clock_us(), &retry_s, &c->fault);
    if (c->fault.status) http_add_header(c, "Retry-After", "%d", retry_s);
    else c->entered = c->key != NULL;
}

void call_admit(http_call *c, const gate_request *r)
{
    http_server *s = c->srv;
    gate_fault *f = &c->fault;
    char allow[64] = "";
    gate_frame(r, &c->pass, f);
    if (f->status) return;
    bool path_ok = gate_path(c->target, c->path, sizeof c->path);
    const route *rt = path_ok ? route_find(c->method, c->path, &c->tail, allow) : NULL;
    if (c->cn->over_limit) {
        call_refuse(c, 503, "unavailable_error", "too_many_connections", "too many connections");
        f->close = true;
        http_add_header(c, "Retry-After", "5");
        return;
    }
    if (!rt || !(rt->flags & ROUTE_ANY_HOST)) gate_host(s->app->gate, r, f);
    if (!f->status) gate_origin(s->app->gate, r, &c->pass, f);
    if (f->status) return;
    if (!strcmp(c->method, "OPTIONS")) {
        if (!strcmp(c->target, "*")) snprintf(allow, sizeof allow, "GET, HEAD, POST, DELETE");
        if (!c->pass.is_preflight && allow[0]) http_add_header(c, "Allow", "%s, OPTIONS", allow);
        else if (!c->pass.is_preflight)
            call_refuse(c, 404, "not_found_error", "route_not_found", "no such route");
        return;
    }
    bool open = rt && ((rt->flags & ROUTE_OPEN) ||
                       ((rt->flags & ROUTE_METRICS) && s->app->opt->open_metrics));
    if (!open) gate_key(s->app->gate, r, &c->key, f);
    if (f->status) {
        if (f->status == 401) http_add_header(c, "WWW-Authenticate", "Bearer");
        return;
    }
    if (!rt && allow[0]) {
        call_refuse(c, 405, "invalid_request_error", "method_not_allowed",
                    "this route does not take this method");
        http_add_header(c, "Allow", "%s", allow);
        return;
    }
    if (!rt) {
        call_refuse(c, 404, "not_found_error", "route_not_found", "no such route");
        return;
    }
    c->route = rt;
    if (!strcmp(c->method, "POST")) {
        gate_media(r, rt->flags & ROUTE_ANY_TYPE, f);
        if (f->status) return;
    }
    if ((rt->flags & ROUTE_BODY) && !c->pass.has_length && !c->pass.chunked) {
        call_refuse(c, 411, "invalid_request_error", "length_required",
                    "a body with Content-Length or chunked coding is needed");
        f->close = true; /* a body that comes all the same is no request */
    } else if (c->pass.length > s->opt.max_body)
        call_refuse(c, 413, "invalid_request_error", "request_too_large",
                    "the body is larger than --max-body");
    else *f = (gate_fault){0};
    if (!f->status && (rt->flags & ROUTE_PREP)) limit_key(c);
}

void call_put_fault(http_call *c)
{
    const gate_fault *f = &c->fault;
    buf b = {0};
    reply_error(&b, reply_dialect(c), c->pass.request_id, f->status, f->type, f->code, NULL,
                f->msg);
    http_set_code(c, f->code);
    if (f->close) c->close_after = true;
    if (f->status == 503) http_add_header(c, "Retry-After", "1");
    http_reply(c, f->status, "application/json", &b);
}

void call_put_preflight(http_call *c)
{
    buf none = {0};
    if (c->pass.is_preflight) {
        const char *want = http_header(c, "Access-Control-Request-Headers");
        http_add_header(c, "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS, HEAD");
        if (want) http_add_header(c, "Access-Control-Allow-Headers", "%s", want);
        http_add_header(c, "Access-Control-Max-Age", "600");
        if (http_header(c, "Access-Control-Request-Private-Network"))
            http_add_header(c, "Access-Control-Allow-Private-Network", "true");
    }
    http_reply(c, 204, NULL, &none);
}
