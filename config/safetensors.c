/* safetensors.c - the tensors of a Hugging Face directory.
 * Owns: the mappings, the parsed headers (names live in them) and the list.
 * Refuses: headers that do not describe their file to the last byte (sizes, overlaps, holes,
 * duplicates); an index and shards that disagree; see safetensors.h.
 * Thread: const after opening. */
#include "config/safetensors.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "base/map.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_DIMS = 16,
    MAX_HEADER = 100 << 20, /* bytes, by the format's own rule */
    MAX_INDEX = 64 << 20,
    MAX_SHARDS = 10000,
};

typedef struct {
    char *path;    /* owned; NULL for borrowed bytes */
    file_map map;  /* {0} for borrowed bytes */
    json_doc *doc; /* owned; the header */
    const json *header;
} st_file;

struct safetensors {
    st_file *file; /* [n_files] owned */
    int n_files;
    st_tensor *t; /* [n] owned */
    size_t n, cap;
    map names; /* -> t */
};

/* Bits per element of every dtype the format defines, and ours for those we read. */
static const struct {
    const char *name;
    unsigned bits;
    int type;
} dtypes[] = {
    {"F32", 32, DT_F32}, {"F16", 16, DT_F16}, {"BF16", 16, DT_BF16}, {"F64", 64, -1},
    {"I64", 64, -1},     {"I32", 32, -1},     {"I16", 16, -1},       {"I8", 8, -1},
    {"U64", 64, -1},     {"U32", 32, -1},     {"U16", 16, -1},       {"U8", 8, -1},
    {"BOOL", 8, -1},     {"C64", 64, -1},     {"F8_E4M3", 8, -1},    {"F8_E5M2", 8, -1},
    {"F8_E8M0", 8, -1},  {"F6_E2M3", 6, -1},  {"F6_E3M2", 6, -1},    {"F4", 4, -1},
};

/* Shape of an entry: fills n_dims, shape and the number of elements. */
static int read_shape(const json *shape, st_tensor *t, uint64_t *elems, err *e)
{
    if (!json_is(shape, JSON_ARRAY) || shape->len > MAX_DIMS)
        return err_set(e, ERR_FORMAT, "tensor '%.64s': 'shape' is not a list of at most %d numbers",
                       t->name, MAX_DIMS);
    t->n_dims = (int)shape->len;
    for (int i = 0; i < 4; i++) t->shape[i] = 1;
    uint64_t n = 1;
    int i = 0;
    for (const json *d = shape->child; d; d = d->next, i++) {
        int64_t v;
        if (!json_int(d, &v) || v < 0)
            return err_set(e, ERR_FORMAT, "tensor '%.64s': shape[%d] is not a whole number",
                           t->name, i);
        if (__builtin_mul_overflow(n, (uint64_t)v, &n))
            return err_set(e, ERR_FORMAT, "tensor '%.64s': the product of its shape overflows",
                           t->name);
        if (i < 4) t->shape[i] = v;
    }
    *elems = n;
    return 0;
}

/* data_offsets of an entry, inside data[size]. */
static int read_offsets(const json *offsets, size_t size, st_tensor *t, err *e)
{
    int64_t from, to;
    if (!json_is(offsets, JSON_ARRAY) || offsets->len != 2 ||
        !json_int(json_at(offsets, 0), &from) || !json_int(json_at(offsets, 1), &to) || from < 0 ||
        to < from)
        return err_set(e, ERR_FORMAT, "tensor '%.64s': 'data_offsets' is not [begin, end]",
                       t->name);
    if ((uint64_t)to > size)
        return err_set(
            e, ERR_FORMAT,
            "tensor '%.64s' ends at byte %lld of the data, which has %zu; the file is cut short",
            t->name, (long long)to, size);
    t->offset = (size_t)from;
    t->bytes = (size_t)(to - from);
    return 0;
}

static int check_bytes(const json *word, uint64_t elems, st_tensor *t, err *e)
{
    unsigned bits = 0;
    t->dtype_name = word->str;
    t->type = -1;
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(dtypes[i].name, word->str) != 0) continue;
        bits = dtypes[i].bits;
        if (t->n_dims <= 4) t->type = dtypes[i].type;
    }
    if (!bits) return 0; /* a dtype of tomorrow: listed, never read */
    uint64_t need;
    if (__builtin_mul_overflow(elems, (uint64_t)bits, &need) || need % 8 || need / 8 != t->bytes)
        return err_set(e, ERR_FORMAT,
                       "tensor '%.64s' has %zu bytes, not what its shape and %s need", t->name,
                       t->bytes, t->dtype_name);
    return 0;
}

/* Names go into messages and maps: text, and not empty. */
static bool plain_text(const char *s)
{
    const char *p = s;
    while ((unsigned char)*p >= 0x20) p++;
    return p > s && !*p;
}

static int add_tensor(safetensors *s, const json *entry, int file, size_t size, err *e)
{
    if (!plain_text(entry->key))
        return err_set(e, ERR_FORMAT, "a tensor's name is empty or holds control characters");
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 256;
        st_tensor *t = realloc(s->t, cap * sizeof *t);
        if (!t) return err_set(e, ERR_NOMEM, "out of memory for tensors");
        s->t = t;
        s->cap = cap;
    }
    st_tensor *t = &s->t[s->n];
    *t = (st_tensor){.name = entry->key, .file = file};
    uint64_t elems = 0;
    const json *word = json_get(entry, "dtype");
    if (!json_is(word, JSON_STRING))
        return err_set(e, ERR_FORMAT, "tensor '%.64s': no 'dtype'", t->name);
    int rc = read_shape(json_get(entry, "shape"), t, &elems, e);
    if (!rc) rc = read_offsets(json_get(entry, "data_offsets"), size, t, e);
    if (!rc) rc = check_bytes(word, elems, t, e);
    if (rc) return rc;
    rc = map_add(&s->names, entry->key, entry->n_key, s->n++);
    if (rc == ERR_NOMEM) return err_set(e, rc, "out of memory for tensors");
    if (rc) return err_set(e, ERR_FORMAT, "tensor '%.64s' stands in two files", t->name);
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const st_tensor *x = *(st_tensor *const *)a, *y = *(st_tensor *const *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* The tensors t[n] cover data[size] without overlap or hole. */
static int check_cover(st_tensor *t, size_t n, size_t size, err *e)
{
    st_tensor **order = malloc((n + 1) * sizeof *order);
    if (!order) return err_set(e, ERR_NOMEM, "out of memory for tensors");
    for (size_t i = 0; i < n; i++) order[i] = &t[i];
    qsort(order, n, sizeof *order, by_offset);
    size_t at = 0;
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        if (order[i]->offset != at)
            rc = err_set(e, ERR_FORMAT,
                         "tensor '%.64s' begins at byte %zu of the data, where %zu is due: %s",
                         order[i]->name, order[i]->offset, at,
                         order[i]->offset < at ? "two tensors overlap" : "there is a hole");
        at = order[i]->offset + order[i]->bytes;
    }
    if (!rc && at != size)
        rc = err_set(e, ERR_FORMAT, "the data has %zu bytes, the header describes %zu", size, at);
    free(order);
    return rc;
}

/* Header and tensors of file number `file`, whose bytes are v[len]. */
static int read_file(safetensors *s, int file, const unsigned char *v, size_t len, err *e)
{
    st_file *f = &s->file[file];
    uint64_t n;
    if (len < sizeof n)
        return err_set(e, ERR_FORMAT, "the file has %zu bytes; a header needs 8", len);
    memcpy(&n, v, sizeof n);
    if (n > len - sizeof n || n > MAX_HEADER)
        return err_set(
            e, ERR_FORMAT,
            "the header claims %llu bytes; the file has %zu and %d are the most accepted",
            (unsigned long long)n, len, MAX_HEADER);
    json_limits limits = {.max_depth = 8, .unique_keys = true};
    f->doc = json_parse((const char *)v + sizeof n, (size_t)n, &limits, &f->header, e);
    if (!f->doc) return err_prefix(e, "header");
    if (f->header->type != JSON_OBJECT)
        return err_set(e, ERR_FORMAT, "the header is a JSON %s, not an object",
                       json_type_name(f->header));
    size_t data = sizeof n + (size_t)n, first = s->n;
    for (const json *entry = f->header->child; entry; entry = entry->next) {
        if (!strcmp(entry->key, "__metadata__")) continue;
        int rc = add_tensor(s, entry, file, len - data, e);
        if (rc) return rc;
    }
    if (s->n == first) return err_set(e, ERR_FORMAT, "the file holds no tensor");
    int rc = check_cover(s->t + first, s->n - first, len - data, e);
    if (rc) return rc;
    for (size_t i = first; i < s->n; i++) {
        s->t[i].offset += data;
        s->t[i].data = v + s->t[i].offset;
    }
    return 0;
}

/* Opens dir/name as file number s->n_files. */
static int open_shard(safetensors *s, const char *dir, const char *name, err *e)
{
    int at = s->n_files++;
    st_file *f = &s->file[at];
    buf path = {0};
    buf_printf(&path, "%s/%s", dir, name);
    if (!buf_ok(&path)) return err_set(e, ERR_NOMEM, "out of memory");
    f->path = buf_take(&path, NULL);
    int rc = file_map_open(f->path, &f->map, e);
    if (rc) return rc;
    rc = read_file(s, at, f->map.v, f->map.len, e);
    return rc ? err_prefix(e, "'%s'", f->path) : 0;
}

/* A shard's name must be a plain file name: an index may not reach out of its directory. */
static bool plain_name(const json *j)
{
    return json_is(j, JSON_STRING) && plain_text(j->str) && j->len < 256 && j->str[0] != '.' &&
           !strchr(j->str, '/');
}

/* Every tensor of the shards stands in the index, under the file that holds it, and the reverse. */
static int compare_index(const safetensors *s, const json *weight_map, const map *files, err *e)
{
    for (size_t i = 0; i < s->n; i++)
        if (!json_get(weight_map, s->t[i].name))
            return err_set(e, ERR_FORMAT,
                           "'%s' holds tensor '%.64s', which the index does not name",
                           s->file[s->t[i].file].path, s->t[i].name);
    for (const json *w = weight_map->child; w; w = w->next) {
        const st_tensor *t = safetensors_find(s, w->key);
        size_t file = 0;
        map_find(files, w->str, w->len, &file);
        if (!t || (size_t)t->file != file)
            return err_set(e, ERR_FORMAT,
                           "the index puts tensor '%.64s' in '%s', which does not hold it", w->key,
                           s->file[file].path);
    }
    return 0;
}

static int open_index(safetensors *s, const char *dir, const json *weight_map, err *e)
{
    map files = {0};
    int rc = 0;
    if (!json_is(weight_map, JSON_OBJECT) || !weight_map->len)
        return err_set(e, ERR_FORMAT,
                       "model.safetensors.index.json has no 'weight_map' with tensors");
    size_t cap = weight_map->len < MAX_SHARDS ? weight_map->len : MAX_SHARDS;
    s->file = calloc(cap, sizeof *s->file);
    if (!s->file) return err_set(e, ERR_NOMEM, "out of memory");
    for (const json *w = weight_map->child; w && !rc; w = w->next) {
        if (!plain_name(w)) {
            rc = err_set(e, ERR_FORMAT, "the index puts tensor '%.64s' in no plain file name",
                         w->key);
            break;
        }
        rc = map_add(&files, w->str, w->len, (size_t)s->n_files);
        if (rc == ERR_BUSY) rc = 0;
        else if (rc) err_set(e, rc, "out of memory");
        else if ((size_t)s->n_files == cap)
            rc = err_set(e, ERR_LIMIT, "the index names more than %zu files", cap);
        else rc = open_shard(s, dir, w->str, e);
    }
    if (!rc) rc = compare_index(s, weight_map, &files, e);
    map_clear(&files);
    return rc;
}

static int open_dir(safetensors *s, const char *dir, err *e)
{
    buf path = {0};
    buf_printf(&path, "%s/model.safetensors", dir);
    if (!buf_ok(&path)) return err_set(e, ERR_NOMEM, "out of memory");
    int rc;
    if (file_exists(path.v)) {
        s->file = calloc(1, sizeof *s->file);
        rc = s->file ? open_shard(s, dir, "model.safetensors", e)
                     : err_set(e, ERR_NOMEM, "out of memory");
        goto out;
    }
    buf_puts(&path, ".index.json");
    if (!buf_ok(&path) || !file_exists(path.v)) {
        rc = err_set(e, ERR_NOTFOUND,
                     "'%s' holds neither model.safetensors nor model.safetensors.index.json", dir);
        goto out;
    }
    const json *root;
    json_limits limits = {.max_depth = 8, .unique_keys = true};
    json_doc *doc = json_read(path.v, MAX_INDEX, &limits, &root, e);
    rc = doc ? open_index(s, dir, json_get(root, "weight_map"), e) : ERR_FORMAT;
    json_free(doc);
out:
    buf_clear(&path);
    return rc;
}

safetensors *safetensors_open_dir(const char *dir, err *e)
{
    err own = {0};
    if (!e) e = &own;
    safetensors *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    if (open_dir(s, dir, e)) {
        safetensors_close(s);
        return NULL;
    }
    return s;
}

safetensors *safetensors_open_memory(const void *bytes, size_t n, err *e)
{
    safetensors *s = calloc(1, sizeof *s);
    if (s) s->file = calloc(1, sizeof *s->file);
    if (!s || !s->file) {
        err_set(e, ERR_NOMEM, "out of memory");
        goto fail;
    }
    s->n_files = 1;
    if (read_file(s, 0, bytes, n, e)) goto fail;
    return s;
fail:
    safetensors_close(s);
    return NULL;
}

void safetensors_close(safetensors *s)
{
    if (!s) return;
    for (int i = 0; i < s->n_files; i++) {
        json_free(s->file[i].doc);
        file_unmap(&s->file[i].map);
        free(s->file[i].path);
    }
    map_clear(&s->names);
    free(s->file);
    free(s->t);
    free(s);
}

size_t safetensors_n(const safetensors *s)
{
    return s->n;
}

const st_tensor *safetensors_at(const safetensors *s, size_t i)
{
    return i < s->n ? &s->t[i] : NULL;
}

const st_tensor *safetensors_find(const safetensors *s, const char *name)
{
    size_t i;
    return map_find(&s->names, name, strlen(name), &i) ? &s->t[i] : NULL;
}

void safetensors_drop(const safetensors *s, const st_tensor *t)
{
    if (s->file[t->file].map.len) file_map_drop(&s->file[t->file].map, t->offset, t->bytes);
}

uint64_t safetensors_bytes(const safetensors *s)
{
    uint64_t n = 0;
    for (int i = 0; i < s->n_files; i++) n += s->file[i].map.len;
    return n;
}
