/* chat_messages.c - checks a request's messages and puts them into the one form templates see
 * (API C1-C5): four roles, text as a string or as text parts, arguments as objects.
 * Refuses with the path of the field.  Thread: the one that renders the request. */
#include "engine/text/chat_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- faults and nodes ------------------------------------------------------------------------ */

int talk_bad(talk *k, const char *code, const char *param, const char *fmt, ...)
{
    char msg[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (k->fault) {
        k->fault->code = code;
        snprintf(k->fault->param, sizeof k->fault->param, "%s", param);
    }
    return err_set(k->e, ERR_INVALID, "%s", msg);
}

void field_path(char out[FIELD_PATH], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out, FIELD_PATH, fmt, ap);
    va_end(ap);
}

int talk_nomem(talk *k)
{
    if (k->fault) *k->fault = (chat_fault){.code = "internal_error"};
    return err_set(k->e, ERR_NOMEM, "out of memory for the messages");
}

json *node_str(talk *k, const char *s, size_t n)
{
    json *j = arena_zalloc(&k->mem, sizeof *j);
    if (j) *j = (json){.type = JSON_STRING, .str = s, .len = n};
    return j;
}

/* A list under construction: its last child makes adding O(1). */
typedef struct {
    json node; /* first, so that a pointer to it is one to the whole */
    json *last;
} growing;

json *node_list(talk *k, json_type type)
{
    growing *g = arena_zalloc(&k->mem, sizeof *g);
    if (!g) return NULL;
    g->node.type = type;
    return &g->node;
}

json *node_copy(talk *k, const json *j)
{
    json *c = arena_alloc(&k->mem, sizeof *c);
    if (c) {
        *c = *j;
        c->next = NULL;
        c->key = NULL;
        c->n_key = 0;
    }
    return c;
}

bool node_add(json *list, const char *key, json *v)
{
    if (!list || !v) return false;
    v->key = key;
    v->n_key = key ? (uint32_t)strlen(key) : 0;
    growing *g = (growing *)list;
    if (g->last) g->last->next = v;
    else list->child = v;
    g->last = v;
    list->len++;
    return true;
}

json *node_take(talk *k, buf *b)
{
    char *s = buf_ok(b) ? arena_copy(&k->mem, buf_str(b), b->len) : NULL;
    json *j = s ? node_str(k, s, b->len) : NULL;
    buf_clear(b);
    return j;
}

/* ---- content --------------------------------------------------------------------------------- */

typedef struct {
    const char *type, *kind;
} media;

static const char *media_kind(const json *type)
{
    static const media kinds[] = {
        {"image_url", "image"},   {"image", "image"},     {"input_image", "image"},
        {"video_url", "video"},   {"video", "video"},     {"input_video", "video"},
        {"input_audio", "audio"}, {"audio_url", "audio"}, {"audio", "audio"},
        {"file", "file"},         {"input_file", "file"}, {"document", "file"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].type, type->str)) return kinds[i].kind;
    return NULL;
}

static const char *quoted(const json *j, char out[72])
{
    snprintf(out, 72, "%.*s", (int)(j->len < 64 ? j->len : 64), j->str);
    return out;
}

/* The text of one part, or NULL with the fault filled. */
static const json *part_text(talk *k, const json *p, const char *path)
{
    char at[FIELD_PATH], q[72];
    if (!json_is(p, JSON_OBJECT)) {
        talk_bad(k, "invalid_type", path, "'%s' must be an object, got %s", path,
                 json_type_name(p));
        return NULL;
    }
    const json *type = json_given(p, "type");
    field_path(at, "%s.type", path);
    if (!type) {
        talk_bad(k, "missing_required_parameter", at, "'%s' is required", at);
        return NULL;
    }
    if (type->type != JSON_STRING) {
        talk_bad(k, "invalid_type", at, "'%s' must be a string, got %s", at, json_type_name(type));
        return NULL;
    }
    const char *kind = media_kind(type);
    if (kind) {
        const char *name = k->in->model;
        talk_bad(k, "unsupported_modality", path,
                 "%s%.64s%s does not accept %s input ('%s' is a part of type '%s')",
                 name ? "model '" : "the model", name ? name : "", name ? "'" : "", kind, path,
                 quoted(type, q));
        return NULL;
    }
    bool refusal = !strcmp(type->str, "refusal");
    if (!refusal && strcmp(type->str, "text") && strcmp(type->str, "input_text") &&
        strcmp(type->str, "output_text")) {
        talk_bad(k, "invalid_value", at,
                 "'%s' must be 'text', 'refusal', 'input_text' or 'output_text', got '%s'", at,
                 quoted(type, q));
        return NULL;
    }
    const char *field = refusal && json_given(p, "refusal") ? "refusal" : "text";
    const json *text = json_given(p, field);
    field_path(at, "%s.%s", path, field);
    if (!text) {
        talk_bad(k, "missing_required_parameter", at, "'%s' is required", at);
    } else if (text->type != JSON_STRING) {
        talk_bad(k, "invalid_type", at, "'%s' must be a string, got %s", at, json_type_name(text));
        text = NULL;
    }
    return text;
}

/* Parts as the template takes them; one part is as good as its text. */
static int read_parts(talk *k, const json *c, const char *path, json **out)
{
    char at[FIELD_PATH];
    size_t i = 0;
    buf b = {0};
    json *list = node_list(k, JSON_ARRAY);
    int code = 0;
    for (const json *p = c->child; p && !code; p = p->next, i++) {
        field_path(at, "%s[%zu]", path, i);
        const json *text = part_text(k, p, at);
        if (!text) {
            code = ERR_INVALID;
        } else if (k->f->traits.parts && c->len > 1) {
            json *part = node_list(k, JSON_OBJECT);
            if (!node_add(part, "type", node_str(k, "text", 4)) ||
                !node_add(part, "text", node_copy(k, text)) || !node_add(list, NULL, part))
                code = talk_nomem(k);
        } else {
            if (i) buf_putc(&b, '\n');
            buf_put(&b, text->str, text->len);
        }
    }
    if (!code && list && list->len) {
        *out = list;
        buf_clear(&b);
        return 0;
    }
    json *s = code ? NULL : node_take(k, &b);
    buf_clear(&b);
    if (!code && !s) code = talk_nomem(k);
    *out = s;
    return code;
}

static int read_content(talk *k, const json *m, chat_role role, const char *path, json **out)
{
    char at[FIELD_PATH];
    const json *c = json_given(m, "content");
    field_path(at, "%s.content", path);
    if (!c && role != ROLE_ASSISTANT)
        return talk_bad(k, "missing_required_parameter", at,
                        "'%s' is required: a string or a list of parts", at);
    if (json_is(c, JSON_ARRAY)) {
        if (!c->len) return talk_bad(k, "invalid_value", at, "'%s' must not be an empty list", at);
        return read_parts(k, c, at, out);
    }
    if (c && c->type != JSON_STRING)
        return talk_bad(k, "invalid_type", at, "'%s' must be a string or a list of parts, got %s",
                        at, json_type_name(c));
    *out = c ? node_copy(k, c) : node_str(k, "", 0);
    return *out ? 0 : talk_nomem(k);
}

/* ---- tool calls ------------------------------------------------------------------------------ */

/* An arguments string to the object it spells; {"key": string} if it spells none. */
static json *parsed_arguments(talk *k, const json *s, const char *key)
{
    const json *root = NULL;
    size_t i = 0;
    while (i < s->len && strchr(" \t\r\n", s->str[i])) i++;
    if (i == s->len) return node_list(k, JSON_OBJECT);
    if (k->n_docs == k->cap_docs) {
        size_t cap = k->cap_docs ? k->cap_docs * 2 : 8;
        json_doc **v = realloc(k->docs, cap * sizeof *v);
        if (!v) return NULL;
        k->docs = v;
        k->cap_docs = cap;
    }
    json_doc *d = json_parse(s->str, s->len, NULL, &root, NULL);
    if (d) k->docs[k->n_docs++] = d;
    if (json_is(root, JSON_OBJECT)) return node_copy(k, root);
    json *o = node_list(k, JSON_OBJECT);
    return node_add(o, key, node_copy(k, s)) ? o : NULL;
}

static int read_call(talk *k, const json *c, const char *path, json *list)
{
    char at[FIELD_PATH], in[FIELD_PATH];
    if (!json_is(c, JSON_OBJECT))
        return talk_bad(k, "invalid_type", path, "'%s' must be an object, got %s", path,
                        json_type_name(c));
    const json *type = json_given(c, "type"), *id = json_given(c, "id");
    bool custom = json_is(type, JSON_STRING) && !strcmp(type->str, "custom");
    field_path(at, "%s.type", path);
    if (type && !custom && (type->type != JSON_STRING || strcmp(type->str, "function")))
        return talk_bad(k, "invalid_value", at, "'%s' must be 'function' or 'custom'", at);
    const json *f = json_given(c, custom ? "custom" : "function");
    field_path(at, "%s.%s", path, custom ? "custom" : "function");
    if (!f) return talk_bad(k, "missing_required_parameter", at, "'%s' is required", at);
    const json *name = json_given(f, "name"), *arg = json_given(f, custom ? "input" : "arguments");
    field_path(in, "%s.name", at);
    if (!json_is(name, JSON_STRING))
        return talk_bad(
            k, name || f->type != JSON_OBJECT ? "invalid_type" : "missing_required_parameter", in,
            "'%s' must be a string", in);
    json *args;
    if (custom) {
        args = node_list(k, JSON_OBJECT);
        json *text = json_is(arg, JSON_STRING) ? node_copy(k, arg) : node_str(k, "", 0);
        if (!node_add(args, "input", text)) args = NULL;
    } else if (json_is(arg, JSON_STRING)) {
        args = parsed_arguments(k, arg, "arguments");
    } else if (!arg || arg->type == JSON_OBJECT) {
        args = arg ? node_copy(k, arg) : node_list(k, JSON_OBJECT);
    } else {
        field_path(in, "%s.arguments", at);
        return talk_bad(k, "invalid_type", in, "'%s' must be a string or an object, got %s", in,
                        json_type_name(arg));
    }
    json *call = node_list(k, JSON_OBJECT), *fn = node_list(k, JSON_OBJECT);
    bool ok = !json_is(id, JSON_STRING) || node_add(call, "id", node_copy(k, id));
    ok = ok && node_add(call, "type", node_str(k, "function", 8)) &&
         node_add(fn, "name", node_copy(k, name)) && node_add(fn, "arguments", args) &&
         node_add(call, "function", fn) && node_add(list, NULL, call);
    return ok ? 0 : talk_nomem(k);
}

static int read_calls(talk *k, const json *m, const char *path, json **out)
{
    char at[FIELD_PATH];
    const json *c = json_given(m, "tool_calls");
    field_path(at, "%s.tool_calls", path);
    if (!c) return 0;
    if (c->type != JSON_ARRAY)
        return talk_bad(k, "invalid_type", at, "'%s' must be a list, got %s", at,
                        json_type_name(c));
    if (!c->len) return 0;
    json *list = node_list(k, JSON_ARRAY);
    size_t i = 0;
    for (const json *p = c->child; p; p = p->next, i++) {
        char in[FIELD_PATH];
        field_path(in, "%s[%zu]", at, i);
        int code = list ? read_call(k, p, in, list) : talk_nomem(k);
        if (code) return code;
    }
    *out = list;
    return 0;
}

/* ---- messages -------------------------------------------------------------------------------- */

static int read_role(talk *k, const json *m, const char *path, chat_role *role)
{
    static const struct {
        const char *name;
        chat_role role;
    } roles[] = {{"system", ROLE_SYSTEM}, {"developer", ROLE_SYSTEM},
                 {"user", ROLE_USER},     {"assistant", ROLE_ASSISTANT},
                 {"tool", ROLE_TOOL},     {"function", ROLE_TOOL}};
    char at[FIELD_PATH], q[72];
    const json *r = json_given(m, "role");
    field_path(at, "%s.role", path);
    if (!r) return talk_bad(k, "missing_required_parameter", at, "'%s' is required", at);
    if (r->type != JSON_STRING)
        return talk_bad(k, "invalid_type", at, "'%s' must be a string, got %s", at,
                        json_type_name(r));
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(roles[i].name, r->str)) {
            *role = roles[i].role;
            return 0;
        }
    return talk_bad(k, "invalid_value", at,
                    "'%s' must be system, developer, user, assistant, tool or function, got '%s'",
                    at, quoted(r, q));
}

static int read_reasoning(talk *k, const json *m, const char *path, chat_msg *out)
{
    static const char *const names[] = {"reasoning_content", "reasoning"};
    for (int i = 0; i < 2; i++) {
        char at[FIELD_PATH];
        const json *r = json_given(m, names[i]);
        if (!r) continue;
        field_path(at, "%s.%s", path, names[i]);
        if (r->type != JSON_STRING)
            return talk_bad(k, "invalid_type", at, "'%s' must be a string, got %s", at,
                            json_type_name(r));
        if (!out->reasoning) out->reasoning = r;
    }
    return 0;
}

static int read_message(talk *k, const json *m, size_t i, chat_msg *out)
{
    char path[FIELD_PATH];
    int code;
    field_path(path, "messages[%zu]", i);
    if (m->type != JSON_OBJECT)
        return talk_bad(k, "invalid_type", path, "'%s' must be an object, got %s", path,
                        json_type_name(m));
    if ((code = read_role(k, m, path, &out->role))) return code;
    if ((code = read_content(k, m, out->role, path, &out->content))) return code;
    if (out->role == ROLE_ASSISTANT) {
        if ((code = read_reasoning(k, m, path, out))) return code;
        if ((code = read_calls(k, m, path, &out->calls))) return code;
        const json *prefix = json_given(m, "prefix");
        char at[FIELD_PATH];
        field_path(at, "%s.prefix", path);
        if (prefix && !json_is_bool(prefix))
            return talk_bad(k, "invalid_type", at, "'%s' must be a boolean, got %s", at,
                            json_type_name(prefix));
        out->prefix = json_is(prefix, JSON_TRUE);
    }
    const json *id = json_given(m, "tool_call_id");
    if (out->role == ROLE_TOOL && json_is(id, JSON_STRING)) out->call_id = id;
    return 0;
}

int talk_read(talk *k)
{
    const json *all = k->in->messages;
    if (!all || all->type == JSON_NULL)
        return talk_bad(k, "missing_required_parameter", "messages", "'messages' is required");
    if (all->type != JSON_ARRAY)
        return talk_bad(k, "invalid_type", "messages", "'messages' must be a list, got %s",
                        json_type_name(all));
    if (!all->len)
        return talk_bad(k, "invalid_value", "messages",
                        "'messages' must hold at least one message");
    k->msg = arena_zalloc(&k->mem, all->len * sizeof *k->msg);
    if (!k->msg) return talk_nomem(k);
    for (const json *m = all->child; m && k->n_msg < all->len; m = m->next) {
        int code = read_message(k, m, k->n_msg, &k->msg[k->n_msg]);
        if (code) return code;
        k->n_msg++;
    }
    return 0;
}

/* ---- placing system texts -------------------------------------------------------------------- */

static bool add_parts(talk *k, json *list, const json *c)
{
    if (c->type == JSON_STRING) {
        json *part = node_list(k, JSON_OBJECT);
        return node_add(part, "type", node_str(k, "text", 4)) &&
               node_add(part, "text", node_copy(k, c)) && node_add(list, NULL, part);
    }
    for (const json *p = c->child; p; p = p->next)
        if (!node_add(list, NULL, node_copy(k, p))) return false;
    return true;
}

json *join_contents(talk *k, const chat_msg *m, size_t n, const char *sep)
{
    bool text = true;
    buf t = {0};
    for (size_t i = 0; i < n; i++) text &= m[i].content->type == JSON_STRING;
    json *list = text ? NULL : node_list(k, JSON_ARRAY);
    for (size_t i = 0; i < n; i++) {
        const json *c = m[i].content;
        if (text) {
            if (i) buf_puts(&t, sep);
            buf_put(&t, c->str, c->len);
            continue;
        }
        json *gap = i ? node_str(k, sep, strlen(sep)) : NULL;
        if (!list || (i && (!gap || !add_parts(k, list, gap))) || !add_parts(k, list, c))
            return NULL;
    }
    return text ? node_take(k, &t) : list;
}

int talk_place_system(talk *k)
{
    size_t lead = 0;
    while (lead < k->n_msg && k->msg[lead].role == ROLE_SYSTEM) lead++;
    if (lead > 1) {
        if (!(k->msg[0].content = join_contents(k, k->msg, lead, "\n\n"))) return talk_nomem(k);
        memmove(k->msg + 1, k->msg + lead, (k->n_msg - lead) * sizeof *k->msg);
        k->n_msg -= lead - 1;
    }
    for (size_t i = 1; i < k->n_msg; i++)
        if (k->msg[i].role == ROLE_SYSTEM && !k->f->traits.system_anywhere) {
            k->msg[i].role = ROLE_USER;
            k->msg[i].was_system = true;
        }
    return 0;
}

/* ---- for the template ------------------------------------------------------------------------ */

json *talk_messages(talk *k)
{
    static const char *const names[] = {"system", "user", "assistant", "tool"};
    json *list = node_list(k, JSON_ARRAY);
    for (size_t i = 0; i < k->n_msg; i++) {
        const chat_msg *m = &k->msg[i];
        json *o = node_list(k, JSON_OBJECT);
        const char *role = names[m->role];
        bool ok = node_add(o, "role", node_str(k, role, strlen(role))) &&
                  node_add(o, "content", m->content);
        if (m->reasoning) ok = ok && node_add(o, "reasoning_content", node_copy(k, m->reasoning));
        if (m->calls) ok = ok && node_add(o, "tool_calls", m->calls);
        if (m->call_id) ok = ok && node_add(o, "tool_call_id", node_copy(k, m->call_id));
        if (!ok || !node_add(list, NULL, o)) return NULL;
    }
    return list;
}
