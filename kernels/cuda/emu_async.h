/* emu_async.h - emulated wrappers: what runs beside the threads (cp.async, bulk and tensor copies,
 * mbarriers, wgmma) and launch overlap.  What each does is listed in portable.cuh.
 *
 * The destination of a copy is poisoned when the copy is issued and filled only when somebody has
 * waited for it; products of wgmma are computed when they are waited for.  So a forgotten wait, a
 * ring slot refilled in flight and a stage released early all show.
 * Refuses (aborts) what emu.h says.  Thread: a fibre's. */
#ifndef QUERN_KERNELS_CUDA_EMU_ASYNC_H
#define QUERN_KERNELS_CUDA_EMU_ASYNC_H

#include "kernels/cuda/emu_bits.h"

namespace emu
{

static inline void issue_copy(void *dst, const void *src, unsigned bytes)
{
    thread *t = self();
    check_aligned(dst, bytes, "cp.async destination");
    if (src) check_aligned(src, bytes, "cp.async source");
    const char *d = (const char *)dst;
    for (const copy &c : t->copies) {
        const char *o = (const char *)c.dst;
        if (d < o + c.bytes && o < d + bytes)
            die("cp.async into a place whose earlier copy has not been waited for");
    }
    memset(dst, 0xff, bytes);
    t->copies.push_back({dst, src, bytes, t->copy_group});
    t->async = true;
}
/* Lands the copies of all groups but the last n committed ones. */
static inline void wait_copies(unsigned n)
{
    maybe_preempt();
    thread *t = self();
    size_t k = 0;
    for (; k < t->copies.size(); k++) {
        const copy &c = t->copies[k];
        if (c.group + n >= t->copy_group) break;
        if (c.src) {
            memcpy(c.dst, c.src, c.bytes);
        } else {
            memset(c.dst, 0, c.bytes);
        }
    }
    t->copies.erase(t->copies.begin(), t->copies.begin() + (long)k);
}

} // namespace emu

CU_FN void cu_cp_async16(void *dst, const void *src)
{
    emu::issue_copy(dst, src, 16);
}
CU_FN void cu_cp_async16_once(void *dst, const void *src)
{
    emu::issue_copy(dst, src, 16);
}
CU_FN void cu_cp_async16_z(void *dst, const void *src, bool on)
{
    emu::issue_copy(dst, on ? src : nullptr, 16);
}
CU_FN void cu_cp_async8(void *dst, const void *src)
{
    emu::issue_copy(dst, src, 8);
}
CU_FN void cu_cp_async4(void *dst, const void *src)
{
    emu::issue_copy(dst, src, 4);
}
CU_FN void cu_cp_commit(void)
{
    emu::self()->copy_group++;
}
template <int N> static inline void cu_cp_wait(void)
{
    emu::wait_copies(N);
}

/* ---- mbarriers, bulk and tensor copies ------------------------------------------------------ */

typedef emu::mbar cu_mbar;

CU_FN void cu_mbar_init(cu_mbar *b, int n)
{
    emu::check_aligned(b, 8, "mbarrier");
    if (n < 1 || n > emu::MAX_THREADS) emu::die("mbarrier for %d arrivals", n);
    *b = {(int16_t)n, (int16_t)n, 0, 0, emu::MBAR_MAGIC};
}
CU_FN void cu_mbar_fence(void)
{
}
CU_FN void cu_mbar_arrive(cu_mbar *b)
{
    emu::mbar_arrive(b, 1, 0);
}
CU_FN void cu_mbar_expect(cu_mbar *b, int bytes)
{
    emu::mbar_arrive(b, 1, bytes);
}
CU_FN void cu_mbar_wait(cu_mbar *b, int parity)
{
    emu::mbar_wait(b, parity);
}

/* A row-major matrix of bf16 in global memory and the box that one copy takes. */
struct cu_tmap {
    const void *base;
    uint64_t width, height, ld; /* elements */
    uint32_t box_w, box_h;
};

namespace emu
{

static inline void issue_bulk(void *dst, mbar *bar, bool swizzle, std::vector<char> &&data)
{
    unseen u;
    for (const bulk &k : blk->bulks) {
        if ((char *)dst < k.dst + k.data.size() && k.dst < (char *)dst + data.size())
            die("bulk copy into a place whose earlier copy has not arrived");
    }
    memset(dst, 0xff, data.size());
    blk->bulks.push_back({bar, (char *)dst, swizzle, std::move(data)});
    maybe_preempt();
}

} // namespace emu

CU_FN void cu_bulk_1d(void *dst, const void *src, int bytes, cu_mbar *b)
{
    emu::check_aligned(dst, 16, "bulk copy destination");
    emu::check_aligned(src, 16, "bulk copy source");
    if (bytes <= 0 || bytes % 16) emu::die("bulk copy of %d bytes: want a multiple of 16", bytes);
    std::vector<char> v((const char *)src, (const char *)src + bytes);
    emu::issue_bulk(dst, b, false, std::move(v));
}
CU_FN void cu_tma_2d(void *dst, const cu_tmap *t, cu_mbar *b, int x, int y)
{
    emu::check_aligned(dst, 1024, "tensor copy destination");
    size_t pitch = t->box_w * 2;
    std::vector<char> v(pitch * t->box_h, 0); /* outside the matrix: zeros */
    for (uint32_t r = 0; r < t->box_h; r++) {
        for (uint32_t c = 0; c < t->box_w; c++) {
            int64_t row = (int64_t)y + r, col = (int64_t)x + c;
            if (row < 0 || row >= (int64_t)t->height || col < 0 || col >= (int64_t)t->width)
                continue;
            memcpy(&v[r * pitch + c * 2],
                   (const char *)t->base + ((uint64_t)row * t->ld + (uint64_t)col) * 2, 2);
        }
    }
    emu::issue_bulk(dst, b, true, std::move(v));
}

/* ---- wgmma ------------------------------------------------------------------------------------
 * d[64, N] += A[64, 16] B[N, 16]^T, both in shared memory, 128-byte swizzle, K-major.  Warp w of
 * the four holds rows 16w..16w+15, in the layout of mma's C repeated over the columns. */

namespace emu
{

static inline uint32_t shared_offset(const void *p)
{
    return (uint32_t)((const char *)p - blk->dyn);
}
/* Rows first..first+n-1, k 0..15 of an operand. */
static inline void operand(uint64_t desc, int first, int n, float *out /* [n][16] */)
{
    uint32_t start = (desc & 0x3fff) << 4, stride = (desc >> 32 & 0x3fff) << 4;
    if (desc >> 62 != 1) die("wgmma: descriptor without the 128-byte swizzle");
    for (int r = first; r < first + n; r++) {
        for (int k = 0; k < 16; k++) {
            uint32_t at =
                start + (uint32_t)(r / 8) * stride + (uint32_t)(r % 8) * 128 + (uint32_t)k * 2;
            at ^= at >> 3 & 0x70;
            if (at + 2 > blk->spec.smem) die("wgmma: operand reaches past shared memory");
            uint16_t v;
            memcpy(&v, blk->dyn + at, 2);
            *out++ = bf16_bits(v);
        }
    }
}
static inline void op_wgmma(warp &w, unsigned active)
{
    if (active != CU_FULL) die("wgmma needs all 32 lanes");
    int warp_no = self()->warp;
    thread *lane = &blk->threads[warp_no * WARP];
    unsigned keep = (unsigned)w.slots[0].i[0];
    size_t done = 0;
    for (; done < lane->wgmmas.size() && lane->wgmmas[done].group + keep < lane->mma_group;
         done++) {
        const wgmma &m = lane->wgmmas[done];
        float a[16][16], b[128][16];
        operand(m.a, (warp_no & 3) * 16, 16, a[0]);
        operand(m.b, 0, m.n, b[0]);
        for (int l = 0; l < WARP; l++) {
            if (lane[l].wgmmas.size() <= done || lane[l].wgmmas[done].a != m.a ||
                lane[l].wgmmas[done].b != m.b || lane[l].wgmmas[done].n != m.n)
                die("wgmma: lanes of one warp issue different products");
            float *d = lane[l].wgmmas[done].d;
            for (int j = 0; j < m.n / 2; j++) {
                int row = l / 4 + (j >> 1 & 1) * 8, col = (j >> 2) * 8 + l % 4 * 2 + (j & 1);
                float s = 0;
                for (int k = 0; k < 16; k++) s += a[row][k] * b[col][k];
                d[j] += s;
            }
        }
    }
    for (int l = 0; l < WARP; l++) {
        if (lane[l].wgmmas.size() < done) die("wgmma: lanes of one warp issue different products");
        lane[l].wgmmas.erase(lane[l].wgmmas.begin(), lane[l].wgmmas.begin() + (long)done);
    }
}
static inline void issue_wgmma(float *d, int n, uint64_t a, uint64_t b)
{
    thread *t = self();
    t->wgmmas.push_back({d, a, b, t->mma_group, n});
    t->async = true;
}

} // namespace emu

CU_FN void cu_wgmma_fence(void)
{
}
CU_FN void cu_wgmma_64x64x16(float (&d)[32], uint64_t a, uint64_t b)
{
    emu::issue_wgmma(d, 64, a, b);
}
CU_FN void cu_wgmma_64x128x16(float (&d)[64], uint64_t a, uint64_t b)
{
    emu::issue_wgmma(d, 128, a, b);
}
CU_FN void cu_wgmma_commit(void)
{
    emu::self()->mma_group++;
}
template <int N> static inline void cu_wgmma_wait(void)
{
    emu::maybe_preempt();
    emu::my_slot().i[0] = N;
    emu::meet(CU_FULL, emu::op_wgmma);
}
CU_FN uint64_t cu_desc(const void *p)
{
    return (uint64_t)(emu::shared_offset(p) & 0x3ffff) >> 4 | (uint64_t)1 << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
template <int N> static inline void cu_setmaxnreg_inc(void)
{
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "setmaxnreg takes a multiple of 8, 24 to 256");
}
template <int N> static inline void cu_setmaxnreg_dec(void)
{
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "setmaxnreg takes a multiple of 8, 24 to 256");
}

/* ---- launch overlap ------------------------------------------------------------------------- */

CU_FN void cu_gdc_wait(void)
{
    emu::gdc_wait();
}
CU_FN void cu_gdc_launch(void)
{
}

#endif
