/* bench_sample.c - the sampler by itself, on rows of 151,936 logits.
 * usage: bench_sample [threads] [isa]
 * Microseconds per row, one row at a time and 32 rows at once. */
#include "base/clock.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 151936, ROWS = 32, REPS = 9 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median microseconds of a call over n rows. */
static double time_rows(backend *be, tensor logits, const sample_row *like, int n)
{
    sample_row rows[ROWS];
    double t[REPS];
    for (int r = 0; r < REPS; r++) {
        int calls = 0;
        int64_t t0 = clock_us(), t1;
        do {
            for (int i = 0; i < n; i++) {
                rows[i] = *like;
                rows[i].position = (uint64_t)(calls * n + i);
            }
            k_sample(be, logits, rows, n);
            calls++;
            t1 = clock_us();
        } while (t1 - t0 < 10000);
        t[r] = (double)(t1 - t0) / calls;
    }
    qsort(t, REPS, sizeof *t, by_value);
    return t[REPS / 2];
}

static void fill(float *x, int kind)
{
    uint64_t s = 88172645463325252u;
    for (size_t i = 0; i < (size_t)ROWS * VOCAB; i++) {
        float z = 0;
        for (int k = 0; k < 6; k++) { /* nearly normal */
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            z += (float)(s >> 40) * 0x1p-24f - 0.5f;
        }
        x[i] = kind == 0 ? 4 * z : kind == 1 ? 1e-4f * (float)(i % VOCAB) : 0.5f;
    }
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {"normal", "rising", "constant"};
    err e = {0};
    backend_options o = {
        .name = "cpu", .threads = argc > 1 ? atoi(argv[1]) : 0, .isa = argc > 2 ? argv[2] : "auto"};
    backend *be = backend_open(&o, &e);
    float *x = malloc((size_t)ROWS * VOCAB * sizeof *x);
    if (!be || !x) {
        fprintf(stderr, "%s\n", e.msg);
        return 2;
    }
    static int32_t seen[500], counts[500];
    for (int i = 0; i < 500; i++) seen[i] = i * 301, counts[i] = i % 3;
    sample_row plain = {.temperature = 1,
                        .top_p = 1,
                        .repetition = 1,
                        .n_vocab = VOCAB,
                        .n_top = -1,
                        .forced = -1,
                        .seed = 1};
    sample_row greedy = plain, chat = plain, nucleus = plain, min_p = plain, wide = plain, logprobs,
               top20, penalised;
    greedy.temperature = 0;
    chat.temperature = 0.7f, chat.top_k = 20, chat.top_p = 0.95f;
    nucleus.top_p = 0.95f;
    min_p.min_p = 0.05f;
    wide.top_k = 200, wide.top_p = 0.95f;
    logprobs = greedy, logprobs.n_top = 0;
    top20 = greedy, top20.n_top = 20;
    penalised = chat, penalised.repetition = 1.05f, penalised.n_seen = 500,
    penalised.seen_id = seen, penalised.gen_count = counts;
    const struct {
        const char *name;
        const sample_row *row;
    } cases[] = {{"greedy", &greedy},
                 {"T 0.7, top_k 20, top_p 0.95", &chat},
                 {"the same with penalties over 500 ids", &penalised},
                 {"top_k 200, top_p 0.95", &wide},
                 {"T 1", &plain},
                 {"T 1, top_p 0.95", &nucleus},
                 {"T 1, min_p 0.05", &min_p},
                 {"greedy, logprob", &logprobs},
                 {"greedy, 20 top logprobs", &top20}};
    printf("%s, %d threads; us a row of %d: alone, in %d rows\n", be->isa, be->threads, VOCAB,
           ROWS);
    tensor t = {x, ROWS, VOCAB, VOCAB, ACT_F32};
    for (int k = 0; k < 3; k++) {
        fill(x, k);
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
            printf("%-9s %-38s %8.1f %8.1f\n", kinds[k], cases[c].name,
                   time_rows(be, t, cases[c].row, 1), time_rows(be, t, cases[c].row, ROWS) / ROWS);
    }
    free(x);
    backend_close(be);
    return 0;
}
