/* template_seq.c - filters over sequences: map, select, sort, join ...
 * Where Python gives a lazy generator, these work at once and give a value that can be read once.
 * Thread: the one that renders. */
#include "engine/text/template_ast.h"

#include <string.h>

static value generator(vseq *q)
{
    return v_seq(V_GEN, q);
}

/* ---- attribute paths ------------------------------------------------------------------------- */

static bool all_digits(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] < '0' || s[i] > '9') return false;
    return n > 0;
}

/* item by "a.b.0" or by an integer; fallback replaces what is undefined on the way. */
static value path(rctx *c, value item, value attr, value fallback)
{
    if (attr.kind == V_NONE || attr.kind == V_MISSING) return item;
    if (attr.kind != V_STR) return tpl_get_item(c, item, attr);
    const char *s = tpl_str_flat(c, attr.s);
    for (size_t i = 0; i <= attr.s->n;) {
        const char *dot = memchr(s + i, '.', attr.s->n - i);
        size_t n = dot ? (size_t)(dot - s) - i : attr.s->n - i;
        value key =
            all_digits(s + i, n) ? tpl_parse_int(c, s + i, n) : v_str(tpl_str_sub(c, attr.s, i, n));
        item = tpl_get_item(c, item, key);
        if (item.kind == V_UNDEF && fallback.kind != V_MISSING && fallback.kind != V_NONE)
            item = fallback;
        i += n + 1;
    }
    return item;
}

static value fold_case(rctx *c, value v, bool keep)
{
    return v.kind == V_STR && !keep ? v_str(tpl_str_case(c, v.s, CASE_LOWER)) : v;
}

static const value missing = {.kind = V_MISSING};

/* ---- sorting --------------------------------------------------------------------------------- */

typedef struct {
    value key, item;
} keyed;

/* Stable merge sort of v[n] with room t[n]. */
static void merge_sort(rctx *c, keyed *v, keyed *t, size_t n, bool reverse)
{
    if (n < 2) return;
    size_t half = n / 2, i = 0, j = half, k = 0;
    merge_sort(c, v, t, half, reverse);
    merge_sort(c, v + half, t, n - half, reverse);
    memcpy(t, v, n * sizeof *t);
    while (i < half && j < n) {
        int r = tpl_order(c, t[j].key, t[i].key, "<");
        v[k++] = (reverse ? r == 1 : r == -1) ? t[j++] : t[i++];
    }
    while (i < half) v[k++] = t[i++];
    while (j < n) v[k++] = t[j++];
}

static vseq *sorted(rctx *c, keyed *v, size_t n, bool reverse)
{
    vseq *q = tpl_seq_new(c, n);
    merge_sort(c, v, tpl_take(c, n * sizeof *v), n, reverse);
    for (size_t i = 0; i < n; i++) q->v[q->n++] = v[i].item;
    return q;
}

/* The sort key of "a,b.c": one value for each attribute. */
static value multi_key(rctx *c, value item, value attr, bool keep_case)
{
    vseq *key = tpl_seq_new(c, 0);
    size_t cap = 0;
    if (attr.kind == V_STR) {
        vseq *parts = tpl_str_split(c, attr.s, tpl_v_text(c, ",").s, -1, false).q;
        for (size_t i = 0; i < parts->n; i++)
            tpl_seq_push(c, key, &cap,
                         fold_case(c, path(c, item, parts->v[i], missing), keep_case));
    } else {
        tpl_seq_push(c, key, &cap, fold_case(c, path(c, item, attr, missing), keep_case));
    }
    return v_seq(V_LIST, key);
}

static value f_sort(rctx *c, value in, const args *a)
{
    value v[3];
    tpl_bind(c, "sort", a, "reverse case_sensitive attribute", v);
    vseq *q = tpl_iterate(c, in);
    keyed *k = tpl_take(c, (q->n + 1) * sizeof *k);
    bool keep = tpl_arg_bool(c, v[1], false);
    for (size_t i = 0; i < q->n; i++) k[i] = (keyed){multi_key(c, q->v[i], v[2], keep), q->v[i]};
    return v_seq(V_LIST, sorted(c, k, q->n, tpl_arg_bool(c, v[0], false)));
}

static value f_dictsort(rctx *c, value in, const args *a)
{
    value v[3];
    tpl_bind(c, "dictsort", a, "case_sensitive by reverse", v);
    if (in.kind == V_UNDEF) tpl_raise_undefined(c, in);
    if (in.kind != V_DICT) raise(c, "'%s' object has no attribute 'items'", tpl_type_name(in));
    vstr *by = tpl_arg_str(c, v[1]);
    bool value_key = by && tpl_str_is(c, by, "value");
    if (by && !value_key && !tpl_str_is(c, by, "key"))
        raise(c, "You can only sort by either \"key\" or \"value\"");
    vseq *q = tpl_dict_view(c, in.d, 2, "dict_items");
    keyed *k = tpl_take(c, (q->n + 1) * sizeof *k);
    bool keep = tpl_arg_bool(c, v[0], false);
    for (size_t i = 0; i < q->n; i++)
        k[i] = (keyed){fold_case(c, q->v[i].q->v[value_key], keep), q->v[i]};
    return v_seq(V_LIST, sorted(c, k, q->n, tpl_arg_bool(c, v[2], false)));
}

static value f_groupby(rctx *c, value in, const args *a)
{
    value v[3];
    tpl_bind(c, "groupby", a, "attribute default case_sensitive", v);
    bool keep = tpl_arg_bool(c, v[2], false);
    vseq *q = tpl_iterate(c, in), *out = tpl_seq_new(c, 0);
    size_t cap = 0;
    keyed *k = tpl_take(c, (q->n + 1) * sizeof *k);
    for (size_t i = 0; i < q->n; i++)
        k[i] = (keyed){fold_case(c, path(c, q->v[i], v[0], v[1]), keep), q->v[i]};
    merge_sort(c, k, tpl_take(c, (q->n + 1) * sizeof *k), q->n, false);
    for (size_t i = 0, j; i < q->n; i = j) {
        vseq *pair = tpl_seq_new(c, 2), *list = tpl_seq_new(c, 0);
        size_t room = 0;
        for (j = i; j < q->n && tpl_equal(c, k[j].key, k[i].key); j++)
            tpl_seq_push(c, list, &room, k[j].item);
        pair->v[0] = path(c, k[i].item, v[0], v[1]);
        pair->v[1] = v_seq(V_LIST, list);
        pair->n = 2;
        pair->name = "group";
        tpl_seq_push(c, out, &cap, v_seq(V_TUPLE, pair));
    }
    return v_seq(V_LIST, out);
}

static value extreme(rctx *c, value in, const args *a, const char *who, int want)
{
    value v[2];
    tpl_bind(c, who, a, "case_sensitive attribute", v);
    bool keep = tpl_arg_bool(c, v[0], false);
    vseq *q = tpl_iterate(c, in);
    if (!q->n) return tpl_v_undef_hint(c, "No aggregated item, sequence was empty.");
    value best = q->v[0], best_key = fold_case(c, path(c, best, v[1], missing), keep);
    for (size_t i = 1; i < q->n; i++) {
        value key = fold_case(c, path(c, q->v[i], v[1], missing), keep);
        if (tpl_order(c, key, best_key, want < 0 ? "<" : ">") != want) continue;
        best = q->v[i];
        best_key = key;
    }
    return best;
}

static value f_min(rctx *c, value in, const args *a)
{
    return extreme(c, in, a, "min", -1);
}

static value f_max(rctx *c, value in, const args *a)
{
    return extreme(c, in, a, "max", 1);
}

/* ---- choosing and mapping -------------------------------------------------------------------- */

static args tail(const args *a, size_t from)
{
    args t = *a;
    t.n = a->n > from ? a->n - from : 0;
    t.pos = t.n ? a->pos + from : NULL;
    return t;
}

static value f_map(rctx *c, value in, const args *a)
{
    vseq *out = tpl_seq_new(c, 0);
    size_t cap = 0;
    value v[2] = {missing, missing};
    const filter_fn *f = NULL;
    args rest = {0};
    if (!tpl_truthy(c, in)) return generator(out);
    if (!a->n && a->n_kw) {
        tpl_bind(c, "map", a, "attribute default", v);
        if (v[0].kind == V_MISSING) raise(c, "map requires a filter argument");
    } else {
        if (!a->n) raise(c, "map requires a filter argument");
        vstr *name = tpl_arg_str(c, a->pos[0]);
        if (name) f = tpl_find_filter(tpl_str_flat(c, name), name->n);
        if (!f) raise(c, "No filter named '%.60s'.", name ? tpl_str_cstr(c, name) : "None");
        rest = tail(a, 1);
    }
    vseq *q = tpl_iterate(c, in);
    /* map('map', 'map', ...) goes one level deeper with each name. */
    if (++c->depth > MAX_DEPTH) tpl_fail(c, ERR_LIMIT, "maximum recursion depth exceeded");
    for (size_t i = 0; i < q->n; i++) {
        work(c, 1);
        tpl_seq_push(c, out, &cap, f ? f->fn(c, q->v[i], &rest) : path(c, q->v[i], v[0], v[1]));
    }
    c->depth--;
    return generator(out);
}

static value choose(rctx *c, value in, const args *a, bool attr, bool want)
{
    vseq *out = tpl_seq_new(c, 0);
    size_t cap = 0, off = attr;
    if (!tpl_truthy(c, in)) return generator(out);
    if (attr && !a->n) raise(c, "Missing parameter for attribute name");
    const test_fn *t = NULL;
    if (a->n > off) {
        vstr *name = tpl_arg_str(c, a->pos[off]);
        if (name) t = tpl_find_test(tpl_str_flat(c, name), name->n);
        if (!t) raise(c, "No test named '%.60s'.", name ? tpl_str_cstr(c, name) : "None");
    }
    args rest = tail(a, off + 1);
    vseq *q = tpl_iterate(c, in);
    for (size_t i = 0; i < q->n; i++) {
        work(c, 1);
        value v = attr ? path(c, q->v[i], a->pos[0], missing) : q->v[i];
        if ((t ? t->fn(c, v, &rest) : tpl_truthy(c, v)) == want)
            tpl_seq_push(c, out, &cap, q->v[i]);
    }
    return generator(out);
}

static value f_select(rctx *c, value in, const args *a)
{
    return choose(c, in, a, false, true);
}

static value f_reject(rctx *c, value in, const args *a)
{
    return choose(c, in, a, false, false);
}

static value f_selectattr(rctx *c, value in, const args *a)
{
    return choose(c, in, a, true, true);
}

static value f_rejectattr(rctx *c, value in, const args *a)
{
    return choose(c, in, a, true, false);
}

static value f_unique(rctx *c, value in, const args *a)
{
    value v[2];
    tpl_bind(c, "unique", a, "case_sensitive attribute", v);
    bool keep = tpl_arg_bool(c, v[0], false);
    vseq *q = tpl_iterate(c, in), *out = tpl_seq_new(c, 0), *seen = tpl_seq_new(c, 0);
    size_t cap = 0, cap_seen = 0;
    for (size_t i = 0; i < q->n; i++) {
        value key = fold_case(c, path(c, q->v[i], v[1], missing), keep);
        bool old = false;
        tpl_check_hashable(c, key);
        for (size_t k = 0; k < seen->n && !old; k++) old = tpl_equal(c, seen->v[k], key);
        if (old) continue;
        tpl_seq_push(c, seen, &cap_seen, key);
        tpl_seq_push(c, out, &cap, q->v[i]);
    }
    return generator(out);
}

/* ---- shape ----------------------------------------------------------------------------------- */

static value f_list(rctx *c, value in, const args *a)
{
    tpl_bind(c, "list", a, "", NULL);
    vseq *q = tpl_iterate(c, in), *out = tpl_seq_new(c, 0);
    out->v = q->v;
    out->n = q->n;
    return v_seq(V_LIST, out);
}

static value f_first(rctx *c, value in, const args *a)
{
    tpl_bind(c, "first", a, "", NULL);
    if (in.kind == V_STR && in.s->n) return tpl_get_item(c, in, v_int(0));
    if (in.kind == V_GEN && in.q->at < in.q->n) return in.q->v[in.q->at++];
    vseq *q = tpl_iterate(c, in);
    return q->n ? q->v[0] : tpl_v_undef_hint(c, "No first item, sequence was empty.");
}

static value f_last(rctx *c, value in, const args *a)
{
    tpl_bind(c, "last", a, "", NULL);
    if (in.kind == V_GEN || !tpl_is_iterable(in))
        raise(c, "'%s' object is not reversible", tpl_type_name(in));
    if (in.kind == V_STR && in.s->n) return tpl_get_item(c, in, v_int(-1));
    vseq *q = tpl_iterate(c, in);
    return q->n ? q->v[q->n - 1] : tpl_v_undef_hint(c, "No last item, sequence was empty.");
}

static value f_reverse(rctx *c, value in, const args *a)
{
    tpl_bind(c, "reverse", a, "", NULL);
    if (in.kind == V_STR) return tpl_get_slice(c, in, v_none(), v_none(), v_int(-1));
    if (!tpl_is_iterable(in)) raise(c, "argument must be iterable");
    vseq *q = tpl_iterate(c, in), *out = tpl_seq_new(c, q->n);
    for (size_t i = q->n; i-- > 0;) out->v[out->n++] = q->v[i];
    work(c, q->n >> 4);
    return v_seq(in.kind == V_GEN ? V_LIST : V_GEN, out);
}

static value f_items(rctx *c, value in, const args *a)
{
    tpl_bind(c, "items", a, "", NULL);
    if (in.kind == V_UNDEF) return generator(tpl_seq_new(c, 0));
    if (in.kind != V_DICT) raise(c, "Can only get item pairs from a mapping.");
    return generator(tpl_dict_view(c, in.d, 2, "dict_items"));
}

static value f_join(rctx *c, value in, const args *a)
{
    value v[2];
    tpl_bind(c, "join", a, "d attribute", v);
    vstr *sep = v[0].kind == V_MISSING ? NULL : tpl_to_str(c, v[0]);
    vseq *q = tpl_iterate(c, in);
    sbuild b;
    tpl_sb_init(&b, c);
    for (size_t i = 0; i < q->n; i++) {
        work(c, 1);
        if (i && sep) tpl_sb_str(&b, sep);
        tpl_sb_str(&b, tpl_to_str(c, path(c, q->v[i], v[1], missing)));
    }
    return v_str(tpl_sb_done(&b));
}

static value f_sum(rctx *c, value in, const args *a)
{
    value v[2];
    tpl_bind(c, "sum", a, "attribute start", v);
    value total = v[1].kind == V_MISSING ? v_int(0) : v[1];
    if (total.kind == V_STR) raise(c, "sum() can't sum strings [use ''.join(seq) instead]");
    vseq *q = tpl_iterate(c, in);
    for (size_t i = 0; i < q->n; i++)
        total = tpl_binary(c, BIN_ADD, total, path(c, q->v[i], v[0], missing));
    return total;
}

static vseq *piece(rctx *c, vseq *q, size_t from, size_t to, size_t want, value fill)
{
    size_t have = to - from,
           n = fill.kind == V_MISSING || fill.kind == V_NONE || have >= want ? have : want;
    vseq *p = tpl_seq_new(c, n);
    for (size_t i = 0; i < n; i++) p->v[p->n++] = i < have ? q->v[from + i] : fill;
    work(c, n >> 3);
    return p;
}

static value f_batch(rctx *c, value in, const args *a)
{
    value v[2];
    tpl_bind(c, "batch", a, "linecount fill_with", v);
    int64_t size = tpl_arg_int(c, v[0], 0);
    vseq *q = tpl_iterate(c, in), *out = tpl_seq_new(c, 0);
    size_t cap = 0;
    if (size < 1) raise(c, "batch needs a line count of at least 1");
    if (size > (1 << 24))
        tpl_fail(c, ERR_LIMIT, "batch(): %lld items a line are too many", (long long)size);
    for (size_t i = 0; i < q->n; i += (size_t)size) {
        size_t to = q->n - i < (size_t)size ? q->n : i + (size_t)size;
        tpl_seq_push(c, out, &cap, v_seq(V_LIST, piece(c, q, i, to, (size_t)size, v[1])));
    }
    return generator(out);
}

static value f_slice(rctx *c, value in, const args *a)
{
    value v[2];
    tpl_bind(c, "slice", a, "slices fill_with", v);
    int64_t slices = tpl_arg_int(c, v[0], 0);
    vseq *q = tpl_iterate(c, in), *out = tpl_seq_new(c, 0);
    size_t cap = 0, at = 0;
    if (slices < 1) raise(c, "integer division or modulo by zero");
    if (slices > MAX_RANGE)
        tpl_fail(c, ERR_LIMIT, "slice(): %lld slices are too many", (long long)slices);
    size_t each = q->n / (size_t)slices, extra = q->n % (size_t)slices;
    for (size_t i = 0; i < (size_t)slices; i++) {
        size_t n = each + (i < extra);
        work(c, 1);
        tpl_seq_push(c, out, &cap,
                     v_seq(V_LIST, piece(c, q, at, at + n, i < extra ? n : n + 1, v[1])));
        at += n;
    }
    return generator(out);
}

const filter_fn *tpl_find_seq_filter(const char *name, size_t n)
{
    static const filter_fn table[] = {
        {"sort", f_sort},
        {"dictsort", f_dictsort},
        {"groupby", f_groupby},
        {"min", f_min},
        {"max", f_max},
        {"map", f_map},
        {"select", f_select},
        {"reject", f_reject},
        {"selectattr", f_selectattr},
        {"rejectattr", f_rejectattr},
        {"unique", f_unique},
        {"list", f_list},
        {"first", f_first},
        {"last", f_last},
        {"reverse", f_reverse},
        {"items", f_items},
        {"join", f_join},
        {"sum", f_sum},
        {"batch", f_batch},
        {"slice", f_slice},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (tpl_is_name(table[i].name, name, n)) return &table[i];
    return NULL;
}
