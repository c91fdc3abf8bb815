/* test_gpu.cu - the runtime layer: order of streams and events, graphs and forks in them, several
 * handles and devices at once, what happens after an error.  Kernels here are trivial. */
#include "tests/cuda/rig.h"

#include <chrono>
#include <pthread.h>
#include <unistd.h>

__global__ void axpy_kernel(float *y, const float *x, float a, int n)
{
    cu_gdc_wait();
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) y[i] += a * x[i];
}
__global__ void scale_kernel(float *y, float a, int n)
{
    cu_gdc_wait();
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) y[i] *= a;
}
/* Takes a while, so that what should wait for it can go wrong. */
__global__ void slow_fill_kernel(int *y, int v, int n)
{
    CU_SHARED(int, box, [128]);
    for (int k = 0; k < 20; k++) {
        box[threadIdx.x] = v;
        __syncthreads();
    }
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) y[i] = box[threadIdx.x];
}
static void count(void *p)
{
    ++*(int *)p;
}

enum { N = 1000 };
static const dim3 GRID(8), BLOCK(128);

/* ---- streams and events ------------------------------------------------------------------------
 */

START_TEST(two_streams)
{
    gpu_stream *a = rig_stream, *b = gpu_stream_new(rig_dev);
    gpu_event *e = gpu_event_new(rig_dev, false), *f = gpu_event_new(rig_dev, false);
    rig_buf<float> x(N), y(N);
    int calls = 0;
    ck_assert(gpu_of(b) == rig_dev && gpu_event_done(e));
    for (int i = 0; i < N; i++) x[i] = (float)i;
    for (int rep = 0; rep < 20; rep++) {
        float c = (float)rep;
        x.up();
        gpu_memset_async(y.d, 0, N * sizeof(float), a);
        gpu_event_record(e, a);
        gpu_stream_wait(b, e);
        GPU_LAUNCH(axpy_kernel, GRID, BLOCK, 0, false, b, y.d, (const float *)x.d, c, (int)N);
        c = 99; /* arguments were taken at the launch */
        GPU_LAUNCH(scale_kernel, GRID, BLOCK, 0, true, b, y.d, 2.f, (int)N);
        gpu_event_record(f, b);
        gpu_stream_wait(a, f);
        gpu_host_fn(a, count, &calls);
        y.down();
        ck_assert_int_eq(gpu_event_sync(f), 0);
        ck_assert(gpu_event_done(f));
        for (int i = 0; i < N; i++) ck_assert(y[i] == 2.f * (float)rep * (float)i);
    }
    ck_assert_int_eq(calls, 20);
    gpu_event_free(e);
    gpu_event_free(f);
    gpu_stream_free(b);
}
END_TEST

/* A wait means the last record before it, not one that comes later. */
START_TEST(wait_takes_the_record)
{
    gpu_stream *b = gpu_stream_new(rig_dev);
    gpu_event *e = gpu_event_new(rig_dev, false);
    rig_buf<int> v(64);
    for (int rep = 1; rep <= 30; rep++) {
        GPU_LAUNCH(slow_fill_kernel, dim3(1), BLOCK, 0, false, rig_stream, v.d, rep, 64);
        gpu_event_record(e, rig_stream);
        gpu_stream_wait(b, e);
        gpu_memcpy_async(v.h, v.d, 64 * sizeof(int), b);
        gpu_event_record(e, b); /* the next fill comes after the copy */
        gpu_stream_wait(rig_stream, e);
        ck_assert_int_eq(gpu_event_sync(e), 0);
        for (int i = 0; i < 64; i++) ck_assert_int_eq(v[(size_t)i], rep);
    }
    gpu_event_free(e);
    gpu_stream_free(b);
}
END_TEST

START_TEST(timed_events)
{
    gpu_event *e = gpu_event_new(rig_dev, true), *f = gpu_event_new(rig_dev, true);
    rig_buf<int> v(64);
    auto from = std::chrono::steady_clock::now();
    gpu_event_record(e, rig_stream);
    for (int i = 0; i < 50; i++)
        GPU_LAUNCH(slow_fill_kernel, dim3(1), BLOCK, 0, false, rig_stream, v.d, i, 64);
    gpu_event_record(f, rig_stream);
    gpu_event_sync(f);
    std::chrono::duration<float, std::milli> host = std::chrono::steady_clock::now() - from;
    float ms = gpu_event_ms(e, f);
    ck_assert(ms > 0 && ms < 1.01f * host.count() + 1); /* of two clocks */
    gpu_event_free(e);
    gpu_event_free(f);
}
END_TEST

/* ---- graphs ------------------------------------------------------------------------------------
 */

typedef struct {
    gpu_stream *b;
    gpu_event *fork, *join;
} forked;

/* y = 3 x on a second stream, while z = 7 on this one. */
static void queue_fork(forked *k, rig_buf<float> &x, rig_buf<float> &y, rig_buf<int> &z)
{
    x.up();
    gpu_memset_async(y.d, 0, N * sizeof(float), rig_stream);
    gpu_event_record(k->fork, rig_stream);
    gpu_stream_wait(k->b, k->fork);
    GPU_LAUNCH(axpy_kernel, GRID, BLOCK, 0, true, k->b, y.d, (const float *)x.d, 1.f, (int)N);
    GPU_LAUNCH(scale_kernel, GRID, BLOCK, 0, true, k->b, y.d, 3.f, (int)N);
    GPU_LAUNCH(slow_fill_kernel, dim3(1), BLOCK, 0, false, rig_stream, z.d, 7, 64);
    gpu_event_record(k->join, k->b);
    gpu_stream_wait(rig_stream, k->join);
    gpu_memcpy_async(y.h, y.d, N * sizeof(float), rig_stream);
    gpu_memcpy_async(z.h, z.d, 64 * sizeof(int), rig_stream);
}

START_TEST(graph_with_fork)
{
    forked k = {gpu_stream_new(rig_dev), gpu_event_new(rig_dev, false),
                gpu_event_new(rig_dev, false)};
    rig_buf<float> x(N), y(N);
    rig_buf<int> z(64);
    gpu_capture_begin(rig_stream);
    queue_fork(&k, x, y, z);
    gpu_graph *g = gpu_capture_end(rig_stream);
    ck_assert(g);
    ck_assert(y[5] == 0 && z[5] == 0); /* recorded, not run */
    for (int rep = 0; rep < 5; rep++) {
        for (int i = 0; i < N; i++) x[i] = (float)(i + rep); /* read at each launch */
        memset(y.h, 0, N * sizeof(float));
        gpu_graph_launch(g, rig_stream);
        rig_sync();
        for (int i = 0; i < N; i++) ck_assert(y[i] == 3.f * (float)(i + rep));
        ck_assert(z[0] == 7 && z[63] == 7);
    }
    /* Both streams are free again. */
    queue_fork(&k, x, y, z);
    rig_sync();
    gpu_graph_free(g);
    gpu_stream_free(k.b);
    gpu_event_free(k.fork);
    gpu_event_free(k.join);
}
END_TEST

/* Two launches of a graph and plain work run in the order queued. */
START_TEST(graphs_in_order)
{
    rig_buf<float> x(N), y(N);
    for (int i = 0; i < N; i++) {
        x[i] = (float)i;
        y[i] = 1;
    }
    x.up();
    y.up();
    gpu_capture_begin(rig_stream);
    GPU_LAUNCH(axpy_kernel, GRID, BLOCK, 0, true, rig_stream, y.d, (const float *)x.d, 1.f, (int)N);
    GPU_LAUNCH(scale_kernel, GRID, BLOCK, 0, true, rig_stream, y.d, 2.f, (int)N);
    gpu_graph *g = gpu_capture_end(rig_stream);
    gpu_graph_launch(g, rig_stream);
    GPU_LAUNCH(scale_kernel, GRID, BLOCK, 0, true, rig_stream, y.d, 10.f, (int)N);
    gpu_graph_launch(g, rig_stream);
    y.down();
    for (int i = 0; i < N; i++) ck_assert(y[i] == 2.f * ((float)i + 10.f * (2.f * ((float)i + 1))));
    gpu_graph_free(g);
}
END_TEST

/* One thread records while another works on the same device. */
typedef struct {
    int ok, rounds;
} busy_job;
static void *busy_main(void *p)
{
    busy_job *j = (busy_job *)p;
    gpu_stream *s = gpu_stream_new(rig_dev);
    for (int rep = 0; rep < j->rounds; rep++) {
        int *d = (int *)gpu_malloc(rig_dev, 256), *h = (int *)gpu_host_alloc(rig_dev, 256);
        GPU_LAUNCH(slow_fill_kernel, dim3(1), BLOCK, 0, false, s, d, rep, 64);
        gpu_memcpy_async(h, d, 256, s);
        if (!gpu_stream_sync(s) && h[0] == rep && h[63] == rep) j->ok++;
        gpu_free(rig_dev, d);
        gpu_host_free(rig_dev, h);
    }
    gpu_stream_free(s);
    return NULL;
}

START_TEST(others_work_during_capture)
{
    rig_buf<float> y(N);
    busy_job j = {0, 30};
    pthread_t t;
    y.up();
    gpu_capture_begin(rig_stream);
    ck_assert_int_eq(pthread_create(&t, NULL, busy_main, &j), 0);
    for (int i = 0; i < 10; i++)
        GPU_LAUNCH(scale_kernel, GRID, BLOCK, 0, true, rig_stream, y.d, 2.f, (int)N);
    pthread_join(t, NULL);
    gpu_graph *g = gpu_capture_end(rig_stream);
    ck_assert(g && j.ok == 30);
    gpu_graph_free(g);
    rig_sync();
}
END_TEST

/* ---- devices and handles ------------------------------------------------------------------------
 */

typedef struct {
    int device, ok;
} rank_job;
static void *rank_main(void *p)
{
    rank_job *j = (rank_job *)p;
    gpu *g;
    if (gpu_open(&g, j->device, NULL)) return NULL;
    gpu_stream *s = gpu_stream_new(g);
    int *d = (int *)gpu_malloc(g, 4096), *h = (int *)gpu_host_alloc(g, 4096), fine = 0;
    for (int rep = 0; rep < 50; rep++) {
        GPU_LAUNCH(slow_fill_kernel, dim3(1), BLOCK, 0, false, s, d, rep + j->device, 1024);
        gpu_memcpy_async(h, d, 4096, s);
        if (!gpu_stream_sync(s) && h[1023] == rep + j->device) fine++;
    }
    j->ok = fine == 50 && gpu_device(g) == j->device;
    gpu_free(g, d);
    gpu_host_free(g, h);
    gpu_stream_free(s);
    gpu_close(g);
    return NULL;
}

START_TEST(ranks_side_by_side)
{
    int n = gpu_count(NULL);
    rank_job j[3] = {{0, 0}, {n > 1 ? 1 : 0, 0}, {0, 0}}; /* two ranks on one device, one beside */
    pthread_t t[3];
    for (int i = 0; i < 3; i++) ck_assert_int_eq(pthread_create(&t[i], NULL, rank_main, &j[i]), 0);
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < 3; i++) ck_assert(j[i].ok);
}
END_TEST

START_TEST(devices)
{
    err e;
    gpu *g;
    int n = gpu_count(&e);
    ck_assert_int_ge(n, 1);
    ck_assert_int_eq(gpu_open(&g, n, &e), ERR_NOTFOUND);
    ck_assert(g == NULL && strstr(e.msg, "numbered from 0"));
    ck_assert_int_eq(gpu_open(&g, -1, &e), ERR_NOTFOUND);
    const gpu_info *i = gpu_about(rig_dev);
    ck_assert(i->name[0] && i->sms > 0 && i->cc >= 80 && i->smem_block >= 48 * 1024);
    if (!i->emulated) return;
    setenv("EMU_DEVICES", "0", 1);
    ck_assert_int_eq(gpu_open(&g, 0, &e), ERR_NOTFOUND);
    ck_assert(strstr(e.msg, "EMU_DEVICES"));
}
END_TEST

START_TEST(memory)
{
    size_t total, before, during, after;
    ck_assert_int_eq(gpu_mem_info(rig_dev, &before, &total), 0);
    ck_assert(before <= total && total == gpu_about(rig_dev)->mem_total);
    void *p = gpu_malloc(rig_dev, 64 << 20);
    ck_assert(p && (uintptr_t)p % 256 == 0);
    gpu_mem_info(rig_dev, &during, &total);
    ck_assert(during < before);
    gpu_free(rig_dev, p);
    gpu_mem_info(rig_dev, &after, &total);
    ck_assert(after > during);
    /* Out of memory is an answer, not an error. */
    ck_assert(!gpu_malloc(rig_dev, total + 1) && !gpu_malloc(rig_dev, SIZE_MAX));
    ck_assert(!gpu_malloc(rig_dev, 0) && !gpu_error(rig_dev));
    gpu_free(rig_dev, NULL);
    gpu_host_free(rig_dev, NULL);
    rig_sync();
}
END_TEST

/* ---- errors -------------------------------------------------------------------------------------
 */

/* The first error stays; what comes after does nothing; another handle goes on. */
static void check_latched(const char *words)
{
    int *h = (int *)calloc(64, sizeof(int));
    ck_assert(gpu_error(rig_dev) && strstr(gpu_error(rig_dev), words));
    ck_assert_int_eq(gpu_stream_sync(rig_stream), ERR_DEVICE);
    gpu_fail(rig_dev, "later", "dropped");
    ck_assert(strstr(gpu_error(rig_dev), words));
    ck_assert(!gpu_malloc(rig_dev, 256) && !gpu_stream_new(rig_dev) &&
              !gpu_event_new(rig_dev, false));
    gpu_memset_async(h, 1, 256, rig_stream);
    gpu_stream_sync(rig_stream);
    ck_assert_int_eq(h[0], 0);
    free(h);
    rank_job j = {0, 0};
    rank_main(&j);
    ck_assert(j.ok);
}

START_TEST(fork_not_joined)
{
    gpu_stream *b = gpu_stream_new(rig_dev);
    gpu_event *e = gpu_event_new(rig_dev, false);
    rig_buf<int> v(64);
    gpu_capture_begin(rig_stream);
    gpu_event_record(e, rig_stream);
    gpu_stream_wait(b, e);
    gpu_memset_async(v.d, 0, 256, b);
    ck_assert(!gpu_capture_end(rig_stream));
    check_latched("apture");
    gpu_event_free(e);
    gpu_stream_free(b);
}
END_TEST

/* Joined once, but work was added to the branch afterwards. */
START_TEST(fork_joined_too_early)
{
    gpu_stream *b = gpu_stream_new(rig_dev);
    gpu_event *e = gpu_event_new(rig_dev, false), *f = gpu_event_new(rig_dev, false);
    rig_buf<int> v(64);
    gpu_capture_begin(rig_stream);
    gpu_event_record(e, rig_stream);
    gpu_stream_wait(b, e);
    gpu_memset_async(v.d, 0, 256, b);
    gpu_event_record(f, b);
    gpu_memset_async(v.d, 1, 256, b);
    gpu_stream_wait(rig_stream, f);
    ck_assert(!gpu_capture_end(rig_stream));
    check_latched("apture");
    gpu_event_free(e);
    gpu_event_free(f);
    gpu_stream_free(b);
}
END_TEST

START_TEST(wait_inside_capture)
{
    gpu_capture_begin(rig_stream);
    ck_assert_int_eq(gpu_stream_sync(rig_stream), ERR_DEVICE);
    ck_assert(!gpu_capture_end(rig_stream));
    check_latched("");
}
END_TEST

START_TEST(end_without_begin)
{
    ck_assert(!gpu_capture_end(rig_stream));
    check_latched("gpu_capture_end");
}
END_TEST

START_TEST(impossible_launch)
{
    rig_buf<float> y(N);
    GPU_LAUNCH(scale_kernel, dim3(1), dim3(2048), 0, false, rig_stream, y.d, 1.f, (int)N);
    check_latched("scale_kernel");
}
END_TEST

START_TEST(too_much_shared_memory)
{
    rig_buf<float> y(N);
    GPU_LAUNCH(scale_kernel, GRID, BLOCK, 1 << 20, false, rig_stream, y.d, 1.f, (int)N);
    check_latched("scale_kernel");
}
END_TEST

/* All the shared memory a block may have, twice: the limit is raised on first use. */
START_TEST(most_shared_memory)
{
    rig_buf<float> y(N);
    y.up();
    for (int i = 0; i < 2; i++)
        GPU_LAUNCH(scale_kernel, GRID, BLOCK, (size_t)gpu_about(rig_dev)->smem_block, false,
                   rig_stream, y.d, 1.f, (int)N);
    rig_sync();
}
END_TEST

/* A fault on the device: whoever waits for events is let go, the message names the kernel. */
START_TEST(device_fault)
{
    if (!gpu_about(rig_dev)->emulated) return; /* a real one would end the context for good */
    gpu_event *e = gpu_event_new(rig_dev, false);
    rig_buf<float> y(N);
    setenv("EMU_FAULT", "scale_kernel:3", 1);
    for (int i = 0; i < 5; i++)
        GPU_LAUNCH(scale_kernel, GRID, BLOCK, 0, false, rig_stream, y.d, 1.f, (int)N);
    gpu_event_record(e, rig_stream);
    ck_assert_int_eq(gpu_event_sync(e), ERR_DEVICE);
    ck_assert(gpu_event_done(e));
    unsetenv("EMU_FAULT");
    check_latched("scale_kernel: fault");
    gpu_event_free(e);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gpu");
    TCase *tc = tcase_create("runtime");
    tcase_add_checked_fixture(tc, rig_open, rig_close);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, two_streams);
    tcase_add_test(tc, wait_takes_the_record);
    tcase_add_test(tc, timed_events);
    tcase_add_test(tc, graph_with_fork);
    tcase_add_test(tc, graphs_in_order);
    tcase_add_test(tc, others_work_during_capture);
    tcase_add_test(tc, ranks_side_by_side);
    tcase_add_test(tc, memory);
    tcase_add_test(tc, fork_not_joined);
    tcase_add_test(tc, fork_joined_too_early);
    tcase_add_test(tc, wait_inside_capture);
    tcase_add_test(tc, end_without_begin);
    tcase_add_test(tc, impossible_launch);
    tcase_add_test(tc, too_much_shared_memory);
    tcase_add_test(tc, most_shared_memory);
    tcase_add_test(tc, device_fault);
    tcase_add_test(tc, devices);
    suite_add_tcase(s, tc);
    return rig_run(s);
}
