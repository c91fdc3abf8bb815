/* tokenizer_gguf.c - the vocabulary that a GGUF file carries (tokenizer.ggml.*).
 * GGUF names the pre-tokenizer instead of giving its expression, and says nothing of NFC; the named
 * Qwen checkpoints normalise to NFC, so we do: ids equal those of the same checkpoint at Hugging
 * Face. Thread: the loading one. */
#include "engine/text/tokenizer_internal.h"

#include "config/gguf.h"

#include <string.h>

/* tokenizer.ggml.token_type */
enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5 };

static bool is(gguf_str s, const char *text)
{
    return s.n == strlen(text) && !memcmp(s.v, text, s.n);
}

static int load_pattern(tokenizer *t, const gguf *g, err *e)
{
    gguf_str pre, arch = {"", 0};
    const char *regex = NULL;
    (void)gguf_get_str(g, "general.architecture", &arch);
    if (!gguf_get_str(g, "tokenizer.ggml.pre", &pre)) {
        /* Files from before the key existed. */
        if (arch.n >= 4 && !memcmp(arch.v, "qwen", 4)) regex = PRETOK_QWEN2;
        pre = (gguf_str){"(absent)", 8};
    } else if (is(pre, "qwen2") || is(pre, "deepseek-r1-qwen")) {
        regex = PRETOK_QWEN2;
    } else if (is(pre, "qwen35")) {
        regex = PRETOK_QWEN35;
    }
    if (!regex)
        return err_set(
            e, ERR_UNSUPPORTED,
            "tokenizer.ggml.pre is \"%.*s\"; qwen2, deepseek-r1-qwen and qwen35 are supported",
            pre.n > 40 ? 40 : (int)pre.n, pre.v);
    return pretok_add(&t->pre, regex, strlen(regex), e);
}

/* Ordinary tokens to the vocabulary; control and user-defined ones are added tokens. */
static int load_tokens(tokenizer *t, const gguf *g, size_t n, err *e)
{
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        gguf_str s;
        int64_t type;
        if (!gguf_arr_str(g, "tokenizer.ggml.tokens", i, &s) ||
            !gguf_arr_int(g, "tokenizer.ggml.token_type", i, &type))
            return err_set(e, ERR_FORMAT,
                           "tokenizer.ggml.tokens or token_type cannot be read at %zu", i);
        if (type == TYPE_NORMAL) r = bpe_add(&t->vocab, (int64_t)i, s.v, s.n, e);
        if (type != TYPE_CONTROL && type != TYPE_USER) {
            if (type != TYPE_NORMAL && type != TYPE_UNUSED)
                r = err_set(e, ERR_UNSUPPORTED,
                            "token %zu has type %lld; normal (1), control (3), user-defined (4) "
                            "and unused (5) are "
                            "supported",
                            i, (long long)type);
            continue;
        }
        added_token a = {
            .text = (char *)s.v, .len = s.n, .id = (int32_t)i, .special = type == TYPE_CONTROL};
        r = tokenizer_put_added(t, &a, e);
    }
    return r;
}

static int load_merges(tokenizer *t, const gguf *g, size_t n, err *e)
{
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        gguf_str s;
        const char *gap;
        if (!gguf_arr_str(g, "tokenizer.ggml.merges", i, &s) || !(gap = memchr(s.v, ' ', s.n)))
            return err_set(e, ERR_FORMAT, "tokenizer.ggml.merges: entry %zu is not \"left right\"",
                           i);
        r = bpe_add_merge(&t->vocab, (uint32_t)i, s.v, (size_t)(gap - s.v), gap + 1,
                          s.n - (size_t)(gap + 1 - s.v), e);
    }
    return r;
}

static int32_t id_key(const gguf *g, const char *key, size_t n)
{
    int64_t id;
    return gguf_get_int(g, key, &id) && id >= 0 && (uint64_t)id < n ? (int32_t)id : -1;
}

/* Text of an added token for the template, "" for -1 and ordinary tokens. */
static void put_text(const tokenizer *t, int32_t id, buf *out)
{
    for (size_t i = 0; i < t->added.n; i++)
        if (t->added.v[i].id == id) buf_put(out, t->added.v[i].text, t->added.v[i].len);
}

int tokenizer_load_gguf(tokenizer *t, const gguf *g, err *e)
{
    gguf_str model = {"(absent)", 8}, text;
    gguf_type type;
    size_t n, n_types, n_merges;
    (void)gguf_get_str(g, "tokenizer.ggml.model", &model);
    if (!is(model, "gpt2"))
        return err_set(e, ERR_UNSUPPORTED,
                       "tokenizer.ggml.model is \"%.*s\"; byte-level BPE (\"gpt2\") is supported, "
                       "SentencePiece "
                       "vocabularies (\"llama\", as CodeQwen1.5's) are not",
                       model.n > 40 ? 40 : (int)model.n, model.v);
    if (!gguf_get_arr(g, "tokenizer.ggml.tokens", &type, &n) || type != GGUF_STR)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens is missing or no array of texts");
    if (!gguf_get_arr(g, "tokenizer.ggml.token_type", &type, &n_types) || n_types != n)
        return err_set(e, ERR_FORMAT,
                       "tokenizer.ggml.token_type is missing or not as long as tokens");
    if (!gguf_get_arr(g, "tokenizer.ggml.merges", &type, &n_merges) || type != GGUF_STR)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.merges is missing or no array of texts");
    t->nfc = true;
    int r = bpe_init(&t->vocab, n, n_merges, e);
    if (r == 0) r = load_pattern(t, g, e);
    if (r == 0) r = load_tokens(t, g, n, e);
    if (r == 0) r = load_merges(t, g, n_merges, e);
    if (r == 0) r = bpe_seal(&t->vocab, e);
    if (r) return r;
    t->eos = id_key(g, "tokenizer.ggml.eos_token_id", n);
    t->bos = id_key(g, "tokenizer.ggml.bos_token_id", n);
    t->pad = id_key(g, "tokenizer.ggml.padding_token_id", n);
    bool add_eos = false;
    if (gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &add_eos) && add_eos && t->eos >= 0)
        t->text_end[t->n_text_end++] = t->eos;
    put_text(t, t->eos, &t->eos_text);
    put_text(t, t->bos, &t->bos_text);
    if (gguf_get_str(g, "tokenizer.chat_template", &text)) {
        buf_put(&t->chat_template, text.v, text.n);
        t->has_chat_template = true;
    }
    if (gguf_get_str(g, "tokenizer.chat_template.rerank", &text)) {
        buf_put(&t->rerank_template, text.v, text.n);
        t->has_rerank_template = true;
    }
    return buf_ok(&t->chat_template) && buf_ok(&t->rerank_template)
               ? 0
               : err_set(e, ERR_NOMEM, "out of memory for the chat template");
}
