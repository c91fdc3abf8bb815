/* test_quantize.c - `quern quantize`: which tensor gets which type, what the loss is (bounds
 * written down per type), what survives in the metadata, what is refused. */
#include "config/gguf_write.h"
#include "engine/text/tokenizer.h"
#include "engine/tools.h"
#include "tests/model_rig.h"

static const backend_options ref = {.name = "ref"}, cpu = {.name = "cpu", .threads = 2};

/* ---- a random model with rows of whole 256s ----------------------------------------------------
 */

enum { HIDDEN = 256, FF = 512, LAYERS = 3, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64, VOCAB = 301 };

/* Roughly normal, standard deviation `scale`, around `mean`. */
static void random_fill(float *v, size_t n, float mean, float scale, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (int k = 0; k < 12; k++) {
            *seed = *seed * 6364136223846793005u + 1442695040888963407u;
            sum += (float)(*seed >> 40) / (float)(1 << 24);
        }
        v[i] = mean + scale * (sum - 6);
    }
}

typedef struct {
    char name[64];
    int64_t cols, rows; /* rows 0: a vector */
    float mean, scale;
} random_tensor;

static void add(random_tensor *t, int *n, const char *name, int64_t cols, int64_t rows)
{
    bool norm = strstr(name, "norm") != NULL, bias = strstr(name, ".bias") != NULL;
    random_tensor *r = &t[(*n)++];
    snprintf(r->name, sizeof r->name, "%s", name);
    r->cols = cols;
    r->rows = rows;
    r->mean = norm ? 1 : 0;
    r->scale = norm                                 ? 0.2f
               : bias                               ? 0.5f
               : !strcmp(name, "token_embd.weight") ? 1
                                                    : 1 / sqrtf((float)cols);
}

static int describe(random_tensor *t)
{
    static const struct {
        const char *tail;
        int64_t cols, rows;
    } layer_tensors[] = {
        {"attn_norm.weight", HIDDEN, 0},         {"attn_q.weight", HIDDEN, HEADS * HEAD_DIM},
        {"attn_q.bias", HEADS * HEAD_DIM, 0},    {"attn_k.weight", HIDDEN, KV_HEADS * HEAD_DIM},
        {"attn_k.bias", KV_HEADS * HEAD_DIM, 0}, {"attn_v.weight", HIDDEN, KV_HEADS * HEAD_DIM},
        {"attn_v.bias", KV_HEADS * HEAD_DIM, 0}, {"attn_output.weight", HEADS * HEAD_DIM, HIDDEN},
        {"ffn_norm.weight", HIDDEN, 0},          {"ffn_gate.weight", HIDDEN, FF},
        {"ffn_up.weight", HIDDEN, FF},           {"ffn_down.weight", FF, HIDDEN},
    };
    int n = 0;
    add(t, &n, "token_embd.weight", HIDDEN, VOCAB);
    add(t, &n, "output_norm.weight", HIDDEN, 0);
    add(t, &n, "output.weight", HIDDEN, VOCAB);
    for (int i = 0; i < LAYERS; i++)
        for (size_t k = 0; k < sizeof layer_tensors / sizeof *layer_tensors; k++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s", i, layer_tensors[k].tail);
            add(t, &n, name, layer_tensors[k].cols, layer_tensors[k].rows);
        }
    return n;
}

/* poison: NULL, or a tensor whose value 5 becomes `with`. */
static void write_random(const char *path, const char *poison, float with)
{
    random_tensor t[64];
    int n = describe(t);
    gguf_writer w;
    err e = {0};
    uint64_t seed = 42;
    gw_init(&w);
    gw_str(&w, "general.architecture", "qwen2", 5);
    gw_u32(&w, "qwen2.block_count", LAYERS);
    gw_u32(&w, "qwen2.context_length", 512);
    gw_u32(&w, "qwen2.embedding_length", HIDDEN);
    gw_u32(&w, "qwen2.feed_forward_length", FF);
    gw_u32(&w, "qwen2.attention.head_count", HEADS);
    gw_u32(&w, "qwen2.attention.head_count_kv", KV_HEADS);
    gw_num(&w, "qwen2.attention.layer_norm_rms_epsilon", GGUF_F32, 1e-6);
    gw_num(&w, "qwen2.rope.freq_base", GGUF_F32, 1e6);
    gw_int(&w, "test.signed", GGUF_I64, -5);
    gw_int(&w, "test.flag", GGUF_BOOL, 1);
    gw_array(&w, "test.numbers", GGUF_F64, 2);
    gw_item_num(&w, GGUF_F64, 0.1);
    gw_item_num(&w, GGUF_F64, -2e300);
    for (int i = 0; i < n; i++) {
        int64_t dims[2] = {t[i].cols, t[i].rows};
        gw_tensor(&w, t[i].name, DT_F32, t[i].rows ? 2 : 1, dims,
                  (uint64_t)(t[i].cols * (t[i].rows ? t[i].rows : 1)) * sizeof(float));
    }
    ck_assert_msg(!gw_begin(&w, path, &e), "%s", e.msg);
    for (int i = 0; i < n; i++) {
        size_t count = (size_t)(t[i].cols * (t[i].rows ? t[i].rows : 1));
        float *v = malloc(count * sizeof *v);
        random_fill(v, count, t[i].mean, t[i].scale, &seed);
        if (poison && !strcmp(t[i].name, poison)) v[5] = with;
        ck_assert(!gw_data(&w, v, count * sizeof *v, &e) && !gw_tensor_end(&w, &e));
        free(v);
    }
    ck_assert_msg(!gw_finish(&w, &e), "%s", e.msg);
    gw_clear(&w);
}

/* Both paths have room for PATH_MAX + 32. */
static void paths(char *dir, char *in, char *out)
{
    temp_dir(dir);
    snprintf(in, PATH_MAX + 32, "%s/in.gguf", dir);
    snprintf(out, PATH_MAX + 32, "%s/out.gguf", dir);
}

static int type_in(const char *path, const char *name)
{
    err e;
    gguf *g = gguf_open(path, &e);
    ck_assert_msg(g != NULL, "%s", e.msg);
    const gguf_tensor *t = gguf_tensor_find(g, name);
    ck_assert_msg(t != NULL, "no %s in %s", name, path);
    int type = t->type;
    gguf_close(g);
    return type;
}

/* ---- loss --------------------------------------------------------------------------------------
 */

/* NMSE of all logits against the F32 model on ref.  The first bound is the weights' loss alone
 * (ref multiplies the dequantised weights in f32), the second adds what cpu loses by quantising
 * activations to 8 bits.  Each bound is twice what was measured, and the measurements follow the
 * rule that a bit less costs four times the error: Q8_0 1.4e-4, Q6_K 1.5e-3, Q5_0 6.8e-3. */
static const struct {
    const char *type;
    double ref_most, cpu_most;
} losses[] = {
    {"F32", 0, 1e-12},          {"F16", 5e-7, 5e-7},      {"BF16", 2.9e-5, 2.9e-5},
    {"Q8_0", 2.9e-4, 5.6e-4},   {"Q6_K", 3.1e-3, 3.3e-3}, {"Q5_0", 1.4e-2, 1.4e-2},
    {"Q4_K_M", 4.0e-2, 4.0e-2}, {"Q4_K", 4.2e-2, 4.3e-2}, {"Q4_0", 5.6e-2, 5.6e-2},
};
enum { N_LOSSES = sizeof losses / sizeof *losses };

START_TEST(loss)
{
    enum { N = 96 };
    char dir[PATH_MAX], in[PATH_MAX + 32], out[PATH_MAX + 32];
    err e = {0};
    paths(dir, in, out);
    write_random(in, NULL, 0);
    int rc = tool_quantize(in, out, losses[_i].type, 2, NULL, NULL, &e);
    ck_assert_msg(!rc, "%s", e.msg);
    int32_t tok[N];
    for (int i = 0; i < N; i++) tok[i] = i * 7919 % VOCAB;
    size_t count = (size_t)N * VOCAB;
    float *want = malloc(count * sizeof *want), *got = malloc(count * sizeof *got);
    rig g = rig_open(in, &ref, KV_F32, N);
    rig_all(&g, tok, N, N, 0, want);
    rig_close(&g);
    g = rig_open(out, &ref, KV_F32, N);
    rig_all(&g, tok, N, N, 0, got);
    rig_close(&g);
    double on_ref = nmse(got, want, count);
    g = rig_open(out, &cpu, KV_F32, N);
    rig_all(&g, tok, N, N, 0, got);
    rig_close(&g);
    double on_cpu = nmse(got, want, count);
    if (getenv("QUERN_TEST_PRINT"))
        printf("%-7s NMSE %.2e on ref, %.2e on cpu\n", losses[_i].type, on_ref, on_cpu);
    ck_assert_msg(on_ref <= losses[_i].ref_most, "%s on ref: NMSE %g", losses[_i].type, on_ref);
    ck_assert_msg(on_cpu <= losses[_i].cpu_most, "%s on cpu: NMSE %g", losses[_i].type, on_cpu);
    free(want);
    free(got);
    temp_remove(dir);
}
END_TEST

/* ---- types -------------------------------------------------------------------------------------
 */

START_TEST(mix)
{
    char dir[PATH_MAX], in[PATH_MAX + 32], out[PATH_MAX + 32];
    err e = {0};
    paths(dir, in, out);
    write_random(in, NULL, 0);
    ck_assert_msg(!tool_quantize(in, out, "Q4_K_M", 2, NULL, NULL, &e), "%s", e.msg);
    /* n = 3: n / 8 is 0, so layers 2 (i % 3 == 2, and the last eighth) get more bits. */
    static const struct {
        const char *tensor;
        int type;
    } want[] = {
        {"token_embd.weight", DT_Q4_K},        {"output.weight", DT_Q6_K},
        {"output_norm.weight", DT_F32},        {"blk.0.attn_v.weight", DT_Q4_K},
        {"blk.1.ffn_down.weight", DT_Q4_K},    {"blk.2.attn_v.weight", DT_Q6_K},
        {"blk.2.ffn_down.weight", DT_Q6_K},    {"blk.2.attn_q.weight", DT_Q4_K},
        {"blk.2.attn_output.weight", DT_Q4_K}, {"blk.1.attn_q.bias", DT_F32},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        ck_assert_msg(type_in(out, want[i].tensor) == want[i].type, "%s is %s", want[i].tensor,
                      dtype_of(type_in(out, want[i].tensor)).name);
    model_plan p;
    checkpoint *c = checkpoint_open(out, &(checkpoint_options){.weights = true}, &e);
    backend *be = backend_open(&ref, &e);
    model_options mo = {.ctx = 64, .max_tok = 8, .max_out = 8, .kv = KV_F16};
    ck_assert_msg(c && be && !model_plan_make(c, be, &mo, &p, &e), "%s", e.msg);
    ck_assert_str_eq(p.quantization, "Q4_K_M");
    /* Metadata of a GGUF source passes through, but for what describes tensors. */
    int64_t v;
    bool b;
    double d;
    const gguf *g = checkpoint_gguf(c);
    ck_assert(gguf_get_int(g, "test.signed", &v) && v == -5);
    ck_assert(gguf_get_bool(g, "test.flag", &b) && b);
    ck_assert(gguf_arr_num(g, "test.numbers", 0, &d) && d == 0.1);
    ck_assert(gguf_arr_num(g, "test.numbers", 1, &d) && d == -2e300);
    ck_assert(gguf_get_int(g, "general.file_type", &v) && v == 15);
    backend_close(be);
    checkpoint_close(c);
    /* A copy back to F32 loads; quantising once more does not. */
    ck_assert_msg(!tool_quantize(out, in, "F32", 1, NULL, NULL, &e), "%s", e.msg);
    ck_assert_int_eq(type_in(in, "blk.0.attn_q.weight"), DT_F32);
    ck_assert_int_eq(tool_quantize(out, in, "Q4_0", 1, NULL, NULL, &e), ERR_UNSUPPORTED);
    ck_assert(strstr(e.msg, "already Q4_K") != NULL);
    temp_remove(dir);
}
END_TEST

/* Rows that are no whole 256s or 32s, tied head: the demo model (192, 512) and 77 columns. */
START_TEST(fallbacks)
{
    char dir[PATH_MAX], in[PATH_MAX + 32], out[PATH_MAX + 32];
    err e = {0};
    paths(dir, in, out);
    ck_assert_msg(!tool_quantize("models/demo", out, "Q4_K_M", 2, NULL, NULL, &e), "%s", e.msg);
    ck_assert_int_eq(type_in(out, "token_embd.weight"), DT_Q8_0); /* Q6_K as the output */
    ck_assert_int_eq(type_in(out, "blk.0.attn_q.weight"), DT_Q5_0);
    ck_assert_int_eq(type_in(out, "blk.0.ffn_down.weight"), DT_Q4_K);
    ck_assert_int_eq(type_in(out, "blk.2.ffn_down.weight"), DT_Q6_K);
    ck_assert_int_eq(type_in(out, "blk.2.attn_v.weight"), DT_Q8_0);
    ck_assert_msg(!tool_quantize("tests/data/models/qwen2-gqa7", out, "Q4_0", 2, NULL, NULL, &e),
                  "%s", e.msg);
    ck_assert_int_eq(type_in(out, "blk.0.ffn_down.weight"), DT_F16);
    ck_assert_int_eq(type_in(out, "blk.0.attn_output.weight"), DT_Q4_0);
    temp_remove(dir);
}
END_TEST

/* ---- metadata ----------------------------------------------------------------------------------
 */

static tokenizer *open_tokenizer(const char *path, checkpoint **c)
{
    err e = {0};
    *c = checkpoint_open(path, &(checkpoint_options){.weights = true}, &e);
    ck_assert_msg(*c != NULL, "%s", e.msg);
    checkpoint_text f = checkpoint_text_files(*c);
    tokenizer_source src = {.tokenizer_json = f.tokenizer_json,
                            .tokenizer_config = f.tokenizer_config,
                            .gguf = checkpoint_gguf(*c)};
    tokenizer *t = tokenizer_open(&src, &e);
    ck_assert_msg(t != NULL, "%s: %s", path, e.msg);
    return t;
}

/* The demo model through a GGUF file: same numbers, same ids, same template. */
START_TEST(metadata)
{
    char dir[PATH_MAX], in[PATH_MAX + 32], out[PATH_MAX + 32];
    err e = {0};
    checkpoint *a, *b;
    paths(dir, in, out);
    ck_assert_msg(!tool_quantize("models/demo", out, "F16", 0, NULL, NULL, &e), "%s", e.msg);
    tokenizer *ta = open_tokenizer("models/demo", &a), *tb = open_tokenizer(out, &b);
    const model_config *ca = checkpoint_config(a), *cb = checkpoint_config(b);
    ck_assert_str_eq(ca->model_type, cb->model_type);
    ck_assert(ca->hidden == cb->hidden && ca->layers == cb->layers && ca->heads == cb->heads);
    ck_assert(ca->kv_heads == cb->kv_heads && ca->head_dim == cb->head_dim && ca->ff == cb->ff);
    ck_assert(ca->vocab == cb->vocab && ca->ctx == cb->ctx && ca->tied == cb->tied);
    ck_assert((float)ca->norm_eps == (float)cb->norm_eps && ca->rope.theta == cb->rope.theta);
    ck_assert(ca->gen.n_eos == cb->gen.n_eos &&
              !memcmp(ca->gen.eos, cb->gen.eos, (size_t)ca->gen.n_eos * sizeof *ca->gen.eos));
    ck_assert(tokenizer_eos(ta) == tokenizer_eos(tb) && tokenizer_pad(ta) == tokenizer_pad(tb));
    static const char text[] =
        "<|im_start|>user\nHello, wörld 123!  <think>\n\n</think><|im_end|>\n";
    token_list la = {0}, lb = {0};
    ck_assert(!tokenizer_encode(ta, text, sizeof text - 1, true, NULL, 0, &la, &e));
    ck_assert(!tokenizer_encode(tb, text, sizeof text - 1, true, NULL, 0, &lb, &e));
    ck_assert(la.n == lb.n && la.n > 10 && !memcmp(la.v, lb.v, la.n * sizeof *la.v));
    for (int32_t i = 0; i < tokenizer_n_vocab(ta); i++)
        ck_assert_msg(tokenizer_is_special(ta, i) == tokenizer_is_special(tb, i), "token %d", i);
    size_t n;
    buf file = {0};
    const char *chat = tokenizer_chat_template(tb, &n);
    ck_assert(!file_read("models/demo/chat_template.jinja", 1 << 20, &file, &e));
    ck_assert(chat && n == file.len && !memcmp(chat, file.v, n));
    buf_clear(&file);
    token_list_clear(&la);
    token_list_clear(&lb);
    tokenizer_free(ta);
    tokenizer_free(tb);
    checkpoint_close(a);
    checkpoint_close(b);
    temp_remove(dir);
}
END_TEST

/* A copy to F32 computes the same bits as the directory it came from, rope scaling included; only
 * dynamic scaling has no GGUF key. */
START_TEST(copies)
{
    static const struct {
        const char *from, *config;
        int code;
    } k[] = {
        {"qwen2-gqa7", "config.json", 0},
        {"qwen2-gqa7", "config-linear.json", 0},
        {"qwen2-untied", "config.json", 0},
        {"qwen2-tie-differs", "config.json", 0},
        {"qwen3", "config.json", 0},
        {"qwen3", "config-yarn.json", 0},
        {"qwen3", "config-yarn-type.json", 0},
        {"qwen3-bias", "config.json", 0},
        {"qwen2-gqa7", "config-dynamic.json", ERR_UNSUPPORTED},
    };
    enum { N = 20 };
    char dir[PATH_MAX], in[PATH_MAX + 32], out[PATH_MAX + 32], src[PATH_MAX];
    err e = {0};
    int32_t tok[N];
    paths(dir, in, out);
    snprintf(src, sizeof src, "tests/data/models/%s", k[_i].from);
    link_variant(dir, src, k[_i].config);
    int rc = tool_quantize(dir, out, "F32", 2, NULL, NULL, &e);
    ck_assert_msg(rc == k[_i].code, "%s", e.msg);
    if (rc) {
        temp_remove(dir);
        return;
    }
    rig a = rig_open(dir, &ref, KV_F32, N), b = rig_open(out, &ref, KV_F32, N);
    ck_assert_int_eq(a.vocab, b.vocab);
    size_t count = (size_t)N * (size_t)a.vocab;
    float *x = malloc(count * sizeof *x), *y = malloc(count * sizeof *y);
    for (int i = 0; i < N; i++) tok[i] = i * 13 % a.vocab;
    rig_all(&a, tok, N, N, 0, x);
    rig_all(&b, tok, N, N, 0, y);
    ck_assert_msg(!memcmp(x, y, count * sizeof *x), "%s %s", k[_i].from, k[_i].config);
    free(x);
    free(y);
    rig_close(&a);
    rig_close(&b);
    temp_remove(dir);
}
END_TEST

/* ---- refusals ----------------------------------------------------------------------------------
 */

START_TEST(refusals)
{
    char dir[PATH_MAX], in[PATH_MAX + 32], out[PATH_MAX + 32], tmp[PATH_MAX + 64];
    err e = {0};
    paths(dir, in, out);
    ck_assert_int_eq(tool_quantize("models/demo", out, "Q3_X", 1, NULL, NULL, &e), ERR_INVALID);
    ck_assert(strstr(e.msg, "Q3_X") && strstr(e.msg, "Q4_K_M"));
    write_random(in, "blk.1.ffn_up.weight", NAN);
    ck_assert_int_eq(tool_quantize(in, out, "Q8_0", 2, NULL, NULL, &e), ERR_FORMAT);
    ck_assert(strstr(e.msg, "blk.1.ffn_up.weight") != NULL);
    write_random(in, "blk.1.ffn_up.weight", 70000);
    ck_assert_int_eq(tool_quantize(in, out, "F16", 2, NULL, NULL, &e), ERR_LIMIT);
    ck_assert(strstr(e.msg, "BF16") != NULL);
    /* Nothing is left behind, neither under the name nor beside it. */
    snprintf(tmp, sizeof tmp, "%s.tmp", out);
    ck_assert(!file_exists(out) && !file_exists(tmp));
    ck_assert_int_eq(tool_quantize(in, "/nonexistent/x.gguf", "BF16", 1, NULL, NULL, &e), ERR_IO);
    ck_assert(tool_quantize("/nonexistent", out, "BF16", 1, NULL, NULL, &e) < 0);
    temp_remove(dir);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("quantize");
    TCase *t = tcase_create("quantize");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, loss, 0, N_LOSSES);
    tcase_add_test(t, mix);
    tcase_add_test(t, fallbacks);
    tcase_add_test(t, metadata);
    tcase_add_loop_test(t, copies, 0, 9);
    tcase_add_test(t, refusals);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
