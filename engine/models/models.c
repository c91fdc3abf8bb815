/* models.c - the list of architectures, the words for those we refuse, and the GGUF names.
 * Owns nothing.  Refuses: see arch_find.  Thread: any. */
#include "engine/models/models.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const arch *const archs[] = {&arch_qwen2, &arch_qwen3};
enum { N_ARCH = sizeof archs / sizeof *archs };

static const char supported[] =
    "supported are Qwen2ForCausalLM (Qwen1.5, Qwen2, Qwen2.5; GGUF qwen2) and Qwen3ForCausalLM "
    "(Qwen3 dense; GGUF qwen3)";

/* Known relatives, by the beginning of their name in lower case without separators; the first
 * match counts, so longer beginnings come first. */
static const struct {
    const char *begins, *why;
} refused[] = {
    {"qwen2moe", "mixture of experts"},
    {"qwen2vl", "vision input"},
    {"qwen25vl", "vision input"},
    {"qwen25omni", "audio and vision input"},
    {"qwen2audio", "audio input"},
    {"qwen3moe", "mixture of experts"},
    {"qwen3vlmoe", "vision input and mixture of experts"},
    {"qwen3vl", "vision input"},
    {"qwen3omni", "audio and vision input"},
    {"qwen3next", "gated delta-net layers and mixture of experts"},
    {"qwen35moe", "gated delta-net layers and mixture of experts"},
    {"qwen35", "gated delta-net layers"},
    {"qwenlmhead", "the first Qwen generation"},
    {"clip", "a vision or audio tower without its language model"},
};

/* "Qwen2_5_VL" -> "qwen25vl". */
static void squash(const char *s, char *out, size_t n)
{
    size_t k = 0;
    for (; *s && k + 1 < n; s++)
        if (isalnum((unsigned char)*s)) out[k++] = (char)tolower((unsigned char)*s);
    out[k] = 0;
}

static const char *refusal_of(const char *name)
{
    char word[64];
    squash(name, word, sizeof word);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (!strncmp(word, refused[i].begins, strlen(refused[i].begins))) return refused[i].why;
    return !strcmp(word, "qwen") ? "the first Qwen generation" : NULL;
}

static const arch *by_name(const char *name)
{
    for (int i = 0; i < N_ARCH; i++)
        if (!strcmp(name, archs[i]->class_name) || !strcmp(name, archs[i]->model_type) ||
            !strcmp(name, archs[i]->base_name) || !strcmp(name, archs[i]->judge_name))
            return archs[i];
    return NULL;
}

/* What an otherwise known architecture may still ask for in vain. */
static int config_check(const model_config *c, err *e)
{
    if (c->quant_method[0])
        return err_set(e, ERR_UNSUPPORTED,
                       "weights quantised with %s are not supported yet: use the unquantised "
                       "checkpoint (and quern quantize) or a GGUF file",
                       c->quant_method);
    if (c->n_experts > 0)
        return err_set(e, ERR_UNSUPPORTED, "not supported yet: mixture of experts (%lld experts)",
                       (long long)c->n_experts);
    if (!c->causal && c->pool.generates)
        return err_set(
            e, ERR_UNSUPPORTED,
            "is_causal is false, but nothing in the checkpoint says how its states become "
            "embeddings: modules.json and its 1_Pooling/config.json are missing");
    return 0;
}

const arch *arch_find(const model_config *c, err *e)
{
    const char *name = c->arch[0] ? c->arch : c->model_type; /* "architectures" may be absent */
    const arch *a = by_name(name);
    if (a) return config_check(c, e) ? NULL : a;
    const char *why = refusal_of(name);
    if (why)
        err_set(e, ERR_UNSUPPORTED, "architecture %.64s is not supported yet: %s; %s", name, why,
                supported);
    else err_set(e, ERR_UNSUPPORTED, "unknown architecture '%.64s'; %s", name, supported);
    return NULL;
}

int64_t dim_value(const model_config *c, dim d)
{
    switch (d) {
    case DIM_HIDDEN: return c->hidden;
    case DIM_Q: return c->heads * c->head_dim;
    case DIM_KV: return c->kv_heads * c->head_dim;
    case DIM_HEAD: return c->head_dim;
    case DIM_FF: return c->ff;
    case DIM_VOCAB: return c->vocab;
    default: return 1;
    }
}

static const struct {
    const char *name, *gguf;
} stems[] = {
    {"model.embed_tokens", "token_embd"},
    {"lm_head", "output"},
    {"model.norm", "output_norm"},
    {"model.layers.%d.input_layernorm", "blk.%d.attn_norm"},
    {"model.layers.%d.self_attn.q_proj", "blk.%d.attn_q"},
    {"model.layers.%d.self_attn.k_proj", "blk.%d.attn_k"},
    {"model.layers.%d.self_attn.v_proj", "blk.%d.attn_v"},
    {"model.layers.%d.self_attn.o_proj", "blk.%d.attn_output"},
    {"model.layers.%d.self_attn.q_norm", "blk.%d.attn_q_norm"},
    {"model.layers.%d.self_attn.k_norm", "blk.%d.attn_k_norm"},
    {"model.layers.%d.post_attention_layernorm", "blk.%d.ffn_norm"},
    {"model.layers.%d.mlp.gate_proj", "blk.%d.ffn_gate"},
    {"model.layers.%d.mlp.up_proj", "blk.%d.ffn_up"},
    {"model.layers.%d.mlp.down_proj", "blk.%d.ffn_down"},
};

const char *arch_gguf_stem(const char *name)
{
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++)
        if (!strcmp(name, stems[i].name)) return stems[i].gguf;
    return NULL;
}

void arch_tensor_name(const rule *r, bool is_gguf, int at, const char *suffix, char *out, size_t n)
{
    const char *stem = is_gguf ? arch_gguf_stem(r->name) : r->name, *hole = strstr(stem, "%d");
    if (hole) snprintf(out, n, "%.*s%d%s.%s", (int)(hole - stem), stem, at, hole + 2, suffix);
    else snprintf(out, n, "%s.%s", stem, suffix);
}

/* "7" or "12" without sign or leading zeros; NULL if s does not start with a layer number. */
static const char *layer_number(const char *s, int64_t *at)
{
    char *end;
    if (!isdigit((unsigned char)*s) || (*s == '0' && isdigit((unsigned char)s[1]))) return NULL;
    *at = strtoll(s, &end, 10); /* saturates: no model has that many */
    return end;
}

static bool stem_matches(const char *stem, const char *name, int64_t *at, bool *bias)
{
    const char *hole = strstr(stem, "%d"), *rest = name;
    *at = -1;
    if (hole) {
        size_t n = (size_t)(hole - stem);
        if (strncmp(name, stem, n) || !(rest = layer_number(name + n, at))) return false;
        stem = hole + 2;
    }
    size_t n = strlen(stem);
    if (strncmp(rest, stem, n)) return false;
    *bias = !strcmp(rest + n, ".bias");
    return *bias || !strcmp(rest + n, ".weight");
}

const rule *arch_rule_of(const arch *a, bool is_gguf, const char *name, int64_t *at, bool *bias)
{
    for (const rule *r = a->rules; r->kind != RULE_END; r++)
        if (stem_matches(is_gguf ? arch_gguf_stem(r->name) : r->name, name, at, bias)) return r;
    return NULL;
}
