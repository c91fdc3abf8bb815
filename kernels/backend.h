/* backend.h - how kernels.c opens and closes each backend; known only inside kernels/.
 * An open returns a backend with op, kv_block, threads, isa, exact_f32 and state filled, or NULL
 * with e saying which option this machine cannot honour; its close frees all that open made. */
#ifndef QUERN_KERNELS_BACKEND_H
#define QUERN_KERNELS_BACKEND_H

#include "base/linkage.h"
#include "kernels/kernels.h"

C_BEGIN

typedef struct {
    const char *name;
    backend *(*open)(const backend_options *o, err *e);
    void (*close)(backend *be);
    /* Whether this machine has what it runs on; if not, why ("no NVIDIA driver").  NULL: always. */
    bool (*there)(char *why, size_t n);
} backend_entry;

/* kernels/cuda/backend.c: "cuda", and in the emulated build "cuda-emu". */
backend *cuda_open(const backend_options *o, err *e);
void cuda_close(backend *be);
bool cuda_there(char *why, size_t n);

backend *ref_open(const backend_options *o, err *e);
void ref_close(backend *be);
/* ref.c: the op `pool` where the backend's memory is the host's. */
void host_pool(backend *be, tensor y, tensor x, double *sum, const pool_span *span);
/* ref_sample.c: the executable spec of sample_row, and ref's op of that name. */
void ref_sample(backend *be, tensor logits, sample_row *rows, int n);
/* ref_sample.c too: its parts over ranks (split.h). */
void ref_split_best(backend *be, tensor part, int first, const split_ask *ask, int n,
                    split_best *out);
void ref_split_mass(backend *be, tensor part, int first, const split_ask *ask,
                    const split_point *at, int n, double *out, int ld);

/* Bytes of one quantised activation record: 32 k of a row (kernels/cpu/linear.h). */
enum { ACT_Q8_BYTES = 64 };

C_END

#endif
