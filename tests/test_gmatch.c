/* test_gmatch.c - matchers: masks against stepping every token, tokens taken and taken back,
 * drafts, forced bytes, ends. */
#include "engine/grammar/gmatch.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static tokenizer *tok;
static grammar_vocab *vocab;
static int32_t rows, end_id;
enum { PADDING = 37 };

static void open_vocab(void)
{
    err e = {0};
    const tokenizer_source src = {.vocab_json = "tests/data/tokenizer/qwen/vocab.json",
                                  .merges = "tests/data/tokenizer/qwen/merges.txt",
                                  .tokenizer_config =
                                      "tests/data/tokenizer/qwen/tokenizer_config.json"};
    tok = tokenizer_open(&src, &e);
    ck_assert_msg(tok != NULL, "%s", e.msg);
    rows = tokenizer_n_vocab(tok) + PADDING;
    end_id = tokenizer_eos(tok);
    ck_assert_int_ge(end_id, 0);
    ck_assert_msg(grammar_vocab_new(tok, rows, &end_id, 1, &vocab, &e) == 0, "%s", e.msg);
    ck_assert(grammar_vocab_complete(vocab));
    ck_assert_int_eq(grammar_vocab_rows(vocab), rows);
}

static void close_vocab(void)
{
    grammar_vocab_free(vocab);
    tokenizer_free(tok);
}

static grammar *compile(grammar_kind kind, const char *text, bool free_order)
{
    grammar *g = NULL;
    grammar_error why;
    const grammar_spec s = {
        .kind = kind, .text = text, .n = strlen(text), .free_order = free_order};
    ck_assert_msg(grammar_compile(&s, &g, &why) == 0, "%s: %s", text, why.e.msg);
    return g;
}

static gmatch *matcher(grammar_kind kind, const char *text)
{
    grammar *g = compile(kind, text, false);
    gmatch *m = gmatch_new(g, vocab);
    ck_assert_ptr_nonnull(m);
    grammar_release(g);
    return m;
}

static const uint32_t *mask_of(gmatch *m, uint64_t *id)
{
    const uint32_t *bits = NULL;
    int rc = gmatch_mask(m, &bits, id);
    if (rc == GM_LATER) rc = gmatch_finish(m, &bits, id);
    ck_assert_int_eq(rc, 0);
    return bits;
}

static bool done(gmatch *m)
{
    bool yes = false;
    ck_assert_int_eq(gmatch_done(m, &yes), 0);
    return yes;
}

static bool allowed(const uint32_t *bits, int32_t id)
{
    return bits[id >> 5] >> (id & 31) & 1;
}

/* Every bit of the mask is what stepping the token says. */
static void check_mask(gmatch *m)
{
    uint64_t id;
    const uint32_t *bits = mask_of(m, &id);
    int32_t wrong = -1;
    for (int32_t t = 0; t < rows && wrong < 0; t++) /* ck_assert writes a file each time */
        if (allowed(bits, t) != (gmatch_prefix(m, &t, 1) == 1)) wrong = t;
    for (int32_t t = rows; t % 32; t++)
        if (allowed(bits, t)) wrong = t;
    ck_assert_msg(wrong < 0, "token %d at %d", wrong, gmatch_length(m));
}

static uint32_t next_random(uint64_t *s)
{
    *s = *s * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*s >> 33);
}

/* A token of the mask: any, or now and then one of a few that lead to an end. */
static int32_t draw(const uint32_t *bits, uint64_t *seed)
{
    int32_t t = (int32_t)(next_random(seed) % (uint32_t)rows);
    if (next_random(seed) % 2) t = (int32_t)(next_random(seed) % 256);
    for (int32_t i = 0; i < rows; i++, t = (t + 1) % rows)
        if (allowed(bits, t)) return t;
    ck_abort_msg("empty mask");
}

static const char *const schemas[] = {
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":9},\"age\":{"
    "\"type\":\"integer\",\"minimum\":3}},\"required\":[\"age\"]}",
    "{\"type\":\"array\",\"items\":{\"enum\":[\"red\",\"green\",1.5,null]},\"maxItems\":5}",
    "{\"type\":\"string\",\"format\":\"date-time\"}",
    "{\"type\":\"string\",\"pattern\":\"^[a-z ]+[0-9]{2,40}$\"}",
    "{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"k\":{\"$ref\":\"#/$defs/t\"},\"v\":{"
    "\"type\":\"number\"}}}},\"$ref\":\"#/$defs/t\"}",
    "{\"anyOf\":[{\"type\":\"string\",\"minLength\":300},{\"type\":\"boolean\"},{\"type\":"
    "\"array\"}]}",
    "true"};

START_TEST(masks_equal_stepping)
{
    uint64_t seed = 7;
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        grammar *g = compile(GRAMMAR_SCHEMA, schemas[i], i % 2);
        for (int run = 0; run < 3; run++) {
            gmatch *m = gmatch_new(g, vocab);
            for (int step = 0; step < 30; step++) {
                uint64_t id;
                check_mask(m);
                int32_t t = draw(mask_of(m, &id), &seed);
                ck_assert_int_eq(gmatch_accept(m, t), 0);
                if (t == end_id) break;
            }
            gmatch_free(m);
        }
        grammar_release(g);
    }
}
END_TEST

START_TEST(taken_back_and_cloned)
{
    uint64_t seed = 3, id, again;
    gmatch *m = matcher(GRAMMAR_SCHEMA, schemas[0]);
    int32_t ids[40];
    uint64_t mask_ids[41];
    int n = 0;
    for (; n < 40; n++) {
        const uint32_t *bits = mask_of(m, &mask_ids[n]);
        ids[n] = draw(bits, &seed);
        if (ids[n] == end_id) break;
        ck_assert_int_eq(gmatch_accept(m, ids[n]), 0);
    }
    ck_assert_int_gt(n, 2);
    gmatch *c = gmatch_clone(m);
    ck_assert_int_eq(gmatch_length(c), n);
    gmatch_rollback(m, n - 2);
    ck_assert_int_eq(gmatch_length(m), 2);
    ck_assert_int_eq(gmatch_prefix(m, ids + 2, n - 2), n - 2);
    check_mask(m);
    for (int i = 2; i < n; i++) ck_assert_int_eq(gmatch_accept(m, ids[i]), 0);
    const uint32_t *a = mask_of(m, &id), *b = mask_of(c, &again);
    ck_assert_mem_eq(a, b, ((size_t)rows + 31) / 32 * 4);
    gmatch_rollback(c, 1000);
    ck_assert_int_eq(gmatch_length(c), 0);
    ck_assert_int_eq(gmatch_prefix(c, ids, n), n);
    gmatch_free(c);
    gmatch_free(m);
}
END_TEST

static void accept_text(gmatch *m, const char *text)
{
    err e;
    token_list l = {0};
    ck_assert_int_eq(tokenizer_encode(tok, text, strlen(text), false, NULL, 0, &l, &e), 0);
    for (size_t i = 0; i < l.n; i++) ck_assert_int_eq(gmatch_accept(m, l.v[i]), 0);
    token_list_clear(&l);
}

START_TEST(illegal_tokens_change_nothing)
{
    uint64_t id;
    gmatch *m = matcher(GRAMMAR_REGEX, "ab+c");
    accept_text(m, "ab");
    int n = gmatch_length(m);
    int32_t a = tokenizer_id(tok, "a"), b = tokenizer_id(tok, "b");
    const int32_t bad[] = {a, end_id, -1, rows - 1, rows, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(gmatch_accept(m, bad[i]), ERR_INVALID);
        const int32_t two[2] = {b, bad[i]};
        ck_assert_int_eq(gmatch_prefix(m, two, 2), 1);
    }
    ck_assert_int_eq(gmatch_length(m), n);
    const uint32_t *bits = mask_of(m, &id);
    ck_assert(allowed(bits, b) && !allowed(bits, a) && !allowed(bits, end_id));
    gmatch_free(m);
}
END_TEST

START_TEST(ends)
{
    uint64_t id;
    gmatch *m = matcher(GRAMMAR_REGEX, "ab?");
    ck_assert(!done(m));
    accept_text(m, "a");
    ck_assert(!done(m));
    const uint32_t *bits = mask_of(m, &id);
    ck_assert(allowed(bits, end_id) && allowed(bits, tokenizer_id(tok, "b")));
    accept_text(m, "b");
    ck_assert(done(m));
    check_mask(m); /* only the end */
    ck_assert_int_eq(gmatch_accept(m, end_id), 0);
    ck_assert(done(m));
    check_mask(m);
    ck_assert_int_eq(gmatch_accept(m, end_id), 0); /* a step that was open already */
    ck_assert_int_eq(gmatch_accept(m, tokenizer_id(tok, "b")), ERR_INVALID);
    gmatch_rollback(m, 3);
    ck_assert(!done(m));
    gmatch_free(m);
}
END_TEST

START_TEST(forced_bytes)
{
    static const struct {
        const char *regex, *before, *forced;
    } cases[] = {{"abc|abd", "", "ab"},
                 {"ab(cd)?", "", "ab"},
                 {"ab(cd)?", "ab", ""},
                 {"ab(cd)?", "abc", "d"},
                 {"[xy]z", "", ""},
                 {"[xy]z", "x", "z"},
                 {"\xc3\xa9\xe2\x82\xac", "", "\xc3\xa9\xe2\x82\xac"},
                 {"(\xc3\xa9|\xc3\xa8)!", "", "\xc3"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t out[32];
        gmatch *m = matcher(GRAMMAR_REGEX, cases[i].regex);
        accept_text(m, cases[i].before);
        int n = gmatch_forced(m, out, sizeof out), want = (int)strlen(cases[i].forced);
        ck_assert_msg(n == want && !memcmp(out, cases[i].forced, (size_t)n), "%s: %.*s",
                      cases[i].regex, n, (const char *)out);
        if (want > 1) ck_assert_int_eq(gmatch_forced(m, out, 1), 1);
        gmatch_free(m);
    }
}
END_TEST

/* Two tokens of the same bytes, tokens too long for a grammar, fewer rows than tokens, end ids that
 * are no tokens. */
START_TEST(odd_vocabularies)
{
    char path[] = "/tmp/quern-odd-XXXXXX", text[600], many[301];
    memset(many, 'x', 300);
    many[300] = 0;
    int fd = mkstemp(path), n = tokenizer_n_vocab(tok);
    snprintf(text, sizeof text,
             "{\"eos_token\":\"!\",\"added_tokens_decoder\":{\"%d\":{\"content\":\"ab\","
             "\"special\":false},"
             "\"%d\":{\"content\":\"%s\",\"special\":false}}}",
             n, n + 1, many);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    err e = {0};
    const tokenizer_source src = {.vocab_json = "tests/data/tokenizer/qwen/vocab.json",
                                  .merges = "tests/data/tokenizer/qwen/merges.txt",
                                  .tokenizer_config = path};
    tokenizer *odd = tokenizer_open(&src, &e);
    unlink(path);
    ck_assert_msg(odd != NULL, "%s", e.msg);
    grammar_vocab *v = NULL;
    const int32_t end_ids[] = {-1, 5, n + 100, 5, INT32_MAX};
    ck_assert_int_eq(grammar_vocab_new(odd, n + 2, end_ids, 5, &v, &e), 0);
    grammar *g = compile(GRAMMAR_REGEX, "[a-z]*", false);
    gmatch *m = gmatch_new(g, v);
    uint64_t id;
    const uint32_t *bits = mask_of(m, &id);
    int32_t ab = tokenizer_id(tok, "ab");
    ck_assert(allowed(bits, ab) && allowed(bits, n)); /* both are "ab" */
    ck_assert(!allowed(bits, n + 1));                 /* no token under a grammar */
    ck_assert(allowed(bits, 5));                      /* the end, whatever its text */
    ck_assert_int_eq(gmatch_accept(m, n), 0);
    ck_assert_int_eq(gmatch_accept(m, n + 1), ERR_INVALID);
    gmatch_free(m);
    grammar_vocab_free(v);
    ck_assert_int_eq(grammar_accepts(g, "ab", 2), 1); /* a grammar outlives its vocabulary */
    ck_assert_int_eq(grammar_vocab_new(odd, 200, end_ids, 2, &v, &e), 0);
    m = gmatch_new(g, v); /* and serves another */
    bits = mask_of(m, &id);
    for (int32_t t = 0; t < 224; t++)
        if (t >= 200 && allowed(bits, t)) ck_abort_msg("row %d", t);
    gmatch_free(m);
    grammar_release(g);
    grammar_vocab_free(v);
    ck_assert_int_eq(grammar_vocab_new(odd, 0, NULL, 0, &v, &e), ERR_LIMIT);
    tokenizer_free(odd);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gmatch");
    TCase *t = tcase_create("gmatch");
    tcase_add_unchecked_fixture(t, open_vocab, close_vocab);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, masks_equal_stepping);
    tcase_add_test(t, taken_back_and_cloned);
    tcase_add_test(t, illegal_tokens_change_nothing);
    tcase_add_test(t, ends);
    tcase_add_test(t, forced_bytes);
    tcase_add_test(t, odd_vocabularies);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad != 0;
}
