/* call_tools.h - the tools of a request as the output parsers need them: which names are known, and
 * which types a parameter's value may have (API T8).  Made once per request from the JSON the
 * client sent, then const; shared by the request's choices by reference count.  Any thread. */
#ifndef QUERN_ENGINE_TEXT_CALL_TOOLS_H
#define QUERN_ENGINE_TEXT_CALL_TOOLS_H

#include "base/json.h"

/* Types a value may have, as bits. */
enum {
    MAY_STRING = 1,
    MAY_INTEGER = 2,
    MAY_NUMBER = 4,
    MAY_BOOL = 8,
    MAY_NULL = 16,
    MAY_OBJECT = 32,
    MAY_ARRAY = 64,
    MAY_ALL = 127
};

typedef struct call_tools call_tools;

/* tools: array of {"type":"function","function":{"name","parameters"}} or of type "custom" (checked
 * by the caller; other entries are skipped).  NULL: out of memory.  One reference. */
call_tools *call_tools_new(const json *tools);
call_tools *call_tools_take(call_tools *t);
void call_tools_put(call_tools *t); /* NULL is allowed */
/* Index of a tool, -1 if there is none of that name. */
int call_tools_find(const call_tools *t, const char *name, size_t n);
/* What a parameter may be by its tool's schema, `$ref`, allOf, anyOf and oneOf around `properties`
 * included; a key that none of them declares, only a string. */
int call_tools_schema_types(const json *schema, const char *key, size_t n);
/* What parameter key of a tool may be; an unknown tool (-1) or key may only be a string. */
int call_tools_types(const call_tools *t, int tool, const char *key, size_t n);
/* A custom tool: its one parameter is the string "input" (T10). */
bool call_tools_is_custom(const call_tools *t, int tool);

#endif
