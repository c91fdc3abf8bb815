/* template_expr.c - parses expressions: Jinja's grammar, operator by operator.
 * Owns nothing (nodes live in the template's arena).  Refuses unknown filters and tests, and trees
 * too deep to walk.  Thread: the compiler's. */
#include "engine/text/template_ast.h"

#include <string.h>

enum { MAX_HEIGHT = 400 };

/* Fills in the height; every node with children passes through here once they are set. */
static node *finish(parser *p, node *n)
{
    const node *kid[] = {n->a, n->b, n->c, n->d, n->e};
    int h = 0;
    for (size_t i = 0; i < sizeof kid / sizeof *kid; i++)
        for (const node *k = kid[i]; k; k = k->next)
            if (k->height > h) h = k->height;
    n->height = h + 1;
    if (n->height > MAX_HEIGHT) tpl_syntax(p, n->line, "the expression is nested too deeply");
    return n;
}

static node *unary(parser *p, bool with_filter);

static node *pair(parser *p, node_kind k, int op, int line, node *a, node *b)
{
    node *n = tpl_node_new(p, k, line);
    n->op = op;
    n->a = a;
    n->b = b;
    return finish(p, n);
}

static node *constant(parser *p, int line, value v)
{
    node *n = tpl_node_new(p, N_CONST, line);
    n->k = v;
    n->height = 1;
    return n;
}

static value int_token(parser *p, const token *t)
{
    if (t->n > 1 && t->v[0] == '0' && (t->v[1] | 32) >= 'a') {
        int base = (t->v[1] | 32) == 'x' ? 16 : (t->v[1] | 32) == 'o' ? 8 : 2;
        int64_t v = 0;
        for (size_t i = 2; i < t->n; i++) {
            int d = t->v[i] <= '9' ? t->v[i] - '0' : (t->v[i] | 32) - 'a' + 10;
            if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v))
                tpl_syntax(p, t->line, "the number %s is too large", t->v);
        }
        return v_int(v);
    }
    return tpl_parse_int(&p->c, t->v, t->n);
}

static vstr *joined_strings(parser *p)
{
    const token *t = advance(p);
    vstr *s = tpl_str_new(&p->c, t->v, t->n, OPEN);
    while (cur(p)->type == T_STRING) {
        t = advance(p);
        s = tpl_str_concat(&p->c, s, tpl_str_new(&p->c, t->v, t->n, OPEN));
    }
    /* Rendering threads share constants, so nothing in them may change later. */
    tpl_str_flat(&p->c, s);
    tpl_str_chars(&p->c, s);
    s->room = 0;
    return s;
}

static node *list_items(parser *p, token_type end, const char *words, bool dict)
{
    node *first = NULL, **tail = &first;
    while (cur(p)->type != end) {
        if (first) tpl_expect(p, T_COMMA, "','");
        if (cur(p)->type == end) break;
        *tail = tpl_parse_expression(p, true);
        tail = &(*tail)->next;
        if (dict) {
            tpl_expect(p, T_COLON, "':'");
            *tail = tpl_parse_expression(p, true);
            tail = &(*tail)->next;
        }
    }
    tpl_expect(p, end, words);
    return first;
}

static node *named(parser *p, const token *t, bool with_ns)
{
    if (tpl_tok_is_name(t, "true") || tpl_tok_is_name(t, "True"))
        return constant(p, t->line, v_bool(true));
    if (tpl_tok_is_name(t, "false") || tpl_tok_is_name(t, "False"))
        return constant(p, t->line, v_bool(false));
    if (tpl_tok_is_name(t, "none") || tpl_tok_is_name(t, "None"))
        return constant(p, t->line, v_none());
    if (tpl_tok_is_name(t, "caller")) p->uses |= MACRO_CALLER;
    if (tpl_tok_is_name(t, "varargs")) p->uses |= MACRO_VARARGS;
    if (tpl_tok_is_name(t, "kwargs")) p->uses |= MACRO_KWARGS;
    node *n = tpl_node_new(p, N_NAME, t->line);
    n->name = tpl_name_id(p, t->v, t->n);
    n->height = 1;
    if (with_ns && tpl_skip(p, T_DOT)) {
        const token *attr = tpl_expect(p, T_NAME, "name");
        n->kind = N_NSREF;
        n->text = tpl_str_new(&p->c, attr->v, attr->n, OPEN);
        tpl_str_chars(&p->c, n->text);
    }
    return n;
}

static node *primary(parser *p, bool with_ns)
{
    const token *t = cur(p);
    node *n = NULL;
    char words[80];
    switch (t->type) {
    case T_NAME: advance(p); return named(p, t, with_ns);
    case T_STRING: return constant(p, t->line, v_str(joined_strings(p)));
    case T_INT: advance(p); return constant(p, t->line, int_token(p, t));
    case T_FLOAT: advance(p); return constant(p, t->line, v_float(t->f));
    case T_LPAREN:
        advance(p);
        n = tpl_parse_tuple(p, TUPLE_COND | TUPLE_PAREN, NULL);
        tpl_expect(p, T_RPAREN, "')'");
        return n;
    case T_LBRACKET:
    case T_LBRACE:
        advance(p);
        n = tpl_node_new(p, t->type == T_LBRACE ? N_DICT : N_LIST, t->line);
        n->a = t->type == T_LBRACE ? list_items(p, T_RBRACE, "'}'", true)
                                   : list_items(p, T_RBRACKET, "']'", false);
        return finish(p, n);
    default: tpl_syntax(p, t->line, "unexpected %s", tpl_token_words(t, words));
    }
}

/* One index between brackets: an expression or lo:hi:step. */
static node *subscript(parser *p)
{
    int line = cur(p)->line;
    node *part[3] = {NULL, NULL, NULL};
    if (cur(p)->type != T_COLON) {
        part[0] = tpl_parse_expression(p, true);
        if (cur(p)->type != T_COLON) return part[0];
    }
    for (int i = 1; i < 3 && tpl_skip(p, T_COLON); i++)
        if (cur(p)->type != T_COLON && cur(p)->type != T_RBRACKET && cur(p)->type != T_COMMA)
            part[i] = tpl_parse_expression(p, true);
    node *n = tpl_node_new(p, N_SLICE, line);
    n->a = part[0];
    n->b = part[1];
    n->c = part[2];
    return finish(p, n);
}

static node *dotted(parser *p, node *obj, int line)
{
    const token *t = advance(p);
    if (t->type == T_INT)
        return pair(p, N_ITEM, 0, line, obj, constant(p, t->line, int_token(p, t)));
    if (t->type != T_NAME) tpl_syntax(p, t->line, "expected name or number");
    node *n = tpl_node_new(p, N_ATTR, line);
    n->a = obj;
    n->text = tpl_str_new(&p->c, t->v, t->n, OPEN);
    tpl_str_chars(&p->c, n->text);
    return finish(p, n);
}

static node *indexed(parser *p, node *obj, int line)
{
    node *first = NULL, **tail = &first;
    while (cur(p)->type != T_RBRACKET) {
        if (first) tpl_expect(p, T_COMMA, "','");
        *tail = subscript(p);
        if ((*tail)->kind == N_SLICE && (first != *tail || cur(p)->type == T_COMMA))
            tpl_syntax(p, line, "a slice cannot stand among other indices");
        tail = &(*tail)->next;
    }
    tpl_expect(p, T_RBRACKET, "']'");
    if (!first || first->next) {
        node *n = tpl_node_new(p, N_TUPLE, line);
        n->a = first;
        first = finish(p, n);
    }
    return pair(p, N_ITEM, 0, line, obj, first);
}

/* One argument: a, name=a, *a or **a. */
static node *call_arg(parser *p)
{
    const token *t = cur(p);
    node_kind k = t->type == T_MUL ? N_STAR : t->type == T_POW ? N_STARSTAR : N_CONST;
    if (t->type == T_NAME && p->tok[p->at + 1].type == T_ASSIGN) {
        advance(p);
        k = N_KWARG;
    }
    if (k == N_CONST) return tpl_parse_expression(p, true);
    advance(p);
    node *n = tpl_node_new(p, k, t->line);
    if (k == N_KWARG) n->text = tpl_str_new(&p->c, arena_copy(&p->c.mem, t->v, t->n), t->n, OPEN);
    if (n->text && !n->text->v) tpl_fail(&p->c, ERR_NOMEM, "out of memory");
    n->a = tpl_parse_expression(p, true);
    return finish(p, n);
}

node *tpl_parse_call_args(parser *p)
{
    const token *open = tpl_expect(p, T_LPAREN, "'('");
    node *first = NULL, **tail = &first;
    node_kind last = N_CONST;
    while (cur(p)->type != T_RPAREN) {
        if (first) tpl_expect(p, T_COMMA, "','");
        if (cur(p)->type == T_RPAREN) break;
        node *n = call_arg(p);
        node_kind k =
            n->kind == N_KWARG || n->kind == N_STAR || n->kind == N_STARSTAR ? n->kind : N_CONST;
        /* Order: plain arguments, then names and at most one *, then at most one **. */
        bool ok = k == N_CONST      ? last == N_CONST
                  : k == N_STARSTAR ? last != N_STARSTAR
                  : k == N_STAR     ? last != N_STAR && last != N_STARSTAR
                                    : last != N_STARSTAR;
        if (!ok) tpl_syntax(p, open->line, "invalid syntax for function call expression");
        if (k != N_CONST) last = k;
        *tail = n;
        tail = &n->next;
    }
    tpl_expect(p, T_RPAREN, "')'");
    return first;
}

static node *postfix(parser *p, node *n)
{
    for (;;) {
        int line = cur(p)->line;
        if (tpl_skip(p, T_DOT)) n = dotted(p, n, line);
        else if (tpl_skip(p, T_LBRACKET)) n = indexed(p, n, line);
        else if (cur(p)->type == T_LPAREN) n = pair(p, N_CALL, 0, line, n, tpl_parse_call_args(p));
        else return n;
    }
}

/* A filter or test name, which may hold dots. */
static size_t dotted_name(parser *p, char *out, size_t cap)
{
    size_t n = 0;
    do {
        const token *t = tpl_expect(p, T_NAME, "name");
        if (n + t->n + 2 > cap) tpl_syntax(p, t->line, "the name '%.40s' is too long", t->v);
        if (n) out[n++] = '.';
        memcpy(out + n, t->v, t->n);
        n += t->n;
    } while (tpl_skip(p, T_DOT));
    out[n] = 0;
    return n;
}

node *tpl_parse_filters(parser *p, node *in, bool start_inline)
{
    while (start_inline || tpl_skip(p, T_PIPE)) {
        char name[64];
        int line = cur(p)->line;
        size_t n = dotted_name(p, name, sizeof name);
        const filter_fn *f = tpl_find_filter(name, n);
        if (!f) tpl_syntax(p, line, "No filter named '%s'.", name);
        node *call = cur(p)->type == T_LPAREN ? tpl_parse_call_args(p) : NULL;
        in = pair(p, N_FILTER, 0, line, in, call);
        in->fn = f;
        start_inline = false;
    }
    return in;
}

static node *test(parser *p, node *in)
{
    char name[64];
    int line = advance(p)->line;
    bool negated = tpl_skip_name(p, "not");
    size_t n = dotted_name(p, name, sizeof name);
    const test_fn *f = tpl_find_test(name, n);
    if (!f) tpl_syntax(p, line, "No test named '%s'.", name);
    node *call = NULL;
    const token *t = cur(p);
    switch (t->type) {
    case T_LPAREN: call = tpl_parse_call_args(p); break;
    case T_NAME:
        if (tpl_tok_is_name(t, "else") || tpl_tok_is_name(t, "or") || tpl_tok_is_name(t, "and"))
            break;
        if (tpl_tok_is_name(t, "is"))
            tpl_syntax(p, t->line, "You cannot chain multiple tests with is");
        call = postfix(p, primary(p, false));
        break;
    case T_STRING:
    case T_INT:
    case T_FLOAT:
    case T_LBRACKET:
    case T_LBRACE: call = postfix(p, primary(p, false)); break;
    default: break;
    }
    node *res = pair(p, N_TEST, 0, line, in, call);
    res->fn = f;
    return negated ? pair(p, N_NOT, 0, line, res, NULL) : res;
}

static node *filters_and_tests(parser *p, node *n)
{
    for (;;) {
        int line = cur(p)->line;
        if (cur(p)->type == T_PIPE) n = tpl_parse_filters(p, n, false);
        else if (tpl_tok_is_name(cur(p), "is")) n = test(p, n);
        else if (cur(p)->type == T_LPAREN) n = pair(p, N_CALL, 0, line, n, tpl_parse_call_args(p));
        else return n;
    }
}

static node *unary(parser *p, bool with_filter)
{
    node *n;
    const token *t = cur(p);
    if (t->type == T_SUB || t->type == T_ADD) {
        advance(p);
        tpl_enter(p, t->line);
        n = pair(p, t->type == T_SUB ? N_NEG : N_POS, 0, t->line, unary(p, false), NULL);
        tpl_leave(p);
    } else {
        n = primary(p, false);
    }
    n = postfix(p, n);
    return with_filter ? filters_and_tests(p, n) : n;
}

static node *power(parser *p)
{
    node *n = unary(p, true);
    for (int line = cur(p)->line; tpl_skip(p, T_POW); line = cur(p)->line)
        n = pair(p, N_BINARY, BIN_POW, line, n, unary(p, true));
    return n;
}

static node *product(parser *p)
{
    node *n = power(p);
    for (;;) {
        token_type t = cur(p)->type;
        int line = cur(p)->line;
        int op = t == T_MUL        ? BIN_MUL
                 : t == T_DIV      ? BIN_DIV
                 : t == T_FLOORDIV ? BIN_FLOORDIV
                 : t == T_MOD      ? BIN_MOD
                                   : -1;
        if (op < 0) return n;
        advance(p);
        n = pair(p, N_BINARY, op, line, n, power(p));
    }
}

static node *concat(parser *p)
{
    int line = cur(p)->line;
    node *first = product(p), **tail = &first->next;
    if (cur(p)->type != T_TILDE) return first;
    while (tpl_skip(p, T_TILDE)) {
        *tail = product(p);
        tail = &(*tail)->next;
    }
    return pair(p, N_CONCAT, 0, line, first, NULL);
}

static node *sum(parser *p)
{
    node *n = concat(p);
    for (;;) {
        token_type t = cur(p)->type;
        int line = cur(p)->line;
        if (t != T_ADD && t != T_SUB) return n;
        advance(p);
        n = pair(p, N_BINARY, t == T_ADD ? BIN_ADD : BIN_SUB, line, n, concat(p));
    }
}

static int compare_op(parser *p)
{
    switch (cur(p)->type) {
    case T_EQ: return CMP_EQ;
    case T_NE: return CMP_NE;
    case T_LT: return CMP_LT;
    case T_LE: return CMP_LE;
    case T_GT: return CMP_GT;
    case T_GE: return CMP_GE;
    default: break;
    }
    if (tpl_tok_is_name(cur(p), "in")) return CMP_IN;
    if (tpl_tok_is_name(cur(p), "not") && tpl_tok_is_name(&p->tok[p->at + 1], "in")) {
        advance(p);
        return CMP_NOT_IN;
    }
    return -1;
}

static node *comparison(parser *p)
{
    int line = cur(p)->line, op;
    node *n = sum(p), *ops = NULL, **tail = &ops;
    while ((op = compare_op(p)) >= 0) {
        int at = advance(p)->line;
        *tail = pair(p, N_OPERAND, op, at, sum(p), NULL);
        tail = &(*tail)->next;
    }
    return ops ? pair(p, N_COMPARE, 0, line, n, ops) : n;
}

static node *negation(parser *p)
{
    if (!tpl_tok_is_name(cur(p), "not")) return comparison(p);
    int line = advance(p)->line;
    tpl_enter(p, line);
    node *n = pair(p, N_NOT, 0, line, negation(p), NULL);
    tpl_leave(p);
    return n;
}

static node *conjunction(parser *p)
{
    node *n = negation(p);
    for (int line = cur(p)->line; tpl_skip_name(p, "and"); line = cur(p)->line)
        n = pair(p, N_AND, 0, line, n, negation(p));
    return n;
}

static node *disjunction(parser *p)
{
    node *n = conjunction(p);
    for (int line = cur(p)->line; tpl_skip_name(p, "or"); line = cur(p)->line)
        n = pair(p, N_OR, 0, line, n, conjunction(p));
    return n;
}

static node *conditional(parser *p)
{
    int line = cur(p)->line;
    node *n = disjunction(p);
    while (tpl_skip_name(p, "if")) {
        node *res = tpl_node_new(p, N_COND, line);
        res->b = n;
        res->a = disjunction(p);
        tpl_enter(p, line);
        if (tpl_skip_name(p, "else")) res->c = conditional(p);
        tpl_leave(p);
        n = finish(p, res);
        line = cur(p)->line;
    }
    return n;
}

node *tpl_parse_expression(parser *p, bool with_cond)
{
    tpl_enter(p, cur(p)->line);
    node *n = with_cond ? conditional(p) : disjunction(p);
    tpl_leave(p);
    return n;
}

static bool tuple_end(const parser *p, const char *end_word)
{
    const token *t = cur(p);
    return t->type == T_VAR_END || t->type == T_BLOCK_END || t->type == T_RPAREN ||
           (end_word && tpl_tok_is_name(t, end_word));
}

node *tpl_parse_tuple(parser *p, int how, const char *end_word)
{
    int line = cur(p)->line;
    node *first = NULL, **tail = &first;
    bool tuple = false;
    char words[80];
    tpl_enter(p, line);
    for (;;) {
        if (first) tpl_expect(p, T_COMMA, "','");
        if (tuple_end(p, end_word)) break;
        *tail = how & TUPLE_SIMPLE ? primary(p, how & TUPLE_NS)
                                   : tpl_parse_expression(p, how & TUPLE_COND);
        tail = &(*tail)->next;
        if (cur(p)->type != T_COMMA) break;
        tuple = true;
    }
    tpl_leave(p);
    if (!tuple) {
        if (first) return first;
        if (!(how & TUPLE_PAREN))
            tpl_syntax(p, cur(p)->line, "Expected an expression, got %s",
                       tpl_token_words(cur(p), words));
    }
    node *n = tpl_node_new(p, N_TUPLE, line);
    n->a = first;
    return finish(p, n);
}

static void check_target(parser *p, const node *n)
{
    static const char *const kinds[] = {[N_CONST] = "const", [N_LIST] = "list", [N_DICT] = "dict"};
    if (n->kind == N_TUPLE) {
        for (const node *k = n->a; k; k = k->next) check_target(p, k);
    } else if (n->kind != N_NAME && n->kind != N_NSREF) {
        const char *what = n->kind <= N_DICT && kinds[n->kind] ? kinds[n->kind] : "expression";
        tpl_syntax(p, n->line, "can't assign to '%s'", what);
    }
}

node *tpl_parse_target(parser *p, const char *end_word, bool with_ns)
{
    node *n = tpl_parse_tuple(p, TUPLE_SIMPLE | (with_ns ? TUPLE_NS : 0), end_word);
    check_target(p, n);
    return n;
}
