/* http_log.c - one line for every request: who asked for what, what came of it, what it cost.
 * Never a key, never content; the path only under --trace-http.  Owns nothing.  HTTP threads. */
#include "server/http_internal.h"

#include "base/log.h"
#include "server/reply.h"

static void put_text(buf *b, const char *name, const char *value)
{
    buf_putc(b, ',');
    reply_put_str(b, name, value);
}

static void put_int(buf *b, const char *name, int64_t v)
{
    buf_printf(b, ",\"%s\":%lld", name, (long long)v);
}

/* Microseconds as milliseconds. */
static void put_ms(buf *b, const char *name, int64_t us)
{
    buf_printf(b, ",\"%s\":%lld.%03d", name, (long long)(us / 1000), (int)(us % 1000));
}

void http_log(const http_call *c, int64_t us, const char *end)
{
    const http_usage *u = &c->usage;
    const char *pattern = c->route ? c->route->pattern : "other", *key = http_key_name(c);
    if (!log_is_json()) {
        if (c->srv->opt.trace)
            log_info("http %s %s -> %d %s, %lld us, id %s%s%s", c->method, c->path, c->status, end,
                     (long long)us, c->pass.request_id, key ? ", key " : "", key ? key : "");
        return;
    }
    buf b = {0};
    put_text(&b, "id", c->pass.request_id);
    put_text(&b, "key", key);
    put_text(&b, "method", c->method);
    put_text(&b, "route", pattern);
    if (c->srv->opt.trace) put_text(&b, "path", c->path);
    if (c->status) put_int(&b, "status", c->status);
    else buf_puts(&b, ",\"status\":null");
    if (c->code) put_text(&b, "code", c->code);
    put_text(&b, "end", end);
    put_ms(&b, "ms", us);
    if (c->waiter) {
        buf_printf(&b, ",\"stream\":%s", c->streaming ? "true" : "false");
        put_int(&b, "prompt_tokens", u->prompt);
        put_int(&b, "cached_tokens", u->cached);
        put_int(&b, "completion_tokens", u->generated);
        put_int(&b, "reasoning_tokens", u->reasoning);
        if (u->queue_us) put_ms(&b, "queue_ms", u->queue_us);
        if (u->first_us) put_ms(&b, "first_token_ms", u->first_us);
    }
    if (buf_ok(&b)) log_members(LOG_INFO, "request", &b);
    buf_clear(&b);
}
