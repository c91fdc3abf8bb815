/* attention.cu - decode attention as a share of the read roof, prefill attention in TFLOP/s, at the
 * heads of 7B and of 32B and 72B models, rotation and the writing of KV included. */
#include "tests/gpu/bench_rig.h"

typedef struct {
    const char *name;
    int heads, kv_heads, dim;
} heads_of;
static const heads_of models[] = {
    {"7B 28/4", 28, 4, 128}, {"32B 40/8", 40, 8, 128}, {"72B 64/8", 64, 8, 128}};

typedef struct {
    bench *b;
    heads_of h;
    batch_limits limits;
    kv_pages kv;
    size_t kv_bytes;
    tensor qkv, o, cs;
    vec freq;
} stand;

static void *need(bench *b, size_t bytes)
{
    void *p = k_alloc(b->be, bytes);
    if (p) return p;
    printf("no memory for %zu MiB\n", bytes >> 20);
    exit(1);
}

static stand stand_new(bench *b, heads_of h, int max_tok, int max_seqs, int max_ctx, int n_blocks)
{
    stand s = {};
    err e = {};
    int cols = (h.heads + 2 * h.kv_heads) * h.dim, kb = b->be->kv_block;
    s.b = b;
    s.h = h;
    s.limits.max_tok = max_tok;
    s.limits.max_seqs = s.limits.max_out = max_seqs;
    s.limits.max_blocks = (max_ctx + kb - 1) / kb;
    s.limits.heads = h.heads;
    s.limits.kv_heads = h.kv_heads;
    s.limits.head_dim = h.dim;
    bench_reserve(b, &s.limits);
    s.kv_bytes = cuda_kv_block_bytes(KV_BF16, h.kv_heads, h.dim) * (size_t)n_blocks;
    s.kv.data = need(b, s.kv_bytes);
    s.kv.type = KV_BF16;
    s.kv.n_blocks = n_blocks;
    s.kv.kv_heads = h.kv_heads;
    s.kv.head_dim = h.dim;
    size_t rows = (size_t)max_tok;
    s.qkv = {need(b, rows * (size_t)cols * 2), max_tok, cols, cols, ACT_BF16};
    s.o = {need(b, rows * (size_t)(h.heads * h.dim) * 2), max_tok, h.heads * h.dim, h.heads * h.dim,
           ACT_BF16};
    s.cs = {need(b, rows * (size_t)h.dim * 4), max_tok, h.dim, h.dim, ACT_F32};
    bench_noise(b, s.kv.data, s.kv_bytes / 2);
    bench_noise(b, s.qkv.ptr, rows * (size_t)cols);
    float freq[64];
    for (int i = 0; i < h.dim / 2; i++) freq[i] = powf(1e6f, -2.0f * (float)i / (float)h.dim);
    if (k_upload_vec(b->be, &s.freq, freq, h.dim / 2, &e)) {
        printf("%s\n", e.msg);
        exit(1);
    }
    return s;
}
static void stand_free(stand *s)
{
    backend *be = s->b->be;
    size_t rows = (size_t)s->limits.max_tok;
    k_free(be, s->kv.data, s->kv_bytes);
    k_free(be, s->qkv.ptr, rows * (size_t)s->qkv.cols * 2);
    k_free(be, s->o.ptr, rows * (size_t)s->o.cols * 2);
    k_free(be, s->cs.ptr, rows * (size_t)s->cs.cols * 4);
    k_release_vec(be, &s->freq);
}

/* n_seq sequences with ctx positions, of which the last `rows` are in this step; the pages of all
 * lie scattered.  Milliseconds of rotate, store and attend. */
static double time_step(stand *s, int n_seq, int rows, int ctx, bool generated)
{
    int kb = s->b->be->kv_block, per = (ctx + kb - 1) / kb, n = n_seq * rows;
    size_t words = (size_t)n * 3 + (size_t)n_seq * 4 + 2 + (size_t)n_seq * (size_t)per;
    int32_t *v = (int32_t *)calloc(words, sizeof *v);
    int32_t *tok = v, *pos = tok + n, *slot = pos + n, *start = slot + n, *len = start + n_seq + 1;
    int32_t *prompt = len + n_seq, *out = prompt + n_seq, *table = out + n_seq;
    int blocks = n_seq * per;
    for (int i = 0; i < n_seq; i++) {
        start[i] = i * rows;
        len[i] = ctx;
        prompt[i] = generated ? ctx - rows : ctx;
        out[i] = (i + 1) * rows - 1;
        for (int p = 0; p < per; p++) /* an odd multiplier visits every block of the pool once */
            table[i * per + p] = (int32_t)((int64_t)(i * per + p) * 7919 % blocks);
        for (int r = 0; r < rows; r++) {
            int at = ctx - rows + r;
            pos[i * rows + r] = at;
            slot[i * rows + r] = table[i * per + at / kb] * kb + at % kb;
        }
    }
    start[n_seq] = n;
    batch host = {};
    host.n_tok = n;
    host.n_seq = host.n_out = n_seq;
    host.max_blocks = per;
    host.tok = tok;
    host.pos = pos;
    host.slot = slot;
    host.seq_start = start;
    host.ctx_len = len;
    host.block_table = table;
    host.out_row = out;
    host.n_prompt = prompt;
    batch dev = k_batch(s->b->be, &host);
    tensor qkv = s->qkv, o = s->o, cs = s->cs;
    qkv.rows = o.rows = cs.rows = dev.n_tok;
    rope_spec r = {s->h.dim, s->freq.v, 1};
    k_rope_rows(s->b->be, cs, dev.pos, &r);
    double ms = bench_calls(s->b, 4, [&](int) {
        k_rope_attn(s->b->be, o, qkv, s->h.heads, NULL, NULL, 1e-6f, cs, &s->kv, &dev);
    });
    free(v);
    return ms;
}

static void decode(bench *b, heads_of h)
{
    static const int seqs[] = {1, 8, 32, 64, 128, 256}, ctxs[] = {512, 2048, 8192, 32768};
    int most = b->small ? 8 : 256, longest = b->small ? 512 : 32768,
        budget = b->small ? 4096 : 1 << 22;
    int kb = b->be->kv_block;
    stand s = stand_new(b, h, most, most, longest, budget / kb + 256);
    for (int n : seqs)
        for (int ctx : ctxs) {
            if (n > most || ctx > longest || (int64_t)n * ctx > budget) continue;
            char what[80];
            double ms = time_step(&s, n, 1, ctx, true);
            double bytes = 4.0 * n * ctx * h.kv_heads * h.dim;
            snprintf(what, sizeof what, "decode  %-9s %3d x %5d", h.name, n, ctx);
            bench_line(what, ms, bytes / ms * 1e-6, "GB/s", b->read * 1e-9);
        }
    stand_free(&s);
}

static void prefill(bench *b, heads_of h)
{
    static const int lengths[] = {128, 512, 2048, 8192, 32768};
    int longest = b->small ? 128 : 32768, chunk = b->small ? 128 : 8192, kb = b->be->kv_block;
    stand s = stand_new(b, h, chunk, 1, longest, longest / kb + 16);
    for (int n : lengths) {
        if (n > longest) continue;
        char what[80];
        int rows = n < chunk ? n : chunk; /* the last chunk of the prompt */
        double ms = time_step(&s, 1, rows, n, false);
        double pairs = (double)rows * (n - rows) + 0.5 * rows * (rows + 1.0);
        snprintf(what, sizeof what, "prefill %-9s %5d rows at %5d", h.name, rows, n);
        bench_line(what, ms, 4e-9 * pairs * h.heads * h.dim / ms, "TFLOP/s", 0);
    }
    stand_free(&s);
}

int main(int argc, char **argv)
{
    bench b = bench_open("attention");
    for (const heads_of &h : models) {
        if (!bench_wants(argc > 1 ? argv[1] : "", h.name)) continue;
        decode(&b, h);
        prefill(&b, h);
    }
    return bench_close(&b);
}
