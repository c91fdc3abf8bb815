/* calls_impl.h - inside calls*.c: the state of the parser and the steps of each format.
 * Every step takes one byte.  Thread: the owner's. */
#ifndef QUERN_ENGINE_TEXT_CALLS_IMPL_H
#define QUERN_ENGINE_TEXT_CALLS_IMPL_H

#include "engine/text/calls.h"

typedef enum {
    AT_TEXT,  /* ordinary text, perhaps with the beginning of a tag held */
    AT_BODY,  /* behind <tool_call>: white space, then { or <function= */
    AT_JSON,  /* in the JSON object */
    AT_XML,   /* in <function=...> */
    AT_CLOSE, /* the body is complete: white space, </tool_call>, or the next <function= */
    AT_LINES  /* react, function: see calls_lines.c */
} call_state;

typedef enum {
    JSON_AT_KEY,   /* behind { or , */
    JSON_IN_KEY,   /* in a member's name */
    JSON_AT_COLON, /* behind it */
    JSON_AT_VALUE, /* behind : */
    JSON_IN_NAME,  /* in the string of "name" */
    JSON_IN_ARGS,  /* in the value of "arguments" */
    JSON_IN_OTHER, /* in a value nobody asked for */
    JSON_AT_NEXT,  /* behind a value: , or } */
    JSON_BROKEN    /* only </tool_call> matters any more */
} json_state;

typedef enum {
    XML_IN_NAME, /* behind <function= */
    XML_BETWEEN, /* white space, <parameter=, </function> */
    XML_IN_KEY,  /* behind <parameter= */
    XML_IN_VALUE
} xml_state;

typedef enum {
    LINE_START, /* perhaps in a label */
    LINE_TEXT,
    LINE_NAME,  /* behind Action: */
    LINE_LABEL, /* behind the name: Action Input: must come */
    LINE_ARGS
} line_state;

struct calls {
    call_format format;
    const call_tools *tools;
    call_sink to;
    int n_calls, n_whole;
    call_state at;
    bool after; /* only white space since the last call: it is dropped */
    bool line_start, oom;
    buf space;  /* white space that is dropped if a call follows */
    buf held;   /* text that is part of a tag or call so far, and may be given back as text */
    buf out;    /* text of this feed, not yet given out */
    buf tag;    /* beginning of a tag inside a body */
    bool bare;  /* the body was not opened by <tool_call> */
    bool named; /* the call at hand has begun */
    /* JSON */
    json_state js;
    bool in_string, escape, args_string, args_null, has_args;
    int depth;
    buf key, args; /* args: held until the name is known; or a string, until it is complete */
    /* XML */
    xml_state xs;
    int tool, types;
    bool first_byte, skip, streaming, any_param;
    buf name, value, seen; /* seen: keys so far, each ended by a 0 */
    struct {
        int phase; /* 0: [\n]</parameter>, 1: white space, 2: the tag behind it */
        buf raw;
        size_t n;
    } tail; /* what may be the end of a value */
    /* react, function */
    line_state line;
    bool stopped; /* the result of a call was to come: nothing more counts */
};

static inline bool call_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Text that is sure (white space held before it comes first, or goes after a call). */
void calls_text(calls *c, const char *s, size_t n);
/* Gives the held bytes back as text. */
void calls_give_back(calls *c);
/* Events of the call at hand. */
void calls_begin(calls *c, const char *name, size_t n);
void calls_args(calls *c, const char *s, size_t n);
void calls_finish(calls *c);
/* The call at hand is over, complete or not; what follows is white space, text or another. */
void calls_leave(calls *c);

void calls_json_start(calls *c);
void calls_json_byte(calls *c, char b);
void calls_json_end(calls *c);
void calls_xml_start(calls *c);
void calls_xml_byte(calls *c, char b);
void calls_xml_end(calls *c);
void calls_xml_flush(calls *c); /* the end of a feed: value bytes so far go out */
void calls_lines_byte(calls *c, char b);
void calls_lines_end(calls *c);
const char *calls_lines_opener(call_format f);

#endif
