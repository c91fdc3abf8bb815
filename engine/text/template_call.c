/* template_call.c - arguments of built-in functions, and the global functions of a template.
 * Owns nothing (arena).  Thread: the one that renders. */
#include "engine/text/template_value.h"

#include <string.h>

static bool is_word(const char *names, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = names; *p;) {
        size_t len = strcspn(p, " ");
        if (len == n && !memcmp(p, name, n)) return true;
        p += len + (p[len] == ' ');
    }
    return false;
}

void tpl_bind(rctx *c, const char *who, const args *a, const char *names, value *out)
{
    size_t n = 0, used = 0;
    for (const char *p = names; *p;) {
        size_t len = strcspn(p, " ");
        out[n] = n < a->n ? a->pos[n] : (value){.kind = V_MISSING};
        for (size_t i = 0; i < a->n_kw; i++) {
            if (strncmp(a->kw[i].name, p, len) || a->kw[i].name[len]) continue;
            if (n < a->n)
                raise(c, "%s() got multiple values for argument '%s'", who, a->kw[i].name);
            out[n] = a->kw[i].v;
            used++;
        }
        n++;
        p += len + (p[len] == ' ');
    }
    if (a->n > n) raise(c, "%s() takes at most %zu arguments (%zu given)", who, n, a->n);
    if (used == a->n_kw) return;
    for (size_t i = 0; i < a->n_kw; i++)
        if (!is_word(names, a->kw[i].name))
            raise(c, "%s() got an unexpected keyword argument '%s'", who, a->kw[i].name);
}

int64_t tpl_arg_int(rctx *c, value v, int64_t missing)
{
    if (v.kind == V_MISSING || v.kind == V_NONE) return missing;
    if (v.kind == V_UNDEF) tpl_raise_undefined(c, v);
    if (v.kind == V_BIG) return v.s->v[0] == '-' ? INT64_MIN : INT64_MAX;
    if (!tpl_is_int(v))
        raise(c, "'%s' object cannot be interpreted as an integer", tpl_type_name(v));
    return tpl_int_of(v);
}

vstr *tpl_arg_str(rctx *c, value v)
{
    if (v.kind == V_MISSING || v.kind == V_NONE) return NULL;
    if (v.kind == V_UNDEF) tpl_raise_undefined(c, v);
    if (v.kind != V_STR) raise(c, "argument must be str, not %s", tpl_type_name(v));
    return v.s;
}

bool tpl_arg_bool(rctx *c, value v, bool missing)
{
    return v.kind == V_MISSING ? missing : tpl_truthy(c, v);
}

/* ---- globals --------------------------------------------------------------------------------- */

static value g_raise(rctx *c, const args *a)
{
    value v;
    tpl_bind(c, "raise_exception", a, "message", &v);
    vstr *s = tpl_to_str(c, v);
    tpl_str_flat(c, s);
    raise(c, "%.*s", (int)(s->n < 470 ? s->n : 470), s->v);
}

static value g_strftime(rctx *c, const args *a)
{
    value v;
    char text[512];
    struct tm tm;
    tpl_bind(c, "strftime_now", a, "format", &v);
    vstr *s = tpl_arg_str(c, v);
    if (!s) raise(c, "strftime_now() missing 1 required positional argument: 'format'");
    if (s->n > 200) raise(c, "strftime_now(): the format is longer than 200 bytes");
    localtime_r(&c->now, &tm);
    size_t n = s->n ? strftime(text, sizeof text, tpl_str_cstr(c, s), &tm) : 0;
    char *copy = arena_copy(&c->mem, text, n);
    if (!copy) tpl_fail(c, ERR_NOMEM, "out of memory");
    return v_str(tpl_str_new(c, copy, n, tpl_str_closed(s) ? CLOSED : OPEN));
}

/* dict(mapping or pairs, name=value ...), the base of namespace() too. */
static vdict *build_dict(rctx *c, const char *who, const args *a)
{
    vdict *d = tpl_dict_new(c);
    if (a->n > 1) raise(c, "%s expected at most 1 argument, got %zu", who, a->n);
    if (a->n && a->pos[0].kind == V_DICT) {
        vdict *from = a->pos[0].d;
        tpl_dict_load(c, from);
        for (size_t i = 0; i < from->n; i++) tpl_dict_set(c, d, from->v[i].key, from->v[i].val);
    } else if (a->n) {
        vseq *q = tpl_iterate(c, a->pos[0]);
        for (size_t i = 0; i < q->n; i++) {
            vseq *pair = tpl_is_iterable(q->v[i]) ? tpl_iterate(c, q->v[i]) : NULL;
            if (!pair)
                raise(c, "cannot convert dictionary update sequence element #%zu to a sequence", i);
            if (pair->n != 2)
                raise(c, "dictionary update sequence element #%zu has length %zu; 2 is required", i,
                      pair->n);
            tpl_dict_set(c, d, pair->v[0], pair->v[1]);
        }
    }
    for (size_t i = 0; i < a->n_kw; i++)
        tpl_dict_set(c, d, tpl_v_text(c, a->kw[i].name), a->kw[i].v);
    return d;
}

static value g_dict(rctx *c, const args *a)
{
    return (value){.kind = V_DICT, .d = build_dict(c, "dict", a)};
}

static value g_namespace(rctx *c, const args *a)
{
    vdict *d = build_dict(c, "namespace", a);
    for (size_t i = 0; i < d->n; i++) {
        value k = d->v[i].key;
        if (k.kind == V_STR && k.s->n && tpl_str_flat(c, k.s)[0] == '_')
            raise(c,
                  "Chat templates cannot store underscore-prefixed attributes on a namespace, but "
                  "got '%.*s'. "
                  "Please rename the attribute.",
                  (int)(k.s->n < 200 ? k.s->n : 200), k.s->v);
    }
    return (value){.kind = V_NS, .d = d};
}

static value g_range(rctx *c, const args *a)
{
    if (a->n_kw) raise(c, "range() takes no keyword arguments");
    if (!a->n || a->n > 3)
        raise(c, "range expected at %s, got %zu", a->n ? "most 3 arguments" : "least 1 argument",
              a->n);
    int64_t part[3] = {0, 0, 1}, count = 0, span;
    for (size_t i = 0; i < a->n; i++) {
        if (a->pos[i].kind == V_NONE)
            raise(c, "'NoneType' object cannot be interpreted as an integer");
        part[a->n == 1 ? 1 : i] = tpl_arg_int(c, a->pos[i], 0);
    }
    int64_t from = part[0], to = part[1], step = part[2];
    if (!step) raise(c, "range() arg 3 must not be zero");
    bool up = step > 0;
    if (up ? from < to : from > to) {
        bool wide =
            up ? __builtin_sub_overflow(to, from, &span) : __builtin_sub_overflow(from, to, &span);
        if (!wide && step != INT64_MIN) count = (span - 1) / (up ? step : -step) + 1;
        else count = wide ? INT64_MAX : 1;
    }
    if (count > MAX_RANGE)
        raise(c, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", MAX_RANGE);
    vseq *q = tpl_seq_new(c, (size_t)count);
    work(c, (uint64_t)count >> 4);
    for (int64_t i = 0; i < count; i++) q->v[q->n++] = v_int(from + i * step);
    q->start = from;
    q->stop = to;
    q->step = step;
    return v_seq(V_RANGE, q);
}

static value g_cycler(rctx *c, const args *a)
{
    if (!a->n) raise(c, "at least one item has to be provided");
    vcycle *y = tpl_take0(c, sizeof *y);
    y->v = a->pos;
    y->n = a->n;
    return (value){.kind = V_CYCLER, .cycle = y};
}

static value g_joiner(rctx *c, const args *a)
{
    value sep;
    tpl_bind(c, "joiner", a, "sep", &sep);
    vcycle *y = tpl_take0(c, sizeof *y);
    value *v = tpl_take(c, sizeof *v);
    *v = sep.kind == V_MISSING ? tpl_v_text(c, ", ") : sep;
    y->v = v;
    y->n = 1;
    return (value){.kind = V_JOINER, .cycle = y};
}

const global_fn *tpl_find_global(const char *name, size_t n)
{
    static const global_fn table[] = {
        {"raise_exception", g_raise},
        {"strftime_now", g_strftime},
        {"namespace", g_namespace},
        {"range", g_range},
        {"dict", g_dict},
        {"cycler", g_cycler},
        {"joiner", g_joiner},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (tpl_is_name(table[i].name, name, n)) return &table[i];
    return NULL;
}
