/* openapi_shapes.c - parts of requests and the shapes of replies; see openapi.h. */
#include "server/openapi.h"

#include <stddef.h>

#define REF(name) "{\"$ref\":\"#/components/schemas/" name "\"}"
#define LIST(of) "{\"type\":\"array\",\"items\":" of "}"
#define TEXT "{\"type\":\"string\"}"
#define TEXT_OR_NULL "{\"type\":[\"string\",\"null\"]}"
#define INT "{\"type\":\"integer\"}"
#define COUNT "{\"type\":\"integer\",\"minimum\":0}"
#define NUM "{\"type\":\"number\"}"
#define BOOL "{\"type\":\"boolean\"}"
#define CONST(v) "{\"const\":\"" v "\"}"
#define OBJECT(required, properties) \
    "{\"type\":\"object\",\"required\":[" required "],\"properties\":{" properties "}}"

const openapi_shape openapi_shapes[] =
    {{"Message",
      OBJECT("\"role\"",
             "\"role\":{\"enum\":[\"system\",\"developer\",\"user\",\"assistant\",\"tool\","
             "\"function\"]},"
             "\"content\":{\"anyOf\":[{\"type\":[\"string\",\"null\"]},{\"type\":\"array\","
             "\"minItems\":1,"
             "\"items\":{\"type\":\"object\",\"required\":[\"type\"],\"properties\":{\"type\":" TEXT
             "}}}]},\"reasoning_content\":" TEXT_OR_NULL ",\"reasoning\":" TEXT_OR_NULL
             ",\"tool_calls\":{\"type\":[\"array\",\"null\"],\"items\":{\"type\":\"object\"}},"
             "\"tool_call_id\":" TEXT_OR_NULL ",\"prefix\":{\"type\":[\"boolean\",\"null\"]}")},
     {"Tool",
      OBJECT("\"type\"", "\"type\":{\"enum\":[\"function\",\"custom\"]},\"function\":{\"type\":"
                         "[\"object\",\"null\"]},\"custom\":{}")},
     {"Error", OBJECT("\"error\"",
                      "\"error\":" OBJECT("\"message\",\"type\",\"param\",\"code\"",
                                          "\"message\":" TEXT ",\"type\":" TEXT
                                          ",\"param\":" TEXT_OR_NULL ",\"code\":" TEXT_OR_NULL))},
     {"AnthropicError",
      OBJECT("\"type\",\"error\",\"request_id\"",
             "\"type\":" CONST("error") ",\"request_id\":" TEXT ",\"error\":" OBJECT(
                 "\"type\",\"message\"", "\"type\":" TEXT ",\"message\":" TEXT))},
     {"OllamaError", OBJECT("\"error\"", "\"error\":" TEXT)},
     {"LmStudioError",
      OBJECT("\"error\"",
             "\"error\":" OBJECT("\"message\",\"type\"", "\"message\":" TEXT ",\"type\":" TEXT))},
     {"Usage",
      OBJECT("\"prompt_tokens\",\"completion_tokens\",\"total_tokens\"",
             "\"prompt_tokens\":" COUNT ",\"completion_tokens\":" COUNT ",\"total_tokens\":" COUNT
             ",\"prompt_tokens_details\":{\"type\":\"object\","
             "\"additionalProperties\":" COUNT
             "},\"completion_tokens_details\":{\"type\":\"object\",\"additionalProperties\":" COUNT
             "}")},
     {"ToolCall", OBJECT("\"id\",\"type\"",
                         "\"id\":" TEXT ",\"type\":{\"enum\":[\"function\","
                         "\"custom\"]},\"function\":" OBJECT(
                             "\"name\",\"arguments\"",
                             "\"name\":" TEXT
                             ",\"arguments\":" TEXT) ",\"custom\":" OBJECT("\"name\",\"input\"",
                                                                           "\"name\":" TEXT
                                                                           ",\"input\":" TEXT))},
     {"ChatReply",
      OBJECT(
          "\"id\",\"object\",\"created\",\"model\",\"choices\",\"usage\",\"system_fingerprint\","
          "\"service_tier\"",
          "\"id\":" TEXT ",\"object\":" CONST(
              "chat.completion") ",\"created\":" INT ",\"model\":" TEXT
                                 ",\"system_fingerprint\":" TEXT
                                 ",\"service_tier\":" CONST("default") ",\"usage\":" REF("Usage") ",\"choices\":" LIST(
                                     OBJECT(
                                         "\"index\",\"message\",\"logprobs\",\"finish_reason\","
                                         "\"stop_reason\"",
                                         "\"index\":" COUNT ",\"message\":" OBJECT(
                                             "\"role\",\"content\",\"refusal\"",
                                             "\"role\":" CONST(
                                                 "assistant") ",\"content\":" TEXT_OR_NULL
                                                              ",\"refusal\":{\"type\":"
                                                              "\"null\"},\"reasoning_"
                                                              "content\":" TEXT
                                                              ",\"reasoning\":" TEXT
                                                              ",\"tool_calls\":" LIST(REF(
                                                                  "ToolCall"))) ",\"logprobs\":{"
                                                                                "\"type\":["
                                                                                "\"object\","
                                                                                "\"null\"]},"
                                                                                "\"finish_reason\":"
                                                                                "{\"enum\":["
                                                                                "\"stop\","
                                                                                "\"length\",\"tool_"
                                                                                "calls\"]},\"stop_"
                                                                                "reason\":{"
                                                                                "\"type\":["
                                                                                "\"string\","
                                                                                "\"integer\","
                                                                                "\"null\"]}")))},
     {"CompletionReply",
      OBJECT("\"id\",\"object\",\"created\",\"model\",\"choices\",\"usage\",\"system_fingerprint\"",
             "\"id\":" TEXT ",\"object\":" CONST(
                 "text_completion") ",\"created\":" INT ",\"model\":" TEXT
                                    ",\"system_fingerprint\":" TEXT
                                    ",\"usage\":" REF("Usage") ",\"choices\":" LIST(
                                        OBJECT("\"index\",\"text\",\"logprobs\",\"finish_reason\","
                                               "\"stop_reason\"",
                                               "\"index\":" COUNT ",\"text\":" TEXT
                                               ",\"logprobs\":{\"type\":[\"object\",\"null\"]},"
                                               "\"finish_reason\":{\"enum\":[\"stop\",\"length\"]},"
                                               "\"stop_reason\":{\"type\":[\"string\","
                                               "\"integer\",\"null\"]}")))},
     {"ResponseReply",
      OBJECT(
          "\"id\",\"object\",\"created_at\",\"status\",\"error\",\"incomplete_details\","
          "\"model\","
          "\"output\",\"store\",\"tools\",\"tool_choice\",\"usage\"",
          "\"id\":" TEXT ",\"object\":" CONST(
              "response") ",\"created_at\":" NUM ",\"model\":" TEXT
                          ",\"status\":{\"enum\":[\"completed\",\"incomplete\",\"failed\"]},"
                          "\"output\":" LIST(
                              "{\"type\":\"object\",\"required\":[\"type\","
                              "\"id\"]}") ",\"store\":" BOOL
                                          ",\"usage\":" OBJECT(
                                              "\"input_tokens\",\"output_tokens\",\"total_tokens\"",
                                              "\"input_tokens\":" COUNT ",\"output_tokens\":" COUNT
                                              ",\"total_tokens\":" COUNT))},
     {"InputTokens",
      OBJECT("\"object\",\"input_tokens\"",
             "\"object\":" CONST("response.input_tokens") ",\"input_tokens\":" COUNT)},
     {"Model", OBJECT("\"id\",\"object\",\"created\",\"owned_by\"",
                      "\"id\":" TEXT
                      ",\"object\":" CONST("model") ",\"created\":" INT ",\"owned_by\":" CONST(
                          "quern") ",\"max_model_len\":" COUNT ",\"capabilities\":" LIST(TEXT))},
     {"ModelList",
      OBJECT("\"object\",\"data\"", "\"object\":" CONST("list") ",\"data\":" LIST(REF("Model")))},
     {"TokenizeReply", OBJECT("\"tokens\",\"count\",\"max_model_len\"",
                              "\"tokens\":{\"type\":\"array\"},\"count\":" COUNT
                              ",\"max_model_len\":" COUNT ",\"token_strs\":" LIST(TEXT))},
     {"DetokenizeReply", OBJECT("\"content\",\"prompt\"", "\"content\":" TEXT ",\"prompt\":" TEXT)},
     {"TemplateReply", OBJECT("\"prompt\"", "\"prompt\":" TEXT)},
     {"EmbeddingsReply",
      OBJECT("\"object\",\"data\",\"model\",\"usage\"",
             "\"object\":" CONST("list") ",\"model\":" TEXT ",\"data\":" LIST(OBJECT(
                 "\"object\",\"index\",\"embedding\"",
                 "\"object\":" CONST(
                     "embedding") ",\"index\":" COUNT
                                  ",\"embedding\":{\"type\":[\"array\",\"string\"],\"items\":" NUM
                                  "}")))},
     {"RerankReply",
      OBJECT("\"id\",\"object\",\"model\",\"results\",\"usage\"",
             "\"id\":" TEXT ",\"object\":" CONST("list") ",\"model\":" TEXT ",\"results\":" LIST(
                 OBJECT("\"index\",\"relevance_score\"",
                        "\"index\":" COUNT ",\"relevance_score\":" NUM)))},
     {"ScoreReply",
      OBJECT(
          "\"id\",\"object\",\"created\",\"model\",\"data\",\"usage\"",
          "\"id\":" TEXT
          ",\"object\":" CONST("list") ",\"created\":" COUNT ",\"model\":" TEXT ",\"data\":" LIST(
              OBJECT("\"index\",\"object\",\"score\"",
                     "\"index\":" COUNT ",\"object\":" CONST("score") ",\"score\":" NUM)))},
     {"Status",
      OBJECT("\"status\"",
             "\"status\":{\"enum\":[\"ok\",\"ready\",\"loading\",\"draining\",\"queue_full\","
             "\"failed\"]}")},
     {"Version",
      OBJECT("\"version\",\"commit\",\"backend\",\"build\"",
             "\"version\":" TEXT ",\"commit\":" TEXT ",\"backend\":" TEXT ",\"build\":" TEXT)},
     {"OtherReply", "{\"type\":[\"object\",\"array\"]}"},
     {NULL, NULL}};
