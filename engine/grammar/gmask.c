/* gmask.c - which tokens may come next, exactly: the trie walked with the automaton.
 * Owns nothing.  Ends early when the automaton's status says so.  Thread: any, under the grammar's
 * lock. */
#include "engine/grammar/gmatch_impl.h"

static void set_bit(uint32_t *bits, uint32_t id)
{
    bits[id >> 5] |= 1u << (id & 31);
}

/* Tokens of a subtree [i, end) that configuration c, reached at depth - 1, can take. */
void gmask_walk(gram *g, uint32_t c, const trie *t, uint32_t i, uint32_t end, uint32_t *bits)
{
    uint32_t at[VOCAB_MAX_BYTES + 1];
    if (i >= end) return;
    at[(t->node[i].size_depth & 255) - 1] = c;
    while (i < end) {
        trie_node x = t->node[i];
        uint32_t depth = x.size_depth & 255, d = gram_step(g, at[depth - 1], x.tok_byte & 255);
        if (!d) {
            if (g->r.status) return;
            i += x.size_depth >> 8;
            continue;
        }
        if (x.tok_byte >> 8 != TRIE_NO_TOKEN) set_bit(bits, x.tok_byte >> 8);
        at[depth] = d;
        i++;
    }
}

/* Tokens that the grammar names by id. */
static void named_tokens(gram *g, const grammar_vocab *v, uint32_t c, uint32_t *bits)
{
    uint32_t rows = (uint32_t)v->rows, hi = gram_step(g, c, VOCAB_NAMED);
    for (uint32_t a = 0; hi && a << 16 < rows; a++) {
        uint32_t mid = gram_step(g, hi, (uint8_t)a);
        for (uint32_t b = 0; mid && b < 256 && (a << 16 | b << 8) < rows; b++) {
            uint32_t low = gram_step(g, mid, (uint8_t)b);
            for (uint32_t k = 0; low && k < 256; k++) {
                uint32_t id = a << 16 | b << 8 | k;
                if (id < rows && gram_step(g, low, (uint8_t)k)) set_bit(bits, id);
            }
        }
    }
}

/* What no walk finds: end tokens, tokens named by id, second tokens of the same bytes. */
void gmask_finish(gram *g, const grammar_vocab *v, uint32_t c, uint32_t *bits)
{
    for (uint32_t i = 0; i < v->twins.n; i++)
        if (bits[v->twins.p[i].id >> 5] >> (v->twins.p[i].id & 31) & 1)
            set_bit(bits, v->twins.p[i].twin);
    for (uint32_t i = 0; i < v->n_end; i++)
        if (c == AT_END || g->configs.p[c].accept) set_bit(bits, v->end_ids[i]);
    if (c != AT_END) named_tokens(g, v, c, bits);
}

void gmask_plain(gram *g, const grammar_vocab *v, uint32_t c, uint32_t *bits)
{
    memset(bits, 0, v->words * sizeof *bits);
    if (c != AT_END) gmask_walk(g, c, &v->full, 1, v->full.n, bits);
    if (!g->r.status) gmask_finish(g, v, c, bits);
}
