/* own.h - what backend.c, batch.c, graph.c and stage.c keep between them for one device.
 * Thread: the rank's (st->own of its cuda_state). */
#ifndef QUERN_KERNELS_CUDA_OWN_H
#define QUERN_KERNELS_CUDA_OWN_H

#include "kernels/cuda/cuda.h"

C_BEGIN

typedef struct pool pool; /* kernels/cpu/pool.h */

/* ---- batch.c --------------------------------------------------------------------------------- */

/* Where each array of a step lies in a block, in words from its start; the same for every step.
 * The tables come packed behind the rest and are spread out by a kernel (table.cu): a step's
 * tables are a few hundred kilobytes at most, rows of the largest context would be megabytes. */
typedef struct {
    size_t tok, pos, slot, seq_start, ctx_len, n_prompt, out_row, pool, table_start, packed, plan;
    size_t words; /* of a block: the packed tables at their largest */
} batch_layout;

enum { BATCH_BLOCKS = 2 }; /* pinned: one being copied while the next is written */

typedef struct {
    batch_layout at;
    int32_t *host[BATCH_BLOCKS]; /* [at.words] pinned */
    gpu_event *copied[BATCH_BLOCKS];
    int next;
    int32_t *dev;   /* [at.words] */
    int32_t *table; /* device, [max_seqs][max_blocks] */
} batch_room;

/* Buckets in rising order, closed by the largest decode step the limits allow. */
enum { MAX_BUCKETS = 16 };

int cuda_batch_reserve(backend *be, const batch_limits *l, err *e);
void cuda_batch_upload(backend *be, const batch *host, batch *device);
void cuda_batch_release(backend *be);
/* Sizes of recorded steps under these limits, rising; returns how many. */
int cuda_buckets(const batch_limits *l, int size[MAX_BUCKETS]);
/* table.cu: row s of table[n_seq][max_blocks] = packed[start[s] .. start[s+1]). */
void cuda_table_spread(gpu_stream *s, int32_t *table, int max_blocks, const int32_t *packed,
                       const int32_t *start, int n_seq);

/* ---- graph.c --------------------------------------------------------------------------------- */

typedef struct {
    int size;  /* rows */
    bool seen; /* ran eagerly once: handles, attributes and caches are made */
    gpu_graph *graph;
    tensor logits;
    size_t scratch; /* in use when the pass ends */
} recorded_pass;

bool cuda_replay(backend *be, const batch *b, tensor *logits);
void cuda_record(backend *be, const batch *b);
void cuda_record_end(backend *be, const batch *b, const tensor *logits);
/* Forgets every recorded pass: an address in them is about to change. */
void cuda_graphs_drop(backend *be);

/* ---- stage.c --------------------------------------------------------------------------------- */

enum { STAGE_BUFS = 3 };

typedef struct {
    pool *readers;         /* made when the first large tensor comes */
    char *buf[STAGE_BUFS]; /* pinned */
    gpu_event *copied[STAGE_BUFS];
    int cur;
    size_t used; /* of buf[cur] */
} stage;

int cuda_stage_open(backend *be, err *e);
void cuda_stage_close(backend *be);

/* ---- all of it ------------------------------------------------------------------------------- */

enum { MARKS = 4, SAMPLES_OPEN = 2 };

typedef struct {
    batch_room room;
    stage stage;
    /* graph.c */
    bool no_graphs, recording;
    int n_pass;
    recorded_pass pass[MAX_BUCKETS];
    /* Sample calls queued and collected so far, and where each mark stands among them. */
    cuda_sampler *sampler;
    int64_t queued, collected;
    /* Rows on their way to the host (k_fetch), through pinned memory, counted likewise. */
    struct {
        float *pinned, *dst;
        int rows, cols, ld;
    } fetch[SAMPLES_OPEN];
    int64_t fetching, fetched;
    int n_marks;
    struct {
        gpu_event *reached;
        int64_t queued, fetching;
    } mark[MARKS];
    gpu_event *all;      /* of sync */
    int64_t patience_us; /* before a device that does not answer is given up */
    bool hung;
} cuda_own;

static inline cuda_own *own_of(backend *be)
{
    return (cuda_own *)cuda_of(be)->own;
}

/* Waits until the stream has passed ev; 0, or ERR_DEVICE with the fault latched: the device's, or
 * that it does not answer. */
int cuda_await(backend *be, gpu_event *ev);
/* The same until the stream is empty. */
int cuda_drain(backend *be);

C_END

#endif
