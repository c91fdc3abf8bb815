/* template_ast.h - tokens and nodes of a compiled template.  Private to template_*.c.
 * Thread: built by one, const afterwards. */
#ifndef QUERN_ENGINE_TEXT_TEMPLATE_AST_H
#define QUERN_ENGINE_TEXT_TEMPLATE_AST_H

#include "engine/text/template_value.h"

typedef enum {
    T_EOF,
    T_DATA,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_VAR_BEGIN,
    T_VAR_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_ADD,
    T_SUB,
    T_DIV,
    T_FLOORDIV,
    T_MUL,
    T_MOD,
    T_POW,
    T_TILDE,
    T_LBRACKET,
    T_RBRACKET,
    T_LPAREN,
    T_RPAREN,
    T_LBRACE,
    T_RBRACE,
    T_EQ,
    T_NE,
    T_GT,
    T_GE,
    T_LT,
    T_LE,
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMICOLON
} token_type;

typedef struct {
    token_type type;
    int line;
    const char *v; /* [n] DATA, NAME: source text; STRING: the decoded text; numbers: digits */
    size_t n;
    double f; /* FLOAT */
} token;

typedef enum { BIN_ADD, BIN_SUB, BIN_MUL, BIN_DIV, BIN_FLOORDIV, BIN_MOD, BIN_POW } bin_op;
typedef enum { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN } cmp_op;

typedef enum {
    /* expressions; [list] = siblings by next */
    N_CONST,    /* k */
    N_NAME,     /* name */
    N_LIST,     /* a: [items] */
    N_TUPLE,    /* a: [items] */
    N_DICT,     /* a: [key, value, key, value ...] */
    N_ATTR,     /* a . text */
    N_ITEM,     /* a [ b ] */
    N_SLICE,    /* a : b : c, each may be NULL; only as b of ITEM */
    N_CALL,     /* a ( b: [args] ) */
    N_KWARG,    /* text = a; only in args */
    N_STAR,     /* * a; only in args */
    N_STARSTAR, /* ** a; only in args */
    N_FILTER,   /* a | fn ( b: [args] ); a NULL = the block's text */
    N_TEST,     /* a is fn ( b: [args] ) */
    N_NOT,
    N_NEG,
    N_POS, /* a */
    N_AND,
    N_OR,      /* a, b */
    N_BINARY,  /* a op b */
    N_CONCAT,  /* a: [parts] */
    N_COMPARE, /* a, b: [OPERAND] */
    N_OPERAND, /* op a */
    N_COND,    /* b if a else c; c may be NULL */
    N_NSREF,   /* name . text, only as a target */
    /* statements */
    N_TEXT,         /* k */
    N_PRINT,        /* a */
    N_IF,           /* a, b: [then], c: [else] */
    N_FOR,          /* a target, b iterable, c: [body], d: [else], e filter; name: of `loop` */
    N_SET,          /* a target, b value */
    N_SET_BLOCK,    /* a target, b filters or NULL, c: [body] */
    N_MACRO,        /* name, a: [PARAM], c: [body], op: uses (MACRO_*) */
    N_PARAM,        /* name, a default or NULL */
    N_CALL_BLOCK,   /* a CALL, b: MACRO made of its body */
    N_FILTER_BLOCK, /* b filters, c: [body] */
    N_WITH,         /* a: [target, value ...], c: [body] */
    N_SCOPE,        /* c: [body] in a scope of its own (generation) */
    N_BREAK,
    N_CONTINUE
} node_kind;

/* What a macro's body reads beyond its parameters. */
enum { MACRO_CALLER = 1, MACRO_VARARGS = 2, MACRO_KWARGS = 4 };

typedef struct node node;
struct node {
    node_kind kind;
    int line;
    int op;
    int name;   /* index into template.names */
    int height; /* of the tree below */
    value k;
    vstr *text;
    const void *fn; /* filter_fn, test_fn */
    node *a, *b, *c, *d, *e, *next;
};

struct template
{
    arena mem;
    const char *text; /* [len] as given */
    size_t len;
    const char **names; /* [n_names] every variable name, 0-terminated */
    int n_names, cap_names;
    node *body;
};

/* Everything the parser and lexer share while compiling. */
typedef struct {
    rctx c; /* fail, arena: constants are ordinary values */
    template *t;
    token *tok; /* [n_tok], the last is EOF */
    size_t n_tok, cap_tok, at;
    int depth;            /* of nested expressions and blocks */
    int loops;            /* enclosing for loops of this function body */
    int uses;             /* MACRO_* names read so far in this function body */
    const char *open_tag; /* innermost open block, for messages */
} parser;

void tpl_syntax(parser *p, int line, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
void tpl_lex(parser *p, const char *text, size_t n);
const char *tpl_token_words(const token *t, char out[80]);

/* template_parse.c (statements) and template_expr.c (expressions). */
node *tpl_parse_template(parser *p);
node *tpl_node_new(parser *p, node_kind k, int line);
int tpl_name_id(parser *p, const char *s, size_t n);
static inline const token *cur(const parser *p)
{
    return &p->tok[p->at];
}
static inline const token *advance(parser *p)
{
    const token *t = &p->tok[p->at];
    if (t->type != T_EOF) p->at++;
    return t;
}
bool tpl_tok_is_name(const token *t, const char *word);
bool tpl_skip_name(parser *p, const char *word);
bool tpl_skip(parser *p, token_type type);
const token *tpl_expect(parser *p, token_type type, const char *words);
void tpl_enter(parser *p, int line);
void tpl_leave(parser *p);
node *tpl_parse_expression(parser *p, bool with_cond);
enum { TUPLE_COND = 1, TUPLE_SIMPLE = 2, TUPLE_PAREN = 4, TUPLE_NS = 8 };
node *tpl_parse_tuple(parser *p, int how, const char *end_word);
node *tpl_parse_target(parser *p, const char *end_word, bool with_ns);
node *tpl_parse_filters(parser *p, node *in, bool start_inline);
node *tpl_parse_call_args(parser *p);

/* template_eval.c */
value tpl_eval(rctx *c, scope *s, const node *n);
/* The filters of a block, the innermost over its text. */
value tpl_eval_block_filter(rctx *c, scope *s, const node *filters, value block);
scope *tpl_scope_root(rctx *c, const template *t);
void tpl_scope_set(rctx *c, scope *s, int name, value v);
scope *tpl_scope_push(rctx *c, scope *parent);
/* An empty scope in place of s, which its block is done with: s itself unless a macro holds it. */
scope *tpl_scope_again(rctx *c, scope *s);
void tpl_scope_keep(scope *s);
bool tpl_scope_find(scope *s, int name, value *out);
args tpl_eval_args(rctx *c, scope *s, const node *list);

/* template_exec.c */
typedef enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;
flow tpl_exec(rctx *c, scope *s, const node *list);
void tpl_assign(rctx *c, scope *s, const node *target, value v);

struct vmacro {
    const node *def;
    scope *home; /* where it was defined: what its body sees */
};

#endif
