/* dtype.c - the table behind dtype.h.  Any thread. */
#include "base/dtype.h"

#include <strings.h>

static const dtype_traits table[DT_COUNT] = {
#define X(id, number, name, elems, bytes) [id] = {name, elems, bytes},
    DTYPE_LIST(X)
#undef X
};

dtype_traits dtype_of(int id)
{
    if (id < 0 || id >= DT_COUNT) return (dtype_traits){0};
    return table[id];
}

int dtype_by_name(const char *name)
{
    for (int i = 0; i < DT_COUNT; i++)
        if (table[i].name && !strcasecmp(table[i].name, name)) return i;
    return -1;
}

bool dtype_row_bytes(int id, int64_t n, size_t *bytes)
{
    dtype_traits t = dtype_of(id);
    if (!t.name || n < 0 || n % t.elems) return false;
    return !__builtin_mul_overflow((size_t)(n / t.elems), (size_t)t.bytes, bytes);
}
