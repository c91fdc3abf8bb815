/* rope.h - rotary embedding: which frequencies a config asks for.  Every scaling scheme only
 * changes the table of frequencies and one factor on cos and sin; no kernel knows the scheme.
 * Pure functions, any thread. */
#ifndef QUERN_ENGINE_ROPE_H
#define QUERN_ENGINE_ROPE_H

#include "config/model_config.h"
#include "kernels/kernels.h"

/* Fills inv_freq[head_dim/2] (owned by the caller, borrowed by *r) for serving ctx positions.
 *   plain    theta^(-2i/d)
 *   linear   the same, divided by the factor
 *   dynamic  theta raised as Hugging Face raises it for a sequence of exactly ctx positions.  The
 *            table is fixed for the served context: recomputing it while a sequence grows would
 *            make a token's bits depend on what comes after it (and spoil every cached key).
 *            Nothing changes while ctx is within the trained length.
 *   YaRN     static, whatever the length of the prompt
 * ERR_INVALID names the config field that cannot be. */
int rope_init(rope_spec *r, float *inv_freq, const model_config *c, int64_t ctx, err *e);

#endif
