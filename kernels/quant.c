/* quant.c - owns the conversion of f32 rows into the formats `quern quantize` writes.
 * Scales are searched, not just taken from the largest value: a few candidates around it are tried,
 * each refined by weighted least squares, and the one with the least error is kept.  Codes are
 * chosen last, against the scale as it is stored.
 * Refuses types it does not write (ERR_UNSUPPORTED), partial blocks (ERR_INVALID) and rows whose
 * values or scales the format cannot hold (NaN, infinity, beyond f16: ERR_FORMAT).  Any thread. */
#include "kernels/formats.h"
#include "kernels/kernels.h"

#include <math.h>

enum { CANDIDATES = 19, MIDDLE = CANDIDATES / 2 };
/* No format holds more: 128 times the largest f16.  It also keeps the sums below from overflowing.
 */
static const float LARGEST = 128 * 65504.0f;

static void put16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, 2);
}
static float clampf(float x, float lo, float hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}
/* What an error at x[i] costs: large weights matter more, small ones not nothing. */
static void importance(const float *x, float *w, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    float rms = sqrtf(sum / (float)n);
    for (int i = 0; i < n; i++) w[i] = rms + fabsf(x[i]);
}
/* The value of largest magnitude, with its sign. */
static float extreme(const float *x, int n)
{
    float best = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(best)) best = x[i];
    return best;
}

/* Scale d of x = d * q with q in [-bias, bias - 1]; negative where the extreme fits better at
 * -bias. For a given q the best d is sum(wxq) / sum(wqq) and its gain sum(wxq)^2 / sum(wqq). */
static float fit_symmetric(const float *x, int n, int bias)
{
    float w[32], best_gain = 0, best = 0, ext = extreme(x, n);
    if (ext == 0) return 0;
    importance(x, w, n);
    for (int c = 0; c < 2 * CANDIDATES; c++) {
        float reach = (float)bias + 0.1f * (float)(c / 2 - MIDDLE);
        float inv = (c & 1 ? reach : -reach) / ext, xq = 0, qq = 0;
        for (int i = 0; i < n; i++) {
            float q = clampf(rintf(x[i] * inv), (float)-bias, (float)(bias - 1));
            xq += w[i] * x[i] * q;
            qq += w[i] * q * q;
        }
        if (qq > 0 && xq * xq > best_gain * qq) {
            best_gain = xq * xq / qq;
            best = xq / qq;
        }
    }
    return best;
}

/* d and m of x = d * q - m with q in [0, top]; m >= 0 if positive_min.  Least squares in both for
 * each candidate; a negative m is replaced by 0 and d fitted again. */
static void fit_affine(const float *x, int n, int top, bool positive_min, float *d, float *m)
{
    float w[32], lo = x[0], hi = x[0], best = INFINITY;
    for (int i = 1; i < n; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    if (positive_min && lo > 0) lo = 0;
    *d = 0;
    *m = -lo;
    if (hi <= lo) return;
    importance(x, w, n);
    for (int c = 0; c < CANDIDATES; c++) {
        float inv = ((float)top + 0.1f * (float)(c - MIDDLE)) / (hi - lo);
        float s1 = 0, sq = 0, sqq = 0, sx = 0, sxq = 0, sxx = 0;
        for (int i = 0; i < n; i++) {
            float q = clampf(rintf((x[i] - lo) * inv), 0, (float)top);
            s1 += w[i];
            sq += w[i] * q;
            sqq += w[i] * q * q;
            sx += w[i] * x[i];
            sxq += w[i] * x[i] * q;
            sxx += w[i] * x[i] * x[i];
        }
        float det = s1 * sqq - sq * sq;
        float dd = (s1 * sxq - sx * sq) / det, mm = (sq * sxq - sqq * sx) / det;
        if (det <= 0 && !positive_min) continue;
        if (positive_min && !(det > 0 && mm >= 0)) {
            mm = 0;
            dd = sxq / sqq;
        }
        float loss =
            sxx + dd * dd * sqq + mm * mm * s1 - 2 * dd * sxq + 2 * mm * sx - 2 * dd * mm * sq;
        if (dd > 0 && loss < best) {
            best = loss;
            *d = dd;
            *m = mm;
        }
    }
}

/* Codes of x against value = scale * (code - bias) - min, within [0, top]. */
static void choose_codes(const float *x, int n, float scale, float min, int bias, int top,
                         uint8_t *code)
{
    float inv = scale != 0 ? 1 / scale : 0;
    for (int i = 0; i < n; i++)
        code[i] = (uint8_t)clampf(rintf((x[i] + min) * inv) + (float)bias, 0, (float)top);
}
static void put_nibbles(const uint8_t code[32], uint8_t *q)
{
    for (int i = 0; i < 16; i++) q[i] = (uint8_t)((code[i] & 15) | code[16 + i] << 4);
}
static void put_fifth_bits(const uint8_t code[32], uint8_t *p)
{
    uint32_t high = 0;
    for (int i = 0; i < 32; i++) high |= (uint32_t)(code[i] >> 4 & 1) << i;
    memcpy(p, &high, 4);
}

static bool quant_q8_0(const float *x, uint8_t *b)
{
    uint16_t h = f32_to_f16(fabsf(extreme(x, 32)) / 127);
    float d = f16_to_f32(h), inv = d > 0 ? 1 / d : 0;
    put16(b, h);
    for (int i = 0; i < 32; i++) b[2 + i] = (uint8_t)(int8_t)clampf(rintf(x[i] * inv), -127, 127);
    return isfinite(d);
}
/* Q4_0 and Q5_0. */
static bool quant_symmetric(const float *x, uint8_t *b, int bits)
{
    uint8_t code[32];
    int bias = 1 << (bits - 1);
    uint16_t h = f32_to_f16(fit_symmetric(x, 32, bias));
    choose_codes(x, 32, f16_to_f32(h), 0, bias, 2 * bias - 1, code);
    put16(b, h);
    if (bits == 5) put_fifth_bits(code, b + 2);
    put_nibbles(code, b + (bits == 5 ? 6 : 2));
    return isfinite(f16_to_f32(h));
}
/* Q4_1 and Q5_1. */
static bool quant_affine(const float *x, uint8_t *b, int bits)
{
    uint8_t code[32];
    float d, m;
    fit_affine(x, 32, (1 << bits) - 1, false, &d, &m);
    uint16_t hd = f32_to_f16(d), hm = f32_to_f16(-m);
    choose_codes(x, 32, f16_to_f32(hd), -f16_to_f32(hm), 0, (1 << bits) - 1, code);
    put16(b, hd);
    put16(b + 2, hm);
    if (bits == 5) put_fifth_bits(code, b + 4);
    put_nibbles(code, b + (bits == 5 ? 8 : 4));
    return isfinite(f16_to_f32(hd)) && isfinite(f16_to_f32(hm));
}

/* The packing that format_k4_scale reads. */
static void put_k4_scales(const uint8_t scale[8], const uint8_t min[8], uint8_t *s)
{
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(min[j] | min[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
}
static float largest(const float *v, int n)
{
    float m = 0;
    for (int i = 0; i < n; i++) m = fmaxf(m, v[i]);
    return m;
}
/* Q4_K and Q5_K: scale and minimum of each 32, themselves 6-bit multiples of d and dmin. */
static bool quant_k_affine(const float *x, uint8_t *b, int bits)
{
    float d[8], m[8];
    uint8_t sc[8], mn[8], *q = b + (bits == 5 ? 48 : 16);
    for (int j = 0; j < 8; j++) fit_affine(x + 32 * j, 32, (1 << bits) - 1, true, &d[j], &m[j]);
    uint16_t hd = f32_to_f16(largest(d, 8) / 63), hm = f32_to_f16(largest(m, 8) / 63);
    float sd = f16_to_f32(hd), sm = f16_to_f32(hm);
    put16(b, hd);
    put16(b + 2, hm);
    if (bits == 5) memset(b + 16, 0, 32);
    for (int j = 0; j < 8; j++) {
        uint8_t code[32];
        sc[j] = (uint8_t)clampf(rintf(sd > 0 ? d[j] / sd : 0), 0, 63);
        mn[j] = (uint8_t)clampf(rintf(sm > 0 ? m[j] / sm : 0), 0, 63);
        choose_codes(x + 32 * j, 32, sd * (float)sc[j], sm * (float)mn[j], 0, (1 << bits) - 1,
                     code);
        for (int i = 0; i < 32; i++) {
            uint8_t *to = q + 32 * (j / 2) + i, low = code[i] & 15;
            *to = j & 1 ? (uint8_t)(*to | low << 4) : low;
            if (bits == 5) b[16 + i] = (uint8_t)(b[16 + i] | code[i] >> 4 << j);
        }
    }
    put_k4_scales(sc, mn, b + 4);
    return isfinite(sd) && isfinite(sm);
}
/* Q6_K: scale of each 16, an 8-bit multiple of d. */
static bool quant_q6_k(const float *x, uint8_t *b)
{
    float s[16];
    for (int k = 0; k < 16; k++) s[k] = fit_symmetric(x + 16 * k, 16, 32);
    uint16_t h = f32_to_f16(extreme(s, 16) / -128);
    float d = f16_to_f32(h);
    memset(b, 0, 192);
    for (int k = 0; k < 16; k++) {
        uint8_t code[16];
        int n = k / 8, g = k % 8 / 2;
        int8_t sc = (int8_t)clampf(rintf(d != 0 ? s[k] / d : 0), -128, 127);
        choose_codes(x + 16 * k, 16, d * (float)sc, 0, 32, 63, code);
        for (int i = 0; i < 16; i++) {
            int l = 16 * (k & 1) + i;
            b[64 * n + 32 * (g & 1) + l] |= (uint8_t)((code[i] & 15) << 4 * (g / 2));
            b[128 + 32 * n + l] |= (uint8_t)(code[i] >> 4 << 2 * g);
        }
        b[192 + k] = (uint8_t)sc;
    }
    put16(b + 208, h);
    return isfinite(d);
}

static bool quant_block(int type, const float *x, uint8_t *b)
{
    switch (type) {
    case DT_Q8_0: return quant_q8_0(x, b);
    case DT_Q4_0: return quant_symmetric(x, b, 4);
    case DT_Q5_0: return quant_symmetric(x, b, 5);
    case DT_Q4_1: return quant_affine(x, b, 4);
    case DT_Q5_1: return quant_affine(x, b, 5);
    case DT_Q4_K: return quant_k_affine(x, b, 4);
    case DT_Q5_K: return quant_k_affine(x, b, 5);
    default: return quant_q6_k(x, b);
    }
}
static bool is_written(int type)
{
    switch (type) {
    case DT_F32:
    case DT_F16:
    case DT_BF16:
    case DT_Q8_0:
    case DT_Q4_0:
    case DT_Q4_1:
    case DT_Q5_0:
    case DT_Q5_1:
    case DT_Q4_K:
    case DT_Q5_K:
    case DT_Q6_K: return true;
    default: return false;
    }
}

int quant_row(int type, const float *src, void *dst, int64_t n)
{
    dtype_traits t = dtype_of(type);
    uint8_t *out = dst;
    if (!is_written(type)) return ERR_UNSUPPORTED;
    if (n < 0 || n % t.elems) return ERR_INVALID;
    if (type == DT_F32) memcpy(dst, src, (size_t)n * sizeof *src);
    if (type == DT_F16)
        for (int64_t i = 0; i < n; i++) put16(out + 2 * i, f32_to_f16(src[i]));
    if (type == DT_BF16)
        for (int64_t i = 0; i < n; i++) put16(out + 2 * i, f32_to_bf16(src[i]));
    if (t.elems == 1) return 0;
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(src[i]) <= LARGEST)) return ERR_FORMAT;
    for (int64_t i = 0; i < n; i += t.elems, out += t.bytes)
        if (!quant_block(type, src + i, out)) return ERR_FORMAT;
    return 0;
}
