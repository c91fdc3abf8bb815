/* emu_fibre.h - stacks that CUDA threads run on, and how to go from one to another.
 * Owns the stacks of an OS thread; each ends at a page that cannot be touched.  Tells the address
 * and thread sanitizers.  Thread: the OS thread's own. */
#ifndef QUERN_KERNELS_CUDA_EMU_FIBRE_H
#define QUERN_KERNELS_CUDA_EMU_FIBRE_H

#include "kernels/cuda/emu_run.h"

#if EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if EMU_UCONTEXT
#include <ucontext.h>
#endif

namespace emu
{

struct fibre {
    void *sp;
    char *stack; /* [STACK_BYTES] above a guard page */
    size_t bytes;
#if EMU_UCONTEXT
    ucontext_t context;
#endif
    void *fake; /* the address sanitizer's */
    void *tsan; /* the thread sanitizer's */
};

struct fibres {
    fibre base; /* the OS thread's own stack */
    fibre *running;
    std::vector<fibre *> all, idle;
    std::vector<fibre *>
        spent; /* thread sanitizer: those whose thread has returned in this block */
    void *signal_stack = nullptr; /* faults are reported even where a stack overflows */
    fibres();
    ~fibres();
};

/* An idle fibre, or a new one, which begins in fibre_main. */
fibre *fibre_take(fibres *set);
/* Sees to n idle ones. */
void fibre_reserve(fibres *set, size_t n);
/* What every fibre runs; first thing it does is fibre_entered. */
void fibre_main();
void fibre_entered(fibres *set);

#if !EMU_UCONTEXT
extern "C" void emu_switch_stack(void **save, void *to);
#endif

/* Returns when somebody goes back to the fibre that calls. */
static inline void fibre_switch(fibres *set, fibre *to)
{
    fibre *from;
    void *sp, *tsan;
    {
        unseen u;
        from = set->running;
        set->running = to;
        sp = to->sp;
        tsan = to->tsan;
    }
    (void)sp;
    (void)tsan;
#if EMU_ASAN
    __sanitizer_start_switch_fiber(&from->fake, to->stack, to->bytes);
#endif
#if EMU_TSAN
    __tsan_switch_to_fiber(tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if EMU_UCONTEXT
    if (swapcontext(&from->context, &to->context)) abort();
#else
    emu_switch_stack(&from->sp, sp);
#endif
#if EMU_ASAN
    __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}

} // namespace emu

#endif
