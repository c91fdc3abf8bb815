/* metrics_page.c - GET /metrics: the Prometheus page of API section 18, as text 0.0.4 or, if the
 * client prefers it, as OpenMetrics.  Owns nothing.  Thread: any. */
#include "server/metrics.h"

#include "base/log.h"
#include "base/sysinfo.h"
#include "server/api.h"
#include "server/app.h"
#include "server/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct {
    buf *out;
    const char *labels; /* of the vllm: family, escaped */
    bool open_metrics;
} page;

/* OpenMetrics names a counter without the _total of its samples, and knows none that lacks it. */
static void head(page *p, const char *name, const char *type, const char *help)
{
    size_t n = strlen(name);
    if (p->open_metrics && !strcmp(type, "counter")) {
        if (n > 6 && !strcmp(name + n - 6, "_total")) n -= 6;
        else type = "unknown";
    }
    buf_printf(p->out, "# HELP %.*s %s\n# TYPE %.*s %s\n", (int)n, name, help, (int)n, name, type);
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

/* A series of the vllm: family, with its two labels and perhaps more (",x=\"y\""). */
static void vllm_value(page *p, const char *name, const char *more, double v)
{
    buf_printf(p->out, "%s{%s%s} ", name, p->labels, more);
    buf_put_num(p->out, v);
    buf_putc(p->out, '\n');
}

static void vllm(page *p, const char *name, const char *type, const char *help, double v)
{
    head(p, name, type, help);
    vllm_value(p, name, "", v);
}

/* A bound as the clients of Prometheus write it: 1.0, 0.5, 1e+06. */
static void put_bound(page *p, double v)
{
    char t[32];
    snprintf(t, sizeof t, "%g", v);
    buf_puts(p->out, t);
    if (!strpbrk(t, ".e")) buf_puts(p->out, ".0");
}

/* The samples of one histogram; count is per bucket, with one more for +Inf. */
static void buckets(page *p, const char *name, const char *labels, const double *bound, int n,
                    const uint64_t *count, double sum)
{
    uint64_t run = 0;
    const char *comma = *labels ? "," : "";
    for (int i = 0; i <= n; i++) {
        run += count[i];
        buf_printf(p->out, "%s_bucket{%s%sle=\"", name, labels, comma);
        if (i < n) put_bound(p, bound[i]);
        else buf_puts(p->out, "+Inf");
        buf_printf(p->out, "\"} %llu\n", (unsigned long long)run);
    }
    const char *open = *labels ? "{" : "", *close = *labels ? "}" : "";
    buf_printf(p->out, "%s_sum%s%s%s ", name, open, labels, close);
    buf_put_num(p->out, sum);
    buf_printf(p->out, "\n%s_count%s%s%s %llu\n", name, open, labels, close,
               (unsigned long long)run);
}

static void histogram_of(page *p, const char *name, const char *labels, const char *help,
                         const histogram *h)
{
    head(p, name, "histogram", help);
    buckets(p, name, labels, h->bound, h->n, h->count, h->sum);
}

static void vllm_gauges(page *p, const app *a, const engine_counters *k)
{
    const engine_info_t *info = engine_info(a->eng);
    int total = k->kv_total > 0 ? k->kv_total : 1;
    char more[256];
    vllm(p, "vllm:num_requests_running", "gauge", "Sequences in the batch.", k->running);
    vllm(p, "vllm:num_requests_waiting", "gauge", "Sequences in the queue.", k->waiting);
    head(p, "vllm:num_requests_waiting_by_reason", "gauge", "Sequences in the queue by reason.");
    vllm_value(p, "vllm:num_requests_waiting_by_reason", ",reason=\"capacity\"",
               k->waiting - k->deferred);
    vllm_value(p, "vllm:num_requests_waiting_by_reason", ",reason=\"deferred\"", k->deferred);
    vllm(p, "vllm:kv_cache_usage_perc", "gauge", "Share of KV blocks in use, 0 to 1.",
         (double)k->kv_used / total);
    head(p, "vllm:cache_config_info", "gauge", "KV cache settings.");
    snprintf(more, sizeof more,
             ",block_size=\"%d\",num_gpu_blocks=\"%d\",cache_dtype=\"%s\",enable_prefix_caching="
             "\"%s\"",
             info->kv_block, info->n_kv_blocks, info->kv_dtype ? info->kv_dtype : "",
             a->opt->no_prefix_caching ? "False" : "True");
    vllm_value(p, "vllm:cache_config_info", more, 1);
    head(p, "vllm:engine_sleep_state", "gauge", "1 for the state the engine is in.");
    vllm_value(p, "vllm:engine_sleep_state", ",sleep_state=\"awake\"", 1);
    vllm_value(p, "vllm:engine_sleep_state", ",sleep_state=\"weights_offloaded\"", 0);
    vllm_value(p, "vllm:engine_sleep_state", ",sleep_state=\"discard_all\"", 0);
    head(p, "vllm:lora_requests_info", "gauge", "Adapters in use; none are served.");
    vllm_value(p, "vllm:lora_requests_info",
               ",max_lora=\"0\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"", 0);
}

static void vllm_counters(page *p, const engine_counters *k)
{
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
        {"vllm:prompt_tokens_cached_total", "Prompt tokens whose KV was reused.", k->cached_tokens},
        {"vllm:mm_cache_queries_total", "Lookups of media; none are taken.", 0},
        {"vllm:mm_cache_hits_total", "Media found in their cache.", 0},
        {"vllm:corrupted_requests_total",
         "Requests with NaN logits; here NaN counts as minus infinity.", 0},
        {"vllm:admission_rejections_total",
         "Requests refused by the engine: queue full, or too long for the KV cache.", k->rejected},
        {"vllm:spec_decode_num_drafts_total", "Steps of a sequence that had guesses.", k->drafts},
        {"vllm:spec_decode_num_draft_tokens_total", "Guessed tokens.", k->draft_tokens},
        {"vllm:spec_decode_num_accepted_tokens_total", "Guessed tokens that were right.",
         k->accepted_tokens}};
    for (size_t i = 0; i < sizeof counter / sizeof *counter; i++)
        vllm(p, counter[i].name, "counter", counter[i].help, (double)counter[i].v);
    head(p, "vllm:prompt_tokens_by_source_total", "counter",
         "Prompt tokens by where KV came from.");
    vllm_value(p, "vllm:prompt_tokens_by_source_total", ",source=\"local_compute\"",
               (double)k->prompt_computed);
    vllm_value(p, "vllm:prompt_tokens_by_source_total", ",source=\"local_cache_hit\"",
               (double)k->cached_tokens);
    vllm_value(p, "vllm:prompt_tokens_by_source_total", ",source=\"external_kv_transfer\"", 0);
    head(p, "vllm:spec_decode_num_accepted_tokens_per_pos_total", "counter",
         "Guessed tokens that were right, by place.");
    for (int i = 0; i < DRAFT_MAX; i++) {
        char more[32];
        snprintf(more, sizeof more, ",position=\"%d\"", i);
        vllm_value(p, "vllm:spec_decode_num_accepted_tokens_per_pos_total", more,
                   (double)k->accepted_at[i]);
    }
    static const struct {
        const char *more;
        finish_reason f;
    } reason[] = {{",finished_reason=\"stop\"", FINISH_STOP},
                  {",finished_reason=\"length\"", FINISH_LENGTH},
                  {",finished_reason=\"abort\"", FINISH_ABORT},
                  {",finished_reason=\"error\"", FINISH_ERROR}};
    head(p, "vllm:request_success_total", "counter", "Finished sequences by reason.");
    for (int i = 0; i < 4; i++)
        vllm_value(p, "vllm:request_success_total", reason[i].more,
                   (double)k->finished[reason[i].f]);
}

static void vllm_histograms(page *p, const engine_counters *k)
{
    const struct {
        const char *name, *help;
        const histogram *h;
    } hist[] = {
        {"vllm:time_to_first_token_seconds", "Arrival to first token.", &k->ttft},
        {"vllm:inter_token_latency_seconds", "Between tokens of a sequence.", &k->itl},
        {"vllm:request_time_per_output_token_seconds",
         "Mean time of a sequence's tokens behind the first.", &k->token_time},
        {"vllm:e2e_request_latency_seconds", "Arrival to end.", &k->e2e},
        {"vllm:request_queue_time_seconds", "Arrival to first step.", &k->queue},
        {"vllm:request_inference_time_seconds", "First step to end.", &k->inference},
        {"vllm:request_prefill_time_seconds", "First step to first token.", &k->prefill},
        {"vllm:request_decode_time_seconds", "First token to end.", &k->decode},
        {"vllm:iteration_tokens_total", "Tokens of a step.", &k->step_tokens},
        {"vllm:request_prompt_tokens", "Prompt tokens of a sequence.", &k->prompt_size},
        {"vllm:request_generation_tokens", "Generated tokens of a sequence.", &k->generation_size},
        {"vllm:request_max_num_generation_tokens",
         "Generated tokens of a request's longest choice.", &k->longest},
        {"vllm:request_params_n", "Choices of a request.", &k->n_choice},
        {"vllm:request_params_max_tokens", "Token limit of a request, as it was in force.",
         &k->max_tokens},
        {"vllm:request_prefill_kv_computed_tokens", "Prompt tokens of a request not reused.",
         &k->computed},
        {"vllm:kv_block_lifetime_seconds", "KV blocks: taken to evicted.", &k->block_life},
        {"vllm:kv_block_idle_before_evict_seconds", "KV blocks: last held to evicted.",
         &k->block_idle},
        {"vllm:kv_block_reuse_gap_seconds", "KV blocks: last held to found again.", &k->block_gap}};
    for (size_t i = 0; i < sizeof hist / sizeof *hist; i++)
        histogram_of(p, hist[i].name, p->labels, hist[i].help, hist[i].h);
}

static void llamacpp_part(page *p, const engine_counters *k)
{
    double computed = (double)k->prompt_computed;
    const struct {
        const char *name, *type, *help;
        double v;
    } row[] = {
        {"llamacpp:prompt_tokens_total", "counter", "Prompt tokens processed.", computed},
        {"llamacpp:prompt_seconds_total", "counter", "Time spent on prompts.", k->prompt_seconds},
        {"llamacpp:tokens_predicted_total", "counter", "Tokens generated.",
         (double)k->generation_tokens},
        {"llamacpp:tokens_predicted_seconds_total", "counter", "Time spent generating.",
         k->predicted_seconds},
        {"llamacpp:n_decode_total", "counter", "Forward passes.", (double)k->steps},
        {"llamacpp:n_tokens_max", "counter", "Largest context seen.", k->n_tokens_max},
        {"llamacpp:spec_decode_num_drafts_total", "counter", "Steps that had guesses.",
         (double)k->drafts},
        {"llamacpp:spec_decode_num_draft_tokens_total", "counter", "Guessed tokens.",
         (double)k->draft_tokens},
        {"llamacpp:spec_decode_num_accepted_tokens_total", "counter",
         "Guessed tokens that were right.", (double)k->accepted_tokens},
        {"llamacpp:prompt_tokens_seconds", "gauge", "Prompt tokens a second.",
         k->prompt_seconds > 0 ? computed / k->prompt_seconds : 0},
        {"llamacpp:predicted_tokens_seconds", "gauge", "Generated tokens a second.",
         k->predicted_seconds > 0 ? (double)k->generation_tokens / k->predicted_seconds : 0},
        {"llamacpp:requests_processing", "gauge", "Sequences running.", k->running},
        {"llamacpp:requests_deferred", "gauge", "Sequences waiting.", k->waiting},
        {"llamacpp:n_busy_slots_per_decode", "gauge", "Sequences in a forward pass, on average.",
         k->steps ? (double)k->busy_slots / (double)k->steps : 0}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        plain(p, row[i].name, row[i].type, row[i].help, row[i].v);
    head(p, "llamacpp:spec_decode_num_accepted_tokens_per_pos_total", "counter",
         "Guessed tokens that were right, by place.");
    for (int i = 0; i < DRAFT_MAX; i++) {
        char labels[32];
        snprintf(labels, sizeof labels, "position=\"%d\"", i);
        value(p, "llamacpp:spec_decode_num_accepted_tokens_per_pos_total", labels,
              (double)k->accepted_at[i]);
    }
}

/* Durations of one handler and method: its statuses are one series. */
static void http_durations(page *p, int first, const http_series *s)
{
    uint64_t count[METRICS_LATENCIES + 1] = {0}, sum_us = 0;
    char labels[256];
    http_series t;
    for (int i = 0; metrics_http_at(i, &t); i++) {
        if (strcmp(t.pattern, s->pattern) || strcmp(t.method, s->method)) continue;
        if (i < first) return; /* told already */
        for (int b = 0; b <= METRICS_LATENCIES; b++) count[b] += t.count[b];
        sum_us += t.sum_us;
    }
    snprintf(labels, sizeof labels, "handler=\"%s\",method=\"%s\"", s->pattern, s->method);
    buckets(p, "http_request_duration_seconds", labels, metrics_latency, METRICS_LATENCIES, count,
            (double)sum_us * 1e-6);
}

static void http_part(page *p)
{
    http_series s;
    head(p, "http_requests_total", "counter", "HTTP requests.");
    for (int i = 0; metrics_http_at(i, &s); i++)
        buf_printf(p->out, "http_requests_total{handler=\"%s\",method=\"%s\",status=\"%d\"} %llu\n",
                   s.pattern, s.method, s.status, s.n);
    head(p, "http_request_duration_seconds", "histogram", "HTTP request duration.");
    for (int i = 0; metrics_http_at(i, &s); i++) http_durations(p, i, &s);
}

static void process_part(page *p, const app *a)
{
    plain(p, "process_cpu_seconds_total", "counter", "Processor time used.", sys_cpu_seconds());
    plain(p, "process_resident_memory_bytes", "gauge", "Resident memory.", (double)sys_rss());
    plain(p, "process_open_fds", "gauge", "Open file descriptors.", sys_open_fds());
    plain(p, "process_start_time_seconds", "gauge", "Start, Unix seconds.", (double)a->start_unix);
}

static void own_part(page *p, const app *a, const engine_counters *k)
{
    const engine_info_t *info = engine_info(a->eng);
    char labels[160];
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
    plain(p, "quern_grammar_late_masks_total", "counter",
          "Times a sequence sat out steps because its grammar cost too much for one.",
          (double)k->late_masks);
    plain(p, "quern_reasoning_tokens_total", "counter", "Generated tokens inside thoughts.",
          (double)k->reasoning_tokens);
}

static void own_features(page *p, const app *a)
{
    static const char *const format[METRICS_FORMATS] = {[CALLS_HERMES] = "hermes",
                                                        [CALLS_XML] = "qwen3_coder",
                                                        [CALLS_REACT] = "react",
                                                        [CALLS_FUNCTION] = "function"};
    static const char *const result[2] = {"complete", "truncated"};
    char labels[96];
    server_counters s;
    metrics_read(&s);
    plain(p, "quern_response_store_entries", "gauge", "Replies kept to be asked for again.",
          response_store_entries(a->responses));
    plain(p, "quern_log_lines_dropped_total", "counter", "Log lines that stderr did not take.",
          (double)log_dropped());
    plain(p, "quern_ignored_fields_total", "counter", "Request fields that were ignored.",
          (double)s.ignored_fields);
    head(p, "quern_tool_calls_total", "counter", "Tool calls in answers.");
    for (int f = 0; f < METRICS_FORMATS; f++)
        for (int i = 0; i < 2 && format[f]; i++) {
            snprintf(labels, sizeof labels, "format=\"%s\",result=\"%s\"", format[f], result[i]);
            value(p, "quern_tool_calls_total", labels, (double)s.calls[f][i]);
        }
    histogram_of(p, "quern_grammar_compile_seconds", "", "Compiling what an answer must match.",
                 &s.compile);
    head(p, "quern_grammar_rejected_total", "counter", "Constraints refused, by error code.");
    for (int i = 0; i < METRICS_CODES; i++) {
        snprintf(labels, sizeof labels, "code=\"%s\"", metrics_code(i));
        value(p, "quern_grammar_rejected_total", labels, (double)s.rejected[i]);
    }
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

/* ---- which format ---------------------------------------------------------------------------- */

/* The weight (q, 0 to 1) an Accept header gives a media type; 0 if it does not name it. */
static double accepted(const char *accept, const char *type)
{
    for (const char *at = accept; *at;) {
        at += strspn(at, " \t");
        size_t k = strcspn(at, ",; \t");
        if (k == strlen(type) && !strncasecmp(at, type, k)) {
            const char *end = at + strcspn(at, ",");
            for (const char *s = at; (s = strchr(s, ';')) && s < end;) {
                s += 1 + strspn(s + 1, " \t");
                if (!strncasecmp(s, "q=", 2)) return strtod(s + 2, NULL);
            }
            return 1;
        }
        at += strcspn(at, ",");
        if (*at) at++;
    }
    return 0;
}

static bool wants_open_metrics(const http_call *c)
{
    const char *accept = http_header(c, "Accept");
    double open = accept ? accepted(accept, "application/openmetrics-text") : 0;
    return open > 0 && open >= accepted(accept, "text/plain");
}

void api_metrics(http_call *c)
{
    const app *a = http_app(c);
    engine_counters k;
    char model[512], labels[600];
    buf out = {0};
    page p = {&out, labels, wants_open_metrics(c)};
    escape_label(a->names.v[0], model, sizeof model);
    snprintf(labels, sizeof labels, "model_name=\"%s\",engine=\"0\"", model);
    engine_stats(a->eng, &k);
    vllm_gauges(&p, a, &k);
    vllm_counters(&p, &k);
    vllm_histograms(&p, &k);
    llamacpp_part(&p, &k);
    http_part(&p);
    process_part(&p, a);
    own_part(&p, a, &k);
    own_features(&p, a);
    if (p.open_metrics) buf_puts(&out, "# EOF\n");
    if (!buf_ok(&out)) {
        buf_clear(&out);
        reply_oom(c);
        return;
    }
    http_reply(c, 200,
               p.open_metrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                              : "text/plain; version=0.0.4; charset=utf-8",
               &out);
}
