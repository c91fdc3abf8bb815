/* json_value.c - numbers of parsed JSON, and values printed: as they were sent, or as Python's
 * json.dumps does, which is what chat templates were trained on, so every byte matters.
 * Owns nothing.  Thread: any. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double json_num(const json *j)
{
    return json_is(j, JSON_NUMBER) ? strtod(j->str, NULL) : 0;
}

/* Decimal exponent in s ("e+12"), clamped far beyond what any int64 needs. */
static int64_t exponent_of(const char *s)
{
    const char *e = strpbrk(s, "eE");
    if (!e) return 0;
    bool minus = *++e == '-';
    if (*e == '-' || *e == '+') e++;
    int64_t v = 0;
    for (; *e; e++)
        if (v < ((int64_t)1 << 40)) v = v * 10 + (*e - '0');
    return minus ? -v : v;
}

bool json_int(const json *j, int64_t *out)
{
    if (!json_is(j, JSON_NUMBER)) return false;
    const char *s = j->str;
    bool minus = *s == '-';
    if (minus) s++;
    /* value = digits * 10^exp; zeros wait in `zeros` until a digit that is not 0 needs them. */
    int64_t exp = exponent_of(s), zeros = 0;
    uint64_t v = 0;
    bool fraction = false;
    for (; *s && *s != 'e' && *s != 'E'; s++) {
        if (*s == '.') {
            fraction = true;
            continue;
        }
        if (fraction) exp--;
        if (*s == '0') {
            if (v) zeros++;
            continue;
        }
        for (; zeros >= 0; zeros--)
            if (__builtin_mul_overflow(v, 10u, &v)) return false;
        zeros = 0;
        if (__builtin_add_overflow(v, (uint64_t)(*s - '0'), &v)) return false;
    }
    exp += zeros;
    if (!v) exp = 0;
    if (exp < 0 || exp > 19) return false;
    while (exp--)
        if (__builtin_mul_overflow(v, 10u, &v)) return false;
    if (v > (uint64_t)INT64_MAX + minus) return false;
    *out = (int64_t)(minus ? 0 - v : v);
    return true;
}

const char *json_type_name(const json *j)
{
    if (!j) return "nothing";
    switch (j->type) {
    case JSON_NULL: return "null";
    case JSON_FALSE:
    case JSON_TRUE: return "boolean";
    case JSON_NUMBER: return "number";
    case JSON_STRING: return "string";
    case JSON_ARRAY: return "array";
    case JSON_OBJECT: return "object";
    }
    return "nothing";
}

/* "d.ddde±x" one unit in the last place larger in magnitude; false if that carries out. */
static bool bump_last_digit(char *t)
{
    char *e = strchr(t, 'e');
    for (char *p = e - 1; p >= t; p--) {
        if (*p == '.' || *p == '-') continue;
        if (*p != '9') {
            ++*p;
            return true;
        }
        *p = '0';
    }
    return false;
}

/* The shortest "d.ddde±x" that reads back as v.  Fifteen digits survive a round trip, so if they
 * read back they hold the shortest text, padded with zeros (normal numbers only).  Just above a
 * power of two the gap below is half as wide, and the nearest decimal may lie outside it while
 * the next one up reads back. */
static void shortest(double v, char t[40])
{
    int unused;
    bool power = fabs(frexp(v, &unused)) == 0.5, normal = fabs(v) >= 0x1p-1022;
    for (int digits = normal ? 15 : 1; digits <= 17; digits++) {
        snprintf(t, 40, "%.*e", digits - 1, v);
        if (strtod(t, NULL) == v) return;
        if (power && bump_last_digit(t) && strtod(t, NULL) == v) return;
    }
}

/* Python's repr of a float: fixed notation for exponents -4..15, else d.ddde+xx. */
static void put_float(double v, buf *out)
{
    char t[40], digits[24];
    if (v == 0) {
        buf_puts(out, signbit(v) ? "-0.0" : "0.0");
        return;
    }
    shortest(v, t);
    int n = 0;
    const char *p = t;
    if (*p == '-') {
        buf_putc(out, '-');
        p++;
    }
    for (; *p != 'e'; p++)
        if (*p != '.') digits[n++] = *p;
    int exp = atoi(p + 1);
    while (n > 1 && digits[n - 1] == '0') n--;
    if (exp < -4 || exp > 15) {
        buf_putc(out, digits[0]);
        if (n > 1) buf_putc(out, '.');
        buf_put(out, digits + 1, (size_t)n - 1);
        buf_printf(out, "e%c%02d", exp < 0 ? '-' : '+', abs(exp));
        return;
    }
    int whole = exp < 0 ? 0 : exp + 1; /* digits before the point */
    if (!whole) buf_puts(out, "0.");
    for (int i = exp + 1; i < 0; i++) buf_putc(out, '0');
    for (int i = 0; i < n || i <= whole; i++) {
        if (i == whole && whole) buf_putc(out, '.');
        buf_putc(out, i < n ? digits[i] : '0');
    }
}

static void put_string(const char *s, size_t n, buf *out)
{
    static const char plain[] = "btnfr", hex[] = "0123456789abcdef";
    buf_putc(out, '"');
    size_t from = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        buf_put(out, s + from, i - from);
        from = i + 1;
        char esc[6] = {'\\', (char)c};
        size_t len = 2;
        if (c >= '\b' && c <= '\r' && c != '\v') {
            esc[1] = plain[c > '\v' ? c - '\b' - 1 : c - '\b'];
        } else if (c < 0x20) {
            memcpy(esc + 1, (char[]){'u', '0', '0', hex[c >> 4], hex[c & 15]}, 5);
            len = 6;
        }
        buf_put(out, esc, len);
    }
    buf_put(out, s + from, n - from);
    buf_putc(out, '"');
}

/* exact: numbers as written, nothing between items; else as json.dumps does it. */
static void put(const json *j, bool exact, buf *out)
{
    switch (j->type) {
    case JSON_NULL: buf_puts(out, "null"); return;
    case JSON_FALSE: buf_puts(out, "false"); return;
    case JSON_TRUE: buf_puts(out, "true"); return;
    case JSON_STRING: put_string(j->str, j->len, out); return;
    case JSON_NUMBER:
        if (exact) buf_put(out, j->str, j->len);
        else if (strpbrk(j->str, ".eE")) put_float(json_num(j), out);
        else buf_puts(out, strcmp(j->str, "-0") ? j->str : "0");
        return;
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    }
    bool object = j->type == JSON_OBJECT;
    buf_putc(out, object ? '{' : '[');
    for (const json *c = j->child; c; c = c->next) {
        if (c != j->child) buf_puts(out, exact ? "," : ", ");
        if (object) {
            put_string(c->key, c->n_key, out);
            buf_puts(out, exact ? ":" : ": ");
        }
        put(c, exact, out);
    }
    buf_putc(out, object ? '}' : ']');
}

void json_dump(const json *j, buf *out)
{
    put(j, false, out);
}

void json_print(const json *j, buf *out)
{
    put(j, true, out);
}
