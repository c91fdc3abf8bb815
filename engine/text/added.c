/* added.c - see added.h. */
#include "engine/text/added.h"

#include "engine/text/nfc.h"

#include <stdlib.h>
#include <string.h>

int added_put(added_list *l, const added_token *t, err *e)
{
    int shown = t->len > 64 ? 64 : (int)t->len;
    if (!t->len || t->len > ADDED_MAX_BYTES)
        return err_set(e, ERR_FORMAT, "added token %d has %zu bytes; 1 to %d are accepted", t->id,
                       t->len, ADDED_MAX_BYTES);
    added_token *old = (added_token *)added_by_text(l, t->text, t->len);
    if (old) {
        if (old->id != t->id)
            return err_set(e, ERR_FORMAT, "added token \"%.*s\" has two ids, %d and %d", shown,
                           t->text, old->id, t->id);
        char *text = old->text;
        *old = *t;
        old->text = text;
        return 0;
    }
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        added_token *v = cap <= ADDED_MAX ? realloc(l->v, cap * sizeof *v) : NULL;
        if (!v) return err_set(e, ERR_LIMIT, "more than %d added tokens", ADDED_MAX / 2);
        l->v = v;
        l->cap = cap;
    }
    char *text = malloc(t->len + 1);
    if (!text) return err_set(e, ERR_NOMEM, "out of memory for the added tokens");
    memcpy(text, t->text, t->len);
    text[t->len] = 0;
    l->v[l->n] = *t;
    l->v[l->n++].text = text;
    return 0;
}

static int by_id(const void *a, const void *b)
{
    const added_token *x = *(const added_token *const *)a, *y = *(const added_token *const *)b;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_bytes(const void *a, const void *b)
{
    const added_pattern *x = a, *y = b;
    int c = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
    return c ? c : (x->len > y->len) - (x->len < y->len);
}

/* The patterns of all tokens with this `normalized` flag. */
static int make_set(const added_list *l, bool normalized, bool nfc, added_set *set)
{
    set->v = calloc(l->n + 1, sizeof *set->v);
    if (!set->v) return ERR_NOMEM;
    for (size_t i = 0; i < l->n; i++) {
        const added_token *t = &l->v[i];
        if (t->normalized != normalized) continue;
        buf text = {0};
        nfc_edits edits = {0};
        int r = 0;
        if (normalized && nfc) r = nfc_normalise(t->text, t->len, &text, &edits);
        else buf_put(&text, t->text, t->len);
        free(edits.v);
        if (r || !buf_ok(&text)) {
            buf_clear(&text);
            return ERR_NOMEM;
        }
        added_pattern *p = &set->v[set->n++];
        p->token = t;
        p->text = buf_take(&text, &p->len);
        set->first[(unsigned char)p->text[0]] = true;
    }
    qsort(set->v, set->n, sizeof *set->v, by_bytes);
    return 0;
}

int added_seal(added_list *l, bool nfc, err *e)
{
    l->by_id = malloc((l->n + 1) * sizeof *l->by_id);
    if (!l->by_id || make_set(l, false, nfc, &l->raw) || make_set(l, true, nfc, &l->normalized))
        return err_set(e, ERR_NOMEM, "out of memory for the added tokens");
    for (size_t i = 0; i < l->n; i++) l->by_id[i] = &l->v[i];
    qsort(l->by_id, l->n, sizeof *l->by_id, by_id);
    for (size_t i = 1; i < l->n; i++)
        if (l->by_id[i]->id == l->by_id[i - 1]->id)
            return err_set(e, ERR_FORMAT,
                           "added tokens \"%.64s\" and \"%.64s\" have the same id %d",
                           l->by_id[i - 1]->text, l->by_id[i]->text, l->by_id[i]->id);
    return 0;
}

static void clear_set(added_set *set)
{
    for (size_t i = 0; i < set->n; i++) free(set->v[i].text);
    free(set->v);
}

void added_clear(added_list *l)
{
    clear_set(&l->raw);
    clear_set(&l->normalized);
    for (size_t i = 0; i < l->n; i++) free(l->v[i].text);
    free(l->v);
    free(l->by_id);
    *l = (added_list){0};
}

const added_token *added_by_id(const added_list *l, int32_t id)
{
    size_t lo = 0, hi = l->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (l->by_id[mid]->id < id) lo = mid + 1;
        else hi = mid;
    }
    return lo < l->n && l->by_id[lo]->id == id ? l->by_id[lo] : NULL;
}

const added_token *added_by_text(const added_list *l, const char *s, size_t n)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->v[i].len == n && !memcmp(l->v[i].text, s, n)) return &l->v[i];
    return NULL;
}

/* Narrows v[*lo, *hi), whose texts agree in their first `depth` bytes and are longer, to those
 * whose next byte is c. */
static void narrow(const added_set *set, size_t depth, unsigned char c, size_t *lo, size_t *hi)
{
    size_t a = *lo, b = *hi;
    while (a < b) {
        size_t mid = (a + b) / 2;
        if ((unsigned char)set->v[mid].text[depth] < c) a = mid + 1;
        else b = mid;
    }
    *lo = a;
    b = *hi;
    while (a < b) {
        size_t mid = (a + b) / 2;
        if ((unsigned char)set->v[mid].text[depth] <= c) a = mid + 1;
        else b = mid;
    }
    *hi = a;
}

const added_pattern *added_longest(const added_set *set, const char *s, size_t n)
{
    const added_pattern *best = NULL;
    size_t lo = 0, hi = set->n;
    for (size_t depth = 0; depth < n && lo < hi; depth++) {
        narrow(set, depth, (unsigned char)s[depth], &lo, &hi);
        /* A text that ends here sorts before those that go on; of equal texts the first counts. */
        if (lo < hi && set->v[lo].len == depth + 1) best = &set->v[lo];
        while (lo < hi && set->v[lo].len == depth + 1) lo++;
    }
    return best;
}
