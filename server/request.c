/* request.c - the reader: typed access to a body's fields with errors by API E3 and V1-V6.
 * Owns nothing beyond the reader.  Thread: one owner. */
#include "server/request.h"

#include "server/metrics.h"
#include "server/reply.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool reader_open(reader *r, http_call *c, read_kind kind)
{
    size_t n;
    const char *text = http_body(c, &n);
    err e = {0};
    *r = (reader){.call = c, .a = http_app(c), .kind = kind};
    r->doc = json_parse(text, n, NULL, &r->body, &e);
    if (!r->doc) {
        reader_fail(r, "invalid_json", NULL, "request body is not valid JSON: %s", e.msg);
        return false;
    }
    if (r->body->type != JSON_OBJECT) {
        reader_fail(r, "invalid_type", NULL, "request body must be a JSON object, got %s",
                    json_type_name(r->body));
        return false;
    }
    return true;
}

void reader_close(reader *r)
{
    json_free(r->doc);
    json_free(r->source);
    buf_clear(&r->ignored);
    conversation_free(r->talk);
    r->talk = NULL;
    r->doc = r->source = NULL;
    r->body = r->sent = NULL;
}

/* Bytes of path[n] that a name of ours covers: it must end where a member, an index or a pointer
 * begins; [] stands for any index, which goes to *index.  0: it does not. */
static size_t covers(const char *name, const char *path, size_t n, size_t *index)
{
    size_t k = 0;
    for (; *name; name++) {
        if (k == n || path[k] != *name) return 0;
        k++;
        if (*name != '[' || name[1] != ']') continue;
        *index = k;
        while (k < n && path[k] >= '0' && path[k] <= '9') k++;
    }
    return k == n || strchr(".[#", path[k]) ? k : 0;
}

/* The place that our tool s[n] has in the client's list. */
static int client_index(const reader *r, const char *s, size_t n)
{
    int left = 0, i = 0;
    for (size_t k = 0; k < n && left < 512; k++) left = left * 10 + (s[k] - '0');
    for (; i < 512; i++)
        if (!(r->left_out[i / 8] >> i % 8 & 1) && !left--) break;
    return i;
}

/* Appends path[n] as the dialect calls it: by the longest of our names that covers its beginning.
 * False: none does. */
static bool put_renamed(const reader *r, const char *path, size_t n, buf *out)
{
    const char *best = NULL;
    size_t used = 0, index = 0;
    for (const char *const *p = r->names; p && *p; p += 2) {
        size_t at = 0, k = covers(p[0], path, n, &at);
        if (k <= used) continue;
        best = p[1];
        used = k;
        index = at;
    }
    if (!best) return false;
    const char *gap = strstr(best, "[]");
    size_t head = gap ? (size_t)(gap + 1 - best) : strlen(best);
    buf_put(out, best, head);
    if (gap) buf_put_int(out, client_index(r, path + index, strspn(path + index, "0123456789")));
    buf_puts(out, best + head);
    buf_put(out, path + used, n - used);
    return true;
}

/* Fields are told as the client wrote them: in param, and in the message where they stand in
 * quotes. */
static void fail_renamed(reader *r, const char *code, const char *param, const char *msg)
{
    buf p = {0}, m = {0};
    if (param && !put_renamed(r, param, strlen(param), &p)) buf_puts(&p, param);
    for (const char *s = msg; *s;) {
        const char *end = *s == '\'' ? strchr(s + 1, '\'') : NULL;
        buf_putc(&m, *s++);
        if (!end || !put_renamed(r, s, (size_t)(end - s), &m)) continue;
        buf_putc(&m, '\'');
        s = end + 1;
    }
    reply_fail(r->call, 400, "invalid_request_error", code, param ? buf_str(&p) : NULL, "%s",
               buf_str(&m));
    buf_clear(&p);
    buf_clear(&m);
}

void reader_fail(reader *r, const char *code, const char *param, const char *fmt, ...)
{
    char msg[REPLY_MESSAGE_MAX];
    va_list ap;
    if (r->failed) return;
    r->failed = true;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    fail_renamed(r, code, param, msg);
}

void reader_oom(reader *r)
{
    if (!r->failed) reply_oom(r->call);
    r->failed = true;
}

void reader_ignore(reader *r, const char *name, size_t n)
{
    enum { MAX = 512 };
    metrics_ignored_field();
    if (r->n_ignored < 0) return;
    char clean[65];
    size_t k = 0;
    for (size_t i = 0; i < n && k < 64; i++) {
        char c = name[i];
        bool ok = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '.' || c == '-' || c == '[' || c == ']';
        if (ok) clean[k++] = c;
    }
    if (!k) return;
    if (r->ignored.len + k + 1 > MAX) {
        buf_puts(&r->ignored, "...");
        r->n_ignored = -1;
        return;
    }
    if (r->n_ignored++) buf_putc(&r->ignored, ',');
    buf_put(&r->ignored, clean, k);
}

void reader_ignore_ours(reader *r, const char *name, size_t n)
{
    buf theirs = {0};
    if (put_renamed(r, name, n, &theirs) && buf_ok(&theirs)) reader_ignore(r, theirs.v, theirs.len);
    else reader_ignore(r, name, n);
    buf_clear(&theirs);
}

const json *rd_any(reader *r, const char *name)
{
    if (r->failed) return NULL;
    const json *j = json_get(r->body, name);
    return j && j->type != JSON_NULL ? j : NULL;
}

/* What was got, for messages: a scalar's text cut at 64 bytes, or the type's name. */
static const char *shown(const json *j, char out[72])
{
    if (j->type == JSON_NUMBER) snprintf(out, 72, "%.64s", j->str);
    else if (j->type == JSON_STRING) snprintf(out, 72, "a string");
    else
        snprintf(out, 72, "%s",
                 j->type == JSON_TRUE    ? "true"
                 : j->type == JSON_FALSE ? "false"
                                         : json_type_name(j));
    return out;
}

bool rd_bool(reader *r, const char *name, bool *out)
{
    const json *j = rd_any(r, name);
    char got[72];
    if (!j) return false;
    if (!json_is_bool(j)) {
        reader_fail(r, "invalid_type", name, "'%s' must be true or false, got %s", name,
                    shown(j, got));
        return false;
    }
    *out = j->type == JSON_TRUE;
    return true;
}

bool rd_int(reader *r, const char *name, int64_t lo, int64_t hi, int64_t *out)
{
    const json *j = rd_any(r, name);
    char got[72];
    int64_t v = 0;
    if (!j) return false;
    bool whole = json_int(j, &v);
    /* An integral number beyond int64 is out of range, not of the wrong type. */
    bool huge = !whole && j->type == JSON_NUMBER && fabs(json_num(j)) >= 9.2e18;
    if (!whole && !huge) {
        reader_fail(r, "invalid_type", name, "'%s' must be an integer, got %s", name,
                    shown(j, got));
        return false;
    }
    if (huge || v < lo || v > hi) {
        if (hi == INT64_MAX && lo == INT64_MIN)
            reader_fail(r, "invalid_value", name, "'%s' must fit a signed 64-bit integer, got %s",
                        name, shown(j, got));
        else if (hi == INT64_MAX && json_num(j) < 0x1p63)
            reader_fail(r, "invalid_value", name,
                        "'%s' must be an integer of at least %" PRId64 ", got %s", name, lo,
                        shown(j, got));
        else
            reader_fail(r, "invalid_value", name,
                        "'%s' must be an integer between %" PRId64 " and %" PRId64 ", got %s", name,
                        lo, hi, shown(j, got));
        return false;
    }
    *out = v;
    return true;
}

bool rd_num(reader *r, const char *name, double lo, double hi, double *out)
{
    const json *j = rd_any(r, name);
    char got[72];
    if (!j) return false;
    if (j->type != JSON_NUMBER) {
        reader_fail(r, "invalid_type", name, "'%s' must be a number, got %s", name, shown(j, got));
        return false;
    }
    double v = json_num(j);
    if (!(v >= lo && v <= hi)) {
        reader_fail(r, "invalid_value", name, "'%s' must be a number between %g and %g, got %s",
                    name, lo, hi, shown(j, got));
        return false;
    }
    *out = v;
    return true;
}

bool rd_str(reader *r, const char *name, size_t lo, size_t hi, const char **out, size_t *n)
{
    const json *j = rd_any(r, name);
    char got[72];
    if (!j) return false;
    if (j->type != JSON_STRING) {
        reader_fail(r, "invalid_type", name, "'%s' must be a string, got %s", name, shown(j, got));
        return false;
    }
    if (j->len < lo && hi == SIZE_MAX) {
        reader_fail(r, "invalid_value", name, "'%s' must have at least %zu bytes, got %zu", name,
                    lo, j->len);
        return false;
    }
    if (j->len < lo || j->len > hi) {
        reader_fail(r, "invalid_value", name, "'%s' must have %zu to %zu bytes, got %zu", name, lo,
                    hi, j->len);
        return false;
    }
    *out = j->str;
    if (n) *n = j->len;
    return true;
}

void reader_no_media(reader *r, const char *at, const char *kind)
{
    const char *model = read_model(r);
    if (model)
        reader_fail(r, "unsupported_modality", at, "model '%.64s' does not accept %s input ('%s')",
                    model, kind, at);
}

const char *read_model(reader *r)
{
    const char *name = "";
    rd_str(r, "model", 0, 1024, &name, NULL);
    if (r->failed) return NULL;
    const char *hit = app_match_model(r->a, name);
    if (!hit) {
        r->failed = true;
        reply_fail(r->call, 404, "invalid_request_error", "model_not_found", "model",
                   "The model `%.64s` does not exist", name);
    }
    return hit;
}
