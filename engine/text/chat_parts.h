/* chat_parts.h - what chat.c, chat_messages.c and chat_tools.c share: one request on its way to a
 * prompt.  Private to chat*.c.
 * Thread: the one that renders the request. */
#ifndef QUERN_ENGINE_TEXT_CHAT_PARTS_H
#define QUERN_ENGINE_TEXT_CHAT_PARTS_H

#include "engine/text/arena.h"
#include "engine/text/chat.h"

struct chat_format {
    arena mem;
    template *t;
    const char *text; /* in mem */
    template_traits traits;
    json bos, eos;              /* STRING nodes */
    const json *default_kwargs; /* borrowed or NULL */
    unsigned efforts;           /* bit per level of effort_names the template takes */
    const char *default_system; /* system text it puts in by itself, or NULL */
    bool calls;                 /* renders tool_calls of the history itself */
    bool calls_set;             /* the operator chose how calls are written and read: */
    call_format calls_as;
};

typedef enum { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL } chat_role;

/* One message after the checks of C1-C5. */
typedef struct {
    chat_role role;
    json *content;         /* STRING, or ARRAY of {"type":"text","text":...} */
    const json *reasoning; /* STRING or NULL */
    json *calls;           /* ARRAY of {id, type, function: {name, arguments}} or NULL */
    const json *call_id;   /* STRING or NULL */
    bool prefix;           /* asks to be continued (C6) */
    bool was_system;       /* a system text in a user's place */
} chat_msg;

typedef struct {
    arena mem;
    const chat_format *f;
    const chat_input *in;
    chat_fault *fault;
    err *e;
    buf *ignored;
    json_doc **docs; /* [n_docs] parsed argument strings */
    size_t n_docs, cap_docs;
    chat_msg *msg; /* [n_msg] */
    size_t n_msg;
    const json *tools; /* as the template sees them, or NULL */
    bool continued;    /* the client wants the last message continued (C6) */
    bool goes_on;      /* the last message is a turn that the answer goes on in (T2) */
} talk;

/* Fills fault and e; returns ERR_INVALID. */
int talk_bad(talk *k, const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
int talk_nomem(talk *k);
/* "messages[2].content" and the like, cut if ever longer. */
enum { FIELD_PATH = sizeof(((chat_fault *)0)->param) };
void field_path(char out[FIELD_PATH], const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Nodes in the request's arena; NULL when it is full.  Strings are borrowed. */
json *node_str(talk *k, const char *s, size_t n);
json *node_list(talk *k, json_type type);
/* A node of our own that shares the children of j. */
json *node_copy(talk *k, const json *j);
/* Appends v (a node of the arena, in no other list) to one made by node_list; key NULL in arrays.
 * False when list or v is NULL for want of memory, so that a chain of calls needs one check. */
bool node_add(json *list, const char *key, json *v);
/* The buffer's text as a node; the buffer is emptied. */
json *node_take(talk *k, buf *b);

/* chat_messages.c: in->messages to msg[]. */
int talk_read(talk *k);
/* Leading system texts into one, later ones placed as the template takes them (C3). */
int talk_place_system(talk *k);
json *talk_messages(talk *k);
/* The contents of m[n] as one, in parts if any has them; NULL: out of memory. */
json *join_contents(talk *k, const chat_msg *m, size_t n, const char *sep);

/* chat_tools.c: in->tools checked and shaped (T1, T10). */
int talk_tools(talk *k);
/* The text of content, of its parts one after the other. */
void put_content(buf *b, const json *content);
/* chat_written.c: tools, calls and results as text where the template, or the operator, wants it so
 * (T2). */
int talk_write_tools(talk *k);
/* Puts section (NULL: out of memory) behind the system text. */
int talk_add_section(talk *k, json *section);
/* chat_lines.c: the same in the labelled lines of react and function. */
int talk_write_lines(talk *k);

#endif
