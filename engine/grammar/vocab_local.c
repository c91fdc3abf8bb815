/* vocab_local.c - the local masks all grammars of a vocabulary share, found by the shape of their
 * expression.
 * Owns one reference to each.  Forgets all of them when they hold too much memory.  Thread: any. */
#include "engine/grammar/vocab_impl.h"

enum { SHARED_BYTES = 32 << 20, BUCKETS = 256 };

size_t local_mask_bytes(const local_mask *l, uint32_t words)
{
    return sizeof *l + ((size_t)l->n_tok + l->n_esc + (l->bits ? words : 0)) * sizeof(uint32_t);
}

void local_mask_release(local_mask *l)
{
    if (!l || atomic_fetch_sub(&l->refs, 1) > 1) return;
    free(l->bits);
    free(l->tok);
    free(l->esc);
    free(l);
}

static local_mask *find(grammar_vocab *v, shape of)
{
    local_mask *l = v->shared[of.w[0] % BUCKETS];
    while (l && memcmp(&l->of, &of, sizeof of)) l = l->next;
    if (l) atomic_fetch_add(&l->refs, 1);
    return l;
}

local_mask *vocab_local_get(const grammar_vocab *cv, shape of)
{
    grammar_vocab *v = (grammar_vocab *)cv; /* const but for what the lock is for */
    pthread_mutex_lock(&v->lock);
    local_mask *l = find(v, of);
    pthread_mutex_unlock(&v->lock);
    return l;
}

void vocab_local_clear(grammar_vocab *v)
{
    for (uint32_t b = 0; b < BUCKETS; b++) {
        local_mask *l = v->shared[b];
        v->shared[b] = NULL;
        while (l) {
            local_mask *next = l->next;
            local_mask_release(l);
            l = next;
        }
    }
    v->shared_bytes = 0;
}

local_mask *vocab_local_put(const grammar_vocab *cv, local_mask *l)
{
    grammar_vocab *v = (grammar_vocab *)cv;
    pthread_mutex_lock(&v->lock);
    local_mask *first = find(v, l->of);
    if (!first) {
        size_t bytes = local_mask_bytes(l, v->words);
        if (v->shared_bytes + bytes > SHARED_BYTES) vocab_local_clear(v);
        v->shared_bytes += bytes;
        l->next = v->shared[l->of.w[0] % BUCKETS];
        v->shared[l->of.w[0] % BUCKETS] = l;
        atomic_fetch_add(&l->refs, 1);
    }
    pthread_mutex_unlock(&v->lock);
    if (!first) return l;
    local_mask_release(l);
    return first;
}
