/* lmstudio_request.c - the body of LM Studio's /api/v1/chat as the chat body it means (API L4). Its
 * conversation is kept as Responses keeps one.  Owns nothing.  Refuses pictures, integrations and a
 * context that is not served.  Thread: prep. */
#include "server/lmstudio.h"

#include "server/reply.h"
#include "server/responses_request.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *const lmstudio_chat_names[] = {
    "messages",  "input", "max_completion_tokens", "max_output_tokens", "reasoning_effort",
    "reasoning", NULL};

static void put_part(reader *r, const json *p, int i, buf *out)
{
    const json *type = json_get(p, "type"), *text = json_get(p, "content");
    char at[48];
    snprintf(at, sizeof at, "input[%d]", i);
    if (tr_is(type, "image")) {
        reader_fail(r, "unsupported_modality", at, "the model does not accept image input ('%s')",
                    at);
    } else if (!tr_is(type, "text") && !tr_is(type, "message")) {
        reader_fail(r, "invalid_value", at, "'%s' must be an object of type message, text or image",
                    at);
    } else if (!json_is(text, JSON_STRING)) {
        reader_fail(r, "invalid_type", at, "'%s.content' must be a string", at);
    } else {
        buf_puts(out, i ? ",{\"type\":\"input_text\"" : "{\"type\":\"input_text\"");
        tr_json(out, "text", text);
        buf_putc(out, '}');
    }
}

/* System text and input as the items of a conversation. */
static void put_items(reader *r, const json *input, buf *out)
{
    const char *system = "";
    size_t n = 0;
    int i = 0;
    buf_putc(out, '[');
    if (rd_str(r, "system_prompt", 0, SIZE_MAX, &system, &n) && n) {
        buf_puts(out, "{\"role\":\"system\"");
        tr_str(out, "content", system, n);
        buf_puts(out, "},");
    }
    buf_puts(out, "{\"role\":\"user\",\"content\":[");
    if (json_is(input, JSON_STRING) || !input->len) {
        buf_puts(out, "{\"type\":\"input_text\"");
        tr_str(out, "text", json_is(input, JSON_STRING) ? input->str : "",
               json_is(input, JSON_STRING) ? input->len : 0);
        buf_putc(out, '}');
    } else {
        for (const json *p = input->child; p && !r->failed; p = p->next) put_part(r, p, i++, out);
    }
    buf_puts(out, "]}]");
}

static void put_messages(reader *r, const json *body, buf *out)
{
    const json *input = rd_any(r, "input"), *items = NULL;
    buf text = {0};
    if (!input || (input->type != JSON_STRING && input->type != JSON_ARRAY)) {
        reader_fail(r, input ? "invalid_type" : "missing_required_parameter", "input",
                    "'input' must be a string or an array");
        return;
    }
    put_items(r, input, &text);
    json_doc *d =
        !r->failed && buf_ok(&text) ? json_parse(text.v, text.len, NULL, &items, NULL) : NULL;
    if (d) responses_messages(r, body, NULL, items, out);
    else if (!r->failed) out->oom = true;
    json_free(d);
    buf_clear(&text);
}

static void put_reasoning(reader *r, buf *out)
{
    static const char *const words[] = {"off", "low", "medium", "high", "on"};
    const char *word;
    size_t i = 0, n = sizeof words / sizeof *words;
    if (!rd_str(r, "reasoning", 0, SIZE_MAX, &word, NULL)) return;
    while (i < n && strcmp(word, words[i]) != 0) i++;
    if (i == n)
        reader_fail(r, "invalid_value", "reasoning",
                    "'reasoning' must be off, low, medium, high or on, got '%.64s'", word);
    else if (i == 0 || i == n - 1) buf_printf(out, ",\"enable_thinking\":%s", i ? "true" : "false");
    else tr_str(out, "reasoning_effort", word, strlen(word));
}

/* A context of its own bounds prompt and answer of this request together. */
static void take_context(reader *r)
{
    int64_t v, ctx = engine_info(r->a->eng)->ctx;
    if (!rd_int(r, "context_length", 1, INT64_MAX, &v)) return;
    if (v > ctx)
        reader_fail(r, "invalid_value", "context_length",
                    "'context_length' must not be above %" PRId64
                    ", the context that is served, got %" PRId64,
                    ctx, v);
    else if (v < ctx) r->ctx = (int)v;
}

/* Not the dialect's: chat's own fields, and what has no place in the reply. */
static const char *const foreign[] = {"messages",  "tools",           "tool_choice",
                                      "logprobs",  "top_logprobs",    "suffix",
                                      "best_of",   "return_progress", /* a stream always tells it */
                                      TR_CHAT_ONLY};

static const char *const taken[] = {
    "input",        "system_prompt",        "max_output_tokens", "reasoning",
    "integrations", "previous_response_id", "context_length",    "n"};

void lmstudio_chat_translate(reader *r, const json *body, buf *out)
{
    enum { N_FOREIGN = sizeof foreign / sizeof *foreign, N_TAKEN = sizeof taken / sizeof *taken };
    const char *skip[N_FOREIGN + N_TAKEN];
    const json *limit = rd_any(r, "max_output_tokens"), *more = rd_any(r, "integrations"),
               *n = rd_any(r, "n");
    int64_t one = 1, v;
    bool stream = false;
    memcpy(skip, foreign, sizeof foreign);
    memcpy(skip + N_FOREIGN, taken, sizeof taken);
    tr_ignore(r, body, foreign, N_FOREIGN);
    if (n && (!json_int(n, &one) || one != 1))
        reader_fail(r, "unsupported_value", "n", "'n' is not supported here");
    if (more && more->type != JSON_ARRAY)
        reader_fail(r, "invalid_type", "integrations", "'integrations' must be an array, got %s",
                    json_type_name(more));
    if (more && more->len && !r->failed) {
        r->failed = true;
        reply_not_built(r->call, "integrations");
    }
    rd_int(r, "max_output_tokens", -1, INT64_MAX, &v);
    take_context(r);
    tr_rest(out, body, skip, N_FOREIGN + N_TAKEN);
    put_messages(r, body, out);
    put_reasoning(r, out);
    if (limit) tr_json(out, "max_completion_tokens", limit);
    if (rd_bool(r, "stream", &stream) && stream) buf_puts(out, ",\"return_progress\":true");
}
