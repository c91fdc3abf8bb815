/* roofs.h - private to kernels/cpu: the measured loops, once per instruction set.  Any thread. */
#ifndef QUERN_KERNELS_CPU_ROOFS_H
#define QUERN_KERNELS_CPU_ROOFS_H

#include <stddef.h>
#include <stdint.h>

enum { ROOF_SEED = 96 };

typedef struct {
    /* Reads p[n] bytes, n a multiple of 512, forward; ahead: also asks for lines 4 KiB ahead.  The
     * result depends on every byte. */
    float (*read)(const float *p, size_t n, int ahead);
    /* n rounds of independent chains; return the operations done (2 a multiply-add).  seed keeps
     * the compiler from knowing the values, *sink from dropping them. */
    double (*dots)(long n, const uint8_t seed[ROOF_SEED], float *sink);
    double (*fmas)(long n, const float seed[16], float *sink);
} roof_ops;

extern const roof_ops roofs_portable, roofs_avx2, roofs_avxvnni, roofs_avx512;

#endif
