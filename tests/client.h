/* client.h - a caller of the engine for tests: submits, waits by notify, keeps all that came out.
 * Header only: each test is one file. */
#ifndef QUERN_TESTS_CLIENT_H
#define QUERN_TESTS_CLIENT_H

#include "engine/engine.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One choice's whole answer. */
typedef struct {
    token_info *tok; /* [n_tok] */
    int n_tok;
    buf content, reasoning;
    finish_reason finish;
    int stop_index, error;
    int32_t stop_id;
} answer;

typedef struct {
    request *r;
    pthread_mutex_t mu;
    pthread_cond_t wake;
    int n_notified; /* under mu */
    bool ready;     /* under mu */
    answer *a;      /* [n] */
    int n, n_deltas;
    token_info *prompt; /* [n_prompt] or NULL */
    float *vec;         /* [n_vec] or NULL */
    int n_vec;
    int n_prompt;
    request_stats st; /* at the end */
} client;

static inline void client_notify(void *arg)
{
    client *c = arg;
    pthread_mutex_lock(&c->mu);
    c->ready = true;
    c->n_notified++;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->mu);
}

static inline int client_submit(client *c, engine *g, request_spec spec, int64_t *clamped, err *e)
{
    *c = (client){.n = spec.n};
    pthread_mutex_init(&c->mu, NULL);
    pthread_cond_init(&c->wake, NULL);
    c->a = calloc((size_t)(spec.n > 0 ? spec.n : 1), sizeof *c->a);
    spec.notify = client_notify;
    spec.notify_arg = c;
    return engine_submit(g, &spec, &c->r, clamped, e);
}

static inline void client_keep(client *c, delta *list)
{
    for (delta *d = list; d; d = d->next) {
        ck_assert_int_lt(d->index, c->n);
        answer *a = &c->a[d->index];
        ck_assert_int_eq(a->finish, FINISH_NONE); /* nothing after the end */
        c->n_deltas++;
        if (d->n_tok) {
            a->tok = realloc(a->tok, (size_t)(a->n_tok + d->n_tok) * sizeof *a->tok);
            memcpy(a->tok + a->n_tok, d->tok, (size_t)d->n_tok * sizeof *a->tok);
            a->n_tok += d->n_tok;
        }
        said_copy(&d->said, SAID_ANSWER, &a->content);
        said_copy(&d->said, SAID_THOUGHT, &a->reasoning);
        a->finish = d->finish;
        a->stop_index = d->stop_index;
        a->stop_id = d->stop_id;
        a->error = d->error;
        if (d->vec) {
            ck_assert(!c->vec && d->finish == FINISH_STOP);
            c->vec = d->vec;
            c->n_vec = d->n_vec;
            d->vec = NULL;
        }
        if (d->prompt) {
            ck_assert_ptr_null(c->prompt);
            ck_assert_int_eq(d->index, 0);
            c->prompt = d->prompt;
            c->n_prompt = d->n_prompt_lp;
            d->prompt = NULL;
        }
    }
    delta_free(list);
}

/* Takes until every choice ended; fails after 60 s. */
static inline void client_wait(client *c)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 60;
    while (!request_done(c->r)) {
        pthread_mutex_lock(&c->mu);
        while (!c->ready)
            ck_assert_msg(!pthread_cond_clockwait(&c->wake, &c->mu, CLOCK_MONOTONIC, &until),
                          "no answer in 60 s");
        c->ready = false;
        pthread_mutex_unlock(&c->mu);
        client_keep(c, request_take(c->r));
    }
    c->st = request_usage(c->r);
}

static inline void client_clear(client *c)
{
    request_release(c->r);
    for (int i = 0; c->a && i < c->n; i++) {
        free(c->a[i].tok);
        buf_clear(&c->a[i].content);
        buf_clear(&c->a[i].reasoning);
    }
    free(c->a);
    free(c->prompt);
    free(c->vec);
    pthread_cond_destroy(&c->wake);
    pthread_mutex_destroy(&c->mu);
    *c = (client){0};
}

/* Submits, waits. */
static inline void client_run(client *c, engine *g, request_spec spec)
{
    err e = {0};
    ck_assert_msg(client_submit(c, g, spec, NULL, &e) == 0, "%s", e.msg);
    client_wait(c);
}

#endif
