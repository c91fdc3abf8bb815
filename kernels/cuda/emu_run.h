/* emu_run.h - between the files of the emulator: how a block is run, and its shared memory.
 * Thread: the one that runs the block. */
#ifndef QUERN_KERNELS_CUDA_EMU_RUN_H
#define QUERN_KERNELS_CUDA_EMU_RUN_H

#include "kernels/cuda/emu.h"

/* Fibres switch by a few instructions on x86-64, by ucontext elsewhere (or on demand). */
#ifndef EMU_UCONTEXT
#ifdef __x86_64__
#define EMU_UCONTEXT 0
#else
#define EMU_UCONTEXT 1
#endif
#endif

namespace emu
{

void block_begin_grid(block *b, const launch_spec &s, void (*entry)(void *), void *arg);
/* Runs one block of the grid; early: until all its threads wait for the predecessor, or for those
 * that do.  True if the block is done, else block_resume ends it. */
bool block_run(block *b, uint3 bid, uint64_t rng, bool early);
void block_resume(block *b);

/* Memory faults end the process with a message; fn (may be NULL) knows some addresses. */
void describe_faults(bool (*fn)(const void *p, char *out, size_t n));

/* Shared memory of blk: fresh, full of NaN; and the check that nothing was written beside it. */
void shared_poison();
void shared_check();

} // namespace emu

#endif
