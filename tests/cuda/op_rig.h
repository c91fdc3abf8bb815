/* op_rig.h - for tests of single ops through the k_ wrappers: the device's backend beside `ref`,
 * bf16 tensors with guarded gaps on both sides of the bus, other orders of the emulator. On a GPU
 * run with CK_FORK=no; without a device the test says so and ends with 77. Tests only. */
#ifndef QUERN_TESTS_CUDA_OP_RIG_H
#define QUERN_TESTS_CUDA_OP_RIG_H

#include "kernels/cuda/portable.cuh"
#include "kernels/formats.h"
#include "tests/cuda/device.h"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-field-initializers" /* C's rule: the rest is zero */
#include "tests/ops_rig.h"
#pragma GCC diagnostic pop

/* Another order of fibres, blocks and streams (0: the fixed one); nothing on a GPU. */
static inline void other_order(uint64_t seed)
{
#ifndef __CUDACC__
    emu::set_seed(seed);
#endif
    (void)seed;
}
/* What EMU_SEED asks for: the whole test then runs in that order, in a shorter form. */
static inline uint64_t asked_order(void)
{
    const char *s = getenv("EMU_SEED");
    return s ? strtoull(s, NULL, 10) : 0;
}

static inline backend *open_device(void)
{
    err e = {};
    backend_options o = {};
    o.name = DEVICE;
    o.batch_invariant = true; /* needs no cuBLASLt */
    o.scratch_bytes = 1 << 20;
    backend *be = backend_open(&o, &e);
    if (be) return be;
    printf("skipped: %s\n", e.msg);
    exit(77);
}

static inline void reserve_rows(backend *be, int max_out)
{
    err e = {};
    batch_limits l = {};
    l.max_tok = l.max_seqs = l.max_out = max_out;
    l.max_blocks = 1;
    ck_assert_msg(k_batch_reserve(be, &l, &e) == 0, "%s", e.msg);
}

/* rows x cols bf16 at device address `mem` plus `lead` elements, rows ld apart; everything that is
 * not a value is GAP on the device. */
typedef struct {
    backend *be;
    tensor t;
    uint16_t *mem, *host; /* [lead + rows * ld] */
    size_t n, lead;
} half_tensor;
static const uint16_t GAP = 0x7fc1; /* a NaN */

static inline half_tensor half_new(backend *be, int rows, int cols, int ld, int lead)
{
    half_tensor h = {};
    h.be = be;
    h.lead = (size_t)lead;
    h.n = h.lead + (size_t)rows * (size_t)ld;
    h.mem = (uint16_t *)k_alloc(be, h.n * 2);
    h.host = (uint16_t *)malloc(h.n * 2);
    ck_assert(h.mem && h.host);
    for (size_t i = 0; i < h.n; i++) h.host[i] = GAP;
    h.t = {h.mem + lead, rows, cols, ld, ACT_BF16};
    k_upload(be, h.mem, h.host, h.n * 2);
    return h;
}
static inline void half_free(half_tensor *h)
{
    k_free(h->be, h->mem, h->n * 2);
    free(h->host);
}
static inline uint16_t *half_row(half_tensor h, int r)
{
    return h.host + h.lead + (size_t)r * (size_t)h.t.ld;
}
static inline void half_up(half_tensor h)
{
    k_upload(h.be, h.mem, h.host, h.n * 2);
}
/* Brings the values here; nothing between the rows was touched. */
static inline void half_down(half_tensor h)
{
    k_download(h.be, h.host, h.mem, h.n * 2);
    for (size_t i = 0; i < h.lead; i++) ck_assert_uint_eq(h.host[i], GAP);
    for (int r = 0; r < h.t.rows; r++)
        for (int c = h.t.cols; c < h.t.ld; c++) ck_assert_uint_eq(half_row(h, r)[c], GAP);
}
static inline bool half_same(half_tensor a, half_tensor b)
{
    for (int r = 0; r < a.t.rows; r++)
        if (memcmp(half_row(a, r), half_row(b, r), (size_t)a.t.cols * 2)) return false;
    return true;
}

#endif
