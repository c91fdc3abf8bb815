/* test_inspect_tp.c - the plan over ranks, for models too large for any test machine, against
 * figures worked out by hand from the dimensions the models' publisher states.
 *
 * By hand, for L layers, hidden h, q query and k key heads of 128, mlp f, vocabulary V, on a rank
 * of t that holds v rows of the vocabulary: BF16 matrices take 2 (2 v h + L (256 h q + 256 h k +
 * 3 h f) / t) bytes; norms stay whole, in f32: 4 (h + L 2 h), with 4 L 256 more where q and k have
 * norms of their own; biases of q, k and v take 4 L 128 (q + 2 k) / t.  The vocabulary is dealt in
 * units of 1024 rows, the first ranks one unit more: 152064 and 151936 rows are 148 units and a
 * part, so v on the first and the last rank is 76800 and 75264 of two, 38912 and 37376 of four,
 * 19456 and 17920 of eight; of 151936, the last ranks hold 128 less.
 * A position takes 2 L 128 k / t values of f16.
 * Scratch of a step of 2048 tokens with logits of 16: f32 logits 64 V and cos/sin rows 4 128 2048;
 * bf16 residual rows 2 h 2048 and 2 h 16; and the MLP's 2 (h + 3 f / t) 2048, rows padded to 64
 * bytes. */
#include "engine/tools.h"

#include "base/json.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZES = 4, CARDS = 4 };
static const int size[SIZES] = {1, 2, 4, 8};
static const int card[CARDS] = {24, 40, 80, 141};

typedef struct {
    const char *name;
    int64_t n_params; /* at one rank: the publisher's "32.5B", "72.3B", "111B", "32.8B", "72.7B" */
    struct {
        int64_t weights[2]; /* of the first and the last rank */
        int64_t kv_per_token, scratch;
        const char *fits; /* on the cards, 1 sequence of 32768 and 8 of 8192 */
    } at[SIZES];
} hand_plan;

static const hand_plan plans[] = {
    {"Qwen1.5-32B",
     32512218112,
     {{{65026674688, 65026674688}, 262144, 389480448, "nnyy nnyy"},
      {{32530386944, 32498929664}, 131072, 221184000, "nyyy nnyy"},
      {{16277000192, 16245542912}, 65536, 137035776, "yyyy yyyy"},
      {{8139821056, 8108363776}, 32768, 94961664, "yyyy yyyy"}}},
    {"Qwen1.5-72B",
     72287920128,
     {{{144582410240, 144582410240}, 2621440, 380141568, "nnnn nnnn"},
      {{72319008768, 72268677120}, 1310720, 229146624, "nnny nnnn"},
      {{36178919424, 36128587776}, 655360, 153649152, "nnyy nnyy"},
      {{18092097536, 18041765888}, 327680, 115900416, "nyyy nyyy"}}},
    {"Qwen1.5-110B",
     111209914368,
     {{{222424104960, 222424104960}, 327680, 682131456, "nnnn nnnn"},
      {{111239856128, 111189524480}, 163840, 380141568, "nnny nnny"},
      {{55639343104, 55589011456}, 81920, 229146624, "nnyy nnyy"},
      {{27822309376, 27771977728}, 40960, 153649152, "nyyy nyyy"}}},
    {"Qwen2.5-32B",
     32763876352,
     {{{65529991168, 65529991168}, 262144, 392626176, "nnyy nnyy"},
      {{32782045184, 32750587904}, 131072, 222756864, "nyyy nnyy"},
      {{16402829312, 16371372032}, 65536, 137822208, "yyyy yyyy"},
      {{8202735616, 8171278336}, 32768, 95354880, "yyyy yyyy"}}},
    {"Qwen2.5-72B",
     72706203648,
     {{{145416683520, 145416683520}, 327680, 441483264, "nnnn nnnn"},
      {{72736145408, 72685813760}, 163840, 259817472, "nnyy nnyy"},
      {{36387487744, 36337156096}, 81920, 168984576, "nyyy nnyy"},
      {{18196381696, 18146050048}, 40960, 123633664, "yyyy yyyy"}}},
    {"Qwen3-32B",
     32762123264,
     {{{65525600256, 65525600256}, 262144, 367452160, "nnyy nnyy"},
      {{32781193216, 32747114496}, 131072, 210165760, "nyyy nnyy"},
      {{16402436096, 16368357376}, 65536, 131522560, "yyyy yyyy"},
      {{8202571776, 8168493056}, 32768, 92200960, "yyyy yyyy"}}},
};
enum { N_PLANS = sizeof plans / sizeof *plans };

static buf out;
static err e;
static json_doc *doc;

static int inspect(const char *path, const inspect_options *i, const char *kv)
{
    engine_options o = {.model_path = path, .device = "ref", .cpu_isa = "auto", .kv_dtype = kv};
    buf_reset(&out);
    e = (err){0};
    return tool_inspect(&o, i, &out, &e);
}

/* The plan of a configuration without weights, as JSON; freed with the next one. */
static const json *plan_of(const char *name, inspect_options i, const char *kv)
{
    char path[80];
    const json *root;
    snprintf(path, sizeof path, "tests/data/configs/%s", name);
    i.json = true;
    ck_assert_msg(inspect(path, &i, kv) == 0, "%s", e.msg);
    json_free(doc);
    doc = json_parse(out.v, out.len, NULL, &root, &e);
    ck_assert_msg(doc != NULL, "%s in %s", e.msg, out.v);
    const json *plan = json_get(root, "plan");
    ck_assert(json_is(plan, JSON_OBJECT));
    return plan;
}

static int64_t number(const json *o, const char *name)
{
    int64_t v = -1;
    ck_assert_msg(json_int(json_get(o, name), &v), "%s", name);
    return v;
}

static void teardown(void)
{
    buf_clear(&out);
    json_free(doc);
    doc = NULL;
}

START_TEST(by_hand)
{
    const hand_plan *h = &plans[_i];
    for (int s = 0; s < SIZES; s++)
        for (int way = 0; way < 2; way++) {
            inspect_options i = {.ctx = way ? 8192 : 32768, .seqs = way ? 8 : 1, .tp = size[s]};
            const json *p = plan_of(h->name, i, NULL), *ranks = json_get(p, "ranks");
            ck_assert_int_eq(number(p, "tp"), size[s]);
            int n = 0;
            for (const json *r = ranks->child; r; r = r->next, n++) {
                ck_assert_int_eq(number(r, "rank"), n);
                if (n == 0 || n == size[s] - 1)
                    ck_assert_int_eq(number(r, "weight_bytes"), h->at[s].weights[n > 0]);
                ck_assert_int_eq(number(r, "kv_bytes_per_token"), h->at[s].kv_per_token);
                ck_assert_int_eq(number(r, "kv_bytes"),
                                 h->at[s].kv_per_token * (way ? 65536 : 32768));
                ck_assert_int_eq(number(r, "scratch_bytes"), h->at[s].scratch);
                if (size[s] == 1) ck_assert_int_eq(number(r, "parameters"), h->n_params);
            }
            ck_assert_int_eq(n, size[s]);
            const char *fits = h->at[s].fits + 5 * way;
            const json *c = json_get(p, "cards")->child;
            for (int k = 0; k < CARDS; k++, c = c->next) {
                ck_assert_int_eq(number(c, "gb"), card[k]);
                ck_assert_int_eq(json_is(json_get(c, "fits"), JSON_TRUE), fits[k] == 'y');
            }
        }
}
END_TEST

static void says(const char *text)
{
    ck_assert_msg(strstr(buf_str(&out), text) != NULL, "no '%s' in\n%s", text, buf_str(&out));
}

/* Beyond the key heads these are held more than once: the cache per rank stops shrinking. */
START_TEST(replicated_keys)
{
    const json *p = plan_of("Qwen2.5-72B", (inspect_options){.tp = 32}, NULL);
    const json *r = json_get(p, "ranks")->child;
    ck_assert_int_eq(number(r, "heads"), 2);
    ck_assert_int_eq(number(r, "kv_heads"), 1);
    ck_assert_int_eq(number(r, "kv_bytes_per_token"), 2 * 80 * 128 * 2);
    /* One key head and a quarter of the two query heads' share of o: k and v are [128, 8192]. */
    int64_t per_layer = 2 * 256 * 8192 + 2 * 128 * 8192 + 3 * 8192 * (29568 / 32);
    int64_t matrices = 2 * (2 * 8192 * 5 * 1024 + 80 * per_layer);
    int64_t vectors = 4 * (8192 + 80 * (2 * 8192 + 256 + 2 * 128));
    ck_assert_int_eq(number(r, "weight_bytes"), matrices + vectors);
    p = plan_of("Qwen2.5-72B", (inspect_options){.tp = 8}, "q8_0");
    ck_assert_int_eq(number(json_get(p, "ranks")->child, "kv_bytes_per_token"),
                     2 * 80 * (128 / 32 * 34));
}
END_TEST

START_TEST(refusals)
{
    static const struct {
        const char *name;
        int tp;
        const char *sizes;
    } bad[] = {{"Qwen1.5-32B", 3, "1, 2, 4, 8, 40"},
               {"Qwen1.5-32B", 5, "1, 2, 4, 8, 40"},
               {"Qwen2.5-72B", 48, "1, 2, 4, 8, 16, 32, 64"},
               {"Qwen1.5-72B", 12, "1, 2, 4, 8, 16, 32, 64"}};
    char path[80];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(path, sizeof path, "tests/data/configs/%s", bad[i].name);
        inspect_options o = {.tp = bad[i].tp};
        ck_assert_int_eq(inspect(path, &o, NULL), ERR_UNSUPPORTED);
        ck_assert_msg(strstr(e.msg, "--tensor-parallel-size") && strstr(e.msg, bad[i].sizes), "%s",
                      e.msg);
    }
    /* 5 heads of 128 a rank are two and a half blocks of 256. */
    inspect_options o = {.tp = 8, .assume_type = "Q4_K"};
    ck_assert_int_eq(inspect("tests/data/configs/Qwen1.5-32B", &o, NULL), ERR_UNSUPPORTED);
    ck_assert_msg(strstr(e.msg, "blocks of 256") && strstr(e.msg, "1, 2, 4"), "%s", e.msg);
    o = (inspect_options){.tp = 65};
    ck_assert_int_eq(inspect("tests/data/configs/Qwen1.5-72B", &o, NULL), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "1 to 64"));
    o = (inspect_options){.ctx = 40000};
    ck_assert_int_eq(inspect("tests/data/configs/Qwen1.5-32B", &o, NULL), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "more than the model's 32768"));
    o = (inspect_options){.assume_type = "Q9"};
    ck_assert_int_eq(inspect("tests/data/configs/Qwen1.5-32B", &o, NULL), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "--assume-type Q9 is not known"));
    o = (inspect_options){.json = true, .tp = 7};
    ck_assert_int_eq(inspect("tests/data/configs/Qwen1.5-32B", &o, NULL), ERR_UNSUPPORTED);
    ck_assert_uint_eq(out.len, 0);
}
END_TEST

START_TEST(words)
{
    inspect_options o = {.ctx = 32768, .tp = 2};
    ck_assert_int_eq(inspect("tests/data/configs/Qwen2.5-32B", &o, NULL), 0);
    says("Qwen2.5-32B, Hugging Face directory, no weights\n");
    says("2 ranks of one GPU each, 1 sequence of 32768 tokens, 2048 tokens a step, weights BF16, "
         "assumed, KV cache f16\n");
    /* 32782045184 and 32750587904, 131072 * 32768, 222756864 bytes. */
    says("  0          20/4           30.53 GiB    4.00 GiB   212.4 MiB   34.74 GiB\n");
    says("  1          20/4           30.50 GiB    4.00 GiB   212.4 MiB   34.71 GiB\n");
    says("   24 GB     no, short of 12.74 GiB; 4 of them would do (--tp 4)\n");
    says("   40 GB     yes, leaving 3.26 GiB\n");
    /* Q8_0: 34 bytes for 32 weights. */
    o = (inspect_options){.ctx = 32768, .tp = 1, .assume_type = "Q8_0", .json = true};
    const json *r = json_get(plan_of("Qwen2.5-32B", o, NULL), "ranks")->child;
    int64_t norms = 4 * (5120 + 64 * (2 * 5120 + (40 + 2 * 8) * 128));
    ck_assert_int_eq(number(r, "weight_bytes"), norms + (65529991168 - norms) / 2 / 32 * 34);
}
END_TEST

/* With weights: the tensors' own types, the machine's part beside the plan. */
START_TEST(demo)
{
    const json *root;
    inspect_options o = {.tp = 2, .json = true};
    ck_assert_msg(inspect("models/demo", &o, NULL) == 0, "%s", e.msg);
    doc = json_parse(out.v, out.len, NULL, &root, &e);
    ck_assert_ptr_nonnull(doc);
    const json *plan = json_get(root, "plan"), *r = json_get(plan, "ranks")->child;
    ck_assert_str_eq(json_get(plan, "weights")->str, "F16");
    ck_assert_int_eq(number(r, "heads"), 2);
    ck_assert_int_eq(number(r, "kv_heads"), 1);
    ck_assert_int_eq(number(r, "vocabulary"), 2048);
    ck_assert_int_gt(number(json_get(root, "here"), "weight_bytes"), 0);
    ck_assert(json_is(json_get(json_get(root, "here"), "fits"), JSON_TRUE));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("inspect_tp");
    TCase *t = tcase_create("plan");
    tcase_add_checked_fixture(t, NULL, teardown);
    tcase_add_loop_test(t, by_hand, 0, N_PLANS);
    tcase_add_test(t, replicated_keys);
    tcase_add_test(t, refusals);
    tcase_add_test(t, words);
    tcase_add_test(t, demo);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
