/* dequant.cuh - values of a packed weight back from its records: what k_embed and the panels for
 * the library's products are made with.  Decoded values are dequant_row's, bit for bit.
 * Owns nothing.  Refuses nothing.  Device code. */
#ifndef QUERN_KERNELS_CUDA_DEQUANT_CUH
#define QUERN_KERNELS_CUDA_DEQUANT_CUH

#include "kernels/cuda/records.cuh"

CU_FN uint32_t record_word(const uint8_t *p)
{
    return *(const uint32_t *)p;
}
CU_FN float record_half(const uint8_t *p)
{
    return cu_h2f2(*(const uint16_t *)p).x;
}

/* Scale and minimum of row g + 8 hi, block b, half s: value = scale * v - least. */
template <int F>
CU_FN void record_scale(const uint8_t *rec, int g, int hi, int b, int s, float *scale, float *least)
{
    constexpr scale_kind KIND = record_of(F).scale;
    const uint8_t *p = rec + record_lines(F) + record_plane(F);
    const int row = 2 * g + hi; /* place in the arrays of scales */
    *least = 0;
    if (KIND == SCALE_16) *scale = record_half(p + row * 8 + b * 2);
    else if (KIND == SCALE_BF16)
        *scale = __uint_as_float((uint32_t) * (const uint16_t *)(p + row * 8 + b * 2) << 16);
    else if (KIND == SCALE_16MIN) {
        *scale = record_half(p + row * 16 + b * 4);
        *least = -record_half(p + row * 16 + b * 4 + 2);
    } else if (KIND == SCALE_K32) {
        *scale = record_half(p + row * 4) * (float)p[64 + row * 8 + b];
        *least = record_half(p + row * 4 + 2) * (float)p[64 + row * 8 + 4 + b];
    } else if (KIND == SCALE_K16) {
        int both = p[64 + row * 8 + 2 * b + s];
        *scale = record_half(p + row * 4) * (float)(both & 15);
        *least = record_half(p + row * 4 + 2) * (float)(both >> 4);
    } else if (KIND == SCALE_I32)
        *scale = record_half(p + row * 2) * (float)(p[32 + row * 4 + b] - 128);
    else if (KIND == SCALE_I16)
        *scale = record_half(p + row * 2) * (float)(p[32 + row * 8 + 2 * b + s] - 128);
    else /* e4m3 / 2 */
        *scale = __uint_as_float((uint32_t)(p[row * 8 + 2 * b + s] & 0x7f) << 20) * 0x1p119f;
}

/* Codes of k = 16 s + 4 t + j of block b in row g + 8 hi. */
template <int F>
CU_FN void record_codes(const uint8_t *rec, int g, int t, int hi, int b, int s, int code[4])
{
    constexpr record_traits R = record_of(F);
    const int lane = g * 4 + t;
    if (R.bits == 8) {
        const uint8_t *p = rec + b * 512 + lane * 16 + s * 8;
#pragma unroll
        for (int j = 0; j < 4; j++) code[j] = p[(j >> 1) * 4 + hi * 2 + (j & 1)];
        return;
    }
    uint32_t w = record_word(rec + (b >> 1) * 512 + lane * 16 + ((b & 1) * 2 + s) * 4), above = 0;
    const uint8_t *plane = rec + record_lines(F);
    if (R.plane == 1) above = record_word(plane + lane * 8 + (b >> 1) * 4) >> (8 * (b & 1) + 4 * s);
    if (R.plane == 2) above = record_word(plane + lane * 16 + b * 4) >> (8 * s);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int p = j >> 1, e = j & 1;
        code[j] = (int)(w >> record_nibble(R.table, hi, p, e) & 15);
        if (R.plane == 1) code[j] |= (int)(above >> (16 * e + hi + 2 * p) & 1) << 4;
        if (R.plane == 2) code[j] |= (int)(above >> (16 * e + 2 * (hi + 2 * p)) & 3) << 4;
    }
}

/* v[4 s + j] = the weight of row g + 8 hi at k = 32 b + 16 s + 4 t + j. */
template <int F>
CU_FN void record_values(const uint8_t *rec, int g, int t, int hi, int b, float v[8])
{
    constexpr record_traits R = record_of(F);
#pragma unroll
    for (int s = 0; s < 2; s++) {
        int code[4];
        float scale, least;
        record_codes<F>(rec, g, t, hi, b, s, code);
        record_scale<F>(rec, g, hi, b, s, &scale, &least);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int u = code[j];
            if (R.table != TABLE_NONE) {
                uint32_t low = u & 4 ? record_table(R.table, 1) : record_table(R.table, 0);
                uint32_t high = u & 4 ? record_table(R.table, 3) : record_table(R.table, 2);
                u = (int)((u & 8 ? high : low) >> (8 * (u & 3)) & 255);
            }
            float value = scale * (float)(u - R.bias); /* exact */
            v[4 * s + j] = record_has_min(F) ? value - least : value;
        }
    }
}

#endif
