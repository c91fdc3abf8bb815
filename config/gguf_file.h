/* gguf_file.h - what the reader of one GGUF file (gguf_file.c) hands to the set of files (gguf.c).
 * Internal to config/.  Thread: the opener's. */
#ifndef QUERN_CONFIG_GGUF_FILE_H
#define QUERN_CONFIG_GGUF_FILE_H

#include "base/file.h"
#include "base/map.h"
#include "config/gguf.h"

typedef struct {
    gguf_str key;
    gguf_type type, elem;     /* elem: of an array */
    size_t n;                 /* elements; 1 for a scalar */
    const unsigned char *v;   /* the first element, unaligned */
    const unsigned char **at; /* [n] owned: the elements of a string array, else NULL */
} gguf_kv;

/* Everything one file says.  Borrows the file's bytes. */
typedef struct {
    gguf_kv *kv; /* [n_kv] owned */
    size_t n_kv;
    map keys;
    gguf_tensor *tensor; /* [n_tensors] owned, names owned; in file order */
    size_t n_tensors;
} gguf_part;

/* Reads and checks bytes[n].  On failure p is cleared. */
int gguf_part_read(gguf_part *p, const unsigned char *bytes, size_t n, err *e);
void gguf_part_clear(gguf_part *p);
const gguf_kv *gguf_part_kv(const gguf_part *p, const char *key);
/* Element i as an integer, a number, a string; false if it is none or does not fit. */
bool gguf_kv_int(const gguf_kv *k, size_t i, int64_t *v);
bool gguf_kv_num(const gguf_kv *k, size_t i, double *v);
bool gguf_kv_str(const gguf_kv *k, size_t i, gguf_str *v);

#endif
