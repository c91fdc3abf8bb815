/* test_judge.c - the prompt of a reranker: where a text has its places, what is closed to control
 * tokens, and which tokens a cut takes (API B5, G7, G19). */
#include "engine/text/judge.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

static tokenizer *tok;

static void open_tokenizer(void)
{
    const tokenizer_source src = {.tokenizer_json = "models/demo/tokenizer.json",
                                  .tokenizer_config = "models/demo/tokenizer_config.json"};
    err e = {0};
    tok = tokenizer_open(&src, &e);
    ck_assert_msg(tok != NULL, "%s", e.msg);
}

static void close_tokenizer(void)
{
    tokenizer_free(tok);
}

static judge_form form(const char *text)
{
    judge_form f;
    err e = {0};
    ck_assert_msg(!judge_form_open(&f, text, text ? strlen(text) : 0, &e), "%s", e.msg);
    return f;
}

static judge_text words(const char *s)
{
    return (judge_text){s, s ? strlen(s) : 0};
}

static token_list ask(const judge_form *f, judge_ask a, int64_t *n_cut)
{
    token_list ids = {0};
    err e = {0};
    ck_assert_msg(!judge_encode(tok, f, &a, &ids, n_cut, &e), "%s", e.msg);
    return ids;
}

/* The ids of a text in which control tokens count. */
static token_list plain(const char *text)
{
    token_list ids = {0};
    err e = {0};
    ck_assert_msg(!tokenizer_encode(tok, text, strlen(text), true, NULL, 0, &ids, &e), "%s", e.msg);
    return ids;
}

static void same(token_list *a, token_list *b)
{
    ck_assert_uint_eq(a->n, b->n);
    ck_assert_mem_eq(a->v, b->v, a->n * sizeof *a->v);
    token_list_clear(a);
    token_list_clear(b);
}

#define HEAD                                                                                    \
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query " \
    "and "                                                                                      \
    "the Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n"    \
    "<|im_start|>user\n<Instruct>: "
#define USUAL "Given a web search query, retrieve relevant passages that answer the query"
#define TAIL "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

START_TEST(places_of_texts)
{
    static const struct {
        const char *text, *want; /* NULL: the built-in one; i, q, d stand in the places */
    } cases[] = {
        {NULL, HEAD "i\n<Query>: q\n<Document>: d" TAIL},
        {"judge {query} by {document}", "judge q by d"},
        {"{document}{query}", "dq"},
        {"{query}, {query}: {document}!", "q, q: d!"},
        {"<Instruct>: find\n{query} {document}", "<Instruct>: i\nq d"},
        {"{document}\n<Instruct>: find {query}", "d\n<Instruct>: iq"},
        {"<Instruct>: \n{query} {document}", "<Instruct>: \nq d"},
        {"<Instruct>: {query} {document}", "<Instruct>: q d"},
        {"{query} {quer} {Document} {document", NULL},
        {"{document}", NULL},
        {"{query}", NULL},
        {"{query}{document}{document}", NULL},
        {"", NULL},
        {"{query}1{query}2{query}3{query}4{query}5{query}6{query}7{query}8{document}", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        judge_form f;
        err e = {0};
        const char *text = cases[i].text;
        int rc = judge_form_open(&f, text, text ? strlen(text) : 0, &e);
        ck_assert_msg(!rc == (cases[i].want != NULL), "%s: %s", text, e.msg);
        if (rc) {
            ck_assert_str_ne(e.msg, "");
            continue;
        }
        int64_t n_cut = 0;
        token_list got = ask(&f,
                             (judge_ask){.instruction = words("i"),
                                         .query = words("q"),
                                         .document = words("d")},
                             &n_cut),
                   want = plain(cases[i].want);
        ck_assert_msg(f.instructed == (strstr(cases[i].want, ": i") != NULL), "%s", text);
        same(&got, &want);
        ck_assert_int_eq(n_cut, 0);
    }
}
END_TEST

/* Without an instruction the text's own stands there. */
START_TEST(own_instruction)
{
    int64_t n_cut = 0;
    judge_form f = form(NULL);
    judge_ask a = {.query = words("q"), .document = words("d")};
    token_list got = ask(&f, a, &n_cut),
               want = plain(HEAD USUAL "\n<Query>: q\n<Document>: d" TAIL);
    same(&got, &want);
    f = form("<Instruct>: find {query}: {document}");
    got = ask(&f, a, &n_cut);
    want = plain("<Instruct>: find q: d");
    same(&got, &want);
}
END_TEST

/* G19: what a client sends is text, and a mark in it is no place. */
START_TEST(texts_are_closed)
{
    static const char *const texts[] = {"<|im_end|>", "{document}", "{query}"};
    int64_t n_cut = 0;
    judge_form f = form("<|im_start|>{query}<|im_end|>{document}<|im_end|>");
    int32_t end = tokenizer_id(tok, "<|im_end|>");
    ck_assert_int_ge(end, 0);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        token_list got =
            ask(&f, (judge_ask){.query = words(texts[i]), .document = words(texts[i])}, &n_cut);
        int ends = 0;
        for (size_t k = 0; k < got.n; k++) ends += got.v[k] == end;
        ck_assert_int_eq(ends, 2);
        ck_assert_uint_gt(got.n, 6);
        token_list_clear(&got);
    }
}
END_TEST

/* G7: the document gives, at the end that was asked for; what stands around it stays. */
START_TEST(cuts)
{
    static const char *const forms[] = {NULL, "{query}\n{document}<|im_end|>\nyes or no?",
                                        "{document}<|im_end|>{query}", "Q {query} D {document}"};
    static const char document[] = "one two three four five six seven eight nine ten";
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        judge_form f = form(forms[i]);
        judge_ask a = {.query = words("what is it?"), .document = words(document)};
        int64_t n_cut = 0;
        token_list all = ask(&f, a, &n_cut);
        a.document = words("");
        token_list frame = ask(&f, a, &n_cut);
        a.document = words(document);
        ck_assert_int_eq(n_cut, 0);
        for (int side = 0; side < 2; side++) {
            a.keep = (int64_t)all.n - 3;
            a.right = side;
            n_cut = 0;
            token_list cut = ask(&f, a, &n_cut);
            ck_assert_int_eq(n_cut, 3);
            ck_assert_uint_eq(cut.n, all.n - 3);
            /* One piece is missing, and it lies in the document. */
            size_t first = 0, last = 0;
            while (first < cut.n && cut.v[first] == all.v[first]) first++;
            while (last < cut.n - first && cut.v[cut.n - 1 - last] == all.v[all.n - 1 - last])
                last++;
            ck_assert_uint_eq(first + last, cut.n);
            size_t before = 0, after = 0;
            while (before < frame.n && frame.v[before] == all.v[before]) before++;
            while (after < frame.n - before &&
                   frame.v[frame.n - 1 - after] == all.v[all.n - 1 - after])
                after++;
            ck_assert_uint_ge(first, before);
            ck_assert_uint_ge(last, after);
            if (side) ck_assert_uint_le(last, after + 1);
            else ck_assert_uint_le(first, before + 1);
            token_list_clear(&cut);
        }
        err e = {0};
        token_list none = {0};
        a.keep = 2;
        ck_assert_int_eq(judge_encode(tok, &f, &a, &none, &n_cut, &e), ERR_LIMIT);
        ck_assert_ptr_nonnull(strstr(e.msg, "without its document"));
        token_list_clear(&none);
        token_list_clear(&all);
        token_list_clear(&frame);
    }
}
END_TEST

START_TEST(long_texts_are_refused)
{
    static char text[70000];
    judge_form f;
    err e = {0};
    memset(text, 'x', sizeof text);
    memcpy(text, "{query}{document}", 17);
    ck_assert_int_eq(judge_form_open(&f, text, sizeof text, &e), ERR_LIMIT);
    ck_assert_int_eq(judge_form_open(&f, text, 60000, &e), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("judge");
    TCase *t = tcase_create("judge");
    tcase_add_unchecked_fixture(t, open_tokenizer, close_tokenizer);
    tcase_add_test(t, places_of_texts);
    tcase_add_test(t, own_instruction);
    tcase_add_test(t, texts_are_closed);
    tcase_add_test(t, cuts);
    tcase_add_test(t, long_texts_are_refused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
