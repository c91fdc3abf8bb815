/* kernels.c - owns the list of backends, the scratch arena, the fault latch and the k_* wrappers.
 * Refuses: shapes that do not fit together (an assert: they come from the model, never from a
 * client), backends and counts this machine lacks.  Thread: as a backend, see kernels.h. */
#include "kernels/kernels.h"
#include "base/log.h"
#include "base/sysinfo.h"
#include "kernels/backend.h"
#include "kernels/comm.h"
#include "kernels/cpu/cpu.h"
#include "kernels/trace.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "auto" is the first one whose device is there. */
static const backend_entry backends[] = {
#ifdef HAVE_CUDA
    {"cuda", cuda_open, cuda_close, cuda_there},
#endif
    {"cpu", cpu_open, cpu_close, NULL},
    {"ref", ref_open, ref_close, NULL},
#ifdef HAVE_CUDA_EMU
    {"cuda-emu", cuda_open, cuda_close, NULL},
#endif
};
enum { N_BACKENDS = sizeof backends / sizeof *backends };

static const backend_entry *first_there(void)
{
    for (int i = 0; i < N_BACKENDS; i++) {
        char why[160];
        if (!backends[i].there || backends[i].there(why, sizeof why)) return &backends[i];
        log_info("%s: running on the CPU", why);
    }
    assert(!"the cpu is always there");
    return NULL;
}

static const backend_entry *find_entry(const char *name, err *e)
{
    char all[80] = "auto";
    if (!name || !strcmp(name, "auto")) return first_there();
    for (int i = 0; i < N_BACKENDS; i++) {
        if (!strcmp(name, backends[i].name)) return &backends[i];
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, ", %s", backends[i].name);
    }
    err_set(e, ERR_INVALID, "this build has no back end '%.40s'; --device can be %s", name, all);
    return NULL;
}

backend *backend_open(const backend_options *o, err *e)
{
    const backend_entry *b = find_entry(o->name, e);
    if (!b) return NULL;
    backend_options named = *o;
    named.name = b->name;
    backend *be = b->open(&named, e);
    if (!be) return NULL;
    if (o->no_graphs && !be->op->replay) log_warn("--no-graphs: %s records nothing", b->name);
    if (o->scratch_bytes && k_scratch_reserve(be, o->scratch_bytes, e)) {
        backend_close(be);
        return NULL;
    }
    return be;
}

void backend_close(backend *be)
{
    if (!be) return;
    if (be->scratch) be->op->release(be, be->scratch, be->scratch_cap);
    for (int i = 0; i < N_BACKENDS; i++)
        if (!strcmp(be->op->name, backends[i].name)) {
            backends[i].close(be);
            return;
        }
    assert(!"a listed backend");
}

int backend_cores(void)
{
    return sys_cpus();
}

/* ---- scratch ------------------------------------------------------------------------------ */

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

int k_scratch_reserve(backend *be, size_t bytes, err *e)
{
    assert(be->scratch_used == 0);
    if (bytes <= be->scratch_cap) return 0;
    char *p = be->op->alloc(be, bytes);
    if (!p) return err_set(e, ERR_NOMEM, "cannot allocate %zu MiB of scratch memory", bytes >> 20);
    if (be->scratch) be->op->release(be, be->scratch, be->scratch_cap);
    be->scratch = p;
    be->scratch_cap = bytes;
    return 0;
}

size_t k_scratch_mark(const backend *be)
{
    return be->scratch_used;
}

void k_scratch_release(backend *be, size_t mark)
{
    assert(mark <= be->scratch_used);
    be->scratch_used = mark;
}

static void *scratch_take(backend *be, size_t bytes)
{
    size_t left = be->scratch_cap - be->scratch_used;
    bytes = round_up(bytes, 64);
    assert(bytes <= left && "scratch: model_scratch_bytes is too small");
    void *p = be->scratch + be->scratch_used;
    be->scratch_used += bytes;
    if (be->scratch_used > be->scratch_peak) be->scratch_peak = be->scratch_used;
    return p;
}

static tensor scratch_of(backend *be, int rows, int cols, act_type type)
{
    size_t size = type == ACT_BF16 ? 2 : 4;
    int ld = (int)round_up((size_t)cols, 64 / size);
    void *p = scratch_take(be, (size_t)rows * (size_t)ld * size);
    return (tensor){p, rows, cols, ld, type};
}

tensor k_scratch(backend *be, int rows, int cols)
{
    return scratch_of(be, rows, cols, be->act);
}

tensor k_scratch_f32(backend *be, int rows, int cols)
{
    return scratch_of(be, rows, cols, ACT_F32);
}

/* Records lie [cols/32][rows], so ld is the distance between the blocks of a row. */
tensor k_scratch_q8(backend *be, int rows, int cols)
{
    assert(cols % 32 == 0);
    void *p = scratch_take(be, (size_t)rows * (size_t)(cols / 32) * ACT_Q8_BYTES);
    return (tensor){p, rows, cols, rows, ACT_Q8};
}

/* ---- faults ------------------------------------------------------------------------------- */

void k_fault(backend *be, const char *op, const char *fmt, ...)
{
    if (be->fault[0]) return;
    va_list ap;
    int n = snprintf(be->fault, sizeof be->fault, "%s: ", op);
    if (n < 0 || n >= (int)sizeof be->fault) return;
    va_start(ap, fmt);
    vsnprintf(be->fault + n, sizeof be->fault - (size_t)n, fmt, ap);
    va_end(ap);
}

int k_sync(backend *be, err *e)
{
    int rc = be->op->sync(be, e);
    if (be->fault[0]) return err_set(e, ERR_DEVICE, "%s", be->fault);
    return rc;
}

/* ---- moving data, recording ----------------------------------------------------------------- */

void k_upload(backend *be, void *dst, const void *src, size_t bytes)
{
    if (be->op->upload) be->op->upload(be, dst, src, bytes);
    else memcpy(dst, src, bytes);
}

void k_download(backend *be, void *dst, const void *src, size_t bytes)
{
    if (be->op->download) be->op->download(be, dst, src, bytes);
    else memcpy(dst, src, bytes);
}

int k_batch_reserve(backend *be, const batch_limits *l, err *e)
{
    return be->op->batch_reserve ? be->op->batch_reserve(be, l, e) : 0;
}

batch k_batch(backend *be, const batch *b)
{
    batch device = *b;
    device.bucket = 0;
    if (be->op->batch_upload) be->op->batch_upload(be, b, &device);
    return device;
}

uint64_t k_mem_available(backend *be)
{
    return be->op->mem_available ? be->op->mem_available(be) : sys_mem_available();
}

/* A pass with collectives is recorded only where they can be. */
static bool may_record(const backend *be, const batch *b)
{
    return b->bucket && !be->trace.on && (!be->comm || be->comm->op->recordable);
}

bool k_replay(backend *be, const batch *b, tensor *logits)
{
    return may_record(be, b) && be->op->replay && be->op->replay(be, b, logits);
}

void k_record(backend *be, const batch *b)
{
    if (may_record(be, b) && be->op->record) be->op->record(be, b);
}

void k_record_end(backend *be, const batch *b, const tensor *logits)
{
    if (may_record(be, b) && be->op->record_end) be->op->record_end(be, b, logits);
}

bool k_can_overlap(const backend *be)
{
    return be->op->mark != NULL;
}

int k_mark(backend *be)
{
    return be->op->mark ? be->op->mark(be) : 0;
}

int k_wait(backend *be, int mark, err *e)
{
    if (!be->op->wait) return k_sync(be, e);
    int rc = be->op->wait(be, mark, e);
    if (be->fault[0]) return err_set(e, ERR_DEVICE, "%s", be->fault);
    return rc;
}

/* ---- memory and weights ------------------------------------------------------------------- */

void *k_alloc(backend *be, size_t bytes)
{
    return be->op->alloc(be, bytes);
}

void k_free(backend *be, void *p, size_t bytes)
{
    if (p) be->op->release(be, p, bytes);
}

/* The checks every backend relies on: types, shapes and that nothing overflows an int. */
static int check_parts(const weight_part *parts, int n_parts, int in, weight_join join, err *e)
{
    int64_t out = 0;
    if (n_parts < 1 || n_parts > WEIGHT_MAX_SEG)
        return err_set(e, ERR_INVALID, "a weight has %d parts; accepted: 1 to %d", n_parts,
                       WEIGHT_MAX_SEG);
    if (in < 1) return err_set(e, ERR_INVALID, "a weight has %d input features", in);
    for (int i = 0; i < n_parts; i++) {
        size_t bytes;
        dtype_traits t = dtype_of(parts[i].type);
        if (!t.name)
            return err_set(e, ERR_UNSUPPORTED, "weight type %d is not supported", parts[i].type);
        if (parts[i].rows < 1 || !dtype_row_bytes(parts[i].type, in, &bytes))
            return err_set(e, ERR_INVALID,
                           "a %s weight of %d x %d: rows must hold whole blocks of %d", t.name,
                           parts[i].rows, in, t.elems);
        out += parts[i].rows;
    }
    if (out > INT32_MAX - 64)
        return err_set(e, ERR_LIMIT, "a weight has %lld rows", (long long)out);
    if (join == JOIN_GLU && (n_parts != 2 || parts[0].rows != parts[1].rows))
        return err_set(e, ERR_INVALID, "gate and up must be two matrices of equal shape");
    return 0;
}

int k_upload_weight(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                    weight_join join, err *e)
{
    int rc = check_parts(parts, n_parts, in, join, e);
    return rc ? rc : be->op->upload_weight(be, w, parts, n_parts, in, join, e);
}

void k_release_weight(backend *be, weight *w)
{
    be->op->release_weight(be, w);
}

int k_upload_vec(backend *be, vec *v, const float *src, int n, err *e)
{
    size_t bytes = (size_t)n * sizeof *src;
    assert(n > 0);
    *v = (vec){be->op->alloc(be, bytes), n};
    if (!v->v) {
        *v = (vec){0};
        return err_set(e, ERR_NOMEM, "cannot allocate a vector of %d values", n);
    }
    k_upload(be, v->v, src, bytes);
    return 0;
}

void k_release_vec(backend *be, vec *v)
{
    if (v->v) be->op->release(be, v->v, (size_t)v->n * sizeof *v->v);
    *v = (vec){0};
}

/* ---- ops ---------------------------------------------------------------------------------- */

static bool is_f32(tensor t, int rows, int cols)
{
    return t.type == ACT_F32 && t.rows == rows && t.cols == cols && t.ld >= cols;
}

/* An activation: f32, or the type of a backend that has another. */
static bool is_act(const backend *be, tensor t, int rows, int cols)
{
    return t.type == be->act && t.rows == rows && t.cols == cols && t.ld >= cols;
}

/* What a matrix product may write: activations, or f32 (logits). */
static bool is_out(const backend *be, tensor t, int rows, int cols)
{
    return is_f32(t, rows, cols) || is_act(be, t, rows, cols);
}

void k_embed(backend *be, tensor y, const int32_t *tok, const weight *w)
{
    assert(is_act(be, y, y.rows, w->in));
    be->op->embed(be, y, tok, w);
    trace_output(be, "embed", y);
}

void k_gather_rows(backend *be, tensor y, tensor x, const int32_t *row)
{
    assert(is_act(be, y, y.rows, x.cols) && is_act(be, x, x.rows, x.cols));
    be->op->gather_rows(be, y, x, row);
    trace_output(be, "gather_rows", y);
}

/* Quantised rows are read only by a weight that k_glu_out_q8 said yes for. */
static bool is_input(backend *be, tensor x, const weight *w)
{
    if (x.type == ACT_Q8) return x.cols == w->in && k_glu_out_q8(be, w);
    return is_act(be, x, x.rows, w->in);
}

void k_linear(backend *be, tensor y, tensor x, const weight *w)
{
    assert(is_input(be, x, w) && is_out(be, y, x.rows, w->out));
    be->op->linear(be, y, x, w);
    trace_output(be, "linear", y);
}

void k_rms_norm(backend *be, tensor y, tensor x, const vec *w, float eps)
{
    assert(is_act(be, x, x.rows, w->n) && is_act(be, y, x.rows, w->n));
    be->op->rms_norm(be, y, x, w, eps);
    trace_output(be, "rms_norm", y);
}

void k_glu(backend *be, tensor y, tensor gate_up)
{
    assert(is_act(be, gate_up, y.rows, 2 * y.cols) && is_act(be, y, y.rows, y.cols));
    be->op->glu(be, y, gate_up);
    trace_output(be, "glu", y);
}

void k_add(backend *be, tensor y, tensor x)
{
    assert(is_act(be, y, x.rows, x.cols) && is_act(be, x, x.rows, x.cols));
    be->op->add(be, y, x);
    trace_output(be, "add", y);
}

void k_rope_rows(backend *be, tensor cs, const int32_t *pos, const rope_spec *r)
{
    assert(r->dim > 0 && r->dim % 2 == 0 && is_f32(cs, cs.rows, r->dim));
    be->op->rope_rows(be, cs, pos, r);
    trace_output(be, "rope_rows", cs);
}

void k_rope_store(backend *be, tensor qkv, int heads, int kv_heads, int head_dim, const vec *q_norm,
                  const vec *k_norm, float eps, tensor cs, kv_pages *kv, const batch *b)
{
    assert(is_act(be, qkv, b->n_tok, (heads + 2 * kv_heads) * head_dim));
    assert(is_f32(cs, b->n_tok, cs.cols) && cs.cols <= head_dim);
    assert(!q_norm || q_norm->n == head_dim);
    assert(!k_norm || k_norm->n == head_dim);
    assert(kv->kv_heads == kv_heads && kv->head_dim == head_dim);
    be->op->rope_store(be, qkv, heads, kv_heads, head_dim, q_norm, k_norm, eps, cs, kv, b);
    trace_output(be, "rope_store", qkv);
}

void k_attn_paged(backend *be, tensor o, tensor qkv, int heads, const kv_pages *kv, const batch *b)
{
    assert(heads > 0 && kv->kv_heads > 0 && heads % kv->kv_heads == 0);
    assert(is_act(be, qkv, b->n_tok, (heads + 2 * kv->kv_heads) * kv->head_dim));
    assert(is_act(be, o, b->n_tok, heads * kv->head_dim));
    be->op->attn_paged(be, o, qkv, heads, kv, b);
    trace_output(be, "attn_paged", o);
}

void k_rope_attn(backend *be, tensor o, tensor qkv, int heads, const vec *q_norm, const vec *k_norm,
                 float eps, tensor cs, kv_pages *kv, const batch *b)
{
    if (!be->op->rope_attn) {
        k_rope_store(be, qkv, heads, kv->kv_heads, kv->head_dim, q_norm, k_norm, eps, cs, kv, b);
        k_attn_paged(be, o, qkv, heads, kv, b);
        return;
    }
    assert(heads > 0 && kv->kv_heads > 0 && heads % kv->kv_heads == 0);
    assert(is_act(be, qkv, b->n_tok, (heads + 2 * kv->kv_heads) * kv->head_dim));
    assert(is_act(be, o, b->n_tok, heads * kv->head_dim));
    assert(is_f32(cs, b->n_tok, cs.cols) && cs.cols <= kv->head_dim);
    assert(!q_norm || q_norm->n == kv->head_dim);
    assert(!k_norm || k_norm->n == kv->head_dim);
    be->op->rope_attn(be, o, qkv, heads, q_norm, k_norm, eps, cs, kv, b);
    trace_output(be, "rope_attn", o);
}

void k_norm_linear(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w)
{
    assert(is_act(be, x, x.rows, norm->n) && norm->n == w->in && is_out(be, y, x.rows, w->out));
    if (be->op->norm_linear) {
        be->op->norm_linear(be, y, x, norm, eps, w);
        trace_output(be, "norm_linear", y);
        return;
    }
    size_t mark = k_scratch_mark(be);
    tensor t = k_scratch(be, x.rows, x.cols);
    be->op->rms_norm(be, t, x, norm, eps);
    be->op->linear(be, y, t, w);
    k_scratch_release(be, mark);
    trace_output(be, "norm_linear", y);
}

void k_norm_glu(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w)
{
    assert(w->join == JOIN_GLU && norm->n == w->in && is_act(be, x, x.rows, w->in));
    assert(y.rows == x.rows && y.cols == w->out / 2);
    if (be->op->norm_glu) {
        be->op->norm_glu(be, y, x, norm, eps, w);
        trace_output(be, "norm_glu", y);
        return;
    }
    assert(y.type == be->act);
    size_t mark = k_scratch_mark(be);
    tensor t = k_scratch(be, x.rows, x.cols), gate_up = k_scratch(be, x.rows, w->out);
    be->op->rms_norm(be, t, x, norm, eps);
    be->op->linear(be, gate_up, t, w);
    be->op->glu(be, y, gate_up);
    k_scratch_release(be, mark);
    trace_output(be, "norm_glu", y);
}

bool k_glu_out_q8(const backend *be, const weight *down)
{
    return be->op->glu_out_q8 && be->op->glu_out_q8(down);
}

void k_linear_add(backend *be, tensor y, tensor x, const weight *w)
{
    assert(is_input(be, x, w) && is_act(be, y, x.rows, w->out));
    if (be->op->linear_add) {
        be->op->linear_add(be, y, x, w);
        trace_output(be, "linear_add", y);
        return;
    }
    size_t mark = k_scratch_mark(be);
    tensor t = k_scratch(be, y.rows, y.cols);
    be->op->linear(be, t, x, w);
    be->op->add(be, y, t);
    k_scratch_release(be, mark);
    trace_output(be, "linear_add", y);
}

void k_pool(backend *be, tensor y, tensor x, double *sum, const pool_span *span)
{
    assert(is_f32(y, y.rows, x.cols) && is_act(be, x, x.rows, x.cols));
    be->op->pool(be, y, x, sum, span);
    trace_output(be, "pool", y);
}

void k_fetch(backend *be, float *dst, tensor y)
{
    assert(is_f32(y, y.rows, y.cols));
    if (be->op->fetch) {
        be->op->fetch(be, dst, y);
        return;
    }
    for (int r = 0; r < y.rows; r++)
        memcpy(dst + (size_t)r * (size_t)y.cols, tensor_row(y, r), (size_t)y.cols * sizeof *dst);
}

void k_sample(backend *be, tensor logits, sample_row *rows, int n)
{
    assert(logits.type == ACT_F32 && n <= logits.rows);
    for (int i = 0; i < n; i++) {
        assert(rows[i].n_vocab > 0 && rows[i].n_vocab <= logits.cols);
        assert(rows[i].n_top <= 20 && rows[i].forced < rows[i].n_vocab);
    }
    be->op->sample(be, logits, rows, n);
}

/* ---- ranks -------------------------------------------------------------------------------- */

int k_join(backend *be, err *e)
{
    if (!be->comm || !be->op->join) return 0;
    comm *c = be->op->join(be, be->comm, e);
    if (!c) return e && e->code ? e->code : ERR_DEVICE;
    be->comm = c;
    return 0;
}

/* Rows lie ld apart; what is between them is summed along. */
void k_all_reduce(backend *be, tensor x)
{
    assert(is_act(be, x, x.rows, x.cols));
    if (!be->comm) return;
    size_t n = (size_t)(x.rows - 1) * (size_t)x.ld + (size_t)x.cols;
    if (x.rows) be->comm->op->all_reduce(be->comm, be, x.ptr, n, x.type);
    trace_output(be, "all_reduce", x);
}

void k_share_drawn(backend *be, int n)
{
    if (!be->comm || !be->op->drawn || !n) return;
    be->comm->op->broadcast(be->comm, be, be->op->drawn(be), (size_t)n * sizeof(int32_t));
}
