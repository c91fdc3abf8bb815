/* prompts.h - the field that holds one or several texts, each as a string or as token ids: `prompt`
 * of completions (P1), `input` of embeddings (B1).  Thread: prep. */
#ifndef QUERN_SERVER_PROMPTS_H
#define QUERN_SERVER_PROMPTS_H

#include "server/request.h"

/* How many j holds, at most max; 0 after failing. */
int prompts_count(reader *r, const char *name, const json *j, int max);
/* Their ids into out[count]; before (may be NULL) stands in front of every text. */
bool prompts_take(reader *r, const char *name, const json *j, const buf *before, token_list *out);

#endif
