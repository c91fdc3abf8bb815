/* roofs.cu - what the device gives at best: reading, copying, both directions of the bus, and what
 * lies between two kernels launched one by one, from a recording, and overlapped. */
#include "tests/gpu/bench_rig.h"

__global__ void empty_kernel(int *p)
{
    cu_gdc_wait();
    cu_gdc_launch();
    if (p) *p = 1;
}

static void copies(bench *b)
{
    size_t bytes = b->small ? 1 << 20 : (size_t)1 << 30;
    cuda_state *st = b->st;
    void *x = k_alloc(b->be, bytes), *y = k_alloc(b->be, bytes),
         *h = cuda_alloc_pinned(b->be, bytes);
    if (!x || !y || !h) {
        bench_failed(b, "copies", "out of memory");
    } else {
        memset(h, 1, bytes);
        double n = (double)bytes, ms;
        ms = bench_time(b, [&] { gpu_memcpy_async(y, x, bytes, st->stream); });
        bench_line("copy on the device (read + write)", ms, 2 * n / ms * 1e-6, "GB/s", 0);
        ms = bench_time(b, [&] { gpu_memcpy_async(x, h, bytes, st->stream); });
        bench_line("pinned host to device", ms, n / ms * 1e-6, "GB/s", 0);
        ms = bench_time(b, [&] { gpu_memcpy_async(h, x, bytes, st->stream); });
        bench_line("device to pinned host", ms, n / ms * 1e-6, "GB/s", 0);
    }
    k_free(b->be, x, bytes);
    k_free(b->be, y, bytes);
    cuda_free_pinned(b->be, h);
}

static void gaps(bench *b)
{
    int n = b->small ? 20 : 2000;
    auto go = [&](bool pdl) {
        GPU_LAUNCH(empty_kernel, dim3(1), dim3(32), 0, pdl, b->st->stream, (int *)NULL);
    };
    for (int pdl = 0; pdl < 2; pdl++) {
        const char *how = pdl ? "overlapped" : "in turn";
        char what[80];
        double ms = bench_time(b, [&] {
            for (int i = 0; i < n; i++) go(pdl);
        });
        snprintf(what, sizeof what, "an empty kernel, launched, %s", how);
        bench_line(what, ms, ms / n * 1e3, "us each", 0);
        ms = bench_calls(b, n, [&](int) { go(pdl); });
        snprintf(what, sizeof what, "an empty kernel, recorded, %s", how);
        bench_line(what, ms * n, ms * 1e3, "us each", 0);
    }
}

int main(void)
{
    bench b = bench_open("roofs");
    bench_line("read", 0, b.read * 1e-9, "GB/s", 0);
    copies(&b);
    gaps(&b);
    return bench_close(&b);
}
