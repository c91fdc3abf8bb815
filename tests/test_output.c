/* test_output.c - the output machine against a plain whole-text model, over random cuts into
 * tokens. The two tokenizer calls it needs are defined here over a table of byte strings. */
#include "engine/text/output.h"

#include "base/utf8.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* ---- a tokenizer that is a table ---- */

typedef struct {
    const char *s;
    size_t n;
    bool special;
} piece;

static piece *table;
static int n_table;

const char *tokenizer_piece(const tokenizer *t, int32_t id, size_t *n)
{
    (void)t;
    if (id < 0 || id >= n_table) return NULL;
    *n = table[id].n;
    return table[id].s;
}

bool tokenizer_is_special(const tokenizer *t, int32_t id)
{
    (void)t;
    return id >= 0 && id < n_table && table[id].special;
}

/* ---- the model: everything at once ---- */

typedef struct {
    buf content, reasoning;
    int stop;
} result;

static void result_clear(result *r)
{
    buf_clear(&r->content);
    buf_clear(&r->reasoning);
}

static int take(result *r, said *s, int fired)
{
    ck_assert(said_ok(s));
    said_copy(s, SAID_ANSWER, &r->content);
    said_copy(s, SAID_THOUGHT, &r->reasoning);
    said_clear(s);
    return fired;
}

static int feed(output *m, int32_t id, bool stops_on, result *r)
{
    said s = {0};
    int fired = output_feed(m, id, stops_on, &s, NULL);
    return take(r, &s, fired);
}

static int finish(output *m, result *r)
{
    said s = {0};
    int fired = output_end(m, &s);
    return take(r, &s, fired);
}

/* Python's bytes.decode(errors="replace"). */
static void decode(const char *s, size_t n, buf *out)
{
    for (size_t i = 0; i < n;) {
        int k = utf8_valid_at(s + i, n - i);
        buf_put(out, k > 0 ? s + i : "\xEF\xBF\xBD", k > 0 ? (size_t)k : 3);
        i += k > 0 ? (size_t)k : utf8_bad_run(s + i, n - i);
    }
}

static bool white(char c)
{
    return c && strchr(" \t\n\v\f\r", c);
}

static size_t skip_white(const char *s, size_t i, size_t n)
{
    while (i < n && white(s[i])) i++;
    return i;
}

/* First place at or after i where tag begins, n if none. */
static size_t find(const char *s, size_t i, size_t n, const char *tag)
{
    size_t k = strlen(tag);
    for (; i + k <= n; i++)
        if (!memcmp(s + i, tag, k)) return i;
    return n;
}

/* Leftmost, then longest stop string of s[n]. */
static int find_stop(const output_options *o, const char *s, size_t n, size_t *at)
{
    for (size_t i = 0; i < n; i++) {
        int best = -1;
        for (int k = 0; k < o->n_stop; k++)
            if (i + o->stop_len[k] <= n && !memcmp(s + i, o->stop[k], o->stop_len[k]) &&
                (best < 0 || o->stop_len[k] > o->stop_len[best]))
                best = k;
        if (best < 0) continue;
        *at = i;
        return best;
    }
    return -1;
}

static result model(const output_options *o, const char *bytes, size_t n_bytes)
{
    result r = {.stop = -1};
    buf text = {0};
    decode(bytes, n_bytes, &text);
    const char *s = buf_str(&text);
    size_t n = text.len, i = 0, at;
    bool open = o->think == THINK_PROMPT_OPEN || o->think == THINK_PROMPT_TEXT;
    bool lead = o->think != THINK_PROMPT_TEXT;
    if (o->think == THINK_MODEL_OPENS) {
        size_t k = skip_white(s, 0, n);
        open = n - k >= 7 && !memcmp(s + k, "<think>", 7);
        if (open) i = k + 7;
    }
    if (open) {
        if (lead) i = skip_white(s, i, n);
        size_t end = find(s, i, n, "</think>"), cut = end;
        while (end < n && cut > i && white(s[cut - 1])) cut--;
        if (o->place != THOUGHT_INLINE) buf_put(&r.reasoning, s + i, cut - i);
        i = end < n ? skip_white(s, end + 8, n) : n;
        if (o->place != THOUGHT_APART) buf_put(&r.content, s, i);
    }
    r.stop = find_stop(o, s + i, n - i, &at);
    size_t len = r.stop < 0 ? n - i : at + (o->include_stop ? o->stop_len[r.stop] : 0);
    buf_put(&r.content, s + i, len);
    buf_clear(&text);
    return r;
}

/* ---- the machine over a cut ---- */

/* Feeds tokens 0..n_table - 1; checks that every delta is UTF-8 and kinds never change once final.
 */
static result machine(const output_options *o)
{
    result r = {.stop = -1};
    output *m = output_new(o);
    ck_assert_ptr_nonnull(m);
    unsigned char *seen = malloc((size_t)n_table + 1);
    size_t n_seen = 0;
    for (int i = 0; i <= n_table; i++) {
        size_t c = r.content.len, t = r.reasoning.len;
        if (i < n_table) r.stop = feed(m, i, true, &r);
        else r.stop = finish(m, &r);
        ck_assert(utf8_valid(buf_str(&r.content) + c, r.content.len - c));
        ck_assert(utf8_valid(buf_str(&r.reasoning) + t, r.reasoning.len - t));
        const unsigned char *kinds;
        size_t n = output_kinds(m, &kinds);
        ck_assert_uint_ge(n, n_seen);
        ck_assert_int_eq(memcmp(kinds, seen, n_seen), 0);
        memcpy(seen, kinds, n);
        n_seen = n;
    }
    ck_assert_uint_eq(n_seen, (size_t)n_table);
    free(seen);
    output_free(m);
    return r;
}

static void check_equal(const result *got, const result *want)
{
    ck_assert_int_eq(got->stop, want->stop);
    ck_assert_uint_eq(got->content.len, want->content.len);
    ck_assert_int_eq(memcmp(buf_str(&got->content), buf_str(&want->content), want->content.len), 0);
    ck_assert_uint_eq(got->reasoning.len, want->reasoning.len);
    ck_assert_int_eq(
        memcmp(buf_str(&got->reasoning), buf_str(&want->reasoning), want->reasoning.len), 0);
}

static uint64_t seed;
static uint32_t roll(uint32_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

/* Cuts s[n] into random tokens of up to `most` bytes; 0 = one token. */
static void cut(const char *s, size_t n, uint32_t most)
{
    n_table = 0;
    for (size_t i = 0; i < n;) {
        size_t k = most ? 1 + roll(most) : n;
        if (k > n - i) k = n - i;
        table[n_table++] = (piece){s + i, k, false};
        i += k;
    }
}

static const char *const words[] = {
    "<think>",
    "</think>",
    "<",
    "</",
    "think>",
    ">",
    "<thi",
    "</thin",
    " ",
    "\n",
    "\n\n",
    "\t",
    "a",
    "b",
    "ab",
    "aab",
    "aaa",
    "fox",
    "brown fox",
    "brown fox j",
    "own fo",
    "\xC3\xA9",
    "\xE4\xBD\xA0",
    "\xF0\x9F\x98\x80",
    "\xF0\x9F",
    "\xE4",
    "\xFF",
    "\xC3",
    "\xED\xA0\x80",
    "\xEF\xBF\xBD",
    "\xE3\x80\x80",
    "STOP",
    "ST",
    "OP",
};
#define N_WORDS (sizeof words / sizeof *words)

static const char *const stops[] = {
    "fox",
    "brown fox j",
    "own fo",
    "aab",
    "ab",
    "aaa",
    "STOP",
    "\n\n",
    "\xC3\xA9",
    "\xEF\xBF\xBD",
    "</think>",
    "a",
    "\xE4\xBD\xA0\xF0\x9F\x98\x80",
    "b<",
    " ",
};
#define N_STOPS (sizeof stops / sizeof *stops)

START_TEST(any_cut_gives_the_same)
{
    seed = 7;
    for (int round = 0; round < 4000; round++) {
        buf text = {0};
        for (uint32_t k = roll(14); k; k--) buf_puts(&text, words[roll(N_WORDS)]);
        const char *stop[4];
        size_t stop_len[4];
        output_options o = {.think = (think_mode)roll(4),
                            .place = (thought_place)roll(3),
                            .stop = stop,
                            .stop_len = stop_len,
                            .include_stop = roll(2)};
        for (o.n_stop = 0; o.n_stop < (int)(round % 5); o.n_stop++) {
            stop[o.n_stop] = stops[roll(N_STOPS)];
            stop_len[o.n_stop] = strlen(stop[o.n_stop]);
            for (int k = 0; k < o.n_stop; k++) /* of two equal ones either may be named */
                if (!strcmp(stop[k], stop[o.n_stop])) o.n_stop--;
            if (round % 7 == 0 && o.n_stop > 1) break;
            if (roll(3) == 0) break;
        }
        result want = model(&o, buf_str(&text), text.len);
        for (uint32_t most = 0; most < 4; most++) {
            cut(buf_str(&text), text.len, most);
            result got = machine(&o);
            check_equal(&got, &want);
            result_clear(&got);
        }
        result_clear(&want);
        buf_clear(&text);
    }
}
END_TEST

/* ---- named cases ---- */

typedef struct {
    think_mode think;
    const char *text; /* tokens separated by | */
    const char *stop; /* or NULL */
    const char *content, *reasoning;
    const char *kinds; /* A, R, M a token */
    int reasoning_tokens;
    bool fires;
} named;

static const named cases[] = {
    /* API 8, the rows without tools */
    {THINK_PROMPT_OPEN, "a|\n|</think>|\n\n|hi", NULL, "hi", "a", "RRMAA", 3, false},
    {THINK_PROMPT_OPEN, "a| b", NULL, "", "a b", "RR", 2, false},
    {THINK_MODEL_OPENS, "<think>|\n|a|\n|</think>|\n\n|hi|\n", NULL, "hi\n", "a", "MRRRMAAA", 5,
     false},
    {THINK_MODEL_OPENS, "use| `|<tool_call>|` tags", NULL, "use `<tool_call>` tags", "", "AAAA", 0,
     false},
    /* stop strings over borders (K26), only in the answer (K27) */
    {THINK_NONE, "The| quick| brown| fox| jumps", "own fo", "The quick br", "", "AAAAA", 0, true},
    {THINK_MODEL_OPENS, "<think>|one| STOP| two|</think>|three| STOP| four", "STOP", "three ",
     "one STOP two", "MRRRMAAA", 5, true},
    {THINK_PROMPT_OPEN, "x|</think>|\n\n|y", "\n\n", "y", "x", "RMAA", 2, false},
    /* reading of the tags */
    {THINK_MODEL_OPENS, " |\n|<think>|a|</think>|b", NULL, "b", "a", "MMMRMA", 3, false},
    {THINK_MODEL_OPENS, " |\n|b", NULL, " \nb", "", "AAA", 0, false},
    {THINK_MODEL_OPENS, "\n\n", "\n", "", "", "A", 0, true},
    {THINK_MODEL_OPENS, "b|<think>|c|</think>", NULL, "b<think>c</think>", "", "AAAA", 0, false},
    {THINK_MODEL_OPENS, "<think>|</think>|a|</think>|b", NULL, "a</think>b", "", "MMAAA", 2, false},
    {THINK_MODEL_OPENS, "<think>|<think>|a|</think>|b", NULL, "b", "<think>a", "MRRMA", 4, false},
    {THINK_MODEL_OPENS, "<th|ink|>a|.</|think|>\n\n|b", NULL, "b", "a.", "MMRRMMA", 6, false},
    {THINK_MODEL_OPENS, "<th|at|>", NULL, "<that>", "", "AAA", 0, false},
    {THINK_PROMPT_OPEN, "a|</|th|e", NULL, "", "a</the", "RRRR", 4, false},
    {THINK_PROMPT_OPEN, "a|</|<|/think>|b", NULL, "b", "a</", "RRMMA", 4, false},
    {THINK_PROMPT_OPEN, " a \n", NULL, "", "a \n", "R", 1, false},
    {THINK_PROMPT_TEXT, " a|</think>", NULL, "", " a", "RM", 2, false},
    {THINK_NONE, "<think>|a|</think>", NULL, "<think>a</think>", "", "AAA", 0, false},
    {THINK_PROMPT_OPEN, "a|</think>|\xE3\x80\x80x", NULL, "\xE3\x80\x80x", "a", "RMA", 2, false},
};
#define N_CASES ((int)(sizeof cases / sizeof *cases))
/* R6: thoughts told as they are written, but counted and without stops all the same; and both ways.
 */
static const named inline_cases[] = {
    {THINK_PROMPT_OPEN, "\n|a|\n|</think>|\n\n|b|c", "\n", "\na\n</think>\n\nbc", "", "AAAAAAA", 4,
     false},
    {THINK_MODEL_OPENS, " |<think>|a STOP|</th|ink>b|STOP|c", "STOP", " <think>a STOP</think>b", "",
     "AAAAAAA", 4, true},
    {THINK_MODEL_OPENS, "<th|at|>\n", NULL, "<that>\n", "", "AAA", 0, false},
    {THINK_PROMPT_OPEN, "a|</|th", NULL, "a</th", "", "AAA", 3, false},
    {THINK_PROMPT_OPEN, "a|</think>|\n", NULL, "a</think>\n", "", "AAA", 2, false},
};
#define N_INLINE_CASES ((int)(sizeof inline_cases / sizeof *inline_cases))
static const named both_cases[] = {
    {THINK_MODEL_OPENS, " |<think>\n|a b|\n|</think>|\n\n|c", NULL, " <think>\na b\n</think>\n\nc",
     "a b", "AAAAAAA", 4, false},
    {THINK_PROMPT_OPEN, "\n|a</|th|\n", NULL, "\na</th\n", "a</th\n", "AAAA", 4, false},
};
#define N_BOTH_CASES ((int)(sizeof both_cases / sizeof *both_cases))

/* Splits at bars, whose bytes stay in place between the tokens. */
static void cut_bars(const char *s)
{
    n_table = 0;
    for (const char *end = s + strlen(s); s <= end;) {
        const char *bar = strchr(s, '|');
        if (!bar) bar = end;
        table[n_table++] = (piece){s, (size_t)(bar - s), false};
        s = bar + 1;
    }
}

static void check_case(const named *c, thought_place place)
{
    size_t len = c->stop ? strlen(c->stop) : 0;
    output_options o = {.think = c->think,
                        .place = place,
                        .stop = &c->stop,
                        .stop_len = &len,
                        .n_stop = c->stop != NULL};
    cut_bars(c->text);
    output *m = output_new(&o);
    result r = {0};
    for (int i = 0; i < n_table; i++) feed(m, i, true, &r);
    int fired = finish(m, &r);
    ck_assert_str_eq(buf_str(&r.content), c->content);
    ck_assert_str_eq(buf_str(&r.reasoning), c->reasoning);
    ck_assert_int_eq(fired, c->fires ? 0 : -1);
    ck_assert_int_eq(output_reasoning_tokens(m), c->reasoning_tokens);
    const unsigned char *kinds;
    ck_assert_uint_eq(output_kinds(m, &kinds), strlen(c->kinds));
    for (int i = 0; i < n_table; i++) ck_assert_int_eq("ARM"[kinds[i]], c -> kinds[i]);
    result_clear(&r);
    output_free(m);
}

START_TEST(named_cases)
{
    check_case(&cases[_i], THOUGHT_APART);
}
END_TEST

START_TEST(thoughts_are_told_as_they_are_written)
{
    check_case(&inline_cases[_i], THOUGHT_INLINE);
}
END_TEST

START_TEST(thoughts_are_told_twice)
{
    check_case(&both_cases[_i], THOUGHT_BOTH);
}
END_TEST

START_TEST(earliest_then_longest)
{
    static const char *const s[] = {"fox", "brown fox j", "fo"};
    static const size_t n[] = {3, 11, 2};
    output_options o = {.stop = s, .stop_len = n, .n_stop = 3};
    result r = {0};
    output *m = output_new(&o);
    cut_bars("The| brown| fo|x| jumps");
    int fired = -1, fed = 0;
    while (fired < 0 && fed < n_table) fired = feed(m, fed++, true, &r);
    ck_assert_int_eq(fired, 1);
    ck_assert_str_eq(buf_str(&r.content), "The ");
    ck_assert_int_eq(finish(m, &r), 1);
    ck_assert_str_eq(buf_str(&r.content), "The ");
    output_free(m);
    result_clear(&r);

    /* The longer one does not come: the end decides for the shorter. */
    m = output_new(&o);
    cut_bars("The| brown| fo|x");
    for (int i = 0; i < n_table; i++) ck_assert_int_eq(feed(m, i, true, &r), -1);
    ck_assert_str_eq(buf_str(&r.content), "The ");
    ck_assert_int_eq(finish(m, &r), 0);
    ck_assert_str_eq(buf_str(&r.content), "The brown ");
    output_free(m);
    result_clear(&r);
}
END_TEST

START_TEST(min_tokens_keeps_stops_quiet)
{
    const char *s = "ab";
    size_t n = 2;
    output_options o = {.stop = &s, .stop_len = &n, .n_stop = 1};
    result r = {0};
    output *m = output_new(&o);
    cut_bars("xab|a|b|y");
    ck_assert_int_eq(feed(m, 0, false, &r), -1);
    ck_assert_int_eq(feed(m, 1, false, &r), -1);
    ck_assert_int_eq(feed(m, 2, true, &r), 0);
    ck_assert_int_eq(feed(m, 3, true, &r), 0);
    ck_assert_str_eq(buf_str(&r.content), "xab");
    output_free(m);
    result_clear(&r);
}
END_TEST

START_TEST(control_tokens_are_skipped)
{
    for (int keep = 0; keep < 2; keep++) {
        output_options o = {.think = THINK_MODEL_OPENS, .keep_special = keep};
        result r = {0};
        output *m = output_new(&o);
        cut_bars("<think>|a|</think>|<ctl>|b|\xE4|\xBD|<ctl>|\xA0");
        table[0].special = table[2].special = table[3].special = table[7].special = true;
        for (int i = 0; i < n_table; i++) feed(m, i, true, &r);
        finish(m, &r);
        ck_assert_str_eq(buf_str(&r.reasoning), "a");
        ck_assert_str_eq(buf_str(&r.content),
                         keep ? "<ctl>b\xEF\xBF\xBD<ctl>\xEF\xBF\xBD" : "b\xE4\xBD\xA0");
        output_free(m);
        result_clear(&r);
    }
}
END_TEST

/* 64 KiB that forever almost match sixteen long stop strings; quadratic work would take minutes. */
START_TEST(almost_matches_are_linear)
{
    enum { N = 65536, LEN = 1024 };
    static char text[N], stop_text[16][LEN];
    const char *s[16];
    size_t n[16];
    memset(text, 'a', N);
    for (int i = 0; i < 16; i++) {
        memset(stop_text[i], 'a', LEN);
        stop_text[i][LEN - 1 - i] = 'b';
        s[i] = stop_text[i];
        n[i] = LEN;
    }
    output_options o = {.stop = s, .stop_len = n, .n_stop = 16};
    result r = {0};
    output *m = output_new(&o);
    table[0] = (piece){text, 1, false};
    n_table = 1;
    for (int i = 0; i < N; i++) ck_assert_int_eq(feed(m, 0, true, &r), -1);
    ck_assert_uint_gt(r.content.len, N - LEN);
    ck_assert_int_eq(finish(m, &r), -1);
    ck_assert_uint_eq(r.content.len, N);
    output_free(m);
    result_clear(&r);
}
END_TEST

int main(void)
{
    table = calloc(1 << 16, sizeof *table);
    Suite *suite = suite_create("output");
    TCase *t = tcase_create("output");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, any_cut_gives_the_same);
    tcase_add_loop_test(t, named_cases, 0, N_CASES);
    tcase_add_loop_test(t, thoughts_are_told_as_they_are_written, 0, N_INLINE_CASES);
    tcase_add_loop_test(t, thoughts_are_told_twice, 0, N_BOTH_CASES);
    tcase_add_test(t, earliest_then_longest);
    tcase_add_test(t, min_tokens_keeps_stops_quiet);
    tcase_add_test(t, control_tokens_are_skipped);
    tcase_add_test(t, almost_matches_are_linear);
    suite_add_tcase(suite, t);
    SRunner *run = srunner_create(suite);
    srunner_run_all(run, CK_NORMAL);
    int failed = srunner_ntests_failed(run);
    srunner_free(run);
    free(table);
    return failed ? 1 : 0;
}
