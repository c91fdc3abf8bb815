/* pretok.h - cuts text into the pieces that BPE merges inside of: the checkpoint's regular
 * expressions, one after the other, each match and each gap between matches being a piece.
 * Inside engine/text only.  Expressions are written for Oniguruma (Hugging Face's engine) and run
 * by PCRE2 with JIT; the few constructs that the two read differently are rewritten. Refuses:
 * constructs outside the common ground, expressions that do not compile. Thread: const after
 * adding; pretok_split is safe from any thread with a scratch of its own. */
#ifndef QUERN_ENGINE_TEXT_PRETOK_H
#define QUERN_ENGINE_TEXT_PRETOK_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>

#define PRETOK_MAX 8

struct pcre2_real_code_8;
typedef struct {
    /* [n] applied in order; [1]: the same for text with characters newer than PCRE2, or NULL */
    struct pcre2_real_code_8 *code[2][PRETOK_MAX];
    int n;
} pretok;

/* The expressions of the models we know by name rather than by text (GGUF, vocab.json). */
extern const char PRETOK_QWEN2[], PRETOK_QWEN35[], PRETOK_GPT2[];

int pretok_add(pretok *p, const char *regex, size_t n, err *e);
void pretok_clear(pretok *p);
/* The rewriting alone: Oniguruma's spelling to PCRE2's at the end of out.  later: with the
 * characters that are newer than PCRE2's Unicode; *differ: the expression names a category that has
 * any. */
int pretok_translate(const char *regex, size_t n, bool later, bool *differ, buf *out, err *e);
/* s[n] (valid UTF-8) holds such a character. */
bool pretok_has_later(const char *s, size_t n);

typedef struct {
    void *match; /* pcre2_match_data */
    void *ctx;   /* pcre2_match_context, with a larger JIT stack once one was needed */
    void *stack; /* pcre2_jit_stack or NULL */
} pretok_scratch;
void pretok_scratch_clear(pretok_scratch *w);

/* One piece, n >= 1.  A non-zero result ends the walk. */
typedef int (*piece_fn)(void *arg, const char *s, size_t n);
/* Walks the pieces of s[n], which must be valid UTF-8.  0, what fn returned, ERR_NOMEM, or
 * ERR_LIMIT when matching took more steps or memory than any sane expression needs. */
int pretok_split(const pretok *p, pretok_scratch *w, const char *s, size_t n, piece_fn fn,
                 void *arg);

#endif
