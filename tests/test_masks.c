/* test_masks.c - masks with the real vocabulary of Qwen2 and the open slice of MaskBench: equal to
 * stepping every token, for schemas, free text and thoughts; long texts, automata that start anew
 * under their matchers, time. */
#include "base/clock.h"
#include "engine/grammar/grammar_impl.h"
#include "tests/grammar_rig.h"
#include "tests/quick.h"

#include <check.h>

static const uint32_t *mask_of(gmatch *m)
{
    const uint32_t *bits = NULL;
    uint64_t id;
    int rc = gmatch_mask(m, &bits, &id);
    if (rc == GM_LATER) rc = gmatch_finish(m, &bits, &id);
    if (rc) ck_abort_msg("no mask: %d", rc);
    return bits;
}

/* Every bit of the mask is what stepping the token says. */
static void check_mask(gmatch *m, const char *what)
{
    const uint32_t *bits = mask_of(m);
    int32_t wrong = -1;
    for (int32_t t = 0; t < RIG_ROWS && wrong < 0; t++) /* ck_assert writes a file each time */
        if (rig_allowed(bits, t) != (gmatch_prefix(m, &t, 1) == 1)) wrong = t;
    ck_assert_msg(wrong < 0, "%s: token %d at %d", what, wrong, gmatch_length(m));
}

/* A slice of what `bench_masks oracle` does 20,000 times. */
START_TEST(random_states)
{
    rig_slice s = rig_read_slice(quick() ? 97 : 23);
    uint64_t seed = 11;
    ck_assert_uint_gt(s.n, 20);
    for (size_t i = 0; i < s.n; i++) {
        grammar *g = rig_compile(&s.v[i], i % 2);
        gmatch *m = g ? gmatch_new(g, rig.vocab) : NULL;
        int stop = (int)(rig_random(&seed) % 50);
        for (int step = 0; m && step <= stop; step++) {
            if (step == stop) check_mask(m, s.v[i].id);
            int32_t t = rig_draw(mask_of(m), RIG_ROWS, step, &seed);
            ck_assert_int_eq(gmatch_accept(m, t), 0);
            if (t == RIG_END) break;
        }
        gmatch_free(m);
        grammar_release(g);
    }
    rig_free_slice(&s);
}
END_TEST

static void accept_text(gmatch *m, const char *text)
{
    err e;
    token_list l = {0};
    ck_assert_int_eq(tokenizer_encode(rig.tok, text, strlen(text), false, NULL, 0, &l, &e), 0);
    for (size_t i = 0; i < l.n; i++)
        ck_assert_msg(gmatch_accept(m, l.v[i]) == 0, "%s: token %zu", text, i);
    token_list_clear(&l);
}

static gmatch *matcher(const grammar_answer *a)
{
    grammar *g = NULL;
    grammar_error why;
    ck_assert_msg(grammar_compile_answer(a, &g, &why) == 0, "%s", why.e.msg);
    gmatch *m = gmatch_new(g, rig.vocab);
    grammar_release(g);
    ck_assert_ptr_nonnull(m);
    return m;
}

static void check_states(const grammar_answer *a, const char *const *texts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        gmatch *m = matcher(a);
        accept_text(m, texts[i]);
        check_mask(m, texts[i]);
        gmatch_free(m);
    }
}
#define STATES(answer, ...)                                           \
    do {                                                              \
        static const char *const texts_[] = {__VA_ARGS__};            \
        check_states(answer, texts_, sizeof texts_ / sizeof *texts_); \
    } while (0)

/* J3, R1: a thought is any text until its tag, which may be one token or several. */
START_TEST(thoughts)
{
    const grammar_spec object = {.kind = GRAMMAR_JSON_OBJECT};
    const grammar_answer open = {.think = GRAMMAR_THINK_OPEN, .body = &object},
                         may = {.think = GRAMMAR_THINK_MAY, .body = &object},
                         text = {.think = GRAMMAR_THINK_OPEN};
    STATES(&open, "", "so a < b", "so </thi", "done.</think>", "done.</think>\n\n{\"a\": \"x");
    STATES(&may, "", "<think>", "<th", "{\"k");
    STATES(&text, "hm </", "</think> and");
}
END_TEST

START_TEST(patterns)
{
    static const char *const regex[] = {"[a-z0-9-]{1,63}", "[A-Za-z ]+",
                                        ".*foo.*",         "(a|b)*c{3,200}",
                                        "[^<]{0,20}<end>", "([0-9]{1,3}\\.){3}[0-9]{1,3}",
                                        "\\w+@\\w+",       "(\\S+ ){0,30}\\S+"};
    for (size_t i = 0; i < sizeof regex / sizeof *regex; i++) {
        const grammar_spec s = {.kind = GRAMMAR_REGEX, .text = regex[i], .n = strlen(regex[i])};
        gmatch *m = matcher(&(grammar_answer){.body = &s});
        uint64_t seed = i;
        for (int step = 0; step < (quick() ? 1 : 4); step++) {
            check_mask(m, regex[i]);
            int32_t t = rig_draw(mask_of(m), RIG_ROWS, step, &seed);
            if (t == RIG_END || gmatch_accept(m, t)) break;
        }
        gmatch_free(m);
    }
}
END_TEST

/* Tokens that a GBNF grammar names are drawn by id, control tokens too; the same text in bytes is
 * not them, unless the grammar has it. */
START_TEST(named_tokens)
{
    static const struct {
        const char *gbnf;
        int32_t yes[3], no[3];
    } cases[] = {{"root ::= <think> \"x\"", {151667}, {27, 151668, 151644}},
                 {"root ::= (<[151644]> | \"<\") \"x\"", {151644, 27}, {151667, 151645}},
                 {"root ::= \"<think>\" \"x\"", {151667, 27, 13708}, {151668}},
                 {"root ::= (<think> | \"<think>\") \"x\"+", {151667, 27}, {151668}},
                 {"root ::= !<think> \"x\"", {27, 151668, 64}, {151667}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const grammar_spec s = {.kind = GRAMMAR_GBNF,
                                .text = cases[i].gbnf,
                                .n = strlen(cases[i].gbnf),
                                .tok = rig.tok};
        gmatch *m = matcher(&(grammar_answer){.body = &s});
        check_mask(m, cases[i].gbnf);
        const uint32_t *bits = mask_of(m);
        for (int k = 0; k < 3; k++) {
            if (cases[i].yes[k]) ck_assert_msg(rig_allowed(bits, cases[i].yes[k]), "%zu", i);
            if (cases[i].no[k]) ck_assert_msg(!rig_allowed(bits, cases[i].no[k]), "%zu", i);
        }
        uint8_t forced[16];
        int n = gmatch_forced(m, forced, sizeof forced);
        ck_assert_int_eq(n, i == 2 ? 8 : 0);
        ck_assert_int_eq(gmatch_accept(m, cases[i].yes[0]), 0);
        check_mask(m, cases[i].gbnf);
        ck_assert(rig_allowed(mask_of(m), tokenizer_id(rig.tok, "x")));
        gmatch_free(m);
    }
}
END_TEST

START_TEST(recursive_gbnf)
{
    static const char gbnf[] =
        "root ::= expr\nexpr ::= term ([-+*/] term)*\nterm ::= [0-9]{1,20} | "
        "\"(\" expr \")\" | \"\\\"\" [^\"<]* \"\\\"\"\n";
    const grammar_spec s = {.kind = GRAMMAR_GBNF, .text = gbnf, .n = strlen(gbnf), .tok = rig.tok};
    gmatch *m = matcher(&(grammar_answer){.body = &s});
    uint64_t seed = 2;
    for (int step = 0; step < (quick() ? 3 : 20); step++) {
        check_mask(m, gbnf);
        int32_t t = rig_draw(mask_of(m), RIG_ROWS, step, &seed);
        if (t == RIG_END || gmatch_accept(m, t)) break;
    }
    gmatch_free(m);
}
END_TEST

/* A long text outgrows the automaton, which starts anew and takes every matcher along. */
START_TEST(long_texts)
{
    static const char schema[] =
        "{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"kids\":{\"type\":\"array\","
        "\"items\":"
        "{\"$ref\":\"#/$defs/"
        "t\"}},\"name\":{\"type\":\"string\",\"maxLength\":300000},\"n\":{\"type\":"
        "\"integer\",\"multipleOf\":7}},\"required\":[\"name\"]}},\"$ref\":\"#/$defs/t\"}";
    const grammar_spec s = {.kind = GRAMMAR_SCHEMA, .text = schema, .n = strlen(schema)};
    grammar *g = NULL;
    grammar_error why;
    ck_assert_int_eq(grammar_compile(&s, &g, &why), 0);
    gmatch *deep = gmatch_new(g, rig.vocab), *far = gmatch_new(g, rig.vocab);
    accept_text(deep, "{\"kids\": [{\"kids\": [{\"name\": \"abc\"}, {\"kids\": [], \"name\": \"x");
    accept_text(far, "{\"name\": \"");
    int before = gmatch_length(far), n = quick() ? 9000 : 18000;
    const int32_t word = tokenizer_id(rig.tok, " international"); /* 14 characters */
    ck_assert_int_ge(word, 0);
    const uint32_t epoch = g->g.epoch;
    int taken = 0;
    while (taken < n && !gmatch_accept(far, word)) taken++;
    ck_assert_int_eq(taken, n);
    ck_assert_uint_gt(g->g.epoch, epoch);
    ck_assert_int_eq(gmatch_length(far), before + n);
    check_mask(far, "far");
    check_mask(deep, "deep");
    gmatch *copy = gmatch_clone(deep);
    accept_text(copy, "\"}], \"name\": \"y\", \"n\": 14}], \"name\": \"z\"}");
    bool done = true;
    ck_assert(gmatch_done(copy, &done) == 0 && !done); /* "n" may follow */
    ck_assert_int_eq(gmatch_accept(copy, RIG_END), 0);
    gmatch_rollback(far, n - 3); /* behind what was taken along */
    check_mask(far, "taken back");
    accept_text(far, "\", \"n\": 21}");
    ck_assert_int_eq(gmatch_accept(far, RIG_END), 0);
    gmatch_free(copy);
    gmatch_free(far);
    gmatch_free(deep);
    grammar_release(g);
}
END_TEST

/* maxLength counts characters to the last one, however large it is. */
START_TEST(counts_are_exact)
{
    static const int lengths[] = {1, 31, 32, 33, 127, 128, 129, 130, 1000};
    const int32_t a = tokenizer_id(rig.tok, "a"), quote = tokenizer_id(rig.tok, "\"");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char schema[80];
        snprintf(schema, sizeof schema, "{\"type\":\"string\",\"minLength\":%d,\"maxLength\":%d}",
                 lengths[i], lengths[i]);
        const grammar_spec s = {.kind = GRAMMAR_SCHEMA, .text = schema, .n = strlen(schema)};
        gmatch *m = matcher(&(grammar_answer){.body = &s});
        ck_assert_int_eq(gmatch_accept(m, quote), 0);
        for (int k = 0; k < lengths[i]; k++) {
            if (rig_allowed(mask_of(m), quote) || gmatch_accept(m, a))
                ck_abort_msg("%s after %d", schema, k);
            if (lengths[i] - k == 5 || lengths[i] - k == 40) check_mask(m, schema);
        }
        const uint32_t *bits = mask_of(m);
        ck_assert(rig_allowed(bits, quote) && !rig_allowed(bits, a));
        gmatch_free(m);
    }
}
END_TEST

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Microseconds to step every token where m stands. */
static int64_t walk_us(gmatch *m)
{
    int64_t t0 = clock_us();
    for (int32_t t = 0; t < RIG_ROWS; t++) gmatch_prefix(m, &t, 1);
    return clock_us() - t0;
}

/* A mask costs a thousandth and less of stepping every token; here far more would do. */
START_TEST(in_time)
{
    enum { MAX = 20000 };
    if (quick()) return;
    rig_slice s = rig_read_slice(31);
    int64_t *us = calloc(MAX, sizeof *us), walk = INT64_MAX;
    size_t n = 0;
    uint64_t seed = 5;
    for (size_t i = 0; i < s.n; i++) {
        grammar *g = rig_compile(&s.v[i], false);
        gmatch *m = g ? gmatch_new(g, rig.vocab) : NULL;
        for (int step = 0; m && step < 80 && n < MAX; step++) {
            int64_t t0 = clock_us();
            const uint32_t *bits = mask_of(m);
            us[n++] = clock_us() - t0;
            if (step == 16 && i % 4 == 0) {
                int64_t w = walk_us(m);
                if (w < walk) walk = w;
            }
            int32_t t = rig_draw(bits, RIG_ROWS, step, &seed);
            if (t == RIG_END || gmatch_accept(m, t)) break;
        }
        gmatch_free(m);
        grammar_release(g);
    }
    ck_assert_uint_gt(n, 1000);
    qsort(us, n, sizeof *us, by_value);
    ck_assert_msg(us[n / 2] < walk / 20, "half of the masks take %ld us, stepping all tokens %ld",
                  (long)us[n / 2], (long)walk);
    free(us);
    rig_free_slice(&s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("masks");
    TCase *t = tcase_create("masks");
    tcase_add_unchecked_fixture(t, rig_open, rig_close);
    tcase_set_timeout(t, 200);
    tcase_add_test(t, random_states);
    tcase_add_test(t, thoughts);
    tcase_add_test(t, patterns);
    tcase_add_test(t, named_tokens);
    tcase_add_test(t, recursive_gbnf);
    tcase_add_test(t, long_texts);
    tcase_add_test(t, counts_are_exact);
    tcase_add_test(t, in_time);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad != 0;
}
