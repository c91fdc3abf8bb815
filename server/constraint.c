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

static bool spec_open(spec_text *s, const constraint *c)
{
    const json *v = c->value;
    *s = (spec_text){.spec.kind = c->kind};
    if (c->kind == GRAMMAR_CHOICE) {
        s->choice = calloc(v->len, sizeof *s->choice);
        for (const json *j = s->choice ? v->child : NULL; j; j = j->next)
            s->choice[s->spec.n_choices++] = j->str;
        s->spec.choices = s->choice;
        return s->choice != NULL;
    }
    if (!v) return true;
    if (v->type == JSON_STRING) buf_put(&s->text, v->str, v->len);
    else json_dump(v, &s->text);
    s->spec.text = buf_str(&s->text);
    s->spec.n = s->text.len;
    return buf_ok(&s->text);
}

static void spec_close(spec_text *s)
{
    buf_clear(&s->text);
    free(s->choice);
}

/* Our code for the compiler's (E3). */
static const char *code_of(const constraint *c, const char *code)
{
    bool schema = c->kind == GRAMMAR_SCHEMA || c->kind == GRAMMAR_JSON_OBJECT;
    if (!strcmp(code, "schema_too_complex")) return "grammar_too_complex";
    if (!schema && strcmp(code, "grammar_too_complex") != 0) return "invalid_grammar";
    if (!strcmp(code, "unsatisfiable_schema")) return "invalid_schema";
    return code;
}

static void refuse(reader *r, const constraint *c, const grammar_error *why)
{
    if (!why->code) {
        r->failed = true;
        reply_fail(r->call, 503, "unavailable_error", "out_of_memory", NULL, "out of memory");
        return;
    }
    const char *code = code_of(c, why->code);
    char param[sizeof c->field + sizeof why->at + 2];
    snprintf(param, sizeof param, "%s%s%s", c->field, why->at[0] ? "#" : "", why->at);
    metrics_grammar_rejected(code);
    reader_fail(r, code, param, "'%s': %s", c->field, why->e.msg);
}

bool constraint_binds(const constraint *c)
{
    return c->field[0] != 0;
}

grammar *constraint_compile(const constraint *c, grammar_think think, reader *r)
{
    grammar *g = NULL;
    grammar_error why = {0};
    spec_text s;
    int64_t start = clock_us();
    int rc = spec_open(&s, c) ? 0 : ERR_NOMEM;
    const grammar_answer a = {.think = c->in_reasoning ? GRAMMAR_THINK_NONE : think,
                              .body = &s.spec};
    if (!rc) rc = grammar_compile_answer(&a, &g, &why);
    metrics_grammar_compile((double)(clock_us() - start) * 1e-6);
    if (rc) refuse(r, c, &why);
    spec_close(&s);
    return g;
}
