/* api_responses_stored.c - kept replies: GET, DELETE, their input, cancelling (API X4).  Owns
 * nothing.  Refuses ids that are not kept for the caller's key.  Any HTTP thread. */
#include "server/api.h"
#include "server/app.h"
#include "server/reply.h"
#include "server/response_store.h"
#include "server/translate.h"

#include <stdio.h>
#include <string.h>

/* The id before /suffix of the path's tail, in id; false: the tail has no such end. */
static bool id_before(const char *tail, const char *suffix, char id[128])
{
    size_t n = strlen(tail), k = strlen(suffix);
    if (n <= k || n - k >= 128 || strcmp(tail + n - k, suffix) != 0) return false;
    snprintf(id, 128, "%.*s", (int)(n - k), tail);
    return !strchr(id, '/');
}

static void no_route(http_call *c)
{
    reply_fail(c, 404, "not_found_error", "route_not_found", NULL, "no such route");
}

static void not_kept(http_call *c, store_result found, const char *id)
{
    if (found == STORE_OOM) reply_oom(c);
    else
        reply_fail(c, 404, "not_found_error", "response_not_found", NULL,
                   "Response with id '%.64s' not found.", id);
}

/* ,"name":id of an item, or null. */
static void put_id(buf *out, const char *name, const json *item)
{
    const json *id = json_get(item, "id");
    tr_name(out, name);
    if (id) json_dump(id, out);
    else buf_puts(out, "null");
}

/* Its own input, without that of earlier responses; all of it, so there is never more. */
static void reply_input(http_call *c, const char *id)
{
    conversation *k = conversation_new();
    buf out = {0};
    store_result found = STORE_OOM;
    if (k) found = response_store_get(http_app(c)->responses, http_key_hash(c), id, NULL, k);
    if (found != STORE_FOUND) {
        conversation_free(k);
        not_kept(c, found, id);
        return;
    }
    size_t n;
    const char *items = conversation_slice(k, k->n_history, k->n_input, &n);
    const json *list = NULL;
    buf_puts(&out, "[");
    buf_put(&out, items, n);
    buf_puts(&out, "]");
    json_doc *d = buf_ok(&out) ? json_parse(out.v, out.len, NULL, &list, NULL) : NULL;
    buf_reset(&out);
    buf_puts(&out, "{\"object\":\"list\",\"data\":[");
    buf_put(&out, items, n);
    buf_puts(&out, "]");
    put_id(&out, "first_id", json_at(list, 0));
    put_id(&out, "last_id", json_at(list, list && list->len ? list->len - 1 : 0));
    buf_puts(&out, ",\"has_more\":false}");
    conversation_free(k);
    if (d && buf_ok(&out)) http_reply(c, 200, "application/json", &out);
    else not_kept(c, STORE_OOM, id);
    json_free(d);
    buf_clear(&out);
}

void api_response(http_call *c)
{
    char id[128];
    buf object = {0};
    if (id_before(http_tail(c), "/input_items", id)) {
        reply_input(c, id);
        return;
    }
    if (!id_before(http_tail(c), "", id)) {
        no_route(c);
        return;
    }
    const char *stream = http_query(c, "stream");
    if (stream && !strcmp(stream, "true")) {
        reply_not_built(c, "stream");
        return;
    }
    store_result found =
        response_store_get(http_app(c)->responses, http_key_hash(c), id, &object, NULL);
    if (found == STORE_FOUND) {
        http_reply(c, 200, "application/json", &object);
        return;
    }
    buf_clear(&object);
    not_kept(c, found, id);
}

void api_response_delete(http_call *c)
{
    char id[128];
    if (!id_before(http_tail(c), "", id)) {
        no_route(c);
    } else if (!response_store_delete(http_app(c)->responses, http_key_hash(c), id)) {
        not_kept(c, STORE_UNKNOWN, id);
    } else {
        buf out = {0};
        buf_puts(&out, "{");
        reply_put_str(&out, "id", id);
        buf_puts(&out, ",\"object\":\"response\",\"deleted\":true}");
        http_reply(c, 200, "application/json", &out);
    }
}

void api_response_cancel(http_call *c)
{
    char id[128];
    if (!id_before(http_tail(c), "/cancel", id)) {
        no_route(c);
        return;
    }
    store_result found =
        response_store_get(http_app(c)->responses, http_key_hash(c), id, NULL, NULL);
    if (found != STORE_FOUND) not_kept(c, found, id);
    else
        reply_fail(c, 400, "invalid_request_error", "unsupported_value", "id",
                   "only responses that run in the background can be cancelled, and none do here");
}
