/* roofs.h - what this machine can do at best, measured: memory reads, int8 products, f32
 * multiply-adds, each with the threads and the instruction set of a backend.  `quern bench` states
 * its speeds as shares of these, from the same run.
 * Thread: one measurement at a time; the backend must be idle. */
#ifndef QUERN_KERNELS_ROOFS_H
#define QUERN_KERNELS_ROOFS_H

#include "kernels/kernels.h"

typedef struct {
    double bandwidth_gbs; /* 1e9 bytes read per second, all threads */
    double int8_gops;     /* 1e9 operations (2 a multiply-add) of u8 x s8 -> s32 dot products */
    double fma_gflops;    /* 1e9 operations (2 a multiply-add) in f32 */
} roofs;

/* Takes about a second and up to 512 MiB of memory.  ERR_NOMEM, or ERR_UNSUPPORTED for a backend
 * without a processor behind it (ref). */
int roofs_measure(const backend *be, roofs *out, err *e);

#endif
