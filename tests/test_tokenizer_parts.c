/* test_tokenizer_parts.c - what a tokenizer is made of: merges by rank against the rule in its
 * plainest form, the expressions that split a text, NFC. */
#include "engine/text/bpe.h"
#include "engine/text/nfc.h"
#include "engine/text/pretok.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- merging ---- */

static const char *const merge[][2] = {{"a", "b"},  {"b", "a"},    {"ab", "ab"}, {"a", "a"},
                                       {"aa", "b"}, {"abab", "a"}, {"c", "ab"}};
enum { N_MERGES = sizeof merge / sizeof *merge };

static bool piece_is(const bpe *b, int32_t id, const char *s)
{
    size_t n;
    const char *piece = bpe_piece(b, id, &n);
    return n == strlen(s) && !memcmp(piece, s, n);
}

/* The rule in its plainest form: the first listed merge that applies anywhere, at its leftmost
 * place. */
static size_t merge_plain(const bpe *b, const char *s, size_t n, int32_t *id)
{
    for (size_t i = 0; i < n; i++) id[i] = b->byte_id[(unsigned char)s[i]];
    for (int k = 0; k < N_MERGES; k++) {
        size_t i = 0;
        while (i + 1 < n &&
               !(piece_is(b, id[i], merge[k][0]) && piece_is(b, id[i + 1], merge[k][1])))
            i++;
        if (i + 1 >= n) continue;
        id[i] = 256 + k;
        memmove(id + i + 1, id + i + 2, (n - i - 2) * sizeof *id);
        n--;
        k = -1;
    }
    return n;
}

/* Short pieces are merged by a scan, long ones by a heap; both follow the rule. */
START_TEST(merges_by_rank)
{
    bpe b;
    err e = {0};
    ck_assert_int_eq(bpe_init(&b, 256 + N_MERGES, N_MERGES, &e), 0);
    for (int c = 0; c < 256; c++) {
        /* GPT-2's alphabet, spelled out: 33-126, 161-172, 174-255 stand for themselves. */
        static int other = 256;
        int cp = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174 ? c : other++;
        char text[3] = {(char)cp};
        if (cp >= 128) {
            text[0] = (char)(0xC0 | cp >> 6);
            text[1] = (char)(0x80 | (cp & 63));
        }
        ck_assert_msg(bpe_add(&b, c, text, strlen(text), &e) == 0, "%s", e.msg);
    }
    for (int i = 0; i < N_MERGES; i++) {
        char text[16];
        snprintf(text, sizeof text, "%s%s", merge[i][0], merge[i][1]);
        ck_assert_int_eq(bpe_add(&b, 256 + i, text, strlen(text), &e), 0);
    }
    for (uint32_t i = 0; i < N_MERGES; i++)
        ck_assert_msg(bpe_add_merge(&b, i, merge[i][0], strlen(merge[i][0]), merge[i][1],
                                    strlen(merge[i][1]), &e) == 0,
                      "%s", e.msg);
    ck_assert_msg(bpe_seal(&b, &e) == 0, "%s", e.msg);
    bpe_scratch w = {0};
    srand(5);
    for (int round = 0; round < 3000; round++) {
        char s[200];
        int32_t want[200];
        size_t n = 1 + (size_t)rand() % 199;
        for (size_t i = 0; i < n; i++) s[i] = "aabbc"[rand() % 5];
        token_list l = {0};
        ck_assert_int_eq(bpe_encode(&b, s, n, &w, &l), 0);
        size_t k = merge_plain(&b, s, n, want);
        ck_assert_uint_eq(l.n, k);
        ck_assert_int_eq(memcmp(l.v, want, k * sizeof *want), 0);
        token_list_clear(&l);
    }
    bpe_scratch_clear(&w);
    bpe_clear(&b);
}
END_TEST

/* ---- expressions ---- */

static int count_pieces(void *arg, const char *s, size_t n)
{
    (void)s;
    ck_assert_uint_gt(n, 0);
    ++*(int *)arg;
    return 0;
}

static int pieces(const char *regex, const char *text)
{
    pretok p = {0};
    pretok_scratch w = {0};
    err e = {0};
    int n = 0;
    ck_assert_msg(pretok_add(&p, regex, strlen(regex), &e) == 0, "%s", e.msg);
    ck_assert_int_eq(pretok_split(&p, &w, text, strlen(text), count_pieces, &n), 0);
    pretok_scratch_clear(&w);
    pretok_clear(&p);
    return n;
}

START_TEST(expressions)
{
    ck_assert_int_eq(pieces("\\s", "a\u180Eb"), 1); /* no white space since Unicode 6.3 */
    ck_assert_int_eq(pieces("[^\\s]+", "a\u180Eb\u00A0c"), 3);
    ck_assert_int_eq(pieces("[\\S]+", "a\xC2\x85"
                                      "b"),
                     3);
    ck_assert_int_eq(pieces("\\h+", "xface"), 2); /* hexadecimal digits */
    ck_assert_int_eq(pieces("\\u0041|^b", "xA\nb"), 4);
    ck_assert_int_eq(pieces("x*", "axxb"), 3);
    ck_assert_int_eq(pieces("(?=b)", "abcb"), 3);                  /* an empty match cuts, too */
    ck_assert_int_eq(pieces("\\p{N}", "\U0001D2C0\U0001D2C1"), 2); /* Unicode 15 */
    ck_assert_int_eq(pieces("\\P{L}", "a\U00031350-"), 2);
    ck_assert_int_eq(pieces("(?i:'S)", "a's'\u017F"), 3);
    static const char *const no[] = {
        "\\w",     "\\b",        "\\K",   "\\1",  "[a[b]]", "[a&&b]",   "(?<x>a)", "(*UTF)", "(?R)",
        "a{1,2}+", "\\p{Greek}", "\\p{L", "[]a]", "\\",     "[\\P{L}]", "\\x{}",   "\\u12"};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        pretok p = {0};
        err e = {0};
        ck_assert_msg(pretok_add(&p, no[i], strlen(no[i]), &e) < 0, "%s", no[i]);
        ck_assert_msg(e.msg[0] != 0, "%s", no[i]);
        pretok_clear(&p);
    }
    /* A hostile expression ends by its limit. */
    pretok p = {0};
    pretok_scratch w = {0};
    int n = 0;
    const char *text = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    ck_assert_int_eq(pretok_add(&p, "(?:a|aa)+(?=[^a])", 17, NULL), 0);
    ck_assert_int_eq(pretok_split(&p, &w, text, strlen(text), count_pieces, &n), ERR_LIMIT);
    pretok_scratch_clear(&w);
    pretok_clear(&p);
}
END_TEST

/* ---- normalisation ---- */

START_TEST(nfc_cases)
{
    static const struct {
        const char *in, *out;
    } c[] = {{"e\u0301", "\u00E9"},
             {"A\u030A\u0323", "\u1EA0\u030A"},
             {"\u212B\u2126", "\u00C5\u03A9"},
             {"\u0958", "\u0915\u093C"}, /* excluded from composition */
             {"\u1100\u1161\u11A8", "\uAC01"},
             {"\uAC00\u11A7", "\uAC00\u11A7"}, /* no final consonant */
             {"\uAC00\u11A8", "\uAC01"},
             {"a\u0345\u0301", "\u00E1\u0345"},
             {"plain", "plain"}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        buf out = {0};
        nfc_edits edits = {0};
        ck_assert_int_eq(nfc_normalise(c[i].in, strlen(c[i].in), &out, &edits), 0);
        ck_assert_str_eq(buf_str(&out), c[i].out);
        ck_assert_uint_eq(edits.n, strcmp(c[i].in, c[i].out) ? 1 : 0);
        ck_assert_uint_eq(nfc_origin(&edits, out.len, true), strlen(c[i].in));
        buf_clear(&out);
        free(edits.v);
    }
    /* Long runs of marks take the other sort; both agree. */
    for (int n = 30; n < 36; n++) {
        buf in = {0}, out = {0}, want = {0};
        nfc_edits edits = {0};
        buf_puts(&in, "x");
        buf_puts(&want, "x");
        for (int i = 0; i < n; i++) buf_puts(&in, i & 1 ? "\u0323" : "\u0301");
        for (int i = 0; i < n / 2; i++) buf_puts(&want, "\u0323");
        for (int i = 0; i < n - n / 2; i++) buf_puts(&want, "\u0301");
        ck_assert_int_eq(nfc_normalise(in.v, in.len, &out, &edits), 0);
        ck_assert_str_eq(out.v, want.v);
        buf_clear(&in);
        buf_clear(&out);
        buf_clear(&want);
        free(edits.v);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer parts");
    TCase *t = tcase_create("tokenizer parts");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, merges_by_rank);
    tcase_add_test(t, expressions);
    tcase_add_test(t, nfc_cases);
    suite_add_tcase(suite, t);
    SRunner *run = srunner_create(suite);
    srunner_run_all(run, CK_NORMAL);
    int failed = srunner_ntests_failed(run);
    srunner_free(run);
    return failed ? 1 : 0;
}
