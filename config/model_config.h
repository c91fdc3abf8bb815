/* model_config.h - one set of hyper-parameters from config.json + generation_config.json or GGUF
 * metadata.  Every number is range-checked here; nothing is inferred from a model's name.
 * Thread: const after loading. */
#ifndef QUERN_CONFIG_MODEL_CONFIG_H
#define QUERN_CONFIG_MODEL_CONFIG_H

#include "base/err.h"
#include "base/json.h"
#include "config/pooling.h"

#include <stdbool.h>
#include <stdint.h>

struct gguf;

typedef enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_YARN } rope_kind;

typedef struct {
    rope_kind kind;
    double theta;
    double factor;               /* LINEAR, DYNAMIC, YARN */
    int64_t original_ctx;        /* positions before stretching: YARN's
                                    original_max_position_embeddings, DYNAMIC's Lmax */
    double beta_fast, beta_slow; /* YARN, 32 and 1 */
    double attn_factor; /* YARN: cos and sin are multiplied by it; 0 = 0.1 ln(factor) + 1 */
} rope_config;

typedef struct {
    bool has_temperature, has_top_p, has_top_k, has_min_p, has_repetition, has_presence,
        has_frequency, has_do_sample;
    double temperature, top_p, min_p, repetition, presence, frequency;
    int64_t top_k;
    bool do_sample;
    int32_t eos[16]; /* union of generation_config and config eos ids, no duplicates */
    int n_eos;
    int32_t pad, bos; /* -1 = none */
} generation_config;

typedef struct {
    char arch[64];       /* "Qwen2ForCausalLM", or GGUF "qwen2": as written */
    char model_type[32]; /* "qwen2", "qwen3", ...: both forms give the same word */
    int64_t hidden, layers, heads, kv_heads, head_dim, ff, vocab;
    int64_t ctx; /* positions after rope scaling */
    double norm_eps;
    bool tied;     /* output = embedding (config word; weights.c checks the tensors) */
    bool qkv_bias; /* the config's word or the architecture's rule; tensors decide */
    bool use_sliding_window;
    int64_t sliding_window, max_window_layers;
    bool causal; /* false: a row sees all of its sequence (embedding models) */
    rope_config rope;
    generation_config gen;
    char quant_method[32]; /* quantization_config.quant_method, "" = none */
    int64_t n_experts;     /* 0 = dense */
    pooling pool;
} model_config;

/* From a directory's JSON files (generation_config may be NULL).  Of model types other than qwen2
 * and qwen3 whatever is there is filled in and nothing is refused, so that engine/models can say
 * which architecture it does not know. */
int model_config_from_json(model_config *c, const json *config, const json *generation, err *e);
/* Whether c is of those two: every field was checked. */
bool model_config_runs(const model_config *c);
int model_config_from_gguf(model_config *c, const struct gguf *g, err *e);
/* Applies --rope-scaling JSON
 * ({"rope_type":"yarn","factor":4,"original_max_position_embeddings":32768}). */
int model_config_rope_override(model_config *c, const char *text, err *e);
/* Applies --override-generation-config JSON. */
int model_config_generation_override(model_config *c, const char *text, err *e);

#endif
