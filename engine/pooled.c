/* pooled.c - see pooled.h.  Owns the rows of a pool_judge. */
#include "engine/pooled.h"

#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *pool_tensor(const checkpoint *c)
{
    return checkpoint_is_gguf(c) ? "cls.output.weight" : "score.weight";
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

/* w += sign * row of t. */
static int add_row(pool_judge *j, const ckpt_tensor *t, int64_t row, double sign, err *e)
{
    size_t bytes;
    if (t->n_dims < 1 || t->n_dims > 2 || t->dim[t->n_dims - 1] != j->n || t->type < 0 ||
        !dtype_of(t->type).name || !dtype_row_bytes(t->type, j->n, &bytes))
        return err_set(e, ERR_FORMAT, "tensor %s: rows of %d readable values are expected", t->name,
                       j->n);
    int64_t rows = t->n_dims == 2 ? t->dim[0] : 1;
    if (row < 0 || row >= rows)
        return err_set(e, ERR_FORMAT, "tensor %s has %lld rows, and row %lld judges", t->name,
                       (long long)rows, (long long)row);
    if (!t->data)
        return err_set(e, ERR_UNSUPPORTED, "made-up weights have nothing that judges documents");
    if (t->bytes / bytes < (size_t)rows)
        return err_set(e, ERR_FORMAT, "tensor %s holds %zu bytes", t->name, t->bytes);
    float *v = malloc((size_t)j->n * sizeof *v);
    if (!v) return err_set(e, ERR_NOMEM, "out of memory");
    dequant_row(t->type, (const char *)t->data + (size_t)row * bytes, v, j->n);
    for (int i = 0; i < j->n; i++) j->w[i] += sign * (double)v[i];
    free(v);
    return 0;
}

static int read_tensor(pool_judge *j, const checkpoint *c, err *e)
{
    const ckpt_tensor *t = checkpoint_find(c, pool_tensor(c));
    if (!t) return err_set(e, ERR_FORMAT, "tensor %s is missing", pool_tensor(c));
    int64_t rows = t->n_dims == 2 ? t->dim[0] : 1;
    if (rows > 2)
        return err_set(e, ERR_UNSUPPORTED, "tensor %s has %lld rows; one or two can judge", t->name,
                       (long long)rows);
    bool swap = rows == 2 && checkpoint_config(c)->pool.no_first;
    int rc = add_row(j, t, swap, 1, e);
    return rc || rows == 1 ? rc : add_row(j, t, !swap, -1, e);
}

static int read_output_rows(pool_judge *j, const checkpoint *c, int64_t yes, int64_t no, err *e)
{
    const ckpt_tensor *t = output_matrix(c);
    if (!t)
        return err_set(e, ERR_FORMAT,
                       "the checkpoint has no output matrix: it cannot judge documents");
    if (yes < 0 || no < 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "the vocabulary has no tokens 'yes' and 'no': the model cannot judge "
                       "documents");
    int rc = add_row(j, t, yes, 1, e);
    return rc ? rc : add_row(j, t, no, -1, e);
}

int pool_judge_read(pool_judge *j, const checkpoint *c, int32_t yes, int32_t no, err *e)
{
    const model_config *conf = checkpoint_config(c);
    const pooling *p = &conf->pool;
    *j = (pool_judge){0};
    if (p->score == SCORE_NONE) return 0;
    j->n = (int)conf->hidden;
    j->w = calloc((size_t)j->n, sizeof *j->w);
    if (!j->w) return err_set(e, ERR_NOMEM, "out of memory");
    int rc = p->score == SCORE_TENSOR ? read_tensor(j, c, e)
             : p->score == SCORE_IDS  ? read_output_rows(j, c, p->yes_id, p->no_id, e)
                                      : read_output_rows(j, c, yes, no, e);
    if (rc) pool_judge_clear(j);
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

void pool_normalise(float *v, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)v[i] * (double)v[i];
    if (sum == 0) return;
    double scale = 1 / sqrt(sum);
    for (int i = 0; i < n; i++) v[i] = (float)((double)v[i] * scale);
}
