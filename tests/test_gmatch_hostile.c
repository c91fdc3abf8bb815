/* test_gmatch_hostile.c - what grammars made to cost may cost an engine's thread: whatever they
 * are, one call there does a bounded amount of work (counted in what the automaton grows by, never
 * in time), what is too dear is done beside it, and the masks stay exact. */
#include "engine/grammar/grammar_impl.h"
#include "tests/grammar_rig.h"
#include "tests/hostile_grammars.h"
#include "tests/quick.h"

#include <check.h>

enum {
    WORK = 120000, /* expressions, states, threads, stacks and configurations one call may add */
    STRIDE = 61    /* every so many tokens are stepped */
};

typedef struct {
    const grammar *g;
    const char *name;
    uint32_t epoch;
    size_t size;
} meter;

static size_t size_of(const gram *g)
{
    const rx_arena *r = &g->r;
    return (size_t)r->nodes.n + r->kids.n + r->states.n + g->cells.n + g->merged.n + g->threads.n +
           g->configs.n;
}

static void start(meter *m)
{
    m->epoch = m->g->g.epoch;
    m->size = size_of(&m->g->g);
}

/* An automaton that started anew in between began small. */
static void stop(const meter *m, const char *call)
{
    size_t now = size_of(&m->g->g), before = m->epoch == m->g->g.epoch ? m->size : 0;
    ck_assert_msg(now <= before + WORK, "%s: %s added %zu", m->name, call, now - before);
}

/* Bits of the mask against stepping; what cannot be decided within a limit is left out. */
static void check_some(gmatch *m, const uint32_t *bits, const char *name)
{
    for (int32_t t = gmatch_length(m) % STRIDE; t < RIG_ROWS; t += STRIDE) {
        int legal = gmatch_prefix(m, &t, 1);
        if (legal >= 0 && rig_allowed(bits, t) != (legal == 1))
            ck_abort_msg("%s: token %d at %d", name, t, gmatch_length(m));
    }
}

/* Random tokens; returns how many calls were put off. */
static size_t run(grammar *g, const char *name, int tokens, uint64_t seed)
{
    gmatch *m = gmatch_new(g, rig.vocab);
    meter k = {.g = g, .name = name};
    size_t later = 0;
    ck_assert_ptr_nonnull(m);
    for (int i = 0; i < tokens; i++) {
        const uint32_t *bits = NULL;
        uint64_t id;
        uint8_t out[32];
        bool done = false;
        start(&k);
        int rc = gmatch_mask(m, &bits, &id);
        stop(&k, "a mask");
        later += rc == GM_LATER;
        if (rc == GM_LATER) rc = gmatch_finish(m, &bits, &id);
        if (rc == ERR_LIMIT) break;
        ck_assert_int_eq(rc, 0);
        if (i + 1 == tokens) check_some(m, bits, name);
        start(&k);
        ck_assert_int_ge(gmatch_forced(m, out, sizeof out), 0);
        stop(&k, "forced bytes");
        int32_t t = rig_draw(bits, RIG_ROWS, 0, &seed);
        start(&k);
        rc = gmatch_accept(m, t);
        stop(&k, "a token");
        later += rc == GM_LATER;
        ck_assert_int_eq(gmatch_length(m), i + (rc == 0));
        if (rc == GM_LATER) rc = gmatch_take(m, t);
        if (rc == ERR_LIMIT || t == RIG_END) break;
        ck_assert_int_eq(rc, 0);
        start(&k);
        rc = gmatch_done(m, &done);
        stop(&k, "a look at the end");
        later += rc == GM_LATER;
        ck_assert(rc == 0 || rc == GM_LATER);
    }
    gmatch_free(m);
    return later;
}

START_TEST(no_call_costs_much)
{
    size_t later = 0, ran = 0;
    for (int i = 0; i < N_HOSTILE; i++) {
        const hostile_grammar *h = &hostile_grammars[i];
        grammar *g = NULL;
        grammar_error why;
        int rc = hostile_compile(h, &g, &why);
        if (rc) {
            bool named =
                !strcmp(why.code, "grammar_too_complex") || !strcmp(why.code, "unsupported_schema");
            ck_assert_msg(named, "%s: %s %s", h->name, why.code, why.e.msg);
            continue;
        }
        later += run(g, h->name, quick() ? 4 : 10, 1);
        ran++;
        grammar_release(g);
    }
    ck_assert_uint_gt(ran, 10);
    ck_assert_uint_gt(later, 0);
}
END_TEST

/* A schema of MaskBench whose keys are told apart by words in them: most combinations are dead, and
 * that is seen from the expressions.  None of its tokens is put off. */
START_TEST(words_in_keys)
{
    static const char schema[] =
        "{\"type\":\"object\",\"patternProperties\":{\"netdir_(projects|work|scratch|share)\":{"
        "\"type\":\"string\"},\"netdrv_([a-z]+)\":{\"type\":\"object\"},\"net_[a-z]+[0-9]+\":{"
        "\"type\":\"null\"}}}";
    static const char text[] = "{\"netdir_projects\": \"a\", \"netdrv_a\": {\"b\": 1}, "
                               "\"net_abc1\": null, \"other\": [1]}";
    const grammar_spec s = {.kind = GRAMMAR_SCHEMA, .text = schema, .n = strlen(schema)};
    grammar *g = NULL;
    grammar_error why;
    err e;
    token_list l = {0};
    ck_assert_int_eq(grammar_compile(&s, &g, &why), 0);
    gmatch *m = gmatch_new(g, rig.vocab);
    ck_assert_int_eq(tokenizer_encode(rig.tok, text, strlen(text), false, NULL, 0, &l, &e), 0);
    for (size_t i = 0; i < l.n; i++) {
        const uint32_t *bits;
        uint64_t id;
        ck_assert_int_eq(gmatch_finish(m, &bits, &id), 0);
        ck_assert(rig_allowed(bits, l.v[i]));
        ck_assert_int_eq(gmatch_accept(m, l.v[i]), 0);
    }
    ck_assert_int_eq(gmatch_accept(m, RIG_END), 0);
    ck_assert_uint_lt(g->g.r.nodes.n, 20000);
    token_list_clear(&l);
    gmatch_free(m);
    grammar_release(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gmatch_hostile");
    TCase *t = tcase_create("hostile");
    tcase_add_unchecked_fixture(t, rig_open, rig_close);
    tcase_set_timeout(t, 200);
    tcase_add_test(t, no_call_costs_much);
    tcase_add_test(t, words_in_keys);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
