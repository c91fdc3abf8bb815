/* err.h - the one list of error codes and the message that goes with one.
 * Rule: a function that can fail returns 0 or a negative ERR_*.  Whatever a person must act on
 * also fills an `err` with one sentence that says what was found and what to change.
 * Any thread; an `err` belongs to its caller. */
#ifndef QUERN_BASE_ERR_H
#define QUERN_BASE_ERR_H

#include "base/linkage.h"

#include <stddef.h>

C_BEGIN

/* name, value, plain words */
#define ERR_LIST(X)                           \
    X(ERR_NOMEM, -1, "out of memory")         \
    X(ERR_IO, -2, "input/output error")       \
    X(ERR_FORMAT, -3, "malformed data")       \
    X(ERR_UNSUPPORTED, -4, "not supported")   \
    X(ERR_INVALID, -5, "invalid argument")    \
    X(ERR_LIMIT, -6, "limit exceeded")        \
    X(ERR_NOTFOUND, -7, "not found")          \
    X(ERR_BUSY, -8, "busy")                   \
    X(ERR_CANCELLED, -9, "cancelled")         \
    X(ERR_DEADLINE, -10, "deadline exceeded") \
    X(ERR_DEVICE, -11, "device fault")        \
    X(ERR_SHUTDOWN, -12, "shutting down")

enum {
#define X(name, value, words) name = value,
    ERR_LIST(X)
#undef X
};

typedef struct {
    int code;      /* 0 or ERR_* */
    char msg[480]; /* one sentence, no newline; "" when code is 0 */
} err;

/* Fills e (may be NULL) and returns code, so that a failing path reads `return err_set(...)`. */
int err_set(err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "prefix: " in front of the message already there; returns e->code (ERR_INVALID for NULL). */
int err_prefix(err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Plain words of a code. */
const char *err_words(int code);

C_END

#endif
