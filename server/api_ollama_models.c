/* api_ollama_models.c - Ollama's views of the model that is served (API O1, O7-O10).  Owns nothing.
 * Any HTTP thread. */
#include "server/api.h"
#include "server/raw_request.h"
#include "server/reply.h"

#include "base/clock.h"

#include <cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void put_time(cJSON *o, const char *name, int64_t unix_s)
{
    time_t t = (time_t)unix_s;
    struct tm g;
    char s[40];
    gmtime_r(&t, &g);
    strftime(s, sizeof s, "%Y-%m-%dT%H:%M:%SZ", &g);
    cJSON_AddStringToObject(o, name, s);
}

/* 64 hex digits that differ where the fingerprint does. */
static void put_digest(cJSON *o, const engine_info_t *info)
{
    char s[65];
    for (int i = 0; i < 4; i++)
        snprintf(s + 16 * i, 17, "%016" PRIx64, info->fingerprint * (uint64_t)(2 * i + 1));
    cJSON_AddStringToObject(o, "digest", s);
}

static cJSON *details(const app *a)
{
    const engine_info_t *info = engine_info(a->eng);
    char size[32];
    cJSON *d = cJSON_CreateObject();
    app_model_size(a, size);
    cJSON_AddStringToObject(d, "parent_model", "");
    cJSON_AddStringToObject(d, "format", info->gguf ? "gguf" : "safetensors");
    cJSON_AddStringToObject(d, "family", info->arch);
    cJSON *families = cJSON_AddArrayToObject(d, "families");
    cJSON_AddItemToArray(families, cJSON_CreateString(info->arch));
    cJSON_AddStringToObject(d, "parameter_size", size);
    cJSON_AddStringToObject(d, "quantization_level", info->quantization);
    cJSON_AddNumberToObject(d, "context_length", (double)info->ctx);
    return d;
}

static cJSON *capabilities(const engine_info_t *info)
{
    cJSON *caps = cJSON_CreateArray();
    bool generates = info->pool->generates;
    if (generates) cJSON_AddItemToArray(caps, cJSON_CreateString("completion"));
    if (generates) cJSON_AddItemToArray(caps, cJSON_CreateString("tools"));
    if (generates && chat_format_traits(info->chat)->think)
        cJSON_AddItemToArray(caps, cJSON_CreateString("thinking"));
    if (generates && fim_find(info->tok, &(fim_tokens){0}))
        cJSON_AddItemToArray(caps, cJSON_CreateString("insert"));
    if (info->pool->embeds) cJSON_AddItemToArray(caps, cJSON_CreateString("embedding"));
    return caps;
}

/* Names carry a tag here. */
static void put_names(cJSON *o, const char *name)
{
    char tagged[300];
    snprintf(tagged, sizeof tagged, "%.280s%s", name, strchr(name, ':') ? "" : ":latest");
    cJSON_AddStringToObject(o, "name", tagged);
    cJSON_AddStringToObject(o, "model", tagged);
}

static void list(http_call *c, bool running)
{
    const app *a = http_app(c);
    const engine_info_t *info = engine_info(a->eng);
    bool loaded = engine_status(a->eng) != ENGINE_LOADING;
    cJSON *o = cJSON_CreateObject(), *models = cJSON_AddArrayToObject(o, "models");
    for (int i = 0; i < a->names.n && (loaded || !running); i++) {
        if (strchr(a->names.v[i], '*')) continue;
        cJSON *m = cJSON_CreateObject();
        put_names(m, a->names.v[i]);
        put_time(m, "modified_at", a->start_unix);
        cJSON_AddNumberToObject(m, "size", (double)info->weight_bytes);
        put_digest(m, info);
        cJSON_AddItemToObject(m, "details", details(a));
        cJSON_AddItemToObject(m, "capabilities", capabilities(info));
        if (running) {
            /* It stays: far off, but a date that every client can count with. */
            put_time(m, "expires_at", clock_unix() + INT64_C(36525) * 86400);
            cJSON_AddNumberToObject(m, "size_vram",
                                    info->device[0] ? (double)info->weight_bytes : 0);
            cJSON_AddNumberToObject(m, "context_length", (double)info->ctx);
        }
        cJSON_AddItemToArray(models, m);
    }
    reply_json(c, 200, o);
}

void api_ollama_tags(http_call *c)
{
    list(c, false);
}

void api_ollama_ps(http_call *c)
{
    list(c, true);
}

void api_ollama_version(http_call *c)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "version", http_app(c)->opt->ollama_version);
    cJSON_AddStringToObject(o, "quern", QUERN_VERSION);
    reply_json(c, 200, o);
}

/* The name asked for (model, or the older name), matched; NULL after replying. */
static const char *named(reader *r)
{
    const char *name = "";
    if (!rd_str(r, "model", 0, 1024, &name, NULL)) rd_str(r, "name", 0, 1024, &name, NULL);
    if (r->failed) return NULL;
    const char *hit = *name ? app_match_model(r->a, name) : NULL;
    if (hit) return hit;
    r->failed = true;
    reply_fail(r->call, 404, "invalid_request_error", "model_not_found", "model",
               "model '%.64s' not found", name);
    return NULL;
}

static cJSON *model_info(const engine_info_t *info)
{
    const model_config *k = info->config;
    const struct {
        const char *name;
        int64_t v;
    } rows[] = {{"context_length", info->ctx_train}, {"embedding_length", info->hidden},
                {"block_count", info->layers},       {"feed_forward_length", k->ff},
                {"attention.head_count", k->heads},  {"attention.head_count_kv", k->kv_heads}};
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "general.architecture", info->arch);
    cJSON_AddNumberToObject(o, "general.parameter_count", (double)info->n_params);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[80];
        snprintf(name, sizeof name, "%.32s.%s", info->arch, rows[i].name);
        cJSON_AddNumberToObject(o, name, (double)rows[i].v);
    }
    return o;
}

void api_ollama_show(http_call *c)
{
    reader r;
    const char *name;
    if (reader_open(&r, c, READ_TEXT) && (name = named(&r))) {
        const engine_info_t *info = engine_info(r.a->eng);
        sampling s = sampling_default(r.a->eng);
        char text[400];
        cJSON *o = cJSON_CreateObject();
        snprintf(text, sizeof text, "# served by quern\nFROM %.300s\n", name);
        cJSON_AddStringToObject(o, "modelfile", text);
        snprintf(text, sizeof text, "temperature %g\ntop_p %g\ntop_k %d\nrepeat_penalty %g",
                 (double)s.temperature, (double)s.top_p, s.top_k, (double)s.repetition);
        cJSON_AddStringToObject(o, "parameters", text);
        cJSON_AddStringToObject(o, "template", chat_format_text(info->chat));
        cJSON_AddItemToObject(o, "details", details(r.a));
        cJSON_AddItemToObject(o, "model_info", model_info(info));
        cJSON_AddItemToObject(o, "capabilities", capabilities(info));
        put_time(o, "modified_at", r.a->start_unix);
        reply_json(c, 200, o);
    }
    reader_close(&r);
}

/* Clients that pull before they chat find what is served already here (O10). */
void api_ollama_pull(http_call *c)
{
    reader r;
    bool stream = true;
    const char *name = "";
    if (reader_open(&r, c, READ_TEXT)) {
        if (!rd_str(&r, "model", 0, 1024, &name, NULL)) rd_str(&r, "name", 0, 1024, &name, NULL);
        rd_bool(&r, "stream", &stream);
        if (!r.failed && (!*name || !app_match_model(r.a, name)))
            reply_fail(c, 404, "invalid_request_error", "model_not_found", "model",
                       "'%.64s' is not served here; start quern with it", name);
        else if (!r.failed) {
            buf b = {0};
            if (stream) buf_puts(&b, "{\"status\":\"pulling manifest\"}\n");
            buf_puts(&b, "{\"status\":\"success\"}\n");
            http_reply(c, 200, stream ? "application/x-ndjson" : "application/json", &b);
        }
    }
    reader_close(&r);
}

void api_ollama_fixed(http_call *c)
{
    const char *verb = http_path(c) + 5; /* behind /api/ */
    reply_fail(c, 501, "not_implemented_error", "not_implemented", NULL,
               "quern serves the models it was started with; '%.32s' is not supported", verb);
}
