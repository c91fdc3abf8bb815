/* weights.h - from a checkpoint's tensors to a backend's weights, by the rule table of the
 * architecture: find, check, fuse, cut, upload, drop the source.
 * Refuses, naming the tensor: missing, of another shape than the config implies, of a type we do
 * not read, unknown to the architecture.  Thread: one per rank, its loader's. */
#ifndef QUERN_ENGINE_WEIGHTS_H
#define QUERN_ENGINE_WEIGHTS_H

#include "engine/shard.h"

#include <stdatomic.h>

typedef struct {
    globals g;
    layer *layers; /* [n_layers] owned */
    int n_layers;
    bool tied; /* logits come from g.embed; g.head is empty */
} weights;

/* What a checkpoint holds, from names, shapes and types alone. */
typedef struct {
    int64_t n_params;
    int64_t device_bytes; /* as upload_weight will take; 0 without a backend */
    bool tied;
    char quantization[48]; /* dominant types of the layers' matrices */
} weights_summary;

/* The architecture of a checkpoint; NULL with e filled when arch_find refuses it or it has no
 * config. */
const arch *weights_arch(const checkpoint *c, err *e);
/* All checks; be may be NULL (no device_bytes). */
int weights_check(const arch *a, const checkpoint *c, const backend *be, weights_summary *s,
                  err *e);
/* The same, with the device_bytes of one rank's share. */
int weights_check_share(const arch *a, const checkpoint *c, const backend *be, const shard *share,
                        weights_summary *s, err *e);
/* Where the columns of the checkpoint's o and down matrices can be cut. */
shard_units weights_units(const arch *a, const checkpoint *c);
/* Checks, then uploads the rank's share and nothing else.  On failure nothing is left in *w.  Peak
 * memory: what is uploaded so far plus the source of one fused weight and a copy of the share of
 * one matrix cut by columns; the large embedding goes first for that reason. progress (may be NULL)
 * rises from 0 to 1. */
int weights_load(weights *w, const arch *a, const checkpoint *c, backend *be, const shard *share,
                 _Atomic double *progress, err *e);
void weights_free(weights *w, backend *be);
/* Whether a checked checkpoint has a bias that counts at this rule. */
bool weights_has_bias(const rule *r, const checkpoint *c, int at);

static inline const weight *weights_head(const weights *w)
{
    return w->tied ? &w->g.embed : &w->g.head;
}

#endif
