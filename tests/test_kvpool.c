/* test_kvpool.c - the block pool: sharing, finding, salts, eviction order, and a seeded storm of
 * operations with a full integrity check after each. */
#include "engine/kvpool.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { B = 4 };
static const kv_salt no_salt = {NULL, 0};

static void check_pool(const kvpool *p, const int32_t *refs)
{
    err e = {0};
    ck_assert_msg(kvpool_check(p, refs, &e) == 0, "%s", e.msg);
}

/* Publishes tok[n * B] as a chain of new blocks into out[n]. */
static void publish_chain(kvpool *p, kv_salt salt, const int32_t *tok, int n, int32_t *out)
{
    for (int i = 0; i < n; i++) {
        bool ok;
        out[i] = kvpool_take(p);
        ck_assert_int_ge(out[i], 0);
        out[i] = kvpool_publish(p, out[i], i ? out[i - 1] : -1, salt, tok + i * B, &ok);
        ck_assert(ok);
    }
}

/* Finds as much of tok[n * B] as it can. */
static int find_chain(kvpool *p, kv_salt salt, const int32_t *tok, int n, int32_t *out)
{
    for (int i = 0; i < n; i++) {
        out[i] = kvpool_find(p, i ? out[i - 1] : -1, salt, tok + i * B);
        if (out[i] < 0) return i;
    }
    return n;
}

START_TEST(takes_every_block_once)
{
    kvpool *p = kvpool_new(5, B);
    int32_t got[5];
    bool seen[5] = {0};
    for (int i = 0; i < 5; i++) {
        got[i] = kvpool_take(p);
        ck_assert(got[i] >= 0 && got[i] < 5 && !seen[got[i]]);
        seen[got[i]] = true;
    }
    ck_assert_int_eq(kvpool_take(p), -1);
    ck_assert_int_eq(kvpool_used(p), 5);
    kvpool_put(p, got, 5);
    ck_assert_int_eq(kvpool_available(p), 5);
    ck_assert_int_eq(kvpool_cached(p), 0); /* never published: nothing to find */
    check_pool(p, NULL);
    kvpool_free(p);
}
END_TEST

START_TEST(finds_only_equal_prefixes)
{
    kvpool *p = kvpool_new(8, B);
    int32_t tok[12] = {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4}, a[3], f[3];
    publish_chain(p, no_salt, tok, 3, a);
    kvpool_put(p, a, 3);
    ck_assert_int_eq(kvpool_cached(p), 3);
    ck_assert_int_eq(find_chain(p, no_salt, tok, 3, f), 3);
    ck_assert_int_eq(memcmp(a, f, sizeof a), 0);
    kvpool_put(p, f, 3);
    /* Block 3 holds the tokens of block 1 but is not at the start: depth matters. */
    ck_assert_int_eq(find_chain(p, no_salt, tok + 8, 1, f), 1);
    ck_assert_int_eq(f[0], a[0]);
    kvpool_put(p, f, 1);
    tok[1] = 9; /* a different first block hides all that follows */
    ck_assert_int_eq(find_chain(p, no_salt, tok, 3, f), 0);
    tok[1] = 2, tok[7] = 9;
    ck_assert_int_eq(find_chain(p, no_salt, tok, 3, f), 1);
    kvpool_put(p, f, 1);
    check_pool(p, (int32_t[8]){0});
    kvpool_free(p);
}
END_TEST

START_TEST(salts_separate)
{
    kvpool *p = kvpool_new(8, B);
    int32_t tok[8] = {1, 2, 3, 4, 5, 6, 7, 8}, a[2], b[2], f[2];
    kv_salt x = {"x", 1}, y = {"xy", 2};
    publish_chain(p, x, tok, 2, a);
    ck_assert_int_eq(find_chain(p, y, tok, 2, f), 0);
    ck_assert_int_eq(find_chain(p, no_salt, tok, 2, f), 0);
    publish_chain(p, no_salt, tok, 2, b);
    ck_assert_int_ne(a[0], b[0]);
    ck_assert_int_eq(find_chain(p, x, tok, 2, f), 2);
    ck_assert_int_eq(f[1], a[1]);
    check_pool(p, NULL);
    kvpool_free(p);
}
END_TEST

START_TEST(equal_work_is_merged)
{
    kvpool *p = kvpool_new(8, B);
    int32_t tok[8] = {1, 2, 3, 4, 5, 6, 7, 8}, a[2], b[2];
    publish_chain(p, no_salt, tok, 2, a);
    publish_chain(p, no_salt, tok, 2, b);
    ck_assert_int_eq(memcmp(a, b, sizeof a), 0);
    ck_assert_int_eq(kvpool_used(p), 2);
    kvpool_put(p, a, 2);
    ck_assert_int_eq(kvpool_used(p), 2);
    kvpool_put(p, b, 2);
    ck_assert_int_eq(kvpool_used(p), 0);
    ck_assert_int_eq(kvpool_cached(p), 2);
    check_pool(p, NULL);
    kvpool_free(p);
}
END_TEST

START_TEST(evicts_oldest_and_children_first)
{
    kvpool *p = kvpool_new(6, B);
    int32_t x[12] = {1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3},
            y[12] = {7, 7, 7, 7, 8, 8, 8, 8, 9, 9, 9, 9};
    int32_t a[3], b[3], f[3];
    publish_chain(p, no_salt, x, 3, a);
    kvpool_put(p, a, 3);
    publish_chain(p, no_salt, y, 3, b);
    kvpool_put(p, b, 3);
    ck_assert_int_eq(kvpool_take(p), a[2]); /* end of the older chain */
    ck_assert_int_eq(find_chain(p, no_salt, x, 3, f), 2);
    kvpool_put(p, f, 2); /* touched: now younger than y */
    check_pool(p, NULL);
    ck_assert_int_eq(kvpool_take(p), b[2]);
    ck_assert_int_eq(kvpool_take(p), b[1]);
    ck_assert_int_eq(kvpool_take(p), b[0]);
    ck_assert_int_eq(kvpool_take(p), a[1]);
    ck_assert_int_eq(find_chain(p, no_salt, x, 3, f), 1);
    ck_assert_int_eq(kvpool_take(p), -1); /* the last one is held */
    check_pool(p, NULL);
    kvpool_free(p);
}
END_TEST

typedef struct {
    int n[3];
    int64_t us[3];
} notes;

static void take_note(void *arg, kv_note what, int64_t us)
{
    notes *v = arg;
    v->n[what]++;
    v->us[what] += us;
}

/* N4: how long blocks live, lie idle before they are evicted, and until they are found again. */
START_TEST(tells_how_long_blocks_live)
{
    kvpool *p = kvpool_new(2, B);
    int32_t x[8] = {1, 1, 1, 1, 2, 2, 2, 2}, a[2], f[2];
    notes v = {0};
    kvpool_watch(p, take_note, &v);
    kvpool_tell_time(p, 1000);
    publish_chain(p, no_salt, x, 2, a);
    kvpool_tell_time(p, 1500);
    kvpool_put(p, a, 2);
    kvpool_tell_time(p, 1700);
    ck_assert_int_eq(find_chain(p, no_salt, x, 2, f), 2);
    ck_assert(v.n[KV_GAP] == 2 && v.us[KV_GAP] == 2 * 200 && !v.n[KV_LIFE] && !v.n[KV_IDLE]);
    kvpool_tell_time(p, 1800);
    kvpool_put(p, f, 2);
    kvpool_tell_time(p, 2100);
    ck_assert_int_eq(kvpool_take(p), a[1]);
    ck_assert(v.n[KV_LIFE] == 1 && v.us[KV_LIFE] == 1100);
    ck_assert(v.n[KV_IDLE] == 1 && v.us[KV_IDLE] == 300);
    kvpool_free(p);
}
END_TEST

START_TEST(check_notices_wrong_refs)
{
    kvpool *p = kvpool_new(2, B);
    int32_t i = kvpool_take(p), refs[2] = {0};
    err e = {0};
    ck_assert_int_eq(kvpool_check(p, refs, &e), ERR_FORMAT);
    refs[i] = 1;
    check_pool(p, refs);
    kvpool_free(p);
}
END_TEST

static uint64_t rng_state;
static uint32_t rnd(uint32_t n)
{
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng_state >> 33) % n;
}

typedef struct {
    int32_t block[8], tok[8 * B];
    int n, salt;
} holder;

/* What a published block stands for: all tokens up to its end, and the salt. */
typedef struct {
    int32_t tok[8 * B];
    int depth, salt;
} meaning;

static void check_meaning(const meaning *m, const int32_t *tok, int depth, int salt)
{
    ck_assert_int_eq(m->depth, depth);
    ck_assert_int_eq(m->salt, salt);
    ck_assert_int_eq(memcmp(m->tok, tok, sizeof *tok * (size_t)depth * B), 0);
}

/* Holders of chains over a tiny alphabet: many equal prefixes, constant eviction.  Whatever is
 * found must mean the same, also where all hashes collide (test_kvpool_collide.c). */
START_TEST(storm)
{
    enum { N = 24, H = 10 };
    static const kv_salt salts[3] = {{NULL, 0}, {"a", 1}, {"b", 1}};
    rng_state = 20240601;
    kvpool *p = kvpool_new(N, B);
    holder h[H];
    meaning means[N] = {0};
    memset(h, 0, sizeof h);
    int hits = 0;
    for (int step = 0; step < 20000; step++) {
        holder *x = &h[rnd(H)];
        if (x->n) {
            kvpool_put(p, x->block, x->n);
            x->n = 0;
        } else {
            x->salt = (int)rnd(3);
            int want = 1 + (int)rnd(8);
            for (int i = 0; i < want * B; i++) x->tok[i] = (int32_t)rnd(10) == 0;
            x->n = find_chain(p, salts[x->salt], x->tok, want, x->block);
            for (int i = 0; i < x->n; i++)
                check_meaning(&means[x->block[i]], x->tok, i + 1, x->salt);
            hits += x->n;
            while (x->n < want) {
                bool ok;
                int32_t b = kvpool_take(p);
                if (b < 0) break;
                b = kvpool_publish(p, b, x->n ? x->block[x->n - 1] : -1, salts[x->salt],
                                   x->tok + x->n * B, &ok);
                ck_assert(ok);
                meaning *m = &means[b];
                x->block[x->n++] = b;
                m->depth = x->n;
                m->salt = x->salt;
                memcpy(m->tok, x->tok, sizeof m->tok);
            }
        }
        int32_t refs[N] = {0};
        for (int i = 0; i < H; i++)
            for (int k = 0; k < h[i].n; k++) refs[h[i].block[k]]++;
        check_pool(p, refs);
        ck_assert_int_eq(kvpool_used(p) + kvpool_available(p), N);
    }
    ck_assert_int_gt(hits, 1000);
    for (int i = 0; i < H; i++) kvpool_put(p, h[i].block, h[i].n);
    ck_assert_int_eq(kvpool_used(p), 0);
    kvpool_free(p);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("kvpool");
    TCase *t = tcase_create("kvpool");
    tcase_add_test(t, takes_every_block_once);
    tcase_add_test(t, finds_only_equal_prefixes);
    tcase_add_test(t, salts_separate);
    tcase_add_test(t, equal_work_is_merged);
    tcase_add_test(t, evicts_oldest_and_children_first);
    tcase_add_test(t, tells_how_long_blocks_live);
    tcase_add_test(t, check_notices_wrong_refs);
    tcase_add_test(t, storm);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
