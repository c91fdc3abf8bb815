/* gram_move.c - a fresh automaton that still knows some configurations of the old one: what they
 * need of expressions and stacks is copied out, the automaton starts anew, and is given them again.
 * Owns its copies while it works.  Errors: ERR_NOMEM, or the arena's status; the automaton is then
 * as after gram_restart, or has a status.  Thread: under the grammar's lock. */
#include "engine/grammar/gram.h"

/* What is kept: things made since the freeze, in the order of their old ids, so that each stands
 * behind what it is made of. */
typedef struct {
    int status;
    uint32_t mark; /* expressions below were there at the freeze and keep their ids */
    uint32_t n_expr, n_cell;
    uint32_t *expr; /* [n_expr] old id - mark -> 1: needed; later the new id */
    uint32_t *cell; /* [n_cell] the same for stacks */
    VEC(rx_node) nodes;
    VEC(rx) kids;
    VEC(byte_set) sets;
    VEC(cell) cells;
    VEC(uint32_t) merged;
    VEC(config) configs;
    VEC(thread) threads; /* of old expressions and old stacks */
} kept;

static bool is_list(const rx_node *x)
{
    return x->kind == RX_ALT || x->kind == RX_AND;
}

static void need_expr(kept *k, rx e)
{
    if (e >= k->mark) k->expr[e - k->mark] = 1;
}

static void keep_config(const gram *g, kept *k, uint32_t id)
{
    config c = g->configs.p[id];
    const uint32_t first = c.first;
    c.first = k->threads.n;
    for (uint32_t i = 0; i < c.n; i++) {
        const thread t = g->threads.p[first + i];
        rx e = g->r.states.p[t.state].e;
        need_expr(k, e);
        k->cell[t.stack] = 1;
        VEC_PUSH(&k->status, k->threads, (thread){e, t.stack});
    }
    VEC_PUSH(&k->status, k->configs, c);
}

/* Both sweeps go from the newest down: what a thing is made of is older than it. */
static void need_all(const gram *g, kept *k)
{
    for (uint32_t i = k->n_cell; i-- > 1;) {
        const cell *c = &g->cells.p[i];
        if (!k->cell[i]) continue;
        if (c->node != g->merge) k->cell[c->parent] = 1;
        else
            for (uint32_t j = 0; j < c->count; j++) k->cell[g->merged.p[c->pos + j]] = 1;
    }
    for (uint32_t i = k->n_expr; i--;) {
        const rx_node *x = &g->r.nodes.p[k->mark + i];
        if (!k->expr[i]) continue;
        if (is_list(x))
            for (uint32_t j = 0; j < x->b; j++) need_expr(k, g->r.kids.p[x->a + j]);
        if (x->kind == RX_CAT || x->kind == RX_NOT || x->kind == RX_REP) need_expr(k, x->a);
        if (x->kind == RX_CAT) need_expr(k, x->b);
    }
}

static void copy_expr(const gram *g, kept *k, rx_node x)
{
    uint32_t a = x.a;
    if (is_list(&x)) {
        x.a = k->kids.n;
        for (uint32_t j = 0; j < x.b; j++) VEC_PUSH(&k->status, k->kids, g->r.kids.p[a + j]);
    } else if (x.kind == RX_SET) {
        x.a = k->sets.n;
        VEC_PUSH(&k->status, k->sets, g->r.sets.p[a]);
    }
    if (x.live == 3) x.live = 0;
    VEC_PUSH(&k->status, k->nodes, x);
}

static void copy_out(const gram *g, kept *k, uint32_t *const *ids, uint32_t n)
{
    k->mark = g->r.mark_nodes;
    k->n_expr = g->r.nodes.n - k->mark;
    k->n_cell = g->cells.n;
    k->expr = calloc((size_t)k->n_expr + 1, sizeof *k->expr);
    k->cell = calloc((size_t)k->n_cell + 1, sizeof *k->cell);
    if (!k->expr || !k->cell) {
        k->status = ERR_NOMEM;
        return;
    }
    for (uint32_t i = 0; i < n; i++) keep_config(g, k, *ids[i]);
    need_all(g, k);
    for (uint32_t i = 0; i < k->n_expr; i++)
        if (k->expr[i]) copy_expr(g, k, g->r.nodes.p[k->mark + i]);
    for (uint32_t i = 1; i < k->n_cell; i++) {
        cell c = g->cells.p[i];
        if (!k->cell[i]) continue;
        if (c.node == g->merge) {
            c.pos = k->merged.n;
            for (uint32_t j = 0; j < c.count; j++)
                VEC_PUSH(&k->status, k->merged, g->merged.p[g->cells.p[i].pos + j]);
        }
        VEC_PUSH(&k->status, k->cells, c);
    }
}

static rx new_expr(const kept *k, rx e)
{
    return e < k->mark ? e : k->expr[e - k->mark];
}

static int by_id(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static rx put_expr(rx_arena *r, const kept *k, rx_node x)
{
    if (x.kind == RX_SET) return rx_set(r, &k->sets.p[x.a]);
    if (is_list(&x)) {
        uint32_t a = r->kids.n;
        for (uint32_t j = 0; j < x.b; j++)
            VEC_PUSH(&r->status, r->kids, new_expr(k, k->kids.p[x.a + j]));
        if (r->status) return R_NONE;
        qsort(r->kids.p + a, x.b, sizeof(rx), by_id);
        x.a = a;
    } else if (x.kind != RX_MOD) {
        x.a = new_expr(k, x.a);
        if (x.kind == RX_CAT) x.b = new_expr(k, x.b);
    }
    return rx_intern(r, x);
}

static void put_back(gram *g, kept *k, uint32_t *const *ids)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < k->n_expr && !g->r.status; i++)
        if (k->expr[i]) k->expr[i] = put_expr(&g->r, k, k->nodes.p[at++]);
    at = 0;
    for (uint32_t i = 1; i < k->n_cell && !g->r.status; i++) {
        if (!k->cell[i]) continue;
        cell c = k->cells.p[at++];
        if (c.node != g->merge) {
            c.parent = k->cell[c.parent];
            k->cell[i] = gram_push_cell(g, c);
            continue;
        }
        uint32_t a = g->merged.n;
        for (uint32_t j = 0; j < c.count; j++)
            VEC_PUSH(&g->r.status, g->merged, k->cell[k->merged.p[c.pos + j]]);
        if (!g->r.status) k->cell[i] = gram_merge_callers(g, a);
    }
    for (uint32_t i = 0; i < k->threads.n && !g->r.status; i++) {
        thread *t = &k->threads.p[i];
        *t = (thread){rx_state_of(&g->r, new_expr(k, t->state)), k->cell[t->stack]};
    }
    for (uint32_t i = 0; i < k->configs.n && !g->r.status; i++) {
        const config *c = &k->configs.p[i];
        *ids[i] = gram_of_threads(g, c->n ? k->threads.p + c->first : NULL, c->n, c->accept);
    }
}

int gram_move(gram *g, uint32_t *const *ids, uint32_t n)
{
    kept k = {0};
    copy_out(g, &k, ids, n);
    if (k.cell) k.cell[0] = 0; /* the bottom is the bottom */
    int rc = gram_restart(g);
    if (!rc) rc = k.status;
    if (!rc) {
        put_back(g, &k, ids);
        rc = g->r.status;
    }
    free(k.expr);
    free(k.cell);
    free(k.nodes.p);
    free(k.kids.p);
    free(k.sets.p);
    free(k.cells.p);
    free(k.merged.p);
    free(k.configs.p);
    free(k.threads.p);
    return rc;
}
