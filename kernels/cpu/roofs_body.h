/* roofs_body.h - the measured loops on simd.h's vectors; included once per instruction set, with
 * ROOFS the name of its table and CHAINS how many independent accumulators fill its pipes without
 * leaving the registers.  OWN_DOTS: the file brings a dot_all of its own.  Any thread. */
#include "kernels/cpu/roofs.h"
#include "kernels/cpu/simd.h"

enum { LINE = 64, STRIDE = 512, AHEAD = 4096 };

static float read_all(const float *p, size_t n, int ahead)
{
    v16 sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    for (size_t at = 0; at < n; at += STRIDE) {
        const char *from = (const char *)p + at;
        if (ahead)
            UNROLL for (int i = 0; i < STRIDE; i += LINE)
                __builtin_prefetch(from + AHEAD + i, 0, 3);
        UNROLL for (int i = 0; i < STRIDE / LINE; i++) sum[i % 4] =
            v_max(sum[i % 4], v_load((const float *)(const void *)(from + LINE * i)));
    }
    return v_hmax(v_max(v_max(sum[0], sum[1]), v_max(sum[2], sum[3])));
}

#if !defined(OWN_DOTS)
static double dot_all(long n, const uint8_t seed[ROOF_SEED], float *sink)
{
    v_bytes line[CHAINS]; /* of their own, or one product would serve all chains */
    int32_t w[V_DOT_WORDS];
    v16i acc[CHAINS];
    int8_t four[4];
    memcpy(four, seed, sizeof four);
    v_dot_pack(w, four);
    for (int i = 0; i < CHAINS; i++) {
        line[i] = v_load_bytes(seed + i);
        acc[i] = vi_set1(i);
    }
    for (long k = 0; k < n; k++) {
#if !defined(__AVX512F__)                  /* whose one instruction also adds */
        __asm__ volatile("" : "+r"(w[0])); /* or one product would serve all rounds */
#endif
        UNROLL for (int i = 0; i < CHAINS; i++) acc[i] = v_dot(acc[i], line[i], w);
    }
    v16 all = v_zero();
    for (int i = 0; i < CHAINS; i++) all = v_add(all, vi_to_float(acc[i]));
    *sink = v_sum(all);
    return 2.0 * 64 * CHAINS * (double)n;
}
#endif

static double fma_all(long n, const float seed[16], float *sink)
{
    v16 x = v_load(seed), acc[CHAINS];
    for (int i = 0; i < CHAINS; i++) acc[i] = v_set1((float)i);
    for (long k = 0; k < n; k++)
        UNROLL for (int i = 0; i < CHAINS; i++) acc[i] = v_fma(x, x, acc[i]);
    v16 all = v_zero();
    for (int i = 0; i < CHAINS; i++) all = v_add(all, acc[i]);
    *sink = v_sum(all);
    return 2.0 * 16 * CHAINS * (double)n;
}

const roof_ops ROOFS = {read_all, dot_all, fma_all};
