/* openapi.c - GET /openapi.json: what this server answers, written from the route table (API H23).
 * Paths of which nothing is built are left out.  Owns nothing.  Thread: any. */
#include "server/openapi.h"

#include "server/api.h"
#include "server/app.h"
#include "server/reply.h"

#include <ctype.h>
#include <string.h>

enum { STREAMS = 1, LINES = 2, PLAIN_TEXT = 4, NEVER = 8 /* no success */ };

/* What a handler takes and gives; a handler without a row is described by method and dialect
 * alone, which a test does not let pass. */
typedef struct {
    route_fn *fn;
    const char *summary;
    const char *request, *reply; /* components */
    unsigned how;
} operation;

static const operation operations[] = {
    {api_chat, "A reply to messages, plain or streamed", "ChatRequest", "ChatReply", STREAMS},
    {api_chat_count, "How many tokens a chat body's prompt has", "ChatRequest", "InputTokens", 0},
    {api_completions, "The continuation of raw prompts, plain or streamed", "CompletionRequest",
     "CompletionReply", STREAMS},
    {api_embeddings, "A vector for each text", "EmbeddingsRequest", "EmbeddingsReply", 0},
    {api_rerank, "Documents by how well they answer a query", "RerankRequest", "RerankReply", 0},
    {api_score, "How well texts answer others", "ScoreRequest", "ScoreReply", 0},
    {api_ollama_embed, "Vectors in Ollama's shapes", "OllamaEmbedRequest", "OtherReply", 0},
    {api_ollama_embeddings, "A vector in Ollama's older shape", "OllamaEmbeddingsRequest",
     "OtherReply", 0},
    {api_responses, "A response, plain or streamed", "ResponsesRequest", "ResponseReply", STREAMS},
    {api_responses_count, "How many tokens its prompt has", "ResponsesRequest", "InputTokens", 0},
    {api_response, "A stored response, or its input items", NULL, "OtherReply", 0},
    {api_response_delete, "Forgets a stored response", NULL, "OtherReply", 0},
    {api_response_cancel, "Refused: nothing runs in the background", NULL, "OtherReply", 0},
    {api_models, "The names served", NULL, "ModelList", 0},
    {api_model, "One of them", NULL, "Model", 0},
    {api_tokenize, "Token ids of a text or of messages", "TextRequest", "TokenizeReply", 0},
    {api_detokenize, "The text of token ids", "TokensRequest", "DetokenizeReply", 0},
    {api_apply_template, "The prompt that chat would prefill", "ChatRequest", "TemplateReply", 0},
    {api_llama_completion, "llama.cpp's completion", "LlamaCompletionRequest", "OtherReply",
     STREAMS},
    {api_llama_infill, "Text between a prefix and a suffix", "LlamaInfillRequest", "OtherReply",
     STREAMS},
    {api_props, "Settings, as llama.cpp tells them", NULL, "OtherReply", 0},
    {api_slots, "What runs, as llama.cpp tells it", NULL, "OtherReply", 0},
    {api_health, "Whether the process works", NULL, "Status", 0},
    {api_ready, "Whether a request would be accepted now", NULL, "Status", 0},
    {api_version, "Version, commit, back end, build", NULL, "Version", 0},
    {api_metrics, "Prometheus text or OpenMetrics", NULL, NULL, PLAIN_TEXT},
    {api_root, "One line of text, for probes", NULL, NULL, PLAIN_TEXT},
    {api_openapi, "This document", NULL, "OtherReply", 0},
    {api_not_built, "Not supported: 501", "OtherRequest", NULL, NEVER},
    {api_ollama_fixed, "Not supported: 501", "OtherRequest", NULL, NEVER},
    {api_messages, "A reply in Anthropic's shapes", "MessagesRequest", "OtherReply", STREAMS},
    {api_messages_count, "How many tokens its prompt has", "MessagesCountRequest", "OtherReply", 0},
    {api_ollama_chat, "A reply in Ollama's shapes", "OllamaChatRequest", "OtherReply", LINES},
    {api_ollama_generate, "A reply to a prompt in Ollama's shapes", "OllamaGenerateRequest",
     "OtherReply", LINES},
    {api_ollama_pull, "Success for a name that is served", "OllamaNameRequest", "OtherReply",
     LINES},
    {api_ollama_version, "The version Ollama's clients compare, and ours", NULL, "OtherReply", 0},
    {api_ollama_tags, "The model served, as Ollama lists models", NULL, "OtherReply", 0},
    {api_ollama_ps, "The same, loaded", NULL, "OtherReply", 0},
    {api_ollama_show, "Template, sizes, capabilities", "OllamaNameRequest", "OtherReply", 0},
    {api_lmstudio_models, "Models, as LM Studio lists them", NULL, "OtherReply", 0},
    {api_lmstudio_v0_models, "Models, as LM Studio's first interface lists them", NULL,
     "OtherReply", 0},
    {api_lmstudio_v0_model, "One of them", NULL, "OtherReply", 0},
    {api_lmstudio_v0_embeddings, "A vector for each text, with LM Studio's facts about the model",
     "EmbeddingsRequest", "EmbeddingsReply", 0},
    {api_lmstudio_chat, "A reply in LM Studio's shapes", "LmStudioChatRequest", "OtherReply",
     STREAMS}};

static const operation *operation_of(const route *r)
{
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (operations[i].fn == r->fn) return &operations[i];
    static const operation other = {NULL, NULL, "OtherRequest", "OtherReply", 0};
    return &other;
}

static void put_ref(buf *b, const char *kind, const char *name)
{
    buf_printf(b, "{\"$ref\":\"#/components/%s/%s\"}", kind, name);
}

static void put_content(buf *b, const char *type, const char *component)
{
    buf_printf(b, "\"%s\":{\"schema\":", type);
    if (component) put_ref(b, "schemas", component);
    else buf_puts(b, "{\"type\":\"string\"}");
    buf_putc(b, '}');
}

static const char *const dialect_name[] = {[DIALECT_OPENAI] = "OpenAI",
                                           [DIALECT_ANTHROPIC] = "Anthropic",
                                           [DIALECT_OLLAMA] = "Ollama",
                                           [DIALECT_LMSTUDIO] = "LM Studio"};
static const char *const error_name[] = {[DIALECT_OPENAI] = "Error",
                                         [DIALECT_ANTHROPIC] = "AnthropicError",
                                         [DIALECT_OLLAMA] = "OllamaError",
                                         [DIALECT_LMSTUDIO] = "LmStudioError"};

/* A pattern that ends in a tail has a parameter there. */
static void put_path(buf *b, const char *pattern)
{
    size_t n = strlen(pattern);
    bool tail = pattern[n - 1] == '*';
    buf_printf(b, "\"%.*s%s\"", (int)(tail ? n - 1 : n), pattern, tail ? "{id}" : "");
}

/* "post_v1_chat_completions" */
static void put_id(buf *b, const route *r)
{
    for (const char *s = r->method; *s; s++) buf_putc(b, (char)tolower((unsigned char)*s));
    for (const char *s = r->pattern; *s; s++)
        if (isalnum((unsigned char)*s)) buf_putc(b, *s);
        else if (*s == '*') buf_puts(b, "id");
        else buf_putc(b, '_');
}

static void put_success(buf *b, const operation *o)
{
    buf_puts(b, "\"200\":{\"description\":\"success\",\"headers\":{\"x-request-id\":{\"schema\":{"
                "\"type\":\"string\"}}},\"content\":{");
    if (o->how & PLAIN_TEXT) put_content(b, "text/plain", NULL);
    else put_content(b, "application/json", o->reply);
    if (o->how & STREAMS) {
        buf_putc(b, ',');
        put_content(b, "text/event-stream", NULL);
    }
    if (o->how & LINES) {
        buf_putc(b, ',');
        put_content(b, "application/x-ndjson", NULL);
    }
    buf_puts(b, "}},");
}

static void put_replies(buf *b, const route *r, const operation *o)
{
    static const int body[] = {400, 401, 403, 404, 408, 411, 413, 415, 429, 500, 501, 503, 504},
                     none[] = {400, 401, 403, 404, 500, 501, 503};
    bool has_body = r->flags & ROUTE_BODY;
    const int *status = has_body ? body : none;
    size_t n = has_body ? sizeof body / sizeof *body : sizeof none / sizeof *none;
    bool health = o->reply && !strcmp(o->reply, "Status");
    buf_puts(b, "\"responses\":{");
    if (!(o->how & NEVER)) put_success(b, o);
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s\"%d\":", i ? "," : "", status[i]);
        put_ref(b, "responses",
                health && status[i] == 503 ? "NotReady"
                                           : error_name[route_dialect(r->pattern, false)]);
    }
    buf_putc(b, '}');
}

static void put_operation(buf *b, const route *r)
{
    const operation *o = operation_of(r);
    for (const char *s = r->method; *s; s++)
        buf_printf(b, "%s%c", s == r->method ? "\"" : "", tolower((unsigned char)*s));
    buf_puts(b, "\":{\"operationId\":\"");
    put_id(b, r);
    buf_printf(b, "\",\"tags\":[\"%s\"],", dialect_name[route_dialect(r->pattern, false)]);
    if (o->summary) buf_printf(b, "\"summary\":\"%s\",", o->summary);
    if (r->flags & ROUTE_OPEN) buf_puts(b, "\"security\":[],");
    if (strchr(r->pattern, '*'))
        buf_puts(b,
                 "\"parameters\":[{\"name\":\"id\",\"in\":\"path\",\"required\":true,\"schema\":{"
                 "\"type\":\"string\",\"minLength\":1}}],");
    if (o->request && (r->flags & ROUTE_BODY)) {
        buf_puts(b, "\"requestBody\":{\"required\":true,\"content\":{");
        put_content(b, "application/json", o->request);
        buf_puts(b, "}},");
    }
    put_replies(b, r, o);
    buf_putc(b, '}');
}

/* Every pattern once, with its methods. */
static void put_paths(buf *b)
{
    bool any = false;
    buf_puts(b, "\"paths\":{");
    for (int i = 0; i < route_count(); i++) {
        const route *r = route_at(i);
        bool first = r->fn != api_not_built;
        for (int k = 0; k < i && first; k++)
            first = strcmp(route_at(k)->pattern, r->pattern) || route_at(k)->fn == api_not_built;
        if (!first) continue;
        if (any) buf_putc(b, ',');
        any = true;
        put_path(b, r->pattern);
        buf_puts(b, ":{");
        bool more = false;
        for (int k = i; k < route_count(); k++) {
            const route *m = route_at(k);
            if (strcmp(m->pattern, r->pattern)) continue;
            if (more) buf_putc(b, ',');
            more = true;
            put_operation(b, m);
        }
        buf_putc(b, '}');
    }
    buf_putc(b, '}');
}

/* The field of o that a name stands for. */
static const openapi_field *first_of(const openapi_body *o, const char *name)
{
    const openapi_field *f = NULL;
    for (int i = 0; o->part[i]; i++)
        for (f = o->part[i]; f->name; f++)
            if (!strcmp(f->name, name)) return f;
    return NULL;
}

static void put_body(buf *b, const openapi_body *o)
{
    bool any = false;
    buf_printf(b, "\"%s\":{\"type\":\"object\",", o->name);
    if (o->required) buf_printf(b, "\"required\":%s,", o->required);
    buf_puts(b, "\"properties\":{");
    for (int i = 0; o->part[i]; i++)
        for (const openapi_field *f = o->part[i]; f->name; f++) {
            if (!f->schema || f != first_of(o, f->name)) continue;
            buf_printf(b, "%s\"%s\":%s", any ? "," : "", f->name, f->schema);
            any = true;
        }
    buf_puts(b, "}}");
}

static void put_components(buf *b)
{
    bool any = false;
    buf_puts(b,
             "\"components\":{\"securitySchemes\":{\"bearer\":{\"type\":\"http\",\"scheme\":"
             "\"bearer\"},\"header\":{\"type\":\"apiKey\",\"in\":\"header\",\"name\":\"x-api-key\"}"
             "},\"schemas\":{");
    for (const openapi_body *o = openapi_bodies; o->name; o++) {
        if (any) buf_putc(b, ',');
        any = true;
        put_body(b, o);
    }
    for (const openapi_shape *s = openapi_shapes; s->name; s++)
        buf_printf(b, ",\"%s\":%s", s->name, s->schema);
    buf_puts(b, "},\"responses\":{");
    for (size_t i = 0; i < sizeof error_name / sizeof *error_name; i++) {
        buf_printf(b, "\"%s\":{\"description\":\"an error\",\"content\":{", error_name[i]);
        put_content(b, "application/json", error_name[i]);
        buf_puts(b, "}},");
    }
    buf_puts(b, "\"NotReady\":{\"description\":\"not now\",\"content\":{");
    put_content(b, "application/json", "Status");
    buf_puts(b, "}}}}");
}

void api_openapi(http_call *c)
{
    const app *a = http_app(c);
    buf b = {0};
    buf_puts(&b, "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"quern\",\"version\":\"" QUERN_VERSION
                 "\"},\"servers\":[{\"url\":\"/\"}],");
    if (gate_has_keys(a->gate)) buf_puts(&b, "\"security\":[{\"bearer\":[]},{\"header\":[]}],");
    put_paths(&b);
    buf_putc(&b, ',');
    put_components(&b);
    buf_putc(&b, '}');
    if (buf_ok(&b)) {
        http_reply(c, 200, "application/json", &b);
        return;
    }
    buf_clear(&b);
    reply_oom(c);
}
