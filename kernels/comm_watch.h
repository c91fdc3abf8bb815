/* comm_watch.h - misses ranks of this machine as soon as their process ends: a collective's
 * deadline need not pass, and an idle service ends too.  Ranks on other machines, or in another
 * process namespace, are not watched.
 * Thread: start and stop by the comm's; a thread of its own that sleeps until somebody ends. */
#ifndef QUERN_KERNELS_COMM_WATCH_H
#define QUERN_KERNELS_COMM_WATCH_H

#include "kernels/comm.h"

typedef struct comm_watch comm_watch;

/* Called by every rank (it exchanges who they are).  *w stays NULL where there is nobody to watch
 * or the kernel cannot (before Linux 5.3). */
int comm_watch_start(comm_watch **w, comm *c, err *e);
/* From now on ranks may end; NULL is allowed. */
void comm_watch_stop(comm_watch *w);

#endif
