/* attention_avx2.c - the attention kernels compiled for AVX2 and FMA: two registers a row: 6 rows
 * fill 12 of 16. Any thread. */
#define CPU_ATTN attn_ops_avx2
#define ATTN_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define ATTN_MAX_ROWS 6
#define ATTN_TILE_ROWS 12
#include "kernels/cpu/attention_body.h"
