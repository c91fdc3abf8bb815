/* sample.h - private to kernels/cpu: the passes over a whole row of logits that exist once per
 * instruction set, and the sampler's scratch.  Owns nothing; any thread. */
#ifndef QUERN_KERNELS_CPU_SAMPLE_H
#define QUERN_KERNELS_CPU_SAMPLE_H

#include "kernels/cpu/cpu.h"

enum { SAMPLE_BLOCK = 1024 }; /* logits summed together; fixes the order of the sums */

/* A row x[n] of scores; NaN never counts. */
struct sample_ops {
    /* The largest (-inf if there is none), and in set[] the maxima of disjoint sets that cover the
     * row: lane l of block i is set 16 i + l.  set[sample_sets(n)]. */
    float (*maxima)(const float *x, int n, float *set);
    /* First index of value v, or n. */
    int (*find)(const float *x, int n, float v);
    /* All scores > bar and the first max_equal that equal it, by rising id; returns how many. */
    int (*collect)(const float *x, int n, float bar, int max_equal, float *score, int32_t *id);
    /* How many are above v, or equal to it where asked. */
    int (*count)(const float *x, int n, float v, bool or_equal);
    /* Sum of e^(x - top), each block in f32 lanes, blocks in double. */
    double (*sum_exp)(const float *x, int n, float top);
    /* w[n] = e^((x - top) * per_t) in double, to 1e-13; w may be NULL.  block[sample_blocks(n)], if
     * not NULL, gets the sum of each block.  Returns their sum. */
    double (*weights)(const float *x, int n, float top, double per_t, double *w, double *block);
    /* to[n] = x where the bit of may[] is set, else -inf; NaN becomes -inf. */
    void (*mask)(float *to, const float *x, const uint32_t *may, int n);
};
extern const sample_ops sample_ops_portable, sample_ops_avx2, sample_ops_avx512;

static inline int sample_blocks(int n)
{
    return (n + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK;
}
static inline int sample_sets(int n)
{
    return 16 * sample_blocks(n);
}

/* Scratch of cpu_sample for a pool of this many threads; NULL when out of memory. */
struct sample_work *sample_work_new(int threads);
void sample_work_free(struct sample_work *w);

#endif
