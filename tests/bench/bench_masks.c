/* bench_masks.c - compiling, masks and steps over the open slice of MaskBench with Qwen2's
 * vocabulary; masks against stepping every token; random texts under the masks; hostile grammars.
 * Run in the root of the tree.
 *
 * bench_masks times [nth]: the table of microseconds of processor time, over every nth schema.
 *
 * bench_masks oracle STATES [seed]: so many masks of random states, bit by bit.
 *
 * bench_masks texts N [seed]: random texts under N schemas: id, tab, text, 0x1e.
 *
 * bench_masks hostile [seed]: the dearest calls of an engine's thread. */
#include "base/clock.h"
#include "tests/grammar_rig.h"
#include "tests/hostile_grammars.h"

#include <math.h>

typedef struct {
    float *v;
    size_t n, cap;
} times;

static void add(times *t, double us)
{
    if (t->n == t->cap) t->v = realloc(t->v, (t->cap = t->cap ? t->cap * 2 : 4096) * sizeof *t->v);
    t->v[t->n++] = (float)us;
}

/* Of this thread's processor time: others' work on the machine is not in it. */
static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void show(const char *name, times *t)
{
    double sum = 0;
    if (!t->n) return;
    qsort(t->v, t->n, sizeof *t->v, by_value);
    for (size_t i = 0; i < t->n; i++) sum += t->v[i];
    printf("%-44s %8zu %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f\n", name, t->n, (double)t->v[t->n / 2],
           (double)t->v[t->n * 9 / 10], (double)t->v[t->n * 99 / 100],
           (double)t->v[t->n * 999 / 1000], (double)t->v[t->n - 1], sum / (double)t->n);
    free(t->v);
}

typedef struct {
    times compile, first, mask, finish, accept, take, kept, forced;
    size_t declined, strict, later, accept_later, tokens, forced_bytes;
} table;

/* One valid text, token by token; fresh: a grammar nobody used yet. */
static void run_text(table *t, grammar *g, const grammar_vocab *v, const token_list *ids,
                     bool fresh, const rig_case *c)
{
    gmatch *m = gmatch_new(g, v);
    for (size_t i = 0; i <= ids->n; i++) {
        const uint32_t *bits;
        uint64_t id;
        int32_t tok = i < ids->n ? ids->v[i] : RIG_END;
        double t0 = now_us();
        int rc = gmatch_mask(m, &bits, &id);
        double took = now_us() - t0;
        if (rc == GM_LATER) {
            t->later++;
            t0 = now_us();
            if (gmatch_finish(m, &bits, &id)) rig_die("a mask over the limit");
            add(&t->finish, now_us() - t0);
        }
        if (took > 20000) fprintf(stderr, "%.0f us: %s token %zu\n", took, c->id, i);
        add(fresh ? &t->mask : &t->kept, took);
        if (fresh && !i) add(&t->first, took);
        if (!rig_allowed(bits, tok)) {
            t->strict += fresh;
            break;
        }
        if (fresh) {
            uint8_t one[64];
            t0 = now_us();
            t->forced_bytes += gmatch_forced(m, one, sizeof one) > 0;
            add(&t->forced, now_us() - t0);
        }
        t0 = now_us();
        rc = gmatch_accept(m, tok);
        if (fresh) add(&t->accept, now_us() - t0);
        if (rc == GM_LATER) {
            t->accept_later++;
            t0 = now_us();
            rc = gmatch_take(m, tok);
            add(&t->take, now_us() - t0);
        }
        if (rc) rig_die("a token of the mask is refused");
        t->tokens += fresh;
    }
    gmatch_free(m);
}

static int run_times(const tokenizer *tok, const grammar_vocab *v, size_t nth)
{
    rig_slice s = rig_read_slice(nth);
    table t = {0};
    for (size_t i = 0; i < s.n; i++) {
        const rig_case *c = &s.v[i];
        double t0 = now_us();
        grammar *g = rig_compile(c, false);
        add(&t.compile, now_us() - t0);
        t.declined += !g;
        for (size_t k = 0; g && k < c->n; k++) {
            token_list ids = {0};
            err e;
            if (!c->instance[k].valid) continue;
            if (tokenizer_encode(tok, c->instance[k].text, c->instance[k].n, false, NULL, 0, &ids,
                                 &e))
                rig_die(e.msg);
            grammar *fresh = rig_compile(c, false);
            run_text(&t, fresh, v, &ids, true, c);
            grammar_release(fresh);
            run_text(&t, g, v, &ids, false, c);
            token_list_clear(&ids);
        }
        grammar_release(g);
    }
    printf("%zu schemas, %zu declined; %zu texts refused; %zu tokens, %zu after a forced byte; %zu "
           "masks made and %zu tokens taken off the thread\n",
           s.n, t.declined, t.strict, t.tokens, t.forced_bytes, t.later, t.accept_later);
    printf("%-44s %8s %9s %9s %9s %9s %9s %9s\n", "microseconds", "n", "p50", "p90", "p99", "p99.9",
           "max", "mean");
    show("compile", &t.compile);
    show("first mask of a grammar", &t.first);
    show("mask, a fresh grammar for every text", &t.mask);
    show("mask, one grammar for the schema's texts", &t.kept);
    show("mask finished off the thread", &t.finish);
    show("accept a token", &t.accept);
    show("a token taken off the thread", &t.take);
    show("forced bytes", &t.forced);
    rig_free_slice(&s);
    return 0;
}

static const uint32_t *mask_of(gmatch *m)
{
    const uint32_t *bits;
    uint64_t id;
    int rc = gmatch_mask(m, &bits, &id);
    if (rc == GM_LATER) rc = gmatch_finish(m, &bits, &id);
    return rc ? NULL : bits;
}

/* Bits that differ from stepping every token. */
static size_t differing(gmatch *m, const uint32_t *bits)
{
    size_t n = 0;
    for (int32_t t = 0; t < RIG_ROWS; t++)
        n += rig_allowed(bits, t) != (gmatch_prefix(m, &t, 1) == 1);
    return n;
}

static int run_oracle(const grammar_vocab *v, size_t states, uint64_t seed)
{
    rig_slice s = rig_read_slice(1);
    size_t checked = 0, wrong = 0, ended = 0;
    while (checked < states) {
        const rig_case *c = &s.v[rig_random(&seed) % s.n];
        grammar *g = rig_compile(c, rig_random(&seed) % 2);
        gmatch *m = g ? gmatch_new(g, v) : NULL;
        int most = (int)(rig_random(&seed) % 60);
        for (int step = 0; m && step <= most && checked < states; step++) {
            const uint32_t *bits = mask_of(m);
            if (!bits) break;
            if (step == most || rig_random(&seed) % 8 == 0) {
                size_t n = differing(m, bits);
                checked++;
                if (n) printf("%s: %zu bits differ after %d tokens\n", c->id, n, step);
                wrong += n > 0;
            }
            int32_t t = rig_draw(bits, RIG_ROWS, step, &seed);
            if (t == RIG_END) ended++;
            if (t == RIG_END || gmatch_take(m, t)) break;
        }
        gmatch_free(m);
        grammar_release(g);
    }
    printf("%zu masks of random states compared with stepping every token: %zu differ; %zu texts "
           "ended\n",
           checked, wrong, ended);
    rig_free_slice(&s);
    return wrong > 0;
}

/* One random text; false if it is not at an end after MOST tokens. */
static bool random_text(const tokenizer *tok, gmatch *m, uint64_t *seed, buf *text)
{
    enum { MOST = 1500 };
    err e;
    for (int step = 0; step < MOST; step++) {
        const uint32_t *bits = mask_of(m);
        if (!bits) return false; /* over the limit of one mask */
        bool end = rig_allowed(bits, RIG_END) && (step > 40 || rig_random(seed) % 3 == 0);
        int32_t t = end ? RIG_END : rig_draw(bits, RIG_ROWS, step, seed);
        if (gmatch_take(m, t)) rig_die("a token of the mask is refused");
        if (t == RIG_END) return true;
        if (tokenizer_decode(tok, &t, 1, false, text, &e)) rig_die(e.msg);
    }
    return false;
}

/* Four a schema, one of them with keys in any order, until enough schemas had one that ended. */
static int run_texts(const tokenizer *tok, const grammar_vocab *v, size_t schemas, uint64_t seed)
{
    rig_slice s = rig_read_slice(1);
    const uint64_t first = seed;
    size_t done = 0, tries = 0, ended = 0;
    for (size_t i = 0; i < s.n && done < schemas; i++) {
        const rig_case *c = &s.v[(i * 7919 + first) % s.n];
        size_t before = ended;
        for (int k = 0; k < 4; k++) {
            grammar *g = rig_compile(c, k == 3);
            gmatch *m = g ? gmatch_new(g, v) : NULL;
            buf text = {0};
            tries += m != NULL;
            if (m && random_text(tok, m, &seed, &text)) {
                printf("%s\t%.*s\x1e", c->id, (int)text.len, buf_str(&text));
                ended++;
            }
            buf_clear(&text);
            gmatch_free(m);
            grammar_release(g);
        }
        done += ended > before;
    }
    fprintf(stderr, "%zu schemas; %zu texts begun, %zu ended\n", done, tries, ended);
    rig_free_slice(&s);
    return 0;
}

/* The dearest calls an engine's thread would make over random texts of one grammar. */
static void run_hostile_one(const hostile_grammar *h, const grammar_vocab *v, uint64_t seed)
{
    enum { TEXTS = 4, TOKENS = 150 };
    double worst[4] = {0}, beside[3] = {0};
    size_t later[3] = {0}, n = 0, limits = 0;
    grammar *g = NULL;
    grammar_error why;
    double t0 = now_us();
    int rc = hostile_compile(h, &g, &why);
    printf("%-24s %9.1f", h->name, (now_us() - t0) / 1e3);
    if (rc) {
        printf("  %s: %.60s\n", why.code, why.e.msg);
        return;
    }
    for (int k = 0; k < TEXTS; k++) {
        gmatch *m = gmatch_new(g, v);
        for (int step = 0; step < TOKENS; step++, n++) {
            const uint32_t *bits;
            uint64_t id;
            uint8_t out[64];
            bool done = false;
            double took[4];
            t0 = now_us();
            rc = gmatch_mask(m, &bits, &id);
            took[0] = now_us() - t0;
            if (rc == GM_LATER) {
                later[0]++;
                t0 = now_us();
                rc = gmatch_finish(m, &bits, &id);
                beside[0] = fmax(beside[0], now_us() - t0);
            }
            if (rc) {
                limits++;
                break;
            }
            int32_t t = rig_draw(bits, RIG_ROWS, 0, &seed);
            t0 = now_us();
            gmatch_forced(m, out, sizeof out);
            took[3] = now_us() - t0;
            t0 = now_us();
            rc = gmatch_accept(m, t);
            took[1] = now_us() - t0;
            if (rc == GM_LATER) {
                later[1]++;
                t0 = now_us();
                rc = gmatch_take(m, t);
                beside[1] = fmax(beside[1], now_us() - t0);
            }
            limits += rc != 0;
            if (rc || t == RIG_END) break;
            t0 = now_us();
            rc = gmatch_done(m, &done);
            took[2] = now_us() - t0;
            if (rc == GM_LATER) {
                later[2]++;
                t0 = now_us();
                rc = gmatch_settle(m, &done);
                beside[2] = fmax(beside[2], now_us() - t0);
            }
            for (int i = 0; i < 4; i++) worst[i] = fmax(worst[i], took[i]);
        }
        gmatch_free(m);
    }
    for (int i = 0; i < 4; i++) printf(" %8.2f", worst[i] / 1e3);
    for (int i = 0; i < 3; i++) printf(" %5zu %7.1f", later[i], beside[i] / 1e3);
    printf(" %5zu %6zu\n", n, limits);
    fflush(stdout);
    grammar_release(g);
}

static int run_hostile(const grammar_vocab *v, uint64_t seed)
{
    printf("milliseconds, worst   compile     mask   accept      end   forced  masks, tokens, ends "
           "beside        tokens limits\n");
    for (int i = 0; i < N_HOSTILE; i++) run_hostile_one(&hostile_grammars[i], v, seed);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "times";
    size_t n = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    tokenizer *tok = rig_tokenizer();
    double t0 = now_us();
    grammar_vocab *v = rig_vocab(tok);
    int rc = 0;
    fprintf(stderr, "vocabulary of %d rows made in %.0f ms\n", RIG_ROWS, (now_us() - t0) / 1e3);
    if (!strcmp(what, "times")) rc = run_times(tok, v, n ? n : 1);
    else if (!strcmp(what, "oracle")) rc = run_oracle(v, n, seed);
    else if (!strcmp(what, "texts")) rc = run_texts(tok, v, n, seed);
    else if (!strcmp(what, "hostile")) rc = run_hostile(v, n);
    else rig_die("times, oracle, texts or hostile");
    grammar_vocab_free(v);
    tokenizer_free(tok);
    return rc;
}
