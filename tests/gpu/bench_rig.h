/* bench_rig.h - what the measurements on a GPU share: the device's backend, time by events as the
 * median of repetitions of a recorded pass, the read roof of the same run, lines of a table.
 * On the emulator everything runs in miniature: that shows that it works, its times mean nothing.
 * Without a device a program says "no GPU: skipped" and ends with 0.  Thread: main. */
#ifndef QUERN_TESTS_GPU_BENCH_RIG_H
#define QUERN_TESTS_GPU_BENCH_RIG_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/portable.cuh"
#include "tests/cuda/device.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    backend *be;
    cuda_state *st;
    bool small;   /* emulated */
    double read;  /* bytes per second, measured */
    int failures; /* lines that could not be measured */
} bench;

enum { REPS = 11 /* odd: the median is a measurement */, ROOF_BLOCKS = 8, ROOF_THREADS = 256 };

static inline void bench_stop_on_fault(bench *b)
{
    err e = {};
    if (k_sync(b->be, &e) == 0) return;
    printf("device fault: %s\n", e.msg);
    exit(1);
}

/* ---- time -------------------------------------------------------------------------------------
 */

static inline int bench_rising(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Median milliseconds between two events around go(). */
template <class F> static double bench_time(bench *b, F go)
{
    float ms[REPS];
    int reps = b->small ? 1 : REPS;
    gpu_event *from = gpu_event_new(b->st->dev, true), *to = gpu_event_new(b->st->dev, true);
    for (int r = 0; r < reps; r++) {
        gpu_event_record(from, b->st->stream);
        go();
        gpu_event_record(to, b->st->stream);
        bench_stop_on_fault(b);
        ms[r] = gpu_event_ms(from, to);
    }
    gpu_event_free(from);
    gpu_event_free(to);
    qsort(ms, (size_t)reps, sizeof *ms, bench_rising);
    return (double)ms[reps / 2];
}

/* Milliseconds of one of n calls go(0), ..., go(n - 1), replayed from a recording so that the
 * host's launches do not count.  Each runs once before: caches are filled, algorithms chosen. */
template <class F> static double bench_calls(bench *b, int n, F go)
{
    for (int i = 0; i < n; i++) go(i);
    bench_stop_on_fault(b);
    gpu_capture_begin(b->st->stream);
    for (int i = 0; i < n; i++) go(i);
    gpu_graph *g = gpu_capture_end(b->st->stream);
    bench_stop_on_fault(b);
    gpu_graph_launch(g, b->st->stream);
    double ms = bench_time(b, [&] { gpu_graph_launch(g, b->st->stream); }) / n;
    gpu_graph_free(g);
    return ms;
}

/* ---- the read roof ----------------------------------------------------------------------------
 */

/* Reads all of p[n16] 16 bytes at a time; what it writes cannot be known beforehand. */
__global__ void __launch_bounds__(ROOF_THREADS)
    read_kernel(const uint4 *p, int64_t n16, unsigned *out)
{
    cu_gdc_wait();
    int64_t step = (int64_t)gridDim.x * ROOF_THREADS;
    unsigned sum = 0;
    int64_t i = (int64_t)blockIdx.x * ROOF_THREADS + threadIdx.x;
    for (; i + 3 * step < n16; i += 4 * step) {
        uint4 v[4];
        for (int k = 0; k < 4; k++) v[k] = cu_ld_nc16(p + i + k * step);
        for (int k = 0; k < 4; k++) sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
    }
    for (; i < n16; i += step) sum += cu_ld_nc16(p + i).x;
    if (sum == 0x9e3779b9u) *out = sum;
}

/* Bytes per second of reading a buffer many times the L2. */
static inline double bench_read_roof(bench *b)
{
    size_t bytes = b->small ? 1 << 20 : (size_t)4 << 30;
    void *p = k_alloc(b->be, bytes);
    unsigned *out = (unsigned *)k_alloc(b->be, sizeof *out);
    if (!p || !out) {
        printf("no memory for the read roof (%zu MiB)\n", bytes >> 20);
        exit(1);
    }
    dim3 grid((unsigned)(b->st->info.sms * ROOF_BLOCKS));
    double ms = bench_calls(b, 1, [&](int) {
        GPU_LAUNCH(read_kernel, grid, dim3(ROOF_THREADS), 0, false, b->st->stream, (const uint4 *)p,
                   (int64_t)(bytes / 16), out);
    });
    k_free(b->be, p, bytes);
    k_free(b->be, out, sizeof *out);
    return (double)bytes / (ms * 1e-3);
}

/* bf16 noise in [-1, 1): on zeros a device draws less power and multiplies faster. */
__global__ void __launch_bounds__(ROOF_THREADS) noise_kernel(bf16 *p, size_t n, uint32_t seed)
{
    cu_gdc_wait();
    size_t i = (size_t)blockIdx.x * ROOF_THREADS + threadIdx.x;
    for (; i < n; i += (size_t)gridDim.x * ROOF_THREADS) {
        uint32_t x = ((uint32_t)i ^ seed) * 2654435761u;
        x = (x ^ x >> 15) * 2246822519u;
        p[i] = __float2bfloat16((float)(int32_t)(x ^ x >> 13) * 0x1p-31f);
    }
}
static inline void bench_noise(bench *b, void *p, size_t n)
{
    static uint32_t seed;
    dim3 grid((unsigned)(b->st->info.sms * ROOF_BLOCKS));
    GPU_LAUNCH(noise_kernel, grid, dim3(ROOF_THREADS), 0, false, b->st->stream, (bf16 *)p, n,
               ++seed * 40503u);
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static inline bench bench_open(const char *title)
{
    bench b = {};
    err e = {};
    for (int without = 0; without < 2 && !b.be; without++) { /* the library */
        backend_options o = {};
        o.name = DEVICE;
        o.batch_invariant = without;
        b.be = backend_open(&o, &e);
    }
    if (!b.be) {
        printf("no GPU: skipped (%s)\n", e.msg);
        exit(0);
    }
    b.st = cuda_of(b.be);
    b.small = b.st->info.emulated;
    b.read = bench_read_roof(&b);
    printf("\n== %s: %s, %d SMs%s%s; reads %.0f GB/s\n", title, b.st->info.name, b.st->info.sms,
           b.small ? " (in miniature: times mean nothing)" : "",
           b.st->gemm ? "" : ", without cuBLASLt", b.read * 1e-9);
    return b;
}

/* The value that main returns. */
static inline int bench_close(bench *b)
{
    bench_stop_on_fault(b);
    backend_close(b->be);
    return b->failures != 0;
}

/* Room for the largest step of the measurement; ends the program where it does not fit. */
static inline void bench_reserve(bench *b, const batch_limits *l)
{
    err e = {};
    if (k_batch_reserve(b->be, l, &e) == 0) return;
    printf("cannot reserve: %s\n", e.msg);
    exit(1);
}

/* ---- lines ------------------------------------------------------------------------------------
 */

/* what | time | rate | share of a roof (0: none). */
static inline void bench_line(const char *what, double ms, double rate, const char *unit,
                              double roof)
{
    printf("%-46s %10.4f ms %10.1f %-8s", what, ms, rate, unit);
    if (roof > 0) printf(" %5.1f %%", 100 * rate / roof);
    printf("\n");
    fflush(stdout);
}
static inline void bench_failed(bench *b, const char *what, const char *why)
{
    printf("%-46s not measured: %s\n", what, why);
    b->failures++;
}

/* ---- shapes -----------------------------------------------------------------------------------
 */

typedef struct {
    const char *name;
    int n, k;
} product;
/* The products of a layer (gate and up side by side) and the head of Qwen2.5-7B, 32B and 72B. */
static const product products[] = {
    {"7B qkv", 4608, 3584},    {"7B o", 3584, 3584},         {"7B gate_up", 37888, 3584},
    {"7B down", 3584, 18944},  {"7B head", 152064, 3584},    {"32B qkv", 7168, 5120},
    {"32B o", 5120, 5120},     {"32B gate_up", 55296, 5120}, {"32B down", 5120, 27648},
    {"72B qkv", 10240, 8192},  {"72B o", 8192, 8192},        {"72B gate_up", 59136, 8192},
    {"72B down", 8192, 29568},
};
enum { N_PRODUCTS = sizeof products / sizeof *products };

/* Whether the measurements asked for (the beginning of their names, "" for all) include this. */
static inline bool bench_wants(const char *only, const char *name)
{
    return !strncmp(name, only, strlen(only));
}

/* In miniature: the shape divided by 64, in whole groups of 128 k and tiles of 16 rows. */
static inline product bench_product(const bench *b, int i)
{
    product p = products[i];
    if (!b->small) return p;
    p.n = p.n / 64 / 16 * 16 + 16;
    p.k = p.k / 64 / 128 * 128 + 128;
    return p;
}

/* How many copies of `bytes` no L2 can hold, so that each is read from memory. */
static inline int bench_copies(const bench *b, size_t bytes)
{
    if (b->small) return 1;
    size_t n = 3 * b->st->info.l2 / bytes + 1;
    return n < 64 ? (int)n : 64;
}

#endif
