/* metrics.c - the Prometheus page of API section 18; see metrics.h.  Owns the HTTP counters. */
#include "server/metrics.h"

#include "base/clock.h"
#include "base/sysinfo.h"
#include "server/api.h"
#include "server/app.h"
#include "server/reply.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* (handler, method, status) is a small closed set: patterns come from the route table. */
enum { MAX_SERIES = 512, N_BOUND = 21 };
static const double bound[N_BOUND] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                      30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

typedef struct {
    const char *pattern; /* static text of the route table */
    char method[8];
    int status;
    atomic_ullong n, count[N_BOUND + 1], sum_us;
} series;

static series table[MAX_SERIES];
static atomic_int n_series;
static atomic_flag adding = ATOMIC_FLAG_INIT;
static atomic_ullong ignored_fields;

void metrics_ignored_field(void)
{
    atomic_fetch_add_explicit(&ignored_fields, 1, memory_order_relaxed);
}

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
    if (!s && n < MAX_SERIES) {
        s = &table[n];
        s->pattern = pattern;
        snprintf(s->method, sizeof s->method, "%s", method);
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
    int k = 0;
    while (k < N_BOUND && seconds > bound[k]) k++;
    atomic_fetch_add_explicit(&s->n, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->count[k], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->sum_us, (unsigned long long)(seconds * 1e6),
                              memory_order_relaxed);
}

/* ---- page ------------------------------------------------------------------------------------ */

typedef struct {
    buf *out;
    const char *model; /* label text, escaped */
} page;

static void head(page *p, const char *name, const char *type, const char *help)
{
    buf_printf(p->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void value(page *p, const char *name, const char *labels, double v)
{
    buf_puts(p->out, name);
    if (*labels) buf_printf(p->out, "{%s}", labels);
    buf_putc(p->out, ' ');
    buf_put_num(p->out, v);
    buf_putc(p->out, '\n');
}

static void plain(page *p, const char *name, const char *type, const char *help, double v)
{
    head(p, name, type, help);
    value(p, name, "", v);
}

/* A series of the vllm: family, with its two labels. */
static void vllm(page *p, const char *name, const char *type, const char *help, double v)
{
    char labels[600];
    snprintf(labels, sizeof labels, "model_name=\"%s\",engine=\"0\"", p->model);
    head(p, name, type, help);
    value(p, name, labels, v);
}

static void vllm_histogram(page *p, const char *name, const char *help, const histogram *h)
{
    uint64_t sum = 0;
    head(p, name, "histogram", help);
    for (int i = 0; i <= h->n; i++) {
        sum += h->count[i];
        buf_printf(p->out, "%s_bucket{model_name=\"%s\",engine=\"0\",le=\"", name, p->model);
        if (i < h->n) buf_put_num(p->out, h->bound[i]);
        else buf_puts(p->out, "+Inf");
        buf_printf(p->out, "\"} %llu\n", (unsigned long long)sum);
    }
    buf_printf(p->out, "%s_sum{model_name=\"%s\",engine=\"0\"} ", name, p->model);
    buf_put_num(p->out, h->sum);
    buf_printf(p->out, "\n%s_count{model_name=\"%s\",engine=\"0\"} %llu\n", name, p->model,
               (unsigned long long)sum);
}

static void vllm_part(page *p, const app *a, const engine_counters *k)
{
    const engine_info_t *info = engine_info(a->eng);
    int total = k->kv_total > 0 ? k->kv_total : 1;
    vllm(p, "vllm:num_requests_running", "gauge", "Sequences in the batch.", k->running);
    vllm(p, "vllm:num_requests_waiting", "gauge", "Sequences in the queue.", k->waiting);
    vllm(p, "vllm:kv_cache_usage_perc", "gauge", "Share of KV blocks in use, 0 to 1.",
         (double)k->kv_used / total);
    head(p, "vllm:cache_config_info", "gauge", "KV cache settings.");
    buf_printf(p->out,
               "vllm:cache_config_info{model_name=\"%s\",engine=\"0\",block_size=\"%d\",num_gpu_"
               "blocks=\"%d\","
               "cache_dtype=\"%s\",enable_prefix_caching=\"%s\"} 1\n",
               p->model, info->kv_block, info->n_kv_blocks, info->kv_dtype ? info->kv_dtype : "",
               a->opt->no_prefix_caching ? "False" : "True");
    const struct {
        const char *name, *help;
        uint64_t v;
    } counter[] = {
        {"vllm:prompt_tokens_total", "Prompt tokens of accepted requests.", k->prompt_tokens},
        {"vllm:generation_tokens_total", "Generated tokens.", k->generation_tokens},
        {"vllm:num_preemptions_total", "Preemptions.", k->preemptions},
        {"vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache.",
         k->prefix_queries},
        {"vllm:prefix_cache_hits_total", "Tokens found in the prefix cache.", k->prefix_hits},
        {"vllm:prompt_tokens_cached_total", "Prompt tokens whose KV was reused.",
         k->cached_tokens}};
    for (size_t i = 0; i < sizeof counter / sizeof *counter; i++)
        vllm(p, counter[i].name, "counter", counter[i].help, (double)counter[i].v);
    head(p, "vllm:request_success_total", "counter", "Finished sequences by reason.");
    static const struct {
        const char *name;
        finish_reason f;
    } reason[] = {{"stop", FINISH_STOP},
                  {"length", FINISH_LENGTH},
                  {"abort", FINISH_ABORT},
                  {"error", FINISH_ERROR}};
    for (int i = 0; i < 4; i++)
        buf_printf(p->out,
                   "vllm:request_success_total{model_name=\"%s\",engine=\"0\",finished_reason=\"%"
                   "s\"} %llu\n",
                   p->model, reason[i].name, (unsigned long long)k->finished[reason[i].f]);
    const struct {
        const char *name, *help;
        const histogram *h;
    } hist[] = {
        {"vllm:time_to_first_token_seconds", "Arrival to first token.", &k->ttft},
        {"vllm:inter_token_latency_seconds", "Between tokens of a sequence.", &k->itl},
        {"vllm:e2e_request_latency_seconds", "Arrival to end.", &k->e2e},
        {"vllm:request_queue_time_seconds", "Arrival to first step.", &k->queue},
        {"vllm:request_inference_time_seconds", "First step to end.", &k->inference},
        {"vllm:request_prefill_time_seconds", "First step to first token.", &k->prefill},
        {"vllm:request_decode_time_seconds", "First token to end.", &k->decode},
        {"vllm:request_prompt_tokens", "Prompt tokens of a sequence.", &k->prompt_size},
        {"vllm:request_generation_tokens", "Generated tokens of a sequence.", &k->generation_size}};
    for (size_t i = 0; i < sizeof hist / sizeof *hist; i++)
        vllm_histogram(p, hist[i].name, hist[i].help, hist[i].h);
}

static void llamacpp_part(page *p, const engine_counters *k)
{
    plain(p, "llamacpp:prompt_tokens_total", "counter", "Prompt tokens processed.",
          (double)(k->prompt_tokens - k->cached_tokens));
    plain(p, "llamacpp:prompt_seconds_total", "counter", "Time spent on prompts.",
          k->prompt_seconds);
    plain(p, "llamacpp:tokens_predicted_total", "counter", "Tokens generated.",
          (double)k->generation_tokens);
    plain(p, "llamacpp:tokens_predicted_seconds_total", "counter", "Time spent generating.",
          k->predicted_seconds);
    plain(p, "llamacpp:n_decode_total", "counter", "Forward passes.", (double)k->steps);
    plain(p, "llamacpp:n_tokens_max", "counter", "Largest context seen.", k->n_tokens_max);
    plain(p, "llamacpp:prompt_tokens_seconds", "gauge", "Prompt tokens a second.",
          k->prompt_seconds > 0 ? (double)(k->prompt_tokens - k->cached_tokens) / k->prompt_seconds
                                : 0);
    plain(p, "llamacpp:predicted_tokens_seconds", "gauge", "Generated tokens a second.",
          k->predicted_seconds > 0 ? (double)k->generation_tokens / k->predicted_seconds : 0);
    plain(p, "llamacpp:requests_processing", "gauge", "Sequences running.", k->running);
    plain(p, "llamacpp:requests_deferred", "gauge", "Sequences waiting.", k->waiting);
    plain(p, "llamacpp:n_busy_slots_per_decode", "gauge",
          "Sequences in a forward pass, on average.",
          k->steps ? (double)k->busy_slots / (double)k->steps : 0);
}

static void http_part(page *p)
{
    int n = atomic_load_explicit(&n_series, memory_order_acquire);
    head(p, "http_requests_total", "counter", "HTTP requests.");
    for (int i = 0; i < n; i++)
        buf_printf(p->out, "http_requests_total{handler=\"%s\",method=\"%s\",status=\"%d\"} %llu\n",
                   table[i].pattern, table[i].method, table[i].status,
                   (unsigned long long)atomic_load(&table[i].n));
    head(p, "http_request_duration_seconds", "histogram", "HTTP request duration.");
    for (int i = 0; i < n; i++) {
        /* Statuses of one handler and method are one series. */
        bool first = true;
        for (int j = 0; j < i; j++)
            first &=
                table[j].pattern != table[i].pattern || strcmp(table[j].method, table[i].method);
        if (!first) continue;
        uint64_t count[N_BOUND + 1] = {0}, sum_us = 0, run = 0;
        for (int j = i; j < n; j++) {
            if (table[j].pattern != table[i].pattern || strcmp(table[j].method, table[i].method))
                continue;
            for (int b = 0; b <= N_BOUND; b++) count[b] += atomic_load(&table[j].count[b]);
            sum_us += atomic_load(&table[j].sum_us);
        }
        for (int b = 0; b <= N_BOUND; b++) {
            run += count[b];
            buf_printf(p->out,
                       "http_request_duration_seconds_bucket{handler=\"%s\",method=\"%s\",le=\"",
                       table[i].pattern, table[i].method);
            if (b < N_BOUND) buf_put_num(p->out, bound[b]);
            else buf_puts(p->out, "+Inf");
            buf_printf(p->out, "\"} %llu\n", (unsigned long long)run);
        }
        buf_printf(p->out, "http_request_duration_seconds_sum{handler=\"%s\",method=\"%s\"} ",
                   table[i].pattern, table[i].method);
        buf_put_num(p->out, (double)sum_us * 1e-6);
        buf_printf(p->out,
                   "\nhttp_request_duration_seconds_count{handler=\"%s\",method=\"%s\"} %llu\n",
                   table[i].pattern, table[i].method, (unsigned long long)run);
    }
}

static void own_part(page *p, const app *a, const engine_counters *k)
{
    const engine_info_t *info = engine_info(a->eng);
    char labels[160];
    plain(p, "process_cpu_seconds_total", "counter", "Processor time used.", sys_cpu_seconds());
    plain(p, "process_resident_memory_bytes", "gauge", "Resident memory.", (double)sys_rss());
    plain(p, "process_open_fds", "gauge", "Open file descriptors.", sys_open_fds());
    plain(p, "process_start_time_seconds", "gauge", "Start, Unix seconds.", (double)a->start_unix);
    head(p, "quern_build_info", "gauge", "Build.");
    snprintf(labels, sizeof labels, "version=\"%s\",commit=\"%s\",backend=\"%s\"", QUERN_VERSION,
             QUERN_COMMIT, info->backend ? info->backend : "");
    value(p, "quern_build_info", labels, 1);
    plain(p, "quern_ready", "gauge", "1 when requests are accepted.",
          engine_status(a->eng) == ENGINE_READY && !atomic_load(&a->draining));
    plain(p, "quern_connections", "gauge", "Open connections.", http_connections(a->http));
    head(p, "quern_kv_blocks", "gauge", "KV blocks by state.");
    value(p, "quern_kv_blocks", "state=\"used\"", k->kv_used);
    value(p, "quern_kv_blocks", "state=\"cached\"", k->kv_cached);
    value(p, "quern_kv_blocks", "state=\"free\"", k->kv_free);
    plain(p, "quern_model_load_seconds", "gauge", "Time to load the model.", a->load_seconds);
    head(p, "quern_cancelled_total", "counter", "Sequences whose client left, by stage.");
    value(p, "quern_cancelled_total", "stage=\"queued\"", (double)k->cancelled_queued);
    value(p, "quern_cancelled_total", "stage=\"prefill\"", (double)k->cancelled_prefill);
    value(p, "quern_cancelled_total", "stage=\"decode\"", (double)k->cancelled_decode);
    plain(p, "quern_reasoning_tokens_total", "counter", "Generated tokens inside thoughts.",
          (double)k->reasoning_tokens);
    plain(p, "quern_ignored_fields_total", "counter", "Request fields that were ignored.",
          (double)atomic_load_explicit(&ignored_fields, memory_order_relaxed));
}

/* A label value: backslash, quote and newline escaped. */
static void escape_label(const char *s, char *out, size_t cap)
{
    size_t n = 0;
    for (; *s && n + 3 < cap; s++) {
        if (*s == '\\' || *s == '"') out[n++] = '\\';
        if (*s == '\n') {
            out[n++] = '\\';
            out[n++] = 'n';
        } else {
            out[n++] = *s;
        }
    }
    out[n] = 0;
}

void api_metrics(http_call *c)
{
    const app *a = http_app(c);
    engine_counters k;
    char model[512];
    buf out = {0};
    page p = {&out, model};
    escape_label(a->names.v[0], model, sizeof model);
    engine_stats(a->eng, &k);
    vllm_part(&p, a, &k);
    llamacpp_part(&p, &k);
    http_part(&p);
    own_part(&p, a, &k);
    if (!buf_ok(&out)) {
        buf_clear(&out);
        reply_fail(c, 503, "unavailable_error", "out_of_memory", NULL, "out of memory");
        return;
    }
    http_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
}
