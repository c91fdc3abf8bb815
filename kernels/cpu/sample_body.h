/* sample_body.h - the sampler's passes over a row, written once and compiled once per instruction
 * set by sample_{avx512,avx2,portable}.c, which name the table in CPU_SAMPLE.
 * Refuses nothing; any thread. */
#include "kernels/cpu/sample.h"
#include "kernels/cpu/simd.h"

/* 16 scores from i on, -inf beyond n and for NaN. */
INLINE v16 scores_at(const float *x, int i, int n)
{
    v16 never = v_set1(-INFINITY);
    if (i + 16 <= n) return v_max(v_load(x + i), never);
    return v_max(v_first(v_load_n(x + i, n - i), never, n - i), never);
}

static float maxima(const float *x, int n, float *set)
{
    v16 top = v_set1(-INFINITY);
    for (int i = 0; i < n; i += SAMPLE_BLOCK, set += 16) {
        int end = i + SAMPLE_BLOCK < n ? i + SAMPLE_BLOCK : n, j = i;
        v16 a = v_set1(-INFINITY), b = a, c = a, d = a;
        for (; j + 64 <= end; j += 64) { /* v_max skips a NaN that comes first */
            a = v_max(v_load(x + j), a);
            b = v_max(v_load(x + j + 16), b);
            c = v_max(v_load(x + j + 32), c);
            d = v_max(v_load(x + j + 48), d);
        }
        for (; j < end; j += 16) a = v_max(scores_at(x, j, n), a);
        a = v_max(v_max(a, b), v_max(c, d));
        v_store(set, a);
        top = v_max(a, top);
    }
    return v_hmax(top);
}

static int find(const float *x, int n, float v)
{
    v16 want = v_set1(v);
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        unsigned hit = v_eq_mask(v_load(x + i), want);
        if (hit) return i + __builtin_ctz(hit);
    }
    while (i < n && x[i] != v) i++;
    return i;
}

static int collect(const float *x, int n, float bar, int max_equal, float *score, int32_t *id)
{
    int m = 0, i = 0, equal = 0;
    for (; i + 16 <= n; i += 16) {
        unsigned hit = v_ge_mask(v_load(x + i), v_set1(bar));
        if (hit && equal >= max_equal) hit = v_gt_mask(v_load(x + i), v_set1(bar));
        for (; hit; hit &= hit - 1) {
            int at = i + __builtin_ctz(hit);
            if (x[at] == bar && equal++ >= max_equal) continue;
            id[m] = at;
            score[m++] = x[at];
        }
    }
    for (; i < n; i++)
        if (x[i] > bar || (x[i] == bar && equal++ < max_equal)) {
            id[m] = i;
            score[m++] = x[i];
        }
    return m;
}

static int count(const float *x, int n, float v, bool or_equal)
{
    v16 b = v_set1(v);
    int m = 0, i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 a = v_load(x + i);
        m += __builtin_popcount(or_equal ? v_ge_mask(a, b) : v_gt_mask(a, b));
    }
    for (; i < n; i++) m += x[i] > v || (or_equal && x[i] == v);
    return m;
}

static double sum_exp(const float *x, int n, float top)
{
    v16 t = v_set1(top);
    double sum = 0;
    for (int i = 0; i < n; i += SAMPLE_BLOCK) {
        int end = i + SAMPLE_BLOCK < n ? i + SAMPLE_BLOCK : n;
        v16 a = v_zero(), b = v_zero();
        for (int j = i; j < end; j += 32) {
            a = v_add(a, v_exp(v_sub(scores_at(x, j, n), t)));
            if (j + 16 < end) b = v_add(b, v_exp(v_sub(scores_at(x, j + 16, n), t)));
        }
        sum += v_sum(v_add(a, b));
    }
    return sum;
}

static void mask(float *to, const float *x, const uint32_t *may, int n)
{
    v16 never = v_set1(-INFINITY);
    int i = 0;
    for (; i + 16 <= n; i += 16)
        v_store(to + i, v_pick(may[i / 32] >> i % 32, scores_at(x, i, n), never));
    for (; i < n; i++) to[i] = (may[i / 32] >> i % 32 & 1) && x[i] == x[i] ? x[i] : -INFINITY;
}

/* ---- double precision --------------------------------------------------------------------------
 * In the compilers' own vectors of a register's width, multiplies and adds rounded apart: the same
 * bits everywhere without a second set of wrappers. */

enum { DW = SIMD_WIDTH / 2 }; /* doubles in a register */
typedef float vf __attribute__((vector_size(DW * 4)));
typedef double vd __attribute__((vector_size(DW * 8)));
typedef int64_t vl __attribute__((vector_size(DW * 8)));

/* e^x for x <= 0 (NaN as -inf): 2^n times a polynomial of degree 9 on [-1/2, 1/2] in x log2(e),
 * interpolated at Chebyshev points, error 4e-14. */
INLINE vd exp_double(vd x)
{
    static const double c[] = {0x1.62e42fefa39efp-1,  0x1.ebfbdff823cedp-3,  0x1.c6b08d7047e52p-5,
                               0x1.3b2ab7181b755p-7,  0x1.5d87fe86fe88ep-10, 0x1.4308ac85aa947p-13,
                               0x1.ffcb9515a8016p-17, 0x1.63d136366db24p-20, 0x1.b63880a30e9ffp-24};
    const double magic = 0x1.8p52; /* adding it rounds to an integer in the low bits */
    vd least = (vd){0} - 700.0;
    vl in_range = x > least;
    x = (vd)(((vl)x & in_range) | ((vl)least & ~in_range));
    vd t = x * 0x1.71547652b82fep+0, u = t + magic, r = t - (u - magic), p = r * c[8] + c[7];
    for (int i = 6; i >= 0; i--) p = p * r + c[i];
    return (p * r + 1.0) * (vd)(((vl)u + 1023) << 52);
}

static double weights(const float *x, int n, float top, double per_t, double *w, double *block)
{
    double sum = 0;
    for (int i = 0; i < n; i += SAMPLE_BLOCK) {
        int end = i + SAMPLE_BLOCK < n ? i + SAMPLE_BLOCK : n;
        vd acc[16 / DW] = {0};
        for (int j = i; j < end; j += 16) {
            float f[16];
            double e[16];
            v_store(f, scores_at(x, j, n));
            UNROLL for (int k = 0; k < 16 / DW; k++)
            {
                vf part;
                memcpy(&part, f + DW * k, sizeof part);
                vd y = exp_double((__builtin_convertvector(part, vd) - (double)top) * per_t);
                acc[k] += y;
                memcpy(e + DW * k, &y, sizeof y);
            }
            if (w) memcpy(w + j, e, sizeof *e * (size_t)(end - j < 16 ? end - j : 16));
        }
        double lane[16], s = 0;
        memcpy(lane, acc, sizeof lane);
        for (int k = 0; k < 16; k++) s += lane[k];
        if (block) block[i / SAMPLE_BLOCK] = s;
        sum += s;
    }
    return sum;
}

const sample_ops CPU_SAMPLE = {.maxima = maxima,
                               .find = find,
                               .collect = collect,
                               .count = count,
                               .sum_exp = sum_exp,
                               .weights = weights,
                               .mask = mask};
