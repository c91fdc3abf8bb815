/* ptx.cuh - the wrappers of portable.cuh for nvcc: the instruction itself, nothing around it.
 * Owns nothing; the only file with inline assembly for the GPU.  Device code. */
#ifndef QUERN_KERNELS_CUDA_PTX_CUH
#define QUERN_KERNELS_CUDA_PTX_CUH

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define CU_FN __device__ __forceinline__
#define CU_HFN __host__ __device__ __forceinline__
#define CU_FULL 0xffffffffu

/* Names of the raw arrays differ, since one translation unit may see several element types. */
#define CU_DYN_SMEM(T, name)                                       \
    extern __shared__ __align__(1024) unsigned char name##_raw_[]; \
    T *name = (T *)name##_raw_
#define CU_SHARED(T, name, ...) __shared__ __align__(16) T name __VA_ARGS__
#define CU_LAUNCH(k, grid, block, smem, stream, ...) k<<<grid, block, smem, stream>>>(__VA_ARGS__)

CU_FN uint32_t cu_saddr(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}
CU_FN int cu_lane(void)
{
    return (int)(threadIdx.x & 31);
}

/* ---- loads, stores ----------------------------------------------------------------------------
 */

CU_FN uint64_t cu_policy_evict_first(void)
{
    uint64_t r;
    asm("createpolicy.fractional.L2::evict_first.b64 %0,1.0;" : "=l"(r));
    return r;
}
CU_FN uint64_t cu_policy_evict_last(void)
{
    uint64_t r;
    asm("createpolicy.fractional.L2::evict_last.b64 %0,1.0;" : "=l"(r));
    return r;
}
CU_FN uint4 cu_ld_nc16(const void *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3},[%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}
CU_FN uint4 cu_ld_stream16(const void *p, uint64_t policy)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0,%1,%2,%3},[%4],%5;"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p), "l"(policy));
    return v;
}
CU_FN uint4 cu_ld_cg16(const void *p)
{
    uint4 v;
    asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3},[%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
CU_FN float4 cu_ld_cg16f(const void *p)
{
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3},[%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
CU_FN float cu_ld_cg_f(const float *p)
{
    float v;
    asm volatile("ld.global.cg.f32 %0,[%1];" : "=f"(v) : "l"(p) : "memory");
    return v;
}
CU_FN void cu_st16(void *p, uint4 v)
{
    *(uint4 *)p = v;
}

/* ---- cp.async ---------------------------------------------------------------------------------
 */

CU_FN void cu_cp_async16(void *dst, const void *src)
{
    asm volatile("cp.async.cg.shared.global [%0],[%1],16;" ::"r"(cu_saddr(dst)), "l"(src)
                 : "memory");
}
CU_FN void cu_cp_async16_once(void *dst, const void *src)
{
#if __CUDA_ARCH__ == 900
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0],[%1],16,%2;" ::"r"(cu_saddr(dst)),
                 "l"(src), "l"(cu_policy_evict_first())
                 : "memory");
#else
    cu_cp_async16(dst, src);
#endif
}
CU_FN void cu_cp_async16_z(void *dst, const void *src, bool on)
{
    asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(cu_saddr(dst)), "l"(src),
                 "r"(on ? 16 : 0)
                 : "memory");
}
CU_FN void cu_cp_async8(void *dst, const void *src)
{
    asm volatile("cp.async.ca.shared.global [%0],[%1],8;" ::"r"(cu_saddr(dst)), "l"(src)
                 : "memory");
}
CU_FN void cu_cp_async4(void *dst, const void *src)
{
    asm volatile("cp.async.ca.shared.global [%0],[%1],4;" ::"r"(cu_saddr(dst)), "l"(src)
                 : "memory");
}
CU_FN void cu_cp_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> CU_FN void cu_cp_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* ---- ldmatrix, mma ----------------------------------------------------------------------------
 */

CU_FN void cu_ldmatrix_x4(uint32_t r[4], const void *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(cu_saddr(p))
                 : "memory");
}
CU_FN void cu_ldmatrix_x4_t(uint32_t r[4], const void *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(cu_saddr(p))
                 : "memory");
}
CU_FN void cu_ldmatrix_x2(uint32_t r[2], const void *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1},[%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(cu_saddr(p))
                 : "memory");
}
CU_FN void cu_ldmatrix_x2_t(uint32_t r[2], const void *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1},[%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(cu_saddr(p))
                 : "memory");
}
CU_FN void cu_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
CU_FN void cu_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
CU_FN void cu_mma_s8(int d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* ---- bits and arithmetic ----------------------------------------------------------------------
 */

template <int LUT> CU_FN uint32_t cu_lop3(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("lop3.b32 %0,%1,%2,%3,%4;" : "=r"(d) : "r"(a), "r"(b), "r"(c), "n"(LUT));
    return d;
}
CU_FN uint32_t cu_prmt(uint32_t a, uint32_t b, uint32_t select)
{
    uint32_t d;
    asm("prmt.b32 %0,%1,%2,%3;" : "=r"(d) : "r"(a), "r"(b), "r"(select));
    return d;
}
CU_FN int cu_dp4a(uint32_t a, uint32_t b, int c)
{
    int d;
    asm("dp4a.s32.s32 %0,%1,%2,%3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
CU_FN float cu_ex2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
    return y;
}
CU_FN uint32_t cu_hadd2(uint32_t a, uint32_t b)
{
    uint32_t d;
    asm("add.rn.f16x2 %0,%1,%2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}
CU_FN uint32_t cu_hmul2(uint32_t a, uint32_t b)
{
    uint32_t d;
    asm("mul.rn.f16x2 %0,%1,%2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}
CU_FN uint32_t cu_hfma2(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("fma.rn.f16x2 %0,%1,%2,%3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
CU_FN uint32_t cu_bfma2(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("fma.rn.bf16x2 %0,%1,%2,%3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
CU_FN float cu_e4m3_to_f32(uint8_t v)
{
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(v, __NV_E4M3)));
}
CU_FN uint8_t cu_f32_to_e4m3(float f)
{
    return __nv_cvt_float_to_fp8(f, __NV_SATFINITE, __NV_E4M3);
}
CU_FN uint32_t cu_e4m3x2_to_h2(uint16_t v)
{
    __half2_raw h = __nv_cvt_fp8x2_to_halfraw2(v, __NV_E4M3);
    return h.x | (uint32_t)h.y << 16;
}
CU_FN uint16_t cu_pack_e4m3(float lo, float hi)
{
    return __nv_cvt_float2_to_fp8x2(make_float2(lo, hi), __NV_SATFINITE, __NV_E4M3);
}
#define CU_REDUX(name, ptx)                                                      \
    CU_FN uint32_t cu_redux_##name(uint32_t v)                                   \
    {                                                                            \
        uint32_t d;                                                              \
        asm volatile("redux.sync." ptx " %0,%1,0xffffffff;" : "=r"(d) : "r"(v)); \
        return d;                                                                \
    }
CU_REDUX(add, "add.u32")
CU_REDUX(max, "max.u32")
CU_REDUX(min, "min.u32")
CU_REDUX(and, "and.b32")
CU_REDUX(or, "or.b32")
#undef CU_REDUX

/* ---- barriers, launch overlap -----------------------------------------------------------------
 */

CU_FN void cu_fence(void)
{
    asm volatile("fence.acq_rel.gpu;" ::
                     : "memory"); /* __threadfence also orders what nobody asks for */
}
CU_FN void cu_bar_sync(int id, int n)
{
    asm volatile("bar.sync %0,%1;" ::"r"(id), "r"(n) : "memory");
}
CU_FN void cu_bar_arrive(int id, int n)
{
    asm volatile("bar.arrive %0,%1;" ::"r"(id), "r"(n) : "memory");
}
CU_FN void cu_gdc_wait(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
CU_FN void cu_gdc_launch(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* ---- mbarriers, bulk and tensor copies (sm_90 and later) ----------------------------------------
 */

typedef CUtensorMap cu_tmap;
typedef uint64_t cu_mbar;

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
CU_FN void cu_mbar_init(cu_mbar *b, int n)
{
    asm volatile("mbarrier.init.shared.b64 [%0],%1;" ::"r"(cu_saddr(b)), "r"(n) : "memory");
}
CU_FN void cu_mbar_fence(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
CU_FN void cu_mbar_arrive(cu_mbar *b)
{
    asm volatile("mbarrier.arrive.shared.b64 _,[%0];" ::"r"(cu_saddr(b)) : "memory");
}
CU_FN void cu_mbar_expect(cu_mbar *b, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _,[%0],%1;" ::"r"(cu_saddr(b)), "r"(bytes)
                 : "memory");
}
CU_FN void cu_mbar_wait(cu_mbar *b, int parity)
{
    asm volatile("{\n.reg .pred p;\nL_%=:\nmbarrier.try_wait.parity.shared.b64 p,[%0],%1;\n"
                 "@!p bra L_%=;\n}" ::"r"(cu_saddr(b)),
                 "r"(parity)
                 : "memory");
}
CU_FN void cu_bulk_1d(void *dst, const void *src, int bytes, cu_mbar *b)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0],[%1],%2,[%3];" ::"r"(cu_saddr(dst)),
                 "l"(src), "r"(bytes), "r"(cu_saddr(b))
                 : "memory");
}
CU_FN void cu_tma_2d(void *dst, const cu_tmap *t, cu_mbar *b, int x, int y)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0],[%1,{%3,%4}],[%2];" ::"r"(cu_saddr(dst)),
                 "l"(t), "r"(cu_saddr(b)), "r"(x), "r"(y)
                 : "memory");
}
#endif

/* ---- wgmma (sm_90a only) ------------------------------------------------------------------------
 */

CU_FN uint64_t cu_desc(const void *p)
{
    return (uint64_t)((cu_saddr(p) & 0x3ffff) >> 4) | (uint64_t)1 << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
CU_FN void cu_wgmma_fence(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
CU_FN void cu_wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> CU_FN void cu_wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
#define CU_D8(i)                                                                                \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
        "+f"(d[i + 6]), "+f"(d[i + 7])
CU_FN void cu_wgmma_64x64x16(float (&d)[32], uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},"
                 "%32,%33,1,1,1,0,0;"
                 : CU_D8(0), CU_D8(8), CU_D8(16), CU_D8(24)
                 : "l"(a), "l"(b));
}
CU_FN void cu_wgmma_64x128x16(float (&d)[64], uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
                 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63},"
                 "%64,%65,1,1,1,0,0;"
                 : CU_D8(0), CU_D8(8), CU_D8(16), CU_D8(24), CU_D8(32), CU_D8(40), CU_D8(48),
                   CU_D8(56)
                 : "l"(a), "l"(b));
}
#undef CU_D8
template <int N> CU_FN void cu_setmaxnreg_inc(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> CU_FN void cu_setmaxnreg_dec(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
#endif

#endif
