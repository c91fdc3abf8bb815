/* sample_avx2.c - the sampler's passes compiled for AVX2 and FMA.  Any thread. */
#define CPU_SAMPLE sample_ops_avx2
#include "kernels/cpu/sample_body.h"
