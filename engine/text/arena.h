/* arena.h - memory that is freed all at once: what one compiled template, one rendering or one
 * normalised request needs.
 * Owns its chunks.  Refuses to grow beyond `limit` bytes, so that whoever fills it is bounded.
 * Thread: one owner. */
#ifndef QUERN_ENGINE_TEXT_ARENA_H
#define QUERN_ENGINE_TEXT_ARENA_H

#include <stddef.h>

typedef struct arena_chunk arena_chunk;

typedef struct {
    arena_chunk *last; /* newest chunk, linked to the older ones */
    size_t used;       /* bytes taken from the system */
    size_t limit;      /* refuse beyond; 0 = no limit */
} arena;

/* n bytes, 16-byte aligned, not cleared; NULL when out of memory or over the limit. */
void *arena_alloc(arena *a, size_t n);
/* The same, cleared. */
void *arena_zalloc(arena *a, size_t n);
/* A 0-terminated copy of s[n]; NULL as above. */
char *arena_copy(arena *a, const char *s, size_t n);
void arena_clear(arena *a);

#endif
