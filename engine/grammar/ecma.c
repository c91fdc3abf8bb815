/* ecma.c - ECMA-262 patterns without look-around and back-references, as expressions.
 * Over JSON text a pattern includes the quotes of the string: `^` is then the opening quote and `$`
 * the closing one, bytes that cannot occur raw inside.  Where dialects disagree (`.` and U+2028, \s
 * and U+FEFF) the class is what all of them accept.
 * Owns nothing.  Refuses what the subset has not, by name.  Thread: the arena's. */
#include "engine/grammar/ecma.h"

enum { MAX_GROUPS = 100, MAX_REPEAT = 1000000, MAX_CODE = 0x10ffff, MAX_PATTERN = 8192 };

static int encode(uint32_t c, uint8_t *o)
{
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    if (n == 1) {
        o[0] = (uint8_t)c;
        return 1;
    }
    for (int i = n; --i;) {
        o[i] = (uint8_t)(0x80 | (c & 63));
        c >>= 6;
    }
    o[0] = (uint8_t)(lead[n] | c);
    return n;
}

/* Recursion is at most one level a cut and two a continuation byte. */
rx ecma_utf8(rx_arena *r, uint32_t lo, uint32_t hi)
{
    static const uint32_t cut[] = {0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff};
    uint8_t a[4] = {0}, b[4] = {0};
    if (lo > hi) return R_NONE;
    for (int i = 0; i < 5; i++)
        if (lo <= cut[i] && hi > cut[i])
            return rx_alt2(r, ecma_utf8(r, lo, cut[i]), ecma_utf8(r, cut[i] + 1, hi));
    if (lo >= 0xd800 && hi <= 0xdfff) return R_NONE; /* surrogates have no UTF-8 */
    for (int s = 6; s <= 18 && lo > 0x7f; s += 6) {
        uint32_t m = (1u << s) - 1;
        if (lo >> s == hi >> s) continue;
        if (lo & m) return rx_alt2(r, ecma_utf8(r, lo, lo | m), ecma_utf8(r, (lo | m) + 1, hi));
        if ((hi & m) != m)
            return rx_alt2(r, ecma_utf8(r, lo, (hi & ~m) - 1), ecma_utf8(r, hi & ~m, hi));
    }
    int n = encode(lo, a);
    rx e = R_EPS;
    encode(hi, b);
    while (n--) e = rx_cat(r, rx_range(r, a[n], b[n]), e);
    return e;
}

/* The one spelling of a character that must be escaped. */
static rx escaped(rx_arena *r, uint32_t c)
{
    static const char shorts[] = "\bb\ff\nn\rr\tt";
    char t[8] = {'\\', (char)c, 0};
    for (int k = 0; c < 0x20 && k < 10; k += 2)
        if ((uint32_t)shorts[k] == c) {
            t[1] = shorts[k + 1];
            return rx_str(r, t);
        }
    if (c < 0x20) {
        memcpy(t, c < 16 ? "\\u000" : "\\u001", 5);
        t[5] = "0123456789abcdef"[c & 15];
        t[6] = 0;
    }
    return rx_str(r, t);
}

rx ecma_json_class(rx_arena *r, const code_range *c, uint32_t n)
{
    static const code_range raw[] = {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, MAX_CODE}};
    VEC(rx) v = {0};
    for (uint32_t i = 0; i < n; i++) {
        for (int k = 0; k < 3; k++) {
            uint32_t lo = c[i].lo > raw[k].lo ? c[i].lo : raw[k].lo;
            uint32_t hi = c[i].hi < raw[k].hi ? c[i].hi : raw[k].hi;
            VEC_PUSH(&r->status, v, ecma_utf8(r, lo, hi));
        }
        for (uint32_t x = c[i].lo; x <= c[i].hi && x <= '\\'; x++)
            if (x < 0x20 || x == '"' || x == '\\') VEC_PUSH(&r->status, v, escaped(r, x));
    }
    rx e = rx_alt(r, v.p, v.n);
    free(v.p);
    return e;
}

/* ---- classes ---- */
typedef VEC(code_range) code_set;

/* How many branches of an expression hold an anchor. */
typedef enum { ANCHOR_NONE, ANCHOR_SOME, ANCHOR_ALL } anchors;
typedef struct {
    rx e;
    anchors begin, end;
} piece;

typedef struct {
    rx_arena *r;
    const char *s, *end;
    const char *why;
    ecma_mode mode;
    int depth;
} parser;

static int by_lo(const void *a, const void *b)
{
    const code_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

static void set_put(rx_arena *r, code_set *c, uint32_t lo, uint32_t hi)
{
    VEC_PUSH(&r->status, *c, (code_range){lo, hi});
}

static void set_add(parser *p, code_set *c, uint32_t lo, uint32_t hi)
{
    set_put(p->r, c, lo, hi);
}

static void set_sort(code_set *c)
{
    uint32_t k = 0;
    if (!c->n) return;
    qsort(c->p, c->n, sizeof *c->p, by_lo);
    for (uint32_t i = 1; i < c->n; i++) {
        if (c->p[i].lo > c->p[k].hi + 1) c->p[++k] = c->p[i];
        else if (c->p[i].hi > c->p[k].hi) c->p[k].hi = c->p[i].hi;
    }
    c->n = k + 1;
}

/* What c, sorted, has not. */
static void gaps(rx_arena *r, const code_set *c, code_set *out)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        if (c->p[i].lo > at) set_put(r, out, at, c->p[i].lo - 1);
        at = c->p[i].hi + 1;
    }
    if (at <= MAX_CODE) set_put(r, out, at, MAX_CODE);
}

static void set_negate(parser *p, code_set *c)
{
    code_set o = {0};
    set_sort(c);
    gaps(p->r, c, &o);
    free(c->p);
    *c = o;
}

static rx raw_class(rx_arena *r, const code_set *c)
{
    rx e = R_NONE;
    for (uint32_t i = 0; i < c->n; i++) e = rx_alt2(r, e, ecma_utf8(r, c->p[i].lo, c->p[i].hi));
    return e;
}

rx ecma_raw_class(rx_arena *r, code_range *v, uint32_t n, bool negated)
{
    code_set c = {.p = v, .n = n, .cap = n}, o = {0};
    set_sort(&c);
    if (!negated) return raw_class(r, &c);
    gaps(r, &c, &o);
    rx e = raw_class(r, &o);
    free(o.p);
    return e;
}

static bool class_escape(parser *p, char k, code_set *c)
{
    static const code_range digits[] = {{'0', '9'}},
                            words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                            spaces[] = {{9, 13},          {' ', ' '},       {0xa0, 0xa0},
                                        {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029},
                                        {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}};
    const code_range *from = (k | 32) == 'd' ? digits : (k | 32) == 'w' ? words : spaces;
    uint32_t n = (k | 32) == 'd' ? 1 : (k | 32) == 'w' ? 4 : 9;
    code_set t = {0};
    if ((k | 32) != 'd' && (k | 32) != 'w' && (k | 32) != 's') return false;
    for (uint32_t i = 0; i < n; i++) set_add(p, &t, from[i].lo, from[i].hi);
    if (k == 'S') set_add(p, &t, 0xfeff, 0xfeff);
    if (k < 'a') set_negate(p, &t);
    for (uint32_t i = 0; i < t.n; i++) set_add(p, c, t.p[i].lo, t.p[i].hi);
    free(t.p);
    return true;
}

static bool more(const parser *p)
{
    return p->s < p->end && !p->why && !p->r->status;
}

static uint32_t code_point(parser *p)
{
    uint8_t b = (uint8_t)*p->s++;
    if (b < 0x80) return b;
    int n = b >= 0xf0 ? 3 : b >= 0xe0 ? 2 : 1;
    uint32_t c = b & (0x3f >> n);
    while (n-- && p->s < p->end) c = c << 6 | (*p->s++ & 63);
    return c;
}

static uint32_t hex(parser *p, int n)
{
    uint32_t v = 0;
    while (n--) {
        char c = p->s < p->end ? *p->s++ : 0;
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (d < 0) {
            p->why = "bad \\x or \\u escape";
            return 0;
        }
        v = v * 16 + (uint32_t)d;
    }
    return v;
}

static uint32_t unicode_escape(parser *p)
{
    uint32_t v = 0;
    if (p->s < p->end && *p->s == '{') {
        for (p->s++; more(p) && *p->s != '}' && v <= MAX_CODE;) v = v * 16 + hex(p, 1);
        if (p->s >= p->end || *p->s != '}' || v > MAX_CODE) p->why = "bad \\u{} escape";
        else p->s++;
        return v;
    }
    v = hex(p, 4);
    if (v >= 0xd800 && v < 0xdc00 && p->end - p->s >= 6 && p->s[0] == '\\' && p->s[1] == 'u') {
        p->s += 2;
        uint32_t w = hex(p, 4);
        if (w >= 0xdc00 && w < 0xe000) return 0x10000 + ((v - 0xd800) << 10) + (w - 0xdc00);
        p->why = "lone surrogate";
    } else if (v >= 0xd800 && v < 0xe000) {
        p->why = "lone surrogate";
    }
    return v;
}

static uint32_t char_escape(parser *p) /* after the backslash */
{
    if (p->s >= p->end) {
        p->why = "trailing backslash";
        return 0;
    }
    uint32_t c = code_point(p);
    switch (c) {
    case 'n': return 10;
    case 'r': return 13;
    case 't': return 9;
    case 'f': return 12;
    case 'v': return 11;
    case '0': return 0;
    case 'x': return hex(p, 2);
    case 'u': return unicode_escape(p);
    default: break;
    }
    if ((c >= '1' && c <= '9') || c == 'k') p->why = "back-reference";
    else if (c == 'b' || c == 'B') p->why = "word boundary";
    else if (c == 'p' || c == 'P') p->why = "\\p class";
    else if ((c | 32) >= 'a' && (c | 32) <= 'z' && c < 128) p->why = "unknown escape";
    return c;
}

/* One member of a [class]: false if it was a set like \d. */
static bool class_member(parser *p, code_set *c, uint32_t *cp)
{
    if (*p->s != '\\') {
        *cp = code_point(p);
        return true;
    }
    p->s++;
    if (p->s < p->end && class_escape(p, *p->s, c)) {
        p->s++;
        return false;
    }
    if (p->s < p->end && *p->s == 'b') {
        p->s++;
        *cp = 8;
    } else if (p->s < p->end && *p->s == '-') {
        p->s++;
        *cp = '-';
    } else {
        *cp = char_escape(p);
    }
    return true;
}

static void bracket(parser *p, code_set *c)
{
    uint32_t lo, hi;
    p->s++;
    bool negated = p->s < p->end && *p->s == '^';
    if (negated) p->s++;
    while (more(p) && *p->s != ']') {
        if (*p->s == '[' && p->s + 1 < p->end && p->s[1] == ':') p->why = "[:class:]";
        if (!class_member(p, c, &lo)) continue;
        hi = lo;
        if (p->s + 1 < p->end && *p->s == '-' && p->s[1] != ']') {
            p->s++;
            if (!class_member(p, c, &hi)) { /* [a-\d]: the dash is itself */
                hi = lo;
                set_add(p, c, '-', '-');
            }
        }
        if (hi < lo) p->why = "range out of order";
        set_add(p, c, lo, hi);
    }
    if (p->s >= p->end && !p->why) p->why = "missing ]";
    if (!p->why) p->s++;
    if (negated) set_negate(p, c);
    else set_sort(c);
}

static piece alternatives(parser *p);

static piece group(parser *p)
{
    piece e = {R_NONE, ANCHOR_NONE, ANCHOR_NONE};
    p->s++;
    if (p->s + 1 < p->end && *p->s == '?') {
        if (p->s[1] == ':') {
            p->s += 2;
        } else if (p->s[1] == '<' && p->s + 2 < p->end && p->s[2] != '=' && p->s[2] != '!') {
            while (p->s < p->end && *p->s != '>') p->s++;
            if (p->s < p->end) p->s++;
        } else {
            p->why = "look-around or group flags";
            return e;
        }
    }
    if (++p->depth > MAX_GROUPS) {
        p->why = "groups nested more than 100 deep";
        return e;
    }
    e = alternatives(p);
    p->depth--;
    if (p->s < p->end && *p->s == ')') p->s++;
    else if (!p->why) p->why = "missing )";
    return e;
}

static rx single(parser *p)
{
    code_set c = {0};
    uint32_t x;
    rx e = R_NONE;
    if (*p->s == '.') {
        p->s++;
        set_add(p, &c, 10, 10);
        set_add(p, &c, 13, 13);
        set_add(p, &c, 0x2028, 0x2029);
        set_negate(p, &c);
    } else if (*p->s == '[') {
        bracket(p, &c);
    } else if (strchr("*+?", *p->s)) {
        p->why = "nothing to repeat";
    } else if (*p->s == '\\') {
        if (class_member(p, &c, &x)) set_add(p, &c, x, x);
    } else {
        x = code_point(p);
        set_add(p, &c, x, x);
    }
    if (!p->why && !p->r->status) {
        if (p->mode == ECMA_JSON) e = ecma_json_class(p->r, c.p, c.n);
        else e = raw_class(p->r, &c);
    }
    free(c.p);
    return e;
}

static uint32_t count(parser *p)
{
    uint32_t n = 0;
    for (; p->s < p->end && *p->s >= '0' && *p->s <= '9'; p->s++)
        if (n <= MAX_REPEAT) n = n * 10 + (uint32_t)(*p->s - '0');
    if (n > MAX_REPEAT) p->why = "repeat above 1000000";
    return n;
}

/* True and the bounds if a quantifier stands here; consumed. */
static bool quantifier(parser *p, uint32_t *min, uint32_t *max)
{
    const char *start = p->s;
    char q = p->s < p->end ? *p->s : 0;
    *min = q == '+';
    *max = q == '?' ? 1 : RX_INF;
    if (q == '{' && p->s + 1 < p->end && p->s[1] >= '0' && p->s[1] <= '9') {
        p->s++;
        *min = *max = count(p);
        if (p->s < p->end && *p->s == ',') {
            p->s++;
            *max = p->s < p->end && *p->s >= '0' && *p->s <= '9' ? count(p) : RX_INF;
        }
        if (p->s >= p->end || *p->s != '}') { /* then it is a literal brace */
            p->s = start;
            return false;
        }
        if (*max < *min) p->why = "{m,n} out of order";
    } else if (q != '*' && q != '+' && q != '?') {
        return false;
    }
    p->s++;
    if (p->s < p->end && *p->s == '?') p->s++; /* lazy: the same language */
    else if (p->s < p->end && *p->s == '+') p->why = "possessive quantifier";
    return true;
}

static rx anchor_text(const parser *p)
{
    return p->mode == ECMA_JSON ? rx_byte(p->r, '"') : R_EPS;
}

static piece sequence(parser *p)
{
    piece out = {R_EPS, ANCHOR_NONE, ANCHOR_NONE};
    VEC(rx) v = {0};
    uint32_t min, max;
    while (more(p) && *p->s != '|' && *p->s != ')') {
        piece x = {R_NONE, ANCHOR_NONE, ANCHOR_NONE};
        if (out.end) p->why = "something after $";
        else if (*p->s == '^') {
            p->s++;
            x = (piece){anchor_text(p), ANCHOR_ALL, ANCHOR_NONE};
        } else if (*p->s == '$') {
            p->s++;
            x = (piece){anchor_text(p), ANCHOR_NONE, ANCHOR_ALL};
        } else if (*p->s == '(') {
            x = group(p);
        } else {
            x.e = single(p);
        }
        if (p->why) break;
        if (x.begin && v.n) p->why = "^ not at the start";
        if (more(p) && quantifier(p, &min, &max)) {
            if (x.begin || x.end) p->why = "quantifier on an anchor";
            x.e = rx_rep(p->r, x.e, min, max);
            if (more(p) && quantifier(p, &min, &max)) p->why = "nothing to repeat";
        }
        if (x.begin) out.begin = x.begin;
        if (x.end) out.end = x.end;
        VEC_PUSH(&p->r->status, v, x.e);
    }
    for (uint32_t i = v.n; i--;) out.e = rx_cat(p->r, v.p[i], out.e);
    free(v.p);
    return out;
}

/* One alternative of a pattern that is searched for in plain text: what may stand around it. */
static void search(parser *p, piece *x)
{
    rx any = rx_star(p->r, ecma_utf8(p->r, 0, MAX_CODE));
    if (x->begin == ANCHOR_SOME || x->end == ANCHOR_SOME)
        p->why = "an anchor in some of a group's alternatives";
    if (x->begin == ANCHOR_NONE) x->e = rx_cat(p->r, any, x->e);
    if (x->end == ANCHOR_NONE) x->e = rx_cat(p->r, x->e, any);
}

/* Recursion: one level a group, at most MAX_GROUPS. */
static piece alternatives(parser *p)
{
    VEC(rx) v = {0};
    piece out = sequence(p);
    bool around = p->mode == ECMA_SEARCH && !p->depth;
    if (around) search(p, &out);
    VEC_PUSH(&p->r->status, v, out.e);
    while (more(p) && *p->s == '|') {
        p->s++;
        piece x = sequence(p);
        if (around) search(p, &x);
        if (x.begin != out.begin) out.begin = ANCHOR_SOME;
        if (x.end != out.end) out.end = ANCHOR_SOME;
        VEC_PUSH(&p->r->status, v, x.e);
    }
    out.e = rx_alt(p->r, v.p, v.n);
    free(v.p);
    return out;
}

rx ecma_pattern(rx_arena *r, const char *s, size_t n, ecma_mode mode, const char **why)
{
    static const code_range all = {0, MAX_CODE};
    parser p = {.r = r, .s = s, .end = s + n, .mode = mode};
    *why = NULL;
    if (n > MAX_PATTERN) {
        *why = "longer than 8192 bytes";
        return R_NONE;
    }
    piece x = alternatives(&p);
    if (!p.why && p.s < p.end) p.why = "unbalanced )";
    *why = p.why;
    if (p.why || r->status) return R_NONE;
    if (mode != ECMA_JSON) return x.e;
    rx quote = rx_byte(r, '"'), any = rx_star(r, ecma_json_class(r, &all, 1));
    rx before = rx_cat(r, quote, any), after = rx_cat(r, any, quote), e = x.e;
    if (x.begin == ANCHOR_NONE) e = rx_cat(r, before, e);
    if (x.begin == ANCHOR_SOME) e = rx_cat(r, rx_opt(r, before), e);
    if (x.end == ANCHOR_NONE) e = rx_cat(r, e, after);
    if (x.end == ANCHOR_SOME) e = rx_cat(r, e, rx_opt(r, after));
    if (x.begin == ANCHOR_SOME || x.end == ANCHOR_SOME)
        e = rx_and2(r, e, rx_cat3(r, quote, any, quote));
    return e;
}
