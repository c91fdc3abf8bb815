/* cache.c - see cache.h.  A key is the answer written out, every text with its length, and compared
 * as a whole: no two answers share an entry.  Entries are few, so the oldest use is looked for. */
#include "engine/grammar/cache.h"

#include "base/buf.h"
#include "engine/grammar/grammar_impl.h"

enum { ENTRIES = 256 };
static const size_t BYTES = (size_t)256 << 20;

typedef struct {
    buf key;
    uint64_t hash, used; /* used: when it was last asked for */
    int waiting;         /* calls that wait for it; not pushed out meanwhile */
    bool making;
    int rc;
    grammar *g; /* NULL if it was refused */
    grammar_error why;
} entry;

struct grammar_cache {
    pthread_mutex_t lock;
    pthread_cond_t made;
    entry *e[ENTRIES];
    int n;
    uint64_t clock;
};

grammar_cache *grammar_cache_new(void)
{
    grammar_cache *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    if (pthread_mutex_init(&c->lock, NULL)) {
        free(c);
        return NULL;
    }
    if (pthread_cond_init(&c->made, NULL)) {
        pthread_mutex_destroy(&c->lock);
        free(c);
        return NULL;
    }
    return c;
}

static void drop(grammar_cache *c, int i)
{
    grammar_release(c->e[i]->g);
    buf_clear(&c->e[i]->key);
    free(c->e[i]);
    c->e[i] = c->e[--c->n];
}

void grammar_cache_free(grammar_cache *c)
{
    if (!c) return;
    while (c->n) drop(c, c->n - 1);
    pthread_cond_destroy(&c->made);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* ---- keys ---- */
static void put_number(buf *k, uint64_t n)
{
    buf_put(k, (const char *)&n, sizeof n);
}

static void put_text(buf *k, const char *s, size_t n)
{
    put_number(k, s ? n + 1 : 0);
    if (s) buf_put(k, s, n);
}

static void put_spec(buf *k, const grammar_spec *s)
{
    put_number(k, (uint64_t)s->kind << 1 | s->free_order);
    put_text(k, s->text, s->n);
    put_number(k, s->n_choices);
    for (size_t i = 0; i < s->n_choices; i++) put_text(k, s->choices[i], strlen(s->choices[i]));
    put_number(k, s->tok != NULL);
}

static void write_key(buf *k, const grammar_answer *a)
{
    put_number(k, a->think);
    put_number(k, a->body != NULL);
    if (a->body) put_spec(k, a->body);
    put_number(k, a->calls);
    if (a->calls == GRAMMAR_CALLS_OFF) return;
    put_number(k, (uint64_t)a->format << 1 | a->one_call);
    for (int i = 0; i < a->n_tools; i++) {
        const grammar_tool *t = &a->tools[i];
        put_text(k, t->name, strlen(t->name));
        put_text(k, t->schema, t->n_schema);
        put_number(k, (uint64_t)t->strict << 2 | (uint64_t)t->allowed << 1 | t->custom);
    }
}

static uint64_t hash_of(const buf *k)
{
    uint64_t h = k->len, word = 0;
    for (size_t i = 0; i < k->len; i += sizeof word) {
        size_t n = k->len - i < sizeof word ? k->len - i : sizeof word;
        memcpy(&word, k->v + i, n);
        h = hash_mix(h, word);
    }
    return h;
}

/* ---- entries ---- */
static entry *find(grammar_cache *c, const buf *key, uint64_t hash)
{
    for (int i = 0; i < c->n; i++) {
        entry *e = c->e[i];
        if (e->hash == hash && e->key.len == key->len && !memcmp(e->key.v, key->v, key->len))
            return e;
    }
    return NULL;
}

static size_t size_of(const entry *e)
{
    return sizeof *e + e->key.cap + (e->g ? grammar_bytes(e->g) : 0);
}

/* Pushes out what was not asked for longest until the others are within the limits. */
static void make_room(grammar_cache *c, int entries)
{
    size_t total = 0;
    for (int i = 0; i < c->n; i++) total += size_of(c->e[i]);
    while (c->n > entries || total > BYTES) {
        int oldest = -1;
        for (int i = 0; i < c->n; i++)
            if (!c->e[i]->making && !c->e[i]->waiting &&
                (oldest < 0 || c->e[i]->used < c->e[oldest]->used))
                oldest = i;
        if (oldest < 0) return;
        total -= size_of(c->e[oldest]);
        drop(c, oldest);
    }
}

/* A failure for want of memory is nobody else's. */
static void drop_failed(grammar_cache *c, const entry *e)
{
    int i = 0;
    if (e->rc != ERR_NOMEM || e->waiting) return;
    while (c->e[i] != e) i++;
    drop(c, i);
}

/* An empty entry that others wait for from now on; takes the key.  NULL: no memory, or all are
 * being made. */
static entry *add(grammar_cache *c, buf *key, uint64_t hash)
{
    make_room(c, ENTRIES - 1);
    entry *e = c->n < ENTRIES && buf_ok(key) ? calloc(1, sizeof *e) : NULL;
    if (!e) return NULL;
    *e = (entry){.key = *key, .hash = hash, .used = ++c->clock, .making = true};
    *key = (buf){0};
    return c->e[c->n++] = e;
}

static int take(const entry *e, grammar **out, grammar_error *why)
{
    *why = e->why;
    if (e->g) *out = grammar_ref(e->g);
    return e->rc;
}

/* The result of an entry just made. */
static void settle(grammar_cache *c, entry *e, int rc, grammar *g, const grammar_error *why)
{
    e->making = false;
    e->rc = rc;
    e->why = *why;
    if (!rc) e->g = grammar_ref(g);
    pthread_cond_broadcast(&c->made);
    drop_failed(c, e);
}

int grammar_cache_find(grammar_cache *c, const grammar_answer *a, grammar **out, grammar_error *why,
                       bool *hit)
{
    buf key = {0};
    write_key(&key, a);
    uint64_t hash = hash_of(&key);
    int rc = 0;
    pthread_mutex_lock(&c->lock);
    entry *e = buf_ok(&key) ? find(c, &key, hash) : NULL;
    *hit = e && !e->making;
    if (*hit) {
        e->used = ++c->clock;
        rc = take(e, out, why);
    }
    pthread_mutex_unlock(&c->lock);
    buf_clear(&key);
    return rc;
}

int grammar_cache_get(grammar_cache *c, const grammar_answer *a, grammar **out, grammar_error *why,
                      bool *hit)
{
    buf key = {0};
    write_key(&key, a);
    uint64_t hash = hash_of(&key);
    pthread_mutex_lock(&c->lock);
    entry *e = buf_ok(&key) ? find(c, &key, hash) : NULL;
    *hit = e != NULL;
    if (e) {
        e->used = ++c->clock;
        e->waiting++;
        while (e->making) pthread_cond_wait(&c->made, &c->lock);
        e->waiting--;
        int rc = take(e, out, why);
        drop_failed(c, e);
        pthread_mutex_unlock(&c->lock);
        buf_clear(&key);
        return rc;
    }
    e = add(c, &key, hash);
    pthread_mutex_unlock(&c->lock);
    buf_clear(&key);
    int rc = grammar_compile_answer(a, out, why);
    if (!e) return rc;
    pthread_mutex_lock(&c->lock);
    settle(c, e, rc, rc ? NULL : *out, why);
    make_room(c, ENTRIES);
    pthread_mutex_unlock(&c->lock);
    return rc;
}
