/* constraint.c - a constraint as the specification the grammar compiler reads, and its refusals as
 * errors of the request (API J4, E3).  Owns the text of what it compiles.  Refuses what cannot be
 * enforced exactly.  Thread: the one for long work, or prep. */
#include "server/constraint.h"

#include "base/clock.h"
#include "server/metrics.h"
#include "server/reply.h"
#include "server/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The specification of c, and the memory behind it. */
typedef struct {
    grammar_spec spec;
    buf text;
    const char **choice;
} spec_text;

static bool spec_open(spec_text *s, const constraint *c, const tokenizer *tok)
{
    const json *v = c->value;
    *s = (spec_text){.spec = {.kind = c->kind, .tok = tok}};
    if (c->kind == GRAMMAR_CHOICE) {
        s->choice = calloc(v->len, sizeof *s->choice);
        for (const json *j = s->choice ? v->child : NULL; j; j = j->next)
            s->choice[s->spec.n_choices++] = j->str;
        s->spec.choices = s->choice;
        return s->choice != NULL;
    }
    if (!v) return true;
    if (v->type == JSON_STRING) buf_put(&s->text, v->str, v->len);
    else json_print(v, &s->text);
    s->spec.text = buf_str(&s->text);
    s->spec.n = s->text.len;
    return buf_ok(&s->text);
}

static void spec_close(spec_text *s)
{
    buf_clear(&s->text);
    free(s->choice);
}

/* ---- tools ----------------------------------------------------------------------------------- */

/* The tools as the compiler reads them, and the memory behind them. */
typedef struct {
    grammar_tool *tool; /* [n] */
    buf *schema;        /* [n] */
    int n;
} tool_list;

static void tools_close(tool_list *l)
{
    for (int i = 0; l->schema && i < l->n; i++) buf_clear(&l->schema[i]);
    free(l->schema);
    free(l->tool);
}

static bool tools_open(tool_list *l, const constraint *c, const json *tools)
{
    l->tool = calloc(tools->len + 1, sizeof *l->tool);
    l->schema = calloc(tools->len + 1, sizeof *l->schema);
    if (!l->tool || !l->schema) return false;
    for (const json *t = tools->child; t; t = t->next) {
        bool custom = false;
        const json *f = tool_body(t, &custom), *schema = json_get(f, "parameters");
        grammar_tool *to = &l->tool[l->n];
        buf *text = &l->schema[l->n++];
        *to = (grammar_tool){.name = json_get(f, "name")->str,
                             .strict = json_is(json_get(f, "strict"), JSON_TRUE),
                             .allowed = constraint_allows(c, t),
                             .custom = custom};
        if (!json_is(schema, JSON_OBJECT) || custom) continue;
        json_print(schema, text);
        if (!buf_ok(text)) return false;
        to->schema = buf_str(text);
        to->n_schema = text->len;
    }
    return true;
}

static grammar_calls calls_of(const constraint *c, const answer_place *at)
{
    if (c->tools == CHOOSE_REQUIRED || c->tools == CHOOSE_NAMED) return GRAMMAR_CALLS_REQUIRED;
    bool any = at->tools && at->tools->len && at->calls != CALLS_NONE;
    return !any || c->raw || c->tools == CHOOSE_NONE ? GRAMMAR_CALLS_OFF : GRAMMAR_CALLS_AUTO;
}

/* x-quern-relaxed: the places of tools that are held to less than their schema (T6). */
static void list_relaxed(const grammar *g, const tool_list *l, http_call *call)
{
    enum { MAX = 512 };
    size_t n;
    const grammar_relaxed *v = grammar_relaxed_places(g, &n);
    buf out = {0};
    for (size_t i = 0; i < n; i++) {
        size_t mark = out.len;
        buf_printf(&out, "%s%s%s", i ? "," : "", l->tool[v[i].tool].name, v[i].pointer);
        if (out.len <= MAX) continue;
        out.len = mark;
        buf_puts(&out, "...");
        break;
    }
    for (size_t i = 0; buf_ok(&out) && i < out.len; i++)
        if (out.v[i] <= 0x20 || out.v[i] >= 0x7f) out.v[i] = '_';
    if (out.len && buf_ok(&out)) http_add_header(call, "x-quern-relaxed", "%s", out.v);
    buf_clear(&out);
}

/* ---- compiling ------------------------------------------------------------------------------- */

/* Our code for the compiler's (E3). */
static const char *code_of(const constraint *c, const grammar_error *why)
{
    bool schema = why->tool >= 0 || c->kind == GRAMMAR_SCHEMA || c->kind == GRAMMAR_JSON_OBJECT;
    if (!strcmp(why->code, "schema_too_complex")) return "grammar_too_complex";
    if (!strcmp(why->code, "grammar_too_complex")) return why->code;
    if (!schema) return "invalid_grammar";
    return strcmp(why->code, "unsatisfiable_schema") ? why->code : "invalid_schema";
}

static void refuse(reader *r, const constraint *c, const grammar_error *why)
{
    if (!why->code) {
        reader_oom(r);
        return;
    }
    const char *code = code_of(c, why);
    char field[sizeof c->field], param[sizeof field + sizeof why->at + 2];
    buf more = {0};
    if (why->tool >= 0) snprintf(field, sizeof field, "tools[%d].function.parameters", why->tool);
    else snprintf(field, sizeof field, "%s", c->field[0] ? c->field : "tools");
    snprintf(param, sizeof param, "%s%s%s", field, why->at[0] ? "#" : "", why->at);
    metrics_grammar_rejected(code);
    for (int i = 0; i < why->n_more; i++) buf_printf(&more, "; %s", why->more[i].msg);
    reader_fail(r, code, param, "'%s': %s%s", field, why->e.msg, buf_str(&more));
    buf_clear(&more);
}

bool constraint_binds(const constraint *c)
{
    return c->field[0] || c->tools == CHOOSE_REQUIRED || c->tools == CHOOSE_NAMED ||
           (c->tools == CHOOSE_AUTO && (c->strict || c->allowed));
}

grammar *constraint_compile(const constraint *c, const answer_place *at, bool only_kept, reader *r)
{
    grammar *g = NULL;
    grammar_error why = {.tool = -1};
    spec_text s = {0};
    tool_list l = {0};
    int64_t start = clock_us();
    bool ok = !c->field[0] || spec_open(&s, c, engine_info(r->a->eng)->tok);
    grammar_answer a = {.think = c->in_reasoning ? GRAMMAR_THINK_NONE : at->opening,
                        .body = c->field[0] ? &s.spec : NULL,
                        .calls = calls_of(c, at),
                        .format = at->calls,
                        .one_call = at->one_call};
    if (a.calls != GRAMMAR_CALLS_OFF) ok = ok && tools_open(&l, c, at->tools);
    a.tools = l.tool;
    a.n_tools = l.n;
    bool kept = false;
    int rc = ok ? 0 : ERR_NOMEM;
    if (!rc && only_kept) rc = grammar_cache_find(r->a->grammars, &a, &g, &why, &kept);
    else if (!rc) rc = grammar_cache_get(r->a->grammars, &a, &g, &why, &kept);
    if (!kept && !only_kept) metrics_grammar_compile((double)(clock_us() - start) * 1e-6);
    if (rc) refuse(r, c, &why);
    else if (g) list_relaxed(g, &l, r->call);
    tools_close(&l);
    spec_close(&s);
    return g;
}
