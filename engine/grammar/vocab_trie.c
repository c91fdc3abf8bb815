/* vocab_trie.c - a flat trie of tokens.
 * Owns nothing.  Refuses 2^24 nodes.  Thread: the builder's. */
#include "engine/grammar/vocab_impl.h"

static int by_bytes(const void *a, const void *b, void *arg)
{
    const grammar_vocab *v = arg;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    uint32_t nx = v->at[x + 1] - v->at[x], ny = v->at[y + 1] - v->at[y];
    int c = memcmp(v->bytes + v->at[x], v->bytes + v->at[y], nx < ny ? nx : ny);
    if (c) return c;
    if (nx != ny) return nx < ny ? -1 : 1;
    return (x > y) - (x < y);
}

void vocab_sort(const grammar_vocab *v, uint32_t *ids, uint32_t n)
{
    if (n) qsort_r(ids, n, sizeof *ids, by_bytes, (void *)v);
}

int trie_build(trie *out, const grammar_vocab *v, const uint32_t *ids, uint32_t n,
               vocab_twin_list *twins)
{
    VEC(trie_node) t = {0};
    uint32_t open[VOCAB_MAX_BYTES + 1] = {0}, depth = 0; /* nodes from the root to the last token */
    const uint8_t *last = NULL;
    int rc = 0;
    VEC_PUSH(&rc, t, (trie_node){TRIE_NO_TOKEN << 8, 0});
    for (uint32_t i = 0; i <= n && !rc; i++) {
        const uint8_t *s = i < n ? v->bytes + v->at[ids[i]] : NULL;
        uint32_t len = i < n ? v->at[ids[i] + 1] - v->at[ids[i]] : 0, common = 0;
        while (common < depth && common < len && s[common] == last[common]) common++;
        for (uint32_t d = depth; d > common; d--)
            t.p[open[d]].size_depth = (t.n - open[d]) << 8 | d;
        for (uint32_t d = common; d < len && !rc; d++) {
            open[d + 1] = t.n;
            VEC_PUSH(&rc, t, (trie_node){TRIE_NO_TOKEN << 8 | s[d], d + 1});
        }
        if (t.n >= 1u << 24) rc = ERR_LIMIT;
        if (rc || i == n) break;
        trie_node *x = &t.p[open[len]];
        if (x->tok_byte >> 8 == TRIE_NO_TOKEN) x->tok_byte = ids[i] << 8 | (x->tok_byte & 255);
        else if (twins) VEC_PUSH(&rc, *twins, (vocab_twin){x->tok_byte >> 8, ids[i]});
        depth = len;
        last = s;
    }
    if (rc) {
        free(t.p);
        return rc;
    }
    t.p[0].size_depth = t.n << 8;
    *out = (trie){t.p, t.n};
    return 0;
}
