/* roofs_avx2.c - the measured loops compiled for AVX2.  Any thread. */
#if defined(__AVX2__)
#define HAS_DOT 0
#include "kernels/cpu/roofs_256.h"
#endif
#define ROOFS roofs_avx2
#define CHAINS 5
#include "kernels/cpu/roofs_body.h"
