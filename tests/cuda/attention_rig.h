/* attention_rig.h - a world for the attention tests: sequences of which every row is known, their
 * KV pages scattered over a poisoned pool, steps over any of the rows through the k_ wrappers, and
 * the same in double from what lies in the pages.  Tests only. */
#ifndef QUERN_TESTS_CUDA_ATTENTION_RIG_H
#define QUERN_TESTS_CUDA_ATTENTION_RIG_H

#include "kernels/cuda/attention.h"
#include "tests/cuda/op_rig.h"

typedef struct {
    int heads, kv_heads, dim, rot; /* rot: dims rotated */
    bool norm;
    kv_type type;
} shape;

enum { MAX_SEQ = 20 };

typedef struct {
    shape s;
    backend *be;
    int n_seq, len[MAX_SEQ], n_prompt[MAX_SEQ];
    int cols, out;      /* values of a row of qkv, of o */
    int first[MAX_SEQ]; /* of a sequence's rows in qkv and o */
    uint16_t *qkv;      /* bf16 [rows][cols] as a linear op would leave them */
    uint16_t *o;        /* bf16 [rows][out]; what steps gave, 0xffff where none did */
    int max_blocks, n_blocks;
    int32_t *table; /* [n_seq][max_blocks] */
    kv_pages kv;
    size_t kv_bytes, block_bytes;
    float *norm_q, *norm_k, *freq;
    vec q_norm, k_norm;
    void *mem[3]; /* a step's qkv, cs, o on the device, grown as needed */
    size_t mem_bytes[3];
} world;

static inline void *need(size_t n)
{
    void *p = malloc(n ? n : 1);
    ck_assert_ptr_nonnull(p);
    return p;
}

/* Deals the pages: block i of the pool order belongs to somebody; `salt` scatters them otherwise.
 */
static inline void world_deal(world *w, int salt)
{
    int step = 7 + 2 * salt, a = 0;
    do { /* coprime: every block once */
        step++;
        a = step;
        for (int b = w->n_blocks; b;) {
            int rest = a % b;
            a = b;
            b = rest;
        }
    } while (a != 1);
    for (int i = 0; i < w->n_seq * w->max_blocks; i++)
        w->table[i] = (int32_t)(((int64_t)i * step + 1 + salt) % w->n_blocks);
}

static inline world world_new(backend *be, shape s, const int *len, int n, uint64_t seed)
{
    world w = {};
    w.s = s;
    w.be = be;
    w.n_seq = n;
    w.cols = (s.heads + 2 * s.kv_heads) * s.dim;
    w.out = s.heads * s.dim;
    int rows = 0;
    for (int i = 0; i < n; i++) {
        w.len[i] = len[i];
        w.n_prompt[i] = len[i];
        w.first[i] = rows;
        rows += len[i];
        int blocks = (len[i] + be->kv_block - 1) / be->kv_block;
        w.max_blocks = blocks > w.max_blocks ? blocks : w.max_blocks;
    }
    w.qkv = (uint16_t *)need((size_t)rows * (size_t)w.cols * 2);
    w.o = (uint16_t *)need((size_t)rows * (size_t)w.out * 2);
    memset(w.o, 0xff, (size_t)rows * (size_t)w.out * 2);
    for (size_t i = 0; i < (size_t)rows * (size_t)w.cols; i++)
        w.qkv[i] = f32_to_bf16(1.5f * rnd_normal(&seed));
    w.n_blocks = w.max_blocks * n + 3;
    w.table = (int32_t *)need((size_t)(n * w.max_blocks) * sizeof *w.table);
    world_deal(&w, 0);
    w.block_bytes = be->op->kv_block_bytes(s.type, s.kv_heads, s.dim);
    w.kv_bytes = w.block_bytes * (size_t)w.n_blocks;
    w.kv.data = k_alloc(be, w.kv_bytes);
    ck_assert_ptr_nonnull(w.kv.data);
    w.kv.type = s.type;
    w.kv.n_blocks = w.n_blocks;
    w.kv.kv_heads = s.kv_heads;
    w.kv.head_dim = s.dim;
    w.norm_q = (float *)need((size_t)s.dim * 4);
    w.norm_k = (float *)need((size_t)s.dim * 4);
    w.freq = (float *)need((size_t)s.dim * 4);
    for (int i = 0; i < s.dim; i++) {
        w.norm_q[i] = 0.5f + 0.01f * (float)i;
        w.norm_k[i] = 1.5f - 0.005f * (float)i;
    }
    for (int i = 0; i < s.rot / 2; i++) w.freq[i] = powf(1e6f, -2.0f * (float)i / (float)s.rot);
    err e = {};
    if (s.norm) {
        ck_assert_int_eq(k_upload_vec(be, &w.q_norm, w.norm_q, s.dim, &e), 0);
        ck_assert_int_eq(k_upload_vec(be, &w.k_norm, w.norm_k, s.dim, &e), 0);
    }
    return w;
}

static inline void world_free(world *w)
{
    k_release_vec(w->be, &w->q_norm);
    k_release_vec(w->be, &w->k_norm);
    for (int i = 0; i < 3; i++) k_free(w->be, w->mem[i], w->mem_bytes[i]);
    k_free(w->be, w->kv.data, w->kv_bytes);
    free(w->qkv);
    free(w->o);
    free(w->table);
    free(w->norm_q);
    free(w->norm_k);
    free(w->freq);
}

/* Every byte of the pool 0xff: NaN in both types, as a freed request may leave it. */
static inline void world_poison(world *w)
{
    void *p = need(w->kv_bytes);
    memset(p, 0xff, w->kv_bytes);
    k_upload(w->be, w->kv.data, p, w->kv_bytes);
    free(p);
}

static inline uint8_t *world_pool(const world *w)
{
    uint8_t *p = (uint8_t *)need(w->kv_bytes);
    k_download(w->be, p, w->kv.data, w->kv_bytes);
    return p;
}

/* Where (position, K or V, head) lies in the pool, in 16-bit values. */
static inline size_t kv_at(const world *w, int seq, int pos, int v, int h)
{
    size_t block = (size_t)w->table[seq * w->max_blocks + pos / KV_PAGE];
    size_t head = (size_t)(v * w->s.kv_heads + h);
    return ((block * 2 * (size_t)w->s.kv_heads + head) * KV_PAGE + (size_t)(pos % KV_PAGE)) *
           (size_t)w->s.dim;
}

static inline float kv_float(const world *w, uint16_t v)
{
    return w->s.type == KV_F16 ? f16_to_f32(v) : bf16_to_f32(v);
}

/* ---- steps -------------------------------------------------------------------------------------
 */

typedef struct {
    int seq, from, to; /* rows [from, to) */
} span;

typedef enum { RUN_FUSED, RUN_APART, RUN_STORE } run_how;

/* Host arrays of a step. */
typedef struct {
    batch b;
    int32_t *ints;
} host_step;

static inline host_step step_of(const world *w, const span *sp, int n)
{
    int rows = 0;
    for (int i = 0; i < n; i++) rows += sp[i].to - sp[i].from;
    host_step h = {};
    h.ints = (int32_t *)need((size_t)(3 * rows + 3 * n + 1 + n * w->max_blocks) * 4);
    int32_t *pos = h.ints, *slot = pos + rows, *tok = slot + rows, *start = tok + rows;
    int32_t *ctx = start + n + 1, *prompt = ctx + n, *table = prompt + n;
    int t = 0;
    for (int i = 0; i < n; i++) {
        const int32_t *blocks = w->table + sp[i].seq * w->max_blocks;
        start[i] = t;
        ctx[i] = sp[i].to;
        prompt[i] = w->n_prompt[sp[i].seq];
        /* only the blocks a step may look at: the rest is out of range */
        for (int k = 0; k < w->max_blocks; k++)
            table[i * w->max_blocks + k] = k * KV_PAGE < sp[i].to ? blocks[k] : 1 << 28;
        for (int p = sp[i].from; p < sp[i].to; p++, t++) {
            tok[t] = 0;
            pos[t] = p;
            slot[t] = blocks[p / KV_PAGE] * KV_PAGE + p % KV_PAGE;
        }
    }
    start[n] = t;
    h.b.n_tok = rows;
    h.b.n_seq = n;
    h.b.n_out = n;
    h.b.max_blocks = w->max_blocks;
    h.b.tok = tok;
    h.b.pos = pos;
    h.b.slot = slot;
    h.b.seq_start = start;
    h.b.ctx_len = ctx;
    h.b.block_table = table;
    h.b.n_prompt = prompt;
    h.b.out_row = start; /* any rows: no logits are made */
    return h;
}

/* Device tensors of a step: qkv and cs filled, o all NaN.  They lie in the world's memory, so that
 * those of an earlier step are gone. */
typedef struct {
    tensor qkv, cs, o;
} step_mem;

static inline tensor step_tensor(world *w, int i, int rows, int cols, act_type t)
{
    int size = t == ACT_BF16 ? 2 : 4, ld = (cols * size + 63) / 64 * 64 / size;
    size_t bytes = (size_t)rows * (size_t)ld * (size_t)size;
    if (w->mem_bytes[i] < bytes) {
        k_free(w->be, w->mem[i], w->mem_bytes[i]);
        w->mem[i] = k_alloc(w->be, bytes);
        w->mem_bytes[i] = bytes;
        ck_assert_ptr_nonnull(w->mem[i]);
    }
    return (tensor){w->mem[i], rows, cols, ld, t};
}

static inline size_t tensor_bytes(tensor t)
{
    return (size_t)t.rows * (size_t)t.ld * (t.type == ACT_BF16 ? 2 : 4);
}

static inline step_mem step_mem_of(world *w, const batch *b, const span *sp, int n)
{
    step_mem m;
    m.qkv = step_tensor(w, 0, b->n_tok, w->cols, ACT_BF16);
    m.cs = step_tensor(w, 1, b->n_tok, w->s.rot, ACT_F32);
    m.o = step_tensor(w, 2, b->n_tok, w->out, ACT_BF16);
    size_t nq = tensor_bytes(m.qkv), nc = tensor_bytes(m.cs), no = tensor_bytes(m.o);
    uint8_t *all = (uint8_t *)need(nq + nc + no);
    memset(all, 0xff, nq + nc + no); /* NaN where nothing is */
    uint16_t *q = (uint16_t *)(void *)all;
    float *cs = (float *)(void *)(all + nq);
    int t = 0, half = w->s.rot / 2;
    for (int i = 0; i < n; i++)
        for (int p = sp[i].from; p < sp[i].to; p++, t++) {
            memcpy(q + (size_t)t * (size_t)m.qkv.ld,
                   w->qkv + (size_t)(w->first[sp[i].seq] + p) * (size_t)w->cols,
                   (size_t)w->cols * 2);
            for (int k = 0; k < half; k++) {
                cs[(size_t)t * (size_t)m.cs.ld + (size_t)k] = cosf((float)p * w->freq[k]);
                cs[(size_t)t * (size_t)m.cs.ld + (size_t)(half + k)] = sinf((float)p * w->freq[k]);
            }
        }
    k_upload(w->be, m.qkv.ptr, q, nq);
    k_upload(w->be, m.cs.ptr, cs, nc);
    k_upload(w->be, m.o.ptr, all + nq + nc, no);
    free(all);
    return m;
}

static inline void step_ops(world *w, step_mem *m, const batch *d, run_how how)
{
    const vec *qn = w->s.norm ? &w->q_norm : NULL, *kn = w->s.norm ? &w->k_norm : NULL;
    if (how == RUN_FUSED) {
        k_rope_attn(w->be, m->o, m->qkv, w->s.heads, qn, kn, 1e-6f, m->cs, &w->kv, d);
        return;
    }
    k_rope_store(w->be, m->qkv, w->s.heads, w->s.kv_heads, w->s.dim, qn, kn, 1e-6f, m->cs, &w->kv,
                 d);
    if (how == RUN_APART) k_attn_paged(w->be, m->o, m->qkv, w->s.heads, &w->kv, d);
}

/* Results of the step's rows into w->o; rows of padding must be untouched. */
static inline void step_take(world *w, const step_mem *m, const span *sp, int n)
{
    uint16_t *o = (uint16_t *)need(tensor_bytes(m->o));
    k_download(w->be, o, m->o.ptr, tensor_bytes(m->o));
    size_t ld = (size_t)m->o.ld;
    int t = 0;
    for (int i = 0; i < n; i++)
        for (int p = sp[i].from; p < sp[i].to; p++, t++)
            memcpy(w->o + (size_t)(w->first[sp[i].seq] + p) * (size_t)w->out, o + (size_t)t * ld,
                   (size_t)w->out * 2);
    for (int r = 0; r < m->o.rows; r++)
        for (size_t c = r < t ? (size_t)w->out : 0; c < ld; c++)
            ck_assert_msg(o[(size_t)r * ld + c] == 0xffff, "stray write to o: row %d, %zu", r, c);
    free(o);
}

/* How steps are cut and launched; results must not depend on it. */
static struct {
    int parts;   /* partial results at most; -1: as the plan likes */
    int at_once; /* items under way at a time, where parts >= 0 */
    bool eager;  /* grids for this step's work only, not for every step of the bucket */
} rig_how = {-1, 1 << 20, false};

/* Host step to the device, with the plan as rig_how wants it. */
static inline batch step_up(world *w, const host_step *h)
{
    static int32_t *plan; /* stays until the next step: launches read it */
    cuda_state *st = cuda_of(w->be);
    batch d = k_batch(w->be, &h->b);
    if (rig_how.eager) d.bucket = 0;
    if (rig_how.parts < 0) return d;
    free(plan);
    plan = (int32_t *)need(cuda_plan_words(&st->limits) * sizeof *plan);
    attn_plan_fill(&h->b, st->invariant, rig_how.parts, rig_how.at_once, plan);
    k_upload(w->be, (void *)st->plan, plan, cuda_plan_used(plan) * sizeof *plan);
    st->plan_h = plan;
    return d;
}

static inline void step_run(world *w, const span *sp, int n, run_how how)
{
    host_step h = step_of(w, sp, n);
    batch d = step_up(w, &h);
    step_mem m = step_mem_of(w, &d, sp, n);
    step_ops(w, &m, &d, how);
    err e = {};
    ck_assert_msg(k_sync(w->be, &e) == 0, "%s", e.msg);
    if (how != RUN_STORE) step_take(w, &m, sp, n);
    free(h.ints);
}

/* All but the last `last` positions of every sequence into the pages. */
static inline void world_store(world *w, int last)
{
    span sp[MAX_SEQ];
    int n = 0;
    for (int s = 0; s < w->n_seq; s++)
        if (w->len[s] > last) sp[n++] = (span){s, 0, w->len[s] - last};
    if (n) step_run(w, sp, n, RUN_STORE);
}

/* ---- the same in double -------------------------------------------------------------------------
 */

/* Head h of a row (q heads, k heads, v heads), normed and rotated. */
static inline void head_ref(const world *w, int seq, int pos, int h, double *x)
{
    const shape *s = &w->s;
    const uint16_t *src = w->qkv + (size_t)(w->first[seq] + pos) * (size_t)w->cols + h * s->dim;
    const float *norm = h < s->heads ? w->norm_q : w->norm_k;
    double squares = 0;
    for (int i = 0; i < s->dim; i++) {
        x[i] = bf16_to_f32(src[i]);
        squares += x[i] * x[i];
    }
    if (h >= s->heads + s->kv_heads) return;
    double r = 1 / sqrt(squares / s->dim + 1e-6);
    for (int i = 0; i < s->dim && s->norm; i++) x[i] *= r * norm[i];
    for (int i = 0; i < s->rot / 2; i++) {
        float a = (float)pos * w->freq[i];
        double c = cosf(a), n = sinf(a), y = x[i + s->rot / 2];
        x[i + s->rot / 2] = y * c + x[i] * n;
        x[i] = x[i] * c - y * n;
    }
}

/* Query head h at pos over the pages, q rounded to the KV type as the kernels do. */
static inline void attend_ref(const world *w, const uint16_t *pool, int seq, int pos, int h,
                              double *out)
{
    int d = w->s.dim, kv = h / (w->s.heads / w->s.kv_heads), n = pos + 1;
    double q[256], best = -INFINITY, all = 0;
    double *score = (double *)need((size_t)n * sizeof *score);
    head_ref(w, seq, pos, h, q);
    for (int i = 0; i < d; i++)
        q[i] = w->s.type == KV_F16 ? f16_to_f32(f32_to_f16((float)q[i]))
                                   : bf16_to_f32(f32_to_bf16((float)q[i]));
    for (int p = 0; p < n; p++) {
        const uint16_t *k = pool + kv_at(w, seq, p, 0, kv);
        score[p] = 0;
        for (int i = 0; i < d; i++) score[p] += q[i] * (double)kv_float(w, k[i]);
        score[p] /= sqrt(d);
        best = score[p] > best ? score[p] : best;
    }
    for (int i = 0; i < d; i++) out[i] = 0;
    for (int p = 0; p < n; p++) {
        const uint16_t *v = pool + kv_at(w, seq, p, 1, kv);
        double e = exp(score[p] - best);
        all += e;
        for (int i = 0; i < d; i++) out[i] += e * (double)kv_float(w, v[i]);
    }
    for (int i = 0; i < d; i++) out[i] /= all;
    free(score);
}

typedef struct {
    double error, size;
} measure;

static inline void measure_add(measure *m, double got, double want)
{
    m->error += (got - want) * (got - want); /* NaN stays */
    m->size += want * want;
}
static inline double measure_rel(const measure *m)
{
    return sqrt(m->error / m->size);
}

/* Root mean square error of one row's output, relative. */
static inline void row_error(const world *w, const uint16_t *pool, int seq, int pos, measure *m)
{
    double want[256];
    const uint16_t *o = w->o + (size_t)(w->first[seq] + pos) * (size_t)w->out;
    for (int h = 0; h < w->s.heads; h++) {
        attend_ref(w, pool, seq, pos, h, want);
        for (int i = 0; i < w->s.dim; i++)
            measure_add(m, (double)bf16_to_f32(o[h * w->s.dim + i]), want[i]);
    }
}
/* The same for the K and V of a position. */
static inline void kv_error(const world *w, const uint16_t *pool, int seq, int pos, measure *m)
{
    double want[256];
    for (int h = 0; h < 2 * w->s.kv_heads; h++) {
        head_ref(w, seq, pos, w->s.heads + h, want);
        const uint16_t *x = pool + kv_at(w, seq, pos, h / w->s.kv_heads, h % w->s.kv_heads);
        for (int i = 0; i < w->s.dim; i++) measure_add(m, (double)kv_float(w, x[i]), want[i]);
    }
}

/* ref's outputs [len][out] of a sequence, all its rows as one step. */
static inline float *ref_rows(const world *w, int seq)
{
    const shape *s = &w->s;
    int n = w->len[seq], half = s->rot / 2;
    backend *ref = open_backend("ref", NULL, 1);
    int blocks = (n + ref->kv_block - 1) / ref->kv_block;
    int32_t *ints = (int32_t *)need((size_t)(2 * n + blocks) * sizeof *ints);
    int32_t *pos = ints, *slot = ints + n, *table = ints + 2 * n, start[2] = {0, n};
    for (int i = 0; i < n; i++) pos[i] = slot[i] = i;
    for (int i = 0; i < blocks; i++) table[i] = i;
    float *qkv = (float *)need((size_t)n * (size_t)w->cols * 4);
    float *cs = (float *)need((size_t)n * (size_t)s->rot * 4);
    float *o = (float *)need((size_t)n * (size_t)w->out * 4);
    for (int i = 0; i < n * w->cols; i++)
        qkv[i] = bf16_to_f32(w->qkv[(size_t)w->first[seq] * (size_t)w->cols + (size_t)i]);
    for (int p = 0; p < n; p++)
        for (int k = 0; k < half; k++) {
            cs[p * s->rot + k] = cosf((float)p * w->freq[k]);
            cs[p * s->rot + half + k] = sinf((float)p * w->freq[k]);
        }
    size_t bytes = ref->op->kv_block_bytes(s->type, s->kv_heads, s->dim) * (size_t)blocks;
    kv_pages kv = {k_alloc(ref, bytes), s->type, blocks, s->kv_heads, s->dim};
    vec qn = {w->norm_q, s->dim}, kn = {w->norm_k, s->dim};
    batch b = {};
    b.n_tok = n;
    b.n_seq = 1;
    b.max_blocks = blocks;
    b.pos = pos;
    b.slot = slot;
    b.seq_start = start;
    b.ctx_len = &n;
    b.block_table = table;
    tensor tq = {qkv, n, w->cols, w->cols, ACT_F32}, tc = {cs, n, s->rot, s->rot, ACT_F32};
    tensor to = {o, n, w->out, w->out, ACT_F32};
    k_rope_attn(ref, to, tq, s->heads, s->norm ? &qn : NULL, s->norm ? &kn : NULL, 1e-6f, tc, &kv,
                &b);
    err e = {};
    ck_assert_int_eq(k_sync(ref, &e), 0);
    k_free(ref, kv.data, bytes);
    backend_close(ref);
    free(ints);
    free(qkv);
    free(cs);
    return o;
}

#endif
