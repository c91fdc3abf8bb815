/* calls.c - text, the tags around calls, and the events; see calls.h.  The bodies are read by
 * calls_json.c, calls_xml.c and calls_lines.c.  Owns its buffers.  Refuses nothing. */
#include "engine/text/calls_impl.h"

#include <stdlib.h>
#include <string.h>

static const char OPEN[] = "<tool_call>", CLOSE[] = "</tool_call>", FUNCTION[] = "<function=";

bool call_format_by_name(const char *name, call_format *f)
{
    static const struct {
        const char *name;
        call_format f;
    } list[] = {{"none", CALLS_NONE}, {"hermes", CALLS_HERMES}, {"qwen3_coder", CALLS_XML},
                {"xml", CALLS_XML},   {"react", CALLS_REACT},   {"function", CALLS_FUNCTION}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        if (strcmp(name, list[i].name)) continue;
        *f = list[i].f;
        return true;
    }
    return false;
}

const char *call_opener(call_format f)
{
    return f == CALLS_REACT || f == CALLS_FUNCTION ? calls_lines_opener(f) : OPEN;
}

calls *calls_new(call_format f, const call_tools *tools, call_sink to)
{
    calls *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->format = f;
    c->tools = tools;
    c->to = to;
    c->line_start = true;
    c->at = f == CALLS_REACT || f == CALLS_FUNCTION ? AT_LINES : AT_TEXT;
    return c;
}

void calls_free(calls *c)
{
    if (!c) return;
    buf *all[] = {&c->space, &c->held, &c->out,   &c->tag,  &c->key,
                  &c->args,  &c->name, &c->value, &c->seen, &c->tail.raw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) buf_clear(all[i]);
    free(c);
}

bool calls_busy(const calls *c)
{
    return c->at != AT_TEXT && (c->at != AT_LINES || c->line > LINE_TEXT);
}

bool calls_stopped(const calls *c)
{
    return c->stopped;
}

int calls_whole(const calls *c)
{
    return c->n_whole;
}

bool calls_oom(const calls *c)
{
    const buf *all[] = {&c->space, &c->held, &c->out,   &c->tag,  &c->key,
                        &c->args,  &c->name, &c->value, &c->seen, &c->tail.raw};
    bool oom = c->oom;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) oom |= !buf_ok(all[i]);
    return oom;
}

/* ---- events ---------------------------------------------------------------------------------- */

static void flush_text(calls *c)
{
    if (c->out.len) c->to.text(c->to.ctx, c->out.v, c->out.len);
    buf_reset(&c->out);
}

void calls_text(calls *c, const char *s, size_t n)
{
    if (!c->after) buf_put(&c->out, buf_str(&c->space), c->space.len);
    buf_reset(&c->space);
    c->after = false;
    buf_put(&c->out, s, n);
}

void calls_give_back(calls *c)
{
    if (!c->held.len) return;
    calls_text(c, c->held.v, c->held.len);
    c->line_start = c->held.v[c->held.len - 1] == '\n';
    buf_reset(&c->held);
}

void calls_begin(calls *c, const char *name, size_t n)
{
    flush_text(c);
    buf_reset(&c->space);
    buf_reset(&c->held);
    c->named = true;
    c->to.call(c->to.ctx, SAID_CALL, c->n_calls++, name, n);
}

void calls_args(calls *c, const char *s, size_t n)
{
    if (n) c->to.call(c->to.ctx, SAID_ARGS, c->n_calls - 1, s, n);
}

void calls_finish(calls *c)
{
    c->n_whole++;
    c->to.call(c->to.ctx, SAID_CALL_END, c->n_calls - 1, NULL, 0);
}

void calls_leave(calls *c)
{
    c->named = false;
    c->bare = false;
    c->after = true;
    c->line_start = true;
    buf_reset(&c->space);
    buf_reset(&c->held);
    buf_reset(&c->tag);
    c->at = AT_TEXT;
}

/* ---- tags ------------------------------------------------------------------------------------ */

/* Is s[n] the beginning of tag?  2: all of it. */
static int begins(const char *tag, const char *s, size_t n)
{
    size_t len = strlen(tag);
    if (n > len || memcmp(tag, s, n) != 0) return 0;
    return n == len ? 2 : 1;
}

static void text_byte(calls *c, char b);

/* The held bytes may be the beginning of a call. */
static void held_byte(calls *c, char b)
{
    buf_putc(&c->held, b);
    if (!buf_ok(&c->held)) return;
    int call = begins(OPEN, c->held.v, c->held.len);
    bool may_bare = c->format == CALLS_XML && c->line_start;
    int bare = may_bare ? begins(FUNCTION, c->held.v, c->held.len) : 0;
    if (call == 2) {
        c->at = AT_BODY;
    } else if (bare == 2) {
        c->bare = true;
        c->at = AT_XML;
        calls_xml_start(c);
    } else if (!call && !bare) {
        c->held.len--;
        calls_give_back(c);
        text_byte(c, b);
    }
}

static void text_byte(calls *c, char b)
{
    if (c->held.len || b == '<') {
        held_byte(c, b);
    } else if (call_space(b)) {
        if (b == '\n') c->line_start = true;
        buf_putc(&c->space, b);
    } else {
        c->line_start = false;
        calls_text(c, &b, 1);
    }
}

/* It was no call: its bytes are text, the last one anew. */
static void no_call(calls *c)
{
    char last = c->held.v[--c->held.len];
    c->at = AT_TEXT;
    calls_give_back(c);
    text_byte(c, last);
}

static void body_byte(calls *c, char b)
{
    buf_putc(&c->held, b);
    if (!buf_ok(&c->held)) return;
    if (c->tag.len || b == '<') {
        buf_putc(&c->tag, b);
        int tag = begins(FUNCTION, buf_str(&c->tag), c->tag.len);
        if (tag) {
            if (tag == 1) return;
            buf_reset(&c->tag);
            c->at = AT_XML;
            calls_xml_start(c);
            return;
        }
        /* A second <tool_call> takes the place of the first, which is text. */
        if (begins(OPEN, buf_str(&c->tag), c->tag.len)) {
            size_t n = c->tag.len;
            c->held.len -= n;
            c->at = AT_TEXT;
            calls_give_back(c);
            for (size_t i = 0; i < n; i++) text_byte(c, c->tag.v[i]);
            buf_reset(&c->tag);
            return;
        }
        buf_reset(&c->tag);
        no_call(c);
        return;
    }
    if (call_space(b)) return;
    if (b == '{') {
        c->at = AT_JSON;
        calls_json_start(c);
        return;
    }
    no_call(c);
}

/* Behind a complete body.  A brace too many is swallowed; other text ends the call without its
 * closing tag. */
static void close_byte(calls *c, char b)
{
    if (!c->tag.len && (call_space(b) || b == '}' || b == ']')) return;
    buf_putc(&c->tag, b);
    if (!buf_ok(&c->tag)) return;
    int close = begins(CLOSE, c->tag.v, c->tag.len), next = begins(FUNCTION, c->tag.v, c->tag.len);
    if (close == 2) {
        calls_leave(c);
    } else if (next == 2) {
        buf_reset(&c->held);
        buf_put(&c->held, c->tag.v, c->tag.len);
        buf_reset(&c->tag);
        c->named = false;
        c->at = AT_XML;
        calls_xml_start(c);
    } else if (!close && !next) {
        buf tag = c->tag;
        c->tag = (buf){0};
        calls_leave(c);
        for (size_t i = 0; i < tag.len; i++) text_byte(c, tag.v[i]);
        buf_clear(&tag);
    }
}

void calls_feed(calls *c, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) switch (c->at) {
        case AT_TEXT: text_byte(c, s[i]); break;
        case AT_BODY: body_byte(c, s[i]); break;
        case AT_JSON: calls_json_byte(c, s[i]); break;
        case AT_XML: calls_xml_byte(c, s[i]); break;
        case AT_CLOSE: close_byte(c, s[i]); break;
        case AT_LINES: calls_lines_byte(c, s[i]); break;
        }
    if (c->at == AT_XML) calls_xml_flush(c);
    flush_text(c);
}

void calls_end(calls *c)
{
    if (c->at == AT_LINES) calls_lines_end(c);
    if (c->at == AT_JSON) calls_json_end(c);
    if (c->at == AT_XML) calls_xml_end(c);
    /* Of a closing tag nothing gets out, complete or not. */
    if (c->at == AT_CLOSE && c->tag.len && !begins(CLOSE, c->tag.v, c->tag.len)) {
        c->after = true;
        calls_text(c, c->tag.v, c->tag.len);
    }
    if (!c->named) calls_give_back(c);
    if (!c->after) calls_text(c, "", 0);
    flush_text(c);
}
