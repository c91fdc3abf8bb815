/* schema_ref.c - where a $ref leads: JSON pointers, anchors and the identifiers of schemas in one
 * document.  An identifier below the root makes a document of its own of what it stands in:
 * pointers and anchors inside count from there. Owns nothing.  Refuses what is not in the document,
 * by name; no network, ever.  Thread: the compiler's. */
#include "engine/grammar/schema.h"

static int hex_digit(char h)
{
    return h >= '0' && h <= '9'                 ? h - '0'
           : (h | 32) >= 'a' && (h | 32) <= 'f' ? (h | 32) - 'a' + 10
                                                : -1;
}

/* One token of a JSON pointer in a URI fragment; its length, or -1. */
static int pointer_token(const char **at, char *out, int cap)
{
    const char *p = *at;
    int n = 0;
    for (; *p && *p != '/'; p++) {
        if (n + 1 >= cap) return -1;
        out[n] = *p;
        if (*p == '%') {
            int h = hex_digit(p[1]), l = h < 0 ? -1 : hex_digit(p[2]);
            if (l < 0) return -1;
            out[n] = (char)(h * 16 + l);
            p += 2;
        }
        n++;
    }
    int m = 0;
    for (int i = 0; i < n; i++) {
        char x = out[i];
        if (x == '~') {
            if (i + 1 >= n || (out[i + 1] != '0' && out[i + 1] != '1')) return -1;
            x = out[++i] == '1' ? '/' : '~';
        }
        out[m++] = x;
    }
    *at = p;
    return m;
}

/* What the values below a place are. */
typedef enum { OTHER, SCHEMA, SCHEMAS } place;

static bool is_one_of(const char *key, const char *const *words)
{
    while (*words && (**words != *key || strcmp(key, *words) != 0)) words++;
    return *words;
}

/* What child k of a place is: identifiers count in schemas only, not in values, nor below keywords
 * that nobody knows. */
static place place_of(place at, const json *k)
{
    static const char *const maps[] = {"properties",   "patternProperties", "$defs", "definitions",
                                       "dependencies", "dependentSchemas",  NULL};
    static const char *const single[] = {"allOf",
                                         "anyOf",
                                         "oneOf",
                                         "not",
                                         "if",
                                         "then",
                                         "else",
                                         "items",
                                         "prefixItems",
                                         "additionalItems",
                                         "contains",
                                         "additionalProperties",
                                         "propertyNames",
                                         "unevaluatedItems",
                                         "unevaluatedProperties",
                                         NULL};
    if (at == SCHEMAS) return SCHEMA;
    if (at == OTHER || !k->key) return OTHER;
    if (is_one_of(k->key, maps)) return SCHEMAS;
    if (is_one_of(k->key, single)) return k->type == JSON_ARRAY ? SCHEMAS : SCHEMA;
    return OTHER;
}

/* The identifier of a schema that is a document of its own; NULL. */
static const json *own_id(const schema_compiler *c, const json *s)
{
    const char *other = c->draft <= 4 ? "$id" : "id";
    const json *id = json_get(s, c->draft <= 4 ? "id" : "$id");
    if (!id && s == c->root) id = json_get(s, other); /* written for another draft */
    if (!json_is(id, JSON_STRING) || id->str[0] == '#') return NULL;
    return c->draft <= 7 && json_get(s, "$ref") ? NULL : id; /* beside $ref it does not count */
}

/* Recursion here and below: nesting of the schema text, at most SCHEMA_MAX_NESTING. */
static bool has_documents(const schema_compiler *c, const json *at, place p)
{
    if (p == SCHEMA && at != c->root && own_id(c, at)) return true;
    if (at->type != JSON_OBJECT && at->type != JSON_ARRAY) return false;
    for (const json *k = at->child; k; k = k->next)
        if (has_documents(c, k, place_of(p, k))) return true;
    return false;
}

bool schema_inner_ids(const schema_compiler *c)
{
    return has_documents(c, c->root, SCHEMA);
}

/* The innermost of the documents around s; `around` is that around at. */
static const json *document_of(const schema_compiler *c, const json *at, place p, const json *s,
                               const json *around)
{
    const json *found = NULL;
    if (p == SCHEMA && own_id(c, at)) around = at;
    if (at == s) return around;
    if (at->type != JSON_OBJECT && at->type != JSON_ARRAY) return NULL;
    for (const json *k = at->child; k && !found; k = k->next)
        found = document_of(c, k, place_of(p, k), s, around);
    return found;
}

static bool is_named(const schema_compiler *c, const json *at, const char *id, size_t n)
{
    const json *own = own_id(c, at);
    return own && strcspn(own->str, "#") == n && !memcmp(own->str, id, n);
}

static const json *document_named(const schema_compiler *c, const json *at, place p, const char *id,
                                  size_t n)
{
    const json *found = NULL;
    if (p == SCHEMA && is_named(c, at, id, n)) return at;
    if (at->type != JSON_OBJECT && at->type != JSON_ARRAY) return NULL;
    for (const json *k = at->child; k && !found; k = k->next)
        found = document_named(c, k, place_of(p, k), id, n);
    return found;
}

/* The schema with an anchor in the document `top`. */
static const json *find_anchor(const schema_compiler *c, const json *top, const json *at, place p,
                               const char *name)
{
    const json *a = json_get(at, "$anchor"), *d = json_get(at, "$dynamicAnchor"),
               *id = json_get(at, c->draft <= 4 ? "id" : "$id");
    const json *found = NULL;
    if (p == SCHEMA && at != top && own_id(c, at)) return NULL;
    if (p == SCHEMA && json_is(a, JSON_STRING) && !strcmp(a->str, name)) return at;
    if (p == SCHEMA && json_is(d, JSON_STRING) && !strcmp(d->str, name)) return at;
    if (p == SCHEMA && json_is(id, JSON_STRING) && id->str[0] == '#' && !strcmp(id->str + 1, name))
        return at;
    if (at->type != JSON_OBJECT && at->type != JSON_ARRAY) return NULL;
    for (const json *k = at->child; k && !found; k = k->next)
        found = find_anchor(c, top, k, place_of(p, k), name);
    return found;
}

/* The document that the first n bytes of a reference in s name; NULL. */
static const json *document(const schema_compiler *c, const json *s, const char *ref, size_t n)
{
    bool absolute = ref[strcspn(ref, ":/?#")] == ':';
    if (!n) return c->inner_ids ? document_of(c, c->root, SCHEMA, s, c->root) : c->root;
    if ((absolute || !c->inner_ids) && is_named(c, c->root, ref, n)) return c->root;
    return absolute ? document_named(c, c->root, SCHEMA, ref, n) : NULL;
}

const json *schema_resolve(schema_compiler *c, const json *s, const json *ref)
{
    char token[512];
    const char *p = ref->type == JSON_STRING ? ref->str : "";
    if (ref->type != JSON_STRING) {
        schema_refuse(c, "invalid_schema", s, "$ref", "not a string");
        return NULL;
    }
    size_t base = strcspn(p, "#");
    const json *at = document(c, s, p, base);
    if (!at) {
        schema_refuse(
            c, "unsupported_schema", s, "$ref",
            "\"%.80s\" is not in this document (only #, #/…, #anchor, and an absolute $id "
            "that is)",
            ref->str);
        return NULL;
    }
    p += base;
    if (*p) p++;
    if (*p && *p != '/') at = find_anchor(c, at, at, SCHEMA, p);
    while (at && *p == '/') {
        p++;
        int n = pointer_token(&p, token, sizeof token);
        if (n < 0) at = NULL;
        else if (at->type == JSON_ARRAY) {
            token[n] = 0;
            char *end;
            unsigned long i = strtoul(token, &end, 10);
            at = n && token[0] >= '0' && token[0] <= '9' && !*end ? json_at(at, i) : NULL;
        } else at = json_get_n(at, token, (size_t)n);
    }
    if (!at) schema_refuse(c, "invalid_schema", s, "$ref", "\"%.80s\" leads nowhere", ref->str);
    return at;
}
