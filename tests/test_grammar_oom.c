/* test_grammar_oom.c - memory runs out at the n-th allocation of a matcher's life, for every n:
 * each call ends with ERR_NOMEM or goes through, a matcher that failed goes on where it was,
 * nothing leaks.  Allocation is interposed; under a sanitizer, which interposes it itself, nothing
 * fails. */
#include "engine/grammar/gmatch.h"
#include "engine/grammar/grammar_impl.h"

#include <check.h>

static _Thread_local long allowance;
static _Thread_local bool armed;
static _Thread_local long live;

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if !defined(SANITIZED) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void __libc_free(void *p);

static bool out_of_memory(void)
{
    return armed && --allowance < 0;
}
void *malloc(size_t n)
{
    void *p = out_of_memory() ? NULL : __libc_malloc(n);
    live += p != NULL;
    return p;
}
void *calloc(size_t n, size_t size)
{
    void *p = out_of_memory() ? NULL : __libc_calloc(n, size);
    live += p != NULL;
    return p;
}
void *realloc(void *p, size_t n)
{
    if (out_of_memory()) return NULL;
    void *q = __libc_realloc(p, n);
    live += !p && q;
    return q;
}
void free(void *p)
{
    live -= p != NULL;
    __libc_free(p);
}
#endif

static tokenizer *tok;
static grammar_vocab *vocab;
static int32_t rows, end_id;

static grammar_vocab *new_vocab(void)
{
    grammar_vocab *v = NULL;
    err e;
    return grammar_vocab_new(tok, rows, &end_id, 1, &v, &e) ? NULL : v;
}

static const char schema[] =
    "{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"kids\":{\"type\":\"array\",\"items\":"
    "{\"$ref\":\"#/$defs/t\"}},\"name\":{\"type\":\"string\",\"maxLength\":50},\"n\":{\"enum\":"
    "[1,2,\"abc\"]}},\"required\":[\"name\"],\"additionalProperties\":{\"type\":\"boolean\"}}},"
    "\"$ref\":\"#/$defs/t\"}";
static const char text[] =
    "{\"kids\": [{\"name\": \"ab\"}, {\"kids\": [], \"name\": \"x\", \"other\": true}"
    "], \"name\": \"y\", \"n\": \"abc\"}";

static grammar *compile(void)
{
    grammar *g = NULL;
    grammar_error why;
    const grammar_spec s = {
        .kind = GRAMMAR_SCHEMA, .text = schema, .n = strlen(schema), .free_order = true};
    return grammar_compile(&s, &g, &why) ? NULL : g;
}

/* A token of the text with its mask; what fails for memory is tried again without limit. */
static int take(gmatch *m, int32_t t, int *failed)
{
    const uint32_t *bits;
    uint64_t id;
    uint8_t forced[8];
    for (int tries = 0; tries < 3; tries++) {
        int before = gmatch_length(m), rc = gmatch_mask(m, &bits, &id);
        if (rc == GM_LATER) rc = gmatch_finish(m, &bits, &id);
        if (!rc && !(bits[t >> 5] >> (t & 31) & 1)) return ERR_INVALID;
        if (!rc && gmatch_forced(m, forced, sizeof forced) == ERR_NOMEM) rc = ERR_NOMEM;
        if (!rc) rc = gmatch_accept(m, t);
        if (!rc) return 0;
        if (rc != ERR_NOMEM || gmatch_length(m) != before) return ERR_INVALID;
        ++*failed;
        armed = false;
    }
    return ERR_NOMEM;
}

/* Allocation number n of the whole fails, and all behind it until something was refused for it. */
static int life(grammar *g, const token_list *ids, long n, int *failed)
{
    int rc = 0;
    allowance = n;
    armed = true;
    gmatch *m = gmatch_new(g, vocab);
    if (!m) {
        ++*failed;
        armed = false;
        m = gmatch_new(g, vocab);
    }
    for (size_t i = 0; i < ids->n && !rc; i++) {
        if (i == ids->n / 2) g->renew_bytes = 1; /* and an automaton that starts anew */
        if (i % 8 == 7) {
            gmatch *c = gmatch_clone(m);
            *failed += !c;
            gmatch_free(c);
        }
        rc = take(m, ids->v[i], failed);
    }
    armed = false;
    if (!rc) rc = gmatch_accept(m, end_id);
    gmatch_free(m);
    return rc;
}

/* A sanitizer's own malloc stands in front of ours, and refuses nothing. */
#if !defined(SANITIZED) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
enum { REFUSES = 1 };
#else
enum { REFUSES = 0 };
#endif

START_TEST(matchers)
{
    token_list ids = {0};
    err e;
    int refused = 0, quiet = 0;
    ck_assert_int_eq(tokenizer_encode(tok, text, strlen(text), false, NULL, 0, &ids, &e), 0);
    ck_assert_uint_gt(ids.n, 20);
    for (long n = 0; n < 4000 && quiet < 3; n += n < 100 ? 1 : 29) {
        int failed = 0;
        long before = live;
        vocab = new_vocab(); /* it keeps local masks */
        grammar *g = compile();
        int rc = life(g, &ids, n, &failed);
        grammar_release(g);
        grammar_vocab_free(vocab);
        ck_assert_msg(rc == 0, "allocation %ld: %d", n, rc);
        ck_assert_msg(live == before, "allocation %ld: %ld blocks leaked", n, live - before);
        refused += failed > 0;
        quiet = failed ? 0 : quiet + 1;
    }
    ck_assert_int_ge(quiet, 3);
    ck_assert_int_ge(refused, REFUSES * 60);
    token_list_clear(&ids);
}
END_TEST

START_TEST(vocabularies)
{
    int rc = ERR_NOMEM, refused = 0;
    for (long n = 0; rc; n += n < 60 ? 1 : 397) {
        grammar_vocab *v = NULL;
        err e;
        long before = live;
        allowance = n;
        armed = true;
        rc = grammar_vocab_new(tok, rows, &end_id, 1, &v, &e);
        armed = false;
        ck_assert_msg(rc == 0 || rc == ERR_NOMEM, "allocation %ld: %d", n, rc);
        refused += rc != 0;
        grammar_vocab_free(v);
        ck_assert_msg(live == before, "allocation %ld: %ld blocks leaked", n, live - before);
    }
    ck_assert_int_ge(refused, REFUSES * 30);
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
    grammar_release(compile()); /* what all grammars begin with is made once */
    Suite *s = suite_create("grammar_oom");
    TCase *t = tcase_create("oom");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, matchers);
    tcase_add_test(t, vocabularies);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    tokenizer_free(tok);
    return bad != 0;
}
