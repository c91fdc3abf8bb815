/* template_methods.c - the methods of strings, dicts, lists, tuples, loops and cyclers.
 * Refuses methods that would change a value (as the sandbox does) and, when called, Python methods
 * no template needs.  Thread: the one that renders. */
#include "engine/text/template_value.h"

#include <math.h>
#include <string.h>

typedef value method_fn(rctx *c, value self, const args *a);

/* ---- strings --------------------------------------------------------------------------------- */

/* The part of s that optional start and end arguments choose; *from is its byte offset. */
static vstr *part(rctx *c, vstr *s, value start, value end, size_t *from)
{
    *from = 0;
    if (start.kind == V_MISSING && end.kind == V_MISSING)
        return s; /* without counting a long text */
    int64_t n = (int64_t)tpl_str_chars(c, s), lo = tpl_arg_int(c, start, 0),
            hi = tpl_arg_int(c, end, n);
    if (lo < 0) lo = lo < -n ? 0 : lo + n;
    if (hi < 0) hi = hi < -n ? 0 : hi + n;
    if (hi > n) hi = n;
    if (lo > hi) {
        *from = SIZE_MAX; /* nothing is found in it, not even "" */
        return tpl_str_sub(c, s, 0, 0);
    }
    *from = tpl_str_at(c, s, (size_t)lo);
    return tpl_str_sub(c, s, *from, tpl_str_at(c, s, (size_t)hi) - *from);
}

static bool begins(rctx *c, vstr *s, vstr *with)
{
    return with->n <= s->n && !memcmp(tpl_str_flat(c, s), tpl_str_flat(c, with), with->n);
}

static bool ends(rctx *c, vstr *s, vstr *with)
{
    return with->n <= s->n &&
           !memcmp(tpl_str_flat(c, s) + s->n - with->n, tpl_str_flat(c, with), with->n);
}

static value affix(rctx *c, value self, const args *a, const char *who,
                   bool (*fits)(rctx *, vstr *, vstr *))
{
    value v[3];
    size_t from;
    tpl_bind(c, who, a, "prefix start end", v);
    vstr *s = part(c, self.s, v[1], v[2], &from);
    if (v[0].kind == V_STR) return v_bool(from != SIZE_MAX && fits(c, s, v[0].s));
    if (v[0].kind == V_UNDEF) tpl_raise_undefined(c, v[0]);
    if (v[0].kind != V_TUPLE)
        raise(c, "%s first arg must be str or a tuple of str, not %s", who, tpl_type_name(v[0]));
    for (size_t i = 0; i < v[0].q->n; i++) {
        value p = v[0].q->v[i];
        if (p.kind != V_STR)
            raise(c, "tuple for %s must only contain str, not %s", who, tpl_type_name(p));
        if (from != SIZE_MAX && fits(c, s, p.s)) return v_bool(true);
    }
    return v_bool(false);
}

static value s_startswith(rctx *c, value self, const args *a)
{
    return affix(c, self, a, "startswith", begins);
}

static value s_endswith(rctx *c, value self, const args *a)
{
    return affix(c, self, a, "endswith", ends);
}

static value strip(rctx *c, value self, const args *a, const char *who, bool left, bool right)
{
    value v;
    tpl_bind(c, who, a, "chars", &v);
    if (v.kind != V_MISSING && v.kind != V_NONE && v.kind != V_STR && v.kind != V_UNDEF)
        raise(c, "%s arg must be None or str", who);
    return v_str(tpl_str_strip(c, self.s, tpl_arg_str(c, v), left, right));
}

static value s_strip(rctx *c, value self, const args *a)
{
    return strip(c, self, a, "strip", true, true);
}

static value s_lstrip(rctx *c, value self, const args *a)
{
    return strip(c, self, a, "lstrip", true, false);
}

static value s_rstrip(rctx *c, value self, const args *a)
{
    return strip(c, self, a, "rstrip", false, true);
}

static value split(rctx *c, value self, const args *a, const char *who, bool from_right)
{
    value v[2];
    tpl_bind(c, who, a, "sep maxsplit", v);
    if (v[0].kind != V_MISSING && v[0].kind != V_NONE && v[0].kind != V_STR && v[0].kind != V_UNDEF)
        raise(c, "must be str or None, not %s", tpl_type_name(v[0]));
    return tpl_str_split(c, self.s, tpl_arg_str(c, v[0]), tpl_arg_int(c, v[1], -1), from_right);
}

static value s_split(rctx *c, value self, const args *a)
{
    return split(c, self, a, "split", false);
}

static value s_rsplit(rctx *c, value self, const args *a)
{
    return split(c, self, a, "rsplit", true);
}

static value s_splitlines(rctx *c, value self, const args *a)
{
    value v;
    tpl_bind(c, "splitlines", a, "keepends", &v);
    return tpl_str_splitlines(c, self.s, tpl_arg_bool(c, v, false));
}

static vstr *want_str(rctx *c, value v, const char *who, int at)
{
    if (v.kind == V_UNDEF) tpl_raise_undefined(c, v);
    if (v.kind == V_MISSING) raise(c, "%s expected at least %d arguments", who, at);
    if (v.kind != V_STR)
        raise(c, "%s() argument %d must be str, not %s", who, at, tpl_type_name(v));
    return v.s;
}

static value s_replace(rctx *c, value self, const args *a)
{
    value v[3];
    tpl_bind(c, "replace", a, "old new count", v);
    vstr *old = want_str(c, v[0], "replace", 1), *with = want_str(c, v[1], "replace", 2);
    if (self.s->markup) {
        old = tpl_str_escape(c, old);
        with = tpl_str_escape(c, with);
    }
    return v_str(tpl_str_replace(c, self.s, old, with, tpl_arg_int(c, v[2], -1)));
}

static value no_args(rctx *c, const args *a, const char *who)
{
    if (a->n || a->n_kw) raise(c, "str.%s() takes no arguments (%zu given)", who, a->n + a->n_kw);
    return v_none();
}

#define CASING(name, how)                                     \
    static value s_##name(rctx *c, value self, const args *a) \
    {                                                         \
        no_args(c, a, #name);                                 \
        return v_str(tpl_str_case(c, self.s, how));           \
    }
CASING(upper, CASE_UPPER)
CASING(lower, CASE_LOWER)
CASING(title, CASE_TITLE)
CASING(capitalize, CASE_CAPITALIZE)
CASING(swapcase, CASE_SWAP)

#define CLASS(name, which)                                    \
    static value s_##name(rctx *c, value self, const args *a) \
    {                                                         \
        no_args(c, a, #name);                                 \
        return v_bool(tpl_str_is_class(c, self.s, which));    \
    }
CLASS(isalpha, IS_ALPHA)
CLASS(isdigit, IS_DIGIT)
CLASS(isdecimal, IS_DIGIT)
CLASS(isalnum, IS_ALNUM)
CLASS(isspace, IS_SPACE)
CLASS(islower, IS_LOWER)
CLASS(isupper, IS_UPPER)
CLASS(isnumeric, IS_NUMERIC)
CLASS(istitle, IS_TITLE)

static value s_isascii(rctx *c, value self, const args *a)
{
    no_args(c, a, "isascii");
    return v_bool(tpl_str_ascii(c, self.s));
}

static value s_join(rctx *c, value self, const args *a)
{
    value v;
    sbuild b;
    tpl_bind(c, "join", a, "iterable", &v);
    if (v.kind == V_UNDEF || v.kind == V_MISSING || !tpl_is_iterable(v)) {
        if (v.kind != V_UNDEF) raise(c, "can only join an iterable");
        return tpl_v_text(c, "");
    }
    vseq *q = tpl_iterate(c, v);
    tpl_sb_init(&b, c);
    for (size_t i = 0; i < q->n; i++) {
        if (q->v[i].kind != V_STR)
            raise(c, "sequence item %zu: expected str instance, %s found", i,
                  tpl_type_name(q->v[i]));
        work(c, 1);
        if (i) tpl_sb_str(&b, self.s);
        tpl_sb_str(&b, self.s->markup ? tpl_str_escape(c, q->v[i].s) : q->v[i].s);
    }
    vstr *r = tpl_sb_done(&b);
    r->markup = self.s->markup;
    return v_str(r);
}

/* Position in characters of what find and its relatives found; -1 for none. */
static int64_t search(rctx *c, value self, const args *a, const char *who, bool last)
{
    value v[3];
    size_t from;
    tpl_bind(c, who, a, "sub start end", v);
    vstr *sub = want_str(c, v[0], who, 1), *s = part(c, self.s, v[1], v[2], &from);
    if (from == SIZE_MAX) return -1;
    size_t hit = last ? tpl_str_rfind(c, s, sub) : tpl_str_find(c, s, sub, 0);
    if (hit == SIZE_MAX) return -1;
    return (int64_t)tpl_str_chars(c, tpl_str_sub(c, self.s, 0, from + hit));
}

static value s_find(rctx *c, value self, const args *a)
{
    return v_int(search(c, self, a, "find", false));
}

static value s_rfind(rctx *c, value self, const args *a)
{
    return v_int(search(c, self, a, "rfind", true));
}

static value s_index(rctx *c, value self, const args *a)
{
    int64_t at = search(c, self, a, "index", false);
    if (at < 0) raise(c, "substring not found");
    return v_int(at);
}

static value s_rindex(rctx *c, value self, const args *a)
{
    int64_t at = search(c, self, a, "rindex", true);
    if (at < 0) raise(c, "substring not found");
    return v_int(at);
}

static value s_count(rctx *c, value self, const args *a)
{
    value v[3];
    size_t from;
    tpl_bind(c, "count", a, "sub start end", v);
    vstr *sub = want_str(c, v[0], "count", 1), *s = part(c, self.s, v[1], v[2], &from);
    if (from == SIZE_MAX) return v_int(0);
    if (!sub->n) return v_int((int64_t)tpl_str_chars(c, s) + 1);
    int64_t n = 0;
    for (size_t at = 0; (at = tpl_str_find(c, s, sub, at)) != SIZE_MAX; at += sub->n) n++;
    return v_int(n);
}

static value partition(rctx *c, value self, const args *a, const char *who, bool last)
{
    value v;
    tpl_bind(c, who, a, "sep", &v);
    vstr *sep = want_str(c, v, who, 1), *s = self.s, *none = tpl_str_sub(c, s, 0, 0);
    if (!sep->n) raise(c, "empty separator");
    size_t hit = last ? tpl_str_rfind(c, s, sep) : tpl_str_find(c, s, sep, 0);
    vseq *q = tpl_seq_new(c, 3);
    q->n = 3;
    bool found = hit != SIZE_MAX;
    vstr *head = found ? tpl_str_sub(c, s, 0, hit) : last ? none : s;
    vstr *tail = found ? tpl_str_sub(c, s, hit + sep->n, s->n - hit - sep->n) : last ? s : none;
    q->v[0] = v_str(head);
    q->v[1] = v_str(found ? sep : none);
    q->v[2] = v_str(tail);
    return v_seq(V_TUPLE, q);
}

static value s_partition(rctx *c, value self, const args *a)
{
    return partition(c, self, a, "partition", false);
}

static value s_rpartition(rctx *c, value self, const args *a)
{
    return partition(c, self, a, "rpartition", true);
}

static value s_removeprefix(rctx *c, value self, const args *a)
{
    value v;
    tpl_bind(c, "removeprefix", a, "prefix", &v);
    vstr *p = want_str(c, v, "removeprefix", 1);
    return v_str(begins(c, self.s, p) ? tpl_str_sub(c, self.s, p->n, self.s->n - p->n) : self.s);
}

static value s_removesuffix(rctx *c, value self, const args *a)
{
    value v;
    tpl_bind(c, "removesuffix", a, "suffix", &v);
    vstr *p = want_str(c, v, "removesuffix", 1);
    return v_str(ends(c, self.s, p) ? tpl_str_sub(c, self.s, 0, self.s->n - p->n) : self.s);
}

/* Padding to a width: side -1 text left, 0 centred, 1 text right. */
static value pad(rctx *c, value self, const args *a, const char *who, int side)
{
    value v[2];
    tpl_bind(c, who, a, "width fillchar", v);
    int64_t want = tpl_arg_int(c, v[0], 0), have = (int64_t)tpl_str_chars(c, self.s);
    vstr *fill = tpl_arg_str(c, v[1]);
    if (fill && tpl_str_chars(c, fill) != 1)
        raise(c, "The fill character must be exactly one character long");
    if (want <= have) return self;
    int64_t all = want - have, left = side < 0 ? 0 : side > 0 ? all : all / 2 + (all & want & 1);
    if ((uint64_t)all > c->mem.limit)
        tpl_fail(c, ERR_LIMIT, "%s(): width %lld is too large", who, (long long)want);
    work(c, (uint64_t)all >> 4);
    sbuild b;
    tpl_sb_init(&b, c);
    for (int64_t i = 0; i <= all; i++) {
        if (i == left) tpl_sb_str(&b, self.s);
        if (i < all && fill) tpl_sb_str(&b, fill);
        else if (i < all) tpl_sb_puts(&b, " ");
    }
    return v_str(tpl_sb_done(&b));
}

static value s_center(rctx *c, value self, const args *a)
{
    return pad(c, self, a, "center", 0);
}

static value s_ljust(rctx *c, value self, const args *a)
{
    return pad(c, self, a, "ljust", -1);
}

static value s_rjust(rctx *c, value self, const args *a)
{
    return pad(c, self, a, "rjust", 1);
}

static value s_zfill(rctx *c, value self, const args *a)
{
    value v, two[2] = {v_none(), tpl_v_text(c, "0")};
    tpl_bind(c, "zfill", a, "width", &v);
    const char *s = tpl_str_flat(c, self.s);
    bool sign = self.s->n && (s[0] == '-' || s[0] == '+');
    int64_t width = tpl_arg_int(c, v, 0);
    two[0] = v_int(width > 0 ? width - sign : 0);
    args inner = {.pos = two, .n = 2};
    if (!sign) return pad(c, self, &inner, "zfill", 1);
    value rest = pad(c, v_str(tpl_str_sub(c, self.s, 1, self.s->n - 1)), &inner, "zfill", 1);
    return v_str(tpl_str_concat(c, tpl_str_sub(c, self.s, 0, 1), rest.s));
}

static value s_format(rctx *c, value self, const args *a)
{
    return v_str(tpl_str_format(c, self.s, a));
}

/* ---- containers ------------------------------------------------------------------------------ */

static value d_get(rctx *c, value self, const args *a)
{
    value v[2], out;
    tpl_bind(c, "get", a, "key default", v);
    if (v[0].kind == V_MISSING) raise(c, "get expected at least 1 argument, got 0");
    tpl_check_hashable(c, v[0]);
    if (tpl_dict_get(c, self.d, v[0], &out)) return out;
    return v[1].kind == V_MISSING ? v_none() : v[1];
}

static value d_keys(rctx *c, value self, const args *a)
{
    no_args(c, a, "keys");
    return v_seq(V_VIEW, tpl_dict_view(c, self.d, 0, "dict_keys"));
}

static value d_values(rctx *c, value self, const args *a)
{
    no_args(c, a, "values");
    return v_seq(V_VIEW, tpl_dict_view(c, self.d, 1, "dict_values"));
}

static value d_items(rctx *c, value self, const args *a)
{
    no_args(c, a, "items");
    return v_seq(V_VIEW, tpl_dict_view(c, self.d, 2, "dict_items"));
}

static value copy(rctx *c, value self, const args *a)
{
    no_args(c, a, "copy"); /* values never change, so the same one will do */
    return self;
}

static value l_index(rctx *c, value self, const args *a)
{
    value v[3];
    tpl_bind(c, "index", a, "value start stop", v);
    vseq *q = tpl_iterate(c, self);
    int64_t n = (int64_t)q->n, lo = tpl_arg_int(c, v[1], 0), hi = tpl_arg_int(c, v[2], n);
    if (lo < 0) lo = lo < -n ? 0 : lo + n;
    if (hi < 0) hi += n;
    for (int64_t i = lo; i < hi && i < n; i++)
        if (tpl_equal(c, q->v[i], v[0])) return v_int(i);
    sbuild b;
    tpl_sb_init(&b, c);
    tpl_put_repr(&b, v[0]);
    raise(c, "%.*s is not in list", (int)(b.n < 200 ? b.n : 200), b.v);
}

static value l_count(rctx *c, value self, const args *a)
{
    value v;
    int64_t n = 0;
    tpl_bind(c, "count", a, "value", &v);
    vseq *q = tpl_iterate(c, self);
    for (size_t i = 0; i < q->n; i++) n += tpl_equal(c, q->v[i], v);
    return v_int(n);
}

static value f_is_integer(rctx *c, value self, const args *a)
{
    no_args(c, a, "is_integer");
    return v_bool(isfinite(self.f) && floor(self.f) == self.f);
}

static value y_next(rctx *c, value self, const args *a)
{
    no_args(c, a, "next");
    vcycle *y = self.cycle;
    value v = y->v[y->at];
    y->at = (y->at + 1) % y->n;
    return v;
}

static value y_reset(rctx *c, value self, const args *a)
{
    no_args(c, a, "reset");
    self.cycle->at = 0;
    return v_none();
}

static value o_cycle(rctx *c, value self, const args *a)
{
    return tpl_loop_call(c, self.loop, 0, a);
}

static value o_changed(rctx *c, value self, const args *a)
{
    return tpl_loop_call(c, self.loop, 1, a);
}

/* ---- the table ------------------------------------------------------------------------------- */

typedef struct {
    vkind kind;
    const char *name;
    method_fn *fn; /* NULL: Python has it, we do not */
    bool hidden;   /* the sandbox refuses it */
} method;

#define STR(n)                  \
    {                           \
        V_STR, #n, s_##n, false \
    }
#define NOT_OURS(k, n)    \
    {                     \
        k, n, NULL, false \
    }
#define HIDDEN(k, n)     \
    {                    \
        k, n, NULL, true \
    }
static const method methods[] = {
    STR(startswith),
    STR(endswith),
    STR(strip),
    STR(lstrip),
    STR(rstrip),
    STR(split),
    STR(rsplit),
    STR(splitlines),
    STR(replace),
    STR(upper),
    STR(lower),
    STR(title),
    STR(capitalize),
    STR(swapcase),
    STR(isalpha),
    STR(isdigit),
    STR(isdecimal),
    STR(isalnum),
    STR(isspace),
    STR(islower),
    STR(isupper),
    STR(isnumeric),
    STR(istitle),
    STR(isascii),
    STR(join),
    STR(find),
    STR(rfind),
    STR(index),
    STR(rindex),
    STR(count),
    STR(partition),
    STR(rpartition),
    STR(removeprefix),
    STR(removesuffix),
    STR(center),
    STR(ljust),
    STR(rjust),
    STR(zfill),
    STR(format),
    NOT_OURS(V_STR, "casefold"),
    NOT_OURS(V_STR, "encode"),
    NOT_OURS(V_STR, "expandtabs"),
    NOT_OURS(V_STR, "format_map"),
    NOT_OURS(V_STR, "isidentifier"),
    NOT_OURS(V_STR, "isprintable"),
    NOT_OURS(V_STR, "maketrans"),
    NOT_OURS(V_STR, "translate"),
    {V_DICT, "get", d_get, false},
    {V_DICT, "keys", d_keys, false},
    {V_DICT, "values", d_values, false},
    {V_DICT, "items", d_items, false},
    {V_DICT, "copy", copy, false},
    NOT_OURS(V_DICT, "fromkeys"),
    HIDDEN(V_DICT, "clear"),
    HIDDEN(V_DICT, "pop"),
    HIDDEN(V_DICT, "popitem"),
    HIDDEN(V_DICT, "setdefault"),
    HIDDEN(V_DICT, "update"),
    {V_LIST, "index", l_index, false},
    {V_LIST, "count", l_count, false},
    {V_LIST, "copy", copy, false},
    HIDDEN(V_LIST, "append"),
    HIDDEN(V_LIST, "clear"),
    HIDDEN(V_LIST, "extend"),
    HIDDEN(V_LIST, "insert"),
    HIDDEN(V_LIST, "pop"),
    HIDDEN(V_LIST, "remove"),
    HIDDEN(V_LIST, "reverse"),
    HIDDEN(V_LIST, "sort"),
    {V_TUPLE, "index", l_index, false},
    {V_TUPLE, "count", l_count, false},
    {V_RANGE, "index", l_index, false},
    {V_RANGE, "count", l_count, false},
    {V_FLOAT, "is_integer", f_is_integer, false},
    {V_CYCLER, "next", y_next, false},
    {V_CYCLER, "reset", y_reset, false},
    {V_LOOP, "cycle", o_cycle, false},
    {V_LOOP, "changed", o_changed, false},
};

static int lookup(vkind kind, const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (methods[i].kind == kind && tpl_is_name(methods[i].name, name, n)) return (int)i;
    return -1;
}

int tpl_find_method(value self, const char *name, size_t n)
{
    int i = lookup(self.kind, name, n);
    return i >= 0 && methods[i].hidden ? -2 : i;
}

int tpl_loop_method(const char *name, size_t n)
{
    return lookup(V_LOOP, name, n);
}

const char *tpl_method_name(int m)
{
    return methods[m].name;
}

value tpl_call_method(rctx *c, const vbound *m, const args *a)
{
    const method *f = &methods[m->method];
    if (!f->fn)
        raise(c, "the method '%s' of '%s' is not supported", f->name, tpl_type_name(m->self));
    work(c, 1);
    return f->fn(c, m->self, a);
}
