/* shard.c - see shard.h.  Owns nothing.  Thread: any. */
#include "engine/shard.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

typedef enum { FITS, NO_HEADS, NO_KV_HEADS, NO_O_BLOCKS, NO_FF, NO_VOCAB } verdict;

static int64_t blocks_of(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit;
}

static verdict judge(const model_config *c, shard_units u, int64_t world)
{
    if (world == 1) return FITS;
    if (c->heads % world) return NO_HEADS;
    if (c->kv_heads % world && world % c->kv_heads) return NO_KV_HEADS;
    if (c->heads / world * c->head_dim % u.q) return NO_O_BLOCKS;
    if (blocks_of(c->ff, u.ff) < world) return NO_FF;
    return c->vocab < world ? NO_VOCAB : FITS;
}

/* "1, 2, 4" */
static void list_sizes(const model_config *c, shard_units u, char *out, size_t size)
{
    size_t n = 0;
    *out = 0;
    for (int w = 1; w <= SHARD_MAX_RANKS && n < size; w++)
        if (judge(c, u, w) == FITS)
            n += (size_t)snprintf(out + n, size - n, "%s%d", n ? ", " : "", w);
}

int shard_check(const model_config *c, shard_units u, int world, err *e)
{
    char sizes[160], why[160] = "";
    if (world < 1 || world > SHARD_MAX_RANKS)
        return err_set(e, ERR_INVALID, "--tensor-parallel-size %d: 1 to %d ranks are supported",
                       world, SHARD_MAX_RANKS);
    long long heads = c->heads, kv = c->kv_heads, per = heads / world;
    switch (judge(c, u, world)) {
    case FITS: return 0;
    case NO_HEADS:
        snprintf(why, sizeof why, "%lld attention heads cannot be divided evenly", heads);
        break;
    case NO_KV_HEADS:
        snprintf(why, sizeof why,
                 "%lld key heads can be neither divided evenly nor held by equally many ranks each",
                 kv);
        break;
    case NO_O_BLOCKS:
        snprintf(why, sizeof why,
                 "%lld heads of %lld a rank are not whole blocks of %d, in which o_proj is stored",
                 per, (long long)c->head_dim, u.q);
        break;
    case NO_FF:
        snprintf(why, sizeof why,
                 "intermediate_size %lld has only %lld blocks of %d, in which down_proj is stored",
                 (long long)c->ff, (long long)blocks_of(c->ff, u.ff), u.ff);
        break;
    default: snprintf(why, sizeof why, "the vocabulary has only %lld rows", (long long)c->vocab);
    }
    list_sizes(c, u, sizes, sizeof sizes);
    return err_set(e, ERR_UNSUPPORTED, "--tensor-parallel-size %d: %s; this model allows %s", world,
                   why, sizes);
}

/* Share `rank` of n elements in units, the first ranks one unit more; the last unit may be short.
 */
static shard_span share(int64_t n, int64_t unit, int world, int rank)
{
    int64_t units = blocks_of(n, unit), each = units / world, more = units % world;
    int64_t from = unit * (each * rank + (rank < more ? rank : more));
    int64_t to = from + unit * (each + (rank < more));
    return (shard_span){from, (to < n ? to : n) - from};
}

/* Coarse where that leaves every rank something; small vocabularies are cut finer. */
static int64_t vocab_unit(const model_config *c, int world)
{
    return blocks_of(c->vocab, VOCAB_UNIT) >= world ? VOCAB_UNIT : 1;
}

shard shard_make(const model_config *c, shard_units u, int world, int rank)
{
    assert(rank >= 0 && rank < world && judge(c, u, world) == FITS);
    int64_t d = c->head_dim, heads = c->heads / world;
    int64_t kv = c->kv_heads > world ? c->kv_heads / world : 1;
    if (world == 1) kv = c->kv_heads;
    shard s = {.world = world, .rank = rank, .heads = heads, .kv_heads = kv};
    s.q = (shard_span){heads * rank * d, heads * d};
    s.kv = (shard_span){c->kv_heads * rank / world * d, kv * d};
    s.ff = share(c->ff, u.ff, world, rank);
    s.vocab = share(c->vocab, vocab_unit(c, world), world, rank);
    return s;
}

static shard_span span_of(const shard *s, const model_config *c, dim d)
{
    switch (d) {
    case DIM_Q: return s->q;
    case DIM_KV: return s->kv;
    case DIM_FF: return s->ff;
    case DIM_VOCAB: return s->vocab;
    default: return (shard_span){0, dim_value(c, d)};
    }
}

void shard_cut(const shard *s, const model_config *c, const rule *r, shard_span *rows,
               shard_span *cols)
{
    *rows = (shard_span){0, dim_value(c, r->shape[0])};
    *cols = (shard_span){0, dim_value(c, r->shape[1])};
    if (r->cut == SPLIT_IN) *cols = span_of(s, c, r->shape[1]);
    else if (r->cut != SPLIT_NONE) *rows = span_of(s, c, r->shape[0]);
}

void shard_vocab(const model_config *c, int world, int32_t *start)
{
    for (int r = 0; r < world; r++)
        start[r] = (int32_t)share(c->vocab, vocab_unit(c, world), world, r).at;
    start[world] = (int32_t)c->vocab;
}
