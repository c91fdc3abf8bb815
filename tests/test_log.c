/* test_log.c - the log and its writer: whole lines in order, a stderr that nobody reads, that is
 * gone, or that somebody made non-blocking.  Each test puts a pipe or a socket in stderr's place.
 */
#include "base/clock.h"
#include "base/log.h"

#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIPE_BYTES = 4096, MANY = 20000 };

static int own_stderr, out; /* out: where what was written can be read */
static unsigned long long before;
static bool as_json;

static void put_in_place(int fd)
{
    ck_assert_int_eq(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    close(fd);
}

static void use_pipe(void)
{
    int p[2];
    ck_assert_int_eq(pipe(p), 0);
    ck_assert_int_ge(fcntl(p[1], F_SETPIPE_SZ, PIPE_BYTES), PIPE_BYTES);
    out = p[0];
    put_in_place(p[1]);
}

static void set_up(void)
{
    err e = {0};
    signal(SIGPIPE, SIG_IGN);
    own_stderr = dup(STDERR_FILENO);
    before = log_dropped();
    use_pipe();
    log_init(LOG_INFO, false);
    ck_assert_msg(log_writer_start(&e) == 0, "%s", e.msg);
}

static void tear_down(void)
{
    log_writer_stop();
    put_in_place(own_stderr);
    close(out);
}

static void *read_all(void *v)
{
    char piece[1000];
    for (ssize_t n; (n = read(out, piece, sizeof piece)) > 0;) buf_put(v, piece, (size_t)n);
    return NULL;
}

/* The next line of a text, cut out of it; NULL at its end. */
static char *next_line(char **at)
{
    char *s = *at, *end = strchr(s, '\n');
    if (!*s) return NULL;
    ck_assert_msg(end != NULL, "no whole line: %s", s);
    *end = 0;
    *at = end + 1;
    return s;
}

/* Ends the writer and gives everything that came out. */
static char *all_of(buf *text)
{
    pthread_t th;
    pthread_create(&th, NULL, read_all, text);
    for (int i = 0; i < 30; i++) log_writer_stop(); /* on a busy machine once is not enough */
    close(STDERR_FILENO);
    pthread_join(th, NULL);
    ck_assert(buf_ok(text) && text->len);
    return text->v;
}

static void *say_many(void *v)
{
    for (int i = 0; i < 300; i++) log_info("%s %d", (const char *)v, i);
    return NULL;
}

/* One write a line: a socket that keeps writes apart gives each line alone. */
START_TEST(whole_lines)
{
    static char name[4][2] = {"a", "b", "c", "d"};
    int pair[2], next[4] = {0};
    char got[200], want[20];
    pthread_t th[4];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    close(out);
    out = pair[0];
    put_in_place(pair[1]);
    for (int i = 0; i < 4; i++) pthread_create(&th[i], NULL, say_many, name[i]);
    for (int i = 0; i < 4 * 300; i++) {
        ssize_t n = read(out, got, sizeof got);
        int who = got[0] - 'a';
        ck_assert(n > 0 && who >= 0 && who < 4);
        int len = snprintf(want, sizeof want, "%c %d\n", 'a' + who, next[who]++);
        ck_assert_msg(n == len && !memcmp(got, want, (size_t)len), "%.*s", (int)n, got);
    }
    for (int i = 0; i < 4; i++) pthread_join(th[i], NULL);
    log_warn("mind");
    log_writer_stop();
    log_failure("the end"); /* written at once */
    ck_assert(read(out, got, sizeof got) == 11 && !memcmp(got, "warn: mind\n", 11));
    ck_assert(recv(out, got, sizeof got, MSG_DONTWAIT) == 15 &&
              !memcmp(got, "quern: the end\n", 15));
    ck_assert_uint_eq(log_dropped(), before);
}
END_TEST

/* Follows numbered lines: the number behind the line s, which is told to be missing or is there. */
static int follow(const char *s, int next, unsigned long long *told)
{
    unsigned long long n = 0;
    const char *gap = strstr(s, as_json ? "\"dropped\":" : "warn: ");
    const char *number = strstr(s, "line ");
    if (gap) {
        ck_assert(sscanf(gap, as_json ? "\"dropped\":%llu}" : "warn: %llu log line", &n) == 1);
        ck_assert(!as_json || strstr(s, "\"level\":\"warn\""));
        *told += n;
        return next + (int)n;
    }
    ck_assert_msg(number && atoi(number + 5) == next, "%s in place of %d", s, next);
    return next + 1;
}

/* Nobody waits for a full pipe; what is missing is told where it is missing. */
static void overflow(bool json)
{
    buf text = {0};
    char piece[1000], *s;
    unsigned long long told = 0;
    int next = 0;
    as_json = json;
    log_init(LOG_INFO, json);
    for (int k = 0; k < MANY; k++) log_info("line %d", k);
    unsigned long long lost = log_dropped() - before;
    ck_assert_uint_gt(lost, 0);
    ck_assert_uint_lt(lost, MANY);
    while (text.len < 20000) { /* then there is room again */
        ssize_t n = read(out, piece, sizeof piece);
        ck_assert_int_gt(n, 0);
        buf_put(&text, piece, (size_t)n);
    }
    for (int k = MANY; k < MANY + 5; k++) log_info("line %d", k);
    ck_assert_uint_eq(log_dropped() - before, lost);
    char *at = all_of(&text);
    while ((s = next_line(&at))) {
        ck_assert(!json || (!strncmp(s, "{\"time\":\"", 9) && s[strlen(s) - 1] == '}'));
        next = follow(s, next, &told);
    }
    ck_assert_int_eq(next, MANY + 5);
    ck_assert_uint_eq(told, lost);
    buf_clear(&text);
}

START_TEST(nobody_reads)
{
    overflow(false);
}
END_TEST

START_TEST(nobody_reads_json)
{
    overflow(true);
}
END_TEST

/* The end of the process waits a bounded time for a reader, and loses nothing if one comes. */
START_TEST(stuck_at_the_end)
{
    buf text = {0};
    for (int k = 0; k < 2000; k++) log_info("line %d", k);
    int64_t t0 = clock_us();
    log_writer_stop();
    ck_assert_int_ge(clock_us() - t0, LOG_FLUSH_MS * 900LL);
    log_info("line 2000"); /* still waits for nobody */
    char *at = all_of(&text), *s, want[40];
    for (int i = 0; i <= 2000; i++) {
        snprintf(want, sizeof want, "line %d", i);
        ck_assert((s = next_line(&at)) != NULL);
        ck_assert_str_eq(s, want);
    }
    ck_assert_uint_eq(log_dropped(), before);
    buf_clear(&text);
}
END_TEST

/* Whoever shares stderr may have made it non-blocking. */
START_TEST(non_blocking)
{
    buf text = {0};
    ck_assert_int_eq(fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK), 0);
    for (int k = 0; k < 2000; k++) log_info("line %d", k);
    char *at = all_of(&text), *s, want[40];
    for (int i = 0; i < 2000; i++) {
        snprintf(want, sizeof want, "line %d", i);
        ck_assert((s = next_line(&at)) != NULL);
        ck_assert_str_eq(s, want);
    }
    ck_assert(!next_line(&at));
    buf_clear(&text);
}
END_TEST

/* What cannot be written is counted, and told once it can be again. */
START_TEST(gone_and_back)
{
    buf text = {0};
    close(out);
    log_info("for nobody");
    while (log_dropped() == before) usleep(1000);
    ck_assert_uint_eq(log_dropped(), before + 1);
    use_pipe();
    log_info("heard");
    char *at = all_of(&text);
    ck_assert_str_eq(next_line(&at),
                     "warn: 1 log line is missing here: stderr was full or could not be written");
    ck_assert_str_eq(next_line(&at), "heard");
    ck_assert(!next_line(&at));
    buf_clear(&text);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("log");
    TCase *t = tcase_create("log");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, whole_lines);
    tcase_add_test(t, nobody_reads);
    tcase_add_test(t, nobody_reads_json);
    tcase_add_test(t, stuck_at_the_end);
    tcase_add_test(t, non_blocking);
    tcase_add_test(t, gone_and_back);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
