/* engine_loop.c - the engine thread: inbox -> plan -> step -> runner -> commit -> publish.  What a
 * step computed is taken in engine_results.c, requests come and go in engine_live.c.
 * Owns the scheduler and the pool while it runs.  Refuses nothing: a request that cannot go on ends
 * with a status of its own; a device fault ends them all and is final.
 * Thread: the engine thread only. */
#include "base/clock.h"
#include "base/log.h"
#include "engine/engine_loop.h"

#include <stdio.h>
#include <string.h>

/* Masks of choices that have none: those that are new, and those whose matcher was away. */
static void find_masks(engine *g, int64_t now)
{
    int rc = 0;
    bool done;
    for (choice *c; (c = constrain_back(g->forms, &rc, &done));) {
        stats_add(g->stats.late_masks, 1);
        finish_reason why = rc                               ? FINISH_ERROR
                            : done                           ? FINISH_STOP
                            : c->q.n_gen >= c->r->max_tokens ? FINISH_LENGTH
                                                             : FINISH_NONE;
        if (why != FINISH_NONE) engine_finish_choice(g, c, (ending){why, -1, -1, rc}, now);
    }
    for (request *r = g->last, *before; r && r->fresh; r = before) {
        before = r->prev;
        r->fresh = false;
        if (!r->grammar) continue;
        int left = r->n_live; /* the last one ended may free r */
        for (int i = 0; left > 0; i++, left--)
            if (r->c[i].q.draws && (rc = constrain_next(g->forms, &r->c[i])))
                engine_finish_choice(g, &r->c[i], (ending){FINISH_ERROR, -1, -1, rc}, now);
    }
}

/* ---- one step -------------------------------------------------------------------------------- */

static void mark_scheduled(engine *g, choice *c, int64_t now)
{
    request *r = c->r;
    c->scheduled_us = now;
    if (!r->queued) return; /* another choice was first */
    engine_unqueue(g, r);
    int hits = c->q.n_reused > 0 ? c->q.n_reused : 0;
    stats_add(g->stats.prefix_queries, (uint64_t)r->n_prompt);
    stats_add(g->stats.prefix_hits, (uint64_t)hits);
    stats_add(g->stats.cached_tokens, (uint64_t)hits);
    request_scheduled(r, c->slot, hits, now);
}

/* The token that must come next because the thought has used up its budget (API R5), or -1.  Where
 * a grammar rules the thought itself, there is no budget. */
static int32_t forced_token(choice *c)
{
    const request *r = c->r;
    if (r->think_budget < 0 || c->n_forced == r->n_think_end) return -1;
    bool due =
        c->out && output_in_reasoning(c->out) && output_reasoning_tokens(c->out) >= r->think_budget;
    if (!c->n_forced && !due) return -1;
    int32_t id = r->think_end[c->n_forced];
    if (!r->grammar || constrain_legal(c, id)) return id;
    c->n_forced = r->n_think_end;
    return -1;
}

/* What each row of logits shall do.  A choice without memory for its row is ended by the caller. */
static int fill_rows(engine *g, step *t, choice **broken)
{
    for (int i = 0; i < t->b.n_out; i++) {
        const step_row *o = &t->out[i];
        choice *c = o->q->owner;
        const sampling *s = &c->r->plan.s;
        sample_row *row = &t->row[i];
        *broken = c;
        if (o->drawing) {
            bool answering = !c->out || !output_in_reasoning(c->out);
            uint64_t key = c->r->choice_base + (uint64_t)c->index;
            if (choice_reserve(c, 1) ||
                sampler_fill(&c->smp, o->q, o->pos + 1, answering, key, row))
                return ERR_NOMEM;
            if (c->r->grammar && constrain_row(c, o->pos - seq_last(o->q), row)) return ERR_NOMEM;
            row->forced = forced_token(c);
        } else {
            *row = (sample_row){.repetition = 1,
                                .top_p = 1,
                                .n_vocab = g->base.n_vocab,
                                .n_top = s->n_prompt_logprobs,
                                .forced = c->r->prompt[o->pos + 1]};
        }
    }
    return 0;
}

static void publish_gauges(engine *g)
{
    live_stats *s = &g->stats;
    slots_refresh(&g->slots);
    stats_set(s->running, g->sched.n_run);
    stats_set(s->waiting, g->sched.n_waiting);
    stats_set(s->deferred, g->sched.n_deferred);
    stats_set(s->kv_used, kvpool_used(g->pool));
    stats_set(s->kv_cached, kvpool_cached(g->pool));
    stats_set(s->kv_free, kvpool_available(g->pool) - kvpool_cached(g->pool));
    stats_set(s->preemptions, g->sched.n_preempted);
}

static void fail(engine *g, const err *e)
{
    g->n_finished = g->n_started; /* nothing more comes of them */
    snprintf(g->fault, sizeof g->fault, "%.199s", e->msg[0] ? e->msg : "device fault");
    log_error("device fault: %s; the engine stops", g->fault);
    engine_enter(g, ENGINE_FAILED, ERR_DEVICE);
    engine_fail_all(g, NULL, ERR_DEVICE);
}

static int n_open(const engine *g)
{
    return (int)(g->n_started - g->n_finished);
}

/* Rows from..to draw for q: what comes last is pending until the step is finished.  Drafts that had
 * no room in the step are gone. */
static void commit_draws(seq *q, const step *t, int from, int to)
{
    choice *c = q->owner;
    c->n_drafted += to - from;
    q->n_gen = t->out[to].pos + 1 - q->n_prompt;
    q->gen[q->n_gen++] = -1 - to;
    q->n_guess += to - from + 1 - q->n_draft;
    q->n_draft = 0;
    bool blind =
        sample_plan_is_blind(&c->r->plan) && c->n_forced == c->r->n_think_end && !c->r->grammar;
    q->hold = to > from || q->n_gen >= c->r->max_tokens || !blind;
}

/* The step is on its way: the next one may take its tokens for computed. */
static void commit_step(engine *g, const step *t)
{
    for (int i = 0; i < t->b.n_seq; i++) sched_commit(&g->sched, t->seqs[i].q);
    for (int i = 0, from; i < t->b.n_out; i++) {
        seq *q = t->out[i].q;
        if (!t->out[i].drawing) continue;
        for (from = i; i + 1 < t->b.n_out && t->out[i + 1].q == q; i++) {
        }
        commit_draws(q, t, from, i);
        if (i > from) {
            stats_add(g->stats.drafts, 1);
            stats_add(g->stats.draft_tokens, (uint64_t)(i - from));
        }
    }
    g->n_started++;
}

static int guess_tokens(engine *g, choice *c, int32_t *tok, int cap)
{
    if (g->draft) return g->draft(g, c, tok, cap);
    return c->r->grammar && !g->no_drafts ? constrain_draft(g->forms, c, tok, cap) : 0;
}

/* Guesses for those that will miss one token, if nothing else depends on which tokens they are. */
static void make_drafts(engine *g)
{
    int32_t tok[DRAFT_MAX];
    for (int i = 0; i < g->sched.n_run; i++) {
        seq *q = g->sched.run[i];
        choice *c = q->owner;
        int64_t room = c->r->max_tokens - q->n_gen - 1;
        int cap = room < DRAFT_MAX ? (int)room : DRAFT_MAX;
        bool ready = q->draws && !q->n_guess && q->n_cached == seq_last(q);
        if (!ready || cap < 1 || !sample_plan_is_blind(&c->r->plan) ||
            c->n_forced < c->r->n_think_end)
            continue;
        int n = guess_tokens(g, c, tok, cap);
        if (!n || choice_reserve(c, n + 1)) continue;
        memcpy(q->gen + q->n_gen, tok, (size_t)n * sizeof *tok);
        q->n_gen += n;
        q->n_guess = q->n_draft = n;
    }
}

static void start_step(engine *g)
{
    kvpool_tell_time(g->pool, clock_us());
    make_drafts(g);
    int n = sched_plan(&g->sched);
    if (!n) return;
    int64_t now = clock_us();
    for (int i = 0; i < n; i++) {
        choice *c = g->sched.plan[i]->owner;
        slots_take(&g->slots, c);
        if (!c->scheduled_us) mark_scheduled(g, c, now);
    }
    step *t = &g->step[g->n_started % STEPS_OPEN];
    step_build(t, g->sched.plan, n);
    const batch *b = &t->b;
    if (g->dump_plan)
        log_info("step: %d tokens of %d sequences, %d rows of logits; %d run, %d wait, %d of %d KV "
                 "blocks available",
                 b->n_tok, b->n_seq, b->n_out, g->sched.n_run, g->sched.n_waiting,
                 kvpool_available(g->pool), kvpool_total(g->pool));
    choice *broken;
    if (fill_rows(g, t, &broken)) {
        /* Nothing was computed: drop the one, plan again without it. */
        sched_drop_plan(&g->sched);
        engine_end_request(g, broken->r, (ending){FINISH_ERROR, -1, -1, ERR_NOMEM}, now);
        return;
    }
    err e = {0};
    publish_gauges(g); /* a request may live for this one step */
    if (g->run->start(g->run, b, t->row, t->pooled, &e)) fail(g, &e);
    else commit_step(g, t);
}

static void finish_step(engine *g)
{
    err e = {0};
    if (g->run->finish && g->run->finish(g->run, &e)) {
        fail(g, &e);
        return;
    }
    engine_take_results(g, &g->step[g->n_finished++ % STEPS_OPEN], clock_us());
}

/* Whether the next step can be planned while the last one runs: not if a sequence that goes on
 * needs its token known for the row that follows; it would only run every other step. */
static bool can_overlap(const engine *g)
{
    const step *t = &g->step[g->n_finished % STEPS_OPEN];
    if (n_open(g) >= g->run->depth || g->draft) return false; /* guesses go on from known tokens */
    for (int i = 0; i < t->b.n_out; i++) {
        const seq *q = t->out[i].q;
        if (!q || !t->out[i].drawing) continue;
        const choice *c = q->owner;
        if (q->hold && q->n_gen < c->r->max_tokens) return false;
    }
    return true;
}

/* Starts a step where one may be started, then waits for the oldest unless that one was the first.
 * False: there was nothing to do. */
static bool work(engine *g)
{
    uint64_t before = g->n_started;
    bool first = n_open(g) == 0;
    if (g->n_live && (first || can_overlap(g))) start_step(g);
    if (engine_status(g) == ENGINE_FAILED) return true;
    bool more = g->n_started > before && n_open(g) < g->run->depth;
    if (n_open(g) && !more) finish_step(g);
    return !first || g->n_started > before;
}

void *engine_loop(void *arg)
{
    engine *g = arg;
    bool idle = false;
    for (;;) {
        bool failed = engine_status(g) == ENGINE_FAILED;
        publish_gauges(g);
        atomic_store_explicit(&g->beat_us, clock_us(), memory_order_relaxed);
        int places = g->so.max_seqs - g->sched.n_run;
        /* With nothing to do but to wait for masks, who makes them wakes us. */
        bool busy = (g->n_live > 0 && !(idle && constrain_waits(g->forms))) || n_open(g) > 0;
        inbox_news news = inbox_drain(g->in, busy, places);
        if (news.stop || failed)
            engine_fail_all(g, news.fresh, news.stop ? ERR_SHUTDOWN : ERR_DEVICE);
        while (news.stop && n_open(g))
            finish_step(g); /* they still write into what is freed next */
        if (news.stop) break;
        if (failed) continue;
        engine_accept(g, news.fresh);
        engine_sweep(g, news.woken, clock_us());
        find_masks(g, clock_us());
        constrain_step(g->forms);
        idle = !(g->n_live || n_open(g)) || !work(g);
    }
    publish_gauges(g);
    return NULL;
}
