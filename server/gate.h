/* gate.h - what is checked before a byte of the body is looked at: framing, Host, Origin, key, and
 * the request id (API H2, H3, H6-H10); and whether the body is late (H4).  Pure functions over a
 * header list or a given clock: tested without a socket.
 * Thread: const after start-up except the keys, which gate_reload_keys swaps (SIGHUP). */
#ifndef QUERN_SERVER_GATE_H
#define QUERN_SERVER_GATE_H

#include "base/buf.h"
#include "server/keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GATE_MAX_FIELDS = 100,
    GATE_MAX_HEADERS = 32768,
    GATE_MAX_LINE = 8192, /* of the request, without its end */
    GATE_BODY_RATE = 1024 /* bytes a second, on average */
};

typedef struct {
    const char *name, *value;
    size_t n_name, n_value; /* bytes */
} gate_field;

typedef struct {
    const char *method, *target, *version; /* target: raw, with query */
    const gate_field *field;               /* [n_field] */
    size_t n_field;
} gate_request;

typedef struct gate gate;

typedef struct {
    char *const *key;
    int n_key;            /* --api-key */
    const char *key_file; /* or NULL */
    key_limits limits;
    char *const *allowed_host;
    int n_allowed_host;
    const char *cors; /* NULL = default set, "none", "*", or a comma list */
} gate_options;

gate *gate_new(const gate_options *o, err *e);
void gate_free(gate *g);
int gate_reload_keys(gate *g, err *e);
bool gate_has_keys(const gate *g);

/* A refusal: status 0 = none. */
typedef struct {
    int status;
    const char *type, *code; /* API E3, static */
    char msg[256];
    bool close; /* framing: answer and close, interpret nothing */
} gate_fault;

typedef struct {
    char request_id[132];
    char origin[256]; /* to echo in Access-Control-Allow-Origin; "" = no CORS headers */
    bool chunked;     /* body comes by Transfer-Encoding */
    bool has_length;
    uint64_t length;
    bool is_preflight; /* OPTIONS with an allowed Origin */
} gate_pass;

/* Framing, limits, request id. */
void gate_frame(const gate_request *r, gate_pass *p, gate_fault *f);
/* Host and Origin. */
void gate_host(const gate *g, const gate_request *r, gate_fault *f);
void gate_origin(const gate *g, const gate_request *r, gate_pass *p, gate_fault *f);
/* Key; *key = the one that matched, with a reference, NULL when none is configured. */
void gate_key(const gate *g, const gate_request *r, key_ref **key, gate_fault *f);
/* What the key (NULL: none) may do at a time and in a minute; without a fault key_leave is due. */
void gate_limit(key_ref *key, int64_t now_us, int *retry_s, gate_fault *f);
/* Content-Type and Content-Encoding of a POST with a body (H3, H5). */
void gate_media(const gate_request *r, bool any_type, gate_fault *f);
/* How far a body has come, by clock_us. */
typedef struct {
    int64_t begin_us, last_us; /* the headers were complete; bytes came */
    uint64_t got;              /* bytes so far */
} gate_body;
/* H4: silent for longer than limit, or after twice the limit slower than GATE_BODY_RATE. */
bool gate_body_late(const gate_body *b, int64_t limit_us, int64_t now_us);
/* First field of that name (any case) or NULL. */
const gate_field *gate_find(const gate_request *r, const char *name);
/* Path part of a target, percent-decoded once, one trailing / dropped.  False (404): .., NUL or
 * control bytes, bad escapes, too long. */
bool gate_path(const char *target, char *out, size_t cap);

#endif
