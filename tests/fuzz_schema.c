/* fuzz_schema.c - a schema, a 0 byte, a text: compiling ends in bounds with a grammar or a named
 * refusal, and what a grammar accepts is JSON, whatever the order of keys. */
#include "base/json.h"
#include "engine/grammar/grammar.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int verdict(const uint8_t *schema, size_t n, const char *text, size_t n_text,
                   bool free_order)
{
    grammar *g = NULL;
    grammar_error why;
    const grammar_spec s = {
        .kind = GRAMMAR_SCHEMA, .text = (const char *)schema, .n = n, .free_order = free_order};
    if (grammar_compile(&s, &g, &why)) {
        if (!why.code || !why.e.msg[0]) abort();
        return 0;
    }
    int rc = grammar_accepts(g, text, n_text);
    if (grammar_accepts(g, text, n_text) != rc) abort(); /* the warm automaton says the same */
    grammar_release(g);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *zero = memchr(data, 0, n);
    size_t n_schema = zero ? (size_t)(zero - data) : n;
    const char *text = zero ? (const char *)zero + 1 : "";
    size_t n_text = zero ? n - n_schema - 1 : 0;
    const json_limits limits = {.max_depth = 1000};
    const json *root;
    int ordered = verdict(data, n_schema, text, n_text, false);
    int any = verdict(data, n_schema, text, n_text, true);
    if (ordered == 1 && any == 0) abort(); /* free order only adds */
    if (ordered == 1 || any == 1) {
        json_doc *d = json_parse(text, n_text, &limits, &root, NULL);
        if (!d) abort();
        json_free(d);
    }
    return 0;
}
