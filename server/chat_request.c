/* chat_request.c - messages to prompt text to ids; see chat_request.h.  Any prep thread. */
#include "server/chat_request.h"

#include "server/reply.h"

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
    return f;
}

bool chat_request_render(reader *r, const params *p, chat_prompt *out)
{
    chat_input in = {.messages = typed(r, "messages", JSON_ARRAY, "an array"),
                     .tools = typed(r, "tools", JSON_ARRAY, "an array"),
                     .documents = typed(r, "documents", JSON_ARRAY, "an array"),
                     .kwargs = typed(r, "chat_template_kwargs", JSON_OBJECT, "an object"),
                     .tool_choice = rd_any(r, "tool_choice"),
                     .add_generation_prompt = tristate(r, "add_generation_prompt"),
                     .continue_final = tristate(r, "continue_final_message"),
                     .thinking = p->thinking,
                     .effort = p->effort};
    bool echo = false;
    if (r->kind == READ_CHAT && rd_bool(r, "echo", &echo) && echo && !r->failed) {
        r->failed = true;
        reply_not_built(r->call, "echo");
    }
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
        r->failed = true;
        reply_fail(r->call, 503, "unavailable_error", "out_of_memory", NULL, "out of memory");
    } else if (rc) {
        reader_fail(r, fault.code ? fault.code : "template_error",
                    fault.param[0] ? fault.param : NULL, "%s", e.msg);
    } else {
        /* The renderer lists what it ignored comma-separated. */
        for (const char *s = buf_str(&out->ignored); *s;) {
            size_t n = strcspn(s, ",");
            reader_ignore(r, s, n);
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
    if (rc == ERR_NOMEM && !r->failed) {
        r->failed = true;
        reply_fail(r->call, 503, "unavailable_error", "out_of_memory", NULL, "out of memory");
    } else if (rc) {
        reader_fail(r, "invalid_value", "messages", "%s", e.msg);
    }
    return !rc;
}

static void out_of_memory(reader *r)
{
    if (r->failed) return;
    r->failed = true;
    reply_fail(r->call, 503, "unavailable_error", "out_of_memory", NULL, "out of memory");
}

/* Body to rendered prompt; false if r failed. */
static bool chat_open(reader *r, http_call *c, translator *t, const char *const *names, bool counts,
                      params *p, chat_prompt *prompt)
{
    bool open = t ? reader_open_as(r, c, t, names, counts) : reader_open(r, c, READ_CHAT);
    return open && ready_or_fail(r) && params_read(p, r) && chat_request_render(r, p, prompt);
}

/* A request's own smaller context bounds prompt and answer together. */
static bool fit_context(reader *r, gen *g)
{
    int64_t left = r->ctx - (int64_t)g->prompt[0].n;
    if (left <= 0)
        reader_fail(
            r, "context_length_exceeded", g->format->param_prompt,
            "This model's maximum context length is %d tokens. However, your prompt has %zu "
            "tokens. Please shorten the prompt.",
            r->ctx, g->prompt[0].n);
    else if (g->p.s.max_tokens < 0 || g->p.s.max_tokens > left) g->p.s.max_tokens = left;
    return left > 0;
}

void chat_run(http_call *c, translator *t, const char *const *names, const gen_format *f,
              size_t own)
{
    reader r;
    params p = {0};
    chat_prompt prompt = {0};
    gen *g = NULL;
    if (!chat_open(&r, c, t, names, false, &p, &prompt)) goto out;
    g = gen_new(&r, &p, f, 1);
    if (!g || (own && !(g->own = calloc(1, own))) ||
        !chat_request_encode(&r, &prompt, &g->prompt[0])) {
        out_of_memory(&r);
        gen_free(g);
        goto out;
    }
    if (r.ctx && !fit_context(&r, g)) {
        gen_free(g);
        goto out;
    }
    g->think = g->p.parse_reasoning ? prompt.think : THINK_NONE;
    g->calls = g->p.calls_off ? CALLS_NONE : prompt.calls;
    if (!params_think_end(&g->p, &r, prompt.think)) {
        out_of_memory(&r);
        gen_free(g);
        goto out;
    }
    if (g->calls != CALLS_NONE && !(g->tools = call_tools_new(json_get(g->body, "tools")))) {
        out_of_memory(&r);
        gen_free(g);
        goto out;
    }
    gen_start(g, &r);
out:
    chat_prompt_clear(&prompt);
    params_clear(&p);
    reader_close(&r);
}

void chat_count(http_call *c, translator *t, const char *const *names, const char *before,
                const char *after)
{
    reader r;
    params p = {0};
    chat_prompt prompt = {0};
    token_list ids = {0};
    if (chat_open(&r, c, t, names, true, &p, &prompt) && chat_request_encode(&r, &prompt, &ids)) {
        buf out = {0};
        buf_printf(&out, "%s%zu%s", before, ids.n, after);
        http_reply(c, 200, "application/json", &out);
    }
    token_list_clear(&ids);
    chat_prompt_clear(&prompt);
    params_clear(&p);
    reader_close(&r);
}
