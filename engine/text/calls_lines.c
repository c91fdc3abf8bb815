/* calls_lines.c - calls in the labelled lines of older checkpoints (API T2): ReAct of Qwen1, and
 * the marks of Qwen-Agent for Qwen1.5 and 2.  A call is held until its JSON object is complete;
 * what is none is text again.  Labels of thoughts and answers are dropped, their text is the
 * answer.  ReAct's labels are words and count where a line begins; the marks count anywhere. */
#include "engine/text/calls_impl.h"

#include "base/json.h"

#include <string.h>

typedef enum {
    LABEL_CALL,
    LABEL_ARGS,
    LABEL_RESULT, /* what follows is not the model's to say */
    LABEL_REPLY,  /* behind a call the same, else as TEXT */
    LABEL_TEXT
} label_kind;

typedef struct {
    const char *text;
    label_kind kind;
} label;

#define MARK(name) "\xE2\x9C\xBF" name "\xE2\x9C\xBF:"
static const label react[] = {{"Action:", LABEL_CALL},        {"Action Input:", LABEL_ARGS},
                              {"Observation:", LABEL_RESULT}, {"Thought:", LABEL_TEXT},
                              {"Final Answer:", LABEL_TEXT},  {NULL, LABEL_TEXT}};
static const label marks[] = {{MARK("FUNCTION"), LABEL_CALL},
                              {MARK("ARGS"), LABEL_ARGS},
                              {MARK("RESULT"), LABEL_RESULT},
                              {MARK("RETURN"), LABEL_REPLY},
                              {NULL, LABEL_TEXT}};

static const label *labels(call_format f)
{
    return f == CALLS_REACT ? react : marks;
}

const char *calls_lines_opener(call_format f)
{
    return labels(f)[0].text;
}

/* The label that s[n] is (*whole) or begins. */
static const label *find(const calls *c, const char *s, size_t n, bool *whole)
{
    for (const label *l = labels(c->format); l->text; l++) {
        size_t len = strlen(l->text);
        if (n > len || memcmp(l->text, s, n) != 0) continue;
        *whole = n == len;
        return l;
    }
    return NULL;
}

static void line_byte(calls *c, char b);

/* The bytes held for a call are text; the last n anew, as if they began a line. */
static void give_up(calls *c, size_t n)
{
    buf last = {0};
    c->held.len -= n;
    buf_put(&last, c->held.v + c->held.len, n);
    buf_reset(&c->tag);
    calls_give_back(c);
    c->line = LINE_START;
    if (!buf_ok(&last)) c->oom = true;
    for (size_t i = 0; i < last.len; i++) line_byte(c, last.v[i]);
    buf_clear(&last);
}

static void plain_byte(calls *c, char b)
{
    if (c->first_byte && call_space(b) && b != '\n') return;
    c->first_byte = false;
    if (b == '\n') c->line = LINE_START;
    if (call_space(b)) buf_putc(&c->space, b);
    else calls_text(c, &b, 1);
}

static void start_byte(calls *c, char b)
{
    bool whole = false;
    if (!c->tag.len && call_space(b)) {
        if (!c->first_byte) buf_putc(&c->space, b);
        return;
    }
    buf_putc(&c->tag, b);
    if (!buf_ok(&c->tag)) return;
    const label *l = find(c, c->tag.v, c->tag.len, &whole);
    if (l && !whole) return;
    buf tag = c->tag;
    c->tag = (buf){0};
    bool plain = !l || (l->kind == LABEL_ARGS); /* arguments without a call are text */
    if (plain) {
        c->line = LINE_TEXT;
        plain_byte(c, tag.v[0]);
        for (size_t i = 1; i < tag.len; i++) line_byte(c, tag.v[i]);
    } else if (l->kind == LABEL_RESULT || (l->kind == LABEL_REPLY && c->n_calls)) {
        c->stopped = true;
    } else if (l->kind != LABEL_CALL) {
        /* The label goes, and the white space behind it. */
        c->line = LINE_TEXT;
        c->first_byte = true;
    } else {
        buf_put(&c->held, tag.v, tag.len);
        buf_reset(&c->name);
        c->first_byte = false;
        c->line = LINE_NAME;
    }
    buf_clear(&tag);
}

static void text_byte(calls *c, char b)
{
    if (c->format != CALLS_FUNCTION || b != marks[0].text[0]) {
        plain_byte(c, b);
        return;
    }
    c->line = LINE_START;
    start_byte(c, b);
}

static void name_byte(calls *c, char b)
{
    buf_putc(&c->held, b);
    if (b != '\n') {
        if (c->name.len || !call_space(b)) buf_putc(&c->name, b);
        return;
    }
    while (c->name.len && call_space(c->name.v[c->name.len - 1])) c->name.len--;
    if (!c->name.len) {
        give_up(c, 0);
        return;
    }
    c->line = LINE_LABEL;
}

static void label_byte(calls *c, char b)
{
    bool whole = false;
    buf_putc(&c->held, b);
    if (!c->tag.len && call_space(b)) return;
    buf_putc(&c->tag, b);
    if (!buf_ok(&c->held) || !buf_ok(&c->tag)) return;
    /* "Action:" begins as "Action Input:" does: the arguments' label is what counts here. */
    for (const label *l = labels(c->format); l->text; l++) {
        if (l->kind != LABEL_ARGS || strncmp(l->text, c->tag.v, c->tag.len) != 0) continue;
        if (c->tag.len < strlen(l->text)) return;
        whole = true;
    }
    if (!whole) {
        give_up(c, c->tag.len);
        return;
    }
    buf_reset(&c->tag);
    buf_reset(&c->args);
    c->depth = 0;
    c->in_string = c->escape = false;
    c->line = LINE_ARGS;
}

static void emit(calls *c, bool whole)
{
    calls_begin(c, buf_str(&c->name), c->name.len);
    calls_args(c, buf_str(&c->args), c->args.len);
    if (whole) calls_finish(c);
    c->named = false;
    c->after = true;
    c->line = LINE_START;
}

static void args_byte(calls *c, char b)
{
    buf_putc(&c->held, b);
    if (!c->depth && call_space(b)) return;
    if (!c->depth && b != '{') {
        give_up(c, 1);
        return;
    }
    buf_putc(&c->args, b);
    if (c->in_string) {
        if (c->escape) c->escape = false;
        else if (b == '\\') c->escape = true;
        else if (b == '"') c->in_string = false;
        return;
    }
    if (b == '"') c->in_string = true;
    if (b == '{' || b == '[') c->depth++;
    if (b == '}' || b == ']') c->depth--;
    if (c->depth) return;
    const json *j;
    err e = {0};
    json_doc *d = json_parse(buf_str(&c->args), c->args.len, NULL, &j, &e);
    json_free(d);
    if (d) emit(c, true);
    else give_up(c, 0);
}

static void line_byte(calls *c, char b)
{
    switch (c->line) {
    case LINE_START: start_byte(c, b); break;
    case LINE_TEXT: text_byte(c, b); break;
    case LINE_NAME: name_byte(c, b); break;
    case LINE_LABEL: label_byte(c, b); break;
    case LINE_ARGS: args_byte(c, b); break;
    }
}

void calls_lines_byte(calls *c, char b)
{
    if (!c->stopped) line_byte(c, b);
}

void calls_after_label(calls *c)
{
    c->first_byte = true;
}

/* Behind a call: what is held begins the label of its result. */
static bool begins_result(const calls *c)
{
    bool begins = false;
    for (const label *l = labels(c->format); l->text && c->after; l++)
        begins |= (l->kind == LABEL_RESULT || l->kind == LABEL_REPLY) &&
                  !strncmp(l->text, c->tag.v, c->tag.len);
    return begins;
}

void calls_lines_end(calls *c)
{
    if (c->stopped) return;
    if (c->line == LINE_ARGS) emit(c, false);
    if (c->line == LINE_START && c->tag.len && !begins_result(c))
        calls_text(c, c->tag.v, c->tag.len);
    buf_reset(&c->tag);
}
