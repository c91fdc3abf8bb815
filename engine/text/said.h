/* said.h - what a sequence said, in the order it said it: thought, answer and tool calls as pieces
 * of one text.  Everything that came out of a model reaches a dialect as this one list.
 * Pieces that follow each other and are of one kind are one piece, so a list taken late equals many
 * taken early.  Thread: one owner. */
#ifndef QUERN_ENGINE_TEXT_SAID_H
#define QUERN_ENGINE_TEXT_SAID_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    SAID_THOUGHT,
    SAID_ANSWER,
    SAID_CALL,    /* a call begins; the text is the tool's name */
    SAID_ARGS,    /* more of its arguments, as JSON text */
    SAID_CALL_END /* it is complete; no text */
} said_kind;

typedef struct {
    said_kind kind;
    int call;     /* which call of the sequence, from 0; 0 for text */
    size_t at, n; /* bytes of said.text */
} said_piece;

typedef struct {
    buf text;
    said_piece *piece; /* [n] */
    int n, cap;
    bool oom; /* something was lost; stays */
} said;

void said_put(said *s, said_kind k, int call, const char *text, size_t n);
/* All of b behind a.  False: out of memory, a is as before. */
bool said_join(said *a, const said *b);
/* Appends the text of every piece of kind k. */
void said_copy(const said *s, said_kind k, buf *out);
/* Appends the arguments of the call that begins at piece i: they end where the next call begins. */
void said_args(const said *s, int i, buf *out);
static inline bool said_ok(const said *s)
{
    return !s->oom && buf_ok(&s->text);
}
static inline const char *said_text(const said *s, int i)
{
    return buf_str(&s->text) + s->piece[i].at;
}
void said_reset(said *s); /* empty, keeps its memory; oom goes */
void said_clear(said *s);

#endif
