/* blocks.c - see blocks.h.  Owns nothing; scratch is taken and released within a block.
 * Refuses nothing: shapes are asserted by the k_ wrappers.  Thread: the rank's. */
#include "engine/blocks.h"

/* Pre-norm attention: q|k|v are one matrix; o = softmax(q k^T) v; h += Wo o. */
void attn_block(const pass *p, const layer *l, kv_pages *kv, tensor h)
{
    const block_dims *d = p->d;
    size_t mark = k_scratch_mark(p->be);
    tensor qkv = k_scratch(p->be, h.rows, l->qkv.out);
    tensor o = k_scratch(p->be, h.rows, l->o.in);
    k_norm_linear(p->be, qkv, h, &l->attn_norm, d->eps, &l->qkv);
    k_rope_store(p->be, qkv, d->heads, d->kv_heads, d->head_dim, l->q_norm.v ? &l->q_norm : NULL,
                 l->k_norm.v ? &l->k_norm : NULL, d->eps, p->cs, kv, p->b);
    k_attn_paged(p->be, o, qkv, d->heads, kv, p->b);
    k_linear_add(p->be, h, o, &l->o);
    k_scratch_release(p->be, mark);
}

/* h += Wdown (silu(Wgate x) * (Wup x)), x = norm(h). */
void mlp_block(const pass *p, const layer *l, tensor h)
{
    size_t mark = k_scratch_mark(p->be);
    tensor y = k_glu_out_q8(p->be, &l->down) ? k_scratch_q8(p->be, h.rows, l->down.in)
                                             : k_scratch(p->be, h.rows, l->down.in);
    k_norm_glu(p->be, y, h, &l->ffn_norm, p->d->eps, &l->gate_up);
    k_linear_add(p->be, h, y, &l->down);
    k_scratch_release(p->be, mark);
}

void head_block(const pass *p, const vec *norm, const weight *head, tensor logits, tensor h)
{
    k_norm_linear(p->be, logits, h, norm, p->d->eps, head);
}

/* As k_scratch takes it: rows padded to 16 values. */
static size_t take(int rows, int cols)
{
    size_t ld = ((size_t)cols + 15) / 16 * 16;
    return (size_t)rows * ld * sizeof(float);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t blocks_scratch_bytes(const backend *be, const block_dims *d, int max_tok, int max_out)
{
    int q = d->heads * d->head_dim, qkv = q + 2 * d->kv_heads * d->head_dim;
    size_t row = take(max_tok, d->hidden);
    size_t norm = be->op->norm_linear ? 0 : row, sum = be->op->linear_add ? 0 : row;
    size_t glu = be->op->norm_glu ? 0 : row + take(max_tok, 2 * d->ff);
    size_t attn = take(max_tok, qkv) + take(max_tok, q) + larger(norm, sum);
    size_t mlp = take(max_tok, d->ff) + larger(glu, sum);
    size_t outer =
        take(max_out, d->vocab) + take(max_tok, d->head_dim) + row + take(max_out, d->hidden);
    return outer + larger(larger(attn, mlp), norm);
}
