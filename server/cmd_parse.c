/* cmd_parse.c - `quern parse-output`: raw generated text on stdin through the parsers of thoughts
 * and tool calls (API T11), as one JSON object {reasoning, content, tool_calls, finish_reason}.
 * Refuses: input over 64 MiB, a tools file that is no array of tools.  Thread: main. */
#include "server/cmd.h"
#include "server/cmd_model.h"

#include "engine/text/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t INPUT_MAX = (size_t)64 << 20, TOOLS_MAX = (size_t)8 << 20;

static int read_input(buf *in, err *e)
{
    char part[65536];
    size_t n;
    while ((n = fread(part, 1, sizeof part, stdin)) > 0) {
        if (in->len + n > INPUT_MAX)
            return err_set(e, ERR_LIMIT, "the text on stdin is over %zu MiB", INPUT_MAX >> 20);
        buf_put(in, part, n);
    }
    return buf_ok(in) ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

static int read_tools(const char *path, call_tools **out, err *e)
{
    const json *root;
    if (!path) return 0;
    json_doc *d = json_read(path, TOOLS_MAX, NULL, &root, e);
    if (!d) return e->code;
    int rc = 0;
    if (root->type != JSON_ARRAY)
        rc = err_set(e, ERR_INVALID, "%s: tools are an array, not %s", path, json_type_name(root));
    else if (!(*out = call_tools_new(root))) rc = err_set(e, ERR_NOMEM, "out of memory");
    json_free(d);
    return rc;
}

static void put_text(const said *s, said_kind k, const char *name, buf *out)
{
    buf text = {0};
    said_copy(s, k, &text);
    buf_printf(out, "\"%s\": ", name);
    buf_put_json(out, buf_str(&text), text.len);
    buf_puts(out, ", ");
    buf_clear(&text);
}

static void put_result(const said *s, buf *out)
{
    int n = 0, whole = 0;
    buf_putc(out, '{');
    put_text(s, SAID_THOUGHT, "reasoning", out);
    put_text(s, SAID_ANSWER, "content", out);
    buf_puts(out, "\"tool_calls\": [");
    for (int i = 0; i < s->n; i++) {
        const said_piece *p = &s->piece[i];
        whole += p->kind == SAID_CALL_END;
        if (p->kind != SAID_CALL) continue;
        buf args = {0};
        said_args(s, i, &args);
        buf_puts(out, n++ ? ", {\"name\": " : "{\"name\": ");
        buf_put_json(out, said_text(s, i), p->n);
        buf_puts(out, ", \"arguments\": ");
        buf_put_json(out, buf_str(&args), args.len);
        buf_putc(out, '}');
        buf_clear(&args);
    }
    buf_printf(out, "], \"finish_reason\": \"%s\"}\n", whole ? "tool_calls" : "stop");
}

static int parse(const options *o, const output_options *how, const buf *in, err *e)
{
    said all = {0};
    buf out = {0};
    output *m = output_new(how);
    if (!m) return err_set(e, ERR_NOMEM, "out of memory");
    size_t step = o->split > 0 ? (size_t)o->split : in->len + 1;
    for (size_t i = 0; i < in->len && !output_wants_end(m); i += step)
        output_feed_bytes(m, in->v + i, in->len - i < step ? in->len - i : step, &all);
    output_end(m, &all);
    if (said_ok(&all)) put_result(&all, &out);
    bool ok = said_ok(&all) && buf_ok(&out);
    if (ok) fwrite(out.v, 1, out.len, stdout);
    output_free(m);
    said_clear(&all);
    buf_clear(&out);
    return ok ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

int cmd_parse_output(const options *o)
{
    err e = {0};
    buf in = {0};
    call_tools *tools = NULL;
    output_options how = {.think = !strcmp(o->thinking, "off")           ? THINK_NONE
                                   : !strcmp(o->thinking, "model_opens") ? THINK_MODEL_OPENS
                                                                         : THINK_PROMPT_OPEN};
    call_format_by_name(o->format, &how.calls);
    int rc = read_tools(o->tools, &tools, &e);
    how.tools = tools;
    how.after_label = o->after_label;
    if (!tools) how.calls = CALLS_NONE; /* T7: without tools nothing is parsed */
    if (!rc) rc = read_input(&in, &e);
    if (!rc) rc = parse(o, &how, &in, &e);
    call_tools_put(tools);
    buf_clear(&in);
    return rc ? cmd_fail(&e) : 0;
}
