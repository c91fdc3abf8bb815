/* pretok_regex.c - from Oniguruma's regular expressions (Ruby syntax, UTF-8), which tokenizer files
 * are written for, to PCRE2's (UTF | UCP | MULTILINE). Where the two differ on what tokenizers
 * write, \s  PCRE2 adds U+180E; \h \v mean other things; \uHHHH is unknown to PCRE2; ^ and $ always
 * match at line ends; \p{L} and the like follow the Unicode version each was built with are
 * rewritten or set by an option, and \w \W \b, \p{Han} and other long names (script extensions in
 * newer PCRE2), [a[b]] and && in a class (set operations in Oniguruma), {n,m}+ (possessive in PCRE2
 * only) are refused: no byte-level vocabulary we know uses them. */
#include "engine/text/pretok.h"

#include "base/utf8.h"
#include "engine/text/unicode_later.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

/* White_Space and its complement as members of a bracket class. */
#define SPACE  \
    "\\t-\\r " \
    "\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define NOT_SPACE                                                                        \
    "\\x00-\\x08\\x0E-\\x1F!-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}" \
    "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}"       \
    "\\x{3001}-\\x{10FFFF}"

#define N_LATER (sizeof UNICODE_LATER / sizeof *UNICODE_LATER)

typedef struct {
    const char *s, *end;
    buf *out;
    bool in_class;
    bool later;  /* spell out characters newer than PCRE2 */
    bool differ; /* that made a difference */
} translation;

static int refuse(const translation *t, err *e)
{
    size_t n = (size_t)(t->end - t->s);
    return err_set(e, ERR_UNSUPPORTED, "pre-tokenizer expression: \"%.*s\" is not supported here",
                   n > 24 ? 24 : (int)n, t->s);
}

static void put_set(translation *t, const char *members, bool negated)
{
    if (t->in_class) buf_puts(t->out, members);
    else buf_printf(t->out, "[%s%s]", negated ? "^" : "", members);
}

static bool has_later(char category)
{
    for (size_t i = 0; i < N_LATER; i++)
        if (UNICODE_LATER[i].category == category) return true;
    return false;
}

static void put_later(buf *out, char category)
{
    for (size_t i = 0; i < N_LATER; i++)
        if (UNICODE_LATER[i].category == category)
            buf_printf(out, "\\x{%X}-\\x{%X}", (unsigned)UNICODE_LATER[i].lo,
                       (unsigned)UNICODE_LATER[i].hi);
}

/* \p{..}: general categories only, which both engines read alike.  One-letter ones get their later
 * members; of two-letter ones, which byte-level vocabularies hardly use, those are left out. */
static int put_property(translation *t, err *e)
{
    const char *p = t->s + 2;
    bool negated = t->s[1] == 'P';
    char name[3] = {0};
    if (p >= t->end || *p++ != '{') return refuse(t, e);
    if (p < t->end && *p == '^') {
        negated = !negated;
        p++;
    }
    if (p >= t->end || !memchr("LMNPSZ", *p, 6)) return refuse(t, e);
    name[0] = *p++;
    if (p < t->end && islower((unsigned char)*p)) name[1] = *p++;
    if (p >= t->end || *p++ != '}') return refuse(t, e);
    bool later = !name[1] && has_later(name[0]);
    t->differ = t->differ || later;
    if (t->in_class && negated && later) return refuse(t, e);
    bool wrap = !t->in_class && later && t->later;
    if (wrap) buf_printf(t->out, "[%s\\p{%s}", negated ? "^" : "", name);
    else buf_printf(t->out, "\\%c{%s}", negated ? 'P' : 'p', name);
    if (later && t->later) put_later(t->out, name[0]);
    if (wrap) buf_putc(t->out, ']');
    t->s = p;
    return 0;
}

/* Hexadecimal digits at p, at most max; the value. */
static uint32_t hex(const char **p, const char *end, int max)
{
    uint32_t v = 0;
    for (; max && *p < end && isxdigit((unsigned char)**p); (*p)++, max--)
        v = v * 16 + (uint32_t)(isdigit((unsigned char)**p) ? **p - '0' : (**p | 32) - 'a' + 10);
    return v;
}

static int put_code_point(translation *t, err *e)
{
    const char *p = t->s + 2, *digits;
    bool braces = t->s[1] == 'x' && p < t->end && *p == '{';
    if (braces) p++;
    int max = braces ? 6 : t->s[1] == 'x' ? 2 : 4;
    digits = p;
    uint32_t cp = hex(&p, t->end, max);
    if (p == digits || (t->s[1] == 'u' && p != digits + 4)) return refuse(t, e);
    if (braces && (p >= t->end || *p++ != '}')) return refuse(t, e);
    buf_printf(t->out, "\\x{%X}", (unsigned)cp);
    t->s = p;
    return 0;
}

static int put_escape(translation *t, err *e)
{
    if (t->s + 1 >= t->end) return refuse(t, e);
    char c = t->s[1];
    switch (c) {
    case 's': put_set(t, SPACE, false); break;
    case 'S': put_set(t, t->in_class ? NOT_SPACE : SPACE, true); break;
    case 'v': buf_puts(t->out, "\\x0B"); break;
    case 'h': put_set(t, "0-9a-fA-F", false); break;
    case 'p':
    case 'P': return put_property(t, e);
    case 'x':
    case 'u': return put_code_point(t, e);
    default:
        if (!memchr("dDrntfae", c, 8) && !ispunct((unsigned char)c)) return refuse(t, e);
        buf_put(t->out, t->s, 2);
    }
    t->s += 2;
    return 0;
}

/* "(": plain groups and look-around; no flags but (?i:, no names, no recursion, no verbs. */
static int put_group(translation *t, err *e)
{
    static const char *const known[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    size_t left = (size_t)(t->end - t->s);
    if (left > 1 && t->s[1] != '?' && t->s[1] != '*') {
        buf_putc(t->out, *t->s++);
        return 0;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t k = strlen(known[i]);
        if (left < k || memcmp(t->s, known[i], k)) continue;
        buf_put(t->out, t->s, k);
        t->s += k;
        return 0;
    }
    return refuse(t, e);
}

static int put_in_class(translation *t, err *e)
{
    if (*t->s == '[' || (*t->s == '&' && t->s + 1 < t->end && t->s[1] == '&')) return refuse(t, e);
    if (*t->s == ']') t->in_class = false;
    buf_putc(t->out, *t->s++);
    return 0;
}

int pretok_translate(const char *regex, size_t n, bool later, bool *differ, buf *out, err *e)
{
    translation t = {.s = regex, .end = regex + n, .out = out, .later = later};
    int r = 0;
    while (r == 0 && t.s < t.end) {
        if (*t.s == '\\') {
            r = put_escape(&t, e);
        } else if (t.in_class) {
            r = put_in_class(&t, e);
        } else if (*t.s == '[') {
            t.in_class = true;
            buf_putc(out, *t.s++);
            if (t.s < t.end && *t.s == '^') buf_putc(out, *t.s++);
            if (t.s < t.end && *t.s == ']') r = refuse(&t, e);
        } else if (*t.s == '(') {
            r = put_group(&t, e);
        } else if (*t.s == '}' && t.s + 1 < t.end && t.s[1] == '+') {
            r = refuse(&t, e); /* possessive for PCRE2 only */
        } else {
            buf_putc(out, *t.s++);
        }
    }
    if (r == 0 && !buf_ok(out))
        r = err_set(e, ERR_NOMEM, "out of memory for a pre-tokenizer expression");
    *differ = t.differ;
    return r;
}

static bool is_later(uint32_t cp)
{
    size_t lo = 0, hi = N_LATER; /* ranges before lo end below cp */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (UNICODE_LATER[mid].hi < cp) lo = mid + 1;
        else hi = mid;
    }
    return lo < N_LATER && UNICODE_LATER[lo].lo <= cp;
}

bool pretok_has_later(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint64_t word;
        if (n - i >= 8 && (memcpy(&word, s + i, 8), !(word & UINT64_C(0x8080808080808080)))) {
            i += 8;
            continue;
        }
        uint32_t cp;
        i += (size_t)utf8_decode(s + i, &cp);
        /* Most text of the upper planes is ideographs: cheap to pass over. */
        if (cp >= UNICODE_LATER[0].lo && (cp < 0x3400 || cp > 0x9FFF) && is_later(cp)) return true;
    }
    return false;
}
