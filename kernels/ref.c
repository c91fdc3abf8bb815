/* ref.c - owns the executable spec: every op in the plainest C, one thread, no SIMD.  Sums over
 * features or positions are in double and rounded once to f32, so ref is also the more exact side
 * of every comparison.  Weights are kept as f32 (four bytes a value: ref is for tests and for
 * finding faults, not for serving).  Refuses only what memory refuses.  Thread: see kernels.h. */
#include "kernels/backend.h"
#include "kernels/formats.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum { REF_KV_BLOCK = 32, Q8_GROUP = 32 };

/* ---- memory ------------------------------------------------------------------------------- */

static void *ref_alloc(backend *be, size_t bytes)
{
    (void)be;
    if (bytes > SIZE_MAX - 64) return NULL;
    size_t n = (bytes + 63) / 64 * 64;
    void *p = aligned_alloc(64, n ? n : 64);
    if (p) memset(p, 0, n);
    return p;
}

static void ref_release(backend *be, void *p, size_t bytes)
{
    (void)be;
    (void)bytes;
    free(p);
}

static int ref_sync(backend *be, err *e)
{
    (void)be;
    (void)e;
    return 0;
}

/* ---- weights: one f32 segment [out][in], whatever the parts ------------------------------- */

static size_t ref_weight_bytes(int type, int64_t rows, int64_t in)
{
    (void)type;
    return (size_t)rows * (size_t)in * sizeof(float);
}

static void ref_release_weight(backend *be, weight *w)
{
    for (int i = 0; i < w->n_seg; i++) ref_release(be, w->seg[i].data, w->seg[i].bytes);
    free(w->bias);
    *w = (weight){0};
}

static int ref_upload_weight(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                             weight_join join, err *e)
{
    int out = 0;
    bool has_bias = false;
    for (int i = 0; i < n_parts; i++) {
        out += parts[i].rows;
        has_bias |= parts[i].bias != NULL;
    }
    *w = (weight){.out = out, .in = in, .join = join, .n_seg = 1};
    size_t bytes = ref_weight_bytes(DT_F32, out, in);
    w->seg[0].type = parts[0].type;
    w->seg[0].rows = out;
    w->seg[0].data = ref_alloc(be, bytes);
    w->seg[0].bytes = bytes;
    w->bytes = bytes + (has_bias ? (size_t)out * sizeof(float) : 0);
    if (has_bias) w->bias = ref_alloc(be, (size_t)out * sizeof(float));
    if (!w->seg[0].data || (has_bias && !w->bias)) {
        ref_release_weight(be, w);
        return err_set(e, ERR_NOMEM, "cannot allocate %zu MiB for a weight of %d x %d in f32",
                       bytes >> 20, out, in);
    }
    float *to = w->seg[0].data, *bias = w->bias; /* [out][in], [out] */
    for (int i = 0; i < n_parts; i++) {
        size_t row_bytes;
        if (!dtype_row_bytes(parts[i].type, in, &row_bytes)) assert(!"checked by k_upload_weight");
        const uint8_t *src = parts[i].data;
        for (int r = 0; r < parts[i].rows; r++, src += row_bytes, to += in)
            dequant_row(parts[i].type, src, to, in);
        if (parts[i].bias) memcpy(bias, parts[i].bias, (size_t)parts[i].rows * sizeof *bias);
        if (bias) bias += parts[i].rows;
    }
    return 0;
}

static const float *weight_row(const weight *w, int row)
{
    return (const float *)w->seg[0].data + (size_t)row * (size_t)w->in;
}

/* ---- rows and math ------------------------------------------------------------------------ */

static void ref_embed(backend *be, tensor y, const int32_t *tok, const weight *w)
{
    int n = w->rows_all ? w->rows_all : w->out;
    for (int r = 0; r < y.rows; r++) {
        int row = tok[r] - w->row0;
        if (tok[r] < 0 || tok[r] >= n) {
            k_fault(be, "embed", "token %d of %d", tok[r], n);
            return;
        }
        if (row < 0 || row >= w->out)
            memset(tensor_row(y, r), 0, (size_t)w->in * sizeof(float)); /* another rank's */
        else memcpy(tensor_row(y, r), weight_row(w, row), (size_t)w->in * sizeof(float));
    }
}

static void ref_gather_rows(backend *be, tensor y, tensor x, const int32_t *row)
{
    for (int r = 0; r < y.rows; r++) {
        if (row[r] < 0 || row[r] >= x.rows) {
            k_fault(be, "gather_rows", "row %d of %d", row[r], x.rows);
            return;
        }
        memcpy(tensor_row(y, r), tensor_row(x, row[r]), (size_t)x.cols * sizeof(float));
    }
}

static double dot(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static void ref_linear(backend *be, tensor y, tensor x, const weight *w)
{
    (void)be;
    for (int r = 0; r < x.rows; r++)
        for (int o = 0; o < w->out; o++) {
            double sum = dot(tensor_row(x, r), weight_row(w, o), w->in);
            tensor_row(y, r)[o] = (float)(sum + (w->bias ? (double)w->bias[o] : 0));
        }
}

/* y may be x. */
static void norm_row(float *y, const float *x, const float *w, int n, float eps)
{
    double scale = 1 / sqrt(dot(x, x, n) / n + (double)eps);
    for (int i = 0; i < n; i++) y[i] = (float)((double)x[i] * scale) * w[i];
}

static void ref_rms_norm(backend *be, tensor y, tensor x, const vec *w, float eps)
{
    (void)be;
    for (int r = 0; r < x.rows; r++) norm_row(tensor_row(y, r), tensor_row(x, r), w->v, w->n, eps);
}

static void ref_glu(backend *be, tensor y, tensor gate_up)
{
    (void)be;
    for (int r = 0; r < y.rows; r++) {
        const float *gate = tensor_row(gate_up, r), *up = gate + y.cols;
        for (int i = 0; i < y.cols; i++) {
            double g = (double)gate[i];
            tensor_row(y, r)[i] = (float)(g / (1 + exp(-g)) * (double)up[i]);
        }
    }
}

static void ref_add(backend *be, tensor y, tensor x)
{
    (void)be;
    for (int r = 0; r < x.rows; r++)
        for (int i = 0; i < x.cols; i++) tensor_row(y, r)[i] += tensor_row(x, r)[i];
}

/* The plain C that the CPU runs too: a few additions a token. */
void host_pool(backend *be, tensor y, tensor x, double *sum, const pool_span *span)
{
    for (int i = 0; i < y.rows; i++) {
        double *s = sum + (size_t)span[i].place * (size_t)x.cols;
        if (span[i].first < 0 || span[i].n < 0 || span[i].first > x.rows - span[i].n) {
            k_fault(be, "pool", "rows %d + %d of %d", span[i].first, span[i].n, x.rows);
            return;
        }
        if (span[i].begin) memset(s, 0, (size_t)x.cols * sizeof *s);
        for (int r = span[i].first; r < span[i].first + span[i].n; r++)
            for (int c = 0; c < x.cols; c++) s[c] += (double)tensor_row(x, r)[c];
        for (int c = 0; c < x.cols; c++) tensor_row(y, i)[c] = (float)s[c];
    }
}

/* ---- position ----------------------------------------------------------------------------- */

/* The angle is rounded to f32 as in the reference implementation of these models. */
static void ref_rope_rows(backend *be, tensor cs, const int32_t *pos, const rope_spec *r)
{
    (void)be;
    for (int row = 0; row < cs.rows; row++)
        for (int i = 0; i < r->dim / 2; i++) {
            float angle = (float)pos[row] * r->inv_freq[i];
            tensor_row(cs, row)[i] = (float)cos((double)angle) * r->scale;
            tensor_row(cs, row)[r->dim / 2 + i] = (float)sin((double)angle) * r->scale;
        }
}

static void rotate(float *x, const float *cs, int dim)
{
    for (int i = 0; i < dim / 2; i++) {
        float a = x[i], b = x[i + dim / 2], c = cs[i], s = cs[dim / 2 + i];
        x[i] = a * c - b * s;
        x[i + dim / 2] = b * c + a * s;
    }
}

/* ---- KV pages: [block][kv_head][K, V][position][vector of head_dim] ----------------------- */

/* A Q8_0 vector is f32 scales of 32 values, then the bytes; the last group may be short.  Whole
 * floats, so that the next vector's scales are aligned. */
static size_t kv_vector_bytes(kv_type t, int head_dim)
{
    size_t n = (size_t)head_dim;
    switch (t) {
    case KV_F32: return 4 * n;
    case KV_F16:
    case KV_BF16: return 2 * n;
    default: return (n + Q8_GROUP - 1) / Q8_GROUP * sizeof(float) + (n + 3) / 4 * 4;
    }
}

static size_t ref_kv_block_bytes(kv_type t, int kv_heads, int head_dim)
{
    return (size_t)kv_heads * 2 * REF_KV_BLOCK * kv_vector_bytes(t, head_dim);
}

/* Vector of K (which 0) or V (1) of one head at one slot. */
static uint8_t *kv_vector(const kv_pages *kv, size_t slot, int head, int which)
{
    size_t bytes = kv_vector_bytes(kv->type, kv->head_dim);
    size_t at = (slot / REF_KV_BLOCK * (size_t)kv->kv_heads + (size_t)head) * 2 + (size_t)which;
    return (uint8_t *)kv->data + (at * REF_KV_BLOCK + slot % REF_KV_BLOCK) * bytes;
}

static void kv_store_q8(uint8_t *to, const float *x, int n)
{
    float *scale = (float *)(void *)to;
    int8_t *q = (int8_t *)(scale + (n + Q8_GROUP - 1) / Q8_GROUP);
    for (int g = 0; g < n; g += Q8_GROUP, scale++) {
        int end = n - g < Q8_GROUP ? n : g + Q8_GROUP;
        float amax = 0;
        for (int i = g; i < end; i++) amax = fmaxf(amax, fabsf(x[i]));
        *scale = amax / 127;
        for (int i = g; i < end; i++) q[i] = (int8_t)(amax > 0 ? rintf(x[i] / amax * 127) : 0);
    }
}

static void kv_store(const kv_pages *kv, uint8_t *to, const float *x)
{
    int n = kv->head_dim;
    if (kv->type == KV_Q8_0) {
        kv_store_q8(to, x, n);
        return;
    }
    for (int i = 0; i < n; i++) {
        uint16_t half = kv->type == KV_F16 ? f32_to_f16(x[i]) : f32_to_bf16(x[i]);
        if (kv->type == KV_F32) memcpy(to + 4 * i, x + i, 4);
        else memcpy(to + 2 * i, &half, 2);
    }
}

static float kv_value(const kv_pages *kv, const uint8_t *from, int i)
{
    const float *f32 = (const float *)(const void *)from;
    const uint16_t *half = (const uint16_t *)(const void *)from;
    switch (kv->type) {
    case KV_F32: return f32[i];
    case KV_F16: return f16_to_f32(half[i]);
    case KV_BF16: return bf16_to_f32(half[i]);
    default: {
        int groups = (kv->head_dim + Q8_GROUP - 1) / Q8_GROUP;
        return f32[i / Q8_GROUP] * (float)((const int8_t *)(f32 + groups))[i];
    }
    }
}

static void ref_rope_store(backend *be, tensor qkv, int heads, int kv_heads, int head_dim,
                           const vec *q_norm, const vec *k_norm, float eps, tensor cs, kv_pages *kv,
                           const batch *b)
{
    for (int r = 0; r < b->n_tok; r++) {
        float *row = tensor_row(qkv, r);
        if (b->slot[r] < 0 || b->slot[r] / REF_KV_BLOCK >= kv->n_blocks) {
            k_fault(be, "rope_store", "slot %d of %d blocks", b->slot[r], kv->n_blocks);
            return;
        }
        for (int h = 0; h < heads + kv_heads; h++) {
            float *x = row + (size_t)h * (size_t)head_dim;
            const vec *norm = h < heads ? q_norm : k_norm;
            if (norm) norm_row(x, x, norm->v, head_dim, eps);
            rotate(x, tensor_row(cs, r), cs.cols);
        }
        for (int h = 0; h < 2 * kv_heads; h++)
            kv_store(kv, kv_vector(kv, (size_t)b->slot[r], h % kv_heads, h / kv_heads),
                     row + (size_t)(heads + h) * (size_t)head_dim);
    }
}

/* ---- attention ---------------------------------------------------------------------------- */

/* One query head q[head_dim] over positions 0..n-1 of the sequence whose blocks are table[].
 * score[n] and sum[head_dim] are scratch. */
static void attend(float *o, const float *q, int head, int n, const int32_t *table,
                   const kv_pages *kv, double *score, double *sum)
{
    int hd = kv->head_dim;
    double best = -INFINITY, total = 0;
    for (int p = 0; p < n; p++) {
        size_t slot = (size_t)table[p / REF_KV_BLOCK] * REF_KV_BLOCK + (size_t)(p % REF_KV_BLOCK);
        const uint8_t *k = kv_vector(kv, slot, head, 0);
        double s = 0;
        for (int i = 0; i < hd; i++) s += (double)q[i] * (double)kv_value(kv, k, i);
        score[p] = s / sqrt(hd);
        if (score[p] > best) best = score[p];
    }
    for (int i = 0; i < hd; i++) sum[i] = 0;
    for (int p = 0; p < n; p++) {
        size_t slot = (size_t)table[p / REF_KV_BLOCK] * REF_KV_BLOCK + (size_t)(p % REF_KV_BLOCK);
        const uint8_t *v = kv_vector(kv, slot, head, 1);
        double e = exp(score[p] - best);
        total += e;
        for (int i = 0; i < hd; i++) sum[i] += e * (double)kv_value(kv, v, i);
    }
    for (int i = 0; i < hd; i++) o[i] = (float)(sum[i] / total);
}

static void ref_attn_paged(backend *be, tensor o, tensor qkv, int heads, const kv_pages *kv,
                           const batch *b)
{
    int hd = kv->head_dim, group = heads / kv->kv_heads, longest = 0;
    for (int s = 0; s < b->n_seq; s++)
        if (b->ctx_len[s] > longest) longest = b->ctx_len[s];
    double *score = malloc(((size_t)longest + (size_t)hd) * sizeof *score);
    if (!score) {
        k_fault(be, "attn_paged", "out of memory for %d scores", longest);
        return;
    }
    for (int s = 0; s < b->n_seq; s++)
        for (int r = b->seq_start[s]; r < b->seq_start[s + 1]; r++) {
            int n = b->full ? b->ctx_len[s] : b->ctx_len[s] - (b->seq_start[s + 1] - 1 - r);
            const int32_t *table = b->block_table + (size_t)s * (size_t)b->max_blocks;
            for (int h = 0; h < heads; h++)
                attend(tensor_row(o, r) + (size_t)h * (size_t)hd,
                       tensor_row(qkv, r) + (size_t)h * (size_t)hd, h / group, n, table, kv, score,
                       score + longest);
        }
    free(score);
}

/* ---- the backend -------------------------------------------------------------------------- */

static const backend_ops ref_ops = {
    .name = "ref",
    .alloc = ref_alloc,
    .release = ref_release,
    .upload_weight = ref_upload_weight,
    .release_weight = ref_release_weight,
    .weight_bytes = ref_weight_bytes,
    .kv_block_bytes = ref_kv_block_bytes,
    .sync = ref_sync,
    .embed = ref_embed,
    .gather_rows = ref_gather_rows,
    .linear = ref_linear,
    .rms_norm = ref_rms_norm,
    .glu = ref_glu,
    .add = ref_add,
    .rope_rows = ref_rope_rows,
    .rope_store = ref_rope_store,
    .attn_paged = ref_attn_paged,
    .pool = host_pool,
    .sample = ref_sample,
    .split_best = ref_split_best,
    .split_mass = ref_split_mass,
};

backend *ref_open(const backend_options *o, err *e)
{
    (void)o; /* isa and threads are choices of cpu; ref has one of each */
    backend *be = calloc(1, sizeof *be);
    if (!be) {
        err_set(e, ERR_NOMEM, "out of memory opening the ref backend");
        return NULL;
    }
    be->op = &ref_ops;
    be->kv_block = REF_KV_BLOCK;
    be->threads = 1;
    be->exact_f32 = be->invariant = true;
    memcpy(be->isa, "C", 2);
    return be;
}

void ref_close(backend *be)
{
    free(be);
}
