/* map.c - the map of map.h and its hash.  Owns the hash key.  Thread: see map.h. */
#include "base/map.h"

#include "base/err.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static uint64_t hash_key[2];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

/* Keys come from clients: without a secret they could be chosen to fall into one slot. */
static void draw_hash_key(void)
{
    if (getrandom(hash_key, sizeof hash_key, 0) == (ssize_t)sizeof hash_key) return;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    hash_key[0] ^= (uint64_t)t.tv_nsec * 0x9E3779B97F4A7C15u;
    hash_key[1] ^= (uint64_t)(uintptr_t)&t;
}

static inline void sip_round(uint64_t v[4])
{
#define ROTL(x, b) ((x) << (b) | (x) >> (64 - (b)))
    v[0] += v[1];
    v[1] = ROTL(v[1], 13) ^ v[0];
    v[0] = ROTL(v[0], 32);
    v[2] += v[3];
    v[3] = ROTL(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = ROTL(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = ROTL(v[1], 17) ^ v[2];
    v[2] = ROTL(v[2], 32);
#undef ROTL
}

/* SipHash-1-3 (Aumasson, Bernstein 2012). */
uint64_t map_hash(const char *s, size_t n)
{
    pthread_once(&hash_once, draw_hash_key);
    uint64_t k0 = hash_key[0], k1 = hash_key[1], m;
    uint64_t v[4] = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du, k0 ^ 0x6c7967656e657261u,
                     k1 ^ 0x7465646279746573u};
    size_t left = n;
    for (; left >= 8; left -= 8, s += 8) {
        memcpy(&m, s, 8);
        v[3] ^= m;
        sip_round(v);
        v[0] ^= m;
    }
    m = (uint64_t)n << 56;
    for (size_t i = 0; i < left; i++) m |= (uint64_t)(uint8_t)s[i] << 8 * i;
    v[3] ^= m;
    sip_round(v);
    v[0] ^= m;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The slot that holds key, or the free one where it belongs. */
static map_slot *slot_of(const map *m, const char *key, size_t n)
{
    size_t i = map_hash(key, n) & (m->cap - 1);
    while (m->v[i].key && (m->v[i].n != n || memcmp(m->v[i].key, key, n) != 0))
        i = (i + 1) & (m->cap - 1);
    return &m->v[i];
}

static bool grow(map *m)
{
    if (m->len * 2 < m->cap) return true;
    map bigger = {.cap = m->cap ? m->cap * 2 : 16, .len = m->len};
    bigger.v = calloc(bigger.cap, sizeof *bigger.v);
    if (!bigger.v) return false;
    for (size_t i = 0; i < m->cap; i++)
        if (m->v[i].key) *slot_of(&bigger, m->v[i].key, m->v[i].n) = m->v[i];
    free(m->v);
    *m = bigger;
    return true;
}

int map_add(map *m, const char *key, size_t n, size_t value)
{
    if (!grow(m)) return ERR_NOMEM;
    map_slot *s = slot_of(m, key, n);
    if (s->key) return ERR_BUSY;
    *s = (map_slot){key, n, value};
    m->len++;
    return 0;
}

bool map_find(const map *m, const char *key, size_t n, size_t *value)
{
    if (!m->cap) return false;
    const map_slot *s = slot_of(m, key, n);
    if (s->key) *value = s->value;
    return s->key != NULL;
}

void map_clear(map *m)
{
    free(m->v);
    *m = (map){0};
}
