/* api_llama.c - POST /completion and /infill in llama.cpp's own shapes (API K6, K7).  Owns a
 * llama_reply per call.  Thread: prep, then the call's HTTP thread. */
#include "server/api.h"
#include "server/chat_request.h"
#include "server/llama.h"
#include "server/llama_request.h"
#include "server/reply.h"

#include <string.h>

/* Each may copy the prompt into the reply. */
enum { MAX_FIELDS = 64 };

typedef struct {
    buf text;     /* the prompt, as the reply shows it */
    bool newline; /* the answer has one */
} llama_reply;

/* ---- logprobs: items with the id ------------------------------------------------------------- */

static void put_token(const gen *g, int32_t id, float lp, buf *out)
{
    buf_printf(out, "{\"id\":%d,\"token\":", id);
    put_token_text(g, id, out);
    put_token_bytes(g, id, out);
    buf_puts(out, ",\"logprob\":");
    put_logprob(lp, out);
}

/* Appends an item for each token of d but the end, comma-separated. */
static void put_items(const gen *g, const delta *d, buf *out)
{
    for (int i = 0; g->p.logprobs && i < d->n_tok; i++) {
        const token_info *t = &d->tok[i];
        if (gen_is_end(g, d, i)) continue;
        if (out->len) buf_putc(out, ',');
        put_token(g, t->id, t->logprob, out);
        buf_puts(out, ",\"top_logprobs\":[");
        for (int k = 0; k < t->n_top; k++) {
            if (k) buf_putc(out, ',');
            put_token(g, t->top_id[k], t->top_logprob[k], out);
            buf_putc(out, '}');
        }
        buf_puts(out, "]}");
    }
}

/* ---- shapes (K7) ----------------------------------------------------------------------------- */

static void note_newline(gen *g, const said *s)
{
    llama_reply *o = g->own;
    if (s->text.len && memchr(s->text.v, '\n', s->text.len)) o->newline = true;
}

static void collect(gen *g, choice *c, const delta *d)
{
    note_newline(g, &d->said);
    put_items(g, d, &c->logprobs);
}

static const char *stop_type(const choice *c)
{
    if (c->finish == FINISH_LENGTH) return "limit";
    return c->stop_index >= 0 || c->stop_id >= 0 ? "word" : "eos";
}

static void put_stopping_word(const gen *g, const choice *c, buf *out)
{
    size_t n = 0;
    const char *s = "";
    if (c->stop_index >= 0) {
        s = g->p.stop[c->stop_index];
        n = g->p.stop_len[c->stop_index];
    } else if (c->stop_id >= 0) {
        s = tokenizer_piece(engine_info(g->a->eng)->tok, c->stop_id, &n);
    }
    buf_puts(out, ",\"stopping_word\":");
    buf_put_json(out, s ? s : "", s ? n : 0);
}

/* {"index":0,"content":...,"tokens":[...],"id_slot":..., still open. */
static void put_head(const gen *g, const char *text, size_t n, const buf *ids, buf *out)
{
    request_stats u = request_usage(g->req[0]);
    buf_puts(out, "{\"index\":0,\"content\":");
    buf_put_json(out, text, n);
    buf_printf(out, ",\"tokens\":[%s],\"id_slot\":%d", buf_str(ids), u.slot);
}

static void put_settings(const gen *g, buf *out)
{
    sampling s = g->p.s;
    if (!g->p.logprobs) s.n_logprobs = 0;
    buf_puts(out, ",\"generation_settings\":{");
    llama_put_settings(&s, out);
    buf_printf(out, ",\"stream\":%s,\"timings_per_token\":%s,\"post_sampling_probs\":false}",
               g->p.stream ? "true" : "false", g->p.timings_per_token ? "true" : "false");
}

/* The object of a finished generation. */
static void put_final(gen *g, const char *text, size_t n, const buf *ids, const buf *items,
                      buf *out)
{
    const llama_reply *o = g->own;
    const choice *c = &g->choice[0];
    request_stats u = request_usage(g->req[0]);
    put_head(g, text, n, ids, out);
    buf_puts(out, ",\"stop\":true,\"model\":");
    buf_put_json(out, g->p.model, strlen(g->p.model));
    buf_printf(out, ",\"tokens_predicted\":%d,\"tokens_evaluated\":%d,\"tokens_cached\":%d",
               u.n_generated, u.n_prompt, u.n_cached);
    put_settings(g, out);
    buf_puts(out, ",\"prompt\":");
    buf_put_json(out, buf_str(&o->text), o->text.len);
    buf_printf(out, ",\"has_new_line\":%s,\"truncated\":%s,\"stop_type\":\"%s\"",
               o->newline ? "true" : "false", g->n_cut ? "true" : "false", stop_type(c));
    put_stopping_word(g, c, out);
    gen_timings(g, out);
    if (g->p.logprobs) buf_printf(out, ",\"completion_probabilities\":[%s]", buf_str(items));
    buf_putc(out, '}');
}

/* response_fields: only these of the object whose text is whole, "a/b" being member b of a. */
static void put_chosen(const gen *g, const buf *whole, buf *out)
{
    const json *want = json_get(g->body, "response_fields"), *root;
    err e = {0};
    if (!json_is(want, JSON_ARRAY) || !want->len) {
        buf_put(out, whole->v, whole->len);
        return;
    }
    json_doc *d = json_parse(buf_str(whole), whole->len, NULL, &root, &e);
    int n = 0;
    buf_putc(out, '{');
    for (const json *w = want->child; w && d; w = w->next) {
        const json *at = root;
        for (const char *s = w->str; at && *s; s += *s == '/') {
            size_t k = strcspn(s, "/");
            at = json_get_n(at, s, k);
            s += k;
        }
        if (!at || at == root) continue;
        if (n++) buf_putc(out, ',');
        buf_put_json(out, w->str, w->len);
        buf_putc(out, ':');
        json_dump(at, out);
    }
    buf_putc(out, '}');
    if (!d) out->oom = true;
    json_free(d);
}

static void put_end(gen *g, const char *text, size_t n, const buf *ids, const buf *items, buf *out)
{
    buf whole = {0};
    put_final(g, text, n, ids, items, &whole);
    if (buf_ok(&whole)) put_chosen(g, &whole, out);
    else out->oom = true;
    buf_clear(&whole);
}

static void llama_plain(gen *g, buf *out)
{
    choice *c = &g->choice[0];
    buf text = {0};
    said_copy(&c->said, SAID_ANSWER, &text);
    put_end(g, buf_str(&text), text.len, &c->ids, &c->logprobs, out);
    if (!buf_ok(&text) || !said_ok(&c->said) || !buf_ok(&c->ids) || !buf_ok(&c->logprobs))
        out->oom = true;
    buf_clear(&text);
}

static void chunk_tail(gen *g, buf *out)
{
    request_stats u = request_usage(g->req[0]);
    buf_printf(out, ",\"stop\":false,\"tokens_predicted\":%lld,\"tokens_evaluated\":%d",
               (long long)g->choice[0].n_tok, u.n_prompt);
    if (g->p.timings_per_token) gen_timings(g, out);
}

static void llama_progress(gen *g, choice *c, int64_t done, buf *out)
{
    static const buf none;
    sse_begin(out);
    put_head(g, "", 0, &none, out);
    chunk_tail(g, out);
    buf_puts(out, ",\"prompt_progress\":");
    gen_progress(g, c->prompt, done, out);
    buf_putc(out, '}');
    sse_end(out);
}

static void llama_delta(gen *g, choice *c, const delta *d, buf *out)
{
    buf text = {0}, ids = {0}, items = {0};
    (void)c;
    note_newline(g, &d->said);
    said_copy(&d->said, SAID_ANSWER, &text);
    if (g->p.return_token_ids) gen_delta_ids(d, &ids);
    put_items(g, d, &items);
    if (text.len || ids.len || items.len) {
        sse_begin(out);
        put_head(g, buf_str(&text), text.len, &ids, out);
        chunk_tail(g, out);
        if (items.len) buf_printf(out, ",\"completion_probabilities\":[%s]", items.v);
        buf_putc(out, '}');
        sse_end(out);
    }
    if (!buf_ok(&text) || !buf_ok(&ids) || !buf_ok(&items)) out->oom = true;
    buf_clear(&text);
    buf_clear(&ids);
    buf_clear(&items);
}

static void llama_end(gen *g, buf *out)
{
    static const buf none;
    sse_begin(out);
    put_end(g, "", 0, &none, &none, out);
    sse_end(out);
}

static void drop(gen *g)
{
    llama_reply *o = g->own;
    if (o) buf_clear(&o->text);
}

#define SHAPE(param)                                                                            \
    {                                                                                           \
        .id_prefix = "cmpl-", .call_prefix = "call_", .param_prompt = param,                    \
        .stream_type = SSE_TYPE, .room = ROOM_TIMINGS | ROOM_TOKEN_IDS, .plain = llama_plain,   \
        .collect = collect, .delta = llama_delta, .progress = llama_progress, .end = llama_end, \
        .fail = gen_sse_fail, .ping = gen_sse_ping, .drop = drop                                \
    }
static const gen_format completion_shape = SHAPE("prompt"), infill_shape = SHAPE("input_prefix");

/* ---- requests -------------------------------------------------------------------------------- */

static void read_response_fields(reader *r)
{
    const json *j = rd_any(r, "response_fields");
    int i = 0;
    if (j && j->type != JSON_ARRAY)
        reader_fail(r, "invalid_type", "response_fields",
                    "'response_fields' must be an array of strings, got %s", json_type_name(j));
    else if (j && j->len > MAX_FIELDS)
        reader_fail(r, "invalid_value", "response_fields",
                    "'response_fields' takes at most %d strings, got %zu", MAX_FIELDS, j->len);
    for (const json *v = j && !r->failed ? j->child : NULL; v; v = v->next, i++)
        if (v->type != JSON_STRING)
            reader_fail(r, "invalid_type", "response_fields",
                        "'response_fields[%d]' must be a string, got %s", i, json_type_name(v));
}

/* The prompt's text, marks included. */
static bool keep_text(reader *r, gen *g)
{
    llama_reply *o = g->own;
    err e = {0};
    int rc = tokenizer_decode(engine_info(r->a->eng)->tok, g->prompt[0].v, g->prompt[0].n, false,
                              &o->text, &e);
    if (rc == ERR_INVALID) reader_fail(r, "invalid_value", "prompt", "%s", e.msg);
    else if (rc || !buf_ok(&o->text)) reader_oom(r);
    return !r->failed;
}

static void llama_run(http_call *c, bool infill)
{
    reader r;
    params p = {0};
    token_list ids = {0};
    fim_tokens f;
    int64_t lost = 0;
    if (reader_open(&r, c, READ_LLAMA) && ready_or_fail(&r) && params_read(&p, &r)) {
        read_response_fields(&r);
        bool ok = infill ? llama_take_infill(&r, &p, &f, &ids, &lost) : llama_take_prompt(&r, &ids);
        gen *g = ok ? raw_gen(&r, &p, infill ? &infill_shape : &completion_shape,
                              sizeof(llama_reply), &ids)
                    : NULL;
        if (g && infill && !fim_ends(g, &f)) reader_oom(&r);
        if (g && !r.failed && keep_text(&r, g)) {
            g->n_cut = lost;
            gen_start(g, &r);
        } else {
            gen_free(g);
        }
    }
    token_list_clear(&ids);
    params_clear(&p);
    reader_close(&r);
}

void api_llama_completion(http_call *c)
{
    llama_run(c, false);
}

void api_llama_infill(http_call *c)
{
    llama_run(c, true);
}
