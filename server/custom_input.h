/* custom_input.h - the text of a custom tool's call (API T10): the model writes {"input": "TEXT"},
 * the client gets TEXT, as it is written.  How the arguments are cut makes no difference. Thread:
 * one owner. */
#ifndef QUERN_SERVER_CUSTOM_INPUT_H
#define QUERN_SERVER_CUSTOM_INPUT_H

#include "base/buf.h"

/* {0} before the first byte of a call.  Owns its buffers. */
typedef struct {
    enum { INPUT_SEEK, INPUT_TEXT, INPUT_DONE } at;
    /* SEEK: in the object, before the string */
    int depth;
    bool in_string, escape, in_key, at_key, wanted;
    buf key, raw; /* raw: SEEK: all so far; TEXT: the escape at hand */
    /* TEXT */
    int digits;          /* of \u that are still to come */
    uint32_t code, high; /* what they say so far; half of a pair that waits for the other */
} custom_input;

/* More of the arguments, whole characters; appends what is certain of the text. */
void custom_input_feed(custom_input *c, const char *s, size_t n, buf *out);
/* The end of the call, which may be cut short: appends what was held.  Arguments without the string
 * are the text themselves.  c is {0} again. */
void custom_input_end(custom_input *c, buf *out);
void custom_input_clear(custom_input *c);

#endif
