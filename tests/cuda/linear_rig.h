/* linear_rig.h - for the tests of the CUDA products: a backend, random weights of any type with
 * their exact values, bf16 activations, the same products in double.  On a GPU run with CK_FORK=no;
 * without a device the test says so and ends with 77.  Tests only. */
#ifndef QUERN_TESTS_CUDA_LINEAR_RIG_H
#define QUERN_TESTS_CUDA_LINEAR_RIG_H

#include "kernels/cuda/linear.h"
#include "kernels/formats.h"
#include "tests/cuda/device.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const int all_types[] = {DT_F32,  DT_F16,    DT_BF16,   DT_Q4_0,  DT_Q4_1, DT_Q5_0,
                                DT_Q5_1, DT_Q8_0,   DT_Q2_K,   DT_Q3_K,  DT_Q4_K, DT_Q5_K,
                                DT_Q6_K, DT_IQ4_NL, DT_IQ4_XS, DT_MXFP4, DT_NVFP4};
enum { N_TYPES = sizeof all_types / sizeof *all_types };

/* ---- random data -------------------------------------------------------------------------- */

static uint64_t seed = 1;
static inline uint32_t bits32(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}
static inline float uniform(void)
{
    return (float)(bits32() >> 8) * 0x1p-24f;
}
static inline float normal(void)
{
    float u = uniform() + 1e-7f, v = uniform();
    return sqrtf(-2 * logf(u)) * cosf(6.2831853f * v);
}
static inline void put_f16(uint8_t *p, float f)
{
    uint16_t h = f32_to_f16(f);
    memcpy(p, &h, 2);
}
static inline float bf16_round(float f)
{
    return bf16_to_f32(f32_to_bf16(f));
}

/* Where a block keeps its f16 numbers: d, and m or -1. */
static inline void half_places(int type, int *d, int *m)
{
    *d = *m = -1;
    switch (type) {
    case DT_Q4_1:
    case DT_Q5_1:
    case DT_Q4_K:
    case DT_Q5_K: *m = 2; /* fall through */
    case DT_Q4_0:
    case DT_Q5_0:
    case DT_Q8_0:
    case DT_IQ4_NL:
    case DT_IQ4_XS: *d = 0; break;
    case DT_Q2_K: *d = 80, *m = 82; break;
    case DT_Q3_K: *d = 108; break;
    case DT_Q6_K: *d = 208; break;
    default: break;
    }
}
/* One block of random codes: with scales of a sane size, or of any finite one. */
static inline void random_block(int type, uint8_t *b, bool any)
{
    int at_d, at_m, bytes = dtype_of(type).bytes;
    for (int i = 0; i < bytes; i++) b[i] = (uint8_t)bits32();
    half_places(type, &at_d, &at_m);
    if (any) {
        if (at_d >= 0 && (b[at_d + 1] & 0x7c) == 0x7c) b[at_d + 1] ^= 0x40;
        if (at_m >= 0 && (b[at_m + 1] & 0x7c) == 0x7c) b[at_m + 1] ^= 0x40;
        return;
    }
    float d = 0.001f + 0.002f * uniform(), m = 0.002f * uniform();
    if (at_d >= 0) put_f16(b + at_d, d);
    if (at_m >= 0) put_f16(b + at_m, type == DT_Q4_1 || type == DT_Q5_1 ? -8 * m : m);
    if (type == DT_MXFP4) b[0] = (uint8_t)(118 + bits32() % 5);
    if (type == DT_NVFP4)
        for (int i = 0; i < 4; i++) b[i] = (uint8_t)(bits32() % 0x38);
}

/* A matrix as a checkpoint has it, and what it means. */
typedef struct {
    int type, rows, in;
    uint8_t *raw;
    float *value; /* [rows][in]; F32 as it is stored on the device, in bf16 */
    float *bias;  /* [rows] or NULL */
} matrix;

static inline matrix matrix_new(int type, int rows, int in, bool any, bool bias)
{
    matrix m = {type, rows, in, NULL, NULL, NULL};
    size_t row_bytes, n = (size_t)rows * (size_t)in;
    dtype_traits t = dtype_of(type);
    ck_assert(dtype_row_bytes(type, in, &row_bytes));
    m.raw = (uint8_t *)malloc(row_bytes * (size_t)rows);
    m.value = (float *)malloc(n * sizeof(float));
    if (t.elems > 1)
        for (size_t i = 0; i < row_bytes * (size_t)rows; i += (size_t)t.bytes)
            random_block(type, m.raw + i, any);
    else
        for (size_t i = 0; i < n; i++) {
            float f = 0.05f * normal();
            uint16_t h = type == DT_F16 ? f32_to_f16(f) : f32_to_bf16(f);
            if (type == DT_F32) memcpy(m.raw + 4 * i, &f, 4);
            else memcpy(m.raw + 2 * i, &h, 2);
        }
    dequant_row(type, m.raw, m.value, (int64_t)n);
    for (size_t i = 0; type == DT_F32 && i < n; i++) m.value[i] = bf16_round(m.value[i]);
    if (bias) {
        m.bias = (float *)malloc((size_t)rows * sizeof(float));
        for (int i = 0; i < rows; i++) m.bias[i] = bf16_round(normal());
    }
    return m;
}
static inline void matrix_free(matrix *m)
{
    free(m->raw);
    free(m->value);
    free(m->bias);
}

/* ---- device ------------------------------------------------------------------------------- */

static inline backend *open_device(bool invariant)
{
    err e = {};
    backend_options o = {};
    o.batch_invariant = invariant;
    o.name = DEVICE;
    backend *be = backend_open(&o, &e);
    if (be) return be;
    printf("skipped: %s\n", e.msg);
    exit(77);
}

static inline weight upload(backend *be, const matrix *m, int n, weight_join join)
{
    weight w;
    err e = {};
    weight_part parts[WEIGHT_MAX_SEG];
    for (int i = 0; i < n; i++) parts[i] = {m[i].raw, m[i].type, m[i].rows, m[i].bias};
    ck_assert_msg(!k_upload_weight(be, &w, parts, n, m[0].in, join, &e), "%s", e.msg);
    size_t bytes = w.bias ? (size_t)w.out * sizeof(float) : 0;
    for (int i = 0; i < w.n_seg; i++)
        bytes += cuda_weight_bytes(w.seg[i].type, w.seg[i].rows, w.in);
    ck_assert_uint_eq(bytes, w.bytes);
    return w;
}

/* Rows on the device and their values on the host; a spare row and spare columns stay NaN. */
typedef struct {
    backend *be;
    int rows, cols, ld;
    act_type type;
    void *dev;
    float *host; /* [rows + 1][ld] */
} grid;

static inline size_t grid_bytes(const grid *g)
{
    return (size_t)(g->rows + 1) * (size_t)g->ld * (g->type == ACT_F32 ? 4 : 2);
}
static inline void grid_up(grid *g)
{
    size_t n = (size_t)(g->rows + 1) * (size_t)g->ld;
    uint16_t *h = (uint16_t *)malloc(n * 2);
    for (size_t i = 0; i < n; i++) h[i] = f32_to_bf16(g->host[i]);
    k_upload(g->be, g->dev, g->type == ACT_F32 ? (void *)g->host : (void *)h, grid_bytes(g));
    free(h);
}
static inline grid grid_new(backend *be, int rows, int cols, int ld, act_type type)
{
    grid g = {be, rows, cols, ld, type, NULL, NULL};
    size_t n = (size_t)(rows + 1) * (size_t)ld;
    g.host = (float *)malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++) g.host[i] = NAN;
    g.dev = k_alloc(be, grid_bytes(&g));
    ck_assert(g.dev);
    grid_up(&g);
    return g;
}
/* Filled with bf16 noise of uneven size: one row large, some columns large. */
static inline grid grid_noise(backend *be, int rows, int cols, int ld)
{
    grid g = grid_new(be, rows, cols, ld, ACT_BF16);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            g.host[r * ld + c] =
                bf16_round(normal() * (r == 3 ? 500.0f : 1.0f) * (c % 97 == 5 ? 20.0f : 1.0f));
    grid_up(&g);
    return g;
}
static inline void grid_free(grid *g)
{
    k_free(g->be, g->dev, grid_bytes(g));
    free(g->host);
}
/* Reads the rows back; nothing but [rows][cols] may have been written. */
static inline void grid_down(grid *g)
{
    size_t n = (size_t)(g->rows + 1) * (size_t)g->ld;
    if (g->type == ACT_F32) k_download(g->be, g->host, g->dev, grid_bytes(g));
    else {
        uint16_t *h = (uint16_t *)malloc(n * 2);
        k_download(g->be, h, g->dev, n * 2);
        for (size_t i = 0; i < n; i++) g->host[i] = bf16_to_f32(h[i]);
        free(h);
    }
    err e = {};
    ck_assert_msg(!k_sync(g->be, &e), "%s", e.msg);
    for (int r = 0; r <= g->rows; r++)
        for (int c = r < g->rows ? g->cols : 0; c < g->ld; c++)
            ck_assert_msg(isnan(g->host[(size_t)r * (size_t)g->ld + (size_t)c]),
                          "row %d, column %d was written", r, c);
}
static inline tensor grid_rows(const grid *g, int first, int n)
{
    size_t at = (size_t)first * (size_t)g->ld * (g->type == ACT_F32 ? 4 : 2);
    return {(char *)g->dev + at, n, g->cols, g->ld, g->type};
}
static inline vec vec_noise(backend *be, int n, float **host)
{
    vec v;
    err e = {};
    *host = (float *)malloc((size_t)n * sizeof(float));
    for (int i = 0; i < n; i++) (*host)[i] = 1 + 0.3f * normal();
    ck_assert(!k_upload_vec(be, &v, *host, n, &e));
    return v;
}

static inline void check_tickets(backend *be)
{
    cuda_state *st = cuda_of(be);
    unsigned *t = (unsigned *)malloc((size_t)st->n_ticket * sizeof *t);
    k_download(be, t, st->ticket, (size_t)st->n_ticket * sizeof *t);
    for (int i = 0; i < st->n_ticket; i++) ck_assert_uint_eq(t[i], 0);
    free(t);
}

/* ---- reference ---------------------------------------------------------------------------- */

static const float EPS = 1e-6f;

/* A value in double and how large it and the products it was summed from are: what rounding errors
 * are measured against, so that a sum near nought is not held to its own size. */
typedef struct {
    double v, size;
} wanted;

/* y[out] = W (norm x) + bias in double for one row; m[n] stacked. */
static inline void reference_row(wanted *y, const float *x, const matrix *m, int n,
                                 const float *norm)
{
    int in = m[0].in;
    double squares = 0, *v = (double *)malloc((size_t)in * sizeof(double));
    for (int k = 0; k < in; k++) squares += (double)x[k] * (double)x[k];
    double scale = 1 / sqrt(squares / in + (double)EPS);
    for (int k = 0; k < in; k++)
        v[k] = norm ? (double)x[k] * scale * (double)norm[k] : (double)x[k];
    for (int i = 0; i < n; i++)
        for (int r = 0; r < m[i].rows; r++, y++) {
            const float *w = m[i].value + (size_t)r * (size_t)in;
            double terms = 0;
            y->v = m[i].bias ? (double)m[i].bias[r] : 0;
            for (int k = 0; k < in; k++) {
                double t = v[k] * (double)w[k];
                y->v += t;
                terms += t * t;
            }
            y->size = sqrt(y->v * y->v + terms);
        }
    free(v);
}
/* Root mean square error of a row, relative to its size. */
static inline double row_error(const float *got, const wanted *want, int n)
{
    double d = 0, s = 0;
    for (int i = 0; i < n; i++) {
        double e = (double)got[i] - want[i].v;
        d += e == e ? e * e : 1e30;
        s += want[i].size * want[i].size;
    }
    return sqrt(d / (s > 0 ? s : 1e-300));
}

#endif
