/* pretok.c - see pretok.h.
 * Where Oniguruma (Ruby syntax, UTF-8) and PCRE2 (UTF | UCP) differ on what tokenizers write:
 *   \s  PCRE2 adds U+180E; \w PCRE2 lacks marks and connectors; \h \v mean other things;
 *   \uHHHH is unknown to PCRE2; ^ and $ always match at line ends; \p{Han} and other long names
 *   mean script extensions in newer PCRE2; [a[b]] and && are set operations in Oniguruma.
 * The first groups are rewritten, the last two are refused. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "engine/text/pretok.h"

#include "base/utf8.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

const char PRETOK_QWEN2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
                            " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char PRETOK_QWEN35[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char PRETOK_GPT2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* White_Space and its complement as members of a bracket class. */
#define SPACE  \
    "\\t-\\r " \
    "\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define NOT_SPACE                                                                        \
    "\\x00-\\x08\\x0E-\\x1F!-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}" \
    "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}"       \
    "\\x{3001}-\\x{10FFFF}"
#define WORD "\\p{L}\\p{M}\\p{Nd}\\p{Pc}"

#define MAX_REGEX 65536
/* A sane expression needs a few steps a character at most; a piece may be a whole prompt. */
#define MATCH_LIMIT 200000000u
#define HEAP_LIMIT_KIB (256u * 1024)
#define JIT_STACK_MAX (64u << 20)

typedef struct {
    const char *s, *end;
    buf *out;
    bool in_class;
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

/* \p{..}: general categories only, which both engines read alike. */
static int put_property(translation *t, err *e)
{
    const char *p = t->s + 2;
    if (p >= t->end || *p++ != '{') return refuse(t, e);
    if (p < t->end && *p == '^') p++;
    if (p >= t->end || !strchr("CLMNPSZ", *p)) return refuse(t, e);
    p++;
    if (p < t->end && islower((unsigned char)*p)) p++;
    if (p >= t->end || *p != '}') return refuse(t, e);
    p++;
    buf_put(t->out, t->s, (size_t)(p - t->s));
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
    case 'w': put_set(t, WORD, false); break;
    case 'W':
        if (t->in_class) return refuse(t, e);
        put_set(t, WORD, true);
        break;
    case 'v': buf_puts(t->out, "\\x0B"); break;
    case 'h': put_set(t, "0-9a-fA-F", false); break;
    case 'p':
    case 'P': return put_property(t, e);
    case 'x':
    case 'u': return put_code_point(t, e);
    default:
        if (!strchr("dDrntfae", c) && !ispunct((unsigned char)c)) return refuse(t, e);
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

int pretok_translate(const char *regex, size_t n, buf *out, err *e)
{
    translation t = {regex, regex + n, out, false};
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
    return r;
}

int pretok_add(pretok *p, const char *regex, size_t n, err *e)
{
    buf spelled = {0};
    int number, r;
    PCRE2_SIZE at;
    PCRE2_UCHAR words[120];
    pcre2_compile_context *ctx = NULL;

    if (p->n == PRETOK_MAX || n > MAX_REGEX)
        return err_set(e, ERR_LIMIT, "more than %d pre-tokenizer expressions, or one over %d bytes",
                       PRETOK_MAX, MAX_REGEX);
    r = pretok_translate(regex, n, &spelled, e);
    if (r) goto done;
    ctx = pcre2_compile_context_create(NULL);
    if (!ctx) {
        r = err_set(e, ERR_NOMEM, "out of memory for a pre-tokenizer expression");
        goto done;
    }
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(ctx, 50);
    p->code[p->n] = pcre2_compile((PCRE2_SPTR)buf_str(&spelled), spelled.len,
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &number, &at, ctx);
    if (!p->code[p->n]) {
        pcre2_get_error_message(number, words, sizeof words);
        r = err_set(e, ERR_FORMAT, "pre-tokenizer expression \"%.*s\" does not compile: %s",
                    n > 160 ? 160 : (int)n, regex, (const char *)words);
        goto done;
    }
    /* Without JIT (some hardened kernels forbid it) pcre2_match interprets the same code. */
    (void)pcre2_jit_compile(p->code[p->n], PCRE2_JIT_COMPLETE);
    p->n++;
done:
    pcre2_compile_context_free(ctx);
    buf_clear(&spelled);
    return r;
}

void pretok_clear(pretok *p)
{
    for (int i = 0; i < p->n; i++) pcre2_code_free(p->code[i]);
    *p = (pretok){0};
}

void pretok_scratch_clear(pretok_scratch *w)
{
    pcre2_match_data_free(w->match);
    pcre2_match_context_free(w->ctx);
    pcre2_jit_stack_free(w->stack);
    *w = (pretok_scratch){0};
}

static bool scratch_ready(pretok_scratch *w)
{
    if (w->ctx) return true;
    w->match = pcre2_match_data_create(1, NULL);
    w->ctx = pcre2_match_context_create(NULL);
    if (!w->match || !w->ctx) {
        pretok_scratch_clear(w);
        return false;
    }
    pcre2_set_match_limit(w->ctx, MATCH_LIMIT);
    pcre2_set_heap_limit(w->ctx, HEAP_LIMIT_KIB);
    return true;
}

/* First match at or after from.  The JIT starts on 32 KiB of the machine stack; an expression that
 * backtracks through a long run gets its own larger one. */
static int match_at(const pcre2_code *code, pretok_scratch *w, const char *s, size_t n, size_t from)
{
    int r = pcre2_match(code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, w->match, w->ctx);
    if (r == PCRE2_ERROR_JIT_STACKLIMIT && !w->stack) {
        w->stack = pcre2_jit_stack_create(64 * 1024, JIT_STACK_MAX, NULL);
        if (!w->stack) return PCRE2_ERROR_NOMEMORY;
        pcre2_jit_stack_assign(w->ctx, NULL, w->stack);
        r = pcre2_match(code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, w->match, w->ctx);
    }
    return r;
}

/* Pieces of s[n] under expressions level.. .  Recursion is bounded by PRETOK_MAX. */
static int split(const pretok *p, int level, pretok_scratch *w, const char *s, size_t n,
                 piece_fn fn, void *arg)
{
    if (level == p->n) return n ? fn(arg, s, n) : 0;
    bool last = level + 1 == p->n;
    size_t done = 0, from = 0; /* pieces are out up to done; the next search starts at from */
    bool matched = false;
    while (from <= n) {
        int r = match_at(p->code[level], w, s, n, from);
        if (r == PCRE2_ERROR_NOMATCH) break;
        if (r < 0) return r == PCRE2_ERROR_NOMEMORY ? ERR_NOMEM : ERR_LIMIT;
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(w->match);
        size_t start = at[0], end = at[1];
        if (start == end && matched && end == done) {
            /* An empty match right after a match does not count; look one character further. */
            uint32_t cp;
            from = end < n ? end + (size_t)utf8_decode(s + end, &cp) : n + 1;
            continue;
        }
        if (start < done || end < start) return ERR_LIMIT; /* \K or look-behind: not a cut */
        r = 0;
        if (start > done)
            r = last ? fn(arg, s + done, start - done)
                     : split(p, level + 1, w, s + done, start - done, fn, arg);
        if (r == 0 && end > start)
            r = last ? fn(arg, s + start, end - start)
                     : split(p, level + 1, w, s + start, end - start, fn, arg);
        if (r) return r;
        done = from = end;
        matched = true;
    }
    if (done == n) return 0;
    return last ? fn(arg, s + done, n - done) : split(p, level + 1, w, s + done, n - done, fn, arg);
}

int pretok_split(const pretok *p, pretok_scratch *w, const char *s, size_t n, piece_fn fn,
                 void *arg)
{
    if (!scratch_ready(w)) return ERR_NOMEM;
    return split(p, 0, w, s, n, fn, arg);
}
