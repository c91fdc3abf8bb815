/* api_models.c - GET /v1/models and one model (API M1, M2).  Owns nothing.  Any HTTP thread. */
#include "server/api.h"
#include "server/raw_request.h"
#include "server/reply.h"

#include <cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* cJSON numbers are doubles: exact for every count below 2^53. */
static void number(cJSON *o, const char *name, int64_t v)
{
    cJSON_AddNumberToObject(o, name, (double)v);
}

static cJSON *meta_of(const app *a)
{
    const engine_info_t *info = engine_info(a->eng);
    if (engine_status(a->eng) == ENGINE_LOADING) return cJSON_CreateNull();
    cJSON *m = cJSON_CreateObject();
    number(m, "n_vocab", info->n_vocab);
    number(m, "n_ctx", info->ctx);
    number(m, "n_ctx_train", info->ctx_train);
    number(m, "n_embd", info->hidden);
    number(m, "n_params", info->n_params);
    number(m, "size", info->weight_bytes);
    cJSON_AddStringToObject(m, "quantization", info->quantization);
    cJSON_AddStringToObject(m, "architecture", info->arch);
    return m;
}

static cJSON *model_of(const app *a, const char *id)
{
    const engine_info_t *info = engine_info(a->eng);
    cJSON *m = cJSON_CreateObject();
    cJSON_AddStringToObject(m, "id", id);
    cJSON_AddStringToObject(m, "object", "model");
    number(m, "created", a->load_unix ? a->load_unix : a->start_unix);
    cJSON_AddStringToObject(m, "owned_by", "quern");
    cJSON_AddStringToObject(m, "root", a->names.v[0]);
    cJSON_AddNullToObject(m, "parent");
    number(m, "max_model_len", info->ctx);
    number(m, "context_length", info->ctx);
    cJSON_AddArrayToObject(m, "permission");
    cJSON_AddItemToObject(m, "meta", meta_of(a));
    cJSON *caps = cJSON_AddArrayToObject(m, "capabilities");
    cJSON_AddItemToArray(caps, cJSON_CreateString("completion"));
    cJSON_AddItemToArray(caps, cJSON_CreateString("chat"));
    cJSON_AddItemToArray(caps, cJSON_CreateString("tools"));
    if (chat_format_traits(info->chat)->think)
        cJSON_AddItemToArray(caps, cJSON_CreateString("thinking"));
    if (fim_find(info->tok, &(fim_tokens){0}))
        cJSON_AddItemToArray(caps, cJSON_CreateString("insert"));
    cJSON_AddStringToObject(m, "status",
                            engine_status(a->eng) == ENGINE_LOADING ? "loading" : "loaded");
    return m;
}

void api_models(http_call *c)
{
    const app *a = http_app(c);
    cJSON *list = cJSON_CreateObject();
    cJSON_AddStringToObject(list, "object", "list");
    cJSON *data = cJSON_AddArrayToObject(list, "data");
    for (int i = 0; i < a->names.n; i++)
        if (!strchr(a->names.v[i], '*')) cJSON_AddItemToArray(data, model_of(a, a->names.v[i]));
    reply_json(c, 200, list);
}

void api_model(http_call *c)
{
    const app *a = http_app(c);
    const char *id = http_tail(c);
    for (int i = 0; i < a->names.n; i++) {
        if (strchr(a->names.v[i], '*') || strcasecmp(a->names.v[i], id)) continue;
        reply_json(c, 200, model_of(a, a->names.v[i]));
        return;
    }
    reply_fail(c, 404, "invalid_request_error", "model_not_found", "model",
               "The model `%.64s` does not exist", id);
}
