/* constrain.c - owns the vocabulary as grammars need it, the thread that lays it out and finishes
 * dear masks, and the jobs of that thread; see constrain.h.
 * Refuses nothing: a grammar that cannot go on ends its choice.  Thread: see constrain.h. */
#include "engine/constrain.h"

#include "base/clock.h"
#include "base/thread.h"
#include "base/utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum {
    FORCED_BYTES = 192,
    STEP_US = 4000,  /* what the masks of a step may cost; the others are made beside the engine */
    DRAFT_TRIAL = 16 /* guesses until a choice that seldom confirms them gets no more */
};

/* A matcher lent to the thread, which takes tokens and finds out what the step would have: whether
 * the text is complete behind them, and if it goes on the mask.  One without a choice is freed. */
struct constrain_job {
    struct constrain_job *next;
    gmatch *match;
    bool drop;                   /* its choice ended before: only to be freed */
    int32_t take[DRAFT_MAX + 1]; /* [n_take] */
    int n_take;
    bool ask;             /* is the text complete? */
    bool last;            /* no further token is wanted */
    const uint32_t *mask; /* found */
    bool done;            /* nothing but the end can follow */
    int rc;
    /* The engine thread's. */
    const grammar *g;
    choice *c; /* NULL: it has ended, the matcher goes with the job */
    struct constrain_job *next_lent;
};
typedef struct constrain_job job;

struct constrainer {
    const sampling_base *base;
    inbox *in;
    pthread_t thread;
    bool started;
    /* The engine thread's. */
    struct constrain_job *lent;               /* all */
    struct constrain_job *ready, *last_ready; /* not yet handed over */
    int64_t spent_us, step_us;                /* in this step; at most so much */
    pthread_mutex_t mu;
    pthread_cond_t work, made;
    /* Under mu. */
    bool stop, laid_out, running;
    int rc;
    err why;
    grammar_vocab *vocab; /* const once laid out */
    job *first, *last;    /* oldest first */
    job *back;            /* finished */
};

/* ---- the thread ------------------------------------------------------------------------------ */

static void free_jobs(job *j)
{
    for (job *next; j; j = next) {
        next = j->next;
        gmatch_free(j->match);
        free(j);
    }
}

static void lay_out(constrainer *k)
{
    const sampling_base *b = k->base;
    grammar_vocab *v = NULL;
    err e = {0};
    int rc = grammar_vocab_new(b->tok, b->n_vocab, b->end_id, b->n_end, &v, &e);
    pthread_mutex_lock(&k->mu);
    k->vocab = v;
    k->rc = rc;
    k->why = e;
    k->laid_out = true;
    pthread_cond_broadcast(&k->made);
    pthread_mutex_unlock(&k->mu);
}

static job *take_job(constrainer *k)
{
    pthread_mutex_lock(&k->mu);
    while (!k->first && !k->stop) pthread_cond_wait(&k->work, &k->mu);
    job *j = k->stop ? NULL : k->first;
    if (j && !(k->first = j->next)) k->last = NULL;
    pthread_mutex_unlock(&k->mu);
    return j;
}

static void give_back(constrainer *k, job *j)
{
    pthread_mutex_lock(&k->mu);
    j->next = k->back;
    k->back = j;
    pthread_mutex_unlock(&k->mu);
    inbox_poke(k->in);
}

static void run_job(job *j)
{
    uint64_t id;
    if (j->drop) {
        gmatch_free(j->match);
        j->match = NULL;
        return;
    }
    for (int i = 0; i < j->n_take && !j->rc; i++) j->rc = gmatch_take(j->match, j->take[i]);
    if (!j->rc && j->ask) j->rc = gmatch_settle(j->match, &j->done);
    if (!j->rc && !j->done && !j->last) j->rc = gmatch_finish(j->match, &j->mask, &id);
}

static void *constrain_main(void *arg)
{
    constrainer *k = arg;
    setpriority(PRIO_PROCESS, 0, 10); /* of this thread, on Linux */
    lay_out(k);
    for (job *j; (j = take_job(k));) {
        run_job(j);
        give_back(k, j);
    }
    return NULL;
}

constrainer *constrainer_new(const sampling_base *b, inbox *in)
{
    constrainer *k = calloc(1, sizeof *k);
    if (!k) return NULL;
    k->base = b;
    k->in = in;
    k->step_us = STEP_US;
    pthread_mutex_init(&k->mu, NULL);
    pthread_cond_init(&k->work, NULL);
    pthread_cond_init(&k->made, NULL);
    return k;
}

int constrainer_start(constrainer *k, err *e)
{
    int rc = thread_start(&k->thread, "the thread of grammars", constrain_main, k, e);
    if (rc) return rc;
    k->started = true;
    pthread_mutex_lock(&k->mu);
    k->running = true;
    pthread_mutex_unlock(&k->mu);
    return 0;
}

void constrainer_stop(constrainer *k)
{
    if (!k || !k->started) return;
    pthread_mutex_lock(&k->mu);
    k->stop = true;
    pthread_cond_broadcast(&k->work);
    pthread_mutex_unlock(&k->mu);
    pthread_join(k->thread, NULL);
    k->started = false;
    free_jobs(k->first);
    free_jobs(k->back);
    free_jobs(k->ready);
    k->first = k->last = k->back = k->ready = k->last_ready = NULL;
}

void constrainer_free(constrainer *k)
{
    if (!k) return;
    constrainer_stop(k);
    grammar_vocab_free(k->vocab);
    pthread_cond_destroy(&k->work);
    pthread_cond_destroy(&k->made);
    pthread_mutex_destroy(&k->mu);
    free(k);
}

void constrainer_limit(constrainer *k, int64_t us)
{
    k->step_us = us;
}

int constrainer_vocab(constrainer *k, const grammar_vocab **v, err *e)
{
    pthread_mutex_lock(&k->mu);
    bool running = k->running;
    while (running && !k->laid_out) pthread_cond_wait(&k->made, &k->mu);
    int rc = running ? k->rc : ERR_BUSY;
    if (rc && e) *e = k->why;
    *v = k->vocab;
    pthread_mutex_unlock(&k->mu);
    return rc;
}

/* ---- choices --------------------------------------------------------------------------------- */

int request_constrain(request *r, grammar *g, const grammar_vocab *v)
{
    const uint32_t *bits;
    uint64_t id;
    r->grammar = grammar_ref(g);
    held_form *first = &r->c[0].form;
    if (!(first->match = gmatch_new(g, v))) return ERR_NOMEM;
    /* The start of a grammar costs most; here it costs the engine nothing. */
    int rc = gmatch_mask(first->match, &bits, &id);
    if (rc == GM_LATER) rc = gmatch_finish(first->match, &bits, &id);
    for (int i = 1; i < r->n && !rc; i++)
        if (!(r->c[i].form.match = gmatch_clone(first->match))) rc = ERR_NOMEM;
    return rc;
}

/* c's matcher goes to the thread at the end of the step. */
static int lend(constrainer *k, choice *c)
{
    job *j = calloc(1, sizeof *j);
    if (!j) return ERR_NOMEM;
    *j = (job){.match = c->form.match, .c = c, .g = c->r->grammar, .next_lent = k->lent};
    k->lent = j;
    if (k->last_ready) k->last_ready->next = j;
    else k->ready = j;
    k->last_ready = j;
    c->form.match = NULL;
    c->form.lent = j;
    c->q.hold = true; /* also behind the last guess that was confirmed */
    return 0;
}

static void hand_over(constrainer *k, job *first, job *last)
{
    pthread_mutex_lock(&k->mu);
    if (k->last) k->last->next = first;
    else k->first = first;
    k->last = last;
    pthread_cond_signal(&k->work);
    pthread_mutex_unlock(&k->mu);
}

void constrain_step(constrainer *k)
{
    if (!k) return;
    k->spent_us = 0;
    if (!k->ready) return;
    for (job *j = k->ready; j; j = j->next) j->last = j->c && j->c->q.n_gen >= j->c->r->max_tokens;
    hand_over(k, k->ready, k->last_ready);
    k->ready = k->last_ready = NULL;
}

/* This step has no time left for grammar g, or the thread is at work on it: asking for more now
 * could mean to wait. */
static bool too_busy(const constrainer *k, const grammar *g)
{
    if (k->spent_us > k->step_us) return true;
    for (const job *j = k->lent; j; j = j->next_lent)
        if (j->g == g) return true;
    return false;
}

int constrain_next(constrainer *k, choice *c)
{
    held_form *f = &c->form;
    uint64_t id;
    if (f->lent) return 0;
    if (too_busy(k, c->r->grammar)) return lend(k, c);
    int64_t from = clock_us();
    int rc = gmatch_mask(f->match, &f->mask[0], &id);
    k->spent_us += clock_us() - from;
    if (rc == GM_LATER) return lend(k, c);
    f->n_mask = rc == 0;
    return rc;
}

static job *take_back(constrainer *k)
{
    pthread_mutex_lock(&k->mu);
    job *j = k->back;
    if (j) k->back = j->next;
    pthread_mutex_unlock(&k->mu);
    job **at = &k->lent;
    while (j && *at != j) at = &(*at)->next_lent;
    if (j) *at = j->next_lent;
    return j;
}

choice *constrain_back(constrainer *k, int *rc, bool *done)
{
    while (k && k->lent) {
        job *j = take_back(k);
        if (!j) return NULL;
        choice *c = j->c;
        if (c) {
            c->form.match = j->match;
            c->form.lent = NULL;
            c->form.mask[0] = j->mask;
            c->form.n_mask = j->mask != NULL;
            c->q.hold = false;
            *rc = j->rc;
            *done = j->done;
        } else {
            gmatch_free(j->match);
        }
        free(j);
        if (c) return c;
    }
    return NULL;
}

bool constrain_waits(const constrainer *k)
{
    return k && k->lent;
}

int constrain_accept(constrainer *k, choice *c, int32_t id)
{
    held_form *f = &c->form;
    f->n_mask = 0;
    if (!f->lent && !too_busy(k, c->r->grammar)) {
        int64_t from = clock_us();
        int rc = gmatch_accept(f->match, id);
        k->spent_us += clock_us() - from;
        if (rc != GM_LATER) return rc;
    }
    if (!f->lent && lend(k, c)) return ERR_NOMEM;
    assert(f->lent->n_take <= DRAFT_MAX);
    f->lent->take[f->lent->n_take++] = id;
    f->lent->ask = true;
    c->q.hold = true;
    return 0;
}

int constrain_done(constrainer *k, choice *c, bool *done)
{
    *done = false;
    if (c->form.lent) return 0; /* was asked with the token */
    int64_t from = clock_us();
    int rc = gmatch_done(c->form.match, done);
    k->spent_us += clock_us() - from;
    if (rc != GM_LATER) return rc;
    if (lend(k, c)) return ERR_NOMEM;
    c->form.lent->ask = true;
    return 0;
}

bool constrain_away(const choice *c)
{
    return c->form.lent;
}

bool constrain_legal(const choice *c, int32_t id)
{
    const held_form *f = &c->form;
    assert(f->n_mask);
    return f->mask[0][id / 32] >> (id % 32) & 1;
}

/* The bytes that must follow, as the tokenizer writes them; whole characters only. */
static int forced_tokens(const choice *c, token_list *out)
{
    uint8_t bytes[FORCED_BYTES];
    int n = gmatch_forced(c->form.match, bytes, sizeof bytes), whole = 0;
    while (whole < n) {
        int k = utf8_valid_at((const char *)bytes + whole, (size_t)(n - whole));
        if (k <= 0) break;
        whole += k;
    }
    if (!whole) return 0;
    return tokenizer_encode(c->r->plan.base->tok, (const char *)bytes, (size_t)whole, false, NULL,
                            0, out, NULL);
}

int constrain_draft(constrainer *k, choice *c, int32_t *tok, int cap)
{
    held_form *f = &c->form;
    token_list list = {0};
    uint64_t id;
    int n = 0;
    if (!f->n_mask || (f->n_guessed >= DRAFT_TRIAL && f->n_right * 2 < f->n_guessed)) return 0;
    if (too_busy(k, c->r->grammar)) return 0;
    int64_t from = clock_us(), left = k->step_us - k->spent_us;
    if (cap > DRAFT_MAX) cap = DRAFT_MAX;
    if (forced_tokens(c, &list)) list.n = 0;
    for (; n < cap && n < (int)list.n && clock_us() - from <= left; n++) {
        if (gmatch_accept(f->match, list.v[n])) break;
        tok[n] = list.v[n];
        if (!gmatch_mask(f->match, &f->mask[n + 1], &id)) continue;
        gmatch_rollback(f->match, 1);
        break;
    }
    gmatch_rollback(f->match, n);
    /* What follows may grow together with the last one, and if nothing follows, there is nothing to
     * be drawn behind it. */
    if (n && n == (int)list.n) n--;
    f->n_mask = n + 1;
    token_list_clear(&list);
    k->spent_us += clock_us() - from;
    return n;
}

void constrain_learn(choice *c, int n, int right)
{
    c->form.n_guessed += n;
    c->form.n_right += right;
}

int constrain_row(choice *c, int ahead, sample_row *row)
{
    held_form *f = &c->form;
    const sample_plan *p = &c->r->plan;
    size_t words = ((size_t)p->base->n_vocab + 31) / 32;
    assert(ahead < f->n_mask); /* never a row of this choice without its mask */
    row->allow = f->mask[ahead];
    if (!p->allow) return 0;
    if (!f->both && !(f->both = malloc((DRAFT_MAX + 1) * words * sizeof *f->both)))
        return ERR_NOMEM;
    uint32_t *both = f->both + (size_t)ahead * words, any = 0;
    for (size_t i = 0; i < words; i++) any |= both[i] = row->allow[i] & p->allow[i];
    if (any) row->allow = both; /* else the grammar wins (G10) */
    return 0;
}

/* Has the thread free a matcher; false without memory. */
static bool drop(constrainer *k, gmatch *m, const grammar *g)
{
    job *j = calloc(1, sizeof *j);
    if (!j) return false;
    *j = (job){.match = m, .drop = true, .g = g, .next_lent = k->lent};
    k->lent = j;
    hand_over(k, j, j);
    return true;
}

void constrain_end(constrainer *k, choice *c)
{
    held_form *f = &c->form;
    if (f->lent) f->lent->c = NULL;
    /* While the thread is at work on this grammar, to free its matcher could mean to wait. */
    if (!k || !f->match || !too_busy(k, c->r->grammar) || !drop(k, f->match, c->r->grammar))
        gmatch_free(f->match);
    free(f->both);
    *f = (held_form){0};
}
