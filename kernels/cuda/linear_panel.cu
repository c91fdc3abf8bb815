/* linear_panel.cu - panels of dequantised weights for the library's products, and what stands
 * around those products: bias before, gate and up after. Owns nothing.  Refuses nothing.  Thread:
 * the rank's. */
#include "kernels/cuda/linear_panel.cuh"
#include "kernels/cuda/dequant.cuh"

enum { PANEL_WARPS = 4, PANEL_THREADS = 32 * PANEL_WARPS, ROW_THREADS = 256 };

/* ---- panels ------------------------------------------------------------------------------- */

/* One record a warp. */
template <int F>
__global__ void __launch_bounds__(PANEL_THREADS)
    panel_kernel(bf16 *to, const uint8_t *w, int records, int groups)
{
    cu_gdc_wait(); /* the panel before may still be in use */
    cu_gdc_launch();
    const int i = (int)blockIdx.x * PANEL_WARPS + (int)(threadIdx.x >> 5), lane = cu_lane();
    if (i >= records) return;
    const int tile = i / groups, group = i - tile * groups, g = lane >> 2, t = lane & 3;
    const uint8_t *rec = w + (size_t)i * record_bytes(F);
    const size_t ld = (size_t)groups * GROUP_K;
#pragma unroll
    for (int hi = 0; hi < 2; hi++) {
        bf16 *row = to + (size_t)(tile * TILE_ROWS + g + 8 * hi) * ld + group * GROUP_K + t * 4;
#pragma unroll
        for (int b = 0; b < 4; b++) {
            float v[8];
            record_values<F>(rec, g, t, hi, b, v);
#pragma unroll
            for (int s = 0; s < 2; s++)
                *(uint2 *)(row + b * 32 + s * 16) = make_uint2(
                    cu_pack_bf16(v[4 * s], v[4 * s + 1]), cu_pack_bf16(v[4 * s + 2], v[4 * s + 3]));
        }
    }
}
/* F16 to bf16, two a thread. */
__global__ void __launch_bounds__(ROW_THREADS)
    panel_f16_kernel(uint32_t *to, const uint32_t *from, size_t n)
{
    cu_gdc_wait();
    cu_gdc_launch();
    const size_t i = (size_t)blockIdx.x * ROW_THREADS + threadIdx.x;
    if (i >= n) return;
    float2 v = cu_h2f2(from[i]);
    to[i] = cu_pack_bf16(v.x, v.y);
}

template <int F>
static void make(cuda_state *st, bf16 *to, const uint8_t *w, int tile, int tiles, int groups)
{
    const int records = tiles * groups;
    GPU_LAUNCH(panel_kernel<F>, dim3((unsigned)(records + PANEL_WARPS - 1) / PANEL_WARPS),
               dim3(PANEL_THREADS), 0, true, st->stream, to,
               w + (size_t)tile * (size_t)groups * record_bytes(F), records, groups);
}

void panel_make(cuda_state *st, bf16 *to, const linear_rows *w, int seg, int tile, int tiles)
{
    const uint8_t *from = w->seg[seg].w;
    switch (w->seg[seg].type) {
#define MAKE(F) \
    case F: make<F>(st, to, from, tile, tiles, w->groups); break;
        MAKE(DT_Q4_0)
        MAKE(DT_Q4_1)
        MAKE(DT_Q5_0)
        MAKE(DT_Q5_1)
        MAKE(DT_Q8_0)
        MAKE(DT_Q2_K)
        MAKE(DT_Q3_K)
        MAKE(DT_Q4_K)
        MAKE(DT_Q5_K)
        MAKE(DT_Q6_K)
        MAKE(DT_IQ4_NL)
        MAKE(DT_IQ4_XS)
        MAKE(DT_MXFP4)
        MAKE(DT_NVFP4)
#undef MAKE
    default: {
        size_t row = (size_t)w->groups * GROUP_K / 2, n = (size_t)tiles * TILE_ROWS * row;
        const uint32_t *p = (const uint32_t *)from + (size_t)tile * TILE_ROWS * row;
        GPU_LAUNCH(panel_f16_kernel, dim3((unsigned)((n + ROW_THREADS - 1) / ROW_THREADS)),
                   dim3(ROW_THREADS), 0, true, st->stream, (uint32_t *)to, p, n);
    }
    }
}

/* ---- rows --------------------------------------------------------------------------------- */

CU_FN float row_get(const void *p, size_t i, bool f32)
{
    return f32 ? ((const float *)p)[i] : __bfloat162float(((const bf16 *)p)[i]);
}
CU_FN void row_put(void *p, size_t i, bool f32, float v)
{
    if (f32) ((float *)p)[i] = v;
    else ((bf16 *)p)[i] = __float2bfloat16(v);
}

typedef struct {
    void *y;
    const void *t;
    const float *bias;
    int ldy, ldt, cols; /* cols: of t */
    int tile, ff;
    bool f32, wide; /* wide: bf16 rows that may be read and written 16 bytes at a time */
    split_mode mode;
} split_args;

enum { EIGHT = TILE_ROWS / 2 /* values a thread takes: gates of a tile, or their ups */ };

CU_FN void eight_get(float v[EIGHT], const void *p, size_t i, const split_args &a)
{
    if (a.wide) {
        uint4 q = *(const uint4 *)((const bf16 *)p + i);
        const uint32_t w[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int j = 0; j < 4; j++) v[2 * j] = cu_bf_lo(w[j]), v[2 * j + 1] = cu_bf_hi(w[j]);
    } else
#pragma unroll
        for (int j = 0; j < EIGHT; j++) v[j] = row_get(p, i + j, a.f32);
}
/* The first n of v. */
CU_FN void eight_put(void *p, size_t i, const split_args &a, const float v[EIGHT], int n)
{
    if (a.wide && n == EIGHT)
        *(uint4 *)((bf16 *)p + i) = make_uint4(cu_pack_bf16(v[0], v[1]), cu_pack_bf16(v[2], v[3]),
                                               cu_pack_bf16(v[4], v[5]), cu_pack_bf16(v[6], v[7]));
    else
#pragma unroll
        for (int j = 0; j < EIGHT; j++)
            if (j < n) row_put(p, i + j, a.f32, v[j]);
}

__global__ void __launch_bounds__(ROW_THREADS) panel_bias_kernel(const split_args a)
{
    cu_gdc_wait();
    cu_gdc_launch();
    const int c = (int)(blockIdx.x * ROW_THREADS + threadIdx.x) * EIGHT,
              n = min((int)EIGHT, a.cols - c);
    if (n <= 0) return;
    float v[EIGHT];
#pragma unroll
    for (int j = 0; j < EIGHT; j++) v[j] = j < n ? a.bias[c + j] : 0;
    eight_put(a.y, (size_t)blockIdx.y * a.ldy + c, a, v, n);
}

/* A thread takes the gates of a tile and their ups. */
__global__ void __launch_bounds__(ROW_THREADS) panel_split_kernel(const split_args a)
{
    cu_gdc_wait();
    cu_gdc_launch();
    const int i = (int)(blockIdx.x * ROW_THREADS + threadIdx.x), gate = (a.tile + i) * EIGHT;
    const int n = min((int)EIGHT, a.ff - gate);
    if (i >= a.cols / TILE_ROWS || n <= 0) return;
    const size_t from = (size_t)blockIdx.y * a.ldt + (size_t)i * TILE_ROWS;
    const size_t to = (size_t)blockIdx.y * a.ldy + gate;
    float g[EIGHT], u[EIGHT];
    eight_get(g, a.t, from, a);
    eight_get(u, a.t, from + EIGHT, a);
    if (a.bias)
#pragma unroll
        for (int j = 0; j < EIGHT; j++)
            if (j < n) g[j] += a.bias[gate + j], u[j] += a.bias[a.ff + gate + j];
    if (a.mode == SPLIT_GLU) {
#pragma unroll
        for (int j = 0; j < EIGHT; j++)
            g[j] = g[j] / (1 + cu_ex2(-1.4426950408889634f * g[j])) * u[j];
        eight_put(a.y, to, a, g, n);
        return;
    }
    if (a.mode == SPLIT_ADD) /* bf16 */
#pragma unroll
        for (int j = 0; j < EIGHT; j++) {
            if (j >= n) continue;
            g[j] = __bfloat162float(__float2bfloat16(g[j])) + row_get(a.y, to + j, false);
            u[j] = __bfloat162float(__float2bfloat16(u[j])) + row_get(a.y, to + a.ff + j, false);
        }
    eight_put(a.y, to, a, g, n);
    eight_put(a.y, to + a.ff, a, u, n);
}

/* Rows of tensors whose groups of eight lie on 16 bytes. */
static bool is_wide(tensor t)
{
    return t.type == ACT_BF16 && (uintptr_t)t.ptr % 16 == 0 && t.ld % EIGHT == 0;
}
static dim3 row_grid(int cols, int rows)
{
    return dim3((unsigned)(cols + ROW_THREADS - 1) / ROW_THREADS, (unsigned)rows);
}

void panel_fill_bias(cuda_state *st, tensor y, const float *bias)
{
    split_args a = {};
    a.y = y.ptr, a.ldy = y.ld, a.cols = y.cols;
    a.f32 = y.type == ACT_F32;
    a.wide = is_wide(y);
    a.bias = bias;
    GPU_LAUNCH(panel_bias_kernel, row_grid((y.cols + EIGHT - 1) / EIGHT, y.rows), dim3(ROW_THREADS),
               0, true, st->stream, a);
}

void panel_split(cuda_state *st, tensor y, tensor t, int tile, int ff, const float *bias,
                 split_mode mode)
{
    split_args a = {};
    a.y = y.ptr, a.ldy = y.ld;
    a.t = t.ptr, a.ldt = t.ld, a.cols = t.cols;
    a.bias = bias;
    a.tile = tile, a.ff = ff;
    a.f32 = y.type == ACT_F32;
    a.wide = is_wide(y) && is_wide(t) && ff % EIGHT == 0;
    a.mode = mode;
    GPU_LAUNCH(panel_split_kernel, row_grid(t.cols / TILE_ROWS, t.rows), dim3(ROW_THREADS), 0, true,
               st->stream, a);
}
