/* lmstudio_request.c - the body of LM Studio's /api/v1/chat as the chat body it means (API L4). Its
 * conversation is kept as Responses keeps one.  Owns nothing.  Refuses pictures, integrations and a
 * context that is not served.  Thread: prep. */
#include "server/lmstudio.h"

#include "server/reply.h"
#include "server/responses_request.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const lmstudio_chat_names[] = {
    "messages",  "input", "max_completion_tokens", "max_output_tokens", "reasoning_effort",
    "reasoning", NULL};

/* JSON values that are made of the body's own strings. */
typedef struct {
    json *v; /* room for all of them */
    size_t n;
} values;

static json *add(values *k, json_type type, const char *key)
{
    json *j = &k->v[k->n++];
    *j = (json){.type = type, .key = key, .n_key = (uint32_t)strlen(key)};
    return j;
}

static json *add_text(values *k, const char *key, const char *s, size_t n)
{
    json *j = add(k, JSON_STRING, key);
    j->str = s;
    j->len = n;
    return j;
}

/* An object of two members, the first a word: a part, or a message. */
static json *add_pair(values *k, const char *key, const char *word, const json *second)
{
    json *first = add_text(k, key, word, strlen(word)), *j = add(k, JSON_OBJECT, "");
    first->next = second;
    j->child = first;
    j->len = 2;
    return j;
}

static void check_part(reader *r, const json *p, int i)
{
    const json *type = json_get(p, "type"), *text = json_get(p, "content");
    char at[48];
    snprintf(at, sizeof at, "input[%d]", i);
    if (tr_is(type, "image")) reader_no_media(r, at, "image");
    else if (!tr_is(type, "text") && !tr_is(type, "message"))
        reader_fail(r, "invalid_value", at, "'%s' must be an object of type message, text or image",
                    at);
    else if (!json_is(text, JSON_STRING))
        reader_fail(r, "invalid_type", at, "'%s.content' must be a string", at);
}

static json *add_part(values *k, const char *s, size_t n)
{
    return add_pair(k, "type", "input_text", add_text(k, "text", s, n));
}

/* The input, which was checked, as the content of the user's message. */
static const json *add_content(values *k, const json *input)
{
    json *list = add(k, JSON_ARRAY, "content");
    list->len = 1;
    if (json_is(input, JSON_STRING)) {
        list->child = add_part(k, input->str, input->len);
    } else if (!input->len) {
        list->child = add_part(k, "", 0);
    } else {
        json *last = NULL;
        list->len = input->len;
        for (const json *p = input->child; p; p = p->next) {
            const json *text = json_get(p, "content");
            json *part = add_part(k, text->str, text->len);
            if (last) last->next = part;
            else list->child = part;
            last = part;
        }
    }
    return list;
}

static void put_messages(reader *r, const json *body, buf *out)
{
    enum { LIST = 1, MESSAGE = 3, PART = 3 }; /* values of each */
    const json *input = rd_any(r, "input");
    const char *text = "";
    size_t n = 0;
    int i = 0;
    if (!input || (input->type != JSON_STRING && input->type != JSON_ARRAY))
        reader_fail(r, input ? "invalid_type" : "missing_required_parameter", "input",
                    "'input' must be a string or an array");
    rd_str(r, "system_prompt", 0, SIZE_MAX, &text, &n);
    for (const json *p = json_is(input, JSON_ARRAY) ? input->child : NULL; p && !r->failed;
         p = p->next)
        check_part(r, p, i++);
    if (r->failed) return;
    values k = {.v = calloc(LIST + 2 * MESSAGE + PART * (size_t)(i ? i : 1), sizeof *k.v)};
    if (!k.v) {
        out->oom = true;
        return;
    }
    json *items = add(&k, JSON_ARRAY, ""), *system = NULL;
    if (n) system = add_pair(&k, "role", "system", add_text(&k, "content", text, n));
    json *user = add_pair(&k, "role", "user", add_content(&k, input));
    if (system) system->next = user;
    items->child = system ? system : user;
    items->len = system ? 2 : 1;
    responses_messages(r, body, NULL, items, out);
    free(k.v);
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
static const char *const foreign[] = {"messages",
                                      "tools",
                                      "tool_choice",
                                      "logprobs",
                                      "top_logprobs",
                                      "suffix",
                                      "best_of",
                                      "return_progress", /* a stream always tells it */
                                      "return_tokens_as_token_ids",
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
