/* emu_bits.h - emulated wrappers: loads and stores, bits, packed and 8-bit arithmetic.  What each
 * does is listed in portable.cuh.  Refuses (aborts) unaligned vectors.  Thread: a fibre's. */
#ifndef QUERN_KERNELS_CUDA_EMU_BITS_H
#define QUERN_KERNELS_CUDA_EMU_BITS_H

#include "kernels/cuda/emu_warp.h"

/* ---- loads and stores ----------------------------------------------------------------------- */

template <class T> static inline T __ldg(const T *p)
{
    return *p;
}
template <class T> static inline T __ldcg(const T *p)
{
    return *(const volatile T *)p;
}
template <class T> static inline void __stcg(T *p, T v)
{
    *(volatile T *)p = v;
}
template <class T> static inline void __stcs(T *p, T v)
{
    *p = v;
}
CU_FN uint64_t cu_policy_evict_first(void)
{
    return 1;
}
CU_FN uint64_t cu_policy_evict_last(void)
{
    return 2;
}
CU_FN uint4 cu_ld_nc16(const void *p)
{
    emu::check_aligned(p, 16, "16-byte load");
    uint4 v;
    memcpy(&v, p, 16);
    return v;
}
CU_FN uint4 cu_ld_stream16(const void *p, uint64_t)
{
    return cu_ld_nc16(p);
}
CU_FN uint4 cu_ld_cg16(const void *p)
{
    return cu_ld_nc16(p);
}
CU_FN float4 cu_ld_cg16f(const void *p)
{
    emu::check_aligned(p, 16, "16-byte load");
    float4 v;
    memcpy(&v, p, 16);
    return v;
}
CU_FN float cu_ld_cg_f(const float *p)
{
    return *(const volatile float *)p;
}
CU_FN void cu_st16(void *p, uint4 v)
{
    emu::check_aligned(p, 16, "16-byte store");
    memcpy(p, &v, 16);
}

/* ---- bits and packed arithmetic ------------------------------------------------------------ */

template <int LUT> static inline uint32_t cu_lop3(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t r = 0;
    for (int i = 0; i < 8; i++)
        if (LUT >> i & 1) r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return r;
}
CU_FN uint32_t cu_prmt(uint32_t a, uint32_t b, uint32_t select)
{
    uint64_t v = a | (uint64_t)b << 32;
    uint32_t r = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t n = select >> 4 * i & 15, x = (uint32_t)(v >> 8 * (n & 7)) & 255;
        if (n & 8) x = x & 128 ? 255 : 0;
        r |= x << 8 * i;
    }
    return r;
}
CU_FN int cu_dp4a(uint32_t a, uint32_t b, int c)
{
    for (int i = 0; i < 4; i++) c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return c;
}
CU_FN float cu_ex2(float x)
{
    return exp2f(x);
}

namespace emu
{

/* Rounds a double once to 16 bits of float: p bits of significand, smallest normal exponent emin.
 * `odd` sums are exact sums rounded to odd, so that the second rounding cannot go wrong. */
static inline double odd_sum(double a, double b)
{
    double s = a + b, bb = s - a, e = (a - (s - bb)) + (b - bb);
    uint64_t u;
    memcpy(&u, &s, 8);
    if (s - s == 0 && e != 0 && !(u & 1)) u += (e > 0) == (s > 0) ? 1 : -1;
    memcpy(&s, &u, 8);
    return s;
}
/* A double to float, to odd: f32_to_f16 and f32_to_bf16 then round as if once. */
static inline float odd_float(double v)
{
    float f = (float)v;
    if (!(v - v == 0) || !(f - f == 0) || (double)f == v)
        return f - f == 0 || v - v != 0 ? f : copysignf(3.4e38f, f);
    uint32_t u = bits_of_f32(f);
    if (!(u & 1)) u += (fabs(v) > fabs((double)f)) ? 1 : -1;
    return f32_of_bits(u);
}
template <float VALUE(uint32_t), uint16_t ROUND(float), class F>
static inline uint32_t each_half(uint32_t a, uint32_t b, uint32_t c, F op)
{
    uint32_t r = 0;
    for (int s = 0; s < 32; s += 16)
        r |= (uint32_t)ROUND(
                 odd_float(op((double)VALUE(a >> s & 0xffff), (double)VALUE(b >> s & 0xffff),
                              (double)VALUE(c >> s & 0xffff))))
             << s;
    return r;
}

} // namespace emu

CU_FN uint32_t cu_hfma2(uint32_t a, uint32_t b, uint32_t c)
{
    return emu::each_half<emu::half_bits, f32_to_f16>(
        a, b, c, [](double x, double y, double z) { return emu::odd_sum(x * y, z); });
}
CU_FN uint32_t cu_hadd2(uint32_t a, uint32_t b)
{
    return emu::each_half<emu::half_bits, f32_to_f16>(
        a, b, 0, [](double x, double y, double) { return x + y; });
}
CU_FN uint32_t cu_hmul2(uint32_t a, uint32_t b)
{
    return emu::each_half<emu::half_bits, f32_to_f16>(
        a, b, 0, [](double x, double y, double) { return x * y; });
}
CU_FN uint32_t cu_bfma2(uint32_t a, uint32_t b, uint32_t c)
{
    return emu::each_half<emu::bf16_bits, f32_to_bf16>(
        a, b, c, [](double x, double y, double z) { return emu::odd_sum(x * y, z); });
}
/* e4m3: 4 exponent bits (bias 7), 3 of significand, no infinity, 0x7f and 0xff are NaN. */
CU_HFN float cu_e4m3_to_f32(uint8_t v)
{
    int e = v >> 3 & 15, m = v & 7;
    float f = e ? ldexpf((float)(8 + m), e - 10) : ldexpf((float)m, -9);
    if ((v & 0x7f) == 0x7f) f = f32_of_bits(0x7fc00000);
    return v & 0x80 ? -f : f;
}
/* Nearest even; beyond the largest value (448) it stays there. */
CU_HFN uint8_t cu_f32_to_e4m3(float f)
{
    uint8_t sign = bits_of_f32(f) >> 31 ? 0x80 : 0;
    float a = fabsf(f);
    if (!(a == a)) return sign | 0x7f;
    if (a >= 448) return sign | 0x7e;
    int e;
    frexpf(a, &e);
    e = e < -5 ? -6 : e - 1;              /* a is in [2^e, 2^(e+1)), or subnormal */
    int q = (int)rintf(ldexpf(a, 3 - e)); /* 8..16, or 0..8 */
    return (uint8_t)(sign | (q >= 16 ? (e + 8) << 3 : q >= 8 ? (e + 7) << 3 | (q & 7) : q));
}
CU_FN uint32_t cu_e4m3x2_to_h2(uint16_t v)
{
    return f32_to_f16(cu_e4m3_to_f32(v & 255)) | (uint32_t)f32_to_f16(cu_e4m3_to_f32(v >> 8)) << 16;
}
/* lo in the low byte. */
CU_FN uint16_t cu_pack_e4m3(float lo, float hi)
{
    return (uint16_t)(cu_f32_to_e4m3(lo) | cu_f32_to_e4m3(hi) << 8);
}

#endif
