/* fp8.cu - cuBLASLt in FP8 (E4M3 times E4M3, bf16 out, one scale a tensor) at our shapes for 16 to
 * 8,192 rows: the roof of products that we do not have yet.  Nothing to do on the emulator, whose
 * stand-in for the library knows bf16 only. */
#include "tests/gpu/bench_rig.h"

#ifdef __CUDACC__
#include <cublasLt.h>
#include <dlfcn.h>

#define LT_LIST(X)                          \
    X(cublasLtCreate)                       \
    X(cublasLtMatmul)                       \
    X(cublasLtMatmulAlgoGetHeuristic)       \
    X(cublasLtMatmulDescCreate)             \
    X(cublasLtMatmulDescSetAttribute)       \
    X(cublasLtMatmulPreferenceCreate)       \
    X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtMatrixLayoutCreate)           \
    X(cublasLtMatrixLayoutDestroy)

typedef struct {
#define X(name) decltype(&::name) name;
    LT_LIST(X)
#undef X
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t product;
    cublasLtMatmulPreference_t wish;
    void *work;
} library;

enum { WORK = 64 << 20, MAX_ROWS = 8192 };

static const char *open_library(bench *b, library *l)
{
    void *so = dlopen("libcublasLt.so.13", RTLD_NOW);
    if (!so) so = dlopen("libcublasLt.so.12", RTLD_NOW);
    if (!so) so = dlopen("/usr/local/cuda/lib64/libcublasLt.so.13", RTLD_NOW);
    if (!so) return "libcublasLt.so is not there";
#define X(name) \
    if (!(l->name = (decltype(&::name))dlsym(so, #name))) return #name " is missing";
    LT_LIST(X)
#undef X
    float one = 1, *scale = (float *)k_alloc(b->be, sizeof one);
    l->work = k_alloc(b->be, WORK);
    if (!scale || !l->work) return "out of memory";
    k_upload(b->be, scale, &one, sizeof one);
    cublasOperation_t turned = CUBLAS_OP_T;
    size_t most = WORK;
    bool ok = !l->cublasLtCreate(&l->handle) &&
              !l->cublasLtMatmulDescCreate(&l->product, CUBLAS_COMPUTE_32F, CUDA_R_32F) &&
              !l->cublasLtMatmulPreferenceCreate(&l->wish) &&
              !l->cublasLtMatmulDescSetAttribute(l->product, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                                                 sizeof turned) &&
              !l->cublasLtMatmulDescSetAttribute(l->product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
                                                 &scale, sizeof scale) &&
              !l->cublasLtMatmulDescSetAttribute(l->product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER,
                                                 &scale, sizeof scale) &&
              !l->cublasLtMatmulPreferenceSetAttribute(
                  l->wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most);
    return ok ? NULL : "cuBLASLt refuses to start";
}

/* y[m, n] = x[m, k] w[n, k]^T, column-major as the library sees it. */
static void measure(bench *b, library *l, product p, int m, const uint8_t *x, const uint8_t *w,
                    int copies, void *y)
{
    char what[80];
    snprintf(what, sizeof what, "fp8 %-12s %4d rows", p.name, m);
    cublasLtMatrixLayout_t lw, lx, ly;
    cublasLtMatmulHeuristicResult_t found;
    int n_found = 0;
    l->cublasLtMatrixLayoutCreate(&lw, CUDA_R_8F_E4M3, (uint64_t)p.k, (uint64_t)p.n, p.k);
    l->cublasLtMatrixLayoutCreate(&lx, CUDA_R_8F_E4M3, (uint64_t)p.k, (uint64_t)m, p.k);
    l->cublasLtMatrixLayoutCreate(&ly, CUDA_R_16BF, (uint64_t)p.n, (uint64_t)m, p.n);
    cublasStatus_t rc = l->cublasLtMatmulAlgoGetHeuristic(l->handle, l->product, lw, lx, ly, ly,
                                                          l->wish, 1, &found, &n_found);
    if (rc || !n_found) {
        bench_failed(b, what, "no algorithm for this shape on this device");
    } else {
        float one = 1, zero = 0;
        double ms = bench_calls(b, copies, [&](int i) {
            rc = l->cublasLtMatmul(l->handle, l->product, &one, w + (int64_t)i * p.n * p.k, lw, x,
                                   lx, &zero, y, ly, y, ly, &found.algo, l->work, WORK,
                                   (cudaStream_t)gpu_stream_raw(b->st->stream));
        });
        if (rc) bench_failed(b, what, "cublasLtMatmul failed");
        else bench_line(what, ms, 2e-9 * m * p.n * p.k / ms, "TFLOP/s", 0);
    }
    l->cublasLtMatrixLayoutDestroy(lw);
    l->cublasLtMatrixLayoutDestroy(lx);
    l->cublasLtMatrixLayoutDestroy(ly);
}

static void run(bench *b)
{
    library l = {};
    const char *why = b->st->info.cc < 89 ? "needs a device of compute capability 8.9" : NULL;
    if (!why) why = open_library(b, &l);
    if (why) {
        printf("fp8: %s\n", why);
        return;
    }
    for (const product &p : products) {
        size_t bytes = (size_t)p.n * (size_t)p.k;
        int copies = bench_copies(b, bytes);
        uint8_t *w = (uint8_t *)k_alloc(b->be, bytes * (size_t)copies);
        uint8_t *x = (uint8_t *)k_alloc(b->be, (size_t)MAX_ROWS * (size_t)p.k);
        void *y = k_alloc(b->be, (size_t)MAX_ROWS * (size_t)p.n * 2);
        for (int m = 16; w && x && y && m <= MAX_ROWS; m *= m < 64 ? 4 : 2)
            measure(b, &l, p, m, x, w, copies, y);
        if (!w || !x || !y) bench_failed(b, p.name, "out of memory");
        k_free(b->be, w, bytes * (size_t)copies);
        k_free(b->be, x, (size_t)MAX_ROWS * (size_t)p.k);
        k_free(b->be, y, (size_t)MAX_ROWS * (size_t)p.n * 2);
    }
}
#else
static void run(bench *)
{
    printf("fp8: not on the emulator\n");
}
#endif

int main(void)
{
    bench b = bench_open("cuBLASLt in FP8");
    run(&b);
    return bench_close(&b);
}
