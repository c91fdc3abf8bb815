/* cmd_render.c - `quern render MODEL < chat-request.json`: the prompt a chat request becomes, byte
 * for byte, on stdout.  Needs no weights.
 * Refuses: input over 32 MiB, what POST /apply-template would refuse.  Thread: main. */
#include "server/cmd.h"
#include "server/cmd_model.h"

#include "base/file.h"
#include "config/checkpoint.h"
#include "engine/text/chat.h"
#include "engine/text/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUT_MAX = 32 << 20, TEMPLATE_MAX = 4 << 20 };

typedef struct {
    model_setup m;
    checkpoint *c;
    tokenizer *t;
    chat_format *f;
} render_tool;

static void tool_clear(render_tool *x)
{
    chat_format_free(x->f);
    tokenizer_free(x->t);
    checkpoint_close(x->c);
    model_setup_clear(&x->m);
}

/* The template that serving would use: the operator's, the directory's file, the tokenizer's. */
static int open_format(render_tool *x, const checkpoint_text *files, err *e)
{
    buf file = {0};
    size_t n = x->m.o.chat_template_len;
    const char *text = x->m.o.chat_template_text;
    if (!text && files->chat_template) {
        int r = file_read(files->chat_template, TEMPLATE_MAX, &file, e);
        if (r) {
            buf_clear(&file);
            return r;
        }
        text = buf_str(&file);
        n = file.len;
    } else if (!text) {
        text = tokenizer_chat_template(x->t, &n);
    }
    x->f = chat_format_open(text, n, tokenizer_bos_text(x->t), tokenizer_eos_text(x->t),
                            x->m.o.template_kwargs, e);
    buf_clear(&file);
    if (x->f) chat_format_use_calls(x->f, x->m.o.tool_format);
    return x->f ? 0 : e->code;
}

static int tool_open(render_tool *x, const options *o, err *e)
{
    *x = (render_tool){0};
    int r = model_setup_init(&x->m, o, e);
    if (r) return r;
    if (!(x->c = checkpoint_open(x->m.path, &(checkpoint_options){.weights = false}, e)))
        return e->code;
    checkpoint_text f = checkpoint_text_files(x->c);
    x->t = tokenizer_open(&(tokenizer_source){.tokenizer_json = f.tokenizer_json,
                                              .vocab_json = f.tokenizer_json ? NULL : f.vocab_json,
                                              .merges = f.tokenizer_json ? NULL : f.merges,
                                              .tokenizer_config = f.tokenizer_config,
                                              .gguf = checkpoint_gguf(x->c)},
                          e);
    return x->t ? open_format(x, &f, e) : e->code;
}

/* What chat_input_of takes as not set. */
static int check_body(const json *body, err *e)
{
    static const char *const flags[] = {"add_generation_prompt", "continue_final_message",
                                        "enable_thinking"};
    if (body->type != JSON_OBJECT)
        return err_set(e, ERR_INVALID, "the request must be a JSON object with 'messages', got %s",
                       json_type_name(body));
    const json *j = json_get(body, "reasoning_effort");
    if (j && j->type != JSON_STRING && j->type != JSON_NULL)
        return err_set(e, ERR_INVALID, "'reasoning_effort' must be a string, got %s",
                       json_type_name(j));
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        j = json_get(body, flags[i]);
        if (j && j->type != JSON_NULL && !json_is_bool(j))
            return err_set(e, ERR_INVALID, "'%s' must be a boolean, got %s", flags[i],
                           json_type_name(j));
    }
    return 0;
}

static int render(const chat_format *f, const char *text, size_t n, err *e)
{
    const json *body;
    chat_prompt p = {0};
    chat_fault fault = {0};
    json_doc *d = json_parse(text, n, NULL, &body, e);
    int r =
        d ? check_body(body, e) : err_prefix(e, "the request on standard input is not valid JSON");
    if (!r) {
        chat_input in = chat_input_of(body);
        r = chat_render(f, &in, &p, &fault, e);
    }
    if (!r && p.ignored.len) fprintf(stderr, "quern: ignored: %s\n", buf_str(&p.ignored));
    const buf *out = &p.prompt.text;
    if (!r && (fwrite(buf_str(out), 1, out->len, stdout) != out->len || fflush(stdout)))
        r = err_set(e, ERR_IO, "cannot write to standard output: %s", strerror(errno));
    chat_prompt_clear(&p);
    json_free(d);
    return r;
}

int cmd_render(const options *o)
{
    char block[65536];
    err e = {0};
    render_tool x;
    buf in = {.max = INPUT_MAX};
    int r = tool_open(&x, o, &e);
    for (size_t n; r == 0 && (n = fread(block, 1, sizeof block, stdin)) > 0;)
        buf_put(&in, block, n);
    if (r == 0 && ferror(stdin))
        r = err_set(&e, ERR_IO, "cannot read standard input: %s", strerror(errno));
    if (r == 0 && !buf_ok(&in))
        r = err_set(&e, ERR_LIMIT, "the request has more than %d bytes", INPUT_MAX);
    if (r == 0) r = render(x.f, buf_str(&in), in.len, &e);
    buf_clear(&in);
    tool_clear(&x);
    return r ? cmd_fail(&e) : 0;
}
