/* comm_sum.cu - sums over ranks that share a device, and the copies of a gather.
 * The order of a sum is that of comm_sum (kernels/comm.h): ((x0 + x1) + x2) + ..., f32, rounded
 * once.  Owns nothing.  Refuses nothing.  Thread: that of the stream. */
#include "kernels/cuda/comm_device.h"
#include "kernels/cuda/portable.cuh"

enum { THREADS = 256, MAX_BLOCKS = 1024 };

typedef struct {
    void *x[COMM_MAX_RANKS];
    int world;
} operands;

CU_FN float load(const float *p)
{
    return *p;
}
CU_FN float load(const bf16 *p)
{
    return __bfloat162float(*p);
}
CU_FN void store(float *p, float v)
{
    *p = v;
}
CU_FN void store(bf16 *p, float v)
{
    *p = __float2bfloat16(v);
}

template <class T> __global__ void __launch_bounds__(THREADS) sum_kernel(operands a, size_t n)
{
    size_t step = (size_t)gridDim.x * THREADS;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step) {
        float s = load((const T *)a.x[0] + i);
        for (int r = 1; r < a.world; r++) s += load((const T *)a.x[r] + i);
        for (int r = 0; r < a.world; r++) store((T *)a.x[r] + i, s);
    }
}

static unsigned blocks_for(size_t n)
{
    size_t blocks = (n + THREADS - 1) / THREADS;
    return blocks < MAX_BLOCKS ? (unsigned)blocks : (unsigned)MAX_BLOCKS;
}

void comm_sum_queue(gpu_stream *s, void *const *x, int world, size_t n, act_type type)
{
    operands a = {};
    if (n == 0) return;
    for (int r = 0; r < world; r++) a.x[r] = x[r];
    a.world = world;
    dim3 grid(blocks_for(n)), block(THREADS);
    if (type == ACT_BF16) GPU_LAUNCH(sum_kernel<bf16>, grid, block, 0, false, s, a, n);
    else GPU_LAUNCH(sum_kernel<float>, grid, block, 0, false, s, a, n);
}

/* One row a blockIdx.y; words where everything is aligned to them. */
template <class T>
__global__ void __launch_bounds__(THREADS)
    rows_kernel(char *dst, size_t dst_ld, const char *src, size_t src_ld, size_t n)
{
    T *to = (T *)(dst + blockIdx.y * dst_ld);
    const T *from = (const T *)(src + blockIdx.y * src_ld);
    size_t step = (size_t)gridDim.x * THREADS;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step) to[i] = from[i];
}

void comm_rows_queue(gpu_stream *s, void *dst, size_t dst_ld, const void *src, size_t src_ld,
                     size_t bytes, int rows)
{
    if (bytes == 0 || rows == 0) return;
    bool words = (((uintptr_t)dst | (uintptr_t)src | dst_ld | src_ld | bytes) & 3) == 0;
    size_t n = words ? bytes / 4 : bytes;
    dim3 grid(blocks_for(n), (unsigned)rows), block(THREADS);
    if (words)
        GPU_LAUNCH(rows_kernel<uint32_t>, grid, block, 0, false, s, (char *)dst, dst_ld,
                   (const char *)src, src_ld, n);
    else
        GPU_LAUNCH(rows_kernel<char>, grid, block, 0, false, s, (char *)dst, dst_ld,
                   (const char *)src, src_ld, n);
}
