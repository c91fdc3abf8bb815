/* slots.c - see slots.h.  Owns the table; refuses nothing: there are as many places as sequences
 * may run at once. */
#include "engine/slots.h"

#include <stdlib.h>
#include <string.h>

int slots_init(slots *s, int n)
{
    pthread_mutex_init(&s->mu, NULL);
    s->v = calloc((size_t)n, sizeof *s->v);
    s->holder = calloc((size_t)n, sizeof *s->holder);
    if (!s->v || !s->holder) return ERR_NOMEM;
    s->n = n;
    return 0;
}

void slots_clear(slots *s)
{
    if (s->v || s->holder) pthread_mutex_destroy(&s->mu);
    free(s->v);
    free(s->holder);
    *s = (slots){0};
}

static void vacate(slots *s, int i)
{
    s->holder[i] = NULL;
    s->v[i] = (engine_slot){0};
}

static engine_slot describe(const choice *c)
{
    const seq *q = &c->q;
    int n = q->n_gen - q->n_guess;
    sampling p = c->r->plan.s;
    p.stop = NULL;
    p.stop_len = NULL;
    p.stop_id = p.end_id = p.bias_id = p.allowed = NULL;
    p.bias = NULL;
    p.bad_word = NULL;
    return (engine_slot){.busy = true,
                         .task = q->order,
                         .n_prompt = q->n_prompt,
                         .n_cached = q->n_reused > 0 ? q->n_reused : 0,
                         .n_decoded = n,
                         .n_remain = c->r->max_tokens - n,
                         .s = p};
}

void slots_take(slots *s, choice *c)
{
    int i = 0;
    if (c->slot >= 0 && s->holder[c->slot] == c) return;
    pthread_mutex_lock(&s->mu);
    while (i < s->n && s->holder[i] && s->holder[i]->q.state == SEQ_RUNNING) i++;
    if (i < s->n) {
        s->holder[i] = c;
        s->v[i] = describe(c);
        c->slot = i;
    }
    pthread_mutex_unlock(&s->mu);
}

void slots_leave(slots *s, choice *c)
{
    if (c->slot < 0 || s->holder[c->slot] != c) return;
    pthread_mutex_lock(&s->mu);
    vacate(s, c->slot);
    pthread_mutex_unlock(&s->mu);
}

void slots_refresh(slots *s)
{
    pthread_mutex_lock(&s->mu);
    for (int i = 0; i < s->n; i++) {
        const choice *c = s->holder[i];
        if (c && c->q.state != SEQ_RUNNING) vacate(s, i);
        else if (c) s->v[i] = describe(c);
    }
    pthread_mutex_unlock(&s->mu);
}

void slots_read(slots *s, engine_slot *out)
{
    pthread_mutex_lock(&s->mu);
    memcpy(out, s->v, (size_t)s->n * sizeof *out);
    pthread_mutex_unlock(&s->mu);
}
