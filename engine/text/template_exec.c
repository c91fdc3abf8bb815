/* template_exec.c - runs statements, and template_render itself.
 * Owns the arena of a rendering.  Refuses to go on beyond the limits of steps, output, depth and
 * memory.  Thread: the one that renders. */
#include "engine/text/template_ast.h"

#include <stdlib.h>
#include <string.h>

enum { RENDER_MEMORY = 512 << 20 };
static const uint64_t default_steps = 10000000;
static const size_t default_output = 16 << 20;

/* ---- assignment ------------------------------------------------------------------------------ */

static void unpack(rctx *c, scope *s, const node *target, value v)
{
    size_t want = 0;
    for (const node *k = target->a; k; k = k->next) want++;
    if (!tpl_is_iterable(v)) raise(c, "cannot unpack non-iterable %s object", tpl_type_name(v));
    vseq *q = tpl_iterate(c, v);
    if (q->n < want) raise(c, "not enough values to unpack (expected %zu, got %zu)", want, q->n);
    if (q->n > want) raise(c, "too many values to unpack (expected %zu)", want);
    size_t i = 0;
    for (const node *k = target->a; k; k = k->next) tpl_assign(c, s, k, q->v[i++]);
}

void tpl_assign(rctx *c, scope *s, const node *target, value v)
{
    value ns;
    if (target->kind == N_TUPLE) {
        unpack(c, s, target, v);
        return;
    }
    if (target->kind == N_NAME) {
        tpl_scope_set(c, s, target->name, v);
        return;
    }
    if (!tpl_scope_find(s, target->name, &ns) || ns.kind != V_NS)
        raise(c, "cannot assign attribute on non-namespace object");
    if (target->text->v[0] == '_')
        raise(c,
              "Chat templates cannot store underscore-prefixed attributes on a namespace, but got "
              "'%.*s'. "
              "Please rename the attribute.",
              (int)target->text->n, target->text->v);
    tpl_dict_set(c, ns.d, v_str(target->text), v);
}

/* ---- loops ----------------------------------------------------------------------------------- */

struct vloop {
    vseq *src;
    size_t at; /* next item of src */
    const node *target, *filter;
    scope *home; /* where the filter looks names up: empty, in the loop's scope */
    int64_t index0;
    int64_t length;           /* -1 = not asked for */
    value before, now, after; /* after: V_MISSING unless peeked at */
    value changed;            /* arguments of the last changed(), V_MISSING before */
};

/* The next item that passes the filter.  The filter runs when the item is due, not before: it may
 * read what the body sets in a namespace. */
static bool pull(rctx *c, vloop *l, value *v)
{
    while (l->at < l->src->n) {
        value item = l->src->v[l->at++];
        bool fits = true;
        if (l->filter) {
            l->home = tpl_scope_again(c, l->home);
            tpl_assign(c, l->home, l->target, item);
            fits = tpl_truthy(c, tpl_eval(c, l->home, l->filter));
        }
        if (!fits) continue;
        *v = item;
        return true;
    }
    return false;
}

static bool next_item(rctx *c, vloop *l)
{
    value v = l->after;
    l->after.kind = V_MISSING;
    if (v.kind == V_MISSING && !pull(c, l, &v)) return false;
    l->index0++;
    l->before = l->now;
    l->now = v;
    return true;
}

static bool peek(rctx *c, vloop *l)
{
    return l->after.kind != V_MISSING || pull(c, l, &l->after);
}

static int64_t loop_length(rctx *c, vloop *l)
{
    if (l->length >= 0) return l->length;
    if (l->filter) {
        vseq *rest = tpl_seq_new(c, 0);
        size_t cap = 0;
        for (value v; pull(c, l, &v);) tpl_seq_push(c, rest, &cap, v);
        l->src = rest;
        l->at = 0;
        l->filter = NULL;
    }
    int64_t peeked = l->after.kind != V_MISSING;
    return l->length = (int64_t)(l->src->n - l->at) + l->index0 + 1 + peeked;
}

value tpl_loop_attr(rctx *c, vloop *l, vstr *name, bool *found)
{
    *found = true;
    if (tpl_str_is(c, name, "index")) return v_int(l->index0 + 1);
    if (tpl_str_is(c, name, "index0")) return v_int(l->index0);
    if (tpl_str_is(c, name, "first")) return v_bool(l->index0 == 0);
    if (tpl_str_is(c, name, "last")) return v_bool(!peek(c, l));
    if (tpl_str_is(c, name, "length")) return v_int(loop_length(c, l));
    if (tpl_str_is(c, name, "revindex")) return v_int(loop_length(c, l) - l->index0);
    if (tpl_str_is(c, name, "revindex0")) return v_int(loop_length(c, l) - l->index0 - 1);
    if (tpl_str_is(c, name, "depth")) return v_int(1);
    if (tpl_str_is(c, name, "depth0")) return v_int(0);
    if (tpl_str_is(c, name, "previtem"))
        return l->index0 ? l->before : tpl_v_undef_hint(c, "there is no previous item");
    if (tpl_str_is(c, name, "nextitem"))
        return peek(c, l) ? l->after : tpl_v_undef_hint(c, "there is no next item");
    int m = tpl_loop_method(tpl_str_flat(c, name), name->n);
    *found = m >= 0;
    if (!*found) return v_none();
    vbound *b = tpl_take(c, sizeof *b);
    *b = (vbound){{.kind = V_LOOP, .loop = l}, m};
    return (value){.kind = V_BOUND, .bound = b};
}

/* method 0: cycle(...), 1: changed(...). */
value tpl_loop_call(rctx *c, vloop *l, int method, const args *a)
{
    if (method == 0) {
        if (!a->n) raise(c, "no items for cycling given");
        return a->pos[l->index0 % (int64_t)a->n];
    }
    vseq *q = tpl_seq_new(c, a->n);
    for (size_t i = 0; i < a->n; i++) q->v[q->n++] = a->pos[i];
    value now = v_seq(V_TUPLE, q);
    if (l->changed.kind != V_MISSING && tpl_equal(c, l->changed, now)) return v_bool(false);
    l->changed = now;
    return v_bool(true);
}

static void exec_for(rctx *c, scope *s, const node *n)
{
    vloop *l = tpl_take0(c, sizeof *l);
    *l = (vloop){.src = tpl_iterate(c, tpl_eval(c, s, n->b)),
                 .target = n->a,
                 .filter = n->e,
                 .index0 = -1,
                 .length = -1};
    if (l->filter) l->home = tpl_scope_push(c, s);
    for (scope *turn = tpl_scope_push(c, s); next_item(c, l);) {
        turn = tpl_scope_again(c, turn);
        tpl_scope_set(c, turn, n->name, (value){.kind = V_LOOP, .loop = l});
        tpl_assign(c, turn, n->a, l->now);
        work(c, 1);
        if (tpl_exec(c, turn, n->c) == FLOW_BREAK) break;
    }
    if (l->index0 < 0 && n->d) tpl_exec(c, tpl_scope_push(c, s), n->d);
}

/* ---- other statements ------------------------------------------------------------------------ */

/* Text of a body that runs in a scope of its own.  A break inside ends it like its loop. */
static vstr *capture(rctx *c, scope *s, const node *list, flow *f)
{
    sbuild b, *outer = c->out;
    tpl_sb_init(&b, c);
    c->out = &b;
    *f = tpl_exec(c, tpl_scope_push(c, s), list);
    c->out = outer;
    return tpl_sb_done(&b);
}

static flow exec_block(rctx *c, scope *s, const node *n)
{
    flow f;
    vstr *text = capture(c, s, n->c, &f);
    if (f != FLOW_ON) return f;
    value v = v_str(text);
    if (n->b) v = tpl_eval_block_filter(c, s, n->b, v);
    if (n->kind == N_SET_BLOCK) tpl_assign(c, s, n->a, v);
    else tpl_put_str(c->out, v);
    return FLOW_ON;
}

static value macro_value(rctx *c, scope *s, const node *def)
{
    vmacro *m = tpl_take(c, sizeof *m);
    *m = (vmacro){def, s};
    tpl_scope_keep(s);
    return (value){.kind = V_MACRO, .macro = m};
}

static void exec_call_block(rctx *c, scope *s, const node *n)
{
    value fn = tpl_eval(c, s, n->a->a);
    args a = tpl_eval_args(c, s, n->a->b);
    kwarg *kw = tpl_take(c, (a.n_kw + 1) * sizeof *kw);
    if (a.n_kw) memcpy(kw, a.kw, a.n_kw * sizeof *kw);
    kw[a.n_kw++] = (kwarg){"caller", macro_value(c, s, n->b)};
    a.kw = kw;
    tpl_put_str(c->out, tpl_call_value(c, fn, &a));
}

static flow exec_with(rctx *c, scope *s, const node *n)
{
    scope *inner = tpl_scope_push(c, s);
    for (const node *k = n->a; k; k = k->next->next)
        tpl_assign(c, inner, k, tpl_eval(c, s, k->next));
    return tpl_exec(c, inner, n->c);
}

static flow exec_if(rctx *c, scope *s, const node *n)
{
    while (!tpl_truthy(c, tpl_eval(c, s, n->a))) {
        const node *other = n->c;
        if (!other) return FLOW_ON;
        if (other->kind != N_IF || other->next) return tpl_exec(c, s, other);
        n = other; /* elif, or an if alone in else: the same */
    }
    return tpl_exec(c, s, n->b);
}

static flow exec_one(rctx *c, scope *s, const node *n)
{
    switch (n->kind) {
    case N_TEXT: tpl_sb_str(c->out, n->k.s); return FLOW_ON;
    case N_PRINT: tpl_put_str(c->out, tpl_eval(c, s, n->a)); return FLOW_ON;
    case N_IF: return exec_if(c, s, n);
    case N_FOR: exec_for(c, s, n); return FLOW_ON;
    case N_SET: tpl_assign(c, s, n->a, tpl_eval(c, s, n->b)); return FLOW_ON;
    case N_SET_BLOCK:
    case N_FILTER_BLOCK: return exec_block(c, s, n);
    case N_MACRO: tpl_scope_set(c, s, n->name, macro_value(c, s, n)); return FLOW_ON;
    case N_CALL_BLOCK: exec_call_block(c, s, n); return FLOW_ON;
    case N_WITH: return exec_with(c, s, n);
    case N_SCOPE: return tpl_exec(c, tpl_scope_push(c, s), n->c);
    case N_BREAK: return FLOW_BREAK;
    case N_CONTINUE: return FLOW_CONTINUE;
    default: raise(c, "this is not a statement");
    }
}

flow tpl_exec(rctx *c, scope *s, const node *list)
{
    flow f = FLOW_ON;
    if (++c->depth > MAX_DEPTH) tpl_fail(c, ERR_LIMIT, "maximum recursion depth exceeded");
    for (const node *n = list; n && f == FLOW_ON; n = n->next) {
        work(c, 1);
        f = exec_one(c, s, n);
    }
    c->depth--;
    return f;
}

/* ---- rendering ------------------------------------------------------------------------------- */

static void set_variables(rctx *c, scope *s, const template_input *in)
{
    for (size_t i = 0; i < in->n_var; i++) {
        const template_var *v = &in->var[i];
        if (!v->value) continue;
        for (int k = 0; k < c->t->n_names; k++)
            if (!strcmp(c->t->names[k], v->name))
                tpl_scope_set(c, s, k, tpl_v_from_json(c, v->value, v->trusted));
    }
}

static int hand_over(const sbuild *b, template_output *out, err *e)
{
    buf_reset(&out->text);
    buf_put(&out->text, b->v ? b->v : "", b->n);
    out->n_closed = 0;
    if (b->n_span > out->cap_closed) {
        text_span *v = realloc(out->closed, b->n_span * sizeof *v);
        if (!v) return err_set(e, ERR_NOMEM, "out of memory");
        out->closed = v;
        out->cap_closed = b->n_span;
    }
    if (!buf_ok(&out->text)) return err_set(e, ERR_NOMEM, "out of memory");
    if (b->n_span) memcpy(out->closed, b->span, b->n_span * sizeof *b->span);
    out->n_closed = b->n_span;
    return 0;
}

int template_render(const template *t, const template_input *in, template_output *out, err *e)
{
    rctx *c = calloc(1, sizeof *c);
    sbuild *text = calloc(1, sizeof *text);
    if (!c || !text) {
        free(c);
        free(text);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    *c = (rctx){.e = e, .t = t, .now = in->now, .mem.limit = RENDER_MEMORY};
    c->max_steps = in->max_steps ? in->max_steps : default_steps;
    *text = (sbuild){.c = c, .max = in->max_output ? in->max_output : default_output};
    c->out = text;
    if (!setjmp(c->fail)) {
        scope *root = tpl_scope_root(c, t);
        set_variables(c, root, in);
        tpl_exec(c, root, t->body);
    }
    int code = c->code ? c->code : hand_over(text, out, e);
    arena_clear(&c->mem);
    free(text);
    free(c);
    return code;
}

void template_output_clear(template_output *o)
{
    buf_clear(&o->text);
    free(o->closed);
    *o = (template_output){0};
}
