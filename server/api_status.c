/* api_status.c - health, readiness, version, the greeting, and what is not built (API H20-H22, O1).
 * Owns nothing.  Any HTTP thread; nothing here touches the model. */
#include "server/api.h"
#include "server/app.h"
#include "server/reply.h"

#include "base/clock.h"

#include <cJSON.h>
#include <stdio.h>

enum { BEAT_LIMIT_US = 30 * 1000000 };

static cJSON *status_of(const char *word)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "status", word);
    return o;
}

void api_health(http_call *c)
{
    const app *a = http_app(c);
    engine_state s = engine_status(a->eng);
    const char *reason = NULL;
    if (s == ENGINE_FAILED) reason = engine_fault(a->eng);
    else if (s != ENGINE_LOADING && clock_us() - engine_last_beat_us(a->eng) > BEAT_LIMIT_US)
        reason = "the engine thread does not answer";
    if (reason) {
        cJSON *o = status_of("failed");
        cJSON_AddStringToObject(o, "reason", reason);
        reply_json(c, 503, o);
        return;
    }
    reply_json(c, 200,
               status_of(s == ENGINE_LOADING         ? "loading"
                         : atomic_load(&a->draining) ? "draining"
                                                     : "ok"));
}

void api_ready(http_call *c)
{
    const app *a = http_app(c);
    engine_state s = engine_status(a->eng);
    engine_counters k;
    const char *why = NULL;
    if (s == ENGINE_FAILED) why = "failed";
    else if (s == ENGINE_LOADING) why = "loading";
    else if (atomic_load(&a->draining) || s == ENGINE_DRAINING) why = "draining";
    if (!why) {
        engine_stats(a->eng, &k);
        if (k.queue_full) why = "queue_full";
    }
    if (!why) {
        reply_json(c, 200, status_of("ready"));
        return;
    }
    cJSON *o = status_of(why);
    cJSON_AddNumberToObject(o, "progress", s == ENGINE_LOADING ? engine_progress(a->eng) : 1);
    http_add_header(c, "Retry-After", "%d", 1);
    reply_json(c, 503, o);
}

void api_version(http_call *c)
{
    const app *a = http_app(c);
    const engine_info_t *info = engine_info(a->eng);
    char build[128];
    cJSON *o = cJSON_CreateObject();
    snprintf(build, sizeof build, "%s, %s", info->isa ? info->isa : "", __VERSION__);
    cJSON_AddStringToObject(o, "version", QUERN_VERSION);
    cJSON_AddStringToObject(o, "commit", QUERN_COMMIT);
    cJSON_AddStringToObject(o, "backend", info->backend);
    cJSON_AddStringToObject(o, "build", build);
    reply_json(c, 200, o);
}

void api_root(http_call *c)
{
    buf b = {0};
    buf_puts(&b, "Ollama is running");
    http_reply(c, 200, "text/plain; charset=utf-8", &b);
}

void api_not_built(http_call *c)
{
    char path[65];
    snprintf(path, sizeof path, "%.64s", http_path(c));
    reply_fail(c, 501, "not_implemented_error", "not_implemented", path,
               "%s is not supported by this version of the server", path);
}
