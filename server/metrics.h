/* metrics.h - counters of the HTTP side and the Prometheus page (API section 18).
 * Thread: relaxed atomics; the (handler, method, status) table is fixed in size. */
#ifndef QUERN_SERVER_METRICS_H
#define QUERN_SERVER_METRICS_H

/* One finished HTTP request; pattern is a route's, or "other". */
void metrics_http(const char *pattern, const char *method, int status, double seconds);
void metrics_ignored_field(void);

#endif
