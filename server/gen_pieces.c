/* gen_pieces.c - what every dialect's replies are made of: heads, usage, timings, finish reasons,
 * ids, lines of a stream; see gen.h.  Owns nothing.  Thread: the call's. */
#include "server/gen.h"

#include "base/clock.h"
#include "server/lmstudio.h"
#include "server/reply.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void gen_sse_fail(gen *g, const gen_fault *f, buf *out)
{
    sse_begin(out);
    reply_error(out, DIALECT_OPENAI, http_request_id(g->call), f->status, f->type, f->code, NULL,
                f->msg);
    sse_end(out);
}

void gen_sse_ping(gen *g, buf *out)
{
    (void)g;
    buf_puts(out, ": ping\n\n");
}

void sse_begin(buf *out)
{
    buf_put(out, "data: ", 6);
}

void sse_end(buf *out)
{
    buf_put(out, "\n\n", 2);
}

void sse_done(buf *out)
{
    buf_puts(out, "data: [DONE]\n\n");
}

void gen_head(const gen *g, const char *object, buf *out)
{
    buf_puts(out, "{\"id\":\"");
    buf_puts(out, g->id);
    buf_puts(out, "\",\"object\":\"");
    buf_puts(out, object);
    buf_puts(out, "\",\"created\":");
    buf_put_int(out, g->created);
    buf_puts(out, ",\"model\":");
    buf_put_json(out, g->p.model, strlen(g->p.model));
    buf_puts(out, ",\"system_fingerprint\":\"");
    buf_puts(out, g->a->fingerprint);
    buf_puts(out, "\"");
}

typedef struct {
    int64_t prompt, cached, generated, reasoning, draft, draft_accepted;
    double queue_us, prompt_us, predicted_us;
} totals;

static totals total(const gen *g)
{
    totals t = {0};
    for (int i = 0; i < g->n_prompt; i++) {
        request_stats u = request_usage(g->req[i]);
        t.prompt += u.n_prompt;
        t.cached += u.n_cached;
        t.generated += u.n_generated;
        t.reasoning += u.n_reasoning;
        t.draft += u.n_draft;
        t.draft_accepted += u.n_draft_accepted;
        int64_t end = u.finished_us ? u.finished_us : clock_us();
        int64_t first = u.first_token_us ? u.first_token_us : end;
        if (!u.scheduled_us) continue;
        t.queue_us += (double)(u.scheduled_us - u.arrival_us);
        t.prompt_us += (double)(first - u.scheduled_us);
        t.predicted_us += (double)(end - first);
    }
    if (!g->p.stream || gen_all_done(g)) return t;
    /* A stream that goes on counts what it has said, not what the engine is ahead. */
    t.generated = 0;
    for (int i = 0; i < g->n_choice; i++) t.generated += g->choice[i].n_tok;
    if (t.reasoning > t.generated) t.reasoning = t.generated;
    return t;
}

void gen_usage(const gen *g, buf *out)
{
    totals t = total(g);
    buf_printf(out,
               "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%lld,\"cache_write_tokens\":0,\"audio_"
               "tokens\":0,"
               "\"text_tokens\":%lld,\"image_tokens\":0},\"completion_tokens_details\":{"
               "\"reasoning_tokens\":%lld,"
               "\"audio_tokens\":0,\"text_tokens\":%lld,\"accepted_prediction_tokens\":0,"
               "\"rejected_prediction_tokens\":0}}",
               (long long)t.prompt, (long long)t.generated, (long long)(t.prompt + t.generated),
               (long long)t.cached, (long long)t.prompt, (long long)t.reasoning,
               (long long)(t.generated - t.reasoning));
}

static void put_rate(buf *out, const char *name, double n, double us)
{
    buf_printf(out, ",\"%s_n\":%lld,\"%s_ms\":", name, (long long)n, name);
    buf_put_num(out, round(us) / 1e3);
    buf_printf(out, ",\"%s_per_token_ms\":", name);
    buf_put_num(out, n > 0 ? round(us / n * 100) / 1e5 : 0);
    buf_printf(out, ",\"%s_per_second\":", name);
    buf_put_num(out, us > 0 ? round(n * 1e8 / us) / 1e2 : 0);
}

void gen_timings(const gen *g, buf *out)
{
    if (g->a->opt->no_timings) return;
    totals t = total(g);
    buf_printf(out, ",\"timings\":{\"cache_n\":%lld", (long long)t.cached);
    put_rate(out, "prompt", (double)(t.prompt - t.cached), t.prompt_us);
    put_rate(out, "predicted", (double)t.generated, t.predicted_us);
    if (t.draft)
        buf_printf(out, ",\"draft_n\":%lld,\"draft_n_accepted\":%lld", (long long)t.draft,
                   (long long)t.draft_accepted);
    buf_puts(out, ",\"queue_ms\":");
    buf_put_num(out, round(t.queue_us) / 1e3);
    buf_puts(out, "}");
}

void gen_last(const gen *g, buf *out)
{
    if (lmstudio_v0(g->call)) lmstudio_put_stats(g, out);
}

void gen_chunk_tail(const gen *g, bool last, buf *out)
{
    if (g->p.include_usage) buf_puts(out, ",\"usage\":");
    if (g->p.continuous_usage) gen_usage(g, out);
    else if (g->p.include_usage) buf_puts(out, "null");
    if (last || g->p.timings_per_token) gen_timings(g, out);
    if (last && !g->p.include_usage) gen_last(g, out);
}

void gen_progress(const gen *g, int i, int64_t done, buf *out)
{
    request_stats u = request_usage(g->req[i]);
    buf_printf(out, "{\"total\":%d,\"cache\":%d,\"processed\":%lld,\"time_ms\":", u.n_prompt,
               u.n_cached, (long long)done);
    buf_put_num(out, round((double)(clock_us() - u.scheduled_us)) / 1e3);
    buf_putc(out, '}');
}

static void put_ranked(const gen *g, int32_t id, float logprob, int rank, buf *out)
{
    size_t n = 0;
    const char *s = tokenizer_piece(engine_info(g->a->eng)->tok, id, &n);
    buf_printf(out, "\"%d\":{\"logprob\":", id);
    put_logprob(logprob, out);
    buf_printf(out, ",\"rank\":%d,\"decoded_token\":", rank);
    buf_put_json(out, s ? s : "", s ? n : 0);
    buf_putc(out, '}');
}

void gen_collect_prompt(gen *g, int i, const delta *d)
{
    buf *out = &g->prompt_lp[i];
    for (int k = 0; k < d->n_prompt_lp; k++) {
        const token_info *t = &d->prompt[k];
        if (!k) {
            buf_puts(out, "null");
            continue;
        }
        buf_puts(out, ",{");
        put_ranked(g, t->id, t->logprob, t->rank, out);
        for (int j = 0; j < t->n_top && j < g->p.prompt_logprobs; j++) {
            if (t->top_id[j] == t->id) continue;
            buf_putc(out, ',');
            put_ranked(g, t->top_id[j], t->top_logprob[j], j + 1, out);
        }
        buf_putc(out, '}');
    }
}

void gen_prompt_logprobs(const gen *g, int i, buf *out)
{
    if (!g->prompt_lp) return;
    buf_puts(out, ",\"prompt_logprobs\":[");
    buf_put(out, buf_str(&g->prompt_lp[i]), g->prompt_lp[i].len);
    buf_putc(out, ']');
    if (!buf_ok(&g->prompt_lp[i])) out->oom = true;
}

bool gen_is_end(const gen *g, const delta *d, int i)
{
    if (d->finish != FINISH_STOP || i != d->n_tok - 1 || d->stop_index >= 0) return false;
    const engine_info_t *info = engine_info(g->a->eng);
    int32_t id = d->tok[i].id;
    if (d->stop_id >= 0) return true;
    for (int k = 0; k < info->n_end; k++)
        if (info->end_id[k] == id) return true;
    for (int k = 0; k < g->p.s.n_end; k++)
        if (g->p.s.end_id[k] == id) return true;
    return false;
}

const char *gen_finish_word(const choice *c)
{
    if (c->finish == FINISH_NONE) return NULL;
    if (c->finish == FINISH_LENGTH) return "length";
    return c->n_whole ? "tool_calls" : "stop";
}

void gen_finish(const gen *g, const choice *c, buf *out)
{
    if (c->finish == FINISH_NONE) {
        buf_puts(out, ",\"finish_reason\":null");
        return;
    }
    buf_printf(out, ",\"finish_reason\":\"%s\"", gen_finish_word(c));
    buf_puts(out, ",\"stop_reason\":");
    if (c->stop_index >= 0)
        buf_put_json(out, g->p.stop[c->stop_index], g->p.stop_len[c->stop_index]);
    else if (c->stop_id >= 0) buf_put_int(out, c->stop_id);
    else buf_puts(out, "null");
}

void gen_ids(const int32_t *id, size_t n, buf *out)
{
    for (size_t i = 0; i < n; i++) {
        if (i) buf_putc(out, ',');
        buf_put_int(out, id[i]);
    }
}

void gen_delta_ids(const delta *d, buf *out)
{
    for (int i = 0; i < d->n_tok; i++) {
        if (out->len) buf_putc(out, ',');
        buf_put_int(out, d->tok[i].id);
    }
}

void put_token_text(const gen *g, int32_t id, buf *out)
{
    size_t n = 0;
    const char *s = tokenizer_piece(engine_info(g->a->eng)->tok, id, &n);
    if (g->p.ids_as_names) buf_printf(out, "\"token_id:%d\"", id);
    else buf_put_json(out, s ? s : "", s ? n : 0);
}

void put_token_bytes(const gen *g, int32_t id, buf *out)
{
    size_t n = 0;
    const char *s = tokenizer_piece(engine_info(g->a->eng)->tok, id, &n);
    buf_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++) {
        if (i) buf_putc(out, ',');
        buf_put_int(out, (unsigned char)s[i]);
    }
    buf_putc(out, ']');
}

void put_logprob(float lp, buf *out)
{
    char t[32];
    if (!isfinite(lp)) lp = -9999.0f;
    if (lp > 0) lp = 0;
    /* Nine digits give the float back: equal bits stay equal text. */
    snprintf(t, sizeof t, "%.9g", (double)lp);
    buf_puts(out, t);
}
