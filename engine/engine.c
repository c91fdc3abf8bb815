/* engine.c - the public face: opening, loading, submitting, closing.
 * Owns the engine and everything in it.  Refuses: what the checkpoint readers refuse, models
 * without a tokenizer (except where no text is needed), requests that can never run. Thread: open,
 * load, stop and close by one thread at a time; the rest by any. */
#include "base/clock.h"
#include "base/log.h"
#include "base/file.h"
#include "base/thread.h"
#include "engine/engine_impl.h"
#include "engine/engine_open.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening --------------------------------------------------------------------------------- */

static engine *engine_new(const engine_options *o, err *e)
{
    engine *g = calloc(1, sizeof *g);
    if (g) g->in = inbox_new(o->max_queue > 0 ? o->max_queue : 256);
    if (!g || !g->in) {
        free(g);
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&g->order_mu, NULL);
    g->next_deadline = INT64_MAX;
    g->allow_priority = o->allow_priority;
    g->dump_plan = o->dump_plan;
    atomic_store(&g->beat_us, clock_us());
    return g;
}

/* Options change the checkpoint's configuration before anybody reads it. */
static int open_checkpoint(engine *g, const engine_options *o, err *e)
{
    g->ckpt = engine_checkpoint(o, e);
    if (!g->ckpt) return e ? e->code : ERR_INVALID;
    model_config *c = checkpoint_config_edit(g->ckpt);
    if (!c)
        return err_set(e, ERR_NOTFOUND, "%s has no config.json: it is not a model", o->model_path);
    if (!o->generation_config) {
        /* End tokens stay: they belong to the model, not to its defaults. */
        generation_config bare = {.n_eos = c->gen.n_eos, .pad = c->gen.pad, .bos = c->gen.bos};
        memcpy(bare.eos, c->gen.eos, sizeof bare.eos);
        c->gen = bare;
    }
    int rc = 0;
    if (o->generation_override) rc = model_config_generation_override(c, o->generation_override, e);
    if (!rc && o->rope_scaling) rc = model_config_rope_override(c, o->rope_scaling, e);
    if (!rc) rc = engine_pooling(c, o, e);
    g->conf = *c;
    return rc;
}

static int open_text(engine *g, const engine_options *o, err *e)
{
    checkpoint_text t = checkpoint_text_files(g->ckpt);
    tokenizer_source src;
    bool any = engine_text_source(g->ckpt, &src);
    if (!any && o->allow_no_template) return 0;
    if (!any)
        return err_set(e, ERR_NOTFOUND,
                       "%s has no tokenizer: tokenizer.json, or vocab.json and merges.txt, "
                       "must lie beside config.json",
                       o->model_path);
    if (!(g->tok = tokenizer_open(&src, e))) {
        /* Benchmarks need no text: weights made by a script carry no vocabulary. */
        return o->allow_no_template ? 0 : e ? e->code : ERR_INVALID;
    }
    buf file = {0};
    size_t n = o->chat_template_len;
    const char *text = o->chat_template_text;
    int rc = 0;
    if (!text && t.chat_template) {
        rc = file_read(t.chat_template, 4 << 20, &file, e);
        text = buf_str(&file);
        n = file.len;
    } else if (!text) {
        text = tokenizer_chat_template(g->tok, &n);
    }
    if (!rc) {
        g->chat = chat_format_open(text, n, tokenizer_bos_text(g->tok), tokenizer_eos_text(g->tok),
                                   o->template_kwargs, e);
        g->template_hash = engine_hash_template(text, n, o->template_kwargs, o->tool_format);
        if (!g->chat) rc = e ? e->code : ERR_INVALID;
        else if (!chat_format_use_calls(g->chat, o->tool_format))
            rc = err_set(e, ERR_INVALID, "no such tool format: %s", o->tool_format);
    }
    buf_clear(&file);
    return rc;
}

static void add_end(engine_info_t *i, int32_t id)
{
    if (id < 0 || id >= i->n_vocab) return;
    for (int k = 0; k < i->n_end; k++)
        if (i->end_id[k] == id) return;
    if (i->n_end < (int)(sizeof i->end_id / sizeof *i->end_id)) i->end_id[i->n_end++] = id;
}

/* The union of all that can mean the end (API G9). */
static void find_ends(engine *g)
{
    engine_info_t *i = &g->info;
    for (int k = 0; k < g->conf.gen.n_eos; k++) add_end(i, g->conf.gen.eos[k]);
    if (!g->tok) return;
    add_end(i, tokenizer_eos(g->tok));
    add_end(i, tokenizer_id(g->tok, "<|im_end|>"));
    add_end(i, tokenizer_id(g->tok, "<|endoftext|>"));
}

static sampling neutral(void)
{
    return (sampling){.temperature = 1,
                      .top_p = 1,
                      .repetition = 1,
                      .repeat_last_n = -1,
                      .max_tokens = -1,
                      .n_logprobs = -1,
                      .n_prompt_logprobs = -1};
}

/* Precedence of API G2 below the request: the operator's override is already in conf. */
static void find_defaults(engine *g)
{
    const generation_config *c = &g->conf.gen;
    sampling *s = &g->defaults;
    *s = neutral();
    if (c->has_temperature) s->temperature = (float)c->temperature;
    if (c->has_top_p) s->top_p = (float)c->top_p;
    if (c->has_top_k) s->top_k = (int)c->top_k;
    if (c->has_min_p) s->min_p = (float)c->min_p;
    if (c->has_repetition) s->repetition = (float)c->repetition;
    if (c->has_presence) s->presence = (float)c->presence;
    if (c->has_frequency) s->frequency = (float)c->frequency;
    if (c->has_do_sample && !c->do_sample) s->temperature = 0;
}

static int find_text_end(engine *g, err *e)
{
    engine_info_t *i = &g->info;
    if (!g->tok || !g->conf.pool.embeds) return 0;
    int n =
        pool_text_end(g->ckpt, g->tok, i->text_end, sizeof i->text_end / sizeof *i->text_end, e);
    if (n < 0) return n;
    if (!n && g->conf.pool.end_token)
        log_warn(
            "the vocabulary has no <|endoftext|>: vectors are those of the last token of a text");
    i->n_text_end = n;
    return 0;
}

/* What the model brings to every request, and the rest of info. */
static int describe(engine *g, err *e)
{
    engine_info_t *i = &g->info;
    i->vocab_rows = (int)g->conf.vocab;
    i->n_vocab = i->vocab_rows;
    if (g->tok && tokenizer_n_vocab(g->tok) < i->n_vocab) i->n_vocab = tokenizer_n_vocab(g->tok);
    if (g->tok && tokenizer_n_vocab(g->tok) > i->vocab_rows)
        return err_set(e, ERR_INVALID,
                       "the tokenizer has %d tokens and the model only %d rows: they do not "
                       "belong together",
                       tokenizer_n_vocab(g->tok), i->vocab_rows);
    i->name = g->name;
    i->arch = g->arch;
    i->quantization = g->quantization;
    i->backend = g->be->op->name;
    i->isa = g->be->isa;
    i->device = g->be->device;
    i->invariant = g->be->invariant;
    i->hidden = (int)g->conf.hidden;
    i->layers = (int)g->conf.layers;
    i->threads = g->be->threads;
    i->world = ranks_world(g->ranks);
    i->config = &g->conf;
    i->pool = &g->conf.pool;
    i->tok = g->tok;
    i->chat = g->chat;
    find_ends(g);
    find_defaults(g);
    int rc = find_text_end(g, e);
    return rc ? rc : pool_judge_read(&g->judge, g->ckpt, g->tok, e);
}

static int open_judge_form(engine *g, err *e)
{
    size_t n = 0;
    if (!g->tok || !g->conf.pool.score) return 0;
    const char *own = tokenizer_rerank_template(g->tok, &n);
    g->info.judge = &g->ask;
    return judge_form_open(&g->ask, own, n, e) ? err_prefix(e, "tokenizer.chat_template.rerank")
                                               : 0;
}

/* What any engine needs before its thread starts. */
static int prepare(engine *g, err *e)
{
    engine_info_t *i = &g->info;
    int rc = open_judge_form(g, e);
    if (rc) return rc;
    g->base = (sampling_base){.tok = g->tok,
                              .order = &g->vocab,
                              .n_vocab = i->n_vocab,
                              .end_id = i->end_id,
                              .n_end = i->n_end};
    stats_init(&g->stats, i->ctx);
    stats_set(g->stats.kv_total, i->n_kv_blocks);
    stats_set(g->stats.kv_free, i->n_kv_blocks);
    bool ok = !slots_init(&g->slots, i->max_num_seqs) &&
              (!g->tok || (g->forms = constrainer_new(&g->base, g->in)));
    return ok ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

engine *engine_open(const engine_options *o, err *e)
{
    engine *g = engine_new(o, e);
    if (!g) return NULL;
    checkpoint_name(o->model_path, g->name, sizeof g->name);
    if (open_checkpoint(g, o, e)) goto fail;
    snprintf(g->arch, sizeof g->arch, "%.31s", g->conf.model_type);
    if (!(g->ranks = ranks_open(o, e))) goto fail;
    g->be = ranks_backend(g->ranks);
    g->info.dummy = o->dummy_weights;
    g->info.gguf = checkpoint_gguf(g->ckpt) != NULL;
    if (o->trace_ops && k_trace(g->be, o->trace_ops, e)) goto fail;
    if (engine_plan_memory(g, o, e)) goto fail;
    if (g->mo.kv == KV_Q8_0 && g->conf.qkv_bias)
        log_warn("--kv-cache-dtype q8_0: keys of a model with q/k/v biases lose much of their "
                 "precision in it; f16 is the better choice here");
    if (open_text(g, o, e)) goto fail;
    if (describe(g, e)) goto fail;
    g->info.fingerprint = engine_fingerprint(g); /* replies name it, and the server listens early */
    if (prepare(g, e)) goto fail;
    return g;
fail:
    engine_close(g);
    return NULL;
}

engine *engine_open_runner(const engine_options *o, const engine_shape *shape, runner *run, err *e)
{
    engine *g = engine_new(o, e);
    if (!g) return NULL;
    engine_info_t *i = &g->info;
    *i = (engine_info_t){.name = "fake",
                         .arch = "fake",
                         .ctx = shape->ctx,
                         .n_vocab = shape->n_vocab,
                         .vocab_rows = shape->n_vocab,
                         .kv_block = shape->kv_block,
                         .n_kv_blocks = shape->n_blocks,
                         .tok = shape->tok,
                         .hidden = shape->hidden,
                         .pool = &g->conf.pool,
                         .config = &g->conf};
    g->conf.causal = true;
    g->conf.pool = shape->hidden ? shape->pool : pooling_default();
    for (int k = 0; k < shape->n_end; k++) add_end(i, shape->end_id[k]);
    g->run = run;
    i->max_num_seqs = o->max_num_seqs ? o->max_num_seqs : 8;
    i->max_batched = o->max_num_batched_tokens ? o->max_num_batched_tokens : ENGINE_STEP_HOST;
    int out = i->max_num_seqs > 16 ? i->max_num_seqs : 16;
    g->mo.max_state = shape->hidden ? i->max_batched : 0;
    g->so = (sched_options){.max_seqs = i->max_num_seqs,
                            .max_tok = i->max_batched,
                            .max_out = out < i->max_batched ? out : i->max_batched,
                            .kv_block = shape->kv_block,
                            .caching = o->prefix_caching};
    g->defaults = neutral();
    g->tok = shape->tok;
    int rc = prepare(g, e);
    g->tok = NULL; /* borrowed: not ours to free */
    if (!rc) return g;
    g->run = NULL; /* nor that */
    engine_close(g);
    return NULL;
}

/* ---- loading and closing --------------------------------------------------------------------- */

void engine_enter(engine *g, engine_state to, int refuse)
{
    pthread_mutex_lock(&g->in->mu);
    int now = atomic_load(&g->state);
    bool stays = now == ENGINE_FAILED || (now == ENGINE_DRAINING && to == ENGINE_READY);
    if (!stays) {
        atomic_store(&g->state, (int)to);
        g->in->refuse = refuse;
    }
    pthread_mutex_unlock(&g->in->mu);
}

static int load_model(engine *g, err *e)
{
    int rc = ranks_load(g->ranks, g->ckpt, &g->mo, g->info.n_kv_blocks, e);
    if (rc) return rc;
    g->m = ranks_model(g->ranks);
    checkpoint_close(g->ckpt);
    g->ckpt = NULL;
    if (!(g->run = ranks_runner(g->ranks))) return err_set(e, ERR_NOMEM, "out of memory");
    return 0;
}

/* What happened to a KV block; engine thread. */
static void note_block(void *arg, kv_note what, int64_t us)
{
    engine *g = arg;
    live_histogram *h[] = {[KV_LIFE] = &g->stats.block_life,
                           [KV_IDLE] = &g->stats.block_idle,
                           [KV_GAP] = &g->stats.block_gap};
    stats_observe(h[what], (double)us * 1e-6);
}

int engine_load(engine *g, err *e)
{
    engine_info_t *i = &g->info;
    int rc = g->run ? 0 : load_model(g, e);
    if (rc) return rc;
    g->pool = kvpool_new(i->n_kv_blocks, i->kv_block);
    int longest = (int)((i->ctx + i->kv_block - 1) / i->kv_block);
    if (g->pool) kvpool_watch(g->pool, note_block, g);
    bool bad = !g->pool || sched_init(&g->sched, &g->so, g->pool);
    for (int k = 0; k < STEPS_OPEN && !bad; k++)
        bad = step_init(&g->step[k], &g->so, longest, g->mo.max_state ? g->info.hidden : 0);
    if (bad)
        return err_set(e, ERR_NOMEM, "out of memory for the bookkeeping of %d KV blocks",
                       i->n_kv_blocks);
    atomic_store(&g->beat_us, clock_us());
    if ((rc = thread_start(&g->thread, "the engine thread", engine_loop, g, e))) return rc;
    g->started = true;
    if (g->forms && (rc = constrainer_start(g->forms, e))) return rc;
    atomic_store(&g->progress, 1.0);
    engine_enter(g, ENGINE_READY, 0);
    return 0;
}

void engine_drain(engine *g)
{
    engine_enter(g, ENGINE_DRAINING, ERR_SHUTDOWN);
}

void engine_stop(engine *g)
{
    inbox_stop(g->in);
    if (!g->started) return;
    pthread_join(g->thread, NULL);
    g->started = false;
    constrainer_stop(g->forms);
}

void engine_close(engine *g)
{
    if (!g) return;
    engine_stop(g);
    for (int i = 0; i < STEPS_OPEN; i++) step_clear(&g->step[i]);
    sched_clear(&g->sched);
    kvpool_free(g->pool);
    if (g->run) g->run->close(g->run);
    ranks_close(g->ranks);
    checkpoint_close(g->ckpt);
    chat_format_free(g->chat);
    tokenizer_free(g->tok);
    constrainer_free(g->forms);
    vocab_order_clear(&g->vocab);
    slots_clear(&g->slots);
    pool_judge_clear(&g->judge);
    pthread_mutex_destroy(&g->order_mu);
    inbox_put(g->in);
    free(g);
}

/* ---- looking --------------------------------------------------------------------------------- */

double engine_progress(const engine *g)
{
    return atomic_load(&g->progress);
}

engine_state engine_status(const engine *g)
{
    return (engine_state)atomic_load(&g->state);
}

const char *engine_fault(const engine *g)
{
    return engine_status(g) == ENGINE_FAILED ? g->fault : "";
}

int64_t engine_last_beat_us(const engine *g)
{
    return atomic_load_explicit(&g->beat_us, memory_order_relaxed);
}

const engine_info_t *engine_info(const engine *g)
{
    return &g->info;
}

sampling sampling_default(const engine *g)
{
    return g->defaults;
}

void engine_slots(engine *g, engine_slot *out)
{
    slots_read(&g->slots, out);
}

void engine_stats(const engine *g, engine_counters *out)
{
    stats_read(&g->stats, out);
    out->queue_full = inbox_full(g->in);
}

/* ---- submitting ------------------------------------------------------------------------------ */

static int check_sampling(const sampling *s, err *e)
{
    const float v[] = {s->temperature, s->top_p,    s->min_p,
                       s->repetition,  s->presence, s->frequency};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        if (!isfinite(v[i]))
            return err_set(e, ERR_INVALID, "a sampling parameter is not a finite number");
    if (s->temperature < 0 || s->repetition <= 0)
        return err_set(e, ERR_INVALID,
                       "temperature must be at least 0 and repetition_penalty above 0");
    if (s->n_logprobs < -1 || s->n_logprobs > 20 || s->n_prompt_logprobs < -1 ||
        s->n_prompt_logprobs > 20)
        return err_set(e, ERR_INVALID, "logprobs must be between 0 and 20");
    return 0;
}

static int check_want(const engine *g, const request_spec *spec, err *e)
{
    const pooling *p = g->info.pool;
    if (spec->want == WANT_TOKENS && !p->generates)
        return err_set(e, ERR_UNSUPPORTED, "the model does not generate text");
    if (spec->want == WANT_VECTOR && !p->embeds)
        return err_set(e, ERR_UNSUPPORTED, "the model does not make embeddings");
    if (spec->want == WANT_SCORE && !g->judge.w)
        return err_set(e, ERR_UNSUPPORTED, "the model does not judge documents");
    if (spec->want != WANT_TOKENS && spec->n != 1)
        return err_set(e, ERR_INVALID, "'n' must be 1, got %d", spec->n);
    if (spec->dims < 0 || spec->dims > g->info.hidden)
        return err_set(e, ERR_INVALID, "'dimensions' must be between 1 and %d", g->info.hidden);
    return 0;
}

static int check_spec(const engine *g, const request_spec *spec, err *e)
{
    const engine_info_t *i = &g->info;
    int rc = check_want(g, spec, e);
    if (rc) return rc;
    if (spec->n_prompt < 1) return err_set(e, ERR_INVALID, "the prompt is empty");
    if (spec->n < 1 || spec->n > 128)
        return err_set(e, ERR_INVALID, "'n' must be between 1 and 128, got %d", spec->n);
    if (spec->n_prompt > i->ctx - (spec->s.max_tokens != 0))
        return err_set(e, ERR_INVALID, "the prompt has %d tokens, the context is %" PRId64,
                       spec->n_prompt, i->ctx);
    for (int k = 0; k < spec->n_prompt; k++)
        if (spec->prompt[k] < 0 || spec->prompt[k] >= i->n_vocab)
            return err_set(e, ERR_INVALID, "prompt token %d is %d, the vocabulary has ids 0 to %d",
                           k, spec->prompt[k], i->n_vocab - 1);
    if (spec->s.max_tokens < -1) return err_set(e, ERR_INVALID, "'max_tokens' must be at least -1");
    return check_sampling(&spec->s, e);
}

/* The ordered vocabulary, made when the first request with banned words comes. */
static int need_vocab_order(engine *g, const sampling *s, err *e)
{
    if (s->n_bad_word == 0 || !g->base.tok) return 0;
    pthread_mutex_lock(&g->order_mu);
    int rc = g->vocab_ready ? 0 : vocab_order_init(&g->vocab, g->base.tok, g->base.n_vocab);
    g->vocab_ready = rc == 0;
    pthread_mutex_unlock(&g->order_mu);
    return rc ? err_set(e, rc, "out of memory") : 0;
}

/* The vocabulary as grammars need it; the first request that has one may wait for it. */
static int need_grammar_vocab(engine *g, const grammar_vocab **v, err *e)
{
    *v = NULL;
    if (!g->forms) return err_set(e, ERR_UNSUPPORTED, "a model without a tokenizer has no text");
    int rc = constrainer_vocab(g->forms, v, e);
    return rc && e && !e->code ? err_set(e, rc, "%s", err_words(rc)) : rc;
}

static int refusal(int rc, err *e)
{
    switch (rc) {
    case ERR_LIMIT: return err_set(e, rc, "the queue is full");
    case ERR_BUSY: return err_set(e, rc, "the model is still loading");
    case ERR_SHUTDOWN: return err_set(e, rc, "the server is shutting down");
    case ERR_DEVICE: return err_set(e, rc, "the device failed");
    default: return err_set(e, rc, "%s", err_words(rc));
    }
}

static int reject(engine *g, int rc)
{
    atomic_fetch_add_explicit(&g->stats.rejected, 1, memory_order_relaxed);
    return rc;
}

int engine_submit(engine *g, const request_spec *spec, request **out, int64_t *clamped, err *e)
{
    request_spec own = *spec;
    *out = NULL;
    if (spec->want != WANT_TOKENS) {
        own.s = neutral();
        own.s.max_tokens = 0;
    }
    int rc = check_spec(g, &own, e);
    if (!rc) rc = need_vocab_order(g, &own.s, e);
    if (rc) return rc;
    /* Cheap no before the work of allocating; inbox_submit decides. */
    if (!spec->goes_on && inbox_full(g->in)) return reject(g, refusal(ERR_LIMIT, e));
    int64_t room = g->info.ctx - spec->n_prompt, max = own.s.max_tokens;
    if (max < 0 || max > room) max = room;
    if (max != own.s.max_tokens && own.s.max_tokens >= 0 && clamped) *clamped = max;
    if ((spec->n_prompt + max + g->info.kv_block - 1) / g->info.kv_block > g->info.n_kv_blocks)
        return reject(g, err_set(e, ERR_NOMEM, "%" PRId64 " tokens can never fit into the KV cache",
                                 spec->n_prompt + max));
    if (!g->allow_priority) own.priority = 0;
    request_env env = {.base = &g->base,
                       .in = g->in,
                       .kv_block = g->info.kv_block,
                       .pool = g->info.pool,
                       .hidden = g->info.hidden,
                       .full = !g->conf.causal};
    if (spec->grammar && (rc = need_grammar_vocab(g, &env.vocab, e))) return rc;
    request *r = request_new(&env, &own, max, e);
    if (!r) return e && e->code ? e->code : ERR_NOMEM;
    rc = inbox_submit(g->in, r, spec->goes_on);
    if (rc) {
        request_put(r);
        request_put(r);
        return rc == ERR_LIMIT ? reject(g, refusal(rc, e)) : refusal(rc, e);
    }
    *out = r;
    return 0;
}
