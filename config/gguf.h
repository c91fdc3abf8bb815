/* gguf.h - GGUF v3 container (one file, or all files of a split set): mapped, every size, offset
 * and count checked before use.  Holds no opinion about models. Refuses: other versions, counts and
 * lengths beyond the file, overlapping or misaligned tensors, duplicate names, alignment that is 0
 * or not a power of two, unknown tensor types (at the tensor). Thread: const after opening. */
#ifndef QUERN_CONFIG_GGUF_H
#define QUERN_CONFIG_GGUF_H

#include "base/dtype.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gguf gguf;

typedef enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STR,
    GGUF_ARR,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
} gguf_type;

typedef struct {
    const char *v; /* not 0-terminated */
    size_t n;
} gguf_str;

/* Opens path; if it is part of a split set (name-00001-of-0000N.gguf) opens all parts beside it. */
gguf *gguf_open(const char *path, err *e);
/* The same from memory (fuzzing, tests); bytes are borrowed. */
gguf *gguf_open_memory(const void *bytes, size_t n, err *e);
void gguf_close(gguf *g);

/* Metadata of the first part.  A getter returns false if the key is absent or of another type
 * (integer getters take every integer type that fits; num takes integers and floats). */
bool gguf_get_int(const gguf *g, const char *key, int64_t *v);
bool gguf_get_num(const gguf *g, const char *key, double *v);
bool gguf_get_bool(const gguf *g, const char *key, bool *v);
bool gguf_get_str(const gguf *g, const char *key, gguf_str *v);
/* Array element type and length. */
bool gguf_get_arr(const gguf *g, const char *key, gguf_type *type, size_t *n);
/* Walks a string array; returns false if it is not one or i is out of range.  Sequential access is
 * O(1) a step (the reader keeps an index). */
bool gguf_arr_str(const gguf *g, const char *key, size_t i, gguf_str *v);
bool gguf_arr_int(const gguf *g, const char *key, size_t i, int64_t *v);
bool gguf_arr_num(const gguf *g, const char *key, size_t i, double *v);
size_t gguf_n_kv(const gguf *g);
/* i-th key with its type; for inspect. */
bool gguf_kv_at(const gguf *g, size_t i, gguf_str *key, gguf_type *type);

typedef struct {
    const char *name; /* 0-terminated, borrowed */
    int type;         /* dtype (only types we read; others fail gguf_open) */
    int n_dims;
    int64_t dim[4]; /* dim[0] innermost, missing ones are 1 */
    const void *data;
    size_t bytes;
    int file;      /* which part */
    size_t offset; /* of data in that part's mapping */
} gguf_tensor;

size_t gguf_n_tensors(const gguf *g);
const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i);
const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name);
/* Drops the pages of a tensor's bytes (after it was repacked). */
void gguf_drop(const gguf *g, const gguf_tensor *t);
int gguf_n_files(const gguf *g);
/* Bytes of all files. */
uint64_t gguf_bytes(const gguf *g);

#endif
