/* api_ollama.c - POST /api/chat and /api/generate: Ollama's shapes, NDJSON (API O2-O7).  Owns an
 * ollama_reply per call.  Thread: prep, then the call's HTTP thread. */
#include "server/api.h"
#include "server/chat_request.h"
#include "server/gen.h"
#include "server/ollama_request.h"
#include "server/raw_request.h"
#include "server/reply.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* A call arrives whole, so its parts wait. */
typedef struct {
    buf name, args;
    int call;
    bool no_context; /* raw prompts cannot be gone on from */
} ollama_reply;

static void put_now(buf *out)
{
    struct timespec t;
    struct tm g;
    char s[32];
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &g);
    strftime(s, sizeof s, "%Y-%m-%dT%H:%M:%S", &g);
    buf_printf(out, "\"%s.%09ldZ\"", s, t.tv_nsec);
}

static void put_head(const gen *g, buf *out)
{
    buf_putc(out, '{');
    tr_str(out, "model", g->p.model, strlen(g->p.model));
    buf_puts(out, ",\"created_at\":");
    put_now(out);
}

static void put_end(const gen *g, buf *out)
{
    const choice *c = &g->choice[0];
    request_stats u = request_usage(g->req[0]);
    int64_t first = u.first_token_us ? u.first_token_us : u.finished_us;
    buf_printf(out,
               ",\"done\":true,\"done_reason\":\"%s\",\"total_duration\":%lld,\"load_duration\":0,"
               "\"prompt_eval_count\":%d,\"prompt_eval_duration\":%lld,\"eval_count\":%d,"
               "\"eval_duration\":%lld",
               c->finish == FINISH_LENGTH ? "length" : "stop",
               (long long)(u.finished_us - u.arrival_us) * 1000, u.n_prompt,
               (long long)(first - u.scheduled_us) * 1000, u.n_generated,
               (long long)(u.finished_us - first) * 1000);
}

/* All ids so far, which a later prompt can go on from (O4). */
static void put_context(const gen *g, const choice *c, buf *out)
{
    const ollama_reply *o = g->own;
    if (o->no_context) return;
    buf_puts(out, ",\"context\":[");
    gen_ids(g->prompt[0].v, g->prompt[0].n, out);
    if (c->ids.len) buf_printf(out, ",%s", c->ids.v);
    buf_putc(out, ']');
}

static void put_call(const choice *c, int call, const buf *name, const buf *args, buf *out)
{
    buf_printf(out, "{\"id\":\"%s\",\"function\":{\"index\":%d", c->call_id[call], call);
    tr_str(out, "name", buf_str(name), name->len);
    tr_name(out, "arguments");
    put_args_object(buf_str(args), args->len, out);
    buf_puts(out, "}}");
}

/* Items as OpenAI's, which the choice holds already as JSON. */
static void put_logprobs(const buf *items, buf *out)
{
    if (items->len) buf_printf(out, ",\"logprobs\":[%s]", items->v);
}

/* ---- plain ----------------------------------------------------------------------------------- */

static void put_calls(const choice *c, buf *out)
{
    const said *s = &c->said;
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        if (s->piece[i].kind != SAID_CALL) continue;
        buf name = {0}, args = {0};
        buf_put(&name, said_text(s, i), s->piece[i].n);
        said_args(s, i, &args);
        buf_puts(out, n++ ? "," : ",\"tool_calls\":[");
        put_call(c, s->piece[i].call, &name, &args, out);
        buf_clear(&name);
        buf_clear(&args);
    }
    if (n) buf_putc(out, ']');
}

static void put_texts(const gen *g, const choice *c, const char *field, buf *out)
{
    buf answer = {0}, thought = {0};
    said_copy(&c->said, SAID_ANSWER, &answer);
    if (g->p.show_reasoning) said_copy(&c->said, SAID_THOUGHT, &thought);
    tr_str(out, field, buf_str(&answer), answer.len);
    if (thought.len) tr_str(out, "thinking", thought.v, thought.len);
    if (!buf_ok(&answer) || !buf_ok(&thought) || !said_ok(&c->said)) out->oom = true;
    buf_clear(&answer);
    buf_clear(&thought);
}

static void chat_plain(gen *g, buf *out)
{
    const choice *c = &g->choice[0];
    put_head(g, out);
    buf_puts(out, ",\"message\":{\"role\":\"assistant\"");
    put_texts(g, c, "content", out);
    put_calls(c, out);
    buf_putc(out, '}');
    put_logprobs(&c->logprobs, out);
    put_end(g, out);
    buf_putc(out, '}');
}

static void generate_plain(gen *g, buf *out)
{
    const choice *c = &g->choice[0];
    put_head(g, out);
    put_texts(g, c, "response", out);
    put_calls(c, out);
    put_logprobs(&c->logprobs, out);
    put_end(g, out);
    put_context(g, c, out);
    buf_putc(out, '}');
}

static void collect(gen *g, choice *c, const delta *d)
{
    if (g->p.logprobs) gen_chat_logprobs(g, d, -1, &c->logprobs, &c->logprobs_reasoning);
    if (!g->p.return_token_ids) gen_delta_ids(d, &c->ids);
}

/* ---- stream ---------------------------------------------------------------------------------- */

/* One line with an answer's or a thought's text. */
static void put_line(gen *g, bool chat, bool thought, const char *s, size_t n, const buf *lp,
                     buf *out)
{
    put_head(g, out);
    if (chat) buf_puts(out, ",\"message\":{\"role\":\"assistant\"");
    tr_str(out, chat ? "content" : "response", thought ? "" : s, thought ? 0 : n);
    if (thought) tr_str(out, "thinking", s, n);
    if (chat) buf_putc(out, '}');
    put_logprobs(lp, out);
    buf_puts(out, ",\"done\":false}\n");
}

static void call_line(gen *g, bool chat, const choice *c, ollama_reply *o, buf *out)
{
    put_head(g, out);
    buf_puts(out, chat ? ",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":["
                       : ",\"response\":\"\",\"tool_calls\":[");
    put_call(c, o->call, &o->name, &o->args, out);
    buf_puts(out, chat ? "]},\"done\":false}\n" : "],\"done\":false}\n");
    buf_reset(&o->name);
    buf_reset(&o->args);
}

static void put_delta(gen *g, bool chat, choice *c, const delta *d, buf *out)
{
    static const buf none;
    ollama_reply *o = g->own;
    const said *s = &d->said;
    buf lp = {0}, lp_thought = {0};
    if (g->p.logprobs) gen_chat_logprobs(g, d, -1, &lp, &lp_thought);
    if (!chat) gen_delta_ids(d, &c->ids);
    for (int i = 0; i < s->n; i++) {
        const said_piece *p = &s->piece[i];
        bool thought = p->kind == SAID_THOUGHT;
        if (thought && !g->p.show_reasoning) continue;
        if (p->kind == SAID_CALL) {
            if (o->name.len) call_line(g, chat, c, o, out); /* the one before was cut short */
            o->call = p->call;
            buf_put(&o->name, said_text(s, i), p->n);
        } else if (p->kind == SAID_ARGS) {
            buf_put(&o->args, said_text(s, i), p->n);
        } else if (p->kind == SAID_CALL_END) {
            call_line(g, chat, c, o, out);
        } else {
            put_line(g, chat, thought, said_text(s, i), p->n, thought ? &none : &lp, out);
            if (!thought) buf_reset(&lp);
        }
    }
    if (d->finish != FINISH_NONE && o->name.len) call_line(g, chat, c, o, out);
    if (lp.len) put_line(g, chat, false, "", 0, &lp, out);
    buf_clear(&lp);
    buf_clear(&lp_thought);
}

static void chat_delta(gen *g, choice *c, const delta *d, buf *out)
{
    put_delta(g, true, c, d, out);
}

static void generate_delta(gen *g, choice *c, const delta *d, buf *out)
{
    put_delta(g, false, c, d, out);
}

static void chat_end(gen *g, buf *out)
{
    put_head(g, out);
    buf_puts(out, ",\"message\":{\"role\":\"assistant\",\"content\":\"\"}");
    put_end(g, out);
    buf_puts(out, "}\n");
}

static void generate_end(gen *g, buf *out)
{
    const choice *c = &g->choice[0];
    put_head(g, out);
    buf_puts(out, ",\"response\":\"\"");
    put_end(g, out);
    put_context(g, c, out);
    buf_puts(out, "}\n");
}

static void line_fail(gen *g, const gen_fault *f, buf *out)
{
    reply_error(out, DIALECT_OLLAMA, http_request_id(g->call), f->status, f->type, f->code, NULL,
                f->msg);
    buf_putc(out, '\n');
}

static void chat_ping(gen *g, buf *out)
{
    static const buf none;
    put_line(g, true, false, "", 0, &none, out);
}

static void generate_ping(gen *g, buf *out)
{
    static const buf none;
    put_line(g, false, false, "", 0, &none, out);
}

static void drop(gen *g)
{
    ollama_reply *o = g->own;
    if (!o) return;
    buf_clear(&o->name);
    buf_clear(&o->args);
}

#define NDJSON "application/x-ndjson"
static const gen_format chat_shape = {.id_prefix = "chat_",
                                      .call_prefix = "call_",
                                      .param_prompt = "messages",
                                      .stream_type = NDJSON,
                                      .plain = chat_plain,
                                      .collect = collect,
                                      .delta = chat_delta,
                                      .end = chat_end,
                                      .fail = line_fail,
                                      .ping = chat_ping,
                                      .drop = drop};
static const gen_format generate_shape = {.id_prefix = "gen_",
                                          .call_prefix = "call_",
                                          .param_prompt = "prompt",
                                          .stream_type = NDJSON,
                                          .plain = generate_plain,
                                          .collect = collect,
                                          .delta = generate_delta,
                                          .end = generate_end,
                                          .fail = line_fail,
                                          .ping = generate_ping,
                                          .drop = drop};

/* ---- requests -------------------------------------------------------------------------------- */

static void tell_loaded(reader *r, const char *model, bool chat)
{
    buf out = {0};
    buf_putc(&out, '{');
    tr_str(&out, "model", model, strlen(model));
    buf_puts(&out, ",\"created_at\":");
    put_now(&out);
    buf_puts(&out, chat ? ",\"message\":{\"role\":\"assistant\",\"content\":\"\"}"
                        : ",\"response\":\"\"");
    buf_puts(&out, ",\"done\":true,\"done_reason\":\"load\"}");
    if (r->ignored.len) http_add_header(r->call, "x-quern-ignored", "%s", r->ignored.v);
    http_reply(r->call, 200, "application/json", &out);
}

/* Nothing to generate from (O7): what else is sent must be legal all the same. */
static void serve_load(reader *r, translator *t, bool chat)
{
    params p = {0};
    if (ready_or_fail(r) && reader_translate(r, t, ollama_names, true) && params_read(&p, r))
        tell_loaded(r, p.model, chat);
    params_clear(&p);
}

/* Room for the prompt's ids behind a context: its oldest messages go, if the request allows (G7).
 */
static void cut_context(reader *r, const params *p, token_list *context, size_t n_prompt)
{
    const engine_info_t *info = engine_info(r->a->eng);
    int64_t ctx = r->ctx ? r->ctx : info->ctx, over;
    int32_t begin = tokenizer_id(info->tok, "<|im_start|>");
    over = (int64_t)(context->n + n_prompt) - (ctx - (p->s.max_tokens != 0));
    if (!r->drop_turns || over <= 0) return;
    int gone = 0;
    size_t at = 0;
    for (; at < context->n && ((int64_t)at < over || context->v[at] != begin); at++)
        gone += context->v[at] == begin;
    if (at < context->n) prompt_cut(context, (int64_t)(context->n - at), false);
    else context->n = 0;
    http_add_header(r->call, "x-quern-truncated", "%d", gone);
}

/* The ids of an earlier reply in front (O4).  A turn that was ended there ends with its line. */
static bool put_before(reader *r, const params *p, token_list *ids)
{
    const json *list = json_get(r->sent, "context");
    token_list all = {0};
    if (!json_is(list, JSON_ARRAY) || !list->len) return true;
    if (raw_ids(r, "context", list, false, &all)) {
        if (all.v[all.n - 1] == tokenizer_id(engine_info(r->a->eng)->tok, "<|im_end|>"))
            raw_text(r, "context", "\n", 1, 1, &all);
        cut_context(r, p, &all, ids->n);
        raw_join(r, &all, ids->v, ids->n);
    }
    token_list_clear(ids);
    *ids = all;
    return !r->failed;
}

/* O4 without a template. */
static void serve_raw(reader *r)
{
    params p = {0};
    token_list ids = {0};
    fim_tokens f;
    r->kind = READ_COMPLETIONS;
    if (ready_or_fail(r) && reader_translate(r, ollama_raw_translate, ollama_names, false) &&
        params_read(&p, r)) {
        const json *prompt = rd_any(r, "prompt"), *suffix = rd_any(r, "suffix");
        bool fim = suffix && suffix->len;
        bool ok = fim ? fim_prompt(r, prompt, suffix, &f, &ids)
                      : raw_text(r, "prompt", prompt->str, prompt->len, 0, &ids);
        gen *g = ok ? raw_gen(r, &p, &generate_shape, sizeof(ollama_reply), &ids) : NULL;
        if (g && fim && !fim_ends(g, &f)) reader_oom(r);
        if (g && !r->failed && request_fits(r, g)) {
            ((ollama_reply *)g->own)->no_context = json_is(json_get(r->sent, "raw"), JSON_TRUE);
            gen_start(g, r);
        } else {
            gen_free(g);
        }
    }
    token_list_clear(&ids);
    params_clear(&p);
}

void api_ollama_chat(http_call *c)
{
    reader r;
    if (!reader_open(&r, c, READ_CHAT)) {
    } else if (ollama_only_loads(r.body, true)) {
        serve_load(&r, ollama_chat_translate, true);
    } else {
        chat_serve(&r, ollama_chat_translate, ollama_names, &chat_shape, sizeof(ollama_reply),
                   NULL);
    }
    reader_close(&r);
}

void api_ollama_generate(http_call *c)
{
    reader r;
    if (!reader_open(&r, c, READ_CHAT)) {
    } else if (ollama_only_loads(r.body, false)) {
        serve_load(&r, ollama_generate_translate, false);
    } else if (ollama_is_raw(r.body)) {
        serve_raw(&r);
    } else {
        chat_serve(&r, ollama_generate_translate, ollama_names, &generate_shape,
                   sizeof(ollama_reply), put_before);
    }
    reader_close(&r);
}
