/* vocab.c - the table of tokens a grammar may draw.
 * Owns copies of their bytes.  Refuses more than 2^24 rows.  Thread: the builder's. */
#include "engine/grammar/vocab_impl.h"

enum { UTF8_BYTES = 256 - 13 }; /* that occur in UTF-8 */

/* Whether a token is text that a grammar can spell. */
static bool spelled(const char *s, size_t n)
{
    return s && n && n <= VOCAB_MAX_BYTES && !memchr(s, VOCAB_NAMED, n);
}

static int copy_tokens(grammar_vocab *v, const tokenizer *t)
{
    int32_t known = tokenizer_n_vocab(t);
    size_t total = 0, n;
    v->at = calloc((size_t)v->rows + 1, sizeof *v->at);
    if (!v->at) return ERR_NOMEM;
    for (int32_t id = 0; id < v->rows; id++) {
        const char *s = id < known && !tokenizer_is_special(t, id) && !vocab_is_end(v, id)
                            ? tokenizer_piece(t, id, &n)
                            : NULL;
        v->at[id] = (uint32_t)total;
        if (s && spelled(s, n)) total += n;
    }
    v->at[v->rows] = (uint32_t)total;
    v->bytes = malloc(total ? total : 1);
    if (!v->bytes) return ERR_NOMEM;
    for (int32_t id = 0; id < v->rows; id++) {
        uint32_t len = v->at[id + 1] - v->at[id];
        if (!len) continue;
        memcpy(v->bytes + v->at[id], tokenizer_piece(t, id, &n), len);
        if (len > v->longest) v->longest = len;
    }
    return 0;
}

static int build(grammar_vocab *v)
{
    uint32_t n = 0, *ids = malloc(((size_t)v->rows + 1) * sizeof *ids), bytes = 0;
    if (!ids) return ERR_NOMEM;
    for (int32_t id = 0; id < v->rows; id++)
        if (v->at[id + 1] > v->at[id]) ids[n++] = (uint32_t)id;
    vocab_sort(v, ids, n);
    int rc = trie_build(&v->full, v, ids, n, &v->twins);
    if (!rc) rc = vocab_slices(v, ids, n);
    free(ids);
    for (uint32_t i = 1; !rc && i < v->full.n; i += v->full.node[i].size_depth >> 8) {
        uint8_t b = v->full.node[i].tok_byte & 255;
        bytes +=
            v->full.node[i].tok_byte >> 8 != TRIE_NO_TOKEN && b != 0xc0 && b != 0xc1 && b < 0xf5;
    }
    v->complete = bytes == UTF8_BYTES;
    return rc;
}

int grammar_vocab_new(const tokenizer *t, int32_t n_rows, const int32_t *end, int n_end,
                      grammar_vocab **out, err *e)
{
    static _Atomic uint64_t serial = 1;
    if (n_rows < 1 || n_rows >= 1 << 24)
        return err_set(e, ERR_LIMIT, "a vocabulary of %d rows; 1 to %d can be constrained", n_rows,
                       (1 << 24) - 1);
    grammar_vocab *v = calloc(1, sizeof *v);
    int rc = v ? 0 : ERR_NOMEM;
    if (!rc) {
        v->serial = atomic_fetch_add(&serial, 1);
        v->rows = n_rows;
        v->words = ((uint32_t)n_rows + 31) / 32;
        v->end_ids = malloc(((size_t)n_end + 1) * sizeof *v->end_ids);
        if (!v->end_ids) rc = ERR_NOMEM;
    }
    for (int i = 0; i < n_end && !rc; i++)
        if (end[i] >= 0 && end[i] < n_rows && !vocab_is_end(v, end[i]))
            v->end_ids[v->n_end++] = (uint32_t)end[i];
    if (!rc) rc = pthread_mutex_init(&v->lock, NULL) ? ERR_NOMEM : 0;
    if (rc) {
        if (v) free(v->end_ids);
        free(v);
        return err_set(e, ERR_NOMEM, "out of memory for the vocabulary");
    }
    rc = copy_tokens(v, t);
    if (!rc) rc = build(v);
    if (!rc) rc = vocab_warm(v);
    if (rc) {
        grammar_vocab_free(v);
        return err_set(e, rc,
                       rc == ERR_LIMIT ? "a vocabulary of more than 2^24 prefixes"
                                       : "out of memory for the vocabulary's trie");
    }
    *out = v;
    return 0;
}

void grammar_vocab_free(grammar_vocab *v)
{
    if (!v) return;
    free(v->at);
    free(v->bytes);
    free(v->end_ids);
    free(v->full.node);
    for (int a = 0; a < N_ALPHABETS; a++) {
        free(v->rest[a].node);
        free(v->slice[a]);
    }
    vocab_local_clear(v);
    pthread_mutex_destroy(&v->lock);
    free(v->twins.p);
    free(v);
}

int32_t grammar_vocab_rows(const grammar_vocab *v)
{
    return v->rows;
}

bool grammar_vocab_complete(const grammar_vocab *v)
{
    return v->complete;
}
