/* bench_attention.c - paged attention by itself: decode in GB/s of KV read, prefill in GFLOP/s.
 * usage: bench_attention [threads] [isa] [kv: f32|f16|bf16|q8_0|all]
 * Decode: as many sequences as fill 512 MiB of KV, one row each, blocks in random order.  Prefill:
 * 128 rows at the end of one context.  "one" is a single sequence's decode, split over threads. */
#include "base/clock.h"
#include "base/log.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int heads, kv_heads, head_dim;
} models[] = {{"0.5B 14/2 x64", 14, 2, 64},
              {"1.5B 12/2 x128", 12, 2, 128},
              {"7B 28/4 x128", 28, 4, 128},
              {"8B 32/8 x128", 32, 8, 128}};
static const char *const kv_names[] = {"f32", "f16", "bf16", "q8_0"};
enum { KV_MIB = 512, REPS = 7 };

static uint64_t seed = 88172645463325252u;
static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}
static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* n_seq sequences of ctx positions with `rows` new ones each; returns the median seconds of a call.
 */
static double time_calls(backend *be, int heads, const kv_pages *kv, const int32_t *blocks,
                         int n_seq, int rows, int ctx)
{
    int n = n_seq * rows, per_seq = (ctx + be->kv_block - 1) / be->kv_block;
    int cols = (heads + 2 * kv->kv_heads) * kv->head_dim, out = heads * kv->head_dim;
    float *q = malloc((size_t)n * (size_t)cols * sizeof *q),
          *o = malloc((size_t)n * (size_t)out * sizeof *o);
    int32_t *pos = malloc((size_t)n * sizeof *pos),
            *start = malloc((size_t)(n_seq + 1) * sizeof *start);
    int32_t *len = malloc((size_t)n_seq * sizeof *len);
    for (size_t i = 0; i < (size_t)n * (size_t)cols; i++)
        q[i] = (float)(rnd() >> 40) * 0x1p-23f - 1;
    for (int i = 0; i <= n_seq; i++) start[i] = i * rows;
    for (int i = 0; i < n_seq; i++) len[i] = ctx;
    for (int i = 0; i < n; i++) pos[i] = ctx - rows + i % rows;
    batch b = {.n_tok = n,
               .n_seq = n_seq,
               .max_blocks = per_seq,
               .pos = pos,
               .seq_start = start,
               .ctx_len = len,
               .block_table = blocks};
    tensor tq = {q, n, cols, cols, ACT_F32}, to = {o, n, out, out, ACT_F32};
    double t[REPS];
    k_attn_paged(be, to, tq, heads, kv, &b);
    for (int r = 0; r < REPS; r++) {
        int calls = 0;
        int64_t t0 = clock_us(), t1;
        do {
            k_attn_paged(be, to, tq, heads, kv, &b);
            calls++;
            t1 = clock_us();
        } while (t1 - t0 < 20000);
        t[r] = (double)(t1 - t0) * 1e-6 / calls;
    }
    qsort(t, REPS, sizeof *t, by_value);
    free(q);
    free(o);
    free(pos);
    free(start);
    free(len);
    return t[REPS / 2];
}

static void bench_model(backend *be, int m, kv_type type)
{
    static const int ctxs[] = {64, 512, 4096, 32768};
    int heads = models[m].heads, kvh = models[m].kv_heads, hd = models[m].head_dim;
    size_t block = be->op->kv_block_bytes(type, kvh, hd);
    int n_blocks = (int)(((size_t)KV_MIB << 20) / block);
    kv_pages kv = {k_alloc(be, block * (size_t)n_blocks), type, n_blocks, kvh, hd};
    int32_t *blocks = malloc((size_t)n_blocks * sizeof *blocks);
    if (!kv.data || !blocks) exit(1);
    uint16_t *v = kv.data; /* small numbers in every type */
    for (size_t i = 0; i < block * (size_t)n_blocks / 2; i++)
        v[i] = (uint16_t)(0x2c00 + (rnd() & 0x3ff));
    for (int i = 0; i < n_blocks; i++) blocks[i] = i;
    for (int i = n_blocks - 1; i > 0; i--) {
        int k = (int)(rnd() % (uint64_t)(i + 1)), x = blocks[i];
        blocks[i] = blocks[k];
        blocks[k] = x;
    }
    printf("%-15s %-5s", models[m].name, kv_names[type]);
    for (int c = 0; c < 4; c++) {
        int ctx = ctxs[c], n_seq = n_blocks * be->kv_block / ctx, rows = ctx < 128 ? ctx : 128;
        if (n_seq < 1) continue;
        double bytes = (double)block * ctx / be->kv_block, flop = 4.0 * heads * hd;
        double all = time_calls(be, heads, &kv, blocks, n_seq, 1, ctx),
               one = time_calls(be, heads, &kv, blocks, 1, 1, ctx);
        double pre = time_calls(be, heads, &kv, blocks, 1, rows, ctx);
        printf(" | ctx %d: %.1f GB/s, one %.0f us, prefill %.0f G", ctx, n_seq * bytes / all * 1e-9,
               one * 1e6, flop * rows * (ctx - rows / 2.0) / pre * 1e-9);
        fflush(stdout);
    }
    printf("\n");
    k_free(be, kv.data, block * (size_t)n_blocks);
    free(blocks);
}

int main(int argc, char **argv)
{
    err e = {0};
    backend_options o = {
        .name = "cpu", .threads = argc > 1 ? atoi(argv[1]) : 0, .isa = argc > 2 ? argv[2] : "auto"};
    const char *only = argc > 3 ? argv[3] : "all";
    backend *be = backend_open(&o, &e);
    if (!be) {
        fprintf(stderr, "%s\n", e.msg);
        return 2;
    }
    printf("%s, %d threads\n", be->isa, be->threads);
    for (int m = 0; m < (int)(sizeof models / sizeof *models); m++)
        for (int t = KV_F32; t <= KV_Q8_0; t++)
            if (!strcmp(only, "all") || !strcmp(only, kv_names[t])) bench_model(be, m, (kv_type)t);
    backend_close(be);
    return 0;
}
