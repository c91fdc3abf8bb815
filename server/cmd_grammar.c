/* cmd_grammar.c - `quern grammar-check`: which texts keep to a JSON Schema, a pattern, a GBNF
 * grammar or a list, judged by the automaton that constrains generation.  One JSON string a line
 * in, `accept` or `reject` a line out. Refuses (exit code 2) what cannot be enforced exactly, and
 * lines that are no strings. Thread: main. */
#include "server/cmd.h"
#include "server/cmd_model.h"

#include "base/file.h"
#include "base/json.h"
#include "engine/grammar/grammar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t SCHEMA_MAX = (size_t)16 << 20, BATCH_MAX = (size_t)1 << 30;

static int check_line(grammar *g, const char *line, size_t n, int number, err *e)
{
    const json *root;
    json_doc *d = json_parse(line, n, NULL, &root, e);
    int rc = 0;
    if (!d) return err_prefix(e, "line %d", number);
    if (root->type != JSON_STRING)
        rc = err_set(e, ERR_INVALID, "line %d: one JSON string is wanted, not %s", number,
                     json_type_name(root));
    else rc = grammar_accepts(g, root->str, root->len);
    json_free(d);
    if (rc == ERR_LIMIT) { /* generation would end with an error here: never an accept */
        fprintf(stderr, "quern: line %d: rejected, it nests or branches more than one text may\n",
                number);
        rc = 0;
    }
    if (rc == ERR_NOMEM) return err_set(e, rc, "line %d: out of memory", number);
    if (rc < 0) return rc;
    puts(rc ? "accept" : "reject");
    return 0;
}

static int check_lines(grammar *g, const char *path, err *e)
{
    buf in = {0};
    int rc = file_read(path, BATCH_MAX, &in, e), number = 0;
    const char *at = in.v, *end = in.v + in.len;
    while (!rc && at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((stop ? stop : end) - at);
        number++;
        if (n && !(n == 1 && *at == '\r')) rc = check_line(g, at, n, number, e);
        at += n + 1;
    }
    buf_clear(&in);
    return rc;
}

/* The texts of a JSON array, into spec; *doc holds them, *list is the caller's to free. */
static int read_choices(const char *path, grammar_spec *spec, json_doc **doc, const char ***list,
                        err *e)
{
    const json *root;
    *doc = json_read(path, SCHEMA_MAX, NULL, &root, e);
    if (!*doc) return e->code;
    if (root->type != JSON_ARRAY || !root->len)
        return err_set(e, ERR_INVALID, "%s: an array of texts is wanted", path);
    if (!(*list = calloc(root->len, sizeof **list)))
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    for (const json *j = root->child; j; j = j->next) {
        if (j->type != JSON_STRING)
            return err_set(e, ERR_INVALID, "%s: the texts are JSON strings, not %s", path,
                           json_type_name(j));
        (*list)[spec->n_choices++] = j->str;
    }
    spec->choices = *list;
    return 0;
}

int cmd_grammar_check(const options *o)
{
    err e = {0};
    buf text = {0};
    json_doc *doc = NULL;
    const char **list = NULL;
    grammar *g = NULL;
    grammar_error why = {0};
    grammar_spec spec = {.free_order = !strcmp(o->key_order, "free")};
    const char *file = o->schema ? o->schema : o->gbnf;
    int code = 0, kinds = !!o->schema + !!o->regex + !!o->gbnf + !!o->choice;
    if (kinds != 1 || !o->batch) {
        err_set(
            &e, ERR_INVALID,
            "usage: quern grammar-check --schema FILE | --regex PATTERN | --gbnf FILE | --choice "
            "FILE, and --batch FILE.jsonl [--key-order schema|free]");
        return cmd_fail(&e);
    }
    spec.kind = o->schema  ? GRAMMAR_SCHEMA
                : o->gbnf  ? GRAMMAR_GBNF
                : o->regex ? GRAMMAR_REGEX
                           : GRAMMAR_CHOICE;
    if (file ? file_read(file, SCHEMA_MAX, &text, &e)
             : o->choice && read_choices(o->choice, &spec, &doc, &list, &e)) {
        code = cmd_fail(&e);
        goto out;
    }
    spec.text = file ? buf_str(&text) : o->regex;
    spec.n = file ? text.len : o->regex ? strlen(o->regex) : 0;
    int rc = grammar_compile(&spec, &g, &why);
    if (rc) {
        fprintf(stderr, "quern: %s%s%s\n", why.code ? why.code : "", why.code ? ": " : "",
                why.e.msg);
        for (int i = 0; i < why.n_more; i++)
            fprintf(stderr, "quern: %s: %s\n", why.more[i].code, why.more[i].msg);
        code = rc == ERR_NOMEM ? 1 : 2;
        goto out;
    }
    if (check_lines(g, o->batch, &e)) code = cmd_fail(&e);
out:
    grammar_release(g);
    free(list);
    json_free(doc);
    buf_clear(&text);
    return code;
}
