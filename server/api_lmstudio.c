/* api_lmstudio.c - POST /api/v1/chat: LM Studio's shapes, plain and as events (API L4, L5), and
 * POST /api/v0/embeddings (L2).  A plain reply is made by the same machine as a stream, its events
 * thrown away.  Owns an lmstudio_reply per call.  Thread: prep, then the call's HTTP thread. */
#include "server/api.h"
#include "server/chat_request.h"
#include "server/gen.h"
#include "server/lmstudio.h"
#include "server/pooled.h"
#include "server/reply.h"
#include "server/responses_object.h"

#include "base/clock.h"

#include <string.h>

typedef struct {
    bool prompted; /* the end of the prompt was told */
    bool open;     /* a thought or message is */
    said_kind kind;
    buf text;   /* of the open one */
    buf output; /* what is closed, as items of the reply, comma-separated */
} lmstudio_reply;

static void event_begin(const char *type, buf *out)
{
    buf_printf(out, "event: %s\ndata: {\"type\":\"%s\"", type, type);
}

static void event_end(buf *out)
{
    buf_puts(out, "}\n\n");
}

static void event(const char *type, buf *out)
{
    event_begin(type, out);
    event_end(out);
}

/* "reasoning" or "message" events: .start, .delta, .end. */
static void part_event(const lmstudio_reply *o, const char *what, buf *out)
{
    buf type = {0};
    buf_printf(&type, "%s.%s", o->kind == SAID_THOUGHT ? "reasoning" : "message", what);
    event_begin(buf_str(&type), out);
    buf_clear(&type);
}

/* The same item as Responses knows it, to be kept. */
static void keep_item(gen *g, const lmstudio_reply *o)
{
    char id[48];
    bool thought = o->kind == SAID_THOUGHT;
    reply_id(id, sizeof id, thought ? "rs_" : "msg_");
    buf *b = conversation_begin(g->talk);
    buf_printf(b, "{\"type\":\"%s\",\"id\":\"%s\",\"status\":\"completed\"",
               thought ? "reasoning" : "message", id);
    buf_puts(b, thought ? ",\"summary\":[],\"content\":[{\"type\":\"reasoning_text\""
                        : ",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\"");
    tr_str(b, "text", buf_str(&o->text), o->text.len);
    buf_puts(b, thought ? "}]}" : ",\"annotations\":[],\"logprobs\":[]}]}");
    conversation_end(g->talk, id);
}

static void part_close(gen *g, buf *out)
{
    lmstudio_reply *o = g->own;
    if (!o->open) return;
    part_event(o, "end", out);
    event_end(out);
    buf_printf(&o->output, "%s{\"type\":\"%s\"", o->output.len ? "," : "",
               o->kind == SAID_THOUGHT ? "reasoning" : "message");
    tr_str(&o->output, "content", buf_str(&o->text), o->text.len);
    buf_putc(&o->output, '}');
    keep_item(g, o);
    if (!buf_ok(&o->text)) out->oom = true;
    buf_reset(&o->text);
    o->open = false;
}

static void end_prompt(lmstudio_reply *o, buf *out)
{
    if (o->prompted) return;
    o->prompted = true;
    event("prompt_processing.end", out);
}

static void put_result(const gen *g, bool kept, buf *out)
{
    const lmstudio_reply *o = g->own;
    request_stats u = request_usage(g->req[0]);
    lmstudio_pace p = lmstudio_pace_of(g);
    buf_putc(out, '{');
    tr_str(out, "model_instance_id", g->p.model, strlen(g->p.model));
    buf_puts(out, ",\"output\":[");
    buf_put(out, buf_str(&o->output), o->output.len);
    buf_printf(out,
               "],\"stats\":{\"input_tokens\":%d,\"total_output_tokens\":%d,"
               "\"reasoning_output_tokens\":%d,\"tokens_per_second\":",
               u.n_prompt, u.n_generated, u.n_reasoning);
    buf_put_num(out, p.tokens_per_second);
    buf_puts(out, ",\"time_to_first_token_seconds\":");
    buf_put_num(out, p.first_token);
    buf_putc(out, '}');
    if (kept) buf_printf(out, ",\"response_id\":\"%s\"", g->id);
    buf_putc(out, '}');
    if (!buf_ok(&o->output)) out->oom = true;
}

/* Keeps the reply if it is to be continued; whether it is. */
static bool keep(const gen *g)
{
    if (json_is(json_get(g->sent, "store"), JSON_FALSE)) return false;
    if (!response_store_on(g->a->responses)) return false;
    response_echo e = {.previous = json_get(g->sent, "previous_response_id"),
                       .max_output = json_get(g->sent, "max_output_tokens"),
                       .store = true};
    response_state s = {
        .status = response_status(&g->choice[0]), .completed = clock_unix(), .talk = g->talk};
    buf object = {0};
    response_put_object(g, &e, &s, &object);
    response_keep(g, &object);
    buf_clear(&object);
    return true;
}

static void take(gen *g, const delta *d, buf *out)
{
    lmstudio_reply *o = g->own;
    if (d->n_tok || d->said.n) end_prompt(o, out);
    for (int i = 0; i < d->said.n; i++) {
        const said_piece *p = &d->said.piece[i];
        if (p->kind == SAID_THOUGHT && !g->p.show_reasoning) continue;
        if (o->open && o->kind != p->kind) part_close(g, out);
        if (!o->open) {
            o->open = true;
            o->kind = p->kind;
            part_event(o, "start", out);
            event_end(out);
        }
        part_event(o, "delta", out);
        tr_str(out, "content", said_text(&d->said, i), p->n);
        event_end(out);
        buf_put(&o->text, said_text(&d->said, i), p->n);
    }
}

static void lmstudio_collect(gen *g, choice *c, const delta *d)
{
    buf events = {0};
    take(g, d, &events);
    if (!buf_ok(&events)) c->said.oom = true;
    buf_clear(&events);
}

static void lmstudio_plain(gen *g, buf *out)
{
    buf events = {0};
    part_close(g, &events);
    put_result(g, keep(g), out);
    if (!buf_ok(&events) || !said_ok(&g->choice[0].said)) out->oom = true;
    buf_clear(&events);
}

static void lmstudio_begin(gen *g, buf *out)
{
    event_begin("chat.start", out);
    tr_str(out, "model_instance_id", g->p.model, strlen(g->p.model));
    event_end(out);
    event("prompt_processing.start", out);
}

static void lmstudio_progress(gen *g, choice *c, int64_t done, buf *out)
{
    event_begin("prompt_processing.progress", out);
    buf_puts(out, ",\"progress\":");
    buf_put_num(out, (double)done / (double)g->prompt[c->prompt].n);
    event_end(out);
}

static void lmstudio_delta(gen *g, choice *c, const delta *d, buf *out)
{
    (void)c;
    take(g, d, out);
}

static void put_end(gen *g, bool kept, buf *out)
{
    event_begin("chat.end", out);
    buf_puts(out, ",\"result\":");
    put_result(g, kept, out);
    event_end(out);
}

static void lmstudio_end(gen *g, buf *out)
{
    end_prompt(g->own, out);
    part_close(g, out);
    put_end(g, keep(g), out);
}

static void lmstudio_fail(gen *g, const gen_fault *f, buf *out)
{
    buf error = {0};
    part_close(g, out);
    reply_error(&error, DIALECT_LMSTUDIO, http_request_id(g->call), f->status, f->type, f->code,
                NULL, f->msg);
    event_begin("error", out);
    buf_putc(out, ',');
    if (error.len > 2) buf_put(out, error.v + 1, error.len - 2); /* the member inside the braces */
    event_end(out);
    if (!buf_ok(&error)) out->oom = true;
    buf_clear(&error);
    put_end(g, false, out);
}

static void lmstudio_drop(gen *g)
{
    lmstudio_reply *o = g->own;
    if (!o) return;
    buf_clear(&o->text);
    buf_clear(&o->output);
}

static const gen_format lmstudio_shape = {.id_prefix = "resp_",
                                          .call_prefix = "call_",
                                          .param_prompt = "input",
                                          .stream_type = SSE_TYPE,
                                          .plain = lmstudio_plain,
                                          .collect = lmstudio_collect,
                                          .begin = lmstudio_begin,
                                          .progress = lmstudio_progress,
                                          .delta = lmstudio_delta,
                                          .end = lmstudio_end,
                                          .fail = lmstudio_fail,
                                          .ping = gen_sse_ping,
                                          .drop = lmstudio_drop};

void api_lmstudio_chat(http_call *c)
{
    chat_run(c, lmstudio_chat_translate, lmstudio_chat_names, &lmstudio_shape,
             sizeof(lmstudio_reply));
}

/* ---- /api/v0/embeddings ---------------------------------------------------------------------- */

static void v0_embeddings(pooled *p, buf *out)
{
    buf_putc(out, '{');
    embeddings_members(p, out);
    lmstudio_put_model(p->a, out);
    buf_putc(out, '}');
}

static const pooled_shape v0_embeddings_shape = {.param = "input", .reply = v0_embeddings};

void api_lmstudio_v0_embeddings(http_call *c)
{
    embeddings_run(c, &v0_embeddings_shape);
}
