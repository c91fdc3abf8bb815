/* ops_rig.h - what the op tests share: seeded numbers, backends to compare, tensors of their own
 * memory, error measures.  Tests only. */
#ifndef QUERN_TESTS_OPS_RIG_H
#define QUERN_TESTS_OPS_RIG_H

#include "base/log.h"
#include "kernels/kernels.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline uint64_t rnd(uint64_t *s) /* xorshift64* */
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return *s * 2685821657736338717u;
}
static inline float rnd_unit(uint64_t *s) /* [0, 1) */
{
    return (float)(rnd(s) >> 40) * 0x1p-24f;
}
static inline int rnd_below(uint64_t *s, int n)
{
    return (int)(rnd(s) >> 33) % n;
}
static inline float rnd_normal(uint64_t *s)
{
    float u = rnd_unit(s) + 1e-7f, v = rnd_unit(s);
    return sqrtf(-2 * logf(u)) * cosf(6.2831853f * v);
}
static inline void fill_normal(float *p, size_t n, float scale, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) p[i] = scale * rnd_normal(&seed);
}

static inline backend *open_backend(const char *name, const char *isa, int threads)
{
    err e = {0};
    backend_options o = {.name = name, .isa = isa, .threads = threads, .scratch_bytes = 64u << 20};
    backend *be = backend_open(&o, &e);
    ck_assert_msg(be != NULL, "%s %s: %s", name, isa ? isa : "", e.msg);
    return be;
}

/* The instruction sets this machine has, best first.  May be called before the tests run. */
static inline int machine_isas(const char *out[4])
{
    static const char *const all[] = {"avx512", "avxvnni", "avx2", "portable"};
    int n = 0;
    for (int i = 0; i < 4; i++) {
        backend_options o = {.name = "cpu", .isa = all[i], .threads = 1};
        backend *be = backend_open(&o, NULL);
        if (be) out[n++] = all[i];
        backend_close(be);
    }
    return n;
}

/* Runs one suite and returns main's value. */
static inline int run_suite(Suite *s)
{
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}

/* rows x cols floats with ld > cols; the gap holds a pattern that own_check finds again. */
typedef struct {
    tensor t;
    float *mem;
} own;
static const float OWN_GAP = 12345.5f;
static inline own own_new(int rows, int cols)
{
    int ld = cols + 3;
    size_t n = (size_t)rows * (size_t)ld;
    own o = {.mem = (float *)malloc(n * sizeof(float))};
    ck_assert_ptr_nonnull(o.mem);
    for (size_t i = 0; i < n; i++) o.mem[i] = OWN_GAP;
    o.t = (tensor){o.mem, rows, cols, ld, ACT_F32};
    return o;
}
static inline void own_free(own *o)
{
    free(o->mem);
}
static inline void own_fill(own o, float scale, uint64_t seed)
{
    for (int r = 0; r < o.t.rows; r++)
        for (int c = 0; c < o.t.cols; c++) tensor_row(o.t, r)[c] = scale * rnd_normal(&seed);
}
static inline void own_copy(own to, own from)
{
    memcpy(to.mem, from.mem, (size_t)to.t.rows * (size_t)to.t.ld * sizeof(float));
}
/* Nothing was written between the rows. */
static inline void own_check(own o)
{
    for (int r = 0; r < o.t.rows; r++)
        for (int c = o.t.cols; c < o.t.ld; c++)
            ck_assert_msg(tensor_row(o.t, r)[c] == OWN_GAP, "row %d: gap written", r);
}
static inline bool own_same(own a, own b)
{
    for (int r = 0; r < a.t.rows; r++)
        if (memcmp(tensor_row(a.t, r), tensor_row(b.t, r), (size_t)a.t.cols * sizeof(float)))
            return false;
    return true;
}

/* Squared error over squared size; infinite where something is not finite. */
static inline double nmse(const float *x, const float *want, size_t n, double err0, double *norm)
{
    double e = err0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - (double)want[i];
        e += d * d;
        *norm += (double)want[i] * (double)want[i];
    }
    return e;
}
static inline double own_nmse(own x, own want)
{
    double e = 0, n = 0;
    for (int r = 0; r < x.t.rows; r++)
        e = nmse(tensor_row(x.t, r), tensor_row(want.t, r), (size_t)x.t.cols, e, &n);
    return isfinite(e) ? e / (n > 0 ? n : 1) : INFINITY;
}
/* Largest |x - want| over max(|want|, floor). */
static inline double own_worst(own x, own want, double floor_at)
{
    double worst = 0;
    for (int r = 0; r < x.t.rows; r++)
        for (int c = 0; c < x.t.cols; c++) {
            double a = (double)tensor_row(x.t, r)[c], b = (double)tensor_row(want.t, r)[c];
            double d = fabs(a - b) / fmax(fabs(b), floor_at);
            if (!(d <= worst)) worst = isfinite(d) ? d : INFINITY;
        }
    return worst;
}

#endif
