/* tools.h - offline commands over a model: inspect, quantize, bench.  Called by server/main.c.
 * Thread: the caller's; bench starts the backend's pool. */
#ifndef QUERN_ENGINE_TOOLS_H
#define QUERN_ENGINE_TOOLS_H

#include "base/buf.h"
#include "base/err.h"
#include "engine/engine.h"

/* What is in a checkpoint, memory at context/sequences, does it fit here, and what each of tp ranks
 * would hold.  Text or one JSON object into out. */
typedef struct {
    int64_t ctx; /* 0 = the model's */
    int seqs;    /* 0 = 1 */
    int tp;      /* 0 = 1 */
    /* Weight type to plan with, a word of `quantize --type`; NULL: the checkpoint's own, BF16 where
     * it holds no weights. */
    const char *assume_type;
    bool json;
} inspect_options;
int tool_inspect(const engine_options *o, const inspect_options *i, buf *out, err *e);
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
