/* err.c - owns the texts of the error codes; see err.h.  Any thread. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A message is one line of text, whatever names from a file or a client stand in it. */
static void flatten(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = ' ';
}

int err_set(err *e, int code, const char *fmt, ...)
{
    if (!e) return code;
    va_list ap;
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    flatten(e->msg);
    return code;
}

int err_prefix(err *e, const char *fmt, ...)
{
    if (!e) return ERR_INVALID;
    char head[240], tail[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    flatten(head);
    memcpy(tail, e->msg, sizeof tail);
    snprintf(e->msg, sizeof e->msg, "%.200s: %.270s", head, tail);
    return e->code;
}

const char *err_words(int code)
{
    switch (code) {
    case 0: return "ok";
#define X(name, value, words) \
    case name: return words;
        ERR_LIST(X)
#undef X
    }
    return "unknown error";
}
