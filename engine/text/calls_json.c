/* calls_json.c - the JSON body of a Hermes call: {"name": ..., "arguments": {...}}, members in any
 * order, read as it comes.  An arguments object goes out verbatim; a string that holds an object is
 * unwrapped once; null or nothing is {}.  Refuses: a body without a string name (it is text). */
#include "engine/text/calls_impl.h"

#include "base/json.h"

#include <string.h>

static const char OPEN[] = "<tool_call>", CLOSE[] = "</tool_call>";

void calls_json_start(calls *c)
{
    c->js = JSON_AT_KEY;
    c->in_string = c->escape = c->args_string = c->args_null = c->has_args = false;
    c->named = false;
    c->depth = 0;
    buf_reset(&c->tag);
    buf_reset(&c->key);
    buf_reset(&c->args);
}

/* A complete JSON string as written, quotes included, decoded; false if it is none. */
static bool decode(const buf *raw, buf *out)
{
    const json *j;
    err e = {0};
    json_doc *d = json_parse(buf_str(raw), raw->len, NULL, &j, &e);
    bool ok = d && j->type == JSON_STRING;
    if (ok) buf_put(out, j->str, j->len);
    json_free(d);
    return ok;
}

static bool is_object(const buf *text)
{
    const json *j;
    err e = {0};
    json_doc *d = json_parse(buf_str(text), text->len, NULL, &j, &e);
    bool ok = d && j->type == JSON_OBJECT;
    json_free(d);
    return ok;
}

/* Arguments that were held come out now. */
static void give_args(calls *c)
{
    buf text = {0};
    if (c->args_string && decode(&c->args, &text) && is_object(&text))
        calls_args(c, text.v, text.len);
    else if (!c->args_null) calls_args(c, buf_str(&c->args), c->args.len);
    if (!buf_ok(&text)) c->oom = true;
    buf_clear(&text);
    buf_reset(&c->args);
}

static void name_complete(calls *c)
{
    buf name = {0};
    if (decode(&c->key, &name) && name.len) {
        calls_begin(c, name.v, name.len);
        if (c->has_args) give_args(c);
    }
    if (!buf_ok(&name)) c->oom = true;
    buf_clear(&name);
    buf_reset(&c->key);
}

/* No call after all: what was read is text, its last n bytes (at most a tag's) anew. */
static void give_up(calls *c, size_t n)
{
    char last[sizeof CLOSE];
    c->held.len -= n;
    memcpy(last, c->held.v + c->held.len, n);
    buf_reset(&c->tag);
    c->at = AT_TEXT;
    calls_give_back(c);
    calls_feed(c, last, n);
}

static void body_complete(calls *c)
{
    if (!c->named) {
        c->at = AT_TEXT;
        calls_give_back(c);
        return;
    }
    if (!c->has_args || c->args_null) calls_args(c, "{}", 2);
    calls_finish(c);
    buf_reset(&c->tag);
    c->at = AT_CLOSE;
}

/* </tool_call> came before the JSON was complete: the call ends as it is. */
static void cut_by_tag(calls *c)
{
    if (!c->named) {
        c->at = AT_TEXT;
        calls_give_back(c);
        return;
    }
    if (c->js == JSON_IN_ARGS && c->args.len) give_args(c);
    if (!c->has_args) calls_args(c, "{}", 2);
    calls_finish(c);
    calls_leave(c);
}

static void broken(calls *c)
{
    if (!c->named) give_up(c, 1);
    else c->js = JSON_BROKEN;
}

/* One more byte of the arguments' value. */
static void args_put(calls *c, const char *s, size_t n)
{
    if (c->named && !c->args_string && !c->args_null) calls_args(c, s, n);
    else buf_put(&c->args, s, n);
}

static void value_start(calls *c, char b)
{
    const char *key = buf_str(&c->key);
    bool args = !strcmp(key, "\"arguments\"") || !strcmp(key, "\"parameters\"");
    bool name = !strcmp(key, "\"name\"") && b == '"' && !c->named;
    buf_reset(&c->key);
    c->in_string = b == '"';
    c->depth = b == '{' || b == '[';
    c->escape = false;
    if (name) {
        buf_putc(&c->key, b);
        c->js = JSON_IN_NAME;
    } else if (args && !c->has_args) {
        c->has_args = true;
        c->args_string = b == '"';
        c->args_null = b == 'n';
        args_put(c, &b, 1);
        c->js = JSON_IN_ARGS;
    } else {
        c->js = JSON_IN_OTHER;
    }
}

/* Moves over one byte of a value; true if the value ended before it (a bare word) or with it. */
static bool value_byte(calls *c, char b, bool *before)
{
    *before = false;
    if (c->in_string) {
        if (c->escape) c->escape = false;
        else if (b == '\\') c->escape = true;
        else if (b == '"') c->in_string = false;
        return !c->in_string && c->depth == 0;
    }
    if (c->depth == 0) return *before = b == ',' || b == '}' || call_space(b);
    if (b == '"') c->in_string = true;
    if (b == '{' || b == '[') c->depth++;
    if (b == '}' || b == ']') c->depth--;
    return c->depth == 0;
}

static void value_end(calls *c)
{
    if (c->js == JSON_IN_NAME) name_complete(c);
    else if (c->js == JSON_IN_ARGS && c->named) give_args(c);
    c->js = JSON_AT_NEXT;
}

static void structure_byte(calls *c, char b);

static void in_value(calls *c, char b)
{
    bool before, end = value_byte(c, b, &before);
    if (!before) {
        if (c->js == JSON_IN_NAME) buf_putc(&c->key, b);
        if (c->js == JSON_IN_ARGS) args_put(c, &b, 1);
    }
    if (!end) return;
    value_end(c);
    if (before) structure_byte(c, b);
}

/* Between values. */
static void structure_byte(calls *c, char b)
{
    if (call_space(b)) return;
    switch (c->js) {
    case JSON_AT_KEY:
        if (b == '}') {
            body_complete(c);
        } else if (b == '"') {
            buf_putc(&c->key, b);
            c->js = JSON_IN_KEY;
        } else {
            broken(c);
        }
        return;
    case JSON_AT_COLON:
        if (b == ':') c->js = JSON_AT_VALUE;
        else broken(c);
        return;
    case JSON_AT_VALUE:
        if (b == '}' || b == ']' || b == ',' || b == ':') broken(c);
        else value_start(c, b);
        return;
    case JSON_AT_NEXT:
        if (b == ',') c->js = JSON_AT_KEY;
        else if (b == '}') body_complete(c);
        else broken(c);
        return;
    default: return;
    }
}

static void json_byte(calls *c, char b)
{
    switch (c->js) {
    case JSON_IN_KEY:
        buf_putc(&c->key, b);
        if (c->escape) c->escape = false;
        else if (b == '\\') c->escape = true;
        else if (b == '"') c->js = JSON_AT_COLON;
        return;
    case JSON_IN_NAME:
    case JSON_IN_ARGS:
    case JSON_IN_OTHER: in_value(c, b); return;
    case JSON_BROKEN: return;
    default: structure_byte(c, b); return;
    }
}

/* Outside strings < can only begin </tool_call>; if it does not, its bytes are what they are.  In a
 * body that is no JSON any more the next call may begin as well. */
static void tag_byte(calls *c, char b)
{
    buf_putc(&c->tag, b);
    if (!buf_ok(&c->tag)) return;
    if (!strncmp(CLOSE, c->tag.v, c->tag.len)) {
        if (c->tag.len < sizeof CLOSE - 1) return;
        buf_reset(&c->tag);
        cut_by_tag(c);
        return;
    }
    if (c->js == JSON_BROKEN && !strncmp(OPEN, c->tag.v, c->tag.len)) {
        if (c->tag.len < sizeof OPEN - 1) return;
        calls_leave(c);
        calls_feed(c, OPEN, sizeof OPEN - 1);
        return;
    }
    if (!c->named) {
        give_up(c, c->tag.len);
        return;
    }
    buf tag = c->tag;
    c->tag = (buf){0};
    for (size_t i = 0; i < tag.len && c->at == AT_JSON; i++) {
        bool again = i > 0 && tag.v[i] == '<' && !c->in_string;
        if (again) tag_byte(c, tag.v[i]);
        else json_byte(c, tag.v[i]);
    }
    buf_clear(&tag);
}

void calls_json_byte(calls *c, char b)
{
    bool string = c->in_string || c->js == JSON_IN_KEY;
    if (!c->named) buf_putc(&c->held, b);
    if (!buf_ok(&c->held)) return;
    if (!string && (c->tag.len || b == '<')) tag_byte(c, b);
    else json_byte(c, b);
}

void calls_json_end(calls *c)
{
    if (!c->named) return;
    if (c->tag.len && c->js == JSON_IN_ARGS) args_put(c, c->tag.v, c->tag.len);
    /* What was held of a string stays as it is: it may be no whole JSON. */
    if (c->js == JSON_IN_ARGS && !c->args_null) calls_args(c, buf_str(&c->args), c->args.len);
}
