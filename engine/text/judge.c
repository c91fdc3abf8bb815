/* judge.c - see judge.h.  Owns nothing. */
#include "engine/text/judge.h"

#include <string.h>

static const char usual[] =
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    "the Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n"
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that "
    "answer the query\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n";

enum { MAX_TEXT = 65536 };

/* ---- the form -------------------------------------------------------------------------------- */

static const struct {
    judge_place place;
    const char *mark;
} marks[] = {{JUDGE_QUERY, "{query}"}, {JUDGE_DOCUMENT, "{document}"}};

/* The place whose mark t begins with, and the bytes of the mark; 0: none. */
static size_t mark_at(judge_text t, judge_place *place)
{
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        size_t n = strlen(marks[i].mark);
        if (t.n < n || memcmp(t.v, marks[i].mark, n)) continue;
        *place = marks[i].place;
        return n;
    }
    return 0;
}

/* The line behind the label of an instruction; none if it is empty. */
static judge_text instruction_of(judge_text t)
{
    static const char label[] = "<Instruct>: ";
    judge_place place;
    judge_text line = {memmem(t.v, t.n, label, sizeof label - 1), 0};
    if (!line.v) return line;
    line.v += sizeof label - 1;
    const char *end = t.v + t.n, *v = line.v;
    while (v < end && *v != '\n' && !mark_at((judge_text){v, (size_t)(end - v)}, &place)) v++;
    line.n = (size_t)(v - line.v);
    return line;
}

static bool add(judge_form *f, judge_place place, const char *v, size_t n)
{
    if (!n) return true;
    if (f->n == JUDGE_MAX_PARTS) return false;
    f->part[f->n].place = place;
    f->part[f->n++].text = (judge_text){v, n};
    return true;
}

static bool split(judge_form *f, judge_text t)
{
    judge_text line = instruction_of(t);
    size_t from = 0, i = 0; /* of the fixed text at hand */
    while (i < t.n) {
        judge_place place = JUDGE_INSTRUCTION;
        size_t n = line.n && t.v + i == line.v ? line.n : 0;
        if (!n) n = mark_at((judge_text){t.v + i, t.n - i}, &place);
        if (!n) {
            i++;
            continue;
        }
        if (!add(f, JUDGE_FIXED, t.v + from, i - from) || !add(f, place, t.v + i, n)) return false;
        from = i += n;
    }
    return add(f, JUDGE_FIXED, t.v + from, t.n - from);
}

int judge_form_open(judge_form *f, const char *text, size_t n, err *e)
{
    int found[JUDGE_DOCUMENT + 1] = {0};
    *f = (judge_form){.n = 0};
    if (!text) {
        text = usual;
        n = sizeof usual - 1;
    }
    if (n > MAX_TEXT)
        return err_set(e, ERR_LIMIT, "the rerank prompt has %zu bytes; at most %d are accepted", n,
                       MAX_TEXT);
    if (!split(f, (judge_text){text, n}))
        return err_set(e, ERR_LIMIT, "the rerank prompt falls into more than %d parts",
                       JUDGE_MAX_PARTS);
    for (int i = 0; i < f->n; i++) {
        found[f->part[i].place]++;
        if (f->part[i].place == JUDGE_DOCUMENT) f->document = i;
    }
    if (!found[JUDGE_QUERY] || found[JUDGE_DOCUMENT] != 1)
        return err_set(e, ERR_FORMAT,
                       "the rerank prompt must hold {query}, and {document} once; it holds them %d "
                       "and %d times",
                       found[JUDGE_QUERY], found[JUDGE_DOCUMENT]);
    f->instructed = found[JUDGE_INSTRUCTION] > 0;
    return 0;
}

/* ---- the prompt ------------------------------------------------------------------------------ */

typedef struct {
    buf text;
    text_span closed[JUDGE_MAX_PARTS];
    size_t n_closed;
} judge_prompt;

static void put_closed(judge_prompt *p, judge_text t)
{
    text_span s = {p->text.len, p->text.len + t.n};
    buf_put(&p->text, t.v, t.n);
    if (t.n) p->closed[p->n_closed++] = s;
}

static void put_part(judge_prompt *p, const judge_form *f, const judge_ask *a, int i)
{
    judge_text own = f->part[i].text;
    switch (f->part[i].place) {
    case JUDGE_QUERY: put_closed(p, a->query); return;
    case JUDGE_DOCUMENT: put_closed(p, a->document); return;
    case JUDGE_INSTRUCTION:
        if (a->instruction.v) {
            put_closed(p, a->instruction);
            return;
        }
        break;
    case JUDGE_FIXED: break;
    }
    buf_put(&p->text, own.v, own.n);
}

/* The ids of parts [from, to).  A space in front of a document belongs to it. */
static int encode(const tokenizer *t, const judge_form *f, const judge_ask *a, int from, int to,
                  token_list *out, err *e)
{
    judge_prompt p = {0};
    for (int i = from; i < to; i++) put_part(&p, f, a, i);
    size_t n = p.text.len, least = n;
    if (to && to == f->document && f->part[to - 1].place == JUDGE_FIXED)
        least -= f->part[to - 1].text.n;
    while (n > least && p.text.v[n - 1] == ' ') n--;
    int rc = buf_ok(&p.text)
                 ? tokenizer_encode(t, buf_str(&p.text), n, true, p.closed, p.n_closed, out, e)
                 : err_set(e, ERR_NOMEM, "out of memory");
    buf_clear(&p.text);
    return rc;
}

/* Takes `gone` tokens out of the document, which lies between the first `before` and the last
 * `after` tokens. */
static void cut_document(token_list *l, size_t before, size_t after, size_t gone, bool right)
{
    size_t from = right ? l->n - after - gone : before;
    memmove(l->v + from, l->v + from + gone, (l->n - from - gone) * sizeof *l->v);
    l->n -= gone;
}

int judge_encode(const tokenizer *t, const judge_form *f, const judge_ask *a, token_list *out,
                 int64_t *n_cut, err *e)
{
    token_list before = {0}, after = {0};
    int rc = encode(t, f, a, 0, f->n, out, e);
    int64_t gone = a->keep && !rc ? (int64_t)out->n - a->keep : 0;
    if (rc || gone <= 0) return rc;
    rc = encode(t, f, a, 0, f->document, &before, e);
    if (!rc) rc = encode(t, f, a, f->document + 1, f->n, &after, e);
    size_t first = 0, last = 0;
    while (first < before.n && first < out->n && before.v[first] == out->v[first]) first++;
    while (last < after.n && last < out->n - first &&
           after.v[after.n - 1 - last] == out->v[out->n - 1 - last])
        last++;
    if (!rc && (int64_t)(out->n - first - last) < gone)
        rc = err_set(e, ERR_LIMIT,
                     "the question without its document has %zu tokens, and %lld are to be kept",
                     first + last, (long long)a->keep);
    if (!rc) {
        cut_document(out, first, last, (size_t)gone, a->right);
        *n_cut += gone;
    }
    token_list_clear(&before);
    token_list_clear(&after);
    return rc;
}
