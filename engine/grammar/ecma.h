/* ecma.h - what is written about strings in a schema, as expressions over JSON text: character
 * classes, ECMA-262 patterns, formats, decimal ranges.
 * Owns nothing; builds into the arena given.  Refuses (NULL-terminated words in *why) what the
 * subset has not.  Thread: the arena's. */
#ifndef QUERN_ENGINE_GRAMMAR_ECMA_H
#define QUERN_ENGINE_GRAMMAR_ECMA_H

#include "engine/grammar/rx.h"

typedef struct {
    uint32_t lo, hi;
} code_range;

/* Code points as UTF-8; as they stand in a JSON string, one spelling each. */
rx ecma_utf8(rx_arena *r, uint32_t lo, uint32_t hi);
/* Plain text: one character of v[n] (sorted in place), or none of them. */
rx ecma_raw_class(rx_arena *r, code_range *v, uint32_t n, bool negated);
rx ecma_json_class(rx_arena *r, const code_range *c, uint32_t n);

typedef enum {
    ECMA_JSON,  /* over a JSON string with its quotes, searched for as JSON Schema's `pattern` says
                 */
    ECMA_WHOLE, /* over plain text, which must match as a whole (`regex`) */
    ECMA_SEARCH /* over plain text, searched for */
} ecma_mode;
/* A pattern; R_NONE and *why on refusal. */
rx ecma_pattern(rx_arena *r, const char *s, size_t n, ecma_mode mode, const char **why);

/* The pattern of an enforced format (API J5), NULL for any other name. */
const char *format_pattern(const char *name);

/* A bound, as decimal text. */
typedef struct {
    bool given, exclusive, negative;
    char whole[64],
        part[64]; /* digits before the point ("0" at least); after it, no zeros at the end */
} decimal;
/* False: not a number of at most 60 digits on each side. */
bool decimal_parse(const char *s, decimal *d);
int decimal_cmp(const decimal *a, const decimal *b);
/* Numbers between two bounds, without exponent. */
rx decimal_range(rx_arena *r, const decimal *lo, const decimal *hi, bool integer);

#endif
