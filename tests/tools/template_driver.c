/* template_driver.c - renders templates for template_compare.py: template files as arguments; one
 * JSON object {"t": index of the file or its text, "vars": {...}} a line on stdin, one
 * {"ok": text} or {"error": message} a line on stdout.
 * Thread: one. */
#include "base/file.h"
#include "base/json.h"
#include "engine/text/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEMPLATES = 256, MAX_VARS = 64 };

static void answer(const char *key, const char *s, size_t n)
{
    buf b = {0};
    buf_puts(&b, "{\"");
    buf_puts(&b, key);
    buf_puts(&b, "\": ");
    buf_put_json(&b, s, n);
    buf_puts(&b, "}\n");
    fwrite(b.v, 1, b.len, stdout);
    buf_clear(&b);
}

static void render(const template *t, const json *vars)
{
    template_var v[MAX_VARS];
    template_output out = {0};
    size_t n = 0;
    err e = {0};
    for (const json *k = vars ? vars->child : NULL; k && n < MAX_VARS; k = k->next)
        v[n++] = (template_var){.name = k->key, .value = k};
    template_input in = {.var = v, .n_var = n, .now = 0};
    if (template_render(t, &in, &out, &e)) answer("error", e.msg, strlen(e.msg));
    else answer("ok", buf_str(&out.text), out.text.len);
    template_output_clear(&out);
}

static void one_line(template *const *files, int n_files, const char *line, size_t n)
{
    err e = {0};
    const json *root;
    int64_t at = -1;
    json_doc *d = json_parse(line, n, NULL, &root, &e);
    const json *t = d ? json_get(root, "t") : NULL;
    if (!d) {
        answer("error", e.msg, strlen(e.msg));
    } else if (json_is(t, JSON_STRING)) {
        template *own = template_compile(t->str, t->len, &e);
        if (own) render(own, json_get(root, "vars"));
        else answer("error", e.msg, strlen(e.msg));
        template_free(own);
    } else if (json_int(t, &at) && at >= 0 && at < n_files) {
        render(files[at], json_get(root, "vars"));
    } else {
        answer("error", "no such template", 16);
    }
    json_free(d);
}

int main(int argc, char **argv)
{
    template *files[MAX_TEMPLATES];
    int n = 0;
    for (int i = 1; i < argc && n < MAX_TEMPLATES; i++) {
        buf text = {0};
        err e = {0};
        if (file_read(argv[i], 1 << 20, &text, &e) ||
            !(files[n] = template_compile(text.v, text.len, &e))) {
            fprintf(stderr, "%s: %s\n", argv[i], e.msg);
            return 2;
        }
        buf_clear(&text);
        n++;
    }
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    while ((len = getline(&line, &cap, stdin)) > 0) one_line(files, n, line, (size_t)len);
    free(line);
    for (int i = 0; i < n; i++) template_free(files[i]);
    return 0;
}
