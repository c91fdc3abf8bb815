/* judge.c - see judge.h.  Owns nothing. */
#include "server/judge.h"

#include <string.h>

static const char head[] =
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    "the Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n"
    "<|im_start|>user\n<Instruct>: ";
static const char query_label[] = "\n<Query>: ";
static const char document_label[] = "\n<Document>:"; /* the space behind it belongs to the text */
static const char tail[] = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
static const char usual[] =
    "Given a web search query, retrieve relevant passages that answer the query";

enum { MAX_CLOSED = 3 };

typedef struct {
    buf text;
    text_span closed[MAX_CLOSED];
    size_t n_closed;
} judge_prompt;

static void put_closed(judge_prompt *p, judge_text t)
{
    text_span s = {p->text.len, p->text.len + t.n};
    buf_put(&p->text, t.v, t.n);
    if (t.n) p->closed[p->n_closed++] = s;
}

/* Up to the document's label, or all of it. */
static void write_prompt(judge_prompt *p, const judge_ask *a, bool all)
{
    judge_text instruction = a->instruction;
    if (!instruction.v) instruction = (judge_text){usual, sizeof usual - 1};
    buf_puts(&p->text, head);
    put_closed(p, instruction);
    buf_puts(&p->text, query_label);
    put_closed(p, a->query);
    buf_puts(&p->text, document_label);
    if (!all) return;
    buf_putc(&p->text, ' ');
    put_closed(p, a->document);
    buf_puts(&p->text, tail);
}

static int encode(const tokenizer *t, const judge_ask *a, bool all, token_list *out, err *e)
{
    judge_prompt p = {0};
    write_prompt(&p, a, all);
    int rc = buf_ok(&p.text)
                 ? tokenizer_encode(t, p.text.v, p.text.len, true, p.closed, p.n_closed, out, e)
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

int judge_encode(const tokenizer *t, const judge_ask *a, token_list *out, int64_t *n_cut, err *e)
{
    token_list before = {0}, after = {0};
    int rc = encode(t, a, true, out, e);
    int64_t gone = a->keep && !rc ? (int64_t)out->n - a->keep : 0;
    if (rc || gone <= 0) return rc;
    rc = encode(t, a, false, &before, e);
    if (!rc) rc = tokenizer_encode(t, tail, sizeof tail - 1, true, NULL, 0, &after, e);
    size_t same = 0, frame;
    while (same < before.n && same < out->n && before.v[same] == out->v[same]) same++;
    frame = same + after.n;
    if (!rc && (int64_t)(out->n - frame) < gone)
        rc = err_set(e, ERR_LIMIT,
                     "the question without its document has %zu tokens, and %lld are to be kept",
                     frame, (long long)a->keep);
    if (!rc) {
        cut_document(out, same, after.n, (size_t)gone, a->right);
        *n_cut += gone;
    }
    token_list_clear(&before);
    token_list_clear(&after);
    return rc;
}
