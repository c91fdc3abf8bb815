/* gguf_meta_tok.c - a Hugging Face tokenizer as tokenizer.* keys.  Owns the token table while it
 * is being gathered.  Refuses: no byte-level BPE, a pre-tokenizer without a GGUF name, ids beyond
 * the model's vocabulary, two tokens with one id.  Thread: the caller's. */
#include "base/file.h"
#include "base/log.h"
#include "engine/gguf_meta.h"
#include "engine/text/pretok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 256 << 20 };
/* tokenizer.ggml.token_type */
enum { TOK_NORMAL = 1, TOK_CONTROL = 3, TOK_USER = 4, TOK_UNUSED = 5 };

typedef struct {
    const char *s; /* borrowed from a JSON document, NULL = unused id */
    size_t n;
    int type;
} token;

typedef struct {
    json_doc *doc[2]; /* tokenizer_config.json; tokenizer.json or vocab.json */
    int n_doc;
    buf merges; /* merges.txt */
    token *v;   /* [n] owned */
    int64_t n;
} token_table;

static const json *read_json(token_table *t, const char *path, err *e)
{
    static const json_limits limits = {.max_depth = 64, .max_values = 8000000};
    const json *root = NULL;
    json_doc *d = NULL;
    buf text = {0};
    if (!file_read(path, MAX_FILE, &text, e)) {
        d = json_parse(buf_str(&text), text.len, &limits, &root, e);
        if (d) t->doc[t->n_doc++] = d;
        else err_prefix(e, "%s", path);
    }
    buf_clear(&text);
    return d ? root : NULL;
}

static void table_clear(token_table *t)
{
    for (int i = 0; i < t->n_doc; i++) json_free(t->doc[i]);
    buf_clear(&t->merges);
    free(t->v);
}

static int put_token(token_table *t, const char *s, size_t n, int64_t id, int type, err *e)
{
    if (id < 0 || id >= t->n)
        return err_set(e, ERR_FORMAT, "token %.64s has id %lld; the model's vocab_size is %lld", s,
                       (long long)id, (long long)t->n);
    token *k = &t->v[id];
    bool again =
        k->s && k->n == n && !memcmp(k->s, s, n); /* an added token listed in the vocab too */
    if (k->s && !again)
        return err_set(e, ERR_FORMAT, "tokens %.64s and %.64s share id %lld", k->s, s,
                       (long long)id);
    *k = (token){s, n, type};
    return 0;
}

static int put_vocab(token_table *t, const json *vocab, err *e)
{
    if (!json_is(vocab, JSON_OBJECT))
        return err_set(e, ERR_FORMAT, "the tokenizer has no vocabulary object");
    for (const json *j = vocab->child; j; j = j->next) {
        int64_t id;
        if (!json_int(j, &id))
            return err_set(e, ERR_FORMAT, "token %.64s has no integer id", j->key);
        int rc = put_token(t, j->key, j->n_key, id, TOK_NORMAL, e);
        if (rc) return rc;
    }
    return 0;
}

/* {"content": ..., "special": ...} of tokenizer.json or of added_tokens_decoder. */
static int put_added(token_table *t, const json *j, int64_t id, err *e)
{
    const json *s = json_get(j, "content");
    if (!json_is(s, JSON_STRING))
        return err_set(e, ERR_FORMAT, "added token %lld has no content", (long long)id);
    bool special = json_is(json_get(j, "special"), JSON_TRUE);
    return put_token(t, s->str, s->len, id, special ? TOK_CONTROL : TOK_USER, e);
}

/* ---- merges ------------------------------------------------------------------------------------
 */

static int write_merge_list(gguf_writer *w, const json *merges, err *e)
{
    if (!json_is(merges, JSON_ARRAY)) return err_set(e, ERR_FORMAT, "the tokenizer has no merges");
    gw_array(w, "tokenizer.ggml.merges", GGUF_STR, merges->len);
    buf pair = {0};
    int rc = 0;
    for (const json *j = merges->child; j && !rc; j = j->next) {
        const json *a = json_at(j, 0), *b = json_at(j, 1);
        if (json_is(j, JSON_STRING)) {
            gw_item_str(w, j->str, j->len);
        } else if (json_is(a, JSON_STRING) && json_is(b, JSON_STRING) && j->len == 2) {
            buf_reset(&pair);
            buf_put(&pair, a->str, a->len);
            buf_putc(&pair, ' ');
            buf_put(&pair, b->str, b->len);
            if (!buf_ok(&pair)) rc = err_set(e, ERR_NOMEM, "out of memory");
            gw_item_str(w, buf_str(&pair), pair.len);
        } else {
            rc = err_set(e, ERR_FORMAT, "a merge is neither \"a b\" nor [\"a\", \"b\"]");
        }
    }
    buf_clear(&pair);
    return rc;
}

/* Lines of merges.txt; calls the writer for each if w is not NULL.  Returns how many. */
static size_t merge_lines(const buf *text, gguf_writer *w)
{
    size_t n = 0;
    for (size_t at = 0; at < text->len;) {
        const char *line = text->v + at, *end = memchr(line, '\n', text->len - at);
        size_t len = end ? (size_t)(end - line) : text->len - at;
        at += len + 1;
        if (len && line[len - 1] == '\r') len--;
        if (!len || (n == 0 && !strncmp(line, "#version", 8))) continue;
        if (w) gw_item_str(w, line, len);
        n++;
    }
    return n;
}

/* ---- the pre-tokenizer's name ------------------------------------------------------------------
 */

/* The regular expression of the Split step, NULL if there is none. */
static const json *split_regex(const json *tokenizer)
{
    const json *pre = json_get(tokenizer, "pre_tokenizer"), *list = json_get(pre, "pretokenizers");
    const json *step = list ? json_at(list, 0) : pre;
    return json_get(json_get(step, "pattern"), "Regex");
}

static const char *pre_name(const json *tokenizer, err *e)
{
    const json *re = split_regex(tokenizer);
    if (json_is(re, JSON_STRING)) {
        if (!strcmp(re->str, PRETOK_QWEN2)) return "qwen2";
        if (!strcmp(re->str, PRETOK_QWEN35)) return "qwen35";
    }
    err_set(e, ERR_UNSUPPORTED,
            "tokenizer.json splits text by an expression that GGUF has no name for (known: qwen2, "
            "qwen35): keep the directory form");
    return NULL;
}

/* A reader of GGUF assumes NFC and plain merging: say where this tokenizer differs. */
static void warn_lost(const json *tokenizer)
{
    const json *n = json_get(tokenizer, "normalizer"), *type = json_get(n, "type");
    if (!json_is(type, JSON_STRING) || strcmp(type->str, "NFC"))
        log_warn("the tokenizer does not normalise to NFC; readers of GGUF files do");
    if (json_is(json_get(json_get(tokenizer, "model"), "ignore_merges"), JSON_TRUE))
        log_warn("the tokenizer's ignore_merges has no GGUF key: some ids may differ");
}

/* ---- putting it together -----------------------------------------------------------------------
 */

static void write_tokens(gguf_writer *w, const token_table *t)
{
    gw_array(w, "tokenizer.ggml.tokens", GGUF_STR, (size_t)t->n);
    for (int64_t i = 0; i < t->n; i++) {
        char pad[32];
        int n = snprintf(pad, sizeof pad, "[PAD%lld]", (long long)i);
        if (t->v[i].s) gw_item_str(w, t->v[i].s, t->v[i].n);
        else gw_item_str(w, pad, (size_t)n);
    }
    gw_array(w, "tokenizer.ggml.token_type", GGUF_I32, (size_t)t->n);
    for (int64_t i = 0; i < t->n; i++)
        gw_item_int(w, GGUF_I32, t->v[i].s ? t->v[i].type : TOK_UNUSED);
}

/* Id of the token tokenizer_config.json names under key ("x" or {"content": "x"}), or -1. */
static int64_t named_token(const token_table *t, const json *config, const char *key)
{
    const json *j = json_get(config, key);
    if (json_is(j, JSON_OBJECT)) j = json_get(j, "content");
    if (!json_is(j, JSON_STRING)) return -1;
    for (int64_t i = t->n - 1; i >= 0; i--)
        if (t->v[i].s && t->v[i].n == j->len && !memcmp(t->v[i].s, j->str, j->len)) return i;
    return -1;
}

/* text_end: the token behind every text of an embedding model, or -1.  There it is the end, and
 * what ends a turn stands beside it. */
static void write_special(gguf_writer *w, const token_table *t, const json *config,
                          const generation_config *g, int32_t text_end)
{
    int64_t eos = g->n_eos ? g->eos[0] : named_token(t, config, "eos_token");
    int64_t pad = named_token(t, config, "pad_token"), bos = named_token(t, config, "bos_token");
    int64_t turn_end = g->n_eos > 1 ? g->eos[1] : -1;
    if (text_end >= 0) {
        turn_end = eos != text_end ? eos : turn_end;
        eos = text_end;
    }
    if (pad < 0) pad = g->pad;
    if (bos < 0) bos = g->bos;
    if (eos >= 0) gw_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)eos);
    if (turn_end >= 0) gw_u32(w, "tokenizer.ggml.eot_token_id", (uint32_t)turn_end);
    if (pad >= 0) gw_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)pad);
    if (bos >= 0) gw_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
    bool add_bos = json_is(json_get(config, "add_bos_token"), JSON_TRUE);
    gw_int(w, "tokenizer.ggml.add_bos_token", GGUF_BOOL, add_bos);
    if (text_end >= 0) gw_int(w, "tokenizer.ggml.add_eos_token", GGUF_BOOL, true);
}

/* The file chat_template.jinja wins over tokenizer_config.json, where the template is a string or
 * a list of {"name", "template"} of which "default" counts. */
static int write_template(gguf_writer *w, const char *path, const json *config, err *e)
{
    static const char key[] = "tokenizer.chat_template";
    if (path) {
        buf b = {0};
        int rc = file_read(path, MAX_FILE, &b, e);
        if (!rc) gw_str(w, key, buf_str(&b), b.len);
        buf_clear(&b);
        return rc;
    }
    const json *t = json_get(config, "chat_template");
    if (json_is(t, JSON_ARRAY))
        for (const json *j = t->child; j; j = j->next) {
            const json *name = json_get(j, "name");
            if (!json_is(name, JSON_STRING) || strcmp(name->str, "default")) continue;
            t = json_get(j, "template");
            break;
        }
    if (json_is(t, JSON_STRING)) gw_str(w, key, t->str, t->len);
    return 0;
}

static int from_tokenizer_json(gguf_writer *w, token_table *t, const char *path, err *e)
{
    const json *root = read_json(t, path, e), *m = json_get(root, "model");
    if (!root) return e ? e->code : ERR_FORMAT;
    const json *type = json_get(m, "type");
    if (json_is(type, JSON_STRING) && strcmp(type->str, "BPE"))
        return err_set(e, ERR_UNSUPPORTED, "%s: model type %.32s; only BPE has GGUF keys here",
                       path, type->str);
    const char *pre = pre_name(root, e);
    if (!pre) return ERR_UNSUPPORTED;
    warn_lost(root);
    gw_str(w, "tokenizer.ggml.pre", pre, strlen(pre));
    int rc = put_vocab(t, json_get(m, "vocab"), e);
    const json *added = json_get(root, "added_tokens");
    for (const json *j = json_is(added, JSON_ARRAY) ? added->child : NULL; j && !rc; j = j->next) {
        int64_t id = -1;
        json_int(json_get(j, "id"), &id);
        rc = put_added(t, j, id, e);
    }
    return rc ? rc : write_merge_list(w, json_get(m, "merges"), e);
}

/* vocab.json and merges.txt: the form of the first Qwen2 tokenizers, always their expression. */
static int from_vocab(gguf_writer *w, token_table *t, const checkpoint_text *f, const json *config,
                      err *e)
{
    const json *vocab = read_json(t, f->vocab_json, e);
    if (!vocab) return e ? e->code : ERR_FORMAT;
    gw_str(w, "tokenizer.ggml.pre", "qwen2", strlen("qwen2"));
    int rc = put_vocab(t, vocab, e);
    const json *added = json_get(config, "added_tokens_decoder");
    for (const json *j = json_is(added, JSON_OBJECT) ? added->child : NULL; j && !rc; j = j->next)
        rc = put_added(t, j, strtoll(j->key, NULL, 10), e);
    if (!rc) rc = file_read(f->merges, MAX_FILE, &t->merges, e);
    if (rc) return rc;
    gw_array(w, "tokenizer.ggml.merges", GGUF_STR, merge_lines(&t->merges, NULL));
    merge_lines(&t->merges, w);
    return 0;
}

int gguf_meta_tokenizer(gguf_writer *w, const checkpoint *c, int32_t text_end, err *e)
{
    checkpoint_text f = checkpoint_text_files(c);
    if (!f.tokenizer_json && !(f.vocab_json && f.merges)) {
        log_warn("the checkpoint has no tokenizer: the GGUF file will hold weights only");
        return 0;
    }
    token_table t = {.n = checkpoint_config(c)->vocab};
    const json *config = NULL;
    int rc = 0;
    t.v = calloc((size_t)t.n, sizeof *t.v);
    if (!t.v) return err_set(e, ERR_NOMEM, "out of memory for %lld tokens", (long long)t.n);
    if (f.tokenizer_config && !(config = read_json(&t, f.tokenizer_config, e)))
        rc = e ? e->code : ERR_FORMAT;
    gw_str(w, "tokenizer.ggml.model", "gpt2", strlen("gpt2"));
    if (!rc)
        rc = f.tokenizer_json ? from_tokenizer_json(w, &t, f.tokenizer_json, e)
                              : from_vocab(w, &t, &f, config, e);
    if (!rc) {
        write_tokens(w, &t);
        write_special(w, &t, config, &checkpoint_config(c)->gen, text_end);
        rc = write_template(w, f.chat_template, config, e);
    }
    table_clear(&t);
    return rc;
}
