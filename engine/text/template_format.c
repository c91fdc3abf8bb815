/* template_format.c - "%s" % values and "{}".format(values).
 * Refuses format specifications beyond flags, width and precision of s r d i u x X o f F e E g G c
 * (and, for format(), beyond plain fields), saying so.  Thread: the one that renders. */
#include "engine/text/template_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WIDTH = 10000 };

typedef struct {
    const char *v; /* [n] the format */
    size_t n, at;
    vseq *pos;    /* tuple of values, or NULL */
    value one;    /* the value when it is not a tuple */
    vdict *map;   /* mapping for %(name)s, or NULL */
    bool indexed; /* the value could be a mapping: it need not be used up */
    size_t used;
    bool left, zero, plus, space, alt;
    int64_t width, precision;
} percent;

static value next_value(rctx *c, percent *p)
{
    size_t have = p->pos ? p->pos->n : 1;
    if (p->used >= have) raise(c, "not enough arguments for format string");
    value v = p->pos ? p->pos->v[p->used] : p->one;
    p->used++;
    return v;
}

static int64_t number(rctx *c, percent *p)
{
    int64_t n = 0;
    if (p->at < p->n && p->v[p->at] == '*') {
        p->at++;
        value v = next_value(c, p);
        if (!tpl_is_int(v)) raise(c, "* wants int");
        n = tpl_int_of(v);
    } else {
        while (p->at < p->n && p->v[p->at] >= '0' && p->v[p->at] <= '9' && n <= MAX_WIDTH)
            n = n * 10 + (p->v[p->at++] - '0');
    }
    if (n > MAX_WIDTH || n < -MAX_WIDTH)
        raise(c, "a format's width or precision is at most %d", MAX_WIDTH);
    return n;
}

/* Everything between '%' and the conversion letter. */
static void read_spec(rctx *c, percent *p)
{
    p->left = p->zero = p->plus = p->space = p->alt = false;
    p->precision = -1;
    for (; p->at < p->n && p->v[p->at] && strchr("-0+ #", p->v[p->at]); p->at++) {
        p->left |= p->v[p->at] == '-';
        p->zero |= p->v[p->at] == '0';
        p->plus |= p->v[p->at] == '+';
        p->space |= p->v[p->at] == ' ';
        p->alt |= p->v[p->at] == '#';
    }
    p->width = number(c, p);
    if (p->width < 0) {
        p->left = true;
        p->width = -p->width;
    }
    if (p->at < p->n && p->v[p->at] == '.') {
        p->at++;
        p->precision = number(c, p);
        if (p->precision < 0) p->precision = 0;
    }
    while (p->at < p->n && p->v[p->at] && strchr("hlL", p->v[p->at])) p->at++;
}

/* s padded with spaces to the width, in characters. */
static void put_padded(sbuild *b, const percent *p, vstr *s)
{
    size_t have = tpl_str_chars(b->c, s), want = (size_t)p->width;
    for (size_t i = have; !p->left && i < want; i++) tpl_sb_puts(b, " ");
    tpl_sb_str(b, s);
    for (size_t i = have; p->left && i < want; i++) tpl_sb_puts(b, " ");
}

static void put_number(sbuild *b, percent *p, char conv, value v)
{
    rctx *c = b->c;
    char spec[48], *text = tpl_take(c, 2 * MAX_WIDTH + 400);
    bool real = strchr("eEfFgG", conv) != NULL;
    if (v.kind == V_UNDEF) tpl_raise_undefined(c, v);
    if (!tpl_is_number(v) && real) raise(c, "must be real number, not %s", tpl_type_name(v));
    if (!tpl_is_number(v))
        raise(c, "%%%c format: %s is required, not %s", conv,
              strchr("xXo", conv) ? "an integer" : "a real number", tpl_type_name(v));
    if (!real && v.kind == V_FLOAT && strchr("xXo", conv))
        raise(c, "%%%c format: an integer is required, not float", conv);
    if (v.kind == V_BIG && !real) {
        if (strchr("xXo", conv) || p->zero || p->plus || p->space || p->precision >= 0)
            raise(c, "%%%c of an integer beyond 64 bits is supported without flags only", conv);
        put_padded(b, p, v.s);
        return;
    }
    int k = snprintf(spec, sizeof spec, "%%%s%s%s%s%s%d", p->left ? "-" : "", p->zero ? "0" : "",
                     p->plus ? "+" : "", p->space ? " " : "", p->alt ? "#" : "", (int)p->width);
    if (!p->width) k--; /* a lone 0 would read as a flag */
    if (p->precision >= 0)
        k += snprintf(spec + k, sizeof spec - (size_t)k, ".%d", (int)p->precision);
    snprintf(spec + k, sizeof spec - (size_t)k, real ? "%c" : "ll%c", conv == 'u' ? 'd' : conv);
    double f = real || v.kind == V_FLOAT ? tpl_to_double(c, v) : 0;
    if (!real && v.kind == V_FLOAT && !(f > -9.2e18 && f < 9.2e18))
        raise(c, "cannot convert float to integer");
    long long i = real ? 0 : v.kind == V_FLOAT ? (long long)f : (long long)tpl_int_of(v);
    bool negative_hex = strchr("xXo", conv) && i < 0;
    if (negative_hex) raise(c, "%%%c of a negative number is not supported", conv);
    int n = real ? snprintf(text, 2 * MAX_WIDTH + 400, spec, f)
                 : snprintf(text, 2 * MAX_WIDTH + 400, spec, i);
    tpl_sb_bytes(b, text, (size_t)n, false);
}

static void convert(sbuild *b, percent *p, char conv, value v)
{
    rctx *c = b->c;
    vstr *s;
    if (conv && strchr("diuxXoeEfFgG", conv)) {
        put_number(b, p, conv, v);
        return;
    }
    if (conv == 's') {
        s = tpl_to_str(c, v);
    } else if (conv == 'r') {
        sbuild r;
        tpl_sb_init(&r, c);
        tpl_put_repr(&r, v);
        s = tpl_sb_done(&r);
    } else if (conv == 'c' && v.kind == V_STR && tpl_str_chars(c, v.s) == 1) {
        s = v.s;
    } else {
        raise(c, "unsupported format character '%c' (0x%x) at index %zu", conv, (unsigned char)conv,
              p->at - 1);
    }
    if (p->precision >= 0 && (size_t)p->precision < tpl_str_chars(c, s))
        s = tpl_str_sub(c, s, 0, tpl_str_at(c, s, (size_t)p->precision));
    put_padded(b, p, s);
}

static value named_value(rctx *c, percent *p)
{
    size_t from = ++p->at;
    while (p->at < p->n && p->v[p->at] != ')') p->at++;
    if (p->at >= p->n) raise(c, "incomplete format key");
    if (!p->map) raise(c, "format requires a mapping");
    value v;
    size_t n = p->at++ - from;
    if (!tpl_dict_get_text(c, p->map, p->v + from, n, &v))
        raise(c, "'%.*s'", (int)(n < 200 ? n : 200), p->v + from);
    return v;
}

vstr *tpl_str_percent(rctx *c, vstr *s, value arg)
{
    percent p = {.v = tpl_str_flat(c, s), .n = s->n, .one = arg};
    if (arg.kind == V_TUPLE) p.pos = arg.q;
    if (arg.kind == V_DICT) p.map = arg.d;
    p.indexed =
        arg.kind == V_DICT || arg.kind == V_LIST || arg.kind == V_RANGE || arg.kind == V_UNDEF;
    sbuild b;
    tpl_sb_init(&b, c);
    while (p.at < p.n) {
        const char *hit = memchr(p.v + p.at, '%', p.n - p.at);
        size_t to = hit ? (size_t)(hit - p.v) : p.n;
        tpl_sb_sub(&b, s, p.at, to - p.at);
        p.at = to + 1;
        if (!hit) break;
        work(c, 1);
        bool named = p.at < p.n && p.v[p.at] == '(';
        value v = named ? named_value(c, &p) : v_none();
        read_spec(c, &p);
        if (p.at >= p.n) raise(c, "incomplete format");
        char conv = p.v[p.at++];
        if (conv == '%') tpl_sb_puts(&b, "%");
        else convert(&b, &p, conv, named ? v : next_value(c, &p));
    }
    if (!p.indexed && p.used < (p.pos ? p.pos->n : 1))
        raise(c, "not all arguments converted during string formatting");
    vstr *r = tpl_sb_done(&b);
    r->markup = s->markup;
    return r;
}

/* ---- str.format ------------------------------------------------------------------------------ */

/* The value a field name means: "", "0", "name", each followed by .attr or [key]. */
static value field_value(rctx *c, const char *v, size_t n, const args *a, size_t *next)
{
    size_t head = 0;
    while (head < n && v[head] != '.' && v[head] != '[') head++;
    value out = v_none();
    bool digits = head > 0 && head < 10;
    for (size_t i = 0; i < head; i++) digits &= v[i] >= '0' && v[i] <= '9';
    if (!head || digits) {
        size_t at = head ? (size_t)strtoul(tpl_str_cstr(c, tpl_str_new(c, v, head, OPEN)), NULL, 10)
                         : (*next)++;
        if (at >= a->n)
            raise(c, "Replacement index %zu out of range for positional args tuple", at);
        out = a->pos[at];
    } else {
        bool found = false;
        for (size_t i = 0; i < a->n_kw && !found; i++)
            if (strlen(a->kw[i].name) == head && !memcmp(a->kw[i].name, v, head)) {
                out = a->kw[i].v;
                found = true;
            }
        if (!found) raise(c, "'%.*s'", (int)(head < 200 ? head : 200), v);
    }
    for (size_t i = head; i < n;) {
        size_t from = i + 1, to = from;
        bool item = v[i] == '[';
        while (to < n && (item ? v[to] != ']' : v[to] != '.' && v[to] != '[')) to++;
        vstr *key = tpl_str_new(c, v + from, to - from, OPEN);
        bool number = item && to > from;
        for (size_t k = from; k < to; k++) number &= v[k] >= '0' && v[k] <= '9';
        value k = number ? tpl_parse_int(c, v + from, to - from) : v_str(key);
        out = item ? tpl_get_item(c, out, k) : tpl_get_attr(c, out, key);
        i = to + item;
    }
    return out;
}

vstr *tpl_str_format(rctx *c, vstr *s, const args *a)
{
    const char *v = tpl_str_flat(c, s);
    size_t next = 0, at = 0;
    sbuild b;
    tpl_sb_init(&b, c);
    while (at < s->n) {
        size_t to = at;
        while (to < s->n && v[to] != '{' && v[to] != '}') to++;
        tpl_sb_sub(&b, s, at, to - at);
        if (to >= s->n) break;
        at = to + 1;
        if (at < s->n && v[at] == v[to]) {
            tpl_sb_sub(&b, s, at++, 1);
            continue;
        }
        if (v[to] == '}') raise(c, "Single '}' encountered in format string");
        const char *end = memchr(v + at, '}', s->n - at);
        if (!end) raise(c, "expected '}' before end of string");
        size_t n = (size_t)(end - v) - at, name = 0;
        while (name < n && v[at + name] != '!' && v[at + name] != ':') name++;
        work(c, 1);
        value f = field_value(c, v + at, name, a, &next);
        if (n - name == 2 && !memcmp(v + at + name, "!r", 2)) tpl_put_repr(&b, f);
        else if (n == name || (n - name == 2 && !memcmp(v + at + name, "!s", 2)))
            tpl_sb_str(&b, tpl_to_str(c, f));
        else
            raise(c, "format(): the specification '%.*s' is not supported", (int)(n < 40 ? n : 40),
                  v + at);
        at += n + 1;
    }
    vstr *r = tpl_sb_done(&b);
    r->markup = s->markup;
    return r;
}
