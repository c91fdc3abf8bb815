/* engine_live.c - the requests that live in the engine: how they arrive and how they end, with what
 * an end is counted as.  See engine_loop.h.  Owns the list of live requests.
 * Thread: the engine thread only (engine_fail_all: whoever joined it). */
#include "base/clock.h"
#include "engine/engine_loop.h"

void engine_unqueue(engine *g, request *r)
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
    engine_unqueue(g, r);
    request_detach(r);
    request_put(r);
}

void engine_accept(engine *g, request *r)
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

/* Histograms hold sequences that ended by stop or length (API N8). */
static void observe_end(engine *g, const choice *c, int64_t now)
{
    live_stats *s = &g->stats;
    int64_t arrival = c->r->st.arrival_us;
    int64_t first = c->first_us ? c->first_us : now;
    stats_observe(&s->e2e, stats_seconds(arrival, now));
    stats_observe(&s->queue, stats_seconds(arrival, c->scheduled_us));
    stats_observe(&s->inference, stats_seconds(c->scheduled_us, now));
    stats_observe(&s->prefill, stats_seconds(c->scheduled_us, first));
    stats_observe(&s->decode, stats_seconds(first, now));
    stats_observe(&s->prompt_size, c->q.n_prompt);
    stats_observe(&s->generation_size, c->q.n_gen);
    if (c->q.n_gen > 1) stats_observe(&s->token_time, stats_seconds(first, now) / (c->q.n_gen - 1));
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

void engine_end_choice(engine *g, choice *c, const token_info *t, ending end, int64_t now)
{
    request *r = c->r;
    if (end.reason == FINISH_STOP || end.reason == FINISH_LENGTH) {
        observe_end(g, c, now);
        if (r->n_live == 1) observe_request(g, r);
    }
    if (end.reason == FINISH_ABORT) observe_cancel(g, c);
    stats_add(g->stats.finished[end.reason], 1);
    if (c->out) stats_add(g->stats.reasoning_tokens, (uint64_t)output_reasoning_tokens(c->out));
    if (c->first_us) stats_add(g->stats.predicted_seconds, stats_seconds(c->first_us, now));
    sched_remove(&g->sched, &c->q);
    for (int i = 0; i < STEPS_OPEN; i++) step_forget(&g->step[i], &c->q);
    slots_leave(&g->slots, c);
    constrain_end(g->forms, c);
    c->live = false;
    request_publish(c, t, &end, now);
    if (--r->n_live == 0) list_remove(g, r);
}

void engine_end_request(engine *g, request *r, ending end, int64_t now)
{
    int left = r->n_live; /* the last one ended may free r */
    for (int i = 0; left > 0; i++) {
        choice *c = &r->c[i];
        if (!c->live) continue;
        left--;
        said_reset(&c->said);
        if (c->out) output_end(c->out, &c->said);
        engine_end_choice(g, c, NULL, end, now);
    }
}

void engine_finish_choice(engine *g, choice *c, ending end, int64_t now)
{
    said_reset(&c->said);
    int decided = c->out ? output_end(c->out, &c->said) : -1;
    if (decided >= 0 && end.reason != FINISH_ERROR) end = (ending){FINISH_STOP, decided, -1, 0};
    engine_end_choice(g, c, NULL, end, now);
}

void engine_sweep(engine *g, bool cancels, int64_t now)
{
    /* Both are rare, so the list is walked only when there may be one. */
    if (!cancels && now < g->next_deadline) return;
    g->next_deadline = INT64_MAX;
    for (request *r = g->first, *next; r; r = next) {
        next = r->next;
        if (atomic_load_explicit(&r->cancelled, memory_order_relaxed))
            engine_end_request(g, r, (ending){FINISH_ABORT, -1, -1, 0}, now);
        else if (r->deadline_us && r->deadline_us <= now)
            engine_end_request(g, r, (ending){FINISH_ERROR, -1, -1, ERR_DEADLINE}, now);
        else if (r->deadline_us && r->deadline_us < g->next_deadline)
            g->next_deadline = r->deadline_us;
    }
}

void engine_fail_all(engine *g, request *fresh, int code)
{
    engine_accept(g, fresh);
    while (g->first)
        engine_end_request(g, g->first, (ending){FINISH_ERROR, -1, -1, code}, clock_us());
}
