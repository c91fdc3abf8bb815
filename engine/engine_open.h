/* engine_open.h - what everything that runs a model opens first: its checkpoint, or a made-up one,
 * and the backend of a rank.  Thread: any, one at a time for one options struct. */
#ifndef QUERN_ENGINE_ENGINE_OPEN_H
#define QUERN_ENGINE_ENGINE_OPEN_H

#include "config/checkpoint.h"
#include "engine/engine.h"
#include "engine/text/tokenizer.h"
#include "kernels/kernels.h"

/* The checkpoint of o, with tensors that have no data under --dummy-weights. */
checkpoint *engine_checkpoint(const engine_options *o, err *e);
/* Applies --embeddings, --pooling and --attention. */
int engine_pooling(model_config *c, const engine_options *o, err *e);
/* Where c's tokenizer is; false: it has none. */
bool engine_text_source(const checkpoint *c, tokenizer_source *s);
/* Tokens of a step: usual on the host, on a device; at most. */
enum { ENGINE_STEP_HOST = 512, ENGINE_STEP_DEVICE = 2048, ENGINE_MAX_STEP = 65536 };
/* Tokens of a step: the operator's, or what is usual on a device or the host; for a model that sees
 * a text in one step, at least its context. */
int engine_step_tokens(const engine_options *o, const model_config *c, int64_t ctx, bool device);
/* The backend of one rank, on the device that --device gives it. */
backend *engine_backend(const engine_options *o, int rank, err *e);

/* Every tensor the architecture of c needs, matrices of `type`, none with data; c was opened
 * without weights. */
int dummy_tensors(checkpoint *c, int type, err *e);
/* What t holds, made up from its name: norms about 1, biases about 0. */
void dummy_values(const ckpt_tensor *t, float *v /* [dim[0]] */);
/* The seed of a matrix. */
uint64_t dummy_seed(const ckpt_tensor *t);

#endif
