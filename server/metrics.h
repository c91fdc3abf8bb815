/* metrics.h - counters of the server's side and the Prometheus page (API section 18).  What the
 * engine counts is in engine_counters; the page shows both.
 * Thread: relaxed atomics, any thread; the (handler, method, status) table is fixed in size. */
#ifndef QUERN_SERVER_METRICS_H
#define QUERN_SERVER_METRICS_H

#include "engine/engine.h"

/* One finished HTTP request; pattern is a route's, or "other". */
void metrics_http(const char *pattern, const char *method, int status, double seconds);
/* A field of a request had no effect (V6). */
void metrics_ignored_field(void);
/* The calls of one finished choice: complete ones, and the one cut short. */
void metrics_tool_calls(call_format f, int n_complete, int n_truncated);
/* A schema, regex, choice or grammar was compiled, or refused, in that time. */
void metrics_grammar_compile(double seconds);
/* ... and refused with this error code (E3): invalid_schema, unsupported_schema, invalid_grammar,
 * grammar_too_complex, conflicting_constraints. */
void metrics_grammar_rejected(const char *code);

/* ---- for the page ---------------------------------------------------------------------------- */

enum { METRICS_LATENCIES = 21, METRICS_SERIES = 512, METRICS_FORMATS = 5, METRICS_CODES = 6 };

/* One (handler, method, status). */
typedef struct {
    const char *pattern; /* static text of the route table */
    const char *method;  /* static */
    int status;
    unsigned long long n, count[METRICS_LATENCIES + 1], sum_us;
} http_series;

typedef struct {
    unsigned long long ignored_fields;
    unsigned long long calls[METRICS_FORMATS][2]; /* by call_format; complete, truncated */
    unsigned long long rejected[METRICS_CODES];   /* in the order of metrics_code */
    histogram compile;
} server_counters;

extern const double metrics_latency[METRICS_LATENCIES]; /* bounds of http_series */
/* Name of a code of rejected[i]; the last one is "other". */
const char *metrics_code(int i);
void metrics_read(server_counters *out);
/* The i-th series; false behind the last. */
bool metrics_http_at(int i, http_series *out);

#endif
