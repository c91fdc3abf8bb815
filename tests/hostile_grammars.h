/* hostile_grammars.h - grammars made to cost: products of patterns over keys, counters under
 * alternatives, determinisation bombs, ambiguous rules, many threads, languages whose emptiness is
 * hard to see.  Tests only. */
#ifndef QUERN_TESTS_HOSTILE_GRAMMARS_H
#define QUERN_TESTS_HOSTILE_GRAMMARS_H

#include "base/buf.h"
#include "engine/grammar/grammar.h"

#include <stdio.h>

typedef struct {
    const char *name;
    grammar_kind kind;
    const char *text; /* or made by: */
    void (*make)(buf *out, int n);
    int n;
} hostile_grammar;

static inline void hostile_bomb_keys(buf *b, int n)
{
    buf_printf(b, "{\"type\":\"object\",\"patternProperties\":{");
    for (int i = 0; i < n; i++)
        buf_printf(b, "%s\"^[a-z]*%c.{%d}$\":{\"type\":\"integer\"}", i ? "," : "", 'a' + i % 26,
                   6 + i);
    buf_printf(b, "},\"additionalProperties\":false}");
}

/* Language tags, as in the Open Contracting Data Standard. */
static inline void hostile_tag_keys(buf *b, int n)
{
    buf_printf(b, "{\"type\":\"object\",\"patternProperties\":{");
    for (int i = 0; i < n; i++)
        buf_printf(b,
                   "%s\"^(k.?%c?_(((([A-Za-z]{2,3}(-([A-Za-z]{3}(-[A-Za-z]{3}){0,2}))?)|[A-Za-z]{4}"
                   "|[A-Za-z]{5,8})(-([A-Za-z]{4}))?(-([A-Za-z]{2}|[0-9]{3}))?(-([A-Za-z0-9]{5,8}"
                   "|[0-9][A-Za-z0-9]{3}))*(-([0-9A-WY-Za-wy-z](-[A-Za-z0-9]{2,8})+))*(-(x(-"
                   "[A-Za-z0-9]{1,8})+))?)|(x(-[A-Za-z0-9]{1,8})+)))$\":{\"type\":[\"string\","
                   "\"null\"],\"maxLength\":%d}",
                   i ? "," : "", 'a' + i, 10 + i);
    buf_printf(b, "}}");
}

/* No key matches two of the patterns, which only a walk of their whole product shows. */
static inline void hostile_empty_products(buf *b, int n)
{
    buf_printf(b,
               "{\"type\":\"object\",\"patternProperties\":{\"^[ab]*a[ab]{%d}$\":{\"type\":"
               "\"string\"},\"^[ab]*b[ab]{%d}$\":{\"type\":\"null\"},\"^[ab]{0,%d}c$\":{}},"
               "\"additionalProperties\":false}",
               n, n, n);
}

/* a repeated by every prime: the states go round in the product of them all. */
static inline void hostile_periods(buf *b, int n)
{
    static const int prime[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47};
    for (int i = 0; i < n; i++) buf_printf(b, "%s([ab]{%d})*c%d", i ? "|" : "", prime[i], i);
}

/* n rules at once, each with a counter of its own. */
static inline void hostile_counting_rules(buf *b, int n)
{
    buf_printf(b, "root ::= ");
    for (int i = 0; i < n; i++) buf_printf(b, "%sr%d", i ? " | " : "", i);
    for (int i = 0; i < n; i++)
        buf_printf(b, "\nr%d ::= [a-z]{%d,%d} (\"(\" r%d \")\")? \"%d\"", i, i % 50, 500 + i,
                   (i + 1) % n, i);
    buf_printf(b, "\n");
}

/* Objects that only their last member tells apart. */
static inline void hostile_objects(buf *b, int n)
{
    buf_printf(b, "{\"anyOf\":[");
    for (int i = 0; i < n; i++)
        buf_printf(
            b,
            "%s{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":"
            "%d},\"b\":{\"type\":\"array\",\"items\":{\"type\":\"number\"},\"maxItems\":%d},"
            "\"z\":{\"const\":%d}},\"required\":[\"z\"]}",
            i ? "," : "", 1000 + i, 1000 + i, i);
    buf_printf(b, "]}");
}

/* Alternatives of counted repeats, counted. */
static inline void hostile_counters(buf *b, int n)
{
    buf_printf(b, "(");
    for (int i = 1; i <= n; i++) buf_printf(b, "%s[a-z]{%d,%d}", i > 1 ? "|" : "", i, 40 * i);
    buf_printf(b, "|[a-m ]{2,700}){1,100000}!");
}

static const hostile_grammar hostile_grammars[] = {
    {"tag keys", GRAMMAR_SCHEMA, .make = hostile_tag_keys, .n = 6},
    {"bomb keys", GRAMMAR_SCHEMA, .make = hostile_bomb_keys, .n = 6},
    {"bomb keys, fewer", GRAMMAR_SCHEMA, .make = hostile_bomb_keys, .n = 2},
    {"bomb keys, 64", GRAMMAR_SCHEMA, .make = hostile_bomb_keys, .n = 64},
    {"empty products", GRAMMAR_SCHEMA, .make = hostile_empty_products, .n = 10},
    {"bomb 12", GRAMMAR_REGEX, .text = "(a|b)*a(a|b){12}"},
    {"bomb 200", GRAMMAR_REGEX, .text = "[ab]*a[ab]{200}"},
    {"bomb of words", GRAMMAR_REGEX, .text = ".*[aeiou].{40}[a-m].{30}!"},
    {"words in words", GRAMMAR_REGEX, .text = "([a-z]{1,80} ?){1,90}x"},
    {"nested counters", GRAMMAR_REGEX, .text = "((([a-z]{1,100}){1,100}[b ]?){1,100}){1,1000}"},
    {"counters 12", GRAMMAR_REGEX, .make = hostile_counters, .n = 12},
    {"counters 60", GRAMMAR_REGEX, .make = hostile_counters, .n = 60},
    {"periods", GRAMMAR_REGEX, .make = hostile_periods, .n = 15},
    {"six patterns at once", GRAMMAR_SCHEMA,
     .text =
         "{\"type\":\"string\",\"allOf\":[{\"pattern\":\"a.{9}$\"},{\"pattern\":\"[b-y].{11}$\"},{"
         "\"pattern\":\"^[a-z "
         "]*[^q].{13}$\"},{\"pattern\":\"(.[aeiou]){3,90}\"},{\"not\":{\"pattern\":"
         "\"z.{8}$\"}}],\"minLength\":40,\"maxLength\":4000}"},
    {"words of a length", GRAMMAR_SCHEMA,
     .text =
         "{\"type\":\"string\",\"pattern\":\"^(?:\\\\S+\\\\s+){0,49}\\\\S+$\",\"maxLength\":500}"},
    {"not a bomb", GRAMMAR_SCHEMA,
     .text = "{\"type\":\"string\",\"not\":{\"pattern\":\"[a-m].{14}$\"},\"minLength\":100}"},
    {"objects", GRAMMAR_SCHEMA, .make = hostile_objects, .n = 200},
    {"counting rules", GRAMMAR_GBNF, .make = hostile_counting_rules, .n = 300},
    {"counting rules, more", GRAMMAR_GBNF, .make = hostile_counting_rules, .n = 3000},
    {"palindromes", GRAMMAR_GBNF,
     .text = "root ::= s\ns ::= [a-c] s [a-c] | \"a\" s \"a\" | [b-z] s [b-z] | [a-z]?\n"},
    {"ambiguous", GRAMMAR_GBNF,
     .text = "root ::= e \";\"\ne ::= t | t [-+ ] e | t e\nt ::= [a-z]+ | [a-z] t | \"(\" e \")\" "
             "| [a-z] "
             "e "
             "[0-9]\n"},
    {"bomb in rules", GRAMMAR_GBNF,
     .text =
         "root ::= x* y\nx ::= [ab] | [ab] [ab] | \"(\" root \")\"\ny ::= \"a\" [ab]{12} | \"b\" "
         "(x){9} "
         "\"c\"\n"},
};
enum { N_HOSTILE = sizeof hostile_grammars / sizeof *hostile_grammars };

/* 0, or why it is refused. */
static inline int hostile_compile(const hostile_grammar *h, grammar **g, grammar_error *why)
{
    buf b = {0};
    if (h->make) h->make(&b, h->n);
    const char *text = h->make ? buf_str(&b) : h->text;
    const grammar_spec s = {.kind = h->kind, .text = text, .n = strlen(text)};
    int rc = grammar_compile(&s, g, why);
    buf_clear(&b);
    return rc;
}

#endif
