/* test_rows.cu - the row ops of the CUDA back end against ref: exact where they are exact, else
 * within one rounding to bf16; any width and alignment; the same bits alone, among others, in any
 * order. */
#include "tests/cuda/op_rig.h"

static backend *dev, *ref;

static void open_both(void)
{
    dev = open_device();
    ref = open_backend("ref", NULL, 1);
}
static void close_both(void)
{
    backend_close(dev);
    backend_close(ref);
}

/* Widths around a group of 8, and real ones. */
static const int widths[] = {1, 7, 8, 9, 63, 64, 200, 896, 2049, 3584};
enum { N_WIDTHS = sizeof widths / sizeof *widths, ROWS = 5 };

/* Where a tensor lies: rows 16-byte aligned, aligned with a gap, and not aligned. */
typedef struct {
    int pad, lead;
} place;
static const place places[] = {{0, 0}, {8, 8}, {3, 1}};

static half_tensor placed(int rows, int cols, place p)
{
    int ld = p.pad == 3 ? cols + 3 : (cols + 7) / 8 * 8 + p.pad;
    return half_new(dev, rows, cols, ld, p.lead);
}

static void fill(half_tensor h, float scale, uint64_t seed)
{
    for (int r = 0; r < h.t.rows; r++)
        for (int c = 0; c < h.t.cols; c++)
            half_row(h, r)[c] = f32_to_bf16(scale * rnd_normal(&seed));
    half_up(h);
}

/* The same values as ref's tensor. */
static own widened(half_tensor h)
{
    own o = own_new(h.t.rows, h.t.cols);
    for (int r = 0; r < h.t.rows; r++)
        for (int c = 0; c < h.t.cols; c++) tensor_row(o.t, r)[c] = bf16_to_f32(half_row(h, r)[c]);
    return o;
}

/* got is want rounded to bf16, that is within half a step (2^-8 of its power of two), where f32
 * arithmetic may be off by 1e-6. */
static void check_rounded(half_tensor got, own want, const char *what)
{
    half_down(got);
    for (int r = 0; r < got.t.rows; r++)
        for (int c = 0; c < got.t.cols; c++) {
            double a = (double)bf16_to_f32(half_row(got, r)[c]);
            double b = (double)tensor_row(want.t, r)[c];
            double bound = (b == 0 ? 0 : ldexp(1, ilogb(b) - 8)) + fabs(b) * 1e-6 + 0x1p-134;
            ck_assert_msg(fabs(a - b) <= bound || a == b,
                          "%s, %d columns, row %d, column %d: %g, ref %g", what, got.t.cols, r, c,
                          a, b);
        }
}

START_TEST(gather_copies)
{
    static const int32_t from[] = {4, 0, 0, 3};
    open_both();
    int32_t *row = (int32_t *)k_alloc(dev, sizeof from);
    k_upload(dev, row, from, sizeof from);
    for (int i = 0; i < N_WIDTHS; i++)
        for (place p : places) {
            half_tensor x = placed(ROWS, widths[i], p), y = placed(4, widths[i], places[i % 3]);
            fill(x, 1, 3);
            k_gather_rows(dev, y.t, x.t, row);
            half_down(y);
            for (int r = 0; r < 4; r++)
                ck_assert(!memcmp(half_row(y, r), half_row(x, from[r]), (size_t)widths[i] * 2));
            half_free(&x);
            half_free(&y);
        }
    k_free(dev, row, sizeof from);
    close_both();
}
END_TEST

static vec upload_vec(backend *be, const float *w, int n)
{
    err e = {};
    vec v = {};
    ck_assert_msg(k_upload_vec(be, &v, w, n, &e) == 0, "%s", e.msg);
    return v;
}

/* Sums of rows over spans, continued, started anew and brought back: exact, as on the host. */
START_TEST(pool_sums_in_order)
{
    static const pool_span first[] = {{0, 3, 2, 1}, {3, 1, 0, 1}, {4, 1, 1, 1}};
    static const pool_span then[] = {{0, 0, 2, 0}, {0, 5, 1, 0}, {4, 1, 0, 1}};
    open_both();
    for (int i = 0; i < N_WIDTHS; i++) {
        int n = widths[i];
        size_t bytes = 3 * (size_t)n * sizeof(double);
        half_tensor x = placed(ROWS, n, places[i % 3]);
        fill(x, 3, 7 + (uint64_t)i);
        own wx = widened(x), want = own_new(3, n);
        double *ds = (double *)k_alloc(dev, bytes), *rs = (double *)k_alloc(ref, bytes);
        pool_span *span = (pool_span *)k_alloc(dev, sizeof first);
        float *y = (float *)k_alloc(dev, 3 * (size_t)n * sizeof *y);
        float *got = (float *)malloc(3 * (size_t)n * sizeof *got);
        tensor t = {y, 3, n, n, ACT_F32};
        for (const pool_span *p : {first, then}) {
            k_upload(dev, span, p, sizeof first);
            k_pool(dev, t, x.t, ds, span);
            k_pool(ref, want.t, wx.t, rs, p);
            k_download(dev, got, y, 3 * (size_t)n * sizeof *got);
            for (int r = 0; r < 3; r++)
                ck_assert(!memcmp(got + r * n, tensor_row(want.t, r), (size_t)n * sizeof *got));
        }
        free(got);
        k_free(dev, y, 3 * (size_t)n * sizeof *y);
        k_free(dev, span, sizeof first);
        k_free(dev, ds, bytes);
        k_free(ref, rs, bytes);
        own_free(&wx);
        own_free(&want);
        half_free(&x);
    }
    close_both();
}
END_TEST

START_TEST(rms_norm_is_ref_rounded)
{
    open_both();
    for (int i = 0; i < N_WIDTHS; i++)
        for (place p : places) {
            int n = widths[i];
            half_tensor x = placed(ROWS, n, p), y = placed(ROWS, n, places[i % 3]);
            float *w = (float *)malloc((size_t)n * sizeof *w);
            fill_normal(w, (size_t)n, 1, 5);
            vec dw = upload_vec(dev, w, n), rw = upload_vec(ref, w, n);
            fill(x, i % 2 ? 1e-4f : 30, 4 + (uint64_t)i);
            own wx = widened(x), want = own_new(ROWS, n);
            k_rms_norm(ref, want.t, wx.t, &rw, 1e-6f);
            k_rms_norm(dev, y.t, x.t, &dw, 1e-6f);
            check_rounded(y, want, "rms_norm");
            k_rms_norm(dev, x.t, x.t, &dw, 1e-6f); /* in place */
            half_down(x);
            ck_assert(half_same(x, y));
            own_free(&wx);
            own_free(&want);
            half_free(&x);
            half_free(&y);
            k_release_vec(dev, &dw);
            k_release_vec(ref, &rw);
            free(w);
        }
    close_both();
}
END_TEST

START_TEST(glu_is_ref_rounded)
{
    open_both();
    for (int i = 0; i < N_WIDTHS; i++)
        for (place p : places) {
            int n = widths[i];
            half_tensor x = placed(ROWS, 2 * n, p), y = placed(ROWS, n, places[i % 3]);
            fill(x, 3, 9 + (uint64_t)i);
            for (int r = 0; r < ROWS; r++) { /* saturated gates */
                half_row(x, r)[0] = f32_to_bf16(r % 2 ? 200 : -200);
                half_row(x, r)[n / 2] = f32_to_bf16(r % 2 ? 1e30f : -88.5f);
            }
            half_up(x);
            own wx = widened(x), want = own_new(ROWS, n);
            k_glu(ref, want.t, wx.t);
            k_glu(dev, y.t, x.t);
            check_rounded(y, want, "glu");
            own_free(&wx);
            own_free(&want);
            half_free(&x);
            half_free(&y);
        }
    close_both();
}
END_TEST

START_TEST(add_is_exact)
{
    open_both();
    for (int i = 0; i < N_WIDTHS; i++)
        for (place p : places) {
            half_tensor x = placed(ROWS, widths[i], p), y = placed(ROWS, widths[i], places[i % 3]);
            fill(x, 2, 1);
            fill(y, 2, 2);
            own want = widened(y);
            for (int r = 0; r < ROWS; r++)
                for (int c = 0; c < widths[i]; c++)
                    tensor_row(want.t, r)[c] += bf16_to_f32(half_row(x, r)[c]);
            k_add(dev, y.t, x.t);
            half_down(y);
            for (int r = 0; r < ROWS; r++)
                for (int c = 0; c < widths[i]; c++)
                    ck_assert_uint_eq(half_row(y, r)[c], f32_to_bf16(tensor_row(want.t, r)[c]));
            own_free(&want);
            half_free(&x);
            half_free(&y);
        }
    close_both();
}
END_TEST

/* Alone, as the last of many, in other orders of threads: memcmp. */
START_TEST(bits_depend_on_the_row_alone)
{
    enum { N = 3000, MANY = 9 };
    open_both();
    float *w = (float *)malloc(N * sizeof *w);
    fill_normal(w, N, 1, 5);
    vec dw = upload_vec(dev, w, N);
    half_tensor x = placed(MANY, N, places[0]), y = placed(MANY, N, places[0]);
    half_tensor one = placed(1, N, places[2]), y1 = placed(1, N, places[1]);
    fill(x, 1, 6);
    memcpy(half_row(one, 0), half_row(x, MANY - 1), N * 2);
    half_up(one);
    for (uint64_t seed = 0; seed < 3; seed++) {
        other_order(seed);
        k_rms_norm(dev, y.t, x.t, &dw, 1e-6f);
        k_rms_norm(dev, y1.t, one.t, &dw, 1e-6f);
        half_down(y);
        half_down(y1);
        ck_assert(!memcmp(half_row(y, MANY - 1), half_row(y1, 0), N * 2));
    }
    other_order(asked_order());
    half_free(&x);
    half_free(&y);
    half_free(&one);
    half_free(&y1);
    k_release_vec(dev, &dw);
    free(w);
    close_both();
}
END_TEST

/* cos and sin are rounded once from double on both sides: equal bits. */
START_TEST(rope_rows_equal_ref)
{
    static const int dims[] = {2, 64, 128, 130};
    static const int32_t pos[] = {0,      1,       2,       3,        7,         100,      1023,
                                  32767,  131071,  131072,  999999,   1048575,   16777216, 1 << 30,
                                  105615, 2147483, 8388607, 33554433, 123456789, INT32_MAX};
    enum { N = sizeof pos / sizeof *pos };
    open_both();
    int32_t *dpos = (int32_t *)k_alloc(dev, sizeof pos);
    k_upload(dev, dpos, pos, sizeof pos);
    for (int dim : dims) {
        float freq[65];
        for (int i = 0; i < dim / 2; i++) freq[i] = powf(1e6f, -2.0f * (float)i / (float)dim);
        rope_spec rs = {dim, freq, 1.1386f}, ds = rs;
        size_t bytes = (size_t)dim / 2 * sizeof *freq;
        float *dfreq = (float *)k_alloc(dev, bytes);
        k_upload(dev, dfreq, freq, bytes);
        ds.inv_freq = dfreq;
        own want = own_new(N, dim), got = own_new(N, dim);
        size_t n = (size_t)N * (size_t)got.t.ld * sizeof(float);
        tensor cs = got.t;
        cs.ptr = k_alloc(dev, n);
        k_upload(dev, cs.ptr, got.mem, n);
        k_rope_rows(ref, want.t, pos, &rs);
        k_rope_rows(dev, cs, dpos, &ds);
        k_download(dev, got.mem, cs.ptr, n);
        own_check(got);
        for (int r = 0; r < N; r++)
            for (int c = 0; c < dim; c++)
                ck_assert_msg(tensor_row(got.t, r)[c] == tensor_row(want.t, r)[c],
                              "position %d, column %d of %d: %.9g, ref %.9g", pos[r], c, dim,
                              (double)tensor_row(got.t, r)[c], (double)tensor_row(want.t, r)[c]);
        k_free(dev, cs.ptr, n);
        k_free(dev, dfreq, bytes);
        own_free(&want);
        own_free(&got);
    }
    k_free(dev, dpos, sizeof pos);
    close_both();
}
END_TEST

/* No rows: nothing happens. */
START_TEST(no_rows)
{
    open_both();
    err e = {};
    tensor none = {NULL, 0, 64, 64, ACT_BF16}, wide = none, cs = {NULL, 0, 64, 64, ACT_F32};
    wide.cols = wide.ld = 128;
    rope_spec r = {64, NULL, 1};
    vec v = {NULL, 64};
    k_rms_norm(dev, none, none, &v, 1e-6f);
    k_glu(dev, none, wide);
    k_add(dev, none, none);
    k_gather_rows(dev, none, none, NULL);
    k_rope_rows(dev, cs, NULL, &r);
    ck_assert_msg(k_sync(dev, &e) == 0, "%s", e.msg);
    close_both();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cuda rows");
    TCase *t = tcase_create("rows");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, gather_copies);
    tcase_add_test(t, pool_sums_in_order);
    tcase_add_test(t, rms_norm_is_ref_rounded);
    tcase_add_test(t, glu_is_ref_rounded);
    tcase_add_test(t, add_is_exact);
    tcase_add_test(t, bits_depend_on_the_row_alone);
    tcase_add_test(t, rope_rows_equal_ref);
    tcase_add_test(t, no_rows);
    suite_add_tcase(s, t);
    return run_suite(s);
}
