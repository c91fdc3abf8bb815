/* template_filters.c - filters over texts and single values, and the table of all filters.
 * Thread: the one that renders. */
#include "engine/text/template_value.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static value f_default(rctx *c, value in, const args *a)
{
    value v[2];
    tpl_bind(c, "default", a, "default_value boolean", v);
    if (in.kind != V_UNDEF && !(tpl_arg_bool(c, v[1], false) && !tpl_truthy(c, in))) return in;
    return v[0].kind == V_MISSING ? tpl_v_text(c, "") : v[0];
}

static value f_length(rctx *c, value in, const args *a)
{
    tpl_bind(c, "length", a, "", NULL);
    return v_int((int64_t)tpl_length_of(c, in));
}

static value f_string(rctx *c, value in, const args *a)
{
    tpl_bind(c, "string", a, "", NULL);
    return v_str(tpl_soft_str(c, in));
}

static value f_safe(rctx *c, value in, const args *a)
{
    tpl_bind(c, "safe", a, "", NULL);
    vstr *s = tpl_to_str(c, in), *r = tpl_str_new(c, tpl_str_flat(c, s), s->n, s->from);
    r->span = s->span;
    r->n_span = s->n_span;
    r->markup = true;
    return v_str(r);
}

static value f_escape(rctx *c, value in, const args *a)
{
    tpl_bind(c, "escape", a, "", NULL);
    return v_str(tpl_str_escape(c, tpl_soft_str(c, in)));
}

static value f_forceescape(rctx *c, value in, const args *a)
{
    tpl_bind(c, "forceescape", a, "", NULL);
    return v_str(tpl_str_escape(c, tpl_to_str(c, in)));
}

static value f_upper(rctx *c, value in, const args *a)
{
    tpl_bind(c, "upper", a, "", NULL);
    return v_str(tpl_str_case(c, tpl_soft_str(c, in), CASE_UPPER));
}

static value f_lower(rctx *c, value in, const args *a)
{
    tpl_bind(c, "lower", a, "", NULL);
    return v_str(tpl_str_case(c, tpl_soft_str(c, in), CASE_LOWER));
}

static value f_capitalize(rctx *c, value in, const args *a)
{
    tpl_bind(c, "capitalize", a, "", NULL);
    return v_str(tpl_str_case(c, tpl_soft_str(c, in), CASE_CAPITALIZE));
}

/* Jinja's own title: words end at -, white space and opening brackets only. */
static value f_title(rctx *c, value in, const args *a)
{
    tpl_bind(c, "title", a, "", NULL);
    vstr *s = tpl_soft_str(c, in);
    const char *v = tpl_str_flat(c, s);
    sbuild b;
    tpl_sb_init(&b, c);
    for (size_t i = 0; i < s->n;) {
        size_t k = strchr("-({[<", v[i]) && v[i] ? 1 : tpl_space_len(v + i, s->n - i);
        if (k) {
            tpl_sb_sub(&b, s, i, k);
            i += k;
            continue;
        }
        size_t from = i, head = 0;
        while (i < s->n && !(v[i] && strchr("-({[<", v[i])) && !tpl_space_len(v + i, s->n - i)) {
            for (i++; i < s->n && ((unsigned char)v[i] & 0xC0) == 0x80; i++) continue;
            if (!head) head = i - from;
        }
        work(c, 1);
        tpl_sb_str(&b, tpl_str_case(c, tpl_str_sub(c, s, from, head), CASE_UPPER));
        tpl_sb_str(&b,
                   tpl_str_case(c, tpl_str_sub(c, s, from + head, i - from - head), CASE_LOWER));
    }
    return v_str(tpl_sb_done(&b));
}

static value f_trim(rctx *c, value in, const args *a)
{
    value v;
    tpl_bind(c, "trim", a, "chars", &v);
    return v_str(tpl_str_strip(c, tpl_soft_str(c, in), tpl_arg_str(c, v), true, true));
}

static value f_replace(rctx *c, value in, const args *a)
{
    value v[3];
    tpl_bind(c, "replace", a, "old new count", v);
    if (v[0].kind == V_MISSING || v[1].kind == V_MISSING)
        raise(c, "do_replace() missing required positional arguments: 'old' and 'new'");
    return v_str(tpl_str_replace(c, tpl_to_str(c, in), tpl_to_str(c, v[0]), tpl_to_str(c, v[1]),
                                 tpl_arg_int(c, v[2], -1)));
}

static value f_format(rctx *c, value in, const args *a)
{
    if (a->n && a->n_kw) raise(c, "can't handle positional and keyword arguments at the same time");
    vseq *q = tpl_seq_new(c, a->n);
    for (size_t i = 0; i < a->n; i++) q->v[q->n++] = a->pos[i];
    vdict *d = tpl_dict_new(c);
    for (size_t i = 0; i < a->n_kw; i++)
        tpl_dict_set(c, d, tpl_v_text(c, a->kw[i].name), a->kw[i].v);
    return v_str(tpl_str_percent(c, tpl_soft_str(c, in),
                                 a->n_kw ? (value){.kind = V_DICT, .d = d} : v_seq(V_TUPLE, q)));
}

static value f_center(rctx *c, value in, const args *a)
{
    value v;
    tpl_bind(c, "center", a, "width", &v);
    value self = v_str(tpl_soft_str(c, in)), width = v_int(tpl_arg_int(c, v, 80));
    vbound m = {self, tpl_find_method(self, "center", 6)};
    args inner = {.pos = &width, .n = 1};
    return tpl_call_method(c, &m, &inner);
}

static value f_indent(rctx *c, value in, const args *a)
{
    value v[3];
    tpl_bind(c, "indent", a, "width first blank", v);
    if (in.kind == V_UNDEF) tpl_raise_undefined(c, in);
    if (in.kind != V_STR)
        raise(c, "unsupported operand type(s) for +=: '%s' and 'str'", tpl_type_name(in));
    vstr *by = v[0].kind == V_STR ? v[0].s : NULL;
    if (!by) {
        value space = tpl_v_text(c, " "), n = v_int(tpl_arg_int(c, v[0], 4));
        if (n.i > (1 << 20))
            tpl_fail(c, ERR_LIMIT, "indent(): width %lld is too large", (long long)n.i);
        sbuild t;
        tpl_sb_init(&t, c);
        for (int64_t i = 0; i < n.i; i++) tpl_sb_str(&t, space.s);
        by = tpl_sb_done(&t);
        work(c, by->n >> 4);
    }
    bool first = tpl_arg_bool(c, v[1], false), blank = tpl_arg_bool(c, v[2], false);
    vseq *q = tpl_str_splitlines(c, tpl_str_concat(c, in.s, tpl_v_text(c, "\n").s), false).q;
    sbuild b;
    tpl_sb_init(&b, c);
    for (size_t i = 0; i < q->n; i++) {
        if (i) tpl_sb_puts(&b, "\n");
        if (i ? blank || q->v[i].s->n : first) tpl_sb_str(&b, by);
        tpl_sb_str(&b, q->v[i].s);
    }
    vstr *r = tpl_sb_done(&b);
    r->markup = in.s->markup;
    return v_str(r);
}

static value f_truncate(rctx *c, value in, const args *a)
{
    value v[4];
    tpl_bind(c, "truncate", a, "length killwords end leeway", v);
    vstr *s = in.kind == V_STR ? in.s : NULL, *end = tpl_arg_str(c, v[2]);
    if (!end) end = tpl_v_text(c, "...").s;
    int64_t len = tpl_arg_int(c, v[0], 255), leeway = tpl_arg_int(c, v[3], 5),
            tail = (int64_t)tpl_str_chars(c, end);
    if (len < tail) raise(c, "expected length >= %lld, got %lld", (long long)tail, (long long)len);
    if (leeway < 0) raise(c, "expected leeway >= 0, got %lld", (long long)leeway);
    if (leeway > INT32_MAX || len > INT32_MAX || (int64_t)tpl_length_of(c, in) <= len + leeway)
        return in;
    if (!s) raise(c, "'%s' object has no attribute 'rsplit'", tpl_type_name(in));
    vstr *head = tpl_str_sub(c, s, 0, tpl_str_at(c, s, (size_t)(len - tail)));
    size_t space =
        tpl_arg_bool(c, v[1], false) ? SIZE_MAX : tpl_str_rfind(c, head, tpl_v_text(c, " ").s);
    if (space != SIZE_MAX) head = tpl_str_sub(c, head, 0, space);
    return v_str(tpl_str_concat(c, head, end));
}

static value f_wordcount(rctx *c, value in, const args *a)
{
    tpl_bind(c, "wordcount", a, "", NULL);
    vstr *s = tpl_soft_str(c, in);
    const char *v = tpl_str_flat(c, s);
    int64_t words = 0;
    bool inside = false;
    for (size_t i = 0, k; i < s->n; i += k) {
        for (k = 1; i + k < s->n && ((unsigned char)v[i + k] & 0xC0) == 0x80; k++) continue;
        bool word =
            v[i] == '_' || (k == 1 ? isalnum((unsigned char)v[i]) != 0
                                   : tpl_str_is_class(c, tpl_str_sub(c, s, i, k), IS_ALNUM));
        words += word && !inside;
        inside = word;
    }
    return v_int(words);
}

static void url_quote(sbuild *b, vstr *s, bool query)
{
    const char *v = tpl_str_flat(b->c, s);
    char hex[4];
    for (size_t i = 0; i < s->n; i++) {
        unsigned char ch = (unsigned char)v[i];
        if (ch < 0x80 && (isalnum(ch) || strchr("_.-~", ch) || (ch == '/' && !query)) && ch) {
            tpl_sb_bytes(b, v + i, 1, tpl_str_closed(s));
        } else if (ch == ' ' && query) {
            tpl_sb_puts(b, "+");
        } else {
            snprintf(hex, sizeof hex, "%%%02X", ch);
            tpl_sb_bytes(b, hex, 3, tpl_str_closed(s));
        }
    }
}

static value f_urlencode(rctx *c, value in, const args *a)
{
    sbuild b;
    tpl_bind(c, "urlencode", a, "", NULL);
    tpl_sb_init(&b, c);
    if (in.kind == V_STR || !tpl_is_iterable(in)) {
        url_quote(&b, tpl_to_str(c, in), false);
        return v_str(tpl_sb_done(&b));
    }
    vseq *q = in.kind == V_DICT ? tpl_dict_view(c, in.d, 2, "dict_items") : tpl_iterate(c, in);
    for (size_t i = 0; i < q->n; i++) {
        vseq *pair = tpl_iterate(c, q->v[i]);
        if (pair->n != 2) raise(c, "not enough values to unpack (expected 2, got %zu)", pair->n);
        if (i) tpl_sb_puts(&b, "&");
        url_quote(&b, tpl_to_str(c, pair->v[0]), true);
        tpl_sb_puts(&b, "=");
        url_quote(&b, tpl_to_str(c, pair->v[1]), true);
    }
    return v_str(tpl_sb_done(&b));
}

/* ---- numbers --------------------------------------------------------------------------------- */

static value f_abs(rctx *c, value in, const args *a)
{
    tpl_bind(c, "abs", a, "", NULL);
    if (in.kind == V_UNDEF || !tpl_is_number(in)) {
        if (in.kind == V_UNDEF) tpl_raise_undefined(c, in);
        raise(c, "bad operand type for abs(): '%s'", tpl_type_name(in));
    }
    if (in.kind == V_FLOAT) return v_float(fabs(in.f));
    if (in.kind == V_BIG)
        return in.s->v[0] == '-' ? tpl_parse_int(c, in.s->v + 1, in.s->n - 1) : in;
    return tpl_int_of(in) < 0 ? tpl_negate(c, in) : v_int(tpl_int_of(in));
}

/* Text of a number without white space and underscores between digits; NULL if they are misplaced.
 */
static const char *number_text(rctx *c, vstr *s, size_t *n)
{
    s = tpl_str_strip(c, s, NULL, true, true);
    const char *v = tpl_str_flat(c, s);
    char *out = tpl_take(c, s->n + 1);
    *n = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (v[i] == '_') {
            if (!i || i + 1 == s->n || !isxdigit((unsigned char)v[i - 1]) ||
                !isxdigit((unsigned char)v[i + 1]))
                return NULL;
            continue;
        }
        if (!v[i]) return NULL;
        out[(*n)++] = v[i];
    }
    out[*n] = 0;
    return *n ? out : NULL;
}

static bool text_to_float(rctx *c, vstr *s, double *f)
{
    size_t n;
    const char *v = number_text(c, s, &n);
    if (!v || strpbrk(v, "xXpP()")) return false;
    char *end;
    *f = strtod(v, &end);
    return !*end && end != v;
}

static bool text_to_int(rctx *c, vstr *s, int64_t base, value *out)
{
    size_t n, i = 0;
    const char *v = number_text(c, s, &n);
    if (!v || base == 1 || base < 0 || base > 36) return false;
    bool neg = v[0] == '-';
    if (v[0] == '-' || v[0] == '+') i++;
    int prefix = i + 1 < n && v[i] == '0' ? (v[i + 1] | 32) : 0;
    int of_prefix = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
    if (of_prefix && (base == 0 || base == of_prefix)) {
        base = of_prefix;
        i += 2;
    }
    if (base == 0) base = 10;
    if (i >= n) return false;
    for (size_t k = i; k < n; k++) {
        int d = isdigit((unsigned char)v[k])   ? v[k] - '0'
                : isalpha((unsigned char)v[k]) ? (v[k] | 32) - 'a' + 10
                                               : 99;
        if (d >= base) return false;
    }
    if (base == 10) {
        *out = tpl_parse_int(c, v, n);
        return true;
    }
    int64_t r = 0;
    for (; i < n; i++) {
        int d = isdigit((unsigned char)v[i]) ? v[i] - '0' : (v[i] | 32) - 'a' + 10;
        if (__builtin_mul_overflow(r, base, &r) || __builtin_add_overflow(r, d, &r))
            raise(c, "integer overflow: the template computes beyond 64 bits");
    }
    *out = v_int(neg ? -r : r);
    return true;
}

/* int(f) for a float; false where Python raises. */
static bool float_to_int(rctx *c, double f, value *out)
{
    char t[400];
    if (!isfinite(f)) return false;
    int n = snprintf(t, sizeof t, "%.0f", trunc(f));
    *out = tpl_parse_int(c, t, (size_t)n);
    return true;
}

static value f_int(rctx *c, value in, const args *a)
{
    value v[2], out = v_int(0);
    double f;
    tpl_bind(c, "int", a, "default base", v);
    if (in.kind == V_UNDEF) tpl_raise_undefined(c, in);
    value fallback = v[0].kind == V_MISSING ? v_int(0) : v[0];
    if (in.kind == V_BOOL) return v_int(in.b);
    if (in.kind == V_INT || in.kind == V_BIG) return in;
    if (in.kind == V_FLOAT) {
        if (isinf(in.f)) raise(c, "cannot convert float infinity to integer");
        return float_to_int(c, in.f, &out) ? out : fallback;
    }
    if (in.kind != V_STR) return fallback;
    if (text_to_int(c, in.s, tpl_arg_int(c, v[1], 10), &out)) return out;
    return text_to_float(c, in.s, &f) && float_to_int(c, f, &out) ? out : fallback;
}

static value f_float(rctx *c, value in, const args *a)
{
    value v;
    double f;
    tpl_bind(c, "float", a, "default", &v);
    if (in.kind == V_UNDEF) tpl_raise_undefined(c, in);
    if (tpl_is_number(in)) return v_float(tpl_to_double(c, in));
    if (in.kind == V_STR && text_to_float(c, in.s, &f)) return v_float(f);
    return v.kind == V_MISSING ? v_float(0) : v;
}

/* A finite number rounded to a multiple of 10^places, ties to even, on its exact decimal digits. */
static value round_tens(rctx *c, value in, int64_t places)
{
    char t[400];
    const char *v = t; /* [n] digits of the whole part */
    bool minus, rest = false;
    size_t n;
    if (in.kind == V_BIG) {
        minus = in.s->v[0] == '-';
        v = in.s->v + minus;
        n = in.s->n - minus;
    } else if (in.kind == V_FLOAT) {
        minus = signbit(in.f);
        rest = in.f != trunc(in.f);
        n = (size_t)snprintf(t, sizeof t, "%.0f", trunc(fabs(in.f)));
    } else {
        n = (size_t)snprintf(t, sizeof t, "%lld", (long long)tpl_int_of(in));
        minus = t[0] == '-';
        v += minus;
        n -= minus;
    }
    size_t cut = places > (int64_t)n ? n + 1 : (size_t)places, keep = cut > n ? 0 : n - cut;
    char *out = tpl_take(c, n + 4); /* sign, a carry, the digits, the end */
    out[0] = minus ? '-' : '+';
    out[1] = '0';
    memcpy(out + 2, v, keep);
    memset(out + 2 + keep, '0', n - keep);
    out[2 + n] = 0;
    for (size_t i = keep + 1; i < n; i++) rest |= v[i] != '0';
    char half = cut > n ? '0' : v[keep];
    if (half > '5' || (half == '5' && (rest || out[1 + keep] % 2))) {
        size_t i = 1 + keep;
        while (out[i] == '9') out[i--] = '0';
        out[i]++;
    }
    return in.kind == V_FLOAT ? v_float(strtod(out, NULL)) : tpl_parse_int(c, out, 2 + n);
}

static value f_round(rctx *c, value in, const args *a)
{
    value v[2];
    char t[400];
    tpl_bind(c, "round", a, "precision method", v);
    vstr *how = tpl_arg_str(c, v[1]);
    int64_t digits = tpl_arg_int(c, v[0], 0);
    if (how && !tpl_str_is(c, how, "common") && !tpl_str_is(c, how, "ceil") &&
        !tpl_str_is(c, how, "floor"))
        raise(c, "method must be common, ceil or floor");
    if (in.kind == V_UNDEF) tpl_raise_undefined(c, in);
    if (!tpl_is_number(in)) raise(c, "type %s doesn't define __round__ method", tpl_type_name(in));
    if (how && !tpl_str_is(c, how, "common")) {
        double f = tpl_to_double(c, in), scale = pow(10, (double)(digits > 300    ? 300
                                                                  : digits < -300 ? -300
                                                                                  : digits));
        bool up = tpl_str_is(c, how, "ceil");
        return v_float((up ? ceil(f * scale) : floor(f * scale)) / scale);
    }
    if (digits < 0 && !(in.kind == V_FLOAT && !isfinite(in.f)))
        return round_tens(c, in, digits < -INT32_MAX ? INT32_MAX : -digits);
    if (in.kind != V_FLOAT) return in.kind == V_BOOL ? v_int(in.b) : in;
    if (!(fabs(in.f) < 1e22) || digits > 323) return in; /* no digit of it stands that far right */
    snprintf(t, sizeof t, "%.*f", (int)digits, in.f);
    return v_float(strtod(t, NULL));
}

/* Python's float(v). */
static double python_float(rctx *c, value v)
{
    double f;
    if (v.kind == V_UNDEF) tpl_raise_undefined(c, v);
    if (tpl_is_number(v)) return tpl_to_double(c, v);
    if (v.kind != V_STR)
        raise(c, "float() argument must be a string or a real number, not '%s'", tpl_type_name(v));
    if (text_to_float(c, v.s, &f)) return f;
    sbuild b;
    tpl_sb_init(&b, c);
    tpl_put_repr(&b, v);
    raise(c, "could not convert string to float: %s", tpl_str_cstr(c, tpl_sb_done(&b)));
    return 0;
}

static value f_filesizeformat(rctx *c, value in, const args *a)
{
    static const char prefix[] = "kMGTPEZY";
    value v;
    char t[400];
    tpl_bind(c, "filesizeformat", a, "binary", &v);
    double f = python_float(c, in);
    bool binary_units = tpl_arg_bool(c, v, false);
    double base = binary_units ? 1024 : 1000;
    if (f == 1) return tpl_v_text(c, "1 Byte");
    if (f < base) {
        if (isinf(f)) raise(c, "cannot convert float infinity to integer");
        snprintf(t, sizeof t, "%.0f Bytes", trunc(f) + 0.0); /* + 0.0: no "-0" */
    } else {
        int i = 0;
        long double unit = (long double)base * base; /* exact up to 10^27, as Python's integers */
        for (; !(f < unit) && i < 7; i++) unit *= base;
        char p = prefix[i];
        if (binary_units && p == 'k') p = 'K';
        snprintf(t, sizeof t, "%.1f %c%sB", base * f / (double)unit, p, binary_units ? "i" : "");
    }
    char *copy = arena_copy(&c->mem, t, strlen(t));
    if (!copy) tpl_fail(c, ERR_NOMEM, "out of memory");
    return tpl_v_text(c, copy);
}

/* ---- other ----------------------------------------------------------------------------------- */

static value f_tojson(rctx *c, value in, const args *a)
{
    value v[4];
    tpl_bind(c, "tojson", a, "ensure_ascii indent separators sort_keys", v);
    json_style style = {.ascii = tpl_arg_bool(c, v[0], false),
                        .sort_keys = tpl_arg_bool(c, v[3], false)};
    if (v[1].kind == V_STR) {
        style.indent = v[1].s;
    } else if (v[1].kind != V_NONE && v[1].kind != V_MISSING) {
        int64_t n = tpl_arg_int(c, v[1], 0);
        if (n > 100) raise(c, "tojson(): an indent of at most 100 is supported");
        style.indent = tpl_str_new(c,
                                   "                                                            "
                                   "                                        ",
                                   n > 0 ? (size_t)n : 0, OPEN);
    }
    if (v[2].kind != V_NONE && v[2].kind != V_MISSING) {
        vseq *q = tpl_is_iterable(v[2]) ? tpl_iterate(c, v[2]) : NULL;
        if (!q || q->n != 2 || q->v[0].kind != V_STR || q->v[1].kind != V_STR)
            raise(c, "tojson(): separators must be two strings");
        style.item_sep = q->v[0].s;
        style.key_sep = q->v[1].s;
    }
    return v_str(tpl_to_json(c, in, &style));
}

static value f_attr(rctx *c, value in, const args *a)
{
    value v;
    tpl_bind(c, "attr", a, "name", &v);
    vstr *name = tpl_arg_str(c, v);
    if (!name) raise(c, "attr() missing 1 required positional argument: 'name'");
    if (in.kind == V_DICT && tpl_find_method(in, tpl_str_flat(c, name), name->n) == -1)
        return tpl_v_undef_of(c, in, v);
    return tpl_get_attr(c, in, name);
}

const filter_fn *tpl_find_filter(const char *name, size_t n)
{
    static const filter_fn table[] = {
        {"tojson", f_tojson},
        {"trim", f_trim},
        {"length", f_length},
        {"count", f_length},
        {"string", f_string},
        {"safe", f_safe},
        {"default", f_default},
        {"d", f_default},
        {"upper", f_upper},
        {"lower", f_lower},
        {"title", f_title},
        {"capitalize", f_capitalize},
        {"replace", f_replace},
        {"indent", f_indent},
        {"int", f_int},
        {"float", f_float},
        {"round", f_round},
        {"abs", f_abs},
        {"escape", f_escape},
        {"e", f_escape},
        {"forceescape", f_forceescape},
        {"format", f_format},
        {"center", f_center},
        {"truncate", f_truncate},
        {"wordcount", f_wordcount},
        {"urlencode", f_urlencode},
        {"filesizeformat", f_filesizeformat},
        {"attr", f_attr},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (tpl_is_name(table[i].name, name, n)) return &table[i];
    return tpl_find_seq_filter(name, n);
}
