/* params_grammar.c - the fields that constrain an answer: response_format and its kin (API J1, J2),
 * tool_choice and strict tools (T3-T6).  Owns nothing.  Refuses wrong types, two constraints at
 * once, structural tags, tools nobody offered.  Thread: prep. */
#include "server/metrics.h"
#include "server/request.h"

#include <stdio.h>
#include <string.h>

/* Constraints that are a field of their own. */
static const struct {
    const char *name;
    grammar_kind kind;
    bool raw;
} fields[] = {{"guided_json", GRAMMAR_SCHEMA, true},   {"guided_regex", GRAMMAR_REGEX, true},
              {"guided_choice", GRAMMAR_CHOICE, true}, {"guided_grammar", GRAMMAR_GBNF, true},
              {"grammar", GRAMMAR_GBNF, true},         {"ebnf", GRAMMAR_GBNF, true},
              {"regex", GRAMMAR_REGEX, true},          {"json_schema", GRAMMAR_SCHEMA, false}};
enum { N_FIELDS = sizeof fields / sizeof *fields };

/* Members of structured_outputs, of which there must be one. */
static const struct {
    const char *name;
    grammar_kind kind;
} members[] = {{"json", GRAMMAR_SCHEMA},
               {"regex", GRAMMAR_REGEX},
               {"choice", GRAMMAR_CHOICE},
               {"grammar", GRAMMAR_GBNF},
               {"json_object", GRAMMAR_JSON_OBJECT}};
enum { N_MEMBERS = sizeof members / sizeof *members };

static void conflict(reader *r, const char *field, const char *other)
{
    if (!r->failed) metrics_grammar_rejected("conflicting_constraints");
    reader_fail(r, "conflicting_constraints", field,
                "'%s' and '%s' both constrain the answer: send one of them", other, field);
}

/* Absent as far as a constraint goes: null, false, an empty string or list. */
static bool is_off(const json *j)
{
    return !j || j->type == JSON_NULL || j->type == JSON_FALSE ||
           ((j->type == JSON_STRING || j->type == JSON_ARRAY) && !j->len);
}

static void check_choices(reader *r, const char *path, const json *list)
{
    int i = 0;
    if (!json_is(list, JSON_ARRAY) || !list->len) {
        reader_fail(r, "invalid_value", path, "'%s' must be a list of at least one string", path);
        return;
    }
    for (const json *c = list->child; c && !r->failed; c = c->next, i++) {
        char at[96];
        snprintf(at, sizeof at, "%s[%d]", path, i);
        if (c->type != JSON_STRING)
            reader_fail(r, "invalid_type", at, "'%s' must be a string, got %s", at,
                        json_type_name(c));
        else if (!c->len)
            reader_fail(r, "invalid_value", at, "'%s' must not be an empty string", at);
    }
}

static void check_value(reader *r, const char *path, grammar_kind kind, const json *v)
{
    switch (kind) {
    case GRAMMAR_CHOICE: check_choices(r, path, v); break;
    case GRAMMAR_SCHEMA:
        if (v->type != JSON_OBJECT && !json_is_bool(v) && v->type != JSON_STRING)
            reader_fail(r, "invalid_type", path,
                        "'%s' must be a JSON Schema: an object or a boolean, got %s", path,
                        json_type_name(v));
        break;
    case GRAMMAR_REGEX:
    case GRAMMAR_GBNF:
        if (v->type != JSON_STRING)
            reader_fail(r, "invalid_type", path, "'%s' must be a string, got %s", path,
                        json_type_name(v));
        break;
    case GRAMMAR_JSON_OBJECT:
        if (!json_is_bool(v))
            reader_fail(r, "invalid_type", path, "'%s' must be true or false, got %s", path,
                        json_type_name(v));
        break;
    }
}

/* The constraint at path; a second one is refused. */
static void take(reader *r, constraint *c, const char *path, grammar_kind kind, const json *v,
                 bool raw)
{
    if (r->failed) return;
    if (c->field[0]) {
        conflict(r, path, c->field);
        return;
    }
    snprintf(c->field, sizeof c->field, "%s", path);
    c->kind = kind;
    c->value = v;
    c->raw = raw;
}

static bool good_format_name(const json *name)
{
    for (size_t i = 0; i < name->len; i++) {
        char ch = name->str[i];
        bool ok = (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z') ||
                  (ch >= '0' && ch <= '9') || ch == '_' || ch == '-';
        if (!ok) return false;
    }
    return name->len >= 1 && name->len <= 64;
}

static void take_schema(reader *r, constraint *c, const char *path, const json *schema)
{
    if (schema->type != JSON_OBJECT && !json_is_bool(schema))
        reader_fail(r, "invalid_type", path,
                    "'%s' must be a JSON Schema: an object or a boolean, got %s", path,
                    json_type_name(schema));
    take(r, c, path, GRAMMAR_SCHEMA, schema, false);
}

static void read_json_schema(reader *r, constraint *c, const json *s)
{
    const json *name = json_get(s, "name"), *schema = json_get(s, "schema"),
               *strict = json_get(s, "strict"), *about = json_get(s, "description");
    if (!s || s->type == JSON_NULL)
        reader_fail(r, "missing_required_parameter", "response_format.json_schema",
                    "'response_format.json_schema' is required with type json_schema");
    else if (s->type != JSON_OBJECT)
        reader_fail(r, "invalid_type", "response_format.json_schema",
                    "'response_format.json_schema' must be an object, got %s", json_type_name(s));
    else if (!name || name->type == JSON_NULL)
        reader_fail(r, "missing_required_parameter", "response_format.json_schema.name",
                    "'response_format.json_schema.name' is required");
    else if (name->type != JSON_STRING)
        reader_fail(r, "invalid_type", "response_format.json_schema.name",
                    "'response_format.json_schema.name' must be a string, got %s",
                    json_type_name(name));
    else if (!good_format_name(name))
        reader_fail(r, "invalid_value", "response_format.json_schema.name",
                    "'response_format.json_schema.name' must be 1 to 64 letters, digits, _ or -");
    else if (!schema || schema->type == JSON_NULL)
        reader_fail(r, "missing_required_parameter", "response_format.json_schema.schema",
                    "'response_format.json_schema.schema' is required");
    else if (strict && strict->type != JSON_NULL && !json_is_bool(strict))
        reader_fail(r, "invalid_type", "response_format.json_schema.strict",
                    "'response_format.json_schema.strict' must be true or false, got %s",
                    json_type_name(strict));
    else if (about && about->type != JSON_NULL && about->type != JSON_STRING)
        reader_fail(r, "invalid_type", "response_format.json_schema.description",
                    "'response_format.json_schema.description' must be a string, got %s",
                    json_type_name(about));
    else take_schema(r, c, "response_format.json_schema.schema", schema);
}

static void read_response_format(reader *r, constraint *c)
{
    const json *f = rd_any(r, "response_format"), *type = json_get(f, "type"),
               *schema = json_get(f, "schema");
    if (!f || f->type == JSON_FALSE) return;
    if (f->type != JSON_OBJECT) {
        reader_fail(r, "invalid_type", "response_format",
                    "'response_format' must be an object, got %s", json_type_name(f));
    } else if (!type || type->type == JSON_NULL) {
        reader_fail(r, "missing_required_parameter", "response_format.type",
                    "'response_format.type' is required: text, json_object or json_schema");
    } else if (type->type != JSON_STRING) {
        reader_fail(r, "invalid_type", "response_format.type",
                    "'response_format.type' must be a string, got %s", json_type_name(type));
    } else if (!strcmp(type->str, "json_object")) {
        if (schema && schema->type != JSON_NULL)
            take_schema(r, c, "response_format.schema", schema);
        else take(r, c, "response_format", GRAMMAR_JSON_OBJECT, NULL, false);
    } else if (!strcmp(type->str, "json_schema")) {
        read_json_schema(r, c, json_get(f, "json_schema"));
    } else if (!strcmp(type->str, "structural_tag")) {
        reader_fail(r, "unsupported_value", "response_format.type",
                    "'response_format.type' structural_tag is not supported; use tools, or "
                    "structured_outputs.grammar");
    } else if (strcmp(type->str, "text") != 0) {
        reader_fail(r, "invalid_value", "response_format.type",
                    "'response_format.type' must be text, json_object or json_schema, got '%.64s'",
                    type->str);
    }
}

static void read_structured_outputs(reader *r, constraint *c)
{
    /* Settings of others that would change what is accepted. */
    static const char *const refused[] = {"structural_tag", "whitespace_pattern",
                                          "disable_any_whitespace",
                                          "disable_additional_properties"};
    const json *s = rd_any(r, "structured_outputs"), *inside = json_get(s, "enable_in_reasoning");
    bool any = false;
    char path[64];
    if (is_off(s)) return;
    if (s->type != JSON_OBJECT) {
        reader_fail(r, "invalid_type", "structured_outputs",
                    "'structured_outputs' must be an object, got %s", json_type_name(s));
        return;
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        snprintf(path, sizeof path, "structured_outputs.%s", refused[i]);
        if (!is_off(json_get(s, refused[i])))
            reader_fail(r, "unsupported_value", path, "'%s' is not supported", path);
    }
    for (int i = 0; i < N_MEMBERS; i++) {
        const json *v = json_get(s, members[i].name);
        if (!v || v->type == JSON_NULL) continue;
        if (members[i].kind == GRAMMAR_JSON_OBJECT && v->type == JSON_FALSE) continue;
        snprintf(path, sizeof path, "structured_outputs.%s", members[i].name);
        any = true;
        check_value(r, path, members[i].kind, v);
        take(r, c, path, members[i].kind, v, true);
    }
    if (!any)
        reader_fail(r, "missing_required_parameter", "structured_outputs",
                    "'structured_outputs' needs one of json, regex, choice, grammar and "
                    "json_object");
    if (inside && inside->type != JSON_NULL && !json_is_bool(inside))
        reader_fail(r, "invalid_type", "structured_outputs.enable_in_reasoning",
                    "'structured_outputs.enable_in_reasoning' must be true or false, got %s",
                    json_type_name(inside));
    c->in_reasoning = json_is(inside, JSON_TRUE);
}

/* "json" or a schema. */
static void read_format(reader *r, constraint *c)
{
    const json *f = rd_any(r, "format");
    if (is_off(f)) return;
    if (json_is(f, JSON_STRING) && !strcmp(f->str, "json"))
        take(r, c, "format", GRAMMAR_JSON_OBJECT, NULL, false);
    else if (f->type == JSON_STRING)
        reader_fail(r, "invalid_value", "format", "'format' must be json or a schema, got '%.64s'",
                    f->str);
    else take_schema(r, c, "format", f);
}

void read_constraint(constraint *c, reader *r)
{
    if (r->kind == READ_TEXT || r->failed) return;
    read_response_format(r, c);
    read_structured_outputs(r, c);
    for (int i = 0; i < N_FIELDS; i++) {
        const json *v = rd_any(r, fields[i].name);
        if (is_off(v)) continue;
        check_value(r, fields[i].name, fields[i].kind, v);
        take(r, c, fields[i].name, fields[i].kind, v, fields[i].raw);
    }
    read_format(r, c);
    if (!is_off(rd_any(r, "structural_tag")))
        reader_fail(r, "unsupported_value", "structural_tag",
                    "'structural_tag' is not supported; use tools, or structured_outputs.grammar");
    if (c->field[0] && (c->tools == CHOOSE_REQUIRED || c->tools == CHOOSE_NAMED))
        conflict(r, "tool_choice", c->field);
}

/* ---- tools ----------------------------------------------------------------------------------- */

const json *tool_body(const json *t, bool *custom)
{
    const json *type = json_get(t, "type");
    if (!json_is(type, JSON_STRING)) return NULL;
    *custom = !strcmp(type->str, "custom");
    return *custom || !strcmp(type->str, "function") ? json_get(t, type->str) : NULL;
}

/* The name of a tool or of a choice of one: {"type": T, T: {"name"}}; NULL if it is neither. */
static const json *tool_name(const json *t)
{
    bool custom;
    const json *name = json_get(tool_body(t, &custom), "name");
    return json_is(name, JSON_STRING) ? name : NULL;
}

bool constraint_allows(const constraint *c, const json *tool)
{
    const json *name = tool_name(tool);
    bool list = json_is(c->allowed, JSON_ARRAY);
    if (!c->allowed || !name) return true;
    for (const json *a = list ? c->allowed->child : c->allowed; a; a = list ? a->next : NULL) {
        const json *want = tool_name(a);
        if (want && want->len == name->len && !memcmp(want->str, name->str, name->len)) return true;
    }
    return false;
}

static bool is_offered(const json *tools, const json *name)
{
    for (const json *t = tools->child; t; t = t->next) {
        const json *its = tool_name(t);
        if (its && its->len == name->len && !memcmp(its->str, name->str, name->len)) return true;
    }
    return false;
}

static void check_offered(reader *r, const json *tools, const json *chosen, const char *path)
{
    const json *name = tool_name(chosen);
    if (!name)
        reader_fail(r, "invalid_value", path,
                    "'%s' must name a tool: {\"type\": \"function\", \"function\": {\"name\": …}}",
                    path);
    else if (!is_offered(tools, name))
        reader_fail(r, "invalid_value", path, "'%s' names '%.64s', which is none of 'tools'", path,
                    name->str);
}

static void read_allowed(constraint *c, reader *r, const json *tools, const json *choice)
{
    const json *a = json_get(choice, "allowed_tools"), *mode = json_get(a, "mode"),
               *list = json_get(a, "tools");
    int i = 0;
    if (!json_is(a, JSON_OBJECT))
        reader_fail(r, "invalid_type", "tool_choice",
                    "'tool_choice.allowed_tools' must be an object with mode and tools");
    else if (!json_is(mode, JSON_STRING) ||
             (strcmp(mode->str, "auto") != 0 && strcmp(mode->str, "required") != 0))
        reader_fail(r, "invalid_value", "tool_choice",
                    "'tool_choice.allowed_tools.mode' must be auto or required");
    else if (!json_is(list, JSON_ARRAY) || !list->len)
        reader_fail(r, "invalid_value", "tool_choice",
                    "'tool_choice.allowed_tools.tools' must be a list of at least one tool");
    for (const json *t = r->failed ? NULL : list->child; t && !r->failed; t = t->next, i++) {
        char path[64];
        snprintf(path, sizeof path, "tool_choice.allowed_tools.tools[%d]", i);
        check_offered(r, tools, t, path);
    }
    if (r->failed) return;
    c->allowed = list;
    c->tools = strcmp(mode->str, "required") ? CHOOSE_AUTO : CHOOSE_REQUIRED;
}

static void read_choice(constraint *c, reader *r, const json *tools, const json *choice)
{
    const json *type = json_get(choice, "type");
    if (json_is(choice, JSON_STRING)) {
        c->tools = !strcmp(choice->str, "none")       ? CHOOSE_NONE
                   : !strcmp(choice->str, "required") ? CHOOSE_REQUIRED
                                                      : CHOOSE_AUTO;
    } else if (json_is(type, JSON_STRING) && !strcmp(type->str, "allowed_tools")) {
        read_allowed(c, r, tools, choice);
    } else {
        check_offered(r, tools, choice, "tool_choice");
        c->tools = CHOOSE_NAMED;
        c->allowed = choice;
    }
}

void read_tool_choice(constraint *c, reader *r)
{
    const json *tools = rd_any(r, "tools"), *choice = rd_any(r, "tool_choice");
    if (r->kind == READ_TEXT || r->failed) return;
    if (tools && tools->type != JSON_ARRAY) {
        reader_fail(r, "invalid_type", "tools", "'tools' must be an array, got %s",
                    json_type_name(tools));
        return;
    }
    bool any = tools && tools->len, word = json_is(choice, JSON_STRING);
    bool harmless = word && (!strcmp(choice->str, "none") || !strcmp(choice->str, "auto"));
    if (reader_raw(r)) {
        if (any) reader_ignore(r, "tools", 5);
        if (choice) reader_ignore(r, "tool_choice", 11);
        return;
    }
    if (choice && !word && choice->type != JSON_OBJECT)
        reader_fail(r, "invalid_type", "tool_choice",
                    "'tool_choice' must be a string or an object, got %s", json_type_name(choice));
    else if (word && !harmless && strcmp(choice->str, "required"))
        reader_fail(r, "invalid_value", "tool_choice",
                    "'tool_choice' must be 'none', 'auto', 'required' or an object, got '%.64s'",
                    choice->str);
    else if (choice && !harmless && !any)
        reader_fail(r, "invalid_value", "tool_choice", "'tool_choice' needs 'tools'");
    if (r->failed || !any) return;
    if (choice) read_choice(c, r, tools, choice);
    int i = 0;
    for (const json *t = tools->child; t && !r->failed; t = t->next, i++) {
        const json *strict = json_get(json_get(t, "function"), "strict");
        char path[64];
        snprintf(path, sizeof path, "tools[%d].function.strict", i);
        if (strict && strict->type != JSON_NULL && !json_is_bool(strict))
            reader_fail(r, "invalid_type", path, "'%s' must be true or false, got %s", path,
                        json_type_name(strict));
        c->strict |= json_is(strict, JSON_TRUE) && constraint_allows(c, t);
    }
}
