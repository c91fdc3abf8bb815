/* test_model.c - the model against Hugging Face's logits (tests/data/models), the rule of bits over
 * chunkings and batches, and everything loading refuses. */
#include "engine/rope.h"
#include "engine/tools.h"
#include "engine/weights.h"
#include "tests/model_rig.h"
#include "tests/quick.h"

#define DATA "tests/data/models/"

static const char *const tiny[] = {"qwen2-gqa7", "qwen2-untied", "qwen3", "qwen3-bias",
                                   "qwen2-tie-differs"};
enum { N_TINY = sizeof tiny / sizeof *tiny };

/* The machines that must agree: name and, for cpu, the instruction set. */
static const backend_options machines[] = {
    {.name = "ref"},
    {.name = "cpu", .isa = "portable", .threads = 1},
    {.name = "cpu", .isa = "auto", .threads = 2},
};
enum { N_MACHINES = sizeof machines / sizeof *machines };

/* ---- goldens -----------------------------------------------------------------------------------
 */

typedef struct {
    const char *name, *config;
    int ctx, n_prompt, n_pos, n_greedy;
    int32_t tok[RIG_MAX_TOK]; /* prompt, then the greedy ids */
    int pos[RIG_MAX_TOK];
    const float *logits; /* [n_pos][vocab] */
} golden_case;

static int take_ints(const json *a, int32_t *out)
{
    int n = 0;
    for (const json *j = a->child; j; j = j->next) {
        int64_t v;
        ck_assert(json_int(j, &v) && n < RIG_MAX_TOK);
        out[n++] = (int32_t)v;
    }
    return n;
}

static golden_case read_case(const json *j, const buf *bin)
{
    golden_case c = {.name = json_get(j, "name")->str, .config = json_get(j, "config")->str};
    int64_t ctx, offset;
    ck_assert(json_int(json_get(j, "ctx"), &ctx) && json_int(json_get(j, "offset"), &offset));
    c.ctx = (int)ctx;
    c.n_prompt = take_ints(json_get(j, "prompt"), c.tok);
    c.n_greedy = take_ints(json_get(j, "greedy"), c.tok + c.n_prompt);
    c.n_pos = take_ints(json_get(j, "positions"), c.pos);
    c.logits = (const float *)(const void *)(bin->v + offset);
    return c;
}

/* Returns the bytes of golden.bin it used. */
static size_t check_case(const char *dir, const char *name, const golden_case *c,
                         const backend_options *bo)
{
    rig g = rig_open(dir, bo, KV_F32, c->ctx);
    size_t row = (size_t)g.vocab;
    float *all = malloc((size_t)RIG_MAX_TOK * row * sizeof *all);
    rig_all(&g, c->tok, c->n_prompt, c->n_prompt, 0, all);
    for (int i = 0; i < c->n_pos; i++) {
        double bad = row_error(all + (size_t)c->pos[i] * row, c->logits + (size_t)i * row, g.vocab);
        ck_assert_msg(bad <= 1e-4, "%s/%s on %s %s, position %d: relative error %g", name, c->name,
                      g.be->op->name, g.be->isa, c->pos[i], bad);
    }
    for (int i = 0; i < c->n_greedy; i++) {
        rig_seq s = {c->tok, c->n_prompt + i - 1, 1, 0, 0};
        rig_step(&g, &s, 1, true, all);
        ck_assert_msg(argmax(all, g.vocab) == c->tok[c->n_prompt + i],
                      "%s/%s on %s %s: greedy id %d is %d, expected %d", name, c->name,
                      g.be->op->name, g.be->isa, i, argmax(all, g.vocab), c->tok[c->n_prompt + i]);
    }
    free(all);
    rig_close(&g);
    return (size_t)c->n_pos * row * sizeof *all;
}

static void check_golden(const char *name, const backend_options *bo)
{
    char from[PATH_MAX], path[PATH_MAX + 32];
    buf text = {0}, bin = {0};
    err e;
    snprintf(from, sizeof from, DATA "%s", name);
    snprintf(path, sizeof path, "%s/golden.json", from);
    ck_assert(!file_read(path, 1 << 20, &text, &e));
    snprintf(path, sizeof path, "%s/golden.bin", from);
    ck_assert(!file_read(path, 1 << 20, &bin, &e));
    const json *root;
    json_doc *doc = json_parse(text.v, text.len, NULL, &root, &e);
    ck_assert_msg(doc != NULL, "%s", e.msg);
    size_t used = 0;
    for (const json *j = json_get(root, "cases")->child; j; j = j->next) {
        golden_case c = read_case(j, &bin);
        char dir[PATH_MAX];
        temp_dir(dir);
        link_variant(dir, from, c.config);
        used += check_case(dir, name, &c, bo);
        temp_remove(dir);
    }
    ck_assert_uint_eq(used, bin.len); /* consumed to the last byte */
    json_free(doc);
    buf_clear(&text);
    buf_clear(&bin);
}

START_TEST(goldens)
{
    check_golden(tiny[_i % N_TINY], &machines[_i / N_TINY]);
}
END_TEST

/* ---- the rule of bits --------------------------------------------------------------------------
 */

static void pseudo_random(int32_t *tok, int n, int vocab, uint32_t seed)
{
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        tok[i] = (int32_t)((seed >> 8) % (uint32_t)vocab);
    }
}

/* Chunks of 1, 7, 64 and all give the same bits as decoding token by token; so do four sequences
 * that share steps, each at another place. */
START_TEST(bits)
{
    enum { N = 150 };
    static const kv_type kinds[] = {KV_F32, KV_F16, KV_BF16, KV_Q8_0};
    if (quick_skips(_i, 5)) return;
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, DATA "%s", tiny[_i % 3]);
    rig g = rig_open(dir, &machines[_i / 3 % N_MACHINES], kinds[_i / 3 / N_MACHINES], N);
    size_t row = (size_t)g.vocab, bytes = N * row * sizeof(float);
    float *alone = malloc(bytes), *other = malloc(bytes),
          *mixed = malloc(RIG_SEQS * row * sizeof(float));
    int32_t tok[RIG_SEQS][N];
    for (int s = 0; s < RIG_SEQS; s++) pseudo_random(tok[s], N, g.vocab, 7u + (uint32_t)s);
    rig_all(&g, tok[0], N, 1, 0, alone);
    for (int chunk = 7; chunk <= N; chunk = chunk == 64 ? N : chunk == 7 ? 64 : N + 1) {
        rig_all(&g, tok[0], N, chunk, 1, other);
        ck_assert_msg(!memcmp(alone, other, bytes), "chunks of %d differ", chunk);
    }
    /* Sequence 0 decodes while the others prefill in odd chunks. */
    rig_all(&g, tok[0], 40, 40, 0, other);
    int at[RIG_SEQS] = {40};
    for (int step = 0; step < 20; step++) {
        rig_seq s[RIG_SEQS] = {{tok[0], at[0], 1, 0, 0}};
        for (int i = 1; i < RIG_SEQS; i++)
            s[i] = (rig_seq){tok[i], at[i], 1 + (step * i) % 6, i, 0};
        rig_step(&g, s, RIG_SEQS, false, mixed);
        ck_assert_msg(!memcmp(mixed, alone + (size_t)at[0] * row, row * sizeof(float)),
                      "position %d differs in company", at[0]);
        for (int i = 0; i < RIG_SEQS; i++) at[i] += s[i].n;
    }
    free(alone);
    free(other);
    free(mixed);
    rig_close(&g);
}
END_TEST

/* Every instruction set this machine has gives the same logits, bit for bit, on any threads. */
START_TEST(same_bits_everywhere)
{
    static const char *const isas[] = {"portable", "avx2", "avxvnni", "avx512"};
    enum { N = 40 };
    char dir[PATH_MAX];
    int32_t tok[N];
    float *first = NULL;
    snprintf(dir, sizeof dir, DATA "%s", tiny[_i]);
    for (int k = 0; k < 8; k++) {
        err e;
        backend_options bo = {.name = "cpu", .isa = isas[k / 2], .threads = 1 + k % 2};
        backend *be = backend_open(&bo, &e);
        backend_close(be);
        if (!be) continue; /* not of this machine */
        rig g = rig_open(dir, &bo, KV_BF16, N);
        size_t bytes = (size_t)N * (size_t)g.vocab * sizeof(float);
        float *out = malloc(bytes);
        pseudo_random(tok, N, g.vocab, 11);
        rig_all(&g, tok, N, N, 0, out);
        rig_close(&g);
        ck_assert_msg(!first || !memcmp(first, out, bytes), "%s with %d threads differs", bo.isa,
                      bo.threads);
        free(first);
        first = out;
    }
    ck_assert(first != NULL);
    free(first);
}
END_TEST

/* ---- plan and costs ----------------------------------------------------------------------------
 */

START_TEST(plan_is_true)
{
    err e;
    checkpoint_options co = {.weights = true};
    checkpoint *c = checkpoint_open(DATA "qwen3-bias", &co, &e);
    ck_assert(c != NULL);
    backend *be = backend_open(&machines[_i], &e);
    ck_assert_msg(be != NULL, "%s", e.msg);
    _Atomic double progress = 0;
    model_options mo = {
        .ctx = 64, .max_tok = 32, .max_out = 8, .kv = KV_F16, .progress = &progress};
    model_plan p;
    ck_assert_msg(!model_plan_make(c, be, &mo, &p, &e), "%s", e.msg);
    /* embed + head + layer (q k v o with biases, two head norms, mlp, two norms) + final norm */
    int64_t params = 2 * 128 * 32 + (128 + 2 * 64) * 33 + 32 * 129 + 2 * 64 + 3 * 64 * 32 + 3 * 32;
    ck_assert_int_eq(p.n_params, params);
    ck_assert_str_eq(p.quantization, "F16");
    model *m = model_load(c, be, &mo, &e);
    ck_assert_msg(m != NULL, "%s", e.msg);
    ck_assert(atomic_load(&progress) == 1);
    ck_assert_int_eq(model_n_params(m), params);
    model_costs k = model_cost(m);
    ck_assert(k.body_macs == (double)((128 + 2 * 64) * 32 + 32 * 128 + 3 * 64 * 32));
    ck_assert(k.head_macs == 128.0 * 32 && k.tail_macs == 3.0 * 64 * 32);
    ck_assert(k.body_f32_macs == k.body_macs && k.head_f32_macs == k.head_macs);
    ck_assert_uint_eq(k.kv_bytes_per_pos * (uint64_t)be->kv_block, p.kv_block_bytes);
    /* The plan counts what was really allocated: both embeddings, the body, the five norms. */
    int64_t norms = (3 * 32 + 2 * 64) * 4;
    ck_assert_int_eq(p.weight_bytes, (int64_t)(k.body_bytes + 2 * k.head_bytes) + norms);
    ck_assert(!model_kv_alloc(m, 4, &e));
    model_free(m);
    backend_close(be);
    checkpoint_close(c);
}
END_TEST

/* The largest step fills the planned scratch exactly: not a byte short, none wasted. */
START_TEST(scratch_is_exact)
{
    rig g = rig_open(DATA "qwen2-gqa7", &machines[_i], KV_F16, RIG_MAX_TOK);
    int32_t tok[RIG_MAX_TOK];
    float *out = malloc((size_t)RIG_MAX_TOK * (size_t)g.vocab * sizeof *out);
    pseudo_random(tok, RIG_MAX_TOK, g.vocab, 3);
    rig_seq s = {tok, 0, RIG_MAX_TOK, 0, 0};
    rig_step(&g, &s, 1, true, out);
    ck_assert_uint_le(g.be->scratch_peak, g.be->scratch_cap);
    /* The one spare part: rows gathered for the head when not all rows are wanted. */
    size_t gathered = (size_t)RIG_MAX_TOK * 48 * sizeof(float);
    ck_assert_uint_ge(g.be->scratch_peak + gathered, g.be->scratch_cap);
    free(out);
    rig_close(&g);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("model");
    TCase *t = tcase_create("model");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, goldens, 0, N_TINY * N_MACHINES);
    tcase_add_loop_test(t, bits, 0, 3 * N_MACHINES * 4);
    tcase_add_loop_test(t, same_bits_everywhere, 0, N_TINY);
    tcase_add_loop_test(t, plan_is_true, 0, N_MACHINES);
    tcase_add_loop_test(t, scratch_is_exact, 0, N_MACHINES);
    suite_add_tcase(s, t);
    return s;
}

int main(void)
{
    SRunner *r = srunner_create(suite());
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
