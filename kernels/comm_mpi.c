/* comm_mpi.c - the port over MPI (comm_procs.h), built as comm_mpi.so and loaded only under mpirun.
 *
 * MPI_THREAD_SERIALIZED: comm_procs.c lets one thread in at a time and no call here waits, so
 * neither a progress thread nor MPI's own locks are needed, and any thread can end a wait.
 * Open MPI 4 meets a broken connection, in whatever call notices it, by telling the launcher and
 * waiting for its answer (opal_show_help), which does not come while the launcher ends the job, or
 * by ending the process (ompi_rte_abort, which does not return): requests under way would get no
 * answer.  Both are replaced here by leaving the call with longjmp; from then on every call says
 * that the connection is lost, and MPI is not entered again.
 * Owns MPI between start and finish.  Refuses an MPI without that thread level.
 * Thread: one at a time. */
#include "kernels/comm_procs.h"

#include <dlfcn.h>
#include <link.h>
#include <limits.h>
#include <mpi.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(MPI_Request) <= sizeof(port_request), "a request holds MPI's");

static const char lost[] = "the connection to another rank was lost";
static jmp_buf outside; /* where the guarded call was made */
static bool guarded, broken;

/* A send or receive: what goes into a call and what comes out. */
typedef struct {
    int peer, tag;
    void *p;
    size_t bytes;
    MPI_Request r;
    bool done;
} transfer;

static const char *words(int rc)
{
    static char text[MPI_MAX_ERROR_STRING + 1];
    int n = 0;
    if (rc == MPI_SUCCESS) return NULL;
    if (MPI_Error_string(rc, text, &n)) snprintf(text, sizeof text, "MPI error %d", rc);
    return text;
}

void ompi_rte_abort(int code, char *fmt, ...);
void ompi_rte_abort(int code, char *fmt, ...)
{
    (void)fmt;
    if (guarded) longjmp(outside, 1);
    void (*own)(int, char *, ...);
    *(void **)&own = dlsym(RTLD_NEXT, "ompi_rte_abort");
    if (own) own(code, NULL);
    _Exit(1);
}

/* What Open MPI has to say goes to stderr in short. */
static int tell(const char *file, const char *topic, bool header, ...)
{
    (void)header;
    fprintf(stderr, "MPI: %s (%s)\n", topic, file);
    if (guarded && !strcmp(topic, "peer hung up")) longjmp(outside, 1);
    return 0;
}

/* In Open MPI 4 the name is that of a pointer to the function. */
static void replace_help(void)
{
    Dl_info info;
    void *extra = NULL, *at = dlsym(RTLD_DEFAULT, "opal_show_help");
    if (!at || !dladdr1(at, &info, &extra, RTLD_DL_SYMENT) || !extra) return;
    const ElfW(Sym) *symbol = extra;
    if (ELF64_ST_TYPE(symbol->st_info) != STT_OBJECT || symbol->st_size != sizeof(void *)) return;
    *(int (**)(const char *, const char *, bool, ...))at = tell;
}

/* Makes a call that may be left from within. */
static const char *guard(const char *(*call)(transfer *), transfer *t)
{
    if (broken) return lost;
    if (setjmp(outside)) {
        guarded = false;
        broken = true;
        return lost;
    }
    guarded = true;
    const char *bad = call(t);
    guarded = false;
    return bad;
}

static const char *start_mpi(void *ctx, int *rank, int *world)
{
    (void)ctx;
    int level = MPI_THREAD_SINGLE;
    int rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level);
    if (rc) return words(rc);
    if (level < MPI_THREAD_SERIALIZED) return "this MPI was built without MPI_THREAD_SERIALIZED";
    rc = MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (!rc) rc = MPI_Comm_rank(MPI_COMM_WORLD, rank);
    if (!rc) rc = MPI_Comm_size(MPI_COMM_WORLD, world);
    if (!rc) replace_help();
    return words(rc);
}

static const char *call_send(transfer *t)
{
    return words(MPI_Isend(t->p, (int)t->bytes, MPI_BYTE, t->peer, t->tag, MPI_COMM_WORLD, &t->r));
}

static const char *call_recv(transfer *t)
{
    return words(MPI_Irecv(t->p, (int)t->bytes, MPI_BYTE, t->peer, t->tag, MPI_COMM_WORLD, &t->r));
}

static const char *call_test(transfer *t)
{
    MPI_Status st;
    int yes = 0, n = 0, rc = MPI_Test(&t->r, &yes, &st);
    t->done = yes;
    if (!rc && yes) rc = MPI_Get_count(&st, MPI_BYTE, &n);
    t->bytes = n > 0 ? (size_t)n : 0;
    return words(rc);
}

static const char *call_cancel(transfer *t)
{
    int rc = t->r == MPI_REQUEST_NULL ? MPI_SUCCESS : MPI_Cancel(&t->r);
    if (!rc && t->r != MPI_REQUEST_NULL) rc = MPI_Request_free(&t->r);
    return words(rc);
}

static const char *call_finish(transfer *t)
{
    (void)t;
    return words(MPI_Finalize());
}

static const char *begin(const char *(*call)(transfer *), transfer *t, port_request *q)
{
    *q = (port_request){{0}};
    if (t->bytes > INT_MAX) return "a transfer of more than 2 GiB";
    const char *bad = guard(call, t);
    memcpy(q, &t->r, sizeof t->r);
    return bad;
}

static const char *send_mpi(void *ctx, int to, int tag, const void *p, size_t bytes,
                            port_request *q)
{
    (void)ctx;
    transfer t = {to, tag, (void *)(uintptr_t)p, bytes, MPI_REQUEST_NULL, false};
    return begin(call_send, &t, q);
}

static const char *recv_mpi(void *ctx, int from, int tag, void *p, size_t cap, port_request *q)
{
    (void)ctx;
    transfer t = {from < 0 ? MPI_ANY_SOURCE : from, tag, p, cap, MPI_REQUEST_NULL, false};
    return begin(call_recv, &t, q);
}

static const char *test_mpi(void *ctx, port_request *q, bool *done, size_t *bytes)
{
    (void)ctx;
    transfer t = {.done = false};
    memcpy(&t.r, q, sizeof t.r);
    const char *bad = guard(call_test, &t);
    memcpy(q, &t.r, sizeof t.r);
    *done = t.done;
    if (bytes && t.done) *bytes = t.bytes;
    return bad;
}

static const char *cancel_mpi(void *ctx, port_request *q)
{
    (void)ctx;
    transfer t = {.done = false};
    memcpy(&t.r, q, sizeof t.r);
    *q = (port_request){{0}};
    return guard(call_cancel, &t);
}

static const char *finish_mpi(void *ctx)
{
    (void)ctx;
    return guard(call_finish, NULL);
}

extern const comm_port comm_mpi_port;
const comm_port comm_mpi_port = {.size = sizeof(comm_port),
                                 .name = "mpi",
                                 .start = start_mpi,
                                 .send = send_mpi,
                                 .recv = recv_mpi,
                                 .test = test_mpi,
                                 .cancel = cancel_mpi,
                                 .finish = finish_mpi};
