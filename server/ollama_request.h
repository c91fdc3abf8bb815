/* ollama_request.h - bodies of /api/chat and /api/generate as chat bodies; see ollama_request.c. */
#ifndef QUERN_SERVER_OLLAMA_REQUEST_H
#define QUERN_SERVER_OLLAMA_REQUEST_H

#include "server/translate.h"

translator ollama_chat_translate, ollama_generate_translate;
/* A body of generate that no template is for, as a completions body. */
translator ollama_raw_translate;
bool ollama_is_raw(const json *body);
extern const char *const ollama_names[];
/* Nothing to generate from: the client only wants the model loaded (O7). */
bool ollama_only_loads(const json *body, bool chat);

#endif
