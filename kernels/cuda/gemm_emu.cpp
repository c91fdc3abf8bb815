/* gemm_emu.cpp - cuda_gemm of the emulated build: a plain loop where a GPU has cuBLASLt.  Every
 * output is one sum over k in rising order, f32.
 * Owns nothing.  Refuses nothing.  Thread: the rank's. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/portable.cuh"

enum { THREADS = 128 };

struct cuda_gemm {
    gpu *dev;
};

cuda_gemm *cuda_gemm_open(gpu *dev, err *)
{
    return new cuda_gemm{dev};
}

void cuda_gemm_close(cuda_gemm *g)
{
    delete g;
}

typedef struct {
    void *y;
    int ldy;
    bool f32, add;
    const bf16 *x, *w;
    int ldx, ldw, n, k;
} gemm_args;

__global__ void __launch_bounds__(THREADS) gemm_plain_kernel(gemm_args a)
{
    int col = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (col >= a.n) return;
    size_t row = blockIdx.y, at = row * (size_t)a.ldy + (size_t)col;
    const bf16 *x = a.x + row * (size_t)a.ldx, *w = a.w + (size_t)col * (size_t)a.ldw;
    float *yf = (float *)a.y;
    bf16 *yb = (bf16 *)a.y;
    float sum = 0;
    for (int i = 0; i < a.k; i++) sum += __bfloat162float(x[i]) * __bfloat162float(w[i]);
    if (a.add) sum += a.f32 ? yf[at] : __bfloat162float(yb[at]);
    if (a.f32) yf[at] = sum;
    else yb[at] = __float2bfloat16(sum);
}

void cuda_gemm_run(backend *be, void *y, int ldy, act_type ytype, bool add, const void *x, int ldx,
                   const void *w, int ldw, int m, int n, int k)
{
    gemm_args a = {y, ldy, ytype == ACT_F32, add, (const bf16 *)x, (const bf16 *)w, ldx, ldw, n, k};
    if (m == 0) return;
    GPU_LAUNCH(gemm_plain_kernel, dim3((unsigned)(n + THREADS - 1) / THREADS, (unsigned)m),
               dim3(THREADS), 0, false, cuda_of(be)->stream, a);
}
