/* attention_portable.c - the attention kernels compiled for whatever every machine of this
 * architecture has: four or eight registers a row. Any thread. */
#define CPU_ATTN attn_ops_portable
#define ATTN_ROWS(X) X(1) X(2)
#define ATTN_MAX_ROWS 2
#define ATTN_TILE_ROWS 12
#include "kernels/cpu/attention_body.h"
