/* schema_emit.c - a set of schemas without choices to nodes: enumerated values, and scalars as one
 * expression beside objects and arrays.
 * Owns nothing.  Refuses what cannot be enforced exactly, by name.  Thread: the compiler's. */
#include "engine/grammar/schema.h"

/* Keywords that are refused, but only where the type they speak of is still possible. */
static void refuse_unsupported(schema_compiler *c, const member *v, uint32_t n, uint32_t types)
{
    static const struct {
        const char *key, *words;
        uint32_t types;
        int since;
    } refused[] = {
        {"unevaluatedItems", "not supported", T_ARRAY, 2019},
        {"unevaluatedProperties", "not supported", T_OBJECT, 2019},
        {"$dynamicRef", "not supported", T_ALL, 2020},
        {"$recursiveRef", "not supported", T_ALL, 2019},
    };
    for (uint32_t i = 0; i < n && !c->rc; i++) {
        const json *s = v[i].s;
        if (v[i].kind != M_BASE) continue;
        for (size_t k = 0; k < sizeof refused / sizeof *refused; k++)
            if ((refused[k].types & types) && c->draft >= refused[k].since &&
                json_get(s, refused[k].key))
                schema_refuse(c, "unsupported_schema", s, refused[k].key, "%s", refused[k].words);
    }
}

/* Whether the set speaks of these keywords, or holds members of the kinds in the mask. */
static bool constrains(const member *v, uint32_t n, const char *const *keys, uint32_t kinds)
{
    for (uint32_t i = 0; i < n; i++) {
        if (kinds >> v[i].kind & 1) return true;
        for (int k = 0; v[i].kind == M_BASE && keys[k]; k++)
            if (json_get(v[i].s, keys[k])) return true;
    }
    return false;
}

/* The arrays and objects of the first enum or const that satisfy the rest of the set. */
static rx good_containers(schema_compiler *c, const member *v, uint32_t n)
{
    rx_arena *r = &c->g->r;
    rx e = R_NONE;
    for (uint32_t i = 0; i < n; i++) {
        const json *list = v[i].kind == M_BASE ? json_get(v[i].s, "enum") : NULL, *one;
        one = v[i].kind == M_BASE && !list && c->draft >= 6 ? json_get(v[i].s, "const") : NULL;
        if (!list && !one) continue;
        for (const json *x = one ? one : list->child; x && !c->rc && !r->status;
             x = one ? NULL : x->next)
            if ((x->type == JSON_ARRAY || x->type == JSON_OBJECT) && schema_holds(c, v, n, x))
                e = rx_alt2(r, e, schema_constant(c, x));
        return e;
    }
    return e;
}

/* The enumerated values that also satisfy the rest of the set. */
static uint32_t enumerated(schema_compiler *c, const member *v, uint32_t n, rx values,
                           uint32_t types, bool integer)
{
    static const char *const containers[] = {"properties",
                                             "required",
                                             "additionalProperties",
                                             "patternProperties",
                                             "minProperties",
                                             "maxProperties",
                                             "propertyNames",
                                             "items",
                                             "prefixItems",
                                             "additionalItems",
                                             "minItems",
                                             "maxItems",
                                             "contains",
                                             NULL};
    static const char *const scalar[] = {
        "minLength", "maxLength",        "pattern",          "format",     "minimum",
        "maximum",   "exclusiveMinimum", "exclusiveMaximum", "multipleOf", NULL};
    rx_arena *r = &c->g->r;
    rx open = rx_alt2(r, rx_cat(r, rx_byte(r, '{'), R_ALL), rx_cat(r, rx_byte(r, '['), R_ALL));
    const uint32_t kinds = 1u << M_FORBID | 1u << M_REQUIRE | 1u << M_PROP_NOT | 1u << M_NOT_COUNT |
                           1u << M_NOT_ITEM | 1u << M_NO_ITEM | 1u << M_SOME_KEY;
    if ((types & (T_ARRAY | T_OBJECT)) && constrains(v, n, containers, kinds) &&
        rx_live(r, rx_and2(r, values, open)))
        values = rx_and2(r, values, rx_alt2(r, rx_not(r, open), good_containers(c, v, n)));
    if (constrains(v, n, scalar, 1u << M_NOT_STRING | 1u << M_NOT_NUMBER | 1u << M_NOT_TYPE)) {
        rx ok = rx_alt2(r, open, rx_alt2(r, rx_str(r, "null"), rx_str(r, "true")));
        ok = rx_alt2(r, ok, rx_str(r, "false"));
        if (types & T_NUMBER) ok = rx_alt2(r, ok, schema_number(c, v, n, integer));
        if (types & T_STRING) ok = rx_alt2(r, ok, schema_string(c, v, n));
        values = rx_and2(r, values, ok);
    }
    if (!c->rc && !rx_live(r, values)) values = R_NONE;
    return gram_term(c->g, values);
}

uint32_t schema_emit(schema_compiler *c, const member *v, uint32_t n)
{
    gram *g = c->g;
    rx_arena *r = &g->r;
    bool integer, given = false;
    uint32_t types = schema_types(c, v, n, &integer), k = 0, out[3];
    if (c->form.level && c->form.level == c->level) {
        types &= c->form.types;
        if (c->form.raw) return gram_term(g, schema_raw(c, v, n));
    }
    if (!c->rc) refuse_unsupported(c, v, n, types);
    rx values = c->rc ? R_NONE : schema_enum(c, v, n, types, integer, &given);
    if (given && c->xml && !c->level)
        schema_refuse(c, "unsupported_schema", v[0].s, "enum", "whole arguments of a call");
    if (c->rc || r->status) return 0;
    given = given && (!c->any_value || c->level);
    if (given) values = schema_not_enum(c, v, n, types, values);
    if (given) return enumerated(c, v, n, values, types, integer);
    rx w[4] = {R_NONE, R_NONE, R_NONE, R_NONE};
    if (types & T_NULL) w[0] = rx_str(r, "null");
    if (types & T_BOOL) w[1] = rx_alt2(r, rx_str(r, "true"), rx_str(r, "false"));
    if (types & T_NUMBER) w[2] = schema_number(c, v, n, integer);
    if (types & T_STRING) w[3] = schema_string(c, v, n);
    for (int i = 2; i < 4; i++)
        if (!c->rc && w[i] != R_NONE && !rx_live(r, w[i])) w[i] = R_NONE;
    rx e = schema_not_enum(c, v, n, types, rx_alt(r, w, 4));
    if (!c->rc && e != R_NONE && !rx_live(r, e)) e = R_NONE;
    if (e != R_NONE) out[k++] = gram_term(g, e);
    if (!c->rc && types & T_OBJECT) out[k++] = schema_object(c, v, n);
    if (!c->rc && types & T_ARRAY) out[k++] = schema_array(c, v, n);
    if (c->rc || r->status) return 0;
    uint32_t m = 0;
    for (uint32_t i = 0; i < k; i++)
        if (!gram_never(g, out[i])) out[m++] = out[i];
    return gram_list(g, G_ALT, out, m);
}
