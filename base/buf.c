/* buf.c - the growing byte buffer of buf.h; owns nothing static.  Any thread, one owner a buffer.
 */
#include "base/buf.h"

#include "base/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_clear(buf *b)
{
    size_t max = b->max;
    free(b->v);
    *b = (buf){.max = max};
}

void buf_reset(buf *b)
{
    b->len = 0;
    b->oom = false;
    if (b->v) b->v[0] = 0;
}

bool buf_reserve(buf *b, size_t extra)
{
    if (b->oom) return false;
    if (extra < b->cap && b->len < b->cap - extra) {
        if (b->max && b->len + extra > b->max) b->oom = true;
        return !b->oom;
    }
    size_t need;
    if (__builtin_add_overflow(b->len, extra, &need) || need > SIZE_MAX / 4 ||
        (b->max && need > b->max)) {
        b->oom = true;
        return false;
    }
    size_t cap = b->cap ? b->cap : 64;
    while (cap <= need) cap *= 2;
    char *v = realloc(b->v, cap);
    if (!v) {
        b->oom = true;
        return false;
    }
    b->v = v;
    b->cap = cap;
    return true;
}

void buf_put(buf *b, const void *p, size_t n)
{
    if (!buf_reserve(b, n)) return;
    if (n) memcpy(b->v + b->len, p, n);
    b->len += n;
    b->v[b->len] = 0;
}

void buf_puts(buf *b, const char *s)
{
    buf_put(b, s, strlen(s));
}

void buf_putc(buf *b, char c)
{
    buf_put(b, &c, 1);
}

void buf_printf(buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n >= 0 && buf_reserve(b, (size_t)n)) {
        vsnprintf(b->v + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void buf_put_int(buf *b, int64_t v)
{
    char t[24];
    int i = (int)sizeof t;
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do {
        t[--i] = (char)('0' + u % 10);
        u /= 10;
    } while (u);
    if (v < 0) t[--i] = '-';
    buf_put(b, t + i, sizeof t - (size_t)i);
}

void buf_put_json(buf *b, const char *s, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    buf_putc(b, '"');
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)s[i];
        int seq = c < 0x80 ? 1 : utf8_valid_at(s + i, n - i);
        if (seq > 0 && c >= 0x20 && c != '"' && c != '\\') {
            i += (size_t)seq;
            continue;
        }
        buf_put(b, s + from, i - from);
        if (seq <= 0) buf_puts(b, "\xEF\xBF\xBD");
        else if (c == '"' || c == '\\') buf_put(b, (char[]){'\\', (char)c}, 2);
        else if (c == '\n') buf_puts(b, "\\n");
        else if (c == '\r') buf_puts(b, "\\r");
        else if (c == '\t') buf_puts(b, "\\t");
        else buf_put(b, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        i += seq <= 0 ? utf8_bad_run(s + i, n - i) : 1;
        from = i;
    }
    buf_put(b, s + from, n - from);
    buf_putc(b, '"');
}

void buf_put_num(buf *b, double v)
{
    if (!isfinite(v)) v = 0;
    if (v == (double)(int64_t)v && fabs(v) < 1e15) {
        buf_put_int(b, (int64_t)v);
        return;
    }
    char t[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(t, sizeof t, "%.*g", digits, v);
        if (strtod(t, NULL) == v) break;
    }
    buf_puts(b, t);
}

char *buf_take(buf *b, size_t *len)
{
    if (!b->v) buf_put(b, "", 0);
    char *v = b->v;
    if (len) *len = b->len;
    *b = (buf){.max = b->max};
    return v;
}
