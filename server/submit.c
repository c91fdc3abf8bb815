/* submit.c - see submit.h.  Owns nothing. */
#include "server/submit.h"

#include "server/app.h"
#include "server/reply.h"

#include <math.h>
#include <stdio.h>

gen_fault submit_fault(int code)
{
    switch (code) {
    case ERR_DEADLINE:
        return (gen_fault){504, "timeout_error", "deadline_exceeded",
                           "the deadline passed before the reply was complete"};
    case ERR_SHUTDOWN:
        return (gen_fault){503, "unavailable_error", "shutting_down",
                           "the server is shutting down"};
    case ERR_BUSY:
        return (gen_fault){503, "unavailable_error", "model_loading", "the model is still loading"};
    case ERR_INVALID:
        return (gen_fault){500, "server_error", "grammar_limit",
                           "the grammar came to a place where no token of this model can go on"};
    case ERR_LIMIT:
        return (gen_fault){500, "server_error", "grammar_limit",
                           "the grammar came to a place that needs more work or nesting than one "
                           "token may cost; a smaller or less ambiguous one avoids that"};
    case ERR_NOMEM:
        return (gen_fault){503, "unavailable_error", "out_of_memory",
                           "not enough KV cache for this request now"};
    default: return (gen_fault){500, "server_error", "internal_error", "internal error, see log"};
    }
}

static int retry_after(const app *a)
{
    engine_counters k;
    engine_stats(a->eng, &k);
    double s = k.tok_per_s > 0 ? (double)k.waiting * 64 / k.tok_per_s : 5;
    return s < 1 ? 1 : s > 60 ? 60 : (int)ceil(s);
}

static const char long_words[] =
    "This model's maximum context length is %lld tokens. However, your prompt has %lld tokens. "
    "Please shorten the prompt.%s";

void submit_too_long(http_call *c, const char *param, int item, int64_t n_tokens)
{
    const engine_info_t *i = engine_info(http_app(c)->eng);
    long long ctx = i->ctx, n = (long long)n_tokens;
    char at[64], msg[280];
    buf b = {0};
    dialect d = reply_dialect(c);
    if (d == DIALECT_ANTHROPIC) {
        reply_fail(c, 400, NULL, NULL, NULL,
                   "prompt is too long: %lld tokens > %lld maximum (maximum context length is %lld "
                   "tokens)",
                   n, ctx, ctx);
        return;
    }
    snprintf(msg, sizeof msg, long_words, ctx, n,
             i->step_bound ? " Longer ones need a server started with a larger "
                             "--max-num-batched-tokens."
                           : "");
    if (d != DIALECT_OPENAI) {
        reply_fail(c, 400, "invalid_request_error", "context_length_exceeded", param, "%s", msg);
        return;
    }
    if (item >= 0) snprintf(at, sizeof at, "%.40s[%d]", param, item);
    else snprintf(at, sizeof at, "%.60s", param);
    buf_printf(&b,
               "{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\",\"param\":\"%s\","
               "\"code\":\"context_length_exceeded\",\"n_prompt_tokens\":%lld,\"n_ctx\":%lld}}",
               msg, at, n, ctx);
    http_set_code(c, "context_length_exceeded");
    http_reply(c, 400, "application/json", &b);
}

void submit_failed(http_call *c, const char *param, int rc, const err *e)
{
    if (rc == ERR_LIMIT) {
        http_add_header(c, "Retry-After", "%d", retry_after(http_app(c)));
        reply_fail(c, 429, "rate_limit_error", "rate_limit_exceeded", NULL,
                   "the queue is full; try again later");
        return;
    }
    if (rc == ERR_INVALID || rc == ERR_UNSUPPORTED) {
        reply_fail(c, 400, "invalid_request_error", "invalid_value", param, "%s", e->msg);
        return;
    }
    gen_fault w = submit_fault(rc);
    if (w.status == 503) http_add_header(c, "Retry-After", "%d", rc == ERR_SHUTDOWN ? 30 : 5);
    if (rc == ERR_SHUTDOWN) http_close(c);
    reply_fail(c, w.status, w.type, w.code, NULL, "%s",
               rc == ERR_NOMEM && e->msg[0] ? e->msg : w.msg);
}

void submit_late(http_call *c, int code)
{
    gen_fault w = submit_fault(code);
    if (w.status == 503) http_add_header(c, "Retry-After", "%d", 5);
    reply_fail(c, w.status, w.type, w.code, NULL, "%s%s%s", w.msg,
               w.status == 500 ? ", request id " : "", w.status == 500 ? http_request_id(c) : "");
}

const char *submit_salt(const http_call *c, const char *salt, char room[SUBMIT_SALT])
{
    if (!http_app(c)->opt->cache_per_key || !http_key_hash(c)) return salt;
    snprintf(room, SUBMIT_SALT, "%016llx:%s", (unsigned long long)http_key_hash(c),
             salt ? salt : "");
    return room;
}
