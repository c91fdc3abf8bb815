/* gguf_meta.c - everything but the tokenizer (gguf_meta_tok.c).  Owns nothing.
 * Refuses: see gguf_meta.h.  Thread: the caller's. */
#include "engine/gguf_meta.h"
#include "base/log.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { KEY_MAX_LEN = 128 };

/* ---- from a GGUF file --------------------------------------------------------------------------
 */

static bool describes_tensors(const char *key)
{
    return !strcmp(key, "general.file_type") || !strcmp(key, "general.quantization_version") ||
           !strcmp(key, "general.alignment") || !strncmp(key, "split.", 6);
}

/* False if an element is of a kind the reader does not hand out. */
static bool copy_array(gguf_writer *w, const gguf *g, const char *key)
{
    gguf_type type;
    size_t n;
    gguf_str s;
    int64_t i;
    double d;
    if (!gguf_get_arr(g, key, &type, &n)) return false;
    bool is_str = type == GGUF_STR, is_num = type == GGUF_F32 || type == GGUF_F64;
    for (size_t k = 0; k < n; k++)
        if (is_str   ? !gguf_arr_str(g, key, k, &s)
            : is_num ? !gguf_arr_num(g, key, k, &d)
                     : !gguf_arr_int(g, key, k, &i))
            return false;
    gw_array(w, key, type, n);
    for (size_t k = 0; k < n; k++) {
        if (is_str && gguf_arr_str(g, key, k, &s)) gw_item_str(w, s.v, s.n);
        else if (is_num && gguf_arr_num(g, key, k, &d)) gw_item_num(w, type, d);
        else if (gguf_arr_int(g, key, k, &i)) gw_item_int(w, type, i);
    }
    return true;
}

static bool copy_key(gguf_writer *w, const gguf *g, const char *key, gguf_type type)
{
    gguf_str s;
    bool b;
    double d;
    int64_t i;
    if (type == GGUF_ARR) return copy_array(w, g, key);
    if (type == GGUF_STR && gguf_get_str(g, key, &s)) gw_str(w, key, s.v, s.n);
    else if (type == GGUF_BOOL && gguf_get_bool(g, key, &b)) gw_int(w, key, type, b);
    else if ((type == GGUF_F32 || type == GGUF_F64) && gguf_get_num(g, key, &d))
        gw_num(w, key, type, d);
    else if (gguf_get_int(g, key, &i)) gw_int(w, key, type, i);
    else return false;
    return true;
}

static void copy_all(gguf_writer *w, const gguf *g)
{
    gguf_str k;
    gguf_type type;
    for (size_t i = 0; i < gguf_n_kv(g) && gguf_kv_at(g, i, &k, &type); i++) {
        char key[KEY_MAX_LEN];
        int n = snprintf(key, sizeof key, "%.*s", (int)(k.n < sizeof key ? k.n : sizeof key), k.v);
        bool fits = n >= 0 && (size_t)n < sizeof key;
        if (fits && describes_tensors(key)) continue;
        if (!fits || !copy_key(w, g, key, type))
            log_warn("metadata key %.60s is not copied: its kind is not readable", key);
    }
}

/* ---- from a directory --------------------------------------------------------------------------
 */

typedef struct {
    gguf_writer *w;
    const char *arch; /* prefix of the keys */
} meta;

static const char *key_of(const meta *m, const char *tail, char *key)
{
    snprintf(key, KEY_MAX_LEN, "%s.%s", m->arch, tail);
    return key;
}

static void u32(const meta *m, const char *tail, int64_t v)
{
    char key[KEY_MAX_LEN];
    gw_int(m->w, key_of(m, tail, key), GGUF_U32, v);
}

static void f32(const meta *m, const char *tail, double v)
{
    char key[KEY_MAX_LEN];
    gw_num(m->w, key_of(m, tail, key), GGUF_F32, v);
}

static void rope_keys(const meta *m, const rope_config *r)
{
    static const char *const names[] = {[ROPE_LINEAR] = "linear", [ROPE_YARN] = "yarn"};
    char key[KEY_MAX_LEN];
    f32(m, "rope.freq_base", r->theta);
    if (r->kind == ROPE_PLAIN) return;
    gw_str(m->w, key_of(m, "rope.scaling.type", key), names[r->kind], strlen(names[r->kind]));
    f32(m, "rope.scaling.factor", r->factor);
    if (r->original_ctx > 0) u32(m, "rope.scaling.original_context_length", r->original_ctx);
    if (r->kind != ROPE_YARN) return;
    f32(m, "rope.scaling.yarn_beta_fast", r->beta_fast);
    f32(m, "rope.scaling.yarn_beta_slow", r->beta_slow);
    /* GGUF's factor multiplies the usual 0.1 ln(s) + 1; Hugging Face's replaces it. */
    if (r->attn_factor > 0)
        f32(m, "rope.scaling.attn_factor", r->attn_factor / (0.1 * log(r->factor) + 1));
}

static void sampling_keys(gguf_writer *w, const generation_config *g)
{
    const struct {
        bool has;
        const char *key;
        double v;
    } nums[] = {{g->has_temperature, "general.sampling.temp", g->temperature},
                {g->has_top_p, "general.sampling.top_p", g->top_p},
                {g->has_min_p, "general.sampling.min_p", g->min_p},
                {g->has_repetition, "general.sampling.penalty_repeat", g->repetition}};
    for (size_t i = 0; i < sizeof nums / sizeof *nums; i++)
        if (nums[i].has) gw_num(w, nums[i].key, GGUF_F32, nums[i].v);
    if (g->has_top_k) gw_int(w, "general.sampling.top_k", GGUF_I32, g->top_k);
}

/* What the states become.  Rows that judge and are none of the checkpoint's own tensor are written
 * in the order of these labels (tool_quantize.c). */
static void pooling_keys(const meta *m, const pooling *p)
{
    enum { MEAN = 1, CLS, LAST, RANK };
    static const int kinds[] = {[POOL_MEAN] = MEAN, [POOL_CLS] = CLS, [POOL_LAST] = LAST};
    char key[KEY_MAX_LEN];
    if (p->embeds) u32(m, "pooling_type", kinds[p->kind]);
    else if (p->score) u32(m, "pooling_type", RANK);
    if (p->score != SCORE_WORDS && p->score != SCORE_IDS) return;
    gw_array(m->w, key_of(m, "classifier.output_labels", key), GGUF_STR, 2);
    gw_item_str(m->w, "yes", 3);
    gw_item_str(m->w, "no", 2);
}

static int from_directory(gguf_writer *w, const checkpoint *c, const arch *a, const char *path,
                          int32_t text_end, err *e)
{
    const model_config *conf = checkpoint_config(c);
    const meta m = {w, a->model_type};
    if (conf->rope.kind == ROPE_DYNAMIC)
        return err_set(
            e, ERR_UNSUPPORTED,
            "rope_scaling is dynamic, which GGUF has no key for: keep the directory form");
    char name[256], key[KEY_MAX_LEN];
    checkpoint_name(path, name, sizeof name);
    gw_str(w, "general.architecture", m.arch, strlen(m.arch));
    gw_str(w, "general.type", "model", strlen("model"));
    gw_str(w, "general.name", name, strlen(name));
    u32(&m, "block_count", conf->layers);
    u32(&m, "context_length", conf->ctx);
    u32(&m, "embedding_length", conf->hidden);
    u32(&m, "feed_forward_length", conf->ff);
    u32(&m, "attention.head_count", conf->heads);
    u32(&m, "attention.head_count_kv", conf->kv_heads);
    u32(&m, "attention.key_length", conf->head_dim);
    u32(&m, "attention.value_length", conf->head_dim);
    f32(&m, "attention.layer_norm_rms_epsilon", conf->norm_eps);
    u32(&m, "vocab_size", conf->vocab);
    if (!conf->causal) gw_int(w, key_of(&m, "attention.causal", key), GGUF_BOOL, false);
    rope_keys(&m, &conf->rope);
    pooling_keys(&m, &conf->pool);
    sampling_keys(w, &conf->gen);
    return gguf_meta_tokenizer(w, c, text_end, e);
}

int gguf_meta_write(gguf_writer *w, const checkpoint *c, const arch *a, const char *path,
                    int file_type, int32_t text_end, err *e)
{
    int rc = 0;
    if (checkpoint_is_gguf(c)) copy_all(w, checkpoint_gguf(c));
    else rc = from_directory(w, c, a, path, text_end, e);
    gw_u32(w, "general.file_type", (uint32_t)file_type);
    gw_u32(w, "general.quantization_version", 2);
    return rc;
}
