/* fuzz_json.c - any bytes: the reader refuses them or gives a tree whose dump reads back as the
 * same dump. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void walk(const json *j)
{
    int64_t v;
    size_t i = 0;
    json_int(j, &v);
    for (const json *c = j->child; c; c = c->next, i++) {
        if (j->type == JSON_OBJECT && json_get_n(j, c->key, c->n_key) != c) abort();
        if (j->type == JSON_ARRAY && json_at(j, i) != c) abort();
        walk(c);
    }
    if (j->child && i != j->len) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const json *root, *again;
    json_limits limits = {.max_values = 10000};
    json_doc *d = json_parse((const char *)data, n, &limits, &root, NULL);
    if (!d) return 0;
    walk(root);
    buf one = {0}, two = {0};
    json_dump(root, &one);
    json_doc *second = json_parse(buf_str(&one), one.len, &limits, &again, NULL);
    if (!second) abort();
    json_dump(again, &two);
    if (one.len != two.len || memcmp(one.v, two.v, one.len) != 0) abort();
    buf_clear(&one);
    buf_clear(&two);
    json_free(second);
    json_free(d);
    return 0;
}
