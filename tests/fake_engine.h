/* fake_engine.h - a whole engine around the pseudo-model, requests for it, and what they must draw.
 * Header only: each test is one file. */
#ifndef QUERN_TESTS_FAKE_ENGINE_H
#define QUERN_TESTS_FAKE_ENGINE_H

#include "engine/engine_impl.h"
#include "tests/client.h"
#include "tests/fake_runner.h"

#include <unistd.h>

enum { V = 60, KV = 8, END = 7 };

typedef struct {
    int n_blocks, max_seqs, max_tok, max_queue, fail_after;
    int64_t ctx;
    bool no_caching, priority, full;
    pool_kind pool; /* it gives vectors and scores too */
} setup;

static inline engine *open_fake(setup s)
{
    static const int32_t end_id[1] = {END};
    err e = {0};
    int n_blocks = s.n_blocks ? s.n_blocks : 200;
    engine_options o = {.max_num_seqs = s.max_seqs,
                        .max_num_batched_tokens = s.max_tok,
                        .max_queue = s.max_queue,
                        .prefix_caching = !s.no_caching,
                        .allow_priority = s.priority};
    engine_shape shape = {.n_vocab = V,
                          .kv_block = KV,
                          .n_blocks = n_blocks,
                          .ctx = s.ctx ? s.ctx : 400,
                          .end_id = end_id,
                          .n_end = 1,
                          .hidden = s.pool ? FAKE_HIDDEN : 0,
                          .pool = {.generates = true, .embeds = true, .kind = s.pool}};
    runner *r = fake_runner_new(&(fake_options){
        .n_vocab = V, .kv_block = KV, .n_blocks = n_blocks, .fail_after = s.fail_after});
    engine *g = engine_open_runner(&o, &shape, r, &e);
    if (g) g->conf.causal = !s.full;
    ck_assert_msg(g && engine_load(g, &e) == 0, "%s", e.msg);
    ck_assert_int_eq(engine_status(g), ENGINE_READY);
    return g;
}

static inline int32_t prompt_of(uint32_t seed, int i)
{
    return (int32_t)(mix(seed, (uint64_t)i) % V);
}

/* A greedy request with a prompt of n tokens made from seed; buffers are static per call site. */
static inline request_spec spec_of(const engine *g, uint32_t seed, int n, int64_t max_tokens)
{
    static _Thread_local int32_t prompt[4096];
    for (int i = 0; i < n; i++) prompt[i] = prompt_of(seed, i);
    request_spec s = {
        .prompt = prompt, .n_prompt = n, .n = 1, .s = sampling_default(g), .cache_prompt = true};
    s.s.temperature = 0;
    s.s.max_tokens = max_tokens;
    return s;
}

/* Draws what the engine must draw, from tokens alone; returns how many until end or max. */
static inline int expect(uint32_t seed, int n, int max, bool ignore_end, int32_t *out)
{
    int32_t tok[4096];
    for (int i = 0; i < n; i++) tok[i] = prompt_of(seed, i);
    uint64_t v = fake_value(tok, n);
    for (int k = 0; k < max; k++) {
        int32_t end = END;
        sample_row w = {.n_vocab = V,
                        .forced = -1,
                        .n_top = -1,
                        .repetition = 1,
                        .ban = &end,
                        .n_ban = ignore_end};
        fake_draw(v, &w);
        out[k] = w.id;
        if (w.id == END) return k + 1;
        v = mix(v, (uint64_t)w.id + 1);
    }
    return max;
}

static inline void expect_ids(const answer *a, const int32_t *want, int n)
{
    ck_assert_int_eq(a->n_tok, n);
    for (int i = 0; i < n; i++) ck_assert_int_eq(a->tok[i].id, want[i]);
}

/* Until nothing runs or waits and no block is held. */
static inline void wait_idle(engine *g)
{
    engine_counters k;
    for (int i = 0; i < 50000; i++) {
        engine_stats(g, &k);
        if (k.running + k.waiting + k.kv_used == 0) return;
        usleep(1000);
    }
    ck_abort_msg("%d running, %d waiting, %d KV blocks used after 50 s", k.running, k.waiting,
                 k.kv_used);
}

#endif
