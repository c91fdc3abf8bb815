/* llama_request.h - prompts of llama.cpp's /completion and /infill; see llama_request.c. */
#ifndef QUERN_SERVER_LLAMA_REQUEST_H
#define QUERN_SERVER_LLAMA_REQUEST_H

#include "server/raw_request.h"

/* Appends the ids of the body's prompt; false after failing r. */
bool llama_take_prompt(reader *r, token_list *out);
/* The same of a gap with files around it; *lost: tokens of files that had no room. */
bool llama_take_infill(reader *r, const params *p, fim_tokens *f, token_list *out, int64_t *lost);

#endif
