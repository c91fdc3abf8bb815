/* schema_value.c - whether one value satisfies a set of schemas, found out while compiling: the set
 * gets an automaton of its own.  For enumerated arrays and objects beside keywords about their
 * content.
 * Owns that automaton.  Refuses what the set's other keywords are refused for.  Thread: the
 * compiler's. */
#include "engine/grammar/schema.h"

/* The automaton of the set without the enum and const of its outermost level. */
static int build(schema_compiler *c, schema_compiler *d, const member *v, uint32_t n)
{
    gram *g = d->g;
    int rc = gram_init(g);
    g->free_order = true;
    g->r.fuel = c->g->r.fuel;
    g->units = c->g->units;
    g->deadline = c->g->deadline;
    d->any = g->any;
    uint32_t node = rc ? 0 : schema_node(d, v, n);
    if (!rc && !d->rc) schema_run_queue(d);
    c->g->units = g->units;
    if (!rc) rc = d->rc ? d->rc : g->r.status;
    return rc ? rc : gram_finish(g, node);
}

bool schema_holds(schema_compiler *c, const member *v, uint32_t n, const json *x)
{
    gram g = {0};
    buf text = {0};
    schema_compiler d = {.g = &g,
                         .root = c->root,
                         .draft = c->draft,
                         .inner_ids = c->inner_ids,
                         .why = c->why,
                         .guard = R_ALL,
                         .any_value = true};
    memcpy(&d.widened, &c->widened, sizeof d.widened); /* borrowed */
    int rc = build(c, &d, v, n);
    json_dump(x, &text);
    uint32_t at = rc || !buf_ok(&text) ? 0 : g.start;
    for (size_t i = 0; at && i < text.len; i++) at = gram_step(&g, at, (uint8_t)text.v[i]);
    bool ok = at && !g.r.status && g.configs.p[at].accept;
    if (d.rc) c->rc = d.rc;
    if (!buf_ok(&text) || rc == ERR_NOMEM || g.r.status == ERR_NOMEM) c->g->r.status = ERR_NOMEM;
    else if (rc == ERR_LIMIT || g.r.status == ERR_LIMIT) c->g->r.status = ERR_LIMIT;
    buf_clear(&text);
    schema_free_tables(&d);
    gram_clear(&g);
    return ok;
}
