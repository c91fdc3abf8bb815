/* template_str.c - strings of a running template: bytes that remember which of them the client
 * wrote, through joining, slicing and every method.
 * Joining is lazy (a tree, flattened when its bytes are needed) and flattening grows the left
 * part in place when nothing else was put behind it, so that loops which build a text piece by
 * piece cost what the text costs.
 * Owns nothing (arena).  Thread: the one that renders. */
#include "engine/text/template_value.h"

#include "base/utf8.h"

#include <string.h>

enum { COPY_BELOW = 64 }; /* shorter results are joined at once: a node costs more */

vstr *tpl_str_new(rctx *c, const char *v, size_t n, taint from)
{
    vstr *s = tpl_take0(c, sizeof *s);
    s->v = v;
    s->n = n;
    s->chars = SIZE_MAX;
    s->from = from;
    return s;
}

value tpl_v_text(rctx *c, const char *s)
{
    return v_str(tpl_str_new(c, s, strlen(s), OPEN));
}

bool tpl_str_closed(const vstr *s)
{
    return s->from != OPEN && s->n > 0;
}

/* ---- building -------------------------------------------------------------------------------- */

void tpl_sb_init(sbuild *b, rctx *c)
{
    *b = (sbuild){.c = c};
}

static void sb_room(sbuild *b, size_t n)
{
    if (b->max && (n > b->max || b->n > b->max - n))
        tpl_fail(b->c, ERR_LIMIT, "the rendered prompt is larger than %zu bytes", b->max);
    if (n <= b->cap - b->n) return;
    size_t cap = b->cap ? b->cap : 128;
    while (cap - b->n < n) {
        if (cap > SIZE_MAX / 8)
            tpl_fail(b->c, ERR_LIMIT, "the template builds a text that is too large");
        cap *= 2;
    }
    char *v = tpl_take(b->c, cap);
    if (b->n) memcpy(v, b->v, b->n);
    b->v = v;
    b->cap = cap;
}

static void sb_close(sbuild *b, size_t from, size_t to)
{
    if (from >= to) return;
    if (b->n_span && b->span[b->n_span - 1].end == from) {
        b->span[b->n_span - 1].end = to;
        return;
    }
    if (b->n_span == b->cap_span) {
        size_t cap = b->cap_span ? b->cap_span * 2 : 8;
        text_span *v = tpl_take(b->c, cap * sizeof *v);
        if (b->n_span) memcpy(v, b->span, b->n_span * sizeof *v);
        b->span = v;
        b->cap_span = cap;
    }
    b->span[b->n_span++] = (text_span){from, to};
}

void tpl_sb_bytes(sbuild *b, const char *p, size_t n, bool closed)
{
    sb_room(b, n);
    if (n) memcpy(b->v + b->n, p, n);
    if (closed) sb_close(b, b->n, b->n + n);
    b->n += n;
}

void tpl_sb_puts(sbuild *b, const char *s)
{
    tpl_sb_bytes(b, s, strlen(s), false);
}

/* First span that ends behind `at`. */
static size_t first_span(const vstr *s, size_t at)
{
    size_t lo = 0, hi = s->n_span;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->span[mid].end <= at) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

void tpl_sb_sub(sbuild *b, vstr *s, size_t from, size_t n)
{
    const char *v = tpl_str_flat(b->c, s);
    size_t base = b->n, to = from + n;
    tpl_sb_bytes(b, v + from, n, s->from == CLOSED);
    if (s->from != MIXED) return;
    for (size_t i = first_span(s, from); i < s->n_span && s->span[i].start < to; i++) {
        size_t lo = s->span[i].start > from ? s->span[i].start : from;
        size_t hi = s->span[i].end < to ? s->span[i].end : to;
        sb_close(b, base + (lo - from), base + (hi - from));
    }
}

void tpl_sb_str(sbuild *b, vstr *s)
{
    tpl_sb_sub(b, s, 0, s->n);
}

vstr *tpl_sb_done(sbuild *b)
{
    vstr *s = tpl_str_new(b->c, b->v ? b->v : "", b->n, OPEN);
    if (b->n_span == 1 && b->span[0].start == 0 && b->span[0].end == b->n) {
        s->from = CLOSED;
    } else if (b->n_span) {
        s->from = MIXED;
        s->span = b->span;
        s->n_span = b->n_span;
    }
    return s;
}

/* ---- joining --------------------------------------------------------------------------------- */

/* Copies every leaf of the tree (but perhaps the first) behind b, left to right, without recursion:
 * concatenation trees are as deep as a loop is long. */
static void put_leaves(sbuild *b, vstr *root, bool skip_first)
{
    size_t cap = 64, n = 0;
    vstr **todo = tpl_take(b->c, cap * sizeof *todo);
    todo[n++] = root;
    while (n) {
        vstr *s = todo[--n];
        if (s->v) {
            if (!skip_first) tpl_sb_sub(b, s, 0, s->n);
            skip_first = false;
            continue;
        }
        if (n + 2 > cap) {
            vstr **more = tpl_take(b->c, 2 * cap * sizeof *more);
            memcpy(more, todo, n * sizeof *more);
            todo = more;
            cap *= 2;
        }
        todo[n++] = s->right;
        todo[n++] = s->left;
    }
}

const char *tpl_str_flat(rctx *c, vstr *s)
{
    if (s->v) return s->v;
    vstr *first = s;
    while (!first->v) first = first->left;
    bool grow = first->room && *first->used == first->n && first->room >= s->n;
    sbuild b = {.c = c};
    if (grow) {
        b.v = (char *)first->v; /* ours: made by this function, nothing lies behind it */
        b.cap = first->room;
        b.n = first->n;
        if (first->from == CLOSED) sb_close(&b, 0, first->n);
        for (size_t i = 0; i < first->n_span; i++)
            sb_close(&b, first->span[i].start, first->span[i].end);
    } else {
        b.cap = s->n + s->n / 2 + 64;
        b.v = tpl_take(c, b.cap);
    }
    work_bytes(c, s->n - b.n);
    put_leaves(&b, s, grow);
    const vstr *flat = tpl_sb_done(&b);
    s->used = grow ? first->used : tpl_take(c, sizeof *s->used);
    *s->used = b.n;
    s->room = b.cap;
    s->from = flat->from;
    s->span = flat->span;
    s->n_span = flat->n_span;
    s->left = s->right = NULL;
    s->v = b.v;
    return s->v;
}

vstr *tpl_str_concat(rctx *c, vstr *a, vstr *b)
{
    if (!a->n) return b;
    if (!b->n) return a;
    /* Joining is lazy: doubling a text again and again costs nothing until its bytes are needed. */
    if (a->n + b->n > c->mem.limit)
        tpl_fail(c, ERR_LIMIT, "the template builds a text that is too large");
    if (a->v && b->v && a->n + b->n <= COPY_BELOW && !a->room) {
        sbuild t;
        tpl_sb_init(&t, c);
        tpl_sb_str(&t, a);
        tpl_sb_str(&t, b);
        return tpl_sb_done(&t);
    }
    vstr *s = tpl_str_new(c, NULL, a->n + b->n, a->from == b->from ? a->from : MIXED);
    s->left = a;
    s->right = b;
    if (a->chars != SIZE_MAX && b->chars != SIZE_MAX) s->chars = a->chars + b->chars;
    return s;
}

vstr *tpl_str_sub(rctx *c, vstr *s, size_t from, size_t n)
{
    const char *v = tpl_str_flat(c, s);
    if (n == s->n) return s;
    vstr *r = tpl_str_new(c, v + from, n, s->from);
    r->markup = s->markup;
    if (s->from != MIXED) return r;
    sbuild b = {.c = c};
    for (size_t i = first_span(s, from); i < s->n_span && s->span[i].start < from + n; i++) {
        size_t lo = s->span[i].start > from ? s->span[i].start : from;
        size_t hi = s->span[i].end < from + n ? s->span[i].end : from + n;
        sb_close(&b, lo - from, hi - from);
    }
    b.n = n;
    vstr *spans = tpl_sb_done(&b);
    r->from = spans->from;
    r->span = spans->span;
    r->n_span = spans->n_span;
    return r;
}

/* ---- characters ------------------------------------------------------------------------------ */

static size_t seq_len(const char *s)
{
    unsigned char b = (unsigned char)*s;
    return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}

size_t tpl_str_chars(rctx *c, vstr *s)
{
    if (s->chars != SIZE_MAX) return s->chars;
    const char *v = tpl_str_flat(c, s);
    size_t n = 0;
    work_bytes(c, s->n);
    for (size_t i = 0; i < s->n; i++) n += ((unsigned char)v[i] & 0xC0) != 0x80;
    return s->chars = n;
}

bool tpl_str_ascii(rctx *c, vstr *s)
{
    return tpl_str_chars(c, s) == s->n;
}

size_t tpl_str_at(rctx *c, vstr *s, size_t ch)
{
    if (tpl_str_ascii(c, s)) return ch < s->n ? ch : s->n;
    size_t at = 0;
    work_bytes(c, ch);
    while (ch-- && at < s->n) at += seq_len(s->v + at);
    return at < s->n ? at : s->n;
}

int tpl_str_cmp(rctx *c, vstr *a, vstr *b)
{
    const char *x = tpl_str_flat(c, a), *y = tpl_str_flat(c, b);
    size_t n = a->n < b->n ? a->n : b->n;
    work_bytes(c, n);
    int r = n ? memcmp(x, y, n) : 0;
    return r ? (r < 0 ? -1 : 1) : (a->n > b->n) - (a->n < b->n);
}

bool tpl_str_is(rctx *c, vstr *s, const char *lit)
{
    return s->n == strlen(lit) && !memcmp(tpl_str_flat(c, s), lit, s->n);
}

const char *tpl_str_cstr(rctx *c, vstr *s)
{
    char *v = tpl_take(c, s->n + 1);
    memcpy(v, tpl_str_flat(c, s), s->n);
    v[s->n] = 0;
    return v;
}

size_t tpl_space_len(const char *s, size_t n)
{
    unsigned char b = n ? (unsigned char)s[0] : 'x';
    if (b < 0x80) return (b >= 9 && b <= 13) || (b >= 28 && b <= 32);
    if (b == 0xC2)
        return n > 1 && ((unsigned char)s[1] == 0x85 || (unsigned char)s[1] == 0xA0) ? 2 : 0;
    if ((b != 0xE1 && b != 0xE2 && b != 0xE3) || n < 3 || utf8_valid_at(s, n) != 3) return 0;
    uint32_t cp;
    utf8_decode(s, &cp);
    bool space = cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
                 cp == 0x202F || cp == 0x205F || cp == 0x3000;
    return space ? 3 : 0;
}

/* Length of the character at v if it is to be stripped, else 0. */
static size_t strippable(rctx *c, const char *v, size_t n, vstr *set)
{
    if (!set) return tpl_space_len(v, n);
    size_t k = seq_len(v);
    const char *in = tpl_str_flat(c, set);
    for (size_t i = 0; i < set->n; i += seq_len(in + i))
        if (seq_len(in + i) == k && k <= n && !memcmp(in + i, v, k)) return k;
    return 0;
}

vstr *tpl_str_strip(rctx *c, vstr *s, vstr *set, bool left, bool right)
{
    const char *v = tpl_str_flat(c, s);
    size_t from = 0, to = s->n, k;
    while (left && from < to && (k = strippable(c, v + from, to - from, set)) > 0) from += k;
    while (right && to > from) {
        size_t at = to - 1;
        while (at > from && ((unsigned char)v[at] & 0xC0) == 0x80) at--;
        if (!strippable(c, v + at, to - at, set)) break;
        to = at;
    }
    work_bytes(c, s->n - (to - from));
    return tpl_str_sub(c, s, from, to - from);
}

size_t tpl_str_find(rctx *c, vstr *a, vstr *b, size_t from)
{
    const char *x = tpl_str_flat(c, a), *y = tpl_str_flat(c, b);
    if (from > a->n) return SIZE_MAX;
    if (!b->n) return from;
    const char *hit = memmem(x + from, a->n - from, y, b->n);
    work_bytes(c, hit ? (size_t)(hit - x) - from : a->n - from);
    return hit ? (size_t)(hit - x) : SIZE_MAX;
}

/* Start of the last sep (not empty) that ends at or before `to`. */
static size_t rfind_before(rctx *c, const char *v, size_t to, const vstr *sep)
{
    if (to < sep->n) return SIZE_MAX;
    for (size_t i = to - sep->n + 1; i-- > 0;) {
        if (v[i] != sep->v[0]) continue;
        work_bytes(c, sep->n);
        if (!memcmp(v + i, sep->v, sep->n)) return i;
    }
    return SIZE_MAX;
}

size_t tpl_str_rfind(rctx *c, vstr *a, vstr *b)
{
    const char *x = tpl_str_flat(c, a);
    tpl_str_flat(c, b);
    if (b->n > a->n) return SIZE_MAX;
    if (!b->n) return a->n;
    return rfind_before(c, x, a->n, b);
}

vstr *tpl_str_replace(rctx *c, vstr *s, vstr *old, vstr *with, int64_t max)
{
    sbuild b;
    tpl_sb_init(&b, c);
    size_t at = 0;
    tpl_str_flat(c, s);
    if (max < 0) max = INT64_MAX;
    if (!old->n) { /* between all characters and at both ends */
        for (; max > 0; max--) {
            tpl_sb_str(&b, with);
            work(c, 1);
            if (at >= s->n) return tpl_sb_done(&b);
            size_t k = seq_len(s->v + at);
            tpl_sb_sub(&b, s, at, k);
            at += k;
        }
    } else {
        for (size_t hit; max > 0 && (hit = tpl_str_find(c, s, old, at)) != SIZE_MAX; max--) {
            tpl_sb_sub(&b, s, at, hit - at);
            tpl_sb_str(&b, with);
            at = hit + old->n;
        }
        if (!at) return s;
    }
    tpl_sb_sub(&b, s, at, s->n - at);
    vstr *r = tpl_sb_done(&b);
    r->markup = s->markup;
    return r;
}

/* ---- splitting ------------------------------------------------------------------------------- */

static void push_piece(rctx *c, vseq *q, size_t *cap, vstr *s, size_t from, size_t to)
{
    work(c, 1);
    tpl_seq_push(c, q, cap, v_str(tpl_str_sub(c, s, from, to - from)));
}

static void split_space(rctx *c, vstr *s, int64_t max, vseq *q, size_t *cap)
{
    const char *v = s->v;
    size_t i = 0, k;
    for (;;) {
        while (i < s->n && (k = tpl_space_len(v + i, s->n - i)) > 0) i += k;
        if (i >= s->n) return;
        size_t from = i;
        if (max-- == 0) {
            push_piece(c, q, cap, s, from, s->n);
            return;
        }
        while (i < s->n && !tpl_space_len(v + i, s->n - i)) i += seq_len(v + i);
        push_piece(c, q, cap, s, from, i);
    }
}

static size_t space_before(const char *v, size_t from, size_t to)
{
    size_t at = to - 1;
    while (at > from && ((unsigned char)v[at] & 0xC0) == 0x80) at--;
    return tpl_space_len(v + at, to - at) ? to - at : 0;
}

static void rsplit_space(rctx *c, vstr *s, int64_t max, vseq *q, size_t *cap)
{
    const char *v = s->v;
    size_t to = s->n, k;
    for (;;) {
        while (to && (k = space_before(v, 0, to)) > 0) to -= k;
        if (!to) return;
        if (max-- == 0) {
            push_piece(c, q, cap, s, 0, to);
            return;
        }
        size_t from = to;
        while (from && !space_before(v, 0, from)) {
            from--;
            while (from && ((unsigned char)v[from] & 0xC0) == 0x80) from--;
        }
        push_piece(c, q, cap, s, from, to);
        to = from;
    }
}

value tpl_str_split(rctx *c, vstr *s, vstr *sep, int64_t max, bool from_right)
{
    vseq *q = tpl_seq_new(c, 0);
    size_t cap = 0, hit;
    tpl_str_flat(c, s);
    if (max < 0) max = INT64_MAX;
    work_bytes(c, s->n);
    if (sep && !sep->n) raise(c, "empty separator");
    if (!sep) {
        if (from_right) rsplit_space(c, s, max, q, &cap);
        else split_space(c, s, max, q, &cap);
    } else if (from_right) {
        size_t to = s->n;
        tpl_str_flat(c, sep);
        for (; max > 0 && (hit = rfind_before(c, s->v, to, sep)) != SIZE_MAX; max--) {
            push_piece(c, q, &cap, s, hit + sep->n, to);
            to = hit;
        }
        push_piece(c, q, &cap, s, 0, to);
    } else {
        size_t at = 0;
        for (; max > 0 && (hit = tpl_str_find(c, s, sep, at)) != SIZE_MAX; max--) {
            push_piece(c, q, &cap, s, at, hit);
            at = hit + sep->n;
        }
        push_piece(c, q, &cap, s, at, s->n);
    }
    for (size_t i = 0; from_right && i < q->n / 2; i++) {
        value t = q->v[i];
        q->v[i] = q->v[q->n - 1 - i];
        q->v[q->n - 1 - i] = t;
    }
    return v_seq(V_LIST, q);
}

/* Bytes of the line end at v, 0 if none stands there. */
static size_t line_end(const char *v, size_t n)
{
    unsigned char b = (unsigned char)v[0];
    if (b == '\r') return n > 1 && v[1] == '\n' ? 2 : 1;
    if (b < 0x80) return (b >= 10 && b <= 12) || (b >= 28 && b <= 30);
    if (b == 0xC2) return n > 1 && (unsigned char)v[1] == 0x85 ? 2 : 0;
    return n > 2 && (!memcmp(v, "\xE2\x80\xA8", 3) || !memcmp(v, "\xE2\x80\xA9", 3)) ? 3 : 0;
}

value tpl_str_splitlines(rctx *c, vstr *s, bool keep)
{
    vseq *q = tpl_seq_new(c, 0);
    size_t cap = 0, from = 0, k;
    const char *v = tpl_str_flat(c, s);
    for (size_t i = 0; i < s->n;) {
        if (!(k = line_end(v + i, s->n - i))) {
            i++;
            continue;
        }
        push_piece(c, q, &cap, s, from, keep ? i + k : i);
        from = i += k;
    }
    if (from < s->n) push_piece(c, q, &cap, s, from, s->n);
    return v_seq(V_LIST, q);
}

vstr *tpl_str_escape(rctx *c, vstr *s)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    if (s->markup) return s;
    sbuild b;
    tpl_sb_init(&b, c);
    const char *v = tpl_str_flat(c, s);
    size_t at = 0;
    for (size_t i = 0; i < s->n; i++) {
        const char *hit = v[i] ? strchr(from, v[i]) : NULL;
        if (!hit) continue;
        tpl_sb_sub(&b, s, at, i - at);
        tpl_sb_puts(&b, to[hit - from]);
        at = i + 1;
    }
    tpl_sb_sub(&b, s, at, s->n - at);
    vstr *r = tpl_sb_done(&b);
    r->markup = true;
    return r;
}
