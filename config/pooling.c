/* pooling.c - see pooling.h.  Owns nothing. */
#include "config/pooling.h"

#include "base/buf.h"
#include "base/file.h"
#include "config/gguf.h"

#include <stdio.h>
#include <string.h>

enum { MAX_FILE = 1 << 20, MAX_CARD = 1 << 20 };

pooling pooling_default(void)
{
    return (pooling){.generates = true, .yes_id = -1, .no_id = -1};
}

static void set_embeds(pooling *p, pool_kind k)
{
    p->generates = false;
    p->embeds = true;
    p->kind = k;
}

static void set_scores(pooling *p, score_kind k)
{
    p->generates = false;
    p->score = k;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

/* ---- sentence-transformers: modules.json ----------------------------------------------------- */

/* dir/name[/sub]; false if name leads out of dir. */
static bool path_in(buf *out, const char *dir, const char *name, const char *file)
{
    bool plain = *name != '.';
    for (const char *s = name; *s; s++)
        plain = plain && (strchr("_.-", *s) || (*s >= '0' && *s <= '9') ||
                          (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z'));
    buf_printf(out, "%s/%s%s%s", dir, name, *name ? "/" : "", file);
    return plain && buf_ok(out);
}

static const struct {
    const char *key, *word; /* of older and newer files */
    pool_kind kind;
} ways[] = {
    {"pooling_mode_lasttoken", "lasttoken", POOL_LAST},
    {"pooling_mode_mean_tokens", "mean", POOL_MEAN},
    {"pooling_mode_cls_token", "cls", POOL_CLS},
};
enum { N_WAYS = sizeof ways / sizeof *ways };

const char *pooling_word(pool_kind k)
{
    return k == POOL_LAST ? "last" : k == POOL_MEAN ? "mean" : k == POOL_CLS ? "cls" : "none";
}

static int read_pooling_module(pooling *p, const json *o, const char *path, err *e)
{
    const json *mode = json_get(o, "pooling_mode");
    pool_kind found = POOL_NONE;
    for (const json *j = o->child; j; j = j->next) {
        bool word = j == mode && j->type == JSON_STRING;
        bool flag = !strncmp(j->key, "pooling_mode_", 13) && j->type == JSON_TRUE;
        if (!word && !flag) continue;
        pool_kind k = POOL_NONE;
        for (int i = 0; i < N_WAYS; i++)
            if (!strcmp(word ? j->str : j->key, word ? ways[i].word : ways[i].key))
                k = ways[i].kind;
        if (k == POOL_NONE || found != POOL_NONE)
            return err_set(e, ERR_UNSUPPORTED,
                           "%s: pooling by '%.40s'%s is not supported; one of lasttoken, "
                           "mean_tokens and cls_token is",
                           path, word ? j->str : j->key, found ? " beside another way" : "");
        found = k;
    }
    if (!found) return err_set(e, ERR_FORMAT, "%s: no way of pooling is switched on", path);
    set_embeds(p, found);
    return 0;
}

static int read_score_module(pooling *p, const json *o, const char *path, err *e)
{
    if (!json_int(json_get(o, "true_token_id"), &p->yes_id) || p->yes_id < 0)
        return err_set(e, ERR_FORMAT, "%s: 'true_token_id' must be a token id", path);
    if (!json_int(json_get(o, "false_token_id"), &p->no_id) || p->no_id < 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: 'false_token_id' must be a token id; a score of one logit alone is not "
                       "supported",
                       path);
    set_scores(p, SCORE_IDS);
    return 0;
}

static int read_module(pooling *p, const char *dir, const json *m, err *e)
{
    const json *type = json_get(m, "type"), *at = json_get(m, "path");
    if (!json_is(type, JSON_STRING) || !json_is(at, JSON_STRING))
        return err_set(e, ERR_FORMAT, "modules.json: every module needs 'type' and 'path'");
    const char *dot = strrchr(type->str, '.'), *name = dot ? dot + 1 : type->str;
    bool pools = !strcmp(name, "Pooling"), scores = !strcmp(name, "LogitScore");
    if (!strcmp(name, "Transformer") || !strcmp(name, "Normalize")) return 0;
    if (!pools && !scores)
        return err_set(e, ERR_UNSUPPORTED,
                       "modules.json: the module '%.60s' is not supported; Transformer, Pooling, "
                       "Normalize and LogitScore are",
                       name);
    buf path = {0};
    const json *o;
    int rc = 0;
    if (!path_in(&path, dir, at->str, "config.json"))
        rc = err_set(e, ERR_FORMAT, "modules.json: '%.60s' is no directory of the checkpoint",
                     at->str);
    json_doc *d = rc ? NULL : json_read(path.v, MAX_FILE, NULL, &o, e);
    if (!rc && !d) rc = e->code;
    else if (!rc && o->type != JSON_OBJECT)
        rc = err_set(e, ERR_FORMAT, "%s is no JSON object", path.v);
    else if (!rc)
        rc = pools ? read_pooling_module(p, o, path.v, e) : read_score_module(p, o, path.v, e);
    json_free(d);
    buf_clear(&path);
    return rc;
}

/* *any: there are modules that say what the states become. */
static int read_modules(pooling *p, const char *dir, bool *any, err *e)
{
    buf path = {0};
    const json *list;
    int rc = 0;
    path_in(&path, dir, "", "modules.json");
    if (buf_ok(&path) && file_exists(path.v)) {
        json_doc *d = json_read(path.v, MAX_FILE, NULL, &list, e);
        if (!d) rc = e->code;
        else if (list->type != JSON_ARRAY)
            rc = err_set(e, ERR_FORMAT, "modules.json: an array is expected");
        for (const json *m = d && !rc ? list->child : NULL; m && !rc; m = m->next)
            rc = read_module(p, dir, m, e);
        json_free(d);
    }
    buf_clear(&path);
    *any = !p->generates;
    return rc;
}

/* ---- the class and the model card ------------------------------------------------------------ */

/* "pipeline_tag: x" of the front matter of README.md into word[n]; "" if there is none. */
static void read_card(const char *dir, char *word, size_t n)
{
    buf path = {0}, text = {0};
    err ignored = {0};
    word[0] = 0;
    path_in(&path, dir, "", "README.md");
    bool there = buf_ok(&path) && file_exists(path.v) && !file_is_dir(path.v);
    if (there && !file_read(path.v, MAX_CARD, &text, &ignored) &&
        !strncmp(buf_str(&text), "---\n", 4)) {
        static const char key[] = "pipeline_tag:";
        const char *end = strstr(text.v + 3, "\n---"), *at = strstr(text.v, key);
        while (at && at[-1] != '\n') at = strstr(at + 1, key);
        if (end && at && at < end) {
            at += sizeof key - 1;
            at += strspn(at, " \"'");
            snprintf(word, n, "%.*s", (int)strcspn(at, " \"'\r\n"), at);
        }
    }
    buf_clear(&text);
    buf_clear(&path);
}

static int read_class(pooling *p, const char *dir, const json *config, const char *class_name,
                      err *e)
{
    char task[64];
    if (ends_with(class_name, "ForSequenceClassification")) {
        const json *labels = json_get(config, "id2label");
        int64_t n = json_is(labels, JSON_OBJECT) ? (int64_t)labels->len : 2;
        json_int(json_get(config, "num_labels"), &n);
        if (n != 1)
            return err_set(e, ERR_UNSUPPORTED,
                           "config.json: a classifier of %lld labels is not supported; a reranker "
                           "has one",
                           (long long)n);
        set_scores(p, SCORE_TENSOR);
        return 0;
    }
    if (!strcmp(class_name, "Qwen2Model") || !strcmp(class_name, "Qwen3Model")) {
        set_embeds(p, POOL_LAST);
        return 0;
    }
    read_card(dir, task, sizeof task);
    if (!strcmp(task, "text-ranking")) set_scores(p, SCORE_WORDS);
    else if (!strcmp(task, "feature-extraction") || !strcmp(task, "sentence-similarity"))
        set_embeds(p, POOL_LAST);
    return 0;
}

/* Lengths of vectors the checkpoint was trained for. */
static int read_matryoshka(pooling *p, const json *config, const char *model_type, err *e)
{
    const json *list = json_get(config, "matryoshka_dimensions");
    /* Qwen3-Embedding is and does not say so. */
    p->matryoshka = json_is(json_get(config, "is_matryoshka"), JSON_TRUE) ||
                    (!strcmp(model_type, "qwen3") && p->kind == POOL_LAST);
    if (!json_is(list, JSON_ARRAY) || !list->len) return 0;
    p->matryoshka = true;
    for (const json *j = list->child; j; j = j->next) {
        int64_t n = 0;
        if (p->n_dims == POOL_MAX_DIMS || !json_int(j, &n) || n < 1)
            return err_set(e, ERR_FORMAT,
                           "config.json: 'matryoshka_dimensions' must be at most %d lengths",
                           POOL_MAX_DIMS);
        p->dims[p->n_dims++] = n;
    }
    return 0;
}

int pooling_from_dir(pooling *p, const char *dir, const json *config, const char *class_name,
                     const char *model_type, err *e)
{
    bool modules = false;
    *p = pooling_default();
    int rc = read_modules(p, dir, &modules, e);
    if (!rc && !modules) rc = read_class(p, dir, config, class_name, e);
    if (rc || !p->embeds) return rc;
    p->end_token = !strcmp(model_type, "qwen3") && p->kind == POOL_LAST;
    return read_matryoshka(p, config, model_type, e);
}

/* ---- GGUF ------------------------------------------------------------------------------------ */

static bool label_is(gguf_str s, const char *word)
{
    return s.n == strlen(word) && !memcmp(s.v, word, s.n);
}

/* What the two rows that judge are for; without labels, yes and no. */
static int read_labels(pooling *p, const gguf *g, const char *arch, err *e)
{
    const gguf_tensor *t = gguf_tensor_find(g, POOL_GGUF_TENSOR);
    char key[160];
    gguf_str first, second;
    snprintf(key, sizeof key, "%.64s.classifier.output_labels", arch);
    bool one = t && (t->n_dims < 2 || t->dim[1] < 2);
    if (one || !gguf_arr_str(g, key, 0, &first)) return 0;
    bool two = gguf_arr_str(g, key, 1, &second);
    p->no_first = two && label_is(first, "no") && label_is(second, "yes");
    if (p->no_first || (two && label_is(first, "yes") && label_is(second, "no"))) return 0;
    return err_set(e, ERR_UNSUPPORTED,
                   "GGUF metadata: '%s' begins with '%.*s': a classifier is not supported; a "
                   "reranker has the labels yes and no",
                   key, first.n > 40 ? 40 : (int)first.n, first.v);
}

static bool has_key(const gguf *g, const char *key)
{
    gguf_str k;
    gguf_type type;
    size_t i = 0, n = strlen(key);
    while (gguf_kv_at(g, i, &k, &type) && (k.n != n || memcmp(k.v, key, n))) i++;
    return i < gguf_n_kv(g);
}

int pooling_from_gguf(pooling *p, const gguf *g, const char *arch, err *e)
{
    enum { NONE, MEAN, CLS, LAST, RANK };
    char key[160];
    int64_t type = NONE;
    *p = pooling_default();
    snprintf(key, sizeof key, "%.64s.pooling_type", arch);
    if (!gguf_get_int(g, key, &type) && has_key(g, key))
        return err_set(e, ERR_FORMAT, "GGUF metadata: '%s' must be an integer", key);
    switch (type) {
    case NONE: break;
    case MEAN: set_embeds(p, POOL_MEAN); break;
    case CLS: set_embeds(p, POOL_CLS); break;
    case LAST: set_embeds(p, POOL_LAST); break;
    case RANK:
        /* Without rows of their own, yes and no are tokens of the output matrix like others. */
        set_scores(p, gguf_tensor_find(g, POOL_GGUF_TENSOR) ? SCORE_TENSOR : SCORE_WORDS);
        break;
    default:
        return err_set(e, ERR_UNSUPPORTED,
                       "GGUF metadata: '%s' is %lld, a way of pooling that is not supported; 1 "
                       "(mean), 2 (cls), 3 (last) and 4 (rank) are",
                       key, (long long)type);
    }
    p->end_token = p->matryoshka = p->kind == POOL_LAST && !strcmp(arch, "qwen3");
    return p->score ? read_labels(p, g, arch, e) : 0;
}

/* ---- options --------------------------------------------------------------------------------- */

int pooling_override(pooling *p, bool embeddings, const char *word, err *e)
{
    if (word && !strcmp(word, "auto")) word = NULL;
    if (word && !strcmp(word, "rank")) {
        if (p->score == SCORE_NONE) set_scores(p, SCORE_WORDS);
        if (!embeddings) p->embeds = false;
        word = NULL;
    } else if (word && !embeddings && !p->embeds) {
        return err_set(e, ERR_INVALID,
                       "--pooling %s: this checkpoint gives embeddings only with --embeddings",
                       word);
    }
    if (embeddings && !p->embeds) {
        p->embeds = true;
        p->kind = POOL_MEAN;
    }
    for (int i = POOL_LAST; word && i <= POOL_CLS; i++)
        if (!strcmp(word, pooling_word((pool_kind)i))) p->kind = (pool_kind)i;
    return 0;
}
