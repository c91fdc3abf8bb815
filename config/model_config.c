/* model_config.c - hyper-parameters from config.json or GGUF metadata; see model_config.h.
 * Owns nothing.  Refuses: missing, mistyped and out-of-range numbers of the architectures we run,
 * and what their configs may ask for that we do not do (sliding window, other activations).
 * Thread: the caller's. */
#include "config/model_config.h"

#include "base/log.h"
#include "config/fields.h"
#include "config/generation_config.h"
#include "config/gguf.h"
#include "config/rope_scaling.h"

#include <stdio.h>
#include <string.h>

/* Far above every model, far below any overflow of the products made of them. */
enum {
    MAX_HIDDEN = 1 << 20,
    MAX_LAYERS = 4096,
    MAX_HEADS = 1 << 14,
    MAX_HEAD_DIM = 4096,
    MAX_FF = 1 << 24,
    MAX_VOCAB = 1 << 24,
};
static const int64_t MAX_CTX = INT32_MAX;

/* The model types whose every field is checked. */
static bool runs_here(const char *model_type)
{
    return !strcmp(model_type, "qwen2") || !strcmp(model_type, "qwen3");
}

bool model_config_runs(const model_config *c)
{
    return runs_here(c->model_type);
}

static void defaults(model_config *c)
{
    *c = (model_config){.norm_eps = 1e-6, .causal = true, .pool = pooling_default()};
    c->ctx = 32768;
    c->max_window_layers = 28;
    c->gen.pad = c->gen.bos = -1;
    c->rope = (rope_config){.theta = 10000, .factor = 1, .beta_fast = 32, .beta_slow = 1};
}

/* Relations between the numbers, whatever file they came from. */
static int check_shape(const model_config *c, const char *where, err *e)
{
    if (c->heads % c->kv_heads)
        return err_set(e, ERR_INVALID,
                       "%s: %lld query heads are not a multiple of %lld key/value heads", where,
                       (long long)c->heads, (long long)c->kv_heads);
    if (c->head_dim % 2)
        return err_set(e, ERR_INVALID,
                       "%s: a head dimension of %lld cannot be rotated; it must be even", where,
                       (long long)c->head_dim);
    return 0;
}

/* ---- config.json ---- */

static void copy_word(const json *j, char *out, size_t n)
{
    if (json_is(j, JSON_STRING)) snprintf(out, n, "%s", j->str);
}

/* What the classes of one family differ in: the head. */
static bool model_class(const char *tail)
{
    return !strcmp(tail, "ForCausalLM") || !strcmp(tail, "Model") ||
           !strcmp(tail, "ForSequenceClassification");
}

/* Class name and model type; the latter follows from the former when it is absent. */
static void read_names(const json *config, model_config *c)
{
    copy_word(json_at(json_get(config, "architectures"), 0), c->arch, sizeof c->arch);
    copy_word(json_get(config, "model_type"), c->model_type, sizeof c->model_type);
    if (c->model_type[0]) return;
    if (!strncmp(c->arch, "Qwen2", 5) && model_class(c->arch + 5)) strcpy(c->model_type, "qwen2");
    if (!strncmp(c->arch, "Qwen3", 5) && model_class(c->arch + 5)) strcpy(c->model_type, "qwen3");
}

static void read_sizes(fields *f, model_config *c)
{
    static const char *const needed[] = {"hidden_size",         "num_hidden_layers",
                                         "num_attention_heads", "intermediate_size",
                                         "vocab_size",          NULL};
    for (const char *const *name = needed; *name; name++) fields_need(f, *name);
    fields_int(f, "hidden_size", 1, MAX_HIDDEN, &c->hidden);
    fields_int(f, "num_hidden_layers", 1, MAX_LAYERS, &c->layers);
    fields_int(f, "num_attention_heads", 1, MAX_HEADS, &c->heads);
    fields_int(f, "intermediate_size", 1, MAX_FF, &c->ff);
    fields_int(f, "vocab_size", 1, MAX_VOCAB, &c->vocab);
    fields_int(f, "max_position_embeddings", 1, MAX_CTX, &c->ctx);
    fields_num(f, "rms_norm_eps", 1e-12, 0.1, &c->norm_eps);
    c->kv_heads = c->heads;
    fields_int(f, "num_key_value_heads", 1, MAX_HEADS, &c->kv_heads);
    if (!fields_int(f, "head_dim", 1, MAX_HEAD_DIM, &c->head_dim)) {
        if (!strcmp(c->model_type, "qwen3")) c->head_dim = 128; /* the class's default */
        else if (c->heads) c->head_dim = c->hidden / c->heads;
        if (c->head_dim < 1)
            fields_fault(f, "num_attention_heads", fields_get(f, "num_attention_heads"),
                         "at most hidden_size");
    }
}

/* Sliding windows were never switched on in a release; attention here is always full. */
static void read_windows(fields *f, model_config *c)
{
    const json *types = fields_get(f, "layer_types");
    fields_bool(f, "use_sliding_window", &c->use_sliding_window);
    fields_int(f, "sliding_window", 0, MAX_CTX, &c->sliding_window);
    fields_int(f, "max_window_layers", 0, MAX_CTX, &c->max_window_layers);
    if (c->use_sliding_window)
        fields_fault(f, "use_sliding_window", fields_get(f, "use_sliding_window"),
                     "false (sliding-window attention is not supported)");
    for (const json *t = json_is(types, JSON_ARRAY) ? types->child : NULL; t; t = t->next)
        if (!json_is(t, JSON_STRING) || strcmp(t->str, "full_attention") != 0)
            fields_fault(f, "layer_types", t,
                         "full_attention in every layer (other attention is not supported)");
}

/* 1M checkpoints switch to another attention beyond this length; up to it plain attention is the
 * same function. */
static void read_dual_chunk(fields *f, model_config *c)
{
    const json *dual = fields_get(f, "dual_chunk_attention_config");
    if (!json_is(dual, JSON_OBJECT) || f->rc) return;
    fields sub = {.o = dual,
                  .where = f->where,
                  .in = "dual_chunk_attention_config.",
                  .lenient = f->lenient,
                  .e = f->e};
    int64_t limit = 262144;
    fields_int(&sub, "original_max_position_embeddings", 1, MAX_CTX, &limit);
    f->rc = sub.rc;
    if (c->ctx <= limit) return;
    log_warn("context limited to %lld: dual-chunk attention beyond it is not supported",
             (long long)limit);
    c->ctx = limit;
    if (c->rope.original_ctx > limit) c->rope.original_ctx = limit;
}

static void read_rope(fields *f, model_config *c)
{
    const char *name = "rope_scaling";
    const json *o = fields_get(f, name);
    if (!o) o = fields_get(f, name = "rope_parameters");
    if (o && o->type != JSON_OBJECT) fields_fault(f, name, o, "an object or null");
    double partial = 1;
    fields_num(f, "rope_theta", 1.001, 1e15, &c->rope.theta);
    fields_num(f, "partial_rotary_factor", 0, 1, &partial);
    if (partial != 1)
        fields_fault(f, "partial_rotary_factor", fields_get(f, "partial_rotary_factor"), "1");
    c->rope.original_ctx = c->ctx;
    if (!json_is(o, JSON_OBJECT) || f->rc) return;
    char in[64];
    const json *full = json_get(o, "full_attention"); /* one set per kind of layer */
    bool nested = json_is(full, JSON_OBJECT);
    snprintf(in, sizeof in, "%s.%s", name, nested ? "full_attention." : "");
    fields sub = {
        .o = nested ? full : o, .where = f->where, .in = in, .lenient = f->lenient, .e = f->e};
    rope_scaling_read(&sub, c);
    f->rc = sub.rc;
}

static void read_experts(fields *f, model_config *c)
{
    static const char *const names[] = {"num_experts", "num_local_experts", "n_routed_experts"};
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !c->n_experts; i++)
        fields_int(f, names[i], 0, 1 << 20, &c->n_experts);
}

static void read_quantization(fields *f, model_config *c)
{
    const json *q = fields_get(f, "quantization_config");
    if (!q) return;
    copy_word(json_get(q, "quant_method"), c->quant_method, sizeof c->quant_method);
    if (!c->quant_method[0])
        fields_fault(f, "quantization_config", q, "an object that names its quant_method");
}

int model_config_from_json(model_config *c, const json *config, const json *generation, err *e)
{
    defaults(c);
    if (!json_is(config, JSON_OBJECT))
        return err_set(e, ERR_FORMAT, "config.json: not an object but a JSON %s",
                       json_type_name(config));
    read_names(config, c);
    const json *text = json_get(config, "text_config");
    fields f = {
        .o = json_is(text, JSON_OBJECT) ? text : config, .where = "config.json", .in = "", .e = e};
    f.lenient = !runs_here(c->model_type);
    read_sizes(&f, c);
    fields_bool(&f, "tie_word_embeddings", &c->tied);
    fields_bool(&f, "is_causal", &c->causal);
    c->qkv_bias = !strcmp(c->model_type, "qwen2");
    if (!strcmp(c->model_type, "qwen3")) fields_bool(&f, "attention_bias", &c->qkv_bias);
    const json *act = fields_get(&f, "hidden_act");
    if (act && (act->type != JSON_STRING || strcmp(act->str, "silu") != 0))
        fields_fault(&f, "hidden_act", act, "\"silu\"");
    read_windows(&f, c);
    read_rope(&f, c);
    read_dual_chunk(&f, c);
    read_experts(&f, c);
    f.o = config;
    read_quantization(&f, c);
    if (json_is(generation, JSON_OBJECT)) generation_config_read_ids(&f, &c->gen, false);
    else generation_config_read(&f, &c->gen, false); /* as transformers does without the file */
    if (f.rc) return f.rc;
    if (generation) {
        if (generation->type != JSON_OBJECT)
            return err_set(e, ERR_FORMAT, "generation_config.json: not an object but a JSON %s",
                           json_type_name(generation));
        fields g = {.o = generation,
                    .where = "generation_config.json",
                    .in = "",
                    .lenient = f.lenient,
                    .e = e};
        generation_config_read(&g, &c->gen, false);
        if (g.rc) return g.rc;
    }
    return f.lenient ? 0 : check_shape(c, "config.json", e);
}

/* ---- GGUF ---- */

typedef struct {
    const gguf *g;
    char arch[64];
    bool lenient;
    int rc;
    err *e;
} meta;

static void meta_int(meta *m, const char *key, int64_t lo, int64_t hi, bool needed, int64_t *v)
{
    char name[160];
    int64_t x;
    gguf_str s;
    gguf_type type;
    size_t n;
    if (m->rc) return;
    snprintf(name, sizeof name, "%s.%s", m->arch, key);
    if (gguf_get_int(m->g, name, &x)) {
        if (x >= lo && x <= hi) *v = x;
        else if (!m->lenient)
            m->rc =
                err_set(m->e, ERR_INVALID, "GGUF metadata: '%s' is %lld; %lld to %lld is accepted",
                        name, (long long)x, (long long)lo, (long long)hi);
        return;
    }
    double num;
    bool there = gguf_get_num(m->g, name, &num) || gguf_get_str(m->g, name, &s) ||
                 gguf_get_arr(m->g, name, &type, &n);
    if (!m->lenient && (needed || there))
        m->rc = err_set(m->e, ERR_INVALID, "GGUF metadata: '%s' is %s", name,
                        there ? "not an integer" : "missing");
}

/* Rows of the embedding: the tensor's own, else the token list's, else the key's. */
static void meta_vocab(meta *m, model_config *c)
{
    gguf_type type;
    size_t n;
    const gguf_tensor *embd = gguf_tensor_find(m->g, "token_embd.weight");
    if (embd && embd->n_dims == 2) c->vocab = embd->dim[1];
    else if (gguf_get_arr(m->g, "tokenizer.ggml.tokens", &type, &n)) c->vocab = (int64_t)n;
    else meta_int(m, "vocab_size", 1, MAX_VOCAB, true, &c->vocab);
    if (c->vocab > MAX_VOCAB && !m->rc)
        m->rc =
            err_set(m->e, ERR_LIMIT, "GGUF: a vocabulary of %lld rows; %d are the most accepted",
                    (long long)c->vocab, MAX_VOCAB);
}

/* The word Hugging Face uses for the same family. */
static void meta_model_type(const char *arch, char *out, size_t n)
{
    static const char *const words[][2] = {
        {"qwen2moe", "qwen2_moe"}, {"qwen3moe", "qwen3_moe"},      {"qwen2vl", "qwen2_vl"},
        {"qwen3vl", "qwen3_vl"},   {"qwen3vlmoe", "qwen3_vl_moe"}, {"qwen3next", "qwen3_next"},
        {"qwen35", "qwen3_5"},     {"qwen35moe", "qwen3_5_moe"},
    };
    snprintf(out, n, "%.31s", arch);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (!strcmp(arch, words[i][0])) snprintf(out, n, "%s", words[i][1]);
}

/* Sampling defaults as newer converters store them; one out of range is ignored, as it is by those
 * who do not know the keys at all. */
static void meta_sampling(const gguf *g, generation_config *gen)
{
    const struct {
        const char *key;
        double lo, hi;
        bool *has;
        double *v;
    } nums[] = {
        {"general.sampling.temp", 0, 2, &gen->has_temperature, &gen->temperature},
        {"general.sampling.top_p", 0, 1, &gen->has_top_p, &gen->top_p},
        {"general.sampling.min_p", 0, 1, &gen->has_min_p, &gen->min_p},
        {"general.sampling.penalty_repeat", 0.01, 10, &gen->has_repetition, &gen->repetition},
    };
    double v;
    for (size_t i = 0; i < sizeof nums / sizeof nums[0]; i++) {
        if (!gguf_get_num(g, nums[i].key, &v) || !(v >= nums[i].lo && v <= nums[i].hi)) continue;
        *nums[i].has = true;
        *nums[i].v = v;
    }
    int64_t k;
    gen->has_top_k = gguf_get_int(g, "general.sampling.top_k", &k) && k >= -1 && k <= INT32_MAX;
    if (gen->has_top_k) gen->top_k = k;
}

static void meta_generation(const gguf *g, generation_config *gen)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eot_token_id"};
    int64_t id;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (gguf_get_int(g, ends[i], &id) && id >= 0 && id <= INT32_MAX)
            generation_config_add_eos(gen, id);
    if (gguf_get_int(g, "tokenizer.ggml.padding_token_id", &id) && id >= 0 && id <= INT32_MAX)
        gen->pad = (int32_t)id;
    if (gguf_get_int(g, "tokenizer.ggml.bos_token_id", &id) && id >= 0 && id <= INT32_MAX)
        gen->bos = (int32_t)id;
}

static void meta_attention(meta *m, model_config *c)
{
    char name[160];
    int64_t rotated = 0, value_dim = 0;
    meta_int(m, "attention.head_count", 1, MAX_HEADS, true, &c->heads);
    c->kv_heads = c->heads;
    meta_int(m, "attention.head_count_kv", 1, MAX_HEADS, false, &c->kv_heads);
    if (c->heads) c->head_dim = c->hidden / c->heads;
    meta_int(m, "attention.key_length", 1, MAX_HEAD_DIM, false, &c->head_dim);
    value_dim = rotated = c->head_dim;
    meta_int(m, "attention.value_length", 1, MAX_HEAD_DIM, false, &value_dim);
    meta_int(m, "rope.dimension_count", 1, MAX_HEAD_DIM, false, &rotated);
    if (!m->rc && !m->lenient && (value_dim != c->head_dim || rotated != c->head_dim))
        m->rc = err_set(m->e, ERR_UNSUPPORTED,
                        "GGUF metadata: key length %lld, value length %lld and rotated dimensions "
                        "%lld must be equal",
                        (long long)c->head_dim, (long long)value_dim, (long long)rotated);
    snprintf(name, sizeof name, "%s.attention.causal", m->arch);
    gguf_get_bool(m->g, name, &c->causal);
    snprintf(name, sizeof name, "%s.attention.layer_norm_rms_epsilon", m->arch);
    if (gguf_get_num(m->g, name, &c->norm_eps) && !m->rc && !m->lenient &&
        !(c->norm_eps > 0 && c->norm_eps < 0.1))
        m->rc = err_set(m->e, ERR_INVALID, "GGUF metadata: '%s' is %g", name, c->norm_eps);
}

int model_config_from_gguf(model_config *c, const struct gguf *g, err *e)
{
    gguf_str arch;
    defaults(c);
    if (!gguf_get_str(g, "general.architecture", &arch) || arch.n == 0 || arch.n >= sizeof c->arch)
        return err_set(
            e, ERR_INVALID,
            "GGUF metadata: 'general.architecture' is missing or no architecture's name");
    meta m = {.g = g, .e = e};
    snprintf(m.arch, sizeof m.arch, "%.*s", (int)arch.n, arch.v);
    for (char *p = m.arch; *p; p++)
        if ((unsigned char)*p < 0x20) *p = '?'; /* it goes into messages */
    memcpy(c->arch, m.arch, sizeof c->arch);
    meta_model_type(m.arch, c->model_type, sizeof c->model_type);
    m.lenient = !runs_here(c->model_type);
    meta_int(&m, "embedding_length", 1, MAX_HIDDEN, true, &c->hidden);
    meta_int(&m, "block_count", 1, MAX_LAYERS, true, &c->layers);
    meta_int(&m, "feed_forward_length", 1, MAX_FF, true, &c->ff);
    meta_int(&m, "context_length", 1, MAX_CTX, true, &c->ctx);
    meta_int(&m, "expert_count", 0, 1 << 20, false, &c->n_experts);
    meta_attention(&m, c);
    meta_vocab(&m, c);
    if (m.rc) return m.rc;
    c->tied = !gguf_tensor_find(g, "output.weight");
    c->qkv_bias = gguf_tensor_find(g, "blk.0.attn_q.bias") || !strcmp(c->model_type, "qwen2");
    meta_generation(g, &c->gen);
    meta_sampling(g, &c->gen);
    int rc = rope_scaling_from_gguf(c, g, m.arch, m.lenient ? NULL : e);
    if (!rc && !m.lenient) rc = pooling_from_gguf(&c->pool, g, m.arch, e);
    if (m.lenient) return 0;
    return rc ? rc : check_shape(c, "GGUF metadata", e);
}

/* ---- options ---- */

/* Parses the JSON object of an option. */
static json_doc *option_object(const char *option, const char *text, const json **root, err *e)
{
    json_limits limits = {.max_depth = 8, .max_values = 1000, .unique_keys = true};
    json_doc *d = json_parse(text, strlen(text), &limits, root, e);
    if (!d) {
        err_prefix(e, "%s is not valid JSON", option);
    } else if ((*root)->type != JSON_OBJECT) {
        err_set(e, ERR_INVALID, "%s must be a JSON object, got a JSON %s", option,
                json_type_name(*root));
        json_free(d);
        d = NULL;
    }
    return d;
}

int model_config_rope_override(model_config *c, const char *text, err *e)
{
    static const char *const known[] = {
        "rope_type",        "type",       "factor",    "original_max_position_embeddings",
        "attention_factor", "beta_fast",  "beta_slow", "mscale",
        "mscale_all_dim",   "rope_theta", "truncate",  NULL};
    const json *root;
    json_doc *d = option_object("--rope-scaling", text, &root, e);
    if (!d) return ERR_INVALID;
    fields f = {.o = root, .where = "--rope-scaling", .in = "", .e = e};
    model_config changed = *c;
    changed.ctx = c->rope.original_ctx; /* the option replaces the model's own scaling */
    fields_only(&f, known);
    fields_need(&f, fields_get(&f, "type") ? "type" : "rope_type");
    rope_scaling_read(&f, &changed);
    if (!f.rc) *c = changed;
    json_free(d);
    return f.rc;
}

int model_config_generation_override(model_config *c, const char *text, err *e)
{
    static const char *const known[] = {"temperature",
                                        "top_p",
                                        "top_k",
                                        "min_p",
                                        "repetition_penalty",
                                        "presence_penalty",
                                        "frequency_penalty",
                                        "do_sample",
                                        "eos_token_id",
                                        "pad_token_id",
                                        "bos_token_id",
                                        NULL};
    const json *root;
    json_doc *d = option_object("--override-generation-config", text, &root, e);
    if (!d) return ERR_INVALID;
    fields f = {.o = root, .where = "--override-generation-config", .in = "", .e = e};
    generation_config changed = c->gen;
    fields_only(&f, known);
    generation_config_read(&f, &changed, true);
    if (!f.rc) c->gen = changed;
    json_free(d);
    return f.rc;
}
