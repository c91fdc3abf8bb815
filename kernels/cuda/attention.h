/* attention.h - between the attention files: how the KV is cut, the plan of a step, the arguments
 * of the kernels.
 *
 * KV pages of one layer: [block][K, V][kv_head][16 positions][head_dim], bf16 or f16.
 *
 * Decode body, one row (a query at position len - 1) at a time: its KV is cut into chunks of 256
 * absolute positions, 16 chunks are a span.  A chunk gives (max, sum, weighted values); chunks are
 * folded in order inside their span, spans in order inside the row.  That tree depends on len
 * alone, so who computes what is free: the plan makes an item of a chunk, of a span or of a whole
 * row, and the bits are the same.  Chunks keep many blocks busy, whole rows need no space for
 * partial results.
 *
 * Prefill body: tiles of 128 query rows at absolute multiples of 128 against all keys up to the
 * diagonal, 64 at a time.  Its bits differ from the decode body's; a row takes it if it is part of
 * its sequence's prompt.  With st->invariant every row takes the decode body: then a row has the
 * same bits whether its position was part of a prompt or generated.  (Making the two bodies equal
 * would mean giving up either the 16-row tile of the one or the 64-key step of the other.)
 *
 * Thread: as cuda.h. */
#ifndef QUERN_KERNELS_CUDA_ATTENTION_H
#define QUERN_KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/cuda.h"

C_BEGIN

enum {
    KV_PAGE = 16,           /* positions of a block */
    ATTN_CHUNK = 256,       /* positions */
    ATTN_SPAN = 16,         /* chunks */
    ATTN_TILE = 128,        /* query rows of a prefill tile */
    ATTN_KEYS = 64,         /* keys loaded at a time */
    ATTN_ROWS = 16,         /* query heads of a KV head that share a decode item */
    ATTN_PARTS = 2048,      /* partial results of a step at most: 33 KB each for 64 heads of 128 */
    ATTN_HEAD_DIM_MAX = 128 /* larger heads have no kernel */
};

/* ---- plan ------------------------------------------------------------------------------------ */

typedef enum { CUT_WHOLE, CUT_SPANS, CUT_CHUNKS } attn_cut;

/* Chunks [chunk, chunk + n) of one row, for every KV head: one chunk, one span or all. */
typedef struct {
    int32_t row, seq, len; /* row of qkv and o, its sequence, positions it sees */
    int32_t chunk, n;
    int32_t cut;  /* attn_cut of the row */
    int32_t slot; /* where its partial result goes; -1: it is the whole row */
    int32_t base; /* first slot of the row: its chunks, then its spans if there are several */
} attn_item;

/* Query rows at positions [q0 + lo, q0 + hi) of a sequence, q0 a multiple of ATTN_TILE. */
typedef struct {
    int32_t seq, q0;
    int32_t row0; /* row of position p is row0 + p */
    int16_t lo, hi;
    int32_t keys; /* positions of the sequence that are read: up to hi, or all of it */
} attn_tile;

typedef struct {
    int32_t n_items, n_tiles;
    int32_t n_rows;   /* rows of the batch before the padding */
    int32_t fused;    /* every sequence has one row and it takes the decode body */
    int32_t tile_at;  /* words from the plan's start to its tiles; items stand behind the head */
    int32_t max_slot; /* largest KV slot written */
    int32_t pad[2];
} attn_plan;

/* Partial results a step may have. */
int attn_parts(const batch_limits *l);
/* cuda_plan_fill with at most `parts` partial results, for a device that works on `at_once` items
 * at a time. */
void attn_plan_fill(const batch *host, bool invariant, int parts, int at_once, int32_t *plan);

/* ---- kernels --------------------------------------------------------------------------------- */

typedef struct {
    void *qkv; /* bf16 [row][ldq]: q heads, k heads, v heads */
    void *o;   /* bf16 [row][ldo] */
    int ldq, ldo;
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    float eps, inv_dim;           /* 1 / head_dim */
    const float *cs;              /* [row][ldcs]: cos, sin; NULL: q is rotated already */
    int ldcs, rot;                /* dims rotated */
    void *kv;
    size_t kv_block;      /* elements of a block, K and V */
    const int32_t *table; /* [seq][max_blocks] */
    int max_blocks;
    const int32_t *slot; /* [row] */
    int heads, kv_heads, group, head_dim;
    float scale;         /* log2(e) / sqrt(head_dim) */
    const int32_t *plan; /* device */
    bool store;          /* decode: write the row's k and v (else they are in the pages already) */
    bool full;           /* every row sees all of its sequence */
    bool turn_q;         /* rope_store: also rotate q in place */
    float *part;         /* [slot][heads][head_dim + 2]: values, max, sum */
    float *fold;         /* [block][2][ATTN_ROWS][head_dim]: a decode item's span and row so far */
    unsigned *ticket;    /* [slot][kv_heads][groups of ATTN_ROWS heads] */
} attn_args;

/* Each queues one kernel for the KV type and head_dim; n: units of work (0: not known, all blocks).
 */
void attn_store_run(cuda_state *st, kv_type t, const attn_args *a, int n);
void attn_prefill_run(cuda_state *st, kv_type t, const attn_args *a, int n);
void attn_decode_run(cuda_state *st, kv_type t, const attn_args *a, int n);
/* Blocks of the decode kernel at most. */
int attn_decode_blocks(const cuda_state *st, int head_dim);
/* The head_dim a kernel is built for that takes this one: 32, 64, 128; 0 where there is none. */
int attn_built_dim(int head_dim);

C_END

#endif
