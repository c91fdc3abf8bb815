/* stage.c - owns the pinned buffers through which host memory reaches the device.  While one buffer
 * is on its way, several threads fill the next from the mapped file (a page that is not there yet
 * costs a read: many threads keep many reads going), and the stream goes on with the kernels that
 * repack what came before.
 * Refuses: buffers that cannot be pinned.  Thread: the rank's; its readers only copy. */
#include "kernels/cpu/pool.h"
#include "kernels/cuda/own.h"

#include <string.h>

enum {
    BUF_BYTES = 16 << 20,
    SLICE_BYTES = 256 << 10, /* what a reader takes at once */
    SHARED_BYTES = 1 << 20   /* below it one thread copies faster than several start */
};

int cuda_stage_open(backend *be, err *e)
{
    stage *s = &own_of(be)->stage;
    for (int i = 0; i < STAGE_BUFS; i++) {
        s->buf[i] = cuda_alloc_pinned(be, BUF_BYTES);
        s->copied[i] = gpu_event_new(cuda_of(be)->dev, false);
        if (!s->buf[i] || !s->copied[i])
            return err_set(e, ERR_NOMEM,
                           "%s: cannot pin %d MiB of host memory for copies to the device: raise "
                           "the limit of locked memory (ulimit -l) or free memory",
                           be->op->name, STAGE_BUFS * (BUF_BYTES >> 20));
    }
    return 0;
}

void cuda_stage_close(backend *be)
{
    stage *s = &own_of(be)->stage;
    for (int i = 0; i < STAGE_BUFS; i++) {
        cuda_free_pinned(be, s->buf[i]);
        gpu_event_free(s->copied[i]);
        s->buf[i] = NULL;
        s->copied[i] = NULL;
    }
}

typedef struct {
    pool_queue queue;
    char *to;
    const char *from;
    size_t bytes;
} copy_job;

static void copy_slices(void *arg, int id, int n)
{
    copy_job *j = arg;
    (void)id, (void)n;
    int slices = (int)((j->bytes + SLICE_BYTES - 1) / SLICE_BYTES);
    for (int i; (i = pool_take(&j->queue, slices)) >= 0;) {
        size_t at = (size_t)i * SLICE_BYTES, left = j->bytes - at;
        memcpy(j->to + at, j->from + at, left < SLICE_BYTES ? left : SLICE_BYTES);
    }
}

static void copy_to_pinned(backend *be, char *to, const char *from, size_t bytes)
{
    stage *s = &own_of(be)->stage;
    if (!s->readers && bytes >= SHARED_BYTES) s->readers = pool_new(be->threads, NULL);
    if (!s->readers || bytes < SHARED_BYTES) {
        memcpy(to, from, bytes);
        return;
    }
    copy_job j = {.to = to, .from = from, .bytes = bytes};
    pool_queue_init(&j.queue);
    pool_run(s->readers, copy_slices, &j);
}

void cuda_stage(backend *be, void *dst, const void *src, size_t bytes)
{
    stage *s = &own_of(be)->stage;
    gpu_stream *stream = cuda_of(be)->stream;
    for (size_t done = 0; done < bytes;) {
        if (s->used == BUF_BYTES) {
            gpu_event_record(s->copied[s->cur], stream);
            s->cur = (s->cur + 1) % STAGE_BUFS;
            s->used = 0;
            if (cuda_await(be, s->copied[s->cur])) return;
        }
        size_t room = BUF_BYTES - s->used, n = bytes - done < room ? bytes - done : room;
        char *pinned = s->buf[s->cur] + s->used;
        copy_to_pinned(be, pinned, (const char *)src + done, n);
        gpu_memcpy_async((char *)dst + done, pinned, n, stream);
        s->used += (n + 63) / 64 * 64; /* the next one starts on a line of its own */
        done += n;
    }
}
