/* template_value.c - what values are and mean: making them, truth, equality, order, membership,
 * length, iteration; Python's rules, Python's error messages.
 * Owns nothing (arena).  Thread: the one that renders. */
#include "engine/text/template_value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tpl_fail(rctx *c, int code, const char *fmt, ...)
{
    char msg[sizeof(err){0}.msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    c->code = err_set(c->e, code, "%s", msg);
    longjmp(c->fail, 1);
}

void *tpl_take(rctx *c, size_t n)
{
    void *p = arena_alloc(&c->mem, n);
    if (!p)
        tpl_fail(c, ERR_LIMIT, "the template needs more than %zu MiB of memory",
                 c->mem.limit >> 20);
    return p;
}

void *tpl_take0(rctx *c, size_t n)
{
    return memset(tpl_take(c, n), 0, n);
}

/* ---- making ---------------------------------------------------------------------------------- */

static value undef(rctx *c, vundef u)
{
    vundef *p = tpl_take(c, sizeof *p);
    *p = u;
    return (value){.kind = V_UNDEF, .u = p};
}

value tpl_v_undef_name(rctx *c, const char *name)
{
    return undef(c, (vundef){.name = tpl_v_text(c, name)});
}

value tpl_v_undef_hint(rctx *c, const char *hint)
{
    return undef(c, (vundef){.hint = hint});
}

value tpl_v_undef_of(rctx *c, value obj, value name)
{
    return undef(c, (vundef){.has_obj = true, .obj = obj, .name = name});
}

void tpl_raise_undefined(rctx *c, value v)
{
    static const vundef nameless = {.hint = "an undefined value was used"};
    const vundef *u = v.u ? v.u : &nameless;
    if (u->hint) raise(c, "%s", u->hint);
    sbuild b;
    tpl_sb_init(&b, c);
    const char *type = !u->has_obj             ? ""
                       : u->obj.kind == V_NONE ? "None"
                       : u->obj.kind == V_NS   ? "jinja2.utils.Namespace object"
                                               : tpl_type_name(u->obj);
    bool object = u->has_obj && u->obj.kind != V_NONE && u->obj.kind != V_NS;
    if (u->security) {
        tpl_sb_puts(&b, "access to attribute ");
        tpl_put_repr(&b, u->name);
        tpl_sb_puts(&b, " of '");
        tpl_sb_puts(&b, tpl_type_name(u->obj));
        tpl_sb_puts(&b, "' object is unsafe.");
    } else if (!u->has_obj) {
        tpl_put_repr(&b, u->name);
        tpl_sb_puts(&b, " is undefined");
    } else {
        bool element = u->name.kind != V_STR;
        if (!element) tpl_sb_puts(&b, "'");
        tpl_sb_puts(&b, type);
        if (object) tpl_sb_puts(&b, " object");
        tpl_sb_puts(&b, element ? " has no element " : "' has no attribute ");
        tpl_put_repr(&b, u->name);
    }
    raise(c, "%.*s", (int)b.n, b.v);
}

/* An integer's digits without sign and leading zeros; *n is updated. */
static const char *trim_digits(const char *s, size_t *n, bool *neg)
{
    *neg = *n && *s == '-';
    if (*n && (*s == '-' || *s == '+')) {
        s++;
        --*n;
    }
    while (*n > 1 && *s == '0') {
        s++;
        --*n;
    }
    return s;
}

value tpl_parse_int(rctx *c, const char *s, size_t n)
{
    bool neg, fits = true;
    const char *d = trim_digits(s, &n, &neg);
    int64_t v = 0;
    for (size_t i = 0; i < n && fits; i++)
        fits = !__builtin_mul_overflow(v, 10, &v) &&
               !(neg ? __builtin_sub_overflow(v, d[i] - '0', &v)
                     : __builtin_add_overflow(v, d[i] - '0', &v));
    if (fits) return v_int(v);
    if (n > 4300) raise(c, "Exceeds the limit (4300 digits) for integer string conversion");
    char *text = tpl_take(c, n + 1);
    if (neg) text[0] = '-';
    memcpy(text + neg, d, n);
    return (value){.kind = V_BIG, .s = tpl_str_new(c, text, n + neg, OPEN)};
}

static value number_from_json(rctx *c, const json *j)
{
    if (memchr(j->str, '.', j->len) || memchr(j->str, 'e', j->len) || memchr(j->str, 'E', j->len))
        return v_float(json_num(j));
    return tpl_parse_int(c, j->str, j->len);
}

value tpl_v_from_json(rctx *c, const json *j, bool trusted)
{
    switch (j->type) {
    case JSON_NULL: return v_none();
    case JSON_FALSE: return v_bool(false);
    case JSON_TRUE: return v_bool(true);
    case JSON_NUMBER: return number_from_json(c, j);
    case JSON_STRING:
        return v_str(tpl_str_new(c, j->str, j->len, trusted || !j->len ? OPEN : CLOSED));
    case JSON_ARRAY: {
        vseq *q = tpl_seq_new(c, 0);
        q->n = j->len;
        q->src = j;
        q->trusted = trusted;
        return v_seq(V_LIST, q);
    }
    case JSON_OBJECT: {
        vdict *d = tpl_dict_new(c);
        d->n = j->len;
        d->src = j;
        d->trusted = trusted;
        return (value){.kind = V_DICT, .d = d};
    }
    }
    raise(c, "a value of unknown type");
}

vseq *tpl_seq_new(rctx *c, size_t cap)
{
    vseq *q = tpl_take0(c, sizeof *q);
    if (cap > SIZE_MAX / sizeof(value) / 4)
        tpl_fail(c, ERR_LIMIT, "the template builds a list that is too long");
    if (cap) q->v = tpl_take(c, cap * sizeof *q->v);
    return q;
}

void tpl_seq_push(rctx *c, vseq *q, size_t *cap, value v)
{
    if (q->n == *cap) {
        size_t more = *cap ? *cap * 2 : 8;
        value *p = tpl_take(c, more * sizeof *p);
        if (q->n) memcpy(p, q->v, q->n * sizeof *p);
        q->v = p;
        *cap = more;
    }
    q->v[q->n++] = v;
}

void tpl_seq_load(rctx *c, vseq *q)
{
    if (!q->src) return;
    const json *j = q->src;
    work(c, q->n >> 4);
    q->v = tpl_take(c, q->n * sizeof *q->v);
    size_t i = 0;
    for (const json *k = j->child; k && i < q->n; k = k->next)
        q->v[i++] = tpl_v_from_json(c, k, q->trusted);
    q->n = i;
    q->src = NULL;
}

value tpl_seq_concat(rctx *c, vkind k, vseq *a, vseq *b)
{
    tpl_seq_load(c, a);
    tpl_seq_load(c, b);
    size_t n = a->n + b->n;
    vseq *q = tpl_seq_new(c, 0);
    if (a->room && a->room >= n && *a->used == a->n) { /* nothing lies behind a: put b there */
        q->v = a->v;
        q->room = a->room;
        q->used = a->used;
    } else {
        q->room = n + n / 2 + 4;
        q->used = tpl_take(c, sizeof *q->used);
        q->v = tpl_take(c, q->room * sizeof *q->v);
        if (a->n) memcpy(q->v, a->v, a->n * sizeof *q->v);
        work(c, a->n >> 4);
    }
    if (b->n) memmove(q->v + a->n, b->v, b->n * sizeof *q->v);
    q->n = *q->used = n;
    work(c, b->n >> 4);
    return v_seq(k, q);
}

/* ---- meaning --------------------------------------------------------------------------------- */

const char *tpl_type_name(value v)
{
    switch (v.kind) {
    case V_MISSING:
    case V_UNDEF: return "Undefined";
    case V_NONE: return "NoneType";
    case V_BOOL: return "bool";
    case V_INT:
    case V_BIG: return "int";
    case V_FLOAT: return "float";
    case V_STR: return v.s->markup ? "Markup" : "str";
    case V_LIST: return "list";
    case V_TUPLE: return "tuple";
    case V_RANGE: return "range";
    case V_VIEW: return v.q->name;
    case V_GEN: return "generator";
    case V_DICT: return "dict";
    case V_NS: return "Namespace";
    case V_LOOP: return "LoopContext";
    case V_MACRO: return "Macro";
    case V_BOUND: return "builtin_function_or_method";
    case V_GLOBAL: return "function";
    case V_CYCLER: return "Cycler";
    case V_JOINER: return "Joiner";
    }
    return "object";
}

bool tpl_is_number(value v)
{
    return v.kind == V_BOOL || v.kind == V_INT || v.kind == V_BIG || v.kind == V_FLOAT;
}

bool tpl_is_int(value v)
{
    return v.kind == V_BOOL || v.kind == V_INT;
}

int64_t tpl_int_of(value v)
{
    return v.kind == V_BOOL ? v.b : v.i;
}

double tpl_to_double(rctx *c, value v)
{
    if (v.kind == V_FLOAT) return v.f;
    if (tpl_is_int(v)) return (double)tpl_int_of(v);
    double d = strtod(tpl_str_cstr(c, v.s), NULL);
    if (isinf(d)) raise(c, "int too large to convert to float");
    return d;
}

bool tpl_has_length(value v)
{
    return v.kind == V_UNDEF || v.kind == V_STR || v.kind == V_LIST || v.kind == V_TUPLE ||
           v.kind == V_RANGE || v.kind == V_VIEW || v.kind == V_DICT || v.kind == V_LOOP;
}

bool tpl_truthy(rctx *c, value v)
{
    switch (v.kind) {
    case V_MISSING:
    case V_UNDEF:
    case V_NONE: return false;
    case V_BOOL: return v.b;
    case V_INT: return v.i != 0;
    case V_FLOAT: return v.f != 0;
    case V_STR: return v.s->n != 0;
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW: return v.q->n != 0;
    case V_DICT: return v.d->n != 0;
    case V_LOOP: return tpl_length_of(c, v) != 0;
    default: return true;
    }
}

/* Compares numbers of any kind; NAN-safe: 2 means unordered. */
static int number_cmp(rctx *c, value a, value b)
{
    if (tpl_is_int(a) && tpl_is_int(b))
        return (tpl_int_of(a) > tpl_int_of(b)) - (tpl_int_of(a) < tpl_int_of(b));
    if (a.kind == V_FLOAT || b.kind == V_FLOAT) {
        double x = tpl_to_double(c, a), y = tpl_to_double(c, b);
        return isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
    }
    if (a.kind != V_BIG) return b.s->v[0] == '-' ? 1 : -1;
    if (b.kind != V_BIG) return a.s->v[0] == '-' ? -1 : 1;
    bool na = a.s->v[0] == '-', nb = b.s->v[0] == '-';
    if (na != nb) return na ? -1 : 1;
    int r = a.s->n != b.s->n ? (a.s->n > b.s->n ? 1 : -1) : tpl_str_cmp(c, a.s, b.s);
    return na ? -r : r;
}

static bool seq_equal(rctx *c, vseq *a, vseq *b)
{
    if (a->n != b->n) return false;
    tpl_seq_load(c, a);
    tpl_seq_load(c, b);
    for (size_t i = 0; i < a->n; i++)
        if (!tpl_equal(c, a->v[i], b->v[i])) return false;
    return true;
}

static bool dict_equal(rctx *c, vdict *a, vdict *b)
{
    value other;
    if (a->n != b->n) return false;
    tpl_dict_load(c, a);
    for (size_t i = 0; i < a->n; i++)
        if (!tpl_dict_get(c, b, a->v[i].key, &other) || !tpl_equal(c, a->v[i].val, other))
            return false;
    return true;
}

bool tpl_equal(rctx *c, value a, value b)
{
    work(c, 1);
    if (tpl_is_number(a) && tpl_is_number(b)) return number_cmp(c, a, b) == 0;
    if (a.kind != b.kind) return false;
    if (++c->depth > MAX_DEPTH)
        tpl_fail(c, ERR_LIMIT, "maximum recursion depth exceeded in comparison");
    bool same = false;
    switch (a.kind) {
    case V_MISSING:
    case V_UNDEF:
    case V_NONE: same = true; break;
    case V_STR: same = a.s == b.s || (a.s->n == b.s->n && !tpl_str_cmp(c, a.s, b.s)); break;
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW: same = seq_equal(c, a.q, b.q); break;
    case V_DICT: same = dict_equal(c, a.d, b.d); break;
    case V_BOUND: same = a.bound == b.bound; break;
    default: same = a.d == b.d; break; /* identity: any of the pointers */
    }
    c->depth--;
    return same;
}

int tpl_order(rctx *c, value a, value b, const char *op)
{
    work(c, 1);
    if (a.kind == V_UNDEF) tpl_raise_undefined(c, a);
    if (b.kind == V_UNDEF) tpl_raise_undefined(c, b);
    if (tpl_is_number(a) && tpl_is_number(b)) return number_cmp(c, a, b);
    if (a.kind == V_STR && b.kind == V_STR) return tpl_str_cmp(c, a.s, b.s);
    if (a.kind == b.kind && (a.kind == V_LIST || a.kind == V_TUPLE)) {
        tpl_seq_load(c, a.q);
        tpl_seq_load(c, b.q);
        size_t n = a.q->n < b.q->n ? a.q->n : b.q->n;
        for (size_t i = 0; i < n; i++) {
            if (tpl_equal(c, a.q->v[i], b.q->v[i])) continue;
            if (++c->depth > MAX_DEPTH)
                tpl_fail(c, ERR_LIMIT, "maximum recursion depth exceeded in comparison");
            int r = tpl_order(c, a.q->v[i], b.q->v[i], op);
            c->depth--;
            return r;
        }
        return (a.q->n > b.q->n) - (a.q->n < b.q->n);
    }
    raise(c, "'%s' not supported between instances of '%s' and '%s'", op, tpl_type_name(a),
          tpl_type_name(b));
}

bool tpl_is_hashable(value v)
{
    return v.kind != V_LIST && v.kind != V_DICT;
}

void tpl_check_hashable(rctx *c, value v)
{
    if (!tpl_is_hashable(v)) raise(c, "unhashable type: '%s'", tpl_type_name(v));
    if (v.kind != V_TUPLE) return;
    if (++c->depth > MAX_DEPTH) tpl_fail(c, ERR_LIMIT, "maximum recursion depth exceeded");
    for (size_t i = 0; i < v.q->n; i++) tpl_check_hashable(c, v.q->v[i]);
    c->depth--;
}

bool tpl_contains(rctx *c, value item, value in)
{
    value found;
    if (in.kind == V_STR) {
        if (item.kind == V_STR) return tpl_str_find(c, in.s, item.s, 0) != SIZE_MAX;
        raise(c, "'in <string>' requires string as left operand, not %s", tpl_type_name(item));
    }
    if (in.kind == V_DICT) {
        tpl_check_hashable(c, item);
        return tpl_dict_get(c, in.d, item, &found);
    }
    if (!tpl_is_iterable(in)) raise(c, "argument of type '%s' is not iterable", tpl_type_name(in));
    vseq *q = tpl_iterate(c, in);
    for (size_t i = 0; i < q->n; i++)
        if (tpl_equal(c, q->v[i], item)) return true;
    return false;
}

size_t tpl_length_of(rctx *c, value v)
{
    switch (v.kind) {
    case V_UNDEF: return 0;
    case V_STR: return tpl_str_chars(c, v.s);
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW: return v.q->n;
    case V_DICT: return v.d->n;
    case V_LOOP: {
        bool found;
        return (size_t)tpl_int_of(
            tpl_loop_attr(c, v.loop, tpl_str_new(c, "length", 6, OPEN), &found));
    }
    default: raise(c, "object of type '%s' has no len()", tpl_type_name(v));
    }
}

bool tpl_is_iterable(value v)
{
    return v.kind == V_GEN || (tpl_has_length(v) && v.kind != V_LOOP);
}

static vseq *characters(rctx *c, vstr *s)
{
    vseq *q = tpl_seq_new(c, tpl_str_chars(c, s));
    const char *v = tpl_str_flat(c, s);
    work(c, s->n >> 4);
    for (size_t i = 0, k; i < s->n; i += k) {
        for (k = 1; i + k < s->n && ((unsigned char)v[i + k] & 0xC0) == 0x80; k++) continue;
        vstr *one = tpl_str_sub(c, s, i, k);
        if (one->markup) one = tpl_str_new(c, v + i, k, tpl_str_closed(one) ? CLOSED : OPEN);
        q->v[q->n++] = v_str(one);
    }
    return q;
}

vseq *tpl_iterate(rctx *c, value v)
{
    switch (v.kind) {
    case V_UNDEF: return tpl_seq_new(c, 0);
    case V_STR: return characters(c, v.s);
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW: tpl_seq_load(c, v.q); return v.q;
    case V_GEN: {
        vseq *rest = tpl_seq_new(c, 0);
        rest->n = v.q->n - v.q->at;
        if (rest->n) rest->v = v.q->v + v.q->at;
        v.q->at = v.q->n;
        return rest;
    }
    case V_DICT: return tpl_dict_view(c, v.d, 0, "dict_keys");
    default: raise(c, "'%s' object is not iterable", tpl_type_name(v));
    }
}

/* ---- dictionaries ---------------------------------------------------------------------------- */

vdict *tpl_dict_new(rctx *c)
{
    return tpl_take0(c, sizeof(vdict));
}

void tpl_dict_load(rctx *c, vdict *d)
{
    if (!d->src) return;
    work(c, d->n >> 4);
    d->v = tpl_take(c, d->n * sizeof *d->v);
    d->cap = d->n;
    size_t i = 0;
    for (const json *k = d->src->child; k && i < d->n; k = k->next, i++)
        d->v[i] = (ventry){
            v_str(tpl_str_new(c, k->key, k->n_key, d->trusted || !k->n_key ? OPEN : CLOSED)),
            tpl_v_from_json(c, k, d->trusted)};
    d->n = i;
    d->src = NULL;
}

bool tpl_dict_get_text(rctx *c, vdict *d, const char *key, size_t n, value *out)
{
    tpl_dict_load(c, d);
    work(c, d->n >> 4);
    for (size_t i = 0; i < d->n; i++) {
        value k = d->v[i].key;
        if (k.kind != V_STR || k.s->n != n || memcmp(tpl_str_flat(c, k.s), key, n)) continue;
        *out = d->v[i].val;
        return true;
    }
    return false;
}

bool tpl_dict_get(rctx *c, vdict *d, value key, value *out)
{
    if (key.kind == V_STR) return tpl_dict_get_text(c, d, tpl_str_flat(c, key.s), key.s->n, out);
    tpl_dict_load(c, d);
    for (size_t i = 0; i < d->n; i++) {
        if (!tpl_equal(c, d->v[i].key, key)) continue;
        *out = d->v[i].val;
        return true;
    }
    return false;
}

void tpl_dict_set(rctx *c, vdict *d, value key, value val)
{
    tpl_dict_load(c, d);
    tpl_check_hashable(c, key);
    work(c, d->n >> 4);
    for (size_t i = 0; i < d->n; i++)
        if (tpl_equal(c, d->v[i].key, key)) {
            d->v[i].val = val;
            return;
        }
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 8;
        ventry *v = tpl_take(c, cap * sizeof *v);
        if (d->n) memcpy(v, d->v, d->n * sizeof *v);
        d->v = v;
        d->cap = cap;
    }
    d->v[d->n++] = (ventry){key, val};
}

vseq *tpl_dict_view(rctx *c, vdict *d, int what, const char *name)
{
    tpl_dict_load(c, d);
    vseq *q = tpl_seq_new(c, d->n);
    q->name = name;
    work(c, d->n >> 4);
    for (size_t i = 0; i < d->n; i++) {
        if (what < 2) {
            q->v[q->n++] = what ? d->v[i].val : d->v[i].key;
            continue;
        }
        vseq *pair = tpl_seq_new(c, 2);
        pair->v[0] = d->v[i].key;
        pair->v[1] = d->v[i].val;
        pair->n = 2;
        q->v[q->n++] = v_seq(V_TUPLE, pair);
    }
    return q;
}
