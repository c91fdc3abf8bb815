/* weights.c - walks the rule table twice: once to check and count, once to upload.
 * Owns the uploaded weights until weights_free.  Refuses: see weights.h.  Thread: the loader's. */
#include "engine/weights.h"
#include "engine/engine_open.h"
#include "engine/pooled.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_LEN = 128, MAX_PARTS = 4 };

static const char *const dim_words[DIM_COUNT] = {
    [DIM_HIDDEN] = "hidden_size",
    [DIM_Q] = "num_attention_heads x head_dim",
    [DIM_KV] = "num_key_value_heads x head_dim",
    [DIM_HEAD] = "head_dim",
    [DIM_FF] = "intermediate_size",
    [DIM_VOCAB] = "vocab_size",
};

/* ---- finding and checking one tensor --------------------------------------------------------- */

static const ckpt_tensor *find(const rule *r, const checkpoint *c, int at, const char *suffix)
{
    char name[NAME_MAX_LEN];
    arch_tensor_name(r, checkpoint_is_gguf(c), at, suffix, name, sizeof name);
    return checkpoint_find(c, name);
}

static int missing(const rule *r, const checkpoint *c, int at, const char *suffix, err *e)
{
    char name[NAME_MAX_LEN];
    arch_tensor_name(r, checkpoint_is_gguf(c), at, suffix, name, sizeof name);
    if (!strcmp(name, "lm_head.weight"))
        return err_set(e, ERR_FORMAT,
                       "tensor lm_head.weight is missing and config.json does not say "
                       "tie_word_embeddings: true");
    return err_set(e, ERR_FORMAT, "tensor %s is missing: the checkpoint is incomplete or not a %s",
                   name, checkpoint_config(c)->arch);
}

static int check_shape(const ckpt_tensor *t, const model_config *c, const dim want[2], err *e)
{
    int n = want[1] == DIM_NONE ? 1 : 2;
    int64_t w[2] = {dim_value(c, want[0]), dim_value(c, want[1])};
    if (t->n_dims == n && t->dim[0] == w[0] && (n == 1 || t->dim[1] == w[1])) return 0;
    char got[96] = "";
    for (int i = 0, k = 0; i < t->n_dims && i < 4; i++)
        k += snprintf(got + k, sizeof got - (size_t)k, "%s%" PRId64, i ? ", " : "", t->dim[i]);
    if (n == 1)
        return err_set(e, ERR_FORMAT,
                       "tensor %s has shape [%s]; the config implies [%" PRId64 "] (%s)", t->name,
                       got, w[0], dim_words[want[0]]);
    return err_set(e, ERR_FORMAT,
                   "tensor %s has shape [%s]; the config implies [%" PRId64 ", %" PRId64
                   "] (%s, %s)",
                   t->name, got, w[0], w[1], dim_words[want[0]], dim_words[want[1]]);
}

static int check_type(const ckpt_tensor *t, err *e)
{
    size_t row, want;
    int64_t rows = t->n_dims == 1 ? 1 : t->dim[0], cols = t->n_dims == 1 ? t->dim[0] : t->dim[1];
    if (t->type < 0 || !dtype_of(t->type).name)
        return err_set(
            e, ERR_UNSUPPORTED,
            "tensor %s has type %s; readable are F32, F16, BF16 and the GGUF block types", t->name,
            t->type_name ? t->type_name : "unknown");
    if (!dtype_row_bytes(t->type, cols, &row))
        return err_set(e, ERR_FORMAT, "tensor %s: rows of %" PRId64 " are not whole %s blocks",
                       t->name, cols, dtype_of(t->type).name);
    if (__builtin_mul_overflow(row, (size_t)rows, &want) || want != t->bytes)
        return err_set(e, ERR_FORMAT, "tensor %s holds %zu bytes; its shape and type need %zu",
                       t->name, t->bytes, want);
    return 0;
}

/* The vector as f32, or NULL when out of memory; owned by the caller. */
static float *as_f32(const ckpt_tensor *t)
{
    float *v = malloc((size_t)t->dim[0] * sizeof *v);
    if (v && t->data) dequant_row(t->type, t->data, v, t->dim[0]);
    else if (v) dummy_values(t, v);
    return v;
}

/* Quantisers leave biases of zeros where the model has none. */
static int check_zero(const ckpt_tensor *t, err *e)
{
    float *v = as_f32(t);
    if (!v) return err_set(e, ERR_NOMEM, "out of memory while reading tensor %s", t->name);
    int64_t i = 0;
    while (i < t->dim[0] && v[i] == 0) i++;
    bool zero = i == t->dim[0];
    free(v);
    if (zero) return 0;
    return err_set(e, ERR_UNSUPPORTED, "tensor %s is not zero, but this model has no bias there",
                   t->name);
}

/* The bias to use: *out NULL if there is none. */
static int bias_of(const rule *r, const checkpoint *c, int at, const ckpt_tensor **out, err *e)
{
    const model_config *conf = checkpoint_config(c);
    bool is_gguf = checkpoint_is_gguf(c);
    bool needed = r->bias == BIAS_NEEDED || (r->bias == BIAS_CONFIG && !is_gguf && conf->qkv_bias);
    const ckpt_tensor *t = find(r, c, at, "bias");
    *out = NULL;
    if (!t) return needed ? missing(r, c, at, "bias", e) : 0;
    int rc = check_shape(t, conf, (const dim[2]){r->shape[0], DIM_NONE}, e);
    if (!rc) rc = check_type(t, e);
    if (rc) return rc;
    if (!needed && !(r->bias == BIAS_CONFIG && is_gguf)) return check_zero(t, e);
    *out = t;
    return 0;
}

static int tensor_of(const rule *r, const checkpoint *c, int at, const ckpt_tensor **out, err *e)
{
    const ckpt_tensor *t = *out = find(r, c, at, "weight");
    if (!t) return missing(r, c, at, "weight", e);
    int rc = check_shape(t, checkpoint_config(c), r->shape, e);
    return rc ? rc : check_type(t, e);
}

bool weights_has_bias(const rule *r, const checkpoint *c, int at)
{
    const ckpt_tensor *t;
    return !bias_of(r, c, at, &t, NULL) && t;
}

/* ---- the whole checkpoint -------------------------------------------------------------------- */

const arch *weights_arch(const checkpoint *c, err *e)
{
    const model_config *conf = checkpoint_config(c);
    if (!conf) {
        err_set(e, ERR_NOTFOUND,
                "the checkpoint has no config.json: nothing says what model it is");
        return NULL;
    }
    return arch_find(conf, e);
}

static int n_parts(const rule *r)
{
    int n = 1;
    while (r[n].kind != RULE_END && r[n].per_layer == r->per_layer && r[n].slot == r->slot) n++;
    return n;
}

static bool is_slot(const rule *r, bool per_layer, size_t slot)
{
    return r->per_layer == per_layer && r->slot == slot;
}
#define IS_EMBED(r) is_slot(r, false, offsetof(globals, embed))
#define IS_HEAD(r) is_slot(r, false, offsetof(globals, head))

/* Whether logits come from the embedding.  GGUF: if there is no output tensor.  Hugging Face: if
 * the config ties them; a checkpoint that says so and yet stores another lm_head.weight is run as
 * transformers runs it, with that lm_head.weight. */
static bool find_tied(const arch *a, const checkpoint *c)
{
    const ckpt_tensor *embed = NULL, *head = NULL;
    for (const rule *r = a->rules; r->kind != RULE_END; r++) {
        if (IS_EMBED(r)) embed = find(r, c, -1, "weight");
        if (IS_HEAD(r)) head = find(r, c, -1, "weight");
    }
    if (checkpoint_is_gguf(c)) return !head;
    if (!checkpoint_config(c)->tied) return false;
    return !head || (embed && head->type == embed->type && head->bytes == embed->bytes &&
                     !memcmp(head->data, embed->data, head->bytes));
}

/* Every tensor must belong to a rule, or be known to carry nothing. */
static int check_extra(const arch *a, const checkpoint *c, err *e)
{
    int64_t layers = checkpoint_config(c)->layers;
    for (size_t i = 0; i < checkpoint_n_tensors(c); i++) {
        const ckpt_tensor *t = checkpoint_tensor_at(c, i);
        int64_t at;
        bool bias;
        size_t n = strlen(t->name);
        if (arch_rule_of(a, checkpoint_is_gguf(c), t->name, &at, &bias)) {
            if (at < layers) continue;
            return err_set(e, ERR_FORMAT,
                           "tensor %.160s belongs to layer %" PRId64 ", but the config has %" PRId64
                           " layers",
                           t->name, at, layers);
        }
        /* What judges documents is read by the host (pooling.c). */
        if (checkpoint_config(c)->pool.score == SCORE_TENSOR && !strcmp(t->name, pool_tensor(c)))
            continue;
        /* Old transformers saved this buffer; it follows from rope_theta. */
        static const char buffer[] = "rotary_emb.inv_freq";
        if (n >= sizeof buffer - 1 && !strcmp(t->name + n - (sizeof buffer - 1), buffer)) continue;
        return err_set(
            e, ERR_UNSUPPORTED,
            "unexpected tensor %.160s: a plain %s has none of that name; this is another "
            "architecture or a quantised or adapted checkpoint",
            t->name, a->class_name);
    }
    return 0;
}

typedef struct {
    int64_t params[DT_COUNT]; /* of the layers' matrices, by type */
} type_census;

/* "Q8_0"; "Q4_K_M" for the usual mixes of K types; else the two largest, "Q5_0+Q4_K". */
static void name_types(const type_census *n, char *out, size_t size)
{
    int first = -1, second = -1, kinds = 0;
    bool k_only = true;
    int64_t all = 0;
    for (int i = 0; i < DT_COUNT; i++) {
        if (!n->params[i]) continue;
        all += n->params[i];
        kinds++;
        if (i < DT_Q2_K || i > DT_Q6_K) k_only = false;
        if (first < 0 || n->params[i] > n->params[first]) {
            second = first;
            first = i;
        } else if (second < 0 || n->params[i] > n->params[second]) {
            second = i;
        }
    }
    if (first < 0) snprintf(out, size, "none");
    else if (kinds == 1 || n->params[first] >= all / 20 * 19)
        snprintf(out, size, "%s", dtype_of(first).name);
    else if (k_only && (first == DT_Q4_K || first == DT_Q5_K) && second == DT_Q6_K && kinds == 2)
        snprintf(out, size, "%s_M", dtype_of(first).name);
    else snprintf(out, size, "%s+%s", dtype_of(first).name, dtype_of(second).name);
}

/* Whom a check is for. */
typedef struct {
    const backend *be; /* NULL: device bytes do not matter */
    const shard *share;
} check_for;

/* Checks the n parts of one slot and adds them to the summary. */
static int check_slot(const rule *r, int n, const checkpoint *c, int at, const check_for *who,
                      weights_summary *s, type_census *census, err *e)
{
    int64_t run = 0; /* rows of one type in a row: one segment on the device */
    int run_type = -1;
    for (int p = 0; p < n; p++) {
        const ckpt_tensor *t, *b = NULL;
        int rc = tensor_of(r + p, c, at, &t, e);
        if (!rc) rc = bias_of(r + p, c, at, &b, e);
        if (rc) return rc;
        bool vector = r->kind == RULE_VEC;
        int64_t cols = vector ? 1 : t->dim[1];
        shard_span own_rows, own_cols;
        shard_cut(who->share, checkpoint_config(c), r + p, &own_rows, &own_cols);
        s->n_params += t->dim[0] * cols + (b ? b->dim[0] : 0);
        if (vector || (b && shard_has_bias(who->share, r + p)))
            s->device_bytes += own_rows.n * (int64_t)sizeof(float);
        if (vector) continue;
        if (r->per_layer) census->params[t->type] += t->dim[0] * cols;
        run = t->type == run_type ? run + own_rows.n : own_rows.n;
        run_type = t->type;
        bool ends = p + 1 == n || find(r + p + 1, c, at, "weight") == NULL ||
                    find(r + p + 1, c, at, "weight")->type != t->type;
        if (who->be && ends)
            s->device_bytes += (int64_t)who->be->op->weight_bytes(t->type, run, own_cols.n);
    }
    return 0;
}

int weights_check(const arch *a, const checkpoint *c, const backend *be, weights_summary *s, err *e)
{
    const shard whole = shard_make(checkpoint_config(c), (shard_units){1, 1}, 1, 0);
    return weights_check_share(a, c, be, &whole, s, e);
}

int weights_check_share(const arch *a, const checkpoint *c, const backend *be, const shard *share,
                        weights_summary *s, err *e)
{
    const check_for who = {be, share};
    const model_config *conf = checkpoint_config(c);
    type_census census = {{0}};
    *s = (weights_summary){.tied = find_tied(a, c)};
    int rc = check_extra(a, c, e);
    for (const rule *r = a->rules; !rc && r->kind != RULE_END; r += n_parts(r)) {
        if (IS_HEAD(r) && (s->tied || !conf->pool.generates)) continue;
        int64_t times = r->per_layer ? conf->layers : 1;
        for (int64_t i = 0; !rc && i < times; i++)
            rc = check_slot(r, n_parts(r), c, r->per_layer ? (int)i : -1, &who, s, &census, e);
    }
    name_types(&census, s->quantization, sizeof s->quantization);
    if (!be) s->device_bytes = 0;
    return rc;
}

shard_units weights_units(const arch *a, const checkpoint *c)
{
    shard_units u = {1, 1};
    for (const rule *r = a->rules; r->kind != RULE_END; r++)
        for (int64_t i = 0; r->cut == SPLIT_IN && i < checkpoint_config(c)->layers; i++) {
            const ckpt_tensor *t = find(r, c, (int)i, "weight");
            int elems = t ? dtype_of(t->type).elems : 1;
            int *unit = r->shape[1] == DIM_Q ? &u.q : &u.ff;
            if (elems > *unit) *unit = elems; /* 1, 32, 64, 256: each divides the next */
        }
    return u;
}

/* ---- upload ---------------------------------------------------------------------------------- */

typedef struct {
    const checkpoint *c;
    backend *be;
    const shard *share;
    uint8_t *cut; /* columns of one matrix, where a rank holds not all of them */
    size_t cut_cap;
    uint64_t done, all; /* source bytes */
    _Atomic double *progress;
} load_state;

static void source_done(load_state *l, const ckpt_tensor *t)
{
    checkpoint_drop(l->c, t);
    l->done += t->bytes;
    if (l->progress && l->all)
        atomic_store(l->progress, l->done < l->all ? (double)l->done / (double)l->all : 1);
}

static int load_vec(load_state *l, const rule *r, int at, vec *v, err *e)
{
    const ckpt_tensor *t;
    int rc = tensor_of(r, l->c, at, &t, e);
    if (rc) return rc;
    float *f = as_f32(t);
    if (!f) return err_set(e, ERR_NOMEM, "out of memory while reading tensor %s", t->name);
    rc = k_upload_vec(l->be, v, f, (int)t->dim[0], e);
    free(f);
    if (rc) return err_prefix(e, "tensor %s", t->name);
    source_done(l, t);
    return 0;
}

/* The rank's columns of t, in l->cut; valid until the next call. */
static const void *cut_columns(load_state *l, const ckpt_tensor *t, shard_span rows,
                               shard_span cols)
{
    size_t row, from, own, bytes;
    if (!dtype_row_bytes(t->type, t->dim[1], &row) || !dtype_row_bytes(t->type, cols.at, &from) ||
        !dtype_row_bytes(t->type, cols.n, &own))
        assert(!"shard_check looked at the blocks");
    if (__builtin_mul_overflow((size_t)rows.n, own, &bytes)) return NULL;
    if (bytes > l->cut_cap) {
        free(l->cut);
        l->cut = malloc(bytes);
        l->cut_cap = l->cut ? bytes : 0;
        if (!l->cut) return NULL;
    }
    const uint8_t *src = (const uint8_t *)t->data + (size_t)rows.at * row + from;
    for (int64_t i = 0; i < rows.n; i++, src += row) memcpy(l->cut + (size_t)i * own, src, own);
    return l->cut;
}

/* The rank's share of t as a part to upload; only the single part of a slot may be cut by columns.
 */
static int cut_part(load_state *l, const rule *r, const ckpt_tensor *t, const float *bias,
                    weight_part *part, int *in, err *e)
{
    shard_span rows, cols;
    size_t row;
    shard_cut(l->share, checkpoint_config(l->c), r, &rows, &cols);
    *in = (int)cols.n;
    *part = (weight_part){.type = t->type, .rows = (int)rows.n};
    if (bias && shard_has_bias(l->share, r)) part->bias = bias + rows.at;
    if (!t->data) return 0; /* made up by whoever uploads */
    if (!dtype_row_bytes(t->type, t->dim[1], &row)) assert(!"checked by check_type");
    if (cols.n == t->dim[1]) part->data = (const uint8_t *)t->data + (size_t)rows.at * row;
    else part->data = cut_columns(l, t, rows, cols);
    return part->data ? 0 : err_set(e, ERR_NOMEM, "out of memory while reading tensor %s", t->name);
}

static int load_matrix(load_state *l, const rule *r, int n, int at, weight *w, err *e)
{
    weight_part parts[MAX_PARTS] = {{0}};
    const ckpt_tensor *src[MAX_PARTS] = {0}, *bias_src[MAX_PARTS] = {0};
    float *bias[MAX_PARTS] = {0};
    int rc = 0, in = 0;
    for (int p = 0; !rc && p < n; p++) {
        rc = tensor_of(r + p, l->c, at, &src[p], e);
        if (!rc) rc = bias_of(r + p, l->c, at, &bias_src[p], e);
        if (!rc && bias_src[p] && !(bias[p] = as_f32(bias_src[p])))
            rc = err_set(e, ERR_NOMEM, "out of memory while reading tensor %s", bias_src[p]->name);
        if (!rc) rc = cut_part(l, r + p, src[p], bias[p], &parts[r[p].part], &in, e);
    }
    if (!rc) {
        bool real = src[0]->data != NULL;
        uint64_t seed = real ? 0 : dummy_seed(src[0]) + (uint64_t)l->share->rank;
        rc = real ? k_upload_weight(l->be, w, parts, n, in, r->join, e)
                  : k_dummy_weight(l->be, w, parts, n, in, r->join, seed, e);
        if (rc) err_prefix(e, "tensor %s", src[0]->name);
    }
    for (int p = 0; p < n; p++) {
        free(bias[p]);
        if (rc) continue;
        source_done(l, src[p]);
        if (bias_src[p]) source_done(l, bias_src[p]);
    }
    return rc;
}

/* All slots of layer `at` (-1: the globals) into base, which is a layer or the globals. */
static int load_slots(load_state *l, const arch *a, int at, bool tied, char *base, err *e)
{
    bool generates = checkpoint_config(l->c)->pool.generates;
    for (const rule *r = a->rules; r->kind != RULE_END; r += n_parts(r)) {
        if (r->per_layer != (at >= 0) || (IS_HEAD(r) && (tied || !generates))) continue;
        int n = n_parts(r), rc;
        if (r->kind == RULE_VEC) rc = load_vec(l, r, at, (vec *)(void *)(base + r->slot), e);
        else rc = load_matrix(l, r, n, at, (weight *)(void *)(base + r->slot), e);
        if (rc) return rc;
    }
    return 0;
}

int weights_load(weights *w, const arch *a, const checkpoint *c, backend *be, const shard *share,
                 _Atomic double *progress, err *e)
{
    weights_summary s;
    *w = (weights){0};
    int rc = weights_check(a, c, NULL, &s, e);
    if (rc) return rc;
    w->tied = s.tied;
    w->n_layers = (int)checkpoint_config(c)->layers;
    w->layers = calloc((size_t)w->n_layers, sizeof *w->layers);
    if (!w->layers) return err_set(e, ERR_NOMEM, "out of memory for %d layers", w->n_layers);
    load_state l = {.c = c, .be = be, .share = share, .progress = progress};
    for (size_t i = 0; i < checkpoint_n_tensors(c); i++) l.all += checkpoint_tensor_at(c, i)->bytes;
    rc = load_slots(&l, a, -1, w->tied, (char *)&w->g, e);
    for (int i = 0; !rc && i < w->n_layers; i++)
        rc = load_slots(&l, a, i, w->tied, (char *)&w->layers[i], e);
    free(l.cut);
    if (share->world > 1) {
        w->g.embed.row0 = (int)share->vocab.at;
        w->g.embed.rows_all = (int)checkpoint_config(c)->vocab;
    }
    if (rc) weights_free(w, be);
    else if (progress) atomic_store(progress, 1);
    return rc;
}

void weights_free(weights *w, backend *be)
{
    for (int i = 0; w->layers && i < w->n_layers; i++) {
        layer *l = &w->layers[i];
        vec *v[] = {&l->attn_norm, &l->q_norm, &l->k_norm, &l->ffn_norm};
        weight *m[] = {&l->qkv, &l->o, &l->gate_up, &l->down};
        for (size_t k = 0; k < sizeof v / sizeof *v; k++)
            if (v[k]->v) k_release_vec(be, v[k]);
        for (size_t k = 0; k < sizeof m / sizeof *m; k++)
            if (m[k]->n_seg) k_release_weight(be, m[k]);
    }
    if (w->g.embed.n_seg) k_release_weight(be, &w->g.embed);
    if (w->g.head.n_seg) k_release_weight(be, &w->g.head);
    if (w->g.norm.v) k_release_vec(be, &w->g.norm);
    free(w->layers);
    *w = (weights){0};
}
