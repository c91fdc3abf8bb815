/* gate.c - framing, Host, Origin and key checks; see gate.h.  Owns the keys.  Thread: any. */
#include "server/gate.h"

#include "base/utf8.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>

struct gate {
    keys *keys;
    char **host; /* [n_host] --allowed-hosts */
    int n_host;
    char own_name[256];
    char *cors; /* NULL = default set */
};

/* ---- opening --------------------------------------------------------------------------------- */

int gate_reload_keys(gate *g, err *e)
{
    return keys_reload(g->keys, e);
}

bool gate_has_keys(const gate *g)
{
    return keys_any(g->keys);
}

static char **copy_list(char *const *v, int n)
{
    char **c = calloc((size_t)n + 1, sizeof *c);
    for (int i = 0; c && i < n; i++)
        if (!(c[i] = strdup(v[i]))) {
            while (i--) free(c[i]);
            free(c);
            return NULL;
        }
    return c;
}

static void free_list(char **v, int n)
{
    for (int i = 0; v && i < n; i++) free(v[i]);
    free(v);
}

/* The next item of a comma list, n bytes without the spaces around it; *at moves on. */
static const char *next_item(const char **at, size_t *n)
{
    const char *item = *at + strspn(*at, " ");
    size_t k = strcspn(item, ",");
    *at = item + k + (item[k] == ',');
    while (k && item[k - 1] == ' ') k--;
    *n = k;
    return item;
}

/* scheme://host[:port], or null. */
static bool is_origin(const char *s, size_t n)
{
    const char *rest = memmem(s, n, "://", 3);
    if (!rest) return n == 4 && !memcmp(s, "null", 4);
    return rest > s && !memchr(rest + 3, '/', n - (size_t)(rest + 3 - s));
}

/* Refuses what could never match. */
static int check_lists(const gate_options *o, err *e)
{
    for (int i = 0; i < o->n_allowed_host; i++) {
        const char *name = o->allowed_host[i];
        if (!*name || name[strcspn(name, ":/@*")])
            return err_set(e, ERR_INVALID,
                           "--allowed-hosts takes host names without scheme or port, got '%.64s'",
                           name);
    }
    if (!o->cors || !strcmp(o->cors, "none") || !strcmp(o->cors, "*")) return 0;
    const char *at = o->cors;
    do {
        size_t n;
        const char *item = next_item(&at, &n);
        if (!is_origin(item, n))
            return err_set(e, ERR_INVALID,
                           "--cors-origins takes none, *, or origins such as "
                           "https://app.example.com without a path, got '%.*s'",
                           (int)(n < 64 ? n : 64), item);
    } while (*at);
    return 0;
}

gate *gate_new(const gate_options *o, err *e)
{
    if (check_lists(o, e)) return NULL;
    gate *g = calloc(1, sizeof *g);
    if (!g) goto oom;
    if (!(g->host = copy_list(o->allowed_host, o->n_allowed_host))) goto oom;
    g->n_host = o->n_allowed_host;
    if (o->cors && !(g->cors = strdup(o->cors))) goto oom;
    if (gethostname(g->own_name, sizeof g->own_name - 1)) g->own_name[0] = 0;
    if (!(g->keys = keys_new(o->key, o->n_key, o->key_file, &o->limits, e))) goto fail;
    return g;
oom:
    err_set(e, ERR_NOMEM, "out of memory");
fail:
    gate_free(g);
    return NULL;
}

void gate_free(gate *g)
{
    if (!g) return;
    free_list(g->host, g->n_host);
    free(g->cors);
    keys_free(g->keys);
    free(g);
}

const gate_field *gate_find(const gate_request *r, const char *name)
{
    for (size_t i = 0; i < r->n_field; i++)
        if (!strcasecmp(r->field[i].name, name)) return &r->field[i];
    return NULL;
}

void gate_key(const gate *g, const gate_request *r, key_ref **key, gate_fault *f)
{
    *key = NULL;
    if (!gate_has_keys(g)) return;
    for (size_t i = 0; i < r->n_field; i++) {
        const gate_field *h = &r->field[i];
        const char *v = h->value;
        if (!strcasecmp(h->name, "authorization")) {
            if (strncasecmp(v, "Bearer ", 7)) continue;
            v += 7;
            while (*v == ' ') v++;
        } else if (strcasecmp(h->name, "x-api-key")) {
            continue;
        }
        key_ref *hit = keys_find(g->keys, v, strlen(v));
        if (hit && *key) key_put(hit);
        else if (hit) *key = hit;
    }
    if (*key) return;
    f->status = 401;
    f->type = "authentication_error";
    f->code = "invalid_api_key";
    snprintf(f->msg, sizeof f->msg, "missing or invalid API key");
}

void gate_limit(key_ref *key, int64_t now_us, int *retry_s, gate_fault *f)
{
    key_refusal why;
    if (!key || key_enter(key, now_us, &why)) return;
    *retry_s = why.retry_s;
    f->status = 429;
    f->type = "rate_limit_error";
    f->code = "rate_limit_exceeded";
    snprintf(f->msg, sizeof f->msg, "this API key has used up its %s of %lld %s; try again later",
             why.option, (long long)why.limit,
             !strcmp(why.option, "--key-max-concurrent") ? "requests at a time"
             : !strcmp(why.option, "--key-rpm")          ? "requests a minute"
                                                         : "tokens a minute");
}

/* ---- framing --------------------------------------------------------------------------------- */

static void frame_fault(gate_fault *f, int status, const char *code, const char *msg)
{
    f->status = status;
    f->type = "invalid_request_error";
    f->code = code;
    f->close = true;
    snprintf(f->msg, sizeof f->msg, "%s", msg);
}

static bool is_token(const char *s, size_t n)
{
    if (!n) return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("!#$%&'*+-.^_`|~", s[i])) return false;
    return strlen(s) == n;
}

static const char *const methods[] = {"GET",     "HEAD",  "POST",  "PUT",     "DELETE",
                                      "OPTIONS", "PATCH", "TRACE", "CONNECT", "QUERY"};

static void take_request_id(const gate_request *r, gate_pass *p)
{
    const gate_field *h = gate_find(r, "x-request-id");
    size_t n = h ? h->n_value : 0;
    bool ok = n >= 1 && n <= 128;
    for (size_t i = 0; ok && i < n; i++)
        ok = isalnum((unsigned char)h->value[i]) || (h->value[i] && strchr("._:-", h->value[i]));
    if (ok) {
        memcpy(p->request_id, h->value, n);
        p->request_id[n] = 0;
        return;
    }
    uint64_t v[2] = {0};
    if (getrandom(v, sizeof v, 0) != sizeof v) v[0] = (uint64_t)(uintptr_t)r;
    snprintf(p->request_id, sizeof p->request_id, "req-%016llx%016llx", (unsigned long long)v[0],
             (unsigned long long)v[1]);
}

static bool parse_length(const gate_field *h, uint64_t *out)
{
    uint64_t v = 0;
    if (!h->n_value || h->n_value > 18) return false;
    for (size_t i = 0; i < h->n_value; i++) {
        if (!isdigit((unsigned char)h->value[i])) return false;
        v = v * 10 + (uint64_t)(h->value[i] - '0');
    }
    *out = v;
    return true;
}

/* Length, coding, Host and Expect. */
static void frame_fields(const gate_request *r, gate_pass *p, gate_fault *f)
{
    int n_length = 0, n_coding = 0, n_host = 0;
    const gate_field *length = NULL, *coding = NULL, *expect = gate_find(r, "expect");
    for (size_t i = 0; i < r->n_field; i++) {
        const gate_field *h = &r->field[i];
        if (!strcasecmp(h->name, "content-length")) n_length++, length = h;
        else if (!strcasecmp(h->name, "transfer-encoding")) n_coding++, coding = h;
        else if (!strcasecmp(h->name, "host")) n_host++;
    }
    if (n_length && n_coding) {
        frame_fault(f, 400, "invalid_framing",
                    "both Content-Length and Transfer-Encoding were sent");
    } else if (n_length > 1) {
        frame_fault(f, 400, "invalid_framing", "Content-Length was sent more than once");
    } else if (length && !parse_length(length, &p->length)) {
        frame_fault(f, 400, "invalid_framing", "Content-Length must be decimal digits");
    } else if (n_coding > 1 || (coding && strcasecmp(coding->value, "chunked"))) {
        frame_fault(f, 501, "not_implemented", "the only transfer coding supported is chunked");
        f->type = "not_implemented_error";
    } else if (n_host > 1 || (!n_host && !strcmp(r->version, "HTTP/1.1"))) {
        frame_fault(f, 400, "invalid_framing", "exactly one Host header is needed");
    } else if (expect && strcasecmp(expect->value, "100-continue")) {
        frame_fault(f, 417, "expectation_failed", "the only expectation supported is 100-continue");
    }
    p->chunked = n_coding > 0;
    p->has_length = n_length > 0;
}

void gate_frame(const gate_request *r, gate_pass *p, gate_fault *f)
{
    take_request_id(r, p);
    bool known = false;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        known |= !strcmp(r->method, methods[i]);
    if (strcmp(r->version, "HTTP/1.1") && strcmp(r->version, "HTTP/1.0")) {
        frame_fault(f, 505, "http_version_not_supported", "only HTTP/1.0 and HTTP/1.1 are spoken");
        return;
    }
    if (strlen(r->method) + strlen(r->target) + strlen(r->version) + 2 > GATE_MAX_LINE) {
        frame_fault(f, 414, "uri_too_long", "the request line is longer than 8192 bytes");
        return;
    }
    for (const char *t = r->target; *t; t++)
        if ((unsigned char)*t < 0x21 || (unsigned char)*t > 0x7E) {
            frame_fault(f, 400, "invalid_framing",
                        "the request target holds a byte outside 0x21-0x7E");
            return;
        }
    size_t total = 0;
    for (size_t i = 0; i < r->n_field; i++) {
        const gate_field *h = &r->field[i];
        total += h->n_name + h->n_value + 4;
        if (!is_token(h->name, h->n_name)) {
            frame_fault(f, 400, "invalid_framing",
                        "a header name holds a byte that is not allowed");
            return;
        }
        for (size_t k = 0; k < h->n_value; k++) {
            unsigned char c = (unsigned char)h->value[k];
            if ((c < 0x20 && c != '\t') || c == 0x7F) {
                frame_fault(f, 400, "invalid_framing", "a header value holds a control byte");
                return;
            }
        }
    }
    if (r->n_field > GATE_MAX_FIELDS || total > GATE_MAX_HEADERS) {
        frame_fault(f, 431, "headers_too_large",
                    "more than 100 header fields or 32768 bytes of headers");
        return;
    }
    frame_fields(r, p, f);
    if (!f->status && !known) {
        frame_fault(f, 501, "not_implemented", "unknown method");
        f->type = "not_implemented_error";
    }
}

/* ---- Host and Origin ------------------------------------------------------------------------- */

/* Host part of an authority, lower case, brackets of IPv6 dropped.  False: it is no authority. */
static bool host_part(const char *authority, char *out, size_t cap, bool *v6)
{
    const char *end;
    struct in6_addr a;
    *v6 = *authority == '[';
    if (*v6) end = strchr(++authority, ']');
    else end = authority + strcspn(authority, ":");
    if (!end) return false;
    const char *port = end + *v6;
    if (port[0] && (port[0] != ':' || port[1 + strspn(port + 1, "0123456789")])) return false;
    size_t n = (size_t)(end - authority);
    if (!n || n >= cap) return false;
    for (size_t i = 0; i < n; i++) out[i] = (char)tolower((unsigned char)authority[i]);
    out[n] = 0;
    if (*v6) out[strcspn(out, "%")] = 0; /* the zone */
    return !*v6 || inet_pton(AF_INET6, out, &a) == 1;
}

static bool is_ipv4(const char *h)
{
    struct in_addr a;
    return inet_pton(AF_INET, h, &a) == 1;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n > k && !strcmp(s + n - k, tail);
}

void gate_host(const gate *g, const gate_request *r, gate_fault *f)
{
    if (gate_has_keys(g) && !g->n_host) return;
    const gate_field *h = gate_find(r, "host");
    char host[256] = "";
    bool v6 = false, ok = !h; /* HTTP/1.0 without Host: no browser sends that */
    if (h && host_part(h->value, host, sizeof host, &v6)) {
        ok = v6 || is_ipv4(host) || !strchr(host, '.') || ends_with(host, ".localhost") ||
             ends_with(host, ".local") || ends_with(host, ".internal") ||
             !strcasecmp(host, g->own_name);
        for (int i = 0; i < g->n_host && !ok; i++) ok = !strcasecmp(host, g->host[i]);
    }
    if (ok) return;
    f->status = 403;
    f->type = "permission_error";
    f->code = "host_not_allowed";
    snprintf(f->msg, sizeof f->msg, "this Host is not allowed; name it in --allowed-hosts");
}

static bool is_loopback(const char *host, bool v6)
{
    if (v6) return !strcmp(host, "::1");
    return !strcmp(host, "localhost") || (is_ipv4(host) && !strncmp(host, "127.", 4));
}

static bool origin_allowed(const gate *g, const gate_request *r, const char *origin)
{
    if (g->cors && !strcmp(g->cors, "*")) return true;
    if (g->cors && !strcmp(g->cors, "none")) return false;
    if (g->cors) {
        for (const char *at = g->cors; *at;) {
            size_t n;
            const char *item = next_item(&at, &n);
            if (n == strlen(origin) && !strncasecmp(item, origin, n)) return true;
        }
        return false;
    }
    if (!strcmp(origin, "tauri://localhost") || !strncmp(origin, "app://", 6) ||
        !strncmp(origin, "vscode-webview://", 17))
        return true;
    const char *rest = strstr(origin, "://");
    if (!rest || (strncmp(origin, "http://", 7) && strncmp(origin, "https://", 8))) return false;
    char host[256];
    bool v6;
    rest += 3;
    if (!host_part(rest, host, sizeof host, &v6)) return false;
    if (is_loopback(host, v6)) return true;
    const gate_field *h = gate_find(r, "host");
    return h && !strcasecmp(rest, h->value);
}

void gate_origin(const gate *g, const gate_request *r, gate_pass *p, gate_fault *f)
{
    const gate_field *h = gate_find(r, "origin");
    if (!h) return;
    if (h->n_value >= sizeof p->origin || !origin_allowed(g, r, h->value)) {
        f->status = 403;
        f->type = "permission_error";
        f->code = "origin_not_allowed";
        snprintf(f->msg, sizeof f->msg, "this Origin is not allowed; name it in --cors-origins");
        return;
    }
    snprintf(p->origin, sizeof p->origin, "%s", g->cors && !strcmp(g->cors, "*") ? "*" : h->value);
    p->is_preflight = !strcmp(r->method, "OPTIONS");
}

/* ---- media type and path --------------------------------------------------------------------- */

void gate_media(const gate_request *r, bool any_type, gate_fault *f)
{
    const gate_field *enc = gate_find(r, "content-encoding"), *h = gate_find(r, "content-type");
    f->type = "invalid_request_error";
    f->code = "unsupported_media_type";
    if (enc && strcasecmp(enc->value, "identity")) {
        f->status = 415;
        snprintf(f->msg, sizeof f->msg,
                 "Content-Encoding is not supported; send the body as it is");
        return;
    }
    if (!h || any_type) return;
    size_t n = strcspn(h->value, "; \t");
    bool ok = (n == 16 && !strncasecmp(h->value, "application/json", n)) ||
              (n == 9 && !strncasecmp(h->value, "text/json", n)) ||
              (n > 17 && !strncasecmp(h->value, "application/", 12) &&
               !strncasecmp(h->value + n - 5, "+json", 5));
    const char *cs = strcasestr(h->value + n, "charset=");
    if (cs) {
        cs += 8 + (cs[8] == '"');
        size_t k = strcspn(cs, "\"; \t");
        ok = ok &&
             ((k == 5 && !strncasecmp(cs, "utf-8", k)) || (k == 4 && !strncasecmp(cs, "utf8", k)));
    }
    if (ok) return;
    f->status = 415;
    snprintf(f->msg, sizeof f->msg, "Content-Type must be application/json (charset utf-8)");
}

static int hex_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool gate_path(const char *target, char *out, size_t cap)
{
    size_t n = 0;
    if (!strncasecmp(target, "http://", 7) || !strncasecmp(target, "https://", 8)) {
        target = strchr(target, ':') + 3; /* absolute form */
        target += strcspn(target, "/?#");
        if (*target != '/') target = "/";
    }
    for (; *target && *target != '?' && *target != '#'; target++) {
        int c = (unsigned char)*target;
        if (c == '%') {
            int hi = hex_of(target[1]), lo = hi < 0 ? -1 : hex_of(target[2]);
            if (lo < 0) return false;
            c = hi * 16 + lo;
            target += 2;
        }
        if (c < 0x20 || c == 0x7F || n + 1 >= cap) return false;
        out[n++] = (char)c;
    }
    out[n] = 0;
    if (n > 1 && out[n - 1] == '/') out[--n] = 0;
    if (out[0] != '/' || !utf8_valid(out, n)) return false;
    for (const char *s = strstr(out, ".."); s; s = strstr(s + 2, ".."))
        if ((s == out || s[-1] == '/') && (!s[2] || s[2] == '/')) return false;
    return true;
}

/* ---- bodies ---------------------------------------------------------------------------------- */

bool gate_body_late(const gate_body *b, int64_t limit_us, int64_t now_us)
{
    int64_t age = now_us - b->begin_us;
    if (now_us - b->last_us > limit_us) return true;
    return age > 2 * limit_us && b->got < (uint64_t)(age / 1000000) * GATE_BODY_RATE;
}
