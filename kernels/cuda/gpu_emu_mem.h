/* gpu_emu_mem.h - memory of emulated devices, laid out so that strays are caught: a buffer ends at
 * a page that cannot be touched, known bytes lie around it, freed buffers cannot be touched any
 * more. Owns all buffers.  Refuses (aborts) strays, double frees.  Thread: any. */
#ifndef QUERN_KERNELS_CUDA_GPU_EMU_MEM_H
#define QUERN_KERNELS_CUDA_GPU_EMU_MEM_H

#include <stddef.h>

enum { EMU_HOST = -1 }; /* the "device" of pinned host memory, which has no limit */

/* Bytes of a device: EMU_MEM MiB, default 512. */
size_t emu_mem_total(void);
size_t emu_mem_used(int device);
/* 256-byte aligned, all bytes 0xff (NaN in every float type).  NULL: the device is full. */
void *emu_mem_alloc(int device, size_t n);
void emu_mem_free(int device, void *p);
/* Aborts if anything was written beside a buffer. */
void emu_mem_check(void);

#endif
