/* formats.c - owns the layout of every block type and the exact conversion of rows to f32.
 * Layouts as in docs/architecture.md, "formats"; tests/data/quant_golden pins each bit.
 * Refuses nothing: types and whole blocks are the caller's to check.  Any thread. */
#include "kernels/formats.h"
#include "kernels/formats_codes.h"
#include "kernels/kernels.h"

#include <assert.h>

/* A non-linear 4-bit code fitted to normal weights (IQ4). */
static const int8_t table_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
/* E2M1 floats, doubled to be integers. */
static const int8_t table_fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

format_traits format_of(int type)
{
    switch (type) {
    case DT_Q4_0: return (format_traits){.subs = 1, .bias = 8};
    case DT_Q4_1: return (format_traits){.subs = 1, .has_min = true};
    case DT_Q5_0: return (format_traits){.subs = 1, .bias = 16};
    case DT_Q5_1: return (format_traits){.subs = 1, .has_min = true};
    case DT_Q8_0: return (format_traits){.subs = 1, .bias = 128};
    case DT_Q2_K: return (format_traits){.subs = 8, .halves = true, .has_min = true};
    case DT_Q3_K: return (format_traits){.subs = 8, .bias = 4, .halves = true};
    case DT_Q4_K: return (format_traits){.subs = 8, .has_min = true};
    case DT_Q5_K: return (format_traits){.subs = 8, .has_min = true};
    case DT_Q6_K: return (format_traits){.subs = 8, .bias = 32, .halves = true};
    case DT_IQ4_NL: return (format_traits){.subs = 1, .table = table_iq4};
    case DT_IQ4_XS: return (format_traits){.subs = 8, .table = table_iq4};
    case DT_MXFP4: return (format_traits){.subs = 1, .table = table_fp4};
    case DT_NVFP4: return (format_traits){.subs = 2, .table = table_fp4, .halves = true};
    default: return (format_traits){0};
    }
}

static float read_f16(const uint8_t *p)
{
    return f16_to_f32(read16(p));
}

void format_codes(int type, const uint8_t *block, int sub, uint8_t *restrict code)
{
    codes_of(type, block, sub, code);
}

/* 2^(e - 128); the two smallest are f32 denormals and are made from bits. */
static float scale_e8m0(uint8_t e)
{
    return f32_of_bits(e < 2 ? 0x200000u << e : (uint32_t)(e - 1) << 23);
}
/* Half of an unsigned E4M3 float (its codes are doubled); 0x7f is NaN there and counts as 0. */
static float scale_e4m3(uint8_t x)
{
    int e = x >> 3 & 15, m = x & 7;
    if ((x & 0x7f) == 0x7f) return 0;
    return e ? f32_of_bits((uint32_t)(e + 119) << 23 | (uint32_t)m << 20) : (float)m * 0x1p-10f;
}

void format_scales(int type, const uint8_t *block, int sub, float scale[2], float min[2])
{
    const uint8_t *b = block;
    float d, m;
    int sc, mn;
    min[0] = min[1] = 0;
    switch (type) {
    case DT_Q4_1:
    case DT_Q5_1: min[0] = min[1] = -read_f16(b + 2); /* fall through */
    case DT_Q4_0:
    case DT_Q5_0:
    case DT_Q8_0:
    case DT_IQ4_NL: scale[0] = scale[1] = read_f16(b); break;
    case DT_Q2_K:
        d = read_f16(b + 80), m = read_f16(b + 82);
        for (int h = 0; h < 2; h++) {
            scale[h] = d * (float)(b[2 * sub + h] & 15);
            min[h] = m * (float)(b[2 * sub + h] >> 4);
        }
        break;
    case DT_Q3_K:
        d = read_f16(b + 108);
        for (int h = 0; h < 2; h++) scale[h] = d * (float)format_k3_scale(b + 96, 2 * sub + h);
        break;
    case DT_Q4_K:
    case DT_Q5_K:
        format_k4_scale(b + 4, sub, &sc, &mn);
        scale[0] = scale[1] = read_f16(b) * (float)sc;
        min[0] = min[1] = read_f16(b + 2) * (float)mn;
        break;
    case DT_Q6_K:
        d = read_f16(b + 208);
        for (int h = 0; h < 2; h++) scale[h] = d * (float)(int8_t)b[192 + 2 * sub + h];
        break;
    case DT_IQ4_XS:
        sc = (b[4 + sub / 2] >> 4 * (sub & 1) & 15) | (read16(b + 2) >> 2 * sub & 3) << 4;
        scale[0] = scale[1] = read_f16(b) * (float)(sc - 32);
        break;
    case DT_MXFP4: scale[0] = scale[1] = scale_e8m0(b[0]); break;
    case DT_NVFP4:
        for (int h = 0; h < 2; h++) scale[h] = scale_e4m3(b[2 * sub + h]);
        break;
    default: assert(!"a block type");
    }
}

static void dequant_blocks(int type, const uint8_t *src, float *dst, int64_t n_blocks)
{
    format_traits f = format_of(type);
    int bytes = dtype_of(type).bytes;
    for (int64_t i = 0; i < n_blocks; i++, src += bytes)
        for (int sub = 0; sub < f.subs; sub++, dst += 32) {
            uint8_t code[32];
            float scale[2], min[2];
            format_codes(type, src, sub, code);
            format_scales(type, src, sub, scale, min);
            for (int k = 0; k < 32; k++) {
                int v = f.table ? f.table[code[k]] : code[k] - f.bias;
                float p = scale[k / 16] * (float)v;
                dst[k] = f.has_min ? p - min[k / 16] : p; /* without one, -0 stays -0 */
            }
        }
}

void dequant_row(int type, const void *src, float *dst, int64_t n)
{
    const uint8_t *p = src; /* rows of a file may lie at any address */
    dtype_traits t = dtype_of(type);
    assert(t.name && n >= 0 && n % t.elems == 0);
    if (type == DT_F32) memcpy(dst, src, (size_t)n * sizeof *dst);
    else if (type == DT_F16)
        for (int64_t i = 0; i < n; i++) dst[i] = read_f16(p + 2 * i);
    else if (type == DT_BF16)
        for (int64_t i = 0; i < n; i++) dst[i] = bf16_to_f32(read16(p + 2 * i));
    else dequant_blocks(type, p, dst, n / t.elems);
}
