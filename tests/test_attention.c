/* test_attention.c - rope_store and attn_paged: against ref within stated bounds, and the rule of
 * bits by memcmp: decode or prefill, any chunking, any company, 1 to 3 threads, every instruction
 * set. */
#include "kernels/cpu/attention.h"
#include "tests/ops_rig.h"
#include "tests/quick.h"

typedef struct {
    int heads, kv_heads, head_dim;
    bool qk_norm;
} shape;

/* GQA 7:1, 1:1, 6:1, 4:1, 5:1, 20:1 (wider than a tile) and head dims with and without tails. */
static const shape shapes[] = {
    {14, 2, 64, false}, {2, 2, 128, true},  {12, 2, 128, false}, {4, 1, 96, true},
    {5, 1, 80, false},  {20, 1, 40, true},  {4, 2, 8, true},     {3, 3, 16, false},
    {8, 1, 256, true},  {2, 1, 192, false}, {18, 1, 64, true},   {2, 1, 2, false},
};
static const char *isas[4]; /* of this machine */
static int n_isas;
enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_KV = 4 };
static const kv_type kv_types[N_KV] = {KV_F32, KV_F16, KV_BF16, KV_Q8_0};
static const char *const kv_names[N_KV] = {"f32", "f16", "bf16", "q8_0"};
/* Both sides read the same rounded K and V, so the error is that of f32 sums; for q8_0 the query is
 * quantised as well.  With norms K may differ from ref's by one unit of f32 (2^-24), which with
 * probability 2^-13 (f16) or 2^-16 (bf16) a value rounds the other way by 2^-11 or 2^-8: at most
 * 2^-35 and 2^-32 in squares. */
static const double bounds[N_KV] = {1e-11, 1e-11, 1e-11, 2e-4};
static const double norm_bounds[N_KV] = {1e-11, 3e-11, 2.4e-10, 2e-4};

/* The work of several sequences, and what each backend made of it. */
typedef struct {
    shape s;
    int n_seq, total; /* total rows */
    const int *len;   /* [n_seq] */
    float *qkv;       /* [total][(heads + 2 kv_heads) * head_dim] before rotation */
    float *q_norm, *k_norm, *inv_freq;
} problem;

static int row_cols(shape s)
{
    return (s.heads + 2 * s.kv_heads) * s.head_dim;
}

static problem problem_new(shape s, const int *len, int n_seq, uint64_t seed)
{
    problem p = {.s = s, .n_seq = n_seq, .len = len};
    for (int i = 0; i < n_seq; i++) p.total += len[i];
    size_t n = (size_t)p.total * (size_t)row_cols(s);
    p.qkv = malloc(n * sizeof *p.qkv);
    fill_normal(p.qkv, n, 1.5f, seed);
    p.q_norm = malloc((size_t)s.head_dim * sizeof(float));
    p.k_norm = malloc((size_t)s.head_dim * sizeof(float));
    p.inv_freq = malloc((size_t)s.head_dim * sizeof(float));
    for (int i = 0; i < s.head_dim; i++) {
        p.q_norm[i] = 0.5f + 0.01f * (float)i;
        p.k_norm[i] = 1.5f - 0.005f * (float)i;
    }
    for (int i = 0; i < s.head_dim / 2; i++)
        p.inv_freq[i] = powf(1e6f, -2.0f * (float)i / (float)s.head_dim);
    return p;
}

static void problem_free(problem *p)
{
    free(p->qkv);
    free(p->q_norm);
    free(p->k_norm);
    free(p->inv_freq);
}

/* KV pages of all sequences on one backend, blocks dealt out in a scrambled order. */
typedef struct {
    backend *be;
    const problem *p;
    kv_pages kv;
    size_t bytes;
    int max_blocks;
    int32_t *table; /* [n_seq][max_blocks] */
    vec q_norm, k_norm;
} cache;

static cache cache_new(backend *be, const problem *p, kv_type type)
{
    cache c = {.be = be, .p = p};
    err e = {0};
    for (int i = 0; i < p->n_seq; i++) {
        int n = (p->len[i] + be->kv_block - 1) / be->kv_block;
        c.max_blocks = n > c.max_blocks ? n : c.max_blocks;
    }
    int n_blocks = c.max_blocks * p->n_seq + 3;
    c.table = malloc((size_t)(c.max_blocks * p->n_seq) * sizeof *c.table);
    int step = 7;
    while (n_blocks % step == 0) step += 2;
    for (int i = 0; i < c.max_blocks * p->n_seq; i++) c.table[i] = (i * step + 1) % n_blocks;
    c.bytes = be->op->kv_block_bytes(type, p->s.kv_heads, p->s.head_dim) * (size_t)n_blocks;
    c.kv = (kv_pages){k_alloc(be, c.bytes), type, n_blocks, p->s.kv_heads, p->s.head_dim};
    ck_assert_ptr_nonnull(c.kv.data);
    /* What an earlier request left behind must not matter: any finite bits. */
    memset(c.kv.data, 0x3b, c.bytes);
    if (p->s.qk_norm) {
        ck_assert_int_eq(k_upload_vec(be, &c.q_norm, p->q_norm, p->s.head_dim, &e), 0);
        ck_assert_int_eq(k_upload_vec(be, &c.k_norm, p->k_norm, p->s.head_dim, &e), 0);
    }
    return c;
}

static void cache_free(cache *c)
{
    k_release_vec(c->be, &c->q_norm);
    k_release_vec(c->be, &c->k_norm);
    k_free(c->be, c->kv.data, c->bytes);
    free(c->table);
}

/* Rows [from, to) of a sequence. */
typedef struct {
    int seq, from, to;
} span;

static int first_row(const problem *p, int seq)
{
    int r = 0;
    for (int i = 0; i < seq; i++) r += p->len[i];
    return r;
}

/* One step over the spans; writes o[total][heads * head_dim] of their rows. */
static void step(cache *c, const span *spans, int n, float *o)
{
    const problem *p = c->p;
    shape s = p->s;
    int n_tok = 0, cols = row_cols(s), out = s.heads * s.head_dim;
    for (int i = 0; i < n; i++) n_tok += spans[i].to - spans[i].from;
    int32_t *ints = malloc((size_t)(2 * n_tok + 2 * n + 1 + n * c->max_blocks) * sizeof *ints);
    int32_t *pos = ints, *slot = pos + n_tok, *start = slot + n_tok, *ctx = start + n + 1,
            *table = ctx + n;
    own qkv = own_new(n_tok, cols), cs = own_new(n_tok, s.head_dim), y = own_new(n_tok, out);
    int t = 0;
    for (int i = 0; i < n; i++) {
        const int32_t *blocks = c->table + spans[i].seq * c->max_blocks;
        start[i] = t;
        ctx[i] = spans[i].to;
        memcpy(table + i * c->max_blocks, blocks, (size_t)c->max_blocks * sizeof *table);
        for (int q = spans[i].from; q < spans[i].to; q++, t++) {
            pos[t] = q;
            slot[t] = blocks[q / c->be->kv_block] * c->be->kv_block + q % c->be->kv_block;
            memcpy(tensor_row(qkv.t, t),
                   p->qkv + (size_t)(first_row(p, spans[i].seq) + q) * (size_t)cols,
                   (size_t)cols * sizeof(float));
        }
    }
    start[n] = t;
    batch b = {.n_tok = n_tok,
               .n_seq = n,
               .max_blocks = c->max_blocks,
               .pos = pos,
               .slot = slot,
               .seq_start = start,
               .ctx_len = ctx,
               .block_table = table};
    rope_spec rope = {s.head_dim, p->inv_freq, 1.0f};
    err e = {0};
    k_rope_rows(c->be, cs.t, pos, &rope);
    k_rope_store(c->be, qkv.t, s.heads, s.kv_heads, s.head_dim, s.qk_norm ? &c->q_norm : NULL,
                 s.qk_norm ? &c->k_norm : NULL, 1e-6f, cs.t, &c->kv, &b);
    k_attn_paged(c->be, y.t, qkv.t, s.heads, &c->kv, &b);
    ck_assert_msg(k_sync(c->be, &e) == 0, "%s", e.msg);
    t = 0;
    for (int i = 0; i < n; i++)
        for (int q = spans[i].from; q < spans[i].to; q++, t++)
            memcpy(o + (size_t)(first_row(p, spans[i].seq) + q) * (size_t)out, tensor_row(y.t, t),
                   (size_t)out * sizeof(float));
    own_check(qkv);
    own_check(cs);
    own_check(y);
    own_free(&qkv);
    own_free(&cs);
    own_free(&y);
    free(ints);
}

static size_t out_values(const problem *p)
{
    return (size_t)p->total * (size_t)(p->s.heads * p->s.head_dim);
}

/* All sequences at once, each as one prefill. */
static float *prefill(backend *be, const problem *p, kv_type type)
{
    float *o = calloc(out_values(p), sizeof *o);
    span *all = malloc((size_t)p->n_seq * sizeof *all);
    for (int i = 0; i < p->n_seq; i++) all[i] = (span){i, 0, p->len[i]};
    cache c = cache_new(be, p, type);
    step(&c, all, p->n_seq, o);
    cache_free(&c);
    free(all);
    return o;
}

START_TEST(equals_ref)
{
    static const int len[] = {37, 1, 267};
    if (quick_skips(_i, 5)) return;
    shape s = shapes[_i / N_KV];
    int k = _i % N_KV;
    problem p = problem_new(s, len, 3, 11 + (uint64_t)_i);
    backend *ref = open_backend("ref", NULL, 1), *cpu = open_backend("cpu", "auto", 2);
    float *want = prefill(ref, &p, kv_types[k]), *got = prefill(cpu, &p, kv_types[k]);
    double norm = 0, e = nmse(got, want, out_values(&p), 0, &norm) / norm;
    double bound = s.qk_norm ? norm_bounds[k] : bounds[k];
    ck_assert_msg(e <= bound, "%d/%d x %d %s: NMSE %.2e above %.0e", s.heads, s.kv_heads,
                  s.head_dim, kv_names[k], e, bound);
    free(want);
    free(got);
    backend_close(ref);
    backend_close(cpu);
    problem_free(&p);
}
END_TEST

/* Shapes in turn with short contexts, then one that folds two chunks. */
START_TEST(every_isa_same_bits)
{
    static const int few[] = {41, 3}, many[] = {260};
    bool is_long = _i >= N_SHAPES * N_KV;
    if (quick_skips(_i, 5)) return;
    shape s = is_long ? (shape){3, 1, 32, false} : shapes[_i / N_KV];
    kv_type type = kv_types[_i % N_KV];
    problem p = is_long ? problem_new(s, many, 1, 5) : problem_new(s, few, 2, 5 + (uint64_t)_i);
    float *first = NULL;
    for (int i = 0; i < n_isas; i++) {
        backend *cpu = open_backend("cpu", isas[i], 1);
        float *got = prefill(cpu, &p, type);
        if (!first) first = got;
        ck_assert_msg(!memcmp(first, got, out_values(&p) * sizeof *got),
                      "%s differs from %s (%s, %d/%d x %d)", isas[i], isas[0], kv_names[_i % N_KV],
                      s.heads, s.kv_heads, s.head_dim);
        if (first != got) free(got);
        backend_close(cpu);
    }
    free(first);
    problem_free(&p);
}
END_TEST

/* Sequence 1 of the problem, written in several steps while others decode beside it. */
static void in_pieces(backend *be, const problem *p, kv_type type, int piece, const float *want)
{
    float *o = calloc(out_values(p), sizeof *o);
    cache c = cache_new(be, p, type);
    int done[8] = {0};
    for (bool more = true; more;) {
        span s[8];
        int n = 0;
        more = false;
        for (int i = p->n_seq - 1; i >= 0; i--) { /* order in the batch must not matter either */
            int take = i % 2 ? piece : 1 + (done[i] + i) % 3, left = p->len[i] - done[i];
            if (left <= 0) continue;
            take = take < left ? take : left;
            s[n++] = (span){i, done[i], done[i] + take};
            done[i] += take;
            more = true;
        }
        if (n) step(&c, s, n, o);
    }
    for (int r = 0; r < p->total; r++) {
        size_t w = (size_t)(p->s.heads * p->s.head_dim);
        ck_assert_msg(!memcmp(o + (size_t)r * w, want + (size_t)r * w, w * sizeof *o),
                      "piece %d, %d threads: row %d has other bits", piece, be->threads, r);
    }
    cache_free(&c);
    free(o);
}

START_TEST(any_cut_same_bits)
{
    static const int len[] = {270, 515, 40};
    static const shape some[] = {{7, 1, 64, false}, {2, 2, 128, true}, {20, 1, 40, true}};
    if (quick_skips(_i, 5)) return;
    problem p = problem_new(some[_i / N_KV], len, 3, 77);
    kv_type type = kv_types[_i % N_KV];
    backend *one = open_backend("cpu", "auto", 1);
    float *want = prefill(one, &p, type);
    static const int pieces[] = {1, 7, 64, 512};
    for (int threads = 1; threads <= 3; threads++) {
        backend *be = threads == 1 ? one : open_backend("cpu", "auto", threads);
        for (int i = 0; i < 4; i++)
            if (threads == 2 || i == threads / 2) in_pieces(be, &p, type, pieces[i], want);
        if (be != one) backend_close(be);
    }
    free(want);
    backend_close(one);
    problem_free(&p);
}
END_TEST

/* A long context, decoded alone: its chunks are shared by the threads. */
START_TEST(long_decode_split)
{
    enum { LEN = 2900 };
    static const int len[] = {LEN};
    static const shape s = {4, 4, 32, false};
    if (quick_skips(_i, 3)) return;
    problem p = problem_new(s, len, 1, 3);
    kv_type type = kv_types[_i];
    size_t w = (size_t)(s.heads * s.head_dim);
    float *o[4];
    for (int t = 1; t <= 4; t++) {
        backend *be = open_backend("cpu", "auto", t);
        /* With 3 threads the stored parts of twelve chunks do not fit: several windows. */
        if (t == 3)
            attn_work_limit(cpu_of(be)->attn_work, 12 * sizeof(float) * attn_part_floats(32));
        cache c = cache_new(be, &p, type);
        o[t - 1] = calloc(out_values(&p), sizeof(float));
        step(&c, &(span){0, 0, LEN - 1}, 1, o[t - 1]);
        memset(o[t - 1], 0, out_values(&p) * sizeof(float));
        step(&c, &(span){0, LEN - 1, LEN}, 1, o[t - 1]);
        cache_free(&c);
        backend_close(be);
        ck_assert(!memcmp(o[0] + (LEN - 1) * w, o[t - 1] + (LEN - 1) * w, w * sizeof(float)));
    }
    for (size_t i = 0; i < w; i++) ck_assert(isfinite(o[0][(LEN - 1) * w + i]));
    for (int t = 0; t < 4; t++) free(o[t]);
    problem_free(&p);
}
END_TEST

/* Scores far beyond what f16 holds, as Qwen2.5's key bias makes them. */
START_TEST(huge_keys)
{
    static const int len[] = {100};
    static const shape s = {4, 1, 64, false};
    problem p = problem_new(s, len, 1, 21);
    for (int r = 0; r < p.total; r++) {
        float *row = p.qkv + (size_t)r * (size_t)row_cols(s);
        for (int d = 0; d < 4; d++) {
            row[s.heads * 64 + 10 * d] += 900;
            for (int h = 0; h < s.heads; h++) row[64 * h + 10 * d] *= 60;
        }
    }
    backend *ref = open_backend("ref", NULL, 1), *cpu = open_backend("cpu", "auto", 2);
    for (int k = 0; k < N_KV; k++) {
        float *want = prefill(ref, &p, kv_types[k]), *got = prefill(cpu, &p, kv_types[k]);
        double norm = 0, e = nmse(got, want, out_values(&p), 0, &norm) / norm;
        /* Scores near 1e6 in f32 carry 0.06 of rounding into the exponent. */
        if (kv_types[k] != KV_Q8_0) ck_assert_msg(e < 5e-3, "%s: NMSE %.2e", kv_names[k], e);
        ck_assert_msg(isfinite(e), "%s", kv_names[k]);
        free(want);
        free(got);
    }
    backend_close(ref);
    backend_close(cpu);
    problem_free(&p);
}
END_TEST

START_TEST(refuses_bad_slots)
{
    static const int len[] = {4};
    static const shape s = {2, 1, 32, false};
    problem p = problem_new(s, len, 1, 2);
    backend *cpu = open_backend("cpu", "auto", 1);
    cache c = cache_new(cpu, &p, KV_F16);
    int32_t pos[] = {0}, slot[] = {c.kv.n_blocks * 32};
    own qkv = own_new(1, row_cols(s)), cs = own_new(1, 32);
    own_fill(qkv, 1, 1);
    own_fill(cs, 1, 1);
    batch b = {.n_tok = 1, .n_seq = 1, .pos = pos, .slot = slot};
    err e = {0};
    k_rope_store(cpu, qkv.t, 2, 1, 32, NULL, NULL, 1e-6f, cs.t, &c.kv, &b);
    ck_assert_int_eq(k_sync(cpu, &e), ERR_DEVICE);
    ck_assert_ptr_nonnull(strstr(e.msg, "rope_store"));
    own_free(&qkv);
    own_free(&cs);
    cache_free(&c);
    backend_close(cpu);
    problem_free(&p);
}
END_TEST

int main(void)
{
    log_init(LOG_ERROR, false);
    n_isas = machine_isas(isas);
    Suite *s = suite_create("attention");
    TCase *c = tcase_create("attention");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, equals_ref, 0, N_SHAPES * N_KV);
    tcase_add_loop_test(c, every_isa_same_bits, 0, (N_SHAPES + 1) * N_KV);
    tcase_add_loop_test(c, any_cut_same_bits, 0, 3 * N_KV);
    tcase_add_loop_test(c, long_decode_split, 0, N_KV);
    tcase_add_test(c, huge_keys);
    tcase_add_test(c, refuses_bad_slots);
    suite_add_tcase(s, c);
    return run_suite(s);
}
