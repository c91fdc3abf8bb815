/* keys.h - API keys: who may call, under which name, and how much (API H7, H23).
 * Owns the keys as digests; their text is not kept.  A key that is read again keeps its counts.
 * Memory is bounded: 4096 keys, and those of calls still running.
 * Refuses: empty or unprintable keys, lines of the file that are not "key" or "name: key".
 * Thread: any; the table is swapped under its own lock (SIGHUP), a key's counts under the key's. */
#ifndef QUERN_SERVER_KEYS_H
#define QUERN_SERVER_KEYS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct keys keys;       /* all of them */
typedef struct key_ref key_ref; /* one, shared by the table and its calls */

/* What one key may do; 0 = no limit. */
typedef struct {
    int64_t max_concurrent; /* requests at a time */
    int64_t rpm, tpm;       /* requests, tokens in any 60 seconds */
} key_limits;

/* fixed[n] are named key-1 .. in logs; file may be NULL. */
keys *keys_new(char *const *fixed, int n, const char *file, const key_limits *l, err *e);
void keys_free(keys *k);
/* Reads the file again; after an error all is as before.  One thread at a time. */
int keys_reload(keys *k, err *e);
/* Any configured?  Else everybody may call. */
bool keys_any(const keys *k);
/* The key that is text[n], with one reference; NULL: none.  Time depends on n alone. */
key_ref *keys_find(keys *k, const char *text, size_t n);

void key_put(key_ref *r); /* NULL is allowed */
const char *key_name(const key_ref *r);
/* Tells keys apart and nothing about them; never 0, the same until the process ends. */
uint64_t key_hash(const key_ref *r);

/* A request begins: true, or why not and after how many seconds to try again (1-60). */
typedef struct {
    const char *option; /* the limit it ran into */
    int64_t limit;
    int retry_s;
} key_refusal;
bool key_enter(key_ref *r, int64_t now_us, key_refusal *why);
/* It ended; once for every key_enter that said yes. */
void key_leave(key_ref *r);
/* It used that many tokens. */
void key_spend(key_ref *r, int64_t tokens, int64_t now_us);

#endif
