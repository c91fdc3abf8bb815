/* attention.h - private to kernels/cpu: how KV blocks are laid out and the pieces of attention that
 * exist once per instruction set.
 *
 * Head dims are padded with zeros to a multiple of 32 (`dim`).  A block of one KV head is 32
 * tokens, K then V, each `half` bytes: F32   K [dim][32 tok]              V [dim/32][32 tok][32]
 *   F16   K [dim][32 tok]              V [dim/32][32 tok][32]
 *   BF16  K [dim/2][32 tok][2]         V [dim/32][32 tok][32]
 *   Q8_0  K [dim/4][32 tok][4] u8 = q + 128, then f16 scale [dim/32][32 tok]
 *         V [dim/32][32 tok][32] i8, then f16 scale [dim/32][32 tok]
 * so lanes of K are tokens and scores need no sums across lanes.
 *
 * The context is cut into chunks of 256 absolute positions.  A chunk gives every query row a
 * maximum, a sum and an output; chunks are folded in order.  What happens to a row depends on its
 * position alone, so decode, prefill, any tile and any split over threads give the same bits.
 * Owns nothing; any thread. */
#ifndef QUERN_KERNELS_CPU_ATTENTION_H
#define QUERN_KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/cpu.h"

enum {
    ATTN_CHUNK = 256,
    ATTN_TILE = 16, /* most rows of a tile */
    ATTN_DIM = CPU_HEAD_DIM_MAX,
    /* Row lengths of a tile's scratch.  Constants, so that 14 rows need one pointer; not powers of
     * two, so that they do not share the sets of the L1. */
    ATTN_SCORES = ATTN_CHUNK + 16,
    ATTN_QUERY = ATTN_DIM + 16,
    ATTN_WORDS = ATTN_DIM / 2 + 16,
    ATTN_GROUPS = ATTN_DIM / 32
};

typedef struct {
    uint8_t *data;
    kv_type type;
    int kv_heads, dim;
    size_t half;
} kv_view;

static inline int kv_dim(int head_dim)
{
    return (head_dim + 31) & ~31;
}
static inline size_t kv_half_bytes(kv_type t, int dim)
{
    size_t per_dim = t == KV_F32 ? 128 : t == KV_Q8_0 ? 34 : 64; /* 32 tokens of one dim */
    return per_dim * (size_t)dim;
}
static inline kv_view kv_view_of(const kv_pages *p)
{
    int dim = kv_dim(p->head_dim);
    return (kv_view){p->data, p->type, p->kv_heads, dim, kv_half_bytes(p->type, dim)};
}
/* The K half of a block; V follows at + half. */
static inline uint8_t *kv_block(const kv_view *kv, int block, int head)
{
    return kv->data + ((size_t)block * (size_t)kv->kv_heads + (size_t)head) * 2 * kv->half;
}

/* A tile: query rows that meet one KV head together, with the scratch of one worker. */
typedef struct {
    int n;                                         /* rows */
    int pos[ATTN_TILE];                            /* position of each */
    _Alignas(64) float q[ATTN_TILE * ATTN_QUERY];  /* times log2(e) / sqrt(head_dim) */
    int32_t words[ATTN_TILE * ATTN_WORDS];         /* Q8_0: q as bytes, V_DOT_WORDS per 4 dims */
    float scale[ATTN_TILE * ATTN_GROUPS];          /* Q8_0: of 32 dims of q */
    int32_t bias[ATTN_TILE * ATTN_GROUPS];         /* Q8_0: -128 times the sum of the 32 bytes */
    _Alignas(64) float s[ATTN_TILE * ATTN_SCORES]; /* scores, then weights, of one chunk */
} attn_tile;

/* What a chunk (or a fold of chunks) gives each row of a tile. */
typedef struct {
    float *max; /* [ATTN_TILE] of the scores, in powers of two */
    float *sum; /* [ATTN_TILE] of the weights 2^(score - max) */
    float *out; /* [ATTN_TILE][dim] weighted V, not divided; BF16: even dims of each 32, then odd */
} attn_part;

static inline size_t attn_part_floats(int dim)
{
    return 2 * ATTN_TILE + (size_t)ATTN_TILE * (size_t)dim;
}
static inline attn_part attn_part_at(float *p)
{
    return (attn_part){p, p + ATTN_TILE, p + 2 * ATTN_TILE};
}

struct attn_ops {
    int tile_rows; /* rows that fill a tile best */
    /* Writes k[dim] and v[dim] as token t (0..31) of a block. */
    void (*store)(const kv_view *kv, uint8_t *block, int t, const float *k, const float *v);
    /* Makes q[head_dim] row r of the tile. */
    void (*load_row)(attn_tile *w, const kv_view *kv, int r, const float *q, int head_dim, int pos);
    /* The chunk of positions [c0, c0 + 256); table: block numbers of the sequence. */
    void (*chunk)(attn_tile *w, const kv_view *kv, const int32_t *table, int head, int c0,
                  attn_part out);
    /* total = total then part, the chunk at c0; chunk 0 starts the total. */
    void (*fold)(const attn_tile *w, int dim, int c0, attn_part part, attn_part total);
    /* y[head_dim] = row r of the total, divided. */
    void (*finish)(const kv_view *kv, attn_part total, int r, float *y, int head_dim);
};
extern const attn_ops attn_ops_portable, attn_ops_avx2, attn_ops_avx512;

/* Scratch of cpu_attn_paged for a pool of this many threads; NULL when out of memory. */
struct attn_work *attn_work_new(int threads);
void attn_work_free(struct attn_work *w);
/* Lets stored parts use no more than these bytes (one part of every split tile must fit), so that
 * a short context already takes several windows: for tests. */
void attn_work_limit(struct attn_work *w, size_t bytes);

#endif
