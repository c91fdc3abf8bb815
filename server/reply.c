/* reply.c - wire text shared by all handlers; see reply.h.  Any thread. */
#include "server/reply.h"

#include <cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Anthropic's error.type by status (E4). */
static const char *anthropic_type(int status)
{
    switch (status) {
    case 400:
    case 405:
    case 411:
    case 415: return "invalid_request_error";
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    default: return "api_error";
    }
}

static const char *lmstudio_type(int status, const char *code)
{
    if (status == 400) return "invalid_request";
    if (status == 404 && code && !strcmp(code, "model_not_found")) return "model_not_found";
    if (status == 501) return "not_implemented";
    return "internal_error";
}

void reply_put_str(buf *b, const char *name, const char *value)
{
    buf_printf(b, "\"%s\":", name);
    if (value) buf_put_json(b, value, strlen(value));
    else buf_puts(b, "null");
}

void reply_error(buf *out, dialect d, const char *request_id, int status, const char *type,
                 const char *code, const char *param, const char *msg)
{
    if (d == DIALECT_OLLAMA) {
        buf_puts(out, "{");
        reply_put_str(out, "error", msg);
        buf_puts(out, "}");
        return;
    }
    if (d == DIALECT_ANTHROPIC) buf_puts(out, "{\"type\":\"error\",\"error\":{");
    else buf_puts(out, "{\"error\":{");
    if (d == DIALECT_ANTHROPIC) {
        reply_put_str(out, "type", anthropic_type(status));
        buf_putc(out, ',');
        reply_put_str(out, "message", msg);
        buf_puts(out, "},");
        reply_put_str(out, "request_id", request_id);
        buf_puts(out, "}");
        return;
    }
    reply_put_str(out, "message", msg);
    buf_putc(out, ',');
    reply_put_str(out, "type", d == DIALECT_LMSTUDIO ? lmstudio_type(status, code) : type);
    if (d == DIALECT_OPENAI || param) {
        buf_putc(out, ',');
        reply_put_str(out, "param", param);
    }
    if (d == DIALECT_OPENAI || code) {
        buf_putc(out, ',');
        reply_put_str(out, "code", code);
    }
    buf_puts(out, "}}");
}

dialect reply_dialect(const http_call *c)
{
    return route_dialect(http_path(c), http_header(c, "anthropic-version") != NULL);
}

void reply_fail(http_call *c, int status, const char *type, const char *code, const char *param,
                const char *fmt, ...)
{
    char msg[REPLY_MESSAGE_MAX];
    va_list ap;
    buf b = {0};
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    reply_error(&b, reply_dialect(c), http_request_id(c), status, type, code, param, msg);
    http_set_code(c, code);
    if (status == 503) http_add_header(c, "Retry-After", "%d", 5); /* unless the caller knew */
    http_reply(c, status, "application/json", &b);
}

void reply_oom(http_call *c)
{
    reply_fail(c, 503, "unavailable_error", "out_of_memory", NULL, "out of memory");
}

void reply_json(http_call *c, int status, struct cJSON *o)
{
    char *text = o ? cJSON_PrintUnformatted(o) : NULL;
    buf b = {0};
    if (text) buf_puts(&b, text);
    free(text);
    cJSON_Delete(o);
    if (text && buf_ok(&b)) {
        http_reply(c, status, "application/json", &b);
        return;
    }
    buf_clear(&b);
    reply_oom(c);
}

void reply_not_built(http_call *c, const char *param)
{
    reply_fail(c, 501, "not_implemented_error", "not_implemented", param,
               "%s%s%s is not supported by this version of the server", param ? "'" : "",
               param ? param : "this route", param ? "'" : "");
}

void reply_id(char *out, size_t cap, const char *prefix)
{
    static const char digit[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    unsigned char r[24];
    if (getrandom(r, sizeof r, 0) != sizeof r) memset(r, 7, sizeof r);
    size_t n = (size_t)snprintf(out, cap, "%s", prefix);
    for (size_t i = 0; i < sizeof r && n + 1 < cap; i++) out[n++] = digit[r[i] % 62];
    out[n] = 0;
}
