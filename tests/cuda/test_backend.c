/* test_backend.c - the host side of the CUDA back end: memory and staged copies,
 * the step's arrays and their padding, work space, marks, faults, two devices at once. */
#include "kernels/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/own.h"
#include "tests/cuda/device.h"
#include "tests/ops_rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static const batch_limits small = {.max_tok = 64,
                                   .max_seqs = 24,
                                   .max_out = 32,
                                   .max_blocks = 10,
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .head_dim = 64};

static backend *open_cuda(int device, const batch_limits *l)
{
    err e = {0};
    backend_options o = {.name = DEVICE, .device = device};
    backend *be = backend_open(&o, &e);
    ck_assert_msg(be != NULL, "%s", e.msg);
    if (l) ck_assert_msg(!k_batch_reserve(be, l, &e), "%s", e.msg);
    return be;
}

/* ---- memory ------------------------------------------------------------------------------- */

START_TEST(memory_is_zeroed_and_copies_are_exact)
{
    static const size_t sizes[] = {1, 63, 4096, (1 << 20) + 1, (50 << 20) + 7};
    backend *be = open_cuda(0, NULL);
    err e = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        uint64_t seed = 5 + i;
        uint8_t *dev = k_alloc(be, n), *a = malloc(n), *b = malloc(n);
        ck_assert(dev && ((uintptr_t)dev & 63) == 0);
        k_download(be, a, dev, n);
        ck_assert(!a[0] && !memcmp(a, a + 1, n - 1));
        for (size_t k = 0; k < n; k++) a[k] = (uint8_t)(rnd(&seed) >> 56);
        k_upload(be, dev, a, n);
        memcpy(b, a, n);
        memset(a, 0xee, n); /* the source is free when the upload returns */
        k_download(be, a, dev, n);
        ck_assert(!memcmp(a, b, n));
        k_free(be, dev, n);
        free(a);
        free(b);
    }
    ck_assert(!k_sync(be, &e));
    ck_assert_ptr_null(k_alloc(be, (size_t)1 << 50)); /* out of memory is no fault */
    ck_assert(!k_sync(be, &e));
    ck_assert_uint_gt(k_mem_available(be), 0);
    backend_close(be);
}
END_TEST

/* ---- the step's arrays -------------------------------------------------------------------- */

START_TEST(buckets_end_at_the_limit)
{
    int size[MAX_BUCKETS];
    static const int want[] = {1, 2, 4, 8, 12, 16, 24};
    ck_assert_int_eq(cuda_buckets(&small, size), 7);
    ck_assert(!memcmp(size, want, sizeof want));
    batch_limits l = small;
    l.max_seqs = l.max_tok = l.max_out = 4096;
    ck_assert_int_eq(size[cuda_buckets(&l, size) - 1], 256);
    l.max_out = 5;
    ck_assert_int_eq(cuda_buckets(&l, size), 4); /* 1 2 4 5 */
    ck_assert_int_eq(size[3], 5);
    l.max_tok = 1;
    ck_assert_int_eq(cuda_buckets(&l, size), 1);
    ck_assert_int_eq(size[0], 1);
}
END_TEST

/* A step of n_seq sequences of rows[] rows each; sequence s stands at position 7 s + 3. */
typedef struct {
    int32_t tok[64], pos[64], slot[64], start[25], ctx[24], prompt[24], row[32], table[24 * 12];
    batch b;
} step_of;

static void make_step(step_of *t, int n_seq, const int *rows, bool decode)
{
    t->b = (batch){.n_seq = n_seq,
                   .max_blocks = 9,
                   .tok = t->tok,
                   .pos = t->pos,
                   .slot = t->slot,
                   .seq_start = t->start,
                   .ctx_len = t->ctx,
                   .block_table = t->table,
                   .out_row = t->row,
                   .n_prompt = t->prompt};
    t->start[0] = 0;
    for (int s = 0; s < n_seq; s++) {
        int at = 5 * s + 3;
        for (int i = 0; i < 9; i++) t->table[9 * s + i] = 1000 * s + i;
        for (int k = 0; k < rows[s]; k++) {
            int r = t->b.n_tok++;
            t->tok[r] = r % 3 ? 100 + r : -1 - s;
            t->pos[r] = at + k;
            t->slot[r] = 16 * (s * 9) + k;
        }
        t->start[s + 1] = t->b.n_tok;
        t->ctx[s] = at + rows[s];
        t->prompt[s] = decode ? at : at + rows[s];
        t->row[t->b.n_out++] = t->b.n_tok - 1;
    }
}

static void same_ints(backend *be, const char *what, const int32_t *dev, const int32_t *want, int n)
{
    int32_t got[256];
    k_download(be, got, dev, (size_t)n * sizeof *got);
    for (int i = 0; i < n; i++)
        ck_assert_msg(got[i] == want[i], "%s[%d] is %d, expected %d", what, i, got[i], want[i]);
}

/* What the device has of t, padded to rows. */
static void check_step(backend *be, const step_of *t, const batch *d, int rows)
{
    int32_t v[256];
    int n = t->b.n_tok, more = rows - n, seqs = t->b.n_seq;
    ck_assert(d->n_tok == rows && d->n_seq == seqs + more && d->n_out == t->b.n_out + more);
    ck_assert_int_eq(d->max_blocks, small.max_blocks);
    const int32_t *const from[] = {t->tok, t->pos, t->slot}, *const to[] = {d->tok, d->pos,
                                                                            d->slot};
    for (int k = 0; k < 3; k++) {
        memset(v, 0, sizeof v);
        memcpy(v, from[k], (size_t)n * sizeof *v);
        same_ints(be, "tok, pos or slot", to[k], v, rows);
    }
    for (int i = 0; i <= seqs + more; i++) v[i] = i <= seqs ? t->start[i] : n + i - seqs;
    same_ints(be, "seq_start", d->seq_start, v, seqs + more + 1);
    for (int i = 0; i < seqs + more; i++) v[i] = i < seqs ? t->ctx[i] : 0;
    same_ints(be, "ctx_len", d->ctx_len, v, seqs + more);
    for (int i = 0; i < d->n_out; i++) v[i] = i < t->b.n_out ? t->row[i] : n + i - t->b.n_out;
    same_ints(be, "out_row", d->out_row, v, d->n_out);
    for (int s = 0; s < seqs; s++)
        same_ints(be, "block_table", d->block_table + s * d->max_blocks, t->table + 9 * s,
                  (t->ctx[s] + 15) / 16);
}

START_TEST(steps_arrive_and_only_decode_is_padded)
{
    backend *be = open_cuda(0, &small);
    int ones[24], mixed[3] = {1, 5, 2};
    step_of t[3] = {0};
    for (int i = 0; i < 24; i++) ones[i] = 1;
    static const int n[] = {1, 3, 9, 24}, padded[] = {1, 4, 12, 24};
    for (int i = 0; i < 4; i++) {
        make_step(&t[0], n[i], ones, true);
        batch d = k_batch(be, &t[0].b);
        ck_assert_int_eq(d.bucket, padded[i]);
        check_step(be, &t[0], &d, padded[i]);
        t[0] = (step_of){0};
    }
    make_step(&t[0], 3, ones, false); /* the last token of a prompt is no generated row */
    batch d = k_batch(be, &t[0].b);
    ck_assert_int_eq(d.bucket, 0);
    check_step(be, &t[0], &d, 3);
    make_step(&t[1], 3, mixed, true);
    d = k_batch(be, &t[1].b);
    ck_assert_int_eq(d.bucket, 0);
    check_step(be, &t[1], &d, 8);
    make_step(&t[2], 3, ones, true);
    t[2].b.n_prompt = NULL; /* every row is a prompt's */
    d = k_batch(be, &t[2].b);
    ck_assert_int_eq(d.bucket, 0);
    backend_close(be);
}
END_TEST

static void nap(void *arg)
{
    (void)arg;
    usleep(30000);
}

/* Steps queued behind a busy stream arrive as they were, though the host is ahead of the device. */
START_TEST(steps_in_flight_keep_their_numbers)
{
    backend *be = open_cuda(0, &small);
    enum { N = 6, ROWS = 5 };
    int ones[ROWS] = {1, 1, 1, 1, 1};
    int32_t *seen = k_alloc(be, sizeof(int32_t) * N * ROWS), got[N * ROWS];
    for (int i = 0; i < N; i++) {
        step_of t = {0};
        make_step(&t, ROWS, ones, true);
        for (int k = 0; k < ROWS; k++) t.tok[k] = 100 * i + k;
        gpu_host_fn(cuda_of(be)->stream, nap, NULL);
        batch d = k_batch(be, &t.b);
        gpu_memcpy_async(seen + i * ROWS, d.tok, sizeof(int32_t) * ROWS, cuda_of(be)->stream);
        memset(&t, 0xff, sizeof t);
    }
    k_download(be, got, seen, sizeof got);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < ROWS; k++) ck_assert_int_eq(got[i * ROWS + k], 100 * i + k);
    k_free(be, seen, sizeof(int32_t) * N * ROWS);
    backend_close(be);
}
END_TEST

/* ---- work space --------------------------------------------------------------------------- */

START_TEST(work_space_grows_and_forgets_graphs)
{
    backend *be = open_cuda(0, &small);
    cuda_state *st = cuda_of(be);
    err e = {0};
    int one[1] = {1};
    step_of t = {0};
    tensor none = {0}, got;
    make_step(&t, 1, one, true);
    for (int i = 0; i < 2; i++) { /* seen, then recorded */
        batch d = k_batch(be, &t.b);
        ck_assert(!k_replay(be, &d, &got));
        k_record(be, &d);
        k_record_end(be, &d, &none);
    }
    batch d = k_batch(be, &t.b);
    ck_assert(k_replay(be, &d, &got));
    size_t had = st->work_bytes;
    ck_assert(!cuda_need_work(be, had, st->n_ticket, &e)); /* enough: nothing changes */
    d = k_batch(be, &t.b);
    ck_assert(k_replay(be, &d, &got));
    ck_assert(!cuda_need_work(be, had + 1, st->n_ticket + 100, &e));
    ck_assert_uint_gt(st->work_bytes, had);
    d = k_batch(be, &t.b);
    ck_assert(!k_replay(be, &d, &got));
    unsigned *ticket = malloc((size_t)st->n_ticket * sizeof *ticket);
    k_download(be, ticket, st->ticket, (size_t)st->n_ticket * sizeof *ticket);
    for (int i = 0; i < st->n_ticket; i++) ck_assert_uint_eq(ticket[i], 0);
    free(ticket);
    ck_assert_int_eq(cuda_need_work(be, (size_t)1 << 50, 1, &e), ERR_NOMEM);
    ck_assert_ptr_nonnull(strstr(e.msg, "work space"));
    ck_assert(!k_sync(be, &e));
    backend_close(be);
}
END_TEST

/* ---- faults ------------------------------------------------------------------------------- */

START_TEST(a_fault_is_latched_and_final)
{
    if (!EMULATED) return; /* a real fault would end the context for all tests behind it */
    setenv("EMU_FAULT", "table_spread:2", 1);
    backend *be = open_cuda(0, &small);
    err e = {0};
    int one[1] = {1};
    step_of t = {0};
    make_step(&t, 1, one, true);
    k_batch(be, &t.b);
    ck_assert(!k_sync(be, &e));
    k_batch(be, &t.b);
    ck_assert_int_eq(k_sync(be, &e), ERR_DEVICE);
    ck_assert_msg(strstr(e.msg, "table_spread") != NULL, "%s", e.msg);
    for (int i = 0; i < 5; i++) k_batch(be, &t.b); /* nothing waits, nothing ends the process */
    ck_assert_int_eq(k_wait(be, k_mark(be), &e), ERR_DEVICE);
    ck_assert_int_eq(k_sync(be, &e), ERR_DEVICE);
    backend_close(be);
}
END_TEST

static void until_released(void *arg)
{
    while (!atomic_load((atomic_bool *)arg)) usleep(1000);
}

START_TEST(a_device_that_hangs_is_given_up)
{
    backend *be = open_cuda(0, &small);
    atomic_bool released = false;
    err e = {0};
    own_of(be)->patience_us = 100000;
    gpu_host_fn(cuda_of(be)->stream, until_released, &released);
    int m = k_mark(be);
    ck_assert_int_eq(k_wait(be, m, &e), ERR_DEVICE);
    ck_assert_msg(strstr(e.msg, "has not answered") != NULL, "%s", e.msg);
    ck_assert_int_eq(k_sync(be, &e), ERR_DEVICE);
    void *p = k_alloc(be, 64); /* no call waits for it any more */
    ck_assert_ptr_nonnull(p);
    k_upload(be, p, &m, sizeof m);
    k_free(be, p, 64);
    for (int i = 0; i < 3; i++) k_wait(be, m, &e);
    atomic_store(&released, true); /* only so that this process can free what it holds */
    own_of(be)->hung = false;
    cuda_free_raw(be, p);
    backend_close(be);
}
END_TEST

/* ---- several devices ---------------------------------------------------------------------- */

static void *use_device(void *arg)
{
    int device = *(int *)arg;
    backend *be = open_cuda(device, &small);
    int ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    for (int i = 0; i < 40; i++) {
        step_of t = {0};
        make_step(&t, 1 + (i + device) % 8, ones, true);
        for (int k = 0; k < t.b.n_tok; k++) t.tok[k] = 1000 * device + i;
        batch d = k_batch(be, &t.b);
        check_step(be, &t, &d, d.bucket);
    }
    backend_close(be);
    return NULL;
}

START_TEST(devices_do_not_meet)
{
    pthread_t th[3];
    int one = devices_or_skip(gpu_count) > 1, device[3] = {0, one, one};
    for (int i = 0; i < 3; i++) ck_assert(!pthread_create(&th[i], NULL, use_device, &device[i]));
    for (int i = 0; i < 3; i++) pthread_join(th[i], NULL);
}
END_TEST

START_TEST(unknown_devices_are_refused)
{
    err e = {0};
    char want[100];
    setenv("EMU_DEVICES", "2", 1);
    int n = devices_or_skip(gpu_count);
    backend_options o = {.name = DEVICE, .device = n};
    ck_assert_ptr_null(backend_open(&o, &e));
    ck_assert_int_eq(e.code, ERR_INVALID);
    snprintf(want, sizeof want, "--device " DEVICE ":%d: there %s %d device%s, numbered from 0", n,
             n > 1 ? "are" : "is", n, n > 1 ? "s" : "");
    ck_assert_str_eq(e.msg, want);
    if (!EMULATED) return;
    setenv("EMU_DEVICES", "0", 1);
    o.device = 0;
    ck_assert_ptr_null(backend_open(&o, &e));
    ck_assert_int_eq(e.code, ERR_NOTFOUND);
    o.name = "auto"; /* never the emulator */
    backend *be = backend_open(&o, &e);
    ck_assert_str_eq(be->op->name, "cpu");
    backend_close(be);
}
END_TEST

int main(void)
{
    devices_or_skip(gpu_count);
    Suite *s = suite_create("cuda backend");
    TCase *t = tcase_create("cuda backend");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, memory_is_zeroed_and_copies_are_exact);
    tcase_add_test(t, buckets_end_at_the_limit);
    tcase_add_test(t, steps_arrive_and_only_decode_is_padded);
    tcase_add_test(t, steps_in_flight_keep_their_numbers);
    tcase_add_test(t, work_space_grows_and_forgets_graphs);
    tcase_add_test(t, a_fault_is_latched_and_final);
    tcase_add_test(t, a_device_that_hangs_is_given_up);
    tcase_add_test(t, devices_do_not_meet);
    tcase_add_test(t, unknown_devices_are_refused);
    suite_add_tcase(s, t);
    return run_suite(s);
}
