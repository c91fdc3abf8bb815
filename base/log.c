/* log.c - formats log lines and writes them, at once or by a thread; see log.h.
 * Owns the two settings, the queue and the writer.  A blocking write() stays blocking: the flags of
 * an inherited stderr belong to everybody who has it.  Any thread after log_init; the queue is
 * under its own lock, which nobody holds while writing. */
#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { QUEUE_LINES = 4096, QUEUE_BYTES = 1 << 20 };

/* One waiting line, and how many were dropped just before it. */
typedef struct {
    char *v;
    size_t n;
    unsigned long long lost;
} line;

static log_level min_level = LOG_INFO;
static bool as_json;
static const char *const level_name[] = {"debug", "info", "warn", "error"};

static struct {
    pthread_mutex_t mu;
    pthread_cond_t more, over; /* something to write; the writer has ended */
    pthread_t thread;
    bool started;            /* the thread is to be joined; of who starts and stops it */
    bool on, closing;        /* on: lines go into the queue */
    line slot[QUEUE_LINES];  /* a ring: n lines from head */
    size_t head, n, n_bytes; /* bytes of the lines in it */
    unsigned long long lost; /* lines dropped behind the newest in it */
} queue = {.mu = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};
static atomic_ullong dropped;

void log_init(log_level min, bool json)
{
    min_level = min;
    as_json = json;
}

bool log_enabled(log_level level)
{
    return level >= min_level;
}

bool log_is_json(void)
{
    return as_json;
}

unsigned long long log_dropped(void)
{
    return atomic_load_explicit(&dropped, memory_order_relaxed);
}

/* ---- writing --------------------------------------------------------------------------------- */

/* All of it, in one write() unless stderr takes less. */
static bool write_all(const char *v, size_t n)
{
    while (n) {
        ssize_t w = write(STDERR_FILENO, v, n);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0 && errno == EAGAIN) { /* somebody else made it non-blocking */
            struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
            poll(&p, 1, -1);
            continue;
        }
        if (w <= 0) return false;
        v += w;
        n -= (size_t)w;
    }
    return true;
}

static void drop(void)
{
    atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
}

static void format(buf *b, log_level level, const char *prefix, const char *text, size_t n,
                   const buf *members)
{
    if (!as_json) {
        buf_puts(b, prefix);
        buf_put(b, text, n);
        buf_putc(b, '\n');
        return;
    }
    struct timespec ts;
    struct tm tm;
    char stamp[32];
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(b, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"msg\":", stamp, ts.tv_nsec / 1000000,
               level_name[level]);
    buf_put_json(b, text, n);
    if (members) buf_put(b, members->v, members->len);
    buf_puts(b, "}\n");
}

/* The line that stands where lost others would. */
static bool tell_lost(unsigned long long lost)
{
    char text[128], prefix[16];
    buf b = {0}, members = {0};
    log_level level = min_level > LOG_WARN ? LOG_ERROR : LOG_WARN;
    int n = snprintf(text, sizeof text,
                     "%llu log line%s missing here: stderr was full or could not be written", lost,
                     lost == 1 ? " is" : "s are");
    snprintf(prefix, sizeof prefix, "%s: ", level_name[level]);
    buf_printf(&members, ",\"dropped\":%llu", lost);
    format(&b, level, prefix, text, (size_t)n, buf_ok(&members) ? &members : NULL);
    bool ok = buf_ok(&b) && write_all(b.v, b.len);
    buf_clear(&members);
    buf_clear(&b);
    return ok;
}

/* Under the lock: the oldest line, or only what was dropped behind it. */
static line take(void)
{
    line l = {.lost = queue.lost};
    if (queue.n) {
        l = queue.slot[queue.head];
        queue.head = (queue.head + 1) % QUEUE_LINES;
        queue.n--;
        queue.n_bytes -= l.n;
    } else {
        queue.lost = 0;
    }
    return l;
}

static void *writer_main(void *unused)
{
    unsigned long long lost = 0; /* and not told yet */
    (void)unused;
    pthread_mutex_lock(&queue.mu);
    for (;;) {
        while (!queue.n && !queue.lost && !queue.closing) pthread_cond_wait(&queue.more, &queue.mu);
        if (!queue.n && !queue.lost) break;
        line l = take();
        pthread_mutex_unlock(&queue.mu);
        lost += l.lost;
        if (lost && tell_lost(lost)) lost = 0;
        if (l.v && !write_all(l.v, l.n)) {
            drop();
            lost++;
        }
        free(l.v);
        pthread_mutex_lock(&queue.mu);
    }
    queue.on = false;
    pthread_cond_signal(&queue.over);
    pthread_mutex_unlock(&queue.mu);
    return unused;
}

/* Takes the line's bytes; false: there is no writer. */
static bool enqueue(buf *b)
{
    pthread_mutex_lock(&queue.mu);
    bool on = queue.on;
    if (on && buf_ok(b) && queue.n < QUEUE_LINES && b->len <= QUEUE_BYTES - queue.n_bytes) {
        line l = {.lost = queue.lost};
        l.v = buf_take(b, &l.n);
        queue.slot[(queue.head + queue.n++) % QUEUE_LINES] = l;
        queue.n_bytes += l.n;
        queue.lost = 0;
    } else if (on) {
        queue.lost++;
        drop();
    }
    if (on) pthread_cond_signal(&queue.more);
    pthread_mutex_unlock(&queue.mu);
    return on;
}

static void put_line(log_level level, const char *prefix, const char *text, size_t n,
                     const buf *members)
{
    buf b = {0};
    format(&b, level, prefix, text, n, members);
    if (!enqueue(&b) && !(buf_ok(&b) && write_all(b.v, b.len))) drop();
    buf_clear(&b);
}

int log_writer_start(err *e)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue.over, &monotonic);
    pthread_condattr_destroy(&monotonic);
    queue.closing = false;
    int rc = thread_start(&queue.thread, "the thread of the log", writer_main, NULL, e);
    if (rc) return rc;
    pthread_mutex_lock(&queue.mu);
    queue.on = queue.started = true;
    pthread_mutex_unlock(&queue.mu);
    return 0;
}

void log_writer_stop(void)
{
    struct timespec end;
    if (!queue.started) return;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += LOG_FLUSH_MS / 1000;
    pthread_mutex_lock(&queue.mu);
    queue.closing = true;
    pthread_cond_signal(&queue.more);
    while (queue.on && pthread_cond_timedwait(&queue.over, &queue.mu, &end) != ETIMEDOUT) {
    }
    queue.started = queue.on;
    pthread_mutex_unlock(&queue.mu);
    if (queue.started) return;
    pthread_join(queue.thread, NULL);
    pthread_cond_destroy(&queue.over);
}

/* ---- saying ---------------------------------------------------------------------------------- */

void log_members(log_level level, const char *msg, const buf *members)
{
    char prefix[16] = "";
    if (!log_enabled(level)) return;
    if (level != LOG_INFO) snprintf(prefix, sizeof prefix, "%s: ", level_name[level]);
    put_line(level, prefix, msg, strlen(msg), members);
}

void log_failure(const char *msg)
{
    put_line(LOG_ERROR, "quern: ", msg, strlen(msg), NULL);
}

void log_at(log_level level, const char *fmt, ...)
{
    if (!log_enabled(level)) return;
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n >= 0) log_members(level, text, NULL);
}
