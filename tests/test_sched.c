/* test_sched.c - the scheduler with a pseudo-model that verifies paging: plain cases, then a seeded
 * simulation of 100,000 random arrivals with cancels, priorities and tiny pools.  After every step
 * all invariants are checked; every finished sequence must have drawn exactly what its tokens alone
 * determine; at the end every block is back. */
#include "engine/step.h"
#include "tests/fake_runner.h"
#include "tests/quick.h"

#include <check.h>
#include <stdio.h>

enum { V = 50 };

static uint64_t rng_state;
static uint32_t rnd(uint32_t n)
{
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng_state >> 33) % n;
}

/* ---- a small engine: scheduler, step, pseudo-model --------------------------------------------
 */

typedef struct sim_request sim_request;
typedef struct {
    seq q;
    int max_new;
    bool cancelled;
    long arrival, first; /* step numbers */
    sim_request *r;
} sim_seq;

struct sim_request {
    int32_t prompt[160];
    sim_seq *s; /* [n] */
    int n, n_live;
    seq_group group;
    uint64_t *score; /* [n_score] values seen by prompt logprob rows, or NULL */
    int n_score;
    sim_request *next;
};

typedef struct {
    kvpool *pool;
    sched s;
    step t;
    runner *r;
    sim_request *live;
    long now, finished, cancelled, drawn;
    uint64_t order;
    long worst_wait; /* steps between arrival and admission, priority 0 */
} sim;

static void sim_open(sim *m, int n_blocks, const sched_options *o)
{
    memset(m, 0, sizeof *m);
    m->pool = kvpool_new(n_blocks, o->kv_block);
    ck_assert_int_eq(sched_init(&m->s, o, m->pool), 0);
    ck_assert_int_eq(step_init(&m->t, o, n_blocks, 0), 0);
    m->r = fake_runner_new(
        &(fake_options){.n_vocab = V, .kv_block = o->kv_block, .n_blocks = n_blocks});
}

static void sim_close(sim *m)
{
    ck_assert_ptr_null(m->live);
    ck_assert_int_eq(m->s.n_run + m->s.n_waiting, 0);
    ck_assert_int_eq(kvpool_used(m->pool), 0);
    m->r->close(m->r);
    step_clear(&m->t);
    sched_clear(&m->s);
    kvpool_free(m->pool);
}

typedef struct {
    int n_prompt, max_new, n, priority;
    bool score, no_reuse;
    kv_salt salt;
    int alphabet; /* prompts over few tokens share prefixes */
} arrival;

static sim_request *sim_submit(sim *m, const arrival *a)
{
    sim_request *r = calloc(1, sizeof *r);
    r->n = r->n_live = a->n;
    r->s = calloc((size_t)a->n, sizeof *r->s);
    for (int i = 0; i < a->n_prompt; i++) r->prompt[i] = (int32_t)rnd((uint32_t)a->alphabet);
    r->n_score = a->score ? a->n_prompt - 1 : 0;
    r->score = calloc((size_t)r->n_score + 1, sizeof *r->score);
    int cap = sched_blocks(&m->s, a->n_prompt + a->max_new);
    for (int i = 0; i < a->n; i++) {
        sim_seq *x = &r->s[i];
        *x = (sim_seq){.max_new = a->max_new, .arrival = m->now, .first = -1, .r = r};
        x->q = (seq){.prompt = r->prompt,
                     .n_prompt = a->n_prompt,
                     .priority = a->priority,
                     .order = m->order++,
                     .salt = a->salt,
                     .reuse = !a->no_reuse,
                     .draws = a->max_new > 0,
                     .n_score = i ? 0 : r->n_score,
                     .group = a->n > 1 ? &r->group : NULL,
                     .cap_block = cap,
                     .owner = x};
        x->q.gen = calloc((size_t)a->max_new + 1, sizeof(int32_t));
        x->q.block = calloc((size_t)cap, sizeof(int32_t));
    }
    r->group.leader = &r->s[0].q;
    r->group.block = calloc((size_t)cap, sizeof(int32_t));
    for (int i = 0; i < a->n; i++) sched_add(&m->s, &r->s[i].q);
    r->next = m->live;
    m->live = r;
    return r;
}

/* What the sequence must have drawn, from its tokens alone. */
static void verify(const sim_seq *x)
{
    const seq *q = &x->q;
    uint64_t v = fake_value(q->prompt, q->n_prompt);
    for (int i = 0; i < q->n_gen; i++) {
        sample_row w = {.n_vocab = V, .forced = -1, .n_top = -1, .repetition = 1};
        fake_draw(v, &w);
        ck_assert_int_eq(w.id, q->gen[i]);
        v = mix(v, (uint64_t)w.id + 1);
    }
    if (x->cancelled) return;
    ck_assert_int_eq(q->n_gen, x->max_new);
    for (int i = 0; i < q->n_score; i++)
        ck_assert_uint_eq(x->r->score[i], fake_value(q->prompt, i + 1));
}

static void end_seq(sim *m, sim_seq *x, bool cancelled)
{
    x->cancelled = cancelled;
    sched_remove(&m->s, &x->q);
    verify(x);
    if (cancelled) m->cancelled++;
    else m->finished++;
    free(x->q.gen);
    free(x->q.block);
    x->q.gen = x->q.block = NULL;
    x->r->n_live--;
}

static void sweep(sim *m)
{
    for (sim_request **at = &m->live; *at;) {
        sim_request *r = *at;
        if (r->n_live) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        free(r->group.block);
        free(r->score);
        free(r->s);
        free(r);
    }
}

static void check_all(sim *m)
{
    err e = {0};
    ck_assert_msg(sched_check(&m->s, &e) == 0, "step %ld: %s", m->now, e.msg);
}

static bool sim_step(sim *m)
{
    m->now++;
    int n = sched_plan(&m->s);
    check_all(m);
    if (n == 0) {
        ck_assert_int_eq(m->s.n_run + m->s.n_waiting, 0);
        return false;
    }
    step_build(&m->t, m->s.plan, n);
    batch *b = &m->t.b;
    ck_assert_int_le(b->n_tok, m->s.o.max_tok);
    for (int i = 0; i < b->n_out; i++)
        m->t.row[i] = (sample_row){.n_vocab = V, .forced = -1, .n_top = -1, .repetition = 1};
    err e = {0};
    ck_assert_msg(m->r->start(m->r, b, m->t.row, NULL, &e) == 0, "step %ld: %s", m->now, e.msg);
    for (int i = 0; i < n; i++) {
        sim_seq *x = m->s.plan[i]->owner;
        if (x->first < 0) {
            x->first = m->now;
            if (x->q.priority == 0 && m->now - x->arrival > m->worst_wait)
                m->worst_wait = m->now - x->arrival;
        }
        sched_commit(&m->s, &x->q);
    }
    for (int i = 0; i < b->n_out; i++) {
        step_row *o = &m->t.out[i];
        sim_seq *x = o->q->owner;
        if (o->drawing) {
            o->q->gen[o->q->n_gen++] = m->t.row[i].id;
            m->drawn++;
        } else {
            /* The pseudo-model's greedy pick pins down the value well enough. */
            sample_row w = m->t.row[i];
            fake_draw(fake_value(o->q->prompt, o->pos + 1), &w);
            ck_assert_int_eq(w.id, m->t.row[i].id);
            ck_assert_uint_eq(x->r->score[o->pos], 0);
            x->r->score[o->pos] = fake_value(o->q->prompt, o->pos + 1);
        }
    }
    for (sim_request *r = m->live; r; r = r->next)
        for (int i = 0; i < r->n; i++) {
            seq *q = &r->s[i].q;
            if (q->state != SEQ_RUNNING) continue;
            if (q->n_gen == r->s[i].max_new && q->n_cached >= q->n_prompt)
                end_seq(m, &r->s[i], false);
        }
    sweep(m);
    check_all(m);
    return true;
}

static void sim_drain(sim *m)
{
    long bound = m->now + 1000000;
    while (sim_step(m)) ck_assert_int_lt(m->now, bound);
}

/* ---- plain cases ------------------------------------------------------------------------------
 */

START_TEST(one_sequence_any_budget)
{
    static const int budget[4] = {1, 7, 64, 512};
    for (int i = 0; i < 4; i++) {
        sim m;
        sim_open(
            &m, 20,
            &(sched_options){
                .max_seqs = 4, .max_tok = budget[i], .max_out = 4, .kv_block = 8, .caching = true});
        sim_submit(&m, &(arrival){.n_prompt = 100, .max_new = 30, .n = 1, .alphabet = V});
        sim_drain(&m);
        /* Prefill in whole budgets, then a step a token; and the step that finds nothing. */
        ck_assert_int_eq(m.now, (100 + budget[i] - 1) / budget[i] + 29 + 1);
        sim_close(&m);
    }
}
END_TEST

START_TEST(decodes_ride_along_with_a_long_prompt)
{
    sim m;
    sim_open(&m, 200,
             &(sched_options){
                 .max_seqs = 8, .max_tok = 16, .max_out = 8, .kv_block = 8, .caching = true});
    sim_request *r[4];
    for (int i = 0; i < 4; i++)
        r[i] = sim_submit(&m, &(arrival){.n_prompt = 4, .max_new = 40, .n = 1, .alphabet = V});
    sim_step(&m);
    sim_submit(&m, &(arrival){.n_prompt = 150, .max_new = 1, .n = 1, .alphabet = V});
    for (int k = 2; k <= 14; k++) { /* 150 tokens at 12 a step */
        sim_step(&m);
        for (int i = 0; i < 4; i++) ck_assert_int_eq(r[i]->s[0].q.n_gen, k);
        ck_assert_int_eq(m.t.b.n_tok, k < 14 ? 16 : 4 + 150 - 12 * 12);
    }
    sim_drain(&m);
    sim_close(&m);
}
END_TEST

START_TEST(rotation_is_even)
{
    sim m;
    sim_open(&m, 200,
             &(sched_options){
                 .max_seqs = 7, .max_tok = 7, .max_out = 7, .kv_block = 8, .caching = true});
    sim_request *r[7];
    for (int i = 0; i < 7; i++)
        r[i] = sim_submit(&m, &(arrival){.n_prompt = 1, .max_new = 90, .n = 1, .alphabet = V});
    sim_step(&m);
    m.s.o.max_tok = 3; /* all seven decode, three places */
    for (int k = 1; k <= 70; k++) {
        sim_step(&m);
        for (int i = 0; i < 7; i++) {
            int n = r[i]->s[0].q.n_gen - 1;
            ck_assert(n == 3 * k / 7 || n == (3 * k + 6) / 7);
        }
    }
    sim_drain(&m);
    sim_close(&m);
}
END_TEST

START_TEST(a_prefix_is_computed_once)
{
    sim m;
    sim_open(&m, 60,
             &(sched_options){
                 .max_seqs = 4, .max_tok = 512, .max_out = 4, .kv_block = 8, .caching = true});
    long rows, runs;
    int most;
    rng_state = 5;
    sim_submit(&m, &(arrival){.n_prompt = 100, .max_new = 30, .n = 1, .alphabet = V});
    sim_drain(&m);
    rng_state = 5; /* the same prompt again */
    sim_request *r =
        sim_submit(&m, &(arrival){.n_prompt = 100, .max_new = 2, .n = 1, .alphabet = V});
    sim_step(&m);
    ck_assert_int_eq(r->s[0].q.n_reused, 96);
    sim_drain(&m);
    fake_runner_counts(m.r, &rows, &runs, &most);
    ck_assert_int_eq(rows, 129 + 4 + 1);
    rng_state = 5; /* and with reuse refused */
    r = sim_submit(
        &m, &(arrival){.n_prompt = 100, .max_new = 2, .n = 1, .alphabet = V, .no_reuse = true});
    sim_step(&m);
    ck_assert_int_eq(r->s[0].q.n_reused, 0);
    sim_drain(&m);
    rng_state = 5; /* a prompt of whole blocks leaves one block to compute */
    r = sim_submit(&m, &(arrival){.n_prompt = 96, .max_new = 2, .n = 1, .alphabet = V});
    sim_step(&m);
    ck_assert_int_eq(r->s[0].q.n_reused, 88);
    sim_drain(&m);
    rng_state = 5; /* another salt finds nothing */
    r = sim_submit(
        &m, &(arrival){.n_prompt = 96, .max_new = 2, .n = 1, .alphabet = V, .salt = {"k", 1}});
    sim_step(&m);
    ck_assert_int_eq(r->s[0].q.n_reused, 0);
    sim_drain(&m);
    sim_close(&m);
}
END_TEST

START_TEST(choices_share_the_prompt)
{
    for (int caching = 0; caching < 2; caching++) {
        sim m;
        sim_open(
            &m, 80,
            &(sched_options){
                .max_seqs = 8, .max_tok = 32, .max_out = 8, .kv_block = 8, .caching = caching});
        sim_submit(&m, &(arrival){.n_prompt = 100, .max_new = 1, .n = 6, .alphabet = V});
        ck_assert_int_eq(m.s.n_deferred, 5); /* they wait for the first one's prompt */
        sim_drain(&m);
        ck_assert_int_eq(m.s.n_deferred, 0);
        long rows, runs;
        int most;
        fake_runner_counts(m.r, &rows, &runs, &most);
        ck_assert_int_eq(rows, 100 + 5 * 4); /* each other choice computes the tail of 4 */
        sim_close(&m);
    }
}
END_TEST

START_TEST(higher_priority_pushes_out)
{
    sim m;
    sim_open(&m, 32,
             &(sched_options){
                 .max_seqs = 2, .max_tok = 64, .max_out = 2, .kv_block = 8, .caching = true});
    sim_request *low = sim_submit(
        &m, &(arrival){.n_prompt = 60, .max_new = 60, .n = 2, .priority = 5, .alphabet = V});
    for (int i = 0; i < 10; i++) sim_step(&m);
    ck_assert_int_eq(m.s.n_run, 2);
    sim_request *high = sim_submit(
        &m, &(arrival){.n_prompt = 40, .max_new = 5, .n = 1, .priority = 1, .alphabet = V});
    sim_request *same = sim_submit(
        &m, &(arrival){.n_prompt = 40, .max_new = 5, .n = 1, .priority = 5, .alphabet = V});
    sim_step(&m);
    ck_assert_int_eq(high->s[0].q.state, SEQ_RUNNING);
    ck_assert_int_eq(low->s[0].q.state, SEQ_RUNNING); /* the elder stays */
    ck_assert_int_eq(low->s[1].q.n_preempted, 1);
    ck_assert_int_eq(same->s[0].q.state, SEQ_WAITING);
    sim_drain(&m);
    sim_close(&m);
}
END_TEST

/* ---- the simulation ---------------------------------------------------------------------------
 */

typedef struct {
    int n_blocks, kv_block, max_seqs, max_tok, max_out;
    bool caching;
    int arrivals;
} world;

/* Five worlds, 100,000 arrivals: from roomy to a pool that holds barely one sequence. */
static const world worlds[5] = {
    {64, 4, 8, 32, 8, true, 30000},  {12, 4, 6, 16, 6, true, 25000},
    {12, 4, 8, 3, 3, true, 15000},   {40, 2, 16, 9, 16, false, 15000},
    {13, 16, 5, 64, 8, true, 15000},
};

START_TEST(simulation)
{
    const world *w = &worlds[_i];
    static const kv_salt salts[3] = {{NULL, 0}, {"a", 1}, {"bb", 2}};
    rng_state = 977 + (uint64_t)_i;
    sim m;
    sim_open(&m, w->n_blocks,
             &(sched_options){.max_seqs = w->max_seqs,
                              .max_tok = w->max_tok,
                              .max_out = w->max_out,
                              .kv_block = w->kv_block,
                              .caching = w->caching});
    int room = w->n_blocks * w->kv_block;
    int n = 0;
    long submitted = 0;
    const int arrivals = quick() ? w->arrivals / 5 : w->arrivals;
    while (n < arrivals || m.live) {
        /* Bursts and lulls; at most 40 requests wait, as the queue bound would have it. */
        while (n < arrivals && m.s.n_waiting < 40 && rnd(3) == 0) {
            arrival a = {
                .n_prompt = 1 + (int)rnd(30), .max_new = (int)rnd(12), .n = 1, .alphabet = 2};
            if (rnd(20) == 0) a.n_prompt = room < 150 ? room - 20 : 130;
            if (rnd(10) == 0) a.n = 2 + (int)rnd(5);
            if (rnd(8) == 0) a.priority = (int)rnd(5) - 2;
            if (rnd(4) == 0) a.alphabet = V;
            a.score = rnd(12) == 0;
            a.no_reuse = rnd(10) == 0;
            a.salt = salts[rnd(10) < 7 ? 0 : 1 + rnd(2)];
            sim_submit(&m, &a);
            submitted += a.n;
            n++;
        }
        if (m.live && rnd(12) == 0) {
            sim_request *r = m.live;
            for (uint32_t k = rnd(8); k > 0 && r->next; k--) r = r->next;
            for (int i = 0; i < r->n; i++)
                if (r->s[i].q.state != SEQ_ENDED && rnd(4)) end_seq(&m, &r->s[i], true);
            sweep(&m);
            check_all(&m);
        }
        sim_step(&m);
        ck_assert_int_lt(m.now, 3000000);
    }
    ck_assert_int_eq(m.finished + m.cancelled, submitted);
    ck_assert_int_gt(m.cancelled, 100);
    if (w->n_blocks * w->kv_block < 100) ck_assert_uint_gt(m.s.n_preempted, 100);
    /* No starvation: with at most 40 requests (of at most 6 choices) in front, the wait is bounded.
     */
    ck_assert_int_lt(m.worst_wait, 500);
    printf("world %d: %d arrivals, %ld sequences, %ld steps, %ld tokens, %lu preemptions, %ld "
           "cancelled, "
           "longest wait %ld steps\n",
           _i, arrivals, submitted, m.now, m.drawn, (unsigned long)m.s.n_preempted, m.cancelled,
           m.worst_wait);
    sim_close(&m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sched");
    TCase *t = tcase_create("cases");
    tcase_add_test(t, one_sequence_any_budget);
    tcase_add_test(t, decodes_ride_along_with_a_long_prompt);
    tcase_add_test(t, rotation_is_even);
    tcase_add_test(t, a_prefix_is_computed_once);
    tcase_add_test(t, choices_share_the_prompt);
    tcase_add_test(t, higher_priority_pushes_out);
    suite_add_tcase(s, t);
    TCase *w = tcase_create("simulation");
    tcase_set_timeout(w, 60); /* sanitisers and busy machines; it takes a few seconds */
    tcase_add_loop_test(w, simulation, 0, 5);
    suite_add_tcase(s, w);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
