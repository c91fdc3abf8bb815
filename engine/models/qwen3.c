/* qwen3.c - Qwen3 dense: Qwen2 without the biases on q, k, v (unless attention_bias asks for them,
 * and for one on o) and with an RMSNorm on every q and k head.  Const data only. */
#include "engine/models/models.h"

static const rule rules[] = {
    {"model.embed_tokens", MATRIX(embed), {DIM_VOCAB, DIM_HIDDEN}, SPLIT_OUT, BIAS_NONE},
    {"lm_head", MATRIX(head), {DIM_VOCAB, DIM_HIDDEN}, SPLIT_OUT, BIAS_NONE},
    {"model.norm", VECTOR(norm), {DIM_HIDDEN}, SPLIT_NONE, BIAS_NONE},
    {LAYER "input_layernorm", NORM(attn_norm), {DIM_HIDDEN}, SPLIT_NONE, BIAS_NONE},
    {LAYER "self_attn.q_proj", PART(qkv, 0), {DIM_Q, DIM_HIDDEN}, SPLIT_HEADS, BIAS_CONFIG},
    {LAYER "self_attn.k_proj", PART(qkv, 1), {DIM_KV, DIM_HIDDEN}, SPLIT_KV_HEADS, BIAS_CONFIG},
    {LAYER "self_attn.v_proj", PART(qkv, 2), {DIM_KV, DIM_HIDDEN}, SPLIT_KV_HEADS, BIAS_CONFIG},
    {LAYER "self_attn.q_norm", NORM(q_norm), {DIM_HEAD}, SPLIT_NONE, BIAS_NONE},
    {LAYER "self_attn.k_norm", NORM(k_norm), {DIM_HEAD}, SPLIT_NONE, BIAS_NONE},
    {LAYER "self_attn.o_proj", WHOLE(o), {DIM_HIDDEN, DIM_Q}, SPLIT_IN, BIAS_CONFIG},
    {LAYER "post_attention_layernorm", NORM(ffn_norm), {DIM_HIDDEN}, SPLIT_NONE, BIAS_NONE},
    {LAYER "mlp.gate_proj", GLU_PART(gate_up, 0), {DIM_FF, DIM_HIDDEN}, SPLIT_OUT, BIAS_NONE},
    {LAYER "mlp.up_proj", GLU_PART(gate_up, 1), {DIM_FF, DIM_HIDDEN}, SPLIT_OUT, BIAS_NONE},
    {LAYER "mlp.down_proj", WHOLE(down), {DIM_HIDDEN, DIM_FF}, SPLIT_IN, BIAS_NONE},
    {.kind = RULE_END},
};

const arch arch_qwen3 = {"qwen3", "Qwen3ForCausalLM", "Qwen3Model",
                         "Qwen3ForSequenceClassification", rules};
