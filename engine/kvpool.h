/* kvpool.h - which sequence holds which KV block.  Bookkeeping only: it hands out block numbers and
 * never sees device memory, so it is tested without a model.
 *
 * A block holds `block` consecutive positions.  A block whose positions are all computed can be
 * published: then others find it by (what came before, its tokens), share it (refs > 1), and once
 * nobody holds it it stays findable until the space is needed (oldest first).  A block that is not
 * full is private to its sequence.
 *
 * Holders always hold a prefix of a chain and let go from the end, so a parent is never recycled
 * before its children: parents are named by block number, and a hit compares the tokens (and the
 * salt) themselves, so that a hash collision can never serve foreign KV.
 * Thread: the engine thread only. */
#ifndef QUERN_ENGINE_KVPOOL_H
#define QUERN_ENGINE_KVPOOL_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kvpool kvpool;

/* n_blocks >= 1 blocks of `block` >= 1 positions; NULL when out of memory. */
kvpool *kvpool_new(int n_blocks, int block);
void kvpool_free(kvpool *p);

/* One private block (one ref), evicting the oldest idle one if no free block is left; -1 if all
 * blocks are held. */
int32_t kvpool_take(kvpool *p);
/* One more ref on a held block. */
void kvpool_share(kvpool *p, int32_t block);
/* Drops one ref on each of block[n], which are the holder's chain in order. */
void kvpool_put(kvpool *p, const int32_t *block, int n);

/* For measuring how long blocks live.  The pool has no clock of its own: kvpool_tell_time says what
 * time it is from now on. */
typedef enum {
    KV_LIFE, /* a block was evicted that long after it was taken */
    KV_IDLE, /* ... and after nobody held it any more */
    KV_GAP   /* a block nobody held was found again after that long */
} kv_note;
void kvpool_watch(kvpool *p, void (*note)(void *arg, kv_note what, int64_t us), void *arg);
void kvpool_tell_time(kvpool *p, int64_t now_us);

/* What separates caches: blocks are found only under the salt they were published with. */
typedef struct {
    const char *v; /* [n] bytes, borrowed */
    size_t n;      /* 0 = no salt */
} kv_salt;

/* The published block that follows parent (-1: at the start, under salt) and holds tok[block];
 * takes one ref.  -1 if there is none. */
int32_t kvpool_find(kvpool *p, int32_t parent, kv_salt salt, const int32_t *tok);
/* Makes a held, completely computed block findable after parent (-1 or a block the caller holds).
 * If an equal block is findable already the caller's ref moves to that one.  Returns the block the
 * caller now holds; *published is false, and the block stays private, when out of memory or when
 * the parent itself is private. */
int32_t kvpool_publish(kvpool *p, int32_t block, int32_t parent, kv_salt salt, const int32_t *tok,
                       bool *published);

int kvpool_total(const kvpool *p);
int kvpool_used(const kvpool *p);      /* held by somebody */
int kvpool_cached(const kvpool *p);    /* idle but findable */
int kvpool_available(const kvpool *p); /* kvpool_take would succeed that many times */
/* Grows whenever a block becomes available: a cheap "is it worth trying again". */
uint64_t kvpool_epoch(const kvpool *p);

/* Checks every invariant; refs[total], if not NULL, is what the caller believes each block's refs
 * to be.  0, or ERR_FORMAT with what is broken.  For tests; O(blocks). */
int kvpool_check(const kvpool *p, const int32_t *refs, err *e);

#endif
