/* nfc.h - Unicode normalisation form C in linear time.  Inside engine/text only.
 * utf8proc's own decomposition orders marks by insertion, which a client could make quadratic; here
 * its tables are used and marks are ordered by counting.  Any thread. */
#ifndef QUERN_ENGINE_TEXT_NFC_H
#define QUERN_ENGINE_TEXT_NFC_H

#include "base/buf.h"

#include <stddef.h>

/* A stretch whose bytes changed; outside of such stretches offsets differ by a constant. */
typedef struct {
    size_t from, from_end; /* in the source */
    size_t to, to_end;     /* in the result */
} nfc_edit;

typedef struct {
    nfc_edit *v; /* [n] owned, rising */
    size_t n, cap;
} nfc_edits;

/* True if s[n] (valid UTF-8) is NFC as it stands, found without normalising; false = perhaps not.
 */
bool nfc_quick(const char *s, size_t n);
/* NFC of s[n] (valid UTF-8) into out (appended), with the changed stretches.  0 or ERR_NOMEM. */
int nfc_normalise(const char *s, size_t n, buf *out, nfc_edits *edits);
/* Source offset of a result offset; inside a changed stretch its start (or its end). */
size_t nfc_origin(const nfc_edits *edits, size_t to, bool end);

#endif
