/* test_cuda_tp.c - several ranks on the CUDA back end: shares of embedding, layers and
 * head on device memory, sums in bf16 through the ranks' comm, drawn ids shared between devices. */
#include "engine/engine_impl.h"
#include "kernels/cuda/gpu.h"
#include "tests/client.h"
#include "tests/cuda/device.h"
#include "tests/tp_rig.h"

#define DATA "tests/data/models/"

static const struct {
    const char *name;
    int world;
} cases[] = {{"qwen2-untied", 2}, {"qwen3", 4}, {"qwen3-bias", 2}};

enum { N = 24 };

static double worst_row(const float *got, const float *want, int vocab)
{
    double worst = 0;
    for (size_t i = 0; i < N; i++)
        worst = fmax(worst, row_error(got + i * (size_t)vocab, want + i * (size_t)vocab, vocab));
    return worst;
}

static void fill(int32_t *tok, int n, int vocab)
{
    uint32_t seed = 7;
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        tok[i] = (int32_t)((seed >> 8) % (uint32_t)vocab);
    }
}

/* A rank rounds its part of a sum to bf16 before it is added: the result may be twice as far from
 * the plain back end as with one rank.  The same bits again, and in other chunks. */
START_TEST(logits)
{
    char path[PATH_MAX];
    int32_t tok[N];
    int world = cases[_i].world;
    const backend_options plain = {.name = "ref"}, cuda = {.name = DEVICE, .batch_invariant = true};
    snprintf(path, sizeof path, DATA "%s", cases[_i].name);
    rig r = rig_open(path, &plain, KV_F32, 64), one = rig_open(path, &cuda, KV_BF16, 64),
        g = tp_open(path, &cuda, KV_BF16, 64, world);
    size_t n = N * (size_t)r.vocab;
    float *want = malloc(n * 4), *alone = malloc(n * 4), *got = malloc(n * 4),
          *again = malloc(n * 4);
    fill(tok, N, r.vocab);
    rig_all(&r, tok, N, N, 0, want);
    rig_all(&one, tok, N, N, 0, alone);
    rig_all(&g, tok, N, N, 0, got);
    rig_all(&g, tok, N, 7, 1, again);
    double bound = 2 * worst_row(alone, want, r.vocab), error = worst_row(got, want, r.vocab);
    printf("%s over %d: error %.2g, alone %.2g\n", path, world, error, bound / 2);
    ck_assert_msg(error <= bound, "%s over %d: %g, alone %g", path, world, error, bound / 2);
    ck_assert(!memcmp(got, again, n * 4));
    free(want);
    free(alone);
    free(got);
    free(again);
    rig_close(&r);
    rig_close(&one);
    tp_close(&g);
}
END_TEST

/* The engine over two ranks, in steps of other sizes, gives the same bits: drawn ids reach the
 * other rank's device before the next step reads them. */
START_TEST(engine_repeats)
{
    answer first = {0};
    for (int k = 0; k < 2; k++) {
        err e = {0};
        engine_options o = {.model_path = "models/demo",
                            .device = devices_or_skip(gpu_count) < 2 ? DEVICE ":0" : DEVICE,
                            .kv_dtype = "auto",
                            .tensor_parallel = 2,
                            .max_model_len = 128,
                            .max_num_seqs = 2,
                            .max_num_batched_tokens = k ? 7 : 64,
                            .batch_invariant = true,
                            .generation_config = true};
        engine *g = engine_open(&o, &e);
        ck_assert_msg(g && !engine_load(g, &e), "%s", e.msg);
        int32_t prompt[10];
        fill(prompt, 10, engine_info(g)->n_vocab);
        request_spec s = {.prompt = prompt,
                          .n_prompt = 10,
                          .n = 1,
                          .s = sampling_default(g),
                          .cache_prompt = true};
        s.s.temperature = 0;
        s.s.max_tokens = 6;
        s.s.ignore_eos = true;
        s.s.n_logprobs = 2;
        client c;
        client_run(&c, g, s);
        ck_assert_int_eq(c.a[0].n_tok, 6);
        if (k) ck_assert(!memcmp(first.tok, c.a[0].tok, 6 * sizeof *first.tok));
        else {
            first.tok = malloc(6 * sizeof *first.tok);
            memcpy(first.tok, c.a[0].tok, 6 * sizeof *first.tok);
        }
        client_clear(&c);
        engine_close(g);
    }
    free(first.tok);
}
END_TEST

int main(void)
{
    devices_or_skip(gpu_count);
    Suite *s = suite_create("cuda_tp");
    TCase *t = tcase_create("cuda_tp");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, logits, 0, sizeof cases / sizeof *cases);
    tcase_add_test(t, engine_repeats);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
