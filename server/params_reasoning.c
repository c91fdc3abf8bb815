/* params_reasoning.c - whether the model thinks, how hard, how long and what is shown of it (API
 * R3-R6). Owns nothing.  Refuses values outside the lists, naming the field.  Thread: prep. */
#include "server/request.h"

#include "server/reply.h"

#include <string.h>

static const char *const efforts[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
enum { N_EFFORTS = sizeof efforts / sizeof *efforts };

static void take_effort(params *p, reader *r, const char *param, const json *j)
{
    int level = 0;
    if (!j || j->type == JSON_NULL || r->failed) return;
    while (level < N_EFFORTS && json_is(j, JSON_STRING) && strcmp(j->str, efforts[level])) level++;
    if (j->type != JSON_STRING || level == N_EFFORTS) {
        reader_fail(r, j->type == JSON_STRING ? "invalid_value" : "invalid_type", param,
                    "'%s' must be one of none, minimal, low, medium, high, xhigh, max", param);
        return;
    }
    if (p->effort) return;
    p->effort = j->str;
    if (p->thinking < 0) p->thinking = level > 0;
}

static void take_switch(params *p, reader *r, const char *param, const json *j)
{
    if (!j || j->type == JSON_NULL || r->failed) return;
    if (!json_is_bool(j))
        reader_fail(r, "invalid_type", param, "'%s' must be true or false, got %s", param,
                    json_type_name(j));
    else if (p->thinking < 0) p->thinking = j->type == JSON_TRUE;
}

/* The first budget that is set counts; -1 is none. */
static void take_budget(params *p, reader *r, const char *param, const json *j)
{
    int64_t v;
    if (!j || j->type == JSON_NULL || r->failed) return;
    if (!json_int(j, &v) || v < -1) {
        reader_fail(r, j->type == JSON_NUMBER ? "invalid_value" : "invalid_type", param,
                    "'%s' must be an integer of at least -1", param);
        return;
    }
    if (p->budget_set) return;
    p->budget_set = true;
    p->think_budget = v;
}

static void read_thinking(params *p, reader *r, const json *j)
{
    const json *t = json_get(j, "type");
    if (j->type != JSON_OBJECT) {
        take_switch(p, r, "thinking", j);
    } else if (!json_is(t, JSON_STRING) ||
               (strcmp(t->str, "enabled") && strcmp(t->str, "disabled") &&
                strcmp(t->str, "adaptive"))) {
        reader_fail(r, "invalid_value", "thinking.type",
                    "'thinking.type' must be enabled, disabled or adaptive");
    } else {
        if (p->thinking < 0) p->thinking = strcmp(t->str, "disabled") != 0;
        take_budget(p, r, "thinking.budget_tokens", json_get(j, "budget_tokens"));
    }
}

static void read_reasoning(params *p, reader *r, const json *j)
{
    if (j->type != JSON_OBJECT) {
        reader_fail(r, "invalid_type", "reasoning", "'reasoning' must be an object, got %s",
                    json_type_name(j));
        return;
    }
    take_effort(p, r, "reasoning.effort", json_get(j, "effort"));
    take_switch(p, r, "reasoning.enabled", json_get(j, "enabled"));
    take_budget(p, r, "reasoning.max_tokens", json_get(j, "max_tokens"));
    const json *x = json_get(j, "exclude");
    if (x && x->type != JSON_NULL && !json_is_bool(x))
        reader_fail(r, "invalid_type", "reasoning.exclude",
                    "'reasoning.exclude' must be true or false, got %s", json_type_name(x));
    if (x && x->type == JSON_TRUE) p->show_reasoning = false;
}

/* What is shown (R6). */
static void read_shown(params *p, reader *r)
{
    static const char *const formats[] = {"none", "auto", "deepseek", "deepseek-legacy"};
    bool v, known = false;
    const char *f;
    if (rd_bool(r, "include_reasoning", &v) && !v) p->show_reasoning = false;
    if (rd_bool(r, "separate_reasoning", &v) && !v) p->thoughts = THOUGHT_INLINE;
    if (!rd_str(r, "reasoning_format", 0, 64, &f, NULL)) return;
    for (int i = 0; i < 4; i++) known |= !strcmp(f, formats[i]);
    if (!known)
        reader_fail(r, "invalid_value", "reasoning_format",
                    "'reasoning_format' must be none, auto, deepseek or deepseek-legacy");
    else if (!strcmp(f, "none")) p->thoughts = THOUGHT_INLINE;
    else if (!strcmp(f, formats[3]) && !r->source)
        p->thoughts = THOUGHT_BOTH; /* chat's own shape */
}

void read_reasoning_fields(params *p, reader *r)
{
    static const char *const budgets[] = {"thinking_budget", "thinking_token_budget",
                                          "thinking_budget_tokens", "reasoning_budget_tokens"};
    const json *j;
    take_switch(p, r, "enable_thinking", rd_any(r, "enable_thinking"));
    take_effort(p, r, "reasoning_effort", rd_any(r, "reasoning_effort"));
    for (int i = 0; i < 4; i++) take_budget(p, r, budgets[i], rd_any(r, budgets[i]));
    if ((j = rd_any(r, "reasoning"))) read_reasoning(p, r, j);
    if ((j = rd_any(r, "thinking"))) read_thinking(p, r, j);
    if ((j = rd_any(r, "think"))) {
        if (j->type == JSON_STRING) take_effort(p, r, "think", j);
        else take_switch(p, r, "think", j);
    }
    read_shown(p, r);
}

/* ---- budgets (R4, R5) ------------------------------------------------------------------------ */

/* --effort-budgets: minimal, low, medium; the levels above have none. */
static int64_t effort_budget(const reader *r, const char *effort)
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(effort, efforts[i + 1])) return r->a->effort_budget[i];
    return -1;
}

bool params_think_end(params *p, reader *r, think_mode think)
{
    const engine_info_t *info = engine_info(r->a->eng);
    bool template_knows = chat_format_traits(info->chat)->effort;
    if (!p->budget_set && p->effort && !template_knows)
        p->think_budget = effort_budget(r, p->effort);
    if (p->think_budget < 0 || think == THINK_NONE) return true;
    buf text = {0};
    err e = {0};
    /* A budget of nothing shows no text at all. */
    if (p->think_budget > 0) buf_printf(&text, "\n\n%s\n", r->a->opt->think_end_text);
    buf_puts(&text, "</think>\n\n");
    int rc = buf_ok(&text)
                 ? tokenizer_encode(info->tok, text.v, text.len, true, NULL, 0, &p->think_end, &e)
                 : ERR_NOMEM;
    buf_clear(&text);
    return rc == 0;
}
