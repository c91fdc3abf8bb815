/* emu_warp.h - emulated wrappers: warp-wide operations, matrix products, barriers, atomics.  What
 * each does is listed in portable.cuh.  A warp-wide operation is carried out once, by the lane that
 * arrives last.  Refuses (aborts) what emu.h says.  Thread: a fibre's. */
#ifndef QUERN_KERNELS_CUDA_EMU_WARP_H
#define QUERN_KERNELS_CUDA_EMU_WARP_H

#include "kernels/cuda/emu.h"

#define CU_FN static inline
#define CU_HFN static inline
#define CU_FULL 0xffffffffu

CU_FN int cu_lane(void)
{
    return emu::self()->lane;
}
CU_FN void __syncthreads(void)
{
    emu::sync_block();
}
CU_FN void __syncwarp(unsigned mask = CU_FULL)
{
    emu::meet(mask, nullptr);
}
CU_FN void cu_bar_sync(int id, int n)
{
    emu::sync_named(id, n, true);
}
CU_FN void cu_bar_arrive(int id, int n)
{
    emu::sync_named(id, n, false);
}

namespace emu
{

static inline slot &my_slot()
{
    return my_warp().slots[self()->lane];
}

/* ---- exchanges ---------------------------------------------------------------------------- */

static inline void op_exchange(warp &w, unsigned active)
{
    uint64_t got[WARP];
    for (int i = 0; i < WARP; i++) {
        if (!(active >> i & 1)) continue;
        int s = w.slots[i].src;
        if (!(active >> s & 1)) die("lane %d reads from lane %d, which takes no part", i, s);
        got[i] = w.slots[s].u64;
    }
    for (int i = 0; i < WARP; i++)
        if (active >> i & 1) w.slots[i].u64 = got[i];
}
template <class T> static inline T exchange(unsigned mask, T v, int src)
{
    static_assert(sizeof(T) <= 8, "at most 8 bytes are exchanged");
    slot &s = my_slot();
    memcpy(&s.u64, &v, sizeof v);
    s.src = src;
    meet(mask, op_exchange);
    memcpy(&v, &s.u64, sizeof v);
    return v;
}
/* Lanes are cut into segments of `width`; a source outside the segment is the lane itself. */
static inline int segment(int width)
{
    if (width < 1 || width > WARP || (width & (width - 1))) die("shuffle of width %d", width);
    return self()->lane & ~(width - 1);
}

static inline void op_ballot(warp &w, unsigned active)
{
    unsigned r = 0;
    for (int i = 0; i < WARP; i++)
        if (active >> i & 1 && w.slots[i].u64) r |= 1u << i;
    for (int i = 0; i < WARP; i++)
        if (active >> i & 1) w.slots[i].u64 = r; /* others may be in the middle of something */
}
static inline unsigned ballot(unsigned mask, int p)
{
    slot &s = my_slot();
    s.u64 = p != 0;
    meet(mask, op_ballot);
    return (unsigned)s.u64;
}
static inline void op_match(warp &w, unsigned active)
{
    unsigned r[WARP] = {0};
    for (int i = 0; i < WARP; i++)
        for (int k = 0; k < WARP; k++)
            if (active >> i & active >> k & 1 && w.slots[i].u64 == w.slots[k].u64) r[i] |= 1u << k;
    for (int i = 0; i < WARP; i++)
        if (active >> i & 1) w.slots[i].u64 = r[i];
}
enum reduction { R_ADD, R_MAX, R_MIN, R_AND, R_OR };
template <reduction R> static inline void op_reduce(warp &w, unsigned active)
{
    uint32_t r = R == R_MIN || R == R_AND ? UINT32_MAX : 0;
    for (int i = 0; i < WARP; i++) {
        if (!(active >> i & 1)) continue;
        uint32_t v = w.slots[i].r[0];
        r = R == R_ADD   ? r + v
            : R == R_MAX ? max(r, v)
            : R == R_MIN ? min(r, v)
            : R == R_AND ? (r & v)
                         : (r | v);
    }
    for (int i = 0; i < WARP; i++)
        if (active >> i & 1) w.slots[i].r[0] = r;
}
template <reduction R> static inline uint32_t reduce(unsigned mask, uint32_t v)
{
    slot &s = my_slot();
    s.r[0] = v;
    meet(mask, op_reduce<R>);
    return s.r[0];
}

} // namespace emu

template <class T> static inline T __shfl_sync(unsigned mask, T v, int src, int width = 32)
{
    return emu::exchange(mask, v, emu::segment(width) | (src & (width - 1)));
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32)
{
    int lane = cu_lane(), src = lane ^ x;
    return emu::exchange(mask, v, src < emu::segment(width) + width ? src & 31 : lane);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32)
{
    int lane = cu_lane(), src = lane - (int)d;
    return emu::exchange(mask, v, src >= emu::segment(width) ? src : lane);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32)
{
    int lane = cu_lane(), src = lane + (int)d;
    return emu::exchange(mask, v, src < emu::segment(width) + width ? src : lane);
}
CU_FN unsigned __ballot_sync(unsigned mask, int p)
{
    return emu::ballot(mask, p);
}
CU_FN int __any_sync(unsigned mask, int p)
{
    return emu::ballot(mask, p) != 0;
}
/* True if no lane that takes part says no. */
CU_FN int __all_sync(unsigned mask, int p)
{
    return emu::ballot(mask, !p) == 0;
}
template <class T> static inline unsigned __match_any_sync(unsigned mask, T v)
{
    static_assert(sizeof(T) <= 8, "at most 8 bytes are compared");
    emu::slot &s = emu::my_slot();
    s.u64 = 0;
    memcpy(&s.u64, &v, sizeof v);
    emu::meet(mask, emu::op_match);
    return (unsigned)s.u64;
}
CU_FN uint32_t cu_redux_add(uint32_t v)
{
    return emu::reduce<emu::R_ADD>(CU_FULL, v);
}
CU_FN uint32_t cu_redux_max(uint32_t v)
{
    return emu::reduce<emu::R_MAX>(CU_FULL, v);
}
CU_FN uint32_t cu_redux_min(uint32_t v)
{
    return emu::reduce<emu::R_MIN>(CU_FULL, v);
}
CU_FN uint32_t cu_redux_and(uint32_t v)
{
    return emu::reduce<emu::R_AND>(CU_FULL, v);
}
CU_FN uint32_t cu_redux_or(uint32_t v)
{
    return emu::reduce<emu::R_OR>(CU_FULL, v);
}

/* ---- matrix products ------------------------------------------------------------------------
 * Lane layout (PTX ISA, mma): g = lane / 4, t = lane % 4.  16-bit A[16][16]: registers 0..3 hold
 * rows g, g+8, g, g+8 and columns 2t, 2t+1 (+8 in registers 2, 3); B[16][8]: column g, rows 2t,
 * 2t+1
 * (+8 in register 1); C[16][8]: rows g, g, g+8, g+8, columns 2t, 2t+1.  8-bit: four k in a
 * register, 4t.. and +16. */

namespace emu
{

/* Exact: subnormals keep their value. */
static inline float half_bits(uint32_t h)
{
    uint32_t a = (h & 0x7fff) << 13, e = h & 0x7c00;
    uint32_t normal = a + (e == 0x7c00 ? 224u << 23 : 112u << 23);
    uint32_t small = bits_of_f32(f32_of_bits(a + (113u << 23)) - f32_of_bits(113u << 23));
    return f32_of_bits((e ? normal : small) | (h & 0x8000) << 16);
}
static inline float bf16_bits(uint32_t h)
{
    return f32_of_bits(h << 16);
}

template <float VALUE(uint32_t)> static inline void op_mma16(warp &w, unsigned active)
{
    if (active != CU_FULL) die("a matrix product needs all 32 lanes");
    /* Rows of eight as vectors of four: the compiler need not find out by itself. */
    typedef float f32x4 __attribute__((vector_size(16)));
    float a[16][16];
    union {
        float at[16][8];
        f32x4 v[16][2];
    } b, c;
    for (int l = 0; l < WARP; l++) {
        const slot &s = w.slots[l];
        int g = l >> 2, t = l & 3;
        for (int r = 0; r < 4; r++) {
            float *p = &a[g + (r & 1) * 8][2 * t + (r >> 1) * 8];
            p[0] = VALUE(s.r[r] & 0xffff);
            p[1] = VALUE(s.r[r] >> 16);
        }
        for (int r = 0; r < 2; r++) {
            b.at[2 * t + r * 8][g] = VALUE(s.r[4 + r] & 0xffff);
            b.at[2 * t + r * 8 + 1][g] = VALUE(s.r[4 + r] >> 16);
        }
    }
    for (int m = 0; m < 16; m++) {
        f32x4 s0 = {0, 0, 0, 0}, s1 = {0, 0, 0, 0};
        for (int k = 0; k < 16; k++) {
            s0 += a[m][k] * b.v[k][0];
            s1 += a[m][k] * b.v[k][1];
        }
        c.v[m][0] = s0;
        c.v[m][1] = s1;
    }
    for (int l = 0; l < WARP; l++)
        for (int i = 0; i < 4; i++)
            w.slots[l].f[i] = c.at[(l >> 2) + (i >> 1) * 8][(l & 3) * 2 + (i & 1)];
}
static inline void op_mma_s8(warp &w, unsigned active)
{
    if (active != CU_FULL) die("a matrix product needs all 32 lanes");
    int a[16][32], b[32][8], c[16][8] = {{0}};
    for (int l = 0; l < WARP; l++) {
        const slot &s = w.slots[l];
        int g = l >> 2, t = l & 3;
        for (int r = 0; r < 4; r++)
            for (int e = 0; e < 4; e++)
                a[g + (r & 1) * 8][4 * t + (r >> 1) * 16 + e] = (int8_t)(s.r[r] >> 8 * e);
        for (int r = 0; r < 2; r++)
            for (int e = 0; e < 4; e++) b[4 * t + r * 16 + e][g] = (int8_t)(s.r[4 + r] >> 8 * e);
    }
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 32; k++)
            for (int n = 0; n < 8; n++) c[m][n] += a[m][k] * b[k][n];
    for (int l = 0; l < WARP; l++)
        for (int i = 0; i < 4; i++)
            w.slots[l].i[i] = c[(l >> 2) + (i >> 1) * 8][(l & 3) * 2 + (i & 1)];
}
static inline slot &mma(const uint32_t a[4], const uint32_t b[2], warp_op op)
{
    slot &s = my_slot();
    memcpy(s.r, a, 16);
    memcpy(s.r + 4, b, 8);
    meet(CU_FULL, op);
    return s;
}

/* Lane i of group q of 8 names row i of matrix q; lane (g, t) gets elements 2t, 2t+1 of row g, or
 * with TRANS of column g. */
template <int N, bool TRANS> static inline void op_ldmatrix(warp &w, unsigned active)
{
    if (active != CU_FULL) die("ldmatrix needs all 32 lanes");
    const char **row = w.rows;
    for (int l = 0; l < WARP; l++) row[l] = (const char *)w.slots[l].p;
    for (int l = 0; l < WARP; l++) {
        int g = l >> 2, t = l & 3;
        for (int q = 0; q < N; q++) {
            uint16_t e[2];
            for (int k = 0; k < 2; k++)
                memcpy(&e[k],
                       TRANS ? row[q * 8 + 2 * t + k] + g * 2 : row[q * 8 + g] + (2 * t + k) * 2,
                       2);
            w.slots[l].r[q] = e[0] | (uint32_t)e[1] << 16;
        }
    }
}
template <int N, bool TRANS> static inline void ldmatrix(uint32_t *r, const void *p)
{
    slot &s = my_slot();
    if (self()->lane < N * 8) check_aligned(p, 16, "ldmatrix row");
    s.p = p;
    meet(CU_FULL, op_ldmatrix<N, TRANS>);
    int g = self()->lane >> 2, t = self()->lane & 3;
    for (int q = 0; EMU_TSAN && q < N; q++) { /* the lane that gets an element has read it */
        const char **row = my_warp().rows + q * 8;
        reads(TRANS ? row[2 * t] + g * 2 : row[g] + t * 4, 2);
        reads(TRANS ? row[2 * t + 1] + g * 2 : row[g] + t * 4 + 2, 2);
    }
    memcpy(r, s.r, N * 4);
}

} // namespace emu

CU_FN void cu_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    const emu::slot &s = emu::mma(a, b, emu::op_mma16<emu::bf16_bits>);
    for (int i = 0; i < 4; i++) d[i] += s.f[i];
}
CU_FN void cu_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    const emu::slot &s = emu::mma(a, b, emu::op_mma16<emu::half_bits>);
    for (int i = 0; i < 4; i++) d[i] += s.f[i];
}
CU_FN void cu_mma_s8(int d[4], const uint32_t a[4], const uint32_t b[2])
{
    const emu::slot &s = emu::mma(a, b, emu::op_mma_s8);
    for (int i = 0; i < 4; i++) d[i] += s.i[i];
}
CU_FN void cu_ldmatrix_x4(uint32_t r[4], const void *p)
{
    emu::ldmatrix<4, false>(r, p);
}
CU_FN void cu_ldmatrix_x4_t(uint32_t r[4], const void *p)
{
    emu::ldmatrix<4, true>(r, p);
}
CU_FN void cu_ldmatrix_x2(uint32_t r[2], const void *p)
{
    emu::ldmatrix<2, false>(r, p);
}
CU_FN void cu_ldmatrix_x2_t(uint32_t r[2], const void *p)
{
    emu::ldmatrix<2, true>(r, p);
}

/* ---- atomics: blocks really run at the same time ------------------------------------------- */

#define EMU_ATOMIC_INT(T)                                                                    \
    static inline T atomicAdd(T *p, T v)                                                     \
    {                                                                                        \
        emu::maybe_preempt();                                                                \
        return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                   \
    }                                                                                        \
    static inline T atomicSub(T *p, T v)                                                     \
    {                                                                                        \
        emu::maybe_preempt();                                                                \
        return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                   \
    }                                                                                        \
    static inline T atomicOr(T *p, T v)                                                      \
    {                                                                                        \
        emu::maybe_preempt();                                                                \
        return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);                                    \
    }                                                                                        \
    static inline T atomicAnd(T *p, T v)                                                     \
    {                                                                                        \
        emu::maybe_preempt();                                                                \
        return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST);                                   \
    }                                                                                        \
    static inline T atomicExch(T *p, T v)                                                    \
    {                                                                                        \
        emu::maybe_preempt();                                                                \
        return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                  \
    }                                                                                        \
    static inline T atomicCAS(T *p, T want, T v)                                             \
    {                                                                                        \
        emu::maybe_preempt();                                                                \
        __atomic_compare_exchange_n(p, &want, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
        return want;                                                                         \
    }                                                                                        \
    static inline T atomicMax(T *p, T v)                                                     \
    {                                                                                        \
        emu::maybe_preempt();                                                                \
        T o = __atomic_load_n(p, __ATOMIC_SEQ_CST);                                          \
        while (o < v && !__atomic_compare_exchange_n(p, &o, v, false, __ATOMIC_SEQ_CST,      \
                                                     __ATOMIC_SEQ_CST)) {                    \
        }                                                                                    \
        return o;                                                                            \
    }                                                                                        \
    static inline T atomicMin(T *p, T v)                                                     \
    {                                                                                        \
        emu::maybe_preempt();                                                                \
        T o = __atomic_load_n(p, __ATOMIC_SEQ_CST);                                          \
        while (o > v && !__atomic_compare_exchange_n(p, &o, v, false, __ATOMIC_SEQ_CST,      \
                                                     __ATOMIC_SEQ_CST)) {                    \
        }                                                                                    \
        return o;                                                                            \
    }
EMU_ATOMIC_INT(int)
EMU_ATOMIC_INT(unsigned)
EMU_ATOMIC_INT(unsigned long long)
#undef EMU_ATOMIC_INT
static inline float atomicAdd(float *p, float v)
{
    uint32_t *u = (uint32_t *)p, old = __atomic_load_n(u, __ATOMIC_RELAXED);
    emu::maybe_preempt();
    while (!__atomic_compare_exchange_n(u, &old, bits_of_f32(f32_of_bits(old) + v), false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
    }
    return f32_of_bits(old);
}
/* A read-modify-write of nothing: the thread sanitizer does not know fences. */
CU_FN void __threadfence(void)
{
    static int nothing;
    __atomic_fetch_add(&nothing, 0, __ATOMIC_SEQ_CST);
    emu::maybe_preempt();
}
CU_FN void __threadfence_block(void)
{
    emu::maybe_preempt();
}
CU_FN void __threadfence_system(void)
{
    __threadfence();
}
CU_FN void cu_fence(void)
{
    __threadfence();
}

#endif
