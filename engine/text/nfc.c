/* nfc.c - see nfc.h.  A character of INERT neither changes, nor reorders, nor joins the one before
 * it, so text may be normalised in stretches that begin at one and end before one.  ASCII is inert:
 * ordinary text is never touched. */
#include "engine/text/nfc.h"

#include "base/err.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Ranges in which all characters are inert, chosen to cover most text; anything else is normalised
 * in earnest, so leaving a range out costs time only.  But these must be in: U+11A7, one below the
 * Hangul final consonants, which utf8proc takes for one and drops; and the marks assigned after
 * Unicode 9 (up to 16), which Hugging Face's normaliser leaves where they are.  Rising. */
static const struct {
    uint32_t lo, hi;
} INERT[] = {
    {0x0000, 0x02FF},   {0x0391, 0x03A1},   {0x03A3, 0x03CE},   {0x0400, 0x0482},
    {0x05D0, 0x05EA},   {0x0620, 0x064A},   {0x07FD, 0x07FD},   {0x0897, 0x089F},
    {0x08CA, 0x08D3},   {0x0904, 0x0939},   {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},
    {0x0CF3, 0x0CF3},   {0x0D3B, 0x0D3C},   {0x0E01, 0x0E30},   {0x0EBA, 0x0EBA},
    {0x0ECE, 0x0ECE},   {0x11A7, 0x11A7},   {0x1715, 0x1715},   {0x1ABF, 0x1ACE},
    {0x1DF6, 0x1DFA},   {0x2010, 0x2027},   {0x2030, 0x205E},   {0x3001, 0x3029},
    {0x3041, 0x3096},   {0x30A1, 0x30FA},   {0x30FC, 0x30FE},   {0x3400, 0x4DBF},
    {0x4E00, 0x9FFF},   {0xA82C, 0xA82C},   {0xAC00, 0xD7A3},   {0xFF01, 0xFF9D},
    {0x10D24, 0x10D27}, {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC}, {0x10EFC, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x11241, 0x11241},
    {0x1133B, 0x1133B}, {0x113B8, 0x113C0}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5},
    {0x113C7, 0x113CA}, {0x113CC, 0x113D0}, {0x113D2, 0x113D2}, {0x113E1, 0x113E2},
    {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x1193D, 0x1193E},
    {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
    {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
    {0x11F00, 0x11F01}, {0x11F03, 0x11F03}, {0x11F34, 0x11F3A}, {0x11F3E, 0x11F42},
    {0x11F5A, 0x11F5A}, {0x13440, 0x13440}, {0x13447, 0x13455}, {0x1611E, 0x1612F},
    {0x16D40, 0x16D6C}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
    {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF},
    {0x1F300, 0x1FAFF}, {0x20000, 0x2A6DF},
};

static bool inert(uint32_t cp)
{
    if (cp < 0x300) return true;
    size_t lo = 0, hi = sizeof INERT / sizeof *INERT;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (INERT[mid].lo <= cp) lo = mid;
        else hi = mid;
    }
    return cp <= INERT[lo].hi;
}

/* First character at or after i that is not inert; *before = start of the character before it. */
static size_t next_active(const char *s, size_t n, size_t i, size_t *before)
{
    *before = i;
    while (i < n) {
        uint64_t word;
        if (n - i >= 8 && (memcpy(&word, s + i, 8), !(word & UINT64_C(0x8080808080808080)))) {
            *before = i + 7;
            i += 8;
            continue;
        }
        uint32_t cp;
        size_t k = (size_t)utf8_decode(s + i, &cp);
        if (!inert(cp)) return i;
        *before = i;
        i += k;
    }
    return n;
}

bool nfc_quick(const char *s, size_t n)
{
    size_t before;
    return next_active(s, n, 0, &before) == n;
}

typedef struct {
    utf8proc_int32_t *cp; /* [cap] */
    size_t n, cap;
} cp_list;

static bool cps_reserve(cp_list *l, size_t extra)
{
    if (l->cap - l->n >= extra) return true;
    size_t cap = l->cap ? l->cap : 64;
    while (cap - l->n < extra) cap *= 2;
    utf8proc_int32_t *cp = realloc(l->cp, cap * sizeof *cp);
    if (!cp) return false;
    l->cp = cp;
    l->cap = cap;
    return true;
}

static int ccc(utf8proc_int32_t cp)
{
    return utf8proc_get_property(cp)->combining_class;
}

/* Stable counting sort of marks v[n] by combining class (1..254). */
static void order_marks(utf8proc_int32_t *v, size_t n, utf8proc_int32_t *tmp)
{
    size_t start[256] = {0};
    for (size_t i = 0; i < n; i++) start[ccc(v[i]) + 1]++;
    for (int c = 1; c < 256; c++) start[c] += start[c - 1];
    for (size_t i = 0; i < n; i++) tmp[start[ccc(v[i])]++] = v[i];
    memcpy(v, tmp, n * sizeof *v);
}

/* Canonical order of all runs of marks.  Short runs, the rule, are ordered by insertion. */
static bool canonical_order(cp_list *l)
{
    for (size_t i = 0, end; i < l->n; i = end + 1) {
        for (end = i; end < l->n && ccc(l->cp[end]); end++) {
        }
        if (end - i > 32) {
            if (!cps_reserve(l, end - i)) return false;
            order_marks(l->cp + i, end - i, l->cp + l->n);
            continue;
        }
        for (size_t k = i + 1; k < end; k++) {
            utf8proc_int32_t v = l->cp[k];
            size_t j = k;
            for (; j > i && ccc(l->cp[j - 1]) > ccc(v); j--) l->cp[j] = l->cp[j - 1];
            l->cp[j] = v;
        }
    }
    return true;
}

/* NFC of the stretch s[n] to the end of out. */
static bool stretch(const char *s, size_t n, cp_list *l, buf *out)
{
    int last = 0;
    l->n = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += (size_t)utf8_decode(s + i, &cp);
        if (!cps_reserve(l, 32)) return false; /* the longest canonical decomposition has 4 */
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)cp, l->cp + l->n, 32,
                                                     UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &last);
        if (k < 1 || k > 32) return false;
        l->n += (size_t)k;
    }
    if (!canonical_order(l)) return false;
    utf8proc_ssize_t len =
        utf8proc_normalize_utf32(l->cp, (utf8proc_ssize_t)l->n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (len < 0 || !buf_reserve(out, (size_t)len * 4)) return false;
    for (utf8proc_ssize_t i = 0; i < len; i++) {
        char c[4];
        buf_put(out, c, (size_t)utf8_encode((uint32_t)l->cp[i], c));
    }
    return true;
}

static bool note_edit(nfc_edits *e, nfc_edit x)
{
    if (e->n == e->cap) {
        size_t cap = e->cap ? 2 * e->cap : 16;
        nfc_edit *v = realloc(e->v, cap * sizeof *v);
        if (!v) return false;
        e->v = v;
        e->cap = cap;
    }
    e->v[e->n++] = x;
    return true;
}

int nfc_normalise(const char *s, size_t n, buf *out, nfc_edits *edits)
{
    cp_list l = {0};
    size_t base = out->len, done = 0;
    bool ok = buf_reserve(out, n);
    while (ok) {
        size_t from, at = next_active(s, n, done, &from), end = at;
        if (at == n) break;
        while (end < n) {
            uint32_t cp;
            size_t k = (size_t)utf8_decode(s + end, &cp);
            if (inert(cp)) break;
            end += k;
        }
        uint32_t first;
        utf8_decode(s + from, &first);
        if (ccc((utf8proc_int32_t)first)) from = at; /* a mark we must leave alone is no base */
        buf_put(out, s + done, from - done);
        size_t to = out->len;
        ok = stretch(s + from, end - from, &l, out);
        bool same = ok && out->len - to == end - from && !memcmp(out->v + to, s + from, end - from);
        if (ok && !same) ok = note_edit(edits, (nfc_edit){from, end, to - base, out->len - base});
        done = end;
    }
    if (ok) buf_put(out, s + done, n - done);
    free(l.cp);
    return ok && buf_ok(out) ? 0 : ERR_NOMEM;
}

size_t nfc_origin(const nfc_edits *edits, size_t to, bool end)
{
    size_t lo = 0, hi = edits->n; /* edits before lo begin before `to` */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (edits->v[mid].to < to) lo = mid + 1;
        else hi = mid;
    }
    if (!lo) return to;
    const nfc_edit *x = &edits->v[lo - 1];
    if (to >= x->to_end) return x->from_end + (to - x->to_end);
    return end ? x->from_end : x->from;
}
