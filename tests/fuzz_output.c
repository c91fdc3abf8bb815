/* fuzz_output.c - any bytes cut anywhere: the output machine gives what it gives for one piece, and
 * every delta is UTF-8.  Input: mode, cut pattern, stop strings ended by 0, then the text.  The
 * upper bits of the mode pick how tool calls are written. The tokenizer is a table of one token. */
#include "engine/text/output.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *token;
static size_t token_len;

const char *tokenizer_piece(const tokenizer *t, int32_t id, size_t *n)
{
    (void)t;
    (void)id;
    *n = token_len;
    return token;
}

bool tokenizer_is_special(const tokenizer *t, int32_t id)
{
    (void)t;
    (void)id;
    return false;
}

static const char tools_text[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{"
    "\"x\":{\"type\":\"integer\"},\"y\":{\"type\":[\"string\",\"null\"]},\"o\":{}}}}}]";
static call_tools *tools;

typedef struct {
    buf content, reasoning, calls; /* calls: names, arguments and ends, each marked */
    int stop;
} result;

static void take(result *r, said *s)
{
    if (!said_ok(s)) abort();
    said_copy(s, SAID_ANSWER, &r->content);
    said_copy(s, SAID_THOUGHT, &r->reasoning);
    for (int i = 0; i < s->n; i++) {
        if (s->piece[i].kind < SAID_CALL) continue;
        if (!utf8_valid(said_text(s, i), s->piece[i].n)) abort();
        if (s->piece[i].kind != SAID_ARGS)
            buf_printf(&r->calls, "%c%d", s->piece[i].kind == SAID_CALL ? 1 : 2, s->piece[i].call);
        buf_put(&r->calls, said_text(s, i), s->piece[i].n);
    }
    said_clear(s);
}

static result feed(const output_options *o, const char *s, size_t n, unsigned cut)
{
    result r = {0};
    output *m = output_new(o);
    if (!m) abort();
    for (size_t i = 0, k; i < n; i += k) {
        k = cut ? 1 + cut % 5 : n;
        cut = cut ? cut * 7 % 251 + 1 : 0;
        if (k > n - i) k = n - i;
        size_t c = r.content.len, t = r.reasoning.len;
        token = s + i;
        token_len = k;
        said now = {0};
        output_feed(m, 0, true, &now, NULL);
        take(&r, &now);
        if (!utf8_valid(buf_str(&r.content) + c, r.content.len - c)) abort();
        if (!utf8_valid(buf_str(&r.reasoning) + t, r.reasoning.len - t)) abort();
    }
    said last = {0};
    r.stop = output_end(m, &last);
    take(&r, &last);
    output_free(m);
    return r;
}

static bool same(const buf *a, const buf *b)
{
    return a->len == b->len && !memcmp(buf_str(a), buf_str(b), a->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *stop[4], *s = (const char *)data + 2, *end = (const char *)data + n;
    size_t len[4];
    if (n < 2) return 0;
    output_options o = {.think = (think_mode)(data[0] & 3),
                        .stop = stop,
                        .stop_len = len,
                        .include_stop = data[0] & 4,
                        .calls = (call_format)((data[0] >> 5) % 5),
                        .after_label = data[1] & 128,
                        .place = (thought_place)((data[1] >> 5 & 3) % 3)};
    if (!tools) {
        const json *root;
        json_doc *d = json_parse(tools_text, sizeof tools_text - 1, NULL, &root, NULL);
        if (!d || !(tools = call_tools_new(root))) abort();
        json_free(d);
    }
    o.tools = tools;
    for (int want = data[0] >> 3 & 3; o.n_stop < want; o.n_stop++) {
        const char *zero = memchr(s, 0, (size_t)(end - s));
        if (!zero || zero == s || zero - s > 1024 || !utf8_valid(s, (size_t)(zero - s))) break;
        stop[o.n_stop] = s;
        len[o.n_stop] = (size_t)(zero - s);
        s = zero + 1;
    }
    result whole = feed(&o, s, (size_t)(end - s), 0),
           cut = feed(&o, s, (size_t)(end - s), data[1] | 1u);
    if (whole.stop != cut.stop || !same(&whole.content, &cut.content) ||
        !same(&whole.reasoning, &cut.reasoning) || !same(&whole.calls, &cut.calls))
        abort();
    buf_clear(&whole.content);
    buf_clear(&whole.reasoning);
    buf_clear(&cut.content);
    buf_clear(&cut.reasoning);
    buf_clear(&whole.calls);
    buf_clear(&cut.calls);
    return 0;
}
