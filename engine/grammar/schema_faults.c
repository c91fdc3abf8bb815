/* schema_faults.c - what else is wrong with a schema that was refused.  The keyword at fault is
 * left out of the text and the rest compiled again, until nothing is refused, enough is known, or
 * the search has cost a share of what a compile may.  So every fault is found by the code that
 * refuses it, and pointers stay what they are in the text that was sent. Owns the texts it tries.
 * A fault that may only follow from what was left out is not told. Thread: the compiler's. */
#include "engine/grammar/schema.h"

#include <stdio.h>

enum { MAX_TRIES = 2 * GRAMMAR_MAX_FAULTS, MAX_BYTES = 1 << 16, MAX_UNITS = 300, MAX_FUEL = 3000 };
static const double MAX_SECONDS = 0.1;

/* The value but for one member of `where`; where that has no such member, `true` stands in its
 * place.  Recursion: nesting of the schema text. */
static void put_without(const json *at, const json *where, const char *keyword, buf *out)
{
    bool object = at->type == JSON_OBJECT, first = true;
    if (at == where && !json_get(at, keyword)) {
        buf_puts(out, "true");
        return;
    }
    if (!object && at->type != JSON_ARRAY) {
        json_print(at, out);
        return;
    }
    buf_putc(out, object ? '{' : '[');
    for (const json *k = at->child; k; k = k->next) {
        if (at == where && !strcmp(k->key, keyword)) continue;
        if (!first) buf_putc(out, ',');
        first = false;
        if (object) {
            buf_put_json(out, k->key, k->n_key);
            buf_putc(out, ':');
        }
        put_without(k, where, keyword, out);
    }
    buf_putc(out, object ? '}' : ']');
}

/* Appends a place as the list of what was left out has it. */
static void put_place(const schema_compiler *c, const char *keyword, buf *out)
{
    buf_putc(out, '\n');
    schema_pointer(c, c->refused, out);
    buf_printf(out, "/%s/", keyword);
}

/* Whether the fault may be there only because something was left out: these keywords need what
 * stands below them, or what that refers to, to be narrow. */
static bool follows(const schema_compiler *c, const buf *left_out)
{
    static const struct {
        const char *keyword, *below;
    } narrow[] = {{"oneOf", "oneOf"}, {"propertyNames", "propertyNames"}, {"uniqueItems", "items"}};
    const char *list = buf_str(left_out);
    for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++) {
        buf place = {0};
        if (strcmp(c->keyword, narrow[i].keyword) != 0) continue;
        put_place(c, narrow[i].below, &place);
        bool yes = !buf_ok(&place) || strstr(list, buf_str(&place)) || strstr(list, "\n/$defs/") ||
                   strstr(list, "\n/definitions/");
        buf_clear(&place);
        return yes;
    }
    return false;
}

static void add_fault(grammar_error *why, const grammar_error *next)
{
    grammar_fault *f = &why->more[why->n_more++];
    f->code = next->code;
    snprintf(f->msg, sizeof f->msg, "%s", next->e.msg);
}

/* The compiler of c's schema without its fault, refused in turn or not.  bytes: of text that may
 * still be compiled. */
static schema_compiler without_fault(const schema_compiler *c, bool object, size_t *bytes,
                                     grammar_error *why)
{
    schema_compiler d = {.g = c->g, .why = why, .xml = c->xml, .guard = c->guard, .any = c->any};
    uint32_t node;
    buf text = {0};
    put_without(c->root, c->refused, c->keyword, &text);
    *why = (grammar_error){.tool = -1};
    if (!buf_ok(&text)) c->g->r.status = ERR_NOMEM;
    else if (text.len > *bytes) d.rc = ERR_LIMIT;
    else if (!schema_open(&d, text.v, text.len)) schema_root(&d, object, &node);
    if (text.len <= *bytes) *bytes -= text.len;
    buf_clear(&text);
    return d;
}

void schema_more_faults(schema_compiler *c, bool object)
{
    gram *g = c->g;
    grammar_error next;
    schema_compiler at = *c, d;
    buf left_out = {0};
    size_t bytes = MAX_BYTES;
    double until = gram_cpu_seconds() + MAX_SECONDS;
    if (g->r.status) return;
    if (g->units > MAX_UNITS) g->units = MAX_UNITS;
    if (g->r.fuel > MAX_FUEL) g->r.fuel = MAX_FUEL;
    if (g->deadline > until) g->deadline = until;
    for (int i = 0; i < MAX_TRIES && c->why->n_more < GRAMMAR_MAX_FAULTS - 1; i++) {
        bool is_root = at.refused == at.root && !json_get(at.root, at.keyword);
        if (is_root || at.rc == ERR_LIMIT || g->r.status) break;
        put_place(&at, at.keyword, &left_out);
        d = without_fault(&at, object, &bytes, &next);
        if (i) schema_close(&at);
        at = d;
        if (!at.rc || !at.refused || at.rc == ERR_LIMIT || g->r.status) break;
        if (!follows(&at, &left_out)) add_fault(c->why, &next);
    }
    if (at.doc != c->doc) schema_close(&at);
    buf_clear(&left_out);
    if (g->r.status == ERR_LIMIT) g->r.status = 0; /* the fault that is known counts */
}
