/* tools.h - offline commands over a model: inspect, quantize, bench.  Called by server/main.c.
 * Thread: the caller's; bench starts the backend's pool. */
#ifndef QUERN_ENGINE_TOOLS_H
#define QUERN_ENGINE_TOOLS_H

#include "base/buf.h"
#include "base/err.h"
#include "engine/engine.h"

/* What is in a checkpoint, memory at context/sequences, does it fit here.  Text into out. */
int tool_inspect(const engine_options *o, int64_t ctx, int seqs, buf *out, err *e);
/* IN (directory or GGUF) -> GGUF at out_path.  type: "Q8_0", "Q4_0", "Q5_0", "Q4_K", "Q6_K",
 * "Q4_K_M", "F16", "BF16", "F32".  threads 0 = all.  progress(arg, 0..1) may be NULL. */
int tool_quantize(const char *in, const char *out_path, const char *type, int threads,
                  void (*progress)(void *, double), void *arg, err *e);
/* Prefill/decode table with shares of the roof, measured in the same run; JSON object (API of the
 * command line in docs/operations.md) or text into out. */
typedef struct {
    bool json;
    int reps; /* 0 = default */
    const int *decode;
    int n_decode; /* batch sizes; NULL = 1, 8, 32 */
    const int *prefill;
    int n_prefill;      /* tokens; NULL = 512 */
    int64_t decode_ctx; /* context of the decode runs; 0 = 64 */
} bench_options;
int tool_bench(const engine_options *o, const bench_options *b, buf *out, err *e);

#endif
