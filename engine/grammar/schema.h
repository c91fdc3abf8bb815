/* schema.h - inside the JSON Schema compiler.  A node of the grammar is made from a *set* of
 * schemas that must all hold: allOf, $ref and sibling keywords only add to the set; anyOf and oneOf
 * split it.  schema.c keeps the sets, schema_emit.c turns one without choices into nodes,
 * schema_scalar.c makes its strings, numbers and enumerations.
 * Thread: one compile, one thread. */
#ifndef QUERN_ENGINE_GRAMMAR_SCHEMA_H
#define QUERN_ENGINE_GRAMMAR_SCHEMA_H

#include "base/json.h"
#include "engine/grammar/gram.h"
#include "engine/grammar/grammar.h"

enum {
    SCHEMA_MAX_BYTES = 1 << 20,
    SCHEMA_MAX_NESTING = 64,
    SCHEMA_MAX_VALUES = 500000,
    SCHEMA_MAX_BRANCHES = 256, /* of one place, after distribution */
    SCHEMA_MAX_ENUM = 50000,
    SCHEMA_MAX_MEMBERS = 1000, /* schemas that must hold at one place */
    SCHEMA_MAX_PATTERNS = 6    /* patternProperties of one place: 2^6 classes of keys */
};

typedef enum {
    M_FULL,   /* the schema with everything in it */
    M_BASE,   /* its own assertions: no allOf, $ref, anyOf, oneOf, dependencies */
    M_ANY_OF, /* only that keyword of it */
    M_ONE_OF,
    M_DEPEND,  /* one member of its dependencies; name is the property */
    M_IF,      /* if, then, else */
    M_NOT,     /* s does not hold */
    M_FORBID,  /* an object has no property `name` */
    M_REQUIRE, /* an object has property `name` */
    /* what negation leaves: */
    M_OBJECT,     /* it is an object */
    M_PROP_NOT,   /* property `name` is there and does not satisfy s */
    M_NOT_TYPE,   /* its type is not one of s */
    M_NOT_ENUM,   /* it is none of the values of s */
    M_NOT_STRING, /* it is a string that fails what s says of strings */
    M_NOT_NUMBER
} member_kind;

typedef struct {
    member_kind kind;
    uint32_t parent; /* the member it came from, plus 1: against $ref cycles */
    const json *s;   /* the schema */
    const json
        *name; /* DEPEND: the dependency; FORBID, REQUIRE: a node whose key or text names it */
} member;
typedef VEC(member) member_set;

enum {
    T_NULL = 1,
    T_BOOL = 2,
    T_NUMBER = 4,
    T_STRING = 8,
    T_ARRAY = 16,
    T_OBJECT = 32,
    T_ALL = 63
};

typedef struct {
    uint32_t first, n; /* in kept */
    uint32_t node, rule;
    bool busy;
} set_memo;

typedef struct {
    gram *g;
    const json *root;
    int draft; /* 4, 6, 7, 2019, 2020 */
    bool inner_ids;
    grammar_error *why;
    int rc;
    uint32_t depth, branches;
    uint64_t units;  /* work left: one a schema a set has when it is looked at */
    double deadline; /* of the thread's CPU time, behind the units */
    VEC(member) kept;
    VEC(set_memo) memo;
    id_table memo_index;
    VEC(uint32_t) queue; /* memo entries whose rule has no body yet */
} schema_compiler;

/* Writes the refusal (the first one counts) and returns its ERR_*. */
int schema_refuse(schema_compiler *c, const char *code, const json *where, const char *keyword,
                  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The node of a set; for sets below a property or item (child) references become rules. */
uint32_t schema_node(schema_compiler *c, const member *v, uint32_t n);
uint32_t schema_child(schema_compiler *c, const member *v, uint32_t n);
/* schema_split.c: the node of a set whose member i is a choice. */
uint32_t schema_split(schema_compiler *c, const member_set *set, uint32_t i);
const json *schema_resolve(schema_compiler *c, const json *s, const json *ref);
/* schema_emit.c: a set of BASE, FORBID and REQUIRE members only. */
uint32_t schema_emit(schema_compiler *c, const member *v, uint32_t n);
/* schema_scalar.c */
uint32_t schema_types(schema_compiler *c, const member *v, uint32_t n, bool *integer);
rx schema_string(schema_compiler *c, const member *v, uint32_t n);
rx schema_number(schema_compiler *c, const member *v, uint32_t n, bool integer);
rx schema_enum(schema_compiler *c, const member *v, uint32_t n, uint32_t types, bool integer,
               bool *given);
/* e, scalars of the types given, without the values that M_NOT_ENUM members exclude. */
rx schema_not_enum(schema_compiler *c, const member *v, uint32_t n, uint32_t types, rx e);
rx schema_text(schema_compiler *c, const json *where, const char *s, size_t n); /* as JSON string */
/* A count like maxItems: the strictest over the set, 0 or GRAM_INF without one. */
uint32_t schema_count(schema_compiler *c, const member *v, uint32_t n, const char *key, bool most);
rx schema_pattern(schema_compiler *c, const json *where, const char *key, const char *s, size_t n);

/* The whole schema to the grammar's root node. */
int schema_compile(gram *g, const char *text, size_t n, grammar_error *why, uint32_t *root);

#endif
