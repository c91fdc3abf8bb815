/* gguf_write.c - owns the half-written file until gw_finish or gw_clear.
 * Refuses: see gguf_write.h.  Thread: one owner. */
#include "config/gguf_write.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GW_ALIGN = 32, GW_VERSION = 3 };

void gw_init(gguf_writer *w)
{
    *w = (gguf_writer){.fd = -1};
}

void gw_clear(gguf_writer *w)
{
    if (w->fd >= 0) {
        close(w->fd);
        unlink(w->tmp);
    }
    buf_clear(&w->kv);
    buf_clear(&w->info);
    buf_clear(&w->sizes);
    free(w->path);
    free(w->tmp);
    gw_init(w);
}

/* ---- encoding: little-endian, as every machine we build for ------------------------------------
 */

static void put_u32(buf *b, uint32_t v)
{
    buf_put(b, &v, sizeof v);
}
static void put_u64(buf *b, uint64_t v)
{
    buf_put(b, &v, sizeof v);
}
static void put_str(buf *b, const char *s, size_t n)
{
    put_u64(b, n);
    buf_put(b, s, n);
}

static void key_type(gguf_writer *w, const char *key, gguf_type type)
{
    put_str(&w->kv, key, strlen(key));
    put_u32(&w->kv, type);
    w->n_kv++;
}

void gw_item_int(gguf_writer *w, gguf_type type, int64_t v)
{
    static const unsigned char bytes[] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4,
        [GGUF_I32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8};
    assert(type < sizeof bytes && bytes[type]);
    buf_put(&w->kv, &v, bytes[type]);
}

void gw_item_num(gguf_writer *w, gguf_type type, double v)
{
    float f = (float)v;
    assert(type == GGUF_F32 || type == GGUF_F64);
    if (type == GGUF_F32) buf_put(&w->kv, &f, sizeof f);
    else buf_put(&w->kv, &v, sizeof v);
}

void gw_item_str(gguf_writer *w, const char *s, size_t n)
{
    put_str(&w->kv, s, n);
}

void gw_str(gguf_writer *w, const char *key, const char *s, size_t n)
{
    key_type(w, key, GGUF_STR);
    put_str(&w->kv, s, n);
}

void gw_int(gguf_writer *w, const char *key, gguf_type type, int64_t v)
{
    key_type(w, key, type);
    gw_item_int(w, type, v);
}

void gw_num(gguf_writer *w, const char *key, gguf_type type, double v)
{
    key_type(w, key, type);
    gw_item_num(w, type, v);
}

void gw_array(gguf_writer *w, const char *key, gguf_type type, size_t n)
{
    key_type(w, key, GGUF_ARR);
    put_u32(&w->kv, type);
    put_u64(&w->kv, n);
}

static uint64_t padding(uint64_t n)
{
    return (GW_ALIGN - n % GW_ALIGN) % GW_ALIGN;
}

void gw_tensor(gguf_writer *w, const char *name, int type, int n_dims, const int64_t *dim,
               uint64_t bytes)
{
    put_str(&w->info, name, strlen(name));
    put_u32(&w->info, (uint32_t)n_dims);
    for (int i = 0; i < n_dims; i++) put_u64(&w->info, (uint64_t)dim[i]);
    put_u32(&w->info, (uint32_t)type);
    put_u64(&w->info, w->offset);
    put_u64(&w->sizes, bytes);
    w->offset += bytes + padding(bytes);
    w->n_tensors++;
}

/* ---- the file ----------------------------------------------------------------------------------
 */

static int write_all(gguf_writer *w, const void *p, size_t n, err *e)
{
    const char *v = p;
    while (n) {
        ssize_t k = write(w->fd, v, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return err_set(e, ERR_IO, "cannot write %s: %s", w->tmp, strerror(errno));
        v += k;
        n -= (size_t)k;
    }
    return 0;
}

static void next_tensor(gguf_writer *w)
{
    w->left = 0;
    if (w->at < w->n_tensors) memcpy(&w->left, w->sizes.v + w->at * sizeof w->left, sizeof w->left);
}

int gw_begin(gguf_writer *w, const char *path, err *e)
{
    static const char zeros[GW_ALIGN];
    buf head = {0};
    buf_puts(&head, "GGUF");
    put_u32(&head, GW_VERSION);
    put_u64(&head, w->n_tensors);
    put_u64(&head, w->n_kv);
    buf_put(&head, w->kv.v, w->kv.len);
    buf_put(&head, w->info.v, w->info.len);
    buf_put(&head, zeros, padding(head.len));
    int rc = 0;
    size_t n = strlen(path) + sizeof ".tmp";
    w->path = strdup(path);
    w->tmp = malloc(n);
    if (!buf_ok(&head) || !buf_ok(&w->kv) || !buf_ok(&w->info) || !buf_ok(&w->sizes) || !w->path ||
        !w->tmp) {
        rc = err_set(e, ERR_NOMEM, "out of memory for the header of %s", path);
        goto out;
    }
    memcpy(w->tmp, path, n - sizeof ".tmp");
    memcpy(w->tmp + n - sizeof ".tmp", ".tmp", sizeof ".tmp");
    w->fd = open(w->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        rc = err_set(e, ERR_IO, "cannot create %s: %s", w->tmp, strerror(errno));
        goto out;
    }
    rc = write_all(w, head.v, head.len, e);
    next_tensor(w);
out:
    buf_clear(&head);
    return rc;
}

int gw_data(gguf_writer *w, const void *p, size_t n, err *e)
{
    assert(n <= w->left);
    w->left -= n;
    return write_all(w, p, n, e);
}

int gw_tensor_end(gguf_writer *w, err *e)
{
    static const char zeros[GW_ALIGN];
    uint64_t bytes;
    assert(w->left == 0 && w->at < w->n_tensors);
    memcpy(&bytes, w->sizes.v + w->at * sizeof bytes, sizeof bytes);
    w->at++;
    next_tensor(w);
    return write_all(w, zeros, padding(bytes), e);
}

int gw_finish(gguf_writer *w, err *e)
{
    assert(w->at == w->n_tensors);
    int bad = fsync(w->fd) ? errno : 0;
    if (close(w->fd) && !bad) bad = errno;
    w->fd = -1;
    if (!bad && rename(w->tmp, w->path)) bad = errno;
    if (!bad) return 0;
    unlink(w->tmp);
    return err_set(e, ERR_IO, "cannot finish %s: %s", w->path, strerror(bad));
}
