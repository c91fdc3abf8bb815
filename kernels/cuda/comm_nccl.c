/* comm_nccl.c - ranks on GPUs of their own: collectives by NVIDIA's NCCL, opened at run time so
 * that the program also starts where there is none.  They are queued on the rank's stream like any
 * op and may be part of a recorded pass.
 *
 * Bits: the library adds in an order of its own, which depends on the number of ranks, the size and
 * how the GPUs are connected; with bf16 every hop may round.  So a sum differs from comm_sum by at
 * most (world - 1) / 256 of the sum of magnitudes, and is the same on all ranks.
 * The declarations below are those of the library's stable interface (2.10 and later).
 * Owns the library's handle and its communicator.  Refuses machines without the library.
 * Thread: see comm.h. */
#include "kernels/cuda/comm_device.h"
#include "kernels/cuda/cuda.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the library ----------------------------------------------------------------------------- */

typedef struct {
    char internal[128];
} nccl_id;
typedef struct nccl_communicator nccl_communicator;
enum { NCCL_OK = 0, NCCL_IN_PROGRESS = 7 };
enum { NCCL_CHAR = 0, NCCL_FLOAT = 7, NCCL_BFLOAT16 = 9 };
enum { NCCL_SUM = 0 };
enum { OLDEST = 21000 }; /* 2.10: the first with bf16 */

struct nccl {
    void *library;
    int (*version)(int *);
    const char *(*words)(int);
    int (*unique_id)(nccl_id *);
    int (*init_rank)(nccl_communicator **, int world, nccl_id, int rank);
    int (*destroy)(nccl_communicator *);
    int (*abort)(nccl_communicator *);
    int (*async_error)(nccl_communicator *, int *);
    int (*all_reduce)(const void *, void *, size_t, int type, int op, nccl_communicator *, void *);
    int (*broadcast)(const void *, void *, size_t, int type, int root, nccl_communicator *, void *);
    int (*send)(const void *, size_t, int type, int peer, nccl_communicator *, void *);
    int (*recv)(void *, size_t, int type, int peer, nccl_communicator *, void *);
    int (*group_start)(void);
    int (*group_end)(void);
};

/* The functions used, by name. */
#define NCCL_LIST(X)                      \
    X(version, ncclGetVersion)            \
    X(words, ncclGetErrorString)          \
    X(unique_id, ncclGetUniqueId)         \
    X(init_rank, ncclCommInitRank)        \
    X(destroy, ncclCommDestroy)           \
    X(abort, ncclCommAbort)               \
    X(async_error, ncclCommGetAsyncError) \
    X(all_reduce, ncclAllReduce)          \
    X(broadcast, ncclBroadcast)           \
    X(send, ncclSend)                     \
    X(recv, ncclRecv)                     \
    X(group_start, ncclGroupStart)        \
    X(group_end, ncclGroupEnd)

static const char *const usual[] = {"libnccl.so.2", "libnccl.so",
                                    "/usr/local/cuda/lib64/libnccl.so.2"};

static int find_functions(nccl *n, err *e)
{
#define X(field, name)                              \
    *(void **)&n->field = dlsym(n->library, #name); \
    if (!n->field)                                  \
        return err_set(e, ERR_UNSUPPORTED,          \
                       "the NCCL of this machine lacks %s: install version 2.10 or later", #name);
    NCCL_LIST(X)
#undef X
    int version = 0;
    if (n->version(&version) != NCCL_OK || version < OLDEST)
        return err_set(e, ERR_UNSUPPORTED,
                       "the NCCL of this machine is version %d; %d (2.10) or later is needed",
                       version, OLDEST);
    return 0;
}

nccl *nccl_open(const char *const *names, int count, err *e)
{
    char tried[200] = "";
    size_t at = 0;
    nccl *n = calloc(1, sizeof *n);
    if (!n) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    if (!names) {
        names = usual;
        count = sizeof usual / sizeof *usual;
    }
    for (int i = 0; i < count && !n->library; i++) {
        n->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (!n->library && at < sizeof tried)
            at += (size_t)snprintf(tried + at, sizeof tried - at, "%s%s", at ? ", " : "", names[i]);
    }
    if (!n->library)
        err_set(e, ERR_NOTFOUND,
                "NCCL was not found (tried %s): several GPUs need it; install NVIDIA's package "
                "libnccl2, or put the directory that holds it into LD_LIBRARY_PATH",
                tried);
    else if (!find_functions(n, e)) return n;
    nccl_close(n);
    return NULL;
}

void nccl_close(nccl *n)
{
    if (!n) return;
    if (n->library) dlclose(n->library);
    free(n);
}

/* ---- a rank ---------------------------------------------------------------------------------- */

typedef struct {
    around a;
    nccl *lib;
    nccl_communicator *peers;
    atomic_bool over;
} seat;

static seat *seat_of(const comm *c)
{
    return c->state;
}

/* Latches what a call returned; also what went wrong behind the ranks' backs. */
static bool ok(comm *c, backend *be, const char *what, int rc)
{
    seat *own = seat_of(c);
    int behind = NCCL_OK;
    if (rc == NCCL_OK && own->lib->async_error(own->peers, &behind) == NCCL_OK) rc = behind;
    if (rc == NCCL_OK || rc == NCCL_IN_PROGRESS) return true;
    k_fault(be, what, "NCCL: %s", own->lib->words(rc));
    comm_abort(c, "%s: NCCL: %s", what, own->lib->words(rc));
    return false;
}

/* Nothing more is queued after a fault, here or elsewhere. */
static bool may(comm *c, backend *be, const char *what)
{
    if (be->fault[0]) return false;
    if (!atomic_load(&seat_of(c)->over)) return true;
    k_fault(be, what, "the ranks were ended");
    return false;
}

static void *stream_of(backend *be)
{
    return gpu_stream_raw(cuda_of(be)->stream);
}

static void all_reduce(comm *c, backend *be, void *x, size_t n, act_type type)
{
    static const char what[] = "all_reduce";
    seat *own = seat_of(c);
    int t = type == ACT_BF16 ? NCCL_BFLOAT16 : NCCL_FLOAT;
    if (n && may(c, be, what))
        ok(c, be, what, own->lib->all_reduce(x, x, n, t, NCCL_SUM, own->peers, stream_of(be)));
}

static void broadcast(comm *c, backend *be, void *x, size_t bytes)
{
    static const char what[] = "broadcast";
    seat *own = seat_of(c);
    if (bytes && may(c, be, what))
        ok(c, be, what, own->lib->broadcast(x, x, bytes, NCCL_CHAR, 0, own->peers, stream_of(be)));
}

/* Row by row in one group, so that nothing has to be packed. */
static void gather_rows(comm *c, backend *be, void *dst, size_t dst_ld, const void *src,
                        size_t src_ld, const size_t *bytes, int rows)
{
    static const char what[] = "gather_rows";
    seat *own = seat_of(c);
    void *stream = stream_of(be);
    if (rows == 0 || !may(c, be, what)) return;
    if (c->rank == 0)
        comm_rows_queue(cuda_of(be)->stream, dst, dst_ld, src, src_ld, bytes[0], rows);
    if (!ok(c, be, what, own->lib->group_start())) return;
    int rc = NCCL_OK;
    for (int i = 0; i < rows && rc == NCCL_OK; i++) {
        const char *from = (const char *)src + (size_t)i * src_ld;
        char *to = (char *)dst + (size_t)i * dst_ld;
        if (c->rank && bytes[c->rank])
            rc = own->lib->send(from, bytes[c->rank], NCCL_CHAR, 0, own->peers, stream);
        for (int r = 1; c->rank == 0 && r < c->world && rc == NCCL_OK; r++) {
            to += bytes[r - 1];
            if (bytes[r]) rc = own->lib->recv(to, bytes[r], NCCL_CHAR, r, own->peers, stream);
        }
    }
    int ended = own->lib->group_end();
    ok(c, be, what, rc != NCCL_OK ? rc : ended);
}

/* Kernels that wait for a rank that is gone end with the communicator. */
static void abort_nccl(comm *c, const char *why)
{
    seat *own = seat_of(c);
    own->a.host->op->abort(own->a.host, why);
    if (!atomic_exchange(&own->over, true)) own->lib->abort(own->peers);
}

static void close_nccl(comm *c)
{
    seat *own = seat_of(c);
    if (!atomic_load(&own->over)) own->lib->destroy(own->peers);
    /* The library keeps threads of its own for a while: it stays loaded. */
    free(own->lib);
    comm_close(own->a.host);
    free(own);
    free(c);
}

static const comm_ops nccl_ops = {.name = "nccl",
                                  .recordable = true,
                                  .all_reduce = all_reduce,
                                  .gather_rows = gather_rows,
                                  .broadcast = broadcast,
                                  .exchange = around_exchange,
                                  .send = around_send,
                                  .receive = around_receive,
                                  .barrier = around_barrier,
                                  .abort = abort_nccl,
                                  .close = close_nccl};

/* Rank 0 makes the id by which the library finds its ranks; the host's comm hands it out. */
static int meet_peers(seat *own, comm *host, err *e)
{
    nccl_id all[COMM_MAX_RANKS], id;
    memset(&id, 0, sizeof id);
    int status = host->rank == 0 ? own->lib->unique_id(&id) : NCCL_OK;
    int rc = host->op->exchange(host, all, &id, sizeof id, e);
    if (rc) return rc;
    if (status == NCCL_OK)
        status = own->lib->init_rank(&own->peers, host->world, all[0], host->rank);
    if (status == NCCL_OK) return 0;
    return err_set(e, ERR_DEVICE, "NCCL: %s", own->lib->words(status));
}

comm *comm_nccl_open(backend *be, comm *host, err *e)
{
    comm *c = calloc(1, sizeof *c);
    seat *own = calloc(1, sizeof *own);
    if (!c || !own) {
        err_set(e, ERR_NOMEM, "out of memory");
        goto fail;
    }
    own->a.host = host;
    /* The library joins with the device that is current on this thread: any call makes it so. */
    size_t free_bytes, total;
    if (gpu_mem_info(cuda_of(be)->dev, &free_bytes, &total)) {
        err_set(e, ERR_DEVICE, "%s", gpu_error(cuda_of(be)->dev));
        goto fail;
    }
    if (!(own->lib = nccl_open(NULL, 0, e)) || meet_peers(own, host, e)) goto fail;
    *c = (comm){&nccl_ops, host->rank, host->world, host->timeout_s, own};
    return c;
fail:
    if (own) nccl_close(own->lib);
    free(own);
    free(c);
    return NULL;
}
