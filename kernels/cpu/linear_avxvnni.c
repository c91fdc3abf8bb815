/* linear_avxvnni.c - the matrix products compiled for AVX2 with 256-bit dot products.  Any thread.
 */
#if defined(__AVXVNNI__)
#define LINEAR_TABLE linear_avxvnni
#define HAS_DOT 1
#include "kernels/cpu/linear_256.h"
#else
#include "kernels/cpu/linear.h"
const linear_isa linear_avxvnni = {.quant8 = NULL};
#endif
