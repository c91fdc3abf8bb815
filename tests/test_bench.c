/* test_bench.c - `quern bench` runs and reports what it promises: one JSON object, every field,
 * shares of a roof only where there is one. */
#include "base/json.h"
#include "engine/tools.h"
#include "kernels/roofs.h"
#include "tests/quick.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static json_doc *run(const engine_options *o, const bench_options *b, const json **root)
{
    buf out = {0};
    err e = {0};
    int rc = tool_bench(o, b, &out, &e);
    ck_assert_msg(!rc, "%s", e.msg);
    json_doc *d = json_parse(out.v, out.len, NULL, root, &e);
    ck_assert_msg(d != NULL, "%s in %s", e.msg, out.v);
    buf_clear(&out);
    return d;
}

static double num(const json *o, const char *key)
{
    const json *v = json_get(o, key);
    ck_assert_msg(json_is(v, JSON_NUMBER), "no number %s", key);
    return json_num(v);
}

START_TEST(report)
{
    static const int batches[] = {1, 3}, tokens[] = {33, 70};
    bool is_ref = _i == 0;
    engine_options o = {.model_path = is_ref ? "tests/data/models/qwen3" : "models/demo",
                        .device = is_ref ? "ref" : "cpu",
                        .threads = 2,
                        .max_num_batched_tokens = 32};
    bench_options b = {.json = true,
                       .reps = 1,
                       .decode = batches,
                       .n_decode = 2,
                       .prefill = tokens,
                       .n_prefill = 2,
                       .decode_ctx = 40};
    const json *r;
    json_doc *d = run(&o, &b, &r);
    ck_assert_str_eq(json_get(r, "model")->str, o.model_path);
    ck_assert_str_eq(json_get(r, "format")->str, is_ref ? "BF16" : "F16");
    ck_assert(num(r, "threads") == (is_ref ? 1 : 2) && num(r, "load_ms") > 0);
    const char *const roof[] = {"bandwidth_gbs", "int8_gops", "fma_gflops"};
    for (int i = 0; i < 3; i++) ck_assert(is_ref ? num(r, roof[i]) == 0 : num(r, roof[i]) > 0);
    for (int i = 0; i < 2; i++) {
        const json *dec = json_at(json_get(r, "decode"), (size_t)i);
        const json *pre = json_at(json_get(r, "prefill"), (size_t)i);
        ck_assert(num(dec, "batch") == batches[i] && num(dec, "tok_s") > 0);
        ck_assert(num(pre, "tokens") == tokens[i] && num(pre, "tok_s") > 0);
        ck_assert(is_ref ? json_is(json_get(dec, "roof_share"), JSON_NULL)
                         : num(dec, "roof_share") > 0 && num(pre, "roof_share") > 0);
    }
    json_free(d);
}
END_TEST

START_TEST(refusals)
{
    static const int zero[] = {0}, huge[] = {5000};
    engine_options o = {.model_path = "models/demo", .device = "ref"};
    buf out = {0};
    err e = {0};
    ck_assert_int_eq(tool_bench(&o, &(bench_options){.decode = zero, .n_decode = 1}, &out, &e),
                     ERR_INVALID);
    ck_assert_int_eq(tool_bench(&o, &(bench_options){.prefill = huge, .n_prefill = 1}, &out, &e),
                     ERR_INVALID);
    ck_assert(strstr(e.msg, "5000") && strstr(e.msg, "2048"));
    ck_assert_int_eq(tool_bench(&o, &(bench_options){.reps = -1}, &out, &e), ERR_INVALID);
    ck_assert_int_eq(tool_bench(&o, &(bench_options){.decode_ctx = -1}, &out, &e), ERR_INVALID);
    o.kv_dtype = "q2";
    ck_assert_int_eq(tool_bench(&o, &(bench_options){0}, &out, &e), ERR_INVALID);
    ck_assert(strstr(e.msg, "q2") && strstr(e.msg, "q8_0"));
    o.model_path = "/nonexistent";
    ck_assert(tool_bench(&o, &(bench_options){0}, &out, &e) < 0);
    buf_clear(&out);
}
END_TEST

/* More threads never lower a roof to nothing, and all three are of a sane size. */
START_TEST(roofs_are_sane)
{
    static const char *const isas[] = {"auto", "portable"};
    if (quick_skips(_i, 2)) return;
    err e = {0};
    roofs r;
    backend *be =
        backend_open(&(backend_options){.name = "cpu", .isa = isas[_i], .threads = 2}, &e);
    ck_assert_msg(be && !roofs_measure(be, &r, &e), "%s", e.msg);
    ck_assert(r.bandwidth_gbs > 0.1 && r.bandwidth_gbs < 1e4);
    ck_assert(r.int8_gops > 0.1 && r.int8_gops < 1e6);
    ck_assert(r.fma_gflops > 0.01 && r.fma_gflops < 1e5);
    backend_close(be);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bench");
    TCase *t = tcase_create("bench");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, report, 0, 2);
    tcase_add_test(t, refusals);
    tcase_add_loop_test(t, roofs_are_sane, 0, 2);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
