/* api_props.c - GET /props and /slots: what the server is set to and what its places do, as
 * llama.cpp words it (API K4, K5).  Never any text of a request.  Owns nothing.  Any HTTP thread.
 */
#include "server/api.h"
#include "server/app.h"
#include "server/llama.h"
#include "server/reply.h"
#include "server/translate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_num(buf *out, const char *name, double v)
{
    tr_name(out, name);
    /* A float's own digits, not those of the double it becomes. */
    char t[32];
    snprintf(t, sizeof t, "%.6g", v);
    buf_puts(out, t);
}

static void put_int(buf *out, const char *name, int64_t v)
{
    tr_name(out, name);
    buf_put_int(out, v);
}

static void put_bool(buf *out, const char *name, bool v)
{
    tr_name(out, name);
    buf_puts(out, v ? "true" : "false");
}

void llama_put_settings(const sampling *s, buf *out)
{
    put_int(out, "n_predict", s->max_tokens);
    put_int(out, "max_tokens", s->max_tokens);
    put_int(out, "min_tokens", s->min_tokens);
    put_int(out, "seed", (int64_t)s->seed);
    put_num(out, "temperature", (double)s->temperature);
    put_int(out, "top_k", s->top_k);
    put_num(out, "top_p", (double)s->top_p);
    put_num(out, "min_p", (double)s->min_p);
    put_int(out, "repeat_last_n", s->repeat_last_n);
    put_num(out, "repeat_penalty", (double)s->repetition);
    put_num(out, "presence_penalty", (double)s->presence);
    put_num(out, "frequency_penalty", (double)s->frequency);
    put_bool(out, "ignore_eos", s->ignore_eos);
    put_int(out, "n_probs", s->n_logprobs > 0 ? s->n_logprobs : 0);
    tr_name(out, "stop");
    buf_putc(out, '[');
    for (int i = 0; s->stop && i < s->n_stop; i++) {
        if (i) buf_putc(out, ',');
        buf_put_json(out, s->stop[i], s->stop_len[i]);
    }
    buf_putc(out, ']');
    tr_name(out, "logit_bias");
    buf_putc(out, '[');
    for (int i = 0; s->bias_id && i < s->n_bias; i++) {
        buf_printf(out, "%s{\"token\":%d,\"bias\":%.6g}", i ? "," : "", s->bias_id[i],
                   (double)s->bias[i]);
    }
    buf_putc(out, ']');
    buf_puts(out, ",\"samplers\":[\"penalties\",\"temperature\",\"top_k\",\"top_p\",\"min_p\"]");
}

static void put_settings(buf *out, const char *name, const sampling *s)
{
    tr_name(out, name);
    buf_putc(out, '{');
    llama_put_settings(s, out);
    buf_putc(out, '}');
}

void api_props(http_call *c)
{
    const app *a = http_app(c);
    const engine_info_t *info = engine_info(a->eng);
    const template_traits *t = chat_format_traits(info->chat);
    const char *text = chat_format_text(info->chat), *bos = tokenizer_bos_text(info->tok),
               *eos = tokenizer_eos_text(info->tok);
    sampling s = sampling_default(a->eng);
    s.seed = UINT64_MAX; /* -1: a random one */
    buf out = {0};
    buf_puts(&out, "{\"default_generation_settings\":{");
    put_int(&out, "n_ctx", info->ctx);
    put_settings(&out, "params", &s);
    buf_putc(&out, '}');
    put_int(&out, "total_slots", info->max_num_seqs);
    tr_str(&out, "model_path", info->name, strlen(info->name));
    tr_str(&out, "model_alias", a->names.v[0], strlen(a->names.v[0]));
    tr_str(&out, "chat_template", text, strlen(text));
    tr_name(&out, "chat_template_caps");
    buf_putc(&out, '{');
    put_bool(&out, "supports_tools", t->tools);
    put_bool(&out, "supports_tool_calls", true); /* those without get a section of ours */
    put_bool(&out, "supports_parallel_tool_calls", true);
    put_bool(&out, "supports_system_role", true);
    put_bool(&out, "supports_thinking", t->think);
    put_bool(&out, "requires_typed_content", t->parts);
    buf_puts(&out, "},\"modalities\":{\"vision\":false,\"audio\":false}");
    tr_name(&out, "build_info");
    buf_put_json(&out, "quern-" QUERN_VERSION "-" QUERN_COMMIT,
                 strlen("quern-" QUERN_VERSION "-" QUERN_COMMIT));
    put_bool(&out, "is_sleeping", false);
    tr_str(&out, "bos_token", bos, strlen(bos));
    tr_str(&out, "eos_token", eos, strlen(eos));
    put_int(&out, "n_ctx", info->ctx);
    buf_putc(&out, '}');
    http_reply(c, 200, "application/json", &out);
}

static void put_slot(const engine_slot *v, int i, const engine_info_t *info, buf *out)
{
    buf_puts(out, i ? ",{" : "{");
    put_int(out, "id", i);
    put_int(out, "id_task", v->busy ? (int64_t)v->task : -1);
    put_int(out, "n_ctx", info->ctx);
    put_bool(out, "is_processing", v->busy);
    put_bool(out, "speculative", false);
    tr_name(out, "params");
    buf_putc(out, '{');
    if (v->busy) llama_put_settings(&v->s, out);
    buf_printf(out, "},\"next_token\":{\"n_decoded\":%d,\"n_remain\":%lld,\"has_next_token\":%s}",
               v->n_decoded, (long long)v->n_remain, v->n_remain > 0 ? "true" : "false");
    put_int(out, "prompt_tokens", v->n_prompt);
    put_int(out, "cached_tokens", v->n_cached);
    buf_putc(out, '}');
}

void api_slots(http_call *c)
{
    const app *a = http_app(c);
    const engine_info_t *info = engine_info(a->eng);
    const char *only_free = http_query(c, "fail_on_no_slot");
    int n = info->max_num_seqs, idle = 0;
    if (a->opt->no_slots) {
        reply_fail(c, 501, "not_implemented_error", "not_implemented", "/slots",
                   "/slots is turned off; start the server without --no-slots");
        return;
    }
    engine_slot *v = calloc((size_t)n, sizeof *v);
    if (!v) {
        reply_oom(c);
        return;
    }
    buf out = {0};
    engine_slots(a->eng, v);
    buf_putc(&out, '[');
    for (int i = 0; i < n; i++) {
        idle += !v[i].busy;
        put_slot(&v[i], i, info, &out);
    }
    buf_putc(&out, ']');
    free(v);
    if (idle || !only_free || strcmp(only_free, "1")) {
        http_reply(c, 200, "application/json", &out);
        return;
    }
    buf_clear(&out);
    http_add_header(c, "Retry-After", "%d", 1);
    reply_fail(c, 503, "unavailable_error", "no_slot_available", NULL,
               "all %d slots are processing a request", n);
}
