/* buf.h - a growing byte buffer.  Owns its bytes; one owner, no locks.
 * A failed allocation latches `oom` and drops further writes, so that a long formatting sequence
 * needs one check at its end (buf_ok). */
#ifndef QUERN_BASE_BUF_H
#define QUERN_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *v;         /* [cap] bytes; v[len] is always 0 once anything was written */
    size_t len, cap; /* bytes */
    size_t max;      /* refuse to grow beyond; 0 = no limit */
    bool oom;        /* an append did not fit (memory or max); sticky until buf_clear */
} buf;

void buf_clear(buf *b);                 /* frees, back to {0}; keeps max */
void buf_reset(buf *b);                 /* len = 0, keeps the memory */
bool buf_reserve(buf *b, size_t extra); /* room for extra more bytes and the 0 */
void buf_put(buf *b, const void *p, size_t n);
void buf_puts(buf *b, const char *s);
void buf_putc(buf *b, char c);
void buf_printf(buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Decimal text of an integer, without the cost of printf. */
void buf_put_int(buf *b, int64_t v);
/* s[n] as a JSON string with quotes.  Control bytes are escaped, UTF-8 passes through, bytes that
 * are not UTF-8 become U+FFFD. */
void buf_put_json(buf *b, const char *s, size_t n);
/* A finite double as the shortest JSON number that reads back equal; NaN and infinities as 0. */
void buf_put_num(buf *b, double v);
static inline bool buf_ok(const buf *b)
{
    return !b->oom;
}
/* The text, never NULL. */
static inline const char *buf_str(const buf *b)
{
    return b->v ? b->v : "";
}
/* Hands the bytes to the caller (free()); b is {0} afterwards. */
char *buf_take(buf *b, size_t *len);

#endif
