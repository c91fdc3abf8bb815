/* template_repr.c - values as text: Python's str() and repr(), and Hugging Face's tojson
 * (json.dumps, ensure_ascii off by default, no HTML escaping).
 * A text made of a container is closed as a whole if anything in it came from the client.
 * Owns nothing (arena).  Thread: the one that renders. */
#include "engine/text/template_value.h"

#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Python's repr of a float: the shortest digits that read back, 1e16 and 1e-05 style outside
 * 1e-4 .. 1e16. */
size_t tpl_float_repr(double f, char out[40])
{
    char t[40];
    if (isnan(f)) return (size_t)sprintf(out, "nan");
    if (isinf(f)) return (size_t)sprintf(out, f < 0 ? "-inf" : "inf");
    for (int digits = 0; digits <= 16; digits++) {
        snprintf(t, sizeof t, "%.*e", digits, f);
        if (strtod(t, NULL) == f) break;
    }
    char *e = strchr(t, 'e'), *o = out;
    int exp = atoi(e + 1);
    char digit[24];
    int n = 0;
    for (char *p = t; p < e; p++)
        if (*p >= '0' && *p <= '9') digit[n++] = *p;
    if (t[0] == '-') *o++ = '-';
    if (exp >= 16 || exp < -4) {
        *o++ = digit[0];
        if (n > 1) *o++ = '.';
        for (int i = 1; i < n; i++) *o++ = digit[i];
        o += sprintf(o, "e%c%02d", exp < 0 ? '-' : '+', abs(exp));
        return (size_t)(o - out);
    }
    int at = 0; /* next digit */
    if (exp < 0) *o++ = '0';
    for (int i = 0; i <= exp; i++) *o++ = at < n ? digit[at++] : '0';
    *o++ = '.';
    for (int i = -1; i > exp; i--) *o++ = '0';
    if (at >= n) *o++ = '0';
    while (at < n) *o++ = digit[at++];
    *o = 0;
    return (size_t)(o - out);
}

/* ---- repr ------------------------------------------------------------------------------------ */

static bool printable(uint32_t cp)
{
    if (cp < 0x7F) return cp >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

static void repr_str(sbuild *b, vstr *s)
{
    const char *v = tpl_str_flat(b->c, s);
    bool closed = s->from != OPEN;
    char quote = memchr(v, '\'', s->n) && !memchr(v, '"', s->n) ? '"' : '\'';
    char esc[16];
    if (s->markup) tpl_sb_puts(b, "Markup(");
    tpl_sb_bytes(b, &quote, 1, closed);
    size_t from = 0;
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        int k = utf8_decode(v + i, &cp), n = 0;
        if (cp == (uint32_t)quote || cp == '\\') n = sprintf(esc, "\\%c", (char)cp);
        else if (cp == '\n') n = sprintf(esc, "\\n");
        else if (cp == '\r') n = sprintf(esc, "\\r");
        else if (cp == '\t') n = sprintf(esc, "\\t");
        else if (!printable(cp))
            n = sprintf(esc, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
        if (n) {
            tpl_sb_bytes(b, v + from, i - from, closed);
            tpl_sb_bytes(b, esc, (size_t)n, closed);
            from = i + (size_t)k;
        }
        i += (size_t)k;
    }
    tpl_sb_bytes(b, v + from, s->n - from, closed);
    tpl_sb_bytes(b, &quote, 1, closed);
    if (s->markup) tpl_sb_puts(b, ")");
}

static void repr_items(sbuild *b, value v)
{
    tpl_seq_load(b->c, v.q);
    for (size_t i = 0; i < v.q->n; i++) {
        if (i) tpl_sb_puts(b, ", ");
        tpl_put_repr(b, v.q->v[i]);
    }
}

static void repr_seq(sbuild *b, value v)
{
    char t[80];
    switch (v.kind) {
    case V_LIST:
        tpl_sb_puts(b, "[");
        repr_items(b, v);
        tpl_sb_puts(b, "]");
        break;
    case V_TUPLE:
        tpl_sb_puts(b, "(");
        repr_items(b, v);
        tpl_sb_puts(b, v.q->n == 1 ? ",)" : ")");
        break;
    case V_RANGE:
        if (v.q->step == 1)
            snprintf(t, sizeof t, "range(%lld, %lld)", (long long)v.q->start, (long long)v.q->stop);
        else
            snprintf(t, sizeof t, "range(%lld, %lld, %lld)", (long long)v.q->start,
                     (long long)v.q->stop, (long long)v.q->step);
        tpl_sb_puts(b, t);
        break;
    case V_VIEW:
        tpl_sb_puts(b, v.q->name);
        tpl_sb_puts(b, "([");
        repr_items(b, v);
        tpl_sb_puts(b, "])");
        break;
    default: tpl_sb_puts(b, "<generator object>");
    }
}

static void repr_dict(sbuild *b, vdict *d)
{
    tpl_dict_load(b->c, d);
    tpl_sb_puts(b, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i) tpl_sb_puts(b, ", ");
        tpl_put_repr(b, d->v[i].key);
        tpl_sb_puts(b, ": ");
        tpl_put_repr(b, d->v[i].val);
    }
    tpl_sb_puts(b, "}");
}

/* Text of anything that holds no other values; false if v does. */
static bool put_scalar(sbuild *b, value v)
{
    char t[64];
    switch (v.kind) {
    case V_MISSING:
    case V_UNDEF: tpl_sb_puts(b, "Undefined"); return true;
    case V_NONE: tpl_sb_puts(b, "None"); return true;
    case V_BOOL: tpl_sb_puts(b, v.b ? "True" : "False"); return true;
    case V_INT:
        snprintf(t, sizeof t, "%lld", (long long)v.i);
        tpl_sb_puts(b, t);
        return true;
    case V_BIG: tpl_sb_str(b, v.s); return true;
    case V_FLOAT: tpl_sb_bytes(b, t, tpl_float_repr(v.f, t), false); return true;
    case V_LOOP: tpl_sb_puts(b, "<LoopContext>"); return true;
    case V_MACRO: tpl_sb_puts(b, "<Macro>"); return true;
    case V_BOUND:
        snprintf(t, sizeof t, "<built-in method %.30s>", tpl_method_name(v.bound->method));
        tpl_sb_puts(b, t);
        return true;
    case V_GLOBAL:
        snprintf(t, sizeof t, "<function %.30s>", v.global->name);
        tpl_sb_puts(b, t);
        return true;
    case V_CYCLER: tpl_sb_puts(b, "<Cycler>"); return true;
    case V_JOINER: tpl_sb_puts(b, "<Joiner>"); return true;
    default: return false;
    }
}

void tpl_put_repr(sbuild *b, value v)
{
    rctx *c = b->c;
    work(c, 1);
    if (put_scalar(b, v)) return;
    if (v.kind == V_STR) {
        repr_str(b, v.s);
        return;
    }
    if (++c->depth > MAX_DEPTH)
        tpl_fail(c, ERR_LIMIT, "maximum recursion depth exceeded while printing");
    if (v.kind == V_NS) tpl_sb_puts(b, "<Namespace ");
    if (v.kind == V_DICT || v.kind == V_NS) repr_dict(b, v.d);
    else repr_seq(b, v);
    if (v.kind == V_NS) tpl_sb_puts(b, ">");
    c->depth--;
}

/* The text as one span: closed if any of it is. */
static vstr *all_or_nothing(sbuild *b)
{
    vstr *s = tpl_sb_done(b);
    if (s->from != OPEN) s = tpl_str_new(b->c, s->v, s->n, CLOSED);
    return s;
}

vstr *tpl_soft_str(rctx *c, value v)
{
    if (v.kind == V_STR) return v.s;
    sbuild b;
    tpl_sb_init(&b, c);
    if (v.kind != V_UNDEF && v.kind != V_MISSING) tpl_put_repr(&b, v);
    return all_or_nothing(&b);
}

vstr *tpl_to_str(rctx *c, value v)
{
    vstr *s = tpl_soft_str(c, v);
    if (!s->markup) return s;
    tpl_str_flat(c, s);
    vstr *plain = tpl_take(c, sizeof *plain);
    *plain = *s;
    plain->markup = false;
    plain->room = 0;
    return plain;
}

void tpl_put_str(sbuild *b, value v)
{
    if (v.kind == V_STR) tpl_sb_str(b, v.s);
    else if (v.kind == V_UNDEF || v.kind == V_MISSING) return;
    else if (!put_scalar(b, v)) tpl_sb_str(b, tpl_soft_str(b->c, v));
}

/* ---- JSON ------------------------------------------------------------------------------------ */

typedef struct {
    sbuild b;
    const json_style *style;
    int level;
} writer;

static void json_str(writer *w, vstr *s)
{
    static const char plain[] = "\"\\\n\r\t\f\b", letter[] = "\"\\nrtfb";
    const char *v = tpl_str_flat(w->b.c, s), *hit;
    bool closed = s->from != OPEN;
    char esc[16];
    size_t from = 0;
    tpl_sb_bytes(&w->b, "\"", 1, closed);
    for (size_t i = 0; i < s->n;) {
        unsigned char ch = (unsigned char)v[i];
        size_t k = 1;
        int n = 0;
        if (ch < 0x80 && ch && (hit = strchr(plain, ch))) {
            n = sprintf(esc, "\\%c", letter[hit - plain]);
        } else if (ch < 0x20) {
            n = sprintf(esc, "\\u%04x", ch);
        } else if (ch >= 0x80 && w->style->ascii) {
            uint32_t cp;
            k = (size_t)utf8_decode(v + i, &cp);
            if (cp < 0x10000) n = sprintf(esc, "\\u%04x", cp);
            else
                n = sprintf(esc, "\\u%04x\\u%04x", 0xD800 + ((cp - 0x10000) >> 10),
                            0xDC00 + ((cp - 0x10000) & 0x3FF));
        }
        if (n) {
            tpl_sb_bytes(&w->b, v + from, i - from, closed);
            tpl_sb_bytes(&w->b, esc, (size_t)n, closed);
            from = i + k;
        }
        i += k;
    }
    tpl_sb_bytes(&w->b, v + from, s->n - from, closed);
    tpl_sb_bytes(&w->b, "\"", 1, closed);
}

static void json_value(writer *w, value v);

static void json_newline(writer *w)
{
    if (!w->style->indent) return;
    tpl_sb_puts(&w->b, "\n");
    work(w->b.c, (uint64_t)w->level >> 4);
    for (int i = 0; i < w->level; i++) tpl_sb_str(&w->b, w->style->indent);
}

static void json_sep(writer *w, size_t i)
{
    if (i) {
        if (w->style->item_sep) tpl_sb_str(&w->b, w->style->item_sep);
        else tpl_sb_puts(&w->b, w->style->indent ? "," : ", ");
    }
    json_newline(w);
}

static void json_key(writer *w, value k)
{
    if (k.kind == V_STR) {
        json_str(w, k.s);
    } else if (tpl_is_number(k) || k.kind == V_NONE) {
        tpl_sb_puts(&w->b, "\"");
        json_value(w, k);
        tpl_sb_puts(&w->b, "\"");
    } else {
        raise(w->b.c, "keys must be str, int, float, bool or None, not %s", tpl_type_name(k));
    }
    if (w->style->key_sep) tpl_sb_str(&w->b, w->style->key_sep);
    else tpl_sb_puts(&w->b, ": ");
}

/* Order of the keys for sort_keys: insertion sort by binary search on an index. */
static size_t *sorted_keys(rctx *c, vdict *d)
{
    size_t *at = tpl_take(c, d->n * sizeof *at);
    for (size_t i = 0; i < d->n; i++) {
        size_t lo = 0, hi = i;
        while (lo < hi) {
            size_t mid = lo + (hi - lo) / 2;
            if (tpl_order(c, d->v[i].key, d->v[at[mid]].key, "<") < 0) hi = mid;
            else lo = mid + 1;
        }
        work(c, (i - lo) >> 4);
        memmove(at + lo + 1, at + lo, (i - lo) * sizeof *at);
        at[lo] = i;
    }
    return at;
}

static void json_dict(writer *w, vdict *d)
{
    tpl_dict_load(w->b.c, d);
    tpl_sb_puts(&w->b, "{");
    w->level++;
    const size_t *at = w->style->sort_keys && d->n ? sorted_keys(w->b.c, d) : NULL;
    for (size_t i = 0; i < d->n; i++) {
        const ventry *e = &d->v[at ? at[i] : i];
        json_sep(w, i);
        json_key(w, e->key);
        json_value(w, e->val);
    }
    w->level--;
    if (d->n) json_newline(w);
    tpl_sb_puts(&w->b, "}");
}

static void json_list(writer *w, vseq *q)
{
    tpl_seq_load(w->b.c, q);
    tpl_sb_puts(&w->b, "[");
    w->level++;
    for (size_t i = 0; i < q->n; i++) {
        json_sep(w, i);
        json_value(w, q->v[i]);
    }
    w->level--;
    if (q->n) json_newline(w);
    tpl_sb_puts(&w->b, "]");
}

static void json_value(writer *w, value v)
{
    rctx *c = w->b.c;
    work(c, 1);
    if (++c->depth > MAX_DEPTH)
        tpl_fail(c, ERR_LIMIT, "maximum recursion depth exceeded while encoding a JSON object");
    switch (v.kind) {
    case V_NONE: tpl_sb_puts(&w->b, "null"); break;
    case V_BOOL: tpl_sb_puts(&w->b, v.b ? "true" : "false"); break;
    case V_INT:
    case V_BIG: put_scalar(&w->b, v); break;
    case V_FLOAT:
        if (isnan(v.f)) tpl_sb_puts(&w->b, "NaN");
        else if (isinf(v.f)) tpl_sb_puts(&w->b, v.f < 0 ? "-Infinity" : "Infinity");
        else put_scalar(&w->b, v);
        break;
    case V_STR: json_str(w, v.s); break;
    case V_LIST:
    case V_TUPLE: json_list(w, v.q); break;
    case V_DICT: json_dict(w, v.d); break;
    default: raise(c, "Object of type %s is not JSON serializable", tpl_type_name(v));
    }
    c->depth--;
}

vstr *tpl_to_json(rctx *c, value v, const json_style *style)
{
    writer w = {.style = style};
    tpl_sb_init(&w.b, c);
    json_value(&w, v);
    return all_or_nothing(&w.b);
}
