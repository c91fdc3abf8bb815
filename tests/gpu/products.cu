/* products.cu - linear maps at the shapes of 7B, 32B and 72B models: few rows in every weight
 * format as a share of the read roof, panels of a format as bf16, then cuBLASLt in bf16 for 1 to
 * 8,192 rows. */
#include "kernels/cuda/linear_panel.cuh"
#include "tests/gpu/bench_rig.h"

enum { MAX_ROWS = 8192 };

static tensor matrix(bench *b, int rows, int cols)
{
    size_t bytes = (size_t)rows * (size_t)cols * 2;
    tensor t = {k_alloc(b->be, bytes), rows, cols, cols, ACT_BF16};
    if (t.ptr) bench_noise(b, t.ptr, (size_t)rows * (size_t)cols);
    if (t.ptr) return t;
    printf("no memory for %d x %d activations\n", rows, cols);
    exit(1);
}
static void matrix_free(bench *b, tensor t)
{
    k_free(b->be, t.ptr, (size_t)t.rows * (size_t)t.ld * 2);
}

/* As much of a weight as a panel holds, made bf16: reads its records, writes values. */
static void panel(bench *b, const weight *w, product p)
{
    enum { PANEL_VALUES = 32 << 20 };
    const linear_rows rows = linear_rows_of(w);
    size_t row = (size_t)rows.groups * GROUP_K;
    int tiles = linear_seg_tiles(w, 0), most = (int)(PANEL_VALUES / row / TILE_ROWS);
    char what[80];
    if (tiles > most) tiles = most;
    tensor to = matrix(b, tiles * TILE_ROWS, (int)row);
    double ms =
        bench_calls(b, 4, [&](int) { panel_make(b->st, (bf16 *)to.ptr, &rows, 0, 0, tiles); });
    double read = (double)tiles * rows.groups * record_bytes(rows.seg[0].type);
    snprintf(what, sizeof what, "%-5s %-12s panel of %d", dtype_of(rows.seg[0].type).name, p.name,
             tiles * TILE_ROWS);
    bench_line(what, ms, (read + (double)tiles * TILE_ROWS * row * 2) / ms * 1e-6, "GB/s",
               b->read * 1e-9);
    matrix_free(b, to);
}

/* One format at one shape for 1, 8 and 16 rows. */
static void few_rows(bench *b, int type, product p)
{
    static const int rows[] = {1, 8, 16};
    weight w[64];
    err e = {};
    char what[80];
    size_t bytes = cuda_weight_bytes(type, p.n, p.k);
    snprintf(what, sizeof what, "%-5s %s", dtype_of(type).name, p.name);
    if (!bytes) {
        bench_failed(b, what, "no kernel for this type");
        return;
    }
    int n = 0, want = bench_copies(b, bytes), rc = 0;
    for (; n < want && !rc; n++) {
        weight_part part = {NULL, type, p.n, NULL};
        rc = k_dummy_weight(b->be, &w[n], &part, 1, p.k, JOIN_ROWS, (uint64_t)n, &e);
    }
    if (rc) bench_failed(b, what, e.msg);
    if (rc) n--;
    tensor x = matrix(b, 16, p.k), y = matrix(b, 16, p.n);
    for (int m : rows) {
        if (rc) break;
        tensor xm = x, ym = y;
        xm.rows = ym.rows = m;
        double ms = bench_calls(b, n, [&](int i) { k_linear(b->be, ym, xm, &w[i]); });
        double moved = (double)w[0].bytes + 2.0 * m * (p.k + p.n);
        snprintf(what, sizeof what, "%-5s %-12s %2d rows", dtype_of(type).name, p.name, m);
        bench_line(what, ms, moved / ms * 1e-6, "GB/s", b->read * 1e-9);
    }
    if (!rc && !record_dense(type)) panel(b, &w[0], p);
    while (n > 0) k_release_weight(b->be, &w[--n]);
    matrix_free(b, x);
    matrix_free(b, y);
}

static void library(bench *b, product p)
{
    int most = b->small ? 64 : MAX_ROWS, align = 64;
    tensor x = matrix(b, most, p.k), y = matrix(b, most, p.n);
    int copies = bench_copies(b, (size_t)p.n * (size_t)p.k * 2);
    tensor w = matrix(b, p.n * copies, p.k);
    for (int m = 1; m <= most; m = m < align ? m * 8 : m * 2) {
        char what[80];
        double ms = bench_calls(b, copies, [&](int i) {
            const bf16 *wi = (const bf16 *)w.ptr + (int64_t)i * p.n * p.k;
            cuda_gemm_run(b->be, y.ptr, y.ld, ACT_BF16, false, x.ptr, x.ld, wi, p.k, m, p.n, p.k);
        });
        snprintf(what, sizeof what, "cuBLASLt %-12s %4d rows", p.name, m);
        bench_line(what, ms, 2e-9 * m * p.n * p.k / ms, "TFLOP/s", 0);
        double moved = 2.0 * ((double)p.n * p.k + (double)m * (p.n + p.k));
        if (m <= 64) bench_line("", ms, moved / ms * 1e-6, "GB/s", b->read * 1e-9);
    }
    matrix_free(b, w);
    matrix_free(b, x);
    matrix_free(b, y);
}

int main(int argc, char **argv)
{
    static const int types[] = {DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_MXFP4};
    bool only_library = argc > 1 && !strcmp(argv[1], "library");
    bool only_ours = argc > 1 && !strcmp(argv[1], "formats");
    const char *only = argc > 2 ? argv[2] : ""; /* begins the names of the products */
    bench b = bench_open(only_library ? "cuBLASLt" : "products");
    for (int type : types)
        for (int i = 0; i < N_PRODUCTS && !only_library; i += b.small ? 5 : 1)
            if (bench_wants(only, products[i].name)) few_rows(&b, type, bench_product(&b, i));
    for (int i = 0; i < N_PRODUCTS && !only_ours; i += b.small ? 5 : 1) {
        if (!bench_wants(only, products[i].name)) continue;
        if (b.st->gemm) library(&b, bench_product(&b, i));
        else bench_failed(&b, products[i].name, "cuBLASLt could not be opened");
    }
    return bench_close(&b);
}
