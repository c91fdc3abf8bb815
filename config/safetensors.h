/* safetensors.h - one model.safetensors, or all shards of a model.safetensors.index.json: mapped,
 * header JSON checked (sizes, overlaps, overflow, duplicates, holes), dtype F32, F16, BF16
 * readable; tensors of other dtypes are listed with type -1 so that the model can refuse them by
 * name. Thread: const after opening. */
#ifndef QUERN_CONFIG_SAFETENSORS_H
#define QUERN_CONFIG_SAFETENSORS_H

#include "base/dtype.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

typedef struct safetensors safetensors;

/* dir: a checkpoint directory.  A shard that the index names and that is missing, a tensor the
 * index names and no shard holds, or the reverse, are errors that name the file. */
safetensors *safetensors_open_dir(const char *dir, err *e);
safetensors *safetensors_open_memory(const void *bytes, size_t n, err *e);
void safetensors_close(safetensors *s);

typedef struct {
    const char *name;
    int type;               /* dtype, or -1 */
    const char *dtype_name; /* as written: "BF16", "F8_E4M3", ... */
    int n_dims;
    int64_t shape[4]; /* outermost first, missing ones are 1; of more than 4 dims the first 4, and
                         then type is -1 */
    const void *data; /* may be unaligned */
    size_t bytes;
    int file;
    size_t offset;
} st_tensor;

size_t safetensors_n(const safetensors *s);
const st_tensor *safetensors_at(const safetensors *s, size_t i);
const st_tensor *safetensors_find(const safetensors *s, const char *name);
void safetensors_drop(const safetensors *s, const st_tensor *t);
/* Bytes of all files. */
uint64_t safetensors_bytes(const safetensors *s);

#endif
