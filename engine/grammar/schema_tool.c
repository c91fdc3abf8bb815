/* schema_tool.c - the arguments of a tool: an object by its schema.  For tools that are not strict,
 * a place that cannot be enforced is widened to any value and listed, and the rest is enforced (API
 * T6).
 * Owns nothing.  Refuses by keyword and pointer.  Thread: one compile, one thread. */
#include "engine/grammar/schema.h"

enum { MAX_WIDENED = 64 };

/* Keywords below which a schema only adds to what the one around it says. */
static bool passes(const char *key, bool *map)
{
    static const char *const maps[] = {"properties", "patternProperties", "$defs", "definitions"};
    static const char *const single[] = {
        "items", "additionalProperties", "additionalItems", "allOf", "anyOf", "prefixItems"};
    *map = false;
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
        if (!strcmp(key, maps[i])) return *map = true;
    for (size_t i = 0; i < sizeof single / sizeof *single; i++)
        if (!strcmp(key, single[i])) return true;
    return false;
}

static bool holds(const json *at, const json *what)
{
    if (at == what) return true;
    if (at->type != JSON_ARRAY && at->type != JSON_OBJECT) return false;
    for (const json *k = at->child; k; k = k->next)
        if (holds(k, what)) return true;
    return false;
}

static const json *child_with(const json *at, const json *what)
{
    const json *k = at->type == JSON_ARRAY || at->type == JSON_OBJECT ? at->child : NULL;
    while (k && !holds(k, what)) k = k->next;
    return k;
}

/* The innermost schema around `what` that can be widened without touching what others mean:
 * nothing inside not, if or oneOf. */
static const json *widest(const json *root, const json *what)
{
    const json *schema = root;
    while (schema != what) {
        bool map;
        const json *k = child_with(schema, what), *in;
        if (!k || schema->type != JSON_OBJECT || !passes(k->key, &map)) break;
        in = map || k->type == JSON_ARRAY ? child_with(k, what) : k;
        if (!in) break;
        schema = in;
    }
    return schema;
}

/* One try; the compiler's tables are made anew each time, what was widened stays. */
static int attempt(schema_compiler *c, uint32_t *node)
{
    c->memo.n = c->kept.n = c->queue.n = 0;
    if (c->memo_index.slot) memset(c->memo_index.slot, 0, c->memo_index.cap * sizeof(uint32_t));
    c->memo_index.n = 0;
    c->rc = 0;
    c->depth = c->branches = c->level = 0;
    c->form = (value_form){0};
    *c->why = (grammar_error){.tool = -1};
    return schema_root(c, true, node);
}

static void list(const schema_compiler *c, schema_relaxed relaxed, void *ctx)
{
    for (uint32_t i = 0; i < c->widened.n; i++) {
        buf path = {0};
        buf_putc(&path, '#');
        schema_pointer(c, c->widened.p[i], &path);
        if (!buf_ok(&path)) c->g->r.status = ERR_NOMEM;
        relaxed(ctx, buf_str(&path));
        buf_clear(&path);
    }
}

int schema_arguments(gram *g, const schema_tool *t, schema_relaxed relaxed, void *ctx,
                     grammar_error *why, uint32_t *node)
{
    schema_compiler c = {.g = g, .why = why, .xml = t->xml, .guard = R_ALL};
    rx_arena *r = &g->r;
    const char *text = t->text ? t->text : "{}";
    if (t->xml) { /* no string inside JSON text may look like the end of the value */
        c.guard = rx_not(r, rx_cat3(r, R_ALL, rx_str(r, "</parameter>"), R_ALL));
        c.any = gram_any(g, c.guard, NULL);
    }
    int rc = schema_open(&c, text, t->text ? t->n : 2);
    if (!rc) rc = attempt(&c, node);
    bool never = !rc && gram_never(g, *node);
    while ((rc || never) && c.doc && t->relax && !r->status) {
        const json *at = never ? c.root : widest(c.root, c.refused ? c.refused : c.root);
        bool again = false;
        for (uint32_t i = 0; i < c.widened.n; i++) again |= c.widened.p[i] == at;
        if (again || rc == ERR_LIMIT || c.widened.n >= MAX_WIDENED) at = c.root;
        if (at == c.root) c.widened.n = 0;
        VEC_PUSH(&r->status, c.widened, at);
        rc = r->status ? r->status : attempt(&c, node);
        never = false;
        if (at == c.root) break;
    }
    if (!rc && c.widened.n) list(&c, relaxed, ctx);
    if (rc && c.refused && !t->relax) schema_more_faults(&c, true);
    schema_close(&c);
    if (rc && t->relax && !r->status && rc != ERR_NOMEM && t->text) { /* not even read */
        const schema_tool any = {.xml = t->xml};
        relaxed(ctx, "#");
        return schema_arguments(g, &any, relaxed, ctx, why, node);
    }
    return rc;
}
