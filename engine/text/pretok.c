/* pretok.c - see pretok.h.
 * An expression that names a category with characters newer than PCRE2 is compiled twice, without
 * and with those characters spelled out; the second, slower one runs only on text that holds one.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "engine/text/pretok.h"

#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

const char PRETOK_QWEN2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
                            " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char PRETOK_QWEN35[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char PRETOK_GPT2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

#define MAX_REGEX 65536
/* A sane expression needs a few steps a character at most; a piece may be a whole prompt. */
#define MATCH_LIMIT 20000000u
#define HEAP_LIMIT_KIB (256u * 1024)
#define JIT_STACK_MAX (64u << 20)

/* Compiles regex with or without later characters; *code is NULL if `later` makes no difference. */
static int compile(const char *regex, size_t n, bool later, pcre2_code **code, err *e)
{
    buf spelled = {0};
    bool differ;
    int number;
    PCRE2_SIZE at;
    PCRE2_UCHAR words[120];
    pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
    *code = NULL;
    int r = ctx ? pretok_translate(regex, n, later, &differ, &spelled, e)
                : err_set(e, ERR_NOMEM, "out of memory for a pre-tokenizer expression");
    if (r || (later && !differ)) goto done;
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(ctx, 50);
    *code = pcre2_compile((PCRE2_SPTR)buf_str(&spelled), spelled.len,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &number, &at, ctx);
    if (!*code) {
        pcre2_get_error_message(number, words, sizeof words);
        r = err_set(e, ERR_FORMAT, "pre-tokenizer expression \"%.*s\" does not compile: %s",
                    n > 160 ? 160 : (int)n, regex, (const char *)words);
        goto done;
    }
    /* Without JIT (some hardened kernels forbid it) pcre2_match interprets the same code. */
    (void)pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE);
done:
    pcre2_compile_context_free(ctx);
    buf_clear(&spelled);
    return r;
}

int pretok_add(pretok *p, const char *regex, size_t n, err *e)
{
    if (p->n == PRETOK_MAX || n > MAX_REGEX)
        return err_set(e, ERR_LIMIT, "more than %d pre-tokenizer expressions, or one over %d bytes",
                       PRETOK_MAX, MAX_REGEX);
    int r = compile(regex, n, false, &p->code[0][p->n], e);
    if (r == 0) r = compile(regex, n, true, &p->code[1][p->n], e);
    p->n++; /* also on failure: pretok_clear frees what is there */
    return r;
}

void pretok_clear(pretok *p)
{
    for (int i = 0; i < p->n; i++) {
        pcre2_code_free(p->code[0][i]);
        pcre2_code_free(p->code[1][i]);
    }
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

typedef struct {
    pcre2_code *code[PRETOK_MAX]; /* [n] borrowed */
    int n;
    pretok_scratch *w;
    piece_fn fn;
    void *arg;
} walk;

static int split(const walk *k, int level, const char *s, size_t n);

/* Hands a piece of one level to the next. */
static int pass_on(const walk *k, int level, const char *s, size_t n)
{
    if (!n) return 0;
    return level + 1 == k->n ? k->fn(k->arg, s, n) : split(k, level + 1, s, n);
}

/* Pieces of s[n] under the expressions from level on.  Recursion is bounded by PRETOK_MAX. */
static int split(const walk *k, int level, const char *s, size_t n)
{
    size_t done = 0, from = 0; /* pieces are out up to done; the next search starts at from */
    bool matched = false;
    while (from <= n) {
        int r = match_at(k->code[level], k->w, s, n, from);
        if (r == PCRE2_ERROR_NOMATCH) break;
        if (r < 0) return r == PCRE2_ERROR_NOMEMORY ? ERR_NOMEM : ERR_LIMIT;
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(k->w->match);
        size_t start = at[0], end = at[1];
        if (start == end && matched && end == done) {
            /* An empty match right after a match does not count; look one character further. */
            uint32_t cp;
            from = end < n ? end + (size_t)utf8_decode(s + end, &cp) : n + 1;
            continue;
        }
        r = pass_on(k, level, s + done, start - done);
        if (r == 0) r = pass_on(k, level, s + start, end - start);
        if (r) return r;
        done = from = end;
        matched = true;
    }
    return pass_on(k, level, s + done, n - done);
}

int pretok_split(const pretok *p, pretok_scratch *w, const char *s, size_t n, piece_fn fn,
                 void *arg)
{
    walk k = {.n = p->n, .w = w, .fn = fn, .arg = arg};
    if (!scratch_ready(w)) return ERR_NOMEM;
    bool later = pretok_has_later(s, n);
    for (int i = 0; i < p->n; i++)
        k.code[i] = later && p->code[1][i] ? p->code[1][i] : p->code[0][i];
    return p->n ? split(&k, 0, s, n) : pass_on(&k, -1, s, n);
}
