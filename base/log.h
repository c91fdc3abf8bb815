/* log.h - log lines on stderr, as text or as JSON lines.  Any thread; a line is written by one
 * write() so that lines never mix.
 *
 * A program that must not wait for whoever reads its stderr starts the writer: from then on a line
 * goes into a queue of bounded size, one thread writes what is in it, and a line that finds the
 * queue full is dropped and counted.  Where lines are missing, the log says how many. */
#ifndef QUERN_BASE_LOG_H
#define QUERN_BASE_LOG_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

typedef enum { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level;

/* Call before threads start. */
void log_init(log_level min, bool json);
void log_at(log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool log_enabled(log_level level);
bool log_is_json(void);
/* A line of the JSON format with further members: ,"name":value ... */
void log_members(log_level level, const char *msg, const buf *members);
/* What ends the program, whatever the least level; as text it begins with "quern: ". */
void log_failure(const char *msg);

/* From here on no caller waits for stderr.  The thread takes no signal that the caller blocks. */
int log_writer_start(err *e);
/* Writes what waits, for LOG_FLUSH_MS at most, and ends the thread: then callers write again
 * themselves.  If stderr takes nothing for so long, the thread is left behind with what waits.
 * Call it before the process ends; nothing happens without a writer. */
enum { LOG_FLUSH_MS = 1000 };
void log_writer_stop(void);
/* Lines that never came out: the queue was full, or the write failed. */
unsigned long long log_dropped(void);

#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)

#endif
