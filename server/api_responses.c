/* api_responses.c - POST /v1/responses and its count: OpenAI's Responses, plain and as typed events
 * (API X5-X13).  A plain reply is made by the same machine as a stream, its events thrown away, so
 * both list the same items.  Owns a responses_reply per call.  Thread: prep, then the call's HTTP
 * thread. */
#include "server/api.h"
#include "server/chat_request.h"
#include "server/gen.h"
#include "server/reply.h"
#include "server/responses_object.h"
#include "server/responses_request.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t seq; /* of the next event */
    bool open;   /* an item is */
    said_kind kind;
    bool custom, summary, sealed; /* of the open item; of the request */
    custom_input input;           /* of the open item */
    bool ready;                   /* the switches above were read */
    bool answered;                /* a message or a call was begun */
    int n_calls;                  /* begun */
    char id[48];                  /* of the open item */
    const char *call_id;
    buf name,
        text; /* of the open item: a call's name; thought, answer, arguments or input so far */
    buf lp, lp_new; /* logprobs of the open message; those no event has carried */
} responses_reply;

static bool asks_for(const json *body, const char *what)
{
    const json *list = json_get(body, "include");
    for (const json *j = json_is(list, JSON_ARRAY) ? list->child : NULL; j; j = j->next)
        if (tr_is(j, what)) return true;
    return false;
}

static responses_reply *reply_of(const gen *g)
{
    responses_reply *o = g->own;
    const json *summary = json_get(json_get(g->sent, "reasoning"), "summary");
    if (o->ready) return o;
    o->ready = true;
    o->summary = json_is(summary, JSON_STRING) && !tr_is(summary, "none");
    o->sealed = asks_for(g->sent, "reasoning.encrypted_content");
    return o;
}

static void put_object(const gen *g, const char *status, const char *error, buf *out)
{
    const json *b = g->sent, *user = json_get(b, "user"), *store = json_get(b, "store");
    const json *reasoning = json_get(b, "reasoning"), *effort = json_get(b, "reasoning_effort");
    bool ended = !error && strcmp(status, "in_progress") != 0;
    response_echo e = {.instructions = json_get(b, "instructions"),
                       .previous = json_get(b, "previous_response_id"),
                       .max_output = json_get(b, "max_output_tokens"),
                       .max_calls = json_get(b, "max_tool_calls"),
                       .metadata = json_get(b, "metadata"),
                       .user = json_is(user, JSON_STRING) ? user : NULL,
                       .text = json_get(b, "text"),
                       .tool_choice = json_get(b, "tool_choice"),
                       .tools = json_get(b, "tools"),
                       .summary = json_get(reasoning, "summary"),
                       .effort = effort && effort->type != JSON_NULL
                                     ? effort
                                     : json_get(reasoning, "effort"), /* R3: the first counts */
                       .truncation = json_get(b, "truncation"),
                       .top_logprobs = json_get(b, "top_logprobs"),
                       .store = !json_is(store, JSON_FALSE) && response_store_on(g->a->responses)};
    response_state s = {
        .status = status, .error = error, .completed = ended ? clock_unix() : 0, .talk = g->talk};
    response_put_object(g, &e, &s, out);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void event_begin(responses_reply *o, const char *type, buf *out)
{
    buf_printf(out, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%lld", type, type,
               (long long)o->seq++);
}

static void event_end(buf *out)
{
    buf_puts(out, "}\n\n");
}

static int output_index(const gen *g)
{
    return g->talk->n - g->talk->n_history - g->talk->n_input;
}

/* Begins an event about the open item. */
static void item_event(const gen *g, const char *type, buf *out)
{
    responses_reply *o = g->own;
    event_begin(o, type, out);
    buf_printf(out, ",\"item_id\":\"%s\",\"output_index\":%d", o->id, output_index(g));
}

/* The same about its one part. */
static void part_event(const gen *g, const char *type, buf *out)
{
    const responses_reply *o = g->own;
    item_event(g, type, out);
    bool summary = o->kind == SAID_THOUGHT && o->summary;
    buf_printf(out, ",\"%s_index\":0", summary ? "summary" : "content");
}

static void put_part(const responses_reply *o, const char *s, size_t n, const buf *lp, buf *out)
{
    const char *type = o->kind == SAID_ANSWER ? "output_text"
                       : o->summary           ? "summary_text"
                                              : "reasoning_text";
    buf_printf(out, "{\"type\":\"%s\"", type);
    tr_str(out, "text", s, n);
    if (o->kind == SAID_ANSWER)
        buf_printf(out, ",\"annotations\":[],\"logprobs\":[%s]", lp ? buf_str(lp) : "");
    buf_putc(out, '}');
}

/* ---- items (X6) ------------------------------------------------------------------------------ */

/* The open item; its text and logprobs only once it is done. */
static void put_item(const gen *g, const char *status, bool done, buf *out)
{
    const responses_reply *o = g->own;
    const char *text = done ? buf_str(&o->text) : "";
    size_t n = done ? o->text.len : 0;
    if (o->kind == SAID_THOUGHT) {
        buf_printf(out, "{\"type\":\"reasoning\",\"id\":\"%s\",\"summary\":[", o->id);
        if (done && o->summary) {
            buf_puts(out, "{\"type\":\"summary_text\"");
            tr_str(out, "text", text, n);
            buf_putc(out, '}');
        }
        buf_puts(out, "],\"content\":[");
        if (done) {
            buf_puts(out, "{\"type\":\"reasoning_text\"");
            tr_str(out, "text", text, n);
            buf_putc(out, '}');
        }
        buf_putc(out, ']');
        if (done && o->sealed) {
            buf_puts(out, ",\"encrypted_content\":\"");
            thought_seal(text, n, out);
            buf_putc(out, '"');
        }
    } else if (o->kind == SAID_ANSWER) {
        buf_printf(out, "{\"type\":\"message\",\"id\":\"%s\",\"role\":\"assistant\",\"content\":[",
                   o->id);
        if (done) put_part(o, text, n, &o->lp, out);
        buf_putc(out, ']');
    } else {
        buf_printf(out, "{\"type\":\"%s\",\"id\":\"%s\",\"call_id\":\"%s\"",
                   o->custom ? "custom_tool_call" : "function_call", o->id, o->call_id);
        tr_str(out, "name", buf_str(&o->name), o->name.len);
        tr_str(out, o->custom ? "input" : "arguments", text, n);
    }
    buf_printf(out, ",\"status\":\"%s\"}", status);
}

static void item_open(gen *g, said_kind kind, buf *out)
{
    responses_reply *o = reply_of(g);
    o->open = true;
    o->kind = kind;
    o->answered |= kind != SAID_THOUGHT;
    reply_id(o->id, sizeof o->id,
             kind == SAID_THOUGHT  ? "rs_"
             : kind == SAID_ANSWER ? "msg_"
             : o->custom           ? "ctc_"
                                   : "fc_");
    event_begin(o, "response.output_item.added", out);
    buf_printf(out, ",\"output_index\":%d,\"item\":", output_index(g));
    put_item(g, "in_progress", false, out);
    event_end(out);
    if (kind == SAID_CALL) return;
    bool summary = kind == SAID_THOUGHT && o->summary;
    part_event(g, summary ? "response.reasoning_summary_part.added" : "response.content_part.added",
               out);
    buf_puts(out, ",\"part\":");
    put_part(o, "", 0, NULL, out);
    event_end(out);
}

/* A piece of the open item's text. */
static void item_delta(gen *g, const char *s, size_t n, buf *out)
{
    responses_reply *o = g->own;
    buf_put(&o->text, s, n);
    if (o->kind == SAID_CALL) {
        item_event(g,
                   o->custom ? "response.custom_tool_call_input.delta"
                             : "response.function_call_arguments.delta",
                   out);
    } else {
        part_event(g,
                   o->kind == SAID_ANSWER ? "response.output_text.delta"
                   : o->summary           ? "response.reasoning_summary_text.delta"
                                          : "response.reasoning_text.delta",
                   out);
    }
    tr_str(out, "delta", s, n);
    if (o->kind == SAID_ANSWER) {
        buf_printf(out, ",\"logprobs\":[%s]", buf_str(&o->lp_new));
        if (o->lp.len && o->lp_new.len) buf_putc(&o->lp, ',');
        buf_put(&o->lp, buf_str(&o->lp_new), o->lp_new.len);
        buf_reset(&o->lp_new);
    }
    event_end(out);
}

/* More of a custom tool's input; s NULL: its end. */
static void input_delta(gen *g, const char *s, size_t n, buf *out)
{
    responses_reply *o = g->own;
    buf text = {0};
    if (s) custom_input_feed(&o->input, s, n, &text);
    else custom_input_end(&o->input, &text);
    if (text.len) item_delta(g, text.v, text.len, out);
    if (!buf_ok(&text)) out->oom = true;
    buf_clear(&text);
}

static void call_done(gen *g, buf *out)
{
    responses_reply *o = g->own;
    if (o->custom) input_delta(g, NULL, 0, out);
    item_event(g,
               o->custom ? "response.custom_tool_call_input.done"
                         : "response.function_call_arguments.done",
               out);
    tr_str(out, "name", buf_str(&o->name), o->name.len);
    tr_str(out, o->custom ? "input" : "arguments", buf_str(&o->text), o->text.len);
    event_end(out);
}

static void part_done(gen *g, buf *out)
{
    responses_reply *o = g->own;
    bool answer = o->kind == SAID_ANSWER, summary = !answer && o->summary;
    if (answer && o->lp_new.len) {
        if (o->lp.len) buf_putc(&o->lp, ',');
        buf_put(&o->lp, o->lp_new.v, o->lp_new.len);
        buf_reset(&o->lp_new);
    }
    part_event(g,
               answer    ? "response.output_text.done"
               : summary ? "response.reasoning_summary_text.done"
                         : "response.reasoning_text.done",
               out);
    tr_str(out, "text", buf_str(&o->text), o->text.len);
    if (answer) buf_printf(out, ",\"logprobs\":[%s]", buf_str(&o->lp));
    event_end(out);
    part_event(g, summary ? "response.reasoning_summary_part.done" : "response.content_part.done",
               out);
    buf_puts(out, ",\"part\":");
    put_part(o, buf_str(&o->text), o->text.len, &o->lp, out);
    event_end(out);
}

/* The open item is said to be done and joins the output. */
static void item_close(gen *g, const char *status, buf *out)
{
    responses_reply *o = g->own;
    if (!o->open) return;
    if (o->kind == SAID_CALL) call_done(g, out);
    else part_done(g, out);
    event_begin(o, "response.output_item.done", out);
    buf_printf(out, ",\"output_index\":%d,\"item\":", output_index(g));
    put_item(g, status, true, out);
    event_end(out);
    put_item(g, status, true, conversation_begin(g->talk));
    conversation_end(g->talk, o->id);
    buf *all[] = {&o->name, &o->text, &o->lp};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!buf_ok(all[i])) g->talk->oom = true;
        buf_reset(all[i]);
    }
    o->open = false;
}

/* Logprobs of the answer's tokens wait for the text that shows them: that before, between or behind
 * the calls, wherever the tokens came. */
static void take_logprobs(const gen *g, const delta *d)
{
    responses_reply *o = g->own;
    buf lp = {0}, thought = {0};
    if (!g->p.logprobs) return;
    gen_chat_logprobs(g, d, o->n_calls, &lp, &thought);
    if (lp.len && o->lp_new.len) buf_putc(&o->lp_new, ',');
    buf_put(&o->lp_new, buf_str(&lp), lp.len);
    if (!buf_ok(&lp)) o->lp_new.oom = true;
    buf_clear(&lp);
    buf_clear(&thought);
}

static void take_piece(gen *g, const choice *c, const delta *d, int i, buf *out)
{
    responses_reply *o = g->own;
    const said *s = &d->said;
    const said_piece *p = &s->piece[i];
    const char *text = said_text(s, i);
    if (p->kind == SAID_CALL_END) {
        item_close(g, "completed", out);
    } else if (p->kind == SAID_CALL) {
        item_close(g, o->kind == SAID_CALL ? "incomplete" : "completed", out);
        buf_reset(&o->lp_new);
        o->n_calls++;
        take_logprobs(g, d);
        int tool = call_tools_find(g->tools, text, p->n);
        o->custom = tool >= 0 && call_tools_is_custom(g->tools, tool);
        o->call_id = c->call_id[p->call];
        buf_put(&o->name, text, p->n);
        item_open(g, SAID_CALL, out);
    } else if (p->kind == SAID_ARGS) {
        if (o->custom) input_delta(g, text, p->n, out);
        else item_delta(g, text, p->n, out);
    } else if (p->kind == SAID_ANSWER || g->p.show_reasoning) {
        if (o->open && o->kind != p->kind)
            item_close(g, o->kind == SAID_CALL ? "incomplete" : "completed", out);
        if (!o->open) item_open(g, p->kind, out);
        item_delta(g, text, p->n, out);
    }
}

static void responses_delta(gen *g, choice *c, const delta *d, buf *out)
{
    reply_of(g);
    take_logprobs(g, d);
    for (int i = 0; i < d->said.n; i++) take_piece(g, c, d, i, out);
}

/* What is still open ends with the reply; an answer of nothing is a message all the same. */
static const char *finish(gen *g, buf *out)
{
    responses_reply *o = reply_of(g);
    const choice *c = &g->choice[0];
    const char *status = response_status(c);
    bool cut = o->open && (o->kind == SAID_CALL || c->finish == FINISH_LENGTH);
    item_close(g, cut ? "incomplete" : "completed", out);
    if (!o->answered && c->finish != FINISH_LENGTH) {
        item_open(g, SAID_ANSWER, out);
        item_close(g, "completed", out);
    }
    return status;
}

/* The finished object, kept if that was asked for. */
static void put_final(gen *g, const char *status, buf *out)
{
    buf object = {0};
    put_object(g, status, NULL, &object);
    if (!json_is(json_get(g->sent, "store"), JSON_FALSE)) response_keep(g, &object);
    buf_put(out, buf_str(&object), object.len);
    if (!buf_ok(&object)) out->oom = true;
    buf_clear(&object);
}

static void responses_collect(gen *g, choice *c, const delta *d)
{
    buf events = {0};
    responses_delta(g, c, d, &events);
    if (!buf_ok(&events)) c->said.oom = true;
    buf_clear(&events);
}

static void responses_plain(gen *g, buf *out)
{
    buf events = {0};
    const char *status = finish(g, &events);
    put_final(g, status, out);
    if (!buf_ok(&events) || !said_ok(&g->choice[0].said)) out->oom = true;
    buf_clear(&events);
}

static void responses_begin(gen *g, buf *out)
{
    static const char *const first[] = {"response.created", "response.in_progress"};
    responses_reply *o = reply_of(g);
    for (int i = 0; i < 2; i++) {
        event_begin(o, first[i], out);
        buf_puts(out, ",\"response\":");
        put_object(g, "in_progress", NULL, out);
        event_end(out);
    }
}

static void responses_end(gen *g, buf *out)
{
    const char *status = finish(g, out);
    char type[48] = "response.";
    strcat(type, status);
    event_begin(g->own, type, out);
    buf_puts(out, ",\"response\":");
    put_final(g, status, out);
    event_end(out);
    sse_done(out);
}

/* What was begun is told as far as it came (X9, X12). */
static void responses_fail(gen *g, const gen_fault *f, buf *out)
{
    item_close(g, "incomplete", out);
    event_begin(g->own, "response.failed", out);
    buf_puts(out, ",\"response\":");
    put_object(g, "failed", f->msg, out);
    event_end(out);
    sse_done(out);
}

static void responses_drop(gen *g)
{
    responses_reply *o = g->own;
    if (!o) return;
    buf_clear(&o->name);
    buf_clear(&o->text);
    buf_clear(&o->lp);
    buf_clear(&o->lp_new);
    custom_input_clear(&o->input);
}

static const gen_format responses_shape = {.id_prefix = "resp_",
                                           .call_prefix = "call_",
                                           .param_prompt = "input",
                                           .stream_type = SSE_TYPE,
                                           .plain = responses_plain,
                                           .collect = responses_collect,
                                           .begin = responses_begin,
                                           .delta = responses_delta,
                                           .end = responses_end,
                                           .fail = responses_fail,
                                           .ping = gen_sse_ping,
                                           .drop = responses_drop};

void api_responses(http_call *c)
{
    chat_run(c, responses_translate, responses_names, &responses_shape, sizeof(responses_reply));
}

void api_responses_count(http_call *c)
{
    chat_count(c, responses_translate, responses_names,
               "{\"object\":\"response.input_tokens\",\"input_tokens\":", "}");
}
