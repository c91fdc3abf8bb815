/* simd.h - the one seam of instruction sets: 16 floats (v16) with the same few operations on
 * AVX-512, AVX2+FMA, NEON and plain C, chosen by the flags a file is compiled with.
 *
 * Every operation gives the same bits everywhere: multiply-adds are fused (emulated exactly where
 * the machine has none), reductions follow one tree, exp is one polynomial.  So whatever is written
 * on v16 is one program with one result; only its speed depends on the machine.
 * Not promised: which NaN comes out of several.
 * Owns nothing.  Any thread. */
#ifndef QUERN_KERNELS_CPU_SIMD_H
#define QUERN_KERNELS_CPU_SIMD_H

#include "kernels/formats.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* ---- the machine ------------------------------------------------------------------------------
 */

/* A pause inside a spin loop. */
INLINE void cpu_relax(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The calling thread's floating point modes; flushing = denormal inputs and results are zero. */
typedef uint64_t fp_state;
INLINE fp_state fp_state_get(void)
{
#if defined(__x86_64__)
    return _mm_getcsr();
#elif defined(__aarch64__)
    fp_state s;
    __asm__ volatile("mrs %0, fpcr" : "=r"(s));
    return s;
#else
    return 0;
#endif
}
INLINE void fp_state_set(fp_state s)
{
#if defined(__x86_64__)
    _mm_setcsr((unsigned)s);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(s));
#else
    (void)s;
#endif
}
INLINE fp_state fp_state_flushing(void)
{
#if defined(__x86_64__)
    return 0x1f80 | 0x8040; /* exceptions masked, round to nearest; FTZ and DAZ */
#elif defined(__aarch64__)
    return 1u << 24; /* FZ */
#else
    return 0;
#endif
}

/* What processor and system together allow (a processor's feature needs the system to save its
 * registers, which __builtin_cpu_supports checks). */
INLINE bool machine_has_avx2(void)
{
#if defined(__x86_64__)
    unsigned a, b, c = 0, d;
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
    return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
#else
    return false;
#endif
}
INLINE bool machine_has_avxvnni(void)
{
#if defined(__x86_64__)
    unsigned a = 0, b, c, d;
    return machine_has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
#else
    return false;
#endif
}
INLINE bool machine_has_avx512(void)
{
#if defined(__x86_64__)
    return machine_has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

/* Fetches a line into the second level cache, where the next run of it is wanted. */
INLINE void prefetch_l2(const void *p)
{
    __builtin_prefetch(p, 0, 2);
}

/* ---- 16 floats --------------------------------------------------------------------------------
 */

#if defined(__AVX512F__)
#include "kernels/cpu/simd_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "kernels/cpu/simd_avx2.h"
#else
#include "kernels/cpu/simd_plain.h"
#endif

/* ---- written once on the above ----------------------------------------------------------------
 */

/* 2^r for r in [-1/2, 1/2]: degree 6, minimax with the constant fixed at 1, error 3e-9. */
INLINE v16 v_exp2_poly(v16 r)
{
    v16 p = v_set1(0x1.417a72p-13f);
    p = v_fma(p, r, v_set1(0x1.5f094ap-10f));
    p = v_fma(p, r, v_set1(0x1.3b2dd2p-7f));
    p = v_fma(p, r, v_set1(0x1.c6af7ap-5f));
    p = v_fma(p, r, v_set1(0x1.ebfbdcp-3f));
    p = v_fma(p, r, v_set1(0x1.62e430p-1f));
    return v_fma(p, r, v_set1(1.0f));
}

/* 2^x, about 1 ulp, exact at integers; 0 below -126.5, infinity from 127.5. */
INLINE v16 v_exp2(v16 x)
{
    x = v_min(v_set1(128.0f), v_max(v_set1(-127.0f), x)); /* in this order NaN stays */
    v16 n = v_round(x);
    return v_mul(v_exp2_poly(v_sub(x, n)), v_exp2i(n));
}

/* e^x, about 1 ulp over the whole range: the remainder is taken with log2(e) in two pieces. */
INLINE v16 v_exp(v16 x)
{
    x = v_min(v_set1(88.8f), v_max(v_set1(-88.1f), x));
    v16 n = v_round(v_mul(x, v_set1(0x1.715476p+0f)));
    v16 r = v_fma(x, v_set1(0x1.715476p+0f), v_sub(v_zero(), n));
    r = v_fma(x, v_set1(0x1.4ae0c0p-26f), r);
    return v_mul(v_exp2_poly(r), v_exp2i(n));
}

/* x / (1 + e^-x) */
INLINE v16 v_silu(v16 x)
{
    v16 one = v_set1(1.0f);
    return v_div(x, v_add(one, v_exp(v_sub(v_zero(), x))));
}

#endif
