/* chat_tools.c - tools on their way into a prompt: checked and shaped (API T1, T10).
 * Refuses with the path of the field.  Thread: the one that renders the request. */
#include "engine/text/chat_parts.h"

#include "base/map.h"

#include <stdio.h>
#include <string.h>

enum { MAX_TOOLS = 512, MAX_NAME = 256 };

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
    const json *about = json_given(c, "description"), *format = json_given(c, "format");
    const json *grammar = json_given(format, "grammar"),
               *text = json_given(grammar ? grammar : format, "definition"),
               *type = json_given(format, "type");
    bool free_text = !format || (json_is(type, JSON_STRING) && !strcmp(type->str, "text"));
    buf d = {0};
    if (json_is(about, JSON_STRING)) buf_put(&d, about->str, about->len);
    if (json_is(text, JSON_STRING)) {
        if (d.len) buf_puts(&d, "\n\n");
        buf_puts(&d, "The input must match this grammar:\n");
        buf_put(&d, text->str, text->len);
    }
    if (!free_text) {
        if (k->ignored->len) buf_putc(k->ignored, ',');
        buf_printf(k->ignored, "tools[%zu].format", i);
    }
    json *tool = node_list(k, JSON_OBJECT), *f = node_list(k, JSON_OBJECT),
         *p = node_list(k, JSON_OBJECT);
    json *props = node_list(k, JSON_OBJECT), *input = node_list(k, JSON_OBJECT),
         *need = node_list(k, JSON_ARRAY);
    bool told = d.len > 0;
    json *words = node_take(k, &d);
    bool ok = node_add(f, "name", node_copy(k, json_given(c, "name"))) &&
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
    const json *type = json_given(t, "type");
    bool custom = json_is(type, JSON_STRING) && !strcmp(type->str, "custom");
    field_path(at, "%s.type", path);
    if (!type) return talk_bad(k, "missing_required_parameter", at, "'%s' is required", at);
    if (!custom && (type->type != JSON_STRING || strcmp(type->str, "function")))
        return talk_bad(k, "invalid_value", at, "'%s' must be 'function' or 'custom'", at);
    const json *f = json_given(t, type->str), *name = json_given(f, "name");
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
    const json *schema = json_given(f, "parameters");
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
