/* blocks.c - see blocks.h.  Owns nothing; scratch is taken and released within a block.
 * Refuses nothing: shapes are asserted by the k_ wrappers.  Thread: the rank's. */
#include "engine/blocks.h"

/* h += W x over all ranks, each of which holds some columns of W and those of x. */
static void add_product(const pass *p, tensor h, tensor x, const weight *w)
{
    if (p->d->world == 1) {
        k_linear_add(p->be, h, x, w);
        return;
    }
    tensor sum = k_scratch(p->be, h.rows, h.cols);
    k_linear(p->be, sum, x, w);
    k_all_reduce(p->be, sum);
    k_add(p->be, h, sum);
}

/* Pre-norm attention: q|k|v are one matrix; o = softmax(q k^T) v; h += Wo o. */
void attn_block(const pass *p, const layer *l, kv_pages *kv, tensor h)
{
    const block_dims *d = p->d;
    size_t mark = k_scratch_mark(p->be);
    tensor qkv = k_scratch(p->be, h.rows, l->qkv.out);
    tensor o = k_scratch(p->be, h.rows, l->o.in);
    k_norm_linear(p->be, qkv, h, &l->attn_norm, d->eps, &l->qkv);
    k_rope_attn(p->be, o, qkv, d->heads, l->q_norm.v ? &l->q_norm : NULL,
                l->k_norm.v ? &l->k_norm : NULL, d->eps, p->cs, kv, p->b);
    add_product(p, h, o, &l->o);
    k_scratch_release(p->be, mark);
}

/* h += Wdown (silu(Wgate x) * (Wup x)), x = norm(h). */
void mlp_block(const pass *p, const layer *l, tensor h)
{
    size_t mark = k_scratch_mark(p->be);
    tensor y = k_glu_out_q8(p->be, &l->down) ? k_scratch_q8(p->be, h.rows, l->down.in)
                                             : k_scratch(p->be, h.rows, l->down.in);
    k_norm_glu(p->be, y, h, &l->ffn_norm, p->d->eps, &l->gate_up);
    add_product(p, h, y, &l->down);
    k_scratch_release(p->be, mark);
}

void head_block(const pass *p, const vec *norm, const weight *head, tensor logits, tensor h)
{
    k_norm_linear(p->be, logits, h, norm, p->d->eps, head);
}

void pool_block(const pass *p, const vec *norm, double *sum, tensor y, tensor h)
{
    size_t mark = k_scratch_mark(p->be);
    tensor x = k_scratch(p->be, h.rows, h.cols);
    k_rms_norm(p->be, x, h, norm, p->d->eps);
    k_pool(p->be, y, x, sum, p->b->pool);
    k_scratch_release(p->be, mark);
}

/* As k_scratch and k_scratch_f32 take it: rows padded to 64 bytes. */
static size_t take_of(int rows, int cols, act_type type)
{
    size_t size = type == ACT_BF16 ? 2 : 4;
    return (size_t)rows * (((size_t)cols * size + 63) / 64 * 64);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t blocks_scratch_bytes(const backend *be, const block_dims *d, int max_tok, int max_out,
                            int max_state, int max_seqs)
{
    act_type act = be->act;
    int q = d->heads * d->head_dim, qkv = q + 2 * d->kv_heads * d->head_dim;
    size_t row = take_of(max_tok, d->hidden, act);
    size_t norm = be->op->norm_linear ? 0 : row;
    size_t sum = d->world <= 1 && be->op->linear_add ? 0 : row;
    size_t glu = be->op->norm_glu ? 0 : row + take_of(max_tok, 2 * d->ff, act);
    size_t attn = take_of(max_tok, qkv, act) + take_of(max_tok, q, act) + larger(norm, sum);
    size_t mlp = take_of(max_tok, d->ff, act) + larger(glu, sum);
    size_t outer = take_of(max_out, d->vocab, ACT_F32) + take_of(max_tok, d->head_dim, ACT_F32) +
                   row + take_of(max_state ? max_tok : max_out, d->hidden, act);
    if (max_state) outer += take_of(max_seqs, d->hidden, ACT_F32);
    size_t pool = take_of(max_state, d->hidden, act);
    return outer + larger(larger(attn, mlp), larger(norm, pool));
}
