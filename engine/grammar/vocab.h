/* vocab.h - the tokens of one tokenizer, laid out for grammars: which byte sequences a model can
 * draw in one step.  Made once per engine and shared by all grammars.
 * Never drawn under a grammar: control tokens and the padding rows behind the vocabulary (unless
 * the grammar names them by id), tokens that hold the byte 0xff, tokens of more than 255 bytes,
 * empty ones.  The tokens that end an answer are no text: they are drawn exactly where the text may
 * end. Refuses: more than 2^24 rows or trie nodes.  Thread: const after it was made. */
#ifndef QUERN_ENGINE_GRAMMAR_VOCAB_H
#define QUERN_ENGINE_GRAMMAR_VOCAB_H

#include "engine/text/tokenizer.h"

typedef struct grammar_vocab grammar_vocab;

/* n_rows: logits a row has, hence bits in a mask (padding included); end[n_end]: ids that end an
 * answer.  Takes some hundred milliseconds for a vocabulary of 150,000: make it in the background.
 * 0 and *out, or ERR_*.  Keeps nothing of t. */
int grammar_vocab_new(const tokenizer *t, int32_t n_rows, const int32_t *end, int n_end,
                      grammar_vocab **out, err *e);
/* All matchers made with it must be gone; grammars may outlive it.  NULL is allowed. */
void grammar_vocab_free(grammar_vocab *v);
int32_t grammar_vocab_rows(const grammar_vocab *v);
/* Whether every byte of UTF-8 has a token of its own, so that a text that may go on always can. */
bool grammar_vocab_complete(const grammar_vocab *v);

#endif
