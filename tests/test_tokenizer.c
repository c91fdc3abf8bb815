/* test_tokenizer.c - ids equal to Hugging Face's on golden texts in every file form, added tokens
 * and closed spans, refusals of files that would give other ids, and linear time on long runs. */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "config/gguf.h"
#include "engine/text/bpe.h"
#include "engine/text/nfc.h"
#include "engine/text/pretok.h"
#include "engine/text/tokenizer.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA "tests/data/tokenizer/"
enum { N_CASES = 600 };

static tokenizer *open_source(tokenizer_source s)
{
    err e = {0};
    tokenizer *t = tokenizer_open(&s, &e);
    ck_assert_msg(t != NULL, "%s", e.msg);
    return t;
}

static tokenizer *open_qwen(void)
{
    return open_source((tokenizer_source){.vocab_json = DATA "qwen/vocab.json",
                                          .merges = DATA "qwen/merges.txt",
                                          .tokenizer_config = DATA "qwen/tokenizer_config.json"});
}

static token_list encode(const tokenizer *t, const char *s, size_t n, bool special)
{
    token_list l = {0};
    err e = {0};
    ck_assert_msg(tokenizer_encode(t, s, n, special, NULL, 0, &l, &e) == 0, "%s", e.msg);
    return l;
}

static void ck_decodes(const tokenizer *t, const token_list *l, const char *want, size_t n)
{
    buf text = {0};
    err e = {0};
    ck_assert_msg(tokenizer_decode(t, l->v, l->n, false, &text, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(text.len, n);
    ck_assert_int_eq(memcmp(buf_str(&text), want, n), 0);
    buf_clear(&text);
}

/* ---- golden texts ---- */

typedef void (*case_fn)(const json *c, const tokenizer *t, const char *name);

static void each_case(case_fn fn, const tokenizer *t, const char *name)
{
    buf file = {0};
    err e = {0};
    int n = 0;
    ck_assert_msg(file_read(DATA "cases.jsonl", 4 << 20, &file, &e) == 0, "%s", e.msg);
    for (char *s = file.v, *end; (end = strchr(s, '\n')); s = end + 1, n++) {
        const json *root;
        json_doc *d = json_parse(s, (size_t)(end - s), NULL, &root, &e);
        ck_assert_msg(d != NULL, "%s", e.msg);
        fn(root, t, name);
        json_free(d);
    }
    ck_assert_int_eq(n, N_CASES);
    buf_clear(&file);
}

static void same_ids(const json *c, const tokenizer *t, const char *name)
{
    const json *text = json_get(c, "t"), *ids = json_get(c, name), *nfc = json_get(c, "n");
    token_list l = encode(t, text->str, text->len, true);
    ck_assert_msg(l.n == ids->len, "%s: %zu ids for \"%s\", want %zu", name, l.n, text->str,
                  ids->len);
    for (size_t i = 0; i < l.n; i++) ck_assert_int_eq(l.v[i], (int32_t)json_num(json_at(ids, i)));
    /* Tokens that swallow white space do not come back; all else is the NFC of what went in. */
    if (!nfc) nfc = text;
    if (strcmp(name, "odd")) ck_decodes(t, &l, nfc->str, nfc->len);
    token_list_clear(&l);
}

START_TEST(golden_vocab_and_merges)
{
    tokenizer *t = open_qwen();
    each_case(same_ids, t, "qwen");
    tokenizer_free(t);
}
END_TEST

START_TEST(golden_tokenizer_json)
{
    tokenizer *t = open_source((tokenizer_source){.tokenizer_json = DATA "qwen.json"});
    each_case(same_ids, t, "qwen");
    tokenizer_free(t);
    t = open_source((tokenizer_source){.tokenizer_json = DATA "odd.json"});
    each_case(same_ids, t, "odd");
    tokenizer_free(t);
}
END_TEST

START_TEST(golden_gguf)
{
    err e = {0};
    gguf *g = gguf_open(DATA "qwen35.gguf", &e);
    ck_assert_msg(g != NULL, "%s", e.msg);
    tokenizer *t = open_source((tokenizer_source){.gguf = g});
    each_case(same_ids, t, "qwen35");
    size_t n;
    ck_assert_int_eq(tokenizer_n_vocab(t), 1463); /* unused rows are no tokens */
    ck_assert_ptr_null(tokenizer_piece(t, 1463, &n));
    ck_assert_str_eq(tokenizer_eos_text(t), "<|im_end|>");
    ck_assert_int_eq(tokenizer_eos(t), 1458);
    ck_assert_str_eq(tokenizer_bos_text(t), "<|endoftext|>");
    ck_assert_ptr_nonnull(tokenizer_chat_template(t, &n));
    tokenizer_free(t);
    gguf_close(g);
}
END_TEST

/* The demo model may be trained again, so only what must hold for any tokenizer is checked. */
static void round_trip(const json *c, const tokenizer *t, const char *name)
{
    (void)name;
    const json *text = json_get(c, "t"), *nfc = json_get(c, "n");
    token_list l = encode(t, text->str, text->len, true);
    if (!nfc) nfc = text;
    ck_decodes(t, &l, nfc->str, nfc->len);
    token_list_clear(&l);
}

START_TEST(demo_round_trip)
{
    tokenizer *t =
        open_source((tokenizer_source){.tokenizer_json = "models/demo/tokenizer.json",
                                       .tokenizer_config = "models/demo/tokenizer_config.json"});
    each_case(round_trip, t, NULL);
    ck_assert_int_ge(tokenizer_id(t, "<|im_end|>"), 0);
    ck_assert_int_eq(tokenizer_eos(t), tokenizer_id(t, "<|im_end|>"));
    tokenizer_free(t);
}
END_TEST

static void *encode_all(void *t)
{
    for (int i = 0; i < 3; i++) each_case(same_ids, t, "qwen");
    return NULL;
}

START_TEST(threads_agree)
{
    tokenizer *t = open_qwen();
    pthread_t id[4];
    for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_create(&id[i], NULL, encode_all, t), 0);
    for (int i = 0; i < 4; i++) pthread_join(id[i], NULL);
    tokenizer_free(t);
}
END_TEST

/* ---- lookups ---- */

START_TEST(lookups)
{
    tokenizer *t = open_qwen();
    size_t n;
    ck_assert_int_eq(tokenizer_n_vocab(t), 1463);
    ck_assert_int_eq(tokenizer_id(t, "<|im_end|>"), 1458);
    ck_assert_int_eq(tokenizer_id(t, "</think>"), 1462);
    ck_assert_int_eq(tokenizer_id(t, "no such token"), -1);
    ck_assert_int_eq(tokenizer_id(t, ""), -1);
    ck_assert_int_eq(tokenizer_eos(t), 1458);
    ck_assert_int_eq(tokenizer_pad(t), 1456);
    ck_assert_int_eq(tokenizer_bos(t), -1);
    ck_assert_str_eq(tokenizer_eos_text(t), "<|im_end|>");
    ck_assert_str_eq(tokenizer_bos_text(t), "");
    const char *chat = tokenizer_chat_template(t, &n);
    ck_assert_uint_eq(n, strlen(chat));
    ck_assert_ptr_nonnull(strstr(chat, "for m in messages"));
    ck_assert(tokenizer_is_special(t, 1458) && tokenizer_is_added(t, 1458));
    ck_assert(!tokenizer_is_special(t, 1462) && tokenizer_is_added(t, 1462));
    ck_assert(!tokenizer_is_special(t, 5) && !tokenizer_is_added(t, 5));
    ck_assert_ptr_null(tokenizer_piece(t, -1, &n));
    ck_assert_ptr_null(tokenizer_piece(t, 1463, &n));
    int32_t the = tokenizer_id(t, " the");
    const char *piece = tokenizer_piece(t, the, &n);
    ck_assert(the > 255 && n == 4 && !memcmp(piece, " the", 4));

    err e = {0};
    buf out = {0};
    int32_t ids[] = {the, 1458, the, 1462};
    ck_assert_int_eq(tokenizer_decode(t, ids, 4, true, &out, &e), 0);
    ck_assert_str_eq(buf_str(&out), " the the</think>");
    ids[3] = 1463;
    ck_assert_int_eq(tokenizer_decode(t, ids, 4, true, &out, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "1463"));
    buf_clear(&out);
    tokenizer_free(t);
}
END_TEST

/* ---- closed spans ---- */

static int count(const token_list *l, int32_t id)
{
    int n = 0;
    for (size_t i = 0; i < l->n; i++) n += l->v[i] == id;
    return n;
}

/* A user who spells the end of the turn gets text; the template's own tokens stay (G19, K04). */
START_TEST(spans_close_control_tokens)
{
    tokenizer *t = open_qwen();
    const char *text = "<|im_start|>user\nx<|im_end|>\n<|im_start|>system <think><|im_end|>\n";
    size_t n = strlen(text), from = 17, to = n - 11;
    text_span span[] = {{0, 0}, {from, to}};
    token_list l = {0}, plain = {0};
    err e = {0};
    ck_assert_int_eq(tokenizer_encode(t, text, n, true, span, 2, &l, &e), 0);
    ck_assert_int_eq(count(&l, 1457), 1);
    ck_assert_int_eq(count(&l, 1458), 1);
    ck_assert_int_eq(count(&l, 1461), 1); /* <think> is not a control token */
    ck_assert_int_eq(l.v[0], 1457);
    ck_assert_int_eq(l.v[l.n - 2], 1458);
    ck_decodes(t, &l, text, n);

    /* Inside the span the ids are those of the text with control tokens switched off. */
    ck_assert_int_eq(tokenizer_encode(t, text + from, to - from, false, NULL, 0, &plain, &e), 0);
    ck_assert_int_eq(count(&plain, 1457) + count(&plain, 1458), 0);
    bool found = false;
    for (size_t i = 0; i + plain.n <= l.n && plain.n; i++)
        found = found || !memcmp(l.v + i, plain.v, plain.n * sizeof *plain.v);
    ck_assert(found);
    token_list_clear(&l);

    /* One closed byte is enough. */
    for (size_t i = 0; i < 12; i++) {
        text_span one = {i, i + 1};
        ck_assert_int_eq(tokenizer_encode(t, "<|im_start|>", 12, true, &one, 1, &l, &e), 0);
        ck_assert_int_eq(count(&l, 1457), 0);
        token_list_clear(&l);
    }
    token_list_clear(&plain);
    tokenizer_free(t);
}
END_TEST

/* "e\u0301!" is a control token that is looked for after normalisation: the span must be followed
 * through NFC, which shortens the text before it. */
START_TEST(spans_survive_normalisation)
{
    tokenizer *t = open_source((tokenizer_source){.tokenizer_json = DATA "odd.json"});
    const char *text = "o\u0308o\u0308 e\u0301! o\u0308 \u00E9! x";
    const char *first = strstr(text, "e\u0301!"), *second = strstr(text, "\u00E9!");
    int32_t id = tokenizer_id(t, "\u00E9!");
    ck_assert_int_eq(id, -1); /* its own text is decomposed */
    id = tokenizer_id(t, "e\u0301!");
    ck_assert_int_ge(id, 0);
    for (int closed = 0; closed < 4; closed++) {
        text_span span[2];
        size_t n = 0;
        if (closed & 1) span[n++] = (text_span){(size_t)(first - text), (size_t)(first - text) + 1};
        if (closed & 2)
            span[n++] = (text_span){(size_t)(second - text) + 2, (size_t)(second - text) + 3};
        token_list l = {0};
        err e = {0};
        ck_assert_int_eq(tokenizer_encode(t, text, strlen(text), true, span, n, &l, &e), 0);
        ck_assert_int_eq(count(&l, id), 2 - (closed & 1) - (closed >> 1));
        token_list_clear(&l);
    }
    tokenizer_free(t);
}
END_TEST

START_TEST(invalid_bytes_become_replacements)
{
    static const struct {
        const char *bytes, *fixed;
    } c[] = {{"\xFFx", "\uFFFDx"},
             {"a\xE4\xBD", "a\uFFFD"},
             {"\xE4\xBD\xFF\xA0", "\uFFFD\uFFFD\uFFFD"},
             {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
             {"\xC3<|im_end|>\xC3", "\uFFFD<|im_end|>\uFFFD"}};
    tokenizer *t = open_qwen();
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        token_list got = encode(t, c[i].bytes, strlen(c[i].bytes), true);
        token_list want = encode(t, c[i].fixed, strlen(c[i].fixed), true);
        ck_assert_uint_eq(got.n, want.n);
        ck_assert_int_eq(memcmp(got.v, want.v, got.n * sizeof *got.v), 0);
        token_list_clear(&got);
        token_list_clear(&want);
    }
    /* Spans move along with the repaired text. */
    token_list l = {0};
    err e = {0};
    text_span span = {1, 11};
    ck_assert_int_eq(
        tokenizer_encode(t, "\xFF<|im_end|>\xFF<|im_end|>", 22, true, &span, 1, &l, &e), 0);
    ck_assert_int_eq(count(&l, 1458), 1);
    ck_assert_int_eq(l.v[l.n - 1], 1458);
    token_list_clear(&l);
    tokenizer_free(t);
}
END_TEST

/* ---- long inputs ---- */

static double encode_ms(const tokenizer *t, const char *unit, size_t times)
{
    buf text = {0};
    for (size_t i = 0; i < times; i++) buf_puts(&text, unit);
    int64_t start = clock_us();
    token_list l = encode(t, text.v, text.len, true);
    double ms = (double)(clock_us() - start) / 1e3;
    ck_assert_uint_gt(l.n, 0);
    token_list_clear(&l);
    buf_clear(&text);
    return ms;
}

/* K01: runs of one letter and of marks in the worst order.  The bound is loose because machines are
 * shared; quadratic work would exceed it a thousandfold. */
START_TEST(long_runs_are_linear)
{
    static const char *const unit[] = {"A", "\u00E9",       " ", "1",  "us",     "\n",
                                       "=", "\u0301\u0323", "<", "<|", "a\u0301"};
    tokenizer *t = open_qwen(),
              *odd = open_source((tokenizer_source){.tokenizer_json = DATA "odd.json"});
    for (size_t i = 0; i < sizeof unit / sizeof *unit; i++) {
        ck_assert_msg(encode_ms(t, unit[i], 400000) < 5000, "'%s'", unit[i]);
        ck_assert_msg(encode_ms(odd, unit[i], 400000) < 5000, "'%s'", unit[i]);
    }
    tokenizer_free(t);
    tokenizer_free(odd);
}
END_TEST

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

/* ---- files that must be refused ---- */

static char dir[64];

static void make_dir(void)
{
    snprintf(dir, sizeof dir, "/tmp/quern-tokenizer-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void drop_dir(void)
{
    static const char *const names[] = {"t.json", "c.json", "m.txt"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

static const char *put(const char *name, const char *text, size_t n)
{
    static char path[3][128];
    static int turn;
    char *p = path[turn++ % 3];
    err e = {0};
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    ck_assert_msg(file_write_atomic(p, text, n, &e) == 0, "%s", e.msg);
    return p;
}

/* Copy of a file with the first `from` replaced by `to`. */
static const char *edited(const char *file, const char *name, const char *from, const char *to)
{
    buf text = {0}, out = {0};
    err e = {0};
    ck_assert_int_eq(file_read(file, 1 << 20, &text, &e), 0);
    char *at = strstr(text.v, from);
    ck_assert_msg(at != NULL, "%s is not in %s", from, file);
    buf_put(&out, text.v, (size_t)(at - text.v));
    buf_puts(&out, to);
    buf_puts(&out, at + strlen(from));
    const char *path = put(name, out.v, out.len);
    buf_clear(&text);
    buf_clear(&out);
    return path;
}

static void refused(tokenizer_source s, const char *words)
{
    err e = {0};
    tokenizer *t = tokenizer_open(&s, &e);
    ck_assert_msg(t == NULL, "taken, but: %s", words);
    ck_assert_msg(strstr(e.msg, words) != NULL, "\"%s\" does not say \"%s\"", e.msg, words);
}

typedef struct {
    const char *from, *to, *words;
} edit;

/* Edits of qwen.json and what the refusal must say. */
static const edit json_edit[] = {
    {"\"type\": \"BPE\"", "\"type\": \"Unigram\"", "Unigram"},
    {"\"type\": \"NFC\"", "\"type\": \"NFKC\"", "NFKC"},
    {"\"dropout\": null", "\"dropout\": 0.1", "dropout"},
    {"\"byte_fallback\": false", "\"byte_fallback\": true", "byte_fallback"},
    {"\"behavior\": \"Isolated\"", "\"behavior\": \"Removed\"", "Isolated"},
    {"\"type\": \"Split\"", "\"type\": \"Metaspace\"", "Metaspace"},
    {"\"add_prefix_space\": false", "\"add_prefix_space\": true", "add_prefix_space"},
    {"\\\\p{L}+", "\\\\p{Han}+", "\\p{Han}"},
    {"\\\\p{L}+", "(", "does not compile"},
    {"\\\\p{L}+", "\\\\w+", "\\w"},
    {"\"\u0120the\"", "\"\u0120the\", \"x\"", "at byte"},
    {"\"id\": 1458", "\"id\": 1457", "1457"},
    {"\"id\": 1458", "\"id\": 5", "gives to another token"},
    {"\"id\": 1458", "\"id\": 99999999", "99999999"},
    {"\"id\": 1458", "\"id\": \"x\"", "small integer"},
    {"\"content\": \"<|im_end|>\"", "\"content\": \"\"", "0 bytes"},
    {"\"merges\": [\"", "\"merges\": [\"a b c\", \"", "two parts"},
    {"\"merges\": [\"", "\"merges\": [\"ab\", \"", "two parts"},
    {"\"merges\": [\"", "\"merges\": [\"zzzz z\", \"", "left part"},
    {"\"merges\": [\"", "\"merges\": [\"z zzzz\", \"", "right part"},
    {"\"merges\": [\"", "\"merges\": [\"z \\u0120\", \"", "result"},
    {"\"merges\": [\"", "\"merges\": [7, \"", "merge 0"},
    {"\"vocab\": {\"!\": 0", "\"vocab\": {\"!!!!!!\": 0", "0x21"},
    {"\"vocab\": {\"!\": 0", "\"vocab\": {\"!\": 1", "two tokens have id 1"},
    {"\"vocab\": {\"!\": 0", "\"vocab\": {\"!\": -1", "id -1"},
    {"\"vocab\": {\"!\": 0", "\"vocab\": {\"!\": 2097152", "2097152"},
    {"\"vocab\": {\"!\": 0", "\"vocab\": {\"!\": 0.5", "integer id"},
};
#define N_EDITS ((int)(sizeof json_edit / sizeof *json_edit))

START_TEST(bad_tokenizer_json)
{
    const edit *x = &json_edit[_i];
    refused(
        (tokenizer_source){.tokenizer_json = edited(DATA "qwen.json", "t.json", x->from, x->to)},
        x->words);
}
END_TEST

START_TEST(bad_other_files)
{
    refused((tokenizer_source){0}, "no vocabulary");
    refused((tokenizer_source){.vocab_json = DATA "qwen/vocab.json"}, "no vocabulary");
    refused((tokenizer_source){.tokenizer_json = "/nonexistent/t.json"}, "/nonexistent/t.json");
    refused((tokenizer_source){.tokenizer_json = put("t.json", "[]", 2)}, "object");
    refused((tokenizer_source){.tokenizer_json = put("t.json", "{}", 2)}, "model");
    refused((tokenizer_source){.tokenizer_json = put("t.json", "{\"model\":", 9)}, "at byte");
    refused((tokenizer_source){.vocab_json = DATA "qwen/vocab.json",
                               .merges = put("m.txt", "a b c\n", 6)},
            "merge 0");
    refused(
        (tokenizer_source){.vocab_json = DATA "qwen/vocab.json",
                           .merges = DATA "qwen/merges.txt",
                           .tokenizer_config = edited(DATA "qwen/tokenizer_config.json", "c.json",
                                                      "Qwen2Tokenizer", "LlamaTokenizer")},
        "LlamaTokenizer");
    refused((tokenizer_source){.tokenizer_json = DATA "qwen.json",
                               .tokenizer_config = edited(DATA "qwen/tokenizer_config.json",
                                                          "c.json", "\"1458\"", "\"x1458\"")},
            "small integer");
    refused((tokenizer_source){.tokenizer_json = DATA "qwen.json",
                               .tokenizer_config = edited(DATA "qwen/tokenizer_config.json",
                                                          "c.json", "\"1458\"", "\"1400\"")},
            "1400");
}
END_TEST

/* GGUF metadata edits of equal length keep the container valid. */
START_TEST(bad_gguf)
{
    static const edit e[] = {
        {"gpt2", "t5t5", "t5t5"},
        {"qwen35", "qwen99", "general"}, /* the first is general.architecture: no refusal */
        {"ggml.token_type", "ggml.token_tipe", "token_type"},
        {"ggml.merges", "ggml.merger", "merges"},
        {"ggml.tokens", "ggml.tokenz", "tokens"}};
    buf file = {0};
    err x = {0};
    ck_assert_int_eq(file_read(DATA "qwen35.gguf", 1 << 20, &file, &x), 0);
    for (size_t i = 0; i < sizeof e / sizeof *e; i++) {
        char *at = memmem(file.v, file.len, e[i].from, strlen(e[i].from));
        ck_assert_ptr_nonnull(at);
        memcpy(at, e[i].to, strlen(e[i].to));
        gguf *g = gguf_open_memory(file.v, file.len, &x);
        ck_assert_msg(g != NULL, "%s", x.msg);
        if (i == 1) {
            tokenizer_free(open_source((tokenizer_source){.gguf = g}));
            char *pre = memmem(at + 6, file.len - (size_t)(at + 6 - file.v), "qwen35", 6);
            memcpy(pre, "llama3", 6);
            refused((tokenizer_source){.gguf = g}, "llama3");
            memcpy(pre, "qwen35", 6);
        } else {
            refused((tokenizer_source){.gguf = g}, e[i].words);
        }
        gguf_close(g);
        memcpy(at, e[i].from, strlen(e[i].from));
    }
    buf_clear(&file);
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
    Suite *suite = suite_create("tokenizer");
    TCase *t = tcase_create("tokenizer");
    tcase_set_timeout(t, 120);
    tcase_add_unchecked_fixture(t, make_dir, drop_dir);
    tcase_add_test(t, golden_vocab_and_merges);
    tcase_add_test(t, golden_tokenizer_json);
    tcase_add_test(t, golden_gguf);
    tcase_add_test(t, demo_round_trip);
    tcase_add_test(t, threads_agree);
    tcase_add_test(t, lookups);
    tcase_add_test(t, spans_close_control_tokens);
    tcase_add_test(t, spans_survive_normalisation);
    tcase_add_test(t, invalid_bytes_become_replacements);
    tcase_add_test(t, long_runs_are_linear);
    tcase_add_test(t, merges_by_rank);
    tcase_add_loop_test(t, bad_tokenizer_json, 0, N_EDITS);
    tcase_add_test(t, bad_other_files);
    tcase_add_test(t, bad_gguf);
    tcase_add_test(t, expressions);
    tcase_add_test(t, nfc_cases);
    suite_add_tcase(suite, t);
    SRunner *run = srunner_create(suite);
    srunner_run_all(run, CK_NORMAL);
    int failed = srunner_ntests_failed(run);
    srunner_free(run);
    return failed ? 1 : 0;
}
