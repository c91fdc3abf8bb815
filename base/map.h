/* map.h - byte strings to numbers: open addressing under a keyed hash, so that names chosen by a
 * client or a file cannot be made to collide.  Keys are borrowed.  One owner, no locks; reading a
 * finished map is safe from any thread. */
#ifndef QUERN_BASE_MAP_H
#define QUERN_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *key; /* [n] borrowed; NULL = free slot */
    size_t n, value;
} map_slot;

typedef struct {
    map_slot *v;     /* [cap] owned */
    size_t cap, len; /* cap is 0 or a power of two, at most half of it used */
} map;

/* Adds key[n]; 0 if it is new, ERR_BUSY if it was there (and stays as it was), ERR_NOMEM. */
int map_add(map *m, const char *key, size_t n, size_t value);
/* False if absent. */
bool map_find(const map *m, const char *key, size_t n, size_t *value);
void map_clear(map *m);
/* SipHash-1-3 under a key drawn once per process. */
uint64_t map_hash(const char *s, size_t n);

#endif
