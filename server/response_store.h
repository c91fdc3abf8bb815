/* response_store.h - replies that can be asked for again and continued (API X4): in memory only,
 * the oldest used goes first, each gone after a while, bounded in number and bytes.  An entry
 * belongs to the API key that made it; nobody else finds it.  Shared by Responses and LM Studio's
 * chat. Owns every entry.  Thread: any; readers get copies. */
#ifndef QUERN_SERVER_RESPONSE_STORE_H
#define QUERN_SERVER_RESPONSE_STORE_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A conversation as a list of items (X1, X6), JSON objects with an id: first those of earlier
 * requests, then this one's input, then what was answered. */
typedef struct {
    uint64_t id;  /* map_hash of its id */
    size_t at, n; /* bytes of conversation.text */
} conversation_item;

typedef struct {
    buf text;                /* the items, a comma between them */
    conversation_item *item; /* [n] */
    int n, cap;
    int n_history, n_input;
    bool oom; /* something was lost; stays */
} conversation;

conversation *conversation_new(void);
void conversation_free(conversation *c); /* NULL is allowed */
/* The buffer to write one item into; conversation_end closes it under its id. */
buf *conversation_begin(conversation *c);
void conversation_end(conversation *c, const char *id);
static inline bool conversation_ok(const conversation *c)
{
    return !c->oom && buf_ok(&c->text);
}
/* Items [from, from + n) with commas, borrowed. */
const char *conversation_slice(const conversation *c, int from, int n, size_t *len);

typedef struct response_store response_store;

/* entries 0: nothing is kept.  NULL: out of memory. */
response_store *response_store_new(int64_t entries, uint64_t bytes, double seconds);
void response_store_free(response_store *s);
bool response_store_on(const response_store *s);
/* Keeps copies of both under id. */
void response_store_put(response_store *s, uint64_t key, const char *id, const buf *object,
                        const conversation *talk);
typedef enum { STORE_FOUND, STORE_UNKNOWN, STORE_OOM } store_result;
/* Copies of what is kept under id; object and talk may be NULL.  Appends items to an empty talk. */
store_result response_store_get(response_store *s, uint64_t key, const char *id, buf *object,
                                conversation *talk);
bool response_store_delete(response_store *s, uint64_t key, const char *id);
/* Appends the newest kept item with this id. */
store_result response_store_item(response_store *s, uint64_t key, const char *item_id, buf *out);
int response_store_entries(response_store *s);

#endif
