/* pooled.c - see pooled.h.  Owns the pooled, its requests and the document. */
#include "server/pooled.h"

#include "base/clock.h"
#include "server/reply.h"
#include "server/submit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

pooled *pooled_new(reader *r, params *p, const pooled_shape *s, request_want want, int n_item)
{
    pooled *q = calloc(1, sizeof *q);
    pooled_item *item = calloc((size_t)n_item, sizeof *item);
    if (!q || !item) {
        free(q);
        free(item);
        reader_oom(r);
        return NULL;
    }
    *q = (pooled){.a = r->a,
                  .call = r->call,
                  .shape = s,
                  .p = *p,
                  .doc = r->doc,
                  .body = r->body,
                  .want = want,
                  .param = s->param,
                  .item = item,
                  .n_item = n_item,
                  .created = clock_unix()};
    pthread_mutex_init(&q->mu, NULL);
    *p = (params){0};
    r->doc = NULL;
    if (s->id_prefix) reply_id(q->id, sizeof q->id, s->id_prefix);
    return q;
}

void pooled_free(pooled *p)
{
    if (!p) return;
    if (p->shape->drop) p->shape->drop(p);
    for (int i = 0; i < p->n_item; i++) {
        if (p->item[i].req) request_release(p->item[i].req);
        token_list_clear(&p->item[i].ids);
        free(p->item[i].vec);
    }
    free(p->item);
    free(p->own);
    params_clear(&p->p);
    json_free(p->doc);
    pthread_mutex_destroy(&p->mu);
    free(p);
}

/* ---- in and out of the engine ---------------------------------------------------------------- */

static void on_news(void *call)
{
    http_wake(call);
}

static int submit(pooled *p, int i, err *e)
{
    char room[SUBMIT_SALT];
    pooled_item *it = &p->item[i];
    const request_spec spec = {.want = p->want,
                               .dims = p->dims,
                               .goes_on = p->n_done > 0 && p->n_open == 0,
                               .prompt = it->ids.v,
                               .n_prompt = (int)it->ids.n,
                               .n = 1,
                               .think_budget = -1,
                               .priority = p->p.priority,
                               .cache_salt = submit_salt(p->call, p->p.cache_salt, room),
                               .cache_prompt = p->p.cache_prompt,
                               .deadline_us = p->p.deadline_us,
                               .notify = on_news,
                               .notify_arg = p->call,
                               .notify_done_only = true};
    int rc = engine_submit(p->a->eng, &spec, &it->req, NULL, e);
    if (!rc) token_list_clear(&it->ids);
    return rc;
}

/* As many as the engine can use at once.  What it does not take now is tried again when one of ours
 * comes back; if none of ours is there, the error is told. */
static int submit_some(pooled *p, err *e)
{
    int window = engine_info(p->a->eng)->max_num_seqs;
    while (p->n_next < p->n_item && p->n_open < window) {
        int rc = submit(p, p->n_next, e);
        if ((rc == ERR_LIMIT || rc == ERR_SHUTDOWN) && p->n_open) return 0;
        if (rc) return rc;
        p->n_next++;
        p->n_open++;
    }
    return 0;
}

/* Takes what i came to, if it did. */
static void collect(pooled *p, pooled_item *it)
{
    delta *list = request_take(it->req);
    for (delta *d = list; d; d = d->next) {
        if (d->finish == FINISH_ERROR && !p->error) p->error = d->error ? d->error : ERR_DEVICE;
        if (d->finish == FINISH_ABORT && !p->error) p->error = ERR_CANCELLED;
        if (!d->vec) continue;
        it->vec = d->vec;
        it->n_vec = d->n_vec;
        d->vec = NULL;
    }
    delta_free(list);
    if (!request_done(it->req)) return;
    request_stats u = request_usage(it->req);
    if (!p->first_us || u.scheduled_us < p->first_us) p->first_us = u.scheduled_us;
    if (u.finished_us > p->finished_us) p->finished_us = u.finished_us;
    request_release(it->req);
    it->req = NULL;
    p->n_open--;
    p->n_done++;
}

static void cancel_open(pooled *p)
{
    for (int i = p->first; i < p->n_next; i++)
        if (p->item[i].req) request_cancel(p->item[i].req);
}

/* ---- the waiter ------------------------------------------------------------------------------ */

/* Under mu: 0 to go on waiting, 1 when all are back, or an ERR_*. */
static int advance(pooled *p)
{
    err e = {0};
    for (int i = p->first; i < p->n_next; i++)
        if (p->item[i].req) collect(p, &p->item[i]);
    while (p->first < p->n_next && !p->item[p->first].req) p->first++;
    if (!p->error && p->gone) p->error = ERR_CANCELLED;
    if (!p->error) p->error = submit_some(p, &e);
    if (p->error) cancel_open(p);
    return p->error ? p->error : p->n_done == p->n_item;
}

static void on_step(void *ctx, http_call *call, bool tick)
{
    pooled *p = ctx;
    (void)tick;
    pthread_mutex_lock(&p->mu);
    int state = advance(p);
    pthread_mutex_unlock(&p->mu);
    if (state == 1) {
        buf out = {0};
        p->shape->reply(p, &out);
        if (buf_ok(&out)) {
            http_reply(call, 200, "application/json", &out);
            return;
        }
        buf_clear(&out);
        state = ERR_NOMEM;
    }
    if (state) submit_late(call, state);
}

static void on_gone(void *ctx)
{
    pooled *p = ctx;
    pthread_mutex_lock(&p->mu);
    p->gone = true;
    cancel_open(p);
    pthread_mutex_unlock(&p->mu);
}

static void on_release(void *ctx)
{
    pooled *p = ctx;
    int64_t queue_us = p->first_us ? p->first_us - http_arrival_us(p->call) : 0;
    http_spend(p->call, &(http_usage){.queue_us = queue_us});
    pooled_free(p);
}

static const http_waiter waiter = {.step = on_step, .gone = on_gone, .release = on_release};

void pooled_start(pooled *p, reader *r)
{
    const engine_info_t *info = engine_info(p->a->eng);
    err e = {0};
    p->arrival_us = clock_us();
    for (int i = 0; i < p->n_item; i++) {
        p->n_tokens += (int64_t)p->item[i].ids.n;
        if ((int64_t)p->item[i].ids.n <= info->ctx) continue;
        submit_too_long(p->call, p->param, p->listed ? i : -1, (int64_t)p->item[i].ids.n);
        pooled_free(p);
        return;
    }
    pthread_mutex_lock(&p->mu);
    int rc = submit_some(p, &e);
    if (rc) cancel_open(p);
    pthread_mutex_unlock(&p->mu);
    if (rc) {
        submit_failed(p->call, p->param, rc, &e);
        pooled_free(p);
        return;
    }
    params_headers(&p->p, r, 0);
    if (p->n_cut) http_add_header(p->call, "x-quern-truncated", "%lld", (long long)p->n_cut);
    http_spend(p->call, &(http_usage){.prompt = p->n_tokens});
    http_wait(p->call, &waiter, p);
}

/* ---- pieces ---------------------------------------------------------------------------------- */

void pooled_usage(const pooled *p, buf *out)
{
    buf_printf(out, "\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld}",
               (long long)p->n_tokens, (long long)p->n_tokens);
}

void put_vector(const float *v, int n, buf *out)
{
    char t[32];
    buf_putc(out, '[');
    for (int i = 0; i < n; i++) {
        /* Nine digits give the float back: equal bits stay equal text. */
        int len = snprintf(t, sizeof t, i ? ",%.9g" : "%.9g", isfinite(v[i]) ? (double)v[i] : 0.0);
        buf_put(out, t, (size_t)len);
    }
    buf_putc(out, ']');
}
