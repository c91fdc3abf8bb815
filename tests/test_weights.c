/* test_weights.c - what loading a checkpoint refuses, in which words, and what it tolerates. */
#include "engine/weights.h"
#include "tests/model_rig.h"

#define DATA "tests/data/models/"

/* ---- writing changed checkpoints ---------------------------------------------------------------
 */

typedef struct {
    const char *drop;      /* leave this tensor out */
    const char *reshape;   /* give this one an extra row */
    const char *type, *as; /* give this one another dtype name */
    const char *add;       /* one more tensor ... */
    int n_add;             /* ... of so many values */
    float value;           /* all of this value */
} change;

static void put_entry(buf *head, const char *name, const char *type, const int64_t *shape,
                      int n_dims, size_t from, size_t to)
{
    buf_puts(head, head->len ? "," : "{");
    buf_put_json(head, name, strlen(name));
    buf_printf(head, ":{\"dtype\":\"%s\",\"shape\":[", type);
    for (int i = 0; i < n_dims; i++) buf_printf(head, "%s%lld", i ? "," : "", (long long)shape[i]);
    buf_printf(head, "],\"data_offsets\":[%zu,%zu]}", from, to);
}

static void write_safetensors(const char *path, const checkpoint *c, const change *ch)
{
    buf head = {0}, data = {0}, file = {0};
    for (size_t i = 0; i < checkpoint_n_tensors(c); i++) {
        const ckpt_tensor *t = checkpoint_tensor_at(c, i);
        int64_t shape[4];
        memcpy(shape, t->dim, sizeof shape);
        if (ch->drop && !strcmp(t->name, ch->drop)) continue;
        size_t from = data.len, row = t->bytes / (size_t)t->dim[0];
        buf_put(&data, t->data, t->bytes);
        if (ch->reshape && !strcmp(t->name, ch->reshape)) {
            buf_put(&data, t->data, row);
            shape[0]++;
        }
        bool other = ch->type && !strcmp(t->name, ch->type);
        put_entry(&head, t->name, other ? ch->as : t->type_name, shape, t->n_dims, from, data.len);
    }
    if (ch->add) {
        size_t from = data.len;
        int64_t n = ch->n_add;
        for (int i = 0; i < ch->n_add; i++) buf_put(&data, &ch->value, sizeof ch->value);
        put_entry(&head, ch->add, "F32", &n, 1, from, data.len);
    }
    buf_putc(&head, '}');
    while (head.len % 8) buf_putc(&head, ' ');
    uint64_t n = head.len;
    buf_put(&file, &n, sizeof n);
    buf_put(&file, head.v, head.len);
    buf_put(&file, data.v, data.len);
    err e;
    ck_assert(buf_ok(&file) && !file_write_atomic(path, file.v, file.len, &e));
    buf_clear(&head);
    buf_clear(&data);
    buf_clear(&file);
}

/* config.json of a model with `find` replaced by `put`. */
static void write_config(const char *path, const char *name, const char *find, const char *put)
{
    char from[PATH_MAX];
    buf b = {0}, out = {0};
    err e;
    snprintf(from, sizeof from, DATA "%s/config.json", name);
    ck_assert(!file_read(from, 1 << 20, &b, &e));
    char *at = find ? strstr(b.v, find) : b.v;
    ck_assert_msg(at != NULL, "no %s in %s", find, from);
    buf_put(&out, b.v, (size_t)(at - b.v));
    if (find) buf_puts(&out, put);
    buf_puts(&out, at + (find ? strlen(find) : 0));
    ck_assert(!file_write_atomic(path, out.v, out.len, &e));
    buf_clear(&b);
    buf_clear(&out);
}

typedef struct {
    const char *model;
    const char *find, *put; /* change of config.json, or NULL */
    change ch;
    const char *says[3]; /* all must be in the message; none: loading must work */
} load_case;

#define LAYER0 "model.layers.0."
static const load_case cases[] = {
    /* the architecture */
    {"qwen3",
     "Qwen3ForCausalLM",
     "LlamaForCausalLM",
     {0},
     {"unknown architecture 'LlamaForCausalLM'", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}},
    {"qwen3", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", {0}, {"mixture of experts", "Qwen3Moe"}},
    {"qwen3", "Qwen3ForCausalLM", "Qwen2MoeForCausalLM", {0}, {"mixture of experts"}},
    {"qwen3", "Qwen3ForCausalLM", "Qwen2VLForConditionalGeneration", {0}, {"vision input"}},
    {"qwen3", "Qwen3ForCausalLM", "Qwen2_5_VLForConditionalGeneration", {0}, {"vision input"}},
    {"qwen3", "Qwen3ForCausalLM", "Qwen3VLForConditionalGeneration", {0}, {"vision input"}},
    {"qwen3", "Qwen3ForCausalLM", "Qwen3NextForCausalLM", {0}, {"delta-net"}},
    {"qwen3", "Qwen3ForCausalLM", "Qwen3_5ForConditionalGeneration", {0}, {"delta-net"}},
    {"qwen3", "Qwen3ForCausalLM", "QWenLMHeadModel", {0}, {"first Qwen generation"}},
    {"qwen3",
     "Qwen3ForCausalLM",
     "Qwen3ForSequenceClassification",
     {0},
     {"classifier of 2 labels"}},
    {"qwen3", "Qwen3ForCausalLM", "Qwen3ForTokenClassification", {0}, {"unknown architecture"}},
    /* the config */
    {"qwen3",
     "\"hidden_act\"",
     "\"quantization_config\":{\"quant_method\":\"gptq\"},\"hidden_act\"",
     {0},
     {"gptq", "GGUF"}},
    {"qwen3",
     "\"hidden_act\"",
     "\"quantization_config\":{\"quant_method\":\"fp8\"},\"hidden_act\"",
     {0},
     {"fp8"}},
    {"qwen3", "\"use_sliding_window\": false", "\"use_sliding_window\": true", {0}, {"sliding"}},
    {"qwen3", "\"hidden_act\"", "\"is_causal\": false, \"hidden_act\"", {0}, {"is_causal"}},
    {"qwen3", "\"hidden_act\"", "\"num_experts\": 8, \"hidden_act\"", {0}, {"experts"}},
    {"qwen3", "\"hidden_size\": 40", "\"hidden_size\": 48", {0}, {"has shape [257, 40]", "48"}},
    {"qwen3",
     "\"num_hidden_layers\": 3",
     "\"num_hidden_layers\": 4",
     {0},
     {"model.layers.3.input_layernorm.weight is missing"}},
    {"qwen3", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2", {0}, {"layer 2", "2 layers"}},
    {"qwen3",
     "\"tie_word_embeddings\": true",
     "\"tie_word_embeddings\": false",
     {0},
     {"lm_head.weight is missing", "tie_word_embeddings"}},
    {"qwen3-bias",
     "\"attention_bias\": true",
     "\"attention_bias\": false",
     {0},
     {LAYER0 "self_attn.q_proj.bias", "not zero"}},
    {"qwen3",
     "\"attention_bias\": false",
     "\"attention_bias\": true",
     {0},
     {LAYER0 "self_attn.q_proj.bias is missing"}},
    /* the tensors */
    {"qwen3",
     NULL,
     NULL,
     {.drop = LAYER0 "mlp.up_proj.weight"},
     {LAYER0 "mlp.up_proj.weight is missing"}},
    {"qwen3",
     NULL,
     NULL,
     {.drop = "model.embed_tokens.weight"},
     {"embed_tokens.weight is missing"}},
    {"qwen2-gqa7",
     NULL,
     NULL,
     {.drop = LAYER0 "self_attn.k_proj.bias"},
     {LAYER0 "self_attn.k_proj.bias is missing"}},
    {"qwen3",
     NULL,
     NULL,
     {.reshape = LAYER0 "self_attn.o_proj.weight"},
     {LAYER0 "self_attn.o_proj.weight has shape [41, 128]", "[40, 128]", "hidden_size"}},
    {"qwen3", NULL, NULL, {.reshape = LAYER0 "self_attn.q_norm.weight"}, {"[33]", "head_dim"}},
    {"qwen2-gqa7", NULL, NULL, {.reshape = LAYER0 "self_attn.q_proj.bias"}, {"[225]", "[224]"}},
    {"qwen3", NULL, NULL, {.type = LAYER0 "mlp.up_proj.weight", .as = "I16"}, {"has type I16"}},
    {"qwen3", NULL, NULL, {.type = "model.norm.weight", .as = "U16"}, {"has type U16"}},
    {"qwen3", NULL, NULL, {.add = "score.weight", .n_add = 4}, {"unexpected tensor score.weight"}},
    {"qwen3",
     NULL,
     NULL,
     {.add = LAYER0 "mlp.gate_proj.qzeros", .n_add = 4},
     {"unexpected tensor " LAYER0 "mlp.gate_proj.qzeros"}},
    {"qwen3",
     NULL,
     NULL,
     {.add = "model.layers.00.mlp.down_proj.bias", .n_add = 40},
     {"unexpected"}},
    {"qwen3", NULL, NULL, {.add = "model.layers.7.mlp.down_proj.bias", .n_add = 40}, {"layer 7"}},
    {"qwen3",
     NULL,
     NULL,
     {.add = LAYER0 "mlp.down_proj.bias", .n_add = 40, .value = 1e-30f},
     {LAYER0 "mlp.down_proj.bias", "not zero"}},
    {"qwen3", NULL, NULL, {.add = LAYER0 "mlp.down_proj.bias", .n_add = 41}, {"[41]"}},
    /* what is tolerated */
    {"qwen3", NULL, NULL, {.add = LAYER0 "mlp.down_proj.bias", .n_add = 40}, {0}},
    {"qwen3",
     NULL,
     NULL,
     {.add = LAYER0 "self_attn.rotary_emb.inv_freq", .n_add = 16, .value = 1},
     {0}},
    {"qwen3", "\"architectures\"", "\"architecture\"", {0}, {0}},
};
enum { N_CASES = sizeof cases / sizeof *cases };

/* Opening and planning, as `inspect` and `serve` do before any weight is read. */
static int plan_of(const char *dir, err *e)
{
    checkpoint_options co = {.weights = true};
    checkpoint *c = checkpoint_open(dir, &co, e);
    if (!c) return e->code;
    backend *be = backend_open(&(backend_options){.name = "ref"}, e);
    ck_assert(be != NULL);
    model_options mo = {.ctx = 64, .max_tok = 8, .max_out = 8, .kv = KV_F16};
    model_plan p;
    int rc = model_plan_make(c, be, &mo, &p, e);
    model *m = model_load(c, be, &mo, e);
    ck_assert_msg(!rc == (m != NULL), "plan and load disagree: %s", e->msg);
    model_free(m);
    backend_close(be);
    checkpoint_close(c);
    return rc;
}

START_TEST(loading)
{
    const load_case *k = &cases[_i];
    char from[PATH_MAX], dir[PATH_MAX], path[PATH_MAX + 32];
    err e = {0};
    checkpoint_options co = {.weights = true};
    snprintf(from, sizeof from, DATA "%s", k->model);
    checkpoint *c = checkpoint_open(from, &co, &e);
    ck_assert_msg(c != NULL, "%s", e.msg);
    temp_dir(dir);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    write_safetensors(path, c, &k->ch);
    checkpoint_close(c);
    snprintf(path, sizeof path, "%s/config.json", dir);
    write_config(path, k->model, k->find, k->put);
    int rc = plan_of(dir, &e);
    temp_remove(dir);
    ck_assert_msg(!rc == !k->says[0], "case %d: %s", _i, rc ? e.msg : "loaded");
    for (int i = 0; i < 3 && k->says[i]; i++)
        ck_assert_msg(strstr(e.msg, k->says[i]) != NULL, "case %d: \"%s\" is not in: %s", _i,
                      k->says[i], e.msg);
}
END_TEST

/* ---- names -------------------------------------------------------------------------------------
 */

START_TEST(names)
{
    static const struct {
        const char *name;
        bool is_gguf;
        const char *rule; /* NULL: none */
        int64_t at;
        bool bias;
    } n[] = {
        {"model.layers.12.self_attn.q_proj.weight", false, LAYER "self_attn.q_proj", 12, false},
        {"blk.0.attn_q.bias", true, LAYER "self_attn.q_proj", 0, true},
        {"blk.31.ffn_down.weight", true, LAYER "mlp.down_proj", 31, false},
        {"output.weight", true, "lm_head", -1, false},
        {"output_norm.weight", true, "model.norm", -1, false},
        {"blk.01.attn_q.weight", true, NULL, 0, false},
        {"blk.-1.attn_q.weight", true, NULL, 0, false},
        {"blk.+1.attn_q.weight", true, NULL, 0, false},
        {"blk..attn_q.weight", true, NULL, 0, false},
        {"blk.1.attn_q", true, NULL, 0, false},
        {"blk.1.attn_q.weightx", true, NULL, 0, false},
        {"blk.1.attn_qkv.weight", true, NULL, 0, false},
        {"model.layers.1.self_attn.q_proj.weight", true, NULL, 0, false},
        {"", true, NULL, 0, false},
    };
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        int64_t at;
        bool bias;
        char back[128];
        const rule *r = arch_rule_of(&arch_qwen3, n[i].is_gguf, n[i].name, &at, &bias);
        ck_assert_msg(!r == !n[i].rule, "%s", n[i].name);
        if (!r) continue;
        ck_assert_str_eq(r->name, n[i].rule);
        ck_assert(at == n[i].at && bias == n[i].bias);
        arch_tensor_name(r, n[i].is_gguf, (int)at, bias ? "bias" : "weight", back, sizeof back);
        ck_assert_str_eq(back, n[i].name);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("weights");
    TCase *t = tcase_create("weights");
    tcase_add_loop_test(t, loading, 0, N_CASES);
    tcase_add_test(t, names);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
