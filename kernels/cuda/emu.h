/* emu.h - the emulator: runs kernel source on the CPU, every CUDA thread a fibre.
 *
 * A block runs on one OS thread; its threads take turns, switching only where they must wait for
 * each other (or, under EMU_SEED, at random places).  Blocks of a grid are dealt to a pool.  Shared
 * memory is poisoned when a block starts and checked for strays when it ends.  Misuse that a GPU
 * would punish with wrong numbers or a hang ends the process with a message that names kernel,
 * block and thread: this is a test build.
 *
 * Owns the state of running blocks.  Refuses (aborts): divergent barriers, lanes outside their
 * mask, unaligned vector accesses, copies that collide or are never waited for, stores past shared
 * memory.  Kernels see only what portable.cuh lists.  Thread: one block per OS thread. */
#ifndef QUERN_KERNELS_CUDA_EMU_H
#define QUERN_KERNELS_CUDA_EMU_H

#include "kernels/cuda/emu_race.h"
#include "kernels/cuda/emu_types.h"

#include <stdio.h>
#include <stdlib.h>
#include <tuple>
#include <vector>

/* What the kernel source says, in this compiler's words. */
#define __global__ static
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define warpSize 32

namespace emu
{

enum { WARP = 32, MAX_THREADS = 1024, NAMED_BARRIERS = 16 };
enum { SHARED_LIMIT = 227 * 1024, STATIC_LIMIT = 48 * 1024, DYN_ALIGN = 1024 };

struct block;
struct fibre;
struct warp;

/* What a lane brings to a warp-wide operation, and where it finds its result. */
struct slot {
    union {
        uint64_t u64;
        uint32_t r[8];
        float f[8];
        int i[8];
        const void *p;
    };
    int src;
};
/* Carried out once, by the lane that arrives last, for the lanes of `active`. */
typedef void (*warp_op)(warp &w, unsigned active);

/* Lanes that wait for each other. */
struct meeting {
    unsigned mask, arrived;
    warp_op op;
};

struct warp {
    unsigned lanes;  /* that exist */
    unsigned exited; /* that do not, or no longer */
    unsigned ready;  /* that could run now */
    int n_meetings;
    meeting meetings[WARP];
    slot slots[WARP];
    const char *rows[WARP]; /* of the last ldmatrix */
};

struct copy { /* cp.async under way */
    void *dst;
    const void *src; /* NULL: zeros */
    unsigned bytes, group;
};
/* An mbarrier, in the 8 bytes it has on the device. */
struct mbar {
    int16_t want, pending; /* arrivals of a phase, and those still missing */
    int32_t tx : 24;       /* bytes announced and not yet arrived */
    uint32_t phase : 1;
    uint32_t magic : 7; /* MBAR_MAGIC once initialised */
};
enum { MBAR_MAGIC = 0x2a };
/* A bulk or tensor copy under way: `rows` rows of `pitch` bytes go to shared memory. */
struct bulk {
    mbar *bar;
    char *dst;
    bool swizzle; /* 128-byte rows, 16-byte pieces exchanged as the tensor copy does */
    std::vector<char> data;
};
struct wgmma {
    float *d;
    uint64_t a, b;
    unsigned group;
    int n;
};

enum thread_state { READY, AT_WARP, AT_BLOCK, AT_BARRIER, AT_MBAR, AT_GDC, EXITED };

struct thread {
    fibre *fib; /* NULL until it first runs */
    thread_state state;
    unsigned char lane, warp;
    bool async; /* has issued copies or products since it started */
    uint3 tid;
    int barrier_id;                 /* AT_BARRIER */
    const mbar *bar;                /* AT_MBAR */
    unsigned copy_group, mma_group; /* groups committed */
    std::vector<copy> copies;
    std::vector<wgmma> wgmmas;
};

struct barrier { /* named */
    int arrived, want;
    std::vector<thread *> waiting;
};

struct launch_spec {
    const char *name;
    dim3 grid, block;
    size_t smem;
    bool pdl; /* every block must call cu_gdc_wait */
};

/* The block that runs on this OS thread. */
struct block {
    thread *cur;
    struct fibres *fibres;
    struct shared_memory *shared;
    dim3 grid, dim;
    uint3 bid;
    launch_spec spec;
    void (*entry)(void *);
    void *arg;
    int n, n_warps, live;
    int at_block;   /* threads at __syncthreads */
    unsigned round; /* of them */
    bool gdc_waited;
    bool early; /* started before its predecessor: threads stop at cu_gdc_wait */
    int at_gdc; /* that have */
    unsigned ready_warps;
    int cur_warp;
    uint64_t rng;        /* 0: fixed order */
    unsigned held_warps; /* EMU_SEED: held back for a while */
    char *dyn;           /* dynamic shared memory, DYN_ALIGN-aligned */
    barrier named[NAMED_BARRIERS];
    std::vector<thread *> at_mbar;
    std::vector<bulk> bulks;
    thread threads[MAX_THREADS];
    warp warps[MAX_THREADS / WARP];
};

extern __thread block *blk; /* of this OS thread; no constructor, so a plain load */

static inline thread *self()
{
    return blk->cur;
}
static inline warp &my_warp()
{
    return blk->warps[blk->cur->warp];
}

/* Ends the process: "emu: kernel K, block (x,y,z), thread (x,y,z): what". */
[[noreturn]] void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Runs somebody else; returns when this thread, no longer READY, was woken. */
void wait_here();
/* EMU_SEED: lets somebody else run, now and then. */
void preempt();
static inline void maybe_preempt()
{
    if (__builtin_expect(blk->rng != 0, 0)) preempt();
}
void wake(thread *t);

/* Meets the lanes of mask; the last one carries out op (may be NULL). */
void meet(unsigned mask, warp_op op);
void sync_block();
void sync_named(int id, int n, bool wait);
void gdc_wait();
/* n arrivals, after tx more bytes were announced. */
void mbar_arrive(mbar *bar, int n, int tx);
void mbar_wait(mbar *bar, int parity);

/* Shared variable of this block for a use site; poisoned the first time. */
void *shared_var(const void *site, size_t bytes, size_t align, const char *name);

/* A grid of which one block has begun, as far as cu_gdc_wait lets it. */
struct early_grid;
/* Begins a grid launched with pdl, while its predecessor has yet to run.  entry and arg stay valid
 * until launch, which the same thread must call; one grid at a time may be waiting for it. */
early_grid *begin_early(const launch_spec &spec, void (*entry)(void *), void *arg);
/* Runs the grid and returns when it is done. */
void launch(const launch_spec &spec, void (*entry)(void *), void *arg, early_grid *begun = nullptr);
template <class F> static inline void launch_fn(const launch_spec &spec, F &fn)
{
    launch(
        spec, [](void *p) { (*(F *)p)(); }, (void *)&fn);
}

/* Random order from here on (0: fixed order).  Starts as EMU_SEED says. */
void set_seed(uint64_t seed);
uint64_t seed();
static inline uint64_t next_random(uint64_t &state)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return state >> 33;
}
int env_int(const char *name, int fallback, int low, int high);

static inline void check_aligned(const void *p, size_t n, const char *what)
{
    if (__builtin_expect(((uintptr_t)p & (n - 1)) != 0, 0))
        die("%s: address %p is not %zu-byte aligned", what, p, n);
}

} // namespace emu

#define threadIdx (emu::blk->cur->tid)
#define blockIdx (emu::blk->bid)
#define blockDim (emu::blk->dim)
#define gridDim (emu::blk->grid)

#define CU_DYN_SMEM(T, name) T *name = (T *)emu::blk->dyn
#define CU_SHARED(T, name, ...)                            \
    static const char name##_site_ = 0;                    \
    typedef T name##_type_ __VA_ARGS__;                    \
    name##_type_ &name = *(name##_type_ *)emu::shared_var( \
        &name##_site_, sizeof(name##_type_),               \
        alignof(name##_type_) > 16 ? alignof(name##_type_) : 16, #name)

#define CU_LAUNCH(k, grid, block, smem, stream, ...)                            \
    do {                                                                        \
        (void)(stream);                                                         \
        auto launch_body_ = [&] { k(__VA_ARGS__); };                            \
        emu::launch_fn({#k, grid, block, (size_t)(smem), false}, launch_body_); \
    } while (0)

#endif
