/* http_internal.h - what the files http*.c share: the server, its connections, its calls.  Lock
 * order: http_server.mu, then http_call.mu; neither is held while a waiter's or a handler's code
 * runs, except `gone`, which only cancels. */
#ifndef QUERN_SERVER_HTTP_INTERNAL_H
#define QUERN_SERVER_HTTP_INTERNAL_H

#include "server/gate.h"
#include "server/http.h"
#include "server/routes.h"
#include "server/tls.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    CONN_IDLE_S = 60, /* H1: keep-alive idle; H4: a reader that takes nothing */
    LAST_WORDS_S = 5, /* what a TLS connection gets to be told why it ends */
    WATCH_PERIOD_MS = 200,
    DISCARD_MAX = 1 << 20, /* a refused request's body is read away up to this */
    N_PREP = 2,
    N_LONG = 2, /* threads for long work */
    N_HTTP = 4
};

/* One TCP connection; owned by the server's list from NOTIFY_STARTED to NOTIFY_CLOSED. */
typedef struct conn conn;
struct conn {
    conn *prev, *next;
    int fd;
    http_call *call;  /* the request in progress or NULL; server.mu */
    int64_t since_us; /* when it was accepted or last became idle; server.mu */
    bool served;      /* at least one request was completed */
    bool over_limit;  /* beyond max_conn: 503 and close */
    tls_line tls;     /* of a server that speaks TLS */
    char *words;      /* owned: the 408 that ended it, or NULL; server.mu */
};

typedef enum {
    CALL_HEADERS, /* request line seen */
    CALL_BODY,    /* headers passed, body coming */
    CALL_PREP,    /* the handler runs or waits for a prep thread */
    CALL_WAIT,    /* a waiter decides */
    CALL_STREAM,  /* status sent, fill feeds the body */
    CALL_DONE     /* reply queued or stream ended */
} call_phase;

struct http_call {
    http_server *srv;
    struct MHD_Connection *mhd;
    conn *cn;
    char *target; /* raw request target, owned */
    char method[12];
    char path[2048]; /* decoded */
    const char *tail;
    const route *route; /* NULL until matched */
    gate_pass pass;
    gate_fault fault; /* refusal to send once the body was read away; status 0 = none */
    key_ref *key;     /* one reference, or NULL */
    bool entered;     /* key_leave is due */
    const char *code; /* of an error, static */
    http_usage usage;
    int64_t start_us, headers_us; /* request line seen, headers complete */
    atomic_llong body_us;         /* last body byte */
    atomic_ullong n_got;          /* body bytes that came, kept or not */
    buf body;
    uint64_t reserved;       /* of max_body_total */
    bool started, body_done; /* headers seen; body complete */

    /* reply */
    int status; /* 0 until http_reply or http_stream */
    const char *type;
    buf reply;
    struct {
        const char *name;
        char *value;
    } header[12];
    int n_header;
    bool streaming, close_after;
    int64_t late_us; /* when the watchdog ended it, 0 = never; server.mu */

    /* waiting and streaming */
    const http_waiter *waiter;
    void *ctx;
    pthread_mutex_t mu; /* guards the five flags below and phase changes seen by the watchdog */
    call_phase phase;
    bool woken, tick, left, left_new, suspended; /* left stays; left_new is its news */
    buf out;                                     /* stream bytes not yet taken by the socket */
    size_t out_at;
    bool out_end, out_cut;
    atomic_llong out_us; /* last byte handed out or tick given, for keep-alive */
    int64_t ping_us;     /* interval; < 0 off */
    http_call *prep_next;
    void (*later)(http_call *c, void *ctx); /* http_defer's */
    void *later_ctx;
};

/* Calls that wait for a thread, oldest first. */
typedef struct {
    pthread_cond_t cv;
    http_call *head, **tail;
} call_queue;

struct http_server {
    struct app *app;
    http_options opt;
    struct MHD_Daemon *daemon;
    int port;
    bool tls;
    char said[256];     /* what the HTTP library complained about while it started; mu */
    bool starting;      /* mu */
    pthread_mutex_t mu; /* guards the connection list and conn fields */
    conn *conns;
    atomic_int n_conn, n_active;
    atomic_ullong body_bytes; /* reserved of max_body_total */
    atomic_bool stopping;

    pthread_t watch;
    bool watch_on;

    pthread_mutex_t prep_mu;   /* guards the queues */
    call_queue quick, slow;    /* handlers; what they deferred */
    bool prep_on, prep_closed; /* closed: nothing is taken any more */
    pthread_t prep[N_PREP + N_LONG];
    int n_prep_on;
};

/* http_admit.c: everything that is decided from the headers: route, key, or c->fault. */
void call_admit(http_call *c, const gate_request *r);
/* The refusal to send, once a small body was read away. */
void call_refuse(http_call *c, int status, const char *type, const char *code, const char *msg);
/* The reply to c->fault, and to OPTIONS. */
void call_put_fault(http_call *c);
void call_put_preflight(http_call *c);
/* http_prep.c: runs a call's handler on a prep thread, then wakes the call. */
int prep_start(http_server *s, err *e);
void prep_stop(http_server *s);
bool prep_push(http_server *s, http_call *c); /* false: shutting down */
/* http_log.c: the one log line of a call that ended after us; end: done, left, timeout, cut. */
void http_log(const http_call *c, int64_t us, const char *end);
/* http_watch.c: time limits, hang-ups, keep-alive ticks. */
int watch_start(http_server *s, err *e);
void watch_stop(http_server *s);
/* Sets a flag under the call's lock and resumes a suspended connection (http.c). */
typedef enum { WAKE_NEWS, WAKE_TICK, WAKE_LEFT } wake_kind;
void call_wake(http_call *c, wake_kind k);
/* The handler on another thread is through with the call, which may be gone afterwards. */
void call_handled(http_call *c);

#endif
