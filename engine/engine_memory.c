/* engine_memory.c - how much context, how many sequences and how many KV blocks: the memory plan,
 * and the words that explain it at start (API 21, A4). Refuses: weights that do not fit into the
 * memory this process may use, a cache too small to be of any use, unknown KV types. Thread:
 * whoever opens the engine. */
#include "base/log.h"
#include "engine/engine_impl.h"
#include "engine/engine_open.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

enum {
    /* Beyond this many, a CPU shares its arithmetic without gaining throughput: decode at 32 to 64
     * rows is already bound by multiplications, not by reading weights. */
    DEFAULT_SEQS = 64,
    DEFAULT_SEQS_GPU = 256, /* the largest step that is recorded */
    /* A sequence that cannot hold this many positions is of little use; fewer sequences then. */
    USEFUL_CTX = 512,
    /* Of a model that sees a text in one step: not halved below this, and the share of the memory
     * beside the weights that the working memory of a step may take. */
    FULL_LEAST = 2048,
    FULL_SHARE = 4,
    /* Rows of logits beside those of decoding, so that prompt logprobs advance in chunks. */
    MIN_OUT = 16
};

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* Bytes for KV: what was asked for, or a share of what is left beside weights and scratch.  A host
 * has other uses for its memory; a device keeps a tenth for work space, graphs and the library. */
static int kv_budget(const engine_options *o, const model_plan *p, bool device, uint64_t *budget,
                     uint64_t *available, err *e)
{
    uint64_t fixed = (uint64_t)p->weight_bytes + p->scratch_bytes;
    if (*available == 0) *available = UINT64_MAX / 2; /* the system does not say */
    if (fixed >= *available)
        return err_set(
            e, ERR_NOMEM,
            "the model needs %.0f MiB for weights and working memory, and only %.0f MiB are "
            "available: free memory, raise the container's limit, or use a smaller or more "
            "quantised model",
            mib(fixed), mib(*available));
    uint64_t left = *available - fixed;
    *budget = o->kv_memory ? o->kv_memory : device ? left - left / 10 : left / 2;
    if (*budget <= *available - fixed) return 0;
    return err_set(
        e, ERR_INVALID,
        "--kv-cache-memory asks for %.0f MiB, and beside the model's %.0f MiB only %.0f MiB are "
        "available",
        mib(*budget), mib(fixed), mib(*available - fixed));
}

static void explain(engine *g, const engine_options *o, uint64_t available, int64_t need,
                    int64_t wanted_ctx)
{
    engine_info_t *i = &g->info;
    char *s = i->kv_reason;
    size_t n = sizeof i->kv_reason;
    if (o->kv_memory) snprintf(s, n, "--kv-cache-memory");
    else if (i->n_kv_blocks == need)
        snprintf(s, n, "all that %d sequences of %" PRId64 " tokens can use", i->max_num_seqs,
                 i->ctx);
    else
        snprintf(s, n, "%s of the %.0f MiB available beside the weights",
                 g->be->device[0] ? "nine tenths" : "half", mib(available));
    if (i->ctx == wanted_ctx) return;
    size_t at = strlen(s);
    snprintf(s + at, n - at, "; context cut from %" PRId64 " to %" PRId64 " tokens", wanted_ctx,
             i->ctx);
    log_warn("the KV cache holds %" PRId64 " tokens: the context is cut from %" PRId64 "; %s",
             i->ctx, wanted_ctx,
             g->be->device[0] ? "use more quantised weights or more ranks"
                              : "raise --kv-cache-memory or use --kv-cache-dtype q8_0");
}

/* Blocks by budget; then context and sequences by blocks. */
static int fit(engine *g, const engine_options *o, const model_plan *p, uint64_t available, err *e)
{
    uint64_t budget = 0;
    int rc = kv_budget(o, p, g->be->device[0], &budget, &available, e);
    if (rc) return rc;
    engine_info_t *i = &g->info;
    int b = g->be->kv_block;
    int64_t wanted_ctx = i->ctx, per_seq = (wanted_ctx + b - 1) / b,
            need = per_seq * i->max_num_seqs;
    int64_t blocks = (int64_t)(budget / p->kv_block_bytes),
            most = INT32_MAX / b; /* slots are int32 */
    if (!o->kv_memory && blocks > need) blocks = need;
    if (blocks > most) blocks = most;
    if (blocks < 1 || blocks * b < (wanted_ctx < 64 ? wanted_ctx : 64))
        return err_set(e, o->kv_memory ? ERR_INVALID : ERR_NOMEM,
                       "%.1f MiB for the KV cache hold only %" PRId64
                       " tokens (%.2f MiB for %d): raise "
                       "--kv-cache-memory or free memory",
                       mib(budget), blocks * b, mib(p->kv_block_bytes), b);
    if (blocks * b < i->ctx) i->ctx = blocks * b;
    if (!o->max_num_seqs) {
        int64_t useful = i->ctx < USEFUL_CTX ? i->ctx : USEFUL_CTX, n = blocks * b / useful;
        if (n < i->max_num_seqs) i->max_num_seqs = n < 1 ? 1 : (int)n;
    }
    i->n_kv_blocks = (int)blocks;
    i->kv_bytes = (int64_t)((uint64_t)blocks * p->kv_block_bytes);
    explain(g, o, available - (uint64_t)p->weight_bytes - p->scratch_bytes, need, wanted_ctx);
    return 0;
}

static int check_options(const engine_options *o, err *e)
{
    if (o->max_model_len < 0 || o->max_num_seqs < 0 || o->max_num_batched_tokens < 0 ||
        o->max_queue < 0)
        return err_set(e, ERR_INVALID,
                       "--max-model-len, --max-num-seqs, --max-num-batched-tokens and "
                       "--max-queue must not be negative");
    if (o->max_num_seqs > 4096)
        return err_set(e, ERR_INVALID, "--max-num-seqs is %d; at most 4096 are supported",
                       o->max_num_seqs);
    if (o->max_num_batched_tokens > ENGINE_MAX_STEP)
        return err_set(e, ERR_INVALID, "--max-num-batched-tokens is %d; at most %d are supported",
                       o->max_num_batched_tokens, ENGINE_MAX_STEP);
    return 0;
}

/* The plan with steps of `batched` tokens. */
static int plan_steps(engine *g, int64_t ctx, int batched, model_plan *p, uint64_t *available,
                      err *e)
{
    engine_info_t *i = &g->info;
    int out = i->max_num_seqs > MIN_OUT ? i->max_num_seqs : MIN_OUT;
    i->max_batched = batched;
    i->ctx = ctx;
    g->mo.ctx = ctx;
    g->mo.max_tok = batched;
    g->mo.max_seqs = i->max_num_seqs;
    g->mo.max_out = out < batched ? out : batched;
    g->mo.no_logits = !g->conf.pool.generates;
    if (g->conf.pool.embeds || g->conf.pool.score) g->mo.max_state = batched;
    return ranks_plan(g->ranks, g->ckpt, &g->mo, p, available, e);
}

/* A model that sees a text in one step: steps of its whole context, halved until the memory does
 * for them; or as the operator says.  The context is what a step holds. */
static int plan_whole_texts(engine *g, bool asked, int64_t ctx, int n, model_plan *p,
                            uint64_t *available, err *e)
{
    int rc;
    for (;; n = n / 2 > FULL_LEAST ? n / 2 : FULL_LEAST) {
        rc = plan_steps(g, ctx < n ? ctx : n, n, p, available, e);
        if (rc || asked || n <= FULL_LEAST) break;
        uint64_t fixed = (uint64_t)p->weight_bytes;
        if (p->scratch_bytes <= (*available > fixed ? *available - fixed : 0) / FULL_SHARE) break;
    }
    g->info.step_bound = !rc && n < ctx;
    if (g->info.step_bound)
        log_warn("the context is cut from %" PRId64 " to %" PRId64
                 " tokens: this model sees a text in one step, and %s; --max-num-batched-tokens "
                 "(at most %d) says how long a text may be",
                 ctx, g->info.ctx,
                 asked                  ? "--max-num-batched-tokens bounds it"
                 : n == ENGINE_MAX_STEP ? "no step is longer"
                                        : "the memory beside the weights bounds that by itself",
                 ENGINE_MAX_STEP);
    return rc;
}

int engine_plan_memory(engine *g, const engine_options *o, err *e)
{
    engine_info_t *i = &g->info;
    int rc = check_options(o, e);
    if (!rc) rc = model_kv_parse(o->kv_dtype, &g->mo.kv, e);
    if (rc) return rc;
    i->kv_dtype = model_kv_name(g->mo.kv);
    i->ctx_train = g->conf.ctx;
    int64_t ctx =
        o->max_model_len && o->max_model_len < g->conf.ctx ? o->max_model_len : g->conf.ctx;
    i->max_num_seqs = o->max_num_seqs    ? o->max_num_seqs
                      : g->be->device[0] ? DEFAULT_SEQS_GPU
                                         : DEFAULT_SEQS;
    int batched = engine_step_tokens(o, &g->conf, ctx, g->be->device[0]);
    g->mo.progress = &g->progress;
    model_plan p;
    uint64_t available;
    rc = g->conf.causal
             ? plan_steps(g, ctx, batched, &p, &available, e)
             : plan_whole_texts(g, o->max_num_batched_tokens, ctx, batched, &p, &available, e);
    if (!rc) rc = fit(g, o, &p, available, e);
    if (rc) return rc;
    i->step_bound = i->step_bound && i->ctx == i->max_batched; /* not by the KV cache */
    i->n_params = p.n_params;
    i->weight_bytes = p.weight_bytes;
    i->kv_block = g->be->kv_block;
    g->scratch_bytes = p.scratch_bytes;
    snprintf(g->quantization, sizeof g->quantization, "%s", p.quantization);
    g->so = (sched_options){.max_seqs = i->max_num_seqs,
                            .max_tok = i->max_batched,
                            .max_out = g->mo.max_out,
                            .kv_block = i->kv_block,
                            .caching = o->prefix_caching && g->conf.causal};
    return 0;
}

static void hash_tensor(XXH3_state_t *h, const ckpt_tensor *t)
{
    XXH3_64bits_update(h, t->name, strlen(t->name));
    XXH3_64bits_update(h, &t->type, sizeof t->type);
    XXH3_64bits_update(h, t->dim, sizeof t->dim);
    /* The whole content would mean reading every weight twice; a few places tell fine-tunes apart.
     */
    if (!t->data) return; /* made up from what was hashed */
    size_t part = t->bytes < 256 ? t->bytes : 256;
    const size_t at[3] = {0, (t->bytes - part) / 2, t->bytes - part};
    for (int k = 0; k < 3; k++) XXH3_64bits_update(h, (const char *)t->data + at[k], part);
}

uint64_t engine_hash_template(const char *text, size_t n, const json *kwargs,
                              const char *tool_format)
{
    buf vars = {0};
    if (kwargs) json_dump(kwargs, &vars);
    if (tool_format && strcmp(tool_format, "auto")) buf_puts(&vars, tool_format);
    uint64_t h = XXH3_64bits_withSeed(buf_str(&vars), vars.len, text ? XXH3_64bits(text, n) : 0);
    buf_clear(&vars);
    return h;
}

uint64_t engine_fingerprint(const engine *g)
{
    XXH3_state_t *h = XXH3_createState();
    if (!h) return 0;
    XXH3_64bits_reset(h);
    for (size_t i = 0; i < checkpoint_n_tensors(g->ckpt); i++)
        hash_tensor(h, checkpoint_tensor_at(g->ckpt, i));
    /* What changes logits beside the weights.  Batch sizes and thread counts do not (rule of bits);
     * the context does, through dynamic NTK. */
    const rope_config *r = &g->conf.rope;
    char text[512];
    int n =
        snprintf(text, sizeof text,
                 "%s %s %s%s %s%s kv=%s ctx=%" PRId64 " rope=%d,%g,%g,%" PRId64 ",%g,%g,%g eps=%g",
                 g->info.backend, g->info.isa, g->info.device, g->info.invariant ? "" : " varies",
                 g->info.arch, g->conf.causal ? "" : " full", g->info.kv_dtype, g->info.ctx,
                 (int)r->kind, r->theta, r->factor, r->original_ctx, r->beta_fast, r->beta_slow,
                 r->attn_factor, g->conf.norm_eps);
    XXH3_64bits_update(h, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    /* Ranks change the order in which products are summed. */
    if (g->info.world > 1) {
        n = snprintf(text, sizeof text, " tp=%d", g->info.world);
        XXH3_64bits_update(h, text, (size_t)n);
    }
    /* What a request that leaves a field out gets instead, and what its messages become. */
    const sampling *s = &g->defaults;
    n = snprintf(text, sizeof text, "%g %g %d %g %g %g %g template=%016" PRIx64, s->temperature,
                 s->top_p, s->top_k, s->min_p, s->presence, s->frequency, s->repetition,
                 g->template_hash);
    XXH3_64bits_update(h, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    size_t n_own = 0;
    const char *own =
        g->tok && g->conf.pool.score ? tokenizer_rerank_template(g->tok, &n_own) : NULL;
    if (own) XXH3_64bits_update(h, own, n_own);
    XXH3_64bits_update(h, g->info.end_id, (size_t)g->info.n_end * sizeof *g->info.end_id);
    uint64_t digest = XXH3_64bits_digest(h);
    XXH3_freeState(h);
    return digest;
}
