/* fuzz_request.c - any bytes as the body of a request in every dialect, through the whole handler:
 * JSON, the dialect's translator, the checks of all fields, the chat template, ids, the compiling
 * that a handler puts off, the engine's inbox.  The first byte picks the dialect, and whether the
 * client leaves before its grammar is compiled.  A body ends in exactly one JSON reply, or it waits
 * for the engine: with a grammar for some tokens, else not at all; then its client hangs up.  The
 * model is models/demo; a reply is kept for bodies that continue one. */
#include "base/clock.h"
#include "server/api.h"
#include "server/cmd_model.h"
#include "tests/fake_http.h"

#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct {
    const char *path;
    route_fn *fn;
} rows[] = {{"/v1/chat/completions", api_chat},
            {"/v1/messages", api_messages},
            {"/v1/responses", api_responses},
            {"/api/v1/chat", api_lmstudio_chat},
            {"/api/chat", api_ollama_chat},
            {"/api/generate", api_ollama_generate},
            {"/v1/completions", api_completions},
            {"/completion", api_llama_completion},
            {"/infill", api_llama_infill},
            {"/tokenize", api_tokenize},
            {"/v1/messages/count_tokens", api_messages_count},
            {"/v1/responses/input_tokens", api_responses_count},
            {"/v1/embeddings", api_embeddings},
            {"/v1/rerank", api_rerank},
            {"/v1/score", api_score}};
enum { N_ROWS = sizeof rows / sizeof *rows };

static app the_app;
static options opt;
static char name[] = "m", *names[] = {name};

/* resp_kept, with an item of every type. */
static void keep_a_reply(void)
{
    static const char *const items[][2] = {
        {"msg_1", "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":"
                  "\"input_text\",\"text\":\"a\"}]}"},
        {"rs_1", "{\"id\":\"rs_1\",\"type\":\"reasoning\",\"summary\":[],\"content\":[{\"type\":"
                 "\"reasoning_text\",\"text\":\"t\"}]}"},
        {"fc_1", "{\"id\":\"fc_1\",\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\","
                 "\"arguments\":\"{}\"}"},
        {"fco_1", "{\"id\":\"fco_1\",\"type\":\"function_call_output\",\"call_id\":\"c\","
                  "\"output\":\"r\"}"}};
    conversation *k = conversation_new();
    buf object = {0};
    if (!k) abort();
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        buf_puts(conversation_begin(k), items[i][1]);
        conversation_end(k, items[i][0]);
    }
    buf_puts(&object, "{}");
    response_store_put(the_app.responses, 0, "resp_kept", &object, k);
    buf_clear(&object);
    conversation_free(k);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char *args[] = {"quern", "serve",          "models/demo", "--kv-cache-memory",
                    "16M",   "--max-num-seqs", "4",           "--threads",
                    "1",     "--log-level",    "error",       "--embeddings"};
    static model_setup m;
    err e = {0};
    (void)argc, (void)argv;
    if (options_parse(&opt, CMD_SERVE, sizeof args / sizeof *args, args, &e) ||
        model_setup_init(&m, &opt, &e) || !(the_app.eng = engine_open(&m.o, &e)) ||
        engine_load(the_app.eng, &e)) {
        fprintf(stderr, "fuzz_request: %s\n", e.msg);
        abort();
    }
    the_app.opt = &opt;
    the_app.names = (str_list){names, 1};
    the_app.responses = response_store_new(16, 1 << 20, 1e6);
    the_app.grammars = grammar_cache_new();
    if (!the_app.responses || !the_app.grammars) abort();
    keep_a_reply();
    return 0;
}

/* A reply is a JSON object, and no fault of ours. */
static void check_reply(const http_call *c)
{
    const json *root;
    json_doc *d = json_parse(buf_str(&c->reply), c->reply.len, NULL, &root, NULL);
    if (!d || root->type != JSON_OBJECT) abort();
    json_free(d);
    bool limit = c->status == 500 && strstr(buf_str(&c->reply), "the grammar came to a place");
    if (c->status >= 500 && c->status != 501 && c->status != 503 && !limit) abort();
}

/* Takes what the engine says for a while. */
static void listen_a_while(http_call *c)
{
    buf out = {0};
    int64_t end = clock_us() + 20000;
    for (int rc = HTTP_MORE; rc == HTTP_MORE && !c->n_replies && clock_us() < end; usleep(200))
        if (c->status) rc = c->waiter->fill(c->waiting, c, &out, false);
        else c->waiter->step(c->waiting, c, false);
    buf_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!n) return 0;
    const int row = (data[0] + N_ROWS - '0' % N_ROWS) % N_ROWS;
    http_call c = {.a = &the_app,
                   .path = rows[row].path,
                   .body = (const char *)data + 1,
                   .n_body = n - 1,
                   .left = data[0] >= 0x80};
    rows[row].fn(&c);
    bool deferred = c.deferred;
    fake_call_deferred(&c);
    bool waits = c.waiter, nobody = deferred && c.left;
    if (c.n_replies + waits != !nobody) abort();
    if (deferred && waits) listen_a_while(&c);
    if (c.n_replies) check_reply(&c);
    fake_call_clear(&c);
    return 0;
}
