/* fuzz_gguf.c - any bytes: the GGUF reader refuses them or every key and tensor can be read, and
 * the model configuration made of them too. */
#include "config/gguf.h"
#include "config/model_config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile unsigned char sink;

static void read_value(const gguf *g, const char *key)
{
    int64_t i;
    double d;
    bool b;
    gguf_str s;
    gguf_type type;
    size_t len;
    gguf_get_int(g, key, &i);
    gguf_get_num(g, key, &d);
    gguf_get_bool(g, key, &b);
    if (gguf_get_str(g, key, &s) && s.n) sink = (unsigned char)(s.v[0] + s.v[s.n - 1]);
    if (!gguf_get_arr(g, key, &type, &len)) return;
    for (size_t k = 0; k <= len; k++) {
        gguf_arr_int(g, key, k, &i);
        gguf_arr_num(g, key, k, &d);
        if (gguf_arr_str(g, key, k, &s) && s.n) sink = (unsigned char)(s.v[0] + s.v[s.n - 1]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    gguf *g = gguf_open_memory(data, n, NULL);
    if (!g) return 0;
    gguf_str key;
    gguf_type type;
    for (size_t i = 0; gguf_kv_at(g, i, &key, &type); i++) {
        char *name = strndup(key.v, key.n);
        if (!name) abort();
        read_value(g, name);
        free(name);
    }
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        const unsigned char *v = t->data;
        if (gguf_tensor_find(g, t->name) != t || v < data || t->bytes > n - (size_t)(v - data))
            abort();
        if (t->bytes) sink = (unsigned char)(v[0] + v[t->bytes - 1]);
    }
    model_config c;
    model_config_from_gguf(&c, g, NULL);
    gguf_close(g);
    return 0;
}
