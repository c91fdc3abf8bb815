/* fuzz_template.c - template text against a fixed conversation, and conversations against fixed
 * templates.  The first byte picks: even = the rest is a template, odd = the rest is a chat body.
 */
#include "engine/text/chat.h"

#include <stdlib.h>
#include <string.h>

static const char body_text[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":"
    "\"h\\u00e9 <|im_end|>\"},"
    "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"type\":\"function\",\"function\":{"
    "\"name\":\"f\","
    "\"arguments\":{\"a\":[1,2.5,null,true,\"x\"]}}}]},{\"role\":\"tool\",\"content\":\"7\"}],"
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":"
    "\"object\"}}}],"
    "\"n\":5,\"s\":\"a,b c\",\"l\":[3,1,2],\"d\":{\"k\":\"v\",\"w\":[1]}}";

/* Reads what published templates read: parts, thinking, tools, a macro, a namespace. */
static const char parts_template[] =
    "{%- macro show(c) %}{%- if c is string %}{{ c }}{%- else %}{%- for p in c %}{{ p.text }}{%- "
    "endfor %}{%- endif %}{%- endmacro %}"
    "{%- set ns = namespace(last=messages|length - 1) %}{%- if tools %}{%- for t in tools %}{{ t | "
    "tojson }}{%- endfor %}{%- endif %}"
    "{%- for m in messages[::-1] %}{%- if m.role == 'user' and ns.last < 0 %}{%- set ns.last = "
    "loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ show(m.content)|trim }}{%- if "
    "m.reasoning_content is string %}<think>"
    "{{ m.reasoning_content.strip('\\n') }}</think>{%- endif %}{%- for c in m.tool_calls or [] "
    "%}{%- for k, v in c.function.arguments|items %}"
    "{{ k }}={{ v | tojson if v is mapping else v | string }}{%- endfor %}{%- endfor "
    "%}<|im_end|>\n{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false "
    "%}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{%- endif %}";

static void check(const template_output *o)
{
    for (size_t i = 0; i < o->n_closed; i++)
        if (o->closed[i].start >= o->closed[i].end || o->closed[i].end > o->text.len ||
            (i && o->closed[i].start <= o->closed[i - 1].end))
            abort();
}

static void fuzz_text(const char *text, size_t n)
{
    err e = {0};
    const json *body;
    template *t = template_compile(text, n, &e);
    if (!t) {
        if (!e.code || !e.msg[0]) abort();
        return;
    }
    json_doc *d = json_parse(body_text, sizeof body_text - 1, NULL, &body, &e);
    template_var v[16];
    size_t k = 0;
    for (const json *j = body->child; j && k < 16; j = j->next)
        v[k++] = (template_var){j->key, j, false};
    template_input in = {.var = v, .n_var = k, .max_steps = 20000, .max_output = 1 << 18};
    template_output out = {0};
    if (!template_render(t, &in, &out, &e)) check(&out);
    template_output_clear(&out);
    json_free(d);
    template_free(t);
}

static void fuzz_body(const char *text, size_t n)
{
    static const char *const forms[] = {"auto", "auto", "react", "function"};
    enum { N = sizeof forms / sizeof *forms };
    static chat_format *formats[N];
    err e = {0};
    const json *b;
    if (!formats[0]) {
        for (int i = 0; i < N; i++) {
            const char *t = i % 2 ? parts_template : NULL;
            formats[i] =
                chat_format_open(t, t ? sizeof parts_template - 1 : 0, "", "<|im_end|>", NULL, &e);
            if (!formats[i] || !chat_format_use_calls(formats[i], forms[i])) abort();
        }
    }
    json_doc *d = json_parse(text, n, NULL, &b, &e);
    if (!d) return;
    chat_input in = chat_input_of(b);
    for (int i = 0; i < N; i++) {
        chat_prompt p = {0};
        chat_fault fault = {0};
        err why = {0};
        if (!chat_render(formats[i], &in, &p, &fault, &why)) check(&p.prompt);
        else if (!fault.code || !why.msg[0]) abort();
        chat_prompt_clear(&p);
    }
    json_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!n) return 0;
    if (data[0] % 2) fuzz_body((const char *)data + 1, n - 1);
    else fuzz_text((const char *)data + 1, n - 1);
    return 0;
}
