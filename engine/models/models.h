/* models.h - what an architecture is: its checkpoint names, its refusals and one rule table
 * (name -> slot -> shape -> split) that serves loading, validation, fusion and sharding at once.
 *
 * Adding one: a file engine/models/<arch>.c with a `const arch`, a line in the list of models.c.
 * Numbers come from the config and from tensor shapes, never from a model's name.
 * Thread: const data and pure functions, any thread. */
#ifndef QUERN_ENGINE_MODELS_MODELS_H
#define QUERN_ENGINE_MODELS_MODELS_H

#include "config/checkpoint.h"
#include "kernels/kernels.h"

/* The slots.  Both structs are filled by weights.c from the rule table, then const. */
typedef struct {
    vec attn_norm, q_norm, k_norm, ffn_norm; /* q_norm, k_norm: [head_dim] or empty */
    weight qkv;                              /* q|k|v rows */
    weight o;
    weight gate_up; /* JOIN_GLU */
    weight down;
} layer;

typedef struct {
    weight embed; /* [vocab, hidden] */
    weight head;  /* unused when the head is the embedding (model_weights.tied) */
    vec norm;
} globals;

/* Dimensions a shape may name; their values come from the config. */
typedef enum { DIM_NONE, DIM_HIDDEN, DIM_Q, DIM_KV, DIM_HEAD, DIM_FF, DIM_VOCAB, DIM_COUNT } dim;
int64_t dim_value(const model_config *c, dim d);

/* How a tensor is cut over ranks.  A world of one takes everything whole. */
typedef enum {
    SPLIT_NONE,     /* every rank holds all of it */
    SPLIT_HEADS,    /* rows, by query head */
    SPLIT_KV_HEADS, /* rows, by key head */
    SPLIT_OUT,      /* rows, in blocks */
    SPLIT_IN        /* columns: the product is a partial sum */
} split;

typedef enum { RULE_MATRIX, RULE_VEC, RULE_END } rule_kind;
typedef enum {
    BIAS_NONE, /* the model has none; a tensor of zeros is tolerated */
    BIAS_NEEDED,
    BIAS_CONFIG /* needed if config.json says so; a GGUF file has it or not */
} bias_rule;

/* One tensor.  Consecutive rules of the same slot are the parts of one fused weight. */
typedef struct {
    const char *name; /* Hugging Face name without ".weight"; %d is the layer */
    rule_kind kind;
    bool per_layer; /* slot is inside `layer`, else inside `globals` */
    size_t slot;    /* offset of the weight or vec */
    int part;       /* place in the fused weight */
    weight_join join;
    dim shape[2]; /* rows, columns; a vec has only the first */
    split cut;
    bias_rule bias;
} rule;

#define LAYER "model.layers.%d."
#define MATRIX(field) RULE_MATRIX, false, offsetof(globals, field), 0, JOIN_ROWS
#define VECTOR(field) RULE_VEC, false, offsetof(globals, field), 0, JOIN_ROWS
#define WHOLE(field) RULE_MATRIX, true, offsetof(layer, field), 0, JOIN_ROWS
#define PART(field, i) RULE_MATRIX, true, offsetof(layer, field), i, JOIN_ROWS
#define GLU_PART(field, i) RULE_MATRIX, true, offsetof(layer, field), i, JOIN_GLU
#define NORM(field) RULE_VEC, true, offsetof(layer, field), 0, JOIN_ROWS

typedef struct {
    const char *model_type; /* of config.json and, being the same word, GGUF's architecture */
    const char *class_name; /* "Qwen2ForCausalLM"; the same without, or with another head: */
    const char *base_name, *judge_name; /* "Qwen2Model", "Qwen2ForSequenceClassification" */
    const rule *rules;                  /* [] ends with RULE_END */
} arch;

/* The architecture of a checkpoint.  NULL with e filled for one we do not run (what it is, what we
 * do run) and for a config that asks for something we lack: bidirectional attention, experts,
 * quantisation schemes (model_config.c already refused sliding windows). */
const arch *arch_find(const model_config *c, err *e);

/* GGUF stem ("blk.%d.attn_q") of a rule's name; the table is shared by all architectures. */
const char *arch_gguf_stem(const char *name);
/* Full tensor name of a rule for layer `at`, in the checkpoint's own spelling; suffix "weight" or
 * "bias". */
void arch_tensor_name(const rule *r, bool is_gguf, int at, const char *suffix, char *out, size_t n);
/* The rule a tensor name belongs to, with its layer in *at (-1 for globals) and whether it is the
 * bias; NULL if no rule has it. */
const rule *arch_rule_of(const arch *a, bool is_gguf, const char *name, int64_t *at, bool *bias);

extern const arch arch_qwen2, arch_qwen3;

#endif
