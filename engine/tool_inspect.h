/* tool_inspect.h - what the parts of `quern inspect` share: the report on this machine and the
 * plan over ranks.  Thread: the caller's. */
#ifndef QUERN_ENGINE_TOOL_INSPECT_H
#define QUERN_ENGINE_TOOL_INSPECT_H

#include "base/buf.h"
#include "engine/model.h"

/* What `ctx` and `seqs` take on this machine's backend. */
typedef struct {
    int64_t ctx;
    int seqs, block;
    kv_type kv;
    model_plan p;
    uint64_t kv_bytes, available;
} inspect_needs;

/* Memory sizes GPUs are sold with, in GB (the driver shows as many GiB), and what of it is left for
 * us: less 2 GiB for the driver's context, cuBLASLt, NCCL and recorded graphs. */
enum { TP_CARDS = 4, TP_RESERVE_GIB = 2 };
extern const int tp_card_gb[TP_CARDS];

typedef struct {
    int64_t ctx;
    int seqs;
    int batched; /* rows of the largest step */
    kv_type kv;
    int tp;
    const char *assume_type; /* --assume-type; NULL: the tensors' own, BF16 if there are none */
} tp_ask;

/* One rank of a plan: how much of the model it holds, in bytes on a GPU. */
typedef struct {
    int heads, kv_heads, ff, vocab; /* its share */
    int64_t n_params;
    uint64_t weight_bytes; /* matrices as stored, vectors and biases f32 */
    uint64_t kv_bytes;     /* whole blocks for every sequence */
    uint64_t scratch_bytes;
    uint64_t kv_per_token;
} tp_rank;

typedef struct {
    tp_ask ask;
    char types[64]; /* of the matrices, in words */
    tp_rank *rank;  /* [ask.tp] owned */
    /* The smallest number of ranks whose every share fits each of tp_card_gb; 0 if none does. */
    int smallest[TP_CARDS];
} tp_plan;

/* Shares by the rule table and engine/shard.h; reads names, shapes and types only, and of a
 * directory without weights the config.  ERR_UNSUPPORTED with the sizes this model allows for a tp
 * that cannot share it. */
int tp_plan_make(tp_plan *p, const checkpoint *c, const tp_ask *ask, err *e);
void tp_plan_clear(tp_plan *p);
/* Bytes the fullest rank takes. */
uint64_t tp_plan_most(const tp_plan *p);
/* Bytes of a card that a plan may use. */
uint64_t tp_card_bytes(int card_gb);
void tp_plan_text(const tp_plan *p, buf *out);
void tp_plan_json(const tp_plan *p, buf *out);

/* "12.34 GiB", "5.0 MiB", "1.0 KiB". */
void inspect_put_bytes(buf *out, uint64_t n);
/* "label          " in front of a line. */
void inspect_label(buf *out, const char *word);

#endif
