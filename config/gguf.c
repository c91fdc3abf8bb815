/* gguf.c - a GGUF model: one file, or all files of a split set, as one list of tensors.
 * Owns: the mappings and the lists.  Refuses: see gguf.h; split sets whose parts do not belong
 * together.  Thread: const after opening. */
#include "config/gguf.h"

#include "base/buf.h"
#include "base/file.h"
#include "config/gguf_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    file_map map; /* {0} for borrowed bytes */
    gguf_part part;
} gguf_file;

struct gguf {
    gguf_file *file; /* [n_files] owned */
    int n_files;
    gguf_tensor *tensor; /* [n_tensors] of all files, in order; names belong to the parts */
    size_t n_tensors;
    map names;
};

/* Splits ".../name-00002-of-00007.gguf" into its stem length (up to the first '-' of the suffix)
 * and the number of parts; false if the name is not of that form. */
static bool split_name(const char *path, size_t *stem, int *count)
{
    static const char form[] = "-#####-of-#####.gguf";
    size_t n = strlen(path), m = sizeof form - 1;
    if (n < m) return false;
    const char *tail = path + n - m;
    for (size_t i = 0; i < m; i++)
        if (form[i] == '#' ? tail[i] < '0' || tail[i] > '9' : tail[i] != form[i]) return false;
    int of = atoi(tail + 10);
    if (of < 1) return false;
    *stem = n - m;
    *count = of;
    return true;
}

/* What a part says of the set it belongs to; 1 of 1 if nothing. */
static void split_keys(const gguf_part *p, int64_t *no, int64_t *count, int64_t *tensors)
{
    const gguf_kv *k;
    *no = 0;
    *count = 1;
    *tensors = -1;
    if ((k = gguf_part_kv(p, "split.no"))) gguf_kv_int(k, 0, no);
    if ((k = gguf_part_kv(p, "split.count"))) gguf_kv_int(k, 0, count);
    if ((k = gguf_part_kv(p, "split.tensors.count"))) gguf_kv_int(k, 0, tensors);
    if (*count == 0) *count = 1; /* gguf-split writes 0 when it merges */
}

/* Part i of the set g: its own words about the set must agree with its place in it. */
static int check_split(const gguf *g, int i, err *e)
{
    int64_t no, count, tensors;
    split_keys(&g->file[i].part, &no, &count, &tensors);
    if (count != g->n_files)
        return err_set(e, ERR_FORMAT,
                       "part %d says it is one of %lld files, but the set has %d; name them "
                       "NAME-00001-of-%05lld.gguf and keep them in one directory",
                       i + 1, (long long)count, g->n_files, (long long)count);
    if (no != i)
        return err_set(e, ERR_FORMAT, "the file in place %d says it is part %lld (split.no)", i + 1,
                       (long long)no + 1);
    return 0;
}

/* One list of all tensors, no name twice. */
static int join_parts(gguf *g, err *e)
{
    int64_t no, count, tensors;
    size_t n = 0;
    for (int i = 0; i < g->n_files; i++) {
        int rc = check_split(g, i, e);
        if (rc) return rc;
        n += g->file[i].part.n_tensors;
    }
    split_keys(&g->file[0].part, &no, &count, &tensors);
    if (g->n_files > 1 && tensors >= 0 && (uint64_t)tensors != n)
        return err_set(e, ERR_FORMAT, "the set holds %zu tensors, split.tensors.count says %lld", n,
                       (long long)tensors);
    g->tensor = calloc(n + 1, sizeof *g->tensor);
    if (!g->tensor) return err_set(e, ERR_NOMEM, "out of memory for tensors");
    for (int i = 0; i < g->n_files; i++) {
        const gguf_part *p = &g->file[i].part;
        for (size_t j = 0; j < p->n_tensors; j++) {
            gguf_tensor *t = &g->tensor[g->n_tensors];
            *t = p->tensor[j];
            t->file = i;
            int rc = map_add(&g->names, t->name, strlen(t->name), g->n_tensors++);
            if (rc == ERR_NOMEM) return err_set(e, rc, "out of memory for tensors");
            if (rc) return err_set(e, ERR_FORMAT, "tensor '%.64s' stands twice", t->name);
        }
    }
    return 0;
}

static gguf *gguf_new(int n_files, err *e)
{
    gguf *g = calloc(1, sizeof *g);
    if (g) g->file = calloc((size_t)n_files, sizeof *g->file);
    if (!g || !g->file) {
        err_set(e, ERR_NOMEM, "out of memory");
        free(g);
        return NULL;
    }
    g->n_files = n_files;
    return g;
}

static int open_file(gguf_file *f, const char *path, err *e)
{
    int rc = file_map_open(path, &f->map, e);
    if (rc) return rc;
    rc = gguf_part_read(&f->part, f->map.v, f->map.len, e);
    if (rc) err_prefix(e, "'%s'", path);
    return rc;
}

gguf *gguf_open(const char *path, err *e)
{
    size_t stem = 0;
    int count = 1;
    bool split = split_name(path, &stem, &count);
    err own = {0};
    if (!e) e = &own;
    gguf *g = gguf_new(count, e);
    if (!g) return NULL;
    buf name = {0};
    for (int i = 0; i < count; i++) {
        buf_reset(&name);
        if (split) buf_printf(&name, "%.*s-%05d-of-%05d.gguf", (int)stem, path, i + 1, count);
        else buf_puts(&name, path);
        if (!buf_ok(&name)) {
            err_set(e, ERR_NOMEM, "out of memory");
            goto fail;
        }
        if (open_file(&g->file[i], buf_str(&name), e)) goto fail;
    }
    if (join_parts(g, e)) {
        err_prefix(e, "'%s'", path);
        goto fail;
    }
    buf_clear(&name);
    return g;
fail:
    buf_clear(&name);
    gguf_close(g);
    return NULL;
}

gguf *gguf_open_memory(const void *bytes, size_t n, err *e)
{
    gguf *g = gguf_new(1, e);
    if (!g) return NULL;
    if (gguf_part_read(&g->file[0].part, bytes, n, e) || join_parts(g, e)) {
        gguf_close(g);
        return NULL;
    }
    return g;
}

void gguf_close(gguf *g)
{
    if (!g) return;
    for (int i = 0; i < g->n_files; i++) {
        gguf_part_clear(&g->file[i].part);
        file_unmap(&g->file[i].map);
    }
    map_clear(&g->names);
    free(g->file);
    free(g->tensor);
    free(g);
}

/* ---- metadata ---- */

static const gguf_kv *scalar(const gguf *g, const char *key)
{
    const gguf_kv *k = gguf_part_kv(&g->file[0].part, key);
    return k && k->type != GGUF_ARR ? k : NULL;
}

static const gguf_kv *array(const gguf *g, const char *key)
{
    const gguf_kv *k = gguf_part_kv(&g->file[0].part, key);
    return k && k->type == GGUF_ARR ? k : NULL;
}

bool gguf_get_int(const gguf *g, const char *key, int64_t *v)
{
    const gguf_kv *k = scalar(g, key);
    return k && gguf_kv_int(k, 0, v);
}

bool gguf_get_num(const gguf *g, const char *key, double *v)
{
    const gguf_kv *k = scalar(g, key);
    return k && gguf_kv_num(k, 0, v);
}

bool gguf_get_bool(const gguf *g, const char *key, bool *v)
{
    const gguf_kv *k = scalar(g, key);
    if (!k || k->type != GGUF_BOOL) return false;
    *v = k->v[0] != 0;
    return true;
}

bool gguf_get_str(const gguf *g, const char *key, gguf_str *v)
{
    const gguf_kv *k = scalar(g, key);
    return k && gguf_kv_str(k, 0, v);
}

bool gguf_get_arr(const gguf *g, const char *key, gguf_type *type, size_t *n)
{
    const gguf_kv *k = array(g, key);
    if (!k) return false;
    *type = k->elem;
    *n = k->n;
    return true;
}

bool gguf_arr_str(const gguf *g, const char *key, size_t i, gguf_str *v)
{
    const gguf_kv *k = array(g, key);
    return k && gguf_kv_str(k, i, v);
}

bool gguf_arr_int(const gguf *g, const char *key, size_t i, int64_t *v)
{
    const gguf_kv *k = array(g, key);
    return k && gguf_kv_int(k, i, v);
}

bool gguf_arr_num(const gguf *g, const char *key, size_t i, double *v)
{
    const gguf_kv *k = array(g, key);
    return k && gguf_kv_num(k, i, v);
}

size_t gguf_n_kv(const gguf *g)
{
    return g->file[0].part.n_kv;
}

bool gguf_kv_at(const gguf *g, size_t i, gguf_str *key, gguf_type *type)
{
    if (i >= gguf_n_kv(g)) return false;
    *key = g->file[0].part.kv[i].key;
    *type = g->file[0].part.kv[i].type;
    return true;
}

/* ---- tensors ---- */

size_t gguf_n_tensors(const gguf *g)
{
    return g->n_tensors;
}

const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i)
{
    return i < g->n_tensors ? &g->tensor[i] : NULL;
}

const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name)
{
    size_t i;
    return map_find(&g->names, name, strlen(name), &i) ? &g->tensor[i] : NULL;
}

void gguf_drop(const gguf *g, const gguf_tensor *t)
{
    if (g->file[t->file].map.len) file_map_drop(&g->file[t->file].map, t->offset, t->bytes);
}

int gguf_n_files(const gguf *g)
{
    return g->n_files;
}

uint64_t gguf_bytes(const gguf *g)
{
    uint64_t n = 0;
    for (int i = 0; i < g->n_files; i++) n += g->file[i].map.len;
    return n;
}
