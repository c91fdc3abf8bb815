/* llama.h - what llama.cpp's routes share: generation settings as that server words them. */
#ifndef QUERN_SERVER_LLAMA_H
#define QUERN_SERVER_LLAMA_H

#include "server/request.h"

/* Members of a settings object, without its braces; lists that are NULL in s are written empty. */
void llama_put_settings(const sampling *s, buf *out);

#endif
