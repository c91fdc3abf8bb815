/* llama_request.c - prompts of /completion and /infill (API K6, K7): text, ids, and files around a
 * gap.  Owns nothing.  Refuses prompts that are no single prompt, and input_extra that is no list
 * of files.  Thread: prep. */
#include "server/llama_request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool llama_take_prompt(reader *r, token_list *out)
{
    const json *j = rd_any(r, "prompt");
    if (!j) reader_fail(r, "missing_required_parameter", "prompt", "'prompt' is required");
    if (r->failed) return false;
    /* A list of one prompt is that prompt; of several, one request a prompt is asked for. */
    bool list = j->type == JSON_ARRAY && j->len > 0;
    bool nested = list && (j->child->type == JSON_ARRAY || j->child->type == JSON_STRING);
    bool several = false;
    for (const json *i = list ? j->child->next : NULL; i; i = i->next)
        several |=
            i->type == JSON_ARRAY || (j->child->type == JSON_STRING && i->type == JSON_STRING);
    if (nested && several) {
        reader_fail(r, "unsupported_value", "prompt",
                    "'prompt' must be one prompt here, got %zu; send a request for each", j->len);
        return false;
    }
    const char *param = nested && j->len == 1 ? "prompt[0]" : "prompt";
    if (nested && j->len == 1) j = j->child;
    if (j->type != JSON_STRING && j->type != JSON_ARRAY)
        reader_fail(r, "invalid_type", param,
                    "'%s' must be a string, or token ids with or without strings between, got %s",
                    param, json_type_name(j));
    else if (!j->len) reader_fail(r, "invalid_value", param, "'%s' must not be empty", param);
    else if (j->type == JSON_STRING) raw_text(r, param, j->str, j->len, 0, out);
    else raw_ids(r, param, j, true, out);
    return !r->failed;
}

/* ---- infill (K6) ----------------------------------------------------------------------------- */

static bool needed_text(reader *r, const char *name, const char **s, size_t *n)
{
    if (!rd_str(r, name, 0, SIZE_MAX, s, n))
        reader_fail(r, "missing_required_parameter", name, "'%s' is required", name);
    return !r->failed;
}

static bool is_file(reader *r, const json *j, int i)
{
    char param[48];
    const json *text = json_get(j, "text"), *name = json_get(j, "filename");
    snprintf(param, sizeof param, "input_extra[%d]", i);
    if (j->type != JSON_OBJECT || !json_is(text, JSON_STRING) ||
        (name && name->type != JSON_NULL && name->type != JSON_STRING))
        reader_fail(r, "invalid_type", param,
                    "'%s' must be an object of 'filename' and 'text', both strings", param);
    return !r->failed;
}

/* Plain text, nothing in it recognised. */
static bool plain(reader *r, const char *s, size_t n, token_list *out)
{
    return raw_text(r, "input_extra", s, n, n, out);
}

/* A file's tokens: its mark and name, then its text. */
typedef struct {
    token_list head, body;
} file_ids;

static bool encode_file(reader *r, const json *j, const fim_tokens *f, file_ids *v)
{
    const json *text = json_get(j, "text"), *name = json_get(j, "filename");
    const char *s = json_is(name, JSON_STRING) && name->len ? name->str : "file";
    bool ends = text->len && text->str[text->len - 1] == '\n';
    return raw_push(r, &v->head, f->file) && plain(r, s, strlen(s), &v->head) &&
           plain(r, "\n", 1, &v->head) && plain(r, text->str, text->len, &v->body) &&
           (ends || plain(r, "\n", 1, &v->body));
}

/* The n files, at most room tokens of them: the oldest (first) are left out, and the oldest that
 * stays loses its beginning.  Says how many tokens that leaves out. */
static int64_t join_files(reader *r, file_ids *v, size_t n, int64_t room, token_list *out)
{
    int64_t lost = 0;
    size_t first = n;
    while (first > 0 && (int64_t)(v[first - 1].head.n + v[first - 1].body.n) <= room) {
        first--;
        room -= (int64_t)(v[first].head.n + v[first].body.n);
    }
    if (first > 0 && (int64_t)v[first - 1].head.n < room) {
        first--;
        lost += prompt_cut(&v[first].body, room - (int64_t)v[first].head.n, false);
    }
    for (size_t i = 0; i < n; i++) {
        if (i < first) lost += (int64_t)(v[i].head.n + v[i].body.n);
        else if (!raw_join(r, out, v[i].head.v, v[i].head.n) ||
                 !raw_join(r, out, v[i].body.v, v[i].body.n))
            break;
    }
    return lost;
}

/* Repository form: its name, the files, then the name of the one with the gap; nothing of it where
 * no file has room. */
static void put_files(reader *r, const json *list, const fim_tokens *f, int64_t room,
                      token_list *out, int64_t *lost)
{
    static const char repo[] = "repository\n", current[] = "current\n";
    token_list head = {0}, files = {0}, tail = {0};
    file_ids *v = calloc(list->len, sizeof *v);
    size_t n = 0;
    bool ok = v && raw_push(r, &head, f->repo) && plain(r, repo, sizeof repo - 1, &head) &&
              raw_push(r, &tail, f->file) && plain(r, current, sizeof current - 1, &tail);
    for (const json *j = list->child; j && ok; j = j->next) ok = encode_file(r, j, f, &v[n++]);
    room -= (int64_t)(head.n + tail.n);
    if (ok) *lost = join_files(r, v, n, room, &files);
    if (files.n && raw_join(r, out, head.v, head.n) && raw_join(r, out, files.v, files.n))
        raw_join(r, out, tail.v, tail.n);
    if (!v) reader_oom(r);
    for (size_t i = 0; i < n; i++) {
        token_list_clear(&v[i].head);
        token_list_clear(&v[i].body);
    }
    free(v);
    token_list_clear(&head);
    token_list_clear(&files);
    token_list_clear(&tail);
}

/* input_extra, checked; NULL if there is none or r failed. */
static const json *read_extra(reader *r)
{
    const json *list = rd_any(r, "input_extra");
    int i = 0;
    if (list && list->type != JSON_ARRAY)
        reader_fail(r, "invalid_type", "input_extra",
                    "'input_extra' must be an array of objects of 'filename' and 'text', got %s",
                    json_type_name(list));
    for (const json *j = list && !r->failed ? list->child : NULL; j; j = j->next)
        if (!is_file(r, j, i++)) return NULL;
    return list && list->len && !r->failed ? list : NULL;
}

/* The gap's tokens: what is before it (the client's prefix plain, its prompt as raw text), what is
 * behind. */
static bool put_gap(reader *r, const fim_tokens *f, token_list *out)
{
    const char *before, *behind, *prompt = "";
    size_t n_before, n_behind, n_prompt = 0;
    buf text = {0};
    if (!needed_text(r, "input_prefix", &before, &n_before) ||
        !needed_text(r, "input_suffix", &behind, &n_behind))
        return false;
    rd_str(r, "prompt", 0, SIZE_MAX, &prompt, &n_prompt);
    buf_put(&text, before, n_before);
    buf_put(&text, prompt, n_prompt);
    if (!buf_ok(&text)) reader_oom(r);
    bool ok = !r->failed && raw_push(r, out, f->prefix) &&
              raw_text(r, "input_prefix", buf_str(&text), text.len, n_before, out) &&
              raw_push(r, out, f->suffix) &&
              raw_text(r, "input_suffix", behind, n_behind, n_behind, out) &&
              raw_push(r, out, f->middle);
    buf_clear(&text);
    return ok;
}

bool llama_take_infill(reader *r, const params *p, fim_tokens *f, token_list *out, int64_t *lost)
{
    token_list gap = {0};
    const json *extra = read_extra(r);
    *lost = 0;
    if (fim_need(r, "input_prefix", f) && put_gap(r, f, &gap)) {
        int64_t ctx = engine_info(r->a->eng)->ctx, answer = ctx / 8;
        if (p->s.max_tokens >= 0 && p->s.max_tokens < answer) answer = p->s.max_tokens;
        int64_t room = ctx - answer - (int64_t)gap.n;
        if (extra && (f->repo < 0 || f->file < 0)) reader_ignore(r, "input_extra", 11);
        else if (extra) put_files(r, extra, f, room, out, lost);
        raw_join(r, out, gap.v, gap.n);
    }
    token_list_clear(&gap);
    return !r->failed;
}
