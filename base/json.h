/* json.h - strict JSON: the one reader for bytes that come from a client or a checkpoint.
 * cJSON (which builds our replies) cuts strings at \u0000, rounds integers beyond 2^53, takes the
 * first of duplicate keys and accepts `01`, 1e999 and invalid UTF-8; a request must not meet any
 * of that (API V1, C4).  So this reader is strict, keeps key order and the text of numbers, and
 * puts the whole tree into one arena that is freed at once.
 * Refuses: anything not RFC 8259, depth or value count over the limits, invalid UTF-8, numbers
 * that overflow a double.  Accepts and repairs: a leading BOM is skipped; `\u0000` and lone
 * surrogate escapes become U+FFFD; of duplicate keys the last value wins, at the place of the
 * first.  Any thread; a document has one owner and is const after parsing. */
#ifndef QUERN_BASE_JSON_H
#define QUERN_BASE_JSON_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
} json_type;

typedef struct json json;
struct json {
    json_type type;
    uint32_t n_key;    /* bytes of key */
    const char *key;   /* member name inside an object (0-terminated), else NULL */
    const char *str;   /* STRING: decoded bytes, 0-terminated, never containing NUL;
                          NUMBER: the text as written, 0-terminated */
    size_t len;        /* STRING, NUMBER: bytes of str; ARRAY, OBJECT: number of children */
    const json *child; /* ARRAY, OBJECT: first child or NULL */
    const json *next;  /* next sibling or NULL */
    const void *index; /* ARRAY, OBJECT with more than 16 children: json.c's lookup table */
};

typedef struct json_doc json_doc; /* the arena */

typedef struct {
    int max_depth;     /* containers inside containers; default 128 */
    size_t max_values; /* values in all; default 2,000,000 */
    bool unique_keys;  /* a duplicate key is an error instead */
} json_limits;

/* Parses text[n].  On success *root borrows from the document; free with json_free.  On failure
 * NULL, and e says "... at byte N".  limits may be NULL. */
json_doc *json_parse(const char *text, size_t n, const json_limits *limits, const json **root,
                     err *e);
void json_free(json_doc *d);
/* The same from a file of at most max bytes; e begins with the path. */
json_doc *json_read(const char *path, size_t max, const json_limits *limits, const json **root,
                    err *e);

/* Member by name (objects), NULL if absent or o is not an object.  O(1) for large objects. */
const json *json_get_n(const json *o, const char *key, size_t n);
static inline const json *json_get(const json *o, const char *key)
{
    return json_get_n(o, key, strlen(key));
}
/* The same of what is set: NULL also if it is null. */
static inline const json *json_given(const json *o, const char *key)
{
    const json *v = json_get(o, key);
    return v && v->type != JSON_NULL ? v : NULL;
}
/* i-th element, NULL if out of range or not an array. */
const json *json_at(const json *a, size_t i);
/* Value as double (NUMBER only). */
double json_num(const json *j);
/* True and *out if j is a number with an integral value (5, 5.0, 1e2) that fits int64. */
bool json_int(const json *j, int64_t *out);
static inline bool json_is(const json *j, json_type t)
{
    return j && j->type == t;
}
static inline bool json_is_bool(const json *j)
{
    return j && (j->type == JSON_TRUE || j->type == JSON_FALSE);
}
/* "null", "boolean", "number", "string", "array", "object": for messages. */
const char *json_type_name(const json *j);
/* Python's json.dumps(value, ensure_ascii=False): ", " and ": " between items, key order kept,
 * integers exact, floats as Python's repr. */
void json_dump(const json *j, buf *out);
/* The same value without white space, numbers as they were written: never longer than what was
 * parsed, and no digit is lost. */
void json_print(const json *j, buf *out);

#endif
