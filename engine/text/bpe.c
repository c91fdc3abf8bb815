/* bpe.c - see bpe.h.  Tokens are kept as their true bytes, so that encoding never touches the byte
 * alphabet: a piece of text is looked up as it stands, and only if that fails is it merged.
 * Short pieces merge by scanning for the lowest rank, long ones with a heap; both apply the lowest
 * rank first and, among equal ranks, the leftmost pair, which is the order of Hugging Face. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/text/bpe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NO_TOKEN UINT32_MAX
#define NO_RANK ((1u << 22) - 1) /* the rank bits of a free pair */
#define MAX_TOKEN_BYTES 65535
#define AHEAD 16
/* Does a token's text merge into that token? */
enum { WHOLE_UNKNOWN, WHOLE_YES, WHOLE_NO };
/* Up to here a linear scan beats the heap (measured on random letters). */
#define SHORT_PIECE 48

/* Byte that a character of GPT-2's alphabet stands for: printable Latin-1 stands for itself, the
 * other 68 bytes follow from U+0100 in rising order.  -1: not in the alphabet. */
static int byte_of_char(uint32_t cp)
{
    if ((cp >= 33 && cp <= 126) || (cp >= 161 && cp <= 172) || (cp >= 174 && cp <= 255))
        return (int)cp;
    if (cp < 256 || cp >= 256 + 68) return -1;
    int k = (int)cp - 256;
    if (k < 33) return k;
    if (k < 67) return 127 + k - 33;
    return 173;
}

/* Spells text[n] in bytes at the end of out.  False (and out unchanged) outside the alphabet, all
 * of whose characters have one or two bytes. */
static bool put_bytes(buf *out, const char *text, size_t n)
{
    if (!buf_reserve(out, n)) return false;
    char *to = out->v + out->len;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i], next;
        int byte = -1;
        if (c < 0x80) {
            byte = byte_of_char(c);
        } else if (c >= 0xC2 && c < 0xE0 && i + 1 < n) {
            next = (unsigned char)text[++i];
            if ((next & 0xC0) == 0x80) byte = byte_of_char((c & 31u) << 6 | (next & 63u));
        }
        if (byte < 0) return false;
        *to++ = (char)byte;
    }
    out->len = (size_t)(to - out->v);
    *to = 0;
    return true;
}

/* At most two thirds full: smaller tables miss the cache less, which outweighs longer probes. */
static size_t table_size(size_t n)
{
    size_t cap = 64;
    while (cap < n + n / 2) cap *= 2;
    return cap;
}

int bpe_init(bpe *b, size_t n_tokens, size_t n_merges, err *e)
{
    *b = (bpe){0};
    if (n_tokens > BPE_MAX_IDS || n_merges > BPE_MAX_MERGES)
        return err_set(e, ERR_LIMIT, "vocabulary of %zu tokens and %zu merges; at most %d and %d",
                       n_tokens, n_merges, BPE_MAX_IDS, BPE_MAX_MERGES);
    size_t slots = table_size(n_tokens), pairs = table_size(n_merges);
    b->slot = malloc(slots * sizeof *b->slot);
    b->pair = malloc(pairs * sizeof *b->pair);
    b->merged = malloc((n_merges + 1) * sizeof *b->merged);
    b->merge = calloc(n_merges + 1, sizeof *b->merge);
    if (!b->slot || !b->pair || !b->merged || !b->merge) {
        bpe_clear(b);
        return err_set(e, ERR_NOMEM, "out of memory for a vocabulary of %zu tokens", n_tokens);
    }
    memset(b->slot, 0xFF, slots * sizeof *b->slot);
    memset(b->pair, 0xFF, pairs * sizeof *b->pair);
    b->slot_mask = slots - 1;
    b->pair_mask = pairs - 1;
    b->n_merges = (uint32_t)n_merges;
    memset(b->byte_id, 0xFF, sizeof b->byte_id);
    return 0;
}

void bpe_clear(bpe *b)
{
    buf_clear(&b->bytes);
    buf_clear(&b->parts);
    free(b->merge);
    free(b->span);
    free(b->slot);
    free(b->pair);
    free(b->merged);
    free(b->whole);
    *b = (bpe){0};
}

/* Room for ids below need. */
static bool grow_ids(bpe *b, int32_t need)
{
    if (need <= b->cap) return true;
    int32_t cap = b->cap ? b->cap : 4096;
    while (cap < need) cap *= 2;
    bpe_span *span = realloc(b->span, (size_t)cap * sizeof *span);
    if (span) b->span = span;
    unsigned char *whole = realloc(b->whole, (size_t)cap);
    if (whole) b->whole = whole;
    if (!span || !whole) return false;
    memset(span + b->cap, 0xFF, (size_t)(cap - b->cap) * sizeof *span);
    memset(whole + b->cap, WHOLE_UNKNOWN, (size_t)(cap - b->cap));
    b->cap = cap;
    return true;
}

static uint32_t hash_bytes(const char *s, size_t n)
{
    return (uint32_t)XXH3_64bits(s, n);
}

/* Slot of s[n], or the free slot where it belongs. */
static bpe_slot *find_slot(const bpe *b, const char *s, size_t n, uint32_t h)
{
    for (size_t i = h & b->slot_mask;; i = (i + 1) & b->slot_mask) {
        bpe_slot *p = &b->slot[i];
        if (p->id < 0) return p;
        if (p->hash != h) continue;
        bpe_span t = b->span[p->id];
        if (t.len == n && !memcmp(b->bytes.v + t.off, s, n)) return p;
    }
}

int bpe_add(bpe *b, int64_t id, const char *text, size_t n, err *e)
{
    int shown = n > 64 ? 64 : (int)n;
    if (id < 0 || id >= BPE_MAX_IDS)
        return err_set(e, ERR_FORMAT, "token \"%.*s\" has id %lld; ids from 0 to %d are accepted",
                       shown, text, (long long)id, BPE_MAX_IDS - 1);
    if (!n || n > MAX_TOKEN_BYTES)
        return err_set(e, ERR_FORMAT, "token %lld has %zu bytes; 1 to %d are accepted",
                       (long long)id, n, MAX_TOKEN_BYTES);
    int32_t i = (int32_t)id;
    if (!grow_ids(b, i + 1)) return err_set(e, ERR_NOMEM, "out of memory for token %d", i);
    if (b->span[i].len != NO_TOKEN)
        return err_set(e, ERR_FORMAT, "two tokens have id %d; the second is \"%.*s\"", i, shown,
                       text);
    size_t start = b->bytes.len;
    bool spelled = put_bytes(&b->bytes, text, n);
    if (!spelled) buf_put(&b->bytes, text, n);
    if (!buf_ok(&b->bytes) || b->bytes.len > UINT32_MAX / 2)
        return err_set(e, ERR_NOMEM, "out of memory for token %d", i);
    b->span[i] = (bpe_span){(uint32_t)start, (uint32_t)(b->bytes.len - start)};
    if (i >= b->n_ids) b->n_ids = i + 1;
    if (!spelled) b->whole[i] = WHOLE_NO;
    return 0;
}

int bpe_add_merge(bpe *b, uint32_t rank, const char *left, size_t n_left, const char *right,
                  size_t n_right, err *e)
{
    assert(rank < b->n_merges);
    size_t start = b->parts.len;
    bool spelled = n_left <= MAX_TOKEN_BYTES && n_right <= MAX_TOKEN_BYTES &&
                   put_bytes(&b->parts, left, n_left);
    size_t mid = b->parts.len;
    spelled = spelled && put_bytes(&b->parts, right, n_right);
    if (!buf_ok(&b->parts) || b->parts.len > UINT32_MAX / 2)
        return err_set(e, ERR_NOMEM, "out of memory for the merges");
    if (!spelled || mid == start || b->parts.len == mid)
        return err_set(
            e, ERR_FORMAT, "merge %u, \"%.*s %.*s\": a part is no token of a byte-level vocabulary",
            rank, n_left > 64 ? 64 : (int)n_left, left, n_right > 64 ? 64 : (int)n_right, right);
    b->merge[rank] =
        (bpe_merge){(uint32_t)start, (uint16_t)(mid - start), (uint16_t)(b->parts.len - mid)};
    return 0;
}

/* ---- the tables ----
 * Both are far larger than the nearest caches, so what is needed AHEAD steps later is fetched now.
 */

static bool is_ordinary(const bpe *b, int32_t id)
{
    return id >= 0 && id < b->n_ids && b->span[id].len != NO_TOKEN && b->whole[id] != WHOLE_NO;
}

static int index_tokens(bpe *b, err *e)
{
    uint32_t hash[AHEAD];
    size_t used = 0;
    for (int32_t i = 0; i < b->n_ids + AHEAD; i++) {
        int32_t id = i - AHEAD;
        if (is_ordinary(b, id)) {
            bpe_span t = b->span[id];
            bpe_slot *p = find_slot(b, b->bytes.v + t.off, t.len, hash[i % AHEAD]);
            if (p->id >= 0)
                return err_set(e, ERR_FORMAT, "tokens %d and %d have the same text", p->id, id);
            *p = (bpe_slot){hash[i % AHEAD], id};
            used++;
            assert(used < b->slot_mask); /* no more tokens than announced: a search must end */
        }
        if (!is_ordinary(b, i)) continue;
        hash[i % AHEAD] = hash_bytes(b->bytes.v + b->span[i].off, b->span[i].len);
        __builtin_prefetch(&b->slot[hash[i % AHEAD] & b->slot_mask]);
    }
    for (int c = 0; c < 256; c++) {
        char byte = (char)c;
        b->byte_id[c] = bpe_find(b, &byte, 1);
        if (b->byte_id[c] < 0)
            return err_set(
                e, ERR_UNSUPPORTED,
                "the vocabulary has no token for the byte 0x%02X; only complete byte-level BPE "
                "vocabularies are supported",
                (unsigned)c);
    }
    return 0;
}

/* Slot of a pair, or the free slot where it belongs.  The multiplier is 2^64 / golden ratio. */
static uint64_t *find_pair(const bpe *b, uint32_t left, uint32_t right)
{
    uint64_t key = (uint64_t)left << 21 | right, h = key * UINT64_C(0x9E3779B97F4A7C15);
    for (size_t i = (h >> 32 ^ h >> 52) & b->pair_mask;; i = (i + 1) & b->pair_mask) {
        uint64_t *p = &b->pair[i];
        if (*p >> 22 == key || *p == UINT64_MAX) return p;
    }
}

static uint32_t pair_rank(const bpe *b, uint32_t left, uint32_t right)
{
    return *find_pair(b, left, right) & NO_RANK;
}

/* What merge number rank makes.  Most vocabularies number merges as they number tokens, so the
 * token after the last one is tried first: it lies in the cache. */
static int32_t find_result(const bpe *b, uint32_t rank, const char *s, size_t n)
{
    int32_t guess = rank ? (int32_t)b->merged[rank - 1] + 1 : -1;
    if (is_ordinary(b, guess) && b->span[guess].len == n &&
        !memcmp(b->bytes.v + b->span[guess].off, s, n))
        return guess;
    return bpe_find(b, s, n);
}

static int add_pair(bpe *b, uint32_t rank, uint32_t hash_left, uint32_t hash_right, err *e)
{
    bpe_merge m = b->merge[rank];
    const char *s = b->parts.v + m.off;
    int32_t l = find_slot(b, s, m.n_left, hash_left)->id,
            r = find_slot(b, s + m.n_left, m.n_right, hash_right)->id;
    int32_t both = find_result(b, rank, s, (size_t)m.n_left + m.n_right);
    if (l < 0 || r < 0 || both < 0)
        return err_set(e, ERR_FORMAT, "merge %u: %s is not in the vocabulary", rank,
                       l < 0   ? "the left part"
                       : r < 0 ? "the right part"
                               : "the result");
    *find_pair(b, (uint32_t)l, (uint32_t)r) = (uint64_t)l << 43 | (uint64_t)r << 22 | rank;
    b->merged[rank] = (uint32_t)both;
    return 0;
}

static int index_merges(bpe *b, uint32_t n, err *e)
{
    struct {
        uint32_t left, right;
    } hash[AHEAD];
    int r = 0;
    for (uint32_t i = 0; i < n + AHEAD && r == 0; i++) {
        if (i >= AHEAD) r = add_pair(b, i - AHEAD, hash[i % AHEAD].left, hash[i % AHEAD].right, e);
        if (i >= n) continue;
        bpe_merge m = b->merge[i];
        hash[i % AHEAD].left = hash_bytes(b->parts.v + m.off, m.n_left);
        hash[i % AHEAD].right = hash_bytes(b->parts.v + m.off + m.n_left, m.n_right);
        __builtin_prefetch(&b->slot[hash[i % AHEAD].left & b->slot_mask]);
        __builtin_prefetch(&b->slot[hash[i % AHEAD].right & b->slot_mask]);
    }
    return r;
}

int bpe_seal(bpe *b, err *e)
{
    uint32_t n = 0; /* fewer than announced if the file had blank lines */
    while (n < b->n_merges && b->merge[n].n_left) n++;
    int r = index_tokens(b, e);
    if (r == 0) r = index_merges(b, n, e);
    free(b->merge);
    b->merge = NULL;
    buf_clear(&b->parts);
    return r;
}

int32_t bpe_find(const bpe *b, const char *s, size_t n)
{
    return find_slot(b, s, n, hash_bytes(s, n))->id;
}

const char *bpe_piece(const bpe *b, int32_t id, size_t *n)
{
    if (id < 0 || id >= b->n_ids || b->span[id].len == NO_TOKEN) return NULL;
    *n = b->span[id].len;
    return b->bytes.v + b->span[id].off;
}

void bpe_scratch_clear(bpe_scratch *w)
{
    free(w->id);
    free(w->heap);
    *w = (bpe_scratch){0};
}

/* The four symbol arrays lie in one block, id first. */
static bool scratch_reserve(bpe_scratch *w, size_t n)
{
    if (n <= w->cap) return true;
    size_t cap = w->cap ? w->cap : 256;
    while (cap < n) cap *= 2;
    bpe_scratch_clear(w);
    w->id = malloc(cap * 4 * sizeof *w->id);
    w->heap = malloc(cap * 3 * sizeof *w->heap);
    if (!w->id || !w->heap) {
        bpe_scratch_clear(w);
        return false;
    }
    w->next = w->id + cap;
    w->prev = w->id + 2 * cap;
    w->rank = w->id + 3 * cap;
    w->cap = cap;
    return true;
}

/* Merges s[n], n <= SHORT_PIECE, into id[]; returns how many are left. */
static size_t merge_short(const bpe *b, const char *s, size_t n, uint32_t *id)
{
    uint32_t rank[SHORT_PIECE]; /* [n - 1] of the pair (i, i + 1) */
    for (size_t i = 0; i < n; i++) id[i] = (uint32_t)b->byte_id[(unsigned char)s[i]];
    for (size_t i = 0; i + 1 < n; i++) rank[i] = pair_rank(b, id[i], id[i + 1]);
    while (n > 1) {
        size_t at = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[at]) at = i;
        if (rank[at] == NO_RANK) break;
        id[at] = b->merged[rank[at]];
        n--;
        memmove(id + at + 1, id + at + 2, (n - at - 1) * sizeof *id);
        if (at + 1 < n) memmove(rank + at, rank + at + 1, (n - at - 1) * sizeof *rank);
        if (at + 1 < n) rank[at] = pair_rank(b, id[at], id[at + 1]);
        if (at > 0) rank[at - 1] = pair_rank(b, id[at - 1], id[at]);
    }
    return n;
}

static void heap_push(bpe_scratch *w, uint64_t v)
{
    size_t i = w->n_heap++;
    for (; i; i = (i - 1) / 2) {
        uint64_t up = w->heap[(i - 1) / 2];
        if (up <= v) break;
        w->heap[i] = up;
    }
    w->heap[i] = v;
}

static uint64_t heap_pop(bpe_scratch *w)
{
    uint64_t top = w->heap[0], v = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < w->n_heap; i = c) {
        if (c + 1 < w->n_heap && w->heap[c + 1] < w->heap[c]) c++;
        if (w->heap[c] >= v) break;
        w->heap[i] = w->heap[c];
    }
    w->heap[i] = v;
    return top;
}

/* Ranks the pair that starts at symbol i anew. */
static void rank_pair(const bpe *b, bpe_scratch *w, uint32_t i, uint32_t n)
{
    uint32_t j = w->next[i];
    w->rank[i] = j < n ? pair_rank(b, w->id[i], w->id[j]) : NO_RANK;
    if (w->rank[i] != NO_RANK) heap_push(w, (uint64_t)w->rank[i] << 32 | i);
}

/* Merges s[n] of any length with a heap.  Every merge removes a symbol and pushes at most two
 * pairs, so 3n entries are enough.  A popped entry counts only if its symbol still has that rank.
 */
static void merge_long(const bpe *b, const char *s, uint32_t n, bpe_scratch *w)
{
    w->n_heap = 0;
    for (uint32_t i = 0; i < n; i++) {
        w->id[i] = (uint32_t)b->byte_id[(unsigned char)s[i]];
        w->next[i] = i + 1;
        w->prev[i] = i - 1; /* wraps to UINT32_MAX at the start */
    }
    for (uint32_t i = 0; i < n; i++) rank_pair(b, w, i, n);
    while (w->n_heap) {
        uint64_t top = heap_pop(w);
        uint32_t i = (uint32_t)top, j;
        if (w->rank[i] != (uint32_t)(top >> 32)) continue;
        j = w->next[i];
        w->id[i] = b->merged[w->rank[i]];
        w->rank[j] = NO_RANK;
        w->next[i] = w->next[j];
        if (w->next[i] < n) w->prev[w->next[i]] = i;
        rank_pair(b, w, i, n);
        if (w->prev[i] < n) rank_pair(b, w, w->prev[i], n);
    }
}

static int push(token_list *out, uint32_t id)
{
    return token_list_push(out, (int32_t)id) ? 0 : ERR_NOMEM;
}

/* The merge loop proper, whole-piece lookup aside. */
static int merge_piece(const bpe *b, const char *s, size_t n, bpe_scratch *w, token_list *out)
{
    if (n <= SHORT_PIECE) {
        uint32_t id[SHORT_PIECE];
        size_t left = merge_short(b, s, n, id);
        for (size_t i = 0; i < left; i++)
            if (push(out, id[i])) return ERR_NOMEM;
        return 0;
    }
    if (n >= INT32_MAX) return ERR_LIMIT;
    if (!scratch_reserve(w, n)) return ERR_NOMEM;
    merge_long(b, s, (uint32_t)n, w);
    for (uint32_t i = 0; i < n; i = w->next[i])
        if (push(out, w->id[i])) return ERR_NOMEM;
    return 0;
}

int bpe_encode(const bpe *b, const char *s, size_t n, bpe_scratch *w, token_list *out)
{
    if (n == 1) return push(out, (uint32_t)b->byte_id[(unsigned char)*s]);
    int32_t id = bpe_find(b, s, n);
    if (id < 0) return merge_piece(b, s, n, w, out);
    if (b->ignore_merges) return push(out, (uint32_t)id);
    /* A token's text usually merges into that token, but nothing in the file promises it: the
     * first time, merge and remember. */
    unsigned char known = __atomic_load_n(&b->whole[id], __ATOMIC_RELAXED);
    if (known == WHOLE_YES) return push(out, (uint32_t)id);
    size_t before = out->n;
    int r = merge_piece(b, s, n, w, out);
    if (r == 0 && known == WHOLE_UNKNOWN) {
        bool same = out->n == before + 1 && out->v[before] == id;
        __atomic_store_n(&b->whole[id], same ? WHOLE_YES : WHOLE_NO, __ATOMIC_RELAXED);
    }
    return r;
}
