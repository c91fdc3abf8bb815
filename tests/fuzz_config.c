/* fuzz_config.c - any JSON as config.json, as generation_config.json and as the options that hold
 * JSON: refused, or every number is within its range. */
#include "config/model_config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const model_config *c)
{
    if (strcmp(c->model_type, "qwen2") != 0 && strcmp(c->model_type, "qwen3") != 0) return;
    if (c->hidden < 1 || c->layers < 1 || c->heads < 1 || c->kv_heads < 1 || c->head_dim < 2 ||
        c->ff < 1)
        abort();
    if (c->vocab < 1 || c->ctx < 1 || c->heads % c->kv_heads || c->head_dim % 2) abort();
    if (!(c->norm_eps > 0) || !(c->rope.theta > 1) || !(c->rope.factor >= 1) ||
        c->rope.original_ctx < 1)
        abort();
    if (!isfinite(c->rope.attn_factor) || c->gen.n_eos < 0 || c->gen.n_eos > 16 ||
        c->use_sliding_window)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char base[] =
        "{\"model_type\":\"qwen2\",\"hidden_size\":8,\"num_hidden_layers\":1,"
        "\"num_attention_heads\":2,\"intermediate_size\":8,\"vocab_size\":8}";
    const json *root, *good;
    model_config c;
    json_doc *d = json_parse((const char *)data, n, NULL, &root, NULL);
    if (!d) return 0;
    if (!model_config_from_json(&c, root, root, NULL)) check(&c);
    json_doc *g = json_parse(base, sizeof base - 1, NULL, &good, NULL);
    if (!g || model_config_from_json(&c, good, NULL, NULL)) abort();
    char *text = strndup((const char *)data, n);
    if (!text) abort();
    model_config_rope_override(&c, text, NULL);
    model_config_generation_override(&c, text, NULL);
    check(&c);
    free(text);
    json_free(g);
    json_free(d);
    return 0;
}
