/* engine_open.c - checkpoints and backends by the operator's options; see engine_open.h.
 * Owns nothing.  Refuses: what opening refuses; made-up weights for what has weights of its own in
 * one file.  Thread: as the header says. */
#include "engine/engine_open.h"

#include "base/file.h"
#include "config/device.h"

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
