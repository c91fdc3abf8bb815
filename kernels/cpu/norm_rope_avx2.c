/* norm_rope_avx2.c - the row kernels compiled for AVX2 and FMA.  Any thread. */
#define CPU_ROWS cpu_rows_avx2
#include "kernels/cpu/norm_rope_body.h"
