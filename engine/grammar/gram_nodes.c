/* gram_nodes.c - nodes of a grammar: the pieces all JSON shares, pruning of what cannot be
 * completed, and the order in which rules are merged.
 * Owns the nodes.  Refuses left recursion.  Thread: the grammar's. */
#include "engine/grammar/gram.h"
#include "engine/grammar/ecma.h"

#include <pthread.h>
#include <time.h>

enum { WS_MAX = 20, DIGITS = 30 };

uint32_t gram_node(gram *g, gnode_kind kind, uint32_t a, uint32_t b)
{
    if (g->nodes.n >= GRAM_MAX_NODES) g->r.status = ERR_LIMIT;
    if (g->r.status) return 0;
    VEC_PUSH(&g->r.status, g->nodes, (gnode){(uint8_t)kind, a, b});
    return g->r.status ? 0 : g->nodes.n - 1;
}

uint32_t gram_term(gram *g, rx e)
{
    return gram_node(g, G_TERM, e, 0);
}

uint32_t gram_list(gram *g, gnode_kind kind, const uint32_t *v, uint32_t n)
{
    if (n == 1) return v[0];
    if (!n) return gram_term(g, kind == G_ALT ? R_NONE : R_EPS);
    uint32_t a = g->kids.n;
    for (uint32_t i = 0; i < n; i++) VEC_PUSH(&g->r.status, g->kids, v[i]);
    return gram_node(g, kind, a, n);
}

uint32_t gram_rule(gram *g)
{
    VEC_PUSH(&g->r.status, g->rules, g->never); /* until it has a body */
    return gram_node(g, G_RULE, g->rules.n - 1, 0);
}

bool gram_never(const gram *g, uint32_t node)
{
    return g->nodes.p[node].kind == G_TERM && g->nodes.p[node].a == R_NONE;
}

static rx chars(rx_arena *r, const char *s)
{
    byte_set b = {{0}};
    for (; *s; s++) b.w[(uint8_t)*s >> 6] |= 1ull << (*s & 63);
    return rx_set(r, &b);
}

/* One character of a JSON string: raw UTF-8, short escape, \uXXXX with surrogates in pairs only. */
static rx character(rx_arena *r)
{
    rx hex = chars(r, "0123456789abcdefABCDEF"), h2 = rx_rep(r, hex, 2, 2),
       h3 = rx_rep(r, hex, 3, 3), d = chars(r, "dD");
    rx u[3] = {rx_cat(r, chars(r, "0123456789abcefABCEF"), h3),
               rx_cat3(r, d, rx_range(r, '0', '7'), h2),
               rx_cat3(r, rx_cat3(r, d, chars(r, "89abAB"), h2), rx_cat(r, rx_str(r, "\\u"), d),
                       rx_cat(r, chars(r, "cdefCDEF"), h2))};
    rx esc =
        rx_cat(r, rx_byte(r, '\\'),
               rx_alt2(r, chars(r, "\"\\/bfnrt"), rx_cat(r, rx_byte(r, 'u'), rx_alt(r, u, 3))));
    rx v[4] = {ecma_utf8(r, 0x20, 0x21), ecma_utf8(r, 0x23, 0x5b), ecma_utf8(r, 0x5d, 0x10ffff),
               esc};
    return rx_alt(r, v, 4);
}

static void scalars(gram *g)
{
    static const code_range all = {0, 0x10ffff};
    rx_arena *r = &g->r;
    rx quote = rx_byte(r, '"'), d = rx_range(r, '0', '9'), nz = rx_range(r, '1', '9');
    rx minus = rx_opt(r, rx_byte(r, '-')), dot = rx_byte(r, '.');
    g->ch = character(r);
    g->string = rx_cat3(r, quote, rx_star(r, g->ch), quote);
    g->plain_string = rx_cat3(r, quote, rx_star(r, ecma_json_class(r, &all, 1)), quote);
    rx whole = rx_alt2(r, rx_byte(r, '0'), rx_cat(r, nz, rx_rep(r, d, 0, DIGITS - 1)));
    g->integer = rx_cat(r, minus, whole);
    rx frac = rx_opt(r, rx_cat(r, dot, rx_rep(r, d, 1, DIGITS)));
    /* Exponents that every reader's doubles can hold. */
    rx digits = rx_alt2(r, rx_rep(r, d, 1, 2), rx_cat(r, chars(r, "01"), rx_rep(r, d, 2, 2)));
    rx exp = rx_opt(r, rx_cat3(r, chars(r, "eE"), rx_opt(r, chars(r, "+-")), digits));
    g->number = rx_cat3(r, g->integer, frac, exp);
    rx tail = rx_opt(r, rx_cat3(r, dot, rx_rep(r, d, 0, DIGITS - 1), nz));
    rx n = rx_cat3(r, minus, whole, tail);
    g->plain_number = rx_and2(r, n, rx_not(r, rx_str(r, "-0")));
}

uint32_t gram_any(gram *g, rx guard, uint32_t *object)
{
    rx_arena *r = &g->r;
    rx string = guard == R_ALL ? g->string : rx_and2(r, g->string, guard);
    rx kw[5] = {rx_str(r, "true"), rx_str(r, "false"), rx_str(r, "null"), g->number, string};
    uint32_t any = gram_rule(g), first = g->props.n;
    VEC_PUSH(&r->status, g->props, (gprop){.key = rx_cat(r, string, g->colon), .value = any});
    VEC_PUSH(&r->status, g->objects, (gobject){.extra = first, .n_extra = 1, .max = GRAM_INF});
    VEC_PUSH(&r->status, g->arrays, (garray){.item = any, .max = GRAM_INF});
    uint32_t alts[3] = {gram_term(g, rx_alt(r, kw, 5)), gram_node(g, G_OBJ, g->objects.n - 1, 0),
                        gram_node(g, G_ARR, g->arrays.n - 1, 0)};
    uint32_t body = gram_list(g, G_ALT, alts, 3);
    if (object) *object = alts[1];
    if (!r->status) g->rules.p[g->nodes.p[any].a] = body;
    return any;
}

double gram_cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int make_prelude(gram *g)
{
    memset(g, 0, sizeof *g);
    rx_arena *r = &g->r;
    if (rx_init(r)) return r->status;
    g->ws = rx_rep(r, chars(r, " \t\n\r"), 0, WS_MAX);
    g->open_obj = rx_cat(r, rx_byte(r, '{'), g->ws);
    g->close_obj = rx_cat(r, g->ws, rx_byte(r, '}'));
    g->close_xml = rx_str(r, "</function>");
    g->open_arr = rx_cat(r, rx_byte(r, '['), g->ws);
    g->close_arr = rx_cat(r, g->ws, rx_byte(r, ']'));
    g->comma = rx_cat3(r, g->ws, rx_byte(r, ','), g->ws);
    g->colon = rx_cat3(r, g->ws, rx_byte(r, ':'), g->ws);
    scalars(g);
    gram_term(g, R_EPS); /* node 0: under the bottom cell */
    g->merge = gram_node(g, G_MERGE, 0, 0);
    g->never = gram_term(g, R_NONE);
    g->any = gram_any(g, R_ALL, NULL);
    return r->status;
}

/* What every grammar begins with is made once. */
static gram prelude;

static void make_prelude_once(void)
{
    make_prelude(&prelude);
}

int gram_init(gram *g)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_prelude_once);
    if (prelude.r.status) return make_prelude(g); /* there was no memory then */
    *g = prelude;
    rx_copy(&g->r, &prelude.r);
    VEC_COPY(&g->r.status, g->nodes, prelude.nodes);
    VEC_COPY(&g->r.status, g->kids, prelude.kids);
    VEC_COPY(&g->r.status, g->props, prelude.props);
    VEC_COPY(&g->r.status, g->objects, prelude.objects);
    VEC_COPY(&g->r.status, g->arrays, prelude.arrays);
    VEC_COPY(&g->r.status, g->rules, prelude.rules);
    return g->r.status;
}

void gram_clear(gram *g)
{
    rx_clear(&g->r);
    free(g->nodes.p);
    free(g->kids.p);
    free(g->props.p);
    free(g->required_after.p);
    free(g->objects.p);
    free(g->arrays.p);
    free(g->rules.p);
    free(g->rank.p);
    free(g->cells.p);
    free(g->merged.p);
    free(g->threads.p);
    free(g->configs.p);
    free(g->cell_index.slot);
    free(g->config_index.slot);
    free(g->merge_index.slot);
    free(g->next);
    free(g->work.p);
    free(g->pending.p);
    free(g->found.p);
    memset(g, 0, sizeof *g);
}

/* ---- what can be completed ---- */
static bool possible(const gram *g, const uint8_t *can, uint32_t node)
{
    return node != GRAM_NONE && (can ? can[node] : !gram_never(g, node));
}

uint32_t gram_item(const gram *g, const garray *a, uint32_t index, uint32_t set)
{
    uint32_t k = index < a->n ? index : a->n, sets = (1u << a->demands) - 1;
    if (index >= a->n && a->item == GRAM_NONE) return GRAM_NONE;
    if (set) return g->kids.p[a->hits + k * sets + set - 1];
    return index < a->n ? g->kids.p[a->first + index] : a->item;
}

/* Two bits a demand, or one demand with all of them. */
static uint64_t count_of(const garray *a, uint64_t counts, uint32_t d)
{
    return a->demands == 1 ? counts : counts >> 2 * d & 3;
}

bool gram_count(const garray *a, uint32_t set, uint64_t *counts)
{
    for (uint32_t d = 0; d < a->demands; d++) {
        uint64_t have = count_of(a, *counts, d);
        if (!(set >> d & 1)) continue;
        if (have >= a->demand[d].most) return false;
        if (a->demand[d].most != GRAM_INF || have < a->demand[d].least) *counts += 1ull << 2 * d;
    }
    return true;
}

bool gram_enough(const garray *a, uint64_t counts)
{
    for (uint32_t d = 0; d < a->demands; d++)
        if (count_of(a, counts, d) < a->demand[d].least) return false;
    return true;
}

/* One demand: the fewest and most items that may be counted, item by item. */
static bool reaches_one(const gram *g, const garray *a, const uint8_t *can, uint32_t index,
                        uint64_t count)
{
    uint64_t fewest = count, most = count, least = a->demand[0].least;
    for (; index < a->n; index++) {
        bool miss = possible(g, can, gram_item(g, a, index, 0));
        bool hit = possible(g, can, gram_item(g, a, index, 1));
        if (index >= a->min && most >= least) return fewest <= a->demand[0].most;
        if (index >= a->max || (!miss && !hit)) return false;
        fewest += !miss;
        most += hit;
    }
    bool miss = possible(g, can, gram_item(g, a, index, 0));
    bool hit = possible(g, can, gram_item(g, a, index, 1));
    uint64_t steps = index < a->min ? a->min - index : 0;
    if (most < least && !hit) return false;
    if (most < least && least - most > steps) steps = least - most;
    if (steps && (steps > a->max - index || (!miss && !hit))) return false;
    return fewest + (miss ? 0 : steps) <= a->demand[0].most;
}

/* Several: the set of all counts there may be, item by item.  Behind the listed items it no longer
 * gets better after as many as are demanded in all. */
bool gram_reaches(const gram *g, const garray *a, const uint8_t *can, uint32_t index,
                  uint64_t counts)
{
    uint64_t now = 1ull << (counts & 63), next;
    uint32_t sets = 1u << a->demands, more = 0;
    if (a->demands == 1) return reaches_one(g, a, can, index, counts);
    for (uint32_t d = 0; d < a->demands; d++) more += a->demand[d].least;
    for (;; index++, now = next) {
        bool enough = false;
        for (uint64_t v = 0; v < 64; v++) enough |= now >> v & 1 && gram_enough(a, v);
        if (enough && (index >= a->min || index > a->n)) return a->min <= a->max;
        if (index >= a->max || (index > a->n && !more--)) return false;
        next = 0;
        for (uint32_t m = 0; m < sets; m++) {
            if (!possible(g, can, gram_item(g, a, index, m))) continue;
            for (uint64_t v = 0; v < 64; v++) {
                uint64_t to = v;
                if (now >> v & 1 && gram_count(a, m, &to)) next |= 1ull << to;
            }
        }
        if (!next) return false;
    }
}

static bool can_array(const gram *g, const garray *a, const uint8_t *can)
{
    uint32_t cap = 0;
    if (a->demands) return gram_reaches(g, a, can, 0, 0);
    while (cap < a->n && can[g->kids.p[a->first + cap]]) cap++;
    if (cap == a->n && a->item != GRAM_NONE && can[a->item]) cap = GRAM_INF;
    return a->min <= cap && a->min <= a->max;
}

uint32_t gram_until_met(const gram *g, const gobject *o, const uint8_t *can, uint32_t from,
                        uint64_t seen)
{
    uint32_t cost[1 << GRAM_DEMANDS], all = (1u << o->demands) - 1;
    if (!o->demands) return 0;
    for (uint32_t m = 0; m <= all; m++) cost[m] = GRAM_INF;
    cost[seen >> GRAM_MET] = 0;
    for (uint32_t j = from; j < o->n + o->n_extra; j++) {
        bool named = j < o->n;
        const gprop *p = &g->props.p[named ? o->first + j : o->extra + j - o->n];
        if (!p->hits || p->key == R_NONE) continue;
        if (named && o->any_order && seen & (p->after | 1ull << j)) continue;
        for (uint32_t times = named ? 1 : o->demands; times; times--)
            for (uint32_t had = all; had--;) /* from above: a name serves once */
                for (uint32_t m = 1; m <= all; m++) {
                    uint32_t to = had | m, sum = cost[had] + !(named && p->required);
                    if (cost[had] == GRAM_INF || to == had || sum >= cost[to]) continue;
                    if (possible(g, can, g->kids.p[p->hits + m - 1])) cost[to] = sum;
                }
    }
    return cost[all];
}

bool gram_can_object(const gram *g, const gobject *o, const uint8_t *can)
{
    uint32_t must = gram_until_met(g, o, can, 0, 0), may = 0;
    if (must == GRAM_INF) return false;
    for (uint32_t i = 0; i < o->n; i++) {
        const gprop *p = &g->props.p[o->first + i];
        bool ok = p->key != R_NONE && possible(g, can, p->value);
        if (!ok && p->required) return false;
        must += p->required;
        may += ok;
    }
    for (uint32_t i = 0; i < o->n_extra; i++) {
        const gprop *p = &g->props.p[o->extra + i];
        if (p->key != R_NONE && possible(g, can, p->value)) may = GRAM_INF;
    }
    return must <= o->max && o->min <= may && o->min <= o->max;
}

static bool can_node(const gram *g, const gnode *n, const uint8_t *can)
{
    bool all = true, any = false;
    switch (n->kind) {
    case G_TERM: return n->a != R_NONE;
    case G_RULE: return can[g->rules.p[n->a]];
    case G_ARR: return can_array(g, &g->arrays.p[n->a], can);
    case G_OBJ: return gram_can_object(g, &g->objects.p[n->a], can);
    case G_MERGE: return false;
    default: break;
    }
    for (uint32_t i = 0; i < n->b; i++) {
        all &= can[g->kids.p[n->a + i]];
        any |= can[g->kids.p[n->a + i]];
    }
    return n->kind == G_SEQ ? all : any;
}

/* Least fixpoint; then members and items that can never be completed are closed. */
static bool prune(gram *g, uint32_t root)
{
    uint8_t *can = calloc(g->nodes.n, 1);
    bool changed = true, ok;
    if (!can) {
        g->r.status = ERR_NOMEM;
        return false;
    }
    while (changed) {
        changed = false;
        for (uint32_t i = 0; i < g->nodes.n; i++)
            if (!can[i]) changed |= can[i] = can_node(g, &g->nodes.p[i], can);
        for (uint32_t i = g->nodes.n; i--;)
            if (!can[i]) changed |= can[i] = can_node(g, &g->nodes.p[i], can);
    }
    for (uint32_t i = 0; i < g->props.n; i++) {
        gprop *p = &g->props.p[i];
        if (!can[p->value]) p->key = R_NONE;
    }
    for (uint32_t i = 0; i < g->arrays.n; i++) {
        garray *a = &g->arrays.p[i];
        uint32_t cap = 0;
        if (a->demands) continue; /* looks at its items itself */
        while (cap < a->n && can[g->kids.p[a->first + cap]]) cap++;
        if (cap < a->n && cap < a->max) a->max = cap;
        if (a->item != GRAM_NONE && !can[a->item]) a->item = GRAM_NONE;
    }
    for (uint32_t i = 0; i < g->nodes.n; i++)
        if (!can[i] && g->nodes.p[i].kind != G_MERGE)
            g->nodes.p[i] = (gnode){.kind = G_TERM, .a = R_NONE};
    ok = can[root];
    free(can);
    return ok;
}

/* ---- the order of rules ---- */
typedef VEC(uint32_t) id_list;

/* Which nodes match the empty text; NULL without memory. */
static uint8_t *find_empty(gram *g)
{
    uint8_t *empty = calloc(g->nodes.n, 1);
    bool changed = empty;
    while (changed) {
        changed = false;
        for (uint32_t i = 0; i < g->nodes.n; i++) {
            const gnode *n = &g->nodes.p[i];
            uint32_t k = 0;
            if (empty[i]) continue;
            if (n->kind == G_TERM) empty[i] = g->r.nodes.p[n->a].nullable;
            if (n->kind == G_RULE) empty[i] = empty[g->rules.p[n->a]];
            if (n->kind == G_SEQ) {
                while (k < n->b && empty[g->kids.p[n->a + k]]) k++;
                empty[i] = k == n->b;
            }
            for (; n->kind == G_ALT && k < n->b; k++) empty[i] |= empty[g->kids.p[n->a + k]];
            changed |= empty[i];
        }
    }
    return empty;
}

/* Rules that a node may call before it has eaten a byte. */
static void left_calls(gram *g, const uint8_t *empty, uint32_t node, id_list *st, id_list *out)
{
    out->n = st->n = 0;
    VEC_PUSH(&g->r.status, *st, node);
    while (st->n && !g->r.status) {
        gnode x = g->nodes.p[st->p[--st->n]];
        if (x.kind == G_RULE) VEC_PUSH(&g->r.status, *out, x.a);
        for (uint32_t i = 0; x.kind == G_SEQ && i < x.b; i++) {
            VEC_PUSH(&g->r.status, *st, g->kids.p[x.a + i]);
            if (!empty[g->kids.p[x.a + i]]) break;
        }
        for (uint32_t i = 0; x.kind == G_ALT && i < x.b; i++)
            VEC_PUSH(&g->r.status, *st, g->kids.p[x.a + i]);
    }
}

static int rank_rules(gram *g)
{
    uint32_t n = g->rules.n, head = 0;
    id_list st = {0}, out = {0}, queue = {0};
    uint32_t *calls = calloc(n, sizeof *calls);
    uint8_t *empty = find_empty(g);
    if (!calls || !empty) g->r.status = ERR_NOMEM;
    for (uint32_t i = 0; i < n && !g->r.status; i++) {
        VEC_PUSH(&g->r.status, g->rank, 0);
        left_calls(g, empty, g->rules.p[i], &st, &out);
        for (uint32_t j = 0; j < out.n; j++) calls[out.p[j]]++;
    }
    for (uint32_t i = 0; i < n && !g->r.status; i++)
        if (!calls[i]) VEC_PUSH(&g->r.status, queue, i);
    for (; head < queue.n && !g->r.status; head++) {
        uint32_t i = queue.p[head];
        g->rank.p[i] = head;
        left_calls(g, empty, g->rules.p[i], &st, &out);
        for (uint32_t j = 0; j < out.n; j++)
            if (!--calls[out.p[j]]) VEC_PUSH(&g->r.status, queue, out.p[j]);
    }
    bool cycle = !g->r.status && head < n;
    free(calls);
    free(empty);
    free(st.p);
    free(out.p);
    free(queue.p);
    return cycle ? ERR_UNSUPPORTED : g->r.status;
}

int gram_finish(gram *g, uint32_t root)
{
    if (g->r.status) return g->r.status;
    bool ok = prune(g, root);
    if (g->r.status) return g->r.status;
    if (!ok) return ERR_INVALID;
    while (g->required_after.n < g->props.n + 1 && !g->r.status)
        VEC_PUSH(&g->r.status, g->required_after, 0);
    for (uint32_t k = 0; k < g->objects.n && !g->r.status; k++) {
        const gobject *o = &g->objects.p[k];
        uint32_t sum = 0;
        for (uint32_t i = o->n; i--;)
            g->required_after.p[o->first + i] = sum += g->props.p[o->first + i].required;
    }
    g->root = root;
    int rc = rank_rules(g);
    if (!rc) rc = rx_freeze(&g->r);
    return rc ? rc : gram_restart(g);
}
