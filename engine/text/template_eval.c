/* template_eval.c - runs the tree: scopes, expressions, calls.  Statements are in template_exec.c.
 * Scopes are Jinja's: a block of a loop, macro, call, filter, with or set has its own, `if` has
 * none; a macro sees the scope it was written in.
 * Owns nothing (arena).  Thread: the one that renders. */
#include "engine/text/template_ast.h"

#include <stdio.h>
#include <string.h>

/* ---- scopes ---------------------------------------------------------------------------------- */

typedef struct {
    int name;
    value v;
} binding;

struct scope {
    scope *parent;
    binding *b; /* [cap] */
    int n, cap;
    bool kept; /* a macro was defined in it or below: it outlives its block */
};

scope *tpl_scope_push(rctx *c, scope *parent)
{
    scope *s = tpl_take0(c, sizeof *s);
    s->parent = parent;
    return s;
}

scope *tpl_scope_again(rctx *c, scope *s)
{
    if (s->kept) return tpl_scope_push(c, s->parent);
    s->n = 0;
    return s;
}

void tpl_scope_keep(scope *s)
{
    for (; s && !s->kept; s = s->parent) s->kept = true;
}

scope *tpl_scope_root(rctx *c, const template *t)
{
    scope *s = tpl_scope_push(c, NULL);
    s->cap = t->n_names ? t->n_names : 1;
    s->b = tpl_take(c, (size_t)s->cap * sizeof *s->b);
    return s;
}

void tpl_scope_set(rctx *c, scope *s, int name, value v)
{
    for (int i = 0; i < s->n; i++)
        if (s->b[i].name == name) {
            s->b[i].v = v;
            return;
        }
    if (s->n == s->cap) {
        int cap = s->cap ? s->cap * 2 : 4;
        binding *b = tpl_take(c, (size_t)cap * sizeof *b);
        if (s->n) memcpy(b, s->b, (size_t)s->n * sizeof *b);
        s->b = b;
        s->cap = cap;
    }
    s->b[s->n++] = (binding){name, v};
}

bool tpl_scope_find(scope *s, int name, value *out)
{
    for (; s; s = s->parent)
        for (int i = 0; i < s->n; i++)
            if (s->b[i].name == name) {
                *out = s->b[i].v;
                return true;
            }
    return false;
}

static value variable(rctx *c, scope *s, const node *n)
{
    value v;
    const char *name = c->t->names[n->name];
    if (tpl_scope_find(s, n->name, &v)) return v.kind == V_MISSING ? tpl_v_undef_name(c, name) : v;
    const global_fn *g = tpl_find_global(name, strlen(name));
    return g ? (value){.kind = V_GLOBAL, .global = g} : tpl_v_undef_name(c, name);
}

/* ---- calls ----------------------------------------------------------------------------------- */

static void add_kwarg(rctx *c, args *a, size_t *cap, const char *name, value v)
{
    for (size_t i = 0; i < a->n_kw; i++)
        if (!strcmp(a->kw[i].name, name))
            raise(c, "got multiple values for keyword argument '%s'", name);
    if (a->n_kw == *cap) {
        size_t more = *cap ? *cap * 2 : 4;
        kwarg *kw = tpl_take(c, more * sizeof *kw);
        if (a->n_kw) memcpy(kw, a->kw, a->n_kw * sizeof *kw);
        a->kw = kw;
        *cap = more;
    }
    work(c, a->n_kw >> 3);
    a->kw[a->n_kw++] = (kwarg){name, v};
}

static void add_mapping(rctx *c, args *a, size_t *cap, value v)
{
    if (v.kind != V_DICT) raise(c, "argument after ** must be a mapping, not %s", tpl_type_name(v));
    tpl_dict_load(c, v.d);
    for (size_t i = 0; i < v.d->n; i++) {
        if (v.d->v[i].key.kind != V_STR) raise(c, "keywords must be strings");
        add_kwarg(c, a, cap, tpl_str_cstr(c, v.d->v[i].key.s), v.d->v[i].val);
    }
}

args tpl_eval_args(rctx *c, scope *s, const node *list)
{
    args a = {0};
    vseq pos = {0};
    size_t cap = 0, cap_kw = 0;
    for (const node *n = list; n; n = n->next) {
        if (n->kind == N_KWARG) {
            add_kwarg(c, &a, &cap_kw, n->text->v, tpl_eval(c, s, n->a));
        } else if (n->kind == N_STAR) {
            vseq *more = tpl_iterate(c, tpl_eval(c, s, n->a));
            for (size_t i = 0; i < more->n; i++) tpl_seq_push(c, &pos, &cap, more->v[i]);
            work(c, more->n);
        } else if (n->kind == N_STARSTAR) {
            add_mapping(c, &a, &cap_kw, tpl_eval(c, s, n->a));
        } else {
            tpl_seq_push(c, &pos, &cap, tpl_eval(c, s, n));
        }
    }
    a.pos = pos.v;
    a.n = pos.n;
    return a;
}

value tpl_call_value(rctx *c, value fn, const args *a)
{
    switch (fn.kind) {
    case V_BOUND: return tpl_call_method(c, fn.bound, a);
    case V_GLOBAL: return fn.global->fn(c, a);
    case V_MACRO: return tpl_call_macro(c, fn.macro, a);
    case V_UNDEF: tpl_raise_undefined(c, fn);
    case V_LOOP: raise(c, "The loop must have the 'recursive' marker to be called recursively.");
    case V_JOINER:
        if (fn.cycle->at++) return fn.cycle->v[0];
        return tpl_v_text(c, "");
    default: raise(c, "'%s' object is not callable", tpl_type_name(fn));
    }
}

static value not_provided(rctx *c, const char *name)
{
    sbuild b;
    tpl_sb_init(&b, c);
    tpl_sb_puts(&b, "parameter '");
    tpl_sb_puts(&b, name);
    tpl_sb_puts(&b, "' was not provided");
    return tpl_v_undef_hint(c, tpl_str_cstr(c, tpl_sb_done(&b)));
}

/* Binds the parameters of a macro in s; what is left over goes to varargs and kwargs. */
static void bind_macro(rctx *c, scope *s, const vmacro *m, const args *a)
{
    const char *const *names = c->t->names;
    const char *who = m->def->name >= 0 ? names[m->def->name] : "";
    size_t used = 0, n_param = 0;
    bool *kw_used = tpl_take0(c, a->n_kw + 1);
    for (const node *p = m->def->a; p; p = p->next, n_param++) {
        value v = {.kind = V_MISSING};
        bool given = used < a->n;
        if (given) v = a->pos[used++];
        for (size_t i = 0; !given && i < a->n_kw; i++)
            if (!strcmp(a->kw[i].name, names[p->name])) {
                v = a->kw[i].v;
                given = kw_used[i] = true;
            }
        if (!given && p->a) v = tpl_eval(c, s, p->a);
        else if (!given) v = not_provided(c, names[p->name]);
        tpl_scope_set(c, s, p->name, v);
    }
    vdict *rest = tpl_dict_new(c);
    value caller = tpl_v_undef_hint(c, "No caller defined");
    for (size_t i = 0; i < a->n_kw; i++) {
        if (kw_used[i]) continue;
        if ((m->def->op & MACRO_CALLER) && !strcmp(a->kw[i].name, "caller")) caller = a->kw[i].v;
        else if (m->def->op & MACRO_KWARGS)
            tpl_dict_set(c, rest, tpl_v_text(c, a->kw[i].name), a->kw[i].v);
        else raise(c, "macro '%s' takes no keyword argument '%s'", who, a->kw[i].name);
    }
    if (used < a->n && !(m->def->op & MACRO_VARARGS))
        raise(c, "macro '%s' takes not more than %zu argument(s)", who, n_param);
    vseq *extra = tpl_seq_new(c, 0);
    extra->n = a->n - used;
    if (extra->n) extra->v = a->pos + used;
    for (int i = 0; i < c->t->n_names && m->def->op; i++) {
        if ((m->def->op & MACRO_CALLER) && !strcmp(names[i], "caller"))
            tpl_scope_set(c, s, i, caller);
        if ((m->def->op & MACRO_VARARGS) && !strcmp(names[i], "varargs"))
            tpl_scope_set(c, s, i, v_seq(V_TUPLE, extra));
        if ((m->def->op & MACRO_KWARGS) && !strcmp(names[i], "kwargs"))
            tpl_scope_set(c, s, i, (value){.kind = V_DICT, .d = rest});
    }
}

value tpl_call_macro(rctx *c, vmacro *m, const args *a)
{
    scope *s = tpl_scope_push(c, m->home);
    sbuild out, *outer = c->out;
    bind_macro(c, s, m, a);
    tpl_sb_init(&out, c);
    c->out = &out;
    tpl_exec(c, s, m->def->c);
    c->out = outer;
    return v_str(tpl_sb_done(&out));
}

/* ---- expressions ----------------------------------------------------------------------------- */

static value eval_list(rctx *c, scope *s, const node *n)
{
    vseq *q = tpl_seq_new(c, 0);
    size_t cap = 0;
    for (const node *k = n->a; k; k = k->next) tpl_seq_push(c, q, &cap, tpl_eval(c, s, k));
    return v_seq(n->kind == N_LIST ? V_LIST : V_TUPLE, q);
}

static value eval_dict(rctx *c, scope *s, const node *n)
{
    vdict *d = tpl_dict_new(c);
    for (const node *k = n->a; k; k = k->next->next) {
        value key = tpl_eval(c, s, k), val = tpl_eval(c, s, k->next);
        tpl_dict_set(c, d, key, val);
    }
    return (value){.kind = V_DICT, .d = d};
}

static value eval_item(rctx *c, scope *s, const node *n)
{
    value obj = tpl_eval(c, s, n->a);
    if (n->b->kind != N_SLICE) return tpl_get_item(c, obj, tpl_eval(c, s, n->b));
    value part[3] = {v_none(), v_none(), v_none()};
    const node *kid[] = {n->b->a, n->b->b, n->b->c};
    for (int i = 0; i < 3; i++)
        if (kid[i]) part[i] = tpl_eval(c, s, kid[i]);
    return tpl_get_slice(c, obj, part[0], part[1], part[2]);
}

static bool compare_one(rctx *c, int op, value a, value b)
{
    static const char *const names[] = {"==", "!=", "<", "<=", ">", ">="};
    int r;
    switch (op) {
    case CMP_EQ: return tpl_equal(c, a, b);
    case CMP_NE: return !tpl_equal(c, a, b);
    case CMP_IN: return tpl_contains(c, a, b);
    case CMP_NOT_IN: return !tpl_contains(c, a, b);
    default: break;
    }
    r = tpl_order(c, a, b, names[op]);
    if (r == 2) return false;
    return op == CMP_LT ? r < 0 : op == CMP_LE ? r <= 0 : op == CMP_GT ? r > 0 : r >= 0;
}

static value eval_compare(rctx *c, scope *s, const node *n)
{
    value left = tpl_eval(c, s, n->a);
    for (const node *o = n->b; o; o = o->next) {
        value right = tpl_eval(c, s, o->a);
        if (!compare_one(c, o->op, left, right)) return v_bool(false);
        left = right;
    }
    return v_bool(true);
}

static value eval_concat(rctx *c, scope *s, const node *n)
{
    vstr *t = tpl_to_str(c, tpl_eval(c, s, n->a));
    for (const node *k = n->a->next; k; k = k->next)
        t = tpl_str_concat(c, t, tpl_to_str(c, tpl_eval(c, s, k)));
    return v_str(t);
}

static value eval_cond(rctx *c, scope *s, const node *n)
{
    if (tpl_truthy(c, tpl_eval(c, s, n->a))) return tpl_eval(c, s, n->b);
    if (n->c) return tpl_eval(c, s, n->c);
    char hint[120];
    int len = snprintf(hint, sizeof hint,
                       "the inline if-expression on line %d evaluated to false and no else "
                       "section was defined.",
                       n->line);
    return tpl_v_undef_hint(c, tpl_str_cstr(c, tpl_str_new(c, hint, (size_t)len, OPEN)));
}

/* block: the text that the innermost filter of a block works on, V_MISSING in expressions. */
static value eval_filter(rctx *c, scope *s, const node *n, value block)
{
    const filter_fn *f = n->fn;
    value in = block;
    if (n->a)
        in = block.kind != V_MISSING && n->a->kind == N_FILTER ? eval_filter(c, s, n->a, block)
                                                               : tpl_eval(c, s, n->a);
    args a = tpl_eval_args(c, s, n->b);
    /* cppcheck-suppress returnDanglingLifetime ; values point into the arena, never to `a` */
    return f->fn(c, in, &a);
}

value tpl_eval_block_filter(rctx *c, scope *s, const node *n, value block)
{
    return eval_filter(c, s, n, block);
}

static value eval_call(rctx *c, scope *s, const node *n)
{
    value fn = tpl_eval(c, s, n->a);
    args a = tpl_eval_args(c, s, n->b);
    return tpl_call_value(c, fn, &a);
}

static value eval_test(rctx *c, scope *s, const node *n)
{
    const test_fn *t = n->fn;
    value in = tpl_eval(c, s, n->a);
    args a = tpl_eval_args(c, s, n->b);
    return v_bool(t->fn(c, in, &a));
}

static value eval_plus(rctx *c, value v)
{
    if (v.kind == V_BOOL) return v_int(v.b);
    if (tpl_is_number(v)) return v;
    if (v.kind == V_UNDEF) tpl_raise_undefined(c, v);
    raise(c, "bad operand type for unary +: '%s'", tpl_type_name(v));
}

static value eval_node(rctx *c, scope *s, const node *n)
{
    value v;
    switch (n->kind) {
    case N_CONST: return n->k;
    case N_NAME: return variable(c, s, n);
    case N_LIST:
    case N_TUPLE: return eval_list(c, s, n);
    case N_DICT: return eval_dict(c, s, n);
    case N_ATTR: return tpl_get_attr(c, tpl_eval(c, s, n->a), n->text);
    case N_ITEM: return eval_item(c, s, n);
    case N_CALL: return eval_call(c, s, n);
    case N_FILTER: return eval_filter(c, s, n, (value){.kind = V_MISSING});
    case N_TEST: return eval_test(c, s, n);
    case N_NOT: return v_bool(!tpl_truthy(c, tpl_eval(c, s, n->a)));
    case N_NEG: return tpl_negate(c, tpl_eval(c, s, n->a));
    case N_POS: return eval_plus(c, tpl_eval(c, s, n->a));
    case N_AND: v = tpl_eval(c, s, n->a); return tpl_truthy(c, v) ? tpl_eval(c, s, n->b) : v;
    case N_OR: v = tpl_eval(c, s, n->a); return tpl_truthy(c, v) ? v : tpl_eval(c, s, n->b);
    case N_BINARY: v = tpl_eval(c, s, n->a); return tpl_binary(c, n->op, v, tpl_eval(c, s, n->b));
    case N_CONCAT: return eval_concat(c, s, n);
    case N_COMPARE: return eval_compare(c, s, n);
    case N_COND: return eval_cond(c, s, n);
    default: raise(c, "this cannot stand in an expression");
    }
}

value tpl_eval(rctx *c, scope *s, const node *n)
{
    work(c, 1);
    if (++c->depth > MAX_DEPTH) tpl_fail(c, ERR_LIMIT, "maximum recursion depth exceeded");
    value v = eval_node(c, s, n);
    c->depth--;
    return v;
}
