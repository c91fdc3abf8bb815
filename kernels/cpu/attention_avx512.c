/* attention_avx512.c - the attention kernels compiled for AVX-512: two registers of accumulators a
 * row: 14 rows fill 28 of 32. Any thread. */
#define CPU_ATTN attn_ops_avx512
#define ATTN_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(10) X(12) X(14)
#define ATTN_MAX_ROWS 14
#define ATTN_TILE_ROWS 14
#include "kernels/cpu/attention_body.h"
