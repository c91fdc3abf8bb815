/* Dropping the oldest turns of a chat (API G7): which go, how many, and what is left alone. */
#include "server/routes.h"
#include "server/turns.h"
#include "tests/fake_http.h"

#include <check.h>

/* Keeps the handlers of the route table out of this binary. */
dialect route_dialect(const char *path, bool anthropic)
{
    (void)path, (void)anthropic;
    return DIALECT_OPENAI;
}

static int n_tries;
static char shown[4096];

/* A message's tokens are the bytes of its content. */
static int64_t size_of(const json *list)
{
    int64_t n = 0;
    for (const json *m = list->child; m; m = m->next) n += (int64_t)json_get(m, "content")->len;
    return n;
}

static bool encode(reader *r, void *ctx, token_list *out)
{
    (void)ctx;
    n_tries++;
    shown[0] = 0;
    for (const json *m = r->kept->child; m; m = m->next)
        strncat(shown, json_get(m, "content")->str, sizeof shown - strlen(shown) - 1);
    for (int64_t i = size_of(r->kept); i > 0; i--)
        if (!token_list_push(out, (int32_t)shown[0])) return false;
    return true;
}

/* Words "u:text" as the messages they name: system, developer, user, assistant, tool. */
static void write_talk(const char *words, buf *out)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    buf_puts(out, "{\"messages\":[");
    for (const char *w = words; *w; w += strcspn(w, " "), w += *w == ' ') {
        int k = 0;
        while (roles[k][0] != *w) k++;
        buf_printf(out, "%s{\"role\":\"%s\",\"content\":\"%.*s\"}", w > words ? "," : "", roles[k],
                   (int)strcspn(w + 2, " "), w + 2);
    }
    buf_puts(out, "]}");
}

/* Fits a talk; ids: how many tokens are left, header: what was said. */
static bool fit(const char *words, int64_t room, int64_t want, size_t *ids, char header[64])
{
    http_call c = {0};
    reader r = {.call = &c};
    err e = {0};
    token_list out = {0};
    buf text = {0};
    write_talk(words, &text);
    json_doc *d = json_parse(text.v, text.len, NULL, &r.body, &e);
    ck_assert_ptr_nonnull(d);
    n_tries = 0;
    for (int64_t i = size_of(json_get(r.body, "messages")); i > 0; i--)
        ck_assert(token_list_push(&out, 1));
    bool ok = turns_fit(&r, room, want, encode, NULL, &out);
    snprintf(header, 64, "%s", buf_str(&c.headers));
    *ids = out.n;
    ck_assert_ptr_null(r.kept);
    token_list_clear(&out);
    json_free(d);
    buf_clear(&text);
    fake_call_clear(&c);
    return ok;
}

static const char talk[] = "s:sys. u:aaaa a:bbbb u:cccc a:dd t:t1 t:t2 d:dev. u:eeee";

START_TEST(nothing_goes_from_what_fits)
{
    size_t n;
    char h[64];
    ck_assert(fit(talk, 30, 30, &n, h));
    ck_assert_uint_eq(n, 30);
    ck_assert_str_eq(h, "");
    ck_assert_int_eq(n_tries, 0);
}
END_TEST

START_TEST(oldest_turns_go_whole)
{
    static const struct {
        int64_t room;
        const char *left, *header;
    } rows[] = {{29, "sys.bbbbccccddt1t2dev.eeee", "x-quern-truncated: 1\n"},
                {25, "sys.ccccddt1t2dev.eeee", "x-quern-truncated: 2\n"},
                {21, "sys.ddt1t2dev.eeee", "x-quern-truncated: 3\n"},
                {17, "sys.dev.eeee", "x-quern-truncated: 6\n"},
                {12, "sys.dev.eeee", "x-quern-truncated: 6\n"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n;
        char h[64];
        ck_assert(fit(talk, rows[i].room, rows[i].room, &n, h));
        ck_assert_uint_eq(n, strlen(rows[i].left));
        ck_assert_str_eq(h, rows[i].header);
    }
}
END_TEST

START_TEST(what_cannot_fit_is_left_at_its_shortest)
{
    size_t n;
    char h[64];
    ck_assert(fit(talk, 11, 11, &n, h));
    ck_assert_uint_eq(n, 12);
    ck_assert_str_eq(h, "");
    ck_assert(fit("u:long", 3, 3, &n, h));
    ck_assert_uint_eq(n, 4);
    ck_assert_int_eq(n_tries, 0);
}
END_TEST

START_TEST(room_for_the_answer_is_a_wish)
{
    size_t n;
    char h[64];
    ck_assert(fit(talk, 29, 14, &n, h)); /* some turns more than needed */
    ck_assert_uint_eq(n, 12);
    ck_assert(fit(talk, 29, 4, &n, h)); /* all of them do not give it */
    ck_assert_uint_eq(n, 12);
    ck_assert_str_eq(h, "x-quern-truncated: 6\n");
}
END_TEST

START_TEST(a_loop_of_calls_keeps_its_question_and_its_last_turn)
{
    const char *loop = "u:q a:a1 t:r1 a:a2 t:r2 a:a3 t:r3";
    size_t n;
    char h[64];
    ck_assert(fit(loop, 9, 9, &n, h));
    ck_assert_uint_eq(n, 9);
    ck_assert_str_eq(shown, "qa2r2a3r3");
    ck_assert(fit(loop, 8, 8, &n, h));
    ck_assert_str_eq(h, "x-quern-truncated: 4\n");
    ck_assert_uint_eq(n, 5);
}
END_TEST

START_TEST(many_turns_take_few_tries)
{
    buf b = {0};
    for (int i = 0; i < 5000; i++) buf_puts(&b, "u:xxxxxxxx ");
    size_t n;
    char h[64];
    ck_assert(fit(b.v, 803, 803, &n, h));
    ck_assert_uint_eq(n, 800);
    ck_assert_str_eq(h, "x-quern-truncated: 4900\n");
    ck_assert_int_le(n_tries, 14);
    buf_clear(&b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("turns");
    TCase *t = tcase_create("dropping");
    tcase_add_test(t, nothing_goes_from_what_fits);
    tcase_add_test(t, oldest_turns_go_whole);
    tcase_add_test(t, what_cannot_fit_is_left_at_its_shortest);
    tcase_add_test(t, room_for_the_answer_is_a_wish);
    tcase_add_test(t, a_loop_of_calls_keeps_its_question_and_its_last_turn);
    tcase_add_test(t, many_turns_take_few_tries);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
