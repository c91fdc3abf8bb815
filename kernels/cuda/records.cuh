/* records.cuh - how a weight lies in device memory, for whoever packs, multiplies or reads it back.
 *
 * A weight W[rows][in] is cut into tiles of 16 rows and groups of 128 k; rows are padded to 16 and
 * k to 128 with zeros.  Dense types (BF16, F16; F32 becomes BF16 at upload) stay row-major, rows of
 * 128 * n_groups values, so that a library can read them as well.  Block types are records of one
 * tile and one group, in order [tile][group], quants in the order of mma.m16n8k16's A operand:
 *
 *   lane 4g + t (g = 0..7, t = 0..3) holds rows g and g + 8 of the tile; of the 32 k of block
 *   b = 0..3 it holds k = 16 s + 4 t + 2 p + e, s = mma step, p = 0, 1, e = 0, 1; the four A
 *   registers of a step are reg = hi + 2 p (hi: row g + 8), element e in half e.
 *
 *   codes    512-byte lines, the 16 bytes of a lane together
 *     8 bits one line a block; word 2s + p, byte 2 hi + e
 *     4 bits one line for two blocks; word 2 (b & 1) + s, nibble (plain) at bit 16 e + 8 hi + 4 p,
 *            (table) nibble 2 reg + e
 *   plane    the bits above four: 1 bit: 8 bytes a lane, word b / 2, bit 16 e + 8 (b & 1) + 4 s +
 * reg 2 bits: 16 bytes a lane, word b, bits 16 e + 2 (4 s + reg) scales   as the source has them,
 * nothing rounded, so that decoded values are dequant_row's: 16     f16 (MXFP4: bf16) [g][hi][b]
 * 16MIN  f16 [g][hi][b]{d, m} K32    f16 [g][hi]{d, dmin}, u8 [g][hi]{sc[b], m[b]} K16    f16
 * [g][hi]{d, dmin}, u8 [g][hi][2b + s] = sc | m << 4 I32    f16 [g][hi] d, u8 [g][hi][b] = sc + 128
 * I16    f16 [g][hi] d, u8 [g][hi][2b + s] E4M3   u8 [g][hi][2b + s]
 *
 * Owns nothing.  Refuses nothing: types are of DTYPE_LIST but F32.  Host and device code. */
#ifndef QUERN_KERNELS_CUDA_RECORDS_CUH
#define QUERN_KERNELS_CUDA_RECORDS_CUH

#include "base/dtype.h"
#include "kernels/cuda/portable.cuh"

enum { TILE_ROWS = 16, GROUP_K = 128, DENSE_RECORD = TILE_ROWS * GROUP_K * 2 };

typedef enum {
    SCALE_NONE,
    SCALE_16,
    SCALE_BF16,
    SCALE_16MIN,
    SCALE_K32,
    SCALE_K16,
    SCALE_I32,
    SCALE_I16,
    SCALE_E4M3
} scale_kind;

typedef enum { TABLE_NONE, TABLE_IQ4, TABLE_FP4 } table_kind;

typedef struct {
    int bits;  /* of a code in the lines: 4, 8, 16 = dense */
    int plane; /* bits above them in the plane */
    scale_kind scale;
    table_kind table;
    int bias; /* v = code - bias; with a table, of its unsigned entries */
} record_traits;

CU_HFN constexpr record_traits record_of(int type)
{
    switch (type) {
    case DT_Q4_0: return {4, 0, SCALE_16, TABLE_NONE, 8};
    case DT_Q4_1: return {4, 0, SCALE_16MIN, TABLE_NONE, 0};
    case DT_Q5_0: return {4, 1, SCALE_16, TABLE_NONE, 16};
    case DT_Q5_1: return {4, 1, SCALE_16MIN, TABLE_NONE, 0};
    case DT_Q8_0: return {8, 0, SCALE_16, TABLE_NONE, 128};
    case DT_Q2_K: return {4, 0, SCALE_K16, TABLE_NONE, 0};
    case DT_Q3_K: return {4, 0, SCALE_I16, TABLE_NONE, 4};
    case DT_Q4_K: return {4, 0, SCALE_K32, TABLE_NONE, 0};
    case DT_Q5_K: return {4, 1, SCALE_K32, TABLE_NONE, 0};
    case DT_Q6_K: return {4, 2, SCALE_I16, TABLE_NONE, 32};
    case DT_IQ4_NL: return {4, 0, SCALE_16, TABLE_IQ4, 128};
    case DT_IQ4_XS: return {4, 0, SCALE_I32, TABLE_IQ4, 128};
    case DT_MXFP4: return {4, 0, SCALE_BF16, TABLE_FP4, 12};
    case DT_NVFP4: return {4, 0, SCALE_E4M3, TABLE_FP4, 12};
    default: return {16, 0, SCALE_NONE, TABLE_NONE, 0};
    }
}

CU_HFN constexpr bool record_dense(int type)
{
    return record_of(type).bits == 16;
}
/* Scales per 16 k, not per 32. */
CU_HFN constexpr bool record_halves(int type)
{
    scale_kind s = record_of(type).scale;
    return s == SCALE_K16 || s == SCALE_I16 || s == SCALE_E4M3;
}
CU_HFN constexpr bool record_has_min(int type)
{
    scale_kind s = record_of(type).scale;
    return s == SCALE_16MIN || s == SCALE_K32 || s == SCALE_K16;
}

/* Bytes of the parts of a record, each a multiple of 16. */
CU_HFN constexpr int record_lines(int type)
{
    return TILE_ROWS * GROUP_K * record_of(type).bits / 8;
}
CU_HFN constexpr int record_plane(int type)
{
    return TILE_ROWS * GROUP_K * record_of(type).plane / 8;
}
CU_HFN constexpr int record_scales(int type)
{
    switch (record_of(type).scale) {
    case SCALE_16:
    case SCALE_BF16:
    case SCALE_E4M3: return 128;
    case SCALE_16MIN: return 256;
    case SCALE_K32:
    case SCALE_K16: return 64 + 128;
    case SCALE_I32: return 32 + 64;
    case SCALE_I16: return 32 + 128;
    default: return 0;
    }
}
CU_HFN constexpr int record_bytes(int type)
{
    return record_lines(type) + record_plane(type) + record_scales(type);
}

/* Entries of a table plus its bias, as unsigned bytes of four words. */
CU_HFN constexpr uint32_t record_table(table_kind t, int word)
{
    constexpr uint32_t iq4[4] = {0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u};
    constexpr uint32_t fp4[4] = {0x0f0e0d0cu, 0x18141210u, 0x090a0b0cu, 0x00040608u};
    return t == TABLE_IQ4 ? iq4[word] : fp4[word];
}

/* Where a plain or table nibble of a word lies. */
CU_HFN constexpr int record_nibble(table_kind t, int hi, int p, int e)
{
    return t == TABLE_NONE ? 16 * e + 8 * hi + 4 * p : 8 * (hi + 2 * p) + 4 * e;
}

#endif
