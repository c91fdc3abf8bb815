/* table.cu - the block tables of a step, packed by the host, back into rows at fixed places.
 * Owns nothing.  Refuses nothing.  Thread: the rank's. */
#include "kernels/cuda/portable.cuh"

#include "kernels/cuda/own.h"

enum { SPREAD_THREADS = 128 };

__global__ void __launch_bounds__(SPREAD_THREADS)
    table_spread_kernel(int32_t *table, int max_blocks, const int32_t *packed, const int32_t *start)
{
    int s = (int)blockIdx.x, from = start[s], n = start[s + 1] - from;
    int32_t *row = table + (size_t)s * (size_t)max_blocks;
    for (int i = (int)threadIdx.x; i < n; i += SPREAD_THREADS) row[i] = packed[from + i];
}

void cuda_table_spread(gpu_stream *s, int32_t *table, int max_blocks, const int32_t *packed,
                       const int32_t *start, int n_seq)
{
    GPU_LAUNCH(table_spread_kernel, dim3((unsigned)n_seq), dim3(SPREAD_THREADS), 0, false, s, table,
               max_blocks, packed, start);
}
