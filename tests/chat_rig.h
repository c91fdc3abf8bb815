/* chat_rig.h - chat requests as JSON texts to prompts, for the tests of engine/text/chat*.c.
 * Tests only. */
#ifndef QUERN_TESTS_CHAT_RIG_H
#define QUERN_TESTS_CHAT_RIG_H

#include "base/file.h"
#include "engine/text/chat.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA "tests/data/templates/"
#define QWEN25 "Qwen-Qwen2.5-7B-Instruct"
#define QWEN3 "Qwen-Qwen3-0.6B"
#define QWEN35 "Qwen3.5-4B"
#define QWEN38 "Qwen3.8-from-ollama-testdata"
#define QWEN2 "Qwen2-Instruct"
#define QWQ "Qwen-QwQ-32B"

static inline const char *name_of(const char *name)
{
    return name ? name : "ChatML";
}

/* Opens a template of tests/data by name, or a text of our own, or plain ChatML for NULL. */
static inline chat_format *format(const char *name)
{
    err e = {0};
    buf text = {0};
    char path[200];
    if (name && !strchr(name, '{')) {
        snprintf(path, sizeof path, DATA "%s.jinja", name);
        ck_assert_msg(!file_read(path, 1 << 20, &text, &e), "%s", e.msg);
    } else if (name) {
        buf_puts(&text, name);
    }
    chat_format *f = chat_format_open(name ? text.v : NULL, text.len, "", "<|im_end|>", NULL, &e);
    ck_assert_msg(f != NULL, "%s: %s", name_of(name), e.msg);
    buf_clear(&text);
    return f;
}

typedef struct {
    json_doc *doc;
    chat_prompt p;
    chat_fault fault;
    err e;
    int code;
} result;

/* request: a JSON object with the fields of a chat body. */
static inline result render_with(const chat_format *f, const char *request)
{
    result r = {0};
    const json *root;
    r.doc = json_parse(request, strlen(request), NULL, &root, &r.e);
    ck_assert_msg(r.doc != NULL, "%s: %s", request, r.e.msg);
    chat_input in = chat_input_of(root);
    r.code = chat_render(f, &in, &r.p, &r.fault, &r.e);
    return r;
}

static inline result render(const char *name, const char *request)
{
    chat_format *f = format(name);
    result r = render_with(f, request);
    chat_format_free(f);
    return r;
}

static inline void drop(result *r)
{
    chat_prompt_clear(&r->p);
    json_free(r->doc);
}

static inline void prompt_is(const char *name, const char *request, const char *want,
                             think_mode think)
{
    result r = render(name, request);
    ck_assert_msg(r.code == 0, "%s %s: %s (%s)", name_of(name), request, r.e.msg, r.fault.param);
    ck_assert_str_eq(buf_str(&r.p.prompt.text), want);
    ck_assert_msg(r.p.think == think, "%s: think %d, want %d", request, r.p.think, think);
    drop(&r);
}

static inline void same_prompt(const char *name, const char *a, const char *b)
{
    result x = render(name, a), y = render(name, b);
    ck_assert_msg(!x.code && !y.code, "%s: %s %s", name_of(name), x.e.msg, y.e.msg);
    ck_assert_str_eq(buf_str(&x.p.prompt.text), buf_str(&y.p.prompt.text));
    drop(&x);
    drop(&y);
}

static inline void refused(const char *name, const char *request, const char *param,
                           const char *code)
{
    result r = render(name, request);
    ck_assert_msg(r.code < 0, "%s: accepted", request);
    ck_assert_msg(!strcmp(r.fault.param, param), "%s: param '%s', want '%s' (%s)", request,
                  r.fault.param, param, r.e.msg);
    ck_assert_msg(r.fault.code && !strcmp(r.fault.code, code), "%s: code '%s', want '%s'", request,
                  r.fault.code, code);
    ck_assert_msg(r.e.msg[0] != 0, "%s: no message", request);
    drop(&r);
}

#define M(inner) "{\"messages\":[" inner "]}"
#define USER "{\"role\":\"user\",\"content\":\"hi\"}"
#define TOOL                                                                                     \
    "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{" \
    "\"type\":\"object\",\"properties\":{}}}}"
#define HI "<|im_start|>user\nhi<|im_end|>\n"
#define GO "<|im_start|>assistant\n"

#endif
