/* comm_procs.h - ranks that are processes: a comm over whatever carries messages between them.
 *
 * What carries them is a port.  The one we have is MPI, in a plug-in of its own (comm_mpi.so) that
 * is loaded only under a launcher such as mpirun, so that nobody needs MPI to run quern; tests have
 * one inside a process.  A port only moves bytes; order of sums, deadlines, and what happens when a
 * rank is gone are decided here, for any port.
 * Thread: a port's calls never overlap (comm_procs.c holds a lock around each), whatever thread
 * makes them. */
#ifndef QUERN_KERNELS_COMM_PROCS_H
#define QUERN_KERNELS_COMM_PROCS_H

#include "kernels/comm.h"

C_BEGIN

/* A send or receive under way; the port's own. */
typedef struct {
    uintptr_t v[2];
} port_request;

/* Every call returns NULL, or what went wrong in words (static, or valid until the next call).
 * None waits for another rank but start and finish. */
typedef struct {
    size_t size; /* sizeof(comm_port) of whoever built it: a plug-in of another build is refused */
    const char *name;
    /* Joins the others: which rank is this, how many are there. */
    const char *(*start)(void *ctx, int *rank, int *world);
    /* p[bytes] to rank `to`; p must stay until test says done. */
    const char *(*send)(void *ctx, int to, int tag, const void *p, size_t bytes, port_request *q);
    /* From rank `from` (-1: any), in the order sent for each tag. */
    const char *(*recv)(void *ctx, int from, int tag, void *p, size_t cap, port_request *q);
    /* done: whether it is; bytes: how many came (receives), may be NULL. */
    const char *(*test)(void *ctx, port_request *q, bool *done, size_t *bytes);
    /* Ends a receive nothing came for. */
    const char *(*cancel)(void *ctx, port_request *q);
    /* All ranks leave together; not called after a fault. */
    const char *(*finish)(void *ctx);
} comm_port;

enum { PORT_MAX_BYTES = 1 << 30 }; /* of one send or receive */

/* The name under which a plug-in shows its port, and where one is looked for: the directory in
 * QUERN_PLUGIN_DIR, beside the program, ../lib/quern from there. */
#define COMM_MPI_SYMBOL "comm_mpi_port"
#define COMM_MPI_FILE "comm_mpi.so"

/* Whether a launcher started this process as one of several ranks: its environment says so. */
bool comm_procs_launched(void);
/* Loads the plug-in and joins; e says where it was looked for and which package has it.  A world of
 * one is fine. */
comm *comm_procs_open(double timeout_s, err *e);
/* The same over any port; ctx is handed to its calls. */
comm *comm_procs_over(const comm_port *port, void *ctx, double timeout_s, err *e);
/* Ranks on this machine are watched and missed at once when their process ends; those on others
 * only when a collective's deadline passes, or when the launcher says that somebody died by ending
 * us all.  So after its signal nobody in this process waits longer than this from now; 0 takes it
 * back.  Any thread. */
void comm_procs_hurry(double seconds);
/* Whether the ranks are still together; if not, why.  Any thread, while the comm is open. */
bool comm_procs_lost(const comm *c, char *why, size_t n);

C_END

#endif
