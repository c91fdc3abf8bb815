/* formats_codes.h - the codes of every block type, as text that hosts and devices both compile:
 * formats.c for the CPU, cuda/linear_pack.cu for the kernels that repack weights on a GPU.
 * tests/data/quant_golden pins each bit.
 * Refuses nothing: types and whole blocks are the caller's to check.  Any thread. */
#ifndef QUERN_KERNELS_FORMATS_CODES_H
#define QUERN_KERNELS_FORMATS_CODES_H

#include "kernels/formats.h"

#include <assert.h>

FORMAT_FN uint16_t read16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
FORMAT_FN uint32_t read32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
/* 16 bytes: low nibbles are elements 0..15, high nibbles 16..31. */
FORMAT_FN void nibbles(const uint8_t *q, uint8_t *__restrict code)
{
    for (int i = 0; i < 16; i++) {
        code[i] = q[i] & 15;
        code[16 + i] = q[i] >> 4;
    }
}
/* Bit i of high becomes bit 4 of code i: eight at a time, bit i of a byte copied into byte i, kept
 * there alone, and made 1 by a carry into the top bit. */
FORMAT_FN void fifth_bits(uint32_t high, uint8_t *__restrict code)
{
    for (int i = 0; i < 32; i += 8) {
        uint64_t x = (high >> i & 255) * 0x0101010101010101u & 0x8040201008040201u, c;
        memcpy(&c, code + i, 8);
        c |= ((x + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u) << 4;
        memcpy(code + i, &c, 8);
    }
}
FORMAT_FN void codes_nvfp4(const uint8_t *q, uint8_t *__restrict code)
{
    for (int half = 0; half < 2; half++, q += 8, code += 16)
        for (int i = 0; i < 8; i++) {
            code[i] = q[i] & 15;
            code[8 + i] = q[i] >> 4;
        }
}

/* Codes of sub-block sub of one block. */
FORMAT_FN void codes_of(int type, const uint8_t *block, int sub,
                        uint8_t *__restrict code /* [32] */)
{
    const uint8_t *b = block;
    int n = sub / 4, s = sub % 4; /* place in the 128-element halves of Q2_K, Q3_K, Q6_K */
    switch (type) {
    case DT_Q4_0:
    case DT_IQ4_NL: nibbles(b + 2, code); break;
    case DT_Q4_1: nibbles(b + 4, code); break;
    case DT_Q5_0:
        nibbles(b + 6, code);
        fifth_bits(read32(b + 2), code);
        break;
    case DT_Q5_1:
        nibbles(b + 8, code);
        fifth_bits(read32(b + 4), code);
        break;
    case DT_Q8_0:
        for (int i = 0; i < 32; i++) code[i] = b[2 + i] ^ 0x80;
        break;
    case DT_Q2_K:
        for (int i = 0; i < 32; i++) code[i] = b[16 + 32 * n + i] >> 2 * s & 3;
        break;
    case DT_Q3_K:
        for (int i = 0; i < 32; i++)
            code[i] = (uint8_t)((b[32 + 32 * n + i] >> 2 * s & 3) | (b[i] >> sub & 1) << 2);
        break;
    case DT_Q4_K:
        for (int i = 0; i < 32; i++) code[i] = b[16 + 32 * (sub / 2) + i] >> 4 * (sub & 1) & 15;
        break;
    case DT_Q5_K:
        for (int i = 0; i < 32; i++)
            code[i] = (uint8_t)((b[48 + 32 * (sub / 2) + i] >> 4 * (sub & 1) & 15) |
                                (b[16 + i] >> sub & 1) << 4);
        break;
    case DT_Q6_K:
        for (int i = 0; i < 32; i++)
            code[i] = (uint8_t)((b[64 * n + 32 * (s & 1) + i] >> 4 * (s / 2) & 15) |
                                (b[128 + 32 * n + i] >> 2 * s & 3) << 4);
        break;
    case DT_IQ4_XS: nibbles(b + 8 + 16 * sub, code); break;
    case DT_MXFP4: nibbles(b + 1, code); break;
    case DT_NVFP4: codes_nvfp4(b + 4 + 16 * sub, code); break;
    default: assert(!"a block type");
    }
}

#endif
