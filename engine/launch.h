/* launch.h - ranks that are processes: joining those a launcher such as mpirun started beside this
 * one, and noticing when one is gone.  What they do together is engine.h's: rank 0 hands `c` to
 * engine_open, the others to engine_follow.
 * Thread: joining by main before others start; the rest by any while c is open. */
#ifndef QUERN_ENGINE_LAUNCH_H
#define QUERN_ENGINE_LAUNCH_H

#include "base/err.h"

#include <stdbool.h>

struct comm;

typedef struct {
    struct comm *c; /* NULL: alone */
    int rank, world;
    int here;    /* ranks on this host, whose memory they share */
    int threads; /* this rank's share of the processors it may use */
} launch;

/* Whether this process was started as one of several. */
bool launch_found(void);
/* Joins the others.  A world of one leaves c NULL.  e says what is missing and how to get it. */
int launch_join(launch *l, double timeout_s, err *e);
/* Ends the others with a reason and lets go of c, which nobody has taken. */
void launch_give_up(launch *l, const char *why);
/* Seconds requests may go on after the launcher's SIGTERM: until its SIGKILL, less what ending
 * takes. */
double launch_grace(void);
/* After the launcher's SIGTERM, which may mean that a rank died: ends every wait for another rank
 * soon after that time. */
void launch_hurry(void);
/* Whether another rank is gone, and why. */
bool launch_lost(const launch *l, err *e);

#endif
