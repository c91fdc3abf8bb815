/* attention.cu - the attention ops of the CUDA back end: arguments, and which kernels a step takes.
 *
 *   rope_attn, every sequence one generated row   one decode launch that also writes k and v
 *   rope_attn, else                               store k and v; prefill tiles; decode items
 *   rope_store, attn_paged                        the same apart; q goes through bf16 between them
 *
 * A recorded pass is replayed with other lengths, so under a bucket all blocks are launched and the
 * kernels take their counts from the plan on the device.  Only the choice above is fixed by the
 * recording: a bucket names steps of the first kind.
 * Owns nothing.  Refuses (faults) slots beyond the pages.  Thread: the rank's. */
#include "kernels/cuda/attention.h"

#include <assert.h>
#include <math.h>

static const attn_plan *host_plan(const cuda_state *st)
{
    return (const attn_plan *)st->plan_h;
}

/* Arguments all kernels share; false: a fault was latched. */
static bool args_of(backend *be, const char *op, attn_args *a, tensor qkv, int heads,
                    const kv_pages *kv, const batch *b)
{
    cuda_state *st = cuda_of(be);
    if (host_plan(st)->max_slot >= kv->n_blocks * KV_PAGE) {
        k_fault(be, op, "slot %d of %d blocks", host_plan(st)->max_slot, kv->n_blocks);
        return false;
    }
    *a = (attn_args){};
    a->qkv = qkv.ptr;
    a->ldq = qkv.ld;
    a->inv_dim = 1.0f / (float)kv->head_dim;
    a->kv = kv->data;
    a->kv_block = 2 * (size_t)kv->kv_heads * (size_t)(KV_PAGE * kv->head_dim);
    a->table = b->block_table;
    a->max_blocks = b->max_blocks;
    a->slot = b->slot;
    a->full = b->full;
    a->heads = heads;
    a->kv_heads = kv->kv_heads;
    a->group = heads / kv->kv_heads;
    a->head_dim = kv->head_dim;
    a->scale = 1.44269504f / sqrtf((float)kv->head_dim);
    a->plan = st->plan;
    return true;
}

static void add_rope(attn_args *a, const vec *q_norm, const vec *k_norm, float eps, tensor cs)
{
    a->q_norm = q_norm ? q_norm->v : NULL;
    a->k_norm = k_norm ? k_norm->v : NULL;
    a->eps = eps;
    a->cs = (const float *)cs.ptr;
    a->ldcs = cs.ld;
    a->rot = cs.cols;
}

/* Output and work space; false: a fault was latched. */
static bool add_output(backend *be, const char *op, attn_args *a, tensor o, const batch *b)
{
    cuda_state *st = cuda_of(be);
    size_t part = (size_t)a->heads * (size_t)(a->head_dim + 2);
    size_t fold = 2 * (size_t)ATTN_ROWS * (size_t)a->head_dim;
    size_t n = (size_t)attn_parts(&st->limits) * part;
    int units = a->kv_heads * ((a->group + ATTN_ROWS - 1) / ATTN_ROWS);
    size_t need = n + (size_t)attn_decode_blocks(st, a->head_dim) * fold;
    if (st->work_bytes < need * sizeof(float) || st->n_ticket < attn_parts(&st->limits) * units) {
        err e = {};
        if (b->bucket) err_set(&e, ERR_NOMEM, "work space was not reserved before recording");
        else cuda_attn_need(be, &st->limits, a->heads, a->kv_heads, a->head_dim, &e);
        if (e.code) {
            k_fault(be, op, "%s", e.msg);
            return false;
        }
    }
    a->o = o.ptr;
    a->ldo = o.ld;
    a->part = (float *)st->work;
    a->fold = a->part + n;
    a->ticket = st->ticket;
    return true;
}

/* n units of work as a launch wants them: 0 where a recording must serve other steps too. */
static int units(const batch *b, int n)
{
    return b->bucket ? 0 : n;
}

static void attend(backend *be, const attn_args *a, const kv_pages *kv, const batch *b)
{
    cuda_state *st = cuda_of(be);
    const attn_plan *p = host_plan(st);
    assert(!b->bucket || p->fused); /* a replay would miss tiles */
    int groups = (a->group + ATTN_ROWS - 1) / ATTN_ROWS;
    if (p->n_tiles) attn_prefill_run(st, kv->type, a, units(b, p->n_tiles * a->heads));
    if (p->n_items || b->bucket)
        attn_decode_run(st, kv->type, a, units(b, p->n_items * a->kv_heads * groups));
}

void cuda_rope_store(backend *be, tensor qkv, int heads, int kv_heads, int head_dim,
                     const vec *q_norm, const vec *k_norm, float eps, tensor cs, kv_pages *kv,
                     const batch *b)
{
    cuda_state *st = cuda_of(be);
    attn_args a;
    (void)head_dim; /* the wrapper has checked that it is kv->head_dim */
    if (!args_of(be, "rope_store", &a, qkv, heads, kv, b)) return;
    add_rope(&a, q_norm, k_norm, eps, cs);
    a.turn_q = true;
    attn_store_run(st, kv->type, &a, units(b, host_plan(st)->n_rows * (heads + 2 * kv_heads)));
}

void cuda_attn_paged(backend *be, tensor o, tensor qkv, int heads, const kv_pages *kv,
                     const batch *b)
{
    attn_args a;
    if (args_of(be, "attn_paged", &a, qkv, heads, kv, b) && add_output(be, "attn_paged", &a, o, b))
        attend(be, &a, kv, b);
}

void cuda_rope_attn(backend *be, tensor o, tensor qkv, int heads, const vec *q_norm,
                    const vec *k_norm, float eps, tensor cs, kv_pages *kv, const batch *b)
{
    cuda_state *st = cuda_of(be);
    attn_args a;
    if (!args_of(be, "rope_attn", &a, qkv, heads, kv, b)) return;
    if (!add_output(be, "rope_attn", &a, o, b)) return;
    add_rope(&a, q_norm, k_norm, eps, cs);
    a.store = host_plan(st)->fused != 0;
    if (!a.store)
        attn_store_run(st, kv->type, &a, units(b, host_plan(st)->n_rows * 2 * kv->kv_heads));
    attend(be, &a, kv, b);
}
