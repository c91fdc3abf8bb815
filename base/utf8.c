/* utf8.c - UTF-8 validation and coding, table 3-7 of the Unicode standard.  Pure, any thread. */
#include "base/utf8.h"

/* Range of the second byte and total length for a lead byte; len 0 = no lead byte. */
static int lead(unsigned char c, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xBF;
    if (c < 0x80) return 1;
    if (c < 0xC2) return 0;
    if (c < 0xE0) return 2;
    if (c < 0xF0) {
        if (c == 0xE0) *lo = 0xA0;
        if (c == 0xED) *hi = 0x9F;
        return 3;
    }
    if (c < 0xF5) {
        if (c == 0xF0) *lo = 0x90;
        if (c == 0xF4) *hi = 0x8F;
        return 4;
    }
    return 0;
}

/* Proper bytes of the sequence at s, at most n; *len = full length or 0. */
static size_t good_bytes(const char *s, size_t n, int *len)
{
    const unsigned char *u = (const unsigned char *)s;
    unsigned char lo, hi;
    *len = lead(u[0], &lo, &hi);
    if (!*len) return 0;
    size_t i = 1;
    for (; i < (size_t)*len && i < n; i++) {
        if (u[i] < lo || u[i] > hi) break;
        lo = 0x80;
        hi = 0xBF;
    }
    return i;
}

int utf8_valid_at(const char *s, size_t n)
{
    int len;
    if (!n) return 0;
    size_t good = good_bytes(s, n, &len);
    if (!len) return -1;
    if (good == (size_t)len) return len;
    return good == n ? 0 : -1;
}

bool utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        if ((unsigned char)s[i] < 0x80) {
            i++;
            continue;
        }
        int k = utf8_valid_at(s + i, n - i);
        if (k <= 0) return false;
        i += (size_t)k;
    }
    return true;
}

int utf8_decode(const char *s, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80) {
        *cp = u[0];
        return 1;
    }
    if (u[0] < 0xE0) {
        *cp = (u[0] & 31u) << 6 | (u[1] & 63u);
        return 2;
    }
    if (u[0] < 0xF0) {
        *cp = (u[0] & 15u) << 12 | (u[1] & 63u) << 6 | (u[2] & 63u);
        return 3;
    }
    *cp = (u[0] & 7u) << 18 | (u[1] & 63u) << 12 | (u[2] & 63u) << 6 | (u[3] & 63u);
    return 4;
}

int utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 63));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 63));
        out[2] = (char)(0x80 | (cp & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 63));
    out[2] = (char)(0x80 | (cp >> 6 & 63));
    out[3] = (char)(0x80 | (cp & 63));
    return 4;
}

size_t utf8_partial_tail(const char *s, size_t n)
{
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        unsigned char c = (unsigned char)s[n - k];
        if (c < 0x80) return 0;
        if (c >= 0xC0) return utf8_valid_at(s + n - k, k) == 0 ? k : 0;
    }
    return 0;
}

size_t utf8_bad_run(const char *s, size_t n)
{
    int len;
    size_t good = good_bytes(s, n, &len);
    return good ? good : 1;
}
