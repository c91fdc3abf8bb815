/* api_text.c - /tokenize, /detokenize, /apply-template (API K1-K3).  Owns nothing.  Prep threads.
 */
#include "server/api.h"
#include "server/chat_request.h"
#include "server/reply.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Reasoning switches and model of a chat body, without the sampling fields. */
static bool read_chat_switches(reader *r, params *p)
{
    *p = (params){.thinking = -1, .show_reasoning = true};
    p->model = read_model(r);
    if (!p->model) return false;
    read_refused(r);
    read_reasoning_fields(p, r);
    read_unknown(r);
    return !r->failed;
}

static bool render_messages(reader *r, chat_prompt *prompt)
{
    params p;
    return read_chat_switches(r, &p) && chat_request_render(r, &p, prompt);
}

static void put_piece(const tokenizer *t, int32_t id, buf *b)
{
    size_t n = 0;
    const char *s = tokenizer_piece(t, id, &n);
    buf_printf(b, "{\"id\":%d,\"piece\":", id);
    if (s && utf8_valid(s, n)) {
        buf_put_json(b, s, n);
    } else {
        buf_putc(b, '[');
        for (size_t i = 0; i < n; i++) buf_printf(b, "%s%u", i ? "," : "", (unsigned char)s[i]);
        buf_putc(b, ']');
    }
    buf_putc(b, '}');
}

static void put_tokens(const app *a, const token_list *l, bool pieces, bool strs, buf *b)
{
    const engine_info_t *info = engine_info(a->eng);
    buf_puts(b, "{\"tokens\":[");
    for (size_t i = 0; i < l->n; i++) {
        if (i) buf_putc(b, ',');
        if (pieces) put_piece(info->tok, l->v[i], b);
        else buf_put_int(b, l->v[i]);
    }
    buf_printf(b, "],\"count\":%zu,\"max_model_len\":%" PRId64, l->n, info->ctx);
    if (strs) {
        buf_puts(b, ",\"token_strs\":[");
        for (size_t i = 0; i < l->n; i++) {
            size_t n = 0;
            const char *s = tokenizer_piece(info->tok, l->v[i], &n);
            if (i) buf_putc(b, ',');
            buf_put_json(b, s ? s : "", n);
        }
        buf_putc(b, ']');
    }
    buf_putc(b, '}');
}

/* content, or prompt, or messages. */
static bool tokenize_body(reader *r, token_list *ids)
{
    const char *text = NULL;
    size_t n = 0;
    bool special = true, inert;
    err e = {0};
    rd_bool(r, "add_special", &inert);
    rd_bool(r, "parse_special", &special);
    if (!rd_str(r, "content", 0, SIZE_MAX, &text, &n)) rd_str(r, "prompt", 0, SIZE_MAX, &text, &n);
    if (r->failed) return false;
    if (text) {
        read_unknown(r);
        if (r->failed) return false;
        int rc = tokenizer_encode(engine_info(r->a->eng)->tok, text, n, special, NULL, 0, ids, &e);
        if (rc) reader_fail(r, "invalid_value", "content", "%s", e.msg);
        return !rc;
    }
    if (!rd_any(r, "messages")) {
        reader_fail(r, "missing_required_parameter", "content",
                    "one of 'content', 'prompt' and 'messages' is required");
        return false;
    }
    chat_prompt prompt = {0};
    bool ok = render_messages(r, &prompt) && chat_request_encode(r, &prompt, ids);
    chat_prompt_clear(&prompt);
    return ok;
}

void api_tokenize(http_call *c)
{
    reader r;
    token_list ids = {0};
    bool pieces = false, strs = false;
    if (reader_open(&r, c, READ_TEXT) && read_model(&r)) {
        rd_bool(&r, "with_pieces", &pieces);
        rd_bool(&r, "return_token_strs", &strs);
        if (tokenize_body(&r, &ids) && !r.failed) {
            buf b = {0};
            put_tokens(r.a, &ids, pieces, strs, &b);
            if (r.ignored.len) http_add_header(c, "x-quern-ignored", "%s", r.ignored.v);
            http_reply(c, 200, "application/json", &b);
        }
    }
    token_list_clear(&ids);
    reader_close(&r);
}

static bool read_token_array(reader *r, token_list *ids)
{
    const json *j = rd_any(r, "tokens");
    size_t i = 0;
    int n_vocab = engine_info(r->a->eng)->n_vocab;
    if (!j || j->type != JSON_ARRAY) {
        reader_fail(r, j ? "invalid_type" : "missing_required_parameter", "tokens",
                    "'tokens' must be an array of token ids");
        return false;
    }
    for (const json *t = j->child; t && !r->failed; t = t->next, i++) {
        int64_t id;
        char param[40];
        snprintf(param, sizeof param, "tokens[%zu]", i);
        if (!json_int(t, &id))
            reader_fail(r, "invalid_type", param, "'%s' must be a token id", param);
        else if (id < 0 || id >= n_vocab ||
                 !tokenizer_piece(engine_info(r->a->eng)->tok, (int32_t)id, &(size_t){0}))
            reader_fail(r, "invalid_value", param,
                        "'%s' must be a token id between 0 and %d, got %" PRId64, param,
                        n_vocab - 1, id);
        else if (!token_list_push(ids, (int32_t)id))
            reader_fail(r, "invalid_value", "tokens", "'tokens' is too long");
    }
    return !r->failed;
}

void api_detokenize(http_call *c)
{
    reader r;
    token_list ids = {0};
    buf text = {0};
    err e = {0};
    if (reader_open(&r, c, READ_TEXT) && read_model(&r) && read_token_array(&r, &ids)) {
        read_unknown(&r);
        if (tokenizer_decode(engine_info(r.a->eng)->tok, ids.v, ids.n, false, &text, &e)) {
            reader_fail(&r, "invalid_value", "tokens", "%s", e.msg);
        } else {
            buf b = {0};
            buf_puts(&b, "{\"content\":");
            buf_put_json(&b, buf_str(&text), text.len);
            buf_puts(&b, ",\"prompt\":");
            buf_put_json(&b, buf_str(&text), text.len);
            buf_putc(&b, '}');
            if (r.ignored.len) http_add_header(c, "x-quern-ignored", "%s", r.ignored.v);
            http_reply(c, 200, "application/json", &b);
        }
    }
    buf_clear(&text);
    token_list_clear(&ids);
    reader_close(&r);
}

void api_apply_template(http_call *c)
{
    reader r;
    chat_prompt prompt = {0};
    if (reader_open(&r, c, READ_TEXT) && render_messages(&r, &prompt)) {
        buf b = {0};
        buf_puts(&b, "{\"prompt\":");
        buf_put_json(&b, buf_str(&prompt.prompt.text), prompt.prompt.text.len);
        buf_putc(&b, '}');
        if (r.ignored.len) http_add_header(c, "x-quern-ignored", "%s", r.ignored.v);
        http_reply(c, 200, "application/json", &b);
    }
    chat_prompt_clear(&prompt);
    reader_close(&r);
}
