/* responses_request.c - a Responses body as the chat body it means (API X1-X3): its fields; the
 * items are in responses_items.c.  Owns nothing.  Refuses what would change the reply and cannot be
 * had; the rest is checked by the chat reader.  Thread: prep. */
#include "server/responses_request.h"

#include "server/reply.h"

#include <stdio.h>
#include <string.h>

const char *const responses_names[] = {"messages",
                                       "input",
                                       "max_completion_tokens",
                                       "max_output_tokens",
                                       "response_format",
                                       "text.format",
                                       "response_format.json_schema",
                                       "text.format",
                                       "tools[].function",
                                       "tools[]",
                                       "tools[].custom",
                                       "tools[]",
                                       "tools[]",
                                       "tools[]",
                                       NULL};

/* {"type":"function","name":N} as chat nests it. */
static void put_named(const json *c, buf *out)
{
    const char *type = json_get(c, "type")->str;
    buf_printf(out, "{\"type\":\"%s\",\"%s\":{", type, type);
    tr_json(out, "name", json_get(c, "name"));
    buf_puts(out, "}}");
}

static bool is_named(const json *c)
{
    const json *type = json_get(c, "type");
    return (tr_is(type, "function") || tr_is(type, "custom")) &&
           json_is(json_get(c, "name"), JSON_STRING);
}

static void put_choice(reader *r, const json *c, buf *out)
{
    const json *tools = json_get(c, "tools"), *mode = json_get(c, "mode");
    if (!c || c->type == JSON_NULL) return;
    if (c->type != JSON_OBJECT) {
        tr_json(out, "tool_choice", c);
    } else if (is_named(c)) {
        tr_name(out, "tool_choice");
        put_named(c, out);
    } else if (tr_is(json_get(c, "type"), "allowed_tools") && json_is(tools, JSON_ARRAY)) {
        int n = 0;
        buf_puts(out, ",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{");
        tr_json(out, "mode", mode);
        tr_name(out, "tools");
        buf_putc(out, '[');
        for (const json *t = tools->child; t; t = t->next) {
            if (!is_named(t)) continue; /* not here, so it cannot be called either */
            if (n++) buf_putc(out, ',');
            put_named(t, out);
        }
        buf_puts(out, "]}}");
    } else {
        reader_fail(r, "invalid_value", "tool_choice",
                    "'tool_choice' must be none, auto, required, a function or custom tool with "
                    "its name, or allowed_tools");
    }
}

static void put_text(reader *r, const json *body, buf *out)
{
    const json *text = json_get(body, "text"), *f = json_get(text, "format"),
               *other = json_get(body, "response_format");
    if (text && text->type != JSON_NULL && text->type != JSON_OBJECT) {
        reader_fail(r, "invalid_type", "text", "'text' must be an object");
        return;
    }
    if (!f || f->type == JSON_NULL || tr_is(json_get(f, "type"), "text")) return;
    if (other && other->type != JSON_NULL && !tr_is(json_get(other, "type"), "text")) {
        reader_fail(r, "conflicting_constraints", "text.format",
                    "'text.format' cannot be given beside response_format");
        return;
    }
    if (!tr_is(json_get(f, "type"), "json_schema")) {
        tr_json(out, "response_format", f);
        return;
    }
    static const char *const fields[] = {"name", "description", "schema", "strict"};
    buf_puts(out, ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{");
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        tr_json(out, fields[i], json_get(f, fields[i]));
    buf_puts(out, "}}");
}

/* include and top_logprobs: both ask for logprobs. */
static void put_logprobs(reader *r, const json *body, buf *out)
{
    const json *list = rd_any(r, "include"), *tops = json_get(body, "top_logprobs");
    int64_t n = 0;
    bool on = json_is(json_get(body, "logprobs"), JSON_TRUE) || (json_int(tops, &n) && n > 0);
    int i = 0;
    if (list && list->type != JSON_ARRAY)
        reader_fail(r, "invalid_type", "include", "'include' must be an array of strings");
    for (const json *j = json_is(list, JSON_ARRAY) ? list->child : NULL; j; j = j->next, i++) {
        char name[32];
        int len = snprintf(name, sizeof name, "include[%d]", i);
        if (tr_is(j, "message.output_text.logprobs")) on = true;
        else if (!tr_is(j, "reasoning.encrypted_content")) reader_ignore(r, name, (size_t)len);
    }
    if (on) buf_puts(out, ",\"logprobs\":true");
    tr_json(out, "top_logprobs", tops);
}

static void check_word(reader *r, const json *j, const char *name, const char *const *words)
{
    bool known = false;
    if (!j || j->type == JSON_NULL) return;
    for (int i = 0; words[i]; i++) known |= tr_is(j, words[i]);
    if (known) return;
    if (j->type == JSON_STRING)
        reader_fail(r, "invalid_value", name, "'%s' does not take the value '%.64s'", name, j->str);
    else
        reader_fail(r, "invalid_type", name, "'%s' must be a string, got %s", name,
                    json_type_name(j));
}

/* What is only echoed is checked all the same. */
static void check_fields(reader *r, const json *body)
{
    static const char *const summaries[] = {"auto", "concise", "detailed", "none", NULL};
    static const char *const truncations[] = {"auto", "disabled", NULL};
    const json *meta = rd_any(r, "metadata"), *reasoning = json_get(body, "reasoning");
    int64_t v, one = 1;
    const char *text;
    bool flag;
    if (rd_any(r, "prompt"))
        reader_fail(r, "unsupported_value", "prompt", "'prompt' is not supported; send the input");
    const json *n = rd_any(r, "n");
    if (n && (!json_int(n, &one) || one != 1))
        reader_fail(r, "unsupported_value", "n", "'n' is not supported here");
    if (meta && meta->type != JSON_OBJECT)
        reader_fail(r, "invalid_type", "metadata", "'metadata' must be an object, got %s",
                    json_type_name(meta));
    rd_int(r, "max_tool_calls", 1, INT64_MAX, &v);
    rd_int(r, "max_output_tokens", -1, INT64_MAX, &v);
    rd_str(r, "instructions", 0, SIZE_MAX, &text, NULL);
    rd_bool(r, "store", &flag);
    check_word(r, json_get(body, "truncation"), "truncation", truncations);
    check_word(r, json_get(reasoning, "summary"), "reasoning.summary", summaries);
    r->drop_turns = tr_is(json_get(body, "truncation"), "auto");
}

/* Chat's own fields have no place here. */
/* Without meaning here. */
#define UNKNOWN "messages", "suffix", "best_of", "format", "prefix", TR_CHAT_ONLY

static const char *const taken[] = {"input",
                                    "instructions",
                                    "previous_response_id",
                                    "max_output_tokens",
                                    "tools",
                                    "text",
                                    "tool_choice",
                                    "include",
                                    "top_logprobs",
                                    "logprobs",
                                    "prompt",
                                    "max_tool_calls",
                                    "truncation",
                                    "response_format",
                                    "n",
                                    UNKNOWN};

static const char *const unknown[] = {UNKNOWN};

void responses_translate(reader *r, const json *body, buf *out)
{
    const json *input = rd_any(r, "input"), *limit = json_get(body, "max_output_tokens"),
               *format = json_get(body, "response_format");
    check_fields(r, body);
    if (!input) {
        reader_fail(r, "missing_required_parameter", "input", "'input' is required");
        return;
    }
    if (input->type != JSON_STRING && input->type != JSON_ARRAY) {
        reader_fail(r, "invalid_type", "input", "'input' must be a string or an array, got %s",
                    json_type_name(input));
        return;
    }
    tr_ignore(r, body, unknown, (int)(sizeof unknown / sizeof *unknown));
    tr_rest(out, body, taken, (int)(sizeof taken / sizeof *taken));
    responses_messages(r, body, rd_any(r, "instructions"), input, out);
    tr_tools(r, json_get(body, "tools"), "parameters", true, out);
    put_choice(r, json_get(body, "tool_choice"), out);
    if (limit && limit->type != JSON_NULL) tr_json(out, "max_completion_tokens", limit);
    if (format && format->type != JSON_NULL) tr_json(out, "response_format", format);
    put_text(r, body, out);
    put_logprobs(r, body, out);
}
