/* bench_linear.c - how fast the matrix products of cpu are.
 * usage: bench_linear [isa [threads [format|all [out in [max rows]]]]]
 * One line per format: per number of rows M the median time, GB/s of packed weights and Gop/s (two
 * operations a multiply-add), quantising the activations included.  Copies of the weight are walked
 * in turn so that M = 1 reads memory, not cache. */
#include "base/clock.h"
#include "kernels/formats.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>

enum { WALK_BYTES = 320 << 20, MAX_COPIES = 64, MAX_REPS = 101 };

static uint64_t seed = 1;
static uint32_t bits32(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

/* Random bytes with every f16 scale small and finite: which values they give is of no account. */
static uint8_t *random_weight(int type, int out, int in, size_t *row_bytes)
{
    if (!dtype_row_bytes(type, in, row_bytes)) return NULL;
    uint8_t *p = malloc(*row_bytes * (size_t)out);
    if (!p) return NULL;
    for (size_t i = 0; i < *row_bytes * (size_t)out; i++)
        p[i] = i < 32 * *row_bytes ? (uint8_t)(bits32() & 0x1f) : p[i % (32 * *row_bytes)];
    return p;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_time(backend *be, const weight *w, int copies, tensor y, tensor x)
{
    double t[MAX_REPS];
    int n = 0, inner = 1 + (int)(2e8 / ((double)w->out * w->in * x.rows));
    int64_t start = clock_us();
    while (n < MAX_REPS && (n < 5 || clock_us() - start < 300000)) {
        int64_t t0 = clock_us();
        for (int i = 0; i < inner; i++) k_linear(be, y, x, &w[(n * inner + i) % copies]);
        t[n++] = (double)(clock_us() - t0) * 1e-6 / inner;
    }
    qsort(t, (size_t)n, sizeof *t, by_value);
    return t[n / 2];
}

static int bench(backend *be, int type, int out, int in, int max_rows)
{
    static const int rows[] = {1, 2, 4, 8, 16, 32, 64, 128, 512};
    weight w[MAX_COPIES];
    size_t row_bytes;
    err e = {0};
    uint8_t *src = random_weight(type, out, in, &row_bytes);
    if (!src) return 0; /* `in` holds no whole blocks of this format */
    weight_part part = {src, type, out, NULL};
    int copies = 0;
    for (size_t bytes = 0; copies < MAX_COPIES && (copies < 1 || bytes < WALK_BYTES);
         bytes += w[copies++].bytes)
        if (k_upload_weight(be, &w[copies], &part, 1, in, JOIN_ROWS, &e))
            return fprintf(stderr, "%s\n", e.msg), 1;
    float *x = k_alloc(be, sizeof *x * 512 * (size_t)in),
          *y = k_alloc(be, sizeof *y * 512 * (size_t)out);
    if (!x || !y) return 1;
    for (int i = 0; i < 512 * in; i++) x[i] = (float)(int32_t)bits32() * 0x1p-31f;
    printf("%-6s %d x %d %s %dthr:", dtype_of(type).name, out, in, be->isa, be->threads);
    for (size_t i = 0; i < sizeof rows / sizeof *rows && rows[i] <= max_rows; i++) {
        tensor tx = {x, rows[i], in, in, ACT_F32}, ty = {y, rows[i], out, out, ACT_F32};
        double t = median_time(be, w, copies, ty, tx);
        printf("  M%d %.0fus %.1fGB/s %.0fG", rows[i], t * 1e6, (double)w[0].bytes / t * 1e-9,
               2.0 * rows[i] * out * in / t * 1e-9);
        fflush(stdout);
    }
    printf("\n");
    for (int i = 0; i < copies; i++) k_release_weight(be, &w[i]);
    k_free(be, x, sizeof *x * 512 * (size_t)in);
    k_free(be, y, sizeof *y * 512 * (size_t)out);
    free(src);
    return 0;
}

int main(int argc, char **argv)
{
    backend_options o = {.name = "cpu",
                         .isa = argc > 1 ? argv[1] : "auto",
                         .threads = argc > 2 ? atoi(argv[2]) : 0,
                         .bf16_repack = getenv("BENCH_REPACK") != NULL};
    int only = argc > 3 ? dtype_by_name(argv[3]) : -1;
    int out = argc > 5 ? atoi(argv[4]) : 9728, in = argc > 5 ? atoi(argv[5]) : 896;
    int max_rows = argc > 6 ? atoi(argv[6]) : 512, rc = 0;
    err e = {0};
    backend *be = backend_open(&o, &e);
    if (!be) return fprintf(stderr, "%s\n", e.msg), 2;
    for (int type = 0; type < DT_COUNT; type++)
        if (dtype_of(type).name && (only < 0 || type == only))
            rc |= bench(be, type, out, in, max_rows);
    backend_close(be);
    return rc;
}
