/* tool_quantize.c - `quern quantize`: a checkpoint in, a GGUF file of another type out.
 * Owns the output file until it is whole.  Refuses: block-quantised sources for a block-quantised
 * target (the loss would add up), values no target type can hold, embedding models with several
 * tokens behind a text, what loading refuses.
 * Thread: the caller's, plus its own workers while rows are converted. */
#include "base/sysinfo.h"
#include "config/gguf_write.h"
#include "engine/engine_open.h"
#include "engine/gguf_meta.h"
#include "engine/pooled.h"
#include "engine/tool_quantize.h"
#include "engine/tools.h"
#include "engine/weights.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_MAX_LEN = 128,
    MAX_THREADS = 256,
    SLAB_BYTES = 8 << 20, /* converted at a time: bounds memory, large enough to share out */
    BAND_ROWS = 8         /* rows a worker takes at once */
};

/* What --type means: the type of matrices, of the output matrix, and llama.cpp's number of it. */
struct quantize_target {
    const char *name;
    int base, head;
    int file_type; /* general.file_type */
    bool mix;      /* raise half of attn_v and ffn_down to Q6_K, as llama.cpp's _M mixes do */
};
static const quantize_target targets[] = {
    {"F32", DT_F32, DT_F32, 0, false},      {"F16", DT_F16, DT_F16, 1, false},
    {"BF16", DT_BF16, DT_BF16, 32, false},  {"Q8_0", DT_Q8_0, DT_Q8_0, 7, false},
    {"Q4_0", DT_Q4_0, DT_Q6_K, 2, false},   {"Q5_0", DT_Q5_0, DT_Q6_K, 8, false},
    {"Q4_K", DT_Q4_K, DT_Q6_K, 14, false},  {"Q6_K", DT_Q6_K, DT_Q6_K, 18, false},
    {"Q4_K_M", DT_Q4_K, DT_Q6_K, 15, true},
};

const quantize_target *quantize_target_find(const char *word, const char *option, err *e)
{
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (!strcmp(word, targets[i].name)) return &targets[i];
    err_set(e, ERR_INVALID,
            "%s %.32s is not known; accepted: Q8_0, Q4_0, Q5_0, Q4_K, Q6_K, Q4_K_M, F16, BF16, F32",
            option, word);
    return NULL;
}

const char *quantize_target_name(const quantize_target *to)
{
    return to->name;
}

/* ---- which type a tensor gets ------------------------------------------------------------------
 */

/* K types need rows of whole 256s, the others of 32s. */
static int fit_columns(int type, int64_t cols)
{
    if (cols % 256) {
        if (type == DT_Q4_K) type = DT_Q5_0;
        if (type == DT_Q6_K) type = DT_Q8_0;
    }
    return cols % dtype_of(type).elems ? DT_F16 : type;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

/* The layers llama.cpp gives more bits: the first and last eighth and every third between. */
static bool more_bits(int64_t i, int64_t n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

int quantize_type_of(const quantize_target *to, const rule *r, int64_t at, int64_t layers,
                     int64_t cols, bool tied)
{
    if (r->kind == RULE_VEC) return DT_F32;
    bool is_output = !strcmp(r->name, tied ? "model.embed_tokens" : "lm_head");
    bool raise = to->mix && (ends_with(r->name, ".v_proj") || ends_with(r->name, ".down_proj")) &&
                 more_bits(at, layers);
    return fit_columns(is_output ? to->head : raise ? DT_Q6_K : to->base, cols);
}

/* ---- the list of output tensors ----------------------------------------------------------------
 */

typedef struct {
    const ckpt_tensor *src;
    char name[NAME_MAX_LEN]; /* GGUF's */
    int type;
    size_t src_row, out_row; /* bytes */
    int64_t rows, cols;
    bool picked; /* the two rows pick of src, not all */
    int64_t pick[2];
} item;

typedef struct {
    item *v; /* [n] owned */
    size_t n;
} plan;

/* The next item, but for its name. */
static int add_item(plan *p, const ckpt_tensor *t, int type, err *e)
{
    item *it = &p->v[p->n];
    *it = (item){.src = t, .type = type};
    it->rows = t->n_dims == 1 ? 1 : t->dim[0];
    it->cols = t->dim[t->n_dims - 1];
    if (!dtype_row_bytes(t->type, it->cols, &it->src_row) ||
        !dtype_row_bytes(type, it->cols, &it->out_row))
        return err_set(e, ERR_FORMAT, "tensor %s: rows of %" PRId64 " cannot be %s", t->name,
                       it->cols, dtype_of(type).name);
    if (dtype_of(t->type).elems > 1 && dtype_of(type).elems > 1 && type != t->type)
        return err_set(e, ERR_UNSUPPORTED,
                       "tensor %s is already %s: quantise from the F32, F16 or BF16 checkpoint",
                       t->name, dtype_of(t->type).name);
    p->n++;
    return 0;
}

static int add_ruled(plan *p, const ckpt_tensor *t, const rule *r, int at, const char *suffix,
                     int type, err *e)
{
    int rc = add_item(p, t, type, e);
    if (!rc) arch_tensor_name(r, true, at, suffix, p->v[p->n - 1].name, NAME_MAX_LEN);
    return rc;
}

/* What judges documents, in full precision: a tensor of its own as it stands, else the rows of yes
 * and no in the labels' order. */
static int add_judge(plan *p, const checkpoint *c, const tokenizer *tok, err *e)
{
    pool_rows r;
    int rc = pool_rows_find(&r, c, tok, e);
    if (!rc && r.t) rc = add_item(p, r.t, DT_F32, e);
    if (rc || !r.t) return rc;
    item *it = &p->v[p->n - 1];
    snprintf(it->name, sizeof it->name, "%s", POOL_GGUF_TENSOR);
    it->picked = checkpoint_config(c)->pool.score != SCORE_TENSOR;
    if (!it->picked) return 0;
    it->rows = 2;
    it->pick[checkpoint_config(c)->pool.no_first] = r.yes;
    it->pick[!checkpoint_config(c)->pool.no_first] = r.no;
    return 0;
}

/* Tensors in the order of the rules: globals, then layer by layer.  What generates nothing is run
 * without an output matrix, and may lack one. */
static int make_plan(plan *p, const checkpoint *c, const arch *a, const quantize_target *to,
                     bool tied, err *e)
{
    const model_config *conf = checkpoint_config(c);
    bool is_gguf = checkpoint_is_gguf(c);
    p->v = calloc(checkpoint_n_tensors(c) + 2, sizeof *p->v);
    if (!p->v) return err_set(e, ERR_NOMEM, "out of memory for the list of tensors");
    for (int at = -1; at < (int)conf->layers; at++)
        for (const rule *r = a->rules; r->kind != RULE_END; r++) {
            bool unused = (tied || !conf->pool.generates) && !strcmp(r->name, "lm_head");
            if (r->per_layer != (at >= 0) || unused) continue;
            char name[NAME_MAX_LEN];
            arch_tensor_name(r, is_gguf, at, "weight", name, sizeof name);
            const ckpt_tensor *t = checkpoint_find(c, name);
            int64_t cols = t->dim[t->n_dims - 1];
            int rc = add_ruled(p, t, r, at, "weight",
                               quantize_type_of(to, r, at, conf->layers, cols, tied), e);
            if (!rc && weights_has_bias(r, c, at)) {
                arch_tensor_name(r, is_gguf, at, "bias", name, sizeof name);
                rc = add_ruled(p, checkpoint_find(c, name), r, at, "bias", DT_F32, e);
            }
            if (rc) return rc;
        }
    return 0;
}

/* ---- conversion --------------------------------------------------------------------------------
 */

typedef struct {
    const item *it;
    int64_t row0, rows; /* this slab */
    unsigned char *out; /* [rows][out_row] */
    _Atomic int64_t next;
    _Atomic int rc; /* first failure */
} slab;

static int convert_row(const item *it, const unsigned char *src, float *f, unsigned char *out)
{
    if (it->type == it->src->type) {
        memcpy(out, src, it->out_row);
        return 0;
    }
    dequant_row(it->src->type, src, f, it->cols);
    if (it->type == DT_F16)
        for (int64_t i = 0; i < it->cols; i++)
            if (fabsf(f[i]) >= 65520) return ERR_LIMIT; /* would round to infinity */
    return quant_row(it->type, f, out, it->cols);
}

static void *convert_rows(void *arg)
{
    slab *s = arg;
    const unsigned char *src = s->it->src->data;
    float *f = malloc((size_t)s->it->cols * sizeof *f);
    if (!f) atomic_store(&s->rc, ERR_NOMEM);
    for (int64_t r; f && (r = atomic_fetch_add(&s->next, BAND_ROWS)) < s->rows;)
        for (int64_t i = r; i < r + BAND_ROWS && i < s->rows; i++) {
            int64_t row = s->it->picked ? s->it->pick[s->row0 + i] : s->row0 + i;
            int rc = convert_row(s->it, src + (size_t)row * s->it->src_row, f,
                                 s->out + (size_t)i * s->it->out_row);
            if (rc) atomic_store(&s->rc, rc);
        }
    free(f);
    return NULL;
}

static int convert_slab(slab *s, int threads, err *e)
{
    pthread_t th[MAX_THREADS];
    int started = 0;
    int64_t bands = (s->rows + BAND_ROWS - 1) / BAND_ROWS;
    while (started + 1 < threads && started + 1 < bands &&
           !pthread_create(&th[started], NULL, convert_rows, s))
        started++;
    convert_rows(s); /* the caller works too: fewer threads only take longer */
    while (started > 0) pthread_join(th[--started], NULL);
    const char *name = s->it->src->name, *to = dtype_of(s->it->type).name;
    switch (atomic_load(&s->rc)) {
    case 0: return 0;
    case ERR_NOMEM: return err_set(e, ERR_NOMEM, "out of memory while converting tensor %s", name);
    case ERR_LIMIT:
        return err_set(e, ERR_LIMIT, "tensor %s has values above 65504, beyond F16: use BF16",
                       name);
    default:
        return err_set(e, ERR_FORMAT, "tensor %s has values (NaN, infinity) that %s cannot hold",
                       name, to);
    }
}

static int write_tensor(gguf_writer *w, const item *it, int threads, unsigned char *out, err *e)
{
    int64_t most = SLAB_BYTES / (int64_t)it->out_row;
    if (most < 1) most = 1;
    for (int64_t row = 0; row < it->rows; row += most) {
        slab s = {.it = it, .row0 = row, .out = out};
        s.rows = it->rows - row < most ? it->rows - row : most;
        int rc = convert_slab(&s, threads, e);
        if (!rc) rc = gw_data(w, out, (size_t)s.rows * it->out_row, e);
        if (rc) return rc;
    }
    return gw_tensor_end(w, e);
}

static int write_file(gguf_writer *w, const plan *p, const checkpoint *c, const char *path,
                      int threads, void (*progress)(void *, double), void *arg, err *e)
{
    size_t room = SLAB_BYTES;
    uint64_t all = 0, done = 0;
    for (size_t i = 0; i < p->n; i++) {
        const item *it = &p->v[i];
        int64_t dims[2] = {it->cols, it->rows};
        gw_tensor(w, it->name, it->type, it->src->n_dims, dims, (uint64_t)it->rows * it->out_row);
        if (it->out_row > room) room = it->out_row;
        all += it->src->bytes;
    }
    unsigned char *out = malloc(room);
    if (!out) return err_set(e, ERR_NOMEM, "out of memory");
    int rc = gw_begin(w, path, e);
    for (size_t i = 0; !rc && i < p->n; i++) {
        rc = write_tensor(w, &p->v[i], threads, out, e);
        checkpoint_drop(c, p->v[i].src);
        done += p->v[i].src->bytes;
        if (progress) progress(arg, (double)done / (double)all);
    }
    free(out);
    return rc ? rc : gw_finish(w, e);
}

/* Embedding models and rerankers mean tokens of their vocabulary; others need none here. */
static int open_tokenizer(tokenizer **tok, const checkpoint *c, err *e)
{
    tokenizer_source src;
    if (checkpoint_config(c)->pool.generates || !engine_text_source(c, &src)) return 0;
    *tok = tokenizer_open(&src, e);
    return *tok ? 0 : e->code;
}

/* *id: the token behind every text, -1 for none. */
static int find_text_end(int32_t *id, const checkpoint *c, const tokenizer *tok, err *e)
{
    int32_t end[2] = {-1, -1};
    int n = tok && checkpoint_config(c)->pool.embeds ? pool_text_end(c, tok, end, 2, e) : 0;
    *id = n ? end[0] : -1;
    if (n < 2) return n < 0 ? n : 0;
    return err_set(e, ERR_UNSUPPORTED,
                   "the tokenizer puts several tokens behind a text, which GGUF has no key for: "
                   "keep the directory form");
}

int tool_quantize(const char *in, const char *out_path, const char *type, int threads,
                  void (*progress)(void *, double), void *arg, err *e)
{
    const quantize_target *to = quantize_target_find(type, "--type", e);
    if (!to) return ERR_INVALID;
    if (threads <= 0) threads = sys_cpus();
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    checkpoint_options o = {.weights = true};
    checkpoint *c = checkpoint_open(in, &o, e);
    if (!c) return e->code;
    gguf_writer w;
    plan p = {0};
    weights_summary s;
    gw_init(&w);
    const arch *a = weights_arch(c, e);
    int rc = a ? weights_check(a, c, NULL, &s, e) : e->code;
    tokenizer *tok = NULL;
    int32_t end = -1;
    if (!rc) rc = open_tokenizer(&tok, c, e);
    if (!rc) rc = find_text_end(&end, c, tok, e);
    if (!rc) rc = make_plan(&p, c, a, to, s.tied, e);
    if (!rc) rc = add_judge(&p, c, tok, e);
    if (!rc) rc = gguf_meta_write(&w, c, a, in, to->file_type, end, e);
    if (!rc) rc = write_file(&w, &p, c, out_path, threads, progress, arg, e);
    gw_clear(&w);
    free(p.v);
    tokenizer_free(tok);
    checkpoint_close(c);
    return rc;
}
