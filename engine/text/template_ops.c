/* template_ops.c - arithmetic and joining with Python's rules: true and floor division, the sign
 * of %, repetition, printf-style %.
 * Refuses what would overflow 64 bits or the memory limit.  Thread: the one that renders. */
#include "engine/text/template_ast.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const symbols[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};

_Noreturn static void unsupported(rctx *c, int op, value a, value b)
{
    if (a.kind == V_UNDEF) tpl_raise_undefined(c, a);
    if (b.kind == V_UNDEF) tpl_raise_undefined(c, b);
    if (op == BIN_ADD && a.kind == V_STR)
        raise(c, "can only concatenate str (not \"%s\") to str", tpl_type_name(b));
    if (op == BIN_ADD && (a.kind == V_LIST || a.kind == V_TUPLE))
        raise(c, "can only concatenate %s (not \"%s\") to %s", tpl_type_name(a), tpl_type_name(b),
              tpl_type_name(a));
    if (op == BIN_MUL && (a.kind == V_STR || a.kind == V_LIST || a.kind == V_TUPLE))
        raise(c, "can't multiply sequence by non-int of type '%s'", tpl_type_name(b));
    if (op == BIN_MUL && (b.kind == V_STR || b.kind == V_LIST || b.kind == V_TUPLE))
        raise(c, "can't multiply sequence by non-int of type '%s'", tpl_type_name(a));
    raise(c, "unsupported operand type(s) for %s: '%s' and '%s'", symbols[op], tpl_type_name(a),
          tpl_type_name(b));
}

_Noreturn static void overflow(rctx *c)
{
    raise(c, "integer overflow: the template computes beyond 64 bits");
}

/* Quotient and remainder as Python has them: the remainder has the sign of b.  Not for
 * INT64_MIN / -1. */
static int64_t floor_div(int64_t a, int64_t b)
{
    int64_t q = a / b;
    return q - ((a % b != 0) && ((a < 0) != (b < 0)));
}

static int64_t floor_mod(int64_t a, int64_t b)
{
    int64_t r = a % b;
    return r && (r < 0) != (b < 0) ? r + b : r;
}

static value int_power(rctx *c, int64_t a, int64_t b)
{
    if (b < 0) {
        if (!a) raise(c, "0.0 cannot be raised to a negative power");
        return v_float(pow((double)a, (double)b));
    }
    int64_t r = 1;
    if (a == 0 || a == 1) return v_int(b ? a : 1);
    if (a == -1) return v_int(b % 2 ? -1 : 1);
    for (; b; b--)
        if (__builtin_mul_overflow(r, a, &r)) overflow(c);
    return v_int(r);
}

static value int_op(rctx *c, int op, int64_t a, int64_t b)
{
    int64_t r = 0;
    bool over = false;
    if (b == 0 && (op == BIN_DIV || op == BIN_FLOORDIV || op == BIN_MOD))
        raise(c, "%s",
              op == BIN_DIV   ? "division by zero"
              : op == BIN_MOD ? "integer modulo by zero"
                              : "integer division or modulo by zero");
    switch (op) {
    case BIN_ADD: over = __builtin_add_overflow(a, b, &r); break;
    case BIN_SUB: over = __builtin_sub_overflow(a, b, &r); break;
    case BIN_MUL: over = __builtin_mul_overflow(a, b, &r); break;
    case BIN_DIV: return v_float((double)a / (double)b);
    case BIN_FLOORDIV:
        over = a == INT64_MIN && b == -1;
        if (!over) r = floor_div(a, b);
        break;
    case BIN_MOD: r = b == -1 ? 0 : floor_mod(a, b); break;
    default: return int_power(c, a, b);
    }
    if (over) overflow(c);
    return v_int(r);
}

static value float_op(rctx *c, int op, double a, double b)
{
    if (b == 0 && (op == BIN_DIV || op == BIN_FLOORDIV || op == BIN_MOD))
        raise(c, "%s",
              op == BIN_DIV   ? "float division by zero"
              : op == BIN_MOD ? "float modulo"
                              : "float floor division by zero");
    double mod;
    switch (op) {
    case BIN_ADD: return v_float(a + b);
    case BIN_SUB: return v_float(a - b);
    case BIN_MUL: return v_float(a * b);
    case BIN_DIV: return v_float(a / b);
    case BIN_POW:
        if (a == 0 && b < 0) raise(c, "0.0 cannot be raised to a negative power");
        if (a < 0 && b != floor(b) && isfinite(b)) raise(c, "complex numbers are not supported");
        mod = pow(a, b);
        if (isinf(mod) && isfinite(a) && isfinite(b))
            raise(c, "(34, 'Numerical result out of range')");
        return v_float(mod);
    default: break;
    }
    mod = fmod(a, b);
    double div = (a - mod) / b;
    if (mod != 0) {
        if ((b < 0) != (mod < 0)) {
            mod += b;
            div -= 1;
        }
    } else {
        mod = copysign(0.0, b);
    }
    if (op == BIN_MOD) return v_float(mod);
    if (div == 0) return v_float(copysign(0.0, a / b));
    double whole = floor(div);
    return v_float(div - whole > 0.5 ? whole + 1 : whole);
}

static value repeat_str(rctx *c, vstr *s, int64_t times)
{
    if (times <= 0 || !s->n) return tpl_v_text(c, "");
    if (times == 1) return v_str(s);
    if ((uint64_t)times > c->mem.limit / s->n)
        tpl_fail(c, ERR_LIMIT, "a text repeated %lld times is too large", (long long)times);
    work(c, (uint64_t)times >> 4);
    sbuild b;
    tpl_sb_init(&b, c);
    for (int64_t i = 0; i < times; i++) tpl_sb_str(&b, s);
    vstr *r = tpl_sb_done(&b);
    r->markup = s->markup;
    return v_str(r);
}

static value repeat_seq(rctx *c, value v, int64_t times)
{
    size_t n = v.q->n;
    tpl_seq_load(c, v.q);
    if (times <= 0 || !n) return v_seq(v.kind, tpl_seq_new(c, 0));
    if ((uint64_t)times > c->mem.limit / sizeof(value) / n)
        tpl_fail(c, ERR_LIMIT, "a list repeated %lld times is too large", (long long)times);
    vseq *q = tpl_seq_new(c, n * (size_t)times);
    work(c, n * (size_t)times >> 4);
    for (int64_t i = 0; i < times; i++) memcpy(q->v + (size_t)i * n, v.q->v, n * sizeof *q->v);
    q->n = n * (size_t)times;
    return v_seq(v.kind, q);
}

static value add_str(rctx *c, vstr *a, vstr *b)
{
    if (!a->markup && !b->markup) return v_str(tpl_str_concat(c, a, b));
    vstr *r = tpl_str_concat(c, tpl_str_escape(c, a), tpl_str_escape(c, b));
    r->markup = true;
    return v_str(r);
}

value tpl_binary(rctx *c, int op, value a, value b)
{
    bool seq_a = a.kind == V_LIST || a.kind == V_TUPLE,
         seq_b = b.kind == V_LIST || b.kind == V_TUPLE;
    if (tpl_is_int(a) && tpl_is_int(b)) return int_op(c, op, tpl_int_of(a), tpl_int_of(b));
    if (tpl_is_number(a) && tpl_is_number(b)) {
        if (a.kind != V_FLOAT && b.kind != V_FLOAT && op != BIN_DIV) overflow(c);
        return float_op(c, op, tpl_to_double(c, a), tpl_to_double(c, b));
    }
    if (op == BIN_ADD && a.kind == V_STR && b.kind == V_STR) return add_str(c, a.s, b.s);
    if (op == BIN_ADD && seq_a && b.kind == a.kind) return tpl_seq_concat(c, a.kind, a.q, b.q);
    if (op == BIN_MUL && a.kind == V_STR && tpl_is_int(b)) return repeat_str(c, a.s, tpl_int_of(b));
    if (op == BIN_MUL && b.kind == V_STR && tpl_is_int(a)) return repeat_str(c, b.s, tpl_int_of(a));
    if (op == BIN_MUL && seq_a && tpl_is_int(b)) return repeat_seq(c, a, tpl_int_of(b));
    if (op == BIN_MUL && seq_b && tpl_is_int(a)) return repeat_seq(c, b, tpl_int_of(a));
    if (op == BIN_MOD && a.kind == V_STR) return v_str(tpl_str_percent(c, a.s, b));
    unsupported(c, op, a, b);
}

value tpl_negate(rctx *c, value v)
{
    if (tpl_is_int(v)) return int_op(c, BIN_SUB, 0, tpl_int_of(v));
    if (v.kind == V_FLOAT) return v_float(-v.f);
    if (v.kind == V_UNDEF) tpl_raise_undefined(c, v);
    if (v.kind == V_BIG) {
        sbuild b;
        tpl_sb_init(&b, c);
        bool minus = v.s->v[0] == '-';
        if (!minus) tpl_sb_puts(&b, "-");
        tpl_sb_sub(&b, v.s, minus, v.s->n - minus);
        return tpl_parse_int(c, b.v, b.n);
    }
    raise(c, "bad operand type for unary -: '%s'", tpl_type_name(v));
}
