/* params_output.c - the generation fields that say what is sent and how: streams, usage, logprobs,
 * what is kept of a long prompt, place in the queue and deadline (API G1, G7, G12, G14, G18, H12).
 * Owns nothing.  Refuses values out of range, naming the field.  Thread: prep. */
#include "server/request.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* G12, P2. */
static void read_logprobs(params *p, reader *r)
{
    int64_t v = 0;
    p->s.n_logprobs = -1;
    p->s.n_prompt_logprobs = -1;
    if (r->kind == READ_COMPLETIONS) {
        if (rd_int(r, "logprobs", 0, 20, &v)) {
            p->logprobs = true;
            p->s.n_logprobs = (int)v;
        }
        return;
    }
    if (r->kind == READ_LLAMA) {
        rd_int(r, "n_probs", 0, 20, &v);
        p->logprobs = v > 0;
        if (v) p->s.n_logprobs = (int)v;
        return;
    }
    rd_bool(r, "logprobs", &p->logprobs);
    bool top = rd_int(r, "top_logprobs", 0, 20, &v);
    if (top && v > 0 && !p->logprobs)
        reader_fail(r, "invalid_value", "top_logprobs", "'top_logprobs' needs 'logprobs': true");
    if (p->logprobs) p->s.n_logprobs = (int)v;
}

static void read_prompt_logprobs(params *p, reader *r)
{
    int64_t v;
    if (!rd_int(r, "prompt_logprobs", 0, 20, &v)) return;
    if (p->stream)
        reader_fail(r, "invalid_value", "prompt_logprobs",
                    "'prompt_logprobs' cannot be combined with 'stream': true");
    p->prompt_logprobs = (int)v;
    p->s.n_prompt_logprobs = (int)v;
}

/* A boolean member of stream_options. */
static bool stream_option(reader *r, const json *o, const char *name)
{
    const json *v = json_get(o, name);
    char param[64];
    if (!v || v->type == JSON_NULL) return false;
    snprintf(param, sizeof param, "stream_options.%s", name);
    if (!json_is_bool(v))
        reader_fail(r, "invalid_type", param, "'%s' must be true or false, got %s", param,
                    json_type_name(v));
    return v->type == JSON_TRUE;
}

/* C8.  Usage on every chunk only where there is usage at all. */
static void read_stream(params *p, reader *r)
{
    static const char continuous[] = "stream_options.continuous_usage_stats";
    rd_bool(r, "stream", &p->stream);
    const json *o = rd_any(r, "stream_options");
    if (!o || r->kind == READ_LLAMA) return; /* listed */
    if (o->type != JSON_OBJECT) {
        reader_fail(r, "invalid_type", "stream_options",
                    "'stream_options' must be an object, got %s", json_type_name(o));
        return;
    }
    if (!p->stream)
        reader_fail(r, "invalid_value", "stream_options", "'stream_options' needs 'stream': true");
    p->include_usage = stream_option(r, o, "include_usage");
    p->continuous_usage = stream_option(r, o, "continuous_usage_stats");
    if (p->continuous_usage && !p->include_usage)
        reader_ignore(r, continuous, sizeof continuous - 1);
    p->continuous_usage &= p->include_usage;
}

static void read_delivery(params *p, reader *r)
{
    int64_t v;
    if (rd_int(r, "sse_ping_interval", -1, 3600, &v)) {
        if (v == 0)
            reader_fail(r, "invalid_value", "sse_ping_interval",
                        "'sse_ping_interval' must be -1 or at least 1");
        p->ping = (double)v;
    }
    const json *n = rd_any(r, "n");
    if (n && rd_int(r, "n", 1, INT64_MAX, &v)) {
        int most = r->kind == READ_LLAMA ? 1 : 128;
        if (v > most)
            reader_fail(r, "unsupported_value", "n", "'n' above %d is not supported", most);
        else p->n = (int)v;
    }
    rd_bool(r, "echo", &p->echo);
    rd_bool(r, "return_token_ids", &p->return_token_ids);
    if (r->kind == READ_LLAMA) {
        bool special; /* the models add none */
        rd_bool(r, "return_tokens", &p->return_token_ids);
        rd_bool(r, "add_special", &special);
    }
    rd_bool(r, "return_tokens_as_token_ids", &p->ids_as_names);
    rd_bool(r, "timings_per_token", &p->timings_per_token);
    rd_bool(r, "return_progress", &p->return_progress);
}

/* G18. */
static void read_sharing(params *p, reader *r)
{
    int64_t v;
    if (rd_int(r, "priority", INT32_MIN, INT32_MAX, &v)) {
        if (r->a->opt->allow_priority) p->priority = (int)v;
        else reader_ignore(r, "priority", 8);
    }
    rd_str(r, "cache_salt", 1, 128, &p->cache_salt, NULL);
    rd_bool(r, "cache_prompt", &p->cache_prompt);
}

/* G7: only raw prompts are cut at a token; a conversation is not. */
static void read_truncation(params *p, reader *r)
{
    const char *side = "left";
    bool keeps = rd_int(r, "truncate_prompt_tokens", -1, INT64_MAX, &p->truncate);
    bool sided = rd_str(r, "truncation_side", 0, 64, &side, NULL);
    p->truncate_right = !strcmp(side, "right");
    if (sided && !p->truncate_right && strcmp(side, "left"))
        reader_fail(r, "invalid_value", "truncation_side",
                    "'truncation_side' must be left or right");
    if (keeps && p->truncate == 0)
        reader_fail(r, "invalid_value", "truncate_prompt_tokens",
                    "'truncate_prompt_tokens' must be -1 or at least 1: nothing would be left");
    if (r->kind != READ_CHAT && r->kind != READ_LLAMA) return;
    if (keeps) reader_ignore(r, "truncate_prompt_tokens", 22);
    if (sided) reader_ignore(r, "truncation_side", 15);
    p->truncate = 0;
}

int64_t prompt_cut(token_list *l, int64_t k, bool right)
{
    if ((int64_t)l->n <= k) return 0;
    int64_t gone = (int64_t)l->n - k;
    if (!right) memmove(l->v, l->v + gone, (size_t)k * sizeof *l->v);
    l->n = (size_t)k;
    return gone;
}

/* H12: the smaller of --request-timeout and x-quern-timeout-ms, from arrival. */
static void read_deadline(params *p, reader *r)
{
    double limit = r->a->opt->request_timeout;
    const char *h = http_header(r->call, "x-quern-timeout-ms");
    if (h && !r->failed) {
        char *end;
        double ms = strtod(h, &end);
        if (end == h || *end || !(ms >= 1 && ms <= 1e10)) {
            reader_fail(r, "invalid_value", "x-quern-timeout-ms",
                        "header 'x-quern-timeout-ms' must be milliseconds between 1 and 1e10");
            return;
        }
        if (limit <= 0 || ms / 1e3 < limit) limit = ms / 1e3;
    }
    if (limit > 0) p->deadline_us = http_arrival_us(r->call) + (int64_t)(limit * 1e6);
}

void read_order_fields(params *p, reader *r)
{
    read_sharing(p, r);
    read_truncation(p, r);
    read_deadline(p, r);
}

void read_output_fields(params *p, reader *r)
{
    read_stream(p, r);
    read_logprobs(p, r);
    read_prompt_logprobs(p, r);
    read_delivery(p, r);
    read_order_fields(p, r);
}
