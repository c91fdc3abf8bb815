/* engine_loop.c - the engine thread: inbox -> plan -> step -> runner -> commit -> publish.
 * Owns the scheduler, the pool and every live request while it runs.  Refuses nothing: a request
 * that cannot go on ends with a status of its own; a device fault ends them all and is final.
 * Thread: the engine thread only (engine_fail_all: whoever joined it). */
#include "base/clock.h"
#include "base/log.h"
#include "engine/engine_impl.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* ---- arriving and ending --------------------------------------------------------------------- */

static void unqueue(engine *g, request *r)
{
    if (!r->queued) return;
    r->queued = false;
    inbox_unqueue(g->in);
}

static void list_add(engine *g, request *r)
{
    r->prev = g->last;
    r->next = NULL;
    if (g->last) g->last->next = r;
    else g->first = r;
    g->last = r;
    g->n_live++;
}

/* The last choice ended: the engine lets go of the request. */
static void list_remove(engine *g, request *r)
{
    if (r->prev) r->prev->next = r->next;
    else g->first = r->next;
    if (r->next) r->next->prev = r->prev;
    else g->last = r->prev;
    g->n_live--;
    unqueue(g, r);
    request_detach(r);
    request_put(r);
}

static void accept_requests(engine *g, request *r)
{
    for (request *next; r; r = next) {
        next = r->next;
        list_add(g, r);
        for (int i = 0; i < r->n; i++) {
            r->c[i].q.order = g->order++;
            sched_add(&g->sched, &r->c[i].q);
        }
        if (r->deadline_us && r->deadline_us < g->next_deadline) g->next_deadline = r->deadline_us;
    }
}

static double seconds(int64_t from_us, int64_t to_us)
{
    return (double)(to_us - from_us) * 1e-6;
}

/* Histograms hold sequences that ended by stop or length (API N8). */
static void observe_end(engine *g, const choice *c, int64_t now)
{
    live_stats *s = &g->stats;
    int64_t arrival = c->r->st.arrival_us;
    int64_t first = c->first_us ? c->first_us : now;
    stats_observe(&s->e2e, seconds(arrival, now));
    stats_observe(&s->queue, seconds(arrival, c->scheduled_us));
    stats_observe(&s->inference, seconds(c->scheduled_us, now));
    stats_observe(&s->prefill, seconds(c->scheduled_us, first));
    stats_observe(&s->decode, seconds(first, now));
    stats_observe(&s->prompt_size, c->q.n_prompt);
    stats_observe(&s->generation_size, c->q.n_gen);
    if (c->q.n_gen > 1) stats_observe(&s->token_time, seconds(first, now) / (c->q.n_gen - 1));
}

/* The last choice of a request ended by stop or length. */
static void observe_request(engine *g, const request *r)
{
    live_stats *s = &g->stats;
    int longest = 0;
    for (int i = 0; i < r->n; i++)
        if (r->c[i].q.n_gen > longest) longest = r->c[i].q.n_gen;
    stats_observe(&s->longest, longest);
    stats_observe(&s->n_choice, r->n);
    stats_observe(&s->max_tokens, (double)r->max_tokens);
    stats_observe(&s->computed, r->n_prompt - r->st.n_cached);
}

static void observe_cancel(engine *g, const choice *c)
{
    if (!c->scheduled_us) stats_add(g->stats.cancelled_queued, 1);
    else if (!c->q.n_gen) stats_add(g->stats.cancelled_prefill, 1);
    else stats_add(g->stats.cancelled_decode, 1);
}

/* t: the token that ended it, or NULL.  c->said holds what is to be told. */
static void end_choice(engine *g, choice *c, const token_info *t, ending end, int64_t now)
{
    request *r = c->r;
    if (end.reason == FINISH_STOP || end.reason == FINISH_LENGTH) {
        observe_end(g, c, now);
        if (r->n_live == 1) observe_request(g, r);
    }
    if (end.reason == FINISH_ABORT) observe_cancel(g, c);
    stats_add(g->stats.finished[end.reason], 1);
    if (c->out) stats_add(g->stats.reasoning_tokens, (uint64_t)output_reasoning_tokens(c->out));
    if (c->first_us) stats_add(g->stats.predicted_seconds, seconds(c->first_us, now));
    sched_remove(&g->sched, &c->q);
    for (int i = 0; i < STEPS_OPEN; i++) step_forget(&g->step[i], &c->q);
    slots_leave(&g->slots, c);
    constrain_end(g->forms, c);
    c->live = false;
    request_publish(c, t, &end, now);
    if (--r->n_live == 0) list_remove(g, r);
}

static void end_request(engine *g, request *r, ending end, int64_t now)
{
    int left = r->n_live; /* the last one ended may free r */
    for (int i = 0; left > 0; i++) {
        choice *c = &r->c[i];
        if (!c->live) continue;
        left--;
        said_reset(&c->said);
        if (c->out) output_end(c->out, &c->said);
        end_choice(g, c, NULL, end, now);
    }
}

/* The end of c between tokens. */
static void finish_choice(engine *g, choice *c, ending end, int64_t now)
{
    said_reset(&c->said);
    int decided = c->out ? output_end(c->out, &c->said) : -1;
    if (decided >= 0 && end.reason != FINISH_ERROR) end = (ending){FINISH_STOP, decided, -1, 0};
    end_choice(g, c, NULL, end, now);
}

/* Cancels and deadlines; both are rare, so the list is walked only when there may be one. */
static void sweep(engine *g, bool cancels, int64_t now)
{
    if (!cancels && now < g->next_deadline) return;
    g->next_deadline = INT64_MAX;
    for (request *r = g->first, *next; r; r = next) {
        next = r->next;
        if (atomic_load_explicit(&r->cancelled, memory_order_relaxed))
            end_request(g, r, (ending){FINISH_ABORT, -1, -1, 0}, now);
        else if (r->deadline_us && r->deadline_us <= now)
            end_request(g, r, (ending){FINISH_ERROR, -1, -1, ERR_DEADLINE}, now);
        else if (r->deadline_us && r->deadline_us < g->next_deadline)
            g->next_deadline = r->deadline_us;
    }
}

void engine_fail_all(engine *g, request *fresh, int code)
{
    accept_requests(g, fresh);
    while (g->first) end_request(g, g->first, (ending){FINISH_ERROR, -1, -1, code}, clock_us());
}

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
        if (why != FINISH_NONE) finish_choice(g, c, (ending){why, -1, -1, rc}, now);
    }
    for (request *r = g->last, *before; r && r->fresh; r = before) {
        before = r->prev;
        r->fresh = false;
        if (!r->grammar) continue;
        int left = r->n_live; /* the last one ended may free r */
        for (int i = 0; left > 0; i++, left--)
            if (r->c[i].q.draws && (rc = constrain_next(g->forms, &r->c[i])))
                finish_choice(g, &r->c[i], (ending){FINISH_ERROR, -1, -1, rc}, now);
    }
}

/* ---- one step -------------------------------------------------------------------------------- */

static void mark_scheduled(engine *g, choice *c, int64_t now)
{
    request *r = c->r;
    c->scheduled_us = now;
    if (!r->queued) return; /* another choice was first */
    unqueue(g, r);
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

static void copy_logprobs(token_info *t, const sample_row *row)
{
    t->id = row->id;
    if (row->n_top < 0) return;
    t->logprob = row->logprob;
    t->rank = row->rank;
    t->n_top = row->n_top;
    memcpy(t->top_id, row->top_id, (size_t)row->n_top * sizeof *t->top_id);
    memcpy(t->top_logprob, row->top_logprob, (size_t)row->n_top * sizeof *t->top_logprob);
}

/* Does the n-th generated token end the choice?  A token that ends it by its id is not part of the
 * text. */
static ending feed_token(engine *g, choice *c, int n, token_info *t)
{
    bool done = false;
    const sample_plan *p = &c->r->plan;
    bool late = n > p->s.min_tokens;
    ending end = {FINISH_NONE, -1, -1, 0};
    bool stops_on = n >= p->s.min_tokens;
    /* Under a grammar an end token is drawn only where the answer may, or must, end. */
    bool ends = c->r->grammar || (late && !p->s.ignore_eos);
    bool is_end = ends && sample_plan_is_end(p, t->id);
    bool is_stop = late && sample_plan_is_stop_id(p, t->id);
    t->kind = TOK_MARKUP;
    if (is_end || is_stop) {
        end.reason = FINISH_STOP;
        if (!is_end) end.stop_id = t->id;
    } else if (c->out) {
        end.stop_index = output_feed(c->out, t->id, stops_on, &c->said, &t->kind);
        if (end.stop_index >= 0 || output_wants_end(c->out)) end.reason = FINISH_STOP;
    } else {
        t->kind = TOK_ANSWER;
    }
    if (end.reason == FINISH_NONE && c->r->grammar) {
        int rc = constrain_done(g->forms, c, &done);
        if (rc) return (ending){FINISH_ERROR, -1, -1, rc};
        if (done) end.reason = FINISH_STOP;
    }
    /* Where the matcher is away, only what comes back says whether the last token ends the text. */
    if (end.reason == FINISH_NONE && n >= c->r->max_tokens && !constrain_away(c))
        end.reason = FINISH_LENGTH;
    if (end.reason == FINISH_NONE || !c->out || end.stop_index >= 0) return end;
    /* A stop string that could still have grown into a longer one is decided by the end. */
    int decided = output_end(c->out, &c->said);
    if (decided >= 0) end = (ending){FINISH_STOP, decided, -1, 0};
    return end;
}

static void observe_token(engine *g, choice *c, int len, int64_t now)
{
    stats_add(g->stats.generation_tokens, 1);
    if (!c->first_us) {
        c->first_us = now;
        stats_observe(&g->stats.ttft, seconds(c->r->st.arrival_us, now));
    } else {
        stats_observe(&g->stats.itl, seconds(c->last_us, now));
    }
    c->last_us = now;
    if (len > atomic_load_explicit(&g->stats.n_tokens_max, memory_order_relaxed))
        stats_set(g->stats.n_tokens_max, len);
}

/* Row drew what was guessed for position pos of c, or something else. */
static void learn_guess(choice *c, int pos, const sample_row *row)
{
    int32_t guess = c->q.gen[pos - c->q.n_prompt];
    if (guess < 0) return;
    c->n_confirmed += guess == row->id;
    constrain_learn(c, 1, guess == row->id);
}

/* The token at position pos of q is known.  Whatever was computed behind a wrong guess is void. */
static void settle_token(seq *q, int pos, int32_t id)
{
    int n = pos - q->n_prompt + 1;
    assert(n >= 1 && n <= q->n_gen);
    bool wrong = q->gen[n - 1] >= 0 && q->gen[n - 1] != id;
    q->gen[n - 1] = id;
    if (wrong) q->n_gen = n;
    if (wrong && q->n_cached > pos) q->n_cached = pos;
    q->n_guess = q->n_gen - n;
    if (!q->n_guess) q->hold = false;
}

/* The token at position pos is known now.  The step after may be computing one more of this
 * choice already; if the token ends it, that one is not wanted. */
static void take_token(engine *g, choice *c, int pos, const sample_row *row, int64_t now)
{
    token_info t = {0};
    int n = pos - c->q.n_prompt + 1;
    copy_logprobs(&t, row);
    c->n_forced += row->forced >= 0;
    learn_guess(c, pos, row);
    settle_token(&c->q, pos, row->id);
    observe_token(g, c, pos + 1, now);
    said_reset(&c->said);
    int rc = c->r->grammar ? constrain_accept(g->forms, c, row->id) : 0;
    ending end = feed_token(g, c, n, &t);
    if (!rc) rc = sampler_accept(&c->smp, &c->q, pos, t.kind == TOK_ANSWER);
    if (!rc && !said_ok(&c->said)) rc = ERR_NOMEM;
    if (!rc && c->r->grammar && end.reason == FINISH_NONE) rc = constrain_next(g->forms, c);
    if (rc) end = (ending){FINISH_ERROR, -1, -1, rc};
    if (end.reason != FINISH_NONE) c->q.n_gen = n;
    if (end.reason != FINISH_NONE) end_choice(g, c, &t, end, now);
    else if (request_publish(c, &t, NULL, now))
        end_choice(g, c, NULL, (ending){FINISH_ERROR, -1, -1, ERR_NOMEM}, now);
}

/* The prompt of c is computed: counters. */
static void observe_prompt(engine *g, choice *c, int64_t now)
{
    if (c->counted) return;
    c->counted = true;
    if (c->index) return;
    stats_add(g->stats.prompt_tokens, (uint64_t)c->q.n_prompt);
    stats_add(g->stats.prompt_computed, (uint64_t)(c->q.n_prompt - c->r->st.n_cached));
    stats_add(g->stats.prompt_seconds, seconds(c->scheduled_us, now));
}

/* How far the prompts have come, for those who want to see it. */
static void tell_progress(const step *t, int64_t now)
{
    for (int i = 0; i < t->b.n_seq; i++) {
        const seq *q = t->seqs[i].q;
        const choice *c = q ? q->owner : NULL;
        if (!c || !c->r->progress || c->index || c->counted) continue;
        int n = t->b.ctx_len[i] < q->n_prompt ? t->b.ctx_len[i] : q->n_prompt;
        request_computed(c->r, n, now);
    }
}

/* The states of c's prompt are summed up: what it wanted of them. */
static void take_pooled(engine *g, choice *c, const float *sum)
{
    int n = g->info.hidden;
    float count = c->q.pool == POOL_MEAN ? (float)c->q.n_prompt : 1;
    assert(sum && c->vec);
    for (int i = 0; i < n; i++) c->vec[i] = sum[i] / count;
    if (c->r->want == WANT_SCORE) c->vec[0] = pool_judge_score(&g->judge, c->vec);
    else pool_normalise(c->vec, c->r->n_vec);
}

/* Requests that only wanted their prompt computed, or what it is pooled into. */
static void end_prompt_only(engine *g, const step *t, int64_t now)
{
    for (int i = 0; i < t->b.n_seq; i++) {
        seq *q = t->seqs[i].q;
        if (!q || q->draws || !t->seqs[i].prompt_done) continue;
        choice *c = q->owner;
        said_reset(&c->said);
        if (c->vec) take_pooled(g, c, step_pooled(t, q));
        finish_reason reason = c->vec ? FINISH_STOP : FINISH_LENGTH;
        end_choice(g, c, NULL, (ending){reason, -1, -1, 0}, now);
    }
}

/* Row i drew what was guessed: counted by its place among the rows of its sequence. */
static void observe_guess(engine *g, const step *t, int i)
{
    const seq *q = t->out[i].q;
    int at = t->out[i].pos + 1 - q->n_prompt, place = 0;
    if (q->gen[at] < 0 || q->gen[at] != t->row[i].id) return;
    while (i > place && t->out[i - place - 1].q == q && t->out[i - place - 1].drawing) place++;
    stats_add(g->stats.accepted_tokens, 1);
    stats_add(g->stats.accepted_at[place < DRAFT_MAX ? place : DRAFT_MAX - 1], 1);
}

/* The results of a step.  A request may be freed with its last choice's end, which takes it out of
 * the step; so first all that ends nothing, then prompt-only requests, then those that drew. */
static void take_results(engine *g, step *t, int64_t now)
{
    tell_progress(t, now);
    for (int i = 0; i < t->b.n_seq; i++)
        if (t->seqs[i].q && t->seqs[i].prompt_done) observe_prompt(g, t->seqs[i].q->owner, now);
    for (int i = 0; i < t->b.n_out; i++) {
        if (!t->out[i].q || t->out[i].drawing) continue;
        choice *c = t->out[i].q->owner;
        copy_logprobs(&c->r->prompt_lp[t->out[i].pos + 1], &t->row[i]);
    }
    end_prompt_only(g, t, now);
    int drawn = 0;
    for (int i = 0; i < t->b.n_out; i++) {
        const step_row o = t->out[i];
        if (!o.q || !o.drawing || o.pos + 1 >= seq_len(o.q)) continue; /* behind a wrong guess */
        drawn++;
        observe_guess(g, t, i);
        take_token(g, o.q->owner, o.pos + 1, &t->row[i], now);
    }
    stats_throughput(&g->stats, drawn, now);
    stats_add(g->stats.steps, 1);
    stats_observe(&g->stats.step_tokens, t->b.n_tok);
    if (drawn) {
        stats_add(g->stats.decode_steps, 1);
        stats_add(g->stats.busy_slots, (uint64_t)drawn);
    }
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
        end_request(g, broken->r, (ending){FINISH_ERROR, -1, -1, ERR_NOMEM}, now);
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
    take_results(g, &g->step[g->n_finished++ % STEPS_OPEN], clock_us());
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
        accept_requests(g, news.fresh);
        sweep(g, news.woken, clock_us());
        find_masks(g, clock_us());
        constrain_step(g->forms);
        idle = !(g->n_live || n_open(g)) || !work(g);
    }
    publish_gauges(g);
    return NULL;
}
