/* api_chat.c - POST /v1/chat/completions: messages to prompt, and the chat shapes (API C1-C10,
 * G12). Owns nothing of its own.  Thread: prep, then the call's HTTP thread. */
#include "server/api.h"
#include "server/chat_request.h"
#include "server/gen.h"
#include "server/reply.h"

#include <stdlib.h>
#include <string.h>

/* ---- logprobs -------------------------------------------------------------------------------- */

static void put_token(const gen *g, int32_t id, float lp, buf *out)
{
    buf_puts(out, "{\"token\":");
    put_token_text(g, id, out);
    buf_puts(out, ",\"logprob\":");
    put_logprob(lp, out);
    put_token_bytes(g, id, out);
}

static void put_item(const gen *g, const token_info *t, buf *out)
{
    if (out->len) buf_putc(out, ',');
    put_token(g, t->id, t->logprob, out);
    buf_puts(out, ",\"top_logprobs\":[");
    for (int i = 0; i < t->n_top; i++) {
        if (i) buf_putc(out, ',');
        put_token(g, t->top_id[i], t->top_logprob[i], out);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}

void gen_chat_logprobs(const gen *g, const delta *d, int call, buf *content, buf *reasoning)
{
    for (int i = 0; i < d->n_tok; i++) {
        const token_info *t = &d->tok[i];
        if (gen_is_end(g, d, i)) continue;
        if (t->kind == TOK_ANSWER && (call < 0 || t->call == call)) put_item(g, t, content);
        else if (t->kind == TOK_REASONING && g->p.show_reasoning) put_item(g, t, reasoning);
    }
}

static void put_logprobs(const gen *g, const buf *content, const buf *reasoning, buf *out)
{
    if (!g->p.logprobs) {
        buf_puts(out, ",\"logprobs\":null");
        return;
    }
    buf_puts(out, ",\"logprobs\":{\"content\":[");
    buf_put(out, buf_str(content), content->len);
    buf_puts(out, "],\"refusal\":null");
    if (reasoning->len) {
        buf_puts(out, ",\"reasoning_content\":[");
        buf_put(out, reasoning->v, reasoning->len);
        buf_putc(out, ']');
    }
    buf_putc(out, '}');
}

/* R2: the thought under both names, or the one the operator chose. */
static void put_reasoning(const gen *g, const char *s, size_t n, buf *out)
{
    const char *field = g->a->opt->reasoning_field;
    bool both = !strcmp(field, "both");
    if (strcmp(field, "reasoning")) {
        buf_puts(out, "\"reasoning_content\":");
        buf_put_json(out, s, n);
    }
    if (both) buf_putc(out, ',');
    if (strcmp(field, "reasoning_content")) {
        buf_puts(out, "\"reasoning\":");
        buf_put_json(out, s, n);
    }
}

/* ---- plain ----------------------------------------------------------------------------------- */

static void chat_collect(gen *g, choice *c, const delta *d)
{
    if (g->p.logprobs) gen_chat_logprobs(g, d, -1, &c->logprobs, &c->logprobs_reasoning);
}

static bool is_custom(const gen *g, const char *name, size_t n)
{
    int tool = g->tools ? call_tools_find(g->tools, name, n) : -1;
    return tool >= 0 && call_tools_is_custom(g->tools, tool);
}

/* The calls of a choice: every name, then its arguments up to the next (T8, T9, T10). */
static void put_calls(const gen *g, const choice *c, buf *out)
{
    buf args = {0}, input = {0};
    custom_input machine = {0};
    const said *s = &c->said;
    buf_puts(out, ",\"tool_calls\":[");
    for (int i = 0; i < s->n; i++) {
        if (s->piece[i].kind != SAID_CALL) continue;
        int call = s->piece[i].call;
        bool custom = is_custom(g, said_text(s, i), s->piece[i].n);
        buf_reset(&args);
        buf_reset(&input);
        said_args(s, i, &args);
        if (custom) {
            custom_input_feed(&machine, buf_str(&args), args.len, &input);
            custom_input_end(&machine, &input);
        }
        const buf *text = custom ? &input : &args;
        const char *type = custom ? "custom" : "function";
        buf_printf(out, "%s{\"id\":\"%s\",\"type\":\"%s\",\"%s\":{\"name\":", call ? "," : "",
                   c->call_id[call], type, type);
        buf_put_json(out, said_text(s, i), s->piece[i].n);
        buf_printf(out, ",\"%s\":", custom ? "input" : "arguments");
        buf_put_json(out, buf_str(text), text->len);
        buf_puts(out, "}}");
    }
    buf_putc(out, ']');
    if (!buf_ok(&args) || !buf_ok(&input)) out->oom = true;
    buf_clear(&args);
    buf_clear(&input);
}

/* The message of a finished choice.  Its content is null only where there are calls instead. */
static void put_message(gen *g, const choice *c, buf *out)
{
    buf answer = {0}, thought = {0};
    said_copy(&c->said, SAID_ANSWER, &answer);
    if (g->p.show_reasoning) said_copy(&c->said, SAID_THOUGHT, &thought);
    buf_puts(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
    if (c->n_calls && !answer.len) buf_puts(out, "null");
    else buf_put_json(out, buf_str(&answer), answer.len);
    buf_puts(out, ",\"refusal\":null");
    if (thought.len) {
        buf_putc(out, ',');
        put_reasoning(g, thought.v, thought.len, out);
    }
    if (c->n_calls) put_calls(g, c, out);
    buf_putc(out, '}');
    if (!buf_ok(&answer) || !buf_ok(&thought) || !said_ok(&c->said)) out->oom = true;
    buf_clear(&answer);
    buf_clear(&thought);
}

static void chat_plain(gen *g, buf *out)
{
    gen_head(g, "chat.completion", out);
    buf_puts(out, ",\"choices\":[");
    for (int i = 0; i < g->n_choice; i++) {
        choice *c = &g->choice[i];
        if (i) buf_putc(out, ',');
        buf_puts(out, "{\"index\":");
        buf_put_int(out, c->index);
        put_message(g, c, out);
        put_logprobs(g, &c->logprobs, &c->logprobs_reasoning, out);
        gen_finish(g, c, out);
        if (g->p.return_token_ids) {
            buf_puts(out, ",\"token_ids\":[");
            buf_put(out, buf_str(&c->ids), c->ids.len);
            buf_putc(out, ']');
        }
        buf_putc(out, '}');
        if (!buf_ok(&c->logprobs) || !buf_ok(&c->ids)) out->oom = true;
    }
    buf_puts(out, "],\"usage\":");
    gen_usage(g, out);
    if (g->p.return_token_ids) {
        buf_puts(out, ",\"prompt_token_ids\":[");
        gen_ids(g->prompt[0].v, g->prompt[0].n, out);
        buf_putc(out, ']');
    }
    gen_prompt_logprobs(g, 0, out);
    buf_puts(out, ",\"service_tier\":\"default\"");
    gen_timings(g, out);
    gen_last(g, out);
    buf_putc(out, '}');
}

/* ---- stream ---------------------------------------------------------------------------------- */

static void chunk_begin(gen *g, const choice *c, buf *out)
{
    sse_begin(out);
    gen_head(g, "chat.completion.chunk", out);
    buf_puts(out, ",\"choices\":[{\"index\":");
    buf_put_int(out, c->index);
    buf_puts(out, ",\"delta\":{");
}

/* Closes the choices array; last: no choice says more after this chunk. */
static void chunk_end(gen *g, bool last, buf *out)
{
    buf_puts(out, "}]");
    gen_chunk_tail(g, last, out);
}

static void chat_open(gen *g, choice *c, buf *out)
{
    chunk_begin(g, c, out);
    buf_puts(out,
             "\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null");
    chunk_end(g, false, out);
    if (g->p.return_token_ids && !c->index) {
        buf_puts(out, ",\"prompt_token_ids\":[");
        gen_ids(g->prompt[0].v, g->prompt[0].n, out);
        buf_putc(out, ']');
    }
    buf_putc(out, '}');
    sse_end(out);
}

static void put_chunk_ids(gen *g, const delta *d, bool *sent, buf *out)
{
    if (!g->p.return_token_ids || *sent) return;
    buf ids = {0};
    gen_delta_ids(d, &ids);
    buf_puts(out, ",\"token_ids\":[");
    buf_put(out, buf_str(&ids), ids.len);
    buf_putc(out, ']');
    buf_clear(&ids);
    *sent = true;
}

/* Ends a delta's object and its chunk; logprobs are null where it has none (C10), ids ride on the
 * first chunk of a delta. */
static void chunk_close(gen *g, const delta *d, const buf *lp, const buf *lp_thought, bool *sent,
                        buf *out)
{
    buf_putc(out, '}');
    if (lp->len || lp_thought->len) put_logprobs(g, lp, lp_thought, out);
    else buf_puts(out, ",\"logprobs\":null");
    buf_puts(out, ",\"finish_reason\":null");
    put_chunk_ids(g, d, sent, out);
    chunk_end(g, false, out);
    buf_putc(out, '}');
    sse_end(out);
}

static void chat_progress(gen *g, choice *c, int64_t done, buf *out)
{
    chunk_begin(g, c, out);
    buf_puts(out, "},\"logprobs\":null,\"finish_reason\":null");
    chunk_end(g, false, out);
    buf_puts(out, ",\"prompt_progress\":");
    gen_progress(g, c->prompt, done, out);
    buf_putc(out, '}');
    sse_end(out);
}

/* The delta object of one piece, still open. */
static void put_piece(gen *g, const choice *c, const said *s, int i, buf *out)
{
    const said_piece *p = &s->piece[i];
    if (p->kind == SAID_THOUGHT) {
        put_reasoning(g, said_text(s, i), p->n, out);
    } else if (p->kind == SAID_ANSWER) {
        buf_puts(out, "\"content\":");
        buf_put_json(out, said_text(s, i), p->n);
    } else if (p->kind == SAID_CALL) {
        bool custom = is_custom(g, said_text(s, i), p->n);
        const char *type = custom ? "custom" : "function";
        buf_printf(out,
                   "\"tool_calls\":[{\"index\":%d,\"id\":\"%s\",\"type\":\"%s\",\"%s\":{\"name\":",
                   p->call, c->call_id[p->call], type, type);
        buf_put_json(out, said_text(s, i), p->n);
        buf_printf(out, ",\"%s\":\"\"}}]", custom ? "input" : "arguments");
    } else {
        buf_printf(out, "\"tool_calls\":[{\"index\":%d,\"function\":{\"arguments\":", p->call);
        buf_put_json(out, said_text(s, i), p->n);
        buf_puts(out, "}}]");
    }
}

/* More of the input of the custom tool's call at hand; piece NULL: its end. */
static void put_input(gen *g, choice *c, const delta *d, const said_piece *piece, bool *sent,
                      buf *out)
{
    static const buf none;
    buf text = {0};
    if (piece) custom_input_feed(&c->input, d->said.text.v + piece->at, piece->n, &text);
    else custom_input_end(&c->input, &text);
    if (text.len) {
        chunk_begin(g, c, out);
        buf_printf(out, "\"tool_calls\":[{\"index\":%d,\"custom\":{\"input\":", c->custom_call - 1);
        buf_put_json(out, text.v, text.len);
        buf_puts(out, "}}]");
        chunk_close(g, d, &none, &none, sent, out);
    }
    if (!piece) c->custom_call = 0;
    if (!buf_ok(&text)) out->oom = true;
    buf_clear(&text);
}

/* Logprobs go with the text of their kind. */
static void put_pieces(gen *g, choice *c, const delta *d, buf *lp, buf *lp_thought, bool *sent,
                       buf *out)
{
    static const buf none;
    for (int i = 0; i < d->said.n; i++) {
        const said_piece *p = &d->said.piece[i];
        said_kind kind = p->kind;
        if (c->custom_call) {
            bool more = kind == SAID_ARGS;
            put_input(g, c, d, more ? p : NULL, sent, out);
            if (more) continue;
        }
        if (kind == SAID_CALL_END || (kind == SAID_THOUGHT && !g->p.show_reasoning)) continue;
        if (kind == SAID_CALL && is_custom(g, said_text(&d->said, i), p->n))
            c->custom_call = p->call + 1;
        buf *mine = kind == SAID_THOUGHT ? lp_thought : lp;
        bool text = kind == SAID_THOUGHT || kind == SAID_ANSWER;
        chunk_begin(g, c, out);
        put_piece(g, c, &d->said, i, out);
        chunk_close(g, d, text && mine == lp ? lp : &none,
                    text && mine == lp_thought ? lp_thought : &none, sent, out);
        if (text) buf_reset(mine);
    }
    if (d->finish != FINISH_NONE && c->custom_call) put_input(g, c, d, NULL, sent, out);
}

static void chat_delta(gen *g, choice *c, const delta *d, buf *out)
{
    buf lp = {0}, lp_thought = {0};
    bool sent = d->n_tok == 0;
    if (g->p.logprobs) gen_chat_logprobs(g, d, -1, &lp, &lp_thought);
    put_pieces(g, c, d, &lp, &lp_thought, &sent, out);
    /* Tokens whose text is still held back have logprobs and ids all the same. */
    if (lp.len || lp_thought.len || (g->p.return_token_ids && !sent && d->finish == FINISH_NONE)) {
        chunk_begin(g, c, out);
        buf_puts(out, "\"content\":\"\"");
        chunk_close(g, d, &lp, &lp_thought, &sent, out);
    }
    if (d->finish != FINISH_NONE) {
        chunk_begin(g, c, out);
        buf_puts(out, "},\"logprobs\":null");
        gen_finish(g, c, out);
        put_chunk_ids(g, d, &sent, out);
        chunk_end(g, gen_all_done(g), out);
        buf_putc(out, '}');
        sse_end(out);
    }
    buf_clear(&lp);
    buf_clear(&lp_thought);
}

static void chat_end(gen *g, buf *out)
{
    if (!g->p.include_usage) {
        sse_done(out);
        return;
    }
    sse_begin(out);
    gen_head(g, "chat.completion.chunk", out);
    buf_puts(out, ",\"choices\":[],\"usage\":");
    gen_usage(g, out);
    if (g->p.timings_per_token) gen_timings(g, out);
    gen_last(g, out);
    buf_putc(out, '}');
    sse_end(out);
    sse_done(out);
}

static const gen_format chat_shape = {.id_prefix = "chatcmpl-",
                                      .call_prefix = "call_",
                                      .param_prompt = "messages",
                                      .stream_type = SSE_TYPE,
                                      .room = ROOM_TIMINGS | ROOM_PROMPT_LOGPROBS | ROOM_TOKEN_IDS,
                                      .plain = chat_plain,
                                      .collect = chat_collect,
                                      .open = chat_open,
                                      .delta = chat_delta,
                                      .progress = chat_progress,
                                      .end = chat_end,
                                      .fail = gen_sse_fail,
                                      .ping = gen_sse_ping};

void api_chat(http_call *c)
{
    chat_run(c, NULL, NULL, &chat_shape, 0);
}

void api_chat_count(http_call *c)
{
    chat_count(c, NULL, NULL, "{\"object\":\"response.input_tokens\",\"input_tokens\":", "}");
}
