/* raw_request.h - prompts that no chat template makes: text, token ids and fill in the middle (API
 * P1, P6, K6, O4; MODELS 6.6).  Shared by completions, llama.cpp's routes and Ollama's generate.
 * Failures set the reader's reply, naming param.  Thread: prep. */
#ifndef QUERN_SERVER_RAW_REQUEST_H
#define QUERN_SERVER_RAW_REQUEST_H

#include "server/gen.h"

/* Appends the ids of s[n]; control tokens in it are recognised behind its first plain bytes. */
bool raw_text(reader *r, const char *param, const char *s, size_t n, size_t plain, token_list *out);
/* Appends a list of ids; with texts, strings among them are tokenised. */
bool raw_ids(reader *r, const char *param, const json *list, bool texts, token_list *out);

/* A model's tokens for filling in; repo and file are -1 where it has none. */
typedef struct {
    int32_t prefix, suffix, middle, repo, file;
    int32_t end[8]; /* [n_end] they end such an answer */
    int n_end;
} fim_tokens;
/* False: the model cannot fill in. */
bool fim_find(const tokenizer *t, fim_tokens *f);
/* The same, refusing the request that asks for it with param. */
bool fim_need(reader *r, const char *param, fim_tokens *f);
/* What belongs between two texts, as a prompt (P6).  prompt may be NULL: empty. */
bool fim_prompt(reader *r, const json *prompt, const json *suffix, fim_tokens *f, token_list *out);
/* The request ends with those tokens too. */
bool fim_ends(gen *g, const fim_tokens *f);

/* Appends; false after failing r for want of memory. */
bool raw_push(reader *r, token_list *out, int32_t id);
bool raw_join(reader *r, token_list *out, const int32_t *id, size_t n);
/* A new gen with one prompt, which it takes over from ids; NULL after failing r. */
gen *raw_gen(reader *r, params *p, const gen_format *f, size_t own, token_list *ids);

#endif
