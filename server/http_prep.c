/* http_prep.c - the prep pool: handlers that parse, render and tokenise run here, so that the
 * threads that own many connections never compute for long.  The queue is bounded by the
 * connections: each has at most one call in it. Owns the prep threads and their queue. */
#include "server/http_internal.h"

#include <errno.h>
#include <string.h>

static void *prep_main(void *v)
{
    http_server *s = v;
    for (;;) {
        pthread_mutex_lock(&s->prep_mu);
        while (!s->prep_head && !s->prep_closed) pthread_cond_wait(&s->prep_cv, &s->prep_mu);
        http_call *c = s->prep_head;
        if (c) {
            s->prep_head = c->prep_next;
            if (!s->prep_head) s->prep_tail = &s->prep_head;
        }
        pthread_mutex_unlock(&s->prep_mu);
        if (!c) return NULL;
        c->route->fn(c);
        pthread_mutex_lock(&c->mu);
        c->phase = CALL_WAIT;
        pthread_mutex_unlock(&c->mu);
        call_wake(c, WAKE_NEWS);
    }
}

int prep_start(http_server *s, err *e)
{
    pthread_mutex_init(&s->prep_mu, NULL);
    pthread_cond_init(&s->prep_cv, NULL);
    s->prep_tail = &s->prep_head;
    for (; s->n_prep_on < N_PREP; s->n_prep_on++)
        if (pthread_create(&s->prep[s->n_prep_on], NULL, prep_main, s))
            return err_set(e, ERR_NOMEM, "cannot start a thread: %s", strerror(errno));
    return 0;
}

void prep_stop(http_server *s)
{
    if (!s->prep_tail) return;
    pthread_mutex_lock(&s->prep_mu);
    s->prep_closed = true;
    pthread_cond_broadcast(&s->prep_cv);
    pthread_mutex_unlock(&s->prep_mu);
    while (s->n_prep_on) pthread_join(s->prep[--s->n_prep_on], NULL);
    pthread_cond_destroy(&s->prep_cv);
    pthread_mutex_destroy(&s->prep_mu);
    s->prep_tail = NULL;
}

bool prep_push(http_server *s, http_call *c)
{
    c->prep_next = NULL;
    pthread_mutex_lock(&s->prep_mu);
    bool open = !s->prep_closed;
    if (open) {
        *s->prep_tail = c;
        s->prep_tail = &c->prep_next;
        pthread_cond_signal(&s->prep_cv);
    }
    pthread_mutex_unlock(&s->prep_mu);
    return open;
}
