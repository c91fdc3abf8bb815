/* log.h - log lines on stderr, as text or as JSON lines.  Any thread; a line is written by one
 * write() so that lines never mix. */
#ifndef QUERN_BASE_LOG_H
#define QUERN_BASE_LOG_H

#include "base/buf.h"

#include <stdbool.h>

typedef enum { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level;

/* Call before threads start. */
void log_init(log_level min, bool json);
void log_at(log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool log_enabled(log_level level);
bool log_is_json(void);
/* A line of the JSON format with further members: ,"name":value ... */
void log_members(log_level level, const char *msg, const buf *members);

#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)

#endif
