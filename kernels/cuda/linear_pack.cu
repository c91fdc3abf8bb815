/* linear_pack.cu - weights into device memory: parts of a checkpoint through a staging area,
 * repacked into records.cuh's layout by kernels; or made of hash bits on the device, for speed
 * runs.
 *
 * Nothing is rounded but F32, which becomes bf16.  The staging area is the ops' work space, used in
 * stream order and at most STAGING_BYTES (or one tile of rows) at a time.
 *
 * Owns the memory behind weight.seg[].data and weight.bias.  Refuses what does not fit on the
 * device (ERR_NOMEM); types and shapes are kernels.c's to check.  Thread: the rank's. */
#include "kernels/cuda/linear.h"
#include "kernels/formats_codes.h"

#include <assert.h>

enum { STAGING_BYTES = 64 << 20, PACK_THREADS = 64 };

/* ---- one record --------------------------------------------------------------------------- */

/* What one sub-block of 32 contributes to the scales of a record, as the record stores it. */
typedef struct {
    uint16_t d, m;               /* f16 bits; bf16 of SCALE_BF16 */
    uint8_t first[2], second[2]; /* bytes of the halves; where there are no halves, scale and min */
} raw_scales;

/* bf16 bits of 2^(e - 128); the two smallest are denormals. */
CU_FN uint16_t bits_of_e8m0(uint8_t e)
{
    return (uint16_t)(e < 2 ? 0x20 << e : (e - 1) << 7);
}

/* The K types, whose scales are per 256. */
CU_FN void read_super_scales(int type, const uint8_t *b, int sub, raw_scales *r)
{
    int sc, mn;
    switch (type) {
    case DT_Q2_K:
        r->d = read16(b + 80), r->m = read16(b + 82);
        for (int h = 0; h < 2; h++) r->first[h] = b[2 * sub + h];
        break;
    case DT_Q3_K:
        r->d = read16(b + 108);
        for (int h = 0; h < 2; h++)
            r->first[h] = (uint8_t)(format_k3_scale(b + 96, 2 * sub + h) + 128);
        break;
    case DT_Q4_K:
    case DT_Q5_K:
        format_k4_scale(b + 4, sub, &sc, &mn);
        r->d = read16(b), r->m = read16(b + 2);
        r->first[0] = (uint8_t)sc, r->second[0] = (uint8_t)mn;
        break;
    case DT_Q6_K:
        r->d = read16(b + 208);
        for (int h = 0; h < 2; h++) r->first[h] = b[192 + 2 * sub + h] ^ 0x80;
        break;
    case DT_IQ4_XS:
        sc = (b[4 + sub / 2] >> 4 * (sub & 1) & 15) | (read16(b + 2) >> 2 * sub & 3) << 4;
        r->d = read16(b);
        r->first[0] = (uint8_t)(sc - 32 + 128);
        break;
    }
}
CU_FN raw_scales read_scales(int type, const uint8_t *b, int sub)
{
    raw_scales r = {};
    switch (type) {
    case DT_Q4_1:
    case DT_Q5_1: r.m = read16(b + 2); /* fall through */
    case DT_Q4_0:
    case DT_Q5_0:
    case DT_Q8_0:
    case DT_IQ4_NL: r.d = read16(b); break;
    case DT_MXFP4: r.d = bits_of_e8m0(b[0]); break;
    case DT_NVFP4: /* 0x7f is NaN and counts as 0 */
        for (int h = 0; h < 2; h++) {
            uint8_t x = b[2 * sub + h] & 0x7f;
            r.first[h] = x == 0x7f ? 0 : x;
        }
        break;
    default: read_super_scales(type, b, sub, &r);
    }
    return r;
}

/* Scales of row `row` (0..15), block b into p, the scales of a record. */
CU_FN void put_scales(scale_kind kind, uint8_t *p, int row, int b, const raw_scales &r)
{
    const int at = 2 * (row & 7) + (row >> 3);
    uint16_t *half = (uint16_t *)p;
    switch (kind) {
    case SCALE_16:
    case SCALE_BF16: half[at * 4 + b] = r.d; break;
    case SCALE_16MIN: half[at * 8 + b * 2] = r.d, half[at * 8 + b * 2 + 1] = r.m; break;
    case SCALE_K32:
    case SCALE_K16:
        if (b == 0) half[at * 2] = r.d, half[at * 2 + 1] = r.m;
        p += 64 + at * 8;
        if (kind == SCALE_K32) p[b] = r.first[0], p[4 + b] = r.second[0];
        else p[2 * b] = r.first[0], p[2 * b + 1] = r.first[1];
        break;
    case SCALE_I32:
        if (b == 0) half[at] = r.d;
        p[32 + at * 4 + b] = r.first[0];
        break;
    case SCALE_I16:
        if (b == 0) half[at] = r.d;
        p += 32 + at * 8;
        p[2 * b] = r.first[0], p[2 * b + 1] = r.first[1];
        break;
    case SCALE_E4M3: p[at * 8 + 2 * b] = r.first[0], p[at * 8 + 2 * b + 1] = r.first[1]; break;
    default: break;
    }
}

/* Word i of the lines of a record of code[row][k]. */
CU_FN uint32_t line_word(record_traits f, const uint8_t (*code)[GROUP_K], int i)
{
    const int lane = i / 4 % 32, g = lane / 4, t = lane % 4, word = i % 4;
    uint32_t w = 0;
    if (f.bits == 8) {
        const int k = i / 128 * 32 + word / 2 * 16 + t * 4 + word % 2 * 2;
        for (int j = 0; j < 4; j++) w |= (uint32_t)code[g + j / 2 * 8][k + j % 2] << 8 * j;
        return w;
    }
    const int k = (i / 128 * 2 + word / 2) * 32 + word % 2 * 16 + t * 4;
    for (int j = 0; j < 8; j++) {
        int hi = j >> 2, p = j >> 1 & 1, e = j & 1;
        uint32_t c = code[g + 8 * hi][k + 2 * p + e] & 15;
        w |= c << record_nibble(f.table, hi, p, e);
    }
    return w;
}
/* Word i of the plane. */
CU_FN uint32_t plane_word(record_traits f, const uint8_t (*code)[GROUP_K], int i)
{
    const int per_lane = 2 * f.plane, lane = i / per_lane, g = lane / 4, t = lane % 4;
    const int blocks = f.plane == 1 ? 2 : 1, b0 = i % per_lane * blocks;
    uint32_t w = 0;
    for (int j = 0; j < 16 * blocks; j++) {
        int b = j >> 4, s = j >> 3 & 1, hi = j >> 2 & 1, p = j >> 1 & 1, e = j & 1;
        uint32_t above = code[g + 8 * hi][(b0 + b) * 32 + s * 16 + t * 4 + 2 * p + e] >> 4;
        int at = 4 * s + hi + 2 * p;
        w |= above << (16 * e + (f.plane == 1 ? 8 * b + at : 2 * at));
    }
    return w;
}

/* ---- kernels ------------------------------------------------------------------------------ */

/* Tiles of one segment; source rows stand in the staging area one after the other, of interleaved
 * weights all gate rows, then all up rows. */
typedef struct {
    const uint8_t *src; /* [rows or 2 rows][row_bytes] */
    uint8_t *dst;       /* first tile's records (dense: rows) */
    size_t row_bytes;
    int type, in, groups;
    int rows; /* there are; the rest is padding */
    bool interleaved;
    int elems, bytes, record; /* per source block; of a record */
} pack_job;

/* Source row of packed row r, or NULL for padding. */
CU_FN const uint8_t *source_row(const pack_job &j, int r)
{
    int row = r;
    if (j.interleaved) {
        row = r / TILE_ROWS * 8 + r % 8;
        if (row >= j.rows) return NULL;
        if (r % TILE_ROWS >= 8) row += j.rows;
    } else if (row >= j.rows) return NULL;
    return j.src + (size_t)row * j.row_bytes;
}

/* One record a block. */
__global__ void __launch_bounds__(PACK_THREADS) pack_records_kernel(const pack_job j)
{
    CU_SHARED(uint8_t, code, [TILE_ROWS][GROUP_K]);
    const record_traits f = record_of(j.type);
    const int group = (int)(blockIdx.x % (unsigned)j.groups);
    const int tile = (int)(blockIdx.x / (unsigned)j.groups), i = (int)threadIdx.x;
    const int row = i >> 2, b = i & 3, sub = group * 4 + b, subs = j.elems / 32;
    uint8_t *rec = j.dst + (size_t)blockIdx.x * j.record, mine[32] = {};
    const uint8_t *src = source_row(j, tile * TILE_ROWS + row);
    raw_scales scales = {};
    if (src && sub * 32 < j.in) {
        src += (size_t)(sub / subs) * j.bytes;
        codes_of(j.type, src, sub % subs, mine);
        scales = read_scales(j.type, src, sub % subs);
    }
    for (int k = 0; k < 32; k++) code[row][b * 32 + k] = mine[k];
    __syncthreads();
    uint32_t *w = (uint32_t *)rec;
    const int lines = record_lines(j.type) / 4, plane = record_plane(j.type) / 4;
    for (int n = i; n < lines; n += PACK_THREADS) w[n] = line_word(f, code, n);
    for (int n = i; n < plane; n += PACK_THREADS) w[lines + n] = plane_word(f, code, n);
    put_scales(f.scale, rec + (size_t)(lines + plane) * 4, row, b, scales);
}

/* Eight k a thread. */
__global__ void __launch_bounds__(256) pack_dense_kernel(const pack_job j, size_t n)
{
    const size_t i = (size_t)blockIdx.x * 256 + threadIdx.x, per_row = (size_t)j.groups * 16;
    if (i >= n) return;
    const int k0 = (int)(i % per_row) * 8;
    const uint8_t *src = source_row(j, (int)(i / per_row));
    uint32_t v[4] = {};
#pragma unroll
    for (int k = 0; k < 8; k++) {
        uint32_t h = 0;
        if (!src || k0 + k >= j.in) continue;
        if (j.type == DT_F32) {
            float f;
            memcpy(&f, src + (size_t)(k0 + k) * 4, 4);
            h = __bfloat16_as_ushort(__float2bfloat16(f));
        } else h = read16(src + (size_t)(k0 + k) * 2);
        v[k >> 1] |= h << 16 * (k & 1);
    }
    cu_st16(j.dst + i * 16, make_uint4(v[0], v[1], v[2], v[3]));
}

/* ---- segments ----------------------------------------------------------------------------- */

size_t cuda_weight_bytes(int type, int64_t rows, int64_t in)
{
    size_t tiles = (size_t)(rows + TILE_ROWS - 1) / TILE_ROWS;
    size_t groups = (size_t)(in + GROUP_K - 1) / GROUP_K;
    return tiles * groups * (size_t)record_bytes(linear_stored(type));
}

void cuda_release_weight(backend *be, weight *w)
{
    for (int i = 0; i < w->n_seg; i++) cuda_free_raw(be, w->seg[i].data);
    cuda_free_raw(be, w->bias);
    *w = {};
}

/* Segments of equal type and memory for them; gate and up of one type share tiles.  Segment s
 * begins with part first[s]. */
static int make_segments(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                         weight_join join, int first[WEIGHT_MAX_SEG], err *e)
{
    bool bias = false;
    *w = {};
    w->in = in;
    w->join = join;
    for (int i = 0; i < n_parts; i++) {
        if (i == 0 || parts[i].type != parts[i - 1].type) {
            first[w->n_seg] = i;
            w->seg[w->n_seg].type = parts[i].type;
            w->seg[w->n_seg++].row0 = w->out;
        }
        w->seg[w->n_seg - 1].rows += parts[i].rows;
        w->out += parts[i].rows;
        bias = bias || parts[i].bias;
    }
    bool ok = true;
    for (int i = 0; i < w->n_seg; i++) {
        w->seg[i].bytes = cuda_weight_bytes(w->seg[i].type, w->seg[i].rows, in);
        w->seg[i].data = cuda_alloc_raw(be, w->seg[i].bytes);
        w->bytes += w->seg[i].bytes;
        ok = ok && w->seg[i].data;
    }
    if (bias) {
        w->bias = (float *)cuda_alloc_raw(be, (size_t)w->out * sizeof(float));
        w->bytes += (size_t)w->out * sizeof(float);
        ok = ok && w->bias;
    }
    int rc = ok ? linear_need_work(be, w, e)
                : err_set(e, ERR_NOMEM,
                          "no device memory for a weight of %d x %d (%zu MiB); choose a smaller "
                          "quantisation or more devices (--tensor-parallel-size)",
                          w->out, in, w->bytes >> 20);
    if (rc) cuda_release_weight(be, w);
    return rc;
}

/* ---- upload ------------------------------------------------------------------------------- */

/* Rows [row0, row0 + rows) of the segment that begins with part p0, to the staging area. */
static void stage_rows(backend *be, uint8_t *to, const weight_part *parts, int p0, int row0,
                       int rows, size_t row_bytes)
{
    for (const weight_part *p = parts + p0; rows > 0; p++) {
        int skip = row0 < p->rows ? row0 : p->rows, take = p->rows - skip;
        if (take > rows) take = rows;
        row0 -= skip;
        if (take == 0) continue;
        cuda_stage(be, to, (const uint8_t *)p->data + (size_t)skip * row_bytes,
                   (size_t)take * row_bytes);
        to += (size_t)take * row_bytes;
        rows -= take;
    }
}

static void launch_pack(cuda_state *st, const pack_job *j, int tiles)
{
    if (record_dense(linear_stored(j->type))) {
        size_t n = (size_t)tiles * TILE_ROWS * (size_t)j->groups * 16;
        GPU_LAUNCH(pack_dense_kernel, dim3((unsigned)((n + 255) / 256)), dim3(256), 0, false,
                   st->stream, *j, n);
    } else
        GPU_LAUNCH(pack_records_kernel, dim3((unsigned)tiles * (unsigned)j->groups),
                   dim3(PACK_THREADS), 0, false, st->stream, *j);
}

/* Tiles whose source rows fit the staging area. */
static int staged_tiles(size_t row_bytes, int tiles)
{
    size_t n = STAGING_BYTES / (TILE_ROWS * row_bytes);
    return n < 1 ? 1 : n < (size_t)tiles ? (int)n : tiles;
}

static void upload_segment(backend *be, const weight *w, int s, const weight_part *parts, int p0,
                           size_t row_bytes)
{
    cuda_state *st = cuda_of(be);
    const int stored = linear_stored(w->seg[s].type), tiles = linear_seg_tiles(w, s);
    const bool inter = linear_interleaved(w);
    const int step = staged_tiles(row_bytes, tiles), all = inter ? w->out / 2 : w->seg[s].rows;
    uint8_t *area = (uint8_t *)st->work;
    pack_job j = {};
    j.src = area;
    j.dst = (uint8_t *)w->seg[s].data;
    j.row_bytes = row_bytes;
    j.type = w->seg[s].type;
    j.in = w->in;
    j.groups = linear_groups(w->in);
    j.interleaved = inter;
    j.elems = dtype_of(j.type).elems;
    j.bytes = dtype_of(j.type).bytes;
    j.record = record_bytes(stored);
    for (int t = 0; t < tiles; t += step) {
        int n = tiles - t < step ? tiles - t : step, per = inter ? 8 : TILE_ROWS, row0 = t * per;
        j.rows = all - row0 < n * per ? all - row0 : n * per;
        stage_rows(be, area, parts, p0, row0, j.rows, row_bytes);
        if (inter)
            stage_rows(be, area + (size_t)j.rows * row_bytes, parts, p0 + 1, row0, j.rows,
                       row_bytes);
        launch_pack(st, &j, n);
        j.dst += (size_t)n * (size_t)j.groups * (size_t)j.record;
    }
}

static void upload_bias(backend *be, const weight *w, const weight_part *parts, int n_parts)
{
    float *to = w->bias; /* [out] or NULL */
    if (!to) return;
    for (int i = 0; i < n_parts; to += parts[i].rows, i++) {
        size_t bytes = (size_t)parts[i].rows * sizeof(float);
        if (parts[i].bias) cuda_stage(be, to, parts[i].bias, bytes);
        else gpu_memset_async(to, 0, bytes, cuda_of(be)->stream);
    }
}

int cuda_upload_weight(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                       weight_join join, err *e)
{
    int first[WEIGHT_MAX_SEG];
    size_t row_bytes[WEIGHT_MAX_SEG] = {}, staging = 0;
    int rc = make_segments(be, w, parts, n_parts, in, join, first, e);
    if (rc) return rc;
    for (int s = 0; s < w->n_seg; s++) {
        if (!dtype_row_bytes(w->seg[s].type, in, &row_bytes[s]))
            assert(!"checked by k_upload_weight");
        size_t tile = TILE_ROWS * row_bytes[s];
        size_t bytes = tile * (size_t)staged_tiles(row_bytes[s], linear_seg_tiles(w, s));
        if (bytes > staging) staging = bytes;
    }
    rc = cuda_need_work(be, staging, 0, e);
    if (rc) {
        cuda_release_weight(be, w);
        return rc;
    }
    for (int s = 0; s < w->n_seg; s++) upload_segment(be, w, s, parts, first[s], row_bytes[s]);
    upload_bias(be, w, parts, n_parts);
    return 0;
}

/* ---- weights of hash bits ----------------------------------------------------------------- */

typedef struct {
    uint8_t *dst;
    int type, in, groups, record;
    uint64_t seed;
    uint32_t mask;         /* bits of a word of codes that the format uses */
    float spread;          /* standard deviation of a weight: 1 / sqrt(in) */
    float mean, deviation; /* of the format's v when codes are random */
} dummy_job;

CU_FN uint64_t dummy_hash(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
CU_FN uint16_t half_bits(float f)
{
    return (uint16_t)cu_pack_f16(f, 0);
}
/* Scales near `scale` that make the mean of the weights nought where the format has a minimum. */
CU_FN raw_scales dummy_scales(scale_kind kind, float scale, float mean, uint64_t h)
{
    raw_scales r = {};
    const int vary = (int)(h & 7); /* 0..7, so that no two blocks need be equal */
    switch (kind) {
    case SCALE_16: r.d = half_bits(scale * (0.75f + 0.0625f * (float)vary)); break;
    case SCALE_BF16: r.d = (uint16_t)(__float_as_uint(scale) >> 16 & 0x7f80); break;
    case SCALE_16MIN:
        r.d = half_bits(scale);
        r.m = half_bits(-scale * mean);
        break;
    case SCALE_K32:
    case SCALE_K16:
        r.d = half_bits(scale / (kind == SCALE_K32 ? 32 : 8));
        r.m = half_bits(scale / (kind == SCALE_K32 ? 32 : 8) * mean);
        for (int i = 0; i < 2; i++)
            r.first[i] = (uint8_t)(kind == SCALE_K32 ? 28 + vary : (4 + vary) * 0x11);
        r.second[0] = r.first[0];
        break;
    case SCALE_I32:
    case SCALE_I16:
        r.d = half_bits(scale / 16);
        for (int i = 0; i < 2; i++) r.first[i] = (uint8_t)(128 + 12 + vary);
        break;
    default:
        for (int i = 0; i < 2; i++) r.first[i] = cu_f32_to_e4m3(scale * 2);
    }
    return r;
}

__global__ void __launch_bounds__(PACK_THREADS) dummy_records_kernel(const dummy_job j)
{
    const int i = (int)threadIdx.x, words = (record_lines(j.type) + record_plane(j.type)) / 4;
    uint8_t *rec = j.dst + (size_t)blockIdx.x * j.record;
    const uint64_t at = (uint64_t)blockIdx.x * 1024;
    for (int n = i; n < words; n += PACK_THREADS)
        ((uint32_t *)rec)[n] = (uint32_t)(dummy_hash(j.seed, at + n) >> 32) & j.mask;
    raw_scales s = dummy_scales(record_of(j.type).scale, j.spread / j.deviation, j.mean,
                                dummy_hash(j.seed, at + 512 + i) >> 40);
    put_scales(record_of(j.type).scale, rec + words * 4, i >> 2, i & 3, s);
}
__global__ void __launch_bounds__(256) dummy_dense_kernel(const dummy_job j, size_t n)
{
    const size_t i = (size_t)blockIdx.x * 256 + threadIdx.x, per_row = (size_t)j.groups * GROUP_K;
    if (i >= n) return;
    /* uniform in +-sqrt(3) times the spread */
    float u = (float)(int)(dummy_hash(j.seed, i) >> 40) * 0x1p-23f - 1;
    float v = (int)(i % per_row) < j.in ? u * 1.7320508f * j.spread : 0;
    ((uint16_t *)j.dst)[i] =
        j.type == DT_F16 ? half_bits(v) : __bfloat16_as_ushort(__float2bfloat16(v));
}

/* Bits of a word of codes the type uses, mean and deviation of its v over random codes. */
static void dummy_statistics(dummy_job *j)
{
    format_traits f = format_of(j->type);
    record_traits r = record_of(j->type);
    int bits = j->type == DT_Q2_K ? 2 : j->type == DT_Q3_K ? 3 : r.bits + r.plane;
    j->mask = j->type == DT_Q2_K ? 0x33333333u : j->type == DT_Q3_K ? 0x77777777u : ~0u;
    double sum = 0, squares = 0, n = 1 << bits;
    for (int c = 0; c < 1 << bits; c++) {
        double v = f.table ? f.table[c] : c - f.bias;
        sum += v, squares += v * v;
    }
    j->mean = (float)(sum / n);
    j->deviation = (float)sqrt(squares / n - (f.has_min ? sum / n * (sum / n) : 0));
}

int cuda_dummy_weight(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                      weight_join join, uint64_t seed, err *e)
{
    cuda_state *st = cuda_of(be);
    int first[WEIGHT_MAX_SEG], rc = make_segments(be, w, parts, n_parts, in, join, first, e);
    if (rc) return rc;
    for (int s = 0; s < w->n_seg; s++) {
        dummy_job j = {};
        j.dst = (uint8_t *)w->seg[s].data;
        j.type = linear_stored(w->seg[s].type);
        j.in = in;
        j.groups = linear_groups(in);
        j.record = record_bytes(j.type);
        j.seed = seed + (uint64_t)s * 0x2545f4914f6cdd1du;
        j.spread = 1 / sqrtf((float)in);
        unsigned records = (unsigned)linear_seg_tiles(w, s) * (unsigned)j.groups;
        if (record_dense(j.type)) {
            size_t n = (size_t)records * TILE_ROWS * GROUP_K;
            GPU_LAUNCH(dummy_dense_kernel, dim3((unsigned)((n + 255) / 256)), dim3(256), 0, false,
                       st->stream, j, n);
        } else {
            dummy_statistics(&j);
            GPU_LAUNCH(dummy_records_kernel, dim3(records), dim3(PACK_THREADS), 0, false,
                       st->stream, j);
        }
    }
    upload_bias(be, w, parts, n_parts);
    return 0;
}
