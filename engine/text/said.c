/* said.c - see said.h.  Owns its text and its list.  Refuses nothing.  Thread: one owner. */
#include "engine/text/said.h"

#include <stdlib.h>

static bool room(said *s, int more)
{
    if (s->n + more <= s->cap) return true;
    int cap = 2 * (s->n + more);
    said_piece *v = realloc(s->piece, (size_t)cap * sizeof *v);
    if (!v) return false;
    s->piece = v;
    s->cap = cap;
    return true;
}

/* Text goes on in the piece before it; a call's beginning and end stand alone. */
static bool joins(const said *s, said_kind k, int call)
{
    const said_piece *last = s->n ? &s->piece[s->n - 1] : NULL;
    return last && last->kind == k && last->call == call && k != SAID_CALL && k != SAID_CALL_END;
}

void said_put(said *s, said_kind k, int call, const char *text, size_t n)
{
    bool bare = k == SAID_CALL || k == SAID_CALL_END;
    if (!n && !bare) return;
    if (joins(s, k, call)) {
        s->piece[s->n - 1].n += n;
    } else if (room(s, 1)) {
        s->piece[s->n++] = (said_piece){k, call, s->text.len, n};
    } else {
        s->oom = true;
        return;
    }
    if (n) buf_put(&s->text, text, n);
}

bool said_join(said *a, const said *b)
{
    if (!said_ok(b) || !room(a, b->n) || !buf_reserve(&a->text, b->text.len)) return false;
    for (int i = 0; i < b->n; i++)
        said_put(a, b->piece[i].kind, b->piece[i].call, said_text(b, i), b->piece[i].n);
    return true;
}

void said_copy(const said *s, said_kind k, buf *out)
{
    for (int i = 0; i < s->n; i++)
        if (s->piece[i].kind == k) buf_put(out, said_text(s, i), s->piece[i].n);
}

void said_args(const said *s, int i, buf *out)
{
    for (int k = i + 1; k < s->n && s->piece[k].kind != SAID_CALL; k++)
        if (s->piece[k].kind == SAID_ARGS) buf_put(out, said_text(s, k), s->piece[k].n);
}

void said_reset(said *s)
{
    buf_reset(&s->text);
    s->n = 0;
    s->oom = false;
}

void said_clear(said *s)
{
    buf_clear(&s->text);
    free(s->piece);
    *s = (said){0};
}
