/* linear_pack.c - owns the packed layouts of linear.h: from source rows into groups, and single
 * rows back out.
 *
 *   F32     [k][row 0..31]
 *   F16     [k][row 0..31]
 *   BF16    [h][k/2][row 16h + n], low half = even k: what one shift and one mask turn into f32
 *   I16     [k/16][h][k%16/2][row 16h + n], two int16 of consecutive k; then f32 scale[32], powers
 * of two, |q| <= 8191 so that 32 products fit an int32 blocks  head, then per sub-block of 32 k:
 * before, codes (linear.h), after; scales are [32]: after   f16 d (Q8_0 Q4_0 Q5_0 IQ4_NL) | f16 d,
 * f16 m (Q4_1 Q5_1) | bf16 (MXFP4) | e4m3 of k < 16, of k >= 16 (NVFP4) head    f16 d, f16 -dmin
 * (Q2_K Q4_K Q5_K) | f16 d (Q3_K Q6_K) | f16 d, int8 [8][32] (IQ4_XS) before  u8 scale, u8 min
 * (Q4_K Q5_K) | u8 scale | min << 4 of k < 16, k >= 16 (Q2_K) | int8 scale of k < 16, k >= 16 (Q3_K
 * Q6_K) A group is as large as its rows in the source, but for Q5_K (+2%), Q4_K (+3%), Q3_K (+4%),
 * Q6_K, IQ4_XS (+1%), MXFP4 and I16 (+6%). Refuses nothing: kernels.c has checked types and shapes.
 * Any thread. */
#include "kernels/cpu/linear.h"
#include "kernels/formats.h"

#include <assert.h>
#include <math.h>

size_t pack_group_bytes(int kind, int in)
{
    layout l = layout_of(kind);
    return (size_t)((in + l.step - 1) / l.step) * (size_t)layout_bytes(l);
}

/* ---- codes -------------------------------------------------------------------------------- */

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}
static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
/* Line number `line` of half h, lane of row r. */
static size_t lane_at(int lines, int line, int r)
{
    return (size_t)(64 * (lines * (r / 16) + line) + 4 * (r % 16));
}

/* Codes of row r, 32 k, into lines that are zero in its lanes. */
static void pack_codes(layout l, const uint8_t code[32], int r, uint8_t *p)
{
    uint32_t w[8]; /* four codes each */
    memcpy(w, code, sizeof w);
    int bits = l.body == BODY_NIBBLES ? 4 : 2;
    if (l.body == BODY_BYTES)
        for (int v = 0; v < 8; v++) put32(p + lane_at(8, v, r), w[v]);
    if (l.body == BODY_NIBBLES)
        for (int i = 0; i < 4; i++)
            put32(p + lane_at(4, i, r), (w[i] & 0x0f0f0f0f) | (w[i + 4] & 0x0f0f0f0f) << 4);
    if (l.body == BODY_PAIRS)
        for (int t = 0; t < 2; t++) {
            uint32_t x = 0;
            for (int s = 0; s < 4; s++) x |= (w[4 * t + s] & 0x03030303) << 2 * s;
            put32(p + lane_at(2, t, r), x);
        }
    uint8_t *high = p + (l.body == BODY_NIBBLES ? 512 : 256);
    if (l.high_bits == 1) {
        uint32_t x = 0;
        for (int v = 0; v < 8; v++) x |= (w[v] >> bits & 0x01010101) << v;
        put32(high + lane_at(1, 0, r), x);
    }
    if (l.high_bits == 2)
        for (int t = 0; t < 2; t++) {
            uint32_t x = 0;
            for (int s = 0; s < 4; s++) x |= (w[4 * t + s] >> bits & 0x03030303) << 2 * s;
            put32(high + lane_at(2, t, r), x);
        }
}

static void unpack_codes(layout l, const uint8_t *p, int r, uint8_t code[32])
{
    uint32_t w[8];
    int bits = l.body == BODY_NIBBLES ? 4 : 2;
    const uint8_t *high = p + (l.body == BODY_NIBBLES ? 512 : 256);
    for (int v = 0; v < 8; v++) {
        if (l.body == BODY_BYTES) w[v] = get32(p + lane_at(8, v, r));
        else if (l.body == BODY_NIBBLES)
            w[v] = get32(p + lane_at(4, v % 4, r)) >> 4 * (v / 4) & 0x0f0f0f0f;
        else w[v] = get32(p + lane_at(2, v / 4, r)) >> 2 * (v % 4) & 0x03030303;
        if (l.high_bits == 1) w[v] |= (get32(high + lane_at(1, 0, r)) >> v & 0x01010101) << bits;
        if (l.high_bits == 2)
            w[v] |= (get32(high + lane_at(2, v / 4, r)) >> 2 * (v % 4) & 0x03030303) << bits;
    }
    memcpy(code, w, sizeof w);
}

/* ---- scales ------------------------------------------------------------------------------- */

static void copy16(uint8_t *to, int r, const uint8_t *from, uint16_t flip)
{
    uint16_t v;
    memcpy(&v, from, 2);
    v ^= flip;
    memcpy(to + 2 * r, &v, 2);
}

/* Scales of a whole super-block that K-quants share. */
static void pack_head(int kind, const uint8_t *b, int r, uint8_t *head)
{
    switch (kind) {
    case DT_Q2_K:
        copy16(head, r, b + 80, 0);
        copy16(head + 64, r, b + 82, 0x8000);
        break;
    case DT_Q3_K: copy16(head, r, b + 108, 0); break;
    case DT_Q4_K:
    case DT_Q5_K:
        copy16(head, r, b, 0);
        copy16(head + 64, r, b + 2, 0x8000);
        break;
    case DT_Q6_K: copy16(head, r, b + 208, 0); break;
    case DT_IQ4_XS:
        copy16(head, r, b, 0);
        for (int s = 0; s < 8; s++) {
            int high = (b[2] | b[3] << 8) >> 2 * s & 3, low = b[4 + s / 2] >> 4 * (s & 1) & 15;
            head[64 + 32 * s + r] = (uint8_t)((low | high << 4) - 32);
        }
        break;
    default: break;
    }
}

/* 2^(e - 128) as bf16, which like f32 has the two smallest as denormals. */
static uint16_t bf16_of_e8m0(uint8_t e)
{
    return (uint16_t)(e < 2 ? 0x20 << e : (e - 1) << 7);
}

/* Scales of one sub-block: `before` its codes or `after` them. */
static void pack_sub(int kind, const uint8_t *b, int sub, int r, uint8_t *before, uint8_t *after)
{
    int scale, min;
    uint16_t e;
    switch (kind) {
    case DT_Q4_1:
    case DT_Q5_1: copy16(after + 64, r, b + 2, 0); /* fall through */
    case DT_Q4_0:
    case DT_Q5_0:
    case DT_Q8_0:
    case DT_IQ4_NL: copy16(after, r, b, 0); break;
    case DT_MXFP4:
        e = bf16_of_e8m0(b[0]);
        memcpy(after + 2 * r, &e, 2);
        break;
    case DT_NVFP4:
        for (int h = 0; h < 2; h++) {
            uint8_t x = b[2 * sub + h] & 0x7f;
            after[32 * h + r] = x == 0x7f ? 0 : x;
        }
        break;
    case DT_Q2_K:
        for (int h = 0; h < 2; h++) before[32 * h + r] = b[2 * sub + h];
        break;
    case DT_Q3_K:
        for (int h = 0; h < 2; h++)
            before[32 * h + r] = (uint8_t)format_k3_scale(b + 96, 2 * sub + h);
        break;
    case DT_Q4_K:
    case DT_Q5_K:
        format_k4_scale(b + 4, sub, &scale, &min);
        before[r] = (uint8_t)scale;
        before[32 + r] = (uint8_t)min;
        break;
    case DT_Q6_K:
        for (int h = 0; h < 2; h++) before[32 * h + r] = b[192 + 2 * sub + h];
        break;
    default: break;
    }
}

static float half_at(const uint8_t *p, int r)
{
    uint16_t v;
    memcpy(&v, p + 2 * r, 2);
    return f16_to_f32(v);
}

/* The reverse of the two above: as format_scales gives them. */
static void unpack_scales(int kind, const uint8_t *head, const uint8_t *before,
                          const uint8_t *after, int sub, int r, float scale[2], float min[2])
{
    min[0] = min[1] = 0;
    switch (kind) {
    case DT_Q4_1:
    case DT_Q5_1: min[0] = min[1] = -half_at(after + 64, r); /* fall through */
    case DT_Q4_0:
    case DT_Q5_0:
    case DT_Q8_0:
    case DT_IQ4_NL: scale[0] = scale[1] = half_at(after, r); break;
    case DT_IQ4_XS:
        scale[0] = scale[1] = half_at(head, r) * (float)(int8_t)head[64 + 32 * sub + r];
        break;
    case DT_NVFP4: /* the bits of e4m3 moved into f16 are 2^-8 of it; codes are doubled */
        for (int h = 0; h < 2; h++) scale[h] = f16_to_f32((uint16_t)(after[32 * h + r] << 7)) * 128;
        break;
    case DT_Q2_K:
        for (int h = 0; h < 2; h++) {
            scale[h] = half_at(head, r) * (float)(before[32 * h + r] & 15);
            min[h] = -half_at(head + 64, r) * (float)(before[32 * h + r] >> 4);
        }
        break;
    case DT_Q4_K:
    case DT_Q5_K:
        scale[0] = scale[1] = half_at(head, r) * (float)before[r];
        min[0] = min[1] = -half_at(head + 64, r) * (float)before[32 + r];
        break;
    default: /* Q3_K, Q6_K */
        for (int h = 0; h < 2; h++) scale[h] = half_at(head, r) * (float)(int8_t)before[32 * h + r];
    }
}

/* ---- float layouts ------------------------------------------------------------------------ */

/* Where element k of row r lies in a group. */
static size_t float_at(int kind, int k, int r)
{
    size_t block = (size_t)(k / 8);
    int j = k % 8;
    if (kind == DT_F32) return 1024 * block + (size_t)(128 * j + 4 * r);
    if (kind == DT_F16) return 512 * block + (size_t)(64 * j + 2 * r);
    return 512 * block + (size_t)(64 * (4 * (r / 16) + j / 2) + 4 * (r % 16) + 2 * (j % 2));
}
static void pack_float_row(int kind, const uint8_t *src, int in, int r, uint8_t *dst)
{
    size_t bytes = kind == DT_F32 ? 4 : 2, unit = kind == DT_F16 ? 2 : 4; /* BF16 lies in pairs */
    size_t line = kind == DT_F32 ? 128 : 64, lane = unit * (size_t)r;
    if (kind == DT_BF16) lane = 256 * (size_t)(r / 16) + 4 * (size_t)(r % 16);
    for (int k = 0; k < in; k += 8, src += 8 * bytes, dst += 256 * bytes) {
        uint8_t x[32] = {0};
        memcpy(x, src, bytes * (size_t)(in - k < 8 ? in - k : 8));
        uint8_t *to = dst + lane;
        if (unit == 2)
            for (size_t i = 0; i < 8; i++) memcpy(to + line * i, x + 2 * i, 2);
        else
            for (size_t i = 0; i < 2 * bytes; i++) memcpy(to + line * i, x + 4 * i, 4);
    }
}
static void unpack_float_row(int kind, const uint8_t *group, int in, int r, float *dst)
{
    for (int k = 0; k < in; k++) {
        const uint8_t *p = group + float_at(kind, k, r);
        if (kind == DT_F32) memcpy(dst + k, p, 4);
        else {
            uint16_t v;
            memcpy(&v, p, 2);
            dst[k] = kind == DT_F16 ? f16_to_f32(v) : bf16_to_f32(v);
        }
    }
}

enum { I16_MAX = 8191, I16_BYTES = 2176 };
static size_t i16_at(int k, int r)
{
    return (size_t)(1024 * (k / 16) + 512 * (r / 16) + 64 * (k % 16 / 2) + 4 * (r % 16) +
                    2 * (k % 2));
}
/* The smallest power of two by which all of amax fits: bf16 values within 2^5 of the block's
 * largest (f16: 2^2) stay exact. */
static float i16_scale(float amax)
{
    int e;
    if (!(amax > 0)) return 0;
    if (isinf(amax)) return NAN;
    frexpf(amax, &e);       /* amax < 2^e */
    if (e < -112) e = -112; /* the scale itself must not be a denormal */
    float scale = ldexpf(1, e - 13);
    return rintf(amax / scale) > I16_MAX ? 2 * scale : scale;
}
static void pack_i16_row(int type, const uint8_t *src, int in, int r, uint8_t *dst)
{
    for (int k0 = 0; k0 < in; k0 += 32, dst += I16_BYTES) {
        float x[32] = {0}, amax = 0;
        int n = in - k0 < 32 ? in - k0 : 32;
        dequant_row(type, src + 2 * (size_t)k0, x, n);
        for (int k = 0; k < n; k++) amax = isnan(x[k]) ? INFINITY : fmaxf(amax, fabsf(x[k]));
        float scale = i16_scale(amax);
        for (int k = 0; k < n; k++) {
            int16_t v = (int16_t)(scale > 0 ? rintf(x[k] / scale) : 0);
            memcpy(dst + i16_at(k, r), &v, 2);
        }
        memcpy(dst + 2048 + 4 * r, &scale, 4);
    }
}
static void unpack_i16_row(const uint8_t *group, int in, int r, float *dst)
{
    for (int k = 0; k < in; k++) {
        const uint8_t *p = group + (size_t)(k / 32) * I16_BYTES;
        int16_t q;
        float scale;
        memcpy(&q, p + i16_at(k % 32, r), 2);
        memcpy(&scale, p + 2048 + 4 * r, 4);
        dst[k] = scale * (float)q;
    }
}

/* ---- whole groups ------------------------------------------------------------------------- */

static void pack_block_row(int kind, const uint8_t *src, int in, int r, uint8_t *dst)
{
    layout l = layout_of(kind);
    dtype_traits t = dtype_of(kind);
    for (int k = 0; k < in; k += l.step, src += t.bytes) {
        uint8_t *p = dst + l.head;
        pack_head(kind, src, r, dst);
        for (int sub = 0; sub < l.subs; sub++) {
            uint8_t code[32];
            format_codes(kind, src, sub, code);
            pack_codes(l, code, r, p + l.before);
            pack_sub(kind, src, sub, r, p, p + l.before + l.codes);
            p += l.before + l.codes + l.after;
        }
        dst = p;
    }
}

static void pack_part(int kind, int type, const uint8_t *row, int k, int r, uint8_t *dst)
{
    if (kind == LAYOUT_I16) pack_i16_row(type, row, k, r, dst);
    else if (layout_is_float(kind)) pack_float_row(kind, row, k, r, dst);
    else pack_block_row(kind, row, k, r, dst);
}

/* A row touches every line of a group, four bytes each: so many blocks at a time stay in L1. */
enum { PACK_BYTES = 16384 };

void pack_group(int kind, int type, const uint8_t *const row[32], int in, uint8_t *dst)
{
    layout l = layout_of(kind);
    int blocks = PACK_BYTES / layout_bytes(l), part = l.step * blocks;
    for (int k = 0; k < in; k += part, dst += (size_t)blocks * (size_t)layout_bytes(l))
        for (int r = 0; r < 32; r++) {
            size_t at;
            if (!row[r] || !dtype_row_bytes(type, k, &at)) continue; /* k is whole blocks */
            pack_part(kind, type, row[r] + at, in - k < part ? in - k : part, r, dst);
        }
}

/* v * 2^(e - 128) of the two smallest MXFP4 scales, whatever the flush-to-zero mode: an integer
 * multiple of the smallest denormal, put together from bits. */
static float tiny_mxfp4(int v, uint16_t scale)
{
    uint32_t m = (uint32_t)(v < 0 ? -v : v) * ((uint32_t)scale << 16);
    float f = m < 1u << 24 ? f32_of_bits(m) : f32_of_bits(bits_of_f32((float)m) - (149u << 23));
    return f32_of_bits(bits_of_f32(f) | (v < 0 ? 0x80000000u : 0));
}
static void unpack_mxfp4(const int8_t *table, const uint8_t *after, int r, const uint8_t code[32],
                         float *dst)
{
    uint16_t scale;
    memcpy(&scale, after + 2 * r, 2);
    for (int k = 0; k < 32; k++)
        dst[k] = scale < 0x80 ? tiny_mxfp4(table[code[k]], scale)
                              : bf16_to_f32(scale) * (float)table[code[k]];
}

static void unpack_block_row(int kind, const uint8_t *group, int r, int in, float *dst)
{
    layout l = layout_of(kind);
    format_traits f = format_of(kind);
    for (int k = 0; k < in; k += l.step) {
        const uint8_t *p = group + l.head;
        for (int sub = 0; sub < l.subs; sub++, dst += 32) {
            const uint8_t *codes = p + l.before, *after = codes + l.codes;
            uint8_t code[32];
            float scale[2], min[2];
            unpack_codes(l, codes, r, code);
            if (kind == DT_MXFP4) unpack_mxfp4(f.table, after, r, code, dst);
            else {
                unpack_scales(kind, group, p, after, sub, r, scale, min);
                for (int i = 0; i < 32; i++) {
                    float v =
                        scale[i / 16] * (float)(f.table ? f.table[code[i]] : code[i] - f.bias);
                    dst[i] = f.has_min ? v - min[i / 16] : v;
                }
            }
            p = after + l.after;
        }
        group = p;
    }
}

void unpack_row(int kind, const uint8_t *group, int r, int in, float *dst)
{
    if (kind == LAYOUT_I16) unpack_i16_row(group, in, r, dst);
    else if (layout_is_float(kind)) unpack_float_row(kind, group, in, r, dst);
    else unpack_block_row(kind, group, r, in, dst);
}
