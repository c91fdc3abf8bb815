/* chat_written.c - tools, calls and results as text of the prompt (API T2): the way Qwen2.5 writes
 * them, for templates that know none; chat_lines.c has the labelled lines of older checkpoints.
 * Thread: the one that renders the request. */
#include "engine/text/chat_parts.h"

#include <string.h>

/* ---- Qwen2.5's tags -------------------------------------------------------------------------- */

static void tags_section(const json *tools, buf *b)
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

static void tags_call(const json *f, buf *b)
{
    buf_puts(b, "<tool_call>\n{\"name\": ");
    json_dump(json_get(f, "name"), b);
    buf_puts(b, ", \"arguments\": ");
    json_dump(json_get(f, "arguments"), b);
    buf_puts(b, "}\n</tool_call>");
}

/* ---- into the conversation ------------------------------------------------------------------- */

/* The section behind the system text; without one, behind the text the template would put in. */
int talk_add_section(talk *k, json *section)
{
    chat_msg pair[2] = {{.role = ROLE_SYSTEM}, {.role = ROLE_SYSTEM, .content = section}};
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

void put_content(buf *b, const json *content)
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
    put_content(&b, m->content);
    for (const json *c = m->calls->child; c; c = c->next) {
        if (b.len) buf_putc(&b, '\n');
        tags_call(json_get(c, "function"), &b);
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
        buf_puts(&b, i > from ? "\n<tool_response>\n" : "<tool_response>\n");
        put_content(&b, k->msg[i].content);
        buf_puts(&b, "\n</tool_response>");
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
    bool mute = k->f->calls_set && k->f->calls_as == CALLS_NONE;
    int code = 0;
    if (k->f->calls_set && (k->f->calls_as == CALLS_REACT || k->f->calls_as == CALLS_FUNCTION))
        return talk_write_lines(k);
    if (k->f->traits.tools) return 0;
    if (k->tools && !mute) {
        buf b = {0};
        tags_section(k->tools, &b);
        code = talk_add_section(k, node_take(k, &b));
    }
    if (!code && (k->tools || !k->f->calls)) code = write_history(k);
    if (!code) k->tools = NULL; /* they are in the text now */
    return code;
}
