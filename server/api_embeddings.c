/* api_embeddings.c - POST /v1/embeddings, and Ollama's /api/embed and /api/embeddings (API B1-B4,
 * O8).  Owns nothing.  Thread: prep, then the call's HTTP thread. */
#include "server/api.h"
#include "server/chat_request.h"
#include "server/pooled.h"
#include "server/prompts.h"
#include "server/reply.h"

#include "base/base64.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXTS = 2048, MIN_DIMS = 32 };

/* ---- what the model can do ------------------------------------------------------------------- */

static bool is_trained_length(const pooling *p, int64_t n)
{
    bool found = !p->n_dims;
    for (int i = 0; i < p->n_dims; i++) found |= p->dims[i] == n;
    return found;
}

/* Whether the model makes embeddings, cut to dims (0: whole) if it can be; false: r failed. */
static bool embeddings_check(reader *r, const char *model, int64_t *dims)
{
    const engine_info_t *info = engine_info(r->a->eng);
    const pooling *p = info->pool;
    int least = info->hidden < MIN_DIMS ? info->hidden : MIN_DIMS;
    if (r->failed) return false;
    if (!p->embeds) {
        reader_fail(r, "unsupported_value", "model", "model '%.64s' does not make embeddings: %s",
                    model,
                    p->score ? "it answers /rerank and /v1/score"
                             : "start the server with --embeddings, or serve an embedding model");
        return false;
    }
    if (!rd_int(r, "dimensions", p->n_dims ? 1 : least, info->hidden, dims)) return !r->failed;
    if (*dims != info->hidden && !p->matryoshka)
        reader_fail(
            r, "unsupported_value", "dimensions",
            "'dimensions' is not supported: the vectors of model '%.64s' have %d values and "
            "cannot be cut",
            model, info->hidden);
    else if (*dims != info->hidden && !is_trained_length(p, *dims))
        reader_fail(r, "invalid_value", "dimensions",
                    "'dimensions' must be one of the lengths that model '%.64s' was trained for, "
                    "got %" PRId64,
                    model, *dims);
    return !r->failed;
}

/* ---- texts ----------------------------------------------------------------------------------- */

static bool ends_with(const token_list *l, const int32_t *end, int n)
{
    return l->n >= (size_t)n && !memcmp(l->v + l->n - n, end, (size_t)n * sizeof *end);
}

/* Cuts the ids of every text to what is asked for or fits, then puts the model's end tokens behind
 * them; keep as params.truncate. */
static bool embeddings_finish(pooled *p, int64_t keep, bool right)
{
    const engine_info_t *info = engine_info(p->a->eng);
    int n = info->n_text_end;
    if (keep < 0) keep = info->ctx;
    for (int i = 0; i < p->n_item; i++) {
        token_list *l = &p->item[i].ids;
        if (n && ends_with(l, info->text_end, n)) l->n -= (size_t)n; /* ids may bring it along */
        int64_t room = keep - n < 0 ? 0 : keep - n;
        if (keep) p->n_cut += prompt_cut(l, room, right);
        for (int k = 0; k < n; k++)
            if (!token_list_push(l, info->text_end[k])) return false;
        if (!l->n) return false;
    }
    return true;
}

/* instruction (B2): what stands in front of every text. */
static bool read_instruction(reader *r, const json *input, buf *before)
{
    const char *text;
    size_t n;
    if (!rd_str(r, "instruction", 0, 1 << 20, &text, &n) || !n) return false;
    const json *first = json_is(input, JSON_ARRAY) ? input->child : NULL;
    if (first && first->type != JSON_STRING)
        reader_fail(r, "unsupported_value", "instruction",
                    "'instruction' needs texts in 'input', got token ids");
    buf_puts(before, "Instruct: ");
    buf_put(before, text, n);
    buf_puts(before, "\nQuery:");
    return true;
}

/* Texts to ids; NULL: r failed. */
static pooled *take_texts(reader *r, params *p, const pooled_shape *s, const char *name,
                          const json *input, const buf *before, int64_t dims)
{
    int n = prompts_count(r, name, input, MAX_TEXTS);
    pooled *q = n ? pooled_new(r, p, s, WANT_VECTOR, n) : NULL;
    if (!q) return NULL;
    q->dims = (int)dims;
    q->listed = input->type == JSON_ARRAY && input->child->type != JSON_NUMBER;
    token_list *ids = calloc((size_t)n, sizeof *ids);
    bool ok = ids && prompts_take(r, name, input, before, ids);
    for (int i = 0; ids && i < n; i++) q->item[i].ids = ids[i];
    free(ids);
    if (ok && embeddings_finish(q, q->p.truncate, q->p.truncate_right)) return q;
    reader_oom(r);
    pooled_free(q);
    return NULL;
}

/* ---- the OpenAI shape ------------------------------------------------------------------------ */

void embeddings_members(const pooled *p, buf *out)
{
    const json *format = json_get(p->body, "encoding_format");
    bool text = json_is(format, JSON_STRING) && !strcmp(format->str, "base64");
    buf_puts(out, "\"object\":\"list\",\"data\":[");
    for (int i = 0; i < p->n_item; i++) {
        const pooled_item *it = &p->item[i];
        buf_printf(out, "%s{\"object\":\"embedding\",\"index\":%d,\"embedding\":", i ? "," : "", i);
        if (text) {
            buf_putc(out, '"');
            base64_put(out, it->vec, (size_t)it->n_vec * sizeof *it->vec);
            buf_putc(out, '"');
        } else {
            put_vector(it->vec, it->n_vec, out);
        }
        buf_putc(out, '}');
    }
    buf_puts(out, "],\"model\":");
    buf_put_json(out, p->p.model, strlen(p->p.model));
    buf_putc(out, ',');
    pooled_usage(p, out);
}

static void reply(pooled *p, buf *out)
{
    buf_putc(out, '{');
    embeddings_members(p, out);
    buf_putc(out, '}');
}

static const pooled_shape shape = {.param = "input", .reply = reply};

void embeddings_run(http_call *c, const pooled_shape *s)
{
    reader r;
    params p = {0};
    buf before = {0};
    const char *format = "float";
    int64_t dims = 0;
    pooled *q = NULL;
    if (!reader_open(&r, c, READ_EMBED) || !ready_or_fail(&r) || !params_read_pooled(&p, &r))
        goto out;
    if (!embeddings_check(&r, p.model, &dims)) goto out;
    rd_str(&r, "encoding_format", 0, 64, &format, NULL);
    if (strcmp(format, "float") && strcmp(format, "base64"))
        reader_fail(&r, "invalid_value", "encoding_format",
                    "'encoding_format' must be float or base64, got '%.64s'", format);
    const json *input = rd_any(&r, "input");
    bool instructed = read_instruction(&r, input, &before);
    if (r.failed) goto out;
    q = take_texts(&r, &p, s, "input", input, instructed ? &before : NULL, dims);
    if (q) pooled_start(q, &r);
out:
    buf_clear(&before);
    params_clear(&p);
    reader_close(&r);
}

void api_embeddings(http_call *c)
{
    embeddings_run(c, &shape);
}

/* ---- Ollama (O8) ----------------------------------------------------------------------------- */

static void ollama_reply(pooled *p, buf *out)
{
    buf_puts(out, "{\"model\":");
    buf_put_json(out, p->p.model, strlen(p->p.model));
    buf_puts(out, ",\"embeddings\":[");
    for (int i = 0; i < p->n_item; i++) {
        if (i) buf_putc(out, ',');
        put_vector(p->item[i].vec, p->item[i].n_vec, out);
    }
    buf_printf(out, "],\"total_duration\":%lld,\"load_duration\":0,\"prompt_eval_count\":%lld}",
               (long long)(p->finished_us - p->arrival_us) * 1000, (long long)p->n_tokens);
}

static void ollama_old_reply(pooled *p, buf *out)
{
    buf_puts(out, "{\"embedding\":");
    put_vector(p->item[0].vec, p->item[0].n_vec, out);
    buf_putc(out, '}');
}

static const pooled_shape ollama_shape = {.param = "input", .reply = ollama_reply};
static const pooled_shape ollama_old_shape = {.param = "prompt", .reply = ollama_old_reply};

/* No text: nothing to do but to say that the model is there, as Ollama's clients load it. */
static bool is_empty(const json *input)
{
    return !input || (input->type == JSON_STRING && !input->len) ||
           (input->type == JSON_ARRAY && !input->len);
}

static void ollama_nothing(reader *r, const params *p, bool old)
{
    buf out = {0};
    if (old) {
        buf_puts(&out, "{\"embedding\":[]}");
    } else {
        buf_puts(&out, "{\"model\":");
        buf_put_json(&out, p->model, strlen(p->model));
        buf_puts(&out, ",\"embeddings\":[],\"total_duration\":0,\"load_duration\":0,"
                       "\"prompt_eval_count\":0}");
    }
    if (r->ignored.len) http_add_header(r->call, "x-quern-ignored", "%s", r->ignored.v);
    http_reply(r->call, 200, "application/json", &out);
}

static void ollama(http_call *c, bool old)
{
    reader r;
    params p = {0};
    bool cut = true;
    int64_t dims = 0;
    const char *name = old ? "prompt" : "input";
    if (!reader_open(&r, c, READ_EMBED) || !ready_or_fail(&r) || !params_read_pooled(&p, &r) ||
        !embeddings_check(&r, p.model, &dims))
        goto out;
    rd_bool(&r, "truncate", &cut);
    const json *input = rd_any(&r, name);
    const json *first = json_is(input, JSON_ARRAY) ? input->child : input;
    if (first && (first->type != JSON_STRING || (old && first != input)))
        reader_fail(&r, "invalid_type", name, "'%s' must be a string%s", name,
                    old ? "" : " or an array of strings");
    if (r.failed) goto out;
    /* Too long a text loses its end unless told otherwise (G7). */
    if (!p.truncate && cut) {
        p.truncate = -1;
        p.truncate_right = true;
    }
    if (is_empty(input)) {
        ollama_nothing(&r, &p, old);
        goto out;
    }
    pooled *q =
        take_texts(&r, &p, old ? &ollama_old_shape : &ollama_shape, name, input, NULL, dims);
    if (q) pooled_start(q, &r);
out:
    params_clear(&p);
    reader_close(&r);
}

void api_ollama_embed(http_call *c)
{
    ollama(c, false);
}

void api_ollama_embeddings(http_call *c)
{
    ollama(c, true);
}
