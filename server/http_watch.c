/* http_watch.c - the watchdog: late headers, slow bodies, silent hang-ups, keep-alive ticks (API
 * H4, H14, H16).  A suspended connection is invisible to the HTTP library, so its socket is polled
 * here. Owns the watch thread.  It never closes a descriptor: it shuts the socket down and lets the
 * library find that out. */
#include "server/http_internal.h"

#include "base/clock.h"
#include "base/thread.h"
#include "server/reply.h"
#include "version.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static void hang_up(conn *cn)
{
    shutdown(cn->fd, SHUT_RDWR);
}

static int64_t to_us(double seconds)
{
    return (int64_t)(seconds * 1e6);
}

/* Of a call in CALL_BODY. */
static bool is_slow(http_call *c, int64_t now)
{
    gate_body p = {c->headers_us, atomic_load(&c->body_us), atomic_load(&c->n_got)};
    return gate_body_late(&p, to_us(c->srv->opt.body_s), now);
}

/* The whole 408 of a call that is known by its path; NULL without memory. */
static char *late_words(const http_call *c)
{
    buf body = {0}, all = {0};
    const char *id = c->pass.request_id;
    dialect d = route_dialect(c->path, false);
    reply_error(&body, d, id, 408, "invalid_request_error", "request_timeout", NULL,
                "the body came too slowly");
    buf_printf(&all, "HTTP/1.1 408 Request Timeout\r\nserver: quern/%s\r\nx-request-id: %s\r\n",
               QUERN_VERSION, id);
    if (d == DIALECT_ANTHROPIC) buf_printf(&all, "request-id: %s\r\n", id);
    buf_printf(
        &all,
        "Content-Type: application/json\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
        body.len, buf_str(&body));
    bool whole = buf_ok(&body) && buf_ok(&all);
    buf_clear(&body);
    if (whole) return buf_take(&all, NULL);
    buf_clear(&all);
    return NULL;
}

/* 408.  Only the thread that reads a TLS connection may write to it, so it is asked to. */
static void end_body(conn *cn, http_call *c, int64_t now)
{
    if (!c->late_us) {
        c->late_us = now;
        cn->words = late_words(c);
        if (c->srv->tls && cn->words) {
            tls_line_end(&cn->tls, cn->words);
            return;
        }
        ssize_t w = !cn->words
                        ? 0
                        : send(cn->fd, cn->words, strlen(cn->words), MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)w; /* a client that does not read either just sees the end */
        hang_up(cn);
    } else if (!c->srv->tls || now - c->late_us > to_us(LAST_WORDS_S)) {
        hang_up(cn);
    }
}

/* Called with server.mu held, so the call cannot be freed meanwhile. */
static void watch_call(conn *cn, http_call *c, int64_t now)
{
    pthread_mutex_lock(&c->mu);
    call_phase phase = c->phase;
    bool quiet = phase == CALL_STREAM || phase == CALL_WAIT;
    int64_t last = atomic_load(&c->out_us);
    bool ping =
        quiet && c->ping_us > 0 && c->suspended && now - (last ? last : c->start_us) >= c->ping_us;
    if (ping) atomic_store(&c->out_us, now);
    pthread_mutex_unlock(&c->mu);
    if (phase == CALL_HEADERS && now - c->start_us > to_us(c->srv->opt.header_s)) {
        c->late_us = now;
        hang_up(cn);
    } else if (phase == CALL_BODY && is_slow(c, now)) {
        end_body(cn, c, now);
    } else if (ping) {
        call_wake(c, WAKE_TICK);
    }
}

static bool has_left(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

static void watch_conn(const http_server *s, conn *cn, int64_t now)
{
    http_call *c = cn->call;
    if (!c) {
        if (now - cn->since_us > to_us(cn->served ? CONN_IDLE_S : s->opt.header_s)) hang_up(cn);
        return;
    }
    pthread_mutex_lock(&c->mu);
    bool alive = c->phase == CALL_PREP || c->phase == CALL_WAIT || c->phase == CALL_STREAM;
    bool told = c->left;
    call_phase phase = c->phase;
    pthread_mutex_unlock(&c->mu);
    if (alive && (told || has_left(cn->fd))) {
        if (phase != CALL_PREP) {
            if (c->waiter) c->waiter->gone(c->ctx);
            hang_up(cn);
        }
        call_wake(c, WAKE_LEFT);
        return;
    }
    watch_call(cn, c, now);
}

static void *watch_main(void *v)
{
    http_server *s = v;
    struct timespec nap = {0, WATCH_PERIOD_MS * 1000000L};
    while (!atomic_load(&s->stopping)) {
        nanosleep(&nap, NULL);
        int64_t now = clock_us();
        pthread_mutex_lock(&s->mu);
        for (conn *cn = s->conns; cn; cn = cn->next) watch_conn(s, cn, now);
        pthread_mutex_unlock(&s->mu);
    }
    return NULL;
}

int watch_start(http_server *s, err *e)
{
    int rc = thread_start(&s->watch, "the watchdog", watch_main, s, e);
    s->watch_on = !rc;
    return rc;
}

void watch_stop(http_server *s)
{
    if (s->watch_on) pthread_join(s->watch, NULL);
    s->watch_on = false;
}
