/* turns.c - see turns.h.  Owns the shortened copy of the message list while it works.  Refuses
 * nothing.  Each try costs about half of the one before, because tries halve the bytes that are
 * still in question. */
#include "server/turns.h"

#include "server/reply.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    int first, n; /* messages */
    size_t upto;  /* bytes of droppable turns up to and with this one */
} turn;

typedef struct {
    const json **all; /* [n] the messages */
    int n;
    json *copy; /* [n] for the shortened list */
    json list;
    turn *turn; /* [n_turns] those that may go, oldest first */
    int n_turns;
} talk;

static bool is_role(const json *m, const char *role)
{
    const json *r = json_get(m, "role");
    return json_is(r, JSON_STRING) && !strcmp(r->str, role);
}

static bool is_system(const json *m)
{
    return is_role(m, "system") || is_role(m, "developer");
}

static bool is_result(const json *m)
{
    return is_role(m, "tool") || is_role(m, "function");
}

/* The turns that may go.  Results belong to the message before them. */
static void find_turns(talk *k)
{
    int last_user = -1, last = -1;
    buf text = {0};
    size_t upto = 0;
    for (int i = 0; i < k->n; i++) {
        if (is_role(k->all[i], "user")) last_user = i;
        if (!is_system(k->all[i]) && !is_result(k->all[i])) last = i;
    }
    for (int i = 0; i < k->n;) {
        int end = i + 1;
        if (is_system(k->all[i])) {
            i = end;
            continue;
        }
        while (end < k->n && is_result(k->all[end])) end++;
        if (i != last_user && i != last) {
            for (int m = i; m < end; m++) {
                buf_reset(&text);
                json_dump(k->all[m], &text);
                upto += text.len + 1;
            }
            k->turn[k->n_turns++] = (turn){i, end - i, upto};
        }
        i = end;
    }
    buf_clear(&text);
}

/* The list without the first n turns; says how many messages that drops. */
static int shorten(talk *k, int n)
{
    int kept = 0, t = 0;
    for (int i = 0; i < k->n; i++) {
        while (t < n && i >= k->turn[t].first + k->turn[t].n) t++;
        if (t < n && i >= k->turn[t].first) continue;
        k->copy[kept++] = *k->all[i];
    }
    for (int i = 0; i < kept; i++) k->copy[i].next = i + 1 < kept ? &k->copy[i + 1] : NULL;
    k->list = (json){.type = JSON_ARRAY, .len = (size_t)kept, .child = kept ? k->copy : NULL};
    return k->n - kept;
}

/* The turn that halves the bytes between lo and hi turns dropped; lo < it < hi. */
static int halfway(const talk *k, int lo, int hi)
{
    size_t from = lo ? k->turn[lo - 1].upto : 0, half = from + (k->turn[hi - 1].upto - from) / 2;
    int mid = lo + 1;
    while (mid < hi - 1 && k->turn[mid - 1].upto < half) mid++;
    return mid;
}

static bool talk_open(talk *k, reader *r)
{
    const json *list = rd_any(r, "messages");
    if (!json_is(list, JSON_ARRAY) || !list->len || list->len > INT32_MAX) return false;
    k->all = calloc(list->len, sizeof *k->all);
    k->copy = calloc(list->len, sizeof *k->copy);
    k->turn = calloc(list->len, sizeof *k->turn);
    if (!k->all || !k->copy || !k->turn) {
        reader_oom(r);
        return false;
    }
    for (const json *m = list->child; m; m = m->next) k->all[k->n++] = m;
    find_turns(k);
    return k->n_turns > 0;
}

static bool try_without(talk *k, reader *r, int n, turns_encode *encode, void *ctx, token_list *out)
{
    shorten(k, n);
    token_list_clear(out);
    r->kept = &k->list;
    bool ok = encode(r, ctx, out);
    r->kept = NULL;
    return ok;
}

/* The fewest turns to drop, lo < it <= hi; out holds what hi gives, which is short enough. */
static int fewest(talk *k, reader *r, int64_t want, turns_encode *encode, void *ctx,
                  token_list *out)
{
    int lo = 0, hi = k->n_turns;
    while (hi - lo > 1) {
        token_list ids = {0};
        int mid = halfway(k, lo, hi);
        bool ok = try_without(k, r, mid, encode, ctx, &ids), fits = (int64_t)ids.n <= want;
        if (ok && fits) {
            token_list_clear(out);
            *out = ids;
            hi = mid;
        } else {
            token_list_clear(&ids);
            lo = mid;
        }
        if (!ok) break;
    }
    return hi;
}

bool turns_fit(reader *r, int64_t room, int64_t want, turns_encode *encode, void *ctx,
               token_list *out)
{
    talk k = {0};
    if ((int64_t)out->n <= room) return true;
    if (talk_open(&k, r) && try_without(&k, r, k.n_turns, encode, ctx, out)) {
        int n = k.n_turns;
        if ((int64_t)out->n <= want) n = fewest(&k, r, want, encode, ctx, out);
        if ((int64_t)out->n <= room)
            http_add_header(r->call, "x-quern-truncated", "%d", shorten(&k, n));
    }
    free(k.all);
    free(k.copy);
    free(k.turn);
    return !r->failed;
}
