/* cmd_text.c - `quern tokenize` and `quern detokenize`: text on stdin to ids and back, as the raw
 * routes do it (control tokens written in the text count).  Needs no weights: a vocabulary-only
 * GGUF or a directory of tokenizer files is enough. Refuses: input over 1 GiB, ids without a token,
 * lines that are not the JSON asked for. Thread: main. */
#include "server/cmd.h"
#include "server/cmd_model.h"

#include "config/checkpoint.h"
#include "engine/text/tokenizer.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t INPUT_MAX = (size_t)1 << 30;

typedef struct {
    model_setup m;
    checkpoint *c;
    tokenizer *t;
} text_tool;

static void text_tool_clear(text_tool *x)
{
    tokenizer_free(x->t);
    checkpoint_close(x->c);
    model_setup_clear(&x->m);
}

static int text_tool_open(text_tool *x, const options *o, err *e)
{
    *x = (text_tool){0};
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
    return x->t ? 0 : e->code;
}

/* ---- one unit of work: text to ids, ids to text ---- */

static int put_ids(const tokenizer *t, const char *s, size_t n, buf *out, err *e)
{
    token_list l = {0};
    int r = tokenizer_encode(t, s, n, true, NULL, 0, &l, e);
    buf_putc(out, '[');
    for (size_t i = 0; i < l.n && r == 0; i++) {
        if (i) buf_putc(out, ',');
        buf_put_int(out, l.v[i]);
    }
    buf_puts(out, "]\n");
    token_list_clear(&l);
    return r;
}

static int tokenize_line(const tokenizer *t, const json *j, buf *out, err *e)
{
    if (j->type != JSON_STRING)
        return err_set(e, ERR_INVALID, "a JSON string is expected, found %s", json_type_name(j));
    return put_ids(t, j->str, j->len, out, e);
}

static int push_id(token_list *l, int64_t id, err *e)
{
    if (id < 0 || id > INT32_MAX)
        return err_set(e, ERR_INVALID, "token id %lld is not in the vocabulary", (long long)id);
    return token_list_push(l, (int32_t)id)
               ? 0
               : err_set(e, ERR_NOMEM, "out of memory for the token ids");
}

static int detokenize_line(const tokenizer *t, const json *j, buf *out, err *e)
{
    token_list l = {0};
    buf text = {0};
    int r = 0;
    if (j->type != JSON_ARRAY)
        r = err_set(e, ERR_INVALID, "a JSON array of token ids is expected, found %s",
                    json_type_name(j));
    for (const json *i = r ? NULL : j->child; i && r == 0; i = i->next) {
        int64_t id;
        r = json_int(i, &id)
                ? push_id(&l, id, e)
                : err_set(e, ERR_INVALID, "a token id is expected, found %s", json_type_name(i));
    }
    if (r == 0) r = tokenizer_decode(t, l.v, l.n, false, &text, e);
    if (r == 0) buf_put_json(out, buf_str(&text), text.len);
    buf_putc(out, '\n');
    buf_clear(&text);
    token_list_clear(&l);
    return r;
}

/* Ids as people paste them: "[9707, 1879]" or "9707 1879". */
static int detokenize_all(const tokenizer *t, const char *s, size_t n, buf *out, err *e)
{
    token_list l = {0};
    int r = 0;
    for (const char *end = s + n; s < end && r == 0;) {
        char *after;
        if (isspace((unsigned char)*s) || strchr(",[]", *s)) {
            s++;
            continue;
        }
        errno = 0;
        long long id = strtoll(s, &after, 10);
        if (after == s || errno ||
            (*after && !isspace((unsigned char)*after) && !strchr(",]", *after)))
            r = err_set(e, ERR_INVALID,
                        "token ids separated by white space or commas are expected, found '%.*s'",
                        (int)strcspn(s, " \t\r\n"), s);
        else r = push_id(&l, id, e);
        s = after;
    }
    if (r == 0) r = tokenizer_decode(t, l.v, l.n, false, out, e);
    token_list_clear(&l);
    return r;
}

/* ---- stdin to stdout ---- */

typedef int (*line_fn)(const tokenizer *t, const json *j, buf *out, err *e);
typedef int (*all_fn)(const tokenizer *t, const char *s, size_t n, buf *out, err *e);

static int flush(const buf *out, err *e)
{
    if (!buf_ok(out)) return err_set(e, ERR_NOMEM, "out of memory for the output");
    if (fwrite(buf_str(out), 1, out->len, stdout) != out->len || fflush(stdout))
        return err_set(e, ERR_IO, "cannot write to standard output: %s", strerror(errno));
    return 0;
}

/* Answers each line before the next is read, so that a program can hold a conversation. */
static int each_line(const tokenizer *t, line_fn fn, err *e)
{
    char *line = NULL;
    size_t cap = 0;
    buf out = {0};
    int r = 0;
    ssize_t n;
    for (long number = 1; r == 0 && (n = getline(&line, &cap, stdin)) > 0; number++) {
        const json *root;
        if ((size_t)n > INPUT_MAX) {
            r = err_set(e, ERR_LIMIT, "line %ld has %zd bytes; at most %zu are accepted", number, n,
                        INPUT_MAX);
            break;
        }
        if (n == 1) continue;
        json_doc *d = json_parse(line, (size_t)n, NULL, &root, e);
        r = d ? fn(t, root, &out, e) : e->code;
        json_free(d);
        if (r == 0) r = flush(&out, e);
        else err_prefix(e, "line %ld", number);
        buf_reset(&out);
    }
    if (r == 0 && ferror(stdin))
        r = err_set(e, ERR_IO, "cannot read standard input: %s", strerror(errno));
    free(line);
    buf_clear(&out);
    return r;
}

static int whole_input(const tokenizer *t, all_fn fn, err *e)
{
    char block[65536];
    buf in = {.max = INPUT_MAX}, out = {0};
    size_t n;
    int r = 0;
    while ((n = fread(block, 1, sizeof block, stdin)) > 0) buf_put(&in, block, n);
    if (ferror(stdin)) r = err_set(e, ERR_IO, "cannot read standard input: %s", strerror(errno));
    else if (!buf_ok(&in))
        r = err_set(e, ERR_LIMIT, "the input has more than %zu bytes", INPUT_MAX);
    if (r == 0) r = fn(t, buf_str(&in), in.len, &out, e);
    if (r == 0) r = flush(&out, e);
    buf_clear(&in);
    buf_clear(&out);
    return r;
}

static int run(const options *o, line_fn line, all_fn all)
{
    err e = {0};
    text_tool x;
    int r = text_tool_open(&x, o, &e);
    if (r == 0) r = o->jsonl ? each_line(x.t, line, &e) : whole_input(x.t, all, &e);
    text_tool_clear(&x);
    return r ? cmd_fail(&e) : 0;
}

int cmd_tokenize(const options *o)
{
    return run(o, tokenize_line, put_ids);
}

int cmd_detokenize(const options *o)
{
    return run(o, detokenize_line, detokenize_all);
}
