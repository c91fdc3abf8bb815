/* keys.c - owns the digests, names and counts of API keys; see keys.h.  Any thread. */
#include "server/keys.h"

#include "base/file.h"

#include <ctype.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

enum { MAX_KEYS = 4096, MAX_FILE = 1 << 20, NAME_CAP = 65, WINDOW = 60 /* seconds */ };

/* A key is compared as a 256-bit digest so that time does not depend on where it differs. */
typedef struct {
    uint64_t d[4];
} digest;

struct key_ref {
    atomic_int refs;
    char name[NAME_CAP];
    digest d;
    const key_limits *limits; /* the table's, which outlives all calls */
    pthread_mutex_t mu;       /* guards what follows */
    int64_t active;
    int64_t second; /* the newest of the window; second s is at [s % WINDOW] */
    int64_t requests[WINDOW], tokens[WINDOW];
};

typedef struct {
    digest d;
    key_ref *ref;
} entry;

typedef struct {
    entry *v; /* [n] one reference each */
    int n;
} table;

struct keys {
    uint64_t secret; /* seed of the digests, random per process */
    key_limits limits;
    char *file;          /* or NULL */
    pthread_rwlock_t mu; /* guards all, which only keys_reload changes */
    table all;           /* the command line's, then the file's */
    int n_fixed;
};

/* ---- one key --------------------------------------------------------------------------------- */

void key_put(key_ref *r)
{
    if (!r || atomic_fetch_sub(&r->refs, 1) > 1) return;
    pthread_mutex_destroy(&r->mu);
    free(r);
}

const char *key_name(const key_ref *r)
{
    return r->name;
}

uint64_t key_hash(const key_ref *r)
{
    return r->d.d[0] | 1;
}

/* Seconds that fell out of the window are emptied; r->mu is held. */
static void move_window(key_ref *r, int64_t now_us)
{
    int64_t now = now_us / 1000000;
    if (now - r->second >= WINDOW) {
        memset(r->requests, 0, sizeof r->requests);
        memset(r->tokens, 0, sizeof r->tokens);
        r->second = now;
    }
    while (r->second < now) {
        r->second++;
        r->requests[r->second % WINDOW] = r->tokens[r->second % WINDOW] = 0;
    }
}

/* Seconds until the window holds less than limit; 0 if it does now. */
static int wait_for_room(const key_ref *r, const int64_t *count, int64_t limit)
{
    int64_t sum = 0;
    for (int i = 0; i < WINDOW; i++) sum += count[i];
    for (int age = WINDOW - 1; age >= 0; age--) {
        if (sum < limit) return WINDOW - 1 - age;
        sum -= count[(r->second - age + WINDOW) % WINDOW];
    }
    return WINDOW;
}

bool key_enter(key_ref *r, int64_t now_us, key_refusal *why)
{
    const key_limits *l = r->limits;
    int wait = 0;
    *why = (key_refusal){0};
    pthread_mutex_lock(&r->mu);
    move_window(r, now_us);
    if (l->max_concurrent && r->active >= l->max_concurrent)
        *why = (key_refusal){"--key-max-concurrent", l->max_concurrent, 1};
    else if (l->rpm && (wait = wait_for_room(r, r->requests, l->rpm)))
        *why = (key_refusal){"--key-rpm", l->rpm, wait};
    else if (l->tpm && (wait = wait_for_room(r, r->tokens, l->tpm)))
        *why = (key_refusal){"--key-tpm", l->tpm, wait};
    if (!why->option) {
        r->active++;
        r->requests[r->second % WINDOW]++;
    }
    pthread_mutex_unlock(&r->mu);
    return !why->option;
}

void key_leave(key_ref *r)
{
    pthread_mutex_lock(&r->mu);
    r->active--;
    pthread_mutex_unlock(&r->mu);
}

void key_spend(key_ref *r, int64_t tokens, int64_t now_us)
{
    pthread_mutex_lock(&r->mu);
    move_window(r, now_us);
    r->tokens[r->second % WINDOW] += tokens;
    pthread_mutex_unlock(&r->mu);
}

/* ---- the table ------------------------------------------------------------------------------- */

static void table_clear(table *t)
{
    for (int i = 0; i < t->n; i++) key_put(t->v[i].ref);
    free(t->v);
    *t = (table){0};
}

static digest digest_of(const keys *k, const char *s, size_t n)
{
    digest d;
    for (uint64_t i = 0; i < 4; i++) d.d[i] = XXH3_64bits_withSeed(s, n, k->secret + i);
    return d;
}

/* The entry with that digest, NULL if there is none; looks at all of them, whatever it finds. */
static key_ref *look_up(const table *t, const digest *d)
{
    uint64_t at = (uint64_t)t->n;
    for (int i = 0; i < t->n; i++) {
        uint64_t diff = 0;
        for (int j = 0; j < 4; j++) diff |= d->d[j] ^ t->v[i].d.d[j];
        uint64_t same = (uint64_t)0 - (uint64_t)(diff == 0);
        at = (at & ~same) | ((uint64_t)i & same);
    }
    return at < (uint64_t)t->n ? t->v[at].ref : NULL;
}

static key_ref *key_new(const keys *k, const digest *d, const char *name)
{
    key_ref *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    pthread_mutex_init(&r->mu, NULL);
    atomic_init(&r->refs, 1);
    r->d = *d;
    r->limits = &k->limits;
    snprintf(r->name, sizeof r->name, "%s", name);
    return r;
}

/* Adds text[n] under name.  A key that is there already stays as it is; one that old (which may be
 * NULL) has under the same name keeps its counts. */
static int add_key(const keys *k, table *t, const table *old, const char *text, size_t n,
                   const char *name, err *e)
{
    digest d = digest_of(k, text, n);
    if (look_up(t, &d)) return 0;
    if (t->n >= MAX_KEYS) return err_set(e, ERR_LIMIT, "more than %d API keys", MAX_KEYS);
    entry *v = realloc(t->v, sizeof *v * (size_t)(t->n + 1));
    if (v) t->v = v;
    key_ref *r = old ? look_up(old, &d) : NULL;
    if (r && !strcmp(r->name, name)) atomic_fetch_add(&r->refs, 1);
    else r = key_new(k, &d, name);
    if (!v || !r) {
        key_put(r);
        return err_set(e, ERR_NOMEM, "out of memory reading the API keys");
    }
    t->v[t->n++] = (entry){d, r};
    return 0;
}

static bool printable(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] < 0x21 || s[i] > 0x7E) return false;
    return n > 0;
}

static bool is_name(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("._@-", s[i])) return false;
    return n > 0 && n < NAME_CAP;
}

/* One line of the file: nothing, "# ...", "key" or "name: key". */
static int read_line(const keys *k, table *t, const table *old, const char *line, size_t n,
                     int number, bool *found, err *e)
{
    char name[NAME_CAP];
    while (n && isspace((unsigned char)line[n - 1])) n--;
    while (n && isspace((unsigned char)*line)) line++, n--;
    if (!n || *line == '#') return 0;
    const char *colon = memchr(line, ':', n);
    size_t n_name = colon ? (size_t)(colon - line) : 0;
    snprintf(name, sizeof name, "line-%d", number);
    if (colon && !is_name(line, n_name))
        return err_set(e, ERR_INVALID,
                       "--api-key-file: line %d: what stands before ':' is no name (1 to 64 "
                       "letters, digits or any of . _ @ -); give a key that holds ':' a name",
                       number);
    if (colon) {
        snprintf(name, sizeof name, "%.*s", (int)n_name, line);
        line = colon + 1;
        n -= n_name + 1;
        while (n && isspace((unsigned char)*line)) line++, n--;
    }
    if (!printable(line, n))
        return err_set(e, ERR_INVALID,
                       "--api-key-file: line %d: a key is printable ASCII without spaces, got %s",
                       number, n ? "something else" : "a name alone");
    *found = true;
    return add_key(k, t, old, line, n, name, e);
}

static int read_file(const keys *k, table *t, const table *old, err *e)
{
    buf text = {0};
    bool found = false;
    int number = 1, rc = file_read(k->file, MAX_FILE, &text, e);
    if (rc) err_prefix(e, "--api-key-file");
    for (size_t at = 0; at < text.len && !rc; number++) {
        const char *line = text.v + at, *end = memchr(line, '\n', text.len - at);
        size_t n = end ? (size_t)(end - line) : text.len - at;
        rc = read_line(k, t, old, line, n, number, &found, e);
        at += n + 1;
    }
    if (!rc && !found) rc = err_set(e, ERR_INVALID, "--api-key-file '%s' holds no key", k->file);
    if (text.v) explicit_bzero(text.v, text.len);
    buf_clear(&text);
    return rc;
}

int keys_reload(keys *k, err *e)
{
    table fresh = {0};
    int rc = 0;
    if (!k->file) return 0;
    fresh.v = malloc(sizeof *fresh.v * (size_t)(k->n_fixed + 1));
    if (!fresh.v) rc = err_set(e, ERR_NOMEM, "out of memory reading the API keys");
    for (; !rc && fresh.n < k->n_fixed; fresh.n++) {
        fresh.v[fresh.n] = k->all.v[fresh.n];
        atomic_fetch_add(&fresh.v[fresh.n].ref->refs, 1);
    }
    if (!rc) rc = read_file(k, &fresh, &k->all, e);
    if (rc) {
        table_clear(&fresh);
        return rc;
    }
    pthread_rwlock_wrlock(&k->mu);
    table old = k->all;
    k->all = fresh;
    pthread_rwlock_unlock(&k->mu);
    table_clear(&old);
    return 0;
}

keys *keys_new(char *const *fixed, int n, const char *file, const key_limits *l, err *e)
{
    keys *k = calloc(1, sizeof *k);
    if (!k) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    pthread_rwlock_init(&k->mu, NULL);
    k->limits = *l;
    int rc = 0;
    if (getrandom(&k->secret, sizeof k->secret, 0) != sizeof k->secret)
        rc = err_set(e, ERR_IO, "the system gives no random bytes");
    if (!rc && file && !(k->file = strdup(file))) rc = err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < n && !rc; i++) {
        char name[NAME_CAP];
        snprintf(name, sizeof name, "key-%d", i + 1);
        if (printable(fixed[i], strlen(fixed[i])))
            rc = add_key(k, &k->all, NULL, fixed[i], strlen(fixed[i]), name, e);
        else rc = err_set(e, ERR_INVALID, "--api-key takes printable ASCII without spaces");
    }
    k->n_fixed = k->all.n;
    if (!rc) rc = keys_reload(k, e);
    if (!rc && (l->max_concurrent || l->rpm || l->tpm) && !keys_any(k))
        rc = err_set(e, ERR_INVALID,
                     "%s is a limit for each API key: it needs --api-key or "
                     "--api-key-file",
                     l->max_concurrent ? "--key-max-concurrent"
                     : l->rpm          ? "--key-rpm"
                                       : "--key-tpm");
    if (!rc) return k;
    keys_free(k);
    return NULL;
}

void keys_free(keys *k)
{
    if (!k) return;
    table_clear(&k->all);
    free(k->file);
    pthread_rwlock_destroy(&k->mu);
    free(k);
}

bool keys_any(const keys *k)
{
    return k->n_fixed || k->file;
}

key_ref *keys_find(keys *k, const char *text, size_t n)
{
    digest d = digest_of(k, text, n);
    pthread_rwlock_rdlock(&k->mu);
    key_ref *r = look_up(&k->all, &d);
    if (r) atomic_fetch_add(&r->refs, 1);
    pthread_rwlock_unlock(&k->mu);
    return r;
}
