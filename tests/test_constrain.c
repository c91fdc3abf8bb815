/* test_constrain.c - choices held to grammars in a whole engine (API J3, J4, G9, G10): over a
 * pseudo-model whose logits are noise, so that only masks make the text what it must be.  One step
 * open at a time, and two. */
#include "tests/fake_engine.h"

#include "tests/quick.h"

/* Masks of this cost more than a step may. */
#define DEAR "([a-z]{1,80} ?){1,90}x"

static tokenizer *tok;
static int32_t end_id;

static void open_text(void)
{
    err e = {0};
    const tokenizer_source src = {.tokenizer_json = "models/demo/tokenizer.json",
                                  .tokenizer_config = "models/demo/tokenizer_config.json"};
    ck_assert_msg((tok = tokenizer_open(&src, &e)) != NULL, "%s", e.msg);
    end_id = tokenizer_eos(tok);
    fake_depth = 1;
}

static void open_overlapping(void)
{
    open_text();
    fake_overlap();
}

static void close_text(void)
{
    tokenizer_free(tok);
}

typedef struct {
    int n_blocks, max_seqs, max_tok;
} size;

static engine *open_engine(size s)
{
    err e = {0};
    int n_vocab = tokenizer_n_vocab(tok), n_blocks = s.n_blocks ? s.n_blocks : 400;
    engine_options o = {
        .max_num_seqs = s.max_seqs, .max_num_batched_tokens = s.max_tok, .prefix_caching = true};
    engine_shape shape = {.n_vocab = n_vocab,
                          .kv_block = KV,
                          .n_blocks = n_blocks,
                          .ctx = 1000,
                          .tok = tok,
                          .end_id = &end_id,
                          .n_end = 1};
    runner *r =
        fake_runner_new(&(fake_options){.n_vocab = n_vocab, .kv_block = KV, .n_blocks = n_blocks});
    engine *g = engine_open_runner(&o, &shape, r, &e);
    ck_assert_msg(g && engine_load(g, &e) == 0, "%s", e.msg);
    return g;
}

static grammar *compile(grammar_kind kind, const char *text)
{
    grammar *g = NULL;
    grammar_error why;
    const char *const one[] = {text};
    const grammar_spec s = {
        .kind = kind, .text = text, .n = strlen(text), .choices = one, .n_choices = 1};
    ck_assert_msg(grammar_compile(&s, &g, &why) == 0, "%s: %s", text, why.e.msg);
    return g;
}

static request_spec spec_for(const engine *g, grammar *gr, uint64_t seed, int n, int64_t max)
{
    request_spec s = spec_of(g, 3, 20, max);
    s.n = n;
    s.s.temperature = 1;
    s.s.seed = seed;
    s.s.n_logprobs = 3;
    s.grammar = gr;
    return s;
}

static const struct {
    grammar_kind kind;
    const char *text;
    int64_t max;
} forms[] = {
    {GRAMMAR_REGEX, "[a-z]{3,9}-[0-9]{4}", 60},
    {GRAMMAR_REGEX, "(yes|no|(perhaps ){1,5}not)", 60},
    {GRAMMAR_CHOICE, "The quick brown fox jumps over the lazy dog.\nTwice, \xc3\xbc\xe2\x82\xac!",
     200},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"first_name\":{\"type\":\"string\",\"maxLength\":9},"
     "\"age\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":99},\"colour\":{\"enum\":[\"red\","
     "\"ultramarine\"]}},\"required\":[\"first_name\",\"age\",\"colour\"],"
     "\"additionalProperties\":false}",
     400}};
enum { N_FORMS = sizeof forms / sizeof *forms };

/* Whatever is drawn, what ends by itself is in the language, and what is cut began well. */
static void check_answer(grammar *gr, const answer *a)
{
    ck_assert_int_eq(a->error, 0);
    ck_assert(a->finish == FINISH_STOP || a->finish == FINISH_LENGTH);
    int in = grammar_accepts(gr, buf_str(&a->content), a->content.len);
    if (a->finish == FINISH_STOP) ck_assert_msg(in == 1, "%s", buf_str(&a->content));
}

START_TEST(noise_becomes_what_it_must_be)
{
    int stopped = 0;
    for (int i = 0; i < N_FORMS; i++) {
        engine *g = open_engine((size){0});
        grammar *gr = compile(forms[i].kind, forms[i].text);
        for (uint64_t seed = 1; seed <= (quick() ? 1 : 4); seed++) {
            client c;
            client_run(&c, g, spec_for(g, gr, seed, 4, forms[i].max));
            for (int k = 0; k < 4; k++) {
                check_answer(gr, &c.a[k]);
                stopped += c.a[k].finish == FINISH_STOP;
            }
            client_clear(&c);
        }
        wait_idle(g);
        grammar_release(gr);
        engine_close(g);
    }
    ck_assert_int_gt(stopped, quick() ? 8 : 40);
}
END_TEST

/* Tokens, logprobs and tops are the same by memcmp with guesses of forced bytes and without, with
 * little room, and where all that grammars do is done beside the engine. */
START_TEST(guesses_change_no_bit)
{
    int64_t drafted = 0;
    for (int i = 0; i < N_FORMS; i++)
        for (int greedy = 0; greedy < 2; greedy++) {
            enum { NONE, DRAFTS, TIGHT, BESIDE, WAYS };
            client got[WAYS];
            grammar *gr = compile(forms[i].kind, forms[i].text);
            engine *g[WAYS];
            for (int k = 0; k < WAYS; k++) {
                g[k] = open_engine(
                    (size){.max_tok = k == TIGHT ? 5 : 0, .n_blocks = k == TIGHT ? 130 : 0});
                g[k]->no_drafts = k == NONE;
                if (k == BESIDE) constrainer_limit(g[k]->forms, -1);
                request_spec s = spec_for(g[k], gr, 11, 3, forms[i].max);
                if (greedy) s.s.temperature = 0;
                client_run(&got[k], g[k], s);
            }
            drafted += got[1].st.n_draft;
            ck_assert_int_eq(got[0].st.n_draft, 0);
            ck_assert_int_le(got[1].st.n_draft_accepted, got[1].st.n_draft);
            for (int k = 1; k < WAYS; k++)
                for (int m = 0; m < 3; m++) {
                    ck_assert_int_eq(got[k].a[m].n_tok, got[0].a[m].n_tok);
                    ck_assert(!memcmp(got[k].a[m].tok, got[0].a[m].tok,
                                      (size_t)got[0].a[m].n_tok * sizeof *got[0].a[m].tok));
                    ck_assert_str_eq(buf_str(&got[k].a[m].content), buf_str(&got[0].a[m].content));
                    ck_assert_int_eq(got[k].a[m].finish, got[0].a[m].finish);
                }
            for (int k = 0; k < WAYS; k++) {
                client_clear(&got[k]);
                engine_close(g[k]);
            }
            grammar_release(gr);
        }
    ck_assert_int_gt(drafted, 20);
}
END_TEST

/* Whether the last token that may be drawn completes the text is known only when the matcher comes
 * back, where it is away: the answer ends for the same reason. */
START_TEST(the_last_token_may_complete_the_text)
{
    for (int i = 0; i < N_FORMS; i++) {
        grammar *gr = compile(forms[i].kind, forms[i].text);
        int max = (int)forms[i].max;
        for (int round = 0; round < 3; round++) { /* the whole, just the whole, one token less */
            client got[2];
            for (int beside = 0; beside < 2; beside++) {
                engine *g = open_engine((size){0});
                if (beside) constrainer_limit(g->forms, -1);
                client_run(&got[beside], g, spec_for(g, gr, 4, 1, max));
                wait_idle(g);
                engine_close(g);
            }
            ck_assert_int_eq(got[0].a[0].error, 0);
            ck_assert_int_eq(got[0].a[0].n_tok, got[1].a[0].n_tok);
            ck_assert_int_eq(got[0].a[0].finish, got[1].a[0].finish);
            ck_assert_int_eq(got[0].a[0].finish, round < 2 ? FINISH_STOP : FINISH_LENGTH);
            max = got[0].a[0].n_tok - round;
            client_clear(&got[0]);
            client_clear(&got[1]);
        }
        grammar_release(gr);
    }
}
END_TEST

/* Room for one sequence and a half: the other is pushed out and recomputed, its matcher is not. */
START_TEST(a_preempted_one_goes_on_where_it_was)
{
    engine *g = open_engine((size){.n_blocks = 16, .max_seqs = 4});
    grammar *gr = compile(GRAMMAR_REGEX, "([a-z]{1,4} ){40}");
    client a, b;
    request_spec s = spec_for(g, gr, 5, 1, 70);
    s.cache_prompt = false;
    client_run(&a, g, s);
    request_spec two = s;
    two.cache_prompt = false;
    two.n = 3;
    client_run(&b, g, two);
    engine_counters k;
    engine_stats(g, &k);
    ck_assert_uint_gt(k.preemptions, 0);
    ck_assert_int_eq(a.a[0].n_tok, b.a[0].n_tok);
    ck_assert(!memcmp(a.a[0].tok, b.a[0].tok, (size_t)a.a[0].n_tok * sizeof *a.a[0].tok));
    for (int i = 0; i < 3; i++) check_answer(gr, &b.a[i]);
    client_clear(&a);
    client_clear(&b);
    grammar_release(gr);
    engine_close(g);
}
END_TEST

/* Neighbours with other grammars, with none, with penalties: each draws what it draws alone. */
START_TEST(neighbours_do_not_matter)
{
    grammar *gr[3] = {compile(forms[0].kind, forms[0].text), compile(forms[3].kind, forms[3].text),
                      NULL};
    answer alone[3];
    for (int round = 0; round < 2; round++) {
        engine *g = open_engine((size){.max_tok = 32});
        client c[3];
        err e = {0};
        for (int i = 0; i < 3; i++) {
            request_spec s = spec_for(g, gr[i], 20 + (uint64_t)i, 1, 50);
            if (i == 1) s.s.presence = 0.5f;
            if (round) ck_assert_int_eq(client_submit(&c[i], g, s, NULL, &e), 0);
            else client_run(&c[i], g, s);
        }
        for (int i = 0; i < 3; i++) {
            if (round) client_wait(&c[i]);
            answer *a = &c[i].a[0];
            if (round) {
                ck_assert_int_eq(a->n_tok, alone[i].n_tok);
                ck_assert(!memcmp(a->tok, alone[i].tok, (size_t)a->n_tok * sizeof *a->tok));
                free(alone[i].tok);
            } else {
                alone[i] = *a;
                alone[i].tok = malloc((size_t)a->n_tok * sizeof *a->tok);
                memcpy(alone[i].tok, a->tok, (size_t)a->n_tok * sizeof *a->tok);
            }
            client_clear(&c[i]);
        }
        engine_close(g);
    }
    for (int i = 0; i < 2; i++) grammar_release(gr[i]);
}
END_TEST

/* G9, G10 at the engine: a finished text ends whatever is banned; bans that leave nothing are
 * lifted. */
START_TEST(the_grammar_wins)
{
    engine *g = open_engine((size){0});
    grammar *gr = compile(GRAMMAR_CHOICE, "abc");
    client c;
    request_spec s = spec_for(g, gr, 1, 1, 50);
    s.s.min_tokens = 40;
    s.s.ignore_eos = true;
    int32_t only[1] = {tokenizer_id(tok, "z")};
    s.s.allowed = only;
    s.s.n_allowed = 1;
    client_run(&c, g, s);
    ck_assert_str_eq(buf_str(&c.a[0].content), "abc");
    ck_assert_int_eq(c.a[0].finish, FINISH_STOP);
    client_clear(&c);
    grammar_release(gr);
    engine_close(g);
}
END_TEST

/* A mask that costs too much is finished beside the engine, and the answer is the same; one that
 * costs more than any may ends its choice with an error and no other. */
START_TEST(dear_masks_are_made_beside_the_engine)
{
    engine *g = open_engine((size){0});
    grammar *dear = compile(GRAMMAR_REGEX, DEAR);
    grammar *plain = compile(GRAMMAR_REGEX, "[0-9]{30}");
    client c, near;
    err e = {0};
    ck_assert_int_eq(client_submit(&c, g, spec_for(g, dear, 2, 4, 40), NULL, &e), 0);
    client_run(&near, g, spec_for(g, plain, 3, 1, 60));
    check_answer(plain, &near.a[0]);
    client_wait(&c);
    for (int i = 0; i < 4; i++) {
        check_answer(dear, &c.a[i]);
        for (size_t n = 0; n < c.a[i].content.len; n++)
            ck_assert(strchr("abcdefghijklmnopqrstuvwxyz ", c.a[i].content.v[n]));
    }
    client_clear(&c);
    client_clear(&near);
    wait_idle(g);
    engine_counters k;
    engine_stats(g, &k);
    ck_assert_uint_gt(k.late_masks, 0);
    grammar_release(dear);
    grammar_release(plain);
    engine_close(g);
}
END_TEST

/* Clients that leave while their matcher may be away, and an engine that stops under them. */
START_TEST(leaving_and_stopping)
{
    for (int round = 0; round < 6; round++) {
        engine *g = open_engine((size){0});
        grammar *gr = compile(GRAMMAR_REGEX, DEAR);
        client c[3];
        err e = {0};
        for (int i = 0; i < 3; i++)
            ck_assert_int_eq(
                client_submit(&c[i], g, spec_for(g, gr, (uint64_t)i, 2, 200), NULL, &e), 0);
        usleep((useconds_t)(round * 3000));
        request_cancel(c[0].r);
        if (round % 2) engine_stop(g);
        else request_cancel(c[1].r);
        if (!(round % 2)) request_cancel(c[2].r);
        for (int i = 0; i < 3; i++) {
            client_wait(&c[i]);
            client_clear(&c[i]);
        }
        grammar_release(gr);
        engine_close(g);
    }
}
END_TEST

START_TEST(without_text_there_is_no_grammar)
{
    engine *g = open_fake((setup){0});
    grammar *gr = compile(GRAMMAR_REGEX, "a");
    client c;
    err e = {0};
    ck_assert_int_eq(client_submit(&c, g, spec_for(g, gr, 1, 1, 5), NULL, &e), ERR_UNSUPPORTED);
    free(c.a);
    grammar_release(gr);
    engine_close(g);
}
END_TEST

static void add_tests(Suite *s, const char *name, void (*set_up)(void))
{
    TCase *t = tcase_create(name);
    tcase_add_checked_fixture(t, set_up, close_text);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, noise_becomes_what_it_must_be);
    tcase_add_test(t, guesses_change_no_bit);
    tcase_add_test(t, the_last_token_may_complete_the_text);
    tcase_add_test(t, a_preempted_one_goes_on_where_it_was);
    tcase_add_test(t, neighbours_do_not_matter);
    tcase_add_test(t, the_grammar_wins);
    tcase_add_test(t, dear_masks_are_made_beside_the_engine);
    tcase_add_test(t, leaving_and_stopping);
    tcase_add_test(t, without_text_there_is_no_grammar);
    suite_add_tcase(s, t);
}

int main(void)
{
    Suite *s = suite_create("constrain");
    add_tests(s, "alone", open_text);
    add_tests(s, "overlap", open_overlapping);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
