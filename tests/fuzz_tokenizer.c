/* fuzz_tokenizer.c - any bytes as tokenizer.json: refused, or every text can be encoded and
 * decoded. */
#include "engine/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const texts[] = {
    "Hello world's  12 \r\n\n <|im_end|>\n<think>x</think>",
    "e\xCC\x81\xCC\xA3 \xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8 \xE4\xB8\xAD \xF0\x9F\x91\xA9",
    "\xFF\xC3 a\xE4\xBD <|im_end|\xED\xA0\x80>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
};

/* A hostile expression may run into its step limit; nothing else may fail. */
static void encode(const tokenizer *t, const char *text, size_t n)
{
    text_span closed[] = {{n / 4, n / 2}, {n / 2, n}};
    token_list l = {0};
    buf out = {0};
    int r = tokenizer_encode(t, text, n, n & 1, closed, n % 3, &l, NULL);
    if (r && r != ERR_LIMIT) abort();
    for (size_t i = 0; i < l.n; i++)
        if (l.v[i] < 0 || l.v[i] >= tokenizer_n_vocab(t)) abort();
    if (tokenizer_decode(t, l.v, l.n, false, &out, NULL)) abort();
    buf_clear(&out);
    token_list_clear(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char path[64];
    err e = {0};
    int fd = memfd_create("tokenizer.json", 0);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    tokenizer *t = tokenizer_open(&(tokenizer_source){.tokenizer_json = path}, &e);
    if (!t && (!e.code || !e.msg[0])) abort();
    for (size_t i = 0; t && i < sizeof texts / sizeof *texts; i++)
        encode(t, texts[i], strlen(texts[i]));
    if (t) encode(t, (const char *)data, n > 256 ? 256 : n);
    /* What is no tokenizer may be a tokenizer_config.json. */
    if (!t)
        t = tokenizer_open(&(tokenizer_source){.tokenizer_json = "tests/fuzz/tokenizer/qwen.json",
                                               .tokenizer_config = path},
                           &e);
    if (t) encode(t, texts[0], strlen(texts[0]));
    tokenizer_free(t);
    close(fd);
    return 0;
}
