/* arena.c - chunks of doubling size, big requests get a chunk of their own; see arena.h.
 * Thread: one owner. */
#include "engine/text/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CHUNK = 8 << 10, LAST_CHUNK = 1 << 20, ALIGN = 16 };

struct arena_chunk {
    arena_chunk *older;
    size_t at, cap; /* bytes used and held in v */
    _Alignas(ALIGN) char v[];
};

static arena_chunk *new_chunk(arena *a, size_t cap)
{
    size_t all = cap + sizeof(arena_chunk);
    if (a->limit && (all > a->limit || a->used > a->limit - all)) return NULL;
    arena_chunk *c = malloc(all);
    if (!c) return NULL;
    *c = (arena_chunk){.cap = cap};
    a->used += all;
    return c;
}

void *arena_alloc(arena *a, size_t n)
{
    if (n > SIZE_MAX / 4) return NULL;
    n = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    arena_chunk *c = a->last;
    if (!c || c->cap - c->at < n) {
        size_t next = c ? c->cap * 2 : FIRST_CHUNK;
        if (next > LAST_CHUNK) next = LAST_CHUNK;
        arena_chunk *fresh = new_chunk(a, n > next / 4 ? n : next);
        if (!fresh) return NULL;
        if (n > next / 4 && c) {
            /* A big block hides behind the current chunk, which stays open for small ones. */
            fresh->older = c->older;
            c->older = fresh;
        } else {
            fresh->older = c;
            a->last = fresh;
        }
        c = fresh;
    }
    void *p = c->v + c->at;
    c->at += n;
    return p;
}

void *arena_zalloc(arena *a, size_t n)
{
    void *p = arena_alloc(a, n);
    return p ? memset(p, 0, n) : NULL;
}

char *arena_copy(arena *a, const char *s, size_t n)
{
    char *p = arena_alloc(a, n + 1);
    if (!p) return NULL;
    if (n) memcpy(p, s, n);
    p[n] = 0;
    return p;
}

void arena_clear(arena *a)
{
    for (arena_chunk *c = a->last, *older; c; c = older) {
        older = c->older;
        free(c);
    }
    *a = (arena){.limit = a->limit};
}
