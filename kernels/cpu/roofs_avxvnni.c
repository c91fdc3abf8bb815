/* roofs_avxvnni.c - the measured loops compiled for AVX2 with 256-bit dot products.  Any thread. */
#if defined(__AVXVNNI__)
#define HAS_DOT 1
#include "kernels/cpu/roofs_256.h"
#endif
#define ROOFS roofs_avxvnni
#define CHAINS 5
#include "kernels/cpu/roofs_body.h"
