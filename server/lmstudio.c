/* lmstudio.c - see lmstudio.h: what /api/v0 adds to OpenAI's replies (API L2).  Owns nothing.  Any
 * thread. */
#include "server/lmstudio.h"

#include <math.h>
#include <string.h>

bool lmstudio_v0(const http_call *c)
{
    return !strncmp(http_path(c), "/api/v0/", 8);
}

lmstudio_pace lmstudio_pace_of(const gen *g)
{
    double first = 0, generation = 0;
    int64_t n = 0;
    for (int i = 0; i < g->n_prompt; i++) {
        request_stats u = request_usage(g->req[i]);
        n += u.n_generated;
        if (!u.first_token_us) continue;
        double f = (double)(u.first_token_us - u.arrival_us) / 1e6;
        double e = (double)(u.finished_us - u.first_token_us) / 1e6;
        if (!first || f < first) first = f;
        if (u.finished_us && e > generation) generation = e;
    }
    double rate = generation > 0 ? round((double)n / generation * 100) / 100 : 0;
    return (lmstudio_pace){first, generation, rate};
}

static const char *stop_reason(const gen *g)
{
    const choice *c = &g->choice[0];
    request_stats u = request_usage(g->req[0]);
    if (c->finish == FINISH_LENGTH)
        return u.n_prompt + u.n_generated / g->p.n >= engine_info(g->a->eng)->ctx
                   ? "contextLengthReached"
                   : "maxPredictedTokensReached";
    if (c->n_whole) return "toolCalls";
    return c->stop_index >= 0 || c->stop_id >= 0 ? "stopStringFound" : "eosFound";
}

void lmstudio_put_model(const app *a, buf *out)
{
    const engine_info_t *info = engine_info(a->eng);
    buf_puts(out, ",\"model_info\":{");
    tr_str(out, "arch", info->arch, strlen(info->arch));
    tr_str(out, "quant", info->quantization, strlen(info->quantization));
    buf_printf(out,
               ",\"format\":\"%s\",\"context_length\":%lld},\"runtime\":{\"name\":\"quern\","
               "\"version\":\"%s\",\"supported_formats\":[\"gguf\",\"safetensors\"]}",
               info->gguf ? "gguf" : "safetensors", (long long)info->ctx, QUERN_VERSION);
}

void lmstudio_put_stats(const gen *g, buf *out)
{
    lmstudio_pace p = lmstudio_pace_of(g);
    buf_puts(out, ",\"stats\":{\"tokens_per_second\":");
    buf_put_num(out, p.tokens_per_second);
    buf_puts(out, ",\"time_to_first_token\":");
    buf_put_num(out, p.first_token);
    buf_puts(out, ",\"generation_time\":");
    buf_put_num(out, p.generation);
    buf_printf(out, ",\"stop_reason\":\"%s\"}", stop_reason(g));
    lmstudio_put_model(g->a, out);
}
