/* chat_request.c - messages to prompt text to ids; see chat_request.h.  Any prep thread. */
#include "server/chat_request.h"

#include "server/reply.h"
#include "server/turns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool ready_or_fail(reader *r)
{
    const char *code, *msg;
    if (r->failed) return false;
    int status = app_not_ready(r->a, &code, &msg);
    if (!status) return true;
    r->failed = true;
    http_add_header(r->call, "Retry-After", "%d", status == 503 ? 5 : 1);
    if (!strcmp(code, "shutting_down")) http_close(r->call);
    reply_fail(r->call, status, status == 500 ? "server_error" : "unavailable_error", code, NULL,
               "%s", msg);
    return false;
}

static int tristate(reader *r, const char *name)
{
    bool v = false;
    return rd_bool(r, name, &v) ? v : -1;
}

static const json *typed(reader *r, const char *name, json_type t, const char *words)
{
    const json *j = rd_any(r, name);
    if (j && j->type != t) {
        reader_fail(r, "invalid_type", name, "'%s' must be %s, got %s", name, words,
                    json_type_name(j));
        return NULL;
    }
    return j;
}

/* C7: each of them an object. */
static void check_documents(reader *r, const json *list)
{
    int i = 0;
    for (const json *d = list ? list->child : NULL; d && !r->failed; d = d->next, i++) {
        char at[32];
        snprintf(at, sizeof at, "documents[%d]", i);
        if (d->type != JSON_OBJECT)
            reader_fail(r, "invalid_type", at, "'%s' must be an object, got %s", at,
                        json_type_name(d));
    }
}

/* --allow-request-template: the request's own template for this one prompt. */
static chat_format *request_format(reader *r)
{
    const char *text = NULL;
    size_t n = 0;
    err e = {0};
    if (!rd_str(r, "chat_template", 0, 1 << 20, &text, &n) || !n) return NULL;
    const tokenizer *tok = engine_info(r->a->eng)->tok;
    chat_format *f =
        chat_format_open(text, n, tokenizer_bos_text(tok), tokenizer_eos_text(tok), NULL, &e);
    if (!f) reader_fail(r, "template_error", "chat_template", "%s", e.msg);
    else chat_format_use_calls(f, r->a->opt->tool_format);
    return f;
}

bool chat_request_render(reader *r, const params *p, chat_prompt *out)
{
    chat_input in = {.messages = r->kept ? r->kept : typed(r, "messages", JSON_ARRAY, "an array"),
                     .tools = typed(r, "tools", JSON_ARRAY, "an array"),
                     .documents = typed(r, "documents", JSON_ARRAY, "an array"),
                     .kwargs = typed(r, "chat_template_kwargs", JSON_OBJECT, "an object"),
                     .tool_choice = rd_any(r, "tool_choice"),
                     .add_generation_prompt = tristate(r, "add_generation_prompt"),
                     .continue_final = tristate(r, "continue_final_message"),
                     .thinking = p->thinking,
                     .effort = p->effort,
                     .model = p->model};
    check_documents(r, in.documents);
    const json *mm = rd_any(r, "mm_processor_kwargs");
    if (mm && mm->len && !r->failed) {
        r->failed = true;
        reply_not_built(r->call, "mm_processor_kwargs");
    }
    if (!r->failed && (!in.messages || !in.messages->len))
        reader_fail(r, in.messages ? "invalid_value" : "missing_required_parameter", "messages",
                    "'messages' must be an array of at least one message");
    if (r->failed) return false;
    chat_format *own = request_format(r);
    if (r->failed) return false;
    chat_fault fault = {0};
    err e = {0};
    int rc = chat_render(own ? own : engine_info(r->a->eng)->chat, &in, out, &fault, &e);
    chat_format_free(own);
    if (rc == ERR_NOMEM) {
        reader_oom(r);
    } else if (rc) {
        reader_fail(r, fault.code ? fault.code : "template_error",
                    fault.param[0] ? fault.param : NULL, "%s", e.msg);
    } else if (!r->kept) {
        /* The renderer lists what it ignored comma-separated. */
        for (const char *s = buf_str(&out->ignored); *s;) {
            size_t n = strcspn(s, ",");
            reader_ignore_ours(r, s, n);
            s += n + (s[n] == ',');
        }
    }
    return !r->failed;
}

bool chat_request_encode(reader *r, const chat_prompt *prompt, token_list *out)
{
    err e = {0};
    const template_output *t = &prompt->prompt;
    int rc = tokenizer_encode(engine_info(r->a->eng)->tok, buf_str(&t->text), t->text.len, true,
                              t->closed, t->n_closed, out, &e);
    if (rc == ERR_NOMEM) reader_oom(r);
    else if (rc) reader_fail(r, "invalid_value", "messages", "%s", e.msg);
    return !rc;
}

typedef struct {
    const params *p;
    chat_prompt *prompt;
} render_ctx;

/* The prompt of the messages that truncation left. */
static bool encode_kept(reader *r, void *ctx, token_list *out)
{
    render_ctx *x = ctx;
    chat_prompt_clear(x->prompt);
    return chat_request_render(r, x->p, x->prompt) && chat_request_encode(r, x->prompt, out);
}

/* An open body to rendered prompt and its ids; false if r failed. */
static bool chat_read(reader *r, translator *t, const char *const *names, bool counts, params *p,
                      chat_prompt *prompt, token_list *ids)
{
    r->counts_only = counts;
    if (!ready_or_fail(r) || (t && !reader_translate(r, t, names, counts)) || !params_read(p, r) ||
        !chat_request_render(r, p, prompt) || !chat_request_encode(r, prompt, ids))
        return false;
    if (!r->drop_turns) return true;
    int64_t ctx = r->ctx ? r->ctx : engine_info(r->a->eng)->ctx, answer = ctx / 8;
    if (p->s.max_tokens >= 0 && p->s.max_tokens < answer) answer = p->s.max_tokens;
    int64_t room = ctx - (p->s.max_tokens != 0);
    return turns_fit(r, room, answer ? ctx - answer : room, encode_kept, &(render_ctx){p, prompt},
                     ids);
}

bool request_fits(reader *r, gen *g)
{
    int64_t left = r->ctx - (int64_t)g->prompt[0].n;
    if (!r->ctx) return true;
    if (left <= 0)
        reader_fail(
            r, "context_length_exceeded", g->format->param_prompt,
            "This model's maximum context length is %d tokens. However, your prompt has %zu "
            "tokens. Please shorten the prompt.",
            r->ctx, g->prompt[0].n);
    else if (g->p.s.max_tokens > left)
        http_add_header(r->call, "x-quern-clamped", "max_tokens=%lld", (long long)left); /* G5 */
    if (g->p.s.max_tokens < 0 || g->p.s.max_tokens > left) g->p.s.max_tokens = left;
    return left > 0;
}

/* A checked body and its prompt become a generation; takes over ids. */
static gen *chat_gen(reader *r, params *p, const chat_prompt *prompt, token_list *ids,
                     const gen_format *f, size_t own)
{
    gen *g = gen_new(r, p, f, 1);
    if (!g) return NULL;
    g->prompt[0] = *ids;
    *ids = (token_list){0};
    g->think = prompt->think;
    g->opening = prompt->may_think ? GRAMMAR_THINK_MAY
                 : prompt->think == THINK_NONE || prompt->think == THINK_MODEL_OPENS
                     ? GRAMMAR_THINK_NONE
                     : GRAMMAR_THINK_OPEN;
    g->calls = g->p.calls_off ? CALLS_NONE : prompt->calls;
    g->after_label = prompt->after_label;
    bool thought = prompt->continues_thought, inside = g->p.thoughts != THOUGHT_APART;
    if (g->p.echo && prompt->continued.len && (inside || !thought))
        said_put(&g->continued, SAID_ANSWER, 0, prompt->continued.v, prompt->continued.len);
    if (g->p.echo && prompt->continued.len && thought && g->p.thoughts != THOUGHT_INLINE)
        said_put(&g->continued, SAID_THOUGHT, 0, prompt->continued.v, prompt->continued.len);
    /* What is refused as too long anyhow costs no look at its tools. */
    bool reads_calls =
        g->calls != CALLS_NONE && (int64_t)g->prompt[0].n <= engine_info(r->a->eng)->ctx;
    if (said_ok(&g->continued) && (!own || (g->own = calloc(1, own))) &&
        params_think_end(&g->p, r, prompt->think) &&
        (!reads_calls || (g->tools = call_tools_new(json_get(g->body, "tools")))))
        return g;
    gen_free(g);
    return NULL;
}

void chat_serve(reader *r, translator *t, const char *const *names, const gen_format *f, size_t own,
                chat_before *before)
{
    params p = {0};
    chat_prompt prompt = {0};
    token_list ids = {0};
    if (chat_read(r, t, names, false, &p, &prompt, &ids) && (!before || before(r, &p, &ids))) {
        gen *g = chat_gen(r, &p, &prompt, &ids, f, own);
        if (!g) reader_oom(r);
        else if (!request_fits(r, g)) gen_free(g);
        else gen_start(g, r);
    }
    token_list_clear(&ids);
    chat_prompt_clear(&prompt);
    params_clear(&p);
}

void chat_run(http_call *c, translator *t, const char *const *names, const gen_format *f,
              size_t own)
{
    reader r;
    if (reader_open(&r, c, READ_CHAT)) chat_serve(&r, t, names, f, own, NULL);
    reader_close(&r);
}

void chat_count(http_call *c, translator *t, const char *const *names, const char *before,
                const char *after)
{
    reader r;
    params p = {0};
    chat_prompt prompt = {0};
    token_list ids = {0};
    if (reader_open(&r, c, READ_CHAT) && chat_read(&r, t, names, true, &p, &prompt, &ids)) {
        buf out = {0};
        buf_printf(&out, "%s%zu%s", before, ids.n, after);
        if (r.ignored.len) http_add_header(c, "x-quern-ignored", "%s", r.ignored.v);
        http_reply(c, 200, "application/json", &out);
    }
    token_list_clear(&ids);
    chat_prompt_clear(&prompt);
    params_clear(&p);
    reader_close(&r);
}
