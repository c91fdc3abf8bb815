/* dummy.c - weights made up from a seed, for measuring speed without a checkpoint: random codes
 * under scales that give a row of `in` values the size 1/sqrt(in), so that activations stay finite
 * through any number of layers.
 * Owns nothing.  Refuses: lack of memory.  Thread: the loader's. */
#include "kernels/formats.h"
#include "kernels/kernels.h"
#include "kernels/rng.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

/* Where a block keeps its f16 scale and minimum (-1: it has none), the minimum that centres random
 * codes, and the root mean square of the values random codes and inner scales then have, both for a
 * scale of 1.  Inner scales are random bits like the codes. */
typedef struct {
    int scale_at, min_at;
    float min, rms;
} block_fields;

static block_fields fields_of(int type)
{
    switch (type) {
    case DT_Q4_0: return (block_fields){0, -1, 0, 4.64f};
    case DT_Q4_1: return (block_fields){0, 2, -7.5f, 4.61f};
    case DT_Q5_0: return (block_fields){0, -1, 0, 9.25f};
    case DT_Q5_1: return (block_fields){0, 2, -15.5f, 9.23f};
    case DT_Q8_0: return (block_fields){0, -1, 0, 73.9f};
    case DT_Q2_K: return (block_fields){80, 82, 1.5f, 13.9f};
    case DT_Q3_K: return (block_fields){108, -1, 0, 43.3f};
    case DT_Q4_K: return (block_fields){0, 2, 7.5f, 258};
    case DT_Q5_K: return (block_fields){0, 2, 15.5f, 527};
    case DT_Q6_K: return (block_fields){208, -1, 0, 1366};
    case DT_IQ4_NL: return (block_fields){0, -1, 0, 66.9f};
    case DT_IQ4_XS: return (block_fields){0, -1, 0, 1236};
    default: return (block_fields){-1, -1, 0, 1};
    }
}

static void put_f16(uint8_t *at, float v)
{
    uint16_t h = f32_to_f16(v);
    memcpy(at, &h, sizeof h);
}

/* Scales of the two formats whose scales are no halves: an exponent byte a block; four E4M3 bytes.
 * Their codes alone have a root mean square of 2.93. */
static void put_small_scales(int type, uint8_t *block, float rms)
{
    float want = rms / 2.93f;
    int power = (int)lroundf(log2f(want));
    if (type == DT_MXFP4) block[0] = (uint8_t)(127 + power);
    for (int i = 0; type == DT_NVFP4 && i < 4; i++) { /* 2^-9 is the smallest there is */
        int steps = (int)lroundf(want * 512);
        block[i] = (uint8_t)(power >= -6 ? (power + 7) << 3 : steps > 1 ? steps : 1);
    }
}

static void fill_blocks(int type, uint8_t *row, int64_t n_blocks, float rms)
{
    block_fields f = fields_of(type);
    int bytes = dtype_of(type).bytes;
    for (int64_t i = 0; i < n_blocks; i++, row += bytes) {
        if (f.scale_at >= 0) put_f16(row + f.scale_at, rms / f.rms);
        else put_small_scales(type, row, rms);
        if (f.min_at >= 0) put_f16(row + f.min_at, f.min * rms / f.rms);
    }
}

/* Uniform, with root mean square rms. */
static void fill_floats(int type, uint8_t *row, int64_t n, float rms, uint64_t key)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)(rng_mix(key + (uint64_t)i) >> 40);
        float v = ((float)bits * 0x1p-23f - 1) * 1.7320508f * rms;
        uint16_t h = type == DT_F16 ? f32_to_f16(v) : f32_to_bf16(v);
        if (type == DT_F32) memcpy(row + 4 * i, &v, 4);
        else memcpy(row + 2 * i, &h, 2);
    }
}

static void fill_row(int type, uint8_t *row, size_t bytes, int in, uint64_t key)
{
    float rms = 1 / sqrtf((float)in);
    if (!format_of(type).subs) {
        fill_floats(type, row, in, rms, key);
        return;
    }
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t word = rng_mix(key + at);
        memcpy(row + at, &word, bytes - at < 8 ? bytes - at : 8);
    }
    fill_blocks(type, row, in / dtype_of(type).elems, rms);
}

static void *fill_part(const weight_part *p, int in, uint64_t seed)
{
    size_t row, bytes;
    if (!dtype_row_bytes(p->type, in, &row) || __builtin_mul_overflow(row, (size_t)p->rows, &bytes))
        return NULL;
    uint8_t *data = malloc(bytes);
    for (int r = 0; data && r < p->rows; r++)
        fill_row(p->type, data + (size_t)r * row, row, in, rng_mix(seed + (uint64_t)r));
    return data;
}

int k_dummy_weight(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                   weight_join join, uint64_t seed, err *e)
{
    weight_part made[WEIGHT_MAX_SEG];
    void *data[WEIGHT_MAX_SEG] = {0};
    if (be->op->dummy_weight) return be->op->dummy_weight(be, w, parts, n_parts, in, join, seed, e);
    assert(n_parts > 0 && n_parts <= WEIGHT_MAX_SEG);
    int rc = 0;
    for (int i = 0; i < n_parts && !rc; i++) {
        made[i] = parts[i];
        made[i].data = data[i] = fill_part(&parts[i], in, rng_mix(seed + (uint64_t)i));
        if (!data[i])
            rc = err_set(e, ERR_NOMEM, "out of memory for %d x %d made-up weights", parts[i].rows,
                         in);
    }
    if (!rc) rc = k_upload_weight(be, w, made, n_parts, in, join, e);
    for (int i = 0; i < n_parts; i++) free(data[i]);
    return rc;
}
