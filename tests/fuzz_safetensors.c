/* fuzz_safetensors.c - any bytes: the reader refuses them or every tensor lies inside them. */
#include "config/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile unsigned char sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    safetensors *s = safetensors_open_memory(data, n, NULL);
    if (!s) return 0;
    for (size_t i = 0; i < safetensors_n(s); i++) {
        const st_tensor *t = safetensors_at(s, i);
        const unsigned char *v = t->data;
        if (safetensors_find(s, t->name) != t || v < data || t->bytes > n - (size_t)(v - data))
            abort();
        if (t->bytes) sink = (unsigned char)(v[0] + v[t->bytes - 1]);
    }
    safetensors_close(s);
    return 0;
}
