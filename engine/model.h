/* model.h - one rank's shard of a model: weights on a backend, KV pages, the forward pass.
 * Thread: loading by one thread; model_forward by the rank's thread only. */
#ifndef QUERN_ENGINE_MODEL_H
#define QUERN_ENGINE_MODEL_H

#include "config/checkpoint.h"
#include "kernels/kernels.h"

#include <stdatomic.h>

typedef struct model model;

/* "auto" (the default: f16), "bf16", "f16", "f32", "q8_0"; NULL is "auto". */
int model_kv_parse(const char *name, kv_type *t, err *e);
const char *model_kv_name(kv_type t);

typedef struct {
    int64_t ctx;          /* positions rope must cover (dynamic NTK's base is fixed by it) */
    int max_tok, max_out; /* rows of the largest step, rows of its logits */
    int max_state;        /* hidden states of a step that are wanted; 0 = none ever */
    bool no_logits;       /* they are never wanted: the output matrix stays out */
    int max_seqs;         /* sequences of the largest step */
    kv_type kv;
    int world, rank;          /* whose share: rank of world; 0 of 0 is alone */
    _Atomic double *progress; /* 0..1 while loading, or NULL */
} model_options;

/* n_params of the whole model, bytes of the rank's share. */
typedef struct {
    int64_t n_params, weight_bytes; /* weight_bytes: on the device, as upload_weight will take */
    size_t kv_block_bytes;          /* one block over all layers */
    size_t scratch_bytes;           /* for max_tok, max_out */
    char quantization[48];          /* dominant types: "Q8_0", "Q4_K_M", "Q5_0+Q8_0", "BF16" */
} model_plan;

/* Checks architecture, tensor names, shapes and types against the rule table without reading
 * weights; the message names the tensor or the config field.  Also what `inspect` prints. */
int model_plan_make(const checkpoint *c, const backend *be, const model_options *o, model_plan *p,
                    err *e);

/* Uploads the share tensor by tensor, dropping source pages as it goes.  Several ranks load at the
 * same time, each on its backend, whose comm says the same world and rank. */
model *model_load(const checkpoint *c, backend *be, const model_options *o, err *e);
void model_free(model *m);
/* Allocates n_blocks KV blocks in every layer. */
int model_kv_alloc(model *m, int n_blocks, err *e);

/* One pass: logits[n_out, own rows of the vocabulary] and pooled[n_pool, hidden], f32 sums of
 * states (scratch of the backend, valid until the next pass; pooled may be NULL on ranks but 0).
 * All ranks call it with equal batches; afterwards the backend's fault says if one failed. */
void model_forward(model *m, const batch *b, tensor *logits, tensor *pooled);

const model_config *model_conf(const model *m);
int model_vocab_rows(const model *m); /* of all ranks */
/* Where the rows of each rank begin, and the end: [world + 1]. */
const int32_t *model_vocab_start(const model *m);
int64_t model_n_params(const model *m);
/* Flop and byte counts for roofs, of the rank's share: weight bytes read per pass, multiply-adds
 * per token in linears. */
typedef struct {
    uint64_t body_bytes, head_bytes; /* packed bytes of all layers; of the output matrix */
    double body_macs, head_macs;     /* multiply-adds per row */
    double tail_macs;                /* part of body_macs done only for rows that get logits */
    double body_f32_macs, head_f32_macs, tail_f32_macs; /* parts on F32, F16, BF16 weights */
    double attn_macs_per_ctx; /* multiply-adds per row and position of context */
    uint64_t kv_bytes_per_pos;
} model_costs;
model_costs model_cost(const model *m);

#endif
