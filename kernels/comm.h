/* comm.h - how the ranks of one model talk to each other: sums and gathers between the ops of a
 * step, and the messages by which rank 0 tells the others what the step is.
 *
 * Every rank has a comm of its own and a backend of its own (backend.comm borrows it).  Back ends:
 *   threads  comm_thread.c  ranks are threads of this process
 *   mpi      comm_mpi.c     ranks are processes, on one or several hosts
 *   nccl     cuda/comm_nccl GPUs
 *
 * Collectives are called by every rank in the same order with the same sizes.  They take the
 * backend because they work on its memory and in order with the ops queued on it; like ops they
 * return void, may be asynchronous, and latch a fault (k_fault) that names the collective and the
 * rank that did not come, died or failed.  After a fault nobody waits any more: every further call
 * on any rank returns at once, buffers undefined.
 *
 * Bits: a sum is ((x0 + x1) + x2) + ... over ranks 0, 1, 2, ..., in f32, for bf16 rounded once at
 * the end (to nearest even); comm_sum is its definition.  So a sum has the same bits on every rank,
 * in every run, and with threads, MPI and several ranks on one GPU.  (NCCL sums in an order of its
 * own: docs/ops.md.)
 *
 * No call waits for ever on a rank that is gone: each has a deadline, comm.timeout_s after its own
 * arrival, but for receive, which waits while rank 0 has nothing to do and ends at comm_abort or
 * when the back end notices that rank 0 is gone.
 * Thread: a comm is used by its rank's thread; comm_abort by any. */
#ifndef QUERN_KERNELS_COMM_H
#define QUERN_KERNELS_COMM_H

#include "kernels/kernels.h"

C_BEGIN

typedef struct comm comm;

typedef struct {
    const char *name; /* "threads", "mpi", "nccl" */
    bool recordable;  /* collectives may be part of a recorded pass (k_record) */
    /* Between ops, on the backend's memory. */
    /* x[n] of type F32 or BF16 becomes the sum over all ranks. */
    void (*all_reduce)(comm *c, backend *be, void *x, size_t n, act_type type);
    /* Row i at rank 0's dst + i * dst_ld = the ranks' rows i one after the other, bytes[r] (may be
     * 0) from src + i * src_ld of rank r.  Strides in bytes; dst is NULL on the other ranks. */
    void (*gather_rows)(comm *c, backend *be, void *dst, size_t dst_ld, const void *src,
                        size_t src_ld, const size_t *bytes, int rows);
    /* x[bytes] of rank 0 to all. */
    void (*broadcast)(comm *c, backend *be, void *x, size_t bytes);
    /* Between hosts' sides of the ranks: plain memory, done on return; 0, or ERR_DEVICE with e. */
    /* dst[world][bytes] on every rank = each rank's src[bytes]. */
    int (*exchange)(comm *c, void *dst, const void *src, size_t bytes, err *e);
    /* A message from rank 0 to every other, in order.  send may return before it is read. */
    int (*send)(comm *c, const void *msg, size_t bytes, err *e);
    /* Waits for the next message; *msg[*bytes] stays valid until the next receive. */
    int (*receive)(comm *c, const void **msg, size_t *bytes, err *e);
    /* Everybody is here; timeout_s <= 0 waits as long as nobody aborts (loading). */
    int (*barrier)(comm *c, double timeout_s, err *e);
    /* Ends all waiting, here and on every other rank, with `why` (which names this rank) as the
     * reason; the first reason stays.  Any thread. */
    void (*abort)(comm *c, const char *why);
    void (*close)(comm *c);
} comm_ops;

struct comm {
    const comm_ops *op;
    int rank, world;
    double timeout_s; /* of a collective, --collective-timeout */
    void *state;      /* the back end's own */
};

enum { COMM_MAX_RANKS = 64 };

/* world comms for threads of this process, out[0] for rank 0.  Each is closed by its owner; the
 * last close frees what they share.  spin: pauses before a waiting rank sleeps; 0 chooses by the
 * number of cores. */
int comm_threads_open(int world, double timeout_s, int spin, comm *out[], err *e);

static inline int comm_world(const comm *c)
{
    return c ? c->world : 1;
}
static inline int comm_rank(const comm *c)
{
    return c ? c->rank : 0;
}
/* NULL is allowed. */
void comm_close(comm *c);
/* why as printf; "rank N: " is put in front. */
void comm_abort(comm *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* dst[n] = src[0][n] + ... + src[world - 1][n], each of type ACT_F32 or ACT_BF16: the one
 * definition of the order and the rounding.  dst may be one of src[]. */
void comm_sum(void *dst, const void *const *src, int world, size_t n, act_type type);

C_END

#endif
