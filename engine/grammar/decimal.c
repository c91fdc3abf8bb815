/* decimal.c - bounds as decimal text and the numbers between two of them, digit by digit.  Never a
 * double: 2^64 and 0.1 are what the schema says they are.  Stateless.  Any thread. */
#include "engine/grammar/ecma.h"

enum { MAX_DIGITS = 60, OPEN_DIGITS = 30 };

bool decimal_parse(const char *s, decimal *d)
{
    char digits[2 * MAX_DIGITS + 2];
    long n = 0, point = -1, exp = 0;
    memset(d, 0, sizeof *d);
    d->given = true;
    if (*s == '-') {
        d->negative = true;
        s++;
    }
    for (; (*s >= '0' && *s <= '9') || *s == '.'; s++) {
        if (*s == '.') point = n;
        else if (n < MAX_DIGITS) digits[n++] = *s;
        else return false;
    }
    if (point < 0) point = n;
    if (*s == 'e' || *s == 'E') exp = strtol(s + 1, NULL, 10);
    if (exp > MAX_DIGITS || exp < -MAX_DIGITS) return false;
    point += exp;
    long w = 0, f = 0;
    if (point > MAX_DIGITS || n - point > MAX_DIGITS) return false;
    for (long i = 0; i < point; i++) {
        char c = i < n ? digits[i] : '0';
        if (w || c != '0') d->whole[w++] = c;
    }
    for (long i = point; i < n; i++) d->part[f++] = i < 0 ? '0' : digits[i];
    while (f && d->part[f - 1] == '0') f--;
    d->part[f] = 0;
    if (!w) d->whole[w++] = '0';
    d->whole[w] = 0;
    if (!f && d->whole[0] == '0') d->negative = false;
    return true;
}

static int digits_cmp(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    return n != m ? (n > m) - (n < m) : strcmp(a, b);
}

int decimal_cmp(const decimal *a, const decimal *b)
{
    if (a->negative != b->negative) return a->negative ? -1 : 1;
    int c = digits_cmp(a->whole, b->whole);
    if (!c) c = strcmp(a->part, b->part);
    return a->negative ? -c : c;
}

static void add_one(char *s)
{
    size_t n = strlen(s), i = n;
    while (i && s[i - 1] == '9') s[--i] = '0';
    if (i) {
        s[i - 1]++;
        return;
    }
    memmove(s + 1, s, n + 1);
    s[0] = '1';
}

static void sub_one(char *s) /* s is not "0" */
{
    size_t i = strlen(s);
    while (s[i - 1] == '0') s[--i] = '9';
    s[i - 1]--;
    if (s[0] == '0' && s[1]) memmove(s, s + 1, strlen(s));
}

static rx digit(rx_arena *r, int a, int b)
{
    return a > b ? R_NONE : rx_range(r, (uint8_t)('0' + a), (uint8_t)('0' + b));
}

/* Digit strings of length n >= a, or <= b; built from the last digit. */
static rx one_sided(rx_arena *r, const char *s, size_t n, bool at_least)
{
    rx e = R_EPS;
    for (size_t i = n; i--;) {
        int x = s[i] - '0';
        rx rest = rx_rep(r, digit(r, 0, 9), (uint32_t)(n - 1 - i), (uint32_t)(n - 1 - i));
        rx more = at_least ? digit(r, x + 1, 9) : digit(r, 0, x - 1);
        e = rx_alt2(r, rx_cat(r, digit(r, x, x), e), rx_cat(r, more, rest));
    }
    return e;
}

/* Digit strings of the length of a and b between them. */
static rx same_length(rx_arena *r, const char *a, const char *b)
{
    size_t n = strlen(a), i = 0;
    while (i < n && a[i] == b[i]) i++;
    if (i == n) return rx_lit(r, a, n);
    size_t left = n - i - 1;
    rx any = rx_rep(r, digit(r, 0, 9), (uint32_t)left, (uint32_t)left);
    rx v[3] = {rx_cat(r, rx_byte(r, (uint8_t)a[i]), one_sided(r, a + i + 1, left, true)),
               rx_cat(r, digit(r, a[i] - '0' + 1, b[i] - '0' - 1), any),
               rx_cat(r, rx_byte(r, (uint8_t)b[i]), one_sided(r, b + i + 1, left, false))};
    return rx_cat(r, rx_lit(r, a, i), rx_alt(r, v, 3));
}

/* Whole numbers without sign from a to b (NULL: no end). */
static rx whole_range(rx_arena *r, const char *a, const char *b)
{
    char lo[72], hi[72];
    size_t la = strlen(a), lb = b ? strlen(b) : la;
    rx e = R_NONE;
    if (b && digits_cmp(a, b) > 0) return R_NONE;
    for (size_t n = la; n <= lb; n++) {
        memset(lo, '0', n);
        memset(hi, '9', n);
        lo[0] = n == 1 ? '0' : '1';
        lo[n] = hi[n] = 0;
        e = rx_alt2(r, e, same_length(r, n == la ? a : lo, b && n == lb ? b : hi));
    }
    if (!b && la < OPEN_DIGITS)
        e = rx_alt2(
            r, e,
            rx_cat(r, digit(r, 1, 9), rx_rep(r, digit(r, 0, 9), (uint32_t)la, OPEN_DIGITS - 1)));
    return e;
}

/* Fraction digits d with .d >= .s or <= .s, strictly if exclusive. */
static rx fraction_side(rx_arena *r, const char *s, bool at_least, bool exclusive)
{
    rx any = rx_rep(r, digit(r, 0, 9), 0, OPEN_DIGITS), zeros = rx_star(r, digit(r, 0, 0)), e;
    if (at_least) e = exclusive ? rx_cat3(r, zeros, digit(r, 1, 9), any) : any;
    else e = exclusive ? R_NONE : zeros;
    for (size_t i = strlen(s); i--;) {
        int x = s[i] - '0';
        e = rx_cat(r, digit(r, x, x), e);
        e = rx_alt2(r, e, rx_cat(r, at_least ? digit(r, x + 1, 9) : digit(r, 0, x - 1), any));
        if (!at_least) e = rx_alt2(r, e, R_EPS);
    }
    return e;
}

/* Such digits as the end of a number: nothing, or a point and at least one of them. */
static rx fraction_text(rx_arena *r, rx digits)
{
    rx some = rx_and2(r, digits, rx_rep(r, digit(r, 0, 9), 1, OPEN_DIGITS));
    rx e = rx_live(r, some) ? rx_cat(r, rx_byte(r, '.'), some) : R_NONE;
    return r->nodes.p[digits].nullable ? rx_alt2(r, R_EPS, e) : e;
}

/* Numbers without sign between a and b (b may be not given). */
static rx magnitude(rx_arena *r, const decimal *a, const decimal *b)
{
    char next[72], last[72];
    rx ge = fraction_side(r, a->part, true, a->exclusive);
    rx le = b->given ? fraction_side(r, b->part, false, b->exclusive) : R_NONE;
    if (b->given && digits_cmp(a->whole, b->whole) > 0) return R_NONE;
    if (b->given && !strcmp(a->whole, b->whole))
        return rx_cat(r, rx_str(r, a->whole), fraction_text(r, rx_and2(r, ge, le)));
    strcpy(next, a->whole);
    add_one(next);
    rx any = fraction_text(r, rx_rep(r, digit(r, 0, 9), 0, OPEN_DIGITS));
    rx e = rx_cat(r, rx_str(r, a->whole), fraction_text(r, ge));
    if (b->given) {
        strcpy(last, b->whole);
        sub_one(last);
        e = rx_alt2(r, e, rx_cat(r, rx_str(r, b->whole), fraction_text(r, le)));
    }
    return rx_alt2(r, e, rx_cat(r, whole_range(r, next, b->given ? last : NULL), any));
}

static rx whole_magnitude(rx_arena *r, const decimal *a, const decimal *b)
{
    char lo[72], hi[72];
    strcpy(lo, a->whole);
    if (a->part[0] || a->exclusive) add_one(lo);
    if (!b->given) return whole_range(r, lo, NULL);
    strcpy(hi, b->whole);
    if (b->exclusive && !b->part[0]) {
        if (!strcmp(hi, "0")) return R_NONE;
        sub_one(hi);
    }
    return whole_range(r, lo, hi);
}

rx decimal_range(rx_arena *r, const decimal *lo, const decimal *hi, bool integer)
{
    const decimal zero = {.given = true, .whole = "0"};
    rx (*span)(rx_arena *, const decimal *, const decimal *) =
        integer ? whole_magnitude : magnitude;
    rx pos = R_NONE, neg = R_NONE;
    if (!hi->given || !hi->negative) pos = span(r, lo->given && !lo->negative ? lo : &zero, hi);
    bool lo_is_zero = lo->given && decimal_cmp(lo, &zero) == 0 && !lo->exclusive;
    if (!lo->given || lo->negative || lo_is_zero) {
        decimal a = hi->given && (hi->negative || decimal_cmp(hi, &zero) == 0) ? *hi : zero;
        decimal b = *lo;
        a.negative = b.negative = false;
        neg = rx_cat(r, rx_byte(r, '-'), span(r, &a, &b));
    }
    return rx_alt2(r, pos, neg);
}
