/* test_linear.cu - the CUDA products: every format's decoded values bit by bit, every op on odd
 * shapes against double, the rule of bits by memcmp, embeddings, uploads, weights of hash bits. */
#include "tests/cuda/linear_rig.h"
#include "tests/quick.h"

/* Root mean square error of one output row against double on the dequantised weights and the bf16
 * activations, relative to the row's size (linear_rig.h).  A value rounded to bf16 is off by at
 * most 2^-8 = 3.9e-3 of itself.  Own kernels round results only, and with a norm x * g (to bf16 for
 * BF16 weights, else to 11 bits); the residual is rounded twice.  The library's products see
 * normalised rows, F16 and block weights, gate and up in bf16.  Tensor cores cut off what the
 * emulator rounds: 9e-6 was seen. */
static const double SUM_BOUND = EMULATED ? 1e-6 : 2e-5, OUT_BOUND = 3.9e-3, NORM16_BOUND = 5e-4,
                    NORM_BOUND = 3.9e-3, PANEL_BOUND = 4.5e-3, ADD_BOUND = 3.9e-3,
                    GLU_BOUND = 3.9e-3;

static const int batches[] = {1, 2, 7, 8, 9, 16, 17, 33, 66};
enum { N_BATCHES = sizeof batches / sizeof *batches, MAX_M = 66 };

/* A number of features that is no multiple of 128 where the type allows it. */
static int odd_in(int type, int blocks)
{
    int elems = dtype_of(type).elems;
    return elems == 1 ? 72 * blocks + 3 : elems == 256 ? 256 * ((blocks + 3) / 4) : elems * blocks;
}

/* A third of the types, with one device.  Under EMU_SEED or QUERN_TEST_QUICK only one third is run,
 * another for each seed. */
enum { GROUPS = 3 };
static bool left_out(int group)
{
    const char *order = getenv("EMU_SEED");
    return (order || quick()) && group != (order ? atoi(order) : 0) % GROUPS;
}
static void each_type(void (*check)(backend *be, int type), bool invariant, int group)
{
    if (left_out(group)) return;
    backend *be = open_device(invariant);
    for (int i = group; i < N_TYPES; i += GROUPS) check(be, all_types[i]);
    backend_close(be);
}

/* ---- values ------------------------------------------------------------------------------- */

static void check_values(backend *be, int type)
{
    matrix m = matrix_new(type, 20, odd_in(type, 5), true, false);
    weight w = upload(be, &m, 1, JOIN_ROWS);
    grid x = grid_new(be, 16, m.in, m.in + 5, ACT_BF16), y = grid_new(be, 16, 20, 24, ACT_F32);
    for (int k0 = 0; k0 < m.in; k0 += 16) {
        for (int r = 0; r < 16; r++)
            for (int k = 0; k < m.in; k++) x.host[r * x.ld + k] = k == k0 + r ? 1 : 0;
        grid_up(&x);
        k_linear(be, grid_rows(&y, 0, 16), grid_rows(&x, 0, 16), &w);
        grid_down(&y);
        for (int r = 0; r < 16 && k0 + r < m.in; r++)
            for (int n = 0; n < 20; n++) {
                float want = m.value[(size_t)n * (size_t)m.in + (size_t)(k0 + r)];
                ck_assert_msg(y.host[r * y.ld + n] == want, "%s row %d k %d: %a, not %a",
                              dtype_of(type).name, n, k0 + r, (double)y.host[r * y.ld + n],
                              (double)want);
            }
    }
    grid_free(&x);
    grid_free(&y);
    cuda_release_weight(be, &w);
    matrix_free(&m);
}
START_TEST(every_value_is_dequant_row_s)
{
    each_type(check_values, false, _i);
}
END_TEST

static void check_embed(backend *be, int type)
{
    matrix m[2] = {matrix_new(type, 21, odd_in(type, 5), true, false), {}};
    m[1] = matrix_new(type, 19, m[0].in, true, false);
    weight w = upload(be, m, 2, JOIN_ROWS), g;
    weight_part parts[2] = {{m[0].raw, type, 19, NULL}, {m[1].raw, type, 19, NULL}};
    err e = {};
    ck_assert(!k_upload_weight(be, &g, parts, 2, m[0].in, JOIN_GLU, &e));
    static const int32_t tok[] = {0, 39, 7, 8, 20, 21, -1, -3, 15, 16, 40, -2, 28};
    static const int32_t drawn[] = {30, 41, 5};
    enum { N = sizeof tok / sizeof *tok };
    int32_t *dev = (int32_t *)k_alloc(be, sizeof tok), *ids = (int32_t *)k_alloc(be, sizeof drawn);
    k_upload(be, dev, tok, sizeof tok);
    k_upload(be, ids, drawn, sizeof drawn);
    int32_t *was = cuda_of(be)->drawn;
    cuda_of(be)->drawn = ids;
    for (int glu = 0; glu < 2; glu++) {
        grid y = grid_new(be, N, m[0].in, m[0].in + 7, ACT_BF16);
        cuda_embed(be, grid_rows(&y, 0, N), dev, glu ? &g : &w);
        grid_down(&y);
        int first = glu ? 19 : 21, out = first + 19;
        for (int i = 0; i < N; i++) {
            int t = tok[i] < 0 ? drawn[-1 - tok[i]] : tok[i];
            const matrix *from = t < first ? &m[0] : &m[1];
            for (int k = 0; k < m[0].in; k++) {
                float got = y.host[i * y.ld + k];
                if (t >= out) ck_assert(isnan(got));
                else {
                    size_t at = (size_t)(t < first ? t : t - first) * (size_t)from->in;
                    ck_assert_float_eq(got, bf16_round(from->value[at + (size_t)k]));
                }
            }
        }
        grid_free(&y);
    }
    cuda_of(be)->drawn = was;
    k_free(be, dev, sizeof tok);
    k_free(be, ids, sizeof drawn);
    cuda_release_weight(be, &w);
    cuda_release_weight(be, &g);
    matrix_free(&m[0]);
    matrix_free(&m[1]);
}
START_TEST(embed_reads_every_format)
{
    each_type(check_embed, false, _i);
}
END_TEST

/* ---- ops ---------------------------------------------------------------------------------- */

typedef enum { OP_LINEAR, OP_LOGITS, OP_NORM, OP_ADD, OP_GLU, N_OPS } op_kind;
static const char *const op_name[] = {"linear", "logits", "norm_linear", "linear_add", "norm_glu"};

typedef struct {
    backend *be;
    weight w;
    vec norm;
} op_world;

static double bound_of(op_kind op, const weight *w, int M)
{
    bool dense = false, exact = true;
    for (int i = 0; i < w->n_seg; i++) {
        dense = dense || dtype_of(w->seg[i].type).elems == 1;
        exact = exact && linear_stored(w->seg[i].type) == DT_BF16;
    }
    const bool library = M > (dense ? 16 : 64);
    double bound =
        (op == OP_LOGITS ? SUM_BOUND : OUT_BOUND) + (library && !exact ? PANEL_BOUND : 0);
    if (op == OP_NORM || op == OP_GLU) bound += dense || library ? NORM_BOUND : NORM16_BOUND;
    if (op == OP_ADD) bound += ADD_BOUND;
    if (op == OP_GLU && (library || w->n_seg > 1)) bound += GLU_BOUND;
    return bound;
}

static void run_op(const op_world *o, op_kind op, tensor y, tensor x)
{
    switch (op) {
    case OP_NORM: k_norm_linear(o->be, y, x, &o->norm, EPS, &o->w); break;
    case OP_ADD: k_linear_add(o->be, y, x, &o->w); break;
    case OP_GLU: k_norm_glu(o->be, y, x, &o->norm, EPS, &o->w); break;
    default: k_linear(o->be, y, x, &o->w);
    }
}

/* The wanted output row, from the products of the stacked parts. */
static void finish_reference(op_kind op, wanted *want, int out, const float *residual)
{
    for (int i = 0; i < out; i++) {
        wanted *w = want + i, *up = want + out + i;
        if (op == OP_ADD) {
            w->v += (double)residual[i];
            w->size = hypot(w->size, w->v);
        } else if (op == OP_GLU) {
            w->v = w->v / (1 + exp(-w->v)) * up->v;
            w->size *= up->size;
        }
    }
}

/* One op of one weight over all batches; the worst error per row against its bound. */
static void check_op(const op_world *o, op_kind op, const matrix *m, int n, const float *norm,
                     const grid *x)
{
    int out = op == OP_GLU ? o->w.out / 2 : o->w.out;
    wanted *want = (wanted *)malloc(sizeof(wanted) * (size_t)MAX_M * (size_t)o->w.out);
    float *residual = (float *)malloc(sizeof(float) * (size_t)MAX_M * (size_t)out);
    for (int i = 0; i < MAX_M * out; i++) residual[i] = bf16_round(normal());
    for (int r = 0; r < MAX_M; r++) {
        wanted *row = want + (size_t)r * (size_t)o->w.out;
        reference_row(row, x->host + (size_t)r * (size_t)x->ld, m, n,
                      op == OP_NORM || op == OP_GLU ? norm : NULL);
        finish_reference(op, row, out, residual + (size_t)r * (size_t)out);
    }
    for (int b = 0; b < N_BATCHES; b++) {
        int M = batches[b], first = (b * 7) % (MAX_M - M + 1);
        double bound = bound_of(op, &o->w, M);
        grid y = grid_new(o->be, M, out, out + 3, op == OP_LOGITS ? ACT_F32 : ACT_BF16);
        for (int r = 0; op == OP_ADD && r < M; r++)
            memcpy(y.host + r * y.ld, residual + (size_t)(first + r) * (size_t)out,
                   (size_t)out * sizeof(float));
        grid_up(&y);
        run_op(o, op, grid_rows(&y, 0, M), grid_rows(x, first, M));
        grid_down(&y);
        for (int r = 0; r < M; r++) {
            double e =
                row_error(y.host + r * y.ld, want + (size_t)(first + r) * (size_t)o->w.out, out);
            ck_assert_msg(e <= bound, "%s %s of %d x %d, row %d of %d: error %.2e, bound %.1e",
                          dtype_of(m[0].type).name, op_name[op], o->w.out, o->w.in, r, M, e, bound);
        }
        grid_free(&y);
    }
    check_tickets(o->be);
    free(want);
    free(residual);
}

/* parts of one weight: rows of each, types of each, K. */
static void check_weight(backend *be, const int *types, const int *rows, int n, int in,
                         weight_join join, bool bias, op_kind from, op_kind to)
{
    matrix m[WEIGHT_MAX_SEG];
    float *norm;
    for (int i = 0; i < n; i++) m[i] = matrix_new(types[i], rows[i], in, false, bias && i != 1);
    op_world o = {be, upload(be, m, n, join), vec_noise(be, in, &norm)};
    grid x = grid_noise(be, MAX_M, in, (in + 7) / 8 * 8 + 8);
    for (int op = from; op <= (int)to; op++) check_op(&o, (op_kind)op, m, n, norm, &x);
    grid_free(&x);
    k_release_vec(be, &o.norm);
    cuda_release_weight(be, &o.w);
    for (int i = 0; i < n; i++) matrix_free(&m[i]);
    free(norm);
}

static void check_ops(backend *be, int type)
{
    const int two[] = {type, type}, rows[] = {29, 8}, glu[] = {13, 13};
    check_weight(be, two, rows, 2, odd_in(type, 9), JOIN_ROWS, type % 2, OP_LINEAR, OP_ADD);
    check_weight(be, two, glu, 2, odd_in(type, 4), JOIN_GLU, type % 2 == 0, OP_LINEAR, OP_GLU);
}
START_TEST(ops_of_every_format_match_double)
{
    each_type(check_ops, false, _i);
}
END_TEST

START_TEST(parts_of_several_types)
{
    backend *be = open_device(false);
    const int qkv[] = {DT_Q4_K, DT_Q4_K, DT_Q6_K}, rows[] = {24, 10, 9};
    const int odd[] = {DT_BF16, DT_Q8_0, DT_F16, DT_F32}, few[] = {5, 17, 3, 1};
    const int glu[] = {DT_Q4_0, DT_BF16}, ff[] = {21, 21};
    check_weight(be, qkv, rows, 3, 512, JOIN_ROWS, true, OP_LINEAR, OP_ADD);
    check_weight(be, odd, few, 4, 96, JOIN_ROWS, false, OP_LOGITS, OP_NORM);
    check_weight(be, glu, ff, 2, 64, JOIN_GLU, true, OP_LINEAR, OP_GLU);
    backend_close(be);
}
END_TEST

/* Eight groups a slab, several slabs, more tiles than blocks. */
START_TEST(full_slabs)
{
    static const int types[GROUPS] = {DT_BF16, DT_Q4_K, DT_Q6_K};
    if (left_out(_i)) return;
    backend *be = open_device(false);
    const int type = types[_i], rows = 16 * 208 + 5;
    int P, S;
    skinny_cut(linear_tiles(rows), 10, &P, &S);
    ck_assert(P == 5 && S == 2);
    skinny_cut(300, 14, &P, &S);
    ck_assert(P == 7 && S == 2);
    matrix m = matrix_new(type, rows, 1280, false, false);
    weight w = upload(be, &m, 1, JOIN_ROWS);
    grid x = grid_noise(be, 9, 1280, 1280), y = grid_new(be, 9, rows, rows, ACT_F32);
    wanted *want = (wanted *)malloc(sizeof(wanted) * (size_t)rows);
    k_linear(be, grid_rows(&y, 0, 9), grid_rows(&x, 0, 9), &w);
    grid_down(&y);
    for (int r = 0; r < 9; r += 4) {
        reference_row(want, x.host + r * x.ld, &m, 1, NULL);
        ck_assert_double_le(row_error(y.host + (size_t)r * (size_t)y.ld, want, rows), SUM_BOUND);
    }
    free(want);
    grid_free(&x);
    grid_free(&y);
    cuda_release_weight(be, &w);
    matrix_free(&m);
    backend_close(be);
}
END_TEST

/* ---- the rule of bits --------------------------------------------------------------------- */

/* Rows of any batch, place, grid and ring against one run of all rows; --batch-invariant: for more
 * than 16 rows too. */
static void check_bits(const op_world *o, op_kind op, const grid *x, int max_m)
{
    static const int sms[] = {1, 3, 132}, smem[] = {99 << 10, 163 << 10, 227 << 10};
    cuda_state *st = cuda_of(o->be);
    int out = op == OP_GLU ? o->w.out / 2 : o->w.out;
    act_type type = op == OP_LOGITS ? ACT_F32 : ACT_BF16;
    grid all = grid_new(o->be, max_m, out, out, type);
    for (int i = 0; i < max_m * out; i++) all.host[i] = bf16_round(0.37f * (float)(i % out % 5));
    grid_up(&all);
    run_op(o, op, grid_rows(&all, 0, max_m), grid_rows(x, 0, max_m));
    grid_down(&all);
    for (int b = 0; b < N_BATCHES && batches[b] <= max_m; b++) {
        int M = batches[b], first = (b * 5) % (max_m - M + 1);
        st->info.sms = sms[b % 3];
        st->info.smem_block = smem[b / 2 % 3];
        st->info.smem_sm = smem[b / 2 % 3] + 1024;
        grid y = grid_new(o->be, M, out, out, type);
        memcpy(y.host, all.host, (size_t)M * (size_t)out * sizeof(float));
        for (int i = 0; i < M * out; i++) y.host[i] = bf16_round(0.37f * (float)(i % out % 5));
        grid_up(&y);
        run_op(o, op, grid_rows(&y, 0, M), grid_rows(x, first, M));
        grid_down(&y);
        ck_assert_msg(!memcmp(y.host, all.host + (size_t)first * (size_t)out,
                              (size_t)M * (size_t)out * sizeof(float)),
                      "%s of %s: %d rows from %d differ from %d rows", op_name[op],
                      dtype_of(o->w.seg[0].type).name, M, first, max_m);
        grid_free(&y);
    }
    check_tickets(o->be);
    grid_free(&all);
}

static void check_type_bits(backend *be, int type)
{
    float *norm;
    int in = odd_in(type, 21);
    matrix m[2] = {matrix_new(type, 35, in, false, true), matrix_new(type, 35, in, false, false)};
    op_world o = {be, upload(be, m, 2, JOIN_GLU), vec_noise(be, in, &norm)};
    grid x = grid_noise(be, MAX_M, in, (in + 7) / 8 * 8 + 8);
    check_bits(&o, OP_GLU, &x, 66);
    check_bits(&o, OP_ADD, &x, 16);
    check_bits(&o, OP_LOGITS, &x, 17);
    grid_free(&x);
    k_release_vec(be, &o.norm);
    cuda_release_weight(be, &o.w);
    matrix_free(&m[0]);
    matrix_free(&m[1]);
    free(norm);
}
START_TEST(bits_depend_on_row_and_weight_only)
{
    each_type(check_type_bits, true, _i);
}
END_TEST

static void check_nan(backend *be, int type)
{
    float *norm;
    int in = odd_in(type, 9);
    matrix m = matrix_new(type, 19, in, false, false);
    op_world o = {be, upload(be, &m, 1, JOIN_ROWS), vec_noise(be, in, &norm)};
    for (int M = 11; M < 80; M += 60)
        for (int op = OP_LOGITS; op <= OP_NORM; op++) {
            act_type t = op == OP_LOGITS ? ACT_F32 : ACT_BF16;
            grid x = grid_noise(be, M, in, in + 5);
            grid a = grid_new(be, M, 19, 19, t), b = grid_new(be, M, 19, 19, t);
            run_op(&o, (op_kind)op, grid_rows(&a, 0, M), grid_rows(&x, 0, M));
            x.host[2 * x.ld + in - 1] = NAN;
            x.host[9 * x.ld] = INFINITY;
            grid_up(&x);
            run_op(&o, (op_kind)op, grid_rows(&b, 0, M), grid_rows(&x, 0, M));
            grid_down(&a);
            grid_down(&b);
            for (int r = 0; r < M; r++)
                for (int c = 0; c < 19; c++) {
                    float v = b.host[r * 19 + c];
                    if (r == 2) ck_assert(isnan(v));
                    else if (r == 9) ck_assert(!isfinite(v));
                    else ck_assert(!memcmp(&v, &a.host[r * 19 + c], sizeof v));
                }
            grid_free(&x);
            grid_free(&a);
            grid_free(&b);
        }
    k_release_vec(be, &o.norm);
    cuda_release_weight(be, &o.w);
    matrix_free(&m);
    free(norm);
}
START_TEST(nan_stays_in_its_row)
{
    each_type(check_nan, false, _i);
}
END_TEST

/* ---- uploads ------------------------------------------------------------------------------ */

/* More source bytes than the staging area takes, parts that end inside a tile. */
START_TEST(upload_in_pieces)
{
    enum { IN = 4096, FIRST = 4101, SECOND = 203 };
    if (left_out(0)) return;
    backend *be = open_device(true);
    float *raw = (float *)malloc(sizeof(float) * IN * (size_t)(FIRST + SECOND));
    for (size_t i = 0; i < (size_t)IN * (FIRST + SECOND); i++)
        raw[i] = (float)((i * 2654435761u >> 12) & 255) + (float)(i / IN % 7) * 256;
    weight_part parts[2] = {{raw, DT_F32, FIRST, NULL},
                            {raw + (size_t)IN * FIRST, DT_F32, SECOND, NULL}};
    weight w;
    err e = {};
    ck_assert_msg(!k_upload_weight(be, &w, parts, 2, IN, JOIN_ROWS, &e), "%s", e.msg);
    ck_assert_uint_le(cuda_of(be)->work_bytes, (64 << 20) + (2 << 20));
    static const int32_t tok[] = {0, 4095, 4096, 4097, 4100, 4101, 4102, 4112, 4303};
    enum { N = sizeof tok / sizeof *tok };
    int32_t *dev = (int32_t *)k_alloc(be, sizeof tok);
    k_upload(be, dev, tok, sizeof tok);
    grid y = grid_new(be, N, IN, IN, ACT_BF16);
    k_embed(be, grid_rows(&y, 0, N), dev, &w);
    grid_down(&y);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < IN; k++)
            ck_assert_float_eq(y.host[i * IN + k],
                               bf16_round(raw[(size_t)tok[i] * IN + (size_t)k]));
    grid_free(&y);
    k_free(be, dev, sizeof tok);
    cuda_release_weight(be, &w);
    free(raw);
    backend_close(be);
}
END_TEST

static void read_rows(backend *be, const weight *w, grid *y)
{
    int32_t tok[64];
    for (int i = 0; i < y->rows; i++) tok[i] = i;
    int32_t *dev = (int32_t *)k_alloc(be, sizeof tok);
    k_upload(be, dev, tok, sizeof tok);
    cuda_embed(be, grid_rows(y, 0, y->rows), dev, w);
    grid_down(y);
    k_free(be, dev, sizeof tok);
}

static void check_dummy(backend *be, int type)
{
    const int in = 1024;
    const float bias[32] = {1, 2, 3};
    const weight_part parts[2] = {{NULL, type, 32, NULL}, {NULL, type, 32, bias}};
    weight w[3];
    grid y[3];
    err e = {};
    for (int i = 0; i < 3; i++) {
        weight_join join = i == 2 ? JOIN_ROWS : JOIN_GLU;
        ck_assert(!k_dummy_weight(be, &w[i], parts, 2, in, join, i == 1 ? 8 : 7, &e));
        y[i] = grid_new(be, 64, in, in, ACT_BF16);
        read_rows(be, &w[i], &y[i]);
    }
    double sum = 0, squares = 0, n = 64.0 * in;
    for (int i = 0; i < 64 * in; i++) {
        sum += (double)y[0].host[i];
        squares += (double)y[0].host[i] * (double)y[0].host[i];
    }
    /* deviation 1 / sqrt(in); a power of two may be off by nearly two, mean near nought */
    double scale = sqrt(squares / n) * sqrt((double)in), mean = sum / n * sqrt((double)in);
    ck_assert_msg(scale > 0.55 && scale < 1.35 && fabs(mean) < 0.25, "%s: %.3f %.3f",
                  dtype_of(type).name, scale, mean);
    ck_assert(memcmp(y[0].host, y[1].host, sizeof(float) * 64 * (size_t)in) != 0);
    /* the same bytes for the same seed, however they are joined */
    size_t bytes = w[0].seg[0].bytes;
    char *a = (char *)malloc(bytes), *b = (char *)malloc(bytes);
    k_download(be, a, w[0].seg[0].data, bytes);
    k_download(be, b, w[2].seg[0].data, bytes);
    ck_assert(!memcmp(a, b, bytes));
    free(a);
    free(b);
    float got[64];
    k_download(be, got, w[2].bias, sizeof got);
    for (int i = 0; i < 64; i++) ck_assert_float_eq(got[i], i < 32 ? 0 : bias[i - 32]);
    for (int i = 0; i < 3; i++) {
        grid_free(&y[i]);
        cuda_release_weight(be, &w[i]);
    }
}
START_TEST(dummy_weights)
{
    each_type(check_dummy, false, _i);
}
END_TEST

START_TEST(a_weight_too_large_is_refused)
{
    backend *be = open_device(false);
    weight w;
    err e = {};
    const weight_part part = {NULL, DT_BF16, 1 << 30, NULL};
    ck_assert_int_eq(k_dummy_weight(be, &w, &part, 1, 1 << 20, JOIN_ROWS, 1, &e), ERR_NOMEM);
    ck_assert_msg(strstr(e.msg, "1073741824 x 1048576") && strstr(e.msg, "quantisation"), "%s",
                  e.msg);
    ck_assert(w.n_seg == 0 && w.bytes == 0);
    backend_close(be);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cuda linear");
    TCase *c = tcase_create("linear");
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, every_value_is_dequant_row_s, 0, GROUPS);
    tcase_add_loop_test(c, embed_reads_every_format, 0, GROUPS);
    tcase_add_loop_test(c, ops_of_every_format_match_double, 0, GROUPS);
    tcase_add_test(c, parts_of_several_types);
    tcase_add_loop_test(c, full_slabs, 0, GROUPS);
    tcase_add_loop_test(c, bits_depend_on_row_and_weight_only, 0, GROUPS);
    tcase_add_loop_test(c, nan_stays_in_its_row, 0, GROUPS);
    tcase_add_test(c, upload_in_pieces);
    tcase_add_loop_test(c, dummy_weights, 0, GROUPS);
    tcase_add_test(c, a_weight_too_large_is_refused);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
