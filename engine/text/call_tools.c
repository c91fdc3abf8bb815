/* call_tools.c - see call_tools.h.  Owns copies of names and keys.  Refuses nothing: what a schema
 * does not say allows everything.  Thread: any. */
#include "engine/text/call_tools.h"

#include "base/err.h"
#include "base/map.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* References and alternatives inside one parameter's schema; deeper ones allow everything. */
enum { MAX_DEPTH = 16, MAX_NODES = 256 };

typedef struct {
    char *key;
    size_t n;
    int types;
} param;

typedef struct {
    char *name;
    size_t n;
    bool custom;
    param *param; /* [n_param] */
    int n_param;
} tool;

struct call_tools {
    _Atomic int refs;
    tool *tool; /* [n] */
    int n;
};

static const struct {
    const char *name;
    int types;
} type_names[] = {
    {"string", MAY_STRING}, {"integer", MAY_INTEGER}, {"number", MAY_NUMBER | MAY_INTEGER},
    {"boolean", MAY_BOOL},  {"null", MAY_NULL},       {"object", MAY_OBJECT},
    {"array", MAY_ARRAY}};

static int types_of_name(const json *j)
{
    for (size_t i = 0; json_is(j, JSON_STRING) && i < sizeof type_names / sizeof *type_names; i++)
        if (!strcmp(j->str, type_names[i].name)) return type_names[i].types;
    return MAY_ALL;
}

static int types_of_value(const json *j)
{
    int64_t whole;
    switch (j->type) {
    case JSON_NULL: return MAY_NULL;
    case JSON_FALSE:
    case JSON_TRUE: return MAY_BOOL;
    case JSON_NUMBER: return json_int(j, &whole) ? MAY_INTEGER | MAY_NUMBER : MAY_NUMBER;
    case JSON_STRING: return MAY_STRING;
    case JSON_ARRAY: return MAY_ARRAY;
    case JSON_OBJECT: return MAY_OBJECT;
    }
    return MAY_ALL;
}

/* What a local reference ("#/a/b", with ~0, ~1) points at in the tool's schema, or NULL. */
static const json *resolve(const json *root, const json *ref)
{
    if (!json_is(ref, JSON_STRING) || ref->str[0] != '#') return NULL;
    const json *at = root;
    const char *s = ref->str + 1;
    while (at && *s == '/') {
        char name[256];
        size_t n = 0;
        for (s++; *s && *s != '/' && n + 1 < sizeof name; s++) {
            bool escape = s[0] == '~' && (s[1] == '0' || s[1] == '1');
            name[n++] = escape ? (s[1] == '0' ? '~' : '/') : *s;
            s += escape;
        }
        at = at->type == JSON_OBJECT ? json_get_n(at, name, n) : NULL;
    }
    return at;
}

typedef struct {
    const json *root;
    int left; /* nodes that may still be looked at */
} walk;

static int types_of(walk *w, const json *s, int depth)
{
    if (!json_is(s, JSON_OBJECT) || depth == 0 || w->left-- <= 0) return MAY_ALL;
    int may = MAY_ALL;
    const json *t = json_get(s, "type");
    if (json_is(t, JSON_ARRAY)) {
        may = 0;
        for (const json *i = t->child; i; i = i->next) may |= types_of_name(i);
    } else if (t) {
        may = types_of_name(t);
    }
    const json *ref = json_get(s, "$ref"), *to = ref ? resolve(w->root, ref) : NULL;
    if (to) may &= types_of(w, to, depth - 1);
    const json *only = json_get(s, "const"), *one_of = json_get(s, "enum");
    if (only) may &= types_of_value(only);
    if (json_is(one_of, JSON_ARRAY)) {
        int any = 0;
        for (const json *i = one_of->child; i; i = i->next) any |= types_of_value(i);
        may &= any;
    }
    for (int k = 0; k < 2; k++) {
        const json *list = json_get(s, k ? "oneOf" : "anyOf");
        int any = 0;
        if (!json_is(list, JSON_ARRAY)) continue;
        for (const json *i = list->child; i; i = i->next) any |= types_of(w, i, depth - 1);
        may &= any;
    }
    const json *all = json_get(s, "allOf");
    for (const json *i = json_is(all, JSON_ARRAY) ? all->child : NULL; i; i = i->next)
        may &= types_of(w, i, depth - 1);
    return may;
}

/* Every bit: says nothing, and takes nothing away from what others say. */
enum { UNDECLARED = -1 };

/* Keywords whose schemas all speak of the same object, and those of which one does. */
static const char *const applied[] = {"allOf", "anyOf", "oneOf"};
enum { N_APPLIED = sizeof applied / sizeof *applied };

/* What the schema of an object says of a member. */
static int types_of_member(walk *w, const json *s, const char *key, size_t n, int depth)
{
    if (!json_is(s, JSON_OBJECT) || depth == 0 || w->left-- <= 0) return UNDECLARED;
    const json *props = json_get(s, "properties"), *ref = json_get(s, "$ref");
    const json *p = json_is(props, JSON_OBJECT) ? json_get_n(props, key, n) : NULL;
    const json *to = ref ? resolve(w->root, ref) : NULL;
    int may = p ? types_of(w, p, MAX_DEPTH) : UNDECLARED;
    if (to) may &= types_of_member(w, to, key, n, depth - 1);
    for (int k = 0; k < N_APPLIED; k++) {
        const json *list = json_get(s, applied[k]);
        int any = UNDECLARED;
        for (const json *i = json_is(list, JSON_ARRAY) ? list->child : NULL; i; i = i->next) {
            int its = types_of_member(w, i, key, n, depth - 1);
            if (k == 0) may &= its;
            else if (its != UNDECLARED) any = any == UNDECLARED ? its : any | its;
        }
        may &= any;
    }
    return may;
}

int call_tools_schema_types(const json *schema, const char *key, size_t n)
{
    walk w = {schema, MAX_NODES};
    int may = types_of_member(&w, schema, key, n, MAX_DEPTH);
    if (may == UNDECLARED) return MAY_STRING;
    return may ? may : MAY_ALL;
}

static char *copy(const char *s, size_t n)
{
    char *c = malloc(n + 1);
    if (!c) return NULL;
    memcpy(c, s, n);
    c[n] = 0;
    return c;
}

/* The members that properties declare and no schema before it. */
static bool add_properties(tool *t, const walk *w, const json *props, map *seen)
{
    if (!json_is(props, JSON_OBJECT) || !props->len) return true;
    param *v = realloc(t->param, ((size_t)t->n_param + props->len) * sizeof *v);
    if (!v) return false;
    t->param = v;
    for (const json *p = props->child; p; p = p->next) {
        int code = map_add(seen, p->key, p->n_key, 0);
        if (code == ERR_BUSY) continue;
        char *key = code ? NULL : copy(p->key, p->n_key);
        if (!key) return false;
        v[t->n_param++] =
            (param){key, p->n_key, call_tools_schema_types(w->root, p->key, p->n_key)};
    }
    return true;
}

/* All members that types_of_member finds; it goes the same way. */
static bool add_params(tool *t, walk *w, const json *s, int depth, map *seen)
{
    if (!json_is(s, JSON_OBJECT) || depth == 0 || w->left-- <= 0) return true;
    const json *ref = json_get(s, "$ref"), *to = ref ? resolve(w->root, ref) : NULL;
    bool ok = add_properties(t, w, json_get(s, "properties"), seen);
    if (to) ok = ok && add_params(t, w, to, depth - 1, seen);
    for (int k = 0; k < N_APPLIED; k++) {
        const json *list = json_get(s, applied[k]);
        for (const json *i = json_is(list, JSON_ARRAY) ? list->child : NULL; ok && i; i = i->next)
            ok = add_params(t, w, i, depth - 1, seen);
    }
    return ok;
}

static bool add_tool(call_tools *t, const json *j)
{
    const json *type = json_get(j, "type");
    bool custom = json_is(type, JSON_STRING) && !strcmp(type->str, "custom");
    const json *f = json_get(j, custom ? "custom" : "function"), *name = json_get(f, "name");
    if (!json_is(name, JSON_STRING)) return true;
    tool *to = &t->tool[t->n];
    *to = (tool){.name = copy(name->str, name->len), .n = name->len, .custom = custom};
    if (!to->name) return false;
    t->n++;
    if (custom) return true;
    map seen = {0};
    walk w = {json_get(f, "parameters"), MAX_NODES};
    bool ok = add_params(to, &w, w.root, MAX_DEPTH, &seen);
    map_clear(&seen);
    return ok;
}

call_tools *call_tools_new(const json *tools)
{
    call_tools *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    atomic_init(&t->refs, 1);
    t->tool = calloc(tools->len + 1, sizeof *t->tool);
    for (const json *j = tools->child; t->tool && j; j = j->next)
        if (!add_tool(t, j)) {
            call_tools_put(t);
            return NULL;
        }
    if (t->tool) return t;
    free(t);
    return NULL;
}

call_tools *call_tools_take(call_tools *t)
{
    if (t) atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void call_tools_put(call_tools *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) > 1) return;
    for (int i = 0; i < t->n; i++) {
        for (int k = 0; k < t->tool[i].n_param; k++) free(t->tool[i].param[k].key);
        free(t->tool[i].param);
        free(t->tool[i].name);
    }
    free(t->tool);
    free(t);
}

int call_tools_find(const call_tools *t, const char *name, size_t n)
{
    for (int i = 0; t && i < t->n; i++)
        if (t->tool[i].n == n && !memcmp(t->tool[i].name, name, n)) return i;
    return -1;
}

int call_tools_types(const call_tools *t, int tool_at, const char *key, size_t n)
{
    if (tool_at < 0) return MAY_STRING;
    const tool *of = &t->tool[tool_at];
    for (int i = 0; i < of->n_param; i++)
        if (of->param[i].n == n && !memcmp(of->param[i].key, key, n)) return of->param[i].types;
    return MAY_STRING;
}

bool call_tools_is_custom(const call_tools *t, int tool_at)
{
    return tool_at >= 0 && t->tool[tool_at].custom;
}
