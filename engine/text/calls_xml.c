/* calls_xml.c - the body of an XML call: <function=NAME>, <parameter=KEY>, values as text, typed by
 * the tool's schema into one JSON object (API T8).  Strings stream; other values go out when they
 * are complete.  Refuses: a name that is none (the body is text). */
#include "engine/text/calls_impl.h"

#include "base/json.h"

#include <string.h>
#include <strings.h>

enum { NAME_MAX_BYTES = 256 };

static const char PARAM[] = "<parameter=", PARAM_END[] = "</parameter>",
                  FUNCTION_END[] = "</function>", CALL_END[] = "</tool_call>";

void calls_xml_start(calls *c)
{
    c->xs = XML_IN_NAME;
    c->named = c->any_param = false;
    buf_reset(&c->name);
    buf_reset(&c->seen);
    buf_reset(&c->tag);
}

/* ---- values ---------------------------------------------------------------------------------- */

/* s[n] as the inside of a JSON string. */
static void args_escaped(calls *c, const char *s, size_t n)
{
    buf q = {0};
    buf_put_json(&q, s, n);
    if (buf_ok(&q)) calls_args(c, q.v + 1, q.len - 2);
    else c->oom = true;
    buf_clear(&q);
}

static void put_key(calls *c)
{
    buf k = {0};
    buf_puts(&k, c->any_param ? ", " : "{");
    buf_put_json(&k, buf_str(&c->name), c->name.len);
    buf_puts(&k, ": ");
    if (buf_ok(&k)) calls_args(c, k.v, k.len);
    else c->oom = true;
    buf_clear(&k);
    c->any_param = true;
}

static bool seen_before(calls *c)
{
    const char *s = buf_str(&c->seen), *end = s + c->seen.len;
    for (; s < end; s += strlen(s) + 1)
        if (!strcmp(s, buf_str(&c->name))) return true;
    buf_put(&c->seen, buf_str(&c->name), c->name.len + 1);
    return false;
}

static void value_begin(calls *c)
{
    c->xs = XML_IN_VALUE;
    c->types = call_tools_types(c->tools, c->tool, buf_str(&c->name), c->name.len);
    c->skip = seen_before(c);
    c->first_byte = true;
    c->streaming = false;
    c->tail.phase = 0;
    c->tail.n = 0;
    buf_reset(&c->tail.raw);
    buf_reset(&c->value);
    if (!c->skip) put_key(c);
}

/* A string whose text so far cannot become the literal null goes out as it comes. */
static bool may_be_null(const calls *c)
{
    return !c->streaming && (c->types & MAY_NULL) && c->value.len <= 4 &&
           !strncmp("null", buf_str(&c->value), c->value.len);
}

static void stream_value(calls *c)
{
    if (c->skip || !(c->types & MAY_STRING) || may_be_null(c)) return;
    if (!c->streaming) calls_args(c, "\"", 1);
    c->streaming = true;
    args_escaped(c, buf_str(&c->value), c->value.len);
    buf_reset(&c->value);
}

/* A whole number, however many digits it has. */
static bool is_whole(const json *j)
{
    int64_t small;
    return json_int(j, &small) || !strpbrk(j->str, ".eE");
}

static bool parses_as(const char *s, size_t n, int types)
{
    const json *j;
    err e = {0};
    json_doc *d = json_parse(s, n, NULL, &j, &e);
    if (!d) return false;
    bool ok = false;
    if (j->type == JSON_NUMBER) ok = (types & MAY_NUMBER) || ((types & MAY_INTEGER) && is_whole(j));
    if (j->type == JSON_OBJECT) ok = types & MAY_OBJECT;
    if (j->type == JSON_ARRAY) ok = types & MAY_ARRAY;
    json_free(d);
    return ok;
}

/* A value that may not be a string: what the text is, if it is something allowed. */
static void put_typed(calls *c)
{
    const char *s = buf_str(&c->value);
    size_t n = c->value.len;
    while (n && call_space(*s)) s++, n--;
    while (n && call_space(s[n - 1])) n--;
    if (n == 4 && (c->types & MAY_NULL) && !memcmp(s, "null", 4)) calls_args(c, s, n);
    else if (n == 4 && (c->types & MAY_BOOL) && !strncasecmp(s, "true", 4))
        calls_args(c, "true", 4);
    else if (n == 5 && (c->types & MAY_BOOL) && !strncasecmp(s, "false", 5))
        calls_args(c, "false", 5);
    else if (parses_as(s, n, c->types)) calls_args(c, s, n);
    else {
        calls_args(c, "\"", 1);
        args_escaped(c, buf_str(&c->value), c->value.len);
        calls_args(c, "\"", 1);
    }
}

static void value_end(calls *c)
{
    c->xs = XML_BETWEEN;
    if (c->skip) return;
    bool null = !c->streaming && (c->types & MAY_NULL) && c->value.len == 4 &&
                !memcmp(c->value.v, "null", 4);
    if (!(c->types & MAY_STRING)) {
        put_typed(c);
    } else if (null) {
        calls_args(c, "null", 4);
    } else {
        if (!c->streaming) calls_args(c, "\"", 1);
        args_escaped(c, buf_str(&c->value), c->value.len);
        calls_args(c, "\"", 1);
    }
    buf_reset(&c->value);
}

void calls_xml_flush(calls *c)
{
    if (c->xs == XML_IN_VALUE && c->value.len) stream_value(c);
}

static void function_end(calls *c)
{
    calls_args(c, c->any_param ? "}" : "{}", c->any_param ? 1 : 2);
    calls_finish(c);
    bool bare = c->bare;
    buf_reset(&c->tag);
    c->at = AT_CLOSE;
    if (bare) calls_leave(c);
}

/* ---- where a value ends ---------------------------------------------------------------------- */

static void value_text(calls *c, char b)
{
    buf_putc(&c->value, b);
}

/* [\n]</parameter>, white space, then <parameter= or </function>: only all of it ends a value. */
static bool tail_takes(calls *c, char b)
{
    const char *s = buf_str(&c->tail.raw);
    size_t n = c->tail.n;
    switch (c->tail.phase) {
    case 0:
        if (n == 0 && b == '\n' && c->tail.raw.len == 0) return true;
        if (b != PARAM_END[n]) return false;
        if (++c->tail.n < sizeof PARAM_END - 1) return true;
        c->tail.phase = 1;
        return true;
    case 1:
        if (call_space(b)) return true;
        if (b != '<') return false;
        c->tail.phase = 2;
        c->tail.n = 1;
        return true;
    default:
        s += c->tail.raw.len - n; /* the tag's bytes before b */
        if ((n < sizeof PARAM - 1 && !memcmp(s, PARAM, n) && b == PARAM[n]) ||
            (n < sizeof FUNCTION_END - 1 && !memcmp(s, FUNCTION_END, n) && b == FUNCTION_END[n])) {
            c->tail.n++;
            return true;
        }
        return false;
    }
}

static void tail_reset(calls *c)
{
    c->tail.phase = 0;
    c->tail.n = 0;
    buf_reset(&c->tail.raw);
}

static void in_value(calls *c, char b);

/* The held bytes are part of the value after all: the first for sure, the others anew. */
static void tail_wrong(calls *c, char b)
{
    buf raw = c->tail.raw;
    c->tail.raw = (buf){0};
    tail_reset(c);
    if (raw.len == 0) {
        value_text(c, b);
    } else {
        value_text(c, raw.v[0]);
        for (size_t i = 1; i < raw.len; i++) in_value(c, raw.v[i]);
        in_value(c, b);
    }
    buf_clear(&raw);
}

static void in_value(calls *c, char b)
{
    bool first = c->first_byte;
    c->first_byte = false;
    if (first && b == '\n') return; /* not the one before </parameter> */
    if (!tail_takes(c, b)) {
        tail_wrong(c, b);
        return;
    }
    buf_putc(&c->tail.raw, b);
    if (c->tail.phase < 2) return;
    const char *tag = buf_str(&c->tail.raw) + c->tail.raw.len - c->tail.n;
    bool next = c->tail.n == sizeof PARAM - 1 && !memcmp(tag, PARAM, sizeof PARAM - 1);
    bool last = c->tail.n == sizeof FUNCTION_END - 1 && !next;
    if (!next && !last) return;
    tail_reset(c);
    value_end(c);
    if (last) {
        function_end(c);
        return;
    }
    buf_reset(&c->name);
    c->xs = XML_IN_KEY;
}

/* ---- the rest -------------------------------------------------------------------------------- */

/* Not the beginning of a call: what was read is text, its last byte anew. */
static void give_up(calls *c)
{
    char last = c->held.v[--c->held.len];
    c->at = AT_TEXT;
    c->bare = false;
    calls_give_back(c);
    calls_feed(c, &last, 1);
}

static void in_name(calls *c, char b)
{
    buf_putc(&c->held, b);
    if (!buf_ok(&c->held)) return;
    bool name = b != '>' && b != '<' && (unsigned char)b > ' ';
    if (name && c->name.len < NAME_MAX_BYTES) {
        buf_putc(&c->name, b);
        return;
    }
    c->tool = call_tools_find(c->tools, buf_str(&c->name), c->name.len);
    if (b != '>' || !c->name.len || (c->bare && c->tool < 0)) {
        give_up(c);
        return;
    }
    calls_begin(c, c->name.v, c->name.len);
    c->xs = XML_BETWEEN;
}

/* White space and what the model should not have written are dropped; the name is out already. */
static void between(calls *c, char b)
{
    if (!c->tag.len && b != '<') return;
    buf_putc(&c->tag, b);
    if (!buf_ok(&c->tag)) return;
    const char *s = c->tag.v;
    size_t n = c->tag.len;
    bool some = false;
    static const char *const tag[3] = {PARAM, FUNCTION_END, CALL_END};
    for (int i = 0; i < 3; i++) {
        if (strncmp(tag[i], s, n) != 0) continue;
        some = true;
        if (n < strlen(tag[i])) continue;
        buf_reset(&c->tag);
        if (i == 0) {
            buf_reset(&c->name);
            c->xs = XML_IN_KEY;
        } else {
            function_end(c);
            if (i == 2) calls_leave(c);
        }
        return;
    }
    if (!some) {
        buf_reset(&c->tag);
        if (n > 1 && b == '<') buf_putc(&c->tag, b);
    }
}

static void in_key(calls *c, char b)
{
    if (b == '>') value_begin(c);
    else if (b && c->name.len < NAME_MAX_BYTES) buf_putc(&c->name, b);
}

void calls_xml_byte(calls *c, char b)
{
    switch (c->xs) {
    case XML_IN_NAME: in_name(c, b); break;
    case XML_BETWEEN: between(c, b); break;
    case XML_IN_KEY: in_key(c, b); break;
    case XML_IN_VALUE: in_value(c, b); break;
    }
}

void calls_xml_end(calls *c)
{
    if (c->xs != XML_IN_VALUE) return;
    /* </parameter> ends a value at the end of all, too. */
    if (c->tail.phase >= 1) {
        value_end(c);
        return;
    }
    for (size_t i = 0; i < c->tail.raw.len; i++) value_text(c, c->tail.raw.v[i]);
    calls_xml_flush(c);
}
