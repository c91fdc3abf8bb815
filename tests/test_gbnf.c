/* test_gbnf.c - GBNF grammars: what llama.cpp's syntax says, recursion in all its places, tokens by
 * name, refusals with line and column, limits (API J1, J4). */
#include "engine/grammar/grammar_impl.h"
#include "engine/text/tokenizer.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tokenizer *tok;

static int try(const char *text, grammar **g, grammar_error *why)
{
    const grammar_spec s = {.kind = GRAMMAR_GBNF, .text = text, .n = strlen(text), .tok = tok};
    return grammar_compile(&s, g, why);
}

typedef struct {
    const char *text;
    const char *yes[10], *no[10]; /* NULL-terminated */
} verdicts;

static void judge(const verdicts *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        grammar *g;
        grammar_error why;
        ck_assert_msg(try(v[i].text, &g, &why) == 0, "%s: %s", v[i].text, why.e.msg);
        for (const char *const *t = v[i].yes; *t; t++)
            ck_assert_msg(grammar_accepts(g, *t, strlen(*t)) == 1, "%s rejects \"%s\"", v[i].text,
                          *t);
        for (const char *const *t = v[i].no; *t; t++)
            ck_assert_msg(grammar_accepts(g, *t, strlen(*t)) == 0, "%s accepts \"%s\"", v[i].text,
                          *t);
        grammar_release(g);
    }
}
#define JUDGE(...)                                     \
    do {                                               \
        static const verdicts table[] = {__VA_ARGS__}; \
        judge(table, sizeof table / sizeof *table);    \
    } while (0)

START_TEST(characters)
{
    JUDGE({"root ::= \"a\\\"\\\\\\x41\\u00e9\\U0001F600\\n\"",
           {"a\"\\A\xc3\xa9\xf0\x9f\x98\x80\n"},
           {"a", ""}},
          {"root ::= [^a-c\\]x-] .",
           {"d.", "w\n", "\xc3\xa9\xc3\xa9"},
           {"ad", "]d", "xd", "-d", "d"}},
          {"root ::= [a-z0-9_\\-]+ # a comment ::= \"x\"\n", {"a-b", "_9"}, {"", "A", "a b"}},
          {"root ::= \"\" \"x\" ( ) \"y\"", {"xy"}, {"x", "y"}},
          {"root ::= \"a\nb\"", {"a\nb"}, {"a"}},
          {"root ::= [\xd0\xb0-\xd1\x8f]+", {"\xd0\xbf\xd1\x80\xd0\xb8"}, {"p", "\xd0"}});
}
END_TEST

START_TEST(operators)
{
    JUDGE({"root ::= \"a\"* \"b\"+ \"c\"?", {"b", "aabbc", "bc"}, {"", "ac", "bcc"}},
          {"root ::= \"ab\"{2} [0-9]{1,3} \"x\"{2,} \"y\"{0}",
           {"abab1xx", "abab123xxxx"},
           {"ab1xx", "abab1234xx", "abab1x", "abab1xxy"}},
          {"root ::= (\"a\" | \"b\" \"c\")+ | \"d\"", {"a", "bca", "d"}, {"", "ad", "b"}},
          {"root ::= \"a\" |\n  \"b\"\n  | \"c\" # or\n  | \"d\"\n",
           {"a", "b", "c", "d"},
           {"", "ab"}},
          {"root ::= (\n  \"a\"\n  other\n)\nother ::= \"b\"\n", {"ab"}, {"a"}},
          {"root ::= \"a\" | ", {"a", ""}, {"b"}}, {"root ::= \"a\"{1000000}", {NULL}, {"a"}},
          {"root ::= (\"a\"? \"b\"?)* \"c\"", {"c", "abbac", "bac"}, {"", "ab"}});
}
END_TEST

/* The shapes of llama.cpp's own examples: expressions, JSON, chess, lists, nested brackets. */
START_TEST(recursion)
{
    JUDGE(
        {"root ::= expr \"=\" num\nexpr ::= term ([-+*/] term)*\nterm ::= num | \"(\" ws expr "
         "\")\" ws\n"
         "num ::= [0-9]+ ws\nws ::= [ \\t\\n]*\n",
         {"1=1", "(1+2)*3 =9", "((7))=7"},
         {"1", "(1=1", "1+=2", "=1"}},
        {"root ::= value\nvalue ::= \"[\" ws (value (\",\" ws value)*)? \"]\" ws | \"1\" ws\nws "
         "::= "
         "(\" \" ws)?",
         {"[]", "[1, [1 ,1]]", "1"},
         {"[", "[1,]", "[1 1]"}},
        /* right recursion, and the two together */
        {"root ::= \"a\" root | \"b\"", {"b", "aaab"}, {"a", "ba"}},
        {"root ::= \"(\" root \")\" root | \"\"", {"", "()", "(())()"}, {"(", ")", "())"}},
        /* left recursion */
        {"root ::= root \"+\" t | t\nt ::= [0-9] | \"(\" root \")\"",
         {"1", "1+2+3", "(1+2)+3"},
         {"+", "1+", "1(2)"}},
        {"root ::= root \"a\" | root \"b\" | \"c\" | root", {"c", "cabba"}, {"", "a", "ac"}},
        {"root ::= root x | \"y\"\nx ::= \"(\" x? \")\"", {"y", "y(())()"}, {"", "()"}},
        /* what may be empty, repeated */
        {"root ::= (opt)* \"!\"\nopt ::= (\"<\" opt \">\")?", {"!", "<>!", "<<>><>!"}, {"<!", ""}},
        {"root ::= (a a)+\na ::= \"x\" a \"y\" | ", {"", "xy", "xxyyxy", "xyxyxy"}, {"x", "yx"}},
        {"root ::= (b?){2,3}\nb ::= \"(\" b? \")\"",
         {"", "()", "()(())", "()()()"},
         {"()()()()", "("}},
        {"root ::= (b){2,}\nb ::= \"(\" b? \")\"", {"()()", "(())()()"}, {"()", ""}},
        {"root ::= (b){2}\nb ::= \"(\" b? \")\"", {"()()"}, {"()", "()()()"}},
        {"root ::= (n | \"x\"?)* \";\"\nn ::= \"{\" n* \"}\"", {";", "x{}{{}}x;"}, {"{;"}});
}
END_TEST

START_TEST(refusals)
{
    static const struct {
        const char *text, *words;
    } t[] = {
        {"", "line 1:1: there is no rule root"},
        {"a ::= \"x\"", "line 1:10: there is no rule root"},
        {"root ::= b\n", "line 1:10: rule b is used and not defined"},
        {"root ::= \"a", "line 1:12: the closing \" is missing"},
        {"root ::= [a", "the closing ] is missing"},
        {"root ::= []", "empty class"},
        {"root ::= [z-a]", "out of order"},
        {"root ::= \"\\q\"", "line 1:11: unknown escape"},
        {"root ::= \"\\ud800\"", "no character of Unicode"},
        {"root ::= \"\\x4\"", "hexadecimal"},
        {"root ::= (\"a\"", "a closing ) is expected"},
        {"root ::= \"a\")", "this ) closes nothing"},
        {"root ::= \"a\"{3,2}", "out of order"},
        {"root ::= \"a\"{x}", "a number is expected"},
        {"root ::= \"a\"{9999999}", "more than 1000000"},
        {"root ::= *", "line 1:10: a literal, class"},
        {"root = \"a\"", "line 1:6: ::= is expected"},
        {"root ::= \"\xc3\xa9\" $\n", "line 1:14: a literal, class"},
        {"root ::= \"a\"\nroot ::= \"b\"", "line 2:1: this rule is defined a second time"},
        {"root ::= \"a\xff\"", "line 1:12: this is no UTF-8"},
        {"root ::= a\na ::= b \"x\"\nb ::= a | \"y\"", "left recursion: a -> b -> a"},
        {"root ::= n? root \"x\" | \"y\"\nn ::= \"\"", "left recursion: root -> root"},
        {"root ::= (r){20000}\nr ::= \"(\" r? \")\"", "repeated more than 10000 times"},
        {"root ::= <[99999999]>", "not one token"},
        {"root ::= <[x]>", "needs the number"},
        {"root ::= <nosuchtokenhere>", "line 1:10: this is not one token"},
        {"root ::= <a", "the closing > is missing"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        grammar *g = NULL;
        grammar_error why;
        ck_assert_msg(try(t[i].text, &g, &why) < 0, "%s compiles", t[i].text);
        ck_assert_msg(why.code && !strcmp(why.code, "invalid_grammar") &&
                          strstr(why.e.msg, t[i].words),
                      "%s: %s: %s", t[i].text, why.code, why.e.msg);
    }
    grammar *g;
    grammar_error why;
    ck_assert_int_lt(try("root ::= \"a\" root", &g, &why), 0);
    ck_assert_str_eq(why.code, "unsatisfiable_schema");
}
END_TEST

/* A token by name or number is its id behind the byte 0xff, never its text. */
START_TEST(tokens)
{
    char text[100], id[4];
    grammar *g;
    grammar_error why;
    int32_t open = tokenizer_id(tok, "<think>");
    ck_assert_int_ge(open, 0);
    ck_assert_int_eq(try("root ::= <think> \"a\" !<think>", &g, &why), 0);
    id[0] = (char)0xff, id[1] = (char)(open >> 16), id[2] = (char)(open >> 8), id[3] = (char)open;
    memcpy(text, id, 4);
    text[4] = 'a';
    memcpy(text + 5, id, 4);
    ck_assert_int_eq(grammar_accepts(g, text, 9), 0);
    text[8]++;
    ck_assert_int_eq(grammar_accepts(g, text, 9), 1);
    ck_assert_int_eq(grammar_accepts(g, "<think>a", 8), 0);
    grammar_release(g);
    snprintf(text, sizeof text, "root ::= (<[%d]> | \"x\")+", open);
    ck_assert_int_eq(try(text, &g, &why), 0);
    memcpy(text, "x", 1);
    memcpy(text + 1, id, 4);
    ck_assert_int_eq(grammar_accepts(g, text, 5), 1);
    grammar_release(g);
    const grammar_spec s = {.kind = GRAMMAR_GBNF, .text = "root ::= <think>", .n = 16};
    ck_assert_int_lt(grammar_compile(&s, &g, &why), 0);
    ck_assert_ptr_nonnull(strstr(why.e.msg, "no tokenizer"));
}
END_TEST

/* Bounded work: doubling rules, deep groups, long texts, many rules. */
START_TEST(hostile)
{
    enum { N = 3000 };
    char *big = malloc(N * 100), *p = big;
    grammar *g = NULL;
    grammar_error why;
    p += sprintf(p, "root ::= r0\n");
    for (int i = 0; i < 200; i++)
        p += sprintf(p, "r%d ::= r%d r%d | \"x\" r%d\n", i, i + 1, i + 1, i + 1);
    sprintf(p, "r200 ::= \"a\" | \n");
    int rc = try(big, &g, &why);
    ck_assert_msg(rc == 0 || !strcmp(why.code, "grammar_too_complex"), "%s", why.e.msg);
    if (!rc) grammar_release(g);
    p = big + sprintf(big, "root ::= ");
    memset(p, '(', 1000);
    strcpy(p + 1000, "\"a\"");
    ck_assert_int_lt(try(big, &g, &why), 0);
    ck_assert_ptr_nonnull(strstr(why.e.msg, "64 deep"));
    p = big + sprintf(big, "root ::= r0\n");
    for (int i = 0; i < N; i++) p += sprintf(p, "r%d ::= \"(\" r%d? \")\"\n", i, (i + 1) % N);
    ck_assert_int_eq(try(big, &g, &why), 0);
    ck_assert_int_eq(grammar_accepts(g, "((()))", 6), 1);
    ck_assert_int_eq(grammar_accepts(g, "((())", 5), 0);
    grammar_release(g);
    p = big + sprintf(big, "root ::= r0\n");
    for (int i = 0; i < N; i++) p += sprintf(p, "r%d ::= r%d\n", i, i + 1);
    sprintf(p, "r%d ::= \"a\"?\n", N);
    rc = try(big, &g, &why);
    ck_assert_msg(rc == 0 || !strcmp(why.code, "grammar_too_complex"), "%s", why.e.msg);
    if (!rc) grammar_release(g);
    free(big);
}
END_TEST

int main(void)
{
    err e;
    const tokenizer_source src = {.tokenizer_json = "models/demo/tokenizer.json",
                                  .tokenizer_config = "models/demo/tokenizer_config.json"};
    tok = tokenizer_open(&src, &e);
    if (!tok) {
        fprintf(stderr, "test_gbnf: %s\n", e.msg);
        return 1;
    }
    Suite *s = suite_create("gbnf");
    TCase *t = tcase_create("gbnf");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, characters);
    tcase_add_test(t, operators);
    tcase_add_test(t, recursion);
    tcase_add_test(t, refusals);
    tcase_add_test(t, tokens);
    tcase_add_test(t, hostile);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    tokenizer_free(tok);
    return failed ? 1 : 0;
}
