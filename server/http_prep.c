/* http_prep.c - the prep pool: handlers that parse, render and tokenise run here, so that the
 * threads that own many connections never compute for long; and threads of low priority for what
 * handlers defer because it may take seconds.  The queues are bounded by the connections: each has
 * at most one call in them.  Owns the threads and their queues. */
#include "server/http_internal.h"

#include "base/thread.h"

#include <string.h>
#include <sys/resource.h>

static void queue_init(call_queue *q)
{
    pthread_cond_init(&q->cv, NULL);
    q->head = NULL;
    q->tail = &q->head;
}

static bool queue_push(http_server *s, call_queue *q, http_call *c)
{
    c->prep_next = NULL;
    pthread_mutex_lock(&s->prep_mu);
    bool open = !s->prep_closed;
    if (open) {
        *q->tail = c;
        q->tail = &c->prep_next;
        pthread_cond_signal(&q->cv);
    }
    pthread_mutex_unlock(&s->prep_mu);
    return open;
}

/* The next call, NULL once the queue is closed and empty. */
static http_call *queue_take(http_server *s, call_queue *q)
{
    pthread_mutex_lock(&s->prep_mu);
    while (!q->head && !s->prep_closed) pthread_cond_wait(&q->cv, &s->prep_mu);
    http_call *c = q->head;
    if (c) {
        q->head = c->prep_next;
        if (!q->head) q->tail = &q->head;
    }
    pthread_mutex_unlock(&s->prep_mu);
    return c;
}

static void *quick_main(void *v)
{
    http_server *s = v;
    for (http_call *c; (c = queue_take(s, &s->quick));) {
        c->route->fn(c);
        if (c->later && queue_push(s, &s->slow, c)) continue;
        if (c->later) c->later(c, c->later_ctx); /* closing: the reply is still due */
        call_handled(c);
    }
    return NULL;
}

static void *slow_main(void *v)
{
    http_server *s = v;
    setpriority(PRIO_PROCESS, 0, 10); /* of this thread, on Linux */
    for (http_call *c; (c = queue_take(s, &s->slow));) {
        c->later(c, c->later_ctx);
        call_handled(c);
    }
    return NULL;
}

int prep_start(http_server *s, err *e)
{
    pthread_mutex_init(&s->prep_mu, NULL);
    queue_init(&s->quick);
    queue_init(&s->slow);
    s->prep_on = true;
    for (; s->n_prep_on < N_PREP + N_LONG; s->n_prep_on++) {
        int rc = thread_start(&s->prep[s->n_prep_on], "a thread for requests",
                              s->n_prep_on < N_PREP ? quick_main : slow_main, s, e);
        if (rc) return rc;
    }
    return 0;
}

void prep_stop(http_server *s)
{
    if (!s->prep_on) return;
    pthread_mutex_lock(&s->prep_mu);
    s->prep_closed = true;
    pthread_cond_broadcast(&s->quick.cv);
    pthread_cond_broadcast(&s->slow.cv);
    pthread_mutex_unlock(&s->prep_mu);
    while (s->n_prep_on) pthread_join(s->prep[--s->n_prep_on], NULL);
    pthread_cond_destroy(&s->quick.cv);
    pthread_cond_destroy(&s->slow.cv);
    pthread_mutex_destroy(&s->prep_mu);
    s->prep_on = false;
}

bool prep_push(http_server *s, http_call *c)
{
    return queue_push(s, &s->quick, c);
}

void http_defer(http_call *c, void (*fn)(http_call *c, void *ctx), void *ctx)
{
    c->later = fn;
    c->later_ctx = ctx;
}

bool http_left(http_call *c)
{
    pthread_mutex_lock(&c->mu);
    bool left = c->left;
    pthread_mutex_unlock(&c->mu);
    return left;
}
