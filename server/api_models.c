/* api_models.c - GET /v1/models and one model, also as Anthropic and Codex list them (API M1-M3).
 * Owns nothing.  Any HTTP thread. */
#include "server/api.h"
#include "server/raw_request.h"
#include "server/reply.h"

#include <cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

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
    const struct {
        bool holds;
        const char *word;
    } can[] = {{info->pool->generates, "completion"},
               {info->pool->generates, "chat"},
               {info->pool->generates, "tools"},
               {info->pool->generates && chat_format_traits(info->chat)->think, "thinking"},
               {info->pool->generates && fim_find(info->tok, &(fim_tokens){0}), "insert"},
               {info->pool->embeds, "embedding"},
               {info->pool->score != SCORE_NONE, "rerank"}};
    for (size_t i = 0; i < sizeof can / sizeof *can; i++)
        if (can[i].holds) cJSON_AddItemToArray(caps, cJSON_CreateString(can[i].word));
    cJSON_AddStringToObject(m, "status",
                            engine_status(a->eng) == ENGINE_LOADING ? "loading" : "loaded");
    return m;
}

/* The same as Anthropic lists it (M3). */
static cJSON *anthropic_of(const app *a, const char *id)
{
    char at[40];
    struct tm t;
    time_t unix_s = (time_t)(a->load_unix ? a->load_unix : a->start_unix);
    cJSON *m = cJSON_CreateObject();
    gmtime_r(&unix_s, &t);
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", &t);
    cJSON_AddStringToObject(m, "type", "model");
    cJSON_AddStringToObject(m, "id", id);
    cJSON_AddStringToObject(m, "display_name", id);
    cJSON_AddStringToObject(m, "created_at", at);
    cJSON_AddStringToObject(m, "lifecycle", "active");
    number(m, "max_input_tokens", engine_info(a->eng)->ctx);
    number(m, "max_tokens", engine_info(a->eng)->ctx);
    return m;
}

static cJSON *efforts(void)
{
    static const char *const level[][2] = {{"low", "short thoughts"},
                                           {"medium", "thoughts of middle length"},
                                           {"high", "as long as the model wants"}};
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < sizeof level / sizeof *level; i++) {
        cJSON *e = cJSON_CreateObject();
        cJSON_AddStringToObject(e, "effort", level[i][0]);
        cJSON_AddStringToObject(e, "description", level[i][1]);
        cJSON_AddItemToArray(list, e);
    }
    return list;
}

/* The same as Codex asks for it (M3). */
static cJSON *codex_of(const app *a, const char *id, int place)
{
    bool thinks = chat_format_traits(engine_info(a->eng)->chat)->think;
    cJSON *m = cJSON_CreateObject();
    cJSON_AddStringToObject(m, "slug", id);
    cJSON_AddStringToObject(m, "display_name", id);
    cJSON_AddStringToObject(m, "description", "served by quern");
    if (thinks) cJSON_AddStringToObject(m, "default_reasoning_level", "medium");
    else cJSON_AddNullToObject(m, "default_reasoning_level");
    cJSON_AddItemToObject(m, "supported_reasoning_levels",
                          thinks ? efforts() : cJSON_CreateArray());
    cJSON_AddStringToObject(m, "shell_type", "shell_command");
    cJSON_AddStringToObject(m, "visibility", "list");
    cJSON_AddTrueToObject(m, "supported_in_api");
    number(m, "priority", place);
    cJSON_AddStringToObject(m, "base_instructions", "");
    number(m, "context_window", engine_info(a->eng)->ctx);
    cJSON_AddTrueToObject(m, "supports_parallel_tool_calls");
    cJSON_AddBoolToObject(m, "supports_reasoning_summaries", thinks);
    cJSON_AddFalseToObject(m, "support_verbosity");
    cJSON *cut = cJSON_AddObjectToObject(m, "truncation_policy");
    cJSON_AddStringToObject(cut, "mode", "bytes");
    number(cut, "limit", 10000);
    cJSON_AddArrayToObject(m, "experimental_supported_tools");
    cJSON *inputs = cJSON_AddArrayToObject(m, "input_modalities");
    cJSON_AddItemToArray(inputs, cJSON_CreateString("text"));
    return m;
}

void api_models(http_call *c)
{
    const app *a = http_app(c);
    bool anthropic = reply_dialect(c) == DIALECT_ANTHROPIC;
    cJSON *list = cJSON_CreateObject(), *data, *codex = NULL;
    const char *first = NULL, *last = NULL;
    int n = 0;
    if (!anthropic) cJSON_AddStringToObject(list, "object", "list");
    data = cJSON_AddArrayToObject(list, "data");
    if (!anthropic && http_query(c, "client_version"))
        codex = cJSON_AddArrayToObject(list, "models");
    for (int i = 0; i < a->names.n; i++) {
        const char *id = a->names.v[i];
        if (strchr(id, '*')) continue;
        last = id;
        if (!first) first = id;
        cJSON_AddItemToArray(data, anthropic ? anthropic_of(a, id) : model_of(a, id));
        if (codex) cJSON_AddItemToArray(codex, codex_of(a, id, n++));
    }
    if (anthropic) {
        cJSON_AddFalseToObject(list, "has_more");
        cJSON_AddItemToObject(list, "first_id",
                              first ? cJSON_CreateString(first) : cJSON_CreateNull());
        cJSON_AddItemToObject(list, "last_id",
                              last ? cJSON_CreateString(last) : cJSON_CreateNull());
    }
    reply_json(c, 200, list);
}

void api_model(http_call *c)
{
    const app *a = http_app(c);
    const char *id = http_tail(c);
    bool anthropic = reply_dialect(c) == DIALECT_ANTHROPIC;
    for (int i = 0; i < a->names.n; i++) {
        const char *name = a->names.v[i];
        if (strchr(name, '*') || strcasecmp(name, id)) continue;
        reply_json(c, 200, anthropic ? anthropic_of(a, name) : model_of(a, name));
        return;
    }
    reply_fail(c, 404, "invalid_request_error", "model_not_found", "model",
               "The model `%.64s` does not exist", id);
}
