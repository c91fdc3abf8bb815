/* http.c - libmicrohttpd glue; the only file that includes microhttpd.h.  See http.h.
 * Owns the daemon, the connection list and every http_call.
 * Thread: MHD's pool runs on_request, on_fill and the notify callbacks. */
#include "server/http_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "server/app.h"
#include "server/metrics.h"
#include "server/reply.h"
#include "server/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- calls ----------------------------------------------------------------------------------- */

/* MHD's first word about a request: the raw target.  The call is born here. */
static void *on_target(void *cls, const char *target, struct MHD_Connection *mhd)
{
    http_server *s = cls;
    const union MHD_ConnectionInfo *ci =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    http_call *c = calloc(1, sizeof *c);
    if (!c || !ci || !ci->socket_context || !(c->target = strdup(target))) {
        free(c);
        return NULL;
    }
    c->srv = s;
    c->mhd = mhd;
    c->cn = ci->socket_context;
    c->start_us = clock_us();
    c->ping_us = (int64_t)(s->opt.ping_s * 1e6);
    c->tail = "";
    pthread_mutex_init(&c->mu, NULL);
    pthread_mutex_lock(&s->mu);
    c->cn->call = c;
    pthread_mutex_unlock(&s->mu);
    return c;
}

static void call_free(http_call *c)
{
    if (c->entered) key_leave(c->key);
    key_put(c->key);
    for (int i = 0; i < c->n_header; i++) free(c->header[i].value);
    buf_clear(&c->body);
    buf_clear(&c->reply);
    buf_clear(&c->out);
    atomic_fetch_sub(&c->srv->body_bytes, c->reserved);
    pthread_mutex_lock(&c->mu); /* who woke it has let go of it */
    pthread_mutex_unlock(&c->mu);
    pthread_mutex_destroy(&c->mu);
    free(c->target);
    free(c);
}

static const char *ending(const http_call *c, enum MHD_RequestTerminationCode why)
{
    if (why == MHD_REQUEST_TERMINATED_COMPLETED_OK) return "done";
    if (why == MHD_REQUEST_TERMINATED_TIMEOUT_REACHED || c->late_us) return "timeout";
    return c->out_cut || why == MHD_REQUEST_TERMINATED_DAEMON_SHUTDOWN ? "cut" : "left";
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                         enum MHD_RequestTerminationCode why)
{
    http_server *s = cls;
    http_call *c = *con_cls;
    (void)mhd;
    if (!c) return;
    *con_cls = NULL;
    pthread_mutex_lock(&s->mu);
    c->cn->call = NULL;
    c->cn->since_us = clock_us();
    c->cn->served = true;
    if (c->cn->words) c->status = 408, c->code = "request_timeout";
    pthread_mutex_unlock(&s->mu);
    if (c->waiter) {
        if (why != MHD_REQUEST_TERMINATED_COMPLETED_OK) c->waiter->gone(c->ctx);
        c->waiter->release(c->ctx);
        atomic_fetch_sub(&s->n_active, 1);
    }
    int64_t us = clock_us() - c->start_us;
    if (c->status)
        metrics_http(c->route ? c->route->pattern : "other", c->method, c->status,
                     (double)us * 1e-6);
    http_log(c, us, ending(c, why));
    call_free(c);
}

/* Under the call's lock. */
static void wake(http_call *c, wake_kind k)
{
    if (k == WAKE_NEWS) c->woken = true;
    else if (k == WAKE_TICK) c->tick = true;
    else if (!c->left) c->left = c->left_new = true;
    if (c->suspended) {
        c->suspended = false;
        MHD_resume_connection(c->mhd);
    }
}

void call_wake(http_call *c, wake_kind k)
{
    pthread_mutex_lock(&c->mu);
    wake(c, k);
    pthread_mutex_unlock(&c->mu);
}

void call_handled(http_call *c)
{
    pthread_mutex_lock(&c->mu);
    c->phase = CALL_WAIT;
    wake(c, WAKE_NEWS);
    pthread_mutex_unlock(&c->mu);
}

void http_wake(http_call *c)
{
    call_wake(c, WAKE_NEWS);
}

/* Takes the pending flags and the phase; if there is no news suspends the connection and returns
 * false. */
static bool take_flags(http_call *c, bool *tick, bool *left, call_phase *phase)
{
    pthread_mutex_lock(&c->mu);
    if (atomic_load(&c->srv->stopping) && !c->left) c->left = c->left_new = true;
    bool any = c->woken || c->tick || c->left_new;
    *tick = c->tick;
    *left = c->left;
    *phase = c->phase;
    c->woken = c->tick = c->left_new = false;
    if (!any) {
        c->suspended = true;
        MHD_suspend_connection(c->mhd);
    }
    pthread_mutex_unlock(&c->mu);
    return any;
}

static void set_phase(http_call *c, call_phase p)
{
    pthread_mutex_lock(&c->mu);
    c->phase = p;
    pthread_mutex_unlock(&c->mu);
}

/* ---- replies --------------------------------------------------------------------------------- */

static void add(struct MHD_Response *r, const char *name, const char *value)
{
    MHD_add_response_header(r, name, value);
}

static void common_headers(http_call *c, struct MHD_Response *r)
{
    add(r, "server", "quern/" QUERN_VERSION);
    add(r, "x-request-id", c->pass.request_id);
    if (reply_dialect(c) == DIALECT_ANTHROPIC) add(r, "request-id", c->pass.request_id);
    if (c->type) add(r, "Content-Type", c->type);
    if (c->pass.origin[0]) {
        add(r, "Access-Control-Allow-Origin", c->pass.origin);
        if (strcmp(c->pass.origin, "*")) add(r, "Vary", "Origin");
        add(r, "Access-Control-Expose-Headers",
            "x-request-id, x-quern-ignored, x-quern-seed, x-quern-relaxed, x-quern-truncated, "
            "x-quern-clamped");
    }
    for (int i = 0; i < c->n_header; i++) add(r, c->header[i].name, c->header[i].value);
    if (c->close_after || c->pass.chunked) add(r, "Connection", "close");
}

static enum MHD_Result send_plain(http_call *c)
{
    size_t n = c->reply.len;
    char *v = buf_take(&c->reply, NULL);
    struct MHD_Response *r = MHD_create_response_from_buffer(n, v, MHD_RESPMEM_MUST_FREE);
    if (!r) {
        free(v);
        return MHD_NO;
    }
    common_headers(c, r);
    char ms[24];
    snprintf(ms, sizeof ms, "%lld", (long long)((clock_us() - c->start_us) / 1000));
    add(r, "openai-processing-ms", ms);
    set_phase(c, CALL_DONE);
    enum MHD_Result ok = MHD_queue_response(c->mhd, (unsigned)c->status, r);
    MHD_destroy_response(r);
    return ok;
}

/* Feeds a stream: what is left in c->out, else what the waiter has, else sleep. */
static ssize_t on_fill(void *cls, uint64_t pos, char *dst, size_t max)
{
    http_call *c = cls;
    (void)pos;
    for (;;) {
        size_t left_bytes = c->out.len - c->out_at;
        if (left_bytes) {
            size_t n = left_bytes < max ? left_bytes : max;
            memcpy(dst, c->out.v + c->out_at, n);
            c->out_at += n;
            atomic_store(&c->out_us, clock_us());
            if (c->out_at == c->out.len) {
                buf_reset(&c->out);
                c->out_at = 0;
            }
            return (ssize_t)n;
        }
        if (c->out_end) {
            set_phase(c, CALL_DONE);
            return c->out_cut ? MHD_CONTENT_READER_END_WITH_ERROR
                              : MHD_CONTENT_READER_END_OF_STREAM;
        }
        bool tick, gone;
        call_phase phase;
        if (!take_flags(c, &tick, &gone, &phase)) return 0;
        if (gone) return MHD_CONTENT_READER_END_WITH_ERROR;
        int rc = c->waiter->fill(c->ctx, c, &c->out, tick);
        if (!buf_ok(&c->out)) rc = HTTP_CUT;
        c->out_end = rc != HTTP_MORE;
        c->out_cut = rc == HTTP_CUT;
    }
}

static enum MHD_Result send_stream(http_call *c)
{
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, on_fill, c, NULL);
    if (!r) return MHD_NO;
    common_headers(c, r);
    add(r, "Cache-Control", "no-cache");
    add(r, "X-Accel-Buffering", "no");
    /* The socket must not hold small events back. */
    int one = 1;
    setsockopt(c->cn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    pthread_mutex_lock(&c->mu);
    c->phase = CALL_STREAM;
    c->woken = true;
    atomic_store(&c->out_us, clock_us());
    pthread_mutex_unlock(&c->mu);
    enum MHD_Result ok = MHD_queue_response(c->mhd, 200, r);
    MHD_destroy_response(r);
    return ok;
}

/* ---- the request's way ----------------------------------------------------------------------- */

static enum MHD_Result collect_field(void *cls, enum MHD_ValueKind kind, const char *name,
                                     size_t n_name, const char *value, size_t n_value)
{
    gate_request *r = cls;
    (void)kind;
    if (r->n_field > GATE_MAX_FIELDS) return MHD_NO;
    ((gate_field *)(uintptr_t)r->field)[r->n_field++] =
        (gate_field){name, value ? value : "", n_name, value ? n_value : 0};
    return MHD_YES;
}

static enum MHD_Result send_fault(http_call *c)
{
    call_put_fault(c);
    return send_plain(c);
}

static enum MHD_Result send_preflight(http_call *c)
{
    call_put_preflight(c);
    return send_plain(c);
}

/* Where a body may be silent for longer than other connections, the library leaves the end of it to
 * the watchdog. */
static void expect_body(http_call *c, bool on)
{
    unsigned s = (unsigned)c->srv->opt.body_s;
    if (s > CONN_IDLE_S / 2)
        MHD_set_connection_option(c->mhd, MHD_CONNECTION_OPTION_TIMEOUT,
                                  CONN_IDLE_S + (on ? s : 0u));
}

/* First sight of a request: headers are complete, no body byte was read. */
static enum MHD_Result on_headers(http_call *c, const char *method, const char *version)
{
    http_server *s = c->srv;
    gate_field field[GATE_MAX_FIELDS + 1];
    gate_request r = {.method = method, .target = c->target, .version = version, .field = field};
    c->started = true;
    c->headers_us = clock_us();
    atomic_store(&c->body_us, c->headers_us);
    snprintf(c->method, sizeof c->method, "%s", method);
    MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, collect_field, &r);
    call_admit(c, &r);
    if (c->fault.status) {
        /* An answer at this point ends the connection, so that comes behind the request.  Reading a
         * small body away first also lets a client that writes headers and body apart see the
         * answer instead of a reset. */
        if (c->fault.close || c->pass.length > DISCARD_MAX) {
            c->close_after = true;
            return send_fault(c);
        }
    } else if (c->pass.length) {
        uint64_t total = atomic_fetch_add(&s->body_bytes, c->pass.length) + c->pass.length;
        c->reserved = c->pass.length;
        if (total > s->opt.max_body_total) {
            call_refuse(c, 503, "unavailable_error", "out_of_memory",
                        "too many request bodies in flight");
            c->close_after = true;
            http_add_header(c, "Retry-After", "1");
            return send_fault(c);
        }
    }
    expect_body(c, true);
    set_phase(c, CALL_BODY);
    return MHD_YES;
}

/* A piece of the body. */
static enum MHD_Result on_body(http_call *c, const char *data, size_t *n)
{
    http_server *s = c->srv;
    atomic_store(&c->body_us, clock_us());
    size_t got = *n;
    *n = 0;
    uint64_t came = atomic_fetch_add(&c->n_got, got) + got;
    uint64_t enough = s->opt.max_body > DISCARD_MAX ? s->opt.max_body : DISCARD_MAX;
    if (c->fault.status) return came > 2 * enough ? MHD_NO : MHD_YES;
    if (c->body.len + got > s->opt.max_body) {
        call_refuse(c, 413, "invalid_request_error", "request_too_large",
                    "the body is larger than --max-body");
        buf_clear(&c->body);
        return MHD_YES;
    }
    if (!c->pass.length) { /* chunked: reserve as it grows */
        uint64_t total = atomic_fetch_add(&s->body_bytes, got) + got;
        c->reserved += got;
        if (total > s->opt.max_body_total) {
            call_refuse(c, 503, "unavailable_error", "out_of_memory",
                        "too many request bodies in flight");
            buf_clear(&c->body);
            return MHD_YES;
        }
    }
    buf_put(&c->body, data, got);
    if (!buf_ok(&c->body)) {
        buf_clear(&c->body);
        call_refuse(c, 503, "unavailable_error", "out_of_memory",
                    "out of memory for the request body");
    }
    return MHD_YES;
}

/* The body is complete: the handler's turn, here or on a prep thread. */
static enum MHD_Result run_handler(http_call *c)
{
    set_phase(c, CALL_PREP);
    if (c->route->flags & ROUTE_PREP) return prep_push(c->srv, c) ? MHD_YES : MHD_NO;
    c->route->fn(c);
    pthread_mutex_lock(&c->mu);
    c->phase = CALL_WAIT;
    c->woken = true;
    pthread_mutex_unlock(&c->mu);
    return MHD_YES;
}

/* The request is complete, or a waiting one was resumed. */
static enum MHD_Result on_ready(http_call *c)
{
    bool tick, gone;
    call_phase phase;
    if (!c->body_done) {
        c->body_done = true;
        expect_body(c, false);
        if (c->fault.status) return send_fault(c);
        if (!strcmp(c->method, "OPTIONS")) return send_preflight(c);
        if (run_handler(c) == MHD_NO) return MHD_NO;
    }
    while (take_flags(c, &tick, &gone, &phase)) {
        if (phase != CALL_WAIT) continue; /* the prep thread is still at it */
        if (gone) return MHD_NO;
        if (!c->status && c->waiter) c->waiter->step(c->ctx, c, tick);
        if (c->status) return c->streaming ? send_stream(c) : send_plain(c);
    }
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **con_cls)
{
    http_call *c = *con_cls;
    (void)cls, (void)mhd, (void)url;
    if (!c) return MHD_NO;
    if (!c->started) return on_headers(c, method, version);
    if (*n) return on_body(c, data, n);
    return on_ready(c);
}

/* ---- connections ----------------------------------------------------------------------------- */

static void on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context,
                          enum MHD_ConnectionNotificationCode what)
{
    http_server *s = cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *ci =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
        conn *cn = calloc(1, sizeof *cn);
        *socket_context = cn;
        if (!cn || !ci) return;
        cn->fd = ci->connect_fd;
        cn->since_us = clock_us();
        cn->over_limit = atomic_fetch_add(&s->n_conn, 1) >= s->opt.max_conn;
        ci = s->tls ? MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION) : NULL;
        if (ci) tls_line_init(&cn->tls, ci->tls_session, cn->fd);
        pthread_mutex_lock(&s->mu);
        cn->next = s->conns;
        if (s->conns) s->conns->prev = cn;
        s->conns = cn;
        pthread_mutex_unlock(&s->mu);
        return;
    }
    conn *cn = *socket_context;
    if (!cn) return;
    pthread_mutex_lock(&s->mu);
    if (cn->prev) cn->prev->next = cn->next;
    else s->conns = cn->next;
    if (cn->next) cn->next->prev = cn->prev;
    pthread_mutex_unlock(&s->mu);
    atomic_fetch_sub(&s->n_conn, 1);
    free(cn->words);
    free(cn);
    *socket_context = NULL;
}

static void on_mhd_log(void *cls, const char *fmt, va_list ap)
{
    http_server *s = cls;
    char text[512];
    vsnprintf(text, sizeof text, fmt, ap);
    text[strcspn(text, "\n")] = 0;
    log_debug("http library: %s", text);
    pthread_mutex_lock(&s->mu);
    if (s->starting && !s->said[0]) snprintf(s->said, sizeof s->said, "%.255s", text);
    pthread_mutex_unlock(&s->mu);
}

/* Percent-decoding is gate_path's: the library must leave the target alone. */
static size_t no_unescape(void *cls, struct MHD_Connection *mhd, char *s)
{
    (void)cls, (void)mhd;
    return strlen(s);
}

/* A bound, listening socket for host:port. */
static int listen_on(const http_options *o, int *port, err *e)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *list = NULL;
    char service[16];
    snprintf(service, sizeof service, "%d", o->port);
    int rc = getaddrinfo(o->host, service, &hints, &list);
    if (rc) return err_set(e, ERR_INVALID, "--host '%s': %s", o->host, gai_strerror(rc));
    int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, 1024)) {
        err_set(e, ERR_IO, "cannot listen on %s port %d: %s (choose another with --port)", o->host,
                o->port, strerror(errno));
        if (fd >= 0) close(fd);
        fd = -1;
    } else {
        struct sockaddr_storage ss;
        socklen_t len = sizeof ss;
        getsockname(fd, (struct sockaddr *)&ss, &len);
        *port = ntohs(ss.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&ss)->sin6_port
                                               : ((struct sockaddr_in *)&ss)->sin_port);
    }
    freeaddrinfo(list);
    return fd;
}

/* TLS, if it is asked for. */
static int prepare_tls(http_server *s, err *e)
{
    const http_options *o = &s->opt;
    if (!o->tls_cert) return 0;
    s->tls = true;
    if (MHD_is_feature_supported(MHD_FEATURE_HTTPS_CERT_CALLBACK2) != MHD_YES)
        return err_set(e, ERR_UNSUPPORTED,
                       "--tls-cert: the installed libmicrohttpd was built without TLS; install one "
                       "with it or let a proxy in front speak TLS");
    return tls_load(o->tls_cert, o->tls_key, e);
}

/* How much of a client's carelessness the library refuses by itself.  What gate_frame checks is
 * left to it where the library would close without a word, or send its head twice; from 1.0 on it
 * does better than that, by an option that older headers lack (MHD_OPTION_CLIENT_DISCIPLINE_LVL).
 */
enum {
    NEW_MHD = MHD_VERSION >= 0x01000000,
    DISCIPLINE_OPTION = NEW_MHD ? 38 : MHD_OPTION_STRICT_FOR_CLIENT,
    DISCIPLINE = NEW_MHD ? 3 : 0,
};

static struct MHD_Daemon *start_daemon(http_server *s, int fd)
{
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, tls_retriever()},
        {MHD_OPTION_HTTPS_PRIORITIES, 0,
         (void *)(uintptr_t) "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {MHD_OPTION_END, 0, NULL}};
    /* 16 connections above the limit exist just long enough to be told so (H4). */
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME |
            MHD_USE_ERROR_LOG | (s->tls ? MHD_USE_TLS : 0),
        0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, s,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)N_HTTP,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->opt.max_conn + 16 * N_HTTP,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONN_IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)(96 << 10), (enum MHD_OPTION)DISCIPLINE_OPTION, DISCIPLINE,
        MHD_OPTION_URI_LOG_CALLBACK, on_target, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_UNESCAPE_CALLBACK, no_unescape,
        NULL, MHD_OPTION_ARRAY, s->tls ? tls : tls + 2, MHD_OPTION_END);
}

http_server *http_start(struct app *a, const http_options *o, err *e)
{
    http_server *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    s->app = a;
    s->opt = *o;
    pthread_mutex_init(&s->mu, NULL);
    int fd = -1;
    bool ok = !prepare_tls(s, e) && (fd = listen_on(o, &s->port, e)) >= 0 && !prep_start(s, e) &&
              !watch_start(s, e);
    if (ok) {
        s->starting = true; /* no other thread yet */
        s->daemon = start_daemon(s, fd);
        pthread_mutex_lock(&s->mu);
        s->starting = false;
        pthread_mutex_unlock(&s->mu);
    }
    if (ok && !s->daemon)
        err_set(e, ERR_IO, "the HTTP library could not start (too few file descriptors?): %s",
                s->said);
    if (s->daemon) return s;
    if (fd >= 0) close(fd);
    http_stop(s);
    return NULL;
}

void http_stop(http_server *s)
{
    if (!s) return;
    atomic_store(&s->stopping, true);
    prep_stop(s);
    watch_stop(s);
    if (s->daemon) {
        /* Every suspended connection must be resumed before the daemon may stop. */
        pthread_mutex_lock(&s->mu);
        for (conn *cn = s->conns; cn; cn = cn->next)
            if (cn->call) call_wake(cn->call, WAKE_LEFT);
        pthread_mutex_unlock(&s->mu);
        MHD_stop_daemon(s->daemon);
    }
    tls_free();
    pthread_mutex_destroy(&s->mu);
    free(s);
}

const char *http_header(const http_call *c, const char *name)
{
    return MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, name);
}

const char *http_query(const http_call *c, const char *name)
{
    const char *v = NULL;
    size_t n = 0;
    enum MHD_Result found =
        MHD_lookup_connection_value_n(c->mhd, MHD_GET_ARGUMENT_KIND, name, strlen(name), &v, &n);
    return found == MHD_NO ? NULL : v ? v : "";
}
