/* responses_items.c - the items of a Responses conversation as chat messages, and as the items that
 * are kept with a reply (API X1, X4, X7).  Owns what it builds.  Refuses items and parts it cannot
 * read, by their path; items that exist only elsewhere are skipped and listed.  Thread: prep. */
#include "server/responses_request.h"

#include "base/base64.h"
#include "server/reply.h"

#include <stdio.h>
#include <string.h>

/* Consecutive assistant items are one turn. */
typedef struct {
    reader *r;
    buf *out;
    int n_out; /* messages written */
    bool open; /* an assistant turn is being gathered */
    buf text, thought, calls;
    char path[64];       /* of the item at hand */
    int n_refs;          /* item_references followed */
    size_t n_stored;     /* bytes of items that came from the store */
    conversation *store; /* what the items are added to, or NULL */
} talk;

enum { MAX_REFERENCES = 1024 };

static const char SEAL[] = "quern:";

void thought_seal(const char *s, size_t n, buf *out)
{
    buf_puts(out, SEAL);
    base64_put(out, s, n);
}

bool thought_open(const char *s, size_t n, buf *out)
{
    size_t k = sizeof SEAL - 1;
    return n >= k && !memcmp(s, SEAL, k) && base64_get(s + k, n - k, out);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void message_begin(talk *t, const char *role)
{
    buf_printf(t->out, "%s{\"role\":\"%s\"", t->n_out++ ? "," : "", role);
}

static void flush(talk *t)
{
    if (!t->open) return;
    message_begin(t, "assistant");
    tr_str(t->out, "content", buf_str(&t->text), t->text.len);
    if (t->thought.len) tr_str(t->out, "reasoning_content", t->thought.v, t->thought.len);
    if (t->calls.len) buf_printf(t->out, ",\"tool_calls\":[%s]", t->calls.v);
    buf_putc(t->out, '}');
    buf *all[] = {&t->text, &t->thought, &t->calls};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!buf_ok(all[i])) t->out->oom = true;
        buf_reset(all[i]);
    }
    t->open = false;
}

static void line(buf *b, const char *s, size_t n)
{
    if (b->len) buf_putc(b, '\n');
    buf_put(b, s, n);
}

/* The texts of a string or of a list of parts; field: which member of the item it is. */
static void texts(talk *t, const json *content, const char *field, buf *out)
{
    if (json_is(content, JSON_STRING)) {
        line(out, content->str, content->len);
        return;
    }
    if (!json_is(content, JSON_ARRAY)) {
        char at[96];
        snprintf(at, sizeof at, "%s.%s", t->path, field);
        reader_fail(t->r, content ? "invalid_type" : "missing_required_parameter", at,
                    "'%s' must be a string or a list of parts", at);
        return;
    }
    int i = 0;
    for (const json *p = content->child; p && !t->r->failed; p = p->next, i++) {
        const json *type = json_get(p, "type"), *text = json_get(p, "text");
        char at[96];
        snprintf(at, sizeof at, "%s.%s[%d]", t->path, field, i);
        if (tr_is(type, "refusal") && json_get(p, "refusal")) text = json_get(p, "refusal");
        if (!json_is(type, JSON_STRING))
            reader_fail(t->r, "invalid_type", at, "'%s' must be an object with a type", at);
        else if (tr_is(type, "input_image") || tr_is(type, "input_file") ||
                 tr_is(type, "input_audio") || tr_is(type, "input_video"))
            reader_no_media(t->r, at, type->str + 6);
        else if (!tr_is(type, "input_text") && !tr_is(type, "output_text") &&
                 !tr_is(type, "text") && !tr_is(type, "refusal") &&
                 !tr_is(type, "reasoning_text") && !tr_is(type, "summary_text"))
            reader_fail(t->r, "invalid_value", at,
                        "'%s.type' must be input_text, output_text or refusal, got '%.32s'", at,
                        type->str);
        else if (!json_is(text, JSON_STRING))
            reader_fail(t->r, "invalid_type", at, "'%s.text' must be a string", at);
        else line(out, text->str, text->len);
    }
}

/* A user's or the system's parts stay parts, for templates that take them. */
static void put_parts(talk *t, const json *content)
{
    int n = 0;
    buf seen = {0};
    texts(t, content, "content", &seen); /* says what is wrong with them */
    if (json_is(content, JSON_ARRAY) && content->len > 1) {
        buf_puts(t->out, ",\"content\":[");
        for (const json *p = content->child; p && !t->r->failed; p = p->next) {
            const json *text = json_get(p, "text");
            if (!text) text = json_get(p, "refusal");
            buf_printf(t->out, "%s{\"type\":\"text\"", n++ ? "," : "");
            tr_json(t->out, "text", text);
            buf_putc(t->out, '}');
        }
        buf_putc(t->out, ']');
    } else {
        tr_str(t->out, "content", buf_str(&seen), seen.len);
    }
    if (!buf_ok(&seen)) t->out->oom = true;
    buf_clear(&seen);
}

static void message(talk *t, const json *m)
{
    const json *role = json_get(m, "role"), *content = json_get(m, "content");
    if (tr_is(role, "assistant")) {
        t->open = true;
        if (content && content->type != JSON_NULL) texts(t, content, "content", &t->text);
        return;
    }
    if (!tr_is(role, "user") && !tr_is(role, "system") && !tr_is(role, "developer")) {
        reader_fail(t->r, role ? "invalid_value" : "missing_required_parameter", t->path,
                    "'%s.role' must be user, assistant, system or developer", t->path);
        return;
    }
    flush(t);
    message_begin(t, role->str);
    put_parts(t, content);
    buf_putc(t->out, '}');
}

static void call(talk *t, const json *m, bool custom)
{
    const json *id = json_get(m, "call_id"), *name = json_get(m, "name"),
               *args = json_get(m, custom ? "input" : "arguments");
    if (!json_is(name, JSON_STRING)) {
        reader_fail(t->r, name ? "invalid_type" : "missing_required_parameter", t->path,
                    "'%s.name' must be a string", t->path);
        return;
    }
    if (args && args->type != JSON_STRING && args->type != JSON_NULL) {
        reader_fail(t->r, "invalid_type", t->path, "'%s.%s' must be a string", t->path,
                    custom ? "input" : "arguments");
        return;
    }
    t->open = true;
    buf_printf(&t->calls, "%s{\"type\":\"%s\"", t->calls.len ? "," : "",
               custom ? "custom" : "function");
    if (json_is(id, JSON_STRING)) tr_json(&t->calls, "id", id);
    buf_printf(&t->calls, ",\"%s\":{", custom ? "custom" : "function");
    tr_json(&t->calls, "name", name);
    tr_name(&t->calls, custom ? "input" : "arguments");
    if (json_is(args, JSON_STRING)) json_dump(args, &t->calls);
    else buf_puts(&t->calls, "\"\"");
    buf_puts(&t->calls, "}}");
}

static void result(talk *t, const json *m)
{
    const json *id = json_get(m, "call_id");
    buf text = {0};
    flush(t);
    texts(t, json_get(m, "output"), "output", &text);
    message_begin(t, "tool");
    if (json_is(id, JSON_STRING)) tr_json(t->out, "tool_call_id", id);
    tr_str(t->out, "content", buf_str(&text), text.len);
    buf_putc(t->out, '}');
    if (!buf_ok(&text)) t->out->oom = true;
    buf_clear(&text);
}

/* Its content; without one, what we sealed; without that, its summary. */
static void reasoning(talk *t, const json *m)
{
    const json *content = json_get(m, "content"), *sealed = json_get(m, "encrypted_content"),
               *summary = json_get(m, "summary");
    t->open = true;
    if (t->thought.len) buf_putc(&t->thought, '\n');
    if (json_is(content, JSON_ARRAY) && content->len) texts(t, content, "content", &t->thought);
    else if (!json_is(sealed, JSON_STRING) || !thought_open(sealed->str, sealed->len, &t->thought))
        if (json_is(summary, JSON_ARRAY)) texts(t, summary, "summary", &t->thought);
}

/* ---- what is kept ---------------------------------------------------------------------------- */

static const char *id_prefix(const char *type)
{
    static const struct {
        const char *type, *prefix;
    } rows[] = {{"message", "msg_"},          {"reasoning", "rs_"},
                {"function_call", "fc_"},     {"function_call_output", "fco_"},
                {"custom_tool_call", "ctc_"}, {"custom_tool_call_output", "ctco_"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].type, type)) return rows[i].prefix;
    return "item_";
}

/* A message's content as parts. */
static void keep_content(const json *m, buf *b)
{
    const json *content = json_get(m, "content");
    bool answer = tr_is(json_get(m, "role"), "assistant");
    if (json_is(content, JSON_ARRAY)) {
        tr_json(b, "content", content);
        return;
    }
    buf_printf(b, ",\"content\":[{\"type\":\"%s\"", answer ? "output_text" : "input_text");
    tr_str(b, "text", json_is(content, JSON_STRING) ? content->str : "",
           json_is(content, JSON_STRING) ? content->len : 0);
    buf_puts(b, answer ? ",\"annotations\":[],\"logprobs\":[]}]" : "}]");
}

/* The item as it is listed later: with an id, a type and a status. */
static void keep(talk *t, const json *m, const char *type)
{
    const json *own = json_get(m, "id");
    char id[64];
    if (!t->store) return;
    if (json_is(own, JSON_STRING) && own->len && own->len < sizeof id)
        snprintf(id, sizeof id, "%s", own->str);
    else reply_id(id, sizeof id, id_prefix(type));
    buf *b = conversation_begin(t->store);
    buf_putc(b, '{');
    tr_str(b, "id", id, strlen(id));
    tr_str(b, "type", type, strlen(type));
    tr_str(b, "status", "completed", 9);
    bool is_message = !strcmp(type, "message");
    if (is_message) keep_content(m, b);
    if (!strcmp(type, "reasoning") && !json_get(m, "summary")) buf_puts(b, ",\"summary\":[]");
    for (const json *j = m->child; j; j = j->next)
        if (strcmp(j->key, "id") && strcmp(j->key, "type") && strcmp(j->key, "status") &&
            (!is_message || strcmp(j->key, "content")))
            tr_json(b, j->key, j);
    buf_putc(b, '}');
    conversation_end(t->store, id);
}

/* ---- items ----------------------------------------------------------------------------------- */

static bool read_item(talk *t, const json *m, const char *type)
{
    if (!strcmp(type, "message")) message(t, m);
    else if (!strcmp(type, "function_call")) call(t, m, false);
    else if (!strcmp(type, "custom_tool_call")) call(t, m, true);
    else if (!strcmp(type, "function_call_output") || !strcmp(type, "custom_tool_call_output"))
        result(t, m);
    else if (!strcmp(type, "reasoning")) reasoning(t, m);
    else return false;
    return true;
}

/* What comes out of the store may be as large as a body. */
static bool too_large(talk *t, size_t more)
{
    t->n_stored += more;
    if (t->n_stored <= t->r->a->opt->max_body) return false;
    reader_fail(t->r, "invalid_value", t->path,
                "the stored items have more than %llu bytes, the limit of --max-body",
                (unsigned long long)t->r->a->opt->max_body);
    return true;
}

static void follow(talk *t, const json *m)
{
    const json *id = json_get(m, "id"), *root = NULL;
    buf text = {0};
    store_result found = STORE_UNKNOWN;
    if (++t->n_refs > MAX_REFERENCES) {
        reader_fail(t->r, "invalid_value", t->path, "'input' takes at most %d item references",
                    MAX_REFERENCES);
        return;
    }
    if (json_is(id, JSON_STRING))
        found = response_store_item(t->r->a->responses, http_key_hash(t->r->call), id->str, &text);
    if (found == STORE_UNKNOWN)
        reader_fail(t->r, "invalid_value", t->path,
                    "'%s' refers to the item '%.64s', which is not stored", t->path,
                    json_is(id, JSON_STRING) ? id->str : "");
    json_doc *d = found == STORE_FOUND && !too_large(t, text.len)
                      ? json_parse(text.v, text.len, NULL, &root, NULL)
                      : NULL;
    if (d) {
        const json *type = json_get(root, "type");
        if (read_item(t, root, type->str)) keep(t, root, type->str);
    } else if (found != STORE_UNKNOWN) {
        t->out->oom = true;
    }
    json_free(d);
    buf_clear(&text);
}

static void item(talk *t, const json *m, int i)
{
    const json *type = json_get(m, "type");
    snprintf(t->path, sizeof t->path, "input[%d]", i);
    if (json_is(type, JSON_NULL)) type = NULL;
    if (m->type != JSON_OBJECT || (type && type->type != JSON_STRING)) {
        reader_fail(t->r, "invalid_type", t->path, "'%s' must be an object with a type or a role",
                    t->path);
        return;
    }
    bool reference = type ? tr_is(type, "item_reference")
                          : !json_get(m, "role") && json_is(json_get(m, "id"), JSON_STRING);
    const char *name = type ? type->str : "message";
    if (reference) follow(t, m);
    else if (!read_item(t, m, name)) reader_ignore(t->r, t->path, strlen(t->path));
    else if (!t->r->failed) keep(t, m, name);
}

/* What came before: kept items need no checks, but they may have outgrown what is sent. */
static void history(talk *t, const json *previous)
{
    reader *r = t->r;
    conversation *old = conversation_new();
    const json *root = NULL;
    buf text = {0};
    snprintf(t->path, sizeof t->path, "previous_response_id");
    store_result found =
        old ? response_store_get(r->a->responses, http_key_hash(r->call), previous->str, NULL, old)
            : STORE_OOM;
    if (found == STORE_UNKNOWN)
        reader_fail(r, "previous_response_not_found", "previous_response_id",
                    "Previous response with id '%.64s' not found.", previous->str);
    else if (found == STORE_OOM) t->out->oom = true;
    else if (!too_large(t, old->text.len)) buf_printf(&text, "[%s]", buf_str(&old->text));
    json_doc *d = text.len ? json_parse(text.v, text.len, NULL, &root, NULL) : NULL;
    if (text.len && !d) t->out->oom = true;
    int i = 0;
    for (const json *m = d ? root->child : NULL; m && !r->failed; m = m->next, i++) {
        const json *type = json_get(m, "type");
        snprintf(t->path, sizeof t->path, "previous_response_id[%d]", i);
        if (read_item(t, m, type->str)) keep(t, m, type->str);
    }
    if (t->store) t->store->n_history = t->store->n;
    json_free(d);
    buf_clear(&text);
    conversation_free(old);
}

bool responses_store_wanted(reader *r)
{
    bool store = true;
    rd_bool(r, "store", &store);
    return store && response_store_on(r->a->responses) && !r->counts_only;
}

void responses_messages(reader *r, const json *body, const json *instructions, const json *input,
                        buf *out)
{
    const char *previous = NULL;
    talk t = {.r = r, .out = out};
    if (!r->talk && !(r->talk = conversation_new())) {
        out->oom = true;
        return;
    }
    if (responses_store_wanted(r)) t.store = r->talk;
    tr_name(out, "messages");
    buf_putc(out, '[');
    if (json_is(instructions, JSON_STRING) && instructions->len) {
        message_begin(&t, "system");
        tr_json(out, "content", instructions);
        buf_putc(out, '}');
    }
    if (rd_str(r, "previous_response_id", 1, 256, &previous, NULL))
        history(&t, json_get(body, "previous_response_id"));
    int i = 0;
    if (json_is(input, JSON_STRING) || !input->len) {
        /* A text is one user turn, and so is nothing: clients probe with it. */
        json text = {.type = JSON_STRING, .key = "content", .n_key = 7, .str = ""};
        json role = {.type = JSON_STRING, .key = "role", .n_key = 4, .str = "user", .len = 4};
        json m = {.type = JSON_OBJECT, .len = 2, .child = &role};
        role.next = &text;
        if (json_is(input, JSON_STRING)) {
            text.str = input->str;
            text.len = input->len;
        }
        item(&t, &m, 0);
    } else {
        for (const json *m = input->child; m && !r->failed && buf_ok(out); m = m->next)
            item(&t, m, i++);
    }
    flush(&t);
    if (t.store) t.store->n_input = t.store->n - t.store->n_history;
    buf_putc(out, ']');
    buf_clear(&t.text);
    buf_clear(&t.thought);
    buf_clear(&t.calls);
}
