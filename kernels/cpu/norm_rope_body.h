/* norm_rope_body.h - the row kernels of cpu_row_ops, written once on v16 and compiled once per
 * instruction set by norm_rope_{avx512,avx2,portable}.c, which name the table in CPU_ROWS.
 * Refuses nothing: any n >= 0.  Any thread. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

/* Sum of squares of x[n] in 32 lanes: two chains hide the latency of the adds. */
static float sum_squares(const float *x, int n)
{
    v16 s0 = v_zero(), s1 = v_zero();
    int i = 0;
    for (; i + 32 <= n; i += 32) {
        v16 a = v_load(x + i), b = v_load(x + i + 16);
        s0 = v_fma(a, a, s0);
        s1 = v_fma(b, b, s1);
    }
    for (; i < n; i += 16) {
        v16 a = v_load_n(x + i, n - i < 16 ? n - i : 16);
        s0 = v_fma(a, a, s0);
    }
    return v_sum(v_add(s0, s1));
}

static void rms_norm(float *y, const float *x, const float *w, int n, float eps)
{
    v16 r = v_set1(1.0f / sqrtf(sum_squares(x, n) / (float)n + eps));
    int i = 0;
    for (; i + 16 <= n; i += 16) v_store(y + i, v_mul(v_mul(v_load(x + i), r), v_load(w + i)));
    if (i < n)
        v_store_n(y + i, v_mul(v_mul(v_load_n(x + i, n - i), r), v_load_n(w + i, n - i)), n - i);
}

static void glu(float *y, const float *gate, const float *up, int n)
{
    int i = 0;
    for (; i + 16 <= n; i += 16) v_store(y + i, v_mul(v_silu(v_load(gate + i)), v_load(up + i)));
    if (i < n)
        v_store_n(y + i, v_mul(v_silu(v_load_n(gate + i, n - i)), v_load_n(up + i, n - i)), n - i);
}

static void add(float *y, const float *x, int n)
{
    int i = 0;
    for (; i + 16 <= n; i += 16) v_store(y + i, v_add(v_load(y + i), v_load(x + i)));
    if (i < n) v_store_n(y + i, v_add(v_load_n(y + i, n - i), v_load_n(x + i, n - i)), n - i);
}

/* Products and sums are rounded one by one, as every reference does. */
static void rotate(float *x, const float *cs, int dim)
{
    int half = dim / 2;
    float *u = x, *v = x + half;
    const float *c = cs, *s = cs + half;
    int i = 0;
    for (; i + 16 <= half; i += 16) {
        v16 a = v_load(u + i), b = v_load(v + i), ci = v_load(c + i), si = v_load(s + i);
        v_store(u + i, v_sub(v_mul(a, ci), v_mul(b, si)));
        v_store(v + i, v_add(v_mul(b, ci), v_mul(a, si)));
    }
    if (i < half) {
        int m = half - i;
        v16 a = v_load_n(u + i, m), b = v_load_n(v + i, m);
        v16 ci = v_load_n(c + i, m), si = v_load_n(s + i, m);
        v_store_n(u + i, v_sub(v_mul(a, ci), v_mul(b, si)), m);
        v_store_n(v + i, v_add(v_mul(b, ci), v_mul(a, si)), m);
    }
}

const cpu_row_ops CPU_ROWS = {.rms_norm = rms_norm, .glu = glu, .add = add, .rotate = rotate};
