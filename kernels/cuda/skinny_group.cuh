/* skinny_group.cuh - 16 rows x 128 k of weights times staged activations, in one warp.
 *
 * Codes are never converted: a byte or a nibble, zero-extended to 16 bits, is the f16 subnormal
 * u * 2^-24, which the tensor cores take as it is, and so is a code shifted up by four (its x is
 * stored divided by 16).  2^24 goes into the factor of the row; the bias of the codes and the
 * minima are applied through the staged sums of x.  Nothing about a weight is rounded. Owns
 * nothing.  Refuses nothing.  Device code. */
#ifndef QUERN_KERNELS_CUDA_SKINNY_GROUP_CUH
#define QUERN_KERNELS_CUDA_SKINNY_GROUP_CUH

#include "kernels/cuda/skinny_stage.cuh"

/* ---- codes and scales -------------------------------------------------------------------- */

/* Four nibbles in the low half of q to the bytes of a table. */
template <int F> CU_FN uint32_t skinny_lookup(uint32_t q)
{
    constexpr table_kind T = record_of(F).table;
    uint32_t low = cu_prmt(record_table(T, 0), record_table(T, 1), q & 0x7777u);
    uint32_t high = cu_prmt(record_table(T, 2), record_table(T, 3), q & 0x7777u);
    return cu_prmt(low, high, ((q >> 1) & 0x4444u) | 0x3210u);
}
/* The bits above four of register reg, step s, block b, at their place over the nibble. */
template <int F> CU_FN uint32_t skinny_above(const uint32_t plane[4], int b, int s, int reg)
{
    constexpr int BITS = record_of(F).plane;
    const int to = reg < 2 ? 4 : 8; /* p = 1: the nibble is shifted */
    const int at = BITS == 1 ? 8 * (b & 1) + 4 * s + reg : 2 * (4 * s + reg);
    const uint32_t word = plane[BITS == 1 ? b >> 1 : b];
    const uint32_t mask = (BITS == 1 ? 0x00010001u : 0x00030003u) << to;
    return (at > to ? word >> (at - to) : word << (to - at)) & mask;
}
/* The A operand of step s in block b from the words of its line. */
template <int F>
CU_FN void skinny_operand(uint32_t r[4], const uint4 &line, const uint32_t plane[4], int b, int s)
{
    constexpr record_traits R = record_of(F);
    if (R.bits == 8) {
        uint32_t first = s ? line.z : line.x, second = s ? line.w : line.y;
        r[0] = cu_prmt(first, 0, 0x4140);
        r[1] = cu_prmt(first, 0, 0x4342);
        r[2] = cu_prmt(second, 0, 0x4140);
        r[3] = cu_prmt(second, 0, 0x4342);
        return;
    }
    uint32_t q = b & 1 ? (s ? line.w : line.z) : (s ? line.y : line.x);
    if (R.table != TABLE_NONE) {
        uint32_t first = skinny_lookup<F>(q), second = skinny_lookup<F>(q >> 16);
        r[0] = cu_prmt(first, 0, 0x4140);
        r[1] = cu_prmt(first, 0, 0x4342);
        r[2] = cu_prmt(second, 0, 0x4140);
        r[3] = cu_prmt(second, 0, 0x4342);
        return;
    }
    uint32_t h = q >> 8;
    r[0] = q & 0x000f000fu;
    r[1] = h & 0x000f000fu;
    r[2] = q & 0x00f000f0u;
    r[3] = h & 0x00f000f0u;
    if (R.plane)
#pragma unroll
        for (int reg = 0; reg < 4; reg++) r[reg] |= skinny_above<F>(plane, b, s, reg);
}

/* Scales of rows g and g + 8 in one group, as the record has them. */
typedef struct {
    float d[2], least[2];     /* d and dmin of the rows */
    float d_off[2], m_off[2]; /* what turns d * (2^15 + byte) into d * sc */
    uint32_t w[8];
} skinny_scales;

template <int F> CU_FN void skinny_load_scales(skinny_scales *s, const char *rec, int g)
{
    constexpr scale_kind KIND = record_of(F).scale;
    const char *p = rec + record_lines(F) + record_plane(F);
    if (KIND == SCALE_16 || KIND == SCALE_BF16 || KIND == SCALE_E4M3) {
        uint4 q = *(const uint4 *)(p + g * 16);
        s->w[0] = q.x, s->w[1] = q.y, s->w[2] = q.z, s->w[3] = q.w;
    } else if (KIND == SCALE_16MIN) {
        uint4 q = *(const uint4 *)(p + g * 32), r = *(const uint4 *)(p + g * 32 + 16);
        s->w[0] = q.x, s->w[1] = q.y, s->w[2] = q.z, s->w[3] = q.w;
        s->w[4] = r.x, s->w[5] = r.y, s->w[6] = r.z, s->w[7] = r.w;
    } else if (KIND == SCALE_K32 || KIND == SCALE_K16) {
        uint2 d = *(const uint2 *)(p + g * 8);
        uint4 q = *(const uint4 *)(p + 64 + g * 16);
        s->w[0] = q.x, s->w[1] = q.y, s->w[2] = q.z, s->w[3] = q.w;
        float2 first = cu_h2f2(d.x), second = cu_h2f2(d.y);
        s->d[0] = first.x, s->least[0] = first.y;
        s->d[1] = second.x, s->least[1] = second.y;
    } else if (KIND == SCALE_I32 || KIND == SCALE_I16) {
        float2 d = cu_h2f2(*(const uint32_t *)(p + g * 4));
        s->d[0] = d.x, s->d[1] = d.y;
        if (KIND == SCALE_I32) {
            uint2 q = *(const uint2 *)(p + 32 + g * 8);
            s->w[0] = q.x, s->w[1] = q.y;
        } else {
            uint4 q = *(const uint4 *)(p + 32 + g * 16);
            s->w[0] = q.x, s->w[1] = q.y, s->w[2] = q.z, s->w[3] = q.w;
        }
    }
    constexpr bool SIGNED = KIND == SCALE_I32 || KIND == SCALE_I16;
    if (SIGNED || KIND == SCALE_K32 || KIND == SCALE_K16)
#pragma unroll
        for (int hi = 0; hi < 2; hi++) {
            s->d_off[hi] = s->d[hi] * (SIGNED ? -32896.0f : -32768.0f);
            if (!SIGNED) s->m_off[hi] = s->least[hi] * -32768.0f;
        }
}

/* d * (2^15 + byte i of w) + off: with off = -d * 2^15 (or d * (2^15 + 128)) exactly d * sc, since
 * both products fit 24 bits. */
CU_FN float skinny_byte_scale(float d, float off, uint32_t w, int i)
{
    return fmaf(d, __uint_as_float(cu_prmt(w, 0x47000000u, 0x7604 | i << 4)), off);
}

/* Scale and minimum of row g + 8 hi, block b, half s (equal for both halves if the format says so).
 */
template <int F>
CU_FN void skinny_scale(const skinny_scales *sc, int hi, int b, int s, float *scale, float *least)
{
    constexpr scale_kind KIND = record_of(F).scale;
    *least = 0;
    if (KIND == SCALE_16) {
        float2 d = cu_h2f2(sc->w[hi * 2 + (b >> 1)]);
        *scale = b & 1 ? d.y : d.x;
    } else if (KIND == SCALE_BF16) {
        uint32_t w = sc->w[hi * 2 + (b >> 1)];
        *scale = b & 1 ? cu_bf_hi(w) : cu_bf_lo(w);
    } else if (KIND == SCALE_16MIN) {
        float2 d = cu_h2f2(sc->w[hi * 4 + b]);
        *scale = d.x, *least = d.y;
    } else if (KIND == SCALE_K32) {
        *scale = skinny_byte_scale(sc->d[hi], sc->d_off[hi], sc->w[hi * 2], b);
        *least = skinny_byte_scale(sc->least[hi], sc->m_off[hi], sc->w[hi * 2 + 1], b);
    } else if (KIND == SCALE_K16) {
        uint32_t w = sc->w[hi * 2 + (b >> 1)];
        int i = (b & 1) * 2 + s;
        *scale = skinny_byte_scale(sc->d[hi], sc->d_off[hi], w & 0x0f0f0f0fu, i);
        *least = skinny_byte_scale(sc->least[hi], sc->m_off[hi], (w >> 4) & 0x0f0f0f0fu, i);
    } else if (KIND == SCALE_I32) {
        *scale = skinny_byte_scale(sc->d[hi], sc->d_off[hi], sc->w[hi], b);
    } else if (KIND == SCALE_I16) {
        *scale =
            skinny_byte_scale(sc->d[hi], sc->d_off[hi], sc->w[hi * 2 + (b >> 1)], (b & 1) * 2 + s);
    } else if (KIND == SCALE_E4M3) { /* e4m3 / 2: its bits as an f32 are 2^-119 of it */
        int i = (b & 1) * 2 + s;
        uint32_t w = sc->w[hi * 2 + (b >> 1)];
        uint32_t bits = (i == 3 ? w >> 4 : w << (20 - 8 * i)) & 0x07f00000u;
        *scale = __uint_as_float(bits) * 0x1p119f;
    }
}

/* acc += scale * c + least * sums for one tile of columns. */
template <bool LEAST>
CU_FN void skinny_fold(float acc[4], const float c[4], const float scale[2], const float least[2],
                       float2 sums)
{
#pragma unroll
    for (int hi = 0; hi < 2; hi++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float at = acc[hi * 2 + j];
            if (LEAST) at = fmaf(least[hi], j ? sums.y : sums.x, at);
            acc[hi * 2 + j] = fmaf(scale[hi], c[hi * 2 + j], at);
        }
}

/* ---- products ----------------------------------------------------------------------------- */

/* Block formats: the group of this warp in T tiles; acc[tile][n] = C fragments (rows g, g + 8;
 * columns 2t, 2t + 1).  The arithmetic of a tile does not depend on T. */
template <int F, int N, int T>
CU_FN void skinny_codes(float acc[T][N][4], const char *const rec[T], const skinny_shared &sh,
                        int warp, int lane)
{
    constexpr record_traits R = record_of(F);
    constexpr bool HALVES = record_halves(F), LEAST = record_has_min(F);
    const int g = lane >> 2, t = lane & 3;
    skinny_scales sc[T];
    uint32_t plane[T][4] = {};
    uint4 line[T] = {};
#pragma unroll
    for (int p = 0; p < T; p++) {
        skinny_load_scales<F>(&sc[p], rec[p], g);
        if (R.plane == 1) {
            uint2 q = *(const uint2 *)(rec[p] + record_lines(F) + lane * 8);
            plane[p][0] = q.x, plane[p][1] = q.y;
        } else if (R.plane == 2) {
            uint4 q = *(const uint4 *)(rec[p] + record_lines(F) + lane * 16);
            plane[p][0] = q.x, plane[p][1] = q.y, plane[p][2] = q.z, plane[p][3] = q.w;
        }
    }
#pragma unroll
    for (int b = 0; b < 4; b++) {
        uint32_t x[N][4];
        float2 sums[N][2];
#pragma unroll
        for (int n = 0; n < N; n++) {
            uint4 q = *(const uint4 *)(sh.x + (n * 8 + g) * skinny_stride(F) + (warp * 4 + b) * 64 +
                                       t * 16);
            x[n][0] = q.x, x[n][1] = q.y, x[n][2] = q.z, x[n][3] = q.w;
            const float *at = sh.sums + n * 8 + t * 2;
            if (HALVES) {
                sums[n][0] = *(const float2 *)(at + (warp * 8 + b * 2) * (N * 8));
                sums[n][1] = *(const float2 *)(at + (warp * 8 + b * 2 + 1) * (N * 8));
            } else sums[n][0] = sums[n][1] = *(const float2 *)(at + (warp * 4 + b) * (N * 8));
        }
#pragma unroll
        for (int p = 0; p < T; p++) {
            if (R.bits == 8 || !(b & 1))
                line[p] = *(const uint4 *)(rec[p] + (R.bits == 8 ? b : b >> 1) * 512 + lane * 16);
            float c[N][4];
#pragma unroll
            for (int s = 0; s < 2; s++) {
                if (HALVES || s == 0)
#pragma unroll
                    for (int n = 0; n < N; n++) {
                        c[n][0] = c[n][2] = LEAST ? 0 : sums[n][s].x;
                        c[n][1] = c[n][3] = LEAST ? 0 : sums[n][s].y;
                    }
                uint32_t r[4];
                skinny_operand<F>(r, line[p], plane[p], b, s);
#pragma unroll
                for (int n = 0; n < N; n++) cu_mma_f16(c[n], r, &x[n][s * 2]);
                if (!HALVES && s == 0) continue;
                float scale[2], least[2];
                skinny_scale<F>(&sc[p], 0, b, s, &scale[0], &least[0]);
                skinny_scale<F>(&sc[p], 1, b, s, &scale[1], &least[1]);
#pragma unroll
                for (int n = 0; n < N; n++)
                    skinny_fold<LEAST>(acc[p][n], c[n], scale, least, sums[n][s]);
            }
        }
    }
}

/* Dense weights: rows of 256 bytes, their 16-byte pieces swapped within 128 bytes by the row. */
template <int F, int N>
CU_FN void skinny_rows(float acc[N][4], const char *rec, const skinny_shared &sh, int warp,
                       int lane)
{
    const int r = lane & 7, q = lane >> 3;
    const char *a = rec + (r + (q & 1) * 8) * 256;
    const char *x = sh.x + r * skinny_stride(F) + warp * 256 + q * 16;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        uint32_t b[N][4], w[4];
#pragma unroll
        for (int n = 0; n < N; n++) cu_ldmatrix_x4(b[n], x + n * 8 * skinny_stride(F) + k * 64);
#pragma unroll
        for (int s = 0; s < 2; s++) {
            cu_ldmatrix_x4(w, a + (((k * 4 + s * 2 + (q >> 1)) ^ r) * 16));
#pragma unroll
            for (int n = 0; n < N; n++) {
                if (F == DT_BF16) cu_mma_bf16(acc[n], w, &b[n][s * 2]);
                else cu_mma_f16(acc[n], w, &b[n][s * 2]);
            }
        }
    }
}

#endif
