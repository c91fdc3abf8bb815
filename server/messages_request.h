/* messages_request.h - the body of /v1/messages as a chat body; see messages_request.c. */
#ifndef QUERN_SERVER_MESSAGES_REQUEST_H
#define QUERN_SERVER_MESSAGES_REQUEST_H

#include "server/translate.h"

translator messages_translate;
extern const char *const messages_names[];

#endif
