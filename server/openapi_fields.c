/* openapi_fields.c - what the fields of request bodies take; see openapi.h.  null is everywhere the
 * same as absent (V3). */
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

/* On every route that generates (G1, V9). */
static const openapi_field generation[] = {
    {"model", STR},
    {"stream", BOOL},
    {"stream_options", TYPED("object", ",\"properties\":{\"include_usage\":" BOOL
                                       ",\"continuous_usage_stats\":" BOOL "}")},
    {"sse_ping_interval", INT(-1, 3600)},
    {"temperature", NUM(0, 2)},
    {"top_p", NUM(0, 1)},
    {"min_p", NUM(0, 1)},
    {"top_k", FROM(-1)},
    {"presence_penalty", NUM(-2, 2)},
    {"frequency_penalty", NUM(-2, 2)},
    {"repetition_penalty", NUM(0.01, 10)},
    {"repeat_penalty", NUM(0.01, 10)},
    {"repeat_last_n", FROM(-1)},
    {"seed", INT(-9223372036854775808, 9223372036854775807)},
    {"max_completion_tokens", FROM(-1)},
    {"max_tokens", FROM(-1)},
    {"n_predict", FROM(-1)},
    {"min_tokens", FROM(0)},
    {"stop",
     "{\"anyOf\":[{\"type\":[\"string\",\"null\"],\"minLength\":1,\"maxLength\":1024},{\"type\":"
     "\"array\",\"maxItems\":16,\"items\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":"
     "1024}}]}"},
    {"stop_token_ids",
     TYPED("array", ",\"maxItems\":64,\"items\":{\"type\":\"integer\",\"minimum\":0}")},
    {"include_stop_str_in_output", BOOL},
    {"ignore_eos", BOOL},
    {"skip_special_tokens", BOOL},
    {"logit_bias",
     TYPED("object",
           ",\"maxProperties\":4096,\"propertyNames\":{\"pattern\":\"^[0-9]{1,10}$\"},"
           "\"additionalProperties\":{\"type\":\"number\",\"minimum\":-100,\"maximum\":100}")},
    {"allowed_token_ids",
     TYPED("array", ",\"minItems\":1,\"items\":{\"type\":\"integer\",\"minimum\":0}")},
    {"bad_words", TYPED("array", ",\"maxItems\":256,\"items\":{\"type\":\"string\",\"minLength\":1,"
                                 "\"maxLength\":256}")},
    {"n", INT(1, 128)},
    {"prompt_logprobs", INT(0, 20)},
    {"return_token_ids", BOOL},
    {"return_tokens_as_token_ids", BOOL},
    {"truncate_prompt_tokens", FROM(-1)},
    {"truncation_side", WORDS("\"left\",\"right\"")},
    {"timings_per_token", BOOL},
    {"return_progress", BOOL},
    {"priority", INT(-2147483648, 2147483647)},
    {"cache_salt", TYPED("string", ",\"minLength\":1,\"maxLength\":128")},
    {"cache_prompt", BOOL},
    {"enable_thinking", BOOL},
    {"reasoning_effort", WORDS(EFFORTS)},
    {"reasoning", TYPED("object", ",\"properties\":{\"effort\":" WORDS(
                                      EFFORTS) ",\"enabled\":" BOOL ",\"exclude\":" BOOL
                                               ",\"max_tokens\":" FROM(-1) "}")},
    {"thinking", "{\"type\":[\"boolean\",\"object\",\"null\"]}"},
    {"think", "{\"enum\":[true,false," EFFORTS ",null]}"},
    {"thinking_budget", FROM(-1)},
    {"thinking_token_budget", FROM(-1)},
    {"thinking_budget_tokens", FROM(-1)},
    {"reasoning_budget_tokens", FROM(-1)},
    {"include_reasoning", BOOL},
    {"separate_reasoning", BOOL},
    {"reasoning_format", WORDS("\"none\",\"auto\",\"deepseek\",\"deepseek-legacy\"")},
    {"chat_template_kwargs", OBJECT},
    {"tools", TYPED("array", ",\"maxItems\":512,\"items\":" REF("Tool"))},
    {"tool_choice", "{\"type\":[\"string\",\"object\",\"null\"]}"},
    {"parallel_tool_calls", BOOL},
    {"response_format",
     TYPED("object",
           ",\"properties\":{\"type\":{\"enum\":[\"text\",\"json_object\",\"json_schema\"]}"
           ",\"json_schema\":" OBJECT "}")},
    {"structured_outputs", OBJECT},
    {"guided_json", "{\"type\":[\"string\",\"object\",\"boolean\",\"null\"]}"},
    {"guided_regex", STR},
    {"guided_choice", STRINGS},
    {"guided_grammar", STR},
    {"grammar", STR},
    {"ebnf", STR},
    {"regex", STR},
    {"json_schema", "{\"type\":[\"string\",\"object\",\"boolean\",\"null\"]}"},
    {"format", "{\"type\":[\"string\",\"object\",\"null\"]}"},
    {NULL, NULL}};

static const openapi_field chat[] = {
    {"messages", "{\"type\":\"array\",\"minItems\":1,\"items\":" REF("Message") "}"},
    {"logprobs", BOOL},
    {"top_logprobs", INT(0, 20)},
    {"add_generation_prompt", BOOL},
    {"continue_final_message", BOOL},
    {"documents", OBJECTS},
    {"echo", BOOL},
    {"mm_processor_kwargs", OBJECT},
    {NULL, NULL}};

static const openapi_field completions[] = {
    {"prompt",
     "{\"anyOf\":[{\"type\":\"string\",\"minLength\":1},{\"type\":\"array\",\"minItems\":1,"
     "\"maxItems\":"
     "128,\"items\":{\"type\":\"string\",\"minLength\":1}},{\"type\":\"array\",\"minItems\":1,"
     "\"items\":{"
     "\"type\":\"integer\",\"minimum\":0}},{\"type\":\"array\",\"minItems\":1,\"maxItems\":128,"
     "\"items\":{"
     "\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"integer\",\"minimum\":0}}}]}"},
    {"logprobs", INT(0, 20)},
    {"suffix", STR},
    {"echo", BOOL},
    {"best_of", INT(1, 20)},
    {"add_special_tokens", BOOL},
    {NULL, NULL}};

/* The first of content, prompt and messages counts; the others are not looked at. */
static const openapi_field text[] = {{"content", STR},      {"prompt", "{}"},
                                     {"messages", "{}"},    {"tools", "{}"},
                                     {"add_special", BOOL}, {"parse_special", BOOL},
                                     {"with_pieces", BOOL}, {"return_token_strs", BOOL},
                                     {NULL, NULL}};

static const openapi_field tokens[] = {
    {"tokens", "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":0}}"},
    {NULL, NULL}};

static const openapi_field responses[] = {
    {"input", "{\"type\":[\"string\",\"array\"],\"items\":{\"type\":\"object\"}}"},
    {"instructions", STR},
    {"previous_response_id", STR},
    {"store", BOOL},
    {"max_output_tokens", FROM(1)},
    {"text", OBJECT},
    {"include", STRINGS},
    {"truncation", WORDS("\"auto\",\"disabled\"")},
    {"top_logprobs", INT(0, 20)},
    {"max_tool_calls", FROM(1)},
    {"metadata", OBJECT},
    {"tools", OBJECTS},
    {"tool_choice", "{\"type\":[\"string\",\"object\",\"null\"]}"},
    {"parallel_tool_calls", BOOL},
    {"reasoning", OBJECT},
    {"model", STR},
    {"stream", BOOL},
    {"temperature", NUM(0, 2)},
    {"top_p", NUM(0, 1)},
    {NULL, NULL}};

/* What vectors and scores have in common. */
static const openapi_field pooled[] = {
    {"model", STR},
    {"instruction", STR},
    {"truncate_prompt_tokens", FROM(-1)},
    {"truncation_side", WORDS("\"left\",\"right\"")},
    {"priority", INT(-2147483648, 2147483647)},
    {"cache_salt", TYPED("string", ",\"minLength\":1,\"maxLength\":128")},
    {"cache_prompt", BOOL},
    {NULL, NULL}};

static const openapi_field embeddings[] = {
    {"input", "{\"type\":[\"string\",\"array\"],\"minLength\":1,\"minItems\":1,\"maxItems\":2048}"},
    {"encoding_format", WORDS("\"float\",\"base64\"")},
    {"dimensions", FROM(1)},
    {NULL, NULL}};

static const openapi_field rerank[] = {
    {"query", "{\"type\":\"string\",\"minLength\":1}"},
    {"documents", "{\"type\":\"array\",\"minItems\":1,\"maxItems\":1024,\"items\":{\"type\":["
                  "\"string\",\"object\"]}}"},
    {"top_n", FROM(0)},
    {"return_documents", BOOL},
    {NULL, NULL}};

#define SIDE "{\"type\":[\"string\",\"array\",\"null\"],\"minItems\":1,\"maxItems\":1024}"
static const openapi_field score[] = {{"text_1", SIDE}, {"text_2", SIDE},    {"queries", SIDE},
                                      {"items", SIDE},  {"documents", SIDE}, {"data_1", SIDE},
                                      {"data_2", SIDE}, {NULL, NULL}};

static const openapi_field nothing[] = {{NULL, NULL}};

const openapi_body openapi_bodies[] = {
    {"ChatRequest", "[\"messages\"]", {generation, chat, NULL}},
    {"CompletionRequest", "[\"prompt\"]", {generation, completions, NULL}},
    {"TextRequest", NULL, {text, NULL}},
    {"TokensRequest", "[\"tokens\"]", {tokens, NULL}},
    {"ResponsesRequest", "[\"input\"]", {responses, NULL}},
    {"EmbeddingsRequest", "[\"input\"]", {pooled, embeddings, NULL}},
    {"RerankRequest", "[\"query\",\"documents\"]", {pooled, rerank, NULL}},
    {"ScoreRequest", NULL, {pooled, score, NULL}},
    {"OtherRequest", NULL, {nothing, NULL}},
    {NULL, NULL, {NULL}}};
