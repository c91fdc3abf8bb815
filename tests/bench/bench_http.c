/* bench_http.c - what HTTP and text cost a streamed token: a whole server around a runner that
 * computes nothing.
 * usage: bench_http [streams [tokens a stream]]   (64, 400)
 * Clients run in a child process; the processor time of this one is divided by the
 * tokens streamed.  A step waits for a millisecond so that each token is an event of its own, as
 * with a model. */
#include "base/clock.h"
#include "engine/engine_impl.h"
#include "server/app.h"
#include "server/http.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STREAMS = 512, N_VOCAB = 2048, STEP_US = 1000 };

static int run_nothing(runner *r, const batch *b, sample_row *row, float *pooled, err *e)
{
    struct timespec nap = {0, STEP_US * 1000L};
    (void)r, (void)pooled, (void)e;
    nanosleep(&nap, NULL);
    for (int i = 0; i < b->n_out; i++) row[i].id = 300 + (b->pos[b->out_row[i]] * 7 + i) % 1500;
    return 0;
}

static void close_nothing(runner *r)
{
    (void)r;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* The child: n streams at once, read until each is closed; exit code 0 if all ended with [DONE]. */
static int clients(int port, int n, int tokens)
{
    static char tail[MAX_STREAMS][16], got[65536];
    struct pollfd p[MAX_STREAMS];
    char body[256], head[256];
    int left = n, good = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < n; i++) {
        int len =
            snprintf(body, sizeof body,
                     "{\"prompt\":[%d],\"max_tokens\":%d,\"stream\":true,\"ignore_eos\":true}",
                     400 + i, tokens);
        int k = snprintf(head, sizeof head,
                         "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                         "Content-Length: %d\r\n\r\n%s",
                         len, body);
        p[i] = (struct pollfd){.fd = socket(AF_INET, SOCK_STREAM, 0), .events = POLLIN};
        if (connect(p[i].fd, (struct sockaddr *)&to, sizeof to) ||
            write(p[i].fd, head, (size_t)k) != k)
            return 1;
    }
    while (left && poll(p, (nfds_t)n, 20000) > 0)
        for (int i = 0; i < n; i++) {
            if (p[i].fd < 0 || !p[i].revents) continue;
            ssize_t k = read(p[i].fd, got, sizeof got);
            if (k > 0) {
                size_t keep = (size_t)k < sizeof tail[0] ? (size_t)k : sizeof tail[0];
                memmove(tail[i], tail[i] + keep, sizeof tail[0] - keep);
                memcpy(tail[i] + sizeof tail[0] - keep, got + k - keep, keep);
                continue;
            }
            good += memmem(tail[i], sizeof tail[0], "[DONE]", 6) != NULL;
            close(p[i].fd);
            p[i].fd = -1;
            left--;
        }
    return good == n ? 0 : 1;
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 64, tokens = argc > 2 ? atoi(argv[2]) : 400;
    if (n < 1 || n > MAX_STREAMS || tokens < 1 || tokens > 4000) return 2;
    err e = {0};
    char *name[] = {(char[]){"m"}};
    options opt = {.max_queue = 1024, .reasoning_field = (char[]){"both"}};
    tokenizer *tok =
        tokenizer_open(&(tokenizer_source){.tokenizer_json = "models/demo/tokenizer.json"}, &e);
    runner nothing = {.depth = 1, .start = run_nothing, .close = close_nothing};
    engine_options eo = {.max_num_seqs = n, .max_queue = 1024, .prefix_caching = true};
    engine_shape shape = {
        .n_vocab = N_VOCAB, .kv_block = 32, .n_blocks = n * 160, .ctx = 4096, .tok = tok};
    app a = {.opt = &opt, .names = {name, 1}};
    http_options ho = {.host = "127.0.0.1",
                       .max_conn = 1024,
                       .max_body = 1 << 20,
                       .max_body_total = 1 << 28,
                       .ping_s = 15};
    if (!tok || !(a.eng = engine_open_runner(&eo, &shape, &nothing, &e)) ||
        engine_load(a.eng, &e) || !(a.gate = gate_new(&(gate_options){0}, &e)) ||
        !(a.http = http_start(&a, &ho, &e))) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    double cpu = cpu_seconds();
    int64_t t0 = clock_us();
    pid_t child = fork();
    if (child == 0) _exit(clients(http_port(a.http), n, tokens));
    int status = 1;
    waitpid(child, &status, 0);
    cpu = cpu_seconds() - cpu;
    double wall = (double)(clock_us() - t0) * 1e-6, total = (double)n * tokens;
    printf("%d streams of %d tokens: %.1f us of processor time a token, %.0f tokens/s, %s\n", n,
           tokens, cpu / total * 1e6, total / wall, status ? "FAILED" : "all ended well");
    http_stop(a.http);
    engine_close(a.eng);
    gate_free(a.gate);
    tokenizer_free(tok);
    return status != 0;
}
