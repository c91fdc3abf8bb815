/* emu_types.h - the CUDA types and arithmetic intrinsics that kernels use, for a host compiler.
 * Names and meaning are CUDA's, so that the same kernel source compiles under nvcc (which takes
 * NVIDIA's headers instead) and here without them.  Conversions round to nearest even, exactly.
 * Owns nothing; included by portable.cuh only.  Any thread. */
#ifndef QUERN_KERNELS_CUDA_EMU_TYPES_H
#define QUERN_KERNELS_CUDA_EMU_TYPES_H

#include "kernels/formats.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- vectors ------------------------------------------------------------------------------ */

#define EMU_VECTOR(T, base, size)                            \
    struct alignas(size * 2) base##2                         \
    {                                                        \
        T x, y;                                              \
    };                                                       \
    struct base##3                                           \
    {                                                        \
        T x, y, z;                                           \
    };                                                       \
    struct alignas(size * 4) base##4                         \
    {                                                        \
        T x, y, z, w;                                        \
    };                                                       \
    static inline base##2 make_##base##2(T x, T y)           \
    {                                                        \
        return {x, y};                                       \
    }                                                        \
    static inline base##3 make_##base##3(T x, T y, T z)      \
    {                                                        \
        return {x, y, z};                                    \
    }                                                        \
    static inline base##4 make_##base##4(T x, T y, T z, T w) \
    {                                                        \
        return {x, y, z, w};                                 \
    }
EMU_VECTOR(float, float, 4)
EMU_VECTOR(int, int, 4)
EMU_VECTOR(unsigned, uint, 4)
EMU_VECTOR(short, short, 2)
EMU_VECTOR(unsigned short, ushort, 2)
EMU_VECTOR(signed char, char, 1)
EMU_VECTOR(unsigned char, uchar, 1)
#undef EMU_VECTOR

struct alignas(16) longlong2 {
    long long x, y;
};
struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};
struct alignas(16) double2 {
    double x, y;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

/* ---- 16-bit and 8-bit floats -------------------------------------------------------------- */

struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
struct __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};

static inline float __bfloat162float(__nv_bfloat16 h)
{
    return bf16_to_f32(h.bits);
}
static inline __nv_bfloat16 __float2bfloat16(float f)
{
    return {f32_to_bf16(f)};
}
static inline __nv_bfloat16 __float2bfloat16_rn(float f)
{
    return {f32_to_bf16(f)};
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return {{f32_to_bf16(x)}, {f32_to_bf16(y)}};
}
static inline float2 __bfloat1622float2(__nv_bfloat162 v)
{
    return {bf16_to_f32(v.x.bits), bf16_to_f32(v.y.bits)};
}
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short u)
{
    return {u};
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h)
{
    return h.bits;
}
static inline float __half2float(__half h)
{
    return f16_to_f32(h.bits);
}
static inline __half __float2half(float f)
{
    return {f32_to_f16(f)};
}
static inline __half __float2half_rn(float f)
{
    return {f32_to_f16(f)};
}
static inline __half2 __floats2half2_rn(float x, float y)
{
    return {{f32_to_f16(x)}, {f32_to_f16(y)}};
}
static inline float2 __half22float2(__half2 v)
{
    return {f16_to_f32(v.x.bits), f16_to_f32(v.y.bits)};
}
static inline __half __ushort_as_half(unsigned short u)
{
    return {u};
}
static inline unsigned short __half_as_ushort(__half h)
{
    return h.bits;
}

/* ---- bits --------------------------------------------------------------------------------- */

static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}
static inline int __popcll(unsigned long long v)
{
    return __builtin_popcountll(v);
}
static inline int __ffs(int v)
{
    return __builtin_ffs(v);
}
static inline int __ffsll(long long v)
{
    return __builtin_ffsll(v);
}
static inline int __clz(int v)
{
    return v ? __builtin_clz((unsigned)v) : 32;
}
static inline int __clzll(long long v)
{
    return v ? __builtin_clzll((unsigned long long)v) : 64;
}
static inline unsigned __brev(unsigned v)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (v >> i & 1) << (31 - i);
    return r;
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline int __mulhi(int a, int b)
{
    return (int)((int64_t)a * b >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned s)
{
    return (unsigned)((((uint64_t)hi << 32 | lo) << (s & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned s)
{
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (s & 31));
}
static inline unsigned __float_as_uint(float f)
{
    return bits_of_f32(f);
}
static inline float __uint_as_float(unsigned u)
{
    return f32_of_bits(u);
}
static inline int __float_as_int(float f)
{
    return (int)bits_of_f32(f);
}
static inline float __int_as_float(int i)
{
    return f32_of_bits((uint32_t)i);
}

/* ---- arithmetic --------------------------------------------------------------------------- */

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
/* The C library has declared these names for itself, without a body. */
#define __expf expf
#define __logf logf
#define __log2f log2f
#define __sinf sinf
#define __cosf cosf
#define __powf powf
static inline float __fdividef(float a, float b)
{
    return a / b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __frcp_rn(float x)
{
    return 1.0f / x;
}
static inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
/* The compiler may neither fuse nor split these. */
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline float __saturatef(float x)
{
    return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; /* NaN becomes 0 */
}
/* Conversions of the device clamp and make NaN zero; a cast of the host would be undefined. */
static inline int __float2int_rn(float x)
{
    if (!(x == x)) return 0;
    if (x >= 2147483648.0f) return INT32_MAX;
    return x < -2147483648.0f ? INT32_MIN : (int)rintf(x);
}
static inline int __float2int_rz(float x)
{
    if (!(x == x)) return 0;
    if (x >= 2147483648.0f) return INT32_MAX;
    return x < -2147483648.0f ? INT32_MIN : (int)x;
}
static inline int __float2int_rd(float x)
{
    return __float2int_rz(floorf(x));
}
static inline int __float2int_ru(float x)
{
    return __float2int_rz(ceilf(x));
}
static inline unsigned __float2uint_rn(float x)
{
    if (!(x > 0)) return 0;
    return x >= 4294967296.0f ? UINT32_MAX : (unsigned)rintf(x);
}
static inline float __int2float_rn(int x)
{
    return (float)x;
}
static inline float __uint2float_rn(unsigned x)
{
    return (float)x;
}

template <class T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <class T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}
static inline float min(float a, float b)
{
    return fminf(a, b);
}
static inline float max(float a, float b)
{
    return fmaxf(a, b);
}

#endif
