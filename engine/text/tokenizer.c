/* tokenizer.c - see tokenizer.h.  The way of a text, step by step as at Hugging Face:
 *   1. bytes that are no UTF-8 become U+FFFD
 *   2. added tokens looked for in the text as given are cut out
 *   3. each remaining stretch is normalised (NFC), then cut at added tokens that are looked for in
 *      normalised text
 *   4. what is left is cut into pieces by the checkpoint's expressions, and BPE merges each piece.
 * Closed spans take part in all of it and only forbid control tokens that touch them. */
#include "engine/text/tokenizer_internal.h"

#include "base/utf8.h"
#include "engine/text/nfc.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static tokenizer *fail(tokenizer *t)
{
    tokenizer_free(t);
    return NULL;
}

tokenizer *tokenizer_open(const tokenizer_source *src, err *e)
{
    int r;
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        err_set(e, ERR_NOMEM, "out of memory for the tokenizer");
        return NULL;
    }
    t->eos = t->bos = t->pad = -1;
    if (src->gguf) r = tokenizer_load_gguf(t, src->gguf, e);
    else if (src->tokenizer_json) r = tokenizer_load_json(t, src->tokenizer_json, e);
    else if (src->vocab_json && src->merges)
        r = tokenizer_load_vocab(t, src->vocab_json, src->merges, e);
    else
        r = err_set(e, ERR_NOTFOUND,
                    "no vocabulary: tokenizer.json, or vocab.json with merges.txt, or a GGUF file "
                    "is needed");
    if (r == 0 && src->tokenizer_config)
        r = tokenizer_load_config(t, src->tokenizer_config, !src->gguf && !src->tokenizer_json, e);
    if (r == 0) r = added_seal(&t->added, t->nfc, e);
    return r ? fail(t) : t;
}

void tokenizer_free(tokenizer *t)
{
    if (!t) return;
    bpe_clear(&t->vocab);
    pretok_clear(&t->pre);
    added_clear(&t->added);
    buf_clear(&t->eos_text);
    buf_clear(&t->bos_text);
    buf_clear(&t->chat_template);
    buf_clear(&t->rerank_template);
    free(t);
}

int tokenizer_text_end(const tokenizer *t, int32_t *id, int cap)
{
    if (t->n_text_end > cap) return -1;
    for (int i = 0; i < t->n_text_end; i++) id[i] = t->text_end[i];
    return t->n_text_end;
}

void token_list_clear(token_list *l)
{
    free(l->v);
    *l = (token_list){0};
}

bool token_list_push(token_list *l, int32_t id)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        int32_t *v = realloc(l->v, cap * sizeof *v);
        if (!v) return false;
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = id;
    return true;
}

/* ---- encoding ---- */

/* One call of tokenizer_encode. */
typedef struct {
    const tokenizer *t;
    bool special;
    const text_span *closed; /* [n_closed] in the repaired text */
    size_t n_closed;
    const char *text;       /* the repaired text */
    size_t base;            /* where the stretch at hand begins in it */
    const nfc_edits *edits; /* how the stretch was normalised; NULL: not */
    token_list *out;
    buf norm;
    nfc_edits edit_list;
    pretok_scratch pre;
    bpe_scratch merge;
} encoder;

typedef int (*gap_fn)(encoder *en, const char *s, size_t n);

static bool is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

/* A word character as Unicode regular expressions have it: alphabetic, mark, decimal number,
 * connector or joiner.  Circled letters are alphabetic although they are symbols. */
static bool is_word(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default:
        return cp == 0x200C || cp == 0x200D || (cp >= 0x24B6 && cp <= 0x24E9) ||
               (cp >= 0x1F130 && cp <= 0x1F149) || (cp >= 0x1F150 && cp <= 0x1F169) ||
               (cp >= 0x1F170 && cp <= 0x1F189);
    }
}

/* Start of the character before i > 0, which is decoded. */
static size_t char_before(const char *s, size_t i, uint32_t *cp)
{
    do i--;
    while (i && ((unsigned char)s[i] & 0xC0) == 0x80);
    utf8_decode(s + i, cp);
    return i;
}

/* No word character on either side of s[start, end). */
static bool stands_alone(const char *s, size_t n, size_t start, size_t end)
{
    uint32_t cp;
    if (start) {
        char_before(s, start, &cp);
        if (is_word(cp)) return false;
    }
    if (end == n) return true;
    utf8_decode(s + end, &cp);
    return !is_word(cp);
}

/* Start of the white space that ends at i, not below stop. */
static size_t space_before(const char *s, size_t i, size_t stop)
{
    while (i > stop) {
        uint32_t cp;
        size_t k = char_before(s, i, &cp);
        if (!is_space(cp)) break;
        i = k;
    }
    return i < stop ? stop : i;
}

static size_t space_after(const char *s, size_t i, size_t n)
{
    while (i < n) {
        uint32_t cp;
        size_t k = (size_t)utf8_decode(s + i, &cp);
        if (!is_space(cp)) break;
        i += k;
    }
    return i;
}

/* A closed span covers a byte of [from, to). */
static bool is_closed(const encoder *en, size_t from, size_t to)
{
    size_t lo = 0, hi = en->n_closed; /* spans before lo end at or before from */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (en->closed[mid].end <= from) lo = mid + 1;
        else hi = mid;
    }
    for (; lo < en->n_closed && en->closed[lo].start < to; lo++)
        if (en->closed[lo].start < en->closed[lo].end) return true;
    return false;
}

/* May the token found at s[start, end) of the stretch at hand be taken? */
static bool may_take(const encoder *en, const added_token *a, const char *s, size_t n, size_t start,
                     size_t end)
{
    if (a->special) {
        size_t from = en->edits ? nfc_origin(en->edits, start, false) : start;
        size_t to = en->edits ? nfc_origin(en->edits, end, true) : end;
        if (!en->special || is_closed(en, en->base + from, en->base + to)) return false;
    }
    return !a->single_word || stands_alone(s, n, start, end);
}

/* Cuts s[n] at the tokens of set; the search is leftmost, longest, and goes on after a match
 * whether it was taken or not. */
static int cut_added(encoder *en, const added_set *set, const char *s, size_t n, gap_fn gap)
{
    size_t done = 0, i = 0;
    int r = 0;
    while (set->n && r == 0) {
        while (i < n && !set->first[(unsigned char)s[i]]) i++;
        if (i >= n) break;
        const added_pattern *p = added_longest(set, s + i, n - i);
        if (!p) {
            i++;
            continue;
        }
        size_t start = i, end = i + p->len;
        i = end;
        if (!may_take(en, p->token, s, n, start, end)) continue;
        if (p->token->lstrip) start = space_before(s, start, done < start ? done : start);
        /* end < done: the white space from end on was already scanned. */
        if (p->token->rstrip) end = end < done ? done : space_after(s, end, n);
        if (start > done) r = gap(en, s + done, start - done);
        if (r == 0 && !token_list_push(en->out, p->token->id)) r = ERR_NOMEM;
        done = end;
    }
    return r || done >= n ? r : gap(en, s + done, n - done);
}

static int encode_piece(void *arg, const char *s, size_t n)
{
    encoder *en = arg;
    return bpe_encode(&en->t->vocab, s, n, &en->merge, en->out);
}

static int encode_plain(encoder *en, const char *s, size_t n)
{
    return pretok_split(&en->t->pre, &en->pre, s, n, encode_piece, en);
}

/* A stretch between tokens of the text as given. */
static int encode_stretch(encoder *en, const char *s, size_t n)
{
    en->base = (size_t)(s - en->text);
    if (en->t->nfc && !nfc_quick(s, n)) {
        buf_reset(&en->norm);
        en->edit_list.n = 0;
        if (nfc_normalise(s, n, &en->norm, &en->edit_list)) return ERR_NOMEM;
        s = en->norm.v;
        n = en->norm.len;
        en->edits = &en->edit_list;
    }
    int r = cut_added(en, &en->t->added.normalized, s, n, encode_plain);
    en->edits = NULL;
    en->base = 0;
    return r;
}

/* Copies text[n] to out with U+FFFD for every maximal run that is no UTF-8, and moves the spans
 * along. moved: [n_spans]. */
static void repair(const char *text, size_t n, const text_span *spans, size_t n_spans,
                   text_span *moved, buf *out)
{
    size_t k = 0; /* borders moved so far: start and end of span k / 2 */
    for (size_t i = 0;;) {
        while (k < 2 * n_spans && (k & 1 ? spans[k / 2].end : spans[k / 2].start) <= i) {
            *(k & 1 ? &moved[k / 2].end : &moved[k / 2].start) = out->len;
            k++;
        }
        if (i >= n) break;
        size_t border = k < 2 * n_spans ? (k & 1 ? spans[k / 2].end : spans[k / 2].start) : n,
               j = i;
        int len = 0;
        while (j < n && j < border && (len = utf8_valid_at(text + j, n - j)) > 0) j += (size_t)len;
        buf_put(out, text + i, j - i);
        i = j;
        if (i >= n || i >= border) continue;
        buf_put(out, "\xEF\xBF\xBD", 3);
        i += utf8_bad_run(text + i, n - i);
    }
    for (; k < 2 * n_spans; k++) *(k & 1 ? &moved[k / 2].end : &moved[k / 2].start) = out->len;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t n, bool special,
                     const text_span *closed, size_t n_closed, token_list *out, err *e)
{
    encoder en = {.t = t, .special = special, .closed = closed, .n_closed = n_closed, .out = out};
    buf fixed = {0};
    text_span *moved = NULL;
    int r = 0;
    if (!utf8_valid(text, n)) {
        moved = n_closed ? malloc(n_closed * sizeof *moved) : NULL;
        if (n_closed && !moved) r = ERR_NOMEM;
        else repair(text, n, closed, n_closed, moved, &fixed);
        if (!buf_ok(&fixed)) r = ERR_NOMEM;
        text = buf_str(&fixed);
        n = fixed.len;
        en.closed = moved;
    }
    en.text = text;
    if (r == 0) r = cut_added(&en, &t->added.raw, text, n, encode_stretch);
    if (r) err_set(e, r, "tokenising %zu bytes: %s", n, err_words(r));
    pretok_scratch_clear(&en.pre);
    bpe_scratch_clear(&en.merge);
    buf_clear(&en.norm);
    free(en.edit_list.v);
    free(moved);
    buf_clear(&fixed);
    return r;
}

/* ---- decoding and lookups ---- */

const char *tokenizer_piece(const tokenizer *t, int32_t id, size_t *n)
{
    const added_token *a = added_by_id(&t->added, id);
    if (!a) return bpe_piece(&t->vocab, id, n);
    *n = a->len;
    return a->text;
}

bool tokenizer_is_special(const tokenizer *t, int32_t id)
{
    const added_token *a = added_by_id(&t->added, id);
    return a && a->special;
}

bool tokenizer_is_added(const tokenizer *t, int32_t id)
{
    return added_by_id(&t->added, id) != NULL;
}

int tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special, buf *out,
                     err *e)
{
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *piece = tokenizer_piece(t, ids[i], &len);
        if (!piece)
            return err_set(e, ERR_INVALID, "token id %d is not in the vocabulary (0 to %d)", ids[i],
                           tokenizer_n_vocab(t) - 1);
        if (!skip_special || !tokenizer_is_special(t, ids[i])) buf_put(out, piece, len);
    }
    return buf_ok(out) ? 0 : err_set(e, ERR_NOMEM, "out of memory for the text of %zu tokens", n);
}

int32_t tokenizer_n_vocab(const tokenizer *t)
{
    int32_t n = t->vocab.n_ids;
    if (t->added.n && t->added.by_id[t->added.n - 1]->id >= n)
        n = t->added.by_id[t->added.n - 1]->id + 1;
    return n;
}

int32_t tokenizer_id(const tokenizer *t, const char *token)
{
    size_t n = strlen(token);
    const added_token *a = added_by_text(&t->added, token, n);
    return a ? a->id : n ? bpe_find(&t->vocab, token, n) : -1;
}

int32_t tokenizer_eos(const tokenizer *t)
{
    return t->eos;
}

int32_t tokenizer_bos(const tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_pad(const tokenizer *t)
{
    return t->pad;
}

const char *tokenizer_chat_template(const tokenizer *t, size_t *n)
{
    if (!t->has_chat_template) return NULL;
    *n = t->chat_template.len;
    return buf_str(&t->chat_template);
}

const char *tokenizer_rerank_template(const tokenizer *t, size_t *n)
{
    if (!t->has_rerank_template) return NULL;
    *n = t->rerank_template.len;
    return buf_str(&t->rerank_template);
}

const char *tokenizer_bos_text(const tokenizer *t)
{
    return buf_str(&t->bos_text);
}

const char *tokenizer_eos_text(const tokenizer *t)
{
    return buf_str(&t->eos_text);
}
