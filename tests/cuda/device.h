/* device.h - for tests of the CUDA back end: the name it has in this build, "cuda" where it was
 * built for devices and "cuda-emu" where it was built for the emulator, and the end of a test that
 * finds no device (77, "skipped").  Tests only. */
#ifndef QUERN_TESTS_CUDA_DEVICE_H
#define QUERN_TESTS_CUDA_DEVICE_H

#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>

#if defined(HAVE_CUDA) || defined(__CUDACC__)
#define DEVICE "cuda"
enum { EMULATED = 0 };
#else
#define DEVICE "cuda-emu"
enum { EMULATED = 1 };
#endif

/* Devices there are to test on: of the emulator's four, or of the machine's. */
static inline int devices_or_skip(int (*count)(err *e))
{
    static err e;
    int n = count(&e);
    if (n > 0) return n;
    printf("skipped: %s\n", e.msg);
    exit(77);
}

#endif
