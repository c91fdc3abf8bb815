/* gguf_write.h - writes a GGUF v3 file: metadata and tensor list first, then the tensors' bytes in
 * the same order.  The file appears under its name only once it is whole.
 *   gw_init, gw_str..., gw_tensor..., gw_begin, (gw_data..., gw_tensor_end)..., gw_finish, gw_clear
 * Refuses: bytes that do not add up to what gw_tensor announced (an assert), and what the file
 * system refuses.  A failed allocation while describing is latched and reported by gw_begin.
 * Thread: one owner. */
#ifndef QUERN_CONFIG_GGUF_WRITE_H
#define QUERN_CONFIG_GGUF_WRITE_H

#include "base/buf.h"
#include "config/gguf.h"

typedef struct {
    buf kv, info; /* encoded so far */
    uint64_t n_kv, n_tensors;
    buf sizes;         /* uint64_t bytes of each tensor */
    uint64_t offset;   /* of the next tensor, from the start of the data */
    int fd;            /* -1 = not begun */
    char *path, *tmp;  /* owned */
    uint64_t at, left; /* tensor being written, its bytes still to come */
} gguf_writer;

void gw_init(gguf_writer *w);
/* Removes the unfinished file, if any, and frees everything. */
void gw_clear(gguf_writer *w);

void gw_str(gguf_writer *w, const char *key, const char *s, size_t n);
/* type: any integer type or GGUF_BOOL; GGUF_F32 or GGUF_F64.  The value must fit. */
void gw_int(gguf_writer *w, const char *key, gguf_type type, int64_t v);
void gw_num(gguf_writer *w, const char *key, gguf_type type, double v);
static inline void gw_u32(gguf_writer *w, const char *key, uint32_t v)
{
    gw_int(w, key, GGUF_U32, v);
}
/* An array of n elements, followed by n gw_item_* calls of that type. */
void gw_array(gguf_writer *w, const char *key, gguf_type type, size_t n);
void gw_item_str(gguf_writer *w, const char *s, size_t n);
void gw_item_int(gguf_writer *w, gguf_type type, int64_t v);
void gw_item_num(gguf_writer *w, gguf_type type, double v);

/* dim[0] innermost. */
void gw_tensor(gguf_writer *w, const char *name, int type, int n_dims, const int64_t *dim,
               uint64_t bytes);

/* Writes the header to path.tmp. */
int gw_begin(gguf_writer *w, const char *path, err *e);
/* The next n bytes of the current tensor. */
int gw_data(gguf_writer *w, const void *p, size_t n, err *e);
/* Ends the current tensor: all its bytes must be there. */
int gw_tensor_end(gguf_writer *w, err *e);
/* Syncs and renames. */
int gw_finish(gguf_writer *w, err *e);

#endif
