/* engine_results.c - what comes of a step: tokens, logprobs and pooled states to their choices, and
 * whether they end.  See engine_loop.h.  Owns nothing.  Thread: the engine thread only. */
#include "engine/engine_loop.h"

#include <assert.h>
#include <string.h>

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
        t->call = output_calls(c->out);
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
        stats_observe(&g->stats.ttft, stats_seconds(c->r->st.arrival_us, now));
    } else {
        stats_observe(&g->stats.itl, stats_seconds(c->last_us, now));
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
    if (end.reason != FINISH_NONE) engine_end_choice(g, c, &t, end, now);
    else if (request_publish(c, &t, NULL, now))
        engine_end_choice(g, c, NULL, (ending){FINISH_ERROR, -1, -1, ERR_NOMEM}, now);
}

/* The prompt of c is computed: counters. */
static void observe_prompt(engine *g, choice *c, int64_t now)
{
    if (c->counted) return;
    c->counted = true;
    if (c->index) return;
    stats_add(g->stats.prompt_tokens, (uint64_t)c->q.n_prompt);
    stats_add(g->stats.prompt_computed, (uint64_t)(c->q.n_prompt - c->r->st.n_cached));
    stats_add(g->stats.prompt_seconds, stats_seconds(c->scheduled_us, now));
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
        engine_end_choice(g, c, NULL, (ending){reason, -1, -1, 0}, now);
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

/* A request may be freed with its last choice's end, which takes it out of the step; so first all
 * that ends nothing, then prompt-only requests, then those that drew. */
void engine_take_results(engine *g, step *t, int64_t now)
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
