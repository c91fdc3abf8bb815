/* model.c - one rank's model: owns its weights, its KV pages and the rope table.
 * Refuses at load what weights.c and rope.c refuse; after that only memory can fail.
 * Thread: loading by one thread, model_forward by the rank's. */
#include "engine/model.h"
#include "engine/blocks.h"
#include "engine/rope.h"
#include "engine/weights.h"
#include "kernels/comm.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct model {
    backend *be;
    model_config conf;
    shard share;
    int32_t vocab_start[SHARD_MAX_RANKS + 1];
    weights w;
    block_dims dims; /* of the share */
    kv_type kv_type;
    kv_pages *kv;          /* [n_layers] */
    size_t kv_block_bytes; /* one block of one layer */
    rope_spec rope;
    vec inv_freq; /* [head_dim/2] */
    int max_tok, max_out, max_state, max_seqs;
    double *sum; /* [max_seqs][hidden] states being pooled, on the backend; NULL where none are */
    int64_t n_params;
};

static block_dims dims_of(const model_config *c, const shard *s)
{
    return (block_dims){.hidden = (int)c->hidden,
                        .heads = (int)s->heads,
                        .kv_heads = (int)s->kv_heads,
                        .head_dim = (int)c->head_dim,
                        .ff = (int)s->ff.n,
                        .vocab = (int)s->vocab.n,
                        .world = s->world,
                        .eps = (float)c->norm_eps};
}

static const char *const kv_names[] = {
    [KV_F32] = "f32", [KV_F16] = "f16", [KV_BF16] = "bf16", [KV_Q8_0] = "q8_0"};

int model_kv_parse(const char *name, kv_type *t, err *e)
{
    /* Keys of Qwen2.5 reach 900 through their bias: f16 steps by 0.5 there, bf16 by 4, and its
     * error against f32 KV is 60 times smaller (docs/performance.md) at about the same speed. */
    *t = KV_F16;
    if (!name || !strcasecmp(name, "auto")) return 0;
    for (int i = 0; i < (int)(sizeof kv_names / sizeof *kv_names); i++) {
        if (strcasecmp(name, kv_names[i])) continue;
        *t = (kv_type)i;
        return 0;
    }
    return err_set(e, ERR_INVALID,
                   "--kv-cache-dtype is '%.40s'; it can be auto, bf16, f16, f32 or q8_0", name);
}

const char *model_kv_name(kv_type t)
{
    return kv_names[t];
}

/* A backend answers 0 bytes for a head size or cache type it has no kernel for. */
static int kv_block_size(const backend *be, const model_config *c, const shard *s, kv_type t,
                         size_t *out, err *e)
{
    *out = be->op->kv_block_bytes(t, (int)s->kv_heads, (int)c->head_dim);
    if (*out) return 0;
    return err_set(e, ERR_UNSUPPORTED, "the %s backend cannot keep a %s KV cache for head_dim %lld",
                   be->op->name, kv_names[t], (long long)c->head_dim);
}

static int find_share(const checkpoint *c, const arch *a, const model_options *o, shard *s, err *e)
{
    const model_config *conf = checkpoint_config(c);
    int world = o->world ? o->world : 1;
    shard_units u = weights_units(a, c);
    int rc = shard_check(conf, u, world, e);
    if (!rc) *s = shard_make(conf, u, world, o->rank);
    return rc;
}

/* States being pooled, of every sequence that runs. */
static size_t sum_bytes(const model_options *o, int64_t hidden)
{
    return o->max_state ? (size_t)o->max_seqs * (size_t)hidden * sizeof(double) : 0;
}

int model_plan_make(const checkpoint *c, const backend *be, const model_options *o, model_plan *p,
                    err *e)
{
    *p = (model_plan){0};
    const arch *a = weights_arch(c, e);
    if (!a) return e ? e->code : ERR_INVALID;
    const model_config *conf = checkpoint_config(c);
    float *inv_freq = malloc((size_t)conf->head_dim * sizeof *inv_freq);
    if (!inv_freq) return err_set(e, ERR_NOMEM, "out of memory");
    rope_spec rope;
    int rc = rope_init(&rope, inv_freq, conf, o->ctx, e);
    free(inv_freq);
    weights_summary s;
    shard share;
    size_t block;
    if (!rc) rc = find_share(c, a, o, &share, e);
    if (!rc) rc = weights_check_share(a, c, be, &share, &s, e);
    if (!rc) rc = kv_block_size(be, conf, &share, o->kv, &block, e);
    if (rc) return rc;
    block_dims d = dims_of(conf, &share);
    p->n_params = s.n_params;
    p->weight_bytes = s.device_bytes;
    p->kv_block_bytes = block * (size_t)conf->layers;
    p->scratch_bytes = blocks_scratch_bytes(be, &d, o->max_tok, o->no_logits ? 0 : o->max_out,
                                            o->max_state, o->max_seqs) +
                       sum_bytes(o, conf->hidden);
    snprintf(p->quantization, sizeof p->quantization, "%s", s.quantization);
    return 0;
}

static int load_rope(model *m, int64_t ctx, err *e)
{
    float *table = malloc((size_t)m->conf.head_dim * sizeof *table);
    if (!table) return err_set(e, ERR_NOMEM, "out of memory");
    int rc = rope_init(&m->rope, table, &m->conf, ctx, e);
    if (!rc) rc = k_upload_vec(m->be, &m->inv_freq, table, m->rope.dim / 2, e);
    m->rope.inv_freq = m->inv_freq.v;
    free(table);
    return rc;
}

model *model_load(const checkpoint *c, backend *be, const model_options *o, err *e)
{
    model_plan plan;
    if (model_plan_make(c, be, o, &plan, e)) return NULL;
    const model_config *conf = checkpoint_config(c);
    model *m = calloc(1, sizeof *m);
    if (!m) goto no_memory;
    *m = (model){.be = be,
                 .conf = *conf,
                 .kv_type = o->kv,
                 .max_tok = o->max_tok,
                 .max_out = o->max_out,
                 .max_state = o->max_state,
                 .max_seqs = o->max_seqs,
                 .n_params = plan.n_params,
                 .kv_block_bytes = plan.kv_block_bytes / (size_t)conf->layers};
    const arch *a = arch_find(conf, e);
    if (find_share(c, a, o, &m->share, e)) goto fail;
    assert(m->share.world == comm_world(be->comm) && m->share.rank == comm_rank(be->comm));
    shard_vocab(conf, m->share.world, m->vocab_start);
    m->dims = dims_of(conf, &m->share);
    m->kv = calloc((size_t)conf->layers, sizeof *m->kv);
    if (!m->kv) goto no_memory;
    if (load_rope(m, o->ctx, e)) goto fail;
    if (k_scratch_reserve(be, plan.scratch_bytes, e)) goto fail;
    const batch_limits limits = {.max_tok = o->max_tok,
                                 .max_seqs = o->max_seqs,
                                 .max_out = o->max_out,
                                 .max_state = o->max_state,
                                 .hidden = m->dims.hidden,
                                 .max_blocks = (int)((o->ctx + be->kv_block - 1) / be->kv_block),
                                 .heads = m->dims.heads,
                                 .kv_heads = m->dims.kv_heads,
                                 .head_dim = m->dims.head_dim};
    if (k_batch_reserve(be, &limits, e)) goto fail;
    if (o->max_state && !(m->sum = k_alloc(be, sum_bytes(o, conf->hidden)))) goto no_memory;
    if (weights_load(&m->w, a, c, be, &m->share, o->progress, e)) goto fail;
    return m;
no_memory:
    err_set(e, ERR_NOMEM, "out of memory");
fail:
    model_free(m);
    return NULL;
}

void model_free(model *m)
{
    if (!m) return;
    for (int i = 0; m->kv && i < (int)m->conf.layers; i++)
        k_free(m->be, m->kv[i].data, (size_t)m->kv[i].n_blocks * m->kv_block_bytes);
    weights_free(&m->w, m->be);
    k_release_vec(m->be, &m->inv_freq);
    k_free(m->be, m->sum, (size_t)m->max_seqs * (size_t)m->dims.hidden * sizeof *m->sum);
    free(m->kv);
    free(m);
}

int model_kv_alloc(model *m, int n_blocks, err *e)
{
    size_t bytes;
    assert(n_blocks > 0 && !m->kv[0].data);
    if (__builtin_mul_overflow((size_t)n_blocks, m->kv_block_bytes, &bytes))
        return err_set(e, ERR_NOMEM, "%d KV blocks are more than memory can hold", n_blocks);
    for (int i = 0; i < m->w.n_layers; i++) {
        m->kv[i] = (kv_pages){k_alloc(m->be, bytes), m->kv_type, n_blocks, m->dims.kv_heads,
                              m->dims.head_dim};
        if (m->kv[i].data) continue;
        while (i-- > 0) k_free(m->be, m->kv[i].data, bytes);
        memset(m->kv, 0, (size_t)m->w.n_layers * sizeof *m->kv);
        return err_set(e, ERR_NOMEM,
                       "cannot allocate %d KV blocks (%zu MiB a layer): lower --kv-cache-memory, "
                       "--max-model-len or --max-num-seqs",
                       n_blocks, bytes >> 20);
    }
    return 0;
}

/* Rows whose logits or states are wanted, as a tensor of their own; h itself if all want logits. */
static tensor out_rows(const pass *p, tensor h)
{
    if (p->b->n_out == h.rows && !p->b->n_state) return h;
    tensor y = k_scratch(p->be, p->b->n_out + p->b->n_state, h.cols);
    k_gather_rows(p->be, y, h, p->b->out_row);
    return y;
}

/* n rows of t from row r on. */
static tensor rows_of(tensor t, int r, int n)
{
    size_t value = t.type == ACT_BF16 ? 2 : 4;
    t.ptr = (char *)t.ptr + (size_t)r * (size_t)t.ld * value;
    t.rows = n;
    return t;
}

/* After the last attention only rows that get logits or are pooled matter: the last MLP runs on
 * them alone. */
static void pass_layers(model *m, const pass *p, tensor h, tensor logits, tensor pooled)
{
    const int n_out = p->b->n_out, n_state = p->b->n_state;
    for (int i = 0; i < m->w.n_layers; i++) {
        k_trace_layer(m->be, i);
        attn_block(p, &m->w.layers[i], &m->kv[i], h);
        if (i + 1 == m->w.n_layers) {
            if (n_out + n_state == 0) return;
            h = out_rows(p, h);
        }
        mlp_block(p, &m->w.layers[i], h);
    }
    if (n_out) head_block(p, &m->w.g.norm, weights_head(&m->w), logits, rows_of(h, 0, n_out));
    if (n_state && pooled.rows)
        pool_block(p, &m->w.g.norm, m->sum, pooled, rows_of(h, n_out, n_state));
}

void model_forward(model *m, const batch *host, tensor *logits, tensor *pooled)
{
    backend *be = m->be;
    assert(host->n_tok > 0 && host->n_tok <= m->max_tok && host->n_out <= m->max_out);
    assert(host->n_state <= m->max_state && host->n_pool <= m->max_seqs);
    k_scratch_release(be, 0);
    k_trace_step(be);
    batch full = *host;
    full.full = !m->conf.causal;
    const batch b = k_batch(be, &full);
    tensor states = {0};
    if (k_replay(be, &b, logits)) return;
    k_record(be, &b);
    *logits = k_scratch_f32(be, b.n_out, m->dims.vocab);
    if (pooled && b.n_pool) states = k_scratch_f32(be, b.n_pool, m->dims.hidden);
    pass p = {be, &m->dims, &b, k_scratch_f32(be, b.n_tok, m->rope.dim)};
    tensor h = k_scratch(be, b.n_tok, m->dims.hidden); /* the residual stream */
    k_rope_rows(be, p.cs, b.pos, &m->rope);
    k_embed(be, h, b.tok, &m->w.g.embed);
    k_all_reduce(be, h);
    pass_layers(m, &p, h, *logits, states);
    k_record_end(be, &b, logits);
    if (pooled) *pooled = states;
}

const model_config *model_conf(const model *m)
{
    return &m->conf;
}

int model_vocab_rows(const model *m)
{
    return (int)m->conf.vocab;
}

const int32_t *model_vocab_start(const model *m)
{
    return m->vocab_start;
}

int64_t model_n_params(const model *m)
{
    return m->n_params;
}

/* Multiply-adds of one row through w; f32: those done in floating point. */
static double macs(const weight *w, double *f32)
{
    double all = (double)w->out * w->in;
    for (int i = 0; i < w->n_seg; i++)
        if (w->seg[i].type == DT_F32 || w->seg[i].type == DT_F16 || w->seg[i].type == DT_BF16)
            *f32 += (double)w->seg[i].rows * w->in;
    return all;
}

model_costs model_cost(const model *m)
{
    const weights *w = &m->w;
    const weight *head = weights_head(w);
    model_costs c = {.head_bytes = head->bytes};
    for (int i = 0; i < w->n_layers; i++) {
        const layer *l = &w->layers[i];
        c.body_bytes += l->qkv.bytes + l->o.bytes + l->gate_up.bytes + l->down.bytes;
        double mlp_f32 = 0, mlp = macs(&l->gate_up, &mlp_f32) + macs(&l->down, &mlp_f32);
        c.body_macs += macs(&l->qkv, &c.body_f32_macs) + macs(&l->o, &c.body_f32_macs) + mlp;
        c.body_f32_macs += mlp_f32;
        if (i + 1 < w->n_layers) continue;
        c.tail_macs = mlp;
        c.tail_f32_macs = mlp_f32;
    }
    c.head_macs = macs(head, &c.head_f32_macs);
    c.attn_macs_per_ctx = 2.0 * w->n_layers * m->dims.heads * m->dims.head_dim;
    c.kv_bytes_per_pos = m->kv_block_bytes * (size_t)w->n_layers / (size_t)m->be->kv_block;
    return c;
}
