/* gpu.cu - gpu.h on the CUDA runtime.  Owns the handles; refuses devices older than 8.0.
 * Every call makes its device current first, since that is a setting of the thread.  A call after
 * the first error does nothing.  Thread: as gpu.h says. */
#include "kernels/cuda/gpu.h"

#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST_CC = 80, KERNELS = 1024 };

struct gpu {
    int device;
    gpu_info info;
    int latch; /* 0 free, 1 being written, 2 set */
    char msg[256];
    int n_kernels;
    const void *kernel[KERNELS]; /* hash table of those whose shared memory limit was raised */
};
struct gpu_stream {
    gpu *g;
    cudaStream_t s;
    const char *last; /* kernel launched last, for messages */
};
struct gpu_event {
    gpu *g;
    cudaEvent_t e;
};
struct gpu_graph {
    gpu *g;
    cudaGraphExec_t x;
};

/* ---- the latch ---------------------------------------------------------------------------------
 */

const char *gpu_error(const gpu *g)
{
    return __atomic_load_n(&g->latch, __ATOMIC_ACQUIRE) == 2 ? g->msg : NULL;
}

void gpu_fail(gpu *g, const char *call, const char *words)
{
    int none = 0;
    if (!__atomic_compare_exchange_n(&g->latch, &none, 1, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        return;
    snprintf(g->msg, sizeof g->msg, "%s: %s", call, words);
    __atomic_store_n(&g->latch, 2, __ATOMIC_RELEASE);
}

/* True if r is success; else latches. */
static bool ok(gpu *g, cudaError_t r, const char *call)
{
    if (r == cudaSuccess) return true;
    gpu_fail(g, call, cudaGetErrorString(r));
    cudaGetLastError();
    return false;
}
static bool ok_on(const gpu_stream *s, cudaError_t r, const char *call)
{
    if (r == cudaSuccess) return true;
    char where[160];
    snprintf(where, sizeof where, "%s (last kernel: %.100s)", call, s->last ? s->last : "none");
    return ok(s->g, r, where);
}
/* Makes the device current; false if there is an error already. */
static bool use(gpu *g)
{
    if (__atomic_load_n(&g->latch, __ATOMIC_ACQUIRE)) return false;
    return ok(g, cudaSetDevice(g->device), "cudaSetDevice");
}

/* ---- devices -----------------------------------------------------------------------------------
 */

int gpu_count(err *e)
{
    int n = 0;
    cudaError_t r = cudaGetDeviceCount(&n);
    if (r == cudaSuccess && n > 0) return n;
    cudaGetLastError();
    if (r == cudaErrorInsufficientDriver)
        err_set(e, ERR_NOTFOUND,
                "no NVIDIA driver, or one too old for CUDA %d.%d: install a newer "
                "driver or use --device cpu",
                CUDART_VERSION / 1000, CUDART_VERSION / 10 % 100);
    else
        err_set(e, ERR_NOTFOUND,
                "no CUDA device: %s (nvidia-smi and CUDA_VISIBLE_DEVICES show what "
                "there is)",
                r == cudaSuccess ? "none is visible" : cudaGetErrorString(r));
    return 0;
}

/* Stands for all kernels of this binary, which are built for the same devices. */
__global__ void probe_kernel(void)
{
}

static cudaError_t read_info(int device, gpu_info *i)
{
    cudaDeviceProp p;
    cudaError_t r = cudaGetDeviceProperties(&p, device);
    if (r != cudaSuccess) return r;
    *i = gpu_info();
    snprintf(i->name, sizeof i->name, "%.63s", p.name);
    i->sms = p.multiProcessorCount;
    i->cc = p.major * 10 + p.minor;
    i->smem_block = (int)p.sharedMemPerBlockOptin;
    i->smem_sm = (int)p.sharedMemPerMultiprocessor;
    i->l2 = (size_t)p.l2CacheSize;
    i->mem_total = p.totalGlobalMem;
    return cudaSuccess;
}

/* 0 if the kernels of this binary run on the (current) device. */
static int check_kernels(int device, const gpu_info *i, err *e)
{
    static const int built[] = {__CUDA_ARCH_LIST__};
    char list[128] = "";
    cudaFuncAttributes a;
    cudaError_t r = cudaFuncGetAttributes(&a, (const void *)probe_kernel);
    if (r == cudaSuccess && i->cc >= OLDEST_CC) return 0;
    cudaGetLastError();
    for (int b : built) {
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, " %d", b / 10);
    }
    return err_set(
        e, ERR_UNSUPPORTED,
        "device %d (%s) has compute capability %d.%d; the kernels are built for%s and need "
        "8.0 (make CUDA=1 ARCHS=\"%d\" builds for it)",
        device, i->name, i->cc / 10, i->cc % 10, list, i->cc);
}

int gpu_open(gpu **out, int device, err *e)
{
    *out = NULL;
    int n = gpu_count(e);
    if (!n) return ERR_NOTFOUND;
    if (device < 0 || device >= n)
        return err_set(e, ERR_NOTFOUND, "device %d: there are %d, numbered from 0", device, n);
    gpu *g = (gpu *)calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_NOMEM, "out of memory");
    g->device = device;
    cudaError_t r = cudaSetDevice(device);
    if (r == cudaSuccess) r = cudaFree(NULL); /* makes the context: a broken one shows here */
    if (r == cudaSuccess) r = read_info(device, &g->info);
    if (r != cudaSuccess) {
        cudaGetLastError();
        free(g);
        return err_set(e, ERR_NOTFOUND, "device %d cannot be used: %s", device,
                       cudaGetErrorString(r));
    }
    if (check_kernels(device, &g->info, e)) {
        free(g);
        return ERR_UNSUPPORTED;
    }
    *out = g;
    return 0;
}

void gpu_close(gpu *g)
{
    free(g);
}
const gpu_info *gpu_about(const gpu *g)
{
    return &g->info;
}
int gpu_device(const gpu *g)
{
    return g->device;
}

/* ---- memory ------------------------------------------------------------------------------------
 */

int gpu_mem_info(gpu *g, size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = *total_bytes = 0;
    return use(g) && ok(g, cudaMemGetInfo(free_bytes, total_bytes), "cudaMemGetInfo") ? 0
                                                                                      : ERR_DEVICE;
}

/* NULL for out of memory, which is no error of the device. */
static void *allocated(gpu *g, cudaError_t r, void *p, const char *call)
{
    if (r == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return NULL;
    }
    return ok(g, r, call) ? p : NULL;
}
void *gpu_malloc(gpu *g, size_t n)
{
    void *p = NULL;
    if (!n || !use(g)) return NULL;
    cudaError_t r = cudaMalloc(&p, n); /* before p is passed on */
    return allocated(g, r, p, "cudaMalloc");
}
void gpu_free(gpu *g, void *p)
{
    if (p && use(g)) ok(g, cudaFree(p), "cudaFree");
}
void *gpu_host_alloc(gpu *g, size_t n)
{
    void *p = NULL;
    if (!n || !use(g)) return NULL;
    cudaError_t r = cudaHostAlloc(&p, n, cudaHostAllocPortable);
    return allocated(g, r, p, "cudaHostAlloc");
}
void gpu_host_free(gpu *g, void *p)
{
    if (p && use(g)) ok(g, cudaFreeHost(p), "cudaFreeHost");
}

/* ---- streams, events ---------------------------------------------------------------------------
 */

gpu_stream *gpu_stream_new(gpu *g)
{
    if (!use(g)) return NULL;
    gpu_stream *s = (gpu_stream *)calloc(1, sizeof *s);
    if (!s) {
        gpu_fail(g, "gpu_stream_new", "out of memory");
        return NULL;
    }
    s->g = g;
    if (ok(g, cudaStreamCreateWithFlags(&s->s, cudaStreamNonBlocking), "cudaStreamCreate"))
        return s;
    free(s);
    return NULL;
}
void gpu_stream_free(gpu_stream *s)
{
    if (!s) return;
    if (use(s->g)) ok_on(s, cudaStreamSynchronize(s->s), "cudaStreamSynchronize");
    cudaStreamDestroy(s->s);
    free(s);
}
int gpu_stream_sync(gpu_stream *s)
{
    if (!use(s->g)) return ERR_DEVICE;
    return ok_on(s, cudaStreamSynchronize(s->s), "cudaStreamSynchronize") ? 0 : ERR_DEVICE;
}
gpu *gpu_of(const gpu_stream *s)
{
    return s->g;
}
void *gpu_stream_raw(gpu_stream *s)
{
    return s->s;
}

void gpu_memcpy_async(void *dst, const void *src, size_t n, gpu_stream *s)
{
    if (n && use(s->g))
        ok_on(s, cudaMemcpyAsync(dst, src, n, cudaMemcpyDefault, s->s), "cudaMemcpyAsync");
}
void gpu_memset_async(void *dst, int byte, size_t n, gpu_stream *s)
{
    if (n && use(s->g)) ok_on(s, cudaMemsetAsync(dst, byte, n, s->s), "cudaMemsetAsync");
}
void gpu_host_fn(gpu_stream *s, void (*fn)(void *arg), void *arg)
{
    if (use(s->g)) ok_on(s, cudaLaunchHostFunc(s->s, fn, arg), "cudaLaunchHostFunc");
}

gpu_event *gpu_event_new(gpu *g, bool timed)
{
    if (!use(g)) return NULL;
    gpu_event *e = (gpu_event *)calloc(1, sizeof *e);
    if (!e) {
        gpu_fail(g, "gpu_event_new", "out of memory");
        return NULL;
    }
    e->g = g;
    unsigned flags = timed ? cudaEventDefault : cudaEventDisableTiming;
    if (ok(g, cudaEventCreateWithFlags(&e->e, flags), "cudaEventCreate")) return e;
    free(e);
    return NULL;
}
void gpu_event_free(gpu_event *e)
{
    if (!e) return;
    cudaEventDestroy(e->e);
    free(e);
}
void gpu_event_record(gpu_event *e, gpu_stream *s)
{
    if (use(s->g)) ok_on(s, cudaEventRecord(e->e, s->s), "cudaEventRecord");
}
bool gpu_event_done(gpu_event *e)
{
    if (!use(e->g)) return true; /* nothing more will happen: the caller reads the error */
    cudaError_t r = cudaEventQuery(e->e);
    if (r == cudaErrorNotReady) return false;
    ok(e->g, r, "cudaEventQuery");
    return true;
}
int gpu_event_sync(gpu_event *e)
{
    if (!use(e->g)) return ERR_DEVICE;
    return ok(e->g, cudaEventSynchronize(e->e), "cudaEventSynchronize") ? 0 : ERR_DEVICE;
}
float gpu_event_ms(gpu_event *from, gpu_event *to)
{
    float ms = 0;
    if (!use(from->g)) return 0;
    return ok(from->g, cudaEventElapsedTime(&ms, from->e, to->e), "cudaEventElapsedTime") ? ms : 0;
}
void gpu_stream_wait(gpu_stream *s, gpu_event *e)
{
    if (use(s->g)) ok_on(s, cudaStreamWaitEvent(s->s, e->e, 0), "cudaStreamWaitEvent");
}

/* ---- graphs ------------------------------------------------------------------------------------
 */

void gpu_capture_begin(gpu_stream *s)
{
    if (use(s->g))
        ok_on(s, cudaStreamBeginCapture(s->s, cudaStreamCaptureModeThreadLocal),
              "cudaStreamBeginCapture");
}
gpu_graph *gpu_capture_end(gpu_stream *s)
{
    gpu *g = s->g;
    bool fine = use(g);
    cudaStreamCaptureStatus now = cudaStreamCaptureStatusNone;
    cudaStreamIsCapturing(s->s, &now);
    if (now == cudaStreamCaptureStatusNone) {
        if (fine) gpu_fail(g, "gpu_capture_end", "this stream records nothing");
        return NULL;
    }
    cudaGraph_t graph = NULL;
    bool ended = ok_on(s, cudaStreamEndCapture(s->s, &graph), "cudaStreamEndCapture");
    gpu_graph *out = (gpu_graph *)calloc(1, sizeof *out);
    if (!out) gpu_fail(g, "gpu_capture_end", "out of memory");
    bool made = fine && ended && out &&
                ok_on(s, cudaGraphInstantiate(&out->x, graph, 0), "cudaGraphInstantiate");
    if (graph) cudaGraphDestroy(graph);
    if (!made) {
        free(out);
        return NULL;
    }
    out->g = g;
    return out;
}
void gpu_graph_launch(gpu_graph *g, gpu_stream *s)
{
    if (use(s->g)) ok_on(s, cudaGraphLaunch(g->x, s->s), "cudaGraphLaunch");
}
void gpu_graph_free(gpu_graph *g)
{
    if (!g) return;
    cudaGraphExecDestroy(g->x);
    free(g);
}

/* ---- kernels -----------------------------------------------------------------------------------
 */

enum { FREE_SMEM = 48 * 1024 }; /* what any kernel may have unasked */

/* Lets the kernel have all the shared memory a block may ask for, once per handle.  Should two
 * threads do so at once, no harm is done. */
static bool raise_limit(gpu *g, const char *name, const void *kernel)
{
    unsigned at = (unsigned)((uintptr_t)kernel >> 4) * 2654435761u % KERNELS;
    const void *have;
    while ((have = __atomic_load_n(&g->kernel[at], __ATOMIC_ACQUIRE)) && have != kernel)
        at = (at + 1) % KERNELS;
    if (have) return true;
    cudaFuncAttributes a;
    if (!ok(g, cudaFuncGetAttributes(&a, kernel), name)) return false;
    int most = g->info.smem_block - (int)a.sharedSizeBytes;
    if (!ok(g, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
            name))
        return false;
    /* A quarter stays empty, so that searches end soon; kernels beyond are raised at every launch.
     */
    if (__atomic_fetch_add(&g->n_kernels, 1, __ATOMIC_RELAXED) < KERNELS * 3 / 4) {
        const void *none = NULL;
        __atomic_compare_exchange_n(&g->kernel[at], &none, kernel, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_RELAXED);
    }
    return true;
}
bool gpu_launch_prepare(gpu_stream *s, const char *name, const void *kernel, size_t smem)
{
    if (!use(s->g)) return false;
    s->last = name;
    return smem <= FREE_SMEM || raise_limit(s->g, name, kernel);
}
void gpu_launch_done(gpu_stream *s, const char *name, cudaError_t r)
{
    ok(s->g, r, name);
}
bool gpu_overlaps(const gpu_stream *s)
{
    return s->g->info.cc >= 90;
}

/* ---- tensor maps -------------------------------------------------------------------------------
 */

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                              const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                              const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                              CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

int gpu_tmap_2d(gpu *g, void *map, const void *base, uint64_t width, uint64_t height, uint64_t ld,
                uint32_t box_w, uint32_t box_h)
{
    if (!use(g)) return ERR_DEVICE;
    void *fn = NULL;
    cudaDriverEntryPointQueryResult found;
    if (!ok(g,
            cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000,
                                             cudaEnableDefault, &found),
            "cuTensorMapEncodeTiled"))
        return ERR_DEVICE;
    if (found != cudaDriverEntryPointSuccess || !fn) {
        gpu_fail(g, "cuTensorMapEncodeTiled", "the driver does not have it");
        return ERR_DEVICE;
    }
    cuuint64_t size[2] = {width, height}, stride[1] = {ld * 2};
    cuuint32_t box[2] = {box_w, box_h}, step[2] = {1, 1};
    CUresult r = ((encode_fn)fn)(
        (CUtensorMap *)map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)base, size, stride, box,
        step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (r == CUDA_SUCCESS) return 0;
    char words[64];
    snprintf(words, sizeof words, "error %d", (int)r);
    gpu_fail(g, "cuTensorMapEncodeTiled", words);
    return ERR_DEVICE;
}
