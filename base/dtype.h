/* dtype.h - element and block types as checkpoints store them.  The numbers are GGUF's type ids, so
 * a GGUF header needs no translation; safetensors names map onto F32, F16, BF16.
 * Block layouts: docs/architecture.md, "formats".  Pure data, any thread. */
#ifndef QUERN_BASE_DTYPE_H
#define QUERN_BASE_DTYPE_H

#include "base/linkage.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

C_BEGIN

/* enumerator, GGUF id, name, elements per block, bytes per block */
#define DTYPE_LIST(X)                    \
    X(DT_F32, 0, "F32", 1, 4)            \
    X(DT_F16, 1, "F16", 1, 2)            \
    X(DT_Q4_0, 2, "Q4_0", 32, 18)        \
    X(DT_Q4_1, 3, "Q4_1", 32, 20)        \
    X(DT_Q5_0, 6, "Q5_0", 32, 22)        \
    X(DT_Q5_1, 7, "Q5_1", 32, 24)        \
    X(DT_Q8_0, 8, "Q8_0", 32, 34)        \
    X(DT_Q2_K, 10, "Q2_K", 256, 84)      \
    X(DT_Q3_K, 11, "Q3_K", 256, 110)     \
    X(DT_Q4_K, 12, "Q4_K", 256, 144)     \
    X(DT_Q5_K, 13, "Q5_K", 256, 176)     \
    X(DT_Q6_K, 14, "Q6_K", 256, 210)     \
    X(DT_IQ4_NL, 20, "IQ4_NL", 32, 18)   \
    X(DT_IQ4_XS, 23, "IQ4_XS", 256, 136) \
    X(DT_BF16, 30, "BF16", 1, 2)         \
    X(DT_MXFP4, 39, "MXFP4", 32, 17)     \
    X(DT_NVFP4, 40, "NVFP4", 64, 36)

typedef enum {
#define X(id, number, name, elems, bytes) id = number,
    DTYPE_LIST(X)
#undef X
        DT_COUNT = 41 /* one more than the largest id */
} dtype;

typedef struct {
    const char *name; /* NULL: not a type we read */
    int elems, bytes; /* per block */
} dtype_traits;

/* Traits of a type id; {NULL,0,0} for an id we do not read (any int is allowed). */
dtype_traits dtype_of(int id);
/* Id of a name as in DTYPE_LIST (any case), -1 if unknown. */
int dtype_by_name(const char *name);
/* Bytes of a row of n elements; false if n is not a multiple of the block or it overflows. */
bool dtype_row_bytes(int id, int64_t n, size_t *bytes);

C_END

#endif
