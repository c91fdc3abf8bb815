/* chat_tools.c - tools on their way into a prompt: checked and shaped (API T1, T10), and, for
 * templates that know none, written out the way Qwen2.5 writes them (T2).
 * Refuses with the path of the field.  Thread: the one that renders the request. */
#include "engine/text/chat_parts.h"

#include "base/map.h"

#include <stdio.h>
#include <string.h>

enum { MAX_TOOLS = 512, MAX_NAME = 256 };

/* ---- checking -------------------------------------------------------------------------------- */

static bool good_name(const json *name)
{
    if (!name->len || name->len > MAX_NAME) return false;
    for (size_t i = 0; i < name->len; i++) {
        unsigned char ch = (unsigned char)name->str[i];
        if (ch <= 0x20 || ch == 0x7F || strchr("\"'`\\<>=", ch)) return false;
    }
    return true;
}

/* A custom tool as a function with one string (T10).  A grammar is told, not enforced. */
static json *custom_tool(talk *k, const json *c, size_t i)
{
    const json *about = member(c, "description"), *format = member(c, "format");
    const json *grammar = member(format, "grammar"),
               *text = member(grammar ? grammar : format, "definition");
    buf d = {0};
    if (json_is(about, JSON_STRING)) buf_put(&d, about->str, about->len);
    if (json_is(text, JSON_STRING)) {
        if (d.len) buf_puts(&d, "\n\n");
        buf_puts(&d, "The input must match this grammar:\n");
        buf_put(&d, text->str, text->len);
        if (k->ignored->len) buf_putc(k->ignored, ',');
        buf_printf(k->ignored, "tools[%zu].format", i);
    }
    json *tool = node_list(k, JSON_OBJECT), *f = node_list(k, JSON_OBJECT),
         *p = node_list(k, JSON_OBJECT);
    json *props = node_list(k, JSON_OBJECT), *input = node_list(k, JSON_OBJECT),
         *need = node_list(k, JSON_ARRAY);
    bool told = d.len > 0;
    json *words = node_take(k, &d);
    bool ok = node_add(f, "name", node_copy(k, member(c, "name"))) &&
              (!told || node_add(f, "description", words)) &&
              node_add(p, "type", node_str(k, "object", 6)) &&
              node_add(input, "type", node_str(k, "string", 6)) &&
              node_add(props, "input", input) && node_add(p, "properties", props) &&
              node_add(need, NULL, node_str(k, "input", 5)) && node_add(p, "required", need) &&
              node_add(f, "parameters", p) && node_add(tool, "type", node_str(k, "function", 8)) &&
              node_add(tool, "function", f);
    return ok ? tool : NULL;
}

static int read_tool(talk *k, const json *t, size_t i, map *seen, json **out)
{
    char path[FIELD_PATH], at[FIELD_PATH];
    field_path(path, "tools[%zu]", i);
    if (t->type != JSON_OBJECT)
        return talk_bad(k, "invalid_type", path, "'%s' must be an object, got %s", path,
                        json_type_name(t));
    const json *type = member(t, "type");
    bool custom = json_is(type, JSON_STRING) && !strcmp(type->str, "custom");
    field_path(at, "%s.type", path);
    if (!type) return talk_bad(k, "missing_required_parameter", at, "'%s' is required", at);
    if (!custom && (type->type != JSON_STRING || strcmp(type->str, "function")))
        return talk_bad(k, "invalid_value", at, "'%s' must be 'function' or 'custom'", at);
    const json *f = member(t, type->str), *name = member(f, "name");
    field_path(at, "%s.%s", path, type->str);
    if (!f) return talk_bad(k, "missing_required_parameter", at, "'%s' is required", at);
    if (f->type != JSON_OBJECT)
        return talk_bad(k, "invalid_type", at, "'%s' must be an object, got %s", at,
                        json_type_name(f));
    field_path(at, "%s.%s.name", path, type->str);
    if (!name) return talk_bad(k, "missing_required_parameter", at, "'%s' is required", at);
    if (name->type != JSON_STRING)
        return talk_bad(k, "invalid_type", at, "'%s' must be a string, got %s", at,
                        json_type_name(name));
    if (!good_name(name))
        return talk_bad(
            k, "invalid_value", at,
            "'%s' must have 1 to %d bytes and no white space, quotes or any of \\ < > =", at,
            MAX_NAME);
    int code = map_add(seen, name->str, name->len, i);
    if (code == ERR_NOMEM) return talk_nomem(k);
    if (code)
        return talk_bad(k, "invalid_value", at, "'%s': two tools are called '%.64s'", at,
                        name->str);
    const json *schema = member(f, "parameters");
    field_path(at, "%s.%s.parameters", path, type->str);
    if (!custom && schema && schema->type != JSON_OBJECT)
        return talk_bad(k, "invalid_type", at, "'%s' must be an object, got %s", at,
                        json_type_name(schema));
    *out = custom ? custom_tool(k, f, i) : node_copy(k, t);
    return *out ? 0 : talk_nomem(k);
}

int talk_tools(talk *k)
{
    const json *all = k->in->tools;
    if (!all || all->type == JSON_NULL) return 0;
    if (all->type != JSON_ARRAY)
        return talk_bad(k, "invalid_type", "tools", "'tools' must be a list, got %s",
                        json_type_name(all));
    if (!all->len) return 0;
    if (all->len > MAX_TOOLS)
        return talk_bad(k, "invalid_value", "tools", "'tools' must hold at most %d tools, got %zu",
                        MAX_TOOLS, all->len);
    json *list = node_list(k, JSON_ARRAY);
    map seen = {0};
    size_t i = 0;
    int code = list ? 0 : talk_nomem(k);
    for (const json *t = all->child; t && !code; t = t->next, i++) {
        json *shaped;
        code = read_tool(k, t, i, &seen, &shaped);
        if (!code) node_add(list, NULL, shaped);
    }
    map_clear(&seen);
    if (!code) k->tools = list;
    return code;
}

/* ---- writing tools out ----------------------------------------------------------------------- */

static json *tools_section(talk *k)
{
    buf b = {0};
    buf_puts(&b,
             "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
             "You are provided with function signatures within <tools></tools> XML tags:\n<tools>");
    for (const json *t = k->tools->child; t; t = t->next) {
        buf_putc(&b, '\n');
        json_dump(t, &b);
    }
    buf_puts(&b, "\n</tools>\n\nFor each function call, return a json object with function name "
                 "and arguments "
                 "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
                 "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>");
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
        const json *f = json_get(c, "function"), *name = json_get(f, "name");
        if (b.len) buf_putc(&b, '\n');
        buf_puts(&b, "<tool_call>\n{\"name\": ");
        json_dump(name, &b);
        buf_puts(&b, ", \"arguments\": ");
        json_dump(json_get(f, "arguments"), &b);
        buf_puts(&b, "}\n</tool_call>");
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
        buf_puts(&b, "<tool_response>\n");
        put_text(&b, k->msg[i].content);
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

int talk_hermes(talk *k)
{
    if (k->f->traits.tools) return 0;
    int code = k->tools ? add_section(k) : 0;
    if (!code && (k->tools || !k->f->calls)) code = write_history(k);
    if (!code) k->tools = NULL; /* they are in the text now */
    return code;
}
