/* linear.h - the matrix products of the cpu backend: what backend.c plugs into its table, the
 * packed layouts of weights and activations, and the table of functions each instruction set
 * provides.
 *
 * Weights W[out][in] are cut into groups of 32 rows; a group is one forward stream over k.  Its
 * blocks are made of 64-byte lines: lane n (0..15) of a line holds 4 consecutive k of row 16 h + n,
 * v = k % 32 / 4 says which four.  One decoded block stays in registers while all rows of
 * activations stream past it, so one body serves one row and a thousand, and every output has one
 * chain of float operations over k: its bits do not depend on batch, threads or cutting.
 *
 * The sum over 32 k (16 where scales are per 16) is an exact integer; then, in this order,
 *     acc = fma(sum, scale * d, acc)                           one scale
 *     acc = fma(plus, d * sum(q), acc)                         and an addend, if the format has one
 *     acc = fma(fma(sum1, scale1, sum0 * scale0), d, acc)      scales per 16
 *     acc = fma(fma(sum1(q), plus1, sum0(q) * plus0), d, acc)  and addends per 16
 * with d and q of the activations.  F32, F16 and BF16 are one fma a k.  All instruction sets give
 * the same bits.
 * Thread: as a backend; the isa tables are const. */
#ifndef QUERN_KERNELS_CPU_LINEAR_H
#define QUERN_KERNELS_CPU_LINEAR_H

#include "kernels/cpu/cpu.h"

/* ---- ops (slots of backend_ops) ----------------------------------------------------------- */

int cpu_upload_weight(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                      weight_join join, err *e);
void cpu_release_weight(backend *be, weight *w);
size_t cpu_weight_bytes(int type, int64_t rows, int64_t in);
void cpu_embed(backend *be, tensor y, const int32_t *tok, const weight *w);
void cpu_linear(backend *be, tensor y, tensor x, const weight *w);
void cpu_linear_add(backend *be, tensor y, tensor x, const weight *w);
void cpu_norm_linear(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w);
void cpu_norm_glu(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w);
bool cpu_glu_out_q8(const weight *down);
/* Frees cpu_state.linear_work, which uploads grow; NULL is allowed. */
void cpu_linear_close(backend *be);

/* ---- packed weights ----------------------------------------------------------------------- */

/* A layout is named by the dtype it packs; I16 packs BF16 and F16 as 14-bit block integers. */
enum { LAYOUT_I16 = DT_COUNT, LAYOUT_COUNT };

/* What the codes of a layout are made of. */
typedef enum {
    BODY_NONE,    /* F32, F16, BF16, I16: see linear_pack.c */
    BODY_BYTES,   /* lines [h][v 0..7], a byte a code: 1024 bytes of 32 rows x 32 k */
    BODY_NIBBLES, /* lines [h][i 0..3]: v = i in the low, v = i + 4 in the high nibble: 512 */
    BODY_PAIRS    /* lines [h][t 0..1]: bits 2s, 2s+1 = v = 4t + s: 256 */
} layout_body;

typedef struct {
    int step;         /* k per block */
    int subs;         /* sub-blocks of 32 k in it */
    int head;         /* bytes of scales before the first sub-block */
    int before;       /* bytes of scales before the codes of a sub-block */
    int codes;        /* bytes of codes of a sub-block */
    int after;        /* bytes of scales after the codes of a sub-block */
    layout_body body; /* low bits of the codes */
    int high_bits; /* 1: lines [h], bit v = the next bit of v; 2: as BODY_PAIRS; after the body */
    int bias;      /* codes are stored plus this; 0 = none */
} layout;

/* Known at compile time where kind is. */
static inline __attribute__((always_inline)) layout layout_of(int kind)
{
    switch (kind) {
    case DT_F32: return (layout){.step = 8, .subs = 1, .codes = 1024};
    case DT_F16:
    case DT_BF16: return (layout){.step = 8, .subs = 1, .codes = 512};
    case LAYOUT_I16: return (layout){.step = 32, .subs = 1, .codes = 2048, .after = 128};
    case DT_Q8_0: return (layout){32, 1, 0, 0, 1024, 64, BODY_BYTES, 0, 128};
    case DT_Q4_0: return (layout){32, 1, 0, 0, 512, 64, BODY_NIBBLES, 0, 8};
    case DT_Q4_1: return (layout){32, 1, 0, 0, 512, 128, BODY_NIBBLES, 0, 0};
    case DT_Q5_0: return (layout){32, 1, 0, 0, 640, 64, BODY_NIBBLES, 1, 16};
    case DT_Q5_1: return (layout){32, 1, 0, 0, 640, 128, BODY_NIBBLES, 1, 0};
    case DT_Q2_K: return (layout){256, 8, 128, 64, 256, 0, BODY_PAIRS, 0, 0};
    case DT_Q3_K: return (layout){256, 8, 64, 64, 384, 0, BODY_PAIRS, 1, 32};
    case DT_Q4_K: return (layout){256, 8, 128, 64, 512, 0, BODY_NIBBLES, 0, 0};
    case DT_Q5_K: return (layout){256, 8, 128, 64, 640, 0, BODY_NIBBLES, 1, 0};
    case DT_Q6_K: return (layout){256, 8, 64, 64, 768, 0, BODY_NIBBLES, 2, 32};
    case DT_IQ4_NL: return (layout){32, 1, 0, 0, 512, 64, BODY_NIBBLES, 0, 128};
    case DT_IQ4_XS: return (layout){256, 8, 320, 0, 512, 0, BODY_NIBBLES, 0, 128};
    case DT_MXFP4: return (layout){32, 1, 0, 0, 512, 64, BODY_NIBBLES, 0, 16};
    case DT_NVFP4: return (layout){64, 2, 0, 0, 512, 64, BODY_NIBBLES, 0, 32};
    default: return (layout){0};
    }
}
static inline __attribute__((always_inline)) int layout_bytes(layout l)
{
    return l.head + l.subs * (l.before + l.codes + l.after);
}
static inline bool layout_is_float(int kind)
{
    return kind == DT_F32 || kind == DT_F16 || kind == DT_BF16;
}

/* What format_of says, known at compile time. */
static inline __attribute__((always_inline)) bool layout_has_table(int kind)
{
    return kind == DT_IQ4_NL || kind == DT_IQ4_XS || kind == DT_MXFP4 || kind == DT_NVFP4;
}
static inline __attribute__((always_inline)) bool layout_has_halves(int kind)
{
    return kind == DT_Q2_K || kind == DT_Q3_K || kind == DT_Q6_K || kind == DT_NVFP4;
}
static inline __attribute__((always_inline)) bool layout_has_min(int kind)
{
    return kind == DT_Q4_1 || kind == DT_Q5_1 || kind == DT_Q2_K || kind == DT_Q4_K ||
           kind == DT_Q5_K;
}

/* What weight.seg[].data points to; the groups follow it. */
typedef struct {
    _Alignas(64) int kind; /* layout */
    int n_groups;          /* JOIN_GLU in one segment: gate group, up group, gate group, ... */
    size_t group_bytes;
} packed;
static inline const uint8_t *packed_group(const packed *p, int g)
{
    return (const uint8_t *)(p + 1) + (size_t)g * p->group_bytes;
}

/* Bytes of one group of 32 rows of `in` features. */
size_t pack_group_bytes(int kind, int in);
/* Packs 32 rows of source type `type`; row[i] NULL = zeros.  dst[pack_group_bytes] is zero. */
void pack_group(int kind, int type, const uint8_t *const row[32], int in, uint8_t *dst);
/* Row r (0..31) of a group back as f32[in]: the values dequant_row gave (I16: its own). */
void unpack_row(int kind, const uint8_t *group, int r, int in, float *dst);

/* ---- activations -------------------------------------------------------------------------- */

/* 32 k of a row as 8-bit integers, x ~ d * q, |q| <= 127; block-major: record of row m in block kb
 * at [kb * stride + m].  One cache line each, so that rows of different threads share none. */
typedef struct {
    _Alignas(64) int8_t q[32];
    float d, ds;         /* scale; d * sum(q) */
    int32_t off128;      /* -128 * sum(q): takes the bias off unsigned codes */
    int32_t off16, off8; /* likewise */
    int32_t off32[2];    /* -32 * sum(q) of k < 16 and k >= 16 */
    int32_t pad;
} act8;
_Static_assert(sizeof(act8) == 64, "a record is a cache line");

/* Rows of activations ready for a product: act8 records, or 8 floats per row and block of 8 k, or
 * 32 int16 per row and block with their scales apart. */
typedef struct {
    const void *x;  /* act8[n][stride], float[n][stride][8], int16[n][stride][32] */
    const float *d; /* [n][stride], int16 only */
    int stride;     /* rows between blocks */
    int n_blocks;   /* n: blocks of 32 k (8 k of floats) */
} acts;

/* ---- one table per instruction set -------------------------------------------------------- */

typedef struct {
    /* acc[rows][32] = 32 rows of weights (one group) times rows m0.. of a; acc 64-byte aligned. */
    void (*group[LAYOUT_COUNT])(const uint8_t *w, const acts *a, int m0, int rows, float *acc);
    /* Rows x[rows][ld] of k values into row 0.. of records to[][stride]; k a multiple of 32. */
    void (*quant8)(act8 *to, int stride, const float *x, size_t ld, int rows, int k);
    /* The same for I16: to[][stride][32], d[][stride]; the last block is padded with zeros. */
    void (*quant16)(int16_t *to, float *d, int stride, const float *x, size_t ld, int rows, int k);
    /* y[rows][ld] (+)= acc[rows][32] + bias, for cols <= 32 columns; bias may be NULL. */
    void (*finish)(float *y, size_t ld, const float *acc, const float *bias, int rows, int cols,
                   bool add);
} linear_isa;

/* name of its function group_<name>, layout */
#define LINEAR_INT8_LIST(X) \
    X(q8_0, DT_Q8_0)        \
    X(q4_0, DT_Q4_0)        \
    X(q4_1, DT_Q4_1)        \
    X(q5_0, DT_Q5_0)        \
    X(q5_1, DT_Q5_1)        \
    X(q2_k, DT_Q2_K)        \
    X(q3_k, DT_Q3_K)        \
    X(q4_k, DT_Q4_K)        \
    X(q5_k, DT_Q5_K)        \
    X(q6_k, DT_Q6_K)        \
    X(iq4_nl, DT_IQ4_NL)    \
    X(iq4_xs, DT_IQ4_XS)    \
    X(mxfp4, DT_MXFP4)      \
    X(nvfp4, DT_NVFP4)
#define LINEAR_FLOAT_LIST(X) \
    X(f32, DT_F32)           \
    X(f16, DT_F16)           \
    X(bf16, DT_BF16)         \
    X(i16, LAYOUT_I16)

/* Empty where the compiler does not aim at that instruction set. */
extern const linear_isa linear_portable, linear_avx2, linear_avxvnni, linear_avx512;

enum {
    ACC_ROWS = 128,       /* rows of activations per pass: acc is 16 KiB, half of an L1 */
    PREFETCH_BYTES = 4096 /* ahead in the stream of weights; 2-8 KiB measured flat */
};

#endif
