/* test_engine_views.c - what can be seen of a request from outside while it runs: how far its
 * prompt has come, which place of the batch it has; and end tokens of its own.  On the
 * pseudo-model.
 */
#include "tests/fake_engine.h"

START_TEST(end_tokens_of_a_request)
{
    engine *g = open_fake((setup){0});
    int32_t want[80], end[2];
    expect(3, 20, 80, true, want);
    end[0] = want[9];
    end[1] = want[12];
    int first = 0;
    while (want[first] != end[0] && want[first] != end[1]) first++;
    client c;
    request_spec s = spec_of(g, 3, 20, 80);
    s.s.end_id = end;
    s.s.n_end = 2;
    int32_t all[80];
    int n = expect(3, 20, 80, false, all); /* the model's own end may come first */
    client_run(&c, g, s);
    expect_ids(&c.a[0], want, n < first + 1 ? n : first + 1);
    ck_assert_int_eq(c.a[0].finish, FINISH_STOP);
    ck_assert_int_eq(c.a[0].stop_id, -1); /* an end, not a stop */
    ck_assert_int_eq(c.a[0].tok[c.a[0].n_tok - 1].kind, TOK_MARKUP);
    client_clear(&c);
    s.s.ignore_eos = true; /* holds them off as it does the model's */
    client_run(&c, g, s);
    ck_assert_int_eq(c.a[0].n_tok, 80);
    for (int i = 0; i < 80; i++)
        ck_assert(c.a[0].tok[i].id != end[0] && c.a[0].tok[i].id != end[1]);
    client_clear(&c);
    s.s.ignore_eos = false;
    end[1] = V; /* no token */
    err e = {0};
    request *r;
    ck_assert_int_eq(engine_submit(g, &s, &r, NULL, &e), ERR_INVALID);
    engine_close(g);
}
END_TEST

START_TEST(progress_of_a_prompt)
{
    fake_gate_set(true);
    engine *g = open_fake((setup){.max_tok = 16});
    client c;
    request_spec s = spec_of(g, 5, 100, 4);
    s.progress = true;
    err e = {0};
    ck_assert_int_eq(client_submit(&c, g, s, NULL, &e), 0);
    int last = -1, steps = 0;
    for (int i = 0; i < 9; i++) {
        fake_gate_steps(i > 0);
        request_stats u = request_usage(c.r);
        ck_assert(u.n_computed >= u.n_cached && u.n_computed <= 100 && u.n_computed >= last);
        steps += u.n_computed > last;
        last = u.n_computed;
        ck_assert(!u.n_generated || u.n_computed == 100);
        client_keep(&c, request_take(c.r));
    }
    fake_gate_set(false);
    client_wait(&c);
    ck_assert_int_eq(request_usage(c.r).n_computed, 100);
    ck_assert_int_gt(steps, 3);
    ck_assert_int_ge(c.n_deltas, 2);
    client_clear(&c);
    engine_close(g);
}
END_TEST

static int busy(engine *g, engine_slot *v, int n)
{
    int k = 0;
    engine_slots(g, v);
    for (int i = 0; i < n; i++) {
        ck_assert(v[i].busy || (!v[i].n_prompt && !v[i].n_decoded && !v[i].n_remain));
        k += v[i].busy;
    }
    return k;
}

START_TEST(places_of_the_batch)
{
    enum { SEQS = 3, PROMPT = 10, MAX = 300 };
    fake_gate_set(true);
    engine *g = open_fake((setup){.max_seqs = SEQS});
    engine_slot v[SEQS];
    client c[2];
    err e = {0};
    ck_assert_int_eq(busy(g, v, SEQS), 0);
    for (int i = 0; i < 2; i++) {
        request_spec s = spec_of(g, (uint32_t)i, PROMPT, MAX);
        s.s.ignore_eos = true;
        s.s.top_k = 5 + i;
        ck_assert_int_eq(client_submit(&c[i], g, s, NULL, &e), 0);
    }
    fake_gate_steps(4);
    ck_assert_int_eq(busy(g, v, SEQS), 2);
    fake_gate_set(false);
    ck_assert(v[0].n_decoded && v[1].n_decoded);
    ck_assert(v[0].task != v[1].task && v[0].s.top_k + v[1].s.top_k == 11);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(v[i].n_prompt, PROMPT);
        ck_assert_int_eq(v[i].n_remain, MAX - v[i].n_decoded);
        ck_assert(!v[i].s.stop && !v[i].s.bias_id); /* no pointer leaves the engine */
    }
    for (int i = 0; i < 2; i++) {
        client_wait(&c[i]);
        ck_assert(c[i].st.slot >= 0 && c[i].st.slot < SEQS);
    }
    ck_assert_int_ne(c[0].st.slot, c[1].st.slot);
    for (int i = 0; i < 2; i++) client_clear(&c[i]);
    wait_idle(g);
    ck_assert_int_eq(busy(g, v, SEQS), 0);
    engine_close(g);
}
END_TEST

/* With blocks for one and a half, they push each other out: a place is given back each time. */
START_TEST(places_after_preemption)
{
    engine *g = open_fake((setup){.max_seqs = 2, .n_blocks = 30, .ctx = 200});
    engine_slot v[2];
    client c[4];
    err e = {0};
    for (int i = 0; i < 4; i++) {
        request_spec s = spec_of(g, (uint32_t)i, 40, 120);
        s.s.ignore_eos = true;
        ck_assert_int_eq(client_submit(&c[i], g, s, NULL, &e), 0);
    }
    for (int i = 0; i < 4; i++) {
        client_wait(&c[i]);
        ck_assert_int_le(busy(g, v, 2), 2);
        ck_assert(c[i].a[0].n_tok == 120 && c[i].st.slot >= 0 && c[i].st.slot < 2);
    }
    engine_counters k;
    engine_stats(g, &k);
    ck_assert_int_gt((int)k.preemptions, 0);
    for (int i = 0; i < 4; i++) client_clear(&c[i]);
    wait_idle(g);
    ck_assert_int_eq(busy(g, v, 2), 0);
    engine_close(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("engine views");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, end_tokens_of_a_request);
    tcase_add_test(t, progress_of_a_prompt);
    tcase_add_test(t, places_of_the_batch);
    tcase_add_test(t, places_after_preemption);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
