/* norm_rope_avx512.c - the row kernels compiled for AVX-512.  Any thread. */
#define CPU_ROWS cpu_rows_avx512
#include "kernels/cpu/norm_rope_body.h"
