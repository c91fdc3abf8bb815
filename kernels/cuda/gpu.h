/* gpu.h - the small runtime layer that host code is written against: devices, memory, streams,
 * events, graphs.  Plain C; gpu.cu implements it with the CUDA runtime, gpu_emu.cpp on the emulator
 * (a stream is a thread, a graph a list of recorded calls).
 *
 * A `gpu` is one rank's view of one device, with its own error latch: the first error stays, later
 * calls on that handle do nothing, and nothing here ever aborts because of the device.  Two handles
 * may name the same device.  Calls that queue work return void; read gpu_error.
 *
 * Owns what it returns.  Refuses devices that are absent, with the reason.
 * Thread: any, but one stream, event or graph at a time; gpu_error, gpu_malloc and gpu_free of one
 * handle may be called at the same time. */
#ifndef QUERN_KERNELS_CUDA_GPU_H
#define QUERN_KERNELS_CUDA_GPU_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

C_BEGIN

typedef struct gpu gpu;
typedef struct gpu_stream gpu_stream;
typedef struct gpu_event gpu_event;
typedef struct gpu_graph gpu_graph;

typedef struct {
    char name[64];
    int sms;              /* multiprocessors; the emulator says EMU_SMS, default 4 */
    int cc;               /* compute capability, 90 for 9.0 */
    int smem_block;       /* bytes of shared memory a block may ask for */
    int smem_sm;          /* bytes of a multiprocessor */
    size_t l2, mem_total; /* bytes */
    bool emulated;
} gpu_info;

/* ---- devices -----------------------------------------------------------------------------------
 */

/* Devices there are; 0 with the reason in e (no driver, driver too old, none visible). */
int gpu_count(err *e);
/* Opens device number `device`: ERR_NOTFOUND with the reason, ERR_UNSUPPORTED if too old for the
 * kernels built, ERR_NOMEM.  Release with gpu_close after its streams, events and graphs. */
int gpu_open(gpu **out, int device, err *e);
void gpu_close(gpu *g);
/* What gpu_open found; g->device as number. */
const gpu_info *gpu_about(const gpu *g);
int gpu_device(const gpu *g);
/* The first error of this handle, "call: words", or NULL. */
const char *gpu_error(const gpu *g);
/* Latches an error that a library reported (words are copied); a later one is dropped. */
void gpu_fail(gpu *g, const char *call, const char *words);

/* ---- memory ------------------------------------------------------------------------------------
 */

int gpu_mem_info(gpu *g, size_t *free_bytes, size_t *total_bytes); /* 0 or ERR_DEVICE */
/* 256-byte aligned; contents undefined (emulator: 0xff).  NULL: out of memory, which latches
 * nothing. n = 0 gives NULL. */
void *gpu_malloc(gpu *g, size_t n);
void gpu_free(gpu *g, void *p); /* NULL allowed */
/* Pinned host memory, the same way. */
void *gpu_host_alloc(gpu *g, size_t n);
void gpu_host_free(gpu *g, void *p);

/* Describes a row-major bf16 matrix [height, width] with rows ld elements apart for cu_tma_2d,
 * which takes boxes of box_w = 64 by box_h <= 256 elements.  map: a cu_tmap, 64-byte aligned.
 * ERR_DEVICE: latched. */
int gpu_tmap_2d(gpu *g, void *map, const void *base, uint64_t width, uint64_t height, uint64_t ld,
                uint32_t box_w, uint32_t box_h);

/* ---- streams, events ---------------------------------------------------------------------------
 */

gpu_stream *gpu_stream_new(gpu *g);  /* NULL: latched */
void gpu_stream_free(gpu_stream *s); /* waits for it; NULL allowed */
/* Waits until all queued work is done: 0, or ERR_DEVICE if an error is latched. */
int gpu_stream_sync(gpu_stream *s);
gpu *gpu_of(const gpu_stream *s);
/* The library's handle (cudaStream_t); NULL in the emulated build. */
void *gpu_stream_raw(gpu_stream *s);

/* Pinned host memory must stay as it is until the copy has run. */
void gpu_memcpy_async(void *dst, const void *src, size_t n, gpu_stream *s);
void gpu_memset_async(void *dst, int byte, size_t n, gpu_stream *s);
/* fn(arg) on some thread once earlier work is done; it must not call this layer. */
void gpu_host_fn(gpu_stream *s, void (*fn)(void *arg), void *arg);

gpu_event *gpu_event_new(gpu *g, bool timed); /* NULL: latched */
void gpu_event_free(gpu_event *e);
void gpu_event_record(gpu_event *e, gpu_stream *s);
bool gpu_event_done(gpu_event *e); /* true before the first record */
int gpu_event_sync(gpu_event *e);  /* as gpu_stream_sync */
/* Milliseconds between two timed events that are done. */
float gpu_event_ms(gpu_event *from, gpu_event *to);
/* Work queued to s from now on waits for the last record of e, on any device. */
void gpu_stream_wait(gpu_stream *s, gpu_event *e);

/* ---- graphs ------------------------------------------------------------------------------------
 * Between begin and end, work queued to s (and to streams that wait for its events, until s waits
 * for theirs) is recorded, not run.  Arguments are those of the call; memory is read at each
 * launch. Other threads are free to work meanwhile. */

void gpu_capture_begin(gpu_stream *s);
gpu_graph *gpu_capture_end(gpu_stream *s); /* NULL: latched (e.g. a fork not joined) */
void gpu_graph_launch(gpu_graph *g, gpu_stream *s);
void gpu_graph_free(gpu_graph *g); /* once its launches are done; NULL allowed */

C_END

/* ---- kernels (C++ sources)
 * ----------------------------------------------------------------------- GPU_LAUNCH(kernel, grid,
 * block, smem, pdl, stream, args...): queues a kernel; templates are written (k<A, B>).  pdl true:
 * may start before its predecessor in the stream has ended; such a kernel calls cu_gdc_wait before
 * it touches earlier results.  Works under capture. */
#ifdef __cplusplus
#include "kernels/cuda/gpu_launch.h"
#endif

#endif
