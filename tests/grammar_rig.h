/* grammar_rig.h - the real Qwen2 vocabulary and the open slice of MaskBench for tests and benches
 * of grammars.  Tests only. */
#ifndef QUERN_TESTS_GRAMMAR_RIG_H
#define QUERN_TESTS_GRAMMAR_RIG_H

#include "base/json.h"
#include "engine/grammar/gmatch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RIG_MERGES "tests/data/grammar/qwen2_merges.txt.xz"
#define RIG_SLICE "tests/data/grammar/maskbench-open.jsonl.xz"
enum { RIG_ROWS = 151936, RIG_END = 151645 };

static inline void rig_die(const char *what)
{
    fprintf(stderr, "grammar_rig: %s\n", what);
    exit(1);
}

static inline void rig_put_char(FILE *f, uint32_t c) /* below U+0800 */
{
    if (c == '"' || c == '\\') fputc('\\', f);
    if (c < 0x80) fputc((int)c, f);
    else fprintf(f, "%c%c", (int)(0xc0 | c >> 6), (int)(0x80 | (c & 63)));
}

/* vocab.json holds what the merges say: the 256 bytes in GPT-2's order, then one token a merge. */
static inline void rig_write_vocab(FILE *vocab, FILE *merges, FILE *from)
{
    char *line = NULL;
    size_t cap = 0;
    int id = 0;
    fputc('{', vocab);
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t b = 0, n = 0; b < 256; b++) {
            bool plain = (b > 32 && b < 127) || (b > 160 && b != 173);
            uint32_t c = plain ? b : 256 + n;
            n += !plain;
            if (plain == (pass == 1)) continue;
            fputs(id ? ",\"" : "\"", vocab);
            rig_put_char(vocab, c);
            fprintf(vocab, "\":%d", id++);
        }
    for (ssize_t n; (n = getline(&line, &cap, from)) > 0;) {
        fputs(line, merges);
        if (!strncmp(line, "#version", 8) || n < 3) continue;
        fputs(",\"", vocab);
        for (char *s = line; *s && *s != '\n'; s++) {
            if (*s == ' ') continue;
            if (*s == '"' || *s == '\\') fputc('\\', vocab);
            fputc(*s, vocab);
        }
        fprintf(vocab, "\":%d", id++);
    }
    fputc('}', vocab);
    free(line);
}

static inline FILE *rig_create(char *path, size_t cap, const char *dir, const char *name)
{
    snprintf(path, cap, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (!f) rig_die(path);
    return f;
}

/* Qwen3's tokenizer: Qwen2's vocabulary and the tokens added since. */
static inline tokenizer *rig_tokenizer(void)
{
    static const struct {
        int id;
        const char *text;
    } added[] = {{151643, "<|endoftext|>"}, {151644, "<|im_start|>"}, {RIG_END, "<|im_end|>"},
                 {151657, "<tool_call>"},   {151658, "</tool_call>"}, {151665, "<tool_response>"},
                 {151667, "<think>"},       {151668, "</think>"}};
    char dir[] = "/tmp/quern-rig-XXXXXX", path[3][64];
    err e = {0};
    FILE *from = popen("xz -dc " RIG_MERGES, "r");
    if (!from || !mkdtemp(dir)) rig_die("no merges");
    FILE *vocab = rig_create(path[0], sizeof path[0], dir, "vocab.json");
    FILE *merges = rig_create(path[1], sizeof path[1], dir, "merges.txt");
    FILE *added_file = rig_create(path[2], sizeof path[2], dir, "tokenizer_config.json");
    rig_write_vocab(vocab, merges, from);
    fputs("{\"eos_token\":\"<|im_end|>\",\"added_tokens_decoder\":{", added_file);
    for (size_t i = 0; i < sizeof added / sizeof *added; i++)
        fprintf(added_file, "%s\"%d\":{\"content\":\"%s\",\"special\":%s}", i ? "," : "",
                added[i].id, added[i].text, i < 3 ? "true" : "false");
    fputs("}}", added_file);
    fclose(vocab);
    fclose(merges);
    fclose(added_file);
    if (pclose(from)) rig_die("xz could not read " RIG_MERGES);
    const tokenizer_source src = {
        .vocab_json = path[0], .merges = path[1], .tokenizer_config = path[2]};
    tokenizer *t = tokenizer_open(&src, &e);
    if (!t) rig_die(e.msg);
    for (int i = 0; i < 3; i++) unlink(path[i]);
    rmdir(dir);
    return t;
}

static inline grammar_vocab *rig_vocab(const tokenizer *t)
{
    const int32_t end = RIG_END;
    grammar_vocab *v = NULL;
    err e = {0};
    if (grammar_vocab_new(t, RIG_ROWS, &end, 1, &v, &e)) rig_die(e.msg);
    return v;
}

/* Both, as a fixture for all tests of a case. */
static struct {
    tokenizer *tok;
    grammar_vocab *vocab;
} rig;

static inline void rig_open(void)
{
    rig.tok = rig_tokenizer();
    rig.vocab = rig_vocab(rig.tok);
}

static inline void rig_close(void)
{
    grammar_vocab_free(rig.vocab);
    tokenizer_free(rig.tok);
}

typedef struct {
    char *text;
    size_t n;
    bool valid;
} rig_instance;
typedef struct {
    char *id, *schema;
    size_t n_schema;
    rig_instance *instance; /* [n] */
    size_t n;
} rig_case;
typedef struct {
    rig_case *v;
    size_t n;
} rig_slice;

static inline char *rig_dump(const json *j, void (*write)(const json *, buf *), size_t *n)
{
    buf b = {0};
    write(j, &b);
    char *s = strndup(buf_str(&b), b.len);
    *n = b.len;
    buf_clear(&b);
    return s;
}

static inline void rig_read_case(rig_slice *s, const char *line, size_t n)
{
    const json *root;
    json_doc *d = json_parse(line, n, NULL, &root, NULL);
    if (!d) return; /* schemas with numbers beyond a double: no one's */
    s->v = realloc(s->v, (s->n + 1) * sizeof *s->v);
    rig_case *c = &s->v[s->n++];
    const json *tests = json_get(root, "tests");
    *c = (rig_case){.id = strdup(json_get(root, "id")->str),
                    .instance = calloc(tests->len + 1, sizeof *c->instance)};
    c->schema = rig_dump(json_get(root, "schema"), json_print, &c->n_schema);
    for (const json *t = tests->child; t; t = t->next) {
        rig_instance *i = &c->instance[c->n++];
        i->text = rig_dump(json_at(t, 0), json_dump, &i->n);
        i->valid = json_at(t, 1)->type == JSON_TRUE;
    }
    json_free(d);
}

/* Every nth case of the slice. */
static inline rig_slice rig_read_slice(size_t nth)
{
    rig_slice s = {0};
    char *line = NULL;
    size_t cap = 0, i = 0;
    FILE *f = popen("xz -dc " RIG_SLICE, "r");
    if (!f) rig_die("no slice");
    for (ssize_t n; (n = getline(&line, &cap, f)) > 0;)
        if (i++ % nth == 0) rig_read_case(&s, line, (size_t)n);
    free(line);
    if (pclose(f)) rig_die("xz could not read " RIG_SLICE);
    return s;
}

static inline void rig_free_slice(rig_slice *s)
{
    for (size_t i = 0; i < s->n; i++) {
        for (size_t k = 0; k < s->v[i].n; k++) free(s->v[i].instance[k].text);
        free(s->v[i].instance);
        free(s->v[i].id);
        free(s->v[i].schema);
    }
    free(s->v);
}

/* NULL where the schema is declined. */
static inline grammar *rig_compile(const rig_case *c, bool free_order)
{
    grammar *g = NULL;
    grammar_error why;
    const grammar_spec spec = {
        .kind = GRAMMAR_SCHEMA, .text = c->schema, .n = c->n_schema, .free_order = free_order};
    return grammar_compile(&spec, &g, &why) ? NULL : g;
}

static inline bool rig_allowed(const uint32_t *bits, int32_t id)
{
    return bits[id >> 5] >> (id & 31) & 1;
}

static inline uint32_t rig_random(uint64_t *s)
{
    *s = *s * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*s >> 33);
}

/* A token of the mask: any, often one of a byte, and towards the end one that closes something. */
static inline int32_t rig_draw(const uint32_t *bits, int32_t rows, int step, uint64_t *seed)
{
    static const char closing[] = "\"}],0:1an "; /* ids of single bytes: '!' is 0 */
    if (step > 40 && rig_random(seed) % 16)
        for (const char *s = closing; *s; s++) {
            int32_t id = *s == ' ' ? 220 : *s - '!';
            if (rig_allowed(bits, id)) return id;
        }
    int32_t t = (int32_t)(rig_random(seed) % (rig_random(seed) % 2 ? 256u : (uint32_t)rows));
    for (int32_t i = 0; i < rows; i++, t = (t + 1) % rows)
        if (rig_allowed(bits, t)) return t;
    return -1;
}

#endif
