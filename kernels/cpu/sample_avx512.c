/* sample_avx512.c - the sampler's passes compiled for AVX-512.  Any thread. */
#define CPU_SAMPLE sample_ops_avx512
#include "kernels/cpu/sample_body.h"
