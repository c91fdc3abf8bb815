/* openapi_dialects.c - what the fields of Anthropic's, Ollama's and LM Studio's bodies take beside
 * those they share with chat; see openapi.h and the translators. */
#include "server/openapi_schema.h"

/* ---- Anthropic (A1-A6) ----------------------------------------------------------------------- */

#define BLOCKS                                                                                   \
    "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"required\":[\"type\"],\"properties\":" \
    "{\"type\":{\"type\":\"string\"}}}}"
#define OWN_TOOL                                                                          \
    "{\"type\":\"object\",\"required\":[\"name\"],\"properties\":{\"type\":{\"enum\":["   \
    "\"custom\",null]},\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":256}," \
    "\"description\":" STR ",\"input_schema\":" OBJECT ",\"strict\":" BOOL "}}"
/* Those of the service are left out, and listed. */
#define SERVICE_TOOL                                                                   \
    "{\"type\":\"object\",\"required\":[\"type\"],\"properties\":{\"type\":{\"type\":" \
    "\"string\",\"not\":{\"const\":\"custom\"}}}}"

const openapi_field openapi_messages[] = {
    {"max_tokens", "{\"type\":\"integer\",\"minimum\":-1}"},
    {"messages",
     "{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"object\",\"required\":[\"role\"],"
     "\"properties\":{\"role\":{\"enum\":[\"user\",\"assistant\",\"system\",\"ctx\",\"msg\"]},"
     "\"content\":{\"anyOf\":[{\"type\":\"string\"}," BLOCKS "]}}}}"},
    {"system", "{\"anyOf\":[" STR "," BLOCKS "]}"},
    {"stop_sequences", STOPS},
    {"tools",
     TYPED("array", ",\"maxItems\":512,\"items\":{\"anyOf\":[" OWN_TOOL "," SERVICE_TOOL "]}")},
    {"tool_choice",
     TYPED("object",
           ",\"required\":[\"type\"],\"properties\":{\"type\":{\"enum\":[\"auto\",\"any\","
           "\"tool\",\"none\"]},\"name\":" STR ",\"disable_parallel_tool_use\":" BOOL "}")},
    {"output_config",
     TYPED("object", ",\"properties\":{\"effort\":" WORDS(EFFORTS) ",\"format\":" OBJECT "}")},
    {"output_format", OBJECT},
    {NULL, NULL}};

/* ---- Ollama (O3-O8) -------------------------------------------------------------------------- */

#define SIGNED NUM(-2, 2)
#define UNIT NUM(0, 1)
#define OPTION_LIMITS \
    "\"num_predict\":" FROM(-2) ",\"repeat_last_n\":" FROM(-1) ",\"seed\":" TYPED("integer", "")
#define OPTION_DRAW \
    "\"temperature\":" NUM(0, 2) ",\"top_p\":" UNIT ",\"min_p\":" UNIT ",\"top_k\":" FROM(-1)
#define OPTION_PENALTIES                                                \
    "\"repeat_penalty\":" NUM(0.01, 10) ",\"presence_penalty\":" SIGNED \
                                        ",\"frequency_penalty\":" SIGNED
#define OPTION_STOP \
    "\"stop\":{\"type\":[\"string\",\"array\",\"null\"],\"items\":{\"type\":\"string\"}}"
#define OPTIONS                                                                            \
    TYPED("object", ",\"properties\":{" OPTION_LIMITS "," OPTION_DRAW "," OPTION_PENALTIES \
                    "," OPTION_STOP "}")

/* On /api/chat and /api/generate. */
const openapi_field openapi_ollama[] = {
    {"options", OPTIONS},
    {"format", "{\"anyOf\":[{\"enum\":[\"json\",\"\",null]},{\"type\":[\"object\",\"boolean\"]}]}"},
    {"truncate", BOOL},
    {"logprobs", BOOL},
    {"top_logprobs", INT(0, 20)},
    {NULL, NULL}};

const openapi_field openapi_ollama_chat[] = {
    {"messages",
     TYPED("array", ",\"items\":{\"type\":\"object\",\"required\":[\"role\"],\"properties\":{"
                    "\"role\":{\"enum\":[\"system\",\"developer\",\"user\",\"assistant\",\"tool\","
                    "\"function\"]},\"content\":{\"type\":[\"string\",\"array\",\"null\"]},"
                    "\"thinking\":" STR ",\"tool_name\":{},\"tool_call_id\":" STR "}}")},
    {NULL, NULL}};

const openapi_field openapi_ollama_generate[] = {
    {"prompt", STR},   {"system", STR},  {"suffix", STR}, {"raw", BOOL},
    {"context", INTS}, {"images", "{}"}, {NULL, NULL}};

const openapi_field openapi_ollama_embed[] = {
    {"input", "{\"type\":[\"string\",\"array\",\"null\"],\"maxItems\":2048,\"items\":{\"type\":"
              "\"string\"}}"},
    {"dimensions", FROM(1)},
    {"truncate", BOOL},
    {NULL, NULL}};

const openapi_field openapi_ollama_embeddings[] = {
    {"prompt", STR}, {"dimensions", FROM(1)}, {"truncate", BOOL}, {NULL, NULL}};

/* The older name counts where the newer is not there. */
const openapi_field openapi_ollama_name[] = {{"model", STR}, {"name", STR}, {NULL, NULL}};

/* ---- LM Studio (L4) -------------------------------------------------------------------------- */

const openapi_field openapi_lmstudio[] = {
    {"input",
     "{\"type\":[\"string\",\"array\"],\"items\":{\"type\":\"object\",\"required\":[\"type\"],"
     "\"properties\":{\"type\":{\"enum\":[\"message\",\"text\",\"image\"]},\"content\":{\"type\":"
     "\"string\"}}}}"},
    {"system_prompt", STR},
    {"max_output_tokens", FROM(-1)},
    {"reasoning", WORDS("\"off\",\"low\",\"medium\",\"high\",\"on\"")},
    {"context_length", FROM(1)},
    {"store", BOOL},
    {"previous_response_id", STR},
    {"integrations", TYPED("array", "")},
    {NULL, NULL}};
