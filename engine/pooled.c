/* pooled.c - see pooled.h.  Owns the rows of a pool_judge. */
#include "engine/pooled.h"

#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *pool_tensor(const checkpoint *c)
{
    return checkpoint_is_gguf(c) ? POOL_GGUF_TENSOR : "score.weight";
}

/* The matrix logits come from: its own, or the embedding. */
static const ckpt_tensor *output_matrix(const checkpoint *c)
{
    bool is_gguf = checkpoint_is_gguf(c);
    const ckpt_tensor *t = checkpoint_find(c, is_gguf ? "output.weight" : "lm_head.weight");
    bool tied = is_gguf || checkpoint_config(c)->tied;
    if (!t && tied)
        t = checkpoint_find(c, is_gguf ? "token_embd.weight" : "model.embed_tokens.weight");
    return t;
}

/* Whether rows of t are states' length, and every one named is there. */
static int check_rows(const pool_rows *r, int64_t n, err *e)
{
    const ckpt_tensor *t = r->t;
    size_t bytes;
    if (t->n_dims < 1 || t->n_dims > 2 || t->dim[t->n_dims - 1] != n || t->type < 0 ||
        !dtype_of(t->type).name || !dtype_row_bytes(t->type, n, &bytes))
        return err_set(e, ERR_FORMAT, "tensor %s: rows of %lld readable values are expected",
                       t->name, (long long)n);
    int64_t rows = t->n_dims == 2 ? t->dim[0] : 1, last = r->no > r->yes ? r->no : r->yes;
    if (last >= rows)
        return err_set(e, ERR_FORMAT, "tensor %s has %lld rows, and row %lld judges", t->name,
                       (long long)rows, (long long)last);
    if (!t->data)
        return err_set(e, ERR_UNSUPPORTED, "made-up weights have nothing that judges documents");
    if (t->bytes / bytes < (size_t)rows)
        return err_set(e, ERR_FORMAT, "tensor %s holds %zu bytes", t->name, t->bytes);
    return 0;
}

static int find_tensor(pool_rows *r, const checkpoint *c, err *e)
{
    r->t = checkpoint_find(c, pool_tensor(c));
    if (!r->t) return err_set(e, ERR_FORMAT, "tensor %s is missing", pool_tensor(c));
    int64_t rows = r->t->n_dims == 2 ? r->t->dim[0] : 1;
    if (rows > 2)
        return err_set(e, ERR_UNSUPPORTED, "tensor %s has %lld rows; one or two can judge",
                       r->t->name, (long long)rows);
    r->yes = rows == 2 && checkpoint_config(c)->pool.no_first;
    r->no = rows == 2 ? !r->yes : -1;
    return 0;
}

static int find_output_rows(pool_rows *r, const checkpoint *c, int64_t yes, int64_t no, err *e)
{
    *r = (pool_rows){output_matrix(c), yes, no};
    if (!r->t)
        return err_set(e, ERR_FORMAT,
                       "the checkpoint has no output matrix: it cannot judge documents");
    if (yes < 0 || no < 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "the vocabulary has no tokens 'yes' and 'no': the model cannot judge "
                       "documents");
    return 0;
}

int pool_rows_find(pool_rows *r, const checkpoint *c, const tokenizer *t, err *e)
{
    const pooling *p = &checkpoint_config(c)->pool;
    *r = (pool_rows){0};
    if (p->score == SCORE_NONE) return 0;
    int rc = p->score == SCORE_TENSOR ? find_tensor(r, c, e)
             : p->score == SCORE_IDS  ? find_output_rows(r, c, p->yes_id, p->no_id, e)
                                      : find_output_rows(r, c, t ? tokenizer_id(t, "yes") : -1,
                                                        t ? tokenizer_id(t, "no") : -1, e);
    return rc ? rc : check_rows(r, checkpoint_config(c)->hidden, e);
}

/* w += sign * row of t; v is room for a row. */
static void add_row(pool_judge *j, const ckpt_tensor *t, int64_t row, double sign, float *v)
{
    size_t bytes = 0;
    dtype_row_bytes(t->type, j->n, &bytes);
    dequant_row(t->type, (const char *)t->data + (size_t)row * bytes, v, j->n);
    for (int i = 0; i < j->n; i++) j->w[i] += sign * (double)v[i];
}

int pool_judge_read(pool_judge *j, const checkpoint *c, const tokenizer *t, err *e)
{
    pool_rows r;
    *j = (pool_judge){0};
    int rc = pool_rows_find(&r, c, t, e);
    if (rc || !r.t) return rc;
    j->n = (int)checkpoint_config(c)->hidden;
    j->w = calloc((size_t)j->n, sizeof *j->w);
    float *v = malloc((size_t)j->n * sizeof *v);
    if (j->w && v) {
        add_row(j, r.t, r.yes, 1, v);
        if (r.no >= 0) add_row(j, r.t, r.no, -1, v);
    } else {
        pool_judge_clear(j);
        rc = err_set(e, ERR_NOMEM, "out of memory");
    }
    free(v);
    return rc;
}

void pool_judge_clear(pool_judge *j)
{
    free(j->w);
    *j = (pool_judge){0};
}

float pool_judge_score(const pool_judge *j, const float *state)
{
    double s = 0;
    for (int i = 0; i < j->n; i++) s += j->w[i] * (double)state[i];
    return (float)(1 / (1 + exp(-s)));
}

int pool_text_end(const checkpoint *c, const tokenizer *t, int32_t *id, int cap, err *e)
{
    const pooling *p = &checkpoint_config(c)->pool;
    int n = p->embeds ? tokenizer_text_end(t, id, cap) : 0;
    if (n < 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "the tokenizer puts tokens in front of a text, or too many behind it: such "
                       "embedding models are not supported");
    if (n || !p->end_token) return n;
    id[0] = tokenizer_id(t, "<|endoftext|>");
    return id[0] >= 0;
}

void pool_normalise(float *v, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)v[i] * (double)v[i];
    if (sum == 0) return;
    double scale = 1 / sqrt(sum);
    for (int i = 0; i < n; i++) v[i] = (float)((double)v[i] * scale);
}
