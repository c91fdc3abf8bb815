/* gemm.c - large matrix products by cuBLASLt, opened at run time so that the program also starts
 * where there is none.
 * Owns the library's handle, its work space and the algorithms chosen so far: the library is asked
 * once for each class of shapes, and only algorithms that add in one order are taken (split-K with
 * partial sums in the work space that a second kernel adds up, never in place or by atomics), so a
 * product has the same bits every time. Refuses: machines without the library
 * (the message says what to install).  Thread: the rank's. */
#include "kernels/cuda/cuda.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-prototypes" /* the header's own */
#include <cublasLt.h>
#pragma GCC diagnostic pop
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    WORK_BYTES = 32 << 20, /* what NVIDIA recommends for Hopper; smaller cards use less of it */
    CHOICES = 16,          /* candidates asked for; the library lists the fastest first */
    CACHE = 1024,          /* classes of shapes: a model has 5 products and 12 classes of rows */
    ALIGN = 16,
    /* Few rows times a long k (a down projection) are ten times slower without. */
    IN_ORDER = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
};

/* The functions used, by name. */
#define CUBLAS_LIST(X)                      \
    X(cublasLtCreate)                       \
    X(cublasLtDestroy)                      \
    X(cublasLtGetStatusName)                \
    X(cublasLtMatmul)                       \
    X(cublasLtMatmulAlgoCheck)              \
    X(cublasLtMatmulAlgoConfigGetAttribute) \
    X(cublasLtMatmulAlgoGetHeuristic)       \
    X(cublasLtMatmulDescCreate)             \
    X(cublasLtMatmulDescDestroy)            \
    X(cublasLtMatmulDescSetAttribute)       \
    X(cublasLtMatmulPreferenceCreate)       \
    X(cublasLtMatmulPreferenceDestroy)      \
    X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtMatrixLayoutCreate)           \
    X(cublasLtMatrixLayoutDestroy)

typedef struct {
    int rows, n, k, ldx, ldw, ldy;
    bool add, f32;
} gemm_class;

typedef struct {
    gemm_class key;
    cublasLtMatmulAlgo_t algo;
} gemm_choice;

struct cuda_gemm {
    void *library;
#define X(name) __typeof__(&name) name;
    CUBLAS_LIST(X)
#undef X
    gpu *dev;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t product;
    cublasLtMatmulPreference_t wish;
    void *work;          /* [WORK_BYTES] device */
    gemm_choice *choice; /* [n_choices] */
    int n_choices;
};

/* Layouts of one product, column-major as the library sees it: Y^T[n, m] = W[n, k] X^T[k, m], each
 * of our row-major matrices being the transpose of what it reads. */
typedef struct {
    cublasLtMatrixLayout_t w, x, y;
} gemm_layouts;

/* ---- opening --------------------------------------------------------------------------------- */

static const char *const places[] = {"libcublasLt.so.13", "libcublasLt.so.12",
                                     "/usr/local/cuda/lib64/libcublasLt.so.13",
                                     "/usr/local/cuda/lib64/libcublasLt.so.12"};
enum { N_PLACES = sizeof places / sizeof *places };

static int load_library(cuda_gemm *g, err *e)
{
    for (int i = 0; i < N_PLACES && !g->library; i++)
        g->library = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
    if (!g->library)
        return err_set(e, ERR_NOTFOUND,
                       "cuBLASLt was not found (tried %s and %s, and both in "
                       "/usr/local/cuda/lib64): install NVIDIA's package libcublas-13-0 (or put "
                       "the directory that holds it into LD_LIBRARY_PATH), or run with "
                       "--batch-invariant, which needs none",
                       places[0], places[1]);
#define X(name)                                                          \
    *(void **)&g->name = dlsym(g->library, #name);                       \
    if (!g->name)                                                        \
        return err_set(e, ERR_UNSUPPORTED,                               \
                       "the cuBLASLt of this machine lacks %s: install " \
                       "version 12 or 13",                               \
                       #name);
    CUBLAS_LIST(X)
#undef X
    return 0;
}

/* Latches a status as the device's error. */
static bool ok(cuda_gemm *g, cublasStatus_t s, const char *call)
{
    if (s == CUBLAS_STATUS_SUCCESS) return true;
    gpu_fail(g->dev, call, g->cublasLtGetStatusName(s));
    return false;
}

/* What every product has in common: bf16 factors, f32 sums, W transposed. */
static bool describe(cuda_gemm *g)
{
    const cublasOperation_t t = CUBLAS_OP_T;
    const uint32_t in_order = IN_ORDER, align = ALIGN;
    const size_t work = WORK_BYTES;
#define WISH(name, v) \
    ok(g, g->cublasLtMatmulPreferenceSetAttribute(g->wish, name, &(v), sizeof(v)), #name)
    return ok(g, g->cublasLtMatmulDescCreate(&g->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
              "cublasLtMatmulDescCreate") &&
           ok(g,
              g->cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_TRANSA, &t,
                                                sizeof t),
              "CUBLASLT_MATMUL_DESC_TRANSA") &&
           ok(g, g->cublasLtMatmulPreferenceCreate(&g->wish), "cublasLtMatmulPreferenceCreate") &&
           WISH(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, work) &&
           WISH(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, in_order) &&
           WISH(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, align) &&
           WISH(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, align) &&
           WISH(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, align) &&
           WISH(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align);
#undef WISH
}

cuda_gemm *cuda_gemm_open(gpu *dev, err *e)
{
    cuda_gemm *g = calloc(1, sizeof *g);
    if (g) g->choice = calloc(CACHE, sizeof *g->choice);
    if (!g || !g->choice) {
        err_set(e, ERR_NOMEM, "out of memory");
        goto fail;
    }
    g->dev = dev;
    if (load_library(g, e)) goto fail;
    cublasStatus_t s = g->cublasLtCreate(&g->handle);
    if (s != CUBLAS_STATUS_SUCCESS) {
        err_set(e, ERR_DEVICE, "cublasLtCreate: %s", g->cublasLtGetStatusName(s));
        goto fail;
    }
    if (!(g->work = gpu_malloc(dev, WORK_BYTES))) {
        err_set(e, ERR_NOMEM, "no device memory for the %d MiB work space of cuBLASLt",
                WORK_BYTES >> 20);
        goto fail;
    }
    if (describe(g)) return g;
    err_set(e, ERR_DEVICE, "%s", gpu_error(dev));
fail:
    cuda_gemm_close(g);
    return NULL;
}

void cuda_gemm_close(cuda_gemm *g)
{
    if (!g) return;
    if (g->product) g->cublasLtMatmulDescDestroy(g->product);
    if (g->wish) g->cublasLtMatmulPreferenceDestroy(g->wish);
    if (g->handle) g->cublasLtDestroy(g->handle);
    gpu_free(g->dev, g->work);
    if (g->library) dlclose(g->library);
    free(g->choice);
    free(g);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static void layouts_free(cuda_gemm *g, gemm_layouts *l)
{
    if (l->w) g->cublasLtMatrixLayoutDestroy(l->w);
    if (l->x) g->cublasLtMatrixLayoutDestroy(l->x);
    if (l->y) g->cublasLtMatrixLayoutDestroy(l->y);
}

static bool layouts_make(cuda_gemm *g, gemm_layouts *l, const gemm_class *c)
{
    uint64_t m = (uint64_t)c->rows, n = (uint64_t)c->n, k = (uint64_t)c->k;
    cudaDataType_t out = c->f32 ? CUDA_R_32F : CUDA_R_16BF;
    *l = (gemm_layouts){0};
    if (ok(g, g->cublasLtMatrixLayoutCreate(&l->w, CUDA_R_16BF, k, n, c->ldw), "layout of W") &&
        ok(g, g->cublasLtMatrixLayoutCreate(&l->x, CUDA_R_16BF, k, m, c->ldx), "layout of X") &&
        ok(g, g->cublasLtMatrixLayoutCreate(&l->y, out, n, m, c->ldy), "layout of Y"))
        return true;
    layouts_free(g, l);
    return false;
}

/* Rows are classed by the next of 16, 24, 32, 48, 64, 96, ...: within a class one algorithm. */
static int class_rows(int m)
{
    int at = 16;
    while (at < m && at < 1 << 20) at = at & (at - 1) ? at / 3 * 4 : at / 2 * 3;
    return at < m ? m : at;
}

static bool adds_in_order(cuda_gemm *g, const cublasLtMatmulAlgo_t *a)
{
    int32_t parts = 0;
    uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t n;
    if (g->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts,
                                                sizeof parts, &n) ||
        g->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                                sizeof scheme, &n))
        return false;
    return parts <= 1 ? scheme == CUBLASLT_REDUCTION_SCHEME_NONE : scheme == IN_ORDER;
}

/* Asks the library; false: latched. */
static bool ask(cuda_gemm *g, const gemm_class *c, cublasLtMatmulAlgo_t *algo)
{
    cublasLtMatmulHeuristicResult_t found[CHOICES];
    gemm_layouts l;
    int n = 0;
    if (!layouts_make(g, &l, c)) return false;
    cublasStatus_t s = g->cublasLtMatmulAlgoGetHeuristic(g->handle, g->product, l.w, l.x, l.y, l.y,
                                                         g->wish, CHOICES, found, &n);
    layouts_free(g, &l);
    if (!ok(g, s, "cublasLtMatmulAlgoGetHeuristic")) return false;
    for (int i = 0; i < n; i++) {
        if (found[i].state != CUBLAS_STATUS_SUCCESS || !adds_in_order(g, &found[i].algo)) continue;
        *algo = found[i].algo;
        return true;
    }
    char what[120];
    snprintf(what, sizeof what, "no algorithm that adds in one order for %d x %d x %d", c->rows,
             c->n, c->k);
    gpu_fail(g->dev, "cublasLtMatmulAlgoGetHeuristic", what);
    return false;
}

static bool same_class(const gemm_class *a, const gemm_class *b)
{
    return a->rows == b->rows && a->n == b->n && a->k == b->k && a->ldx == b->ldx &&
           a->ldw == b->ldw && a->ldy == b->ldy && a->add == b->add && a->f32 == b->f32;
}

/* The algorithm of a class, asked for when it first occurs.  A full cache forgets all of it: the
 * library answers the same question the same way. */
static const cublasLtMatmulAlgo_t *choose(cuda_gemm *g, const gemm_class *c)
{
    for (int i = 0; i < g->n_choices; i++)
        if (same_class(&g->choice[i].key, c)) return &g->choice[i].algo;
    if (g->n_choices == CACHE) g->n_choices = 0;
    gemm_choice *to = &g->choice[g->n_choices];
    to->key = *c;
    if (!ask(g, c, &to->algo)) return NULL;
    g->n_choices++;
    return &to->algo;
}

/* ---- the product ----------------------------------------------------------------------------- */

/* The class's algorithm if it also takes these rows, else one asked for exactly them. */
static const cublasLtMatmulAlgo_t *algo_for(cuda_gemm *g, const gemm_class *c,
                                            const gemm_layouts *l)
{
    gemm_class rounded = *c;
    rounded.rows = class_rows(c->rows);
    const cublasLtMatmulAlgo_t *a = choose(g, &rounded);
    cublasLtMatmulHeuristicResult_t r;
    if (!a || rounded.rows == c->rows) return a;
    cublasStatus_t s =
        g->cublasLtMatmulAlgoCheck(g->handle, g->product, l->w, l->x, l->y, l->y, a, &r);
    if (s == CUBLAS_STATUS_SUCCESS && r.workspaceSize <= WORK_BYTES) return a;
    return choose(g, c);
}

void cuda_gemm_run(backend *be, void *y, int ldy, act_type ytype, bool add, const void *x, int ldx,
                   const void *w, int ldw, int m, int n, int k)
{
    cuda_state *st = cuda_of(be);
    cuda_gemm *g = st->gemm;
    const float one = 1, beta = add ? 1 : 0;
    const gemm_class c = {m, n, k, ldx, ldw, ldy, add, ytype == ACT_F32};
    gemm_layouts l;
    if (m == 0 || gpu_error(g->dev) || !layouts_make(g, &l, &c)) return;
    const cublasLtMatmulAlgo_t *a = algo_for(g, &c, &l);
    if (a)
        ok(g,
           g->cublasLtMatmul(g->handle, g->product, &one, w, l.w, x, l.x, &beta, y, l.y, y, l.y, a,
                             g->work, WORK_BYTES, (cudaStream_t)gpu_stream_raw(st->stream)),
           "cublasLtMatmul");
    layouts_free(g, &l);
}
