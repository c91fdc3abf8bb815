/* translate.c - see translate.h.  Owns nothing.  Refuses bodies that are no JSON object. */
#include "server/translate.h"

#include "server/reply.h"

#include <stdio.h>
#include <string.h>

bool reader_translate(reader *r, translator *t, const char *const *names, bool counts_only)
{
    buf text = {0};
    err e = {0};
    if (!read_model(r)) return false; /* V5: the model first */
    r->names = names;
    r->counts_only = counts_only;
    r->source = r->doc;
    r->sent = r->body;
    r->doc = NULL;
    buf_putc(&text, '{');
    t(r, r->body, &text);
    buf_putc(&text, '}');
    if (!r->failed && buf_ok(&text)) r->doc = json_parse(text.v, text.len, NULL, &r->body, &e);
    if (!r->failed && !r->doc) {
        r->failed = true;
        if (e.code && e.code != ERR_NOMEM)
            reply_fail(r->call, 400, "invalid_request_error", "invalid_json", NULL,
                       "the request means a body that is too large or too deep: %s", e.msg);
        else reply_oom(r->call);
    }
    buf_clear(&text);
    return !r->failed;
}

void tr_ignore(reader *r, const json *body, const char *const *names, int n)
{
    for (int i = 0; i < n; i++) {
        const json *j = json_get(body, names[i]);
        if (j && j->type != JSON_NULL) reader_ignore(r, names[i], strlen(names[i]));
    }
}

void tr_name(buf *out, const char *name)
{
    if (out->len && out->v[out->len - 1] != '{') buf_putc(out, ',');
    buf_put_json(out, name, strlen(name));
    buf_putc(out, ':');
}

void tr_json(buf *out, const char *name, const json *value)
{
    if (!value) return;
    tr_name(out, name);
    json_print(value, out);
}

void tr_str(buf *out, const char *name, const char *s, size_t n)
{
    tr_name(out, name);
    buf_put_json(out, s, n);
}

/* Tool i of the client's list is left out. */
static void skip_tool(reader *r, int i, const char *name)
{
    reader_ignore(r, name, strlen(name));
    if (i / 8 < (int)sizeof r->left_out) r->left_out[i / 8] |= (uint8_t)(1u << i % 8);
}

static void put_tool(const json *t, const char *type, const char *schema, buf *out)
{
    bool custom = !strcmp(type, "custom");
    const json *strict = json_get(t, "strict");
    const char *const theirs[] = {"name", "description", custom ? "format" : schema},
                      *const ours[] = {"name", "description", custom ? "format" : "parameters"};
    buf_printf(out, "{\"type\":\"%s\",\"%s\":{", type, type);
    for (int k = 0; k < 3; k++) {
        const json *v = json_get(t, theirs[k]);
        if (v && v->type != JSON_NULL) tr_json(out, ours[k], v);
    }
    if (strict && strict->type != JSON_NULL && strict->type != JSON_FALSE)
        tr_json(out, "strict", strict);
    buf_puts(out, "}}");
}

void tr_tools(reader *r, const json *tools, const char *schema, bool typed, buf *out)
{
    int i = 0, n = 0;
    if (!tools || tools->type == JSON_NULL) return;
    if (tools->type != JSON_ARRAY) {
        reader_fail(r, "invalid_type", "tools", "'tools' must be an array, got %s",
                    json_type_name(tools));
        return;
    }
    tr_name(out, "tools");
    buf_putc(out, '[');
    for (const json *t = tools->child; t && !r->failed; t = t->next, i++) {
        const json *type = json_get(t, "type");
        bool named = json_is(type, JSON_STRING), custom = tr_is(type, "custom");
        char name[32];
        snprintf(name, sizeof name, "tools[%d]", i);
        if (t->type != JSON_OBJECT || (typed && !named)) {
            reader_fail(r, "invalid_type", name, "'%s' must be an object%s", name,
                        typed ? " with a type" : "");
        } else if (typed ? !custom && !tr_is(type, "function") : named && !custom) {
            skip_tool(r, i, name);
        } else {
            if (n++) buf_putc(out, ',');
            put_tool(t, typed && custom ? "custom" : "function", schema, out);
        }
    }
    buf_putc(out, ']');
}

void tr_rest(buf *out, const json *body, const char *const *taken, int n)
{
    for (const json *j = body->child; j; j = j->next) {
        bool mine = false;
        for (int i = 0; i < n && !mine; i++) mine = !strcmp(j->key, taken[i]);
        if (!mine) tr_json(out, j->key, j);
    }
}

bool tr_is(const json *j, const char *word)
{
    return json_is(j, JSON_STRING) && !strcmp(j->str, word);
}

/* Bytes of s[n] up to the end of the last complete member of its object; 0 if there is none. */
static size_t complete_members(const char *s, size_t n)
{
    size_t last = 0;
    int depth = 0;
    bool in_string = false, escape = false, value = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (escape) escape = false;
            else if (s[i] == '\\') escape = true;
            else if (s[i] == '"') in_string = false;
            if (!in_string && depth == 1 && value) last = i + 1;
            continue;
        }
        if (s[i] == '"') in_string = true;
        if (s[i] == ':' && depth == 1) value = true;
        if (s[i] == '{' || s[i] == '[') depth++;
        if (s[i] == '}' || s[i] == ']') depth--;
        if ((s[i] == '}' || s[i] == ']') && depth == 1) last = i + 1;
        if (s[i] == ',' && depth == 1) {
            last = i;
            value = false;
        }
    }
    return last;
}

void put_args_object(const char *s, size_t n, buf *out)
{
    const json *j;
    err e = {0};
    json_doc *d = json_parse(s, n, NULL, &j, &e);
    if (d && j->type == JSON_OBJECT) {
        buf_put(out, s, n);
        json_free(d);
        return;
    }
    json_free(d);
    buf cut = {0};
    buf_put(&cut, s, complete_members(s, n));
    buf_putc(&cut, '}');
    d = buf_ok(&cut) && cut.len > 1 ? json_parse(cut.v, cut.len, NULL, &j, &e) : NULL;
    if (d && j->type == JSON_OBJECT) buf_put(out, cut.v, cut.len);
    else buf_puts(out, "{}");
    json_free(d);
    buf_clear(&cut);
}
