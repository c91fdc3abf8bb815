/* qwen2.c - Qwen1.5, Qwen2 and Qwen2.5 dense, CodeQwen, QwQ: pre-norm blocks, grouped-query
 * attention with biases on q, k, v, SwiGLU.  Const data only. */
#include "engine/models/models.h"

static const rule rules[] = {
    {"model.embed_tokens", MATRIX(embed), {DIM_VOCAB, DIM_HIDDEN}, SPLIT_OUT, BIAS_NONE},
    {"lm_head", MATRIX(head), {DIM_VOCAB, DIM_HIDDEN}, SPLIT_OUT, BIAS_NONE},
    {"model.norm", VECTOR(norm), {DIM_HIDDEN}, SPLIT_NONE, BIAS_NONE},
    {LAYER "input_layernorm", NORM(attn_norm), {DIM_HIDDEN}, SPLIT_NONE, BIAS_NONE},
    {LAYER "self_attn.q_proj", PART(qkv, 0), {DIM_Q, DIM_HIDDEN}, SPLIT_HEADS, BIAS_NEEDED},
    {LAYER "self_attn.k_proj", PART(qkv, 1), {DIM_KV, DIM_HIDDEN}, SPLIT_KV_HEADS, BIAS_NEEDED},
    {LAYER "self_attn.v_proj", PART(qkv, 2), {DIM_KV, DIM_HIDDEN}, SPLIT_KV_HEADS, BIAS_NEEDED},
    {LAYER "self_attn.o_proj", WHOLE(o), {DIM_HIDDEN, DIM_Q}, SPLIT_IN, BIAS_NONE},
    {LAYER "post_attention_layernorm", NORM(ffn_norm), {DIM_HIDDEN}, SPLIT_NONE, BIAS_NONE},
    {LAYER "mlp.gate_proj", GLU_PART(gate_up, 0), {DIM_FF, DIM_HIDDEN}, SPLIT_OUT, BIAS_NONE},
    {LAYER "mlp.up_proj", GLU_PART(gate_up, 1), {DIM_FF, DIM_HIDDEN}, SPLIT_OUT, BIAS_NONE},
    {LAYER "mlp.down_proj", WHOLE(down), {DIM_HIDDEN, DIM_FF}, SPLIT_IN, BIAS_NONE},
    {.kind = RULE_END},
};

const arch arch_qwen2 = {"qwen2", "Qwen2ForCausalLM", "Qwen2Model",
                         "Qwen2ForSequenceClassification", rules};
