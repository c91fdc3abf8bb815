/* rows.cu - the row ops on bf16 activations: gather, RMSNorm, gated product, sum, and the cos/sin
 * rows of a step.
 * Arithmetic is f32 (angles in double), one rounding to bf16 per result; the order of a sum depends
 * on the number of columns only, so a row's bits depend on nothing else.  Rows are read and written
 * 16 bytes at a time where pointers and leading dimensions allow, else value by value in the same
 * order.
 * Owns nothing.  Refuses nothing: kernels.c checked shapes.  Thread: the rank's. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/portable.cuh"

#include <assert.h>

enum { THREADS = 256, NORM_WARPS = THREADS / 32, GROUP = 8 /* bf16 in 16 bytes */ };

/* ---- groups of 8 columns ------------------------------------------------------------------ */

/* One row: base pointer, and whether its groups are 16-byte aligned. */
CU_FN bool is_aligned(const bf16 *row)
{
    return ((uintptr_t)row & 15) == 0;
}

/* Columns c..c+7 of row[cols]; zeros beyond the end. */
CU_FN void load_group(float v[GROUP], const bf16 *row, int c, int cols)
{
    if (is_aligned(row) && c + GROUP <= cols) {
        uint4 u = *(const uint4 *)(row + c);
        uint32_t w[4] = {u.x, u.y, u.z, u.w};
        for (int i = 0; i < 4; i++) {
            v[2 * i] = cu_bf_lo(w[i]);
            v[2 * i + 1] = cu_bf_hi(w[i]);
        }
        return;
    }
    for (int i = 0; i < GROUP; i++) v[i] = c + i < cols ? __bfloat162float(row[c + i]) : 0;
}

CU_FN void store_group(bf16 *row, int c, int cols, const float v[GROUP])
{
    if (is_aligned(row) && c + GROUP <= cols) {
        uint4 u = {cu_pack_bf16(v[0], v[1]), cu_pack_bf16(v[2], v[3]), cu_pack_bf16(v[4], v[5]),
                   cu_pack_bf16(v[6], v[7])};
        cu_st16(row + c, u);
        return;
    }
    for (int i = 0; i < GROUP; i++)
        if (c + i < cols) row[c + i] = __float2bfloat16(v[i]);
}

/* A bf16 tensor as kernels take it: row r at p + r * ld. */
typedef struct {
    bf16 *p;
    int64_t ld;
    int rows, cols;
} matrix;

static matrix matrix_of(tensor t)
{
    assert(t.type == ACT_BF16);
    return {(bf16 *)t.ptr, t.ld, t.rows, t.cols};
}

/* Blocks that cover a row, a group a thread. */
static dim3 row_grid(tensor t)
{
    int groups = (t.cols + GROUP - 1) / GROUP;
    return dim3((unsigned)t.rows, (unsigned)((groups + THREADS - 1) / THREADS));
}
CU_FN int my_column(void)
{
    return (int)(blockIdx.y * THREADS + threadIdx.x) * GROUP;
}

/* ---- gather, glu, add --------------------------------------------------------------------- */

__global__ void __launch_bounds__(THREADS) gather_kernel(matrix y, matrix x, const int32_t *row)
{
    cu_gdc_wait();
    cu_gdc_launch();
    int c = my_column();
    if (c >= y.cols) return;
    float v[GROUP];
    load_group(v, x.p + row[blockIdx.x] * x.ld, c, y.cols);
    store_group(y.p + blockIdx.x * y.ld, c, y.cols, v);
}

void cuda_gather_rows(backend *be, tensor y, tensor x, const int32_t *row)
{
    cuda_state *st = cuda_of(be);
    if (y.rows == 0) return;
    GPU_LAUNCH(gather_kernel, row_grid(y), dim3(THREADS), 0, true, st->stream, matrix_of(y),
               matrix_of(x), row);
}

__global__ void __launch_bounds__(THREADS) glu_kernel(matrix y, matrix gate_up)
{
    cu_gdc_wait();
    cu_gdc_launch();
    int c = my_column();
    if (c >= y.cols) return;
    float gate[GROUP], up[GROUP];
    const bf16 *row = gate_up.p + blockIdx.x * gate_up.ld;
    load_group(gate, row, c, y.cols);
    load_group(up, row + y.cols, c, y.cols);
    for (int i = 0; i < GROUP; i++) {
        float sig = __fdiv_rn(gate[i], 1 + expf(-gate[i]));
        gate[i] = sig * up[i];
    }
    store_group(y.p + blockIdx.x * y.ld, c, y.cols, gate);
}

void cuda_glu(backend *be, tensor y, tensor gate_up)
{
    cuda_state *st = cuda_of(be);
    if (y.rows == 0) return;
    GPU_LAUNCH(glu_kernel, row_grid(y), dim3(THREADS), 0, true, st->stream, matrix_of(y),
               matrix_of(gate_up));
}

__global__ void __launch_bounds__(THREADS) add_kernel(matrix y, matrix x)
{
    cu_gdc_wait();
    cu_gdc_launch();
    int c = my_column();
    if (c >= y.cols) return;
    float a[GROUP], b[GROUP];
    bf16 *to = y.p + blockIdx.x * y.ld;
    load_group(a, to, c, y.cols);
    load_group(b, x.p + blockIdx.x * x.ld, c, y.cols);
    for (int i = 0; i < GROUP; i++) a[i] += b[i];
    store_group(to, c, y.cols, a);
}

void cuda_add(backend *be, tensor y, tensor x)
{
    cuda_state *st = cuda_of(be);
    if (y.rows == 0) return;
    GPU_LAUNCH(add_kernel, row_grid(y), dim3(THREADS), 0, true, st->stream, matrix_of(y),
               matrix_of(x));
}

/* ---- sums of states ------------------------------------------------------------------------ */

/* A thread a column of a span: rows in order, in double. */
__global__ void __launch_bounds__(THREADS)
    pool_kernel(float *y, int64_t ldy, matrix x, double *sum, const pool_span *span)
{
    cu_gdc_wait();
    cu_gdc_launch();
    int c = (int)(blockIdx.y * THREADS + threadIdx.x);
    if (c >= x.cols) return;
    pool_span s = span[blockIdx.x];
    double *at = sum + (int64_t)s.place * x.cols + c, v = s.begin ? 0.0 : *at;
    for (int r = s.first; r < s.first + s.n; r++) v += (double)__bfloat162float(x.p[r * x.ld + c]);
    *at = v;
    y[blockIdx.x * ldy + c] = (float)v;
}

void cuda_pool(backend *be, tensor y, tensor x, double *sum, const pool_span *span)
{
    cuda_state *st = cuda_of(be);
    assert(y.type == ACT_F32);
    if (y.rows == 0) return;
    dim3 grid((unsigned)y.rows, (unsigned)((x.cols + THREADS - 1) / THREADS));
    GPU_LAUNCH(pool_kernel, grid, dim3(THREADS), 0, true, st->stream, (float *)y.ptr, (int64_t)y.ld,
               matrix_of(x), sum, span);
}

/* ---- RMSNorm ------------------------------------------------------------------------------ */

/* A block a row.  Squares are summed by thread (groups t, t + 256, ..., left to right), over lanes
 * by xor, over warps in order.  The second read comes from L1; y may be x, since a thread writes
 * only what it alone reads. */
__global__ void __launch_bounds__(THREADS)
    rms_norm_kernel(matrix y, matrix x, const float *gain, float eps)
{
    CU_SHARED(float, part, [NORM_WARPS]);
    cu_gdc_wait();
    cu_gdc_launch();
    const bf16 *from = x.p + blockIdx.x * x.ld;
    bf16 *to = y.p + blockIdx.x * y.ld;
    float v[GROUP], sum = 0;
    for (int c = (int)threadIdx.x * GROUP; c < x.cols; c += THREADS * GROUP) {
        load_group(v, from, c, x.cols);
        for (int i = 0; i < GROUP; i++) sum = fmaf(v[i], v[i], sum);
    }
    sum = cu_warp_sum(sum);
    if (cu_lane() == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int w = 0; w < NORM_WARPS; w++) sum += part[w];
    float scale = __fdiv_rn(1, __fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float)x.cols), eps)));
    for (int c = (int)threadIdx.x * GROUP; c < x.cols; c += THREADS * GROUP) {
        load_group(v, from, c, x.cols);
        for (int i = 0; i < GROUP; i++) v[i] = v[i] * scale * (c + i < x.cols ? gain[c + i] : 0);
        store_group(to, c, x.cols, v);
    }
}

void cuda_rms_norm(backend *be, tensor y, tensor x, const vec *w, float eps)
{
    cuda_state *st = cuda_of(be);
    if (y.rows == 0) return;
    GPU_LAUNCH(rms_norm_kernel, dim3((unsigned)y.rows), dim3(THREADS), 0, true, st->stream,
               matrix_of(y), matrix_of(x), w->v, eps);
}

/* ---- cos/sin rows ------------------------------------------------------------------------- */

/* cos and sin of an angle, each rounded once: reduced to [-pi/4, pi/4] with pi/2 in two parts
 * (exact to 1e-16 for every angle below 2^31), then the Taylor series to x^17, whose rest is below
 * 1e-17. Slower than sincosf and right at any position. */
CU_FN void cos_sin(float angle, float *c, float *s)
{
    double k = rint((double)angle * 0.63661977236758134308);   /* 2 / pi */
    double x = fma(k, -1.57079632679489655800, (double)angle); /* pi / 2 */
    x = fma(k, -6.12323399573676603587e-17, x);                /* what the double above lacks */
    double z = x * x;
    double sine = 1.0 / 355687428096000.0; /* 17! */
    sine = fma(sine, z, -1.0 / 1307674368000.0);
    sine = fma(sine, z, 1.0 / 6227020800.0);
    sine = fma(sine, z, -1.0 / 39916800.0);
    sine = fma(sine, z, 1.0 / 362880.0);
    sine = fma(sine, z, -1.0 / 5040.0);
    sine = fma(sine, z, 1.0 / 120.0);
    sine = fma(sine, z, -1.0 / 6.0);
    sine = fma(sine * z, x, x);
    double cosine = 1.0 / 20922789888000.0; /* 16! */
    cosine = fma(cosine, z, -1.0 / 87178291200.0);
    cosine = fma(cosine, z, 1.0 / 479001600.0);
    cosine = fma(cosine, z, -1.0 / 3628800.0);
    cosine = fma(cosine, z, 1.0 / 40320.0);
    cosine = fma(cosine, z, -1.0 / 720.0);
    cosine = fma(cosine, z, 1.0 / 24.0);
    cosine = fma(cosine, z, -0.5);
    cosine = fma(cosine, z, 1.0);
    int turn = (int)((long long)k & 3);
    double a = turn & 1 ? sine : cosine, b = turn & 1 ? cosine : sine;
    *c = (float)(turn == 1 || turn == 2 ? -a : a);
    *s = (float)(turn >= 2 ? -b : b);
}

/* A thread an angle. */
__global__ void __launch_bounds__(THREADS)
    rope_rows_kernel(float *cs, int64_t ld, int rows, const int32_t *pos, const float *inv_freq,
                     int half, float scale)
{
    cu_gdc_wait();
    cu_gdc_launch();
    int at = (int)(blockIdx.x * THREADS + threadIdx.x), row = at / half, i = at % half;
    if (row >= rows) return;
    float c, s;
    cos_sin(__fmul_rn((float)pos[row], inv_freq[i]), &c, &s);
    cs[row * ld + i] = __fmul_rn(c, scale);
    cs[row * ld + half + i] = __fmul_rn(s, scale);
}

void cuda_rope_rows(backend *be, tensor cs, const int32_t *pos, const rope_spec *r)
{
    cuda_state *st = cuda_of(be);
    assert(cs.type == ACT_F32 && cs.cols == r->dim);
    int64_t angles = (int64_t)cs.rows * (r->dim / 2);
    if (angles == 0) return;
    assert(angles < INT32_MAX);
    GPU_LAUNCH(rope_rows_kernel, dim3((unsigned)((angles + THREADS - 1) / THREADS)), dim3(THREADS),
               0, true, st->stream, (float *)cs.ptr, (int64_t)cs.ld, cs.rows, pos, r->inv_freq,
               r->dim / 2, r->scale);
}
