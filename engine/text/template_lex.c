/* template_lex.c - template text to tokens, with Jinja's white space rules (trim_blocks,
 * lstrip_blocks, -, +) already applied to the data between tags.
 * Owns the tokens of one compilation.  Refuses what Jinja's lexer refuses.  Thread: the compiler's.
 */
#include "engine/text/template_ast.h"

#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    parser *p;
    const char *s; /* [n] source with \n line ends and without its last one */
    size_t n, at;
    int line;
    bool line_start; /* the last match ended with a newline (or nothing was matched yet) */
    char close[256]; /* brackets waiting to be closed */
    int n_close;
} lexer;

static token *push(lexer *l, token_type type, const char *v, size_t n)
{
    parser *p = l->p;
    if (p->n_tok == p->cap_tok) {
        size_t cap = p->cap_tok ? p->cap_tok * 2 : 256;
        token *t = tpl_take(&p->c, cap * sizeof *t);
        if (p->n_tok) memcpy(t, p->tok, p->n_tok * sizeof *t);
        p->tok = t;
        p->cap_tok = cap;
    }
    token *t = &p->tok[p->n_tok++];
    *t = (token){.type = type, .line = l->line, .v = v, .n = n};
    return t;
}

/* Moves to `to`, counting lines. */
static void go(lexer *l, size_t to)
{
    for (size_t i = l->at; i < to; i++) l->line += l->s[i] == '\n';
    if (to > l->at) l->line_start = l->s[to - 1] == '\n';
    l->at = to;
}

static bool have(const lexer *l, size_t at, const char *lit)
{
    size_t n = strlen(lit);
    return l->n - at >= n && !memcmp(l->s + at, lit, n);
}

static size_t skip_space(const lexer *l, size_t at)
{
    for (size_t k; at < l->n && (k = tpl_space_len(l->s + at, l->n - at)) > 0;) at += k;
    return at;
}

/* Bytes of `word` between optional white space and an optional sign at `at` (which stands right
 * behind "{%"), up to and including "%}" or "-%}"; 0 if something else stands there. */
static size_t raw_tag(const lexer *l, size_t at, const char *word)
{
    size_t i = at;
    if (i < l->n && (l->s[i] == '-' || l->s[i] == '+')) i++;
    i = skip_space(l, i);
    if (!have(l, i, word)) return 0;
    i = skip_space(l, i + strlen(word));
    if (i < l->n && (l->s[i] == '-' || (l->s[i] == '+' && word[0] == 'e'))) i++;
    return have(l, i, "%}") ? i + 2 : 0;
}

/* Emits s[from, to) as data after the white space rules of the tag that begins at `to`. */
static void put_data(lexer *l, size_t from, size_t to, char sign, bool variable)
{
    size_t end = to;
    if (sign == '-') {
        /* Trailing white space may be multi-byte: walk forward from each possible start. */
        size_t keep = from;
        for (size_t i = from; i < to;) {
            size_t k = tpl_space_len(l->s + i, to - i);
            if (k) {
                i += k;
            } else {
                int seq = utf8_valid_at(l->s + i, to - i);
                i += seq > 0 ? (size_t)seq : 1;
                keep = i;
            }
        }
        end = keep;
    } else if (sign != '+' && !variable) {
        size_t line = to;
        while (line > from && l->s[line - 1] != '\n') line--;
        bool at_start = line > from || l->line_start;
        if (at_start && to > line && skip_space(&(lexer){.s = l->s, .n = to}, line) == to)
            end = line;
    }
    if (end > from) push(l, T_DATA, l->s + from, end - from);
    go(l, to);
}

static void lex_comment(lexer *l)
{
    int line = l->line;
    size_t body = l->at, i = body;
    while (i < l->n && !have(l, i, "#}")) i++;
    if (i >= l->n) tpl_syntax(l->p, line, "Missing end of comment tag");
    char sign = i > body ? l->s[i - 1] : 0;
    i += 2;
    if (sign == '-') i = skip_space(l, i);
    else if (sign != '+' && i < l->n && l->s[i] == '\n') i++;
    go(l, i);
}

static void lex_raw(lexer *l, size_t body)
{
    int line = l->line;
    go(l, body);
    if (l->s[body - 3] == '-') go(l, skip_space(l, body));
    for (size_t i = l->at; i < l->n; i++) {
        size_t end;
        if (!have(l, i, "{%") || !(end = raw_tag(l, i + 2, "endraw"))) continue;
        char sign = l->s[i + 2];
        put_data(l, l->at, i, sign == '-' || sign == '+' ? sign : 0, false);
        char tail = l->s[end - 3];
        if (tail == '-') end = skip_space(l, end);
        else if (tail != '+' && end < l->n && l->s[end] == '\n') end++;
        go(l, end);
        return;
    }
    tpl_syntax(l->p, line, "Missing end of raw directive");
}

/* ---- inside tags ----------------------------------------------------------------------------- */

static bool digits(const lexer *l, size_t *at)
{
    size_t i = *at;
    while (i < l->n && l->s[i] >= '0' && l->s[i] <= '9') {
        i++;
        if (i + 1 < l->n && l->s[i] == '_' && l->s[i + 1] >= '0' && l->s[i + 1] <= '9') i++;
    }
    bool any = i > *at;
    *at = i;
    return any;
}

/* End of a float at `at`, 0 if none stands there. */
static size_t float_end(const lexer *l, size_t at)
{
    if (at > 0 && l->s[at - 1] == '.') return 0;
    size_t i = at;
    if (!digits(l, &i)) return 0;
    size_t end = 0;
    if (i < l->n && l->s[i] == '.') {
        size_t j = i + 1;
        if (digits(l, &j)) end = i = j;
    }
    if (i < l->n && (l->s[i] | 32) == 'e') {
        size_t j = i + 1;
        if (j < l->n && (l->s[j] == '+' || l->s[j] == '-')) j++;
        if (digits(l, &j)) end = j;
    }
    return end;
}

static size_t int_end(const lexer *l, size_t at)
{
    char c = l->s[at], kind = at + 1 < l->n ? (char)(l->s[at + 1] | 32) : 0;
    if (c < '0' || c > '9') return 0;
    if (c == '0' && (kind == 'x' || kind == 'o' || kind == 'b')) {
        const char *set = kind == 'x' ? "0123456789abcdefABCDEF" : kind == 'o' ? "01234567" : "01";
        size_t i = at + 2, end = 0;
        for (;;) {
            if (i < l->n && l->s[i] == '_') i++;
            if (i >= l->n || !l->s[i] || !strchr(set, l->s[i])) break;
            end = ++i;
        }
        if (end) return end;
    }
    size_t i = at;
    if (c != '0') {
        digits(l, &i);
        return i;
    }
    for (i++; i < l->n; i++) {
        if (l->s[i] == '0') continue;
        if (l->s[i] == '_' && i + 1 < l->n && l->s[i + 1] == '0') continue;
        break;
    }
    return i;
}

static void lex_number(lexer *l, size_t end, bool is_float)
{
    char *v = tpl_take(&l->p->c, end - l->at + 1);
    size_t n = 0;
    for (size_t i = l->at; i < end; i++)
        if (l->s[i] != '_') v[n++] = l->s[i];
    v[n] = 0;
    token *t = push(l, is_float ? T_FLOAT : T_INT, v, n);
    if (is_float) t->f = strtod(v, NULL);
    go(l, end);
}

static int hex_digits(const char *s, size_t n, int want, uint32_t *out)
{
    uint32_t v = 0;
    if (n < (size_t)want) return 0;
    for (int i = 0; i < want; i++) {
        char c = s[i];
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (d < 0) return 0;
        v = v << 4 | (uint32_t)d;
    }
    *out = v;
    return want;
}

/* One escape at s[0] == '\\'; writes its text to out (3 bytes for each one read at most), returns
 * the bytes read. */
static size_t unescape(lexer *l, const char *s, size_t n, char *out, size_t *m)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *at;
    uint32_t cp = 0;
    if (n < 2) tpl_syntax(l->p, l->line, "\\ at end of string");
    if (s[1] == '\n') return 2;
    if (s[1] && (at = strchr(from, s[1]))) {
        out[(*m)++] = to[at - from];
        return 2;
    }
    if (s[1] >= '0' && s[1] <= '7') {
        size_t i = 1;
        while (i < n && i < 4 && s[i] >= '0' && s[i] <= '7') cp = cp * 8 + (uint32_t)(s[i++] - '0');
        *m += (size_t)utf8_encode(cp, out + *m);
        return i;
    }
    int want = s[1] == 'x' ? 2 : s[1] == 'u' ? 4 : s[1] == 'U' ? 8 : 0;
    if (want) {
        if (!hex_digits(s + 2, n - 2, want, &cp))
            tpl_syntax(l->p, l->line, "truncated \\%c escape", s[1]);
        if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
            tpl_syntax(l->p, l->line, "\\%c escape of something that is not a character", s[1]);
        *m += (size_t)utf8_encode(cp, out + *m);
        return 2 + (size_t)want;
    }
    if (s[1] == 'N') tpl_syntax(l->p, l->line, "\\N{...} escapes are not supported");
    out[(*m)++] = '\\';
    if ((unsigned char)s[1] < 0x80) {
        out[(*m)++] = s[1];
        return 2;
    }
    /* Python escapes what is not ASCII first and so reads `\é` as a backslash and "xe9". */
    int seq = utf8_decode(s + 1, &cp);
    *m += (size_t)sprintf(out + *m, cp < 0x100 ? "x%02x" : cp < 0x10000 ? "u%04x" : "U%08x", cp);
    return 1 + (size_t)seq;
}

static void lex_string(lexer *l)
{
    char quote = l->s[l->at];
    size_t end = l->at + 1;
    bool escapes = false;
    for (; end < l->n && l->s[end] != quote; end++)
        if (l->s[end] == '\\') {
            escapes = true;
            end++;
        }
    if (end >= l->n)
        tpl_syntax(l->p, l->line, "unexpected char '%c' at %zu: no end of the string", quote,
                   l->at);
    const char *v = l->s + l->at + 1;
    size_t n = end - l->at - 1;
    if (escapes) {
        char *out = tpl_take(&l->p->c, 3 * n + 4);
        size_t m = 0;
        for (size_t i = 0; i < n;) {
            if (v[i] == '\\') i += unescape(l, v + i, n - i, out, &m);
            else out[m++] = v[i++];
        }
        v = out;
        n = m;
    }
    push(l, T_STRING, v, n);
    go(l, end + 1);
}

static bool name_byte(unsigned char c)
{
    return c == '_' || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c >= 0x80;
}

static void lex_operator(lexer *l)
{
    static const struct {
        const char *text;
        token_type type;
    } ops[] = {
        {"//", T_FLOORDIV}, {"**", T_POW},   {"==", T_EQ},      {"!=", T_NE},      {">=", T_GE},
        {"<=", T_LE},       {"+", T_ADD},    {"-", T_SUB},      {"/", T_DIV},      {"*", T_MUL},
        {"%", T_MOD},       {"~", T_TILDE},  {"[", T_LBRACKET}, {"]", T_RBRACKET}, {"(", T_LPAREN},
        {")", T_RPAREN},    {"{", T_LBRACE}, {"}", T_RBRACE},   {">", T_GT},       {"<", T_LT},
        {"=", T_ASSIGN},    {".", T_DOT},    {":", T_COLON},    {"|", T_PIPE},     {",", T_COMMA},
        {";", T_SEMICOLON},
    };
    char c = l->s[l->at];
    const char *open = c ? strchr("{([", c) : NULL;
    if (open) {
        if (l->n_close == (int)sizeof l->close)
            tpl_syntax(l->p, l->line, "brackets are nested too deeply");
        l->close[l->n_close++] = "})]"[open - (const char *)"{(["];
    }
    if (c == '}' || c == ')' || c == ']') {
        if (!l->n_close) tpl_syntax(l->p, l->line, "unexpected '%c'", c);
        char want = l->close[--l->n_close];
        if (want != c) tpl_syntax(l->p, l->line, "unexpected '%c', expected '%c'", c, want);
    }
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (!have(l, l->at, ops[i].text)) continue;
        size_t n = strlen(ops[i].text);
        push(l, ops[i].type, l->s + l->at, n);
        go(l, l->at + n);
        return;
    }
    tpl_syntax(l->p, l->line, "unexpected char '%c' at %zu", c, l->at);
}

/* The end of the tag at `at`: its token and where the text goes on; false if none stands there. */
static bool tag_end(lexer *l, bool block)
{
    if (l->n_close) return false;
    const char *plain = block ? "%}" : "}}", *minus = block ? "-%}" : "-}}";
    size_t to;
    if (have(l, l->at, minus)) to = skip_space(l, l->at + 3);
    else if (block && have(l, l->at, "+%}")) to = l->at + 3;
    else if (have(l, l->at, plain)) to = l->at + 2 + (block && have(l, l->at + 2, "\n"));
    else return false;
    push(l, block ? T_BLOCK_END : T_VAR_END, l->s + l->at, 2);
    go(l, to);
    return true;
}

static void lex_tag(lexer *l, bool block)
{
    while (!tag_end(l, block)) {
        size_t end;
        if (l->at >= l->n) return; /* the parser says what is missing */
        size_t space = skip_space(l, l->at);
        if (space > l->at) {
            go(l, space);
        } else if ((end = float_end(l, l->at))) {
            lex_number(l, end, true);
        } else if ((end = int_end(l, l->at))) {
            lex_number(l, end, false);
        } else if (name_byte((unsigned char)l->s[l->at])) {
            for (end = l->at; end < l->n && name_byte((unsigned char)l->s[end]);) end++;
            push(l, T_NAME, l->s + l->at, end - l->at);
            go(l, end);
        } else if (l->s[l->at] == '\'' || l->s[l->at] == '"') {
            lex_string(l);
        } else {
            lex_operator(l);
        }
    }
}

/* \r\n and \r become \n; one newline at the very end goes. */
static void normalise(lexer *l, const char *text, size_t n)
{
    char *v = tpl_take(&l->p->c, n + 1);
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r') {
            v[m++] = '\n';
            if (i + 1 < n && text[i + 1] == '\n') i++;
        } else {
            v[m++] = text[i];
        }
    }
    if (m && v[m - 1] == '\n') m--;
    v[m] = 0;
    l->s = v;
    l->n = m;
}

void tpl_lex(parser *p, const char *text, size_t n)
{
    lexer l = {.p = p, .line = 1, .line_start = true};
    normalise(&l, text, n);
    while (l.at < l.n) {
        size_t i = l.at;
        while (i < l.n &&
               !(l.s[i] == '{' && i + 1 < l.n && l.s[i + 1] && strchr("%{#", l.s[i + 1])))
            i++;
        if (i >= l.n) {
            push(&l, T_DATA, l.s + l.at, l.n - l.at);
            break;
        }
        char kind = l.s[i + 1], sign = i + 2 < l.n ? l.s[i + 2] : 0;
        size_t raw = kind == '%' ? raw_tag(&l, i + 2, "raw") : 0;
        if (sign != '-' && sign != '+') sign = 0;
        put_data(&l, l.at, i, sign, kind == '{');
        if (raw) {
            lex_raw(&l, raw);
            continue;
        }
        token_type begin = kind == '%' ? T_BLOCK_BEGIN : T_VAR_BEGIN;
        if (kind != '#') push(&l, begin, l.s + i, 2);
        go(&l, i + 2 + (sign != 0));
        if (kind == '#') lex_comment(&l);
        else lex_tag(&l, kind == '%');
    }
    push(&l, T_EOF, "", 0);
}
