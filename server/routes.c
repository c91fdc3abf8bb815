/* routes.c - the route table of API section 1; see routes.h.  Routes of stages that are not built
 * answer 501, never silence. */
#include "server/routes.h"

#include "server/api.h"

#include <stdio.h>
#include <string.h>

#define GEN (ROUTE_BODY | ROUTE_PREP)
#define LATER api_not_built
#define OLLAMA_ANY ROUTE_ANY_TYPE

static const route table[] = {
    {"POST", "/v1/chat/completions", api_chat, GEN},
    {"POST", "/chat/completions", api_chat, GEN},
    {"POST", "/v1/completions", api_completions, GEN},
    {"POST", "/completions", api_completions, GEN},
    {"GET", "/v1/models", api_models, 0},
    {"GET", "/models", api_models, 0},
    {"GET", "/v1/models/*", api_model, 0},
    {"GET", "/models/*", api_model, 0},
    {"POST", "/tokenize", api_tokenize, GEN},
    {"POST", "/v1/tokenize", api_tokenize, GEN},
    {"POST", "/detokenize", api_detokenize, GEN},
    {"POST", "/v1/detokenize", api_detokenize, GEN},
    {"POST", "/apply-template", api_apply_template, GEN},
    {"GET", "/health", api_health, ROUTE_OPEN | ROUTE_ANY_HOST},
    {"GET", "/healthz", api_health, ROUTE_OPEN | ROUTE_ANY_HOST},
    {"GET", "/livez", api_health, ROUTE_OPEN | ROUTE_ANY_HOST},
    {"GET", "/v1/health", api_health, ROUTE_OPEN | ROUTE_ANY_HOST},
    {"GET", "/ready", api_ready, ROUTE_OPEN | ROUTE_ANY_HOST},
    {"GET", "/readyz", api_ready, ROUTE_OPEN | ROUTE_ANY_HOST},
    {"GET", "/ping", api_ready, ROUTE_OPEN | ROUTE_ANY_HOST},
    {"GET", "/metrics", api_metrics, ROUTE_METRICS},
    {"GET", "/version", api_version, 0},
    {"GET", "/openapi.json", api_openapi, 0},
    {"GET", "/", api_root, ROUTE_OPEN},
    {"GET", "/index.html", api_root, ROUTE_OPEN},

    {"POST", "/v1/embeddings", api_embeddings, GEN},
    {"POST", "/embeddings", api_embeddings, GEN},
    {"POST", "/v1/responses", api_responses, GEN},
    {"POST", "/responses", api_responses, GEN},
    {"POST", "/v1/responses/input_tokens", api_responses_count, GEN},
    {"POST", "/responses/input_tokens", api_responses_count, GEN},
    {"POST", "/v1/responses/compact", LATER, ROUTE_BODY},
    {"POST", "/responses/compact", LATER, ROUTE_BODY},
    {"POST", "/v1/responses/*", api_response_cancel, 0},
    {"GET", "/v1/responses/*", api_response, 0},
    {"DELETE", "/v1/responses/*", api_response_delete, 0},
    {"POST", "/responses/*", api_response_cancel, 0},
    {"GET", "/responses/*", api_response, 0},
    {"DELETE", "/responses/*", api_response_delete, 0},
    {"POST", "/v1/chat/completions/input_tokens", api_chat_count, GEN},
    {"POST", "/v1/messages", api_messages, GEN},
    {"POST", "/v1/messages/count_tokens", api_messages_count, GEN},
    {"GET", "/api/version", api_ollama_version, 0},
    {"GET", "/api/tags", api_ollama_tags, 0},
    {"GET", "/api/ps", api_ollama_ps, 0},
    {"POST", "/api/show", api_ollama_show, GEN | OLLAMA_ANY},
    {"POST", "/api/chat", api_ollama_chat, GEN | OLLAMA_ANY},
    {"POST", "/api/generate", api_ollama_generate, GEN | OLLAMA_ANY},
    {"POST", "/api/embed", api_ollama_embed, GEN | OLLAMA_ANY},
    {"POST", "/api/embeddings", api_ollama_embeddings, GEN | OLLAMA_ANY},
    {"POST", "/api/pull", api_ollama_pull, GEN | OLLAMA_ANY},
    {"POST", "/api/create", api_ollama_fixed, ROUTE_BODY | OLLAMA_ANY},
    {"POST", "/api/copy", api_ollama_fixed, ROUTE_BODY | OLLAMA_ANY},
    {"POST", "/api/push", api_ollama_fixed, ROUTE_BODY | OLLAMA_ANY},
    {"DELETE", "/api/delete", api_ollama_fixed, OLLAMA_ANY},
    {"POST", "/api/blobs/*", api_ollama_fixed, OLLAMA_ANY},
    {"GET", "/api/blobs/*", api_ollama_fixed, 0},
    {"GET", "/api/v0/models", api_lmstudio_v0_models, 0},
    {"GET", "/api/v0/models/*", api_lmstudio_v0_model, 0},
    {"POST", "/api/v0/chat/completions", api_chat, GEN | OLLAMA_ANY},
    {"POST", "/api/v0/completions", api_completions, GEN | OLLAMA_ANY},
    {"POST", "/api/v0/embeddings", api_lmstudio_v0_embeddings, GEN | OLLAMA_ANY},
    {"POST", "/api/v1/chat", api_lmstudio_chat, GEN | OLLAMA_ANY},
    {"GET", "/api/v1/models", api_lmstudio_models, 0},
    {"POST", "/api/v1/models/load", LATER, ROUTE_BODY | OLLAMA_ANY},
    {"POST", "/api/v1/models/unload", LATER, ROUTE_BODY | OLLAMA_ANY},
    {"POST", "/api/v1/models/download", LATER, ROUTE_BODY | OLLAMA_ANY},
    {"GET", "/api/v1/models/download/status/*", LATER, 0},
    {"GET", "/props", api_props, 0},
    {"POST", "/props", LATER, 0},
    {"GET", "/slots", api_slots, 0},
    {"POST", "/infill", api_llama_infill, GEN},
    {"POST", "/completion", api_llama_completion, GEN},
    {"POST", "/rerank", api_rerank, GEN},
    {"POST", "/v1/rerank", api_rerank, GEN},
    {"POST", "/v2/rerank", api_rerank, GEN},
    {"POST", "/reranking", api_rerank, GEN},
    {"POST", "/v1/reranking", api_rerank, GEN},
    {"POST", "/v1/score", api_score, GEN},
    {"POST", "/score", api_score, GEN},
    {"GET", "/ui", LATER, ROUTE_OPEN}, /* also /ui/ */
    {"GET", "/ui/*", LATER, ROUTE_OPEN},
};

static bool path_matches(const char *pattern, const char *path, const char **tail)
{
    size_t n = strlen(pattern);
    *tail = "";
    if (pattern[n - 1] != '*') return !strcmp(pattern, path);
    if (strncmp(pattern, path, n - 1) || !path[n - 1]) return false;
    *tail = path + n - 1;
    return true;
}

const route *route_find(const char *method, const char *path, const char **tail, char allow[64])
{
    const char *m = strcmp(method, "HEAD") ? method : "GET";
    size_t n = 0;
    allow[0] = 0;
    /* A path with a row of its own is not one of those with a tail. */
    for (int pass = 0; pass < 2 && !allow[0]; pass++)
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
            bool wild = strchr(table[i].pattern, '*') != NULL;
            if (wild != (pass == 1) || !path_matches(table[i].pattern, path, tail)) continue;
            if (!strcmp(m, table[i].method)) return &table[i];
            if (!strstr(allow, table[i].method))
                n += (size_t)snprintf(allow + n, 64 - n, "%s%s", n ? ", " : "",
                                      strcmp(table[i].method, "GET") ? table[i].method
                                                                     : "GET, HEAD");
        }
    *tail = "";
    return NULL;
}

dialect route_dialect(const char *path, bool anthropic)
{
    const char *models = !strncmp(path, "/v1/models", 10) ? path + 10
                         : !strncmp(path, "/models", 7)   ? path + 7
                                                          : NULL;
    if (anthropic && models && (!*models || *models == '/')) return DIALECT_ANTHROPIC;
    if (!strncmp(path, "/v1/messages", 12)) return DIALECT_ANTHROPIC;
    if (!strncmp(path, "/api/v1/", 8)) return DIALECT_LMSTUDIO;
    if (!strncmp(path, "/api/", 5) && strncmp(path, "/api/v0/", 8)) return DIALECT_OLLAMA;
    return DIALECT_OPENAI;
}

int route_count(void)
{
    return (int)(sizeof table / sizeof *table);
}

const route *route_at(int i)
{
    return &table[i];
}
