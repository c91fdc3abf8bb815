/* norm_rope.c - the row-wise ops: norms, activation, residual add, rotary tables, and writing
 * rotated keys and values into their pages.  Rows are independent; the functions that do one row
 * are per instruction set (norm_rope_body.h, attention_body.h).
 * Refuses nothing: kernels.c checked the shapes.  Thread: as a backend. */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

enum {
    SHARE_VALUES = 8192, /* below so many values a region costs more than it saves */
    BAND_ROWS = 16
};

/* Runs fn over bands of rows, on all threads if there is work enough. */
static void run_bands(backend *be, pool_bands *bands, int rows, size_t values, pool_fn *fn,
                      void *arg)
{
    pool *p = cpu_of(be)->pool;
    pool_bands_init(bands, p, rows, BAND_ROWS);
    if (values < SHARE_VALUES || rows == 1) pool_run_alone(p, fn, arg);
    else pool_run(p, fn, arg);
}

static size_t values_of(tensor t)
{
    return (size_t)t.rows * (size_t)t.cols;
}

/* ---- gather, norm, glu, add --------------------------------------------------------------------
 */

typedef struct {
    pool_bands bands;
    const cpu_row_ops *op;
    tensor y, x;
    const int32_t *row; /* gather: [y.rows] */
    const float *w;     /* norm: [cols] */
    float eps;
} row_job;

static void gather_band(void *arg, int id, int n)
{
    (void)id, (void)n;
    row_job *j = arg;
    for (int r, hi; pool_band(&j->bands, &r, &hi);)
        for (; r < hi; r++)
            memcpy(tensor_row(j->y, r), tensor_row(j->x, j->row[r]),
                   (size_t)j->y.cols * sizeof(float));
}

void cpu_gather_rows(backend *be, tensor y, tensor x, const int32_t *row)
{
    row_job j = {.y = y, .x = x, .row = row};
    run_bands(be, &j.bands, y.rows, values_of(y), gather_band, &j);
}

static void norm_band(void *arg, int id, int n)
{
    (void)id, (void)n;
    row_job *j = arg;
    for (int r, hi; pool_band(&j->bands, &r, &hi);)
        for (; r < hi; r++)
            j->op->rms_norm(tensor_row(j->y, r), tensor_row(j->x, r), j->w, j->x.cols, j->eps);
}

void cpu_rms_norm(backend *be, tensor y, tensor x, const vec *w, float eps)
{
    row_job j = {.op = cpu_of(be)->rows, .y = y, .x = x, .w = w->v, .eps = eps};
    run_bands(be, &j.bands, y.rows, values_of(y), norm_band, &j);
}

static void glu_band(void *arg, int id, int n)
{
    (void)id, (void)n;
    row_job *j = arg;
    for (int r, hi; pool_band(&j->bands, &r, &hi);)
        for (; r < hi; r++) {
            const float *gate = tensor_row(j->x, r);
            j->op->glu(tensor_row(j->y, r), gate, gate + j->y.cols, j->y.cols);
        }
}

void cpu_glu(backend *be, tensor y, tensor gate_up)
{
    row_job j = {.op = cpu_of(be)->rows, .y = y, .x = gate_up};
    run_bands(be, &j.bands, y.rows, values_of(gate_up), glu_band, &j);
}

static void add_band(void *arg, int id, int n)
{
    (void)id, (void)n;
    row_job *j = arg;
    for (int r, hi; pool_band(&j->bands, &r, &hi);)
        for (; r < hi; r++) j->op->add(tensor_row(j->y, r), tensor_row(j->x, r), j->y.cols);
}

void cpu_add(backend *be, tensor y, tensor x)
{
    row_job j = {.op = cpu_of(be)->rows, .y = y, .x = x};
    run_bands(be, &j.bands, y.rows, values_of(y), add_band, &j);
}

/* ---- rotary tables -----------------------------------------------------------------------------
 */

typedef struct {
    pool_bands bands;
    tensor cs;
    const int32_t *pos; /* [cs.rows] */
    const rope_spec *rope;
} table_job;

/* The angle is the f32 product that Hugging Face takes; its cosine and sine are those of a double
 * rounded once, so a table does not depend on the quality of a vector library. */
static void table_band(void *arg, int id, int n)
{
    (void)id, (void)n;
    table_job *j = arg;
    int half = j->rope->dim / 2;
    for (int r, hi; pool_band(&j->bands, &r, &hi);)
        for (; r < hi; r++) {
            float *c = tensor_row(j->cs, r), *s = c + half;
            for (int i = 0; i < half; i++) {
                float angle = (float)j->pos[r] * j->rope->inv_freq[i];
                double sine, cosine;
                sincos((double)angle, &sine, &cosine);
                c[i] = (float)cosine * j->rope->scale;
                s[i] = (float)sine * j->rope->scale;
            }
        }
}

void cpu_rope_rows(backend *be, tensor cs, const int32_t *pos, const rope_spec *r)
{
    table_job j = {.cs = cs, .pos = pos, .rope = r};
    run_bands(be, &j.bands, cs.rows, 16 * values_of(cs), table_band, &j); /* ~20 ns a value */
}

/* ---- rotate and store ---------------------------------------------------------------------------
 */

typedef struct {
    pool_bands bands;
    const cpu_state *cpu;
    tensor qkv, cs;
    int heads, head_dim;
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    float eps;
    kv_view kv;
    const int32_t *slot; /* [qkv.rows] */
} store_job;

/* x[n] followed by zeros up to the padded head dim, if there is a difference. */
static const float *padded(const store_job *j, const float *x, float *room)
{
    if (j->head_dim == j->kv.dim) return x;
    memcpy(room, x, (size_t)j->head_dim * sizeof *x);
    memset(room + j->head_dim, 0, (size_t)(j->kv.dim - j->head_dim) * sizeof *x);
    return room;
}

static void store_row(const store_job *j, int r)
{
    const cpu_row_ops *op = j->cpu->rows;
    int hd = j->head_dim, kv_heads = j->kv.kv_heads;
    float *x = tensor_row(j->qkv, r), k_room[CPU_HEAD_DIM_MAX], v_room[CPU_HEAD_DIM_MAX];
    const float *cs = tensor_row(j->cs, r);
    for (int h = 0; h < j->heads + kv_heads; h++, x += hd) {
        const float *norm = h < j->heads ? j->q_norm : j->k_norm;
        if (norm) op->rms_norm(x, x, norm, hd, j->eps);
        op->rotate(x, cs, j->cs.cols);
    }
    const float *k = x - (size_t)kv_heads * (size_t)hd, *v = x;
    int block = j->slot[r] / CPU_KV_BLOCK, at = j->slot[r] % CPU_KV_BLOCK;
    for (int h = 0; h < kv_heads; h++, k += hd, v += hd)
        j->cpu->attn->store(&j->kv, kv_block(&j->kv, block, h), at, padded(j, k, k_room),
                            padded(j, v, v_room));
}

static void store_band(void *arg, int id, int n)
{
    (void)id, (void)n;
    store_job *j = arg;
    for (int r, hi; pool_band(&j->bands, &r, &hi);)
        for (; r < hi; r++) store_row(j, r);
}

void cpu_rope_store(backend *be, tensor qkv, int heads, int kv_heads, int head_dim,
                    const vec *q_norm, const vec *k_norm, float eps, tensor cs, kv_pages *kv,
                    const batch *b)
{
    (void)kv_heads; /* that of kv, says kernels.c */
    if (head_dim > CPU_HEAD_DIM_MAX) {
        k_fault(be, "rope_store", "head_dim %d is above %d", head_dim, CPU_HEAD_DIM_MAX);
        return;
    }
    for (int r = 0; r < b->n_tok; r++)
        if (b->slot[r] < 0 || b->slot[r] / CPU_KV_BLOCK >= kv->n_blocks) {
            k_fault(be, "rope_store", "slot %d of %d blocks", b->slot[r], kv->n_blocks);
            return;
        }
    store_job j = {.cpu = cpu_of(be),
                   .qkv = qkv,
                   .cs = cs,
                   .heads = heads,
                   .head_dim = head_dim,
                   .q_norm = q_norm ? q_norm->v : NULL,
                   .k_norm = k_norm ? k_norm->v : NULL,
                   .eps = eps,
                   .kv = kv_view_of(kv),
                   .slot = b->slot};
    run_bands(be, &j.bands, b->n_tok, values_of(qkv), store_band, &j);
}

size_t cpu_kv_block_bytes(kv_type t, int kv_heads, int head_dim)
{
    return 2 * kv_half_bytes(t, kv_dim(head_dim)) * (size_t)kv_heads;
}
