/* api_completions.c - POST /v1/completions: raw prompts, echo, the four-array logprobs, the best
 * of several, filling in (API P1-P6).
 * Owns nothing of its own.  Thread: prep, then the call's HTTP thread. */
#include "server/api.h"
#include "server/chat_request.h"
#include "server/prompts.h"
#include "server/raw_request.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- prompt (P1) ----------------------------------------------------------------------------- */

/* P6: the text between prompt and suffix. */
static bool take_fim(reader *r, gen *g, const json *prompt, const json *suffix)
{
    fim_tokens f;
    if (prompt->type != JSON_STRING)
        reader_fail(r, "invalid_type", "prompt", "with 'suffix', 'prompt' must be one string");
    if (g->p.echo)
        reader_fail(r, "unsupported_value", "echo", "'echo' cannot be combined with 'suffix'");
    if (g->p.truncate)
        reader_fail(r, "unsupported_value", "truncate_prompt_tokens",
                    "'truncate_prompt_tokens' cannot be combined with 'suffix'");
    return fim_prompt(r, prompt, suffix, &f, &g->prompt[0]) && fim_ends(g, &f);
}

/* ---- logprobs (P4) --------------------------------------------------------------------------- */

/* A token as a key or list item: its text, or bytes:\xNN when it is not UTF-8 alone. */
static void put_name(const gen *g, int32_t id, buf *out)
{
    size_t n = 0;
    const char *s = tokenizer_piece(engine_info(g->a->eng)->tok, id, &n);
    if (g->p.ids_as_names) {
        buf_printf(out, "\"token_id:%d\"", id);
        return;
    }
    if (!s || utf8_valid(s, n)) {
        buf_put_json(out, s ? s : "", s ? n : 0);
        return;
    }
    buf_puts(out, "\"bytes:");
    for (size_t i = 0; i < n; i++) buf_printf(out, "\\\\x%02x", (unsigned char)s[i]);
    buf_putc(out, '"');
}

static void comma(buf *b)
{
    if (b->len) buf_putc(b, ',');
}

/* One row: the sampled token and the k best, each id once. */
static void put_row(gen *g, choice *c, const token_info *t, bool scored)
{
    comma(&c->lp_token);
    put_name(g, t->id, &c->lp_token);
    comma(&c->lp_value);
    comma(&c->lp_top);
    comma(&c->lp_offset);
    buf_put_int(&c->lp_offset, c->n_chars);
    if (!scored) {
        buf_puts(&c->lp_value, "null");
        buf_puts(&c->lp_top, "{}");
        return;
    }
    put_logprob(t->logprob, &c->lp_value);
    bool seen = false;
    /* prompt_logprobs may have asked for more. */
    int n = t->n_top < g->p.s.n_logprobs ? t->n_top : g->p.s.n_logprobs;
    buf_putc(&c->lp_top, '{');
    for (int i = 0; i < n; i++) {
        if (i) buf_putc(&c->lp_top, ',');
        put_name(g, t->top_id[i], &c->lp_top);
        buf_putc(&c->lp_top, ':');
        put_logprob(t->top_logprob[i], &c->lp_top);
        seen |= t->top_id[i] == t->id;
    }
    if (!seen) {
        if (n) buf_putc(&c->lp_top, ',');
        put_name(g, t->id, &c->lp_top);
        buf_putc(&c->lp_top, ':');
        put_logprob(t->logprob, &c->lp_top);
    }
    buf_putc(&c->lp_top, '}');
}

/* Code points that a token adds to the text: lead bytes. */
static int64_t chars_of(const gen *g, int32_t id)
{
    size_t n = 0;
    int64_t k = 0;
    const char *s = tokenizer_piece(engine_info(g->a->eng)->tok, id, &n);
    for (size_t i = 0; s && i < n; i++) k += ((unsigned char)s[i] & 0xC0) != 0x80;
    return k;
}

static bool visible(const gen *g, int32_t id)
{
    return g->p.s.keep_special || !tokenizer_is_special(engine_info(g->a->eng)->tok, id);
}

static void put_rows(gen *g, choice *c, const delta *d)
{
    if (!g->p.logprobs) return;
    /* The prompt is scored once, for all its choices. */
    for (int k = 0; g->p.echo && d->n_prompt_lp && k < g->p.n; k++) {
        choice *each = &g->choice[c->prompt * g->p.n + k];
        for (int i = 0; i < d->n_prompt_lp; i++) {
            put_row(g, each, &d->prompt[i], i > 0);
            each->n_chars += chars_of(g, d->prompt[i].id);
        }
    }
    for (int i = 0; i < d->n_tok; i++) {
        if (!visible(g, d->tok[i].id) || gen_is_end(g, d, i)) continue;
        put_row(g, c, &d->tok[i], true);
        c->n_chars += chars_of(g, d->tok[i].id);
    }
}

static void put_logprobs(gen *g, choice *c, buf *out)
{
    if (!g->p.logprobs) {
        buf_puts(out, ",\"logprobs\":null");
        return;
    }
    const struct {
        const char *name;
        buf *b;
    } part[] = {{",\"logprobs\":{\"tokens\":[", &c->lp_token},
                {"],\"token_logprobs\":[", &c->lp_value},
                {"],\"top_logprobs\":[", &c->lp_top},
                {"],\"text_offset\":[", &c->lp_offset}};
    for (int i = 0; i < 4; i++) {
        buf_puts(out, part[i].name);
        buf_put(out, buf_str(part[i].b), part[i].b->len);
        if (!buf_ok(part[i].b)) out->oom = true;
        buf_reset(part[i].b);
    }
    buf_puts(out, "]}");
}

/* ---- shapes (P3) ----------------------------------------------------------------------------- */

static void completions_collect(gen *g, choice *c, const delta *d)
{
    c->opened = true;
    put_rows(g, c, d);
}

/* All text of s as a JSON string, with echo behind the prompt. */
static void put_text(const gen *g, const choice *c, const said *s, bool first, buf *out)
{
    buf text = {0};
    if (first && g->prompt_text)
        buf_put(&text, buf_str(&g->prompt_text[c->prompt]), g->prompt_text[c->prompt].len);
    said_copy(s, SAID_ANSWER, &text);
    buf_put_json(out, buf_str(&text), text.len);
    if (!buf_ok(&text)) out->oom = true;
    buf_clear(&text);
}

static void put_prompt_ids(const gen *g, const choice *c, buf *out)
{
    buf_puts(out, ",\"prompt_token_ids\":[");
    gen_ids(g->prompt[c->prompt].v, g->prompt[c->prompt].n, out);
    buf_putc(out, ']');
}

static double mean(const choice *c)
{
    return c->n_tok ? c->lp_sum / (double)c->n_tok : 0;
}

/* The choices of prompt i that are shown, best mean logprob first where some are not (P2). */
static int pick(const gen *g, int i, const choice *out[128])
{
    int n = g->p.n;
    for (int k = 0; k < n; k++) {
        const choice *c = &g->choice[i * n + k];
        int at = k;
        if (g->p.shown)
            for (; at > 0 && mean(out[at - 1]) < mean(c); at--) out[at] = out[at - 1];
        out[at] = c;
    }
    return g->p.shown ? g->p.shown : n;
}

static void put_choice(gen *g, choice *c, int index, buf *out)
{
    buf_puts(out, "{\"index\":");
    buf_put_int(out, index);
    buf_puts(out, ",\"text\":");
    put_text(g, c, &c->said, true, out);
    put_logprobs(g, c, out);
    gen_finish(g, c, out);
    gen_prompt_logprobs(g, c->prompt, out);
    if (g->p.return_token_ids) {
        put_prompt_ids(g, c, out);
        buf_puts(out, ",\"token_ids\":[");
        buf_put(out, buf_str(&c->ids), c->ids.len);
        buf_putc(out, ']');
    }
    buf_putc(out, '}');
    if (!said_ok(&c->said) || !buf_ok(&c->ids)) out->oom = true;
}

static void completions_plain(gen *g, buf *out)
{
    const choice *shown[128];
    int index = 0;
    gen_head(g, "text_completion", out);
    buf_puts(out, ",\"choices\":[");
    for (int i = 0; i < g->n_prompt; i++) {
        int n = pick(g, i, shown);
        for (int k = 0; k < n; k++) {
            if (index) buf_putc(out, ',');
            put_choice(g, &g->choice[shown[k]->index], index, out);
            index++;
        }
    }
    buf_puts(out, "],\"usage\":");
    gen_usage(g, out);
    gen_timings(g, out);
    gen_last(g, out);
    buf_putc(out, '}');
}

static void chunk_begin(gen *g, const choice *c, const said *s, bool first, buf *out)
{
    sse_begin(out);
    gen_head(g, "text_completion", out);
    buf_puts(out, ",\"choices\":[{\"index\":");
    buf_put_int(out, c->index);
    buf_puts(out, ",\"text\":");
    put_text(g, c, s, first, out);
}

static void chunk_end(gen *g, bool last, buf *out)
{
    buf_puts(out, "}]");
    gen_chunk_tail(g, last, out);
    buf_putc(out, '}');
    sse_end(out);
}

/* With echo the first chunk of a choice holds the whole prompt; it is written with the first delta,
 * which brings the prompt's logprobs. */
static void completions_delta(gen *g, choice *c, const delta *d, buf *out)
{
    bool first = !c->collected;
    c->collected = true;
    bool echo = first && g->prompt_text;
    put_rows(g, c, d);
    if (d->said.n || c->lp_token.len || echo || (first && g->p.return_token_ids) ||
        (g->p.return_token_ids && d->n_tok)) {
        chunk_begin(g, c, &d->said, first, out);
        put_logprobs(g, c, out);
        buf_puts(out, ",\"finish_reason\":null");
        if (first && g->p.return_token_ids) put_prompt_ids(g, c, out);
        if (g->p.return_token_ids) {
            buf ids = {0};
            gen_delta_ids(d, &ids);
            buf_puts(out, ",\"token_ids\":[");
            buf_put(out, buf_str(&ids), ids.len);
            buf_putc(out, ']');
            buf_clear(&ids);
        }
        chunk_end(g, false, out);
    }
    if (d->finish == FINISH_NONE) return;
    chunk_begin(g, c, &(said){0}, false, out);
    buf_puts(out, ",\"logprobs\":null");
    gen_finish(g, c, out);
    chunk_end(g, gen_all_done(g), out);
}

static void completions_progress(gen *g, choice *c, int64_t done, buf *out)
{
    chunk_begin(g, c, &(said){0}, false, out);
    buf_puts(out, ",\"logprobs\":null,\"finish_reason\":null}]");
    gen_chunk_tail(g, false, out);
    buf_puts(out, ",\"prompt_progress\":");
    gen_progress(g, c->prompt, done, out);
    buf_putc(out, '}');
    sse_end(out);
}

static void completions_end(gen *g, buf *out)
{
    if (!g->p.include_usage) {
        sse_done(out);
        return;
    }
    sse_begin(out);
    gen_head(g, "text_completion", out);
    buf_puts(out, ",\"choices\":[],\"usage\":");
    gen_usage(g, out);
    if (g->p.timings_per_token) gen_timings(g, out);
    gen_last(g, out);
    buf_putc(out, '}');
    sse_end(out);
    sse_done(out);
}

static const gen_format completions_shape = {.id_prefix = "cmpl-",
                                             .call_prefix = "call_",
                                             .param_prompt = "prompt",
                                             .stream_type = SSE_TYPE,
                                             .room = ROOM_TIMINGS | ROOM_PROMPT_LOGPROBS |
                                                     ROOM_TOKEN_IDS,
                                             .plain = completions_plain,
                                             .collect = completions_collect,
                                             .delta = completions_delta,
                                             .progress = completions_progress,
                                             .end = completions_end,
                                             .fail = gen_sse_fail,
                                             .ping = gen_sse_ping};

/* The prompt's text, specials included: what echo shows. */
static bool decode_prompts(reader *r, gen *g)
{
    g->prompt_text = calloc((size_t)g->n_prompt, sizeof *g->prompt_text);
    for (int i = 0; i < g->n_prompt && g->prompt_text; i++) {
        err e = {0};
        if (tokenizer_decode(engine_info(r->a->eng)->tok, g->prompt[i].v, g->prompt[i].n, false,
                             &g->prompt_text[i], &e)) {
            reader_fail(r, "invalid_value", "prompt", "%s", e.msg);
            return false;
        }
    }
    return g->prompt_text != NULL;
}

/* P2. */
static void read_best_of(reader *r, params *p)
{
    int64_t best = 0;
    if (!rd_int(r, "best_of", 1, 20, &best) || best == p->n) return;
    if (best < p->n) reader_fail(r, "invalid_value", "best_of", "'best_of' must not be below 'n'");
    if (p->stream)
        reader_fail(r, "invalid_value", "best_of",
                    "'best_of' above 'n' cannot be combined with 'stream': true");
    p->shown = p->n;
    p->n = (int)best;
    if (p->s.n_logprobs < 0) p->s.n_logprobs = 0;
}

/* What only this route reads. */
static void read_route_fields(reader *r, params *p)
{
    read_best_of(r, p);
    /* The prompt's rows in front need scores, as many tops as the answer's. */
    if (p->echo && p->logprobs && p->s.n_prompt_logprobs < p->s.n_logprobs)
        p->s.n_prompt_logprobs = p->s.n_logprobs;
}

/* G7: the end or the beginning of each prompt, where asked for. */
static void cut_prompts(gen *g)
{
    int64_t ctx = engine_info(g->a->eng)->ctx, keep = g->p.truncate;
    if (!keep) return;
    if (keep < 0) keep = ctx - (g->p.s.max_tokens < 0 ? 1 : g->p.s.max_tokens);
    if (keep < 1) keep = 1;
    for (int i = 0; i < g->n_prompt; i++)
        g->n_cut += prompt_cut(&g->prompt[i], keep, g->p.truncate_right);
}

/* Scored prompts are repeated in every choice: the reply's size is bounded.  One that does not fit
 * is refused for that. */
static bool check_scores(reader *r, const gen *g)
{
    enum { MAX_SCORES = 4000000 };
    int64_t n = 0, ctx = engine_info(g->a->eng)->ctx;
    for (int i = 0; i < g->n_prompt; i++) {
        int64_t p = (int64_t)g->prompt[i].n;
        n += (p < ctx ? p : ctx) * g->p.n * (g->p.s.n_prompt_logprobs + 1);
    }
    if (n > MAX_SCORES)
        reader_fail(
            r, "unsupported_value", g->p.prompt_logprobs >= 0 ? "prompt_logprobs" : "logprobs",
            "a reply holds at most %d logprobs of prompt tokens, this one would have %" PRId64
            "; ask for fewer choices, prompts or tops",
            MAX_SCORES, n);
    return !r->failed;
}

/* Ids of every prompt, and the text that echo shows. */
static bool fill_prompts(reader *r, gen *g, const json *prompt)
{
    const char *text;
    size_t n = 0;
    if (rd_str(r, "suffix", 0, SIZE_MAX, &text, &n) && n)
        return take_fim(r, g, prompt, rd_any(r, "suffix"));
    if (!prompts_take(r, "prompt", prompt, NULL, g->prompt)) return false;
    cut_prompts(g);
    return check_scores(r, g) && (!g->p.echo || decode_prompts(r, g));
}

void api_completions(http_call *c)
{
    reader r;
    params p = {0};
    if (reader_open(&r, c, READ_COMPLETIONS) && ready_or_fail(&r) && params_read(&p, &r)) {
        read_route_fields(&r, &p);
        const json *prompt = rd_any(&r, "prompt");
        int n = r.failed ? 0 : prompts_count(&r, "prompt", prompt, 128);
        if ((int64_t)n * p.n > 128) {
            const char *name = p.shown ? "best_of" : "n";
            reader_fail(&r, "unsupported_value", name,
                        "'%s' times the number of prompts must not be above 128, got %d", name,
                        n * p.n);
        }
        gen *g = r.failed ? NULL : gen_new(&r, &p, &completions_shape, n);
        if (g && fill_prompts(&r, g, prompt)) {
            gen_start(g, &r);
        } else {
            reader_oom(&r);
            gen_free(g);
        }
    }
    params_clear(&p);
    reader_close(&r);
}
