/* engine_stats.c - owns the buckets of the histograms and the copying of counters; see
 * engine_stats.h. */
#include "engine/engine_stats.h"

#include <string.h>

static const double ttft_bounds[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                     1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
static const double itl_bounds[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                    .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
static const double latency_bounds[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                        30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
/* 1-2-5 up to the context: 27 bounds reach half a billion tokens. */
static const double size_bounds[] = {1,   2,   5,   1e1, 2e1, 5e1, 1e2, 2e2, 5e2,
                                     1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5,
                                     1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8, 2e8, 5e8};
static const double step_bounds[] = {1,   8,    16,   32,   64,   128,  256,
                                     512, 1024, 2048, 4096, 8192, 16384};
static const double choice_bounds[] = {1, 2, 5, 10, 20, 50, 100, 128};
static const double block_bounds[] = {.001, .002, .005, .01, .02, .05, .1,  .2,  .5,   1,   2,
                                      5,    10,   20,   30,  60,  120, 300, 600, 1200, 1800};

enum {
    ttft_n = sizeof ttft_bounds / sizeof *ttft_bounds,
    itl_n = sizeof itl_bounds / sizeof *itl_bounds,
    latency_n = sizeof latency_bounds / sizeof *latency_bounds,
    step_n = sizeof step_bounds / sizeof *step_bounds,
    choice_n = sizeof choice_bounds / sizeof *choice_bounds,
    block_n = sizeof block_bounds / sizeof *block_bounds,
    size_n = sizeof size_bounds / sizeof *size_bounds
};
_Static_assert((int)size_n <= HIST_MAX && (int)ttft_n <= HIST_MAX,
               "a histogram of engine.h holds all buckets");

void stats_init(live_stats *s, int64_t ctx)
{
    memset(s, 0, sizeof *s);
#define X(field, kind)              \
    s->field.bound = kind##_bounds; \
    s->field.n = kind##_n;
    STATS_HISTOGRAMS(X)
#undef X
    int n = 0;
    while (n < size_n && size_bounds[n] <= (double)ctx) n++;
    s->prompt_size.n = s->generation_size.n = n;
    s->longest.n = s->max_tokens.n = s->computed.n = n;
}

void stats_observe(live_histogram *h, double v)
{
    int i = 0;
    while (i < h->n && v > h->bound[i]) i++;
    stats_add(h->count[i], 1);
    stats_add(h->sum, v);
}

void stats_throughput(live_stats *s, int n, int64_t now_us)
{
    int64_t span = now_us - s->window_us;
    s->window_tokens += n;
    if (span < 1000000) return;
    /* After an idle time the window says nothing: start a new one. */
    double rate = (double)s->window_tokens * 1e6 / (double)span;
    double old = atomic_load_explicit(&s->tok_per_s, memory_order_relaxed);
    if (span < 5000000) stats_set(s->tok_per_s, old > 0 ? 0.5 * old + 0.5 * rate : rate);
    s->window_us = now_us;
    s->window_tokens = 0;
}

static void read_histogram(const live_histogram *h, histogram *out)
{
    out->n = h->n;
    for (int i = 0; i < h->n; i++) out->bound[i] = h->bound[i];
    for (int i = 0; i <= h->n; i++)
        out->count[i] = atomic_load_explicit(&h->count[i], memory_order_relaxed);
    out->sum = atomic_load_explicit(&h->sum, memory_order_relaxed);
}

void stats_read(const live_stats *s, engine_counters *out)
{
    memset(out, 0, sizeof *out);
#define X(name) out->name = atomic_load_explicit(&s->name, memory_order_relaxed);
    STATS_COUNTERS(X)
    STATS_GAUGES(X)
    STATS_SECONDS(X)
#undef X
#define X(name, kind) read_histogram(&s->name, &out->name);
    STATS_HISTOGRAMS(X)
#undef X
    for (int i = 0; i < 5; i++)
        out->finished[i] = atomic_load_explicit(&s->finished[i], memory_order_relaxed);
    for (int i = 0; i < DRAFT_MAX; i++)
        out->accepted_at[i] = atomic_load_explicit(&s->accepted_at[i], memory_order_relaxed);
    out->rejected = atomic_load_explicit(&s->rejected, memory_order_relaxed);
}
