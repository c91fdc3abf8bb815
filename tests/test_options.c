/* test_options.c - every source of options, their order, and what is refused by name. */
#include "base/file.h"
#include "base/log.h"
#include "config/device.h"
#include "config/options.h"
#include "config/options_table.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ARGS = 16 };

static options o;
static err e;
static char file[64];

/* Parses a command line given as words separated by '|'. */
static int parse(command cmd, const char *line)
{
    char *argv[MAX_ARGS + 2] = {"quern", "command"}, *copy = strdup(line), *save = NULL;
    int argc = 2;
    for (char *w = strtok_r(copy, "|", &save); w; w = strtok_r(NULL, "|", &save)) {
        ck_assert_int_lt(argc, MAX_ARGS);
        argv[argc++] = w;
    }
    options_free(&o);
    e = (err){0};
    int rc = options_parse(&o, cmd, argc, argv, &e);
    free(copy);
    ck_assert_int_eq(rc, e.code);
    ck_assert((rc == 0) == (e.msg[0] == 0));
    return rc;
}

static void put_file(const char *text)
{
    ck_assert_int_eq(file_write_atomic(file, text, strlen(text), &e), 0);
}

static void setup(void)
{
    strcpy(file, "/tmp/quern-options-XXXXXX");
    int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    close(fd);
    log_init(LOG_ERROR, false);
}

static void teardown(void)
{
    static const char *const set[] = {"QUERN_PORT",      "QUERN_HOST",
                                      "QUERN_API_KEY",   "QUERN_CONFIG",
                                      "QUERN_MAX_QUEUE", "QUERN_OF_ANOTHER_PROGRAM",
                                      "QUERN_MEDIA_PATH"};
    for (size_t i = 0; i < sizeof set / sizeof set[0]; i++) unsetenv(set[i]);
    unlink(file);
    options_free(&o);
}

START_TEST(defaults)
{
    ck_assert_int_eq(parse(CMD_SERVE, ""), 0);
    ck_assert_ptr_null(o.model);
    ck_assert_ptr_null(o.cors_origins);
    ck_assert_str_eq(o.host, "127.0.0.1");
    ck_assert_int_eq(o.port, 8080);
    ck_assert_int_eq(o.max_queue, 256);
    ck_assert_int_eq(o.max_conn, 1024);
    ck_assert_uint_eq(o.max_body, 32 << 20);
    ck_assert_uint_eq(o.max_body_total, 256 << 20);
    ck_assert(o.header_timeout == 10 && o.body_timeout == 30);
    ck_assert(o.request_timeout == 0 && o.drain_timeout == 30 && o.sse_ping == 15);
    ck_assert_int_eq(o.max_model_len, 0);
    ck_assert_uint_eq(o.kv_cache_memory, 0);
    ck_assert_int_eq(o.tensor_parallel_size, 1);
    ck_assert_str_eq(o.device, "auto");
    ck_assert_str_eq(o.cpu_isa, "auto");
    ck_assert_str_eq(o.kv_cache_dtype, "auto");
    ck_assert_str_eq(o.reasoning_field, "both");
    ck_assert_str_eq(o.log_format, "text");
    ck_assert_str_eq(o.log_level, "info");
    ck_assert_str_eq(o.generation_config, "auto");
    ck_assert(!o.no_prefix_caching && !o.allow_priority && !o.open_metrics && !o.any_model);
}
END_TEST

START_TEST(command_line)
{
    ck_assert_int_eq(parse(CMD_SERVE,
                           "dir/model|--port|9000|--host=0.0.0.0|-c|4096|-t|2|--no-prefix-caching"
                           "|--kv-cache-memory|8G|--served-model-name|a, b,,c*"),
                     0);
    ck_assert_str_eq(o.model, "dir/model");
    ck_assert_int_eq(o.port, 9000);
    ck_assert_str_eq(o.host, "0.0.0.0");
    ck_assert_int_eq(o.max_model_len, 4096);
    ck_assert_int_eq(o.threads, 2);
    ck_assert(o.no_prefix_caching);
    ck_assert_uint_eq(o.kv_cache_memory, 8ull << 30);
    ck_assert_int_eq(o.served_model_name.n, 3);
    ck_assert_str_eq(o.served_model_name.v[0], "a");
    ck_assert_str_eq(o.served_model_name.v[1], "b");
    ck_assert_str_eq(o.served_model_name.v[2], "c*");

    ck_assert_int_eq(
        parse(CMD_SERVE, "--ctx-size|17|--port|1|--port|2|--api-key|a,b|--api-key|c|--sse-ping|-1"),
        0);
    ck_assert_int_eq(o.max_model_len, 17);
    ck_assert_int_eq(o.port, 2);
    ck_assert_int_eq(o.api_key.n, 2);
    ck_assert_str_eq(o.api_key.v[0], "a,b");
    ck_assert_str_eq(o.api_key.v[1], "c");
    ck_assert(o.sse_ping == -1);

    ck_assert_int_eq(
        parse(CMD_SERVE, "--prefix-caching|--no-open-metrics|--any-model=false|--no-timings=no"),
        0);
    ck_assert(!o.no_prefix_caching && !o.open_metrics && !o.any_model && !o.no_timings);
    ck_assert_int_eq(
        parse(CMD_SERVE, "--no-prefix-caching|--no-enable-prefix-caching|--max-model-len|auto"), 0);
    ck_assert(o.no_prefix_caching);
    ck_assert_int_eq(parse(CMD_SERVE, "-tp|1|--kv-cache-dtype|F16|--device|CPU|--|-odd-name"), 0);
    ck_assert_str_eq(o.kv_cache_dtype, "f16");
    ck_assert_str_eq(o.device, "cpu");
    ck_assert_str_eq(o.model, "-odd-name");
    ck_assert_int_eq(parse(CMD_SERVE, "--cpu-isa|ref"), 0);
    ck_assert_str_eq(o.device, "ref");
    ck_assert_int_eq(parse(CMD_QUANTIZE, "in|out|--type|q4_k_m"), 0);
    ck_assert_str_eq(o.type, "Q4_K_M");
    ck_assert_str_eq(o.args.v[0], "out");
    ck_assert_int_eq(parse(CMD_INSPECT, "-m|x|--ctx|100|--seqs|4"), 0);
    ck_assert_str_eq(o.model, "x");
    ck_assert_int_eq(o.ctx, 100);
    ck_assert_int_eq(parse(CMD_SERVE, "--rope-scaling|{\"rope_type\":\"yarn\",\"factor\":4}"), 0);
    ck_assert_str_eq(o.rope_scaling, "{\"rope_type\":\"yarn\",\"factor\":4}");
}
END_TEST

START_TEST(devices)
{
    device_choice d;
    ck_assert_int_eq(parse(CMD_SERVE, "--device|CUDA:3"), 0);
    ck_assert_str_eq(o.device, "cuda:3");
    ck_assert_int_eq(device_parse("Cuda:2,0,11", &d, &e), 0);
    ck_assert_str_eq(d.name, "cuda");
    ck_assert(d.n == 3 && d.ordinal[0] == 2 && d.ordinal[1] == 0 && d.ordinal[2] == 11);
    ck_assert_int_eq(device_of_rank(&d, 1), 0);
    ck_assert_int_eq(device_check_ranks(&d, 3, &e), 0);
    ck_assert_int_eq(device_check_ranks(&d, 4, &e), ERR_INVALID);
    ck_assert_int_eq(device_parse("cuda-emu:5", &d, &e), 0);
    ck_assert_int_eq(device_of_rank(&d, 3), 5);
    ck_assert_int_eq(device_check_ranks(&d, 4, &e), 0);
    ck_assert_int_eq(device_parse(NULL, &d, &e), 0);
    ck_assert_str_eq(d.name, "auto");
    ck_assert_int_eq(device_of_rank(&d, 3), 3);
    ck_assert_int_eq(device_parse("cud", &d, &e), ERR_INVALID);
    ck_assert_int_eq(device_parse("cuda:0,", &d, &e), ERR_INVALID);
}
END_TEST

static const struct {
    command cmd;
    const char *line;
    int code;
    const char *says;
} refused[] = {
    {CMD_SERVE, "--bogus", ERR_INVALID, "unknown option --bogus"},
    {CMD_SERVE, "-q", ERR_INVALID, "unknown option -q"},
    {CMD_SERVE, "--no-port", ERR_INVALID, "unknown option --no-port"},
    {CMD_SERVE, "--port", ERR_INVALID, "--port needs a value: --port N"},
    {CMD_SERVE, "--host|--port|1", ERR_INVALID, "--host needs a value: --host ADDR"},
    {CMD_SERVE, "--port|x", ERR_INVALID, "--port takes a whole number from 0 to 65535, got 'x'"},
    {CMD_SERVE, "--port|1.5", ERR_INVALID,
     "--port takes a whole number from 0 to 65535, got '1.5'"},
    {CMD_SERVE, "-p|65536", ERR_INVALID, "-p takes a whole number from 0 to 65535, got '65536'"},
    {CMD_SERVE, "--port|auto", ERR_INVALID,
     "--port takes a whole number from 0 to 65535, got 'auto'"},
    {CMD_SERVE, "--port|99999999999999999999", ERR_INVALID,
     "--port takes a whole number from 0 to 65535, got '99999999999999999999'"},
    {CMD_SERVE, "-c|-1", ERR_INVALID,
     "-c takes a whole number from 0 to 2147483647 or auto, got '-1'"},
    {CMD_SERVE, "--max-body|lots", ERR_INVALID,
     "--max-body takes a size such as 8G, 512M or 1048576, got 'lots'"},
    {CMD_SERVE, "--kv-cache-dtype|int3", ERR_INVALID,
     "--kv-cache-dtype takes one of auto|f16|bf16|f32|q8_0, got 'int3'"},
    {CMD_SERVE, "--request-timeout|nan", ERR_INVALID,
     "--request-timeout takes a number from 0 to 1000000000, got 'nan'"},
    {CMD_SERVE, "--any-model=maybe", ERR_INVALID, "--any-model takes true or false, got 'maybe'"},
    {CMD_SERVE, "--rope-scaling|[1]", ERR_INVALID, "--rope-scaling takes a JSON object, got '[1]'"},
    {CMD_SERVE, "--rope-scaling|{", ERR_FORMAT,
     "--rope-scaling takes a JSON object: unexpected end at byte 1"},
    {CMD_SERVE, "a|b", ERR_INVALID, "unexpected argument 'b'"},
    {CMD_SERVE, "a|-m|b", ERR_INVALID, "-m: the model is given twice"},
    {CMD_QUANTIZE, "a|b|c", ERR_INVALID, "unexpected argument 'c'"},
    {CMD_INSPECT, "--port|1", ERR_INVALID, "--port does nothing in this command"},
    {CMD_SERVE, "--device|gpu", ERR_INVALID,
     "--device takes auto, cpu, ref or cuda[:i[,j...]], got 'gpu'"},
    {CMD_SERVE, "--device|cpu:0", ERR_INVALID,
     "--device 'cpu:0': cpu has no devices to choose among"},
    {CMD_SERVE, "--device|cuda:", ERR_INVALID,
     "--device 'cuda:': after the colon come device numbers from 0 to 1023, separated by commas"},
    {CMD_SERVE, "--device|cuda:0,x", ERR_INVALID,
     "--device 'cuda:0,x': after the colon come device numbers from 0 to 1023, separated by "
     "commas"},
    {CMD_SERVE, "--device|cuda:-1", ERR_INVALID,
     "--device 'cuda:-1': after the colon come device numbers from 0 to 1023, separated by commas"},
    {CMD_SERVE, "--device|cuda:99999999999999999999", ERR_INVALID,
     "--device 'cuda:99999999999999999999': after the colon come device numbers from 0 to 1023, "
     "separated by commas"},
    {CMD_SERVE, "--device|cuda:1,0,1", ERR_INVALID, "--device 'cuda:1,0,1' names device 1 twice"},
    {CMD_SERVE, "--device|cuda:0,1", ERR_INVALID,
     "--device names 2 devices and --tensor-parallel-size is 1: name one device a rank, one for "
     "all, or none (then rank r takes device r)"},
    {CMD_BENCH, "--dummy-type|Q8_0", ERR_INVALID,
     "--dummy-type does nothing without --dummy-weights"},
    {CMD_BENCH, "--dummy-weights|--dummy-type|Q9", ERR_INVALID,
     "--dummy-type takes BF16, F16, F32 or one of GGUF's block types such as Q8_0 or Q4_K, got "
     "'Q9'"},
    {CMD_INSPECT, "--dummy-weights", ERR_INVALID, "--dummy-weights does nothing in this command"},
    {CMD_SERVE, "--media-path|x", ERR_UNSUPPORTED,
     "--media-path is not supported yet (image, audio and video input)"},
    {CMD_SERVE, "--media-allow=x", ERR_UNSUPPORTED,
     "--media-allow is not supported yet (image, audio and video input)"},
    {CMD_SERVE, "--tls-cert|x", ERR_INVALID, "--tls-cert and --tls-key need each other"},
    {CMD_SERVE, "--max-body|512M", ERR_INVALID,
     "--max-body 536870912 is more than --max-body-total 268435456"},
    {CMD_SERVE, "--config|/nonexistent/f.json", ERR_NOTFOUND,
     "--config: cannot open '/nonexistent/f.json': No such file or directory"},
    {CMD_SERVE, "--config|/tmp", ERR_INVALID, "--config: '/tmp' is not a regular file"},
    {CMD_SERVE, "--served-model-name|, ,", ERR_INVALID,
     "--served-model-name takes words separated by commas, got ', ,'"},
    {CMD_SERVE, "--allowed-hosts=", ERR_INVALID,
     "--allowed-hosts takes words separated by commas, got ''"},
    {CMD_SERVE, "--max-body|0", ERR_INVALID, "--max-body 0 would refuse every request"},
    {CMD_SERVE, "--sse-ping|0", ERR_INVALID,
     "--sse-ping takes seconds above 0, or -1 for off, got 0"},
    {CMD_SERVE, "--sse-ping|-0.5", ERR_INVALID,
     "--sse-ping takes seconds above 0, or -1 for off, got -0.5"},
};

START_TEST(refuses)
{
    ck_assert_int_eq(parse(refused[_i].cmd, refused[_i].line), refused[_i].code);
    ck_assert_str_eq(e.msg, refused[_i].says);
}
END_TEST

START_TEST(order_of_sources)
{
    char line[128];
    put_file("{\"port\": 1, \"max_queue\": 11, \"max-conn\": \"111\", \"host\": \"file\", "
             "\"api-key\": [\"f1\", \"f2\"],"
             "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2}, \"no_timings\": true, "
             "\"drain_timeout\": 1.5,"
             "\"seqs\": 3, \"open_metrics\": null}");
    setenv("QUERN_PORT", "2", 1);
    setenv("QUERN_HOST", "env", 1);
    setenv("QUERN_API_KEY", "e1", 1);
    setenv("QUERN_MAX_QUEUE", "", 1);
    setenv("QUERN_OF_ANOTHER_PROGRAM", "x", 1);
    snprintf(line, sizeof line, "--port|3|--config|%s", file);
    ck_assert_msg(parse(CMD_SERVE, line) == 0, "%s", e.msg);
    ck_assert_int_eq(o.port, 3);
    ck_assert_str_eq(o.host, "env");
    ck_assert_int_eq(o.max_queue, 11);
    ck_assert_int_eq(o.max_conn, 111);
    ck_assert_int_eq(o.api_key.n, 1);
    ck_assert_str_eq(o.api_key.v[0], "e1");
    ck_assert_str_eq(o.rope_scaling, "{\"rope_type\": \"linear\", \"factor\": 2}");
    ck_assert(o.no_timings && !o.open_metrics && o.drain_timeout == 1.5);

    setenv("QUERN_CONFIG", file, 1);
    unsetenv("QUERN_API_KEY");
    ck_assert_int_eq(parse(CMD_SERVE, "--timings"), 0);
    ck_assert_int_eq(o.port, 2);
    ck_assert_int_eq(o.api_key.n, 2);
    ck_assert(!o.no_timings);

    setenv("QUERN_PORT", "many", 1);
    ck_assert_int_eq(parse(CMD_SERVE, ""), ERR_INVALID);
    ck_assert_str_eq(e.msg, "QUERN_PORT takes a whole number from 0 to 65535, got 'many'");
    ck_assert_int_eq(parse(CMD_TOKENIZE, ""), 0); /* acts elsewhere */
    unsetenv("QUERN_PORT");
    setenv("QUERN_MEDIA_PATH", "x", 1);
    ck_assert_int_eq(parse(CMD_SERVE, ""), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.msg, "QUERN_MEDIA_PATH is not supported yet (image, audio and video input)");
}
END_TEST

static const struct {
    const char *text, *says;
} bad_files[] = {
    {"{\"prot\": 1}", "unknown option 'prot' in the --config file"},
    {"{\"port\": true}",
     "'port' in the --config file takes a whole number from 0 to 65535, got 'true'"},
    {"{\"port\": [1]}",
     "'port' in the --config file takes a whole number from 0 to 65535, got 'an array'"},
    {"{\"port\": 1e99}",
     "'port' in the --config file takes a whole number from 0 to 65535, got '1e99'"},
    {"{\"host\": {}}", "'host' in the --config file takes text, got 'an object'"},
    {"{\"api_key\": [1]}", "'api_key' in the --config file: every item must be a string"},
    {"{\"no_timings\": 1}", "'no_timings' in the --config file takes true or false, got '1'"},
    {"{\"media_path\": \"k\"}",
     "'media_path' in the --config file is not supported yet (image, audio and video input)"},
    {"{\"a\\nb\": 1}", "unknown option 'a b' in the --config file"},
    {"{\"config\": \"k\"}", "unknown option 'config' in the --config file"},
};

START_TEST(refuses_in_file)
{
    char line[128];
    put_file(bad_files[_i].text);
    snprintf(line, sizeof line, "--config|%s", file);
    ck_assert_int_lt(parse(CMD_SERVE, line), 0);
    ck_assert_str_eq(e.msg, bad_files[_i].says);
}
END_TEST

START_TEST(malformed_file)
{
    char line[128];
    snprintf(line, sizeof line, "--config|%s", file);
    put_file("{\"port\": 1, \"port\": 2}");
    ck_assert_int_eq(parse(CMD_SERVE, line), ERR_FORMAT);
    put_file("[]");
    ck_assert_int_eq(parse(CMD_SERVE, line), ERR_INVALID);
    put_file("{port: 1}");
    ck_assert_int_eq(parse(CMD_SERVE, line), ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.msg, "expected a member name in quotes at byte 1"));
}
END_TEST

START_TEST(bytes)
{
    uint64_t v = 0;
    ck_assert(options_parse_bytes("8G", &v) && v == 8ull << 30);
    ck_assert(options_parse_bytes("512M", &v) && v == 512ull << 20);
    ck_assert(options_parse_bytes("1k", &v) && v == 1024);
    ck_assert(options_parse_bytes("2GiB", &v) && v == 2ull << 30);
    ck_assert(options_parse_bytes("1048576", &v) && v == 1048576);
    const char *bad[] = {
        "", "G", "-1", "1.5G", "8X", "8Gx", "99999999999999999999", "99999999999T", " 1", "0x10"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!options_parse_bytes(bad[i], &v), "%s", bad[i]);
}
END_TEST

/* Every row is settable, shown where it acts, and its default is a value it accepts. */
START_TEST(rows)
{
    static const command all[] = {CMD_SERVE,    CMD_CHAT,       CMD_BENCH,  CMD_INSPECT,
                                  CMD_TOKENIZE, CMD_DETOKENIZE, CMD_RENDER, CMD_QUANTIZE};
    for (size_t c = 0; c < sizeof all / sizeof all[0]; c++) {
        buf help = {0};
        options_help(all[c], &help);
        ck_assert_int_eq(parse(all[c], "--help"), 0);
        ck_assert(o.help);
        for (int i = 0; i < option_n_rows; i++) {
            char name[80];
            snprintf(name, sizeof name, "  --%s", option_rows[i].name);
            char *at = strstr(buf_str(&help), name);
            bool shown = at && (at[strlen(name)] == ' ' || at[strlen(name)] == '\n' ||
                                at[strlen(name)] == ',');
            ck_assert_msg(shown == !!(option_rows[i].commands & all[c]), "%s", name);
            for (int j = i + 1; j < option_n_rows; j++) {
                ck_assert_str_ne(option_rows[i].name, option_rows[j].name);
                ck_assert_uint_ne(option_rows[i].offset, option_rows[j].offset);
            }
        }
        for (char *p = strtok(help.v, "\n"); p; p = strtok(NULL, "\n"))
            ck_assert_msg(strlen(p) <= 100, "%s", p);
        buf_clear(&help);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("options");
    TCase *t = tcase_create("options");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, defaults);
    tcase_add_test(t, command_line);
    tcase_add_test(t, devices);
    tcase_add_loop_test(t, refuses, 0, sizeof refused / sizeof refused[0]);
    tcase_add_test(t, order_of_sources);
    tcase_add_loop_test(t, refuses_in_file, 0, sizeof bad_files / sizeof bad_files[0]);
    tcase_add_test(t, malformed_file);
    tcase_add_test(t, bytes);
    tcase_add_test(t, rows);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
