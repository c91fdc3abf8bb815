/* engine_open.c - checkpoints and backends by the operator's options; see engine_open.h.
 * Owns nothing.  Refuses: what opening refuses; made-up weights for what has weights of its own in
 * one file.  Thread: as the header says. */
#include "engine/engine_open.h"

#include "base/file.h"
#include "config/device.h"
#include "engine/ranks.h"
#include "kernels/comm.h"

#include <string.h>

checkpoint *engine_checkpoint(const engine_options *o, err *e)
{
    if (!o->dummy_weights)
        return checkpoint_open(o->model_path, &(checkpoint_options){.weights = true}, e);
    if (!file_is_dir(o->model_path)) {
        err_set(e, ERR_INVALID,
                "--dummy-weights takes a directory that holds a config.json, got '%s'",
                o->model_path);
        return NULL;
    }
    checkpoint *c = checkpoint_open(o->model_path, &(checkpoint_options){.weights = false}, e);
    if (!c) return NULL;
    int type = dtype_by_name(o->dummy_type ? o->dummy_type : "BF16");
    if (!dummy_tensors(c, type, e)) return c;
    err_prefix(e, "--dummy-weights");
    checkpoint_close(c);
    return NULL;
}

int engine_pooling(model_config *c, const engine_options *o, err *e)
{
    int rc = pooling_override(&c->pool, o->embeddings, o->pooling, e);
    if (o->attention && strcmp(o->attention, "auto")) c->causal = !strcmp(o->attention, "causal");
    if (!c->causal && c->pool.embeds) c->pool.generates = false; /* it never learnt to go on */
    return rc;
}

bool engine_text_source(const checkpoint *c, tokenizer_source *s)
{
    checkpoint_text t = checkpoint_text_files(c);
    *s = (tokenizer_source){.tokenizer_json = t.tokenizer_json,
                            .vocab_json = t.tokenizer_json ? NULL : t.vocab_json,
                            .merges = t.tokenizer_json ? NULL : t.merges,
                            .tokenizer_config = t.tokenizer_config,
                            .gguf = checkpoint_gguf(c)};
    return s->gguf || s->tokenizer_json || (s->vocab_json && s->merges);
}

int engine_step_tokens(const engine_options *o, const model_config *c, int64_t ctx, bool device)
{
    /* On a GPU the weights are read in the time it takes to multiply with some hundred rows, and a
     * larger step only makes others wait. */
    if (o->max_num_batched_tokens) return o->max_num_batched_tokens;
    int usual = device ? ENGINE_STEP_DEVICE : ENGINE_STEP_HOST;
    if (c->causal || ctx <= usual) return usual;
    return ctx < ENGINE_MAX_STEP ? (int)ctx : ENGINE_MAX_STEP;
}

backend *engine_backend(const engine_options *o, int rank, err *e)
{
    device_choice d;
    if (device_parse(o->device, &d, e)) return NULL;
    const backend_options bo = {.name = d.name,
                                .isa = o->cpu_isa,
                                .device = device_of_rank(&d, rank),
                                .threads = o->threads,
                                .bf16_repack = o->bf16_repack,
                                .batch_invariant = o->batch_invariant,
                                .no_graphs = o->no_graphs};
    return backend_open(&bo, e);
}

int engine_follow(const engine_options *o, struct comm *c, err *e)
{
    int rc = 0;
    backend *be = NULL;
    checkpoint *ckpt = engine_checkpoint(o, e);
    model_config *conf = ckpt ? checkpoint_config_edit(ckpt) : NULL;
    if (!ckpt) rc = e->code;
    else if (!conf) rc = err_set(e, ERR_NOTFOUND, "%s has no config.json", o->model_path);
    if (!rc && conf) rc = engine_pooling(conf, o, e);
    if (!rc && o->rope_scaling) rc = model_config_rope_override(conf, o->rope_scaling, e);
    if (!rc && !(be = engine_backend(o, c->rank, e))) rc = e->code;
    if (rc) {
        comm_abort(c, "%s", e->msg);
    } else {
        be->comm = c;
        rc = ranks_follow(be, ckpt, e);
    }
    comm_close(be && be->comm ? be->comm : c);
    if (be) backend_close(be);
    checkpoint_close(ckpt);
    return rc;
}
