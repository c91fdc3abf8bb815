/* test_cuda_model.c - whole models on the CUDA back end against the plain f32 one, in
 * every format; eager, recorded and overlapped passes by memcmp; the rule of bits in
 * --batch-invariant. */
#include "base/log.h"
#include "engine/engine_open.h"
#include "kernels/cuda/own.h"
#include "kernels/formats.h"
#include "tests/cuda/device.h"
#include "tests/model_rig.h"
#include "tests/quick.h"

#define DATA "tests/data/models/"

static const char *const tiny[] = {"qwen2-gqa7", "qwen2-untied", "qwen3", "qwen3-bias",
                                   "qwen2-tie-differs"};
enum { N_TINY = sizeof tiny / sizeof *tiny };

static const backend_options plain = {.name = "ref"}, cuda = {.name = DEVICE},
                             eager = {.name = DEVICE, .no_graphs = true},
                             invariant = {.name = DEVICE, .batch_invariant = true};

static void pseudo_random(int32_t *tok, int n, int vocab, uint32_t seed)
{
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        tok[i] = (int32_t)((seed >> 8) % (uint32_t)vocab);
    }
}

/* ---- against f32 -----------------------------------------------------------------------------
 * The bound is what rounding alone costs: a third machine is the plain one with the output of every
 * op rounded to bf16.  The back end may be off by twice the worst of that machine's rows, no more
 * (the two round different sums, so their errors are alike in size and not in sign), on a device,
 * whose tensor cores cut sums off, by a little more (2.01 was seen on an H100). */
static const double WORSE = EMULATED ? 2 : 2.5;

static backend_ops plain_ops; /* ref's own, below the rounding */
static int logit_cols;        /* f32 on every machine: not rounded */

static void to_bf16(tensor y)
{
    for (int r = 0; r < y.rows && y.cols != logit_cols; r++)
        for (int c = 0; c < y.cols; c++) {
            float *v = tensor_row(y, r) + c;
            *v = bf16_to_f32(f32_to_bf16(*v));
        }
}
static void round_embed(backend *be, tensor y, const int32_t *tok, const weight *w)
{
    plain_ops.embed(be, y, tok, w);
    to_bf16(y);
}
static void round_linear(backend *be, tensor y, tensor x, const weight *w)
{
    plain_ops.linear(be, y, x, w);
    to_bf16(y);
}
static void round_rms_norm(backend *be, tensor y, tensor x, const vec *w, float eps)
{
    plain_ops.rms_norm(be, y, x, w, eps);
    to_bf16(y);
}
static void round_glu(backend *be, tensor y, tensor gate_up)
{
    plain_ops.glu(be, y, gate_up);
    to_bf16(y);
}
static void round_add(backend *be, tensor y, tensor x)
{
    plain_ops.add(be, y, x);
    to_bf16(y);
}
static void round_rope_store(backend *be, tensor qkv, int heads, int kv_heads, int head_dim,
                             const vec *q_norm, const vec *k_norm, float eps, tensor cs,
                             kv_pages *kv, const batch *b)
{
    plain_ops.rope_store(be, qkv, heads, kv_heads, head_dim, q_norm, k_norm, eps, cs, kv, b);
    to_bf16(qkv);
}
static void round_attn_paged(backend *be, tensor o, tensor qkv, int heads, const kv_pages *kv,
                             const batch *b)
{
    plain_ops.attn_paged(be, o, qkv, heads, kv, b);
    to_bf16(o);
}

/* Turns a rig on ref into the rounding machine.  Fusions go: their parts round. */
static void make_rounding(rig *g)
{
    static backend_ops ops;
    plain_ops = ops = *g->be->op;
    logit_cols = g->vocab;
    ops.embed = round_embed;
    ops.linear = round_linear;
    ops.rms_norm = round_rms_norm;
    ops.glu = round_glu;
    ops.add = round_add;
    ops.rope_store = round_rope_store;
    ops.attn_paged = round_attn_paged;
    g->be->op = &ops;
    ck_assert(!ops.norm_linear && !ops.norm_glu && !ops.linear_add && !ops.rope_attn);
}

/* Logits of a prompt at once, then of tokens fed one by one, [n][vocab]. */
static float *run(rig *g, const int32_t *tok, int n_prompt, int n)
{
    float *v = malloc((size_t)n * (size_t)g->vocab * sizeof *v);
    rig_seq s = {tok, 0, n_prompt, 0, n_prompt};
    rig_step(g, &s, 1, true, v);
    for (s.at = n_prompt, s.n = 1; s.at < n; s.at++)
        rig_step(g, &s, 1, true, v + (size_t)s.at * (size_t)g->vocab);
    return v;
}

static double worst_row(const float *got, const float *want, int n, int vocab)
{
    double worst = 0;
    for (int i = 0; i < n; i++) {
        size_t at = (size_t)i * (size_t)vocab;
        worst = fmax(worst, row_error(got + at, want + at, vocab));
    }
    return worst;
}

/* By how much the largest logit leads, as a share of the row's largest size. */
static double lead(const float *v, int n, int *best)
{
    float second = -INFINITY, size = 0;
    *best = argmax(v, n);
    for (int i = 0; i < n; i++) {
        if (i != *best && v[i] > second) second = v[i];
        size = fmaxf(size, fabsf(v[i]));
    }
    return (double)(v[*best] - second) / (double)size;
}

/* got, want and rounded are on the back end, on ref, and on ref in turn to be the rounding one. */
static void check_agreement(const char *what, rig *got, rig *want, rig *rounded, int n_prompt,
                            int n)
{
    int32_t tok[64];
    int decided = 0;
    pseudo_random(tok, n, want->vocab, 7);
    float *y = run(want, tok, n_prompt, n), *x = run(got, tok, n_prompt, n);
    make_rounding(rounded);
    float *z = run(rounded, tok, n_prompt, n);
    double bound = WORSE * worst_row(z, y, n, want->vocab), bad = worst_row(x, y, n, want->vocab);
    ck_assert_msg(bad <= bound, "%s: logits differ by %g, bound %g", what, bad, bound);
    ck_assert_msg(bound < 0.1, "%s: rounding alone changes logits by %g", what, bound);
    for (int i = 0; i < n; i++) {
        int best, mine = argmax(x + (size_t)i * (size_t)want->vocab, want->vocab);
        if (lead(y + (size_t)i * (size_t)want->vocab, want->vocab, &best) <= 2 * bound) continue;
        decided++;
        ck_assert_msg(mine == best, "%s, position %d: %d, f32 says %d", what, i, mine, best);
    }
    ck_assert_int_ge(decided, n / 5); /* else the arg-max was not tested */
    free(x);
    free(y);
    free(z);
}

START_TEST(tiny_models_agree_with_f32)
{
    enum { PROMPT = 37, N = 50 };
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, DATA "%s", tiny[_i % N_TINY]);
    rig got = rig_open(dir, _i < N_TINY ? &cuda : &invariant, KV_F16, 64);
    rig want = rig_open(dir, &plain, KV_F32, 64), rounded = rig_open(dir, &plain, KV_F16, 64);
    check_agreement(dir, &got, &want, &rounded, PROMPT, N);
    rig_close(&got);
    rig_close(&want);
    rig_close(&rounded);
}
END_TEST

/* ---- every format -------------------------------------------------------------------------- */

static const int formats[] = {
#define X(id, number, name, elems, bytes) number,
    DTYPE_LIST(X)
#undef X
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

static const char config[] =
    "{\"architectures\": [\"Qwen3ForCausalLM\"], \"model_type\": \"qwen3\", \"hidden_size\": 256, "
    "\"intermediate_size\": 256, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "
    "\"num_key_value_heads\": 2, \"head_dim\": 64, \"vocab_size\": 160, "
    "\"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-6, \"rope_theta\": 10000, "
    "\"tie_word_embeddings\": false}";

/* A made-up model of one format.  The same host bytes on both machines: the device's own way of
 * making them up is put aside. */
static rig open_format(const char *dir, int type, const backend_options *bo, kv_type kv,
                       backend_ops *ops)
{
    rig g = {0};
    err e = {0};
    engine_options eo = {
        .model_path = dir, .dummy_weights = true, .dummy_type = dtype_of(type).name};
    g.c = engine_checkpoint(&eo, &e);
    ck_assert_msg(g.c != NULL, "%s", e.msg);
    g.be = backend_open(bo, &e);
    ck_assert_msg(g.be != NULL, "%s", e.msg);
    *ops = *g.be->op;
    ops->dummy_weight = NULL;
    g.be->op = ops;
    model_options mo = {.ctx = 64, .max_tok = 64, .max_seqs = RIG_SEQS, .max_out = 64, .kv = kv};
    g.m = model_load(g.c, g.be, &mo, &e);
    ck_assert_msg(g.m != NULL, "%s: %s", eo.dummy_type, e.msg);
    g.n_blocks = RIG_SEQS * (64 / g.be->kv_block);
    ck_assert_msg(!model_kv_alloc(g.m, g.n_blocks, &e), "%s", e.msg);
    g.vocab = model_vocab_rows(g.m);
    return g;
}

START_TEST(formats_agree_with_f32)
{
    enum { PROMPT = 21, N = 24 };
    char dir[PATH_MAX], path[PATH_MAX + 16];
    backend_ops ops[3];
    err e = {0};
    temp_dir(dir);
    snprintf(path, sizeof path, "%s/config.json", dir);
    ck_assert(!file_write_atomic(path, config, sizeof config - 1, &e));
    rig got = open_format(dir, formats[_i], &cuda, KV_F16, &ops[0]);
    rig want = open_format(dir, formats[_i], &plain, KV_F32, &ops[1]);
    rig rounded = open_format(dir, formats[_i], &plain, KV_F16, &ops[2]);
    check_agreement(dtype_of(formats[_i]).name, &got, &want, &rounded, PROMPT, N);
    rig_close(&got);
    rig_close(&want);
    rig_close(&rounded);
    temp_remove(dir);
}
END_TEST

/* ---- eager, recorded, overlapped ------------------------------------------------------------ */

enum { STEPS = 12, LONGEST = 509 };
/* Two of them grow over an edge of 256 positions in steps that are replayed. */
static const int prompt_len[RIG_SEQS] = {9, 250, LONGEST, 38};

/* What came out: ids and logprobs of every draw, logits after the last. */
typedef struct {
    sample_row row[STEPS][RIG_SEQS];
    float *logits;
} trail;

static sample_row draw_of(const rig *g, int seq, int step)
{
    return (sample_row){.temperature = seq ? 1 : 0,
                        .top_p = seq == 2 ? 0.9f : 1,
                        .repetition = 1,
                        .n_vocab = g->vocab,
                        .seed = 11 + (uint64_t)seq,
                        .position = (uint64_t)step,
                        .n_top = 2,
                        .forced = -1};
}

/* rig.more of the two below. */
typedef struct {
    sample_row *row;
    bool pending; /* tokens are those drawn in the step before, which need not be finished */
} drawing;

/* Starts a step and its draws without waiting for anything. */
static void start_drawing(rig *g, const batch *b, float *out)
{
    const drawing *d = g->more;
    int32_t pending[RIG_SEQS];
    batch late = *b;
    tensor logits;
    (void)out;
    for (int i = 0; d->pending && i < b->n_tok; i++) pending[i] = -1 - i;
    if (d->pending) late.tok = pending;
    model_forward(g->m, &late, &logits, NULL);
    k_sample(g->be, logits, d->row, b->n_out);
}

/* Prompts one by one, then STEPS tokens of every sequence; half way two of them leave, so that two
 * buckets are recorded. */
static void run_steps(rig *g, trail *t, bool overlap)
{
    static int32_t tok[RIG_SEQS][LONGEST + STEPS + 1];
    int marks[STEPS];
    err e = {0};
    float *last = t->logits = malloc(RIG_SEQS * (size_t)g->vocab * sizeof *last);
    for (int s = 0; s < RIG_SEQS; s++) {
        int n = prompt_len[s];
        pseudo_random(tok[s], n, g->vocab, 91u + (uint32_t)s);
        rig_step(g, &(rig_seq){tok[s], 0, n, s, n}, 1, false, last);
        tok[s][n] = argmax(last, g->vocab);
    }
    g->forward = start_drawing;
    for (int step = 0; step < STEPS; step++) {
        rig_seq s[RIG_SEQS];
        drawing d = {t->row[step], step > 0};
        int n = step < STEPS / 2 ? RIG_SEQS : 2;
        for (int i = 0; i < n; i++) {
            t->row[step][i] = draw_of(g, i, step);
            s[i] = (rig_seq){tok[i], prompt_len[i] + step, 1, i, prompt_len[i]};
        }
        g->more = &d;
        rig_step(g, s, n, false, NULL);
        marks[step] = k_mark(g->be);
        if (overlap && step) ck_assert_msg(!k_wait(g->be, marks[step - 1], &e), "%s", e.msg);
        if (!overlap) ck_assert_msg(!k_sync(g->be, &e), "%s", e.msg);
    }
    ck_assert_msg(!k_wait(g->be, marks[STEPS - 1], &e), "%s", e.msg);
    /* What the KV cache holds shows in one more step over it. */
    rig_seq after[2];
    for (int i = 0; i < 2; i++) {
        tok[i][prompt_len[i] + STEPS] = t->row[STEPS - 1][i].id;
        after[i] = (rig_seq){tok[i], prompt_len[i] + STEPS, 1, i, prompt_len[i]};
    }
    g->forward = NULL;
    rig_step(g, after, 2, false, t->logits);
}

static bool same_row(const sample_row *a, const sample_row *b)
{
    return a->id == b->id && a->rank == b->rank && !memcmp(&a->logprob, &b->logprob, 4) &&
           !memcmp(a->top_id, b->top_id, 2 * sizeof *a->top_id) &&
           !memcmp(a->top_logprob, b->top_logprob, 2 * sizeof *a->top_logprob);
}

START_TEST(eager_recorded_and_overlapped_are_equal)
{
    char dir[PATH_MAX];
    trail t[3];
    snprintf(dir, sizeof dir, DATA "%s", tiny[_i]);
    for (int mode = 0; mode < 3; mode++) {
        rig g = rig_open(dir, mode ? &cuda : &eager, KV_BF16, 544);
        run_steps(&g, &t[mode], mode == 2);
        int graphs = 0;
        for (int i = 0; i < own_of(g.be)->n_pass; i++)
            graphs += own_of(g.be)->pass[i].graph != NULL;
        ck_assert_int_eq(graphs, mode ? 2 : 0);
        for (int step = 0; step < STEPS; step++)
            for (int i = 0; i < (step < STEPS / 2 ? RIG_SEQS : 2); i++)
                ck_assert_msg(same_row(&t[mode].row[step][i], &t[0].row[step][i]),
                              "mode %d differs in step %d, sequence %d: %d, %d", mode, step, i,
                              t[mode].row[step][i].id, t[0].row[step][i].id);
        ck_assert(!memcmp(t[mode].logits, t[0].logits, 2 * (size_t)g.vocab * sizeof(float)));
        rig_close(&g);
    }
    for (int mode = 0; mode < 3; mode++) free(t[mode].logits);
}
END_TEST

/* ---- the rule of bits ----------------------------------------------------------------------- */

/* Chunks of 1, 7 and all, prompt or generated, alone or among others in another order: the same
 * bits. */
START_TEST(invariant_bits)
{
    enum { N = 60, AT = 20 };
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, DATA "%s", tiny[_i]);
    rig g = rig_open(dir, &invariant, KV_F16, N);
    ck_assert(g.be->invariant);
    size_t row = (size_t)g.vocab, bytes = N * row * sizeof(float);
    float *alone = malloc(bytes), *other = malloc(bytes),
          *mixed = malloc(RIG_SEQS * row * sizeof(float));
    int32_t tok[RIG_SEQS][N];
    for (int s = 0; s < RIG_SEQS; s++) pseudo_random(tok[s], N, g.vocab, 7u + (uint32_t)s);
    rig_all(&g, tok[0], N, N, 0, alone);
    for (int chunk = 1; chunk <= 7; chunk += 6) {
        rig_all(&g, tok[0], N, chunk, 1, other);
        ck_assert_msg(!memcmp(alone, other, bytes), "chunks of %d differ", chunk);
    }
    rig_all(&g, tok[0], AT, AT, 0, other);
    int at[RIG_SEQS] = {AT};
    for (int step = 0; step < 8; step++) { /* sequence 0 generates while the others prefill */
        rig_seq s[RIG_SEQS];
        int place = step % RIG_SEQS;
        for (int k = 0; k < RIG_SEQS; k++) {
            int i = (k + RIG_SEQS - place) % RIG_SEQS;
            s[k] = i ? (rig_seq){tok[i], at[i], step % 2 ? 1 : 1 + step * i % 5, i, N}
                     : (rig_seq){tok[0], at[0], 1, 0, AT};
            if (step == 5) s[k].n_prompt = 1; /* all decode: a recorded step's shape */
            if (step == 5) s[k].n = 1;
        }
        rig_step(&g, s, RIG_SEQS, false, mixed);
        ck_assert_msg(
            !memcmp(mixed + (size_t)place * row, alone + (size_t)at[0] * row, row * sizeof(float)),
            "position %d differs in company", at[0]);
        for (int k = 0; k < RIG_SEQS; k++) at[s[k].id] += s[k].n;
    }
    free(alone);
    free(other);
    free(mixed);
    rig_close(&g);
}
END_TEST

int main(void)
{
    devices_or_skip(gpu_count);
    Suite *s = suite_create("models on cuda");
    TCase *t = tcase_create("models on cuda");
    tcase_set_timeout(t, 120);
    log_init(LOG_WARN, false);
    /* Other orders of threads concern kernels, which have tests of their own for that. */
    bool few = quick() || getenv("EMU_SEED");
    tcase_add_loop_test(t, tiny_models_agree_with_f32, 0, few ? 3 : 2 * N_TINY);
    tcase_add_loop_test(t, formats_agree_with_f32, 0, few ? 4 : N_FORMATS);
    tcase_add_loop_test(t, eager_recorded_and_overlapped_are_equal, few ? 2 : 1, few ? 3 : 4);
    tcase_add_loop_test(t, invariant_bits, 0, few ? 1 : 3);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
