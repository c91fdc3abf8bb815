/* response_store.c - see response_store.h.  One list from the newest used to the oldest and a hash
 * table of ids, under one lock; entries too old are dropped whenever somebody looks.  Refuses
 * entries larger than all its room. */
#include "server/response_store.h"

#include "base/clock.h"
#include "base/map.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry entry;
struct entry {
    entry *newer, *older, *next; /* by use; in the bucket */
    uint64_t key, hash;
    char *id;
    buf object;
    conversation talk;
    size_t bytes;
    int64_t until_us;
};

struct response_store {
    pthread_mutex_t lock;
    int64_t max_entries, life_us;
    uint64_t max_bytes, bytes;
    int n;
    entry *newest, *oldest;
    entry **bucket; /* [n_bucket], a power of two */
    size_t n_bucket;
};

/* ---- conversations --------------------------------------------------------------------------- */

conversation *conversation_new(void)
{
    return calloc(1, sizeof(conversation));
}

static void conversation_clear(conversation *c)
{
    buf_clear(&c->text);
    free(c->item);
    *c = (conversation){0};
}

void conversation_free(conversation *c)
{
    if (!c) return;
    conversation_clear(c);
    free(c);
}

buf *conversation_begin(conversation *c)
{
    if (c->n == c->cap) {
        int cap = c->cap ? c->cap * 2 : 8;
        void *v = realloc(c->item, (size_t)cap * sizeof *c->item);
        if (v) {
            c->item = v;
            c->cap = cap;
        } else {
            c->oom = true;
        }
    }
    if (c->n) buf_putc(&c->text, ',');
    if (c->n < c->cap) c->item[c->n].at = c->text.len;
    return &c->text;
}

void conversation_end(conversation *c, const char *id)
{
    if (c->n == c->cap) return;
    c->item[c->n].n = c->text.len - c->item[c->n].at;
    c->item[c->n++].id = map_hash(id, strlen(id));
}

const char *conversation_slice(const conversation *c, int from, int n, size_t *len)
{
    *len = 0;
    if (n <= 0 || from < 0 || from + n > c->n) return "";
    const conversation_item *first = &c->item[from], *last = &c->item[from + n - 1];
    *len = last->at + last->n - first->at;
    return c->text.v + first->at;
}

static bool conversation_copy(const conversation *from, conversation *to)
{
    *to = (conversation){.n_history = from->n_history, .n_input = from->n_input};
    buf_put(&to->text, buf_str(&from->text), from->text.len);
    to->item = malloc((size_t)(from->n + 1) * sizeof *to->item);
    if (!to->item || !buf_ok(&to->text)) {
        conversation_clear(to);
        return false;
    }
    if (from->n) memcpy(to->item, from->item, (size_t)from->n * sizeof *to->item);
    to->n = to->cap = from->n;
    return true;
}

/* ---- entries --------------------------------------------------------------------------------- */

static entry **bucket_of(response_store *s, uint64_t hash)
{
    return &s->bucket[hash & (s->n_bucket - 1)];
}

static void to_front(response_store *s, entry *e)
{
    e->older = s->newest;
    e->newer = NULL;
    if (s->newest) s->newest->newer = e;
    else s->oldest = e;
    s->newest = e;
}

static void out_of_list(response_store *s, entry *e)
{
    if (e->newer) e->newer->older = e->older;
    else s->newest = e->older;
    if (e->older) e->older->newer = e->newer;
    else s->oldest = e->newer;
}

static void entry_free(entry *e)
{
    free(e->id);
    buf_clear(&e->object);
    conversation_clear(&e->talk);
    free(e);
}

static void drop(response_store *s, entry *e)
{
    entry **at = bucket_of(s, e->hash);
    while (*at != e) at = &(*at)->next;
    *at = e->next;
    out_of_list(s, e);
    s->bytes -= e->bytes;
    s->n--;
    entry_free(e);
}

static void drop_expired(response_store *s)
{
    int64_t now = clock_us();
    for (entry *e = s->oldest, *newer; e; e = newer) {
        newer = e->newer;
        if (e->until_us <= now) drop(s, e);
    }
}

/* The key's entry, now the newest used; NULL if there is none. */
static entry *find(response_store *s, uint64_t key, const char *id)
{
    if (!s->n_bucket) return NULL;
    uint64_t hash = map_hash(id, strlen(id));
    entry *e = *bucket_of(s, hash);
    while (e && (e->hash != hash || e->key != key || strcmp(e->id, id))) e = e->next;
    if (e) {
        out_of_list(s, e);
        to_front(s, e);
    }
    return e;
}

/* ---- the store ------------------------------------------------------------------------------- */

response_store *response_store_new(int64_t entries, uint64_t bytes, double seconds)
{
    response_store *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    pthread_mutex_init(&s->lock, NULL);
    s->max_entries = entries;
    s->max_bytes = bytes;
    s->life_us = (int64_t)(seconds * 1e6);
    if (!entries) return s;
    s->n_bucket = 1;
    while (s->n_bucket < (size_t)entries) s->n_bucket *= 2;
    if ((s->bucket = calloc(s->n_bucket, sizeof(entry *)))) return s;
    response_store_free(s);
    return NULL;
}

void response_store_free(response_store *s)
{
    if (!s) return;
    while (s->oldest) drop(s, s->oldest);
    free(s->bucket);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

bool response_store_on(const response_store *s)
{
    return s->max_entries > 0;
}

void response_store_put(response_store *s, uint64_t key, const char *id, const buf *object,
                        const conversation *talk)
{
    if (!response_store_on(s) || !buf_ok(object) || !conversation_ok(talk)) return;
    size_t bytes = sizeof(entry) + strlen(id) + 1 + object->len + talk->text.len +
                   (size_t)talk->n * sizeof *talk->item;
    if (bytes > s->max_bytes) return;
    entry *e = calloc(1, sizeof *e);
    if (!e) return;
    e->id = strdup(id);
    buf_put(&e->object, buf_str(object), object->len);
    if (!e->id || !buf_ok(&e->object) || !conversation_copy(talk, &e->talk)) {
        entry_free(e);
        return;
    }
    e->key = key;
    e->hash = map_hash(id, strlen(id));
    e->bytes = bytes;
    e->until_us = clock_us() + s->life_us;
    pthread_mutex_lock(&s->lock);
    drop_expired(s);
    while (s->oldest && (s->n >= s->max_entries || s->bytes + bytes > s->max_bytes))
        drop(s, s->oldest);
    e->next = *bucket_of(s, e->hash);
    *bucket_of(s, e->hash) = e;
    to_front(s, e);
    s->bytes += bytes;
    s->n++;
    pthread_mutex_unlock(&s->lock);
}

store_result response_store_get(response_store *s, uint64_t key, const char *id, buf *object,
                                conversation *talk)
{
    store_result result = STORE_UNKNOWN;
    pthread_mutex_lock(&s->lock);
    drop_expired(s);
    const entry *e = find(s, key, id);
    if (e) {
        result = STORE_FOUND;
        if (object) buf_put(object, buf_str(&e->object), e->object.len);
        if ((object && !buf_ok(object)) || (talk && !conversation_copy(&e->talk, talk)))
            result = STORE_OOM;
    }
    pthread_mutex_unlock(&s->lock);
    return result;
}

bool response_store_delete(response_store *s, uint64_t key, const char *id)
{
    pthread_mutex_lock(&s->lock);
    drop_expired(s);
    entry *e = find(s, key, id);
    if (e) drop(s, e);
    pthread_mutex_unlock(&s->lock);
    return e != NULL;
}

store_result response_store_item(response_store *s, uint64_t key, const char *item_id, buf *out)
{
    store_result result = STORE_UNKNOWN;
    uint64_t id = map_hash(item_id, strlen(item_id));
    pthread_mutex_lock(&s->lock);
    drop_expired(s);
    for (const entry *e = s->newest; e && result == STORE_UNKNOWN; e = e->older)
        for (int i = e->talk.n - 1; e->key == key && i >= 0; i--) {
            if (e->talk.item[i].id != id) continue;
            buf_put(out, e->talk.text.v + e->talk.item[i].at, e->talk.item[i].n);
            result = buf_ok(out) ? STORE_FOUND : STORE_OOM;
            break;
        }
    pthread_mutex_unlock(&s->lock);
    return result;
}

int response_store_entries(response_store *s)
{
    pthread_mutex_lock(&s->lock);
    drop_expired(s);
    int n = s->n;
    pthread_mutex_unlock(&s->lock);
    return n;
}
