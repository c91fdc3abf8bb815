/* gram.c - the automaton of configurations: hash-consed stacks, closure, steps.
 * Owns cells, threads, configurations.  Refuses stacks, sets and automata over the limits of gram.h
 * (status ERR_LIMIT).  Thread: the grammar's. */
#include "engine/grammar/gram.h"

#define RESUME GRAM_NONE

void gram_go(gram *g, uint32_t node, uint32_t stack)
{
    VEC_PUSH(&g->r.status, g->work, (todo){node, stack});
}

void gram_thread(gram *g, rx e, uint32_t stack)
{
    if (e == R_NONE) return;
    if (g->found.n > 16 * GRAM_MAX_THREADS) g->r.status = ERR_LIMIT;
    VEC_PUSH(&g->r.status, g->found, (thread){rx_state_of(&g->r, e), stack});
}

static uint64_t cell_hash(const cell *c)
{
    uint64_t h = hash_mix(c->node, (uint64_t)c->pos << 32 | c->count);
    return hash_mix(hash_mix(h, c->parent), c->seen);
}

static void index_cells(id_table *t, const void *owner)
{
    const gram *g = owner;
    for (uint32_t i = 1; i < g->cells.n; i++) id_table_put(t, cell_hash(&g->cells.p[i]), i);
}

static bool cell_equal(const cell *a, const cell *b)
{
    return a->node == b->node && a->pos == b->pos && a->count == b->count &&
           a->parent == b->parent && a->seen == b->seen;
}

uint32_t gram_push_cell(gram *g, cell c)
{
    id_table *t = &g->cell_index;
    if (c.node != g->merge) c.depth = g->cells.p[c.parent].depth + 1;
    if (c.depth > GRAM_MAX_DEPTH) g->r.status = ERR_LIMIT;
    if (g->r.status || !id_table_room(t, index_cells, g, &g->r.status)) return 0;
    uint32_t j = cell_hash(&c) & (t->cap - 1);
    for (; t->slot[j]; j = (j + 1) & (t->cap - 1))
        if (cell_equal(&g->cells.p[t->slot[j]], &c)) return t->slot[j];
    VEC_PUSH(&g->r.status, g->cells, c);
    if (g->r.status) return 0;
    id_table_set(t, j, g->cells.n - 1);
    return g->cells.n - 1;
}

static void resume(gram *g, uint32_t k, bool *accept)
{
    if (!k) {
        *accept = true;
        return;
    }
    const cell c = g->cells.p[k];
    const gnode n = g->nodes.p[c.node];
    switch (n.kind) {
    case G_MERGE:
        for (uint32_t i = 0; i < c.count; i++) gram_go(g, RESUME, g->merged.p[c.pos + i]);
        break;
    case G_SEQ: {
        uint32_t rest =
            c.pos + 1 < n.b
                ? gram_push_cell(g, (cell){.node = c.node, .pos = c.pos + 1, .parent = c.parent})
                : c.parent;
        gram_go(g, g->kids.p[n.a + c.pos], rest);
        break;
    }
    case G_OBJ: gram_resume_object(g, &c); break;
    default: gram_resume_array(g, &c); break;
    }
}

static void enter(gram *g, uint32_t node, uint32_t k)
{
    const gnode n = g->nodes.p[node];
    switch (n.kind) {
    case G_TERM:
        if (n.a == R_NONE) break;
        if (n.a != R_EPS) gram_thread(g, n.a, k);
        if (g->r.nodes.p[n.a].nullable) gram_go(g, RESUME, k);
        break;
    case G_SEQ:
        gram_go(g, g->kids.p[n.a], gram_push_cell(g, (cell){.node = node, .pos = 1, .parent = k}));
        break;
    case G_ALT:
        for (uint32_t i = 0; i < n.b; i++) gram_go(g, g->kids.p[n.a + i], k);
        break;
    case G_RULE: VEC_PUSH(&g->r.status, g->pending, (todo){n.a, k}); break;
    case G_OBJ: {
        uint32_t frame = gram_push_cell(g, (cell){.node = node, .pos = GRAM_OPEN, .parent = k});
        if (g->objects.p[n.a].xml) gram_go(g, RESUME, frame);
        else gram_thread(g, g->open_obj, frame);
        break;
    }
    case G_ARR:
        gram_thread(g, g->open_arr,
                    gram_push_cell(g, (cell){.node = node, .pos = GRAM_OPEN, .parent = k}));
        break;
    default: break;
    }
}

/* ---- configurations ---- */
static int by_thread(const void *a, const void *b)
{
    const thread *x = a, *y = b;
    if (x->state != y->state) return x->state < y->state ? -1 : 1;
    return (x->stack > y->stack) - (x->stack < y->stack);
}

static int by_id(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint64_t threads_hash(const thread *t, uint32_t n, bool accept)
{
    uint64_t h = accept;
    for (uint32_t i = 0; i < n; i++) h = hash_mix(h, (uint64_t)t[i].state << 32 | t[i].stack);
    return h;
}

static void index_configs(id_table *t, const void *owner)
{
    const gram *g = owner;
    for (uint32_t i = 1; i < g->configs.n; i++) {
        const config *c = &g->configs.p[i];
        id_table_put(t, threads_hash(g->threads.p + c->first, c->n, c->accept), i);
    }
}

static bool add_row(gram *g)
{
    uint32_t need = g->configs.n + 1;
    if (need > GRAM_MAX_CONFIGS) g->r.status = ERR_LIMIT;
    if (need > g->next_rows && !g->r.status) {
        uint32_t rows = g->next_rows ? g->next_rows * 2 : 16;
        uint32_t *t = realloc(g->next, (size_t)rows * g->r.n_cls * sizeof *t);
        if (t) {
            g->next = t;
            g->next_rows = rows;
        } else {
            g->r.status = ERR_NOMEM;
        }
    }
    if (g->r.status) return false;
    memset(g->next + (size_t)(need - 1) * g->r.n_cls, 0, g->r.n_cls * sizeof *g->next);
    return true;
}

/* Bytes on which every thread is known to die need no step. */
static void open_row(gram *g, uint32_t id)
{
    const config c = g->configs.p[id];
    uint32_t n_cls = g->r.n_cls, *row = g->next + (size_t)id * n_cls;
    for (uint32_t i = 0; i < c.n; i++) {
        const uint32_t *next = g->r.next + (size_t)g->threads.p[c.first + i].state * n_cls;
        for (uint32_t k = 0; k < n_cls; k++)
            if (next[k]) row[k] = RX_UNKNOWN;
    }
}

static uint32_t intern_config(gram *g, bool accept)
{
    id_table *t = &g->config_index;
    thread *f = g->found.p;
    uint32_t n = 0;
    if (!rx_spend_small(&g->r, g->found.n)) return 0;
    if (g->found.n) qsort(f, g->found.n, sizeof *f, by_thread);
    for (uint32_t i = 0; i < g->found.n; i++)
        if (!n || by_thread(&f[n - 1], &f[i])) f[n++] = f[i];
    if (!n && !accept) return 0;
    if (n > GRAM_MAX_THREADS) g->r.status = ERR_LIMIT;
    if (g->r.status || !id_table_room(t, index_configs, g, &g->r.status)) return 0;
    uint32_t j = threads_hash(f, n, accept) & (t->cap - 1);
    for (; t->slot[j]; j = (j + 1) & (t->cap - 1)) {
        const config *c = &g->configs.p[t->slot[j]];
        if (c->n == n && c->accept == accept &&
            (!n || !memcmp(g->threads.p + c->first, f, n * sizeof *f)))
            return t->slot[j];
    }
    if (!add_row(g)) return 0;
    config c = {g->threads.n, n, accept};
    for (uint32_t i = 0; i < n; i++) VEC_PUSH(&g->r.status, g->threads, f[i]);
    VEC_PUSH(&g->r.status, g->configs, c);
    if (g->r.status) return 0;
    id_table_set(t, j, g->configs.n - 1);
    open_row(g, g->configs.n - 1);
    return g->configs.n - 1;
}

static uint64_t merge_hash(const uint32_t *v, uint32_t n)
{
    uint64_t h = n;
    for (uint32_t i = 0; i < n; i++) h = hash_mix(h, v[i]);
    return h;
}

static void index_merges(id_table *t, const void *owner)
{
    const gram *g = owner;
    for (uint32_t i = 1; i < g->cells.n; i++) {
        const cell *c = &g->cells.p[i];
        if (c->node == g->merge) id_table_put(t, merge_hash(g->merged.p + c->pos, c->count), i);
    }
}

uint32_t gram_merge_callers(gram *g, uint32_t a)
{
    id_table *t = &g->merge_index;
    uint32_t *v = g->merged.p + a, n = 0, depth = 0;
    qsort(v, g->merged.n - a, sizeof *v, by_id);
    for (uint32_t i = 0; i < g->merged.n - a; i++)
        if (!n || v[n - 1] != v[i]) v[n++] = v[i];
    g->merged.n = a + n;
    if (n == 1) {
        g->merged.n = a;
        return v[0];
    }
    if (!id_table_room(t, index_merges, g, &g->r.status)) return 0;
    uint32_t j = merge_hash(v, n) & (t->cap - 1);
    for (; t->slot[j]; j = (j + 1) & (t->cap - 1)) {
        const cell *c = &g->cells.p[t->slot[j]];
        if (c->count != n || memcmp(g->merged.p + c->pos, v, n * sizeof *v)) continue;
        g->merged.n = a;
        return t->slot[j];
    }
    for (uint32_t i = 0; i < n; i++)
        if (g->cells.p[v[i]].depth > depth) depth = g->cells.p[v[i]].depth;
    uint32_t k = gram_push_cell(g, (cell){.node = g->merge, .pos = a, .count = n, .depth = depth});
    if (g->r.status) return 0;
    id_table_set(t, j, k);
    return k;
}

/* Runs the work list dry; callers of one rule share a stack. */
static uint32_t closure(gram *g)
{
    bool accept = false;
    while ((g->work.n || g->pending.n) && !g->r.status) {
        while (g->work.n && !g->r.status) {
            todo t = g->work.p[--g->work.n];
            rx_spend_small(&g->r, 1);
            if (t.node == RESUME) resume(g, t.stack, &accept);
            else enter(g, t.node, t.stack);
        }
        if (!g->pending.n) break;
        todo *p = g->pending.p;
        uint32_t rule = p[0].node, keep = 0, a = g->merged.n;
        rx_spend_small(&g->r, g->pending.n);
        for (uint32_t i = 1; i < g->pending.n; i++)
            if (g->rank.p[p[i].node] < g->rank.p[rule]) rule = p[i].node;
        for (uint32_t i = 0; i < g->pending.n; i++) {
            if (p[i].node == rule) VEC_PUSH(&g->r.status, g->merged, p[i].stack);
            else p[keep++] = p[i];
        }
        g->pending.n = keep;
        if (!g->r.status) gram_go(g, g->rules.p[rule], gram_merge_callers(g, a));
    }
    return g->r.status ? 0 : intern_config(g, accept);
}

int gram_restart(gram *g)
{
    id_table *t[] = {&g->cell_index, &g->config_index, &g->merge_index};
    for (int i = 0; i < 3; i++) {
        free(t[i]->slot);
        *t[i] = (id_table){0};
    }
    free(g->next);
    g->next = NULL;
    g->next_rows = 0;
    VEC_FIT(g->cells, 0);
    VEC_FIT(g->configs, 0);
    VEC_FIT(g->threads, 0);
    VEC_FIT(g->merged, 0);
    g->work.n = g->pending.n = g->found.n = 0;
    g->epoch++;
    if (rx_rewind(&g->r)) return g->r.status;
    VEC_PUSH(&g->r.status, g->cells, (cell){0});
    if (!add_row(g)) return g->r.status;
    VEC_PUSH(&g->r.status, g->configs, (config){0});
    gram_go(g, g->root, 0);
    g->start = closure(g);
    return g->r.status;
}

static uint32_t step_slow(gram *g, uint32_t c, uint8_t b)
{
    const config from = g->configs.p[c];
    g->found.n = g->work.n = g->pending.n = 0;
    rx_spend_small(&g->r, from.n);
    for (uint32_t i = 0; i < from.n && !g->r.status; i++) {
        thread t = g->threads.p[from.first + i];
        uint32_t s = rx_step(&g->r, t.state, b);
        if (!s) continue;
        if (s != 1) VEC_PUSH(&g->r.status, g->found, (thread){s, t.stack});
        if (g->r.states.p[s].nullable) gram_go(g, RESUME, t.stack);
    }
    uint32_t d = closure(g);
    if (g->r.status) return 0;
    return g->next[(size_t)c * g->r.n_cls + g->r.cls[b]] = d;
}

uint32_t gram_step(gram *g, uint32_t c, uint8_t b)
{
    if (!c || g->r.status) return 0;
    uint32_t d = g->next[(size_t)c * g->r.n_cls + g->r.cls[b]];
    return d != RX_UNKNOWN ? d : step_slow(g, c, b);
}

uint32_t gram_after(gram *g, uint32_t stack)
{
    g->found.n = g->work.n = g->pending.n = 0;
    gram_go(g, RESUME, stack);
    return closure(g);
}

uint32_t gram_of_threads(gram *g, const thread *t, uint32_t n, bool accept)
{
    g->found.n = 0;
    for (uint32_t i = 0; i < n && !g->r.status; i++) VEC_PUSH(&g->r.status, g->found, t[i]);
    return g->r.status ? 0 : intern_config(g, accept);
}

uint32_t gram_union(gram *g, uint32_t a, uint32_t b)
{
    if (!a || !b || a == b) return a ? a : b;
    const config x = g->configs.p[a], y = g->configs.p[b];
    g->found.n = 0;
    for (uint32_t i = 0; i < x.n && !g->r.status; i++)
        VEC_PUSH(&g->r.status, g->found, g->threads.p[x.first + i]);
    for (uint32_t i = 0; i < y.n && !g->r.status; i++)
        VEC_PUSH(&g->r.status, g->found, g->threads.p[y.first + i]);
    return g->r.status ? 0 : intern_config(g, x.accept || y.accept);
}

size_t gram_bytes(const gram *g)
{
    size_t compiled =
        g->nodes.cap * sizeof(gnode) + g->props.cap * sizeof(gprop) +
        g->objects.cap * sizeof(gobject) + g->arrays.cap * sizeof(garray) +
        (g->kids.cap + g->required_after.cap + g->rules.cap + g->rank.cap) * sizeof(uint32_t);
    return compiled + rx_bytes(&g->r) + g->cells.cap * sizeof(cell) +
           g->merged.cap * sizeof(uint32_t) + g->threads.cap * sizeof(thread) +
           g->configs.cap * sizeof(config) + (size_t)g->next_rows * g->r.n_cls * sizeof *g->next +
           (g->cell_index.cap + g->config_index.cap + g->merge_index.cap) * sizeof(uint32_t);
}
