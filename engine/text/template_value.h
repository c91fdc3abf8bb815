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
#include <string.h>

/* s[n], which may hold NULs, spells this name. */
static inline bool tpl_is_name(const char *name, const char *s, size_t n)
{
    return strlen(name) == n && !memcmp(name, s, n);
}

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

void tpl_fail(rctx *c, int code, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
/* A Python-like TypeError, ValueError ...: ERR_INVALID. */
#define raise(c, ...) tpl_fail(c, ERR_INVALID, __VA_ARGS__)
void *tpl_take(rctx *c, size_t n);  /* arena memory, fails when there is none */
void *tpl_take0(rctx *c, size_t n); /* cleared */
/* n units of work done (one unit is about one node evaluated). */
static inline void work(rctx *c, size_t n)
{
    c->steps += n;
    if (c->steps > c->max_steps)
        tpl_fail(c, ERR_LIMIT, "the template took more than %llu steps",
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
void tpl_raise_undefined(rctx *c, value v) __attribute__((noreturn));

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
value tpl_v_undef_name(rctx *c, const char *name);
value tpl_v_undef_hint(rctx *c, const char *hint);
value tpl_v_undef_of(rctx *c, value obj, value name);
value tpl_v_text(rctx *c, const char *s); /* borrowed literal */
value tpl_v_from_json(rctx *c, const json *j, bool trusted);
/* [cap] slots; the caller fills v and n. */
vseq *tpl_seq_new(rctx *c, size_t cap);
void tpl_seq_push(rctx *c, vseq *q, size_t *cap, value v);
value tpl_seq_concat(rctx *c, vkind k, vseq *a, vseq *b);

/* ---- strings --------------------------------------------------------------------------------- */

vstr *tpl_str_new(rctx *c, const char *v, size_t n, taint from); /* borrows v */
const char *tpl_str_flat(rctx *c, vstr *s);                      /* joins if needed; [s->n] */
size_t tpl_str_chars(rctx *c, vstr *s);
bool tpl_str_ascii(rctx *c, vstr *s);
size_t tpl_str_at(rctx *c, vstr *s, size_t ch);             /* byte offset of code point ch */
vstr *tpl_str_sub(rctx *c, vstr *s, size_t from, size_t n); /* bytes */
vstr *tpl_str_concat(rctx *c, vstr *a, vstr *b);
bool tpl_str_closed(const vstr *s); /* any byte of it */
int tpl_str_cmp(rctx *c, vstr *a, vstr *b);
bool tpl_str_is(rctx *c, vstr *s, const char *lit);
const char *tpl_str_cstr(rctx *c, vstr *s); /* 0-terminated copy */

void tpl_sb_init(sbuild *b, rctx *c);
void tpl_sb_bytes(sbuild *b, const char *p, size_t n, bool closed);
void tpl_sb_puts(sbuild *b, const char *s);
void tpl_sb_str(sbuild *b, vstr *s);
void tpl_sb_sub(sbuild *b, vstr *s, size_t from, size_t n);
vstr *tpl_sb_done(sbuild *b);

/* Bytes of the white space character (Python's str.isspace) at s[0..n), 0 if it is none. */
size_t tpl_space_len(const char *s, size_t n);
/* Byte range of s without white space (set NULL) or the characters of set at the chosen ends. */
vstr *tpl_str_strip(rctx *c, vstr *s, vstr *set, bool left, bool right);
/* First position of b in a at or after from, SIZE_MAX if none (bytes). */
size_t tpl_str_find(rctx *c, vstr *a, vstr *b, size_t from);
size_t tpl_str_rfind(rctx *c, vstr *a, vstr *b);
typedef enum { CASE_UPPER, CASE_LOWER, CASE_SWAP, CASE_CAPITALIZE, CASE_TITLE } str_casing;
vstr *tpl_str_case(rctx *c, vstr *s, str_casing how);
vstr *tpl_str_replace(rctx *c, vstr *s, vstr *old, vstr *with, int64_t max);
value tpl_str_split(rctx *c, vstr *s, vstr *sep, int64_t max, bool from_right);
value tpl_str_splitlines(rctx *c, vstr *s, bool keep);
vstr *tpl_str_escape(rctx *c, vstr *s); /* HTML, gives markup */
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
bool tpl_str_is_class(rctx *c, vstr *s, str_class k);
/* Python's str % args. */
vstr *tpl_str_percent(rctx *c, vstr *s, value arg);
/* Python's str.format. */
vstr *tpl_str_format(rctx *c, vstr *s, const args *a);

/* ---- meaning --------------------------------------------------------------------------------- */

const char *tpl_type_name(value v); /* "str", "NoneType", ... */
bool tpl_truthy(rctx *c, value v);
bool tpl_equal(rctx *c, value a, value b);
/* -1, 0, 1; raises for kinds that Python does not order; op is for the message. */
int tpl_order(rctx *c, value a, value b, const char *op);
bool tpl_contains(rctx *c, value item, value in);
bool tpl_is_hashable(value v);
void tpl_check_hashable(rctx *c, value v);
bool tpl_has_length(value v);
size_t tpl_length_of(rctx *c, value v);
/* Everything a for loop would see, as a sequence; a generator is used up. */
vseq *tpl_iterate(rctx *c, value v);
bool tpl_is_iterable(value v);
/* Reads src if that has not happened yet. */
void tpl_seq_load(rctx *c, vseq *q);
void tpl_dict_load(rctx *c, vdict *d);
vdict *tpl_dict_new(rctx *c);
void tpl_dict_set(rctx *c, vdict *d, value key, value val);
bool tpl_dict_get(rctx *c, vdict *d, value key, value *out);
bool tpl_dict_get_text(rctx *c, vdict *d, const char *key, size_t n, value *out);
vseq *tpl_dict_view(rctx *c, vdict *d, int what, const char *name); /* 0 keys, 1 values, 2 items */
value tpl_get_item(rctx *c, value obj, value key);
value tpl_get_attr(rctx *c, value obj, vstr *name);
value tpl_get_slice(rctx *c, value obj, value lo, value hi, value step);
/* str() and repr(). */
vstr *tpl_to_str(rctx *c, value v);
void tpl_put_str(sbuild *b, value v);
void tpl_put_repr(sbuild *b, value v);
vstr *tpl_soft_str(rctx *c, value v); /* str() that keeps markup */
size_t tpl_float_repr(double f, char out[40]);
double tpl_to_double(rctx *c, value v); /* BOOL, INT, BIG, FLOAT */
bool tpl_is_number(value v);
bool tpl_is_int(value v);                              /* BOOL, INT */
int64_t tpl_int_of(value v);                           /* of those */
value tpl_parse_int(rctx *c, const char *s, size_t n); /* decimal digits with sign: INT or BIG */

value tpl_binary(rctx *c, int op, value a, value b); /* op: BIN_* of template_ast.h */
value tpl_negate(rctx *c, value v);

typedef struct {
    bool ascii, sort_keys;
    vstr *indent;             /* NULL: one line */
    vstr *item_sep, *key_sep; /* NULL: the defaults */
} json_style;
vstr *tpl_to_json(rctx *c, value v, const json_style *style);

/* ---- calls ----------------------------------------------------------------------------------- */

/* Parameters by name or place: names is "a b c"; out[k] is V_MISSING where none was given. */
void tpl_bind(rctx *c, const char *who, const args *a, const char *names, value *out);
value tpl_call_value(rctx *c, value fn, const args *a);
value tpl_call_macro(rctx *c, vmacro *m, const args *a);
value tpl_loop_attr(rctx *c, vloop *l, vstr *name, bool *found);
value tpl_loop_call(rctx *c, vloop *l, int method, const args *a);
int64_t tpl_arg_int(rctx *c, value v, int64_t missing);
vstr *tpl_arg_str(rctx *c, value v); /* NULL for missing and None */
bool tpl_arg_bool(rctx *c, value v, bool missing);

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
const filter_fn *tpl_find_filter(const char *name, size_t n);
const filter_fn *tpl_find_seq_filter(const char *name, size_t n); /* those of template_seq.c */
const test_fn *tpl_find_test(const char *name, size_t n);
const global_fn *tpl_find_global(const char *name, size_t n);
/* Method of a value as getattr() finds it: an index, -1 none, -2 one that the sandbox hides. */
int tpl_find_method(value self, const char *name, size_t n);
value tpl_call_method(rctx *c, const vbound *m, const args *a);
const char *tpl_method_name(int method);
int tpl_loop_method(const char *name, size_t n);

#endif
