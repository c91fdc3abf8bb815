/* base64.h - bytes as text and back (RFC 4648, with padding).  Pure; any thread. */
#ifndef QUERN_BASE_BASE64_H
#define QUERN_BASE_BASE64_H

#include "base/buf.h"

void base64_put(buf *out, const void *p, size_t n);
/* Appends the bytes that s[n] means; false if it is no base64 (padding is needed, nothing else may
 * stand in it), with out as it was. */
bool base64_get(const char *s, size_t n, buf *out);

#endif
