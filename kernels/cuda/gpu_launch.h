/* gpu_launch.h - GPU_LAUNCH of gpu.h for the two compilers.  Included by gpu.h in C++ sources only.
 * Owns nothing.  Thread: as the stream's. */
#ifndef QUERN_KERNELS_CUDA_GPU_LAUNCH_H
#define QUERN_KERNELS_CUDA_GPU_LAUNCH_H

#include "kernels/cuda/portable.cuh"

#ifdef __CUDACC__
#include <cuda_runtime.h>

/* Makes the stream's device current and lets the kernel have smem bytes; false: an error is
 * latched, launch nothing. */
bool gpu_launch_prepare(gpu_stream *s, const char *name, const void *kernel, size_t smem);
/* Latches what the launch returned. */
void gpu_launch_done(gpu_stream *s, const char *name, cudaError_t r);
bool gpu_overlaps(const gpu_stream *s); /* the device knows programmatic dependent launch */

template <class... P, class... A>
static void gpu_launch(const char *name, void (*k)(P...), dim3 grid, dim3 block, size_t smem,
                       bool pdl, gpu_stream *s, A... a)
{
    if (!gpu_launch_prepare(s, name, (const void *)k, smem)) return;
    cudaLaunchAttribute attr[1];
    attr[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr[0].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = smem;
    c.stream = (cudaStream_t)gpu_stream_raw(s);
    c.attrs = attr;
    c.numAttrs = pdl && gpu_overlaps(s) ? 1 : 0;
    gpu_launch_done(s, name, cudaLaunchKernelEx(&c, k, ((P)a)...));
}
#else
#include <functional>
#include <type_traits>

/* Queues a kernel, whose threads call body; bad shapes are latched as the device would. */
void gpu_push_kernel(gpu_stream *s, const emu::launch_spec &spec, std::function<void()> body);
/* Ends the process unless p is NULL or memory of this layer: a device could not read it. */
void gpu_check_arg(const char *kernel, int index, const volatile void *p);

template <class P> static inline void gpu_check(const char *kernel, int index, P v)
{
    if constexpr (std::is_pointer<P>::value) gpu_check_arg(kernel, index, (const volatile void *)v);
    (void)kernel;
    (void)index;
    (void)v;
}
template <class... P, class... A>
static void gpu_launch(const char *name, void (*k)(P...), dim3 grid, dim3 block, size_t smem,
                       bool pdl, gpu_stream *s, A... a)
{
    emu::launch_spec spec = {name, grid, block, smem, pdl};
    std::tuple<P...> args((P)a...); /* taken now; the kernel runs later */
    int i = 0;
    std::apply([&](P... v) { (gpu_check(name, ++i, v), ...); }, args);
    gpu_push_kernel(s, spec, [=] { std::apply(k, args); });
}
#endif

#define GPU_LAUNCH(k, grid, block, smem, pdl, stream, ...) \
    gpu_launch(#k, k, grid, block, smem, pdl, stream, __VA_ARGS__)

#endif
