/* gram_forms.c - frames of objects and arrays: which members and items may stand at a place, never
 * one behind which the rest could not be completed. Owns nothing.  Refuses nothing itself.  Thread:
 * the grammar's. */
#include "engine/grammar/gram.h"

/* The same frame further on. */
static uint32_t moved(gram *g, const cell *c, uint32_t phase, uint32_t index, uint32_t count,
                      uint64_t seen)
{
    cell d = *c;
    d.pos = phase | index << 2;
    d.count = count;
    d.seen = seen;
    return gram_push_cell(g, d);
}

/* ---- objects ---- */
static uint32_t bits(uint64_t x)
{
    return (uint32_t)__builtin_popcountll(x);
}

/* In any order: names that are required and have not been. */
static uint64_t missing(const gram *g, const gobject *o, uint64_t seen)
{
    uint64_t m = 0;
    for (uint32_t j = 0; j < o->n; j++) m |= (uint64_t)g->props.p[o->first + j].required << j;
    return m & ~seen;
}

/* In any order: names that may still come, this one or another first. */
static uint64_t open_names(const gram *g, const gobject *o, const cell *c)
{
    uint64_t m = 0;
    if (o->by_lists && c->pos >> 2 >= o->n) return 0; /* one without a name has been */
    for (uint32_t j = 0; j < o->n; j++) {
        const gprop *p = &g->props.p[o->first + j];
        m |= (uint64_t)(p->key != R_NONE && !(c->seen & (p->after | 1ull << j))) << j;
    }
    return m;
}

static uint64_t met(const gobject *o, const cell *c)
{
    return o->demands ? c->seen >> GRAM_MET : 0;
}

/* Members so far; in free order count holds the unnamed ones only. */
static uint32_t members(const gobject *o, const cell *c)
{
    return o->any_order ? c->count + bits(c->seen ^ met(o, c) << GRAM_MET) : c->count;
}

/* Whether the object can be completed behind member j (from o->n on: an unnamed one) that meets
 * these demands. */
static bool fits(const gram *g, const gobject *o, const cell *c, uint32_t j, uint32_t set)
{
    uint32_t have = members(o, c) + 1, from = j < o->n ? j + 1 : o->n, miss = 0;
    const gprop *p = &g->props.p[j < o->n ? o->first + j : o->extra + j - o->n];
    uint64_t seen = c->seen | (uint64_t)set << GRAM_MET;
    if (set && (!p->hits || gram_never(g, g->kids.p[p->hits + set - 1]))) return false;
    if (o->any_order) {
        from = j < o->n || !o->by_lists ? 0 : o->n;
        if (j < o->n) seen |= 1ull << j;
        miss = bits(missing(g, o, seen));
    } else if (from < o->n) {
        miss = g->required_after.p[o->first + from];
    }
    return have + miss + gram_until_met(g, o, NULL, from, seen) <= o->max;
}

/* Whether member j with some value leads to where all demands are met. */
static bool leads_on(const gram *g, const gobject *o, const cell *c, uint32_t j)
{
    bool ok = !o->demands;
    for (uint32_t m = 0; !ok && m < 1u << o->demands; m++) ok = fits(g, o, c, j, m);
    return ok;
}

static bool closable(const gram *g, const gobject *o, const cell *c)
{
    uint32_t index = c->pos >> 2;
    if (members(o, c) < o->min || met(o, c) + 1 != 1u << o->demands) return false;
    if (o->any_order) return !missing(g, o, c->seen);
    return index >= o->n || !g->required_after.p[o->first + index];
}

static void extra_keys(gram *g, const gobject *o, const cell *c)
{
    for (uint32_t x = 0; x < o->n_extra; x++) {
        rx key = g->props.p[o->extra + x].key;
        if (key != R_NONE && leads_on(g, o, c, o->n + x))
            gram_thread(g, key, moved(g, c, GRAM_VALUE, o->n + x, c->count, c->seen));
    }
}

/* The keys that may stand here: none that would block a required one or leave the minimum out of
 * reach. */
static void any_keys(gram *g, const gobject *o, const cell *c)
{
    uint64_t open = open_names(g, o, c), must = missing(g, o, c->seen);
    uint32_t have = members(o, c), miss = bits(must);
    for (uint32_t j = 0; j < o->n; j++) {
        const gprop *p = &g->props.p[o->first + j];
        if (!(open >> j & 1) || p->before & must) continue;
        if (have + 1 + miss - p->required > o->max) continue;
        if (!o->n_extra && have + 1 + bits(open & ~(p->before | 1ull << j)) < o->min) continue;
        if (leads_on(g, o, c, j))
            gram_thread(g, p->key, moved(g, c, GRAM_VALUE, j, c->count, c->seen));
    }
    if (have + 1 + miss <= o->max && !(o->by_lists && miss)) extra_keys(g, o, c);
}

/* The same where names come in their order. */
static void object_keys(gram *g, const gobject *o, const cell *c)
{
    uint32_t from = c->pos >> 2, have = c->count, left = 0;
    bool blocked = false;
    if (o->any_order) {
        any_keys(g, o, c);
        return;
    }
    for (uint32_t j = from; j < o->n; j++) left += g->props.p[o->first + j].key != R_NONE;
    for (uint32_t j = from; j < o->n && !blocked; j++) {
        const gprop *p = &g->props.p[o->first + j];
        uint32_t after = j + 1 < o->n ? g->required_after.p[o->first + j + 1] : 0;
        blocked = p->required;
        if (p->key == R_NONE) continue;
        if (have + 1 + after <= o->max && (o->n_extra || have + left >= o->min) &&
            leads_on(g, o, c, j))
            gram_thread(g, p->key, moved(g, c, GRAM_VALUE, j, c->count, c->seen));
        left--;
    }
    if (!blocked && have + 1 <= o->max) extra_keys(g, o, c);
}

/* After a key: its value, then the frame that remembers it. */
static void object_value(gram *g, const gobject *o, const cell *c)
{
    uint32_t index = c->pos >> 2, next = index < o->n ? index + 1 : o->n, count = c->count;
    bool named = index < o->n;
    uint64_t seen = c->seen;
    const gprop p = g->props.p[named ? o->first + index : o->extra + index - o->n];
    if (o->any_order) {
        next = named || !o->by_lists ? 0 : o->n;
        if (named) seen |= 1ull << index;
        else if (o->max != GRAM_INF || count < o->min) count++;
    } else if (o->max != GRAM_INF || count < o->min) {
        count++; /* saturates where it no longer matters */
    }
    if (!o->demands || fits(g, o, c, index, 0))
        gram_go(g, p.value, moved(g, c, GRAM_NEXT, next, count, seen));
    for (uint32_t m = 1; m < 1u << o->demands; m++)
        if (!(m & met(o, c)) && fits(g, o, c, index, m))
            gram_go(g, g->kids.p[p.hits + m - 1],
                    moved(g, c, GRAM_NEXT, next, count, seen | (uint64_t)m << GRAM_MET));
}

void gram_resume_object(gram *g, const cell *c)
{
    const gobject o = g->objects.p[g->nodes.p[c->node].a];
    uint32_t keep = g->found.n;
    switch (c->pos & 3) {
    case GRAM_OPEN:
        if (closable(g, &o, c))
            gram_thread(g, o.xml ? g->close_xml : rx_byte(&g->r, '}'), c->parent);
        object_keys(g, &o, c);
        break;
    case GRAM_KEY: object_keys(g, &o, c); break;
    case GRAM_VALUE: object_value(g, &o, c); break;
    default: {
        object_keys(g, &o, c);
        if (o.xml) {
            if (closable(g, &o, c)) gram_thread(g, g->close_xml, c->parent);
            break;
        }
        bool more = g->found.n > keep;
        g->found.n = keep;
        if (closable(g, &o, c)) gram_thread(g, g->close_obj, c->parent);
        if (more) gram_thread(g, g->comma, moved(g, c, GRAM_KEY, c->pos >> 2, c->count, c->seen));
    }
    }
}

/* An array whose items are different values out of a list; there are never fewer of them left than
 * are still needed. */
static void resume_unique(gram *g, const garray *a, const cell *c)
{
    bool item = (c->pos & 3) != GRAM_NEXT && c->count < a->max;
    if ((c->pos & 3) == GRAM_OPEN && !a->min) gram_thread(g, rx_byte(&g->r, ']'), c->parent);
    for (uint32_t i = 0; item && i < a->n_values; i++)
        if (!(c->seen >> i & 1))
            gram_go(g, g->kids.p[a->values + i],
                    moved(g, c, GRAM_NEXT, 0, c->count + 1, c->seen | 1ull << i));
    if ((c->pos & 3) != GRAM_NEXT) return;
    if (c->count >= a->min) gram_thread(g, g->close_arr, c->parent);
    if (c->count < a->max) gram_thread(g, g->comma, moved(g, c, GRAM_VALUE, 0, c->count, c->seen));
}

/* The next item of an array with demands, for every set of them that may count it and behind which
 * the array can be completed; without `enters` only whether there is one. */
static bool counted_items(gram *g, const garray *a, const cell *c, bool enters)
{
    uint32_t enough = a->min > a->n ? a->min : a->n, index = c->count, next = index + 1;
    bool any = false;
    if (index >= a->max) return false;
    if (a->max == GRAM_INF && next > enough) next = enough;
    for (uint32_t m = 0; m < 1u << a->demands; m++) {
        uint32_t node = gram_item(g, a, index, m);
        uint64_t counts = c->seen;
        if (node == GRAM_NONE || gram_never(g, node) || !gram_count(a, m, &counts)) continue;
        if (!gram_reaches(g, a, NULL, next, counts)) continue;
        any = true;
        if (enters) gram_go(g, node, moved(g, c, GRAM_NEXT, 0, next, counts));
    }
    return any;
}

static void resume_counting(gram *g, const garray *a, const cell *c)
{
    bool ends = c->count >= a->min && gram_enough(a, c->seen);
    switch (c->pos & 3) {
    case GRAM_OPEN:
        if (ends) gram_thread(g, rx_byte(&g->r, ']'), c->parent);
        counted_items(g, a, c, true);
        break;
    case GRAM_NEXT:
        if (ends) gram_thread(g, g->close_arr, c->parent);
        if (counted_items(g, a, c, false))
            gram_thread(g, g->comma, moved(g, c, GRAM_VALUE, 0, c->count, c->seen));
        break;
    default: counted_items(g, a, c, true); break;
    }
}

void gram_resume_array(gram *g, const cell *c)
{
    const garray a = g->arrays.p[g->nodes.p[c->node].a];
    if (a.n_values) {
        resume_unique(g, &a, c);
        return;
    }
    if (a.demands) {
        resume_counting(g, &a, c);
        return;
    }
    uint32_t cap = a.item == GRAM_NONE && a.n < a.max ? a.n : a.max, next = c->count + 1;
    uint32_t enough = a.min > a.n ? a.min : a.n;
    uint32_t item = c->count < a.n ? g->kids.p[a.first + c->count] : a.item;
    if (a.max == GRAM_INF && next > enough) next = enough;
    switch (c->pos & 3) {
    case GRAM_OPEN:
        if (a.min == 0) gram_thread(g, rx_byte(&g->r, ']'), c->parent);
        if (cap > 0) gram_go(g, item, moved(g, c, GRAM_NEXT, 0, next, 0));
        break;
    case GRAM_NEXT:
        if (c->count >= a.min) gram_thread(g, g->close_arr, c->parent);
        if (c->count < cap) gram_thread(g, g->comma, moved(g, c, GRAM_VALUE, 0, c->count, 0));
        break;
    default: gram_go(g, item, moved(g, c, GRAM_NEXT, 0, next, 0)); break;
    }
}
