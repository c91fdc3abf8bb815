/* gbnf.h - grammars as llama.cpp writes them (GBNF): rules over characters, tokens by name or id.
 * gbnf_parse.c reads the text into a tree, gbnf.c makes nodes of it.
 * Thread: one compile, one thread. */
#ifndef QUERN_ENGINE_GRAMMAR_GBNF_H
#define QUERN_ENGINE_GRAMMAR_GBNF_H

#include "engine/grammar/gram.h"
#include "engine/grammar/grammar.h"

enum {
    GBNF_MAX_BYTES = 1 << 20,
    GBNF_MAX_DEPTH = 64, /* of groups */
    GBNF_MAX_RULES = 20000,
    GBNF_MAX_REPEAT = 1000000,
    GBNF_MAX_COPIES = 10000 /* of something recursive that is repeated */
};

typedef enum { B_RX, B_RULE, B_SEQ, B_ALT, B_REP } gbnf_kind;
typedef struct {
    gbnf_kind kind;
    uint32_t a,
        b; /* RX: expression; RULE: its index; SEQ, ALT: first kid, count; REP: a is the kid */
    uint32_t min, max;
    size_t at; /* byte of the text, for messages */
} gbnf_node;

typedef struct {
    const char *name; /* [n] in the text */
    uint32_t n;
    size_t at; /* where it is first used or defined */
    bool defined;
    uint32_t body; /* a node, if defined */
    /* gbnf.c */
    bool nullable;
    bool twin;     /* stands for the non-empty texts of its body */
    uint8_t visit; /* of depth-first searches */
    rx folded;     /* the whole rule as one expression, RX_UNKNOWN: it is recursive or too large */
    uint32_t rule; /* its G_RULE node, GRAM_NONE */
    uint32_t filled; /* the rule of its non-empty texts plus 1, 0: not made */
} gbnf_rule;

typedef struct {
    gram *g;
    const grammar_spec *spec;
    grammar_error *why;
    VEC(gbnf_node) nodes;
    VEC(uint32_t) kids;
    VEC(gbnf_rule) rules;
    id_table index; /* of rules by name */
} gbnf;

/* Writes the refusal "line:column: …" (the first one counts); always ERR_INVALID. */
int gbnf_fail(gbnf *b, size_t at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The text into rules; b->why on refusal.  rules[0] is root. */
int gbnf_parse(gbnf *b);
uint32_t gbnf_add(gbnf *b, gbnf_kind kind, uint32_t x, uint32_t n, size_t at);
/* A SEQ or ALT of v[n]; v[0] itself if it is alone. */
uint32_t gbnf_list(gbnf *b, gbnf_kind kind, const uint32_t *v, uint32_t n, size_t at);

/* The root node of a whole text. */
int gbnf_compile(gram *g, const grammar_spec *s, grammar_error *why, uint32_t *root);

#endif
