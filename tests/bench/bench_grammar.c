/* bench_grammar.c - schemas with valid and invalid instances: what is declined, what is judged
 * wrongly, and how long compiling takes on one core.
 * usage: bench_grammar FILE.jsonl [schema|free] [-v]
 * A line of the file is {"id", "schema", "tests": [[instance, valid], ...]}. */
#include "base/file.h"
#include "base/json.h"
#include "engine/grammar/grammar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_SCHEMAS = 100000 };

typedef struct {
    int schemas, declined, good, bad, wrong_accept, wrong_reject, undecided;
    double ms[MAX_SCHEMAS];
} totals;

/* Of this thread: neighbours on the machine do not count. */
static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void one(const json *line, bool free_order, bool verbose, totals *t)
{
    const json *id = json_get(line, "id"), *schema = json_get(line, "schema");
    const char *name = json_is(id, JSON_STRING) ? id->str : "?";
    buf text = {0}, value = {0};
    grammar *g;
    grammar_error why;
    json_print(schema, &text);
    const grammar_spec s = {.text = buf_str(&text), .n = text.len, .free_order = free_order};
    double from = cpu_ms();
    int rc = grammar_compile(&s, &g, &why);
    t->ms[t->schemas++] = cpu_ms() - from;
    if (rc) {
        t->declined++;
        if (verbose) printf("declined\t%s\t%s: %s\n", name, why.code, why.e.msg);
    }
    for (const json *c = rc ? NULL : json_get(line, "tests")->child; c; c = c->next) {
        bool valid = json_at(c, 1)->type == JSON_TRUE;
        buf_reset(&value);
        json_print(json_at(c, 0), &value);
        int got = grammar_accepts(g, buf_str(&value), value.len);
        t->good += valid;
        t->bad += !valid;
        t->undecided += got < 0;
        t->wrong_accept += got == 1 && !valid;
        t->wrong_reject += got == 0 && valid;
        if (verbose && got != (int)valid)
            printf("%s\t%s\t%.200s\n",
                   got < 0 ? "undecided"
                   : got   ? "accepts"
                           : "rejects",
                   name, buf_str(&value));
    }
    if (verbose && t->ms[t->schemas - 1] > 5)
        printf("slow\t%s\t%.2f ms\n", name, t->ms[t->schemas - 1]);
    if (!rc) grammar_release(g);
    buf_clear(&text);
    buf_clear(&value);
}

int main(int argc, char **argv)
{
    static totals t;
    buf in = {0};
    err e;
    bool free_order = argc > 2 && !strcmp(argv[2], "free");
    bool verbose = argc > 2 && !strcmp(argv[argc - 1], "-v");
    if (argc < 2 || file_read(argv[1], (size_t)1 << 30, &in, &e)) {
        fprintf(stderr, "bench_grammar: %s\n", argc < 2 ? "which file?" : e.msg);
        return 1;
    }
    char *at = in.v, *end = in.v + in.len;
    while (at < end && t.schemas < MAX_SCHEMAS) {
        char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((stop ? stop : end) - at);
        const json *root;
        json_doc *d = json_parse(at, n, NULL, &root, &e);
        if (d) one(root, free_order, verbose, &t);
        else fprintf(stderr, "bench_grammar: %s\n", e.msg);
        json_free(d);
        at += n + 1;
    }
    buf_clear(&in);
    if (!t.schemas) return 1;
    qsort(t.ms, (size_t)t.schemas, sizeof *t.ms, by_size);
    double sum = 0;
    for (int i = 0; i < t.schemas; i++) sum += t.ms[i];
    printf(
        "%d schemas, %d declined (%.2f %%); %d valid instances, %d rejected (%.2f %%); %d invalid, "
        "%d accepted; %d undecided\n",
        t.schemas, t.declined, 100.0 * t.declined / t.schemas, t.good, t.wrong_reject,
        t.good ? 100.0 * t.wrong_reject / t.good : 0, t.bad, t.wrong_accept, t.undecided);
    printf("compile ms: p50 %.3f, p90 %.3f, p99 %.3f, max %.3f, mean %.3f\n", t.ms[t.schemas / 2],
           t.ms[t.schemas * 9 / 10], t.ms[t.schemas * 99 / 100], t.ms[t.schemas - 1],
           sum / t.schemas);
    return 0;
}
