/* messages_request.c - an Anthropic Messages body as the chat body it means (API A1-A6): roles,
 * blocks, tools, thinking.  Owns what it builds.  Refuses documents it cannot read and a missing
 * max_tokens; everything else is checked by the chat reader.  Thread: prep. */
#include "server/messages_request.h"

#include "server/reply.h"

#include <stdio.h>
#include <string.h>

/* Turns of one role that follow each other are one turn. */
typedef enum { TURN_NONE, TURN_USER, TURN_ASSISTANT } turn_role;

typedef struct {
    reader *r;
    buf *out;
    int n_out; /* messages written */
    turn_role role;
    bool split;    /* a system text stood inside the turn: nothing need be left of it */
    buf tools;     /* user: finished tool messages, each with a comma behind it */
    buf parts;     /* user: content parts, comma-separated */
    buf text;      /* assistant: its text */
    buf thought;   /* assistant */
    buf calls;     /* assistant: tool calls, comma-separated */
    char path[64]; /* of the block at hand, for messages */
} talk;

static const char BILLING[] = "x-anthropic-billing-header:";

static bool is_set(const json *j)
{
    return j && j->type != JSON_NULL;
}

static void message_begin(talk *t, const char *role)
{
    buf_printf(t->out, "%s{\"role\":\"%s\"", t->n_out++ ? "," : "", role);
}

static void system_message(talk *t, const char *s, size_t n)
{
    message_begin(t, "system");
    tr_str(t->out, "content", s, n);
    buf_putc(t->out, '}');
}

static void flush_user(talk *t)
{
    if (t->tools.len) {
        if (t->n_out++) buf_putc(t->out, ',');
        buf_put(t->out, t->tools.v, t->tools.len - 1);
    }
    if (!t->parts.len && t->tools.len) return;
    message_begin(t, "user");
    if (t->parts.len) buf_printf(t->out, ",\"content\":[%s]", t->parts.v);
    else buf_puts(t->out, ",\"content\":\"\"");
    buf_putc(t->out, '}');
}

/* A last answer without calls is continued; white space at its end would only confuse the model. */
static void flush_assistant(talk *t, bool last)
{
    bool go_on = last && !t->calls.len;
    while (go_on && t->text.len && strchr(" \t\r\n", t->text.v[t->text.len - 1])) t->text.len--;
    message_begin(t, "assistant");
    tr_str(t->out, "content", buf_str(&t->text), t->text.len);
    if (t->thought.len) tr_str(t->out, "reasoning_content", t->thought.v, t->thought.len);
    if (t->calls.len) buf_printf(t->out, ",\"tool_calls\":[%s]", t->calls.v);
    if (go_on) buf_puts(t->out, ",\"prefix\":true");
    buf_putc(t->out, '}');
}

static void flush(talk *t, bool last)
{
    buf *all[] = {&t->tools, &t->parts, &t->text, &t->thought, &t->calls};
    bool some = !t->split;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) some |= all[i]->len > 0;
    if (some && t->role == TURN_USER) flush_user(t);
    if (some && t->role == TURN_ASSISTANT) flush_assistant(t, last);
    t->role = TURN_NONE;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!buf_ok(all[i])) t->out->oom = true;
        buf_reset(all[i]);
    }
}

static void turn(talk *t, turn_role role)
{
    if (t->role == role) return;
    flush(t, false);
    t->role = role;
    t->split = false;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static void put_text(talk *t, const char *s, size_t n)
{
    if (t->role == TURN_ASSISTANT) {
        buf_put(&t->text, s, n);
        return;
    }
    if (t->parts.len) buf_putc(&t->parts, ',');
    buf_puts(&t->parts, "{\"type\":\"text\",\"text\":");
    buf_put_json(&t->parts, s, n);
    buf_putc(&t->parts, '}');
}

/* The texts of a string or of a list of text blocks. */
static void gather(const json *content, buf *out)
{
    if (json_is(content, JSON_STRING)) buf_put(out, content->str, content->len);
    if (!json_is(content, JSON_ARRAY)) return;
    for (const json *b = content->child; b; b = b->next) {
        const json *text = json_get(b, "text");
        if (!json_is(text, JSON_STRING)) continue;
        if (out->len) buf_putc(out, '\n');
        buf_put(out, text->str, text->len);
    }
}

/* The text of a document; at: its place, for messages. */
static void document(talk *t, const json *b, const char *at, buf *out)
{
    const json *source = json_get(b, "source"), *data = json_get(source, "data");
    if (tr_is(json_get(source, "type"), "text") && json_is(data, JSON_STRING))
        buf_put(out, data->str, data->len);
    else if (tr_is(json_get(source, "type"), "content")) gather(json_get(source, "content"), out);
    else
        reader_fail(t->r, "unsupported_modality", at,
                    "'%s' is a document that is not plain text; only text sources are supported",
                    at);
}

/* A block of a tool's result. */
static void result_block(talk *t, const json *b, const char *at, buf *out)
{
    const json *type = json_get(b, "type"), *text = json_get(b, "text");
    buf found = {0};
    if (tr_is(type, "image")) reader_no_media(t->r, at, "image");
    else if (tr_is(type, "document")) document(t, b, at, &found);
    else if (tr_is(type, "search_result")) gather(json_get(b, "content"), &found);
    else if (json_is(text, JSON_STRING)) buf_put(&found, text->str, text->len);
    else reader_ignore(t->r, at, strlen(at));
    if (found.len && out->len) buf_putc(out, '\n');
    buf_put(out, buf_str(&found), found.len);
    if (!buf_ok(&found)) out->oom = true;
    buf_clear(&found);
}

static void tool_result(talk *t, const json *b)
{
    const json *id = json_get(b, "tool_use_id"), *content = json_get(b, "content");
    bool list = json_is(content, JSON_ARRAY);
    buf text = {0}, all = {0};
    int k = 0;
    if (is_set(content) && !list && content->type != JSON_STRING)
        reader_fail(t->r, "invalid_type", t->path,
                    "'%s.content' must be a string or a list of blocks", t->path);
    if (!list) gather(content, &text);
    for (const json *p = list ? content->child : NULL; p && !t->r->failed; p = p->next, k++) {
        char at[sizeof t->path + 24];
        snprintf(at, sizeof at, "%s.content[%d]", t->path, k);
        result_block(t, p, at, &text);
    }
    if (json_is(json_get(b, "is_error"), JSON_TRUE)) buf_puts(&all, "Error: ");
    buf_put(&all, buf_str(&text), text.len);
    buf_puts(&t->tools, "{\"role\":\"tool\"");
    if (json_is(id, JSON_STRING)) tr_str(&t->tools, "tool_call_id", id->str, id->len);
    tr_str(&t->tools, "content", buf_str(&all), all.len);
    buf_puts(&t->tools, "},");
    if (!buf_ok(&text) || !buf_ok(&all)) t->out->oom = true;
    buf_clear(&text);
    buf_clear(&all);
}

static void tool_use(talk *t, const json *b)
{
    const json *id = json_get(b, "id"), *name = json_get(b, "name"), *input = json_get(b, "input");
    if (!json_is(name, JSON_STRING)) {
        reader_fail(t->r, "missing_required_parameter", t->path, "'%s.name' is required", t->path);
        return;
    }
    bool given = is_set(input);
    if (given && input->type != JSON_OBJECT && input->type != JSON_STRING) {
        reader_fail(t->r, "invalid_type", t->path, "'%s.input' must be an object, got %s", t->path,
                    json_type_name(input));
        return;
    }
    if (t->calls.len) buf_putc(&t->calls, ',');
    buf_puts(&t->calls, "{\"type\":\"function\"");
    if (json_is(id, JSON_STRING)) tr_str(&t->calls, "id", id->str, id->len);
    buf_puts(&t->calls, ",\"function\":{");
    tr_str(&t->calls, "name", name->str, name->len);
    tr_name(&t->calls, "arguments");
    if (given) json_dump(input, &t->calls); /* a string is read as chat reads it (C4) */
    else buf_puts(&t->calls, "{}");
    buf_puts(&t->calls, "}}");
}

static void block(talk *t, const json *b)
{
    const json *type = json_get(b, "type"), *text = json_get(b, "text");
    buf found = {0};
    if (b->type != JSON_OBJECT || !json_is(type, JSON_STRING)) {
        reader_fail(t->r, "invalid_type", t->path, "'%s' must be an object with a type", t->path);
    } else if (tr_is(type, "text")) {
        if (json_is(text, JSON_STRING)) put_text(t, text->str, text->len);
        else reader_fail(t->r, "invalid_type", t->path, "'%s.text' must be a string", t->path);
    } else if (tr_is(type, "tool_use") && t->role == TURN_ASSISTANT) {
        tool_use(t, b);
    } else if (tr_is(type, "tool_result") && t->role == TURN_USER) {
        tool_result(t, b);
    } else if (tr_is(type, "thinking") && t->role == TURN_ASSISTANT) {
        const json *thought = json_get(b, "thinking");
        if (json_is(thought, JSON_STRING)) buf_put(&t->thought, thought->str, thought->len);
    } else if (tr_is(type, "document")) {
        document(t, b, t->path, &found);
        if (!t->r->failed) put_text(t, buf_str(&found), found.len);
    } else if (tr_is(type, "search_result")) {
        gather(json_get(b, "content"), &found);
        put_text(t, buf_str(&found), found.len);
    } else if (tr_is(type, "mid_conv_system")) {
        turn_role role = t->role;
        gather(text ? text : json_get(b, "content"), &found);
        t->split = true;
        flush(t, false);
        system_message(t, buf_str(&found), found.len);
        t->role = role;
    } else if (tr_is(type, "image") && t->role == TURN_ASSISTANT) {
        reader_fail(t->r, "unsupported_modality", t->path,
                    "an assistant message does not take images ('%s')", t->path);
    } else if (tr_is(type, "image")) {
        /* The chat reader says which models take images. */
        buf_printf(&t->parts, "%s{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:\"}}",
                   t->parts.len ? "," : "");
    } else if (!tr_is(type, "redacted_thinking")) {
        reader_ignore(t->r, t->path, strlen(t->path));
    }
    buf_clear(&found);
}

static void message(talk *t, const json *m, int i)
{
    const json *role = json_get(m, "role"), *content = json_get(m, "content");
    snprintf(t->path, sizeof t->path, "messages[%d]", i);
    bool user = tr_is(role, "user") || tr_is(role, "ctx") || tr_is(role, "msg");
    buf text = {0};
    if (m->type != JSON_OBJECT || !json_is(role, JSON_STRING)) {
        reader_fail(t->r, "invalid_value", t->path, "'%s' must be an object with a role", t->path);
    } else if (tr_is(role, "system") && !json_is(content, JSON_STRING) &&
               !json_is(content, JSON_ARRAY)) {
        reader_fail(t->r, "invalid_type", t->path,
                    "'%s.content' must be a string or a list of blocks", t->path);
    } else if (tr_is(role, "system")) {
        flush(t, false);
        gather(content, &text);
        system_message(t, buf_str(&text), text.len);
    } else if (!user && !tr_is(role, "assistant")) {
        reader_fail(t->r, "invalid_value", t->path,
                    "'%s.role' must be user or assistant, got '%.32s'", t->path, role->str);
    } else {
        turn(t, user ? TURN_USER : TURN_ASSISTANT);
        if (json_is(content, JSON_STRING)) put_text(t, content->str, content->len);
        else if (!json_is(content, JSON_ARRAY))
            reader_fail(t->r, "invalid_type", t->path,
                        "'%s.content' must be a string or a list of blocks", t->path);
        int k = 0;
        for (const json *b = json_is(content, JSON_ARRAY) ? content->child : NULL;
             b && !t->r->failed; b = b->next, k++) {
            snprintf(t->path, sizeof t->path, "messages[%d].content[%d]", i, k);
            block(t, b);
        }
    }
    buf_clear(&text);
}

/* A4: this line changes with every request and would keep prompts from being found in the cache. */
static void drop_billing(const reader *r, const char **s, size_t *n)
{
    if (r->a->opt->keep_billing_header || *n < sizeof BILLING - 1 ||
        strncmp(*s, BILLING, sizeof BILLING - 1) != 0)
        return;
    const char *line = memchr(*s, '\n', *n);
    size_t cut = line ? (size_t)(line + 1 - *s) : *n;
    *s += cut;
    *n -= cut;
}

static void system_text(talk *t, const json *system)
{
    buf all = {0};
    if (!system || system->type == JSON_NULL) return;
    if (system->type != JSON_STRING && system->type != JSON_ARRAY) {
        reader_fail(t->r, "invalid_type", "system", "'system' must be a string or text blocks");
        return;
    }
    const json *first = system->type == JSON_STRING ? system : system->child;
    for (const json *b = first; b; b = system->type == JSON_STRING ? NULL : b->next) {
        const json *text = system->type == JSON_STRING ? b : json_get(b, "text");
        if (!json_is(text, JSON_STRING))
            reader_fail(t->r, "invalid_type", "system", "'system' must be a string or text blocks");
        if (t->r->failed) break;
        const char *s = text->str;
        size_t n = text->len;
        drop_billing(t->r, &s, &n);
        if (!n) continue;
        if (all.len) buf_putc(&all, '\n');
        buf_put(&all, s, n);
    }
    if (all.len) system_message(t, all.v, all.len);
    if (!buf_ok(&all)) t->out->oom = true;
    buf_clear(&all);
}

static void put_messages(reader *r, const json *body, buf *out)
{
    talk t = {.r = r, .out = out};
    const json *list = json_get(body, "messages");
    tr_name(out, "messages");
    buf_putc(out, '[');
    system_text(&t, json_get(body, "system"));
    if (!json_is(list, JSON_ARRAY) || !list->len)
        reader_fail(r, list ? "invalid_value" : "missing_required_parameter", "messages",
                    "'messages' must be an array of at least one message");
    int i = 0;
    for (const json *m = r->failed ? NULL : list->child; m && !r->failed; m = m->next, i++)
        message(&t, m, i);
    flush(&t, true);
    buf_putc(out, ']');
    buf *all[] = {&t.tools, &t.parts, &t.text, &t.thought, &t.calls};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) buf_clear(all[k]);
}

/* ---- tools and switches ---------------------------------------------------------------------- */

static void put_choice(reader *r, const json *c, buf *out)
{
    const json *type = json_get(c, "type"), *name = json_get(c, "name"),
               *alone = json_get(c, "disable_parallel_tool_use");
    if (!c || c->type == JSON_NULL) return;
    if (tr_is(type, "auto") || tr_is(type, "none")) {
        tr_json(out, "tool_choice", type);
    } else if (tr_is(type, "any")) {
        tr_str(out, "tool_choice", "required", 8);
    } else if (tr_is(type, "tool") && json_is(name, JSON_STRING)) {
        buf_puts(out, ",\"tool_choice\":{\"type\":\"function\",\"function\":{");
        tr_json(out, "name", name);
        buf_puts(out, "}}");
    } else {
        reader_fail(r, "invalid_value", "tool_choice",
                    "'tool_choice.type' must be auto, any, none, or tool with a name");
    }
    if (is_set(alone) && !json_is_bool(alone))
        reader_fail(r, "invalid_type", "tool_choice.disable_parallel_tool_use",
                    "'tool_choice.disable_parallel_tool_use' must be true or false, got %s",
                    json_type_name(alone));
    if (json_is(alone, JSON_TRUE)) buf_puts(out, ",\"parallel_tool_calls\":false");
}

/* output_config.format, or output_format as it was called before; either in place of
 * response_format. */
static void put_format(reader *r, const json *format, const json *older, const json *chats,
                       buf *out)
{
    const json *f = is_set(format) ? format : older;
    const char *name = f == format ? "output_config.format" : "output_format", *other = NULL;
    if (!is_set(f)) return;
    if (is_set(chats) && !tr_is(json_get(chats, "type"), "text")) other = "response_format";
    if (f == format && is_set(older)) other = "output_format";
    if (other) {
        reader_fail(r, "conflicting_constraints", other,
                    "'%s' and '%s' both constrain the answer: send one of them", name, other);
    } else if (!tr_is(json_get(f, "type"), "json_schema")) {
        reader_fail(r, "invalid_value", name, "'%s.type' must be json_schema", name);
    } else {
        buf_puts(out, ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{"
                      "\"name\":\"output\"");
        tr_json(out, "schema", json_get(f, "schema"));
        buf_puts(out, "}}");
    }
}

/* A5: thinking is off unless it is asked for, and an effort does not ask for it. */
static void put_thinking(reader *r, const json *body, buf *out)
{
    const json *t = json_get(body, "thinking"), *config = json_get(body, "output_config"),
               *effort = json_get(config, "effort"), *format = json_get(config, "format");
    bool told = is_set(t), on = !strcmp(r->a->opt->anthropic_thinking, "on"),
         off = told ? json_is(t, JSON_FALSE) || tr_is(json_get(t, "type"), "disabled") : !on;
    if (told) tr_json(out, "thinking", t);
    else if (off) buf_puts(out, ",\"thinking\":{\"type\":\"disabled\"}");
    if (is_set(effort) && (told || off) && !is_set(json_get(body, "enable_thinking")))
        buf_printf(out, ",\"enable_thinking\":%s", off ? "false" : "true");
    if (is_set(config) && config->type != JSON_OBJECT)
        reader_fail(r, "invalid_type", "output_config", "'output_config' must be an object, got %s",
                    json_type_name(config));
    if (is_set(effort)) tr_json(out, "reasoning_effort", effort);
    put_format(r, format, json_get(body, "output_format"), json_get(body, "response_format"), out);
}

/* The reply has no room for these, or only Anthropic's service knows how. */
#define FOREIGN \
    "logprobs", "top_logprobs", "return_tokens_as_token_ids", "context_management", TR_CHAT_ONLY
static const char *const foreign[] = {FOREIGN};
static const char *const taken[] = {
    "system",        "messages",   "tools",          "tool_choice", "thinking", "output_config",
    "output_format", "max_tokens", "stop_sequences", "container",   FOREIGN};

void messages_translate(reader *r, const json *body, buf *out)
{
    const json *limit = json_get(body, "max_tokens"), *n = json_get(body, "n"),
               *stops = json_get(body, "stop_sequences");
    int64_t one = 1;
    r->zero_tokens = true;
    if (!r->counts_only && !is_set(limit))
        reader_fail(r, "missing_required_parameter", "max_tokens", "'max_tokens' is required");
    tr_rest(out, body, taken, (int)(sizeof taken / sizeof *taken));
    if (is_set(limit)) tr_json(out, "max_completion_tokens", limit);
    if (n && (!json_int(n, &one) || one != 1))
        reader_fail(r, "unsupported_value", "n", "'n' is not supported here");
    tr_ignore(r, body, foreign, (int)(sizeof foreign / sizeof *foreign));
    put_messages(r, body, out);
    tr_tools(r, json_get(body, "tools"), "input_schema", false, out);
    put_choice(r, json_get(body, "tool_choice"), out);
    put_thinking(r, body, out);
    if (is_set(stops)) tr_json(out, "stop", stops);
}

const char *const messages_names[] = {"max_completion_tokens",
                                      "max_tokens",
                                      "stop",
                                      "stop_sequences",
                                      "reasoning_effort",
                                      "output_config.effort",
                                      "response_format.json_schema",
                                      "output_config.format",
                                      "response_format",
                                      "output_config.format",
                                      "tools[].function.parameters",
                                      "tools[].input_schema",
                                      "tools[].function",
                                      "tools[]",
                                      NULL};
