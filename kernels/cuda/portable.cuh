/* portable.cuh - everything a kernel may use beyond plain C: one source for the GPU and the
 * emulator.
 *
 *   nvcc   the instruction itself (ptx.cuh) and NVIDIA's types
 *   g++    the same meaning on the CPU, every thread a fibre (emu*.h); needs no CUDA toolkit
 *
 * Rules: no inline assembly and no CUDA header elsewhere; shared memory by the two macros only; no
 * block waits for another of its launch ("last arriver finishes", cu_ticket_last); a 32-bit
 * register that holds two halves is a uint32_t, lower index in the low half; emulated code is built
 * with -fno-strict-aliasing.
 *
 * Launch and memory
 *   CU_LAUNCH(k, grid, block, smem, stream, args...)  tests only; product code: GPU_LAUNCH of gpu.h
 *   CU_DYN_SMEM(T, name)          T *name = this block's dynamic shared memory, 1024-byte aligned
 *   CU_SHARED(T, name, [n])       a shared array (or variable, without [n]), 16-byte aligned
 *   CU_FN, CU_HFN                 device function; device and host function
 *   CU_FULL                       the mask of all 32 lanes
 *   CU_HAVE_SM90, CU_HAVE_SM90A   1 where mbarriers and bulk copies, where wgmma, can be compiled
 * CUDA's own, same names: threadIdx blockIdx blockDim gridDim, float2/3/4 int2.. uint2.. make_*,
 *   dim3, __nv_bfloat16 (bf16) and __half (f16) with __bfloat162float __float2bfloat16
 *   __floats2bfloat162_rn __half2float __float2half __ushort_as_*, __syncthreads, __syncwarp,
 *   __shfl_sync _xor _up _down (value <= 8 bytes), __ballot_sync __any_sync __all_sync
 *   __match_any_sync, atomicAdd Sub Or And Exch CAS Max Min (int, unsigned, unsigned long long;
 *   atomicAdd of float too, but no kernel may use it: sums must not depend on time), __threadfence,
 *   __ldg __ldcg __stcg __stcs, __popc __clz __ffs __brev (and ll) __umulhi __funnelshift_l/r,
 *   __float_as_uint and back, fmaf rsqrtf sqrtf __expf __logf exp2f __fdividef __f{add,sub,mul}_rn
 *   __fmaf_rn __frcp_rn __fsqrt_rn __fdiv_rn __saturatef __float2int_rn/rz/rd/ru min max
 *
 * Warp
 *   cu_lane()                     this thread's lane (blocks are one-dimensional)
 *   cu_warp_sum/max(v)            over 32 lanes by xor: the same bits on every lane
 *   cu_redux_add/max/min/and/or   over 32 lanes, unsigned
 * Loads, stores (16 bytes must be 16-byte aligned)
 *   cu_ld_nc16(p)                 read-only data, not kept in L1
 *   cu_ld_stream16(p, policy)     the same with an L2 policy: data read once
 *   cu_policy_evict_first/last()  such a policy
 *   cu_ld_cg16/cg16f/cg_f(p)      data that other blocks of this launch wrote
 *   cu_st16(p, v)                 16-byte store
 * cp.async (this thread's copies, global to shared; groups end at a commit)
 *   cu_cp_async16/8/4(dst, src)   16, 8, 4 bytes, aligned so
 *   cu_cp_async16_once(dst, src)  of data read once, which L2 may drop first (sm_90 only).  The
 *                                 shared address must be this thread's own in all its parts:
 *                                 of one with a part in a uniform register ptxas 13.0 makes an
 *                                 illegal instruction
 *   cu_cp_async16_z(d, s, on)     zeros when !on (src is then not read)
 *   cu_cp_commit()                ends a group
 *   cu_cp_wait<N>()               until all but the last N groups are here (for this thread)
 * Matrices (fragments: PTX ISA, "mma.m16n8k16"; all 32 lanes)
 *   cu_ldmatrix_x4/x2(_t)(r, p)   8x8 16-bit tiles from shared memory, _t transposed; rows 16-byte
 *                                 aligned
 *   cu_mma_bf16/f16(d, a, b)      d[16,8] += a[16,16] b[16,8], f32 sums; f16 subnormals count
 *   cu_mma_s8(d, a, b)            d[16,8] += a[16,32] b[32,8], exact
 * Bits, packed arithmetic
 *   cu_lop3<LUT>(a, b, c)         any bit function (LUT: a=0xf0, b=0xcc, c=0xaa)
 *   cu_prmt(a, b, sel)            bytes picked by nibbles of sel (bit 3: the sign, spread)
 *   cu_dp4a(a, b, c)              c + sum of four signed byte products
 *   cu_ex2(x)                     2^x, approximate; tiny results are 0
 *   cu_hadd2 cu_hmul2 cu_hfma2    two f16, each rounded once; cu_bfma2: two bf16
 *   cu_pack_bf16/f16(lo, hi)      two floats to a register
 *   cu_bf_lo/bf_hi(u)  cu_h2f2(u) and back to float
 *   cu_e4m3_to_f32 cu_f32_to_e4m3 cu_pack_e4m3 cu_e4m3x2_to_h2   FP8, saturating
 * Barriers, order
 *   cu_bar_sync(id, n)            named barrier 1..15 of n threads (multiple of 32)
 *   cu_bar_arrive(id, n)          arrives without waiting
 *   cu_fence()                    this thread's writes before, others' reads after
 *   cu_ticket_last(ticket, n)     whole block: true in the last of n blocks, which then sees all
 *                                 results (by cu_ld_cg*); resets the ticket
 *   cu_gdc_wait()                 launched with pdl: until earlier launches' results are there.
 * Every block of such a kernel calls it cu_gdc_launch()               the next launch may start
 * Hopper, CU_HAVE_SM90
 *   cu_mbar, cu_mbar_init(b, n), cu_mbar_fence()     one thread, then __syncthreads
 *   cu_mbar_arrive(b)  cu_mbar_expect(b, bytes)      an arrival; one that announces bytes
 *   cu_mbar_wait(b, parity)       until the phase of that parity is over
 *   cu_bulk_1d(dst, src, bytes, b)   multiple of 16 bytes, both sides 16-byte aligned
 *   cu_tma_2d(dst, map, b, x, y)  a box of a bf16 matrix (gpu_tmap_2d), 128-byte swizzle, zeros
 *                                 outside; dst 1024-byte aligned.  Kernels take the map as
 *                                 `const __grid_constant__ cu_tmap m` and pass &m
 * Hopper, CU_HAVE_SM90A (warpgroup of 128 threads; operands K-major with the 128-byte swizzle)
 *   cu_desc(p)                    descriptor of an operand; k advances by 32 bytes per 16
 *   cu_wgmma_64x64x16 / 64x128x16(d, a, b)   d[64, N] += A[64,16] B[N,16]^T
 *   cu_wgmma_fence() cu_wgmma_commit() cu_wgmma_wait<N>()
 *   cu_setmaxnreg_inc/dec<N>()    moves registers between warpgroups
 *
 * Owns nothing.  Device code. */
#ifndef QUERN_KERNELS_CUDA_PORTABLE_CUH
#define QUERN_KERNELS_CUDA_PORTABLE_CUH

#ifdef __CUDACC__
#include "kernels/cuda/ptx.cuh"
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define CU_HAVE_SM90 1
#else
#define CU_HAVE_SM90 0
#endif
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define CU_HAVE_SM90A 1
#else
#define CU_HAVE_SM90A 0
#endif
#else
#include "kernels/cuda/emu_async.h"
#define CU_HAVE_SM90 1
#define CU_HAVE_SM90A 1
#endif

typedef __nv_bfloat16 bf16;
typedef __half f16;

CU_FN float cu_warp_sum(float v)
{
    for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(CU_FULL, v, m);
    return v;
}
CU_FN float cu_warp_max(float v)
{
    for (int m = 16; m; m >>= 1) v = fmaxf(v, __shfl_xor_sync(CU_FULL, v, m));
    return v;
}
CU_HFN uint32_t cu_pack_bf16(float lo, float hi)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
    uint32_t u;
    memcpy(&u, &v, 4);
    return u;
}
CU_HFN uint32_t cu_pack_f16(float lo, float hi)
{
    __half2 v = __floats2half2_rn(lo, hi);
    uint32_t u;
    memcpy(&u, &v, 4);
    return u;
}
CU_FN float cu_bf_lo(uint32_t u)
{
    return __uint_as_float(u << 16);
}
CU_FN float cu_bf_hi(uint32_t u)
{
    return __uint_as_float(u & 0xffff0000u);
}
CU_FN float2 cu_h2f2(uint32_t u)
{
    __half2 h;
    memcpy(&h, &u, 4);
    return __half22float2(h);
}
CU_FN bool cu_ticket_last(unsigned *ticket, unsigned n)
{
    CU_SHARED(unsigned, last);
    __syncthreads();
    if (threadIdx.x == 0) { /* fences of one thread cover what the barriers order around it */
        cu_fence();
        last = atomicAdd(ticket, 1u) == n - 1;
        if (last) *ticket = 0;
        cu_fence();
    }
    __syncthreads();
    return last != 0;
}

#endif
