/* gguf_file.c - reads one GGUF v3 file.
 * Owns: the lists of keys and tensors it builds; the bytes are the caller's.
 * Refuses: every count, length, dimension and offset that does not fit the file, before anything is
 * allocated or read for it; see gguf.h.  Thread: the opener's. */
#include "config/gguf_file.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_KEY = 65535, /* bytes of a metadata key, by the specification */
    MAX_NAME = 1023, /* bytes of a tensor name; ggml itself stops at 63 */
    MIN_KV = 13,     /* bytes of the smallest metadata entry: length, type, one byte */
    MIN_TENSOR = 33, /* bytes of the smallest tensor entry: 8 + 1 + 4 + 8 + 4 + 8 */
    DEFAULT_ALIGNMENT = 32,
};
static const uint64_t MAX_ALIGNMENT = 1 << 24;

typedef struct {
    const unsigned char *base, *p, *end;
    err *e;
} cursor;

static size_t left(const cursor *c)
{
    return (size_t)(c->end - c->p);
}

static int take_bytes(cursor *c, void *out, size_t n, const char *what)
{
    if (left(c) < n) {
        err_set(c->e, ERR_FORMAT, "file ends inside %s at byte %zu", what,
                (size_t)(c->p - c->base));
        return ERR_FORMAT;
    }
    memcpy(out, c->p, n);
    c->p += n;
    return 0;
}

/* A length-prefixed string, borrowed from the file. */
static int take_str(cursor *c, gguf_str *s, const char *what)
{
    uint64_t n;
    int rc = take_bytes(c, &n, sizeof n, what);
    if (rc) return rc;
    if (n > left(c))
        return err_set(c->e, ERR_FORMAT, "%s at byte %zu claims %llu bytes, more than the file has",
                       what, (size_t)(c->p - c->base), (unsigned long long)n);
    *s = (gguf_str){(const char *)c->p, (size_t)n};
    c->p += n;
    return 0;
}

/* A key or tensor name: 1..max bytes of UTF-8 without control characters. */
static int take_name(cursor *c, gguf_str *s, size_t max, const char *what)
{
    int rc = take_str(c, s, what);
    if (rc) return rc;
    bool ok = s->n >= 1 && s->n <= max && utf8_valid(s->v, s->n);
    for (size_t i = 0; ok && i < s->n; i++) ok = (unsigned char)s->v[i] >= 0x20;
    if (ok) return 0;
    return err_set(c->e, ERR_FORMAT, "%s before byte %zu is not 1 to %zu bytes of plain UTF-8 text",
                   what, (size_t)(c->p - c->base), max);
}

/* Names in messages are cut to 64 bytes. */
static int shown(gguf_str s)
{
    return s.n < 64 ? (int)s.n : 64;
}

static size_t type_bytes(uint32_t type)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL: return 1;
    case GGUF_U16:
    case GGUF_I16: return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32: return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64: return 8;
    }
    return 0;
}

static int take_bools(cursor *c, gguf_kv *k)
{
    for (size_t i = 0; i < k->n; i++)
        if (k->v[i] > 1)
            return err_set(c->e, ERR_FORMAT, "metadata '%.*s' holds %d where a bool (0, 1) is due",
                           shown(k->key), k->key.v, k->v[i]);
    return 0;
}

/* k->n strings; of an array every start is remembered. */
static int take_strings(cursor *c, gguf_kv *k, bool array)
{
    gguf_str s;
    if (k->n > left(c) / sizeof(uint64_t))
        return err_set(c->e, ERR_FORMAT,
                       "metadata '%.*s' claims %zu strings, more than the file has", shown(k->key),
                       k->key.v, k->n);
    if (array && k->n && !(k->at = malloc(k->n * sizeof *k->at)))
        return err_set(c->e, ERR_NOMEM, "out of memory for %zu strings of metadata", k->n);
    for (size_t i = 0; i < k->n; i++) {
        if (array) k->at[i] = c->p;
        int rc = take_str(c, &s, "a metadata string");
        if (rc) return rc;
    }
    return 0;
}

static int take_value(cursor *c, gguf_kv *k)
{
    uint32_t type;
    uint64_t n = 1;
    int rc = take_bytes(c, &type, sizeof type, "a metadata type");
    if (rc) return rc;
    bool array = type == GGUF_ARR;
    k->type = k->elem = type;
    if (array) {
        rc = take_bytes(c, &type, sizeof type, "an array type");
        if (!rc) rc = take_bytes(c, &n, sizeof n, "an array length");
        if (rc) return rc;
        k->elem = type;
    }
    k->n = (size_t)n;
    k->v = c->p;
    if (type == GGUF_STR) return take_strings(c, k, array);
    size_t size = type_bytes(type);
    if (!size)
        return err_set(c->e, ERR_FORMAT, "metadata '%.*s' has %s type %u; types are 0 to 12%s",
                       shown(k->key), k->key.v, array ? "element" : "value", type,
                       array ? " without arrays in arrays" : "");
    if (n > left(c) / size)
        return err_set(c->e, ERR_FORMAT,
                       "metadata '%.*s' claims %llu elements, more than the file has",
                       shown(k->key), k->key.v, (unsigned long long)n);
    c->p += n * size;
    return type == GGUF_BOOL ? take_bools(c, k) : 0;
}

static int take_metadata(cursor *c, gguf_part *p, uint64_t n)
{
    if (n > left(c) / MIN_KV)
        return err_set(c->e, ERR_FORMAT,
                       "header claims %llu metadata entries, more than the file has",
                       (unsigned long long)n);
    if (n && !(p->kv = calloc(n, sizeof *p->kv)))
        return err_set(c->e, ERR_NOMEM, "out of memory for metadata");
    for (uint64_t i = 0; i < n; i++) {
        gguf_kv *k = &p->kv[p->n_kv];
        int rc = take_name(c, &k->key, MAX_KEY, "a metadata key");
        if (rc) return rc;
        rc = map_add(&p->keys, k->key.v, k->key.n, p->n_kv++);
        if (rc == ERR_NOMEM) return err_set(c->e, rc, "out of memory for metadata");
        if (rc)
            return err_set(c->e, ERR_FORMAT, "metadata '%.*s' stands twice", shown(k->key),
                           k->key.v);
        rc = take_value(c, k);
        if (rc) return rc;
    }
    return 0;
}

/* Names of the ids ggml defines and we do not read, for messages only. */
static const char *foreign_type(uint32_t type)
{
    static const char *const name[] = {
        [9] = "Q8_1",     [15] = "Q8_K",  [16] = "IQ2_XXS", [17] = "IQ2_XS",
        [18] = "IQ3_XXS", [19] = "IQ1_S", [21] = "IQ3_S",   [22] = "IQ2_S",
        [24] = "I8",      [25] = "I16",   [26] = "I32",     [27] = "I64",
        [28] = "F64",     [29] = "IQ1_M", [34] = "TQ1_0",   [35] = "TQ2_0",
    };
    return type < sizeof name / sizeof name[0] && name[type] ? name[type] : "unknown";
}

/* Sizes of one tensor: dimensions, type, bytes. */
static int take_shape(cursor *c, gguf_tensor *t)
{
    uint32_t n_dims, type;
    int rc = take_bytes(c, &n_dims, sizeof n_dims, "a tensor entry");
    if (rc) return rc;
    if (n_dims < 1 || n_dims > 4)
        return err_set(c->e, ERR_FORMAT, "tensor '%.64s' has %u dimensions; 1 to 4 are accepted",
                       t->name, n_dims);
    t->n_dims = (int)n_dims;
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t d = 1;
        if (i < n_dims && (rc = take_bytes(c, &d, sizeof d, "a tensor entry"))) return rc;
        if (d < 1 || d > INT64_MAX)
            return err_set(c->e, ERR_FORMAT, "tensor '%.64s' has a dimension of %llu", t->name,
                           (unsigned long long)d);
        t->dim[i] = (int64_t)d;
    }
    rc = take_bytes(c, &type, sizeof type, "a tensor entry");
    if (rc) return rc;
    dtype_traits traits = dtype_of(type < DT_COUNT ? (int)type : -1);
    if (!traits.name)
        return err_set(c->e, ERR_UNSUPPORTED,
                       "tensor '%.64s' has type %u (%s), which is not supported", t->name, type,
                       foreign_type(type));
    t->type = (int)type;
    size_t size;
    bool fits = dtype_row_bytes(t->type, t->dim[0], &size);
    if (!fits && t->dim[0] % traits.elems)
        return err_set(c->e, ERR_FORMAT,
                       "tensor '%.64s' has rows of %lld elements; %s needs a multiple of %d",
                       t->name, (long long)t->dim[0], traits.name, traits.elems);
    for (int i = 1; i < 4; i++)
        fits = fits && !__builtin_mul_overflow(size, (size_t)t->dim[i], &size);
    if (!fits || size > INT64_MAX)
        return err_set(c->e, ERR_FORMAT, "tensor '%.64s' has dimensions whose product overflows",
                       t->name);
    t->bytes = size;
    return 0;
}

/* One entry; `offset` is still relative to the start of the data. */
static int take_tensor(cursor *c, gguf_part *p)
{
    gguf_tensor *t = &p->tensor[p->n_tensors];
    gguf_str name;
    int rc = take_name(c, &name, MAX_NAME, "a tensor name");
    if (rc) return rc;
    char *copy = strndup(name.v, name.n);
    if (!copy) return err_set(c->e, ERR_NOMEM, "out of memory for tensor names");
    t->name = copy;
    p->n_tensors++;
    uint64_t offset;
    rc = take_shape(c, t);
    if (!rc) rc = take_bytes(c, &offset, sizeof offset, "a tensor entry");
    if (!rc) t->offset = (size_t)offset;
    return rc;
}

static int by_offset(const void *a, const void *b)
{
    const gguf_tensor *x = *(gguf_tensor *const *)a, *y = *(gguf_tensor *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* No two tensors share a byte. */
static int check_overlaps(cursor *c, gguf_part *p)
{
    gguf_tensor **order = malloc((p->n_tensors + 1) * sizeof *order);
    if (!order) return err_set(c->e, ERR_NOMEM, "out of memory for tensors");
    int rc = 0;
    for (size_t i = 0; i < p->n_tensors; i++) order[i] = &p->tensor[i];
    qsort(order, p->n_tensors, sizeof *order, by_offset);
    for (size_t i = 1; i < p->n_tensors && !rc; i++)
        if (order[i - 1]->offset + order[i - 1]->bytes > order[i]->offset)
            rc = err_set(c->e, ERR_FORMAT, "tensors '%.64s' and '%.64s' overlap",
                         order[i - 1]->name, order[i]->name);
    free(order);
    return rc;
}

/* Turns offsets into places in the file, all of them inside it and aligned. */
static int place_tensors(cursor *c, gguf_part *p)
{
    int64_t alignment = DEFAULT_ALIGNMENT;
    const gguf_kv *k = gguf_part_kv(p, "general.alignment");
    if (k && (k->type == GGUF_ARR || !gguf_kv_int(k, 0, &alignment)))
        return err_set(c->e, ERR_FORMAT, "general.alignment is not an integer");
    if (alignment < 1 || (uint64_t)alignment > MAX_ALIGNMENT || (alignment & (alignment - 1)))
        return err_set(c->e, ERR_FORMAT,
                       "general.alignment is %lld; a power of two up to %llu is accepted",
                       (long long)alignment, (unsigned long long)MAX_ALIGNMENT);
    size_t align = (size_t)alignment, size = (size_t)(c->end - c->base);
    size_t data = ((size_t)(c->p - c->base) + align - 1) / align * align;
    for (size_t i = 0; i < p->n_tensors; i++) {
        gguf_tensor *t = &p->tensor[i];
        if (t->offset % align)
            return err_set(c->e, ERR_FORMAT,
                           "tensor '%.64s' starts at offset %zu, not a multiple of %zu", t->name,
                           t->offset, align);
        if (data > size || t->offset > size - data || t->bytes > size - data - t->offset)
            return err_set(
                c->e, ERR_FORMAT,
                "tensor '%.64s' (%zu bytes at offset %zu) reaches beyond the file's %zu bytes",
                t->name, t->bytes, t->offset, size);
        t->offset += data;
        t->data = c->base + t->offset;
    }
    return check_overlaps(c, p);
}

static int take_header(cursor *c, uint64_t *n_tensors, uint64_t *n_kv)
{
    char magic[4];
    uint32_t version;
    int rc = take_bytes(c, magic, 4, "the header");
    if (rc) return rc;
    if (memcmp(magic, "GGUF", 4) != 0)
        return err_set(c->e, ERR_FORMAT, "not a GGUF file (it does not begin with 'GGUF')");
    rc = take_bytes(c, &version, sizeof version, "the header");
    if (rc) return rc;
    if (version == 3u << 24)
        return err_set(c->e, ERR_UNSUPPORTED, "big-endian GGUF is not supported");
    if (version != 3)
        return err_set(c->e, ERR_UNSUPPORTED,
                       "GGUF version %u is not supported, only 3; convert the file anew", version);
    rc = take_bytes(c, n_tensors, 8, "the header");
    return rc ? rc : take_bytes(c, n_kv, 8, "the header");
}

int gguf_part_read(gguf_part *p, const unsigned char *bytes, size_t n, err *e)
{
    cursor c = {bytes, bytes, bytes + n, e};
    uint64_t n_tensors = 0, n_kv = 0;
    *p = (gguf_part){0};
    int rc = take_header(&c, &n_tensors, &n_kv);
    if (!rc) rc = take_metadata(&c, p, n_kv);
    if (rc) goto fail;
    if (n_tensors > left(&c) / MIN_TENSOR) {
        rc = err_set(e, ERR_FORMAT, "header claims %llu tensors, more than the file has",
                     (unsigned long long)n_tensors);
        goto fail;
    }
    if (n_tensors && !(p->tensor = calloc(n_tensors, sizeof *p->tensor))) {
        rc = err_set(e, ERR_NOMEM, "out of memory for tensors");
        goto fail;
    }
    for (uint64_t i = 0; i < n_tensors; i++)
        if ((rc = take_tensor(&c, p))) goto fail;
    rc = place_tensors(&c, p);
    if (rc) goto fail;
    return 0;
fail:
    gguf_part_clear(p);
    return rc;
}

void gguf_part_clear(gguf_part *p)
{
    for (size_t i = 0; i < p->n_kv; i++) free(p->kv[i].at);
    for (size_t i = 0; i < p->n_tensors; i++) free((char *)(uintptr_t)p->tensor[i].name);
    free(p->kv);
    free(p->tensor);
    map_clear(&p->keys);
    *p = (gguf_part){0};
}

const gguf_kv *gguf_part_kv(const gguf_part *p, const char *key)
{
    size_t i;
    return map_find(&p->keys, key, strlen(key), &i) ? &p->kv[i] : NULL;
}

bool gguf_kv_int(const gguf_kv *k, size_t i, int64_t *v)
{
    if (i >= k->n) return false;
#define AS(c_type)                                 \
    {                                              \
        c_type x;                                  \
        memcpy(&x, k->v + i * sizeof x, sizeof x); \
        *v = (int64_t)x;                           \
        return true;                               \
    }
    switch (k->elem) {
    case GGUF_U8: AS(uint8_t)
    case GGUF_I8: AS(int8_t)
    case GGUF_U16: AS(uint16_t)
    case GGUF_I16: AS(int16_t)
    case GGUF_U32: AS(uint32_t)
    case GGUF_I32: AS(int32_t)
    case GGUF_I64: AS(int64_t)
    case GGUF_U64: break;
    default: return false;
    }
#undef AS
    uint64_t x;
    memcpy(&x, k->v + i * sizeof x, sizeof x);
    if (x > INT64_MAX) return false;
    *v = (int64_t)x;
    return true;
}

bool gguf_kv_num(const gguf_kv *k, size_t i, double *v)
{
    int64_t whole;
    float f;
    if (i >= k->n) return false;
    if (k->elem == GGUF_F64) {
        memcpy(v, k->v + i * sizeof *v, sizeof *v);
        return true;
    }
    if (k->elem == GGUF_F32) {
        memcpy(&f, k->v + i * sizeof f, sizeof f);
        *v = (double)f;
        return true;
    }
    if (!gguf_kv_int(k, i, &whole)) return false;
    *v = (double)whole;
    return true;
}

bool gguf_kv_str(const gguf_kv *k, size_t i, gguf_str *v)
{
    if (k->elem != GGUF_STR || i >= k->n) return false;
    const unsigned char *p = k->at ? k->at[i] : k->v;
    uint64_t n; /* checked when the file was read */
    memcpy(&n, p, sizeof n);
    *v = (gguf_str){(const char *)p + sizeof n, (size_t)n};
    return true;
}
