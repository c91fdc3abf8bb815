/* roofs_avx512.c - the measured loops compiled for AVX-512 VNNI.  Any thread. */
#define ROOFS roofs_avx512
#define CHAINS 12
#include "kernels/cpu/roofs_body.h"
