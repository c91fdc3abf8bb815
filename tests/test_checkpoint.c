/* test_checkpoint.c - hyper-parameters from config.json, generation_config.json and GGUF metadata,
 * and whole checkpoints: what is read, and what is refused by name. */
#include "base/file.h"
#include "base/log.h"
#include "config/checkpoint.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static err e;
static model_config c;
static char dir[64];

static void setup(void)
{
    strcpy(dir, "/tmp/quern-checkpoint-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    e = (err){0};
    log_init(LOG_ERROR, false);
}

static void teardown(void)
{
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    ck_assert_int_eq(system(cmd), 0);
}

#define SIZES                                                               \
    "\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4," \
    "\"intermediate_size\":128,\"vocab_size\":100"
#define QWEN2 "\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\"," SIZES
#define QWEN3 "\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\"," SIZES

/* Reads a config of these members; generation is a whole JSON text or NULL. */
static int read_json(const char *members, const char *generation)
{
    buf text = {0};
    const json *root, *gen = NULL;
    json_doc *gen_doc = NULL;
    buf_printf(&text, "{%s}", members);
    json_doc *d = json_parse(text.v, text.len, NULL, &root, &e);
    ck_assert_msg(d != NULL, "%s: %s", members, e.msg);
    if (generation) {
        gen_doc = json_parse(generation, strlen(generation), NULL, &gen, &e);
        ck_assert_msg(gen_doc != NULL, "%s", e.msg);
    }
    e = (err){0};
    int rc = model_config_from_json(&c, root, gen, &e);
    ck_assert_int_eq(rc, e.code);
    json_free(d);
    json_free(gen_doc);
    buf_clear(&text);
    return rc;
}

static void accept(const char *members)
{
    ck_assert_msg(read_json(members, NULL) == 0, "%s: %s", members, e.msg);
}

static void refuse(const char *members, const char *says)
{
    ck_assert_msg(read_json(members, NULL) < 0, "accepted: %s", members);
    ck_assert_msg(strstr(e.msg, says) != NULL, "'%s' does not say '%s'", e.msg, says);
}

START_TEST(qwen2_defaults)
{
    accept(QWEN2);
    ck_assert_str_eq(c.arch, "Qwen2ForCausalLM");
    ck_assert_str_eq(c.model_type, "qwen2");
    ck_assert(c.hidden == 64 && c.layers == 2 && c.heads == 4 && c.kv_heads == 4 &&
              c.head_dim == 16);
    ck_assert(c.ff == 128 && c.vocab == 100 && c.ctx == 32768 && c.norm_eps == 1e-6);
    ck_assert(!c.tied && c.qkv_bias && c.causal && !c.use_sliding_window && c.n_experts == 0);
    ck_assert(c.rope.kind == ROPE_PLAIN && c.rope.theta == 10000 && c.rope.factor == 1);
    ck_assert(c.gen.n_eos == 0 && c.gen.bos == -1 && c.gen.pad == -1 && !c.gen.has_temperature);
    ck_assert_str_eq(c.quant_method, "");
}
END_TEST

START_TEST(qwen3_and_words)
{
    accept(QWEN3 ",\"num_key_value_heads\":2,\"rms_norm_eps\":1e-5,\"rope_theta\":1000000,\"tie_"
                 "word_embeddings\":true,"
                 "\"max_position_embeddings\":40960,\"sliding_window\":null,\"max_window_layers\":"
                 "5,\"hidden_act\":\"silu\","
                 "\"layer_types\":[\"full_attention\",\"full_attention\"],\"eos_token_id\":7,\"bos_"
                 "token_id\":null,"
                 "\"pad_token_id\":9,\"is_causal\":false,\"quantization_config\":{\"quant_method\":"
                 "\"gptq\"}");
    ck_assert(c.head_dim == 128 && c.kv_heads == 2 && c.norm_eps == 1e-5 && c.rope.theta == 1e6 &&
              c.tied);
    ck_assert(c.ctx == 40960 && c.max_window_layers == 5 && !c.qkv_bias && !c.causal);
    ck_assert(c.gen.n_eos == 1 && c.gen.eos[0] == 7 && c.gen.pad == 9 && c.gen.bos == -1);
    ck_assert_str_eq(c.quant_method, "gptq");
    accept(QWEN3 ",\"head_dim\":32,\"attention_bias\":true");
    ck_assert(c.head_dim == 32 && c.qkv_bias);
    accept("\"architectures\":[\"Qwen2ForCausalLM\"]," SIZES); /* no model_type */
    ck_assert_str_eq(c.model_type, "qwen2");
    accept(QWEN2 ",\"num_attention_heads\":2,\"hidden_size\":64.0");
    ck_assert(c.head_dim == 32);
}
END_TEST

static const struct {
    const char *members, *says;
} refused[] = {
    {"\"model_type\":\"qwen2\",\"hidden_size\":64", "'num_hidden_layers' is missing"},
    {QWEN2 ",\"hidden_size\":null", "'hidden_size' is missing"},
    {QWEN2 ",\"hidden_size\":\"64\"",
     "'hidden_size' must be a whole number between 1 and 1048576, got the string \"64\""},
    {QWEN2 ",\"hidden_size\":64.5",
     "'hidden_size' must be a whole number between 1 and 1048576, got 64.5"},
    {QWEN2 ",\"hidden_size\":0", "'hidden_size' must be"},
    {QWEN2 ",\"hidden_size\":-64", "'hidden_size' must be"},
    {QWEN2 ",\"num_hidden_layers\":1e9", "'num_hidden_layers' must be"},
    {QWEN2 ",\"vocab_size\":[100]",
     "'vocab_size' must be a whole number between 1 and 16777216, got array"},
    {QWEN2 ",\"num_key_value_heads\":3", "4 query heads are not a multiple of 3 key/value heads"},
    {QWEN2 ",\"num_key_value_heads\":8", "4 query heads are not a multiple of 8 key/value heads"},
    {QWEN2 ",\"num_attention_heads\":1,\"hidden_size\":63",
     "a head dimension of 63 cannot be rotated"},
    {QWEN2 ",\"num_attention_heads\":65", "'num_attention_heads' must be at most hidden_size"},
    {QWEN2 ",\"rms_norm_eps\":0", "'rms_norm_eps' must be"},
    {QWEN2 ",\"rope_theta\":-1", "'rope_theta' must be"},
    {QWEN2 ",\"hidden_act\":\"gelu\"", "'hidden_act' must be \"silu\", got the string \"gelu\""},
    {QWEN2 ",\"use_sliding_window\":true",
     "'use_sliding_window' must be false (sliding-window attention is not supported)"},
    {QWEN2 ",\"use_sliding_window\":1", "'use_sliding_window' must be true or false, got 1"},
    {QWEN2 ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]",
     "'layer_types' must be full_attention in every layer"},
    {QWEN2 ",\"partial_rotary_factor\":0.25", "'partial_rotary_factor' must be 1, got 0.25"},
    {QWEN2 ",\"eos_token_id\":\"x\"", "'eos_token_id' must be a token id or a list of them"},
    {QWEN2 ",\"eos_token_id\":[1,-2]", "'eos_token_id' must be"},
    {QWEN2 ",\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]",
     "at most 16 different token ids"},
    {QWEN2 ",\"quantization_config\":[]", "'quantization_config' must be an object"},
    {QWEN2 ",\"rope_scaling\":\"yarn\"", "'rope_scaling' must be an object or null"},
    {QWEN2 ",\"rope_scaling\":{\"type\":\"yarn\"}", "'rope_scaling.factor' is missing"},
    {QWEN2 ",\"rope_scaling\":{\"factor\":4}", "'rope_scaling.rope_type' is missing"},
    {QWEN2 ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":\"4\",\"original_max_position_"
           "embeddings\":128}",
     "'rope_scaling.factor' must be a number between 1 and 4096, got the string \"4\""},
    {QWEN2 ",\"rope_scaling\":{\"rope_type\":\"longrope\",\"factor\":4}",
     "'rope_scaling.rope_type' must be one of default, linear, dynamic, yarn, got the string "
     "\"longrope\""},
    {QWEN2 ",\"rope_scaling\":{\"type\":\"su\",\"factor\":4}",
     "'rope_scaling.type' must be one of"},
    {QWEN2 ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}",
     "'rope_scaling.factor' must be"},
    {QWEN2 ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4,\"truncate\":false}",
     "'rope_parameters.truncate' must be true"},
    {QWEN2 ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"beta_fast\":1,\"beta_slow\":2}",
     "'rope_scaling.beta_fast' must be at least beta_slow"},
};

START_TEST(refuses)
{
    refuse(refused[_i].members, refused[_i].says);
    ck_assert(!strncmp(e.msg, "config.json: ", 13));
}
END_TEST

START_TEST(rope)
{
    static const char *const same[] = {
        "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":"
        "128}",
        "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_"
        "embeddings\":128}",
        "\"rope_scaling\":{\"rope_type\":\"yarn\",\"type\":\"yarn\",\"factor\":4,\"original_max_"
        "position_embeddings\":128}",
        "\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":10000,\"factor\":4,\"original_"
        "max_position_embeddings\":128}",
        "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"yarn\",\"factor\":4,\"original_"
        "max_position_embeddings\":128}}",
        "\"rope_scaling\":null,\"rope_parameters\":{\"type\":\"yarn\",\"original_max_position_"
        "embeddings\":128,\"factor\":4}",
        "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":null,\"original_max_position_embeddings\":"
        "128}", /* 512 / 128 */
    };
    char members[600];
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        snprintf(members, sizeof members, QWEN2 ",\"max_position_embeddings\":512,%s", same[i]);
        accept(members);
        ck_assert(c.rope.kind == ROPE_YARN && c.rope.factor == 4 && c.rope.original_ctx == 128 &&
                  c.ctx == 512);
        ck_assert(c.rope.theta == 10000 && c.rope.beta_fast == 32 && c.rope.beta_slow == 1 &&
                  c.rope.attn_factor == 0);
    }
    accept(QWEN2
           ",\"max_position_embeddings\":40960,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,"
           "\"original_max_position_embeddings\":32768,\"attention_factor\":1.25,\"beta_fast\":16,"
           "\"beta_slow\":2}");
    ck_assert(c.ctx == 131072 && c.rope.attn_factor == 1.25 && c.rope.beta_fast == 16 &&
              c.rope.beta_slow == 2);
    accept(QWEN2
           ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"mscale\":2,\"mscale_all_dim\":1}");
    ck_assert(fabs(c.rope.attn_factor - (0.2 * log(4) + 1) / (0.1 * log(4) + 1)) < 1e-15);
    ck_assert(c.rope.original_ctx == 32768 && c.ctx == 131072);
    accept(QWEN2
           ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},\"max_position_embeddings\":100");
    ck_assert(c.rope.kind == ROPE_LINEAR && c.rope.factor == 2 && c.ctx == 200);
    accept(QWEN2
           ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":3},\"max_position_embeddings\":100");
    ck_assert(c.rope.kind == ROPE_DYNAMIC && c.rope.original_ctx == 100 && c.ctx == 300);
    accept(QWEN2
           ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5e6},\"rope_theta\":3");
    ck_assert(c.rope.kind == ROPE_PLAIN && c.rope.theta == 5e6);
    accept(QWEN2 ",\"max_position_embeddings\":1010000,\"dual_chunk_attention_config\":{\"chunk_"
                 "size\":262144,"
                 "\"original_max_position_embeddings\":262144}");
    ck_assert(c.ctx == 262144);
}
END_TEST

START_TEST(rope_option)
{
    accept(QWEN2 ",\"max_position_embeddings\":1000,\"rope_theta\":7");
    const char *text =
        "{\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":1000}";
    ck_assert_int_eq(model_config_rope_override(&c, text, &e), 0);
    ck_assert(c.rope.kind == ROPE_YARN && c.rope.theta == 7 && c.ctx == 4000);
    ck_assert_int_eq(
        model_config_rope_override(&c, "{\"type\":\"linear\",\"factor\":2,\"rope_theta\":8}", &e),
        0);
    ck_assert(c.rope.kind == ROPE_LINEAR && c.rope.theta == 8 && c.ctx == 2000);
    ck_assert_int_eq(model_config_rope_override(&c, "{\"rope_type\":\"default\"}", &e), 0);
    ck_assert(c.rope.kind == ROPE_PLAIN && c.ctx == 1000);
    static const char *const bad[][2] = {
        {"{\"factor\":4}", "--rope-scaling: 'rope_type' is missing"},
        {"{\"rope_type\":\"yarn\"}", "--rope-scaling: 'factor' is missing"},
        {"{\"rope_type\":\"yarn\",\"factor\":true}",
         "'factor' must be a number between 1 and 4096, got boolean"},
        {"{\"rope_type\":\"yarn\",\"faktor\":4}",
         "unknown field 'faktor'; accepted are rope_type, type, factor"},
        {"[]", "--rope-scaling must be a JSON object, got a JSON array"},
        {"{", "--rope-scaling is not valid JSON: unexpected end"},
    };
    model_config before = c;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_lt(model_config_rope_override(&c, bad[i][0], &e), 0);
        ck_assert_msg(strstr(e.msg, bad[i][1]) != NULL, "'%s' does not say '%s'", e.msg, bad[i][1]);
        ck_assert_int_eq(memcmp(&before, &c, sizeof c), 0);
    }
}
END_TEST

START_TEST(generation)
{
    ck_assert_int_eq(read_json(QWEN2 ",\"eos_token_id\":151645,\"temperature\":0.1",
                               "{\"eos_token_id\":[151645,151643],\"temperature\":0.7,\"top_p\":0."
                               "8,\"top_k\":20,\"min_p\":0.05,"
                               "\"repetition_penalty\":1.05,\"presence_penalty\":1.5,\"frequency_"
                               "penalty\":-1,\"do_sample\":true,"
                               "\"pad_token_id\":151643,\"transformers_version\":\"4.37.0\"}"),
                     0);
    const generation_config *g = &c.gen;
    ck_assert(g->n_eos == 2 && g->eos[0] == 151645 && g->eos[1] == 151643 && g->pad == 151643 &&
              g->bos == -1);
    ck_assert(g->has_temperature && g->temperature == 0.7 && g->has_top_p && g->top_p == 0.8);
    ck_assert(g->has_top_k && g->top_k == 20 && g->has_min_p && g->min_p == 0.05);
    ck_assert(g->has_repetition && g->repetition == 1.05 && g->has_presence && g->presence == 1.5);
    ck_assert(g->has_frequency && g->frequency == -1 && g->has_do_sample && g->do_sample);
    ck_assert_int_eq(read_json(QWEN2 ",\"temperature\":0.1", "{}"), 0);
    ck_assert(!c.gen.has_temperature); /* the file, though empty, is the word on sampling */
    accept(QWEN2 ",\"temperature\":0.1");
    ck_assert(c.gen.has_temperature && c.gen.temperature == 0.1);

    ck_assert_int_lt(read_json(QWEN2, "{\"temperature\":3}"), 0);
    ck_assert_str_eq(
        e.msg, "generation_config.json: 'temperature' must be a number between 0 and 2, got 3");
    ck_assert_int_lt(read_json(QWEN2, "{\"top_k\":\"20\"}"), 0);
    ck_assert_int_lt(read_json(QWEN2, "[]"), 0);

    ck_assert_int_eq(read_json(QWEN2 ",\"eos_token_id\":[1,2]", "{\"top_k\":5}"), 0);
    ck_assert_int_eq(
        model_config_generation_override(&c, "{\"temperature\":0.5,\"eos_token_id\":9}", &e), 0);
    ck_assert(c.gen.temperature == 0.5 && c.gen.top_k == 5 && c.gen.n_eos == 1 &&
              c.gen.eos[0] == 9);
    ck_assert_int_lt(model_config_generation_override(&c, "{\"temprature\":0.5}", &e), 0);
    ck_assert_ptr_nonnull(strstr(
        e.msg,
        "--override-generation-config: unknown field 'temprature'; accepted are temperature"));
    ck_assert_int_lt(model_config_generation_override(&c, "{\"top_p\":2}", &e), 0);
    ck_assert(!c.gen.has_top_p);
}
END_TEST

/* Other families are described as far as they go, for a refusal that names them. */
START_TEST(foreign)
{
    accept("\"architectures\":[\"Qwen3_5MoeForConditionalGeneration\"],\"model_type\":\"qwen3_5_"
           "moe\",\"text_config\":{"
           "\"hidden_size\":2048,\"num_hidden_layers\":40,\"num_attention_heads\":16,\"num_key_"
           "value_heads\":2,\"num_experts\":256,"
           "\"layer_types\":[\"linear_attention\"],\"partial_rotary_factor\":0.25,\"rope_"
           "parameters\":{\"rope_type\":\"default\","
           "\"mrope_section\":[11,11,10]}},\"vision_config\":{\"depth\":27}");
    ck_assert_str_eq(c.arch, "Qwen3_5MoeForConditionalGeneration");
    ck_assert_str_eq(c.model_type, "qwen3_5_moe");
    ck_assert(c.hidden == 2048 && c.layers == 40 && c.kv_heads == 2 && c.n_experts == 256);
    accept("\"model_type\":\"llama\",\"hidden_size\":\"odd\",\"use_sliding_window\":true,\"rope_"
           "scaling\":{\"type\":\"llama3\"}");
    ck_assert_str_eq(c.model_type, "llama");
    accept("");
    ck_assert_str_eq(c.arch, "");
    accept("\"architectures\":\"none\",\"model_type\":7");
}
END_TEST

/* ---- GGUF ---- */

static void put_key(buf *b, const char *key, uint32_t type)
{
    uint64_t n = strlen(key);
    buf_put(b, &n, 8);
    buf_puts(b, key);
    buf_put(b, &type, 4);
}

static void key_int(buf *b, int *n, const char *key, uint32_t v)
{
    put_key(b, key, GGUF_U32);
    buf_put(b, &v, 4);
    ++*n;
}

static void key_num(buf *b, int *n, const char *key, float v)
{
    put_key(b, key, GGUF_F32);
    buf_put(b, &v, 4);
    ++*n;
}

static void key_str(buf *b, int *n, const char *key, const char *v)
{
    uint64_t len = strlen(v);
    put_key(b, key, GGUF_STR);
    buf_put(b, &len, 8);
    buf_puts(b, v);
    ++*n;
}

/* A model's usual keys; `more` adds to them or, given a key of theirs, leaves that one out. */
typedef void more_fn(buf *b, int *n);
static int read_gguf(const char *arch, const char *leave_out, more_fn *more)
{
    static const struct {
        const char *key;
        uint32_t v;
    } usual[] = {{"block_count", 2},           {"embedding_length", 64},
                 {"feed_forward_length", 128}, {"context_length", 512},
                 {"attention.head_count", 4},  {"attention.head_count_kv", 2}};
    buf kv = {0}, file = {0};
    int n = 0;
    char key[100];
    key_str(&kv, &n, "general.architecture", arch);
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, usual[i].key);
        if (!leave_out || strcmp(usual[i].key, leave_out) != 0) key_int(&kv, &n, key, usual[i].v);
    }
    snprintf(key, sizeof key, "%s.vocab_size", arch);
    key_int(&kv, &n, key, 100);
    if (more) more(&kv, &n);
    buf_put(&file, "GGUF\3\0\0\0\0\0\0\0\0\0\0\0", 16);
    uint64_t n_kv = (uint64_t)n;
    buf_put(&file, &n_kv, 8);
    buf_put(&file, kv.v, kv.len);
    gguf *g = gguf_open_memory(file.v, file.len, &e);
    ck_assert_msg(g != NULL, "%s", e.msg);
    e = (err){0};
    int rc = model_config_from_gguf(&c, g, &e);
    ck_assert_int_eq(rc, e.code);
    gguf_close(g);
    buf_clear(&kv);
    buf_clear(&file);
    return rc;
}

static void yarn(buf *b, int *n)
{
    key_num(b, n, "qwen3.rope.freq_base", 1e6f);
    key_int(b, n, "qwen3.attention.key_length", 128);
    key_int(b, n, "qwen3.attention.value_length", 128);
    key_num(b, n, "qwen3.attention.layer_norm_rms_epsilon", 1e-5f);
    key_str(b, n, "qwen3.rope.scaling.type", "yarn");
    key_num(b, n, "qwen3.rope.scaling.factor", 4);
    key_int(b, n, "qwen3.rope.scaling.original_context_length", 128);
    key_int(b, n, "tokenizer.ggml.eos_token_id", 5);
    key_int(b, n, "tokenizer.ggml.eot_token_id", 6);
    key_int(b, n, "tokenizer.ggml.bos_token_id", 7);
    key_num(b, n, "general.sampling.temp", 0.5f);
    key_num(b, n, "general.sampling.top_p", 7);
    key_int(b, n, "general.sampling.top_k", 20);
}
static void bad_scaling(buf *b, int *n)
{
    key_str(b, n, "qwen2.rope.scaling.type", "longrope");
}
static void bad_factor(buf *b, int *n)
{
    key_str(b, n, "qwen2.rope.scaling.type", "linear");
    key_num(b, n, "qwen2.rope.scaling.factor", NAN);
}
static void partial_rope(buf *b, int *n)
{
    key_int(b, n, "qwen2.rope.dimension_count", 8);
}
static void wrong_type(buf *b, int *n)
{
    key_str(b, n, "qwen2.context_length", "512");
}
static void experts(buf *b, int *n)
{
    key_int(b, n, "qwen3moe.expert_count", 128);
}
static void old_linear(buf *b, int *n)
{
    key_num(b, n, "qwen2.rope.scale_linear", 2);
}

START_TEST(from_gguf)
{
    ck_assert_msg(read_gguf("qwen2", NULL, NULL) == 0, "%s", e.msg);
    ck_assert(c.hidden == 64 && c.layers == 2 && c.heads == 4 && c.kv_heads == 2 &&
              c.head_dim == 16 && c.ff == 128);
    ck_assert(c.vocab == 100 && c.ctx == 512 && c.tied && c.qkv_bias && c.rope.theta == 10000 &&
              c.rope.kind == ROPE_PLAIN);
    ck_assert_msg(read_gguf("qwen3", NULL, yarn) == 0, "%s", e.msg);
    ck_assert(c.head_dim == 128 && !c.qkv_bias && c.rope.theta == 1e6 &&
              c.norm_eps == (double)1e-5f);
    ck_assert(c.rope.kind == ROPE_YARN && c.rope.factor == 4 && c.rope.original_ctx == 128 &&
              c.ctx == 512);
    ck_assert(fabs(c.rope.attn_factor - (0.1 * log(4) + 1)) < 1e-15);
    ck_assert(c.gen.n_eos == 2 && c.gen.eos[0] == 5 && c.gen.eos[1] == 6 && c.gen.bos == 7);
    ck_assert(c.gen.has_temperature && c.gen.temperature == 0.5 && c.gen.has_top_k &&
              c.gen.top_k == 20 && !c.gen.has_top_p);
    ck_assert_msg(read_gguf("qwen2", NULL, old_linear) == 0, "%s", e.msg);
    ck_assert(c.rope.kind == ROPE_LINEAR && c.rope.factor == 2);
    ck_assert_int_eq(read_gguf("qwen3moe", "feed_forward_length", experts), 0);
    ck_assert_str_eq(c.model_type, "qwen3_moe");
    ck_assert(c.n_experts == 128 && c.ff == 0);
    ck_assert_int_eq(read_gguf("qwen2", "block_count", NULL), ERR_INVALID);
    ck_assert_str_eq(e.msg, "GGUF metadata: 'qwen2.block_count' is missing");
    ck_assert_int_eq(read_gguf("qwen2", "context_length", wrong_type), ERR_INVALID);
    ck_assert_str_eq(e.msg, "GGUF metadata: 'qwen2.context_length' is not an integer");
    ck_assert_int_eq(read_gguf("qwen2", NULL, bad_scaling), ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(e.msg, "is 'longrope'; none, linear and yarn are supported"));
    ck_assert_int_eq(read_gguf("qwen2", NULL, bad_factor), ERR_INVALID);
    ck_assert_int_eq(read_gguf("qwen2", NULL, partial_rope), ERR_UNSUPPORTED);
}
END_TEST

/* ---- checkpoints ---- */

START_TEST(demo_directory)
{
    checkpoint *p = checkpoint_open("models/demo", NULL, &e);
    ck_assert_msg(p != NULL, "%s", e.msg);
    const model_config *m = checkpoint_config(p);
    ck_assert(m && !checkpoint_is_gguf(p) && !checkpoint_gguf(p));
    ck_assert_str_eq(m->model_type, "qwen3");
    const ckpt_tensor *t = checkpoint_find(p, "model.embed_tokens.weight");
    ck_assert(t && t->n_dims == 2 && t->dim[0] == m->vocab && t->dim[1] == m->hidden &&
              t->dim[2] == 1);
    ck_assert(t->bytes == (size_t)(m->vocab * m->hidden) * 2 ||
              t->bytes == (size_t)(m->vocab * m->hidden) * 4);
    checkpoint_drop(p, t);
    checkpoint_text files = checkpoint_text_files(p);
    ck_assert_str_eq(files.tokenizer_json, "models/demo/tokenizer.json");
    ck_assert(files.chat_template && files.tokenizer_config && !files.merges);
    ck_assert_uint_gt(checkpoint_bytes(p), t->bytes);
    checkpoint_close(p);

    p = checkpoint_open("models/demo", &(checkpoint_options){.weights = false}, &e);
    ck_assert_ptr_nonnull(p);
    ck_assert(checkpoint_config(p) && checkpoint_n_tensors(p) == 0 && checkpoint_bytes(p) == 0);
    checkpoint_close(p);
}
END_TEST

static void put(const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_assert_int_eq(file_write_atomic(path, text, strlen(text), &e), 0);
}

static void refuse_path(const char *name, bool weights, const char *says)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    e = (err){0};
    ck_assert_msg(!checkpoint_open(path, &(checkpoint_options){.weights = weights}, &e),
                  "accepted; expected: %s", says);
    ck_assert_msg(strstr(e.msg, says) != NULL, "'%s' does not say '%s'", e.msg, says);
    ck_assert_ptr_null(strchr(e.msg, '\n'));
}

START_TEST(bad_places)
{
    char path[200];
    refuse_path("nothing", true, "there is no model at");
    refuse_path("", true, "holds no config.json");
    refuse_path("", false, "holds neither config.json nor tokenizer.json");
    put("config.json", "{");
    refuse_path("", true, "config.json' as JSON: unexpected end at byte 1");
    put("config.json", "[]");
    refuse_path("", true, "not an object");
    put("config.json", "{" QWEN2 ",\"use_sliding_window\":true}");
    refuse_path("", true, "'use_sliding_window' must be false");
    put("config.json", "{" QWEN2 "}");
    refuse_path("", true, "holds neither model.safetensors nor");
    put("generation_config.json", "{\"top_p\":7}");
    refuse_path("", true, "generation_config.json: 'top_p'");
    refuse_path("config.json", true, "is one file of a checkpoint; give its directory");
    put("x.gguf", "no");
    refuse_path("x.gguf", true, "x.gguf': file ends inside the header");
    put("tokenizer.json", "{}");
    snprintf(path, sizeof path, "%s/config.json", dir);
    ck_assert_int_eq(unlink(path), 0);
    checkpoint *p = checkpoint_open(dir, &(checkpoint_options){.weights = false}, &e);
    ck_assert_ptr_nonnull(p);
    ck_assert_ptr_null(checkpoint_config(p));
    checkpoint_close(p);
}
END_TEST

START_TEST(names)
{
    static const char *const cases[][2] = {
        {"/m/Qwen2.5-0.5B", "Qwen2.5-0.5B"},
        {"Qwen2.5-0.5B///", "Qwen2.5-0.5B"},
        {"a/qwen2.5-q4_k_m.gguf", "qwen2.5-q4_k_m"},
        {"a/qwen-00001-of-00003.gguf", "qwen"},
        {"a/qwen-00001-of-00003", "qwen-00001-of-00003"},
        {"A.GGUF", "A"},
        {"/hub/models--Qwen--Qwen2.5-0.5B/snapshots/abc", "Qwen/Qwen2.5-0.5B"},
        {"/hub/models--Qwen--Qwen2.5-0.5B/snapshots/abc/", "Qwen/Qwen2.5-0.5B"},
        {"models--O--N-GGUF/snapshots/abc/x-q8.gguf", "O/N-GGUF"},
        {"/hub/xmodels--O--N/snapshots/abc", "abc"},
        {"models--O--N", "models--O--N"},
        {"/", "model"},
        {"", "model"},
    };
    char out[64], cut[4];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        checkpoint_name(cases[i][0], out, sizeof out);
        ck_assert_str_eq(out, cases[i][1]);
    }
    checkpoint_name("abcdefg", cut, sizeof cut);
    ck_assert_str_eq(cut, "abc");
    checkpoint_name("models--O--N/snapshots/x", cut, sizeof cut);
    ck_assert_str_eq(cut, "O/N");
    ck_assert_int_eq(chdir(dir), 0);
    checkpoint_name(".", out, sizeof out);
    ck_assert_str_eq(out, strrchr(dir, '/') + 1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("checkpoint");
    TCase *t = tcase_create("checkpoint");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, qwen2_defaults);
    tcase_add_test(t, qwen3_and_words);
    tcase_add_loop_test(t, refuses, 0, sizeof refused / sizeof refused[0]);
    tcase_add_test(t, rope);
    tcase_add_test(t, rope_option);
    tcase_add_test(t, generation);
    tcase_add_test(t, foreign);
    tcase_add_test(t, from_gguf);
    tcase_add_test(t, demo_directory);
    tcase_add_test(t, bad_places);
    tcase_add_test(t, names);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
