/* test_safetensors.c - the safetensors reader on files made by hand: good ones read back, damaged
 * files and indexes refused with words that name the file or the tensor. */
#include "base/buf.h"
#include "base/file.h"
#include "config/safetensors.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static err e;
static char dir[64];

static void setup(void)
{
    strcpy(dir, "/tmp/quern-safetensors-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    e = (err){0};
}

static void teardown(void)
{
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    ck_assert_int_eq(system(cmd), 0);
}

/* Appends a file: the header's length, the header, n bytes of data 0, 1, 2, ... */
static void put_file(buf *b, const char *header, size_t n)
{
    uint64_t len = strlen(header);
    buf_put(b, &len, sizeof len);
    buf_puts(b, header);
    for (size_t i = 0; i < n; i++) buf_putc(b, (char)i);
}

static safetensors *open_exact(const void *v, size_t n)
{
    char *exact = malloc(n ? n : 1);
    if (n) memcpy(exact, v, n);
    safetensors *s = safetensors_open_memory(exact, n, &e);
    if (!s) free(exact); /* else the tensors point into it; the process of the test ends soon */
    return s;
}

START_TEST(reads)
{
    buf b = {0};
    put_file(&b,
             "{\"__metadata__\":{\"format\":\"pt\"},"
             "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
             "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
             "\"scalar\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[28,30]},"
             "\"q\":{\"dtype\":\"F8_E4M3\",\"shape\":[1,2],\"data_offsets\":[30,32]},"
             "\"new\":{\"dtype\":\"F2\",\"shape\":[99],\"data_offsets\":[32,33]},"
             "\"none\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[33,33]},"
             "\"deep\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[33,37]}}   ",
             37);
    safetensors *s = safetensors_open_memory(b.v, b.len, &e);
    ck_assert_msg(s != NULL, "%s", e.msg);
    ck_assert_uint_eq(safetensors_n(s), 7);
    const st_tensor *a = safetensors_find(s, "a");
    ck_assert(a && a->type == DT_F32 && a->n_dims == 2 && a->shape[0] == 2 && a->shape[1] == 3 &&
              a->shape[2] == 1);
    ck_assert(a->bytes == 24 && *(const char *)a->data == 4);
    ck_assert_int_eq(safetensors_find(s, "b")->type, DT_BF16);
    ck_assert_int_eq(safetensors_find(s, "scalar")->n_dims, 0);
    ck_assert_int_eq(safetensors_find(s, "q")->type, -1);
    ck_assert_str_eq(safetensors_find(s, "q")->dtype_name, "F8_E4M3");
    ck_assert_int_eq(safetensors_find(s, "new")->type, -1);
    ck_assert_int_eq(safetensors_find(s, "deep")->type, -1);
    ck_assert_int_eq(safetensors_find(s, "deep")->n_dims, 5);
    ck_assert_ptr_null(safetensors_find(s, "__metadata__"));
    ck_assert_ptr_null(safetensors_at(s, 7));
    safetensors_drop(s, a);
    safetensors_close(s);
    for (size_t n = 0; n < b.len; n++)
        ck_assert_msg(!open_exact(b.v, n), "cut to %zu of %zu", n, b.len);
    buf_clear(&b);
}
END_TEST

static const struct {
    const char *header;
    size_t data;
    const char *says;
} refused[] = {
    {"", 0, "header: unexpected end"},
    {"[]", 0, "a JSON array, not an object"},
    {"{}", 0, "holds no tensor"},
    {"{\"a\":1}", 0, "tensor 'a': no 'dtype'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\","
     "\"shape\":[1],\"data_offsets\":[0,4]}}",
     4, "member 'a' stands twice"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":\"x\",\"data_offsets\":[0,4]}}", 4,
     "'shape' is not a list"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
     "shape[0] is not a whole number"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4,
     "shape[0] is not a whole number"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4,
     "product of its shape overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
     "not what its shape and F32 need"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,"
     "4]}}",
     4, "at most 16"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "'data_offsets' is not [begin, end]"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4,
     "'data_offsets' is not [begin, end]"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4,
     "'data_offsets' is not [begin, end]"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 8,
     "'data_offsets' is not [begin, end]"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9223372036854775808]}}", 4,
     "'data_offsets' is not [begin, end]"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4,
     "ends at byte 8 of the data, which has 4; the file is cut short"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
     "has 4 bytes, not what its shape and F32 need"},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     "not what its shape and F4 need"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\","
     "\"shape\":[1],\"data_offsets\":[2,6]}}",
     6, "two tensors overlap"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\","
     "\"shape\":[1],\"data_offsets\":[0,4]}}",
     4, "two tensors overlap"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\","
     "\"shape\":[1],\"data_offsets\":[8,12]}}",
     12, "there is a hole"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "there is a hole"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8,
     "the data has 8 bytes, the header describes 4"},
    {"{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "name is empty"},
    {"{\"a\\nb\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "control characters"},
    {"{\"a\":[[[[[[[[[[1]]]]]]]]]]}", 0, "nested deeper"},
};

START_TEST(refuses)
{
    buf b = {0};
    put_file(&b, refused[_i].header, refused[_i].data);
    ck_assert_msg(!open_exact(b.v, b.len), "accepted; expected: %s", refused[_i].says);
    ck_assert_msg(strstr(e.msg, refused[_i].says) != NULL, "'%s' does not say '%s'", e.msg,
                  refused[_i].says);
    ck_assert_ptr_null(safetensors_open_memory(b.v, b.len, NULL));
    buf_clear(&b);
}
END_TEST

START_TEST(bad_length)
{
    static const uint64_t bad[] = {3, 1ull << 60, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char file[10] = {0};
        memcpy(file, &bad[i], 8);
        e = (err){0};
        ck_assert_ptr_null(open_exact(file, sizeof file));
        ck_assert_msg(strstr(e.msg, "the header claims") != NULL, "%s", e.msg);
    }
}
END_TEST

/* ---- directories ---- */

static void put(const char *name, const void *v, size_t n)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_assert_int_eq(file_write_atomic(path, v, n, &e), 0);
}

/* A shard with one tensor of four bytes. */
static void put_shard(const char *file, const char *tensor, size_t cut)
{
    char header[200];
    buf b = {0};
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", tensor);
    put_file(&b, header, 4);
    put(file, b.v, b.len - cut);
    buf_clear(&b);
}

static void put_index(const char *text)
{
    put("model.safetensors.index.json", text, strlen(text));
}

static void refuse_dir(const char *says, const char *also)
{
    e = (err){0};
    ck_assert_msg(!safetensors_open_dir(dir, &e), "accepted; expected: %s", says);
    ck_assert_msg(strstr(e.msg, says) != NULL, "'%s' does not say '%s'", e.msg, says);
    ck_assert_msg(strstr(e.msg, also) != NULL, "'%s' does not say '%s'", e.msg, also);
    ck_assert_ptr_null(safetensors_open_dir(dir, NULL));
}

static const char three[] =
    "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"a\":\"s1.safetensors\","
    "\"b\":\"s2.safetensors\",\"c\":\"s3.safetensors\"}}";

static void put_three(void)
{
    put_shard("s1.safetensors", "a", 0);
    put_shard("s2.safetensors", "b", 0);
    put_shard("s3.safetensors", "c", 0);
    put_index(three);
}

START_TEST(sharded)
{
    put_three();
    safetensors *s = safetensors_open_dir(dir, &e);
    ck_assert_msg(s != NULL, "%s", e.msg);
    ck_assert_uint_eq(safetensors_n(s), 3);
    const st_tensor *c = safetensors_find(s, "c");
    ck_assert(c && c->file == 2 && *(const char *)c->data == 0);
    safetensors_drop(s, c);
    ck_assert_uint_gt(safetensors_bytes(s), 12);
    safetensors_close(s);
}
END_TEST

START_TEST(missing_shard)
{
    char path[200];
    put_three();
    snprintf(path, sizeof path, "%s/s2.safetensors", dir);
    unlink(path);
    refuse_dir("s2.safetensors", "No such file");
}
END_TEST

START_TEST(truncated_shard)
{
    put_three();
    put_shard("s3.safetensors", "c", 1);
    refuse_dir("s3.safetensors", "the file is cut short");
    put("s3.safetensors", "", 0);
    refuse_dir("s3.safetensors", "a header needs 8");
}
END_TEST

START_TEST(index_disagrees)
{
    put_three();
    put_index("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\",\"c\":\"s3."
              "safetensors\",\"d\":\"s3.safetensors\"}}");
    refuse_dir("the index puts tensor 'd'", "s3.safetensors");
    put_index("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\",\"c\":\"s2."
              "safetensors\"}}");
    refuse_dir("the index puts tensor 'c'", "s2.safetensors");
    put_shard("s3.safetensors", "x", 0);
    put_index(three);
    refuse_dir("holds tensor 'x', which the index does not name", "s3.safetensors");
    put_shard("s3.safetensors", "a", 0);
    refuse_dir("tensor 'a' stands in two files", "s3.safetensors");
}
END_TEST

START_TEST(odd_index)
{
    put_three();
    put_index("{\"weight_map\":{\"a\":\"model.safetensors.index.json\"}}"); /* names itself */
    refuse_dir("model.safetensors.index.json", "the header claims");
    put_index("{\"weight_map\":{\"a\":\"../s1.safetensors\"}}");
    refuse_dir("tensor 'a' in no plain file name", "");
    put_index("{\"weight_map\":{\"a\":\"/etc/passwd\"}}");
    refuse_dir("tensor 'a' in no plain file name", "");
    put_index("{\"weight_map\":{\"a\":7}}");
    refuse_dir("tensor 'a' in no plain file name", "");
    put_index("{\"weight_map\":{}}");
    refuse_dir("no 'weight_map'", "");
    put_index("[]");
    refuse_dir("no 'weight_map'", "");
    put_index("{\"weight_map\":{\"a\":\"s1.safetensors\",\"a\":\"s1.safetensors\"}}");
    refuse_dir("member 'a' stands twice", "index.json");
    put_index("{\"weight_map\"");
    refuse_dir("index.json", "unexpected end");
    char link[200];
    snprintf(link, sizeof link, "%s/loop.safetensors", dir);
    ck_assert_int_eq(symlink("loop.safetensors", link), 0);
    put_index("{\"weight_map\":{\"a\":\"loop.safetensors\"}}");
    refuse_dir("loop.safetensors", "symbolic links");
}
END_TEST

START_TEST(no_weights)
{
    refuse_dir("holds neither model.safetensors nor", dir);
    put_shard("model.safetensors", "only", 0);
    put_index("garbage"); /* the single file wins, as in transformers */
    safetensors *s = safetensors_open_dir(dir, &e);
    ck_assert_ptr_nonnull(s);
    ck_assert_ptr_nonnull(safetensors_find(s, "only"));
    safetensors_close(s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("safetensors");
    TCase *t = tcase_create("safetensors");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, reads);
    tcase_add_loop_test(t, refuses, 0, sizeof refused / sizeof refused[0]);
    tcase_add_test(t, bad_length);
    tcase_add_test(t, sharded);
    tcase_add_test(t, missing_shard);
    tcase_add_test(t, truncated_shard);
    tcase_add_test(t, index_disagrees);
    tcase_add_test(t, odd_index);
    tcase_add_test(t, no_weights);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
