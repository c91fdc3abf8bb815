/* test_gate.c - what is decided from the headers alone: framing, hosts, origins, keys, paths; and
 * when a body is late, by a given clock. */
#include "server/gate.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const char *name, *value;
} pair;

/* A request with the given fields; Host: localhost unless one of them is "Host". */
static gate_request make(gate_field *f, const char *method, const char *target, const char *version,
                         const pair *v)
{
    gate_request r = {.method = method, .target = target, .version = version, .field = f};
    bool host = false;
    for (; v && v->name; v++) {
        host |= !strcmp(v->name, "Host");
        f[r.n_field++] = (gate_field){v->name, v->value, strlen(v->name), strlen(v->value)};
    }
    if (!host) f[r.n_field++] = (gate_field){"Host", "localhost", 4, 9};
    return r;
}

static int frame(const char *method, const char *target, const char *version, const pair *v,
                 gate_pass *p)
{
    gate_field f[16];
    gate_fault fault = {0};
    gate_request r = make(f, method, target, version, v);
    *p = (gate_pass){0};
    gate_frame(&r, p, &fault);
    ck_assert(!fault.status || (fault.close && fault.msg[0] && fault.code));
    return fault.status;
}

START_TEST(framing)
{
    gate_pass p;
    static const struct {
        pair v[3];
        int want;
    } one[] = {
        {{{0}}, 0},
        {{{"Content-Length", "12"}}, 0},
        {{{"Transfer-Encoding", "chunked"}}, 0},
        {{{"Transfer-Encoding", "CHUNKED"}}, 0},
        {{{"Content-Length", "12"}, {"Transfer-Encoding", "chunked"}}, 400},
        {{{"Content-Length", "12"}, {"content-length", "12"}}, 400},
        {{{"Content-Length", ""}}, 400},
        {{{"Content-Length", "1 2"}}, 400},
        {{{"Content-Length", "0x12"}}, 400},
        {{{"Content-Length", "9999999999999999999"}}, 400},
        {{{"Transfer-Encoding", "identity"}}, 501},
        {{{"Host", "a"}, {"Host", "a"}}, 400},
        {{{"Expect", "100-Continue"}}, 0},
        {{{"Expect", "tea"}}, 417},
        {{{"Bad Name", "x"}}, 400},
        {{{"", "x"}}, 400},
        {{{"X", "a\001b"}}, 400},
        {{{"X", "a\tb"}}, 0},
    };
    for (size_t i = 0; i < sizeof one / sizeof *one; i++)
        ck_assert_int_eq(frame("GET", "/", "HTTP/1.1", one[i].v, &p), one[i].want);
    ck_assert_int_eq(frame("GET", "/", "HTTP/2.0", NULL, &p), 505);
    ck_assert_int_eq(frame("get", "/", "HTTP/1.1", NULL, &p), 501);
    ck_assert_int_eq(frame("GET", "/a\x80", "HTTP/1.1", NULL, &p), 400);
    char *target = malloc(9000);
    memset(target, 'a', 8999);
    target[8999] = 0;
    ck_assert_int_eq(frame("GET", target, "HTTP/1.1", NULL, &p), 414);
    target[8192 - 12] = 0; /* H3: "GET ", the target, " HTTP/1.1" */
    ck_assert_int_eq(frame("GET", target, "HTTP/1.1", NULL, &p), 414);
    target[8192 - 13] = 0;
    ck_assert_int_eq(frame("GET", target, "HTTP/1.1", NULL, &p), 0);
    ck_assert_int_eq(frame("HEAD", target, "HTTP/1.1", NULL, &p), 414);
    free(target);
    ck_assert_int_eq(frame("GET", "/a b", "HTTP/1.1", NULL, &p), 400);
    ck_assert_int_eq(frame("POST", "/", "HTTP/1.1", (pair[]){{"Content-Length", "77"}, {0}}, &p),
                     0);
    ck_assert(p.has_length && p.length == 77 && !p.chunked);
}
END_TEST

START_TEST(request_ids)
{
    gate_pass p, q;
    frame("GET", "/", "HTTP/1.1", (pair[]){{"X-Request-Id", "a.b-c_d:9"}, {0}}, &p);
    ck_assert_str_eq(p.request_id, "a.b-c_d:9");
    frame("GET", "/", "HTTP/1.1", (pair[]){{"X-Request-Id", "a b"}, {0}}, &p);
    frame("GET", "/", "HTTP/1.1", NULL, &q);
    ck_assert_str_ne(p.request_id, "a b");
    ck_assert_str_ne(p.request_id, q.request_id);
}
END_TEST

static gate *open_gate(char **fixed, int n_key, const char *file, char **hosts, int n_host,
                       const char *cors)
{
    err e = {0};
    gate_options o = {.key = fixed,
                      .n_key = n_key,
                      .key_file = file,
                      .allowed_host = hosts,
                      .n_allowed_host = n_host,
                      .cors = cors};
    gate *g = gate_new(&o, &e);
    ck_assert_msg(g != NULL, "%s", e.msg);
    return g;
}

static int host_status(gate *g, const char *host)
{
    gate_field f[4];
    gate_fault fault = {0};
    gate_request r = make(f, "GET", "/", "HTTP/1.1", (pair[]){{"Host", host}, {0}});
    gate_host(g, &r, &fault);
    return fault.status;
}

START_TEST(hosts)
{
    char *extra[] = {"api.example.com"};
    gate *g = open_gate(NULL, 0, NULL, extra, 1, NULL);
    static const char *const good[] = {
        "localhost",          "LOCALHOST:80", "127.0.0.1", "10.1.2.3:8080", "[::1]",
        "[fe80::1%eth0]:80",  "box",          "x.local",   "y.internal:1",  "z.localhost",
        "api.example.com:443"};
    static const char *const bad[] = {"example.com",
                                      "api.example.com.evil",
                                      "127.0.0.1.nip.io",
                                      "local",
                                      ".local.evil",
                                      "[::1",
                                      "",
                                      "a.b.c",
                                      "[evil.com]",
                                      "999.1.1.1",
                                      "...",
                                      "localhost:evil.com",
                                      "[::1]:x",
                                      "[::1]80"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        ck_assert_int_eq(host_status(g, good[i]), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (strcmp(bad[i], "local")) ck_assert_int_eq(host_status(g, bad[i]), 403);
    gate_free(g);
    char *key[] = {"k"};
    g = open_gate(key, 1, NULL, NULL, 0, NULL);
    ck_assert_int_eq(host_status(g, "example.com"), 0); /* keys guard already */
    gate_free(g);
}
END_TEST

static int origin_status(gate *g, const char *origin, gate_pass *p)
{
    gate_field f[4];
    gate_fault fault = {0};
    gate_request r =
        make(f, "GET", "/", "HTTP/1.1", (pair[]){{"Host", "box:8080"}, {"Origin", origin}, {0}});
    *p = (gate_pass){0};
    gate_origin(g, &r, p, &fault);
    return fault.status;
}

START_TEST(origins)
{
    gate_pass p;
    gate *g = open_gate(NULL, 0, NULL, NULL, 0, NULL);
    ck_assert_int_eq(origin_status(g, "http://box:8080", &p), 0);
    ck_assert_int_eq(origin_status(g, "http://box:8081", &p), 403);
    ck_assert_int_eq(origin_status(g, "http://127.9.9.9:1", &p), 0);
    ck_assert_str_eq(p.origin, "http://127.9.9.9:1");
    ck_assert_int_eq(origin_status(g, "http://localhost.evil", &p), 403);
    ck_assert_int_eq(origin_status(g, "http://localhost:1@evil.com", &p), 403);
    ck_assert_int_eq(origin_status(g, "http://127.0.0.1.", &p), 403);
    ck_assert_int_eq(origin_status(g, "null", &p), 403);
    gate_free(g);
    g = open_gate(NULL, 0, NULL, NULL, 0, "https://a.example, https://b.example");
    ck_assert_int_eq(origin_status(g, "https://b.example", &p), 0);
    ck_assert_int_eq(origin_status(g, "http://localhost", &p), 403);
    gate_free(g);
    g = open_gate(NULL, 0, NULL, NULL, 0, "*");
    ck_assert_int_eq(origin_status(g, "https://anything", &p), 0);
    ck_assert_str_eq(p.origin, "*");
    gate_free(g);
    g = open_gate(NULL, 0, NULL, NULL, 0, "none");
    ck_assert_int_eq(origin_status(g, "http://localhost", &p), 403);
    gate_free(g);
}
END_TEST

/* What could never match is told at the start. */
START_TEST(bad_lists)
{
    static char *bad_host[] = {"a:80", "http://a", "*", "a/b"};
    static const char *const bad_origin[] = {
        "",           " , ", "example.com", "https://a.example/", "*, https://a.example",
        "none,x://y", "://"};
    err e = {0};
    for (size_t i = 0; i < sizeof bad_host / sizeof *bad_host; i++) {
        gate_options o = {.allowed_host = &bad_host[i], .n_allowed_host = 1};
        ck_assert(!gate_new(&o, &e) && e.code == ERR_INVALID && strstr(e.msg, "--allowed-hosts"));
        ck_assert(strstr(e.msg, bad_host[i]));
    }
    for (size_t i = 0; i < sizeof bad_origin / sizeof *bad_origin; i++) {
        gate_options o = {.cors = bad_origin[i]};
        ck_assert_msg(!gate_new(&o, &e) && e.code == ERR_INVALID, "%s", bad_origin[i]);
        ck_assert(strstr(e.msg, "--cors-origins"));
    }
    gate_pass p;
    gate *g = open_gate(NULL, 0, NULL, NULL, 0, " https://a.example:1 , null,app://x,file://");
    ck_assert_int_eq(origin_status(g, "https://a.example:1", &p), 0);
    ck_assert_int_eq(origin_status(g, "null", &p), 0);
    ck_assert_int_eq(origin_status(g, "app://x", &p), 0);
    ck_assert_int_eq(origin_status(g, "file://", &p), 0);
    ck_assert_int_eq(origin_status(g, "app://", &p), 403);
    gate_free(g);
}
END_TEST

static int key_status(gate *g, const pair *v)
{
    gate_field f[8];
    gate_fault fault = {0};
    key_ref *key;
    gate_request r = make(f, "GET", "/", "HTTP/1.1", v);
    gate_key(g, &r, &key, &fault);
    ck_assert((key != NULL) == (fault.status == 0 && gate_has_keys(g)));
    key_put(key);
    return fault.status;
}

START_TEST(key_headers)
{
    char path[] = "/tmp/quern-keys-XXXXXX", *fixed[] = {"k1"};
    int fd = mkstemp(path);
    const char text[] = "# people\nann: alpha\n\n  beta  \r\n";
    ck_assert(write(fd, text, sizeof text - 1) == sizeof text - 1);
    gate *g = open_gate(fixed, 1, path, NULL, 0, NULL);
    ck_assert_int_eq(key_status(g, (pair[]){{"Authorization", "Bearer k1"}, {0}}), 0);
    ck_assert_int_eq(key_status(g, (pair[]){{"x-api-key", "alpha"}, {0}}), 0);
    ck_assert_int_eq(key_status(g, (pair[]){{"x-api-key", "beta"}, {0}}), 0);
    ck_assert_int_eq(
        key_status(g, (pair[]){{"Authorization", "Bearer bad"}, {"x-api-key", "k1"}, {0}}), 0);
    ck_assert_int_eq(key_status(g, NULL), 401);
    ck_assert_int_eq(key_status(g, (pair[]){{"x-api-key", "ann"}, {0}}), 401);
    ck_assert_int_eq(key_status(g, (pair[]){{"x-api-key", ""}, {0}}), 401);
    ck_assert_int_eq(key_status(g, (pair[]){{"Authorization", "k1"}, {0}}), 401);
    ck_assert(ftruncate(fd, 0) == 0);
    err e = {0};
    ck_assert_int_ne(gate_reload_keys(g, &e), 0); /* an empty file opens nothing */
    ck_assert_int_eq(key_status(g, (pair[]){{"x-api-key", "beta"}, {0}}), 0);
    ck_assert(pwrite(fd, "gamma\n", 6, 0) == 6);
    ck_assert_int_eq(gate_reload_keys(g, &e), 0);
    ck_assert_int_eq(key_status(g, (pair[]){{"x-api-key", "beta"}, {0}}), 401);
    ck_assert_int_eq(key_status(g, (pair[]){{"x-api-key", "gamma"}, {0}}), 0);
    gate_free(g);
    close(fd);
    unlink(path);
}
END_TEST

START_TEST(paths)
{
    char out[64];
    ck_assert(gate_path("/a%20b/?q=1", out, sizeof out));
    ck_assert_str_eq(out, "/a b");
    ck_assert(gate_path("/", out, sizeof out));
    ck_assert_str_eq(out, "/");
    ck_assert(gate_path("/a..b/c", out, sizeof out));
    ck_assert(gate_path("/%2525", out, sizeof out)); /* decoded once */
    ck_assert_str_eq(out, "/%25");
    static const char *const whole[][2] = {
        {"http://h/a", "/a"}, {"HTTPS://h:1/a?x", "/a"}, {"http://h", "/"}, {"http://h?x=/a", "/"}};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        ck_assert(gate_path(whole[i][0], out, sizeof out));
        ck_assert_str_eq(out, whole[i][1]);
    }
    static const char *const bad[] = {"",       "a",  "/..", "/../x", "/x/%2e%2E/y", "/a%00b",
                                      "/a%0ab", "/%", "/%4", "/%zz",  "/%ff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!gate_path(bad[i], out, sizeof out), "%s", bad[i]);
    char deep[200];
    memset(deep, 'a', sizeof deep);
    deep[0] = '/';
    deep[199] = 0;
    ck_assert(!gate_path(deep, out, sizeof out));
}
END_TEST

static int media_status(const char *type, const char *encoding, bool any)
{
    gate_field f[4];
    gate_fault fault = {0};
    pair v[3] = {{0}};
    int n = 0;
    if (type) v[n++] = (pair){"Content-Type", type};
    if (encoding) v[n++] = (pair){"Content-Encoding", encoding};
    gate_request r = make(f, "POST", "/", "HTTP/1.1", v);
    gate_media(&r, any, &fault);
    return fault.status;
}

START_TEST(media)
{
    ck_assert_int_eq(media_status(NULL, NULL, false), 0);
    ck_assert_int_eq(media_status("application/json", NULL, false), 0);
    ck_assert_int_eq(media_status("APPLICATION/JSON; charset=UTF-8", NULL, false), 0);
    ck_assert_int_eq(media_status("application/problem+json;charset=\"utf-8\"", NULL, false), 0);
    ck_assert_int_eq(media_status("application/json; charset=utf-16", NULL, false), 415);
    ck_assert_int_eq(media_status("application/json; charset=utf-8x", NULL, false), 415);
    ck_assert_int_eq(media_status("application/json; charset=utf-8;x=y", NULL, false), 0);
    ck_assert_int_eq(media_status("text/plain", NULL, false), 415);
    ck_assert_int_eq(media_status("application/x-www-form-urlencoded", NULL, false), 415);
    ck_assert_int_eq(media_status("application/x-www-form-urlencoded", NULL, true), 0);
    ck_assert_int_eq(media_status("application/json", "gzip", false), 415);
    ck_assert_int_eq(media_status("application/json", "identity", false), 0);
}
END_TEST

enum { SECOND = 1000000 };

static bool late(double limit_s, double now_s, double last_s, uint64_t got)
{
    const int64_t begin = 5000 * (int64_t)SECOND;
    gate_body b = {begin, begin + (int64_t)(last_s * SECOND), got};
    return gate_body_late(&b, (int64_t)(limit_s * SECOND), begin + (int64_t)(now_s * SECOND));
}

/* 30 s of silence, at the beginning and later, however much came. */
START_TEST(silent_bodies)
{
    ck_assert(!late(30, 0, 0, 0));
    ck_assert(!late(30, 30, 0, 0));
    ck_assert(late(30, 30.001, 0, 0));
    ck_assert(!late(30, 55, 25, 10));
    ck_assert(late(30, 55.2, 25, 1 << 30));
    ck_assert(!late(30, 1000, 999, 1 << 30));
    ck_assert(late(30, 1000, 969, 1 << 30));
}
END_TEST

/* 1 KiB/s on average once 60 s have passed, not before; a burst pays for later slowness. */
START_TEST(slow_bodies)
{
    ck_assert(!late(30, 59, 59, 1));
    ck_assert(!late(30, 60, 60, 1));
    ck_assert(late(30, 60.2, 60.2, 1));
    ck_assert(late(30, 61, 61, 61 * 1024 - 1));
    ck_assert(!late(30, 61, 61, 61 * 1024));
    ck_assert(late(30, 3600, 3600, 3600 * 1024 - 1));
    ck_assert(!late(30, 3600, 3600, 3600 * 1024));
    ck_assert(!late(30, 62, 62, 1 << 20));
    ck_assert(late(30, 1100, 1100, 1 << 20));
}
END_TEST

/* --body-timeout moves both. */
START_TEST(body_timeouts)
{
    ck_assert(late(2, 2.5, 0, 100) && !late(2, 2, 0, 100));
    ck_assert(late(2, 4.5, 4.5, 4095) && !late(2, 4.5, 4.5, 4096) && !late(2, 4, 4, 0));
    ck_assert(!late(3600, 3600, 0, 0) && late(3600, 3601, 0, 0));
    ck_assert(!late(3600, 7200, 7199, 0) && late(3600, 7201, 7201, 7200 * 1024));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gate");
    TCase *t = tcase_create("headers");
    tcase_add_test(t, framing);
    tcase_add_test(t, request_ids);
    tcase_add_test(t, hosts);
    tcase_add_test(t, origins);
    tcase_add_test(t, bad_lists);
    tcase_add_test(t, key_headers);
    tcase_add_test(t, paths);
    tcase_add_test(t, media);
    tcase_add_test(t, silent_bodies);
    tcase_add_test(t, slow_bodies);
    tcase_add_test(t, body_timeouts);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
