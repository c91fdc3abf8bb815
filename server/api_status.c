/* api_status.c - health, readiness, version, the greeting, and what is not built (API H20-H22, O1).
 * Owns nothing.  Any HTTP thread; nothing here touches the model. */
#include "server/api.h"
#include "server/app.h"
#include "server/reply.h"

#include "base/clock.h"

#include <string.h>

enum { BEAT_LIMIT_US = 30 * 1000000 };

static void send(http_call *c, int status, buf *b)
{
    http_reply(c, status, "application/json", b);
}

void api_health(http_call *c)
{
    const app *a = http_app(c);
    engine_state s = engine_status(a->eng);
    buf b = {0};
    const char *reason = NULL;
    if (s == ENGINE_FAILED) reason = engine_fault(a->eng);
    else if (s != ENGINE_LOADING && clock_us() - engine_last_beat_us(a->eng) > BEAT_LIMIT_US) reason = "the engine thread does not answer";
    if (reason) {
        buf_puts(&b, "{\"status\":\"failed\",");
        put_str(&b, "reason", reason);
        buf_putc(&b, '}');
        send(c, 503, &b);
        return;
    }
    buf_printf(&b, "{\"status\":\"%s\"}", s == ENGINE_LOADING ? "loading" : atomic_load(&a->draining) ? "draining" : "ok");
    send(c, 200, &b);
}

void api_ready(http_call *c)
{
    const app *a = http_app(c);
    engine_state s = engine_status(a->eng);
    engine_counters k;
    buf b = {0};
    const char *why = NULL;
    if (s == ENGINE_FAILED) why = "failed";
    else if (s == ENGINE_LOADING) why = "loading";
    else if (atomic_load(&a->draining) || s == ENGINE_DRAINING) why = "draining";
    if (!why) {
        engine_stats(a->eng, &k);
        if (k.waiting >= a->opt->max_queue) why = "queue_full";
    }
    if (!why) {
        buf_puts(&b, "{\"status\":\"ready\"}");
        send(c, 200, &b);
        return;
    }
    buf_printf(&b, "{\"status\":\"%s\",\"progress\":", why);
    buf_put_num(&b, s == ENGINE_LOADING ? engine_progress(a->eng) : 1);
    buf_putc(&b, '}');
    http_add_header(c, "Retry-After", "%d", 1);
    send(c, 503, &b);
}

void api_version(http_call *c)
{
    const app *a = http_app(c);
    const engine_info_t *info = engine_info(a->eng);
    buf b = {0};
    buf_printf(&b, "{\"version\":\"%s\",\"commit\":\"%s\",\"backend\":\"%s\",\"build\":\"", QUERN_VERSION, QUERN_COMMIT, info->backend);
    buf_printf(&b, "%s %s\"}", info->isa ? info->isa : "", __VERSION__);
    send(c, 200, &b);
}

void api_root(http_call *c)
{
    buf b = {0};
    buf_puts(&b, "Ollama is running");
    http_reply(c, 200, "text/plain; charset=utf-8", &b);
}

void api_not_built(http_call *c)
{
    reply_fail(c, 501, "not_implemented_error", "not_implemented", NULL, "%.64s is not supported by this version of the server",
               http_path(c));
}
