/* test_engine_life.c - comings and goings: cancels, deadlines, the queue bound, priorities,
 * draining, stopping, device faults, idleness, and a storm of calling threads; over the
 * pseudo-model. */
#include "base/clock.h"
#include "base/sysinfo.h"
#include "tests/fake_engine.h"

START_TEST(cancel_frees_the_place)
{
    fake_gate_set(true);
    engine *g = open_fake((setup){.max_seqs = 2});
    client c[4];
    err e = {0};
    for (int i = 0; i < 4; i++) {
        request_spec s = spec_of(g, (uint32_t)i, 20, 300);
        s.s.ignore_eos = true;
        ck_assert_int_eq(client_submit(&c[i], g, s, NULL, &e), 0);
    }
    fake_gate_steps(8);
    request_cancel(c[3].r); /* still waiting */
    request_cancel(c[0].r); /* decoding */
    request_cancel(c[0].r);
    fake_gate_steps(3);
    client_wait(&c[3]);
    client_wait(&c[0]);
    ck_assert_int_eq(c[3].a[0].finish, FINISH_ABORT);
    ck_assert_int_eq(c[3].a[0].n_tok, 0);
    ck_assert_int_eq(c[0].a[0].finish, FINISH_ABORT);
    ck_assert(c[0].a[0].n_tok > 0 && c[0].a[0].n_tok < 300);
    client_clear(&c[1]); /* gone without asking */
    fake_gate_set(false);
    client_wait(&c[2]);
    ck_assert_int_eq(c[2].a[0].n_tok, 300);
    client_clear(&c[2]);
    client_clear(&c[3]);
    request_cancel(c[0].r);
    client_clear(&c[0]);
    wait_idle(g);
    engine_counters k;
    engine_stats(g, &k);
    ck_assert_uint_eq(k.finished[FINISH_ABORT], 3);
    ck_assert_uint_eq(k.finished[FINISH_LENGTH], 1);
    ck_assert_uint_eq(k.cancelled_queued, 1);
    ck_assert_uint_eq(k.cancelled_decode, 2);
    engine_close(g);
}
END_TEST

/* until 0: no deadline. */
static void submit_until(client *c, engine *g, int64_t until)
{
    err e = {0};
    request_spec s = spec_of(g, 1, 20, 350);
    s.s.ignore_eos = true;
    s.deadline_us = until;
    ck_assert_int_eq(client_submit(c, g, s, NULL, &e), 0);
}

static void expect_late(client *c, int64_t until, bool ran)
{
    client_wait(c);
    ck_assert_int_eq(c->a[0].finish, FINISH_ERROR);
    ck_assert_int_eq(c->a[0].error, ERR_DEADLINE);
    ck_assert_int_eq(c->st.scheduled, ran);
    ck_assert_int_lt(c->a[0].n_tok, 20);
    ck_assert_int_ge(c->st.finished_us, until);
    client_clear(c);
}

static void pass_time(int64_t until)
{
    while (clock_us() < until) usleep(1000);
}

START_TEST(deadlines)
{
    fake_gate_set(true);
    engine *g = open_fake((setup){.max_seqs = 1});
    client runs, waits;
    submit_until(&runs, g, 0);
    int64_t until = clock_us() + 1000;
    submit_until(&waits, g, until);
    pass_time(until);
    fake_gate_steps(3);
    expect_late(&waits, until, false);
    client_clear(&runs);
    fake_gate_set(false);
    wait_idle(g);
    fake_gate_set(true);
    request_stats u = {0};
    for (int64_t us = 50000; !u.scheduled; us *= 2) { /* it may be over before it could begin */
        until = clock_us() + us;
        submit_until(&runs, g, until);
        do u = request_usage(runs.r);
        while (!u.scheduled && !u.finished_us);
        if (!u.scheduled) client_clear(&runs);
    }
    pass_time(until);
    fake_gate_set(false);
    expect_late(&runs, until, true);
    engine_close(g);
}
END_TEST

START_TEST(the_queue_is_bounded)
{
    fake_gate_set(true);
    engine *g = open_fake((setup){.max_seqs = 2, .max_queue = 3});
    client c[8];
    err e = {0};
    int ok = 0;
    for (int i = 0; i < 8; i++) {
        request_spec s = spec_of(g, (uint32_t)i, 20, 300);
        s.s.ignore_eos = true;
        int rc = client_submit(&c[i], g, s, NULL, &e);
        ok += rc == 0;
        if (rc) ck_assert_int_eq(rc, ERR_LIMIT);
        if (i == 1) fake_gate_steps(4); /* both run */
    }
    ck_assert_int_eq(ok, 5);
    engine_counters k;
    fake_gate_steps(3);
    engine_stats(g, &k);
    ck_assert(k.queue_full);
    ck_assert_int_eq(k.running, 2);
    ck_assert_int_eq(k.waiting, 3);
    for (int i = 0; i < 8; i++) client_clear(&c[i]);
    fake_gate_set(false);
    wait_idle(g);
    engine_stats(g, &k);
    ck_assert(!k.queue_full);
    engine_close(g);
}
END_TEST

START_TEST(priority_only_when_allowed)
{
    for (int allow = 0; allow < 2; allow++) {
        fake_gate_set(true);
        engine *g = open_fake((setup){.max_seqs = 1, .priority = allow});
        client c[3];
        err e = {0};
        for (int i = 0; i < 3; i++) {
            request_spec s = spec_of(g, (uint32_t)i, 20, 100);
            s.s.ignore_eos = true;
            s.priority = 3 - i; /* the last is the most urgent */
            ck_assert_int_eq(client_submit(&c[i], g, s, NULL, &e), 0);
            fake_gate_steps(4);
        }
        fake_gate_set(false);
        for (int i = 0; i < 3; i++) client_wait(&c[i]);
        bool last_first = c[2].st.finished_us < c[0].st.finished_us;
        ck_assert_int_eq(last_first, allow);
        for (int i = 0; i < 3; i++) {
            int32_t want[100];
            expect((uint32_t)i, 20, 100, true, want);
            expect_ids(&c[i].a[0], want, 100); /* also of the one that was pushed out */
            client_clear(&c[i]);
        }
        engine_close(g);
    }
}
END_TEST

START_TEST(drain_and_stop)
{
    fake_gate_set(true);
    engine *g = open_fake((setup){0});
    client c[3];
    err e = {0};
    for (int i = 0; i < 2; i++) {
        request_spec s = spec_of(g, (uint32_t)i, 20, i ? 350 : 30);
        s.s.ignore_eos = true;
        ck_assert_int_eq(client_submit(&c[i], g, s, NULL, &e), 0);
    }
    engine_drain(g);
    ck_assert_int_eq(engine_status(g), ENGINE_DRAINING);
    ck_assert_int_eq(client_submit(&c[2], g, spec_of(g, 5, 5, 5), NULL, &e), ERR_SHUTDOWN);
    fake_gate_steps(60); /* what runs goes on */
    client_wait(&c[0]);
    ck_assert_int_eq(c[0].a[0].finish, FINISH_LENGTH);
    inbox_stop(g->in); /* the first that engine_stop does; then it waits for the step */
    fake_gate_set(false);
    engine_stop(g);
    client_wait(&c[1]);
    ck_assert_int_eq(c[1].a[0].finish, FINISH_ERROR);
    ck_assert_int_eq(c[1].a[0].error, ERR_SHUTDOWN);
    ck_assert_int_eq(engine_info(g)->n_vocab, V);
    engine_close(g);
    ck_assert(request_done(c[1].r)); /* requests outlive the engine */
    request_cancel(c[1].r);
    for (int i = 0; i < 3; i++) client_clear(&c[i]);
}
END_TEST

START_TEST(a_fault_is_final)
{
    fake_gate_set(true);
    engine *g = open_fake((setup){.fail_after = 20, .max_seqs = 1});
    client c[3];
    err e = {0};
    ck_assert_str_eq(engine_fault(g), "");
    for (int i = 0; i < 2; i++) {
        request_spec s = spec_of(g, (uint32_t)i, 20, 350);
        s.s.ignore_eos = true;
        ck_assert_int_eq(client_submit(&c[i], g, s, NULL, &e), 0);
    }
    fake_gate_set(false);
    for (int i = 0; i < 2; i++) {
        client_wait(&c[i]);
        ck_assert_int_eq(c[i].a[0].error, ERR_DEVICE);
        client_clear(&c[i]);
    }
    ck_assert_int_eq(engine_status(g), ENGINE_FAILED);
    ck_assert_str_eq(engine_fault(g), "fake fault");
    ck_assert_int_eq(client_submit(&c[2], g, spec_of(g, 5, 5, 5), NULL, &e), ERR_DEVICE);
    client_clear(&c[2]);
    engine_drain(g);
    ck_assert_int_eq(engine_status(g), ENGINE_FAILED);
    engine_close(g);
}
END_TEST

START_TEST(idle_sleeps_and_beats)
{
    engine *g = open_fake((setup){0});
    client c;
    client_run(&c, g, spec_of(g, 1, 5, 5));
    client_clear(&c);
    wait_idle(g);
    int64_t beat = engine_last_beat_us(g), next;
    double cpu = sys_cpu_seconds();
    while ((next = engine_last_beat_us(g)) - beat < 900000) usleep(50000);
    /* Whoever never slept would have used all of the time between, on a core of its own. */
    ck_assert_double_lt(sys_cpu_seconds() - cpu, 0.2e-6 * (double)(next - beat));
    engine_close(g);
}
END_TEST

/* ---- a storm of callers -----------------------------------------------------------------------
 */

typedef struct {
    engine *g;
    uint32_t seed;
    int done, refused;
} storm_arg;

static void *storm_thread(void *p)
{
    storm_arg *a = p;
    uint64_t rng = a->seed;
    for (int i = 0; i < 60; i++) {
        rng = mix(rng, (uint64_t)i);
        client c;
        err e = {0};
        int n = 1 + (int)(rng % 60), max = (int)((rng >> 8) % 40);
        request_spec s = spec_of(a->g, (uint32_t)(rng >> 16) % 5, n, max);
        s.n = rng % 7 == 0 ? 3 : 1;
        s.priority = (int)((rng >> 30) % 3);
        s.s.n_logprobs = (int)((rng >> 40) % 4) - 1;
        s.s.n_prompt_logprobs = rng % 11 == 0 ? 1 : -1;
        if (client_submit(&c, a->g, s, NULL, &e)) {
            a->refused++;
            client_clear(&c);
            continue;
        }
        if ((rng >> 50) % 4 == 0) usleep((useconds_t)(rng % 3000));
        if ((rng >> 50) % 5 == 0) {
            request_cancel(c.r);
        } else if ((rng >> 50) % 5 == 1) {
            client_clear(&c);
            continue;
        }
        client_wait(&c);
        int32_t want[64];
        int k = expect((uint32_t)(rng >> 16) % 5, n, max, false, want);
        for (int j = 0; j < c.n; j++)
            if (c.a[j].finish != FINISH_ABORT) expect_ids(&c.a[j], want, max ? k : 0);
        client_clear(&c);
        a->done++;
    }
    return NULL;
}

START_TEST(storm)
{
    engine *g = open_fake((setup){.n_blocks = 26,
                                  .ctx = 200,
                                  .max_seqs = 6,
                                  .max_tok = 24,
                                  .max_queue = 10,
                                  .priority = true});
    storm_arg a[6];
    pthread_t t[6];
    for (uint32_t i = 0; i < 6; i++) {
        a[i] = (storm_arg){.g = g, .seed = 100 + i};
        pthread_create(&t[i], NULL, storm_thread, &a[i]);
    }
    for (int i = 0; i < 200; i++) {
        engine_counters k;
        engine_stats(g, &k);
        usleep(500);
    }
    int done = 0;
    for (int i = 0; i < 6; i++) {
        pthread_join(t[i], NULL);
        done += a[i].done;
    }
    ck_assert_int_gt(done, 100);
    wait_idle(g);
    engine_close(g);
}
END_TEST

/* Everything with one step open at a time, and with the next one started while the last runs. */
static void add_tests(Suite *s, const char *name, void (*set_up)(void))
{
    TCase *t = tcase_create(name);
    tcase_add_checked_fixture(t, set_up, NULL);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, cancel_frees_the_place);
    tcase_add_test(t, deadlines);
    tcase_add_test(t, the_queue_is_bounded);
    tcase_add_test(t, priority_only_when_allowed);
    tcase_add_test(t, drain_and_stop);
    tcase_add_test(t, a_fault_is_final);
    tcase_add_test(t, idle_sleeps_and_beats);
    tcase_add_test(t, storm);
    suite_add_tcase(s, t);
}

int main(void)
{
    Suite *s = suite_create("engine_life");
    add_tests(s, "one step", NULL);
    add_tests(s, "overlap", fake_overlap);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
