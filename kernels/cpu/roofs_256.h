/* roofs_256.h - the int8 loop on 256-bit registers, as linear_256.h multiplies: 32 bytes a step,
 * with HAS_DOT by one instruction, else by vpmaddubsw, vpmaddwd and an addition.  Any thread. */
#include "kernels/cpu/roofs.h"
#include "kernels/cpu/simd.h"

enum { DOT_CHAINS = 6 }; /* two registers each, beside two shared ones and a product */

INLINE __m256i dot_step(__m256i acc, __m256i a, __m256i b, __m256i ones)
{
#if HAS_DOT
    (void)ones;
    return _mm256_dpbusd_avx_epi32(acc, a, b);
#else
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
#endif
}

#define OWN_DOTS
static double dot_all(long n, const uint8_t seed[ROOF_SEED], float *sink)
{
    __m256i a[DOT_CHAINS], acc[DOT_CHAINS];
    __m256i b = _mm256_loadu_si256((const __m256i *)seed), ones = _mm256_set1_epi16(1);
    for (int i = 0; i < DOT_CHAINS; i++) {
        a[i] = _mm256_loadu_si256((const __m256i *)(seed + i));
        acc[i] = _mm256_set1_epi32(i);
    }
    for (long k = 0; k < n; k++) {
        __asm__ volatile("" : "+x"(b)); /* or one product would serve all rounds */
        UNROLL for (int i = 0; i < DOT_CHAINS; i++) acc[i] = dot_step(acc[i], a[i], b, ones);
    }
    for (int i = 1; i < DOT_CHAINS; i++) acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    *sink = (float)_mm256_extract_epi32(acc[0], 0);
    return 2.0 * 32 * DOT_CHAINS * (double)n;
}
