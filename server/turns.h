/* turns.h - truncation on request (API G7): the oldest turns of a chat are dropped whole until its
 * prompt fits.  The one place that does it: a translator (Responses truncation "auto", Ollama
 * truncate) sets reader.drop_turns, and chat_run and chat_count do the rest.
 *
 * A turn is a user message, or an assistant message with the results of its calls.  System messages
 * and the last turn stay, and so does the last user message.  Nothing is dropped from a prompt that
 * fits; from one that does not, room is made for the answer too, an eighth of the context or the
 * request's limit, as far as turns can be spared.  x-quern-truncated says how many messages went.
 * Thread: prep. */
#ifndef QUERN_SERVER_TURNS_H
#define QUERN_SERVER_TURNS_H

#include "server/request.h"

/* Renders and encodes r->kept into out, which is empty; false: r failed. */
typedef bool turns_encode(reader *r, void *ctx, token_list *out);

/* out holds the ids of all messages.  If they are more than room, turns are dropped until there are
 * at most want (<= room), or all are gone that may.  False if r failed; a prompt that cannot be
 * made to fit is left at its shortest, for the caller to refuse. */
bool turns_fit(reader *r, int64_t room, int64_t want, turns_encode *encode, void *ctx,
               token_list *out);

#endif
