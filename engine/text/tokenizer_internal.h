/* tokenizer_internal.h - the tokenizer's parts, shared by its loaders and its calls. */
#ifndef QUERN_ENGINE_TEXT_TOKENIZER_INTERNAL_H
#define QUERN_ENGINE_TEXT_TOKENIZER_INTERNAL_H

#include "engine/text/added.h"
#include "engine/text/bpe.h"
#include "engine/text/pretok.h"

struct tokenizer {
    bpe vocab;
    pretok pre;
    added_list added;
    bool nfc;
    int32_t eos, bos, pad; /* -1 = none */
    int32_t text_end[8]; /* [n_text_end] behind a text on its own; n_text_end -1: not that simple */
    int n_text_end;
    buf eos_text, bos_text;
    buf chat_template, rerank_template;
    bool has_chat_template, has_rerank_template;
};

/* Each fills t from one kind of source; added tokens are not sealed yet. */
int tokenizer_load_json(tokenizer *t, const char *path, err *e);
int tokenizer_load_vocab(tokenizer *t, const char *vocab_json, const char *merges, err *e);
int tokenizer_load_gguf(tokenizer *t, const struct gguf *g, err *e);
/* Added tokens, eos, bos, pad, template.  slow: the vocabulary came from vocab.json, so that the
 * tokenizer class decides what the files mean. */
int tokenizer_load_config(tokenizer *t, const char *path, bool slow, err *e);
/* Checks an added token's id against the vocabulary and adds it. */
int tokenizer_put_added(tokenizer *t, const added_token *a, err *e);

#endif
