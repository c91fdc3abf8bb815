/* test_gmatch_threads.c - eight threads with one grammar: each draws what it would have drawn
 * alone, while the automaton starts anew under all of them. */
#include "engine/grammar/gmatch.h"
#include "engine/grammar/grammar_impl.h"
#include "tests/quick.h"

#include <check.h>

enum { THREADS = 8, STEPS = 60 };

static const char schema[] =
    "{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"kids\":{\"type\":\"array\",\"items\":"
    "{\"$ref\":\"#/$defs/t\"}},\"name\":{\"type\":\"string\",\"maxLength\":500},\"n\":{\"type\":"
    "\"number\",\"multipleOf\":0.25},\"at\":{\"type\":\"string\",\"format\":\"date-time\"}},"
    "\"required\":[\"name\"],\"additionalProperties\":{\"type\":\"boolean\"}}},\"$ref\":\"#/$defs/"
    "t\"}";

static tokenizer *tok;
static grammar_vocab *vocab;
static int32_t rows, end_id;

static uint32_t next_random(uint64_t *s)
{
    *s = *s * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*s >> 33);
}

static grammar *compile(void)
{
    grammar *g = NULL;
    grammar_error why;
    const grammar_spec s = {
        .kind = GRAMMAR_SCHEMA, .text = schema, .n = strlen(schema), .free_order = true};
    ck_assert_int_eq(grammar_compile(&s, &g, &why), 0);
    return g;
}

/* Runs of random tokens; their sum tells whether any mask was another.  0: something failed.
 * renews: the automaton starts anew at the next call after every third of them begins. */
static uint64_t run(grammar *g, uint64_t seed, int rounds, bool renews)
{
    uint64_t sum = seed;
    for (int r = 0; r < rounds; r++) {
        if (renews && r % 3 == 0) {
            pthread_mutex_lock(&g->lock);
            g->renew_bytes = 1;
            pthread_mutex_unlock(&g->lock);
        }
        gmatch *m = gmatch_new(g, vocab);
        for (int i = 0; m && i < STEPS; i++) {
            const uint32_t *bits;
            uint64_t id;
            int rc = gmatch_mask(m, &bits, &id);
            if (rc == GM_LATER) rc = gmatch_finish(m, &bits, &id);
            if (rc) return 0;
            int32_t t = (int32_t)(next_random(&seed) % (uint32_t)rows), tries = 0;
            while (tries < rows && !(bits[t >> 5] >> (t & 31) & 1)) t = (t + 1) % rows, tries++;
            if (tries == rows || gmatch_prefix(m, &t, 1) != 1 || gmatch_take(m, t)) return 0;
            sum = sum * 31 + (uint64_t)t;
            if (next_random(&seed) % 8 == 0) gmatch_rollback(m, (int)(next_random(&seed) % 4));
            if (next_random(&seed) % 16 == 0) {
                gmatch *c = gmatch_clone(m);
                uint8_t out[16];
                if (!c || gmatch_forced(c, out, sizeof out) < 0) return 0;
                gmatch_free(m);
                m = c;
            }
            if (t == end_id) break;
        }
        if (!m) return 0;
        gmatch_free(m);
    }
    return sum;
}

typedef struct {
    pthread_t thread;
    grammar *g;
    int number, rounds;
    uint64_t sum;
} worker;

static void *work(void *arg)
{
    worker *w = arg;
    w->sum = run(w->g, (uint64_t)w->number + 1, w->rounds, true);
    return NULL;
}

START_TEST(one_grammar)
{
    const int rounds = quick() ? 12 : 80;
    worker w[THREADS];
    uint64_t alone[THREADS];
    for (int i = 0; i < THREADS; i++) {
        grammar *g = compile();
        alone[i] = run(g, (uint64_t)i + 1, rounds, false);
        ck_assert_uint_ne(alone[i], 0);
        grammar_release(g);
    }
    grammar *g = compile();
    for (int i = 0; i < THREADS; i++) {
        w[i] = (worker){.g = g, .number = i, .rounds = rounds};
        ck_assert_int_eq(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(w[i].thread, NULL);
        ck_assert_msg(w[i].sum == alone[i], "thread %d drew something else", i);
    }
    ck_assert_uint_gt(g->g.epoch, 3);
    ck_assert_ptr_null(g->matchers);
    grammar_release(g);
}
END_TEST

int main(void)
{
    err e = {0};
    const tokenizer_source src = {.tokenizer_json = "tests/data/tokenizer/qwen.json"};
    tok = tokenizer_open(&src, &e);
    if (!tok) return 1;
    rows = tokenizer_n_vocab(tok) + 3;
    end_id = tokenizer_id(tok, "<|im_end|>");
    if (grammar_vocab_new(tok, rows, &end_id, 1, &vocab, &e)) return 1;
    Suite *s = suite_create("gmatch_threads");
    TCase *t = tcase_create("threads");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, one_grammar);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    grammar_vocab_free(vocab);
    tokenizer_free(tok);
    return bad != 0;
}
