/* base64.c - see base64.h.  Owns nothing. */
#include "base/base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_put(buf *out, const void *p, size_t n)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i += 3) {
        size_t k = n - i < 3 ? n - i : 3;
        unsigned v = (unsigned)b[i] << 16 | (k > 1 ? (unsigned)b[i + 1] << 8 : 0) |
                     (k > 2 ? (unsigned)b[i + 2] : 0);
        char t[4] = {digits[v >> 18], digits[v >> 12 & 63], k > 1 ? digits[v >> 6 & 63] : '=',
                     k > 2 ? digits[v & 63] : '='};
        buf_put(out, t, 4);
    }
}

static int digit_of(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_get(const char *s, size_t n, buf *out)
{
    size_t start = out->len;
    if (n % 4) return false;
    for (size_t i = 0; i < n; i += 4) {
        int pad = i + 4 < n || s[i + 3] != '=' ? 0 : s[i + 2] == '=' ? 2 : 1;
        unsigned v = 0;
        for (int k = 0; k < 4; k++) {
            int d = k < 4 - pad ? digit_of(s[i + (size_t)k]) : 0;
            if (d < 0) {
                out->len = start;
                if (out->v) out->v[start] = 0;
                return false;
            }
            v = v << 6 | (unsigned)d;
        }
        char t[3] = {(char)(v >> 16), (char)(v >> 8), (char)v};
        buf_put(out, t, (size_t)(3 - pad));
    }
    return true;
}
