/* fuzz_gmatch.c - a grammar and a sequence of tokens: masks are what stepping says, what is taken
 * back leaves no trace, forced bytes can be spelled, and an automaton that starts anew in between
 * changes nothing.
 * Input: kind and flags, the grammar's text, a 0 byte, operations of two bytes. */
#include "engine/grammar/gmatch.h"
#include "engine/grammar/grammar_impl.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { STEPS = 60, SAMPLES = 24 };
static tokenizer *tok;
static grammar_vocab *vocab;
static int32_t rows, end_id;

static void open_vocab(void)
{
    err e = {0};
    const tokenizer_source src = {.tokenizer_json = "tests/data/tokenizer/qwen.json"};
    tok = tokenizer_open(&src, &e);
    if (!tok) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    rows = tokenizer_n_vocab(tok) + 3;
    end_id = tokenizer_id(tok, "<|im_end|>");
    if (grammar_vocab_new(tok, rows, &end_id, 1, &vocab, &e)) abort();
}

static bool allowed(const uint32_t *bits, int32_t id)
{
    return bits[id >> 5] >> (id & 31) & 1;
}

static void start_anew(grammar *g)
{
    pthread_mutex_lock(&g->lock);
    g->renew_bytes = 1;
    pthread_mutex_unlock(&g->lock);
}

/* 0, or why the run ends here: limits are errors, never wrong masks. */
static int mask_of(gmatch *m, const uint32_t **bits)
{
    uint64_t id;
    int rc = gmatch_mask(m, bits, &id);
    if (rc == GM_LATER) rc = gmatch_finish(m, bits, &id);
    if (rc && rc != ERR_LIMIT && rc != ERR_INVALID) abort();
    return rc;
}

static void check_samples(gmatch *m, const uint32_t *bits, uint32_t seed)
{
    for (int i = 0; i < SAMPLES; i++) {
        int32_t t =
            i == 0 ? end_id : (int32_t)((seed + (uint32_t)i * 2654435761u) % (uint32_t)rows);
        int legal = gmatch_prefix(m, &t, 1);
        if (legal >= 0 && allowed(bits, t) != (legal == 1)) abort();
    }
}

/* Every forced byte has a token that takes it. */
static void check_forced(gmatch *m, const uint32_t *bits)
{
    uint8_t out[8];
    int n = gmatch_forced(m, out, sizeof out);
    if (n <= 0) return;
    if (allowed(bits, end_id)) abort();
    for (int32_t t = 0; t < rows; t++) {
        size_t len;
        const char *s = allowed(bits, t) ? tokenizer_piece(tok, t, &len) : NULL;
        if (s && len && (uint8_t)s[0] != out[0]) abort();
    }
}

static int32_t pick(const uint32_t *bits, uint32_t from)
{
    for (int32_t i = 0, t = (int32_t)(from % (uint32_t)rows); i < rows; i++, t = (t + 1) % rows)
        if (allowed(bits, t)) return t;
    return -1;
}

static void step(gmatch *m, grammar *g, const uint8_t *op, const uint32_t *bits)
{
    uint32_t x = op[1] * 257u;
    int32_t t = op[0] % 8 == 0 ? (int32_t)(x % (uint32_t)rows) : pick(bits, x);
    int legal = gmatch_prefix(m, &t, 1), before = gmatch_length(m);
    if (op[0] % 16 == 3) start_anew(g);
    int rc = gmatch_accept(m, t);
    if (rc == GM_LATER) rc = gmatch_take(m, t);
    if (legal >= 0 && rc != ERR_LIMIT && (rc == 0) != (legal == 1)) abort();
    if (gmatch_length(m) != before + (rc == 0)) abort();
    if (op[0] % 16 == 5) gmatch_rollback(m, op[0] / 16);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const grammar_kind kinds[] = {GRAMMAR_SCHEMA, GRAMMAR_REGEX, GRAMMAR_JSON_OBJECT,
                                         GRAMMAR_GBNF};
    grammar *g = NULL;
    grammar_error why;
    if (!vocab) open_vocab();
    if (!n) return 0;
    uint8_t flags = *data++;
    const uint8_t *zero = memchr(data, 0, --n), *op = zero ? zero + 1 : data + n, *end = data + n;
    const grammar_spec s = {.kind = kinds[flags % 4],
                            .text = (const char *)data,
                            .n = zero ? (size_t)(zero - data) : n,
                            .tok = tok,
                            .free_order = flags & 64};
    const grammar_answer a = {.think = (grammar_think)(flags / 8 % 3), .body = &s};
    if (grammar_compile_answer(&a, &g, &why)) return 0;
    gmatch *m = gmatch_new(g, vocab);
    if (!m) abort();
    for (int i = 0; i < STEPS && end - op >= 2; i++, op += 2) {
        const uint32_t *bits, *again;
        if (mask_of(m, &bits)) break;
        check_samples(m, bits, op[1] * 65537u + op[0]);
        if (op[0] % 4 == 1) check_forced(m, bits);
        if (op[0] % 16 == 7) {
            start_anew(g);
            if (mask_of(m, &again)) break;
            if (memcmp(bits, again, ((size_t)rows + 31) / 32 * 4)) abort();
        }
        bool done = false;
        if (!gmatch_settle(m, &done) && done && pick(bits, 0) != end_id) abort();
        step(m, g, op, bits);
    }
    gmatch_free(m);
    grammar_release(g);
    return 0;
}
