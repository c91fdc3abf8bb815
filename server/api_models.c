/* api_models.c - GET /v1/models and one model (API M1, M2).  Owns nothing.  Any HTTP thread. */
#include "server/api.h"
#include "server/app.h"
#include "server/reply.h"

#include <string.h>
#include <strings.h>

static void put_meta(const app *a, buf *b)
{
    const engine_info_t *info = engine_info(a->eng);
    if (engine_status(a->eng) == ENGINE_LOADING) {
        buf_puts(b, "null");
        return;
    }
    buf_printf(b, "{\"n_vocab\":%d,\"n_ctx\":%lld,\"n_ctx_train\":%lld,\"n_embd\":%d,\"n_params\":%lld,\"size\":%lld,", info->n_vocab,
               (long long)info->ctx, (long long)info->ctx_train, info->hidden, (long long)info->n_params,
               (long long)info->weight_bytes);
    put_str(b, "quantization", info->quantization);
    buf_putc(b, ',');
    put_str(b, "architecture", info->arch);
    buf_putc(b, '}');
}

static void put_model(const app *a, const char *id, buf *b)
{
    const engine_info_t *info = engine_info(a->eng);
    const template_traits *t = chat_format_traits(info->chat);
    buf_putc(b, '{');
    put_str(b, "id", id);
    buf_printf(b, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"quern\",", (long long)(a->load_unix ? a->load_unix : a->start_unix));
    put_str(b, "root", a->names.v[0]);
    buf_printf(b, ",\"parent\":null,\"max_model_len\":%lld,\"context_length\":%lld,\"permission\":[],\"meta\":", (long long)info->ctx,
               (long long)info->ctx);
    put_meta(a, b);
    buf_puts(b, ",\"capabilities\":[\"completion\",\"chat\"");
    if (t->think) buf_puts(b, ",\"thinking\"");
    buf_printf(b, "],\"status\":\"%s\"}", engine_status(a->eng) == ENGINE_LOADING ? "loading" : "loaded");
}

void api_models(http_call *c)
{
    const app *a = http_app(c);
    buf b = {0};
    bool any = false;
    buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < a->names.n; i++) {
        if (strchr(a->names.v[i], '*')) continue;
        if (any) buf_putc(&b, ',');
        any = true;
        put_model(a, a->names.v[i], &b);
    }
    buf_puts(&b, "]}");
    http_reply(c, 200, "application/json", &b);
}

void api_model(http_call *c)
{
    const app *a = http_app(c);
    const char *id = http_tail(c);
    for (int i = 0; i < a->names.n; i++) {
        if (strchr(a->names.v[i], '*') || strcasecmp(a->names.v[i], id)) continue;
        buf b = {0};
        put_model(a, a->names.v[i], &b);
        http_reply(c, 200, "application/json", &b);
        return;
    }
    reply_fail(c, 404, "invalid_request_error", "model_not_found", "model", "The model `%.64s` does not exist", id);
}
