/* chat_written.c - tools, calls and results as text of the prompt (API T2): the way Qwen2.5 writes
 * them, for templates that know none, and on the operator's wish in the labelled lines of older
 * checkpoints (ReAct, the marks of Qwen-Agent), which calls_lines.c reads.
 * Thread: the one that renders the request. */
#include "engine/text/chat_parts.h"

#include <string.h>

#define FLOWER "\xE2\x9C\xBF"

/* One way to write. */
typedef struct {
    void (*section)(const json *tools, buf *b); /* what the model is told */
    void (*call)(const json *function, buf *b); /* {name, arguments} */
    const char *result, *result_end;            /* around a result */
} written;

/* ---- Qwen2.5's tags -------------------------------------------------------------------------- */

static void hermes_section(const json *tools, buf *b)
{
    buf_puts(b,
             "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
             "You are provided with function signatures within <tools></tools> XML tags:\n<tools>");
    for (const json *t = tools->child; t; t = t->next) {
        buf_putc(b, '\n');
        json_dump(t, b);
    }
    buf_puts(b, "\n</tools>\n\nFor each function call, return a json object with function name "
                "and arguments "
                "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
                "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>");
}

static void hermes_call(const json *f, buf *b)
{
    buf_puts(b, "<tool_call>\n{\"name\": ");
    json_dump(json_get(f, "name"), b);
    buf_puts(b, ", \"arguments\": ");
    json_dump(json_get(f, "arguments"), b);
    buf_puts(b, "}\n</tool_call>");
}

/* ---- labelled lines -------------------------------------------------------------------------- */

static void put_str(const json *s, buf *b)
{
    if (json_is(s, JSON_STRING)) buf_put(b, s->str, s->len);
}

/* "NAME: what it does. Input: SCHEMA" a line, then how to write, with the names where %s stands. */
static void lines_section(const json *tools, const char *form, buf *b)
{
    buf names = {0};
    buf_puts(b, "You can use these tools. Each takes one JSON object as its input:\n\n");
    for (const json *t = tools->child; t; t = t->next) {
        const json *f = json_get(t, "function"), *schema = member(f, "parameters");
        put_str(json_get(f, "name"), b);
        buf_puts(b, ": ");
        put_str(member(f, "description"), b);
        buf_puts(b, " Input: ");
        if (schema) json_dump(schema, b);
        else buf_puts(b, "{}");
        buf_putc(b, '\n');
        if (names.len) buf_puts(&names, ", ");
        put_str(json_get(f, "name"), &names);
    }
    const char *at = strstr(form, "%s");
    buf_puts(b, "\nWrite in this form, a label at the start of each line:\n\n");
    buf_put(b, form, (size_t)(at - form));
    buf_put(b, buf_str(&names), names.len);
    buf_puts(b, at + 2);
    if (!buf_ok(&names)) b->oom = true;
    buf_clear(&names);
}

static void lines_call(const json *f, const char *name, const char *args, buf *b)
{
    buf_puts(b, name);
    put_str(json_get(f, "name"), b);
    buf_puts(b, args);
    json_dump(json_get(f, "arguments"), b);
}

static void react_section(const json *tools, buf *b)
{
    lines_section(tools,
                  "Thought: what has to be done next\n"
                  "Action: the tool to use, one of [%s]\n"
                  "Action Input: its input\n"
                  "Observation: its result, which you will be told\n"
                  "... (as often as needed)\n"
                  "Thought: the answer is known\n"
                  "Final Answer: the answer",
                  b);
}

static void react_call(const json *f, buf *b)
{
    lines_call(f, "Action: ", "\nAction Input: ", b);
}

static void marks_section(const json *tools, buf *b)
{
    lines_section(tools,
                  FLOWER "FUNCTION" FLOWER ": the tool to use, one of [%s]\n" FLOWER "ARGS" FLOWER
                         ": its input\n" FLOWER "RESULT" FLOWER
                         ": its result, which you will be told\n" FLOWER "RETURN" FLOWER
                         ": the answer made of the results",
                  b);
}

static void marks_call(const json *f, buf *b)
{
    lines_call(f, FLOWER "FUNCTION" FLOWER ": ", "\n" FLOWER "ARGS" FLOWER ": ", b);
}

static const written tags = {hermes_section, hermes_call, "<tool_response>\n",
                             "\n</tool_response>"},
                     react = {react_section, react_call, "Observation: ", ""},
                     marks = {marks_section, marks_call, FLOWER "RESULT" FLOWER ": ", ""};

static const written *form_of(const chat_format *f)
{
    return !f->calls_set                   ? &tags
           : f->calls_as == CALLS_REACT    ? &react
           : f->calls_as == CALLS_FUNCTION ? &marks
                                           : &tags;
}

/* ---- into the conversation ------------------------------------------------------------------- */

static json *tools_section(talk *k)
{
    buf b = {0};
    form_of(k->f)->section(k->tools, &b);
    return node_take(k, &b);
}

/* The section behind the system text; without one, behind the text the template would put in. */
static int add_section(talk *k)
{
    chat_msg pair[2] = {{.role = ROLE_SYSTEM}, {.role = ROLE_SYSTEM, .content = tools_section(k)}};
    const char *own = k->f->default_system;
    if (!pair[1].content) return talk_nomem(k);
    if (k->n_msg && k->msg[0].role == ROLE_SYSTEM) {
        pair[0] = k->msg[0];
        k->msg[0].content = join_contents(k, pair, 2, "\n\n");
        return k->msg[0].content ? 0 : talk_nomem(k);
    }
    chat_msg *all = arena_alloc(&k->mem, (k->n_msg + 1) * sizeof *all);
    if (!all) return talk_nomem(k);
    if (k->n_msg) memcpy(all + 1, k->msg, k->n_msg * sizeof *all);
    all[0] = pair[1];
    if (own) {
        pair[0].content = node_str(k, own, strlen(own));
        all[0].content = pair[0].content ? join_contents(k, pair, 2, "\n\n") : NULL;
    }
    k->msg = all;
    k->n_msg++;
    return all[0].content ? 0 : talk_nomem(k);
}

static void put_text(buf *b, const json *content)
{
    if (content->type == JSON_STRING) {
        buf_put(b, content->str, content->len);
        return;
    }
    for (const json *p = content->child; p; p = p->next) {
        const json *text = json_get(p, "text");
        if (text) buf_put(b, text->str, text->len);
    }
}

/* Calls of an assistant turn as text behind its content. */
static int write_calls(talk *k, chat_msg *m)
{
    buf b = {0};
    put_text(&b, m->content);
    for (const json *c = m->calls->child; c; c = c->next) {
        if (b.len) buf_putc(&b, '\n');
        form_of(k->f)->call(json_get(c, "function"), &b);
    }
    m->content = node_take(k, &b);
    m->calls = NULL;
    return m->content ? 0 : talk_nomem(k);
}

/* Results msg[from, to) as one user turn. */
static int write_results(talk *k, size_t from, size_t to, chat_msg *out)
{
    buf b = {0};
    for (size_t i = from; i < to; i++) {
        if (i > from) buf_putc(&b, '\n');
        buf_puts(&b, form_of(k->f)->result);
        put_text(&b, k->msg[i].content);
        buf_puts(&b, form_of(k->f)->result_end);
    }
    *out = (chat_msg){.role = ROLE_USER, .content = node_take(k, &b)};
    return out->content ? 0 : talk_nomem(k);
}

static int write_history(talk *k)
{
    size_t n = 0;
    for (size_t i = 0, to; i < k->n_msg; i = to) {
        chat_msg m = k->msg[i];
        int code = 0;
        to = i + 1;
        if (m.role == ROLE_TOOL) {
            while (to < k->n_msg && k->msg[to].role == ROLE_TOOL) to++;
            code = write_results(k, i, to, &m);
        } else if (m.calls) {
            code = write_calls(k, &m);
        }
        if (code) return code;
        k->msg[n++] = m;
    }
    k->n_msg = n;
    return 0;
}

int talk_write_tools(talk *k)
{
    bool lines = form_of(k->f) != &tags, mute = k->f->calls_set && k->f->calls_as == CALLS_NONE;
    if (!lines && k->f->traits.tools) return 0;
    int code = k->tools && !mute ? add_section(k) : 0;
    if (!code && (lines || k->tools || !k->f->calls)) code = write_history(k);
    if (!code) k->tools = NULL; /* they are in the text now */
    return code;
}
