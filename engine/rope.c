/* rope.c - frequency tables of the rope schemes.
 * Arithmetic is f32 in the order Hugging Face uses: an angle is position times frequency, so one
 * unit in the last place of a frequency is 1e-3 rad at position 32768.
 * Owns nothing.  Refuses odd head_dim and factors that cannot be.  Thread: any. */
#include "engine/rope.h"

#include <math.h>

/* theta^(2i/d); the frequency is its reciprocal. */
static float period(double theta, int i, int d)
{
    return powf((float)theta, (float)(2 * i) / (float)d);
}

/* Dimension (counted in pairs) that turns r times over L0 positions; Peng et al., YaRN, eq. 23. */
static double turning_dim(double r, int d, double theta, double l0)
{
    return d * log(l0 / (r * 2 * M_PI)) / (2 * log(theta));
}

static void yarn(float *inv_freq, const rope_config *c, int d)
{
    double l0 = (double)c->original_ctx;
    double low = fmax(floor(turning_dim(c->beta_fast, d, c->theta, l0)), 0);
    double high = fmin(ceil(turning_dim(c->beta_slow, d, c->theta, l0)), d - 1);
    if (low == high) high += 0.001;
    for (int i = 0; i < d / 2; i++) {
        float p = period(c->theta, i, d);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1.0f - fminf(fmaxf(ramp, 0.0f), 1.0f);
        inv_freq[i] = (1.0f / ((float)c->factor * p)) * (1.0f - keep) + (1.0f / p) * keep;
    }
}

/* Raised base of "dynamic NTK" at length ctx; l0 is the trained length. */
static double dynamic_theta(const rope_config *c, int d, int64_t l0, int64_t ctx)
{
    if (ctx <= l0) return c->theta;
    double grow = c->factor * (double)ctx / (double)l0 - (c->factor - 1);
    return c->theta * pow(grow, (double)d / (d - 2));
}

static int check(const model_config *c, err *e)
{
    const rope_config *r = &c->rope;
    if (c->head_dim < 2 || c->head_dim % 2)
        return err_set(e, ERR_INVALID, "head_dim is %lld; rotary embedding needs an even one",
                       (long long)c->head_dim);
    if (!isfinite(r->theta) || r->theta <= 1)
        return err_set(e, ERR_INVALID, "rope_theta is %g; it must be above 1", r->theta);
    if (r->kind != ROPE_PLAIN && (!isfinite(r->factor) || r->factor < 1))
        return err_set(e, ERR_INVALID, "rope_scaling factor is %g; it must be at least 1",
                       r->factor);
    if (r->kind == ROPE_DYNAMIC && c->head_dim < 4)
        return err_set(e, ERR_INVALID, "dynamic rope_scaling needs a head_dim of at least 4");
    if (r->kind != ROPE_YARN) return 0;
    if (r->original_ctx < 1)
        return err_set(e, ERR_INVALID,
                       "rope_scaling original_max_position_embeddings is %lld; YaRN needs it",
                       (long long)r->original_ctx);
    if (!(r->beta_fast > 0) || !(r->beta_slow > 0) || r->beta_fast < r->beta_slow)
        return err_set(e, ERR_INVALID,
                       "rope_scaling beta_fast %g and beta_slow %g: both must be positive, "
                       "beta_fast at least beta_slow",
                       r->beta_fast, r->beta_slow);
    return 0;
}

int rope_init(rope_spec *r, float *inv_freq, const model_config *c, int64_t ctx, err *e)
{
    int rc = check(c, e);
    if (rc) return rc;
    const rope_config *k = &c->rope;
    int d = (int)c->head_dim;
    double theta = k->kind == ROPE_DYNAMIC
                       ? dynamic_theta(k, d, k->original_ctx > 0 ? k->original_ctx : c->ctx, ctx)
                       : k->theta;
    float divide = k->kind == ROPE_LINEAR ? (float)k->factor : 1.0f;
    for (int i = 0; i < d / 2; i++) inv_freq[i] = 1.0f / period(theta, i, d) / divide;
    *r = (rope_spec){.dim = d, .inv_freq = inv_freq, .scale = 1};
    if (k->kind == ROPE_YARN) {
        yarn(inv_freq, k, d);
        r->scale = (float)(k->attn_factor > 0 ? k->attn_factor : 0.1 * log(k->factor) + 1);
    }
    return 0;
}
