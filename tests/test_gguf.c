/* test_gguf.c - the GGUF reader on files made by hand: good ones read back, damaged ones refused
 * with words that say why. */
#include "base/buf.h"
#include "base/file.h"
#include "config/gguf.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a writer without any check ---- */

static void put32(buf *b, uint32_t v)
{
    buf_put(b, &v, sizeof v);
}

static void put64(buf *b, uint64_t v)
{
    buf_put(b, &v, sizeof v);
}

static void put_str(buf *b, const char *s)
{
    put64(b, strlen(s));
    buf_puts(b, s);
}

static void put_header(buf *b, uint64_t n_tensors, uint64_t n_kv)
{
    buf_puts(b, "GGUF");
    put32(b, 3);
    put64(b, n_tensors);
    put64(b, n_kv);
}

static void put_key(buf *b, const char *key, uint32_t type)
{
    put_str(b, key);
    put32(b, type);
}

static void put_u32_key(buf *b, const char *key, uint32_t v)
{
    put_key(b, key, GGUF_U32);
    put32(b, v);
}

static void put_tensor(buf *b, const char *name, uint64_t ne0, uint64_t ne1, uint32_t type,
                       uint64_t offset)
{
    put_str(b, name);
    put32(b, 2);
    put64(b, ne0);
    put64(b, ne1);
    put32(b, type);
    put64(b, offset);
}

static void pad_to(buf *b, size_t align)
{
    while (b->len % align) buf_putc(b, 0);
}

/* Two tensors: w[2][4] F32 at 0, q[1][32] Q8_0 at 32. */
static void put_good(buf *b)
{
    put_header(b, 2, 9);
    put_key(b, "general.architecture", GGUF_STR);
    put_str(b, "qwen2");
    put_key(b, "u8", GGUF_U8);
    buf_putc(b, (char)200);
    put_key(b, "i16", GGUF_I16);
    buf_put(b, &(int16_t){-5}, 2);
    put_key(b, "big", GGUF_U64);
    put64(b, UINT64_MAX);
    put_key(b, "f32", GGUF_F32);
    buf_put(b, &(float){0.5f}, 4);
    put_key(b, "yes", GGUF_BOOL);
    buf_putc(b, 1);
    put_key(b, "words", GGUF_ARR);
    put32(b, GGUF_STR);
    put64(b, 3);
    put_str(b, "a");
    put_str(b, "");
    put_str(b, "ccc");
    put_key(b, "ints", GGUF_ARR);
    put32(b, GGUF_I32);
    put64(b, 2);
    put32(b, 7);
    put32(b, (uint32_t)-8);
    put_key(b, "empty", GGUF_ARR);
    put32(b, GGUF_F64);
    put64(b, 0);
    put_tensor(b, "w", 4, 2, DT_F32, 0);
    put_tensor(b, "q", 32, 1, DT_Q8_0, 32);
    pad_to(b, 32);
    for (int i = 0; i < 66; i++) buf_putc(b, (char)i);
}

static err e;

/* Opens exactly b's bytes (so that a read beyond them is seen), expects a refusal with `says`. */
static void refuse(buf *b, int code, const char *says)
{
    ck_assert(buf_ok(b));
    char *exact = malloc(b->len ? b->len : 1);
    memcpy(exact, b->v, b->len);
    e = (err){0};
    gguf *g = gguf_open_memory(exact, b->len, &e);
    ck_assert_msg(!g, "accepted; expected: %s", says);
    ck_assert_msg(strstr(e.msg, says) != NULL, "'%s' does not say '%s'", e.msg, says);
    ck_assert_int_eq(e.code, code);
    ck_assert_ptr_null(gguf_open_memory(exact, b->len, NULL));
    free(exact);
    buf_clear(b);
}

START_TEST(reads)
{
    buf b = {0};
    int64_t i = 0;
    double d = 0;
    bool yes = false;
    gguf_str s;
    gguf_type type;
    size_t n;
    put_good(&b);
    gguf *g = gguf_open_memory(b.v, b.len, &e);
    ck_assert_msg(g != NULL, "%s", e.msg);
    ck_assert_uint_eq(gguf_n_kv(g), 9);
    ck_assert(gguf_get_int(g, "u8", &i) && i == 200);
    ck_assert(gguf_get_int(g, "i16", &i) && i == -5);
    ck_assert(!gguf_get_int(g, "big", &i) && !gguf_get_int(g, "f32", &i) &&
              !gguf_get_int(g, "none", &i));
    ck_assert(!gguf_get_int(g, "ints", &i) && !gguf_get_int(g, "yes", &i));
    ck_assert(gguf_get_num(g, "f32", &d) && d == 0.5);
    ck_assert(gguf_get_num(g, "i16", &d) && d == -5);
    ck_assert(gguf_get_bool(g, "yes", &yes) && yes);
    ck_assert(!gguf_get_bool(g, "u8", &yes));
    ck_assert(gguf_get_str(g, "general.architecture", &s) && s.n == 5 && !memcmp(s.v, "qwen2", 5));
    ck_assert(!gguf_get_str(g, "words", &s) && !gguf_get_str(g, "u8", &s));
    ck_assert(gguf_get_arr(g, "words", &type, &n) && type == GGUF_STR && n == 3);
    ck_assert(gguf_arr_str(g, "words", 2, &s) && s.n == 3 && !memcmp(s.v, "ccc", 3));
    ck_assert(gguf_arr_str(g, "words", 1, &s) && s.n == 0);
    ck_assert(!gguf_arr_str(g, "words", 3, &s) && !gguf_arr_str(g, "ints", 0, &s));
    ck_assert(gguf_arr_int(g, "ints", 1, &i) && i == -8);
    ck_assert(gguf_arr_num(g, "ints", 0, &d) && d == 7);
    ck_assert(!gguf_arr_int(g, "ints", 2, &i) && !gguf_arr_int(g, "words", 0, &i));
    ck_assert(gguf_get_arr(g, "empty", &type, &n) && n == 0 && !gguf_arr_num(g, "empty", 0, &d));
    ck_assert(!gguf_get_arr(g, "u8", &type, &n));
    ck_assert(gguf_kv_at(g, 1, &s, &type) && s.n == 2 && type == GGUF_U8 &&
              !gguf_kv_at(g, 9, &s, &type));

    ck_assert_uint_eq(gguf_n_tensors(g), 2);
    const gguf_tensor *w = gguf_tensor_find(g, "w"), *q = gguf_tensor_at(g, 1);
    ck_assert(w && w->type == DT_F32 && w->n_dims == 2 && w->dim[0] == 4 && w->dim[1] == 2 &&
              w->dim[2] == 1);
    ck_assert(w->bytes == 32 && ((const unsigned char *)w->data)[1] == 1);
    ck_assert_str_eq(q->name, "q");
    ck_assert(q->bytes == 34 && ((const unsigned char *)q->data)[0] == 32);
    ck_assert_ptr_null(gguf_tensor_find(g, "x"));
    ck_assert_ptr_null(gguf_tensor_at(g, 2));
    gguf_drop(g, w); /* nothing to drop in memory */
    gguf_close(g);

    for (size_t len = 0; len < b.len; len++) {
        char *exact = malloc(len ? len : 1);
        memcpy(exact, b.v, len);
        ck_assert_msg(!gguf_open_memory(exact, len, &e), "cut to %zu of %zu bytes", len, b.len);
        ck_assert_int_eq(e.code, ERR_FORMAT);
        free(exact);
    }
    buf_clear(&b);
}
END_TEST

START_TEST(bad_headers)
{
    buf b = {0};
    buf_puts(&b, "GGML");
    put32(&b, 3);
    put64(&b, 0);
    put64(&b, 0);
    refuse(&b, ERR_FORMAT, "not a GGUF file");
    buf_puts(&b, "GGUF");
    put32(&b, 2);
    put64(&b, 0);
    put64(&b, 0);
    refuse(&b, ERR_UNSUPPORTED, "GGUF version 2 is not supported");
    buf_puts(&b, "GGUF");
    put32(&b, 3u << 24);
    put64(&b, 0);
    put64(&b, 0);
    refuse(&b, ERR_UNSUPPORTED, "big-endian");
    put_header(&b, 1ull << 60, 0);
    refuse(&b, ERR_FORMAT, "header claims 1152921504606846976 tensors");
    put_header(&b, 0, 1ull << 60);
    refuse(&b, ERR_FORMAT, "header claims 1152921504606846976 metadata entries");
    put_header(&b, 0, UINT64_MAX);
    refuse(&b, ERR_FORMAT, "metadata entries");
    put_header(&b, 0, 0);
    gguf *g = gguf_open_memory(b.v, b.len, &e);
    ck_assert_ptr_nonnull(g);
    gguf_close(g);
    buf_clear(&b);
}
END_TEST

START_TEST(bad_metadata)
{
    buf b = {0};
    put_header(&b, 0, 2);
    put_u32_key(&b, "same", 1);
    put_u32_key(&b, "same", 1);
    refuse(&b, ERR_FORMAT, "metadata 'same' stands twice");
    put_header(&b, 0, 1);
    put_u32_key(&b, "", 1);
    refuse(&b, ERR_FORMAT, "a metadata key");
    put_header(&b, 0, 1);
    put_u32_key(&b, "a\nb", 1);
    refuse(&b, ERR_FORMAT, "a metadata key");
    put_header(&b, 0, 1);
    put_u32_key(&b, "\xFF\xFE", 1);
    refuse(&b, ERR_FORMAT, "a metadata key");
    put_header(&b, 0, 1);
    put64(&b, 1ull << 60); /* key length */
    buf_puts(&b, "kkkkkkkkkkkk");
    refuse(&b, ERR_FORMAT, "claims 1152921504606846976 bytes");
    put_header(&b, 0, 1);
    put_key(&b, "k", 13);
    put64(&b, 0);
    refuse(&b, ERR_FORMAT, "metadata 'k' has value type 13");
    put_header(&b, 0, 1);
    put_key(&b, "k", GGUF_ARR);
    put32(&b, GGUF_ARR);
    put64(&b, 0);
    refuse(&b, ERR_FORMAT, "metadata 'k' has element type 9");
    put_header(&b, 0, 1);
    put_key(&b, "k", GGUF_ARR);
    put32(&b, GGUF_U64);
    put64(&b, 1ull << 61); /* times 8 is 0 */
    refuse(&b, ERR_FORMAT, "claims 2305843009213693952 elements");
    put_header(&b, 0, 1);
    put_key(&b, "k", GGUF_ARR);
    put32(&b, GGUF_STR);
    put64(&b, 1ull << 60);
    refuse(&b, ERR_FORMAT, "claims 1152921504606846976 strings");
    put_header(&b, 0, 1);
    put_key(&b, "k", GGUF_STR);
    put64(&b, UINT64_MAX);
    refuse(&b, ERR_FORMAT, "a metadata string");
    put_header(&b, 0, 1);
    put_key(&b, "k", GGUF_BOOL);
    buf_putc(&b, 2);
    refuse(&b, ERR_FORMAT, "holds 2 where a bool");
}
END_TEST

START_TEST(bad_alignment)
{
    static const uint32_t bad[] = {0, 3, 48, 1u << 25, UINT32_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        buf b = {0};
        put_header(&b, 0, 1);
        put_u32_key(&b, "general.alignment", bad[i]);
        refuse(&b, ERR_FORMAT, "general.alignment is");
    }
    buf b = {0};
    put_header(&b, 0, 1);
    put_key(&b, "general.alignment", GGUF_STR);
    put_str(&b, "32");
    refuse(&b, ERR_FORMAT, "general.alignment is not an integer");
    put_header(&b, 1, 1);
    put_u32_key(&b, "general.alignment", 64);
    put_tensor(&b, "w", 4, 1, DT_F32, 32);
    pad_to(&b, 64);
    for (int i = 0; i < 128; i++) buf_putc(&b, 0);
    refuse(&b, ERR_FORMAT, "'w' starts at offset 32, not a multiple of 64");
}
END_TEST

/* A file of up to two tensors with 256 bytes of data behind them. */
static void two(buf *b, uint64_t ne0, uint64_t ne1, uint32_t type, uint64_t offset)
{
    put_header(b, 2, 0);
    put_tensor(b, "first", 8, 1, DT_F32, 0);
    put_tensor(b, "second", ne0, ne1, type, offset);
    pad_to(b, 32);
    for (int i = 0; i < 256; i++) buf_putc(b, 0);
}

START_TEST(bad_tensors)
{
    buf b = {0};
    two(&b, 8, 1, DT_F32, 0);
    refuse(&b, ERR_FORMAT, "overlap");
    two(&b, 8, 1, DT_F32, 256);
    refuse(&b, ERR_FORMAT, "'second' (32 bytes at offset 256) reaches beyond");
    two(&b, 8, 1, DT_F32, UINT64_MAX - 31);
    refuse(&b, ERR_FORMAT, "reaches beyond");
    two(&b, 0, 1, DT_F32, 32);
    refuse(&b, ERR_FORMAT, "'second' has a dimension of 0");
    two(&b, UINT64_MAX, 1, DT_F32, 32);
    refuse(&b, ERR_FORMAT, "has a dimension of 18446744073709551615");
    two(&b, 1ull << 40, 1ull << 40, DT_F32, 32);
    refuse(&b, ERR_FORMAT, "product overflows");
    two(&b, 1ull << 62, 1, DT_F32, 32);
    refuse(&b, ERR_FORMAT, "product overflows");
    two(&b, 33, 1, DT_Q8_0, 32);
    refuse(&b, ERR_FORMAT, "rows of 33 elements; Q8_0 needs a multiple of 32");
    two(&b, 32, 1, 16, 32);
    refuse(&b, ERR_UNSUPPORTED, "'second' has type 16 (IQ2_XXS)");
    two(&b, 32, 1, 4, 32);
    refuse(&b, ERR_UNSUPPORTED, "type 4 (unknown)");
    two(&b, 32, 1, UINT32_MAX, 32);
    refuse(&b, ERR_UNSUPPORTED, "type 4294967295 (unknown)");

    for (uint32_t n_dims = 0; n_dims <= 5; n_dims += 5) {
        put_header(&b, 1, 0);
        put_str(&b, "t");
        put32(&b, n_dims);
        for (int i = 0; i < 8; i++) put64(&b, 1);
        refuse(&b, ERR_FORMAT, n_dims ? "'t' has 5 dimensions" : "'t' has 0 dimensions");
    }
    put_header(&b, 2, 0);
    put_tensor(&b, "same", 8, 1, DT_F32, 0);
    put_tensor(&b, "same", 8, 1, DT_F32, 32);
    pad_to(&b, 32);
    for (int i = 0; i < 64; i++) buf_putc(&b, 0);
    refuse(&b, ERR_FORMAT, "tensor 'same' stands twice");

    two(&b, 8, 1, DT_F32, 64); /* a gap is no fault */
    gguf *g = gguf_open_memory(b.v, b.len, &e);
    ck_assert_msg(g != NULL, "%s", e.msg);
    gguf_close(g);
    buf_clear(&b);
}
END_TEST

/* ---- split sets ---- */

static char dir[64];

static void setup(void)
{
    strcpy(dir, "/tmp/quern-gguf-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    ck_assert_int_eq(system(cmd), 0);
}

/* Writes one part of a set: no of count, with one tensor of this name. */
static void put_part(const char *file, uint16_t no, uint16_t count, int32_t tensors,
                     const char *name)
{
    char path[200];
    buf b = {0};
    put_header(&b, 1, 3);
    put_key(&b, "split.no", GGUF_U16);
    buf_put(&b, &no, 2);
    put_key(&b, "split.count", GGUF_U16);
    buf_put(&b, &count, 2);
    put_key(&b, "split.tensors.count", GGUF_I32);
    buf_put(&b, &tensors, 4);
    put_tensor(&b, name, 8, 1, DT_F32, 0);
    pad_to(&b, 32);
    for (int i = 0; i < 32; i++) buf_putc(&b, (char)no);
    snprintf(path, sizeof path, "%s/%s", dir, file);
    ck_assert_int_eq(file_write_atomic(path, b.v, b.len, &e), 0);
    buf_clear(&b);
}

static gguf *open_in_dir(const char *file)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    e = (err){0};
    return gguf_open(path, &e);
}

static void refuse_set(const char *file, const char *says)
{
    ck_assert_msg(!open_in_dir(file), "accepted; expected: %s", says);
    ck_assert_msg(strstr(e.msg, says) != NULL, "'%s' does not say '%s'", e.msg, says);
}

START_TEST(split_set)
{
    put_part("m-00001-of-00003.gguf", 0, 3, 3, "a");
    put_part("m-00002-of-00003.gguf", 1, 3, 3, "b");
    put_part("m-00003-of-00003.gguf", 2, 3, 3, "c");
    for (int i = 1; i <= 3; i++) { /* any part opens the set */
        char name[40];
        snprintf(name, sizeof name, "m-%05d-of-00003.gguf", i);
        gguf *g = open_in_dir(name);
        ck_assert_msg(g != NULL, "%s", e.msg);
        ck_assert_int_eq(gguf_n_files(g), 3);
        ck_assert_uint_eq(gguf_n_tensors(g), 3);
        const gguf_tensor *c = gguf_tensor_find(g, "c");
        ck_assert(c && c->file == 2 && *(const char *)c->data == 2);
        gguf_drop(g, c);
        ck_assert_int_eq(*(const char *)c->data, 2); /* read again from the file */
        gguf_close(g);
    }
    put_part("m-00003-of-00003.gguf", 2, 3, 3, "a");
    refuse_set("m-00001-of-00003.gguf", "tensor 'a' stands twice");
    put_part("m-00003-of-00003.gguf", 1, 3, 3, "c");
    refuse_set("m-00001-of-00003.gguf", "the file in place 3 says it is part 2");
    put_part("m-00003-of-00003.gguf", 2, 4, 3, "c");
    refuse_set("m-00001-of-00003.gguf", "part 3 says it is one of 4 files");
    put_part("m-00003-of-00003.gguf", 2, 3, 3, "c");
    put_part("m-00001-of-00003.gguf", 0, 3, 9, "a");
    refuse_set("m-00001-of-00003.gguf", "split.tensors.count says 9");
    put_part("alone.gguf", 0, 3, 3, "a");
    refuse_set("alone.gguf", "one of 3 files, but the set has 1");
    put_part("n-00001-of-00000.gguf", 0, 0, 1, "a"); /* no set of none: an ordinary name */
    gguf *g = open_in_dir("n-00001-of-00000.gguf");
    ck_assert_ptr_nonnull(g);
    gguf_close(g);
    refuse_set("p-00001-of-00002.gguf", "p-00001-of-00002.gguf");
    put_part("p-00001-of-00002.gguf", 0, 2, 2, "a");
    refuse_set("p-00001-of-00002.gguf", "p-00002-of-00002.gguf");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gguf");
    TCase *t = tcase_create("gguf");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, reads);
    tcase_add_test(t, bad_headers);
    tcase_add_test(t, bad_metadata);
    tcase_add_test(t, bad_alignment);
    tcase_add_test(t, bad_tensors);
    tcase_add_test(t, split_set);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
