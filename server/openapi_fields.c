/* openapi_fields.c - what the fields of request bodies take on OpenAI's routes, llama.cpp's and the
 * rerankers'; the other dialects' are in openapi_dialects.c.  See openapi.h.  null is everywhere
 * the same as absent (V3). */
#include "server/openapi_schema.h"

/* On every route that generates (G1, V9, G18). */
static const openapi_field sampling[] = {
    {"model", STR},
    {"stream", BOOL},
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
    {"min_tokens", FROM(0)},
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
    {"priority", INT(-2147483648, 2147483647)},
    {"cache_salt", TYPED("string", ",\"minLength\":1,\"maxLength\":128")},
    {"cache_prompt", BOOL},
    {"chat_template_kwargs", OBJECT},
    {NULL, NULL}};

/* How many tokens (G5). */
static const openapi_field limits[] = {{"max_completion_tokens", FROM(-1)},
                                       {"max_tokens", FROM(-1)},
                                       {"n_predict", FROM(-1)},
                                       {NULL, NULL}};

static const openapi_field stop[] = {{"stop", STOPS}, {NULL, NULL}};

/* Of one answer. */
static const openapi_field one[] = {{"n", INT(1, 1)}, {NULL, NULL}};

/* Where the reply has room for logprobs (G16). */
static const openapi_field named[] = {{"return_tokens_as_token_ids", BOOL}, {NULL, NULL}};

/* Where the reply has room for it (C8, G11, G12, G14, G16). */
static const openapi_field output[] = {
    {"n", INT(1, 128)},
    {"stream_options", TYPED("object", ",\"properties\":{\"include_usage\":" BOOL
                                       ",\"continuous_usage_stats\":" BOOL "}")},
    {"prompt_logprobs", INT(0, 20)},
    {"timings_per_token", BOOL},
    {"return_progress", BOOL},
    {"return_token_ids", BOOL},
    {NULL, NULL}};

/* Raw prompts and texts (G7). */
static const openapi_field cut[] = {{"truncate_prompt_tokens", FROM(-1)},
                                    {"truncation_side", WORDS("\"left\",\"right\"")},
                                    {NULL, NULL}};

/* R3 to R6. */
static const openapi_field thoughts[] = {
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
    {NULL, NULL}};

/* T1, T3. */
static const openapi_field tools[] = {
    {"tools", TYPED("array", ",\"maxItems\":512,\"items\":" REF("Tool"))},
    {"tool_choice", "{\"type\":[\"string\",\"object\",\"null\"]}"},
    {"parallel_tool_calls", BOOL},
    {NULL, NULL}};

/* A raw prompt shows no tools. */
static const openapi_field no_tools[] = {{"tools", NULL}, {"tool_choice", NULL}, {NULL, NULL}};

/* J1. */
static const openapi_field forms[] = {
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
    {"max_output_tokens", FROM(-1)},
    {"text", OBJECT},
    {"include", STRINGS},
    {"truncation", WORDS("\"auto\",\"disabled\"")},
    {"logprobs", "{}"},
    {"top_logprobs", INT(0, 20)},
    {"max_tool_calls", FROM(1)},
    {"metadata", OBJECT},
    {"tools", OBJECTS},
    {"reasoning", OBJECT},
    {"format", NULL},
    {NULL, NULL}};

/* What vectors and scores have in common. */
static const openapi_field pooled[] = {
    {"model", STR},
    {"priority", INT(-2147483648, 2147483647)},
    {"cache_salt", TYPED("string", ",\"minLength\":1,\"maxLength\":128")},
    {"cache_prompt", BOOL},
    {NULL, NULL}};

static const openapi_field instruction[] = {{"instruction", STR}, {NULL, NULL}};

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

static const openapi_field llama[] = {
    {"n_probs", INT(0, 20)},
    {"return_tokens", BOOL},
    {"add_special", BOOL},
    {"return_token_ids", BOOL},
    {"timings_per_token", BOOL},
    {"return_progress", BOOL},
    {"logit_bias",
     "{\"type\":[\"object\",\"array\",\"null\"],\"maxProperties\":4096,\"maxItems\":4096,"
     "\"propertyNames\":{\"pattern\":\"^[0-9]{1,10}$\"},\"items\":{\"type\":\"array\",\"minItems\":"
     "2,"
     "\"maxItems\":2}}"},
    {"response_fields", TYPED("array", ",\"maxItems\":64,\"items\":{\"type\":\"string\"}")},
    {NULL, NULL}};

static const openapi_field completion[] = {
    {"prompt", "{\"type\":[\"string\",\"array\"],\"minLength\":1,\"minItems\":1}"}, {NULL, NULL}};

static const openapi_field infill[] = {
    {"input_prefix", "{\"type\":\"string\"}"},
    {"input_suffix", "{\"type\":\"string\"}"},
    {"input_extra",
     TYPED("array", ",\"items\":{\"type\":\"object\",\"required\":[\"text\"],"
                    "\"properties\":{\"filename\":" STR ",\"text\":{\"type\":\"string\"}}}")},
    {"prompt", STR},
    {NULL, NULL}};

#define GENERATION sampling, limits, stop, thoughts, tools, forms

static const openapi_field nothing[] = {{NULL, NULL}};

const openapi_body openapi_bodies[] = {
    {"ChatRequest", "[\"messages\"]", {chat, output, named, GENERATION}},
    {"CompletionRequest", "[\"prompt\"]", {completions, cut, output, named, no_tools, GENERATION}},
    {"TextRequest", NULL, {text}},
    {"TokensRequest", "[\"tokens\"]", {tokens}},
    {"ResponsesRequest", "[\"input\"]", {responses, one, named, GENERATION}},
    {"EmbeddingsRequest", "[\"input\"]", {embeddings, instruction, cut, pooled}},
    {"RerankRequest", "[\"query\",\"documents\"]", {rerank, instruction, cut, pooled}},
    {"ScoreRequest", NULL, {score, instruction, cut, pooled}},
    {"LlamaCompletionRequest",
     "[\"prompt\"]",
     {completion, llama, one, named, no_tools, GENERATION}},
    {"LlamaInfillRequest",
     "[\"input_prefix\",\"input_suffix\"]",
     {infill, llama, one, named, no_tools, GENERATION}},
    {"MessagesRequest", "[\"messages\",\"max_tokens\"]", {openapi_messages, one, GENERATION}},
    {"MessagesCountRequest", "[\"messages\"]", {openapi_messages, one, GENERATION}},
    {"OllamaChatRequest", NULL, {openapi_ollama_chat, openapi_ollama, one, named, GENERATION}},
    {"OllamaGenerateRequest",
     NULL,
     {openapi_ollama_generate, openapi_ollama, one, named, GENERATION}},
    {"OllamaEmbedRequest", NULL, {openapi_ollama_embed, cut, pooled}},
    {"OllamaEmbeddingsRequest", NULL, {openapi_ollama_embeddings, cut, pooled}},
    {"OllamaNameRequest", NULL, {openapi_ollama_name}},
    {"LmStudioChatRequest", "[\"input\"]", {openapi_lmstudio, one, no_tools, GENERATION}},
    {"OtherRequest", NULL, {nothing}},
    {NULL, NULL, {NULL}}};
