/* test_linear.c - the matrix products of cpu against ref, and the rule of bits: every instruction
 * set this machine has, one thread and two, any batch, fused or composed, memcmp. */
#include "base/log.h"
#include "kernels/cpu/linear.h"
#include "kernels/formats.h"
#include "kernels/kernels.h"
#include "tests/quick.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- random data -------------------------------------------------------------------------- */

static uint64_t seed;
static uint32_t bits32(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}
static float uniform(void)
{
    return (float)(bits32() >> 8) * 0x1p-24f;
}
static float normal(void)
{
    float u = uniform() + 1e-7f, v = uniform();
    return sqrtf(-2 * logf(u)) * cosf(6.2831853f * v);
}
static void put_f16(uint8_t *p, float f)
{
    uint16_t h = f32_to_f16(f);
    memcpy(p, &h, 2);
}

/* One block of random codes with scales of a sane size. */
static void random_block(int type, uint8_t *b)
{
    float d = 0.001f + 0.002f * uniform(), m = 0.002f * uniform();
    for (int i = 0; i < dtype_of(type).bytes; i++) b[i] = (uint8_t)bits32();
    switch (type) {
    case DT_Q4_1:
    case DT_Q5_1: put_f16(b + 2, -8 * m); /* fall through */
    case DT_Q4_0:
    case DT_Q5_0:
    case DT_Q8_0:
    case DT_IQ4_NL:
    case DT_IQ4_XS: put_f16(b, d); break;
    case DT_Q4_K:
    case DT_Q5_K:
        put_f16(b, d);
        put_f16(b + 2, m);
        break;
    case DT_Q2_K:
        put_f16(b + 80, d);
        put_f16(b + 82, m);
        break;
    case DT_Q3_K: put_f16(b + 108, d); break;
    case DT_Q6_K: put_f16(b + 208, d); break;
    case DT_MXFP4: b[0] = (uint8_t)(118 + bits32() % 5); break;
    case DT_NVFP4:
        for (int i = 0; i < 4; i++) b[i] = (uint8_t)(bits32() % 0x38);
        break;
    default: ck_abort_msg("no block type");
    }
}
static uint8_t *random_rows(int type, int rows, int in)
{
    size_t row_bytes;
    ck_assert(dtype_row_bytes(type, in, &row_bytes));
    uint8_t *p = malloc(row_bytes * (size_t)rows);
    dtype_traits t = dtype_of(type);
    if (t.elems == 1)
        for (int i = 0; i < rows * in; i++) {
            float f = 0.02f * normal();
            ck_assert_int_eq(quant_row(type, &f, p + (size_t)i * (size_t)t.bytes, 1), 0);
        }
    else
        for (size_t i = 0; i < row_bytes * (size_t)rows; i += (size_t)t.bytes)
            random_block(type, p + i);
    return p;
}

/* ---- backends ----------------------------------------------------------------------------- */

/* The first is what all others must equal bit for bit. */
static const struct {
    const char *isa;
    int threads;
    bool slow;
} kinds[] = {{"avx2", 1, false},   {"avx2", 2, false},    {"avx512", 1, false},
             {"avx512", 2, false}, {"avxvnni", 2, false}, {"portable", 2, true}};
enum { N_KINDS = sizeof kinds / sizeof *kinds, MAX_M = 130, SCRATCH = 4 << 20 };

static backend *open_or_skip(int i, bool repack)
{
    err e = {0};
    backend_options o = {.name = "cpu",
                         .isa = kinds[i].isa,
                         .threads = kinds[i].threads,
                         .bf16_repack = repack,
                         .scratch_bytes = SCRATCH};
    backend *be = backend_open(&o, &e);
    if (!be) ck_assert_int_eq(e.code, ERR_UNSUPPORTED);
    return be;
}
static backend *open_ref(void)
{
    err e = {0};
    backend_options o = {.name = "ref", .scratch_bytes = SCRATCH};
    backend *be = backend_open(&o, &e);
    ck_assert_msg(be != NULL, "%s", e.msg);
    return be;
}
static weight upload(backend *be, const weight_part *parts, int n, int in, weight_join join)
{
    weight w;
    err e = {0};
    ck_assert_msg(k_upload_weight(be, &w, parts, n, in, join, &e) == 0, "%s", e.msg);
    return w;
}
static tensor view(float *p, int rows, int cols, int ld)
{
    return (tensor){p, rows, cols, ld, ACT_F32};
}
static double nmse(const float *got, const float *want, size_t n)
{
    double e = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        e += pow((double)got[i] - (double)want[i], 2);
        s += pow((double)want[i], 2);
    }
    return e / s;
}

/* ---- every format, shape and batch
 * --------------------------------------------------------------- */

/* Error against ref on normal activations.  Blocks: that of 8-bit activations (2.9e-5, whatever the
 * weights); I16: of 14-bit weights and activations; floats: of f32 sums.  Bounds are 1.5 times what
 * was measured. */
static const struct {
    int type;
    bool repack;
    double bound;
} formats[] = {
    {DT_F32, false, 1e-12},   {DT_F16, false, 1e-12},   {DT_BF16, false, 1e-12},
    {DT_F16, true, 6e-8},     {DT_BF16, true, 6e-8},    {DT_Q8_0, false, 6e-5},
    {DT_Q4_0, false, 6e-5},   {DT_Q4_1, false, 6e-5},   {DT_Q5_0, false, 6e-5},
    {DT_Q5_1, false, 6e-5},   {DT_Q2_K, false, 6e-5},   {DT_Q3_K, false, 6e-5},
    {DT_Q4_K, false, 6e-5},   {DT_Q5_K, false, 6e-5},   {DT_Q6_K, false, 6e-5},
    {DT_IQ4_NL, false, 6e-5}, {DT_IQ4_XS, false, 6e-5}, {DT_MXFP4, false, 6e-5},
    {DT_NVFP4, false, 6e-5},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

/* in = a number of blocks for block types, a number of values for floats. */
static const struct {
    int out, blocks, values;
} shapes[] = {{32, 1, 64}, {1, 2, 1},     {33, 3, 100}, {64, 2, 33},
              {70, 5, 7},  {290, 1, 288}, {257, 4, 40}};
static const int batches[] = {1, 2, 3, 4, 5, 7, 8, 16, 31, 64, 130};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_BATCHES = sizeof batches / sizeof *batches };

static int shape_in(int type, int s)
{
    int elems = dtype_of(type).elems;
    return elems == 1 ? shapes[s].values : elems * shapes[s].blocks;
}

/* Rows of any batch against the same rows of the largest, on one backend; y[MAX_M][ld] is that. */
static void check_batches(backend *be, const weight *w, float *x, int in, const float *y, int ld)
{
    float *z = malloc(sizeof *z * MAX_M * (size_t)ld);
    for (int i = 0; i < N_BATCHES; i++) {
        int m = batches[i], first = (i * 37) % (MAX_M - m + 1);
        for (size_t k = 0; k < (size_t)m * (size_t)ld; k++) z[k] = 77;
        k_linear(be, view(z, m, w->out, ld), view(x + (size_t)first * (size_t)in, m, in, in), w);
        for (int r = 0; r < m; r++) {
            ck_assert_mem_eq(z + (size_t)r * (size_t)ld, y + (size_t)(first + r) * (size_t)ld,
                             sizeof *z * (size_t)w->out);
            for (int c = w->out; c < ld; c++)
                ck_assert(z[(size_t)r * (size_t)ld + (size_t)c] == 77);
        }
    }
    free(z);
}

static void check_shape(int f, int s, double *worst)
{
    int type = formats[f].type, in = shape_in(type, s), out = shapes[s].out, ld = out + 3;
    size_t n = (size_t)MAX_M * (size_t)ld;
    uint8_t *rows = random_rows(type, out, in);
    float *bias = malloc(sizeof *bias * (size_t)out), *x = malloc(sizeof *x * MAX_M * (size_t)in);
    float *want = calloc(n, sizeof *want), *first = calloc(n, sizeof *first),
          *y = calloc(n, sizeof *y);
    for (int i = 0; i < out; i++) bias[i] = s % 2 ? normal() : 0;
    for (int i = 0; i < MAX_M * in; i++) x[i] = normal();
    for (int i = 0; i < in && s % 2; i++) x[i] = 0; /* a row of zeros */
    weight_part part = {rows, type, out, s % 2 ? bias : NULL};

    backend *ref = open_ref();
    weight rw = upload(ref, &part, 1, in, JOIN_ROWS);
    k_linear(ref, view(want, MAX_M, out, ld), view(x, MAX_M, in, in), &rw);
    k_release_weight(ref, &rw);
    backend_close(ref);
    bool have_first = false;
    for (int i = 0; i < N_KINDS; i++) {
        backend *be = open_or_skip(i, formats[f].repack);
        if (!be) continue;
        weight w = upload(be, &part, 1, in, JOIN_ROWS);
        if (!formats[f].repack)
            ck_assert_uint_eq(w.seg[0].bytes, be->op->weight_bytes(type, out, in));
        float *to = have_first ? y : first;
        k_linear(be, view(to, MAX_M, out, ld), view(x, MAX_M, in, in), &w);
        if (!have_first) *worst = fmax(*worst, nmse(first, want, n));
        else
            ck_assert_msg(!memcmp(y, first, n * sizeof *y), "%s differs at %d x %d", kinds[i].isa,
                          out, in);
        have_first = true;
        if (!kinds[i].slow) check_batches(be, &w, x, in, first, ld);
        k_release_weight(be, &w);
        backend_close(be);
    }
    free(rows), free(bias), free(x), free(want), free(first), free(y);
}

START_TEST(against_ref)
{
    double worst = 0;
    seed = 1000 + (uint64_t)_i;
    for (int s = 0; s < N_SHAPES; s++)
        if (!quick_skips(s + _i, 4)) check_shape(_i, s, &worst);
    printf("  %-6s%s worst NMSE %.2g\n", dtype_of(formats[_i].type).name,
           formats[_i].repack ? " (14-bit)" : "", worst);
    ck_assert_msg(worst < formats[_i].bound, "NMSE %.3g, bound %.3g", worst, formats[_i].bound);
}
END_TEST

/* ---- embedding
 * ----------------------------------------------------------------------------------- */

START_TEST(embed_is_exact)
{
    int type = formats[_i].type, rows = 70,
        in = 3 * (dtype_of(type).elems == 1 ? 7 : dtype_of(type).elems);
    if (formats[_i].repack) return;
    seed = 7;
    uint8_t *src = random_rows(type, rows, in);
    if (type == DT_MXFP4) /* the scales that make denormals, and the largest */
        for (int r = 0; r < 9; r++)
            src[(size_t)r * 51] = (uint8_t[]){0, 1, 2, 3, 4, 253, 254, 255, 127}[r];
    if (type == DT_NVFP4) src[0] = 0x7f, src[1] = 0, src[2] = 0x80 | 3;
    weight_part part = {src, type, rows, NULL};
    int32_t tok[MAX_M];
    for (int i = 0; i < MAX_M; i++) tok[i] = i < rows ? i : (i * 31) % rows;
    size_t n = (size_t)MAX_M * (size_t)in;
    float *want = malloc(sizeof *want * n), *got = malloc(sizeof *got * n);
    backend *ref = open_ref();
    weight rw = upload(ref, &part, 1, in, JOIN_ROWS);
    k_embed(ref, view(want, MAX_M, in, in), tok, &rw);
    for (int i = 0; i < N_KINDS; i++) {
        backend *be = open_or_skip(i, false);
        if (!be) continue;
        weight w = upload(be, &part, 1, in, JOIN_ROWS);
        k_embed(be, view(got, MAX_M, in, in), tok, &w);
        ck_assert_mem_eq(got, want, sizeof *want * n);
        k_embed(be, view(got, 2, in, in), tok, &w); /* too few rows to share */
        ck_assert_mem_eq(got, want, sizeof *want * 2 * (size_t)in);
        tok[1] = rows;
        k_embed(be, view(got, 2, in, in), tok, &w);
        err e = {0};
        ck_assert_int_eq(k_sync(be, &e), ERR_DEVICE);
        tok[1] = 1;
        k_release_weight(be, &w);
        backend_close(be);
    }
    k_release_weight(ref, &rw);
    backend_close(ref);
    free(src), free(want), free(got);
}
END_TEST

/* ---- joined and fused
 * ---------------------------------------------------------------------------- */

enum { HIDDEN = 256, FF = 256, JOIN_M = 37 };
static const int joins[][2] = {{DT_Q8_0, DT_Q8_0}, {DT_Q4_0, DT_Q4_0}, {DT_Q4_K, DT_Q6_K},
                               {DT_Q5_0, DT_Q8_0}, {DT_BF16, DT_BF16}, {DT_F32, DT_Q6_K},
                               {DT_F16, DT_F32},   {DT_Q2_K, DT_MXFP4}};

/* Parts of several types behave as their rows stacked: q|k|v of odd sizes, each alone on cpu. */
START_TEST(stacked_parts)
{
    int a = joins[_i][0], b = joins[_i][1], out[3] = {45, 19, 33};
    seed = 50;
    uint8_t *src[3] = {random_rows(a, out[0], HIDDEN), random_rows(a, out[1], HIDDEN),
                       random_rows(b, out[2], HIDDEN)};
    float *x = malloc(sizeof *x * JOIN_M * HIDDEN), bias[33], y[JOIN_M][97], z[JOIN_M][45];
    for (int i = 0; i < 33; i++) bias[i] = normal();
    for (int i = 0; i < JOIN_M * HIDDEN; i++) x[i] = normal();
    weight_part parts[3] = {
        {src[0], a, out[0], NULL}, {src[1], a, out[1], bias}, {src[2], b, out[2], bias}};
    for (int k = 0; k < N_KINDS; k++) {
        backend *be = open_or_skip(k, k % 2);
        if (!be) continue;
        weight w = upload(be, parts, 3, HIDDEN, JOIN_ROWS);
        ck_assert_int_eq(w.n_seg, a == b ? 1 : 2);
        k_linear(be, view(y[0], JOIN_M, 97, 97), view(x, JOIN_M, HIDDEN, HIDDEN), &w);
        for (int p = 0, at = 0; p < 3; at += out[p++]) {
            weight one = upload(be, &parts[p], 1, HIDDEN, JOIN_ROWS);
            k_linear(be, view(z[0], JOIN_M, out[p], 45), view(x, JOIN_M, HIDDEN, HIDDEN), &one);
            for (int m = 0; m < JOIN_M; m++)
                ck_assert_mem_eq(z[m], y[m] + at, sizeof(float) * (size_t)out[p]);
            k_release_weight(be, &one);
        }
        k_release_weight(be, &w);
        backend_close(be);
    }
    for (int p = 0; p < 3; p++) free(src[p]);
    free(x);
}
END_TEST

typedef struct {
    weight up, down;
    vec norm;
    int ff;
} mlp;

/* h += down(glu(up(norm(h)))), every step its own op. */
static void composed(backend *be, const mlp *w, float *h, int m)
{
    size_t mark = k_scratch_mark(be);
    tensor x = view(h, m, HIDDEN, HIDDEN), n = k_scratch(be, m, HIDDEN),
           gu = k_scratch(be, m, 2 * w->ff);
    tensor g = k_scratch(be, m, w->ff), o = k_scratch(be, m, HIDDEN);
    k_rms_norm(be, n, x, &w->norm, 1e-6f);
    k_linear(be, gu, n, &w->up);
    k_glu(be, g, gu);
    k_linear(be, o, g, &w->down);
    k_add(be, x, o);
    k_scratch_release(be, mark);
}
static void fused(backend *be, const mlp *w, float *h, int m, bool q8)
{
    size_t mark = k_scratch_mark(be);
    tensor x = view(h, m, HIDDEN, HIDDEN),
           g = q8 ? k_scratch_q8(be, m, w->ff) : k_scratch(be, m, w->ff);
    k_norm_glu(be, g, x, &w->norm, 1e-6f, &w->up);
    k_linear_add(be, x, g, &w->down);
    k_scratch_release(be, mark);
}

static void check_fused(backend *be, const mlp *w, const float *h, int m, double *worst,
                        const float *want)
{
    size_t bytes = sizeof *h * (size_t)m * HIDDEN;
    float *a = malloc(bytes), *b = malloc(bytes);
    memcpy(a, h, bytes);
    composed(be, w, a, m);
    *worst = fmax(*worst, nmse(a, want, (size_t)m * HIDDEN));
    for (int q8 = 0; q8 <= k_glu_out_q8(be, &w->down); q8++) {
        memcpy(b, h, bytes);
        fused(be, w, b, m, q8);
        ck_assert_mem_eq(a, b, bytes);
    }
    /* The norm into a plain product. */
    tensor x = view((float *)h, m, HIDDEN, HIDDEN);
    size_t mark = k_scratch_mark(be);
    tensor n = k_scratch(be, m, HIDDEN), y = k_scratch(be, m, 2 * w->ff),
           z = k_scratch(be, m, 2 * w->ff);
    k_rms_norm(be, n, x, &w->norm, 1e-6f);
    k_linear(be, y, n, &w->up);
    k_norm_linear(be, z, x, &w->norm, 1e-6f, &w->up);
    for (int r = 0; r < m; r++)
        ck_assert_mem_eq(tensor_row(y, r), tensor_row(z, r), sizeof(float) * 2 * (size_t)w->ff);
    k_scratch_release(be, mark);
    free(a);
    free(b);
}

static mlp make_mlp(backend *be, const weight_part up[2], const weight_part *down, int ff,
                    const float *norm)
{
    mlp w = {.ff = ff};
    err e = {0};
    w.up = upload(be, up, 2, HIDDEN, JOIN_GLU);
    w.down = upload(be, down, 1, ff, JOIN_ROWS);
    ck_assert_int_eq(k_upload_vec(be, &w.norm, norm, HIDDEN, &e), 0);
    return w;
}
static void free_mlp(backend *be, mlp *w)
{
    k_release_weight(be, &w->up);
    k_release_weight(be, &w->down);
    k_release_vec(be, &w->norm);
}

static bool is_float(int type)
{
    return dtype_of(type).elems == 1;
}

/* A whole feed-forward block: fused == composed in bits, near ref.  Activations of 8 bits come in
 * twice, and the products of gate and up have heavy tails, which the 32 values of a record share a
 * scale with: measured 0.5e-4 to 4.6e-4 (the largest with Q4_K, whose random minima give gates a
 * common offset). */
static void check_mlp(int gate_type, int up_type, int down_type, int ff, bool with_bias)
{
    const int sizes[] = {1, 3, JOIN_M, 600}; /* 600: more than one slice */
    uint8_t *gate = random_rows(gate_type, ff, HIDDEN), *up = random_rows(up_type, ff, HIDDEN);
    uint8_t *down = random_rows(down_type, HIDDEN, ff);
    float *h = malloc(sizeof *h * 600 * HIDDEN), *want = malloc(sizeof *h * 600 * HIDDEN),
          norm[HIDDEN], *bias;
    bias = malloc(sizeof *bias * (size_t)ff);
    for (int i = 0; i < 600 * HIDDEN; i++) h[i] = normal();
    for (int i = 0; i < HIDDEN; i++) norm[i] = 1 + 0.2f * normal();
    for (int i = 0; i < ff; i++) bias[i] = normal();
    weight_part gu[2] = {{gate, gate_type, ff, with_bias ? bias : NULL}, {up, up_type, ff, NULL}};
    weight_part dn = {down, down_type, HIDDEN, NULL};
    double worst = 0;
    for (int s = 0; s < (quick() ? 3 : 4); s++) {
        backend *ref = open_ref();
        mlp rw = make_mlp(ref, gu, &dn, ff, norm);
        memcpy(want, h, sizeof *h * (size_t)sizes[s] * HIDDEN);
        composed(ref, &rw, want, sizes[s]);
        free_mlp(ref, &rw);
        backend_close(ref);
        for (int k = 0; k < N_KINDS; k++) {
            backend *be = kinds[k].slow && sizes[s] > JOIN_M ? NULL : open_or_skip(k, false);
            if (!be) continue;
            mlp w = make_mlp(be, gu, &dn, ff, norm);
            check_fused(be, &w, h, sizes[s], &worst, want);
            free_mlp(be, &w);
            backend_close(be);
        }
    }
    bool exact = is_float(gate_type) && is_float(up_type) && is_float(down_type);
    ck_assert_msg(worst < (exact ? 1e-11 : 6e-4), "NMSE %.3g", worst);
    free(gate), free(up), free(down), free(h), free(want), free(bias);
}

START_TEST(feed_forward)
{
    seed = 90 + (uint64_t)_i;
    check_mlp(joins[_i][0], joins[_i][0], joins[_i][1], FF, _i % 2);
    check_mlp(joins[_i][0], joins[_i][1], joins[_i][0], FF, false);
}
END_TEST

/* Hidden sizes that are no multiple of 32 exist for float weights only. */
START_TEST(feed_forward_odd)
{
    seed = 99;
    check_mlp(DT_BF16, DT_BF16, DT_F32, 45, true);
    check_mlp(DT_Q8_0, DT_Q8_0, DT_F16, 70, false);
}
END_TEST

START_TEST(refused_uploads)
{
    float data[64 * 64] = {0};
    backend *be = open_or_skip(N_KINDS - 1, false);
    struct {
        weight_part p[2];
        int n, in;
        weight_join join;
    } bad[] = {
        {{{data, DT_Q4_K, 4, NULL}}, 1, 128, JOIN_ROWS},
        {{{data, DT_Q8_0, 4, NULL}}, 1, 33, JOIN_ROWS},
        {{{data, 5, 4, NULL}}, 1, 32, JOIN_ROWS},
        {{{data, DT_F32, 0, NULL}}, 1, 32, JOIN_ROWS},
        {{{data, DT_F32, 4, NULL}}, 1, 0, JOIN_ROWS},
        {{{data, DT_F32, 4, NULL}}, 1, 32, JOIN_GLU},
        {{{data, DT_F32, 4, NULL}}, 0, 32, JOIN_ROWS},
        {{{data, DT_F32, 4, NULL}, {data, DT_F32, 5, NULL}}, 2, 32, JOIN_GLU},
        {{{data, DT_F32, INT32_MAX, NULL}}, 1, 32, JOIN_ROWS},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        weight w = {0};
        err e = {0};
        ck_assert_int_lt(k_upload_weight(be, &w, bad[i].p, bad[i].n, bad[i].in, bad[i].join, &e),
                         0);
        ck_assert_int_ne(e.msg[0], 0);
    }
    backend_close(be);
}
END_TEST

int main(void)
{
    log_init(LOG_ERROR, false); /* not a warning for each portable backend */
    Suite *s = suite_create("linear");
    TCase *c = tcase_create("linear");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, against_ref, 0, N_FORMATS);
    tcase_add_loop_test(c, embed_is_exact, 0, N_FORMATS);
    tcase_add_loop_test(c, stacked_parts, 0, (int)(sizeof joins / sizeof *joins));
    tcase_add_loop_test(c, feed_forward, 0, (int)(sizeof joins / sizeof *joins));
    tcase_add_test(c, feed_forward_odd);
    tcase_add_test(c, refused_uploads);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
