/* api_rerank.c - POST /rerank and its aliases, POST /v1/score: how well documents answer a query,
 * by a model that judges (API B5-B8).  Owns a rerank_state per call.  Thread: prep, then the call's
 * HTTP thread. */
#include "server/api.h"
#include "server/chat_request.h"
#include "server/pooled.h"
#include "server/reply.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DOCUMENTS = 1024 };

typedef struct {
    int top_n;                   /* 0 = all */
    bool with_documents, second; /* of /v2 */
} rerank_state;

/* ---- reading --------------------------------------------------------------------------------- */

static bool can_judge(reader *r, const char *model)
{
    const pooling *p = engine_info(r->a->eng)->pool;
    if (r->failed || p->score) return !r->failed;
    reader_fail(
        r, "unsupported_value", "model",
        "model '%.64s' does not judge documents: serve a reranker, or start the server with "
        "--pooling rank for one whose files do not say so",
        model);
    return false;
}

static bool open_judge(reader *r, http_call *c, read_kind kind, params *p)
{
    return reader_open(r, c, kind) && ready_or_fail(r) && params_read_pooled(p, r) &&
           can_judge(r, p->model);
}

/* A document's text: a string, or an object's `text`; NULL if it is neither. */
static const json *text_of(const json *j)
{
    const json *t = json_is(j, JSON_OBJECT) ? json_get(j, "text") : j;
    return json_is(t, JSON_STRING) ? t : NULL;
}

static judge_text judge_text_of(const json *j)
{
    return (judge_text){j->str, j->len};
}

/* One prompt into item i; the error names `param`. */
static bool put_pair(reader *r, pooled *q, int i, const json *query, const json *document,
                     const char *param)
{
    const engine_info_t *info = engine_info(r->a->eng);
    const json *instruction = json_get(q->body, "instruction");
    judge_ask a = {.query = judge_text_of(query),
                   .document = judge_text_of(document),
                   .keep = q->p.truncate < 0 ? info->ctx : q->p.truncate,
                   .right = q->p.truncate_right};
    err e = {0};
    if (json_is(instruction, JSON_STRING) && instruction->len)
        a.instruction = judge_text_of(instruction);
    int rc = judge_encode(info->tok, info->judge, &a, &q->item[i].ids, &q->n_cut, &e);
    if (rc == ERR_NOMEM) reader_oom(r);
    else if (rc)
        reader_fail(r, "invalid_value", rc == ERR_LIMIT ? "truncate_prompt_tokens" : param, "%s",
                    e.msg);
    return !rc;
}

static void read_instruction(reader *r)
{
    const char *text;
    size_t n;
    if (rd_str(r, "instruction", 0, 1 << 20, &text, &n) && n &&
        !engine_info(r->a->eng)->judge->instructed)
        reader_fail(r, "unsupported_value", "instruction",
                    "the prompt of this reranker has no place for an 'instruction'");
}

/* The documents of the body; NULL after failing. */
static const json *read_documents(reader *r)
{
    const json *list = rd_any(r, "documents");
    char param[40];
    int i = 0;
    if (!list) reader_fail(r, "missing_required_parameter", "documents", "'documents' is required");
    else if (list->type != JSON_ARRAY)
        reader_fail(r, "invalid_type", "documents", "'documents' must be an array, got %s",
                    json_type_name(list));
    else if (!list->len || list->len > MAX_DOCUMENTS)
        reader_fail(r, "invalid_value", "documents", "'documents' takes 1 to %d documents, got %zu",
                    MAX_DOCUMENTS, list->len);
    for (const json *d = r->failed ? NULL : list->child; d && !r->failed; d = d->next, i++) {
        if (text_of(d)) continue;
        snprintf(param, sizeof param, "documents[%d]", i);
        reader_fail(r, "invalid_type", param,
                    "'%s' must be a string, or an object whose 'text' is one", param);
    }
    return r->failed ? NULL : list;
}

/* ---- rerank (B5, B6) ------------------------------------------------------------------------- */

typedef struct {
    int index;
    float score;
    const json *text;
} ranked;

/* Falling by score, then in the order given. */
static int by_score(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->index - y->index;
}

static void put_score(float v, buf *out)
{
    char t[32];
    snprintf(t, sizeof t, "%.9g", (double)v);
    buf_puts(out, t);
}

static void rerank_reply(pooled *p, buf *out)
{
    const rerank_state *s = p->own;
    const json *d = json_get(p->body, "documents")->child;
    ranked *row = calloc((size_t)p->n_item, sizeof *row);
    if (!row) {
        out->oom = true;
        return;
    }
    for (int i = 0; i < p->n_item; i++, d = d->next)
        row[i] = (ranked){i, p->item[i].vec[0], text_of(d)};
    qsort(row, (size_t)p->n_item, sizeof *row, by_score);
    int n = s->top_n && s->top_n < p->n_item ? s->top_n : p->n_item;
    buf_printf(out, "{\"id\":\"%s\",\"model\":", p->id);
    buf_put_json(out, p->p.model, strlen(p->p.model));
    buf_puts(out, ",\"object\":\"list\",");
    pooled_usage(p, out);
    buf_puts(out, ",\"results\":[");
    for (int i = 0; i < n; i++) {
        buf_printf(out, "%s{\"index\":%d,\"relevance_score\":", i ? "," : "", row[i].index);
        put_score(row[i].score, out);
        if (s->with_documents) {
            buf_puts(out, ",\"document\":{\"text\":");
            buf_put_json(out, row[i].text->str, row[i].text->len);
            buf_putc(out, '}');
        }
        buf_putc(out, '}');
    }
    buf_puts(out, s->second ? "],\"meta\":{\"api_version\":{\"version\":\"2\"}}}" : "]}");
    free(row);
}

static const pooled_shape rerank_shape = {
    .param = "documents", .id_prefix = "rerank-", .reply = rerank_reply};

static void read_rerank(reader *r, rerank_state *s, const json **query)
{
    int64_t n = 0;
    const char *text;
    s->second = !strcmp(http_path(r->call), "/v2/rerank");
    s->with_documents = !s->second;
    if (rd_int(r, "top_n", 0, INT64_MAX, &n)) s->top_n = n > MAX_DOCUMENTS ? 0 : (int)n;
    rd_bool(r, "return_documents", &s->with_documents);
    read_instruction(r);
    if (!rd_any(r, "query"))
        reader_fail(r, "missing_required_parameter", "query", "'query' is required");
    if (rd_str(r, "query", 1, SIZE_MAX, &text, NULL)) *query = rd_any(r, "query");
}

void api_rerank(http_call *c)
{
    reader r;
    params p = {0};
    rerank_state s = {0};
    const json *query = NULL, *list;
    pooled *q = NULL;
    if (!open_judge(&r, c, READ_RERANK, &p)) goto out;
    read_rerank(&r, &s, &query);
    list = read_documents(&r);
    if (!list || !(q = pooled_new(&r, &p, &rerank_shape, WANT_SCORE, (int)list->len))) goto out;
    q->listed = true;
    q->own = calloc(1, sizeof s);
    if (q->own) memcpy(q->own, &s, sizeof s);
    bool ok = q->own != NULL;
    if (!ok) reply_oom(c);
    int i = 0;
    for (const json *d = list->child; d && ok; d = d->next, i++) {
        char param[40];
        snprintf(param, sizeof param, "documents[%d]", i);
        ok = put_pair(&r, q, i, query, text_of(d), param);
    }
    if (ok) pooled_start(q, &r);
    else pooled_free(q);
out:
    params_clear(&p);
    reader_close(&r);
}

/* ---- score (B7) ------------------------------------------------------------------------------ */

static void score_reply(pooled *p, buf *out)
{
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"list\",\"created\":%" PRId64 ",\"model\":", p->id,
               p->created);
    buf_put_json(out, p->p.model, strlen(p->p.model));
    buf_puts(out, ",\"data\":[");
    for (int i = 0; i < p->n_item; i++) {
        buf_printf(out, "%s{\"index\":%d,\"object\":\"score\",\"score\":", i ? "," : "", i);
        put_score(p->item[i].vec[0], out);
        buf_putc(out, '}');
    }
    buf_puts(out, "],");
    pooled_usage(p, out);
    buf_putc(out, '}');
}

static const pooled_shape score_shape = {
    .param = "text_2", .id_prefix = "score-", .reply = score_reply};

/* The two sides under whichever of their names are there. */
static void find_sides(reader *r, const char **left, const char **right)
{
    static const char *const names[][2] = {
        {"text_1", "text_2"}, {"queries", "documents"}, {"queries", "items"}, {"data_1", "data_2"}};
    *left = names[0][0];
    *right = names[0][1];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (rd_any(r, names[i][0]) && rd_any(r, names[i][1])) {
            *left = names[i][0];
            *right = names[i][1];
            return;
        }
    reader_fail(r, "missing_required_parameter", "text_1",
                "'text_1' and 'text_2' are required (or 'queries' and 'documents', 'queries' and "
                "'items', 'data_1' and 'data_2')");
}

/* Texts of one side; 0 after failing. */
static size_t count_side(reader *r, const char *name)
{
    const json *j = rd_any(r, name);
    if (!j) return 0;
    if (j->type == JSON_STRING) return 1;
    if (j->type != JSON_ARRAY)
        reader_fail(r, "invalid_type", name, "'%s' must be a string or an array of strings, got %s",
                    name, json_type_name(j));
    else if (!j->len || j->len > MAX_DOCUMENTS)
        reader_fail(r, "invalid_value", name, "'%s' takes 1 to %d texts, got %zu", name,
                    MAX_DOCUMENTS, j->len);
    int i = 0;
    for (const json *t = r->failed ? NULL : j->child; t && !r->failed; t = t->next, i++) {
        char param[40];
        if (t->type == JSON_STRING) continue;
        snprintf(param, sizeof param, "%.24s[%d]", name, i);
        reader_fail(r, "invalid_type", param, "'%s' must be a string, got %s", param,
                    json_type_name(t));
    }
    return r->failed ? 0 : j->len;
}

static bool put_pairs(reader *r, pooled *q, const char *left, const char *right)
{
    const json *a = json_get(q->body, left), *b = json_get(q->body, right);
    bool many = a->type == JSON_ARRAY && a->len > 1;
    q->param = right;
    q->listed = b->type == JSON_ARRAY;
    if (a->type == JSON_ARRAY) a = a->child;
    if (q->listed) b = b->child;
    for (int i = 0; i < q->n_item; i++) {
        char param[40];
        snprintf(param, sizeof param, q->listed ? "%.24s[%d]" : "%.24s", right, i);
        if (!put_pair(r, q, i, a, b, param)) return false;
        if (many) a = a->next;
        b = b->next;
    }
    return true;
}

void api_score(http_call *c)
{
    reader r;
    params p = {0};
    const char *left = NULL, *right = NULL;
    pooled *q = NULL;
    if (!open_judge(&r, c, READ_SCORE, &p)) goto out;
    find_sides(&r, &left, &right);
    read_instruction(&r);
    size_t n = r.failed ? 0 : count_side(&r, left), m = r.failed ? 0 : count_side(&r, right);
    if (!r.failed && n != 1 && n != m)
        reader_fail(&r, "invalid_value", left,
                    "'%s' must hold one text, or as many as '%s': %zu, got %zu", left, right, m, n);
    if (r.failed || !(q = pooled_new(&r, &p, &score_shape, WANT_SCORE, (int)m))) goto out;
    if (put_pairs(&r, q, left, right)) pooled_start(q, &r);
    else pooled_free(q);
out:
    params_clear(&p);
    reader_close(&r);
}
