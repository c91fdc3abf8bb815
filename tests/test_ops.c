/* test_ops.c - the row ops of the seam against ref within stated bounds over odd shapes, the same
 * bits on every instruction set and thread count, memory and the choice of instruction set.  The
 * other ops: test_linear.c, test_attention.c, test_sample.c. */
#include "kernels/cpu/cpu.h"
#include "tests/ops_rig.h"

static const char *isas[4];
static int n_isas;

static const int widths[] = {1, 2, 15, 16, 17, 31, 33, 64, 100, 896, 1536, 4864, 8961};
static const int heights[] = {1, 2, 3, 8, 33, 130};
enum { N_WIDTHS = sizeof widths / sizeof *widths, N_HEIGHTS = sizeof heights / sizeof *heights };

typedef enum { OP_NORM, OP_NORM_IN_PLACE, OP_GLU, OP_ADD, OP_GATHER, N_OPS } op_kind;
/* Elementwise, relative to the larger of the value and 1e-6: norm 3 roundings and a sum in another
 * order; glu an exponential of 1 ulp and 3 roundings; the others are exact. */
static const double op_bounds[N_OPS] = {6e-7, 6e-7, 6e-7, 0, 0};

typedef struct {
    own in, w, y;
    int32_t *row;
} operands;

static operands operands_new(op_kind k, int rows, int cols, uint64_t seed)
{
    operands o = {own_new(rows, k == OP_GLU ? 2 * cols : cols), own_new(1, cols),
                  own_new(rows, cols), NULL};
    own_fill(o.in, 3, seed);
    own_fill(o.w, 1, seed + 1);
    own_fill(o.y, 2, seed + 2);
    o.row = malloc((size_t)rows * sizeof *o.row);
    for (int i = 0; i < rows; i++) o.row[i] = (i * 7 + 3) % rows;
    return o;
}
static void operands_free(operands *o)
{
    own_free(&o->in);
    own_free(&o->w);
    own_free(&o->y);
    free(o->row);
}

/* y becomes what the op makes of fresh operands. */
static void run_op(backend *be, op_kind k, operands *o)
{
    err e = {0};
    vec w = {0};
    switch (k) {
    case OP_NORM:
    case OP_NORM_IN_PLACE:
        ck_assert_int_eq(k_upload_vec(be, &w, tensor_row(o->w.t, 0), o->w.t.cols, &e), 0);
        if (k == OP_NORM_IN_PLACE) own_copy(o->y, o->in);
        k_rms_norm(be, o->y.t, k == OP_NORM ? o->in.t : o->y.t, &w, 1e-6f);
        k_release_vec(be, &w);
        break;
    case OP_GLU: k_glu(be, o->y.t, o->in.t); break;
    case OP_ADD: k_add(be, o->y.t, o->in.t); break;
    default: k_gather_rows(be, o->y.t, o->in.t, o->row);
    }
    ck_assert_int_eq(k_sync(be, &e), 0);
    own_check(o->y);
    own_check(o->in);
}

START_TEST(row_ops_equal_ref)
{
    op_kind k = (op_kind)(_i / N_WIDTHS);
    int cols = widths[_i % N_WIDTHS];
    backend *ref = open_backend("ref", NULL, 1), *cpu[5];
    for (int v = 0; v < n_isas; v++) cpu[v] = open_backend("cpu", isas[v], 1 + v % 2);
    cpu[n_isas] = open_backend("cpu", "auto", 3);
    for (int h = 0; h < N_HEIGHTS; h++) {
        operands want = operands_new(k, heights[h], cols, 3),
                 first = operands_new(k, heights[h], cols, 3);
        run_op(ref, k, &want);
        run_op(cpu[0], k, &first);
        double e = own_worst(first.y, want.y, 1e-6);
        ck_assert_msg(e <= op_bounds[k], "op %d, %d x %d: %.2e off", k, heights[h], cols, e);
        for (int v = 1; v <= n_isas; v++) {
            operands o = operands_new(k, heights[h], cols, 3);
            run_op(cpu[v], k, &o);
            ck_assert_msg(own_same(o.y, first.y), "op %d, %d x %d: backend %d has other bits", k,
                          heights[h], cols, v);
            operands_free(&o);
        }
        operands_free(&want);
        operands_free(&first);
    }
    for (int v = 0; v <= n_isas; v++) backend_close(cpu[v]);
    backend_close(ref);
}
END_TEST

/* Gates where e^-x leaves the range of a float. */
START_TEST(glu_extremes)
{
    static const float gates[] = {0,    -0.0f, 88,    -88,    89,     -89, 126, -126,
                                  1000, -1000, 1e30f, -1e30f, 1e-30f, 20,  -20, 3};
    for (int v = 0; v < n_isas; v++) {
        backend *cpu = open_backend("cpu", isas[v], 1);
        own in = own_new(1, 32), y = own_new(1, 16);
        for (int i = 0; i < 16; i++)
            tensor_row(in.t, 0)[i] = gates[i], tensor_row(in.t, 0)[16 + i] = 1;
        k_glu(cpu, y.t, in.t);
        for (int i = 0; i < 16; i++) {
            double want = (double)gates[i] / (1 + exp(-(double)gates[i])),
                   got = (double)tensor_row(y.t, 0)[i];
            ck_assert_msg(fabs(got - want) <= 3e-7 * fabs(want) + 1e-35, "silu(%g) = %g, want %g",
                          (double)gates[i], got, want);
        }
        own_free(&in);
        own_free(&y);
        backend_close(cpu);
    }
}
END_TEST

/* Tables up to a million positions: the angle is the f32 product, its cosine that of a double. */
START_TEST(rope_tables)
{
    static const int32_t pos[] = {0, 1, 2, 31, 32, 4095, 32767, 131071, 999999, 1048575};
    enum { N = 10 };
    static const int dims[] = {2, 8, 64, 80, 128};
    float inv[64];
    backend *cpu = open_backend("cpu", "auto", 2);
    for (int d = 0; d < 5; d++) {
        int dim = dims[d];
        own cs = own_new(N, dim);
        for (int i = 0; i < dim / 2; i++) inv[i] = powf(1e6f, -2.0f * (float)i / (float)dim);
        rope_spec r = {dim, inv, d % 2 ? 1.1386294f : 1.0f};
        k_rope_rows(cpu, cs.t, pos, &r);
        own_check(cs);
        for (int p = 0; p < N; p++)
            for (int i = 0; i < dim / 2; i++) {
                double angle = (double)((float)pos[p] * inv[i]);
                float c = (float)cos(angle) * r.scale, s = (float)sin(angle) * r.scale;
                ck_assert(tensor_row(cs.t, p)[i] == c && tensor_row(cs.t, p)[dim / 2 + i] == s);
            }
        own_free(&cs);
    }
    backend_close(cpu);
}
END_TEST

START_TEST(memory)
{
    static const size_t sizes[] = {1,       63, 64, 4097, (2u << 20) - 1, 2u << 20, (2u << 20) + 1,
                                   7u << 20};
    backend *cpu = open_backend("cpu", "auto", 1);
    for (int i = 0; i < 8; i++) {
        unsigned char *p = k_alloc(cpu, sizes[i]);
        ck_assert_ptr_nonnull(p);
        ck_assert_uint_eq((uintptr_t)p % 64, 0);
        for (size_t k = 0; k < sizes[i]; k += 61) ck_assert(p[k] == 0);
        ck_assert(p[sizes[i] - 1] == 0);
        memset(p, 0xff, sizes[i]);
        k_free(cpu, p, sizes[i]);
    }
    ck_assert_ptr_null(k_alloc(cpu, SIZE_MAX - 5));
    ck_assert_ptr_null(k_alloc(cpu, (size_t)1 << 60));
    backend_close(cpu);
}
END_TEST

START_TEST(kv_block_sizes)
{
    ck_assert_uint_eq(cpu_kv_block_bytes(KV_F32, 2, 64), 2u * 2 * 32 * 64 * 4);
    ck_assert_uint_eq(cpu_kv_block_bytes(KV_F16, 8, 128), 2u * 8 * 32 * 128 * 2);
    ck_assert_uint_eq(cpu_kv_block_bytes(KV_BF16, 1, 80), 2u * 32 * 96 * 2);
    ck_assert_uint_eq(cpu_kv_block_bytes(KV_Q8_0, 4, 64), 2u * 4 * 34 * 64);
}
END_TEST

START_TEST(choice_of_isa)
{
    err e = {0};
    backend_options o = {.name = "cpu", .isa = "sse9", .threads = 1};
    ck_assert_ptr_null(backend_open(&o, &e));
    ck_assert_int_eq(e.code, ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "portable"));
    o.isa = NULL;
    backend *be = backend_open(&o, &e);
    ck_assert_str_eq(be->isa, isas[0]);
    ck_assert_int_eq(be->kv_block, 32);
    ck_assert_int_eq(be->threads, 1);
    backend_close(be);
    o.threads = 0;
    be = backend_open(&o, &e);
    ck_assert_int_eq(be->threads, backend_cores());
    backend_close(be);
    o.threads = 100000;
    ck_assert_ptr_null(backend_open(&o, &e));
    ck_assert_ptr_nonnull(strstr(e.msg, "--threads"));
    for (int i = 0; i < 4; i++) { /* what this machine lacks is refused, not replaced */
        static const char *const all[] = {"avx512", "avxvnni", "avx2", "portable"};
        bool has = false;
        for (int k = 0; k < n_isas; k++) has |= !strcmp(isas[k], all[i]);
        if (has) continue;
        o = (backend_options){.name = "cpu", .isa = all[i], .threads = 1};
        ck_assert_ptr_null(backend_open(&o, &e));
        ck_assert_int_eq(e.code, ERR_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(e.msg, all[i]));
    }
}
END_TEST

int main(void)
{
    log_init(LOG_ERROR, false);
    n_isas = machine_isas(isas);
    Suite *s = suite_create("ops");
    TCase *c = tcase_create("ops");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, row_ops_equal_ref, 0, N_OPS * N_WIDTHS);
    tcase_add_test(c, glu_extremes);
    tcase_add_test(c, rope_tables);
    tcase_add_test(c, memory);
    tcase_add_test(c, kv_block_sizes);
    tcase_add_test(c, choice_of_isa);
    suite_add_tcase(s, c);
    return run_suite(s);
}
