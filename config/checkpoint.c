/* checkpoint.c - one face for both forms of a model on disk; see checkpoint.h.
 * Owns: the opened container, the list of its tensors, the paths of the text files.
 * Refuses: what the readers refuse, with the path in front; places that hold no model.
 * Thread: const after opening. */
#include "config/checkpoint.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/map.h"

#include <assert.h>
#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { N_TEXT = 5, MAX_CONFIG = 16 << 20 };

struct checkpoint {
    gguf *g; /* one of the two, or neither */
    safetensors *s;
    model_config config;
    bool has_config;
    ckpt_tensor *t; /* [n] owned; names and data belong to the container */
    size_t n;
    char **own_names; /* [n] owned, or NULL: names that are not the container's */
    map names;
    char *text[N_TEXT]; /* owned paths, NULL where absent; order of text_names */
};

static const char *const text_names[N_TEXT] = {"tokenizer.json", "vocab.json", "merges.txt",
                                               "tokenizer_config.json", "chat_template.jinja"};

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcasecmp(s + n - m, tail);
}

/* dir/name if that file exists, else NULL; *rc reports lack of memory. */
static char *path_if_there(const char *dir, const char *name, int *rc, err *e)
{
    buf path = {0};
    buf_printf(&path, "%s/%s", dir, name);
    if (!buf_ok(&path)) *rc = err_set(e, ERR_NOMEM, "out of memory");
    else if (file_exists(path.v) && !file_is_dir(path.v)) return buf_take(&path, NULL);
    buf_clear(&path);
    return NULL;
}

static ckpt_tensor from_gguf(const gguf_tensor *t)
{
    ckpt_tensor c = {.name = t->name,
                     .type = t->type,
                     .type_name = dtype_of(t->type).name,
                     .n_dims = t->n_dims,
                     .data = t->data,
                     .bytes = t->bytes};
    for (int i = 0; i < 4; i++) c.dim[i] = i < t->n_dims ? t->dim[t->n_dims - 1 - i] : 1;
    return c;
}

static ckpt_tensor from_safetensors(const st_tensor *t)
{
    ckpt_tensor c = {.name = t->name,
                     .type = t->type,
                     .type_name = t->dtype_name,
                     .n_dims = t->n_dims,
                     .data = t->data,
                     .bytes = t->bytes};
    memcpy(c.dim, t->shape, sizeof c.dim);
    return c;
}

/* A model saved without its head (Qwen3Model) has "layers.0..." where others have
 * "model.layers.0...": the latter is the name we know it by.  NULL when out of memory. */
static char *under_model(const char *name)
{
    bool head = !strncmp(name, "score.", 6) || !strncmp(name, "lm_head.", 8);
    buf b = {0};
    buf_printf(&b, "%s%s", head ? "" : "model.", name);
    if (!buf_ok(&b)) buf_clear(&b);
    return buf_take(&b, NULL);
}

static bool is_headless(const safetensors *s)
{
    for (size_t i = 0; i < safetensors_n(s); i++)
        if (!strcmp(safetensors_at(s, i)->name, "embed_tokens.weight")) return true;
    return false;
}

static int list_tensors(checkpoint *c, err *e)
{
    c->n = c->g ? gguf_n_tensors(c->g) : safetensors_n(c->s);
    c->t = calloc(c->n + 1, sizeof *c->t);
    if (!c->t) return err_set(e, ERR_NOMEM, "out of memory for tensors");
    if (c->s && is_headless(c->s) && !(c->own_names = calloc(c->n + 1, sizeof *c->own_names)))
        return err_set(e, ERR_NOMEM, "out of memory for tensors");
    for (size_t i = 0; i < c->n; i++) {
        c->t[i] =
            c->g ? from_gguf(gguf_tensor_at(c->g, i)) : from_safetensors(safetensors_at(c->s, i));
        if (c->own_names) c->t[i].name = c->own_names[i] = under_model(c->t[i].name);
        if (!c->t[i].name || map_add(&c->names, c->t[i].name, strlen(c->t[i].name), i))
            return err_set(e, ERR_NOMEM, "out of memory for tensors");
    }
    return 0;
}

static int open_gguf(checkpoint *c, const char *path, const checkpoint_options *o, err *e)
{
    int64_t blocks;
    gguf_str arch;
    c->g = gguf_open(path, e);
    if (!c->g) return e->code;
    int rc = list_tensors(c, e);
    if (rc) return rc;
    /* A vocabulary-only file may say nothing of a model. */
    char key[128] = "";
    if (gguf_get_str(c->g, "general.architecture", &arch))
        snprintf(key, sizeof key, "%.*s.block_count", arch.n < 64 ? (int)arch.n : 64, arch.v);
    if (!o->weights && !gguf_get_int(c->g, key, &blocks)) return 0;
    rc = model_config_from_gguf(&c->config, c->g, e);
    if (rc) return err_prefix(e, "'%s'", path);
    c->has_config = true;
    return 0;
}

/* config.json and generation_config.json of a directory. */
static int read_config(checkpoint *c, const char *dir, const char *config, const char *generation,
                       err *e)
{
    const json *root, *gen = NULL;
    json_doc *gen_doc = NULL, *doc = json_read(config, MAX_CONFIG, NULL, &root, e);
    if (!doc) return e->code;
    int rc = 0;
    if (generation && !(gen_doc = json_read(generation, MAX_CONFIG, NULL, &gen, e))) rc = e->code;
    if (!rc && (rc = model_config_from_json(&c->config, root, gen, e))) err_prefix(e, "'%s'", dir);
    if (!rc && model_config_runs(&c->config))
        rc = pooling_from_dir(&c->config.pool, dir, root, c->config.arch, c->config.model_type, e);
    c->has_config = !rc;
    json_free(gen_doc);
    json_free(doc);
    return rc;
}

static int open_dir(checkpoint *c, const char *dir, const checkpoint_options *o, err *e)
{
    int rc = 0;
    char *config = path_if_there(dir, "config.json", &rc, e);
    char *generation = path_if_there(dir, "generation_config.json", &rc, e);
    for (int i = 0; i < N_TEXT; i++) c->text[i] = path_if_there(dir, text_names[i], &rc, e);
    if (rc) goto out;
    if (config) rc = read_config(c, dir, config, generation, e);
    else if (o->weights)
        rc = err_set(e, ERR_NOTFOUND,
                     "'%s' holds no config.json; give a Hugging Face checkpoint directory "
                     "or a .gguf file",
                     dir);
    else if (!c->text[0] && !c->text[1])
        rc = err_set(e, ERR_NOTFOUND,
                     "'%s' holds neither config.json nor tokenizer.json nor vocab.json", dir);
    if (rc || !o->weights) goto out;
    c->s = safetensors_open_dir(dir, e);
    rc = c->s ? list_tensors(c, e) : e->code;
out:
    free(config);
    free(generation);
    return rc;
}

checkpoint *checkpoint_open(const char *path, const checkpoint_options *o, err *e)
{
    static const checkpoint_options all = {.weights = true};
    err own = {0};
    if (!e) e = &own;
    if (!o) o = &all;
    checkpoint *c = calloc(1, sizeof *c);
    if (!c) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    int rc;
    if (file_is_dir(path)) rc = open_dir(c, path, o, e);
    else if (!file_exists(path))
        rc =
            err_set(e, ERR_NOTFOUND,
                    "there is no model at '%s'; give a checkpoint directory or a .gguf file", path);
    else if (ends_with(path, ".safetensors") || ends_with(path, ".json"))
        rc = err_set(e, ERR_INVALID, "'%s' is one file of a checkpoint; give its directory", path);
    else rc = open_gguf(c, path, o, e);
    if (!rc) return c;
    checkpoint_close(c);
    return NULL;
}

void checkpoint_close(checkpoint *c)
{
    if (!c) return;
    map_clear(&c->names);
    for (size_t i = 0; c->own_names && i < c->n; i++) free(c->own_names[i]);
    free(c->own_names);
    free(c->t);
    gguf_close(c->g);
    safetensors_close(c->s);
    for (int i = 0; i < N_TEXT; i++) free(c->text[i]);
    free(c);
}

bool checkpoint_is_gguf(const checkpoint *c)
{
    return c->g != NULL;
}

const model_config *checkpoint_config(const checkpoint *c)
{
    return c->has_config ? &c->config : NULL;
}

model_config *checkpoint_config_edit(checkpoint *c)
{
    return c->has_config ? &c->config : NULL;
}

size_t checkpoint_n_tensors(const checkpoint *c)
{
    return c->n;
}

const ckpt_tensor *checkpoint_tensor_at(const checkpoint *c, size_t i)
{
    return i < c->n ? &c->t[i] : NULL;
}

const ckpt_tensor *checkpoint_find(const checkpoint *c, const char *name)
{
    size_t i;
    return map_find(&c->names, name, strlen(name), &i) ? &c->t[i] : NULL;
}

void checkpoint_drop(const checkpoint *c, const ckpt_tensor *t)
{
    size_t i = (size_t)(t - c->t); /* the container lists them in the same order */
    if (!t->data) return;
    if (c->g) gguf_drop(c->g, gguf_tensor_at(c->g, i));
    else safetensors_drop(c->s, safetensors_at(c->s, i));
}

/* Bytes of a tensor as its type stores it. */
static int fill_tensor(ckpt_tensor *t, err *e)
{
    int64_t rows = 1;
    size_t row;
    for (int i = 0; i + 1 < t->n_dims; i++)
        if (__builtin_mul_overflow(rows, t->dim[i], &rows))
            return err_set(e, ERR_LIMIT, "tensor %s is too large", t->name);
    t->type_name = dtype_of(t->type).name;
    t->data = NULL;
    if (!t->type_name || !dtype_row_bytes(t->type, t->dim[t->n_dims - 1], &row))
        return err_set(e, ERR_INVALID, "tensor %s: rows of %lld are not whole %s blocks of %d",
                       t->name, (long long)t->dim[t->n_dims - 1],
                       t->type_name ? t->type_name : "unknown", dtype_of(t->type).elems);
    if (__builtin_mul_overflow(row, (size_t)rows, &t->bytes))
        return err_set(e, ERR_LIMIT, "tensor %s is too large", t->name);
    return 0;
}

int checkpoint_set_tensors(checkpoint *c, const ckpt_tensor *t, size_t n, err *e)
{
    assert(!c->t && !c->n);
    c->t = calloc(n + 1, sizeof *c->t);
    c->own_names = calloc(n + 1, sizeof *c->own_names);
    if (!c->t || !c->own_names) return err_set(e, ERR_NOMEM, "out of memory for tensors");
    for (; c->n < n; c->n++) {
        ckpt_tensor *to = &c->t[c->n];
        char *name = strdup(t[c->n].name);
        *to = t[c->n];
        to->name = c->own_names[c->n] = name;
        if (!name || map_add(&c->names, name, strlen(name), c->n)) {
            free(name);
            return err_set(e, ERR_NOMEM, "out of memory for tensors");
        }
        int rc = fill_tensor(to, e);
        if (rc) {
            c->n++;
            return rc;
        }
    }
    return 0;
}

const gguf *checkpoint_gguf(const checkpoint *c)
{
    return c->g;
}

checkpoint_text checkpoint_text_files(const checkpoint *c)
{
    return (checkpoint_text){c->text[0], c->text[1], c->text[2], c->text[3], c->text[4]};
}

uint64_t checkpoint_bytes(const checkpoint *c)
{
    return c->g ? gguf_bytes(c->g) : c->s ? safetensors_bytes(c->s) : 0;
}

/* "models--O--N/snapshots/..." inside path: O/N into out; false if path is not of that form. */
static bool hub_name(const char *path, char *out, size_t n)
{
    static const char head[] = "models--";
    for (const char *p = path; (p = strstr(p, head)); p++) {
        const char *name = p + sizeof head - 1, *end = strchr(name, '/');
        if ((p > path && p[-1] != '/') || !end || end == name ||
            strncmp(end, "/snapshots/", 11) != 0)
            continue;
        size_t at = 0;
        for (; name < end && at + 1 < n; at++) {
            bool slash = name[0] == '-' && name[1] == '-' && name + 2 < end;
            out[at] = slash ? '/' : *name;
            name += slash ? 2 : 1;
        }
        out[at] = 0;
        return true;
    }
    return false;
}

/* Length of s[n] without "-00001-of-00003". */
static size_t without_part(const char *s, size_t n)
{
    static const char form[] = "-#####-of-#####";
    size_t m = sizeof form - 1;
    if (n <= m) return n;
    for (size_t i = 0; i < m; i++) {
        char c = s[n - m + i];
        if (form[i] == '#' ? !isdigit((unsigned char)c) : c != form[i]) return n;
    }
    return n - m;
}

void checkpoint_name(const char *path, char *out, size_t n)
{
    if (!n || hub_name(path, out, n)) return;
    char real[PATH_MAX];
    size_t len = strlen(path);
    while (len && path[len - 1] == '/') len--;
    bool dots =
        len && path[len - 1] == '.' && (len == 1 || path[len - 2] == '/' || path[len - 2] == '.');
    if (dots && realpath(path, real)) { /* ".", "..", "x/..": the directory's own name */
        if (hub_name(real, out, n)) return;
        path = real;
        len = strlen(real);
    }
    size_t from = len;
    while (from && path[from - 1] != '/') from--;
    const char *stem = path + from;
    len -= from;
    if (len > 5 && !strncasecmp(stem + len - 5, ".gguf", 5)) len = without_part(stem, len - 5);
    snprintf(out, n, "%.*s", len ? (int)len : 5, len ? stem : "model");
}
