/* fuzz_gbnf.c - a GBNF grammar or, behind a first byte of 1, a regular expression; a 0 byte; a
 * text. Compiling ends in bounds with a grammar or a named refusal, and the warm automaton says of
 * the text what the fresh one said. */
#include "engine/grammar/grammar.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    grammar *g = NULL;
    grammar_error why;
    grammar_spec s = {.kind = GRAMMAR_GBNF};
    if (n && data[0] == 1) {
        s.kind = GRAMMAR_REGEX;
        data++;
        n--;
    }
    const uint8_t *zero = n ? memchr(data, 0, n) : NULL;
    s.text = (const char *)data;
    s.n = zero ? (size_t)(zero - data) : n;
    const char *text = zero ? (const char *)zero + 1 : "";
    size_t n_text = zero ? n - s.n - 1 : 0;
    if (!n) s.text = "";
    if (grammar_compile(&s, &g, &why)) {
        if (!why.code || !why.e.msg[0]) abort();
        return 0;
    }
    int rc = grammar_accepts(g, text, n_text);
    if (grammar_accepts(g, text, n_text) != rc) abort();
    grammar_release(g);
    return 0;
}
