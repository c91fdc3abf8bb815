/* model_rig.h - a model on a backend, driven without an engine: sequences with scattered KV blocks,
 * any chunking, logits of every row.  Tests only; one thread. */
#ifndef QUERN_TESTS_MODEL_RIG_H
#define QUERN_TESTS_MODEL_RIG_H

#include "base/file.h"
#include "base/json.h"
#include "engine/model.h"

#include <check.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RIG_SEQS = 4, RIG_MAX_TOK = 512 };

typedef struct rig rig;
struct rig {
    checkpoint *c;
    backend *be;
    model *m;
    int n_blocks, vocab;
    /* Instead of the model alone (tp_rig.h): logits of every out row into out[n_out][vocab]. */
    void (*forward)(rig *g, const batch *b, float *out);
    void *more; /* what forward needs */
};

/* Fails the test if anything fails. */
static inline rig rig_open(const char *path, const backend_options *bo, kv_type kv, int64_t ctx)
{
    rig g = {0};
    err e = {0};
    checkpoint_options co = {.weights = true};
    g.c = checkpoint_open(path, &co, &e);
    ck_assert_msg(g.c != NULL, "%s: %s", path, e.msg);
    g.be = backend_open(bo, &e);
    ck_assert_msg(g.be != NULL, "%s: %s", bo->name, e.msg);
    model_options mo = {
        .ctx = ctx, .max_tok = RIG_MAX_TOK, .max_seqs = RIG_SEQS, .max_out = RIG_MAX_TOK, .kv = kv};
    g.m = model_load(g.c, g.be, &mo, &e);
    ck_assert_msg(g.m != NULL, "%s on %s: %s", path, bo->name, e.msg);
    g.n_blocks = RIG_SEQS * (int)((ctx + g.be->kv_block - 1) / g.be->kv_block);
    ck_assert_msg(!model_kv_alloc(g.m, g.n_blocks, &e), "%s", e.msg);
    g.vocab = model_vocab_rows(g.m);
    return g;
}

static inline void rig_close(rig *g)
{
    model_free(g->m);
    backend_close(g->be);
    checkpoint_close(g->c);
    *g = (rig){0};
}

/* What one sequence brings to a step: tokens tok[at .. at+n) of it; id chooses its KV blocks.
 * n_prompt: length of its prompt, 0: all of it is prompt. */
typedef struct {
    const int32_t *tok;
    int at, n, id, n_prompt;
} rig_seq;

static inline void rig_forward(rig *g, const batch *b, float *out)
{
    tensor logits;
    err e = {0};
    model_forward(g->m, b, &logits, NULL);
    for (int i = 0; i < b->n_out; i++)
        k_download(g->be, out + (size_t)i * (size_t)g->vocab, tensor_row(logits, i),
                   (size_t)g->vocab * sizeof *out);
    ck_assert_msg(!k_sync(g->be, &e), "%s", e.msg);
}

/* One step.  all: logits of every row, else of each sequence's last.  out[rows][vocab]. */
static inline void rig_step(rig *g, const rig_seq *s, int n_seq, bool all, float *out)
{
    int block = g->be->kv_block, max_blocks = g->n_blocks / RIG_SEQS;
    int32_t tok[RIG_MAX_TOK], pos[RIG_MAX_TOK], slot[RIG_MAX_TOK], row[RIG_MAX_TOK];
    int32_t start[RIG_SEQS + 1] = {0}, ctx_len[RIG_SEQS], prompt[RIG_SEQS];
    int32_t *table = calloc((size_t)(n_seq * max_blocks), sizeof *table);
    batch b = {.n_seq = n_seq,
               .max_blocks = max_blocks,
               .tok = tok,
               .pos = pos,
               .slot = slot,
               .seq_start = start,
               .ctx_len = ctx_len,
               .block_table = table,
               .n_prompt = prompt,
               .out_row = row};
    for (int i = 0; i < n_seq; i++) {
        int32_t *t = table + i * max_blocks; /* the last block first, sequences interleaved */
        for (int j = 0; j < max_blocks; j++) t[j] = g->n_blocks - 1 - (j * RIG_SEQS + s[i].id);
        for (int k = 0; k < s[i].n; k++, b.n_tok++) {
            int p = s[i].at + k;
            tok[b.n_tok] = s[i].tok[p];
            pos[b.n_tok] = p;
            slot[b.n_tok] = t[p / block] * block + p % block;
            if (all || k + 1 == s[i].n) row[b.n_out++] = b.n_tok;
        }
        start[i + 1] = b.n_tok;
        ctx_len[i] = s[i].at + s[i].n;
        prompt[i] = s[i].n_prompt ? s[i].n_prompt : INT32_MAX;
    }
    (g->forward ? g->forward : rig_forward)(g, &b, out);
    free(table);
}

/* Logits of all n positions of tok into out[n][vocab], in chunks of at most `chunk` tokens. */
static inline void rig_all(rig *g, const int32_t *tok, int n, int chunk, int id, float *out)
{
    for (int at = 0; at < n; at += chunk) {
        rig_seq s = {tok, at, n - at < chunk ? n - at : chunk, id, 0};
        rig_step(g, &s, 1, true, out + (size_t)at * (size_t)g->vocab);
    }
}

static inline int argmax(const float *v, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (v[i] > v[best]) best = i;
    return best;
}

/* Largest deviation relative to the largest value of the row. */
static inline double row_error(const float *got, const float *want, int n)
{
    double diff = 0, top = 0;
    for (int i = 0; i < n; i++) {
        if (!isfinite(got[i])) return INFINITY;
        diff = fmax(diff, fabs((double)got[i] - (double)want[i]));
        top = fmax(top, fabs((double)want[i]));
    }
    return diff / top;
}

/* Mean square error over mean square. */
static inline double nmse(const float *got, const float *want, size_t n)
{
    double err2 = 0, sum2 = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        err2 += d * d;
        sum2 += (double)want[i] * (double)want[i];
    }
    return err2 / sum2;
}

/* A new directory under $TMPDIR or /tmp; path[] has room for PATH_MAX. */
static inline void temp_dir(char *path)
{
    const char *base = getenv("TMPDIR");
    snprintf(path, PATH_MAX, "%s/quern-test-XXXXXX", base ? base : "/tmp");
    ck_assert(mkdtemp(path) != NULL);
}

static inline void temp_remove(const char *dir)
{
    char cmd[PATH_MAX + 16];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    ck_assert_int_eq(system(cmd), 0);
}

/* A checkpoint directory in dir: the weights of `from` under the configuration file `config`. */
static inline void link_variant(const char *dir, const char *from, const char *config)
{
    char cmd[6 * PATH_MAX];
    snprintf(cmd, sizeof cmd, "ln -s \"$PWD/%s/model.safetensors\" %s/ && cp %s/%s %s/config.json",
             from, dir, from, config, dir);
    ck_assert_int_eq(system(cmd), 0);
}

#endif
