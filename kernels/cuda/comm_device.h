/* comm_device.h - collectives on device memory, in order with the ops of a stream.  Each is a comm
 * around another (the host's: threads or processes), which still carries messages, exchanges and
 * the word that all is over.
 *
 *   comm_virtual.c  ranks of one process on one device, or on emulated ones: one kernel sums the
 *                   ranks' buffers in rank order, so bits are those of comm_sum
 *   comm_nccl.c     ranks on GPUs of their own, through NVIDIA's library, which sums in an order of
 *                   its own
 * comm_join.c chooses. */
#ifndef QUERN_KERNELS_CUDA_COMM_DEVICE_H
#define QUERN_KERNELS_CUDA_COMM_DEVICE_H

#include "kernels/comm.h"
#include "kernels/cuda/gpu.h"

C_BEGIN

/* Where and who a rank is, as exchanged by cuda_join. */
typedef struct {
    char boot[40]; /* of the kernel: which host */
    int64_t pid;
    int64_t space; /* inode of the process namespace pid counts in */
    int device;    /* ordinal */
    bool emulated;
    struct virtual_room *room; /* rank 0's, for ranks of its process */
} device_place;

/* The comm whose collectives run on be's device; takes over host, which every rank of it calls this
 * with at the same time.  host itself where several processes share a device.  NULL with e. */
comm *cuda_join(backend *be, comm *host, err *e);

/* A room for the ranks of one process; the last to leave frees it. */
struct virtual_room *virtual_room_new(int world);
void virtual_room_free(struct virtual_room *m); /* nobody came */
comm *comm_virtual_open(backend *be, comm *host, struct virtual_room *m, err *e);

typedef struct nccl nccl; /* the library's functions; comm_nccl.c */
/* Opens the library; e lists the names tried and what to install.  NULL names: the usual ones. */
nccl *nccl_open(const char *const *names, int n, err *e);
void nccl_close(nccl *n);
comm *comm_nccl_open(backend *be, comm *host, err *e);

/* State of both begins with this. */
typedef struct {
    comm *host;
} around;

/* The host's part of comm_ops, passed on. */
int around_exchange(comm *c, void *dst, const void *src, size_t bytes, err *e);
int around_send(comm *c, const void *msg, size_t bytes, err *e);
int around_receive(comm *c, const void **msg, size_t *bytes, err *e);
int around_barrier(comm *c, double timeout_s, err *e);

/* ---- comm_sum.cu ----------------------------------------------------------------------------- */

/* x[r][n] of every rank r < world becomes their sum, as comm_sum makes it. */
void comm_sum_queue(gpu_stream *s, void *const *x, int world, size_t n, act_type type);
/* Rows of `bytes` bytes, strides in bytes. */
void comm_rows_queue(gpu_stream *s, void *dst, size_t dst_ld, const void *src, size_t src_ld,
                     size_t bytes, int rows);

C_END

#endif
