/* test_tokenizer_files.c - tokenizer files that would give other ids than Hugging Face's are
 * refused, saying why: edits of good files, one fault each. */
#include "base/file.h"
#include "config/gguf.h"
#include "engine/text/tokenizer.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA "tests/data/tokenizer/"

static char dir[64];

static void make_dir(void)
{
    snprintf(dir, sizeof dir, "/tmp/quern-tokenizer-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void drop_dir(void)
{
    static const char *const names[] = {"t.json", "c.json", "m.txt"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

static const char *put(const char *name, const char *text, size_t n)
{
    static char path[3][128];
    static int turn;
    char *p = path[turn++ % 3];
    err e = {0};
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    ck_assert_msg(file_write_atomic(p, text, n, &e) == 0, "%s", e.msg);
    return p;
}

/* Copy of a file with the first `from` replaced by `to`. */
static const char *edited(const char *file, const char *name, const char *from, const char *to)
{
    buf text = {0}, out = {0};
    err e = {0};
    ck_assert_int_eq(file_read(file, 1 << 20, &text, &e), 0);
    char *at = strstr(text.v, from);
    ck_assert_msg(at != NULL, "%s is not in %s", from, file);
    buf_put(&out, text.v, (size_t)(at - text.v));
    buf_puts(&out, to);
    buf_puts(&out, at + strlen(from));
    const char *path = put(name, out.v, out.len);
    buf_clear(&text);
    buf_clear(&out);
    return path;
}

static void refused(tokenizer_source s, const char *words)
{
    err e = {0};
    tokenizer *t = tokenizer_open(&s, &e);
    ck_assert_msg(t == NULL, "taken, but: %s", words);
    ck_assert_msg(strstr(e.msg, words) != NULL, "\"%s\" does not say \"%s\"", e.msg, words);
}

typedef struct {
    const char *from, *to, *words;
} edit;

/* Edits of qwen.json and what the refusal must say. */
static const edit json_edit[] = {
    {"\"type\": \"BPE\"", "\"type\": \"Unigram\"", "Unigram"},
    {"\"type\": \"NFC\"", "\"type\": \"NFKC\"", "NFKC"},
    {"\"dropout\": null", "\"dropout\": 0.1", "dropout"},
    {"\"byte_fallback\": false", "\"byte_fallback\": true", "byte_fallback"},
    {"\"behavior\": \"Isolated\"", "\"behavior\": \"Removed\"", "Isolated"},
    {"\"type\": \"Split\"", "\"type\": \"Metaspace\"", "Metaspace"},
    {"\"add_prefix_space\": false", "\"add_prefix_space\": true", "add_prefix_space"},
    {"\\\\p{L}+", "\\\\p{Han}+", "\\p{Han}"},
    {"\\\\p{L}+", "(", "does not compile"},
    {"\\\\p{L}+", "\\\\w+", "\\w"},
    {"\"\u0120the\"", "\"\u0120the\", \"x\"", "at byte"},
    {"\"id\": 1458", "\"id\": 1457", "1457"},
    {"\"id\": 1458", "\"id\": 5", "gives to another token"},
    {"\"id\": 1458", "\"id\": 99999999", "99999999"},
    {"\"id\": 1458", "\"id\": \"x\"", "small integer"},
    {"\"content\": \"<|im_end|>\"", "\"content\": \"\"", "0 bytes"},
    {"\"merges\": [\"", "\"merges\": [\"a b c\", \"", "two parts"},
    {"\"merges\": [\"", "\"merges\": [\"ab\", \"", "two parts"},
    {"\"merges\": [\"", "\"merges\": [\"zzzz z\", \"", "left part"},
    {"\"merges\": [\"", "\"merges\": [\"z zzzz\", \"", "right part"},
    {"\"merges\": [\"", "\"merges\": [\"z \\u0120\", \"", "result"},
    {"\"merges\": [\"", "\"merges\": [7, \"", "merge 0"},
    {"\"vocab\": {\"!\": 0", "\"vocab\": {\"!!!!!!\": 0", "0x21"},
    {"\"vocab\": {\"!\": 0", "\"vocab\": {\"!\": 1", "two tokens have id 1"},
    {"\"vocab\": {\"!\": 0", "\"vocab\": {\"!\": -1", "id -1"},
    {"\"vocab\": {\"!\": 0", "\"vocab\": {\"!\": 2097152", "2097152"},
    {"\"vocab\": {\"!\": 0", "\"vocab\": {\"!\": 0.5", "integer id"},
};
#define N_EDITS ((int)(sizeof json_edit / sizeof *json_edit))

START_TEST(bad_tokenizer_json)
{
    const edit *x = &json_edit[_i];
    refused(
        (tokenizer_source){.tokenizer_json = edited(DATA "qwen.json", "t.json", x->from, x->to)},
        x->words);
}
END_TEST

START_TEST(bad_other_files)
{
    refused((tokenizer_source){0}, "no vocabulary");
    refused((tokenizer_source){.vocab_json = DATA "qwen/vocab.json"}, "no vocabulary");
    refused((tokenizer_source){.tokenizer_json = "/nonexistent/t.json"}, "/nonexistent/t.json");
    refused((tokenizer_source){.tokenizer_json = put("t.json", "[]", 2)}, "object");
    refused((tokenizer_source){.tokenizer_json = put("t.json", "{}", 2)}, "model");
    refused((tokenizer_source){.tokenizer_json = put("t.json", "{\"model\":", 9)}, "at byte");
    refused((tokenizer_source){.vocab_json = DATA "qwen/vocab.json",
                               .merges = put("m.txt", "a b c\n", 6)},
            "merge 0");
    refused(
        (tokenizer_source){.vocab_json = DATA "qwen/vocab.json",
                           .merges = DATA "qwen/merges.txt",
                           .tokenizer_config = edited(DATA "qwen/tokenizer_config.json", "c.json",
                                                      "Qwen2Tokenizer", "LlamaTokenizer")},
        "LlamaTokenizer");
    refused((tokenizer_source){.tokenizer_json = DATA "qwen.json",
                               .tokenizer_config = edited(DATA "qwen/tokenizer_config.json",
                                                          "c.json", "\"1458\"", "\"x1458\"")},
            "small integer");
    refused((tokenizer_source){.tokenizer_json = DATA "qwen.json",
                               .tokenizer_config = edited(DATA "qwen/tokenizer_config.json",
                                                          "c.json", "\"1458\"", "\"1400\"")},
            "1400");
}
END_TEST

/* GGUF metadata edits of equal length keep the container valid. */
START_TEST(bad_gguf)
{
    static const edit e[] = {
        {"gpt2", "t5t5", "t5t5"},
        {"qwen35", "qwen99", "general"}, /* the first is general.architecture: no refusal */
        {"ggml.token_type", "ggml.token_tipe", "token_type"},
        {"ggml.merges", "ggml.merger", "merges"},
        {"ggml.tokens", "ggml.tokenz", "tokens"}};
    buf file = {0};
    err x = {0};
    ck_assert_int_eq(file_read(DATA "qwen35.gguf", 1 << 20, &file, &x), 0);
    for (size_t i = 0; i < sizeof e / sizeof *e; i++) {
        char *at = memmem(file.v, file.len, e[i].from, strlen(e[i].from));
        ck_assert_ptr_nonnull(at);
        memcpy(at, e[i].to, strlen(e[i].to));
        gguf *g = gguf_open_memory(file.v, file.len, &x);
        ck_assert_msg(g != NULL, "%s", x.msg);
        if (i == 1) {
            tokenizer *t = tokenizer_open(&(tokenizer_source){.gguf = g}, &x);
            ck_assert_msg(t != NULL, "%s", x.msg);
            tokenizer_free(t);
            char *pre = memmem(at + 6, file.len - (size_t)(at + 6 - file.v), "qwen35", 6);
            memcpy(pre, "llama3", 6);
            refused((tokenizer_source){.gguf = g}, "llama3");
            memcpy(pre, "qwen35", 6);
        } else {
            refused((tokenizer_source){.gguf = g}, e[i].words);
        }
        gguf_close(g);
        memcpy(at, e[i].from, strlen(e[i].from));
    }
    buf_clear(&file);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer files");
    TCase *t = tcase_create("tokenizer files");
    tcase_set_timeout(t, 120);
    tcase_add_unchecked_fixture(t, make_dir, drop_dir);
    tcase_add_loop_test(t, bad_tokenizer_json, 0, N_EDITS);
    tcase_add_test(t, bad_other_files);
    tcase_add_test(t, bad_gguf);
    suite_add_tcase(suite, t);
    SRunner *run = srunner_create(suite);
    srunner_run_all(run, CK_NORMAL);
    int failed = srunner_ntests_failed(run);
    srunner_free(run);
    return failed ? 1 : 0;
}
