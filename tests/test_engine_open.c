/* test_engine_open.c - opening the demo model: the memory plan and its words, options that change
 * the checkpoint's configuration, refusals that say what to change, the fingerprint. */
#include "engine/engine_impl.h"
#include "tests/client.h"

#include <stdio.h>

static engine_options demo(void)
{
    return (engine_options){.model_path = "models/demo",
                            .device = "cpu",
                            .cpu_isa = "auto",
                            .kv_dtype = "auto",
                            .threads = 1,
                            .prefix_caching = true,
                            .generation_config = true};
}

static engine *open_ok(const engine_options *o)
{
    err e = {0};
    engine *g = engine_open(o, &e);
    ck_assert_msg(g != NULL, "%s", e.msg);
    return g;
}

static void refused(const engine_options *o, int code, const char *words)
{
    err e = {0};
    ck_assert_ptr_null(engine_open(o, &e));
    ck_assert_msg(e.code == code, "%d: %s", e.code, e.msg);
    ck_assert_msg(strstr(e.msg, words) != NULL, "'%s' does not say '%s'", e.msg, words);
}

START_TEST(chooses_for_itself)
{
    engine_options o = demo();
    engine *g = open_ok(&o);
    const engine_info_t *i = engine_info(g);
    ck_assert_str_eq(i->name, "demo");
    ck_assert_str_eq(i->arch, "qwen3");
    ck_assert_str_eq(i->backend, "cpu");
    ck_assert_int_eq(i->ctx, 2048);
    ck_assert_int_eq(i->ctx_train, 2048);
    ck_assert_int_eq(i->max_num_seqs, 64);
    ck_assert_int_eq(i->max_batched, 512);
    ck_assert_int_eq((int64_t)i->n_kv_blocks * i->kv_block, 64 * 2048);
    ck_assert_ptr_nonnull(strstr(i->kv_reason, "64 sequences of 2048 tokens"));
    ck_assert(i->n_vocab <= i->vocab_rows && i->n_vocab == tokenizer_n_vocab(i->tok));
    bool im_end = false;
    for (int k = 0; k < i->n_end; k++) im_end |= i->end_id[k] == tokenizer_id(i->tok, "<|im_end|>");
    ck_assert(im_end);
    ck_assert_int_eq(engine_status(g), ENGINE_LOADING);
    request *r;
    err e = {0};
    request_spec s = {.prompt = (int32_t[]){1}, .n_prompt = 1, .n = 1, .s = sampling_default(g)};
    ck_assert_int_eq(engine_submit(g, &s, &r, NULL, &e), ERR_BUSY);
    ck_assert_msg(engine_load(g, &e) == 0, "%s", e.msg);
    ck_assert_double_eq(engine_progress(g), 1);
    engine_close(g);
}
END_TEST

START_TEST(memory_rules)
{
    engine_options o = demo();
    engine *g = open_ok(&o);
    uint64_t block = (uint64_t)(engine_info(g)->kv_bytes / engine_info(g)->n_kv_blocks);
    int positions = engine_info(g)->kv_block;
    engine_close(g);

    o.kv_memory = 20 * block + block / 2;
    g = open_ok(&o);
    ck_assert_int_eq(engine_info(g)->n_kv_blocks, 20);
    ck_assert_int_eq(engine_info(g)->ctx, 20 * positions);
    ck_assert_int_eq(engine_info(g)->max_num_seqs, 1); /* one of useful length */
    ck_assert_ptr_nonnull(
        strstr(engine_info(g)->kv_reason, "--kv-cache-memory; context cut from 2048"));
    engine_close(g);

    o.max_num_seqs = 7; /* what the operator says stays */
    o.max_model_len = 300;
    g = open_ok(&o);
    ck_assert_int_eq(engine_info(g)->max_num_seqs, 7);
    ck_assert_int_eq(engine_info(g)->ctx, 300);
    engine_close(g);

    o.max_model_len = 5000; /* never beyond the model's own */
    o.kv_memory = 0;
    o.max_num_seqs = 2;
    o.kv_dtype = "F32";
    g = open_ok(&o);
    ck_assert_int_eq(engine_info(g)->ctx, 2048);
    ck_assert_str_eq(engine_info(g)->kv_dtype, "f32");
    ck_assert_int_eq(engine_info(g)->kv_bytes,
                     (int64_t)(2 * block * 2 * 2048 / (uint64_t)positions));
    engine_close(g);
}
END_TEST

START_TEST(refusals_say_what_to_change)
{
    engine_options o = demo();
    o.kv_memory = 1000;
    refused(&o, ERR_INVALID, "--kv-cache-memory");
    o.kv_memory = 1ull << 60;
    refused(&o, ERR_INVALID, "--kv-cache-memory");
    o = demo();
    o.kv_dtype = "int3";
    refused(&o, ERR_INVALID, "--kv-cache-dtype is 'int3'");
    o = demo();
    o.max_num_seqs = -1;
    refused(&o, ERR_INVALID, "--max-num-seqs");
    o = demo();
    o.max_num_batched_tokens = 1 << 20;
    refused(&o, ERR_INVALID, "--max-num-batched-tokens");
    o = demo();
    o.rope_scaling = "{\"rope_type\":\"spiral\"}";
    refused(&o, ERR_INVALID, "spiral");
    o = demo();
    o.generation_override = "[1]";
    refused(&o, ERR_INVALID, "--override-generation-config");
    o = demo();
    o.chat_template_text = "{% if %}";
    o.chat_template_len = 8;
    refused(&o, ERR_FORMAT, "line 1");
    o = demo();
    o.model_path = "models/nowhere";
    err e = {0};
    ck_assert_ptr_null(engine_open(&o, &e));
    ck_assert_ptr_nonnull(strstr(e.msg, "models/nowhere"));
}
END_TEST

START_TEST(defaults_by_precedence)
{
    engine_options o = demo();
    engine *g = open_ok(&o);
    sampling own = sampling_default(g);
    ck_assert_int_eq(own.max_tokens, -1);
    ck_assert_int_eq(own.n_logprobs, -1);
    engine_close(g);
    o.generation_override = "{\"temperature\":0.25,\"top_k\":7}";
    g = open_ok(&o);
    sampling s = sampling_default(g);
    ck_assert_float_eq(s.temperature, 0.25f);
    ck_assert_int_eq(s.top_k, 7);
    ck_assert_float_eq(s.top_p, own.top_p); /* the rest is left alone */
    engine_close(g);
    o.generation_config = false;
    g = open_ok(&o);
    s = sampling_default(g);
    ck_assert_float_eq(s.temperature, 0.25f);
    ck_assert_float_eq(s.top_p, 1);
    ck_assert_int_gt(engine_info(g)->n_end, 0); /* end tokens belong to the model */
    engine_close(g);
}
END_TEST

static uint64_t fingerprint(const engine_options *o)
{
    engine *g = open_ok(o);
    err e = {0};
    ck_assert_msg(engine_load(g, &e) == 0, "%s", e.msg);
    uint64_t f = engine_info(g)->fingerprint;
    engine_close(g);
    return f;
}

START_TEST(fingerprint_names_equal_output)
{
    engine_options o = demo();
    uint64_t f = fingerprint(&o);
    ck_assert_uint_eq(f, fingerprint(&o));
    o.threads = 2; /* the rule of bits: no matter */
    o.max_num_batched_tokens = 64;
    ck_assert_uint_eq(f, fingerprint(&o));
    o.device = "ref";
    ck_assert_uint_ne(f, fingerprint(&o));
    o = demo();
    o.kv_dtype = "q8_0";
    ck_assert_uint_ne(f, fingerprint(&o));
    o = demo();
    o.rope_scaling =
        "{\"rope_type\":\"yarn\",\"factor\":2,\"original_max_position_embeddings\":2048}";
    ck_assert_uint_ne(f, fingerprint(&o));
    o = demo();
    o.generation_override = "{\"top_k\": 5}";
    ck_assert_uint_ne(f, fingerprint(&o));
    o = demo();
    o.chat_template_text = "{{ messages[0].content }}";
    o.chat_template_len = strlen(o.chat_template_text);
    ck_assert_uint_ne(f, fingerprint(&o));
    json no = {.type = JSON_FALSE, .key = "enable_thinking", .n_key = 15};
    json vars = {.type = JSON_OBJECT, .len = 1, .child = &no};
    o = demo();
    o.template_kwargs = &vars;
    ck_assert_uint_ne(f, fingerprint(&o));
}
END_TEST

/* The option must reach the model itself, not only the plan. */
START_TEST(rope_scaling_reaches_the_model)
{
    engine_options o = demo();
    client c[2];
    int32_t prompt[40];
    for (int i = 0; i < 40; i++) prompt[i] = 100 + 7 * i;
    for (int k = 0; k < 2; k++) {
        if (k)
            o.rope_scaling =
                "{\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":2048}";
        engine *g = open_ok(&o);
        err e = {0};
        ck_assert_int_eq(engine_info(g)->ctx, k ? 8192 : 2048);
        ck_assert_msg(engine_load(g, &e) == 0, "%s", e.msg);
        request_spec s = {.prompt = prompt, .n_prompt = 40, .n = 1, .s = sampling_default(g)};
        s.s.n_logprobs = 0;
        s.s.temperature = 0;
        s.s.max_tokens = 1;
        client_run(&c[k], g, s);
        engine_close(g);
    }
    ck_assert(c[0].a[0].tok[0].logprob != c[1].a[0].tok[0].logprob);
    for (int k = 0; k < 2; k++) client_clear(&c[k]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("engine_open");
    TCase *t = tcase_create("engine_open");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, chooses_for_itself);
    tcase_add_test(t, memory_rules);
    tcase_add_test(t, refusals_say_what_to_change);
    tcase_add_test(t, defaults_by_precedence);
    tcase_add_test(t, fingerprint_names_equal_output);
    tcase_add_test(t, rope_scaling_reaches_the_model);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
