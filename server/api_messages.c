/* api_messages.c - POST /v1/messages and /v1/messages/count_tokens: Anthropic's shapes (API A7-A9,
 * G20).  Owns a message_stream per reply.  Thread: prep, then the call's HTTP thread. */
#include "server/api.h"
#include "server/chat_request.h"
#include "server/gen.h"
#include "server/messages_request.h"
#include "server/reply.h"

#include <string.h>

/* Blocks of a streamed message: one is open at a time. */
typedef struct {
    int n_block; /* started */
    bool open;
    said_kind kind; /* of the open one: THOUGHT, ANSWER or CALL */
} message_stream;

/* A thought has no signature here; clients only send it back. */
static const char SIGNATURE[] = "cXVlcm4=";

static void put_stop(const gen *g, buf *out)
{
    const choice *c = &g->choice[0];
    const char *why = "end_turn";
    bool word = c->finish == FINISH_STOP && c->stop_index >= 0;
    request_stats u = request_usage(g->req[0]);
    if (c->finish == FINISH_LENGTH)
        why = u.n_prompt + u.n_generated >= engine_info(g->a->eng)->ctx
                  ? "model_context_window_exceeded"
                  : "max_tokens";
    else if (c->n_whole) why = "tool_use";
    else if (word) why = "stop_sequence";
    buf_printf(out, "\"stop_reason\":\"%s\",\"stop_sequence\":", why);
    if (word && !c->n_whole)
        buf_put_json(out, g->p.stop[c->stop_index], g->p.stop_len[c->stop_index]);
    else buf_puts(out, "null");
}

/* begun: nothing is sent yet, whatever is generated already (A8). */
static void put_usage(const gen *g, bool begun, buf *out)
{
    request_stats u = request_usage(g->req[0]);
    if (begun) u.n_generated = u.n_reasoning = 0;
    buf_printf(out,
               "\"usage\":{\"input_tokens\":%d,\"cache_creation_input_tokens\":0,"
               "\"cache_read_input_tokens\":%d,\"output_tokens\":%d,\"output_tokens_details\":{"
               "\"thinking_tokens\":%d},\"service_tier\":\"standard\"}",
               u.n_prompt - u.n_cached, u.n_cached, u.n_generated, u.n_reasoning);
}

static void put_head(const gen *g, buf *out)
{
    buf_printf(out, "{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\"", g->id);
    tr_str(out, "model", g->p.model, strlen(g->p.model));
    buf_puts(out, ",\"content\":[");
}

/* Omitted thoughts leave an empty block (A5). */
static bool omits(const gen *g)
{
    return tr_is(json_get(json_get(g->body, "thinking"), "display"), "omitted");
}

/* ---- plain ----------------------------------------------------------------------------------- */

static void put_call(const choice *c, int i, buf *out)
{
    const said *s = &c->said;
    int call = s->piece[i].call;
    buf args = {0};
    said_args(s, i, &args);
    buf_printf(out, "{\"type\":\"tool_use\",\"id\":\"%s\"", c->call_id[call]);
    tr_str(out, "name", said_text(s, i), s->piece[i].n);
    tr_name(out, "input");
    put_args_object(buf_str(&args), args.len, out);
    buf_puts(out, ",\"caller\":{\"type\":\"direct\"}}");
    if (!buf_ok(&args)) out->oom = true;
    buf_clear(&args);
}

static void messages_plain(gen *g, buf *out)
{
    const choice *c = &g->choice[0];
    const said *s = &c->said;
    int n = 0;
    put_head(g, out);
    for (int i = 0; i < s->n; i++) {
        const said_piece *p = &s->piece[i];
        if (p->kind == SAID_ARGS || p->kind == SAID_CALL_END) continue;
        if (p->kind == SAID_THOUGHT && !g->p.show_reasoning) continue;
        if (n++) buf_putc(out, ',');
        if (p->kind == SAID_CALL) {
            put_call(c, i, out);
        } else if (p->kind == SAID_THOUGHT) {
            buf_puts(out, "{\"type\":\"thinking\"");
            tr_str(out, "thinking", said_text(s, i), omits(g) ? 0 : p->n);
            buf_printf(out, ",\"signature\":\"%s\"}", SIGNATURE);
        } else {
            buf_puts(out, "{\"type\":\"text\"");
            tr_str(out, "text", said_text(s, i), p->n);
            buf_puts(out, ",\"citations\":null}");
        }
    }
    if (!said_ok(s)) out->oom = true;
    buf_puts(out, "],");
    put_stop(g, out);
    buf_putc(out, ',');
    put_usage(g, false, out);
    buf_putc(out, '}');
}

static void messages_collect(gen *g, choice *c, const delta *d)
{
    (void)g, (void)c, (void)d; /* all of it is in choice.said */
}

/* ---- stream (A8) ----------------------------------------------------------------------------- */

static void event_begin(const char *name, buf *out)
{
    buf_printf(out, "event: %s\ndata: {\"type\":\"%s\"", name, name);
}

static void event_end(buf *out)
{
    buf_puts(out, "}\n\n");
}

static void messages_begin(gen *g, buf *out)
{
    event_begin("message_start", out);
    buf_puts(out, ",\"message\":");
    put_head(g, out);
    buf_puts(out, "],\"stop_reason\":null,\"stop_sequence\":null,");
    put_usage(g, true, out);
    buf_putc(out, '}');
    event_end(out);
}

static void block_stop(message_stream *m, buf *out)
{
    if (!m->open) return;
    if (m->kind == SAID_THOUGHT) {
        event_begin("content_block_delta", out);
        buf_printf(out,
                   ",\"index\":%d,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"%s\"}",
                   m->n_block - 1, SIGNATURE);
        event_end(out);
    }
    event_begin("content_block_stop", out);
    buf_printf(out, ",\"index\":%d", m->n_block - 1);
    event_end(out);
    m->open = false;
}

static void block_start(message_stream *m, const choice *c, const said *s, int i, buf *out)
{
    const said_piece *p = &s->piece[i];
    block_stop(m, out);
    m->open = true;
    m->kind = p->kind;
    event_begin("content_block_start", out);
    buf_printf(out, ",\"index\":%d,\"content_block\":{", m->n_block++);
    if (p->kind == SAID_THOUGHT) {
        buf_puts(out, "\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
    } else if (p->kind == SAID_ANSWER) {
        buf_puts(out, "\"type\":\"text\",\"text\":\"\",\"citations\":null}");
    } else {
        buf_printf(out, "\"type\":\"tool_use\",\"id\":\"%s\"", c->call_id[p->call]);
        tr_str(out, "name", said_text(s, i), p->n);
        buf_puts(out, ",\"input\":{},\"caller\":{\"type\":\"direct\"}}");
    }
    event_end(out);
}

static void block_delta(const message_stream *m, const char *type, const char *field, const char *s,
                        size_t n, buf *out)
{
    event_begin("content_block_delta", out);
    buf_printf(out, ",\"index\":%d,\"delta\":{\"type\":\"%s\"", m->n_block - 1, type);
    tr_str(out, field, s, n);
    buf_putc(out, '}');
    event_end(out);
}

static void messages_delta(gen *g, choice *c, const delta *d, buf *out)
{
    message_stream *m = g->own;
    const said *s = &d->said;
    for (int i = 0; i < s->n; i++) {
        const said_piece *p = &s->piece[i];
        const char *text = said_text(s, i);
        if (p->kind == SAID_THOUGHT && !g->p.show_reasoning) continue;
        bool text_kind = p->kind == SAID_THOUGHT || p->kind == SAID_ANSWER;
        if (p->kind == SAID_CALL || (text_kind && (!m->open || m->kind != p->kind)))
            block_start(m, c, s, i, out);
        if (p->kind == SAID_THOUGHT && !omits(g))
            block_delta(m, "thinking_delta", "thinking", text, p->n, out);
        if (p->kind == SAID_ANSWER) block_delta(m, "text_delta", "text", text, p->n, out);
        if (p->kind == SAID_ARGS)
            block_delta(m, "input_json_delta", "partial_json", text, p->n, out);
        if (p->kind == SAID_CALL_END) block_stop(m, out);
    }
}

static void messages_end(gen *g, buf *out)
{
    block_stop(g->own, out);
    event_begin("message_delta", out);
    buf_puts(out, ",\"delta\":{");
    put_stop(g, out);
    buf_puts(out, "},");
    put_usage(g, false, out);
    event_end(out);
    event_begin("message_stop", out);
    event_end(out);
}

static void messages_fail(gen *g, const gen_fault *f, buf *out)
{
    buf_puts(out, "event: error\ndata: ");
    reply_error(out, DIALECT_ANTHROPIC, http_request_id(g->call), f->status, f->type, f->code, NULL,
                f->msg);
    buf_puts(out, "\n\n");
}

static void messages_ping(gen *g, buf *out)
{
    (void)g;
    event_begin("ping", out);
    event_end(out);
}

static const gen_format messages_shape = {.id_prefix = "msg_",
                                          .call_prefix = "toolu_",
                                          .param_prompt = "messages",
                                          .stream_type = SSE_TYPE,
                                          .plain = messages_plain,
                                          .collect = messages_collect,
                                          .begin = messages_begin,
                                          .delta = messages_delta,
                                          .end = messages_end,
                                          .fail = messages_fail,
                                          .ping = messages_ping};

void api_messages(http_call *c)
{
    chat_run(c, messages_translate, messages_names, &messages_shape, sizeof(message_stream));
}

void api_messages_count(http_call *c)
{
    chat_count(c, messages_translate, messages_names, "{\"input_tokens\":", "}");
}
