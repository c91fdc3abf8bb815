/* skinny_stage.cuh - the shared memory of skinny.cuh and how a slab of activations gets there.
 *
 * Activations of BF16 weights stay bf16, times the norm weight if there is one.  All others become
 * f16, scaled per row and slab by a power of two so that the largest is in [2^14, 2^15): bf16
 * inputs are exact within 2^-29 of it (above 2^119 they count as infinite).  For codes, k is
 * reordered within 32 as records.cuh has it, and sums of what the product will see are kept for the
 * bias of the codes and the minima. Owns nothing.  Refuses nothing.  Device code. */
#ifndef QUERN_KERNELS_CUDA_SKINNY_STAGE_CUH
#define QUERN_KERNELS_CUDA_SKINNY_STAGE_CUH

#include "kernels/cuda/records.cuh"
#include "kernels/cuda/skinny.h"

/* ---- shared memory ------------------------------------------------------------------------ */

/* Bytes between rows of the staged slab: padded so that neither the 16-byte reads of block formats
 * (two rows at a time) nor ldmatrix (eight) meet a bank twice. */
CU_HFN constexpr int skinny_stride(int type)
{
    return SKINNY_WARPS * GROUP_K * 2 + (record_dense(type) ? 16 : 64);
}
/* Units a round: formats with little work per unit take two and share the reads of x. */
CU_HFN constexpr int skinny_pair(int type)
{
    record_traits r = record_of(type);
    return r.bits == 4 && r.plane == 0 && !record_halves(type) ? 2 : 1;
}
/* Sums of x per block of 32 or 16 k, for the codes' bias and the minima: floats of one column. */
CU_HFN constexpr int skinny_sums(int type)
{
    return record_dense(type) ? 0 : SKINNY_WARPS * (record_halves(type) ? 8 : 4);
}
/* All but the ring, N tiles of 8 columns: x, sums of x, two sets of the warps' results, factors. */
CU_HFN constexpr int skinny_fixed_bytes(int type, int n)
{
    return n * 8 * skinny_stride(type) + n * 8 * 4 * skinny_sums(type) +
           2 * skinny_pair(type) * SKINNY_WARPS * n * 512 + 256;
}
/* Ring places a warp can have if the block may take `limit` bytes. */
CU_HFN constexpr int skinny_places(int type, int n, int limit)
{
    int places = (limit - skinny_fixed_bytes(type, n)) / (SKINNY_WARPS * record_bytes(type));
    return places > 8 ? 8 : places;
}
/* Two rings, chosen at run time.  Deep: two blocks on a multiprocessor of 228 KB; dense weights for
 * more than 8 columns instead one block with four places, the same bytes in flight.  Shallow: what
 * fits the 99 KB of consumer devices, whose bandwidth asks for less. */
CU_HFN constexpr int skinny_ring(int type, int n, bool deep)
{
    enum { DEEP = 113 * 1024, SHALLOW = 99 * 1024 };
    return !deep                          ? skinny_places(type, n, SHALLOW)
           : record_dense(type) && n == 2 ? 4
                                          : skinny_places(type, n, DEEP);
}
CU_HFN constexpr int skinny_smem(int type, int n, bool deep)
{
    return skinny_fixed_bytes(type, n) +
           skinny_ring(type, n, deep) * SKINNY_WARPS * record_bytes(type);
}

typedef struct {
    char *ring;    /* this warp's places */
    char *x;       /* [n * 8][stride] */
    float *sums;   /* [skinny_sums][n * 8] */
    float *red;    /* [2][pair][warp][n][128] */
    float *xscale; /* [16] 2^-scaling of a staged row (times 2^24 for codes) */
    float *rnorm;  /* [16] */
    int *count;
} skinny_shared;

template <int F, int N> CU_FN skinny_shared skinny_places_of(char *sm, bool deep, int warp)
{
    constexpr int REC = record_bytes(F);
    int ring = skinny_ring(F, N, deep) * REC;
    skinny_shared s;
    s.ring = sm + warp * ring;
    s.x = sm + SKINNY_WARPS * ring;
    s.sums = (float *)(s.x + N * 8 * skinny_stride(F));
    s.red = s.sums + N * 8 * skinny_sums(F);
    s.xscale = s.red + 2 * skinny_pair(F) * SKINNY_WARPS * N * 128;
    s.rnorm = s.xscale + 16;
    s.count = (int *)(s.rnorm + 16);
    return s;
}

/* ---- units -------------------------------------------------------------------------------- */

/* Groups of slab s. */
CU_FN int skinny_width(const skinny_args &a, int s)
{
    return min(a.P, a.groups - s * a.P);
}
/* First unit of block b of n: cuts the groups evenly, rounded down to a unit. */
CU_FN int skinny_first(const skinny_args &a, int b, int n)
{
    long long want = (long long)a.tiles * a.groups * b / n;
    long long even = (long long)(a.S - 1) * a.P * a.tiles; /* groups of all slabs but the last */
    if (want < even) return (int)(want / a.P);
    return (a.S - 1) * a.tiles + (int)((want - even) / skinny_width(a, a.S - 1));
}

/* ---- x to shared memory ------------------------------------------------------------------- */

CU_FN float skinny_pow2(int e)
{
    return __uint_as_float((uint32_t)(e + 127) << 23);
}

/* Eight k of row m, zeros outside, times the norm weight; adds their squares to *ss. */
CU_FN void skinny_load8(const skinny_args &a, int m, int k, bool there, float v[8], float *ss)
{
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = 0;
    if (!there || k >= a.K || m >= a.M) return;
    const bf16 *x = a.x + (size_t)m * a.ldx + k;
    if (a.x16 && k + 8 <= a.K) {
        uint4 q = *(const uint4 *)x;
        uint32_t r[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            v[2 * j] = cu_bf_lo(r[j]);
            v[2 * j + 1] = cu_bf_hi(r[j]);
        }
    } else {
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (k + j < a.K) v[j] = __bfloat162float(x[j]);
    }
    if (!a.norm) return;
    float w[8];
    if (k + 8 <= a.K) {
        *(float4 *)w = *(const float4 *)(a.norm + k);
        *(float4 *)(w + 4) = *(const float4 *)(a.norm + k + 4);
    } else {
#pragma unroll
        for (int j = 0; j < 8; j++) w[j] = k + j < a.K ? a.norm[k + j] : 0;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        *ss = fmaf(v[j], v[j], *ss);
        v[j] *= w[j];
    }
}

/* Eight k of a dense row, in order. */
template <int F> CU_FN void skinny_put_dense(char *row, int chunk, const float v[8], float scale)
{
    uint32_t r[4];
#pragma unroll
    for (int j = 0; j < 4; j++)
        r[j] = F == DT_BF16 ? cu_pack_bf16(v[2 * j], v[2 * j + 1])
                            : cu_pack_f16(v[2 * j] * scale, v[2 * j + 1] * scale);
    *(uint4 *)(row + chunk * 16) = make_uint4(r[0], r[1], r[2], r[3]);
}
/* Eight k of a row for codes: place 8t + 4s + j of a block is k = 16s + 4t + j; entries whose codes
 * stay shifted by four are divided by 16.  Returns the sum of what the product will see. */
template <int F> CU_FN float skinny_put_codes(char *row, int chunk, const float v[8], float scale)
{
    constexpr bool SHIFTED = record_of(F).bits == 4 && record_of(F).table == TABLE_NONE;
    uint32_t r[4];
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float f = SHIFTED && (j & 1) ? 0.0625f : 1.0f;
        r[j] = cu_pack_f16(v[2 * j] * scale * f, v[2 * j + 1] * scale * f);
        float2 seen = cu_h2f2(r[j]);
        sum += (seen.x + seen.y) * (1 / f);
    }
    int s = (chunk & 3) >> 1, t = (chunk & 1) * 2;
    char *to = row + (chunk >> 2) * 64 + t * 16 + s * 8;
    *(uint2 *)to = make_uint2(r[0], r[1]);
    *(uint2 *)(to + 16) = make_uint2(r[2], r[3]);
    return sum;
}

/* Slab `slab` of x, one warp a row at a time. */
template <int F, int N>
CU_FN void skinny_stage(const skinny_args &a, int slab, const skinny_shared &sh, int warp, int lane)
{
    constexpr bool DENSE = record_dense(F), HALVES = record_halves(F);
    constexpr float UNIT = 5.9604644775390625e-8f; /* 2^-24 */
    constexpr scale_kind KIND = record_of(F).scale;
    /* What a sum of x is multiplied by: the bias of the codes, or the sign of the minima. */
    constexpr float FACTOR = UNIT * (KIND == SCALE_16MIN ? 1.0f
                                     : record_has_min(F) ? -1.0f
                                                         : -(float)record_of(F).bias);
    const int k0 = slab * a.P * GROUP_K, chunks = skinny_width(a, slab) * (GROUP_K / 8);
    for (int m = warp; m < N * 8; m += SKINNY_WARPS) {
        float v[4][8], ss = 0, largest = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int c = i * 32 + lane;
            skinny_load8(a, m, k0 + c * 8, c < chunks, v[i], &ss);
#pragma unroll
            for (int j = 0; j < 8; j++) largest = fmaxf(largest, fabsf(v[i][j]));
        }
        if (a.norm) { /* every block that stages this slab writes the same bits */
            ss = cu_warp_sum(ss);
            if (lane == 0 && m < a.M) a.square[slab * SKINNY_ROWS + m] = ss;
        }
        float scale = 1;
        if (F != DT_BF16) {
            int e = (int)(__float_as_uint(cu_warp_max(largest)) >> 23) - 127;
            e = e < -100 ? -100 : e > 117 ? 117 : e; /* so that both factors are normal numbers */
            scale = skinny_pow2(14 - e);
            if (lane == 0) sh.xscale[m] = skinny_pow2(e - 14 + (DENSE ? 0 : 24));
        }
        char *row = sh.x + m * skinny_stride(F);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int c = i * 32 + lane;
            if (DENSE) {
                if (c < chunks) skinny_put_dense<F>(row, c, v[i], scale);
                continue;
            }
            float sum = 0;
            if (c < chunks) sum = skinny_put_codes<F>(row, c, v[i], scale);
            sum += __shfl_xor_sync(CU_FULL, sum, 1);
            if (!HALVES) sum += __shfl_xor_sync(CU_FULL, sum, 2);
            constexpr int PER = HALVES ? 2 : 4;
            if (lane % PER == 0 && c < chunks) sh.sums[c / PER * (N * 8) + m] = sum * FACTOR;
        }
    }
}

#endif
