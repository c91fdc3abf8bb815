/* backend.c - the back end "cuda" (in the emulated build "cuda-emu"): owns the device's memory, its
 * stream, work space, marks, and the table of ops.
 * Refuses: devices that are absent or too old, a missing cuBLASLt unless --batch-invariant.  A
 * device error is latched as the backend's fault and never ends the process; a device that does not
 * answer is one.  Thread: as a backend. */
#include "kernels/backend.h"

#include "base/clock.h"
#include "base/log.h"
#include "kernels/cpu/pool.h"
#include "kernels/cuda/comm_device.h"
#include "kernels/cuda/own.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    KV_BLOCK = 16,
    PATIENCE_S = 60, /* the longest step of a large model is a second or two */
    EMULATED_PATIENCE_S = 900,
    WORK_ROUND = 1 << 20,
    STAGE_THREADS = 8 /* one core copies 10 GB/s, PCIe 5 takes 50 */
};

/* ---- waiting --------------------------------------------------------------------------------- */

static void latch(backend *be)
{
    const char *what = gpu_error(cuda_of(be)->dev);
    if (what) k_fault(be, be->op->name, "%s", what);
}

int cuda_await(backend *be, gpu_event *ev)
{
    enum { SPINS = 200 };
    cuda_own *own = own_of(be);
    int64_t from = 0;
    if (own->hung) return ERR_DEVICE;
    for (int i = 0; !gpu_event_done(ev); i++) {
        if (gpu_error(cuda_of(be)->dev)) break;
        if (i < SPINS) continue; /* what is nearly done is not worth a sleep */
        if (!from) from = clock_us();
        if (clock_us() - from > own->patience_us) {
            own->hung = true;
            k_fault(be, be->op->name, "device %d (%s) has not answered for %lld s",
                    gpu_device(cuda_of(be)->dev), be->device,
                    (long long)(own->patience_us / 1000000));
            return ERR_DEVICE;
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    latch(be);
    return be->fault[0] ? ERR_DEVICE : 0;
}

int cuda_drain(backend *be)
{
    cuda_own *own = own_of(be);
    if (own->hung) return ERR_DEVICE;
    gpu_event_record(own->all, cuda_of(be)->stream);
    return cuda_await(be, own->all);
}

/* ---- memory ---------------------------------------------------------------------------------- */

void *cuda_alloc_raw(backend *be, size_t bytes)
{
    return gpu_malloc(cuda_of(be)->dev, bytes ? bytes : 1);
}

void cuda_free_raw(backend *be, void *p)
{
    if (!p || own_of(be)->hung) return;
    cuda_drain(be);
    gpu_free(cuda_of(be)->dev, p);
}

void *cuda_alloc_pinned(backend *be, size_t bytes)
{
    return gpu_host_alloc(cuda_of(be)->dev, bytes ? bytes : 1);
}

void cuda_free_pinned(backend *be, void *p)
{
    if (!p || own_of(be)->hung) return;
    cuda_drain(be);
    gpu_host_free(cuda_of(be)->dev, p);
}

static void *alloc_zeroed(backend *be, size_t bytes)
{
    void *p = cuda_alloc_raw(be, bytes);
    if (p) gpu_memset_async(p, 0, bytes, cuda_of(be)->stream);
    return p;
}

static void release(backend *be, void *p, size_t bytes)
{
    (void)bytes;
    cuda_free_raw(be, p);
}

static void upload(backend *be, void *dst, const void *src, size_t bytes)
{
    cuda_stage(be, dst, src, bytes);
}

static void download(backend *be, void *dst, const void *src, size_t bytes)
{
    gpu_memcpy_async(dst, src, bytes, cuda_of(be)->stream);
    cuda_drain(be);
}

static uint64_t mem_available(backend *be)
{
    size_t free_bytes = 0, total = 0;
    if (gpu_mem_info(cuda_of(be)->dev, &free_bytes, &total)) latch(be);
    return free_bytes;
}

int cuda_need_work(backend *be, size_t bytes, int n_ticket, err *e)
{
    cuda_state *st = cuda_of(be);
    if (bytes <= st->work_bytes && n_ticket <= st->n_ticket) return 0;
    bytes = (bytes + WORK_ROUND - 1) / WORK_ROUND * WORK_ROUND;
    if (bytes < st->work_bytes) bytes = st->work_bytes;
    if (n_ticket < st->n_ticket) n_ticket = st->n_ticket;
    void *work = cuda_alloc_raw(be, bytes);
    unsigned *ticket = alloc_zeroed(be, (size_t)n_ticket * sizeof *ticket);
    if (!work || !ticket) {
        cuda_free_raw(be, work);
        cuda_free_raw(be, ticket);
        return err_set(e, ERR_NOMEM, "%s: no memory for %zu MiB of work space", be->op->name,
                       bytes >> 20);
    }
    cuda_graphs_drop(be);
    cuda_free_raw(be, st->work);
    cuda_free_raw(be, st->ticket);
    st->work = work;
    st->work_bytes = bytes;
    st->ticket = ticket;
    st->n_ticket = n_ticket;
    return 0;
}

/* ---- samples --------------------------------------------------------------------------------- */

static void collect_until(backend *be, int64_t queued)
{
    cuda_own *own = own_of(be);
    for (; own->collected < queued; own->collected++) cuda_sampler_collect(own->sampler);
}

/* Rows that have arrived go to whoever asked for them. */
static void deliver_until(backend *be, int64_t queued)
{
    cuda_own *own = own_of(be);
    for (; own->fetched < queued; own->fetched++) {
        int i = (int)(own->fetched % SAMPLES_OPEN), cols = own->fetch[i].cols;
        for (int r = 0; r < own->fetch[i].rows; r++)
            memcpy(own->fetch[i].dst + (size_t)r * (size_t)cols,
                   own->fetch[i].pinned + (size_t)r * (size_t)own->fetch[i].ld,
                   (size_t)cols * sizeof(float));
    }
}

static int sync_all(backend *be, err *e)
{
    cuda_own *own = own_of(be);
    if (be->fault[0] || cuda_drain(be)) return err_set(e, ERR_DEVICE, "%s", be->fault);
    collect_until(be, own->queued);
    deliver_until(be, own->fetching);
    return 0;
}

static void fetch(backend *be, float *dst, tensor y)
{
    cuda_own *own = own_of(be);
    if (y.rows == 0 || be->fault[0]) return;
    if (own->fetching - own->fetched == SAMPLES_OPEN && sync_all(be, NULL)) return;
    int i = (int)(own->fetching++ % SAMPLES_OPEN);
    const batch_limits *l = &cuda_of(be)->limits;
    assert(own->fetch[i].pinned && y.rows <= l->max_seqs && y.ld <= (l->hidden + 15) / 16 * 16);
    own->fetch[i].dst = dst;
    own->fetch[i].rows = y.rows;
    own->fetch[i].cols = y.cols;
    own->fetch[i].ld = y.ld;
    size_t n = (size_t)(y.rows - 1) * (size_t)y.ld + (size_t)y.cols;
    gpu_memcpy_async(own->fetch[i].pinned, y.ptr, n * sizeof(float), cuda_of(be)->stream);
    latch(be);
}

static void sample(backend *be, tensor logits, sample_row *rows, int n)
{
    cuda_own *own = own_of(be);
    assert(own->sampler && n <= cuda_of(be)->limits.max_out);
    if (n == 0) return;
    /* Whoever draws more often than twice without asking for results waits for the oldest. */
    if (own->queued - own->collected == SAMPLES_OPEN && sync_all(be, NULL)) return;
    cuda_sampler_queue(be, own->sampler, logits, rows, n);
    own->queued++;
    latch(be);
}

static int mark(backend *be)
{
    cuda_own *own = own_of(be);
    int m = own->n_marks;
    own->n_marks = m == INT32_MAX ? 0 : m + 1;
    gpu_event_record(own->mark[m % MARKS].reached, cuda_of(be)->stream);
    own->mark[m % MARKS].queued = own->queued;
    own->mark[m % MARKS].fetching = own->fetching;
    latch(be);
    return m;
}

static void *drawn(backend *be)
{
    return cuda_of(be)->drawn;
}

/* A place that was taken again by a later mark makes the caller wait for that one: longer, never
 * too short. */
static int wait_mark(backend *be, int m, err *e)
{
    cuda_own *own = own_of(be);
    if (be->fault[0] || cuda_await(be, own->mark[m % MARKS].reached))
        return err_set(e, ERR_DEVICE, "%s", be->fault);
    collect_until(be, own->mark[m % MARKS].queued);
    deliver_until(be, own->mark[m % MARKS].fetching);
    return 0;
}

/* ---- opening --------------------------------------------------------------------------------- */

#define CUDA_OPS                                                                                 \
    .alloc = alloc_zeroed, .release = release, .upload_weight = cuda_upload_weight,              \
    .release_weight = cuda_release_weight, .dummy_weight = cuda_dummy_weight,                    \
    .weight_bytes = cuda_weight_bytes, .kv_block_bytes = cuda_kv_block_bytes, .sync = sync_all,  \
    .upload = upload, .download = download, .batch_reserve = cuda_batch_reserve,                 \
    .batch_upload = cuda_batch_upload, .mem_available = mem_available, .replay = cuda_replay,    \
    .record = cuda_record, .record_end = cuda_record_end, .mark = mark, .wait = wait_mark,       \
    .join = cuda_join, .embed = cuda_embed, .gather_rows = cuda_gather_rows, .pool = cuda_pool,  \
    .fetch = fetch, .linear = cuda_linear, .rms_norm = cuda_rms_norm, .glu = cuda_glu,           \
    .add = cuda_add, .rope_rows = cuda_rope_rows, .rope_store = cuda_rope_store,                 \
    .attn_paged = cuda_attn_paged, .rope_attn = cuda_rope_attn, .norm_linear = cuda_norm_linear, \
    .norm_glu = cuda_norm_glu, .linear_add = cuda_linear_add, .sample = sample, .drawn = drawn
static const backend_ops cuda_ops = {.name = "cuda", CUDA_OPS};
static const backend_ops emulated_ops = {.name = "cuda-emu", CUDA_OPS};

bool cuda_there(char *why, size_t n)
{
    err e = {0};
    if (gpu_count(&e) > 0) return true;
    snprintf(why, n, "%.*s", (int)strcspn(e.msg, ":"), e.msg); /* without what to do about it */
    return false;
}

static int open_device(backend *be, const backend_options *o, err *e)
{
    cuda_state *st = cuda_of(be);
    err why = {0};
    int n = gpu_count(&why);
    if (n <= 0) return err_set(e, ERR_NOTFOUND, "--device %s: %s", o->name, why.msg);
    if (o->device < 0 || o->device >= n)
        return err_set(e, ERR_INVALID, "--device %s:%d: there %s %d device%s, numbered from 0",
                       o->name, o->device, n == 1 ? "is" : "are", n, n == 1 ? "" : "s");
    if (gpu_open(&st->dev, o->device, e))
        return err_prefix(e, "--device %s:%d", o->name, o->device);
    st->info = *gpu_about(st->dev);
    be->op = st->info.emulated ? &emulated_ops : &cuda_ops;
    snprintf(be->isa, sizeof be->isa, "sm_%d", st->info.cc);
    snprintf(be->device, sizeof be->device, "%s", st->info.name);
    return 0;
}

static int open_streams(backend *be, err *e)
{
    cuda_state *st = cuda_of(be);
    cuda_own *own = own_of(be);
    st->stream = gpu_stream_new(st->dev);
    own->all = gpu_event_new(st->dev, false);
    for (int i = 0; i < MARKS; i++) own->mark[i].reached = gpu_event_new(st->dev, false);
    const char *what = gpu_error(st->dev);
    if (what)
        return err_set(e, ERR_DEVICE, "%s device %d: %s", be->op->name, gpu_device(st->dev), what);
    return 0;
}

backend *cuda_open(const backend_options *o, err *e)
{
    backend *be = calloc(1, sizeof *be);
    cuda_state *st = calloc(1, sizeof *st);
    cuda_own *own = calloc(1, sizeof *own);
    if (!be || !st || !own) {
        free(be);
        free(st);
        free(own);
        err_set(e, ERR_NOMEM, "out of memory for the cuda back end");
        return NULL;
    }
    be->state = st;
    st->own = own;
    be->kv_block = KV_BLOCK;
    be->act = ACT_BF16;
    be->invariant = st->invariant = o->batch_invariant;
    be->threads = o->threads ? o->threads : backend_cores();
    if (be->threads > STAGE_THREADS) be->threads = STAGE_THREADS;
    own->no_graphs = o->no_graphs;
    if (open_device(be, o, e)) goto fail;
    own->patience_us = 1000000ll * (st->info.emulated ? EMULATED_PATIENCE_S : PATIENCE_S);
    if (open_streams(be, e) || cuda_stage_open(be, e)) goto fail;
    err why = {0};
    st->gemm = cuda_gemm_open(st->dev, &why);
    if (st->gemm || st->invariant) return be;
    if (e) *e = why;
fail:
    cuda_close(be);
    return NULL;
}

/* A device that hangs would make every call here wait for it: what it holds is left to the end of
 * the process, which follows. */
void cuda_close(backend *be)
{
    if (!be) return;
    cuda_state *st = cuda_of(be);
    cuda_own *own = own_of(be);
    if (st->dev && !own->hung) {
        if (own->all) cuda_drain(be);
        cuda_graphs_drop(be);
        cuda_batch_release(be);
        cuda_stage_close(be);
        cuda_gemm_close(st->gemm);
        gpu_free(st->dev, st->work);
        gpu_free(st->dev, st->ticket);
        for (int i = 0; i < MARKS; i++) gpu_event_free(own->mark[i].reached);
        gpu_event_free(own->all);
        gpu_stream_free(st->stream);
        gpu_close(st->dev);
    }
    pool_free(own->stage.readers);
    free(own);
    free(st);
    free(be);
}
