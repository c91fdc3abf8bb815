/* raw_request.c - see raw_request.h.  Owns nothing. */
#include "server/raw_request.h"

#include "server/reply.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool raw_push(reader *r, token_list *out, int32_t id)
{
    bool ok = token_list_push(out, id);
    if (!ok) reader_oom(r);
    return ok;
}

bool raw_join(reader *r, token_list *out, const int32_t *id, size_t n)
{
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) ok = raw_push(r, out, id[i]);
    return ok;
}

bool raw_text(reader *r, const char *param, const char *s, size_t n, size_t plain, token_list *out)
{
    err e = {0};
    text_span closed = {0, plain};
    int rc = tokenizer_encode(engine_info(r->a->eng)->tok, s, n, true, &closed, plain > 0, out, &e);
    if (rc == ERR_NOMEM) reader_oom(r);
    else if (rc) reader_fail(r, "invalid_value", param, "%s", e.msg);
    return !rc;
}

bool raw_ids(reader *r, const char *param, const json *list, bool texts, token_list *out)
{
    int n_vocab = engine_info(r->a->eng)->n_vocab;
    size_t i = 0;
    for (const json *j = list->child; j && !r->failed; j = j->next, i++) {
        int64_t id;
        char at[64];
        snprintf(at, sizeof at, "%s[%zu]", param, i);
        if (texts && j->type == JSON_STRING) raw_text(r, at, j->str, j->len, 0, out);
        else if (!json_int(j, &id))
            reader_fail(r, "invalid_type", at, "'%s' must be a token id, got %s", at,
                        json_type_name(j));
        else if (id < 0 || id >= n_vocab)
            reader_fail(r, "invalid_value", at,
                        "'%s' must be a token id between 0 and %d, got %" PRId64, at, n_vocab - 1,
                        id);
        else raw_push(r, out, (int32_t)id);
    }
    return !r->failed;
}

/* ---- fill in the middle ---------------------------------------------------------------------- */

/* The token of that name in either spelling, -1 if there is none. */
static int32_t named(const tokenizer *t, const char *name, const char *old)
{
    char s[32];
    snprintf(s, sizeof s, "<|%s|>", name);
    int32_t id = tokenizer_id(t, s);
    snprintf(s, sizeof s, "<%s>", old);
    return id >= 0 ? id : tokenizer_id(t, s);
}

bool fim_find(const tokenizer *t, fim_tokens *f)
{
    *f = (fim_tokens){.prefix = named(t, "fim_prefix", "fim_prefix"),
                      .suffix = named(t, "fim_suffix", "fim_suffix"),
                      .middle = named(t, "fim_middle", "fim_middle"),
                      .repo = named(t, "repo_name", "reponame"),
                      .file = named(t, "file_sep", "file_sep")};
    const int32_t end[] = {f->prefix, f->suffix, named(t, "fim_pad", "fim_pad"), f->repo, f->file};
    for (size_t i = 0; i < sizeof end / sizeof *end; i++)
        if (end[i] >= 0) f->end[f->n_end++] = end[i];
    return f->prefix >= 0 && f->suffix >= 0 && f->middle >= 0;
}

bool fim_need(reader *r, const char *param, fim_tokens *f)
{
    if (r->failed) return false;
    if (fim_find(engine_info(r->a->eng)->tok, f)) return true;
    reader_fail(r, "unsupported_value", param,
                "'%s' needs a model that fills in the middle; this one has no tokens for it",
                param);
    return false;
}

bool fim_prompt(reader *r, const json *prompt, const json *suffix, fim_tokens *f, token_list *out)
{
    return fim_need(r, "suffix", f) && raw_push(r, out, f->prefix) &&
           (!prompt || raw_text(r, "prompt", prompt->str, prompt->len, 0, out)) &&
           raw_push(r, out, f->suffix) && raw_text(r, "suffix", suffix->str, suffix->len, 0, out) &&
           raw_push(r, out, f->middle);
}

bool fim_ends(gen *g, const fim_tokens *f)
{
    g->fim_end = malloc(sizeof f->end);
    if (!g->fim_end) return false;
    memcpy(g->fim_end, f->end, sizeof f->end);
    g->p.s.end_id = g->fim_end;
    g->p.s.n_end = f->n_end;
    return true;
}

gen *raw_gen(reader *r, params *p, const gen_format *f, size_t own, token_list *ids)
{
    gen *g = gen_new(r, p, f, 1);
    if (!g || (own && !(g->own = calloc(1, own)))) {
        reader_oom(r);
        gen_free(g);
        return NULL;
    }
    g->think = THINK_NONE;
    g->prompt[0] = *ids;
    *ids = (token_list){0};
    return g;
}
