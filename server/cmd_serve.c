/* cmd_serve.c - `quern serve`: start-up, signals, drain (API H18, H19).  Owns the app.  Under
 * mpirun only rank 0 does so; the others follow it (serve_ranks.c). Thread: main; weights are
 * loaded on a thread of their own so that the socket already answers. */
#include "server/cmd.h"
#include "server/cmd_model.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "server/app.h"
#include "server/http.h"
#include "server/serve_ranks.h"
#include "server/tls.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

typedef struct {
    app *a;
    err e;
    int rc;
    int64_t us;
} loader;

static void *load_main(void *v)
{
    loader *l = v;
    int64_t t0 = clock_us();
    l->rc = engine_load(l->a->eng, &l->e);
    l->us = clock_us() - t0;
    kill(getpid(), SIGUSR1); /* main waits in sigtimedwait */
    return NULL;
}

/* More descriptors than the soft limit, and never more connections than descriptors (H4). */
static int fit_descriptors(int want)
{
    enum { OWN = 64 }; /* model files, epoll, pipes, logs */
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r)) return want;
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    getrlimit(RLIMIT_NOFILE, &r);
    if (r.rlim_cur >= (rlim_t)want + OWN) return want;
    int fit = r.rlim_cur > 2 * OWN ? (int)r.rlim_cur - OWN : OWN;
    log_warn("--max-conn %d is lowered to %d: the limit of open files is %llu (ulimit -n)", want,
             fit, (unsigned long long)r.rlim_cur);
    return fit;
}

/* Printable, and only the later ones may match more than themselves (V8). */
static int check_name(const char *name, bool first, err *e)
{
    const char *star = strchr(name, '*');
    bool plain = true;
    for (const char *c = name; *c; c++) plain &= (unsigned char)*c >= 0x20 && *c != 0x7F;
    if (plain && (!star || (!star[1] && !first))) return 0;
    return err_set(e, ERR_INVALID,
                   "--served-model-name takes names without control characters, of which those "
                   "behind the first may end in '*', got '%.64s'",
                   name);
}

/* The served names: --served-model-name without repetitions, or the checkpoint's own. */
static int name_list(app *a, const options *o, err *e)
{
    int n = o->served_model_name.n ? o->served_model_name.n : 1;
    a->names.v = calloc((size_t)n, sizeof *a->names.v);
    if (!a->names.v) return err_set(e, ERR_NOMEM, "out of memory");
    if (!o->served_model_name.n)
        a->names.v[a->names.n++] = (char *)(uintptr_t)engine_info(a->eng)->name;
    for (int i = 0; i < o->served_model_name.n; i++) {
        if (check_name(o->served_model_name.v[i], !i, e)) return e->code;
        bool seen = false;
        for (int k = 0; k < a->names.n; k++)
            seen |= !strcmp(a->names.v[k], o->served_model_name.v[i]);
        if (!seen) a->names.v[a->names.n++] = o->served_model_name.v[i];
    }
    return 0;
}

static int read_effort_budgets(app *a, const char *text, err *e)
{
    long long *v = a->effort_budget;
    char after;
    if (sscanf(text, "%9lld,%9lld,%9lld%c", &v[0], &v[1], &v[2], &after) == 3 && v[0] >= -1 &&
        v[1] >= -1 && v[2] >= -1)
        return 0;
    return err_set(
        e, ERR_INVALID,
        "--effort-budgets must be three numbers of tokens (minimal,low,medium; -1 for no "
        "limit), got '%s'",
        text);
}

/* G15: everything G4 names: the engine's part, the binary, and the flags that change bits. */
static void set_fingerprint(app *a)
{
    char text[128];
    snprintf(text, sizeof text, "%016llx %s %s %d",
             (unsigned long long)engine_info(a->eng)->fingerprint, QUERN_VERSION, QUERN_COMMIT,
             a->opt->bf16_repack);
    uint64_t h = XXH3_64bits(text, strlen(text));
    snprintf(a->fingerprint, sizeof a->fingerprint, "fp_%010llx",
             (unsigned long long)(h & 0xFFFFFFFFFFull));
}

static void greet(const app *a, const model_setup *m, const loader *l)
{
    const engine_info_t *i = engine_info(a->eng);
    const options *o = a->opt;
    log_info("quern %s (%s) serves %s%s", QUERN_VERSION, QUERN_COMMIT, a->names.v[0],
             m->is_demo
                 ? ": a tiny demo model for trying the server; give quern serve your own Qwen"
                 : "");
    double millions = (double)i->n_params * 1e-6;
    log_info("  model      %s, %.2f %s parameters, %s, %.1f MB of weights, loaded in %.2f s",
             i->arch, millions < 1000 ? millions : millions * 1e-3, millions < 1000 ? "M" : "B",
             i->quantization, (double)i->weight_bytes * 1e-6, (double)l->us * 1e-6);
    if (i->dummy) log_warn("the weights are made up (--dummy-weights): the answers mean nothing");
    log_info("  context    %lld tokens (trained for %lld)%s", (long long)i->ctx,
             (long long)i->ctx_train,
             i->step_bound ? ": what a step holds, see --max-num-batched-tokens" : "");
    log_info("  KV cache   %.1f MB %s, %d blocks of %d: %s", (double)i->kv_bytes * 1e-6,
             i->kv_dtype, i->n_kv_blocks, i->kv_block, i->kv_reason);
    log_info("  batch      %d sequences, %d tokens a step, queue of %lld", i->max_num_seqs,
             i->max_batched, (long long)o->max_queue);
    char ranks[48] = "";
    if (i->world > 1) snprintf(ranks, sizeof ranks, ", tensor parallel over %d ranks", i->world);
    if (i->device[0])
        log_info("  backend    %s on %s (%s)%s%s", i->backend, i->device, i->isa,
                 i->invariant ? ", batch-invariant" : "", ranks);
    else
        log_info("  backend    %s, %s kernels, %d thread%s%s%s", i->backend, i->isa, i->threads,
                 i->threads == 1 ? "" : "s", i->world > 1 ? " each" : "", ranks);
    log_info("  listening  %s://%s%s%s:%d/v1 %s", o->tls_cert ? "https" : "http",
             strchr(o->host, ':') ? "[" : "", o->host, strchr(o->host, ':') ? "]" : "",
             http_port(a->http),
             gate_has_keys(a->gate) ? "(API key needed)"
                                    : "(no API key: anyone who reaches it may use it)");
}

static void show_progress(const app *a)
{
    double p = engine_progress(a->eng);
    char bar[41];
    int n = (int)(p * 40);
    memset(bar, ' ', 40);
    memset(bar, '#', (size_t)(n < 0 ? 0 : n > 40 ? 40 : n));
    bar[40] = 0;
    fprintf(stderr, "\rloading [%s] %3.0f%%", bar, p * 100);
    fflush(stderr);
}

/* SIGHUP: API keys, and the certificate with its key.  What cannot be used changes nothing. */
static void reload(app *a)
{
    err e = {0};
    if (gate_reload_keys(a->gate, &e)) log_error("the API keys were kept as they are: %s", e.msg);
    else log_info("API keys read again");
    if (!a->opt->tls_cert) return;
    if (tls_load(a->opt->tls_cert, a->opt->tls_key, &e)) {
        log_error("the certificate and its key were kept as they are: %s", e.msg);
        return;
    }
    time_t until = (time_t)tls_expiry();
    struct tm tm;
    char day[32] = "?";
    if (gmtime_r(&until, &tm)) strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%SZ", &tm);
    log_info("certificate and key read again, valid until %s", day);
}

/* First SIGTERM: finish what runs within --drain-timeout; a later signal ends it at once.  A
 * launcher that ends all its ranks leaves less time. */
static void drain(app *a, const sigset_t *set, double limit_s)
{
    int64_t start = clock_us(), limit = (int64_t)(limit_s * 1e6);
    log_info("shutting down: %d requests have %.1f s to finish (a second signal ends them)",
             http_active(a->http), limit_s);
    atomic_store(&a->draining, true);
    engine_drain(a->eng);
    while (http_active(a->http) && clock_us() - start < limit) {
        int s = serve_wait(set, 50, NULL);
        if ((s == SIGTERM || s == SIGINT) && clock_us() - start > 1000000) break;
    }
    engine_stop(a->eng);
    /* The last errors are on their way to their clients. */
    for (int i = 0; i < 40 && http_active(a->http); i++) serve_wait(set, 50, NULL);
}

/* Until a signal or a failure; the exit code. */
static int run(app *a, const model_setup *m, const launch *ranks, const sigset_t *set)
{
    loader l = {.a = a};
    pthread_t th;
    bool loading = true, bar = isatty(STDERR_FILENO) && !log_is_json(), launcher = false;
    int code = 0, beat = ranks->c ? 100 : 1000;
    err e = {0};
    if (thread_start(&th, "the loading thread", load_main, &l, &e)) {
        log_error("%s", e.msg);
        return 1;
    }
    for (;;) {
        int s = serve_wait(set, loading && bar ? 100 : beat, &launcher);
        if (s == SIGUSR1 && loading) {
            loading = false;
            pthread_join(th, NULL);
            if (bar) fprintf(stderr, "\r%60s\r", "");
            if (l.rc) {
                log_error("%s", l.e.msg);
                code = exit_code(&l.e);
                break;
            }
            a->load_unix = clock_unix();
            a->load_seconds = (double)l.us * 1e-6;
            greet(a, m, &l);
        } else if (s == SIGHUP) {
            reload(a);
        } else if (s == SIGTERM || s == SIGINT) {
            if (loading) {
                /* Nothing runs yet, and a load cannot be cut short cleanly: leave at once. */
                log_info("stopped while loading");
                log_writer_stop();
                _exit(0);
            }
            double limit = a->opt->drain_timeout;
            if (ranks->c && launcher) limit = serve_hurry(limit);
            drain(a, set, limit);
            code = engine_status(a->eng) == ENGINE_FAILED;
            break;
        }
        if (loading && bar) show_progress(a);
        bool failed = !loading && engine_status(a->eng) == ENGINE_FAILED;
        if (failed || (!loading && launch_lost(ranks, &e))) {
            log_error("the engine failed: %s", failed ? engine_fault(a->eng) : e.msg);
            for (int i = 0; i < 40 && http_active(a->http); i++) serve_wait(set, 50, NULL);
            code = 1;
            break;
        }
    }
    return code;
}

int cmd_serve(const options *o)
{
    err e = {0};
    model_setup m;
    app a = {.opt = o, .start_unix = clock_unix()};
    launch ranks = {.world = 1};
    int code = 0;
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (log_writer_start(&e)) return cmd_fail(&e);

    gate_options go = {
        .key = o->api_key.v,
        .n_key = o->api_key.n,
        .key_file = o->api_key_file,
        .allowed_host = o->allowed_hosts.v,
        .n_allowed_host = o->allowed_hosts.n,
        .cors = o->cors_origins,
        .limits = {.max_concurrent = o->key_max_concurrent, .rpm = o->key_rpm, .tpm = o->key_tpm}};
    http_options ho = {.host = o->host,
                       .port = (int)o->port,
                       .max_body = o->max_body,
                       .max_body_total = o->max_body_total,
                       .header_s = o->header_timeout,
                       .body_s = o->body_timeout,
                       .ping_s = o->sse_ping,
                       .trace = o->trace_http,
                       .tls_cert = o->tls_cert,
                       .tls_key = o->tls_key};
    if (model_setup_init(&m, o, &e)) goto failed;
    if (read_effort_budgets(&a, o->effort_budgets, &e)) goto failed;
    if (serve_join(&ranks, o, &m.o, &e)) goto failed;
    if (ranks.rank) {
        code = serve_follow(&ranks, &m.o, &set);
        goto out;
    }
    if (!(a.gate = gate_new(&go, &e))) {
        launch_give_up(&ranks, e.msg);
        goto failed;
    }
    a.responses = response_store_new(o->response_store, (uint64_t)256 << 20, 3600);
    a.grammars = grammar_cache_new();
    if (!a.responses || !a.grammars) {
        err_set(&e, ERR_NOMEM, "out of memory");
        goto failed;
    }
    if (!(a.eng = engine_open(&m.o, &e))) goto failed;
    if (name_list(&a, o, &e)) goto failed;
    set_fingerprint(&a);
    ho.max_conn = fit_descriptors((int)o->max_conn);
    if (!(a.http = http_start(&a, &ho, &e))) goto failed;
    code = run(&a, &m, &ranks, &set);
    http_stop(a.http);
    goto out;
failed:
    code = cmd_fail(&e);
out:
    engine_close(a.eng);
    gate_free(a.gate);
    response_store_free(a.responses);
    grammar_cache_free(a.grammars);
    free(a.names.v);
    model_setup_clear(&m);
    log_writer_stop();
    return code;
}
