/* kvpool.c - owns block numbers, their references, the hash index and the order of idle blocks.
 * Refuses: nothing at run time; misuse (a ref too few, publishing twice) is a broken invariant.
 * Thread: the engine thread only. */
#include "engine/kvpool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Where a block is: FREE in the stack, IDLE in the list (published, refs 0), HELD by somebody. */
typedef struct {
    XXH128_hash_t hash; /* of everything up to the end of this block; valid when published */
    uint64_t stamp;     /* when it became idle; children have smaller stamps than parents */
    char *salt;         /* [n_salt] owned; first blocks only */
    size_t n_salt;
    int64_t taken_us, idle_us;
    int32_t refs;
    int32_t parent;       /* -1 = first of a chain */
    int32_t chain;        /* next in the hash bucket, -1 = end */
    int32_t older, newer; /* neighbours in the idle list, -1 = end */
    bool published;
} kv_block;

struct kvpool {
    int n, block;
    kv_block *b;    /* [n] */
    int32_t *tok;   /* [n][block] tokens of published blocks */
    int32_t *stack; /* [n] free block numbers */
    int n_stack;
    int32_t *bucket; /* [n_bucket] heads, -1 = empty */
    size_t n_bucket; /* a power of two */
    int32_t oldest, newest;
    int n_idle;
    uint64_t clock, epoch;
    void *scratch; /* [16 + 4 * block] bytes to hash */
    int64_t now_us;
    void (*note)(void *arg, kv_note what, int64_t us); /* or NULL */
    void *note_arg;
};

kvpool *kvpool_new(int n_blocks, int block)
{
    assert(n_blocks >= 1 && block >= 1);
    kvpool *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    size_t n = (size_t)n_blocks;
    p->n = n_blocks;
    p->block = block;
    p->n_bucket = 2;
    while (p->n_bucket < 2 * n) p->n_bucket *= 2;
    p->b = calloc(n, sizeof *p->b);
    p->tok = calloc(n, (size_t)block * sizeof *p->tok);
    p->stack = calloc(n, sizeof *p->stack);
    p->bucket = calloc(p->n_bucket, sizeof *p->bucket);
    p->scratch = malloc(sizeof(XXH128_hash_t) + (size_t)block * sizeof(int32_t));
    if (!p->b || !p->tok || !p->stack || !p->bucket || !p->scratch) {
        kvpool_free(p);
        return NULL;
    }
    /* Low numbers on top, so that a lightly used pool touches little memory. */
    for (int i = 0; i < n_blocks; i++) p->stack[i] = n_blocks - 1 - i;
    p->n_stack = n_blocks;
    for (size_t i = 0; i < p->n_bucket; i++) p->bucket[i] = -1;
    p->oldest = p->newest = -1;
    return p;
}

void kvpool_free(kvpool *p)
{
    if (!p) return;
    for (int i = 0; p->b && i < p->n; i++) free(p->b[i].salt);
    free(p->b);
    free(p->tok);
    free(p->stack);
    free(p->bucket);
    free(p->scratch);
    free(p);
}

static int32_t *block_tok(const kvpool *p, int32_t i)
{
    return p->tok + (size_t)i * (size_t)p->block;
}

static int32_t *bucket_of(const kvpool *p, XXH128_hash_t h)
{
    return &p->bucket[h.low64 & (p->n_bucket - 1)];
}

static void idle_push(kvpool *p, int32_t i)
{
    kv_block *b = &p->b[i];
    b->idle_us = p->now_us;
    b->stamp = ++p->clock;
    b->older = p->newest;
    b->newer = -1;
    if (p->newest >= 0) p->b[p->newest].newer = i;
    else p->oldest = i;
    p->newest = i;
    p->n_idle++;
}

static void idle_remove(kvpool *p, int32_t i)
{
    kv_block *b = &p->b[i];
    if (b->older >= 0) p->b[b->older].newer = b->newer;
    else p->oldest = b->newer;
    if (b->newer >= 0) p->b[b->newer].older = b->older;
    else p->newest = b->older;
    p->n_idle--;
}

/* Takes a published block out of the index. */
static void unpublish(kvpool *p, int32_t i)
{
    kv_block *b = &p->b[i];
    int32_t *at = bucket_of(p, b->hash);
    while (*at != i) {
        assert(*at >= 0);
        at = &p->b[*at].chain;
    }
    *at = b->chain;
    free(b->salt);
    b->salt = NULL;
    b->n_salt = 0;
    b->published = false;
}

void kvpool_watch(kvpool *p, void (*note)(void *arg, kv_note what, int64_t us), void *arg)
{
    p->note = note;
    p->note_arg = arg;
}

void kvpool_tell_time(kvpool *p, int64_t now_us)
{
    p->now_us = now_us;
}

static void tell(const kvpool *p, kv_note what, int64_t since_us)
{
    if (p->note) p->note(p->note_arg, what, p->now_us - since_us);
}

int32_t kvpool_take(kvpool *p)
{
    int32_t i;
    if (p->n_stack > 0) {
        i = p->stack[--p->n_stack];
    } else if (p->oldest >= 0) {
        i = p->oldest;
        tell(p, KV_LIFE, p->b[i].taken_us);
        tell(p, KV_IDLE, p->b[i].idle_us);
        idle_remove(p, i);
        unpublish(p, i);
    } else {
        return -1;
    }
    assert(p->b[i].refs == 0 && !p->b[i].published);
    p->b[i].refs = 1;
    p->b[i].taken_us = p->now_us;
    return i;
}

void kvpool_share(kvpool *p, int32_t block)
{
    assert(block >= 0 && block < p->n && p->b[block].refs > 0);
    p->b[block].refs++;
}

void kvpool_put(kvpool *p, const int32_t *block, int n)
{
    /* From the end: children become idle, and are evicted, before their parents. */
    for (int k = n - 1; k >= 0; k--) {
        int32_t i = block[k];
        assert(i >= 0 && i < p->n && p->b[i].refs > 0);
        if (--p->b[i].refs > 0) continue;
        p->epoch++;
        if (p->b[i].published) idle_push(p, i);
        else p->stack[p->n_stack++] = i;
    }
}

static XXH128_hash_t chain_hash(const kvpool *p, int32_t parent, kv_salt salt, const int32_t *tok)
{
    XXH128_hash_t before = parent >= 0 ? p->b[parent].hash : XXH3_128bits(salt.v, salt.n);
    char *at = p->scratch;
    memcpy(at, &before, sizeof before);
    memcpy(at + sizeof before, tok, (size_t)p->block * sizeof *tok);
    return XXH3_128bits(at, sizeof before + (size_t)p->block * sizeof *tok);
}

/* The published block with this content, -1 if none; no ref is taken. */
static int32_t lookup(const kvpool *p, XXH128_hash_t h, int32_t parent, kv_salt salt,
                      const int32_t *tok)
{
    for (int32_t i = *bucket_of(p, h); i >= 0; i = p->b[i].chain) {
        const kv_block *b = &p->b[i];
        if (!XXH128_isEqual(b->hash, h) || b->parent != parent) continue;
        if (memcmp(block_tok(p, i), tok, (size_t)p->block * sizeof *tok) != 0) continue;
        if (parent < 0 && (b->n_salt != salt.n || (salt.n && memcmp(b->salt, salt.v, salt.n) != 0)))
            continue;
        return i;
    }
    return -1;
}

static void hold(kvpool *p, int32_t i)
{
    if (p->b[i].refs++ > 0) return;
    tell(p, KV_GAP, p->b[i].idle_us);
    idle_remove(p, i);
}

int32_t kvpool_find(kvpool *p, int32_t parent, kv_salt salt, const int32_t *tok)
{
    assert(parent < 0 || p->b[parent].published);
    int32_t i = lookup(p, chain_hash(p, parent, salt, tok), parent, salt, tok);
    if (i >= 0) hold(p, i);
    return i;
}

int32_t kvpool_publish(kvpool *p, int32_t block, int32_t parent, kv_salt salt, const int32_t *tok,
                       bool *published)
{
    kv_block *b = &p->b[block];
    assert(b->refs == 1 && !b->published);
    assert(parent < 0 || p->b[parent].refs > 0);
    *published = parent < 0 || p->b[parent].published;
    if (!*published) return block;
    XXH128_hash_t h = chain_hash(p, parent, salt, tok);
    int32_t twin = lookup(p, h, parent, salt, tok);
    if (twin >= 0) {
        /* Two sequences computed the same positions; by the rule of bits the content is equal. */
        hold(p, twin);
        kvpool_put(p, &block, 1);
        return twin;
    }
    if (parent < 0 && salt.n) {
        b->salt = malloc(salt.n);
        if (!b->salt) {
            *published = false;
            return block;
        }
        memcpy(b->salt, salt.v, salt.n);
        b->n_salt = salt.n;
    }
    memcpy(block_tok(p, block), tok, (size_t)p->block * sizeof *tok);
    b->hash = h;
    b->parent = parent;
    b->chain = *bucket_of(p, h);
    *bucket_of(p, h) = block;
    b->published = true;
    return block;
}

int kvpool_total(const kvpool *p)
{
    return p->n;
}

int kvpool_used(const kvpool *p)
{
    return p->n - p->n_stack - p->n_idle;
}

int kvpool_cached(const kvpool *p)
{
    return p->n_idle;
}

int kvpool_available(const kvpool *p)
{
    return p->n_stack + p->n_idle;
}

uint64_t kvpool_epoch(const kvpool *p)
{
    return p->epoch;
}

/* ---- integrity ------------------------------------------------------------------------------- */

static int check_block(const kvpool *p, int32_t i, err *e)
{
    const kv_block *b = &p->b[i];
    if (b->refs < 0) return err_set(e, ERR_FORMAT, "block %d has %d refs", i, b->refs);
    if (!b->published) return 0;
    int32_t at = *bucket_of(p, b->hash);
    while (at >= 0 && at != i) at = p->b[at].chain;
    if (at != i) return err_set(e, ERR_FORMAT, "block %d is published but not in the index", i);
    if (b->parent < 0) return 0;
    const kv_block *up = &p->b[b->parent];
    if (b->salt) return err_set(e, ERR_FORMAT, "block %d is not first but has a salt", i);
    if (!up->published)
        return err_set(e, ERR_FORMAT, "parent %d of block %d was recycled", b->parent, i);
    if (up->refs < b->refs)
        return err_set(e, ERR_FORMAT, "block %d is held without its parent %d", i, b->parent);
    if (up->refs == 0 && up->stamp < b->stamp)
        return err_set(e, ERR_FORMAT, "parent %d would be evicted before block %d", b->parent, i);
    kv_salt none = {NULL, 0};
    if (!XXH128_isEqual(b->hash, chain_hash(p, b->parent, none, block_tok(p, i))))
        return err_set(e, ERR_FORMAT, "hash of block %d is not that of its tokens", i);
    return 0;
}

int kvpool_check(const kvpool *p, const int32_t *refs, err *e)
{
    int n_idle = 0, n_held = 0, n_indexed = 0, n_published = 0;
    uint64_t last = 0;
    for (int32_t i = p->oldest, prev = -1; i >= 0; prev = i, i = p->b[i].newer) {
        const kv_block *b = &p->b[i];
        if (b->refs != 0 || !b->published)
            return err_set(e, ERR_FORMAT, "block %d is idle by mistake", i);
        if (b->older != prev) return err_set(e, ERR_FORMAT, "idle list is broken at block %d", i);
        if (b->stamp <= last)
            return err_set(e, ERR_FORMAT, "idle list is out of order at block %d", i);
        last = b->stamp;
        if (++n_idle > p->n) return err_set(e, ERR_FORMAT, "idle list has a cycle");
    }
    for (int k = 0; k < p->n_stack; k++) {
        const kv_block *b = &p->b[p->stack[k]];
        if (b->refs != 0 || b->published)
            return err_set(e, ERR_FORMAT, "block %d is free by mistake", p->stack[k]);
    }
    for (int32_t i = 0; i < p->n; i++) {
        int rc = check_block(p, i, e);
        if (rc) return rc;
        if (refs && refs[i] != p->b[i].refs)
            return err_set(e, ERR_FORMAT, "block %d has %d refs, its holders know %d", i,
                           p->b[i].refs, refs[i]);
        if (p->b[i].refs > 0) n_held++;
        if (p->b[i].published) n_published++;
    }
    for (size_t k = 0; k < p->n_bucket; k++)
        for (int32_t i = p->bucket[k]; i >= 0; i = p->b[i].chain)
            if (++n_indexed > p->n) return err_set(e, ERR_FORMAT, "index has a cycle");
    if (n_indexed != n_published)
        return err_set(e, ERR_FORMAT, "index holds a block that is not published");
    if (n_idle != p->n_idle || n_held + n_idle + p->n_stack != p->n)
        return err_set(e, ERR_FORMAT, "%d held + %d idle + %d free is not %d", n_held, n_idle,
                       p->n_stack, p->n);
    return 0;
}
