/* tokenizer.h - byte-level BPE as Hugging Face runs it: NFC where the checkpoint says so, added
 * tokens split out first, the checkpoint's own pre-tokenizer pattern (PCRE2), merges by rank.
 * Refuses at load: other models than byte-level BPE, patterns that do not compile, ids out of
 * range. Thread: const after loading; every call is safe from any thread (scratch is per call or
 * thread-local). */
#ifndef QUERN_ENGINE_TEXT_TOKENIZER_H
#define QUERN_ENGINE_TEXT_TOKENIZER_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tokenizer tokenizer;

/* Where the vocabulary comes from; exactly one form is filled. */
typedef struct {
    const char *tokenizer_json;      /* path, or NULL */
    const char *vocab_json, *merges; /* paths, both or neither */
    const char *tokenizer_config;    /* path or NULL: added tokens and their flags, eos, pad */
    const struct gguf *gguf;         /* tokenizer.ggml.* keys, or NULL */
} tokenizer_source;

tokenizer *tokenizer_open(const tokenizer_source *src, err *e);
void tokenizer_free(tokenizer *t);

/* A span of text whose origin decides which added tokens are recognised in it (API G19). */
typedef struct {
    size_t start, end; /* bytes; spans are disjoint and rising */
} text_span;

typedef struct {
    int32_t *v; /* [n] owned by the list; free with token_list_clear */
    size_t n, cap;
} token_list;
void token_list_clear(token_list *l);
bool token_list_push(token_list *l, int32_t id); /* false: out of memory */

/* Appends the ids of text[n].  special: control tokens (special=true) written in the text are
 * recognised.  closed[n_closed]: spans inside which they are not, whatever `special` says; other
 * added tokens (special=false, e.g. <think>) always are.  The text is tokenised as one: merges
 * across span borders are those of Hugging Face.  Invalid UTF-8 is replaced by U+FFFD first. */
int tokenizer_encode(const tokenizer *t, const char *text, size_t n, bool special,
                     const text_span *closed, size_t n_closed, token_list *out, err *e);

/* The token's true bytes (borrowed, may be part of a character); NULL for an id without a token. */
const char *tokenizer_piece(const tokenizer *t, int32_t id, size_t *n);
bool tokenizer_is_special(const tokenizer *t, int32_t id); /* skipped by skip_special_tokens */
bool tokenizer_is_added(const tokenizer *t, int32_t id);
/* Appends the bytes of ids[n]; ERR_INVALID (naming the id) for an id without a token. */
int tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special, buf *out,
                     err *e);

int32_t tokenizer_n_vocab(const tokenizer *t); /* ids below this may be drawn (largest id + 1) */
int32_t tokenizer_id(const tokenizer *t,
                     const char *token);   /* exact added or ordinary token text, -1 */
int32_t tokenizer_eos(const tokenizer *t); /* -1 if the checkpoint names none */
int32_t tokenizer_bos(const tokenizer *t);
int32_t tokenizer_pad(const tokenizer *t);
/* Tokens that the checkpoint's files put behind every text on its own (tokenizer.json's
 * post-processor, add_eos_token) into id[cap]; their number, -1 if there are more, or others in
 * front of it.  tokenizer_encode does not add them. */
int tokenizer_text_end(const tokenizer *t, int32_t *id, int cap);
/* Chat template text carried by tokenizer_config.json or GGUF metadata, NULL if none (borrowed). */
const char *tokenizer_chat_template(const tokenizer *t, size_t *n);
/* The prompt of a reranker carried by GGUF metadata (judge.h), NULL if none (borrowed). */
const char *tokenizer_rerank_template(const tokenizer *t, size_t *n);
/* Text of the special tokens templates may print: bos_token, eos_token ("" if none). */
const char *tokenizer_bos_text(const tokenizer *t);
const char *tokenizer_eos_text(const tokenizer *t);

#endif
