/* log.c - owns the two log settings; see log.h.  Any thread after log_init. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static log_level min_level = LOG_INFO;
static bool as_json;
static const char *const level_name[] = {"debug", "info", "warn", "error"};

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

static void write_line(log_level level, const char *text, size_t n, const buf *members)
{
    struct timespec ts;
    struct tm tm;
    char stamp[32];
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);

    buf b = {0};
    if (as_json) {
        buf_printf(&b, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"msg\":", stamp,
                   ts.tv_nsec / 1000000, level_name[level]);
        buf_put_json(&b, text, n);
        if (members) buf_put(&b, members->v, members->len);
        buf_puts(&b, "}\n");
    } else {
        if (level == LOG_INFO) buf_printf(&b, "%.*s\n", (int)n, text);
        else buf_printf(&b, "%s: %.*s\n", level_name[level], (int)n, text);
    }
    if (buf_ok(&b)) {
        ssize_t w = write(STDERR_FILENO, b.v, b.len);
        (void)w; /* nowhere to report a log that cannot be written */
    }
    buf_clear(&b);
}

void log_members(log_level level, const char *msg, const buf *members)
{
    if (log_enabled(level)) write_line(level, msg, strlen(msg), members);
}

void log_at(log_level level, const char *fmt, ...)
{
    if (!log_enabled(level)) return;
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0) return;
    if ((size_t)n >= sizeof text) n = (int)sizeof text - 1;

    write_line(level, text, (size_t)n, NULL);
}
