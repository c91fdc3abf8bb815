/* thread.c - see thread.h.  Owns nothing. */
#include "base/thread.h"

#include <string.h>

int thread_start(pthread_t *t, const char *what, void *(*run)(void *), void *arg, err *e)
{
    int rc = pthread_create(t, NULL, run, arg); /* errno says nothing about it */
    return rc ? err_set(e, ERR_NOMEM, "cannot start %s: %s", what, strerror(rc)) : 0;
}
