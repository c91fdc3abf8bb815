/* template_inspect.c - what a template supports, from the names it reads and from rendering a few
 * tiny conversations with it.
 * Owns nothing.  Thread: any. */
#include "engine/text/template_ast.h"

#include <string.h>

enum { TRIAL_STEPS = 1000000 }; /* a tiny conversation needs a few thousand */

static bool reads(const template *t, const char *name)
{
    for (int i = 0; i < t->n_names; i++)
        if (!strcmp(t->names[i], name)) return true;
    return false;
}

static bool mentions(const template *t, const char *word)
{
    return memmem(t->text, t->len, word, strlen(word)) != NULL;
}

/* Renders messages (JSON text of ours); true and the text in out if nothing was raised. */
static bool trial(const template *t, const char *messages, buf *out)
{
    static const json yes = {.type = JSON_TRUE}, empty = {.type = JSON_STRING, .str = ""},
                      none = {.type = JSON_NULL};
    const json *root;
    json_doc *d = json_parse(messages, strlen(messages), NULL, &root, NULL);
    template_output o = {0};
    err e = {0};
    if (!d) return false;
    template_var v[] = {{"messages", root, false},   {"add_generation_prompt", &yes, true},
                        {"tools", &none, true},      {"documents", &none, true},
                        {"bos_token", &empty, true}, {"eos_token", &empty, true}};
    template_input in = {.var = v, .n_var = sizeof v / sizeof *v, .max_steps = TRIAL_STEPS};
    bool ok = !template_render(t, &in, &o, &e);
    if (ok) buf_put(out, buf_str(&o.text), o.text.len);
    template_output_clear(&o);
    json_free(d);
    return ok && buf_ok(out);
}

/* A text part comes out as its text: not as the printed list, not as an exception. */
static bool takes_parts(const template *t)
{
    buf b = {0};
    bool ok = trial(t,
                    "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"probe-one\"},"
                    "{\"type\":\"text\",\"text\":\"probe-two\"}]}]",
                    &b) &&
              strstr(b.v, "probe-one") && strstr(b.v, "probe-two") && !strstr(b.v, "'type'") &&
              !strstr(b.v, "\"type\"");
    buf_clear(&b);
    return ok;
}

/* A later system text comes out behind the turn it follows, and the first one stays. */
static bool takes_late_system(const template *t)
{
    buf b = {0};
    bool ok = trial(t,
                    "[{\"role\":\"system\",\"content\":\"probe-first\"},{\"role\":\"user\","
                    "\"content\":\"probe-user\"},"
                    "{\"role\":\"assistant\",\"content\":\"probe-answer\"},"
                    "{\"role\":\"system\",\"content\":\"probe-late\"},{\"role\":\"user\","
                    "\"content\":\"probe-end\"}]",
                    &b);
    const char *first = ok ? strstr(b.v, "probe-first") : NULL,
               *answer = first ? strstr(first, "probe-answer") : NULL;
    const char *late = answer ? strstr(answer, "probe-late") : NULL;
    ok = late && strstr(late, "probe-end");
    buf_clear(&b);
    return ok;
}

template_traits template_inspect(const template *t)
{
    return (template_traits){
        .tools = reads(t, "tools"),
        .think = mentions(t, "</think>"),
        .think_switch = reads(t, "enable_thinking"),
        .effort = reads(t, "reasoning_effort"),
        .parts = takes_parts(t),
        .xml_calls = mentions(t, "<function="),
        .system_anywhere = takes_late_system(t),
    };
}
