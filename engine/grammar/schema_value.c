/* schema_value.c - whether one value satisfies a set of schemas, found out while compiling: the set
 * gets an automaton of its own.  For enumerated arrays and objects beside keywords about their
 * content.
 * Owns that automaton.  Refuses what the set's other keywords are refused for.  Thread: the
 * compiler's. */
#include "engine/grammar/ecma.h"
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

/* A number as the automaton writes it: without an exponent, without a fraction of zeros. */
static bool put_number(const char *text, buf *out)
{
    decimal d;
    if (!decimal_parse(text, &d)) return false;
    buf_printf(out, "%s%s%s%s", d.negative ? "-" : "", d.whole, d.part[0] ? "." : "", d.part);
    return true;
}

/* x as the automaton writes it; false if a number is too long.  Recursion: nesting of the schema
 * text. */
static bool put_value(const json *x, buf *out)
{
    bool object = x->type == JSON_OBJECT, ok = true;
    if (x->type == JSON_NUMBER) return put_number(x->str, out);
    if (!object && x->type != JSON_ARRAY) {
        json_print(x, out);
        return true;
    }
    buf_putc(out, object ? '{' : '[');
    for (const json *k = x->child; k && ok; k = k->next) {
        if (k != x->child) buf_putc(out, ',');
        if (object) {
            buf_put_json(out, k->key, k->n_key);
            buf_putc(out, ':');
        }
        ok = put_value(k, out);
    }
    buf_putc(out, object ? '}' : ']');
    return ok;
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
                         .attempts = c->attempts,
                         .guard = R_ALL,
                         .any_value = true};
    memcpy(&d.widened, &c->widened, sizeof d.widened); /* borrowed */
    int rc = build(c, &d, v, n);
    bool written = put_value(x, &text); /* if not, writing the value down is refused */
    uint32_t at = rc || !buf_ok(&text) ? 0 : g.start;
    for (size_t i = 0; at && i < text.len; i++) at = gram_step(&g, at, (uint8_t)text.v[i]);
    bool ok = !written || (at && !g.r.status && g.configs.p[at].accept);
    if (d.rc) {
        c->rc = d.rc;
        c->refused = d.refused;
        c->keyword = d.keyword;
    }
    if (!buf_ok(&text) || rc == ERR_NOMEM || g.r.status == ERR_NOMEM) c->g->r.status = ERR_NOMEM;
    else if (rc == ERR_LIMIT || g.r.status == ERR_LIMIT) c->g->r.status = ERR_LIMIT;
    buf_clear(&text);
    schema_free_tables(&d);
    gram_clear(&g);
    return ok;
}
