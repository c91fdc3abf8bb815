/* template_tests.c - what may stand behind `is`.  Thread: the one that renders. */
#include "engine/text/template_ast.h"

#include <string.h>

static value one(rctx *c, const args *a, const char *who)
{
    value v;
    tpl_bind(c, who, a, "other", &v);
    if (v.kind == V_MISSING) raise(c, "%s() missing 1 required positional argument", who);
    return v;
}

static value modulo(rctx *c, value v, value by)
{
    return tpl_binary(c, BIN_MOD, v, by);
}

static bool t_odd(rctx *c, value v, const args *a)
{
    tpl_bind(c, "test_odd", a, "", NULL);
    return tpl_equal(c, modulo(c, v, v_int(2)), v_int(1));
}

static bool t_even(rctx *c, value v, const args *a)
{
    tpl_bind(c, "test_even", a, "", NULL);
    return tpl_equal(c, modulo(c, v, v_int(2)), v_int(0));
}

static bool t_divisibleby(rctx *c, value v, const args *a)
{
    return tpl_equal(c, modulo(c, v, one(c, a, "test_divisibleby")), v_int(0));
}

#define PLAIN(name, condition)                            \
    static bool t_##name(rctx *c, value v, const args *a) \
    {                                                     \
        tpl_bind(c, "test_" #name, a, "", NULL);          \
        return condition;                                 \
    }
PLAIN(defined, v.kind != V_UNDEF)
PLAIN(undefined, v.kind == V_UNDEF)
PLAIN(none, v.kind == V_NONE)
PLAIN(boolean, v.kind == V_BOOL)
PLAIN(false, v.kind == V_BOOL && !v.b)
PLAIN(true, v.kind == V_BOOL && v.b)
PLAIN(integer, v.kind == V_INT || v.kind == V_BIG)
PLAIN(float, v.kind == V_FLOAT)
PLAIN(number, tpl_is_number(v))
PLAIN(string, v.kind == V_STR)
PLAIN(mapping, v.kind == V_DICT)
PLAIN(sequence, tpl_has_length(v) && v.kind != V_VIEW && v.kind != V_LOOP)
PLAIN(iterable, tpl_is_iterable(v) || v.kind == V_LOOP)
PLAIN(callable, v.kind == V_UNDEF || v.kind == V_LOOP || v.kind == V_MACRO || v.kind == V_BOUND ||
                    v.kind == V_GLOBAL || v.kind == V_JOINER)
PLAIN(escaped, v.kind == V_STR && v.s->markup)
PLAIN(lower, tpl_str_is_class(c, tpl_to_str(c, v), IS_LOWER))
PLAIN(upper, tpl_str_is_class(c, tpl_to_str(c, v), IS_UPPER))
PLAIN(filter, v.kind == V_STR && tpl_find_filter(tpl_str_flat(c, v.s), v.s->n))
PLAIN(test, v.kind == V_STR && tpl_find_test(tpl_str_flat(c, v.s), v.s->n))

static bool t_sameas(rctx *c, value v, const args *a)
{
    value w = one(c, a, "test_sameas");
    if (v.kind != w.kind) return false;
    if (v.kind == V_LIST || v.kind == V_TUPLE) return v.q == w.q;
    if (v.kind == V_DICT) return v.d == w.d;
    return tpl_equal(c, v, w);
}

static bool t_in(rctx *c, value v, const args *a)
{
    return tpl_contains(c, v, one(c, a, "test_in"));
}

static bool t_eq(rctx *c, value v, const args *a)
{
    return tpl_equal(c, v, one(c, a, "eq"));
}

static bool t_ne(rctx *c, value v, const args *a)
{
    return !tpl_equal(c, v, one(c, a, "ne"));
}

static bool t_gt(rctx *c, value v, const args *a)
{
    return tpl_order(c, v, one(c, a, "gt"), ">") == 1;
}

static bool t_ge(rctx *c, value v, const args *a)
{
    int r = tpl_order(c, v, one(c, a, "ge"), ">=");
    return r == 0 || r == 1;
}

static bool t_lt(rctx *c, value v, const args *a)
{
    return tpl_order(c, v, one(c, a, "lt"), "<") == -1;
}

static bool t_le(rctx *c, value v, const args *a)
{
    int r = tpl_order(c, v, one(c, a, "le"), "<=");
    return r == 0 || r == -1;
}

const test_fn *tpl_find_test(const char *name, size_t n)
{
    static const test_fn table[] = {
        {"defined", t_defined},
        {"undefined", t_undefined},
        {"none", t_none},
        {"boolean", t_boolean},
        {"false", t_false},
        {"true", t_true},
        {"integer", t_integer},
        {"float", t_float},
        {"number", t_number},
        {"string", t_string},
        {"mapping", t_mapping},
        {"sequence", t_sequence},
        {"iterable", t_iterable},
        {"callable", t_callable},
        {"escaped", t_escaped},
        {"lower", t_lower},
        {"upper", t_upper},
        {"filter", t_filter},
        {"test", t_test},
        {"sameas", t_sameas},
        {"in", t_in},
        {"odd", t_odd},
        {"even", t_even},
        {"divisibleby", t_divisibleby},
        {"==", t_eq},
        {"eq", t_eq},
        {"equalto", t_eq},
        {"!=", t_ne},
        {"ne", t_ne},
        {">", t_gt},
        {"gt", t_gt},
        {"greaterthan", t_gt},
        {">=", t_ge},
        {"ge", t_ge},
        {"<", t_lt},
        {"lt", t_lt},
        {"lessthan", t_lt},
        {"<=", t_le},
        {"le", t_le},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (tpl_is_name(table[i].name, name, n)) return &table[i];
    return NULL;
}
