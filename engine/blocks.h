/* blocks.h - the parts of a decoder: attention block, gated MLP block, output head.  Each reads as
 * the paper: a few k_ calls over views.  They never see which backend runs or how the batch was
 * scheduled.  Thread: the rank's. */
#ifndef QUERN_ENGINE_BLOCKS_H
#define QUERN_ENGINE_BLOCKS_H

#include "engine/models/models.h"

/* Shapes that every block needs, fixed at load: heads, ff and vocab are this rank's. */
typedef struct {
    int hidden, heads, kv_heads, head_dim, ff, vocab;
    int world;
    float eps;
} block_dims;

/* One forward pass over a batch. */
typedef struct {
    backend *be;
    const block_dims *d;
    const batch *b;
    tensor cs; /* [n_tok, head_dim] cos and sin of every row's position */
} pass;

/* h[n_tok, hidden] is the residual stream: read, then added to.  kv: this layer's pages. */
void attn_block(const pass *p, const layer *l, kv_pages *kv, tensor h);
/* h[any rows, hidden] likewise. */
void mlp_block(const pass *p, const layer *l, tensor h);
/* logits[n_out, vocab] = head(norm(h)), h[n_out, hidden]. */
void head_block(const pass *p, const vec *norm, const weight *head, tensor logits, tensor h);

/* y[n_pool, hidden] = sums over b->pool of norm(h), h[n_state, hidden]. */
void pool_block(const pass *p, const vec *norm, double *sum, tensor y, tensor h);

/* Scratch that one pass takes at most: what model_forward takes around the blocks, and the larger
 * block with its compositions where the backend lacks a fusion. */
size_t blocks_scratch_bytes(const backend *be, const block_dims *d, int max_tok, int max_out,
                            int max_state, int max_seqs);

#endif
