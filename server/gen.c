/* gen.c - life of a generation reply; see gen.h.  Owns the gen, its requests and the document. */
#include "server/gen.h"

#include "base/clock.h"
#include "engine/grammar/grammar.h"
#include "server/metrics.h"
#include "server/reply.h"
#include "server/submit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gen *gen_new(reader *r, params *p, const gen_format *f, int n_prompt)
{
    gen *g = calloc(1, sizeof *g);
    if (!g) return NULL;
    g->a = r->a;
    g->call = r->call;
    g->format = f;
    g->p = *p;
    *p = (params){0};
    g->doc = r->doc;
    g->body = r->body;
    g->source = r->source;
    g->sent = r->sent;
    g->talk = r->talk;
    r->doc = r->source = NULL;
    r->talk = NULL;
    g->n_prompt = n_prompt;
    g->n_choice = n_prompt * g->p.n;
    g->prompt = calloc((size_t)n_prompt, sizeof *g->prompt);
    g->req = calloc((size_t)n_prompt, sizeof *g->req);
    g->choice = calloc((size_t)g->n_choice, sizeof *g->choice);
    g->told = malloc((size_t)n_prompt * sizeof *g->told);
    if (g->p.prompt_logprobs >= 0) g->prompt_lp = calloc((size_t)n_prompt, sizeof *g->prompt_lp);
    bool whole = g->prompt && g->req && g->choice && g->told;
    for (int i = 0; g->told && i < n_prompt; i++) g->told[i] = -1;
    if (!whole || (g->p.prompt_logprobs >= 0 && !g->prompt_lp)) {
        gen_free(g);
        return NULL;
    }
    for (int i = 0; i < g->n_choice; i++) {
        g->choice[i].index = i;
        g->choice[i].prompt = i / g->p.n;
        g->choice[i].stop_index = -1;
        g->choice[i].stop_id = -1;
    }
    reply_id(g->id, sizeof g->id, f->id_prefix);
    g->created = clock_unix();
    return g;
}

void gen_free(gen *g)
{
    if (!g) return;
    if (g->format->drop) g->format->drop(g);
    for (int i = 0; i < g->n_prompt; i++) {
        if (g->req && g->req[i]) request_release(g->req[i]);
        if (g->prompt) token_list_clear(&g->prompt[i]);
        if (g->prompt_text) buf_clear(&g->prompt_text[i]);
        if (g->prompt_lp) buf_clear(&g->prompt_lp[i]);
    }
    for (int i = 0; g->choice && i < g->n_choice; i++) {
        choice *c = &g->choice[i];
        buf *b[] = {&c->logprobs, &c->logprobs_reasoning, &c->lp_token, &c->lp_value,
                    &c->lp_top,   &c->lp_offset,          &c->ids};
        said_clear(&c->said);
        custom_input_clear(&c->input);
        free(c->call_id);
        for (size_t k = 0; k < sizeof b / sizeof *b; k++) buf_clear(b[k]);
    }
    for (int i = 0; i < g->n_held; i++) delta_free(g->held[i].head);
    free(g->held);
    free(g->prompt);
    free(g->prompt_text);
    free(g->prompt_lp);
    free(g->told);
    free(g->fim_end);
    said_clear(&g->continued);
    free(g->req);
    free(g->choice);
    free(g->own);
    call_tools_put(g->tools);
    grammar_release(g->grammar);
    params_clear(&g->p);
    json_free(g->doc);
    json_free(g->source);
    conversation_free(g->talk);
    free(g);
}

/* ---- taking deltas --------------------------------------------------------------------------- */

static choice *choice_of(gen *g, int req, const delta *d)
{
    return &g->choice[req * g->p.n + d->index];
}

static void note_finish(gen *g, choice *c, const delta *d)
{
    if (d->finish == FINISH_NONE || c->finish != FINISH_NONE) return;
    c->finish = d->finish;
    c->stop_index = d->stop_index;
    c->stop_id = d->stop_id;
    g->n_finished++;
    metrics_tool_calls(g->calls, c->n_whole, c->n_calls - c->n_whole);
    if (d->finish == FINISH_ERROR && !g->error) g->error = d->error ? d->error : ERR_DEVICE;
    if (d->finish == FINISH_ABORT && !g->error) g->error = ERR_CANCELLED;
}

/* Calls get their ids when they begin. */
static void note_calls(gen *g, choice *c, const delta *d)
{
    for (int i = 0; i < d->said.n; i++) {
        c->n_whole += d->said.piece[i].kind == SAID_CALL_END;
        if (d->said.piece[i].kind != SAID_CALL) continue;
        void *v = realloc(c->call_id, (size_t)(c->n_calls + 1) * sizeof *c->call_id);
        if (!v) {
            g->error = ERR_NOMEM;
            return;
        }
        c->call_id = v;
        reply_id(c->call_id[c->n_calls++], sizeof *c->call_id, g->format->call_prefix);
    }
}

static void note_tokens(choice *c, const delta *d)
{
    c->n_tok += d->n_tok;
    for (int i = 0; i < d->n_tok; i++) c->lp_sum += (double)d->tok[i].logprob;
}

/* Plain replies: everything is folded into the choices as it comes. */
static void collect_all(gen *g)
{
    for (int i = 0; i < g->n_prompt; i++) {
        delta *list = request_take(g->req[i]);
        for (const delta *d = list; d; d = d->next) {
            choice *c = choice_of(g, i, d);
            note_calls(g, c, d);
            note_tokens(c, d);
            if (!said_join(&c->said, &d->said)) c->said.oom = true;
            if (g->prompt_lp) gen_collect_prompt(g, i, d);
            g->format->collect(g, c, d);
            if (g->p.return_token_ids) gen_delta_ids(d, &c->ids);
            note_finish(g, c, d);
        }
        delta_free(list);
    }
}

/* Streams before their first byte: kept until the status is decided (H13). */
static bool hold(gen *g, bool *scheduled)
{
    for (int i = 0; i < g->n_prompt; i++) {
        if (request_usage(g->req[i]).scheduled) *scheduled = true;
        delta *list = request_take(g->req[i]);
        if (!list) continue;
        for (const delta *d = list; d; d = d->next)
            if (d->finish == FINISH_ERROR && !g->error) g->error = d->error ? d->error : ERR_DEVICE;
        if (g->n_held == g->cap_held) {
            int cap = g->cap_held ? g->cap_held * 2 : 8;
            void *v = realloc(g->held, sizeof *g->held * (size_t)cap);
            if (!v) {
                delta_free(list);
                g->error = ERR_NOMEM;
                return false;
            }
            g->held = v;
            g->cap_held = cap;
        }
        g->held[g->n_held].head = list;
        g->held[g->n_held++].req = i;
    }
    return !g->error;
}

static void cancel_all(gen *g)
{
    for (int i = 0; i < g->n_prompt; i++)
        if (g->req[i]) request_cancel(g->req[i]);
}

/* ---- the waiter ------------------------------------------------------------------------------ */

static void fail_plain(gen *g)
{
    cancel_all(g);
    submit_late(g->call, g->error);
}

static void on_step(void *ctx, http_call *call, bool tick)
{
    gen *g = ctx;
    if (g->p.stream) {
        bool scheduled = tick;
        if (!hold(g, &scheduled)) fail_plain(g);
        else if (g->n_held || scheduled) http_stream(call, g->format->stream_type);
        return;
    }
    collect_all(g);
    if (g->error) {
        fail_plain(g);
    } else if (gen_all_done(g)) {
        buf out = {0};
        g->format->plain(g, &out);
        if (buf_ok(&out)) {
            http_reply(call, 200, "application/json", &out);
        } else {
            buf_clear(&out);
            g->error = ERR_NOMEM;
            fail_plain(g);
        }
    }
}

static void stream_error(gen *g, buf *out)
{
    gen_fault w = submit_fault(g->error);
    cancel_all(g);
    http_set_code(g->call, w.code);
    g->format->fail(g, &w, out);
}

/* The text in front of a choice's own. */
static void write_continued(gen *g, choice *c, buf *out)
{
    delta d = {.index = c->index % g->p.n, .said = g->continued, .stop_index = -1, .stop_id = -1};
    if (g->continued.n) g->format->delta(g, c, &d, out);
}

/* How far the prompt has come: from what was cached to all of it, before the first text. */
static void write_progress(gen *g, int req, buf *out)
{
    choice *c = &g->choice[req * g->p.n];
    request_stats u = request_usage(g->req[req]);
    if (!g->p.return_progress || !g->format->progress || !u.scheduled) return;
    if (g->told[req] < 0) g->format->progress(g, c, g->told[req] = u.n_cached, out);
    if (u.n_computed <= g->told[req]) return;
    g->told[req] = u.n_computed;
    g->format->progress(g, c, u.n_computed, out);
}

static void write_list(gen *g, int req, const delta *list, buf *out)
{
    for (const delta *d = list; d && !g->error; d = d->next) {
        choice *c = choice_of(g, req, d);
        note_calls(g, c, d);
        note_finish(g, c, d);
        if (g->error) break;
        bool first = !c->opened;
        c->opened = true;
        if (first && g->format->open) g->format->open(g, c, out);
        if (c->index % g->p.n == 0) write_progress(g, req, out);
        if (first) write_continued(g, c, out);
        note_tokens(c, d);
        g->format->delta(g, c, d, out);
    }
}

static int on_fill(void *ctx, http_call *call, buf *out, bool tick)
{
    gen *g = ctx;
    (void)call;
    size_t before = out->len;
    if (!g->begun && g->format->begin) g->format->begin(g, out);
    g->begun = true;
    for (int i = 0; i < g->n_held; i++) {
        write_list(g, g->held[i].req, g->held[i].head, out);
        delta_free(g->held[i].head);
    }
    g->n_held = 0;
    for (int i = 0; i < g->n_prompt && !g->error; i++) {
        delta *list = request_take(g->req[i]);
        write_list(g, i, list, out);
        delta_free(list);
    }
    if (g->error) {
        stream_error(g, out);
        return HTTP_END;
    }
    if (gen_all_done(g)) {
        g->format->end(g, out);
        return HTTP_END;
    }
    if (tick && out->len == before) g->format->ping(g, out);
    return HTTP_MORE;
}

static void on_gone(void *ctx)
{
    cancel_all(ctx);
}

/* Prompts are paid for when they are accepted, the rest at the end. */
static void spend_prompts(const gen *g)
{
    http_usage u = {0};
    for (int i = 0; i < g->n_prompt; i++) u.prompt += (int64_t)g->prompt[i].n;
    http_spend(g->call, &u);
}

static void spend_rest(const gen *g)
{
    http_usage u = {0};
    int64_t arrival = http_arrival_us(g->call);
    for (int i = 0; i < g->n_prompt; i++) {
        request_stats st = request_usage(g->req[i]);
        u.cached += st.n_cached;
        u.generated += st.n_generated;
        u.reasoning += st.n_reasoning;
        if (i == 0 && st.scheduled_us) u.queue_us = st.scheduled_us - arrival;
        if (i == 0 && st.first_token_us) u.first_us = st.first_token_us - arrival;
    }
    http_spend(g->call, &u);
}

static void on_release(void *ctx)
{
    spend_rest(ctx);
    gen_free(ctx);
}

static const http_waiter waiter = {on_step, on_fill, on_gone, on_release};

static void on_news(void *call)
{
    http_wake(call);
}

/* Asked for, and the shape has no place for it. */
static void list_roomless(const gen *g, reader *r)
{
    const struct {
        bool asked, room;
        const char *name;
    } field[] = {
        {g->p.timings_per_token, g->format->room & ROOM_TIMINGS, "timings_per_token"},
        {g->p.return_progress, g->format->progress != NULL, "return_progress"},
        {g->p.prompt_logprobs >= 0, g->format->room & ROOM_PROMPT_LOGPROBS, "prompt_logprobs"},
        {g->p.return_token_ids, g->format->room & ROOM_TOKEN_IDS, "return_token_ids"}};
    for (size_t i = 0; i < sizeof field / sizeof *field; i++)
        if (field[i].asked && !field[i].room)
            reader_ignore(r, field[i].name, strlen(field[i].name));
}

static void refuse(const gen *g, int rc, const err *e)
{
    const char *field = g->p.form.field[0] ? g->p.form.field : "tools";
    if (rc == ERR_UNSUPPORTED && g->grammar)
        reply_fail(g->call, 400, "invalid_request_error", "grammar_too_complex", field, "'%s': %s",
                   field, e->msg);
    else submit_failed(g->call, g->format->param_prompt, rc, e);
}

static void submit_all(gen *g, reader *r)
{
    int64_t smallest = 0;
    char salt[SUBMIT_SALT];
    const char *use_salt = submit_salt(g->call, g->p.cache_salt, salt);
    bool progress = g->p.stream && g->p.return_progress && g->format->progress;
    if (g->p.ping != 0) http_set_ping(g->call, g->p.ping);
    for (int i = 0; i < g->n_prompt; i++) {
        request_spec spec = {.prompt = g->prompt[i].v,
                             .n_prompt = (int)g->prompt[i].n,
                             .n = g->p.n,
                             .s = g->p.s,
                             .think = g->think,
                             .thoughts = g->p.thoughts,
                             .calls = g->calls,
                             .tools = g->tools,
                             .one_call = g->p.one_call,
                             .after_label = g->after_label,
                             .grammar = g->grammar,
                             .think_budget = g->p.think_budget,
                             .think_end = g->p.think_end.v,
                             .n_think_end = (int)g->p.think_end.n,
                             .priority = g->p.priority,
                             .cache_salt = use_salt,
                             .cache_prompt = g->p.cache_prompt,
                             .deadline_us = g->p.deadline_us,
                             .notify = on_news,
                             .notify_arg = g->call,
                             .notify_done_only = !g->p.stream,
                             .progress = progress};
        int64_t clamped = 0;
        err e = {0};
        int rc = engine_submit(g->a->eng, &spec, &g->req[i], &clamped, &e);
        if (rc) {
            refuse(g, rc, &e);
            gen_free(g);
            return;
        }
        if (clamped > 0 && (!smallest || clamped < smallest)) smallest = clamped;
    }
    list_roomless(g, r);
    params_headers(&g->p, r, smallest);
    if (g->n_cut) http_add_header(g->call, "x-quern-truncated", "%lld", (long long)g->n_cut);
    for (int i = 0; !g->p.stream && i < g->n_choice; i++)
        if (!said_join(&g->choice[i].said, &g->continued)) g->choice[i].said.oom = true;
    spend_prompts(g);
    http_wait(g->call, &waiter, g);
}

/* A generation whose grammar is compiled first, and what of the reader is still needed. */
typedef struct {
    gen *g;
    reader r;
} unformed;

static grammar *form_of(const gen *g, bool only_kept, reader *r)
{
    const answer_place at = {.opening = g->opening,
                             .calls = g->calls,
                             .tools = g->calls == CALLS_NONE ? NULL : json_get(g->body, "tools"),
                             .one_call = g->p.one_call};
    return constraint_compile(&g->p.form, &at, only_kept, r);
}

/* On the thread for long work: a grammar may cost seconds. */
static void form_and_submit(http_call *c, void *arg)
{
    unformed *u = arg;
    gen *g = u->g;
    if (!http_left(c) && (g->grammar = form_of(g, false, &u->r))) submit_all(g, &u->r);
    else gen_free(g);
    reader_close(&u->r);
    free(u);
}

static void form_later(gen *g, reader *r)
{
    unformed *u = malloc(sizeof *u);
    if (!u) {
        reply_oom(g->call);
        gen_free(g);
        return;
    }
    *u = (unformed){g, *r};
    r->ignored = (buf){0}; /* gen_new took the rest */
    http_defer(g->call, form_and_submit, u);
}

void gen_start(gen *g, reader *r)
{
    const engine_info_t *info = engine_info(g->a->eng);
    bool prefill_only = g->p.s.max_tokens == 0;
    for (int i = 0; i < g->n_prompt; i++)
        if ((int64_t)g->prompt[i].n > info->ctx ||
            ((int64_t)g->prompt[i].n == info->ctx && !prefill_only)) {
            submit_too_long(g->call, g->format->param_prompt, g->n_prompt > 1 ? i : -1,
                            (int64_t)g->prompt[i].n);
            gen_free(g);
            return;
        }
    tool_choosing must = g->p.form.tools;
    if ((must == CHOOSE_REQUIRED || must == CHOOSE_NAMED) && g->calls == CALLS_NONE) {
        reader_fail(r, "unsupported_value", "tool_choice",
                    "'tool_choice' needs a way to write calls, and the server reads none");
        gen_free(g);
        return;
    }
    bool bound = constraint_binds(&g->p.form);
    if (!bound || (g->grammar = form_of(g, true, r))) submit_all(g, r);
    else if (r->failed) gen_free(g);
    else form_later(g, r);
}
