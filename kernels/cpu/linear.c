/* linear.c - owns the matrix products of the cpu backend above the instruction sets: weights from
 * parts to packed segments, the workspace of quantised activations, and the cutting of a product
 * into tasks.
 *
 * An op takes its rows in slices of SLICE_ROWS: a region of the pool prepares them (norm,
 * quantise), a second one multiplies.  A task of the second is one block of ACC_ROWS rows times a
 * few groups of 32 weight rows; blocks of rows are outermost, so that their activations stay in L2.
 * Refuses: what memory refuses; tokens outside the vocabulary (fault).  Thread: as a backend. */
#include "kernels/cpu/linear.h"
#include "kernels/cpu/simd.h"

#include <assert.h>
#include <stdlib.h>

enum {
    SLICE_ROWS = 512,
    BAND = 16,      /* rows prepared at a time: 16 scales of I16 fill a line */
    ALONE_ROWS = 4, /* fewer rows are prepared by the caller: a region costs more */
    MAX_CHUNK = 8   /* groups per task */
};

/* How a layout wants its activations. */
typedef enum { IN_FLOAT, IN_Q8, IN_I16, IN_COUNT } input_kind;

/* cpu_state.linear_work: one slice of activations of each kind, and a band of normed rows for each
 * thread.  Grown by uploads to the widest weight. */
typedef struct {
    void *in[IN_COUNT];
    size_t cap[IN_COUNT]; /* bytes */
    float *band;          /* [threads][BAND][band_cols] */
    size_t band_cap;
} linear_work;

static input_kind input_of(int kind)
{
    return kind == LAYOUT_I16 ? IN_I16 : layout_is_float(kind) ? IN_FLOAT : IN_Q8;
}
static int up_to(int n, int multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}
static int min_int(int a, int b)
{
    return a < b ? a : b;
}
static const packed *packed_of(const weight *w, int seg)
{
    return w->seg[seg].data;
}

/* ---- workspace ---------------------------------------------------------------------------- */

static size_t slice_bytes(input_kind kind, int k)
{
    size_t rows = SLICE_ROWS, blocks = (size_t)((k + 31) / 32);
    if (kind == IN_FLOAT) return rows * (size_t)up_to(k, 8) * sizeof(float);
    if (kind == IN_Q8) return rows * blocks * sizeof(act8);
    return rows * blocks * (32 * sizeof(int16_t) + sizeof(float));
}

static int grow(backend *be, void **p, size_t *cap, size_t bytes)
{
    if (bytes <= *cap) return 0;
    void *q = be->op->alloc(be, bytes);
    if (!q) return ERR_NOMEM;
    if (*p) be->op->release(be, *p, *cap);
    *p = q;
    *cap = bytes;
    return 0;
}

static int work_reserve(backend *be, const weight *w)
{
    cpu_state *c = cpu_of(be);
    if (!c->linear_work) c->linear_work = calloc(1, sizeof(linear_work));
    linear_work *work = c->linear_work;
    if (!work) return ERR_NOMEM;
    for (int i = 0; i < w->n_seg; i++) {
        input_kind kind = input_of(packed_of(w, i)->kind);
        if (grow(be, &work->in[kind], &work->cap[kind], slice_bytes(kind, w->in))) return ERR_NOMEM;
    }
    void *band = work->band;
    int rc = grow(be, &band, &work->band_cap,
                  sizeof(float) * BAND * (size_t)pool_threads(c->pool) * (size_t)up_to(w->in, 16));
    work->band = band;
    return rc;
}

void cpu_linear_close(backend *be)
{
    cpu_state *c = cpu_of(be);
    linear_work *work = c->linear_work;
    if (!work) return;
    for (int i = 0; i < IN_COUNT; i++)
        if (work->in[i]) be->op->release(be, work->in[i], work->cap[i]);
    if (work->band) be->op->release(be, work->band, work->band_cap);
    free(work);
    c->linear_work = NULL;
}

/* ---- weights ------------------------------------------------------------------------------ */

size_t cpu_weight_bytes(int type, int64_t rows, int64_t in)
{
    size_t groups = (size_t)((rows + 31) / 32), bytes;
    if (rows < 0 || in < 0 || in > INT32_MAX - 32) return SIZE_MAX;
    if (__builtin_mul_overflow(groups, pack_group_bytes(type, (int)in), &bytes)) return SIZE_MAX;
    return bytes > SIZE_MAX - sizeof(packed) ? SIZE_MAX : bytes + sizeof(packed);
}

void cpu_release_weight(backend *be, weight *w)
{
    for (int i = 0; i < w->n_seg; i++)
        if (w->seg[i].data) be->op->release(be, w->seg[i].data, w->seg[i].bytes);
    if (w->bias) be->op->release(be, w->bias, (size_t)w->out * sizeof(float));
    *w = (weight){0};
}

/* An upload as a region: item g is group g of the segments in order. */
typedef struct {
    pool_queue queue;
    const weight *w;
    const weight_part *parts;
    int n_parts, n_groups;
    size_t row_bytes[WEIGHT_MAX_SEG]; /* of each part */
} upload_job;

/* Source of row `row` of the weight, parts stacked. */
static const uint8_t *source_row(const upload_job *j, int row)
{
    int i = 0;
    while (row >= j->parts[i].rows) row -= j->parts[i++].rows;
    return (const uint8_t *)j->parts[i].data + (size_t)row * j->row_bytes[i];
}

/* First row of group g in the weight (gate rows, then up rows) and how many rows it holds. */
static int group_rows(const weight *w, int seg, int g, int *n)
{
    int first = w->seg[seg].row0, rows = w->seg[seg].rows;
    if (w->join == JOIN_GLU && w->n_seg == 1) { /* gate and up groups alternate */
        rows /= 2;
        first += g & 1 ? rows : 0;
        g /= 2;
    }
    *n = min_int(32, rows - 32 * g);
    return first + 32 * g;
}

static void upload_item(const upload_job *j, int item)
{
    int seg = 0, n;
    while (item >= packed_of(j->w, seg)->n_groups) item -= packed_of(j->w, seg++)->n_groups;
    const packed *p = packed_of(j->w, seg);
    const uint8_t *row[32] = {NULL};
    int first = group_rows(j->w, seg, item, &n);
    for (int r = 0; r < n; r++) row[r] = source_row(j, first + r);
    uint8_t *dst = (uint8_t *)j->w->seg[seg].data + (packed_group(p, item) - (const uint8_t *)p);
    pack_group(p->kind, j->w->seg[seg].type, row, j->w->in, dst);
}

static void upload_region(void *arg, int id, int n)
{
    upload_job *j = arg;
    (void)id;
    (void)n;
    for (int i; (i = pool_take(&j->queue, j->n_groups)) >= 0;) upload_item(j, i);
}

static int layout_for(const cpu_state *c, int type)
{
    return c->bf16_repack && (type == DT_BF16 || type == DT_F16) ? (int)LAYOUT_I16 : type;
}

/* Runs of parts of one type become one segment. */
static int make_segments(backend *be, weight *w, const weight_part *parts, int n_parts)
{
    for (int i = 0; i < n_parts; i++) {
        int last = w->n_seg - 1;
        if (last >= 0 && w->seg[last].type == parts[i].type) w->seg[last].rows += parts[i].rows;
        else {
            w->seg[w->n_seg].type = parts[i].type;
            w->seg[w->n_seg].row0 = w->out;
            w->seg[w->n_seg++].rows = parts[i].rows;
        }
        w->out += parts[i].rows;
    }
    for (int i = 0; i < w->n_seg; i++) {
        int kind = layout_for(cpu_of(be), w->seg[i].type), rows = w->seg[i].rows;
        bool pairs = w->join == JOIN_GLU && w->n_seg == 1;
        int groups = pairs ? 2 * ((rows / 2 + 31) / 32) : (rows + 31) / 32;
        size_t bytes = sizeof(packed) + (size_t)groups * pack_group_bytes(kind, w->in);
        packed *p = be->op->alloc(be, bytes);
        if (!p) return ERR_NOMEM;
        *p = (packed){
            .kind = kind, .n_groups = groups, .group_bytes = pack_group_bytes(kind, w->in)};
        w->seg[i].data = p;
        w->seg[i].bytes = bytes;
        w->bytes += bytes;
    }
    return 0;
}

static int copy_bias(backend *be, weight *w, const weight_part *parts, int n_parts)
{
    bool any = false;
    for (int i = 0; i < n_parts; i++) any |= parts[i].bias != NULL;
    if (!any) return 0;
    w->bias = be->op->alloc(be, (size_t)w->out * sizeof(float));
    if (!w->bias) return ERR_NOMEM;
    w->bytes += (size_t)w->out * sizeof(float);
    float *to = w->bias;
    for (int i = 0; i < n_parts; to += parts[i++].rows)
        if (parts[i].bias) memcpy(to, parts[i].bias, (size_t)parts[i].rows * sizeof *to);
    return 0;
}

int cpu_upload_weight(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                      weight_join join, err *e)
{
    upload_job j = {.w = w, .parts = parts, .n_parts = n_parts};
    *w = (weight){.in = in, .join = join};
    if (make_segments(be, w, parts, n_parts) || copy_bias(be, w, parts, n_parts) ||
        work_reserve(be, w)) {
        err_set(e, ERR_NOMEM, "out of memory for a weight of %d x %d", w->out, in);
        cpu_release_weight(be, w);
        return ERR_NOMEM;
    }
    for (int i = 0; i < n_parts; i++)
        if (!dtype_row_bytes(parts[i].type, in, &j.row_bytes[i]))
            assert(!"checked by k_upload_weight");
    for (int i = 0; i < w->n_seg; i++) j.n_groups += packed_of(w, i)->n_groups;
    pool_queue_init(&j.queue);
    pool_run(cpu_of(be)->pool, upload_region, &j);
    return 0;
}

/* ---- one product -------------------------------------------------------------------------- */

typedef enum { OUT_SET, OUT_ADD, OUT_GLU } output_mode;

typedef struct {
    pool_bands bands;
    pool_queue queue;
    cpu_state *c;
    const linear_isa *isa;
    const weight *w;
    output_mode mode;
    tensor x, y;
    const float *norm; /* [in], or NULL: x as it is */
    float eps;
    int row0, rows;    /* the slice of x and y */
    acts in[IN_COUNT]; /* the slice, prepared */
    bool wants[IN_COUNT];
} product;

/* x[n][ld] floats to [k/8][stride][8], the last block padded with zeros. */
static void spread(float *to, int stride, const float *x, size_t ld, int n, int k)
{
    for (int k0 = 0; k0 < k; k0 += 8, to += 8 * (size_t)stride)
        for (int m = 0; m < n; m++) {
            const float *p = x + (size_t)m * ld + k0;
            if (k - k0 >= 8) memcpy(to + 8 * m, p, 8 * sizeof *to);
            else
                for (int i = 0; i < 8; i++) to[8 * m + i] = k0 + i < k ? p[i] : 0;
        }
}

/* Rows [lo, hi) of the slice into every kind of input that is wanted. */
static void prepare_band(product *j, int lo, int hi, float *band)
{
    int k = j->w->in, n = hi - lo, stride = j->rows;
    size_t ld = (size_t)j->x.ld;
    const float *x = tensor_row(j->x, j->row0 + lo);
    linear_work *work = j->c->linear_work;
    if (j->norm) {
        size_t to = (size_t)up_to(k, 16);
        for (int m = 0; m < n; m++)
            j->c->rows->rms_norm(band + (size_t)m * to, x + (size_t)m * ld, j->norm, k, j->eps);
        x = band;
        ld = to;
    }
    if (j->wants[IN_Q8]) j->isa->quant8((act8 *)work->in[IN_Q8] + lo, stride, x, ld, n, k);
    if (j->wants[IN_FLOAT])
        spread((float *)work->in[IN_FLOAT] + 8 * (size_t)lo, stride, x, ld, n, k);
    if (j->wants[IN_I16]) {
        int16_t *q = work->in[IN_I16];
        float *d = (float *)(void *)(q + 32 * (size_t)stride * (size_t)j->in[IN_I16].n_blocks);
        j->isa->quant16(q + 32 * (size_t)lo, d + lo, stride, x, ld, n, k);
    }
}

static void prepare_region(void *arg, int id, int n)
{
    product *j = arg;
    linear_work *work = j->c->linear_work;
    (void)n;
    float *band = work->band + (size_t)id * BAND * (size_t)up_to(j->w->in, 16);
    for (int lo, hi; pool_band(&j->bands, &lo, &hi);) prepare_band(j, lo, hi, band);
}

static void prepare(product *j)
{
    linear_work *work = j->c->linear_work;
    int k = j->w->in;
    for (int i = 0; i < j->w->n_seg; i++) j->wants[input_of(packed_of(j->w, i)->kind)] = true;
    for (int i = 0; i < IN_COUNT; i++)
        j->in[i] = (acts){work->in[i], NULL, j->rows, i == IN_FLOAT ? (k + 7) / 8 : (k + 31) / 32};
    if (j->wants[IN_I16]) {
        const int16_t *q = work->in[IN_I16];
        j->in[IN_I16].d = (const float *)(const void *)(q + 32 * (size_t)j->rows *
                                                                (size_t)j->in[IN_I16].n_blocks);
    }
    pool_bands_init(&j->bands, j->c->pool, j->rows, BAND);
    if (j->rows < ALONE_ROWS) pool_run_alone(j->c->pool, prepare_region, j);
    else pool_run(j->c->pool, prepare_region, j);
}

/* Group g of segment seg times rows m0.. of the slice, bias not yet added. */
static void multiply(const product *j, int seg, int g, int m0, int rows, float *acc)
{
    const packed *p = packed_of(j->w, seg);
    j->isa->group[p->kind](packed_group(p, g), &j->in[input_of(p->kind)], m0, rows, acc);
}

/* 32 outputs of a plain product. */
static void plain_unit(const product *j, int unit, int m0, int rows, float *acc)
{
    int seg = 0, n;
    while (unit >= packed_of(j->w, seg)->n_groups) unit -= packed_of(j->w, seg++)->n_groups;
    int col = group_rows(j->w, seg, unit, &n);
    multiply(j, seg, unit, m0, rows, acc);
    j->isa->finish(tensor_row(j->y, j->row0 + m0) + col, (size_t)j->y.ld, acc,
                   j->w->bias ? j->w->bias + col : NULL, rows, n, j->mode == OUT_ADD);
}

/* 32 hidden values: silu(gate) * up, as f32 or as one block of the next product's input. */
static void glu_unit(const product *j, int unit, int m0, int rows, float *gate, float *up)
{
    int ff = j->w->out / 2, cols = min_int(32, ff - 32 * unit);
    bool pairs = j->w->n_seg == 1;
    multiply(j, 0, pairs ? 2 * unit : unit, m0, rows, gate);
    multiply(j, pairs ? 0 : 1, pairs ? 2 * unit + 1 : unit, m0, rows, up);
    if (j->w->bias) {
        j->isa->finish(gate, 32, gate, j->w->bias + 32 * unit, rows, cols, false);
        j->isa->finish(up, 32, up, j->w->bias + ff + 32 * unit, rows, cols, false);
    }
    j->c->rows->glu(gate, gate, up, 32 * rows);
    if (j->y.type == ACT_Q8) {
        act8 *to = (act8 *)j->y.ptr + (size_t)unit * (size_t)j->y.ld + j->row0 + m0;
        j->isa->quant8(to, j->y.ld, gate, 32, rows, 32);
    } else
        j->isa->finish(tensor_row(j->y, j->row0 + m0) + 32 * unit, (size_t)j->y.ld, gate, NULL,
                       rows, cols, false);
}

static int count_units(const product *j)
{
    if (j->mode == OUT_GLU) return (j->w->out / 2 + 31) / 32;
    int n = 0;
    for (int i = 0; i < j->w->n_seg; i++) n += packed_of(j->w, i)->n_groups;
    return n;
}

static void product_region(void *arg, int id, int n)
{
    product *j = arg;
    _Alignas(64) float acc[2][ACC_ROWS * 32];
    int units = count_units(j), chunk = units / (8 * n);
    (void)id;
    chunk = chunk < 1 ? 1 : min_int(chunk, MAX_CHUNK);
    int chunks = (units + chunk - 1) / chunk, blocks = (j->rows + ACC_ROWS - 1) / ACC_ROWS;
    for (int i; (i = pool_take(&j->queue, chunks * blocks)) >= 0;) {
        int lo = i % chunks * chunk, hi = min_int(lo + chunk, units);
        int m0 = i / chunks * ACC_ROWS, rows = min_int(ACC_ROWS, j->rows - m0);
        for (int u = lo; u < hi; u++) {
            if (j->mode == OUT_GLU) glu_unit(j, u, m0, rows, acc[0], acc[1]);
            else plain_unit(j, u, m0, rows, acc[0]);
        }
    }
}

static void multiply_slice(product *j)
{
    pool_queue_init(&j->queue);
    pool_run(j->c->pool, product_region, j);
}

static const linear_isa *isa_of(const cpu_state *c)
{
    static const linear_isa *const tables[ISA_COUNT] = {
        [ISA_PORTABLE] = &linear_portable,
        [ISA_AVX2] = &linear_avx2,
        [ISA_AVXVNNI] = &linear_avxvnni,
        [ISA_AVX512] = &linear_avx512,
    };
    return tables[c->isa];
}

static void run_product(backend *be, tensor y, tensor x, const vec *norm, float eps,
                        const weight *w, output_mode mode)
{
    product j = {.c = cpu_of(be), .w = w, .mode = mode, .x = x, .y = y, .eps = eps};
    j.isa = isa_of(j.c);
    j.norm = norm ? norm->v : NULL;
    if (x.type == ACT_Q8) {
        assert(cpu_glu_out_q8(w) && !norm);
        j.rows = x.rows;
        j.in[IN_Q8] = (acts){x.ptr, NULL, x.ld, w->in / 32};
        if (x.rows) multiply_slice(&j);
        return;
    }
    for (; j.row0 < x.rows; j.row0 += SLICE_ROWS) {
        j.rows = min_int(SLICE_ROWS, x.rows - j.row0);
        prepare(&j);
        multiply_slice(&j);
    }
}

/* ---- ops ---------------------------------------------------------------------------------- */

void cpu_linear(backend *be, tensor y, tensor x, const weight *w)
{
    run_product(be, y, x, NULL, 0, w, OUT_SET);
}
void cpu_linear_add(backend *be, tensor y, tensor x, const weight *w)
{
    run_product(be, y, x, NULL, 0, w, OUT_ADD);
}
void cpu_norm_linear(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w)
{
    run_product(be, y, x, norm, eps, w, OUT_SET);
}
void cpu_norm_glu(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w)
{
    run_product(be, y, x, norm, eps, w, OUT_GLU);
}

bool cpu_glu_out_q8(const weight *down)
{
    for (int i = 0; i < down->n_seg; i++)
        if (input_of(packed_of(down, i)->kind) != IN_Q8) return false;
    return true;
}

typedef struct {
    pool_bands bands;
    const weight *w;
    const int32_t *tok;
    tensor y;
} embed_job;

/* Where row `row` of a weight lies. */
static const uint8_t *locate(const weight *w, int row, int *kind, int *lane)
{
    int seg = 0;
    while (row >= w->seg[seg].row0 + w->seg[seg].rows) seg++;
    const packed *p = packed_of(w, seg);
    row -= w->seg[seg].row0;
    *kind = p->kind;
    *lane = row % 32;
    return packed_group(p, row / 32);
}

static void embed_region(void *arg, int id, int n)
{
    embed_job *j = arg;
    (void)id;
    (void)n;
    for (int lo, hi; pool_band(&j->bands, &lo, &hi);)
        for (int r = lo; r < hi; r++) {
            int kind, lane, row = j->tok[r] - j->w->row0;
            if (row < 0 || row >= j->w->out) { /* another rank's */
                memset(tensor_row(j->y, r), 0, (size_t)j->w->in * sizeof(float));
                continue;
            }
            const uint8_t *group = locate(j->w, row, &kind, &lane);
            unpack_row(kind, group, lane, j->w->in, tensor_row(j->y, r));
        }
}

void cpu_embed(backend *be, tensor y, const int32_t *tok, const weight *w)
{
    embed_job j = {.w = w, .tok = tok, .y = y};
    int n = w->rows_all ? w->rows_all : w->out;
    assert(w->join == JOIN_ROWS);
    for (int r = 0; r < y.rows; r++)
        if (tok[r] < 0 || tok[r] >= n) {
            k_fault(be, "embed", "token %d of %d", tok[r], n);
            return;
        }
    pool_bands_init(&j.bands, cpu_of(be)->pool, y.rows, BAND);
    if (y.rows < ALONE_ROWS) pool_run_alone(cpu_of(be)->pool, embed_region, &j);
    else pool_run(cpu_of(be)->pool, embed_region, &j);
}
