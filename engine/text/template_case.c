/* template_case.c - upper, lower, title and their relatives, and the is...() questions, for all of
 * Unicode as Python answers them.  Owns nothing (arena).  Thread: the one that renders. */
#include "engine/text/template_value.h"

#include "base/utf8.h"

#include <string.h>
#include <utf8proc.h>

/* Characters whose upper or title case is more than one character (Unicode SpecialCasing). */
typedef struct {
    uint32_t cp;
    const char *text;
} special;

static const special upper_specials[] = {
    {0xDF, "SS"},   {0x149, "ʼN"},  {0x1F0, "J̌"},   {0x390, "Ϊ́"},    {0x3B0, "Ϋ́"},
    {0x587, "ԵՒ"},  {0x1E96, "H̱"},  {0x1E97, "T̈"},  {0x1E98, "W̊"},   {0x1E99, "Y̊"},
    {0x1E9A, "Aʾ"}, {0x1F50, "Υ̓"},  {0x1F52, "Υ̓̀"},  {0x1F54, "Υ̓́"},   {0x1F56, "Υ̓͂"},
    {0x1F80, "ἈΙ"}, {0x1F81, "ἉΙ"}, {0x1F82, "ἊΙ"}, {0x1F83, "ἋΙ"},  {0x1F84, "ἌΙ"},
    {0x1F85, "ἍΙ"}, {0x1F86, "ἎΙ"}, {0x1F87, "ἏΙ"}, {0x1F88, "ἈΙ"},  {0x1F89, "ἉΙ"},
    {0x1F8A, "ἊΙ"}, {0x1F8B, "ἋΙ"}, {0x1F8C, "ἌΙ"}, {0x1F8D, "ἍΙ"},  {0x1F8E, "ἎΙ"},
    {0x1F8F, "ἏΙ"}, {0x1F90, "ἨΙ"}, {0x1F91, "ἩΙ"}, {0x1F92, "ἪΙ"},  {0x1F93, "ἫΙ"},
    {0x1F94, "ἬΙ"}, {0x1F95, "ἭΙ"}, {0x1F96, "ἮΙ"}, {0x1F97, "ἯΙ"},  {0x1F98, "ἨΙ"},
    {0x1F99, "ἩΙ"}, {0x1F9A, "ἪΙ"}, {0x1F9B, "ἫΙ"}, {0x1F9C, "ἬΙ"},  {0x1F9D, "ἭΙ"},
    {0x1F9E, "ἮΙ"}, {0x1F9F, "ἯΙ"}, {0x1FA0, "ὨΙ"}, {0x1FA1, "ὩΙ"},  {0x1FA2, "ὪΙ"},
    {0x1FA3, "ὫΙ"}, {0x1FA4, "ὬΙ"}, {0x1FA5, "ὭΙ"}, {0x1FA6, "ὮΙ"},  {0x1FA7, "ὯΙ"},
    {0x1FA8, "ὨΙ"}, {0x1FA9, "ὩΙ"}, {0x1FAA, "ὪΙ"}, {0x1FAB, "ὫΙ"},  {0x1FAC, "ὬΙ"},
    {0x1FAD, "ὭΙ"}, {0x1FAE, "ὮΙ"}, {0x1FAF, "ὯΙ"}, {0x1FB2, "ᾺΙ"},  {0x1FB3, "ΑΙ"},
    {0x1FB4, "ΆΙ"}, {0x1FB6, "Α͂"},  {0x1FB7, "Α͂Ι"}, {0x1FBC, "ΑΙ"},  {0x1FC2, "ῊΙ"},
    {0x1FC3, "ΗΙ"}, {0x1FC4, "ΉΙ"}, {0x1FC6, "Η͂"},  {0x1FC7, "Η͂Ι"},  {0x1FCC, "ΗΙ"},
    {0x1FD2, "Ϊ̀"},  {0x1FD3, "Ϊ́"},  {0x1FD6, "Ι͂"},  {0x1FD7, "Ϊ͂"},   {0x1FE2, "Ϋ̀"},
    {0x1FE3, "Ϋ́"},  {0x1FE4, "Ρ̓"},  {0x1FE6, "Υ͂"},  {0x1FE7, "Ϋ͂"},   {0x1FF2, "ῺΙ"},
    {0x1FF3, "ΩΙ"}, {0x1FF4, "ΏΙ"}, {0x1FF6, "Ω͂"},  {0x1FF7, "Ω͂Ι"},  {0x1FFC, "ΩΙ"},
    {0xFB00, "FF"}, {0xFB01, "FI"}, {0xFB02, "FL"}, {0xFB03, "FFI"}, {0xFB04, "FFL"},
    {0xFB05, "ST"}, {0xFB06, "ST"}, {0xFB13, "ՄՆ"}, {0xFB14, "ՄԵ"},  {0xFB15, "ՄԻ"},
    {0xFB16, "ՎՆ"}, {0xFB17, "ՄԽ"},
};
static const special title_specials[] = {
    {0xDF, "Ss"},    {0x149, "ʼN"},  {0x1F0, "J̌"},   {0x390, "Ϊ́"},   {0x3B0, "Ϋ́"},
    {0x587, "Եւ"},   {0x1E96, "H̱"},  {0x1E97, "T̈"},  {0x1E98, "W̊"},  {0x1E99, "Y̊"},
    {0x1E9A, "Aʾ"},  {0x1F50, "Υ̓"},  {0x1F52, "Υ̓̀"},  {0x1F54, "Υ̓́"},  {0x1F56, "Υ̓͂"},
    {0x1FB2, "Ὰͅ"},   {0x1FB4, "Άͅ"},  {0x1FB6, "Α͂"},  {0x1FB7, "ᾼ͂"},  {0x1FC2, "Ὴͅ"},
    {0x1FC4, "Ήͅ"},   {0x1FC6, "Η͂"},  {0x1FC7, "ῌ͂"},  {0x1FD2, "Ϊ̀"},  {0x1FD3, "Ϊ́"},
    {0x1FD6, "Ι͂"},   {0x1FD7, "Ϊ͂"},  {0x1FE2, "Ϋ̀"},  {0x1FE3, "Ϋ́"},  {0x1FE4, "Ρ̓"},
    {0x1FE6, "Υ͂"},   {0x1FE7, "Ϋ͂"},  {0x1FF2, "Ὼͅ"},  {0x1FF4, "Ώͅ"},  {0x1FF6, "Ω͂"},
    {0x1FF7, "ῼ͂"},   {0xFB00, "Ff"}, {0xFB01, "Fi"}, {0xFB02, "Fl"}, {0xFB03, "Ffi"},
    {0xFB04, "Ffl"}, {0xFB05, "St"}, {0xFB06, "St"}, {0xFB13, "Մն"}, {0xFB14, "Մե"},
    {0xFB15, "Մի"},  {0xFB16, "Վն"}, {0xFB17, "Մխ"},
};

static void put_cp(sbuild *b, uint32_t cp)
{
    char t[4];
    tpl_sb_bytes(b, t, (size_t)utf8_encode(cp, t), false);
}

static bool put_special(sbuild *b, uint32_t cp, const special *s, size_t n)
{
    size_t lo = 0, hi = n;
    if (cp < s[0].cp) return false;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s[mid].cp < cp) lo = mid + 1;
        else hi = mid;
    }
    if (lo == n || s[lo].cp != cp) return false;
    tpl_sb_puts(b, s[lo].text);
    return true;
}

static void put_upper(sbuild *b, uint32_t cp)
{
    if (!put_special(b, cp, upper_specials, sizeof upper_specials / sizeof *upper_specials))
        put_cp(b, (uint32_t)utf8proc_toupper((utf8proc_int32_t)cp));
}

static void put_title(sbuild *b, uint32_t cp)
{
    if (!put_special(b, cp, title_specials, sizeof title_specials / sizeof *title_specials))
        put_cp(b, (uint32_t)utf8proc_totitle((utf8proc_int32_t)cp));
}

static utf8proc_category_t category(uint32_t cp)
{
    return utf8proc_category((utf8proc_int32_t)cp);
}

static bool is_lower(uint32_t cp)
{
    return utf8proc_islower((utf8proc_int32_t)cp) != 0;
}

static bool is_upper(uint32_t cp)
{
    return utf8proc_isupper((utf8proc_int32_t)cp) != 0;
}

static bool is_title(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_LT;
}

static bool cased(uint32_t cp)
{
    return is_lower(cp) || is_upper(cp) || is_title(cp);
}

static bool case_ignorable(uint32_t cp)
{
    switch (category(cp)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default: break;
    }
    return cp == '\'' || cp == '.' || cp == ':' || cp == 0xB7 || cp == 0x2018 || cp == 0x2019 ||
           cp == 0x2024 || cp == 0x2027;
}

/* Whether the sigma at v[at, at + 2) ends a word: then its lower case is ς. */
static bool final_sigma(const char *v, size_t n, size_t at)
{
    uint32_t cp = 0;
    size_t i = at;
    bool before = false;
    while (i > 0) {
        i--;
        while (i > 0 && ((unsigned char)v[i] & 0xC0) == 0x80) i--;
        utf8_decode(v + i, &cp);
        if (case_ignorable(cp)) continue;
        before = cased(cp);
        break;
    }
    if (!before) return false;
    for (i = at + 2; i < n;) {
        i += (size_t)utf8_decode(v + i, &cp);
        if (!case_ignorable(cp)) return !cased(cp);
    }
    return true;
}

static void put_lower(sbuild *b, uint32_t cp, const char *v, size_t n, size_t at)
{
    if (cp == 0x130) tpl_sb_puts(b, "i\xCC\x87");
    else if (cp == 0x3A3 && final_sigma(v, n, at)) put_cp(b, 0x3C2);
    else put_cp(b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
}

vstr *tpl_str_case(rctx *c, vstr *s, str_casing how)
{
    sbuild b;
    tpl_sb_init(&b, c);
    const char *v = tpl_str_flat(c, s);
    bool in_word = false;
    work_bytes(c, s->n * 8);
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        size_t at = i;
        i += (size_t)utf8_decode(v + i, &cp);
        switch (how) {
        case CASE_UPPER: put_upper(&b, cp); break;
        case CASE_LOWER: put_lower(&b, cp, v, s->n, at); break;
        case CASE_SWAP:
            if (is_upper(cp)) put_lower(&b, cp, v, s->n, at);
            else if (is_lower(cp)) put_upper(&b, cp);
            else put_cp(&b, cp);
            break;
        case CASE_CAPITALIZE:
            if (!at) put_title(&b, cp);
            else put_lower(&b, cp, v, s->n, at);
            break;
        case CASE_TITLE:
            if (in_word) put_lower(&b, cp, v, s->n, at);
            else put_title(&b, cp);
            in_word = cased(cp);
            break;
        }
    }
    vstr *r = tpl_sb_done(&b);
    r->from = tpl_str_closed(s) ? CLOSED : OPEN;
    r->markup = s->markup;
    return r;
}

static bool is_alpha(uint32_t cp)
{
    utf8proc_category_t k = category(cp);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

/* Python's isdigit: decimal digits and those written small, raised or in circles. */
static bool is_digit(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_ND || cp == 0xB2 || cp == 0xB3 || cp == 0xB9 ||
           cp == 0x2070 || (cp >= 0x2074 && cp <= 0x2079) || (cp >= 0x2080 && cp <= 0x2089) ||
           (cp >= 0x2460 && cp <= 0x2468) || (cp >= 0x2474 && cp <= 0x247C) ||
           (cp >= 0x2488 && cp <= 0x2490);
}

static bool is_numeric(uint32_t cp)
{
    utf8proc_category_t k = category(cp);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

static bool of_class(uint32_t cp, const char *v, size_t n, str_class k)
{
    switch (k) {
    case IS_ALPHA: return is_alpha(cp);
    case IS_DIGIT: return is_digit(cp);
    case IS_NUMERIC: return is_numeric(cp);
    case IS_ALNUM: return is_alpha(cp) || is_numeric(cp);
    case IS_SPACE: return tpl_space_len(v, n) > 0;
    default: return false;
    }
}

/* islower, isupper, istitle: every cased character fits, and there is one. */
static bool all_cased(const char *v, size_t n, str_class k)
{
    bool any = false, after_cased = false;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += (size_t)utf8_decode(v + i, &cp);
        bool up = is_upper(cp) || is_title(cp), low = is_lower(cp);
        if (k == IS_LOWER && up) return false;
        if (k == IS_UPPER && (low || is_title(cp))) return false;
        if (k == IS_TITLE && ((up && after_cased) || (low && !after_cased))) return false;
        after_cased = up || low;
        any |= up || low;
    }
    return any;
}

bool tpl_str_is_class(rctx *c, vstr *s, str_class k)
{
    const char *v = tpl_str_flat(c, s);
    work_bytes(c, s->n * 8);
    if (k == IS_LOWER || k == IS_UPPER || k == IS_TITLE) return all_cased(v, s->n, k);
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        size_t len = (size_t)utf8_decode(v + i, &cp);
        if (!of_class(cp, v + i, s->n - i, k)) return false;
        i += len;
    }
    return s->n > 0;
}
