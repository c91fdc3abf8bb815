/* cuda.h - what the files of the CUDA back end share: the state of one device, the step's plan of
 * attention work, and who makes which op.
 *
 * backend.c   opens the device, owns all memory, streams, graphs and the batch on the device
 * gemm.c      y = x W^T by cuBLASLt (gemm_emu.cpp: a plain loop in the emulated build)
 * linear*.cu  weights in the device's layout, the products, embed
 * attention*  rotate, write KV, attend; attention_plan.c lists the step's work on the host
 * rows.cu     norms, glu, add, gather, cos/sin rows
 * sample.cu   logits to tokens
 *
 * Activations are bf16 (ACT_BF16), sums f32; logits and cos/sin rows f32.  Everything a pass
 * launches goes to st->stream, reads only addresses that stay the same from pass to pass, and takes
 * what changes (positions, lengths, work lists) from the batch on the device: so a pass can be
 * recorded once per bucket.  Nothing here allocates, waits or reads results inside an op.
 * Thread: the rank's. */
#ifndef QUERN_KERNELS_CUDA_CUDA_H
#define QUERN_KERNELS_CUDA_CUDA_H

#include "base/linkage.h"
#include "kernels/cuda/gpu.h"
#include "kernels/kernels.h"

C_BEGIN

typedef struct cuda_gemm cuda_gemm; /* gemm.c: the library, its handle and cached algorithms */

typedef struct {
    gpu *dev;
    gpu_stream *stream;
    gpu_info info;  /* sms, compute capability, shared memory a block may ask for */
    bool invariant; /* one body for every number of rows (--batch-invariant) */
    /* Work space of the ops; each may use all of it, from its start, until it returns. */
    void *work;
    size_t work_bytes;
    /* Counters that are zero between ops: an op leaves them as it found them. */
    unsigned *ticket; /* [n_ticket] */
    int n_ticket;
    /* Attention work of the step, filled by attention_plan on the host and uploaded with the batch.
     */
    const int32_t *plan;   /* device, [cuda_plan_words(limits)] */
    const int32_t *plan_h; /* the same on the host: shapes of eager launches */
    batch_limits limits;
    /* Ids drawn by the last sample op, row by row: what a token -1 - j stands for. */
    int32_t *drawn; /* device, [limits.max_out] */
    cuda_gemm *gemm;
    void *own; /* backend.c's */
} cuda_state;

static inline cuda_state *cuda_of(backend *be)
{
    return (cuda_state *)be->state;
}

/* ---- backend.c ------------------------------------------------------------------------------- */

/* Device memory; NULL when out.  Contents undefined. */
void *cuda_alloc_raw(backend *be, size_t bytes);
void cuda_free_raw(backend *be, void *p);
/* Work space and tickets an op will need at most; called by upload_weight and batch_reserve, before
 * any pass.  ERR_NOMEM. */
int cuda_need_work(backend *be, size_t bytes, int n_ticket, err *e);
/* Copies host bytes into device memory through pinned staging, in stream order; src is free on
 * return. */
void cuda_stage(backend *be, void *dst, const void *src, size_t bytes);
/* Pinned and device memory for an op's results: see sample.cu. */
void *cuda_alloc_pinned(backend *be, size_t bytes);
void cuda_free_pinned(backend *be, void *p);

/* ---- gemm.c ---------------------------------------------------------------------------------- */

/* Opens cuBLASLt at run time; e says what is missing.  NULL is no error where st->invariant. */
cuda_gemm *cuda_gemm_open(gpu *dev, err *e);
void cuda_gemm_close(cuda_gemm *g);
/* y[m, n] (f32 or bf16, ldy) = x[m, k] (bf16, ldx) w[n, k]^T (bf16, ldw) + (add ? y : 0).
 * Algorithms without atomics or split-K only, cached per shape bucket, in a fixed work space. */
void cuda_gemm_run(backend *be, void *y, int ldy, act_type ytype, bool add, const void *x, int ldx,
                   const void *w, int ldw, int m, int n, int k);

/* ---- linear.cu ------------------------------------------------------------------------------- */

int cuda_upload_weight(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                       weight_join join, err *e);
/* Values made up on the device; see backend_ops.dummy_weight. */
int cuda_dummy_weight(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                      weight_join join, uint64_t seed, err *e);
void cuda_release_weight(backend *be, weight *w);
size_t cuda_weight_bytes(int type, int64_t rows, int64_t in);
void cuda_embed(backend *be, tensor y, const int32_t *tok, const weight *w);
void cuda_linear(backend *be, tensor y, tensor x, const weight *w);
void cuda_norm_linear(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w);
void cuda_norm_glu(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w);
void cuda_linear_add(backend *be, tensor y, tensor x, const weight *w);

/* ---- attention.cu, attention_plan.c ---------------------------------------------------------- */

size_t cuda_kv_block_bytes(kv_type t, int kv_heads, int head_dim); /* 0: no kernel for it */
void cuda_rope_store(backend *be, tensor qkv, int heads, int kv_heads, int head_dim,
                     const vec *q_norm, const vec *k_norm, float eps, tensor cs, kv_pages *kv,
                     const batch *b);
void cuda_attn_paged(backend *be, tensor o, tensor qkv, int heads, const kv_pages *kv,
                     const batch *b);
void cuda_rope_attn(backend *be, tensor o, tensor qkv, int heads, const vec *q_norm,
                    const vec *k_norm, float eps, tensor cs, kv_pages *kv, const batch *b);
/* Work space and tickets attention needs for the largest step: attention_plan.c, through
 * cuda_need_work, once the heads are known (kv pages allocated). */
size_t cuda_plan_words(const batch_limits *l);
/* Asks for the work space of the largest step; called by batch_reserve. */
int cuda_attn_need(backend *be, const batch_limits *l, int heads, int kv_heads, int head_dim,
                   err *e);
/* Lists the work of a (padded) host batch into plan[cuda_plan_words]. */
void cuda_plan_fill(const cuda_state *st, const batch *host, int32_t *plan);
/* Words of a filled plan that say something. */
size_t cuda_plan_used(const int32_t *plan);

/* ---- rows.cu --------------------------------------------------------------------------------- */
/* None of these uses the work space: linear.cu keeps rows there around them. */

void cuda_pool(backend *be, tensor y, tensor x, double *sum, const pool_span *span);
void cuda_gather_rows(backend *be, tensor y, tensor x, const int32_t *row);
void cuda_rms_norm(backend *be, tensor y, tensor x, const vec *w, float eps);
void cuda_glu(backend *be, tensor y, tensor gate_up);
void cuda_add(backend *be, tensor y, tensor x);
void cuda_rope_rows(backend *be, tensor cs, const int32_t *pos, const rope_spec *r);

/* ---- sample.cu ------------------------------------------------------------------------------- */

typedef struct cuda_sampler cuda_sampler; /* pinned and device rows, two in flight */
cuda_sampler *cuda_sampler_open(backend *be, const batch_limits *l, err *e);
void cuda_sampler_close(backend *be, cuda_sampler *s);
/* Queues the draw; ids go to st->drawn.  The results are in pinned memory once the stream is past.
 */
void cuda_sampler_queue(backend *be, cuda_sampler *s, tensor logits, sample_row *rows, int n);
/* Fills the sample_rows of the oldest queued call, which the stream has passed. */
void cuda_sampler_collect(cuda_sampler *s);

C_END

#endif
