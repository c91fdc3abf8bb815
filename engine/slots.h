/* slots.h - which sequence sits in which place of the batch, for those who look from outside
 * (API K5).  A place is taken when a sequence is first planned, and lost when it ends or is
 * preempted.  Thread: taking, leaving and refreshing by the engine thread; reading by any. */
#ifndef QUERN_ENGINE_SLOTS_H
#define QUERN_ENGINE_SLOTS_H

#include "engine/request.h"

typedef struct {
    pthread_mutex_t mu;
    engine_slot *v;        /* [n] under mu */
    const choice **holder; /* [n] engine thread; NULL = free */
    int n;
} slots;

int slots_init(slots *s, int n);
void slots_clear(slots *s);
/* A place for c if it has none. */
void slots_take(slots *s, choice *c);
/* c has ended. */
void slots_leave(slots *s, choice *c);
/* How far everybody is; who is not running any more gives the place back. */
void slots_refresh(slots *s);
/* out[n] */
void slots_read(slots *s, engine_slot *out);

#endif
