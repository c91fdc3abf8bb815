/* tool_bench.c - `quern bench`: decode and prefill speed of a model as tokens per second and as a
 * share of what the machine can do at best, the roof measured in the same run.
 *
 * Roof of a step = max(bytes / bandwidth, integer operations / int8 roof + f32 operations / FMA
 * roof); bytes: weights once, and the keys and values every sequence reads; f32 operations: layers
 * stored as F32, F16 or BF16, and the attention of a prefill.
 * The model runs without an engine: no HTTP, no scheduler; each step draws its tokens greedily.
 * Owns the model it opens.  Refuses: what loading refuses, contexts the model does not have.
 * Thread: the caller's, plus the backend's pool. */
#include "base/clock.h"
#include "base/log.h"
#include "engine/engine_open.h"
#include "engine/ranks.h"
#include "engine/tools.h"
#include "kernels/roofs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_CTX = 64,
    MAX_REPS = 1000,
    DECODE_REPS = 15, /* odd, so that the median is a measurement */
    PREFILL_REPS = 5,
    WARM_STEPS = 3 /* on a GPU the second of a size is recorded, the third is the first replayed */
};
static const int default_decode[] = {1, 8, 32}, default_prefill[] = {512};

/* Everything one step needs, for the largest step of the run. */
typedef struct {
    ranks *ranks;
    backend *be; /* of rank 0, theirs */
    runner *run;
    int max_tok, max_seq;
    int max_blocks, apart; /* of one sequence; between the first of two that decode together */
    int n_blocks;
    int32_t *tok, *pos, *slot, *start, *ctx_len, *n_prompt, *table, *out_row;
    sample_row *draw[2]; /* [max_seq] of the last step started and of the one before */
    int32_t *next;       /* [max_seq] token to feed next */
    int n_vocab;
    roofs roof;
    bool has_roof;    /* the reference backend has none */
    int sharing;      /* ranks that share it */
    model_costs cost; /* of rank 0 */
    double load_ms;
    char quantization[48];
    const char *name;
    bool dummy; /* the weights are made up */
} bench;

static int largest(const int *v, int n, int at_least)
{
    for (int i = 0; i < n; i++)
        if (v[i] > at_least) at_least = v[i];
    return at_least;
}

/* ---- opening -----------------------------------------------------------------------------------
 */

static int alloc_step(bench *b, err *e)
{
    size_t t = (size_t)b->max_tok, s = (size_t)b->max_seq, n = 3 * t + 5 * s + 1;
    int32_t *v = calloc(n + s * (size_t)b->max_blocks, sizeof *v);
    for (int i = 0; i < 2; i++) b->draw[i] = calloc(s, sizeof *b->draw[i]);
    if (!v || !b->draw[0] || !b->draw[1]) {
        free(v);
        return err_set(e, ERR_NOMEM, "out of memory for a step of %d tokens", b->max_tok);
    }
    b->tok = v;
    b->pos = v + t;
    b->slot = v + 2 * t;
    b->start = v + 3 * t;
    b->ctx_len = b->start + s + 1;
    b->n_prompt = b->ctx_len + s;
    b->out_row = b->n_prompt + s;
    b->next = b->out_row + s;
    b->table = b->next + s;
    return 0;
}

static int open_model(bench *b, const engine_options *o, int64_t ctx, err *e)
{
    int64_t from = clock_us();
    checkpoint *c = engine_checkpoint(o, e);
    if (!c) return e->code;
    model_config *conf = checkpoint_config_edit(c);
    int rc = 0;
    if (conf && o->rope_scaling) rc = model_config_rope_override(conf, o->rope_scaling, e);
    if (!rc && conf && ctx > conf->ctx)
        rc = err_set(e, ERR_INVALID,
                     "a run needs %lld positions; the model has %lld: lower --ctx or "
                     "--prefill-tokens",
                     (long long)ctx, (long long)conf->ctx);
    model_options mo = {
        .ctx = ctx, .max_tok = b->max_tok, .max_seqs = b->max_seq, .max_out = b->max_seq};
    if (!rc) rc = model_kv_parse(o->kv_dtype, &mo.kv, e);
    model_plan plan;
    uint64_t available;
    if (!rc) rc = ranks_plan(b->ranks, c, &mo, &plan, &available, e);
    if (!rc) rc = ranks_load(b->ranks, c, &mo, b->n_blocks, e);
    checkpoint_close(c);
    if (!rc && !(b->run = ranks_runner(b->ranks))) rc = err_set(e, ERR_NOMEM, "out of memory");
    if (rc) return rc;
    b->load_ms = (double)(clock_us() - from) / 1e3;
    b->cost = model_cost(ranks_model(b->ranks));
    b->n_vocab = model_vocab_rows(ranks_model(b->ranks));
    memcpy(b->quantization, plan.quantization, sizeof b->quantization);
    return 0;
}

/* Ranks on one processor share its roofs, which are measured with all its threads. */
static int measure_roofs(bench *b, const engine_options *o, err *e)
{
    b->sharing = ranks_world(b->ranks);
    if (b->sharing == 1) return roofs_measure(b->be, &b->roof, e);
    backend *be = engine_backend(o, 0, e);
    if (!be) return e->code;
    int rc = roofs_measure(be, &b->roof, e);
    backend_close(be);
    return rc;
}

static int64_t blocks_of(const bench *b, int64_t positions)
{
    return (positions + b->be->kv_block - 1) / b->be->kv_block;
}

static int bench_open(bench *b, const engine_options *o, const bench_options *r, err *e)
{
    int64_t together = r->decode_ctx + (r->reps > DECODE_REPS ? r->reps : DECODE_REPS) + 1;
    int prefill = largest(r->prefill, r->n_prefill, 1);
    int64_t ctx = together > prefill ? together : prefill;
    b->name = o->model_path;
    b->dummy = o->dummy_weights;
    b->max_seq = largest(r->decode, r->n_decode, 1);
    if (!(b->ranks = ranks_open(o, e))) return e->code;
    b->be = ranks_backend(b->ranks);
    int batched = b->be->device[0] ? ENGINE_STEP_DEVICE : ENGINE_STEP_HOST;
    if (o->max_num_batched_tokens) batched = o->max_num_batched_tokens;
    b->max_tok = batched > b->max_seq ? batched : b->max_seq;
    int64_t blocks = blocks_of(b, ctx);
    if (blocks > INT32_MAX / b->be->kv_block / b->max_seq)
        return err_set(e, ERR_LIMIT, "%d sequences of %lld tokens are too many", b->max_seq,
                       (long long)ctx);
    b->max_blocks = (int)blocks;
    b->apart = (int)blocks_of(b, together);
    b->n_blocks = b->max_seq * b->apart;
    if (b->n_blocks < b->max_blocks) b->n_blocks = b->max_blocks;
    int rc = alloc_step(b, e);
    if (!rc) rc = open_model(b, o, ctx, e);
    if (rc || b->be->exact_f32 || b->be->device[0]) return rc;
    b->has_roof = true;
    return measure_roofs(b, o, e);
}

static void bench_close(bench *b)
{
    if (b->run) b->run->close(b->run);
    ranks_close(b->ranks);
    free(b->tok);
    for (int i = 0; i < 2; i++) free(b->draw[i]);
}

/* ---- steps -------------------------------------------------------------------------------------
 */

/* Starts a step in which sequences first .. first + n_seq - 1 each take n tokens from position at;
 * one token: a generated one.  pending: it is the one drawn by the step before, which need not be
 * finished.  0 or ERR_*. */
static int start_step(bench *b, int first, int n_seq, int at, int n, bool pending, err *e)
{
    int block = b->be->kv_block;
    sample_row *draw = b->draw[1];
    b->draw[1] = b->draw[0];
    b->draw[0] = draw;
    batch s = {.n_tok = n_seq * n,
               .n_seq = n_seq,
               .n_out = n_seq,
               .max_blocks = b->max_blocks,
               .tok = b->tok,
               .pos = b->pos,
               .slot = b->slot,
               .seq_start = b->start,
               .ctx_len = b->ctx_len,
               .block_table = b->table,
               .n_prompt = b->n_prompt,
               .out_row = b->out_row};
    for (int i = 0; i < n_seq; i++) {
        int32_t *table = b->table + (size_t)i * (size_t)b->max_blocks;
        for (int j = 0; j < b->max_blocks; j++) table[j] = (first + i) * b->apart + j;
        for (int k = 0; k < n; k++) {
            int row = i * n + k, p = at + k;
            b->tok[row] = pending  ? -1 - row
                          : n == 1 ? b->next[first + i]
                                   : (int32_t)((p * 7919L + first + i) % b->n_vocab);
            b->pos[row] = p;
            b->slot[row] = table[p / block] * block + p % block;
        }
        b->start[i + 1] = (i + 1) * n;
        b->ctx_len[i] = at + n;
        b->n_prompt[i] = n == 1 ? at : at + n;
        b->out_row[i] = (i + 1) * n - 1;
        draw[i] = (sample_row){
            .top_p = 1, .repetition = 1, .n_vocab = b->n_vocab, .n_top = -1, .forced = -1};
    }
    return b->run->start(b->run, &s, draw, NULL, e);
}

static int finish_step(bench *b, err *e)
{
    return b->run->finish ? b->run->finish(b->run, e) : 0;
}

/* Start and finish.  Returns microseconds, negative ERR_* on a fault. */
static int64_t run_step(bench *b, int first, int n_seq, int at, int n, err *e)
{
    int64_t from = clock_us();
    int rc = start_step(b, first, n_seq, at, n, false, e);
    if (!rc) rc = finish_step(b, e);
    if (rc) return rc;
    for (int i = 0; i < n_seq; i++) b->next[first + i] = b->draw[0][i].id;
    return clock_us() - from;
}

/* Positions [0, n) of n_seq sequences, one after the other, in steps of at most max_tok tokens. */
static int64_t run_prefill(bench *b, int n_seq, int n, err *e)
{
    int64_t us = 0;
    for (int i = 0; i < n_seq; i++)
        for (int at = 0; at < n; at += b->max_tok) {
            int64_t t = run_step(b, i, 1, at, n - at < b->max_tok ? n - at : b->max_tok, e);
            if (t < 0) return t;
            us += t;
        }
    return us;
}

static int rising(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double median_seconds(int64_t *us, int n)
{
    qsort(us, (size_t)n, sizeof *us, rising);
    return (double)us[n / 2] / 1e6;
}

/* Where drawn ids can stay on the device the engine starts a step before the one before it is
 * finished; so does this.  us[r]: from one step's end to the next's. */
static int time_ahead(bench *b, int n_seq, int ctx, int reps, int64_t *us, err *e)
{
    int rc = start_step(b, 0, n_seq, ctx, 1, false, e);
    int64_t last = 0;
    for (int r = -1; r < reps && !rc; r++) {
        rc = start_step(b, 0, n_seq, ctx + (r < 0 ? 0 : r), 1, true, e);
        if (!rc) rc = finish_step(b, e);
        int64_t now = clock_us();
        if (r >= 0) us[r] = now - last;
        last = now;
    }
    return rc ? rc : finish_step(b, e);
}

/* Seconds of a step of n_seq sequences with ctx positions each; 0: a fault, see e. */
static double decode_seconds(bench *b, int n_seq, int ctx, int reps, err *e)
{
    int64_t us[MAX_REPS] = {0};
    if (run_prefill(b, n_seq, ctx, e) < 0) return 0;
    for (int i = 0; i < WARM_STEPS; i++)
        if (run_step(b, 0, n_seq, ctx, 1, e) < 0) return 0;
    if (b->run->depth > 1) {
        if (time_ahead(b, n_seq, ctx, reps, us, e)) return 0;
        return median_seconds(us, reps);
    }
    for (int r = 0; r < reps; r++)
        if ((us[r] = run_step(b, 0, n_seq, ctx + r, 1, e)) < 0) return 0;
    return median_seconds(us, reps);
}

static double prefill_seconds(bench *b, int n, int reps, err *e)
{
    int64_t us[MAX_REPS] = {0};
    for (int r = -1; r < reps; r++) {
        int64_t t = run_prefill(b, 1, n, e);
        if (t < 0) return 0;
        if (r >= 0) us[r] = t;
    }
    return median_seconds(us, reps);
}

/* ---- roofs -------------------------------------------------------------------------------------
 */

/* Seconds a step of n_tok tokens with n_out rows of logits cannot beat. */
static double roof_seconds(const bench *b, double n_tok, double n_out, double kv_bytes,
                           double attn_macs)
{
    const model_costs *c = &b->cost;
    double idle = n_tok - n_out; /* rows the last MLP leaves out */
    double all = n_tok * c->body_macs - idle * c->tail_macs + n_out * c->head_macs;
    double f32 = n_tok * c->body_f32_macs - idle * c->tail_f32_macs + n_out * c->head_f32_macs;
    double math = 2 * (all - f32) / (b->roof.int8_gops * 1e9) +
                  2 * (f32 + attn_macs) / (b->roof.fma_gflops * 1e9);
    double bytes = (double)(c->body_bytes + c->head_bytes) + kv_bytes;
    double memory = bytes / (b->roof.bandwidth_gbs * 1e9);
    return (math > memory ? math : memory) * b->sharing;
}

static double decode_roof(const bench *b, int n_seq, int ctx)
{
    return roof_seconds(b, n_seq, n_seq, (double)n_seq * ctx * (double)b->cost.kv_bytes_per_pos, 0);
}

/* n tokens in steps of max_tok: every step reads the weights. */
static double prefill_roof(const bench *b, int n)
{
    double s = 0;
    for (int at = 0; at < n; at += b->max_tok) {
        int k = n - at < b->max_tok ? n - at : b->max_tok;
        double pairs = (double)k * at + (double)k * (k + 1) / 2;
        s += roof_seconds(b, k, 1, 0, pairs * b->cost.attn_macs_per_ctx);
    }
    return s;
}

/* ---- the report --------------------------------------------------------------------------------
 */

static void put_fixed(buf *out, double v, int digits)
{
    buf_printf(out, "%.*f", digits, v);
}

static void put_row(const bench *b, bool as_json, const char *what, int n, double tok_s,
                    double share, bool first, buf *out)
{
    if (!as_json) {
        buf_printf(out, "%-8s %6d  %10.1f tok/s", what, n, tok_s);
        if (b->has_roof) buf_printf(out, "   %3.0f %% of the roof", share * 100);
        buf_putc(out, '\n');
        return;
    }
    buf_printf(out, "%s{\"%s\":%d,\"tok_s\":", first ? "" : ",", what, n);
    put_fixed(out, tok_s, 2);
    buf_puts(out, ",\"roof_share\":");
    if (b->has_roof) put_fixed(out, share, 4);
    else buf_puts(out, "null");
    buf_putc(out, '}');
}

static void put_head(const bench *b, bool as_json, buf *out)
{
    if (as_json) {
        buf_puts(out, "{\"model\":");
        buf_put_json(out, b->name, strlen(b->name));
        buf_printf(
            out, ",\"format\":\"%s\",\"backend\":\"%s\",\"isa\":\"%s\",\"threads\":%d,\"ranks\":%d",
            b->quantization, b->be->op->name, b->be->isa, b->be->threads, ranks_world(b->ranks));
        buf_printf(out, ",\"device\":\"%s\",\"dummy_weights\":%s", b->be->device,
                   b->dummy ? "true" : "false");
        buf_printf(out, ",\"bandwidth_gbs\":%.2f,\"int8_gops\":%.1f,\"fma_gflops\":%.1f",
                   b->roof.bandwidth_gbs, b->roof.int8_gops, b->roof.fma_gflops);
        return;
    }
    buf_printf(out, "%s  %s%s  %s %s, ", b->name, b->quantization,
               b->dummy ? " (made-up weights)" : "", b->be->op->name, b->be->isa);
    if (b->be->device[0]) buf_printf(out, "%s, ", b->be->device);
    else buf_printf(out, "%d threads, ", b->be->threads);
    if (ranks_world(b->ranks) > 1) buf_printf(out, "each of %d ranks, ", ranks_world(b->ranks));
    buf_printf(out, "loaded in %.0f ms\n", b->load_ms);
    if (b->has_roof)
        buf_printf(out, "roofs: memory %.1f GB/s, int8 %.0f Gop/s, f32 %.0f GFLOP/s\n",
                   b->roof.bandwidth_gbs, b->roof.int8_gops, b->roof.fma_gflops);
}

static int run_all(bench *b, const bench_options *r, buf *out, err *e)
{
    int ctx = (int)r->decode_ctx;
    put_head(b, r->json, out);
    if (r->json) buf_puts(out, ",\"decode\":[");
    for (int i = 0; i < r->n_decode; i++) {
        int n = r->decode[i], reps = r->reps ? r->reps : DECODE_REPS;
        double s = decode_seconds(b, n, ctx, reps, e);
        if (s <= 0) return e->code ? e->code : err_set(e, ERR_LIMIT, "a step took no time");
        double roof = b->has_roof ? decode_roof(b, n, ctx + reps / 2) : 0;
        put_row(b, r->json, r->json ? "batch" : "decode", n, n / s, roof / s, i == 0, out);
    }
    if (r->json) buf_puts(out, "],\"prefill\":[");
    for (int i = 0; i < r->n_prefill; i++) {
        int n = r->prefill[i];
        double s = prefill_seconds(b, n, r->reps ? r->reps : PREFILL_REPS, e);
        if (s <= 0) return e->code ? e->code : err_set(e, ERR_LIMIT, "a step took no time");
        double roof = b->has_roof ? prefill_roof(b, n) : 0;
        put_row(b, r->json, r->json ? "tokens" : "prefill", n, n / s, roof / s, i == 0, out);
    }
    if (r->json) buf_printf(out, "],\"load_ms\":%.1f}\n", b->load_ms);
    return buf_ok(out) ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

/* Fills in the defaults and refuses what no run can do. */
static int check_options(bench_options *r, err *e)
{
    if (!r->decode) {
        r->decode = default_decode;
        r->n_decode = sizeof default_decode / sizeof *default_decode;
    }
    if (!r->prefill) {
        r->prefill = default_prefill;
        r->n_prefill = sizeof default_prefill / sizeof *default_prefill;
    }
    if (!r->decode_ctx) r->decode_ctx = DEFAULT_CTX;
    if (r->reps < 0 || r->reps > MAX_REPS)
        return err_set(e, ERR_INVALID, "--reps is %d; 1 to %d are accepted", r->reps, MAX_REPS);
    if (r->decode_ctx < 1 || r->decode_ctx > INT32_MAX / 2)
        return err_set(e, ERR_INVALID, "--ctx is %lld; it must be positive",
                       (long long)r->decode_ctx);
    for (int i = 0; i < r->n_decode; i++)
        if (r->decode[i] < 1 || r->decode[i] > 4096)
            return err_set(e, ERR_INVALID, "a decode batch of %d; 1 to 4096 are accepted",
                           r->decode[i]);
    for (int i = 0; i < r->n_prefill; i++)
        if (r->prefill[i] < 1)
            return err_set(e, ERR_INVALID, "a prefill of %d tokens; at least 1 is needed",
                           r->prefill[i]);
    return 0;
}

int tool_bench(const engine_options *o, const bench_options *opt, buf *out, err *e)
{
    bench_options r = *opt;
    bench b = {0};
    int rc = check_options(&r, e);
    if (!rc) rc = bench_open(&b, o, &r, e);
    if (!rc) rc = run_all(&b, &r, out, e);
    bench_close(&b);
    return rc;
}
