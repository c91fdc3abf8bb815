/* graph.c - owns the recorded passes of a device: one graph a bucket, made the second time a bucket
 * occurs (the first pass runs eagerly, so that library handles, kernel attributes and cached
 * algorithms are there), replayed from then on.
 * Refuses nothing: a pass that cannot be recorded is a fault.  Thread: the rank's. */
#include "kernels/cuda/own.h"

static recorded_pass *pass_of(cuda_own *own, int bucket)
{
    for (int i = 0; i < own->n_pass; i++)
        if (own->pass[i].size == bucket) return &own->pass[i];
    return NULL; /* not reached: batch.c names only these */
}

bool cuda_replay(backend *be, const batch *b, tensor *logits)
{
    recorded_pass *p = pass_of(own_of(be), b->bucket);
    if (!p || !p->graph) return false;
    gpu_graph_launch(p->graph, cuda_of(be)->stream);
    *logits = p->logits;
    be->scratch_used = p->scratch;
    return true;
}

void cuda_record(backend *be, const batch *b)
{
    cuda_own *own = own_of(be);
    recorded_pass *p = pass_of(own, b->bucket);
    if (!p) return;
    own->recording = p->seen;
    p->seen = true;
    if (own->recording) gpu_capture_begin(cuda_of(be)->stream);
}

void cuda_record_end(backend *be, const batch *b, const tensor *logits)
{
    cuda_own *own = own_of(be);
    if (!own->recording) return;
    own->recording = false;
    recorded_pass *p = pass_of(own, b->bucket);
    p->graph = gpu_capture_end(cuda_of(be)->stream);
    if (!p->graph) {
        const char *why = gpu_error(cuda_of(be)->dev);
        k_fault(be, "record", "a pass of %d rows: %s; --no-graphs runs without", p->size,
                why ? why : "no graph");
        return;
    }
    p->logits = *logits;
    p->scratch = be->scratch_used;
    gpu_graph_launch(p->graph, cuda_of(be)->stream);
}

void cuda_graphs_drop(backend *be)
{
    cuda_own *own = own_of(be);
    if (own->n_pass) cuda_drain(be); /* a fault is told by the next sync */
    for (int i = 0; i < own->n_pass; i++) {
        gpu_graph_free(own->pass[i].graph);
        own->pass[i].graph = NULL;
        own->pass[i].seen = false;
    }
}
