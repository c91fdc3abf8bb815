/* linear_avx2.c - the matrix products compiled for AVX2 and FMA.  Any thread. */
#if defined(__AVX2__) && defined(__FMA__)
#define LINEAR_TABLE linear_avx2
#define HAS_DOT 0
#include "kernels/cpu/linear_256.h"
#else
#include "kernels/cpu/linear.h"
const linear_isa linear_avx2 = {.quant8 = NULL};
#endif
