/* vec.h - growing arrays, tables of ids and a sticky error for the grammar compiler.  A push that
 * finds no memory leaves the array as it was and writes ERR_NOMEM to the status given: code that
 * builds something looks at the status once, at its end.  Thread: as the owner's. */
#ifndef QUERN_ENGINE_GRAMMAR_VEC_H
#define QUERN_ENGINE_GRAMMAR_VEC_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VEC(T)           \
    struct {             \
        T *p;            \
        uint32_t n, cap; \
    }

/* Room for one more element behind n; the array itself when there is no memory. */
static inline void *vec_room(void *p, uint32_t n, uint32_t *cap, size_t size, int *status)
{
    if (n < *cap) return p;
    uint32_t c = *cap ? *cap * 2 : 16;
    void *q = *cap > UINT32_MAX / 4 ? NULL : realloc(p, c * size);
    if (!q) {
        *status = ERR_NOMEM;
        return p;
    }
    *cap = c;
    return q;
}
#define VEC_PUSH(status, v, ...)                                           \
    do {                                                                   \
        (v).p = vec_room((v).p, (v).n, &(v).cap, sizeof *(v).p, (status)); \
        if ((v).n < (v).cap) (v).p[(v).n++] = (__VA_ARGS__);               \
    } while (0)

/* Cuts to n elements and gives back the rest. */
#define VEC_FIT(v, keep)                                                   \
    do {                                                                   \
        void *fit_ = realloc((v).p, ((size_t)(keep) + 1) * sizeof *(v).p); \
        if (fit_) {                                                        \
            (v).p = fit_;                                                  \
            (v).cap = (keep) + 1;                                          \
        }                                                                  \
        (v).n = (keep);                                                    \
    } while (0)

/* A copy of the first n of cap elements, size bytes in all, with room for cap. */
static inline void *vec_copy(const void *from, uint32_t cap, size_t size, int *status)
{
    void *p = cap ? malloc(size) : NULL;
    if (cap && !p) *status = ERR_NOMEM;
    if (p) memcpy(p, from, size);
    return p;
}
/* to becomes a copy of from, whose elements must be plain data. */
#define VEC_COPY(status, to, from)                                                            \
    do {                                                                                      \
        (to).cap = (from).n;                                                                  \
        (to).p = vec_copy((from).p, (from).n, (size_t)(from).n * sizeof *(from).p, (status)); \
        (to).n = (to).p ? (from).n : 0;                                                       \
    } while (0)

static inline uint64_t hash_mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

/* Open-addressing table of n ids; 0 = free slot.  The owner hashes and compares. */
typedef struct {
    uint32_t *slot; /* [cap], a power of two */
    uint32_t cap, n;
} id_table;

/* Puts all ids the owner has into t. */
typedef void (*id_table_fill)(id_table *t, const void *owner);

/* Begins anew with cap slots; without memory t stays as it was. */
static inline bool id_table_reset(id_table *t, uint32_t cap, int *status)
{
    uint32_t *slot = realloc(t->slot, cap * sizeof *slot);
    if (!slot) {
        *status = ERR_NOMEM;
        return false;
    }
    memset(slot, 0, cap * sizeof *slot); /* fresh pages of calloc are mapped at a read, and again */
    *t = (id_table){.slot = slot, .cap = cap};
    return true;
}

/* Into slot j, which is free. */
static inline void id_table_set(id_table *t, uint32_t j, uint32_t id)
{
    t->slot[j] = id;
    t->n++;
}

/* An id that is not there yet, into a table with room. */
static inline void id_table_put(id_table *t, uint64_t hash, uint32_t id)
{
    uint32_t j = hash & (t->cap - 1);
    while (t->slot[j]) j = (j + 1) & (t->cap - 1);
    id_table_set(t, j, id);
}

/* Makes room for one more id; a table that has grown is filled anew. */
static inline bool id_table_room(id_table *t, id_table_fill fill, const void *owner, int *status)
{
    if (t->n * 2 < t->cap) return true;
    if (!id_table_reset(t, t->cap ? t->cap * 2 : 64, status)) return false;
    fill(t, owner);
    return true;
}

#endif
