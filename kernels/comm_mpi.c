/* comm_mpi.c - the port over MPI (comm_procs.h), built as comm_mpi.so and loaded only under mpirun.
 *
 * MPI_THREAD_SERIALIZED: comm_procs.c lets one thread in at a time and no call here waits, so
 * neither a progress thread nor MPI's own locks are needed, and any thread can end a wait.
 * Owns MPI between start and finish.  Refuses an MPI without that thread level.
 * Thread: one at a time. */
#include "kernels/comm_procs.h"

#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(MPI_Request) <= sizeof(port_request), "a request holds MPI's");

static const char *words(int rc)
{
    static char text[MPI_MAX_ERROR_STRING + 1];
    int n = 0;
    if (rc == MPI_SUCCESS) return NULL;
    if (MPI_Error_string(rc, text, &n)) snprintf(text, sizeof text, "MPI error %d", rc);
    return text;
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
    return words(rc);
}

static const char *keep(int rc, const MPI_Request *r, port_request *q)
{
    *q = (port_request){{0}};
    memcpy(q, r, sizeof *r);
    return words(rc);
}

static const char *send_mpi(void *ctx, int to, int tag, const void *p, size_t bytes,
                            port_request *q)
{
    (void)ctx;
    MPI_Request r = MPI_REQUEST_NULL;
    if (bytes > INT_MAX) return "a send of more than 2 GiB";
    int rc = MPI_Isend(p, (int)bytes, MPI_BYTE, to, tag, MPI_COMM_WORLD, &r);
    return keep(rc, &r, q);
}

static const char *recv_mpi(void *ctx, int from, int tag, void *p, size_t cap, port_request *q)
{
    (void)ctx;
    MPI_Request r = MPI_REQUEST_NULL;
    if (cap > INT_MAX) return "a receive of more than 2 GiB";
    int source = from < 0 ? MPI_ANY_SOURCE : from;
    int rc = MPI_Irecv(p, (int)cap, MPI_BYTE, source, tag, MPI_COMM_WORLD, &r);
    return keep(rc, &r, q);
}

static const char *test_mpi(void *ctx, port_request *q, bool *done, size_t *bytes)
{
    (void)ctx;
    MPI_Request r;
    MPI_Status st;
    int yes = 0, n = 0;
    memcpy(&r, q, sizeof r);
    int rc = MPI_Test(&r, &yes, &st);
    memcpy(q, &r, sizeof r);
    *done = yes;
    if (!rc && yes && bytes) {
        rc = MPI_Get_count(&st, MPI_BYTE, &n);
        *bytes = n < 0 ? 0 : (size_t)n;
    }
    return words(rc);
}

static const char *cancel_mpi(void *ctx, port_request *q)
{
    (void)ctx;
    MPI_Request r;
    memcpy(&r, q, sizeof r);
    int rc = r == MPI_REQUEST_NULL ? MPI_SUCCESS : MPI_Cancel(&r);
    if (!rc && r != MPI_REQUEST_NULL) rc = MPI_Request_free(&r);
    *q = (port_request){{0}};
    return words(rc);
}

static const char *finish_mpi(void *ctx)
{
    (void)ctx;
    return words(MPI_Finalize());
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
