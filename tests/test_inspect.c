/* test_inspect.c - `quern inspect` on the demo model and on tiny checkpoints: the figures add up,
 * what does not fit is said with what would, what we cannot run is described and then refused. */
#include "base/file.h"
#include "engine/model.h"
#include "engine/tools.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static buf out;
static err e;

static int inspect(const char *path, int64_t ctx, int seqs, const char *kv)
{
    engine_options o = {.model_path = path, .device = "ref", .cpu_isa = "auto", .kv_dtype = kv};
    buf_reset(&out);
    e = (err){0};
    return tool_inspect(&o, &(inspect_options){.ctx = ctx, .seqs = seqs}, &out, &e);
}

static void says(const char *text)
{
    ck_assert_msg(strstr(buf_str(&out), text) != NULL, "no '%s' in\n%s", text, buf_str(&out));
}

static void teardown(void)
{
    buf_clear(&out);
}

START_TEST(demo)
{
    ck_assert_msg(inspect("models/demo", 0, 0, NULL) == 0, "%s", e.msg);
    says("model          demo, Hugging Face directory, ");
    says("architecture   Qwen3ForCausalLM (qwen3): 4 layers, hidden 192, heads 4/2 of 64");
    says("output tied to the embedding");
    says("context        2048 tokens; rope plain, theta 1e+06\n");
    says("temperature 0.6, top_p 0.95, top_k 20\n");
    says("tokenizer      2048 tokens\n");
    says("\"<|im_end|>\"");
    says("chat_template.jinja: tools (Hermes calls), thinking (can be switched off)\n");
    says("memory         1 sequence of 2048 tokens: weights ");
    says("fits           yes, leaving ");
}
END_TEST

/* The KV figure is the plan's, block by block; every tensor stands in one class. */
START_TEST(figures)
{
    char text[80];
    int tensors = 0, n;
    const backend_options bo = {.name = "ref"};
    backend *be = backend_open(&bo, &e);
    checkpoint *c = checkpoint_open("models/demo", NULL, &e);
    ck_assert(be && c);
    model_options mo = {.ctx = 2048, .max_tok = 512, .max_out = 16, .kv = KV_F32};
    model_plan p;
    ck_assert_int_eq(model_plan_make(c, be, &mo, &p, &e), 0);
    ck_assert_int_eq(inspect("models/demo", 1000, 3, "f32"), 0);
    size_t blocks = (size_t)((1000 + be->kv_block - 1) / be->kv_block) * 3;
    snprintf(text, sizeof text, "KV cache (f32) %.1f MiB",
             (double)(blocks * p.kv_block_bytes) / (1 << 20));
    says(text);
    says("3 sequences of 1000 tokens");
    static const char *const classes[] = {"  embedding", "  attention", "  mlp", "  norms"};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        const char *at = strstr(buf_str(&out), classes[i]);
        ck_assert_ptr_nonnull(at);
        ck_assert_int_eq(sscanf(at, "%*s %d", &n), 1);
        tensors += n;
    }
    ck_assert_uint_eq((size_t)tensors, checkpoint_n_tensors(c));
    checkpoint_close(c);
    backend_close(be);
}
END_TEST

START_TEST(does_not_fit)
{
    ck_assert_int_eq(inspect("models/demo", 2048, 1 << 24, "f32"), 0);
    says("fits           no, short of ");
    says(" of 2048 would fit (--max-num-seqs); --kv-cache-dtype q8_0 takes less\n");
    ck_assert_int_eq(inspect("models/demo", 4096, 1, NULL), ERR_INVALID);
    ck_assert_str_eq(
        e.msg,
        "a context of 4096 tokens is more than the model's 2048; stretch it with --rope-scaling");
    ck_assert_int_eq(inspect("models/demo", 1, 1, "q3"), ERR_INVALID);
    ck_assert_int_eq(inspect("models", 1, 1, NULL), ERR_NOTFOUND);
    ck_assert_uint_eq(out.len, 0);
}
END_TEST

START_TEST(foreign)
{
    static const char config[] =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":2}";
    static const char header[] =
        "{\"model.layers.0.mlp.w\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,2],\"data_offsets\":[0,4]}}";
    char dir[] = "/tmp/quern-inspect-XXXXXX", path[80], cmd[80];
    buf file = {0};
    uint64_t n = sizeof header - 1;
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    ck_assert_int_eq(file_write_atomic(path, config, sizeof config - 1, &e), 0);
    buf_put(&file, &n, sizeof n);
    buf_puts(&file, header);
    buf_puts(&file, "abcd");
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    ck_assert_int_eq(file_write_atomic(path, file.v, file.len, &e), 0);
    ck_assert_int_eq(inspect(dir, 0, 0, NULL), ERR_UNSUPPORTED);
    says("architecture   LlamaForCausalLM (llama)");
    says("mlp              1 F8_E4M3 0.0 KiB");
    says("tokenizer      none");
    ck_assert_ptr_nonnull(strstr(e.msg, "LlamaForCausalLM"));
    buf_clear(&file);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    ck_assert_int_eq(system(cmd), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("inspect");
    TCase *t = tcase_create("inspect");
    tcase_add_checked_fixture(t, NULL, teardown);
    tcase_add_test(t, demo);
    tcase_add_test(t, figures);
    tcase_add_test(t, does_not_fit);
    tcase_add_test(t, foreign);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
