/* schema.c - sets of schemas: what adds to a set, what splits it, and the memo that ends recursion.
 * Owns the compiler's tables for the time of a compile.  Refuses cycles that never reach a value,
 * too much splitting, and oneOf whose branches are not provably disjoint. Thread: one compile, one
 * thread. */
#include "engine/grammar/schema.h"

#include <stdarg.h>
#include <stdio.h>

enum { MAX_INPLACE_DEPTH = 200, MAX_PROOF_DEPTH = 6 };

/* Appends the JSON pointer of `where`; recursion is the nesting of the schema text. */
static bool find_path(const json *at, const json *where, buf *out)
{
    if (at == where) return true;
    if (at->type != JSON_ARRAY && at->type != JSON_OBJECT) return false;
    size_t i = 0, mark = out->len;
    for (const json *k = at->child; k; k = k->next, i++) {
        if (k != where && !k->child) continue;
        if (at->type == JSON_ARRAY) {
            buf_printf(out, "/%zu", i);
        } else {
            buf_putc(out, '/');
            for (uint32_t j = 0; j < k->n_key; j++) {
                if (k->key[j] == '~') buf_puts(out, "~0");
                else if (k->key[j] == '/') buf_puts(out, "~1");
                else buf_putc(out, k->key[j]);
            }
        }
        if (find_path(k, where, out)) return true;
        out->len = mark;
    }
    return false;
}

void schema_pointer(const schema_compiler *c, const json *where, buf *out)
{
    if (c->root && where) find_path(c->root, where, out);
}

int schema_refuse(schema_compiler *c, const char *code, const json *where, const char *keyword,
                  const char *fmt, ...)
{
    char words[200];
    buf path = {0};
    va_list a;
    if (c->rc) return c->rc;
    c->rc = !strcmp(code, "invalid_schema")       ? ERR_INVALID
            : !strcmp(code, "unsupported_schema") ? ERR_UNSUPPORTED
                                                  : ERR_LIMIT;
    if (c->attempts) return c->rc;
    va_start(a, fmt);
    vsnprintf(words, sizeof words, fmt, a);
    va_end(a);
    schema_pointer(c, where, &path);
    c->refused = where;
    c->keyword = keyword;
    c->why->code = code;
    snprintf(c->why->at, sizeof c->why->at, "%s", path.len ? buf_str(&path) : "");
    err_set(&c->why->e, c->rc, "keyword \"%s\" at #%.200s: %s", keyword,
            path.len ? buf_str(&path) : "", words);
    buf_clear(&path);
    return c->rc;
}

/* ---- texts ---- */
static void index_texts(id_table *t, const void *owner)
{
    const text_memo *m = owner;
    for (uint32_t i = 0; i < m->made.n; i++) id_table_put(t, m->made.p[i].hash, i + 1);
}

rx schema_known(const text_memo *m, const text_rx *x)
{
    const id_table *t = &m->index;
    uint32_t j = (uint32_t)x->hash & (t->cap - 1);
    for (; t->cap && t->slot[j]; j = (j + 1) & (t->cap - 1)) {
        const text_rx *y = &m->made.p[t->slot[j] - 1];
        if (y->hash == x->hash && y->n == x->n && !memcmp(y->s, x->s, x->n)) return y->e;
    }
    return RX_UNKNOWN;
}

void schema_know(schema_compiler *c, text_memo *m, const text_rx *x)
{
    int *status = &c->g->r.status;
    if (*status || !id_table_room(&m->index, index_texts, m, status)) return;
    VEC_PUSH(status, m->made, *x);
    if (!*status) id_table_put(&m->index, x->hash, m->made.n);
}

/* ---- expansion ---- */
/* Inserts m at place at (and moves on) unless it is there already; closing a cycle is refused.
 * Members are expanded from left to right, so no parent moves. */
static void add_member(schema_compiler *c, member_set *out, uint32_t *at, member m)
{
    for (uint32_t p = m.parent; m.kind == M_FULL && p; p = out->p[p - 1].parent)
        if (out->p[p - 1].kind == M_FULL && out->p[p - 1].s == m.s) {
            schema_refuse(c, "invalid_schema", m.s, "$ref", "refers to itself without a value");
            return;
        }
    for (uint32_t i = 0; i < out->n; i++)
        if (out->p[i].kind == m.kind && out->p[i].s == m.s && out->p[i].name == m.name) return;
    if (out->n >= SCHEMA_MAX_MEMBERS)
        schema_refuse(c, "schema_too_complex", m.s, "allOf", "more than %d schemas at one place",
                      SCHEMA_MAX_MEMBERS);
    VEC_PUSH(&c->g->r.status, *out, m);
    if (c->g->r.status) return;
    memmove(out->p + *at + 1, out->p + *at, (out->n - 1 - *at) * sizeof m);
    out->p[(*at)++] = m;
}

static void add_dependencies(schema_compiler *c, member_set *out, uint32_t *at, const json *s,
                             const json *d)
{
    if (d->type != JSON_OBJECT) schema_refuse(c, "invalid_schema", s, d->key, "not an object");
    for (const json *k = d->child; k && !c->rc; k = k->next)
        add_member(c, out, at, (member){M_DEPEND, 0, s, k});
}

/* The FULL member at place self into its parts behind it, in the order of its keywords: that is the
 * order in which keys are generated. */
static void expand(schema_compiler *c, member_set *out, uint32_t self)
{
    const json *s = out->p[self].s, *ref = json_get(s, "$ref");
    uint32_t at = self + 1;
    const char *depend = c->draft <= 7 ? "dependencies" : "dependentRequired";
    if (ref && c->draft <= 7) { /* siblings do not count */
        const json *to = schema_resolve(c, s, ref);
        if (!c->rc) add_member(c, out, &at, (member){M_FULL, self + 1, to, NULL});
        return;
    }
    for (const json *k = s->child; k && !c->rc && !c->g->r.status; k = k->next) {
        if (schema_key_is(k, "properties")) {
            add_member(c, out, &at, (member){M_BASE, 0, s, NULL});
        } else if (k == ref) {
            const json *to = schema_resolve(c, s, ref);
            if (!c->rc) add_member(c, out, &at, (member){M_FULL, self + 1, to, NULL});
        } else if (schema_key_is(k, "allOf")) {
            if (k->type != JSON_ARRAY)
                schema_refuse(c, "invalid_schema", s, "allOf", "not a list of schemas");
            for (const json *x = k->child; x && !c->rc; x = x->next)
                add_member(c, out, &at, (member){M_FULL, self + 1, x, NULL});
        } else if (schema_key_is(k, "anyOf")) {
            add_member(c, out, &at, (member){M_ANY_OF, 0, s, NULL});
        } else if (schema_key_is(k, "oneOf")) {
            add_member(c, out, &at, (member){M_ONE_OF, 0, s, NULL});
        } else if (schema_key_is(k, "not")) {
            add_member(c, out, &at, (member){M_NOT, 0, k, NULL});
        } else if (schema_key_is(k, "if") && c->draft >= 7) {
            add_member(c, out, &at, (member){M_IF, 0, s, NULL});
        } else if (schema_key_is(k, depend) ||
                   (c->draft > 7 && schema_key_is(k, "dependentSchemas"))) {
            add_dependencies(c, out, &at, s, k);
        }
    }
    if (!c->rc) add_member(c, out, &at, (member){M_BASE, 0, s, NULL}); /* where not added yet */
}

/* ---- nodes ---- */
static bool is_widened(const schema_compiler *c, const json *s)
{
    for (uint32_t i = 0; i < c->widened.n; i++)
        if (c->widened.p[i] == s) return true;
    return false;
}

static bool check_schema(schema_compiler *c, const json *s)
{
    if (s->type == JSON_OBJECT) return true;
    return json_is_bool(s) ? false
                           : (schema_refuse(c, "invalid_schema", s, "schema",
                                            "a schema is an object or a boolean"),
                              false);
}

/* The clock costs as much as a small schema. */
static bool late(gram *g)
{
    return !(++g->ticks & 63) && gram_cpu_seconds() > g->deadline;
}

uint32_t schema_node(schema_compiler *c, const member *v, uint32_t n)
{
    member_set all = {0}, set = {0};
    uint32_t node = 0, split = GRAM_NONE;
    bool never = false;
    if (++c->depth > MAX_INPLACE_DEPTH || c->g->units <= n || late(c->g))
        schema_refuse(c, "grammar_too_complex", v[0].s, "schema", "too much work to compile");
    else c->g->units -= n + 1;
    for (uint32_t i = 0; i < n && !c->rc; i++) {
        member m = v[i];
        uint32_t end = all.n;
        m.parent = 0;
        add_member(c, &all, &end, m);
    }
    for (uint32_t i = 0; i < all.n && !c->rc && !never; i++) {
        const json *s = all.p[i].s;
        if (all.p[i].kind != M_FULL || is_widened(c, s)) continue;
        if (check_schema(c, s)) expand(c, &all, i);
        else never = s->type == JSON_FALSE;
    }
    for (uint32_t i = 0; i < all.n; i++) {
        if (all.p[i].kind == M_FULL) continue;
        bool choice = all.p[i].kind >= M_ANY_OF && all.p[i].kind <= M_NOT;
        if (choice && split == GRAM_NONE) split = set.n;
        VEC_PUSH(&c->g->r.status, set, all.p[i]);
    }
    free(all.p);
    bool integer;
    if (!c->rc && !c->g->r.status) {
        /* What no type allows is nothing, whatever its branches say. */
        if (!never) never = !schema_types(c, set.p, set.n, &integer) && !c->rc;
        if (never) node = gram_term(c->g, R_NONE);
        else if (!set.n && c->form.level != c->level) node = c->any;
        else if (split == GRAM_NONE) node = schema_emit(c, set.p, set.n);
        else node = schema_split(c, &set, split);
    }
    free(set.p);
    c->depth--;
    return c->rc || c->g->r.status ? 0 : node;
}

/* ---- children ---- */
static uint64_t set_hash(const member *v, uint32_t n)
{
    uint64_t h = n;
    for (uint32_t i = 0; i < n; i++)
        h = hash_mix(hash_mix(h, (uint64_t)(uintptr_t)v[i].s), v[i].kind);
    return h;
}

static void index_memo(id_table *t, const void *owner)
{
    const schema_compiler *c = owner;
    for (uint32_t i = 0; i < c->memo.n; i++) {
        const set_memo *m = &c->memo.p[i];
        if (m->n != GRAM_NONE) id_table_put(t, set_hash(c->kept.p + m->first, m->n), i + 1);
    }
}

static bool refers(const member *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (json_get(v[i].s, "$ref")) return true;
    return false;
}

/* The rule of a memo entry whose node does not exist yet. */
static uint32_t memo_node(schema_compiler *c, uint32_t k)
{
    if (c->memo.p[k].rule == GRAM_NONE) c->memo.p[k].rule = gram_rule(c->g);
    return c->memo.p[k].rule;
}

uint32_t schema_child(schema_compiler *c, const member *v, uint32_t n)
{
    id_table *t = &c->memo_index;
    uint32_t k, j;
    if (!id_table_room(t, index_memo, c, &c->g->r.status)) return 0;
    for (j = set_hash(v, n) & (t->cap - 1); t->slot[j]; j = (j + 1) & (t->cap - 1)) {
        const set_memo *m = &c->memo.p[t->slot[j] - 1];
        bool same = m->n == n;
        for (uint32_t i = 0; same && i < n; i++)
            same = c->kept.p[m->first + i].s == v[i].s && c->kept.p[m->first + i].kind == v[i].kind;
        if (!same) continue;
        return m->busy ? memo_node(c, t->slot[j] - 1) : m->node;
    }
    k = c->memo.n;
    VEC_PUSH(&c->g->r.status, c->memo, (set_memo){c->kept.n, n, 0, GRAM_NONE, true});
    for (uint32_t i = 0; i < n; i++) VEC_PUSH(&c->g->r.status, c->kept, v[i]);
    if (c->g->r.status) return 0;
    id_table_set(t, j, k + 1);
    if (c->depth > MAX_PROOF_DEPTH && refers(v, n)) { /* later, from the queue: no deep recursion */
        VEC_PUSH(&c->g->r.status, c->queue, k);
        return memo_node(c, k);
    }
    c->level++;
    uint32_t node = schema_node(c, v, n);
    c->level--;
    set_memo *m = &c->memo.p[k];
    m->busy = false;
    if (c->rc || c->g->r.status) return 0;
    if (m->rule != GRAM_NONE) c->g->rules.p[c->g->nodes.p[m->rule].a] = node;
    return m->node = m->rule != GRAM_NONE && !gram_never(c->g, node) ? m->rule : node;
}

void schema_run_queue(schema_compiler *c)
{
    VEC(member) v = {0};
    for (uint32_t i = 0; i < c->queue.n && !c->rc && !c->g->r.status; i++) {
        uint32_t k = c->queue.p[i];
        v.n = 0;
        for (uint32_t j = 0; j < c->memo.p[k].n; j++)
            VEC_PUSH(&c->g->r.status, v, c->kept.p[c->memo.p[k].first + j]);
        c->depth = 0;
        c->level = 1;
        uint32_t node = c->g->r.status ? 0 : schema_node(c, v.p, v.n);
        c->memo.p[k].node = c->memo.p[k].rule;
        c->memo.p[k].busy = false;
        if (!c->rc && !c->g->r.status) c->g->rules.p[c->g->nodes.p[c->memo.p[k].rule].a] = node;
    }
    free(v.p);
}

/* ---- the document ---- */
static int draft_of(const json *root)
{
    const json *s = json_get(root, "$schema");
    const char *u = json_is(s, JSON_STRING) ? s->str : "";
    return strstr(u, "draft-03") || strstr(u, "draft-04") ? 4
           : strstr(u, "draft-06")                        ? 6
           : strstr(u, "draft-07")                        ? 7
           : strstr(u, "2019-09")                         ? 2019
                                                          : 2020;
}

int schema_open(schema_compiler *c, const char *text, size_t n)
{
    const json_limits limits = {
        .max_depth = SCHEMA_MAX_NESTING, .max_values = SCHEMA_MAX_VALUES, .unique_keys = true};
    if (!c->any) c->any = c->g->any;
    if (n > SCHEMA_MAX_BYTES) {
        c->why->code = "schema_too_complex";
        return c->rc =
                   err_set(&c->why->e, ERR_LIMIT,
                           "the schema has %zu bytes, at most %d are allowed", n, SCHEMA_MAX_BYTES);
    }
    c->doc = json_parse(text, n, &limits, &c->root, &c->why->e);
    if (!c->doc) {
        int rc = c->why->e.code;
        c->why->code = rc == ERR_NOMEM   ? NULL
                       : rc == ERR_LIMIT ? "schema_too_complex"
                                         : "invalid_schema";
        return c->rc = err_prefix(&c->why->e, "the schema");
    }
    c->draft = draft_of(c->root);
    c->inner_ids = schema_inner_ids(c);
    return 0;
}

int schema_root(schema_compiler *c, bool object, uint32_t *node)
{
    const member m[2] = {{M_FULL, 0, c->root, NULL}, {M_OBJECT, 0, c->root, NULL}};
    *node = object ? schema_node(c, m, 2) : schema_child(c, m, 1);
    schema_run_queue(c);
    return c->rc ? c->rc : c->g->r.status;
}

void schema_free_tables(schema_compiler *c)
{
    free(c->kept.p);
    free(c->memo.p);
    free(c->memo_index.slot);
    free(c->queue.p);
    free(c->patterns.made.p);
    free(c->patterns.index.slot);
    free(c->names.made.p);
    free(c->names.index.slot);
    free(c->keys.made.p);
    free(c->keys.index.slot);
}

void schema_close(schema_compiler *c)
{
    schema_free_tables(c);
    json_free(c->doc);
    free(c->widened.p);
}

int schema_compile(gram *g, const char *text, size_t n, rx guard, grammar_error *why,
                   uint32_t *root)
{
    schema_compiler c = {.g = g, .why = why, .guard = guard};
    uint32_t node = 0;
    if (guard != R_ALL) c.any = gram_any(g, guard, NULL);
    int rc = schema_open(&c, text, n);
    if (!rc) rc = schema_root(&c, false, &node);
    if (rc && c.refused) schema_more_faults(&c, false);
    schema_close(&c);
    if (rc) return rc;
    const uint32_t parts[3] = {gram_term(g, g->ws), node, gram_term(g, g->ws)};
    *root = gram_list(g, G_SEQ, parts, 3);
    return 0;
}
