/* custom_input.c - see custom_input.h: a machine over single bytes.  It reads more than JSON: what
 * is no escape and what should have been escaped stand for themselves.  Of a text that is cut short
 * an incomplete escape is dropped.  Owns its buffers.  Refuses nothing. */
#include "server/custom_input.h"

#include "base/utf8.h"

#include <string.h>

enum { REPLACEMENT = 0xFFFD };

static void put_code(uint32_t code, buf *out)
{
    char s[4];
    buf_put(out, s, (size_t)utf8_encode(code, s));
}

/* ---- before the string ----------------------------------------------------------------------- */

static void string_byte(custom_input *c, char b)
{
    if (c->in_key && (b != '"' || c->escape)) buf_putc(&c->key, b);
    if (c->escape) c->escape = false;
    else if (b == '\\') c->escape = true;
    else if (b == '"') c->in_string = c->in_key = false;
}

static void seek_byte(custom_input *c, char b)
{
    static const char name[] = "input";
    buf_putc(&c->raw, b);
    if (c->in_string) {
        string_byte(c, b);
        return;
    }
    if (b == ' ' || (b >= '\t' && b <= '\r')) return;
    if (b == '"' && c->wanted) {
        c->at = INPUT_TEXT;
        buf_reset(&c->raw);
        return;
    }
    c->wanted = b == ':' && c->depth == 1 && c->key.len == sizeof name - 1 &&
                !memcmp(c->key.v, name, sizeof name - 1);
    if (b == '"') {
        c->in_string = true;
        c->in_key = c->at_key;
        if (c->at_key) buf_reset(&c->key);
    }
    if (b == '{' || b == '[') c->depth++;
    if (b == '}' || b == ']') c->depth--;
    c->at_key = c->depth == 1 && (b == '{' || b == ',');
}

/* ---- in the string --------------------------------------------------------------------------- */

/* Half a pair that found no other half. */
static void drop_high(custom_input *c, buf *out)
{
    if (c->high) put_code(REPLACEMENT, out);
    c->high = 0;
}

static void put_escaped(custom_input *c, uint32_t code, buf *out)
{
    bool low = code >= 0xDC00 && code < 0xE000;
    if (low && c->high) {
        put_code(0x10000 + ((c->high - 0xD800) << 10) + (code - 0xDC00), out);
        c->high = 0;
        return;
    }
    drop_high(c, out);
    if (code >= 0xD800 && code < 0xDC00) c->high = code;
    else put_code(low || !code ? REPLACEMENT : code, out);
}

/* The value of a hexadecimal digit, -1 if it is none. */
static int hex(char b)
{
    if (b >= '0' && b <= '9') return b - '0';
    if (b >= 'a' && b <= 'f') return b - 'a' + 10;
    return b >= 'A' && b <= 'F' ? b - 'A' + 10 : -1;
}

/* What was held is no escape. */
static void give_back(custom_input *c, buf *out)
{
    drop_high(c, out);
    buf_put(out, buf_str(&c->raw), c->raw.len);
    buf_reset(&c->raw);
    c->digits = 0;
}

/* A byte behind a backslash. */
static void escape_byte(custom_input *c, char b, buf *out)
{
    static const char named[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *at = b ? strchr(named, b) : NULL;
    if (c->digits) {
        c->code = c->code << 4 | (uint32_t)hex(b);
        buf_putc(&c->raw, b);
        if (--c->digits) return;
        buf_reset(&c->raw);
        put_escaped(c, c->code, out);
    } else if (b == 'u') {
        buf_putc(&c->raw, b);
        c->digits = 4;
        c->code = 0;
    } else if (at) {
        buf_reset(&c->raw);
        drop_high(c, out);
        buf_putc(out, meant[at - named]);
    } else {
        give_back(c, out);
        buf_putc(out, b);
    }
}

static void text_byte(custom_input *c, char b, buf *out)
{
    if (c->digits && hex(b) < 0) give_back(c, out);
    if (c->raw.len) {
        escape_byte(c, b, out);
    } else if (b == '\\') {
        buf_putc(&c->raw, b);
    } else {
        drop_high(c, out);
        if (b == '"') c->at = INPUT_DONE;
        else buf_putc(out, b);
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

void custom_input_feed(custom_input *c, const char *s, size_t n, buf *out)
{
    for (size_t i = 0; i < n && c->at != INPUT_DONE; i++) {
        if (c->at == INPUT_SEEK) seek_byte(c, s[i]);
        else text_byte(c, s[i], out);
    }
    if (!buf_ok(&c->raw) || !buf_ok(&c->key)) out->oom = true;
}

void custom_input_end(custom_input *c, buf *out)
{
    if (c->at == INPUT_SEEK) buf_put(out, buf_str(&c->raw), c->raw.len);
    else drop_high(c, out);
    custom_input_clear(c);
}

void custom_input_clear(custom_input *c)
{
    buf_clear(&c->key);
    buf_clear(&c->raw);
    *c = (custom_input){0};
}
