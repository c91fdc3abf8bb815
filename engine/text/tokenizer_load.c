/* tokenizer_load.c - tokenizer.json, vocab.json + merges.txt and tokenizer_config.json of a Hugging
 * Face directory.
 * Refuses: whatever would make the ids differ from Hugging Face's: other models than BPE, other
 * normalizers than NFC, other pre-tokenizers than Split (Isolated) and ByteLevel.
 * Thread: the loading one. */
#include "engine/text/tokenizer_internal.h"

#include "base/file.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#define MAX_FILE (256u << 20)
#define MAX_TEMPLATE (1u << 20)

/* A parsed file; its owner calls json_free. */
static json_doc *parse_file(const char *path, const json **root, err *e)
{
    static const json_limits limits = {.max_depth = 64, .max_values = 8000000};
    json_doc *d = NULL;
    file_map m;
    if (file_map_open(path, &m, e)) return NULL;
    if (m.len <= MAX_FILE) {
        d = json_parse((const char *)m.v, m.len, &limits, root, e);
        if (!d) err_prefix(e, "%s", path);
    } else {
        err_set(e, ERR_LIMIT, "%s: %zu bytes; at most %u are accepted", path, m.len, MAX_FILE);
    }
    file_unmap(&m);
    if (d && (*root)->type != JSON_OBJECT) {
        err_set(e, ERR_FORMAT, "%s: a JSON object is expected, found %s", path,
                json_type_name(*root));
        json_free(d);
        d = NULL;
    }
    return d;
}

static bool str_is(const json *j, const char *s)
{
    return json_is(j, JSON_STRING) && j->len == strlen(s) && !memcmp(j->str, s, j->len);
}

/* Member is absent, null, or (for texts) empty. */
static bool is_unset(const json *j)
{
    return !j || j->type == JSON_NULL || (j->type == JSON_STRING && !j->len);
}

static bool is_true(const json *o, const char *key)
{
    return json_is(json_get(o, key), JSON_TRUE);
}

/* ---- vocabulary and merges ---- */

static int add_vocab(tokenizer *t, const json *vocab, size_t n_merges, err *e)
{
    if (!json_is(vocab, JSON_OBJECT))
        return err_set(e, ERR_FORMAT, "the vocabulary must be an object of token: id, found %s",
                       vocab ? json_type_name(vocab) : "nothing");
    int r = bpe_init(&t->vocab, vocab->len, n_merges, e);
    for (const json *j = vocab->child; j && r == 0; j = j->next) {
        int64_t id;
        if (!json_int(j, &id))
            r = err_set(e, ERR_FORMAT, "token \"%.64s\": an integer id is expected, found %s",
                        j->key, json_type_name(j));
        else r = bpe_add(&t->vocab, id, j->key, j->n_key, e);
    }
    return r;
}

/* "left right" with exactly one space. */
static int add_merge_text(tokenizer *t, uint32_t rank, const char *s, size_t n, err *e)
{
    const char *gap = memchr(s, ' ', n);
    if (!gap || memchr(gap + 1, ' ', n - (size_t)(gap + 1 - s)))
        return err_set(e, ERR_FORMAT,
                       "merge %u, \"%.*s\": two parts with one space between are expected", rank,
                       n > 64 ? 64 : (int)n, s);
    return bpe_add_merge(&t->vocab, rank, s, (size_t)(gap - s), gap + 1, n - (size_t)(gap + 1 - s),
                         e);
}

static int add_merges(tokenizer *t, const json *merges, err *e)
{
    uint32_t rank = 0;
    int r = 0;
    for (const json *j = merges->child; j && r == 0; j = j->next, rank++) {
        const json *a = json_at(j, 0), *b = json_at(j, 1);
        if (j->type == JSON_STRING) r = add_merge_text(t, rank, j->str, j->len, e);
        else if (j->type == JSON_ARRAY && j->len == 2 && json_is(a, JSON_STRING) &&
                 json_is(b, JSON_STRING))
            r = bpe_add_merge(&t->vocab, rank, a->str, a->len, b->str, b->len, e);
        else
            r = err_set(e, ERR_FORMAT,
                        "merge %u: \"left right\" or [\"left\", \"right\"] is expected", rank);
    }
    return r;
}

/* Settings of the BPE model that change ids and are not byte-level BPE's. */
static int check_model(const json *m, err *e)
{
    static const char *const unset[] = {"dropout", "continuing_subword_prefix",
                                        "end_of_word_suffix"};
    const json *type = json_get(m, "type");
    if (!json_is(m, JSON_OBJECT)) return err_set(e, ERR_FORMAT, "there is no \"model\" object");
    if (type && !str_is(type, "BPE"))
        return err_set(e, ERR_UNSUPPORTED,
                       "model type is \"%.40s\"; only byte-level BPE is supported",
                       json_is(type, JSON_STRING) ? type->str : json_type_name(type));
    for (size_t i = 0; i < sizeof unset / sizeof *unset; i++)
        if (!is_unset(json_get(m, unset[i])))
            return err_set(e, ERR_UNSUPPORTED,
                           "model sets \"%s\"; byte-level BPE without it is supported", unset[i]);
    if (is_true(m, "byte_fallback"))
        return err_set(
            e, ERR_UNSUPPORTED,
            "model sets \"byte_fallback\" (a SentencePiece conversion); only byte-level BPE is "
            "supported");
    return 0;
}

static int load_model(tokenizer *t, const json *m, err *e)
{
    int r = check_model(m, e);
    if (r) return r;
    const json *merges = json_get(m, "merges");
    if (!json_is(merges, JSON_ARRAY))
        return err_set(e, ERR_FORMAT, "model has no \"merges\" array");
    r = add_vocab(t, json_get(m, "vocab"), merges->len, e);
    t->vocab.ignore_merges = is_true(m, "ignore_merges");
    if (r == 0) r = add_merges(t, merges, e);
    return r ? r : bpe_seal(&t->vocab, e);
}

/* ---- normalizer and pre-tokenizer ---- */

static const char *type_of(const json *o)
{
    const json *type = json_get(o, "type");
    return json_is(type, JSON_STRING) ? type->str : "?";
}

static int load_normalizer(tokenizer *t, const json *n, int depth, err *e)
{
    if (!n || n->type == JSON_NULL) return 0;
    const json *list = json_get(n, "normalizers");
    if (!strcmp(type_of(n), "NFC")) {
        t->nfc = true;
        return 0;
    }
    if (strcmp(type_of(n), "Sequence") || !json_is(list, JSON_ARRAY) || depth > 4)
        return err_set(e, ERR_UNSUPPORTED,
                       "normalizer \"%.40s\"; none, NFC and a Sequence of these are supported",
                       type_of(n));
    int r = 0;
    for (const json *j = list->child; j && r == 0; j = j->next)
        r = load_normalizer(t, j, depth + 1, e);
    return r;
}

static int load_split(tokenizer *t, const json *p, err *e)
{
    const json *regex = json_get(json_get(p, "pattern"), "Regex");
    if (!str_is(json_get(p, "behavior"), "Isolated"))
        return err_set(e, ERR_UNSUPPORTED,
                       "pre-tokenizer Split has a behavior other than \"Isolated\"");
    if (!json_is(regex, JSON_STRING))
        return err_set(e, ERR_UNSUPPORTED,
                       "pre-tokenizer Split has a pattern that is no \"Regex\"");
    return pretok_add(&t->pre, regex->str, regex->len, e);
}

/* *bytes: a ByteLevel step was there. */
static int load_pre_tokenizer(tokenizer *t, const json *p, int depth, bool *bytes, err *e)
{
    const char *type = type_of(p);
    const json *list = json_get(p, "pretokenizers"), *use = json_get(p, "use_regex");
    if (*bytes)
        return err_set(e, ERR_UNSUPPORTED,
                       "pre-tokenizer \"%.40s\" follows ByteLevel, which must be last", type);
    if (!strcmp(type, "Split")) return load_split(t, p, e);
    if (!strcmp(type, "ByteLevel")) {
        if (is_true(p, "add_prefix_space"))
            return err_set(e, ERR_UNSUPPORTED,
                           "pre-tokenizer ByteLevel with \"add_prefix_space\" is not supported");
        *bytes = true;
        return json_is(use, JSON_FALSE) ? 0
                                        : pretok_add(&t->pre, PRETOK_GPT2, strlen(PRETOK_GPT2), e);
    }
    if (strcmp(type, "Sequence") || !json_is(list, JSON_ARRAY) || depth > 4)
        return err_set(e, ERR_UNSUPPORTED,
                       "pre-tokenizer \"%.40s\"; a Sequence of Split and ByteLevel, or ByteLevel, "
                       "is supported",
                       type);
    int r = 0;
    for (const json *j = list->child; j && r == 0; j = j->next)
        r = load_pre_tokenizer(t, j, depth + 1, bytes, e);
    return r;
}

/* ---- added tokens ---- */

int tokenizer_put_added(tokenizer *t, const added_token *a, err *e)
{
    int shown = a->len > 64 ? 64 : (int)a->len;
    if (a->id < 0 || a->id >= BPE_MAX_IDS)
        return err_set(e, ERR_FORMAT,
                       "added token \"%.*s\" has id %d; ids from 0 to %d are accepted", shown,
                       a->text, a->id, BPE_MAX_IDS - 1);
    size_t n;
    const char *piece = bpe_piece(&t->vocab, a->id, &n);
    /* Some files list added tokens in the vocabulary too; then both must agree. */
    if (piece && (n != a->len || memcmp(piece, a->text, n)))
        return err_set(
            e, ERR_FORMAT,
            "added token \"%.*s\" has id %d, which the vocabulary gives to another token", shown,
            a->text, a->id);
    return added_put(&t->added, a, e);
}

static int put_added_json(tokenizer *t, int64_t id, const json *o, err *e)
{
    const json *text = json_get(o, "content");
    if (!json_is(text, JSON_STRING) || id < 0 || id > INT32_MAX)
        return err_set(e, ERR_FORMAT,
                       "added token %lld: \"content\" must be a text and the id a small integer",
                       (long long)id);
    added_token a = {
        .text = (char *)text->str,
        .len = text->len,
        .id = (int32_t)id,
        .special = is_true(o, "special"),
        .single_word = is_true(o, "single_word"),
        .lstrip = is_true(o, "lstrip"),
        .rstrip = is_true(o, "rstrip"),
        .normalized = is_true(o, "normalized"),
    };
    return tokenizer_put_added(t, &a, e);
}

static int load_added(tokenizer *t, const json *list, err *e)
{
    int r = 0;
    if (!json_is(list, JSON_ARRAY)) return 0;
    for (const json *j = list->child; j && r == 0; j = j->next) {
        int64_t id = -1;
        const json *number = json_get(j, "id");
        if (number && !json_int(number, &id)) id = -1;
        r = put_added_json(t, id, j, e);
    }
    return r;
}

/* ---- post-processor ---- */

/* One item of a template: the text, or a special token, whose ids stand apart. */
static void put_template_item(tokenizer *t, const json *item, const json *tokens, bool *text)
{
    enum { MAX = sizeof t->text_end / sizeof *t->text_end };
    const json *special = json_get(item, "SpecialToken"), *name = json_get(special, "id");
    if (json_get(item, "Sequence")) *text = true;
    if (!special) return;
    const json *ids =
        json_get(json_get(tokens, json_is(name, JSON_STRING) ? name->str : ""), "ids");
    for (const json *j = json_is(ids, JSON_ARRAY) ? ids->child : NULL; j; j = j->next) {
        int64_t id;
        bool fits = *text && t->n_text_end >= 0 && t->n_text_end < MAX;
        if (!fits || !json_int(j, &id) || id < 0 || id >= BPE_MAX_IDS) t->n_text_end = -1;
        else t->text_end[t->n_text_end++] = (int32_t)id;
    }
}

/* What a text on its own is wrapped in; other processors than templates change no ids. */
static void load_post_processor(tokenizer *t, const json *p, int depth)
{
    bool text = false;
    const json *list = json_get(p, "processors"), *single = json_get(p, "single");
    if (str_is(json_get(p, "type"), "TemplateProcessing") && json_is(single, JSON_ARRAY))
        for (const json *j = single->child; j; j = j->next)
            put_template_item(t, j, json_get(p, "special_tokens"), &text);
    for (const json *j = json_is(list, JSON_ARRAY) && depth < 4 ? list->child : NULL; j;
         j = j->next)
        load_post_processor(t, j, depth + 1);
}

int tokenizer_load_json(tokenizer *t, const char *path, err *e)
{
    const json *root;
    bool bytes = false;
    json_doc *d = parse_file(path, &root, e);
    if (!d) return e ? e->code : ERR_FORMAT;
    int r = load_normalizer(t, json_get(root, "normalizer"), 0, e);
    if (r == 0) r = load_model(t, json_get(root, "model"), e);
    if (r == 0) r = load_pre_tokenizer(t, json_get(root, "pre_tokenizer"), 0, &bytes, e);
    if (r == 0 && !bytes)
        r = err_set(e, ERR_UNSUPPORTED,
                    "the pre-tokenizer has no ByteLevel step; only byte-level BPE is supported");
    if (r == 0) r = load_added(t, json_get(root, "added_tokens"), e);
    if (r == 0) load_post_processor(t, json_get(root, "post_processor"), 0);
    if (r) err_prefix(e, "%s", path);
    json_free(d);
    return r;
}

/* merges.txt: one merge a line after an optional "#version" line; blank lines at the end. */
static int add_merge_lines(tokenizer *t, const buf *text, err *e)
{
    uint32_t rank = 0;
    int r = 0;
    for (const char *s = buf_str(text), *end = s + text->len; s < end && r == 0;) {
        const char *eol = memchr(s, '\n', (size_t)(end - s));
        size_t n = (size_t)((eol ? eol : end) - s);
        if (n && s[n - 1] == '\r') n--;
        bool comment = n >= 8 && !memcmp(s, "#version", 8);
        if (n && !comment) r = add_merge_text(t, rank++, s, n, e);
        s = eol ? eol + 1 : end;
    }
    return r;
}

int tokenizer_load_vocab(tokenizer *t, const char *vocab_json, const char *merges, err *e)
{
    const json *root;
    buf text = {0};
    json_doc *d = NULL;
    int r = file_read(merges, MAX_FILE, &text, e);
    if (r) goto done;
    d = parse_file(vocab_json, &root, e);
    if (!d) {
        r = e ? e->code : ERR_FORMAT;
        goto done;
    }
    size_t lines = 1;
    for (size_t i = 0; i < text.len; i++) lines += text.v[i] == '\n';
    t->nfc = true;
    r = add_vocab(t, root, lines, e);
    if (r) {
        err_prefix(e, "%s", vocab_json);
        goto done;
    }
    r = add_merge_lines(t, &text, e);
    if (r == 0) r = bpe_seal(&t->vocab, e);
    if (r) err_prefix(e, "%s", merges);
    if (r == 0) r = pretok_add(&t->pre, PRETOK_QWEN2, strlen(PRETOK_QWEN2), e);
done:
    json_free(d);
    buf_clear(&text);
    return r;
}

/* ---- tokenizer_config.json ---- */

/* A special token is a text, an object with "content", or null.  NULL if unset. */
static const json *token_text(const json *root, const char *key)
{
    const json *j = json_get(root, key);
    if (json_is(j, JSON_OBJECT)) j = json_get(j, "content");
    return json_is(j, JSON_STRING) && j->len ? j : NULL;
}

/* chat_template: a text, or a list of {name, template} of which "default" is ours. */
static const json *template_text(const json *root)
{
    const json *j = json_get(root, "chat_template");
    if (!json_is(j, JSON_ARRAY)) return json_is(j, JSON_STRING) ? j : NULL;
    for (const json *i = j->child; i; i = i->next)
        if (str_is(json_get(i, "name"), "default") && json_is(json_get(i, "template"), JSON_STRING))
            return json_get(i, "template");
    return NULL;
}

static int load_decoder(tokenizer *t, const json *decoder, err *e)
{
    int r = 0;
    if (!json_is(decoder, JSON_OBJECT)) return 0;
    for (const json *j = decoder->child; j && r == 0; j = j->next) {
        char *end;
        long long id = strtoll(j->key, &end, 10);
        if (*end || !j->n_key) id = -1;
        r = put_added_json(t, id, j, e);
    }
    return r;
}

/* Id of a token named by the config, -1 if it has none. */
static int32_t named_id(const tokenizer *t, const json *text)
{
    if (!text) return -1;
    const added_token *a = added_by_text(&t->added, text->str, text->len);
    return a ? a->id : bpe_find(&t->vocab, text->str, text->len);
}

/* vocab.json does not say how text is split; the class does. */
static int check_class(const json *root, err *e)
{
    const json *c = json_get(root, "tokenizer_class");
    if (is_unset(c) || str_is(c, "Qwen2Tokenizer") || str_is(c, "Qwen2TokenizerFast")) return 0;
    return err_set(e, ERR_UNSUPPORTED,
                   "tokenizer_class is %.40s; vocab.json with merges.txt is supported for "
                   "Qwen2Tokenizer, others "
                   "need a tokenizer.json",
                   json_is(c, JSON_STRING) ? c->str : json_type_name(c));
}

int tokenizer_load_config(tokenizer *t, const char *path, bool slow, err *e)
{
    const json *root;
    json_doc *d = parse_file(path, &root, e);
    if (!d) return e ? e->code : ERR_FORMAT;
    int r = slow ? check_class(root, e) : 0;
    if (r == 0) r = load_decoder(t, json_get(root, "added_tokens_decoder"), e);
    const json *eos = token_text(root, "eos_token"), *bos = token_text(root, "bos_token");
    const json *chat = template_text(root);
    if (r == 0 && chat && chat->len > MAX_TEMPLATE)
        r = err_set(e, ERR_LIMIT, "chat_template has %zu bytes; at most %u are accepted", chat->len,
                    MAX_TEMPLATE);
    if (r == 0) {
        t->eos = named_id(t, eos);
        t->bos = named_id(t, bos);
        t->pad = named_id(t, token_text(root, "pad_token"));
        if (is_true(root, "add_eos_token") && t->eos >= 0 && !t->n_text_end)
            t->text_end[t->n_text_end++] = t->eos;
        if (eos) buf_put(&t->eos_text, eos->str, eos->len);
        if (bos) buf_put(&t->bos_text, bos->str, bos->len);
        if (chat) buf_put(&t->chat_template, chat->str, chat->len);
        t->has_chat_template = chat != NULL;
        if (!buf_ok(&t->eos_text) || !buf_ok(&t->bos_text) || !buf_ok(&t->chat_template))
            r = err_set(e, ERR_NOMEM, "out of memory for the chat template");
    }
    if (r) err_prefix(e, "%s", path);
    json_free(d);
    return r;
}
