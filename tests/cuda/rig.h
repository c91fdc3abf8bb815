/* rig.h - for tests of kernels: one device, one stream, buffers that go there and back.
 * The same test runs on the emulator and on a GPU (then with CK_FORK=no, since a process that has
 * used CUDA cannot fork).  Without a device it says so and ends with 77.
 * Owns the device until rig_close.  Thread: the test's. */
#ifndef QUERN_TESTS_CUDA_RIG_H
#define QUERN_TESTS_CUDA_RIG_H

#include "kernels/cuda/gpu.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <vector>

static gpu *rig_dev;
static gpu_stream *rig_stream;

static inline void rig_open(void)
{
    err e;
    if (gpu_open(&rig_dev, 0, &e)) {
        printf("skipped: %s\n", e.msg);
        exit(77);
    }
    rig_stream = gpu_stream_new(rig_dev);
}
static inline void rig_close(void)
{
    gpu_stream_free(rig_stream);
    gpu_close(rig_dev);
}
/* Waits; a device error fails the test. */
static inline void rig_sync(void)
{
    gpu_stream_sync(rig_stream);
    const char *words = gpu_error(rig_dev);
    ck_assert_msg(!words, "%s", words);
}

/* n elements on the device, with a copy on the host. */
template <class T> struct rig_buf {
    T *d;
    T *h;
    size_t n;
    explicit rig_buf(size_t n_) : n(n_)
    {
        d = (T *)gpu_malloc(rig_dev, n * sizeof(T));
        h = (T *)gpu_host_alloc(rig_dev, n * sizeof(T));
        ck_assert(d && h);
        memset((void *)h, 0, n * sizeof(T));
    }
    ~rig_buf()
    {
        gpu_free(rig_dev, d);
        gpu_host_free(rig_dev, h);
    }
    rig_buf(const rig_buf &) = delete;
    rig_buf &operator=(const rig_buf &) = delete;
    T &operator[](size_t i)
    {
        return h[i];
    }
    void up(void)
    {
        gpu_memcpy_async(d, h, n * sizeof(T), rig_stream);
    }
    void down(void)
    {
        gpu_memcpy_async(h, d, n * sizeof(T), rig_stream);
        rig_sync();
    }
};

/* Reproducible noise. */
static uint64_t rig_state = 9;
static inline uint32_t rig_u32(void)
{
    rig_state = rig_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(rig_state >> 32);
}
/* In [-1, 1). */
static inline float rig_f32(void)
{
    return (float)((int32_t)rig_u32() >> 8) / 8388608.0f;
}

/* Runs the suite and returns what main returns. */
static inline int rig_run(Suite *s)
{
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

#endif
