/* api_lmstudio_models.c - LM Studio's views of the model that is served (API L1, L6).  Owns
 * nothing. Any HTTP thread. */
#include "server/api.h"
#include "server/app.h"
#include "server/reply.h"

#include <cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void number(cJSON *o, const char *name, int64_t v)
{
    cJSON_AddNumberToObject(o, name, (double)v);
}

/* What stands before a name's slash. */
static void put_publisher(cJSON *o, const char *name)
{
    char text[128] = "quern";
    size_t n = strcspn(name, "/");
    if (name[n]) snprintf(text, sizeof text, "%.*s", (int)(n < 120 ? n : 120), name);
    cJSON_AddStringToObject(o, "publisher", text);
}

static bool only_embeds(const engine_info_t *info)
{
    return info->pool->embeds && !info->pool->generates;
}

/* ---- /api/v0 (L1) ---------------------------------------------------------------------------- */

static cJSON *v0_model(const app *a, const char *name)
{
    const engine_info_t *info = engine_info(a->eng);
    bool loaded = engine_status(a->eng) != ENGINE_LOADING;
    cJSON *m = cJSON_CreateObject();
    cJSON_AddStringToObject(m, "id", name);
    cJSON_AddStringToObject(m, "object", "model");
    cJSON_AddStringToObject(m, "type", only_embeds(info) ? "embeddings" : "llm");
    put_publisher(m, name);
    cJSON_AddStringToObject(m, "arch", info->arch);
    cJSON_AddStringToObject(m, "compatibility_type", info->gguf ? "gguf" : "safetensors");
    cJSON_AddStringToObject(m, "quantization", info->quantization);
    cJSON_AddStringToObject(m, "state", loaded ? "loaded" : "not-loaded");
    number(m, "max_context_length", info->ctx_train);
    if (loaded) number(m, "loaded_context_length", info->ctx);
    cJSON *caps = cJSON_AddArrayToObject(m, "capabilities");
    if (info->pool->generates) cJSON_AddItemToArray(caps, cJSON_CreateString("tool_use"));
    return m;
}

void api_lmstudio_v0_models(http_call *c)
{
    const app *a = http_app(c);
    cJSON *list = cJSON_CreateObject();
    cJSON_AddStringToObject(list, "object", "list");
    cJSON *data = cJSON_AddArrayToObject(list, "data");
    for (int i = 0; i < a->names.n; i++)
        if (!strchr(a->names.v[i], '*')) cJSON_AddItemToArray(data, v0_model(a, a->names.v[i]));
    reply_json(c, 200, list);
}

void api_lmstudio_v0_model(http_call *c)
{
    const app *a = http_app(c);
    const char *name = http_tail(c);
    for (int i = 0; i < a->names.n; i++) {
        if (strchr(a->names.v[i], '*') || strcasecmp(a->names.v[i], name)) continue;
        reply_json(c, 200, v0_model(a, a->names.v[i]));
        return;
    }
    reply_fail(c, 404, "invalid_request_error", "model_not_found", "model",
               "The model `%.64s` does not exist", name);
}

/* ---- /api/v1 (L6) ---------------------------------------------------------------------------- */

/* Whether a request that says nothing thinks: its prompt is not that of one that forbids it. */
static bool thinks_by_default(const chat_format *f)
{
    static const char text[] = "[{\"role\":\"user\",\"content\":\"\"}]";
    chat_prompt p[2] = {0};
    chat_input in = {.add_generation_prompt = -1, .continue_final = -1};
    const json *root;
    err e = {0};
    bool same = true;
    json_doc *d = json_parse(text, sizeof text - 1, NULL, &root, &e);
    in.messages = root;
    for (int i = 0; d && i < 2; i++) {
        in.thinking = i - 1; /* not said, off */
        chat_fault fault = {0};
        same &= !chat_render(f, &in, &p[i], &fault, &e);
    }
    const buf *a = &p[0].prompt.text, *b = &p[1].prompt.text;
    same = same && a->len == b->len && !memcmp(buf_str(a), buf_str(b), a->len);
    chat_prompt_clear(&p[0]);
    chat_prompt_clear(&p[1]);
    json_free(d);
    return !same;
}

static cJSON *capabilities(const engine_info_t *info)
{
    static const char *const words[] = {"off", "on", "low", "medium", "high"};
    const template_traits *t = chat_format_traits(info->chat);
    cJSON *caps = cJSON_CreateObject();
    cJSON_AddBoolToObject(caps, "vision", false);
    cJSON_AddBoolToObject(caps, "trained_for_tool_use", info->pool->generates && t->tools);
    if (info->pool->generates && t->think) {
        cJSON *reasoning = cJSON_AddObjectToObject(caps, "reasoning");
        cJSON *allowed = cJSON_AddArrayToObject(reasoning, "allowed_options");
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            cJSON_AddItemToArray(allowed, cJSON_CreateString(words[i]));
        cJSON_AddStringToObject(reasoning, "default", thinks_by_default(info->chat) ? "on" : "off");
    }
    return caps;
}

static cJSON *v1_model(const app *a, const char *name)
{
    const engine_info_t *info = engine_info(a->eng);
    char size[32];
    app_model_size(a, size);
    cJSON *m = cJSON_CreateObject();
    cJSON_AddStringToObject(m, "type", only_embeds(info) ? "embedding" : "llm");
    put_publisher(m, name);
    cJSON_AddStringToObject(m, "key", name);
    cJSON_AddStringToObject(m, "display_name", name);
    cJSON_AddStringToObject(m, "architecture", info->arch);
    cJSON *q = cJSON_AddObjectToObject(m, "quantization");
    cJSON_AddStringToObject(q, "name", info->quantization);
    cJSON_AddNumberToObject(q, "bits_per_weight",
                            info->n_params ? (double)(info->weight_bytes * 80 / info->n_params) / 10
                                           : 0);
    number(m, "size_bytes", info->weight_bytes);
    cJSON_AddStringToObject(m, "params_string", size);
    cJSON *loaded = cJSON_AddArrayToObject(m, "loaded_instances");
    if (engine_status(a->eng) != ENGINE_LOADING) {
        cJSON *i = cJSON_CreateObject(), *config;
        cJSON_AddStringToObject(i, "id", name);
        config = cJSON_AddObjectToObject(i, "config");
        number(config, "context_length", info->ctx);
        number(config, "parallel", info->max_num_seqs);
        cJSON_AddItemToArray(loaded, i);
    }
    number(m, "max_context_length", info->ctx_train);
    if (info->gguf) cJSON_AddStringToObject(m, "format", "gguf");
    else cJSON_AddNullToObject(m, "format");
    cJSON_AddItemToObject(m, "capabilities", capabilities(info));
    cJSON_AddNullToObject(m, "description");
    return m;
}

void api_lmstudio_models(http_call *c)
{
    const app *a = http_app(c);
    cJSON *list = cJSON_CreateObject(), *models = cJSON_AddArrayToObject(list, "models");
    for (int i = 0; i < a->names.n; i++)
        if (!strchr(a->names.v[i], '*')) cJSON_AddItemToArray(models, v1_model(a, a->names.v[i]));
    reply_json(c, 200, list);
}
