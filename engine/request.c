/* request.c - owns requests, their outboxes and the inbox; see request.h.
 * Refuses: submits beyond the queue bound, or while the engine does not take any.
 * Thread: any; engine-side calls say so in request.h. */
#include "engine/request.h"
#include "base/clock.h"
#include "engine/constrain.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- inbox ----------------------------------------------------------------------------------- */

inbox *inbox_new(int queue_limit)
{
    inbox *b = calloc(1, sizeof *b);
    if (!b) return NULL;
    atomic_init(&b->refs, 1);
    b->queue_limit = queue_limit;
    b->refuse = ERR_BUSY;
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_mutex_init(&b->mu, NULL);
    pthread_cond_init(&b->wake, &a);
    pthread_condattr_destroy(&a);
    return b;
}

void inbox_take(inbox *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
}

void inbox_put(inbox *b)
{
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1) return;
    pthread_cond_destroy(&b->wake);
    pthread_mutex_destroy(&b->mu);
    free(b);
}

int inbox_submit(inbox *b, request *r, bool goes_on)
{
    pthread_mutex_lock(&b->mu);
    int rc = b->refuse;
    if (!rc && !goes_on && b->queued >= b->queue_limit + b->places) rc = ERR_LIMIT;
    if (rc == ERR_SHUTDOWN && goes_on && !b->stop) rc = 0;
    if (!rc) {
        b->queued++;
        r->queued = true;
        r->next = NULL;
        if (b->last) b->last->next = r;
        else b->first = r;
        b->last = r;
        pthread_cond_signal(&b->wake);
    }
    pthread_mutex_unlock(&b->mu);
    return rc;
}

void inbox_poke(inbox *b)
{
    pthread_mutex_lock(&b->mu);
    b->woken = true;
    pthread_cond_signal(&b->wake);
    pthread_mutex_unlock(&b->mu);
}

void inbox_refuse(inbox *b, int code)
{
    pthread_mutex_lock(&b->mu);
    b->refuse = code;
    pthread_mutex_unlock(&b->mu);
}

void inbox_stop(inbox *b)
{
    pthread_mutex_lock(&b->mu);
    b->stop = true;
    b->refuse = ERR_SHUTDOWN;
    pthread_cond_signal(&b->wake);
    pthread_mutex_unlock(&b->mu);
}

void inbox_unqueue(inbox *b)
{
    pthread_mutex_lock(&b->mu);
    b->queued--;
    pthread_mutex_unlock(&b->mu);
}

bool inbox_full(inbox *b)
{
    pthread_mutex_lock(&b->mu);
    bool full = b->queued >= b->queue_limit + b->places;
    pthread_mutex_unlock(&b->mu);
    return full;
}

inbox_news inbox_drain(inbox *b, bool busy, int places)
{
    pthread_mutex_lock(&b->mu);
    b->places = places;
    if (!busy && !b->first && !b->woken && !b->stop) {
        int64_t until = clock_us() + 1000000;
        struct timespec t = {.tv_sec = until / 1000000, .tv_nsec = until % 1000000 * 1000};
        pthread_cond_timedwait(&b->wake, &b->mu, &t);
    }
    inbox_news news = {b->first, b->woken, b->stop};
    b->first = b->last = NULL;
    b->woken = false;
    pthread_mutex_unlock(&b->mu);
    return news;
}

/* ---- request --------------------------------------------------------------------------------- */

static pool_kind pool_of(const request_env *env, request_want want)
{
    return want == WANT_TOKENS ? POOL_NONE : want == WANT_SCORE ? POOL_LAST : env->pool->kind;
}

static int choice_init(choice *c, request *r, int index, const request_env *env,
                       const request_spec *spec)
{
    int longest = spec->n_prompt + (int)r->max_tokens;
    int blocks = (longest + env->kv_block - 1) / env->kv_block;
    c->r = r;
    c->index = index;
    c->slot = -1;
    c->live = true;
    c->q = (seq){.prompt = r->prompt,
                 .n_prompt = r->n_prompt,
                 .priority = spec->priority,
                 .salt = {r->salt, r->salt ? strlen(r->salt) : 0},
                 .reuse = spec->cache_prompt,
                 .draws = r->max_tokens > 0,
                 .pool = pool_of(env, r->want),
                 .whole = env->full,
                 .n_score = index == 0 && spec->s.n_prompt_logprobs >= 0 ? r->n_prompt - 1 : 0,
                 .group = r->n > 1 ? &r->group : NULL,
                 .cap_block = blocks,
                 .owner = c};
    c->q.block = malloc((size_t)blocks * sizeof *c->q.block);
    c->spare = calloc(1, sizeof *c->spare);
    if (!c->q.block || !c->spare || sampler_init(&c->smp, &r->plan, &c->q)) return ERR_NOMEM;
    /* All states are needed where all are summed up, and found blocks have none. */
    if (c->q.whole || (c->q.pool != POOL_NONE && c->q.pool != POOL_LAST)) c->q.reuse = false;
    if (r->n_vec && !(c->vec = malloc((size_t)env->hidden * sizeof *c->vec))) return ERR_NOMEM;
    if (!env->base->tok || r->n_vec) return 0;
    const sampling *s = &r->plan.s;
    c->out = output_new(&(output_options){.tok = env->base->tok,
                                          .think = spec->think,
                                          .place = spec->thoughts,
                                          .stop = s->stop,
                                          .stop_len = s->stop_len,
                                          .n_stop = s->n_stop,
                                          .include_stop = s->include_stop,
                                          .keep_special = s->keep_special,
                                          .calls = spec->calls,
                                          .tools = r->tools,
                                          .one_call = spec->one_call,
                                          .after_label = spec->after_label});
    return c->out ? 0 : ERR_NOMEM;
}

static int request_fill(request *r, const request_env *env, const request_spec *spec)
{
    r->prompt = malloc((size_t)r->n_prompt * sizeof *r->prompt);
    r->c = calloc((size_t)r->n, sizeof *r->c);
    if (!r->prompt || !r->c) return ERR_NOMEM;
    memcpy(r->prompt, spec->prompt, (size_t)r->n_prompt * sizeof *r->prompt);
    if (spec->calls != CALLS_NONE) r->tools = call_tools_take(spec->tools);
    r->think_budget = spec->n_think_end ? spec->think_budget : -1;
    if (r->think_budget >= 0) {
        r->n_think_end = spec->n_think_end;
        r->think_end = malloc((size_t)r->n_think_end * sizeof *r->think_end);
        if (!r->think_end) return ERR_NOMEM;
        memcpy(r->think_end, spec->think_end, (size_t)r->n_think_end * sizeof *r->think_end);
    }
    if (spec->cache_salt && !(r->salt = strdup(spec->cache_salt))) return ERR_NOMEM;
    if (spec->s.n_prompt_logprobs >= 0) {
        r->prompt_lp = calloc((size_t)r->n_prompt, sizeof *r->prompt_lp);
        if (!r->prompt_lp) return ERR_NOMEM;
        r->prompt_lp[0] = (token_info){.id = r->prompt[0]};
        r->held = r->n > 1; /* other choices may draw before all of it is scored */
    }
    if (r->n > 1) {
        r->group.leader = &r->c[0].q;
        r->group.block = malloc((size_t)(r->n_prompt / env->kv_block + 1) * sizeof *r->group.block);
        if (!r->group.block) return ERR_NOMEM;
    }
    for (int i = 0; i < r->n; i++) {
        int rc = choice_init(&r->c[i], r, i, env, spec);
        if (rc) return rc;
    }
    return 0;
}

static int hold_to(request *r, grammar *g, const grammar_vocab *v, err *e)
{
    int rc = request_constrain(r, g, v);
    if (rc != ERR_LIMIT) return rc ? err_set(e, rc, "out of memory") : 0;
    return err_set(e, ERR_UNSUPPORTED,
                   "its first token needs more work or nesting than one token may cost");
}

request *request_new(const request_env *env, const request_spec *spec, int64_t max_tokens, err *e)
{
    request *r = calloc(1, sizeof *r);
    if (!r) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    atomic_init(&r->refs, 1);
    pthread_mutex_init(&r->mu, NULL);
    pthread_cond_init(&r->quiet, NULL);
    r->in = env->in;
    inbox_take(r->in);
    r->fresh = true;
    r->n = r->n_live = spec->n;
    r->n_prompt = spec->n_prompt;
    r->max_tokens = max_tokens;
    r->deadline_us = spec->deadline_us;
    r->want = spec->want;
    if (r->want == WANT_SCORE) r->n_vec = 1;
    if (r->want == WANT_VECTOR) r->n_vec = spec->dims ? spec->dims : env->hidden;
    r->choice_base = spec->choice_base;
    r->notify = spec->notify;
    r->notify_arg = spec->notify_arg;
    r->notify_done_only = spec->notify_done_only;
    r->progress = spec->progress;
    r->st = (request_stats){.n_prompt = spec->n_prompt, .slot = -1, .arrival_us = clock_us()};
    int rc = sample_plan_init(&r->plan, &spec->s, env->base, e);
    if (!rc && (rc = request_fill(r, env, spec))) err_set(e, rc, "out of memory");
    if (!rc && spec->grammar) rc = hold_to(r, spec->grammar, env->vocab, e);
    if (rc) {
        request_put(r);
        return NULL;
    }
    atomic_store(&r->refs, 2);
    return r;
}

void request_detach(request *r)
{
    for (int i = 0; r->c && i < r->n; i++) {
        choice *c = &r->c[i];
        output_free(c->out);
        c->out = NULL;
        sampler_clear(&c->smp);
        constrain_end(NULL, c);
        free(c->q.gen);
        free(c->q.block);
        c->q.gen = c->q.block = NULL;
        free(c->spare);
        c->spare = NULL;
        free(c->vec);
        c->vec = NULL;
        said_clear(&c->said);
    }
    sample_plan_clear(&r->plan);
    call_tools_put(r->tools);
    r->tools = NULL;
    grammar_release(r->grammar);
    r->grammar = NULL;
    free(r->think_end);
    r->think_end = NULL;
    free(r->group.block);
    r->group.block = NULL;
    free(r->prompt_lp);
    r->prompt_lp = NULL;
}

void request_put(request *r)
{
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1) return;
    request_detach(r);
    delta_free(r->first);
    free(r->c);
    free(r->prompt);
    free(r->salt);
    pthread_cond_destroy(&r->quiet);
    pthread_mutex_destroy(&r->mu);
    inbox_put(r->in);
    free(r);
}

int choice_reserve(choice *c, int n)
{
    if (c->q.n_gen + n <= c->cap_gen) return 0;
    int cap = 2 * (c->q.n_gen + n) + 64;
    int32_t *gen = realloc(c->q.gen, (size_t)cap * sizeof *gen);
    if (!gen) return ERR_NOMEM;
    c->q.gen = gen;
    c->cap_gen = cap;
    return 0;
}

void request_cancel(request *r)
{
    if (!atomic_exchange_explicit(&r->cancelled, true, memory_order_relaxed)) inbox_poke(r->in);
}

void request_release(request *r)
{
    if (!r) return;
    pthread_mutex_lock(&r->mu);
    r->released = true;
    /* After this call the caller's notify_arg may be gone. */
    while (r->notifying) pthread_cond_wait(&r->quiet, &r->mu);
    bool ended = r->st.finished_us != 0;
    pthread_mutex_unlock(&r->mu);
    if (!ended) request_cancel(r);
    request_put(r);
}

/* ---- outbox ---------------------------------------------------------------------------------- */

static void delta_clear(delta *d)
{
    free(d->tok);
    said_clear(&d->said);
    free(d->prompt);
    free(d->vec);
}

void delta_free(delta *d)
{
    while (d) {
        delta *next = d->next;
        delta_clear(d);
        free(d);
        d = next;
    }
}

/* tok[] of a delta doubles: its capacity is the next power of two of n_tok. */
static int delta_add_token(delta *d, const token_info *t)
{
    if ((d->n_tok & (d->n_tok - 1)) == 0) {
        size_t cap = d->n_tok ? 2 * (size_t)d->n_tok : 1;
        token_info *tok = realloc(d->tok, cap * sizeof *tok);
        if (!tok) return ERR_NOMEM;
        d->tok = tok;
    }
    d->tok[d->n_tok++] = *t;
    return 0;
}

/* Adds what c has at hand to d; d is as before if memory runs out. */
static int delta_add(delta *d, const choice *c, const token_info *t)
{
    if (t && delta_add_token(d, t)) return ERR_NOMEM;
    if (!said_join(&d->said, &c->said)) {
        d->n_tok -= t != NULL;
        return ERR_NOMEM;
    }
    if (c->index == 0 && c->r->prompt_lp && c->q.scored == c->q.n_score) {
        d->prompt = c->r->prompt_lp;
        d->n_prompt_lp = c->r->n_prompt;
        c->r->prompt_lp = NULL;
    }
    return 0;
}

/* A result is told with a good end. */
static void delta_result(delta *d, choice *c, const ending *end)
{
    if (!end || end->reason != FINISH_STOP || !c->vec) return;
    d->vec = c->vec;
    d->n_vec = c->r->n_vec;
    c->vec = NULL;
}

/* At the end, but for the prompt's logprobs. */
static void outbox_add(request *r, delta *d, const choice *c)
{
    bool front = d->prompt || !r->first;
    d->index = c->index;
    d->stop_index = d->stop_id = -1;
    d->next = front ? r->first : NULL;
    if (front) r->first = d;
    else r->last->next = d;
    if (!d->next) r->last = d;
}

static void delta_end(delta *d, const ending *end)
{
    d->finish = end->reason;
    d->stop_index = end->stop_index;
    d->stop_id = end->stop_id;
    d->error = end->error;
}

/* Under r->mu. */
static int outbox_put(choice *c, const token_info *t, const ending *end)
{
    request *r = c->r;
    /* A reader that lags gets one delta instead of many. */
    delta *d = r->last;
    bool join = d && d->index == c->index && d->finish == FINISH_NONE;
    if (!join) {
        d = end ? c->spare : calloc(1, sizeof *d);
        if (!d) return ERR_NOMEM;
        if (end) c->spare = NULL;
    }
    int rc = delta_add(d, c, t);
    if (rc && !end) {
        if (!join) delta_free(d);
        return rc;
    }
    if (!join) outbox_add(r, d, c);
    if (d->prompt || (end && !c->index)) r->held = false;
    if (rc) delta_end(d, &(ending){FINISH_ERROR, -1, -1, rc});
    else if (end) delta_end(d, end);
    if (!rc) delta_result(d, c, end);
    return 0;
}

static void count_usage(choice *c, const token_info *t, const ending *end, int64_t now_us)
{
    request_stats *st = &c->r->st;
    if (t) {
        st->n_generated++;
        if (!st->first_token_us) st->first_token_us = now_us;
    }
    if (c->out) {
        int n = output_reasoning_tokens(c->out);
        st->n_reasoning += n - c->n_reasoned;
        c->n_reasoned = n;
    }
    st->n_draft += c->n_drafted - c->n_told;
    st->n_draft_accepted += c->n_confirmed - c->n_told_right;
    c->n_told = c->n_drafted;
    c->n_told_right = c->n_confirmed;
    if (end && c->r->n_live == 1) st->finished_us = now_us;
}

/* The notify of a request is called without its lock, and never after request_release returned. */
static void wake_reader(request *r)
{
    r->notify(r->notify_arg);
    pthread_mutex_lock(&r->mu);
    r->notifying = false;
    pthread_cond_broadcast(&r->quiet);
    pthread_mutex_unlock(&r->mu);
}

int request_publish(choice *c, const token_info *t, const ending *end, int64_t now_us)
{
    request *r = c->r;
    pthread_mutex_lock(&r->mu);
    bool fresh = r->first == NULL || r->held;
    int rc = outbox_put(c, t, end);
    if (!rc) count_usage(c, t, end, now_us);
    bool news = r->notify_done_only ? end && r->n_live == 1 : fresh && !r->held;
    bool call = !rc && news && r->notify && !r->released;
    r->notifying = call;
    pthread_mutex_unlock(&r->mu);
    if (call) wake_reader(r);
    return rc;
}

void request_scheduled(request *r, int slot, int n_cached, int64_t now_us)
{
    pthread_mutex_lock(&r->mu);
    r->st.scheduled = true;
    r->st.scheduled_us = now_us;
    r->st.slot = slot;
    r->st.n_cached = r->st.n_computed = n_cached;
    pthread_mutex_unlock(&r->mu);
    /* An empty delta wakes a reader that waits for the status line (API H13).  Prompt logprobs are
     * promised with the first delta, which then does so. */
    if (!r->prompt_lp && !r->notify_done_only) request_publish(&r->c[0], NULL, NULL, now_us);
}

void request_computed(request *r, int n, int64_t now_us)
{
    pthread_mutex_lock(&r->mu);
    bool more = n > r->st.n_computed;
    if (more) r->st.n_computed = n;
    pthread_mutex_unlock(&r->mu);
    /* News that get lost for want of memory come with the next. */
    if (more && !r->prompt_lp) request_publish(&r->c[0], NULL, NULL, now_us);
}

delta *request_take(request *r)
{
    pthread_mutex_lock(&r->mu);
    delta *d = r->held ? NULL : r->first;
    if (d) r->first = r->last = NULL;
    for (const delta *i = d; i; i = i->next) r->n_taken_ends += i->finish != FINISH_NONE;
    pthread_mutex_unlock(&r->mu);
    return d;
}

bool request_done(const request *r)
{
    pthread_mutex_t *mu = (pthread_mutex_t *)&r->mu;
    pthread_mutex_lock(mu);
    bool done = r->n_taken_ends == r->n;
    pthread_mutex_unlock(mu);
    return done;
}

request_stats request_usage(const request *r)
{
    pthread_mutex_t *mu = (pthread_mutex_t *)&r->mu;
    pthread_mutex_lock(mu);
    request_stats st = r->st;
    pthread_mutex_unlock(mu);
    return st;
}
