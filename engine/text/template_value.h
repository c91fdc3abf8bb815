/* template_value.h - values of a running template, with Python's meaning.  Private to template_*.c.
 * Everything lives in the rendering's arena and is immutable once made (a namespace apart), so
 * values are copied freely and nothing is freed one by one.
 * A failing operation leaves by longjmp to template_render: an interpreter written with a status
 * on every call would hide its meaning, and the arena makes the jump safe (nothing to unwind).
 * Thread: the one that renders. */
#ifndef QUERN_ENGINE_TEXT_TEMPLATE_VALUE_H
#define QUERN_ENGINE_TEXT_TEMPLATE_VALUE_H

#include "engine/text/arena.h"
#include "engine/text/template.h"

#include <setjmp.h>

typedef struct rctx rctx;
typedef struct value value;
typedef struct vstr vstr;
typedef struct vseq vseq;
typedef struct vdict vdict;
typedef struct vundef vundef;
typedef struct vloop vloop;
typedef struct vmacro vmacro;
typedef struct vbound vbound;
typedef struct vcycle vcycle;
typedef struct global_fn global_fn;

typedef enum {
    V_MISSING, /* an argument that was not given; never seen by a template */
    V_UNDEF,
    V_NONE,
    V_BOOL,
    V_INT,
    V_BIG, /* an integer beyond int64, kept as its text: printed and compared, not computed with */
    V_FLOAT,
    V_STR,
    V_LIST,
    V_TUPLE,
    V_RANGE,
    V_VIEW, /* keys(), values(), items() of a dict */
    V_GEN,  /* what map, select, items ... give: read once, no length */
    V_DICT,
    V_NS,
    V_LOOP,
    V_MACRO,
    V_BOUND, /* a method of a value */
    V_GLOBAL,
    V_CYCLER,
    V_JOINER
} vkind;

struct value {
    vkind kind;
    union {
        bool b;
        int64_t i;
        double f;
        vstr *s;         /* STR, BIG */
        vseq *q;         /* LIST, TUPLE, RANGE, VIEW, GEN */
        vdict *d;        /* DICT, NS */
        const vundef *u; /* UNDEF; NULL = nameless */
        vloop *loop;
        vmacro *macro;
        const vbound *bound;
        const global_fn *global;
        vcycle *cycle; /* CYCLER, JOINER */
    };
};

/* Where a string's bytes come from: OPEN the template or the operator, CLOSED the client. */
typedef enum { OPEN, CLOSED, MIXED } taint;

struct vstr {
    const char *v;         /* [n] UTF-8, NULL while the string is an unjoined concatenation */
    size_t n;              /* bytes */
    size_t chars;          /* code points, SIZE_MAX = not counted yet */
    const text_span *span; /* [n_span] closed parts when MIXED, else NULL */
    size_t n_span;
    taint from;
    bool markup;        /* passed through `safe` or `escape`: + escapes the other side */
    size_t room;        /* bytes the block behind v may grow to, 0 = v is not ours to grow */
    size_t *used;       /* how much of it is taken (shared by all strings over it) */
    vstr *left, *right; /* the two halves while v is NULL */
};

struct vseq {
    value *v; /* [n] NULL while src is unread */
    size_t n;
    size_t at;                 /* GEN: next unread item */
    const json *src;           /* array this list is read from at first use, or NULL */
    bool trusted;              /* of src */
    size_t room, *used;        /* as in vstr: lists grow in place when they are the last owner */
    int64_t start, stop, step; /* RANGE, for printing */
    const char *name;          /* VIEW: "dict_items" ... */
};

typedef struct {
    value key, val;
} ventry;

struct vdict {
    ventry *v; /* [n] in order of insertion; NULL while src is unread */
    size_t n, cap;
    const json *src;
    bool trusted;
};

struct vundef {
    const char *hint; /* the whole message, or NULL */
    bool has_obj;     /* "... has no attribute" rather than "... is undefined" */
    bool security;    /* an attribute the sandbox hides */
    value obj;
    value name; /* STR, or another kind for an element */
};

struct vbound {
    value self;
    int method; /* index into the method table */
};

struct vcycle {
    const value *v; /* [n] */
    size_t n, at;
};

/* Strings and output under construction. */
typedef struct {
    rctx *c;
    char *v; /* [cap] */
    size_t n, cap;
    text_span *span; /* [cap_span] closed parts so far */
    size_t n_span, cap_span;
    size_t max; /* fail beyond, 0 = only the arena's limit */
} sbuild;

/* Arguments of a call, evaluated. */
typedef struct {
    const char *name; /* 0-terminated */
    value v;
} kwarg;
typedef struct {
    value *pos; /* [n] */
    size_t n;
    kwarg *kw; /* [n_kw] */
    size_t n_kw;
} args;

typedef struct scope scope;

struct rctx {
    jmp_buf fail;
    err *e;
    int code; /* what `fail` reports */
    arena mem;
    const template *t;
    uint64_t steps, max_steps;
    size_t bytes; /* looked at and not yet counted as a step */
    int depth;
    time_t now;
    sbuild *out; /* where text goes now: the prompt or a macro's result */
};

enum { MAX_DEPTH = 1500, MAX_RANGE = 100000 };

/* ---- failing and bookkeeping ----------------------------------------------------------------- */

void fail(rctx *c, int code, const char *fmt, ...) __attribute__((noreturn, format(printf, 3, 4)));
/* A Python-like TypeError, ValueError ...: ERR_INVALID. */
#define raise(c, ...) fail(c, ERR_INVALID, __VA_ARGS__)
void *take(rctx *c, size_t n);  /* arena memory, fails when there is none */
void *take0(rctx *c, size_t n); /* cleared */
/* n units of work done (one unit is about one node evaluated). */
static inline void work(rctx *c, size_t n)
{
    c->steps += n;
    if (c->steps > c->max_steps)
        fail(c, ERR_LIMIT, "the template took more than %llu steps",
             (unsigned long long)c->max_steps);
}
/* n bytes looked at: a KiB is a unit, and so are 16 calls. */
static inline void work_bytes(rctx *c, size_t n)
{
    c->bytes += n + 64;
    if (c->bytes < 1024) return;
    work(c, c->bytes >> 10);
    c->bytes &= 1023;
}
/* Raises what Python raises when an undefined value is used. */
void raise_undefined(rctx *c, value v) __attribute__((noreturn));

/* ---- making values --------------------------------------------------------------------------- */

static inline value v_none(void)
{
    return (value){.kind = V_NONE};
}
static inline value v_bool(bool b)
{
    return (value){.kind = V_BOOL, .b = b};
}
static inline value v_int(int64_t i)
{
    return (value){.kind = V_INT, .i = i};
}
static inline value v_float(double f)
{
    return (value){.kind = V_FLOAT, .f = f};
}
static inline value v_str(vstr *s)
{
    return (value){.kind = V_STR, .s = s};
}
static inline value v_seq(vkind k, vseq *q)
{
    return (value){.kind = k, .q = q};
}
value v_undef_name(rctx *c, const char *name);
value v_undef_hint(rctx *c, const char *hint);
value v_undef_of(rctx *c, value obj, value name);
value v_text(rctx *c, const char *s); /* borrowed literal */
value v_from_json(rctx *c, const json *j, bool trusted);
/* [cap] slots; the caller fills v and n. */
vseq *seq_new(rctx *c, size_t cap);
void seq_push(rctx *c, vseq *q, size_t *cap, value v);
value seq_concat(rctx *c, vkind k, vseq *a, vseq *b);

/* ---- strings --------------------------------------------------------------------------------- */

vstr *str_new(rctx *c, const char *v, size_t n, taint from); /* borrows v */
const char *str_flat(rctx *c, vstr *s);                      /* joins if needed; [s->n] */
size_t str_chars(rctx *c, vstr *s);
bool str_ascii(rctx *c, vstr *s);
size_t str_at(rctx *c, vstr *s, size_t ch);             /* byte offset of code point ch */
vstr *str_sub(rctx *c, vstr *s, size_t from, size_t n); /* bytes */
vstr *str_concat(rctx *c, vstr *a, vstr *b);
bool str_closed(const vstr *s); /* any byte of it */
int str_cmp(rctx *c, vstr *a, vstr *b);
bool str_is(rctx *c, vstr *s, const char *lit);
const char *str_cstr(rctx *c, vstr *s); /* 0-terminated copy */

void sb_init(sbuild *b, rctx *c);
void sb_bytes(sbuild *b, const char *p, size_t n, bool closed);
void sb_puts(sbuild *b, const char *s);
void sb_str(sbuild *b, vstr *s);
void sb_sub(sbuild *b, vstr *s, size_t from, size_t n);
vstr *sb_done(sbuild *b);

/* Bytes of the white space character (Python's str.isspace) at s[0..n), 0 if it is none. */
size_t space_len(const char *s, size_t n);
/* Byte range of s without white space (set NULL) or the characters of set at the chosen ends. */
vstr *str_strip(rctx *c, vstr *s, vstr *set, bool left, bool right);
/* First position of b in a at or after from, SIZE_MAX if none (bytes). */
size_t str_find(rctx *c, vstr *a, vstr *b, size_t from);
size_t str_rfind(rctx *c, vstr *a, vstr *b);
typedef enum { CASE_UPPER, CASE_LOWER, CASE_SWAP, CASE_CAPITALIZE, CASE_TITLE } str_casing;
vstr *str_case(rctx *c, vstr *s, str_casing how);
vstr *str_replace(rctx *c, vstr *s, vstr *old, vstr *with, int64_t max);
value str_split(rctx *c, vstr *s, vstr *sep, int64_t max, bool from_right);
value str_splitlines(rctx *c, vstr *s, bool keep);
vstr *str_escape(rctx *c, vstr *s); /* HTML, gives markup */
typedef enum {
    IS_ALPHA,
    IS_DIGIT,
    IS_ALNUM,
    IS_SPACE,
    IS_LOWER,
    IS_UPPER,
    IS_NUMERIC,
    IS_TITLE
} str_class;
bool str_is_class(rctx *c, vstr *s, str_class k);
/* Python's str % args. */
vstr *str_percent(rctx *c, vstr *s, value arg);
/* Python's str.format. */
vstr *str_format(rctx *c, vstr *s, const args *a);

/* ---- meaning --------------------------------------------------------------------------------- */

const char *type_name(value v); /* "str", "NoneType", ... */
bool truthy(rctx *c, value v);
bool equal(rctx *c, value a, value b);
/* -1, 0, 1; raises for kinds that Python does not order; op is for the message. */
int order(rctx *c, value a, value b, const char *op);
bool contains(rctx *c, value item, value in);
bool is_hashable(value v);
void check_hashable(rctx *c, value v);
bool has_length(value v);
size_t length_of(rctx *c, value v);
/* Everything a for loop would see, as a sequence; a generator is used up. */
vseq *iterate(rctx *c, value v);
bool is_iterable(value v);
/* Reads src if that has not happened yet. */
void seq_load(rctx *c, vseq *q);
void dict_load(rctx *c, vdict *d);
vdict *dict_new(rctx *c);
void dict_set(rctx *c, vdict *d, value key, value val);
bool dict_get(rctx *c, vdict *d, value key, value *out);
bool dict_get_text(rctx *c, vdict *d, const char *key, size_t n, value *out);
vseq *dict_view(rctx *c, vdict *d, int what, const char *name); /* 0 keys, 1 values, 2 items */
value get_item(rctx *c, value obj, value key);
value get_attr(rctx *c, value obj, vstr *name);
value get_slice(rctx *c, value obj, value lo, value hi, value step);
/* str() and repr(). */
vstr *to_str(rctx *c, value v);
void put_str(sbuild *b, value v);
void put_repr(sbuild *b, value v);
vstr *soft_str(rctx *c, value v); /* str() that keeps markup */
size_t float_repr(double f, char out[40]);
double to_double(rctx *c, value v); /* BOOL, INT, BIG, FLOAT */
bool is_number(value v);
bool is_int(value v);                              /* BOOL, INT */
int64_t int_of(value v);                           /* of those */
value parse_int(rctx *c, const char *s, size_t n); /* decimal digits with sign: INT or BIG */

value binary(rctx *c, int op, value a, value b); /* op: BIN_* of template_ast.h */
value negate(rctx *c, value v);

typedef struct {
    bool ascii, sort_keys;
    vstr *indent;             /* NULL: one line */
    vstr *item_sep, *key_sep; /* NULL: the defaults */
} json_style;
vstr *to_json(rctx *c, value v, const json_style *style);

/* ---- calls ----------------------------------------------------------------------------------- */

/* Parameters by name or place: names is "a b c"; out[k] is V_MISSING where none was given. */
void bind(rctx *c, const char *who, const args *a, const char *names, value *out);
value call_value(rctx *c, value fn, const args *a);
value call_macro(rctx *c, vmacro *m, const args *a);
value loop_attr(rctx *c, vloop *l, vstr *name, bool *found);
value loop_call(rctx *c, vloop *l, int method, const args *a);
int64_t arg_int(rctx *c, value v, int64_t missing);
vstr *arg_str(rctx *c, value v); /* NULL for missing and None */
bool arg_bool(rctx *c, value v, bool missing);

typedef struct {
    const char *name;
    value (*fn)(rctx *c, value in, const args *a);
} filter_fn;
typedef struct {
    const char *name;
    bool (*fn)(rctx *c, value in, const args *a);
} test_fn;
struct global_fn {
    const char *name;
    value (*fn)(rctx *c, const args *a);
};
const filter_fn *find_filter(const char *name, size_t n);
const filter_fn *find_seq_filter(const char *name, size_t n); /* those of template_seq.c */
const test_fn *find_test(const char *name, size_t n);
const global_fn *find_global(const char *name, size_t n);
/* Method of a value as getattr() finds it: an index, -1 none, -2 one that the sandbox hides. */
int find_method(value self, const char *name, size_t n);
value call_method(rctx *c, const vbound *m, const args *a);
const char *method_name(int method);
int loop_method(const char *name, size_t n);

#endif
