/* metrics.c - owns the counters of the server's side; see metrics.h.  The page is metrics_page.c.
 */
#include "server/metrics.h"

#include <stdatomic.h>
#include <string.h>

const double metrics_latency[METRICS_LATENCIES] = {
    .3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double compile_bound[] = {.0001, .00025, .0005, .001, .0025, .005, .01,
                                       .025,  .05,    .1,    .25,  .5,    1,    2.5};
enum { N_COMPILE = sizeof compile_bound / sizeof *compile_bound };
static const char *const codes[METRICS_CODES] = {"invalid_schema",          "unsupported_schema",
                                                 "invalid_grammar",         "grammar_too_complex",
                                                 "conflicting_constraints", "other"};

/* (handler, method, status) is a small closed set: patterns come from the route table. */
typedef struct {
    const char *pattern, *method;
    int status;
    atomic_ullong n, count[METRICS_LATENCIES + 1], sum_us;
} series;

static series table[METRICS_SERIES];
static atomic_int n_series;
static atomic_flag adding = ATOMIC_FLAG_INIT;

static atomic_ullong ignored_fields, tool_calls[METRICS_FORMATS][2], rejected[METRICS_CODES];
static atomic_ullong compile_count[N_COMPILE + 1], compile_ns;

static void add(atomic_ullong *v, unsigned long long n)
{
    atomic_fetch_add_explicit(v, n, memory_order_relaxed);
}

static unsigned long long get(atomic_ullong *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

static int bucket(const double *bound, int n, double v)
{
    int k = 0;
    while (k < n && v > bound[k]) k++;
    return k;
}

void metrics_ignored_field(void)
{
    add(&ignored_fields, 1);
}

void metrics_tool_calls(call_format f, int n_complete, int n_truncated)
{
    if ((unsigned)f >= METRICS_FORMATS) return;
    add(&tool_calls[f][0], (unsigned long long)n_complete);
    add(&tool_calls[f][1], (unsigned long long)n_truncated);
}

void metrics_grammar_compile(double seconds)
{
    add(&compile_count[bucket(compile_bound, N_COMPILE, seconds)], 1);
    add(&compile_ns, (unsigned long long)(seconds * 1e9));
}

void metrics_grammar_rejected(const char *code)
{
    int i = 0;
    while (i < METRICS_CODES - 1 && strcmp(codes[i], code)) i++;
    add(&rejected[i], 1);
}

/* ---- HTTP ------------------------------------------------------------------------------------ */

static series *find(const char *pattern, const char *method, int status)
{
    int n = atomic_load_explicit(&n_series, memory_order_acquire);
    for (int i = 0; i < n; i++)
        if (table[i].status == status && !strcmp(table[i].pattern, pattern) &&
            !strcmp(table[i].method, method))
            return &table[i];
    return NULL;
}

static series *find_or_add(const char *pattern, const char *method, int status)
{
    series *s = find(pattern, method, status);
    if (s) return s;
    while (atomic_flag_test_and_set_explicit(&adding, memory_order_acquire)) {
    }
    s = find(pattern, method, status);
    int n = atomic_load_explicit(&n_series, memory_order_relaxed);
    if (!s && n < METRICS_SERIES) {
        s = &table[n];
        s->pattern = pattern;
        s->method = method;
        s->status = status;
        atomic_store_explicit(&n_series, n + 1, memory_order_release);
    }
    atomic_flag_clear_explicit(&adding, memory_order_release);
    return s;
}

void metrics_http(const char *pattern, const char *method, int status, double seconds)
{
    static const char *const known[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"};
    const char *m = "other"; /* a label never carries a client's own text */
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(method, known[i])) m = known[i];
    series *s = find_or_add(pattern, m, status);
    if (!s) return;
    add(&s->n, 1);
    add(&s->count[bucket(metrics_latency, METRICS_LATENCIES, seconds)], 1);
    add(&s->sum_us, (unsigned long long)(seconds * 1e6));
}

/* ---- reading --------------------------------------------------------------------------------- */

const char *metrics_code(int i)
{
    return codes[i];
}

bool metrics_http_at(int i, http_series *out)
{
    if (i >= atomic_load_explicit(&n_series, memory_order_acquire)) return false;
    series *s = &table[i];
    *out = (http_series){.pattern = s->pattern, .method = s->method, .status = s->status};
    out->n = get(&s->n);
    out->sum_us = get(&s->sum_us);
    for (int b = 0; b <= METRICS_LATENCIES; b++) out->count[b] = get(&s->count[b]);
    return true;
}

void metrics_read(server_counters *out)
{
    *out = (server_counters){.ignored_fields = get(&ignored_fields)};
    for (int i = 0; i < METRICS_FORMATS; i++)
        for (int k = 0; k < 2; k++) out->calls[i][k] = get(&tool_calls[i][k]);
    for (int i = 0; i < METRICS_CODES; i++) out->rejected[i] = get(&rejected[i]);
    out->compile.n = N_COMPILE;
    out->compile.sum = (double)get(&compile_ns) * 1e-9;
    for (int i = 0; i < N_COMPILE; i++) out->compile.bound[i] = compile_bound[i];
    for (int i = 0; i <= N_COMPILE; i++) out->compile.count[i] = get(&compile_count[i]);
}
