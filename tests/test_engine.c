/* test_engine.c - the engine through its public API, with a pseudo-model underneath that verifies
 * paging: what is drawn, how it ends, limits, cancels, deadlines, queue, shutdown, faults,
 * counters, penalties against a plain recount, and a storm of threads. */
#include "tests/fake_engine.h"

START_TEST(draws_what_its_tokens_determine)
{
    engine *g = open_fake((setup){0});
    int stopped = 0;
    for (uint32_t seed = 0; seed < 40; seed++) {
        int32_t want[80];
        int n = expect(seed, 20, 80, false, want);
        client c;
        client_run(&c, g, spec_of(g, seed, 20, 80));
        expect_ids(&c.a[0], want, n);
        bool stop = want[n - 1] == END;
        stopped += stop;
        ck_assert_int_eq(c.a[0].finish, stop ? FINISH_STOP : FINISH_LENGTH);
        ck_assert_int_eq(c.a[0].stop_id, -1);
        ck_assert_int_eq(c.a[0].tok[n - 1].kind, stop ? TOK_MARKUP : TOK_ANSWER);
        ck_assert_int_eq(c.st.n_prompt, 20);
        ck_assert_int_eq(c.st.n_generated, n);
        ck_assert(c.st.arrival_us <= c.st.scheduled_us &&
                  c.st.scheduled_us <= c.st.first_token_us &&
                  c.st.first_token_us <= c.st.finished_us);
        client_clear(&c);
    }
    ck_assert(stopped > 5 && stopped < 40); /* both ways were seen */
    engine_close(g);
}
END_TEST

START_TEST(end_tokens_can_be_held_off)
{
    engine *g = open_fake((setup){0});
    for (uint32_t seed = 0; seed < 20; seed++) {
        int32_t want[100];
        expect(seed, 10, 100, true, want);
        client c;
        request_spec s = spec_of(g, seed, 10, 100);
        s.s.ignore_eos = true;
        client_run(&c, g, s);
        expect_ids(&c.a[0], want, 100);
        client_clear(&c);
        s = spec_of(g, seed, 10, 100);
        s.s.min_tokens = 30;
        client_run(&c, g, s);
        ck_assert_int_ge(c.a[0].n_tok, 31); /* the 31st token is the first that may end it */
        for (int i = 0; i < 30; i++) ck_assert_int_eq(c.a[0].tok[i].id, want[i]);
        client_clear(&c);
    }
    engine_close(g);
}
END_TEST

START_TEST(stop_ids_end_and_are_named)
{
    engine *g = open_fake((setup){0});
    int32_t want[80], stop[2];
    int n = expect(3, 20, 80, true, want);
    ck_assert_int_eq(n, 80);
    stop[0] = want[9];
    stop[1] = want[12];
    int first = 0;
    while (want[first] != stop[0] && want[first] != stop[1]) first++;
    client c;
    request_spec s = spec_of(g, 3, 20, 80);
    s.s.ignore_eos = true;
    s.s.stop_id = stop;
    s.s.n_stop_id = 2;
    client_run(&c, g, s);
    expect_ids(&c.a[0], want, first + 1);
    ck_assert_int_eq(c.a[0].finish, FINISH_STOP);
    ck_assert_int_eq(c.a[0].stop_id, want[first]);
    client_clear(&c);
    s.s.max_tokens = first + 1; /* stop and limit on one token: stop */
    client_run(&c, g, s);
    ck_assert_int_eq(c.a[0].finish, FINISH_STOP);
    client_clear(&c);
    engine_close(g);
}
END_TEST

START_TEST(limits_of_prompt_and_answer)
{
    engine *g = open_fake((setup){.ctx = 100});
    client c;
    err e = {0};
    int64_t clamped = -5;
    request_spec s = spec_of(g, 1, 90, 50);
    s.s.ignore_eos = true;
    ck_assert_int_eq(client_submit(&c, g, s, &clamped, &e), 0);
    ck_assert_int_eq(clamped, 10);
    client_wait(&c);
    ck_assert_int_eq(c.a[0].n_tok, 10);
    ck_assert_int_eq(c.a[0].finish, FINISH_LENGTH);
    client_clear(&c);
    s.s.max_tokens = -1; /* the rest of the context, nothing was cut */
    clamped = -5;
    ck_assert_int_eq(client_submit(&c, g, s, &clamped, &e), 0);
    client_wait(&c);
    ck_assert_int_eq(clamped, -5);
    ck_assert_int_eq(c.a[0].n_tok, 10);
    client_clear(&c);

    request *r;
    s = spec_of(g, 1, 100, 5);
    ck_assert_int_eq(engine_submit(g, &s, &r, NULL, &e), ERR_INVALID);
    s = spec_of(g, 1, 100, 0); /* only computing the prompt fits */
    client_run(&c, g, s);
    ck_assert_int_eq(c.a[0].n_tok, 0);
    ck_assert_int_eq(c.a[0].finish, FINISH_LENGTH);
    client_clear(&c);
    s = spec_of(g, 1, 101, 0);
    ck_assert_int_eq(engine_submit(g, &s, &r, NULL, &e), ERR_INVALID);
    s = spec_of(g, 1, 0, 5);
    ck_assert_int_eq(engine_submit(g, &s, &r, NULL, &e), ERR_INVALID);
    s = spec_of(g, 1, 5, 5);
    s.n = 129;
    ck_assert_int_eq(engine_submit(g, &s, &r, NULL, &e), ERR_INVALID);
    int32_t bad[2] = {1, V};
    s = spec_of(g, 1, 2, 5);
    s.prompt = bad;
    ck_assert_int_eq(engine_submit(g, &s, &r, NULL, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "60"));
    s = spec_of(g, 1, 5, 5);
    s.s.bias_id = bad;
    s.s.bias = (float[]){1, 1};
    s.s.n_bias = 2;
    ck_assert_int_eq(engine_submit(g, &s, &r, NULL, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "logit_bias"));
    ck_assert_ptr_null(r);
    engine_close(g);
}
END_TEST

START_TEST(masks_and_bias)
{
    engine *g = open_fake((setup){0});
    static const int32_t allowed[3] = {5, 20, 33};
    client c;
    request_spec s = spec_of(g, 1, 10, 40);
    s.s.allowed = allowed;
    s.s.n_allowed = 3;
    client_run(&c, g, s);
    ck_assert_int_eq(c.a[0].n_tok, 40);
    for (int i = 0; i < 40; i++)
        ck_assert(c.a[0].tok[i].id == 5 || c.a[0].tok[i].id == 20 || c.a[0].tok[i].id == 33);
    client_clear(&c);
    s = spec_of(g, 1, 10, 40);
    s.s.bias_id = (int32_t[]){12, 44, 12};
    s.s.bias = (float[]){50, 40, -100}; /* the later value of 12 counts: banned */
    s.s.n_bias = 3;
    client_run(&c, g, s);
    for (int i = 0; i < 40; i++) ck_assert_int_eq(c.a[0].tok[i].id, 44);
    client_clear(&c);
    engine_close(g);
}
END_TEST

/* Every penalty against a recount from scratch at each position. */
START_TEST(penalties_count_what_they_should)
{
    static const struct {
        float repetition, presence, frequency;
        int64_t last_n;
    } cases[] = {{1.3f, 0, 0, -1},       {1.3f, 0, 0, 12},      {1, 0.7f, 0.4f, -1},
                 {1.2f, 0.7f, 0.4f, -1}, {1.2f, 0.7f, 0.4f, 9}, {1.5f, 0, 0, 0},
                 {0.8f, -0.5f, 0, 4}};
    engine *g = open_fake((setup){0});
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        client c;
        request_spec s = spec_of(g, 11, 30, 120);
        s.s.ignore_eos = true;
        s.s.repetition = cases[k].repetition;
        s.s.presence = cases[k].presence;
        s.s.frequency = cases[k].frequency;
        s.s.repeat_last_n = cases[k].last_n;
        client_run(&c, g, s);
        ck_assert_int_eq(c.a[0].n_tok, 120);
        int32_t tok[150];
        memcpy(tok, s.prompt, 30 * sizeof *tok);
        for (int i = 30; i < 150; i++) {
            int32_t seen[V], count[V], ban = END, extra_id[V];
            float extra[V];
            sample_row w = {.n_vocab = V,
                            .forced = -1,
                            .n_top = -1,
                            .repetition = cases[k].repetition,
                            .presence = cases[k].presence,
                            .frequency = cases[k].frequency,
                            .seen_id = seen,
                            .gen_count = count,
                            .ban = &ban,
                            .n_ban = 1,
                            .bias_id = extra_id,
                            .bias = extra};
            int from = cases[k].last_n < 0 || cases[k].last_n > i ? 0 : i - (int)cases[k].last_n;
            for (int32_t id = 0; id < V; id++) {
                int in = 0, made = 0;
                for (int j = 0; j < i; j++) {
                    in += tok[j] == id && j >= from;
                    made += tok[j] == id && j >= 30;
                }
                if (in) {
                    seen[w.n_seen] = id;
                    count[w.n_seen++] = made;
                } else if (made) {
                    extra_id[w.n_bias] = id;
                    extra[w.n_bias++] = -(cases[k].presence + cases[k].frequency * (float)made);
                }
            }
            fake_draw(fake_value(tok, i), &w);
            ck_assert_msg(w.id == c.a[0].tok[i - 30].id, "case %zu, token %d", k, i - 30);
            tok[i] = w.id;
        }
        client_clear(&c);
    }
    engine_close(g);
}
END_TEST

START_TEST(logprobs_of_answer_and_prompt)
{
    for (int tok = 3; tok <= 512; tok += 509) {
        engine *g = open_fake((setup){.max_tok = tok});
        client c;
        request_spec s = spec_of(g, 4, 40, 0);
        s.s.n_prompt_logprobs = 3;
        for (int warm = 0; warm < 2; warm++) {
            for (int max = 0; max <= 6; max += 6) {
                s.s.max_tokens = max;
                s.s.ignore_eos = true;
                s.s.n_logprobs = max ? 20 : -1;
                client_run(&c, g, s);
                ck_assert_int_eq(c.n_prompt, 40);
                ck_assert_int_eq(c.st.n_cached, 0); /* every position is computed */
                for (int i = 1; i < 40; i++) {
                    sample_row w = {
                        .n_vocab = V, .forced = s.prompt[i], .n_top = 3, .repetition = 1};
                    fake_draw(fake_value(s.prompt, i), &w);
                    ck_assert_int_eq(c.prompt[i].id, s.prompt[i]);
                    ck_assert_int_eq(c.prompt[i].n_top, 3);
                    ck_assert_int_eq(c.prompt[i].rank, w.rank);
                    ck_assert_int_eq(memcmp(&c.prompt[i].logprob, &w.logprob, sizeof w.logprob), 0);
                    ck_assert_int_eq(memcmp(c.prompt[i].top_id, w.top_id, 3 * sizeof *w.top_id), 0);
                }
                for (int i = 0; i < max; i++) {
                    const token_info *t = &c.a[0].tok[i];
                    ck_assert_int_eq(t->n_top, 20);
                    ck_assert(t->logprob <= 0 && t->rank >= 1);
                    if (t->rank <= 20) ck_assert(t->top_id[t->rank - 1] == t->id || t->rank > 1);
                }
                client_clear(&c);
            }
        }
        engine_close(g);
    }
}
END_TEST

START_TEST(choices_are_independent_and_keyed)
{
    engine *g = open_fake((setup){.max_seqs = 3});
    client all, one;
    request_spec s = spec_of(g, 9, 50, 30);
    s.n = 6;
    s.s.temperature = 1;
    s.s.seed = 1234;
    s.s.ignore_eos = true;
    client_run(&all, g, s);
    bool differ = false;
    for (int i = 0; i < 6; i++) {
        request_spec t = s;
        t.n = 1;
        t.choice_base = (uint64_t)i;
        client_run(&one, g, t);
        ck_assert_int_eq(one.a[0].n_tok, all.a[i].n_tok);
        for (int k = 0; k < one.a[0].n_tok; k++)
            ck_assert_int_eq(one.a[0].tok[k].id, all.a[i].tok[k].id);
        differ |= i && memcmp(all.a[i].tok, all.a[0].tok, sizeof(token_info)) != 0;
        client_clear(&one);
    }
    ck_assert(differ);
    ck_assert_int_eq(all.st.n_generated, 180);
    client_clear(&all);
    engine_close(g);
}
END_TEST

START_TEST(cached_tokens_are_told)
{
    engine *g = open_fake((setup){0});
    client c;
    client_run(&c, g, spec_of(g, 2, 100, 1));
    ck_assert_int_eq(c.st.n_cached, 0);
    client_clear(&c);
    client_run(&c, g, spec_of(g, 2, 100, 1));
    ck_assert_int_eq(c.st.n_cached, 96);
    client_clear(&c);
    request_spec s = spec_of(g, 2, 100, 1);
    s.cache_prompt = false;
    client_run(&c, g, s);
    ck_assert_int_eq(c.st.n_cached, 0);
    client_clear(&c);
    s = spec_of(g, 2, 100, 1);
    s.cache_salt = "tenant";
    client_run(&c, g, s);
    ck_assert_int_eq(c.st.n_cached, 0);
    client_clear(&c);
    engine_counters k;
    engine_stats(g, &k);
    ck_assert_uint_eq(k.prefix_queries, 400);
    ck_assert_uint_eq(k.prefix_hits, 96);
    ck_assert_uint_eq(k.prompt_tokens, 400);
    engine_close(g);
}
END_TEST

START_TEST(counters_follow_their_rules)
{
    engine *g = open_fake((setup){0});
    client c;
    request_spec s = spec_of(g, 21, 33, 10);
    s.s.ignore_eos = true;
    s.n = 4;
    client_run(&c, g, s);
    client_clear(&c);
    wait_idle(g);
    engine_counters k;
    engine_stats(g, &k);
    ck_assert_uint_eq(k.prompt_tokens, 33); /* once per request */
    ck_assert_uint_eq(k.generation_tokens, 40);
    ck_assert_uint_eq(k.finished[FINISH_LENGTH], 4);
    uint64_t n[9] = {0};
    const histogram *h[9] = {&k.ttft,    &k.itl,    &k.e2e,         &k.queue,          &k.inference,
                             &k.prefill, &k.decode, &k.prompt_size, &k.generation_size};
    for (int i = 0; i < 9; i++)
        for (int b = 0; b <= h[i]->n; b++) n[i] += h[i]->count[b];
    ck_assert_uint_eq(n[0], 4);
    ck_assert_uint_eq(n[1], 36);
    for (int i = 2; i < 9; i++) ck_assert_uint_eq(n[i], 4);
    ck_assert_double_eq(k.prompt_size.sum, 4 * 33);
    ck_assert_double_eq(k.generation_size.sum, 40);
    ck_assert_int_eq(k.generation_size.n, 8); /* 1 2 5 10 20 50 100 200 up to a context of 400 */
    ck_assert_uint_eq(k.generation_size.count[3], 4);
    ck_assert_int_eq(k.n_tokens_max, 43);
    ck_assert_int_eq(k.kv_total, 200);
    ck_assert_int_gt(k.kv_cached, 0);
    engine_close(g);
}
END_TEST

/* The next step starts while one runs, unless a row must know the token in front of it. */
START_TEST(steps_overlap_where_they_may)
{
    for (int blind = 0; blind < 2; blind++) {
        engine *g = open_fake((setup){0});
        client c;
        request_spec s = spec_of(g, 11, 20, 40);
        s.s.ignore_eos = true;
        s.s.presence = blind ? 0 : 0.5f;
        client_run(&c, g, s);
        ck_assert_int_eq(c.a[0].n_tok, 40);
        client_clear(&c);
        long overlaps = fake_runner_overlaps(g->run);
        if (fake_depth > 1 && blind) ck_assert_int_eq(overlaps, 39);
        else ck_assert_int_eq(overlaps, 0);
        engine_close(g);
    }
}
END_TEST

/* Guesses: as many as are asked for, right up to the place draft_wrong (of every seven). */
static int draft_wrong, draft_asked;

static int32_t right_token(const seq *q, int at)
{
    int32_t want[200], prompt0 = q->prompt[0];
    uint32_t seed = 0;
    while (prompt_of(seed, 0) != prompt0 || prompt_of(seed, 1) != q->prompt[1]) seed++;
    expect(seed, q->n_prompt, 200, true, want);
    return want[at];
}

static int some_drafts(engine *g, choice *c, int32_t *tok, int cap)
{
    (void)g;
    int n = (int)(mix((uint64_t)c->q.n_gen, 5) % 9);
    if (n > cap) n = cap;
    for (int i = 0; i < n; i++) {
        int32_t right = right_token(&c->q, c->q.n_gen + i);
        tok[i] = (c->q.n_gen + i) % 7 == draft_wrong ? (right + 1) % V : right;
    }
    draft_asked += n;
    return n;
}

/* Whatever is guessed, the answer is the same, and right guesses save steps. */
START_TEST(drafts_change_no_token)
{
    for (draft_wrong = 0; draft_wrong < 8; draft_wrong++)
        for (int tight = 0; tight < 2; tight++) {
            engine *g = open_fake((setup){.max_tok = tight ? 4 : 0, .n_blocks = tight ? 24 : 0});
            g->draft = some_drafts;
            draft_asked = 0;
            for (uint32_t seed = 1; seed < 6; seed++) {
                int32_t want[80];
                expect(seed, 12, 80, true, want);
                client c;
                request_spec s = spec_of(g, seed, 12, 80);
                s.s.ignore_eos = true;
                s.s.n_logprobs = 0;
                client_run(&c, g, s);
                expect_ids(&c.a[0], want, 80);
                ck_assert_int_eq(c.st.n_generated, 80);
                client_clear(&c);
            }
            long rows, runs;
            int most;
            fake_runner_counts(g->run, &rows, &runs, &most);
            ck_assert_int_gt(draft_asked, 300);
            engine_counters k;
            uint64_t by_place = 0;
            engine_stats(g, &k);
            for (int i = 0; i < DRAFT_MAX; i++) by_place += k.accepted_at[i];
            ck_assert_uint_eq(by_place, k.accepted_tokens);
            ck_assert_uint_le(k.accepted_tokens, k.draft_tokens);
            ck_assert_uint_le(k.draft_tokens, (uint64_t)draft_asked);
            ck_assert(k.drafts > 0 && k.accepted_at[0] >= k.accepted_at[1]);
            if (draft_wrong == 7) ck_assert_uint_eq(k.accepted_tokens, k.draft_tokens);
            else ck_assert_uint_lt(k.accepted_tokens, k.draft_tokens);
            if (draft_wrong == 7 && !tight) ck_assert_int_lt(runs, 5 * 40);
            wait_idle(g);
            engine_close(g);
        }
}
END_TEST

/* Everything with one step open at a time, and with the next one started while the last runs. */
static void add_tests(Suite *s, const char *name, void (*set_up)(void))
{
    TCase *t = tcase_create(name);
    tcase_add_checked_fixture(t, set_up, NULL);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, draws_what_its_tokens_determine);
    tcase_add_test(t, end_tokens_can_be_held_off);
    tcase_add_test(t, stop_ids_end_and_are_named);
    tcase_add_test(t, limits_of_prompt_and_answer);
    tcase_add_test(t, masks_and_bias);
    tcase_add_test(t, penalties_count_what_they_should);
    tcase_add_test(t, logprobs_of_answer_and_prompt);
    tcase_add_test(t, choices_are_independent_and_keyed);
    tcase_add_test(t, cached_tokens_are_told);
    tcase_add_test(t, counters_follow_their_rules);
    tcase_add_test(t, steps_overlap_where_they_may);
    tcase_add_test(t, drafts_change_no_token);
    suite_add_tcase(s, t);
}

int main(void)
{
    Suite *s = suite_create("engine");
    add_tests(s, "one step", NULL);
    add_tests(s, "overlap", fake_overlap);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
