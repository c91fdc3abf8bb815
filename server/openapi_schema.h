/* openapi_schema.h - JSON Schema text of what fields take, for the tables of openapi_fields.c and
 * openapi_dialects.c.  null is everywhere the same as absent (V3). */
#ifndef QUERN_SERVER_OPENAPI_SCHEMA_H
#define QUERN_SERVER_OPENAPI_SCHEMA_H

#include "server/openapi.h"

#include <stddef.h>

#define TYPED(type, more) "{\"type\":[\"" type "\",\"null\"]" more "}"
#define BOOL TYPED("boolean", "")
#define STR TYPED("string", "")
#define OBJECT TYPED("object", "")
#define OBJECTS TYPED("array", ",\"items\":{\"type\":\"object\"}")
#define STRINGS TYPED("array", ",\"items\":{\"type\":\"string\"}")
#define INTS TYPED("array", ",\"items\":{\"type\":\"integer\"}")
#define RANGE(type, lo, hi) TYPED(type, ",\"minimum\":" #lo ",\"maximum\":" #hi)
#define NUM(lo, hi) RANGE("number", lo, hi)
#define INT(lo, hi) RANGE("integer", lo, hi)
#define FROM(lo) TYPED("integer", ",\"minimum\":" #lo)
#define WORDS(list) "{\"enum\":[" list ",null]}"
#define EFFORTS "\"none\",\"minimal\",\"low\",\"medium\",\"high\",\"xhigh\",\"max\""
#define REF(name) "{\"$ref\":\"#/components/schemas/" name "\"}"
#define STOP_TEXT(types) "{\"type\":" types ",\"minLength\":1,\"maxLength\":1024}"
#define STOPS                                                                                 \
    "{\"anyOf\":[" STOP_TEXT("[\"string\",\"null\"]") ",{\"type\":\"array\",\"maxItems\":16," \
                                                      "\"items\":" STOP_TEXT("\"string\"") "}]}"

/* Tables of dialects (openapi_dialects.c). */
extern const openapi_field openapi_messages[], openapi_ollama[], openapi_ollama_chat[],
    openapi_ollama_generate[], openapi_ollama_embed[], openapi_ollama_embeddings[],
    openapi_ollama_name[], openapi_lmstudio[];

#endif
