/* cpu.h - private to kernels/cpu: the back end's state, its instruction sets and the functions that
 * exist once per instruction set.
 * Thread: as a backend (kernels.h); the tables are const. */
#ifndef QUERN_KERNELS_CPU_CPU_H
#define QUERN_KERNELS_CPU_CPU_H

#include "kernels/cpu/pool.h"
#include "kernels/kernels.h"

/* Rising capability: code may test `isa >= ISA_AVX2`.  ISA_AVXVNNI is AVX2 plus the 256-bit dot
 * products, which only the integer linears use. */
typedef enum { ISA_PORTABLE, ISA_AVX2, ISA_AVXVNNI, ISA_AVX512, ISA_COUNT } cpu_isa;

enum {
    CPU_KV_BLOCK = 32, /* positions per KV block */
    CPU_HEAD_DIM_MAX = 256
};

/* Work on single rows.  Every variant gives the same bits: 16 lanes, fused multiply-adds, the same
 * polynomial for exp and one reduction tree (simd.h). */
typedef struct {
    /* y[n] = x * rsqrt(mean(x^2) + eps) * w; y may be x. */
    void (*rms_norm)(float *y, const float *x, const float *w, int n, float eps);
    /* y[n] = silu(gate[n]) * up[n]; y may be gate or up. */
    void (*glu)(float *y, const float *gate, const float *up, int n);
    /* y[n] += x[n] */
    void (*add)(float *y, const float *x, int n);
    /* x[head_dim] rotated in place in half-split pairs over the first dim values;
     * cs[dim]: dim/2 cosines, then dim/2 sines. */
    void (*rotate)(float *x, const float *cs, int dim);
} cpu_row_ops;
extern const cpu_row_ops cpu_rows_portable, cpu_rows_avx2, cpu_rows_avx512;

typedef struct attn_ops attn_ops;     /* attention.h */
typedef struct sample_ops sample_ops; /* sample.h */

typedef struct {
    pool *pool;
    cpu_isa isa;
    bool bf16_repack; /* backend_options.bf16_repack */
    const cpu_row_ops *rows;
    const attn_ops *attn;
    const sample_ops *sample;
    struct attn_work *attn_work;     /* attention.c's scratch */
    struct sample_work *sample_work; /* sample.c's scratch */
    void *linear_work;               /* the matrix products', see cpu_linear_close */
} cpu_state;

static inline cpu_state *cpu_of(backend *be)
{
    return (cpu_state *)be->state;
}

/* The back end "cpu" as backend.h asks for it. */
backend *cpu_open(const backend_options *o, err *e);
void cpu_close(backend *be);

/* Ops of attention.c, norm_rope.c, sample.c. */
void cpu_gather_rows(backend *be, tensor y, tensor x, const int32_t *row);
void cpu_rms_norm(backend *be, tensor y, tensor x, const vec *w, float eps);
void cpu_glu(backend *be, tensor y, tensor gate_up);
void cpu_add(backend *be, tensor y, tensor x);
void cpu_rope_rows(backend *be, tensor cs, const int32_t *pos, const rope_spec *r);
void cpu_rope_store(backend *be, tensor qkv, int heads, int kv_heads, int head_dim,
                    const vec *q_norm, const vec *k_norm, float eps, tensor cs, kv_pages *kv,
                    const batch *b);
size_t cpu_kv_block_bytes(kv_type t, int kv_heads, int head_dim);
void cpu_attn_paged(backend *be, tensor o, tensor qkv, int heads, const kv_pages *kv,
                    const batch *b);
void cpu_sample(backend *be, tensor logits, sample_row *rows, int n);
void cpu_split_best(backend *be, tensor part, int first, const split_ask *ask, int n,
                    split_best *out);
void cpu_split_mass(backend *be, tensor part, int first, const split_ask *ask,
                    const split_point *at, int n, double *out, int ld);

/* The matrix products are declared in linear.h, one function per slot of backend_ops: cpu_embed,
 * cpu_linear, cpu_norm_linear, cpu_norm_glu, cpu_linear_add, cpu_glu_out_q8, cpu_upload_weight,
 * cpu_release_weight, cpu_weight_bytes. */

#endif
