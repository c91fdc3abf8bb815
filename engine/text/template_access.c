/* template_access.c - getting at parts of values as the sandbox does: obj.name, obj[key],
 * obj[lo:hi:step].
 * Refuses (as an undefined value that raises when used) what the sandbox hides: names with a
 * leading underscore that Python objects have, methods that would change a list or dict.
 * Thread: the one that renders. */
#include "engine/text/template_value.h"

#include <string.h>

static value hidden(rctx *c, value obj, vstr *name)
{
    vundef *u = tpl_take0(c, sizeof *u);
    u->security = true;
    u->has_obj = true;
    u->obj = obj;
    u->name = v_str(name);
    return (value){.kind = V_UNDEF, .u = u};
}

/* What getattr() finds: attributes of loops and cyclers, entries of namespaces, methods. */
static bool attribute(rctx *c, value obj, vstr *name, value *out)
{
    const char *s = tpl_str_flat(c, name);
    bool found = false;
    if (obj.kind == V_NS) return tpl_dict_get_text(c, obj.d, s, name->n, out);
    if (name->n > 4 && !memcmp(s, "__", 2) && !memcmp(s + name->n - 2, "__", 2)) {
        *out = hidden(c, obj, name);
        return true;
    }
    if (obj.kind == V_LOOP) {
        *out = tpl_loop_attr(c, obj.loop, name, &found);
        return found;
    }
    if (obj.kind == V_TUPLE && obj.q->name &&
        (tpl_str_is(c, name, "grouper") || tpl_str_is(c, name, "list"))) {
        *out = obj.q->v[tpl_str_is(c, name, "list")];
        return true;
    }
    if (obj.kind == V_CYCLER && tpl_str_is(c, name, "current")) {
        *out = obj.cycle->v[obj.cycle->at];
        return true;
    }
    int m = tpl_find_method(obj, s, name->n);
    if (m == -1) return false;
    if (m == -2) {
        *out = hidden(c, obj, name);
        return true;
    }
    vbound *b = tpl_take(c, sizeof *b);
    *b = (vbound){obj, m};
    *out = (value){.kind = V_BOUND, .bound = b};
    return true;
}

/* obj[key] without the attribute fallback; false where Python raises TypeError or LookupError. */
static bool element(rctx *c, value obj, value key, value *out)
{
    if (obj.kind == V_DICT) return tpl_is_hashable(key) && tpl_dict_get(c, obj.d, key, out);
    if (!tpl_is_int(key)) return false;
    int64_t i = tpl_int_of(key), n;
    if (obj.kind == V_STR) {
        n = (int64_t)tpl_str_chars(c, obj.s);
        if (i < 0) i += n;
        if (i < 0 || i >= n) return false;
        size_t at = tpl_str_at(c, obj.s, (size_t)i), end = at + 1;
        while (end < obj.s->n && ((unsigned char)obj.s->v[end] & 0xC0) == 0x80) end++;
        *out = v_str(tpl_str_sub(c, obj.s, at, end - at));
        return true;
    }
    if (obj.kind != V_LIST && obj.kind != V_TUPLE && obj.kind != V_RANGE) return false;
    tpl_seq_load(c, obj.q);
    n = (int64_t)obj.q->n;
    if (i < 0) i += n;
    if (i < 0 || i >= n) return false;
    *out = obj.q->v[i];
    return true;
}

value tpl_get_item(rctx *c, value obj, value key)
{
    value out;
    if (obj.kind == V_UNDEF) tpl_raise_undefined(c, obj);
    if (element(c, obj, key, &out)) return out;
    if (key.kind == V_STR && attribute(c, obj, key.s, &out)) return out;
    return tpl_v_undef_of(c, obj, key);
}

value tpl_get_attr(rctx *c, value obj, vstr *name)
{
    value out;
    if (obj.kind == V_UNDEF) tpl_raise_undefined(c, obj);
    if (attribute(c, obj, name, &out)) return out;
    if (element(c, obj, v_str(name), &out)) return out;
    return tpl_v_undef_of(c, obj, v_str(name));
}

static int64_t slice_bound(rctx *c, value v, int64_t missing, int64_t n, int64_t step)
{
    if (v.kind == V_NONE || v.kind == V_MISSING) return missing;
    if (!tpl_is_int(v))
        raise(c, "slice indices must be integers or None or have an __index__ method");
    int64_t i = tpl_int_of(v);
    if (i < 0) {
        i = i < -n ? -1 : i + n;
        if (i < 0) i = step < 0 ? -1 : 0;
    } else if (i >= n) {
        i = step < 0 ? n - 1 : n;
    }
    return i;
}

/* Every step-th character from lo on, count of them; offsets of a text that is not ASCII are
 * found by walking. */
static value slice_str(rctx *c, vstr *s, int64_t lo, int64_t count, int64_t step)
{
    if (step == 1 || count <= 1) {
        size_t from = count > 0 ? tpl_str_at(c, s, (size_t)lo) : 0;
        size_t to = count > 0 ? tpl_str_at(c, s, (size_t)(lo + count)) : from;
        return v_str(tpl_str_sub(c, s, from, to - from));
    }
    sbuild b;
    tpl_sb_init(&b, c);
    vseq *q = tpl_iterate(c, v_str(s));
    work(c, (uint64_t)count);
    for (int64_t i = 0; i < count; i++) tpl_sb_str(&b, q->v[lo + i * step].s);
    vstr *r = tpl_sb_done(&b);
    r->markup = s->markup;
    return v_str(r);
}

_Noreturn static void range_overflow(rctx *c)
{
    raise(c, "integer overflow: the template computes beyond 64 bits");
}

/* The number at an index of a range, which may be one before its first or behind its last. */
static int64_t range_at(rctx *c, const vseq *q, int64_t index)
{
    int64_t v;
    if (__builtin_mul_overflow(index, q->step, &v) || __builtin_add_overflow(q->start, v, &v))
        range_overflow(c);
    return v;
}

value tpl_get_slice(rctx *c, value obj, value lo, value hi, value by)
{
    if (obj.kind == V_UNDEF) tpl_raise_undefined(c, obj);
    if (obj.kind == V_DICT) raise(c, "unhashable type: 'slice'");
    if (obj.kind != V_STR && obj.kind != V_LIST && obj.kind != V_TUPLE && obj.kind != V_RANGE)
        raise(c, "'%s' object is not subscriptable", tpl_type_name(obj));
    int64_t step = 1, n = (int64_t)tpl_length_of(c, obj), count = 0;
    if (by.kind != V_NONE && by.kind != V_MISSING) {
        if (!tpl_is_int(by))
            raise(c, "slice indices must be integers or None or have an __index__ method");
        step = tpl_int_of(by);
    }
    if (!step) raise(c, "slice step cannot be zero");
    if (step < -INT64_MAX) step = -INT64_MAX;
    int64_t from = slice_bound(c, lo, step < 0 ? n - 1 : 0, n, step);
    int64_t to = slice_bound(c, hi, step < 0 ? -1 : n, n, step);
    if (step > 0 && from < to) count = (to - from - 1) / step + 1;
    if (step < 0 && from > to) count = (from - to - 1) / -step + 1;
    if (obj.kind == V_STR) return slice_str(c, obj.s, from, count, step);
    tpl_seq_load(c, obj.q);
    vseq *q = tpl_seq_new(c, 0);
    work(c, (uint64_t)count >> 4);
    if (step == 1) {
        if (count) q->v = obj.q->v + from;
    } else {
        q->v = tpl_take(c, (size_t)count * sizeof *q->v);
        for (int64_t i = 0; i < count; i++) q->v[i] = obj.q->v[from + i * step];
    }
    q->n = (size_t)count;
    if (obj.kind == V_RANGE) {
        q->start = range_at(c, obj.q, from);
        q->stop = range_at(c, obj.q, to);
        if (__builtin_mul_overflow(obj.q->step, step, &q->step)) range_overflow(c);
    }
    return v_seq(obj.kind, q);
}
