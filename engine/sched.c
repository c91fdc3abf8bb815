/* sched.c - owns the lists of running and waiting sequences and every block they hold; see sched.h.
 * Refuses: nothing; the queue bound is kept where requests enter.
 * Thread: the engine thread only. */
#include "engine/sched.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int sched_init(sched *s, const sched_options *o, kvpool *pool)
{
    assert(o->max_seqs >= 1 && o->max_tok >= 1 && o->kv_block >= 1);
    assert(o->max_out >= o->max_seqs || o->max_out >= o->max_tok);
    *s = (sched){.o = *o, .pool = pool};
    size_t n = (size_t)o->max_seqs;
    s->run = calloc(n, sizeof *s->run);
    s->plan = calloc(n, sizeof *s->plan);
    s->turn = calloc(n, sizeof *s->turn);
    s->gather = calloc((size_t)o->kv_block, sizeof *s->gather);
    s->free_place = calloc(n, sizeof *s->free_place);
    for (int i = 0; s->free_place && i < o->max_seqs; i++) s->free_place[i] = i;
    if (s->run && s->plan && s->turn && s->gather && s->free_place) return 0;
    sched_clear(s);
    return ERR_NOMEM;
}

void sched_clear(sched *s)
{
    free(s->run);
    free(s->plan);
    free(s->turn);
    free(s->gather);
    free(s->free_place);
    *s = (sched){0};
}

/* a goes before b. */
static bool before(const seq *a, const seq *b)
{
    return a->priority != b->priority ? a->priority < b->priority : a->order < b->order;
}

/* ---- lists ----------------------------------------------------------------------------------- */

static void wait_insert(sched *s, seq *q)
{
    seq *after = s->last; /* new arrivals go to the end: one comparison */
    while (after && before(q, after)) after = after->prev;
    q->prev = after;
    q->next = after ? after->next : s->first;
    if (q->prev) q->prev->next = q;
    else s->first = q;
    if (q->next) q->next->prev = q;
    else s->last = q;
    q->state = SEQ_WAITING;
    s->n_waiting++;
}

static void wait_remove(sched *s, seq *q)
{
    if (q->prev) q->prev->next = q->next;
    else s->first = q->next;
    if (q->next) q->next->prev = q->prev;
    else s->last = q->prev;
    q->prev = q->next = NULL;
    s->n_waiting--;
}

static void run_remove(sched *s, seq *q)
{
    int i = 0;
    while (s->run[i] != q) i++;
    s->n_run--;
    s->free_place[s->o.max_seqs - s->n_run - 1] = q->place;
    memmove(s->run + i, s->run + i + 1, (size_t)(s->n_run - i) * sizeof *s->run);
}

static void give_blocks(sched *s, seq *q)
{
    kvpool_put(s->pool, q->block, q->n_block);
    q->n_block = q->n_cached = q->n_published = 0;
}

/* ---- groups: choices that share a prompt ----------------------------------------------------- */

static void group_release(sched *s, seq_group *g)
{
    if (!g->n_held) return;
    kvpool_put(s->pool, g->block, g->n_held);
    g->n_held = 0;
    if (g->prev) g->prev->next = g->next;
    else s->holding = g->next;
    if (g->next) g->next->prev = g->prev;
    g->prev = g->next = NULL;
}

/* Followers need not wait for the leader any more. */
static void group_settle(sched *s, seq_group *g)
{
    if (!g->settled) s->n_deferred -= g->n_follow;
    g->settled = true;
}

/* The leader has computed what can be shared: hold it until every follower took it. */
static void group_hand_over(sched *s, seq_group *g)
{
    group_settle(s, g);
    if (g->n_follow == 0 || g->n_share == 0) return;
    for (int i = 0; i < g->n_share; i++) {
        g->block[i] = g->leader->block[i];
        kvpool_share(s->pool, g->block[i]);
    }
    g->n_held = g->n_share;
    g->prev = NULL;
    g->next = s->holding;
    if (g->next) g->next->prev = g;
    s->holding = g;
}

static void group_follower_done(sched *s, seq *q)
{
    if (!q->following) return;
    q->following = false;
    if (!q->group->settled) s->n_deferred--;
    if (--q->group->n_follow == 0) group_release(s, q->group);
}

/* Gives up what is held for followers; they find it in the cache or compute it themselves. */
static bool reclaim_groups(sched *s)
{
    bool any = s->holding != NULL;
    while (s->holding) group_release(s, s->holding);
    return any;
}

/* ---- entering and leaving -------------------------------------------------------------------- */

void sched_add(sched *s, seq *q)
{
    assert(q->state == SEQ_NEW && q->n_prompt >= 1);
    assert(!q->whole || (q->n_prompt <= s->o.max_tok && !q->draws && !q->reuse));
    assert(sched_blocks(s, seq_len(q)) <= q->cap_block && q->cap_block <= kvpool_total(s->pool));
    q->n_reused = -1;
    seq_group *g = q->group;
    if (g && g->leader != q) {
        q->following = true;
        g->n_follow++;
        if (!g->settled) s->n_deferred++;
    } else if (g) {
        g->n_share = (q->n_prompt - 1) / s->o.kv_block;
        g->settled = g->n_share == 0;
    }
    wait_insert(s, q);
}

void sched_remove(sched *s, seq *q)
{
    if (q->state == SEQ_ENDED || q->state == SEQ_NEW) return;
    if (q->state == SEQ_WAITING) wait_remove(s, q);
    else run_remove(s, q);
    give_blocks(s, q);
    q->state = SEQ_ENDED;
    group_follower_done(s, q);
    if (q->group && q->group->leader == q) group_settle(s, q->group);
}

/* Takes a planned sequence out of the step again. */
static void unplan(sched *s, seq *q)
{
    if (!q->n_planned) return;
    s->tok_left += q->n_planned;
    s->out_left += q->n_scoring + q->n_drawing;
    q->n_planned = q->n_scoring = q->n_drawing = 0;
    int i = 0;
    while (s->plan[i] != q) i++;
    s->n_plan--;
    memmove(s->plan + i, s->plan + i + 1, (size_t)(s->n_plan - i) * sizeof *s->plan);
}

static void drop_drafts(seq *q)
{
    q->n_gen -= q->n_draft;
    q->n_guess -= q->n_draft;
    q->n_draft = 0;
}

static void preempt(sched *s, seq *q)
{
    unplan(s, q);
    drop_drafts(q);
    run_remove(s, q);
    give_blocks(s, q);
    q->n_preempted++;
    s->n_preempted++;
    wait_insert(s, q);
}

/* The youngest of the lowest priority. */
static seq *pick_victim(const sched *s)
{
    seq *v = NULL;
    for (int i = 0; i < s->n_run; i++)
        if (!v || before(v, s->run[i])) v = s->run[i];
    return v;
}

/* ---- planning -------------------------------------------------------------------------------- */

/* Rows of logits that draw, if c more tokens of q are computed. */
static int draw_rows(const seq *q, int c)
{
    int n = q->n_cached + c - seq_last(q);
    return q->draws && n > 0 ? n : 0;
}

static int out_rows(const seq *q, int c)
{
    int from = q->n_cached > q->scored ? q->n_cached : q->scored, to = q->n_cached + c;
    if (to > q->n_score) to = q->n_score;
    return (to > from ? to - from : 0) + draw_rows(q, c);
}

/* Puts as many tokens of q into the step as budget and logits allow; false if none. */
static bool plan_tokens(sched *s, seq *q)
{
    int c = seq_len(q) - q->n_cached;
    if (c > s->tok_left) c = s->tok_left;
    while (c > 0 && out_rows(q, c) > s->out_left) c--;
    if (c == 0 || (q->whole && c < seq_len(q) - q->n_cached)) return false;
    q->n_planned = c;
    q->n_drawing = draw_rows(q, c);
    q->n_scoring = out_rows(q, c) - q->n_drawing;
    q->score_from = q->n_cached > q->scored ? q->n_cached : q->scored;
    s->tok_left -= c;
    s->out_left -= q->n_scoring + q->n_drawing;
    s->plan[s->n_plan++] = q;
    return true;
}

static bool is_decode(const seq *q)
{
    return seq_last(q) == q->n_cached && !q->hold;
}

static bool is_prefill(const seq *q)
{
    return seq_last(q) > q->n_cached && !q->hold;
}

/* The blocks for the next positions of q, at somebody's cost if need be (but not for drafts);
 * false: q itself had to go. */
static bool grow(sched *s, seq *q)
{
    while (q->n_block < sched_blocks(s, seq_len(q))) {
        int32_t b = kvpool_take(s->pool);
        if (b >= 0) {
            q->block[q->n_block++] = b;
        } else if (q->n_draft) {
            drop_drafts(q);
        } else if (!reclaim_groups(s)) {
            seq *v = pick_victim(s);
            preempt(s, v);
            if (v == q) return false;
        }
    }
    return true;
}

/* Running sequences that miss one token, least recently served first. */
static void plan_decodes(sched *s)
{
    int n = 0, left = 0;
    for (int i = 0; i < s->n_run; i++)
        if (is_decode(s->run[i])) s->turn[n++] = s->run[i];
    for (int i = 0; i < n; i++) {
        seq *q = s->turn[i];
        if (q->state != SEQ_RUNNING) continue; /* preempted by one before it */
        if (s->tok_left == 0 || !grow(s, q) || !plan_tokens(s, q)) left++;
    }
    if (!left) return;
    /* Not all fitted: who was not served goes in front. */
    int k = 0;
    for (int served = 0; served < 2; served++)
        for (int i = 0; i < s->n_run; i++)
            if ((s->run[i]->n_planned > 0) == served) s->turn[k++] = s->run[i];
    memcpy(s->run, s->turn, (size_t)k * sizeof *s->run);
}

/* Blocks q starts with: its group's, or the longest published prefix. */
static void take_prefix(sched *s, seq *q)
{
    q->n_block = 0;
    if (q->following && q->group->n_held) {
        for (; q->n_block < q->group->n_held; q->n_block++) {
            q->block[q->n_block] = q->group->block[q->n_block];
            kvpool_share(s->pool, q->block[q->n_block]);
        }
        return;
    }
    if (!s->o.caching || !q->reuse) return;
    /* At least one token must be left to compute, and every position still to be scored. */
    int limit = q->scored < q->n_score ? q->scored : seq_len(q) - 1;
    for (int b = s->o.kv_block; (q->n_block + 1) * b <= limit; q->n_block++) {
        for (int i = 0; i < b; i++) s->gather[i] = seq_tok(q, q->n_block * b + i);
        int32_t parent = q->n_block ? q->block[q->n_block - 1] : -1;
        int32_t found = kvpool_find(s->pool, parent, q->salt, s->gather);
        if (found < 0) return;
        q->block[q->n_block] = found;
    }
}

/* Makes lower priorities let go until need blocks are available, if that can be enough. */
static bool push_out(sched *s, const seq *q, int need)
{
    int lower = 0;
    for (int i = 0; i < s->n_run; i++)
        if (s->run[i]->priority > q->priority) lower += s->run[i]->n_block;
    if (lower == 0 || lower + kvpool_available(s->pool) < need) return false;
    while (kvpool_available(s->pool) < need) {
        seq *v = pick_victim(s);
        if (!v || v->priority <= q->priority) return false;
        preempt(s, v);
    }
    return true;
}

/* Are need blocks available for q, if others can be made to let go of some? */
static bool make_room(sched *s, const seq *q, int need)
{
    /* A little air, so that the running ones' next blocks do not push q out at once. */
    int air = s->n_run ? kvpool_total(s->pool) / 64 : 0;
    if (kvpool_available(s->pool) >= need + air || push_out(s, q, need)) return true;
    if (s->n_run) return false;
    /* With nobody running only groups can be in the way; q is first in order and must get in. */
    reclaim_groups(s);
    return true;
}

/* A waiting sequence gets a place and all blocks of its known tokens, or nothing. */
static bool admit(sched *s, seq *q)
{
    /* Nothing came free since the last try.  (With nobody running the try always succeeds.) */
    if (s->n_run && q->stuck == kvpool_epoch(s->pool) + 1) return false;
    if (s->n_run == s->o.max_seqs) {
        seq *v = pick_victim(s);
        if (v->priority <= q->priority) return false;
        preempt(s, v);
    }
    take_prefix(s, q);
    int total = sched_blocks(s, seq_len(q)), need = total - q->n_block;
    if (!make_room(s, q, need)) {
        give_blocks(s, q);
        q->stuck = kvpool_epoch(s->pool) + 1;
        return false;
    }
    q->n_published = q->n_block;
    q->n_cached = q->n_block * s->o.kv_block;
    if (q->n_reused < 0) q->n_reused = q->following ? 0 : q->n_cached;
    for (; q->n_block < total; q->n_block++) {
        q->block[q->n_block] = kvpool_take(s->pool);
        assert(q->block[q->n_block] >= 0);
    }
    wait_remove(s, q);
    q->state = SEQ_RUNNING;
    q->place = s->free_place[s->o.max_seqs - s->n_run - 1];
    s->run[s->n_run++] = q;
    group_follower_done(s, q);
    return true;
}

/* First in order among running sequences that miss more than one token and are not yet planned. */
static seq *next_prefill(const sched *s)
{
    seq *best = NULL;
    for (int i = 0; i < s->n_run; i++) {
        seq *q = s->run[i];
        if (q->n_planned == 0 && is_prefill(q) && (!best || before(q, best))) best = q;
    }
    return best;
}

/* The first of q and those behind it that may be admitted. */
static seq *skip_unready(seq *q)
{
    while (q && (q->hold || (q->following && !q->group->settled))) q = q->next;
    return q;
}

/* Prompts, running and waiting merged in order, until the budget is spent. */
static void plan_prefills(sched *s, bool may_admit)
{
    seq *w = may_admit ? skip_unready(s->first) : NULL;
    while (s->tok_left > 0) {
        seq *r = next_prefill(s);
        if (!r && !w) return;
        if (r && (!w || before(r, w))) {
            if (!plan_tokens(s, r)) return; /* logits rows are used up */
            continue;
        }
        seq *next = w->next;
        if (!admit(s, w)) {
            w = NULL; /* nobody overtakes the first who waits */
            continue;
        }
        if (!plan_tokens(s, w)) return;
        w = skip_unready(next);
    }
}

int sched_plan(sched *s)
{
    s->n_plan = 0;
    s->tok_left = s->o.max_tok;
    s->out_left = s->o.max_out;
    uint64_t preempted = s->n_preempted;
    plan_decodes(s);
    plan_prefills(s, s->n_preempted == preempted);
    return s->n_plan;
}

void sched_drop_plan(sched *s)
{
    while (s->n_plan) unplan(s, s->plan[s->n_plan - 1]);
}

/* ---- after the step -------------------------------------------------------------------------- */

static void publish_full(sched *s, seq *q)
{
    for (int b = s->o.kv_block; (q->n_published + 1) * b <= q->n_cached; q->n_published++) {
        int k = q->n_published;
        if ((k + 1) * b > seq_len(q) - q->n_guess) return;
        for (int i = 0; i < b; i++) s->gather[i] = seq_tok(q, k * b + i);
        bool done;
        q->block[k] = kvpool_publish(s->pool, q->block[k], k ? q->block[k - 1] : -1, q->salt,
                                     s->gather, &done);
        if (!done) return;
    }
}

void sched_commit(sched *s, seq *q)
{
    q->n_cached += q->n_planned;
    if (q->n_scoring) q->scored = q->score_from + q->n_scoring;
    q->n_planned = q->n_scoring = q->n_drawing = 0;
    if (s->o.caching) publish_full(s, q);
    seq_group *g = q->group;
    if (g && g->leader == q && !g->settled && q->n_cached >= g->n_share * s->o.kv_block)
        group_hand_over(s, g);
}

/* ---- integrity ------------------------------------------------------------------------------- */

static int check_running(const sched *s, const seq *q, err *e)
{
    if (q->state != SEQ_RUNNING)
        return err_set(e, ERR_FORMAT, "a running sequence is in state %d", q->state);
    if (q->n_cached >= seq_len(q) && q->draws)
        return err_set(e, ERR_FORMAT, "a running sequence has nothing to compute");
    if (q->n_block < sched_blocks(s, q->n_cached) || q->n_block > q->cap_block)
        return err_set(e, ERR_FORMAT, "%d blocks for %d positions (at most %d)", q->n_block,
                       q->n_cached, q->cap_block);
    if (q->n_published * s->o.kv_block > q->n_cached)
        return err_set(e, ERR_FORMAT, "a block was published before it was computed");
    return 0;
}

int sched_check(const sched *s, err *e)
{
    int32_t *refs = calloc((size_t)kvpool_total(s->pool), sizeof *refs);
    if (!refs) return err_set(e, ERR_NOMEM, "out of memory");
    int rc = 0, n = 0, deferred = 0;
    if (s->n_run > s->o.max_seqs) rc = err_set(e, ERR_FORMAT, "%d sequences run", s->n_run);
    for (int i = 0; i < s->n_run && !rc; i++) {
        const seq *q = s->run[i];
        rc = check_running(s, q, e);
        for (int k = 0; k < q->n_block; k++) refs[q->block[k]]++;
    }
    for (const seq *q = s->first; q && !rc; q = q->next, n++) {
        deferred += q->following && !q->group->settled;
        if (q->state != SEQ_WAITING || q->n_block || q->n_cached)
            rc = err_set(e, ERR_FORMAT, "a waiting sequence holds blocks");
        else if (q->next && !before(q, q->next))
            rc = err_set(e, ERR_FORMAT, "the waiting list is out of order");
    }
    if (!rc && n != s->n_waiting)
        rc = err_set(e, ERR_FORMAT, "%d wait, %d counted", n, s->n_waiting);
    if (!rc && deferred != s->n_deferred)
        rc = err_set(e, ERR_FORMAT, "%d are deferred, %d counted", deferred, s->n_deferred);
    for (const seq_group *g = s->holding; g && !rc; g = g->next) {
        if (!g->n_follow || !g->settled)
            rc = err_set(e, ERR_FORMAT, "a group holds blocks for nobody");
        for (int k = 0; k < g->n_held; k++) refs[g->block[k]]++;
    }
    if (!rc) rc = kvpool_check(s->pool, refs, e);
    free(refs);
    return rc;
}
