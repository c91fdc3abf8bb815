/* lmstudio.h - LM Studio's dialects (API L1-L8): what /api/v0 adds to OpenAI's replies, and the
 * body of /api/v1/chat as a chat body. */
#ifndef QUERN_SERVER_LMSTUDIO_H
#define QUERN_SERVER_LMSTUDIO_H

#include "server/gen.h"
#include "server/translate.h"

/* Whether the call came to /api/v0. */
bool lmstudio_v0(const http_call *c);
/* ,"stats":{...},"model_info":{...},"runtime":{...} of a generation that ended (L2). */
void lmstudio_put_stats(const gen *g, buf *out);
/* ,"model_info":{...},"runtime":{...} */
void lmstudio_put_model(const app *a, buf *out);

/* Seconds from arrival to the first token, from there to the end; tokens a second (0 if unknown).
 */
typedef struct {
    double first_token, generation, tokens_per_second;
} lmstudio_pace;
lmstudio_pace lmstudio_pace_of(const gen *g);

translator lmstudio_chat_translate;
extern const char *const lmstudio_chat_names[];

#endif
