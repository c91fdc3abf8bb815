/* rng.h - the counter-based random number of the sampler, shared by all backends.
 * Owns: rng_draw and with it what a seed means.  The number is a pure function of (seed, choice,
 * position), so a draw depends on nothing else: not on batch mates, threads or how often it is
 * asked.  Any thread. */
#ifndef QUERN_KERNELS_RNG_H
#define QUERN_KERNELS_RNG_H

#include <stdint.h>

/* A bijection of 64 bits with full avalanche: the finaliser of splitmix64 (Steele et al. 2014). */
static inline uint64_t rng_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Uniform in [0, 1), a multiple of 2^-53. */
static inline double rng_draw(uint64_t seed, uint64_t choice, uint64_t position)
{
    const uint64_t step = 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio: neighbours land far apart */
    uint64_t x = rng_mix(seed + step);
    x = rng_mix((x ^ choice) + step);
    x = rng_mix((x ^ position) + step);
    return (double)(x >> 11) * 0x1p-53;
}

#endif
