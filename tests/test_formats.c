/* test_formats.c - every weight format: golden blocks bit for bit, float conversions over all their
 * inputs, and what the quantisers lose. */
#include "kernels/formats.h"
#include "kernels/kernels.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const int types[] = {
#define X(id, number, name, elems, bytes) id,
    DTYPE_LIST(X)
#undef X
};
enum { N_TYPES = sizeof types / sizeof *types };

/* A whole file; the caller frees it. */
static uint8_t *slurp(const char *dir, const char *type, const char *ext, size_t *n)
{
    char path[256];
    snprintf(path, sizeof path, "tests/data/quant_golden/%s%s.%s", dir, type, ext);
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "cannot read %s", path);
    uint8_t *p = malloc(1 << 16);
    *n = fread(p, 1, 1 << 16, f);
    ck_assert(feof(f));
    fclose(f);
    return p;
}

START_TEST(golden_blocks)
{
    int type = types[_i];
    dtype_traits t = dtype_of(type);
    if (t.elems == 1) return;
    size_t n_blk, n_f32;
    uint8_t *blk = slurp("", t.name, "blk", &n_blk), *want = slurp("", t.name, "f32", &n_f32);
    int n = (int)(n_blk / (size_t)t.bytes) * t.elems;
    ck_assert_uint_eq(n_blk % (size_t)t.bytes, 0);
    ck_assert_uint_eq((size_t)n * 4, n_f32);
    float *got = malloc(n_f32);
    dequant_row(type, blk, got, n);
    for (int i = 0; i < n; i++) {
        uint32_t w;
        memcpy(&w, want + 4 * i, 4);
        ck_assert_msg(w == bits_of_f32(got[i]), "%s[%d]: %08x, golden %08x", t.name, i,
                      bits_of_f32(got[i]), w);
    }
    /* The same from an odd address: rows of a file may lie anywhere. */
    uint8_t *shifted = malloc(n_blk + 1);
    memcpy(shifted + 1, blk, n_blk);
    dequant_row(type, shifted + 1, got, n);
    ck_assert_mem_eq(got, want, n_f32);
    free(shifted);
    free(got);
    free(blk);
    free(want);
}
END_TEST

/* The compiler's own conversion is the judge where it has one. */
START_TEST(f16_all_values)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        int e = h >> 10 & 31, m = h & 1023;
        if (e == 31 && m) {
            ck_assert(isnan(f));
            ck_assert(isnan(f16_to_f32(f32_to_f16(f))));
            continue;
        }
        double want = e == 31 ? INFINITY : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
        if (h & 0x8000) want = -want;
        ck_assert(f == (float)want && signbit(f) == signbit((float)want));
        ck_assert_uint_eq(f32_to_f16(f), h);
        if (e == 31) continue;
        /* Halfway to the next value goes to the even one, just past halfway to the next. */
        float next = f16_to_f32((uint16_t)(h + 1)),
              half = (e == 30 && m == 1023) ? copysignf(65520, f) : f / 2 + next / 2;
        uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);
        ck_assert_uint_eq(f32_to_f16(half), even);
        ck_assert_uint_eq(f32_to_f16(nextafterf(half, f)), h);
        ck_assert_uint_eq(f32_to_f16(nextafterf(half, copysignf(INFINITY, f))), h + 1);
    }
    ck_assert_uint_eq(f32_to_f16(1e30f), 0x7c00);
    ck_assert_uint_eq(f32_to_f16(-INFINITY), 0xfc00);
}
END_TEST

START_TEST(bf16_all_values)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = bf16_to_f32((uint16_t)h);
        if (isnan(f)) {
            ck_assert(isnan(bf16_to_f32(f32_to_bf16(f))));
            continue;
        }
        ck_assert_uint_eq(f32_to_bf16(f), h);
        if (isinf(f)) continue;
        ck_assert_uint_eq(f32_to_bf16(f32_of_bits(h << 16 | 0x7fff)), h);
        ck_assert_uint_eq(f32_to_bf16(f32_of_bits(h << 16 | 0x8000)), h + (h & 1));
        ck_assert_uint_eq(f32_to_bf16(f32_of_bits(h << 16 | 0x8001)), h + 1);
    }
    ck_assert(isnan(bf16_to_f32(f32_to_bf16(f32_of_bits(0x7f800001)))));
}
END_TEST

static uint64_t seed;
static float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(seed >> 40) * 0x1p-24f;
}
static float normal(void)
{
    float u = uniform() + 1e-7f, v = uniform();
    return sqrtf(-2 * logf(u)) * cosf(6.2831853f * v);
}

/* What each format loses on normal values: sum (x - q)^2 / sum x^2 over 64 Ki values, within 3% of
 * what was measured when these were written. */
static const struct {
    int type;
    double bound;
} losses[] = {
    {DT_F16, 4.5e-8},   {DT_BF16, 2.8e-6},  {DT_Q8_0, 2.95e-5}, {DT_Q6_K, 3.1e-4},
    {DT_Q5_K, 1.34e-3}, {DT_Q5_1, 1.20e-3}, {DT_Q5_0, 1.7e-3},  {DT_Q4_K, 5.3e-3},
    {DT_Q4_1, 5.2e-3},  {DT_Q4_0, 6.9e-3},
};

START_TEST(quantiser_losses)
{
    enum { N = 65536 };
    int type = losses[_i].type;
    dtype_traits t = dtype_of(type);
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    uint8_t *q = malloc((size_t)N / (size_t)t.elems * (size_t)t.bytes);
    seed = 1;
    for (int i = 0; i < N; i++) x[i] = 0.02f * normal();
    ck_assert_int_eq(quant_row(type, x, q, N), 0);
    dequant_row(type, q, y, N);
    double e = 0, s = 0;
    for (int i = 0; i < N; i++) {
        e += pow((double)x[i] - (double)y[i], 2);
        s += pow((double)x[i], 2);
    }
    printf("  %-5s NMSE on normal values %.3g\n", t.name, e / s);
    ck_assert_msg(e / s < losses[_i].bound, "%s loses %.3g, bound %.3g", t.name, e / s,
                  losses[_i].bound);
    free(x);
    free(y);
    free(q);
}
END_TEST

/* Values a format holds exactly come back exactly: quantising its own output changes nothing much
 * (F16, BF16, Q8_0: nothing at all) and zeros stay zeros. */
START_TEST(quantiser_edges)
{
    int type = losses[_i].type;
    dtype_traits t = dtype_of(type);
    float x[256] = {0}, y[256];
    uint8_t q[2048];
    ck_assert_int_eq(quant_row(type, x, q, 256), 0);
    dequant_row(type, q, y, 256);
    for (int i = 0; i < 256; i++) ck_assert(y[i] == 0);
    for (int i = 0; i < 256; i++) x[i] = i == 77 ? -3.0f : 0; /* one value alone */
    ck_assert_int_eq(quant_row(type, x, q, 256), 0);
    dequant_row(type, q, y, 256);
    ck_assert(fabsf(y[77] + 3) < 0.05f);
    for (int i = 0; i < 256; i++) x[i] = 1.5f; /* all equal, one sign */
    ck_assert_int_eq(quant_row(type, x, q, 256), 0);
    dequant_row(type, q, y, 256);
    for (int i = 0; i < 256; i++)
        ck_assert_msg(fabsf(y[i] - 1.5f) < 0.02f, "%s: %g", t.name, (double)y[i]);
    for (int i = 0; i < 256; i++) x[i] = 1e-20f * (float)(i - 128); /* below what f16 scales hold */
    ck_assert_int_eq(quant_row(type, x, q, 256), 0);
    if (t.elems == 1) return;
    x[3] = NAN;
    ck_assert_int_eq(quant_row(type, x, q, 256), ERR_FORMAT);
    x[3] = INFINITY;
    ck_assert_int_eq(quant_row(type, x, q, 256), ERR_FORMAT);
    x[3] = 1e30f;
    ck_assert_int_eq(quant_row(type, x, q, 256), ERR_FORMAT);
    ck_assert_int_eq(quant_row(type, x, q, 255), ERR_INVALID);
    ck_assert_int_eq(quant_row(type, x, q, -32), ERR_INVALID);
}
END_TEST

START_TEST(q8_0_repeats)
{
    float x[256], y[256];
    uint8_t q[272], again[272];
    seed = 5;
    for (int i = 0; i < 256; i++) x[i] = normal();
    ck_assert_int_eq(quant_row(DT_Q8_0, x, q, 256), 0);
    dequant_row(DT_Q8_0, q, y, 256);
    ck_assert_int_eq(quant_row(DT_Q8_0, y, again, 256), 0);
    ck_assert_mem_eq(q, again, sizeof q);
}
END_TEST

START_TEST(refused_types)
{
    float x[256] = {0};
    uint8_t q[2048];
    const int refused[] = {DT_Q2_K,  DT_Q3_K, DT_IQ4_NL, DT_IQ4_XS, DT_MXFP4,
                           DT_NVFP4, 4,       41,        -1,        1000};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        ck_assert_int_eq(quant_row(refused[i], x, q, 256), ERR_UNSUPPORTED);
}
END_TEST

/* Rows of a made-up matrix, as the plain backend reads them. */
static float *made_up(int type, int rows, int in, uint64_t which)
{
    err e = {0};
    backend *be = backend_open(&(backend_options){.name = "ref"}, &e);
    weight_part part = {.type = type, .rows = rows};
    weight w = {0};
    float *v = malloc((size_t)rows * (size_t)in * sizeof *v);
    int32_t row[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    ck_assert(rows == 8 && be);
    ck_assert_msg(!k_dummy_weight(be, &w, &part, 1, in, JOIN_ROWS, which, &e), "%s", e.msg);
    k_embed(be, (tensor){v, rows, in, in, ACT_F32}, row, &w);
    ck_assert(!k_sync(be, &e));
    k_release_weight(be, &w);
    backend_close(be);
    return v;
}

/* The same for the same seed, another matrix for another, of the promised size, centred. */
START_TEST(made_up_weights)
{
    enum { ROWS = 8, IN = 2048, N = ROWS * IN };
    const char *name = dtype_of(types[_i]).name;
    float *v = made_up(types[_i], ROWS, IN, 1), *again = made_up(types[_i], ROWS, IN, 1);
    float *other = made_up(types[_i], ROWS, IN, 2);
    double sum = 0, squares = 0;
    ck_assert(!memcmp(v, again, N * sizeof *v));
    ck_assert(memcmp(v, other, N * sizeof *v) != 0);
    ck_assert(memcmp(v, v + IN, IN * sizeof *v) != 0);
    for (int i = 0; i < N; i++) {
        sum += v[i];
        squares += (double)v[i] * v[i];
    }
    double rms = sqrt(squares / N) * sqrt(IN), mean = sum / N * sqrt(IN);
    /* MXFP4 and NVFP4 have scales in steps of 2 and of 1/8 to 1/2. */
    double off = types[_i] == DT_MXFP4 || types[_i] == DT_NVFP4 ? 1.42 : 1.1;
    ck_assert_msg(rms < off && rms > 1 / off, "%s: root mean square %g of 1", name, rms);
    /* Uniform codes 0..15 less 8, as in Q4_0, are half a step off: 0.5 / 4.64. */
    ck_assert_msg(fabs(mean) < 0.13, "%s: mean %g", name, mean);
    free(v);
    free(again);
    free(other);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("formats");
    TCase *c = tcase_create("formats");
    tcase_add_loop_test(c, golden_blocks, 0, N_TYPES);
    tcase_add_test(c, f16_all_values);
    tcase_add_test(c, bf16_all_values);
    tcase_add_loop_test(c, quantiser_losses, 0, (int)(sizeof losses / sizeof *losses));
    tcase_add_loop_test(c, quantiser_edges, 0, (int)(sizeof losses / sizeof *losses));
    tcase_add_test(c, q8_0_repeats);
    tcase_add_test(c, refused_types);
    tcase_add_loop_test(c, made_up_weights, 0, N_TYPES);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
