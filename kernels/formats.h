/* formats.h - what the bytes of every weight format mean, once, for all backends.
 *
 * A block type is seen as sub-blocks of 32 elements.  An element is
 *     value = scale[h] * v - min[h]      h = its half of 16 in the sub-block
 *     v     = table ? table[code] : code - bias
 * with small unsigned codes; every product scale * v is exact in f32, so the one subtraction is the
 * only rounding.  Dequantisers, quantisers, packers and tests are all written on these two calls.
 * Bytes are little-endian, as is every machine we build for.
 * Refuses nothing: callers pass types of DTYPE_LIST and whole blocks.  Any thread. */
#ifndef QUERN_KERNELS_FORMATS_H
#define QUERN_KERNELS_FORMATS_H

#include "base/dtype.h"
#include "base/linkage.h"

#include <string.h>

C_BEGIN

typedef struct {
    int subs;            /* sub-blocks of 32 per block; 0 for F32, F16, BF16 */
    int bias;            /* v = code - bias, without a table */
    const int8_t *table; /* [16] values of the codes, or NULL */
    bool halves;         /* the two halves of a sub-block have their own scales */
    bool has_min;        /* min[] may be non-zero */
} format_traits;

format_traits format_of(int type);

/* Codes of sub-block sub of one block. */
void format_codes(int type, const uint8_t *block, int sub, uint8_t *code /* [32] */);
/* Scales and minima of the two halves of sub-block sub. */
void format_scales(int type, const uint8_t *block, int sub, float scale[2], float min[2]);

/* A function that kernels use too. */
#ifdef __CUDACC__
#define FORMAT_FN static __host__ __device__ inline
#else
#define FORMAT_FN static inline
#endif

/* 6-bit scale and minimum j (0..7) of the 12 bytes s[] in Q4_K and Q5_K. */
FORMAT_FN void format_k4_scale(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}
/* 6-bit scale k (0..15) of the 12 bytes s[] in Q3_K, 32 already taken off. */
FORMAT_FN int format_k3_scale(const uint8_t *s, int k)
{
    int low = k < 8 ? s[k] & 15 : s[k - 8] >> 4;
    return (low | (s[8 + k % 4] >> (2 * (k / 4)) & 3) << 4) - 32;
}

/* ---- scalar float conversions: exact, round to nearest even ------------------------------- */

static inline float f32_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static inline uint32_t bits_of_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}
static inline float bf16_to_f32(uint16_t h)
{
    return f32_of_bits((uint32_t)h << 16);
}
/* NaN stays NaN (its top payload bits are kept and the quiet bit is set). */
static inline uint16_t f32_to_bf16(float f)
{
    uint32_t u = bits_of_f32(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
/* By integers only, so that it holds under any floating point mode. */
static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;
    if (e == 31) return f32_of_bits(sign | 0x7f800000 | m << 13 | (m ? 0x400000u : 0));
    if (e) return f32_of_bits(sign | (e + 112) << 23 | m << 13);
    if (!m) return f32_of_bits(sign);
    uint32_t up = (uint32_t)__builtin_clz(m) - 21; /* places to the implicit one */
    return f32_of_bits(sign | (113 - up) << 23 | (m << up & 0x3ff) << 13);
}
static inline uint16_t f32_to_f16(float f)
{
    uint32_t u = bits_of_f32(f), a = u & 0x7fffffff;
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) return sign | 0x7c00; /* 65520 and above round to infinity */
    if (a < 0x33000001) return sign;           /* 2^-25 and below round to zero */
    uint32_t shift = 13, m = a - (112u << 23);
    if (a < 0x38800000) { /* below 2^-14: a denormal */
        shift = 126 - (a >> 23);
        m = (a & 0x7fffff) | 0x800000;
    }
    uint32_t half = 1u << (shift - 1), rest = m & ((1u << shift) - 1), q = m >> shift;
    q += rest > half || (rest == half && (q & 1));
    return (uint16_t)(sign | q);
}

C_END

#endif
