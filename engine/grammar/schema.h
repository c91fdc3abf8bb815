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
    M_NOT_NUMBER,
    M_NOT_COUNT, /* it fails keyword `name` of s, a bound on items or members */
    M_NOT_ITEM,  /* some item fails what keyword `name` of s says of it */
    M_NO_ITEM,   /* it is an array, no item of which satisfies s */
    M_SOME_KEY,  /* some member fails what keyword or pattern `name` says of it in s */
    M_TYPES      /* its type is one of the set that is `name`'s index in schema_type_set */
} member_kind;

typedef struct {
    member_kind kind;
    uint32_t parent;  /* the member it came from, plus 1: against $ref cycles */
    const json *s;    /* the schema */
    const json *name; /* DEPEND: the dependency; FORBID, REQUIRE: a node whose key or text names it;
                         NOT_COUNT, NOT_ITEM, SOME_KEY: the keyword */
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
extern const json schema_type_set[T_ALL + 1]; /* of no content */

typedef struct {
    uint32_t first, n; /* in kept */
    uint32_t node, rule;
    bool busy;
} set_memo;

/* Expressions by the text they were made of, which stays where it is. */
typedef struct {
    const char *s;
    uint64_t hash; /* map_hash of s[n] */
    uint32_t n;
    rx e;
} text_rx;
typedef struct {
    VEC(text_rx) made;
    id_table index;
} text_memo;

/* How the value at one level is written, where not as JSON text (schema_xml.c). */
typedef struct {
    uint32_t level; /* 0: none */
    uint32_t types; /* what the reader of the text may take it for */
    bool raw;       /* plain text with its end tag: strings, and null if that is among the types */
} value_form;

typedef struct {
    gram *g;
    json_doc *doc;
    const json *root;
    bool xml;       /* objects at level 0 are written with <parameter=…> */
    uint32_t level; /* values around the one at hand */
    value_form form;
    bool any_value;            /* enum and const at level 0 do not count */
    rx guard;                  /* what every JSON string is in, R_ALL for any */
    uint32_t any;              /* node of any value of such strings */
    VEC(const json *) widened; /* schemas that allow everything, whatever they say */
    const json *refused;       /* where the refusal stands, */
    const char *keyword;       /* and what was refused there */
    uint32_t attempts;         /* inside what may fail: refusals are not put into words */
    text_memo patterns;
    text_memo names; /* of members, as they are written */
    text_memo keys;  /* the same and the colon */
    int draft;       /* 4, 6, 7, 2019, 2020 */
    bool inner_ids;
    grammar_error *why;
    int rc;
    uint32_t depth, branches;
    uint32_t tried_from; /* branches before the outermost attempt */
    VEC(member) kept;
    VEC(set_memo) memo;
    id_table memo_index;
    VEC(uint32_t) queue; /* memo entries whose rule has no body yet */
} schema_compiler;

/* Parses text into c (zeroed by the caller but for what it sets of g, why, xml, guard); makes the
 * node of its root, only objects if `object`.  0 or ERR_*; close in every case. */
int schema_open(schema_compiler *c, const char *text, size_t n);
int schema_root(schema_compiler *c, bool object, uint32_t *node);
void schema_close(schema_compiler *c);
/* Parts of these two: makes what was put off, frees all but the document and what was widened. */
void schema_run_queue(schema_compiler *c);
void schema_free_tables(schema_compiler *c);
/* The expression known for a text x, RX_UNKNOWN if there is none; and from now on it is x.e. */
rx schema_known(const text_memo *m, const text_rx *x);
void schema_know(schema_compiler *c, text_memo *m, const text_rx *x);
/* Whether a member's key is this literal. */
static inline bool schema_key_is(const json *k, const char *word)
{
    return k->n_key == strlen(word) && !memcmp(k->key, word, strlen(word));
}
/* Appends the JSON pointer of a node of the document. */
void schema_pointer(const schema_compiler *c, const json *where, buf *out);
/* Writes the refusal (the first one counts) and returns its ERR_*. */
int schema_refuse(schema_compiler *c, const char *code, const json *where, const char *keyword,
                  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The node of a set; for sets below a property or item (child) references become rules. */
uint32_t schema_node(schema_compiler *c, const member *v, uint32_t n);
uint32_t schema_child(schema_compiler *c, const member *v, uint32_t n);
/* schema_split.c: the node of a set whose member i is a choice. */
uint32_t schema_split(schema_compiler *c, const member_set *set, uint32_t i);
/* schema_faults.c: c was refused; what else is wrong with its schema goes to c->why->more.  object
 * as for schema_root. */
void schema_more_faults(schema_compiler *c, bool object);
/* schema_ref.c: the schema that the $ref of s leads to; NULL after a refusal. */
const json *schema_resolve(schema_compiler *c, const json *s, const json *ref);
/* Whether schemas below the root are documents of their own. */
bool schema_inner_ids(const schema_compiler *c);
/* schema_object.c: the member's name: of a property, or the text that names one. */
void schema_name(const member *m, const char **s, size_t *n);
/* schema_xml.c: key and value of a property of the outermost object; other keys (R_NONE: none). */
rx schema_xml_key(schema_compiler *c, const char *s, size_t n);
rx schema_xml_other_key(schema_compiler *c, const rx *names, uint32_t n);
uint32_t schema_xml_value(schema_compiler *c, const char *key, size_t n_key, const member *v,
                          uint32_t n);
/* The plain text of a set of string (and perhaps null) types; R_NONE if there is none. */
rx schema_raw(schema_compiler *c, const member *v, uint32_t n);
/* schema_emit.c: a set of BASE, FORBID and REQUIRE members only. */
uint32_t schema_emit(schema_compiler *c, const member *v, uint32_t n);
/* schema_object.c, schema_array.c: its objects and arrays. */
uint32_t schema_object(schema_compiler *c, const member *v, uint32_t n);
uint32_t schema_array(schema_compiler *c, const member *v, uint32_t n);
/* schema_scalar.c */
uint32_t schema_types(schema_compiler *c, const member *v, uint32_t n, bool *integer);
rx schema_string(schema_compiler *c, const member *v, uint32_t n);
rx schema_number(schema_compiler *c, const member *v, uint32_t n, bool integer);
rx schema_enum(schema_compiler *c, const member *v, uint32_t n, uint32_t types, bool integer,
               bool *given);
/* schema_value.c: whether x, enumerated by v[n], satisfies the rest of it. */
bool schema_holds(schema_compiler *c, const member *v, uint32_t n, const json *x);
/* A value of the document as it may be written. */
rx schema_constant(schema_compiler *c, const json *x);
/* schema_unique.c: items of the set v[n], whose node is given, as different values; false if they
 * are not known one by one. */
bool schema_unique(schema_compiler *c, const member *v, uint32_t n, uint32_t item, garray *out);
/* e, scalars of the types given, without the values that M_NOT_ENUM members exclude. */
rx schema_not_enum(schema_compiler *c, const member *v, uint32_t n, uint32_t types, rx e);
/* As JSON string; with `end` behind it. */
rx schema_text(schema_compiler *c, const json *where, const char *s, size_t n);
rx schema_text_then(schema_compiler *c, const json *where, const char *s, size_t n, rx end);
bool schema_plain(const char *s, size_t n); /* as JSON string it is itself between quotes */
/* A count like maxItems: the strictest over the set, 0 or GRAM_INF without one. */
uint32_t schema_count(schema_compiler *c, const member *v, uint32_t n, const char *key, bool most);
rx schema_pattern(schema_compiler *c, const json *where, const char *key, const char *s, size_t n);

/* The whole schema to the grammar's root node; guard is what every string must be in as well. */
int schema_compile(gram *g, const char *text, size_t n, rx guard, grammar_error *why,
                   uint32_t *root);

/* ---- schema_tool.c ---- */
typedef struct {
    const char *text; /* [n] the parameters of a tool; NULL: any object */
    size_t n;
    bool xml;   /* written as <parameter=…>, not as a JSON object */
    bool relax; /* what cannot be enforced is widened to any value and listed */
} schema_tool;
/* Takes the JSON pointer of each widened place. */
typedef void (*schema_relaxed)(void *ctx, const char *pointer);
/* The node of a call's arguments. */
int schema_arguments(gram *g, const schema_tool *t, schema_relaxed relaxed, void *ctx,
                     grammar_error *why, uint32_t *node);

#endif
