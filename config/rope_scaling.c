/* rope_scaling.c - how positions are stretched beyond the length a model was trained on.
 * Owns nothing.  Refuses: kinds and parameters we would compute wrongly, by name.
 * Sources of the meaning: YaRN (arXiv 2309.00071), transformers' modeling_rope_utils, GGUF's
 * rope.scaling keys.  Thread: the caller's. */
#include "config/rope_scaling.h"

#include "config/gguf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double MAX_FACTOR = 4096;
static const int64_t MAX_CTX = INT32_MAX;

/* cos and sin are multiplied by this; DeepSeek's mscale pair replaces YaRN's own rule. */
static double mscale_of(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static bool read_kind(fields *f, rope_kind *kind)
{
    static const struct {
        const char *word;
        rope_kind kind;
    } kinds[] = {{"default", ROPE_PLAIN},
                 {"linear", ROPE_LINEAR},
                 {"dynamic", ROPE_DYNAMIC},
                 {"yarn", ROPE_YARN}};
    const char *name = fields_get(f, "rope_type") ? "rope_type" : "type";
    const json *word = fields_get(f, name);
    *kind = ROPE_PLAIN;
    if (!word) {
        if (fields_get(f, "factor")) fields_need(f, "rope_type");
        return false;
    }
    for (size_t i = 0; json_is(word, JSON_STRING) && i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(word->str, kinds[i].word) != 0) continue;
        *kind = kinds[i].kind;
        return true;
    }
    fields_fault(f, name, word, "one of default, linear, dynamic, yarn");
    return false;
}

static void read_yarn(fields *f, model_config *c)
{
    rope_config *r = &c->rope;
    double mscale = 0, mscale_all = 0;
    bool truncate = true;
    if (!fields_int(f, "original_max_position_embeddings", 1, MAX_CTX, &r->original_ctx) && !f->rc)
        r->original_ctx = c->ctx;
    if (!fields_get(f, "factor")) r->factor = (double)c->ctx / (double)r->original_ctx;
    fields_num(f, "beta_fast", 1e-3, 1e6, &r->beta_fast);
    fields_num(f, "beta_slow", 1e-3, 1e6, &r->beta_slow);
    fields_num(f, "mscale", 0, 100, &mscale);
    fields_num(f, "mscale_all_dim", 0, 100, &mscale_all);
    if (mscale > 0 && mscale_all > 0)
        r->attn_factor = mscale_of(r->factor, mscale) / mscale_of(r->factor, mscale_all);
    fields_num(f, "attention_factor", 1e-3, 1e3, &r->attn_factor);
    fields_bool(f, "truncate", &truncate);
    if (!truncate) fields_fault(f, "truncate", fields_get(f, "truncate"), "true");
    if (r->beta_fast < r->beta_slow)
        fields_fault(f, "beta_fast", fields_get(f, "beta_fast"), "at least beta_slow");
}

/* Positions the stretched model covers. */
static void stretch(model_config *c)
{
    double reach = (double)c->rope.original_ctx * c->rope.factor;
    if (reach > (double)MAX_CTX) reach = (double)MAX_CTX;
    if (c->rope.kind != ROPE_PLAIN && (int64_t)reach > c->ctx) c->ctx = (int64_t)reach;
}

void rope_scaling_read(fields *f, model_config *c)
{
    double theta = c->rope.theta, partial = 1;
    rope_kind kind;
    fields_num(f, "rope_theta", 1.001, 1e15, &theta);
    c->rope = (rope_config){
        .theta = theta, .factor = 1, .original_ctx = c->ctx, .beta_fast = 32, .beta_slow = 1};
    fields_num(f, "partial_rotary_factor", 0, 1, &partial);
    if (partial != 1)
        fields_fault(f, "partial_rotary_factor", fields_get(f, "partial_rotary_factor"),
                     "1 (every dimension rotates)");
    if (!read_kind(f, &kind) || kind == ROPE_PLAIN || f->rc) return;
    if (kind != ROPE_YARN || !fields_get(f, "original_max_position_embeddings"))
        fields_need(f, "factor");
    fields_num(f, "factor", 1, MAX_FACTOR, &c->rope.factor);
    c->rope.kind = kind;
    if (kind == ROPE_YARN) read_yarn(f, c);
    if (c->rope.factor < 1) c->rope.factor = 1; /* a ratio below one stretches nothing */
    if (!f->rc) stretch(c);
}

/* {arch}.<key> as a number, `fallback` if absent. */
static double meta_num(const gguf *g, const char *arch, const char *key, double fallback)
{
    char name[160];
    double v;
    snprintf(name, sizeof name, "%s.%s", arch, key);
    return gguf_get_num(g, name, &v) ? v : fallback;
}

static int gguf_kind(rope_config *r, const gguf *g, const char *arch, err *e)
{
    char name[160];
    gguf_str word;
    snprintf(name, sizeof name, "%s.rope.scaling.type", arch);
    double old = meta_num(g, arch, "rope.scale_linear", 1); /* files before rope.scaling.* */
    if (!gguf_get_str(g, name, &word)) {
        r->kind = old != 1 ? ROPE_LINEAR : ROPE_PLAIN;
        r->factor = old;
        return 0;
    }
    if (word.n == 4 && !memcmp(word.v, "none", 4)) r->kind = ROPE_PLAIN;
    else if (word.n == 6 && !memcmp(word.v, "linear", 6)) r->kind = ROPE_LINEAR;
    else if (word.n == 4 && !memcmp(word.v, "yarn", 4)) r->kind = ROPE_YARN;
    else
        return err_set(e, ERR_UNSUPPORTED,
                       "GGUF metadata: '%s' is '%.*s'; none, linear and yarn are supported", name,
                       word.n < 48 ? (int)word.n : 48, word.v);
    r->factor = meta_num(g, arch, "rope.scaling.factor", old);
    return 0;
}

int rope_scaling_from_gguf(model_config *c, const struct gguf *g, const char *arch, err *e)
{
    rope_config *r = &c->rope;
    *r = (rope_config){
        .theta = meta_num(g, arch, "rope.freq_base", 10000), .beta_fast = 32, .beta_slow = 1};
    int rc = gguf_kind(r, g, arch, e);
    if (rc) return rc;
    if (!(r->theta > 1 && r->theta <= 1e15))
        return err_set(e, ERR_INVALID,
                       "GGUF metadata: '%s.rope.freq_base' is %g; a number above 1 is due", arch,
                       r->theta);
    if (r->kind == ROPE_PLAIN) r->factor = 1;
    if (!(r->factor >= 1 && r->factor <= MAX_FACTOR))
        return err_set(e, ERR_INVALID,
                       "GGUF metadata: '%s.rope.scaling.factor' is %g; 1 to %g is accepted", arch,
                       r->factor, MAX_FACTOR);
    double original = meta_num(g, arch, "rope.scaling.original_context_length", (double)c->ctx);
    if (!(original >= 1 && original <= (double)MAX_CTX))
        return err_set(e, ERR_INVALID,
                       "GGUF metadata: '%s.rope.scaling.original_context_length' is %g", arch,
                       original);
    r->original_ctx = (int64_t)original;
    if (r->kind != ROPE_YARN) return 0;
    r->beta_fast = meta_num(g, arch, "rope.scaling.yarn_beta_fast", 32);
    r->beta_slow = meta_num(g, arch, "rope.scaling.yarn_beta_slow", 1);
    double ext = meta_num(g, arch, "rope.scaling.yarn_ext_factor", 1),
           attn = meta_num(g, arch, "rope.scaling.attn_factor", 1);
    if (ext != 1 && ext != -1)
        return err_set(
            e, ERR_UNSUPPORTED,
            "GGUF metadata: '%s.rope.scaling.yarn_ext_factor' is %g; only 1 is supported", arch,
            ext);
    if (!(attn > 0 && attn <= 1e3) ||
        !(r->beta_slow > 0 && r->beta_fast >= r->beta_slow && r->beta_fast <= 1e6))
        return err_set(
            e, ERR_INVALID,
            "GGUF metadata: '%s.rope.scaling' has attn_factor %g, beta_fast %g, beta_slow %g", arch,
            attn, r->beta_fast, r->beta_slow);
    r->attn_factor = attn * mscale_of(r->factor, 1); /* GGUF's factor is on top of YaRN's rule */
    return 0;
}
