/* submit.h - what every handler that submits to the engine needs: why it failed, before or after,
 * in words of API section 3, and whose cached prompts a request may use.
 * Thread: the call's. */
#ifndef QUERN_SERVER_SUBMIT_H
#define QUERN_SERVER_SUBMIT_H

#include "base/err.h"
#include "server/http.h"

/* Why a request failed, as an error object says it. */
typedef struct {
    int status;
    const char *type, *code, *msg;
} gen_fault;

/* Of an ERR_* that ended a request. */
gen_fault submit_fault(int code);
/* Replies that engine_submit refused; param: the field that holds the prompt. */
void submit_failed(http_call *c, const char *param, int rc, const err *e);
/* Replies that the prompt of n tokens is longer than the context (G6); item: its place in a list,
 * -1: it is the only one. */
void submit_too_long(http_call *c, const char *param, int item, int64_t n);
/* Replies that a submitted request ended with code; nothing was sent yet. */
void submit_late(http_call *c, int code);

/* The salt in force under --cache-per-key (G18): salt itself (may be NULL), or text in room. */
enum { SUBMIT_SALT = 160 };
const char *submit_salt(const http_call *c, const char *salt, char room[SUBMIT_SALT]);

#endif
