/* thread.h - starting a thread, with the reason if there is none to be had.  Any thread. */
#ifndef QUERN_BASE_THREAD_H
#define QUERN_BASE_THREAD_H

#include "base/err.h"

#include <pthread.h>

/* 0, or ERR_NOMEM with "cannot start <what>: <reason>"; then *t is not to be joined. */
int thread_start(pthread_t *t, const char *what, void *(*run)(void *), void *arg, err *e);

#endif
