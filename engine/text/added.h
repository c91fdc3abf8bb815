/* added.h - added tokens: texts that become one id before BPE sees them, with Hugging Face's flags.
 * Inside engine/text only.  Owns the tokens and the two search orders.
 * Refuses: empty or over-long texts, one text under two ids, one id with two texts.
 * Thread: const after added_seal. */
#ifndef QUERN_ENGINE_TEXT_ADDED_H
#define QUERN_ENGINE_TEXT_ADDED_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADDED_MAX 65536
/* Bounds the work per character of text; published ones have up to 30. */
#define ADDED_MAX_BYTES 512

typedef struct {
    char *text; /* [len] owned, 0-terminated */
    size_t len;
    int32_t id;
    bool special;        /* a control token: skipped in decoded text */
    bool single_word;    /* not recognised inside a word */
    bool lstrip, rstrip; /* takes the white space on that side with it */
    bool normalized;     /* looked for in normalised text, not in the text as given */
} added_token;

/* A text to look for; for normalised tokens it may differ from the token's own. */
typedef struct {
    char *text; /* [len] owned */
    size_t len;
    const added_token *token;
} added_pattern;

typedef struct {
    added_pattern *v; /* [n] sorted by bytes */
    size_t n;
    bool first[256]; /* some pattern begins with this byte */
} added_set;

typedef struct {
    added_token *v; /* [n] */
    size_t n, cap;
    const added_token **by_id; /* [n] rising id, once sealed */
    added_set raw, normalized;
} added_list;

/* Adds a token (text copied); a text that is already there gets the new flags. */
int added_put(added_list *l, const added_token *t, err *e);
/* Sorts everything; nfc: the checkpoint normalises to NFC. */
int added_seal(added_list *l, bool nfc, err *e);
void added_clear(added_list *l);

const added_token *added_by_id(const added_list *l, int32_t id);
/* Linear before added_seal; any time. */
const added_token *added_by_text(const added_list *l, const char *s, size_t n);
/* The longest pattern that s[n] begins with, NULL if none. */
const added_pattern *added_longest(const added_set *set, const char *s, size_t n);

#endif
