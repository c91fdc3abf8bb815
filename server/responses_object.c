/* responses_object.c - see responses_object.h.  Owns nothing. */
#include "server/responses_object.h"

#include "server/reply.h"
#include "server/translate.h"

#include <string.h>

static void put_or_null(buf *out, const char *name, const json *v)
{
    tr_name(out, name);
    if (v) json_print(v, out);
    else buf_puts(out, "null");
}

static void put_or(buf *out, const char *name, const json *v, const char *otherwise)
{
    tr_name(out, name);
    if (v && v->type != JSON_NULL) json_print(v, out);
    else buf_puts(out, otherwise);
}

/* The tools that were used, each with the members that clients expect. */
static void put_tools(const json *tools, buf *out)
{
    int n = 0;
    tr_name(out, "tools");
    buf_putc(out, '[');
    for (const json *t = json_is(tools, JSON_ARRAY) ? tools->child : NULL; t; t = t->next) {
        const json *type = json_get(t, "type");
        bool function = tr_is(type, "function");
        if (!function && !tr_is(type, "custom")) continue;
        buf_puts(out, n++ ? ",{" : "{");
        for (const json *j = t->child; j; j = j->next)
            if (!function || (strcmp(j->key, "strict") && strcmp(j->key, "parameters")))
                tr_json(out, j->key, j);
        if (function) {
            put_or(out, "strict", json_get(t, "strict"), "false");
            put_or(out, "parameters", json_get(t, "parameters"), "null");
        }
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

/* Members of text as sent, and a format in any case. */
static void put_text(const json *text, buf *out)
{
    tr_name(out, "text");
    buf_putc(out, '{');
    put_or(out, "format", json_get(text, "format"), "{\"type\":\"text\"}");
    for (const json *j = json_is(text, JSON_OBJECT) ? text->child : NULL; j; j = j->next)
        if (strcmp(j->key, "format") && j->type != JSON_NULL) tr_json(out, j->key, j);
    buf_putc(out, '}');
}

/* A float as it was sent: seven digits give it back. */
static void put_float(const char *name, float v, buf *out)
{
    tr_name(out, name);
    buf_printf(out, "%.7g", (double)v);
}

static void put_usage(const gen *g, buf *out)
{
    request_stats u = request_usage(g->req[0]);
    buf_printf(out,
               ",\"usage\":{\"input_tokens\":%d,\"input_tokens_details\":{\"cached_tokens\":%d,"
               "\"cache_write_tokens\":0},\"output_tokens\":%d,\"output_tokens_details\":{"
               "\"reasoning_tokens\":%d},\"total_tokens\":%d}",
               u.n_prompt, u.n_cached, u.n_generated, u.n_reasoning, u.n_prompt + u.n_generated);
}

const char *response_status(const choice *c)
{
    return c->finish == FINISH_LENGTH ? "incomplete" : "completed";
}

/* How the reply stands: everything that changes while it is made. */
static void put_state(const gen *g, const response_state *s, buf *out)
{
    buf_puts(out, ",\"completed_at\":");
    if (s->completed) buf_put_int(out, s->completed);
    else buf_puts(out, "null");
    tr_str(out, "status", s->status, strlen(s->status));
    buf_puts(out, ",\"error\":");
    if (s->error) {
        buf_puts(out, "{\"code\":\"server_error\"");
        tr_str(out, "message", s->error, strlen(s->error));
        buf_putc(out, '}');
    } else {
        buf_puts(out, "null");
    }
    buf_printf(out, ",\"incomplete_details\":%s,\"output\":[",
               strcmp(s->status, "incomplete") ? "null" : "{\"reason\":\"max_output_tokens\"}");
    if (strcmp(s->status, "in_progress") != 0) {
        const conversation *k = s->talk;
        int before = k->n_history + k->n_input;
        size_t n;
        const char *items = conversation_slice(k, before, k->n - before, &n);
        buf_put(out, items, n);
        if (!conversation_ok(k)) out->oom = true;
    }
    buf_putc(out, ']');
    if (s->completed) put_usage(g, out);
}

void response_put_object(const gen *g, const response_echo *e, const response_state *s, buf *out)
{
    const params *p = &g->p;
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"response\",\"created_at\":%lld", g->id,
               (long long)g->created);
    put_state(g, s, out);
    put_or_null(out, "instructions", e->instructions);
    tr_str(out, "model", p->model, strlen(p->model));
    buf_printf(out, ",\"parallel_tool_calls\":%s", p->one_call ? "false" : "true");
    put_or_null(out, "previous_response_id", e->previous);
    buf_puts(out, ",\"reasoning\":{");
    put_or_null(out, "effort", e->effort);
    put_or_null(out, "summary", e->summary);
    buf_printf(out, "},\"store\":%s", e->store ? "true" : "false");
    put_float("temperature", p->s.temperature, out);
    put_float("top_p", p->s.top_p, out);
    put_text(e->text, out);
    put_or(out, "tool_choice", e->tool_choice, "\"auto\"");
    put_tools(e->tools, out);
    put_or(out, "top_logprobs", e->top_logprobs, "0");
    put_or(out, "truncation", e->truncation, "\"disabled\"");
    put_or_null(out, "max_output_tokens", e->max_output);
    put_or_null(out, "max_tool_calls", e->max_calls);
    put_or(out, "metadata", e->metadata, "{}");
    buf_puts(out, ",\"service_tier\":\"default\",\"background\":false");
    if (e->user) tr_json(out, "user", e->user);
    buf_putc(out, '}');
}

void response_keep(const gen *g, const buf *object)
{
    response_store_put(g->a->responses, http_key_hash(g->call), g->id, object, g->talk);
}
